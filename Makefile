# Trestle. `make help` lists what can be asked for.
#
# One flavour, one directory: build/release, or build/address-undefined with SANITIZE=address,undefined. Each module becomes a
# lib<module>.a that programs and tests link. Nothing has to be installed by hand: targets ask packaging/deps.sh first, which does
# nothing on a machine that lacks nothing.
SHELL := /bin/bash
.DEFAULT_GOAL := all
VERSION := 0.1.0
MODULES := base netlink ipam gossip driver http plugin control daemon cli cni
BENCHES := attach cni footprint gossip sim

comma := ,
FLAVOUR ?= $(if $(SANITIZE),$(subst $(comma),-,$(SANITIZE)),release)
B := build/$(FLAVOUR)
Q := $(if $(V),,@)
say = $(if $(V),,@echo "  $(1)")

CC ?= gcc
CFLAGS ?= -O2 -g
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 60

WARN := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wformat=2 -fno-common
# The root is searched with quotes only: err.h and log.h of ours must not shadow those of the system.
OWN_CFLAGS := -std=gnu11 -D_GNU_SOURCE -DTRESTLE_VERSION='"$(VERSION)"' $(WARN) $(if $(WERROR),-Werror) -iquote . \
	-fstack-protector-strong -fPIE
OWN_LDFLAGS := -pie -Wl,--as-needed -Wl,-z,relro,-z,now
STATIC_LIBS := -levent_extra -levent_core -ljansson -lnftnl -lsodium -lsqlite3
LIBS := -Wl,-Bstatic $(STATIC_LIBS) -Wl,-Bdynamic -lm -lpthread
ifdef SANITIZE
OWN_CFLAGS += -fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=undefined
OWN_LDFLAGS += -fsanitize=$(SANITIZE)
else
OWN_CFLAGS += -D_FORTIFY_SOURCE=2
endif
ifdef FUZZER
OWN_CFLAGS += -fsanitize=fuzzer-no-link
endif

# ---- What there is to build ----

sources = $(wildcard $(1)/*.c $(1)/*/*.c)
objects = $(patsubst %.c,$(B)/%.o,$(filter-out %/main.c,$(call sources,$(1))))
programs_of = $(patsubst %.c,$(B)/%,$(wildcard $(1)))
ARCHIVES := $(MODULES:%=$(B)/lib%.a)
PROGRAMS := $(addprefix $(B)/,trestled trestle trestle-cni)
UNIT := $(call programs_of,tests/unit/test_*.c)
SIM_MAINS := $(shell grep -ls '^int main\>' tests/sim/*.c)
SIM := $(call programs_of,$(SIM_MAINS))
MODEL := $(call programs_of,tests/model/*.c)
FUZZ := $(call programs_of,tests/fuzz/fuzz_*.c)
LOAD := $(call programs_of,tests/load/*.c)
# Everything else in tests/sim is shared by its programs.
SIM_SHARED := $(patsubst %.c,$(B)/%.o,$(filter-out $(SIM_MAINS),$(wildcard tests/sim/*.c)))
C_SOURCES := $(foreach m,$(MODULES),$(call sources,$(m))) $(wildcard tests/*/*.c)
C_FILES := $(C_SOURCES) $(foreach m,$(MODULES),$(wildcard $(m)/*.h $(m)/*/*.h)) $(wildcard tests/*/*.h)

all: $(PROGRAMS) ## the programs, into build/release
unit: $(UNIT)
sim: $(SIM)
model: $(MODEL)
fuzz-replay: $(FUZZ)
load: $(LOAD)

define archive
$(B)/lib$(1).a: $(call objects,$(1))
	@rm -f $$@
	$$(Q)ar rcs $$@ $$^
endef
$(foreach m,$(MODULES),$(eval $(call archive,$(m))))

small = $(if $(SANITIZE),,$(if $(filter -O2,$(CFLAGS)),-Os))
# Written anew only when the command line changed; every object depends on it.
$(B)/flags: always
	@mkdir -p $(@D)
	@printf '%s\n' "$$FLAGS" | cmp -s - $@ || printf '%s\n' "$$FLAGS" >$@
$(B)/flags: export FLAGS = $(CC) $(OWN_CFLAGS) $(CFLAGS), some with $(call small)

# Room before speed where no packet of the cluster passes: pages of code that are not there are not mapped.
SMALL := $(foreach m,netlink ipam driver http plugin control daemon,$(call objects,$(m)))
$(SMALL): SIZE := $(call small)
$(B)/%.o: %.c $(B)/flags | deps
	@mkdir -p $(@D)
	$(call say,CC    $<)
	$(Q)$(CC) $(OWN_CFLAGS) $(CFLAGS) $(SIZE) -MMD -MP -c $< -o $@
$(UNIT:%=%.o) $(SIM:%=%.o) $(SIM_SHARED): | deps-test

# What a runtime starts for every operation brings its libraries along instead of having them looked up; the sanitizers cannot.
STATIC := $(if $(SANITIZE),$(OWN_LDFLAGS),-static -Wl,-z,relro,-z,now)
# The daemon, which every host keeps in memory, likewise. daemon/absent.c has what is wrapped.
ABSENT := getaddrinfo freeaddrinfo getservbyname getprotobynumber dlopen dlsym dlerror dlclose
STATIC_PIE := $(if $(SANITIZE),$(OWN_LDFLAGS),-static-pie -Wl,-z,relro,-z,now $(ABSENT:%=-Wl,--wrap=%))
link = $(Q)$(CC) $(OWN_LDFLAGS) $(LDFLAGS) -o $@ $(1) -Wl,--start-group $(ARCHIVES) -Wl,--end-group $(LIBS) $(2)

$(B)/trestled: $(B)/daemon/main.o $(ARCHIVES)
	$(call say,LINK  $@)
	$(Q)$(CC) $(STATIC_PIE) $(LDFLAGS) -o $@ $< -Wl,--start-group $(ARCHIVES) $(STATIC_LIBS) -Wl,--end-group -lm -lpthread
$(B)/trestle: $(B)/cli/main.o $(ARCHIVES)
	$(call say,LINK  $@)
	$(call link,$<)
$(B)/trestle-cni: $(B)/cni/main.o $(B)/libcni.a $(B)/libcontrol.a $(B)/libbase.a
	$(call say,LINK  $@)
	$(Q)$(CC) $(STATIC) $(LDFLAGS) -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group -ljansson
$(B)/tests/unit/%: $(B)/tests/unit/%.o $(ARCHIVES)
	$(call say,LINK  $@)
	$(call link,$<,-lcmocka)
$(B)/tests/model/%: $(B)/tests/model/%.o $(ARCHIVES)
	$(call say,LINK  $@)
	$(call link,$<)
$(B)/tests/sim/%: $(B)/tests/sim/%.o $(SIM_SHARED) $(ARCHIVES)
	$(call say,LINK  $@)
	$(call link,$< $(SIM_SHARED),-lcmocka)
$(B)/tests/load/%: $(B)/tests/load/%.o $(ARCHIVES)
	$(call say,LINK  $@)
	$(call link,$<)
# Measured beside the plugin, so linked as it is.
$(B)/tests/load/objects: $(B)/tests/load/objects.o
	$(call say,LINK  $@)
	$(Q)$(CC) $(STATIC) $(LDFLAGS) -o $@ $<
# With a fuzzer, clang's runtime brings main(); without one, replay.c does.
$(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(B)/tests/fuzz/replay.o $(ARCHIVES)
	$(call say,LINK  $@)
	$(call link,$< $(if $(FUZZER),-fsanitize=fuzzer,$(B)/tests/fuzz/replay.o))

-include $(shell find $(B) -name '*.d' 2>/dev/null)

# ---- Packages ----

deps: ## installs what building needs
	@packaging/deps.sh build
deps-test: ## installs what the tests without engines need
	@packaging/deps.sh build test
deps-docker:
	@packaging/deps.sh build test docker
deps-cni:
	@packaging/deps.sh build test cni
deps-check:
	@packaging/deps.sh build test check
deps-fuzz:
	@packaging/deps.sh build fuzz
deps-bench-gossip:
	@packaging/deps.sh build bench-gossip

# ---- Tests ----

SANITIZED := SANITIZE=address,undefined
RUN := tests/run

build-tests: deps-test
	$(Q)$(MAKE) --no-print-directory all unit model sim load
	$(Q)$(MAKE) --no-print-directory $(SANITIZED) unit fuzz-replay

test: deps-docker deps-cni build-tests ## every test; ends with "N passed, N failed, N skipped"
	$(Q)$(RUN)
test-unit: deps-test ## unit tests, plain and with the address and undefined sanitizers
	$(Q)$(MAKE) --no-print-directory unit
	$(Q)$(MAKE) --no-print-directory $(SANITIZED) unit
	$(Q)$(RUN) unit
test-fuzz: deps-test ## replays the corpora through the fuzz targets, sanitized
	$(Q)$(MAKE) --no-print-directory $(SANITIZED) fuzz-replay
	$(Q)$(RUN) fuzz
test-model: deps-test ## every state of address custody in small clusters; MODEL_LONG=1 explores for an hour
	$(Q)$(MAKE) --no-print-directory model
	$(Q)$(if $(MODEL_LONG),$(B)/tests/model/explore long,$(RUN) model)
test-sim: deps-test ## clusters of many hosts in one process, virtual clock, and RUNS (10,000) random runs of 3 to 50 hosts
	$(Q)$(MAKE) --no-print-directory sim
	$(Q)TRESTLE_SIM_RUNS=$(or $(RUNS),10000) $(RUN) sim
test-histories: deps-test ## RUNS (1,000,000) random histories of address custody with cuts, crashes and forgotten hosts; SEED=
	$(Q)$(MAKE) --no-print-directory unit
	$(Q)tests/unit/histories.sh $(B)/tests/unit/test_ipam_cluster
test-net: deps-test all load ## real daemons in network namespaces
	$(Q)$(RUN) net
test-conformance: deps-test all ## every case of the Docker protocols, on a real daemon's socket
	$(Q)$(RUN) conformance
test-cni: deps-cni all load ## the CNI plugin, on a real daemon
	$(Q)$(RUN) cni
test-cni-faults: deps-cni all load ## plugin and daemon killed at every system call of ADD and DEL
	$(Q)TRESTLE_LONG=1 $(RUN) cni/faults
test-cni-churn: deps-cni all load ## ten thousand containers come and go on two hosts, sixteen at once
	$(Q)TRESTLE_LONG=1 $(RUN) cni/churn
test-docker: deps-docker all ## real Docker engines
	$(Q)$(RUN) docker

fuzz: deps-fuzz ## runs each fuzz target, or those of TARGETS=, for FUZZ_SECONDS (60) with clang's fuzzer; report in build/fuzz/report
	$(Q)$(MAKE) --no-print-directory FLAVOUR=fuzz CC=clang $(SANITIZED) FUZZER=1 fuzz-replay
	$(Q)$(MAKE) --no-print-directory FLAVOUR=fuzz-coverage CFLAGS="-O1 -g --coverage" LDFLAGS=--coverage fuzz-replay
	$(Q)python3 tests/fuzz/run.py $(FUZZ_SECONDS) $(TARGETS)

demo: deps-docker deps-cni all ## the main job on real engines; ends with "demo: ok"
	$(Q)python3 -m tests.demo.demo

# ---- Benchmarks ----

bench: $(BENCHES:%=bench-%) ## all benchmarks; figures in build/bench
	@echo "bench: ok"
bench-attach: ## attaching a container: ours beside Docker's overlay and bridge
bench-cni: deps-cni load ## ADD and DEL: ours beside Debian's bridge and ptp, and beside a program that only makes the objects
bench-footprint: ## memory and size
bench-gossip: deps-bench-gossip ## membership and records at 10, 50 and 100 hosts, beside serf; BENCH_N=50: these alone, SHORT=1: ten hosts, two minutes
bench-sim: sim ## membership and records in the simulator, virtual time, about 21 minutes on two cores; SHORT=1: some minutes
$(BENCHES:%=bench-%): bench-%: deps-docker all
	@mkdir -p build/bench
	$(Q)python3 -m bench.$*

# ---- Checks ----

check: check-headers check-layers check-banned check-format check-warnings check-static ## all of the checks below
	@echo "check: ok"
check-headers: deps-check ## every header compiles alone
	$(Q)tests/check/headers.sh $(CC) $(filter-out -MMD -MP,$(OWN_CFLAGS)) -Werror
check-layers: deps-check ## includes point the right way
	$(Q)python3 tests/check/layers.py
check-banned: deps-check ## calls that nobody may make
	$(Q)tests/check/banned.sh
check-format: deps-check ## clang-format has nothing to say
	$(call say,CHECK format)
	$(Q)clang-format --dry-run -Werror $(C_FILES)
check-warnings: deps-test ## everything compiles with warnings as errors
	$(call say,CHECK warnings)
	$(Q)$(MAKE) --no-print-directory FLAVOUR=check WERROR=1 all unit sim load fuzz-replay
check-static: deps-check ## cppcheck
	$(call say,CHECK static)
	$(Q)tests/check/static.sh $(filter-out tests/%,$(C_SOURCES))

compile_commands.json: always ## for editors and clang tools
	$(Q)for f in $(C_SOURCES); do printf '%s\n' "$$f"; done | python3 -c 'import json,os,sys; \
		json.dump([{"directory": os.getcwd(), "file": f, "command": os.environ["COMPILE"] + " -c " + f} \
		for f in sys.stdin.read().split()], sys.stdout, indent=1)' >$@
compile_commands.json: export COMPILE = $(CC) $(OWN_CFLAGS) $(CFLAGS)

# ---- Installation ----

image: all ## build/trestle-image.tar: what a container image has to hold, for `docker import`
	$(Q)packaging/image.sh $(B) build/trestle-image.tar

install: all ## into DESTDIR and PREFIX (/usr/local); `trestle cni install` puts the plugin where runtimes look
	install -D -m 755 $(B)/trestled $(DESTDIR)$(PREFIX)/sbin/trestled
	install -D -m 755 $(B)/trestle $(DESTDIR)$(PREFIX)/bin/trestle
	install -D -m 755 $(B)/trestle-cni $(DESTDIR)$(PREFIX)/bin/trestle-cni
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|@PREFIX@|$(PREFIX)|' packaging/trestled.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/trestled.service
install-strip: install ## the same, without symbols
	strip $(DESTDIR)$(PREFIX)/sbin/trestled $(DESTDIR)$(PREFIX)/bin/trestle $(DESTDIR)$(PREFIX)/bin/trestle-cni
uninstall: ## removes what install wrote
	rm -f $(DESTDIR)$(PREFIX)/sbin/trestled $(DESTDIR)$(PREFIX)/bin/trestle $(DESTDIR)$(PREFIX)/bin/trestle-cni \
		$(DESTDIR)$(PREFIX)/lib/systemd/system/trestled.service

clean: ## removes build/
	rm -rf build compile_commands.json

help: ## this list
	@awk -F':.*## ' '/^[a-z_.-]+:.*## / { printf "  %-22s %s\n", $$1, $$2 }' Makefile
	@echo "Variables: V=1 shows commands, SANITIZE=address,undefined builds a second flavour, WERROR=1, CFLAGS, DESTDIR, PREFIX, FUZZ_SECONDS, TARGETS."

always:
.PHONY: all unit sim model load fuzz-replay deps deps-test deps-docker deps-cni deps-check deps-fuzz deps-bench-gossip build-tests test test-unit test-fuzz test-model test-sim test-net \
	test-histories test-conformance test-cni test-cni-faults test-cni-churn test-docker fuzz demo bench $(BENCHES:%=bench-%) check check-headers check-layers check-banned check-format \
	check-warnings check-static image install install-strip uninstall clean help always
.SECONDARY:

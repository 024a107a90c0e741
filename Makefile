# Trestle. `make help` lists the targets. V=1 shows commands, SANITIZE=address,undefined builds a second flavour beside the first.
SHELL := /bin/bash
MODULES := base netlink ipam gossip driver http plugin control daemon cli
comma := ,
FLAVOUR := $(if $(SANITIZE),$(subst $(comma),-,$(SANITIZE)),release)

B := build/$(FLAVOUR)
Q := $(if $(V),,@)

CC ?= gcc
WARN := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wformat=2 -fno-common
CFLAGS ?= -O2 -g
OWN_CFLAGS := -std=gnu11 -D_GNU_SOURCE $(WARN) $(if $(WERROR),-Werror) -iquote . -I/usr/include/libnl3 \
	-fstack-protector-strong -fPIE $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=undefined,-D_FORTIFY_SOURCE=2)
OWN_LDFLAGS := -pie -Wl,--as-needed -Wl,-z,relro,-z,now $(if $(SANITIZE),-fsanitize=$(SANITIZE))
LIBS := -levent_core -levent_extra -ljansson -lmnl -lnftnl -lnl-route-3 -lnl-3 -lsodium -lsqlite3 -lpthread

sources = $(wildcard $(1)/*.c $(1)/*/*.c)
objects = $(patsubst %.c,$(B)/%.o,$(filter-out daemon/main.c cli/main.c,$(call sources,$(1))))
ARCHIVES := $(foreach m,$(MODULES),$(if $(call objects,$(m)),$(B)/lib$(m).a))
PROGRAMS := $(if $(wildcard daemon/main.c),$(B)/trestled) $(if $(wildcard cli/main.c),$(B)/trestle)
UNIT := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(wildcard tests/unit/test_*.c))
FUZZ := $(patsubst tests/fuzz/%.c,$(B)/tests/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

all: $(PROGRAMS)

define archive
$(B)/lib$(1).a: $(call objects,$(1))
	@rm -f $$@
	$$(Q)ar rcs $$@ $$^
endef
$(foreach m,$(MODULES),$(eval $(call archive,$(m))))

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC    $<")
	$(Q)$(CC) $(OWN_CFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

link = $(if $(V),,@echo "  LINK  $@";) $(CC) $(OWN_LDFLAGS) $(LDFLAGS) -o $@ $(1) -Wl,--start-group $(ARCHIVES) -Wl,--end-group $(LIBS) $(2)

$(B)/trestled: $(B)/daemon/main.o $(ARCHIVES)
	$(call link,$<)
$(B)/trestle: $(B)/cli/main.o $(ARCHIVES)
	$(call link,$<)
$(B)/tests/unit/%: $(B)/tests/unit/%.o $(ARCHIVES)
	$(call link,$<,-lcmocka)
$(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(B)/tests/fuzz/replay.o $(ARCHIVES)
	$(call link,$< $(B)/tests/fuzz/replay.o)

unit: $(UNIT)
fuzz-replay: $(FUZZ)
clean:
	rm -rf build

-include $(shell find build -name '*.d' 2>/dev/null)
.PHONY: all unit fuzz-replay clean
.SECONDARY:

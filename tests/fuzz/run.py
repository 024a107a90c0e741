"""python3 tests/fuzz/run.py SECONDS [NAME]...: runs each fuzz target for so long with clang's fuzzer and says how far it came.

Of the two builds one has the fuzzer in it (build/fuzz), the other counts lines (build/fuzz-coverage, gcc --coverage and replay.c). What
the fuzzer found that reaches a line or branch no input in the tree does is added to tests/fuzz/corpus, where `make test` replays it: few
and small files, since a file is kept for the edge that it adds and not for how often it runs. The report is build/fuzz/report; the lines
of earlier runs stay in it for the targets that are not run now.
"""
import glob
import os
import re
import shutil
import subprocess
import sys

FUZZ, COVERAGE, CORPUS = "build/fuzz", "build/fuzz-coverage", "tests/fuzz/corpus"
TOTAL_MAX = 2 << 20  # of all corpora in the tree
TITLE = f"{'target':14}{'seconds':>8}{'executions':>12}{'edges':>7}{'features':>9}{'corpus':>8}{'bytes':>8}  lines of what it is for"
# What each target is there to break: the parsers and what they hand their values to. Behind a colon, where a file does more than that: the
# functions meant.
SOURCES = {
    "claims": "daemon/claims.c:on_|decide|existing|remember|heard|claims_told|finish",
    "cni": "cni/config.c cni/env.c cni/request.c cni/result.c cni/version.c",
    "control": "control/control.c:check_|is_name|read_body|control_body",
    "gossip": "gossip/proto.c gossip/sync.c gossip/sync_push.c gossip/sync_tree.c gossip/sync_bulk.c gossip/sync_sketch.c gossip/sketch.c gossip/shards.c gossip/shards_table.c "
              "gossip/shards_apply.c gossip/shards_give.c gossip/members.c gossip/members_probe.c",
    "handshake": "gossip/handshake.c gossip/keyring.c",
    "http": "http/httpd.c",
    "ipam_message": "ipam/proto.c ipam/transfer.c ipam/peers.c ipam/decree.c ipam/heir.c ipam/custody.c",
    "ipam_state": "ipam/proto.c:_decode|get_ ipam/restore.c ipam/pool.c:define|check_def|set_size|use_view "
                  "ipam/lease.c:slot_(?!rest) ipam/custody.c",
    "join": "gossip/admission.c gossip/frame.c gossip/token.c",
    "netlink_reply": "netlink/parse.c netlink/addr.c:parse netlink/link.c:parse|kind_of netlink/neigh.c:parse|kind_of netlink/route.c:parse",
    "options": "daemon/options.c:read_|is_multicast|copy_text|find_row|set_row|fill_defaults",
    "plugin": "plugin/decode.c base/jd.c",
    "state": "daemon/records.c base/bytes.c",
    "stream": "daemon/stream.c:stream_|streams_(?!open)|take_|find_open|on_readable|on_written|on_event|write_packet|is_question",
    "text": "base/addr.c base/bytes.c base/id.c base/jd.c base/number.c",
    "token": "gossip/token.c",
}


def files(directory):
    return [os.path.join(directory, n) for n in os.listdir(directory)]


def call(log, *argv):
    with open(log, "ab") as out:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False).returncode


def fuzz(name, seconds):
    """(executions, edges, features) of one run; the inputs it found are in build/fuzz/corpus."""
    found, log = f"{FUZZ}/corpus/{name}", f"{FUZZ}/{name}.log"
    os.makedirs(found, exist_ok=True)
    if os.path.exists(log):
        os.unlink(log)
    status = call(log, f"{FUZZ}/tests/fuzz/fuzz_{name}", f"-max_total_time={seconds}", "-print_final_stats=1", "-timeout=20",
                  f"-artifact_prefix={FUZZ}/{name}-", found, f"{CORPUS}/{name}")
    with open(log, errors="replace") as f:
        said = f.read()
    if status != 0:
        sys.exit(f"{said[-6000:]}\nfuzz: {name} broke; the input is {FUZZ}/{name}-*, the story is above and in {log}")
    executions = re.findall(r"stat::number_of_executed_units:\s*(\d+)", said)
    reached = re.findall(r"cov: (\d+) ft: (\d+)", said)
    return int(executions[-1]), *map(int, reached[-1])


def keep(name):
    """Adds to the corpus in the tree what reaches an edge that nothing in it does."""
    status = call(f"{FUZZ}/{name}.merge.log", f"{FUZZ}/tests/fuzz/fuzz_{name}", "-merge=1", "-use_counters=0", "-timeout=20",
                  f"{CORPUS}/{name}", f"{FUZZ}/corpus/{name}")
    if status != 0:
        sys.exit(f"fuzz: the corpus of {name} cannot be merged; see {FUZZ}/{name}.merge.log")


def coverage(name):
    """Lines that the corpus in the tree reaches: "1234 of 1500 (82 %)"."""
    counts = os.path.abspath(f"{FUZZ}/counts/{name}")
    shutil.rmtree(counts, ignore_errors=True)
    if call(f"{FUZZ}/{name}.coverage.log", "env", f"GCOV_PREFIX={counts}", f"{COVERAGE}/tests/fuzz/fuzz_{name}", f"{CORPUS}/{name}") != 0:
        sys.exit(f"fuzz: the corpus of {name} fails without the fuzzer; see {FUZZ}/{name}.coverage.log")
    reached = total = 0
    for source, functions in (s.split(":", 1) if ":" in s else (s, "") for s in SOURCES[name].split()):
        notes = os.path.abspath(f"{COVERAGE}/{source[:-2]}.gcno")
        os.symlink(notes, counts + notes)  # gcov wants it beside the counts, which have the whole path behind the prefix
        said = subprocess.run(["gcov", "-n", "-f", f"{counts}{notes[:-5]}.gcda"], capture_output=True, text=True, check=False).stdout
        what = rf"Function '\w*(?:{functions})\w*'" if functions else rf"File '{re.escape(source)}'"
        found = re.findall(rf"{what}\nLines executed:([\d.]+)% of (\d+)", said)
        if not found:
            sys.exit(f"fuzz: gcov knows nothing of {source}: {said}")
        total += sum(int(lines) for _, lines in found)
        reached += sum(round(float(share) * int(lines) / 100) for share, lines in found)
    return f"{reached} of {total} ({100 * reached // total} %)"


def report(rows):
    """Writes the lines of this run into the report, and returns all of it."""
    path, old = f"{FUZZ}/report", {}
    if os.path.exists(path):
        with open(path) as f:
            old = {line.split()[0]: line.rstrip("\n") for line in f if line.split()[0] in SOURCES}
    text = "\n".join([TITLE, *({**old, **rows}[n] for n in SOURCES if n in old or n in rows)]) + "\n"
    with open(path, "w") as f:
        f.write(text)
    return text


def main(seconds, *names):
    built = sorted(os.path.basename(p)[len("fuzz_"):-2] for p in glob.glob("tests/fuzz/fuzz_*.c"))
    if built != sorted(SOURCES):
        sys.exit(f"fuzz: SOURCES of tests/fuzz/run.py and the targets differ: {set(built) ^ set(SOURCES)}")
    for name in names or SOURCES:
        print(f"  FUZZ  {name} for {seconds} s", flush=True)
        executions, edges, features = fuzz(name, seconds)
        keep(name)
        inputs = files(f"{CORPUS}/{name}")
        row = (f"{name:14}{seconds:>8}{executions:>12}{edges:>7}{features:>9}{len(inputs):>8}{sum(map(os.path.getsize, inputs)):>8}  "
               f"{coverage(name)}")
        print(report({name: row}).splitlines()[0] + "\n" + row, flush=True)
    total = sum(os.path.getsize(p) for n in SOURCES for p in files(f"{CORPUS}/{n}"))
    if total > TOTAL_MAX:
        sys.exit(f"fuzz: the corpora have {total} bytes, more than the {TOTAL_MAX} that the tree has room for")
    print(f"fuzz: ok, {total} bytes of corpora; the report is {FUZZ}/report")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What do membership and records cost and take in clusters that no single machine can hold as processes?

The simulator's measured scenarios, in virtual time over the real core: one-way latency 0.2 to 0.3 ms, no queueing, no time for
computing, bytes as on the wire. Clusters of more than 200 hosts begin warm (tests/sim/warm.h). What is measured:

    event*       a change, to any other host that has it (50 hosts), or to the last one (more); also with packets lost, and with 1 % of
                 the hosts dead that nobody knows to be dead yet
    detect_all   a host crashes, to the last one that calls it dead; 200 crashes up to 1,000 hosts, 40 at 5,000
    heal*        half of the hosts cut off from the other half, or one from all, for 100 s; to all being alive and equal everywhere
    restart_all  all are killed and start within 0.1 s, with the others' addresses on disk and no seed; to all seeing all
    join_all     all join one host at once by a token; to all seeing all
    idle_tx      bytes sent by a host, headers of Ethernet, IP and UDP counted
    storm        10,000 changes in 10 s; from the last one to each host having its last
    newcomer     into a network with 100,000 endpoints, records by the daemon's own encoder: 34 bytes, 20 of them random
    starved      4 of 100 hosts stopped or cut off most of the time (tests/sim/starve.h): how often a healthy host takes a healthy
                 one for dead. Beside it two models, of SWIM and of Lifeguard as memberlist has it, that suffer the same (peers.c)
    sick         80 % of the packets of every 200th host are lost, and all that every other 200th says: changes of such a host's state,
                 where most were seen
    memory_*     heap of the process for 100,000 such endpoints, all of it, malloc's own included; netlink tables are not in it
    simulate_*   the simulator itself: seconds of the wall clock, alone on the machine

A row's median, min and max are over runs from different seeds ("n"); where all cases of all runs are one list, a percentile is of that.
`moonshot` is what the design sets out for, `peers` the best figure of others that is known: [M] measured on this kind of machine beside
serf, [S] a simulation of theirs, [P] published, [C] computed from their constants.

Two runs at a time, the longest first; the last line says how long all of it took: 21 minutes on two cores. A run may take 900 s of
a core and 9 GiB: what needs more is ended and named, and so is each figure of the table below that is not there. SHORT=1: 50 and 100
hosts, some minutes. TRESTLE_SIM_SIZES=50,1000 measures these numbers of hosts only. TRESTLE_LONG=1, one run at a time, 18 GiB and two
hours for each: also losses and deaths among 5,000 (each host hears from so many others that it shares no memory with anybody any more:
13 GiB); a cut of 5,000 (17 GiB); all of 1,000 and of 2,000 restarting (what each knows of each grows with the square of the
hosts: 4,500 would need more than 20 GiB).
"""
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from bench.report import Report
from tests.lab import ROOT

SIM = os.path.join(ROOT, "build/release/tests/sim/sim")
SHORT, LONG = bool(os.environ.get("SHORT")), bool(os.environ.get("TRESTLE_LONG"))
SIZES = [int(n) for n in os.environ.get("TRESTLE_SIM_SIZES", "50,100" if SHORT else "50,100,1000,2000,5000").split(",")]
STARVED_HOURS = 1 if SHORT else 34  # of each kind of three, with 100 hosts: 10,200 host hours
CORES = 1 if LONG else 2  # runs at a time: their memory has to be there
LIMIT_S = 7200 if LONG else 900  # of a core, for one run of one scenario: what takes longer is told, and its rows are not there
LIMIT_MIB = 18432 if LONG else 9216  # of memory of its own, likewise
PERCENTILES = re.compile(r"p50 ([\d.]+) ms, p99 ([\d.]+) ms, max ([\d.]+) ms")
LAST = re.compile(r"to the last one: " + PERCENTILES.pattern)
CASES = re.compile(r"cases, ms:((?: [\d.]+)+)")
BYTES_S = r"([\d.]+) bytes/s"
KINDS = ("stopped 0.8 s of each", "stopped up to 32 s of 40", "cut off up to 32 s of 40")
STARVED = "starved{}_false_deaths_n100"

# metric: what to reach (at most; "N" as text: exactly), and what others reach.
KNOWN = {
    "event_p50_n50": (0.5, "273 [M]"), "event_p99_n50": (5, "545 [M]"),
    "event_loss1_p50_n50": (1, ""), "event_loss1_p99_n50": (20, ""),
    "event_last_p50_n100": (2, "603 [S]"), "event_last_p99_n100": (10, "905 [S]"),
    "event_last_loss1_p50_n100": (15, ""), "event_last_loss1_p99_n100": (40, ""),
    "event_last_p50_n1000": (5, "873 [S]"), "event_last_p99_n1000": (10, "1099 [S]"),
    "event_last_loss1_p50_n1000": (16, ""), "event_last_loss1_p99_n1000": (60, ""),
    "event_last_loss5_dead1_p99_n1000": (2000, "1230 [S]"),
    "event_last_loss5_dead1_p99_n2000": (2000, ""),
    "event_last_p50_n5000": (6, "1053 [S]"), "event_last_p99_n5000": (15, "1274 [S]"),
    "event_last_loss1_p50_n5000": (35, ""), "event_last_loss1_p99_n5000": (80, ""),
    "event_last_loss5_dead1_p99_n5000": (2000, "1299 [S]"),
    "detect_all_p50_n50": (2000, "8900 [M]"), "detect_all_p99_n50": (4000, "9500 [M]"),
    "detect_all_p50_n100": (2000, "9700 [S]"), "detect_all_p99_n100": (4000, "12900 [M]"),
    "detect_all_p50_n1000": (2000, "14000 [S]"), "detect_all_p99_n1000": (4000, "18000 [S]"),
    "detect_all_p50_n5000": (2000, "17000 [S]"), "detect_all_p99_n5000": (4000, "21000 [S]"),
    "heal_p99_n50": (2000, "5900 [M]"), "heal_p99_n1000": (2000, ""), "heal_p99_n2000": (2000, ""), "heal_p99_n5000": (2000, ""),
    "heal_isolated_p99_n50": (2000, "15000 [C]"), "heal_isolated_p99_n1000": (2000, ""), "heal_isolated_p99_n5000": (2000, ""),
    "restart_all_n50": (3000, "islands"), "restart_all_n500": (3000, "islands"), "restart_all_n1000": (3000, "islands"), "restart_all_n2000": (3000, "islands"),
    "join_all_n50": (150, "1000 [M]"), "join_all_n200": (2000, ""), "join_all_n500": (2000, ""), "join_all_n2000": (2000, "41000 [P]"),
    "idle_tx_n50": (240, "405 [M]"), "idle_tx_n1000": (250, "3500 [P][C]"), "idle_tx_n5000": (250, "10200 [P][C]"),
    "storm_last_p99_n50": (1000, "45000 [C]"), "storm_tx_n50": (1e6, ""),
    "newcomer_1e5_p99_n50": (150, "fails [C]"), "newcomer_1e5_bytes": (5e6, "6e8 [C]"),
    "sick_changes_per_minute_n300": (1, "oscillates [P]"), "sick_changes_per_minute_n1000": (1, "oscillates [P]"),
    "sick_false_deaths_n300": (0, ""), "sick_false_deaths_n1000": (0, ""),
    "usable_of_a_slash_24_n50": ("254", ""),
    "memory_1e5_records": (12, "90 (estimate)"),
    "simulate_an_hour_of_n50": (2, ""), "simulate_60s_of_n5000": (20, ""), "memory_of_n5000": (4096, ""),
} | {STARVED.format(i): (0, "") for i in range(len(KINDS))}


class SimReport(Report):
    MORE = ("moonshot", "peers")

    def __init__(self, name):
        super().__init__(name)
        self.unfinished = []

    @staticmethod
    def reached(row):
        goal = KNOWN.get(row["metric"], (None,))[0] if row["subject"] == "trestle" else None
        if goal is None:
            return None
        return row["median"] == float(goal) if isinstance(goal, str) else row["median"] <= goal

    def more(self, row):
        reached = self.reached(row)
        goal, peers = KNOWN.get(row["metric"], (None, ""))
        return ("" if reached is None else f"{float(goal):g} {'reached' if reached else 'missed'}", peers if row["subject"] == "trestle" else "")

    def write(self):
        for row in self.rows:
            row["moonshot"], row["peers"] = KNOWN.get(row["metric"], (None, ""))
            row["reached"] = self.reached(row)
        super().write()
        missed = [row["metric"] for row in self.rows if row["reached"] is False]
        print(f"moonshots: {sum(row['reached'] is True for row in self.rows)} reached, {len(missed)} missed: {' '.join(missed) or 'none'}")
        if self.unfinished:
            print(f"not done within {LIMIT_S} s of a core and {LIMIT_MIB} MiB: {', '.join(self.unfinished)}")
        measured = {row["metric"] for row in self.rows}
        absent = [metric for metric in KNOWN if metric not in measured]
        if absent:
            print(f"without a figure here (other sizes, TRESTLE_LONG=1, or above): {' '.join(absent)}")


def own_mib(pid):
    """Memory that nobody shares with it: pages that simulated hosts have in common are a file's, and count for nobody."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            return sum(int(line.split()[1]) for line in f if line.startswith(("RssAnon:", "VmPTE:"))) / 1024
    except (FileNotFoundError, ProcessLookupError):
        return 0


def watched(command):
    """What it printed, its return code, and whether it was ended for the memory that it took."""
    with tempfile.TemporaryFile("w+") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as child:
        too_big = False
        while child.poll() is None:
            try:
                child.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                if own_mib(child.pid) > LIMIT_MIB:
                    too_big = True
                    child.kill()
        out.seek(0)
        return out.read(), child.returncode, too_big


def run(scenario, hosts, seed=1, more=()):
    """What it printed and how long it took. A bound of the test that is not kept is told, and does not end the others."""
    began = time.monotonic()
    text, code, too_big = watched(["prlimit", f"--cpu={LIMIT_S}", SIM, "--hosts", str(hosts), "--seed", str(seed), *more, scenario])
    wall = time.monotonic() - began
    if too_big or code in (-signal.SIGXCPU, -signal.SIGKILL):
        print(f"{scenario}, {hosts} hosts, seed {seed}: ended after {wall:.0f} s, "
              + (f"{LIMIT_MIB} MiB are allowed" if too_big else f"{LIMIT_S} s of a core are allowed"), flush=True)
        return "", wall
    if code < 0 or not text:
        raise SystemExit(f"{scenario} with {hosts} hosts: ended with {code}\n{text}")
    for line in text.splitlines():
        if line.startswith("FAIL"):
            print(f"above the bound of the test: {line}", flush=True)
    print(f"{scenario}, {hosts} hosts, seed {seed}: {wall:.1f} s", flush=True)
    return text, wall


class Job:
    """Runs of one scenario from several seeds, and what becomes of them: told(report, outputs)."""

    def __init__(self, scenario, hosts, seeds, told, more=()):
        self.scenario, self.hosts, self.seeds, self.told, self.more = scenario, hosts, range(1, seeds + 1), told, more
        self.futures = []

    def weight(self):
        """Which of two takes longer, roughly."""
        often = {"measure_starved": 1000, "measure_starved_lifeguard": 30, "measure_starved_swim": 30, "measure_detection": 2,
                 "measure_event_in_trouble": 3, "measure_heal": 3}
        return often.get(self.scenario, 1) * self.hosts ** 2

    def start(self, pool):
        self.futures = [pool.submit(run, self.scenario, self.hosts, seed, self.more) for seed in self.seeds]

    def tell(self, report):
        outs = [out for out, _ in (f.result() for f in self.futures) if out]
        if outs:
            self.told(report, outs)
        else:
            report.unfinished.append(f"{self.scenario} with {self.hosts} hosts")


def number(out, pattern):
    found = re.search(pattern, out)
    if not found:
        raise SystemExit(f"no figure like {pattern} in:\n{out}")
    return float(found.group(1))


def figure(metric, unit, pattern, factor=1):
    return lambda report, outs: report.add("trestle", metric, unit, [factor * number(out, pattern) for out in outs])


def percentiles(metric, of_any=False):
    """Of the list of all cases of all runs; of what any host saw, which is too long a list to be told, the runs' own percentiles."""
    def told(report, outs):
        lists = [CASES.search(out) for out in outs]
        if all(lists) and not of_any:
            samples = [float(x) for found in lists for x in found.group(1).split()]
            for p in (50, 99):
                report.add("trestle", f"{metric[0]}_p{p}_{metric[1]}", "ms", samples, p)
            return
        lines = [line for out in outs for line in out.splitlines() if PERCENTILES.search(line) and not LAST.search(line)]
        for i, p in enumerate((50, 99)):
            report.add("trestle", f"{metric[0]}_p{p}_{metric[1]}", "ms", [float(PERCENTILES.search(line).group(i + 1)) for line in lines])
    return told


def both(*tellers):
    def told(report, outs):
        for teller in tellers:
            teller(report, outs)
    return told


def starved(subject):
    def told(report, outs):
        for i, kind in enumerate(KINDS):
            report.add(subject, STARVED.format(i), "deaths", [number(out, re.escape(kind) + r": .*: (\d+) false deaths") for out in outs])
    return told


def changes(hosts):
    n, few = f"n{hosts}", 3 if hosts <= 100 else 1
    last = "_last" if hosts > 50 else ""
    if hosts != 2000:
        yield Job("measure_event", hosts, few, percentiles((f"event{last}", n), hosts <= 50))
        yield Job("measure_event_with_loss", hosts, few, percentiles((f"event{last}_loss1", n), hosts <= 50))
    if 1000 <= hosts < 5000 or (hosts == 5000 and LONG):
        yield Job("measure_event_in_trouble", hosts, 1, percentiles((f"event{last}_loss5_dead1", n)))


def members(hosts):
    n, few = f"n{hosts}", 3 if hosts <= 100 else 1
    if hosts in (50, 1000, 2000) or (hosts == 5000 and LONG):
        yield Job("measure_heal", hosts, few, both(percentiles(("heal", n)), figure(f"heal_tx_{n}", "bytes", r"heal, \d+ hosts: ([\d.]+) bytes")))
    if hosts == 2000:  # between the others, where those take too long
        return
    yield Job("measure_detection", hosts, 2 if hosts > 1000 else 10, percentiles(("detect_all", n)))
    yield Job("measure_isolated", hosts, few, percentiles(("heal_isolated", n)))
    if hosts < 5000:
        yield Job("measure_idle", hosts, few, figure(f"idle_tx_{n}", "bytes/s", BYTES_S))


def of_fifty():
    yield Job("measure_storm", 50, 3, both(percentiles(("storm_last", "n50")), figure("storm_tx_n50", "bytes/s", BYTES_S)))
    yield Job("measure_newcomer", 50, 1, both(percentiles(("newcomer_1e5", "n50")), figure("newcomer_1e5_bytes", "bytes", r"newcomer: ([\d.]+) bytes")))
    yield Job("measure_memory", 4, 1, figure("memory_1e5_records", "MB", r"10,000 records of \d+ bytes: ([\d.]+) MB", 10))
    yield Job("fill_to_the_last_address", 50, 1, figure("usable_of_a_slash_24_n50", "addresses", r"filled: (\d+) addresses"))
    for hosts in (50, 200) if SHORT else (50, 200, 500, 2000):
        yield Job("measure_join", hosts, 3 if hosts == 50 else 1, both(figure(f"join_all_n{hosts}", "ms", r"max ([\d.]+) ms"),
                                                                       figure(f"join_tx_n{hosts}", "bytes", r"join, \d+ hosts: ([\d.]+) bytes")))
    for hosts in (50,) if SHORT else (50, 500, 1000, 2000) if LONG else (50, 500):
        yield Job("measure_restart_all", hosts, 3 if hosts == 50 else 1, both(figure(f"restart_all_n{hosts}", "ms", r"max ([\d.]+) ms"),
                                                                              figure(f"restart_tx_n{hosts}", "bytes", r"restart, \d+ hosts: ([\d.]+) bytes")))


def in_bad_company():
    hours = ("--hours", str(STARVED_HOURS))
    yield Job("measure_starved", 100, 1, starved("trestle"), hours)
    yield Job("measure_starved_lifeguard", 100, 1, starved("Lifeguard"), hours)
    yield Job("measure_starved_swim", 100, 1, starved("SWIM"), hours)
    for hosts in (300,) if max(SIZES) < 1000 else (300, 1000):
        yield Job("measure_sick", hosts, 1, both(figure(f"sick_changes_per_minute_n{hosts}", "changes/min", r": ([\d.]+) changes of"),
                                                 figure(f"sick_worst_changes_per_minute_n{hosts}", "changes/min", r"worst one's ([\d.]+)"),
                                                 figure(f"sick_false_deaths_n{hosts}", "deaths", r"(\d+) false deaths")))


def the_simulator(report):
    """What the wall clock says is measured while nothing else runs."""
    if 50 in SIZES:
        report.add("trestle", "simulate_an_hour_of_n50", "s", [run("measure_hour", 50)[1] for _ in range(3)])
    if 5000 in SIZES:
        out, wall = run("measure_idle", 5000)
        if not out:
            report.unfinished.append("measure_idle with 5000 hosts")
            return
        report.add("trestle", "idle_tx_n5000", "bytes/s", [number(out, BYTES_S)])
        report.add("trestle", "simulate_60s_of_n5000", "s", [wall * 60 / number(out, r"ran ([\d.]+) s")])
        report.add("trestle", "memory_of_n5000", "MiB", [number(out, r"memory of \d+ hosts: ([\d.]+) MiB")])


def main():
    report = SimReport("sim")
    began = time.monotonic()
    jobs = [job for hosts in sorted(SIZES, reverse=True) for job in (*members(hosts), *changes(hosts))]
    if 50 in SIZES:
        jobs += of_fifty()
    if 100 in SIZES:
        jobs += in_bad_company()
    the_simulator(report)
    with ThreadPoolExecutor(CORES) as pool:
        for job in sorted(jobs, key=Job.weight, reverse=True):  # else one core would wait for the other in the end
            job.start(pool)
    for job in jobs:
        job.tell(report)
    report.rows.sort(key=lambda row: row["metric"])
    report.write()
    print(f"all of it took {(time.monotonic() - began) / 60:.0f} min, {CORES} at a time")


if __name__ == "__main__":
    sys.exit(main())

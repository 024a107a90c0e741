"""What do membership and records cost and take in clusters that no single machine can hold as processes?

The simulator's measured scenarios, in virtual time over the real core: one-way latency 0.2 to 0.3 ms, no queueing. Each row is one run from
seed 1; for percentiles "n" is the number of runs, since the simulator has taken the percentile. `goal` is what the design sets out for. The
last rows are wall-clock times of the simulator itself.
"""
import os
import re
import subprocess
import sys
import time

from bench.report import Report
from tests.lab import ROOT

SIM = os.path.join(ROOT, "build/release/tests/sim/sim")
SIZES = [int(n) for n in os.environ.get("TRESTLE_SIM_SIZES", "50,100,200").split(",")]
PERCENTILES = re.compile(r"p50 ([\d.]+) ms, p99 ([\d.]+) ms, max ([\d.]+) ms")
BYTES = re.compile(r"([\d.]+) bytes/s")
LAST = re.compile(r"to the last one: " + PERCENTILES.pattern)
# scenario: metric, goals of p50 and p99 in ms by number of hosts. What is told about a change is when any host has it in clusters of 50, and
# when the last one has it in bigger ones; of a death, when the last one knows.
TIMES = {
    "measure_event": ("event", {50: (0.5, 5), 100: (2, 10), 1000: (5, 10)}),
    "measure_event_with_loss": ("event_loss1", {50: (1, 20), 100: (15, 40), 1000: (16, 60)}),
    "measure_detection": ("detect_all", {50: (2000, 4000), 100: (2000, 4000), 1000: (2000, 4000)}),
    "measure_heal": ("heal", {n: (None, 2000) for n in (50, 100, 1000)}),
    "measure_isolated": ("heal_isolated", {n: (None, 2000) for n in (50, 100, 1000)}),
    "measure_storm": ("storm_last", {50: (None, 1000)}),
}
AT_MOST = {"measure_detection": 100, "measure_heal": 100, "measure_isolated": 100, "measure_storm": 50}  # hosts; more would take hours


def run(scenario, hosts):
    began = time.monotonic()
    done = subprocess.run([SIM, "--hosts", str(hosts), scenario], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{scenario} with {hosts} hosts failed:\n{done.stdout}{done.stderr}")
    return done.stdout, time.monotonic() - began


def goal(report, metric, unit, value):
    if value is not None:
        report.add("goal", metric, unit, [value])


def times(report, scenario, hosts):
    metric, goals = TIMES[scenario]
    if hosts > 50 and metric.startswith("event"):
        metric = metric.replace("event", "event_last")
    out, _ = run(scenario, hosts)
    last = LAST.search(out) if hosts > 50 or scenario == "measure_detection" else None
    found = last or [m for line in out.splitlines() if "to the last one" not in line and (m := PERCENTILES.search(line))][0]
    p50, p99, _ = (float(x) for x in found.groups())
    for name, value, aim in zip(("p50", "p99"), (p50, p99), goals.get(hosts, (None, None))):
        report.add("trestle", f"{metric}_{name}_n{hosts}", "ms", [value])
        goal(report, f"{metric}_{name}_n{hosts}", "ms", aim)
    if scenario == "measure_storm":
        report.add("trestle", f"storm_tx_n{hosts}", "bytes/s", [float(BYTES.search(out).group(1))])
        goal(report, f"storm_tx_n{hosts}", "bytes/s", 1e6)


def main():
    report = Report("sim")
    for hosts in SIZES:
        for scenario in TIMES:
            if hosts <= AT_MOST.get(scenario, hosts):
                times(report, scenario, hosts)
        out, _ = run("measure_idle", hosts)
        report.add("trestle", f"idle_tx_n{hosts}", "bytes/s", [float(BYTES.search(out).group(1))])
        goal(report, f"idle_tx_n{hosts}", "bytes/s", 250)
    _, wall = run("measure_hour", 50)
    report.add("trestle", "hour_of_n50", "s", [wall])
    goal(report, "hour_of_n50", "s", 2)
    report.write()


if __name__ == "__main__":
    main()

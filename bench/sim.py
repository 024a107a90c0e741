"""What do membership and records cost and take in clusters that no single machine can hold as processes?

The simulator's measured scenarios, in virtual time over the real core: one-way latency 0.2 to 0.3 ms, no queueing, bytes as on the wire.
A row's median, min and max are over runs from different seeds ("n"); a percentile was taken by the simulator over all hosts and events of a
run. `goal` is what the design sets out for. Clusters of more than 200 hosts begin warm (tests/sim/warm.h). The last rows are about the simulator
itself: seconds of the wall clock, and memory.

TRESTLE_SIM_SIZES=50,100 measures these numbers of hosts only.
"""
import os
import re
import subprocess
import sys
import time

from bench.report import Report
from tests.lab import ROOT

SIM = os.path.join(ROOT, "build/release/tests/sim/sim")
SIZES = [int(n) for n in os.environ.get("TRESTLE_SIM_SIZES", "50,100,1000,5000").split(",")]
PERCENTILES = re.compile(r"p50 ([\d.]+) ms, p99 ([\d.]+) ms, max ([\d.]+) ms")
LAST = re.compile(r"to the last one: " + PERCENTILES.pattern)
BYTES_S = re.compile(r"([\d.]+) bytes/s")
EVENTS = {50: (0.5, 5), 100: (2, 10), 1000: (5, 10), 5000: (6, 15)}
EVENTS_LOSS = {50: (1, 20), 100: (15, 40), 1000: (16, 60), 5000: (35, 80)}
# scenario: metric, goals of p50 and p99 in ms by number of hosts, at most so many hosts. What is told about a change is when any host has
# it in clusters of 50, and when the last one has it in bigger ones; of a death, when the last one knows. Half of 5,000 hosts dead at each of
# the others is more than this machine's memory, so cuts are measured up to 1,000.
TIMES = {
    "measure_event": ("event", EVENTS, 5000),
    "measure_event_with_loss": ("event_loss1", EVENTS_LOSS, 5000),
    "measure_event_in_trouble": ("event_loss5_dead1", {n: (None, 2000) for n in (1000, 5000)}, 5000),
    "measure_detection": ("detect_all", {n: (2000, 4000) for n in (50, 100, 1000, 5000)}, 5000),
    "measure_heal": ("heal", {n: (None, 2000) for n in (50, 100, 1000)}, 1000),
    "measure_isolated": ("heal_isolated", {n: (None, 2000) for n in (50, 100, 1000)}, 1000),
    "measure_storm": ("storm_last", {50: (None, 1000)}, 50),
    "measure_newcomer": ("newcomer_1e5", {50: (None, 150)}, 50),
}
JOIN_SIZES = {50: 150, 200: None, 500: None}  # hosts: goal in ms


def seeds(hosts):
    return (1, 2, 3) if hosts <= 100 else (1,)


def run(scenario, hosts, seed=1):
    """What it printed and how long it took. A bound of the test that is not kept is told, and does not end the others."""
    began = time.monotonic()
    done = subprocess.run([SIM, "--hosts", str(hosts), "--seed", str(seed), scenario], capture_output=True, text=True)
    if done.returncode < 0 or not done.stdout:
        sys.exit(f"{scenario} with {hosts} hosts: ended with {done.returncode}\n{done.stdout}{done.stderr}")
    for line in done.stdout.splitlines():
        if line.startswith("FAIL"):
            print(f"above the bound of the test: {line}", flush=True)
    return done.stdout, time.monotonic() - began


def goal(report, metric, unit, value):
    if value is not None:
        report.add("goal", metric, unit, [value])


def number(out, pattern):
    return float(re.search(pattern, out).group(1))


def percentiles(out, last_one):
    last = LAST.search(out) if last_one else None
    found = last or next((m for line in out.splitlines() if not LAST.search(line) and (m := PERCENTILES.search(line))), None)
    if not found:
        sys.exit(f"no figures in:\n{out}")
    return [float(x) for x in found.groups()]


def times(report, scenario, hosts):
    metric, goals, _ = TIMES[scenario]
    of_last = hosts > 50 or scenario == "measure_detection"
    if of_last and metric.startswith("event"):
        metric = metric.replace("event", "event_last")
    outs = [run(scenario, hosts, seed)[0] for seed in seeds(hosts)]
    found = [percentiles(out, of_last) for out in outs]
    for i, name in enumerate(("p50", "p99")):
        report.add("trestle", f"{metric}_{name}_n{hosts}", "ms", [f[i] for f in found])
        goal(report, f"{metric}_{name}_n{hosts}", "ms", goals.get(hosts, (None, None))[i])
    if scenario == "measure_storm":
        report.add("trestle", f"storm_tx_n{hosts}", "bytes/s", [float(BYTES_S.search(out).group(1)) for out in outs])
        goal(report, f"storm_tx_n{hosts}", "bytes/s", 1e6)
    if scenario == "measure_newcomer":
        report.add("trestle", "newcomer_1e5_bytes", "bytes", [number(out, r"newcomer: ([\d.]+) bytes") for out in outs])
        goal(report, "newcomer_1e5_bytes", "bytes", 5e6)


def idle(report, hosts):
    outs = [run("measure_idle", hosts, seed) for seed in seeds(hosts)]
    report.add("trestle", f"idle_tx_n{hosts}", "bytes/s", [float(BYTES_S.search(out).group(1)) for out, _ in outs])
    goal(report, f"idle_tx_n{hosts}", "bytes/s", 240 if hosts == 50 else 250)
    if hosts == 5000:
        report.add("trestle", "simulate_75s_of_n5000", "s", [wall for _, wall in outs])
        goal(report, "simulate_75s_of_n5000", "s", 25)
        report.add("trestle", "memory_of_n5000", "MiB", [number(out, r"memory of \d+ hosts: ([\d.]+) MiB") for out, _ in outs])
        goal(report, "memory_of_n5000", "MiB", 4096)


def sick(report):
    out, _ = run("measure_starved", 100)
    report.add("trestle", "starved4_false_deaths_per_100_host_hours_n100", "deaths", [number(out, r": (\d+) false deaths")])
    goal(report, "starved4_false_deaths_per_100_host_hours_n100", "deaths", 0)
    out, _ = run("measure_sick", 1000)
    report.add("trestle", "sick_changes_per_minute_n1000", "changes/min", [number(out, r"at most ([\d.]+) changes")])
    goal(report, "sick_changes_per_minute_n1000", "changes/min", 1)
    report.add("trestle", "sick_false_deaths_n1000", "deaths", [number(out, r"(\d+) false deaths")])
    goal(report, "sick_false_deaths_n1000", "deaths", 0)


def joins(report):
    for hosts, aim in JOIN_SIZES.items():
        outs = [run("measure_join", hosts, seed)[0] for seed in seeds(hosts)]
        report.add("trestle", f"join_all_n{hosts}", "ms", [percentiles(out, False)[2] for out in outs])
        goal(report, f"join_all_n{hosts}", "ms", aim)
        report.add("trestle", f"join_tx_n{hosts}", "bytes", [number(out, r"join, \d+ hosts: ([\d.]+) bytes") for out in outs])


def addresses(report):
    out, _ = run("fill_to_the_last_address", 50)
    report.add("trestle", "usable_of_a_slash_24_n50", "addresses", [number(out, r"filled: (\d+) addresses")])
    goal(report, "usable_of_a_slash_24_n50", "addresses", 254)


def main():
    report = Report("sim")
    for hosts in SIZES:
        for scenario, (_, goals, at_most) in TIMES.items():
            if hosts <= at_most and hosts in goals:
                times(report, scenario, hosts)
        idle(report, hosts)
    if 50 in SIZES:
        joins(report)
        addresses(report)
        out, _ = run("measure_memory", 4)
        report.add("trestle", "memory_1e5_records", "MB", [10 * number(out, r"10,000 records of \d+ bytes: ([\d.]+) MB")])
        goal(report, "memory_1e5_records", "MB", 12)
        report.add("trestle", "simulate_an_hour_of_n50", "s", [run("measure_hour", 50)[1] for _ in range(3)])
        goal(report, "simulate_an_hour_of_n50", "s", 2)
    if 1000 in SIZES:
        sick(report)
    report.write()


if __name__ == "__main__":
    main()

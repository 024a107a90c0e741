"""What does a runtime wait for when it attaches a container, and when it takes it away?

Whole processes, from start to end, as a runtime runs them: the plugin of Trestle with its daemon, in CNI's mode, l3 (`trestle`), and
in l2 (`trestle-l2`), Debian's Go plugins with host-local (`cni-bridge`, `cni-ptp`), and a program that makes the objects of mode l2 in the
kernel and keeps no books (`kernel`). Subjects take turns in every round, each on a host of its own: ADD of each, then DEL of each, with 1
and with 1,000 attachments on every host. Trestle's hosts are members of one cluster and tell each other and a third of every attachment.

CPU is the plugin's with its children's and, for Trestle, the daemon's until the links are deleted. add100_total is 100 ADDs started at
once until the last has ended.
"""
import os
import time

from bench.report import Report
from tests.cni.runtime import Runner
from tests.lab import BUILD, Daemon, Lab, program, wait_for

ROUNDS = int(os.environ.get("TRESTLE_BENCH_ROUNDS", "100"))
CROWD = int(os.environ.get("TRESTLE_BENCH_CROWD", "1000"))
WARM = 3
BURST = 100
BURSTS = 5
DEBIAN = "/usr/lib/cni"
DIRS = f"{DEBIAN}:/opt/cni/bin"


class Subject(Runner):
    """One plugin on one host; run() is one round of it."""

    def __init__(self, name, host, plugin, config, daemon=None):
        super().__init__(host, plugin, config, DIRS)
        self.name, self.daemon = name, daemon
        self.deleted = 0

    def run(self, verb, operations):
        self.deleted += len(operations) if verb == "DEL" else 0
        return super().run(verb, operations)

    def daemon_cpu(self):
        """ms that the daemon has used, also in threads that have ended (CPUCLOCK_SCHED of a process, linux/posix-timers.h)."""
        return time.clock_gettime((~self.daemon.process.pid << 3) | 2) * 1000 if self.daemon else 0

    def settle(self):
        """Until nothing is left to be done for what was deleted. The first look comes late, since each costs the daemon something too."""
        if self.daemon:
            time.sleep(0.15)
            wait_for(lambda: self.daemon.call("GET", "/v1/status")["counters"]["driver"]["reaped"] >= self.deleted, 60, "links are deleted",
                     every=0.05)


def go_config(name, plugin, subnet, host, **more):
    return {"cniVersion": "1.0.0", "name": name, "type": plugin, "ipMasq": False, "mtu": 1450, **more,
            "ipam": {"type": "host-local", "dataDir": f"{host.dir}/host-local", "ranges": [[{"subnet": subnet}]],
                     "routes": [{"dst": "0.0.0.0/0"}]}}


def prepare_kernel(host):
    host.run("ip", "link", "add", "objects0", "index", 900, "mtu", 1450, "type", "bridge", "mcast_snooping", 0, "ageing_time", 0)
    host.run("ip", "link", "set", "objects0", "up")


def own_config(mode, subnet):
    return {"cniVersion": "1.0.0", "name": f"bench-{mode}", "type": "trestle-cni", "mode": mode, "subnet": subnet,
            "ipam": {"type": "trestle", "routes": [{"dst": "0.0.0.0/0"}]}}


def make_subjects(lab, daemons):
    l3, l2, bridge, ptp, kernel = lab.hosts[:5]
    prepare_kernel(kernel)
    for host in (bridge, ptp):
        host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    return [Subject("trestle", l3, f"{BUILD}/trestle-cni", own_config("l3", "10.30.0.0/16"), daemons[0]),
            Subject("trestle-l2", l2, f"{BUILD}/trestle-cni", own_config("l2", "10.34.0.0/16"), daemons[1]),
            Subject("cni-bridge", bridge, f"{DEBIAN}/bridge", go_config("br", "bridge", "10.32.0.0/16", bridge, isGateway=True)),
            Subject("cni-ptp", ptp, f"{DEBIAN}/ptp", go_config("ptp", "ptp", "10.33.0.0/16", ptp)),
            Subject("kernel", kernel, f"{BUILD}/tests/load/objects", {})]


class Rounds:
    """The samples of all subjects for one number of attachments."""

    METRICS = (("add", "add_p50", 50), ("add", "add_p99", 99), ("del", "del_p50", 50), ("del", "del_p99", 99), ("add_cpu", "add_cpu_p50", 50),
               ("del_cpu", "del_cpu_p50", 50))

    def __init__(self, subjects, first):
        self.subjects, self.number = subjects, first
        self.samples = {(s.name, what): [] for s in subjects for what in ("add", "del", "add_cpu", "del_cpu")}

    def one(self, keep):
        self.number += 1
        operation = [(f"c{self.number}", "guest", f"eth{self.number}")]
        # Whoever was first in one round is last in the next: nobody always comes behind the same one.
        self.subjects = self.subjects[1:] + self.subjects[:1]
        for verb in ("add", "del"):
            for s in self.subjects:
                before = s.daemon_cpu()
                total, _, cpu = s.run(verb.upper(), operation)
                if verb == "del":
                    s.settle()
                cpu += s.daemon_cpu() - before
                if keep:
                    self.samples[s.name, verb].append(total)
                    self.samples[s.name, verb + "_cpu"].append(cpu)

    def report(self, report, suffix):
        for s in sorted(self.subjects, key=lambda s: not s.name.startswith("trestle")):
            for what, metric, p in self.METRICS:
                report.add(s.name, metric + suffix, "ms", self.samples[s.name, what], p)


def bursts(subjects, report, suffix):
    samples = {s.name: [] for s in subjects}
    for _ in range(BURSTS):
        for s in subjects:
            operations = [(f"b{n}", f"burst{n}", "eth0") for n in range(10000, 10000 + BURST)]
            samples[s.name].append(s.run("ADD", operations)[0])
            for n in range(0, BURST, 10):
                s.run("DEL", operations[n:n + 10])
            s.settle()
    for s in subjects:
        report.add(s.name, "add100_total" + suffix, "ms", samples[s.name])


def grow(subjects, first, count):
    """More attachments on each host, ten at once. All are in one namespace, except ptp's, whose routes do not bear each other."""
    for s in subjects:
        alone = s.name == "cni-ptp"
        s.namespaces([f"crowd{n}" for n in range(first, first + (count if alone else 1))])
        for n in range(first, first + count, 10):
            s.run("ADD", [(f"g{i}", f"crowd{i if alone else first}", f"g{i}") for i in range(n, min(n + 10, first + count))])


def main():
    report = Report("cni")
    with Lab(hosts=6) as lab:
        daemons = [Daemon(h, log_level="info") for h in (lab.hosts[0], lab.hosts[1], lab.hosts[5])]
        Daemon.cluster(daemons)
        subjects = make_subjects(lab, daemons)
        for s in subjects:
            lab.defer(s.close)
            s.namespaces(["guest", *[f"burst{n}" for n in range(10000, 10000 + BURST)]])
        number = 0
        for size in (1, CROWD):
            grow(subjects, 20000 + (size > 1), size - (size > 1))
            rounds = Rounds(subjects, number)
            for n in range(WARM + ROUNDS):
                rounds.one(n >= WARM)
            number = rounds.number
            rounds.report(report, f"_{size}")
            if size == 1:
                bursts(subjects, report, "_1")
    report.write()


if __name__ == "__main__":
    program("bench", main)

"""How fast, at which price, does a cluster of real daemons know what happened? Ours beside Debian's `serf` agent.

Hosts are network namespaces on one bridge; both encrypt; the two take turns (ours, serf, ours, serf) in the same namespaces' places. Serf
runs its LAN profile, with the snapshot file that lets it find others again after a restart. An event is 100 bytes: serf's is a user event
with 100 bytes of payload, ours a new endpoint made at the plugin socket, whose record has about as many; it is timed from the origin's
publication to the moment at which each other host has the record, by stamps of one clock. Wire bytes are those of the switch's ports and
include Ethernet and ARP. Crashes are SIGKILL; every killed daemon is started again, so the number of hosts stays.

BENCH_N=50 (or 10,50,100, the default), TRESTLE_BENCH_ROUNDS (2), SHORT=1: ten hosts, once, in about two minutes. All of it takes about 25
minutes; the cut is made in the first round only. `join_all` and `restart_all` begin when all programs are let go at one moment: what
starts each waits in its namespace, since starting so many on one machine would take longer than what is measured.
All hosts share the cores of one machine: at 100 hosts each figure in milliseconds is first of all a measure of those.
"""
import base64
import http.client
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess

from bench.gossip_hosts import Fleet, now, require
from bench.report import Report, percentile
from tests.lab import BUILD, Neighbours, Plugin, program

SHORT = bool(os.environ.get("SHORT"))
COUNTS = [int(n) for n in os.environ.get("BENCH_N", "10" if SHORT else "10,50,100").split(",")]
ROUNDS = int(os.environ.get("TRESTLE_BENCH_ROUNDS", "1" if SHORT else "2"))
IDLE_S = float(os.environ.get("TRESTLE_BENCH_IDLE", "8" if SHORT else "30"))
EVENTS = int(os.environ.get("TRESTLE_BENCH_EVENTS", "5" if SHORT else "20"))
KILLS = int(os.environ.get("TRESTLE_BENCH_KILLS", "1" if SHORT else "4"))
CUT_S = float(os.environ.get("TRESTLE_BENCH_CUT", "12" if SHORT else "100"))
CUT_HOSTS = (10,) if SHORT else (50,)
LOSS_PERCENT = 1
LOSS_EVENTS = 3 if SHORT else 10
PORT = 7956
PAYLOAD = 100
RANDOM = random.Random(7)

# What to reach: at most so much. By metric without the number of hosts, then by hosts; 0 = any.
MOONSHOTS = {
    ("detect_all_p50", 0): 2.0, ("detect_all_p99", 0): 4.0,
    ("event_p50", 50): 0.5, ("event_p99", 50): 5, ("event_last_p50", 100): 2, ("event_last_p99", 100): 10,
    ("idle_tx", 50): 240, ("event_bytes", 50): 11000, ("idle_cpu", 50): 0.02, ("rss", 50): 4,
    ("join_all", 50): 150, ("join_bytes", 50): 12000, ("event_loss_p50", 50): 1, ("event_loss_p99", 50): 20, ("heal_p99", 50): 2, ("restart_all", 50): 3,
}


class Later(Plugin):
    """An engine that reads its answer when the event is over: parsing it takes one of the machine's few cores away from the hosts."""

    def __init__(self, where, pause):
        super().__init__(where)
        self.pause = pause

    def _answer(self, s):
        self.pause()
        return Plugin._answer(s)


class Trestle:
    NAME = "trestle"
    STATE = r"cluster: host (?P<name>\S+) \(number \d+\) is (?P<state>\w+), was"
    STATES = {}
    EVENT = re.compile(r"endpoint (\w+) (?:of host number \d+ known|published) at (\d+) us")
    EVENT_PACE_S = 0.4

    def __init__(self):
        self.token = None
        self.addresses = {}

    @staticmethod
    def wants(line):
        return "endpoint" in line

    def argv(self, fleet, number):
        where = fleet.host_dir(number)
        argv = [os.path.join(BUILD, "trestled"), "--name", f"h{number}", "--listen", f"{fleet.address(number)}:{PORT}",
                "--state-dir", f"{where}/state", "--run-dir", f"{where}/run", "--plugin-socket", f"{where}/plugin.sock",
                "--lease-grace", "86400", "--log-level", "debug"]
        return argv + (["--join", self.token] if self.token and not os.path.exists(f"{where}/state") else [])

    @staticmethod
    def call(fleet, number, method, path, body=None):
        conn = http.client.HTTPConnection("trestle", timeout=10)
        conn.sock = socket.socket(socket.AF_UNIX)
        conn.sock.settimeout(10)
        conn.sock.connect(f"{fleet.host_dir(number)}/run/trestled.sock")
        try:
            conn.request(method, path, None if body is None else json.dumps(body))
            return json.loads(conn.getresponse().read())
        finally:
            conn.close()

    def first_is_up(self, fleet):
        def up():
            try:
                self.token = self.call(fleet, 0, "POST", "/v1/token", {})["token"]
                return True
            except (OSError, KeyError):
                return False
        require(fleet.wait(up, 10), "the first trestled gave no token in 10 s")

    def plugin(self, fleet, number):
        return Plugin(lambda: f"{fleet.host_dir(number)}/plugin.sock")

    def prepare_events(self, fleet):
        """The network on every host, and an address for each that will have an event: what is timed is the record alone."""
        for n in range(fleet.count):
            network, pool, _ = self.plugin(fleet, n).create_network("app", "10.9.0.0/16")
            self.addresses[n] = (network, self.plugin(fleet, n).request_address(pool))

    def event(self, fleet, origin):
        network, address = self.addresses[origin]
        name = secrets.token_hex(32)
        Later(lambda: f"{fleet.host_dir(origin)}/plugin.sock", lambda: fleet.quiet(self.EVENT_PACE_S)).create_endpoint(network, name, address)
        return name

    def after_event(self, fleet, origin, name):
        self.plugin(fleet, origin).delete_endpoint(self.addresses[origin][0], name)
        fleet.quiet(self.EVENT_PACE_S)

    def arrivals(self, fleet, name, origin):
        """(stamp of the origin, {host: stamp})"""
        seen = {}
        for _, host, line in fleet.notes:
            found = self.EVENT.search(line)
            if found and name.startswith(found.group(1)):
                seen[host] = int(found.group(2)) / 1e6
        return seen.pop(origin), seen


class Serf:
    NAME = "serf"
    STATE = r"serf: EventMember(?P<state>Join|Failed): (?P<name>\S+)"
    STATES = {"Join": "alive", "Failed": "dead"}
    EVENT = re.compile(r"Received event: user-event: (\S+)")
    EVENT_PACE_S = 2.0

    def __init__(self):
        self.key = base64.b64encode(secrets.token_bytes(32)).decode()

    @staticmethod
    def wants(line):
        return "Received event: user-event" in line

    def argv(self, fleet, number):
        argv = ["serf", "agent", f"-node=h{number}", f"-bind={fleet.address(number)}:7946", f"-rpc-addr={fleet.address(number)}:7373",
                "-profile=lan", "-log-level=debug", f"-encrypt={self.key}", f"-snapshot={fleet.host_dir(number)}/snapshot"]
        return argv + ([f"-retry-join={fleet.address(0)}", "-retry-interval=1s"] if number else [])

    def first_is_up(self, fleet):
        require(fleet.wait(lambda: fleet.sees(0, 0)[0] == "alive", 10), "the first serf is not up after 10 s")

    def prepare_events(self, fleet):
        pass

    def event(self, fleet, origin):
        name = "e" + secrets.token_hex(6)
        # In the namespace of the origin, where the agent's RPC listens.
        done = subprocess.Popen(["ip", "netns", "exec", fleet.netns(origin), "serf", "event", "-coalesce=false",
                                 f"-rpc-addr={fleet.address(origin)}:7373", name, "x" * PAYLOAD],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        fleet.pump(self.EVENT_PACE_S)
        require(done.wait(10) == 0, "`serf event` failed")
        return name

    def after_event(self, fleet, origin, name):
        pass

    def arrivals(self, fleet, name, origin):
        seen = {}
        for stamp, host, line in fleet.notes:
            found = self.EVENT.search(line)
            if found and found.group(1) == name:
                seen.setdefault(host, stamp)
        return seen.pop(origin), seen


class Samples:
    """{(subject, metric, hosts): samples} over all rounds."""

    def __init__(self):
        self.all = {}

    def add(self, fleet, metric, *values):
        self.all.setdefault((fleet.subject.NAME, metric, fleet.count), []).extend(values)


def say(*words):
    print(" ", *words, flush=True)


def bytes_between(before, after):
    return sum(b[0] - a[0] for a, b in zip(before, after))


def measure_join(fleet, samples):
    """From the start of all but the first, which is up, to everyone seeing everyone."""
    fleet.start(0)
    fleet.subject.first_is_up(fleet)
    before = fleet.sent()
    begun = fleet.start_together(range(1, fleet.count))
    # Of fifty serfs that start at one moment, now and then one misses the first exchange and comes in by the one after a minute.
    require(fleet.wait(fleet.all_see_all, 300), f"{fleet.subject.NAME}: not everyone sees everyone after 300 s")
    took = fleet.latest("alive") - begun
    samples.add(fleet, "join_all", took * 1e3)
    samples.add(fleet, "join_bytes", bytes_between(before, fleet.sent()) / fleet.count)
    say(f"{fleet.subject.NAME} x {fleet.count}: joined in {took:.2f} s")


def measure_idle(fleet, samples):
    """What nothing happening costs: (bytes/s, core seconds/s) of all hosts together."""
    fleet.pump(3 if SHORT else 10)
    before, (cpu, turns), begun = fleet.sent(), fleet.cpu(), now()
    while now() - begun < IDLE_S:
        fleet.quiet(1)
    took = now() - begun
    (cpu_after, turns_after), after = fleet.cpu(), fleet.sent()
    sent = bytes_between(before, after) / took
    spent = (cpu_after - cpu) / took
    samples.add(fleet, "idle_tx", sent / fleet.count)
    samples.add(fleet, "idle_packets", sum(b[1] - a[1] for a, b in zip(before, after)) / fleet.count / took)
    samples.add(fleet, "idle_cpu", 100 * spent / fleet.count)
    samples.add(fleet, "idle_wakeups", (turns_after - turns) / fleet.count / took)
    samples.add(fleet, "rss", *[p.rss_mib() for p in fleet.programs.values()])
    say(f"{fleet.subject.NAME} x {fleet.count}: idle {sent / fleet.count:.0f} B/s a host")
    return sent, spent


def measure_events(fleet, samples, idle):
    subject = fleet.subject
    subject.prepare_events(fleet)
    fleet.pump(2)
    missed = 0
    for _ in range(EVENTS):
        origin = RANDOM.randrange(fleet.count)
        fleet.notes.clear()
        before, (cpu, _), begun = fleet.sent(), fleet.cpu(), now()
        name = subject.event(fleet, origin)
        took = now() - begun
        after, (cpu_after, _) = fleet.sent(), fleet.cpu()
        zero, seen = subject.arrivals(fleet, name, origin)
        missed += fleet.count - 1 - len(seen)
        late = [(t - zero) * 1e3 for t in seen.values()]
        samples.add(fleet, "event", *late)
        samples.add(fleet, "event_last", max(late))
        samples.add(fleet, "event_bytes", max(bytes_between(before, after) - idle[0] * took, 0))
        samples.add(fleet, "event_cpu", max(cpu_after - cpu - idle[1] * took, 0) * 1e6 / fleet.count)
        subject.after_event(fleet, origin, name)
    samples.add(fleet, "event_missed", missed)
    say(f"{subject.NAME} x {fleet.count}: {EVENTS} events, {missed} arrivals missed in {subject.EVENT_PACE_S} s")
    measure_events_with_loss(fleet, samples)


def measure_events_with_loss(fleet, samples):
    """The same while the switch drops one packet of a hundred."""
    subject, missed = fleet.subject, 0
    fleet.lose(LOSS_PERCENT)
    for _ in range(LOSS_EVENTS):
        origin = RANDOM.randrange(fleet.count)
        fleet.notes.clear()
        name = subject.event(fleet, origin)
        zero, seen = subject.arrivals(fleet, name, origin)
        missed += fleet.count - 1 - len(seen)
        samples.add(fleet, "event_loss", *[(t - zero) * 1e3 for t in seen.values()])
        subject.after_event(fleet, origin, name)
    fleet.lose_nothing()
    samples.add(fleet, "event_loss_missed", missed)


def measure_kills(fleet, samples):
    for _ in range(KILLS):
        victim = RANDOM.randrange(1, fleet.count)
        begun = now()
        fleet.kill(victim)
        others = fleet.alive()

        def all_know():
            return all(fleet.sees(h, victim)[0] == "dead" for h in others)
        require(fleet.wait(all_know, 60), f"{fleet.subject.NAME}: h{victim} was killed and not everyone knows after 60 s")
        known = [fleet.sees(h, victim)[1] - begun for h in others]
        samples.add(fleet, "detect_first", min(known))
        samples.add(fleet, "detect_all", max(known))
        fleet.start(victim)
        require(fleet.wait(fleet.all_see_all, 60), f"{fleet.subject.NAME}: h{victim} is not back after 60 s")
        fleet.pump(1 if SHORT else 2)
    say(f"{fleet.subject.NAME} x {fleet.count}: {KILLS} crashes")


def measure_cut(fleet, samples):
    """Half and half for CUT_S; pairs across the cut from the heal to seeing each other."""
    half, rest = fleet.alive()[:fleet.count // 2], fleet.alive()[fleet.count // 2:]
    across = [(a, b) for a in half for b in rest] + [(b, a) for a in half for b in rest]
    begun = now()
    fleet.cut(half)
    fleet.pump(CUT_S)
    apart = [p for p in across if fleet.sees(*p)[0] == "dead"]
    say(f"{fleet.subject.NAME} x {fleet.count}: {len(apart)} of {len(across)} pairs apart after {now() - begun:.0f} s")
    require(apart, "the cut cut nothing")
    healed = now()
    fleet.heal()
    require(fleet.wait(fleet.all_see_all, 120), f"{fleet.subject.NAME}: not one cluster 120 s after the heal")
    times = [fleet.sees(*p)[1] - healed for p in apart]
    samples.add(fleet, "heal", *times)
    said = [(host in half) == (int(other[1:]) in half) for t, host, other, state in fleet.history if t > healed and state == "dead"]
    samples.add(fleet, "heal_false_deaths", sum(said))
    samples.add(fleet, "heal_flaps", len(said) - sum(said))
    say(f"{fleet.subject.NAME} x {fleet.count}: healed in {max(times):.2f} s; after the heal {sum(said)} deaths said of hosts that were "
        f"never away, {len(said) - sum(said)} of those across")


def measure_restart(fleet, samples):
    """All killed at once; all but the only seed start again."""
    for p in fleet.programs.values():
        p.signal(signal.SIGKILL)
    for n in fleet.alive():
        fleet.kill(n)
    fleet.view.clear()
    begun = fleet.start_together(range(1, fleet.count))
    if not fleet.wait(fleet.all_see_all, 30):
        alive = fleet.alive()
        pairs = sum(fleet.sees(a, b)[0] == "alive" for a in alive for b in alive if a != b)
        say(f"{fleet.subject.NAME} x {fleet.count}: restarted without the seed, after 30 s {pairs} of {len(alive) * (len(alive) - 1)} pairs see "
            "each other: counted as 30")
        samples.add(fleet, "restart_all", 30)
        samples.add(fleet, "restart_missing", len(alive) * (len(alive) - 1) - pairs)
        return
    took = fleet.latest("alive") - begun
    samples.add(fleet, "restart_all", took)
    samples.add(fleet, "restart_missing", 0)
    say(f"{fleet.subject.NAME} x {fleet.count}: one cluster {took:.2f} s after the start of all")


def measure(subject, count, samples, cut):
    with Fleet(subject, count) as fleet:
        measure_join(fleet, samples)
        idle = measure_idle(fleet, samples)
        measure_events(fleet, samples, idle)
        measure_kills(fleet, samples)
        if cut:
            measure_cut(fleet, samples)
        measure_restart(fleet, samples)


# metric -> (unit, percentiles of the samples; 0 = the median without a name)
METRICS = {
    "detect_first": ("s", (50,)), "detect_all": ("s", (50, 99)),
    "event": ("ms", (50, 99)), "event_last": ("ms", (50, 99)), "event_missed": ("arrivals", (0,)), "event_bytes": ("bytes", (0,)),
    "event_cpu": ("us a host", (0,)), "event_loss": ("ms", (50, 99)), "event_loss_missed": ("arrivals", (0,)),
    "idle_tx": ("bytes/s", (0,)), "idle_packets": ("packets/s", (0,)), "idle_cpu": ("% of a core", (0,)),
    "idle_wakeups": ("turns/s", (0,)), "rss": ("MiB", (0,)),
    "join_all": ("ms", (0,)), "join_bytes": ("bytes", (0,)),
    "heal": ("s", (50, 99)), "heal_false_deaths": ("deaths", (0,)), "heal_flaps": ("deaths", (0,)),
    "restart_all": ("s", (0,)), "restart_missing": ("pairs after 30 s", (0,)),
}


class GossipReport(Report):
    """With what to reach beside each figure."""

    MORE = ("moonshot",)

    def more(self, row):
        base, _, count = row["metric"].rpartition("_n")
        goal = MOONSHOTS.get((base, int(count)), MOONSHOTS.get((base, 0))) if row["subject"] == Trestle.NAME else None
        return ("" if goal is None else f"{goal:g} {'reached' if row['median'] <= goal else 'missed'}",)


def report(samples):
    out = GossipReport("gossip")
    for metric, (unit, percentiles) in METRICS.items():
        for count in COUNTS:
            for p in percentiles:
                for subject in (Trestle.NAME, Serf.NAME):
                    values = samples.all.get((subject, metric, count))
                    if values:
                        out.add(subject, f"{metric}{f'_p{p}' if p else ''}_n{count}", unit, values, p or 50)
    out.write()


def main():
    require(shutil.which("serf"), "there is no `serf`: packaging/deps.sh bench-gossip installs it")
    samples = Samples()
    with Neighbours():
        for count in COUNTS:
            for number in range(ROUNDS):
                for subject in (Trestle(), Serf()):
                    measure(subject, count, samples, number == 0 and count in CUT_HOSTS)
    report(samples)


if __name__ == "__main__":
    program("bench", main)

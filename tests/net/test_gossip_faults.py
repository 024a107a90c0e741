"""What membership promises when the network or the hosts misbehave: healthy hosts are never called dead by healthy hosts, no address has
two holders, and when the fault ends there is one cluster again.

Ten hosts; fifty, and longer faults, with TRESTLE_LONG=1. The bounds here are no figures of merit (`make bench-gossip` has those): they
are wide enough for a machine that does other things too.
"""
import os
import re
import signal
import time
import unittest

from tests.lab import Daemon, Lab, Neighbours, Runtime, wait_for
from tests.net.hosts import LONG

HOSTS = 50 if LONG else 10
FAULT_S = 100 if LONG else 15  # longer than a suspicion lasts
AGAIN_S = 30 if LONG else 10  # one cluster again, from the end of the fault; it takes about one
CHANGE = re.compile(r"cluster: host (\S+) \(number \d+\) is (\w+), was (\w+)")


class Logs:
    """What each daemon said of others' states since mark()."""

    def __init__(self, daemons):
        self.daemons = daemons
        self.mark()

    def mark(self):
        self.at = {d.host.name: len(d.log_text()) for d in self.daemons}

    def deaths(self, observers=None):
        """[(who says so, of whom)]"""
        said = []
        for d in observers or self.daemons:
            for found in CHANGE.finditer(d.log_text()[self.at[d.host.name]:]):
                if found.group(2) == "dead":
                    said.append((d.host.name, found.group(1)))
        return said


class Faults(unittest.TestCase):
    def setUp(self):
        if HOSTS > 30:
            neighbours = Neighbours()
            neighbours.__enter__()
            self.addCleanup(neighbours.__exit__)
        self.lab = Lab(hosts=HOSTS).open()
        self.addCleanup(self.lab.close)
        self.hosts = self.lab.hosts
        self.daemons = [Daemon(h, log_level="info", start=False) for h in self.hosts]
        self.daemons[0].start()
        token = self.daemons[0].token()
        for d in self.daemons[1:]:
            d.start("--join", token, wait=False)
        self.one_cluster(self.daemons, 60)
        self.logs = Logs(self.daemons)
        self.runtimes, self.given = {}, []

    def one_cluster(self, daemons, timeout=AGAIN_S):
        """All of these are members that see all of these alive, and nobody waits for news."""
        began = time.monotonic()
        for d in daemons:
            wait_for(lambda d=d: d.call("GET", "/v1/status")["members"]["alive"] == len(daemons), timeout, f"{d.host.name} sees {len(daemons)} alive")
        for d in daemons:
            wait_for(lambda d=d: d.call("GET", "/v1/status")["in_step"], timeout, f"{d.host.name} is in step")
        took = time.monotonic() - began
        print(f"# one cluster of {len(daemons)} after {took:.2f} s", flush=True)
        self.assertLess(took, timeout)

    def attach(self, daemon, count=1):
        """Containers' addresses on a host; each is noted, for distinct() to look at."""
        name = daemon.host.name
        if self.runtimes:  # the network is made already, and is the same one for whoever has heard of it
            wait_for(lambda: daemon.call("GET", "/v1/networks/app"), 10, f"{name} knows the network")
        if name not in self.runtimes:
            self.runtimes[name] = Runtime(daemon, *daemon.plugin().create_network("app", "10.9.0.0/24"))
        for _ in range(count):
            container = wait_for(self.runtimes[name].attach, 10, f"a container on {name}")
            self.given.append((container.ip, name))

    def part_of_it(self, daemon):
        """Only then a host keeps the network's endpoints."""
        wait_for(lambda: daemon.call("GET", "/v1/networks/app"), 10, f"{daemon.host.name} knows the network")
        daemon.call("POST", "/v1/networks", {"name": "app"})

    def distinct(self):
        """No address went out twice, all are where they should be, and every host says the same."""
        addresses = [a for a, _ in self.given]
        self.assertEqual(len(set(addresses)), len(addresses), sorted(self.given))
        want = dict(self.given)
        for d in [d for d in self.daemons if d.alive()]:
            self.part_of_it(d)
            wait_for(lambda d=d: {e["ipv4"]: e["host"] for e in d.endpoints()} == want, 10, f"{d.host.name} knows all endpoints")
            status = d.call("GET", "/v1/status")
            self.assertEqual(status["counters"]["gossip"]["conflicts"], 0)
            self.assertFalse([w for w in status["warnings"] if "an address was seen on two hosts" in w], d.host.name)

    def no_deaths(self, observers, of):
        names = {d.host.name for d in of}
        self.assertEqual([(by, who) for by, who in self.logs.deaths(observers) if who in names], [])

    def wait_dead(self, observer, count, timeout=60):
        wait_for(lambda: observer.call("GET", "/v1/status")["members"]["dead"] == count, timeout, f"{observer.host.name} sees {count} dead")


class CutAndLoss(Faults):
    def test_cut_in_halves(self):
        one, other = self.daemons[:HOSTS // 2], self.daemons[HOSTS // 2:]
        for d in (one[0], one[1], other[0], other[1]):
            self.attach(d)
        self.lab.cut([d.host for d in one], [d.host for d in other])
        end = time.monotonic() + FAULT_S
        for side, missing in ((one, len(other)), (other, len(one))):
            self.wait_dead(side[0], missing)
            self.attach(side[0], 3)
            self.attach(side[1], 3)
        time.sleep(max(0, end - time.monotonic()))
        for side in (one, other):
            self.no_deaths(side, side)
        self.logs.mark()
        self.lab.heal()
        self.one_cluster(self.daemons)
        # While the halves meet, each has heard of the other's deaths: nobody may believe them of its own side.
        for side in (one, other):
            self.no_deaths(side, side)
        self.attach(one[0], 2)
        self.attach(other[0], 2)
        self.distinct()

    def test_a_host_that_is_heard_by_nobody(self):
        """One-way loss: what it sends is lost, what is sent to it arrives."""
        mute, rest = self.daemons[-1], self.daemons[:-1]
        self.lab.cut([mute.host], [d.host for d in rest], one_way=True)
        for d in rest:
            self.wait_dead(d, 1)
        time.sleep(FAULT_S / 2)
        self.no_deaths(rest, rest)
        self.lab.heal()
        self.one_cluster(self.daemons)
        self.no_deaths(rest, rest)

    def test_two_that_do_not_hear_each_other(self):
        """One-way loss on one path: everybody else hears both, so nobody is dead."""
        self.lab.cut([self.hosts[1]], [self.hosts[2]], one_way=True)
        self.attach(self.daemons[1])
        for d in self.daemons[2:4]:
            self.part_of_it(d)
        wait_for(lambda: self.daemons[2].endpoints(), 10, "h3 hears of h2's endpoint by another way")
        time.sleep(FAULT_S)
        self.no_deaths(self.daemons, self.daemons)
        self.lab.heal()
        self.one_cluster(self.daemons)
        self.distinct()

    def test_four_of_five_packets_lost_on_two_hosts(self):
        lossy, rest = self.daemons[-2:], self.daemons[:-2]
        self.lab.lose(80, [d.host for d in lossy])
        began = time.monotonic()
        self.attach(rest[0], 3)
        time.sleep(max(0, FAULT_S - (time.monotonic() - began)))
        self.no_deaths(rest, rest)
        self.lab.heal()
        self.one_cluster(self.daemons)
        self.no_deaths(rest, rest)
        self.attach(lossy[0])
        self.distinct()


class Deaths(Faults):
    def kill_all(self, daemons):
        for d in daemons:
            os.kill(d.process.pid, signal.SIGKILL)
        for d in daemons:
            d.kill9()

    def test_all_killed_at_once(self):
        self.attach(self.daemons[0], 2)
        self.attach(self.daemons[1], 2)
        self.kill_all(self.daemons)
        for d in self.daemons:
            d.start(wait=False)
        self.one_cluster(self.daemons)
        self.attach(self.daemons[0])
        self.distinct()

    def test_all_seeds_gone(self):
        """The one host that all joined at is gone for good, and all others but one are killed with it and start again."""
        last = self.daemons[-1]
        # A sponsor gives host numbers out of its own reserve, which comes to it once the others know that it is a member.
        last.wait_sponsor()
        self.kill_all(self.daemons[:-1])
        rest = self.daemons[1:]
        for d in rest[:-1]:
            d.start(wait=False)
        self.one_cluster(rest)
        self.daemons = rest
        # A new host joins at the one that was never down.
        newcomer = self.newcomer()
        newcomer.join(last)
        self.one_cluster(rest + [newcomer])

    def newcomer(self):
        """h1's place with an empty disk."""
        host = self.hosts[0]
        d = Daemon(host, log_level="info", start=False)
        d.state += "-new"
        d.options += ["--run-dir", "/run/trestle-new", "--control-socket", "/run/trestle/trestled.sock", "--name", "newcomer"]
        return d.start()

    def test_a_tenth_stopped_for_a_while(self):
        stopped, rest = self.daemons[:max(1, HOSTS // 10)], self.daemons[max(1, HOSTS // 10):]
        began = time.monotonic()
        for d in stopped:
            d.process.pause()
        self.wait_dead(rest[0], len(stopped))
        self.attach(rest[0], 3)
        time.sleep(max(0, 20 - (time.monotonic() - began)))
        for d in stopped:
            d.process.resume()
        self.one_cluster(self.daemons)
        self.no_deaths(self.daemons, rest)  # those that slept blame nobody for what they did not hear
        self.attach(stopped[0])
        self.distinct()


if __name__ == "__main__":
    unittest.main()

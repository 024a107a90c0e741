"""A cut of the underlay, with real engines: both sides go on, and when it heals all is one again within three seconds."""
import concurrent.futures
import itertools
import time
import unittest

from tests.docker.cluster import LONG, Cluster
from tests.lab import Daemon, wait_for

CUT_S = 60 if LONG else 15
HEALED_S = 3


class Cut(Cluster):
    def pid(self, name, number):
        return str(self.engines[number].inspect(name)["State"]["Pid"])

    def unreached(self, containers, pids):
        """Pairs that do not reach each other now. One nsenter per container that pings all others at once, so that looking is quick."""
        def look(item):
            name, (number, _) = item
            others = [a for n, (_, a) in containers.items() if n != name]
            script = "".join(f"(ping -n -q -c 1 -W 1 {a} >/dev/null || echo {a}) & " for a in others) + "wait"
            return [(name, a) for a in self.hosts[number].run("nsenter", "-t", pids[name], "-n", "sh", "-c", script).stdout.split()]
        with concurrent.futures.ThreadPoolExecutor(len(containers)) as pool:
            return list(itertools.chain.from_iterable(pool.map(look, containers.items())))

    def test_both_sides_allocate_and_meet_again(self):
        net, _ = self.network()
        containers = self.one_on_each(net)
        self.all_reach(containers)
        cut = time.monotonic()
        self.lab.cut(self.hosts[:1], self.hosts[1:])
        number = 0
        while time.monotonic() - cut < CUT_S:
            # Slow at first by the timeouts of those who wait for the other side, never refused: each holds addresses of its own.
            if number < 12:
                n = number % len(self.engines)
                containers[f"x{number}"] = (n, self.run_one(n, f"x{number}", net))
            number += 1
            time.sleep(0.5)
        addresses = [a for _, a in containers.values()]
        self.assertEqual(len(set(addresses)), len(addresses), containers)
        self.reaches(1, "c2", containers["c3"][1])  # within a side nothing changed
        self.silent(0, "c1", containers["c2"][1])
        pids = {name: self.pid(name, n) for name, (n, _) in containers.items()}
        healed = time.monotonic()
        self.lab.heal()
        # A look at all pairs is work for this machine, not for the network: a look that succeeds says how much.
        while True:
            began = time.monotonic()
            left = self.unreached(containers, pids)
            took, look = began - healed, time.monotonic() - began
            if not left:
                break
            self.assertLess(took, 20 * HEALED_S, f"still unreachable: {left}")
        print(f"# cut of {CUT_S} s, {len(containers)} containers: all pairs met again within {took:.2f} s, a look takes {look:.2f} s", flush=True)
        self.assertLess(took, HEALED_S + 3 * look)
        Daemon.wait_members(self.daemons)
        self.assertEqual(len(self.known(net)), len(containers))

    def test_host_without_the_others_still_creates_networks(self):
        self.lab.cut(self.hosts[:1], self.hosts[1:])
        self.addCleanup(self.lab.heal)
        began = time.monotonic()
        net, part = self.network(engines=[self.engines[0]])
        self.run_one(0, "one", net)
        other = self.run_one(0, "two", net)
        self.assertLess(time.monotonic() - began, 30)  # an engine gives up on a plugin's call after that
        self.reaches(0, "one", other)
        self.lab.heal()
        # Before the news is there a second network of that name would be made, which is the named conflict of two sides.
        self.know_network(net)
        for e in self.engines[1:]:
            e.docker("network", "create", "-d", "trestle", "--ipam-driver", "trestle", "--subnet", f"{part}.0/24",
                     "-o", f"trestle.network={net}", net)
        self.run_one(1, "three", net)
        self.reaches(1, "three", other)


if __name__ == "__main__":
    unittest.main()

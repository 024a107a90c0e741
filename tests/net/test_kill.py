"""kill -9 and power cuts at random moments, while containers come and go.

No acknowledged address may be lost or given twice, nothing may be left once the grace for what nobody uses is over, and packets between
other containers must not notice. TRESTLE_LONG=1 runs 100 rounds of each.
"""
import random
import time
import unittest

from tests.lab import Daemon, leaks, wait_for
from tests.net.hosts import LONG, Hosts, Ledger, Worker

GRACE_S = 10
SEED = random.SystemRandom().randrange(1 << 32)


class Kill(Hosts):
    # A shorter grace than the default minute, or the test would wait for that; engines need well under a second.
    OPTIONS = ("--lease-grace", GRACE_S)
    ROUNDS = 100 if LONG else 20

    def check_attached(self, ledger, daemon):
        """Every container that was there before and after the question is in the answer, with its address."""
        before = ledger.snapshot()
        seen = {e["id"]: e["ipv4"] for e in daemon.local_endpoints()}
        after = ledger.snapshot()
        for endpoint_id in before.keys() & after.keys():
            if before[endpoint_id].host is daemon.host:
                self.assertEqual(seen.get(endpoint_id), before[endpoint_id].ip, f"seed {SEED}: endpoint {endpoint_id}")

    def test_nothing_is_lost_or_left(self):
        chance = random.Random(SEED)
        one, two = self.runtimes()
        steady1, steady2 = one.attach(), two.attach()
        self.reach(one, steady1, steady2.ip)
        victim = self.daemons[0]
        before = leaks.host(self.lab.hosts[0])
        pings = one.ping_steadily(steady1, steady2.ip)
        ledger = Ledger()
        for c in (steady1, steady2):
            ledger.give(c.ip, "steady")
        workers = [Worker(one, ledger, chance), Worker(one, ledger, chance), Worker(two, ledger, chance)]
        for w in workers:
            w.start()
        number = 0
        # On a slow machine until there was something to lose, too.
        while number < self.ROUNDS or ledger.count <= self.ROUNDS:
            time.sleep(chance.uniform(0, 0.3))
            victim.kill9()
            # Every other round the start itself is what gets killed.
            victim.start(wait=number % 2 == 0)
            if number % 2 == 0:
                self.check_attached(ledger, victim)
            number += 1
        victim.wait_ready()
        for w in workers:
            w.end()
        self.assertEqual(ledger.faults, [], f"seed {SEED}")
        lost, answered = pings.lost()
        self.assertEqual(lost, [], f"seed {SEED}: of {answered + len(lost)} pings")
        Daemon.wait_members(self.daemons)
        want = {steady1.ip: "h1", steady2.ip: "h2"}
        for d in self.daemons:
            wait_for(lambda d=d: self.endpoints(d) == want, 3 * GRACE_S, f"seed {SEED}: {d.host.name} knows only the steady two")
            # The gateway and the steady container.
            wait_for(lambda d=d: self.leases(d) == 2, 3 * GRACE_S, f"seed {SEED}: {d.host.name} has two leases, gateway and container")
        wait_for(lambda: not leaks.difference(before, leaks.host(self.lab.hosts[0])), 3 * GRACE_S,
                 f"seed {SEED}: nothing is left in the kernel")
        wait_for(lambda: not sum(victim.call("GET", "/v1/status")["drift"].values()), 3 * GRACE_S, f"seed {SEED}: nothing drifts")
        self.reach(one, steady1, steady2.ip)


class Reboot(Hosts):
    HOSTS = 3
    ROUNDS = 100 if LONG else 6

    def setUp(self):
        super().setUp()
        # On disk, so that only the boot id tells that its content is of an earlier boot.
        self.victim = self.daemons[0]
        self.victim.stop()
        self.victim.options += ["--run-dir", self.lab.hosts[0].dir + "/run", "--control-socket", "/run/trestle/trestled.sock"]
        self.victim.start()
        Daemon.wait_members(self.daemons)

    def test_power_cuts(self):
        chance = random.Random(SEED)
        one, two, three = self.runtimes()
        steady2, steady3 = two.attach(), three.attach()
        self.reach(two, steady2, steady3.ip)
        pings = two.ping_steadily(steady2, steady3.ip)
        ledger = Ledger()
        for c in (steady2, steady3):
            ledger.give(c.ip, "steady")
        other = Worker(two, ledger, chance)
        other.start()
        number = 0
        while number < self.ROUNDS or ledger.count <= 3 * self.ROUNDS:
            number += 1
            one.dead = False
            workers = [Worker(one, ledger, chance), Worker(one, ledger, chance)]
            for w in workers:
                w.start()
            time.sleep(chance.uniform(0, 0.6))
            one.dead = True
            self.lab.hosts[0].boot()
            for w in workers:
                w.end()
            for w in workers:
                for c in w.mine:
                    ledger.detach(c)
            ledger.forget_host("h1")
            self.victim.start()
            self.assertEqual(self.victim.local_endpoints(), [], f"seed {SEED}: endpoints of an earlier boot")
        other.end()
        lost, answered = pings.lost()
        self.assertEqual(lost, [], f"seed {SEED}: of {answered + len(lost)} pings")
        self.assertEqual(ledger.faults, [], f"seed {SEED}")
        Daemon.wait_members(self.daemons)
        want = {steady2.ip: "h2", steady3.ip: "h3"}
        for d in self.daemons:
            wait_for(lambda d=d: self.endpoints(d) == want, 10, f"seed {SEED}: {d.host.name} knows only the steady two")
        # The network is still known to the host, and works.
        again = one.attach()
        self.reach(one, again, steady2.ip)
        self.reach(three, steady3, again.ip)


if __name__ == "__main__":
    unittest.main()

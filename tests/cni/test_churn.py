"""Containers that come and go for long, on two hosts, sixteen at once: what is left behind adds up.

Here a few hundred; TRESTLE_LONG=1 (`make test-cni-churn`) makes ten thousand. Compared are what the kernel has, what the daemons have
given out, and their memory and descriptors once they have seen a part of it.
"""
import os
import threading
import time
import unittest

from tests.cni.runtime import BINARY, PluginTest, Runner
from tests.lab import leaks, wait_for

PAIRS = 10000 if os.environ.get("TRESTLE_LONG") else 320
AT_ONCE = 8  # of each host
GROWTH = 1 << 20  # bytes: what a heap may be torn by


class Churn(PluginTest):
    HOSTS = 2
    CONFIG = {"cniVersion": "1.0.0", "name": "churn", "type": "trestle-cni", "mode": "l2", "subnet": "10.70.0.0/24", "subnet6": "2001:db8:70::/64"}

    def setUp(self):
        self.faults, self.runners = [], []
        for host in self.lab.hosts:
            runner = Runner(host, BINARY, self.CONFIG, "/usr/lib/cni")
            self.addCleanup(runner.close)
            runner.namespaces([f"n{i}" for i in range(AT_ONCE)])
            runner.run("ADD", [("resident", "n0", "eth9")])
            self.runners.append(runner)

    def churn(self, pairs):
        """Half of them on each host; the two hosts take no heed of each other."""
        def work(runner):
            try:
                for turn in range(pairs // 2 // AT_ONCE):
                    operations = [(f"c{turn}x{i}", f"n{i}", f"e{turn % 7}") for i in range(AT_ONCE)]
                    runner.run("ADD", operations)
                    runner.run("DEL", operations)
            except Exception as e:  # told by the one who waits
                self.faults.append(e)

        threads = [threading.Thread(target=work, args=(r,)) for r in self.runners]
        for t in threads:
            t.start()
        while any(t.is_alive() for t in threads):
            self.look_for_twins()
            time.sleep(0.2)
        for t in threads:
            t.join()
        self.assertEqual(self.faults, [])

    def look_for_twins(self):
        addresses = [e[family] for e in self.daemon.endpoints("churn") if e["host"] == self.host.name for family in ("ipv4", "ipv6") if e[family]]
        self.assertEqual(len(addresses), len(set(addresses)))

    def objects(self):
        """Of both hosts; without what a deleted pair is until it is reaped."""
        return [leaks.host(h) for h in self.lab.hosts], [self.leases(d) for d in self.daemons], \
            [sorted(e["container_id"] for e in d.local_endpoints()) for d in self.daemons]

    def sizes(self):
        return [(d.call("GET", "/v1/status")["rss_bytes"], len(os.listdir(f"/proc/{d.process.pid}/fd"))) for d in self.daemons]

    def test_nothing_adds_up(self):
        before = self.objects()
        self.churn(PAIRS // 4)
        wait_for(lambda: self.objects() == before, 10, "as before, after a quarter")
        sizes = self.sizes()
        self.churn(PAIRS - PAIRS // 4)
        wait_for(lambda: self.objects() == before, 10, "as before")
        for d, (rss, fds), (rss_now, fds_now) in zip(self.daemons, sizes, self.sizes()):
            self.assertLessEqual(rss_now, rss + GROWTH, d.host.name)
            self.assertLessEqual(fds_now, fds + 2, d.host.name)  # one of them answers
            self.assertEqual(d.complaints(), [])
            wait_for(lambda d=d: d.trestle("ipam", "check"), 5, f"{d.host.name} finds nothing")


class Routed(Churn):
    CONFIG = {**Churn.CONFIG, "mode": "l3"}


if __name__ == "__main__":
    unittest.main()

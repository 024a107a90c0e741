"""Engines, daemons and hosts that go and come back, while containers with restart policy always wait for them."""
import re
import signal
import threading
import unittest

from tests.docker.cluster import FOREVER, Cluster
from tests.lab import Daemon, wait_for


class Restarts(Cluster):
    HOSTS = 2

    def running(self, number, name):
        return wait_for(lambda: self.engines[number].inspect(name)["State"]["Running"] or None, 30, f"{name} runs again")

    def stay(self, network):
        """Two containers that always come back on h1, one that watches on h2."""
        self.watch = self.run_one(1, "watch", network)
        self.names = ["stay1", "stay2"]
        for name in self.names:
            self.run_one(0, name, network, "--restart", "always")
            self.reaches(1, "watch", self.engines[0].address(name, network))

    def back(self, network):
        """They run, have an address each, reach and are reached, and nothing else of them is left anywhere."""
        addresses = []
        for name in self.names:
            self.running(0, name)
            addresses.append(self.engines[0].address(name, network))
        self.assertEqual(len({*addresses, self.watch}), len(addresses) + 1, (addresses, self.watch))
        want = {**{a: "h1" for a in addresses}, self.watch: "h2"}
        wait_for(lambda: self.known(network) == want, 10, lambda: f"exactly {want} are known: {self.known(network)}")
        for name, address in zip(self.names, addresses):
            self.reaches(0, name, self.watch)
            self.reaches(1, "watch", address)

    def test_engine_stopped_and_started(self):
        net, _ = self.network()
        self.stay(net)
        self.engines[0].end(signal.SIGTERM)
        self.engines[0].start()
        self.engines[0].wait_ready()
        self.back(net)

    def test_engine_killed_and_started(self):
        net, _ = self.network()
        self.stay(net)
        self.engines[0].end(signal.SIGKILL)
        self.engines[0].start()
        self.engines[0].wait_ready()
        self.back(net)

    def test_daemon_killed_under_running_containers(self):
        net, _ = self.network()
        self.stay(net)
        self.daemons[0].kill9()
        self.reaches(1, "watch", self.engines[0].address("stay1", net))  # the kernel goes on without us
        self.daemons[0].start()
        Daemon.wait_members(self.daemons)
        self.back(net)
        self.engines[0].docker("restart", "stay1")
        self.back(net)

    def test_containers_end_while_the_daemon_is_away(self):
        """The engine repeats its calls for 15 s, so a daemon that is back by then hears of the end."""
        net, _ = self.network()
        self.stay(net)
        self.daemons[0].kill9()
        ending = threading.Thread(target=self.engines[0].docker, args=("rm", "-f", "stay2"))
        ending.start()
        self.daemons[0].start()
        ending.join()
        self.names = ["stay1"]
        address = self.engines[0].address("stay1", net)
        wait_for(lambda: self.known(net) == {address: "h1", self.watch: "h2"}, 20, "stay2 is forgotten")

    def test_engine_started_before_the_daemon(self):
        net, _ = self.network()
        self.stay(net)
        self.engines[0].end(signal.SIGTERM)
        self.daemons[0].stop()
        self.engines[0].start()
        # The engine has met the stored network and waits for its plugin, and its API waits with it.
        wait_for(lambda: re.search("nable to (locate|connect to) plugin", self.engines[0].dockerd.tail()), 15, "the engine misses the plugin",
                 every=0.02)
        self.daemons[0].start()
        self.engines[0].wait_ready()
        Daemon.wait_members(self.daemons)
        self.back(net)

    def test_host_boots(self):
        net, _ = self.network()
        self.stay(net)
        self.hosts[0].boot()
        self.before[0] = self.still(self.hosts[0])
        self.daemons[0].start()
        self.engines[0].start()
        self.engines[0].wait_ready()
        Daemon.wait_members(self.daemons)
        self.before[0]["tables"] = self.still(self.hosts[0])["tables"]  # the engine's own, made at its start
        self.before[0]["links"] = sorted({*self.before[0]["links"], "docker0"})
        self.back(net)

    def test_daemon_restarts_while_containers_start(self):
        net, _ = self.network()
        self.stay(net)
        started = []

        def start(number):
            started.append(self.engines[0].docker("run", "-d", "--name", f"r{number}", "--network", net, "lab", *FOREVER, check=False))
        threads = [threading.Thread(target=start, args=(n,)) for n in range(4)]
        for t in threads:
            t.start()
        self.daemons[0].kill9()
        self.daemons[0].start()
        for t in threads:
            t.join()
        # A call that was cut off may fail its container, cleanly; what runs must be sound.
        names = [n for n in (f"r{i}" for i in range(4)) if self.engines[0].inspect(n)["State"]["Running"]]
        self.names += names
        Daemon.wait_members(self.daemons)
        self.back(net)


if __name__ == "__main__":
    unittest.main()

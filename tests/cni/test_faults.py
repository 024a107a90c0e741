"""kill -9 of the plugin and of the daemon between any two system calls of ADD and of DEL, and what a runtime does then.

tests/load/killat counts the system calls of the process and does not let it make the N-th. Here a few places are taken at random;
TRESTLE_LONG=1 (`make test-cni-faults`) takes every one. The network has a handful of addresses, so that what leaks is missed soon, and a container that stays, so that what is given twice is seen.
"""
import json
import os
import random
import subprocess
import unittest

from tests.cni.runtime import PluginTest
from tests.lab import BUILD

KILLAT = os.path.join(BUILD, "tests/load/killat")
LONG = bool(os.environ.get("TRESTLE_LONG"))
SEED = int(os.environ.get("TRESTLE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
PLACES = 10  # of each sweep, without TRESTLE_LONG
KILLED = 137


class Sweeps(PluginTest):
    """What the modes have in common."""
    OPTIONS = ("--lease-grace", 3)
    CONFIG = {"cniVersion": "1.1.0", "name": "net1", "type": "trestle-cni", "subnet": "10.9.0.0/29",
              "ipam": {"type": "trestle", "routes": [{"dst": "198.51.100.0/24"}]}}
    # The same network for another plugin: addresses alone.
    AS_IPAM = {"cniVersion": "1.1.0", "name": "net1", "type": "bridge", "ipam": {"type": "trestle", "subnet": "10.9.0.0/29", "network": "net1"}}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.chance = random.Random(SEED)

    def setUp(self):
        if not self.daemon.alive():
            self.daemon.start()
        self.resident = self.add("resident", self.sandbox(), self.CONFIG).addresses()[0]
        self.guest, self.before = self.sandbox(), self.state()

    def call_c(self, verb, config, **more):
        return self.cni.call(verb, "c", self.guest, config={**config, **more})

    def killed_plugin(self, n, verb, config):
        """(status, system calls seen)"""
        env = self.cni.environment(verb, "c", self.guest, "eth0")
        done = subprocess.run(self.host.enter("env", "-i", *[f"{k}={v}" for k, v in env.items()], KILLAT, str(n), self.cni.binary),
                              input=json.dumps(config).encode(), capture_output=True, timeout=60)
        return done.returncode, int(done.stderr.split()[-1])

    def places(self, count):
        everywhere = range(1, count + 1)
        return everywhere if LONG else sorted(self.chance.sample(everywhere, min(PLACES, count)))

    # ---- what runtimes do ----

    def insist_on_del(self, config):
        """A DEL that fails is said again, as every runtime does."""
        for _ in range(3):
            done = self.call_c("DEL", config)
            if done.status == 0:
                return
            self.assertNotIn("not found", done.msg)
            if not self.daemon.alive():
                self.daemon.start()
        self.fail(f"DEL: {done}")

    def retry(self, config):
        """The same ADD again, as Nomad does; what is there already is taken away first."""
        done = self.call_c("ADD", config)
        if done.code == 104:
            self.insist_on_del(config)
            done = self.call_c("ADD", config)
        self.works(done, config)
        self.insist_on_del(config)

    def collect(self, config):
        keep = [{"containerID": "resident", "ifname": "eth0"}]
        self.quiet(self.cni.call("GC", container=None, sandbox=None, ifname=None, config={**config, "cni.dev/valid-attachments": keep}))

    def works(self, done, config):
        self.assertEqual(done.status, 0, done)
        self.assertNotEqual(done.addresses()[0], self.resident)
        self.quiet(self.call_c("CHECK", config, prevResult=done.json))

    def as_before(self, config):
        """Nothing of c is left, and its address can be had again."""
        self.nothing_left(self.before)
        self.works(self.call_c("ADD", config), config)
        self.insist_on_del(config)
        self.nothing_left(self.before)

    def react(self, number, config):
        (self.retry, self.insist_on_del, self.collect)[number % 3](config)

    # ---- the plugin ----

    def sweep_plugin(self, config):
        status, adds = self.killed_plugin(0, "ADD", config)
        self.assertEqual(status, 0)
        status, dels = self.killed_plugin(0, "DEL", config)
        self.assertEqual(status, 0)
        for number, n in enumerate(self.places(adds)):
            with self.subTest(f"ADD killed at call {n} of {adds}, seed {SEED}"):
                self.assertIn(self.killed_plugin(n, "ADD", config)[0], (KILLED, 0))
                self.react(number, config)
                self.as_before(config)
        for number, n in enumerate(self.places(dels)):
            with self.subTest(f"DEL killed at call {n} of {dels}, seed {SEED}"):
                self.works(self.call_c("ADD", config), config)
                self.assertIn(self.killed_plugin(n, "DEL", config)[0], (KILLED, 0))
                self.react(number, config)
                self.as_before(config)

    # ---- the daemon ----

    def trace(self, n):
        tracer = subprocess.Popen([KILLAT, str(n), "-p", str(self.daemon.process.pid)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual(tracer.stdout.readline(), "ready\n")
        return tracer

    def end_trace(self, tracer):
        """(whether the daemon was killed, system calls seen)"""
        tracer.terminate()
        seen = tracer.communicate(timeout=10)[1]
        if tracer.returncode == 0:
            self.daemon.kill9()  # collects it
        return tracer.returncode == 0, int(seen.split()[-1])

    def calls_of_daemon(self, verb, config):
        """How many it makes for one verb, and a tenth more for what else it does meanwhile."""
        tracer = self.trace(0)
        self.assertEqual(self.call_c(verb, config).status, 0)
        return self.end_trace(tracer)[1] * 11 // 10

    def after_add(self, number, done, config):
        if number % 2 and not self.daemon.alive():
            self.daemon.start()
        if done.status:
            self.assertIn(done.code, (11, 105), done)
            if not self.daemon.alive():
                self.insist_on_del(config)  # before there is a daemon again
                self.daemon.start()
            self.react(number // 2, config)
        else:
            if not self.daemon.alive():
                self.daemon.start()
            self.works(done, config)
            self.insist_on_del(config)

    def sweep_daemon(self, config):
        adds, dels = (self.calls_of_daemon(verb, config) for verb in ("ADD", "DEL"))
        for number, n in enumerate(self.places(adds)):
            with self.subTest(f"daemon killed at call {n} of {adds} of ADD, seed {SEED}"):
                tracer = self.trace(n)
                done = self.call_c("ADD", config)
                self.end_trace(tracer)
                self.after_add(number, done, config)
                self.as_before(config)
        for number, n in enumerate(self.places(dels)):
            with self.subTest(f"daemon killed at call {n} of {dels} of DEL, seed {SEED}"):
                self.works(self.call_c("ADD", config), config)
                tracer = self.trace(n)
                done = self.call_c("DEL", config)
                self.end_trace(tracer)
                if not self.daemon.alive():
                    self.daemon.start()
                if done.status:
                    self.insist_on_del(config)
                self.as_before(config)


class L3(Sweeps):
    def test_plugin(self):
        self.sweep_plugin(self.CONFIG)

    def test_daemon(self):
        self.sweep_daemon(self.CONFIG)

    def test_plugin_as_an_ipam_plugin(self):
        self.sweep_plugin(self.AS_IPAM)

    def test_plugin_alone(self):
        """DEL while no daemon runs."""
        self.works(self.call_c("ADD", self.CONFIG), self.CONFIG)
        self.daemon.stop()
        status, dels = self.killed_plugin(0, "DEL", self.CONFIG)
        self.assertEqual(status, 0)
        for n in self.places(dels):
            with self.subTest(f"DEL killed at call {n} of {dels}, seed {SEED}"):
                self.daemon.start()
                self.nothing_left(self.before)
                self.works(self.call_c("ADD", self.CONFIG), self.CONFIG)
                self.daemon.stop()
                self.killed_plugin(n, "DEL", self.CONFIG)
                self.quiet(self.call_c("DEL", self.CONFIG))
        self.daemon.start()
        self.as_before(self.CONFIG)
        self.assertEqual(os.listdir(self.host.path("/run/trestle/tombstones")), [])

    def test_daemon_as_an_ipam_plugin(self):
        self.sweep_daemon(self.AS_IPAM)


class L2(Sweeps):
    CONFIG = {**Sweeps.CONFIG, "mode": "l2"}

    def test_plugin(self):
        self.sweep_plugin(self.CONFIG)

    def test_daemon(self):
        self.sweep_daemon(self.CONFIG)


if __name__ == "__main__":
    unittest.main()

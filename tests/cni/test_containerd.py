"""`ctr run --cni`: containerd's own CNI library, with the files that `trestle cni install` writes, on two hosts."""
import os
import shutil
import unittest

from tests.cni.runtime import PluginTest
from tests.lab import wait_for
from tests.lab.containerd import Containerd


@unittest.skipUnless(shutil.which("ctr") and os.path.exists("/bin/busybox"), "needs the packages containerd and busybox-static")
class Runs(PluginTest):
    HOSTS = 2
    OPTIONS = ("--lease-grace", 3)
    MODE = ("--mode", "l2")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.containerds = [Containerd(h) for h in cls.lab.hosts]
        for d in cls.daemons:
            d.text("cni", "install", "--network", "app", "--subnet", "10.9.0.0/24", *cls.MODE)

    def start(self, c, name):
        c.run(name, "-d")
        self.addCleanup(c.remove, name)
        return c.address(name)

    def test_containers_of_two_hosts_reach_each_other(self):
        one, two = self.containerds
        before = self.state()
        a = self.start(one, "a")
        self.know_network("app")
        b = self.start(two, "b")
        self.assertNotEqual(a, b)
        wait_for(lambda: one.ping("a", b), 5, "a reaches b")
        wait_for(lambda: two.ping("b", a), 5, "b reaches a")
        self.assertEqual([(e["ipv4"], e["container_id"]) for e in self.daemon.local_endpoints()], [(a, "default-a")])
        # ctr never says DEL for what it started with -d: what it had is collected.
        one.remove("a")
        wait_for(lambda: self.state() == before, 15, "collected")


class Routed(Runs):
    MODE = ()

    def test_a_container_that_ends(self):
        """ctr says DEL with an empty CNI_NETNS when the task has ended."""
        before = self.state()
        look = ("/bin/ip", "-o", "-4", "addr", "show", "dev", "eth0")
        short = lambda: self.containerds[0].run("short", "--rm", command=look).stdout
        wait_for(lambda: "10.9.0." in short(), 10, "what the container said of its address")  # ctr may lose it
        self.nothing_left(before)

    def test_an_add_that_fails(self):
        """ctr says DEL, leaves task and container behind, and shows what the daemon said."""
        before = self.state()
        self.daemon.stop()
        failed = self.containerds[0].run("late", "-d", check=False)
        self.containerds[0].remove("late")
        self.daemon.start()
        self.assertNotEqual(failed.returncode, 0)
        self.assertIn("no daemon answers", failed.stderr)
        self.nothing_left(before)


if __name__ == "__main__":
    unittest.main()

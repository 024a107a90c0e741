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

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.containerds = [Containerd(h) for h in cls.lab.hosts]
        for d in cls.daemons:
            d.text("cni", "install", "--network", "app", "--subnet", "10.9.0.0/24", "--mode", "l2")

    def start(self, c, name):
        c.run(name)
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
        self.assertEqual([e["ipv4"] for e in self.daemon.local_endpoints()], [a])
        # A detached container of ctr ends without DEL: what it had is collected.
        one.remove("a")
        wait_for(lambda: self.state() == before, 15, "collected")


if __name__ == "__main__":
    unittest.main()

"""podman as the runtime: its CNI backend, the plugin under its installed name, portmap chained behind, on two hosts.

In mode l2 the host itself is no part of the network, so ports are mapped by portmap and not reachable through it; that is mode l3's.
"""
import json
import os
import shutil
import unittest

from tests.cni.runtime import BINARY, PluginTest
from tests.lab import wait_for

BUSYBOX = "/bin/busybox"
CONF = """[network]
network_backend = "cni"
cni_plugin_dirs = ["{dir}/bin", "/usr/lib/cni"]
network_config_dir = "{dir}/net.d"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class Podman:
    """podman in a host, with storage and configuration of its own."""

    def __init__(self, host):
        self.host, self.dir = host, f"{host.dir}/podman"
        for name in ("bin", "net.d", "root/bin", "root/proc", "root/sys", "root/dev", "root/etc", "root/tmp", "root/run"):
            os.makedirs(f"{self.dir}/{name}", exist_ok=True)
        shutil.copy(BINARY, f"{self.dir}/bin/trestle")
        shutil.copy(BUSYBOX, f"{self.dir}/root/bin/busybox")
        for name in ("sh", "sleep", "ip", "ping"):
            os.symlink("busybox", f"{self.dir}/root/bin/{name}")
        with open(f"{self.dir}/containers.conf", "w") as f:
            f.write(CONF.format(dir=self.dir))

    def network(self, name, **more):
        config = {"cniVersion": "0.4.0", "name": name, "plugins": [
            {"type": "trestle", "capabilities": {"aliases": True}, **more}, {"type": "portmap", "capabilities": {"portMappings": True}}]}
        with open(f"{self.dir}/net.d/{name}.conflist", "w") as f:
            json.dump(config, f)

    def __call__(self, *argv, check=True):
        return self.host.run("env", f"CONTAINERS_CONF={self.dir}/containers.conf", "podman", "--root", f"{self.dir}/store", "--runroot",
                             f"{self.dir}/runroot", "--storage-driver", "vfs", *argv, check=check, timeout=60)

    def start(self, name, *options, network="app"):
        self("run", "-d", "--name", name, "--network", network, "--cgroup-parent", f"/{self.host.netns}", *options, "--rootfs",
             f"{self.dir}/root", "/bin/sleep", "1000")

    def address(self, name, ifname="eth0"):
        for line in self("exec", name, "ip", "-o", "-4", "addr", "show", "dev", ifname).stdout.splitlines():
            return line.split()[3].split("/")[0]
        return None

    def ping(self, name, address):
        return self("exec", name, "ping", "-c", "1", "-W", "1", address)

    def remove(self):
        self("rm", "-a", "-f", "-t", "0", check=False)


@unittest.skipUnless(shutil.which("podman") and os.path.exists("/usr/lib/cni/portmap") and os.path.exists(BUSYBOX),
                     "needs the packages podman, containernetworking-plugins and busybox-static")
class Runs(PluginTest):
    HOSTS = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.podmen = [Podman(h) for h in cls.lab.hosts]
        for p in cls.podmen:
            p.network("app", subnet="10.9.0.0/24")
            p.network("second", subnet="10.19.0.0/24")

    def setUp(self):
        self.before = self.state()
        for p in self.podmen:
            self.addCleanup(p.remove)

    def test_containers_of_two_hosts(self):
        one, two = self.podmen
        for i in range(3):
            one.start(f"a{i}")
            two.start(f"b{i}")
        addresses = [p.address(f"{letter}{i}") for p, letter in ((one, "a"), (two, "b")) for i in range(3)]
        self.assertEqual(len(set(addresses)), 6)
        for to in addresses[1:]:
            wait_for(lambda to=to: one.ping("a0", to), 5, f"a0 reaches {to}")
        self.assertEqual({e["name"] for e in self.daemon.local_endpoints()}, {"a0", "a1", "a2"})
        one.remove()
        self.nothing_left(self.before)

    def test_addresses_macs_and_ports_that_were_asked_for(self):
        one = self.podmen[0]
        one.start("x", "--ip", "10.9.0.99", "--mac-address", "02:00:00:00:00:99", "-p", "8099:80")
        self.assertEqual(one.address("x"), "10.9.0.99")
        self.assertIn("02:00:00:00:00:99", one("exec", "x", "ip", "link", "show", "eth0").stdout)
        self.assertIn("10.9.0.99:80", self.host.run("iptables-save", "-t", "nat").stdout)
        failed = one("run", "--name", "y", "--network", "app", "--ip", "10.9.0.99", "--cgroup-parent", f"/{self.host.netns}", "--rootfs",
                     f"{one.dir}/root", "/bin/sleep", "1", check=False)
        self.assertNotEqual(failed.returncode, 0)
        self.assertIn("10.9.0.99", failed.stderr)
        one.remove()
        self.nothing_left(self.before)

    def test_stop_start_and_networks_of_a_running_container(self):
        one = self.podmen[0]
        one.start("x")
        one("stop", "-t", "0", "x")
        self.nothing_left(self.before)
        one("start", "x")
        one("network", "connect", "second", "x")
        self.assertTrue(one.address("x", "eth1").startswith("10.19.0."))
        one("network", "disconnect", "second", "x")
        self.assertIsNotNone(one.address("x"))
        one.remove()
        self.nothing_left(self.before)

    def test_rm_while_the_daemon_is_away(self):
        """podman says DEL once and never again."""
        one = self.podmen[0]
        one.start("x")
        self.daemon.stop()
        one.remove()
        self.daemon.start()
        self.nothing_left(self.before)


if __name__ == "__main__":
    unittest.main()

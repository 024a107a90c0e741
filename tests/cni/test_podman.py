"""podman as the runtime: its CNI backend, the plugin under its installed name, portmap chained behind, on two hosts, in both modes."""
import os
import shutil
import unittest

from tests.cni.runtime import PluginTest
from tests.lab import Runtime, wait_for
from tests.lab.engine import IMAGE
from tests.lab.podman import Podman


@unittest.skipUnless(shutil.which("podman") and os.path.exists("/usr/lib/cni/portmap") and os.path.exists("/bin/busybox"),
                     "needs the packages podman, containernetworking-plugins and busybox-static")
class Runs(PluginTest):
    HOSTS = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.podmen = [Podman(h) for h in cls.lab.hosts]
        for p, d in zip(cls.podmen, cls.daemons):
            p.load_image()
            # One network as our own command writes it, one by hand.
            d.text("cni", "install", "--network", "app", "--subnet", "10.9.0.0/24", "--mode", "l2", "--portmap")
            p.network("second", subnet="10.19.0.0/24", mode="l2")
            p.network("routed", subnet="10.29.0.0/24")

    def setUp(self):
        self.before = self.state()
        for p in self.podmen:
            self.addCleanup(p.remove_all)

    def test_containers_of_two_hosts(self):
        one, two = self.podmen
        for i in range(3):
            one.run(f"a{i}", "app")
            self.know_network("app")
            two.run(f"b{i}", "app")
        addresses = [p.address(f"{letter}{i}") for p, letter in ((one, "a"), (two, "b")) for i in range(3)]
        self.assertEqual(len(set(addresses)), 6)
        for to in addresses[1:]:
            wait_for(lambda to=to: one.ping("a0", to), 5, f"a0 reaches {to}")
        self.assertEqual({e["name"] for e in self.daemon.local_endpoints()}, {"a0", "a1", "a2"})
        one.remove_all()
        self.nothing_left(self.before)

    def test_addresses_macs_and_ports_that_were_asked_for(self):
        one = self.podmen[0]
        one.run("x", "app", "--ip", "10.9.0.99", "--mac-address", "02:00:00:00:00:99", "-p", "8099:80")
        self.assertEqual(one.address("x"), "10.9.0.99")
        self.assertIn("02:00:00:00:00:99", one("exec", "x", "ip", "link", "show", "eth0").stdout)
        self.assertIn("10.9.0.99:80", self.host.run("iptables-save", "-t", "nat").stdout)
        failed = one.run("y", "app", "--ip", "10.9.0.99", check=False)
        self.assertNotEqual(failed.returncode, 0)
        self.assertIn("10.9.0.99", failed.stderr)
        one.remove_all()
        self.nothing_left(self.before)

    SERVE = ("httpd", "-f", "-p", "80", "-h", "/www")

    def fetch(self, where, host):
        program = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=2).read().decode(), end='')"
        return host.run("python3", "-c", program, f"http://{where}/").stdout

    def served(self, where, host):
        wait_for(lambda: self.fetch(where, host) == "hello from a container\n", 5, f"{where} from {host.name}")

    def test_a_port_is_published_in_a_network_that_an_engine_has(self):
        """Mode l2: the container's way out is its host's end of the network, and so is the way in."""
        one, (host, other) = self.podmen[0], self.lab.hosts
        engine = Runtime(self.daemons[1], *self.daemons[1].plugin().create_network("shared", "10.39.0.0/24"))
        self.know_network("shared")
        one.network("shared")
        one.run("web", "shared", "-p", "8098:80", command=self.SERVE)
        docker = engine.attach()
        self.addCleanup(engine.detach, docker)
        wait_for(lambda: engine.ping(docker, one.address("web")), 5, "the engine's container reaches podman's")
        for where, who in ((f"{host.address}:8098", other), (f"{host.address}:8098", host), ("127.0.0.1:8098", host),
                           (f"{one.address('web')}:80", host)):
            self.served(where, who)
        wait_for(lambda: one("exec", "web", "ping", "-c", 1, "-W", 1, other.address, check=False).returncode == 0, 5, "the way out")
        one.remove_all()
        self.nothing_left(self.before)

    def test_a_pod_has_one_address(self):
        one, two = self.podmen
        self.addCleanup(one, "pod", "rm", "-a", "-f", check=False)
        one("pod", "create", "--name", "pod", "--network", "routed", "-p", "8097:80", "--infra-image", IMAGE, "--infra-command", "sleep 100000",
            "--cgroup-parent", f"/{self.host.netns}")
        for name, command in (("web", self.SERVE), ("side", ("sleep", "100000"))):
            one("run", "-d", "--name", name, "--pod", "pod", "--stop-timeout", "0", IMAGE, *command)
        self.know_network("routed")
        two.run("far", "routed")
        self.assertEqual(one.address("web"), one.address("side"))
        wait_for(lambda: two.ping("far", one.address("side")), 5, "a container of the other host reaches the pod")
        self.served(f"{self.host.address}:8097", self.lab.hosts[1])
        self.assertEqual(len(self.daemon.local_endpoints()), 1)
        one("pod", "rm", "-a", "-f", "-t", "0")
        self.nothing_left(self.before)

    def test_stop_start_and_networks_of_a_running_container(self):
        one = self.podmen[0]
        one.run("x", "app")
        one("stop", "-t", "0", "x")
        self.nothing_left(self.before)
        one("start", "x")
        one("network", "connect", "second", "x")
        self.assertTrue(one.address("x", "eth1").startswith("10.19.0."))
        one("network", "disconnect", "second", "x")
        self.assertIsNotNone(one.address("x"))
        one.remove_all()
        self.nothing_left(self.before)

    def test_a_routed_network(self):
        """Ports of a container are reached through its host, from everywhere; a second network leaves the default route alone."""
        one, two = self.podmen
        one.run("web", "routed", "-p", "8098:80", command=("httpd", "-f", "-h", "/www"))
        self.know_network("routed")
        two.run("client", "routed")
        web = one.address("web")
        self.assertTrue(web.startswith("10.29.0."))
        # Not wget, which looks for names in libraries that a static busybox lacks.
        get = lambda where, port=80: ("sh", "-c", f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {where} {port}")
        wait_for(lambda: two.exec("client", *get(web)).stdout, 5, "reached from a container of the other host")
        for where in ((web,), (self.host.address, 8098)):
            for host in self.lab.hosts:
                self.assertIn("hello", host.run("busybox", *get(*where)).stdout)
            self.assertIn("hello", two.exec("client", *get(*where)).stdout)
        two("network", "connect", "app", "client")
        self.assertIn("hello", two.exec("client", *get(web)).stdout)
        one.run("both", "app")
        one("network", "connect", "routed", "both")
        self.assertIn("hello", one.exec("both", *get(web)).stdout)
        one.remove_all()
        two.remove_all()
        self.nothing_left(self.before)

    def test_rm_while_the_daemon_is_away(self):
        """podman says DEL once and never again."""
        one = self.podmen[0]
        one.run("x", "app")
        self.daemon.stop()
        one.remove_all()
        self.daemon.start()
        self.nothing_left(self.before)


if __name__ == "__main__":
    unittest.main()

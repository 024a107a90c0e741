"""Mode l2: the way out of a network for CNI containers, by this host's own end of it, and the host's way to all its containers."""
import contextlib
import ipaddress
import json
import socket
import time
import unittest

from tests.cni.runtime import Cni, PluginTest
from tests.lab import wait_for

COMPARED_S = 15  # looked at every five seconds
FOUR, SIX = "10.9.0.0/24", "2001:db8:9::/64"


class Exit(PluginTest):
    HOSTS = 2

    def setUp(self):
        self.other = self.lab.hosts[1]
        wait_for(lambda: not self.end()[0], 5, "the case before has cleaned up")
        self.before = self.whole()

    def tearDown(self):
        for d in self.daemons:
            self.assertEqual(d.complaints(), [])

    def whole(self):
        """What must be as before when the last container is gone: the host's own end is none of the leaks."""
        links = sorted(n for n in self.host.links() if n.startswith("th"))
        return self.state(), links, "trestle-l3" in self.host.run("nft", "list", "tables").stdout

    def l2(self, **more):
        return self.cni.config(**{"name": "app", "subnet": FOUR, "subnet6": SIX, "mode": "l2", **more})

    def gateways(self, done):
        return {ipaddress.ip_interface(ip["address"]).version: ip.get("gateway") for ip in done.json["ips"]}

    def end(self, host=None):
        """The host's own end: its link's name and addresses."""
        found = [n for n in (host or self.host).links() if n.startswith("th")]
        if not found:
            return None, []
        shown = json.loads((host or self.host).run("ip", "-j", "addr", "show", "dev", found[0]).stdout)
        return found[0], [a["local"] for l in shown for a in l.get("addr_info", []) if a["scope"] == "global"]

    def seen_as(self, sandbox, family, to):
        """Where a connection of the container's to another host's underlay address comes from."""
        with self.other.socket(family, socket.SOCK_STREAM) as s:
            s.bind((to, 0))
            s.listen()
            s.settimeout(100)
            program = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=100).recv(1)"
            client = sandbox.host.start("ip", "netns", "exec", sandbox.name, "python3", "-c", program, to, s.getsockname()[1], name="client")
            connection, peer = s.accept()
            connection.close()
            client.wait()
            return peer[0]

    def remove(self, container, sandbox, config, cni=None):
        self.quiet((cni or self.cni).call("DEL", container, sandbox, config=config))

    def test_the_world_and_the_host_are_reached_by_both_families(self):
        a, b, config = self.sandbox(), self.sandbox(self.other), self.l2()
        done = self.add("a", a, config)
        name, own = self.end()
        self.assertEqual(sorted(self.gateways(done).values()), sorted(own))
        self.assertEqual({(r["dst"], r["gw"]) for r in done.json["routes"]}, {("0.0.0.0/0", own[0]), ("::/0", own[1])})
        # The other host has no way to the pools: who answers to it has its own address.
        self.assertEqual(self.seen_as(a, socket.AF_INET, self.other.address), self.host.address)
        self.assertEqual(self.seen_as(a, socket.AF_INET6, self.other.address6), self.host.address6)
        there = Cni(self.daemons[1])
        self.know_network("app")
        second = self.add("b", b, there.config(name="app", subnet=None), cni=there)
        for address in done.addresses() + second.addresses():
            for host in self.lab.hosts:
                wait_for(lambda h=host, to=address: h.run("ping", "-c", 1, "-W", 1, to, check=False).returncode == 0, 5,
                         f"{host.name} reaches {address}")
        for address in (self.host.address, self.other.address, self.host.address6, self.other.address6, *own, *self.end(self.other)[1]):
            wait_for(lambda to=address: a.ping(to, check=False).returncode == 0, 5, f"a reaches {address}")
        self.assertEqual(self.cni.call("CHECK", "a", a, config={**config, "prevResult": done.json}).status, 0)
        # It is no container, so nobody counts it as one; but who looks for leaks knows it.
        for d in self.daemons:
            wait_for(lambda d=d: {e["container_id"] or e["id"][:4] for e in d.endpoints()} == {"a" if d is self.daemon else "b", "cni-"}, 5,
                     f"{d.host.name} knows both")
            wait_for(lambda d=d: (d.call("GET", "/v1/networks/app")["endpoints_total"], d.call("GET", "/v1/status")["endpoints"]) ==
                     (2, {"local": 1, "remote": 1}), 5, f"{d.host.name} counts both")
            found = wait_for(lambda d=d: d.trestle("ipam", "check"), 5, f"{d.host.name} finds nothing")
            self.assertEqual(found["leaks"] + found["duplicates"] + found["ghosts"], [])
        self.remove("a", a, config)
        self.remove("b", b, config, there)
        wait_for(lambda: self.whole() == self.before, 5, "nothing is left")
        wait_for(lambda: self.end(self.other)[0] is None, 5, "nor on the other host")

    def test_who_wants_none_gets_none(self):
        ten = [{"dst": "0.0.0.0/0", "gw": "10.9.0.77"}, {"dst": "::/0", "gw": "2001:db8:9::77"}]
        for more in ({"isDefaultGateway": False}, {"ipam": {"type": "trestle", "routes": ten}}):
            s, config = self.sandbox(), self.l2(**more)
            done = self.add("none", s, config)
            self.assertEqual(set(self.gateways(done).values()), {None})
            self.assertEqual(self.end()[0], None)
            self.assertEqual("via" in s.ip("route", "show", "default").stdout, "ipam" in more)
            self.remove("none", s, config)
        self.refused(self.cni.call("ADD", "none", self.sandbox(), config=self.l2(isDefaultGateway="no")), 7, "isDefaultGateway")
        self.daemon.trestle("network", "create", "inside", "--subnet", "10.66.0.0/24", "--internal")
        s = self.sandbox()
        done = self.add("none", s, self.cni.config(name="inside", subnet=None))
        self.assertEqual((set(self.gateways(done).values()), self.end()[0]), ({None}, None))

    def test_the_first_network_is_the_way_out(self):
        s = self.sandbox()
        one = self.add("s", s, self.l2())
        self.add("s", s, self.cni.config(name="aside", subnet="10.67.0.0/24", mode="l2"), ifname="eth1")
        default = [r for r in json.loads(s.ip("-j", "route").stdout) if r["dst"] == "default"]
        self.assertEqual([(r["gateway"], r["dev"]) for r in default], [(self.gateways(one)[4], "eth0")])

    def test_networks_stay_apart(self):
        a, b = self.sandbox(), self.sandbox()
        self.add("a", a, self.l2())
        done = self.add("b", b, self.cni.config(name="apart", subnet="10.68.0.0/24", subnet6="2001:db8:68::/64", mode="l2"))
        for address in done.addresses():
            wait_for(lambda to=address: self.host.run("ping", "-c", 1, "-W", 1, to), 5, f"the host reaches {address}")
            before = self.strayed()
            self.assertNotEqual(a.ping(address, check=False).returncode, 0)
            wait_for(lambda to=address, n=before: a.ping(to, check=False).returncode == 0 or self.strayed() > n, 5, "a counted stray")
            self.assertNotEqual(a.ping(address, check=False).returncode, 0)

    def strayed(self):
        counter = json.loads(self.host.run("nft", "-j", "list", "counter", "inet", "trestle-l3", "strayed").stdout)
        return [o["counter"]["packets"] for o in counter["nftables"] if "counter" in o][0]

    def test_it_survives_the_daemon_and_is_put_right(self):
        s, config = self.sandbox(), self.l2()
        done = self.add("s", s, config)
        name, own = self.end()
        reaches = lambda: s.ping(self.other.address, check=False).returncode == 0
        wait_for(reaches, 5, "the world")
        self.daemon.kill9()
        self.assertTrue(reaches(), "the world without the daemon")
        self.daemon.start()
        self.assertTrue(reaches(), "the world with the next daemon")
        self.assertEqual(self.end(), (name, own))
        for what, words in (("addresses", ("addr", "flush", "dev", name)), ("link", ("link", "del", name))):
            began = time.monotonic()
            self.host.run("ip", *words)
            wait_for(lambda: sorted(self.end()[1]) == sorted(own) and reaches(), COMPARED_S, f"its {what} are back")
            self.assertLess(time.monotonic() - began, COMPARED_S, what)
        self.assertEqual(self.cni.call("CHECK", "s", s, config={**config, "prevResult": done.json}).status, 0)
        # The last container goes while no daemon looks.
        self.daemon.stop()
        self.remove("s", s, config)
        self.daemon.start()
        wait_for(lambda: self.whole() == self.before, 10, "nothing is left")

    def test_a_subnet_that_the_host_reaches_otherwise_is_refused(self):
        self.host.run("ip", "route", "add", "10.69.0.0/16", "dev", "eth0")
        self.addCleanup(self.host.run, "ip", "route", "del", "10.69.0.0/16", "dev", "eth0")
        s, config = self.sandbox(), self.cni.config(name="taken", subnet="10.69.7.0/24", mode="l2")
        self.refused(self.cni.call("ADD", "s", s, config=config), 101, "10.69.7.0/24", "overlaps a route of this host", "isDefaultGateway")
        self.assertEqual(set(s.links()), {"lo"})
        self.assertEqual(self.whole(), self.before)
        self.add("s", s, {**config, "isDefaultGateway": False})

    def test_a_subnet_gained_later_gives_way_to_a_route(self):
        a, b = self.sandbox(), self.sandbox()
        config = self.cni.config(name="yields", subnet="10.71.0.0/24", mode="l2")
        self.host.run("ip", "-6", "route", "add", "2001:db8:71::/48", "dev", "eth0")
        self.add("a", a, config)
        done = self.add("b", b, {**config, "subnet6": "2001:db8:71::/64"})
        name, own = self.end()
        self.assertEqual((self.gateways(done)[4], self.gateways(done)[6], len(own)), (own[0], None, 1))
        said = lambda: [l for l in self.daemon.log_text().splitlines() if "2001:db8:71::/64" in l and "overlaps a route of this host" in l]
        self.assertEqual(len(said()), 1)
        # Looked at again with each comparison: said once, and let in when the route is gone. One that was changed is put right by then.
        self.host.run("ip", "addr", "flush", "dev", name)
        wait_for(lambda: self.end()[1] == own, COMPARED_S, "the next comparison")
        self.assertEqual(len(said()), 1)
        self.host.run("ip", "-6", "route", "del", "2001:db8:71::/48", "dev", "eth0")
        wait_for(lambda: len(self.end()[1]) == 2, COMPARED_S, "its IPv6 address")

    def test_a_network_that_gains_a_family_gains_a_way_out(self):
        a, b = self.sandbox(), self.sandbox()
        four = self.cni.config(name="gains", subnet="10.70.0.0/24", mode="l2")
        self.add("a", a, four)
        self.assertEqual(len(self.end()[1]), 1)
        done = self.add("b", b, {**four, "subnet6": "2001:db8:70::/64"})
        self.assertEqual(sorted(self.gateways(done).values()), sorted(self.end()[1]))
        # The host asks for a neighbour with its link-local address, which may be new.
        wait_for(lambda: b.ping(self.other.address6, check=False).returncode == 0, 5, "b reaches the world by IPv6")
        wait_for(lambda: a.ping(self.other.address), 5, "a still reaches the world")


if __name__ == "__main__":
    unittest.main()

"""The cases of a plugin's life that are different in mode l3: what the container gets, what CHECK compares, what DEL leaves."""
import json
import unittest

from tests.cni.runtime import PluginTest
from tests.lab import wait_for

GATEWAY, GATEWAY6 = "169.254.1.1", "fe80::1"


class Routed(PluginTest):
    def config(self, version="1.1.0", **more):
        return self.cni.config(version, **{"subnet": "10.11.0.0/24", "subnet6": "2001:db8:11::/64", "mode": None, **more})

    def setUp(self):
        self.before = self.state()

    def attach(self, name, **more):
        s, config = self.sandbox(), self.config(**more)
        return s, config, self.add(name, s, config).json

    def check(self, name, s, config, result, ifname="eth0"):
        return self.cni.call("CHECK", name, s, ifname, config={**config, "prevResult": result})

    def test_c22_every_version_in_its_form(self):
        for version in ("0.2.0", "0.4.0", "1.0.0"):
            s, config = self.sandbox(), self.config(version)
            result = self.add(f"c22-{version}", s, config).json
            if version == "0.2.0":
                self.assertEqual((result["ip4"]["gateway"], result["ip6"]["gateway"]), (GATEWAY, GATEWAY6))
                self.assertIn({"dst": "::/0", "gw": GATEWAY6}, result["ip6"]["routes"])
            else:
                self.assertEqual([(i["gateway"], i["interface"]) for i in result["ips"]], [(GATEWAY, 1), (GATEWAY6, 1)])

    def test_c25_what_the_result_says_is_so(self):
        s, _, result = self.attach("c25")
        host, inside = result["interfaces"]
        self.assertEqual((inside["sandbox"], inside["name"]), (s.path, "eth0"))
        self.assertNotIn("sandbox", host)
        self.assertEqual(self.host.links()[host["name"]]["address"], host["mac"])
        self.assertEqual(s.links()["eth0"]["address"], inside["mac"])
        self.assertEqual(sorted(s.addresses()), sorted(ip["address"] for ip in result["ips"]))
        for route in result["routes"]:
            found = s.ip("-6" if ":" in route["dst"] else "-4", "route", "show", route["dst"]).stdout
            self.assertIn(f"via {route['gw']} dev eth0", found, route)
        s.ping(self.host.address)
        self.host.run("ping", "-c", 1, "-W", 1, result["ips"][0]["address"].split("/")[0])

    def test_c26_an_interface_is_in_the_way(self):
        s = self.sandbox()
        index = self.block(s)
        self.refused(self.cni.call("ADD", "c26", s, config=self.config()), 102, "eth0")
        self.assertEqual(s.links()["eth0"]["ifindex"], index)
        self.nothing_left(self.before)

    def test_c28_a_second_network_leaves_the_way_out_alone(self):
        s, config, first = self.attach("c28")
        other = self.config(name="net28", subnet="10.28.0.0/24", subnet6=None)
        second = self.add("c28", s, other, ifname="eth1").json
        self.assertIn("dev eth0", s.ip("route", "show", "default").stdout)
        self.assertIn("dev eth1", s.ip("route", "get", "10.28.0.200").stdout)
        self.quiet(self.check("c28", s, config, first))
        self.quiet(self.check("c28", s, other, second, "eth1"))

    def test_c42_c45_del_leaves_nothing(self):
        for alive in (True, False):
            s, config = self.sandbox(), self.config()
            self.assertEqual(self.cni.call("ADD", "c42", s, config=config).status, 0)
            if not alive:
                s.remove()
            self.quiet(self.cni.call("DEL", "c42", s, config=config))
            self.nothing_left(self.before)
            wait_for(lambda: not self.host.run("ip", "route", "show", "proto", "111").stdout, 5, "no route is left")

    def test_c54_to_c57_check(self):
        s, config, result = self.attach("c54")
        self.quiet(self.check("c54", s, config, result))
        s.ip("addr", "add", "192.0.2.9/24", "dev", "eth0")
        s.ip("route", "add", "203.0.113.0/24", "via", GATEWAY, "dev", "eth0", "onlink")
        self.quiet(self.check("c54", s, config, result))
        cases = {
            "the way out": (lambda s, r: s.ip("route", "del", "default"), "lost its route to 0.0.0.0/0"),
            "the way out for IPv6": (lambda s, r: s.ip("-6", "route", "del", "default"), "lost its route to ::/0"),
            "the way to the network": (lambda s, r: s.ip("route", "del", "10.11.0.0/24"), "lost its route to 10.11.0.0/24"),
            "where the gateway is": (lambda s, r: s.ip("neigh", "del", GATEWAY, "dev", "eth0"), "169.254.1.1"),
            "the address": (lambda s, r: s.ip("addr", "del", r["ips"][0]["address"], "dev", "eth0"), "lost its address"),
            "the host's end": (lambda s, r: self.host.run("ip", "link", "del", r["interfaces"][0]["name"]), ""),
        }
        for number, (what, (change, fragment)) in enumerate(cases.items()):
            with self.subTest(what):
                s, config, result = self.attach(f"c56-{number}")
                change(s, result)
                self.refused(self.check(f"c56-{number}", s, config, result), 106, fragment)

    def test_c61_gc(self):
        pods = {name: self.attach(name) for name in ("c61-keep", "c61-go")}
        keep = [{"containerID": "c61-keep", "ifname": "eth0"}]
        config = {**self.config(), "cni.dev/valid-attachments": keep}
        self.quiet(self.cni.call("GC", container=None, sandbox=None, ifname=None, config=config))
        self.assertEqual(set(self.attached()), {"c61-keep"})
        s, config, result = pods["c61-keep"]
        self.quiet(self.check("c61-keep", s, config, result))

    def test_c67_many_at_once(self):
        sandboxes = [self.sandbox() for _ in range(30)]
        started = [self.cni.start("ADD", f"c67-{i}", s, config=self.config()) for i, s in enumerate(sandboxes)]
        done = [self.cni.finish(p) for p in started]
        for i, s in enumerate(sandboxes):
            self.addCleanup(self.cni.call, "DEL", f"c67-{i}", s, config=self.config())
        self.assertEqual([d for d in done if d.status], [])
        self.assertEqual(len({a for d in done for a in d.addresses()}), 60)
        for s in sandboxes:
            wait_for(lambda s=s: s.ping(self.host.address), 5, f"{s.name} reaches the host")

    def test_c68_addresses_of_another_plugin(self):
        config = self.config("1.0.0", name="net68", subnet="10.68.0.0/24", subnet6=None, ipam={
            "type": "host-local", "ranges": [[{"subnet": "10.68.0.0/24", "rangeStart": "10.68.0.100"}]], "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": f"{self.host.dir}/host-local"})
        s = self.sandbox()
        result = self.add("c68", s, config).json
        self.assertEqual(result["ips"], [{"address": "10.68.0.100/32", "gateway": GATEWAY, "interface": 1}])
        self.assertEqual(len(result["routes"]), 2)
        wait_for(lambda: s.ping(self.host.address), 5, "the container reaches the host")
        self.quiet(self.check("c68", s, config, result))
        # What the hosts do not route they cannot carry.
        outside = {**config, "name": "net69", "subnet": "10.69.0.0/24"}
        self.refused(self.cni.call("ADD", "c69", self.sandbox(), config=outside), 7, "10.68.0.", "no subnet of network \"net69\"")
        none = {k: v for k, v in config.items() if k != "subnet"} | {"name": "net70"}
        self.refused(self.cni.call("ADD", "c70", self.sandbox(), config=none), 7, "no subnet", "mode l3")

    def test_c77_behind_it_what_debian_has(self):
        s, config, result = self.attach("c77")
        chained = {"cniVersion": "1.0.0", "name": "net1", "prevResult": {**result, "cniVersion": "1.0.0"},
                   "runtimeConfig": {"portMappings": [{"hostPort": 8077, "containerPort": 80, "protocol": "tcp"}],
                                     "bandwidth": {"ingressRate": 10 ** 8, "ingressBurst": 10 ** 7, "egressRate": 10 ** 8, "egressBurst": 10 ** 7}}}
        for verb in ("ADD", "DEL"):
            for plugin in ("portmap", "bandwidth", "tuning"):
                env = self.cni.environment(verb, "c77", s, "eth0")
                done = self.cni.raw(env, json.dumps({**chained, "type": plugin}), binary=f"/usr/lib/cni/{plugin}")
                self.assertEqual(done.status, 0, done)
        self.assertNotIn("10.11.0.", self.host.run("iptables-save", "-t", "nat").stdout)


if __name__ == "__main__":
    unittest.main()

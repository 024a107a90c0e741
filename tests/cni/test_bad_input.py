"""Bad input of every kind: the exact code, the name of the field in the message, one error object, and nothing changed.

A table for each source of input. A case is (what is changed, code, what the message names).
"""
import json
import os
import unittest

from tests.cni.runtime import PluginTest

MANY = "x" * 300


class BadInput(PluginTest):
    def setUp(self):
        # The network is there and has a container, so that there is something to be changed by mistake.
        self.add("resident", self.sandbox())
        self.guest, self.before, self.pools_before = self.sandbox(), self.state(), self.pools()
        self.networks_before = self.networks()

    def networks(self):
        return sorted(n["name"] for n in self.daemon.call("GET", "/v1/networks")["networks"])

    def unchanged(self):
        self.assertEqual(set(self.guest.links()), {"lo"})
        self.nothing_left(self.before)
        self.assertEqual((self.pools(), self.networks()), (self.pools_before, self.networks_before))

    def each(self, cases, call):
        for what, code, *names in cases:
            with self.subTest(what):
                self.refused(call(what), code, *names)
        self.unchanged()

    def test_environment(self):
        fifo = f"{self.host.dir}/fifo"
        os.mkfifo(fifo)
        self.addCleanup(os.unlink, fifo)
        cases = (
            ({"CNI_COMMAND": "add"}, 4, "add"),
            ({"CNI_CONTAINERID": MANY}, 4, "CNI_CONTAINERID"),
            ({"CNI_CONTAINERID": "a b"}, 4, "CNI_CONTAINERID"),
            ({"CNI_CONTAINERID": "ä"}, 4, "CNI_CONTAINERID"),
            ({"CNI_IFNAME": "eth0\u2003"}, 4, "CNI_IFNAME"),
            ({"CNI_NETNS": ""}, 4, "CNI_NETNS"),
            ({"CNI_NETNS": "/"}, 8, "CNI_NETNS"),
            ({"CNI_NETNS": fifo}, 8, "CNI_NETNS"),
            ({"CNI_NETNS": "/dev/null"}, 8, "CNI_NETNS"),
            ({"CNI_NETNS": "/proc/self/ns/mnt"}, 8, "CNI_NETNS"),
            ({"CNI_NETNS": "/proc/self/ns/user"}, 8, "CNI_NETNS"),
            ({"CNI_NETNS": "relative"}, 8, "CNI_NETNS"),
            ({"CNI_NETNS": "/" + "x" * 5000}, 8, "CNI_NETNS"),
            ({"CNI_ARGS": "IP=10.9.0"}, 4, "CNI_ARGS", "IP"),
            ({"CNI_ARGS": "IP=10.9.0.7/33"}, 4, "CNI_ARGS", "IP"),
            ({"CNI_ARGS": "IP=10.9.0.7,10.9.0.8"}, 4, "CNI_ARGS", "IP"),
            ({"CNI_ARGS": "MAC=02:00"}, 4, "CNI_ARGS", "MAC"),
            ({"CNI_ARGS": "MAC=01:00:5e:00:00:01"}, 4, "CNI_ARGS", "MAC"),
            ({"CNI_ARGS": "MAC=00:00:00:00:00:00"}, 4, "CNI_ARGS", "MAC"),
        )
        base = self.cni.environment("ADD", "c", self.guest, "eth0")
        self.each(cases, lambda change: self.cni.raw({**base, **change}, json.dumps(self.cni.config())))

    def add_with(self, config):
        return self.cni.call("ADD", "c", self.guest, config=self.cni.config(**config))

    def test_configuration(self):
        self.each((
            ({"type": 5}, 6, "type"),
            ({"name": ["net1"]}, 6, "name"),
            ({"name": MANY}, 7, "name"),
            ({"subnet": 5}, 7, "subnet"),
            ({"subnet": "10.9.0.0"}, 7, "subnet"),
            ({"subnet": "10.9.0.0/33"}, 7, "subnet"),
            ({"subnet": "2001:db8::/64"}, 7, "subnet"),
            ({"subnet6": "10.9.0.0/24"}, 7, "subnet6"),
            ({"subnet6": "2001:db8::/129"}, 7, "subnet6"),
            ({"network": 5}, 7, "network"),
            ({"network": "te%%st"}, 7, "network"),
            ({"network": MANY}, 7, "network"),
            ({"mode": "l4"}, 7, "mode"),
            ({"mode": 2}, 7, "mode"),
            ({"mtu": -1}, 7, "mtu"),
            ({"mtu": 100}, 7, "mtu"),
            ({"mtu": 65536}, 7, "mtu"),
            ({"mtu": "1400"}, 7, "mtu"),
            ({"mtu": 1400.5}, 7, "mtu"),
            ({"mtu": 60000}, 7, "mtu"),
            ({"socket": "relative"}, 7, "socket"),
            ({"socket": 5}, 7, "socket"),
            ({"runDir": "relative"}, 7, "runDir"),
            ({"dns": 5}, 7, "dns"),
            ({"dns": {"nameservers": ["x"]}}, 7, "dns.nameservers"),
            ({"dns": {"nameservers": [5]}}, 7, "dns.nameservers"),
            ({"dns": {"search": 5}}, 7, "dns.search"),
            ({"dns": {"domain": 5}}, 7, "dns.domain"),
            ({"args": 5}, 7, "args"),
            ({"args": {"cni": 5}}, 7, "args.cni"),
            ({"args": {"cni": {"ips": [5]}}}, 7, "args.cni.ips"),
            ({"args": {"cni": {"ips": ["x"]}}}, 7, "args.cni.ips"),
            ({"args": {"cni": {"mac": "x"}}}, 7, "args.cni.mac"),
            ({"args": {"cni": {"labels": [{}]}}}, 7, "args.cni.labels"),
        ), self.add_with)

    def test_ipam(self):
        self.each((
            (5, 7, "ipam"),
            ([], 7, "ipam"),
            ({"type": 5}, 7, "ipam.type"),
            ({"type": "a/b"}, 7, "ipam.type"),
            ({"type": "trestle", "subnet": "x"}, 7, "ipam.subnet"),
            ({"type": "trestle", "routes": {}}, 7, "routes"),
            ({"type": "trestle", "routes": [5]}, 7, "routes[0]"),
            ({"type": "trestle", "routes": [{"dst": "x"}]}, 7, "routes[0].dst"),
            ({"type": "trestle", "routes": [{}]}, 7, "routes[0].dst"),
            ({"type": "trestle", "routes": [{"dst": "198.51.100.0/24", "gw": "x"}]}, 7, "routes[0].gw"),
            ({"type": "trestle", "routes": [{"dst": "198.51.100.0/24", "gw": "2001:db8::1"}]}, 7, "routes[0].gw"),
        ), lambda ipam: self.add_with({"ipam": ipam}))

    def test_runtime_config(self):
        self.each((
            (5, 7, "runtimeConfig"),
            ({"ips": 5}, 7, "runtimeConfig.ips"),
            ({"ips": [5]}, 7, "runtimeConfig.ips"),
            ({"ips": ["10.9.0"]}, 7, "runtimeConfig.ips"),
            ({"mac": 5}, 7, "runtimeConfig.mac"),
            ({"mac": "x"}, 7, "runtimeConfig.mac"),
            ({"mac": "ff:ff:ff:ff:ff:ff"}, 7, "runtimeConfig.mac"),
            ({"portMappings": 5}, 7, "runtimeConfig.portMappings"),
            ({"portMappings": [5]}, 7, "portMappings[0]"),
            ({"portMappings": [{"hostPort": "80", "containerPort": 80}]}, 7, "portMappings[0].hostPort"),
            ({"portMappings": [{"hostPort": 80, "containerPort": 65536}]}, 7, "portMappings[0].containerPort"),
            ({"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "x"}]}, 7, "portMappings[0].hostIP"),
            ({"bandwidth": 5}, 7, "runtimeConfig.bandwidth"),
            ({"bandwidth": {"ingressRate": -1}}, 7, "bandwidth.ingressRate"),
            ({"bandwidth": {"EgressBurst": "x"}}, 7, "bandwidth.egressBurst"),
            ({"aliases": 5}, 7, "runtimeConfig.aliases"),
            ({"aliases": [5]}, 7, "runtimeConfig.aliases"),
            ({"aliases": {"net1": 5}}, 7, "runtimeConfig.aliases"),
            ({"ipRanges": [[{"subnet": "10.9.0.0/24"}]]}, 2, "runtimeConfig.ipRanges"),
            ({"dns": 5}, 7, "runtimeConfig.dns"),
            ({"dns": {"servers": ["x"]}}, 7, "runtimeConfig.dns"),
        ), lambda runtime: self.add_with({"runtimeConfig": runtime}))

    RESULTS = (
        (5, "prevResult"),
        ({"cniVersion": 5}, "prevResult.cniVersion"),
        ({"cniVersion": "9.0.0"}, "prevResult.cniVersion"),
        ({"interfaces": 5}, "prevResult.interfaces"),
        ({"interfaces": [5]}, "prevResult.interfaces[0]"),
        ({"interfaces": [{}]}, "prevResult.interfaces[0].name"),
        ({"interfaces": [{"name": "eth0", "sandbox": 5}]}, "prevResult.interfaces[0].sandbox"),
        ({"ips": [{}]}, "prevResult.ips[0].address"),
        ({"ips": [{"address": "10.9.0.9"}]}, "prevResult.ips[0].address"),
        ({"ips": [{"address": "10.9.0.9/24", "gateway": "x"}]}, "prevResult.ips[0].gateway"),
        ({"ips": [{"address": "10.9.0.9/24", "interface": 7}]}, "prevResult.ips[0].interface"),
        ({"ips": [{"address": "10.9.0.9/24", "interface": "0"}]}, "prevResult.ips[0].interface"),
        ({"routes": [{"dst": "x"}]}, "prevResult.routes[0].dst"),
        ({"routes": [{"dst": "0.0.0.0/0", "gw": 5}]}, "prevResult.routes[0].gw"),
        ({"dns": 5}, "prevResult.dns"),
        ({"cniVersion": "0.2.0", "ip4": 5}, "prevResult.ip4"),
        ({"cniVersion": "0.2.0", "ip4": {"ip": "x"}}, "prevResult.ip4.ip"),
    )

    def test_results_of_other_plugins(self):
        for verb in ("ADD", "CHECK"):
            self.each([(prev, 7, name) for prev, name in self.RESULTS],
                      lambda prev, verb=verb: self.cni.call(verb, "c", self.guest, config=self.cni.config(prevResult=prev)))

    def test_check_without_our_interface(self):
        self.each((
            ({}, 7, "prevResult.interfaces", "eth0"),
            ({"interfaces": [{"name": "eth0"}]}, 7, "prevResult.interfaces", "eth0"),
            ({"interfaces": [{"name": "eth1", "sandbox": self.guest.path}]}, 7, "prevResult.interfaces", "eth0"),
        ), lambda prev: self.cni.call("CHECK", "resident", self.guest, config=self.cni.config(prevResult=prev)))

    def test_lists_of_gc(self):
        self.each((
            (5, 7, "cni.dev/valid-attachments"),
            ({}, 7, "cni.dev/valid-attachments"),
            ([5], 7, "cni.dev/valid-attachments[0]"),
            ([{}], 7, "cni.dev/valid-attachments[0].containerID"),
            ([{"containerID": "c"}], 7, "cni.dev/valid-attachments[0].ifname"),
            ([{"containerID": 5, "ifname": "eth0"}], 7, "cni.dev/valid-attachments[0].containerID"),
        ), lambda valid: self.cni.call("GC", None, None, None, config={**self.cni.config(), "cni.dev/valid-attachments": valid}))

    def test_answers_of_an_ipam_plugin(self):
        def answer(text):
            self.script("odd-ipam", f"""[ "$CNI_COMMAND" = ADD ] || exit 0\n{text}\n""")
            return self.cni.call("ADD", "c", self.guest, config=self.cni.config(subnet=None, ipam={"type": "odd-ipam"}))

        self.each((
            ("true", 107, "odd-ipam"),
            ("echo '{'", 107, "odd-ipam"),
            ("echo '[]'", 107, "odd-ipam", "object"),
            ("echo '{}'", 7, "odd-ipam", "missing IP config"),
            ("exit 3", 107, "odd-ipam", "3"),
            ("kill -9 $$", 107, "odd-ipam", "signal 9"),
            ("echo '{\"code\":7,\"msg\":\"no\"}'; exit 1", 7, "odd-ipam", "no"),
            ("echo '{\"code\":-7,\"msg\":\"no\"}'; exit 1", 107, "odd-ipam"),
            ("echo '{\"ips\":[{\"address\":\"10.9.0.300/24\"}]}'", 7, "IPAM plugin", "ips[0].address"),
            ("echo '{\"cniVersion\":\"9.0.0\",\"ips\":[{\"address\":\"10.9.0.9/24\"}]}'", 7, "IPAM plugin", "cniVersion"),
            ("echo '{\"ips\":[{\"address\":\"10.9.0.9/24\"},{\"address\":\"10.9.0.8/24\"}]}'", 7, "IPv4"),
            ("head -c 2000000 /dev/zero | tr '\\0' ' '", 107, "odd-ipam"),
        ), answer)

    def test_del_works_with_all_of_it(self):
        """A configuration that was spoilt since ADD keeps no address."""
        for change in ({"subnet": 5}, {"network": "te%%st"}, {"mtu": "x"}, {"mode": 7}, {"ipam": 5}, {"ipam": {"type": "a/b"}}, {"dns": 5},
                       {"args": 5}, {"runtimeConfig": 5}, {"prevResult": 5}, {"socket": "relative"}, {"runDir": 5}):
            with self.subTest(change):
                self.assertEqual(self.cni.call("ADD", "c", self.guest).status, 0)
                self.quiet(self.cni.call("DEL", "c", self.guest, config=self.cni.config(**change)))
                self.nothing_left(self.before)
                self.gone(self.guest)
        self.unchanged()


if __name__ == "__main__":
    unittest.main()

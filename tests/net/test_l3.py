"""Mode l3: containers of CNI whose hosts route. Two hosts with a daemon, and a third that has none: the world outside.

All hosts of the class have strict reverse path filtering and bridge netfilter on, which is what kubelet wants and firewalld likes.
"""
import ipaddress
import json
import re
import subprocess
import time
import unittest

from tests.cni.runtime import Cni, Sandbox
from tests.lab import Daemon, Lab, Refused, leaks, wait_for
from tests.lab.daemon import ControlError

SUBNET, SUBNET6 = "10.42.0.0/24", "2001:db8:42::/64"
STRICT = ("net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.default.rp_filter=1", "net.bridge.bridge-nf-call-iptables=1",
          "net.bridge.bridge-nf-call-ip6tables=1")
LOOSE = tuple(s.replace("=1", "=0") for s in STRICT)
REPAIRED_S = 5  # it is noticed when it happens; the look of every minute would find it as well
# Says who it is and whom it sees, once per connection.
SERVER = """
import socket, sys
name, port = sys.argv[1], int(sys.argv[2])
s = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    c, peer = s.accept()
    c.sendall((name + " " + peer[0].removeprefix("::ffff:")).encode())
    c.close()
"""
CLIENT = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2)
print(s.makefile().read())
"""


class Pods(unittest.TestCase):
    """Two containers on each of two hosts, in a network of both families."""

    BEFORE, FAMILIES, HOSTS = STRICT, (4, 6), 3

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab(hosts=cls.HOSTS, families=cls.FAMILIES).open()
        cls.addClassCleanup(cls.lab.close)
        cls.one, cls.two, *outside = cls.lab.hosts
        cls.outside = outside[0] if outside else None
        for h in cls.lab.hosts:
            h.run("sysctl", "-qw", *cls.BEFORE)
        cls.daemons = [Daemon(h) for h in (cls.one, cls.two)]
        Daemon.cluster(cls.daemons)
        cls.cnis = [Cni(d) for d in cls.daemons]
        cls.count = 0
        cls.before = [cls.objects(h) for h in (cls.one, cls.two)]
        cls.pods = [[], []]
        for i in (0, 0, 1, 1):
            cls.pods[i].append(cls.pod(i))
            cls.know_network("pods")

    @classmethod
    def know_network(cls, name):
        """Before the next host uses it: one that has not heard of it would make it anew."""
        for d in cls.daemons:
            wait_for(lambda d=d: d.call("GET", "/v1/networks/" + name), 5, f"{d.host.name} knows {name}")

    @classmethod
    def config(cls, **more):
        given = {"name": "pods", "network": "pods", "subnet": SUBNET, "subnet6": SUBNET6, "mode": None, **more}
        return cls.cnis[0].config(**given)

    @classmethod
    def pod(cls, where, config=None, name=None, **env):
        """A container on host number `where`; it has .ip4, .ip6 and .result."""
        cls.count += 1
        sandbox = Sandbox(cls.lab.hosts[where], f"p{cls.count}")
        sandbox.where, sandbox.id, sandbox.config = where, name or f"c{cls.count}", config or cls.config()
        done = cls.cnis[where].call("ADD", sandbox.id, sandbox, config=sandbox.config, **env)
        if done.status:
            raise AssertionError(f"ADD: {done}")
        sandbox.result = done.json
        sandbox.ip4, sandbox.ip6 = ([a for a in done.addresses() if (":" in a) == six][:1] or [None] for six in (False, True))
        sandbox.ip4, sandbox.ip6 = sandbox.ip4[0] if sandbox.ip4[0] else None, sandbox.ip6[0] if sandbox.ip6[0] else None
        sandbox.host_end = done.json["interfaces"][0]["name"]
        return sandbox

    def extra(self, where, config=None, **env):
        """One more, for this test alone."""
        pod = self.pod(where, config, **env)
        self.addCleanup(self.end, pod)
        return pod

    @classmethod
    def end(cls, pod):
        cls.cnis[pod.where].call("DEL", pod.id, pod, config=pod.config)
        pod.remove()

    @staticmethod
    def objects(host):
        """Everything of ours that is not in a container."""
        found = leaks.host(host)
        found["routes"] = host.run("ip", "route", "show", "proto", "111").stdout.splitlines()
        found["routes6"] = host.run("ip", "-6", "route", "show", "proto", "111").stdout.splitlines()
        found["neighbours"] = [l for l in host.run("ip", "neigh").stdout.splitlines() if "proto 111" in l]
        found["fabric"] = [l for l in found["fabric"] if l != "lo"]
        del found["namespaces"]  # the containers' are the tests'
        return found

    def everyone(self):
        return [p for pods in self.pods for p in pods]

    @staticmethod
    def host_ping(host, address, source=None):
        return host.run("ping", *(["-6"] if ":" in address else []), *(["-I", source] if source else []), "-c", 1, "-W", 1, address)

    def reach(self, who, address, timeout=5):
        """who: a container or a host."""
        name = who.name
        if hasattr(who, "where"):
            wait_for(lambda: who.ping(address), timeout, f"container {name} of host {who.where + 1} reaches {address}")
        else:
            wait_for(lambda: self.host_ping(who, address), timeout, f"host {name} reaches {address}")

    def all_reach(self):
        for a in self.everyone():
            for b in self.everyone():
                if a is not b:
                    self.reach(a, b.ip4)
                    self.reach(a, b.ip6)
            for host in (self.one, self.two):
                self.reach(host, a.ip4)
                self.reach(host, a.ip6)

    def serve(self, pod, name, port=80):
        host = pod.host if hasattr(pod, "where") else pod
        inside = ("ip", "netns", "exec", pod.name) if hasattr(pod, "where") else ()
        process = host.start(*inside, "python3", "-c", SERVER, name, port, name=f"server-{name}")
        self.addCleanup(process.end)
        wait_for(lambda: host.run(*inside, "ss", "-Hltn", "sport", "=", f":{port}").stdout, 5, f"{name} listens")

    @staticmethod
    def ask(who, address, port=80):
        """[server's name, the client's address as the server sees it]"""
        inside = ("ip", "netns", "exec", who.name) if hasattr(who, "where") else ()
        return (who.host if hasattr(who, "where") else who).run(*inside, "python3", "-c", CLIENT, address, port).stdout.split()

    @staticmethod
    def dropped(host, counter, table="trestle-l3"):
        return int(re.search(r"packets (\d+)", host.run("nft", "list", "counter", "inet", table, counter).stdout).group(1))

    def status(self, i):
        return self.daemons[i].call("GET", "/v1/status")

    def at_rest(self):
        for i in range(2):
            wait_for(lambda i=i: not any(self.status(i)["drift"].values()), 10, lambda i=i: f"no drift on host {i + 1}: {self.status(i)['drift']}")

    def repaired(self, i, do, check, what):
        """Somebody else breaks it: it is found, put right, and counted."""
        before = self.status(i)["counters"]["driver"]["repairs"]
        began = time.monotonic()
        do()
        wait_for(check, 5, f"{what} is put right")
        wait_for(lambda: self.status(i)["counters"]["driver"]["repairs"] > before, 5, f"{what} is counted as a repair")
        self.assertLess(time.monotonic() - began, REPAIRED_S, what)


class Routed(Pods):
    def test_everyone_reaches_everyone(self):
        self.all_reach()

    def test_a_container_has_what_it_needs(self):
        pod = self.pods[0][0]
        self.assertEqual(sorted(pod.addresses()), sorted([pod.ip4 + "/32", pod.ip6 + "/128"]))
        self.assertEqual(pod.result["interfaces"][0]["mac"], "0e:74:72:00:00:01")
        self.assertNotIn("sandbox", pod.result["interfaces"][0])
        self.assertEqual([ip["interface"] for ip in pod.result["ips"]], [1, 1])
        self.assertEqual([ip["gateway"] for ip in pod.result["ips"]], ["169.254.1.1", "fe80::1"])
        self.assertIn({"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, pod.result["routes"])
        self.assertIn({"dst": "::/0", "gw": "fe80::1"}, pod.result["routes"])
        self.assertIn(pod.host_end, pod.host.links())
        self.assertFalse([a for l in json.loads(pod.host.run("ip", "-j", "addr", "show", "dev", pod.host_end).stdout)
                          for a in l.get("addr_info", [])], "the host's end has no address")
        check = self.cnis[0].call("CHECK", pod.id, pod, config={**pod.config, "prevResult": pod.result})
        self.assertEqual((check.status, check.out), (0, ""), check)
        def network():
            return [self.daemons[1].call("GET", "/v1/networks/pods")[k] for k in ("mode", "endpoints_total", "hosts")]
        wait_for(lambda: network() == ["l3", 4, 2], 5, "h2 knows all containers")
        for i, host in enumerate((self.one, self.two)):
            def own():
                return self.daemons[1].call("GET", "/v1/networks/pods")["members"][i]["addresses"]
            wait_for(lambda: len(own()) == 2, 5, "h2 knows the hosts' own addresses")
            self.assertIn(f"{own()[0]}/32", host.run("ip", "-br", "addr").stdout)
            with self.assertRaises(ControlError) as said:
                self.daemons[1].call("GET", "/v1/endpoints/" + own()[0])
            self.assertIn(f"what host {host.name} ", said.exception.message)

    def test_sources_are_kept_inside_and_the_hosts_outside(self):
        a, b = self.pods[0][0], self.pods[1][0]
        self.serve(b, "there")
        self.serve(a, "here")
        self.serve(self.outside, "outside")
        self.serve(self.two, "host", 81)
        for six in (False, True):
            own, to = (a.ip6, b.ip6) if six else (a.ip4, b.ip4)
            self.assertEqual(self.ask(a, to), ["there", own])
            world, host = (self.outside.address6, self.one.address6) if six else (self.outside.address, self.one.address)
            self.assertEqual(self.ask(a, world), ["outside", host])
            self.assertEqual(self.ask(a, self.two.address6 if six else self.two.address, 81), ["host", host])
            # The host itself: with its own address of the network, here as there.
            host = [self.ask(self.one, address) for address in (to, own)]
            self.assertEqual([h[0] for h in host], ["there", "here"])
            self.assertEqual(host[0][1], host[1][1])
            self.assertIn(ipaddress.ip_address(host[0][1]), ipaddress.ip_network(SUBNET6 if six else SUBNET))
            self.assertNotIn(host[0][1], [x for p in self.everyone() for x in (p.ip4, p.ip6)])

    def test_an_address_that_nobody_has_is_unreachable_at_once(self):
        # Of one address the kernel answers once a second, and each answer costs it twice (ip_error and icmp_send count in the same
        # bucket): who asks each second gets none any more, once pings that failed before have emptied it.
        for address in ("10.42.0.130", "2001:db8:42::7777"):
            def told(to=address):
                done = self.pods[0][0].run("ping", "-c", 1, "-W", 3, to, check=False)
                self.assertNotEqual(done.returncode, 0)
                return "nreachable" in done.stdout
            wait_for(told, 10, f"{address} is unreachable")

    def test_a_container_cannot_use_anothers_address(self):
        a, b = self.pods[0]
        for own, word in ((self.pods[1][0].ip4 + "/32", []), (self.pods[1][0].ip6 + "/128", ["nodad"]), ("203.0.113.5/32", [])):
            a.ip("addr", "add", own, "dev", "eth0", *word)
            self.addCleanup(a.ip, "addr", "del", own, "dev", "eth0", check=False)
            target = b.ip6 if ":" in own else b.ip4
            self.assertNotEqual(a.run("ping", "-I", own.split("/")[0], "-c", 1, "-W", 1, target, check=False).returncode, 0, own)
            a.ip("addr", "del", own, "dev", "eth0")
        self.assertGreaterEqual(self.dropped(self.one, "spoofed"), 3)

    def test_frames_of_its_vni_are_members_only(self):
        vni = self.daemons[0].call("GET", "/v1/networks/pods")["vni"]
        for host in (self.one, self.two):
            self.assertIn(f"0x{vni:x}", host.run("nft", "list", "set", "inet", "trestle", "vnis").stdout)
        send = ("import socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto("
                "bytes([8, 0, 0, 0]) + int(sys.argv[2]).to_bytes(3, 'big') + bytes(61), (sys.argv[1], 4789))")
        # A container would get a member's address from masquerade; a stranger on the underlay has his own.
        forged, foreign = self.dropped(self.one, "forged", "trestle"), self.dropped(self.two, "foreign", "trestle")
        pod = self.pods[0][0]
        pod.run("python3", "-c", send, self.two.address, vni)
        self.outside.run("python3", "-c", send, self.two.address, vni)
        wait_for(lambda: self.dropped(self.one, "forged", "trestle") == forged + 1, 3, "the container's frame is dropped where it is")
        wait_for(lambda: self.dropped(self.two, "foreign", "trestle") == foreign + 1, 3, "the stranger's is dropped where it comes to")

    def test_full_packets_pass_and_larger_ones_are_told(self):
        a, b = self.pods[0][0], self.pods[1][0]
        for to, size in ((b.ip4, 1450 - 28), (b.ip6, 1450 - 48)):
            words = ["-6"] if ":" in to else []
            a.run("ping", *words, "-M", "do", "-c", 1, "-W", 1, "-s", size, to)
            self.assertNotEqual(a.run("ping", *words, "-M", "do", "-c", 1, "-W", 1, "-s", size + 1, to, check=False).returncode, 0)

    def test_no_packet_is_lost_while_daemons_are_killed(self):
        a, b = self.pods[0][0], self.pods[1][0]
        pings = [subprocess.Popen(who.host.enter("ip", "netns", "exec", who.name, "ping", "-i", "0.02", "-c", "200", "-W", "1", to),
                                  stdout=subprocess.PIPE, text=True) for who, to in ((a, b.ip4), (b, a.ip6))]
        host = subprocess.Popen(self.one.enter("ping", "-i", "0.02", "-c", "200", "-W", "1", b.ip4), stdout=subprocess.PIPE, text=True)
        rules = self.one.run("nft", "-s", "list", "table", "inet", "trestle-l3").stdout
        for d in self.daemons:
            d.kill9()
        for d in self.daemons:
            d.start()
        for p in (*pings, host):
            out, _ = p.communicate(timeout=120)
            self.assertIn(" 0% packet loss", out, out[-500:])
        self.assertEqual(self.one.run("nft", "-s", "list", "table", "inet", "trestle-l3").stdout, rules)
        self.at_rest()
        for i in range(2):
            self.assertEqual(self.status(i)["counters"]["driver"]["messages"], 0, "nothing was written to the kernel")
        self.all_reach()

    def test_what_others_delete_comes_back(self):
        a, b = self.pods[0][0], self.pods[1][0]
        tunnel = next(n for n, l in self.one.links().items() if l.get("linkinfo", {}).get("info_kind") == "vxlan")
        ip = lambda *words: self.one.run("ip", *words, check="flush" not in words)  # a flush may never see an empty table
        both = lambda: a.ping(b.ip4) and a.ping(b.ip6) and self.host_ping(self.one, a.ip4) and self.host_ping(self.one, a.ip6)
        breaks = {
            "a route to another host": lambda: ip("route", "del", b.ip4, "proto", "111"),
            "an IPv6 route to another host": lambda: ip("-6", "route", "del", b.ip6, "proto", "111"),
            "a route to a container": lambda: ip("route", "del", a.ip4, "proto", "111"),
            "a route taken over": lambda: ip("route", "replace", b.ip4, "dev", "lo", "metric", "111", "proto", "static"),
            "all routes": lambda: ip("route", "flush", "proto", "111"),
            "neighbours": lambda: ip("neigh", "flush", "nud", "permanent", "dev", tunnel),
            "a container's neighbour": lambda: ip("neigh", "del", a.ip4, "dev", a.host_end),
            "forwarding rows": lambda: self.one.run("bridge", "fdb", "flush", "dev", tunnel, check=False) and
                self.one.run("sh", "-c", f"bridge fdb show dev {tunnel} | while read mac rest; do bridge fdb del $mac dev {tunnel}; done"),
            "the tunnel's addresses": lambda: ip("addr", "flush", "dev", tunnel),
            "the tunnel down": lambda: ip("link", "set", tunnel, "down"),
            "a container's link down": lambda: ip("link", "set", a.host_end, "down"),
            "the tunnel": lambda: ip("link", "del", tunnel),
        }
        for what, do in breaks.items():
            with self.subTest(what):
                self.reach(a, b.ip4)
                self.repaired(0, do, both, what)
        self.at_rest()
        self.all_reach()

    def test_rules_come_back(self):
        a = self.pods[0][0]
        nft = lambda *words: self.one.run("nft", *words)
        nft("add", "table", "inet", "others")
        self.addCleanup(self.one.run, "nft", "delete", "table", "inet", "others", check=False)
        self.serve(self.outside, "rules", 82)

        def whole():
            text = nft("list", "ruleset").stdout
            return text.count("masquerade") == 4 and text.count("@th,96,24 @vnis") == 5 and SUBNET in text and "dormant" not in text
        for what, words in {"a flushed ruleset": ("flush", "ruleset"), "a deleted table": ("delete", "table", "inet", "trestle-l3"),
                            "a flushed chain": ("flush", "chain", "inet", "trestle-l3", "postrouting"),
                            "an emptied set": ("flush", "set", "inet", "trestle-l3", "pools4"),
                            "a table put to sleep": ("add", "table", "inet", "trestle-l3", "{ flags dormant; }")}.items():
            with self.subTest(what):
                self.repaired(0, lambda words=words: nft(*words), whole, what)
        # What another flushes of its own is its own business, and costs us nothing.
        self.at_rest()
        before = self.status(0)["counters"]["driver"]["repairs"]
        nft("add", "table", "inet", "others")
        nft("delete", "table", "inet", "others")
        self.assertEqual(self.ask(a, self.outside.address, 82), ["rules", self.one.address])
        self.assertEqual(self.status(0)["counters"]["driver"]["repairs"], before)
        self.at_rest()

    def service(self, iptables, v6):
        """What kube-proxy writes for a service of two endpoints, cut down to what matters."""
        address, pods = ("2001:db8:96::1", [self.pods[0][0].ip6, self.pods[1][0].ip6]) if v6 else \
            ("198.51.100.1", [self.pods[0][0].ip4, self.pods[1][0].ip4])
        to = lambda pod: f"[{pod}]:80" if v6 else f"{pod}:80"
        rules = [f"-N SVC -t nat", "-N MARK-MASQ -t nat", "-t nat -A MARK-MASQ -j MARK --or-mark 0x4000"]
        for hook in ("PREROUTING", "OUTPUT"):
            rules.append(f"-t nat -A {hook} -d {address} -p tcp --dport 80 -j SVC")
        for number, pod in enumerate(pods):
            chance = ["-m statistic --mode random --probability 0.5"] if number == 0 else []
            rules += [f"-N SEP{number} -t nat", f"-t nat -A SEP{number} -s {pod} -j MARK-MASQ",
                      f"-t nat -A SEP{number} -p tcp -j DNAT --to-destination {to(pod)}",
                      " ".join(["-t nat -A SVC", *chance, f"-j SEP{number}"])]
        rules.append("-t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE")
        for host in (self.one, self.two):
            host.run("ip", *(["-6"] if v6 else []), "route", "add", address, "dev", "eth0")
            self.addCleanup(host.run, "ip", *(["-6"] if v6 else []), "route", "del", address, "dev", "eth0", check=False)
            for rule in rules:
                host.run(iptables, *rule.split())
        return address

    def drop_service(self, iptables):
        for host in (self.one, self.two):
            for words in ("-t nat -F", "-t nat -X"):
                host.run(iptables, *words.split(), check=False)

    def test_a_service_answers_from_both_hosts(self):
        self.serve(self.pods[0][0], "first")
        self.serve(self.pods[1][0], "second")
        for backend in ("nft", "legacy"):
            for v6 in (False, True):
                iptables = f"ip{'6' if v6 else ''}tables-{backend}"
                with self.subTest(iptables):
                    address = self.service(iptables, v6)
                    try:
                        for who in (*self.everyone(), self.one, self.two):
                            seen = set()
                            wait_for(lambda who=who, seen=seen: seen.add(self.ask(who, address)[0]) or seen == {"first", "second"}, 20,
                                     f"{who.name} is answered by both", every=0)
                    finally:
                        self.drop_service(iptables)
                        for host in (self.one, self.two):
                            host.run("ip", *(["-6"] if v6 else []), "route", "del", address, "dev", "eth0", check=False)

    def test_published_ports(self):
        config = self.config()
        pod = self.extra(0, config)
        self.serve(pod, "web")
        self.serve(self.outside, "world", 84)
        mapping = {"cniVersion": "1.0.0", "name": "pods", "type": "portmap", "prevResult": {**pod.result, "cniVersion": "1.0.0"},
                   "capabilities": {"portMappings": True},
                   "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}}
        for verb in ("ADD", "DEL"):
            env = self.cnis[0].environment(verb, pod.id, pod, "eth0")
            done = self.cnis[0].raw(env, json.dumps(mapping), binary="/usr/lib/cni/portmap")
            self.assertEqual(done.status, 0, done)
            if verb == "DEL":
                break
            self.assertEqual(self.ask(self.outside, self.one.address, 8080), ["web", self.outside.address])
            self.assertEqual(self.ask(self.one, self.one.address, 8080)[0], "web")
            self.assertEqual(self.ask(self.two, self.one.address, 8080)[0], "web")
            self.assertEqual(self.ask(self.pods[1][0], self.one.address, 8080)[0], "web")
            self.assertEqual(self.ask(self.pods[0][0], self.one.address, 8080)[0], "web")
            self.assertEqual(self.ask(pod, self.one.address, 8080)[0], "web")

    def test_a_host_that_forbids_forwarding_is_told(self):
        """As a Docker engine does. Its rules count, whatever we would like."""
        a, b = self.pods[0][0], self.pods[1][0]
        warning = lambda: [w for w in self.status(0)["warnings"] if "drops what this host forwards" in w]
        self.one.run("iptables", "-P", "FORWARD", "DROP")
        self.addCleanup(self.one.run, "iptables", "-P", "FORWARD", "ACCEPT")
        self.assertNotEqual(a.ping(b.ip4, check=False).returncode, 0)
        self.reach(self.one, a.ip4)
        self.one.run("nft", "flush", "table", "inet", "trestle-l3")  # has it looked at now rather than within a minute
        wait_for(warning, 5, "said in the status")
        self.assertIn("chain FORWARD of table ip filter", warning()[0])
        self.assertIn(SUBNET, warning()[0])
        for way in ("-s", "-d"):
            self.one.run("iptables", "-I", "FORWARD", way, SUBNET, "-j", "ACCEPT")
            self.addCleanup(self.one.run, "iptables", "-D", "FORWARD", way, SUBNET, "-j", "ACCEPT")
        self.reach(a, b.ip4)

    def test_networks_do_not_meet(self):
        other = self.config(name="other", network="other", subnet="10.43.0.0/24", subnet6=None)
        inside = []
        for i in range(2):
            inside.append(self.extra(i, other))
            self.know_network("other")
        self.reach(inside[0], inside[1].ip4)
        for pod in inside:
            for stranger in self.everyone():
                self.assertNotEqual(pod.ping(stranger.ip4, check=False).returncode, 0)
        self.assertGreater(self.dropped(self.one, "strayed"), 0)
        self.reach(self.one, inside[1].ip4)

    def test_an_internal_network_has_no_way_out(self):
        self.daemons[0].call("POST", "/v1/networks", {"name": "closed", "subnet": "10.44.0.0/24", "internal": True, "mode": "l3"})
        config = self.config(name="closed", network="closed", subnet=None, subnet6=None)
        self.know_network("closed")
        pods = [self.extra(i, config) for i in range(2)]
        self.reach(pods[0], pods[1].ip4)
        for host in (self.one, self.two):
            for pod in pods:
                self.reach(host, pod.ip4)
        self.assertNotEqual(pods[0].ping(self.outside.address, check=False).returncode, 0)
        pods[0].ip("route", "add", "default", "via", "169.254.1.1", "dev", "eth0", "onlink")
        self.assertNotEqual(pods[0].ping(self.outside.address, check=False).returncode, 0)

    def test_an_address_follows_its_container(self):
        want = {"runtimeConfig": {"ips": ["10.42.0.77"]}, "subnet6": None}
        first = self.pod(0, self.config(**want))
        self.reach(self.pods[1][0], "10.42.0.77")
        self.end(first)
        second = wait_for(lambda: self.pod_or_none(1, self.config(**want)), 10, "the address is given by the other host")
        self.addCleanup(self.end, second)
        for who in (*self.everyone(), self.one, self.two):
            self.reach(who, "10.42.0.77")
        self.assertIn("dev tx", self.one.run("ip", "route", "get", "10.42.0.77").stdout)
        self.at_rest()

    def pod_or_none(self, where, config):
        try:
            return self.pod(where, config)
        except AssertionError:
            return None

    def test_what_cannot_be_is_said(self):
        pod = self.pods[0][0]
        done = self.cnis[0].call("ADD", "wrong", pod, "eth9", config=self.config(mode="l2"))
        self.assertEqual((done.status, done.code), (1, 7), done)
        self.assertIn("mode l3, the configuration says l2", done.msg)
        done = self.cnis[0].call("ADD", "wrong", pod, "eth9",
                                 config=self.config(name="clash", network="clash", subnet="10.42.0.0/25", subnet6=None))
        self.assertEqual(done.status, 1, done)
        self.assertIn("overlaps pool 10.42.0.0/24", done.msg + done.details)
        done = self.cnis[0].call("ADD", "wrong", pod, "eth9",
                                 config=self.config(name="under", network="under", subnet="192.0.2.0/24", subnet6=None))
        self.assertIn("underlay address 192.0.2.1", done.msg + done.details)
        with self.assertRaises(ControlError) as refused:
            self.daemons[0].call("POST", "/v1/networks", {"name": "pods", "mode": "l2"})
        self.assertIn("exists with mode l3, asked for with l2", refused.exception.message)
        with self.assertRaises(Refused) as refused:
            self.daemons[0].plugin().create_network("pods", SUBNET)
        self.assertIn("exists with mode l3", refused.exception.text)


class Lives(Pods):
    """What changes the class's hosts for good."""

    BEFORE = LOOSE

    def test_a_life(self):
        """Loose settings; a daemon that dies, whose containers are reached all the same; when the last container goes, nothing is left."""
        a, b = self.pods[0][0], self.pods[1][0]
        self.all_reach()
        self.daemons[1].kill9()
        wait_for(lambda: self.status(0)["members"]["alive"] == 1, 30, "host 1 misses host 2")
        self.reach(a, b.ip4)
        self.reach(b, a.ip6)
        self.reach(self.one, b.ip4)
        self.daemons[1].start()
        Daemon.wait_members(self.daemons)
        self.at_rest()
        for pod in self.pods[1]:
            self.end(pod)
        wait_for(lambda: b.ip4 not in self.one.run("ip", "route").stdout, 5, "host 1 drops the routes")
        wait_for(lambda: self.objects(self.two) == self.before[1], 5,
                 lambda: f"nothing left: {leaks.difference(self.before[1], self.objects(self.two))}")
        for pod in self.pods[0]:
            self.end(pod)
        wait_for(lambda: self.objects(self.one) == self.before[0], 5,
                 lambda: f"nothing left: {leaks.difference(self.before[0], self.objects(self.one))}")
        for d in self.daemons:
            self.assertFalse(d.complaints())
            wait_for(lambda d=d: [p["leases"] for p in d.call("GET", "/v1/ipam")["pools"]] == [0, 0], 5, f"no lease on {d.host.name}")


class Leaves(Pods):
    HOSTS = 2

    def test_a_host_that_leaves_takes_its_routes_along(self):
        a, b = self.pods[0][0], self.pods[1][0]
        self.reach(a, b.ip4)
        for d in self.daemons:
            found = lambda d=d: [d.call("GET", "/v1/ipam/check")[k] for k in ("leaks", "duplicates", "ghosts")]
            wait_for(lambda: found() == [[], [], []], 5, f"{d.host.name} finds nothing")
        self.daemons[1].call("POST", "/v1/leave", {"force": True})
        wait_for(lambda: b.ip4 not in self.one.run("ip", "route").stdout and b.ip6 not in self.one.run("ip", "-6", "route").stdout, 5,
                 "its routes are gone")
        wait_for(lambda: self.objects(self.two) == self.before[1], 5,
                 lambda: f"nothing left there: {leaks.difference(self.before[1], self.objects(self.two))}")
        self.at_rest()


class OverSix(Pods):
    """The underlay has IPv6 alone."""

    FAMILIES, HOSTS = (6,), 2

    def test_everyone_reaches_everyone(self):
        self.all_reach()
        a, b = self.pods[0][0], self.pods[1][0]
        a.run("ping", "-M", "do", "-c", 1, "-W", 1, "-s", 1430 - 28, b.ip4)
        self.at_rest()


if __name__ == "__main__":
    unittest.main()

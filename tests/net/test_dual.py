"""Both families: an underlay of IPv6 alone, hosts that do not fit together, networks with one family or both."""
import contextlib
import ipaddress
import json
import socket
import time
import unittest

from tests.lab import Daemon, wait_for
from tests.lab.daemon import ControlError
from tests.lab.plugin import Refused
from tests.net.hosts import Hosts

FOUR, SIX = "10.9.0.0/24", "2001:db8:9::/64"
OVERHEAD6 = 70  # outer Ethernet 14, IPv6 40, UDP 8, VXLAN 8
ETH_P_ALL = 3
NEIGHBOUR_SOLICITATION = 135


@contextlib.contextmanager
def asked_on_the_wire(host):
    """What comes out of host's tunnels meanwhile and asks for a neighbour: the inner frames of ARP requests and solicitations."""
    frames = []
    with host.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as tap:
        tap.bind(("eth0", ETH_P_ALL))
        yield frames
        tap.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            while True:
                frame = tap.recv(65535)
                inner = frame[14 + (40 if frame[12:14] == b"\x86\xdd" else 20) + 16:]
                if inner[12:14] == b"\x08\x06" or (inner[12:14] == b"\x86\xdd" and inner[20] == 58 and inner[54] == NEIGHBOUR_SOLICITATION):
                    frames.append(inner)


def has_rows(host, *containers):
    """Until the kernel there can answer for them: who asks before is asked on the wire."""
    def rows():
        return {line.split()[0] for line in host.run("nsenter", "--net=/run/netns/trestle", "ip", "neigh").stdout.splitlines()}
    wanted = {address for c in containers for address in (c.ip, c.ip6) if c.host is not host}
    wait_for(lambda: wanted <= rows(), 5, f"rows of {wanted} on {host.name}")


class Networks(Hosts):
    def records(self, daemon):
        return sorted((e["host"], e["ipv4"], e["ipv6"]) for e in daemon.endpoints("app"))

    def same_everywhere(self, count):
        return wait_for(lambda: len({str(self.records(d)) for d in self.daemons}) == 1 and len(self.records(self.daemons[0])) == count, 5,
                        "both hosts have the same records")

    def test_both_families(self):
        one, two = self.runtimes(subnet6=SIX)
        a, b, c = one.attach(), two.attach(), one.attach(address6="2001:db8:9:0:7fff:ffff:ffff:ffff")
        self.assertTrue(all(ipaddress.ip_address(x.ip6) in ipaddress.ip_network(SIX) for x in (a, b, c)))
        self.assertEqual(len({x.ip6 for x in (a, b, c)}), 3)
        self.same_everywhere(3)
        for host in self.lab.hosts:
            has_rows(host, a, b, c)
        with asked_on_the_wire(self.lab.hosts[1]) as frames:
            for x in (b, c):
                self.reach(one, a, x.ip)
                self.reach(one, a, x.ip6)
            self.reach(two, b, c.ip6)
        known = {bytes.fromhex(x.mac.replace(":", "")) for x in (a, b, c)}
        self.assertEqual([f.hex() for f in frames if f[6:12] in known and self.about(f) in {a.ip, b.ip, c.ip, a.ip6, b.ip6, c.ip6}], [])
        self.assertTrue(one.ping(a, b.ip6, size=1450))
        self.assertFalse(one.ping(a, b.ip6, size=1451))
        # The first address is the routers', the second the gateway's, which nobody gets and nobody answers at.
        for taken in ("2001:db8:9::", "2001:db8:9::1", b.ip6):
            with self.assertRaises(Refused):
                two.attach(address6=taken)
        for d in self.daemons:
            found = wait_for(lambda d=d: d.trestle("ipam", "check"), 5, f"{d.host.name} finds nothing")
            self.assertEqual(found["leaks"] + found["duplicates"] + found["ghosts"], [])
        self.text_is_right(a)
        for runtime, x in ((one, a), (two, b), (one, c)):
            runtime.detach(x)
        self.same_everywhere(0)
        self.assertEqual(self.leases(self.daemons[0]), 2)  # the gateways

    @staticmethod
    def about(frame):
        """The address that an ARP request or a solicitation is about."""
        return socket.inet_ntop(*(socket.AF_INET, frame[38:42]) if frame[12:14] == b"\x08\x06" else (socket.AF_INET6, frame[62:78]))

    def text_is_right(self, a):
        shown = self.daemons[1].text("ipam", "show", SIX)
        self.assertIn(SIX, shown)
        self.assertIn(a.ip6, self.daemons[1].text("endpoint", "ls"))
        self.assertEqual(self.daemons[1].trestle("endpoint", "inspect", a.ip6)["mac"], a.mac)
        pool = next(p for p in self.daemons[0].call("GET", "/v1/ipam")["pools"] if p["pool"] == SIX)
        self.assertEqual((pool["size"], pool["reserved"], pool["network"]), (2 ** 63 - 1, 1, "app"))

    def test_ipv6_alone(self):
        """And of no round size: the addresses of a /125 but the routers' and the gateway's, each once, on both hosts."""
        one, two = self.runtimes(subnet=None, subnet6="2001:db8:9::8/125")
        given = []

        def give():  # refused when all are given, and when the other host does not answer in time
            runtime = (one, two)[len(given) % 2]
            given.append((runtime, runtime.attach()))
            return len(given) >= 6
        wait_for(give, 20, "six addresses")
        for runtime in (one, two):
            with self.assertRaises(Refused) as caught:
                runtime.attach()
            self.assertIn("no free address", str(caught.exception))
        self.assertEqual(sorted(x.ip6 for _, x in given), [f"2001:db8:9::{n:x}" for n in range(10, 16)])
        self.assertEqual({x.ip for _, x in given}, {""})
        for _, x in given[1:]:
            self.reach(given[0][0], given[0][1], x.ip6)
        self.daemons[1].restart()
        self.same_everywhere(6)
        self.reach(given[0][0], given[0][1], given[-1][1].ip6)

    def test_a_network_gains_the_family_that_it_lacks(self):
        one, two = self.runtimes()
        a = one.attach()
        # An engine that knows both, on a host whose first network it is.
        dual = type(two)(self.daemons[1], *self.daemons[1].plugin().create_network("app", FOUR, subnet6=SIX))
        for d in self.daemons:
            wait_for(lambda d=d: sorted(d.call("GET", "/v1/networks/app")["pools"]) == sorted([FOUR, SIX]), 5, f"{d.host.name} knows both")
        b = dual.attach()
        self.assertIn(ipaddress.ip_address(b.ip6), ipaddress.ip_network(SIX))
        self.reach(one, a, b.ip)
        # A third subnet is no missing family, and one alone does not say that this network is meant.
        for subnet, subnet6 in ((FOUR, "2001:db8:8::/64"), (None, "2001:db8:7::/64"), ("10.8.0.0/24", "2001:db8:6::/64")):
            with self.assertRaises(Refused) as caught:
                self.daemons[0].plugin().create_network("app", subnet, subnet6=subnet6)
            self.assertIn("exists with the subnets", str(caught.exception))
        self.daemons[0].trestle("network", "create", "db", "--subnet", "10.7.0.0/24")
        self.know_network("db")
        self.daemons[1].trestle("network", "create", "db", "--subnet6", "2001:db8:5::/112")
        wait_for(lambda: self.daemons[0].call("GET", "/v1/networks/db")["pools"] == ["10.7.0.0/24", "2001:db8:5::/112"], 5, "db has both")

    def test_subnets_added_on_both_sides_of_a_cut(self):
        self.daemons[0].trestle("network", "create", "app", "--subnet", FOUR)
        wait_for(lambda: self.daemons[1].call("GET", "/v1/networks")["networks"], 5, "the other host knows it")
        self.daemons[1].trestle("network", "create", "app")
        self.lab.cut(self.lab.hosts[:1], self.lab.hosts[1:])
        for number, d in enumerate(self.daemons):
            d.trestle("network", "create", "app", "--subnet6", f"2001:db8:{number + 1}::/64")
        self.lab.heal()
        wanted = sorted([FOUR, "2001:db8:1::/64", "2001:db8:2::/64"])
        for d in self.daemons:
            wait_for(lambda d=d: sorted(d.call("GET", "/v1/networks/app")["pools"]) == wanted, 20, f"{d.host.name} knows all three")
        wait_for(lambda: len({str(d.call("GET", "/v1/networks/app")["pools"]) for d in self.daemons}) == 1, 5, "in one order")

    def test_ipv6_needs_an_mtu_of_1280(self):
        for options in (("--subnet6", SIX, "--mtu", 1279), ("--subnet", FOUR, "--subnet6", SIX, "--mtu", 576)):
            with self.assertRaises(Exception) as caught:
                self.daemons[0].trestle("network", "create", "app", *options)
            self.assertIn("IPv6 needs 1280", str(caught.exception))
            self.assertEqual(self.daemons[0].call("GET", "/v1/networks")["networks"], [])
            self.assertEqual(self.daemons[0].call("GET", "/v1/ipam")["pools"], [])
        self.daemons[0].trestle("network", "create", "app", "--subnet", FOUR, "--mtu", 1000)
        with self.assertRaises(Refused) as caught:
            self.daemons[0].plugin().create_network("app", FOUR, subnet6=SIX)
        self.assertIn("IPv6 needs 1280", str(caught.exception))
        self.assertEqual(self.daemons[0].call("GET", "/v1/networks/app")["pools"], [FOUR])
        self.daemons[0].trestle("network", "create", "six", "--subnet6", SIX.replace(":9:", ":8:"), "--mtu", 1280)


class Underlay6(Hosts):
    """Hosts that have no IPv4 address at all."""

    FAMILIES = (6,)

    def test_gossip_joins_and_tunnels_over_ipv6(self):
        one, two = self.runtimes(subnet6=SIX)
        self.assertEqual([m["vtep"] for m in self.daemons[0].call("GET", "/v1/members")["members"]], ["2001:db8::1", "2001:db8::2"])
        a, b = one.attach(), two.attach()
        for host in self.lab.hosts:
            has_rows(host, a, b)
        with asked_on_the_wire(self.lab.hosts[1]) as frames:
            self.reach(one, a, b.ip)
            self.reach(one, a, b.ip6)
        known = {bytes.fromhex(x.mac.replace(":", "")) for x in (a, b)}
        self.assertEqual([f.hex() for f in frames if f[6:12] in known and Networks.about(f) in {b.ip, b.ip6}], [])
        # Exactly as much as the underlay carries, and not a byte more.
        self.assertEqual(self.daemons[0].call("GET", "/v1/networks/app")["mtu"], 1500 - OVERHEAD6)
        for address in (b.ip, b.ip6):
            self.assertTrue(one.ping(a, address, size=1430))
            self.assertFalse(one.ping(a, address, size=1431))
        self.guarded(a, b)
        # With the stream port: what UDP alone carried above.
        self.daemons[1].kill9()
        self.daemons[1].start()
        Daemon.wait_members(self.daemons)
        self.reach(two, b, a.ip6)

        self.too_small(self.daemons[0])

    def too_small(self, daemon):
        """The underlay's MTU is asked for each time."""
        def warned():
            return [w for w in daemon.call("GET", "/v1/status")["warnings"] if "underlay carries only 1330" in w]
        self.assertEqual(warned(), [])
        daemon.host.run("ip", "link", "set", "eth0", "mtu", "1400")
        self.assertEqual(len(warned()), 1)
        daemon.host.run("ip", "link", "set", "eth0", "mtu", "1500")
        self.assertEqual(warned(), [])

    def guarded(self, a, b):
        """VXLAN with our VNI from an address that is no member's is dropped and counted."""
        vni = self.daemons[0].call("GET", "/v1/networks/app")["vni"]
        macs = bytes.fromhex((a.mac + b.mac).replace(":", ""))
        frame = bytes([8, 0, 0, 0]) + vni.to_bytes(3, "big") + b"\0" + macs + b"\x88\xb5" + b"\0" * 46
        self.lab.hosts[1].run("ip", "addr", "add", "2001:db8::99/64", "dev", "eth0", "nodad")
        def foreign():
            listed = json.loads(self.lab.hosts[0].run("nft", "-j", "list", "counter", "inet", "trestle", "foreign").stdout)
            return [o["counter"]["packets"] for o in listed["nftables"] if "counter" in o][0]
        with self.lab.hosts[1].socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
            s.bind(("2001:db8::99", 0))
            for _ in range(5):
                s.sendto(frame, (self.lab.hosts[0].address, 4789))
        wait_for(lambda: foreign() == 5, 5, "five foreign frames are counted")

    def test_the_default_address_is_found(self):
        host = self.lab.hosts[0]
        host.run("ip", "-6", "route", "add", "default", "via", "2001:db8::fe")
        self.daemons[0].stop()
        self.daemons[0].underlay = []
        self.daemons[0].start()
        self.assertEqual(self.daemons[0].call("GET", "/v1/status")["listen"], "[2001:db8::1]:7956")
        self.assertEqual(self.daemons[0].call("GET", "/v1/status")["vtep"], "2001:db8::1")


class Mixed(Hosts):
    JOINED = False

    def refusal(self, daemon, token):
        before = time.monotonic()
        with self.assertRaises(ControlError) as caught:
            daemon.call("POST", "/v1/join", {"token": token}, timeout=30)
        self.assertLess(time.monotonic() - before, 9)  # it is an answer; no answer takes ten seconds
        self.assertEqual(daemon.call("GET", "/v1/status")["members"]["alive"], 1)
        return str(caught.exception)

    def test_a_host_of_the_other_family_does_not_join(self):
        one, two = self.daemons
        for options, words in ((("--listen", "[2001:db8::2]", "--vtep", "2001:db8::2"), "have IPv4 addresses (192.0.2.1), this one listens on 2001:db8::2"),
                               (("--vtep", "2001:db8::2"), "192.0.2.1:7956 refuses (family)")):
            two.stop()
            two.start(*options)
            self.assertIn(words, self.refusal(two, one.token()))
        two.stop()
        two.start()
        two.join(one)

    def test_a_member_that_comes_back_with_the_other_family_is_named(self):
        one, two = self.daemons
        two.join(one)
        a, b = [r.attach() for r in self.runtimes()]
        two.stop()
        two.start("--vtep", "2001:db8::2")
        for d, other in ((one, "h2 takes VXLAN at 2001:db8::2"), (two, "h1 takes VXLAN at 192.0.2.1")):
            wait_for(lambda d=d, o=other: any(o in w for w in d.call("GET", "/v1/status")["warnings"]), 10, f"{d.host.name} warns: {other}")
            self.assertEqual(d.complaints(), [])
        two.stop()
        two.start("--listen", "[2001:db8::2]", "--vtep", "192.0.2.2")
        wait_for(lambda: any("h1 listens on 192.0.2.1" in w for w in two.call("GET", "/v1/status")["warnings"]), 10, "a warning")
        two.restart()
        Daemon.wait_members(self.daemons)
        wait_for(lambda: not any("family" in w for d in self.daemons for w in d.call("GET", "/v1/status")["warnings"]), 10, "no warning")


if __name__ == "__main__":
    unittest.main()

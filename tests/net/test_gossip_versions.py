"""A release that speaks the next version of the wire format joins hosts of this one, and the other way round: both work, nobody sends what
the other does not speak, and everything stays encrypted."""
import os
import select
import socket
import time
import unittest

from tests.lab import Daemon, Lab, wait_for
from tests.lab.daemon import PORT

ETH_P_ALL = 3
NEXT = {"TRESTLE_TEST_NEXT_WIRE": "1"}
ORDINARY = (0, 1, 2, 3)


class Versions(unittest.TestCase):
    def setUp(self):
        self.lab = self.enterContext(Lab(hosts=4))
        self.daemons = [Daemon(h, start=False) for h in self.lab.hosts]
        for d in self.daemons[2:]:
            d.env = NEXT
        for d in self.daemons:
            d.start()

    def taps(self):
        for host in self.lab.hosts:
            tap = host.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            tap.bind(("eth0", ETH_P_ALL))
            self.addCleanup(tap.close)
            yield tap

    def packets(self, taps, seconds):
        """(from, to, payload) of gossip, each seen at its receiver."""
        seen, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            for tap in select.select(taps, [], [], 0.1)[0]:
                frame, where = tap.recvfrom(4096)
                if where[2] == socket.PACKET_OUTGOING or frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_UDP:
                    continue
                if frame[36:38] == PORT.to_bytes(2, "big"):
                    seen.append((socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34]), frame[42:]))
        return seen

    def wires(self, daemon):
        return {m["name"]: m["wire"] for m in daemon.call("GET", "/v1/members")["members"]}

    def test_both_work(self):
        taps = list(self.taps())
        # Of the next release one joins a host of this, and sponsors the other; a host of this joins one of the next.
        one, two, three, four = self.daemons
        three.join(one)
        two.join(three)
        four.join(two)
        Daemon.wait_members(self.daemons)
        old = {"h1": 1, "h2": 1, "h3": 1, "h4": 1}
        for d in (one, two):
            wait_for(lambda: self.wires(d) == old, 10, f"{d.host.name} speaks this version to all")
        for d in (three, four):
            wait_for(lambda: self.wires(d) == {**old, "h3": 2, "h4": 2}, 10, f"{d.host.name} speaks the next one to its like")
        made = []
        for d in (one, four):
            network, pool, _ = d.plugin().create_network("application-network", "10.9.0.0/24")
            name = os.urandom(32).hex()
            made.append(name)
            d.plugin().create_endpoint(network, name, d.plugin().request_address(pool))
            for other in self.daemons:
                wait_for(lambda o=other: o.call("GET", "/v1/networks/application-network"), 10, f"{other.host.name} knows the network")
        for d in (two, three):
            d.call("POST", "/v1/networks", {"name": "application-network"})
            wait_for(lambda: len(d.endpoints()) == 2, 10, f"{d.host.name} knows both endpoints")
        wait_for(lambda: one.trestle("keys", "rotate"), 10, "a rotation")  # refused while it has not heard of everybody's keys
        for d in self.daemons:
            wait_for(lambda: [k["generation"] for k in d.call("GET", "/v1/keys")["keys"]] == [2], 30, f"{d.host.name} has the new key alone")
        packets = self.packets(taps, 3)
        next_ones = {h.address for h in self.lab.hosts[2:]}
        for source, target, payload in packets:
            version, kind = payload[0] >> 4, payload[0] & 15
            if version != 1:
                self.assertEqual((version, {source, target} <= next_ones, kind in ORDINARY), (2, True, True))
        self.assertTrue(any(p[0] >> 4 == 2 for _, _, p in packets), "the next version between the two that speak it")
        for clear in [b"application-network"] + [bytes.fromhex(n)[:8] for n in made] + [n[:12].encode() for n in made]:
            self.assertFalse(any(clear in p for _, _, p in packets), "sent in clear")
        for d in self.daemons:
            counters = d.call("GET", "/v1/status")["counters"]["gossip"]
            self.assertEqual({k: counters[k] for k in ("refused_version", "refused_decode", "refused_replay", "conflicts", "deaths")},
                             {"refused_version": 0, "refused_decode": 0, "refused_replay": 0, "conflicts": 0, "deaths": 0}, d.host.name)

    def test_back_to_this_release(self):
        """Who goes back is spoken to as before."""
        one, _, three, four = self.daemons
        Daemon.cluster([one, three, four])
        wait_for(lambda: self.wires(four)["h3"] == 2, 10, "h4 speaks the next version to h3")
        three.stop()
        three.env = None
        three.start()
        wait_for(lambda: self.wires(four)["h3"] == 1, 20, "h4 speaks this version to h3")
        Daemon.wait_members([one, three, four])


if __name__ == "__main__":
    unittest.main()

"""A socket that is full, of a real daemon and a real kernel: the device takes a megabit a second and the host has more to say.

What lies in the socket's send buffer is counted there until the device has it, so that a slow device with a long queue makes sends fail
with EAGAIN. Pushes and repairs are dropped then, which are repeated; probes wait, and none is lost. Every frame has its number, one
more than the one before, in clear (docs/wire.md): what is missing on the wire is what was dropped.
"""
import socket
import struct
import threading
import unittest

from tests.lab import Daemon, wait_for
from tests.lab.daemon import PORT
from tests.net.hosts import Hosts

NETWORKS = 150
ASK_AT_ONCE = 4
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
UDP_HEADERS = 14 + 20 + 8
COUNTER_AT = {0: 9, 1: 9, 2: 9, 3: 9, 14: 13}  # by class


class Sent:
    """The frames of a host that its device took, by their numbers."""

    def __init__(self, host):
        self.sock = host.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL: what goes out is seen by no other
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
        self.sock.bind(("eth0", 0x0003))
        self.sock.setblocking(False)
        self.numbers = set()

    def read(self):
        while True:
            try:
                packet, where = self.sock.recvfrom(2048)
            except BlockingIOError:
                return
            if where[2] != socket.PACKET_OUTGOING or packet[12:14] != b"\x08\x00" or packet[23] != socket.IPPROTO_UDP:
                continue
            frame, (port,) = packet[UDP_HEADERS:], struct.unpack_from("!H", packet, 36)
            at = COUNTER_AT.get(frame[0] & 15)
            if port == PORT and at:
                self.numbers.add(struct.unpack_from("!Q", frame, at)[0])

    def missing(self):
        self.read()
        return max(self.numbers) - min(self.numbers) + 1 - len(self.numbers) if self.numbers else 0


class FullSocket(Hosts):
    HOSTS = 8  # 16 pushes on their way to each are more than the buffer holds

    def counters(self, daemon):
        return daemon.call("GET", "/v1/status")["counters"]["gossip"]

    def make_networks(self, daemon):
        """Their definitions are pushed to all."""
        def some(first):
            for i in range(first, NETWORKS, ASK_AT_ONCE):
                daemon.call("POST", "/v1/networks", {"name": f"n{i}"})
        threads = [threading.Thread(target=some, args=(first,)) for first in range(ASK_AT_ONCE)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

    def test_bulk_is_dropped_and_no_probe(self):
        slow = self.daemons[0]
        slow.host.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "1mbit", "burst", "5kb", "limit", "4mb")
        sent, before = Sent(slow.host), self.counters(slow)
        self.addCleanup(sent.sock.close)
        self.make_networks(slow)
        for d in self.daemons:
            wait_for(lambda d=d: len(d.call("GET", "/v1/networks")["networks"]) == NETWORKS, 30, f"{d.host.name} knows all networks")

        def gone(name):
            return self.counters(slow)[name] - before[name]
        wait_for(lambda: sent.missing() == gone("sends_dropped") + gone("streamed_out"), 20, "what is missing is what was dropped")
        print(f"# {gone('sends_waited')} waited, {gone('sends_dropped')} dropped of {gone('packets_out')}", flush=True)
        self.assertGreater(gone("sends_dropped"), 0)
        self.assertGreater(gone("sends_waited"), 0)
        self.assertEqual(gone("sends_lost"), 0)
        for d in self.daemons:
            self.assertEqual(self.counters(d)["deaths"], 0, d.host.name)
            self.assertEqual(d.complaints(), [])
        Daemon.wait_members(self.daemons)


if __name__ == "__main__":
    unittest.main()

"""A hostile stranger on the underlay, at the full rate of one core: overheard packets again, forged, cut short, sent back, sealed with
another key, of boots that never were, and noise.

Nothing may come of it: nobody is suspected, memory stays where it was, containers lose no packet, and the counters say what was refused.
Six seconds of each; sixty with TRESTLE_LONG=1. tests/load/flood.c makes the packets.
"""
import os
import re
import select
import socket
import threading
import time
import unittest

from tests.lab import BUILD, Daemon, Failed, Lab, Runtime, wait_for
from tests.lab.daemon import PORT
from tests.net.hosts import LONG

ETH_P_ALL = 3
UDP = 17
SECONDS = 60 if LONG else 6
MEMBERS = 5
OVERHEARD = 60
RSS_SLACK = 1 << 20
CHANGE = re.compile(r"cluster: host \S+ \(number \d+\) is \w+, was \w+")
# What each kind is refused as, at those it was sent to. Of two, either: what was overheard long ago is behind the window of counters,
# which is looked at before the key.
COUNTERS = {"replay": ["refused_replay"], "forge": ["refused_key"], "boot": ["refused_boot"], "truncate": ["refused_short", "refused_key refused_replay"],
            "reflect": ["refused_sender"], "wrongkey": ["refused_key"], "noise": ["refused_version"]}


class Hostile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.flood = os.path.join(BUILD, "tests/load/flood")
        if not os.path.exists(cls.flood):
            raise Failed(f"{cls.flood} is not there: run make load first")
        cls.lab = Lab(hosts=MEMBERS + 2).open()
        cls.addClassCleanup(cls.lab.close)
        cls.stranger = cls.lab.hosts[-1]
        cls.daemons = [Daemon(h, log_level="info") for h in cls.lab.hosts[:MEMBERS]]
        Daemon.cluster(cls.daemons)
        cls.complained = [len(d.complaints()) for d in cls.daemons]
        cls.one, cls.two = [Runtime(d, *d.plugin().create_network("app", "10.9.0.0/24")) for d in cls.daemons[:2]]
        cls.a, cls.b = cls.one.attach(), cls.two.attach()
        wait_for(lambda: cls.one.ping(cls.a, cls.b.ip), 5, "containers reach each other")
        cls.overheard = cls.overhear(cls.taps())

    @classmethod
    def taps(cls):
        sockets = [d.host.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) for d in cls.daemons]
        for s in sockets:
            s.bind(("eth0", ETH_P_ALL))
        return sockets

    @classmethod
    def overhear(cls, sockets, name="overheard", count=OVERHEARD, wanted=lambda payload: payload[0] & 15 < 4):
        """Gossip on its way between members, as flood wants it: what a stranger sees who taps the switch."""
        path = os.path.join(cls.lab.dir, name)
        try:
            with open(path, "wb") as out:
                deadline = time.monotonic() + 120
                while count > 0:
                    for s in select.select(sockets, [], [], max(0, deadline - time.monotonic()))[0]:
                        frame = s.recv(2048)
                        payload = frame[42:14 + int.from_bytes(frame[16:18], "big")]
                        if frame[12:14] == b"\x08\x00" and frame[23] == UDP and frame[36:38] == PORT.to_bytes(2, "big") and wanted(payload):
                            out.write(frame[26:34] + frame[34:38] + len(payload).to_bytes(2, "big") + payload)
                            count -= 1
                    if time.monotonic() > deadline:
                        raise Failed(f"{count} packets more wanted for {name}")
        finally:
            for s in sockets:
                s.close()
        return path

    def status(self):
        return [d.call("GET", "/v1/status") for d in self.daemons]

    def changes(self):
        return sum(len(CHANGE.findall(d.log_text())) for d in self.daemons)

    def attack(self, mode, overheard=None):
        """Floods, watches, and compares; (packets sent, {counter: how much more over all members})."""
        before, said = self.status(), self.changes()
        self.members = before[0]["members"]
        self.assertEqual(self.members["alive"], MEMBERS)
        pings = self.one.ping_steadily(self.a, self.b.ip)
        flood = self.stranger.start(self.flood, mode, SECONDS, overheard or self.overheard, name=f"flood-{mode}")
        while flood.alive():
            for status in self.status():
                self.assertEqual(status["members"], self.members, f"{status['name']} under {mode}")
            time.sleep(0.2)
        self.assertEqual(flood.wait(), 0, flood.tail())
        lost, answered = pings.lost()
        after = self.status()
        self.assertEqual(lost, [], f"of {answered + len(lost)} pings under {mode}")
        self.assertEqual(self.changes(), said, "somebody's state changed")
        more = {}
        for b, a in zip(before, after):
            self.assertLess(a["rss_bytes"] - b["rss_bytes"], RSS_SLACK, f"{a['name']} grew under {mode}")
            self.assertEqual((a["epoch"], a["hostno"]), (b["epoch"], b["hostno"]))
            for name, value in a["counters"]["gossip"].items():
                more[name] = more.get(name, 0) + value - b["counters"]["gossip"][name]
        for name in ("suspicions", "deaths", "refutations", "conflicts", "records_refused"):
            self.assertEqual(more[name], 0, f"{name} under {mode}")
        sent = int(flood.tail().split()[1])
        refused = {k: v for k, v in more.items() if k.startswith("refused_") and v}
        print(f"# {mode}: {sent / SECONDS:.0f} packets/s sent, {sum(refused.values()) / SECONDS:.0f} refused: {refused}, "
              f"{more['packets_in'] - sum(refused.values())} taken, {answered} pings answered", flush=True)
        return sent, refused

    def test_it_all_comes_to_nothing(self):
        for mode, counters in COUNTERS.items():
            with self.subTest(mode=mode):
                sent, refused = self.attack(mode)
                self.assertGreater(sent, 1000 * SECONDS, "no flood")
                for name in counters:
                    self.assertGreater(sum(refused.get(n, 0) for n in name.split()), 100 * SECONDS, f"{mode} is counted as {name}: {refused}")
        for d, old in zip(self.daemons, self.complained):
            self.assertEqual(d.complaints()[old:], [])
        # And the cluster works.
        c = self.two.attach()
        wait_for(lambda: self.one.ping(self.a, c.ip), 5, "a new container is reached")

    def hold_places(self, sockets, count=80):
        """The stranger keeps so many connections to each member, and says nothing on them. Returns how many it had to make anew."""
        made = 0
        for d in self.daemons:
            mine = sockets.setdefault(d.host.name, [])
            for s in mine[:]:
                try:
                    gone = s.recv(1) == b""
                except BlockingIOError:
                    gone = False
                except OSError:
                    gone = True
                if gone:
                    mine.remove(s)
                    s.close()
            while len(mine) < count:
                s = self.stranger.socket(socket.AF_INET, socket.SOCK_STREAM)
                s.setblocking(False)
                s.connect_ex((d.host.address, PORT))
                mine.append(s)
                made += 1
        return made

    def test_connections_that_say_nothing_keep_nobody_out(self):
        """A member that UDP does not reach lives by streams. Whoever can open connections must not be able to cut it off."""
        deaf = self.daemons[-1].host
        deaf.run("nft", "-f", "-", stdin="""add table ip deaf; add chain ip deaf input { type filter hook input priority 0; }
            add rule ip deaf input ip protocol udp drop""")
        sockets = {}

        def stop():
            deaf.run("nft", "delete", "table", "ip", "deaf")
            for s in [s for mine in sockets.values() for s in mine]:
                s.close()
            wait_for(lambda: all(s["members"]["alive"] == MEMBERS for s in self.status()), 30, "all are alive again")
        self.addCleanup(stop)
        streamed = self.status()[-1]["counters"]["gossip"]["streamed_in"]
        wait_for(lambda: self.status()[-1]["counters"]["gossip"]["streamed_in"] > streamed + 10 * MEMBERS, 30, "it lives by streams")
        wait_for(lambda: all(s["members"]["alive"] == MEMBERS for s in self.status()), 10, "nobody is suspected")
        said, made = self.changes(), 0
        end = time.monotonic() + 8  # without a place it is dead after five
        while time.monotonic() < end:
            made += self.hold_places(sockets)
            time.sleep(0.02)
            for status in self.status():
                self.assertEqual(status["members"]["dead"], 0, f"for {status['name']}")
        print(f"# {made} connections of a stranger, {self.changes() - said} changes of a state", flush=True)
        self.assertGreater(made, 80 * MEMBERS, "no place was taken from the stranger")

    def test_a_join_again_and_again(self):
        """A host's own request to join, with a token that is good: its answer costs the sponsor more than any other packet does."""
        late = Daemon(self.lab.hosts[MEMBERS], log_level="info")
        paths, taps = [], self.taps()
        tap = threading.Thread(target=lambda: paths.append(self.overhear(taps, "join", 1, lambda payload: payload[:2] == b"\x1f\x01")))
        tap.start()
        late.join(self.daemons[0])
        tap.join()
        late.trestle("leave")
        late.stop()
        for d in self.daemons:
            wait_for(lambda d=d: d.call("GET", "/v1/status")["members"]["alive"] == MEMBERS, 10, f"{d.host.name} knows that one left")
        self.attack("replay", paths[0])


if __name__ == "__main__":
    unittest.main()

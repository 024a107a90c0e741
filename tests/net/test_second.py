"""docs/wire.md is complete: a second implementation, written from it alone (tests/lab/secondpeer.py), lives among real daemons."""
import math
import os
import socket
import time
import unittest

from tests.lab import ROOT, Daemon, Lab, Runtime, wait_for, wire
from tests.lab.daemon import PORT
from tests.lab.secondpeer import SecondPeer
from tests.lab.wire import Addr

CLUSTER_KEY, CLUSTER_ID = wire.Key(bytes(range(32))), b"\xcc" * 16
SPONSOR, JOINER = wire.Identity(b"\x01" * 32), wire.Identity(b"\x02" * 32)
JOINER_BOOT, SPONSOR_BOOT = 0x0102030405060708, 0x1112131415161718


class Vectors(unittest.TestCase):
    """What the second implementation makes is what the document says."""

    @classmethod
    def setUpClass(cls):
        with open(os.path.join(ROOT, "docs/wire.md")) as f:
            cls.document = "".join(f.read().partition("## Test vectors")[2].split())

    def documented(self, made):
        self.assertIn(made if isinstance(made, str) else made.hex(), self.document)

    def joiner(self):
        secret = wire.token_secret(CLUSTER_KEY.secret, b"\x70" * 16, 2000)
        token = wire.Token(CLUSTER_ID, b"\x70" * 16, 2000, secret, [Addr("192.0.2.1", 7946)])
        return wire.Joiner(token, JOINER, "gamma", JOINER_BOOT, Addr("198.51.100.7", 7946), secret=b"\x42" * 32)

    def test_frames(self):
        sender = wire.Peer(b"\x0a" * 16, 0xaaaaaaaa11111111)
        receiver = b"\x14" * 16
        self.documented(CLUSTER_KEY.frame_key)
        frame = wire.frame_seal(CLUSTER_KEY, CLUSTER_ID, sender, 10, 1, receiver, wire.PUSH, b"text")
        self.documented(frame)
        self.assertEqual(wire.frame_open(CLUSTER_KEY, CLUSTER_ID, sender, receiver, frame), b"text")
        hello = wire.hello_seal(CLUSTER_KEY, CLUSTER_ID, sender, 10, 2, receiver, 0x1111, 0x2222)
        self.documented(hello)
        self.assertEqual(wire.hello_open(CLUSTER_KEY, CLUSTER_ID, sender.id, receiver, hello), (sender.boot, 2, 0x1111, 0x2222))

    def test_token(self):
        secret = wire.token_secret(b"\1\2\3\4" + bytes(28), b"\x70" * 16, 1800000000)
        token = wire.Token(b"\xc1" * 16, b"\x70" * 16, 1800000000, secret, [Addr("192.0.2.1", 7946), Addr("2001:db8::1", 17946)])
        words = wire.token_write(token)
        self.documented(words)
        self.assertEqual(wire.token_read(words), token)
        with self.assertRaises(wire.Bad):
            wire.token_read(words[:60] + ("A" if words[60] != "A" else "B") + words[61:])

    def test_joining(self):
        joiner = self.joiner()
        self.documented(joiner.token.secret)
        self.documented(wire.blake2b(joiner.packet))
        alpha = wire.Member(1, SPONSOR.key, 3, Addr("192.0.2.1", 7946), "192.0.2.1", "alpha")
        self.documented(wire.member_bytes(alpha))
        admission = wire.Admission(300, JOINER.key, "gamma", Addr("198.51.100.7", 7946), "", JOINER_BOOT, 1, b"")
        admission = admission._replace(signature=SPONSOR.sign(wire.admission_signed(admission, CLUSTER_ID)))
        self.documented(wire.admission_bytes(admission))
        self.assertEqual(wire.admission_read(wire.admission_bytes(admission)), admission)
        welcome = self.welcome(joiner, alpha, admission)
        self.assertEqual(len(welcome), 293)
        self.documented(wire.blake2b(welcome))
        taken = joiner.answer(welcome)
        self.assertEqual((taken.hostno, taken.key, taken.members, taken.vouched), (300, CLUSTER_KEY, [alpha], True))
        refused = bytes.fromhex("1f03000000" + "44" * 24 + "f92c556cc4e439eb492f40e1fa0d51d4a9")
        self.documented(refused)
        with self.assertRaises(wire.Refusal) as caught:
            joiner.answer(refused)
        self.assertEqual(caught.exception.reason, 6)

    def test_sketch(self):
        """The hash of an item, and the symbols that it is in."""
        item = wire.u64(0x0102030405060708) + wire.u24(10) + b"\1" + (3).to_bytes(4, "big") + wire.u64(300)
        state = value = wire.sip64(item, bytes(range(1, 17)))
        self.documented(f"hash{value:016x}")
        at, symbols = 0, []
        while at < 20:
            symbols.append(at)
            state = (state * 0xda942042e4dd58b5 + 1) % (1 << 64)
            f = math.isqrt(((1 << 64) - 1) // ((state >> 32) + 1))
            at += max(1, ((2 * at + 3) * (f - 65536) + 131071) >> 17)
        self.documented("inthesymbols" + ",".join(map(str, symbols[:-1])) + f"and{symbols[-1]}")

    def welcome(self, joiner, sponsor, admission):
        """As the sponsor makes it."""
        secret, boot, token = b"\x43" * 32, wire.u64(SPONSOR_BOOT), joiner.token
        public = wire.x25519(secret)
        head = wire.PREFIX + bytes([wire.WELCOME, 0, 0, 0]) + public + boot
        plain = CLUSTER_KEY.secret + b"\1" + wire.u24(admission.hostno) + wire.addr_bytes(admission.addr) + wire.ip_bytes(admission.vtep)
        plain += admission.signature + b"\1" + b"\1" + wire.member_bytes(sponsor)
        plain += SPONSOR.sign(b"trestle welcome 1" + CLUSTER_ID + token.id + joiner.public + public + boot + JOINER.id + plain)
        key = wire.H(token.secret, b"trestle welcome 1" + wire.x25519(secret, joiner.public) + joiner.public + public)
        return head + wire.seal(key, bytes(24), head + CLUSTER_ID + token.id, plain)


class Second(unittest.TestCase):
    """Two daemons, and the second implementation on a third host."""

    def setUp(self):
        self.lab = Lab(hosts=3).open()
        self.addCleanup(self.lab.close)
        self.home = self.lab.hosts[2]
        self.daemons = [Daemon(h) for h in self.lab.hosts[:2]]
        Daemon.cluster(self.daemons)
        self.peer = self.make_peer()

    def make_peer(self, **options):
        peer = SecondPeer("second", lambda kind: self.home.socket(socket.AF_INET, kind), Addr(self.home.address, PORT), **options)
        self.addCleanup(self.end_peer, peer)
        return peer

    def end_peer(self, peer):
        peer.close()
        self.assertIsNone(peer.crash)

    def join(self):
        self.peer.join(self.daemons[0].token())
        self.wait_state("alive")

    def row(self, daemon):
        return next(m for m in daemon.call("GET", "/v1/members")["members"] if m["name"] == "second")

    def wait_state(self, state):
        for d in self.daemons:
            wait_for(lambda d=d: self.row(d)["state"] == state, 10, lambda d=d: f"{d.host.name} sees it {state}: {self.story()}")

    def story(self):
        return {o.name: (o.belief, o.boot, o.topics) for o in self.peer.others.values()}, self.peer.counts

    def counters(self, daemon):
        return daemon.call("GET", "/v1/status")["counters"]["gossip"]

    def wait_same(self):
        """Both daemons have, at this moment, the root that we have of what we share, and the same table of members."""
        def same(other):
            other.root = None
            self.peer.ask_root(other.hostno)
            wait_for(lambda: other.root is not None, 1, "an answer to ROOT", every=0.002)
            return other.root == self.peer.root(other) != 0 and other.members == self.peer.members_sum()
        for other in list(self.peer.others.values()):
            wait_for(lambda o=other: same(o), 10,
                     lambda o=other: f"the root of {o.name}: {o.root}, here {self.peer.root(o)}, {self.story()}")

    def network(self, name="app"):
        """On both hosts; its Runtimes, and its topic."""
        runtimes = [Runtime(d, *d.plugin().create_network(name, "10.9.0.0/24")) for d in self.daemons]
        network_id = bytes.fromhex(self.daemons[0].call("GET", "/v1/networks/" + name)["id"])
        return runtimes, wire.network_topic(network_id), network_id

    def endpoints(self, topic):
        """Those that the peer has, by address, from whomever."""
        with self.peer._lock:
            found = {}
            for (t, origin), shard in self.peer.shards.items():
                for key, value in shard.live().items():
                    if t == topic and key[:1] == b"E":
                        e = wire.endpoint_read(value)
                        found[e.ipv4] = (origin, e.mac, e.short_id, key)
            return found

    def wait_endpoints(self, topic, containers):
        want = {c.ip: (hostno, c.mac, c.endpoint_id[:12], wire.endpoint_key(c.endpoint_id)) for hostno, c in containers}
        wait_for(lambda: self.endpoints(topic) == want, 5, lambda: f"{want}, not {self.endpoints(topic)}: {self.story()}")

    def test_lives_among_them(self):
        (one, two), topic, network_id = self.network()
        first = one.attach()
        self.join()
        for d in self.daemons:
            row = self.row(d)
            self.assertEqual((row["hostno"], row["host_id"], row["address"], row["epoch"]),
                             (self.peer.hostno, self.peer.identity.id.hex(), f"{self.home.address}:{PORT}", 1))
            wait_for(lambda d=d: self.row(d)["reach"] == "both", 5, "it is heard")
        # By the rings one of the two pings it all the time, the other seldom.
        wait_for(lambda: any(self.row(d)["answered_ms"] is not None for d in self.daemons), 10, "it answers their pings")
        for other in self.peer.others.values():
            wait_for(lambda o=other: o.acks, 5, f"{other.name} answers its pings")
        self.ping_by_stream()
        self.wait_same()
        # What everybody keeps is there without a subscription, and can be read.
        network = wire.network_read(self.peer.shards[0, 1].live()[b"N" + network_id])
        self.assertEqual((network.name, network.pools, network.creator), ("app", ["10.9.0.0/24"], 1))
        self.read_pool("10.9.0.0/24")
        self.claim(self.peer.shards[0, 1].live()[b"N" + network_id])
        self.assertEqual(self.endpoints(topic), {})
        self.peer.subscribe(topic)
        self.wait_endpoints(topic, [(1, first)])
        second = two.attach()  # pushed
        self.wait_endpoints(topic, [(1, first), (2, second)])
        one.detach(first)
        self.wait_endpoints(topic, [(2, second)])
        self.wait_same()
        self.assertEqual([self.counters(d)[c] for d in self.daemons for c in ("suspicions", "refused_decode", "refused_key")], [0] * 6)
        self.assertTrue(self.peer.leave(), "its goodbye is acknowledged")
        self.wait_state("left")

    def read_pool(self, prefix):
        """The definition of a pool, and that its maker says what it holds of it."""
        pools = [wire.pool_read(v) for k, v in self.peer.shards[0, 1].live().items() if k[:1] == b"P"]
        pool = next(p for p in pools if p.prefix == prefix)
        self.assertEqual((pool.space, pool.creator, pool.wanted), (0, 1, 1))
        topic = int.from_bytes(pool.id[:8], "big") % wire.SUBSCRIBED
        self.assertEqual(self.peer.shards[topic, 1].live()[b"C" + pool.id + b"\0"][:2], b"\1\1", "format, and that it wants the pool")

    def claim(self, definition):
        """What exists is the answer to a claim, whatever was claimed; what does not is given to who asks first."""
        for name, mine, counts in (("n:app", b"\1other", definition), ("n:new", b"\1mine", b"\1mine")):
            xid = self.peer.claim(1, name, mine)
            wait_for(lambda: xid in self.peer.answers, 5, f"an answer to the claim of {name}")
            self.assertEqual(self.peer.answers[xid], (1, counts))

    def ping_by_stream(self):
        """While it neither hears nor speaks by UDP."""
        self.peer.mute = True
        acks, streamed = self.peer.others[1].acks, self.counters(self.daemons[0])["streamed_out"]
        self.peer.ping_by_stream(1)
        self.assertEqual(self.peer.others[1].acks, acks + 1)
        # The second is a ping of its own: whether UDP passes at all.
        self.assertGreater(self.counters(self.daemons[0])["streamed_out"], streamed)
        self.peer.mute = False

    def test_publishes(self):
        """An endpoint of ours is one of the network's for the daemons, until it is deleted."""
        _, topic, _ = self.network()
        self.join()
        self.peer.subscribe(topic)
        endpoint_id = "5ec0" * 16
        endpoint = wire.Endpoint(endpoint_id[:12], "02:00:00:00:5e:c0", "10.9.0.77", "", int(time.time()))
        self.peer.publish(topic, wire.endpoint_key(endpoint_id), wire.endpoint_bytes(endpoint))

        def seen(daemon):
            return [(e["host"], e["mac"], e["vtep"], e["state"]) for e in daemon.endpoints("app") if e["ipv4"] == "10.9.0.77"]
        for d in self.daemons:
            wait_for(lambda d=d: seen(d) == [("second", endpoint.mac, self.home.address, "up")], 5,
                     lambda d=d: f"{seen(d)} {self.story()}")
        self.wait_same()
        wait_for(lambda: not any(o.pushes for o in self.peer.others.values()), 5, "all is acknowledged")
        self.peer.publish(topic, wire.endpoint_key(endpoint_id), None)
        for d in self.daemons:
            wait_for(lambda d=d: seen(d) == [], 5, "it is gone")
        self.wait_same()

    def test_catches_up(self):
        """What was missed on both sides is repaired by comparison, and a suspicion that came of the silence is refuted."""
        (one, _), topic, _ = self.network()
        self.join()
        self.peer.subscribe(topic)
        gone = one.attach()
        self.wait_endpoints(topic, [(1, gone)])
        self.peer.mute = True
        one.detach(gone)
        kept = [one.attach() for _ in range(3)]
        self.peer.publish(0, b"zebra", b"stripes")
        self.wait_state("suspect")
        self.peer.mute = False
        self.wait_endpoints(topic, [(1, c) for c in kept])
        self.wait_same()
        self.wait_state("alive")
        self.assertGreater(self.peer.incarnation, 0)
        self.assertGreater(self.peer.counts.get("Pull", 0) + self.peer.counts.get("Vector", 0), 0, self.peer.counts)
        self.assertEqual([self.row(d)["incarnation"] for d in self.daemons], [self.peer.incarnation] * 2)

    def test_restarts(self):
        """Boot tags that nobody knows are met with hellos: a daemon's, which keeps its epoch and asks how it stands, and our own."""
        self.join()
        self.wait_same()
        self.daemons[1].restart()
        wait_for(lambda: self.peer.counts.get("hello established") and self.peer.counts.get("Recall"), 10, self.story)
        Daemon.wait_members(self.daemons, 3)
        self.wait_same()
        # The third process does not know what the second said in that epoch, and says something else. What it says before its boot is
        # established does not arrive, and heads alone do not tell.
        for seen, word in ((2, b"one"), (3, b"other")):
            self.peer.close()
            self.peer = self.make_peer(identity=self.peer.identity, epoch=2)
            self.assertFalse(self.peer.join(self.daemons[0].token()).vouched)
            for other in list(self.peer.others.values()):
                wait_for(lambda o=other: o.acks, 10, lambda o=other: f"{o.name} answers: {self.story()}")
            self.peer.publish(0, b"zebra", word)
            for d in self.daemons:
                wait_for(lambda d=d: (self.row(d)["state"], self.row(d)["epoch"]) == ("alive", seen), 10, self.story)
            self.wait_same()

    def test_takes_a_new_key(self):
        self.join()
        self.wait_same()
        self.daemons[0].trestle("keys", "rotate")
        wait_for(lambda: len(self.peer.keys) == 2, 5, "it was handed the key")
        handed = self.peer.keys.pop()
        self.peer.recover_keys(1)
        self.assertEqual(self.peer.keys[1:], [handed], "asked for, it comes by the other way too")
        self.peer.use_newest_key()
        self.assertNotEqual(self.peer.active.generation, 1)
        wait_for(lambda: all(len(d.trestle("keys", "ls")["keys"]) == 1 for d in self.daemons), 10, "the old key is gone everywhere")
        self.wait_same()

    def test_wrong_frames_are_refused(self):
        """Everything that the nonce and the additional data hold is checked: what differs in one of them is counted and not opened."""
        self.peer.join(self.daemons[0].token(), stream=False)
        self.wait_state("alive")
        self.wait_same()
        peer, d = self.peer, self.daemons[1]
        acks = peer.others[2].acks
        peer.forge(2)
        wait_for(lambda: peer.others[2].acks > acks, 5, "the right one is answered")
        swapped = peer.identity.id[8:] + peer.identity.id[:8]
        wrong = [
            ("refused_key", {"key": wire.Key(b"\x55" * 32)}),
            ("refused_key", {"key": peer.active._replace(generation=2)}),
            ("refused_key", {"cluster_id": bytes(16)}),
            ("refused_key", {"receiver_id": peer.others[1].id}),
            ("refused_key", {"sender": wire.Peer(swapped, peer.boot)}),
            ("refused_key", {"sender": wire.Peer(peer.identity.id, peer.boot ^ 1 << 63)}),
            ("refused_boot", {"sender": wire.Peer(peer.identity.id, peer.boot ^ 1)}),
            ("refused_replay", {"counter": 0}),
            ("refused_sender", {"hostno": 77}),
            ("refused_sender", {"hostno": 0}),
            ("refused_version", {"cls": 9}),
            ("refused_decode", {"plain": b"\x01\x01x"}),
        ]
        for counter, change in wrong:
            with self.subTest(counter=counter, change=list(change)):
                before = self.counters(d)[counter]
                peer.forge(2, **change)
                wait_for(lambda: self.counters(d)[counter] == before + 1, 5, f"{counter} counts it", every=0.01)
        before = self.counters(d)["refused_replay"]
        packet = peer.forge(2)
        peer.send_raw(2, packet)
        wait_for(lambda: self.counters(d)["refused_replay"] == before + 1, 5, "the second of two is a replay")
        self.assertEqual(self.row(d)["state"], "alive")

    def test_expired_token(self):
        token = self.daemons[0].call("POST", "/v1/token", {"ttl_s": 1})
        wait_for(lambda: time.time() > token["expires_s"] + 1, 5, "the token's end")
        with self.assertRaises(wire.Refusal) as caught:
            self.peer.join(token["token"], timeout=1)
        self.assertEqual(caught.exception.reason, 6)
        self.assertEqual(len(self.daemons[0].call("GET", "/v1/members")["members"]), 2)


if __name__ == "__main__":
    unittest.main()

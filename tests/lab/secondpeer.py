"""A second implementation of a member, written from docs/wire.md alone: enough of it to live in a cluster of trestled hosts.

It joins with a token (by TCP or UDP), answers and sends pings, helps to probe, refutes, takes and publishes records, compares and
repairs, takes keys, asks for keys, raises its epoch when it was set back, and leaves. It has no containers and gives no addresses, keeps
nothing on disk, and takes no streams. What the document leaves to a host (rings, Lifeguard, pacing, relaying, sketches:
docs/membership.md) is done plainly or not at all. One thread; every public method may be called from another. The bytes are in wire.py.
"""
import secrets
import select
import socket
import struct
import threading
import time

from . import wire
from .wire import ALIVE, LEFT, MEMBERSHIP, PROBE, PUSH, REPAIR, SUSPECT, Bad, Batch, Entry, Head, Identity, Record

LAST = ((1 << 64) - 1, (1 << 24) - 1)  # the end of all shards in a VECTOR
ROOM = wire.PACKET_MAX - wire.FRAME_MIN
BODY = ROOM - 3  # one message with a length of two bytes
PERIOD_S = 0.5  # shorter than a daemon's, so that a test need not wait
PATIENCE_S = 0.3  # roots that differ for so long lead to a VECTOR
ASK_OPEN_S = 5.0
ASK_GAP_S = 0.1
RETRIES_S = (0.015, 0.030, 0.060)  # of a push
NO_NUMBER = 9  # the reason of a REFUSED after which the joiner asks again
ANSWER_MAX = 8  # packets for one shard
EARLY_S = 2.0  # an entry waits so long for its admission


class Shard:
    """One copy, or one of our own. Deletions stay, as records without a value."""

    def __init__(self, epoch):
        self.epoch, self.head, self.floor, self.settled = epoch, 0, 0, 0
        self.records = {}  # key: Record
        self.ranges = []   # (from, to) seen ahead of head
        self.listing = None  # progress, floor and keys of a listing that comes

    def live(self):
        return {k: r.value for k, r in self.records.items() if r.value is not None}


class Other:
    """What we know of another member."""

    def __init__(self, hostno, host_key, name, addr):
        self.hostno, self.key, self.name, self.addr = hostno, host_key, name, addr
        self.id = wire.host_id(host_key)
        self.epoch, self.incarnation, self.state = 0, 0, ALIVE
        self.told_boot = 0
        self.boot, self.highest, self.seen, self.least = None, 0, set(), 0
        self.ask, self.ask_at = 0, -ASK_OPEN_S
        self.heard = False
        self.acks = 0  # of our pings
        self.root, self.members, self.differs_since, self.busy_until = None, None, None, 0
        self.pushes = []  # [batch, tries, when next]
        self.mark = None
        self.topics = frozenset()

    @property
    def belief(self):
        return self.epoch, self.incarnation, self.state

    def entry(self):
        return Entry(self.hostno, self.state, self.epoch, self.incarnation)

    def establish(self, boot, counter):
        self.boot, self.highest, self.seen, self.least = boot, counter, set(), counter

    def fresh(self, counter):
        return counter > self.least and counter not in self.seen and counter + wire.WINDOW > self.highest

    def note(self, counter):
        self.highest = max(self.highest, counter)
        self.seen = {c for c in self.seen if c + wire.WINDOW > self.highest} | {counter}


class SecondPeer:
    def __init__(self, name, make_socket, listen, identity=None, epoch=1):
        """make_socket(type) makes a socket where the peer lives; listen is the address that it takes packets at. A process that comes
        after another one of the same host has its identity, and a higher epoch."""
        self.name, self.listen = name, listen
        self._make_socket = make_socket
        self.identity = identity or Identity()
        self.boot = secrets.randbits(64)
        self.hostno, self.epoch, self.incarnation, self.state = 0, epoch, 0, ALIVE
        self.counter, self.seq = 0, 0
        self.cluster_id, self.keys, self.active = None, [], None
        self.others, self.shards, self.topics = {}, {}, frozenset()
        self.counts = {}
        self.answers = {}  # to claims: xid: (settled, definition)
        self.mute = False  # neither hears nor speaks, as behind a cut
        self._early = {}  # hostno: (entry, when) of hosts not known yet
        self._admissions = {}  # of sponsors not known yet
        self._probes = {}  # seq of a ping: (hostno, what to do when it answers, what to do else, until)
        self._turn, self._next_probe, self._heads_at = 0, 0, None
        self._to_greet = None  # a sponsor that did not vouch for us, until it has answered a ping
        self._lock, self._ended = threading.RLock(), threading.Event()
        self._udp = make_socket(socket.SOCK_DGRAM)
        self._udp.bind((listen.ip, listen.port))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.crash = None

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    # Admission

    def join(self, token, stream=True, timeout=10):
        """Asks the token's seeds until one answers WELCOME, by TCP or by UDP; then lives."""
        joiner = wire.Joiner(wire.token_read(token), self.identity, self.name, self.boot, self.listen)
        deadline, gap = time.monotonic() + timeout, 0.2
        while True:
            refused = []
            for seed in joiner.token.seeds:
                try:
                    packet = self._ask_stream(seed, joiner.packet) if stream else self._ask_datagram(seed, joiner.packet, gap)
                    if packet:
                        return self._begin(joiner, joiner.answer(packet))
                except wire.Refusal as e:
                    refused.append(e)
                except OSError:
                    time.sleep(gap)
            if time.monotonic() > deadline or (len(refused) == len(joiner.token.seeds) and all(r.reason != NO_NUMBER for r in refused)):
                raise refused[0] if refused else TimeoutError("no seed answers")
            gap = min(2.0, 2 * gap)

    def _ask_stream(self, seed, packet):
        with self._make_socket(socket.SOCK_STREAM) as s:
            s.settimeout(5)
            s.connect(tuple(seed))
            s.sendall(struct.pack(">H", len(packet)) + packet)
            got = b""
            while len(got) < 2 or len(got) < 2 + int.from_bytes(got[:2], "big"):
                more = s.recv(2048)
                if not more:
                    return None
                got += more
            return got[2:]

    def _ask_datagram(self, seed, packet, gap):
        self._udp.sendto(packet, tuple(seed))
        return self._udp.recv(2048) if select.select([self._udp], [], [], gap)[0] else None

    def _begin(self, joiner, welcome):
        self.cluster_id, self.hostno = joiner.token.cluster_id, welcome.hostno
        self.keys = [welcome.key]
        self.active = welcome.key
        for m in welcome.members:
            if m.hostno == self.hostno:
                continue  # somebody knows an earlier process of ours
            other = self._meet(m.hostno, m.host_key, m.name, m.addr)
            other.epoch = max(other.epoch, m.epoch)
        sponsor = self.others[welcome.members[0].hostno]
        if welcome.vouched:
            sponsor.establish(welcome.sponsor_boot, 0)
            self._greet(sponsor)
        else:  # another process had this identity: the others have to hear of this one's boot tag
            self.boot = secrets.randbits(64)
            self.publish_host_record()
            self._to_greet = sponsor
            self._ask_boot(sponsor)
            self._heads_at = time.monotonic() + 1
        self.publish(0, b"k", wire.keys_record(self.keys, self.active))
        self._thread.start()
        return welcome

    def _greet(self, sponsor):
        self._send(sponsor, MEMBERSHIP, wire.Members(0, [self.entry()]), *self._vectors(sponsor))

    def publish_host_record(self):
        record = wire.HostRecord(self.identity.id, self.listen, self.listen.ip, self.name, self.boot)
        self.publish(0, b"h", wire.host_record_bytes(record))

    # Sending

    def entry(self):
        return Entry(self.hostno, self.state, self.epoch, self.incarnation)

    def _next_counter(self):
        self.counter += 1
        return self.counter

    @property
    def me(self):
        return wire.Peer(self.identity.id, self.boot)

    def _send(self, other, cls, *messages):
        """As many frames as it takes; a message is never split."""
        plain = b""
        for message in map(wire.message_bytes, messages):
            if len(plain) + len(message) > ROOM:
                self._frame(other, cls, plain)
                plain = b""
            plain += message
        self._frame(other, cls, plain)

    def _frame(self, other, cls, plain):
        self._out(other, wire.frame_seal(self.active, self.cluster_id, self.me, self.hostno, self._next_counter(), other.id, cls, plain))

    def _out(self, other, packet):
        if self.mute:
            return
        try:
            self._udp.sendto(packet, tuple(other.addr))
        except OSError:
            self.count("unsent")

    def forge(self, to, **wrong):
        """A PING to a member, sealed with something that is not as it should be; without `wrong` a good one."""
        with self._lock:
            other = self.others[to]
            counter = self._next_counter()
            right = {"key": self.active, "cluster_id": self.cluster_id, "sender": self.me, "hostno": self.hostno, "counter": counter,
                     "receiver_id": other.id, "cls": PROBE, "plain": wire.message_bytes(self._ping(self._await(other)))}
            packet = wire.frame_seal(**{**right, **wrong})
            self._out(other, packet)
            return packet

    def send_raw(self, hostno, packet):
        with self._lock:
            self._out(self.others[hostno], packet)

    # Receiving

    def _packet(self, packet):
        try:
            if not packet or packet[0] >> 4 != wire.VERSION:
                raise Bad("version")
            cls = packet[0] & 15
            if cls == wire.HELLO:
                return self._hello(packet)
            if cls in (PROBE, MEMBERSHIP, PUSH, REPAIR):
                return self._ordinary(packet)
            self.count("other class")
        except Bad as e:
            self.count(f"bad: {e}")

    def _sender(self, packet):
        other = self.others.get(int.from_bytes(packet[2:5], "big"))
        if other is None:
            raise Bad("sender")
        return other

    def _open(self, packet, opener, *args):
        for key in self.keys:
            if key.id == packet[1]:
                try:
                    return opener(key, self.cluster_id, *args, packet)
                except Bad:
                    continue
        raise Bad("key")

    def _ordinary(self, packet):
        if not wire.FRAME_MIN <= len(packet) <= wire.PACKET_MAX:
            raise Bad("length")
        other = self._sender(packet)
        if other.boot is None or other.boot & 0xffffffff != int.from_bytes(packet[5:9], "big"):
            if len(packet) >= wire.HELLO_SIZE:
                self._ask_boot(other)
            raise Bad("boot")
        counter = int.from_bytes(packet[9:17], "big")
        if not other.fresh(counter):
            raise Bad("replay")
        plain = self._open(packet, wire.frame_open, wire.Peer(other.id, other.boot), self.identity.id)
        other.note(counter)
        other.heard = True
        acks = []
        for message in wire.messages_read(plain):
            self.count(type(message).__name__)
            handle = self.HANDLERS.get(type(message))
            if handle:
                handle(self, other, message, acks)
        if acks:
            self._send(other, PROBE, wire.PushAck(1, acks[0].epoch, [(b.topic, self.shards[b.topic, other.hostno].head) for b in acks]))

    def _hello(self, packet):
        if len(packet) != wire.HELLO_SIZE:
            raise Bad("length")
        other = self._sender(packet)
        boot, counter, echo, ask = self._open(packet, wire.hello_open, other.id, self.identity.id)
        now = time.monotonic()
        if boot == other.boot:
            if not other.fresh(counter):
                raise Bad("replay")
            other.note(counter)
        if echo and echo == other.ask and now < other.ask_at + ASK_OPEN_S:
            other.ask = 0
            other.heard = True
            if boot != other.boot:
                other.establish(boot, counter)
                self.count("hello established")
            if other is self._to_greet:
                self._to_greet = None
                self._probe(other, lambda: self._greet(other))
        if ask:
            self._send_hello(other, ask, 0 if boot == other.boot else self._open_ask(other))

    def _open_ask(self, other):
        now = time.monotonic()
        if not other.ask or now >= other.ask_at + ASK_OPEN_S:
            other.ask, other.ask_at = secrets.randbits(64) or 1, now
        return other.ask

    def _ask_boot(self, other):
        if time.monotonic() >= other.ask_at + ASK_GAP_S:
            self._send_hello(other, 0, self._open_ask(other))

    def _send_hello(self, other, echo, ask):
        self._out(other, wire.hello_seal(self.active, self.cluster_id, self.me, self.hostno, self._next_counter(), other.id, echo, ask))

    # Members

    def _meet(self, hostno, host_key, name, addr):
        other = self.others.get(hostno)
        if other is None and hostno != self.hostno:
            other = self.others[hostno] = Other(hostno, host_key, name, addr)
            entry, when = self._early.pop(hostno, (None, 0))
            if entry and time.monotonic() < when + EARLY_S:
                self._believe(other, entry)
            for a in self._admissions.pop(hostno, []):
                self._admitted(a)
        return other

    def _admitted(self, a):
        """An admission, of which the sponsor may not be known yet. The first host is its own sponsor."""
        if a.hostno == self.hostno:
            return
        sponsor_key = a.host_key if a.sponsor == a.hostno else self.identity.key if a.sponsor == self.hostno else None
        if sponsor_key is None:
            if a.sponsor not in self.others:
                self._admissions.setdefault(a.sponsor, []).append(a)
                return
            sponsor_key = self.others[a.sponsor].key
        wire.verify(a.signature, wire.admission_signed(a, self.cluster_id), sponsor_key)
        other = self._meet(a.hostno, a.host_key, a.name, a.addr)
        if not other.told_boot:
            other.told_boot = a.boot
            self._trust_told(other, other.epoch == 1)

    def _trust_told(self, other, so):
        """This host never ran in this cluster before, so no packet of that boot to it exists that somebody could repeat."""
        if so and other.told_boot and other.boot is None and not other.heard:
            other.establish(other.told_boot, 0)

    def _believe(self, other, entry):
        if (entry.epoch, entry.incarnation, entry.state) <= other.belief:
            return
        other.epoch, other.incarnation, other.state = entry.epoch, entry.incarnation, entry.state
        self._trust_told(other, entry.epoch == 1)

    def _on_members(self, other, message, _):
        better = []
        for entry in message.entries:
            known = self.others.get(entry.hostno)
            if entry.hostno == self.hostno:
                self._about_me(entry)
            elif known is None:
                self._early[entry.hostno] = (entry, time.monotonic())
            elif (entry.epoch, entry.incarnation, entry.state) < known.belief:
                better.append(known.entry())
            else:
                self._believe(known, entry)
        if better and not message.flags & 1:
            self._send(other, MEMBERSHIP, wire.Members(0, better[:100]))

    def _about_me(self, entry):
        if self.state == ALIVE and entry.state != ALIVE and (entry.epoch, entry.incarnation) >= (self.epoch, self.incarnation):
            self.epoch, self.incarnation = max(self.epoch, entry.epoch), entry.incarnation + 1
            self.count("refuted")
            self._tell_all(wire.Members(0, [self.entry()]))

    def _tell_all(self, *messages):
        for other in self.others.values():
            if other.state in (ALIVE, SUSPECT):
                self._send(other, MEMBERSHIP, *messages)

    def members_sum(self):
        with self._lock:
            entries = [self.entry(), *(o.entry() for o in self.others.values())]
            return sum(wire.member_hash(e.hostno, e.epoch, e.incarnation, e.state) for e in entries) % (1 << 64)

    # Probes

    def _await(self, other, on_answer=None, on_silence=None, wait_s=0.5):
        seq = secrets.randbits(32)
        self._probes[seq] = (other.hostno, on_answer, on_silence, time.monotonic() + wait_s)
        return seq

    def _ping(self, seq, other=None, kind=wire.Ping):
        return kind(seq, self.epoch, self.incarnation, self.root(other) if other else 0, self.members_sum())

    def _probe(self, other, *then, wait_s=0.5):
        ping = self._ping(self._await(other, *then, wait_s=wait_s), other)
        accuse = [] if other.state == ALIVE else [wire.Members(0, [other.entry()])]
        self._send(other, PROBE, *accuse, ping)

    def ping_by_stream(self, hostno):
        """A PING by TCP, whose answer comes the same way."""
        with self._lock:
            other = self.others[hostno]
            plain = wire.message_bytes(self._ping(self._await(other), other))
            packet = wire.frame_seal(self.active, self.cluster_id, self.me, self.hostno, self._next_counter(), other.id, PROBE, plain)
        answer = self._ask_stream(other.addr, packet)
        with self._lock:
            self._packet(answer or b"")

    def _on_ping(self, other, message, _):
        self._send(other, PROBE, self._ping(message.seq, other, wire.Ack))
        self._told_root(other, message)

    def _on_ack(self, other, message, _):
        hostno, on_answer, _, _ = self._probes.pop(message.seq, (None, None, None, 0))
        if hostno == other.hostno:
            other.acks += 1
            if on_answer:
                on_answer()
        self._told_root(other, message)

    def _on_ping_req(self, other, message, _):
        target = self.others.get(message.hostno)
        if target:
            self._probe(target, lambda: self._send(other, PROBE, wire.IndirectAck(message.seq)),
                        lambda: self._send(other, PROBE, wire.Nack(message.seq)), wait_s=message.timeout_ms / 1000)

    def _on_verify(self, other, message, _):
        e = message.entry
        target = self.others.get(e.hostno)
        if target:
            self._believe(target, e)

            def verdict(word):
                return lambda: self._send(other, MEMBERSHIP, wire.Verdict(e.hostno, e.epoch, e.incarnation, word))
            self._probe(target, verdict(1), verdict(0))

    # Records

    def _own_shard(self, topic):
        shard = self.shards.setdefault((topic, self.hostno), Shard(self.epoch))
        shard.settled = 1
        return shard

    def publish(self, topic, key, value):
        """One change of our own; None deletes."""
        with self._lock:
            shard = self._own_shard(topic)
            before, self.seq = shard.head, self.seq + 1
            shard.head = self.seq
            shard.records[key] = Record(self.seq, key, value)
            batch = Batch(wire.BATCH_PUSH | wire.BATCH_SETTLED, None, topic, shard.epoch, before, shard.head, shard.floor, shard.head,
                          [shard.records[key]])
            for other in self.others.values():
                if other.state == ALIVE and self._keeps(other.topics, topic):
                    other.pushes.append([batch, 0, 0])
                    self._push(other, time.monotonic())

    def _about_my_shards(self, epoch, seq):
        """What an earlier process of ours said, and we do not know, is behind us in a later epoch. Whether it was so."""
        if (epoch, seq) <= (self.epoch, self.seq):
            return False
        self._raise_epoch(epoch + 1)
        return True

    def _raise_epoch(self, epoch):
        """Everything anew in it: the first word of that is the MEMBERS entry."""
        self.count("epoch raised")
        self.epoch, self.incarnation = epoch, 0
        self._tell_all(wire.Members(0, [self.entry()]))
        for (topic, origin), shard in list(self.shards.items()):
            if origin == self.hostno:
                del self.shards[topic, origin]
                for key, value in shard.live().items():
                    self.publish(topic, key, value)
        self._heads_at = time.monotonic() + 1

    def subscribe(self, *topics):
        with self._lock:
            self.topics = frozenset(topics)
            self.publish(0, b"i\0", wire.topics_bytes(topics))

    @staticmethod
    def _keeps(topics, topic):
        return not topic & wire.SUBSCRIBED or topic in topics

    def _push(self, other, now):
        for push in other.pushes:
            if now >= push[2] and push[1] < len(RETRIES_S):
                self._send(other, PUSH, push[0])
                push[2] = now + RETRIES_S[push[1]]
                push[1] += 1
        other.pushes = [p for p in other.pushes if p[1] < len(RETRIES_S) or now < p[2]]

    def _on_push_ack(self, other, message, _):
        if message.epoch == self.epoch:
            other.pushes = [p for p in other.pushes
                            if not any(topic in (None, p[0].topic) and head >= p[0].to for topic, head in message.heads)]

    def _on_batch(self, other, b, acks):
        origin = other.hostno if b.flags & wire.BATCH_PUSH else b.origin
        if origin == self.hostno:
            return self._about_my_shards(b.epoch, b.to)
        if not self._keeps(self.topics, b.topic):
            return self.count("unwanted batch")
        shard = self._copy(b.topic, origin, b.epoch)
        if shard is None:
            return self.count("batch of an earlier epoch")
        if b.flags & wire.BATCH_PUSH:
            acks.append(b)
        if b.flags & wire.BATCH_LISTING:
            self._listed(shard, b)
        for record in b.records:
            self._take(shard, origin, b.topic, record)
        if shard.head < b.start:
            shard.ranges.append((b.start, b.to))
        elif b.floor > max(b.start, shard.head) and not b.flags & wire.BATCH_LISTING:
            self._pull(other, (0, Head(origin, b.topic, shard.epoch, shard.head, 0)))
        elif b.to > shard.head:
            self._advance(shard, b.to)
        shard.floor = min(max(shard.floor, b.floor), shard.head)
        if b.flags & wire.BATCH_SETTLED and shard.head >= b.head:
            shard.settled = 1
        if b.flags & wire.BATCH_MORE:
            progress = shard.listing[0] if shard.listing else None
            self._pull(other, (1 if progress else 0, Head(origin, b.topic, shard.epoch, progress or shard.head, 0)))

    def _copy(self, topic, origin, epoch):
        shard = self.shards.get((topic, origin))
        if shard is None or shard.epoch < epoch:
            shard = self.shards[topic, origin] = Shard(epoch)
        return shard if shard.epoch == epoch else None

    def _advance(self, shard, to):
        shard.head = max(shard.head, to)
        for start, end in sorted(shard.ranges):
            if start <= shard.head:
                shard.head = max(shard.head, end)
        shard.ranges = [r for r in shard.ranges if r[0] > shard.head]

    def _listed(self, shard, b):
        """What a listing does not name is gone when it is complete."""
        if b.start == 0:
            shard.listing = [0, b.head, set()]
        listing = shard.listing
        if listing is None or b.start > listing[0] or b.floor > listing[1]:
            return
        listing[0], listing[1] = max(listing[0], b.to), min(listing[1], b.head)
        listing[2] |= {r.key for r in b.records}
        if b.to == b.head:
            shard.records = {k: r for k, r in shard.records.items() if k in listing[2] or r.seq > b.head}
            shard.listing = None
            self._advance(shard, b.to)

    def _take(self, shard, origin, topic, record):
        old = shard.records.get(record.key)
        if record.seq <= shard.head if old is None else record.seq <= old.seq:
            return
        shard.records[record.key] = record
        if topic == 0:
            try:
                self._internal(origin, record.key, record.value)
            except Bad as e:
                self.count(f"record {record.key[:1]}: {e}")

    def _internal(self, origin, key, value):
        other = self.others.get(origin)
        if key[:1] == b"a" and len(key) == 17 and value:
            self._admitted(wire.admission_read(value))
        elif other and key == b"h" and value:
            record = wire.host_record_read(value)
            other.name, other.addr, other.told_boot = record.name, record.addr, record.boot
            self._trust_told(other, True)
        elif other and key == b"m" and value:
            r = wire.Reader(value[1:])
            other.mark = wire.Mark(r.uint(8), r.uint(8))
        elif other and key[:1] == b"i" and len(key) == 2:
            shard = self.shards[0, origin]
            lists = [wire.topics_read(v) for k, v in shard.live().items() if k[:1] == b"i" and len(k) == 2]
            new = frozenset(t for topics in lists for t in topics)
            for topic in new - other.topics:
                if (topic, self.hostno) in self.shards:
                    self._send(other, PUSH, *self._give(self.hostno, topic, 0))
            other.topics = new

    # Comparison

    def _shared(self, other):
        """The shards that both hold: (topic, origin)."""
        for topic, origin in sorted(self.shards):
            mine = self._keeps(self.topics, topic) or origin == self.hostno
            theirs = self._keeps(other.topics, topic) or origin == other.hostno
            if mine and theirs:
                yield topic, origin

    def root(self, other):
        with self._lock:
            total = 0
            for topic, origin in self._shared(other):
                s = self.shards[topic, origin]
                total += wire.shard_hash(topic, origin, s.epoch, s.head, s.settled)
            return total % (1 << 128)

    def _heads(self, other):
        for topic, origin in self._shared(other):
            s = self.shards[topic, origin]
            yield Head(origin, topic, s.epoch, s.head, s.settled)

    def _vectors(self, other):
        """All that we share in ranges that adjoin, a message each."""
        heads, parts = list(self._heads(other)), [[]]
        for h in heads:
            if len(parts[-1]) == 40:  # of at most 27 bytes each, less than a packet
                parts.append([])
            parts[-1].append(h)
        starts = [(0, 0)] + [(p[0].topic, p[0].origin) for p in parts[1:]]
        ends = [(t, o - 1) if o else (t - 1, LAST[1]) for t, o in starts[1:]] + [LAST]
        return [wire.Vector(first, last, part) for first, last, part in zip(starts, ends, parts)]

    def _told_root(self, other, message):
        other.root, other.members = message.root, message.members
        if message.root == self.root(other):
            other.differs_since = None
        elif other.differs_since is None:
            other.differs_since = time.monotonic()

    def compare(self, hostno):
        with self._lock:
            self._send(self.others[hostno], REPAIR, *self._vectors(self.others[hostno]))

    def ask_root(self, hostno):
        with self._lock:
            other = self.others[hostno]
            self._send(other, REPAIR, wire.Root(1, self.root(other), self.members_sum()))

    def _on_root(self, other, message, _):
        if message.want:
            self._send(other, REPAIR, wire.Root(0, self.root(other), self.members_sum()))
        self._told_root(other, message)

    def _on_vector(self, other, message, _):
        theirs = {(h.topic, h.origin): h for h in message.heads}
        give, pull = [], []
        ours = {k for k in self._shared(other) if message.first <= k <= message.last}
        own_differ = any(k[0] == 0 and k[1] in (self.hostno, other.hostno) and self._rank(k) != self._head_rank(theirs.get(k))
                         for k in ours | set(theirs))
        for key in ours - set(theirs):
            if not (own_differ and key[0] & wire.SUBSCRIBED):
                give += self._give(key[1], key[0], 0)
        for key, h in theirs.items():
            if key in ours and self._rank(key)[:2] == (h.epoch, h.head):
                self._compare_settled(other, key, h)
            elif key[1] == self.hostno and self._about_my_shards(h.epoch, h.head):
                pass
            elif key[1] == self.hostno or (key in ours and self._rank(key) > self._head_rank(h)):
                give += self._give(key[1], key[0], h.head if key in ours and self.shards[key].epoch == h.epoch else 0)
            elif self._keeps(self.topics, key[0]) and self._rank(key) < self._head_rank(h):
                shard = self.shards.get(key)
                pull.append((0, h._replace(head=shard.head if shard and shard.epoch == h.epoch else 0, settled=0)))
        if give:
            self._send(other, REPAIR, *give)
        self._pull(other, *pull)

    def _compare_settled(self, other, key, theirs):
        """Of two copies with one head, the one that is settled is believed."""
        shard = self.shards[key]
        if shard.settled and not theirs.settled:
            self._send(other, REPAIR, wire.Vector(key, key, [theirs._replace(settled=1)]))
        elif key[1] != self.hostno:
            shard.settled = theirs.settled

    def _rank(self, key):
        s = self.shards.get(key)
        return (s.epoch, s.head, s.settled) if s else (0, 0, 0)

    @staticmethod
    def _head_rank(h):
        return (h.epoch, h.head, h.settled) if h else (0, 0, 0)

    def _pull(self, other, *heads):
        for i in range(0, len(heads), 30):
            self._send(other, REPAIR, wire.Pull(list(heads[i:i + 30])))

    def _on_pull(self, other, message, _):
        for flags, h in message.heads:
            shard = self.shards.get((h.topic, h.origin))
            if shard and shard.epoch >= h.epoch:
                give = self._give(h.origin, h.topic, h.head if shard.epoch == h.epoch else 0, listing=bool(flags & 1))
                if give:
                    self._send(other, REPAIR, *give)

    def _give(self, origin, topic, start, listing=False):
        """The batches that bring a copy from `start` to our head: as a listing when its deletions may be gone here."""
        shard = self.shards[topic, origin]
        if start >= shard.head:
            return []
        if not listing and start < shard.floor:
            start, listing = 0, True
        flags = (wire.BATCH_SETTLED if shard.settled else 0) | (wire.BATCH_LISTING if listing else 0)
        records = sorted((r for r in shard.records.values() if r.seq > start), key=lambda r: r.seq)
        batches, part, size = [], [], 64
        for record in [*records, None]:
            more = len(wire.record_bytes(record, start)) if record else ROOM
            if size + more > BODY:
                to = part[-1].seq if record and part else shard.head
                batches.append(Batch(flags, origin, topic, shard.epoch, start, to, shard.floor, shard.head, part))
                start, part, size = to, [], 64
            part, size = [*part, record], size + more
        if len(batches) > ANSWER_MAX:
            batches = batches[:ANSWER_MAX]
            batches[-1] = batches[-1]._replace(flags=flags | wire.BATCH_MORE)
        return batches

    def _on_heads(self, other, message, _):
        named = dict(message.heads)
        for (topic, origin), s in list(self.shards.items()):
            if origin != other.hostno or not message.first <= topic <= message.last or s.epoch > message.epoch:
                continue
            if topic in named:
                if s.epoch == message.epoch and named[topic] <= s.head <= message.seq:
                    s.settled = 1
            elif s.epoch < message.epoch and not s.live():
                del self.shards[topic, origin]
            elif s.epoch < message.epoch or s.head <= message.seq:
                s.epoch, s.head, s.floor, s.settled, s.records, s.ranges = message.epoch, message.seq, message.seq, 1, {}, []

    # The rest

    def _on_busy(self, other, message, _):
        other.busy_until = time.monotonic() + min(message.ms, 5000) / 1000

    def _on_recall(self, other, message, _):
        kept = other.mark or message.mark
        back = kept.count > message.mark.count or (kept.count == message.mark.count and kept.tag != message.mark.tag)
        self._send(other, MEMBERSHIP, wire.Standing(int(back), other.boot, other.epoch, kept))

    def _on_standing(self, other, message, _):
        """We were set back, or say two things under one number."""
        if message.verdict == 1 and message.boot == self.boot and message.epoch >= self.epoch:
            self._raise_epoch(message.epoch + 1)

    def claim(self, hostno, name, definition):
        """Asks a home; the answer will be in `answers` under the number returned."""
        with self._lock:
            xid = secrets.randbits(32)
            body = struct.pack(">I", xid) + wire.text(name) + definition
            self._send(self.others[hostno], MEMBERSHIP, wire.Tell(wire.TELL_CLAIM, body))
            return xid

    def _on_tell(self, other, message, _):
        if message.kind == wire.TELL_CLAIM_ANSWER and len(message.body) >= 5:
            self.answers[int.from_bytes(message.body[:4], "big")] = (message.body[4], message.body[5:])
        if message.kind != wire.TELL_KEY or len(message.body) != 165 or message.body[0] != 1:
            return
        key = wire.Key.read(self.identity.open_box(other.key, message.body[1:25], message.body[25:]))
        self._keep_key(key)

    def _keep_key(self, key):
        if key in self.keys:
            return
        makers = {wire.host_id(o.key): o.key for o in self.others.values()}
        if key.maker not in makers or key.generation < self.active.generation:
            raise Bad("key that nobody made")
        wire.verify(key.signature, key.signed(self.cluster_id), makers[key.maker])
        self.keys.append(key)
        self.publish(0, b"k", wire.keys_record(self.keys, self.active))

    def recover_keys(self, hostno):
        """Asks a member by TCP, as one that finds no key for what it hears."""
        other = self.others[hostno]
        asked = wire.Recovery(self.identity, self.cluster_id, other.key, self.active.generation)
        packet = self._ask_stream(other.addr, asked.packet)
        keys, active = asked.answer(packet or b"")
        with self._lock:
            for key in keys:
                self._keep_key(key)
        return active

    def use_newest_key(self):
        """What a member does by itself when all list the newest key, and when all send with it."""
        with self._lock:
            self.active = max(self.keys, key=lambda k: k.generation)
            self.publish(0, b"k", wire.keys_record(self.keys, self.active))

    def leave(self, wait_s=5):
        """Says goodbye to everyone alive, behind which a ping shows that it arrived; then ends."""
        with self._lock:
            self.state = LEFT
            waiting = {o.hostno for o in self.others.values() if o.state == ALIVE}
        deadline = time.monotonic() + wait_s
        while waiting and time.monotonic() < deadline:
            with self._lock:
                for hostno in list(waiting):
                    other = self.others[hostno]
                    ping = self._ping(self._await(other, lambda n=hostno: waiting.discard(n)), other)
                    self._send(other, MEMBERSHIP, wire.Members(0, [self.entry()]), ping)
            time.sleep(0.05)
        self.close()
        return not waiting

    def close(self):
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self._udp.close()

    def _run(self):
        try:
            while not self._ended.is_set():
                readable = select.select([self._udp], [], [], 0.005)[0]
                packet = self._udp.recv(2048) if readable else b""
                with self._lock:
                    if packet and not self.mute:
                        self._packet(packet)
                    self._tick(time.monotonic())
        except Exception as e:  # the test looks at it: a thread that ends in silence would look like a cut
            self.crash = e
            raise

    def _tick(self, now):
        for seq, (_, _, on_silence, until) in list(self._probes.items()):
            if now > until:
                del self._probes[seq]
                if on_silence:
                    on_silence()
        for other in self.others.values():
            self._push(other, now)
            if other.differs_since is not None and now > other.differs_since + PATIENCE_S and now > other.busy_until:
                other.differs_since = now
                self._send(other, REPAIR, *self._vectors(other))
        if self._heads_at and now > self._heads_at:
            self._heads_at = None
            own = [(topic, s.head) for (topic, origin), s in self.shards.items() if origin == self.hostno]
            for other in self.others.values():
                self._send(other, REPAIR, wire.Heads(0, LAST[0], self.epoch, self.seq, own))
        if now > self._next_probe and self.state == ALIVE:
            self._next_probe = now + PERIOD_S
            targets = sorted(n for n, o in self.others.items() if o.state != LEFT)
            if targets:
                self._turn += 1
                self._probe(self.others[targets[self._turn % len(targets)]])

    HANDLERS = {
        wire.Ping: _on_ping, wire.Ack: _on_ack, wire.PingReq: _on_ping_req, wire.Members: _on_members, wire.Verify: _on_verify,
        wire.Batch: _on_batch, wire.PushAck: _on_push_ack, wire.Root: _on_root, wire.Vector: _on_vector, wire.Pull: _on_pull,
        wire.Heads: _on_heads, wire.Tell: _on_tell, wire.Recall: _on_recall, wire.Standing: _on_standing, wire.Busy: _on_busy,
    }

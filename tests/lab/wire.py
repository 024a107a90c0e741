"""The wire format in Python, from docs/wire.md alone and not from the daemon's code: primitives, tokens, frames, admission, messages,
records.

Pure: bytes in, values out. What comes from outside and is not as the document says raises Bad. secondpeer.py speaks with it. Where this
and gossip/ disagree, one of them or the document is wrong. Cryptography is libsodium's, by ctypes.
"""
import base64
import ctypes
import ctypes.util
import hashlib
import ipaddress
import secrets
import struct
from collections import namedtuple
from hmac import digest as hmac_digest

VERSION = 1
PROBE, MEMBERSHIP, PUSH, REPAIR, HELLO, ADMISSION = 0, 1, 2, 3, 14, 15
JOIN, WELCOME, REFUSED, RECOVER, KEYS = range(1, 6)
PACKET_MAX, FRAME_MIN, HELLO_SIZE, JOIN_SIZE, REFUSED_SIZE = 1200, 33, 53, 600, 46
HOSTNO_MAX = (1 << 20) - 1
WINDOW = 2048
ALIVE, SUSPECT, DEAD, LEFT = range(4)
SUBSCRIBED = 1 << 63  # the topic bit of what only subscribers keep
BATCH_SETTLED, BATCH_LISTING, BATCH_MORE, BATCH_PUSH = 1, 2, 4, 8
TELL_CLAIM, TELL_CLAIM_ANSWER, TELL_KEY = 2, 3, 240


class Bad(ValueError):
    """Bytes that are not as the document says."""


class Refusal(Bad):
    def __init__(self, reason):
        super().__init__(f"refused with reason {reason}")
        self.reason = reason


# Primitives

_sodium = ctypes.CDLL("libsodium.so.23")
if _sodium.sodium_init() < 0:
    raise ImportError("libsodium does not start")
_long = ctypes.c_ulonglong


def _call(function, size, *args):
    """One function of libsodium whose first argument is what it writes."""
    out = ctypes.create_string_buffer(size or 1)
    if function(out, *args) != 0:
        raise Bad(f"{function.__name__} refuses")
    return out.raw[:size]


def blake2b(data, size=32, key=b""):
    return hashlib.blake2b(data, digest_size=size, key=key).digest()


def H(key, data):
    return blake2b(data, 32, key)


def seal(key, nonce, aad, plain):
    return _call(_sodium.crypto_aead_xchacha20poly1305_ietf_encrypt, len(plain) + 16, None, plain, _long(len(plain)),
                 aad, _long(len(aad)), None, nonce, key)


def unseal(key, nonce, aad, cipher):
    if len(cipher) < 16:
        raise Bad("shorter than its tag")
    return _call(_sodium.crypto_aead_xchacha20poly1305_ietf_decrypt, len(cipher) - 16, None, None, cipher, _long(len(cipher)),
                 aad, _long(len(aad)), nonce, key)


def x25519(secret, public=None):
    """The shared secret, or without a public key that of the secret. libsodium refuses a result of zeros."""
    if public is None:
        return _call(_sodium.crypto_scalarmult_base, 32, secret)
    return _call(_sodium.crypto_scalarmult, 32, secret, public)


def sip64(data, key=bytes(16)):
    return int.from_bytes(_call(_sodium.crypto_shorthash_siphash24, 8, data, _long(len(data)), key), "big")


def sip128(data, key=bytes(16)):
    return int.from_bytes(_call(_sodium.crypto_shorthash_siphashx24, 16, data, _long(len(data)), key), "big")


def verify(signature, data, host_key):
    if _sodium.crypto_sign_verify_detached(signature, data, _long(len(data)), host_key) != 0:
        raise Bad("signature")


class Identity:
    """A host key pair."""

    def __init__(self, seed=None):
        public, self._secret = ctypes.create_string_buffer(32), ctypes.create_string_buffer(64)
        _sodium.crypto_sign_seed_keypair(public, self._secret, seed or secrets.token_bytes(32))
        self.key = public.raw
        self.id = host_id(self.key)

    def sign(self, data):
        return _call(_sodium.crypto_sign_detached, 64, None, data, _long(len(data)), self._secret)

    def x25519(self, public):
        """With another's X25519 key."""
        return x25519(self._x25519_secret(), public)

    def _x25519_secret(self):
        return _call(_sodium.crypto_sign_ed25519_sk_to_curve25519, 32, self._secret)

    def open_box(self, sender_key, nonce, box):
        if len(box) < 16:
            raise Bad("shorter than its tag")
        return _call(_sodium.crypto_box_open_easy, len(box) - 16, box, _long(len(box)), nonce, x25519_form(sender_key),
                     self._x25519_secret())


def x25519_form(host_key):
    return _call(_sodium.crypto_sign_ed25519_pk_to_curve25519, 32, host_key)


def host_id(host_key):
    return blake2b(host_key)[:16]


# Pieces

def u24(n):
    return n.to_bytes(3, "big")


def u64(n):
    return n.to_bytes(8, "big")


def varint(n):
    out = bytearray()
    while n > 0x7f:
        out.append(n & 0x7f | 0x80)
        n >>= 7
    return bytes(out) + bytes([n])


def text(s):
    raw = s.encode()
    return varint(len(raw)) + raw


Addr = namedtuple("Addr", "ip port")  # ip: text, "" for none


def ip_bytes(ip):
    return bytes([0]) if not ip else bytes([ipaddress.ip_address(ip).version]) + ipaddress.ip_address(ip).packed


def addr_bytes(addr):
    return ip_bytes(addr.ip) + struct.pack(">H", addr.port)


class Reader:
    """Takes pieces off the front; whatever is not there is Bad."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        if size > len(self.data) - self.at:
            raise Bad(f"{size} bytes wanted at {self.at} of {len(self.data)}")
        self.at += size
        return self.data[self.at - size:self.at]

    def uint(self, size):
        return int.from_bytes(self.take(size), "big")

    def varint(self):
        value = 0
        for n in range(10):
            byte = self.uint(1)
            value |= (byte & 0x7f) << 7 * n
            if byte < 0x80:
                if (byte == 0 and n > 0) or value >> 64:
                    break
                return value
        raise Bad("varint")

    def text(self, longest=1024):
        size = self.varint()
        if size > longest:
            raise Bad("text too long")
        try:
            got = self.take(size).decode()
        except UnicodeDecodeError as e:
            raise Bad("text") from e
        if "\0" in got:
            raise Bad("text with NUL")
        return got

    def ip(self):
        family = self.uint(1)
        if family not in (0, 4, 6):
            raise Bad(f"family {family}")
        return str(ipaddress.ip_address(self.take({4: 4, 6: 16}[family]))) if family else ""

    def addr(self):
        return Addr(self.ip(), self.uint(2))

    def hostno(self):
        number = self.uint(3)
        if not 1 <= number <= HOSTNO_MAX:
            raise Bad(f"hostno {number}")
        return number

    def more(self):
        return self.at < len(self.data)

    def rest(self):
        return self.take(len(self.data) - self.at)

    def end(self):
        if self.more():
            raise Bad(f"{len(self.data) - self.at} bytes too many")


# Keys and tokens

class Key(namedtuple("Key", "secret generation created maker signature", defaults=(1, 0, bytes(16), bytes(64)))):
    """A cluster key."""

    @property
    def fingerprint(self):
        return H(self.secret, b"trestle key fingerprint 1")[:8]

    @property
    def id(self):
        return 1 if self.generation == 1 else 2 + self.fingerprint[0] % 254

    @property
    def frame_key(self):
        return H(self.secret, b"trestle frame 1" + bytes([self.id]))

    def signed(self, cluster_id):
        return (b"trestle key 1" + cluster_id + struct.pack(">IQ", self.generation, self.created) + self.maker + self.secret)

    @classmethod
    def read(cls, value):
        r = Reader(value)
        generation, created, maker, secret, signature = r.uint(4), r.uint(8), r.take(16), r.take(32), r.take(64)
        r.end()
        return cls(secret, generation, created, maker, signature)


def keys_record(keys, active):
    return bytes([1, VERSION, VERSION]) + active.fingerprint + bytes([len(keys)]) + b"".join(k.fingerprint for k in keys)


def keys_read(value):
    """The saved pair `k`: (keys, the active one)."""
    r = Reader(value)
    if r.uint(1) != 1:
        raise Bad("version of keys")
    count, active = r.uint(1), r.uint(1)
    keys = [Key.read(r.take(124)) for _ in range(count)]
    r.end()
    if not 1 <= count <= 4 or active >= count:
        raise Bad("keys")
    return keys, keys[active]


Token = namedtuple("Token", "cluster_id id expires secret seeds")


def token_secret(cluster_key, token_id, expires):
    return H(cluster_key, token_id + u64(expires))


def token_read(words):
    if not words.startswith("trestle1.") or len(words) > 512:
        raise Bad("not a token of this version")
    try:
        raw = base64.b64decode(words[9:] + "=" * (-len(words[9:]) % 4), b"-_", validate=True)
    except ValueError as e:
        raise Bad("base64url") from e
    if blake2b(b"trestle1." + raw[:-4])[:4] != raw[-4:]:
        raise Bad("checksum")
    r = Reader(raw[:-4])
    cluster_id, token_id, expires, secret = r.take(16), r.take(16), r.uint(8), r.take(32)
    seeds = [r.addr() for _ in range(r.uint(1))]
    r.end()
    if not 1 <= len(seeds) <= 8 or any(not s.ip or not s.port for s in seeds):
        raise Bad("seeds")
    return Token(cluster_id, token_id, expires, secret, seeds)


def token_write(token):
    raw = token.cluster_id + token.id + u64(token.expires) + token.secret + bytes([len(token.seeds)])
    raw += b"".join(addr_bytes(s) for s in token.seeds)
    raw += blake2b(b"trestle1." + raw)[:4]
    return "trestle1." + base64.urlsafe_b64encode(raw).decode().rstrip("=")


# Frames

Peer = namedtuple("Peer", "id boot")  # what a nonce needs of a sender


def nonce(sender_id, boot, counter):
    return sender_id[:8] + u64(boot) + u64(counter)


def frame_seal(key, cluster_id, sender, hostno, counter, receiver_id, cls, plain):
    head = bytes([VERSION << 4 | cls, key.id]) + u24(hostno) + struct.pack(">IQ", sender.boot & 0xffffffff, counter)
    return head + seal(key.frame_key, nonce(*sender, counter), head + cluster_id + receiver_id, plain)


def frame_open(key, cluster_id, sender, receiver_id, packet):
    head = packet[:17]
    counter = int.from_bytes(head[9:17], "big")
    return unseal(key.frame_key, nonce(*sender, counter), head + cluster_id + receiver_id, packet[17:])


def hello_seal(key, cluster_id, sender, hostno, counter, receiver_id, echo, ask):
    head = bytes([VERSION << 4 | HELLO, key.id]) + u24(hostno) + u64(sender.boot) + u64(counter)
    return head + seal(key.frame_key, nonce(*sender, counter), head + cluster_id + receiver_id, u64(echo) + u64(ask))


def hello_open(key, cluster_id, sender_id, receiver_id, packet):
    """(boot tag, counter, echo, ask)"""
    head = packet[:21]
    boot, counter = struct.unpack(">QQ", head[5:])
    plain = unseal(key.frame_key, nonce(sender_id, boot, counter), head + cluster_id + receiver_id, packet[21:])
    return boot, counter, *struct.unpack(">QQ", plain)


# Admission

PREFIX = bytes([VERSION << 4 | ADMISSION])
Member = namedtuple("Member", "hostno host_key epoch addr vtep name")
Admission = namedtuple("Admission", "hostno host_key name addr vtep boot sponsor signature")
Welcome = namedtuple("Welcome", "sponsor_boot key hostno addr vtep signature vouched members")


class Joiner:
    """One attempt to join: the same bytes each time it asks."""

    def __init__(self, token, identity, name, boot, addr=Addr("", 0), vtep="", secret=None):
        self.token, self.identity, self.name, self.boot = token, identity, name, boot
        self._secret = secret or secrets.token_bytes(32)
        self.public = x25519(self._secret)
        head = PREFIX + bytes([JOIN, 0, 0, 0]) + token.cluster_id + token.id + u64(token.expires) + self.public + u64(boot)
        plain = identity.key + text(name) + addr_bytes(addr) + ip_bytes(vtep)
        plain += identity.sign(b"trestle join 1" + head + plain)
        plain = plain.ljust(JOIN_SIZE - len(head) - 16, b"\0")
        self.packet = head + seal(H(token.secret, b"trestle join 1" + self.public), bytes(24), head, plain)

    def answer(self, packet):
        """A Welcome; Refusal when it is that; Bad for what is not for us."""
        if len(packet) > 2 and packet[:2] == PREFIX + bytes([WELCOME]):
            return self._welcome(packet)
        if len(packet) == REFUSED_SIZE and packet[:2] == PREFIX + bytes([REFUSED]):
            key = H(self.token.secret, b"trestle refused 1" + self.public)
            raise Refusal(unseal(key, packet[5:29], packet[:5] + self.token.cluster_id + self.token.id, packet[29:])[0])
        raise Bad("no answer to a JOIN")

    def _welcome(self, packet):
        sponsor_public, sponsor_boot = packet[5:37], packet[37:45]
        shared = x25519(self._secret, sponsor_public)
        key = H(self.token.secret, b"trestle welcome 1" + shared + self.public + sponsor_public)
        plain = unseal(key, bytes(24), packet[:45] + self.token.cluster_id + self.token.id, packet[45:])
        r = Reader(plain)
        secret, key_id = r.take(32), r.uint(1)
        cluster_key = Key(secret) if key_id == 1 else Key(secret, r.uint(4), r.uint(8), r.take(16), r.take(64))
        hostno, addr, vtep, signature, vouched = r.hostno(), r.addr(), r.ip(), r.take(64), r.uint(1)
        members = [member_take(r) for _ in range(r.uint(1))]
        signed, own = plain[:r.at], r.take(64)
        r.end()
        if cluster_key.id != key_id or not 1 <= len(members) <= 6:
            raise Bad("welcome")
        sponsor = members[0]
        verify(own, b"trestle welcome 1" + self.token.cluster_id + self.token.id + self.public + sponsor_public + sponsor_boot
               + self.identity.id + signed, sponsor.host_key)
        admission = Admission(hostno, self.identity.key, self.name, addr, vtep, self.boot, sponsor.hostno, signature)
        verify(signature, admission_signed(admission, self.token.cluster_id), sponsor.host_key)
        return Welcome(int.from_bytes(sponsor_boot, "big"), cluster_key, hostno, addr, vtep, signature, bool(vouched), members)


class Recovery:
    """A question for keys, and its answer: the asker's part of Noise_IK_25519_ChaChaPoly_BLAKE2b. Names as in Noise, section 5."""

    def __init__(self, identity, cluster_id, responder_key, generation, ephemeral=None):
        self._identity, self._e = identity, ephemeral or secrets.token_bytes(32)
        theirs, e = x25519_form(responder_key), x25519(self._e)
        self._ck = self._h = b"Noise_IK_25519_ChaChaPoly_BLAKE2b".ljust(64, b"\0")
        for known in (b"trestle recover 1" + cluster_id, theirs, e):
            self._mix_hash(known)
        self._mix_key(x25519(self._e, theirs))
        own = self._encrypt(x25519_form(identity.key))
        self._mix_key(identity.x25519(theirs))
        payload = self._encrypt((identity.id + struct.pack(">I", generation)).ljust(1083, b"\0"))
        packet = PREFIX + bytes([RECOVER, 0, 0, 0]) + e + own + payload
        self.packet = packet + blake2b(packet, 16, blake2b(b"trestle recover mac 1" + theirs + cluster_id))

    def answer(self, packet):
        """(keys, the active one)"""
        if packet[:5] != PREFIX + bytes([KEYS, 0, 0, 0]) or len(packet) < 53:
            raise Bad("no answer to a RECOVER")
        e = packet[5:37]
        self._mix_hash(e)
        self._mix_key(x25519(self._e, e))
        self._mix_key(self._identity.x25519(e))
        return keys_read(self._decrypt(packet[37:]))

    def _mix_hash(self, data):
        self._h = blake2b(self._h + data, 64)

    def _mix_key(self, data):
        def hmac(key, message):
            return hmac_digest(key, message, "blake2b")
        temp = hmac(self._ck, data)
        self._ck = hmac(temp, b"\1")
        self._k = hmac(temp, self._ck + b"\2")[:32]

    def _encrypt(self, plain):
        """Each key is used once, so the nonce is 0."""
        cipher = _call(_sodium.crypto_aead_chacha20poly1305_ietf_encrypt, len(plain) + 16, None, plain, _long(len(plain)),
                       self._h, _long(len(self._h)), None, bytes(12), self._k)
        self._mix_hash(cipher)
        return cipher

    def _decrypt(self, cipher):
        return _call(_sodium.crypto_aead_chacha20poly1305_ietf_decrypt, len(cipher) - 16, None, None, cipher, _long(len(cipher)),
                     self._h, _long(len(self._h)), bytes(12), self._k)


# Saved pairs

def member_take(r):
    if r.uint(1) != 1:
        raise Bad("version of a saved member")
    return Member(r.hostno(), r.take(32), r.uint(4), r.addr(), r.ip(), r.text(63))


def member_bytes(m):
    return bytes([1]) + u24(m.hostno) + m.host_key + struct.pack(">I", m.epoch) + addr_bytes(m.addr) + ip_bytes(m.vtep) + text(m.name)


def _admission_body(a):
    return u24(a.hostno) + a.host_key + text(a.name) + addr_bytes(a.addr) + ip_bytes(a.vtep) + u64(a.boot) + u24(a.sponsor)


def admission_signed(a, cluster_id):
    return b"trestle admission 1" + cluster_id + _admission_body(a)


def admission_bytes(a):
    return bytes([1]) + _admission_body(a) + a.signature


def admission_read(value):
    r = Reader(value)
    if r.uint(1) != 1:
        raise Bad("version of an admission")
    a = Admission(r.hostno(), r.take(32), r.text(63), r.addr(), r.ip(), r.uint(8), r.hostno(), r.take(64))
    r.end()
    return a


# Messages: each a namedtuple with the fields of the table, in its order

Ping = namedtuple("Ping", "seq epoch incarnation root members")
Ack = namedtuple("Ack", Ping._fields)
PingReq = namedtuple("PingReq", "seq hostno timeout_ms")
Nack = namedtuple("Nack", "seq")
IndirectAck = namedtuple("IndirectAck", "seq")
Members = namedtuple("Members", "flags entries")
Verify = namedtuple("Verify", "entry")
Verdict = namedtuple("Verdict", "hostno epoch incarnation word")
PushAck = namedtuple("PushAck", "packets epoch heads")  # heads: (topic, head), topic None when not named
Root = namedtuple("Root", "want root members")
Vector = namedtuple("Vector", "first last heads")  # first, last: (topic, origin)
Pull = namedtuple("Pull", "heads")  # (flags, Head)
Heads = namedtuple("Heads", "first last epoch seq heads")
Tell = namedtuple("Tell", "kind body")
RelayAck = namedtuple("RelayAck", "heads")
Recall = namedtuple("Recall", "mark")
Standing = namedtuple("Standing", "verdict boot epoch mark")
SketchAsk = namedtuple("SketchAsk", "key first shards packets")
Busy = namedtuple("Busy", "ms hosts")
Unknown = namedtuple("Unknown", "type")

Entry = namedtuple("Entry", "hostno state epoch incarnation")
Head = namedtuple("Head", "origin topic epoch head settled")
Mark = namedtuple("Mark", "count tag")
Batch = namedtuple("Batch", "flags origin topic epoch start to floor head records")  # start: `from`
Record = namedtuple("Record", "seq key value")  # value None: deleted


class Relay(namedtuple("Relay", Batch._fields)):
    """A batch that is passed on."""


def _entry(r):
    e = Entry(r.hostno(), r.uint(1), r.varint(), r.varint())
    if e.state > LEFT:
        raise Bad("state")
    return e


def _entry_bytes(e):
    return u24(e.hostno) + bytes([e.state]) + varint(e.epoch) + varint(e.incarnation)


def _head(r):
    h = Head(r.hostno(), r.uint(8), r.varint(), r.varint(), r.uint(1))
    if h.settled > 1:
        raise Bad("settled")
    return h


def _head_bytes(h):
    return u24(h.origin) + u64(h.topic) + varint(h.epoch) + varint(h.head) + bytes([h.settled])


def _mark(r):
    return Mark(r.varint(), r.uint(8))


def _many(r, one):
    got = []
    while r.more():
        got.append(one(r))
    return got


def _ping(kind):
    return lambda r: kind(r.uint(4), r.varint(), r.varint(), r.uint(16), r.uint(8))


def _ping_bytes(p):
    return struct.pack(">I", p.seq) + varint(p.epoch) + varint(p.incarnation) + p.root.to_bytes(16, "big") + u64(p.members)


def _push_ack(r):
    packets, epoch = r.uint(1), r.varint()
    named = packets & 128
    return PushAck(packets & 127, epoch, _many(r, lambda r: (r.uint(8) if named else None, r.varint())))


def _push_ack_bytes(a):
    return bytes([128 | a.packets]) + varint(a.epoch) + b"".join(u64(topic) + varint(head) for topic, head in a.heads)


def _vector(r):
    return Vector((r.uint(8), r.uint(3)), (r.uint(8), r.uint(3)), _many(r, _head))


def _vector_bytes(v):
    ends = b"".join(u64(topic) + u24(origin) for topic, origin in (v.first, v.last))
    return ends + b"".join(_head_bytes(h) for h in v.heads)


def _heads_bytes(h):
    return u64(h.first) + u64(h.last) + varint(h.epoch) + varint(h.seq) + b"".join(u64(topic) + varint(head) for topic, head in h.heads)


def _batch(r, relay=False):
    flags = r.uint(1)
    push = flags & BATCH_PUSH
    origin = None if push else r.hostno()
    topic, epoch, start, to, floor, head = r.uint(8), r.varint(), r.varint(), r.varint(), r.varint(), r.varint()
    if not start < to <= head or floor > head or (relay and flags & (BATCH_MORE | BATCH_PUSH)):
        raise Bad("batch")
    records, seq = [], start
    while r.more():
        more, size = r.varint(), r.uint(1)
        seq, key = seq + more, r.take(size & 127)
        if not more or seq > to or not 1 <= len(key) <= 64:
            raise Bad("record")
        value = None
        if not size & 128:
            length = r.varint()
            if length > 1024:
                raise Bad("value")
            value = r.take(length)
        records.append(Record(seq, key, value))
    return (Relay if relay else Batch)(flags, origin, topic, epoch, start, to, floor, head, records)


def record_bytes(record, before):
    gone = record.value is None
    head = varint(record.seq - before) + bytes([len(record.key) | (128 if gone else 0)]) + record.key
    return head if gone else head + varint(len(record.value)) + record.value


def _batch_bytes(b):
    out = bytes([b.flags]) + (b"" if b.flags & BATCH_PUSH else u24(b.origin)) + u64(b.topic)
    out += b"".join(varint(n) for n in (b.epoch, b.start, b.to, b.floor, b.head))
    before = b.start
    for record in b.records:
        out += record_bytes(record, before)
        before = record.seq
    return out


READ = {
    1: _ping(Ping), 2: _ping(Ack), 3: lambda r: PingReq(r.uint(4), r.hostno(), r.uint(2)), 4: lambda r: Nack(r.uint(4)),
    5: lambda r: IndirectAck(r.uint(4)), 6: lambda r: Members(r.uint(1), _many(r, _entry)), 7: lambda r: Verify(_entry(r)),
    8: lambda r: Verdict(r.hostno(), r.varint(), r.varint(), r.uint(1)), 9: _batch, 10: _push_ack,
    11: lambda r: Root(r.uint(1), r.uint(16), r.uint(8)), 12: _vector, 13: lambda r: Pull(_many(r, lambda r: (r.uint(1), _head(r)))),
    14: lambda r: Heads(r.uint(8), r.uint(8), r.varint(), r.varint(), _many(r, lambda r: (r.uint(8), r.varint()))),
    15: lambda r: Tell(r.uint(1), r.rest()), 16: lambda r: _batch(r, relay=True), 17: lambda r: RelayAck(_many(r, _head)),
    18: lambda r: Recall(_mark(r)), 19: lambda r: Standing(r.uint(1), r.uint(8), r.varint(), _mark(r)),
    20: lambda r: SketchAsk(r.take(16), r.uint(4), r.uint(4), r.uint(1)),
    22: lambda r: Busy(r.uint(2), _many(r, lambda r: r.hostno())),
}
WRITE = {
    Ping: (1, _ping_bytes), Ack: (2, _ping_bytes), Nack: (4, lambda m: struct.pack(">I", m.seq)),
    IndirectAck: (5, lambda m: struct.pack(">I", m.seq)),
    Members: (6, lambda m: bytes([m.flags]) + b"".join(_entry_bytes(e) for e in m.entries)), Verify: (7, lambda m: _entry_bytes(m.entry)),
    Verdict: (8, lambda m: u24(m.hostno) + varint(m.epoch) + varint(m.incarnation) + bytes([m.word])), Batch: (9, _batch_bytes),
    PushAck: (10, _push_ack_bytes), Root: (11, lambda m: bytes([m.want]) + m.root.to_bytes(16, "big") + u64(m.members)),
    Vector: (12, _vector_bytes), Pull: (13, lambda m: b"".join(bytes([flags]) + _head_bytes(h) for flags, h in m.heads)),
    Heads: (14, _heads_bytes), RelayAck: (17, lambda m: b"".join(_head_bytes(h) for h in m.heads)),
    Tell: (15, lambda m: bytes([m.kind]) + m.body),
    Standing: (19, lambda m: bytes([m.verdict]) + u64(m.boot) + varint(m.epoch) + varint(m.mark.count) + u64(m.mark.tag)),
}


def message_bytes(message):
    kind, body = WRITE[type(message)]
    body = body(message)
    return bytes([kind]) + varint(len(body)) + body


def messages_read(plain):
    """The messages of a packet one after the other; Bad behind those that stand before one that is not as it should be."""
    r = Reader(plain)
    while r.more():
        kind, body = r.uint(1), Reader(r.take(r.varint()))
        if kind not in READ:
            yield Unknown(kind)
            continue
        message = READ[kind](body)
        body.end()
        yield message


def shard_hash(topic, origin, epoch, head, settled):
    return sip128(struct.pack(">QIIQB", topic, origin, epoch, head, settled))


def member_hash(hostno, epoch, incarnation, state):
    state = 0 if state in (ALIVE, SUSPECT) else state
    return sip64(struct.pack(">IIIB", hostno, epoch, incarnation, state)) if epoch else 0


# Values of records

HostRecord = namedtuple("HostRecord", "id addr vtep name boot")
Endpoint = namedtuple("Endpoint", "short_id mac ipv4 ipv6 since")
Network = namedtuple("Network", "id version name vni mtu flags pools creator created")


def host_record_read(value):
    r = Reader(value)
    if r.uint(1) != 1:
        raise Bad("version of a host record")
    return HostRecord(r.take(16), r.addr(), r.ip(), r.text(63), r.uint(8))


def host_record_bytes(h):
    return bytes([1]) + h.id + addr_bytes(h.addr) + ip_bytes(h.vtep) + text(h.name) + u64(h.boot)


def topics_read(value):
    r = Reader(value)
    if r.uint(1) != 1:
        raise Bad("version of subscriptions")
    return _many(r, lambda r: r.uint(8))


def topics_bytes(topics):
    return bytes([1]) + b"".join(u64(t) for t in sorted(topics))


def network_topic(network_id):
    return int.from_bytes(network_id[:8], "big") | SUBSCRIBED


def network_read(value):
    r = Reader(value)
    if r.uint(1) != 1:
        raise Bad("format of a network")
    network_id, version, name, vni, mtu, flags = r.take(16), r.uint(4), r.text(), r.uint(3), r.uint(2), r.uint(1)
    pools = [f"{r.ip()}/{r.uint(1)}" for _ in range(r.varint())]
    network = Network(network_id, version, name, vni, mtu, flags, pools, r.uint(3), r.uint(8))
    r.end()
    return network


Pool = namedtuple("Pool", "id space prefix name creator wanted")


def pool_read(value):
    r = Reader(value)
    if r.uint(1) != 1:
        raise Bad("format of a pool")
    pool = Pool(r.take(16), r.uint(1), f"{r.ip()}/{r.uint(1)}", r.text(), r.uint(3), r.uint(1))
    r.end()
    return pool


def endpoint_key(endpoint_id):
    return b"E" + blake2b(endpoint_id.encode(), 16)[:8]


def endpoint_read(value):
    r = Reader(value)
    if r.uint(1) != 1:
        raise Bad("format of an endpoint")
    size = r.uint(1)
    raw = r.take(size & 127)
    short_id = raw.hex() if size & 128 else raw.decode()
    if len(short_id) > 12:
        raise Bad("short id")
    endpoint = Endpoint(short_id, r.take(6).hex(":"), r.ip(), r.ip(), r.varint())
    r.end()
    return endpoint


def endpoint_bytes(e):
    try:
        raw, flag = bytes.fromhex(e.short_id), 128
    except ValueError:
        raw, flag = e.short_id.encode(), 0
    mac = bytes.fromhex(e.mac.replace(":", ""))
    return bytes([1, len(raw) | flag]) + raw + mac + ip_bytes(e.ipv4) + ip_bytes(e.ipv6) + varint(e.since)

/* The core of gossip: entry points, dispatch, own records, start and end.
 *
 * What it promises, and how:
 *
 * Membership. Every member is probed by some other within a second or two (members_probe.c), a suspicion is checked by others
 * before it becomes a death, and a death only suspends: a dead host is asked for ever and its records stay. States merge by
 * (epoch, incarnation) (members.c).
 *
 * Records. Each host writes its own shards and nobody else's (shards*.c, rules R1-R6), pushes each change straight to every alive
 * member (sync_push.c), in big clusters by way of others (sync_tree.c), and compares roots with whom it probes anyway (sync.c).
 * Nothing is queued: what has to be sent is always read from the state. So a burst costs what is live, and a host that was away
 * for a second or a week is brought up to date by the same path.
 *
 * Identity. A host is its key; a member is known from an *admission*, signed by the sponsor and kept in the sponsor's shard of
 * topic 0, or from what we saved. Its host record (name, addresses) is a record of its own shard of topic 0. Both are internal:
 * keys of topic 0 that begin like theirs are refused in gossip_put and never shown.
 *
 * Restarts. An epoch that rose tells the others to replace what they have of us; what is put again before gossip_start, or in the
 * second after it, never flickers (R5). With the same epoch the sequence numbers go on: a saved reservation is stepped over.
 *
 * Constants (core_internal.h) and where they come from. PROBE_PERIOD 1 s, 3 helpers, suspicion 2-12 s, health 0-8: memberlist's
 * LAN profile and the Lifeguard paper (arXiv 1707.00788), with an ack timeout that follows the measured round trip (RFC 6298)
 * between 20 and 500 ms instead of a fixed 500. VERIFIERS 5, quorum 3: two pings 200 ms apart each. REFUTE_WINDOW 800 ms, after
 * a probe that takes at least 270: a host that is stopped for a second survives it; a crash is known to 50 hosts after 1.7 s in
 * the median, 4 s at worst (`sim measure_detection`), and that does not grow with their number. PUSH_RTO 15 ms: above a
 * scheduling hiccup, below what anybody notices; three tries cover 5 % loss to 1e-4. MISMATCH 300 ms: above the last retry.
 * PUSH_LAZY 100 ms: fifty hosts that come in take spare host numbers, and each tells each of the others; with a packet for each
 * change that was 75 kB for each host, now it is 33. BUCKET 8 MB/s: a quarter of what one core can seal. */
#include "gossip/core_internal.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define RESERVE_KEY "q"
#define RESERVE_VERSION 1

/* ---- door ---- */

void core_enter(struct gossip *g, uint64_t now_ms)
{
	if (now_ms > g->now)
		g->now = now_ms;
	if (g->now_us < g->now * 1000)
		g->now_us = g->now * 1000;
	g->depth++;
}

/* What the call caused leaves together. */
void core_leave(struct gossip *g)
{
	if (g->depth == 1 && g->interest_ended) {
		g->interest_ended = false;
		shards_sweep_unwanted(&g->shards);
	}
	if (g->depth == 1 && g->started) {
		while (g->members_grew && g->admissions_open) {
			g->members_grew = false;
			admit_rescan(g);
		}
		if (g->interest_said)
			interest_publish(g);
		push_flush(g);
		members_flush(g);
	}
	g->depth--;
}

uint32_t core_random(struct gossip *g, uint32_t below)
{
	uint32_t value;

	if (below < 2)
		return 0;
	g->ops.random(g->ctx, &value, sizeof(value));
	return value % below;
}

static uint64_t fresh(struct gossip *g)
{
	uint64_t value;

	g->ops.random(g->ctx, &value, sizeof(value));
	return value;
}

static void transmit(struct gossip *g, const struct gossip_addr *to, const uint8_t *packet, size_t len, bool stream)
{
	if (len == 0 || !ip_is_set(&to->ip) || g->standing.now == GOSSIP_STANDING_SILENT)
		return;
	g->counters.packets_out++;
	g->counters.bytes_out += len;
	g->counters.streamed_out += stream;
	if (stream)
		g->ops.stream(g->ctx, to, packet, len);
	else
		g->ops.send(g->ctx, to, packet, len);
}

static bool is_stream(const struct gossip *g, const struct gossip_addr *addr)
{
	return g->ops.stream && g->stream_from && addr->port == g->stream_from->port && ip_equal(&addr->ip, &g->stream_from->ip);
}

/* An answer takes the way of what it answers. */
void core_transmit(struct gossip *g, const struct gossip_addr *to, const uint8_t *packet, size_t len)
{
	transmit(g, to, packet, len, is_stream(g, to));
}

static void seal_and_send(struct gossip *g, const struct member *m, const struct gossip_addr *to, enum frame_class class,
	const struct proto_packet *packet, bool stream)
{
	uint8_t sealed[GOSSIP_PACKET_MAX];
	size_t len;

	g->sender.version = m->wire;
	len = frame_seal(&g->sender, &g->ring, class, &m->host_id, packet->bytes, packet->len, sealed);
	if (class == FRAME_CLASS_PUSH || class == FRAME_CLASS_SYNC)
		g->bucket -= (int64_t)len;
	transmit(g, to, sealed, len, stream);
}

void core_send_to(struct gossip *g, const struct member *m, const struct gossip_addr *to, enum frame_class class,
	const struct proto_packet *packet)
{
	seal_and_send(g, m, to, class, packet, is_stream(g, to));
}

void core_send_by(
	struct gossip *g, const struct member *m, enum frame_class class, const struct proto_packet *packet, bool stream)
{
	seal_and_send(g, m, &m->addr, class, packet, stream);
}

void core_send(struct gossip *g, struct member *m, enum frame_class class, const struct proto_packet *packet)
{
	if (m == g->stream_member)
		core_send_to(g, m, g->stream_from, class, packet);
	else
		core_send_by(g, m, class, packet, m->by_stream);
}

static void send_hello(struct gossip *g, struct member *m, const struct gossip_addr *to, const struct frame_hello *hello)
{
	uint8_t sealed[GOSSIP_PACKET_MAX];

	core_transmit(g, to, sealed, frame_hello_seal(&g->sender, &g->ring, &m->host_id, hello, sealed));
}

void core_hello(struct gossip *g, struct member *m)
{
	struct frame_hello hello;

	if (frame_peer_ask(&m->frame, GOSSIP_PACKET_MAX, fresh(g), g->now, &hello))
		send_hello(g, m, &m->addr, &hello);
}

/* ---- own records ---- */

void core_reserve_seq(struct gossip *g)
{
	uint8_t val[13];
	struct bytes_writer w;

	if (g->shards.seq < g->seq_reserved)
		return;
	g->seq_reserved = g->shards.seq + SEQ_RESERVE;
	bw_init(&w, val, sizeof(val));
	bw_u8(&w, RESERVE_VERSION);
	bw_u32(&w, g->self->epoch);
	bw_u64(&w, g->seq_reserved);
	g->ops.save(g->ctx, RESERVE_KEY, 1, val, w.len);
}

static bool is_internal(uint64_t topic, const uint8_t *key, size_t key_len)
{
	if (topic != 0)
		return false;
	if (key_len == 2 && key[0] == INTEREST_KEY)
		return true;
	return (key_len == 1 && (key[0] == HOST_RECORD_KEY[0] || key[0] == KEYS_RECORD_KEY[0] || key[0] == MARK_RECORD_KEY[0])) ||
	       (key_len == SAVED_KEY_SIZE && key[0] == 'a');
}

bool core_put(struct gossip *g, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len)
{
	struct shard *shard;
	bool full;

	core_reserve_seq(g);
	shard = shards_put(&g->shards, topic, key, key_len, val, val_len, g->now, &full);
	if (!shard)
		return !full;
	if (g->settled && !shard->settled)
		shards_confirm_settled(&g->shards, shard);
	push_changed(g, shard);
	return true;
}

static int say_limit(const struct gossip *g, uint64_t topic, struct err *err)
{
	const unsigned long long limit = g->shards.met < SHARDS_LIMIT_MEMORY ? g->shards.max[g->shards.met] : 0;

	switch (g->shards.met) {
	case SHARDS_LIMIT_HOST:
		return err_set(err, ERR_EXHAUSTED,
			"gossip records: this host publishes %llu already, the most that one may; the record is not published: "
			"move some of its endpoints to other hosts",
			limit);
	case SHARDS_LIMIT_TOPIC:
		return err_set(err, ERR_EXHAUSTED,
			"gossip records: all hosts together publish %llu for one network (%016llx) already, the most that there "
			"may be; the record is not published: use several networks",
			limit, (unsigned long long)topic);
	case SHARDS_LIMIT_ALL:
		return err_set(err, ERR_EXHAUSTED,
			"gossip records: %llu of all hosts are kept here, the most that there may be; the record is not "
			"published: the cluster is too big",
			limit);
	default:
		return err_set(err, ERR_EXHAUSTED,
			"gossip records: no memory, or more than %d shards; the record is not published", SHARDS_MAX);
	}
}

static int put(struct gossip *g, uint64_t topic, const void *key, size_t key_len, const void *val, size_t len, bool lazy,
	uint64_t now_ms, struct err *err)
{
	bool ok;

	if (key_len == 0 || key_len > GOSSIP_KEY_MAX)
		return err_set(err, ERR_TOO_BIG, "gossip record key: expected 1..%d bytes, found %zu", GOSSIP_KEY_MAX, key_len);
	if (len > GOSSIP_VALUE_MAX)
		return err_set(
			err, ERR_TOO_BIG, "gossip record value: expected at most %d bytes, found %zu", GOSSIP_VALUE_MAX, len);
	if (is_internal(topic, key, key_len))
		return err_set(err, ERR_INVALID, "gossip record key of topic 0 belongs to the membership: use another key");
	if (!shards_keeps(&g->shards, topic))
		return err_set(err, ERR_INVALID,
			"gossip topic %016llx: this host does not subscribe to it, and cannot publish in it",
			(unsigned long long)topic);
	core_enter(g, now_ms);
	if (lazy)
		push_gather(g, PUSH_LAZY_MS);
	else
		g->gather_ms = NEVER;
	ok = core_put(g, topic, key, key_len, len > 0 ? val : "", len);
	core_leave(g);
	return ok ? 0 : say_limit(g, topic, err);
}

int gossip_put(struct gossip *g, uint64_t topic, const void *key, size_t key_len, const void *val, size_t len, uint64_t now_ms,
	struct err *err)
{
	return put(g, topic, key, key_len, val, len, false, now_ms, err);
}

int gossip_put_lazily(struct gossip *g, uint64_t topic, const void *key, size_t key_len, const void *val, size_t len,
	uint64_t now_ms, struct err *err)
{
	return put(g, topic, key, key_len, val, len, true, now_ms, err);
}

void core_del(struct gossip *g, uint64_t topic, const void *key, size_t key_len)
{
	struct shard *shard;

	core_reserve_seq(g);
	shard = shards_del(&g->shards, topic, key, key_len, g->now);
	if (shard)
		push_changed(g, shard);
}

void gossip_del(struct gossip *g, uint64_t topic, const void *key, size_t key_len, uint64_t now_ms)
{
	if (is_internal(topic, key, key_len))
		return;
	core_enter(g, now_ms);
	g->gather_ms = NEVER;
	core_del(g, topic, key, key_len);
	core_leave(g);
}

const void *gossip_get(const struct gossip *g, uint32_t origin, uint64_t topic, const void *key, size_t key_len, size_t *ret_len)
{
	const struct shard *shard = shards_find(&g->shards, origin, topic);
	const struct record *r =
		shard && !is_internal(topic, key, key_len) ? shards_record(shard, &g->shards, key, key_len) : NULL;

	if (!r)
		return NULL;
	*ret_len = r->val_len;
	return record_val(r);
}

void gossip_each_record(const struct gossip *g,
	void (*fn)(void *ctx, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len),
	void *ctx)
{
	for (size_t i = 0; i < g->shards.table_size; i++) {
		for (const struct record *r = g->shards.table[i]; r; r = r->chain) {
			uint8_t key[GOSSIP_KEY_MAX];
			size_t key_len = record_key(r, key);

			if (!r->deleted && !is_internal(r->shard->id.topic, key, key_len))
				fn(ctx, r->shard->id.origin, r->shard->id.topic, key, key_len, record_val(r), r->val_len);
		}
	}
}

/* ---- records of others ---- */

static void on_record(void *ctx, const struct shard *shard, const void *key, size_t key_len, const void *val, size_t val_len)
{
	struct gossip *g = ctx;

	if (!is_internal(shard->id.topic, key, key_len)) {
		g->ops.record(g->ctx, shard->id.origin, shard->id.topic, key, key_len, val, val_len);
		return;
	}
	g->stirred = true;
	if (key_len == 2) {
		interest_record(g, shard->id.origin);
		return;
	}
	if (!val) { /* who was admitted stays known */
		if (key_len == SAVED_KEY_SIZE)
			admit_own_gone(g, key);
		else if (*(const uint8_t *)key == KEYS_RECORD_KEY[0])
			keys_record_gone(g, shard->id.origin);
		return;
	}
	if (key_len == 1 && *(const uint8_t *)key == KEYS_RECORD_KEY[0])
		keys_record(g, shard->id.origin, val, val_len);
	else if (key_len == 1 && *(const uint8_t *)key == MARK_RECORD_KEY[0])
		standing_mark_record(g, shard->id.origin, val, val_len);
	else if (key_len == 1)
		admit_host_record(g, shard->id.origin, shard->epoch, val, val_len);
	else if (!admit_record(g, key, key_len, val, val_len))
		g->admissions_open = true;
}

/* While our own probes fail we may be the one that is not heard: others say that the origin is alive, and our questions for what
 * it has in its new epoch do not arrive. */
static bool expires(void *ctx, uint32_t origin)
{
	const struct gossip *g = ctx;
	const struct member *m = members_find(g, origin);

	return !m || m->state == GOSSIP_LEFT || (m->state == GOSSIP_ALIVE && g->lifeguard == 0);
}

static void on_conflict(void *ctx, const struct shard *shard, uint64_t seq)
{
	(void)ctx; /* counted in shards.conflicts; the origin is refused from here on */
	(void)shard;
	(void)seq;
}

/* ---- packets ---- */

static bool on_members(struct gossip *g, struct member *m, struct bytes_reader *body)
{
	struct proto_packet packet = {0};
	struct proto_list better;
	struct proto_entry claim;
	unsigned count = 0;
	uint8_t flags;

	if (!proto_get_members_flags(body, &flags))
		return false;
	proto_members_open(&better, &packet, 0);
	while (proto_get_entry(body, &claim)) {
		struct member *about;
		struct proto_entry ours;

		if (!members_claim(g, m, &claim) || (about = members_find(g, claim.hostno)) == NULL)
			continue;
		members_entry(about, &ours);
		if (!about->unheard && proto_members_add(&better, &ours))
			count++;
	}
	if (count > 0 && proto_list_close(&better))
		core_send(g, m, FRAME_CLASS_MEMBERSHIP, &packet);
	return br_done(body);
}

static bool on_tell(struct gossip *g, struct member *m, struct bytes_reader *body)
{
	const uint8_t *bytes;
	size_t len;
	uint8_t kind;

	if (!proto_get_tell(body, &kind, &bytes, &len))
		return false;
	if (kind >= KEYS_TELL)
		keys_told(g, m, kind, bytes, len);
	else
		g->ops.told(g->ctx, m->hostno, kind, bytes, len);
	return true;
}

static bool on_seq(struct gossip *g, struct member *m, uint8_t type, struct bytes_reader *body)
{
	uint32_t seq;

	if (!proto_get_seq(body, &seq))
		return false;
	if (type == PROTO_NACK)
		probe_on_nack(g, m, seq);
	else
		probe_on_indirect_ack(g, seq);
	return true;
}

static bool on_probe(struct gossip *g, struct member *m, uint8_t type, struct bytes_reader *body)
{
	union {
		struct proto_ping ping;
		struct proto_ping_req req;
		struct proto_entry suspect;
		struct proto_verdict verdict;
	} u;

	switch (type) {
	case PROTO_PING:
		if (!proto_get_ping(body, &u.ping))
			return false;
		probe_on_ping(g, m, &u.ping);
		return true;
	case PROTO_ACK:
		if (!proto_get_ping(body, &u.ping))
			return false;
		probe_on_ack(g, m, &u.ping);
		return true;
	case PROTO_PING_REQ:
		if (!proto_get_ping_req(body, &u.req))
			return false;
		probe_on_ping_req(g, m, &u.req);
		return true;
	case PROTO_VERIFY:
		if (!proto_get_verify(body, &u.suspect))
			return false;
		probe_on_verify(g, m, &u.suspect);
		return true;
	case PROTO_VERDICT:
		if (!proto_get_verdict(body, &u.verdict))
			return false;
		probe_on_verdict(g, &u.verdict);
		return true;
	default:
		return on_seq(g, m, type, body);
	}
}

static bool dispatch(struct gossip *g, struct member *m, uint8_t type, struct bytes_reader *body, struct sync_answer *answer)
{
	struct proto_batch batch;
	struct proto_root root;

	switch (type) {
	case PROTO_PING:
	case PROTO_ACK:
	case PROTO_PING_REQ:
	case PROTO_NACK:
	case PROTO_INDIRECT_ACK:
	case PROTO_VERIFY:
	case PROTO_VERDICT:
		return on_probe(g, m, type, body);
	case PROTO_MEMBERS:
		return on_members(g, m, body);
	case PROTO_BATCH:
		if (!proto_get_batch(body, m->hostno, &batch))
			return false;
		sync_on_batch(g, m, &batch, answer);
		return true;
	case PROTO_PUSH_ACK:
		return push_on_ack(g, m, body);
	case PROTO_ROOT:
		if (!proto_get_root(body, &root))
			return false;
		sync_on_root(g, m, &root);
		return true;
	case PROTO_VECTOR:
		return sync_on_vector(g, m, body);
	case PROTO_PULL:
		return sync_on_pull(g, m, body);
	case PROTO_HEADS:
		return sync_on_heads(g, m, body);
	case PROTO_TELL:
		return on_tell(g, m, body);
	case PROTO_RELAY:
		return tree_on_relay(g, m, body, answer);
	case PROTO_RELAY_ACK:
		return tree_on_ack(g, m, body);
	case PROTO_RECALL:
		return standing_on_recall(g, m, body);
	case PROTO_SKETCH_ASK:
		return sketch_on_ask(g, m, body);
	case PROTO_SKETCH:
		return sketch_on_symbols(g, m, body);
	case PROTO_AUDIT:
		return sync_on_audit(g, m, body);
	case PROTO_BUSY:
		return sync_on_busy(g, m, body);
	case PROTO_STANDING:
		return standing_on_verdict(g, m, body);
	default:
		return true; /* of a newer version */
	}
}

/* What nearly all packets are. All that these may bring forward is among the times that gossip_due looks at. */
static bool is_ordinary(uint8_t type)
{
	return type == PROTO_PING || type == PROTO_ACK || type == PROTO_PUSH_ACK || type == PROTO_BATCH;
}

/* The messages of one authentic packet. Also the entry of the fuzzer. */
void core_messages(struct gossip *g, struct member *m, const uint8_t *plain, size_t len)
{
	struct sync_answer answer;
	struct bytes_reader packet, body;
	uint8_t type;

	sync_answer_open(&answer);
	br_init(&packet, plain, len);
	while (proto_next(&packet, &type, &body)) {
		g->stirred |= !is_ordinary(type);
		if (dispatch(g, m, type, &body, &answer))
			continue;
		packet.bad = true;
		break;
	}
	if (packet.bad)
		g->counters.refused_decode++;
	sync_answer_send(g, m, &answer);
}

/* The peer started since we last spoke, or we did: what it has of us and we of it is unknown. */
static void on_established(struct gossip *g, struct member *m)
{
	m->heard_ms = g->now;
	if (introduce_established(g, m))
		return;
	sync_reset(g, m);
	push_reset(g, m, true);
	m->table_now = true;
	standing_met(g, m);
	probe_ping(g, m, PING_OTHER);
	if (g->settled)
		sync_heads(g, m);
}

static void count_verdict(struct gossip *g, enum frame_verdict verdict)
{
	uint64_t *const counter[] = {
		[FRAME_OK] = NULL,
		[FRAME_SHORT] = &g->counters.refused_short,
		[FRAME_VERSION_UNKNOWN] = &g->counters.refused_version,
		[FRAME_SENDER] = &g->counters.refused_sender,
		[FRAME_BOOT] = &g->counters.refused_boot,
		[FRAME_KEY] = &g->counters.refused_key,
		[FRAME_REPLAY] = &g->counters.refused_replay,
		[FRAME_DECODE] = &g->counters.refused_decode,
	};

	if (counter[verdict])
		(*counter[verdict])++;
}

/* An old packet that somebody repeats says no more than that its key was in use once: keys only go on. */
static void note_key(struct gossip *g, const void *packet)
{
	const uint8_t wire_id = ((const uint8_t *)packet)[1];

	if (wire_id != g->ring.active)
		keys_heard(g, wire_id);
}

static void on_hello(struct gossip *g, struct member *m, const struct gossip_addr *from, const void *packet, size_t len)
{
	struct frame_hello_outcome outcome = {0};
	enum frame_verdict verdict = frame_hello_handle(&m->frame, &g->sender, &g->ring, packet, len, fresh(g), g->now, &outcome);

	count_verdict(g, verdict);
	if (verdict == FRAME_KEY)
		recover_want(g, m);
	if (verdict != FRAME_OK)
		return;
	note_key(g, packet);
	if (outcome.answer)
		send_hello(g, m, from, &outcome.reply);
	if (outcome.twin)
		standing_twin_seen(g, m, from);
	if (!outcome.established)
		return;
	/* Not before: until our number has come back, the packet may be an old one that somebody repeats from elsewhere. */
	if (!ip_is_set(&m->addr.ip) && !g->stream_from)
		m->addr = *from;
	g->stream_member = g->stream_from ? m : NULL;
	on_established(g, m);
}

static void on_frame(struct gossip *g, struct member *m, const struct gossip_addr *from, const void *packet, size_t len)
{
	uint8_t plain[GOSSIP_PACKET_MAX];
	size_t plain_len = 0;
	enum frame_verdict verdict = frame_open(&m->frame, &g->sender, &g->ring, packet, len, plain, &plain_len);
	struct frame_hello hello;

	count_verdict(g, verdict);
	g->stirred |= verdict == FRAME_KEY;
	if (verdict == FRAME_KEY)
		recover_want(g, m);
	/* Also to where we know it: whoever sends in its name must not use up the questions that it could answer. */
	if (verdict == FRAME_BOOT && frame_peer_ask(&m->frame, len, fresh(g), g->now, &hello)) {
		send_hello(g, m, from, &hello);
		if (m->addr.port != from->port || !ip_equal(&m->addr.ip, &from->ip))
			send_hello(g, m, &m->addr, &hello);
	}
	if (verdict != FRAME_OK)
		return;
	if (!ip_is_set(&m->addr.ip) && !g->stream_from)
		m->addr = *from;
	if (m->heard_ms == 0)
		introduce_heard(g, m);
	m->heard_ms = g->now;
	g->stream_member = g->stream_from ? m : NULL;
	note_key(g, packet);
	core_messages(g, m, plain, plain_len);
	if (g->begin_ms != NEVER && introduce_is_source(g, m)) {
		if (!g->begun)
			introduce_begin(g, m);
		g->begin_ms = NEVER;
	}
}

void gossip_packet(struct gossip *g, const struct gossip_addr *from, const void *packet, size_t len, uint64_t now_ms)
{
	struct frame_header header;
	enum frame_verdict verdict;
	struct member *m;
	uint64_t shape = g->member_shape;

	if (!g->started || g->left)
		return;
	core_enter(g, now_ms);
	g->counters.packets_in++;
	g->counters.bytes_in += len;
	verdict = frame_peek_up_to(packet, len, g->sender.version_max, &header);
	g->stirred |= verdict == FRAME_OK && header.class > FRAME_CLASS_SYNC;
	m = verdict == FRAME_OK && header.class != FRAME_CLASS_ADMISSION ? members_find(g, header.hostno) : NULL;
	if (verdict != FRAME_OK)
		count_verdict(g, verdict);
	else if (header.class == FRAME_CLASS_ADMISSION) {
		if (!recover_packet(g, from, packet, len))
			admit_on_join(g, from, packet, len);
	} else if (m && m->forgotten)
		forget_tell(g, m, from, len);
	else if (!m || m == g->self)
		g->counters.refused_sender++;
	else if (header.class == FRAME_CLASS_HELLO)
		on_hello(g, m, from, packet, len);
	else
		on_frame(g, m, from, packet, len);
	g->stirred |= shape != g->member_shape;
	core_leave(g);
}

void gossip_stream_packet(struct gossip *g, const struct gossip_addr *from, const void *packet, size_t len, uint64_t now_ms)
{
	g->counters.streamed_in++;
	g->stream_from = from;
	gossip_packet(g, from, packet, len, now_ms);
	g->stream_from = NULL;
	g->stream_member = NULL;
}

/* ---- life ---- */

struct gossip *gossip_new(const struct gossip_config *config, const struct gossip_ops *ops, void *ctx, uint64_t now_ms)
{
	static const struct shards_ops shards_ops = {.record = on_record, .conflict = on_conflict, .expires = expires};
	struct gossip *g = calloc(1, sizeof(*g));
	struct member_save self = {.hostno = config->hostno, .epoch = config->epoch, .addr = config->addr, .vtep = config->vtep};

	if (!g)
		return NULL;
	g->config = *config;
	g->ops = *ops;
	g->ctx = ctx;
	g->now = g->called_ms = g->bucket_ms = now_ms;
	g->bucket = BUCKET_BURST;
	g->news_ms = g->probe_ms = g->dead_ms = g->unheard_ms = g->shards_ms = g->heads_ms = g->tree_ms = g->member_due_ms =
		g->interest_ms = g->suspects_ms = g->joins_ms = g->newcomer_ms = g->introduce_ms = g->begin_ms = g->gather_ms =
			g->ack_ms = g->known_ms = NEVER;
	g->newcomer = !id_is_zero(&config->source);
	g->sender = (struct frame_sender){.hostno = config->hostno,
		.host_id = config->identity->id,
		.cluster_id = config->cluster_id,
		.boot = config->boot_tag,
		.version_max = config->wire_max ? config->wire_max : FRAME_VERSION};
	keys_init(g);
	shards_init(&g->shards, config->hostno, config->epoch, &shards_ops, g);
	self.host_id = config->identity->id;
	memcpy(self.public_key, config->identity->public_key, sizeof(self.public_key));
	memcpy(self.name, config->name, sizeof(self.name));
	g->self = members_add(g, &self);
	if (!g->self)
		abort();
	g->self->unheard = false;
	members_set_state(g, g->self, GOSSIP_ALIVE);
	return g;
}

void gossip_free(struct gossip *g)
{
	struct kept *kept;

	if (!g)
		return;
	HASH_CLEAR(hh, g->by_hostno);
	HASH_CLEAR(hh_id, g->by_id);
	for (unsigned i = 0; i < g->member_count; i++) {
		frame_peer_fini(&g->slots[i]->frame);
		free(g->slots[i]);
	}
	while ((kept = g->kept)) {
		g->kept = kept->next;
		free(kept);
	}
	free(g->own_admission);
	admit_free(g);
	free(g->joins);
	introduce_free(g);
	members_free_left(g);
	tree_free(g);
	sketch_free(g);
	shards_fini(&g->shards);
	frame_ring_wipe(&g->ring);
	sodium_memzero(&g->keys, sizeof(g->keys));
	handshake_wipe(&g->recover.hs);
	forget_free(g);
	free(g->slots);
	free(g->spreading);
	free(g->sorted);
	free(g->dirty);
	free(g->direct);
	free(g);
}

static int restore_member(struct gossip *g, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct member_save save;
	struct member *m;

	if (member_save_decode(key, key_len, val, len, &save, err) < 0)
		return -1;
	if (id_equal(&save.host_id, &g->self->host_id)) {
		/* Only written when somebody proved a later epoch of ours. */
		if (save.epoch > g->self->epoch)
			core_raise_epoch(g, save.epoch + (save.epoch < UINT32_MAX), 0);
		return 0;
	}
	if (members_find(g, save.hostno) || members_by_id(g, &save.host_id))
		return 0;
	m = members_add(g, &save);
	if (!m)
		return err_set(err, ERR_EXHAUSTED, "gossip members: more than %d are saved", GOSSIP_MEMBERS_MAX);
	m->at_start = true;
	return 0;
}

static int restore_reserve(struct gossip *g, const void *val, size_t len, struct err *err)
{
	struct bytes_reader r;
	uint8_t version;
	uint32_t epoch;
	uint64_t seq;

	br_init(&r, val, len);
	version = br_u8(&r);
	if (!r.bad && version > RESERVE_VERSION)
		return err_set(
			err, ERR_VERSION, "gossip sequence reservation: expected version %d, found %u", RESERVE_VERSION, version);
	epoch = br_u32(&r);
	seq = br_u64(&r);
	if (!br_done(&r) || version != RESERVE_VERSION)
		return err_set(
			err, ERR_CORRUPT, "gossip sequence reservation: expected 13 bytes, found %zu that do not decode", len);
	if (epoch == g->self->epoch && seq > g->shards.seq)
		g->shards.seq = g->shards.base = g->seq_reserved = seq;
	return 0;
}

int gossip_restore(struct gossip *g, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	const uint8_t *kind = key;

	if (key_len == SAVED_KEY_SIZE && kind[0] == 'm')
		return restore_member(g, key, key_len, val, len, err);
	if (key_len == SAVED_KEY_SIZE && kind[0] == 'a')
		return admit_restore(g, key, key_len, val, len, err);
	if (key_len == SAVED_KEY_SIZE && kind[0] == 'l')
		return members_restore_left(g, key, key_len, val, len, err);
	if (key_len == SAVED_KEY_SIZE && kind[0] == 'f')
		return forget_restore(g, key, val, len, err);
	if (key_len == 1 && kind[0] == KEYS_RECORD_KEY[0])
		return keys_restore(g, val, len, err);
	if (key_len == 1 && kind[0] == KEYS_WANTED_KEY[0])
		return keys_restore_wanted(g, val, len, err);
	if (key_len == 1 && kind[0] == RESERVE_KEY[0])
		return restore_reserve(g, val, len, err);
	return err_set(err, ERR_CORRUPT, "gossip saved pair: expected a key of kind m, a, l, f, k or q, found one of %zu bytes",
		key_len);
}

void gossip_start(struct gossip *g, uint64_t now_ms)
{
	core_enter(g, now_ms);
	g->started = true;
	g->called_ms = g->now;
	for (unsigned i = 0; i < g->member_count; i++)
		g->slots[i]->suspect_until_ms = g->now + UNHEARD_MS;
	g->suspects_ms = g->now + UNHEARD_MS;
	if (!admit_speaks(g))
		core_publish_self(g);
	keys_publish(g);
	interest_publish(g);
	admit_publish(g);
	members_start(g);
	forget_start(g);
	standing_open(g);
	probe_start(g);
	g->shards_ms = g->now + SHARDS_TICK_MS;
	g->heads_ms = g->now + SETTLE_MS;
	g->heads_left = 3;
	g->audit_ms = g->now + AUDIT_GAP_MS + core_random(g, AUDIT_GAP_MS);
	if (g->newcomer) { /* nobody holds anything of an earlier life */
		g->settled = true;
		shards_settle_own(&g->shards);
		g->heads_ms = NEVER;
		g->newcomer_ms = g->now + SETTLE_MS;
		g->lacks_until_ms = g->now + LACKS_MS;
		g->known_gap_ms = KNOWN_FIRST_MS;
		g->known_ms = g->now + g->known_gap_ms;
		introduce_start(g);
	}
	core_leave(g);
}

uint64_t gossip_due(const struct gossip *g)
{
	uint64_t due = g->news_ms;

	if (g->stirred)
		return 0;
	sooner(&due, g->tree_ms);
	sooner(&due, g->member_due_ms);
	sooner(&due, g->gather_ms);
	sooner(&due, g->ack_ms);
	sooner(&due, g->interest_ms);
	sooner(&due, g->suspects_ms);
	sooner(&due, g->introduce_ms);
	sooner(&due, g->keys.next_ms);
	return due;
}

uint64_t gossip_tick(struct gossip *g, uint64_t now_ms)
{
	uint64_t next, gap;
	bool members_due;

	if (!g->started || g->left)
		return NEVER;
	core_enter(g, now_ms);
	g->stirred = false;
	gap = g->now - g->called_ms;
	g->called_ms = g->now;
	if (gap > PAUSE_MS) {
		probe_paused(g, gap);
		shards_paused(&g->shards, g->now);
	}
	if (g->now >= g->ack_ms)
		push_pay(g);
	next = probe_tick(g);
	members_due = g->now >= g->member_due_ms;
	if (members_due)
		g->member_due_ms = NEVER;
	sooner(&next, sync_tick(g, members_due));
	sooner(&next, interest_tick(g));
	sooner(&next, keys_tick(g));
	sooner(&next, standing_tick(g));
	sooner(&next, admit_tick(g));
	sooner(&next, introduce_tick(g));
	core_leave(g);
	core_enter(g, now_ms);
	if (members_due)
		push_tick(g);
	sooner(&next, tree_tick(g));
	core_leave(g);
	sooner(&next, g->news_ms);
	sooner(&next, g->tree_ms);
	sooner(&next, g->member_due_ms);
	sooner(&next, g->gather_ms);
	sooner(&next, g->interest_ms);
	sooner(&next, g->ack_ms);
	return next > g->now ? next : g->now + 1;
}

void gossip_clock_us(struct gossip *g, uint64_t now_us)
{
	if (now_us > g->now_us)
		g->now_us = now_us;
}

/* Somebody knows of a later epoch of ours than we do: our state was set back. Nothing of the old numbering may be used again. */
void core_raise_epoch(struct gossip *g, uint32_t epoch, uint64_t past_seq)
{
	shards_raise_own_epoch(&g->shards, epoch, past_seq);
	g->self->epoch = epoch;
	g->self->incarnation = 0;
	members_announce_self(g);
	members_save(g, g->self);
	if (!g->started)
		return;
	g->seq_reserved = 0;
	core_publish_self(g); /* an admission speaks of the first epoch */
	core_reserve_seq(g);
	for (unsigned i = 0; i < g->member_count; i++)
		if (g->slots[i] != g->self)
			push_reset(g, g->slots[i], true);
}

int gossip_tell(
	struct gossip *g, uint32_t to_hostno, uint8_t kind, const void *body, size_t len, uint64_t now_ms, struct err *err)
{
	struct member *m = members_find(g, to_hostno);
	struct proto_packet packet = {0};

	if (kind >= KEYS_TELL)
		return err_set(err, ERR_INVALID, "gossip message: kinds from %d on are not the application's", KEYS_TELL);
	if (len > GOSSIP_TELL_MAX)
		return err_set(err, ERR_TOO_BIG, "gossip message: expected at most %d bytes, found %zu", GOSSIP_TELL_MAX, len);
	if (!m || m == g->self)
		return err_set(err, ERR_NOT_FOUND, "gossip message to host %u: no such other member", to_hostno);
	if (m->state == GOSSIP_LEFT)
		return err_set(
			err, ERR_UNREACHABLE, "gossip message to host %u (%s): it has left the cluster", to_hostno, m->name);
	core_enter(g, now_ms);
	proto_put_tell(&packet, kind, body, len);
	core_send(g, m, FRAME_CLASS_MEMBERSHIP, &packet);
	core_leave(g);
	return 0;
}

bool gossip_in_step(const struct gossip *g)
{
	for (unsigned i = 0; i < g->member_count; i++) {
		const struct member *m = g->slots[i];

		if (m == g->self || m->in_step)
			continue;
		if (m->state == GOSSIP_ALIVE || (m->unheard && m->at_start))
			return false;
	}
	return true;
}

/* Twice, since nobody acknowledges it; who misses both hears it from the others, or sees a death. */
void gossip_leave(struct gossip *g, uint64_t now_ms)
{
	struct proto_packet packet = {0};
	struct proto_list list;
	struct proto_entry entry;

	if (!g->started || g->left)
		return;
	core_enter(g, now_ms);
	g->gather_ms = NEVER;
	push_flush(g);
	members_set_state(g, g->self, GOSSIP_LEFT);
	members_entry(g->self, &entry);
	proto_members_open(&list, &packet, 0);
	proto_members_add(&list, &entry);
	proto_list_close(&list);
	for (unsigned i = 0; i < 2 * g->member_count; i++) {
		struct member *m = g->slots[i % g->member_count];

		if (member_usable(g, m))
			core_send(g, m, FRAME_CLASS_MEMBERSHIP, &packet);
	}
	g->left = true;
	g->depth--;
}

void gossip_set_self(struct gossip *g, const char *name, const struct gossip_addr *addr, const struct ip *vtep, uint64_t now_ms)
{
	core_enter(g, now_ms);
	memset(g->self->name, 0, sizeof(g->self->name));
	memcpy(g->self->name, name, strnlen(name, GOSSIP_NAME_MAX));
	g->self->addr = *addr;
	g->self->vtep = *vtep;
	if (g->started)
		core_publish_self(g);
	core_leave(g);
}

const struct gossip_counters *gossip_counters(const struct gossip *g)
{
	struct gossip_counters *c = (struct gossip_counters *)&g->counters; /* the object itself is not const */

	c->records_refused = g->shards.refused;
	c->records_refused_host = g->shards.refused_by[SHARDS_LIMIT_HOST];
	c->records_refused_topic = g->shards.refused_by[SHARDS_LIMIT_TOPIC];
	c->records_refused_all = g->shards.refused_by[SHARDS_LIMIT_ALL];
	c->record_count = g->shards.live_count;
	c->subscriptions = g->subscriptions;
	c->unwanted = g->shards.unwanted;
	c->resets = g->shards.resets;
	c->conflicts = g->conflicts + g->shards.conflicts;
	return c;
}

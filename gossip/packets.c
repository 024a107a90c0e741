/* Packets out and in: which way one goes and under which version it is sealed, what is done with each that comes, and which file
 * gets the messages in it. The bytes: frame.c (the outside) and proto.c (the messages).
 *
 * Always: an answer takes the way of what it answers, by UDP or by a stream; nothing leaves while our standing is silent; no
 * address is learned and no message is looked at before the packet has proved whose it is; a body that does not decode ends its
 * packet and is counted, and a type that is not known is of a newer version and passed over. */
#include "gossip/core_internal.h"

/* ---- sending ---- */

static uint64_t fresh(struct gossip *g)
{
	uint64_t value;

	g->ops.random(g->ctx, &value, sizeof(value));
	return value;
}

/* False: there is nothing to send. */
static bool count_sent(struct gossip *g, const struct gossip_addr *to, size_t len, bool stream)
{
	if (len == 0 || !ip_is_set(&to->ip) || g->standing.now == GOSSIP_STANDING_SILENT)
		return false;
	g->counters.packets_out++;
	g->counters.bytes_out += len;
	g->counters.streamed_out += stream;
	return true;
}

static void transmit(struct gossip *g, const struct gossip_addr *to, const uint8_t *packet, size_t len, bool stream)
{
	if (!count_sent(g, to, len, stream))
		return;
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

void core_transmit_saved(struct gossip *g, const struct gossip_addr *to, const uint8_t *packet, size_t len)
{
	bool stream = is_stream(g, to);

	if (!g->ops.send_saved)
		transmit(g, to, packet, len, stream);
	else if (count_sent(g, to, len, stream))
		g->ops.send_saved(g->ctx, to, packet, len, stream);
}

static void seal_and_send(struct gossip *g, const struct member *m, const struct gossip_addr *to, enum frame_class class,
	const struct proto_packet *packet, bool stream)
{
	uint8_t sealed[GOSSIP_PACKET_MAX];
	size_t len;

	g->sender.version = m->wire;
	len = frame_seal(&g->sender, &g->ring, class, &m->frame.host_id, packet->bytes, packet->len, sealed);
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

	core_transmit(g, to, sealed, frame_hello_seal(&g->sender, &g->ring, &m->frame.host_id, hello, sealed));
}

void core_hello(struct gossip *g, struct member *m)
{
	struct frame_hello hello;

	if (frame_peer_ask(&m->frame, GOSSIP_PACKET_MAX, fresh(g), g->now, &hello))
		send_hello(g, m, &m->addr, &hello);
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

/* ---- messages ---- */

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
	if (flags & PROTO_MEMBERS_LACKS)
		bulk_begins(g, m);
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
		probe_on_verdict(g, m, &u.verdict);
		return true;
	default:
		return on_seq(g, m, type, body);
	}
}

static bool dispatch(struct gossip *g, struct member *m, uint8_t type, struct bytes_reader *body, struct sync_answer *answer)
{
	uint8_t signature[ADMISSION_SIGNATURE_SIZE];
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
		signed_batch(g, m, &batch);
		sync_on_batch(g, m, &batch, answer);
		signed_batch(g, NULL, NULL);
		return true;
	case PROTO_SIGNATURE: /* read already, ahead of what it is about */
		return proto_get_signature(body, signature);
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
	case PROTO_SUMS:
		return members_on_sums(g, m, body);
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
	signed_read(g, plain, len);
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

/* ---- receiving ---- */

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

bool gossip_stream_packet(struct gossip *g, const struct gossip_addr *from, const void *packet, size_t len, uint64_t now_ms)
{
	bool proven;

	g->counters.streamed_in++;
	g->stream_from = from;
	gossip_packet(g, from, packet, len, now_ms);
	proven = g->stream_member;
	g->stream_from = NULL;
	g->stream_member = NULL;
	return proven;
}

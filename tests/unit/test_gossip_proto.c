/* The message codec: what is written is read back; every truncation and every trailing byte is refused; limits hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "gossip/proto_internal.h"

/* The one message of a packet. */
static struct bytes_reader only_message(const struct proto_packet *packet, uint8_t type)
{
	struct bytes_reader r, body;
	uint8_t found;

	br_init(&r, packet->bytes, packet->len);
	assert_true(proto_next(&r, &found, &body));
	assert_int_equal(found, type);
	assert_int_equal(br_left(&r), 0);
	return body;
}

/* Reads any message the way the core does: true when all of it is sound. */
static bool reads(uint8_t type, const uint8_t *bytes, size_t len)
{
	union {
		struct proto_ping ping;
		struct proto_ping_req req;
		struct proto_entry entry;
		struct proto_verdict verdict;
		struct proto_root root;
		struct proto_batch batch;
		struct proto_range range;
		struct proto_head head;
		struct proto_pull pull;
		struct proto_heads heads;
		struct gossip_mark mark;
		struct proto_standing standing;
		struct proto_sketch sketch;
		struct proto_push_ack push_ack;
		struct proto_sums sums;
	} u;
	uint8_t sum[SKETCH_ITEM_SIZE], signature[64];
	uint16_t d;
	struct bytes_reader r;
	const uint8_t *body;
	uint64_t a, b;
	uint32_t c;
	uint8_t flags;
	size_t body_len;

	br_init(&r, bytes, len);
	switch (type) {
	case PROTO_PING:
	case PROTO_ACK:
		return proto_get_ping(&r, &u.ping);
	case PROTO_PING_REQ:
		return proto_get_ping_req(&r, &u.req);
	case PROTO_NACK:
	case PROTO_INDIRECT_ACK:
		return proto_get_seq(&r, &c);
	case PROTO_MEMBERS:
		if (!proto_get_members_flags(&r, &flags))
			return false;
		while (proto_get_entry(&r, &u.entry))
			;
		return br_done(&r);
	case PROTO_VERIFY:
		return proto_get_verify(&r, &u.entry);
	case PROTO_VERDICT:
		return proto_get_verdict(&r, &u.verdict);
	case PROTO_BATCH:
	case PROTO_RELAY:
		return proto_get_batch(&r, 2, &u.batch);
	case PROTO_RELAY_ACK:
		while (proto_get_head(&r, &u.head))
			;
		return br_done(&r);
	case PROTO_PUSH_ACK:
		if (!proto_get_push_ack_open(&r, &u.push_ack))
			return false;
		while (proto_get_push_ack(&r, &u.push_ack, &a, &b))
			;
		return br_done(&r);
	case PROTO_ROOT:
		return proto_get_root(&r, &u.root);
	case PROTO_VECTOR:
		if (!proto_get_range(&r, &u.range))
			return false;
		while (proto_get_head(&r, &u.head))
			;
		return br_done(&r);
	case PROTO_PULL:
		while (proto_get_pull(&r, &u.pull))
			;
		return br_done(&r);
	case PROTO_HEADS:
		if (!proto_get_heads_open(&r, &u.heads))
			return false;
		while (proto_get_heads_entry(&r, &a, &b))
			;
		return br_done(&r);
	case PROTO_TELL:
		return proto_get_tell(&r, &flags, &body, &body_len);
	case PROTO_RECALL:
		return proto_get_recall(&r, &u.mark);
	case PROTO_STANDING:
		return proto_get_standing(&r, &u.standing);
	case PROTO_SKETCH_ASK:
		return proto_get_sketch_ask(&r, &u.sketch);
	case PROTO_SKETCH:
		if (!proto_get_sketch_open(&r, &u.sketch))
			return false;
		while (proto_get_sketch_symbol(&r, &d, sum, &a))
			;
		return br_done(&r);
	case PROTO_SUMS:
		return proto_get_sums(&r, &u.sums);
	case PROTO_SIGNATURE:
		return proto_get_signature(&r, signature);
	case PROTO_AUDIT:
		while (proto_get_audit(&r, &u.head, &a))
			;
		return br_done(&r);
	case PROTO_BUSY:
		if (!proto_get_busy_open(&r, &d))
			return false;
		while (proto_get_busy_hostno(&r, &c))
			;
		return br_done(&r);
	default:
		return false;
	}
}

static const struct proto_ping ping = {.seq = 7, .epoch = 3, .incarnation = 2, .root = (u128)1 << 100 | 5, .members = 99};
static const struct proto_ping_req ping_req = {.seq = 1, .hostno = GOSSIP_HOSTNO_MAX, .timeout_ms = 400};
static const struct proto_entry entry = {.hostno = 9, .state = GOSSIP_DEAD, .epoch = UINT32_MAX, .incarnation = 300};
static const struct proto_push_ack push_ack_named = {.packets = 3, .named = true, .epoch = 6};
static const struct proto_verdict verdict = {.hostno = 9, .epoch = 2, .incarnation = 1, .alive = true};
static const struct proto_root root = {.want_reply = true, .root = 77, .members = 1};
static const struct proto_head head = {.origin = 3, .topic = UINT64_MAX, .epoch = 4, .head = UINT64_MAX, .settled = true};

static const struct gossip_mark mark = {.count = 300, .tag = 0x0102030405060708};
static const struct proto_standing standing = {
	.verdict = PROTO_TWIN_LATER, .boot = 0x1122334455667788, .epoch = 200, .mark = {.count = 1, .tag = UINT64_MAX}};

static const struct proto_sketch sketch = {
	.key = {7, 8, 9}, .first = 33, .shards = 5000, .packets = 2, .root = 0x1122334455667788};

static void put_batch(struct proto_packet *packet)
{
	struct proto_batch batch = {
		.origin = 2, .topic = 8, .epoch = 1, .flags = PROTO_BATCH_PUSH, .from = 10, .to = 300, .floor = 4, .head = 301};
	struct proto_record records[] = {
		{.seq = 11, .key = (const uint8_t *)"a", .key_len = 1, .val = (const uint8_t *)"value", .val_len = 5},
		{.seq = 200, .key = (const uint8_t *)"bb", .key_len = 2},
		{.seq = 300, .key = (const uint8_t *)"c", .key_len = 1, .val = (const uint8_t *)"", .val_len = 0},
	};
	struct proto_list list;
	uint64_t last = batch.from;

	assert_true(proto_batch_open(&list, packet));
	for (size_t i = 0; i < 3; i++) {
		assert_true(proto_batch_add(&list, last, &records[i]));
		last = records[i].seq;
	}
	assert_true(proto_batch_close(&list, &batch));
}

static void put_one(struct proto_packet *packet, uint8_t type)
{
	struct proto_range range = {.topic_lo = 1, .origin_lo = 2, .topic_hi = 3, .origin_hi = 4};
	struct proto_heads heads = {.epoch = 5, .seq = 1002, .topic_lo = 1, .topic_hi = 9};
	struct proto_pull pull = {.after = head, .flags = PROTO_PULL_LISTING};
	struct proto_sums sums = {.at = {1, 2, [PROTO_PARTS - 1] = 3}};
	uint8_t sum[SKETCH_ITEM_SIZE];
	struct proto_list list;

	packet->len = 0;
	switch (type) {
	case PROTO_PING:
	case PROTO_ACK:
		assert_true(proto_put_ping(packet, type, &ping));
		return;
	case PROTO_PING_REQ:
		assert_true(proto_put_ping_req(packet, &ping_req));
		return;
	case PROTO_NACK:
	case PROTO_INDIRECT_ACK:
		assert_true(proto_put_seq(packet, type, 0x01020304));
		return;
	case PROTO_VERIFY:
		assert_true(proto_put_verify(packet, &entry));
		return;
	case PROTO_VERDICT:
		assert_true(proto_put_verdict(packet, &verdict));
		return;
	case PROTO_BATCH:
		put_batch(packet);
		return;
	case PROTO_RELAY:
		put_batch(packet);
		proto_make_relay(packet);
		return;
	case PROTO_RELAY_ACK:
		proto_relay_ack_open(&list, packet);
		assert_true(proto_relay_ack_add(&list, &head));
		break;
	case PROTO_ROOT:
		assert_true(proto_put_root(packet, &root));
		return;
	case PROTO_TELL:
		assert_true(proto_put_tell(packet, 4, "hello", 5));
		return;
	case PROTO_RECALL:
		assert_true(proto_put_recall(packet, &mark));
		return;
	case PROTO_STANDING:
		assert_true(proto_put_standing(packet, &standing));
		return;
	case PROTO_SKETCH_ASK:
		assert_true(proto_put_sketch_ask(packet, &sketch));
		return;
	case PROTO_SUMS:
		assert_true(proto_put_sums(packet, &sums));
		return;
	case PROTO_SIGNATURE:
		assert_true(proto_put_signature(packet, (const uint8_t[64]){7}));
		return;
	case PROTO_AUDIT:
		proto_audit_open(&list, packet);
		assert_true(proto_audit_add(&list, &head, 5));
		break;
	case PROTO_BUSY:
		proto_busy_open(&list, packet, 500);
		assert_true(proto_busy_add(&list, 7));
		break;
	case PROTO_SKETCH:
		proto_sketch_item(&head, sum);
		proto_sketch_open(&list, packet, &sketch);
		assert_true(proto_sketch_add(&list, 0xffff, sum, 99));
		break;
	case PROTO_MEMBERS:
		proto_members_open(&list, packet, PROTO_MEMBERS_TABLE);
		assert_true(proto_members_add(&list, &entry));
		break;
	case PROTO_PUSH_ACK:
		proto_push_ack_open(&list, packet, &push_ack_named);
		assert_true(proto_push_ack_add(&list, &push_ack_named, 5, 7));
		break;
	case PROTO_VECTOR:
		proto_vector_open(&list, packet, &range);
		assert_true(proto_vector_add(&list, &head));
		break;
	case PROTO_PULL:
		proto_pull_open(&list, packet);
		assert_true(proto_pull_add(&list, &pull));
		break;
	case PROTO_HEADS:
		proto_heads_open(&list, packet, &heads);
		assert_true(proto_heads_add(&list, 4, 1000));
		break;
	default:
		fail();
	}
	assert_true(proto_list_close(&list));
}

static void plain_values_come_back(void **state)
{
	struct proto_packet packet;
	struct bytes_reader body;
	struct proto_ping p;
	struct proto_ping_req q;
	struct proto_entry e;
	struct proto_verdict v;
	struct proto_root o;
	struct gossip_mark m;
	struct proto_standing s;

	(void)state;
	put_one(&packet, PROTO_RECALL);
	body = only_message(&packet, PROTO_RECALL);
	assert_true(proto_get_recall(&body, &m));
	assert_true(m.count == mark.count && m.tag == mark.tag);
	put_one(&packet, PROTO_STANDING);
	body = only_message(&packet, PROTO_STANDING);
	assert_true(proto_get_standing(&body, &s));
	assert_true(s.verdict == standing.verdict && s.boot == standing.boot && s.epoch == standing.epoch && s.mark.count == 1 &&
		    s.mark.tag == UINT64_MAX);
	put_one(&packet, PROTO_ACK);
	body = only_message(&packet, PROTO_ACK);
	assert_true(proto_get_ping(&body, &p));
	assert_true(p.seq == ping.seq && p.epoch == ping.epoch && p.incarnation == ping.incarnation && p.root == ping.root &&
		    p.members == ping.members);
	put_one(&packet, PROTO_PING_REQ);
	body = only_message(&packet, PROTO_PING_REQ);
	assert_true(proto_get_ping_req(&body, &q));
	assert_true(q.seq == ping_req.seq && q.hostno == ping_req.hostno && q.timeout_ms == ping_req.timeout_ms);
	put_one(&packet, PROTO_VERIFY);
	body = only_message(&packet, PROTO_VERIFY);
	assert_true(proto_get_verify(&body, &e));
	assert_true(e.hostno == entry.hostno && e.state == entry.state && e.epoch == entry.epoch &&
		    e.incarnation == entry.incarnation);
	put_one(&packet, PROTO_VERDICT);
	body = only_message(&packet, PROTO_VERDICT);
	assert_true(proto_get_verdict(&body, &v));
	assert_true(v.hostno == verdict.hostno && v.epoch == verdict.epoch && v.incarnation == verdict.incarnation && v.alive);
	put_one(&packet, PROTO_ROOT);
	body = only_message(&packet, PROTO_ROOT);
	assert_true(proto_get_root(&body, &o));
	assert_true(o.want_reply && o.root == root.root && o.members == root.members);
}

static void a_verdict_says_how_the_verifier_is(void **state)
{
	struct proto_verdict v = {.hostno = 9, .epoch = 2, .incarnation = 1}, back;
	struct proto_packet packet = {0};
	struct bytes_reader body;

	(void)state;
	for (v.health = 0; v.health <= PROTO_HEALTH_MAX; v.health++) {
		packet.len = 0;
		assert_true(proto_put_verdict(&packet, &v));
		body = only_message(&packet, PROTO_VERDICT);
		assert_true(proto_get_verdict(&body, &back));
		assert_true(!back.alive && back.health == v.health);
	}
	packet.bytes[packet.len - 1] += 2; /* nobody is as ill */
	body = only_message(&packet, PROTO_VERDICT);
	assert_false(proto_get_verdict(&body, &back));
	packet.bytes[packet.len - 1] = 3;
	body = only_message(&packet, PROTO_VERDICT);
	assert_false(proto_get_verdict(&body, &back));
}

static void lists_come_back(void **state)
{
	struct proto_packet packet;
	struct bytes_reader body;
	struct proto_range range;
	struct proto_head h;
	struct proto_pull pull;
	struct proto_heads heads;
	uint64_t topic, at;
	struct proto_push_ack push_ack;
	struct proto_sketch k;
	uint8_t sum[SKETCH_ITEM_SIZE];
	uint16_t count;

	(void)state;
	put_one(&packet, PROTO_SKETCH);
	body = only_message(&packet, PROTO_SKETCH);
	assert_true(proto_get_sketch_open(&body, &k));
	assert_true(k.first == sketch.first && k.shards == sketch.shards && k.root == sketch.root &&
		    memcmp(k.key, sketch.key, sizeof(k.key)) == 0);
	assert_true(proto_get_sketch_symbol(&body, &count, sum, &at));
	assert_true(count == 0xffff && at == 99);
	assert_true(proto_sketch_head(sum, &h));
	assert_true(
		h.origin == head.origin && h.topic == head.topic && h.epoch == head.epoch && h.head == head.head && h.settled);
	sum[11] = 2; /* settled is 0 or 1 */
	assert_false(proto_sketch_head(sum, &h));
	put_one(&packet, PROTO_SKETCH_ASK);
	body = only_message(&packet, PROTO_SKETCH_ASK);
	assert_true(proto_get_sketch_ask(&body, &k));
	assert_true(k.first == sketch.first && k.packets == sketch.packets);
	put_one(&packet, PROTO_VECTOR);
	body = only_message(&packet, PROTO_VECTOR);
	assert_true(proto_get_range(&body, &range));
	assert_true(range.topic_lo == 1 && range.origin_lo == 2 && range.topic_hi == 3 && range.origin_hi == 4);
	assert_true(proto_get_head(&body, &h));
	assert_true(
		h.origin == head.origin && h.topic == head.topic && h.epoch == head.epoch && h.head == head.head && h.settled);
	assert_false(proto_get_head(&body, &h));
	assert_true(br_done(&body));
	put_one(&packet, PROTO_PULL);
	body = only_message(&packet, PROTO_PULL);
	assert_true(proto_get_pull(&body, &pull));
	assert_true(pull.flags == PROTO_PULL_LISTING && pull.after.head == head.head);
	put_one(&packet, PROTO_PUSH_ACK);
	body = only_message(&packet, PROTO_PUSH_ACK);
	assert_true(proto_get_push_ack_open(&body, &push_ack));
	assert_true(push_ack.packets == 3 && push_ack.named && push_ack.epoch == 6);
	assert_true(proto_get_push_ack(&body, &push_ack, &topic, &at));
	assert_true(topic == 5 && at == 7);
	assert_false(proto_get_push_ack(&body, &push_ack, &topic, &at));
	assert_true(br_done(&body));
	put_one(&packet, PROTO_HEADS);
	body = only_message(&packet, PROTO_HEADS);
	assert_true(proto_get_heads_open(&body, &heads));
	assert_true(heads.epoch == 5 && heads.seq == 1002 && heads.topic_lo == 1 && heads.topic_hi == 9);
	assert_true(proto_get_heads_entry(&body, &topic, &at));
	assert_true(topic == 4 && at == 1000);
}

static void push_ack_without_names(void **state)
{
	const struct proto_push_ack plain = {.packets = 1, .epoch = 1};
	struct proto_packet packet = {0};
	struct proto_push_ack ack;
	struct proto_list list;
	struct bytes_reader body;
	uint64_t topic, head_of;

	(void)state;
	proto_push_ack_open(&list, &packet, &plain);
	assert_true(proto_push_ack_add(&list, &plain, 5, 100));
	assert_true(proto_push_ack_add(&list, &plain, 6, 2));
	assert_true(proto_list_close(&list));
	assert_int_equal(packet.len, 6);
	body = only_message(&packet, PROTO_PUSH_ACK);
	assert_true(proto_get_push_ack_open(&body, &ack) && !ack.named && ack.packets == 1 && ack.epoch == 1);
	assert_true(proto_get_push_ack(&body, &ack, &topic, &head_of) && head_of == 100);
	assert_true(proto_get_push_ack(&body, &ack, &topic, &head_of) && head_of == 2);
	assert_false(proto_get_push_ack(&body, &ack, &topic, &head_of));
	assert_true(br_done(&body));
}

static void batch_comes_back(void **state)
{
	struct proto_packet packet = {0};
	struct bytes_reader body;
	struct proto_batch batch;
	struct proto_record record;
	size_t pos = 0;

	(void)state;
	put_batch(&packet);
	body = only_message(&packet, PROTO_BATCH);
	assert_true(proto_get_batch(&body, 2, &batch));
	assert_true(batch.origin == 2 && batch.topic == 8 && batch.epoch == 1 && batch.flags == PROTO_BATCH_PUSH &&
		    batch.from == 10 && batch.to == 300 && batch.floor == 4 && batch.head == 301);
	record.seq = batch.from;
	assert_true(proto_batch_next(&batch, &pos, &record));
	assert_true(record.seq == 11 && record.key_len == 1 && record.val_len == 5);
	assert_memory_equal(record.val, "value", 5);
	assert_true(proto_batch_next(&batch, &pos, &record));
	assert_true(record.seq == 200 && record.key_len == 2 && record.val == NULL);
	assert_true(proto_batch_next(&batch, &pos, &record));
	assert_true(record.seq == 300 && record.val != NULL && record.val_len == 0);
	assert_false(proto_batch_next(&batch, &pos, &record));
}

/* A list cut between two entries is a shorter list; anything else is refused. */
static bool may_be_cut(uint8_t type, size_t len)
{
	switch (type) {
	case PROTO_BUSY:
		return len == 2;
	case PROTO_SKETCH:
		return len == SKETCH_KEY_SIZE + 16;
	case PROTO_MEMBERS:
		return len == 1;
	case PROTO_PUSH_ACK:
		return len == 2;
	case PROTO_RELAY_ACK:
	case PROTO_PULL:
	case PROTO_AUDIT:
		return len == 0;
	case PROTO_VECTOR:
		return len == 22;
	case PROTO_HEADS:
		return len == 19;
	case PROTO_BATCH:
	case PROTO_RELAY:
		return len == 16 || len == 25 || len == 30; /* header, and behind each record but the last */
	default:
		return false;
	}
}

static void every_truncation_is_refused(void **state)
{
	(void)state;
	for (uint8_t type = PROTO_PING; type < PROTO_TYPE_MAX; type++) {
		struct proto_packet packet;
		struct bytes_reader body;
		size_t len;

		put_one(&packet, type);
		body = only_message(&packet, type);
		len = br_left(&body);
		assert_true(reads(type, body.at, len));
		for (size_t cut = 0; cut < len; cut++) {
			uint8_t copy[PROTO_PLAIN_MAX];

			memcpy(copy, body.at, cut);
			if (type == PROTO_TELL ? cut > 0 : may_be_cut(type, cut))
				assert_true(reads(type, copy, cut));
			else
				assert_false(reads(type, copy, cut));
		}
		for (size_t cut = 1; cut < packet.len; cut++) {
			struct bytes_reader r;
			uint8_t found;

			br_init(&r, packet.bytes, cut);
			assert_false(proto_next(&r, &found, &body));
			assert_true(r.bad);
		}
	}
}

static void trailing_byte_is_refused(void **state)
{
	static const uint8_t fixed[] = {PROTO_PING, PROTO_PING_REQ, PROTO_NACK, PROTO_VERIFY, PROTO_VERDICT, PROTO_ROOT,
		PROTO_BATCH, PROTO_PULL, PROTO_PUSH_ACK, PROTO_RELAY, PROTO_RELAY_ACK, PROTO_MEMBERS, PROTO_VECTOR, PROTO_HEADS,
		PROTO_RECALL, PROTO_STANDING, PROTO_SKETCH_ASK, PROTO_SKETCH, PROTO_BUSY, PROTO_AUDIT, PROTO_SUMS,
		PROTO_SIGNATURE};

	(void)state;
	for (size_t i = 0; i < sizeof(fixed); i++) {
		struct proto_packet packet;
		struct bytes_reader body;
		uint8_t copy[PROTO_PLAIN_MAX];
		size_t len;

		put_one(&packet, fixed[i]);
		body = only_message(&packet, fixed[i]);
		len = br_left(&body);
		memcpy(copy, body.at, len);
		copy[len] = 0;
		assert_false(reads(fixed[i], copy, len + 1));
	}
}

/* A batch body with one field replaced. */
static bool batch_reads(
	uint64_t from, uint64_t to, uint64_t floor, uint64_t top, uint32_t origin, uint8_t flags, uint64_t delta, uint8_t key_len)
{
	uint8_t bytes[200], key[100] = {0};
	struct bytes_writer w;

	bw_init(&w, bytes, sizeof(bytes));
	bw_u8(&w, flags);
	if (!(flags & PROTO_BATCH_PUSH))
		bw_u24(&w, origin);
	bw_u64(&w, 1);
	bw_varint(&w, 1);
	bw_varint(&w, from);
	bw_varint(&w, to);
	bw_varint(&w, floor);
	bw_varint(&w, top);
	bw_varint(&w, delta);
	bw_u8(&w, 128 | key_len); /* deleted */
	bw_bytes(&w, key, key_len);
	assert_false(w.overflow);
	return reads(PROTO_BATCH, bytes, w.len);
}

static void senseless_batches_are_refused(void **state)
{
	(void)state;
	assert_true(batch_reads(5, 9, 0, 9, 1, 0, 4, 3));
	assert_false(batch_reads(9, 9, 0, 9, 1, 0, 4, 3));  /* empty range */
	assert_false(batch_reads(9, 5, 0, 9, 1, 0, 4, 3));  /* backwards */
	assert_false(batch_reads(5, 9, 0, 8, 1, 0, 4, 3));  /* beyond the sender's head */
	assert_false(batch_reads(5, 9, 10, 9, 1, 0, 4, 3)); /* floor above head */
	assert_false(batch_reads(5, 9, 0, 9, 0, 0, 4, 3));  /* no origin */
	assert_false(batch_reads(5, 9, 0, 9, GOSSIP_HOSTNO_MAX + 1, 0, 4, 3));
	assert_false(batch_reads(5, 9, 0, 9, 1, PROTO_BATCH_FLAGS + 1, 4, 3));
	assert_false(batch_reads(5, 9, 0, 9, 1, 0, 5, 3));		 /* seq behind `to` */
	assert_false(batch_reads(5, 9, 0, 9, 1, 0, 0, 3));		 /* seq not rising */
	assert_false(batch_reads(5, 9, 0, 9, 1, 0, UINT64_MAX, 3));	 /* seq wraps */
	assert_true(batch_reads(5, 9, 0, 9, 0, PROTO_BATCH_PUSH, 4, 3)); /* whose is said by the frame */
	assert_false(batch_reads(5, 9, 0, 9, 1, 0, 4, 0));		 /* no key */
	assert_false(batch_reads(5, 9, 0, 9, 1, 0, 4, GOSSIP_KEY_MAX + 1));
}

static void largest_record_fits_an_empty_packet(void **state)
{
	static uint8_t key[GOSSIP_KEY_MAX], val[GOSSIP_VALUE_MAX];
	struct proto_packet packet = {0};
	struct proto_list list;
	struct proto_batch batch = {.origin = GOSSIP_HOSTNO_MAX,
		.topic = UINT64_MAX,
		.epoch = UINT32_MAX,
		.to = UINT64_MAX,
		.floor = UINT64_MAX,
		.head = UINT64_MAX};
	struct proto_record record = {.seq = UINT64_MAX, .key = key, .key_len = sizeof(key), .val = val, .val_len = sizeof(val)};

	(void)state;
	assert_true(proto_batch_open(&list, &packet));
	assert_true(proto_batch_add(&list, 0, &record));
	assert_true(proto_batch_close(&list, &batch));
	assert_true(packet.len <= PROTO_PLAIN_MAX);
}

static void full_packet_takes_no_more(void **state)
{
	struct proto_packet packet = {0};
	struct proto_list list;
	struct bytes_reader body;
	struct proto_entry e;
	unsigned added = 0, read = 0;
	uint8_t flags;

	(void)state;
	proto_members_open(&list, &packet, 0);
	while (proto_members_add(&list, &entry))
		added++;
	assert_true(proto_list_close(&list));
	body = only_message(&packet, PROTO_MEMBERS);
	proto_get_members_flags(&body, &flags);
	while (proto_get_entry(&body, &e))
		read++;
	assert_true(br_done(&body));
	assert_int_equal(added, read);
	assert_true(added > 90);
	assert_false(proto_put_ping(&packet, PROTO_PING, &ping));
	assert_false(proto_batch_open(&list, &packet));
}

static void unknown_type_is_stepped_over(void **state)
{
	struct proto_packet packet = {.len = 4, .bytes = {200, 2, 1, 2}};
	struct bytes_reader r, body;
	uint8_t type;

	(void)state;
	assert_true(proto_put_seq(&packet, PROTO_NACK, 5));
	br_init(&r, packet.bytes, packet.len);
	assert_true(proto_next(&r, &type, &body));
	assert_int_equal(type, 200);
	assert_true(proto_next(&r, &type, &body));
	assert_int_equal(type, PROTO_NACK);
	assert_false(proto_next(&r, &type, &body));
	assert_false(r.bad);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_values_come_back),
		cmocka_unit_test(a_verdict_says_how_the_verifier_is),
		cmocka_unit_test(lists_come_back),
		cmocka_unit_test(push_ack_without_names),
		cmocka_unit_test(batch_comes_back),
		cmocka_unit_test(every_truncation_is_refused),
		cmocka_unit_test(trailing_byte_is_refused),
		cmocka_unit_test(senseless_batches_are_refused),
		cmocka_unit_test(largest_record_fits_an_empty_packet),
		cmocka_unit_test(full_packet_takes_no_more),
		cmocka_unit_test(unknown_type_is_stepped_over),
	};

	return cmocka_run_group_tests_name("gossip proto", tests, NULL, NULL);
}

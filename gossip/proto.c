/* The message codec. See proto_internal.h for the shapes and docs/wire.md for the bytes. Every length and range that comes from
 * outside is checked here and nowhere else; the cores below trust decoded values. */
#include "gossip/proto_internal.h"

#include <string.h>

/* Type, length and body must fit behind what is there. */
static bool append(struct proto_packet *packet, uint8_t type, const void *body, size_t len)
{
	struct bytes_writer w;

	bw_init(&w, packet->bytes + packet->len, sizeof(packet->bytes) - packet->len);
	bw_u8(&w, type);
	bw_varint(&w, len);
	bw_bytes(&w, body, len);
	if (w.overflow)
		return false;
	packet->len += w.len;
	return true;
}

static uint32_t get_hostno(struct bytes_reader *r)
{
	uint32_t hostno = br_u24(r);

	if (hostno == 0 || hostno > GOSSIP_HOSTNO_MAX)
		r->bad = true;
	return hostno;
}

static uint32_t get_varint32(struct bytes_reader *r)
{
	uint64_t value = br_varint(r);

	if (value > UINT32_MAX)
		r->bad = true;
	return (uint32_t)value;
}

bool proto_put_ping(struct proto_packet *packet, enum proto_type ping_or_ack, const struct proto_ping *ping)
{
	uint8_t body[38];
	struct bytes_writer w;

	bw_init(&w, body, sizeof(body));
	bw_u32(&w, ping->seq);
	bw_varint(&w, ping->epoch);
	bw_varint(&w, ping->incarnation);
	bw_u128(&w, ping->root);
	bw_u64(&w, ping->members);
	return append(packet, (uint8_t)ping_or_ack, body, w.len);
}

bool proto_get_ping(struct bytes_reader *body, struct proto_ping *ret)
{
	struct proto_ping ping;

	ping.seq = br_u32(body);
	ping.epoch = get_varint32(body);
	ping.incarnation = get_varint32(body);
	ping.root = br_u128(body);
	ping.members = br_u64(body);
	if (!br_done(body))
		return false;
	*ret = ping;
	return true;
}

bool proto_put_ping_req(struct proto_packet *packet, const struct proto_ping_req *req)
{
	uint8_t body[9];
	struct bytes_writer w;

	bw_init(&w, body, sizeof(body));
	bw_u32(&w, req->seq);
	bw_u24(&w, req->hostno);
	bw_u16(&w, req->timeout_ms);
	return append(packet, PROTO_PING_REQ, body, w.len);
}

bool proto_get_ping_req(struct bytes_reader *body, struct proto_ping_req *ret)
{
	struct proto_ping_req req;

	req.seq = br_u32(body);
	req.hostno = get_hostno(body);
	req.timeout_ms = br_u16(body);
	if (!br_done(body))
		return false;
	*ret = req;
	return true;
}

bool proto_put_next(struct proto_packet *packet)
{
	static const uint8_t body[] = {1, 2, 3, 4};

	return append(packet, PROTO_TYPE_NEXT, body, sizeof(body));
}

bool proto_put_seq(struct proto_packet *packet, enum proto_type nack_or_indirect_ack, uint32_t seq)
{
	uint8_t body[4];
	struct bytes_writer w;

	bw_init(&w, body, sizeof(body));
	bw_u32(&w, seq);
	return append(packet, (uint8_t)nack_or_indirect_ack, body, w.len);
}

bool proto_get_seq(struct bytes_reader *body, uint32_t *ret_seq)
{
	uint32_t seq = br_u32(body);

	if (!br_done(body))
		return false;
	*ret_seq = seq;
	return true;
}

static void write_entry(struct bytes_writer *w, const struct proto_entry *entry)
{
	bw_u24(w, entry->hostno);
	bw_u8(w, (uint8_t)entry->state);
	bw_varint(w, entry->epoch);
	bw_varint(w, entry->incarnation);
}

bool proto_get_entry(struct bytes_reader *body, struct proto_entry *ret)
{
	struct proto_entry entry;
	uint8_t state;

	if (body->bad || br_left(body) == 0)
		return false;
	entry.hostno = get_hostno(body);
	state = br_u8(body);
	if (state > GOSSIP_LEFT)
		body->bad = true;
	entry.state = (enum gossip_state)state;
	entry.epoch = get_varint32(body);
	entry.incarnation = get_varint32(body);
	if (body->bad)
		return false;
	*ret = entry;
	return true;
}

bool proto_put_verify(struct proto_packet *packet, const struct proto_entry *suspect)
{
	uint8_t body[16];
	struct bytes_writer w;

	bw_init(&w, body, sizeof(body));
	write_entry(&w, suspect);
	return append(packet, PROTO_VERIFY, body, w.len);
}

bool proto_get_verify(struct bytes_reader *body, struct proto_entry *ret)
{
	struct proto_entry entry;

	if (!proto_get_entry(body, &entry) || !br_done(body))
		return false;
	*ret = entry;
	return true;
}

bool proto_put_verdict(struct proto_packet *packet, const struct proto_verdict *verdict)
{
	uint8_t body[16];
	struct bytes_writer w;

	bw_init(&w, body, sizeof(body));
	bw_u24(&w, verdict->hostno);
	bw_varint(&w, verdict->epoch);
	bw_varint(&w, verdict->incarnation);
	bw_u8(&w, verdict->alive ? 1 : (uint8_t)(2 * verdict->health));
	return append(packet, PROTO_VERDICT, body, w.len);
}

bool proto_get_verdict(struct bytes_reader *body, struct proto_verdict *ret)
{
	struct proto_verdict verdict;
	uint8_t found;

	verdict.hostno = get_hostno(body);
	verdict.epoch = get_varint32(body);
	verdict.incarnation = get_varint32(body);
	found = br_u8(body);
	if (!br_done(body) || (found != 1 && (found % 2 != 0 || found > 2 * PROTO_HEALTH_MAX)))
		return false;
	verdict.alive = found == 1;
	verdict.health = verdict.alive ? 0 : found / 2;
	*ret = verdict;
	return true;
}

bool proto_put_root(struct proto_packet *packet, const struct proto_root *root)
{
	uint8_t body[25];
	struct bytes_writer w;

	bw_init(&w, body, sizeof(body));
	bw_u8(&w, root->want_reply ? 1 : 0);
	bw_u128(&w, root->root);
	bw_u64(&w, root->members);
	return append(packet, PROTO_ROOT, body, w.len);
}

bool proto_get_root(struct bytes_reader *body, struct proto_root *ret)
{
	struct proto_root root;
	uint8_t want = br_u8(body);

	root.want_reply = want == 1;
	root.root = br_u128(body);
	root.members = br_u64(body);
	if (!br_done(body) || want > 1)
		return false;
	*ret = root;
	return true;
}

bool proto_put_sums(struct proto_packet *packet, const struct proto_sums *sums)
{
	uint8_t body[1 + 8 * PROTO_PARTS];
	struct bytes_writer w;

	bw_init(&w, body, sizeof(body));
	bw_u8(&w, sums->back);
	for (unsigned i = 0; i < PROTO_PARTS; i++)
		bw_u64(&w, sums->at[i]);
	return append(packet, PROTO_SUMS, body, w.len);
}

bool proto_get_sums(struct bytes_reader *body, struct proto_sums *ret)
{
	uint8_t back = br_u8(body);
	struct proto_sums sums = {.back = back == 1};

	for (unsigned i = 0; i < PROTO_PARTS; i++)
		sums.at[i] = br_u64(body);
	if (!br_done(body) || back > 1)
		return false;
	*ret = sums;
	return true;
}

static void write_mark(struct bytes_writer *w, const struct gossip_mark *mark)
{
	bw_varint(w, mark->count);
	bw_u64(w, mark->tag);
}

static void read_mark(struct bytes_reader *r, struct gossip_mark *ret)
{
	ret->count = br_varint(r);
	ret->tag = br_u64(r);
}

bool proto_put_recall(struct proto_packet *packet, const struct gossip_mark *mark)
{
	uint8_t body[18];
	struct bytes_writer w;

	bw_init(&w, body, sizeof(body));
	write_mark(&w, mark);
	return append(packet, PROTO_RECALL, body, w.len);
}

bool proto_get_recall(struct bytes_reader *body, struct gossip_mark *ret)
{
	struct gossip_mark mark;

	read_mark(body, &mark);
	if (!br_done(body))
		return false;
	*ret = mark;
	return true;
}

bool proto_put_standing(struct proto_packet *packet, const struct proto_standing *standing)
{
	uint8_t body[32];
	struct bytes_writer w;

	bw_init(&w, body, sizeof(body));
	bw_u8(&w, (uint8_t)standing->verdict);
	bw_u64(&w, standing->boot);
	bw_varint(&w, standing->epoch);
	write_mark(&w, &standing->mark);
	return append(packet, PROTO_STANDING, body, w.len);
}

bool proto_get_standing(struct bytes_reader *body, struct proto_standing *ret)
{
	struct proto_standing standing;
	uint8_t verdict = br_u8(body);

	standing.boot = br_u64(body);
	standing.epoch = get_varint32(body);
	read_mark(body, &standing.mark);
	if (!br_done(body) || verdict > PROTO_TWIN_LATER)
		return false;
	standing.verdict = (enum proto_verdict_of_us)verdict;
	*ret = standing;
	return true;
}

bool proto_put_tell(struct proto_packet *packet, uint8_t kind, const void *body, size_t len)
{
	uint8_t whole[1 + GOSSIP_TELL_MAX];

	if (len > GOSSIP_TELL_MAX)
		return false;
	whole[0] = kind;
	if (len > 0)
		memcpy(whole + 1, body, len);
	return append(packet, PROTO_TELL, whole, len + 1);
}

bool proto_get_tell(struct bytes_reader *body, uint8_t *ret_kind, const uint8_t **ret_body, size_t *ret_len)
{
	uint8_t kind = br_u8(body);
	size_t len = br_left(body);
	const uint8_t *bytes = br_bytes(body, len);

	if (!br_done(body) || len > GOSSIP_TELL_MAX)
		return false;
	*ret_kind = kind;
	*ret_body = bytes;
	*ret_len = len;
	return true;
}

static void list_open(struct proto_list *list, struct proto_packet *packet, uint8_t type)
{
	size_t room = sizeof(packet->bytes) - packet->len;

	list->packet = packet;
	list->type = type;
	bw_init(&list->w, list->body, room > 3 ? room - 3 : 0); /* type and a length of two bytes */
}

/* Takes back what did not fit. */
static bool list_keep(struct proto_list *list, size_t before)
{
	if (!list->w.overflow)
		return true;
	list->w.len = before;
	list->w.overflow = false;
	return false;
}

bool proto_list_close(struct proto_list *list)
{
	return append(list->packet, list->type, list->body, list->w.len);
}

void proto_members_open(struct proto_list *list, struct proto_packet *packet, uint8_t flags)
{
	list_open(list, packet, PROTO_MEMBERS);
	bw_u8(&list->w, flags);
}

bool proto_members_add(struct proto_list *list, const struct proto_entry *entry)
{
	size_t before = list->w.len;

	write_entry(&list->w, entry);
	return list_keep(list, before);
}

bool proto_get_members_flags(struct bytes_reader *body, uint8_t *ret_flags)
{
	uint8_t flags = br_u8(body);

	if (body->bad)
		return false;
	*ret_flags = flags;
	return true;
}

#define PUSH_ACK_NAMED 0x80u

void proto_push_ack_open(struct proto_list *list, struct proto_packet *packet, const struct proto_push_ack *ack)
{
	list_open(list, packet, PROTO_PUSH_ACK);
	bw_u8(&list->w, (uint8_t)(ack->packets | (ack->named ? PUSH_ACK_NAMED : 0)));
	bw_varint(&list->w, ack->epoch);
}

bool proto_push_ack_add(struct proto_list *list, const struct proto_push_ack *ack, uint64_t topic, uint64_t head)
{
	size_t before = list->w.len;

	if (ack->named)
		bw_u64(&list->w, topic);
	bw_varint(&list->w, head);
	return list_keep(list, before);
}

bool proto_get_push_ack_open(struct bytes_reader *body, struct proto_push_ack *ret_ack)
{
	uint8_t first = br_u8(body);
	uint32_t epoch = get_varint32(body);

	if (body->bad)
		return false;
	*ret_ack = (struct proto_push_ack){.packets = first & ~PUSH_ACK_NAMED, .named = first & PUSH_ACK_NAMED, .epoch = epoch};
	return true;
}

bool proto_get_push_ack(struct bytes_reader *body, const struct proto_push_ack *ack, uint64_t *ret_topic, uint64_t *ret_head)
{
	uint64_t topic, head;

	if (body->bad || br_left(body) == 0)
		return false;
	topic = ack->named ? br_u64(body) : 0;
	head = br_varint(body);
	if (body->bad)
		return false;
	*ret_topic = topic;
	*ret_head = head;
	return true;
}

#define RANGE_SIZE 22

static void write_range(struct bytes_writer *w, const struct proto_range *range)
{
	bw_u64(w, range->topic_lo);
	bw_u24(w, range->origin_lo);
	bw_u64(w, range->topic_hi);
	bw_u24(w, range->origin_hi);
}

void proto_vector_open(struct proto_list *list, struct proto_packet *packet, const struct proto_range *range)
{
	list_open(list, packet, PROTO_VECTOR);
	write_range(&list->w, range);
}

bool proto_vector_close_at(struct proto_list *list, const struct proto_range *range)
{
	struct bytes_writer w;

	bw_init(&w, list->body, RANGE_SIZE);
	write_range(&w, range);
	return proto_list_close(list);
}

static void write_head(struct bytes_writer *w, const struct proto_head *head)
{
	bw_u24(w, head->origin);
	bw_u64(w, head->topic);
	bw_varint(w, head->epoch);
	bw_varint(w, head->head);
	bw_u8(w, head->settled ? 1 : 0);
}

bool proto_vector_add(struct proto_list *list, const struct proto_head *head)
{
	size_t before = list->w.len;

	write_head(&list->w, head);
	return list_keep(list, before);
}

void proto_relay_ack_open(struct proto_list *list, struct proto_packet *packet)
{
	list_open(list, packet, PROTO_RELAY_ACK);
}

bool proto_relay_ack_add(struct proto_list *list, const struct proto_head *head)
{
	return proto_vector_add(list, head);
}

bool proto_get_range(struct bytes_reader *body, struct proto_range *ret)
{
	struct proto_range range;

	range.topic_lo = br_u64(body);
	range.origin_lo = br_u24(body);
	range.topic_hi = br_u64(body);
	range.origin_hi = br_u24(body);
	if (body->bad)
		return false;
	*ret = range;
	return true;
}

bool proto_get_head(struct bytes_reader *body, struct proto_head *ret)
{
	struct proto_head head;
	uint8_t settled;

	if (body->bad || br_left(body) == 0)
		return false;
	head.origin = get_hostno(body);
	head.topic = br_u64(body);
	head.epoch = get_varint32(body);
	head.head = br_varint(body);
	settled = br_u8(body);
	if (settled > 1)
		body->bad = true;
	head.settled = settled == 1;
	if (body->bad)
		return false;
	*ret = head;
	return true;
}

void proto_pull_open(struct proto_list *list, struct proto_packet *packet)
{
	list_open(list, packet, PROTO_PULL);
}

bool proto_pull_add(struct proto_list *list, const struct proto_pull *pull)
{
	size_t before = list->w.len;

	bw_u8(&list->w, pull->flags);
	write_head(&list->w, &pull->after);
	return list_keep(list, before);
}

bool proto_get_pull(struct bytes_reader *body, struct proto_pull *ret)
{
	struct proto_pull pull;

	if (body->bad || br_left(body) == 0)
		return false;
	pull.flags = br_u8(body);
	if (!proto_get_head(body, &pull.after)) {
		body->bad = true;
		return false;
	}
	*ret = pull;
	return true;
}

void proto_heads_open(struct proto_list *list, struct proto_packet *packet, const struct proto_heads *heads)
{
	list_open(list, packet, PROTO_HEADS);
	bw_u64(&list->w, heads->topic_lo);
	bw_u64(&list->w, heads->topic_hi);
	bw_varint(&list->w, heads->epoch);
	bw_varint(&list->w, heads->seq);
}

bool proto_heads_add(struct proto_list *list, uint64_t topic, uint64_t head)
{
	size_t before = list->w.len;

	bw_u64(&list->w, topic);
	bw_varint(&list->w, head);
	return list_keep(list, before);
}

bool proto_heads_close_at(struct proto_list *list, uint64_t topic_hi)
{
	struct bytes_writer w;

	bw_init(&w, list->body + 8, 8);
	bw_u64(&w, topic_hi);
	return proto_list_close(list);
}

bool proto_get_heads_open(struct bytes_reader *body, struct proto_heads *ret)
{
	struct proto_heads heads;

	heads.topic_lo = br_u64(body);
	heads.topic_hi = br_u64(body);
	heads.epoch = get_varint32(body);
	heads.seq = br_varint(body);
	if (body->bad)
		return false;
	*ret = heads;
	return true;
}

bool proto_get_heads_entry(struct bytes_reader *body, uint64_t *ret_topic, uint64_t *ret_head)
{
	uint64_t topic, head;

	if (body->bad || br_left(body) == 0)
		return false;
	topic = br_u64(body);
	head = br_varint(body);
	if (body->bad)
		return false;
	*ret_topic = topic;
	*ret_head = head;
	return true;
}

/* The header's varints are written at close, when `to` is known; the records wait in `body` behind the room that it may take. */
#define BATCH_HEADER_MAX (3 + 8 + 5 + 1 + 4 * 10)

bool proto_batch_open(struct proto_list *list, struct proto_packet *packet)
{
	list_open(list, packet, PROTO_BATCH);
	if (list->w.capacity <= BATCH_HEADER_MAX)
		return false;
	list->w.capacity -= BATCH_HEADER_MAX;
	return true;
}

void proto_batch_reserve(struct proto_list *list, size_t bytes)
{
	size_t free = list->w.capacity - list->w.len;

	list->w.capacity -= free < bytes ? free : bytes;
}

#define RECORD_DELETED 0x80u /* in the byte of the key's length */
_Static_assert(GOSSIP_KEY_MAX < RECORD_DELETED, "length of a key");

bool proto_batch_add(struct proto_list *list, uint64_t last_seq, const struct proto_record *record)
{
	size_t before = list->w.len;

	bw_varint(&list->w, record->seq - last_seq);
	bw_u8(&list->w, (uint8_t)(record->key_len | (record->val ? 0 : RECORD_DELETED)));
	bw_bytes(&list->w, record->key, record->key_len);
	if (record->val) {
		bw_varint(&list->w, record->val_len);
		bw_bytes(&list->w, record->val, record->val_len);
	}
	return list_keep(list, before);
}

bool proto_batch_close(struct proto_list *list, const struct proto_batch *batch)
{
	uint8_t whole[PROTO_PLAIN_MAX];
	struct bytes_writer w;

	bw_init(&w, whole, sizeof(whole));
	bw_u8(&w, batch->flags);
	if (!(batch->flags & PROTO_BATCH_PUSH))
		bw_u24(&w, batch->origin);
	bw_u64(&w, batch->topic);
	bw_varint(&w, batch->epoch);
	bw_varint(&w, batch->from);
	bw_varint(&w, batch->to);
	bw_varint(&w, batch->floor);
	bw_varint(&w, batch->head);
	bw_bytes(&w, list->body, list->w.len);
	return !w.overflow && append(list->packet, PROTO_BATCH, whole, w.len);
}

void proto_make_relay(struct proto_packet *packet)
{
	packet->bytes[0] = PROTO_RELAY;
}

bool proto_put_relay(struct proto_packet *packet, const uint8_t *body, size_t len)
{
	return append(packet, PROTO_RELAY, body, len);
}

static bool read_record(struct bytes_reader *r, struct proto_record *record)
{
	uint64_t delta;
	uint8_t first;

	if (r->bad || br_left(r) == 0)
		return false;
	delta = br_varint(r);
	first = br_u8(r);
	record->key_len = first & ~RECORD_DELETED;
	record->key = br_bytes(r, record->key_len);
	record->val = NULL;
	record->val_len = 0;
	if (!(first & RECORD_DELETED)) {
		uint64_t len = br_varint(r);

		if (len > GOSSIP_VALUE_MAX)
			r->bad = true;
		record->val_len = r->bad ? 0 : (size_t)len;
		record->val = br_bytes(r, record->val_len);
	}
	if (record->key_len == 0 || record->key_len > GOSSIP_KEY_MAX || delta == 0 || record->seq + delta < record->seq)
		r->bad = true;
	record->seq += delta;
	return !r->bad;
}

bool proto_get_batch(struct bytes_reader *body, uint32_t from, struct proto_batch *ret)
{
	struct proto_batch batch;
	struct proto_record record;
	struct bytes_reader records;

	batch.flags = br_u8(body);
	batch.origin = batch.flags & PROTO_BATCH_PUSH ? from : get_hostno(body);
	batch.topic = br_u64(body);
	batch.epoch = get_varint32(body);
	batch.from = br_varint(body);
	batch.to = br_varint(body);
	batch.floor = br_varint(body);
	batch.head = br_varint(body);
	if (body->bad || batch.flags & ~PROTO_BATCH_FLAGS || batch.from >= batch.to || batch.to > batch.head ||
		batch.floor > batch.head)
		return false;
	batch.records_len = br_left(body);
	batch.records = br_bytes(body, batch.records_len);
	br_init(&records, batch.records, batch.records_len);
	record.seq = batch.from;
	while (read_record(&records, &record))
		if (record.seq > batch.to)
			return false;
	if (!br_done(&records))
		return false;
	*ret = batch;
	return true;
}

bool proto_batch_next(const struct proto_batch *batch, size_t *pos, struct proto_record *record)
{
	struct bytes_reader r;

	br_init(&r, batch->records + *pos, batch->records_len - *pos);
	if (!read_record(&r, record))
		return false;
	*pos = batch->records_len - br_left(&r);
	return true;
}

bool proto_next(struct bytes_reader *packet, uint8_t *ret_type, struct bytes_reader *ret_body)
{
	uint8_t type;
	uint64_t len;
	const uint8_t *body;

	if (packet->bad || br_left(packet) == 0)
		return false;
	type = br_u8(packet);
	len = br_varint(packet);
	if (len > br_left(packet))
		packet->bad = true;
	body = packet->bad ? NULL : br_bytes(packet, (size_t)len);
	if (packet->bad)
		return false;
	*ret_type = type;
	br_init(ret_body, body, (size_t)len);
	return true;
}

/* ---- sketches ---- */

bool proto_put_sketch_ask(struct proto_packet *packet, const struct proto_sketch *ask)
{
	uint8_t body[SKETCH_KEY_SIZE + 4 + 4 + 1];
	struct bytes_writer w;

	bw_init(&w, body, sizeof(body));
	bw_bytes(&w, ask->key, sizeof(ask->key));
	bw_u32(&w, ask->first);
	bw_u32(&w, ask->shards);
	bw_u8(&w, ask->packets);
	return append(packet, PROTO_SKETCH_ASK, body, w.len);
}

static void read_sketch(struct bytes_reader *body, struct proto_sketch *ret)
{
	const uint8_t *key = br_bytes(body, SKETCH_KEY_SIZE);

	if (key)
		memcpy(ret->key, key, SKETCH_KEY_SIZE);
	ret->first = br_u32(body);
	ret->shards = br_u32(body);
}

bool proto_get_sketch_ask(struct bytes_reader *body, struct proto_sketch *ret)
{
	struct proto_sketch ask = {0};

	read_sketch(body, &ask);
	ask.packets = br_u8(body);
	if (!br_done(body) || ask.packets == 0)
		return false;
	*ret = ask;
	return true;
}

void proto_sketch_open(struct proto_list *list, struct proto_packet *packet, const struct proto_sketch *sketch)
{
	list_open(list, packet, PROTO_SKETCH);
	bw_bytes(&list->w, sketch->key, sizeof(sketch->key));
	bw_u32(&list->w, sketch->first);
	bw_u32(&list->w, sketch->shards);
	bw_u64(&list->w, sketch->root);
}

bool proto_sketch_add(struct proto_list *list, uint16_t count, const uint8_t sum[SKETCH_ITEM_SIZE], uint64_t check)
{
	size_t before = list->w.len;

	bw_u16(&list->w, count);
	bw_bytes(&list->w, sum, SKETCH_ITEM_SIZE);
	bw_u64(&list->w, check);
	return list_keep(list, before);
}

bool proto_get_sketch_open(struct bytes_reader *body, struct proto_sketch *ret)
{
	struct proto_sketch sketch = {0};

	read_sketch(body, &sketch);
	sketch.root = br_u64(body);
	if (body->bad || br_left(body) % PROTO_SKETCH_SYMBOL_SIZE != 0)
		return false;
	*ret = sketch;
	return true;
}

bool proto_get_sketch_symbol(
	struct bytes_reader *body, uint16_t *ret_count, uint8_t ret_sum[SKETCH_ITEM_SIZE], uint64_t *ret_check)
{
	const uint8_t *sum;

	if (body->bad || br_left(body) == 0)
		return false;
	*ret_count = br_u16(body);
	sum = br_bytes(body, SKETCH_ITEM_SIZE);
	if (sum)
		memcpy(ret_sum, sum, SKETCH_ITEM_SIZE);
	*ret_check = br_u64(body);
	return !body->bad;
}

void proto_sketch_item(const struct proto_head *head, uint8_t ret_bytes[SKETCH_ITEM_SIZE])
{
	struct bytes_writer w;

	bw_init(&w, ret_bytes, SKETCH_ITEM_SIZE);
	bw_u64(&w, head->topic);
	bw_u24(&w, head->origin);
	bw_u8(&w, head->settled ? 1 : 0);
	bw_u32(&w, head->epoch);
	bw_u64(&w, head->head);
}

bool proto_sketch_head(const uint8_t bytes[SKETCH_ITEM_SIZE], struct proto_head *ret)
{
	struct proto_head head;
	struct bytes_reader r;
	uint8_t settled;

	br_init(&r, bytes, SKETCH_ITEM_SIZE);
	head.topic = br_u64(&r);
	head.origin = get_hostno(&r);
	settled = br_u8(&r);
	head.epoch = br_u32(&r);
	head.head = br_u64(&r);
	head.settled = settled == 1;
	if (!br_done(&r) || settled > 1)
		return false;
	*ret = head;
	return true;
}

void proto_busy_open(struct proto_list *list, struct proto_packet *packet, uint16_t retry_ms)
{
	list_open(list, packet, PROTO_BUSY);
	bw_u16(&list->w, retry_ms);
}

bool proto_busy_add(struct proto_list *list, uint32_t hostno)
{
	size_t before = list->w.len;

	bw_u24(&list->w, hostno);
	return list_keep(list, before);
}

bool proto_get_busy_open(struct bytes_reader *body, uint16_t *ret_retry_ms)
{
	uint16_t retry_ms = br_u16(body);

	if (body->bad)
		return false;
	*ret_retry_ms = retry_ms;
	return true;
}

bool proto_get_busy_hostno(struct bytes_reader *body, uint32_t *ret_hostno)
{
	uint32_t hostno;

	if (body->bad || br_left(body) == 0)
		return false;
	hostno = get_hostno(body);
	if (body->bad)
		return false;
	*ret_hostno = hostno;
	return true;
}

bool proto_put_signature(struct proto_packet *packet, const uint8_t signature[64])
{
	return append(packet, PROTO_SIGNATURE, signature, 64);
}

bool proto_get_signature(struct bytes_reader *body, uint8_t ret_signature[64])
{
	const uint8_t *bytes = br_bytes(body, 64);

	if (!br_done(body))
		return false;
	memcpy(ret_signature, bytes, 64);
	return true;
}

void proto_audit_open(struct proto_list *list, struct proto_packet *packet)
{
	list_open(list, packet, PROTO_AUDIT);
}

bool proto_audit_add(struct proto_list *list, const struct proto_head *head, uint64_t sum)
{
	size_t before = list->w.len;

	bw_u64(&list->w, head->topic);
	bw_varint(&list->w, head->epoch);
	bw_varint(&list->w, head->head);
	bw_u64(&list->w, sum);
	return list_keep(list, before);
}

bool proto_get_audit(struct bytes_reader *body, struct proto_head *ret_head, uint64_t *ret_sum)
{
	struct proto_head head = {0};
	uint64_t sum;

	if (body->bad || br_left(body) == 0)
		return false;
	head.topic = br_u64(body);
	head.epoch = get_varint32(body);
	head.head = br_varint(body);
	sum = br_u64(body);
	if (body->bad)
		return false;
	*ret_head = head;
	*ret_sum = sum;
	return true;
}

/* Own records and the sequence numbers that they take; where the records of others go. The rules are those of shards_internal.h;
 * who gets a change when: sync_push.c.
 *
 * Always: a sequence number is reserved on disk before it is used, so that a restart in the same epoch repeats none. Keys of
 * topic 0 that begin like those of the membership are the core's own: refused in gossip_put and never shown. */
#include "gossip/core_internal.h"

#include <string.h>

#define RESERVE_VERSION 1

/* ---- sequence numbers ---- */

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
	g->ops.save(g->ctx, RESERVE_KEY, 1, val, w.len, false);
}

int core_restore_seq(struct gossip *g, const void *val, size_t len, struct err *err)
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

/* ---- own records ---- */

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
	shard = shards_put(&g->shards, topic, key, key_len, val, val_len, &full);
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
	shard = shards_del(&g->shards, topic, key, key_len);
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

/* We may be the one that is not heard: others say that the origin is alive, and our questions for what it has in its new epoch do
 * not arrive. Our probes fail then, or succeed since the others, who take us for dead, ask us all the time: an answer is needed.
 */
static bool expires(void *ctx, uint32_t origin)
{
	const struct gossip *g = ctx;
	const struct member *m = members_find(g, origin);

	return !m || m->state == GOSSIP_LEFT ||
	       (m->state == GOSSIP_ALIVE && g->lifeguard == 0 && g->answered_ms + SHARDS_TICK_MS > g->now);
}

static void on_conflict(void *ctx, const struct shard *shard, uint64_t seq)
{
	(void)ctx; /* counted in shards.conflicts; the origin is refused from here on */
	(void)shard;
	(void)seq;
}

const struct shards_ops core_shards_ops = {.record = on_record, .conflict = on_conflict, .expires = expires};

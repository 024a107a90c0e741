/* Shards, their topics and origins; our own records, and what time does: see shards_internal.h for the rules. The records are in
 * shards_table.c, those of others come in by shards_apply.c and leave by shards_give.c; shards_check.c says whether all is sound.
 *
 * Always: a shard is among those of its origin and counted in its topic; roots are sums of the parts of shards in the current
 * epoch, so whoever changes what shard_root looks at calls shard_update_root. */
#include "gossip/shards_parts_internal.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

_Static_assert(sizeof(shards_siphash_key) == crypto_shorthash_siphashx24_KEYBYTES, "one key for both hashes");
_Static_assert(sizeof(shards_siphash_key) == crypto_shorthash_KEYBYTES, "one key for both hashes");
const uint8_t shards_siphash_key[16];

/* ---- shards ---- */

void shards_init(struct shards *s, uint32_t self, uint32_t epoch, const struct shards_ops *ops, void *ctx)
{
	*s = (struct shards){.self = self,
		.ops = ops,
		.ctx = ctx,
		.max = {GOSSIP_RECORDS_MAX, GOSSIP_RECORDS_HOST_MAX, GOSSIP_RECORDS_TOPIC_MAX}};
	table_open(s);
	shards_saw_epoch(s, self, epoch, 0);
}

struct topic *shards_topic(const struct shards *s, uint64_t number)
{
	struct topic *topic;

	HASH_FIND(hh, s->topics, &number, sizeof(number), topic);
	return topic;
}

bool shards_keeps(const struct shards *s, uint64_t number)
{
	const struct topic *topic;

	if (topic_for_all(number))
		return true;
	topic = shards_topic(s, number);
	return topic && topic->wanted;
}

static struct topic *make_topic(struct shards *s, uint64_t number)
{
	struct topic *topic = shards_topic(s, number);

	if (topic)
		return topic;
	topic = calloc(1, sizeof(*topic));
	if (!topic)
		return NULL;
	topic->topic = number;
	HASH_ADD(hh, s->topics, topic, sizeof(topic->topic), topic);
	return topic;
}

static void drop_topic(struct shards *s, struct topic *topic)
{
	if (topic->shards > 0 || topic->wanted)
		return;
	HASH_DEL(s->topics, topic);
	free(topic->interest.subscribers);
	free(topic->interest.ring.at);
	free(topic);
}

/* ---- finding ---- */

#define CHAINS_FIRST 16

static struct origin **origin_at(const struct shards *s, uint32_t hostno)
{
	struct origin **at = &s->by_hostno[(hostno * 0x9e3779b1u >> 8) & (s->by_hostno_size - 1)];

	while (*at && (*at)->hostno != hostno)
		at = &(*at)->chain;
	return at;
}

struct origin *shards_origin(const struct shards *s, uint32_t hostno)
{
	return s->by_hostno_size ? *origin_at(s, hostno) : NULL;
}

static struct shard **shard_at(const struct shards *s, uint32_t origin, uint64_t topic)
{
	uint64_t hash = (topic ^ s->table_seed) * 0x9e3779b97f4a7c15u;
	struct shard **at;

	/* Every bit of the number below those that choose the chain: what is above them, the product leaves out. */
	hash = ((hash >> 32) ^ origin) * 0x9e3779b97f4a7c15u;
	at = &s->by_id[(hash >> 32) & (s->by_id_size - 1)];

	while (*at && ((*at)->id.origin != origin || (*at)->id.topic != topic))
		at = &(*at)->chain;
	return at;
}

struct shard *shards_find(const struct shards *s, uint32_t origin, uint64_t topic)
{
	return s->by_id_size ? *shard_at(s, origin, topic) : NULL;
}

struct shard *shards_first(const struct shards *s)
{
	const struct origin *origin = s->origins;

	while (origin && !origin->shards)
		origin = origin->next;
	return origin ? origin->shards : NULL;
}

struct shard *shards_next(const struct shard *shard)
{
	const struct origin *origin = shard->of->next;

	if (shard->next_of_origin)
		return shard->next_of_origin;
	while (origin && !origin->shards)
		origin = origin->next;
	return origin ? origin->shards : NULL;
}

/* Room for one more: a chain for each. Without memory for that they get longer. */
static bool grow_by_id(struct shards *s)
{
	struct shards grown = {.by_id_size = s->by_id_size ? s->by_id_size * 2 : CHAINS_FIRST, .table_seed = s->table_seed};
	struct shard *shard, *next;

	if (s->shard_count < s->by_id_size)
		return true;
	grown.by_id = calloc(grown.by_id_size, sizeof(*grown.by_id));
	if (!grown.by_id)
		return s->by_id_size > 0;
	SHARDS_EACH(s, shard, next)
	{
		struct shard **at;

		shard->chain = NULL;
		at = shard_at(&grown, shard->id.origin, shard->id.topic);
		*at = shard;
	}
	free(s->by_id);
	s->by_id = grown.by_id;
	s->by_id_size = grown.by_id_size;
	return true;
}

static void grow_by_hostno(struct shards *s)
{
	struct shards grown = {.by_hostno_size = s->by_hostno_size ? s->by_hostno_size * 2 : CHAINS_FIRST};

	if (s->origin_count < s->by_hostno_size)
		return;
	grown.by_hostno = alloc_array(struct origin *, grown.by_hostno_size);
	for (struct origin *origin = s->origins; origin; origin = origin->next) {
		origin->chain = NULL;
		*origin_at(&grown, origin->hostno) = origin;
	}
	free(s->by_hostno);
	s->by_hostno = grown.by_hostno;
	s->by_hostno_size = grown.by_hostno_size;
}

/* ---- what few have ---- */

const struct shard_rare shard_rare_nothing;

struct shard_rare *shard_rare(struct shard *shard)
{
	if (!shard->rare)
		shard->rare = alloc_new(struct shard_rare);
	return shard->rare;
}

/* Nothing in it is needed any more, as far as anybody can tell. */
void shard_relax(struct shard *shard)
{
	const struct shard_rare *r = shard_rare_of(shard);

	if (r->old.first || shard->range_count || shard->listing || shard->deleted_count || r->refused_ms)
		return;
	free(shard->rare);
	shard->rare = NULL;
}

static void set_root(struct shards *s, struct shard *shard, u128 root)
{
	shard->in->root += root - shard->root;
	if (topic_for_all(shard->id.topic))
		s->root += root - shard->root;
	shard->root = root;
}

static void free_shard(struct shards *s, struct shard *shard)
{
	struct shard **at = &shard->of->shards;

	while (*at != shard)
		at = &(*at)->next_of_origin;
	*at = shard->next_of_origin;
	set_root(s, shard, 0);
	s->shape++;
	*shard_at(s, shard->id.origin, shard->id.topic) = shard->chain;
	s->shard_count--;
	shard->in->shards--;
	drop_topic(s, shard->in);
	free(shard->rare);
	free(shard->prefix);
	free(shard->cursors);
	free(shard);
}

void shards_fini(struct shards *s)
{
	struct shard *shard, *next;
	struct origin *origin;
	struct topic *topic, *tmp_topic;

	table_close(s);
	SHARDS_EACH(s, shard, next)
	free_shard(s, shard);
	HASH_ITER(hh, s->topics, topic, tmp_topic)
	{
		topic->wanted = false;
		drop_topic(s, topic);
	}
	while ((origin = s->origins)) {
		s->origins = origin->next;
		free(origin);
	}
	free(s->by_id);
	free(s->by_hostno);
}

u128 shard_root(const struct shard *shard)
{
	uint8_t in[32], out[crypto_shorthash_siphashx24_BYTES];
	struct bytes_writer w;
	struct bytes_reader r;

	if (!shard_current(shard))
		return 0;
	bw_init(&w, in, sizeof(in));
	bw_u64(&w, shard->id.topic);
	bw_u32(&w, shard->id.origin);
	bw_u32(&w, shard->epoch);
	bw_u64(&w, shard->head);
	bw_u8(&w, shard->settled ? 1 : 0);
	crypto_shorthash_siphashx24(out, in, w.len, shards_siphash_key);
	br_init(&r, out, sizeof(out));
	return br_u128(&r);
}

void shard_update_root(struct shards *s, struct shard *shard)
{
	set_root(s, shard, shard_root(shard));
}

struct shard *shard_make(struct shards *s, struct origin *origin, uint64_t topic)
{
	struct shard *shard;

	if (s->shard_count >= SHARDS_MAX || !grow_by_id(s))
		return NULL;
	shard = calloc(1, sizeof(*shard));
	if (!shard)
		return NULL;
	shard->in = make_topic(s, topic);
	if (!shard->in) {
		free(shard);
		return NULL;
	}
	shard->in->shards++;
	shard->id.topic = topic;
	shard->id.origin = origin->hostno;
	shard->epoch = origin->epoch;
	shard->of = origin;
	shard->next_of_origin = origin->shards;
	origin->shards = shard;
	*shard_at(s, origin->hostno, topic) = shard;
	s->shard_count++;
	s->shape++;
	return shard;
}

/* Records may come before the admission of their host, and a broken member may name every number there is. */
bool origin_fits(const struct shards *s, uint32_t hostno)
{
	return s->origin_count < SHARDS_MAX || shards_origin(s, hostno);
}

void shards_saw_epoch(struct shards *s, uint32_t hostno, uint32_t epoch, uint64_t now_ms)
{
	struct origin *origin = shards_origin(s, hostno);

	if (!origin) {
		origin = alloc_new(struct origin);
		grow_by_hostno(s);
		origin->hostno = hostno;
		origin->epoch = epoch;
		*origin_at(s, hostno) = origin;
		if (s->last_origin)
			s->last_origin->next = origin;
		else
			s->origins = origin;
		s->last_origin = origin;
		s->origin_count++;
	}
	if (epoch <= origin->epoch)
		return;
	origin->epoch = epoch;
	origin->refused = false;
	for (struct shard *shard = origin->shards; shard; shard = shard->next_of_origin) {
		shard->old_until_ms = now_ms + SHARDS_OLD_EPOCH_MS;
		s->ageing = true;
		shard_update_root(s, shard);
	}
}

struct shard *shards_make(struct shards *s, uint32_t origin, uint64_t topic, uint32_t epoch, uint64_t now_ms)
{
	struct shard *shard = shards_find(s, origin, topic);

	if (shard)
		return shard;
	if (!origin_fits(s, origin))
		return NULL;
	shards_saw_epoch(s, origin, epoch, now_ms);
	return shard_make(s, shards_origin(s, origin), topic);
}

/* R5: what is there belongs to the past, and waits for the new epoch to confirm it. */
void shard_begin_epoch(struct shards *s, struct shard *shard, uint64_t now_ms)
{
	struct record *r;

	while ((r = shard->live.first)) {
		if (r->deleted) {
			record_drop(s, r);
			continue;
		}
		r->unconfirmed = r->doomed = false; /* what a listing of the old epoch left out, the new one may have again */
		record_move(r, true, 0);
	}
	shard->old_until_ms = now_ms + SHARDS_OLD_EPOCH_MS;
	s->ageing = true;
	shard->epoch = shard->of->epoch;
	shard->head = shard->floor = shard->pushed = 0;
	if (shard->rare)
		shard->rare->floor_next = 0;
	shard->range_count = 0;
	shard->listing = shard->relist = shard->sweep_due = shard->settled = shard->vacant = false;
	shard_update_root(s, shard);
}

void shard_sweep_old(struct shards *s, struct shard *shard)
{
	while (shard_rare_of(shard)->old.first)
		record_expire(s, shard->rare->old.first);
	shard->old_until_ms = 0;
}

/* A shard without records that nobody can learn from any more. */
void shard_drop(struct shards *s, struct shard *shard)
{
	shard_sweep_old(s, shard);
	while (shard->live.first)
		record_expire(s, shard->live.first);
	free_shard(s, shard);
}

/* ---- which topics are kept ---- */

struct topic *shards_want(struct shards *s, uint64_t number)
{
	struct topic *topic = make_topic(s, number);

	if (topic)
		topic->wanted = true;
	return topic;
}

void shards_unwant(struct shards *s, uint64_t number)
{
	struct topic *topic = shards_topic(s, number);

	if (!topic || !topic->wanted)
		return;
	topic->wanted = false;
	topic->interest.equal = false;
	topic->interest.compared_ms = 0;
}

/* Without a word about each record. */
static void forget_shard(struct shards *s, struct shard *shard)
{
	while (shard->live.first)
		record_drop(s, shard->live.first);
	while (shard_rare_of(shard)->old.first)
		record_drop(s, shard->rare->old.first);
	free_shard(s, shard);
}

void shards_sweep_unwanted(struct shards *s)
{
	struct shard *shard, *next;
	struct topic *topic, *tmp_topic;

	SHARDS_EACH(s, shard, next)
	if (shard->id.origin != s->self && !topic_for_all(shard->id.topic) && !shard->in->wanted)
		forget_shard(s, shard);
	HASH_ITER(hh, s->topics, topic, tmp_topic)
	drop_topic(s, topic);
}

/* ---- own records ---- */

static struct shard *own_shard(struct shards *s, uint64_t topic)
{
	struct shard *shard = shards_find(s, s->self, topic);

	if (!shard) {
		shard = shard_make(s, shards_origin(s, s->self), topic);
		if (shard)
			shard->floor = s->base;
	}
	return shard;
}

struct shard *shards_put(
	struct shards *s, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len, bool *ret_full)
{
	struct shard *shard = own_shard(s, topic);
	struct record *old = shard ? record_find(s, shard, key, key_len) : NULL;
	struct proto_record change = {.seq = s->seq + 1, .key = key, .key_len = key_len, .val = val, .val_len = val_len};

	*ret_full = false;
	if (old && !old->deleted && old->val_len == val_len && memcmp(record_val(old), val, val_len) == 0)
		return NULL;
	if (!shard)
		shards_refuse(s, SHARDS_LIMIT_MEMORY);
	if (!shard || !record_store(s, shard, old, &change)) {
		*ret_full = true;
		return NULL;
	}
	shard->head = ++s->seq;
	shard_update_root(s, shard);
	return shard;
}

struct shard *shards_del(struct shards *s, uint64_t topic, const void *key, size_t key_len)
{
	struct shard *shard = shards_find(s, s->self, topic);
	struct record *old = shard ? record_find(s, shard, key, key_len) : NULL;

	if (!old || old->deleted)
		return NULL;
	record_delete(s, old, ++s->seq);
	shard->head = s->seq;
	shard_update_root(s, shard);
	return shard;
}

void shards_raise_own_epoch(struct shards *s, uint32_t epoch, uint64_t past_seq)
{
	struct origin *origin = shards_origin(s, s->self);

	if (past_seq > s->seq)
		s->seq = past_seq;
	if (epoch <= origin->epoch)
		return;
	origin->epoch = epoch;
	for (struct shard *shard = origin->shards; shard; shard = shard->next_of_origin) {
		shard->epoch = epoch;
		shard_update_root(s, shard);
	}
}

void shards_settle_own(struct shards *s)
{
	for (struct shard *shard = shards_origin(s, s->self)->shards; shard; shard = shard->next_of_origin) {
		shard->settled = true;
		shard_update_root(s, shard);
	}
}

struct shard *shards_adopt(struct shards *s, uint64_t topic)
{
	struct shard *shard = own_shard(s, topic);

	if (!shard)
		return NULL;
	shard->floor = s->seq;
	shard->head = ++s->seq;
	shard_update_root(s, shard);
	return shard;
}

/* ---- time ---- */

void shards_raise_floor(struct shards *s, struct shard *shard, uint64_t floor)
{
	struct record *r, *next;

	if (floor > shard->head)
		floor = shard->head;
	if (floor <= shard->floor)
		return;
	shard->floor = floor;
	for (r = shard->live.first; r && shard->deleted_count > 0 && r->seq <= floor; r = next) {
		next = r->next;
		if (r->deleted)
			record_drop(s, r);
	}
}

/* R5 runs out: the old epoch goes, and with it a shard that the new epoch does not have. */
static void expire_old_epoch(struct shards *s, struct shard *shard)
{
	if (shard->epoch < shard->of->epoch) {
		shard_drop(s, shard);
		return;
	}
	shards_confirm_settled(s, shard);
}

void shards_tick(struct shards *s, uint64_t now_ms)
{
	struct shard *shard, *next;
	bool ageing = false;

	if (!s->ageing)
		return;
	SHARDS_EACH(s, shard, next)
	{
		if (shard->deleted_count > 0 && now_ms >= shard_rare(shard)->floor_at_ms) {
			shards_raise_floor(s, shard, shard->rare->floor_next);
			shard->rare->floor_next = shard->head;
			shard->rare->floor_at_ms = now_ms + SHARDS_FLOOR_EVERY_MS;
		}
		ageing |= shard->deleted_count > 0 || shard->old_until_ms != 0;
		if (shard->old_until_ms == 0)
			continue;
		if (s->ops->expires && !s->ops->expires(s->ctx, shard->id.origin))
			shard->old_until_ms = now_ms + SHARDS_OLD_EPOCH_MS;
		else if (now_ms >= shard->old_until_ms)
			expire_old_epoch(s, shard);
	}
	s->ageing = ageing;
}

void shards_paused(struct shards *s, uint64_t now_ms)
{
	struct shard *shard, *next;

	SHARDS_EACH(s, shard, next)
	if (shard->old_until_ms != 0)
		shard->old_until_ms = now_ms + SHARDS_OLD_EPOCH_MS;
}

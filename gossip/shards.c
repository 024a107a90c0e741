/* Shards and records: see shards_internal.h for the rules. The table of records is our own (a chain pointer per record) instead
 * of uthash, whose handle of 56 bytes would be half of a typical record; shards and origins, far fewer, use uthash. */
#include "gossip/shards_internal.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_FIRST 256
#define TAIL_USUAL 32
#define TABLE_LOAD 2 /* records for each pointer of the table, at most */

static const uint8_t siphash_key[crypto_shorthash_siphashx24_KEYBYTES]; /* all hosts must agree: equality, not secrecy */

/* ---- lists ---- */

static void list_remove(struct record_list *list, struct record *r)
{
	if (r->prev)
		r->prev->next = r->next;
	else
		list->first = r->next;
	if (r->next)
		r->next->prev = r->prev;
	else
		list->last = r->prev;
	if (list->at == r)
		list->at = r->next;
	r->next = r->prev = NULL;
}

/* From the back: what arrives is nearly always the newest. */
static void list_insert(struct record_list *list, struct record *r)
{
	struct record *before = list->last;

	while (before && before->seq > r->seq)
		before = before->prev;
	r->prev = before;
	r->next = before ? before->next : list->first;
	if (r->prev)
		r->prev->next = r;
	else
		list->first = r;
	if (r->next)
		r->next->prev = r;
	else
		list->last = r;
}

static struct record_list *list_of(struct record *r)
{
	return r->old_epoch ? &r->shard->old : &r->shard->live;
}

/* ---- the table ---- */

static size_t key_hash(const struct shards *s, const struct shard *shard, const uint8_t *key, size_t key_len)
{
	uint64_t h = 0xcbf29ce484222325u ^ s->table_seed ^ shard->id.topic ^ (uint64_t)shard->id.origin << 32; /* FNV-1a */

	for (size_t i = 0; i < key_len; i++)
		h = (h ^ key[i]) * 0x100000001b3u;
	h ^= h >> 29;
	return (size_t)(h * 0x9e3779b97f4a7c15u >> 16);
}

/* A key as its record has it. The same key of a shard always is the same, since a prefix never changes and shorter keys have
 * none. */
struct stored_key {
	const uint8_t *bytes;
	size_t len;
	bool prefixed;
};

static struct stored_key stored_key(const struct shard *shard, const void *key, size_t key_len)
{
	if (!shard->has_prefix || key_len <= SHARD_PREFIX_SIZE || memcmp(key, shard->prefix, SHARD_PREFIX_SIZE) != 0)
		return (struct stored_key){key, key_len, false};
	return (struct stored_key){(const uint8_t *)key + SHARD_PREFIX_SIZE, key_len - SHARD_PREFIX_SIZE, true};
}

static struct stored_key key_of(const struct record *r)
{
	return (struct stored_key){r->bytes, r->key_len, r->prefixed};
}

size_t record_key(const struct record *r, uint8_t ret_key[GOSSIP_KEY_MAX])
{
	size_t before = r->prefixed ? SHARD_PREFIX_SIZE : 0;

	memcpy(ret_key, r->shard->prefix, before);
	memcpy(ret_key + before, r->bytes, r->key_len);
	return before + r->key_len;
}

static struct record **table_slot(const struct shards *s, const struct shard *shard, const struct stored_key *key)
{
	struct record **at = &s->table[key_hash(s, shard, key->bytes, key->len) & (s->table_size - 1)];

	while (*at && ((*at)->shard != shard || (*at)->key_len != key->len || (*at)->prefixed != key->prefixed ||
			      memcmp((*at)->bytes, key->bytes, key->len) != 0))
		at = &(*at)->chain;
	return at;
}

static void table_grow(struct shards *s)
{
	size_t size = s->table_size * 2;
	struct record **table = calloc(size, sizeof(*table));

	if (!table)
		return; /* longer chains */
	for (size_t i = 0; i < s->table_size; i++) {
		for (struct record *r = s->table[i], *next; r; r = next) {
			size_t slot = key_hash(s, r->shard, r->bytes, r->key_len) & (size - 1);

			next = r->chain;
			r->chain = table[slot];
			table[slot] = r;
		}
	}
	free(s->table);
	s->table = table;
	s->table_size = size;
}

static struct record *find(const struct shards *s, const struct shard *shard, const void *key, size_t key_len)
{
	struct stored_key stored = stored_key(shard, key, key_len);

	return *table_slot(s, shard, &stored);
}

const struct record *shards_record(const struct shard *shard, const struct shards *s, const void *key, size_t key_len)
{
	const struct record *r = find(s, shard, key, key_len);

	return r && !r->deleted ? r : NULL;
}

static void count_record(struct shards *s, const struct record *r, int by)
{
	s->record_count += (uint64_t)(int64_t)by;
	r->shard->of->record_count += (uint64_t)(int64_t)by;
	r->shard->in->record_count += (uint64_t)(int64_t)by;
	s->ageing |= r->deleted;
	if (r->deleted)
		r->shard->deleted_count += (unsigned)by;
	else
		s->live_count += (uint64_t)(int64_t)by;
}

static void drop_record(struct shards *s, struct record *r)
{
	struct stored_key key = key_of(r);
	struct record **at = table_slot(s, r->shard, &key);

	*at = r->chain;
	list_remove(list_of(r), r);
	count_record(s, r, -1);
	free(r);
}

/* Which limit one record more would exceed. */
static bool meets_limit(const struct shards *s, const struct shard *shard, enum shards_limit *ret_limit)
{
	const uint64_t count[] = {[SHARDS_LIMIT_ALL] = s->record_count,
		[SHARDS_LIMIT_HOST] = shard->of->record_count,
		[SHARDS_LIMIT_TOPIC] = shard->in->record_count};

	for (enum shards_limit i = 0; i < SHARDS_LIMIT_MEMORY; i++) {
		if (count[i] < s->max[i])
			continue;
		*ret_limit = i;
		return true;
	}
	return false;
}

static void count_refusal(struct shards *s, enum shards_limit limit)
{
	s->refused++;
	s->refused_by[limit]++;
	s->met = limit;
}

/* Puts a record in, in place of one of the same key. NULL at a limit or without memory. */
static struct record *store(struct shards *s, struct shard *shard, struct record *old, const struct proto_record *from)
{
	struct stored_key key;
	enum shards_limit limit;
	struct record *r;

	if (!old && meets_limit(s, shard, &limit)) {
		count_refusal(s, limit);
		return NULL;
	}
	if (!shard->has_prefix && from->key_len > SHARD_PREFIX_SIZE) {
		memcpy(shard->prefix, from->key, SHARD_PREFIX_SIZE);
		shard->has_prefix = true;
	}
	key = stored_key(shard, from->key, from->key_len);
	r = calloc(1, offsetof(struct record, bytes) + key.len + from->val_len);
	if (!r) {
		count_refusal(s, SHARDS_LIMIT_MEMORY);
		return NULL;
	}
	r->shard = shard;
	r->seq = from->seq;
	r->key_len = (uint8_t)key.len;
	r->prefixed = key.prefixed;
	r->val_len = (uint16_t)from->val_len;
	r->deleted = !from->val;
	memcpy(r->bytes, key.bytes, key.len);
	if (from->val_len > 0)
		memcpy(r->bytes + r->key_len, from->val, from->val_len);
	if (old)
		drop_record(s, old);
	if (s->record_count >= TABLE_LOAD * s->table_size)
		table_grow(s);
	r->chain = s->table[key_hash(s, shard, r->bytes, r->key_len) & (s->table_size - 1)];
	s->table[key_hash(s, shard, r->bytes, r->key_len) & (s->table_size - 1)] = r;
	list_insert(&shard->live, r);
	count_record(s, r, 1);
	return r;
}

static void notify(struct shards *s, const struct record *r, bool gone)
{
	uint8_t key[GOSSIP_KEY_MAX];

	if (r->shard->id.origin != s->self)
		s->ops->record(s->ctx, r->shard, key, record_key(r, key), gone ? NULL : record_val(r), gone ? 0 : r->val_len);
}

/* A record that goes from what people see. The callback may not look the key up and find it: it gets a copy, after the fact. */
static void expire(struct shards *s, struct record *r)
{
	struct shard *shard = r->shard;
	bool told = !r->deleted && shard->id.origin != s->self;
	uint8_t key[GOSSIP_KEY_MAX];
	size_t key_len = record_key(r, key);

	drop_record(s, r);
	if (told)
		s->ops->record(s->ctx, shard, key, key_len, NULL, 0);
}

/* ---- shards ---- */

void shards_init(struct shards *s, uint32_t self, uint32_t epoch, const struct shards_ops *ops, void *ctx)
{
	*s = (struct shards){.self = self,
		.ops = ops,
		.ctx = ctx,
		.max = {GOSSIP_RECORDS_MAX, GOSSIP_RECORDS_HOST_MAX, GOSSIP_RECORDS_TOPIC_MAX}};
	s->table_size = TABLE_FIRST;
	s->table_seed = (uintptr_t)s * 0x9e3779b97f4a7c15u;
	s->table = calloc(s->table_size, sizeof(*s->table));
	if (!s->table)
		abort();
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
	HASH_DEL(s->by_id, shard);
	shard->in->shards--;
	drop_topic(s, shard->in);
	free(shard->ranges);
	free(shard->cursors);
	free(shard);
}

void shards_fini(struct shards *s)
{
	struct shard *shard, *tmp;
	struct origin *origin, *tmp_origin;
	struct topic *topic, *tmp_topic;

	for (size_t i = 0; i < s->table_size; i++) {
		for (struct record *r = s->table[i], *next; r; r = next) {
			next = r->chain;
			free(r);
		}
	}
	free(s->table);
	HASH_ITER(hh, s->by_id, shard, tmp)
	free_shard(s, shard);
	HASH_ITER(hh, s->topics, topic, tmp_topic)
	{
		topic->wanted = false;
		drop_topic(s, topic);
	}
	HASH_ITER(hh, s->origins, origin, tmp_origin)
	{
		HASH_DEL(s->origins, origin);
		free(origin);
	}
	s->table = NULL;
	s->table_size = 0;
}

struct origin *shards_origin(const struct shards *s, uint32_t hostno)
{
	struct origin *origin;

	HASH_FIND(hh, s->origins, &hostno, sizeof(hostno), origin);
	return origin;
}

struct shard *shards_find(const struct shards *s, uint32_t origin, uint64_t topic)
{
	struct shard key, *shard;

	memset(&key.id, 0, sizeof(key.id));
	key.id.topic = topic;
	key.id.origin = origin;
	HASH_FIND(hh, s->by_id, &key.id, sizeof(key.id), shard);
	return shard;
}

static u128 root_of(const struct shard *shard)
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
	crypto_shorthash_siphashx24(out, in, w.len, siphash_key);
	br_init(&r, out, sizeof(out));
	return br_u128(&r);
}

static void update_root(struct shards *s, struct shard *shard)
{
	set_root(s, shard, root_of(shard));
}

static struct shard *make_shard(struct shards *s, struct origin *origin, uint64_t topic, uint64_t now_ms)
{
	struct shard *shard;

	if (HASH_COUNT(s->by_id) >= SHARDS_MAX)
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
	shard->floor_at_ms = now_ms + SHARDS_FLOOR_EVERY_MS;
	shard->next_of_origin = origin->shards;
	origin->shards = shard;
	HASH_ADD(hh, s->by_id, id, sizeof(shard->id), shard);
	s->shape++;
	return shard;
}

void shards_saw_epoch(struct shards *s, uint32_t hostno, uint32_t epoch, uint64_t now_ms)
{
	struct origin *origin = shards_origin(s, hostno);

	if (!origin) {
		origin = calloc(1, sizeof(*origin));
		if (!origin)
			abort();
		origin->hostno = hostno;
		origin->epoch = epoch;
		HASH_ADD(hh, s->origins, hostno, sizeof(origin->hostno), origin);
	}
	if (epoch <= origin->epoch)
		return;
	origin->epoch = epoch;
	origin->refused = false;
	for (struct shard *shard = origin->shards; shard; shard = shard->next_of_origin) {
		shard->old_until_ms = now_ms + SHARDS_OLD_EPOCH_MS;
		s->ageing = true;
		update_root(s, shard);
	}
}

struct shard *shards_make(struct shards *s, uint32_t origin, uint64_t topic, uint32_t epoch, uint64_t now_ms)
{
	struct shard *shard = shards_find(s, origin, topic);

	if (shard)
		return shard;
	shards_saw_epoch(s, origin, epoch, now_ms);
	return make_shard(s, shards_origin(s, origin), topic, now_ms);
}

/* R5: what is there belongs to the past, and waits for the new epoch to confirm it. */
static void begin_epoch(struct shards *s, struct shard *shard, uint64_t now_ms)
{
	struct record *r;

	while ((r = shard->live.first)) {
		if (r->deleted) {
			drop_record(s, r);
			continue;
		}
		list_remove(&shard->live, r);
		r->seq = 0;
		r->old_epoch = true;
		r->unconfirmed = r->doomed = false; /* what a listing of the old epoch left out, the new one may have again */
		list_insert(&shard->old, r);
	}
	shard->old_until_ms = now_ms + SHARDS_OLD_EPOCH_MS;
	s->ageing = true;
	shard->epoch = shard->of->epoch;
	shard->head = shard->floor = shard->floor_next = shard->pushed = 0;
	shard->range_count = 0;
	shard->listing = shard->relist = shard->sweep_due = shard->settled = shard->vacant = false;
	update_root(s, shard);
}

static void sweep_old(struct shards *s, struct shard *shard)
{
	while (shard->old.first)
		expire(s, shard->old.first);
	shard->old_until_ms = 0;
}

/* A shard without records that nobody can learn from any more. */
static void drop_shard(struct shards *s, struct shard *shard)
{
	sweep_old(s, shard);
	while (shard->live.first)
		expire(s, shard->live.first);
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
		drop_record(s, shard->live.first);
	while (shard->old.first)
		drop_record(s, shard->old.first);
	free_shard(s, shard);
}

void shards_sweep_unwanted(struct shards *s)
{
	struct shard *shard, *tmp;
	struct topic *topic, *tmp_topic;

	HASH_ITER(hh, s->by_id, shard, tmp)
	if (shard->id.origin != s->self && !topic_for_all(shard->id.topic) && !shard->in->wanted)
		forget_shard(s, shard);
	HASH_ITER(hh, s->topics, topic, tmp_topic)
	drop_topic(s, topic);
}

/* ---- own records ---- */

static struct shard *own_shard(struct shards *s, uint64_t topic, uint64_t now_ms)
{
	struct shard *shard = shards_find(s, s->self, topic);

	if (!shard) {
		shard = make_shard(s, shards_origin(s, s->self), topic, now_ms);
		if (shard)
			shard->floor = shard->floor_next = s->base;
	}
	return shard;
}

struct shard *shards_put(struct shards *s, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len,
	uint64_t now_ms, bool *ret_full)
{
	struct shard *shard = own_shard(s, topic, now_ms);
	struct record *old = shard ? find(s, shard, key, key_len) : NULL;
	struct proto_record change = {.seq = s->seq + 1, .key = key, .key_len = key_len, .val = val, .val_len = val_len};

	*ret_full = false;
	if (old && !old->deleted && old->val_len == val_len && memcmp(record_val(old), val, val_len) == 0)
		return NULL;
	if (!shard)
		count_refusal(s, SHARDS_LIMIT_MEMORY);
	if (!shard || !store(s, shard, old, &change)) {
		*ret_full = true;
		return NULL;
	}
	shard->head = ++s->seq;
	update_root(s, shard);
	return shard;
}

struct shard *shards_del(struct shards *s, uint64_t topic, const void *key, size_t key_len, uint64_t now_ms)
{
	struct shard *shard = shards_find(s, s->self, topic);
	struct record *old = shard ? find(s, shard, key, key_len) : NULL;

	(void)now_ms;
	if (!old || old->deleted)
		return NULL;
	/* In place: a deletion must not fail for want of memory. */
	list_remove(&shard->live, old);
	count_record(s, old, -1);
	old->deleted = true;
	old->val_len = 0;
	old->seq = ++s->seq;
	count_record(s, old, 1);
	list_insert(&shard->live, old);
	shard->head = s->seq;
	update_root(s, shard);
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
		update_root(s, shard);
	}
}

void shards_settle_own(struct shards *s)
{
	for (struct shard *shard = shards_origin(s, s->self)->shards; shard; shard = shard->next_of_origin) {
		shard->settled = true;
		update_root(s, shard);
	}
}

struct shard *shards_adopt(struct shards *s, uint64_t topic, uint64_t now_ms)
{
	struct shard *shard = own_shard(s, topic, now_ms);

	if (!shard)
		return NULL;
	shard->floor = shard->floor_next = s->seq;
	shard->head = ++s->seq;
	update_root(s, shard);
	return shard;
}

/* ---- what is known ---- */

static bool is_known(const struct shard *shard, uint64_t seq)
{
	if (seq <= shard->head)
		return true;
	for (unsigned i = 0; i < shard->range_count; i++)
		if (seq > shard->ranges[i].from && seq <= shard->ranges[i].to)
			return true;
	return false;
}

static void remove_range(struct shard *shard, unsigned i)
{
	memmove(&shard->ranges[i], &shard->ranges[i + 1], (shard->range_count - i - 1) * sizeof(*shard->ranges));
	shard->range_count--;
}

/* Ranges that the head has reached become part of it. */
static void absorb_ranges(struct shard *shard)
{
	while (shard->range_count > 0 && shard->ranges[0].from <= shard->head) {
		if (shard->ranges[0].to > shard->head)
			shard->head = shard->ranges[0].to;
		remove_range(shard, 0);
	}
}

/* R2, the second half. At the limit the range is not remembered: its records are applied all the same, and come once more. */
static void add_range(struct shard *shard, uint64_t from, uint64_t to)
{
	unsigned i = 0;

	if (!shard->ranges)
		shard->ranges = calloc(SHARD_RANGES_MAX, sizeof(*shard->ranges));
	if (!shard->ranges)
		return;
	while (i < shard->range_count) {
		struct seq_range *r = &shard->ranges[i];

		if (r->to < from) {
			i++;
			continue;
		}
		if (r->from > to)
			break;
		from = r->from < from ? r->from : from;
		to = r->to > to ? r->to : to;
		remove_range(shard, i);
	}
	if (shard->range_count == SHARD_RANGES_MAX)
		return;
	memmove(&shard->ranges[i + 1], &shard->ranges[i], (shard->range_count - i) * sizeof(*shard->ranges));
	shard->ranges[i] = (struct seq_range){.from = from, .to = to};
	shard->range_count++;
}

/* ---- applying ---- */

static bool same_content(const struct record *r, const struct proto_record *in)
{
	return r->deleted == !in->val && r->val_len == in->val_len &&
	       (r->deleted || memcmp(record_val(r), in->val, in->val_len) == 0);
}

/* R6 */
static void conflict(struct shards *s, struct shard *shard, uint64_t seq)
{
	s->conflicts++;
	shard->of->refused = true;
	for (struct shard *each = shard->of->shards; each; each = each->next_of_origin)
		update_root(s, each);
	s->ops->conflict(s->ctx, shard, seq);
}

/* Whether another key holds this seq. Only the neighbourhood where it would go is looked at. */
static bool seq_taken(const struct shard *shard, uint64_t seq)
{
	const struct record *r = shard->live.last;

	while (r && r->seq > seq)
		r = r->prev;
	return r && r->seq == seq;
}

/* A record of the old epoch is confirmed or replaced without a gap: people see at most a changed value. */
static bool renew(struct shards *s, struct shard *shard, struct record *r, const struct proto_record *in)
{
	if (!in->val) {
		bool was_seen = !r->deleted;

		if (!store(s, shard, r, in))
			return false;
		if (was_seen)
			notify(s, find(s, shard, in->key, in->key_len), true);
		return true;
	}
	if (same_content(r, in)) {
		list_remove(&shard->old, r);
		r->old_epoch = false;
		r->seq = in->seq;
		list_insert(&shard->live, r);
		return true;
	}
	r = store(s, shard, r, in);
	if (r)
		notify(s, r, false);
	return r != NULL;
}

static bool replace(struct shards *s, struct shard *shard, struct record *old, const struct proto_record *in)
{
	bool was_seen = old && !old->deleted;
	bool changed = !old || !same_content(old, in);
	struct record *r = store(s, shard, old, in);

	if (!r)
		return false;
	if (r->deleted ? was_seen : changed)
		notify(s, r, r->deleted);
	return true;
}

/* One record of a batch. False: R6 or a limit, the rest of the batch is not applied. */
static bool apply_record(struct shards *s, struct shard *shard, const struct proto_record *in, bool listing)
{
	struct record *r = find(s, shard, in->key, in->key_len);

	if (r && !r->old_epoch) {
		if (r->seq == in->seq) {
			if (!same_content(r, in) && listing && shard->relist)
				return replace(s, shard, r, in);
			if (!same_content(r, in)) {
				conflict(s, shard, in->seq);
				return false;
			}
			r->unconfirmed &= !listing;
			return true;
		}
		if (r->seq > in->seq)
			return true;
	}
	if (!(listing && shard->relist) && seq_taken(shard, in->seq)) {
		conflict(s, shard, in->seq);
		return false;
	}
	if (!listing && is_known(shard, in->seq) && !s->no_r3)
		return true; /* R3 */
	if (!in->val && in->seq <= shard->floor && !r)
		return true;
	if (!(r && r->old_epoch ? renew(s, shard, r, in) : replace(s, shard, r, in)))
		return false;
	/* What comes from elsewhere while a listing is under way may be older than it: the listing must name it too. */
	r = find(s, shard, in->key, in->key_len);
	if (r && r->seq == in->seq)
		r->unconfirmed = shard->listing && !listing;
	return true;
}

static bool apply_records(struct shards *s, struct shard *shard, const struct proto_batch *batch, bool listing)
{
	struct proto_record in = {.seq = batch->from};
	size_t pos = 0;

	while (proto_batch_next(batch, &pos, &in))
		if (!apply_record(s, shard, &in, listing))
			return false;
	return true;
}

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
			drop_record(s, r);
	}
}

/* What a complete listing did not name is gone, unless it is newer than the listing. */
static void end_listing(struct shards *s, struct shard *shard)
{
	for (struct record *r = shard->live.first; r; r = r->next) {
		r->doomed |= r->unconfirmed && r->seq <= shard->listed;
		r->unconfirmed = false;
	}
	shard->listing = shard->relist = false;
	shard->sweep_due = true;
	s->resets++;
}

static void sweep_doomed(struct shards *s, struct shard *shard)
{
	struct record *r, *next;

	for (r = shard->live.first; r; r = next) {
		next = r->next;
		if (r->doomed)
			expire(s, r);
	}
	shard->sweep_due = false;
}

static void sweep_if_due(struct shards *s, struct shard *shard)
{
	if (!shard->settled)
		return;
	if (shard->sweep_due)
		sweep_doomed(s, shard);
	if (shard->old.first)
		sweep_old(s, shard);
	shard->old_until_ms = 0;
}

void shards_confirm_settled(struct shards *s, struct shard *shard)
{
	shard->settled = true;
	sweep_if_due(s, shard);
	update_root(s, shard);
}

static void begin_listing(struct shard *shard, uint64_t head)
{
	shard->listing = true;
	shard->listed = 0;
	shard->as_of = head;
	for (struct record *r = shard->live.first; r; r = r->next)
		r->unconfirmed = true;
}

static enum shards_verdict apply_listing(struct shards *s, struct shard *shard, const struct proto_batch *batch)
{
	if (batch->from == 0 && (!shard->listing || batch->floor > shard->as_of))
		begin_listing(shard, batch->head);
	if (!shard->listing || batch->from > shard->listed || batch->floor > shard->as_of)
		return SHARDS_GAP;
	if (batch->to <= shard->listed)
		return SHARDS_KNOWN;
	if (!apply_records(s, shard, batch, true))
		return SHARDS_REFUSED;
	shard->listed = batch->to;
	if (batch->head < shard->as_of)
		shard->as_of = batch->head;
	if (batch->to < batch->head)
		return SHARDS_APPLIED;
	end_listing(s, shard);
	shard->head = batch->to;
	absorb_ranges(shard);
	shards_raise_floor(s, shard, batch->floor);
	return SHARDS_APPLIED;
}

static enum shards_verdict apply_delta(struct shards *s, struct shard *shard, const struct proto_batch *batch)
{
	bool known = batch->to <= shard->head;

	if (batch->from < batch->floor && shard->head < batch->floor)
		return SHARDS_GAP; /* deletions are missing from it that we have not seen */
	if (!apply_records(s, shard, batch, false))
		return SHARDS_REFUSED;
	if (known)
		return SHARDS_KNOWN;
	if (batch->from > shard->head) {
		add_range(shard, batch->from, batch->to);
		return SHARDS_APPLIED;
	}
	shard->head = batch->to;
	absorb_ranges(shard);
	if (shard->listing && shard->head >= shard->as_of)
		shard->listing = false; /* overtaken: the gap it was to close is closed */
	shards_raise_floor(s, shard, batch->floor);
	return SHARDS_APPLIED;
}

/* Claims about our own shard that we did not make: a clone of us, or we were set back to an older state. */
static enum shards_verdict apply_to_own(const struct shards *s, const struct proto_batch *batch)
{
	const struct origin *origin = shards_origin(s, s->self);

	if (batch->epoch > origin->epoch || (batch->epoch == origin->epoch && batch->to > s->seq))
		return SHARDS_OURS;
	return SHARDS_KNOWN;
}

static struct shard *shard_for(struct shards *s, const struct proto_batch *batch, uint64_t now_ms)
{
	struct shard *shard = shards_find(s, batch->origin, batch->topic);

	if (!shard)
		return make_shard(s, shards_origin(s, batch->origin), batch->topic, now_ms);
	if (shard->epoch < batch->epoch)
		begin_epoch(s, shard, now_ms);
	return shard;
}

/* The origin started again (R5, or the same epoch with its seqs continued): nothing is swept before it says that it is done. */
static void unsettle(struct shards *s, struct shard *shard, uint64_t now_ms)
{
	shard->settled = false;
	s->ageing = true;
	if (shard->old_until_ms == 0)
		shard->old_until_ms = now_ms + SHARDS_OLD_EPOCH_MS;
}

enum shards_verdict shards_apply(struct shards *s, const struct proto_batch *batch, uint64_t now_ms)
{
	struct origin *origin;
	struct shard *shard;
	enum shards_verdict verdict;
	uint64_t head_before;

	if (batch->origin == s->self)
		return apply_to_own(s, batch);
	if (!shards_keeps(s, batch->topic)) {
		s->unwanted++;
		return SHARDS_UNWANTED;
	}
	shards_saw_epoch(s, batch->origin, batch->epoch, now_ms);
	origin = shards_origin(s, batch->origin);
	if (batch->epoch < origin->epoch)
		return SHARDS_BEHIND;
	if (origin->refused)
		return SHARDS_REFUSED;
	shard = shard_for(s, batch, now_ms);
	if (!shard) {
		count_refusal(s, SHARDS_LIMIT_MEMORY);
		return SHARDS_REFUSED;
	}
	shards_offered(s, shard);
	head_before = shard->head;
	if (!(batch->flags & PROTO_BATCH_SETTLED) && batch->head > shard->head)
		unsettle(s, shard, now_ms);
	/* A listing matters to who is below its floor; to others it is a batch like any. */
	if (batch->flags & PROTO_BATCH_LISTING && (shard->head < batch->floor || shard->relist))
		verdict = apply_listing(s, shard, batch);
	else
		verdict = apply_delta(s, shard, batch);
	/* Only who knows as much as we do can say so: a copy from before the restart was settled too. */
	if (batch->flags & PROTO_BATCH_SETTLED && batch->head >= head_before && shard->head >= batch->head)
		shard->settled = true;
	sweep_if_due(s, shard);
	update_root(s, shard);
	if (verdict == SHARDS_REFUSED && !origin->refused)
		shard->refused_ms = now_ms;
	return verdict;
}

void shards_offered(struct shards *s, struct shard *shard)
{
	if (!shard->vacant)
		return;
	shard->vacant = false;
	update_root(s, shard);
}

static bool shows_something(const struct shard *shard)
{
	const struct record *r = shard->old.first;

	for (r = r ? r : shard->live.first; r && r->deleted; r = r->next)
		;
	return r != NULL;
}

/* The origin has nothing in it up to `seq`. */
static void vacate(struct shards *s, struct shard *shard, uint64_t seq, uint64_t now_ms)
{
	bool earlier = shard->epoch < shard->of->epoch;

	if (earlier && !shows_something(shard)) {
		drop_shard(s, shard);
		return;
	}
	if (!earlier && shard->head > seq)
		return;
	if (earlier) {
		begin_epoch(s, shard, now_ms);
		shard->vacant = true;
	}
	while (shard->live.first && shard->live.first->seq <= seq)
		expire(s, shard->live.first);
	shard->head = shard->floor = shard->floor_next = seq;
	shard->listing = shard->relist = false;
	absorb_ranges(shard);
	shards_confirm_settled(s, shard);
}

void shards_settle(struct shards *s, const struct shards_settled *all, uint64_t now_ms)
{
	struct origin *origin;
	struct shard *shard, *next;

	if (all->hostno == s->self)
		return;
	shards_saw_epoch(s, all->hostno, all->epoch, now_ms);
	origin = shards_origin(s, all->hostno);
	if (all->epoch < origin->epoch || origin->refused)
		return;
	for (shard = origin->shards; shard; shard = next) {
		uint64_t head;

		next = shard->next_of_origin;
		if (shard->id.topic < all->topic_lo || shard->id.topic > all->topic_hi)
			continue;
		if (!all->has(all->ctx, shard->id.topic, &head))
			vacate(s, shard, all->seq, now_ms);
		else if (shard->epoch == all->epoch && shard->head >= head && shard->head <= all->seq)
			shards_confirm_settled(s, shard);
	}
}

/* ---- giving ---- */

static const struct record *first_after(const struct shard *shard, uint64_t seq)
{
	struct record_list *list = (struct record_list *)&shard->live; /* what is in it stays */
	struct record *r = list->last;

	if (!r || r->seq <= seq)
		return NULL;
	/* Usually the tail is wanted. */
	for (unsigned i = 0; i < TAIL_USUAL && r->prev && r->prev->seq > seq; i++)
		r = r->prev;
	if (r->prev && r->prev->seq > seq && list->at)
		r = list->at;
	while (r->seq <= seq)
		r = r->next;
	while (r->prev && r->prev->seq > seq)
		r = r->prev;
	list->at = r;
	return r;
}

uint64_t shards_encode(const struct shard *shard, uint64_t from, bool listing, uint8_t flags, struct proto_packet *packet)
{
	struct proto_list list;
	struct proto_batch batch = {
		.origin = shard->id.origin,
		.topic = shard->id.topic,
		.epoch = shard->epoch,
		.from = from,
		.to = from,
		.floor = shard->floor,
		.head = shard->head,
		.flags = (uint8_t)(flags | (listing ? PROTO_BATCH_LISTING : 0) |
				   (shard_says_settled(shard) ? PROTO_BATCH_SETTLED : 0)),
	};
	const struct record *r;

	if (from >= shard->head || (listing && !shard_whole(shard)) || !proto_batch_open(&list, packet))
		return from;
	for (r = first_after(shard, from); r && r->seq <= shard->head; r = r->next) {
		uint8_t key[GOSSIP_KEY_MAX];
		struct proto_record record = {
			.seq = r->seq, .key = key, .key_len = record_key(r, key), .val = record_val(r), .val_len = r->val_len};

		if (r->doomed)
			continue;
		if (!proto_batch_add(&list, batch.to, &record))
			break;
		batch.to = r->seq;
	}
	if (!r || r->seq > shard->head)
		batch.to = shard->head;
	if (batch.to == from || !proto_batch_close(&list, &batch))
		return from;
	return batch.to;
}

/* Between two numbers there is nothing, deletions neither: no floor is above that. */
bool shards_encode_one(const struct shard *shard, const struct record *r, struct proto_packet *packet)
{
	uint8_t key[GOSSIP_KEY_MAX];
	const struct proto_batch batch = {
		.origin = shard->id.origin,
		.topic = shard->id.topic,
		.epoch = shard->epoch,
		.from = r->seq - 1,
		.to = r->seq,
		.head = shard->head,
		.flags = shard_says_settled(shard) ? PROTO_BATCH_SETTLED : 0,
	};
	const struct proto_record record = {
		.seq = r->seq, .key = key, .key_len = record_key(r, key), .val = record_val(r), .val_len = r->val_len};
	struct proto_list list;

	return proto_batch_open(&list, packet) && proto_batch_add(&list, batch.from, &record) && proto_batch_close(&list, &batch);
}

void shards_pull(const struct shard *shard, struct proto_pull *ret_pull)
{
	bool current = shard->epoch == shard->of->epoch;

	*ret_pull = (struct proto_pull){
		.after = {.origin = shard->id.origin, .topic = shard->id.topic, .epoch = shard->of->epoch},
		.flags = current && shard->listing ? PROTO_PULL_LISTING : 0,
	};
	if (current)
		ret_pull->after.head = shard->listing ? shard->listed : shard->head;
}

/* ---- audit ---- */

bool shards_sum(const struct shard *shard, uint64_t *ret_sum)
{
	uint64_t sum = 0;

	if (!shard_current(shard) || !shard_says_settled(shard) || shard->listing || shard->sweep_due || shard->old.first)
		return false;
	for (const struct record *r = shard->live.first; r; r = r->next) {
		uint8_t in[8 + 1 + GOSSIP_KEY_MAX + GOSSIP_VALUE_MAX], out[crypto_shorthash_BYTES], key[GOSSIP_KEY_MAX];
		size_t key_len = record_key(r, key);
		struct bytes_writer w;
		struct bytes_reader reader;

		if (r->deleted)
			continue;
		bw_init(&w, in, sizeof(in));
		bw_u64(&w, r->seq);
		bw_u8(&w, (uint8_t)key_len);
		bw_bytes(&w, key, key_len);
		bw_bytes(&w, record_val(r), r->val_len);
		crypto_shorthash(out, in, w.len, siphash_key);
		br_init(&reader, out, sizeof(out));
		sum += br_u64(&reader);
	}
	*ret_sum = sum;
	return true;
}

void shards_relist(struct shard *shard, struct proto_pull *ret_pull)
{
	shard->relist = true;
	shard->listing = false;
	*ret_pull = (struct proto_pull){.after = {.origin = shard->id.origin, .topic = shard->id.topic, .epoch = shard->epoch},
		.flags = PROTO_PULL_LISTING};
}

/* ---- time ---- */

/* R5 runs out: the old epoch goes, and with it a shard that the new epoch does not have. */
static void expire_old_epoch(struct shards *s, struct shard *shard)
{
	if (shard->epoch < shard->of->epoch) {
		drop_shard(s, shard);
		return;
	}
	shards_confirm_settled(s, shard);
}

void shards_tick(struct shards *s, uint64_t now_ms)
{
	struct shard *shard, *tmp;
	bool ageing = false;

	if (!s->ageing)
		return;
	HASH_ITER(hh, s->by_id, shard, tmp)
	{
		/* Due since long, when there was nothing to forget: then floor_next is below all that there is now. */
		if (shard->deleted_count > 0 && now_ms >= shard->floor_at_ms) {
			shards_raise_floor(s, shard, shard->floor_next);
			shard->floor_next = shard->head;
			shard->floor_at_ms = now_ms + SHARDS_FLOOR_EVERY_MS;
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
	struct shard *shard, *tmp;

	HASH_ITER(hh, s->by_id, shard, tmp)
	if (shard->old_until_ms != 0)
		shard->old_until_ms = now_ms + SHARDS_OLD_EPOCH_MS;
}

/* ---- checks ---- */

static const char *check_shard(const struct shards *s, const struct shard *shard, uint64_t *live, uint64_t *all)
{
	uint64_t last = 0;
	unsigned deleted = 0;

	for (const struct record *r = shard->live.first; r; r = r->next) {
		if (r->seq <= last)
			return "records out of order";
		struct stored_key key = key_of(r);

		if (r->shard != shard || r->old_epoch || *table_slot(s, shard, &key) != r)
			return "record not where it belongs";
		last = r->seq;
		deleted += r->deleted;
		(*all)++;
		*live += !r->deleted;
	}
	for (const struct record *r = shard->old.first; r; r = r->next) {
		if (!r->old_epoch || r->deleted)
			return "old record not where it belongs";
		(*all)++;
		(*live)++;
	}
	if (deleted != shard->deleted_count)
		return "count of deletions";
	for (unsigned i = 0; i < shard->range_count; i++) {
		uint64_t below = i == 0 ? shard->head : shard->ranges[i - 1].to;

		if (shard->ranges[i].from <= below || shard->ranges[i].to <= shard->ranges[i].from)
			return "ranges out of order";
	}
	if (shard->floor > shard->head && shard->head > 0)
		return "floor above head";
	if (shard->root != root_of(shard))
		return "a shard's part of the root is out of date";
	if (shard->id.origin != s->self && !shards_keeps(s, shard->id.topic))
		return "a shard of a topic that is not kept here";
	return NULL;
}

static const char *check_topic(const struct shards *s, const struct topic *topic, u128 *all)
{
	const struct shard *shard, *tmp;
	u128 root = 0;

	HASH_ITER(hh, s->by_id, shard, tmp)
	if (shard->in == topic)
		root += shard->root;
	if (topic_for_all(topic->topic))
		*all += root;
	return root == topic->root ? NULL : "a topic's root is not the sum of its parts";
}

const char *shards_check(const struct shards *s)
{
	struct shard *shard, *tmp;
	struct topic *topic, *tmp_topic;
	u128 root = 0;
	uint64_t live = 0, all = 0;

	HASH_ITER(hh, s->by_id, shard, tmp)
	{
		const char *wrong = check_shard(s, shard, &live, &all);

		if (wrong)
			return wrong;
	}
	HASH_ITER(hh, s->topics, topic, tmp_topic)
	{
		const char *wrong = check_topic(s, topic, &root);

		if (wrong)
			return wrong;
	}
	if (root != s->root)
		return "root is not the sum of its parts";
	if (live != s->live_count || all != s->record_count)
		return "record counts";
	return NULL;
}

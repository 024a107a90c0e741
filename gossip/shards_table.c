/* The records themselves: the table in which they are found by key, and each shard's lists in order of seq. What a record means
 * is not known here: shards.c and shards_apply.c say which are put, moved and dropped.
 *
 * The table is our own (a chain pointer per record) instead of uthash, whose handle of 56 bytes would be half of a typical
 * record; so are those of shards and origins. A key that begins with its shard's prefix is kept without it.
 *
 * Always: a record is in the table once and in exactly one list of its shard, by old_epoch; lists are in order of seq; the counts
 * of all, of the origin, of the topic and of the shard's deletions are right, and no record is put over a limit. */
#include "gossip/shards_parts_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define TABLE_FIRST 256
#define TABLE_LOAD 2 /* records for each pointer of the table, at most */

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
	return r->old_epoch ? &shard_rare(r->shard)->old : &r->shard->live;
}

/* Into the other list, or behind the others of its own. */
void record_move(struct record *r, bool old_epoch, uint64_t seq)
{
	list_remove(list_of(r), r);
	r->old_epoch = old_epoch;
	r->seq = seq;
	list_insert(list_of(r), r);
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
	if (!shard->prefix || key_len <= SHARD_PREFIX_SIZE || memcmp(key, shard->prefix, SHARD_PREFIX_SIZE) != 0)
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

	if (before)
		memcpy(ret_key, r->shard->prefix, before);
	memcpy(ret_key + before, r->bytes, r->key_len);
	return before + r->key_len;
}

void table_open(struct shards *s)
{
	s->table_size = TABLE_FIRST;
	s->table_seed = (uintptr_t)s * 0x9e3779b97f4a7c15u;
	s->table = alloc_array(struct record *, s->table_size);
}

void table_close(struct shards *s)
{
	for (size_t i = 0; i < s->table_size; i++) {
		for (struct record *r = s->table[i], *next; r; r = next) {
			next = r->chain;
			free(r);
		}
	}
	free(s->table);
	s->table = NULL;
	s->table_size = 0;
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

struct record *record_find(const struct shards *s, const struct shard *shard, const void *key, size_t key_len)
{
	struct stored_key stored = stored_key(shard, key, key_len);

	return *table_slot(s, shard, &stored);
}

bool record_is_found(const struct shards *s, const struct record *r)
{
	struct stored_key key = key_of(r);

	return *table_slot(s, r->shard, &key) == r;
}

const struct record *shards_record(const struct shard *shard, const struct shards *s, const void *key, size_t key_len)
{
	const struct record *r = record_find(s, shard, key, key_len);

	return r && !r->deleted ? r : NULL;
}

static void count_record(struct shards *s, const struct record *r, int by)
{
	s->record_count += (uint64_t)(int64_t)by;
	r->shard->of->record_count += (uint32_t)by;
	r->shard->in->record_count += (uint64_t)(int64_t)by;
	s->ageing |= r->deleted;
	if (r->deleted)
		r->shard->deleted_count += (unsigned)by;
	else
		s->live_count += (uint64_t)(int64_t)by;
}

void record_drop(struct shards *s, struct record *r)
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

void shards_refuse(struct shards *s, enum shards_limit limit)
{
	s->refused++;
	s->refused_by[limit]++;
	s->met = limit;
}

/* Not later than the first key that has it: a key is stored in one form. */
static bool take_prefix(struct shard *shard, const uint8_t *key)
{
	shard->prefix = malloc(SHARD_PREFIX_SIZE);
	if (shard->prefix)
		memcpy(shard->prefix, key, SHARD_PREFIX_SIZE);
	return shard->prefix != NULL;
}

struct record *record_store(struct shards *s, struct shard *shard, struct record *old, const struct proto_record *from)
{
	struct stored_key key;
	enum shards_limit limit;
	struct record *r;

	if (!old && meets_limit(s, shard, &limit)) {
		shards_refuse(s, limit);
		return NULL;
	}
	if (!shard->prefix && from->key_len > SHARD_PREFIX_SIZE && !take_prefix(shard, from->key)) {
		shards_refuse(s, SHARDS_LIMIT_MEMORY);
		return NULL;
	}
	key = stored_key(shard, from->key, from->key_len);
	r = calloc(1, offsetof(struct record, bytes) + key.len + from->val_len);
	if (!r) {
		shards_refuse(s, SHARDS_LIMIT_MEMORY);
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
		record_drop(s, old);
	if (s->record_count >= TABLE_LOAD * s->table_size)
		table_grow(s);
	r->chain = s->table[key_hash(s, shard, r->bytes, r->key_len) & (s->table_size - 1)];
	s->table[key_hash(s, shard, r->bytes, r->key_len) & (s->table_size - 1)] = r;
	list_insert(&shard->live, r);
	count_record(s, r, 1);
	return r;
}

/* In place: a deletion must not fail for want of memory. */
void record_delete(struct shards *s, struct record *r, uint64_t seq)
{
	count_record(s, r, -1);
	r->deleted = true;
	r->val_len = 0;
	count_record(s, r, 1);
	record_move(r, false, seq);
}

/* A record that goes from what people see. The callback may not look the key up and find it: it gets a copy, after the fact. */
void record_expire(struct shards *s, struct record *r)
{
	struct shard *shard = r->shard;
	bool told = !r->deleted && shard->id.origin != s->self;
	uint8_t key[GOSSIP_KEY_MAX];
	size_t key_len = record_key(r, key);

	record_drop(s, r);
	if (told)
		s->ops->record(s->ctx, shard, key, key_len, NULL, 0);
}

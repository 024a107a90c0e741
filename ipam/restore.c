/* From what was saved to a core that acts: ipam_restore takes record after record, ipam_start makes one truth of them.
 *
 * Saves behind the last durable one may be lost in any tail, and a crash may fall between two of one change. So records may
 * overlap, and the newer one counts; what the disk is left with is brought to that before anything is shown to others. */
#include "ipam/ipam_internal.h"

#include <stdlib.h>

#include "base/alloc.h"

static void restored_add(struct pool *pool, const struct custody *entry)
{
	if (pool->restored_count == pool->restored_capacity) {
		pool->restored_capacity = pool->restored_capacity ? 2 * pool->restored_capacity : 4;
		pool->restored = alloc_resize(pool->restored, struct custody, pool->restored_capacity);
	}
	pool->restored[pool->restored_count++] = *entry;
}

static int restore_custody(struct ipam *ipam, const struct id128 *id, u128 start, const void *val, size_t len, struct err *err)
{
	struct custody entry;
	struct pool *pool;
	char text[ID_TEXT_SIZE];

	if (saved_custody_decode(&entry, start, val, len, err) < 0)
		return -1;
	pool = pool_get(ipam, id);
	if (!pool)
		return err_set(err, ERR_EXHAUSTED, "address pool %s: more than %u pools", id_format(id, text), IPAM_POOLS_MAX);
	if (custody_overlay(&pool->custody, &entry) < 0)
		return err_set(err, ERR_CORRUPT, "address pool %s: two saved ranges name different holders for one version",
			id_format(id, text));
	restored_add(pool, &entry);
	return 0;
}

static int restore_pool(struct ipam *ipam, const struct id128 *id, const void *val, size_t len, struct err *err)
{
	struct ipam_pool_def def = {.id = *id};
	struct saved_pool saved;
	struct pool *pool;
	char text[ID_TEXT_SIZE];

	if (saved_pool_decode(&saved, val, len, err) < 0)
		return -1;
	def.prefix = saved.prefix;
	def.edges_reserved = saved.edges_reserved;
	def.host_numbers = saved.host_numbers;
	def.slice_bits = saved.slice_bits;
	if (pool_check_def(&def, NULL) < 0)
		return err_set(err, ERR_CORRUPT, "address pool %s: its saved prefix is not one", id_format(id, text));
	pool = pool_get(ipam, id);
	if (!pool)
		return err_set(err, ERR_EXHAUSTED, "address pool %s: more than %u pools", id_format(id, text), IPAM_POOLS_MAX);
	pool_define(ipam, pool, &def);
	pool->wanted = saved.wanted == WANT_YES ? WANT_YES : WANT_UNTOLD; /* a hand-back needs to be told again in this life */
	pool->spares = saved.spares;
	return 0;
}

static int restore_lease(struct ipam *ipam, const struct id128 *id, u128 offset, const void *val, size_t len, struct err *err)
{
	struct saved_lease saved;
	struct pool *pool;
	char text[ID_TEXT_SIZE];

	if (saved_lease_decode(&saved, val, len, err) < 0)
		return -1;
	pool = pool_get(ipam, id);
	if (!pool)
		return err_set(err, ERR_EXHAUSTED, "address pool %s: more than %u pools", id_format(id, text), IPAM_POOLS_MAX);
	if (slot_restore(pool, offset, &saved) < 0)
		return err_set(err, ERR_CORRUPT, "address pool %s: one address was saved twice", id_format(id, text));
	return 0;
}

int ipam_restore(struct ipam *ipam, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	enum ipam_saved_kind kind;
	struct id128 id;
	u128 offset;

	if (ipam->started)
		return err_set(err, ERR_INTERNAL, "saved addresses were given back after the start");
	if (ipam_key_decode(key, key_len, &kind, &id, &offset) < 0)
		return err_set(err, ERR_CORRUPT, "saved addresses: a key of %zu bytes that does not decode", key_len);
	if (kind == IPAM_SAVED_POOL)
		return restore_pool(ipam, &id, val, len, err);
	if (kind == IPAM_SAVED_DECREE && (!id_is_zero(&id) || offset == 0 || offset > UINT32_MAX))
		return err_set(err, ERR_CORRUPT, "saved decree: its key names no host");
	if (kind == IPAM_SAVED_DECREE)
		return decree_restore(ipam, (uint32_t)offset, val, len, err);
	if (kind == IPAM_SAVED_CUSTODY)
		return restore_custody(ipam, &id, offset, val, len, err);
	return restore_lease(ipam, &id, offset, val, len, err);
}

static int by_start(const void *a, const void *b)
{
	const struct custody *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static const struct custody *restored_find(const struct pool *pool, u128 start)
{
	struct custody key = {.start = start};

	if (!pool->restored_count)
		return NULL;
	return bsearch(&key, pool->restored, pool->restored_count, sizeof(key), by_start);
}

static bool same_entry(const struct custody *a, const struct custody *b)
{
	return a->start == b->start && a->len == b->len && a->reign == b->reign && a->version == b->version && a->to == b->to &&
	       a->xid == b->xid;
}

/* Brings the disk to what overlaying made of it. First what has no pair of its own, then what changed, then what nobody needs: a
 * crash in between finds the same again. */
static void tidy_disk(struct ipam *ipam, struct pool *pool)
{
	qsort(pool->restored, pool->restored_count, pool->restored ? sizeof(*pool->restored) : 1, by_start);
	for (int changed = 0; changed < 2; changed++) {
		for (size_t i = 0; i < pool->custody.count; i++) {
			const struct custody *old = restored_find(pool, pool->custody.entries[i].start);

			if (!!old == changed && (!old || !same_entry(old, &pool->custody.entries[i])))
				custody_save(ipam, pool, &pool->custody.entries[i], false);
		}
	}
	for (size_t i = 0; i < pool->restored_count; i++) {
		const struct custody *now = custody_at(&pool->custody, pool->restored[i].start);
		struct custody gone = {.start = pool->restored[i].start};

		if (!now || now->start != gone.start)
			custody_save(ipam, pool, &gone, false);
	}
	free(pool->restored);
	pool->restored = NULL;
	pool->restored_count = pool->restored_capacity = 0;
}

/* What a killed process saved without waiting may be read back and still be lost by a power cut. Before we show any of it to
 * others, one durable save takes it all along: else a half-made gift could arrive over there and be forgotten here. */
static void make_durable(struct ipam *ipam)
{
	struct pool *pool, *next;

	HASH_ITER(hh, ipam->pools, pool, next)
	{
		if (!pool->custody.count)
			continue;
		custody_save(ipam, pool, &pool->custody.entries[0], true);
		return;
	}
}

void ipam_start(struct ipam *ipam, uint64_t now_ms)
{
	struct pool *pool, *next;

	HASH_ITER(hh, ipam->pools, pool, next)
	{
		if (pool->known)
			custody_clip(&pool->custody, pool->first, pool->usable);
		if (pool->restored)
			tidy_disk(ipam, pool);
		pool_recount(ipam, pool);
		slots_check_custody(ipam, pool);
		if (!pool->known) {
			pool_free_if_empty(ipam, pool);
			continue;
		}
		slots_start(pool);
		offers_restore(pool, ipam->config.hostno);
		pool->dirty = true;
	}
	make_durable(ipam);
	ipam->started = true;
	if (ipam->forgotten)
		pools_wipe(ipam);
	decrees_start(ipam, now_ms);
	HASH_ITER(hh, ipam->pools, pool, next)
	{
		if (!pool->known)
			continue;
		pool_use_views(ipam, pool);
		pool_after_change(ipam, pool, now_ms);
	}
}

/* Slices: a part of a large pool that is each host's own from the beginning, without a word to anybody.
 *
 * The upper half of such a pool is cut into 2^slice_bits slices, and slice n is host n's: address = prefix | 1 | host number |
 * rest. Host numbers are given once and never again, so nobody else can start with it. From there on a slice is custody like any
 * other, held at version 0: its addresses can be asked for by name, given, handed over by a host that leaves, and inherited.
 * Slices of numbers that no host has are nobody's. The lower half is the maker's, as in every pool: that is where people choose
 * addresses.
 *
 * What it gave away of its slice stays known to it for ever, also when it drops the pool: joined again, the slice is filled only
 * where no fact is. A host uses its slice only once it is known to many (ipam_be_known): while only its sponsor knows it, its
 * number might be given again. */
#include "ipam/ipam_internal.h"

static u128 slice_size(const struct pool *pool)
{
	return pool->size / 2 >> pool->def.slice_bits;
}

bool slice_of(const struct pool *pool, uint32_t hostno, u128 *ret_start, u128 *ret_len)
{
	u128 start, end, last = pool->first + pool->usable;

	if (!pool->def.slice_bits || hostno == 0 || hostno >> pool->def.slice_bits)
		return false;
	start = pool->size / 2 + hostno * slice_size(pool);
	end = start + slice_size(pool) < last ? start + slice_size(pool) : last;
	if (start >= end)
		return false;
	*ret_start = start;
	*ret_len = end - start;
	return true;
}

uint32_t slice_host(const struct pool *pool, u128 offset)
{
	if (!pool->def.slice_bits || offset < pool->size / 2)
		return 0;
	return (uint32_t)((offset - pool->size / 2) / slice_size(pool));
}

u128 first_slice(const struct pool *pool)
{
	return pool->def.slice_bits ? pool->size / 2 : pool->first + pool->usable;
}

/* From `at` on; up to the next fact of ours. */
static struct custody unknown_piece(const struct pool *pool, u128 at, u128 end)
{
	size_t i = custody_index(&pool->custody, at);
	const struct custody *c = i < pool->custody.count ? &pool->custody.entries[i] : NULL;
	struct custody piece = {.start = at, .to = pool->self};

	if (c && c->start < end)
		end = c->start > at ? c->start : at;
	piece.len = end - at;
	return piece;
}

void slice_fill(struct ipam *ipam, struct pool *pool)
{
	u128 at, len, end;

	if (!ipam->known || !slice_of(pool, pool->self, &at, &len))
		return;
	for (end = at + len; at < end;) {
		struct custody piece = unknown_piece(pool, at, end);
		const struct custody *c;

		if (piece.len && ipam->started) /* its leases must find it, whenever slices are opened in the next life */
			pool_put_custody(ipam, pool, &piece, false);
		else if (piece.len)
			custody_put(&pool->custody, &piece, false, NULL, NULL);
		c = custody_at(&pool->custody, at);
		at = c->start + c->len;
	}
}

u128 slice_held_outside(const struct pool *pool)
{
	u128 start = 0, len = 0, outside = 0;

	slice_of(pool, pool->self, &start, &len);
	for (size_t i = 0; i < pool->custody.count; i++) {
		const struct custody *c = &pool->custody.entries[i];
		u128 low = c->start > start ? c->start : start, end = c->start + c->len;
		u128 high = end < start + len ? end : start + len;

		if (c->to == pool->self)
			outside += c->len - (high > low ? high - low : 0);
	}
	return outside;
}

bool slice_untouched(const struct pool *pool)
{
	u128 start, len;

	if (!slice_of(pool, pool->self, &start, &len))
		return true;
	for (size_t i = custody_index(&pool->custody, start);
		i < pool->custody.count && pool->custody.entries[i].start < start + len; i++)
		if (pool->custody.entries[i].to != pool->self || pool->custody.entries[i].version ||
			pool->custody.entries[i].reign)
			return false;
	return true;
}

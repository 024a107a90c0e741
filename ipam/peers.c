/* The map: what other hosts publish about a pool, and what we publish.
 *
 * It is advisory. It says whom to ask and when an offer has arrived; nobody ever takes an address because of it. Chunks of pools
 * that we do not know yet are kept: records arrive in any order. */
#include "ipam/ipam_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

enum peer_life peer_life(const struct ipam *ipam, uint32_t hostno)
{
	struct peer *peer;

	HASH_FIND(hh, ipam->peers, &hostno, sizeof(hostno), peer);
	if (peer && (peer->left || peer->refused))
		return PEER_DEAD;
	return peer ? peer->life : PEER_UNTOLD;
}

bool view_wanted(const struct view *view)
{
	return view->chunk_count && view->chunks[0] && view->chunks[0]->wanted;
}

bool view_few(const struct view *view)
{
	return !view->chunk_count || !view->chunks[0] || view->chunks[0]->few;
}

uint8_t view_bucket(const struct view *view)
{
	return view->chunk_count && view->chunks[0] ? view->chunks[0]->bucket : 0;
}

u128 view_held(const struct view *view, unsigned *ret_fragments)
{
	unsigned fragments = 0;
	u128 held = 0;

	for (unsigned i = 0; i < view->chunk_count; i++) {
		const struct ipam_chunk *chunk = view->chunks[i];

		for (unsigned j = 0; chunk && j < chunk->holding_count; j++) {
			held += chunk->holdings[j].len;
			fragments++;
		}
	}
	if (ret_fragments)
		*ret_fragments = fragments;
	return held;
}

/* The first holding in a chunk that ends behind the offset. */
static unsigned holding_index(const struct ipam_chunk *chunk, u128 offset)
{
	unsigned low = 0, high = chunk->holding_count;

	while (low < high) {
		unsigned middle = low + (high - low) / 2;

		if (chunk->holdings[middle].start + chunk->holdings[middle].len > offset)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

bool view_holds_some(const struct view *view, u128 start, u128 len)
{
	for (unsigned i = 0; i < view->chunk_count; i++) {
		const struct ipam_chunk *chunk = view->chunks[i];
		unsigned j = chunk ? holding_index(chunk, start) : 0;

		if (chunk && j < chunk->holding_count && chunk->holdings[j].start < start + len)
			return true;
	}
	return false;
}

static const struct custody *view_at(const struct view *view, u128 offset)
{
	for (unsigned i = 0; i < view->chunk_count; i++) {
		const struct ipam_chunk *chunk = view->chunks[i];
		unsigned j = chunk ? holding_index(chunk, offset) : 0;

		if (chunk && j < chunk->holding_count && chunk->holdings[j].start <= offset)
			return &chunk->holdings[j];
	}
	return NULL;
}

bool view_covers(const struct view *view, const struct custody *range)
{
	for (u128 at = range->start; at < range->start + range->len;) {
		const struct custody *c = view_at(view, at);

		if (!c || custody_newer(range->reign, range->version, c->reign, c->version))
			return false;
		at = c->start + c->len;
	}
	return true;
}

/* --- shared leases of others --- */

const struct listed *listed_find(const struct pool *pool, u128 offset)
{
	struct listed *listed;

	HASH_FIND(hh, pool->listed, &offset, sizeof(offset), listed);
	return listed;
}

static void list_chunk(struct pool *pool, uint32_t hostno, const struct ipam_chunk *chunk)
{
	for (unsigned i = 0; i < chunk->shared_count; i++) {
		struct listed *listed = (struct listed *)listed_find(pool, chunk->shared[i].offset);

		if (!listed) {
			listed = alloc_new(struct listed);
			listed->offset = chunk->shared[i].offset;
			HASH_ADD(hh, pool->listed, offset, sizeof(listed->offset), listed);
		}
		listed->count++;
		listed->flags = chunk->shared[i].flags;
		listed->tag = chunk->shared[i].tag;
		listed->hostno = hostno;
	}
}

static void unlist_chunk(struct pool *pool, const struct ipam_chunk *chunk)
{
	for (unsigned i = 0; i < chunk->shared_count; i++) {
		struct listed *listed = (struct listed *)listed_find(pool, chunk->shared[i].offset);

		if (--listed->count > 0)
			continue;
		HASH_DEL(pool->listed, listed);
		free(listed);
	}
}

static void view_free(struct pool *pool, struct view *view)
{
	HASH_DEL(pool->views, view);
	free(view->chunks);
	free(view);
}

/* Most hosts publish one chunk of a pool, so the array grows to what is used. */
static void view_reserve(struct view *view, unsigned count)
{
	if (count <= view->chunk_count)
		return;
	view->chunks = alloc_resize(view->chunks, struct ipam_chunk *, count);
	memset(view->chunks + view->chunk_count, 0, (count - view->chunk_count) * sizeof(*view->chunks));
	view->chunk_count = count;
}

void view_set_chunk(struct pool *pool, uint32_t hostno, unsigned index, struct ipam_chunk *chunk)
{
	struct ipam_chunk *old;
	struct view *view;

	HASH_FIND(hh, pool->views, &hostno, sizeof(hostno), view);
	if (!view && !chunk)
		return;
	if (!view) {
		view = alloc_new(struct view);
		view->hostno = hostno;
		HASH_ADD(hh, pool->views, hostno, sizeof(view->hostno), view);
	}
	if (chunk)
		view_reserve(view, index + 1);
	if (index >= view->chunk_count)
		return;
	old = view->chunks[index];
	view->chunks[index] = chunk;
	if (chunk)
		list_chunk(pool, hostno, chunk);
	if (old)
		unlist_chunk(pool, old);
	ipam_chunk_free(old);
	while (view->chunk_count > 0 && !view->chunks[view->chunk_count - 1])
		view->chunk_count--;
	if (view->chunk_count == 0)
		view_free(pool, view);
}

static bool is_later(const struct pool *pool, const struct custody *said)
{
	const struct custody_map *map = &pool->custody;

	for (size_t i = custody_index(map, said->start); i < map->count && map->entries[i].start < said->start + said->len; i++)
		if (map->entries[i].to == pool->self &&
			custody_newer(said->reign, said->version, map->entries[i].reign, map->entries[i].version))
			return true;
	return false;
}

bool view_contradicts(const struct pool *pool, const struct view *view)
{
	for (unsigned i = 0; i < view->chunk_count; i++) {
		const struct ipam_chunk *chunk = view->chunks[i];

		for (unsigned j = 0; chunk && j < chunk->holding_count; j++)
			if (is_later(pool, &chunk->holdings[j]))
				return true;
		for (unsigned j = 0; chunk && j < chunk->offer_count; j++)
			if (is_later(pool, &chunk->offers[j]))
				return true;
	}
	return false;
}

void view_drop(struct pool *pool, uint32_t hostno)
{
	struct view *view;

	for (unsigned i = IPAM_CHUNKS_MAX; i > 0; i--) {
		HASH_FIND(hh, pool->views, &hostno, sizeof(hostno), view);
		if (view)
			view_set_chunk(pool, hostno, i - 1, NULL);
	}
}

void views_fini(struct pool *pool)
{
	struct listed *listed, *next_listed;
	struct view *view, *next;

	HASH_ITER(hh, pool->views, view, next)
	{
		for (unsigned i = 0; i < view->chunk_count; i++)
			ipam_chunk_free(view->chunks[i]);
		view_free(pool, view);
	}
	HASH_ITER(hh, pool->listed, listed, next_listed)
	{
		HASH_DEL(pool->listed, listed);
		free(listed);
	}
}

/* --- who has an address --- */

struct holder {
	uint32_t hostno, reign;
	uint64_t version;
};

static void claim(struct holder *best, uint32_t hostno, const struct custody *c)
{
	if (best->hostno == 0 || custody_newer(c->reign, c->version, best->reign, best->version))
		*best = (struct holder){hostno, c->reign, c->version};
}

static void claim_offers(struct holder *best, const struct view *view, u128 offset)
{
	for (unsigned i = 0; i < view->chunk_count; i++) {
		const struct ipam_chunk *chunk = view->chunks[i];

		for (unsigned j = 0; chunk && j < chunk->offer_count; j++)
			if (offset >= chunk->offers[j].start && offset - chunk->offers[j].start < chunk->offers[j].len)
				claim(best, chunk->offers[j].to, &chunk->offers[j]);
	}
}

/* What a forgotten host had went to its heir, who knows the rest of the way. */
uint32_t heir_of(const struct ipam *ipam, uint32_t hostno)
{
	for (unsigned hops = 0; hops < IPAM_HEIRS_MAX; hops++) {
		const struct decree *decree = decree_find(ipam, hostno);

		if (!decree || decree->gone || !decree->d.done)
			break;
		hostno = decree->d.heir;
	}
	return hostno;
}

uint32_t map_holder(const struct ipam *ipam, const struct pool *pool, u128 offset, uint32_t *ret_reign, uint64_t *ret_version)
{
	const struct custody *own = custody_at(&pool->custody, offset);
	const struct view *view, *next;
	struct holder best = {0};

	if (own)
		claim(&best, own->to, own);
	HASH_ITER(hh, pool->views, view, next)
	{
		const struct custody *c = view_at(view, offset);

		if (c)
			claim(&best, view->hostno, c);
		claim_offers(&best, view, offset);
	}
	if (!best.hostno)
		best.hostno = slice_host(pool, offset);
	best.hostno = heir_of(ipam, best.hostno);
	/* An offer to us that we have not taken is the donor's to repeat: whom to ask is the donor's side, not ourselves. */
	if (best.hostno == ipam->config.hostno && !(own && own->to == best.hostno))
		best.hostno = 0;
	*ret_reign = best.reign;
	*ret_version = best.version;
	return best.hostno;
}

struct awaited {
	const struct ipam *ipam;
	const struct pool *pool;
	u128 start, end;
	uint32_t hostno; /* of one who was given something, rather not of one that is dead */
};

/* Somebody shows that it has got the gift, or who had it since; returns how far from `at` on, `at` when nobody does. */
static u128 shown_until(const struct pool *pool, const struct custody *gift, u128 at)
{
	const struct custody *c = custody_at(&pool->custody, at);
	const struct view *view, *next;

	if (c && custody_newer(c->reign, c->version, gift->reign, gift->version))
		return c->start + c->len; /* ours since, or a later gift, which counts itself */
	HASH_FIND(hh, pool->views, &gift->to, sizeof(gift->to), view);
	c = view ? view_at(view, at) : NULL; /* most often who got it; only then all others */
	if (c && !custody_newer(gift->reign, gift->version, c->reign, c->version))
		return c->start + c->len;
	HASH_ITER(hh, pool->views, view, next)
	{
		if (view->chunk_count == IPAM_CHUNKS_MAX)
			return gift->start + gift->len; /* full: it may be in the part that is left out, for ever */
		c = view_at(view, at);
		if (c && !custody_newer(gift->reign, gift->version, c->reign, c->version))
			return c->start + c->len;
	}
	return at;
}

/* The first part of the gift within what is asked for that nobody shows; false when there is none. */
static bool unseen(const struct pool *pool, const struct custody *gift, u128 start, u128 end)
{
	u128 at = gift->start > start ? gift->start : start, stop;

	if (gift->start + gift->len < end)
		end = gift->start + gift->len;
	while (at < end && (stop = shown_until(pool, gift, at)) > at)
		at = stop;
	return at < end;
}

static void await_gift(struct awaited *a, const struct custody *gift)
{
	uint32_t to = heir_of(a->ipam, gift->to);

	if (to == a->pool->self || (a->hostno && peer_life(a->ipam, to) == PEER_DEAD))
		return;
	if (unseen(a->pool, gift, a->start, a->end))
		a->hostno = to;
}

uint32_t map_awaited(
	const struct ipam *ipam, const struct pool *pool, u128 start, u128 len, const struct custody *told, unsigned told_count)
{
	struct awaited a = {.ipam = ipam, .pool = pool, .start = start, .end = start + len};
	const struct custody_map *map = &pool->custody;
	const struct view *view, *next;

	for (size_t i = custody_index(map, start); i < map->count && map->entries[i].start < a.end; i++)
		await_gift(&a, &map->entries[i]);
	for (unsigned i = 0; i < told_count; i++)
		await_gift(&a, &told[i]);
	HASH_ITER(hh, pool->views, view, next)
	for (unsigned i = 0; i < view->chunk_count; i++) {
		const struct ipam_chunk *chunk = view->chunks[i];

		for (unsigned j = 0; chunk && j < chunk->offer_count; j++)
			await_gift(&a, &chunk->offers[j]);
	}
	return a.hostno;
}

unsigned map_unseen_gifts(const struct pool *pool, u128 start, u128 end, struct custody *ret, unsigned max)
{
	const struct custody_map *map = &pool->custody;
	unsigned count = 0;

	for (size_t i = custody_index(map, start); i < map->count && map->entries[i].start < end && count < max; i++)
		if (map->entries[i].to != pool->self && unseen(pool, &map->entries[i], start, end))
			ret[count++] = map->entries[i];
	return count;
}

static int by_start(const void *a, const void *b)
{
	const struct custody *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static size_t collect_view(const struct view *view, struct custody *into)
{
	size_t count = 0;

	for (unsigned i = 0; i < view->chunk_count; i++) {
		const struct ipam_chunk *chunk = view->chunks[i];

		for (unsigned j = 0; chunk && j < chunk->holding_count; j++, count++)
			if (into)
				into[count] = chunk->holdings[j];
		for (unsigned j = 0; chunk && j < chunk->offer_count; j++, count++)
			if (into)
				into[count] = chunk->offers[j];
	}
	return count;
}

static size_t collect(const struct pool *pool, uint32_t self, struct custody *into)
{
	const struct view *view, *next;
	size_t count = 0;

	for (size_t i = 0; i < pool->custody.count; i++) {
		const struct custody *c = &pool->custody.entries[i];

		if (c->to != self && c->xid == 0)
			continue;
		if (into)
			into[count] = *c;
		count++;
	}
	HASH_ITER(hh, pool->views, view, next)
	count += collect_view(view, into ? into + count : NULL);
	return count;
}

/* A range on its way is claimed by two, so this is the size of the union. */
u128 map_known(const struct pool *pool, uint32_t self)
{
	size_t count = collect(pool, self, NULL);
	struct custody *all = alloc_array(struct custody, count + 1);
	u128 known = 0, at = pool->first, last = pool->first + pool->usable;

	collect(pool, self, all);
	qsort(all, count, sizeof(*all), by_start);
	for (size_t i = 0; i < count; i++) {
		u128 start = all[i].start > at ? all[i].start : at;
		u128 end = all[i].start + all[i].len < last ? all[i].start + all[i].len : last;

		if (end <= start)
			continue;
		known += end - start;
		at = end;
	}
	free(all);
	return known;
}

/* --- our own chunks --- */

/* FNV-1a: stable across hosts and versions. */
uint32_t owner_tag(const char *owner)
{
	uint32_t hash = 2166136261u;

	for (; *owner; owner++)
		hash = (hash ^ (uint8_t)*owner) * 16777619u;
	return hash;
}

struct chunking {
	struct ipam *ipam;
	struct pool *pool;
	struct chunk_writer w;
	unsigned index;
};

static void chunk_out(struct chunking *c)
{
	struct pool *pool = c->pool;
	struct published *old = c->index < pool->published_count ? pool->published[c->index] : NULL;
	struct published *now;

	if (!old || old->len != c->w.len || memcmp(old->bytes, c->w.buf, c->w.len)) {
		now = alloc_zeroed(1, sizeof(*now) + c->w.len, "struct published");
		now->len = c->w.len;
		memcpy(now->bytes, c->w.buf, c->w.len);
		if (c->index >= pool->published_count) {
			pool->published = alloc_resize(pool->published, struct published *, c->index + 1);
			pool->published_count = c->index + 1;
		}
		free(old);
		pool->published[c->index] = now;
		c->ipam->ops.publish(c->ipam->ctx, &pool->id, c->index, now->bytes, now->len);
	}
	c->index++;
	chunk_begin(&c->w, false, false,
		0); /* only the first chunk says these, so that a change of the free count costs one record */
}

/* False when the last chunk is full: the rest stays unsaid. Transfers still work, by REQ, GRANT and ACK; only the map has a gap.
 */
#define CHUNK_PUT(c, put, item)                                                                                                  \
	((c)->index < IPAM_CHUNKS_MAX &&                                                                                         \
		(put(&(c)->w, (item)) || (chunk_out(c), (c)->index < IPAM_CHUNKS_MAX && put(&(c)->w, (item)))))

static void chunk_shared(struct chunking *c)
{
	struct slot *slot, *next;

	if (c->pool->shared_count == 0)
		return;
	HASH_ITER(hh, c->pool->slots, slot, next)
	{
		struct shared shared = {.offset = slot->offset, .flags = slot->shared_flags, .tag = owner_tag(slot_owner(slot))};

		if (slot->state == SLOT_LEASED && slot->use == IPAM_USE_SHARED && !CHUNK_PUT(c, chunk_put_shared, &shared))
			return;
	}
}

static void chunk_ranges(struct chunking *c)
{
	const struct custody_map *map = &c->pool->custody;
	const struct offer *offer;

	DL_FOREACH(c->pool->offers, offer)
	if (!CHUNK_PUT(c, chunk_put_offer, &offer->range))
		return;
	for (size_t i = 0; i < map->count; i++)
		if (map->entries[i].to == c->pool->self && !CHUNK_PUT(c, chunk_put_holding, &map->entries[i]))
			return;
}

static void withdraw_from(struct ipam *ipam, struct pool *pool, unsigned first)
{
	while (pool->published_count > first) {
		unsigned index = --pool->published_count;

		ipam->ops.publish(ipam->ctx, &pool->id, index, NULL, 0);
		free(pool->published[index]);
	}
}

void publish(struct ipam *ipam, struct pool *pool)
{
	struct chunking c = {.ipam = ipam, .pool = pool};
	uint8_t bucket;

	if (!pool->known || !ipam->started)
		return;
	bucket = ipam->hold ? 0 : free_bucket(pool_free(pool));
	if (!pool->dirty && bucket == pool->bucket)
		return; /* most leases and releases: nothing that others see has changed */
	pool->dirty = false;
	pool->bucket = bucket;
	chunk_begin(&c.w, pool->wanted == WANT_YES, !ipam->known, bucket);
	chunk_shared(&c);
	chunk_ranges(&c);
	if (c.index < IPAM_CHUNKS_MAX)
		chunk_out(&c);
	withdraw_from(ipam, pool, c.index);
	if (!pool->swept) {
		/* An earlier life may have published more chunks than this one needs. */
		for (unsigned i = c.index; i < IPAM_CHUNKS_MAX; i++)
			ipam->ops.publish(ipam->ctx, &pool->id, i, NULL, 0);
		pool->swept = true;
	}
}

void unpublish(struct ipam *ipam, struct pool *pool)
{
	withdraw_from(ipam, pool, 0);
	free(pool->published);
	pool->published = NULL;
}

/* Leases, resting addresses, and the search for a free address.
 *
 * Only addresses that are not plain free have a slot: leased ones, and those released not long ago, which rest in a queue ordered
 * by time. What was never used (or was forgotten by the queue) is preferred, found by a cursor that goes round; then the
 * longest-free one. So stale forwarding and neighbour rows elsewhere have the most time to go, and a pool of any size costs what
 * its leases cost. The cursor skips what has a slot with one hash probe each and never looks when the counts say that nothing
 * plain is left. */
#include "ipam/ipam_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

struct slot *slot_find(const struct pool *pool, u128 offset)
{
	struct slot *slot;

	HASH_FIND(hh, pool->slots, &offset, sizeof(offset), slot);
	return slot;
}

static bool is_held(const struct ipam *ipam, const struct pool *pool, u128 offset)
{
	const struct custody *c = custody_at(&pool->custody, offset);

	return c && c->to == ipam->config.hostno;
}

const char *slot_owner(const struct slot *slot)
{
	return slot->owner ? slot->owner : "";
}

void slot_set_owner(struct slot *slot, const char *owner)
{
	size_t len = strnlen(owner, IPAM_OWNER_MAX);

	free(slot->owner);
	slot->owner = NULL;
	if (len == 0)
		return;
	slot->owner = alloc_array(char, len + 1);
	memcpy(slot->owner, owner, len);
}

static struct slot *slot_add(struct pool *pool, u128 offset)
{
	struct slot *slot = alloc_new(struct slot);

	slot->offset = offset;
	HASH_ADD(hh, pool->slots, offset, sizeof(slot->offset), slot);
	return slot;
}

static void count_slot(struct pool *pool, const struct slot *slot, int by)
{
	if (slot->state == SLOT_RESTING) {
		pool->resting_count += by;
		return;
	}
	pool->leased += by;
	pool->leased_held += slot->guest ? 0 : by;
	pool->guest_count += slot->guest ? by : 0;
	pool->shared_count += slot->use == IPAM_USE_SHARED ? by : 0;
}

void slot_save(struct ipam *ipam, struct pool *pool, struct slot *slot)
{
	uint8_t key[IPAM_KEY_MAX], value[IPAM_VALUE_MAX];
	size_t key_len = ipam_key_encode(key, IPAM_SAVED_LEASE, &pool->id, slot->offset);
	struct saved_lease saved = {
		.state = slot->state,
		.use = slot->use,
		.bound = slot->bound,
		.shared_flags = slot->shared_flags,
		.since_ms = slot->since_ms,
	};

	memcpy(saved.owner, slot_owner(slot), strlen(slot_owner(slot)) + 1);
	ipam->ops.save(ipam->ctx, key, key_len, value, saved_lease_encode(&saved, value), false);
	slot->saved = true;
}

static void slot_unsave(struct ipam *ipam, struct pool *pool, struct slot *slot)
{
	uint8_t key[IPAM_KEY_MAX];
	size_t key_len = ipam_key_encode(key, IPAM_SAVED_LEASE, &pool->id, slot->offset);

	if (slot->saved)
		ipam->ops.save(ipam->ctx, key, key_len, NULL, 0, false);
	slot->saved = false;
}

struct slot *slot_lease(struct ipam *ipam, struct pool *pool, u128 offset, enum ipam_use use, uint8_t shared_flags,
	const char *owner, uint64_t now_ms)
{
	struct slot *slot = slot_find(pool, offset);

	if (slot) {
		DL_DELETE(pool->resting, slot);
		count_slot(pool, slot, -1);
	} else {
		slot = slot_add(pool, offset);
	}
	slot->state = SLOT_LEASED;
	slot->use = use;
	slot->shared_flags = shared_flags;
	slot->bound = false;
	slot->since_ms = now_ms;
	slot->guest = !is_held(ipam, pool, offset);
	slot_set_owner(slot, owner);
	count_slot(pool, slot, 1);
	slot_save(ipam, pool, slot);
	return slot;
}

void slot_drop(struct ipam *ipam, struct pool *pool, struct slot *slot)
{
	slot_unsave(ipam, pool, slot);
	count_slot(pool, slot, -1);
	if (slot->state == SLOT_RESTING)
		DL_DELETE(pool->resting, slot);
	HASH_DEL(pool->slots, slot);
	free(slot->owner);
	free(slot);
}

void slot_rest(struct ipam *ipam, struct pool *pool, struct slot *slot, uint64_t now_ms)
{
	count_slot(pool, slot, -1);
	slot->state = SLOT_RESTING;
	slot->use = IPAM_USE_ENDPOINT;
	slot->shared_flags = 0;
	slot->bound = false;
	slot->since_ms = now_ms;
	slot_set_owner(slot, "");
	count_slot(pool, slot, 1);
	DL_APPEND(pool->resting, slot);
	slot_save(ipam, pool, slot);
	if (pool->resting_count > IPAM_RESTING_MAX)
		slot_drop(ipam, pool, pool->resting);
}

/* The queue is ordered by time. What came from elsewhere has rested for a while, so its place is not the last. */
void slot_rest_since(struct ipam *ipam, struct pool *pool, u128 offset, uint64_t since_ms)
{
	struct slot *slot, *at;

	if (slot_find(pool, offset) || !is_held(ipam, pool, offset))
		return;
	slot = slot_add(pool, offset);
	slot->state = SLOT_RESTING;
	slot->since_ms = since_ms;
	count_slot(pool, slot, 1);
	for (at = pool->resting; at && at->since_ms <= since_ms; at = at->next)
		;
	DL_PREPEND_ELEM(pool->resting, at, slot); /* at the end when there is none */
	slot_save(ipam, pool, slot);
	if (pool->resting_count > IPAM_RESTING_MAX)
		slot_drop(ipam, pool, pool->resting);
}

int slot_restore(struct pool *pool, u128 offset, const struct saved_lease *saved)
{
	struct slot *slot;

	if (slot_find(pool, offset))
		return -1;
	slot = slot_add(pool, offset);
	slot->state = saved->state;
	slot->use = saved->use;
	slot->shared_flags = saved->shared_flags;
	slot->bound = saved->bound;
	slot->since_ms = saved->since_ms;
	slot->saved = true;
	slot_set_owner(slot, saved->owner);
	count_slot(pool, slot, 1);
	if (slot->state == SLOT_RESTING)
		DL_APPEND(pool->resting, slot);
	return 0;
}

static int by_age(const struct slot *a, const struct slot *b)
{
	return a->since_ms < b->since_ms ? -1 : a->since_ms > b->since_ms;
}

/* An endpoint's lease without custody cannot be: it would be a second one somewhere. A shared one may (guest). */
void slots_check_custody(struct ipam *ipam, struct pool *pool)
{
	struct slot *slot, *next;

	HASH_ITER(hh, pool->slots, slot, next)
	{
		bool held = is_held(ipam, pool, slot->offset);

		bool inside = slot->offset >= pool->first && slot->offset - pool->first < pool->usable;

		if (!inside || (!held && (slot->state == SLOT_RESTING || slot->use == IPAM_USE_ENDPOINT))) {
			slot_drop(ipam, pool, slot);
			continue;
		}
		if (slot->state == SLOT_LEASED && slot->guest == held) {
			count_slot(pool, slot, -1);
			slot->guest = !held;
			count_slot(pool, slot, 1);
		}
	}
}

/* The queue and the cursor of before the restart: behind what was given last, so that the next address is again a long-free one.
 */
void slots_start(struct pool *pool)
{
	const struct slot *slot, *next, *last = NULL;

	DL_SORT(pool->resting, by_age);
	HASH_ITER(hh, pool->slots, slot, next)
	{
		if (!slot->guest && (!last || slot->since_ms > last->since_ms ||
					    (slot->since_ms == last->since_ms && slot->offset > last->offset)))
			last = slot;
	}
	pool->cursor = (struct cursor){pool->first, pool->usable, last ? last->offset + 1 : pool->first};
}

/* What has rested long enough needs its saved form no more: after a restart it is as good as never used. In memory it keeps its
 * place in the queue. */
uint64_t slots_cool(struct ipam *ipam, struct pool *pool, uint64_t now_ms)
{
	struct slot *slot;

	DL_FOREACH(pool->resting, slot)
	{
		if (now_ms < slot->since_ms + IPAM_COOL_DOWN_MS)
			return slot->saved ? slot->since_ms + IPAM_COOL_DOWN_MS : IPAM_NEVER;
		if (slot->saved)
			slot_unsave(ipam, pool, slot);
	}
	return IPAM_NEVER;
}

void slots_fini(struct pool *pool)
{
	struct slot *slot, *next;

	HASH_ITER(hh, pool->slots, slot, next)
	{
		HASH_DEL(pool->slots, slot);
		free(slot->owner);
		free(slot);
	}
	pool->resting = NULL;
	pool->leased = pool->leased_held = pool->shared_count = pool->guest_count = pool->resting_count = 0;
}

/* --- free addresses --- */

/* Ours, and not to be given because another host lists it as shared. Few: gateways and aux addresses. */
static void count_blocked(const struct pool *pool, unsigned *ret_plain, unsigned *ret_resting)
{
	const struct listed *listed, *next;

	*ret_plain = *ret_resting = 0;
	HASH_ITER(hh, pool->listed, listed, next)
	{
		const struct custody *c = custody_at(&pool->custody, listed->offset);
		const struct slot *slot = slot_find(pool, listed->offset);

		if (!c || c->to != pool->self)
			continue;
		if (!slot)
			++*ret_plain;
		else if (slot->state == SLOT_RESTING)
			++*ret_resting;
	}
}

u128 pool_free(const struct pool *pool)
{
	unsigned plain, resting;

	count_blocked(pool, &plain, &resting);
	return pool->held - pool->leased_held - plain - resting;
}

static u128 plain_free(const struct pool *pool)
{
	unsigned plain, resting;

	count_blocked(pool, &plain, &resting);
	return pool->held - pool->leased_held - pool->resting_count - plain;
}

static bool is_plain_free(const struct pool *pool, u128 offset)
{
	return !slot_find(pool, offset) && !listed_find(pool, offset);
}

static bool find_between(const struct pool *pool, u128 from, u128 to, u128 *ret_offset)
{
	const struct custody_map *map = &pool->custody;

	for (size_t i = custody_index(map, from); i < map->count && map->entries[i].start < to; i++) {
		const struct custody *c = &map->entries[i];
		u128 at = c->start < from ? from : c->start;
		u128 end = c->start + c->len < to ? c->start + c->len : to;

		if (c->to != pool->self)
			continue;
		for (; at < end; at++) {
			if (is_plain_free(pool, at)) {
				*ret_offset = at;
				return true;
			}
		}
	}
	return false;
}

static struct cursor *cursor_for(struct pool *pool, u128 start, u128 len)
{
	bool whole = start == pool->first && len == pool->usable;
	struct cursor *cursor = whole ? &pool->cursor : &pool->cursor_within;

	if (cursor->start != start || cursor->len != len)
		*cursor = (struct cursor){start, len, start};
	return cursor;
}

bool free_find(struct pool *pool, u128 start, u128 len, u128 *ret_offset)
{
	struct cursor *cursor = cursor_for(pool, start, len);
	struct slot *slot;
	u128 offset;

	if (plain_free(pool) > 0 &&
		(find_between(pool, cursor->at, start + len, &offset) || find_between(pool, start, cursor->at, &offset))) {
		cursor->at = offset + 1;
		*ret_offset = offset;
		return true;
	}
	DL_FOREACH(pool->resting, slot)
	{
		if (slot->offset >= start && slot->offset - start < len && !listed_find(pool, slot->offset)) {
			*ret_offset = slot->offset;
			return true;
		}
	}
	return false;
}

/* Walks one holding downwards from its end: our own cursor comes from the other side. */
static u128 pick_from(
	const struct pool *pool, const struct custody *c, u128 low, u128 high, u128 want, struct custody *ranges, unsigned *count)
{
	u128 got = 0;

	for (u128 at = high; at > low && got < want;) {
		u128 top;

		while (at > low && !is_plain_free(pool, at - 1))
			at--;
		top = at;
		while (at > low && top - at < want - got && is_plain_free(pool, at - 1))
			at--;
		if (at == top)
			break;
		ranges[*count] = *c;
		ranges[*count].start = at;
		ranges[*count].len = top - at;
		got += top - at;
		if (++*count == IPAM_RANGES_MAX)
			break;
	}
	return got;
}

static unsigned pick_resting(struct pool *pool, u128 start, u128 len, u128 want, struct custody *ranges, unsigned count)
{
	struct slot *slot;

	DL_FOREACH(pool->resting, slot)
	{
		const struct custody *c = custody_at(&pool->custody, slot->offset);

		if (want == 0 || count == IPAM_RANGES_MAX)
			break;
		if (slot->offset < start || slot->offset - start >= len || (listed_find(pool, slot->offset) && !pool->retiring) ||
			!c || c->version == UINT64_MAX)
			continue;
		ranges[count] = *c;
		ranges[count].start = slot->offset;
		ranges[count++].len = 1;
		want--;
	}
	return count;
}

unsigned free_pick(struct pool *pool, u128 start, u128 len, u128 count, bool resting_too, struct custody *ranges)
{
	const struct custody_map *map = &pool->custody;
	size_t first = custody_index(map, start), i = custody_index(map, start + len - 1);
	unsigned picked = 0;
	u128 got = 0;

	if (i == map->count && i > 0)
		i--;
	for (bool plain = plain_free(pool) > 0; plain && map->count && i + 1 > first && got < count && picked < IPAM_RANGES_MAX;
		i--) {
		const struct custody *c = &map->entries[i];
		u128 low = c->start < start ? start : c->start;
		u128 high = c->start + c->len < start + len ? c->start + c->len : start + len;

		if (c->to == pool->self && c->version < UINT64_MAX && low < high)
			got += pick_from(pool, c, low, high, count - got, ranges, &picked);
		if (i == 0)
			break;
	}
	if (resting_too && picked == 0)
		picked = pick_resting(pool, start, len, count, ranges, picked);
	return picked;
}

unsigned free_pick_resting(struct pool *pool, struct custody *ranges)
{
	return pick_resting(pool, pool->first, pool->usable, IPAM_RANGES_MAX, ranges, 0);
}

static int by_offset(const void *a, const void *b)
{
	const u128 *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Offsets that may not be given away now, ascending. */
static u128 *taken_offsets(const struct pool *pool, uint64_t now_ms, size_t *ret_count)
{
	u128 *taken = alloc_array(u128, HASH_COUNT(pool->slots) + HASH_COUNT(pool->listed) + 1);
	const struct listed *listed, *next_listed;
	const struct slot *slot, *next;
	size_t count = 0;

	HASH_ITER(hh, pool->slots, slot, next)
	if (slot->state == SLOT_LEASED || slot->since_ms + IPAM_COOL_DOWN_MS > now_ms)
		taken[count++] = slot->offset;
	HASH_ITER(hh, pool->listed, listed, next_listed)
	if (!pool->retiring)
		taken[count++] = listed->offset;
	qsort(taken, count, sizeof(*taken), by_offset);
	*ret_count = count;
	return taken;
}

/* Where the next range begins and how far it may go: our own slice is not in it, unless we leave. */
static u128 skip_slice(const struct pool *pool, u128 at, u128 *end)
{
	u128 start, len;

	if (pool->retiring || !slice_of(pool, pool->self, &start, &len) || at >= start + len)
		return at;
	if (at >= start)
		return start + len;
	if (*end > start)
		*end = start;
	return at;
}

unsigned free_pick_all(const struct pool *pool, uint64_t now_ms, struct custody *ranges)
{
	size_t taken_count, t = 0;
	u128 *taken = taken_offsets(pool, now_ms, &taken_count);
	unsigned picked = 0;

	for (size_t i = 0; i < pool->custody.count && picked < IPAM_RANGES_MAX; i++) {
		const struct custody *c = &pool->custody.entries[i];
		u128 at = c->start, end = c->start + c->len;

		if (c->to != pool->self || c->version == UINT64_MAX)
			continue;
		while (at < end && picked < IPAM_RANGES_MAX) {
			u128 stop = end;

			at = skip_slice(pool, at, &stop);
			if (at >= end)
				break;
			while (t < taken_count && taken[t] < at)
				t++;
			if (t < taken_count && taken[t] < stop)
				stop = taken[t];
			if (stop > at) {
				ranges[picked] = *c;
				ranges[picked].start = at;
				ranges[picked++].len = stop - at;
			}
			at = stop + (stop < end);
		}
	}
	free(taken);
	return picked;
}

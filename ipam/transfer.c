/* Giving and taking custody.
 *
 * The donor writes "given to R at version + 1" durably, publishes the offer, then sends GRANT, again and again until R is known
 * to have it: R's published holdings cover it, or R itself said so (ACK, which it sends only behind its own durable write).
 * Nothing else ends an offer; the donor never takes anything back, because R may have the GRANT in its hands while we cannot see
 * it.
 *
 * The receiver takes what is newer than anything it itself accepted or gave; what others say about versions does not count. It
 * writes durably, publishes, and only then uses an address or says ACK. A copy of an old GRANT finds a version that is not newer.
 */
#include "ipam/ipam_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

static u128 min_u128(u128 a, u128 b)
{
	return a < b ? a : b;
}

uint64_t next_xid(struct ipam *ipam)
{
	if (++ipam->last_xid == 0)
		++ipam->last_xid;
	return ipam->last_xid;
}

void message_send(struct ipam *ipam, uint32_t to, const struct ipam_message *message)
{
	uint8_t buf[IPAM_MESSAGE_MAX];

	ipam->ops.send(ipam->ctx, to, buf, ipam_message_encode(message, buf));
}

void pool_recount(struct ipam *ipam, struct pool *pool)
{
	pool->held = 0;
	for (size_t i = 0; i < pool->custody.count; i++)
		if (pool->custody.entries[i].to == ipam->config.hostno)
			pool->held += pool->custody.entries[i].len;
}

/* --- offers --- */

static struct offer *offer_add(struct pool *pool, const struct custody *range)
{
	struct offer *offer = alloc_new(struct offer);

	offer->range = *range;
	offer->backoff_ms = IPAM_GRANT_RETRY_MS;
	DL_APPEND(pool->offers, offer);
	return offer;
}

static void offer_remove(struct pool *pool, struct offer *offer)
{
	DL_DELETE(pool->offers, offer);
	free(offer);
	pool->dirty = true;
}

void offers_fini(struct pool *pool)
{
	struct offer *offer, *next;

	DL_FOREACH_SAFE(pool->offers, offer, next)
	offer_remove(pool, offer);
}

void offers_restore(struct pool *pool, uint32_t self)
{
	for (size_t i = 0; i < pool->custody.count; i++)
		if (pool->custody.entries[i].to != self && pool->custody.entries[i].xid)
			offer_add(pool, &pool->custody.entries[i]);
}

static bool same_offer(const struct custody *a, const struct custody *b)
{
	return a->xid == b->xid && a->to == b->to && a->reign == b->reign && a->version == b->version;
}

/* The range has arrived. Its entry in the map loses the mark; if we have it back already, the entry is another one and stays. */
static void offer_settle(struct ipam *ipam, struct pool *pool, struct offer *offer)
{
	struct custody range = offer->range;

	for (u128 at = range.start, end = range.start + range.len; at < end;) {
		const struct custody *c = custody_at(&pool->custody, at);
		struct custody settled = range;
		u128 stop = c ? min_u128(c->start + c->len, end) : end;

		settled.start = at;
		settled.len = stop - at;
		settled.xid = 0;
		if (c && same_offer(c, &range))
			pool_put_custody(ipam, pool, &settled, false);
		at = stop;
	}
	offer_remove(pool, offer);
	on_arrived(pool, &range);
}

static struct recent *recent_find(const struct pool *pool, uint32_t hostno, uint64_t xid)
{
	for (unsigned i = 0; pool->recent && i < IPAM_RECENT_MAX; i++)
		if (pool->recent[i].hostno == hostno && pool->recent[i].xid == xid)
			return &pool->recent[i];
	return NULL;
}

static void recent_add(struct pool *pool, uint32_t hostno, uint64_t xid)
{
	if (!pool->recent)
		pool->recent = alloc_array(struct recent, IPAM_RECENT_MAX);
	pool->recent[pool->recent_at++ % IPAM_RECENT_MAX] = (struct recent){hostno, xid};
}

static bool is_part_of(const struct custody *part, const struct custody *whole)
{
	return part->start >= whole->start && part->start + part->len <= whole->start + whole->len;
}

void on_ack(struct ipam *ipam, uint32_t from, const struct ipam_message *message)
{
	struct pool *pool = pool_find(ipam, &message->pool);
	struct offer *offer, *next;

	if (!pool)
		return;
	DL_FOREACH_SAFE(pool->offers, offer, next)
	{
		if (offer->range.to != from)
			continue;
		for (unsigned i = 0; i < message->range_count; i++) {
			const struct custody *c = &message->ranges[i];

			if (is_part_of(&offer->range, c) &&
				!custody_newer(offer->range.reign, offer->range.version, c->reign, c->version)) {
				offer_settle(ipam, pool, offer);
				break;
			}
		}
	}
}

/* The fate of what was offered to a forgotten host is decided: it was part of the estate, or had been passed on. */
void settle_offers_to(struct ipam *ipam, struct pool *pool, uint32_t to)
{
	struct offer *offer, *next;

	DL_FOREACH_SAFE(pool->offers, offer, next)
	if (offer->range.to == to)
		offer_settle(ipam, pool, offer);
}

void settle_by_view(struct ipam *ipam, struct pool *pool, const struct view *view)
{
	struct offer *offer, *next;

	DL_FOREACH_SAFE(pool->offers, offer, next)
	if (offer->range.to == view->hostno && view_covers(view, &offer->range))
		offer_settle(ipam, pool, offer);
}

/* The parts of one transfer whose repeat was due first, as many as fit a message: what arrived in pieces may leave more of them
 * open, and none may wait for ever behind the others. */
static unsigned grant_pick(const struct pool *pool, uint32_t to, uint64_t xid, struct offer **picked)
{
	struct offer *offer;
	unsigned count = 0;

	DL_FOREACH(pool->offers, offer)
	{
		unsigned at = count;

		if (offer->range.to != to || offer->range.xid != xid)
			continue;
		while (at > 0 && picked[at - 1]->next_ms > offer->next_ms)
			at--;
		if (at == IPAM_RANGES_MAX)
			continue;
		count += count < IPAM_RANGES_MAX;
		memmove(picked + at + 1, picked + at, (count - at - 1) * sizeof(struct offer *));
		picked[at] = offer;
	}
	return count;
}

/* Sends one transfer, all of it if it fits, and sets the next repeat of each part sent. Returns whether there was any. */
static bool grant_send(struct ipam *ipam, struct pool *pool, uint32_t to, uint64_t xid, uint64_t now_ms)
{
	struct ipam_message m = {.type = IPAM_MSG_GRANT, .pool = pool->id, .xid = xid};
	struct offer *picked[IPAM_RANGES_MAX];
	unsigned count = grant_pick(pool, to, xid, picked);

	for (unsigned i = 0; i < count; i++) {
		struct offer *offer = picked[i];

		m.ranges[m.range_count++] = offer->range;
		if (offer->rest_until_ms > now_ms && (offer->rest_until_ms - now_ms + 999) / 1000 > m.rest_s)
			m.rest_s = (uint8_t)((offer->rest_until_ms - now_ms + 999) / 1000);
		offer->next_ms = now_ms + offer->backoff_ms;
		if (offer->backoff_ms < IPAM_GRANT_RETRY_MAX_MS)
			offer->backoff_ms *= 2;
	}
	if (m.range_count)
		message_send(ipam, to, &m);
	return m.range_count > 0;
}

/* For the checkers' sake only: what a donor must never do. */
static void take_back(struct ipam *ipam, struct pool *pool, struct offer *offer)
{
	struct custody back = offer->range;

	back.to = ipam->config.hostno;
	back.xid = 0;
	pool_put_custody(ipam, pool, &back, true);
	offer_remove(pool, offer);
}

uint64_t offers_tick(struct ipam *ipam, struct pool *pool, uint64_t now_ms)
{
	struct offer *offer, *next;
	uint64_t due = IPAM_NEVER;

	DL_FOREACH_SAFE(pool->offers, offer, next)
	{
		if (peer_life(ipam, offer->range.to) != PEER_ALIVE)
			continue;
		/* Others of its transfer may have been due before it; each round sends some, and those are due later. */
		while (offer->next_ms <= now_ms) {
			if (ipam->fault == IPAM_FAULT_TAKE_BACK && offer->backoff_ms > 2 * IPAM_GRANT_RETRY_MS) {
				take_back(ipam, pool, offer);
				offer = NULL;
				break;
			}
			grant_send(ipam, pool, offer->range.to, offer->range.xid, now_ms);
		}
		if (offer && offer->next_ms < due)
			due = offer->next_ms;
	}
	return due;
}

void offers_hurry(struct pool *pool, uint32_t to, uint64_t now_ms)
{
	struct offer *offer;

	DL_FOREACH(pool->offers, offer)
	{
		if (offer->range.to != to)
			continue;
		offer->next_ms = now_ms;
		offer->backoff_ms = IPAM_GRANT_RETRY_MS;
	}
}

/* --- giving --- */

static uint64_t rest_until(const struct pool *pool, const struct custody *range)
{
	const struct slot *slot = range->len == 1 ? slot_find(pool, range->start) : NULL;

	return slot && slot->state == SLOT_RESTING ? slot->since_ms + IPAM_COOL_DOWN_MS : 0;
}

static void drop_slots_in(struct ipam *ipam, struct pool *pool, const struct custody *range)
{
	struct slot *slot, *next;

	if (range->len == 1) {
		slot = slot_find(pool, range->start);
		if (slot)
			slot_drop(ipam, pool, slot);
		return;
	}
	DL_FOREACH_SAFE(pool->resting, slot, next)
	if (slot->offset >= range->start && slot->offset - range->start < range->len)
		slot_drop(ipam, pool, slot);
}

/* The order is the protocol: the last save is the durable one, and makes those before it durable too; then the world hears of it.
 */
static void give(
	struct ipam *ipam, struct pool *pool, uint32_t to, uint64_t xid, struct custody *ranges, unsigned count, uint64_t now_ms)
{
	for (unsigned i = 0; i < count; i++) {
		bool durable = i == count - 1 && ipam->fault != IPAM_FAULT_SAVE_LATE;
		uint64_t until = rest_until(pool, &ranges[i]);

		drop_slots_in(ipam, pool, &ranges[i]);
		ranges[i].version++;
		ranges[i].to = to;
		ranges[i].xid = xid;
		pool_put_custody(ipam, pool, &ranges[i], durable);
		offer_add(pool, &ranges[i])->rest_until_ms = until;
	}
	pool_recount(ipam, pool);
	recent_add(pool, to, xid);
	ipam->counters.transfers_out++;
	pool->dirty = true;
	publish(ipam, pool);
	grant_send(ipam, pool, to, xid, now_ms);
}

static void add_hint(struct ipam_message *m, const struct view *view)
{
	struct ipam_hint hint = {view->hostno, view_bucket(view)};

	for (unsigned i = 0; i < m->hint_count; i++) {
		if (hint.bucket > m->hints[i].bucket) {
			struct ipam_hint swap = m->hints[i];

			m->hints[i] = hint;
			hint = swap;
		}
	}
	if (m->hint_count < IPAM_HINTS_MAX)
		m->hints[m->hint_count++] = hint;
}

static void deny(struct ipam *ipam, struct pool *pool, uint32_t to, const struct ipam_message *req, enum ipam_deny_reason reason,
	const struct slot *slot)
{
	struct ipam_message m = {.type = IPAM_MSG_DENY, .pool = req->pool, .xid = req->xid, .reason = reason};
	const struct view *view, *next;

	if (slot)
		memcpy(m.owner, slot_owner(slot), strlen(slot_owner(slot)) + 1);
	if (pool)
		m.bucket = free_bucket(pool_free(pool));
	if (pool && reason == IPAM_DENY_NONE) {
		HASH_ITER(hh, pool->views, view, next)
		if (view->hostno != to && view_bucket(view) > 0)
			add_hint(&m, view);
		m.range_count = map_unseen_gifts(pool, req->start, req->start + req->len, m.ranges, IPAM_GIFTS_MAX);
	}
	ipam->counters.denied++;
	message_send(ipam, to, &m);
}

static void on_req_exact(struct ipam *ipam, struct pool *pool, uint32_t from, const struct ipam_message *req, uint64_t now_ms)
{
	struct custody one;
	const struct custody *c = custody_at(&pool->custody, req->start);
	const struct slot *slot = slot_find(pool, req->start);
	struct ipam_message moved = {.type = IPAM_MSG_MOVED, .pool = req->pool, .xid = req->xid};

	if (slot && slot->state == SLOT_LEASED) {
		deny(ipam, pool, from, req, slot->use == IPAM_USE_SHARED ? IPAM_DENY_SHARED : IPAM_DENY_IN_USE, slot);
		return;
	}
	if (!c || (c->to == pool->self && c->version == UINT64_MAX)) {
		deny(ipam, pool, from, req, IPAM_DENY_NOT_MINE, NULL);
		return;
	}
	if (c->to == from && c->xid && grant_send(ipam, pool, from, c->xid, now_ms))
		return;
	if (c->to != pool->self) {
		moved.to = c->to;
		moved.reign = c->reign;
		moved.version = c->version;
		message_send(ipam, from, &moved);
		return;
	}
	if (listed_find(pool, req->start)) {
		deny(ipam, pool, from, req, IPAM_DENY_SHARED, NULL);
		return;
	}
	one = *c;
	one.start = req->start;
	one.len = 1;
	give(ipam, pool, from, req->xid, &one, 1, now_ms);
}

static u128 low_water(const struct pool *pool)
{
	u128 low = pool->spares > 2 ? pool->spares : 2;

	return pool->held / 4 > low && !pool->spares ? pool->held / 4 : low;
}

static unsigned count_wanters(const struct pool *pool, uint32_t requester)
{
	unsigned wanters = pool->wanted == WANT_YES;
	const struct view *view, *next;
	bool seen = false;

	HASH_ITER(hh, pool->views, view, next)
	{
		wanters += view_wanted(view);
		seen |= view->hostno == requester && view_wanted(view);
	}
	return wanters + !seen;
}

static u128 chunk_size(const struct pool *pool, uint32_t requester)
{
	u128 size = pool_free(pool) / (2 * count_wanters(pool, requester));

	return size < 1 ? 1 : min_u128(size, IPAM_CHUNK_MAX);
}

/* What this host was given and has not shown yet may arrive behind our answer: instead of "nothing" it gets that once more. */
static bool give_again(struct ipam *ipam, struct pool *pool, uint32_t to, u128 first, u128 end, uint64_t now_ms)
{
	const struct offer *offer;

	DL_FOREACH(pool->offers, offer)
	if (offer->range.to == to && offer->range.start < end && offer->range.start + offer->range.len > first)
		return grant_send(ipam, pool, to, offer->range.xid, now_ms);
	return false;
}

/* Ahead of need only what is above our own low-water mark is given, and nothing that still rests. When someone waits over there,
 * the last one goes: a free address on a reachable host must mean success. */
static void on_req_any(struct ipam *ipam, struct pool *pool, uint32_t from, const struct ipam_message *req, uint64_t now_ms)
{
	struct custody ranges[IPAM_RANGES_MAX];
	bool urgent = req->flags & IPAM_REQ_URGENT;
	u128 first = req->start > pool->first ? req->start : pool->first;
	u128 end = min_u128(req->start + req->len, pool->first + pool->usable);
	u128 count = min_u128(chunk_size(pool, from), req->count), mine = pool_free(pool);
	unsigned picked = 0;

	if (!urgent && pool->wanted == WANT_YES)
		count = mine > low_water(pool) ? min_u128(count, mine - low_water(pool)) : 0;
	if (first < end && count > 0)
		picked = free_pick(pool, first, end - first, count, urgent, ranges);
	if (picked)
		give(ipam, pool, from, req->xid, ranges, picked, now_ms);
	else if (!urgent || !give_again(ipam, pool, from, first, end, now_ms))
		deny(ipam, pool, from, req, IPAM_DENY_NONE, NULL);
}

void on_req(struct ipam *ipam, uint32_t from, const struct ipam_message *req, uint64_t now_ms)
{
	struct pool *pool = pool_find(ipam, &req->pool);

	if (ipam->hold == IPAM_HOLD_ASKING)
		return; /* it asks again, or somebody else */
	if (!pool || !pool->known) {
		deny(ipam, NULL, from, req, IPAM_DENY_NO_POOL, NULL);
		if (ipam->ops.pool_asked)
			ipam->ops.pool_asked(ipam->ctx, &req->pool);
		return;
	}
	if (ipam->hold) {
		deny(ipam, NULL, from, req, req->flags & IPAM_REQ_EXACT ? IPAM_DENY_NOT_MINE : IPAM_DENY_NONE, NULL);
		return;
	}
	if (peer_ineligible(ipam, from) || (req->flags & IPAM_REQ_FEW)) {
		deny(ipam, pool, from, req, IPAM_DENY_NOT_YET, NULL);
		return;
	}
	if (grant_send(ipam, pool, from, req->xid, now_ms) || recent_find(pool, from, req->xid)) {
		ipam->counters.repeated++;
		return;
	}
	if (req->flags & IPAM_REQ_EXACT)
		on_req_exact(ipam, pool, from, req, now_ms);
	else
		on_req_any(ipam, pool, from, req, now_ms);
}

/* --- taking --- */

/* The next part of `range` from *at on that is newer than our own facts. */
static bool newer_part(
	const struct ipam *ipam, const struct pool *pool, const struct custody *range, u128 *at, struct custody *ret)
{
	u128 end = range->start + range->len;

	while (*at < end) {
		size_t i = custody_index(&pool->custody, *at);
		const struct custody *c = i < pool->custody.count ? &pool->custody.entries[i] : NULL;
		bool unknown = !c || c->start > *at;
		u128 start = *at, stop = unknown ? (c ? min_u128(c->start, end) : end) : min_u128(c->start + c->len, end);

		*at = stop;
		if (unknown || custody_newer(range->reign, range->version, c->reign, c->version) ||
			(ipam->fault == IPAM_FAULT_IGNORE_VERSION && c->to != pool->self)) {
			*ret = *range;
			ret->start = start;
			ret->len = stop - start;
			ret->to = ipam->config.hostno;
			ret->xid = 0;
			return true;
		}
	}
	return false;
}

static bool range_fits(const struct pool *pool, const struct custody *range)
{
	return range->start >= pool->first && range->start + range->len <= pool->first + pool->usable;
}

/* Offers of ours that what we have taken overrides: the range went there and came back. */
void prune_offers(struct pool *pool)
{
	struct offer *offer, *next;

	DL_FOREACH_SAFE(pool->offers, offer, next)
	{
		bool open = false;

		for (u128 at = offer->range.start; !open && at < offer->range.start + offer->range.len;) {
			const struct custody *c = custody_at(&pool->custody, at);

			if (!c)
				break;
			open = same_offer(c, &offer->range);
			at = c->start + c->len;
		}
		if (!open)
			offer_remove(pool, offer);
	}
}

struct taken {
	struct custody last;
	unsigned count;
};

/* Each piece is put one step late, so that the last one can be the durable one. */
static void take_part(struct ipam *ipam, struct pool *pool, struct taken *taken, const struct custody *part)
{
	if (taken->count++)
		pool_put_custody(ipam, pool, &taken->last, false);
	taken->last = *part;
}

void accept_ranges(
	struct ipam *ipam, struct pool *pool, uint32_t from, uint64_t xid, const struct custody *ranges, unsigned count)
{
	struct ipam_message ack = {.type = IPAM_MSG_ACK, .pool = pool->id, .xid = xid};
	struct taken taken = {0};
	struct custody part;

	for (unsigned i = 0; i < count; i++) {
		if (!range_fits(pool, &ranges[i])) {
			ipam->counters.bad_messages++;
			continue;
		}
		for (u128 at = ranges[i].start; newer_part(ipam, pool, &ranges[i], &at, &part);)
			take_part(ipam, pool, &taken, &part);
		ack.ranges[ack.range_count++] = ranges[i];
	}
	if (taken.count) {
		pool_put_custody(ipam, pool, &taken.last, true);
		pool_recount(ipam, pool);
		if (pool->guest_count)
			slots_check_custody(ipam, pool);
		prune_offers(pool);
		ipam->counters.transfers_in++;
		pool->dirty = true;
		publish(ipam, pool);
	} else {
		ipam->counters.repeated++;
	}
	if (ack.range_count)
		message_send(ipam, from, &ack);
}

/* Neighbours elsewhere may still have rows of the former endpoint. */
void let_rest(struct ipam *ipam, struct pool *pool, const struct ipam_message *grant, uint64_t now_ms)
{
	uint64_t rested_ms = IPAM_COOL_DOWN_MS - (uint64_t)grant->rest_s * 1000;

	for (unsigned i = 0; grant->rest_s && i < grant->range_count; i++)
		if (grant->ranges[i].len == 1)
			slot_rest_since(ipam, pool, grant->ranges[i].start, now_ms > rested_ms ? now_ms - rested_ms : 0);
}

/* An offer names us: the GRANT was lost, and the record brought it. */
void accept_offers_of(struct ipam *ipam, struct pool *pool, const struct view *view)
{
	for (unsigned i = 0; i < view->chunk_count && !ipam->hold && !peer_refused(ipam, view->hostno); i++) {
		const struct ipam_chunk *chunk = view->chunks[i];

		for (unsigned j = 0; chunk && j < chunk->offer_count; j++)
			if (chunk->offers[j].to == ipam->config.hostno)
				accept_ranges(ipam, pool, view->hostno, chunk->offers[j].xid, &chunk->offers[j], 1);
	}
}

/* --- ahead of need, and beyond it --- */

static void donors_anew(struct pool *pool)
{
	struct view *view, *next;

	HASH_ITER(hh, pool->views, view, next)
	view->tried = false;
}

/* The one with the most; after a refusal or silence the next, until all have been asked in turn. */
static struct view *best_donor(const struct ipam *ipam, const struct pool *pool)
{
	struct view *view, *next, *best = NULL;

	HASH_ITER(hh, pool->views, view, next)
	{
		if (peer_life(ipam, view->hostno) != PEER_ALIVE || view_bucket(view) < 3)
			continue; /* fewer than 4: it needs them as much as we do */
		if (!best || view->tried < best->tried ||
			(view->tried == best->tried &&
				(view_bucket(view) > view_bucket(best) ||
					(view_bucket(view) == view_bucket(best) && view->hostno < best->hostno))))
			best = view;
	}
	return best;
}

/* Who refuses because we are new has some, and will give them as soon as more hosts know us: that is no reason to ask less often.
 */
void fetch_answered(struct pool *pool, uint64_t xid, enum fetch_answer answer, uint64_t now_ms)
{
	struct fetch *fetch = &pool->fetch;

	if (!xid || fetch->xid != xid)
		return;
	fetch->xid = 0;
	if (answer == FETCH_GRANTED) {
		donors_anew(pool);
		fetch->next_ms = 0;
		fetch->backoff_ms = 0;
		return;
	}
	fetch->backoff_ms = fetch->backoff_ms && answer == FETCH_REFUSED ? fetch->backoff_ms * 2 : IPAM_FETCH_RETRY_MS;
	if (fetch->backoff_ms > IPAM_FETCH_RETRY_MAX_MS)
		fetch->backoff_ms = IPAM_FETCH_RETRY_MAX_MS;
	fetch->next_ms = now_ms + fetch->backoff_ms;
}

static bool runs_low(const struct pool *pool)
{
	u128 mine = pool_free(pool);

	return mine < (pool->spares > 2 ? pool->spares : 2) || (!pool->spares && mine < pool->held / 4);
}

uint64_t fetch_tick(struct ipam *ipam, struct pool *pool, uint64_t now_ms)
{
	struct ipam_message m = {.type = IPAM_MSG_REQ,
		.pool = pool->id,
		.flags = ipam->known ? 0 : IPAM_REQ_FEW,
		.start = pool->first,
		.len = pool->usable};
	struct fetch *fetch = &pool->fetch;
	struct view *donor;

	if (fetch->xid && now_ms >= fetch->next_ms)
		fetch_answered(pool, fetch->xid, FETCH_REFUSED, now_ms);
	if (fetch->xid)
		return fetch->next_ms;
	if (pool->wanted != WANT_YES || ipam->hold || !runs_low(pool))
		return IPAM_NEVER;
	donor = best_donor(ipam, pool);
	if (!donor)
		return IPAM_NEVER;
	if (now_ms < fetch->next_ms)
		return fetch->next_ms;
	fetch->xid = m.xid = next_xid(ipam);
	fetch->next_ms = now_ms + IPAM_FETCH_RETRY_MS;
	m.count = pool->spares > IPAM_CHUNK_MAX ? pool->spares : IPAM_CHUNK_MAX;
	if (donor->tried)
		donors_anew(pool);
	donor->tried = true;
	message_send(ipam, donor->hostno, &m);
	return fetch->next_ms;
}

/* Whoever wants the pool and has the least; for who leaves anybody that knows it, when nobody wants it. */
static uint32_t best_heir(const struct ipam *ipam, const struct pool *pool)
{
	const struct view *view, *next, *best = NULL;

	HASH_ITER(hh, pool->views, view, next)
	{
		if (peer_life(ipam, view->hostno) != PEER_ALIVE || !(view_wanted(view) || pool->retiring) || view_few(view) ||
			peer_ineligible(ipam, view->hostno))
			continue;
		if (!best || view_wanted(view) > view_wanted(best) ||
			(view_wanted(view) == view_wanted(best) &&
				(view_bucket(view) < view_bucket(best) ||
					(view_bucket(view) == view_bucket(best) && view->hostno < best->hostno))))
			best = view;
	}
	return best ? best->hostno : 0;
}

/* It can be given something as soon as more hosts know it. */
static bool heir_to_come(const struct ipam *ipam, const struct pool *pool)
{
	const struct view *view, *next;

	HASH_ITER(hh, pool->views, view, next)
	if (peer_life(ipam, view->hostno) == PEER_ALIVE && (view_few(view) || peer_ineligible(ipam, view->hostno)))
		return true;
	return false;
}

bool handback_is_over(const struct ipam *ipam, const struct pool *pool)
{
	const struct offer *offer;

	DL_FOREACH(pool->offers, offer)
	if (peer_life(ipam, offer->range.to) == PEER_ALIVE)
		return false;
	return pool->held == pool->leased_held || (!best_heir(ipam, pool) && !heir_to_come(ipam, pool));
}

/* Everything free goes, in whole ranges: the limit of one transfer is about sharing, and here is nothing to share. What rests
 * follows when it has rested. */
uint64_t handback_tick(struct ipam *ipam, struct pool *pool, uint64_t now_ms)
{
	struct custody ranges[IPAM_RANGES_MAX];
	struct offer *offer;
	struct slot *slot;
	unsigned open = 0, picked;
	uint32_t heir;

	if (pool->wanted != WANT_NO || ipam->hold || pool->requests ||
		(pool->retiring ? pool->held == pool->leased_held
				: pool_free(pool) == 0)) /* who waits for addresses keeps what comes */
		return IPAM_NEVER;
	DL_COUNT(pool->offers, offer, open);
	heir = best_heir(ipam, pool);
	if (!heir)
		return IPAM_NEVER;
	while (open < IPAM_HANDBACK_OPEN_MAX && ((picked = free_pick_all(pool, now_ms, ranges)) > 0 ||
							(pool->retiring && (picked = free_pick_resting(pool, ranges)) > 0))) {
		give(ipam, pool, heir, next_xid(ipam), ranges, picked, now_ms);
		open += picked;
	}
	DL_FOREACH(pool->resting, slot)
	if (slot->since_ms + IPAM_COOL_DOWN_MS > now_ms)
		return slot->since_ms + IPAM_COOL_DOWN_MS;
	return IPAM_NEVER;
}

/* Custody of addresses: what callers ask, what other hosts say, what time brings. The parts: ipam_internal.h. The bytes:
 * docs/ipam.md.
 *
 * Invariants. An address is in exactly one of: one host's holdings, one open offer, reserved.
 *   I1   no address has two holders, and none has none: what is given stays an open offer until it has arrived.
 *   I2   at most one live endpoint per address, over all hosts and through any cut.
 *   I3   an endpoint's lease implies holding, from the first to the last moment. (A shared lease may be a guest's.)
 *   I4   along custody (reign, version) strictly rises; equal (reign, version) means equal holder.
 *   I5   all this after a crash between any two actions, with any tail of not durable saves lost.
 *   I6   messages lost, doubled, late, reordered change nothing but time.
 *   I7   after a decree the victim's gifts are refused everywhere and its estate has one heir; what it gave before is kept.
 *   I8   quiet and connected, holdings and reserved addresses add up to the pool.
 *   I9   a free address on a reachable host means that a request succeeds.
 *   I10  an address asked for by name is given exactly when its holder is reachable and it is free.
 *   I11  a disk that was set back is noticed before anything is given, if another host can be reached: ipam_hold.
 * `reign` counts how often the estate of a forgotten host moved (decree.c, heir.c).
 *
 * What the shell must keep: actions in order; a durable save done before the next action starts; and saves of a kind durable in
 * their order, so that a durable one takes those before it along. After any call it asks ipam_tick when to call again. */
#include "ipam/ipam_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

struct ipam *ipam_new(const struct ipam_config *config, const struct ipam_ops *ops, void *ctx)
{
	struct ipam *ipam = alloc_new(struct ipam);

	ipam->config = *config;
	ipam->ops = *ops;
	ipam->ctx = ctx;
	ops->random(
		ctx, &ipam->last_xid, sizeof(ipam->last_xid)); /* transfers of an earlier life keep their numbers to themselves */
	return ipam;
}

void ipam_free(struct ipam *ipam)
{
	struct pool *pool, *next;
	struct peer *peer, *next_peer;

	if (!ipam)
		return;
	HASH_ITER(hh, ipam->pools, pool, next)
	pool_free_all(ipam, pool);
	decrees_fini(ipam);
	HASH_ITER(hh, ipam->peers, peer, next_peer)
	{
		HASH_DEL(ipam->peers, peer);
		free(peer);
	}
	free(ipam);
}

/* --- requests --- */

static bool offset_of(const struct pool *pool, const struct ip *address, u128 *ret_offset)
{
	if (address->family != pool->def.prefix.ip.family || !prefix_contains(&pool->def.prefix, address))
		return false;
	*ret_offset = ip_number(address) - pool->base;
	return true;
}

static bool is_usable(const struct pool *pool, u128 offset)
{
	return offset >= pool->first && offset - pool->first < pool->usable;
}

/* The usable part of `within`; false when there is none. */
static bool usable_range(const struct pool *pool, const struct prefix *within, u128 *ret_start, u128 *ret_len)
{
	u128 low = 0, high = pool->size, end = pool->first + pool->usable;
	unsigned host_bits;

	if (prefix_is_set(within)) {
		struct prefix masked = prefix_masked(within);

		if (within->ip.family != pool->def.prefix.ip.family || !prefix_overlaps(&masked, &pool->def.prefix))
			return false;
		if (masked.length > pool->def.prefix.length) {
			host_bits = ip_bits(&masked.ip) - masked.length;
			low = ip_number(&masked.ip) - pool->base;
			high = low + ((u128)1 << host_bits);
		}
	}
	if (low < pool->first)
		low = pool->first;
	if (high > end)
		high = end;
	if (low >= high)
		return false;
	*ret_start = low;
	*ret_len = high - low;
	return true;
}

static bool request_from_want(const struct pool *pool, const struct ipam_want *want, struct request *r)
{
	const char *owner = want->owner ? want->owner : "";

	memcpy(r->owner, owner, strnlen(owner, IPAM_OWNER_MAX));
	r->use = want->use;
	if (ip_is_set(&want->address)) {
		r->aim = AIM_EXACT;
		return offset_of(pool, &want->address, &r->offset) && is_usable(pool, r->offset);
	}
	if (!usable_range(pool, &want->within, &r->start, &r->len))
		return false;
	if (want->use == IPAM_USE_SHARED && want->shared_first) {
		r->aim = AIM_FIRST_SHARED;
		r->shared_flags = IPAM_SHARED_FIRST;
		r->offset = r->start;
	}
	return true;
}

void ipam_request(struct ipam *ipam, const struct ipam_want *want, uint64_t ticket, uint64_t now_ms)
{
	struct pool *pool = pool_known(ipam, &want->pool);
	struct request r = {
		.ticket = ticket,
		.deadline_ms = now_ms + (want->timeout_ms ? want->timeout_ms : IPAM_REQUEST_MS),
	};
	struct ipam_result result = {.code = pool ? IPAM_OUTSIDE : IPAM_UNKNOWN_POOL};

	ipam->counters.requests++;
	if (pool && pool->retiring)
		result.code = IPAM_UNKNOWN_POOL;
	if (!pool || pool->retiring || !request_from_want(pool, want, &r))
		ipam->ops.complete(ipam->ctx, ticket, &result);
	else
		request_begin(ipam, pool, &r, now_ms);
}

bool ipam_cancel(struct ipam *ipam, uint64_t ticket)
{
	struct pool *pool, *next_pool;
	struct request *r, *next;

	HASH_ITER(hh, ipam->pools, pool, next_pool)
	{
		DL_FOREACH_SAFE(pool->requests, r, next)
		{
			if (r->ticket != ticket)
				continue;
			DL_DELETE(pool->requests, r);
			pool->request_count--;
			request_free(r);
			return true;
		}
	}
	return false;
}

static struct slot *lease_at(const struct pool *pool, const struct ip *address)
{
	struct slot *slot;
	u128 offset;

	if (!pool || !offset_of(pool, address, &offset))
		return NULL;
	slot = slot_find(pool, offset);
	return slot && slot->state == SLOT_LEASED ? slot : NULL;
}

bool ipam_release(struct ipam *ipam, const struct id128 *id, const struct ip *address, uint64_t now_ms)
{
	struct pool *pool = pool_known(ipam, id);
	struct slot *slot = lease_at(pool, address);
	struct id128 kept = *id;
	bool shared;

	if (!slot)
		return false;
	shared = slot->use == IPAM_USE_SHARED;
	if (slot->guest)
		slot_drop(ipam, pool, slot);
	else
		slot_rest(ipam, pool, slot, now_ms);
	pool->dirty |= shared;
	requests_run(ipam, &kept, now_ms);
	pool = pool_known(ipam, &kept);
	if (pool)
		pool_after_change(ipam, pool, now_ms);
	return true;
}

bool ipam_bind(
	struct ipam *ipam, const struct id128 *id, const struct ip *address, bool bound, const char *owner, uint64_t now_ms)
{
	struct pool *pool = pool_known(ipam, id);
	struct slot *slot = lease_at(pool, address);

	if (!slot)
		return false;
	slot->bound = bound;
	slot->since_ms = now_ms;
	if (owner)
		slot_set_owner(slot, owner);
	slot_save(ipam, pool, slot);
	if (owner && slot->use == IPAM_USE_SHARED) {
		pool->dirty = true; /* the label is part of what others see of a shared lease */
		publish(ipam, pool);
	}
	return true;
}

bool ipam_make_shared(struct ipam *ipam, const struct id128 *id, const struct ip *address, const char *owner, uint64_t now_ms)
{
	struct pool *pool = pool_known(ipam, id);
	struct slot *slot = lease_at(pool, address);
	bool endpoint = slot && slot->use == IPAM_USE_ENDPOINT;

	if (!slot || (endpoint && (slot->bound || pool->shared_count >= IPAM_SHARED_MAX)))
		return false;
	pool->shared_count += endpoint;
	slot->use = IPAM_USE_SHARED;
	return ipam_bind(ipam, id, address, false, owner, now_ms);
}

static void lease_of(const struct pool *pool, const struct slot *slot, struct ipam_lease *ret)
{
	*ret = (struct ipam_lease){
		.pool = pool->id,
		.address = ip_from_number(pool->def.prefix.ip.family, pool->base + slot->offset),
		.use = slot->use,
		.since_ms = slot->since_ms,
		.bound = slot->bound,
	};
	memcpy(ret->owner, slot_owner(slot), strlen(slot_owner(slot)) + 1);
}

bool ipam_lookup(const struct ipam *ipam, const struct id128 *id, const struct ip *address, struct ipam_lease *ret_lease)
{
	const struct pool *pool = pool_known(ipam, id);
	const struct slot *slot = lease_at(pool, address);

	if (!slot)
		return false;
	if (ret_lease)
		lease_of(pool, slot, ret_lease);
	return true;
}

void ipam_each_lease(
	const struct ipam *ipam, const struct id128 *id, void (*fn)(void *ctx, const struct ipam_lease *lease), void *ctx)
{
	const struct pool *pool, *next_pool;
	const struct slot *slot, *next;
	struct ipam_lease lease;

	HASH_ITER(hh, ipam->pools, pool, next_pool)
	{
		if (!pool->known || (id && !id_equal(id, &pool->id)))
			continue;
		HASH_ITER(hh, pool->slots, slot, next)
		{
			if (slot->state != SLOT_LEASED)
				continue;
			lease_of(pool, slot, &lease);
			fn(ctx, &lease);
		}
	}
}

/* --- other hosts --- */

static void on_grant(struct ipam *ipam, uint32_t from, const struct ipam_message *message, uint64_t now_ms)
{
	struct pool *pool = pool_known(ipam, &message->pool);

	if (!pool || ipam->hold)
		return; /* the offer stays open, and its record is there when we join, or act again */
	accept_ranges(ipam, pool, from, message->xid, message->ranges, message->range_count);
	let_rest(ipam, pool, message, now_ms);
	fetch_answered(pool, message->xid, FETCH_GRANTED, now_ms);
	on_gift(pool, from, now_ms);
	on_granted(ipam, pool, message->xid);
}

void ipam_message(struct ipam *ipam, uint32_t from_hostno, const void *msg, size_t len, uint64_t now_ms)
{
	struct ipam_message m;
	struct pool *pool;

	if (!ipam->started)
		return;
	if (from_hostno == 0 || from_hostno == ipam->config.hostno || ipam_message_decode(&m, msg, len) < 0) {
		ipam->counters.bad_messages++;
		return;
	}
	if (ipam->forgotten)
		return;
	if (m.type == IPAM_MSG_DECREE) {	    /* from anybody: the heir's, and those who refuse us show it */
		if (ipam->hold != IPAM_HOLD_FROZEN) /* else its heir shows it again */
			ipam_decree_seen(ipam, &m.decree, now_ms);
		return;
	}
	if (peer_refused(ipam, from_hostno)) {
		answer_refused(ipam, from_hostno);
		return;
	}
	if ((m.type == IPAM_MSG_CLAIM || m.type == IPAM_MSG_PROMISE) && ipam->hold)
		return; /* what we would tell may be old; the heir repeats */
	if (m.type == IPAM_MSG_CLAIM || m.type == IPAM_MSG_PROMISE) {
		if (m.type == IPAM_MSG_CLAIM)
			on_claim(ipam, from_hostno, &m);
		else
			on_promise(ipam, from_hostno, &m, now_ms);
		return;
	}
	switch (m.type) {
	case IPAM_MSG_REQ:
		on_req(ipam, from_hostno, &m, now_ms);
		break;
	case IPAM_MSG_GRANT:
		on_grant(ipam, from_hostno, &m, now_ms);
		break;
	case IPAM_MSG_DENY:
		on_deny(ipam, from_hostno, &m, now_ms);
		break;
	case IPAM_MSG_MOVED:
		on_moved(ipam, from_hostno, &m, now_ms);
		break;
	default:
		on_ack(ipam, from_hostno, &m);
	}
	requests_run(ipam, &m.pool, now_ms);
	pool = pool_known(ipam, &m.pool);
	if (pool)
		pool_after_change(ipam, pool, now_ms);
}

void ipam_peer_chunk(
	struct ipam *ipam, uint32_t hostno, const struct id128 *id, unsigned chunk, const void *val, size_t len, uint64_t now_ms)
{
	struct ipam_chunk *decoded = val ? ipam_chunk_decode(val, len) : NULL;
	const struct peer *peer = peer_find(ipam, hostno);
	struct id128 kept = *id;
	struct pool *pool;
	struct view *view;

	if (hostno == 0 || hostno == ipam->config.hostno || chunk >= IPAM_CHUNKS_MAX || (val && !decoded)) {
		ipam->counters.bad_messages++;
		ipam_chunk_free(decoded);
		return;
	}
	if (ipam->forgotten || (peer && peer->buried))
		pool = NULL; /* nothing counts here any more, or nothing of that host */
	else
		pool = decoded ? pool_get(ipam, id) : pool_find(ipam, id);
	if (!pool) {
		ipam_chunk_free(decoded);
		return;
	}
	view_set_chunk(pool, hostno, chunk, decoded);
	if (!pool->known || !ipam->started) {
		pool_free_if_empty(ipam, pool);
		return;
	}
	HASH_FIND(hh, pool->views, &hostno, sizeof(hostno), view);
	if (view)
		pool_use_view(ipam, pool, view);
	requests_reconsider(pool);
	requests_run(ipam, &kept, now_ms);
	pool = pool_known(ipam, &kept);
	if (pool)
		pool_after_change(ipam, pool, now_ms);
}

static size_t pool_ids(const struct ipam *ipam, bool (*wanted)(const struct pool *pool, uint64_t now_ms), uint64_t now_ms,
	struct id128 **ret_ids)
{
	struct id128 *ids = alloc_array(struct id128, HASH_COUNT(ipam->pools) + 1);
	const struct pool *pool, *next;
	size_t count = 0;

	HASH_ITER(hh, ipam->pools, pool, next)
	if (pool->known && wanted(pool, now_ms))
		ids[count++] = pool->id;
	*ret_ids = ids;
	return count;
}

static bool has_due(const struct pool *pool, uint64_t now_ms)
{
	return requests_due(pool) <= now_ms;
}

/* Runs over ids, not pools: a caller's answer may drop any of them. */
static bool run_due(struct ipam *ipam, uint64_t now_ms)
{
	struct id128 *ids;
	size_t count = pool_ids(ipam, has_due, now_ms, &ids);

	for (size_t i = 0; i < count; i++)
		requests_run(ipam, &ids[i], now_ms);
	free(ids);
	return count > 0;
}

void ipam_peer_alive(struct ipam *ipam, uint32_t hostno, bool alive, uint64_t now_ms)
{
	struct pool *pool, *next;
	struct peer *peer;

	if (hostno == 0 || hostno == ipam->config.hostno)
		return;
	peer = peer_get(ipam, hostno);
	if (peer->life == (alive ? PEER_ALIVE : PEER_DEAD) && !(alive && peer->left))
		return;
	peer->life = alive ? PEER_ALIVE : PEER_DEAD;
	peer->left &= !alive;
	if (!ipam->started)
		return;
	if (alive)
		claim_hurry(ipam, hostno, now_ms);
	HASH_ITER(hh, ipam->pools, pool, next)
	{
		if (alive)
			offers_hurry(pool, hostno, now_ms);
		requests_reconsider(pool);
		pool_after_change(ipam, pool, now_ms);
	}
	run_due(ipam, now_ms);
}

void ipam_peer_left(struct ipam *ipam, uint32_t hostno, uint64_t now_ms)
{
	if (hostno == 0 || hostno == ipam->config.hostno)
		return;
	peer_get(ipam, hostno)->left = true;
	ipam_peer_alive(ipam, hostno, false, now_ms);
}

void ipam_peer_eligible(struct ipam *ipam, uint32_t hostno, bool eligible, uint64_t now_ms)
{
	struct pool *pool, *next;

	if (hostno == 0 || hostno == ipam->config.hostno || peer_ineligible(ipam, hostno) == !eligible)
		return;
	peer_get(ipam, hostno)->ineligible = !eligible;
	if (!ipam->started || !eligible)
		return;
	HASH_ITER(hh, ipam->pools, pool, next)
	pool_after_change(ipam, pool, now_ms);
}

void ipam_hold(struct ipam *ipam, enum ipam_hold hold, uint64_t now_ms)
{
	struct pool *pool, *next;

	if (ipam->fault == IPAM_FAULT_NO_HOLD || ipam->hold == hold || ipam->hold == IPAM_HOLD_FOR_GOOD)
		return;
	ipam->hold = hold;
	if (!ipam->started || hold > IPAM_HOLD_FROZEN)
		return;
	HASH_ITER(hh, ipam->pools, pool, next)
	{
		if (!pool->known)
			continue;
		if (!hold) {
			pool_use_views(ipam, pool);
			requests_reconsider(pool);
		}
		pool_after_change(ipam, pool, now_ms);
	}
	run_due(ipam, now_ms);
}

void ipam_be_known(struct ipam *ipam, uint64_t now_ms)
{
	struct pool *pool, *next;

	if (ipam->known)
		return;
	ipam->known = true;
	HASH_ITER(hh, ipam->pools, pool, next)
	{
		if (!pool->known)
			continue;
		slice_fill(ipam, pool);
		if (!ipam->started)
			continue;
		pool_taken(ipam, pool);
		requests_hurry(pool);
		pool->fetch = (struct fetch){0};
		pool_after_change(ipam, pool, now_ms);
	}
	if (ipam->started)
		run_due(ipam, now_ms);
}

enum ipam_hold ipam_holds(const struct ipam *ipam)
{
	return ipam->hold;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t pool_timers(struct ipam *ipam, struct pool *pool, uint64_t now_ms)
{
	uint64_t due = offers_tick(ipam, pool, now_ms);

	due = earlier(due, slots_cool(ipam, pool, now_ms));
	due = earlier(due, fetch_tick(ipam, pool, now_ms));
	due = earlier(due, handback_tick(ipam, pool, now_ms));
	publish(ipam, pool);
	return earlier(due, requests_due(pool));
}

uint64_t ipam_tick(struct ipam *ipam, uint64_t now_ms)
{
	struct pool *pool, *next;
	uint64_t due, claims;

	if (!ipam->started)
		return IPAM_NEVER;
	due = claims = heir_claims_tick(ipam, now_ms);
	HASH_ITER(hh, ipam->pools, pool, next)
	if (pool->known)
		due = earlier(due, pool_timers(ipam, pool, now_ms));
	if (due > now_ms || !run_due(ipam, now_ms))
		return due;
	due = claims;
	HASH_ITER(hh, ipam->pools, pool, next)
	if (pool->known)
		due = earlier(due, pool_timers(ipam, pool, now_ms));
	return due;
}

/* --- what people see --- */

bool ipam_pool_totals(const struct ipam *ipam, const struct id128 *id, struct ipam_totals *ret_totals)
{
	const struct pool *pool = pool_known(ipam, id);

	if (!pool)
		return false;
	*ret_totals = (struct ipam_totals){
		.size = pool->size,
		.reserved = pool->size - pool->usable,
		.held_known = map_known(pool, pool->self),
		.leases = pool->leased,
	};
	return true;
}

void ipam_each_share(
	const struct ipam *ipam, const struct id128 *id, void (*fn)(void *ctx, const struct ipam_share *share), void *ctx)
{
	const struct pool *pool = pool_known(ipam, id);
	const struct view *view, *next;
	struct ipam_share share;

	if (!pool)
		return;
	share = (struct ipam_share){
		.hostno = pool->self,
		.held = pool->held,
		.free_held = pool_free(pool),
		.wanted = pool->wanted == WANT_YES,
	};
	for (size_t i = 0; i < pool->custody.count; i++)
		share.fragments += pool->custody.entries[i].to == pool->self;
	fn(ctx, &share);
	HASH_ITER(hh, pool->views, view, next)
	{
		share = (struct ipam_share){.hostno = view->hostno, .wanted = view_wanted(view)};
		share.held = view_held(view, &share.fragments);
		share.free_held = bucket_low(view_bucket(view));
		fn(ctx, &share);
	}
}

const struct ipam_counters *ipam_counters(const struct ipam *ipam)
{
	return &ipam->counters;
}

/* --- for tests --- */

void ipam_break(struct ipam *ipam, enum ipam_fault fault)
{
	ipam->fault = fault;
}

void ipam_each_custody(
	const struct ipam *ipam, const struct id128 *id, void (*fn)(void *ctx, const struct custody *entry), void *ctx)
{
	const struct pool *pool = pool_find(ipam, id);

	for (size_t i = 0; pool && i < pool->custody.count; i++)
		fn(ctx, &pool->custody.entries[i]);
}

/* What callers wait for.
 *
 * A request is answered from our own holdings when it can be. Otherwise it asks: for any address the donors one after another,
 * those with the most free first, until one gives or all have said no; for a certain address its holder, following MOVED. Loss is
 * met by asking again, a silent donor by asking the next one too. Every request ends at its deadline at the latest.
 *
 * complete() may call back into everything, so it is always the last thing done with a request, and the walk starts over behind
 * it. */
#include "ipam/ipam_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

void request_free(struct request *request)
{
	if (!request)
		return;
	free(request->asked);
	free(request->told);
	free(request);
}

/* --- answers from what we have --- */

static void grant(
	struct ipam *ipam, struct pool *pool, const struct request *r, u128 offset, uint64_t now_ms, struct ipam_result *result)
{
	slot_lease(ipam, pool, offset, r->use, r->shared_flags, r->owner, now_ms);
	pool->dirty |= r->use == IPAM_USE_SHARED;
	result->code = IPAM_GRANTED;
	result->address = ip_from_number(pool->def.prefix.ip.family, pool->base + offset);
}

static void grant_again(const struct pool *pool, const struct slot *slot, const struct request *r, struct ipam_result *result)
{
	result->code = IPAM_GRANTED;
	result->address = ip_from_number(pool->def.prefix.ip.family, pool->base + slot->offset);
	result->repeated = !strcmp(slot_owner(slot), r->owner);
}

static void in_use(const struct slot *slot, uint32_t hostno, struct ipam_result *result)
{
	result->code = IPAM_IN_USE;
	result->holder_hostno = hostno;
	if (slot)
		memcpy(result->owner, slot_owner(slot), strlen(slot_owner(slot)) + 1);
}

static bool is_ours(const struct pool *pool, u128 offset)
{
	const struct custody *c = custody_at(&pool->custody, offset);

	return c && c->to == pool->self;
}

static bool try_exact(struct ipam *ipam, struct pool *pool, struct request *r, uint64_t now_ms, struct ipam_result *result)
{
	const struct listed *listed = listed_find(pool, r->offset);
	const struct slot *slot = slot_find(pool, r->offset);

	if (slot && slot->state == SLOT_LEASED) {
		if (slot->use == r->use && r->owner[0] && !strcmp(slot_owner(slot), r->owner))
			grant_again(pool, slot, r, result);
		else
			in_use(slot, 0, result);
		return true;
	}
	if (listed && r->use == IPAM_USE_ENDPOINT) {
		in_use(NULL, listed->hostno, result);
		result->shared = true;
		return true;
	}
	if (!listed && !is_ours(pool, r->offset))
		return false;
	grant(ipam, pool, r, r->offset, now_ms, result);
	return true;
}

/* A gateway that we have already, or that another host lists: the lowest taken as "the gateway", else one with the same label. */
static bool find_gateway(const struct pool *pool, const struct request *r, u128 *ret_offset)
{
	const struct listed *listed, *next_listed;
	const struct slot *slot, *next;
	unsigned best_rank = 0;

	HASH_ITER(hh, pool->slots, slot, next)
	{
		bool same = r->owner[0] && !strcmp(slot_owner(slot), r->owner);
		unsigned rank = slot->shared_flags & IPAM_SHARED_FIRST ? 4 : same ? 3 : 0;

		if (slot->state != SLOT_LEASED || slot->use != IPAM_USE_SHARED)
			continue;
		if (rank > best_rank || (rank && rank == best_rank && slot->offset < *ret_offset)) {
			best_rank = rank;
			*ret_offset = slot->offset;
		}
	}
	HASH_ITER(hh, pool->listed, listed, next_listed)
	{
		bool same = r->owner[0] && listed->tag == owner_tag(r->owner);
		unsigned rank = listed->flags & IPAM_SHARED_FIRST ? 2 : same ? 1 : 0;

		if (rank > best_rank || (rank && rank == best_rank && listed->offset < *ret_offset)) {
			best_rank = rank;
			*ret_offset = listed->offset;
		}
	}
	return best_rank > 0;
}

static bool try_first_shared(struct ipam *ipam, struct pool *pool, struct request *r, uint64_t now_ms, struct ipam_result *result)
{
	const struct slot *slot;
	u128 offset = 0;

	if (find_gateway(pool, r, &offset)) {
		slot = slot_find(pool, offset);
		if (slot && slot->state == SLOT_LEASED && slot->use == IPAM_USE_SHARED)
			grant_again(pool, slot, r, result);
		else if (slot && slot->state == SLOT_LEASED)
			in_use(slot, 0, result);
		else
			grant(ipam, pool, r, offset, now_ms, result);
		return true;
	}
	if (!is_ours(pool, r->offset))
		return false;
	slot = slot_find(pool, r->offset);
	if (slot && slot->state == SLOT_LEASED) { /* an endpoint has it: any other address must do */
		r->aim = AIM_ANY;
		return false;
	}
	grant(ipam, pool, r, r->offset, now_ms, result);
	return true;
}

static bool find_any(const struct ipam *ipam, struct pool *pool, const struct request *r, u128 *ret_offset)
{
	u128 offset = r->start;

	if (ipam->fault != IPAM_FAULT_LOWEST)
		return free_find(pool, r->start, r->len, ret_offset);
	while (offset < r->start + r->len && slot_find(pool, offset))
		offset++;
	*ret_offset = offset;
	return offset < r->start + r->len;
}

static bool try_any(struct ipam *ipam, struct pool *pool, struct request *r, uint64_t now_ms, struct ipam_result *result)
{
	u128 offset;

	if (!find_any(ipam, pool, r, &offset))
		return false;
	grant(ipam, pool, r, offset, now_ms, result);
	return true;
}

/* On hold only what is leased is answered: it was given before. Numbers of hosts too, which nobody but their granter asks for by
 * name, and only after it gave them. */
static bool may_answer(const struct ipam *ipam, const struct pool *pool, const struct request *r)
{
	const struct slot *slot = r->aim == AIM_EXACT ? slot_find(pool, r->offset) : NULL;

	return !ipam->hold || (slot && slot->state == SLOT_LEASED) || (pool->def.host_numbers && r->aim == AIM_EXACT);
}

static bool try_answer(struct ipam *ipam, struct pool *pool, struct request *r, uint64_t now_ms, struct ipam_result *result)
{
	if (!may_answer(ipam, pool, r))
		return false;
	if (r->use == IPAM_USE_SHARED && pool->shared_count >= IPAM_SHARED_MAX) {
		result->code = IPAM_EXHAUSTED;
		return true;
	}
	if (r->aim == AIM_EXACT)
		return try_exact(ipam, pool, r, now_ms, result);
	if (r->aim == AIM_FIRST_SHARED && try_first_shared(ipam, pool, r, now_ms, result))
		return true;
	return r->aim == AIM_ANY && try_any(ipam, pool, r, now_ms, result);
}

/* --- asking for any address --- */

/* Where the host is, or would be: asked hosts are kept in order, since a large cluster may all be asked. */
static unsigned asked_index(const struct request *r, uint32_t hostno)
{
	unsigned low = 0, high = r->asked_count;

	while (low < high) {
		unsigned middle = low + (high - low) / 2;

		if (r->asked[middle].hostno >= hostno)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static struct asked *asked_find(const struct request *r, uint32_t hostno)
{
	unsigned i = asked_index(r, hostno);

	return i < r->asked_count && r->asked[i].hostno == hostno ? &r->asked[i] : NULL;
}

static struct asked *asked_add(struct request *r, uint32_t hostno)
{
	unsigned i = asked_index(r, hostno);

	if (r->asked_count == IPAM_ASKED_MAX)
		return NULL;
	if (r->asked_count == r->asked_capacity) {
		r->asked_capacity = r->asked_capacity ? 2 * r->asked_capacity : 4;
		r->asked = alloc_resize(r->asked, struct asked, r->asked_capacity);
	}
	memmove(r->asked + i + 1, r->asked + i, (r->asked_count++ - i) * sizeof(*r->asked));
	r->asked[i] = (struct asked){.hostno = hostno};
	return &r->asked[i];
}

static void ask(struct ipam *ipam, struct pool *pool, struct request *r, struct asked *asked, uint64_t now_ms)
{
	struct ipam_message m = {
		.type = IPAM_MSG_REQ,
		.pool = pool->id,
		.xid = r->xid,
		.flags = IPAM_REQ_URGENT | (ipam->known ? 0 : IPAM_REQ_FEW),
		.start = r->start,
		.len = r->len,
		.count = IPAM_CHUNK_MAX,
	};

	asked->next_ms = now_ms + ((uint64_t)IPAM_REASK_MS << (asked->tries < 3 ? asked->tries : 3));
	asked->tries++;
	message_send(ipam, asked->hostno, &m);
}

static const struct view *next_donor(const struct ipam *ipam, const struct pool *pool, const struct request *r)
{
	const struct view *view, *next, *best = NULL;

	HASH_ITER(hh, pool->views, view, next)
	{
		if (best && view_bucket(view) <= view_bucket(best) &&
			!(view_bucket(view) == view_bucket(best) && view->hostno < best->hostno))
			continue;
		if (peer_life(ipam, view->hostno) == PEER_ALIVE && view_holds_some(view, r->start, r->len) &&
			!asked_find(r, view->hostno))
			best = view;
	}
	return best;
}

/* When the map has gaps, somebody who publishes nothing may still have what we look for. */
static uint32_t next_stranger(const struct ipam *ipam, const struct pool *pool, const struct request *r)
{
	const struct peer *peer, *next;

	if (map_known(pool, pool->self) >= pool->usable)
		return 0;
	HASH_ITER(hh, ipam->peers, peer, next)
	if (peer->life == PEER_ALIVE && !asked_find(r, peer->hostno))
		return peer->hostno;
	return 0;
}

/* Repeats what is due; returns whether an answer is still awaited from somebody alive. */
static bool ask_again(struct ipam *ipam, struct pool *pool, struct request *r, uint64_t now_ms)
{
	bool awaited = false;

	for (unsigned i = 0; i < r->asked_count; i++) {
		struct asked *asked = &r->asked[i];

		if (asked->answered || peer_life(ipam, asked->hostno) != PEER_ALIVE)
			continue;
		awaited = true;
		if (asked->next_ms <= now_ms)
			ask(ipam, pool, r, asked, now_ms);
		if (asked->next_ms < r->due_ms)
			r->due_ms = asked->next_ms;
	}
	return awaited;
}

/* A donor that said no may have got addresses since: its record says so. Once per donor, under a new number: a late copy of its
 * no is no answer to this. */
static bool ask_second_round(struct ipam *ipam, struct pool *pool, struct request *r, uint64_t now_ms)
{
	for (unsigned i = 0; i < r->asked_count; i++) {
		struct asked *asked = &r->asked[i];
		const struct view *view;

		HASH_FIND(hh, pool->views, &asked->hostno, sizeof(asked->hostno), view);
		if (!view || asked->again || view_bucket(view) == 0 || peer_life(ipam, asked->hostno) != PEER_ALIVE ||
			!view_holds_some(view, r->start, r->len))
			continue;
		r->xid = next_xid(ipam);
		asked->again = true;
		asked->answered = false;
		asked->tries = 0;
		ask(ipam, pool, r, asked, now_ms);
		r->due_ms = asked->next_ms;
		return true;
	}
	return false;
}

static bool awaits_first_answer(const struct request *r, uint64_t now_ms)
{
	for (unsigned i = 0; i < r->asked_count; i++)
		if (!r->asked[i].answered && r->asked[i].next_ms > now_ms)
			return true;
	return false;
}

/* Who could still have free addresses but did not say: 0 when everybody who could has answered. Whoever was given some and does
 * not show them yet has not: it may have answered before they arrived. One that is not dead, if there is any. */
static uint32_t silent_holder(const struct ipam *ipam, const struct pool *pool, const struct request *r)
{
	const struct view *view, *next, *best = NULL;
	unsigned told = r->told_count < IPAM_GIFTS_MAX ? r->told_count : IPAM_GIFTS_MAX;
	uint32_t awaited = map_awaited(ipam, pool, r->start, r->len, r->told, told);
	bool best_dead = true;

	HASH_ITER(hh, pool->views, view, next)
	{
		const struct asked *asked = asked_find(r, view->hostno);
		bool dead = peer_life(ipam, view->hostno) == PEER_DEAD;

		if ((asked && asked->answered) || view_bucket(view) == 0 || !view_holds_some(view, r->start, r->len))
			continue;
		if (!best || dead < best_dead || (dead == best_dead && view_bucket(view) > view_bucket(best))) {
			best = view;
			best_dead = dead;
		}
	}
	return awaited && best_dead ? awaited : best ? best->hostno : 0;
}

static bool any_answered(const struct request *r)
{
	for (unsigned i = 0; i < r->asked_count; i++)
		if (r->asked[i].answered)
			return true;
	return false;
}

static void give_up_any(const struct ipam *ipam, const struct pool *pool, const struct request *r, struct ipam_result *result)
{
	bool gap = map_known(pool, pool->self) < pool->usable;

	result->holder_hostno = silent_holder(ipam, pool, r);
	result->not_yet = r->not_yet;
	result->code = result->holder_hostno || (gap && !any_answered(r)) ? IPAM_UNREACHABLE : IPAM_EXHAUSTED;
}

static bool hopeful(const struct ipam *ipam, const struct pool *pool, const struct request *r)
{
	uint32_t silent = silent_holder(ipam, pool, r);

	if (silent && peer_life(ipam, silent) != PEER_DEAD)
		return true;
	return !silent && !any_answered(r) && map_known(pool, pool->self) < pool->usable;
}

static bool ask_one(struct ipam *ipam, struct pool *pool, struct request *r, uint32_t hostno, uint64_t now_ms)
{
	struct asked *asked = hostno ? asked_add(r, hostno) : NULL;

	if (!asked)
		return false;
	ask(ipam, pool, r, asked, now_ms);
	if (asked->next_ms < r->due_ms)
		r->due_ms = asked->next_ms;
	return true;
}

/* In turn while there is hope; hosts that say that they have nothing are asked several at a time, to be sure before we say
 * "exhausted". */
static bool ask_donors(struct ipam *ipam, struct pool *pool, struct request *r, uint64_t now_ms)
{
	const struct view *donor;
	unsigned count = 0;

	while (count < IPAM_ASK_AT_ONCE && (donor = next_donor(ipam, pool, r)) && (count == 0 || view_bucket(donor) == 0)) {
		if (!ask_one(ipam, pool, r, donor->hostno, now_ms))
			break;
		count++;
		if (view_bucket(donor) > 0)
			break;
	}
	return count > 0;
}

static bool step_any(struct ipam *ipam, struct pool *pool, struct request *r, uint64_t now_ms, struct ipam_result *result)
{
	if (now_ms >= r->deadline_ms) {
		give_up_any(ipam, pool, r, result);
		return true;
	}
	r->due_ms = r->deadline_ms;
	if (awaits_first_answer(r, now_ms)) {
		for (unsigned i = 0; i < r->asked_count; i++)
			if (!r->asked[i].answered && r->asked[i].next_ms > now_ms && r->asked[i].next_ms < r->due_ms)
				r->due_ms = r->asked[i].next_ms;
		return false;
	}
	if (ask_donors(ipam, pool, r, now_ms) || ask_again(ipam, pool, r, now_ms) || ask_second_round(ipam, pool, r, now_ms) ||
		ask_one(ipam, pool, r, next_stranger(ipam, pool, r), now_ms))
		return false;
	if (hopeful(ipam, pool, r))
		return false; /* records may still be on their way; the deadline ends it */
	give_up_any(ipam, pool, r, result);
	return true;
}

/* --- asking for a certain address --- */

static uint32_t current_holder(const struct ipam *ipam, const struct pool *pool, const struct request *r)
{
	uint32_t reign, holder;
	uint64_t version;

	holder = map_holder(ipam, pool, r->offset, &reign, &version);
	if (r->moved_to && (!holder || custody_newer(r->moved_reign, r->moved_version, reign, version)))
		holder = heir_of(ipam, r->moved_to);
	return holder == ipam->config.hostno ? 0 : holder;
}

/* No way to the holder. For a gateway that nobody lists, one of our own addresses serves as well. */
static bool unreachable(struct pool *pool, struct request *r, uint32_t holder, struct ipam_result *result)
{
	if (r->aim == AIM_FIRST_SHARED && pool_free(pool) > 0) {
		r->aim = AIM_ANY;
		r->due_ms = 0;
		return false;
	}
	result->code = IPAM_UNREACHABLE;
	result->not_yet = r->not_yet;
	result->holder_hostno = holder;
	return true;
}

static void ask_holder(struct ipam *ipam, struct pool *pool, struct request *r, uint64_t now_ms)
{
	struct ipam_message m = {
		.type = IPAM_MSG_REQ,
		.pool = pool->id,
		.xid = r->xid,
		.flags = IPAM_REQ_URGENT | IPAM_REQ_EXACT | (r->use == IPAM_USE_SHARED ? IPAM_REQ_SHARED : 0) |
			 (ipam->known ? 0 : IPAM_REQ_FEW),
		.start = r->offset,
		.len = 1,
		.count = 1,
	};

	r->next_ms = now_ms + ((uint64_t)IPAM_REASK_MS << (r->tries < 3 ? r->tries : 3));
	r->tries++;
	message_send(ipam, r->holder, &m);
}

static bool step_exact(struct ipam *ipam, struct pool *pool, struct request *r, uint64_t now_ms, struct ipam_result *result)
{
	uint32_t holder = current_holder(ipam, pool, r);

	if (now_ms >= r->deadline_ms || r->redirects > IPAM_REDIRECTS_MAX)
		return unreachable(pool, r, holder ? holder : r->holder, result);
	r->due_ms = r->deadline_ms;
	if (!holder && r->aim == AIM_FIRST_SHARED && pool_free(pool) > 0)
		return unreachable(pool, r, 0, result);
	if (!holder)
		return false;
	if (peer_life(ipam, holder) == PEER_DEAD)
		return unreachable(pool, r, holder, result);
	if (holder != r->holder) {
		r->holder = holder;
		r->tries = 0;
		r->next_ms = now_ms;
	}
	if (peer_life(ipam, holder) == PEER_UNTOLD)
		return false;
	if (now_ms >= r->next_ms)
		ask_holder(ipam, pool, r, now_ms);
	if (r->next_ms < r->due_ms)
		r->due_ms = r->next_ms;
	return false;
}

/* --- the walk --- */

static bool advance(struct ipam *ipam, struct pool *pool, struct request *r, uint64_t now_ms, struct ipam_result *result)
{
	if (try_answer(ipam, pool, r, now_ms, result))
		return true;
	if (r->due_ms > now_ms)
		return false;
	if (ipam->hold) {
		r->due_ms = r->deadline_ms;
		result->code = IPAM_HELD;
		return now_ms >= r->deadline_ms;
	}
	if (r->aim != AIM_ANY) {
		if (step_exact(ipam, pool, r, now_ms, result))
			return true;
		if (r->aim != AIM_ANY)
			return false;
	}
	return try_answer(ipam, pool, r, now_ms, result) || step_any(ipam, pool, r, now_ms, result);
}

/* Everything that must precede the answer (publishing, fetching ahead) is done before it, and nothing behind it. */
static void finish(struct ipam *ipam, struct pool *pool, uint64_t ticket, const struct ipam_result *result, uint64_t now_ms)
{
	if (result->repeated)
		ipam->counters.repeated++;
	pool_after_change(ipam, pool, now_ms);
	ipam->ops.complete(ipam->ctx, ticket, result);
}

void request_begin(struct ipam *ipam, struct pool *pool, const struct request *request, uint64_t now_ms)
{
	struct request *r = alloc_new(struct request);
	struct ipam_result result = {0};
	uint64_t ticket = request->ticket;

	*r = *request;
	if (try_answer(ipam, pool, r, now_ms, &result)) {
		ipam->counters.local_grants += result.code == IPAM_GRANTED;
		request_free(r);
		finish(ipam, pool, ticket, &result, now_ms);
		return;
	}
	if (pool->request_count >= IPAM_PENDING_MAX) {
		result.code = IPAM_EXHAUSTED;
		request_free(r);
		finish(ipam, pool, ticket, &result, now_ms);
		return;
	}
	r->xid = next_xid(ipam);
	DL_APPEND(pool->requests, r);
	pool->request_count++;
	requests_run(ipam, &pool->id, now_ms);
}

static struct request *first_ended(struct ipam *ipam, struct pool *pool, uint64_t now_ms, struct ipam_result *result)
{
	struct request *r;

	DL_FOREACH(pool->requests, r)
	{
		*result = (struct ipam_result){0};
		if (advance(ipam, pool, r, now_ms, result))
			return r;
	}
	return NULL;
}

void requests_run(struct ipam *ipam, const struct id128 *pool_id, uint64_t now_ms)
{
	struct id128 id = *pool_id;
	struct ipam_result result;
	struct request *r;
	struct pool *pool;

	while ((pool = pool_find(ipam, &id)) && pool->known && (r = first_ended(ipam, pool, now_ms, &result))) {
		uint64_t ticket = r->ticket;

		DL_DELETE(pool->requests, r);
		pool->request_count--;
		request_free(r);
		finish(ipam, pool, ticket, &result, now_ms);
	}
}

void requests_end(struct ipam *ipam, struct request *requests, enum ipam_result_code code)
{
	struct ipam_result result = {.code = code};
	struct request *r, *next;

	DL_FOREACH_SAFE(requests, r, next)
	{
		ipam->ops.complete(ipam->ctx, r->ticket, &result);
		request_free(r);
	}
}

void requests_reconsider(struct pool *pool)
{
	struct request *r;

	DL_FOREACH(pool->requests, r)
	{
		if (r->astray)
			r->next_ms = 0;
		r->astray = false;
		r->due_ms = 0;
	}
}

void requests_hurry(struct pool *pool)
{
	struct request *r;

	DL_FOREACH(pool->requests, r)
	{
		for (unsigned i = 0; i < r->asked_count; i++)
			r->asked[i].next_ms = 0;
		r->next_ms = 0;
		r->due_ms = 0;
	}
}

uint64_t requests_due(const struct pool *pool)
{
	const struct request *r;
	uint64_t due = IPAM_NEVER;

	DL_FOREACH(pool->requests, r)
	if (r->due_ms < due)
		due = r->due_ms;
	return due;
}

/* --- answers of others --- */

static struct request *request_by_xid(const struct pool *pool, uint64_t xid)
{
	struct request *r;

	DL_FOREACH(pool->requests, r)
	if (r->xid == xid)
		return r;
	return NULL;
}

/* The donor counts this transfer as served; if somebody else took the addresses first, the next question needs a new number. */
void on_granted(struct ipam *ipam, struct pool *pool, uint64_t xid)
{
	struct request *r = request_by_xid(pool, xid);

	if (!r)
		return;
	r->xid = next_xid(ipam);
	r->asked_count = 0;
	r->not_yet = false;
	r->tries = 0;
	r->next_ms = 0;
	r->due_ms = 0;
}

void on_gift(struct pool *pool, uint32_t from, uint64_t now_ms)
{
	struct request *r;
	struct asked *asked;

	DL_FOREACH(pool->requests, r)
	{
		asked = asked_find(r, from);
		if (!asked || asked->answered)
			continue;
		asked->next_ms = now_ms;
		r->due_ms = 0;
	}
}

void on_arrived(struct pool *pool, const struct custody *gift)
{
	struct request *r;

	DL_FOREACH(pool->requests, r)
	{
		if (r->aim == AIM_ANY || r->holder != gift->to || r->offset < gift->start || r->offset - gift->start >= gift->len)
			continue;
		r->next_ms = 0;
		r->due_ms = 0;
	}
}

/* Who said no may have given its last to one that said no before: neither has a free one, and there is one. */
static void remember_gift(struct request *r, const struct custody *gift)
{
	if (!r->told)
		r->told = alloc_array(struct custody, IPAM_GIFTS_MAX);
	r->told[r->told_count++ % IPAM_GIFTS_MAX] = *gift;
}

static void deny_any(struct request *r, uint32_t from, const struct ipam_message *message)
{
	struct asked *asked = asked_find(r, from);

	if (!asked || message->reason == IPAM_DENY_NOT_YET)
		return; /* it is asked again, until we may have some */
	asked->answered = true;
	r->due_ms = 0;
	for (unsigned i = 0; i < message->hint_count; i++)
		if (message->hints[i].hostno && !asked_find(r, message->hints[i].hostno))
			asked_add(r, message->hints[i].hostno);
	for (unsigned i = 0; i < message->range_count; i++)
		remember_gift(r, &message->ranges[i]);
}

/* The holder says that it is not. Either it has not arrived there yet, or our map is behind: a record will tell, or the deadline
 * comes. Or the record was faster than the answer: then there is nothing more to wait for. */
static void gone_astray(const struct pool *pool, struct request *r, uint64_t now_ms)
{
	const struct view *view;

	HASH_FIND(hh, pool->views, &r->holder, sizeof(r->holder), view);
	r->astray = true;
	if (!view || r->tries > IPAM_REDIRECTS_MAX || !view_holds_some(view, r->offset, 1))
		return;
	r->astray = false;
	r->next_ms = r->due_ms = now_ms;
}

/* True when the request has ended with *result. */
static bool deny_exact(struct ipam *ipam, struct pool *pool, struct request *r, uint32_t from, const struct ipam_message *message,
	uint64_t now_ms, struct ipam_result *result)
{
	bool shared = message->reason == IPAM_DENY_SHARED && !ipam->hold;
	const struct slot *slot = slot_find(pool, r->offset);
	u128 offset = 0;

	if (from != r->holder)
		return false;
	/* Another request for it may have been faster: then the walk answers this one from that lease. */
	if (shared && r->use == IPAM_USE_SHARED && slot && slot->state == SLOT_LEASED &&
		(r->aim == AIM_EXACT || find_gateway(pool, r, &offset)))
		return false;
	if (shared && r->use == IPAM_USE_SHARED && !(slot && slot->state == SLOT_LEASED)) {
		grant(ipam, pool, r, r->offset, now_ms, result);
		return true;
	}
	if (!shared && message->reason != IPAM_DENY_IN_USE) {
		if (message->reason == IPAM_DENY_NOT_YET)
			r->astray = true; /* a matter of time */
		else
			gone_astray(pool, r, now_ms);
		return false;
	}
	if (r->aim == AIM_FIRST_SHARED) {
		r->aim = AIM_ANY;
		r->xid = next_xid(ipam);
		r->due_ms = 0;
		return false;
	}
	result->code = IPAM_IN_USE;
	result->shared = shared;
	result->holder_hostno = from;
	memcpy(result->owner, message->owner, sizeof(result->owner));
	return true;
}

void on_deny(struct ipam *ipam, uint32_t from, const struct ipam_message *message, uint64_t now_ms)
{
	struct pool *pool = pool_find(ipam, &message->pool);
	struct request *r = pool ? request_by_xid(pool, message->xid) : NULL;
	struct ipam_result result = {0};
	uint64_t ticket;

	if (pool)
		fetch_answered(pool, message->xid, message->reason == IPAM_DENY_NOT_YET ? FETCH_NOT_YET : FETCH_REFUSED, now_ms);
	if (!r)
		return;
	r->not_yet |= message->reason == IPAM_DENY_NOT_YET;
	if (r->aim == AIM_ANY) {
		deny_any(r, from, message);
		return;
	}
	if (!deny_exact(ipam, pool, r, from, message, now_ms, &result))
		return;
	ticket = r->ticket;
	DL_DELETE(pool->requests, r);
	pool->request_count--;
	request_free(r);
	finish(ipam, pool, ticket, &result, now_ms);
}

void on_moved(struct ipam *ipam, uint32_t from, const struct ipam_message *message, uint64_t now_ms)
{
	struct pool *pool = pool_find(ipam, &message->pool);
	struct request *r = pool ? request_by_xid(pool, message->xid) : NULL;

	if (!r || r->aim == AIM_ANY || from != r->holder || message->to == ipam->config.hostno)
		return;
	if (!r->moved_to || custody_newer(message->reign, message->version, r->moved_reign, r->moved_version)) {
		r->moved_to = message->to;
		r->moved_reign = message->reign;
		r->moved_version = message->version;
		r->redirects++;
	}
	/* Still the same one: it is behind us. */
	if (current_holder(ipam, pool, r) == from)
		gone_astray(pool, r, now_ms);
	else
		r->due_ms = 0;
}

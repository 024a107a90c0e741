/* Forgetting a host: promises, refusals, and what happens to a host that finds itself forgotten. Collecting promises: heir.c.
 *
 * A dead host's addresses may move only when nobody can hold one that the heir does not know of. So every host that could have
 * received from the victim promises, durably and to one heir only, to take nothing from it any more, and tells for each range the
 * last fact that it itself took part in. What the highest of these facts leaves with the victim is the estate.
 *
 *   A promise is kept until a finished decree takes its place. It passes to another heir only when the first one has itself
 * promised to that other (it said so under the number that the claim names in `over`), is assumed fenced by it, or is gone. Of
 * two heirs the one with the lower host id goes on, with a higher number; the other yields while it is not done. Whoever is named
 * by a decree, as victim or as assumed fenced, drops everything as soon as it sees it: others may have its addresses. It is
 * refused by all who promised, and answered with the decree.
 *
 * Hosts that said goodbye are not asked. A gift of theirs that is still on its way must not arrive behind the report of its
 * receiver, so who promises refuses, from then on, those that it knows to have left; and a host that still counts one of them as
 * a member is asked again until it does not. */
#include "ipam/ipam_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* --- hosts --- */

struct peer *peer_find(const struct ipam *ipam, uint32_t hostno)
{
	struct peer *peer;

	HASH_FIND(hh, ipam->peers, &hostno, sizeof(hostno), peer);
	return peer;
}

struct peer *peer_get(struct ipam *ipam, uint32_t hostno)
{
	struct peer *peer = peer_find(ipam, hostno);

	if (peer)
		return peer;
	peer = alloc_new(struct peer);
	peer->hostno = hostno;
	HASH_ADD(hh, ipam->peers, hostno, sizeof(peer->hostno), peer);
	return peer;
}

bool peer_refused(const struct ipam *ipam, uint32_t hostno)
{
	const struct peer *peer = peer_find(ipam, hostno);

	return peer && peer->refused;
}

bool peer_ineligible(const struct ipam *ipam, uint32_t hostno)
{
	const struct peer *peer = peer_find(ipam, hostno);

	return peer && peer->ineligible;
}

/* --- decrees --- */

struct decree *decree_find(const struct ipam *ipam, uint32_t victim)
{
	struct decree *decree;

	HASH_FIND(hh, ipam->decrees, &victim, sizeof(victim), decree);
	return decree;
}

struct decree *decree_get(struct ipam *ipam, uint32_t victim)
{
	struct decree *decree = decree_find(ipam, victim);

	if (decree)
		return decree;
	decree = alloc_new(struct decree);
	decree->victim = decree->d.victim = victim;
	decree->gone = true;
	HASH_ADD(hh, ipam->decrees, victim, sizeof(decree->victim), decree);
	return decree;
}

bool decree_names(const struct ipam_decree *d, uint32_t hostno)
{
	for (unsigned i = 0; i < d->assumed_count; i++)
		if (d->assumed[i] == hostno)
			return true;
	return d->victim == hostno;
}

void decree_save(struct ipam *ipam, const struct decree *decree, bool durable)
{
	static const struct id128 none;
	uint8_t key[IPAM_KEY_MAX], value[IPAM_VALUE_MAX];
	size_t key_len = ipam_key_encode(key, IPAM_SAVED_DECREE, &none, decree->victim);

	ipam->ops.save(ipam->ctx, key, key_len, value, saved_decree_encode(&decree->d, decree->gone, value), durable);
}

void decrees_apply(struct ipam *ipam)
{
	struct decree *decree, *next;
	struct peer *peer, *next_peer;

	HASH_ITER(hh, ipam->peers, peer, next_peer)
	peer->refused = peer->buried = false;
	HASH_ITER(hh, ipam->decrees, decree, next)
	{
		if (decree->victim == ipam->config.hostno)
			continue;
		peer = peer_get(ipam, decree->victim);
		peer->refused = true;
		peer->buried = decree->gone || decree->d.done;
		for (unsigned i = 0; !decree->gone && i < decree->d.assumed_count; i++)
			if (decree->d.assumed[i] != ipam->config.hostno)
				peer_get(ipam, decree->d.assumed[i])->refused = true;
	}
}

/* What the victim published says nothing any more: neither whom to ask, nor that a gateway is listed. */
void decrees_settle(struct ipam *ipam)
{
	struct decree *decree, *next;
	struct pool *pool, *next_pool;

	HASH_ITER(hh, ipam->decrees, decree, next)
	{
		if (decree->gone || !decree->d.done)
			continue;
		HASH_ITER(hh, ipam->pools, pool, next_pool)
		{
			settle_offers_to(ipam, pool, decree->victim);
			view_drop(pool, decree->victim);
		}
	}
}

void ops_decree(struct ipam *ipam, const struct ipam_decree *d)
{
	if (ipam->ops.decree)
		ipam->ops.decree(ipam->ctx, d);
}

void tell_decree(struct ipam *ipam, uint32_t to, const struct ipam_decree *d)
{
	struct ipam_message m = {.type = IPAM_MSG_DECREE, .xid = d->number, .decree = *d};

	message_send(ipam, to, &m);
}

/* Somebody forgotten speaks: it must learn why nobody answers. */
void answer_refused(struct ipam *ipam, uint32_t from)
{
	struct decree *decree, *next;

	ipam->counters.refused++;
	HASH_ITER(hh, ipam->decrees, decree, next)
	{
		if (decree->gone || !decree_names(&decree->d, from))
			continue;
		tell_decree(ipam, from, &decree->d);
		return;
	}
}

/* --- our own end --- */

/* The decree comes first and durably: whatever else is lost by a crash is dropped again at the next start. */
static void be_forgotten(struct ipam *ipam, const struct ipam_decree *d)
{
	struct decree *decree = decree_get(ipam, d->victim);

	if (ipam->forgotten)
		return;
	claim_free(decree->claim);
	decree->claim = NULL;
	decree->d = *d;
	decree->gone = false;
	decree_save(ipam, decree, true);
	ipam->forgotten = true;
	if (!ipam->started)
		return;
	pools_wipe(ipam);
	ops_decree(ipam, d);
}

static bool names_us(const struct ipam *ipam, const struct ipam_decree *d)
{
	if (d->victim == ipam->config.hostno)
		return id_equal(&d->victim_id, &ipam->config.host_id);
	return decree_names(d, ipam->config.hostno);
}

/* --- promises --- */

void note_goodbyes(struct ipam *ipam)
{
	struct peer *peer, *next;

	HASH_ITER(hh, ipam->peers, peer, next)
	if (peer->left && !decree_find(ipam, peer->hostno))
		decree_save(ipam, decree_get(ipam, peer->hostno), false);
}

/* A finished decree of somebody else, or what we promise. */
static void take_decree(struct ipam *ipam, struct decree *decree, const struct ipam_decree *d)
{
	bool ours = decree->claim;

	claim_free(decree->claim);
	decree->claim = NULL;
	decree->d = *d;
	decree->gone = false;
	note_goodbyes(ipam);
	decree_save(ipam, decree, true);
	decrees_apply(ipam);
	if (ours || d->done)
		ops_decree(ipam, d);
}

void decree_adopt(struct ipam *ipam, const struct ipam_decree *d, uint64_t now_ms)
{
	struct decree *decree = decree_get(ipam, d->victim);
	struct pool *pool, *next;

	if (!decree->gone && decree->d.done)
		return;
	take_decree(ipam, decree, d);
	if (!ipam->started)
		return;
	decrees_settle(ipam);
	HASH_ITER(hh, ipam->pools, pool, next)
	{
		requests_reconsider(pool);
		pool_after_change(ipam, pool, now_ms);
	}
}

static bool is_released(const struct ipam *ipam, const struct ipam_decree *held, const struct ipam_message *m)
{
	const struct peer *heir = peer_find(ipam, held->heir);

	if (decree_names(&m->decree, held->heir) || (heir && (heir->left || heir->buried)))
		return true;
	for (unsigned i = 0; i < m->over_count; i++)
		if (m->over[i].hostno == held->heir && m->over[i].number >= held->number)
			return true;
	return false;
}

/* Whether we may promise, and have not yet. */
static bool may_promise(const struct ipam *ipam, const struct decree *decree, const struct ipam_message *m)
{
	const struct ipam_decree *held = &decree->d;

	if (decree->gone)
		return true;
	if (held->done || m->decree.number <= held->number)
		return false;
	if (held->heir == m->decree.heir)
		return true;
	if (held->heir == ipam->config.hostno)
		return id_compare(&m->decree.heir_id, &ipam->config.host_id) < 0;
	return is_released(ipam, held, m);
}

static bool has_promised(const struct decree *decree, const struct ipam_message *m)
{
	return !decree->gone && decree->d.heir == m->decree.heir && decree->d.number == m->decree.number;
}

static int by_hostno(const struct peer *a, const struct peer *b)
{
	return a->hostno < b->hostno ? -1 : a->hostno > b->hostno;
}

static void report_hosts(struct ipam *ipam, struct ipam_message *m)
{
	struct peer *peer, *next;
	size_t bytes = 0;

	HASH_SRT(hh, ipam->peers, by_hostno);
	HASH_ITER(hh, ipam->peers, peer, next)
	{
		if (peer->hostno <= m->cursor || peer->left || peer->buried)
			continue;
		bytes += v_size(peer->hostno);
		if (bytes > IPAM_REPORT_BYTES || m->host_count == IPAM_REPORT_HOSTS) {
			m->more = true;
			return;
		}
		m->hosts[m->host_count++] = peer->hostno;
	}
}

static u128 id_number(const struct id128 *id)
{
	u128 number = 0;

	for (unsigned i = 0; i < sizeof(id->bytes); i++)
		number = number << 8 | id->bytes[i];
	return number;
}

static int by_pool_id(const struct pool *a, const struct pool *b)
{
	return id_compare(&a->id, &b->id);
}

static void report_pools(struct ipam *ipam, struct ipam_message *m)
{
	struct pool *pool, *next;

	HASH_SRT(hh, ipam->pools, by_pool_id);
	HASH_ITER(hh, ipam->pools, pool, next)
	{
		if (!pool->known || id_number(&pool->id) <= m->cursor)
			continue;
		if (m->pool_count == IPAM_REPORT_POOLS) {
			m->more = true;
			return;
		}
		m->pools[m->pool_count++] = pool->id;
	}
}

static size_t range_size(const struct custody *c)
{
	return v_size(c->start) + v_size(c->len - 1) + v_size(c->reign) + v_size(c->version) + v_size(c->to);
}

/* History counts as much as what is held: it is what tells a later reader that an address went somewhere else. */
static void report_ranges(struct ipam *ipam, const struct pool *pool, struct ipam_message *m)
{
	size_t bytes = 0;

	for (size_t i = pool ? custody_index(&pool->custody, m->cursor) : 0; pool && i < pool->custody.count; i++) {
		const struct custody *c = &pool->custody.entries[i];

		if (ipam->fault == IPAM_FAULT_FORGET_SNAPSHOT && c->to != pool->self && !c->xid)
			continue;
		bytes += range_size(c);
		if (bytes > IPAM_REPORT_BYTES || m->range_count == IPAM_REPORT_RANGES) {
			m->more = true;
			return;
		}
		m->ranges[m->range_count++] = *c;
	}
}

/* Whoever waits for the victim waits for nobody now. */
static void reconsider(struct ipam *ipam)
{
	struct pool *pool, *next;

	HASH_ITER(hh, ipam->pools, pool, next)
	requests_reconsider(pool);
}

void on_claim(struct ipam *ipam, uint32_t from, const struct ipam_message *claim)
{
	struct ipam_message m = {.type = IPAM_MSG_PROMISE, .pool = claim->pool, .xid = claim->xid, .ask = claim->ask};
	struct decree *decree;

	if (claim->decree.heir != from) {
		ipam->counters.bad_messages++;
		return;
	}
	if (names_us(ipam, &claim->decree)) {
		be_forgotten(ipam, &claim->decree);
		return;
	}
	if (claim->decree.victim == ipam->config.hostno)
		return; /* our number, somebody else's identity */
	decree = decree_get(ipam, claim->decree.victim);
	if (may_promise(ipam, decree, claim)) {
		take_decree(ipam, decree, &claim->decree);
		reconsider(ipam);
	}
	m.cursor = claim->cursor;
	m.decree = decree->d;
	m.held = !has_promised(decree, claim);
	if (!m.held && claim->ask == IPAM_ASK_HOSTS)
		report_hosts(ipam, &m);
	else if (!m.held && claim->ask == IPAM_ASK_POOLS)
		report_pools(ipam, &m);
	else if (!m.held)
		report_ranges(ipam, pool_find(ipam, &claim->pool), &m);
	message_send(ipam, from, &m);
}

void ipam_decree_seen(struct ipam *ipam, const struct ipam_decree *d, uint64_t now_ms)
{
	if (ipam->forgotten)
		return;
	if (names_us(ipam, d))
		be_forgotten(ipam, d);
	else if (d->done && d->victim != ipam->config.hostno)
		decree_adopt(ipam, d, now_ms);
}

/* --- restore --- */

int decree_restore(struct ipam *ipam, uint32_t victim, const void *val, size_t len, struct err *err)
{
	struct ipam_decree d;
	struct decree *decree;
	bool gone;

	if (saved_decree_decode(&d, &gone, victim, val, len, err) < 0)
		return -1;
	decree = decree_get(ipam, victim);
	decree->d = d;
	decree->gone = gone;
	if (!gone && names_us(ipam, &d))
		ipam->forgotten = true;
	return 0;
}

void decrees_start(struct ipam *ipam, uint64_t now_ms)
{
	struct decree *decree, *next;

	decrees_apply(ipam);
	decrees_settle(ipam);
	HASH_ITER(hh, ipam->decrees, decree, next)
	{
		if (decree->gone)
			continue;
		if (names_us(ipam, &decree->d)) {
			ops_decree(ipam, &decree->d);
		} else if (decree->d.heir == ipam->config.hostno || decree->d.done) {
			if (!decree->d.done)
				claim_begin(ipam, decree, now_ms);
			ops_decree(ipam, &decree->d);
		}
	}
}

void decrees_fini(struct ipam *ipam)
{
	struct decree *decree, *next;

	HASH_ITER(hh, ipam->decrees, decree, next)
	{
		HASH_DEL(ipam->decrees, decree);
		claim_free(decree->claim);
		free(decree);
	}
}

/* --- for the shell --- */

bool ipam_decree_get(const struct ipam *ipam, uint32_t victim, struct ipam_decree *ret_decree)
{
	const struct decree *decree = decree_find(ipam, victim);

	if (!decree || decree->gone)
		return false;
	*ret_decree = decree->d;
	return true;
}

void ipam_each_decree(const struct ipam *ipam, void (*fn)(void *ctx, const struct ipam_decree *decree), void *ctx)
{
	const struct decree *decree, *next;

	HASH_ITER(hh, ipam->decrees, decree, next)
	if (!decree->gone)
		fn(ctx, &decree->d);
}

bool ipam_is_forgotten(const struct ipam *ipam)
{
	return ipam->forgotten;
}

/* The heir of a forgotten host: asks every other host for its promise and its reports, then takes the estate pool by pool.
 *
 * Each host is asked for the hosts it knows, the pools it knows, and its ranges of each pool, page by page; a page counts when it
 * is the one that was asked for. Reports may be of different moments: all lie behind the promise, and each address is on its own.
 * Hosts and pools that others name are added to what has to be asked. Only the promises are on disk: after a restart the reports
 * are collected again, and what was taken before is then ours by the newest fact.
 *
 * A range is taken at a reign above that of everything that any copy of an old gift can name. */
#include "ipam/ipam_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

struct heard { /* a pool that somebody knows, with the newest facts of all who reported */
	struct id128 id;
	struct custody_map top;
	bool taken;
	UT_hash_handle hh;
};

struct witness { /* a host that must promise */
	uint32_t hostno;
	bool promised, told_hosts, told_pools;
	struct id128 *told; /* pools of which it reported all */
	size_t told_count, told_capacity;
	/* the page that we wait for */
	enum ipam_ask ask;
	struct id128 pool;
	u128 cursor;
	uint64_t next_ms;
	uint32_t backoff_ms;
	UT_hash_handle hh;
};

struct rival { /* another heir that somebody has promised to */
	uint32_t hostno, number;
};

struct claim {
	struct witness *witnesses;
	struct heard *pools;
	struct rival rivals[IPAM_OVER_MAX];
	unsigned rival_count;
	bool contradicted; /* two hosts name different holders for one version: nothing is taken */
	uint64_t relist_ms;
};

static void witness_free(struct claim *claim, struct witness *w)
{
	HASH_DEL(claim->witnesses, w);
	free(w->told);
	free(w);
}

void claim_free(struct claim *claim)
{
	struct witness *w, *next;
	struct heard *heard, *next_heard;

	if (!claim)
		return;
	HASH_ITER(hh, claim->witnesses, w, next)
	witness_free(claim, w);
	HASH_ITER(hh, claim->pools, heard, next_heard)
	{
		HASH_DEL(claim->pools, heard);
		custody_fini(&heard->top);
		free(heard);
	}
	free(claim);
}

static struct witness *witness_find(const struct claim *claim, uint32_t hostno)
{
	struct witness *w;

	HASH_FIND(hh, claim->witnesses, &hostno, sizeof(hostno), w);
	return w;
}

static struct heard *heard_get(struct claim *claim, const struct id128 *id)
{
	struct heard *heard;

	HASH_FIND(hh, claim->pools, id, sizeof(*id), heard);
	if (heard)
		return heard;
	heard = alloc_new(struct heard);
	heard->id = *id;
	HASH_ADD(hh, claim->pools, id, sizeof(heard->id), heard);
	return heard;
}

static bool is_needed(const struct ipam *ipam, const struct decree *decree, const struct peer *peer)
{
	if (ipam->fault == IPAM_FAULT_FORGET_SILENT && peer->hostno == 3)
		return false;
	return !peer->left && !peer->buried && !decree_names(&decree->d, peer->hostno);
}

/* Who has to be asked is looked at anew each time: hosts come to be known, leave, or are forgotten themselves. */
static void refresh(struct ipam *ipam, struct decree *decree)
{
	struct claim *claim = decree->claim;
	struct witness *w, *next_witness;
	struct peer *peer, *next;
	struct pool *pool, *next_pool;

	HASH_ITER(hh, claim->witnesses, w, next_witness)
	{
		peer = peer_find(ipam, w->hostno);
		if (!peer || !is_needed(ipam, decree, peer))
			witness_free(claim, w);
	}
	HASH_ITER(hh, ipam->peers, peer, next)
	{
		if (!is_needed(ipam, decree, peer) || witness_find(claim, peer->hostno))
			continue;
		w = alloc_new(struct witness);
		w->hostno = peer->hostno;
		w->ask = IPAM_ASK_HOSTS;
		w->backoff_ms = IPAM_CLAIM_RETRY_MS;
		HASH_ADD(hh, claim->witnesses, hostno, sizeof(w->hostno), w);
	}
	HASH_ITER(hh, ipam->pools, pool, next_pool)
	if (pool->known)
		heard_get(claim, &pool->id);
}

static bool has_told(const struct witness *w, const struct id128 *pool)
{
	for (size_t i = 0; i < w->told_count; i++)
		if (id_equal(&w->told[i], pool))
			return true;
	return false;
}

static void mark_told(struct witness *w)
{
	if (w->told_count == w->told_capacity) {
		w->told_capacity = w->told_capacity ? 2 * w->told_capacity : 4;
		w->told = alloc_resize(w->told, struct id128, w->told_capacity);
	}
	w->told[w->told_count++] = w->pool;
}

/* What they told of it is forgotten: should we come to know the pool after all, all have to tell it again. */
static void unmark_told(struct claim *claim, const struct id128 *pool)
{
	struct witness *w, *next;

	HASH_ITER(hh, claim->witnesses, w, next)
	{
		for (size_t i = 0; i < w->told_count; i++)
			if (id_equal(&w->told[i], pool))
				w->told[i--] = w->told[--w->told_count];
		if (w->ask == IPAM_ASK_RANGES && id_equal(&w->pool, pool))
			w->ask = 0; /* a page behind the first would be taken for all */
	}
}

/* The next thing to ask it for; false when it has told all. */
static bool next_question(struct claim *claim, struct witness *w)
{
	struct heard *heard, *next;

	if (w->ask)
		return true;
	w->cursor = 0;
	if (!w->told_hosts) {
		w->ask = IPAM_ASK_HOSTS;
	} else if (!w->told_pools) {
		w->ask = IPAM_ASK_POOLS;
	} else {
		HASH_ITER(hh, claim->pools, heard, next)
		{
			if (has_told(w, &heard->id))
				continue;
			w->ask = IPAM_ASK_RANGES;
			w->pool = heard->id;
			break;
		}
	}
	return w->ask;
}

static void add_over(const struct claim *claim, struct ipam_message *m)
{
	for (unsigned i = 0; i < claim->rival_count; i++) {
		const struct witness *w = witness_find(claim, claim->rivals[i].hostno);

		if (w && w->promised)
			m->over[m->over_count++] = (struct ipam_over){claim->rivals[i].hostno, claim->rivals[i].number};
	}
}

static void ask(struct ipam *ipam, const struct decree *decree, struct witness *w, uint64_t now_ms)
{
	struct ipam_message m = {
		.type = IPAM_MSG_CLAIM, .xid = decree->d.number, .decree = decree->d, .ask = w->ask, .cursor = w->cursor};

	if (w->ask == IPAM_ASK_RANGES)
		m.pool = w->pool;
	add_over(decree->claim, &m);
	w->next_ms = now_ms + w->backoff_ms;
	if (w->backoff_ms < IPAM_CLAIM_RETRY_MAX_MS)
		w->backoff_ms *= 2;
	message_send(ipam, w->hostno, &m);
}

/* --- taking --- */

static void take_piece(struct ipam *ipam, struct pool *pool, const struct custody *piece, uint32_t others, struct custody *last)
{
	if (last->len)
		pool_put_custody(ipam, pool, last, false);
	*last = *piece;
	last->to = ipam->config.hostno;
	last->reign = (piece->reign > others ? piece->reign : others) + 1;
	last->xid = 0;
}

/* The victim may itself have been an heir, of which nobody else has a fact: what still names that earlier victim is its, too. */
static bool is_victims(const struct ipam *ipam, const struct decree *decree, uint32_t to)
{
	for (unsigned hops = 0; hops < IPAM_HEIRS_MAX && to != decree->victim; hops++) {
		const struct decree *earlier = decree_find(ipam, to);

		if (!earlier || earlier->gone || !(earlier->d.done || decree_names(&decree->d, to)))
			return false;
		to = earlier->d.heir;
	}
	return to == decree->victim;
}

/* An address moved at most so often by estates that we have no fact of: all of them asked for our promise, or their decrees are
 * records that we have seen. */
static uint32_t count_other_decrees(const struct ipam *ipam, const struct decree *decree)
{
	const struct decree *other, *next;
	uint32_t count = 0;

	HASH_ITER(hh, ipam->decrees, other, next)
	count += other != decree && !other->gone;
	return count;
}

static bool is_host_number(const struct ipam *ipam, const struct pool *pool, u128 offset)
{
	return pool->def.host_numbers &&
	       (offset == ipam->config.hostno || (offset <= UINT32_MAX && peer_find(ipam, (uint32_t)offset)));
}

/* Cuts the piece before the next number that some host has; false when it begins with one. */
static bool without_host_numbers(const struct ipam *ipam, const struct pool *pool, struct custody *piece)
{
	const struct peer *peer, *next;
	u128 own = ipam->config.hostno;

	if (!pool->def.host_numbers)
		return true;
	if (is_host_number(ipam, pool, piece->start)) {
		piece->len = 1;
		return false;
	}
	if (own > piece->start && own - piece->start < piece->len)
		piece->len = own - piece->start;
	HASH_ITER(hh, ipam->peers, peer, next)
	if (peer->hostno > piece->start && peer->hostno - piece->start < piece->len)
		piece->len = peer->hostno - piece->start;
	return true;
}

/* Nobody reported a fact of the piece, which begins in some host's slice: whether that is the victim's. Cut to one slice, or
 * before the next slice of the victim's. */
static bool is_victims_slice(const struct ipam *ipam, const struct decree *decree, const struct pool *pool, struct custody *piece)
{
	u128 end = piece->start + piece->len, start, len;
	bool mine = is_victims(ipam, decree, slice_host(pool, piece->start));
	const struct decree *other, *next;

	HASH_ITER(hh, ipam->decrees, other, next)
	{
		if (!slice_of(pool, other->victim, &start, &len) || !is_victims(ipam, decree, other->victim))
			continue;
		if (start > piece->start && start < end)
			end = start;
		if (mine && start <= piece->start && piece->start < start + len && start + len < end)
			end = start + len;
	}
	piece->len = end - piece->start;
	return mine;
}

/* What is the victim's by the newest fact, and what nobody but the victim ever had. The last save is the durable one. */
static void take_ranges(struct ipam *ipam, const struct decree *decree, struct pool *pool, const struct custody_map *top)
{
	bool snapshot = ipam->fault == IPAM_FAULT_FORGET_SNAPSHOT;
	u128 end = pool->first + pool->usable, slices = first_slice(pool);
	uint32_t others = count_other_decrees(ipam, decree);
	struct custody last = {0};
	bool mine;

	for (u128 at = pool->first; at < end;) {
		size_t i = custody_index(top, at);
		const struct custody *c = i < top->count && top->entries[i].start < end ? &top->entries[i] : NULL;
		bool known = c && c->start <= at;
		struct custody piece = {.start = at};
		u128 stop = known ? c->start + c->len : c ? c->start : end;

		if (known) {
			piece.reign = c->reign;
			piece.version = c->version;
		}
		if (at < slices && stop > slices)
			stop = slices;
		piece.len = (stop < end ? stop : end) - at;
		if (known)
			mine = is_victims(ipam, decree, c->to) && !snapshot;
		else
			mine = at < slices || is_victims_slice(ipam, decree, pool, &piece);
		mine &= without_host_numbers(ipam, pool, &piece);
		at += piece.len;
		if (mine)
			take_piece(ipam, pool, &piece, others, &last);
	}
	if (last.len)
		pool_put_custody(ipam, pool, &last, true);
}

static void take_pool(struct ipam *ipam, struct decree *decree, struct heard *heard, struct pool *pool)
{
	struct custody_map top = {0};

	for (size_t i = 0; i < heard->top.count; i++)
		custody_put(&top, &heard->top.entries[i], false, NULL, NULL);
	for (size_t i = 0; i < pool->custody.count; i++) {
		struct custody own = pool->custody.entries[i];

		own.xid = 0;
		if (ipam->fault == IPAM_FAULT_FORGET_SNAPSHOT && own.to != pool->self && !pool->custody.entries[i].xid)
			continue;
		if (custody_overlay(&top, &own) < 0)
			decree->claim->contradicted = true;
	}
	if (!decree->claim->contradicted) {
		take_ranges(ipam, decree, pool, &top);
		heard->taken = true;
		pool_taken(ipam, pool);
	}
	custody_fini(&top);
}

static bool all_told(const struct claim *claim, const struct id128 *pool)
{
	struct witness *w, *next;

	HASH_ITER(hh, claim->witnesses, w, next)
	if (!w->told_hosts || !w->told_pools || (pool && !has_told(w, pool)))
		return false;
	return true;
}

static void finish(struct ipam *ipam, struct decree *decree)
{
	struct witness *w, *next;

	decree->d.done = true;
	decree_save(ipam, decree, true);
	decrees_apply(ipam);
	decrees_settle(ipam);
	HASH_ITER(hh, decree->claim->witnesses, w, next)
	tell_decree(ipam, w->hostno, &decree->d);
	claim_free(decree->claim);
	decree->claim = NULL;
	ops_decree(ipam, &decree->d);
}

/* Takes what has been reported by all. Done when nothing is left, and nobody speaks of a pool that we do not know. */
static void take_ready(struct ipam *ipam, struct decree *decree)
{
	struct claim *claim = decree->claim;
	struct heard *heard, *next;
	bool all = true;

	HASH_ITER(hh, claim->pools, heard, next)
	{
		struct pool *pool = pool_find(ipam, &heard->id);

		if (!heard->taken && pool && pool->known && all_told(claim, &heard->id))
			take_pool(ipam, decree, heard, pool);
		all &= heard->taken;
	}
	if (all && all_told(claim, NULL))
		finish(ipam, decree);
}

/* --- asking --- */

/* Pools that only others know: their records are on the way here, or they have been dropped since. */
static void relist(struct ipam *ipam, struct claim *claim)
{
	struct heard *heard, *next;
	struct witness *w, *next_witness;
	bool strange = false;

	HASH_ITER(hh, claim->pools, heard, next)
	{
		const struct pool *pool = pool_find(ipam, &heard->id);

		if (heard->taken || (pool && pool->known))
			continue;
		strange = true;
		unmark_told(claim, &heard->id);
		HASH_DEL(claim->pools, heard);
		custody_fini(&heard->top);
		free(heard);
	}
	HASH_ITER(hh, claim->witnesses, w, next_witness)
	if (strange)
		w->told_pools = false;
}

static uint64_t claim_tick(struct ipam *ipam, struct decree *decree, uint64_t now_ms)
{
	struct claim *claim = decree->claim;
	struct witness *w, *next;
	uint64_t due;

	if (ipam->hold)
		return IPAM_NEVER;
	refresh(ipam, decree);
	if (now_ms >= claim->relist_ms) {
		relist(ipam, claim);
		claim->relist_ms = now_ms + IPAM_CLAIM_RETRY_MAX_MS;
	}
	due = claim->relist_ms;
	HASH_ITER(hh, claim->witnesses, w, next)
	{
		if (!next_question(claim, w) || peer_life(ipam, w->hostno) == PEER_DEAD)
			continue;
		if (w->next_ms <= now_ms)
			ask(ipam, decree, w, now_ms);
		if (w->next_ms < due)
			due = w->next_ms;
	}
	take_ready(ipam, decree);
	return decree->claim ? due : IPAM_NEVER;
}

uint64_t heir_claims_tick(struct ipam *ipam, uint64_t now_ms)
{
	struct decree *decree, *next;
	uint64_t due = IPAM_NEVER, one;

	HASH_ITER(hh, ipam->decrees, decree, next)
	{
		one = decree->claim ? claim_tick(ipam, decree, now_ms) : IPAM_NEVER;
		if (one < due)
			due = one;
	}
	return due;
}

void claim_hurry(struct ipam *ipam, uint32_t hostno, uint64_t now_ms)
{
	struct decree *decree, *next;

	HASH_ITER(hh, ipam->decrees, decree, next)
	{
		struct witness *w = decree->claim ? witness_find(decree->claim, hostno) : NULL;

		if (!w)
			continue;
		w->next_ms = now_ms;
		w->backoff_ms = IPAM_CLAIM_RETRY_MS;
	}
}

void claim_begin(struct ipam *ipam, struct decree *decree, uint64_t now_ms)
{
	claim_free(decree->claim);
	decree->claim = alloc_new(struct claim);
	decree->claim->relist_ms = now_ms + IPAM_CLAIM_RETRY_MAX_MS;
	if (ipam->fault == IPAM_FAULT_FORGET_NAIVE) {
		struct pool *pool, *next;

		HASH_ITER(hh, ipam->pools, pool, next)
		if (pool->known)
			take_pool(ipam, decree, heard_get(decree->claim, &pool->id), pool);
		finish(ipam, decree);
		return;
	}
	claim_tick(ipam, decree, now_ms);
}

/* --- answers --- */

/* Somebody has promised to another heir. Whoever has the lower id goes on above its number; the other waits to be asked to yield.
 */
static void on_held(struct ipam *ipam, struct decree *decree, const struct ipam_message *m, uint64_t now_ms)
{
	struct claim *claim = decree->claim;
	unsigned i = 0;

	if (m->decree.heir == ipam->config.hostno) { /* an attempt of ours that our disk has forgotten */
		if (m->decree.number <= decree->d.number)
			return; /* the answer to an old copy of a claim */
	} else if (id_compare(&ipam->config.host_id, &m->decree.heir_id) > 0) {
		return;
	}
	while (i < claim->rival_count && claim->rivals[i].hostno != m->decree.heir)
		i++;
	if (i < IPAM_OVER_MAX && m->decree.heir != ipam->config.hostno) {
		claim->rivals[i].hostno = m->decree.heir;
		if (claim->rivals[i].number < m->decree.number)
			claim->rivals[i].number = m->decree.number;
		claim->rival_count += i == claim->rival_count;
	}
	if (m->decree.number >= decree->d.number && m->decree.number < UINT32_MAX) {
		struct rival kept[IPAM_OVER_MAX];
		unsigned count = claim->rival_count;

		memcpy(kept, claim->rivals, sizeof(kept));
		decree->d.number = m->decree.number + 1;
		decree_save(ipam, decree, true);
		claim_begin(ipam, decree, now_ms); /* promises under the old number do not count for the new one */
		if (!decree->claim)
			return;
		memcpy(decree->claim->rivals, kept, sizeof(kept));
		decree->claim->rival_count = count;
		ops_decree(ipam, &decree->d);
	}
}

/* A host that still counts somebody as a member whom we know to be gone could take a late gift of that one: it is asked again. */
static bool take_hosts(struct ipam *ipam, struct decree *decree, struct witness *w, const struct ipam_message *m)
{
	bool behind = false;

	for (unsigned i = 0; i < m->host_count; i++) {
		const struct peer *peer = peer_find(ipam, m->hosts[i]);
		const struct decree *other = decree_find(ipam, m->hosts[i]);

		if (m->hosts[i] == ipam->config.hostno || decree_names(&decree->d, m->hosts[i]))
			continue;
		if (!peer)
			peer_get(ipam, m->hosts[i]);
		else
			behind |= peer->left || peer->buried;
		if (peer && peer->buried && other && !other->gone)
			tell_decree(ipam, w->hostno, &other->d);
	}
	return !behind;
}

static void take_facts(struct claim *claim, const struct ipam_message *m)
{
	struct heard *heard = heard_get(claim, &m->pool);

	for (unsigned i = 0; i < m->range_count; i++) {
		struct custody fact = m->ranges[i];

		fact.xid = 0;
		if (custody_overlay(&heard->top, &fact) < 0)
			claim->contradicted = true;
	}
}

static u128 id_number(const struct id128 *id)
{
	u128 number = 0;

	for (unsigned i = 0; i < sizeof(id->bytes); i++)
		number = number << 8 | id->bytes[i];
	return number;
}

static u128 last_item(const struct ipam_message *m)
{
	const struct custody *c;

	if (m->ask == IPAM_ASK_HOSTS)
		return m->hosts[m->host_count - 1];
	if (m->ask == IPAM_ASK_POOLS)
		return id_number(&m->pools[m->pool_count - 1]);
	c = &m->ranges[m->range_count - 1];
	return c->start + c->len;
}

static void take_page(struct ipam *ipam, struct decree *decree, struct witness *w, const struct ipam_message *m, uint64_t now_ms)
{
	bool good = true;

	if (m->ask == IPAM_ASK_HOSTS)
		good = take_hosts(ipam, decree, w, m);
	for (unsigned i = 0; m->ask == IPAM_ASK_POOLS && i < m->pool_count; i++)
		heard_get(decree->claim, &m->pools[i]);
	if (m->ask == IPAM_ASK_RANGES)
		take_facts(decree->claim, m);
	if (!good) {
		w->cursor = 0; /* and after a while: next_ms stands */
		return;
	}
	w->next_ms = now_ms;
	w->backoff_ms = IPAM_CLAIM_RETRY_MS;
	if (m->more) {
		w->cursor = last_item(m);
		return;
	}
	w->told_hosts |= m->ask == IPAM_ASK_HOSTS;
	w->told_pools |= m->ask == IPAM_ASK_POOLS;
	if (m->ask == IPAM_ASK_RANGES)
		mark_told(w);
	w->ask = 0;
}

static bool same_attempt(const struct ipam_decree *a, const struct ipam_decree *b)
{
	return a->heir == b->heir && a->number == b->number && id_equal(&a->victim_id, &b->victim_id);
}

void on_promise(struct ipam *ipam, uint32_t from, const struct ipam_message *m, uint64_t now_ms)
{
	struct decree *decree = decree_find(ipam, m->decree.victim);
	struct witness *w = decree && decree->claim ? witness_find(decree->claim, from) : NULL;

	if (!w)
		return;
	if (m->held && m->decree.done) {
		decree_adopt(ipam, &m->decree, now_ms);
	} else if (m->held) {
		on_held(ipam, decree, m, now_ms);
	} else if (same_attempt(&m->decree, &decree->d)) {
		w->promised = true;
		if (m->ask == w->ask && m->cursor == w->cursor && (w->ask != IPAM_ASK_RANGES || id_equal(&m->pool, &w->pool)))
			take_page(ipam, decree, w, m, now_ms);
		claim_tick(ipam, decree, now_ms);
	}
}

/* --- the operator's word --- */

static int by_number(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static int make_decree(const struct ipam *ipam, struct ipam_decree *d, const uint32_t *assumed, unsigned count, struct err *err)
{
	d->heir = ipam->config.hostno;
	d->heir_id = ipam->config.host_id;
	if (d->victim == d->heir)
		return err_set(err, ERR_INVALID,
			"a host cannot be its own heir: forget host number %u from another host, or `trestle leave`", d->victim);
	if (count > IPAM_ASSUMED_MAX)
		return err_set(err, ERR_TOO_BIG, "%u hosts are assumed fenced, at most %u can be", count, IPAM_ASSUMED_MAX);
	for (unsigned i = 0; i < count; i++) {
		if (assumed[i] == d->heir)
			return err_set(err, ERR_INVALID, "this host cannot be assumed fenced: it is the heir");
		if (assumed[i] && assumed[i] != d->victim)
			d->assumed[d->assumed_count++] = assumed[i];
	}
	qsort(d->assumed, d->assumed_count, sizeof(*d->assumed), by_number);
	count = d->assumed_count;
	d->assumed_count = 0;
	for (unsigned i = 0; i < count; i++)
		if (i == 0 || d->assumed[i] != d->assumed[d->assumed_count - 1])
			d->assumed[d->assumed_count++] = d->assumed[i];
	return 0;
}

/* Our own promise is one like any other's. */
static bool is_free(const struct ipam *ipam, const struct decree *held, const struct ipam_decree *d)
{
	const struct peer *heir;

	if (!held || held->gone || held->d.heir == d->heir || decree_names(d, held->d.heir))
		return true;
	heir = peer_find(ipam, held->d.heir);
	return heir && (heir->left || heir->buried);
}

static bool same_assumed(const struct ipam_decree *a, const struct ipam_decree *b)
{
	return a->assumed_count == b->assumed_count && !memcmp(a->assumed, b->assumed, a->assumed_count * sizeof(*a->assumed));
}

int ipam_forget(struct ipam *ipam, uint32_t victim, const struct id128 *victim_id, bool fenced, const uint32_t *assumed,
	unsigned assumed_count, uint64_t now_ms, struct err *err)
{
	struct ipam_decree d = {.victim = victim, .victim_id = *victim_id, .number = 1};
	struct decree *decree = decree_find(ipam, victim);
	const struct peer *peer = peer_find(ipam, victim);

	if (make_decree(ipam, &d, assumed, assumed_count, err) < 0)
		return -1;
	if (ipam->forgotten)
		return err_set(err, ERR_DENIED, "this host has itself been forgotten by its cluster");
	if (ipam->hold)
		return err_set(err, ERR_CONFLICT,
			"this host does not know whether its own state is the latest, and can be nobody's heir: ask another "
			"host, or "
			"again when `trestle status` has no warning of that");
	if (decree && !decree->gone && decree->d.done)
		return 0;
	if (!fenced && !(peer && peer->left))
		return err_set(err, ERR_INVALID,
			"host number %u is not known to be stopped: addresses that it still uses would be given twice; say that "
			"it is "
			"powered off or wiped (fenced)",
			victim);
	if (!is_free(ipam, decree, &d))
		return err_set(err, ERR_CONFLICT,
			"the estate of host number %u is promised to host number %u, which collects it: ask that host, or assume "
			"it fenced too",
			victim, decree->d.heir);
	if (decree && decree->claim && same_assumed(&decree->d, &d))
		return 0;
	if (decree && !decree->gone)
		d.number = decree->d.number + 1;
	decree = decree_get(ipam, victim);
	decree->d = d;
	decree->gone = false;
	note_goodbyes(ipam);
	decree_save(ipam, decree, true);
	decrees_apply(ipam);
	ops_decree(ipam, &d);
	claim_begin(ipam, decree, now_ms);
	return 0;
}

void ipam_each_awaited(const struct ipam *ipam, uint32_t victim, void (*fn)(void *ctx, uint32_t hostno), void *ctx)
{
	const struct decree *decree = decree_find(ipam, victim);
	struct witness *w, *next;
	struct heard *heard, *next_heard;

	if (!decree || !decree->claim)
		return;
	HASH_ITER(hh, decree->claim->witnesses, w, next)
	{
		bool told = w->told_hosts && w->told_pools;

		HASH_ITER(hh, decree->claim->pools, heard, next_heard)
		told &= has_told(w, &heard->id);
		if (!told)
			fn(ctx, w->hostno);
	}
}

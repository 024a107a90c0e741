/* Custody of addresses: pools, restore, timers and the public functions. The parts: ipam_internal.h. The bytes: docs/ipam.md.
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

void *xcalloc(size_t count, size_t size)
{
	void *got = calloc(count, size);

	if (!got) {
		fprintf(stderr, "ipam: out of memory for %zu bytes\n", count * size);
		abort(); /* saved state is complete at every moment: starting again is the clean way out */
	}
	return got;
}

void *xrealloc(void *old, size_t size)
{
	void *got = realloc(old, size);

	if (!got) {
		fprintf(stderr, "ipam: out of memory for %zu bytes\n", size);
		abort();
	}
	return got;
}

struct ipam *ipam_new(const struct ipam_config *config, const struct ipam_ops *ops, void *ctx)
{
	struct ipam *ipam = xcalloc(1, sizeof(*ipam));

	ipam->config = *config;
	ipam->ops = *ops;
	ipam->ctx = ctx;
	ops->random(
		ctx, &ipam->last_xid, sizeof(ipam->last_xid)); /* transfers of an earlier life keep their numbers to themselves */
	return ipam;
}

static void requests_fini(struct pool *pool)
{
	struct request *r, *next;

	DL_FOREACH_SAFE(pool->requests, r, next)
	request_free(r);
	pool->requests = NULL;
	pool->request_count = 0;
}

static void pool_free_all(struct ipam *ipam, struct pool *pool)
{
	HASH_DEL(ipam->pools, pool);
	requests_fini(pool);
	offers_fini(pool);
	slots_fini(pool);
	views_fini(pool);
	custody_fini(&pool->custody);
	for (unsigned i = 0; i < pool->published_count; i++)
		free(pool->published[i]);
	free(pool->published);
	free(pool->recent);
	free(pool->restored);
	free(pool);
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

struct pool *pool_find(const struct ipam *ipam, const struct id128 *id)
{
	struct pool *pool;

	HASH_FIND(hh, ipam->pools, id, sizeof(*id), pool);
	return pool;
}

static struct pool *pool_known(const struct ipam *ipam, const struct id128 *id)
{
	struct pool *pool = pool_find(ipam, id);

	return pool && pool->known ? pool : NULL;
}

/* NULL at the limit. */
static struct pool *pool_get(struct ipam *ipam, const struct id128 *id)
{
	struct pool *pool = pool_find(ipam, id);

	if (pool || HASH_COUNT(ipam->pools) >= IPAM_POOLS_MAX)
		return pool;
	pool = xcalloc(1, sizeof(*pool));
	pool->id = *id;
	pool->self = ipam->config.hostno;
	HASH_ADD(hh, ipam->pools, id, sizeof(pool->id), pool);
	return pool;
}

static void pool_free_if_empty(struct ipam *ipam, struct pool *pool)
{
	if (!pool->known && !pool->views && !pool->custody.count && !pool->slots)
		pool_free_all(ipam, pool);
}

/* --- definition --- */

static int check_def(const struct ipam_pool_def *def, struct err *err)
{
	const struct prefix *p = &def->prefix;
	struct prefix masked;
	char text[PREFIX_TEXT_SIZE];

	if (p->ip.family != 4 && p->ip.family != 6)
		return err_set(err, ERR_INVALID, "address pool: has no prefix");
	if (p->length > ip_bits(&p->ip) || ip_bits(&p->ip) - p->length > 127)
		return err_set(err, ERR_INVALID,
			"address pool: a prefix length of %u does not fit IPv%u (an IPv6 pool has at least /1)", p->length,
			p->ip.family);
	if (def->slice_bits && (def->slice_bits > IPAM_SLICE_BITS || def->slice_bits >= ip_bits(&p->ip) - p->length))
		return err_set(err, ERR_INVALID, "address pool: 2^%u slices do not fit a prefix of length %u", def->slice_bits,
			p->length);
	masked = prefix_masked(p);
	if (!prefix_equal(&masked, p))
		return err_set(err, ERR_INVALID, "address pool %s: has host bits; %s would be valid", prefix_format(p, text),
			"the network address");
	return 0;
}

/* IPv4: network and broadcast address, except in /31 (RFC 3021) and /32. IPv6: the subnet-router anycast address (RFC
 * 4291 2.6.1), except in /127 (RFC 6164) and /128. */
static void pool_set_size(struct pool *pool, const struct ipam_pool_def *def)
{
	unsigned host_bits = ip_bits(&def->prefix.ip) - def->prefix.length;
	bool edges = def->edges_reserved && host_bits >= 2;

	pool->def = *def;
	pool->base = ip_number(&def->prefix.ip);
	pool->size = (u128)1 << host_bits;
	pool->first = edges;
	pool->usable = pool->size - (edges ? (def->prefix.ip.family == 4 ? 2 : 1) : 0);
}

static void pool_define(struct ipam *ipam, struct pool *pool, const struct ipam_pool_def *def)
{
	pool_set_size(pool, def);
	pool->cursor = (struct cursor){pool->first, pool->usable, pool->first};
	pool->known = true;
	pool->dirty = true;
	slice_fill(ipam, pool);
}

static bool same_def(const struct ipam_pool_def *a, const struct ipam_pool_def *b)
{
	return prefix_equal(&a->prefix, &b->prefix) && a->edges_reserved == b->edges_reserved && a->slice_bits == b->slice_bits;
}

static void pool_save(struct ipam *ipam, const struct pool *pool, bool durable)
{
	struct saved_pool saved = {
		.prefix = pool->def.prefix,
		.edges_reserved = pool->def.edges_reserved,
		.host_numbers = pool->def.host_numbers,
		.wanted = pool->wanted,
		.spares = pool->spares,
		.slice_bits = pool->def.slice_bits,
	};
	uint8_t key[IPAM_KEY_MAX], value[IPAM_VALUE_MAX];
	size_t key_len = ipam_key_encode(key, IPAM_SAVED_POOL, &pool->id, 0);

	ipam->ops.save(ipam->ctx, key, key_len, value, saved_pool_encode(&saved, value), durable);
}

/* --- custody, saved --- */

struct saver {
	struct ipam *ipam;
	const struct pool *pool;
};

void custody_saver(void *ctx, const struct custody *entry, bool durable)
{
	struct saver *saver = ctx;
	uint8_t key[IPAM_KEY_MAX], value[IPAM_VALUE_MAX];
	size_t key_len = ipam_key_encode(key, IPAM_SAVED_CUSTODY, &saver->pool->id, entry->start);

	if (entry->len)
		saver->ipam->ops.save(saver->ipam->ctx, key, key_len, value, saved_custody_encode(entry, value), durable);
	else
		saver->ipam->ops.save(saver->ipam->ctx, key, key_len, NULL, 0, durable);
}

void pool_put_custody(struct ipam *ipam, struct pool *pool, const struct custody *entry, bool durable)
{
	struct saver saver = {ipam, pool};

	custody_put(&pool->custody, entry, durable, custody_saver, &saver);
}

void pool_after_change(struct ipam *ipam, struct pool *pool, uint64_t now_ms)
{
	if (!pool->known || !ipam->started)
		return;
	publish(ipam, pool);
	fetch_tick(ipam, pool, now_ms);
	handback_tick(ipam, pool, now_ms);
}

/* Where the map says that something is ours to take or has arrived. */
static void pool_use_view(struct ipam *ipam, struct pool *pool, const struct view *view)
{
	if (ipam->hold != IPAM_HOLD_FOR_GOOD && ipam->fault != IPAM_FAULT_NO_HOLD && view_contradicts(pool, view)) {
		ipam->hold = IPAM_HOLD_FOR_GOOD;
		if (ipam->ops.set_back)
			ipam->ops.set_back(ipam->ctx, view->hostno);
	}
	settle_by_view(ipam, pool, view);
	accept_offers_of(ipam, pool, view);
}

static void pool_use_views(struct ipam *ipam, struct pool *pool)
{
	struct view *view, *next;

	HASH_ITER(hh, pool->views, view, next)
	pool_use_view(ipam, pool, view);
}

/* --- restore --- */

static void restored_add(struct pool *pool, const struct custody *entry)
{
	if (pool->restored_count == pool->restored_capacity) {
		pool->restored_capacity = pool->restored_capacity ? 2 * pool->restored_capacity : 4;
		pool->restored = xrealloc(pool->restored, pool->restored_capacity * sizeof(*pool->restored));
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
	if (check_def(&def, NULL) < 0)
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
	struct saver saver = {ipam, pool};

	qsort(pool->restored, pool->restored_count, pool->restored ? sizeof(*pool->restored) : 1, by_start);
	for (int changed = 0; changed < 2; changed++) {
		for (size_t i = 0; i < pool->custody.count; i++) {
			const struct custody *old = restored_find(pool, pool->custody.entries[i].start);

			if (!!old == changed && (!old || !same_entry(old, &pool->custody.entries[i])))
				custody_saver(&saver, &pool->custody.entries[i], false);
		}
	}
	for (size_t i = 0; i < pool->restored_count; i++) {
		const struct custody *now = custody_at(&pool->custody, pool->restored[i].start);
		struct custody gone = {.start = pool->restored[i].start};

		if (!now || now->start != gone.start)
			custody_saver(&saver, &gone, false);
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
		struct saver saver = {ipam, pool};

		if (!pool->custody.count)
			continue;
		custody_saver(&saver, &pool->custody.entries[0], true);
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

/* --- pools --- */

static int refuse_other_def(const struct pool *pool, const struct ipam_pool_def *def, struct err *err)
{
	char id[ID_TEXT_SIZE], here[PREFIX_TEXT_SIZE], there[PREFIX_TEXT_SIZE];

	return err_set(err, ERR_CONFLICT, "address pool %s: is %s with edges %s here, and was asked for as %s with edges %s",
		id_format(&def->id, id), prefix_format(&pool->def.prefix, here), pool->def.edges_reserved ? "reserved" : "usable",
		prefix_format(&def->prefix, there), def->edges_reserved ? "reserved" : "usable");
}

static struct pool *pool_get_def(struct ipam *ipam, const struct ipam_pool_def *def, struct err *err)
{
	struct pool *pool;
	char text[ID_TEXT_SIZE];

	if (check_def(def, err) < 0)
		return NULL;
	if (ipam->forgotten) {
		err_set(err, ERR_DENIED,
			"address pool %s: this host has been forgotten by its cluster and can hold no addresses; it has to join "
			"again",
			id_format(&def->id, text));
		return NULL;
	}
	pool = pool_get(ipam, &def->id);
	if (!pool) {
		err_set(err, ERR_EXHAUSTED, "address pool %s: this host knows %u pools already, the most it can",
			id_format(&def->id, text), IPAM_POOLS_MAX);
		return NULL;
	}
	if (pool->known && !same_def(&pool->def, def)) {
		refuse_other_def(pool, def, err);
		return NULL;
	}
	return pool;
}

/* Whoever made the pool has a fact about every address of it that is in no slice, whatever it gave away since. */
static bool knows_all(const struct pool *pool, const struct ipam_pool_def *def)
{
	struct pool as_defined = {.self = pool->self};
	u128 at, end;

	pool_set_size(&as_defined, def);
	end = first_slice(&as_defined);
	for (at = as_defined.first; at < end;) {
		const struct custody *c = custody_at(&pool->custody, at);

		if (!c)
			return false;
		at = c->start + c->len;
	}
	return true;
}

int ipam_pool_create(struct ipam *ipam, const struct ipam_pool_def *def, uint64_t now_ms, struct err *err)
{
	struct pool *pool = pool_get_def(ipam, def, err);
	struct custody all = {.to = ipam->config.hostno};
	bool fresh = pool && !pool->known, made;
	char text[ID_TEXT_SIZE];

	if (!pool)
		return -1;
	if (pool->custody.count ? !knows_all(pool, def) : pool->views || pool->known)
		return err_set(err, ERR_EXISTS, "address pool %s: was made by another host; join it", id_format(&def->id, text));
	made = !pool->custody.count;
	if (fresh)
		pool_define(ipam, pool, def);
	if (made) {
		all.start = pool->first;
		all.len = first_slice(pool) - pool->first;
		/* First: the pool without its addresses would be a pool that has lost them. */
		pool_put_custody(ipam, pool, &all, false);
	}
	if (fresh) /* also when a crash or a drop left its custody alone */
		pool_save(ipam, pool, true);
	pool_recount(ipam, pool);
	pool_after_change(ipam, pool, now_ms);
	return 0;
}

int ipam_pool_join(struct ipam *ipam, const struct ipam_pool_def *def, uint64_t now_ms, struct err *err)
{
	struct pool *pool = pool_get_def(ipam, def, err);

	if (!pool)
		return -1;
	if (pool->known)
		return 0;
	pool_define(ipam, pool, def);
	custody_clip(&pool->custody, pool->first, pool->usable);
	pool_save(ipam, pool, false);
	pool_recount(ipam, pool);
	if (!ipam->started)
		return 0;
	pool_use_views(ipam, pool);
	pool_after_change(ipam, pool, now_ms);
	return 0;
}

void ipam_pool_want(struct ipam *ipam, const struct id128 *id, bool wanted, unsigned spares, uint64_t now_ms)
{
	struct pool *pool = pool_known(ipam, id);
	enum want_state state = wanted ? WANT_YES : WANT_NO;

	if (!pool || pool->retiring)
		return;
	if (pool->wanted != state || pool->spares != spares) {
		pool->wanted = state;
		pool->spares = spares;
		pool->dirty = true;
		pool_save(ipam, pool, false);
	}
	pool_after_change(ipam, pool, now_ms);
}

/* By offset: a full queue of resting addresses drops its oldest, which may be any other slot. */
static void end_leases(struct ipam *ipam, struct pool *pool, uint64_t now_ms)
{
	u128 *offsets = xcalloc((size_t)pool->leased + 1, sizeof(*offsets));
	const struct slot *leased, *next;
	size_t count = 0;

	HASH_ITER(hh, pool->slots, leased, next)
	if (leased->state == SLOT_LEASED)
		offsets[count++] = leased->offset;
	for (size_t i = 0; i < count; i++) {
		struct slot *slot = slot_find(pool, offsets[i]);

		if (slot->guest)
			slot_drop(ipam, pool, slot);
		else
			slot_rest(ipam, pool, slot, now_ms);
	}
	free(offsets);
}

void ipam_retire(struct ipam *ipam, uint64_t now_ms)
{
	struct pool *pool, *next;

	HASH_ITER(hh, ipam->pools, pool, next)
	{
		if (!pool->known)
			continue;
		if (!pool->def.host_numbers)
			end_leases(ipam, pool, now_ms);
		pool->retiring = true;
		pool->wanted = WANT_NO;
		pool->dirty = true;
		pool_after_change(ipam, pool, now_ms);
	}
}

bool ipam_has_retired(const struct ipam *ipam)
{
	const struct pool *pool, *next;

	HASH_ITER(hh, ipam->pools, pool, next)
	if (pool->known && pool->retiring && ipam->hold != IPAM_HOLD_FOR_GOOD && !handback_is_over(ipam, pool))
		return false;
	return true;
}

static void forget_leases(struct ipam *ipam, struct pool *pool)
{
	struct slot *slot, *next;

	HASH_ITER(hh, pool->slots, slot, next)
	slot_drop(ipam, pool, slot);
}

static void forget_custody(struct ipam *ipam, struct pool *pool)
{
	struct saver saver = {ipam, pool};

	for (size_t i = 0; i < pool->custody.count; i++) {
		struct custody gone = {.start = pool->custody.entries[i].start};

		custody_saver(&saver, &gone, false);
	}
	custody_fini(&pool->custody);
	pool->held = 0;
}

/* We have been forgotten. Callers are answered last: their answers may call back. */
void pools_wipe(struct ipam *ipam)
{
	struct request *waiting = NULL;
	struct pool *pool, *next;
	uint8_t key[IPAM_KEY_MAX];

	HASH_ITER(hh, ipam->pools, pool, next)
	{
		if (pool->known) {
			unpublish(ipam, pool);
			ipam->ops.save(ipam->ctx, key, ipam_key_encode(key, IPAM_SAVED_POOL, &pool->id, 0), NULL, 0, false);
		}
		forget_leases(ipam, pool);
		forget_custody(ipam, pool);
		DL_CONCAT(waiting, pool->requests);
		pool->requests = NULL;
		pool_free_all(ipam, pool);
	}
	requests_end(ipam, waiting, IPAM_UNKNOWN_POOL);
}

void pool_taken(struct ipam *ipam, struct pool *pool)
{
	pool_recount(ipam, pool);
	slots_check_custody(ipam, pool);
	prune_offers(pool);
	pool->dirty = true;
	publish(ipam, pool);
	requests_reconsider(pool);
}

static bool is_only_slice(const struct pool *pool)
{
	u128 start, len;

	return slice_of(pool, pool->self, &start, &len) && pool->custody.count == 1 && pool->custody.entries[0].start == start &&
	       pool->custody.entries[0].len == len;
}

/* A host that handed its addresses on keeps the memory of it: a late copy of an old GRANT, met without that memory after joining
 * again, would make a second holder. Only who holds all knows that no other range is on its way. */
int ipam_pool_drop(struct ipam *ipam, const struct id128 *id, struct err *err)
{
	struct pool *pool = pool_known(ipam, id);
	struct request *waiting;
	uint8_t key[IPAM_KEY_MAX];
	char text[ID_TEXT_SIZE];
	u128 held;
	bool all;

	if (!pool)
		return err_set(err, ERR_NOT_FOUND, "address pool %s: is not known here", id_format(id, text));
	held = slice_held_outside(pool); /* our slice stays ours, known or not */
	all = held == first_slice(pool) - pool->first;
	if (pool->offers || (held && !all))
		return err_set(err, ERR_CONFLICT,
			"address pool %s: this host holds a part of it (%llu addresses or more), which would be lost: let it "
			"hand them over first",
			id_format(id, text), (unsigned long long)(held > UINT64_MAX ? UINT64_MAX : (uint64_t)held));
	unpublish(ipam, pool); /* first: after a crash from here on, the caller still finds the pool and drops it again */
	forget_leases(ipam, pool);
	ipam->ops.save(ipam->ctx, key, ipam_key_encode(key, IPAM_SAVED_POOL, &pool->id, 0), NULL, 0, false);
	if (slice_untouched(pool) && (all || is_only_slice(pool)))
		forget_custody(ipam, pool);
	pool->held = 0;
	waiting = pool->requests;
	pool->requests = NULL;
	pool->request_count = 0;
	pool->known = false;
	pool->wanted = WANT_UNTOLD;
	pool->fetch = (struct fetch){0};
	pool_free_if_empty(ipam, pool);
	requests_end(ipam, waiting, IPAM_UNKNOWN_POOL);
	return 0;
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
	if (m.type == IPAM_MSG_DECREE) { /* from anybody: the heir's, and those who refuse us show it */
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
	struct id128 *ids = xcalloc(HASH_COUNT(ipam->pools) + 1, sizeof(*ids));
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
	if (!ipam->started || hold)
		return;
	HASH_ITER(hh, ipam->pools, pool, next)
	{
		if (!pool->known)
			continue;
		pool_use_views(ipam, pool);
		requests_reconsider(pool);
		pool_after_change(ipam, pool, now_ms);
	}
	run_due(ipam, now_ms);
}

void ipam_open_slices(struct ipam *ipam, uint64_t now_ms)
{
	struct pool *pool, *next;

	if (ipam->slices_open)
		return;
	ipam->slices_open = true;
	HASH_ITER(hh, ipam->pools, pool, next)
	{
		if (!pool->known)
			continue;
		slice_fill(ipam, pool);
		if (ipam->started)
			pool_taken(ipam, pool);
		if (ipam->started)
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

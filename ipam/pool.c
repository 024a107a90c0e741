/* A pool of this host: its definition, from create or join to drop or wipe, and what is saved and shown when its custody changes.
 *
 * A pool without definition is there too: chunks of others that came early, or custody facts of a dropped pool, which are kept as
 * the memory of what was given away (invariants I1 and I4 of ipam.c). Where order matters for a crash in between, it says so. */
#include "ipam/ipam_internal.h"

#include <stdlib.h>

#include "base/alloc.h"

static void requests_fini(struct pool *pool)
{
	struct request *r, *next;

	DL_FOREACH_SAFE(pool->requests, r, next)
	request_free(r);
	pool->requests = NULL;
	pool->request_count = 0;
}

void pool_free_all(struct ipam *ipam, struct pool *pool)
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

struct pool *pool_find(const struct ipam *ipam, const struct id128 *id)
{
	struct pool *pool;

	HASH_FIND(hh, ipam->pools, id, sizeof(*id), pool);
	return pool;
}

struct pool *pool_known(const struct ipam *ipam, const struct id128 *id)
{
	struct pool *pool = pool_find(ipam, id);

	return pool && pool->known ? pool : NULL;
}

struct pool *pool_get(struct ipam *ipam, const struct id128 *id)
{
	struct pool *pool = pool_find(ipam, id);

	if (pool || HASH_COUNT(ipam->pools) >= IPAM_POOLS_MAX)
		return pool;
	pool = alloc_new(struct pool);
	pool->id = *id;
	pool->self = ipam->config.hostno;
	HASH_ADD(hh, ipam->pools, id, sizeof(pool->id), pool);
	return pool;
}

void pool_free_if_empty(struct ipam *ipam, struct pool *pool)
{
	if (!pool->known && !pool->views && !pool->custody.count && !pool->slots)
		pool_free_all(ipam, pool);
}

/* --- definition --- */

int pool_check_def(const struct ipam_pool_def *def, struct err *err)
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

void pool_define(struct ipam *ipam, struct pool *pool, const struct ipam_pool_def *def)
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

void ipam_def_totals(const struct ipam_pool_def *def, struct ipam_totals *ret_totals)
{
	struct pool as_defined = {0};

	pool_set_size(&as_defined, def);
	*ret_totals = (struct ipam_totals){.size = as_defined.size, .reserved = as_defined.size - as_defined.usable};
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

void custody_save(struct ipam *ipam, const struct pool *pool, const struct custody *entry, bool durable)
{
	uint8_t key[IPAM_KEY_MAX], value[IPAM_VALUE_MAX];
	size_t key_len = ipam_key_encode(key, IPAM_SAVED_CUSTODY, &pool->id, entry->start);

	if (entry->len)
		ipam->ops.save(ipam->ctx, key, key_len, value, saved_custody_encode(entry, value), durable);
	else
		ipam->ops.save(ipam->ctx, key, key_len, NULL, 0, durable);
}

struct saver {
	struct ipam *ipam;
	const struct pool *pool;
};

static void save_changed(void *ctx, const struct custody *entry, bool durable)
{
	struct saver *saver = ctx;

	custody_save(saver->ipam, saver->pool, entry, durable);
}

void pool_put_custody(struct ipam *ipam, struct pool *pool, const struct custody *entry, bool durable)
{
	struct saver saver = {ipam, pool};

	custody_put(&pool->custody, entry, durable, save_changed, &saver);
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
void pool_use_view(struct ipam *ipam, struct pool *pool, const struct view *view)
{
	if (ipam->hold != IPAM_HOLD_FOR_GOOD && ipam->fault != IPAM_FAULT_NO_HOLD && view_contradicts(pool, view)) {
		ipam->hold = IPAM_HOLD_FOR_GOOD;
		if (ipam->ops.set_back)
			ipam->ops.set_back(ipam->ctx, view->hostno);
	}
	settle_by_view(ipam, pool, view);
	accept_offers_of(ipam, pool, view);
}

void pool_use_views(struct ipam *ipam, struct pool *pool)
{
	struct view *view, *next;

	HASH_ITER(hh, pool->views, view, next)
	pool_use_view(ipam, pool, view);
}

/* --- from create or join to drop --- */

static int refuse_other_def(const struct pool *pool, const struct ipam_pool_def *def, struct err *err)
{
	char id[ID_TEXT_SIZE], here[PREFIX_TEXT_SIZE], there[PREFIX_TEXT_SIZE];

	return err_set(err, ERR_CONFLICT, "address pool %s: is %s with edges %s here, and was asked for as %s with edges %s",
		id_format(&def->id, id), prefix_format(&pool->def.prefix, here), pool->def.edges_reserved ? "reserved" : "usable",
		prefix_format(&def->prefix, there), def->edges_reserved ? "reserved" : "usable");
}

static void forget_custody(struct ipam *ipam, struct pool *pool)
{
	for (size_t i = 0; i < pool->custody.count; i++) {
		struct custody gone = {.start = pool->custody.entries[i].start};

		custody_save(ipam, pool, &gone, false);
	}
	custody_fini(&pool->custody);
	pool->held = 0;
}

/* Nobody publishes a word about it, and nobody is away that might: the pool is gone, and no gift of it can come to where the
 * memory of it would be needed. */
static bool is_gone(const struct pool *pool)
{
	for (size_t i = 0; i < pool->custody.count; i++)
		if (pool->custody.entries[i].to == pool->self || pool->custody.entries[i].xid)
			return false;
	return !pool->known && !pool->views && !pool->slots;
}

static bool somebody_is_down(const struct ipam *ipam)
{
	const struct peer *peer, *next;

	HASH_ITER(hh, ipam->peers, peer, next)
	if (peer->life == PEER_DEAD && !peer->left && !peer->refused)
		return true;
	return false;
}

/* A host takes part in more pools in its life than it can know at once. Asked for by who makes or joins a pool only: what others
 * say has been heard then, and not while a start hears it one by one. False when all are needed, or might be: what a host that is
 * down has published is nowhere, once all others have started since. */
static bool make_room(struct ipam *ipam)
{
	struct pool *pool, *next;

	if (!ipam->started || somebody_is_down(ipam))
		return false;
	HASH_ITER(hh, ipam->pools, pool, next)
	{
		if (!is_gone(pool))
			continue;
		forget_custody(ipam, pool);
		pool_free_all(ipam, pool);
		return true;
	}
	return false;
}

static struct pool *pool_get_def(struct ipam *ipam, const struct ipam_pool_def *def, struct err *err)
{
	struct pool *pool;
	char text[ID_TEXT_SIZE];

	if (pool_check_def(def, err) < 0)
		return NULL;
	if (ipam->forgotten) {
		err_set(err, ERR_DENIED,
			"address pool %s: this host has been forgotten by its cluster and can hold no addresses; it has to join "
			"again",
			id_format(&def->id, text));
		return NULL;
	}
	pool = pool_get(ipam, &def->id);
	if (!pool && make_room(ipam))
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
	u128 *offsets = alloc_array(u128, (size_t)pool->leased + 1);
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

bool ipam_pool_is_whole(const struct ipam *ipam, const struct id128 *id)
{
	const struct pool *pool = pool_known(ipam, id);

	return pool && slice_held_outside(pool) == first_slice(pool) - pool->first;
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

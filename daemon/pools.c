/* Pools: ranges of addresses with one custody core behind them. The table, what of it is saved and published, and when a pool is
 * part of the core. How one comes to be: pool_obtain.c; what its leases are for: pool_leases.c; what engines ask: pool_calls.c.
 *
 * A pool is known by (space, prefix); made once in the cluster, after its home was asked, joined by every host that needs it.
 * Hosts that know a pool publish its definition, as with networks. Without references of engines or the operator the addresses
 * that this host holds go to hosts that want them, and a pool that this host holds alone is forgotten. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#include "daemon/pools_internal.h"

#define IDLE_MS 10000	     /* a cut is noticed in a few seconds */
#define IDLE_MAX 256	     /* pools that wait so; beyond, one goes at once */
#define SLICES_LENGTH_MAX 96 /* IPv6: 2,048 addresses for each host number without asking anybody */

static const char *const space_names[] = {"local", "global", "hostno"};

const char *pool_space_name(enum pool_space space)
{
	return space_names[space];
}

/* ---- lookup ---- */

struct pool *pool_by_id(struct node *node, const struct id128 *id)
{
	struct pool *p;
	HASH_FIND(hh, node->pools, id, sizeof(*id), p);
	return p;
}

bool pool_referenced(const struct pool *p)
{
	return p->state.ref_count || p->state.pinned;
}

bool pool_in_use(const struct pool *p)
{
	return pool_referenced(p) || p->wanted_elsewhere;
}

static unsigned use_of(const struct pool *p)
{
	return pool_referenced(p) ? 2 : p->wanted_elsewhere;
}

/* Of two pools with one prefix (made on the two sides of a cut, or one that nobody needs is still there): what is used here, then
 * what others use, then the lower id. */
struct pool *pools_find(struct node *node, enum pool_space space, const struct prefix *prefix)
{
	struct pool *p, *next, *best = NULL;

	HASH_ITER(hh, node->pools, p, next)
	{
		if (p->state.def.space != space || !prefix_equal(&p->state.def.prefix, prefix))
			continue;
		if (!best || use_of(p) > use_of(best) || (use_of(p) == use_of(best) && id_compare(&p->id, &best->id) < 0))
			best = p;
	}
	return best;
}

struct pool *pool_named(struct node *node, enum pool_space space, uint8_t family, const char *name)
{
	struct pool *p, *next;

	HASH_ITER(hh, node->pools, p, next)
	if (p->state.def.space == space && p->state.def.prefix.ip.family == family && strcmp(p->state.def.name, name) == 0 &&
		pool_in_use(p))
		return p;
	return NULL;
}

struct pool *pool_overlapping(struct node *node, enum pool_space space, const struct prefix *prefix)
{
	struct pool *p, *next;

	HASH_ITER(hh, node->pools, p, next)
	if (p->state.def.space == space && pool_in_use(p) && prefix_overlaps(&p->state.def.prefix, prefix))
		return p;
	return NULL;
}

/* ---- saving and publishing ---- */

static void publish_pool(struct node *node, struct pool *p)
{
	uint8_t buf[GOSSIP_VALUE_MAX];

	p->state.def.wanted = pool_referenced(p);
	p->published = p->joined;
	if (p->joined)
		definition_publish(node, RECORD_POOL, &p->id, buf, pool_def_encode(&p->state.def, buf, sizeof(buf)));
	else
		definition_publish(node, RECORD_POOL, &p->id, NULL, 0);
}

static void publish_saved(struct node *node, const struct id128 *id)
{
	struct pool *p = pool_by_id(node, id);

	if (p)
		publish_pool(node, p);
}

void pool_keep(struct node *node, struct pool *p)
{
	uint8_t buf[RECORD_MAX];

	p->state.def.wanted = pool_referenced(p);
	outbox_save(node->outbox, store_change_new(STORE_STATE, STORE_POOL, &p->id, sizeof(p->id), buf,
					  pool_state_encode(&p->state, buf, sizeof(buf)), true));
	call_behind_saves(node, &p->id, publish_saved);
	ipam_pool_want(node->ipam, &p->id, pool_referenced(p), 0, clock_boot_ms());
	custody_poke(node);
}

void pools_publish(struct node *node)
{
	struct pool *p, *next;

	HASH_ITER(hh, node->pools, p, next)
	{
		if (!p->joined)
			continue;
		publish_pool(node, p);
		ipam_pool_want(node->ipam, &p->id, pool_referenced(p), 0, clock_boot_ms());
		pool_reserve_again(node, p);
	}
}

struct pool *pool_add(struct node *node, const struct pool_def *def)
{
	struct pool *p = alloc_new(struct pool);

	p->id = def->id;
	p->state.def = *def;
	HASH_ADD(hh, node->pools, id, sizeof(p->id), p);
	return p;
}

void pool_claim_key(char *buf, size_t size, const struct pool_def *def, bool by_name)
{
	char prefix[PREFIX_TEXT_SIZE];

	if (by_name)
		snprintf(buf, size, "q:%s:%u:%s", space_names[def->space], def->prefix.ip.family, def->name);
	else
		snprintf(buf, size, "p:%s:%s", space_names[def->space], prefix_format(&def->prefix, prefix));
}

void pool_remove(struct node *node, struct pool *p)
{
	char key[128];

	for (int by_name = 0; by_name < 2; by_name++) {
		pool_claim_key(key, sizeof(key), &p->state.def, by_name);
		claims_forget(node, key, p->state.def.creator == node->cluster.hostno);
	}
	HASH_DEL(node->pools, p);
	free(p);
}

static struct ipam_pool_def core_def(const struct pool_def *def)
{
	bool edges = def->prefix.ip.family == 6 ? def->prefix.length < 127 : def->prefix.length <= 30;

	bool large = def->prefix.ip.family == 6 && def->prefix.length <= SLICES_LENGTH_MAX;

	return (struct ipam_pool_def){
		.id = def->id, .prefix = def->prefix, .edges_reserved = edges, .slice_bits = large ? IPAM_SLICE_BITS : 0};
}

void pool_totals(struct node *node, const struct pool *p, struct ipam_totals *ret_totals)
{
	struct ipam_pool_def def = core_def(&p->state.def);

	if (!ipam_pool_totals(node->ipam, &p->id, ret_totals))
		ipam_def_totals(&def, ret_totals);
}

/* Whether a host may be beginning to use the pool where we do not hear it: behind a cut, or this moment. */
static bool may_be_wanted(struct node *node, const struct pool *p, uint64_t now)
{
	unsigned silent;

	if (!node->gossip || !p->published)
		return false;
	silent = gossip_member_count(node->gossip, GOSSIP_SUSPECT) + gossip_member_count(node->gossip, GOSSIP_DEAD);
	if (gossip_member_count(node->gossip, GOSSIP_ALIVE) + silent <= 1)
		return false; /* nobody but us knows it */
	return silent || now < p->idle_ms + IDLE_MS || !gossip_in_step(node->gossip);
}

static unsigned count_idle(struct node *node)
{
	const struct pool *p, *next;
	unsigned count = 0;

	HASH_ITER(hh, node->pools, p, next)
	count += p->idle_ms != 0;
	return count;
}

static void end_idle(struct pool *p, unsigned *idle)
{
	*idle -= p->idle_ms != 0;
	p->idle_ms = 0;
}

/* Who drops a pool of which it holds all takes all addresses along. Whoever began to use it meanwhile, because it knew it, would
 * have a pool without addresses for ever. So that waits while we know of somebody who is not heard; then whoever uses it is given
 * what there is. A cut that begins less than the time in which it is noticed before the drop is not known of: who begins to use
 * the pool behind it, before it hears that the pool is gone, has one without addresses all the same. */
static bool must_wait(struct node *node, struct pool *p, unsigned *idle)
{
	uint64_t now = clock_boot_ms();

	if (!ipam_pool_is_whole(node->ipam, &p->id)) {
		end_idle(p, idle);
		return false;
	}
	if (!p->idle_ms) {
		p->idle_ms = now;
		++*idle;
	}
	return may_be_wanted(node, p, now) && *idle <= IDLE_MAX;
}

/* Forgets a pool that nobody here needs, if no address is lost by it. `idle`: how many wait so. */
static void try_drop(struct node *node, struct pool *p, unsigned *idle)
{
	struct ipam_totals totals = {0};

	if (pool_referenced(p))
		end_idle(p, idle);
	if (pool_referenced(p) || !p->joined || estate_collects(node) || must_wait(node, p, idle))
		return; /* an estate may be in any pool */
	ipam_pool_totals(node->ipam, &p->id, &totals);
	if (totals.held_known && p->host_count && p->wanted_elsewhere)
		return; /* what we hold is on its way to them */
	if (ipam_pool_drop(node->ipam, &p->id, NULL) < 0)
		return;
	p->joined = false;
	end_idle(p, idle);
	outbox_save(node->outbox, store_change_new(STORE_STATE, STORE_POOL, &p->id, sizeof(p->id), NULL, 0, true));
	publish_pool(node, p);
	if (!p->host_count)
		pool_remove(node, p);
}

void pool_unuse(struct node *node, struct pool *p)
{
	unsigned idle = count_idle(node);

	pool_keep(node, p);
	try_drop(node, p, &idle);
}

void pools_tick(struct node *node)
{
	struct pool *p, *next;
	unsigned idle = count_idle(node);

	HASH_ITER(hh, node->pools, p, next)
	try_drop(node, p, &idle);
}

/* ---- what others say ---- */

struct survey {
	struct id128 id;
	struct pool_def def;
	unsigned hosts;
	bool wanted;
};

static void survey_definition(void *ctx, const struct gossip_member *m, const void *val, size_t len)
{
	struct survey *s = ctx;
	struct pool_def def;

	(void)m;
	if (pool_def_decode(val, len, &def, NULL) < 0 || !id_equal(&def.id, &s->id))
		return;
	s->def = def;
	s->hosts++;
	s->wanted |= def.wanted;
}

/* The core takes an estate in the pools that it knows, so an heir joins also what it never used; what it then holds and does not
 * want goes on to who does. */
static void join_unused(struct node *node, struct pool *p)
{
	if (p->joined)
		return;
	pool_join_core(node, p);
	if (p->joined)
		pool_keep(node, p);
}

struct asked {
	struct node *node;
	struct id128 id;
};

static void join_asked(void *arg)
{
	struct asked *a = arg;
	struct pool *p = pool_by_id(a->node, &a->id);

	if (p && core_def(&p->state.def).slice_bits)
		join_unused(a->node, p);
	free(a);
}

/* Somebody asks by name for an address that may be in our slice of a pool that nobody here uses. A later tick leaves the pool
 * again; whoever asks repeats itself before that. Not at once: the core is in the middle of a message. */
void pool_asked(struct node *node, const struct id128 *id)
{
	struct asked *a = alloc_new(struct asked);

	*a = (struct asked){node, *id};
	outbox_call(node->outbox, join_asked, a);
}

void pools_join_all(struct node *node)
{
	struct pool *p, *next;

	HASH_ITER(hh, node->pools, p, next)
	join_unused(node, p);
}

void pool_changed(struct node *node, const struct id128 *id)
{
	struct survey s = {.id = *id};
	struct pool *p = pool_by_id(node, id);

	definitions_of_others(node, RECORD_POOL, id, survey_definition, &s);
	if (s.hosts && s.def.space == POOL_SPACE_HOSTNO) {
		hostnos_pool_seen(node, &s.def);
		return;
	}
	if (!p && s.hosts)
		p = pool_add(node, &s.def);
	if (!p)
		return;
	p->host_count = s.hosts;
	p->wanted_elsewhere = s.wanted;
	if (!p->joined && !s.hosts)
		pool_remove(node, p);
	else if (estate_collects(node))
		join_unused(node, p);
}

/* "p:SPACE:PREFIX" or "q:SPACE:FAMILY:NAME" */
const void *pool_claimed(struct node *node, const char *key, void *buf, size_t size, size_t *ret_len)
{
	struct pool *p, *next;
	char text[128];

	HASH_ITER(hh, node->pools, p, next)
	{
		/* Ours is one when it is on disk; who is frozen does not hear that another's is gone. */
		if (!pool_in_use(p) || (!p->published && (node->freeze.on || !p->host_count)))
			continue;
		pool_claim_key(text, sizeof(text), &p->state.def, key[0] == 'q');
		if (strcmp(text, key) != 0)
			continue;
		*ret_len = pool_def_encode(&p->state.def, buf, size);
		return buf;
	}
	return NULL;
}

/* ---- choosing a prefix ---- */
int pool_join(struct node *node, struct pool *p, bool mine, struct err *err)
{
	struct ipam_pool_def def = core_def(&p->state.def);
	uint64_t now = clock_boot_ms();
	int result;

	if (p->joined)
		return 0;
	result = mine ? ipam_pool_create(node->ipam, &def, now, err) : ipam_pool_join(node->ipam, &def, now, err);
	if (result < 0)
		return -1;
	p->joined = true;
	if (!mine)
		custody_feed_pool(node, &p->id);
	return 0;
}
void pool_join_core(struct node *node, struct pool *p)
{
	struct err err = {0};

	if (pool_join(node, p, false, &err) < 0)
		log_warn("pools", "%s", err.text);
}

/* ---- start ---- */

static int load_pool(void *ctx, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct node *node = ctx;
	struct pool_state state;
	struct ipam_pool_def def;
	struct pool *p;

	(void)key, (void)key_len;
	if (pool_state_decode(val, len, &state, err) < 0)
		return -1;
	p = pool_add(node, &state.def);
	p->state = state;
	def = core_def(&state.def);
	if (ipam_pool_join(node->ipam, &def, clock_boot_ms(), err) < 0)
		return -1;
	p->joined = true;
	return 0;
}

int pools_start(struct node *node, struct err *err)
{
	return store_each(node->store, STORE_STATE, STORE_POOL, load_pool, node, err);
}

void pools_stop(struct node *node)
{
	struct pool *p, *next;

	HASH_ITER(hh, node->pools, p, next)
	{
		HASH_DEL(node->pools, p);
		free(p);
	}
}

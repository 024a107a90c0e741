/* What the leases in a pool are for: gateways and auxiliary addresses, which hosts share and no endpoint gets, and those that
 * nothing uses any more.
 *
 * What an address is shared for is on disk before its lease says so, and a start takes again what a reboot or a crash lost. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#include "daemon/pools_internal.h"

#define OWNER_AUX "an auxiliary address" /* another label: hosts that ask for the gateway must not take it for one */
#define TAKE_AGAIN_MS 30000		 /* a host that has just started may be on hold for some seconds */

/* ---- shared ones: gateways and auxiliary addresses ---- */

/* A shared address that is not leased after a start was cleared by a reboot; the engine does not ask for it again. */
static void took_again(void *arg, const struct ipam_result *result)
{
	const struct node *node = arg;

	if (result->code == IPAM_HELD && node->freeze.on)
		return; /* asked for once more when it ends */
	if (result->code != IPAM_GRANTED)
		log_warn("pools", "a gateway or auxiliary address could not be reserved again after the reboot; endpoints do not "
				  "get it while others list it");
}

/* A lease that is still an endpoint's: we died between noting what it is for and sharing it. */
static void take_again(struct node *node, struct pool *p, const struct ip *ip, const char *owner)
{
	struct ipam_want want = {
		.pool = p->id, .address = *ip, .use = IPAM_USE_SHARED, .owner = owner, .timeout_ms = TAKE_AGAIN_MS};
	struct ipam_lease lease;

	if (!ipam_lookup(node->ipam, &p->id, ip, &lease))
		custody_ask(node, &want, took_again, node);
	else if (lease.use == IPAM_USE_ENDPOINT)
		ipam_make_shared(node->ipam, &p->id, ip, owner, clock_boot_ms());
}

void pool_reserve_again(struct node *node, struct pool *p)
{
	for (unsigned i = 0; i < p->state.gateway_count; i++)
		take_again(node, p, &p->state.gateways[i], OWNER_GATEWAY);
	for (unsigned i = 0; i < p->state.aux_count; i++)
		take_again(node, p, &p->state.aux[i], OWNER_AUX);
}

void pools_reserve_again(struct node *node)
{
	struct pool *p, *next;

	HASH_ITER(hh, node->pools, p, next)
	if (p->joined)
		pool_reserve_again(node, p);
}

static bool is_listed(const struct ip *list, unsigned count, const struct ip *ip)
{
	for (unsigned i = 0; i < count; i++)
		if (ip_equal(&list[i], ip))
			return true;
	return false;
}

static bool is_remembered(const struct pool *p, const struct ip *ip)
{
	return is_listed(p->state.gateways, p->state.gateway_count, ip) || is_listed(p->state.aux, p->state.aux_count, ip);
}

bool pool_remember(struct node *node, struct pool *p, const struct ip *ip, bool gateway)
{
	struct ip *list = gateway ? p->state.gateways : p->state.aux;
	unsigned *count = gateway ? &p->state.gateway_count : &p->state.aux_count;
	char text[IP_TEXT_SIZE];

	if (is_remembered(p, ip))
		return true;
	if (*count == (gateway ? POOL_GATEWAYS_MAX : POOL_AUX_MAX)) {
		log_warn("pools", "%s is not reserved: this host keeps %u %s of a pool at most", ip_format(ip, text), *count,
			gateway ? "gateways" : "auxiliary addresses");
		return false;
	}
	list[(*count)++] = *ip;
	pool_keep(node, p);
	return true;
}

static bool forget_in(struct ip *list, unsigned *count, const struct ip *ip)
{
	for (unsigned i = 0; i < *count; i++)
		if (ip_equal(&list[i], ip)) {
			list[i] = list[--*count];
			return true;
		}
	return false;
}

void pool_forget(struct node *node, struct pool *p, const struct ip *ip)
{
	bool gateway = forget_in(p->state.gateways, &p->state.gateway_count, ip);
	bool aux = forget_in(p->state.aux, &p->state.aux_count, ip);

	if (gateway || aux)
		pool_keep(node, p);
}

/* The pool of ours that leases the address here. */
static struct pool *pool_leasing(struct node *node, const struct prefix *prefix, const struct ip *ip)
{
	for (enum pool_space space = POOL_SPACE_LOCAL; space <= POOL_SPACE_GLOBAL; space++) {
		struct pool *p = pools_find(node, space, prefix);
		if (p && p->joined && pool_in_use(p) && ipam_lookup(node->ipam, &p->id, ip, NULL))
			return p;
	}
	return NULL;
}

/* What it is for is on disk before the lease changes: a start in between finishes it (take_again). */
void pools_reserve(struct node *node, const struct prefix *prefix, const struct ip *ip, bool gateway)
{
	struct pool *p = pool_leasing(node, prefix, ip);
	struct ipam_lease lease;

	if (!p || !ipam_lookup(node->ipam, &p->id, ip, &lease) || lease.bound || !pool_remember(node, p, ip, gateway))
		return;
	if (lease.use == IPAM_USE_ENDPOINT || !lease.owner[0])
		ipam_make_shared(node->ipam, &p->id, ip, gateway ? OWNER_GATEWAY : OWNER_AUX, clock_boot_ms());
	custody_poke(node);
}

/* ---- those that nothing uses any more ---- */

struct lease_key {
	struct id128 pool;
	struct ip address;
};

struct found {
	bool (*is_over)(void *ctx, const struct ipam_lease *lease);
	void *ctx;
	struct lease_key *keys;
	size_t count, max;
};

static void collect(void *ctx, const struct ipam_lease *lease)
{
	struct found *f = ctx;

	if (f->is_over && !f->is_over(f->ctx, lease))
		return;
	if (f->count == f->max) {
		f->max = f->max ? 2 * f->max : 64;
		f->keys = alloc_resize(f->keys, struct lease_key, f->max);
	}
	f->keys[f->count++] = (struct lease_key){lease->pool, lease->address};
}

/* First all of them: what is done with a lease changes the table. */
static struct found leases_find(
	struct node *node, const struct id128 *pool, bool (*is_over)(void *ctx, const struct ipam_lease *lease), void *ctx)
{
	struct found f = {.is_over = is_over, .ctx = ctx};

	ipam_each_lease(node->ipam, pool, collect, &f);
	return f;
}

void leases_end(
	struct node *node, const struct id128 *pool, bool (*is_over)(void *ctx, const struct ipam_lease *lease), void *ctx)
{
	struct found f = leases_find(node, pool, is_over, ctx);

	for (size_t i = 0; i < f.count; i++)
		ipam_release(node->ipam, &f.keys[i].pool, &f.keys[i].address, clock_boot_ms());
	if (f.count)
		custody_poke(node);
	free(f.keys);
}

static bool is_unused_of(void *ctx, const struct ipam_lease *lease)
{
	const char *const *owner = ctx;

	return !lease->bound && strcmp(lease->owner, *owner) == 0;
}

void leases_end_unused(struct node *node, const struct id128 *pool, const char *owner)
{
	leases_end(node, pool, is_unused_of, &owner);
}

void pool_release_leases(struct node *node, struct pool *p)
{
	leases_end(node, &p->id, NULL, NULL);
	p->state.gateway_count = p->state.aux_count = 0;
}

/* An engine that was given an address and died before it used it never gives it back. Only where our own network driver would
 * have seen the use: in the pools of this host's engine networks. */
struct stale {
	const struct node *node;
	const struct pool *pool;
	uint64_t before_ms;
};

static bool is_stale(void *ctx, const struct ipam_lease *lease)
{
	struct stale *s = ctx;
	char text[IP_TEXT_SIZE];

	if (lease->bound || lease->since_ms >= s->before_ms || is_remembered(s->pool, &lease->address))
		return false;
	log_info("pools", "address %s was given to an engine and not used for %u s, taking it back",
		ip_format(&lease->address, text), s->node->options.lease_grace_s);
	return true;
}

static bool serves_docker(struct node *node, const struct pool *p)
{
	struct network *n, *next;

	HASH_ITER(hh, node->networks, n, next)
	if (n->docker_count && network_def_has(&n->def, &p->state.def.prefix))
		return true;
	return false;
}

void pools_collect_leases(struct node *node, uint64_t now)
{
	uint64_t grace = (uint64_t)node->options.lease_grace_s * 1000;
	struct pool *p, *next;

	if (now < node->start_ms + grace)
		return;
	HASH_ITER(hh, node->pools, p, next)
	{
		struct stale s = {node, p, now - grace};
		if (p->joined && serves_docker(node, p))
			leases_end(node, &p->id, is_stale, &s);
	}
}

/* ---- leases that outlived their endpoint ---- */

struct lease_user {
	struct lease_key key;
	UT_hash_handle hh;
};

static void add_user(struct lease_user **users, const struct id128 *pool, const struct ip *address)
{
	struct lease_user *u = alloc_new(struct lease_user), *known;

	u->key.pool = *pool;
	u->key.address = *address;
	HASH_FIND(hh, *users, &u->key, sizeof(u->key), known);
	if (known)
		free(u);
	else
		HASH_ADD(hh, *users, key, sizeof(u->key), u);
}

/* In whichever pool it may be leased: one too many keeps an address, one too few would give it twice. */
static void add_users(struct node *node, struct lease_user **users, const struct ip *address)
{
	struct pool *p, *next;

	HASH_ITER(hh, node->pools, p, next)
	if (prefix_contains(&p->state.def.prefix, address))
		add_user(users, &p->id, address);
}

static struct lease_user *lease_users(struct node *node)
{
	struct lease_user *users = NULL;
	struct endpoint *ep, *next_ep;
	struct workload *w, *next_w;
	struct network *n, *next_n;

	HASH_ITER(hh, node->networks, n, next_n)
	for (unsigned i = 0; i < 2; i++) /* the host's own, in mode l3 */
		if (n->programmed && ip_is_set(&n->own[i].address))
			add_user(&users, &n->own[i].pool, &n->own[i].address);
	HASH_ITER(hh, node->endpoints, ep, next_ep)
	if (!ep->closing) {
		add_users(node, &users, &ep->state.address4.ip);
		add_users(node, &users, &ep->state.address6.ip);
	}
	HASH_ITER(hh, node->workloads, w, next_w)
	for (unsigned i = 0; i < 2; i++)
		if (prefix_is_set(&w->leases[i].address))
			add_user(&users, &w->leases[i].pool, &w->leases[i].address.ip);
	return users;
}

static bool is_orphan(void *ctx, const struct ipam_lease *lease)
{
	struct lease_key key = {.pool = lease->pool, .address = lease->address};
	struct lease_user *users = ctx, *user;
	char text[IP_TEXT_SIZE];

	HASH_FIND(hh, users, &key, sizeof(key), user);
	if (!lease->bound || user)
		return false;
	log_info("pools", "address %s is leased to %s, which was never made or is gone: freeing it",
		ip_format(&lease->address, text), lease->owner[0] ? lease->owner : "an endpoint");
	return true;
}

/* A kill between the save of a lease and that of its endpoint. An engine may be about to use the address or give it back, and
 * else it is collected; in pools without an engine's network nobody will. */
void pools_free_orphans(struct node *node)
{
	struct lease_user *users = lease_users(node), *u, *next;
	struct found f = leases_find(node, NULL, is_orphan, users);

	for (size_t i = 0; i < f.count; i++) {
		const struct lease_key *l = &f.keys[i];
		struct pool *p = pool_by_id(node, &l->pool);

		if (p && serves_docker(node, p))
			ipam_bind(node->ipam, &l->pool, &l->address, false, "", clock_boot_ms());
		else
			ipam_release(node->ipam, &l->pool, &l->address, clock_boot_ms());
	}
	custody_poke(node);
	free(f.keys);
	HASH_ITER(hh, users, u, next)
	{
		HASH_DEL(users, u);
		free(u);
	}
}

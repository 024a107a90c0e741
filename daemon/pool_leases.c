/* What the leases in a pool are for: gateways and auxiliary addresses, which hosts share and no endpoint gets, and those that
 * nothing uses any more.
 *
 * What an address is shared for is on disk before its lease says so, and a start takes again what a reboot or a crash lost. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/pools_internal.h"

#define OWNER_AUX "an auxiliary address" /* another label: hosts that ask for the gateway must not take it for one */
#define TAKE_AGAIN_MS 30000		 /* a host that has just started may be on hold for some seconds */

/* ---- shared ones: gateways and auxiliary addresses ---- */

/* A shared address that is not leased after a start was cleared by a reboot; the engine does not ask for it again. */
static void took_again(void *arg, const struct ipam_result *result)
{
	(void)arg;
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
		custody_ask(node, &want, took_again, NULL);
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

struct end_leases {
	struct id128 pool;
	struct ip *addresses;
	size_t count, max;
};

static void collect_lease(void *ctx, const struct ipam_lease *lease)
{
	struct end_leases *e = ctx;

	if (e->count == e->max) {
		e->max = e->max ? 2 * e->max : 64;
		e->addresses = realloc(e->addresses, e->max * sizeof(*e->addresses));
		if (!e->addresses)
			abort();
	}
	e->addresses[e->count++] = lease->address;
}

/* The last reference is gone: so are its addresses. */
void pool_release_leases(struct node *node, struct pool *p)
{
	struct end_leases e = {.pool = p->id};

	ipam_each_lease(node->ipam, &p->id, collect_lease, &e);
	for (size_t i = 0; i < e.count; i++)
		ipam_release(node->ipam, &p->id, &e.addresses[i], clock_boot_ms());
	free(e.addresses);
	p->state.gateway_count = p->state.aux_count = 0;
}

/* An engine that was given an address and died before it used it never gives it back. Only where our own network driver would
 * have seen the use: in the pools of this host's engine networks. */
struct stale_leases {
	struct end_leases list;
	const struct pool *pool;
	uint64_t before_ms;
};

static void collect_stale(void *ctx, const struct ipam_lease *lease)
{
	struct stale_leases *s = ctx;

	if (!lease->bound && lease->since_ms < s->before_ms && !is_remembered(s->pool, &lease->address))
		collect_lease(&s->list, lease);
}

static bool serves_docker(struct node *node, const struct pool *p)
{
	struct network *n, *next;

	HASH_ITER(hh, node->networks, n, next)
	for (unsigned i = 0; n->docker_count && i < n->def.pool_count; i++)
		if (prefix_equal(&n->def.pools[i], &p->state.def.prefix))
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
		struct stale_leases s = {.pool = p, .before_ms = now - grace};
		char ip[IP_TEXT_SIZE];
		if (!p->joined || !serves_docker(node, p))
			continue;
		ipam_each_lease(node->ipam, &p->id, collect_stale, &s);
		for (size_t i = 0; i < s.list.count; i++) {
			log_info("pools", "address %s was given to an engine and not used for %u s, taking it back",
				ip_format(&s.list.addresses[i], ip), node->options.lease_grace_s);
			ipam_release(node->ipam, &p->id, &s.list.addresses[i], now);
		}
		free(s.list.addresses);
	}
}

/* ---- leases that outlived their endpoint ---- */

struct lease_user {
	struct lease_key {
		struct id128 pool;
		struct ip address;
	} key;
	UT_hash_handle hh;
};

static void add_user(struct lease_user **users, const struct id128 *pool, const struct ip *address)
{
	struct lease_user *u = calloc(1, sizeof(*u)), *known;

	if (!u)
		abort();
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

struct orphans {
	struct lease_user *users;
	struct ipam_lease *found;
	size_t count, max;
};

static void collect_orphan(void *ctx, const struct ipam_lease *lease)
{
	struct lease_key key = {.pool = lease->pool, .address = lease->address};
	struct orphans *o = ctx;
	struct lease_user *user;

	HASH_FIND(hh, o->users, &key, sizeof(key), user);
	if (!lease->bound || user)
		return;
	if (o->count == o->max) {
		o->max = o->max ? 2 * o->max : 64;
		o->found = reallocarray(o->found, o->max, sizeof(*o->found));
		if (!o->found)
			abort();
	}
	o->found[o->count++] = *lease;
}

/* A kill between the save of a lease and that of its endpoint. An engine may be about to use the address or give it back, and
 * else it is collected; in pools without an engine's network nobody will. */
void pools_free_orphans(struct node *node)
{
	struct orphans o = {.users = lease_users(node)};
	struct lease_user *u, *next;
	char text[IP_TEXT_SIZE];

	ipam_each_lease(node->ipam, NULL, collect_orphan, &o);
	for (size_t i = 0; i < o.count; i++) {
		const struct ipam_lease *l = &o.found[i];
		struct pool *p = pool_by_id(node, &l->pool);

		log_info("pools", "address %s is leased to %s, which was never made or is gone: freeing it",
			ip_format(&l->address, text), l->owner[0] ? l->owner : "an endpoint");
		if (p && serves_docker(node, p))
			ipam_bind(node->ipam, &l->pool, &l->address, false, "", clock_boot_ms());
		else
			ipam_release(node->ipam, &l->pool, &l->address, clock_boot_ms());
	}
	custody_poke(node);
	free(o.found);
	HASH_ITER(hh, o.users, u, next)
	{
		HASH_DEL(o.users, u);
		free(u);
	}
}

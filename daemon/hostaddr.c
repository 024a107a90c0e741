/* This host's own addresses in networks of mode l3: one of each family, taken from the network's pools like a container's.
 *
 * The host speaks with them to containers elsewhere, and so does whatever it translates towards them. The underlay's address
 * would not do: the other hosts answer to that by the underlay, and a strict reverse path drops what comes in by the tunnel with
 * it.
 *
 * The lease is all that is kept of it: its owner label says what it is for. It is taken with the first endpoint here and released
 * with the last one. It is published as an endpoint's record is, so that routes to it come and go as to any address; the record's
 * MAC is that of our vxlan device. A container does not wait for it, and a network whose addresses are all given away works
 * without: only the host itself then reaches no container elsewhere. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#include "daemon/node_internal.h"

#define OWNER "the host itself"
#define AGAIN_MS 30000 /* what no host could give is not asked for at each turn */

const struct network *host_address_of(const struct node *node, const struct id128 *pool, const struct ip *ip)
{
	const struct network *n, *next;

	HASH_ITER(hh, node->networks, n, next)
	for (unsigned which = 0; which < 2; which++)
		if ((ip_equal(&n->own[which].address, ip) && (!pool || id_equal(&n->own[which].pool, pool))) ||
			ip_equal(&host_end_addresses(n)[which].ip, ip))
			return n;
	return NULL;
}

/* ---- the record ---- */

static void publish(struct node *node, const struct network *n)
{
	struct endpoint_record r = {.short_id = HOST_SHORT_ID,
		.mac = datapath_tunnel_mac(node),
		.ip4 = n->own[0].address,
		.ip6 = n->own[1].address,
		.since_s = (uint64_t)clock_wall_s()};
	uint8_t key[ENDPOINT_KEY_SIZE], buf[GOSSIP_VALUE_MAX];
	bool any = ip_is_set(&r.ip4) || ip_is_set(&r.ip6);

	endpoint_record_key(HOST_SHORT_ID, key);
	cluster_publish(
		node, n->topic, key, sizeof(key), any ? buf : NULL, any ? endpoint_record_encode(&r, buf, sizeof(buf)) : 0);
}

void host_addresses_publish(struct node *node)
{
	struct network *n, *next;

	HASH_ITER(hh, node->networks, n, next)
	if (n->programmed && n->def.routed)
		publish(node, n);
}

/* ---- the lease ---- */

static void have(struct node *node, struct network *n, unsigned which, const struct id128 *pool, const struct ip *address)
{
	n->own[which].address = *address;
	n->own[which].pool = *pool;
	ipam_bind(node->ipam, pool, address, true, OWNER, clock_boot_ms());
	custody_poke(node);
}

struct asking {
	struct node *node;
	struct id128 network, pool;
	unsigned which;
};

static void given(void *arg, const struct ipam_result *result)
{
	struct asking *a = arg;
	struct network *n = network_by_id(a->node, &a->network);

	if (n) {
		n->own[a->which].ticket = 0;
		n->own[a->which].again_ms = clock_boot_ms() + AGAIN_MS;
	}
	if (result->code != IPAM_GRANTED) {
		log_debug("hostaddr", "no IPv%u address for this host in network \"%s\" yet", a->which ? 6 : 4,
			n ? n->def.name : "?");
	} else if (!n || !n->programmed) { /* the last endpoint went meanwhile */
		ipam_release(a->node->ipam, &a->pool, &result->address, clock_boot_ms());
		custody_poke(a->node);
	} else {
		have(a->node, n, a->which, &a->pool, &result->address);
		datapath_put_network(a->node, n);
		publish(a->node, n);
	}
	free(a);
}

static void ask(struct node *node, struct network *n, unsigned which, const struct pool *p)
{
	struct ipam_want want = {.pool = p->id, .owner = OWNER};
	struct asking *a = alloc_new(struct asking);
	uint64_t ticket;

	*a = (struct asking){.node = node, .network = n->id, .pool = p->id, .which = which};
	n->own[which].ticket = UINT64_MAX; /* the answer may come from within the call */
	ticket = custody_ask(node, &want, given, a);
	if (n->own[which].ticket)
		n->own[which].ticket = ticket;
}

struct search {
	struct ip found;
};

static void find_own(void *ctx, const struct ipam_lease *lease)
{
	struct search *s = ctx;

	if (strcmp(lease->owner, OWNER) == 0)
		s->found = lease->address;
}

static void secure(struct node *node, struct network *n, unsigned which)
{
	struct pool *p = network_pool(node, n, which, 0);
	struct search s = {0};

	if (!p || n->own[which].ticket || ip_is_set(&n->own[which].address) || clock_boot_ms() < n->own[which].again_ms)
		return;
	ipam_each_lease(node->ipam, &p->id, find_own, &s); /* of an earlier life in this boot */
	if (ip_is_set(&s.found))
		have(node, n, which, &p->id, &s.found);
	else if (node->gossip)
		ask(node, n, which, p);
}

void host_addresses_begin(struct node *node, struct network *n)
{
	for (unsigned which = 0; n->def.routed && which < 2; which++)
		secure(node, n, which);
}

void host_addresses_end(struct node *node, struct network *n)
{
	if (!n->def.routed)
		return;
	for (unsigned which = 0; which < 2; which++) {
		struct own_address *own = &n->own[which];

		if (ip_is_set(&own->address))
			ipam_release(node->ipam, &own->pool, &own->address, clock_boot_ms());
		own->address = (struct ip){0};
		own->again_ms = 0;
	}
	custody_poke(node);
	publish(node, n);
}

void host_addresses_tick(struct node *node)
{
	struct network *n, *next;

	HASH_ITER(hh, node->networks, n, next)
	if (n->programmed)
		host_addresses_begin(node, n);
}

/* ---- what a crash left: the last endpoint's end was saved, the lease's was not ---- */

static bool is_left(void *ctx, const struct ipam_lease *lease)
{
	return strcmp(lease->owner, OWNER) == 0 && !host_address_of(ctx, &lease->pool, &lease->address);
}

void host_addresses_sweep(struct node *node)
{
	leases_end(node, NULL, is_left, node);
}

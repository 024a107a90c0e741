/* What is wanted: networks, endpoints, remotes, flood lists. Changes here only claim rows and mark objects dirty; sync does the
 * work, and looks only at what is dirty, so the cost of one change does not grow with the tables. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/vxlan/vxlan.h"
#include "base/alloc.h"
#include "driver/vxlan/vxlan_internal.h"

void vx_dirty_network(struct vxlan *vx, struct vx_network *n)
{
	if (n->dirty)
		return;
	n->dirty = true;
	DL_APPEND(vx->dirty_networks, n);
}

void vx_dirty_endpoint(struct vxlan *vx, struct vx_endpoint *e)
{
	if (e->dirty)
		return;
	e->dirty = true;
	DL_APPEND(vx->dirty_endpoints, e);
}

void vx_dirty_all(struct vxlan *vx)
{
	struct vx_network *n, *next_network;
	struct vx_endpoint *e, *next_endpoint;
	struct vx_entry *row, *next_row;
	struct vx_have_link *l, *next_link;

	HASH_ITER(hh, vx->networks, n, next_network)
	{
		vx_dirty_network(vx, n);
		HASH_ITER(hh, n->endpoints, e, next_endpoint)
		vx_dirty_endpoint(vx, e);
		HASH_ITER(hh, n->rows, row, next_row)
		vx_dirty_row(vx, row);
	}
	HASH_ITER(hh, vx->links, l, next_link)
	vx_dirty_link(vx, l);
}

struct vx_network *vx_network_find(struct vxlan *vx, const struct id128 *id)
{
	struct vx_network *n;

	HASH_FIND(hh, vx->networks, id, sizeof(*id), n);
	return n;
}

struct vx_network *vx_network_get(struct vxlan *vx, const struct id128 *id)
{
	struct vx_network *n = vx_network_find(vx, id);

	if (n)
		return n;
	n = alloc_new(struct vx_network);
	n->id = *id;
	HASH_ADD(hh, vx->networks, id, sizeof(n->id), n);
	return n;
}

void vx_network_gc(struct vxlan *vx, struct vx_network *n)
{
	if (n->desired || n->endpoints || n->remotes || n->rows || n->links || n->flood_count)
		return;
	if (n->dirty)
		DL_DELETE(vx->dirty_networks, n);
	HASH_DEL(vx->networks, n);
	vx_announce_clear(n);
	free(n->flood);
	free(n->routed);
	free(n->error);
	free(n);
}

struct vx_endpoint *vx_endpoint_find(struct vx_network *n, const char *id)
{
	struct vx_endpoint *e;

	HASH_FIND_STR(n->endpoints, id, e);
	return e;
}

/* ---- the rows that objects want ---- */

static void neighbour(vx_row_fn *fn, void *arg, const struct ip *ip, const struct mac *mac, uint32_t port, bool local)
{
	if (ip->family)
		fn(arg, &(struct vx_row){.kind = VX_ROW_NEIGH, .ip = *ip, .mac = *mac, .port = port}, local);
}

/* A routed address: the way to its device, and whom to say it to there. */
static void routed_address(vx_row_fn *fn, void *arg, const struct ip *ip, const struct mac *mac, uint32_t port,
	const struct ip *source /* NULL: a remote one, and the device has the address */)
{
	struct vx_row route = {.kind = VX_ROW_ROUTE, .ip = *ip, .length = (uint8_t)ip_bits(ip), .port = port};

	if (!ip->family)
		return;
	if (source)
		route.source = *source;
	neighbour(fn, arg, ip, mac, port, source != NULL);
	fn(arg, &route, source != NULL);
}

void vx_endpoint_rows(const struct vx_endpoint *e, uint32_t port, vx_row_fn *fn, void *arg)
{
	const struct vx_routed *routed = e->network->routed;

	if (routed) {
		routed_address(fn, arg, &e->ip4, &e->mac, port, &routed->own4);
		routed_address(fn, arg, &e->ip6, &e->mac, port, &routed->own6);
		return;
	}
	fn(arg, &(struct vx_row){.kind = VX_ROW_PORT, .mac = e->mac, .port = port}, true);
	neighbour(fn, arg, &e->ip4, &e->mac, VX_PORT_TUNNEL, true);
	neighbour(fn, arg, &e->ip6, &e->mac, VX_PORT_TUNNEL, true);
}

void vx_remote_rows(const struct vx_network *n, const struct vx_remote *r, vx_row_fn *fn, void *arg)
{
	struct mac mac = n->routed ? vxlan_tunnel_mac(r->hostno) : r->mac;

	fn(arg, &(struct vx_row){.kind = VX_ROW_REMOTE, .mac = mac, .ip = r->vtep}, false);
	if (n->routed) {
		routed_address(fn, arg, &r->ip4, &mac, VX_PORT_TUNNEL, NULL);
		routed_address(fn, arg, &r->ip6, &mac, VX_PORT_TUNNEL, NULL);
		return;
	}
	fn(arg, &(struct vx_row){.kind = VX_ROW_PORT, .mac = mac, .port = VX_PORT_TUNNEL}, false);
	neighbour(fn, arg, &r->ip4, &mac, VX_PORT_TUNNEL, false);
	neighbour(fn, arg, &r->ip6, &mac, VX_PORT_TUNNEL, false);
}

static void own_address(vx_row_fn *fn, void *arg, const struct ip *ip)
{
	if (ip->family)
		fn(arg, &(struct vx_row){.kind = VX_ROW_ADDR, .ip = *ip}, true);
}

/* An address of a pool that nobody has leads nowhere, rather than out by the default route, from where it could come back. */
void vx_network_rows(const struct vx_network *n, vx_row_fn *fn, void *arg)
{
	const struct vx_routed *routed = n->routed;

	for (size_t i = 0; i < n->flood_count; i++)
		fn(arg, &(struct vx_row){.kind = VX_ROW_FLOOD, .ip = n->flood[i]}, false);
	if (!routed)
		return;
	own_address(fn, arg, &routed->own4);
	own_address(fn, arg, &routed->own6);
	for (unsigned i = 0; i < routed->pool_count; i++) {
		const struct prefix *pool = &routed->pools[i];

		/* A pool of one address is that address's route. */
		if (pool->length < ip_bits(&pool->ip))
			fn(arg,
				&(struct vx_row){
					.kind = VX_ROW_ROUTE, .ip = pool->ip, .length = pool->length, .port = VX_PORT_NONE},
				false);
	}
}

struct claimer {
	struct vxlan *vx;
	struct vx_network *n;
	bool on;
};

static void claim_one(void *arg, const struct vx_row *row, bool local)
{
	struct claimer *c = arg;

	if (c->on)
		vx_claim(c->vx, c->n, row, local);
	else
		vx_unclaim(c->vx, c->n, row);
}

static void claim_remote(struct vxlan *vx, struct vx_network *n, const struct vx_remote *r, bool on)
{
	vx_remote_rows(n, r, claim_one, &(struct claimer){vx, n, on});
}

void vx_endpoint_claim(struct vxlan *vx, struct vx_endpoint *e, uint32_t port)
{
	uint32_t was = e->claimed;

	if (was == port)
		return;
	if (was) {
		e->claimed = 0; /* first: it must not win an election against itself */
		vx_endpoint_rows(e, was, claim_one, &(struct claimer){vx, e->network, false});
	}
	if (port) {
		e->claimed = port;
		vx_endpoint_rows(e, port, claim_one, &(struct claimer){vx, e->network, true});
	}
}

static void claim_all(struct vxlan *vx, struct vx_network *n, bool on)
{
	struct vx_remote *r, *next_remote;
	struct vx_endpoint *e, *next_endpoint;

	vx_network_rows(n, claim_one, &(struct claimer){vx, n, on});
	HASH_ITER(hh, n->remotes, r, next_remote)
	claim_remote(vx, n, r, on);
	HASH_ITER(hh, n->endpoints, e, next_endpoint)
	{
		vx_endpoint_claim(vx, e, on && e->link ? e->link->link.index : 0);
		vx_dirty_endpoint(vx, e);
	}
}

/* ---- changes ---- */

/* A network has devices and rows only while it is desired and an endpoint of it is here. */
static void update_live(struct vxlan *vx, struct vx_network *n)
{
	bool live = n->desired && n->endpoints;

	if (live == n->live)
		return;
	n->live = live;
	n->pending = true;
	vx->guard_dirty = vx->guard_pending = true;
	if (!live)
		vx_announce_clear(n);
	claim_all(vx, n, live);
	vx_dirty_network(vx, n);
}

static struct vx_routed *routed_of(const struct driver_network *network)
{
	struct vx_routed *routed;

	if (!network->routed)
		return NULL;
	routed = alloc_new(struct vx_routed);
	routed->internal = network->internal;
	routed->own4 = network->own4;
	routed->own6 = network->own6;
	routed->pool_count = network->pool_count;
	memcpy(routed->pools, network->pools, network->pool_count * sizeof(network->pools[0]));
	return routed;
}

static bool same_routed(const struct vx_routed *a, const struct driver_network *b)
{
	bool same = ip_equal(&a->own4, &b->own4) && ip_equal(&a->own6, &b->own6) && a->internal == b->internal &&
		    a->pool_count == b->pool_count;

	for (unsigned i = 0; same && i < a->pool_count; i++)
		same = prefix_equal(&a->pools[i], &b->pools[i]);
	return same;
}

static bool network_same(const struct vx_network *n, const struct driver_network *network)
{
	return n->desired && n->vni == network->vni && n->mtu == network->mtu && !n->routed == !network->routed &&
	       (!n->routed || same_routed(n->routed, network));
}

/* What was claimed by the old is given up by the old, and claimed anew: the rows remember what they have, so only what differs is
 * written. */
static void set_routed(struct vxlan *vx, struct vx_network *n, struct vx_routed *routed)
{
	struct vx_routed *was = n->routed;
	bool live = n->live;

	if (!was && !routed)
		return;
	if (live)
		claim_all(vx, n, false);
	n->routed = routed;
	if (live)
		claim_all(vx, n, true);
	free(was);
}

void vx_put_network(struct vxlan *vx, const struct driver_network *network)
{
	struct vx_network *n = vx_network_get(vx, &network->id);
	struct vx_endpoint *e, *next;

	if (network_same(n, network))
		return;
	if (!n->desired)
		vx->counters.networks++;
	n->desired = n->pending = true;
	n->vni = network->vni;
	n->mtu = network->mtu;
	set_routed(vx, n, routed_of(network));
	vx->guard_dirty = vx->guard_pending = true;
	vx_dirty_network(vx, n);
	HASH_ITER(hh, n->endpoints, e, next)
	vx_dirty_endpoint(vx, e);
	update_live(vx, n);
}

static void endpoint_free(struct vxlan *vx, struct vx_endpoint *e)
{
	vx_endpoint_claim(vx, e, 0);
	if (e->link) {
		e->link->expected = true;
		vx_link_release(vx, e->link);
	}
	if (e->dirty)
		DL_DELETE(vx->dirty_endpoints, e);
	HASH_DEL(e->network->endpoints, e);
	vx->counters.endpoints--;
	free(e->error);
	free(e);
}

static void remote_free(struct vxlan *vx, struct vx_network *n, struct vx_remote *r)
{
	HASH_DEL(n->remotes, r); /* first: see vx_endpoint_claim */
	if (n->live)
		claim_remote(vx, n, r, false);
	vx->counters.remotes--;
	free(r);
}

void vx_del_network(struct vxlan *vx, const struct id128 *id)
{
	struct vx_network *n = vx_network_find(vx, id);
	struct vx_endpoint *e, *next_endpoint;
	struct vx_remote *r, *next_remote;

	if (!n)
		return;
	vx_set_flood(vx, id, NULL, 0);
	HASH_ITER(hh, n->remotes, r, next_remote)
	remote_free(vx, n, r);
	HASH_ITER(hh, n->endpoints, e, next_endpoint)
	endpoint_free(vx, e);
	if (n->desired) {
		n->desired = false;
		vx->counters.networks--;
		vx->guard_dirty = vx->guard_pending = true;
	}
	update_live(vx, n);
	vx_dirty_network(vx, n);
}

static bool endpoint_same(const struct vx_endpoint *e, const struct driver_endpoint *d)
{
	return mac_equal(&e->mac, &d->mac) && ip_equal(&e->ip4, &d->ip4) && ip_equal(&e->ip6, &d->ip6) &&
	       strcmp(e->peer_name, d->peer_name) == 0;
}

static struct vx_endpoint *endpoint_get(struct vxlan *vx, struct vx_network *n, const char *id)
{
	struct vx_endpoint *e = vx_endpoint_find(n, id);
	struct vx_have_link *l, *next;

	if (e)
		return e;
	e = alloc_new(struct vx_endpoint);
	snprintf(e->id, sizeof(e->id), "%s", id);
	e->network = n;
	HASH_ADD_STR(n->endpoints, id, e);
	vx->counters.endpoints++;
	/* A pair that carries its tag may be there: of a life before this one. */
	if (n->links)
		HASH_ITER(hh, vx->links, l, next)
	if (l->network == n && !l->assigned && l->link.kind == VX_VETH && strcmp(l->link.tag.endpoint, id) == 0)
		vx_link_adopt(vx, l);
	return e;
}

void vx_put_endpoint(struct vxlan *vx, const struct driver_endpoint *endpoint, bool make)
{
	struct vx_network *n = vx_network_get(vx, &endpoint->network);
	struct vx_endpoint *e = vx_endpoint_find(n, endpoint->id);
	uint32_t claimed;

	if (e && e->make == make && endpoint_same(e, endpoint))
		return;
	e = endpoint_get(vx, n, endpoint->id);
	claimed = e->claimed;
	if (!endpoint_same(e, endpoint))
		vx_endpoint_claim(vx, e, 0);
	e->mac = endpoint->mac;
	e->ip4 = endpoint->ip4;
	e->ip6 = endpoint->ip6;
	memcpy(e->peer_name, endpoint->peer_name, sizeof(e->peer_name));
	e->peer_name[sizeof(e->peer_name) - 1] = '\0';
	e->make = make;
	e->peer_netns = make ? endpoint->peer_netns : 0;
	e->pending = true;
	vx_endpoint_claim(vx, e, claimed);
	vx_dirty_endpoint(vx, e);
	update_live(vx, n);
}

void vx_del_endpoint(struct vxlan *vx, const struct id128 *network, const char *id)
{
	struct vx_network *n = vx_network_find(vx, network);
	struct vx_endpoint *e = n ? vx_endpoint_find(n, id) : NULL;

	if (!e)
		return;
	endpoint_free(vx, e);
	update_live(vx, n);
	vx_dirty_network(vx, n);
}

void vx_put_remote(struct vxlan *vx, const struct driver_remote *remote)
{
	struct vx_network *n = vx_network_get(vx, &remote->network);
	struct vx_remote *r;

	HASH_FIND(hh, n->remotes, &remote->mac, sizeof(remote->mac), r);
	if (r && ip_equal(&r->ip4, &remote->ip4) && ip_equal(&r->ip6, &remote->ip6) && ip_equal(&r->vtep, &remote->vtep) &&
		r->hostno == remote->hostno)
		return;
	if (r)
		remote_free(vx, n, r);
	r = alloc_new(struct vx_remote);
	r->mac = remote->mac;
	r->ip4 = remote->ip4;
	r->ip6 = remote->ip6;
	r->vtep = remote->vtep;
	r->hostno = remote->hostno;
	HASH_ADD(hh, n->remotes, mac, sizeof(r->mac), r);
	vx->counters.remotes++;
	if (n->live)
		claim_remote(vx, n, r, true);
}

void vx_del_remote(struct vxlan *vx, const struct id128 *network, const struct mac *mac)
{
	struct vx_network *n = vx_network_find(vx, network);
	struct vx_remote *r = NULL;

	if (n)
		HASH_FIND(hh, n->remotes, mac, sizeof(*mac), r);
	if (!r)
		return;
	remote_free(vx, n, r);
	vx_dirty_network(vx, n); /* a network nobody speaks of goes with its last remote */
}

static bool listed(const struct ip *list, size_t count, const struct ip *ip)
{
	for (size_t i = 0; i < count; i++)
		if (ip_equal(&list[i], ip))
			return true;
	return false;
}

/* Our own address in the list would bring each broadcast back to us, so it is left out, and so are repetitions. */
void vx_set_flood(struct vxlan *vx, const struct id128 *network, const struct ip *vteps, size_t count)
{
	struct vx_network *n = count ? vx_network_get(vx, network) : vx_network_find(vx, network);
	struct ip *old;
	size_t old_count, kept = 0;

	if (!n || vx->routed) /* what is routed is not flooded */
		return;
	old = n->flood;
	old_count = n->flood_count;
	n->flood = count ? alloc_array(struct ip, count) : NULL;
	for (size_t i = 0; i < count; i++)
		if (!ip_equal(&vteps[i], &vx->local) && !listed(n->flood, kept, &vteps[i]))
			n->flood[kept++] = vteps[i];
	n->flood_count = kept;
	for (size_t i = 0; n->live && i < kept; i++)
		if (!listed(old, old_count, &n->flood[i]))
			vx_claim(vx, n, &(struct vx_row){.kind = VX_ROW_FLOOD, .ip = n->flood[i]}, false);
	for (size_t i = 0; n->live && i < old_count; i++)
		if (!listed(n->flood, kept, &old[i]))
			vx_unclaim(vx, n, &(struct vx_row){.kind = VX_ROW_FLOOD, .ip = old[i]});
	free(old);
}

void vx_set_members(struct vxlan *vx, const struct ip *vteps, size_t count)
{
	size_t bytes = count * sizeof(*vteps);

	if (vx->members_known && vx->member_count == count && (count == 0 || memcmp(vx->members, vteps, bytes) == 0))
		return;
	free(vx->members);
	vx->members = count ? alloc_array(struct ip, count) : NULL;
	if (count)
		memcpy(vx->members, vteps, bytes);
	vx->member_count = count;
	/* Without a network the table has no use for them: it gets them with the first one. */
	if (!vx->members_known || vx->networks)
		vx->guard_dirty = vx->guard_pending = true;
	vx->members_known = true;
}

void vx_start_over(struct vxlan *vx, uint32_t hostno)
{
	struct vx_network *n, *next;

	HASH_ITER(hh, vx->networks, n, next)
	vx_del_network(vx, &n->id);
	vx->hostno = hostno;
	vx_set_exits(vx, NULL, 0);
}

void vx_set_exits(struct vxlan *vx, const struct driver_exit *exits, size_t count)
{
	size_t bytes = count * sizeof(*exits);

	if (vx->exit_count == count && (count == 0 || memcmp(vx->exits, exits, bytes) == 0))
		return;
	free(vx->exits);
	vx->exits = count ? alloc_array(struct driver_exit, count) : NULL;
	if (count)
		memcpy(vx->exits, exits, bytes);
	vx->exit_count = count;
	vx->guard_dirty = vx->guard_pending = true;
}

void vx_desired_free(struct vxlan *vx)
{
	struct vx_network *n, *next_network;
	struct vx_entry *row, *next_row;

	HASH_ITER(hh, vx->networks, n, next_network)
	{
		vx_del_network(vx, &n->id);
		HASH_ITER(hh, n->rows, row, next_row)
		vx_entry_free(vx, row);
		n->links = 0;
		vx_network_gc(vx, n);
	}
	free(vx->members);
	free(vx->exits);
}

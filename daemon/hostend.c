/* This host's own end of a network of mode l2: the way out of it for containers of CNI, and the host's way to all its containers.
 *
 * It is an endpoint like a container's, a port of the network's bridge, but its pair ends in the host's namespace and stays
 * there. It has an address of each family from this host's custody, since every host has one: a shared one would lose the answers
 * of containers elsewhere. Its record keeps the other hosts' rows as any endpoint's does. Containers that ask for it have their
 * default route by that address; forwarding, filters and masquerade are those of mode l3, which the driver is told of by
 * datapath_set_exits.
 *
 * It is there while a container here has its way out by it, and goes with the last one, a little later. An engine's containers do
 * not use it: their way out is the engine's.
 *
 * A network whose subnet the host has a route to already has no such end: the host would lose its way to what is there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/node_internal.h"
#include "base/alloc.h"
#include "daemon/routes.h"
#include "daemon/waiters.h"
#include "driver/vxlan/vxlan.h"

#define ID_PREFIX "host-"
#define COMPARE_MS 5000
#define LINGER_MS 2000 /* the next container may come at once */

struct host_end {
	struct node *node;
	struct network *network;
	struct endpoint *ep; /* NULL: not made yet, or taken away */
	struct prefix addresses[2];
	struct id128 pool; /* being asked */
	unsigned family;   /* 0, 1: being looked after */
	unsigned left_out; /* 1 << index of a pool that a route of this host stands in the way of */
	unsigned users;	   /* attachments that have their way out here */
	bool busy;	   /* a step is under way */
	bool ready;	   /* link, addresses and routes are set */
	bool told;	   /* was ready once: the driver knows it, and a step that fails later does not change that */
	bool closing;	   /* goes when the step is done */
	bool complained;   /* its last comparison failed, and that was said */
	uint64_t compare_ms, idle_since_ms; /* when next; without users */
	struct asker *waiting;
};

bool host_end_id(const char *endpoint_id)
{
	return strncmp(endpoint_id, ID_PREFIX, strlen(ID_PREFIX)) == 0;
}

const struct prefix *host_end_addresses(const struct network *n)
{
	static const struct prefix none[2];

	return n->host_end ? n->host_end->addresses : none;
}

unsigned network_endpoints(const struct network *n)
{
	return n->local_count - (n->host_end && n->host_end->ep ? 1 : 0);
}

/* ---- what the driver is told ---- */

static struct driver_exit exit_of(const struct host_end *end)
{
	const struct network_def *def = &end->network->def;
	struct driver_exit e = {.vni = def->vni, .pool_count = def->pool_count};

	memcpy(e.ifname, end->ep->state.peer_name, sizeof(e.ifname));
	memcpy(e.pools, def->pools, def->pool_count * sizeof(def->pools[0]));
	return e;
}

static void tell_driver(struct node *node)
{
	struct driver_exit *list = alloc_array(struct driver_exit, HASH_COUNT(node->networks) + 1);
	struct network *n, *next;
	size_t count = 0;

	HASH_ITER(hh, node->networks, n, next)
	if (n->host_end && n->host_end->ep && n->host_end->told)
		list[count++] = exit_of(n->host_end);
	if (count == node->exit_count && (!count || memcmp(list, node->exits, count * sizeof(*list)) == 0)) {
		free(list);
		return;
	}
	datapath_set_exits(node, list, count);
	free(node->exits);
	node->exits = list;
	node->exit_count = count;
}

/* ---- the end of one ---- */

/* Addresses that were given and that nothing was made with. */
static void release_strays(struct node *node, const struct network *n)
{
	for (unsigned which = 0; !n->def.routed && which < 2; which++) {
		struct pool *p = network_pool(node, n, which, 0);

		if (p)
			leases_end_unused(node, &p->id, HOST_END_OWNER);
	}
}

static void answer(struct host_end *end, const struct err *err)
{
	struct asker *waiting = end->waiting;

	end->waiting = NULL;
	askers_tell(waiting, err);
}

/* Whatever step is under way finds `closing` when it is done. */
static void detach(struct host_end *end)
{
	end->closing = true;
	if (end->network)
		end->network->host_end = NULL;
	end->network = NULL;
	if (end->ep)
		end->ep->host_end = NULL;
	end->ep = NULL;
	tell_driver(end->node);
	if (!end->busy)
		free(end);
}

static void take_away(struct host_end *end)
{
	struct node *node = end->node;
	struct network *n = end->network;
	struct endpoint *ep = end->ep;

	detach(end);
	if (ep)
		endpoint_remove(node, ep, NULL, NULL);
	else
		release_strays(node, n);
}

void host_end_lost(struct endpoint *ep)
{
	if (ep->host_end)
		detach(ep->host_end);
}

/* ---- making one ---- */

static void finish(struct host_end *end, const struct err *err)
{
	struct err gone;

	end->busy = false;
	if (end->closing) {
		err_set(&gone, ERR_UNREACHABLE, "this host's end of the network was taken away meanwhile; try again");
		answer(end, err ? err : &gone);
		free(end);
		return;
	}
	end->ready = !err;
	end->told |= !err;
	tell_driver(end->node);
	end->compare_ms = clock_boot_ms() + COMPARE_MS;
	end->busy = true; /* who is answered may let go of it */
	answer(end, err);
	end->busy = false;
	if (end->closing)
		free(end);
	else if (!end->users && !end->ready)
		take_away(end);
}

/* Its own address lies there, so the kernel makes the route. */
static bool is_at_home(const struct host_end *end, const struct prefix *pool)
{
	const struct prefix *own = &end->addresses[pool->ip.family == 6];

	return prefix_is_set(own) && prefix_contains(pool, &own->ip);
}

/* A pool that the network gains later can be where this host goes otherwise; what was there first stays. */
static void look_at_routes(struct host_end *end)
{
	const struct network_def *def = &end->network->def;
	unsigned others = 0, before = end->left_out;
	char text[PREFIX_TEXT_SIZE];

	if (!end->ep) /* nothing was made while one stood in the way */
		return;
	for (unsigned i = 0; i < def->pool_count; i++)
		others |= is_at_home(end, &def->pools[i]) ? 0 : 1u << i;
	end->left_out = others ? others & routes_overlap(def->pools, def->pool_count, end->ep->state.peer_name) : 0;
	for (unsigned i = 0; i < def->pool_count; i++)
		if (end->left_out & ~before & 1u << i)
			log_warn("hostend",
				"subnet %s, which network \"%s\" has gained, overlaps a route of this host: the route stays, and "
				"this host, and containers whose way out it is, do not reach the subnet by the network; remove "
				"the "
				"route to change that",
				prefix_format(&def->pools[i], text), def->name);
}

static void wanted_link(const struct host_end *end, struct workload_link *link)
{
	const struct network_def *def = &end->network->def;

	*link = (struct workload_link){.mac = end->ep->state.mac,
		.mtu = def->mtu,
		.group = vxlan_pair_group(def->vni),
		.addresses = {end->addresses[0], end->addresses[1]}};
	snprintf(link->ifname, sizeof(link->ifname), "%s", end->ep->state.peer_name);
	/* Not the tag of what the driver makes, which it would take for its own. */
	snprintf(link->alias, sizeof(link->alias), "trestle network %s", def->name);
	link->routes = alloc_array(struct workload_route, NETWORK_POOLS_MAX);
	for (unsigned i = 0; i < def->pool_count; i++) {
		const struct prefix *own = &end->addresses[def->pools[i].ip.family == 6];

		if (prefix_is_set(own) && !is_at_home(end, &def->pools[i]) && !(end->left_out & 1u << i))
			link->routes[link->route_count++].to = def->pools[i];
	}
}

static void run_link(struct host_end *end,
	void (*work)(struct node *node, int netns_fd, const struct workload_link *link,
		void (*fn)(void *arg, const struct err *err), void *arg),
	void (*fn)(void *arg, const struct err *err))
{
	struct workload_link link;

	wanted_link(end, &link);
	work(end->node, end->node->host_netns_fd, &link, fn, end);
	free(link.routes);
}

static void set_up(void *arg, const struct err *err)
{
	struct host_end *end = arg;

	if (err && !end->complained && !end->closing)
		log_warn("hostend", "this host's end of network \"%s\": %s", end->network->def.name, err->text);
	end->complained = err != NULL;
	finish(end, err);
}

static void made(void *arg, const struct err *err)
{
	struct host_end *end = arg;

	if (err || end->closing) {
		if (end->ep) /* its creation removes it */
			end->ep->host_end = NULL;
		end->ep = NULL;
		end->told = false;
		memset(end->addresses, 0, sizeof(end->addresses));
		if (!end->closing)
			release_strays(end->node, end->network);
		finish(end, err);
		return;
	}
	run_link(end, workload_link_repair, set_up);
}

/* Of the network's id: the same at each start, and another one's is another. */
static void make_ifname(const struct network *n, char buf[DRIVER_IFNAME_SIZE])
{
	char id[ID_TEXT_SIZE];

	snprintf(buf, DRIVER_IFNAME_SIZE, "th%.10s", id_format(&n->id, id));
}

static void make(struct host_end *end)
{
	char id[ID_TEXT_SIZE], endpoint_id[sizeof(ID_PREFIX) + ID_TEXT_SIZE], ifname[DRIVER_IFNAME_SIZE];
	struct endpoint_want want = {.id = endpoint_id,
		.network = end->network,
		.ifname = ifname,
		.host_end = end,
		.address4 = end->addresses[0],
		.address6 = end->addresses[1],
		.sandbox = "",
		.netns_fd = -1,
		.own_lease4 = true,
		.own_lease6 = true};

	id_format(&end->network->id, id);
	snprintf(endpoint_id, sizeof(endpoint_id), ID_PREFIX "%s", id);
	make_ifname(end->network, ifname);
	endpoint_make(end->node, &want, made, end);
}

void host_end_has(struct host_end *end, struct endpoint *ep)
{
	end->ep = ep;
	ep->host_end = end;
}

static void next_family(struct host_end *end);

static void given(void *arg, const struct ipam_result *result)
{
	struct host_end *end = arg;
	struct pool *p = pool_by_id(end->node, &end->pool);
	struct ip none = {0};
	struct err err;

	if (end->closing || !p) {
		if (p && result->code == IPAM_GRANTED)
			ipam_release(end->node->ipam, &p->id, &result->address, clock_boot_ms());
		err_set(&err, ERR_UNREACHABLE, "the pool was given up meanwhile; try again");
		finish(end, &err);
		return;
	}
	if (result->code != IPAM_GRANTED && end->ep) { /* a family gained later: asked for again, the other one works on */
		end->family++;
		next_family(end);
		return;
	}
	if (result->code != IPAM_GRANTED) {
		custody_explain(end->node, result, &none, &p->state.def.prefix, &err);
		err_prefix(&err, "an address for this host, by which containers have their way out of network \"%s\"",
			end->network->def.name);
		finish(end, &err);
		return;
	}
	end->addresses[end->family] = (struct prefix){.ip = result->address, .length = p->state.def.prefix.length};
	if (end->ep)
		endpoint_gain_address(end->node, end->ep, &end->addresses[end->family]);
	end->family++;
	next_family(end);
}

/* Where an address of a family that it has none of would come from. */
static struct pool *lacked_pool(const struct host_end *end, unsigned which)
{
	if (prefix_is_set(&end->addresses[which]))
		return NULL;
	return network_pool(end->node, end->network, which, end->left_out);
}

static void next_family(struct host_end *end)
{
	struct ipam_want want = {.owner = HOST_END_OWNER};
	struct pool *p;

	for (; end->family < 2; end->family++) {
		p = lacked_pool(end, end->family);
		if (!p)
			continue;
		end->pool = want.pool = p->id;
		custody_ask(end->node, &want, given, end);
		return;
	}
	if (end->ep)
		run_link(end, workload_link_repair, set_up);
	else
		make(end);
}

static void begin(struct host_end *end)
{
	end->busy = true;
	end->family = 0;
	next_family(end);
}

static bool lacks_family(const struct host_end *end)
{
	return lacked_pool(end, 0) || lacked_pool(end, 1);
}

static struct host_end *end_new(struct node *node, struct network *n)
{
	struct host_end *end = alloc_new(struct host_end);

	end->node = node;
	end->network = n;
	n->host_end = end;
	return end;
}

static int check_routes(const struct network *n, struct err *err)
{
	char text[PREFIX_TEXT_SIZE], ifname[DRIVER_IFNAME_SIZE];
	unsigned taken;

	make_ifname(n, ifname); /* a former end may not have been deleted yet */
	taken = routes_overlap(n->def.pools, n->def.pool_count, ifname);
	if (!taken)
		return 0;
	return err_set(err, ERR_CONFLICT,
		"subnet %s of network \"%s\" overlaps a route of this host, which would lose its way there: use another subnet, "
		"or "
		"\"isDefaultGateway\": false for a network without a way out",
		prefix_format(&n->def.pools[__builtin_ctz(taken)], text), n->def.name);
}

void host_end_obtain(
	struct node *node, struct workload *w, struct network *n, void (*fn)(void *arg, const struct err *err), void *arg)
{
	struct host_end *end = n->host_end;
	struct err err;

	if (!end && check_routes(n, &err) < 0) {
		fn(arg, &err);
		return;
	}
	if (!end)
		end = end_new(node, n);
	if (!w->exits)
		end->users++;
	w->exits = true;
	w->exit_network = n->id;
	if (end->ready && !end->busy && !lacks_family(end)) {
		fn(arg, NULL);
		return;
	}
	askers_add(&end->waiting, fn, arg);
	if (end->busy)
		return;
	look_at_routes(end);
	begin(end);
}

void host_end_release(struct node *node, struct workload *w)
{
	struct network *n = w->exits ? network_by_id(node, &w->exit_network) : NULL;
	struct host_end *end = n ? n->host_end : NULL;

	w->exits = false;
	if (end && end->users && --end->users == 0)
		end->idle_since_ms = clock_boot_ms();
}

void host_end_drop(struct node *node, struct network *n)
{
	(void)node;
	if (n->host_end && !n->host_end->users)
		take_away(n->host_end);
}

/* ---- as it should be ---- */

static void compared(void *arg, const struct err *err)
{
	struct host_end *end = arg;

	if (!err || end->closing) {
		finish(end, NULL);
		return;
	}
	log_info("hostend", "this host's end of network \"%s\" was changed (%s), setting it up again", end->network->def.name,
		err->text);
	run_link(end, workload_link_repair, set_up);
}

static void look_at(struct host_end *end)
{
	look_at_routes(end);
	if (!end->ready || lacks_family(end)) {
		begin(end);
		return;
	}
	end->busy = true;
	run_link(end, workload_link_check, compared);
}

void host_ends_tick(struct node *node)
{
	struct network *n, *next;
	uint64_t now = clock_boot_ms();

	HASH_ITER(hh, node->networks, n, next)
	{
		struct host_end *end = n->host_end;

		if (!end || end->busy)
			continue;
		if (!end->users && now - end->idle_since_ms >= LINGER_MS)
			take_away(end);
		else if (end->users && (!end->ready || now >= end->compare_ms))
			look_at(end);
	}
	tell_driver(node);
}

/* ---- start and end ---- */

/* Taken for what it was, and compared soon: at its first comparison the driver must know of it, or translation would pause. */
void host_end_adopt(struct node *node, struct endpoint *ep)
{
	struct host_end *end = end_new(node, ep->network);

	host_end_has(end, ep);
	end->addresses[0] = ep->state.address4;
	end->addresses[1] = ep->state.address6;
	end->ready = end->told = true;
	tell_driver(node);
}

void host_ends_begin(struct node *node)
{
	struct workload *w, *next_workload;
	struct network *n, *next;

	HASH_ITER(hh, node->workloads, w, next_workload)
	{
		n = w->exits ? network_by_id(node, &w->exit_network) : NULL;
		if (n && !n->host_end)
			end_new(node, n);
		if (n)
			n->host_end->users++;
	}
	HASH_ITER(hh, node->networks, n, next)
	{
		release_strays(node, n);
		if (n->host_end && !n->host_end->users)
			take_away(n->host_end);
	}
	host_ends_tick(node);
}

void host_ends_stop(struct node *node)
{
	struct network *n, *next;

	HASH_ITER(hh, node->networks, n, next)
	{
		free(n->host_end);
		n->host_end = NULL;
	}
	free(node->exits);
	node->exits = NULL;
}

/* What the container's side of an attachment is to be: its name, addresses, and the routes by which it reaches the network and
 * everywhere else. workload_link.c brings it about. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"

#include "daemon/node_internal.h"

const struct ip workload_gateways[2] = {{.family = 4, .bytes = {169, 254, 1, 1}}, {.family = 6, .bytes = {0xfe, 0x80, [15] = 1}}};

static void add_route(struct workload_link *link, struct workload_route route)
{
	link->routes[link->route_count++] = route;
}

/* By the gateway to the network's own subnets, and to everywhere else unless the container has a way already, or is to have none.
 */
static void add_routes(const struct workload *w, struct workload_link *link)
{
	const struct network *n = w->ep->network;

	for (unsigned i = 0; i < 2; i++) {
		struct prefix everywhere = {.ip = {.family = workload_gateways[i].family}};

		if (!prefix_is_set(&link->addresses[i]))
			continue;
		for (unsigned j = 0; j < n->def.pool_count; j++)
			if (n->def.pools[j].ip.family == workload_gateways[i].family)
				add_route(link, (struct workload_route){n->def.pools[j], workload_gateways[i], true, false});
		if (!n->def.internal && !w->no_exit)
			add_route(link, (struct workload_route){everywhere, workload_gateways[i], true, true});
	}
}

bool workload_has_default(const struct workload *w, uint8_t family)
{
	for (unsigned i = 0; i < w->route_count; i++)
		if (w->routes[i].to.ip.family == family && w->routes[i].to.length == 0)
			return true;
	return false;
}

const struct ip *workload_exit(const struct workload *w, unsigned which)
{
	const struct prefix *own = w->exits && w->ep ? &host_end_addresses(w->ep->network)[which] : NULL;
	const struct prefix *address = !w->ep ? NULL : which ? &w->ep->state.address6 : &w->ep->state.address4;

	if (!own || !prefix_is_set(own) || !prefix_is_set(address) || workload_has_default(w, which ? 6 : 4))
		return NULL;
	return &own->ip;
}

/* By this host's end, unless the container has a way already. */
static void add_exits(const struct workload *w, struct workload_link *link)
{
	for (unsigned i = 0; i < 2; i++) {
		const struct ip *gateway = workload_exit(w, i);
		struct prefix everywhere = {.ip = {.family = i ? 6 : 4}};

		if (gateway)
			add_route(link, (struct workload_route){
						everywhere, *gateway, !prefix_contains(&link->addresses[i], gateway), true});
	}
}

/* A route of the configuration's. In mode l3 a gateway of the network's own subnets, as IPAM plugins name one, is the host. */
static void add_asked_route(const struct network *n, const struct workload_route *asked, struct workload_link *link)
{
	struct workload_route route = *asked;

	if (link->routed && (!ip_is_set(&route.gateway) || network_subnet(n, &route.gateway)))
		route.gateway = workload_gateways[route.to.ip.family == 6];
	route.onlink = link->routed;
	for (unsigned i = 0; i < link->route_count; i++)
		if (prefix_equal(&link->routes[i].to, &route.to) && ip_equal(&link->routes[i].gateway, &route.gateway))
			return;
	add_route(link, route);
}

void workload_fill_link(const struct workload *w, struct workload_link *link)
{
	const struct endpoint *ep = w->ep;
	char id[ID_TEXT_SIZE];

	snprintf(link->ifname, sizeof(link->ifname), "%s", w->ifname);
	snprintf(link->alias, sizeof(link->alias), "trestle:%s:%s", id_format(&ep->state.network, id), ep->id);
	link->mac = ep->state.mac;
	link->mtu = w->mtu;
	link->addresses[0] = ep->state.address4;
	link->addresses[1] = ep->state.address6;
	link->routed = ep->network->def.routed;
	link->routes = alloc_array(struct workload_route, w->route_count + NETWORK_POOLS_MAX + 2);
	if (link->routed)
		add_routes(w, link);
	else if (w->exits)
		add_exits(w, link);
	for (unsigned i = 0; i < w->route_count; i++)
		add_asked_route(ep->network, &w->routes[i], link);
}

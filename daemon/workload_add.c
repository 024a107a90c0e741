/* Making an attachment, step by step: the network and its pools, an address of each family, the endpoint, the container's side,
 * the note that it is done, the answer. Or, for another CNI plugin, addresses alone.
 *
 * Each step ends in the next or in fail(), which undoes what was done. A DEL in between marks the attachment as closing; the next
 * step sees it and fails. Nothing waits for another host but an address or a name that only another host can give. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/node_internal.h"
#include "base/alloc.h"
#include "netlink/netns.h"

struct workload_add {
	struct node *node;
	struct control_call *call;
	struct workload *w;
	json_t *body; /* own reference */
	struct network_spec spec;
	unsigned at; /* of spec.pools */
	struct network *network;
	int netns_fd;
	bool given;	    /* another IPAM plugin gave the addresses */
	struct ip asked[2]; /* IPv4, IPv6; unset: any */
	unsigned family;    /* 0, 1: being looked after */
	unsigned tried;	    /* pools of that family that had no address */
	struct id128 pool;  /* being asked */
	bool gateway;	    /* the shared gateway is asked for */
	struct prefix addresses[2];
	struct id128 pools[2];
	struct ip gateways[2];
	bool leased[2];
	struct id128 pinned[NETWORK_POOLS_MAX]; /* pools that we pinned, to be let go if nothing comes of it */
	unsigned pinned_count;
	bool addresses_only;
	bool made; /* the endpoint is there, with the container's side */
	uint64_t netns_dev, netns_ino;
	struct err why;
};

static const char *text_member(const struct workload_add *a, const char *name)
{
	return json_string_value(json_object_get(a->body, name));
}

/* ---- the end, bad and good ---- */

static void driver_let_go(void *arg, const struct err *err)
{
	int *fd = arg;

	(void)err;
	close(*fd);
	free(fd);
}

/* The driver may hold the namespace until it has been told that the pair is made, or is not wanted. */
static void close_netns(struct workload_add *a)
{
	int *fd = alloc_new(int);

	*fd = a->netns_fd;
	datapath_commit(a->node, &a->network->id, NULL, driver_let_go, fd);
}

static void add_free(struct workload_add *a)
{
	if (a->netns_fd >= 0 && a->network && !a->made)
		close_netns(a);
	else if (a->netns_fd >= 0)
		close(a->netns_fd);
	json_decref(a->body);
	free(a);
}

static bool pool_serves_network(struct node *node, const struct pool *p)
{
	struct network *n, *next;

	HASH_ITER(hh, node->networks, n, next)
	if (n->mine && network_def_has(&n->def, &p->state.def.prefix))
		return true;
	return false;
}

static void let_go_of_pools(struct workload_add *a)
{
	for (unsigned i = 0; i < a->pinned_count; i++) {
		struct pool *p = pool_by_id(a->node, &a->pinned[i]);

		if (p && !pool_serves_network(a->node, p))
			workload_pool_unused(a->node, p);
	}
}

static void undone(void *arg)
{
	struct workload_add *a = arg;

	workload_ended(a->node, a->w);
	let_go_of_pools(a);
	control_fail(a->call, &a->why);
	add_free(a);
}

/* The answer comes when nothing is left, so that whoever tries again at once finds the way clear. */
static void fail(struct workload_add *a, const struct err *err)
{
	struct endpoint *ep = a->w->ep;

	a->why = *err;
	workload_release(a->node, a->w);
	if (ep)
		endpoint_remove(a->node, ep, undone, a);
	else
		outbox_call(a->node->outbox, undone, a);
}

static bool ended_meanwhile(struct workload_add *a)
{
	struct err err;

	if (!a->w->closing && !a->node->leaving && !control_gone(a->call))
		return false;
	err_set(&err, ERR_UNREACHABLE, "the attachment was deleted while it was made");
	fail(a, &err);
	return true;
}

static const char *prefix_or_null(const struct prefix *prefix, char buf[PREFIX_TEXT_SIZE])
{
	return prefix_is_set(prefix) ? prefix_format(prefix, buf) : NULL;
}

static json_t *ips_json(const struct prefix addresses[2], const struct ip gateways[2])
{
	json_t *list = json_array();
	char text[PREFIX_TEXT_SIZE], gateway[IP_TEXT_SIZE];

	for (unsigned i = 0; i < 2; i++)
		if (prefix_or_null(&addresses[i], text))
			json_array_append_new(list, json_pack("{s:s, s:s?}", "address", text, "gateway",
							    ip_is_set(&gateways[i]) ? ip_format(&gateways[i], gateway) : NULL));
	return list;
}

static json_t *routes_json(const struct workload *w)
{
	json_t *list = json_array();
	char to[PREFIX_TEXT_SIZE], gateway[IP_TEXT_SIZE];
	struct workload_link link = {0};

	workload_fill_link(w, &link);
	for (unsigned i = 0; i < link.route_count; i++) {
		json_t *route = json_pack("{s:s}", "dst", prefix_format(&link.routes[i].to, to));

		if (ip_is_set(&link.routes[i].gateway))
			json_object_set_new(route, "gw", json_string(ip_format(&link.routes[i].gateway, gateway)));
		json_array_append_new(list, route);
	}
	free(link.routes);
	return list;
}

static json_t *answer_json(const struct workload_add *a)
{
	struct ip exits[2] = {0}; /* mode l2: where nothing of ours answers there is none */
	const struct workload *w = a->w;
	char mac[MAC_TEXT_SIZE], host_mac[MAC_TEXT_SIZE];
	const char *ifname;
	bool routed;

	if (w->addresses_only)
		return json_pack("{s:o}", "ips", ips_json(a->addresses, a->gateways));
	routed = w->ep->network->def.routed;
	for (unsigned i = 0; i < 2; i++)
		if (workload_exit(w, i))
			exits[i] = *workload_exit(w, i);
	ifname = routed && w->ep->host_ifname[0] ? w->ep->host_ifname : NULL;
	mac_format(&DRIVER_GATEWAY_MAC, host_mac);
	return json_pack("{s:s, s:s, s:s, s:s, s:s?, s:s?, s:o, s:o, s:i, s:s}", "endpoint_id", w->ep->id, "network",
		w->ep->network->def.name, "mode", network_mode_name(&w->ep->network->def), "mac",
		mac_format(&w->ep->state.mac, mac), "host_ifname", ifname, "host_mac", ifname ? host_mac : NULL, "ips",
		ips_json(a->addresses, routed ? workload_gateways : exits), "routes", routes_json(w), "mtu", (int)w->mtu,
		"netns_ifname", w->ifname);
}

static void answer(void *arg)
{
	struct workload_add *a = arg;

	/* A client that is gone cannot have been given anything: its runtime comes again with DEL, or with the same ADD. */
	if (ended_meanwhile(a))
		return;
	a->w->add = NULL;
	control_done(a->call, answer_json(a));
	add_free(a);
}

static void finish(struct workload_add *a)
{
	if (ended_meanwhile(a))
		return;
	a->w->done = true;
	workload_save(a->node, a->w);
	outbox_call(a->node->outbox, answer, a);
}

/* ---- the endpoint ---- */

static void made(void *arg, const struct err *err)
{
	struct workload_add *a = arg;
	struct err named;

	if (!err) {
		a->made = true;
		finish(a);
		return;
	}
	/* What is in the way, and whose it is, is for the plugin to find out, which can look. */
	named = *err;
	if (named.sys_errno == EEXIST)
		named.code = ERR_EXISTS;
	if (a->w->closing)
		named.code = ERR_UNREACHABLE;
	fail(a, &named);
}

/* Mode l3: an address stands alone, and everything else is behind the gateway. */
static void route_addresses(struct workload_add *a, struct endpoint_want *want)
{
	for (unsigned i = 0; a->network->def.routed && i < 2; i++)
		if (prefix_is_set(&a->addresses[i]))
			a->addresses[i].length = (uint8_t)ip_bits(&a->addresses[i].ip);
	want->address4 = a->addresses[0];
	want->address6 = a->addresses[1];
}

static void make_endpoint(struct workload_add *a)
{
	struct endpoint_want want = {.id = a->w->endpoint_id,
		.network = a->network,
		.ifname = a->w->ifname,
		.workload = a->w,
		.netns_fd = a->netns_fd,
		.own_lease4 = a->leased[0],
		.own_lease6 = a->leased[1]};
	const char *mac = text_member(a, "mac"), *sandbox = text_member(a, "sandbox");

	route_addresses(a, &want);

	want.sandbox = sandbox ? sandbox : "";
	if (mac)
		mac_parse(mac, &want.mac, NULL);
	/* From here on the leases are the endpoint's; one that it did not come to bind still carries our label. */
	a->leased[0] = a->leased[1] = false;
	endpoint_make(a->node, &want, made, a);
}

/* ---- the way out, in mode l2 ---- */

static bool wants_exit(const struct workload_add *a)
{
	if (a->network->def.routed || a->network->def.internal || a->given || a->w->no_exit)
		return false;
	for (unsigned i = 0; i < 2; i++)
		if (prefix_is_set(&a->addresses[i]) && !workload_has_default(a->w, i ? 6 : 4))
			return true;
	return false;
}

static void have_exit(void *arg, const struct err *err)
{
	struct workload_add *a = arg;

	if (err)
		fail(a, err);
	else if (!ended_meanwhile(a))
		make_endpoint(a);
}

/* ---- addresses ---- */

static void next_family(struct workload_add *a);

/* The pools of the network, or those that were asked for by subnet. */
static unsigned pool_count(const struct workload_add *a)
{
	return a->network ? a->network->def.pool_count : a->spec.pool_count;
}

static const struct prefix *pool_prefix(const struct workload_add *a, unsigned i)
{
	return a->network ? &a->network->def.pools[i] : &a->spec.pools[i];
}

static struct pool *find_pool(struct workload_add *a, const struct prefix *prefix)
{
	struct pool *p = pools_find(a->node, POOL_SPACE_LOCAL, prefix);

	if (!p || !p->joined || !pool_in_use(p))
		p = pools_find(a->node, POOL_SPACE_GLOBAL, prefix);
	return p && p->joined && pool_in_use(p) ? p : NULL;
}

/* The n-th pool of the family that could give the address. */
static struct pool *candidate(struct workload_add *a, unsigned n)
{
	uint8_t family = a->family ? 6 : 4;

	for (unsigned i = 0; i < pool_count(a); i++) {
		const struct prefix *prefix = pool_prefix(a, i);
		const struct ip *asked = &a->asked[a->family];
		struct pool *p = prefix->ip.family == family ? find_pool(a, prefix) : NULL;

		if (!p || (ip_is_set(asked) && !prefix_contains(prefix, asked)))
			continue;
		if (n-- == 0)
			return p;
	}
	return NULL;
}

static bool has_family(const struct workload_add *a, uint8_t family)
{
	for (unsigned i = 0; i < pool_count(a); i++)
		if (pool_prefix(a, i)->ip.family == family)
			return true;
	return false;
}

static void explain(struct workload_add *a, const struct ipam_result *result, const struct pool *p, struct err *err)
{
	custody_explain(a->node, result, &a->asked[a->family], &p->state.def.prefix, err);
	/* Asked for by name and not to be had: one kind of error, whoever has it. */
	if (result->code == IPAM_IN_USE || result->code == IPAM_OUTSIDE)
		err->code = ERR_CONFLICT;
}

static void ask(struct workload_add *a, struct pool *p);

static void keep_gateway(struct workload_add *a, struct pool *p, const struct ip *ip)
{
	a->gateways[a->family] = *ip;
	pools_reserve(a->node, &p->state.def.prefix, ip, true);
}

static void given(void *arg, const struct ipam_result *result)
{
	struct workload_add *a = arg;
	struct pool *p = pool_by_id(a->node, &a->pool);
	struct err err;

	if (!p) {
		err_set(&err, ERR_UNREACHABLE, "the pool was given up meanwhile; try again");
		fail(a, &err);
		return;
	}
	if (result->code == IPAM_EXHAUSTED && candidate(a, ++a->tried)) {
		ask(a, candidate(a, a->tried));
		return;
	}
	if (result->code != IPAM_GRANTED) {
		explain(a, result, p, &err);
		fail(a, &err);
		return;
	}
	if (a->gateway) {
		a->gateway = false;
		keep_gateway(a, p, &result->address);
		ask(a, p);
		return;
	}
	a->addresses[a->family] = (struct prefix){.ip = result->address, .length = p->state.def.prefix.length};
	a->pools[a->family] = p->id;
	a->leased[a->family] = true;
	if (ended_meanwhile(a))
		return;
	a->family++;
	next_family(a);
}

/* An engine that makes the same network later, or a plugin that asks for addresses alone, has a gateway in it: no container may
 * have got that address. */
static bool needs_gateway(struct workload_add *a, const struct pool *p)
{
	if (ip_is_set(&a->gateways[a->family]) || (a->network && a->network->def.routed))
		return false;
	if (!p->state.gateway_count)
		return true;
	a->gateways[a->family] = p->state.gateways[0];
	return false;
}

static void ask(struct workload_add *a, struct pool *p)
{
	char owner[IPAM_OWNER_MAX + 1] = "the gateway";
	struct ipam_want want = {.pool = p->id, .owner = owner};

	a->pool = p->id;
	a->gateway = needs_gateway(a, p);
	if (a->gateway) {
		want.use = IPAM_USE_SHARED;
		want.shared_first = true;
	} else {
		workload_label(a->w, owner);
		want.address = a->asked[a->family];
	}
	custody_ask(a->node, &want, given, a);
}

static int refuse_asked(struct workload_add *a, struct err *err)
{
	const struct ip *asked = &a->asked[a->family];
	char text[IP_TEXT_SIZE];

	if (!ip_is_set(asked))
		return 0;
	return err_set(err, ERR_CONFLICT, "address %s lies in no pool of %s%s", ip_format(asked, text),
		a->network ? "network " : "this configuration", a->network ? a->network->def.name : "");
}

static void save_addresses(struct workload_add *a)
{
	char owner[IPAM_OWNER_MAX + 1];

	workload_label(a->w, owner);
	for (unsigned i = 0; i < 2; i++) {
		a->w->leases[i] =
			(struct workload_lease){.pool = a->pools[i], .address = a->addresses[i], .gateway = a->gateways[i]};
		if (a->leased[i])
			ipam_bind(a->node->ipam, &a->pools[i], &a->addresses[i].ip, true, owner, clock_boot_ms());
	}
	custody_poke(a->node);
	finish(a);
}

static void have_addresses(struct workload_add *a)
{
	struct err err;

	if (!prefix_is_set(&a->addresses[0]) && !prefix_is_set(&a->addresses[1])) {
		err_set(&err, ERR_INVALID, "network \"%s\" has no subnet to take an address from",
			a->network ? a->network->def.name : "?");
		fail(a, &err);
	} else if (a->addresses_only) {
		save_addresses(a);
	} else if (wants_exit(a)) {
		host_end_obtain(a->node, a->w, a->network, have_exit, a);
	} else {
		make_endpoint(a);
	}
}

static void next_family(struct workload_add *a)
{
	struct pool *p;
	struct err err;

	for (; a->family < 2; a->family++) {
		a->tried = 0;
		p = candidate(a, 0);
		if (p) {
			ask(a, p);
			return;
		}
		if (refuse_asked(a, &err) < 0) {
			fail(a, &err);
			return;
		}
		if (has_family(a, a->family ? 6 : 4)) {
			err_set(&err, ERR_UNREACHABLE, "the pool of network \"%s\" is not ready; try again",
				a->network ? a->network->def.name : "?");
			fail(a, &err);
			return;
		}
	}
	have_addresses(a);
}

/* Addresses that another plugin gave: no lease, but nobody else of the network may have them. */
static int take_given(struct workload_add *a, struct err *err)
{
	json_t *ips = json_object_get(a->body, "ips"), *item;
	char text[IP_TEXT_SIZE];
	struct prefix prefix;
	size_t i;

	json_array_foreach(ips, i, item)
	{
		struct prefix *to;

		if (prefix_parse(json_string_value(item), &prefix, err) < 0)
			return -1;
		to = &a->addresses[prefix.ip.family == 6];
		if (prefix_is_set(to))
			return err_set(err, ERR_INVALID,
				"an attachment has one IPv%u address at most, the IPAM plugin gave several", prefix.ip.family);
		if (a->network->def.routed && !network_subnet(a->network, &prefix.ip))
			return err_set(err, ERR_INVALID,
				"address %s, given by the IPAM plugin, lies in no subnet of network \"%s\", and in mode l3 the "
				"hosts "
				"route those alone; name its subnet in the configuration",
				ip_format(&prefix.ip, text), a->network->def.name);
		if (endpoint_with_ip(a->node, &a->network->id, &prefix.ip))
			return err_set(err, ERR_CONFLICT, "address %s is used by another endpoint of network \"%s\" on this host",
				ip_format(&prefix.ip, text), a->network->def.name);
		*to = prefix;
	}
	return 0;
}

static void take_addresses(struct workload_add *a)
{
	struct err err;

	if (ended_meanwhile(a))
		return;
	if (!a->given)
		next_family(a);
	else if (take_given(a, &err) < 0)
		fail(a, &err);
	else
		have_addresses(a);
}

/* ---- network and pools ---- */

static int settle_mtu(struct workload_add *a, struct err *err)
{
	uint32_t asked = (uint32_t)json_integer_value(json_object_get(a->body, "mtu"));

	if (asked > a->network->def.mtu)
		return err_set(err, ERR_INVALID, "mtu: network \"%s\" carries %u, asked for is %u", a->network->def.name,
			a->network->def.mtu, asked);
	if (asked && asked < IPV6_MTU_MIN && has_family(a, 6))
		return err_set(err, ERR_INVALID, "mtu: network \"%s\" has IPv6, which needs %u, asked for is %u",
			a->network->def.name, IPV6_MTU_MIN, asked);
	a->w->mtu = asked ? asked : a->network->def.mtu;
	return 0;
}

static int check_pool(struct workload_add *a, const struct prefix *pool, struct err *err)
{
	const struct ip *vtep = &a->node->options.vtep;
	struct network *n, *next;
	char text[PREFIX_TEXT_SIZE], other[PREFIX_TEXT_SIZE];

	if (vtep->family == pool->ip.family && prefix_contains(pool, vtep))
		return err_set(err, ERR_CONFLICT,
			"subnet %s of network \"%s\" holds this host's underlay address %s: in mode l3 the host could not tell "
			"them "
			"apart",
			prefix_format(pool, text), a->network->def.name, ip_format(vtep, other));
	HASH_ITER(hh, a->node->networks, n, next)
	for (unsigned i = 0; n != a->network && n->programmed && n->def.routed && i < n->def.pool_count; i++)
		if (prefix_overlaps(pool, &n->def.pools[i]))
			return err_set(err, ERR_CONFLICT,
				"subnet %s of network \"%s\" overlaps %s of network \"%s\": both are of mode l3, and this host "
				"routes "
				"an address to one of them only",
				prefix_format(pool, text), a->network->def.name, prefix_format(&n->def.pools[i], other),
				n->def.name);
	return 0;
}

/* What mode l3 asks of a network: one host's routes are those of all of them. */
static int check_routed(struct workload_add *a, struct err *err)
{
	const struct network *n = a->network;

	if (!n->def.routed || a->addresses_only)
		return 0;
	if (!n->def.pool_count)
		return err_set(err, ERR_INVALID,
			"network \"%s\" has no subnet, and mode l3 routes by them: name one in the configuration (\"subnet\"), "
			"or "
			"use \"mode\": \"l2\"",
			n->def.name);
	for (unsigned i = 0; i < n->def.pool_count; i++)
		if (check_pool(a, &n->def.pools[i], err) < 0)
			return -1;
	return 0;
}

/* A name in a configuration file is as good as `trestle network create`: the network stays when its last container goes. */
static void pin_network(struct workload_add *a)
{
	struct network *n = a->network;

	if (n->pinned)
		return;
	n->pinned = true;
	network_keep(a->node, n);
}

static void got_network(void *arg, struct network *n, const struct err *failed)
{
	struct workload_add *a = arg;
	struct err err;

	if (failed) {
		err = *failed;
		if (err.code == ERR_EXISTS) /* with other subnets: the configuration is at fault */
			err.code = ERR_INVALID;
		fail(a, &err);
		return;
	}
	a->network = n;
	pin_network(a);
	if (settle_mtu(a, &err) < 0 || check_routed(a, &err) < 0)
		fail(a, &err);
	else
		take_addresses(a);
}

static void next_pool(struct workload_add *a);

static void got_pool(void *arg, struct pool *p, const struct err *failed)
{
	struct workload_add *a = arg;
	struct err err;

	if (failed) {
		err = *failed;
		if (err.code == ERR_CONFLICT || err.code == ERR_EXISTS)
			err.code = ERR_INVALID;
		fail(a, &err);
		return;
	}
	if (!p->state.pinned) {
		p->state.pinned = true;
		a->pinned[a->pinned_count++] = p->id;
		pool_keep(a->node, p);
	}
	if (!a->spec.pool_count && a->at == 0)
		a->spec.pools[a->spec.pool_count++] = p->state.def.prefix; /* it was chosen for us */
	a->at++;
	next_pool(a);
}

static enum pool_space space_of(struct node *node, const struct prefix *prefix)
{
	struct pool *global = prefix_is_set(prefix) ? pools_find(node, POOL_SPACE_GLOBAL, prefix) : NULL;

	return global && pool_in_use(global) ? POOL_SPACE_GLOBAL : POOL_SPACE_LOCAL;
}

static void next_pool(struct workload_add *a)
{
	bool choose = !a->spec.pool_count && !a->given && a->at == 0;
	struct pool_spec spec = {.name = a->spec.name};

	if (ended_meanwhile(a))
		return;
	if (a->at < a->spec.pool_count || choose) {
		if (!choose)
			spec.prefix = a->spec.pools[a->at];
		spec.family = choose ? 4 : spec.prefix.ip.family;
		spec.space = space_of(a->node, &spec.prefix);
		pool_obtain(a->node, &spec, got_pool, a);
	} else if (a->spec.name[0]) {
		network_obtain(a->node, &a->spec, got_network, a);
	} else {
		take_addresses(a);
	}
}

static int add_subnet(struct workload_add *a, const char *name, struct err *err)
{
	const char *text = text_member(a, name);
	struct prefix prefix;

	if (!text)
		return 0;
	if (prefix_parse(text, &prefix, err) < 0)
		return err_prefix(err, "%s", name);
	a->spec.pools[a->spec.pool_count++] = prefix_masked(&prefix);
	return 0;
}

/* All that the network has, and what it gains. Before any pool is made: network_obtain would refuse it too, and leave the pools
 * behind. */
static int take_subnets(const struct network *n, struct network_spec *spec, struct err *err)
{
	struct prefix pools[NETWORK_POOLS_MAX];
	unsigned count = n->def.pool_count;
	char text[PREFIX_TEXT_SIZE];

	memcpy(pools, n->def.pools, sizeof(pools));
	for (unsigned i = 0; i < spec->pool_count; i++) {
		if (network_def_has(&n->def, &spec->pools[i]))
			continue;
		if (count == NETWORK_POOLS_MAX || !network_may_gain(n, spec, &spec->pools[i]))
			return err_set(err, ERR_INVALID,
				"network \"%s\" exists with other subnets than %s; leave the subnet out, or use another name",
				n->def.name, prefix_format(&spec->pools[i], text));
		pools[count++] = spec->pools[i];
	}
	memcpy(spec->pools, pools, sizeof(pools));
	spec->pool_count = count;
	return 0;
}

static int check_mode(const struct network *n, const struct network_spec *spec, struct err *err)
{
	if (spec->mode == NETWORK_MODE_ANY || (spec->mode == NETWORK_MODE_L3) == n->def.routed)
		return 0;
	return err_set(err, ERR_INVALID,
		"mode: network \"%s\" exists with mode %s, the configuration says %s; leave the mode out, or use another name",
		n->def.name, network_mode_name(&n->def), n->def.routed ? "l2" : "l3");
}

/* Of a network that exists the pools are known: all of them, whichever the configuration names. */
static int read_network(struct workload_add *a, struct err *err)
{
	const char *name = text_member(a, "network");
	struct network *n = name ? network_find(a->node, name) : NULL;

	a->spec.mode = network_mode_parse(text_member(a, "mode"));
	a->spec.routed = !a->addresses_only; /* those of other plugins make segments */
	if (n && check_mode(n, &a->spec, err) < 0)
		return -1;
	snprintf(a->spec.name, sizeof(a->spec.name), "%s", name ? name : "");
	if (!a->addresses_only && !(n && n->def.pool_count)) {
		uint32_t mtu = (uint32_t)json_integer_value(json_object_get(a->body, "mtu"));

		a->spec.mtu = n ? 0 : mtu;
	}
	if (add_subnet(a, "subnet", err) < 0 || add_subnet(a, "subnet6", err) < 0)
		return -1;
	return n && n->def.pool_count ? take_subnets(n, &a->spec, err) : 0;
}

/* ---- the call ---- */

static int read_ips(struct workload_add *a, struct err *err)
{
	json_t *ips = json_object_get(a->body, "ips"), *item;
	struct ip ip;
	size_t i;

	a->given = json_is_true(json_object_get(a->body, "address_given"));
	json_array_foreach(ips, i, item)
	{
		if (a->given)
			break;
		if (ip_parse(json_string_value(item), &ip, err) < 0)
			return -1;
		if (ip_is_set(&a->asked[ip.family == 6]))
			return err_set(err, ERR_INVALID, "ips: expected at most one IPv%u address", ip.family);
		a->asked[ip.family == 6] = ip;
	}
	return 0;
}

static int read_routes(struct workload_add *a, struct err *err)
{
	json_t *routes = json_object_get(a->body, "routes"), *item;
	size_t i;

	a->w->routes = alloc_array(struct workload_route, json_array_size(routes) + 1);
	json_array_foreach(routes, i, item)
	{
		struct workload_route *route = &a->w->routes[a->w->route_count];
		const char *gw = json_string_value(json_object_get(item, "gw"));

		if (prefix_parse(json_string_value(json_object_get(item, "dst")), &route->to, err) < 0 ||
			(gw && ip_parse(gw, &route->gateway, err) < 0))
			return -1;
		a->w->route_count++;
	}
	return 0;
}

static int open_netns(struct workload_add *a, struct err *err)
{
	struct stat st;

	if (a->addresses_only)
		return 0;
	if (netns_open(text_member(a, "netns"), &a->netns_fd, err) < 0) {
		a->netns_fd = -1;
		return -1;
	}
	if (fstat(a->netns_fd, &st) < 0)
		return err_sys(err, errno, "netns %s", text_member(a, "netns"));
	a->netns_dev = st.st_dev;
	a->netns_ino = st.st_ino;
	return 0;
}

static void note_about(struct workload_add *a)
{
	static const char *const members[] = {"name", "labels", "aliases"};

	for (unsigned i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		json_t *value = json_object_get(a->body, members[i]);

		if (value)
			json_object_set(a->w->about, members[i], value);
	}
}

static void begin(void *arg)
{
	struct workload_add *a = arg;
	struct err err;

	a->w = workload_new(a->node, a->body, a->addresses_only);
	a->w->add = a;
	a->w->netns_dev = a->netns_dev;
	a->w->netns_ino = a->netns_ino;
	a->w->no_exit = json_is_false(json_object_get(a->body, "default_gateway"));
	note_about(a);
	if (read_ips(a, &err) < 0 || read_routes(a, &err) < 0 || read_network(a, &err) < 0) {
		fail(a, &err);
		return;
	}
	workload_save(a->node, a->w);
	next_pool(a);
}

static void refuse(struct workload_add *a, const struct err *err)
{
	control_fail(a->call, err);
	add_free(a);
}

/* Another namespace under the same name: the old one was left without DEL, and is dead to its runtime. */
static bool is_other_sandbox(const struct workload_add *a, const struct workload *w)
{
	return !a->addresses_only && !w->addresses_only && (a->netns_dev != w->netns_dev || a->netns_ino != w->netns_ino);
}

static void begin_beside(struct workload_add *a, struct workload *w)
{
	struct err err;

	if (w->closing) {
		err_set(&err, ERR_UNREACHABLE, "the interface %s of container %s is being taken away; try again", w->ifname,
			w->container);
		refuse(a, &err);
	} else if (!w->add && is_other_sandbox(a, w)) {
		log_info("workloads", "%s comes with another namespace: the former one is dead, removing it", w->key);
		workload_remove(a->node, w, begin, a);
	} else {
		err_set(&err, ERR_EXISTS, "container %s has the interface %s in configuration \"%s\" already: delete it first",
			w->container, w->ifname, w->config);
		refuse(a, &err);
	}
}

static void begin_named(void *arg)
{
	struct workload_add *a = arg;
	struct workload *w = workload_of(a->node, a->body);

	if (w)
		begin_beside(a, w);
	else
		begin(a);
}

void workload_add(struct node *node, struct control_call *call, json_t *body, bool addresses_only)
{
	struct workload_add *a = alloc_new(struct workload_add);
	struct err err;

	*a = (struct workload_add){
		.node = node, .call = call, .body = json_incref(body), .netns_fd = -1, .addresses_only = addresses_only};
	if (open_netns(a, &err) < 0) {
		refuse(a, &err);
		return;
	}
	workload_unbury(node, body, begin_named, a);
}

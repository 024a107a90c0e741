/* Obtaining a network: the one that is known here by its name, or what its home host agrees to (claims.c). It is compared with
 * what was asked for, and gains subnets that it lacks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/networks_internal.h"
#include "base/alloc.h"
#include "daemon/underlay.h"

struct obtain {
	struct node *node;
	struct network_spec spec;
	struct id128 id;
	void (*fn)(void *arg, struct network *network, const struct err *err);
	void *arg;
};

/* Asked for as a pool of the network by its name (--ipam-opt trestle.network=NAME): it is there on purpose. */
static bool is_tied(struct node *node, const struct network_def *def, const struct prefix *prefix)
{
	const struct pool *local = pools_find(node, POOL_SPACE_LOCAL, prefix),
			  *global = pools_find(node, POOL_SPACE_GLOBAL, prefix);

	return (local && strcmp(local->state.def.name, def->name) == 0) ||
	       (global && strcmp(global->state.def.name, def->name) == 0);
}

/* All of the network's pools, or some of them that are tied to it. */
static bool same_pools(struct node *node, const struct network_def *def, const struct network_spec *spec)
{
	bool all_tied = true;

	if (spec->pool_count == 0)
		return true;
	for (unsigned i = 0; i < spec->pool_count; i++) {
		if (!network_def_has(def, &spec->pools[i]))
			return false;
		all_tied &= is_tied(node, def, &spec->pools[i]);
	}
	return all_tied || spec->pool_count == def->pool_count;
}

static const char *list_pools(const struct prefix *pools, unsigned count, char *buf, size_t size)
{
	char text[PREFIX_TEXT_SIZE];
	size_t at = 0;

	buf[0] = 0;
	for (unsigned i = 0; i < count && at < size; i++)
		at += (size_t)snprintf(buf + at, size - at, "%s%s", i ? ", " : "", prefix_format(&pools[i], text));
	return buf;
}

static int check_ipv6_mtu(const struct network_def *def, struct err *err)
{
	char text[PREFIX_TEXT_SIZE];

	for (unsigned i = 0; i < def->pool_count; i++)
		if (def->pools[i].ip.family == 6 && def->mtu < IPV6_MTU_MIN)
			return err_set(err, ERR_INVALID,
				"network \"%s\" with MTU %u cannot have the subnet %s: IPv6 needs %u. Raise the underlay's MTU, "
				"or leave IPv6 out",
				def->name, def->mtu, prefix_format(&def->pools[i], text), IPV6_MTU_MIN);
	return 0;
}

static int check_fits(struct node *node, const struct network_def *def, const struct network_spec *spec, struct err *err)
{
	char have[200], want[200];

	if (!same_pools(node, def, spec))
		return err_set(err, ERR_EXISTS,
			"network \"%s\" exists with the subnets %s, asked for with %s; use the same --subnet on every host, or "
			"another name",
			def->name, list_pools(def->pools, def->pool_count, have, sizeof(have)),
			list_pools(spec->pools, spec->pool_count, want, sizeof(want)));
	if (spec->mode != NETWORK_MODE_ANY && (spec->mode == NETWORK_MODE_L3) != def->routed)
		return err_set(err, ERR_EXISTS, "network \"%s\" exists with mode %s, asked for with %s; use another name",
			def->name, network_mode_name(def), def->routed ? "l2, the mode of all of an engine's networks" : "l3");
	if (spec->vni && spec->vni != def->vni)
		return err_set(
			err, ERR_EXISTS, "network \"%s\" exists with VNI %u, asked for with %u", def->name, def->vni, spec->vni);
	if (spec->mtu && spec->mtu != def->mtu)
		return err_set(
			err, ERR_EXISTS, "network \"%s\" exists with MTU %u, asked for with %u", def->name, def->mtu, spec->mtu);
	return check_ipv6_mtu(def, err);
}

bool network_may_gain(const struct network *n, const struct network_spec *spec, const struct prefix *prefix)
{
	bool shared = false, family = false;

	for (unsigned i = 0; i < spec->pool_count; i++)
		shared |= network_def_has(&n->def, &spec->pools[i]);
	for (unsigned i = 0; i < n->def.pool_count; i++)
		family |= n->def.pools[i].ip.family == prefix->ip.family;
	return shared && !family;
}

/* A definition without subnets takes those of its first user; one with subnets gains what was asked for by its name since, and
 * the family that it lacks. */
static void add_pools(struct node *node, struct network *n, const struct network_spec *spec)
{
	const struct network before = {.def = n->def};
	bool first = n->def.pool_count == 0, added = false;

	for (unsigned i = 0; i < spec->pool_count && n->def.pool_count < NETWORK_POOLS_MAX; i++) {
		if (network_def_has(&n->def, &spec->pools[i]) ||
			(!first && !is_tied(node, &n->def, &spec->pools[i]) && !network_may_gain(&before, spec, &spec->pools[i])))
			continue;
		n->def.pools[n->def.pool_count++] = spec->pools[i];
		added = true;
	}
	n->def.version += added;
}

static void fail(struct obtain *o, const struct err *err)
{
	o->fn(o->arg, NULL, err);
	free(o);
}

static void obtained(struct obtain *o, struct network *n)
{
	struct network_def before = n->def;
	struct err err = {0};

	add_pools(o->node, n, &o->spec);
	if (check_fits(o->node, &n->def, &o->spec, &err) == 0) {
		if (n->programmed)
			datapath_put_network(o->node, n);
		o->fn(o->arg, n, NULL);
	} else {
		n->def = before;
		if (!n->mine && !n->host_count) /* another's answer that nobody publishes must not hold the name */
			network_drop(o->node, n);
		o->fn(o->arg, NULL, &err);
	}
	free(o);
}

static void on_claimed(void *arg, const void *winner, size_t len)
{
	struct obtain *o = arg;
	struct network_def def;
	struct network *n;
	struct err err = {0};

	if (network_def_decode(winner, len, &def, &err) < 0) {
		err_prefix(&err, "network \"%s\": the answer of its home host", o->spec.name);
		fail(o, &err);
		return;
	}
	n = network_by_id(o->node, &def.id);
	obtained(o, n ? n : network_add(o->node, &def));
}

static int new_def(struct node *node, const struct network_spec *spec, struct network_def *def, struct err *err)
{
	unsigned underlay = underlay_mtu(&node->options.vtep), overhead = underlay_overhead(&node->options.vtep);

	if (spec->mtu + overhead > underlay)
		return err_set(err, ERR_INVALID, "MTU %u does not fit: the underlay carries %u, VXLAN takes %u of it; at most %u",
			spec->mtu, underlay, overhead, underlay - overhead);
	def->id = random_id();
	def->version = 1;
	snprintf(def->name, sizeof(def->name), "%s", spec->name);
	def->mtu = spec->mtu ? spec->mtu : underlay - overhead;
	def->internal = spec->internal;
	def->routed = spec->mode == NETWORK_MODE_ANY ? spec->routed : spec->mode == NETWORK_MODE_L3;
	def->creator = node->cluster.hostno;
	def->created_s = (uint64_t)clock_wall_s();
	def->pool_count = spec->pool_count;
	memcpy(def->pools, spec->pools, sizeof(def->pools));
	if (check_ipv6_mtu(def, err) < 0)
		return -1;
	if (spec->vni && network_vni_taken(node, spec->vni, &def->id))
		return err_set(
			err, ERR_CONFLICT, "VNI %u is used by another network; `trestle network ls` shows by which", spec->vni);
	def->vni = spec->vni ? spec->vni : network_pick_vni(node, &def->id, def->version);
	return 0;
}

static void on_met(void *arg, const struct err *not_met)
{
	struct obtain *o = arg;
	struct network *known = not_met ? NULL : network_named(o->node, o->spec.name);
	struct network_def def = {0};
	uint8_t buf[GOSSIP_VALUE_MAX];
	char key[NETWORK_NAME_MAX + 3];
	struct err err = {0};

	if (not_met) {
		fail(o, not_met);
	} else if (known) {
		obtained(o, known);
	} else if (new_def(o->node, &o->spec, &def, &err) < 0) {
		fail(o, &err);
	} else {
		snprintf(key, sizeof(key), "n:%s", def.name);
		claim_name(o->node, key, false, buf, network_def_encode(&def, buf, sizeof(buf)), on_claimed, o);
	}
}

void network_obtain(struct node *node, const struct network_spec *spec,
	void (*fn)(void *arg, struct network *network, const struct err *err), void *arg)
{
	struct obtain *o = alloc_new(struct obtain);
	struct network *known;

	*o = (struct obtain){.node = node, .spec = *spec, .fn = fn, .arg = arg};
	if (!o->spec.name[0] && o->spec.pool_count)
		prefix_format(&o->spec.pools[0], o->spec.name); /* two hosts that ask for the same subnet mean the same network */
	known = network_named(node, o->spec.name);
	if (known)
		obtained(o, known);
	else
		claims_when_met(node, on_met, o);
}

/* Obtaining a pool: the one that is known here, or one whose home host agrees (claims.c).
 *
 * A prefix that we choose is claimed first, then the network's name: who asks for a pool by name on another host at the same
 * moment gets the same one. What others were given meanwhile is passed over, PICKS_MAX times. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/pools_internal.h"
#include "base/alloc.h"
#include "daemon/routes.h"

#define SEARCH_BITS 16 /* of candidates looked at: a search stays within milliseconds */
#define PICKS_MAX 64   /* candidates asked about before giving up */

/* ---- choosing a prefix ---- */

/* The first prefix of that length in the supernet that overlaps no pool in use, no route of this host, and is not among the
 * `skip` first of these (others asked for them meanwhile). */
static int pick_prefix(struct node *node, const struct pool_spec *spec, unsigned skip, struct prefix *ret, struct err *err)
{
	const struct prefix *net = spec->family == 6 ? &node->options.supernet6 : &node->options.supernet4;
	unsigned bits = spec->family == 6 ? 128 : 32;
	unsigned length = spec->length	      ? spec->length
			  : spec->family == 6 ? node->options.pool_length6
					      : node->options.pool_length4;
	u128 count, step, base = ip_number(&net->ip);
	struct route_list routes = {0};
	char text[PREFIX_TEXT_SIZE];
	bool found = false;

	if (length < net->length || length > bits)
		return err_set(err, ERR_INVALID, "a pool of /%u does not fit the supernet %s", length, prefix_format(net, text));
	count = (u128)1 << (length - net->length < SEARCH_BITS ? length - net->length : SEARCH_BITS);
	step = (u128)1 << (bits - length);
	route_list_read(&routes, spec->family, NULL);
	for (u128 i = 0; i < count && !found; i++) {
		struct prefix p = {.ip = ip_from_number(spec->family, base + i * step), .length = (uint8_t)length};
		if (route_list_overlaps(&routes, &p) || pool_overlapping(node, spec->space, &p))
			continue;
		if (skip) {
			skip--;
			continue;
		}
		*ret = p;
		found = true;
	}
	route_list_fini(&routes);
	if (found)
		return 0;
	return err_set(err, ERR_EXHAUSTED,
		"no free /%u left in the supernet %s; release a pool, or start trestled with a larger --supernet", length,
		prefix_format(net, text));
}

/* ---- obtaining one ---- */

struct obtain {
	struct node *node;
	struct pool_spec spec;
	char name[NETWORK_NAME_MAX + 1];
	struct pool_def def; /* as proposed */
	struct id128 mine;
	bool chosen; /* the prefix was picked by us: its home is asked first, then the name's */
	bool asking_name;
	unsigned picks;
	void (*fn)(void *arg, struct pool *pool, const struct err *err);
	void *arg;
};

static void fail(struct obtain *o, const struct err *err)
{
	o->fn(o->arg, NULL, err);
	free(o);
}

static void succeed(struct obtain *o, struct pool *p, bool mine)
{
	char text[PREFIX_TEXT_SIZE];
	struct err err = {0};

	if (o->name[0] && p->state.def.name[0] && strcmp(o->name, p->state.def.name) != 0) {
		err_set(&err, ERR_CONFLICT,
			"pool %s belongs to network \"%s\", asked for by network \"%s\"; use another --subnet",
			prefix_format(&p->state.def.prefix, text), p->state.def.name, o->name);
		fail(o, &err);
		return;
	}
	if (pool_join(o->node, p, mine, &err) < 0) {
		if (!p->joined && !p->host_count)
			pool_remove(o->node, p); /* another's answer that nobody publishes must not hold the prefix */
		fail(o, &err);
		return;
	}
	/* The engine asks again and again for a pool that overlaps its routes, without a pause: a refusal ends that. */
	if (o->chosen && !mine && routes_overlap(&p->state.def.prefix, 1, NULL)) {
		err_set(&err, ERR_CONFLICT,
			"pool %s of network \"%s\" overlaps a route of this host; create the network with another --subnet on "
			"all hosts",
			prefix_format(&p->state.def.prefix, text), o->name);
		fail(o, &err);
		return;
	}
	o->fn(o->arg, p, NULL);
	free(o);
}

static void ask_home(struct obtain *o);

static void drop_claim(const struct obtain *o)
{
	char key[128];

	pool_claim_key(key, sizeof(key), &o->def, false);
	claims_forget(o->node, key, true);
}

static void on_claimed(void *arg, const void *winner, size_t len)
{
	struct obtain *o = arg;
	struct pool_def def;
	struct pool *p;
	char text[PREFIX_TEXT_SIZE];
	struct err err = {0};
	bool mine;

	if (!winner) {
		err_set(&err, ERR_UNREACHABLE,
			"pool %s is being made by another host, which has not done so in time; try again in a few seconds",
			prefix_format(&o->def.prefix, text));
		fail(o, &err);
		return;
	}
	if (pool_def_decode(winner, len, &def, &err) < 0) {
		err_prefix(&err, "pool: the answer of its home host");
		fail(o, &err);
		return;
	}
	mine = id_equal(&def.id, &o->mine);
	if (o->asking_name && !mine) /* our choice of a prefix is not needed */
		drop_claim(o);
	if (o->chosen && !o->asking_name) {
		if (!mine && ++o->picks >= PICKS_MAX) {
			err_set(&err, ERR_EXHAUSTED, "no free pool found after %d tries", PICKS_MAX);
			fail(o, &err);
			return;
		}
		if (!mine || o->name[0]) { /* somebody else's choice: take another. Ours: now the name has to be ours too */
			o->asking_name = mine;
			ask_home(o);
			return;
		}
	}
	p = pool_by_id(o->node, &def.id);
	succeed(o, p ? p : pool_add(o->node, &def), mine);
}

static int choose(struct obtain *o, struct pool_def *def, struct err *err)
{
	struct pool *other;
	char ours[PREFIX_TEXT_SIZE], theirs[PREFIX_TEXT_SIZE];

	def->id = random_id();
	def->prefix = o->spec.prefix;
	if (o->chosen)
		return pick_prefix(o->node, &o->spec, o->picks, &def->prefix, err);
	other = pool_overlapping(o->node, o->spec.space, &def->prefix);
	if (other)
		return err_set(err, ERR_CONFLICT, "pool %s overlaps pool %s, which is in use; use another --subnet",
			prefix_format(&def->prefix, ours), prefix_format(&other->state.def.prefix, theirs));
	return 0;
}

static void ask_home(struct obtain *o)
{
	uint8_t buf[GOSSIP_VALUE_MAX];
	char key[128];
	struct err err = {0};

	if (!o->asking_name) {
		o->def = (struct pool_def){.space = o->spec.space, .creator = o->node->cluster.hostno, .wanted = true};
		snprintf(o->def.name, sizeof(o->def.name), "%s", o->name);
		if (choose(o, &o->def, &err) < 0) {
			fail(o, &err);
			return;
		}
		o->mine = o->def.id;
	}
	pool_claim_key(key, sizeof(key), &o->def, o->asking_name);
	claim_name(o->node, key, !o->chosen || o->asking_name, buf, pool_def_encode(&o->def, buf, sizeof(buf)), on_claimed, o);
}

/* A network made by name with its subnets, whose pool is asked for by that name. */
static void take_network_prefix(struct obtain *o)
{
	struct network *n = network_find(o->node, o->name);

	for (unsigned i = 0; n && i < n->def.pool_count; i++)
		if (n->def.pools[i].ip.family == o->spec.family) {
			o->spec.prefix = n->def.pools[i];
			return;
		}
}

static struct pool *find_known(struct obtain *o)
{
	struct pool *p = NULL;

	if (!prefix_is_set(&o->spec.prefix) && o->name[0])
		take_network_prefix(o);
	o->chosen = !prefix_is_set(&o->spec.prefix);
	if (!o->chosen)
		p = pools_find(o->node, o->spec.space, &o->spec.prefix);
	else if (o->name[0])
		p = pool_named(o->node, o->spec.space, o->spec.family, o->name);
	if (p && !pool_in_use(p) && pool_overlapping(o->node, o->spec.space, &p->state.def.prefix))
		return NULL; /* left over and overlapped by now: ask_home says by what */
	return p;
}

static void on_met(void *arg, const struct err *err)
{
	struct obtain *o = arg;
	struct pool *p = err ? NULL : find_known(o);

	if (err)
		fail(o, err);
	else if (p)
		succeed(o, p, false);
	else
		ask_home(o);
}

void pool_obtain(struct node *node, const struct pool_spec *spec, void (*fn)(void *arg, struct pool *pool, const struct err *err),
	void *arg)
{
	struct obtain *o = alloc_new(struct obtain);
	struct pool *p;

	*o = (struct obtain){.node = node, .spec = *spec, .fn = fn, .arg = arg};
	snprintf(o->name, sizeof(o->name), "%s", spec->name ? spec->name : "");
	o->spec.name = o->name;
	p = find_known(o);
	if (p)
		succeed(o, p, false);
	else
		claims_when_met(node, on_met, o);
}

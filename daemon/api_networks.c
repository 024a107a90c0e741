/* `trestle network create` and `trestle network rm`: the pools of a network made by name are pinned before it, and unpinned with
 * it. An answer leaves when what it says is on disk. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#include "daemon/api_internal.h"

struct create_call {
	struct node *node;
	struct control_call *call;
	struct network_spec spec;
	struct id128 network;
	unsigned at; /* next pool to obtain */
	unsigned pinned_count;
	struct id128 pinned[NETWORK_POOLS_MAX]; /* by this call */
};

static void answer_network(void *arg)
{
	struct create_call *c = arg;
	struct network *n = network_by_id(c->node, &c->network);
	struct err err = {0};

	if (n) {
		control_done(c->call, api_network_full(c->node, n));
	} else {
		err_set(&err, ERR_CONFLICT, "the network was removed meanwhile");
		control_fail(c->call, &err);
	}
	free(c);
}

/* What this call pinned on its way goes with it. */
static void create_failed(struct create_call *c, const struct err *err)
{
	for (unsigned i = 0; i < c->pinned_count; i++) {
		struct pool *p = pool_by_id(c->node, &c->pinned[i]);
		if (!p)
			continue;
		p->state.pinned = false;
		pool_unuse(c->node, p);
	}
	control_fail(c->call, err);
	free(c);
}

static void network_made(void *arg, struct network *n, const struct err *err)
{
	struct create_call *c = arg;

	if (err) {
		create_failed(c, err);
		return;
	}
	n->pinned = true;
	network_keep(c->node, n);
	c->network = n->id;
	outbox_call(c->node->outbox, answer_network, c);
}

static void next_pool(struct create_call *c);

static void pool_made(void *arg, struct pool *p, const struct err *err)
{
	struct create_call *c = arg;

	if (err) {
		create_failed(c, err);
		return;
	}
	if (!p->state.pinned)
		c->pinned[c->pinned_count++] = p->id;
	p->state.pinned = true;
	pool_keep(c->node, p);
	c->at++;
	next_pool(c);
}

/* The pools of a network made by name wait for its engines: they are pinned with it. */
static void next_pool(struct create_call *c)
{
	struct pool_spec spec = {.space = POOL_SPACE_LOCAL, .name = c->spec.name};

	if (c->at == c->spec.pool_count) {
		network_obtain(c->node, &c->spec, network_made, c);
		return;
	}
	spec.prefix = c->spec.pools[c->at];
	spec.family = spec.prefix.ip.family;
	pool_obtain(c->node, &spec, pool_made, c);
}

static int read_subnet(struct network_spec *spec, json_t *body, const char *name, uint8_t family, struct err *err)
{
	const char *text = json_string_value(json_object_get(body, name));
	struct prefix prefix;

	if (!text)
		return 0;
	if (prefix_parse(text, &prefix, err) < 0)
		return err_prefix(err, "%s", name);
	if (prefix.ip.family != family)
		return err_set(err, ERR_INVALID, "%s: expected an IPv%u prefix, found %s", name, family, text);
	spec->pools[spec->pool_count++] = prefix_masked(&prefix);
	return 0;
}

void api_network_create(struct node *node, struct control_call *call, json_t *body)
{
	struct create_call *c = alloc_new(struct create_call);
	const char *name = json_string_value(json_object_get(body, "name"));
	struct err err = {0};

	c->node = node;
	c->call = call;
	snprintf(c->spec.name, sizeof(c->spec.name), "%s", name ? name : "");
	c->spec.mtu = (uint32_t)json_integer_value(json_object_get(body, "mtu"));
	c->spec.vni = (uint32_t)json_integer_value(json_object_get(body, "vni"));
	c->spec.internal = json_is_true(json_object_get(body, "internal"));
	c->spec.mode = network_mode_parse(json_string_value(json_object_get(body, "mode")));
	if (read_subnet(&c->spec, body, "subnet", 4, &err) < 0 || read_subnet(&c->spec, body, "subnet6", 6, &err) < 0) {
		control_fail(call, &err);
		free(c);
		return;
	}
	next_pool(c);
}

static int may_remove(struct node *node, const struct network *n, struct err *err)
{
	struct segment *s = segment_find(node, n->topic);
	char name[GOSSIP_NAME_MAX + 1];

	if (n->local_count)
		return err_set(err, ERR_CONFLICT, "network \"%s\" has %u endpoints on this host; stop their containers first",
			n->def.name, network_endpoints(n));
	if (segment_size(s))
		return err_set(err, ERR_CONFLICT,
			"network \"%s\" has %u endpoints on other hosts, one of them %s; stop their containers first",
			n->def.name, segment_size(s), host_label(node, s->hosts->hostno, name, sizeof(name)));
	if (n->docker_count)
		return err_set(
			err, ERR_CONFLICT, "the engine of this host has network \"%s\"; use `docker network rm`", n->def.name);
	if (!n->pinned)
		return err_set(err, ERR_CONFLICT,
			"network \"%s\" is used by %u other hosts and was not created on this one; remove it there (`docker "
			"network rm`, `trestle network rm`)",
			n->def.name, n->host_count);
	return 0;
}

static void unpin_pools(struct node *node, const struct network *n)
{
	struct pool *p, *next;

	HASH_ITER(hh, node->pools, p, next)
	if (p->state.pinned && (strcmp(p->state.def.name, n->def.name) == 0 ||
				       (!p->state.def.name[0] && network_def_has(&n->def, &p->state.def.prefix)))) {
		p->state.pinned = false;
		pool_unuse(node, p);
	}
}

struct later_answer {
	struct control_call *call;
	json_t *answer;
};

static void answer_later(void *arg)
{
	struct later_answer *l = arg;

	control_done(l->call, l->answer);
	free(l);
}

void api_network_rm(struct node *node, struct control_call *call, const char *name)
{
	struct err err = {0};
	struct network *n = api_need_network(node, name, &err);
	struct later_answer *l;
	struct id128 id;

	if (!n) {
		control_fail(call, &err);
		return;
	}
	id = n->id;
	host_end_drop(node, n);
	n = network_by_id(node, &id); /* NULL: the end was all that kept it */
	if (n && may_remove(node, n, &err) < 0) {
		control_fail(call, &err);
		return;
	}
	l = alloc_new(struct later_answer);
	l->call = call;
	l->answer = json_pack("{s:o}", "removed", api_id(&id));
	if (n) {
		unpin_pools(node, n);
		n->pinned = false;
		network_unuse(node, n);
	}
	outbox_call(node->outbox, answer_later, l);
}

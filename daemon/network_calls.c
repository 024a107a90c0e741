/* CreateNetwork and DeleteNetwork, and this host's engine networks, each of which stands for a network of the cluster. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#include "daemon/networks_internal.h"

struct docker_network *docker_network_find(struct node *node, const char *id)
{
	struct docker_network *d;
	HASH_FIND_STR(node->docker_networks, id, d);
	return d;
}

struct create_call {
	struct node *node;
	struct plugin_call *call;
	char docker_id[PLUGIN_ID_MAX + 1];
	struct docker_network_state state;
	unsigned pool_count;
	struct plugin_pool pools[NETWORK_POOLS_MAX];
};

static void reserve_addresses(const struct create_call *c)
{
	for (unsigned i = 0; i < c->pool_count; i++) {
		const struct plugin_pool *p = &c->pools[i];
		if (prefix_is_set(&p->gateway))
			pools_reserve(c->node, &p->pool, &p->gateway.ip, true);
		for (unsigned j = 0; j < p->aux_count; j++)
			pools_reserve(c->node, &p->pool, &p->aux[j], false);
	}
}

static void answer_created(void *arg)
{
	struct create_call *c = arg;
	plugin_done(c->call);
	free(c);
}

static void created(void *arg, struct network *n, const struct err *err)
{
	struct create_call *c = arg;
	struct node *node = c->node;
	struct docker_network *d;
	uint8_t buf[RECORD_MAX];

	if (err) {
		plugin_fail(c->call, err);
		free(c);
		return;
	}
	d = docker_network_find(node, c->docker_id); /* two equal calls at once */
	if (!d) {
		d = alloc_new(struct docker_network);
		snprintf(d->id, sizeof(d->id), "%s", c->docker_id);
		c->state.network = n->id;
		d->state = c->state;
		HASH_ADD_STR(node->docker_networks, id, d);
		n->docker_count++;
	}
	reserve_addresses(c);
	/* Before the definition: an engine network without one is dropped at the next start, the other way round it would stay.
	 */
	outbox_save(node->outbox, store_change_new(STORE_STATE, STORE_DOCKER_NETWORK, d->id, strlen(d->id), buf,
					  docker_network_state_encode(&d->state, buf, sizeof(buf)), true));
	network_keep(node, n);
	outbox_call(node->outbox, answer_created, c);
}

static int spec_of(const struct plugin_create_network *req, struct network_spec *spec, struct err *err)
{
	if (req->pool4_count + req->pool6_count > NETWORK_POOLS_MAX)
		return err_set(err, ERR_UNSUPPORTED, "a network can have %d subnets, asked for with %u", NETWORK_POOLS_MAX,
			req->pool4_count + req->pool6_count);
	if (!req->pool4_count && !req->pool6_count)
		return err_set(
			err, ERR_INVALID, "a network needs a subnet: --subnet CIDR, or --ipam-driver trestle to have one chosen");
	snprintf(spec->name, sizeof(spec->name), "%s", req->name ? req->name : "");
	for (unsigned i = 0; i < req->pool4_count; i++)
		spec->pools[spec->pool_count++] = req->pool4[i].pool;
	for (unsigned i = 0; i < req->pool6_count; i++)
		spec->pools[spec->pool_count++] = req->pool6[i].pool;
	spec->mtu = req->mtu;
	spec->vni = req->vni;
	spec->internal = req->internal;
	spec->mode = NETWORK_MODE_L2; /* an engine gives its containers a subnet's length and a gateway in it: a segment */
	return 0;
}

void networks_create(void *ctx, struct plugin_call *call, const struct plugin_create_network *req)
{
	struct node *node = ctx;
	struct docker_network *d = docker_network_find(node, req->network_id);
	struct network_spec spec = {0};
	struct create_call *c;
	struct err err = {0};

	if (d) {
		if (memcmp(d->state.digest, req->digest, sizeof(req->digest)) == 0) {
			plugin_done(call);
			return;
		}
		err_set(&err, ERR_EXISTS, "network %.12s exists with other subnets or options; remove it first", req->network_id);
		plugin_fail(call, &err);
		return;
	}
	if (spec_of(req, &spec, &err) < 0) {
		plugin_fail(call, &err);
		return;
	}
	c = alloc_new(struct create_call);
	c->node = node;
	c->call = call;
	snprintf(c->docker_id, sizeof(c->docker_id), "%s", req->network_id);
	memcpy(c->state.digest, req->digest, sizeof(c->state.digest));
	snprintf(c->state.if_prefix, sizeof(c->state.if_prefix), "%s", req->if_prefix ? req->if_prefix : "eth");
	c->state.internal = req->internal;
	for (unsigned i = 0; i < req->pool4_count; i++)
		c->pools[c->pool_count++] = req->pool4[i];
	for (unsigned i = 0; i < req->pool6_count; i++)
		c->pools[c->pool_count++] = req->pool6[i];
	network_obtain(node, &spec, created, c);
}

struct delete_call {
	struct node *node;
	struct plugin_call *call;
	char docker_id[PLUGIN_ID_MAX + 1];
};

static void answer_deleted(void *arg)
{
	struct delete_call *c = arg;
	plugin_done(c->call);
	free(c);
}

static void endpoints_gone(void *arg)
{
	struct delete_call *c = arg;
	struct node *node = c->node;
	struct docker_network *d = docker_network_find(node, c->docker_id);
	struct network *n = d ? network_by_id(node, &d->state.network) : NULL;

	if (d) {
		outbox_save(
			node->outbox, store_change_new(STORE_STATE, STORE_DOCKER_NETWORK, d->id, strlen(d->id), NULL, 0, true));
		HASH_DEL(node->docker_networks, d);
		free(d);
	}
	if (n) {
		n->docker_count--;
		network_unuse(node, n);
	}
	outbox_call(node->outbox, answer_deleted, c);
}

void networks_delete(void *ctx, struct plugin_call *call, const char *network_id)
{
	struct node *node = ctx;
	struct delete_call *c = alloc_new(struct delete_call);

	c->node = node;
	c->call = call;
	snprintf(c->docker_id, sizeof(c->docker_id), "%s", network_id);
	endpoints_remove_all_of(node, network_id, endpoints_gone, c);
}

/* ---- start and end ---- */

static int load_docker_network(void *ctx, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct node *node = ctx;
	struct docker_network *d = calloc(1, sizeof(*d));
	struct network *n;

	if (!d || key_len >= sizeof(d->id) || docker_network_state_decode(val, len, &d->state, err) < 0) {
		free(d);
		return err_prefix(err, "engine network %.*s", (int)key_len, (const char *)key);
	}
	memcpy(d->id, key, key_len);
	n = network_by_id(node, &d->state.network);
	if (!n) { /* killed in the middle of its creation, which nobody was told of */
		outbox_save(node->outbox, store_change_new(STORE_STATE, STORE_DOCKER_NETWORK, d->id, key_len, NULL, 0, true));
		free(d);
		return 0;
	}
	n->docker_count++;
	HASH_ADD_STR(node->docker_networks, id, d);
	return 0;
}

int docker_networks_start(struct node *node, struct err *err)
{
	return store_each(node->store, STORE_STATE, STORE_DOCKER_NETWORK, load_docker_network, node, err);
}

void docker_networks_stop(struct node *node)
{
	struct docker_network *d, *next;

	HASH_ITER(hh, node->docker_networks, d, next)
	{
		HASH_DEL(node->docker_networks, d);
		free(d);
	}
}

/* Networks: cluster-wide definitions. How one comes to be: network_obtain.c; the engine networks of this host that stand for
 * them: network_calls.c.
 *
 * Every host that uses a network publishes the whole definition in its own shard of topic 0, so a definition lives as long as
 * anyone uses it and does not depend on its creator. All publishers say the same; where they do not (a VNI was picked anew), the
 * higher version counts, then the greater bytes, on every host alike. A network that nobody publishes is gone.
 *
 * Subnets are only ever added: two hosts that added different ones at once end with both.
 *
 * A name or a VNI can come to be used by two networks when both were made on the two sides of a cut. The lower id keeps the name;
 * the higher id picks another VNI: each publisher computes the same next one. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#include "daemon/networks_internal.h"

#define VNI_MAX 0xffffff

/* ---- lookup ---- */

struct network *network_by_id(struct node *node, const struct id128 *id)
{
	struct network *n;
	HASH_FIND(hh, node->networks, id, sizeof(*id), n);
	return n;
}

struct network *network_by_topic(struct node *node, uint64_t topic)
{
	struct network *n;
	HASH_FIND(hh_topic, node->networks_by_topic, &topic, sizeof(topic), n);
	return n;
}

struct network *network_named(struct node *node, const char *name)
{
	struct network *n, *next, *best = NULL;

	HASH_ITER(hh, node->networks, n, next)
	if (strcmp(n->def.name, name) == 0 && (!best || id_compare(&n->id, &best->id) < 0))
		best = n;
	return best;
}

struct network *network_find(struct node *node, const char *text)
{
	struct network *found = network_named(node, text), *n, *next;
	char id[ID_TEXT_SIZE];
	size_t len = strlen(text);
	unsigned count = 0;

	if (found || len < 4 || len >= ID_TEXT_SIZE)
		return found;
	HASH_ITER(hh, node->networks, n, next)
	if (strncmp(id_format(&n->id, id), text, len) == 0) {
		found = n;
		count++;
	}
	return count == 1 ? found : NULL;
}

const char *network_mode_name(const struct network_def *def)
{
	return def->routed ? "l3" : "l2";
}

enum network_mode network_mode_parse(const char *text)
{
	return !text ? NETWORK_MODE_ANY : strcmp(text, "l3") == 0 ? NETWORK_MODE_L3 : NETWORK_MODE_L2;
}

bool network_conflict(struct node *node, const struct network *network, char *buf, size_t size)
{
	struct network *n, *next;
	char a[ID_SHORT_SIZE], b[ID_SHORT_SIZE];

	HASH_ITER(hh, node->networks, n, next)
	{
		if (n == network || strcmp(n->def.name, network->def.name) != 0)
			continue;
		snprintf(buf, size,
			"networks %s and %s are both called \"%s\" (made on the two sides of a cut); %s keeps the name. Move the "
			"containers of "
			"the other one and remove it with `docker network rm` on its hosts",
			id_short(&network->id, a), id_short(&n->id, b), network->def.name,
			id_compare(&n->id, &network->id) < 0 ? b : a);
		return true;
	}
	return false;
}

/* ---- publishing ---- */

static void publish_network(struct node *node, const struct network *n)
{
	uint8_t buf[GOSSIP_VALUE_MAX];

	if (n->mine)
		definition_publish(node, RECORD_NETWORK, &n->id, buf, network_def_encode(&n->def, buf, sizeof(buf)));
	else
		definition_publish(node, RECORD_NETWORK, &n->id, NULL, 0);
}

static void publish_saved(struct node *node, const struct id128 *id)
{
	struct network *n = network_by_id(node, id);

	if (n)
		publish_network(node, n);
}

/* This host is part of it from now on, and keeps what others have in it. */
static void subscribe(struct node *node, const struct network *n)
{
	struct err err = {0};

	if (node->gossip && gossip_subscribe(node->gossip, n->topic, clock_boot_ms(), &err) < 0)
		log_error("networks", "network \"%s\": %s", n->def.name, err.text);
	cluster_poke(node);
}

void networks_subscribe(struct node *node)
{
	struct network *n, *next;

	HASH_ITER(hh, node->networks, n, next)
	if (n->mine)
		subscribe(node, n);
}

void network_keep(struct node *node, struct network *n)
{
	struct network_state state = {.def = n->def, .pinned = n->pinned};
	uint8_t buf[RECORD_MAX];

	n->mine = true;
	subscribe(node, n); /* behind no disk: what others have is here the sooner */
	outbox_save(node->outbox, store_change_new(STORE_STATE, STORE_NETWORK, &n->id, sizeof(n->id), buf,
					  network_state_encode(&state, buf, sizeof(buf)), true));
	call_behind_saves(node, &n->id, publish_saved);
}

void networks_publish(struct node *node)
{
	struct network *n, *next;

	HASH_ITER(hh, node->networks, n, next)
	if (n->mine)
		publish_network(node, n);
}

struct network *network_add(struct node *node, const struct network_def *def)
{
	struct network *n = alloc_new(struct network);

	n->id = def->id;
	n->topic = topic_of_network(&def->id);
	n->def = *def;
	HASH_ADD(hh, node->networks, id, sizeof(n->id), n);
	HASH_ADD(hh_topic, node->networks_by_topic, topic, sizeof(n->topic), n);
	return n;
}

void network_drop(struct node *node, struct network *n)
{
	char key[NETWORK_NAME_MAX + 3];

	snprintf(key, sizeof(key), "n:%s", n->def.name);
	claims_forget(node, key, n->def.creator == node->cluster.hostno);
	if (n->programmed)
		datapath_del_network(node, &n->id);
	HASH_DELETE(hh, node->networks, n);
	HASH_DELETE(hh_topic, node->networks_by_topic, n);
	free(n);
}

void network_unuse(struct node *node, struct network *n)
{
	if (n->docker_count || n->pinned || n->local_count || !n->mine)
		return;
	n->mine = false;
	if (node->gossip)
		gossip_unsubscribe(node->gossip, n->topic, clock_boot_ms());
	segment_forget(node, n);
	outbox_save(node->outbox, store_change_new(STORE_STATE, STORE_NETWORK, &n->id, sizeof(n->id), NULL, 0, true));
	publish_network(node, n);
	if (!n->host_count)
		network_drop(node, n);
}

/* A kill between the end of what used a network and the end of the network itself leaves it published by nobody's wish. */
void networks_collect(struct node *node)
{
	struct network *n, *next;

	HASH_ITER(hh, node->networks, n, next)
	network_unuse(node, n);
}

/* ---- VNI ---- */

bool network_vni_taken(struct node *node, uint32_t vni, const struct id128 *except)
{
	struct network *n, *next;

	HASH_ITER(hh, node->networks, n, next)
	if (n->def.vni == vni && !id_equal(&n->id, except))
		return true;
	return false;
}

/* By hash of id and version, then upwards: hosts with the same tables pick the same. */
uint32_t network_pick_vni(struct node *node, const struct id128 *id, uint32_t version)
{
	uint8_t hash[crypto_generichash_BYTES_MIN];
	uint32_t vni;

	crypto_generichash(hash, sizeof(hash), id->bytes, sizeof(id->bytes), (const uint8_t *)&version, sizeof(version));
	vni = (uint32_t)hash[0] << 16 | (uint32_t)hash[1] << 8 | hash[2];
	for (unsigned i = 0; i < VNI_MAX; i++, vni++)
		if ((vni &= VNI_MAX) >= 4096 &&
			!network_vni_taken(node, vni, id)) /* low numbers are what people choose by hand */
			return vni;
	return 0;
}

/* Of two networks with one VNI the higher id picks another; whoever publishes the loser does it. */
static void resolve_vni(struct node *node, struct network *changed)
{
	struct network *n, *next;

	HASH_ITER(hh, node->networks, n, next)
	{
		struct network *loser = id_compare(&n->id, &changed->id) > 0 ? n : changed;
		uint32_t old = loser->def.vni;
		if (n == changed || n->def.vni != changed->def.vni || !loser->mine)
			continue;
		loser->def.version++;
		loser->def.vni = network_pick_vni(node, &loser->id, loser->def.version);
		log_warn(
			"networks", "VNI %u is used by two networks; \"%s\" changes to %u", old, loser->def.name, loser->def.vni);
		network_keep(node, loser);
		if (loser->programmed)
			datapath_put_network(node, loser);
		if (loser == changed)
			return;
	}
}

/* ---- what others say ---- */

struct survey {
	struct id128 id;
	struct network_def best;
	struct network_def all; /* only its pools: whatever anyone has */
	unsigned hosts;
};

static bool merge_pools(struct network_def *def, const struct network_def *other)
{
	unsigned before = def->pool_count;

	for (unsigned i = 0; i < other->pool_count && def->pool_count < NETWORK_POOLS_MAX; i++)
		if (!network_def_has(def, &other->pools[i]))
			def->pools[def->pool_count++] = other->pools[i];
	return def->pool_count > before;
}

static void survey_definition(void *ctx, const struct gossip_member *m, const void *val, size_t len)
{
	struct survey *s = ctx;
	struct network_def def;

	(void)m;
	if (network_def_decode(val, len, &def, NULL) < 0 || !id_equal(&def.id, &s->id))
		return;
	merge_pools(&s->all, &def);
	if (!s->hosts++ || network_def_compare(&def, &s->best) > 0)
		s->best = def;
}

struct search {
	uint32_t hostno;
	bool alive;
};

static void search_publisher(void *ctx, const struct gossip_member *m, const void *val, size_t len)
{
	struct search *s = ctx;
	bool alive = m->state <= GOSSIP_SUSPECT;

	(void)val, (void)len;
	if (s->hostno && (s->alive || !alive))
		return;
	s->hostno = m->hostno;
	s->alive = alive;
}

uint32_t network_some_host(struct node *node, const struct network *n)
{
	struct search s = {0};

	definitions_of_others(node, RECORD_NETWORK, &n->id, search_publisher, &s);
	return s.hostno;
}

static void take_definition(struct node *node, struct network *n, struct survey *s)
{
	bool theirs = s->hosts && (!n->mine || network_def_compare(&s->best, &n->def) > 0), added = false;
	struct network_def before = n->def;

	merge_pools(&s->all, &before);
	if (theirs)
		n->def = s->best;
	if (n->mine) {
		added = merge_pools(&n->def, &s->all);
		n->def.version += added;
	}
	if (n->mine && (theirs || added))
		network_keep(node, n);
	if (n->programmed)
		datapath_put_network(node, n);
}

void network_changed(struct node *node, const struct id128 *id)
{
	struct survey s = {.id = *id};
	struct network *n = network_by_id(node, id);

	definitions_of_others(node, RECORD_NETWORK, id, survey_definition, &s);
	if (!n) {
		if (!s.hosts)
			return;
		n = network_add(node, &s.best);
	}
	n->host_count = s.hosts;
	if (!n->mine && !s.hosts) {
		network_drop(node, n);
		return;
	}
	take_definition(node, n, &s);
	resolve_vni(node, n);
}

const void *network_claimed(struct node *node, const char *name, void *buf, size_t size, size_t *ret_len)
{
	struct network *n = network_named(node, name);

	if (!n || (node->freeze.on && !n->mine)) /* another's may be gone by now */
		return NULL;
	*ret_len = network_def_encode(&n->def, buf, size);
	return buf;
}

/* ---- start ---- */

static int load_network(void *ctx, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct node *node = ctx;
	struct network_state state;
	struct network *n;

	(void)key, (void)key_len;
	if (network_state_decode(val, len, &state, err) < 0)
		return -1;
	n = network_add(node, &state.def);
	n->mine = true;
	n->pinned = state.pinned;
	return 0;
}

int networks_start(struct node *node, struct err *err)
{
	if (store_each(node->store, STORE_STATE, STORE_NETWORK, load_network, node, err) < 0)
		return -1;
	return docker_networks_start(node, err);
}

void networks_stop(struct node *node)
{
	struct network *n, *next;

	docker_networks_stop(node);
	HASH_CLEAR(hh_topic, node->networks_by_topic);
	HASH_ITER(hh, node->networks, n, next)
	{
		HASH_DEL(node->networks, n);
		free(n);
	}
}

/* What the control API lists: members, endpoints, networks, pools, keys. Reads the tables and changes nothing. Lists are
 * sorted, so that two hosts that know the same say the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#include "base/json_text.h"
#include "daemon/api_internal.h"

#define COUNT_MAX 0x7fffffffffffffffULL

struct listing {
	struct node *node;
	json_t *array;
	const struct network *network; /* only of this one; NULL: all */
};

/* ---- sorting ---- */

/* Sorts an array of objects by up to three members, integers as integers. */
static const char *const *sort_keys;

static int compare_values(const json_t *a, const json_t *b)
{
	if (json_is_integer(a) && json_is_integer(b))
		return (json_integer_value(a) > json_integer_value(b)) - (json_integer_value(a) < json_integer_value(b));
	if (json_is_string(a) && json_is_string(b))
		return strcmp(json_string_value(a), json_string_value(b));
	return json_is_string(a) - json_is_string(b);
}

static int compare_objects(const void *x, const void *y)
{
	const json_t *a = *(json_t *const *)x, *b = *(json_t *const *)y;
	int order = 0;

	for (const char *const *key = sort_keys; *key && !order; key++)
		order = compare_values(json_object_get(a, *key), json_object_get(b, *key));
	return order;
}

static json_t *sorted(json_t *array, const char *const *keys)
{
	size_t n = json_array_size(array);
	json_t **items = alloc_array(json_t *, n + 1), *result = json_array();

	for (size_t i = 0; i < n; i++)
		items[i] = json_array_get(array, i);
	sort_keys = keys;
	qsort(items, n, sizeof(json_t *), compare_objects);
	for (size_t i = 0; i < n; i++)
		json_array_append(result, items[i]);
	free(items);
	json_decref(array);
	return result;
}

static const char *const by_hostno[] = {"hostno", NULL};
static const char *const by_name[] = {"name", "id", NULL};
static const char *const by_network[] = {"network", "hostno", "ipv4", "ipv6", NULL};
static const char *const by_pool[] = {"pool", "space", "pool_id", NULL};

/* ---- members ---- */

unsigned api_endpoints_of(struct node *node, uint32_t hostno, uint64_t topic)
{
	struct segment *s, *next;
	struct segment_host *sh;
	unsigned count = 0;

	if (hostno == node->cluster.hostno) {
		struct endpoint *ep, *next_ep;
		HASH_ITER(hh, node->endpoints, ep, next_ep)
		count += !ep->host_end && (!topic || topic_of_network(&ep->state.network) == topic);
		return count;
	}
	HASH_ITER(hh, node->segments, s, next)
	{
		HASH_FIND(hh, s->hosts, &hostno, sizeof(hostno), sh);
		if (sh && (!topic || s->topic == topic))
			count += sh->endpoints - sh->own;
	}
	return count;
}

static json_int_t age_ms(uint64_t at_ms)
{
	uint64_t now = clock_boot_ms();

	return now > at_ms ? (json_int_t)(now - at_ms) : 0;
}

static json_t *other_numbers(const struct node *node, const struct gossip_member *m)
{
	uint32_t numbers[OTHER_NUMBERS_MAX];
	unsigned count = gossip_other_numbers(node->gossip, &m->host_id, numbers, OTHER_NUMBERS_MAX);
	json_t *list = json_array();

	for (unsigned i = 0; i < count && i < OTHER_NUMBERS_MAX; i++)
		json_array_append_new(list, json_integer(numbers[i]));
	return list;
}

static void add_member(void *ctx, const struct gossip_member *m)
{
	struct listing *l = ctx;
	json_t *o = json_object();

	json_object_set_new(o, "hostno", json_integer(m->hostno));
	json_object_set_new(o, "other_numbers", other_numbers(l->node, m));
	json_object_set_new(o, "name", json_string(m->name));
	json_object_set_new(o, "host_id", api_id(&m->host_id));
	json_object_set_new(o, "state", json_string(gossip_state_name(m->state)));
	json_object_set_new(o, "since_s", json_integer((json_int_t)((clock_boot_ms() - m->since_ms) / 1000)));
	json_object_set_new(o, "address", api_addr(&m->addr));
	json_object_set_new(o, "vtep", api_ip(&m->vtep));
	json_object_set_new(o, "wire", json_integer(m->wire));
	json_object_set_new(o, "rtt_us", m->rtt_us && !m->self ? json_integer(m->rtt_us) : json_null());
	json_object_set_new(o, "reach", m->self ? json_null() : json_string(gossip_reach_name(m->reach)));
	json_object_set_new(o, "heard_ms", m->heard_ms && !m->self ? json_integer(age_ms(m->heard_ms)) : json_null());
	json_object_set_new(o, "answered_ms", m->answered_ms && !m->self ? json_integer(age_ms(m->answered_ms)) : json_null());
	json_object_set_new(o, "epoch", json_integer(m->epoch));
	json_object_set_new(o, "incarnation", json_integer(m->incarnation));
	json_object_set_new(o, "self", json_boolean(m->self));
	json_object_set_new(o, "endpoints", json_integer(api_endpoints_of(l->node, m->hostno, 0)));
	json_array_append_new(l->array, o);
}

/* Sorts an array of objects by up to three members, integers as integers. */
static const char *const *sort_keys;
json_t *api_members(struct node *node)
{
	struct listing l = {.node = node, .array = json_array()};

	gossip_each_member(node->gossip, add_member, &l);
	return json_pack("{s:o}", "members", sorted(l.array, by_hostno));
}

/* ---- endpoints ---- */

static const char *const link_names[] = {
	[DRIVER_LINK_ABSENT] = "absent", [DRIVER_LINK_IN_HOST] = "in-host", [DRIVER_LINK_AWAY] = "away"};

static json_t *endpoint_json(const struct network *n, const char *id, const char *host, uint32_t hostno, const struct ip *ip4,
	const struct ip *ip6, const struct mac *mac, uint64_t since_s, const struct ip *vtep)
{
	int64_t age = clock_wall_s() - (int64_t)since_s;
	char mac_text[MAC_TEXT_SIZE];
	json_t *o = json_object();

	json_object_set_new(o, "id", json_string(id));
	json_object_set_new(o, "network", json_string(n->def.name));
	json_object_set_new(o, "network_id", api_id(&n->id));
	json_object_set_new(o, "host", json_string(host));
	json_object_set_new(o, "hostno", json_integer(hostno));
	json_object_set_new(o, "ipv4", api_ip(ip4));
	json_object_set_new(o, "ipv6", api_ip(ip6));
	json_object_set_new(o, "mac", json_string(mac_format(mac, mac_text)));
	json_object_set_new(o, "since_s", json_integer(age > 0 ? age : 0));
	json_object_set_new(o, "vtep", api_ip(vtep));
	return o;
}

static json_t *local_json(struct node *node, const struct endpoint *ep)
{
	json_t *o = endpoint_json(ep->network, ep->id, node->options.name, node->cluster.hostno, &ep->state.address4.ip,
		&ep->state.address6.ip, &ep->state.mac, ep->state.since_s, &node->options.vtep);

	json_object_set_new(o, "state", json_string(ep->state.joined ? "joined" : "created"));
	json_object_set_new(o, "link", json_string(link_names[ep->link]));
	json_object_set_new(o, "docker_network_id", api_text(ep->state.docker_network));
	json_object_set_new(o, "error", json_null());
	workload_describe(ep->workload, o);
	return o;
}

static json_t *remote_json(struct node *node, const struct network *n, const struct remote *r)
{
	struct host *host = cluster_host(node, r->key.origin);
	bool up = host && host->state == GOSSIP_ALIVE;
	char name[GOSSIP_NAME_MAX + 1];
	struct ip none = {0};
	json_t *o = endpoint_json(n, r->record.short_id, host_label(node, r->key.origin, name, sizeof(name)), r->key.origin,
		&r->record.ip4, &r->record.ip6, &r->record.mac, r->record.since_s, host ? &host->vtep : &none);

	json_object_set_new(o, "state", json_string(up ? "up" : "suspended"));
	json_object_set_new(o, "link", json_string("remote"));
	json_object_set_new(o, "docker_network_id", json_null());
	json_object_set_new(o, "error",
		r->shadowed4 || r->shadowed6 ? json_string("another endpoint has the same address and gets its traffic")
					     : json_null());
	workload_describe(NULL, o);
	return o;
}

static json_t *endpoint_list(struct node *node, const struct network *only)
{
	json_t *array = json_array();
	struct endpoint *ep, *next;
	struct segment *s, *next_segment;

	HASH_ITER(hh, node->endpoints, ep, next)
	if (!ep->closing && !ep->host_end && ep->network && (!only || ep->network == only))
		json_array_append_new(array, local_json(node, ep));
	HASH_ITER(hh, node->segments, s, next_segment)
	{
		struct network *n = network_by_topic(node, s->topic);
		struct remote *r, *next_remote;
		if (!n || (only && n != only))
			continue;
		HASH_ITER(hh, s->remotes, r, next_remote)
		if (!remote_is_host(r))
			json_array_append_new(array, remote_json(node, n, r));
	}
	return sorted(array, by_network);
}

struct network *api_need_network(struct node *node, const char *name, struct err *err)
{
	struct network *n = network_find(node, name);

	if (!n)
		err_set(err, ERR_NOT_FOUND, "network \"%s\" is not known here: `trestle network ls` lists the known ones", name);
	return n;
}

json_t *api_endpoints(struct node *node, const char *filter, struct err *err)
{
	struct network *only = NULL;
	char name[GOSSIP_NAME_MAX + 1];

	if (filter && !(only = api_need_network(node, filter, err)))
		return NULL;
	if (only && !only->mine) {
		err_set(err, ERR_CONFLICT,
			"network \"%s\": this host is no part of it and does not keep its endpoints; ask host %s, which is",
			only->def.name, host_label(node, network_some_host(node, only), name, sizeof(name)));
		return NULL;
	}
	return json_pack("{s:o}", "endpoints", endpoint_list(node, only));
}

static bool matches(const json_t *e, const char *text)
{
	static const char *const members_of[] = {"ipv4", "ipv6", "mac"};
	const char *id = json_string_value(json_object_get(e, "id"));

	for (size_t i = 0; i < 3; i++) {
		const char *value = json_string_value(json_object_get(e, members_of[i]));
		if (value && strcasecmp(value, text) == 0)
			return true;
	}
	/* Of other hosts only the first digits are known: a longer id fits too. */
	return id && strlen(text) >= 4 &&
	       (strncmp(id, text, strlen(text)) == 0 || (strlen(id) == ENDPOINT_SHORT_MAX && strncmp(id, text, strlen(id)) == 0));
}

/* No endpoint has it: perhaps a host itself does. */
static int explain_stranger(struct node *node, const char *text, struct err *err)
{
	const struct network *n = NULL, *own;
	char name[GOSSIP_NAME_MAX + 1];
	uint32_t hostno = node->cluster.hostno;
	struct segment *s, *next;
	struct ip ip;

	if (ip_parse(text, &ip, NULL) == 0) {
		own = host_address_of(node, NULL, &ip);
		HASH_ITER(hh, node->segments, s, next)
		{
			const struct remote *r = segment_with_ip(node, s->topic, &ip);

			if (!r || !remote_is_host(r))
				continue;
			n = network_by_topic(node, s->topic);
			hostno = r->key.origin;
		}
		n = own ? own : n;
	}
	if (n)
		return err_set(err, ERR_NOT_FOUND, "%s is no endpoint's: it is what host %s itself has in network \"%s\"", text,
			host_label(node, hostno, name, sizeof(name)), n->def.name);
	return err_set(err, ERR_NOT_FOUND,
		"no endpoint in a network of this host has the id or address \"%s\": `trestle endpoint ls` lists them", text);
}

json_t *api_endpoint_inspect(struct node *node, const char *text, struct err *err)
{
	json_t *all = endpoint_list(node, NULL), *found = NULL, *e;
	char ids[256] = "";
	unsigned count = 0;
	size_t i;

	json_array_foreach(all, i, e)
	{
		if (!matches(e, text))
			continue;
		if (++count <= 4)
			snprintf(ids + strlen(ids), sizeof(ids) - strlen(ids), "%s%.12s", count > 1 ? ", " : "",
				json_string_value(json_object_get(e, "id")));
		found = e;
	}
	if (count == 1)
		json_incref(found);
	else if (!count)
		explain_stranger(node, text, err);
	else
		err_set(err, ERR_CONFLICT, "%u endpoints fit \"%s\": %s; name one by its id", count, text, ids);
	json_decref(all);
	return count == 1 ? found : NULL;
}

/* ---- networks ---- */

static json_t *pools_json(const struct network *n)
{
	json_t *array = json_array();
	char text[PREFIX_TEXT_SIZE];

	for (int family = 4; family <= 6; family += 2)
		for (unsigned i = 0; i < n->def.pool_count; i++)
			if (n->def.pools[i].ip.family == family)
				json_array_append_new(array, json_string(prefix_format(&n->def.pools[i], text)));
	return array;
}

static json_t *ips_json(const struct ip ips[2])
{
	json_t *list = json_array();

	for (unsigned i = 0; i < 2; i++)
		if (ip_is_set(&ips[i]))
			json_array_append_new(list, api_ip(&ips[i]));
	return list;
}

/* This host's own, in either mode. */
static json_t *host_addresses_json(const struct network *n)
{
	const struct prefix *end = host_end_addresses(n);

	if (n->def.routed)
		return ips_json((const struct ip[]){n->own[0].address, n->own[1].address});
	return ips_json((const struct ip[]){end[0].ip, end[1].ip});
}

static json_t *network_json(struct node *node, const struct network *n)
{
	struct segment *s = segment_find(node, n->topic);
	char conflict[400];
	json_t *o = json_object();

	json_object_set_new(o, "id", api_id(&n->id));
	json_object_set_new(o, "name", json_string(n->def.name));
	json_object_set_new(o, "vni", json_integer(n->def.vni));
	json_object_set_new(o, "mode", json_string(network_mode_name(&n->def)));
	json_object_set_new(o, "mtu", json_integer(n->def.mtu));
	json_object_set_new(o, "pools", pools_json(n));
	json_object_set_new(o, "internal", json_boolean(n->def.internal));
	json_object_set_new(o, "endpoints_local", json_integer(network_endpoints(n)));
	json_object_set_new(o, "kept", json_boolean(n->mine));
	json_object_set_new(o, "endpoints_total", n->mine ? json_integer(network_endpoints(n) + segment_size(s)) : json_null());
	json_object_set_new(
		o, "hosts", n->mine ? json_integer((s ? HASH_COUNT(s->hosts) : 0) + (n->local_count > 0)) : json_null());
	json_object_set_new(
		o, "conflict", network_conflict(node, n, conflict, sizeof(conflict)) ? json_text(conflict) : json_null());
	json_object_set_new(o, "pinned", json_boolean(n->pinned));
	json_object_set_new(o, "host_addresses", host_addresses_json(n));
	return o;
}

json_t *api_networks(struct node *node)
{
	json_t *array = json_array();
	struct network *n, *next;

	HASH_ITER(hh, node->networks, n, next)
	json_array_append_new(array, network_json(node, n));
	return json_pack("{s:o}", "networks", sorted(array, by_name));
}

/* A host's own addresses in a network. */
static json_t *own_addresses(struct node *node, const struct network *n, uint32_t hostno)
{
	struct segment *s = segment_find(node, n->topic);
	struct segment_host *sh = NULL;

	if (hostno == node->cluster.hostno)
		return host_addresses_json(n);
	if (s)
		HASH_FIND(hh, s->hosts, &hostno, sizeof(hostno), sh);
	if (!sh || !sh->is_at)
		return json_array();
	return ips_json((const struct ip[]){sh->is_at->record.ip4, sh->is_at->record.ip6});
}

static void add_network_member(void *ctx, const struct gossip_member *m)
{
	struct listing *l = ctx;
	unsigned count = api_endpoints_of(l->node, m->hostno, l->network->topic);

	if (count)
		json_array_append_new(
			l->array, json_pack("{s:i, s:s, s:o, s:s, s:i, s:o}", "hostno", (int)m->hostno, "name", m->name, "vtep",
					  api_ip(&m->vtep), "state", gossip_state_name(m->state), "endpoints", (int)count,
					  "addresses", own_addresses(l->node, l->network, m->hostno)));
}

json_t *api_network_full(struct node *node, const struct network *n)
{
	struct listing l = {.node = node, .array = json_array(), .network = n};
	json_t *o = network_json(node, n), *ids = json_array();
	struct docker_network *d, *next;

	HASH_ITER(hh, node->docker_networks, d, next)
	if (id_equal(&d->state.network, &n->id))
		json_array_append_new(ids, json_string(d->id));
	gossip_each_member(node->gossip, add_network_member, &l);
	json_object_set_new(o, "docker_ids", ids);
	json_object_set_new(o, "members", sorted(l.array, by_hostno));
	json_object_set_new(o, "endpoints", endpoint_list(node, n));
	return o;
}
json_t *api_network_inspect(struct node *node, const char *name, struct err *err)
{
	struct network *n = api_need_network(node, name, err);

	return n ? api_network_full(node, n) : NULL;
}

/* ---- ipam ---- */

static json_t *count_json(u128 count)
{
	return json_integer(count > COUNT_MAX ? (json_int_t)COUNT_MAX : (json_int_t)count);
}

static void add_share(void *ctx, const struct ipam_share *share)
{
	struct listing *l = ctx;
	char name[GOSSIP_NAME_MAX + 1];

	json_array_append_new(l->array,
		json_pack("{s:s, s:i, s:o, s:o, s:i, s:b}", "host", host_label(l->node, share->hostno, name, sizeof(name)),
			"hostno", (int)share->hostno, "held", count_json(share->held), "free", count_json(share->free_held),
			"fragments", (int)share->fragments, "wanted", (int)share->wanted));
}

static const char *network_of_pool(struct node *node, const struct pool *p)
{
	struct network *n, *next;

	HASH_ITER(hh, node->networks, n, next)
	if (network_def_has(&n->def, &p->state.def.prefix))
		return n->def.name;
	return p->state.def.name;
}

static json_t *pool_json(struct node *node, const struct pool *p)
{
	struct listing l = {.node = node, .array = json_array()};
	struct ipam_totals totals;
	char text[PREFIX_TEXT_SIZE];
	json_t *o = json_object();

	pool_totals(node, p, &totals);
	ipam_each_share(node->ipam, &p->id, add_share, &l);
	json_object_set_new(o, "pool", json_string(prefix_format(&p->state.def.prefix, text)));
	json_object_set_new(o, "pool_id", api_id(&p->id));
	json_object_set_new(o, "network", api_text(network_of_pool(node, p)));
	json_object_set_new(o, "space", json_string(pool_space_name(p->state.def.space)));
	json_object_set_new(o, "size", count_json(totals.size));
	json_object_set_new(o, "reserved", count_json(totals.reserved));
	json_object_set_new(o, "leases", json_integer(totals.leases));
	json_object_set_new(o, "shares", sorted(l.array, by_hostno));
	return o;
}

json_t *api_ipam_show(struct node *node, const char *filter, struct err *err)
{
	json_t *array = json_array();
	struct pool *p, *next;
	char text[PREFIX_TEXT_SIZE];

	HASH_ITER(hh, node->pools, p, next)
	if (!filter || strcmp(prefix_format(&p->state.def.prefix, text), filter) == 0)
		json_array_append_new(array, pool_json(node, p));
	if (filter && !json_array_size(array)) {
		json_decref(array);
		err_set(err, ERR_NOT_FOUND, "pool %s is not known here: `trestle ipam show` lists the known ones", filter);
		return NULL;
	}
	return json_pack("{s:o}", "pools", sorted(array, by_pool));
}

/* ---- keys ---- */

/* What names a key, never what it is. */
static void add_key(void *ctx, const struct gossip_key *key)
{
	struct listing *l = ctx;
	char fingerprint[2 * sizeof(key->fingerprint) + 1];
	int64_t age = clock_wall_s() - (int64_t)key->created_s;

	for (size_t i = 0; i < sizeof(key->fingerprint); i++)
		snprintf(fingerprint + 2 * i, 3, "%02x", key->fingerprint[i]);
	json_array_append_new(l->array, json_pack("{s:s, s:i, s:s, s:o, s:o, s:i, s:i, s:i}", "id", fingerprint, "generation",
						(int)key->generation, "state", gossip_key_state_name(key->state), "age_s",
						key->created_s ? json_integer(age > 0 ? (json_int_t)age : 0) : json_null(),
						"made_by", api_host_name(l->node, &key->rotator), "hosts", (int)key->have,
						"sending", (int)key->sending, "of", (int)key->needed));
}

json_t *api_keys(struct node *node)
{
	struct listing l = {.node = node, .array = json_array()};

	gossip_each_key(node->gossip, add_key, &l);
	return json_pack("{s:o}", "keys", l.array);
}

/* Networks: cluster-wide definitions, and the engine networks of this host that stand for them.
 *
 * Every host that uses a network publishes the whole definition in its own shard of topic 0, so a definition lives as long as
 * anyone uses it and does not depend on its creator. All publishers say the same; where they do not (a VNI was picked anew), the
 * higher version counts, then the greater bytes, on every host alike. A network that nobody publishes is gone.
 *
 * Subnets are only ever added: two hosts that added different ones at once end with both.
 *
 * A name or a VNI can come to be used by two networks when both were made on the two sides of a cut. The lower id keeps the name;
 * the higher id picks another VNI: each publisher computes the same next one. */
#include <errno.h>
#include <ifaddrs.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/node_internal.h"
#include "netlink/build.h"
#include "netlink/route.h"
#include "netlink/socket.h"

#define VNI_MAX 0xffffff
#define VXLAN_OVERHEAD_4 50 /* outer Ethernet 14, IPv4 20, UDP 8, VXLAN 8 (RFC 7348 section 5) */
#define VXLAN_OVERHEAD_6 70
#define MTU_FALLBACK 1500

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

static struct network *by_name(struct node *node, const char *name)
{
	struct network *n, *next, *best = NULL;

	HASH_ITER(hh, node->networks, n, next)
	if (strcmp(n->def.name, name) == 0 && (!best || id_compare(&n->id, &best->id) < 0))
		best = n;
	return best;
}

struct network *network_find(struct node *node, const char *text)
{
	struct network *found = by_name(node, text), *n, *next;
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

struct docker_network *docker_network_find(struct node *node, const char *id)
{
	struct docker_network *d;
	HASH_FIND_STR(node->docker_networks, id, d);
	return d;
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

static struct network *network_add(struct node *node, const struct network_def *def)
{
	struct network *n = calloc(1, sizeof(*n));

	if (!n)
		abort();
	n->id = def->id;
	n->topic = topic_of_network(&def->id);
	n->def = *def;
	HASH_ADD(hh, node->networks, id, sizeof(n->id), n);
	HASH_ADD(hh_topic, node->networks_by_topic, topic, sizeof(n->topic), n);
	return n;
}

static void network_drop(struct node *node, struct network *n)
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

static bool vni_taken(struct node *node, uint32_t vni, const struct id128 *except)
{
	struct network *n, *next;

	HASH_ITER(hh, node->networks, n, next)
	if (n->def.vni == vni && !id_equal(&n->id, except))
		return true;
	return false;
}

/* By hash of id and version, then upwards: hosts with the same tables pick the same. */
static uint32_t pick_vni(struct node *node, const struct id128 *id, uint32_t version)
{
	uint8_t hash[crypto_generichash_BYTES_MIN];
	uint32_t vni;

	crypto_generichash(hash, sizeof(hash), id->bytes, sizeof(id->bytes), (const uint8_t *)&version, sizeof(version));
	vni = (uint32_t)hash[0] << 16 | (uint32_t)hash[1] << 8 | hash[2];
	for (unsigned i = 0; i < VNI_MAX; i++, vni++)
		if ((vni &= VNI_MAX) >= 4096 && !vni_taken(node, vni, id)) /* low numbers are what people choose by hand */
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
		loser->def.vni = pick_vni(node, &loser->id, loser->def.version);
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
	struct network *n = by_name(node, name);

	if (!n)
		return NULL;
	*ret_len = network_def_encode(&n->def, buf, size);
	return buf;
}

/* ---- making one ---- */

static unsigned mtu_of(const char *ifname)
{
	struct ifreq req = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	unsigned mtu = MTU_FALLBACK;

	snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", ifname);
	if (fd >= 0 && ioctl(fd, SIOCGIFMTU, &req) == 0)
		mtu = (unsigned)req.ifr_mtu;
	if (fd >= 0)
		close(fd);
	return mtu;
}

static bool is_address(const struct sockaddr *sa, const struct ip *ip)
{
	if (!sa)
		return false;
	if (sa->sa_family == AF_INET && ip->family == 4)
		return memcmp(&((const struct sockaddr_in *)(const void *)sa)->sin_addr, ip->bytes, 4) == 0;
	return sa->sa_family == AF_INET6 && ip->family == 6 &&
	       memcmp(&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, ip->bytes, 16) == 0;
}

static int take_route(void *arg, const struct nlmsghdr *h, struct err *err)
{
	return nl_route_parse(h, arg, err);
}

/* By the route that the kernel keeps for an address of its own. */
static bool device_by_route(const struct ip *own, char ret_name[IF_NAMESIZE])
{
	struct nl_route route = {0};
	struct nl_socket *s;
	struct nlb b;
	struct err err;
	int result;

	if (nl_open(-1, NULL, 0, &s, &err) < 0)
		return false;
	nl_route_get_request(&b, own);
	result = nl_query(s, &b, take_route, &route, &err);
	nl_close(s);
	return result == 0 && route.type == RTN_LOCAL && route.oif && if_indextoname(route.oif, ret_name);
}

/* Of a device that is down, or of a VRF, the first table asked has no route. A dump waits for whoever configures a device. */
static bool device_by_dump(const struct ip *own, char ret_name[IF_NAMESIZE])
{
	struct ifaddrs *list, *at;

	if (getifaddrs(&list) < 0)
		return false;
	for (at = list; at && !is_address(at->ifa_addr, own); at = at->ifa_next)
		;
	if (at)
		snprintf(ret_name, IF_NAMESIZE, "%s", at->ifa_name);
	freeifaddrs(list);
	return at != NULL;
}

unsigned underlay_mtu(const struct ip *own)
{
	char name[IF_NAMESIZE];

	return device_by_route(own, name) || device_by_dump(own, name) ? mtu_of(name) : MTU_FALLBACK;
}

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
		o->fn(o->arg, NULL, &err);
		free(o);
		return;
	}
	n = network_by_id(o->node, &def.id);
	obtained(o, n ? n : network_add(o->node, &def));
}

static int new_def(struct node *node, const struct network_spec *spec, struct network_def *def, struct err *err)
{
	unsigned underlay = underlay_mtu(&node->options.vtep),
		 overhead = node->options.vtep.family == 6 ? VXLAN_OVERHEAD_6 : VXLAN_OVERHEAD_4;

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
	if (spec->vni && vni_taken(node, spec->vni, &def->id))
		return err_set(
			err, ERR_CONFLICT, "VNI %u is used by another network; `trestle network ls` shows by which", spec->vni);
	def->vni = spec->vni ? spec->vni : pick_vni(node, &def->id, def->version);
	return 0;
}

void network_obtain(struct node *node, const struct network_spec *spec,
	void (*fn)(void *arg, struct network *network, const struct err *err), void *arg)
{
	struct obtain *o = calloc(1, sizeof(*o));
	struct network *known;
	struct network_def def = {0};
	uint8_t buf[GOSSIP_VALUE_MAX];
	char key[NETWORK_NAME_MAX + 3];
	struct err err = {0};

	if (!o)
		abort();
	*o = (struct obtain){.node = node, .spec = *spec, .fn = fn, .arg = arg};
	if (!o->spec.name[0] && o->spec.pool_count)
		prefix_format(&o->spec.pools[0], o->spec.name); /* two hosts that ask for the same subnet mean the same network */
	known = by_name(node, o->spec.name);
	if (known) {
		obtained(o, known);
		return;
	}
	if (new_def(node, &o->spec, &def, &err) < 0) {
		fn(arg, NULL, &err);
		free(o);
		return;
	}
	snprintf(key, sizeof(key), "n:%s", def.name);
	claim_name(node, key, false, buf, network_def_encode(&def, buf, sizeof(buf)), on_claimed, o);
}

/* ---- the engine's calls ---- */

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
		d = calloc(1, sizeof(*d));
		if (!d)
			abort();
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
	c = calloc(1, sizeof(*c));
	if (!c)
		abort();
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
	struct delete_call *c = calloc(1, sizeof(*c));

	if (!c)
		abort();
	c->node = node;
	c->call = call;
	snprintf(c->docker_id, sizeof(c->docker_id), "%s", network_id);
	endpoints_remove_all_of(node, network_id, endpoints_gone, c);
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

int networks_start(struct node *node, struct err *err)
{
	if (store_each(node->store, STORE_STATE, STORE_NETWORK, load_network, node, err) < 0)
		return -1;
	return store_each(node->store, STORE_STATE, STORE_DOCKER_NETWORK, load_docker_network, node, err);
}

void networks_stop(struct node *node)
{
	struct docker_network *d, *next_docker;
	struct network *n, *next;

	HASH_ITER(hh, node->docker_networks, d, next_docker)
	{
		HASH_DEL(node->docker_networks, d);
		free(d);
	}
	HASH_CLEAR(hh_topic, node->networks_by_topic);
	HASH_ITER(hh, node->networks, n, next)
	{
		HASH_DEL(node->networks, n);
		free(n);
	}
}

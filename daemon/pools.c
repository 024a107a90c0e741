/* Pools: ranges of addresses with one custody core behind them, and the engines' references to them.
 *
 * A pool is known by (space, prefix); made once in the cluster, after its home was asked (claims.c), joined by every host that
 * needs it. Hosts that know a pool publish its definition, as with networks. An engine's RequestPool is a counted reference, kept
 * in the state file; without references the addresses that this host holds go to hosts that want them, and a pool that this host
 * holds alone is forgotten.
 *
 * PoolID is self-describing: "SPACE,PREFIX,first 8 digits of the id[,SUBPOOL]". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "daemon/node_internal.h"

#define POOL_KEY_SIZE 17
#define ROUTES_MAX (4 * 1024 * 1024)
#define OWNER_GATEWAY "the gateway"
#define OWNER_AUX "an auxiliary address" /* another label: hosts that ask for the gateway must not take it for one */
#define SEARCH_BITS 16			 /* of candidates looked at: a search stays within milliseconds */
#define TAKE_AGAIN_MS 30000		 /* a host that has just started may be on hold for some seconds */
#define SLICES_LENGTH_MAX 96		 /* IPv6: 2,048 addresses for each host number without asking anybody */
#define PICKS_MAX 64			 /* candidates asked about before giving up */

static const char *const space_names[] = {"local", "global", "hostno"};

const char *pool_space_name(enum pool_space space)
{
	return space_names[space];
}

/* ---- lookup ---- */

struct pool *pool_by_id(struct node *node, const struct id128 *id)
{
	struct pool *p;
	HASH_FIND(hh, node->pools, id, sizeof(*id), p);
	return p;
}

static bool referenced(const struct pool *p)
{
	return p->state.ref_count || p->state.pinned;
}

static bool in_use(const struct pool *p)
{
	return referenced(p) || p->wanted_elsewhere;
}

bool pool_in_use(const struct pool *p)
{
	return in_use(p);
}

/* Of two pools with one prefix (made on the two sides of a cut): what is used here, then the lower id. */
struct pool *pools_find(struct node *node, enum pool_space space, const struct prefix *prefix)
{
	struct pool *p, *next, *best = NULL;

	HASH_ITER(hh, node->pools, p, next)
	{
		if (p->state.def.space != space || !prefix_equal(&p->state.def.prefix, prefix))
			continue;
		if (!best || (referenced(p) && !referenced(best)) ||
			(referenced(p) == referenced(best) && id_compare(&p->id, &best->id) < 0))
			best = p;
	}
	return best;
}

static struct pool *pool_named(struct node *node, enum pool_space space, uint8_t family, const char *name)
{
	struct pool *p, *next;

	HASH_ITER(hh, node->pools, p, next)
	if (p->state.def.space == space && p->state.def.prefix.ip.family == family && strcmp(p->state.def.name, name) == 0 &&
		in_use(p))
		return p;
	return NULL;
}

static struct pool *pool_overlapping(struct node *node, enum pool_space space, const struct prefix *prefix)
{
	struct pool *p, *next;

	HASH_ITER(hh, node->pools, p, next)
	if (p->state.def.space == space && in_use(p) && prefix_overlaps(&p->state.def.prefix, prefix))
		return p;
	return NULL;
}

/* ---- saving and publishing ---- */

static void pool_key(const struct id128 *id, uint8_t key[POOL_KEY_SIZE])
{
	key[0] = RECORD_POOL;
	memcpy(key + 1, id, sizeof(*id));
}

static void publish_pool(struct node *node, struct pool *p)
{
	uint8_t key[POOL_KEY_SIZE], buf[GOSSIP_VALUE_MAX];

	pool_key(&p->id, key);
	p->state.def.wanted = referenced(p);
	p->published = p->joined;
	if (p->joined)
		cluster_publish(node, TOPIC_CLUSTER, key, sizeof(key), buf, pool_def_encode(&p->state.def, buf, sizeof(buf)));
	else
		cluster_publish(node, TOPIC_CLUSTER, key, sizeof(key), NULL, 0);
}

static void publish_saved(struct node *node, const struct id128 *id)
{
	struct pool *p = pool_by_id(node, id);

	if (p)
		publish_pool(node, p);
}

void pool_keep(struct node *node, struct pool *p)
{
	uint8_t buf[RECORD_MAX];

	p->state.def.wanted = referenced(p);
	outbox_save(node->outbox, store_change_new(STORE_STATE, STORE_POOL, &p->id, sizeof(p->id), buf,
					  pool_state_encode(&p->state, buf, sizeof(buf)), true));
	call_behind_saves(node, &p->id, publish_saved);
	ipam_pool_want(node->ipam, &p->id, referenced(p), 0, clock_boot_ms());
	custody_poke(node);
}

/* A shared address that is not leased after a start was cleared by a reboot; the engine does not ask for it again. */
static void took_again(void *arg, const struct ipam_result *result)
{
	(void)arg;
	if (result->code != IPAM_GRANTED)
		log_warn("pools", "a gateway or auxiliary address could not be reserved again after the reboot; endpoints do not "
				  "get it while others list it");
}

/* A lease that is still an endpoint's: we died between noting what it is for and sharing it. */
static void take_again(struct node *node, struct pool *p, const struct ip *ip, const char *owner)
{
	struct ipam_want want = {
		.pool = p->id, .address = *ip, .use = IPAM_USE_SHARED, .owner = owner, .timeout_ms = TAKE_AGAIN_MS};
	struct ipam_lease lease;

	if (!ipam_lookup(node->ipam, &p->id, ip, &lease))
		custody_ask(node, &want, took_again, NULL);
	else if (lease.use == IPAM_USE_ENDPOINT)
		ipam_make_shared(node->ipam, &p->id, ip, owner, clock_boot_ms());
}

void pools_publish(struct node *node)
{
	struct pool *p, *next;

	HASH_ITER(hh, node->pools, p, next)
	{
		if (!p->joined)
			continue;
		publish_pool(node, p);
		ipam_pool_want(node->ipam, &p->id, referenced(p), 0, clock_boot_ms());
		for (unsigned i = 0; i < p->state.gateway_count; i++)
			take_again(node, p, &p->state.gateways[i], OWNER_GATEWAY);
		for (unsigned i = 0; i < p->state.aux_count; i++)
			take_again(node, p, &p->state.aux[i], OWNER_AUX);
	}
}

static struct pool *pool_add(struct node *node, const struct pool_def *def)
{
	struct pool *p = calloc(1, sizeof(*p));

	if (!p)
		abort();
	p->id = def->id;
	p->state.def = *def;
	HASH_ADD(hh, node->pools, id, sizeof(p->id), p);
	return p;
}

static void claim_key(char *buf, size_t size, const struct pool_def *def, bool by_name)
{
	char prefix[PREFIX_TEXT_SIZE];

	if (by_name)
		snprintf(buf, size, "q:%s:%u:%s", space_names[def->space], def->prefix.ip.family, def->name);
	else
		snprintf(buf, size, "p:%s:%s", space_names[def->space], prefix_format(&def->prefix, prefix));
}

static void remove_pool(struct node *node, struct pool *p)
{
	char key[128];

	for (int by_name = 0; by_name < 2; by_name++) {
		claim_key(key, sizeof(key), &p->state.def, by_name);
		claims_forget(node, key, p->state.def.creator == node->cluster.hostno);
	}
	HASH_DEL(node->pools, p);
	free(p);
}

static struct ipam_pool_def core_def(const struct pool_def *def)
{
	bool edges = def->prefix.ip.family == 6 ? def->prefix.length < 127 : def->prefix.length <= 30;

	bool large = def->prefix.ip.family == 6 && def->prefix.length <= SLICES_LENGTH_MAX;

	return (struct ipam_pool_def){
		.id = def->id, .prefix = def->prefix, .edges_reserved = edges, .slice_bits = large ? IPAM_SLICE_BITS : 0};
}

/* Forgets a pool that nobody here needs, if no address is lost by it. */
static void try_drop(struct node *node, struct pool *p)
{
	struct ipam_totals totals = {0};

	if (referenced(p) || !p->joined || estate_collects(node))
		return; /* an estate may be in any pool */
	ipam_pool_totals(node->ipam, &p->id, &totals);
	if (totals.held_known && p->host_count && p->wanted_elsewhere)
		return; /* what we hold is on its way to them */
	if (ipam_pool_drop(node->ipam, &p->id, NULL) < 0)
		return;
	p->joined = false;
	outbox_save(node->outbox, store_change_new(STORE_STATE, STORE_POOL, &p->id, sizeof(p->id), NULL, 0, true));
	publish_pool(node, p);
	if (!p->host_count)
		remove_pool(node, p);
}

void pool_unuse(struct node *node, struct pool *p)
{
	pool_keep(node, p);
	try_drop(node, p);
}

void pools_tick(struct node *node)
{
	struct pool *p, *next;

	HASH_ITER(hh, node->pools, p, next)
	try_drop(node, p);
}

/* ---- what others say ---- */

struct survey {
	struct node *node;
	struct id128 id;
	struct pool_def def;
	unsigned hosts;
	bool wanted;
};

static void survey_member(void *ctx, const struct gossip_member *m)
{
	struct survey *s = ctx;
	uint8_t key[POOL_KEY_SIZE];
	struct pool_def def;
	const void *val;
	size_t len;

	if (m->self || m->state == GOSSIP_LEFT)
		return;
	pool_key(&s->id, key);
	val = gossip_get(s->node->gossip, m->hostno, TOPIC_CLUSTER, key, sizeof(key), &len);
	if (!val || pool_def_decode(val, len, &def, NULL) < 0 || !id_equal(&def.id, &s->id))
		return;
	s->def = def;
	s->hosts++;
	s->wanted |= def.wanted;
}

/* The core takes an estate in the pools that it knows, so an heir joins also what it never used; what it then holds and does not
 * want goes on to who does. */
static void join_unused(struct node *node, struct pool *p)
{
	if (p->joined)
		return;
	pool_join_core(node, p);
	if (p->joined)
		pool_keep(node, p);
}

struct asked {
	struct node *node;
	struct id128 id;
};

static void join_asked(void *arg)
{
	struct asked *a = arg;
	struct pool *p = pool_by_id(a->node, &a->id);

	if (p && core_def(&p->state.def).slice_bits)
		join_unused(a->node, p);
	free(a);
}

/* Somebody asks by name for an address that may be in our slice of a pool that nobody here uses. A later tick leaves the pool
 * again; whoever asks repeats itself before that. Not at once: the core is in the middle of a message. */
void pool_asked(struct node *node, const struct id128 *id)
{
	struct asked *a = calloc(1, sizeof(*a));

	if (!a)
		abort();
	*a = (struct asked){node, *id};
	outbox_call(node->outbox, join_asked, a);
}

void pools_join_all(struct node *node)
{
	struct pool *p, *next;

	HASH_ITER(hh, node->pools, p, next)
	join_unused(node, p);
}

void pool_changed(struct node *node, const struct id128 *id)
{
	struct survey s = {.node = node, .id = *id};
	struct pool *p = pool_by_id(node, id);

	gossip_each_member(node->gossip, survey_member, &s);
	if (s.hosts && s.def.space == POOL_SPACE_HOSTNO) {
		hostnos_pool_seen(node, &s.def);
		return;
	}
	if (!p && s.hosts)
		p = pool_add(node, &s.def);
	if (!p)
		return;
	p->host_count = s.hosts;
	p->wanted_elsewhere = s.wanted;
	if (!p->joined && !s.hosts)
		remove_pool(node, p);
	else if (estate_collects(node))
		join_unused(node, p);
}

/* "p:SPACE:PREFIX" or "q:SPACE:FAMILY:NAME" */
const void *pool_claimed(struct node *node, const char *key, void *buf, size_t size, size_t *ret_len)
{
	struct pool *p, *next;
	char text[128];

	HASH_ITER(hh, node->pools, p, next)
	{
		if (!in_use(p) || (!p->host_count && !p->published)) /* ours is one when it is on disk */
			continue;
		claim_key(text, sizeof(text), &p->state.def, key[0] == 'q');
		if (strcmp(text, key) != 0)
			continue;
		*ret_len = pool_def_encode(&p->state.def, buf, size);
		return buf;
	}
	return NULL;
}

/* ---- choosing a prefix ---- */

/* This host's routes, read once for a whole search. */
struct route_list {
	struct prefix *routes;
	size_t count, max;
};

static void add_route(struct route_list *list, const struct prefix *route)
{
	if (list->count == list->max) {
		list->max = list->max ? 2 * list->max : 64;
		list->routes = reallocarray(list->routes, list->max, sizeof(*list->routes));
		if (!list->routes)
			abort();
	}
	list->routes[list->count++] = *route;
}

static bool parse_route4(const char *line, struct prefix *ret)
{
	uint32_t dst, mask;

	if (sscanf(line, "%*s %x %*x %*x %*d %*d %*d %x", &dst, &mask) != 2 || mask == 0)
		return false;
	*ret = (struct prefix){.ip = ip_from_number(4, __builtin_bswap32(dst)), .length = (uint8_t)__builtin_popcount(mask)};
	return true;
}

static bool parse_route6(const char *line, struct prefix *ret)
{
	char hex[33];
	unsigned length;

	*ret = (struct prefix){.ip = {.family = 6}};
	if (sscanf(line, "%32s %x", hex, &length) != 2 || length == 0 || length > 128 || hex_decode(hex, ret->ip.bytes, 16) < 0)
		return false;
	ret->length = (uint8_t)length;
	return true;
}

/* The device is the first word of a line of IPv4's, the last one of IPv6's. */
static bool is_through(const char *line, uint8_t family, const char *ifname)
{
	size_t len = ifname ? strlen(ifname) : 0;
	const char *last = strrchr(line, ' ');
	const char *word = family == 4 ? line : last ? last + 1 : "";

	return len && strncmp(word, ifname, len) == 0 && (!word[len] || strchr(" \t", word[len]));
}

/* A default route overlaps everything and does not count; nor do those through one device, if it is named. */
static void read_routes(struct route_list *list, uint8_t family, const char *except)
{
	const char *path = family == 4 ? "/proc/self/net/route" : "/proc/self/net/ipv6_route";
	char *data, *line, *save = NULL;
	struct prefix route;
	size_t len;

	if (file_read(path, ROUTES_MAX, &data, &len, NULL) < 0)
		return;
	for (line = strtok_r(data, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (!is_through(line, family, except) && (family == 4 ? parse_route4(line, &route) : parse_route6(line, &route)))
			add_route(list, &route);
	free(data);
}

static bool overlaps_route(const struct route_list *list, const struct prefix *prefix)
{
	for (size_t i = 0; i < list->count; i++)
		if (prefix_overlaps(&list->routes[i], prefix))
			return true;
	return false;
}

unsigned routes_overlap(const struct prefix *prefixes, unsigned count, const char *except)
{
	struct route_list list = {0};
	bool read[2] = {false};
	unsigned found = 0;

	for (unsigned i = 0; i < count; i++) {
		bool *done = &read[prefixes[i].ip.family == 6];

		if (!*done)
			read_routes(&list, prefixes[i].ip.family, except);
		*done = true;
		found |= overlaps_route(&list, &prefixes[i]) ? 1u << i : 0;
	}
	free(list.routes);
	return found;
}

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
	read_routes(&routes, spec->family, NULL);
	for (u128 i = 0; i < count && !found; i++) {
		struct prefix p = {.ip = ip_from_number(spec->family, base + i * step), .length = (uint8_t)length};
		if (overlaps_route(&routes, &p) || pool_overlapping(node, spec->space, &p))
			continue;
		if (skip) {
			skip--;
			continue;
		}
		*ret = p;
		found = true;
	}
	free(routes.routes);
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

static int join_core(struct node *node, struct pool *p, bool mine, struct err *err)
{
	struct ipam_pool_def def = core_def(&p->state.def);
	uint64_t now = clock_boot_ms();
	int result;

	if (p->joined)
		return 0;
	result = mine ? ipam_pool_create(node->ipam, &def, now, err) : ipam_pool_join(node->ipam, &def, now, err);
	if (result < 0)
		return -1;
	p->joined = true;
	if (!mine)
		custody_feed_pool(node, &p->id);
	return 0;
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
	if (join_core(o->node, p, mine, &err) < 0) {
		if (!p->joined && !p->host_count)
			remove_pool(o->node, p); /* another's answer that nobody publishes must not hold the prefix */
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

	claim_key(key, sizeof(key), &o->def, false);
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
	claim_key(key, sizeof(key), &o->def, o->asking_name);
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

void pool_obtain(struct node *node, const struct pool_spec *spec, void (*fn)(void *arg, struct pool *pool, const struct err *err),
	void *arg)
{
	struct obtain *o = calloc(1, sizeof(*o));
	struct pool *p = NULL;

	if (!o)
		abort();
	*o = (struct obtain){.node = node, .spec = *spec, .fn = fn, .arg = arg};
	snprintf(o->name, sizeof(o->name), "%s", spec->name ? spec->name : "");
	if (!prefix_is_set(&o->spec.prefix) && o->name[0])
		take_network_prefix(o);
	o->chosen = !prefix_is_set(&o->spec.prefix);
	if (!o->chosen)
		p = pools_find(node, o->spec.space, &o->spec.prefix);
	else if (o->name[0])
		p = pool_named(node, o->spec.space, o->spec.family, o->name);
	if (p && !in_use(p) && pool_overlapping(node, o->spec.space, &p->state.def.prefix))
		p = NULL; /* left over and overlapped by now: ask_home says by what */
	if (p)
		succeed(o, p, false);
	else
		ask_home(o);
}

/* ---- pool ids ---- */

struct pool_name {
	struct pool *pool;
	struct prefix within;
};

static void format_pool_id(const struct pool *p, const struct prefix *within, char *buf, size_t size)
{
	char prefix[PREFIX_TEXT_SIZE], sub[PREFIX_TEXT_SIZE], id[ID_TEXT_SIZE];

	snprintf(buf, size, "%s,%s,%.8s%s%s", space_names[p->state.def.space], prefix_format(&p->state.def.prefix, prefix),
		id_format(&p->id, id), prefix_is_set(within) ? "," : "", prefix_is_set(within) ? prefix_format(within, sub) : "");
}

static struct pool *by_short_id(struct node *node, enum pool_space space, const struct prefix *prefix, const char *digits)
{
	struct pool *p, *next;
	char id[ID_TEXT_SIZE];

	HASH_ITER(hh, node->pools, p, next)
	if (p->joined && p->state.def.space == space && prefix_equal(&p->state.def.prefix, prefix) &&
		strncmp(id_format(&p->id, id), digits, 8) == 0)
		return p;
	return NULL;
}

/* -1: not one of ours, or no such pool. */
static int parse_pool_id(struct node *node, const char *text, struct pool_name *ret)
{
	char copy[160], *parts[4] = {0}, *save, *part;
	unsigned count = 0, space;
	struct prefix prefix;

	snprintf(copy, sizeof(copy), "%s", text);
	for (part = strtok_r(copy, ",", &save); part && count < 4; part = strtok_r(NULL, ",", &save))
		parts[count++] = part;
	for (space = 0; count >= 3 && space < POOL_SPACE_HOSTNO && strcmp(parts[0], space_names[space]) != 0; space++)
		;
	if (count < 3 || space == POOL_SPACE_HOSTNO || prefix_parse(parts[1], &prefix, NULL) < 0)
		return -1;
	memset(ret, 0, sizeof(*ret));
	if (count == 4 && prefix_parse(parts[3], &ret->within, NULL) < 0)
		return -1;
	ret->pool = by_short_id(node, (enum pool_space)space, &prefix, parts[2]);
	if (!ret->pool)
		ret->pool = pools_find(node, (enum pool_space)space, &prefix);
	return ret->pool && ret->pool->joined ? 0 : -1;
}

/* ---- RequestPool, ReleasePool ---- */

struct pool_call {
	struct node *node;
	struct plugin_call *call;
	struct prefix within;
	struct plugin_pool_given given;
};

static void answer_pool(void *arg)
{
	struct pool_call *c = arg;
	plugin_done_pool(c->call, &c->given);
	free(c);
}

static struct pool_ref *find_ref(struct pool *p, const struct prefix *within)
{
	for (unsigned i = 0; i < p->state.ref_count; i++)
		if (prefix_equal(&p->state.refs[i].within, within))
			return &p->state.refs[i];
	return NULL;
}

static int add_ref(struct pool *p, const struct prefix *within, struct err *err)
{
	struct pool_ref *ref = find_ref(p, within);

	if (!ref) {
		if (p->state.ref_count == POOL_REFS_MAX)
			return err_set(err, ERR_EXHAUSTED, "a pool can be asked for with %d different --ip-range", POOL_REFS_MAX);
		ref = &p->state.refs[p->state.ref_count++];
		*ref = (struct pool_ref){.within = *within};
	}
	ref->count++;
	return 0;
}

static void pool_given(void *arg, struct pool *p, const struct err *failed)
{
	struct pool_call *c = arg;
	struct err err = {0};

	if (failed) {
		plugin_fail(c->call, failed);
		free(c);
		return;
	}
	if (prefix_is_set(&c->within) && !prefix_contains_prefix(&p->state.def.prefix, &c->within))
		err_set(&err, ERR_INVALID, "--ip-range lies outside the pool");
	if (err.code || add_ref(p, &c->within, &err) < 0) {
		plugin_fail(c->call, &err);
		free(c);
		return;
	}
	format_pool_id(p, &c->within, c->given.pool_id, sizeof(c->given.pool_id));
	c->given.pool = p->state.def.prefix;
	pool_keep(c->node, p);
	outbox_call(c->node->outbox, answer_pool, c);
}

void pools_request(void *ctx, struct plugin_call *call, const struct plugin_request_pool *req)
{
	struct pool_spec spec = {.space = strcmp(req->space, PLUGIN_SPACE_GLOBAL) == 0 ? POOL_SPACE_GLOBAL : POOL_SPACE_LOCAL,
		.family = req->v6 ? 6 : 4,
		.name = req->name};
	struct pool_call *c = calloc(1, sizeof(*c));
	bool any = !prefix_is_set(&req->pool) || (ip_number(&req->pool.ip) == 0 && req->pool.length > 0);

	if (!c)
		abort();
	c->node = ctx;
	c->call = call;
	if (prefix_is_set(&req->within))
		c->within = prefix_masked(&req->within);
	if (!any)
		spec.prefix = prefix_masked(&req->pool);
	else if (prefix_is_set(&req->pool))
		spec.length = req->pool.length;
	if (prefix_is_set(&req->pool))
		spec.family = req->pool.ip.family;
	pool_obtain(ctx, &spec, pool_given, c);
}

struct end_leases {
	struct id128 pool;
	struct ip *addresses;
	size_t count, max;
};

static void collect_lease(void *ctx, const struct ipam_lease *lease)
{
	struct end_leases *e = ctx;

	if (e->count == e->max) {
		e->max = e->max ? 2 * e->max : 64;
		e->addresses = realloc(e->addresses, e->max * sizeof(*e->addresses));
		if (!e->addresses)
			abort();
	}
	e->addresses[e->count++] = lease->address;
}

/* The last reference is gone: so are its addresses. */
static void release_leases(struct node *node, struct pool *p)
{
	struct end_leases e = {.pool = p->id};

	ipam_each_lease(node->ipam, &p->id, collect_lease, &e);
	for (size_t i = 0; i < e.count; i++)
		ipam_release(node->ipam, &p->id, &e.addresses[i], clock_boot_ms());
	free(e.addresses);
	p->state.gateway_count = p->state.aux_count = 0;
}

static void answer_done(void *arg)
{
	plugin_done(arg);
}

void pools_release(void *ctx, struct plugin_call *call, const char *pool_id)
{
	struct node *node = ctx;
	struct pool_name name;
	struct pool_ref *ref;

	if (parse_pool_id(node, pool_id, &name) < 0 || !(ref = find_ref(name.pool, &name.within))) {
		plugin_done(call); /* unknown or released already: that is what was wanted */
		return;
	}
	if (--ref->count == 0)
		*ref = name.pool->state.refs[--name.pool->state.ref_count];
	if (!referenced(name.pool))
		release_leases(node, name.pool);
	pool_unuse(node, name.pool);
	outbox_call(node->outbox, answer_done, call);
}

/* ---- RequestAddress, ReleaseAddress ---- */

struct address_call {
	struct node *node;
	struct plugin_call *call;
	struct id128 pool;
	struct prefix prefix;
	struct ip asked;
	bool gateway;
	bool maybe_aux; /* an address and nothing else: of a container (--ip) or a network (--aux-address), who knows */
	uint64_t ticket;
	struct prefix given; /* unset until granted */
	bool *gone_at_once;  /* while asked: the client may have left already */
};

static bool is_listed(const struct ip *list, unsigned count, const struct ip *ip)
{
	for (unsigned i = 0; i < count; i++)
		if (ip_equal(&list[i], ip))
			return true;
	return false;
}

static bool is_remembered(const struct pool *p, const struct ip *ip)
{
	return is_listed(p->state.gateways, p->state.gateway_count, ip) || is_listed(p->state.aux, p->state.aux_count, ip);
}

static bool remember(struct node *node, struct pool *p, const struct ip *ip, bool gateway)
{
	struct ip *list = gateway ? p->state.gateways : p->state.aux;
	unsigned *count = gateway ? &p->state.gateway_count : &p->state.aux_count;
	char text[IP_TEXT_SIZE];

	if (is_remembered(p, ip))
		return true;
	if (*count == (gateway ? POOL_GATEWAYS_MAX : POOL_AUX_MAX)) {
		log_warn("pools", "%s is not reserved: this host keeps %u %s of a pool at most", ip_format(ip, text), *count,
			gateway ? "gateways" : "auxiliary addresses");
		return false;
	}
	list[(*count)++] = *ip;
	pool_keep(node, p);
	return true;
}

static bool forget_in(struct ip *list, unsigned *count, const struct ip *ip)
{
	for (unsigned i = 0; i < *count; i++)
		if (ip_equal(&list[i], ip)) {
			list[i] = list[--*count];
			return true;
		}
	return false;
}

static void forget(struct node *node, struct pool *p, const struct ip *ip)
{
	bool gateway = forget_in(p->state.gateways, &p->state.gateway_count, ip);
	bool aux = forget_in(p->state.aux, &p->state.aux_count, ip);

	if (gateway || aux)
		pool_keep(node, p);
}

/* The pool of ours that leases the address here. */
static struct pool *pool_leasing(struct node *node, const struct prefix *prefix, const struct ip *ip)
{
	for (enum pool_space space = POOL_SPACE_LOCAL; space <= POOL_SPACE_GLOBAL; space++) {
		struct pool *p = pools_find(node, space, prefix);
		if (p && p->joined && pool_in_use(p) && ipam_lookup(node->ipam, &p->id, ip, NULL))
			return p;
	}
	return NULL;
}

/* What it is for is on disk before the lease changes: a start in between finishes it (take_again). */
void pools_reserve(struct node *node, const struct prefix *prefix, const struct ip *ip, bool gateway)
{
	struct pool *p = pool_leasing(node, prefix, ip);
	struct ipam_lease lease;

	if (!p || !ipam_lookup(node->ipam, &p->id, ip, &lease) || lease.bound || !remember(node, p, ip, gateway))
		return;
	if (lease.use == IPAM_USE_ENDPOINT || !lease.owner[0])
		ipam_make_shared(node->ipam, &p->id, ip, gateway ? OWNER_GATEWAY : OWNER_AUX, clock_boot_ms());
	custody_poke(node);
}

static void address_given(void *arg, const struct ipam_result *result);

/* Another host has the address for its network. Should a container want it here, CreateEndpoint refuses: it binds no shared
 * lease. */
static void ask_to_share(struct address_call *c)
{
	struct ipam_want want = {.pool = c->pool, .address = c->asked, .use = IPAM_USE_SHARED, .owner = ""};

	c->maybe_aux = false;
	c->ticket = c->node->next_ticket + 1;
	custody_ask(c->node, &want, address_given, c);
}

static void answer_address(void *arg)
{
	struct address_call *c = arg;

	plugin_done_address(c->call, &c->given);
	free(c);
}

static void address_given(void *arg, const struct ipam_result *result)
{
	struct address_call *c = arg;
	struct pool *p = pool_by_id(c->node, &c->pool);
	struct prefix address = {.ip = result->address, .length = c->prefix.length};
	struct err err = {0};

	if (result->code == IPAM_IN_USE && result->shared && c->maybe_aux) {
		ask_to_share(c);
		return;
	}
	if (result->code != IPAM_GRANTED) {
		custody_explain(c->node, result, &c->asked, &c->prefix, &err);
		plugin_fail(c->call, &err);
	} else {
		if (c->gateway && p)
			remember(c->node, p, &result->address, true);
		c->given = address;
		outbox_call(c->node->outbox, answer_address, c); /* behind what was remembered */
		return;
	}
	free(c);
}

/* Nobody waits for the answer any more: an address that comes is given back. The call is owed an answer all the same. */
static void asker_gone(void *arg)
{
	struct address_call *c = arg;
	struct err err = {0};

	if (prefix_is_set(&c->given))
		return; /* on its way */
	if (c->gone_at_once)
		*c->gone_at_once = true;
	custody_abandon(c->node, c->ticket);
	err_set(&err, ERR_UNREACHABLE, "the engine closed the connection before the answer");
	plugin_fail(c->call, &err);
	free(c);
}

void pools_request_address(void *ctx, struct plugin_call *call, const struct plugin_request_address *req)
{
	struct node *node = ctx;
	struct ipam_want want = {.address = req->address, .use = req->gateway ? IPAM_USE_SHARED : IPAM_USE_ENDPOINT};
	char owner[IPAM_OWNER_MAX + 1] = "", mac[MAC_TEXT_SIZE];
	struct pool_name name;
	struct address_call *c;
	bool gone = false;
	struct err err = {0};

	if (parse_pool_id(node, req->pool_id, &name) < 0) {
		err_set(&err, ERR_NOT_FOUND, "pool \"%s\" is not known here; `trestle ipam show` lists the known ones",
			req->pool_id);
		plugin_fail(call, &err);
		return;
	}
	if (ip_is_set(&req->address) && !prefix_contains(&name.pool->state.def.prefix, &req->address)) {
		struct ipam_result outside = {.code = IPAM_OUTSIDE};
		custody_explain(node, &outside, &req->address, &name.pool->state.def.prefix, &err);
		plugin_fail(call, &err);
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c)
		abort();
	*c = (struct address_call){.node = node,
		.call = call,
		.pool = name.pool->id,
		.prefix = name.pool->state.def.prefix,
		.asked = req->address,
		.gateway = req->gateway,
		.maybe_aux = ip_is_set(&req->address) && !req->gateway && !req->endpoint};
	if (req->gateway)
		snprintf(owner, sizeof(owner), OWNER_GATEWAY);
	else if (!mac_is_zero(&req->mac))
		snprintf(owner, sizeof(owner), "%s", mac_format(&req->mac, mac));
	else if (req->endpoint_name)
		snprintf(owner, sizeof(owner), "%.120s", req->endpoint_name);
	want.pool = name.pool->id;
	want.within = name.within;
	want.owner = owner;
	want.shared_first = req->gateway && !ip_is_set(&req->address);
	c->ticket = node->next_ticket + 1;
	c->gone_at_once = &gone;
	plugin_call_on_gone(call, asker_gone, c);
	if (gone)
		return;
	c->gone_at_once = NULL;
	custody_ask(node, &want, address_given, c);
}

void pools_release_address(void *ctx, struct plugin_call *call, const char *pool_id, const struct ip *address)
{
	struct node *node = ctx;
	struct pool_name name;
	struct ipam_lease lease;

	if (parse_pool_id(node, pool_id, &name) < 0 || !ipam_lookup(node->ipam, &name.pool->id, address, &lease)) {
		plugin_done(call);
		return;
	}
	forget(node, name.pool, address);
	if (lease.bound) { /* the engine gives up the address of an endpoint that it never deleted: it has lost it */
		struct endpoint *ep, *next;
		HASH_ITER(hh, node->endpoints, ep, next)
		if (ip_equal(&ep->state.address4.ip, address) || ip_equal(&ep->state.address6.ip, address)) {
			struct network *n = ep->network;
			bool ours = false;
			for (unsigned i = 0; n && i < n->def.pool_count; i++)
				ours |= prefix_equal(&n->def.pools[i], &name.pool->state.def.prefix);
			if (ours && !ep->closing)
				endpoint_remove(node, ep, NULL, NULL);
		}
	}
	ipam_release(node->ipam, &name.pool->id, address, clock_boot_ms());
	custody_poke(node);
	outbox_call(node->outbox, answer_done, call);
}

/* An engine that was given an address and died before it used it never gives it back. Only where our own network driver would
 * have seen the use: in the pools of this host's engine networks. */
struct stale_leases {
	struct end_leases list;
	const struct pool *pool;
	uint64_t before_ms;
};

static void collect_stale(void *ctx, const struct ipam_lease *lease)
{
	struct stale_leases *s = ctx;

	if (!lease->bound && lease->since_ms < s->before_ms && !is_remembered(s->pool, &lease->address))
		collect_lease(&s->list, lease);
}

static bool serves_docker(struct node *node, const struct pool *p)
{
	struct network *n, *next;

	HASH_ITER(hh, node->networks, n, next)
	for (unsigned i = 0; n->docker_count && i < n->def.pool_count; i++)
		if (prefix_equal(&n->def.pools[i], &p->state.def.prefix))
			return true;
	return false;
}

void pools_collect_leases(struct node *node, uint64_t now)
{
	uint64_t grace = (uint64_t)node->options.lease_grace_s * 1000;
	struct pool *p, *next;

	if (now < node->start_ms + grace)
		return;
	HASH_ITER(hh, node->pools, p, next)
	{
		struct stale_leases s = {.pool = p, .before_ms = now - grace};
		char ip[IP_TEXT_SIZE];
		if (!p->joined || !serves_docker(node, p))
			continue;
		ipam_each_lease(node->ipam, &p->id, collect_stale, &s);
		for (size_t i = 0; i < s.list.count; i++) {
			log_info("pools", "address %s was given to an engine and not used for %u s, taking it back",
				ip_format(&s.list.addresses[i], ip), node->options.lease_grace_s);
			ipam_release(node->ipam, &p->id, &s.list.addresses[i], now);
		}
		free(s.list.addresses);
	}
}

/* ---- leases that outlived their endpoint ---- */

struct lease_user {
	struct lease_key {
		struct id128 pool;
		struct ip address;
	} key;
	UT_hash_handle hh;
};

static void add_user(struct lease_user **users, const struct id128 *pool, const struct ip *address)
{
	struct lease_user *u = calloc(1, sizeof(*u)), *known;

	if (!u)
		abort();
	u->key.pool = *pool;
	u->key.address = *address;
	HASH_FIND(hh, *users, &u->key, sizeof(u->key), known);
	if (known)
		free(u);
	else
		HASH_ADD(hh, *users, key, sizeof(u->key), u);
}

/* In whichever pool it may be leased: one too many keeps an address, one too few would give it twice. */
static void add_users(struct node *node, struct lease_user **users, const struct ip *address)
{
	struct pool *p, *next;

	HASH_ITER(hh, node->pools, p, next)
	if (prefix_contains(&p->state.def.prefix, address))
		add_user(users, &p->id, address);
}

static struct lease_user *lease_users(struct node *node)
{
	struct lease_user *users = NULL;
	struct endpoint *ep, *next_ep;
	struct workload *w, *next_w;
	struct network *n, *next_n;

	HASH_ITER(hh, node->networks, n, next_n)
	for (unsigned i = 0; i < 2; i++) /* the host's own, in mode l3 */
		if (n->programmed && ip_is_set(&n->own[i].address))
			add_user(&users, &n->own[i].pool, &n->own[i].address);
	HASH_ITER(hh, node->endpoints, ep, next_ep)
	if (!ep->closing) {
		add_users(node, &users, &ep->state.address4.ip);
		add_users(node, &users, &ep->state.address6.ip);
	}
	HASH_ITER(hh, node->workloads, w, next_w)
	for (unsigned i = 0; i < 2; i++)
		if (prefix_is_set(&w->leases[i].address))
			add_user(&users, &w->leases[i].pool, &w->leases[i].address.ip);
	return users;
}

struct orphans {
	struct lease_user *users;
	struct ipam_lease *found;
	size_t count, max;
};

static void collect_orphan(void *ctx, const struct ipam_lease *lease)
{
	struct lease_key key = {.pool = lease->pool, .address = lease->address};
	struct orphans *o = ctx;
	struct lease_user *user;

	HASH_FIND(hh, o->users, &key, sizeof(key), user);
	if (!lease->bound || user)
		return;
	if (o->count == o->max) {
		o->max = o->max ? 2 * o->max : 64;
		o->found = reallocarray(o->found, o->max, sizeof(*o->found));
		if (!o->found)
			abort();
	}
	o->found[o->count++] = *lease;
}

/* A kill between the save of a lease and that of its endpoint. An engine may be about to use the address or give it back, and
 * else it is collected; in pools without an engine's network nobody will. */
void pools_free_orphans(struct node *node)
{
	struct orphans o = {.users = lease_users(node)};
	struct lease_user *u, *next;
	char text[IP_TEXT_SIZE];

	ipam_each_lease(node->ipam, NULL, collect_orphan, &o);
	for (size_t i = 0; i < o.count; i++) {
		const struct ipam_lease *l = &o.found[i];
		struct pool *p = pool_by_id(node, &l->pool);

		log_info("pools", "address %s is leased to %s, which was never made or is gone: freeing it",
			ip_format(&l->address, text), l->owner[0] ? l->owner : "an endpoint");
		if (p && serves_docker(node, p))
			ipam_bind(node->ipam, &l->pool, &l->address, false, "", clock_boot_ms());
		else
			ipam_release(node->ipam, &l->pool, &l->address, clock_boot_ms());
	}
	custody_poke(node);
	free(o.found);
	HASH_ITER(hh, o.users, u, next)
	{
		HASH_DEL(o.users, u);
		free(u);
	}
}

void pool_join_core(struct node *node, struct pool *p)
{
	struct err err = {0};

	if (join_core(node, p, false, &err) < 0)
		log_warn("pools", "%s", err.text);
}

/* ---- start ---- */

static int load_pool(void *ctx, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct node *node = ctx;
	struct pool_state state;
	struct ipam_pool_def def;
	struct pool *p;

	(void)key, (void)key_len;
	if (pool_state_decode(val, len, &state, err) < 0)
		return -1;
	p = pool_add(node, &state.def);
	p->state = state;
	def = core_def(&state.def);
	if (ipam_pool_join(node->ipam, &def, clock_boot_ms(), err) < 0)
		return -1;
	p->joined = true;
	return 0;
}

int pools_start(struct node *node, struct err *err)
{
	return store_each(node->store, STORE_STATE, STORE_POOL, load_pool, node, err);
}

void pools_stop(struct node *node)
{
	struct pool *p, *next;

	HASH_ITER(hh, node->pools, p, next)
	{
		HASH_DEL(node->pools, p);
		free(p);
	}
}

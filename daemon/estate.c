/* Forgetting a host, as the daemon does it: the operator's call, the decrees that hosts publish, our own end when one names us,
 * and `trestle ipam check`.
 *
 * Promises and reports travel as messages of the ipam core. A decree is a record of its heir in the cluster's topic, so that
 * every host learns whom to refuse, and the victim, when it comes back, that it is one. A host that is named gives everything up
 * and starts over as the first host of a cluster of its own, with a new key. */
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/number.h"
#include "base/alloc.h"
#include "base/json_text.h"
#include "daemon/node_internal.h"

#define FORGET_WAIT_MS 4000 /* an answer is given then, whatever has happened; the decree goes on */
#define FORGET_LOOK_MS 20

struct forget { /* a call that waits for its decree */
	struct node *node;
	struct control_call *call;
	struct event *timer;
	uint32_t victim;
	uint64_t deadline_ms;
	struct forget *prev, *next;
};

/* ---- decrees that come by ---- */

#define DECREE_KEY_SIZE (1 + sizeof(struct id128))

struct collecting {
	uint32_t self;
	bool found;
};

static void note_own(void *ctx, const struct ipam_decree *d)
{
	struct collecting *c = ctx;

	c->found |= d->heir == c->self && !d->done;
}

bool estate_collects(struct node *node)
{
	struct collecting c = {.self = node->cluster.hostno};

	if (node->ipam)
		ipam_each_decree(node->ipam, note_own, &c);
	return c.found;
}

bool estate_is_buried(struct node *node, uint32_t hostno)
{
	struct ipam_decree d;

	return node->ipam && ipam_decree_get(node->ipam, hostno, &d) && d.done;
}

static void withdraw_endpoint(
	void *ctx, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t len)
{
	struct forgotten {
		struct node *node;
		uint32_t hostno;
	} *f = ctx;

	(void)val, (void)len;
	if (origin == f->hostno && key_len > 0 && *(const uint8_t *)key == RECORD_ENDPOINT)
		segments_record(f->node, origin, topic, key, key_len, NULL, 0);
}

/* Its addresses may be somebody else's from now on: what it published must lead nobody to it. */
static void bury(struct node *node, uint32_t hostno)
{
	struct {
		struct node *node;
		uint32_t hostno;
	} f = {node, hostno};
	struct host *host = cluster_host(node, hostno);
	char name[GOSSIP_NAME_MAX + 1];

	if (node->gossip)
		gossip_each_record(node->gossip, withdraw_endpoint, &f);
	if (host && !host->hidden) {
		log_info(
			"estate", "host %s is forgotten: its addresses have moved", host_label(node, hostno, name, sizeof(name)));
		host->hidden = true;
		segments_host_changed(node, host);
	}
}

void estate_record(struct node *node, uint32_t origin, const void *val, size_t len)
{
	struct ipam_decree d;

	if (!val || !node->ipam || ipam_decree_decode(&d, val, len) < 0 || d.heir != origin)
		return;
	ipam_decree_seen(node->ipam, &d, clock_boot_ms());
	custody_poke(node);
}

/* ---- our own end ---- */

static void started_over(void *arg, const struct err *err)
{
	struct node *node = arg;

	node->leaving = false;
	if (!err)
		log_info("estate",
			"this host is the first of its own cluster now, with a new identity; `trestle join` lets it in again");
}

static void start_over(void *arg)
{
	struct node *node = arg;

	cluster_start_over(node, started_over, node);
}

static void on_forgotten(evutil_socket_t fd, short what, void *arg)
{
	struct node *node = arg;

	(void)fd, (void)what;
	if (node->leaving || !node->ipam || !(ipam_is_forgotten(node->ipam) || gossip_forgotten_by(node->gossip)))
		return;
	node->leaving = true;
	endpoints_remove_all_of(node, NULL, start_over, node);
}

/* Members hear nothing of us any more, so that a decree may never get here; one of them says so itself. */
void estate_forgotten(struct node *node, uint32_t by)
{
	const struct timeval at_once = {0};
	char name[GOSSIP_NAME_MAX + 1];

	if (node->leaving)
		return;
	log_warn("estate",
		"this host has been forgotten by its cluster, host %s says: it gives up its addresses and endpoints, and starts "
		"over",
		host_label(node, by, name, sizeof(name)));
	event_base_once(node->base, -1, EV_TIMEOUT, on_forgotten, node, &at_once); /* out of the core's call */
}

/* A decree of ours began or changed, one of anybody is done, or one names us. */
void estate_decree(struct node *node, const struct ipam_decree *d)
{
	const struct timeval at_once = {0};
	uint8_t key[DECREE_KEY_SIZE] = {RECORD_DECREE}, buf[IPAM_DECREE_MAX];
	char name[GOSSIP_NAME_MAX + 1];

	if (ipam_is_forgotten(node->ipam)) {
		log_warn("estate",
			"this host has been forgotten by its cluster, and its addresses went to host %s: it gives up all of them "
			"and its "
			"endpoints, and starts over",
			host_label(node, d->heir, name, sizeof(name)));
		event_base_once(node->base, -1, EV_TIMEOUT, on_forgotten, node, &at_once); /* out of the core's call */
		return;
	}
	memcpy(key + 1, &d->victim_id, sizeof(d->victim_id));
	if (d->heir == node->cluster.hostno)
		cluster_publish(node, TOPIC_CLUSTER, key, sizeof(key), buf, ipam_decree_encode(d, buf));
	else
		cluster_publish(node, TOPIC_CLUSTER, key, sizeof(key), NULL, 0);
	if (d->heir == node->cluster.hostno && !d->done)
		pools_join_all(node); /* begun before a restart */
	if (d->done) {
		if (node->gossip)
			gossip_forget(node->gossip, &d->victim_id, d->heir == node->cluster.hostno, clock_boot_ms());
		bury(node, d->victim);
	}
}

/* ---- the operator's call ---- */

static void forget_free(struct forget *f)
{
	DL_DELETE(f->node->forgets, f);
	if (f->timer)
		event_free(f->timer);
	free(f);
}

void estate_stop(struct node *node)
{
	struct forget *f, *next;

	DL_FOREACH_SAFE(node->forgets, f, next)
	forget_free(f);
}

struct names {
	struct node *node;
	json_t *array;
};

static void add_name(void *ctx, uint32_t hostno)
{
	struct names *names = ctx;
	char name[GOSSIP_NAME_MAX + 1];

	json_array_append_new(names->array, json_string(host_label(names->node, hostno, name, sizeof(name))));
}

static json_t *forget_json(struct node *node, const struct ipam_decree *d)
{
	struct names waiting = {node, json_array()}, assumed = {node, json_array()};
	char name[GOSSIP_NAME_MAX + 1], heir[GOSSIP_NAME_MAX + 1];

	ipam_each_awaited(node->ipam, d->victim, add_name, &waiting);
	for (unsigned i = 0; i < d->assumed_count; i++)
		add_name(&assumed, d->assumed[i]);
	return json_pack("{s:s, s:i, s:s, s:i, s:b, s:o, s:o}", "host", host_label(node, d->victim, name, sizeof(name)), "hostno",
		(int)d->victim, "heir", host_label(node, d->heir, heir, sizeof(heir)), "decree", (int)d->number, "done",
		(int)d->done, "waiting_for", waiting.array, "assumed_fenced", assumed.array);
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
	const struct timeval soon = {.tv_usec = FORGET_LOOK_MS * 1000};
	struct forget *f = arg;
	struct node *node = f->node;
	struct ipam_decree d;
	struct err err = {0};

	(void)fd, (void)what;
	if (!node->ipam || !ipam_decree_get(node->ipam, f->victim, &d)) {
		err_set(&err, ERR_UNREACHABLE, "this host changed its cluster meanwhile");
		control_fail(f->call, &err);
	} else if (d.done || clock_boot_ms() >= f->deadline_ms) {
		control_done(f->call, forget_json(node, &d));
	} else {
		event_add(f->timer, &soon);
		return;
	}
	forget_free(f);
}

static void wait_for_decree(struct node *node, struct control_call *call, uint32_t victim)
{
	const struct timeval at_once = {0};
	struct forget *f = alloc_new(struct forget);

	*f = (struct forget){.node = node, .call = call, .victim = victim, .deadline_ms = clock_boot_ms() + FORGET_WAIT_MS};
	f->timer = alloc_made(evtimer_new(node->base, on_look, f), "timer");
	DL_APPEND(node->forgets, f);
	event_add(f->timer, &at_once);
}

struct sought {
	const struct node *node;
	const char *text;
	struct gossip_member found;
	unsigned count;
};

static bool has_number(const struct sought *s, const struct gossip_member *m)
{
	uint32_t numbers[OTHER_NUMBERS_MAX];
	unsigned count = gossip_other_numbers(s->node->gossip, &m->host_id, numbers, OTHER_NUMBERS_MAX);
	uint64_t number;

	if (number_parse(s->text, 1, GOSSIP_HOSTNO_MAX, &number) < 0)
		return false;
	for (unsigned i = 0; i < count && i < OTHER_NUMBERS_MAX; i++)
		if (numbers[i] == number)
			return true;
	return m->hostno == number;
}

/* By number, by id, or by name; a name may have been given to a new host since, so the ones that still answer come last. */
static void match_member(void *ctx, const struct gossip_member *m)
{
	struct sought *s = ctx;
	char id[ID_TEXT_SIZE];

	id_format(&m->host_id, id);
	if (strcmp(s->text, m->name) != 0 && strcmp(s->text, id) != 0 && !has_number(s, m))
		return;
	if (s->count++ == 0 || s->found.state < m->state)
		s->found = *m;
}

static int find_member(struct node *node, const char *text, struct gossip_member *ret, struct err *err)
{
	struct sought s = {.node = node, .text = text};

	gossip_each_member(node->gossip, match_member, &s);
	if (s.count == 0)
		return err_set(err, ERR_NOT_FOUND, "no host %s is known; `trestle members` lists the known ones", text);
	if (s.count > 1)
		return err_set(err, ERR_CONFLICT,
			"%u hosts are called %s; name the one you mean by its number (`trestle members`)", s.count, text);
	*ret = s.found;
	return 0;
}

/* The word that a host is stopped is about all its numbers: others, who know it by another one, would else be waited for to
 * answer under it, or ask it. */
static int add_numbers(const struct node *node, const struct gossip_member *m, bool own, uint32_t assumed[IPAM_ASSUMED_MAX],
	unsigned *count, struct err *err)
{
	uint32_t numbers[OTHER_NUMBERS_MAX + 1];
	unsigned others = gossip_other_numbers(node->gossip, &m->host_id, numbers, OTHER_NUMBERS_MAX);

	others = others < OTHER_NUMBERS_MAX ? others : OTHER_NUMBERS_MAX;
	if (own)
		numbers[others++] = m->hostno;
	if (*count + others > IPAM_ASSUMED_MAX)
		return err_set(err, ERR_TOO_BIG, "more than %u hosts are assumed fenced", IPAM_ASSUMED_MAX);
	memcpy(assumed + *count, numbers, others * sizeof(*numbers));
	*count += others;
	return 0;
}

static int find_assumed(struct node *node, json_t *list, uint32_t assumed[IPAM_ASSUMED_MAX], unsigned *ret_count, struct err *err)
{
	struct gossip_member m;
	json_t *item;
	size_t i;

	*ret_count = 0;
	json_array_foreach(list, i, item)
	{
		if (find_member(node, json_string_value(item), &m, err) < 0)
			return -1;
		if (m.state == GOSSIP_ALIVE)
			return err_set(err, ERR_CONFLICT, "host %s answers: it is not fenced, and can be asked", m.name);
		if (add_numbers(node, &m, true, assumed, ret_count, err) < 0)
			return -1;
	}
	return 0;
}

static int begin(struct node *node, json_t *body, uint32_t *ret_victim, struct err *err)
{
	bool fenced = json_is_true(json_object_get(body, "fenced"));
	uint32_t assumed[IPAM_ASSUMED_MAX];
	struct gossip_member m;
	unsigned count;

	if (find_member(node, json_string_value(json_object_get(body, "host")), &m, err) < 0 ||
		find_assumed(node, json_object_get(body, "assume_fenced"), assumed, &count, err) < 0)
		return -1;
	if (m.self)
		return err_set(err, ERR_INVALID, "host %s is this host; `trestle leave` takes it out of the cluster", m.name);
	if (m.state == GOSSIP_ALIVE)
		return err_set(err, ERR_CONFLICT,
			"host %s answers: its addresses are in use; stop it for good first, or let it leave by itself (`trestle "
			"leave` there)",
			m.name);
	if (!fenced && m.state != GOSSIP_LEFT)
		return err_set(err, ERR_INVALID,
			"host %s may still run where we cannot see it, and its addresses would be given twice; power it off or "
			"wipe it, "
			"then say --fenced",
			m.name);
	if (m.state != GOSSIP_LEFT && gossip_cut_suspected(node->gossip, clock_boot_ms()))
		return err_set(err, ERR_CONFLICT,
			"many hosts stopped answering together with host %s: more likely the network is cut than they are dead. "
			"Make sure "
			"that it is off, and say it again in half a minute",
			m.name);
	if (add_numbers(node, &m, false, assumed, &count, err) < 0)
		return -1;
	pools_join_all(node); /* first: with nobody to wait for the decree is done at once */
	if (ipam_forget(node->ipam, m.hostno, &m.host_id, fenced, assumed, count, clock_boot_ms(), err) < 0)
		return -1;
	*ret_victim = m.hostno;
	return 0;
}

void estate_forget(struct node *node, struct control_call *call, json_t *body)
{
	struct err err = {0};
	uint32_t victim = 0;

	if (begin(node, body, &victim, &err) < 0) {
		control_fail(call, &err);
		return;
	}
	custody_poke(node);
	wait_for_decree(node, call, victim);
}

/* ---- ipam check ---- */

struct audit {
	struct node *node;
	const struct pool *pool;
	json_t *leaks, *duplicates, *ghosts;
	unsigned leases;
};

static bool has_pool(const struct network *n, const struct pool *p)
{
	return network_def_has(&n->def, &p->state.def.prefix);
}

static const struct ip *address_in(const struct endpoint *ep, const struct pool *p)
{
	const struct ip *ip = p->state.def.prefix.ip.family == 6 ? &ep->state.address6.ip : &ep->state.address4.ip;

	return ep->network && has_pool(ep->network, p) && ip_is_set(ip) && prefix_contains(&p->state.def.prefix, ip) ? ip : NULL;
}

static const struct endpoint *user_of(struct node *node, const struct pool *p, const struct ip *ip)
{
	const struct endpoint *ep = addresses_first(node->addresses, ip);

	while (ep && !address_in(ep, p))
		ep = addresses_next(ep, ip);
	return ep;
}

static bool is_of_workload(struct node *node, const struct id128 *pool, const struct ip *ip)
{
	struct workload *w, *next;

	HASH_ITER(hh, node->workloads, w, next)
	for (unsigned i = 0; i < 2; i++)
		if (id_equal(&w->leases[i].pool, pool) && ip_equal(&w->leases[i].address.ip, ip))
			return true;
	return false;
}

static json_t *finding(const struct ip *ip, const struct prefix *pool, const char *what)
{
	char text[IP_TEXT_SIZE], prefix[PREFIX_TEXT_SIZE];

	return json_pack(
		"{s:s, s:s, s:o}", "address", ip_format(ip, text), "pool", prefix_format(pool, prefix), "what", json_text(what));
}

/* An engine takes an address before it makes its endpoint, and so does a runtime: for the time of the grace that is no leak. */
static void audit_lease(void *ctx, const struct ipam_lease *lease)
{
	struct audit *a = ctx;
	uint64_t grace = (uint64_t)a->node->options.lease_grace_s * 1000;
	char what[IPAM_OWNER_MAX + 128];

	a->leases++;
	if (lease->use != IPAM_USE_ENDPOINT || user_of(a->node, a->pool, &lease->address) ||
		is_of_workload(a->node, &a->pool->id, &lease->address) || host_address_of(a->node, &a->pool->id, &lease->address))
		return;
	if (!lease->bound && clock_boot_ms() < lease->since_ms + grace)
		return;
	snprintf(what, sizeof(what), "leased for %llu s to \"%s\", and no endpoint of this host has it",
		(unsigned long long)(clock_boot_ms() - lease->since_ms) / 1000, lease->owner);
	json_array_append_new(a->leaks, finding(&lease->address, &a->pool->state.def.prefix, what));
}

static void audit_endpoint(struct audit *a, const struct endpoint *ep)
{
	const struct ip *ip = address_in(ep, a->pool);
	struct ipam_lease lease;
	char what[256];

	if (!ip || ep->closing)
		return;
	if (!ipam_lookup(a->node->ipam, &a->pool->id, ip, &lease)) {
		snprintf(what, sizeof(what), "endpoint %.12s of this host has it without a lease", ep->id);
		json_array_append_new(a->ghosts, finding(ip, &a->pool->state.def.prefix, what));
	}
	if (ep->ready && ep->link == DRIVER_LINK_ABSENT) {
		snprintf(what, sizeof(what), "endpoint %.12s of this host has it, and the kernel has no link for it", ep->id);
		json_array_append_new(a->leaks, finding(ip, &a->pool->state.def.prefix, what));
	}
}

/* What another host says it has, and this host has leased to nobody of its own: two hosts believe that they hold it. */
static void audit_remote_lease(struct audit *a, const struct remote *r)
{
	const struct ip *ip = a->pool->state.def.prefix.ip.family == 6 ? &r->record.ip6 : &r->record.ip4;
	char what[256], host[GOSSIP_NAME_MAX + 1];
	struct ipam_lease lease;

	if (!ip_is_set(ip) || !prefix_contains(&a->pool->state.def.prefix, ip) ||
		!ipam_lookup(a->node->ipam, &a->pool->id, ip, &lease) || lease.use != IPAM_USE_ENDPOINT ||
		user_of(a->node, a->pool, ip))
		return;
	snprintf(what, sizeof(what), "endpoint %s of host %s has it, and the lease is this host's", r->record.short_id,
		host_label(a->node, r->key.origin, host, sizeof(host)));
	json_array_append_new(a->ghosts, finding(ip, &a->pool->state.def.prefix, what));
}

static void audit_pool(struct audit *a)
{
	struct network *n, *next_network;
	struct endpoint *ep, *next;
	struct remote *r, *next_remote;

	ipam_each_lease(a->node->ipam, &a->pool->id, audit_lease, a);
	HASH_ITER(hh, a->node->endpoints, ep, next)
	audit_endpoint(a, ep);
	HASH_ITER(hh, a->node->networks, n, next_network)
	{
		struct segment *s = has_pool(n, a->pool) ? segment_find(a->node, n->topic) : NULL;

		if (!s)
			continue;
		HASH_ITER(hh, s->remotes, r, next_remote)
		audit_remote_lease(a, r);
	}
}

/* ---- two endpoints, one address: in every network, also in those whose addresses others manage ---- */

static void add_duplicate(struct audit *a, const struct network *n, const struct ip *ip, const char *what)
{
	struct prefix none = {.ip = *ip, .length = (uint8_t)ip_bits(ip)};
	const struct prefix *pool = network_subnet(n, ip);

	json_array_append_new(a->duplicates, finding(ip, pool ? pool : &none, what));
}

static void compare_remotes(struct audit *a, const struct network *n, const struct segment *s, bool six)
{
	char what[512], one[GOSSIP_NAME_MAX + 1], other[GOSSIP_NAME_MAX + 1];
	struct remote *r, *next;

	HASH_ITER(hh, s->remotes, r, next)
	{
		const struct ip *ip = six ? &r->record.ip6 : &r->record.ip4;
		const struct remote *first = (six ? r->shadowed6 : r->shadowed4) ? segment_with_ip(a->node, s->topic, ip) : NULL;

		if (!first)
			continue;
		snprintf(what, sizeof(what), "endpoint %s of host %s and endpoint %s of host %s both have it",
			first->record.short_id, host_label(a->node, first->key.origin, one, sizeof(one)), r->record.short_id,
			host_label(a->node, r->key.origin, other, sizeof(other)));
		add_duplicate(a, n, ip, what);
	}
}

static void compare_local(struct audit *a, const struct endpoint *ep, const struct ip *ip)
{
	const struct remote *r = ep->network && ip_is_set(ip) ? segment_with_ip(a->node, ep->network->topic, ip) : NULL;
	char what[256], host[GOSSIP_NAME_MAX + 1];

	if (!r || ep->closing)
		return;
	snprintf(what, sizeof(what), "endpoint %.12s of this host and endpoint %s of host %s both have it", ep->id,
		r->record.short_id, host_label(a->node, r->key.origin, host, sizeof(host)));
	add_duplicate(a, ep->network, ip, what);
}

static void audit_duplicates(struct audit *a)
{
	struct network *n, *next_network;
	struct endpoint *ep, *next;

	HASH_ITER(hh, a->node->endpoints, ep, next)
	{
		compare_local(a, ep, &ep->state.address4.ip);
		compare_local(a, ep, &ep->state.address6.ip);
	}
	HASH_ITER(hh, a->node->networks, n, next_network)
	{
		const struct segment *s = segment_find(a->node, n->topic);

		if (!s)
			continue;
		compare_remotes(a, n, s, false);
		compare_remotes(a, n, s, true);
	}
}

json_t *estate_check(struct node *node)
{
	struct audit a = {.node = node, .leaks = json_array(), .duplicates = json_array(), .ghosts = json_array()};
	const struct driver_drift *drift = &datapath_counters(node)->last_drift;
	struct pool *p, *next;
	unsigned pools = 0;

	HASH_ITER(hh, node->pools, p, next)
	{
		if (!p->joined)
			continue;
		pools++;
		a.pool = p;
		audit_pool(&a);
	}
	audit_duplicates(&a);
	return json_pack("{s:i, s:i, s:o, s:o, s:o, s:{s:i, s:i, s:i}}", "pools", (int)pools, "leases", (int)a.leases, "leaks",
		a.leaks, "duplicates", a.duplicates, "ghosts", a.ghosts, "kernel", "missing", (int)drift->missing, "foreign",
		(int)drift->foreign, "different", (int)drift->different);
}

/* What other hosts have in each network of this host: from their records to the driver's desired rows.
 *
 * Records of a network are kept while this host is part of it (an engine here has it, or it was made or used here by name), also
 * without an endpoint, and programmed only while there is one. Two endpoints
 * with one address (both sides of a cut, Docker's own IPAM) are both kept; the row of the address goes to the lower host number
 * on every host alike, and the case is counted and said. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#include "daemon/node_internal.h"

struct segment *segment_find(struct node *node, uint64_t topic)
{
	struct segment *s;
	HASH_FIND(hh, node->segments, &topic, sizeof(topic), s);
	return s;
}

bool remote_is_host(const struct remote *r)
{
	return strcmp(r->record.short_id, HOST_SHORT_ID) == 0;
}

unsigned segment_size(const struct segment *s)
{
	return s ? HASH_COUNT(s->remotes) - s->host_addresses : 0;
}

static struct segment *segment_get(struct node *node, uint64_t topic)
{
	struct segment *s = segment_find(node, topic);

	if (s)
		return s;
	s = alloc_new(struct segment);
	s->topic = topic;
	HASH_ADD(hh, node->segments, topic, sizeof(s->topic), s);
	return s;
}

static struct remote *with_ip(struct segment *s, const struct ip *ip)
{
	struct remote *r = NULL;

	if (ip->family == 4)
		HASH_FIND(hh_ip4, s->by_ip4, ip, sizeof(*ip), r);
	else if (ip->family == 6)
		HASH_FIND(hh_ip6, s->by_ip6, ip, sizeof(*ip), r);
	return r;
}

struct remote *segment_with_ip(struct node *node, uint64_t topic, const struct ip *ip)
{
	struct segment *s = segment_find(node, topic);

	return s ? with_ip(s, ip) : NULL;
}

/* ---- to the driver ---- */

static struct network *programmed_network(struct node *node, const struct segment *s)
{
	struct network *n = network_by_topic(node, s->topic);

	return n && n->programmed ? n : NULL;
}

/* A vxlan device's socket is of one family; `trestle status` tells of a host with the other. */
static bool can_reach(const struct node *node, const struct host *host)
{
	return host && !host->hidden && host->vtep.family == node->options.vtep.family;
}

static void program(struct node *node, const struct segment *s, const struct remote *r)
{
	struct network *n = programmed_network(node, s);
	struct host *host = cluster_host(node, r->key.origin);
	struct driver_remote d = {.mac = r->record.mac};

	if (!n)
		return;
	if (!can_reach(node, host)) {
		datapath_del_remote(node, &n->id, &r->record.mac);
		return;
	}
	d.network = n->id;
	d.vtep = host->vtep;
	d.hostno = r->key.origin;
	/* An endpoint of this host with the same address has its row: the two would overwrite each other for ever. */
	if (!r->shadowed4 && !endpoint_with_ip(node, &n->id, &r->record.ip4))
		d.ip4 = r->record.ip4;
	if (!r->shadowed6 && !endpoint_with_ip(node, &n->id, &r->record.ip6))
		d.ip6 = r->record.ip6;
	datapath_put_remote(node, &d);
}

void segment_program_ip(struct node *node, const struct network *network, const struct ip *ip)
{
	struct segment *s = segment_find(node, network->topic);
	struct remote *r = s && ip_is_set(ip) ? with_ip(s, ip) : NULL;

	if (r)
		program(node, s, r);
}

static void program_flood(struct node *node, struct segment *s)
{
	struct network *n = programmed_network(node, s);
	struct segment_host *sh, *next;
	struct ip *vteps;
	size_t count = 0;

	if (!n)
		return;
	vteps = alloc_array(struct ip, HASH_COUNT(s->hosts) + 1);
	HASH_ITER(hh, s->hosts, sh, next)
	{
		struct host *host = cluster_host(node, sh->hostno);
		if (can_reach(node, host))
			vteps[count++] = host->vtep;
	}
	datapath_set_flood(node, &n->id, vteps, count);
	free(vteps);
}

void segment_program(struct node *node, struct network *network)
{
	struct segment *s = segment_find(node, network->topic);
	struct remote *r, *next;

	if (!s)
		return;
	HASH_ITER(hh, s->remotes, r, next)
	program(node, s, r);
	program_flood(node, s);
}

void segments_host_changed(struct node *node, struct host *host)
{
	struct segment *s, *next_segment;
	struct segment_host *sh;
	struct remote *r, *next;

	HASH_ITER(hh, node->segments, s, next_segment)
	{
		HASH_FIND(hh, s->hosts, &host->hostno, sizeof(host->hostno), sh);
		if (!sh || !programmed_network(node, s))
			continue;
		HASH_ITER(hh, s->remotes, r, next)
		if (r->key.origin == host->hostno)
			program(node, s, r);
		program_flood(node, s);
	}
}

/* ---- addresses and their winners ---- */

static void index_ip(struct segment *s, struct remote *r, bool six)
{
	if (six)
		HASH_ADD(hh_ip6, s->by_ip6, record.ip6, sizeof(r->record.ip6), r);
	else
		HASH_ADD(hh_ip4, s->by_ip4, record.ip4, sizeof(r->record.ip4), r);
}

static void unindex_ip(struct segment *s, struct remote *r, bool six)
{
	if (six)
		HASH_DELETE(hh_ip6, s->by_ip6, r);
	else
		HASH_DELETE(hh_ip4, s->by_ip4, r);
}

static bool *shadow_of(struct remote *r, bool six)
{
	return six ? &r->shadowed6 : &r->shadowed4;
}

static const struct ip *ip_of(const struct remote *r, bool six)
{
	return six ? &r->record.ip6 : &r->record.ip4;
}

static void say_duplicate(struct node *node, const struct ip *ip, const struct remote *a, const struct remote *b)
{
	char text[IP_TEXT_SIZE], x[GOSSIP_NAME_MAX + 1], y[GOSSIP_NAME_MAX + 1];

	node->duplicates_seen++;
	log_warn("segments",
		"address %s is used by endpoint %s on host %s and by endpoint %s on host %s; traffic goes to the first",
		ip_format(ip, text), a->record.short_id, host_label(node, a->key.origin, x, sizeof(x)), b->record.short_id,
		host_label(node, b->key.origin, y, sizeof(y)));
}

static void claim_ip(struct node *node, struct segment *s, struct remote *r, bool six)
{
	struct remote *holder;

	if (!ip_is_set(ip_of(r, six)))
		return;
	holder = with_ip(s, ip_of(r, six));
	if (!holder) {
		index_ip(s, r, six);
		return;
	}
	s->shadows++;
	if (holder->key.origin <= r->key.origin) {
		*shadow_of(r, six) = true;
		say_duplicate(node, ip_of(r, six), holder, r);
		return;
	}
	unindex_ip(s, holder, six);
	*shadow_of(holder, six) = true;
	program(node, s, holder);
	index_ip(s, r, six);
	say_duplicate(node, ip_of(r, six), r, holder);
}

/* The best of those in its shadow takes the address over. */
static void yield_ip(struct node *node, struct segment *s, struct remote *r, bool six)
{
	struct remote *other, *next, *best = NULL;

	if (!ip_is_set(ip_of(r, six)))
		return;
	if (*shadow_of(r, six)) {
		*shadow_of(r, six) = false;
		s->shadows--;
		return;
	}
	unindex_ip(s, r, six);
	if (!s->shadows)
		return;
	HASH_ITER(hh, s->remotes, other, next)
	if (other != r && *shadow_of(other, six) && ip_equal(ip_of(other, six), ip_of(r, six)) &&
		(!best || other->key.origin < best->key.origin))
		best = other;
	if (!best)
		return;
	*shadow_of(best, six) = false;
	s->shadows--;
	index_ip(s, best, six);
	program(node, s, best);
}

/* ---- records ---- */

static struct segment_host *host_get(struct segment *s, uint32_t hostno)
{
	struct segment_host *sh;

	HASH_FIND(hh, s->hosts, &hostno, sizeof(hostno), sh);
	if (sh)
		return sh;
	sh = alloc_new(struct segment_host);
	sh->hostno = hostno;
	HASH_ADD(hh, s->hosts, hostno, sizeof(sh->hostno), sh);
	return sh;
}

/* While a host's own addresses change, it may have two records of them. */
static const struct remote *another_own(const struct segment *s, const struct remote *r)
{
	struct segment_host *sh;
	struct remote *other, *next;

	HASH_FIND(hh, s->hosts, &r->key.origin, sizeof(r->key.origin), sh);
	if (sh && sh->own)
		HASH_ITER(hh, s->remotes, other, next)
	if (other != r && other->key.origin == r->key.origin && remote_is_host(other))
		return other;
	return NULL;
}

/* change: 1 or -1. What is flooded goes to each host that has a record here. */
static void count(struct node *node, struct segment *s, const struct remote *r, int change)
{
	struct segment_host *sh = host_get(s, r->key.origin);
	int own = remote_is_host(r) ? change : 0;
	bool had = sh->endpoints;

	sh->endpoints += (unsigned)change;
	sh->own += (unsigned)own;
	if (own && (change > 0 || sh->is_at == r))
		sh->is_at = change > 0 ? r : another_own(s, r);
	s->host_addresses += (unsigned)own;
	node->remote_count += (unsigned)(change - own);
	if (had && sh->endpoints)
		return;
	if (!sh->endpoints) {
		HASH_DEL(s->hosts, sh);
		free(sh);
	}
	program_flood(node, s);
}

/* MACs that we make carry the number of their host; one that a user fixed can have moved to another host already. */
static bool is_own_mac(const struct mac *mac, uint32_t hostno)
{
	uint64_t bits = (uint64_t)(mac->bytes[0] >> 2) << 40;

	for (int i = 1; i < 6; i++)
		bits |= (uint64_t)mac->bytes[i] << (40 - 8 * i);
	return bits >> 26 == hostno;
}

static void program_same_mac(struct node *node, const struct segment *s, const struct mac *mac)
{
	struct remote *r, *next;

	HASH_ITER(hh, s->remotes, r, next)
	if (mac_equal(&r->record.mac, mac))
		program(node, s, r);
}

static void remove_remote(struct node *node, struct segment *s, struct remote *r)
{
	struct network *n = programmed_network(node, s);

	yield_ip(node, s, r, false);
	yield_ip(node, s, r, true);
	if (n)
		datapath_del_remote(node, &n->id, &r->record.mac);
	HASH_DEL(s->remotes, r);
	if (n && !is_own_mac(&r->record.mac, r->key.origin))
		program_same_mac(node, s, &r->record.mac);
	count(node, s, r, -1);
	free(r);
	if (!s->remotes) {
		HASH_DEL(node->segments, s);
		free(s);
	}
}

/* Said later: a line costs as much as taking the record, and other hosts of this machine wait for the core. */
void segments_tell_arrivals(struct node *node)
{
	for (unsigned i = 0; i < node->arrival_count; i++) {
		const struct arrival *a = &node->arrivals[i];

		log_debug("segments", "endpoint %s of host number %u known at %" PRIu64 " us since boot", a->short_id, a->origin,
			a->us);
	}
	node->arrival_count = 0;
}

static void note_arrival(struct node *node, const struct remote *r)
{
	struct arrival *a;

	if (!log_shows(LOG_LEVEL_DEBUG))
		return;
	if (node->arrival_count == ARRIVALS_MAX)
		segments_tell_arrivals(node);
	a = &node->arrivals[node->arrival_count++];
	a->us = clock_boot_us();
	a->origin = r->key.origin;
	memcpy(a->short_id, r->record.short_id, sizeof(a->short_id));
}

static void add_remote(struct node *node, struct segment *s, const struct remote_key *key, const struct endpoint_record *record)
{
	struct remote *r = alloc_new(struct remote);

	r->key = *key;
	r->record = *record;
	HASH_ADD(hh, s->remotes, key, sizeof(r->key), r);
	note_arrival(node, r);
	claim_ip(node, s, r, false);
	claim_ip(node, s, r, true);
	count(node, s, r, 1);
	program(node, s, r);
}

static struct remote_key remote_key_of(uint32_t origin, const void *key)
{
	struct remote_key rk;

	memset(&rk, 0, sizeof(rk));
	rk.origin = origin;
	memcpy(rk.hash, (const uint8_t *)key + 1, sizeof(rk.hash));
	return rk;
}

bool segments_have(struct node *node, uint32_t origin, uint64_t topic, const void *key, size_t key_len)
{
	struct segment *s = segment_find(node, topic);
	struct remote_key rk;
	struct remote *r = NULL;

	if (!s || key_len != ENDPOINT_KEY_SIZE)
		return false;
	rk = remote_key_of(origin, key);
	HASH_FIND(hh, s->remotes, &rk, sizeof(rk), r);
	return r != NULL;
}

void segments_record(
	struct node *node, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t len)
{
	struct remote_key rk;
	struct endpoint_record record;
	struct segment *s = segment_find(node, topic);
	struct remote *r = NULL;

	if (key_len != ENDPOINT_KEY_SIZE)
		return;
	rk = remote_key_of(origin, key);
	if (s)
		HASH_FIND(hh, s->remotes, &rk, sizeof(rk), r);
	if (val && endpoint_record_decode(val, len, &record, NULL) < 0)
		val = NULL; /* of a newer release: not ours to program */
	if (r)
		remove_remote(node, s, r);
	if (val)
		add_remote(node, segment_get(node, topic), &rk, &record);
}

static void free_segment(struct node *node, struct segment *s)
{
	struct remote *r, *next;
	struct segment_host *sh, *next_host;

	HASH_ITER(hh, s->hosts, sh, next_host)
	{
		HASH_DEL(s->hosts, sh);
		free(sh);
	}
	HASH_CLEAR(hh_ip4, s->by_ip4);
	HASH_CLEAR(hh_ip6, s->by_ip6);
	node->remote_count -= segment_size(s);
	HASH_ITER(hh, s->remotes, r, next)
	{
		HASH_DEL(s->remotes, r);
		free(r);
	}
	HASH_DEL(node->segments, s);
	free(s);
}

/* Nothing of it is in the kernel by now. */
void segment_forget(struct node *node, struct network *network)
{
	struct segment *s = segment_find(node, network->topic);

	if (s)
		free_segment(node, s);
}

void segments_free(struct node *node)
{
	struct segment *s, *next;

	HASH_ITER(hh, node->segments, s, next)
	free_segment(node, s);
}

/* What the control API answers, in the schema of docs/api.md. Reads the tables, changes nothing but through the calls of the
 * others. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/version.h"
#include "daemon/node_internal.h"

#define COUNT_MAX 0x7fffffffffffffffULL
#define TOKEN_TTL_S 3600

/* ---- small values ---- */

static json_t *text_or_null(const char *text)
{
	return text && *text ? json_string(text) : json_null();
}

static json_t *ip_json(const struct ip *ip)
{
	char text[IP_TEXT_SIZE];
	return text_or_null(ip_format(ip, text));
}

static json_t *id_json(const struct id128 *id)
{
	char text[ID_TEXT_SIZE];
	return json_string(id_format(id, text));
}

static json_t *count_json(u128 count)
{
	return json_integer(count > COUNT_MAX ? (json_int_t)COUNT_MAX : (json_int_t)count);
}

static json_t *addr_json(const struct gossip_addr *addr)
{
	char ip[IP_TEXT_SIZE];

	ip_format(&addr->ip, ip);
	return addr->ip.family == 6 ? json_sprintf("[%s]:%u", ip, addr->port) : json_sprintf("%s:%u", ip, addr->port);
}

static uint64_t rss_bytes(void)
{
	unsigned long size = 0, resident = 0;
	char *data;
	size_t len;

	if (file_read("/proc/self/statm", 4096, &data, &len, NULL) < 0)
		return 0;
	if (sscanf(data, "%lu %lu", &size, &resident) != 2)
		resident = 0;
	free(data);
	return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* ---- status ---- */

static json_t *gossip_counters_json(const struct node *node)
{
	const struct gossip_counters *c = gossip_counters(node->gossip);
	json_t *o = json_object();

#define PUT(name) json_object_set_new(o, #name, json_integer((json_int_t)c->name))
	PUT(packets_in), PUT(packets_out), PUT(bytes_in), PUT(bytes_out), PUT(streamed_in), PUT(streamed_out);
	PUT(refused_short), PUT(refused_version), PUT(refused_sender), PUT(refused_key), PUT(refused_replay), PUT(refused_boot);
	PUT(refused_decode), PUT(refused_join), PUT(rotations), PUT(keys_in), PUT(keys_refused);
	PUT(recoveries_asked), PUT(recoveries_answered), PUT(refused_forgotten);
	PUT(probes), PUT(probe_timeouts), PUT(suspicions), PUT(refutations), PUT(deaths);
	PUT(pushes), PUT(push_retries), PUT(syncs), PUT(sketches), PUT(sketches_failed), PUT(audits), PUT(audits_failed),
		PUT(busy_told), PUT(busy_heard), PUT(resets), PUT(conflicts), PUT(records_refused), PUT(records_refused_host),
		PUT(records_refused_topic), PUT(records_refused_all), PUT(record_count), PUT(subscriptions), PUT(unwanted);
#undef PUT
	json_object_set_new(o, "sends_waited", json_integer((json_int_t)node->out.waited));
	json_object_set_new(o, "sends_dropped", json_integer((json_int_t)node->out.dropped));
	json_object_set_new(o, "sends_lost", json_integer((json_int_t)node->out.lost));
	json_object_set_new(o, "streams_refused", json_integer((json_int_t)streams_refused(node)));
	return o;
}

static json_t *driver_counters_json(const struct node *node)
{
	const struct driver_counters *c = datapath_counters(node);
	json_t *o = json_object();
	const struct datapath_drops *drops = datapath_drops(node);

#define PUT(name) json_object_set_new(o, #name, json_integer((json_int_t)c->name))
	PUT(syncs), PUT(resyncs), PUT(messages), PUT(repairs), PUT(overruns), PUT(dump_restarts), PUT(reaped);
	PUT(networks), PUT(endpoints), PUT(remotes);
#undef PUT
	json_object_set_new(o, "dropped_foreign", json_integer((json_int_t)drops->foreign));
	json_object_set_new(o, "dropped_forged", json_integer((json_int_t)drops->forged));
	json_object_set_new(o, "dropped_spoofed", json_integer((json_int_t)drops->spoofed));
	json_object_set_new(o, "dropped_strayed", json_integer((json_int_t)drops->strayed));
	return o;
}

static json_t *ipam_counters_json(const struct ipam *ipam)
{
	const struct ipam_counters *c = ipam_counters(ipam);
	json_t *o = json_object();

#define PUT(name) json_object_set_new(o, #name, json_integer((json_int_t)c->name))
	PUT(requests), PUT(local_grants), PUT(transfers_in), PUT(transfers_out), PUT(denied), PUT(bad_messages), PUT(repeated),
		PUT(refused);
#undef PUT
	return o;
}

static json_t *plugin_counters_json(const struct node *node)
{
	const struct plugin_counters *c = plugin_counters(node->plugin);

	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "calls", (json_int_t)c->calls, "refused", (json_int_t)c->refused, "failed",
		(json_int_t)c->failed, "in_flight", (json_int_t)c->in_flight, "queued", (json_int_t)worker_depth(node->worker));
}

static void warn_networks(struct node *node, json_t *warnings)
{
	unsigned underlay = underlay_mtu(&node->options.vtep), overhead = node->options.vtep.family == 6 ? 70 : 50;
	struct network *n, *next;
	char text[400];

	HASH_ITER(hh, node->networks, n, next)
	{
		if (network_conflict(node, n, text, sizeof(text)))
			json_array_append_new(warnings, json_string(text));
		if (n->local_count && n->def.mtu + overhead > underlay)
			json_array_append_new(warnings,
				json_sprintf(
					"network \"%s\" has MTU %u, but this host's underlay carries only %u: larger packets are "
					"lost. Raise the underlay's MTU to %u",
					n->def.name, n->def.mtu, underlay - overhead, n->def.mtu + overhead));
	}
}

static void warn_twin(void *ctx, const struct gossip_member *m)
{
	if (m->twin_ms && !m->self)
		json_array_append_new(ctx, json_sprintf("two hosts speak as %s (number %u): one has a copy of the other's state "
							"directory; stop the copy, "
							"and join it as a new host",
						   m->name, m->hostno));
}

static unsigned endpoints_of(struct node *node, uint32_t hostno, uint64_t topic); /* topic 0: of every network */

struct families {
	const struct node *node;
	json_t *warnings;
};

/* Only after a restart with other options: a join is refused. */
static void warn_family(void *ctx, const struct gossip_member *m)
{
	const struct families *f = ctx;
	const struct options *own = &f->node->options;
	char text[IP_TEXT_SIZE];

	if (m->self || m->state == GOSSIP_LEFT)
		return;
	if (ip_is_set(&m->addr.ip) && m->addr.ip.family != own->listen.ip.family)
		json_array_append_new(f->warnings,
			json_sprintf("host %s listens on %s, which is not of the family of this host's address: they cannot "
				     "speak; use --listen with addresses of one family on all hosts",
				m->name, ip_format(&m->addr.ip, text)));
	else if (ip_is_set(&m->vtep) && m->vtep.family != own->vtep.family)
		json_array_append_new(f->warnings,
			json_sprintf("host %s takes VXLAN at %s, which is not of the family of this host's address: their "
				     "containers cannot reach each other; use --vtep with addresses of one family on all hosts",
				m->name, ip_format(&m->vtep, text)));
}

static void count_streams(void *ctx, const struct gossip_member *m)
{
	*(unsigned *)ctx += m->reach == GOSSIP_REACH_STREAM && m->state != GOSSIP_LEFT;
}

static void warn_filtered(struct node *node, json_t *warnings)
{
	unsigned hosts = 0;

	gossip_each_member(node->gossip, count_streams, &hosts);
	if (hosts)
		json_array_append_new(warnings,
			json_sprintf(
				"%u hosts are reached by TCP only, which is slower: let UDP port %u pass between them and this "
				"one; `trestle members` names them",
				hosts, node->options.listen.port));
}

struct one_way {
	unsigned to, from; /* hosts that do not get what we send, that we get nothing from */
	char to_name[GOSSIP_NAME_MAX + 1], from_name[GOSSIP_NAME_MAX + 1];
};

static void count_one_way(void *ctx, const struct gossip_member *m)
{
	struct one_way *w = ctx;

	if (m->self || m->state != GOSSIP_ALIVE)
		return;
	if (m->reach == GOSSIP_REACH_IN && w->to++ == 0)
		snprintf(w->to_name, sizeof(w->to_name), "%s", m->name);
	if (m->reach == GOSSIP_REACH_NONE && m->heard_ms != 0 && w->from++ == 0) /* else it may not have been asked yet */
		snprintf(w->from_name, sizeof(w->from_name), "%s", m->name);
}

static json_t *one_way_sentence(const char *what, const char *name, unsigned hosts, const char *then)
{
	char others[32] = "";

	if (hosts > 1)
		snprintf(others, sizeof(others), " and %u more", hosts - 1);
	return json_sprintf(
		"%s host %s%s, alive as others say: containers here and there cannot reach each other, and of networks "
		"that no third host is part of %s; look for a filter or a route on that way; `trestle members`, REACH",
		what, name, others, then);
}

/* Others hear both: nobody is dead, and nothing else here would say so. */
static void warn_one_way(struct node *node, json_t *warnings)
{
	struct one_way w = {0};

	gossip_each_member(node->gossip, count_one_way, &w);
	if (w.to)
		json_array_append_new(warnings, one_way_sentence("nothing that this host sends arrives at", w.to_name, w.to,
							"changes here stay unknown there"));
	if (w.from)
		json_array_append_new(warnings,
			one_way_sentence("nothing arrives here from", w.from_name, w.from, "changes there stay unknown here"));
}

static json_t *warnings_json(struct node *node)
{
	struct families families = {.node = node, .warnings = json_array()};
	json_t *warnings = families.warnings;
	char text[600];
	const char *error = datapath_last_error(node);
	unsigned dead = gossip_member_count(node->gossip, GOSSIP_DEAD),
		 suspect = gossip_member_count(node->gossip, GOSSIP_SUSPECT);

	if (standing_sentence(node, text, sizeof(text)))
		json_array_append_new(warnings, json_string(text));
	if (*error)
		json_array_append_new(warnings, json_sprintf("the kernel is not as it should be: %s", error));
	if (dead)
		json_array_append_new(warnings, json_sprintf("%u hosts are dead; `trestle members` names them", dead));
	if (suspect)
		json_array_append_new(warnings,
			json_sprintf("%u hosts do not answer and are suspected; `trestle members` names them", suspect));
	if (gossip_cut_suspected(node->gossip, clock_boot_ms()))
		json_array_append_new(warnings,
			json_string(
				"many hosts stopped answering within 10 s: more likely the network is cut than they are dead"));
	warn_filtered(node, warnings);
	warn_one_way(node, warnings);
	if (gossip_local_health(node->gossip) > 1)
		json_array_append_new(warnings,
			json_sprintf(
				"this host is slow (%u of 8): its daemon is late, loses packets or hears no answers, and gives "
				"others more time before it suspects them",
				gossip_local_health(node->gossip)));
	if (node->duplicates_seen)
		json_array_append_new(warnings,
			json_sprintf("%llu times an address was seen on two hosts; create networks with --ipam-driver trestle",
				(unsigned long long)node->duplicates_seen));
	gossip_each_member(node->gossip, warn_twin, warnings);
	gossip_each_member(node->gossip, warn_family, &families);
	if (gossip_counters(node->gossip)->conflicts)
		json_array_append_new(warnings,
			json_string("two hosts speak with one identity: is one a copy of the other's state directory?"));
	if (*datapath_warning(node))
		json_array_append_new(warnings, json_string(datapath_warning(node)));
	warn_networks(node, warnings);
	return warnings;
}

static json_t *drift_json(const struct node *node)
{
	const struct driver_drift *d = &datapath_counters(node)->last_drift;

	return json_pack(
		"{s:i, s:i, s:i}", "missing", (int)d->missing, "foreign", (int)d->foreign, "different", (int)d->different);
}

static json_t *member_counts_json(const struct node *node)
{
	json_t *o = json_object();

	for (int s = GOSSIP_ALIVE; s <= GOSSIP_LEFT; s++)
		json_object_set_new(o, gossip_state_name((enum gossip_state)s),
			json_integer(gossip_member_count(node->gossip, (enum gossip_state)s)));
	return o;
}

static json_t *status(struct node *node)
{
	uint64_t now = clock_boot_ms();
	struct gossip_addr listen = node->options.listen;
	json_t *o = json_object();

	json_object_set_new(o, "version", json_string(TRESTLE_VERSION));
	json_object_set_new(o, "name", json_string(node->options.name));
	json_object_set_new(o, "host_id", id_json(&node->identity.id));
	json_object_set_new(o, "hostno", json_integer(node->cluster.hostno));
	json_object_set_new(o, "cluster_id", id_json(&node->cluster.cluster_id));
	json_object_set_new(o, "epoch", json_integer(node->cluster.epoch));
	json_object_set_new(o, "state", json_string(node->join ? "joining" : node->leaving ? "leaving" : "running"));
	json_object_set_new(o, "listen", addr_json(&listen));
	json_object_set_new(o, "vtep", ip_json(&node->options.vtep));
	json_object_set_new(o, "members", member_counts_json(node));
	json_object_set_new(o, "networks", json_integer(HASH_COUNT(node->networks)));
	json_object_set_new(o, "endpoints",
		json_pack("{s:i, s:i}", "local", (int)endpoints_of(node, node->cluster.hostno, 0), "remote",
			(int)node->remote_count));
	json_object_set_new(o, "pools", json_integer(HASH_COUNT(node->pools)));
	json_object_set_new(o, "spare_numbers", json_integer(hostnos_spare(node)));
	json_object_set_new(o, "drift", drift_json(node));
	json_object_set_new(o, "in_step", json_boolean(gossip_in_step(node->gossip)));
	json_object_set_new(o, "last_resync_age_ms", json_integer((json_int_t)(now - datapath_last_resync_ms(node))));
	json_object_set_new(o, "rss_bytes", json_integer((json_int_t)rss_bytes()));
	json_object_set_new(o, "uptime_s", json_integer((json_int_t)((now - node->start_ms) / 1000)));
	json_object_set_new(o, "counters",
		json_pack("{s:o, s:o, s:o, s:o}", "gossip", gossip_counters_json(node), "driver", driver_counters_json(node),
			"ipam", ipam_counters_json(node->ipam), "plugin", plugin_counters_json(node)));
	json_object_set_new(o, "warnings", warnings_json(node));
	return o;
}

static json_t *version(struct node *node)
{
	(void)node;
#ifdef TRESTLE_COMMIT
	json_t *commit = text_or_null(TRESTLE_COMMIT);
#else
	json_t *commit = json_null();
#endif
	return json_pack(
		"{s:s, s:i, s:i, s:o}", "version", TRESTLE_VERSION, "api", TRESTLE_API, "wire", TRESTLE_WIRE, "commit", commit);
}

/* ---- members ---- */

struct listing {
	struct node *node;
	json_t *array;
	const struct network *network; /* only of this one; NULL: all */
};

static unsigned endpoints_of(struct node *node, uint32_t hostno, uint64_t topic)
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

static void add_member(void *ctx, const struct gossip_member *m)
{
	struct listing *l = ctx;
	json_t *o = json_object();

	json_object_set_new(o, "hostno", json_integer(m->hostno));
	json_object_set_new(o, "name", json_string(m->name));
	json_object_set_new(o, "host_id", id_json(&m->host_id));
	json_object_set_new(o, "state", json_string(gossip_state_name(m->state)));
	json_object_set_new(o, "since_s", json_integer((json_int_t)((clock_boot_ms() - m->since_ms) / 1000)));
	json_object_set_new(o, "address", addr_json(&m->addr));
	json_object_set_new(o, "vtep", ip_json(&m->vtep));
	json_object_set_new(o, "wire", json_integer(m->wire));
	json_object_set_new(o, "rtt_us", m->rtt_us && !m->self ? json_integer(m->rtt_us) : json_null());
	json_object_set_new(o, "reach", m->self ? json_null() : json_string(gossip_reach_name(m->reach)));
	json_object_set_new(o, "heard_ms", m->heard_ms && !m->self ? json_integer(age_ms(m->heard_ms)) : json_null());
	json_object_set_new(o, "answered_ms", m->answered_ms && !m->self ? json_integer(age_ms(m->answered_ms)) : json_null());
	json_object_set_new(o, "epoch", json_integer(m->epoch));
	json_object_set_new(o, "incarnation", json_integer(m->incarnation));
	json_object_set_new(o, "self", json_boolean(m->self));
	json_object_set_new(o, "endpoints", json_integer(endpoints_of(l->node, m->hostno, 0)));
	json_array_append_new(l->array, o);
}

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
	json_t **items = calloc(n + 1, sizeof(json_t *)), *result = json_array();

	if (!items)
		abort();
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

static json_t *members(struct node *node)
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
	json_object_set_new(o, "network_id", id_json(&n->id));
	json_object_set_new(o, "host", json_string(host));
	json_object_set_new(o, "hostno", json_integer(hostno));
	json_object_set_new(o, "ipv4", ip_json(ip4));
	json_object_set_new(o, "ipv6", ip_json(ip6));
	json_object_set_new(o, "mac", json_string(mac_format(mac, mac_text)));
	json_object_set_new(o, "since_s", json_integer(age > 0 ? age : 0));
	json_object_set_new(o, "vtep", ip_json(vtep));
	return o;
}

static json_t *local_json(struct node *node, const struct endpoint *ep)
{
	json_t *o = endpoint_json(ep->network, ep->id, node->options.name, node->cluster.hostno, &ep->state.address4.ip,
		&ep->state.address6.ip, &ep->state.mac, ep->state.since_s, &node->options.vtep);

	json_object_set_new(o, "state", json_string(ep->state.joined ? "joined" : "created"));
	json_object_set_new(o, "link", json_string(link_names[ep->link]));
	json_object_set_new(o, "docker_network_id", text_or_null(ep->state.docker_network));
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

static struct network *need_network(struct node *node, const char *name, struct err *err)
{
	struct network *n = network_find(node, name);

	if (!n)
		err_set(err, ERR_NOT_FOUND, "network \"%s\" is not known here: `trestle network ls` lists the known ones", name);
	return n;
}

static json_t *endpoints(struct node *node, const char *filter, struct err *err)
{
	struct network *only = NULL;
	char name[GOSSIP_NAME_MAX + 1];

	if (filter && !(only = need_network(node, filter, err)))
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

static json_t *endpoint_inspect(struct node *node, const char *text, struct err *err)
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
			json_array_append_new(list, ip_json(&ips[i]));
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

	json_object_set_new(o, "id", id_json(&n->id));
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
		o, "conflict", network_conflict(node, n, conflict, sizeof(conflict)) ? json_string(conflict) : json_null());
	json_object_set_new(o, "pinned", json_boolean(n->pinned));
	json_object_set_new(o, "host_addresses", host_addresses_json(n));
	return o;
}

static json_t *networks(struct node *node)
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
	struct ip ips[2] = {0};
	struct remote *r, *next;

	if (hostno == node->cluster.hostno)
		return host_addresses_json(n);
	if (s && s->host_addresses)
		HASH_ITER(hh, s->remotes, r, next)
	if (r->key.origin == hostno && remote_is_host(r)) {
		ips[0] = r->record.ip4;
		ips[1] = r->record.ip6;
	}
	return ips_json(ips);
}

static void add_network_member(void *ctx, const struct gossip_member *m)
{
	struct listing *l = ctx;
	unsigned count = endpoints_of(l->node, m->hostno, l->network->topic);

	if (count)
		json_array_append_new(
			l->array, json_pack("{s:i, s:s, s:o, s:s, s:i, s:o}", "hostno", (int)m->hostno, "name", m->name, "vtep",
					  ip_json(&m->vtep), "state", gossip_state_name(m->state), "endpoints", (int)count,
					  "addresses", own_addresses(l->node, l->network, m->hostno)));
}

static json_t *network_full(struct node *node, const struct network *n)
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
		control_done(c->call, network_full(c->node, n));
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

static void network_create(struct node *node, struct control_call *call, json_t *body)
{
	struct create_call *c = calloc(1, sizeof(*c));
	const char *name = json_string_value(json_object_get(body, "name"));
	struct err err = {0};

	if (!c)
		abort();
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

static bool is_pool_of(const struct network *n, const struct pool *p)
{
	for (unsigned i = 0; i < n->def.pool_count; i++)
		if (prefix_equal(&n->def.pools[i], &p->state.def.prefix))
			return true;
	return false;
}

static void unpin_pools(struct node *node, const struct network *n)
{
	struct pool *p, *next;

	HASH_ITER(hh, node->pools, p, next)
	if (p->state.pinned && (strcmp(p->state.def.name, n->def.name) == 0 || (!p->state.def.name[0] && is_pool_of(n, p)))) {
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

static void network_rm(struct node *node, struct control_call *call, const char *name)
{
	struct err err = {0};
	struct network *n = need_network(node, name, &err);
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
	l = calloc(1, sizeof(*l));
	if (!l)
		abort();
	l->call = call;
	l->answer = json_pack("{s:o}", "removed", id_json(&id));
	if (n) {
		unpin_pools(node, n);
		n->pinned = false;
		network_unuse(node, n);
	}
	outbox_call(node->outbox, answer_later, l);
}

static json_t *network_inspect(struct node *node, const char *name, struct err *err)
{
	struct network *n = need_network(node, name, err);

	return n ? network_full(node, n) : NULL;
}

/* ---- ipam ---- */

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
	for (unsigned i = 0; i < n->def.pool_count; i++)
		if (prefix_equal(&n->def.pools[i], &p->state.def.prefix))
			return n->def.name;
	return p->state.def.name;
}

static json_t *pool_json(struct node *node, const struct pool *p)
{
	struct listing l = {.node = node, .array = json_array()};
	struct ipam_totals totals = {0};
	char text[PREFIX_TEXT_SIZE];
	json_t *o = json_object();

	ipam_pool_totals(node->ipam, &p->id, &totals);
	ipam_each_share(node->ipam, &p->id, add_share, &l);
	json_object_set_new(o, "pool", json_string(prefix_format(&p->state.def.prefix, text)));
	json_object_set_new(o, "pool_id", id_json(&p->id));
	json_object_set_new(o, "network", text_or_null(network_of_pool(node, p)));
	json_object_set_new(o, "space", json_string(pool_space_name(p->state.def.space)));
	json_object_set_new(o, "size", count_json(totals.size));
	json_object_set_new(o, "reserved", count_json(totals.reserved));
	json_object_set_new(o, "leases", json_integer(totals.leases));
	json_object_set_new(o, "shares", sorted(l.array, by_hostno));
	return o;
}

static json_t *ipam_show(struct node *node, const char *filter, struct err *err)
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

/* ---- token, join, leave ---- */

static json_t *token(struct node *node, json_t *body, struct err *err)
{
	json_t *ttl = json_object_get(body, "ttl_s");
	char text[512];
	int64_t expires_s;

	if (cluster_token(node, ttl ? json_integer_value(ttl) : TOKEN_TTL_S, text, &expires_s, err) < 0)
		return NULL;
	return json_pack("{s:s, s:I}", "token", text, "expires_s", (json_int_t)expires_s);
}

/* ---- keys ---- */

struct named {
	struct id128 id;
	char name[GOSSIP_NAME_MAX + 1];
};

static void if_named(void *ctx, const struct gossip_member *m)
{
	struct named *s = ctx;

	if (id_equal(&m->host_id, &s->id))
		snprintf(s->name, sizeof(s->name), "%s", m->name);
}

/* What names a key, never what it is. */
static void add_key(void *ctx, const struct gossip_key *key)
{
	struct listing *l = ctx;
	char fingerprint[2 * sizeof(key->fingerprint) + 1], label[GOSSIP_NAME_MAX + 32];
	struct named rotator = {.id = key->rotator};
	int64_t age = clock_wall_s() - (int64_t)key->created_s;

	for (size_t i = 0; i < sizeof(key->fingerprint); i++)
		snprintf(fingerprint + 2 * i, 3, "%02x", key->fingerprint[i]);
	gossip_each_member(l->node->gossip, if_named, &rotator);
	snprintf(label, sizeof(label), "%s", rotator.name);
	json_array_append_new(l->array,
		json_pack("{s:s, s:i, s:s, s:o, s:o, s:i, s:i, s:i}", "id", fingerprint, "generation", (int)key->generation,
			"state", gossip_key_state_name(key->state), "age_s",
			key->created_s ? json_integer(age > 0 ? (json_int_t)age : 0) : json_null(), "made_by",
			text_or_null(label), "hosts", (int)key->have, "sending", (int)key->sending, "of", (int)key->needed));
}

static json_t *keys(struct node *node)
{
	struct listing l = {.node = node, .array = json_array()};

	gossip_each_key(node->gossip, add_key, &l);
	return json_pack("{s:o}", "keys", l.array);
}

static json_t *keys_rotate(struct node *node, json_t *body, struct err *err)
{
	(void)body;
	if (gossip_rotate(node->gossip, clock_boot_ms(), err) < 0)
		return NULL;
	log_info("cluster", "a new cluster key is being handed out");
	cluster_poke(node);
	return json_pack("{s:b}", "rotating", 1);
}

struct pending {
	struct node *node;
	struct control_call *call;
};

static struct pending *pending_new(struct node *node, struct control_call *call)
{
	struct pending *p = calloc(1, sizeof(*p));

	if (!p)
		abort();
	p->node = node;
	p->call = call;
	return p;
}

static json_t *joined_json(struct node *node)
{
	struct named s = {.id = node->sponsor};

	gossip_each_member(node->gossip, if_named, &s);
	return json_pack("{s:o, s:i, s:o}", "cluster_id", id_json(&node->cluster.cluster_id), "hostno", (int)node->cluster.hostno,
		"sponsor", text_or_null(s.name));
}

static void joined(void *arg, const struct err *err)
{
	struct pending *p = arg;

	if (err)
		control_fail(p->call, err);
	else
		control_done(p->call, joined_json(p->node));
	free(p);
}

static void join(struct node *node, struct control_call *call, json_t *body)
{
	struct pending *p = pending_new(node, call);
	struct err err = {0};

	if (cluster_join(node, json_string_value(json_object_get(body, "token")), joined, p, &err) == 0)
		return;
	if (err.code == ERR_EXISTS && !cluster_alone(node))
		control_done(call, joined_json(node));
	else
		control_fail(call, &err);
	free(p);
}

static void left(void *arg, const struct err *err)
{
	struct pending *p = arg;

	if (err)
		control_fail(p->call, err);
	else
		control_done(p->call, json_pack("{s:b}", "left", 1));
	free(p);
}

static void endpoints_gone(void *arg)
{
	struct pending *p = arg;
	struct err err = {0};

	p->node->leaving = false; /* cluster_leave takes it over */
	if (cluster_leave(p->node, left, p, &err) < 0) {
		control_fail(p->call, &err);
		free(p);
	}
}

static void leave(struct node *node, struct control_call *call, json_t *body)
{
	bool force = json_is_true(json_object_get(body, "force"));
	unsigned count = endpoints_of(node, node->cluster.hostno, 0);
	struct err err = {0};

	if (count && !force) {
		err_set(&err, ERR_CONFLICT,
			"%u endpoints of this host would lose their network; stop their containers first, or use --force", count);
		control_fail(call, &err);
		return;
	}
	if (node->leaving || node->join) {
		err_set(&err, ERR_CONFLICT, "this host is joining or leaving already; wait for the answer");
		control_fail(call, &err);
		return;
	}
	node->leaving = true; /* nothing new from here on */
	endpoints_remove_all_of(node, NULL, endpoints_gone, pending_new(node, call));
}

/* ---- dispatch ---- */

/* How a verb is served: with an answer at once, or later by whoever takes the call. `text` is the object or the filter. */
struct verb {
	json_t *(*plain)(struct node *node);
	json_t *(*about)(struct node *node, const char *text, struct err *err);
	json_t *(*told)(struct node *node, json_t *body, struct err *err);
	void (*later)(struct node *node, struct control_call *call, json_t *body);
	void (*later_about)(struct node *node, struct control_call *call, const char *text);
	void (*whole)(struct node *node, struct control_call *call, const struct control_request *request);
};

static const struct verb verbs[] = {
	[CONTROL_STATUS] = {.plain = status},
	[CONTROL_VERSION] = {.plain = version},
	[CONTROL_MEMBERS] = {.plain = members},
	[CONTROL_NETWORKS] = {.plain = networks},
	[CONTROL_NETWORK_CREATE] = {.later = network_create},
	[CONTROL_NETWORK_INSPECT] = {.about = network_inspect},
	[CONTROL_NETWORK_RM] = {.later_about = network_rm},
	[CONTROL_ENDPOINTS] = {.about = endpoints},
	[CONTROL_ENDPOINT_INSPECT] = {.about = endpoint_inspect},
	[CONTROL_IPAM] = {.about = ipam_show},
	[CONTROL_TOKEN] = {.told = token},
	[CONTROL_JOIN] = {.later = join},
	[CONTROL_LEAVE] = {.later = leave},
	[CONTROL_KEYS] = {.plain = keys},
	[CONTROL_KEYS_ROTATE] = {.told = keys_rotate},
	[CONTROL_FORGET] = {.later = estate_forget},
	[CONTROL_AUDIT] = {.plain = estate_check},
	[CONTROL_CNI_ADD] = {.whole = workloads_call},
	[CONTROL_CNI_DEL] = {.whole = workloads_call},
	[CONTROL_CNI_CHECK] = {.whole = workloads_call},
	[CONTROL_CNI_GC] = {.whole = workloads_call},
	[CONTROL_CNI_STATUS] = {.whole = workloads_call},
	[CONTROL_IPAM_ALLOCATE] = {.whole = workloads_call},
	[CONTROL_IPAM_RELEASE] = {.whole = workloads_call},
	[CONTROL_IPAM_CHECK] = {.whole = workloads_call},
};

static int refused(const struct node *node, enum control_verb verb, struct err *err)
{
	if (!node->gossip || !node->ipam)
		return err_set(err, ERR_UNREACHABLE, "this host is changing its cluster; try again in a second");
	if (verb == CONTROL_NETWORK_CREATE && (node->leaving || node->join))
		return err_set(err, ERR_UNREACHABLE, "this host is joining or leaving a cluster; try again in a second");
	return 0;
}

static json_t *answer_at_once(
	struct node *node, const struct verb *verb, const struct control_request *request, const char *text, struct err *err)
{
	if (verb->plain)
		return verb->plain(node);
	return verb->about ? verb->about(node, text, err) : verb->told(node, request->body, err);
}

static void handle(void *ctx, struct control_call *call, const struct control_request *request)
{
	const char *text = request->object ? request->object : request->filter;
	const struct verb *verb = &verbs[request->verb];
	struct node *node = ctx;
	struct err err = {0};
	json_t *answer;

	if (refused(node, request->verb, &err) < 0) {
		control_fail(call, &err);
	} else if (verb->later) {
		verb->later(node, call, request->body);
	} else if (verb->later_about) {
		verb->later_about(node, call, text);
	} else if (verb->whole) {
		verb->whole(node, call, request);
	} else {
		answer = answer_at_once(node, verb, request, text, &err);
		if (answer)
			control_done(call, answer);
		else
			control_fail(call, &err);
	}
}

const struct control_backend api_backend = {.handle = handle};

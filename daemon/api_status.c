/* `trestle status` and `trestle version`: what this host is, what it counts, and what its operator should hear of. Reads the
 * tables and changes nothing. A warning names what is wrong, where, and what to do. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "base/version.h"
#include "base/json_text.h"
#include "daemon/api_internal.h"
#include "daemon/underlay.h"

static json_t *gossip_counters_json(const struct node *node)
{
	const struct gossip_counters *c = gossip_counters(node->gossip);
	json_t *o = json_object();

#define PUT(name) json_object_set_new(o, #name, json_integer((json_int_t)c->name))
	PUT(packets_in), PUT(packets_out), PUT(bytes_in), PUT(bytes_out), PUT(streamed_in), PUT(streamed_out);
	PUT(refused_short), PUT(refused_version), PUT(refused_sender), PUT(refused_key), PUT(refused_replay), PUT(refused_boot);
	PUT(refused_decode), PUT(refused_join), PUT(admissions_together), PUT(vouched), PUT(rotations), PUT(keys_in),
		PUT(keys_refused);
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
	unsigned underlay = underlay_mtu(&node->options.vtep), overhead = underlay_overhead(&node->options.vtep);
	struct network *n, *next;
	char text[400];

	HASH_ITER(hh, node->networks, n, next)
	{
		if (network_conflict(node, n, text, sizeof(text)))
			json_array_append_new(warnings, json_text(text));
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

struct replaced {
	struct node *node;
	json_t *warnings;
	const struct gossip_member *dead;
	unsigned told;
};

#define REPLACED_MAX 8 /* are told of at once */

static void warn_successor(void *ctx, const struct gossip_member *m)
{
	struct replaced *r = ctx;
	const struct gossip_member *dead = r->dead;
	char text[IP_TEXT_SIZE];

	if (m->state != GOSSIP_ALIVE || m->addr.port != dead->addr.port || !ip_equal(&m->addr.ip, &dead->addr.ip) ||
		r->told++ >= REPLACED_MAX)
		return;
	json_array_append_new(r->warnings,
		json_sprintf("host %s (number %u) is dead, and host %s (number %u) has its address %s: when it is the same "
			     "machine, which "
			     "lost its state and joined again, end the old one by `trestle forget %u --fenced`, which gives its "
			     "addresses back",
			dead->name, dead->hostno, m->name, m->hostno, ip_format(&dead->addr.ip, text), dead->hostno));
}

static void warn_replaced(void *ctx, const struct gossip_member *m)
{
	struct replaced *r = ctx;

	if (m->state != GOSSIP_DEAD || r->told >= REPLACED_MAX)
		return;
	r->dead = m;
	gossip_each_member(r->node->gossip, warn_successor, r);
}

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
			json_sprintf("%u host%s reached by TCP only, which is slower: let UDP port %u pass between them and this "
				     "one; `trestle members` names them",
				hosts, hosts == 1 ? " is" : "s are", node->options.listen.port));
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

	if (freeze_sentence(node, text, sizeof(text)))
		json_array_append_new(warnings, json_text(text));
	if (standing_sentence(node, text, sizeof(text)))
		json_array_append_new(warnings, json_text(text));
	if (*outbox_trouble(node->outbox))
		json_array_append_new(
			warnings, json_sprintf("this host cannot save: %s. New networks, addresses and containers "
					       "wait, and go on by themselves once it can; make room, or mend the disk",
					  outbox_trouble(node->outbox)));
	if (*error) {
		snprintf(text, sizeof(text), "the kernel is not as it should be: %s", error);
		json_array_append_new(warnings, json_text(text));
	}
	if (dead)
		json_array_append_new(warnings,
			json_sprintf("%u host%s dead; `trestle members` names them", dead, dead == 1 ? " is" : "s are"));
	if (suspect)
		json_array_append_new(
			warnings, json_sprintf("%u host%s not answer, suspected to be dead; `trestle members` names them",
					  suspect, suspect == 1 ? " does" : "s do"));
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
	gossip_each_member(node->gossip, warn_replaced, &(struct replaced){.node = node, .warnings = warnings});
	gossip_each_member(node->gossip, warn_family, &families);
	if (gossip_counters(node->gossip)->conflicts)
		json_array_append_new(warnings,
			json_string("two hosts speak with one identity: is one a copy of the other's state directory?"));
	if (*datapath_warning(node))
		json_array_append_new(warnings, json_text(datapath_warning(node)));
	for (int i = 0; i < 2; i++)
		if (neighbours_sentence(node, i, text, sizeof(text)))
			json_array_append_new(warnings, json_text(text));
	warn_networks(node, warnings);
	return warnings;
}

static json_t *neighbour_table_json(const struct neighbour_table *t)
{
	if (t->limit == 0)
		return json_null();
	return json_pack(
		"{s:I, s:I, s:I}", "entries", (json_int_t)t->used, "limit", (json_int_t)t->limit, "full", (json_int_t)t->full);
}

static json_t *drift_json(const struct node *node)
{
	const struct driver_drift *d = &datapath_counters(node)->last_drift;

	return json_pack(
		"{s:i, s:i, s:i}", "missing", (int)d->missing, "foreign", (int)d->foreign, "different", (int)d->different);
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

static json_t *member_counts_json(const struct node *node)
{
	json_t *o = json_object();

	for (int s = GOSSIP_ALIVE; s <= GOSSIP_LEFT; s++)
		json_object_set_new(o, gossip_state_name((enum gossip_state)s),
			json_integer(gossip_member_count(node->gossip, (enum gossip_state)s)));
	return o;
}

json_t *api_status(struct node *node)
{
	uint64_t now = clock_boot_ms();
	const struct neighbour_table *tables = node->neighbours.tables;
	struct gossip_addr listen = node->options.listen;
	json_t *o = json_object();

	json_object_set_new(o, "version", json_string(TRESTLE_VERSION));
	json_object_set_new(o, "name", json_string(node->options.name));
	json_object_set_new(o, "host_id", api_id(&node->identity.id));
	json_object_set_new(o, "hostno", json_integer(node->cluster.hostno));
	json_object_set_new(o, "cluster_id", api_id(&node->cluster.cluster_id));
	json_object_set_new(o, "epoch", json_integer(node->cluster.epoch));
	json_object_set_new(o, "state", json_string(node->join ? "joining" : node->leaving ? "leaving" : "running"));
	json_object_set_new(o, "frozen", freeze_json(node));
	json_object_set_new(o, "listen", api_addr(&listen));
	json_object_set_new(o, "vtep", api_ip(&node->options.vtep));
	json_object_set_new(o, "members", member_counts_json(node));
	json_object_set_new(o, "networks", json_integer(HASH_COUNT(node->networks)));
	json_object_set_new(o, "endpoints",
		json_pack("{s:i, s:i}", "local", (int)api_endpoints_of(node, node->cluster.hostno, 0), "remote",
			(int)node->remote_count));
	json_object_set_new(o, "pools", json_integer(HASH_COUNT(node->pools)));
	json_object_set_new(o, "spare_numbers", json_integer(hostnos_spare(node)));
	json_object_set_new(o, "drift", drift_json(node));
	neighbours_look(node);
	json_object_set_new(o, "neighbours",
		json_pack("{s:o, s:o}", "ipv4", neighbour_table_json(&tables[0]), "ipv6", neighbour_table_json(&tables[1])));
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

json_t *api_version(struct node *node)
{
	(void)node;
	return json_pack("{s:s, s:i, s:i, s:o}", "version", TRESTLE_VERSION, "api", TRESTLE_API, "wire", TRESTLE_WIRE, "commit",
		api_text(TRESTLE_COMMIT));
}

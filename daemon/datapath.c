/* Between the loop, which decides what is desired, and the drivers, one for each mode, which live on the worker.
 *
 * What is desired is collected as commands; a commit hands all collected ones to the worker as one job: apply the commands, sync,
 * tell the loop. So a burst of records costs one sync, and an attach waits for exactly one. The drivers' descriptors are watched
 * by the loop and read by the worker. Full comparison at start, after lost notices, and once a minute; links are reaped in
 * groups.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/node_internal.h"
#include "base/alloc.h"
#include "driver/vxlan/vxlan.h"
#include "netlink/netns.h"

#define RESYNC_MS 60000
#define SETTLE_MS 1000
#define REAP_MS 100 /* a group of deleted links shares one wait of the kernel (16-20 ms, RCU) */
#define REAP_LATEST_MS 1000
#define LINKS_SLICE 32
#define RETRY_MS 1000

enum command_kind {
	PUT_NETWORK,
	DEL_NETWORK,
	PUT_ENDPOINT,
	DEL_ENDPOINT,
	PUT_REMOTE,
	DEL_REMOTE,
	SET_FLOOD,
	SET_MEMBERS,
	START_OVER,
	SET_EXITS
};

enum { L2, L3, MODES };

struct command {
	struct command *next;
	enum command_kind kind;
	unsigned mode; /* of the network that is put, or has what is put */
	union {
		struct driver_network network;
		struct {
			struct driver_endpoint endpoint;
			bool make;
		};
		struct driver_remote remote;
		struct {
			struct id128 id;
			struct mac mac;
			char endpoint_id[DRIVER_ENDPOINT_ID_MAX + 1];
			size_t count;
			struct ip *vteps;
			struct driver_exit *exits;
		};
		uint32_t hostno;
	};
};

enum job_kind { JOB_SYNC, JOB_RESYNC, JOB_REAP, JOB_DRAIN, JOB_LINKS };

struct link_query {
	unsigned mode;
	struct id128 network;
	char id[DRIVER_ENDPOINT_ID_MAX + 1];
	enum driver_link_state state;
};

struct job {
	struct worker_job job;
	struct datapath *dp;
	enum job_kind kind;
	struct command *commands;
	bool hold;
	/* what a commit asks about */
	unsigned mode;
	struct id128 network;
	char endpoint_id[DRIVER_ENDPOINT_ID_MAX + 1];
	int (*then)(void *arg, uint32_t peer, struct err *err);
	void *then_arg;
	void (*fn)(void *arg, const struct err *err);
	void *arg;
	/* results */
	char ifname[DRIVER_IFNAME_SIZE];
	int result;
	struct err err, endpoint_err;
	bool endpoint_failed, more;
	int left; /* to be reaped */
	struct driver_counters counters;
	struct datapath_drops drops;
	char warning[400];
	size_t query_count, query_done;
	struct link_query *queries;
};

struct datapath {
	struct node *node;
	struct driver *drivers[MODES]; /* the worker's, after start */
	struct vxlan_config config;
	struct command *head, **tail;
	struct event *flush, *notify[MODES], *reap, *resync;
	unsigned syncs_open; /* with the worker: they read notices themselves, so nobody is woken for these */
	bool reap_wanted, links_running, resync_queued, settling;
	bool hold;
	uint64_t reap_latest_ms; /* of the deletion that is armed */
	/* copies for the loop, as of the last job */
	struct driver_counters counters;
	uint64_t last_resync_ms;
	struct datapath_drops drops;
	char warning[400];
	char last_error[ERR_TEXT_SIZE];
};

/* ---- on the worker ---- */

/* Each driver ignores the removal of what it does not know. */
static bool concerns(const struct command *c, unsigned mode)
{
	switch (c->kind) {
	case PUT_NETWORK: /* the filter of all networks' frames is the first one's */
		return mode == L2 || c->mode == L3;
	case PUT_ENDPOINT:
	case PUT_REMOTE:
		return c->mode == mode;
	case SET_FLOOD:
	case SET_MEMBERS:
		return mode == L2;
	case SET_EXITS:
		return mode == L3;
	default:
		return true;
	}
}

static void run_command(struct driver *d, const struct command *c)
{
	switch (c->kind) {
	case PUT_NETWORK:
		d->ops->put_network(d, &c->network);
		break;
	case DEL_NETWORK:
		d->ops->del_network(d, &c->id);
		break;
	case PUT_ENDPOINT:
		d->ops->put_endpoint(d, &c->endpoint, c->make);
		break;
	case DEL_ENDPOINT:
		d->ops->del_endpoint(d, &c->id, c->endpoint_id);
		break;
	case PUT_REMOTE:
		d->ops->put_remote(d, &c->remote);
		break;
	case DEL_REMOTE:
		d->ops->del_remote(d, &c->id, &c->mac);
		break;
	case SET_FLOOD:
		d->ops->set_flood(d, &c->id, c->vteps, c->count);
		break;
	case SET_MEMBERS:
		d->ops->set_members(d, c->vteps, c->count);
		break;
	case START_OVER:
		d->ops->start_over(d, c->hostno);
		break;
	case SET_EXITS:
		d->ops->set_exits(d, c->exits, c->count);
		break;
	}
}

static void commands_free(struct command *list)
{
	while (list) {
		struct command *next = list->next;
		if (list->kind == SET_FLOOD || list->kind == SET_MEMBERS)
			free(list->vteps);
		if (list->kind == SET_EXITS)
			free(list->exits);
		free(list);
		list = next;
	}
}

/* Each question takes the kernel's lock, so a thousand take milliseconds: an attach that comes meanwhile waits for a slice only.
 */
static void query_links(struct job *j)
{
	for (unsigned i = 0; i < LINKS_SLICE && j->query_done < j->query_count; i++) {
		struct link_query *q = &j->queries[j->query_done++];
		struct driver *d = j->dp->drivers[q->mode];

		q->state = d->ops->endpoint_state(d, &q->network, q->id);
	}
}

static int open_driver(struct datapath *dp, unsigned mode, struct driver **ret_driver, struct err *err)
{
	struct vxlan_config config = dp->config;

	config.routed = mode == L3;
	return vxlan_open(&config, ret_driver, err);
}

/* The endpoint that a commit is about is there, or there is a sentence why not. */
static void judge_endpoint(struct driver *d, struct job *j)
{
	j->endpoint_failed = d->ops->endpoint_error(d, &j->network, j->endpoint_id, &j->endpoint_err);
	d->ops->endpoint_ifname(d, &j->network, j->endpoint_id, j->ifname);
	if (j->endpoint_failed || d->ops->endpoint_there(d, &j->network, j->endpoint_id))
		return;
	j->endpoint_failed = true;
	if (j->result < 0)
		j->endpoint_err = j->err;
	else
		err_set(&j->endpoint_err, ERR_NOT_FOUND, "endpoint %.12s has no link: its container's namespace ended",
			j->endpoint_id);
}

/* What makes the endpoint whole. Then nobody has to make it again, and its namespace is not needed any more. */
static void go_on(struct driver *d, struct job *j)
{
	uint32_t peer = d->ops->endpoint_peer(d, &j->network, j->endpoint_id);

	if (j->then(j->then_arg, peer, &j->endpoint_err) < 0) {
		j->endpoint_failed = true;
		return;
	}
	for (struct command *c = j->commands; c; c = c->next)
		if (c->kind == PUT_ENDPOINT && strcmp(c->endpoint.id, j->endpoint_id) == 0)
			d->ops->put_endpoint(d, &c->endpoint, false);
}

/* The first error counts; what comes behind it is done all the same. */
static void sync_all(struct job *j, bool everything)
{
	for (unsigned mode = 0; mode < MODES; mode++) {
		struct driver *d = j->dp->drivers[mode];
		struct err err = {0};

		if ((everything ? d->ops->resync(d, &err) : d->ops->sync(d, &err)) == 0)
			continue;
		if (j->result == 0)
			j->err = err;
		j->result = -1;
	}
}

static void reap_all(struct job *j)
{
	for (unsigned mode = 0; mode < MODES; mode++) {
		int left = j->dp->drivers[mode]->ops->reap(j->dp->drivers[mode], &j->err);

		j->left += left > 0 ? left : 0;
	}
}

/* Of both, and what was desired of networks only once. */
static void add_counters(struct job *j)
{
	const struct driver_counters *l2 = j->dp->drivers[L2]->ops->counters(j->dp->drivers[L2]);
	const struct driver_counters *l3 = j->dp->drivers[L3]->ops->counters(j->dp->drivers[L3]);

	j->counters = *l2;
#define ADD(name) j->counters.name += l3->name
	ADD(syncs), ADD(resyncs), ADD(messages), ADD(repairs), ADD(overruns), ADD(dump_restarts), ADD(reaped), ADD(announced);
	ADD(endpoints), ADD(remotes);
	ADD(last_drift.missing), ADD(last_drift.foreign), ADD(last_drift.different);
#undef ADD
	snprintf(j->warning, sizeof(j->warning), "%s", j->dp->drivers[L3]->ops->warning(j->dp->drivers[L3]));
}

static void read_drops(struct job *j)
{
	struct driver *l2 = j->dp->drivers[L2], *l3 = j->dp->drivers[L3];

	l2->ops->guard_counters(l2, &j->drops.foreign, &j->drops.forged, NULL);
	l3->ops->guard_counters(l3, &j->drops.spoofed, &j->drops.strayed, NULL);
}

static void run_commands(const struct job *j)
{
	for (unsigned mode = 0; mode < MODES; mode++) {
		struct driver *d = j->dp->drivers[mode];

		d->ops->hold_removals(d, j->hold);
		for (struct command *c = j->commands; c; c = c->next)
			if (concerns(c, mode))
				run_command(d, c);
	}
}

static void job_run(void *arg)
{
	struct job *j = arg;

	run_commands(j);
	switch (j->kind) {
	case JOB_SYNC:
		sync_all(j, false);
		break;
	case JOB_RESYNC:
		sync_all(j, true);
		read_drops(j);
		break;
	case JOB_REAP:
		reap_all(j);
		break;
	case JOB_DRAIN:
		for (unsigned mode = 0; mode < MODES; mode++)
			j->more |= j->dp->drivers[mode]->ops->drain(j->dp->drivers[mode]);
		break;
	case JOB_LINKS:
		query_links(j);
		break;
	}
	if (j->endpoint_id[0])
		judge_endpoint(j->dp->drivers[j->mode], j);
	if (j->then && !j->endpoint_failed)
		go_on(j->dp->drivers[j->mode], j);
	add_counters(j);
}

/* ---- on the loop ---- */

static void arm(struct event *event, unsigned ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};

	if (event && !evtimer_pending(event, NULL))
		event_add(event, &tv);
}

/* The kernel holds its lock for milliseconds while it deletes, and an attach would wait for that. So deletion waits until nobody
 * has wanted anything for REAP_MS, within reason. */
static void put_off_reap(struct datapath *dp)
{
	uint64_t now = clock_boot_ms(), left;
	struct timeval tv = {0};

	if (!evtimer_pending(dp->reap, NULL))
		dp->reap_latest_ms = now + REAP_LATEST_MS;
	left = dp->reap_latest_ms > now ? dp->reap_latest_ms - now : 0;
	tv.tv_usec = (suseconds_t)(left < REAP_MS ? left : REAP_MS) * 1000;
	event_add(dp->reap, &tv);
}

static struct job *job_new(struct datapath *dp, enum job_kind kind);
static void submit(struct job *j);
static void on_notify(evutil_socket_t fd, short what, void *arg);

static void request_resync(struct datapath *dp)
{
	if (dp->resync_queued)
		return;
	dp->resync_queued = true;
	submit(job_new(dp, JOB_RESYNC));
}

static void links_done(struct datapath *dp, struct job *j)
{
	dp->links_running = false;
	for (size_t i = 0; i < j->query_done; i++) {
		struct endpoint *ep;
		HASH_FIND_STR(dp->node->endpoints, j->queries[i].id, ep);
		if (ep)
			ep->link = j->queries[i].state;
	}
	endpoints_links_seen(dp->node);
}

static void note_result(struct datapath *dp, const struct job *j)
{
	if (j->result < 0 && strcmp(dp->last_error, j->err.text) != 0)
		log_error("datapath", "%s; trying again in %d ms", j->err.text, RETRY_MS);
	snprintf(dp->last_error, sizeof(dp->last_error), "%s", j->result < 0 ? j->err.text : "");
	if (j->result < 0)
		arm(dp->flush, RETRY_MS);
}

/* What a comparison found was put right by it. Comparing once more soon says so, or that somebody keeps changing it. */
static void settle(struct datapath *dp, const struct driver_drift *drift)
{
	bool found = drift->missing || drift->foreign || drift->different;

	if (found && !dp->settling) {
		struct timeval tv = {.tv_sec = SETTLE_MS / 1000};
		event_add(dp->resync, &tv); /* brings the timer forward */
	}
	dp->settling = found;
}

static void ignore_notices(struct datapath *dp)
{
	for (unsigned mode = 0; mode < MODES; mode++)
		if (dp->notify[mode])
			event_del(dp->notify[mode]);
}

static void watch_notices(struct datapath *dp)
{
	if (dp->syncs_open)
		return;

	for (unsigned mode = 0; mode < MODES; mode++)
		if (dp->notify[mode])
			event_add(dp->notify[mode], NULL);
}

static int watch_driver(struct datapath *dp, unsigned mode)
{
	struct driver *d = dp->drivers[mode];

	dp->notify[mode] = event_new(dp->node->base, d->ops->notify_fd(d), EV_READ, on_notify, dp);
	if (!dp->notify[mode])
		return -1;
	event_add(dp->notify[mode], NULL);
	return 0;
}

static void note_ifname(struct datapath *dp, const struct job *j)
{
	struct endpoint *ep;

	HASH_FIND_STR(dp->node->endpoints, j->endpoint_id, ep);
	if (ep)
		memcpy(ep->host_ifname, j->ifname, sizeof(ep->host_ifname));
}

static void job_done(void *arg)
{
	struct job *j = arg;
	struct datapath *dp = j->dp;

	dp->counters = j->counters;
	memcpy(dp->warning, j->warning, sizeof(dp->warning));
	if (j->kind == JOB_LINKS && j->result == 0 && j->query_done < j->query_count) {
		submit(j);
		return;
	}
	switch (j->kind) {
	case JOB_SYNC:
		if (--dp->syncs_open == 0)
			watch_notices(dp);
		note_result(dp, j);
		break;
	case JOB_RESYNC:
		note_result(dp, j);
		settle(dp, &j->counters.last_drift);
		dp->resync_queued = false;
		dp->last_resync_ms = clock_boot_ms();
		dp->drops = j->drops;
		break;
	case JOB_REAP:
		if (j->left > 0) {
			dp->reap_wanted = true;
			put_off_reap(dp);
		}
		break;
	case JOB_DRAIN:
		watch_notices(dp);
		if (j->more)
			event_active(dp->flush, EV_TIMEOUT, 0); /* sync compares everything by itself after lost notices */
		break;
	case JOB_LINKS:
		links_done(dp, j);
		break;
	}
	if (j->kind == JOB_RESYNC) /* may have found leftovers */
		dp->reap_wanted = true;
	if ((j->kind == JOB_SYNC || j->kind == JOB_RESYNC) && dp->reap_wanted)
		put_off_reap(dp);
	if (j->ifname[0])
		note_ifname(dp, j);
	if (j->fn)
		j->fn(j->arg, j->endpoint_failed ? &j->endpoint_err : j->result < 0 && !j->endpoint_id[0] ? &j->err : NULL);
	commands_free(j->commands);
	free(j->queries);
	free(j);
}

static struct job *job_new(struct datapath *dp, enum job_kind kind)
{
	struct job *j = alloc_new(struct job);

	j->dp = dp;
	j->kind = kind;
	j->hold = dp->hold;
	/* Commands go only with a job that syncs them. */
	if (kind == JOB_SYNC || kind == JOB_RESYNC) {
		j->commands = dp->head;
		dp->head = NULL;
		dp->tail = &dp->head;
		if (dp->flush)
			event_del(dp->flush); /* whatever it was to flush goes with this */
	}
	if (kind == JOB_SYNC && dp->syncs_open++ == 0)
		ignore_notices(dp);
	j->job = (struct worker_job){.run = job_run, .done = job_done, .arg = j};
	return j;
}

/* They are changes: none may be lost. */
static void put_back(struct datapath *dp, struct command *list)
{
	struct command *last = list;

	while (last->next)
		last = last->next;
	last->next = dp->head;
	if (!dp->head)
		dp->tail = &last->next;
	dp->head = list;
}

static void submit(struct job *j)
{
	struct datapath *dp = j->dp;

	if (worker_submit(dp->node->worker, &j->job, &j->err) == 0)
		return;
	if (j->commands)
		put_back(dp, j->commands);
	j->commands = NULL;
	j->result = -1;
	if (j->endpoint_id[0]) {
		j->endpoint_failed = true;
		j->endpoint_err = j->err;
	}
	job_done(j);
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	submit(job_new(arg, JOB_SYNC));
}

static void on_notify(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	submit(job_new(arg, JOB_DRAIN)); /* not persistent: watched again when they are read */
}

/* What was marked by jobs on their way is seen by this one behind them; what is not yet on its way keeps the wish alive. */
static void on_reap(evutil_socket_t fd, short what, void *arg)
{
	struct datapath *dp = arg;

	(void)fd, (void)what;
	dp->reap_wanted = dp->head != NULL;
	submit(job_new(dp, JOB_REAP));
}

static void on_resync(evutil_socket_t fd, short what, void *arg)
{
	struct datapath *dp = arg;

	(void)fd, (void)what;
	request_resync(dp);
	arm(dp->resync, RESYNC_MS);
}

static unsigned mode_of(const struct network *n)
{
	return n && n->def.routed ? L3 : L2;
}

void datapath_look_at_links(struct node *node)
{
	struct datapath *dp = node->datapath;
	struct endpoint *ep, *next;
	struct job *j;

	if (dp->links_running || !node->endpoints)
		return;
	dp->links_running = true;
	j = job_new(dp, JOB_LINKS);
	j->queries = alloc_array(struct link_query, HASH_COUNT(node->endpoints));
	HASH_ITER(hh, node->endpoints, ep, next)
	{
		struct link_query *q = &j->queries[j->query_count++];
		q->mode = mode_of(ep->network);
		q->network = ep->state.network;
		snprintf(q->id, sizeof(q->id), "%s", ep->id);
	}
	submit(j);
}

/* ---- what is desired ---- */

static struct command *add(struct node *node, enum command_kind kind)
{
	struct datapath *dp = node->datapath;
	struct command *c = alloc_new(struct command);

	c->kind = kind;
	*dp->tail = c;
	dp->tail = &c->next;
	if (dp->flush)
		event_active(dp->flush, EV_TIMEOUT, 0);
	return c;
}

void datapath_put_network(struct node *node, const struct network *n)
{
	struct command *c = add(node, PUT_NETWORK);

	c->mode = mode_of(n);
	c->network = (struct driver_network){.id = n->id, .vni = n->def.vni, .mtu = n->def.mtu, .routed = n->def.routed};
	if (!n->def.routed)
		return;
	c->network.internal = n->def.internal;
	c->network.own4 = n->own[0].address;
	c->network.own6 = n->own[1].address;
	c->network.pool_count = n->def.pool_count;
	memcpy(c->network.pools, n->def.pools, n->def.pool_count * sizeof(n->def.pools[0]));
}

_Static_assert(NETWORK_POOLS_MAX == DRIVER_POOLS_MAX, "copied");

void datapath_del_network(struct node *node, const struct id128 *id)
{
	add(node, DEL_NETWORK)->id = *id;
	node->datapath->reap_wanted = true;
}

void datapath_put_endpoint(struct node *node, const struct endpoint *ep)
{
	struct command *c = add(node, PUT_ENDPOINT);

	c->mode = mode_of(ep->network);
	c->endpoint = (struct driver_endpoint){
		.network = ep->state.network, .mac = ep->state.mac, .ip4 = ep->state.address4.ip, .ip6 = ep->state.address6.ip};
	snprintf(c->endpoint.id, sizeof(c->endpoint.id), "%s", ep->id);
	snprintf(c->endpoint.peer_name, sizeof(c->endpoint.peer_name), "%s", ep->state.peer_name);
	c->make = ep->make;
	if (ep->make && ep->netns_fd > 0)
		c->endpoint.peer_netns = ep->netns_fd;
}

void datapath_del_endpoint(struct node *node, const struct id128 *network, const char *id)
{
	struct command *c = add(node, DEL_ENDPOINT);

	c->id = *network;
	snprintf(c->endpoint_id, sizeof(c->endpoint_id), "%s", id);
	node->datapath->reap_wanted = true;
}

void datapath_put_remote(struct node *node, const struct driver_remote *remote)
{
	struct command *c = add(node, PUT_REMOTE);

	c->mode = mode_of(network_by_id(node, &remote->network));
	c->remote = *remote;
}

void datapath_del_remote(struct node *node, const struct id128 *network, const struct mac *mac)
{
	struct command *c = add(node, DEL_REMOTE);

	c->id = *network;
	c->mac = *mac;
}

static void set_vteps(struct command *c, const struct ip *vteps, size_t count)
{
	c->vteps = alloc_array(struct ip, count + 1);
	memcpy(c->vteps, vteps, count * sizeof(*vteps));
	c->count = count;
}

void datapath_set_flood(struct node *node, const struct id128 *network, const struct ip *vteps, size_t count)
{
	struct command *c = add(node, SET_FLOOD);

	c->id = *network;
	set_vteps(c, vteps, count);
}

void datapath_set_members(struct node *node, const struct ip *vteps, size_t count)
{
	set_vteps(add(node, SET_MEMBERS), vteps, count);
}

void datapath_set_exits(struct node *node, const struct driver_exit *exits, size_t count)
{
	struct command *c = add(node, SET_EXITS);

	c->exits = alloc_array(struct driver_exit, count + 1);
	memcpy(c->exits, exits, count * sizeof(*exits));
	c->count = count;
}

static struct job *commit_new(
	struct node *node, const struct id128 *network, const char *id, void (*fn)(void *arg, const struct err *err), void *arg)
{
	struct job *j = job_new(node->datapath, JOB_SYNC);

	j->mode = mode_of(network_by_id(node, network));
	j->network = *network;
	if (id)
		snprintf(j->endpoint_id, sizeof(j->endpoint_id), "%s", id);
	j->fn = fn;
	j->arg = arg;
	return j;
}

void datapath_commit(
	struct node *node, const struct id128 *network, const char *id, void (*fn)(void *arg, const struct err *err), void *arg)
{
	submit(commit_new(node, network, id, fn, arg));
}

void datapath_commit_then(struct node *node, const struct id128 *network, const char *id,
	int (*then)(void *arg, uint32_t peer, struct err *err), void (*fn)(void *arg, const struct err *err), void *arg)
{
	struct job *j = commit_new(node, network, id, fn, arg);

	j->then = then;
	j->then_arg = arg;
	submit(j);
}

void datapath_hold(struct node *node, bool hold)
{
	struct datapath *dp = node->datapath;

	if (dp->hold == hold)
		return;
	dp->hold = hold;
	if (node->networks)
		request_resync(dp);
	else /* rows are in networks: there is none to compare */
		submit(job_new(dp, JOB_SYNC));
}

bool datapath_holds(const struct node *node)
{
	return node->datapath->hold;
}

void datapath_start_over(struct node *node)
{
	add(node, START_OVER)->hostno = node->cluster.hostno;
}

const struct driver_counters *datapath_counters(const struct node *node)
{
	return &node->datapath->counters;
}

uint64_t datapath_last_resync_ms(const struct node *node)
{
	return node->datapath->last_resync_ms;
}

const struct datapath_drops *datapath_drops(const struct node *node)
{
	return &node->datapath->drops;
}

const char *datapath_warning(const struct node *node)
{
	return node->datapath->warning;
}

struct mac datapath_tunnel_mac(const struct node *node)
{
	return vxlan_tunnel_mac(node->cluster.hostno);
}

const char *datapath_last_error(const struct node *node)
{
	return node->datapath->last_error;
}

/* ---- start and end ---- */

int datapath_start(struct node *node, struct err *err)
{
	struct datapath *dp = calloc(1, sizeof(*dp));

	if (!dp)
		return err_set(err, ERR_INTERNAL, "out of memory");
	dp->node = node;
	dp->tail = &dp->head;
	dp->hold = true;
	dp->config = (struct vxlan_config){.fabric_path = node->options.fabric,
		.port = node->options.vxlan_port,
		.local = node->options.vtep,
		.hostno = node->cluster.hostno,
		.table = node->options.nft_table};
	node->datapath = dp;
	if (netns_unlock_sysctls(err) < 0)
		return err_prefix(err, "in a container this daemon needs CAP_SYS_ADMIN and no AppArmor profile");
	for (unsigned mode = 0; mode < MODES; mode++)
		if (open_driver(dp, mode, &dp->drivers[mode], err) < 0)
			return -1;
	return 0;
}

/* The first comparison is made before anybody can call: what an earlier process left is adopted, what it began is finished. */
int datapath_adopt(struct node *node, struct err *err)
{
	struct datapath *dp = node->datapath;
	struct job *j = job_new(dp, JOB_RESYNC);
	int result;

	job_run(j);
	result = j->result;
	dp->counters = j->counters;
	dp->last_resync_ms = clock_boot_ms();
	if (result < 0 && err)
		*err = j->err;
	commands_free(j->commands);
	free(j);
	dp->flush = event_new(node->base, -1, 0, on_flush, dp);
	dp->reap = evtimer_new(node->base, on_reap, dp);
	dp->resync = evtimer_new(node->base, on_resync, dp);
	if (!dp->flush || !dp->reap || !dp->resync || watch_driver(dp, L2) < 0 || watch_driver(dp, L3) < 0)
		return err_set(err, ERR_INTERNAL, "out of memory");
	dp->reap_wanted = true;
	put_off_reap(dp);
	arm(dp->resync, RESYNC_MS);
	return result;
}

/* After the worker has ended. The kernel stays as it is: traffic goes on without us. */
void datapath_stop(struct node *node)
{
	struct datapath *dp = node->datapath;

	if (!dp)
		return;
	for (unsigned mode = 0; mode < MODES; mode++) {
		if (dp->drivers[mode])
			dp->drivers[mode]->ops->close(dp->drivers[mode]);
		if (dp->notify[mode])
			event_free(dp->notify[mode]);
	}
	if (dp->flush)
		event_free(dp->flush);
	if (dp->reap)
		event_free(dp->reap);
	if (dp->resync)
		event_free(dp->resync);
	commands_free(dp->head);
	free(dp);
	node->datapath = NULL;
}

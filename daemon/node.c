/* Construction in order, the slow timer, the end. */
#include <malloc.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/node_internal.h"
#include "base/alloc.h"
#include "netlink/netns.h"

#define HOUSEKEEPING_MS 1000
#define HOUSEKEEPING_LATEST_MS 2000
#define LINKS_EVERY 2 /* of these */
#define TRIM_FIRST 8  /* what starting and joining took goes back to the kernel */
#define TRIM_EVERY 512
#define CLAIMS_PENDING_MS 25
#define JOIN_AGAIN_MS 10000

/* What makes something new waits for a cluster to make it in. */
static bool refused(struct node *node, struct plugin_call *call)
{
	struct err err = {0};

	if (node->gossip && node->ipam && !node->leaving && !node->join && !node->freeze.on)
		return false;
	if (!freeze_refuses(node, &err))
		err_set(&err, ERR_UNREACHABLE, "this host is joining or leaving a cluster; try again in a second");
	plugin_fail(call, &err);
	return true;
}

static void create_network(void *ctx, struct plugin_call *call, const struct plugin_create_network *req)
{
	if (!refused(ctx, call))
		networks_create(ctx, call, req);
}

/* What another host says of it would be read with its end. */
static void delete_network(void *ctx, struct plugin_call *call, const char *network_id)
{
	struct err err = {0};

	if (freeze_refuses(ctx, &err))
		plugin_fail(call, &err);
	else
		networks_delete(ctx, call, network_id);
}

static void create_endpoint(void *ctx, struct plugin_call *call, const struct plugin_create_endpoint *req)
{
	if (!refused(ctx, call))
		endpoints_create(ctx, call, req);
}

static void request_pool(void *ctx, struct plugin_call *call, const struct plugin_request_pool *req)
{
	if (!refused(ctx, call))
		pools_request(ctx, call, req);
}

static void request_address(void *ctx, struct plugin_call *call, const struct plugin_request_address *req)
{
	if (!refused(ctx, call))
		pools_request_address(ctx, call, req);
}

static void release_pool(void *ctx, struct plugin_call *call, const char *pool_id)
{
	if (((struct node *)ctx)->ipam)
		pools_release(ctx, call, pool_id);
	else
		plugin_done(call); /* with the cluster all pools are gone */
}

static void release_address(void *ctx, struct plugin_call *call, const char *pool_id, const struct ip *address)
{
	if (((struct node *)ctx)->ipam)
		pools_release_address(ctx, call, pool_id, address);
	else
		plugin_done(call);
}

static const struct plugin_backend plugin_backend = {
	.create_network = create_network,
	.delete_network = delete_network,
	.create_endpoint = create_endpoint,
	.delete_endpoint = endpoints_delete,
	.join = endpoints_join,
	.leave = endpoints_leave,
	.program = endpoints_program,
	.request_pool = request_pool,
	.release_pool = release_pool,
	.request_address = request_address,
	.release_address = release_address,
};

void housekeeping_soon(struct node *node)
{
	struct timeval tv = {.tv_usec = CLAIMS_PENDING_MS * 1000};

	if (node->housekeeping)
		event_add(node->housekeeping, &tv);
}

/* Only the daemon is down: what it set up still works. */
static bool runs_without_daemon(const struct node *node, const struct host *host)
{
	struct gossip_member m;

	return node->gossip && gossip_member_get(node->gossip, host->hostno, &m) && m.reach == GOSSIP_REACH_HOST;
}

/* Rows of a host that has been dead for long leave the kernel; its records stay, and the rows return with it. Not while so many
 * die that the network must be cut: they lead nowhere, and will be wanted again. */
static void hide_dead_hosts(struct node *node, uint64_t now)
{
	struct host *host, *next;

	if (!node->gossip || node->freeze.on || gossip_member_count(node->gossip, GOSSIP_DEAD) == 0 ||
		gossip_cut_suspected(node->gossip, now))
		return;
	HASH_ITER(hh, node->hosts, host, next)
	if (!host->hidden && host->state == GOSSIP_DEAD && now - host->since_ms > ROWS_GRACE_MS &&
		!runs_without_daemon(node, host)) {
		host->hidden = true;
		segments_host_changed(node, host);
	}
}

static void release_hold(struct node *node, uint64_t now)
{
	if (node->gossip && !node->freeze.on && datapath_holds(node) &&
		(gossip_in_step(node->gossip) || now - node->start_ms > HOLD_MAX_MS))
		datapath_hold(node, false);
}

static void join_ended(void *arg, const struct err *err)
{
	(void)arg;
	if (err)
		log_warn("node", "--join: %s; trying again", err->text);
}

static void join_by_option(struct node *node, uint64_t now)
{
	struct err err = {0};

	if (!node->options.join[0] || node->freeze.on || !cluster_alone(node) || node->join || node->leaving || !node->gossip ||
		now < node->next_join_ms)
		return;
	node->next_join_ms = now + JOIN_AGAIN_MS;
	if (cluster_join(node, node->options.join, join_ended, NULL, &err) < 0) {
		if (err.code != ERR_EXISTS)
			log_warn("node", "--join: %s", err.text);
		node->options.join[0] = 0; /* a member already, or never possible */
	}
}

static void on_housekeeping(evutil_socket_t fd, short what, void *arg)
{
	struct node *node = arg;
	uint64_t now = clock_boot_ms();
	struct timeval tv = {.tv_sec = HOUSEKEEPING_LATEST_MS / 1000};

	(void)fd, (void)what;
	claims_tick(node, now);
	if (now - node->last_housekeeping_ms >= HOUSEKEEPING_MS) {
		node->last_housekeeping_ms = now;
		hide_dead_hosts(node, now);
		release_hold(node, now);
		if (!node->freeze.on)
			pools_tick(node);
		host_addresses_tick(node);
		host_ends_tick(node);
		pools_collect_leases(node, now);
		tombstones_tick(node, now);
		join_by_option(node, now);
		custody_poke(node);
		neighbours_tick(node);
		if (++node->housekeepings % LINKS_EVERY == 0)
			datapath_look_at_links(node);
		if (node->housekeepings % TRIM_EVERY == TRIM_FIRST)
			malloc_trim(0);
	}
	if (node->pending_claims || node->met_waiters)
		housekeeping_soon(node);
	else
		event_add(node->housekeeping, &tv);
}

struct behind_saves {
	struct node *node;
	struct id128 id;
	void (*fn)(struct node *node, const struct id128 *id);
};

static void saves_done(void *arg)
{
	struct behind_saves *b = arg;

	b->fn(b->node, &b->id);
	free(b);
}

void call_behind_saves(struct node *node, const struct id128 *id, void (*fn)(struct node *node, const struct id128 *id))
{
	struct behind_saves *b = alloc_new(struct behind_saves);

	*b = (struct behind_saves){node, *id, fn};
	outbox_call(node->outbox, saves_done, b);
}

/* It goes along with whatever else there is to do, instead of waking the daemon for itself. */
void housekeeping_turn(struct node *node, uint64_t now)
{
	if (now - node->last_housekeeping_ms >= HOUSEKEEPING_MS)
		event_active(node->housekeeping, EV_TIMEOUT, 0);
}

static int load_state(struct node *node, struct err *err)
{
	if (store_open(node->options.state_dir, node->options.run_dir, node->options.boot_id, &node->store, &node->new_boot,
		    err) < 0)
		return -1;
	if (worker_start(node->base, &node->worker, err) < 0)
		return -1;
	node->outbox = outbox_new(node->base, node->store, node->worker);
	if (freeze_start(node, err) < 0 || cluster_start(node, err) < 0 || standing_start(node, err) < 0 ||
		custody_start(node, err) < 0 || networks_start(node, err) < 0 || pools_start(node, err) < 0)
		return -1;
	return 0;
}

static int adopt_kernel(struct node *node, struct err *err)
{
	struct err adopt = {0};

	if (datapath_start(node, err) < 0 || workloads_start(node, err) < 0 || endpoints_start(node, err) < 0)
		return -1;
	if (datapath_adopt(node, &adopt) < 0)
		log_error("node", "%s; going on, it is tried again", adopt.text);
	return 0;
}

static int open_doors(struct node *node, struct err *err)
{
	if (plugin_open(node->base, node->options.plugin_socket, &plugin_backend, node, &node->plugin, err) < 0)
		return -1;
	return control_open(node->base, node->options.control_socket, &api_backend, node, &node->control, err);
}

int node_start(struct node *node, const struct options *options, struct event_base *base, struct err *err)
{
	memset(node, 0, sizeof(*node));
	node->options = *options;
	node->base = base;
	node->udp_fd = node->host_netns_fd = -1;
	node->start_ms = clock_boot_ms();
	if (sodium_init() < 0)
		return err_set(err, ERR_INTERNAL, "libsodium does not start");
	if (netns_open_own(&node->host_netns_fd, err) < 0)
		return -1;
	node->housekeeping = evtimer_new(base, on_housekeeping, node);
	if (!node->housekeeping)
		return err_set(err, ERR_INTERNAL, "out of memory");
	if (load_state(node, err) < 0 || adopt_kernel(node, err) < 0 || cluster_run_gossip(node, err) < 0)
		return -1;
	custody_begin(node);
	networks_publish(node);
	pools_publish(node);
	endpoints_publish(node);
	host_addresses_sweep(node);
	workloads_begin(node);
	host_ends_begin(node);
	pools_free_orphans(node);
	networks_collect(node);
	housekeeping_soon(node);
	join_by_option(node, node->start_ms);
	return open_doors(node, err);
}

void node_stop(struct node *node)
{
	plugin_close(node->plugin);
	control_close(node->control);
	if (node->gossip && node->ipam) { /* answers to nobody, but they free what waits */
		claims_drain(node);
		custody_drain(node);
	}
	worker_stop(node->worker);
	outbox_free(node->outbox);
	datapath_stop(node);
	estate_stop(node);
	claims_free(node);
	custody_stop(node);
	segments_free(node);
	freeze_stop(node);
	workloads_stop(node);
	endpoints_stop(node);
	cluster_stop(node);
	host_ends_stop(node);
	networks_stop(node);
	pools_stop(node);
	store_close(node->store);
	if (node->host_netns_fd >= 0)
		close(node->host_netns_fd);
	if (node->housekeeping)
		event_free(node->housekeeping);
}

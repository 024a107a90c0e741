/* Networks on kernel VXLAN. Theory of operation. First mode l2:
 *
 *   container's namespace      the fabric namespace                          the host's namespace
 *   eth0 ------------- veth -- tv<hash> --+
 *                                         tb<hash> (bridge) -- tx<hash> (vxlan) . . . . UDP socket, routes, underlay
 *   eth0 ------------- veth -- tv<hash> --+
 *
 * The vxlan device is created by a request from the host's namespace straight into the fabric: its socket stays where the request
 * came from, so frames travel by the host's routes while host firewalls and network managers never see the devices.
 *
 * Nothing is learnt and nothing is flooded for known endpoints. For each endpoint of another host there is a row MAC -> host on
 * the vxlan device, a row MAC -> vxlan port on the bridge and a neighbour IP -> MAC on the bridge, all three of which the kernel
 * needs to answer ARP and ND itself (neigh_suppress); for each endpoint here a row MAC -> its port, and the neighbour.
 * Containers' ports are locked: a frame whose source MAC has no row on the port is dropped. Broadcast is replicated to the hosts
 * of the network. Containers here are told when an address gets another MAC (announce.c), since what they learnt would last.
 *
 * Mode l3 has no bridge and no fabric: pairs and vxlan device are in the host's own namespace, which routes. There is a route and
 * a neighbour for each endpoint, of this host's through its pair and of the others' through the vxlan device; rows MAC -> host
 * are those of the hosts' vxlan devices. What it needs of the host beside is in routed.c and nat.h.
 *
 * State flows one way. desired.c holds what is wanted, have.c what the kernel has, both by object, rows.c both for rows; plan.c
 * compares, apply.c sends. Any difference, whether by a change of what is wanted, a notice of what someone did, or a full
 * comparison, marks the object dirty; sync looks at the dirty ones alone. So attaching one endpoint costs the same among a
 * thousand. That somebody makes an ordinary neighbour of one of ours is seen by the full comparison only (netlink/socket.h).
 *
 * Ours is what carries the tag "trestle:<network>:<endpoint>" in ifalias. What carries it and is wanted by nobody is taken down
 * and deleted; what does not carry it is never touched. A link is born in a group of its own, because the tag can only follow the
 * create message: one found in that group without a tag was left by a crash between the two. */
#include "driver/vxlan/vxlan.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "driver/vxlan/nft.h"
#include "driver/vxlan/vxlan_internal.h"
#include "netlink/build.h"
#include "netlink/link.h"
#include "netlink/netns.h"

#define TABLE_DEFAULT "trestle"
#define LOOPBACK_INDEX 1

static struct vxlan *vx_of(struct driver *d)
{
	return (struct vxlan *)d;
}

static const struct vxlan *vx_of_const(const struct driver *d)
{
	return (const struct vxlan *)d;
}

static void op_close(struct driver *d)
{
	struct vxlan *vx = vx_of(d);

	if (!vx)
		return;
	if (vx->reaper.running)
		pthread_join(vx->reaper.thread, NULL);
	nl_close(vx->reaper.socket);
	vx_have_free(vx);
	vx_desired_free(vx);
	vx_announce_close(vx);
	guard_close(vx->guard);
	nat_close(vx->nat);
	nl_close(vx->host);
	nl_close(vx->fabric);
	nl_close(vx->notices);
	nl_batch_free(vx->batch);
	free(vx->plan);
	if (vx->host_fd >= 0)
		close(vx->host_fd);
	if (vx->fabric_fd >= 0)
		close(vx->fabric_fd);
	if (vx->watch_fd >= 0)
		close(vx->watch_fd);
	free(vx->fabric_path);
	free(vx);
}

static void op_put_network(struct driver *d, const struct driver_network *network)
{
	vx_put_network(vx_of(d), network);
}

static void op_del_network(struct driver *d, const struct id128 *network)
{
	vx_del_network(vx_of(d), network);
}

static void op_put_endpoint(struct driver *d, const struct driver_endpoint *endpoint, bool make)
{
	vx_put_endpoint(vx_of(d), endpoint, make);
}

static void op_del_endpoint(struct driver *d, const struct id128 *network, const char *id)
{
	vx_del_endpoint(vx_of(d), network, id);
}

static void op_put_remote(struct driver *d, const struct driver_remote *remote)
{
	vx_put_remote(vx_of(d), remote);
}

static void op_del_remote(struct driver *d, const struct id128 *network, const struct mac *mac)
{
	vx_del_remote(vx_of(d), network, mac);
}

static void op_set_flood(struct driver *d, const struct id128 *network, const struct ip *vteps, size_t count)
{
	vx_set_flood(vx_of(d), network, vteps, count);
}

static void op_set_members(struct driver *d, const struct ip *vteps, size_t count)
{
	vx_set_members(vx_of(d), vteps, count);
}

static void op_start_over(struct driver *d, uint32_t hostno)
{
	vx_start_over(vx_of(d), hostno);
}

static void op_set_exits(struct driver *d, const struct driver_exit *exits, size_t count)
{
	vx_set_exits(vx_of(d), exits, count);
}

static void op_hold_removals(struct driver *d, bool hold)
{
	struct vxlan *vx = vx_of(d);
	struct vx_network *n, *next_network;
	struct vx_entry *e, *next;

	if (vx->hold && !hold)
		HASH_ITER(hh, vx->networks, n, next_network)
	HASH_ITER(hh, n->rows, e, next)
	if (!e->claims)
		vx_dirty_row(vx, e);
	vx->hold = hold;
}

static int op_sync(struct driver *d, struct err *err)
{
	return vx_sync(vx_of(d), err);
}

static int op_resync(struct driver *d, struct err *err)
{
	return vx_resync(vx_of(d), err);
}

static int op_reap(struct driver *d, struct err *err)
{
	return vx_reap(vx_of(d), err);
}

static int op_notify_fd(const struct driver *d)
{
	return vx_of_const(d)->watch_fd;
}

static bool op_drain(struct driver *d)
{
	struct vxlan *vx = vx_of(d);
	struct err err;

	if (!vx->routed)
		vx_announce_run(vx);
	if (nft_drain(vx->table))
		vx->guard_dirty = true;
	if (vx_have_drain(vx, &err) < 0)
		vx->overrun = true;
	return vx->overrun || vx_differs(vx) || (vx->guard_dirty && (vx->routed || vx->members_known));
}

static struct vx_endpoint *find_endpoint(struct vxlan *vx, const struct id128 *network, const char *id)
{
	struct vx_network *n = vx_network_find(vx, network);

	return n ? vx_endpoint_find(n, id) : NULL;
}

static int read_peer(void *arg, const struct nlmsghdr *h, struct err *err)
{
	struct nl_link link;

	if (nl_link_parse(h, &link, err) < 0)
		return -1;
	*(int32_t *)arg = link.peer_nsid;
	return 0;
}

static bool op_endpoint_there(struct driver *d, const struct id128 *network, const char *id)
{
	struct vx_endpoint *e = find_endpoint(vx_of(d), network, id);

	return e && e->link;
}

static uint32_t op_endpoint_peer(struct driver *d, const struct id128 *network, const char *id)
{
	struct vx_endpoint *e = find_endpoint(vx_of(d), network, id);

	return e && e->link ? e->link->peer_index : 0;
}

/* Asked, since a peer that moves while it is down makes no notice at our end. One that is up cannot move without going down
 * first, and that is told: a container's end seen elsewhere is there as long as the carrier stays. */
static enum driver_link_state op_endpoint_state(struct driver *d, const struct id128 *network, const char *id)
{
	struct vxlan *vx = vx_of(d);
	struct vx_endpoint *e = find_endpoint(vx, network, id);
	int32_t nsid = -1;
	struct err err = {0};
	struct nlb b;

	if (e && e->link)
		vx_have_drain(vx, &err);
	if (!e || !e->link)
		return DRIVER_LINK_ABSENT;
	if (e->link->away && e->link->running)
		return DRIVER_LINK_AWAY;
	nl_link_get_request(&b, e->link->link.index);
	if (nl_query(vx->fabric, &b, read_peer, &nsid, &err) < 0 && err.sys_errno == ENODEV)
		return DRIVER_LINK_ABSENT;
	e->link->away = nsid != vx->host_nsid;
	return e->link->away ? DRIVER_LINK_AWAY : DRIVER_LINK_IN_HOST;
}

static bool op_endpoint_error(struct driver *d, const struct id128 *network, const char *id, struct err *ret_err)
{
	struct vx_endpoint *e = find_endpoint(vx_of(d), network, id);
	const struct err *error = !e ? NULL : e->error ? e->error : e->network->error;

	if (!error)
		return false;
	*ret_err = *error;
	return true;
}

static bool op_endpoint_ifname(struct driver *d, const struct id128 *network, const char *id, char ret_name[DRIVER_IFNAME_SIZE])
{
	struct vxlan *vx = vx_of(d);
	struct vx_endpoint *e = find_endpoint(vx, network, id);

	if (!vx->routed || !e || !e->link)
		return false;
	memcpy(ret_name, e->link->link.name, DRIVER_IFNAME_SIZE);
	return true;
}

static const struct driver_counters *op_counters(const struct driver *d)
{
	return &vx_of_const(d)->counters;
}

static const char *op_warning(const struct driver *d)
{
	return vx_of_const(d)->warning;
}

static int op_guard_counters(struct driver *d, uint64_t *ret_foreign, uint64_t *ret_forged, struct err *err)
{
	struct vxlan *vx = vx_of(d);

	if (vx->routed)
		return nat_counters(vx->nat, ret_foreign, ret_forged, err);
	return guard_counters(vx->guard, ret_foreign, ret_forged, err);
}

static int op_purge(struct driver *d, struct err *err)
{
	return vx_purge(vx_of(d), err);
}

static const struct driver_ops vxlan_ops = {
	.name = "vxlan",
	.close = op_close,
	.put_network = op_put_network,
	.del_network = op_del_network,
	.put_endpoint = op_put_endpoint,
	.del_endpoint = op_del_endpoint,
	.put_remote = op_put_remote,
	.del_remote = op_del_remote,
	.set_flood = op_set_flood,
	.set_members = op_set_members,
	.start_over = op_start_over,
	.set_exits = op_set_exits,
	.hold_removals = op_hold_removals,
	.sync = op_sync,
	.resync = op_resync,
	.reap = op_reap,
	.notify_fd = op_notify_fd,
	.drain = op_drain,
	.endpoint_there = op_endpoint_there,
	.endpoint_peer = op_endpoint_peer,
	.endpoint_ifname = op_endpoint_ifname,
	.endpoint_state = op_endpoint_state,
	.endpoint_error = op_endpoint_error,
	.counters = op_counters,
	.warning = op_warning,
	.guard_counters = op_guard_counters,
	.purge = op_purge,
};

static int open_fabric_sockets(struct vxlan *vx, struct err *err)
{
	static const unsigned groups[] = {RTNLGRP_LINK, RTNLGRP_NEIGH};
	struct nlb b;

	if (nl_open(-1, NULL, 0, &vx->host, err) < 0 || nl_open(vx->fabric_fd, NULL, 0, &vx->fabric, err) < 0 ||
		nl_open(vx->fabric_fd, groups, sizeof(groups) / sizeof(groups[0]), &vx->notices, err) < 0)
		return -1;
	nl_link_set_up_request(&b, LOOPBACK_INDEX, true);
	if (nl_transact(vx->fabric, &b, err) < 0)
		return err_prefix(err, "fabric namespace: bring up lo");
	return netns_id(vx->fabric, vx->host_fd, &vx->host_nsid, err);
}

static int watch(struct vxlan *vx, struct err *err)
{
	int fds[] = {nl_fd(vx->notices), nft_fd(vx->table), vx->announce_timer};

	vx->watch_fd = epoll_create1(EPOLL_CLOEXEC);
	for (unsigned i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0 && (vx->watch_fd < 0 || epoll_ctl(vx->watch_fd, EPOLL_CTL_ADD, fds[i],
								&(struct epoll_event){.events = EPOLLIN}) < 0))
			return err_sys(err, errno, "vxlan driver: watch for notices");
	return 0;
}

/* Mode l2: devices in the fabric, whose names and addresses nobody on the host meets. */
static int open_fabric(struct vxlan *vx, const char *table, struct err *err)
{
	if (vx_fabric_open(vx->fabric_path, &vx->fabric_fd, err) < 0 || vx_fabric_prepare(vx->fabric_fd, err) < 0 ||
		open_fabric_sockets(vx, err) < 0 || vx_announce_open(vx, err) < 0 ||
		guard_open(table, vx->port, &vx->guard, err) < 0)
		return -1;
	vx->table = guard_nft(vx->guard);
	return 0;
}

/* Mode l3: all of it where the host routes. */
static int open_routed(struct vxlan *vx, const char *table, struct err *err)
{
	static const unsigned groups[] = {
		RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR};
	char name[64];

	snprintf(name, sizeof(name), "%s-l3", table);
	vx->host_nsid = -1; /* how a link tells of a peer in its own namespace */
	if (nl_open(-1, NULL, 0, &vx->fabric, err) < 0 ||
		nl_open(-1, groups, sizeof(groups) / sizeof(groups[0]), &vx->notices, err) < 0 ||
		nat_open(name, &vx->nat, err) < 0)
		return -1;
	vx->table = nat_nft(vx->nat);
	vx->guard_dirty = true; /* an earlier life's table, without a network now, is to go */
	return 0;
}

static int open_all(struct vxlan *vx, const struct vxlan_config *config, struct err *err)
{
	const char *table = config->table ? config->table : TABLE_DEFAULT;

	if (!ip_is_set(&config->local))
		return err_set(err, ERR_INVALID, "vxlan driver: no underlay address; say which one with the option for it");
	vx->fabric_path = strdup(config->fabric_path);
	vx->batch = nl_batch_new();
	vx->plan = calloc(1, sizeof(*vx->plan));
	if (!vx->fabric_path || !vx->batch || !vx->plan)
		return err_sys(err, ENOMEM, "vxlan driver");
	if (netns_open_own(&vx->host_fd, err) < 0 ||
		(vx->routed ? open_routed(vx, table, err) : open_fabric(vx, table, err)) < 0 || watch(vx, err) < 0)
		return -1;
	if (vx_have_dump(vx, err) < 0)
		return -1;
	vx->nothing_yet = !vx->networks;
	return 0;
}

int vxlan_open(const struct vxlan_config *config, struct driver **ret_driver, struct err *err)
{
	struct vxlan *vx = calloc(1, sizeof(*vx));

	if (!vx)
		return err_sys(err, ENOMEM, "vxlan driver");
	vx->driver.ops = &vxlan_ops;
	vx->local = config->local;
	vx->port = config->port ? config->port : VXLAN_PORT;
	vx->hostno = config->hostno;
	vx->routed = config->routed;
	vx->guard_pending = true;
	vx->host_fd = vx->fabric_fd = vx->announce_fd = vx->announce_timer = vx->watch_fd = -1;
	vx->generation = 1;
	if (open_all(vx, config, err) < 0) {
		op_close(&vx->driver);
		return -1;
	}
	*ret_driver = &vx->driver;
	return 0;
}

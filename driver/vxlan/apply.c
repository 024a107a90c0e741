/* The plan into netlink messages: one sendmsg for a run of operations of one namespace, results to the objects they are for.
 *
 * The kernel carries on after a refused message, so each operation has a result of its own. Notices are read after each sendmsg:
 * the buffer never holds more than those of one batch, and what the kernel has is known when the next plan is made. */
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "driver/vxlan/vxlan_internal.h"
#include "netlink/addr.h"
#include "netlink/build.h"
#include "netlink/link.h"
#include "netlink/neigh.h"
#include "netlink/route.h"

_Static_assert((int)VX_PORT_LEARNING == (int)NL_PORT_LEARNING && (int)VX_PORT_FLOOD == (int)NL_PORT_FLOOD &&
		       (int)VX_PORT_MCAST_FLOOD == (int)NL_PORT_MCAST_FLOOD &&
		       (int)VX_PORT_BCAST_FLOOD == (int)NL_PORT_BCAST_FLOOD &&
		       (int)VX_PORT_NEIGH_SUPPRESS == (int)NL_PORT_NEIGH_SUPPRESS && (int)VX_PORT_LOCKED == (int)NL_PORT_LOCKED,
	"port flags are passed through");

static void build_new(struct vxlan *vx, const struct vx_op *op, struct nlb *b)
{
	struct nl_link_new link = {.index = op->index,
		.name = op->name,
		.mac = op->mac,
		.mtu = op->mtu,
		.group = op->group,
		.master = op->master,
		.netns_fd = -1};
	struct nl_vxlan vxlan = {.vni = op->tunnel.vni, .local = op->tunnel.local, .port = op->tunnel.port};
	struct nl_link_new peer = {.mtu = op->mtu, .netns_fd = vx->host_fd};

	switch (op->kind) {
	case VX_OP_BRIDGE_NEW:
		nl_bridge_new_request(b, &link);
		break;
	case VX_OP_VXLAN_NEW:
		if (!vx->routed)
			link.netns_fd = vx->fabric_fd;
		nl_vxlan_new_request(b, &link, &vxlan);
		break;
	default:
		peer.name = op->peer.name;
		if (op->peer.netns)
			peer.netns_fd = op->peer.netns;
		peer.mac = op->peer.mac;
		nl_veth_new_request(b, &link, &peer);
		break;
	}
}

static void build_set(const struct vx_op *op, struct nlb *b)
{
	char alias[VX_ALIAS_SIZE];

	if (op->set & VX_SET_PORT)
		nl_link_set_port_up_request(b, op->index, op->port_mask, op->port_flags);
	else if (op->set & (VX_SET_UP | VX_SET_DOWN))
		nl_link_set_up_request(b, op->index, op->set & VX_SET_UP);
	else
		nl_link_set_request(b, op->index);
	if (op->set & VX_SET_TAG)
		nl_link_put_alias(b, vx_tag_format(&op->network, op->endpoint, alias));
	if (op->set & VX_SET_GROUP)
		nl_link_put_group(b, op->group);
	if (op->set & VX_SET_MASTER)
		nl_link_put_master(b, op->master);
	if (op->set & VX_SET_MTU)
		nl_link_put_mtu(b, op->mtu);
	if (op->set & VX_SET_MAC)
		nl_link_put_mac(b, &op->mac);
}

static void build_route(const struct vx_row *row, bool put, struct nlb *b)
{
	bool none = row->port == VX_PORT_NONE;
	struct nl_route route = {.to = {.ip = row->ip, .length = row->length},
		.source = row->source,
		.oif = none ? 0 : row->port,
		.metric = none ? VX_METRIC_LAST : VX_METRIC,
		.protocol = NL_PROTOCOL_OWN,
		.type = none ? RTN_UNREACHABLE : RTN_UNICAST};

	if (put)
		nl_route_put_request(b, &route);
	else
		nl_route_del_request(b, &route);
}

static void build_address(uint32_t index, const struct ip *ip, bool put, struct nlb *b)
{
	struct prefix address = {.ip = *ip, .length = (uint8_t)ip_bits(ip)};

	if (put)
		nl_addr_put_request(b, index, &address);
	else
		nl_addr_del_request(b, index, &address);
}

static void build_row(const struct vx_op *op, struct nlb *b)
{
	const struct vx_row *row = &op->row;
	bool put = op->kind == VX_OP_ROW_PUT;

	switch (row->kind) {
	case VX_ROW_FLOOD:
	case VX_ROW_REMOTE:
		if (put)
			nl_fdb_put_request(b, op->index, &row->mac, &row->ip);
		else
			nl_fdb_del_request(b, op->index, &row->mac, &row->ip);
		break;
	case VX_ROW_PORT:
		if (put)
			nl_bridge_row_put_request(b, row->port, &row->mac);
		else
			nl_bridge_row_del_request(b, row->port, &row->mac);
		break;
	case VX_ROW_NEIGH:
		if (put)
			nl_neigh_put_request(b, op->index, &row->ip, &row->mac);
		else
			nl_neigh_del_request(b, op->index, &row->ip);
		break;
	case VX_ROW_ROUTE:
		build_route(row, put, b);
		break;
	case VX_ROW_ADDR:
		build_address(op->index, &row->ip, put, b);
		break;
	}
}

static void build(struct vxlan *vx, const struct vx_op *op, struct nlb *b)
{
	switch (op->kind) {
	case VX_OP_BRIDGE_NEW:
	case VX_OP_VXLAN_NEW:
	case VX_OP_VETH_NEW:
		build_new(vx, op, b);
		break;
	case VX_OP_LINK_SET:
		build_set(op, b);
		break;
	case VX_OP_BRIDGE_SET:
		nl_bridge_set_request(b, op->index);
		break;
	case VX_OP_VXLAN_SET:
		nl_vxlan_set_request(b, op->index, &op->tunnel.local);
		break;
	case VX_OP_PORT_SET:
		nl_port_set_request(b, op->index, op->port_mask, op->port_flags);
		break;
	case VX_OP_LINK_DEL:
		nl_link_del_request(b, op->index);
		break;
	case VX_OP_ROW_PUT:
	case VX_OP_ROW_DEL:
		build_row(op, b);
		break;
	case VX_OP_CONF: /* no message: see conf() */
	case VX_OP_MAX:
		break;
	}
}

void vx_fail(struct vxlan *vx, const struct err *err)
{
	if (vx->failures++ == 0)
		vx->failure = *err;
}

/* The first error of an object is its cause; what follows in the same batch (no such device) is its consequence. */
static void keep_error(struct err **at, bool *failed, const struct err *err)
{
	if (*failed)
		return;
	*failed = true;
	if (!*at)
		*at = malloc(sizeof(**at));
	if (*at)
		**at = *err;
}

static void prefix_network(const struct vx_network *n, struct err *err)
{
	char id[ID_SHORT_SIZE];

	err_prefix(err, "network %s", id_short(&n->id, id));
}

static bool is_new(const struct vx_op *op)
{
	return op->kind == VX_OP_BRIDGE_NEW || op->kind == VX_OP_VXLAN_NEW || op->kind == VX_OP_VETH_NEW;
}

/* A pair that waits for its deletion may still hold the name in the container: another attachment's, which we do not know by that
 * name any more. All that wait are deleted then, and it is tried again; what is in the way after that is somebody else's. */
static bool dying_may_be_in_the_way(struct vxlan *vx, const struct vx_op *op, int error)
{
	if (op->kind != VX_OP_VETH_NEW || error != EEXIST || !vx->dying)
		return false;
	vx->reap_now = true;
	vx_endpoint_claim(vx, op->owner, 0);
	vx_dirty_endpoint(vx, op->owner);
	return true;
}

static void op_failed(struct vxlan *vx, const struct vx_op *op, int error, const char *extack)
{
	const char *hint = vx_op_hint(op, error);
	struct vx_network *network = NULL;
	struct vx_endpoint *endpoint;
	struct err err = {0};
	char text[320];

	if (hint)
		err_sys(&err, error, "%s%s%s", hint, extack[0] ? "; the kernel: " : "", extack);
	else
		err_sys(&err, error, "%s", extack[0] ? extack : "the kernel refuses");
	err_prefix(&err, "%s", vx_op_describe(op, text, sizeof(text)));
	switch (op->owner_kind) {
	case VX_OWNER_ENDPOINT:
		endpoint = op->owner;
		network = endpoint->network;
		if (op->kind == VX_OP_VETH_NEW) {
			vx_endpoint_claim(vx, endpoint, 0);
			endpoint->salt++; /* if its name was taken by a link unknown to us, the next one is another */
		}
		err_prefix(&err, "endpoint %.12s", endpoint->id);
		prefix_network(network, &err);
		keep_error(&endpoint->error, &endpoint->failed, &err);
		vx_dirty_endpoint(vx, endpoint);
		break;
	case VX_OWNER_NETWORK:
		network = op->owner;
		network->salt += is_new(op);
		prefix_network(network, &err);
		keep_error(&network->error, &network->failed, &err);
		vx_dirty_network(vx, network);
		break;
	case VX_OWNER_ROW:
		network = ((struct vx_entry *)op->owner)->network;
		prefix_network(network, &err);
		vx_dirty_row(vx, op->owner);
		break;
	}
	vx_fail(vx, &err);
}

/* Looked at again: by then it is known that the pair is gone, and nobody wants this any more. */
static void op_moot(struct vxlan *vx, const struct vx_op *op)
{
	if (op->owner_kind == VX_OWNER_ROW)
		vx_dirty_row(vx, op->owner);
	else
		vx_dirty_endpoint(vx, op->owner);
}

static void row_done(struct vxlan *vx, const struct vx_op *op)
{
	struct vx_entry *e = op->owner;

	e->has = op->kind == VX_OP_ROW_PUT;
	if (e->has) {
		e->have = e->want;
		if (!vx->routed)
			vx_announce_put(vx, e);
	} else {
		vx_dirty_row(vx, e); /* to be freed when nobody wants it */
	}
	e->pending = false;
}

static void on_result(void *arg, uint32_t cookie, int error, const char *extack)
{
	struct vxlan *vx = arg;
	struct vx_op *op = &vx->plan->ops[cookie];

	vx->counters.messages++;
	op->done = vx_op_is_done(op, error);
	if (vx_op_is_moot(op, error))
		op_moot(vx, op);
	else if (op->done && op->owner_kind == VX_OWNER_ROW)
		row_done(vx, op);
	else if (!op->done && !dying_may_be_in_the_way(vx, op, error))
		op_failed(vx, op, error, extack);
}

static struct nl_socket *socket_of(struct vxlan *vx, const struct vx_op *op)
{
	return op->kind == VX_OP_VXLAN_NEW && !vx->routed ? vx->host : vx->fabric;
}

/* Sends what the batch holds of the plan: the operations from *first to before `end`. */
static void send_batch(struct vxlan *vx, struct nl_socket *s, size_t *first, size_t end)
{
	struct err err;

	/* Each message has reported the failure of the exchange by itself. */
	nl_batch_send(s, vx->batch, on_result, vx, &err);
	if (vx_have_drain(vx, &err) < 0)
		vx_fail(vx, &err);
	for (; *first < end; (*first)++) {
		const struct vx_op *op = &vx->plan->ops[*first];

		if (op->done && op->kind == VX_OP_LINK_SET && op->set & (VX_SET_GROUP | VX_SET_TAG))
			vx_link_was_set(vx, op);
	}
}

/* Files, not a message. */
static void conf(struct vxlan *vx, size_t i)
{
	const struct vx_op *op = &vx->plan->ops[i];
	struct err err = {0};
	bool wrote = false, failed = vx_routed_conf(op->name, op->pair, op->has_ip6, &wrote, &err) < 0;

	on_result(vx, (uint32_t)i, failed ? err.sys_errno : 0, failed ? err.text : "");
}

void vx_apply(struct vxlan *vx)
{
	struct nl_socket *at = NULL;
	size_t first = 0;

	for (size_t i = 0; i < vx->plan->count; i++) {
		const struct vx_op *op = &vx->plan->ops[i];
		struct nl_socket *s = socket_of(vx, op);
		struct nlb b;

		if (op->kind == VX_OP_CONF) {
			if (at)
				send_batch(vx, at, &first, i);
			conf(vx, i);
			continue;
		}
		if (at && (at != s || nl_batch_count(vx->batch) == NL_BATCH_MAX))
			send_batch(vx, at, &first, i);
		at = s;
		build(vx, op, &b);
		if (nl_batch_add(vx->batch, &b, (uint32_t)i))
			continue;
		send_batch(vx, s, &first, i); /* full of bytes */
		if (!nl_batch_add(vx->batch, &b, (uint32_t)i))
			op_failed(vx, op, EMSGSIZE, "message longer than its buffer");
	}
	if (at)
		send_batch(vx, at, &first, vx->plan->count);
	vx->plan->count = 0;
}

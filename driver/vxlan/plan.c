/* The planner. See plan.h. The order of operations within an object is the order in which the kernel takes them. */
#include "driver/vxlan/plan.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define TAG_PREFIX "trestle:"

#define TUNNEL_PORT_MASK (VX_PORT_LEARNING | VX_PORT_FLOOD | VX_PORT_MCAST_FLOOD | VX_PORT_BCAST_FLOOD | VX_PORT_NEIGH_SUPPRESS)
#define TUNNEL_PORT_FLAGS (VX_PORT_MCAST_FLOOD | VX_PORT_BCAST_FLOOD | VX_PORT_NEIGH_SUPPRESS)
#define ENDPOINT_PORT_MASK (VX_PORT_LEARNING | VX_PORT_FLOOD | VX_PORT_LOCKED)
#define ENDPOINT_PORT_FLAGS VX_PORT_LOCKED

bool vx_tag_parse(const char *alias, struct vx_tag *ret_tag)
{
	const size_t start = sizeof(TAG_PREFIX) - 1, hex = ID_TEXT_SIZE - 1;
	char id[ID_TEXT_SIZE];
	struct vx_tag tag = {0};
	size_t len;

	if (strncmp(alias, TAG_PREFIX, start) != 0 || strnlen(alias, VX_ALIAS_SIZE) < start + hex + 1 ||
		alias[start + hex] != ':')
		return false;
	memcpy(id, alias + start, hex);
	id[hex] = '\0';
	if (id_parse(id, &tag.network, NULL) < 0)
		return false;
	len = strnlen(alias + start + hex + 1, sizeof(tag.endpoint));
	if (len == sizeof(tag.endpoint))
		return false;
	memcpy(tag.endpoint, alias + start + hex + 1, len);
	*ret_tag = tag;
	return true;
}

const char *vx_tag_format(const struct id128 *network, const char *endpoint, char buf[VX_ALIAS_SIZE])
{
	char id[ID_TEXT_SIZE];

	snprintf(buf, VX_ALIAS_SIZE, TAG_PREFIX "%s:%s", id_format(network, id), endpoint);
	return buf;
}

/* FNV-1a: names need to differ, not to resist anyone. */
static uint64_t hash_bytes(uint64_t h, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3ull;
	return h;
}

static uint64_t hash_object(const struct id128 *network, const char *endpoint, uint32_t salt)
{
	uint64_t h = hash_bytes(0xcbf29ce484222325ull, network->bytes, sizeof(network->bytes));

	h = hash_bytes(h, endpoint, strlen(endpoint) + 1);
	h = hash_bytes(h, &salt, sizeof(salt));
	return h ^ h >> 32;
}

void vx_name(char buf[VX_NAME_SIZE], const char *prefix, const struct id128 *network, const char *endpoint, uint32_t salt)
{
	uint64_t h = hash_object(network, endpoint, salt) & 0xffffffffffull;

	memset(buf, 0, VX_NAME_SIZE);
	snprintf(buf, VX_NAME_SIZE, "%.2s%010llx", prefix, (unsigned long long)h);
}

struct mac vx_mac(uint8_t role, const struct id128 *network, const char *endpoint, uint32_t hostno)
{
	uint64_t h = hash_object(network, endpoint, hostno);
	struct mac mac = {.bytes = {role}};

	memcpy(&mac.bytes[1], &h, 5);
	return mac;
}

bool vx_plan_full(const struct vx_plan *plan)
{
	return plan->count + VX_PLAN_RESERVE > VX_PLAN_MAX;
}

static struct vx_op *add(struct vx_plan *plan, enum vx_op_kind kind, uint32_t index, const char *name)
{
	struct vx_op *op = &plan->ops[plan->count++];

	memset(op, 0, sizeof(*op));
	op->kind = kind;
	op->index = index;
	op->endpoint = "";
	snprintf(op->name, sizeof(op->name), "%s", name);
	return op;
}

static struct vx_op *add_new(struct vx_plan *plan, enum vx_op_kind kind, const struct vx_want_device *device, uint32_t mtu)
{
	struct vx_op *op = add(plan, kind, device->index, device->name);

	op->mac = device->mac;
	op->mtu = mtu;
	op->group = VX_GROUP_NEW;
	return op;
}

/* Behind the create message: the tag, and out of the group of the unfinished. */
static struct vx_op *add_tag(
	struct vx_plan *plan, const struct vx_want_device *device, const struct id128 *network, const char *endpoint)
{
	struct vx_op *op = add(plan, VX_OP_LINK_SET, device->index, device->name);

	op->set = VX_SET_TAG | VX_SET_GROUP;
	op->group = device->group;
	op->network = *network;
	op->endpoint = endpoint;
	return op;
}

static void add_port(struct vx_plan *plan, uint32_t index, const char *name, uint32_t mask, uint32_t flags)
{
	struct vx_op *op = add(plan, VX_OP_PORT_SET, index, name);

	op->port_mask = mask;
	op->port_flags = flags;
}

static void add_up(struct vx_plan *plan, uint32_t index, const char *name, const struct vx_tunnel *tunnel)
{
	struct vx_op *op = add(plan, VX_OP_LINK_SET, index, name);

	op->set = VX_SET_UP;
	if (tunnel)
		op->tunnel = *tunnel;
}

/* Before it is up: from then on the kernel would have spoken on it. */
static void add_conf(struct vx_plan *plan, uint32_t index, const char *name, bool pair, bool has_ip6)
{
	struct vx_op *op = add(plan, VX_OP_CONF, index, name);

	op->pair = pair;
	op->has_ip6 = has_ip6;
}

/* What any link of ours must be, in one message; nothing when it is. */
static void fix_link(
	struct vx_plan *plan, const struct vx_link *have, uint32_t mtu, uint32_t master, uint32_t group, const struct mac *mac)
{
	struct vx_op set = {0}, *op;

	if (have->group != group)
		set.set |= VX_SET_GROUP;
	if (have->mtu < mtu)
		set.set |= VX_SET_MTU;
	if (have->master != master)
		set.set |= VX_SET_MASTER;
	if (mac && !mac_equal(&have->mac, mac))
		set.set |= VX_SET_MAC;
	if (!set.set)
		return;
	op = add(plan, VX_OP_LINK_SET, have->index, have->name);
	op->set = set.set;
	op->mtu = mtu;
	op->master = master;
	op->group = group;
	if (mac)
		op->mac = *mac;
}

/* A flag that this kernel does not tell of is not asked for: it would be asked for again at each comparison. A link that was just
 * put into its bridge has told none, and gets all. */
static void fix_port(struct vx_plan *plan, const struct vx_link *have, uint32_t master, uint32_t mask, uint32_t flags)
{
	uint32_t known = have->master == master && have->port_known ? have->port_known : mask;

	if (have->master != master || (have->port_flags ^ flags) & mask & known)
		add_port(plan, have->index, have->name, mask & known, flags);
}

static void make_bridge(struct vx_plan *plan, const struct vx_want_network *want)
{
	add_new(plan, VX_OP_BRIDGE_NEW, &want->bridge, want->mtu);
	add_tag(plan, &want->bridge, &want->id, "")->set |= VX_SET_UP;
}

static void fix_bridge(struct vx_plan *plan, const struct vx_want_network *want, const struct vx_link *have)
{
	/* The MAC given at creation keeps the bridge from taking that of its lowest port, which would flush its neighbours. */
	fix_link(plan, have, want->mtu, 0, 0, &want->bridge.mac);
	if (!have->options_ok)
		add(plan, VX_OP_BRIDGE_SET, have->index, have->name);
	if (!have->up)
		add_up(plan, have->index, have->name, NULL);
}

static void make_vxlan(struct vx_plan *plan, const struct vx_want_network *want, uint32_t bridge)
{
	struct vx_op *op = add_new(plan, VX_OP_VXLAN_NEW, &want->vxlan, want->mtu);

	op->tunnel = want->tunnel;
	op = add_tag(plan, &want->vxlan, &want->id, "");
	op->set |= VX_SET_MASTER;
	op->master = bridge;
	add_port(plan, want->vxlan.index, want->vxlan.name, TUNNEL_PORT_MASK, TUNNEL_PORT_FLAGS);
	/* Up by itself: this is where the kernel finds the UDP port taken, and it may succeed later. */
	add_up(plan, want->vxlan.index, want->vxlan.name, &want->tunnel);
}

static void fix_vxlan(struct vx_plan *plan, const struct vx_want_network *want, const struct vx_link *have, uint32_t bridge)
{
	struct vx_op *op;

	/* Routed, the other hosts' neighbour rows say its MAC; in a bridge nobody speaks to it. */
	fix_link(plan, have, want->mtu, bridge, want->vxlan.group, bridge ? NULL : &want->vxlan.mac);
	if (!have->options_ok || !ip_equal(&have->tunnel.local, &want->tunnel.local)) {
		op = add(plan, VX_OP_VXLAN_SET, have->index, have->name);
		op->tunnel = want->tunnel;
	}
	if (bridge)
		fix_port(plan, have, bridge, TUNNEL_PORT_MASK, TUNNEL_PORT_FLAGS);
	if (!have->up)
		add_up(plan, have->index, have->name, &want->tunnel);
}

static bool can_become(const struct vx_tunnel *have, const struct vx_tunnel *want)
{
	return have->vni == want->vni && have->port == want->port && have->local.family == want->local.family;
}

void vx_plan_network(
	struct vx_plan *plan, const struct vx_want_network *want, const struct vx_link *bridge, const struct vx_link *vxlan)
{
	uint32_t master = bridge ? bridge->index : want->bridge.index;

	if (vxlan && !can_become(&vxlan->tunnel, &want->tunnel)) {
		vx_plan_mark(plan, vxlan);
		vxlan = NULL;
	}
	if (bridge)
		fix_bridge(plan, want, bridge);
	else
		make_bridge(plan, want);
	if (vxlan)
		fix_vxlan(plan, want, vxlan, master);
	else
		make_vxlan(plan, want, master);
}

static void make_routed_vxlan(struct vx_plan *plan, const struct vx_want_network *want)
{
	add_new(plan, VX_OP_VXLAN_NEW, &want->vxlan, want->mtu)->tunnel = want->tunnel;
	add_tag(plan, &want->vxlan, &want->id, "");
	add_conf(plan, want->vxlan.index, want->vxlan.name, false, want->has_ip6);
	add_up(plan, want->vxlan.index, want->vxlan.name, &want->tunnel);
}

void vx_plan_routed(struct vx_plan *plan, const struct vx_want_network *want, const struct vx_link *vxlan)
{
	if (vxlan && !can_become(&vxlan->tunnel, &want->tunnel)) {
		vx_plan_mark(plan, vxlan);
		vxlan = NULL;
	}
	if (!vxlan) {
		make_routed_vxlan(plan, want);
		return;
	}
	if (!vxlan->up)
		add_conf(plan, vxlan->index, vxlan->name, false, want->has_ip6);
	fix_vxlan(plan, want, vxlan, 0);
}

static void make_veth(struct vx_plan *plan, const struct vx_want_endpoint *want)
{
	struct vx_op *op = add_new(plan, VX_OP_VETH_NEW, &want->device, want->mtu);

	op->master = want->bridge;
	op->peer.mac = want->peer_mac;
	memcpy(op->peer.name, want->peer_name, sizeof(op->peer.name));
	op->peer.netns = want->peer_netns;
	/* All in one message, because each has to get the kernel's lock, and may have to wait for it. */
	op = add_tag(plan, &want->device, &want->network, want->id);
	if (!want->bridge) {
		add_conf(plan, want->device.index, want->device.name, true, want->has_ip6);
		add_up(plan, want->device.index, want->device.name, NULL);
		return;
	}
	op->set |= VX_SET_PORT | VX_SET_UP;
	op->port_mask = ENDPOINT_PORT_MASK;
	op->port_flags = ENDPOINT_PORT_FLAGS;
}

void vx_plan_endpoint(struct vx_plan *plan, const struct vx_want_endpoint *want, const struct vx_link *have, bool make)
{
	if (!have) {
		if (make)
			make_veth(plan, want);
		return;
	}
	fix_link(plan, have, want->mtu, want->bridge, want->device.group, want->bridge ? NULL : &want->device.mac);
	if (want->bridge)
		fix_port(plan, have, want->bridge, ENDPOINT_PORT_MASK, ENDPOINT_PORT_FLAGS);
	else if (!have->up)
		add_conf(plan, have->index, have->name, true, want->has_ip6);
	if (!have->up)
		add_up(plan, have->index, have->name, NULL);
}

void vx_plan_mark(struct vx_plan *plan, const struct vx_link *link)
{
	struct vx_op *op = add(plan, VX_OP_LINK_SET, link->index, link->name);

	op->set = VX_SET_DOWN | VX_SET_MASTER | VX_SET_GROUP;
	op->group = VX_GROUP_REAP;
}

static bool row_same(const struct vx_row *a, const struct vx_row *b)
{
	return mac_equal(&a->mac, &b->mac) && ip_equal(&a->ip, &b->ip) && a->length == b->length &&
	       ip_equal(&a->source, &b->source) && a->port == b->port;
}

void vx_plan_row(struct vx_plan *plan, const struct vx_row *want, const struct vx_row *have, uint32_t device, uint32_t tunnel)
{
	struct vx_op *op;

	if ((!want && !have) || (want && have && row_same(want, have)))
		return;
	op = add(plan, want ? VX_OP_ROW_PUT : VX_OP_ROW_DEL, device, "");
	op->row = want ? *want : *have;
	if ((op->row.kind == VX_ROW_PORT || op->row.kind == VX_ROW_ROUTE) && op->row.port == VX_PORT_TUNNEL)
		op->row.port = tunnel;
}

static const char *row_text(const struct vx_row *row, char *buf, size_t size)
{
	char mac[MAC_TEXT_SIZE], ip[IP_TEXT_SIZE];

	mac_format(&row->mac, mac);
	ip_format(&row->ip, ip);
	switch (row->kind) {
	case VX_ROW_FLOOD:
		snprintf(buf, size, "flood destination %s", ip);
		break;
	case VX_ROW_REMOTE:
		snprintf(buf, size, "fdb row %s to host %s", mac, ip);
		break;
	case VX_ROW_PORT:
		snprintf(buf, size, "bridge row %s to link %u", mac, row->port);
		break;
	case VX_ROW_NEIGH:
		snprintf(buf, size, "neighbour %s at %s", ip, mac);
		break;
	case VX_ROW_ROUTE:
		if (row->port == VX_PORT_NONE)
			snprintf(buf, size, "unreachable route %s/%u", ip, row->length);
		else
			snprintf(buf, size, "route %s/%u to link %u", ip, row->length, row->port);
		break;
	case VX_ROW_ADDR:
		snprintf(buf, size, "address %s", ip);
		break;
	}
	return buf;
}

const char *vx_op_describe(const struct vx_op *op, char *buf, size_t size)
{
	char row[160];

	switch (op->kind) {
	case VX_OP_BRIDGE_NEW:
		snprintf(buf, size, "make bridge %s", op->name);
		break;
	case VX_OP_VXLAN_NEW:
		snprintf(buf, size, "make vxlan device %s with VNI %u on UDP port %u", op->name, op->tunnel.vni, op->tunnel.port);
		break;
	case VX_OP_VETH_NEW:
		snprintf(buf, size, "make pair %s with peer %s in the %s namespace", op->name, op->peer.name,
			op->peer.netns ? "container's" : "host's");
		break;
	case VX_OP_LINK_SET:
		if (op->set == VX_SET_UP && op->tunnel.vni)
			snprintf(buf, size, "bring up %s, VNI %u on UDP port %u", op->name, op->tunnel.vni, op->tunnel.port);
		else
			snprintf(buf, size, "%s link %s", op->set == VX_SET_UP ? "bring up" : "set up", op->name);
		break;
	case VX_OP_BRIDGE_SET:
	case VX_OP_VXLAN_SET:
		snprintf(buf, size, "set options of %s", op->name);
		break;
	case VX_OP_PORT_SET:
		snprintf(buf, size, "set bridge port flags of %s", op->name);
		break;
	case VX_OP_CONF:
		snprintf(buf, size, "set sysctls of %s", op->name);
		break;
	case VX_OP_LINK_DEL:
		snprintf(buf, size, "delete link %s", op->name);
		break;
	case VX_OP_ROW_PUT:
	case VX_OP_ROW_DEL:
		snprintf(buf, size, "%s %s", op->kind == VX_OP_ROW_PUT ? "add" : "delete", row_text(&op->row, row, sizeof(row)));
		break;
	case VX_OP_MAX:
		break;
	}
	return buf;
}

static const struct {
	enum vx_op_kind kind;
	uint32_t set; /* VX_OP_LINK_SET: exactly these, 0 for the others */
	int sys_errno;
	const char *hint;
} hints[] = {
	{VX_OP_VXLAN_NEW, 0, EEXIST,
		"a vxlan device of someone else in the host's namespace has this VNI on this port; find it with \"ip -d link "
		"show type vxlan\" "
		"and remove it, or give the network another VNI"},
	{VX_OP_VXLAN_NEW, 0, EADDRNOTAVAIL, "the underlay address is not on this host; check the advertised address"},
	{VX_OP_VXLAN_NEW, 0, EAFNOSUPPORT, "the host has IPv6 disabled and the underlay address is IPv6"},
	{VX_OP_VXLAN_NEW, 0, EOPNOTSUPP, "the kernel has no vxlan; load the module \"vxlan\""},
	{VX_OP_BRIDGE_NEW, 0, EOPNOTSUPP, "the kernel has no bridge; load the module \"bridge\""},
	{VX_OP_VETH_NEW, 0, EOPNOTSUPP, "the kernel has no veth; load the module \"veth\""},
	{VX_OP_VETH_NEW, 0, EEXIST, "a link with the peer's name exists in that namespace; remove or rename it"},
	{VX_OP_VETH_NEW, 0, EXFULL,
		"the network has as many endpoints on this host as a kernel bridge takes: 1,023 ports, one of them the tunnel's; "
		"start the container on another host, or in another network"},
	{VX_OP_LINK_SET, VX_SET_UP, EADDRINUSE,
		"a program or another kind of vxlan device holds the UDP port; find it with \"ss -lunp\", or use another port in "
		"the whole "
		"cluster; tried again at the next comparison"},
	{VX_OP_VXLAN_SET, 0, EOPNOTSUPP, "this kernel cannot change the underlay address of a vxlan device"},
	{VX_OP_ROW_PUT, 0, EAFNOSUPPORT, "the other host's underlay address is of another family than ours"},
};

const char *vx_op_hint(const struct vx_op *op, int sys_errno)
{
	for (size_t i = 0; i < sizeof(hints) / sizeof(hints[0]); i++)
		if (hints[i].kind == op->kind && hints[i].sys_errno == sys_errno && hints[i].set == op->set)
			return hints[i].hint;
	return NULL;
}

/* A link that has left its bridge took its rows along, and is then no port to ask: rtnl_fdb_del answers EOPNOTSUPP for a link
 * that is nobody's port, and for nothing else. */
static bool row_is_gone(const struct vx_op *op, int sys_errno)
{
	if (op->kind != VX_OP_ROW_DEL)
		return false;
	switch (op->row.kind) {
	case VX_ROW_PORT:
		return sys_errno == EOPNOTSUPP;
	case VX_ROW_ROUTE: /* ESRCH: no such route. EINVAL: IPv4, and its link is gone */
		return sys_errno == ESRCH || sys_errno == EINVAL;
	case VX_ROW_ADDR:
		return sys_errno == EADDRNOTAVAIL;
	default:
		return false;
	}
}

bool vx_op_is_done(const struct vx_op *op, int sys_errno)
{
	bool goes =
		op->kind == VX_OP_LINK_DEL || op->kind == VX_OP_ROW_DEL || (op->kind == VX_OP_LINK_SET && op->set & VX_SET_DOWN);

	return sys_errno == 0 || (goes && (sys_errno == ENOENT || sys_errno == ENODEV || sys_errno == ENXIO)) ||
	       row_is_gone(op, sys_errno);
}

bool vx_op_is_moot(const struct vx_op *op, int sys_errno)
{
	bool set = op->kind == VX_OP_LINK_SET || op->kind == VX_OP_PORT_SET || op->kind == VX_OP_CONF;
	bool put = op->kind == VX_OP_ROW_PUT, route = put && op->row.kind == VX_ROW_ROUTE;
	bool row = put && (op->row.kind == VX_ROW_PORT || (op->row.kind == VX_ROW_NEIGH && op->row.port != VX_PORT_TUNNEL));

	/* A route through a link that went down is put again when the link is up. */
	return (sys_errno == ENODEV && (row || route || (set && op->owner_kind == VX_OWNER_ENDPOINT))) ||
	       (sys_errno == ENETDOWN && route);
}

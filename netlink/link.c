/* Links. See link.h. */
#include "netlink/link.h"

#include <libmnl/libmnl.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <string.h>
#include <sys/socket.h>

#include "netlink/build.h"
#include "netlink/parse.h"

#define SKIP_STATISTICS 8 /* RTEXT_FILTER_SKIP_STATS */

enum { L_NAME, L_ALIAS, L_MAC, L_MTU, L_GROUP, L_MASTER, L_PEER, L_NSID, L_INFO, L_PORT, L_COUNT };
static const struct nl_policy link_policy[L_COUNT] = {
	[L_NAME] = NL_TEXT(IFLA_IFNAME, NL_IFNAME_SIZE),
	[L_ALIAS] = NL_TEXT(IFLA_IFALIAS, NL_ALIAS_SIZE),
	[L_MAC] = NL_RANGE(IFLA_ADDRESS, 0, 32), /* MAX_ADDR_LEN: other link types have longer ones */
	[L_MTU] = NL_FIXED(IFLA_MTU, 4),
	[L_GROUP] = NL_FIXED(IFLA_GROUP, 4),
	[L_MASTER] = NL_FIXED(IFLA_MASTER, 4),
	[L_PEER] = NL_FIXED(IFLA_LINK, 4),
	[L_NSID] = NL_FIXED(IFLA_LINK_NETNSID, 4),
	[L_INFO] = NL_NEST(IFLA_LINKINFO),
	[L_PORT] = NL_NEST(IFLA_PROTINFO),
};

enum { I_KIND, I_DATA, I_SLAVE_KIND, I_SLAVE_DATA, I_COUNT };
static const struct nl_policy info_policy[I_COUNT] = {
	[I_KIND] = NL_TEXT(IFLA_INFO_KIND, 64),
	[I_DATA] = NL_NEST(IFLA_INFO_DATA),
	[I_SLAVE_KIND] = NL_TEXT(IFLA_INFO_SLAVE_KIND, 64),
	[I_SLAVE_DATA] = NL_NEST(IFLA_INFO_SLAVE_DATA),
};

enum { X_VNI, X_LOCAL, X_LOCAL6, X_PORT, X_LEARNING, X_COUNT };
static const struct nl_policy vxlan_policy[X_COUNT] = {
	[X_VNI] = NL_FIXED(IFLA_VXLAN_ID, 4),
	[X_LOCAL] = NL_FIXED(IFLA_VXLAN_LOCAL, 4),
	[X_LOCAL6] = NL_FIXED(IFLA_VXLAN_LOCAL6, 16),
	[X_PORT] = NL_FIXED(IFLA_VXLAN_PORT, 2),
	[X_LEARNING] = NL_FIXED(IFLA_VXLAN_LEARNING, 1),
};

enum { B_STP, B_SNOOPING, B_AGEING, B_COUNT };
static const struct nl_policy bridge_policy[B_COUNT] = {
	[B_STP] = NL_FIXED(IFLA_BR_STP_STATE, 4),
	[B_SNOOPING] = NL_FIXED(IFLA_BR_MCAST_SNOOPING, 1),
	[B_AGEING] = NL_FIXED(IFLA_BR_AGEING_TIME, 4),
};

#define PORT_FLAGS 6
static const struct nl_policy port_policy[PORT_FLAGS] = {
	NL_FIXED(IFLA_BRPORT_LEARNING, 1),
	NL_FIXED(IFLA_BRPORT_UNICAST_FLOOD, 1),
	NL_FIXED(IFLA_BRPORT_MCAST_FLOOD, 1),
	NL_FIXED(IFLA_BRPORT_BCAST_FLOOD, 1),
	NL_FIXED(IFLA_BRPORT_NEIGH_SUPPRESS, 1),
	NL_FIXED(IFLA_BRPORT_LOCKED, 1),
};
static const uint32_t port_bit[PORT_FLAGS] = {
	NL_PORT_LEARNING, NL_PORT_FLOOD, NL_PORT_MCAST_FLOOD, NL_PORT_BCAST_FLOOD, NL_PORT_NEIGH_SUPPRESS, NL_PORT_LOCKED};

static int parse_port(const struct nlattr *nest, struct nl_link *link, struct err *err)
{
	const struct nlattr *a[PORT_FLAGS];

	if (nl_parse_nested(nest, port_policy, PORT_FLAGS, a, err) < 0)
		return -1;
	for (unsigned i = 0; i < PORT_FLAGS; i++) {
		if (!a[i])
			continue;
		link->port_known |= port_bit[i];
		if (nl_u8(a[i], 0))
			link->port_flags |= port_bit[i];
	}
	return 0;
}

static int parse_vxlan(const struct nlattr *nest, struct nl_vxlan *vxlan, struct err *err)
{
	const struct nlattr *a[X_COUNT];

	if (nl_parse_nested(nest, vxlan_policy, X_COUNT, a, err) < 0)
		return -1;
	vxlan->vni = nl_u32(a[X_VNI], 0);
	vxlan->local = nl_ip(a[X_LOCAL] ? a[X_LOCAL] : a[X_LOCAL6]);
	vxlan->port = nl_be16(a[X_PORT], 0);
	vxlan->learning = nl_u8(a[X_LEARNING], 0);
	return 0;
}

static int parse_bridge(const struct nlattr *nest, struct nl_bridge *bridge, struct err *err)
{
	const struct nlattr *a[B_COUNT];

	if (nl_parse_nested(nest, bridge_policy, B_COUNT, a, err) < 0)
		return -1;
	bridge->stp = nl_u32(a[B_STP], 0);
	bridge->mcast_snooping = nl_u8(a[B_SNOOPING], 0);
	bridge->ageing_time = nl_u32(a[B_AGEING], 0);
	return 0;
}

static enum nl_link_kind kind_of(const char *kind)
{
	static const struct {
		const char *name;
		enum nl_link_kind kind;
	} kinds[] = {{"bridge", NL_LINK_BRIDGE}, {"vxlan", NL_LINK_VXLAN}, {"veth", NL_LINK_VETH}};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kind, kinds[i].name) == 0)
			return kinds[i].kind;
	return NL_LINK_OTHER;
}

static int parse_info(const struct nlattr *nest, struct nl_link *link, struct err *err)
{
	const struct nlattr *a[I_COUNT];

	if (nl_parse_nested(nest, info_policy, I_COUNT, a, err) < 0)
		return -1;
	link->kind = kind_of(nl_text(a[I_KIND]));
	if (link->kind == NL_LINK_VXLAN && a[I_DATA] && parse_vxlan(a[I_DATA], &link->vxlan, err) < 0)
		return -1;
	if (link->kind == NL_LINK_BRIDGE && a[I_DATA] && parse_bridge(a[I_DATA], &link->bridge, err) < 0)
		return -1;
	if (a[I_SLAVE_DATA] && strcmp(nl_text(a[I_SLAVE_KIND]), "bridge") == 0)
		return parse_port(a[I_SLAVE_DATA], link, err);
	return 0;
}

int nl_link_parse(const struct nlmsghdr *h, struct nl_link *ret_link, struct err *err)
{
	const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(h);
	struct nl_link link = {.deleted = h->nlmsg_type == RTM_DELLINK, .peer_nsid = -1};
	const struct nlattr *a[L_COUNT];

	if (nl_parse_message(h, sizeof(*ifi), link_policy, L_COUNT, a, err) < 0)
		return -1;
	link.index = (uint32_t)ifi->ifi_index;
	link.flags = ifi->ifi_flags;
	link.bridge_only = ifi->ifi_family == AF_BRIDGE;
	nl_copy_text(a[L_NAME], link.name, sizeof(link.name));
	nl_copy_text(a[L_ALIAS], link.alias, sizeof(link.alias));
	nl_mac(a[L_MAC], &link.mac);
	link.mtu = nl_u32(a[L_MTU], 0);
	link.group = nl_u32(a[L_GROUP], 0);
	link.master = nl_u32(a[L_MASTER], 0);
	link.peer_index = nl_u32(a[L_PEER], 0);
	link.peer_nsid = (int32_t)nl_u32(a[L_NSID], UINT32_MAX);
	if (a[L_INFO] && parse_info(a[L_INFO], &link, err) < 0)
		return -1;
	/* IFLA_PROTINFO is the bridge's only in a message of the bridge family; elsewhere it may be another family's. */
	if (a[L_PORT] && link.bridge_only && parse_port(a[L_PORT], &link, err) < 0)
		return -1;
	*ret_link = link;
	return 0;
}

static void begin(struct nlb *b, uint16_t type, uint16_t flags, struct ifinfomsg ifi)
{
	nlb_begin(b, type, flags, &ifi, sizeof(ifi));
}

void nl_link_dump_request(struct nlb *b)
{
	begin(b, RTM_GETLINK, 0, (struct ifinfomsg){0});
	nlb_put_u32(b, IFLA_EXT_MASK, SKIP_STATISTICS);
}

void nl_link_get_request(struct nlb *b, uint32_t index)
{
	begin(b, RTM_GETLINK, 0, (struct ifinfomsg){.ifi_index = (int)index});
	nlb_put_u32(b, IFLA_EXT_MASK, SKIP_STATISTICS);
}

void nl_link_get_by_name_request(struct nlb *b, const char *name)
{
	begin(b, RTM_GETLINK, 0, (struct ifinfomsg){0});
	nlb_put_u32(b, IFLA_EXT_MASK, SKIP_STATISTICS);
	nlb_put_text(b, IFLA_IFNAME, name);
}

static struct ifinfomsg new_header(const struct nl_link_new *link)
{
	unsigned up = link->up ? IFF_UP : 0;

	return (struct ifinfomsg){.ifi_index = (int)link->index, .ifi_flags = up, .ifi_change = up};
}

/* One queue each way: a device's memory and its creation cost grow with the queues, which default to the number of CPUs. */
static void put_new(struct nlb *b, const struct nl_link_new *link)
{
	nlb_put_text(b, IFLA_IFNAME, link->name);
	if (!mac_is_zero(&link->mac))
		nlb_put_mac(b, IFLA_ADDRESS, &link->mac);
	if (link->mtu)
		nlb_put_u32(b, IFLA_MTU, link->mtu);
	if (link->group)
		nlb_put_u32(b, IFLA_GROUP, link->group);
	if (link->master)
		nlb_put_u32(b, IFLA_MASTER, link->master);
	if (link->netns_fd >= 0)
		nlb_put_u32(b, IFLA_NET_NS_FD, (uint32_t)link->netns_fd);
	nlb_put_u32(b, IFLA_NUM_TX_QUEUES, 1);
	nlb_put_u32(b, IFLA_NUM_RX_QUEUES, 1);
}

static size_t begin_new(struct nlb *b, const struct nl_link_new *link, const char *kind, size_t *ret_info)
{
	begin(b, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, new_header(link));
	put_new(b, link);
	*ret_info = nlb_nest(b, IFLA_LINKINFO);
	nlb_put_text(b, IFLA_INFO_KIND, kind);
	return nlb_nest(b, IFLA_INFO_DATA);
}

static void put_bridge_options(struct nlb *b)
{
	nlb_put_u32(b, IFLA_BR_STP_STATE, 0);
	nlb_put_u32(b, IFLA_BR_AGEING_TIME, 0);
	nlb_put_u8(b, IFLA_BR_MCAST_SNOOPING, 0);
}

void nl_bridge_new_request(struct nlb *b, const struct nl_link_new *link)
{
	size_t info, data = begin_new(b, link, "bridge", &info);

	put_bridge_options(b);
	nlb_put_u32(b, IFLA_BR_FORWARD_DELAY, 0);
	nlb_nest_end(b, data);
	nlb_nest_end(b, info);
}

static void put_vxlan_local(struct nlb *b, const struct ip *local)
{
	if (local->family)
		nlb_put_ip(b, local->family == 4 ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6, local);
	nlb_put_u8(b, IFLA_VXLAN_LEARNING, 0);
}

void nl_vxlan_new_request(struct nlb *b, const struct nl_link_new *link, const struct nl_vxlan *vxlan)
{
	size_t info, data = begin_new(b, link, "vxlan", &info);

	nlb_put_u32(b, IFLA_VXLAN_ID, vxlan->vni);
	nlb_put_be16(b, IFLA_VXLAN_PORT, vxlan->port);
	put_vxlan_local(b, &vxlan->local);
	nlb_nest_end(b, data);
	nlb_nest_end(b, info);
}

void nl_veth_new_request(struct nlb *b, const struct nl_link_new *link, const struct nl_link_new *peer)
{
	size_t info, data = begin_new(b, link, "veth", &info);
	size_t nest = nlb_nest(b, VETH_INFO_PEER);
	struct ifinfomsg ifi = new_header(peer);

	nlb_put_header(b, &ifi, sizeof(ifi));
	put_new(b, peer);
	nlb_nest_end(b, nest);
	nlb_nest_end(b, data);
	nlb_nest_end(b, info);
}

void nl_link_set_request(struct nlb *b, uint32_t index)
{
	begin(b, RTM_SETLINK, 0, (struct ifinfomsg){.ifi_index = (int)index});
}

void nl_link_set_up_request(struct nlb *b, uint32_t index, bool up)
{
	begin(b, RTM_SETLINK, 0, (struct ifinfomsg){.ifi_index = (int)index, .ifi_flags = up ? IFF_UP : 0, .ifi_change = IFF_UP});
}

void nl_link_put_alias(struct nlb *b, const char *alias)
{
	nlb_put(b, IFLA_IFALIAS, alias, strlen(alias));
}

void nl_link_put_group(struct nlb *b, uint32_t group)
{
	nlb_put_u32(b, IFLA_GROUP, group);
}

void nl_link_put_master(struct nlb *b, uint32_t master)
{
	nlb_put_u32(b, IFLA_MASTER, master);
}

void nl_link_put_mtu(struct nlb *b, uint32_t mtu)
{
	nlb_put_u32(b, IFLA_MTU, mtu);
}

void nl_link_put_mac(struct nlb *b, const struct mac *mac)
{
	nlb_put_mac(b, IFLA_ADDRESS, mac);
}

/* Changing a link's own options is NEWLINK without CREATE: SETLINK does not read IFLA_LINKINFO of every kind. */
static size_t begin_change(struct nlb *b, uint32_t index, const char *kind, size_t *ret_info)
{
	begin(b, RTM_NEWLINK, 0, (struct ifinfomsg){.ifi_index = (int)index});
	*ret_info = nlb_nest(b, IFLA_LINKINFO);
	nlb_put_text(b, IFLA_INFO_KIND, kind);
	return nlb_nest(b, IFLA_INFO_DATA);
}

void nl_bridge_set_request(struct nlb *b, uint32_t index)
{
	size_t info, data = begin_change(b, index, "bridge", &info);

	put_bridge_options(b);
	nlb_nest_end(b, data);
	nlb_nest_end(b, info);
}

void nl_vxlan_set_request(struct nlb *b, uint32_t index, const struct ip *local)
{
	size_t info, data = begin_change(b, index, "vxlan", &info);

	put_vxlan_local(b, local);
	nlb_nest_end(b, data);
	nlb_nest_end(b, info);
}

static void put_port_flags(struct nlb *b, uint16_t type, uint32_t mask, uint32_t flags)
{
	size_t nest = nlb_nest(b, type);

	for (unsigned i = 0; i < PORT_FLAGS; i++)
		if (mask & port_bit[i])
			nlb_put_u8(b, port_policy[i].type, !!(flags & port_bit[i]));
	nlb_nest_end(b, nest);
}

/* The kernel takes a port's flags as "slave data" first, then reads the rest of the message as SETLINK does (rtnl_changelink). */
void nl_link_set_port_up_request(struct nlb *b, uint32_t index, uint32_t mask, uint32_t flags)
{
	size_t info;

	begin(b, RTM_NEWLINK, 0, (struct ifinfomsg){.ifi_index = (int)index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP});
	info = nlb_nest(b, IFLA_LINKINFO);
	nlb_put_text(b, IFLA_INFO_SLAVE_KIND, "bridge");
	put_port_flags(b, IFLA_INFO_SLAVE_DATA, mask, flags);
	nlb_nest_end(b, info);
}

void nl_port_set_request(struct nlb *b, uint32_t index, uint32_t mask, uint32_t flags)
{
	begin(b, RTM_SETLINK, 0, (struct ifinfomsg){.ifi_family = AF_BRIDGE, .ifi_index = (int)index});
	put_port_flags(b, IFLA_PROTINFO, mask, flags);
}

void nl_link_del_request(struct nlb *b, uint32_t index)
{
	begin(b, RTM_DELLINK, 0, (struct ifinfomsg){.ifi_index = (int)index});
}

void nl_link_del_group_request(struct nlb *b, uint32_t group)
{
	begin(b, RTM_DELLINK, 0, (struct ifinfomsg){0});
	nlb_put_u32(b, IFLA_GROUP, group);
	if (group == 0)
		b->overflow = true;
}

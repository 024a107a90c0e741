/* FDB rows and neighbours. See neigh.h. */
#include "netlink/neigh.h"

#include <libmnl/libmnl.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

#include "netlink/build.h"
#include "netlink/parse.h"

enum { R_DST, R_LLADDR, R_MASTER, R_PROTOCOL, R_COUNT };
static const struct nl_policy row_policy[R_COUNT] = {
	[R_DST] = NL_RANGE(NDA_DST, 0, 16), /* other families (decnet of old) had other lengths; nl_ip() takes 4 and 16 */
	[R_LLADDR] = NL_RANGE(NDA_LLADDR, 0, 32),
	[R_MASTER] = NL_FIXED(NDA_MASTER, 4),
	[R_PROTOCOL] = NL_FIXED(NDA_PROTOCOL, 1),
};

static enum nl_row_kind kind_of(const struct ndmsg *ndm, uint32_t master)
{
	if (ndm->ndm_family == AF_INET || ndm->ndm_family == AF_INET6)
		return NL_ROW_NEIGH;
	if (ndm->ndm_family != AF_BRIDGE)
		return NL_ROW_OTHER;
	if (ndm->ndm_flags & NTF_SELF)
		return NL_ROW_VXLAN;
	return master ? NL_ROW_BRIDGE : NL_ROW_OTHER;
}

int nl_row_parse(const struct nlmsghdr *h, struct nl_row *ret_row, struct err *err)
{
	const struct ndmsg *ndm = mnl_nlmsg_get_payload(h);
	struct nl_row row = {.deleted = h->nlmsg_type == RTM_DELNEIGH};
	const struct nlattr *a[R_COUNT];

	if (nl_parse_message(h, sizeof(*ndm), row_policy, R_COUNT, a, err) < 0)
		return -1;
	row.ifindex = (uint32_t)ndm->ndm_ifindex;
	row.state = ndm->ndm_state;
	row.flags = ndm->ndm_flags;
	row.master = nl_u32(a[R_MASTER], 0);
	row.protocol = nl_u8(a[R_PROTOCOL], 0);
	row.ip = nl_ip(a[R_DST]);
	nl_mac(a[R_LLADDR], &row.mac);
	row.kind = kind_of(ndm, row.master);
	*ret_row = row;
	return 0;
}

static void begin(struct nlb *b, uint16_t type, uint16_t flags, struct ndmsg ndm)
{
	nlb_begin(b, type, flags, &ndm, sizeof(ndm));
}

void nl_fdb_dump_request(struct nlb *b)
{
	begin(b, RTM_GETNEIGH, 0, (struct ndmsg){.ndm_family = AF_BRIDGE});
}

void nl_fdb_dump_port_request(struct nlb *b, uint32_t port)
{
	begin(b, RTM_GETNEIGH, 0, (struct ndmsg){.ndm_family = AF_BRIDGE, .ndm_ifindex = (int)port});
}

void nl_bridge_row_get_request(struct nlb *b, uint32_t port, const struct mac *mac)
{
	begin(b, RTM_GETNEIGH, 0, (struct ndmsg){.ndm_family = AF_BRIDGE, .ndm_ifindex = (int)port, .ndm_flags = NTF_MASTER});
	nlb_put_mac(b, NDA_LLADDR, mac);
}

static uint8_t af_of(uint8_t family)
{
	return family == 6 ? AF_INET6 : AF_INET;
}

void nl_neigh_dump_request(struct nlb *b, uint8_t family)
{
	begin(b, RTM_GETNEIGH, 0, (struct ndmsg){.ndm_family = af_of(family)});
}

void nl_neigh_table_request(struct nlb *b, uint8_t family)
{
	const struct ndtmsg header = {.ndtm_family = af_of(family)};

	nlb_begin(b, RTM_GETNEIGHTBL, 0, &header, sizeof(header));
}

/* Later kernels may append to both structures. */
enum { T_LIMIT, T_CONFIG, T_STATS, T_COUNT };
static const struct nl_policy table_policy[T_COUNT] = {
	[T_LIMIT] = NL_FIXED(NDTA_THRESH3, 4),
	[T_CONFIG] = NL_RANGE(NDTA_CONFIG, sizeof(struct ndt_config), UINT16_MAX),
	[T_STATS] = NL_RANGE(NDTA_STATS, sizeof(struct ndt_stats), UINT16_MAX),
};

int nl_neigh_table_parse(const struct nlmsghdr *h, struct nl_neigh_table *ret_table, struct err *err)
{
	const struct nlattr *a[T_COUNT];
	struct ndt_config config;
	struct ndt_stats stats = {0};

	if (nl_parse_message(h, sizeof(struct ndtmsg), table_policy, T_COUNT, a, err) < 0)
		return -1;
	if (!a[T_CONFIG] || !a[T_LIMIT])
		return 0;
	memcpy(&config, mnl_attr_get_payload(a[T_CONFIG]), sizeof(config));
	if (a[T_STATS])
		memcpy(&stats, mnl_attr_get_payload(a[T_STATS]), sizeof(stats));
	*ret_table = (struct nl_neigh_table){config.ndtc_entries, nl_u32(a[T_LIMIT], 0), stats.ndts_table_fulls};
	return 0;
}

bool nl_row_counts(const struct nl_row *row)
{
	return row->kind == NL_ROW_NEIGH && !(row->state & NUD_PERMANENT) && !(row->flags & NTF_EXT_LEARNED);
}

void nl_fdb_put_request(struct nlb *b, uint32_t vxlan, const struct mac *mac, const struct ip *dst)
{
	uint16_t how = mac_is_zero(mac) ? NLM_F_APPEND : NLM_F_REPLACE;

	begin(b, RTM_NEWNEIGH, NLM_F_CREATE | how,
		(struct ndmsg){
			.ndm_family = AF_BRIDGE, .ndm_ifindex = (int)vxlan, .ndm_state = NUD_PERMANENT, .ndm_flags = NTF_SELF});
	nlb_put_mac(b, NDA_LLADDR, mac);
	nlb_put_ip(b, NDA_DST, dst);
}

void nl_fdb_del_request(struct nlb *b, uint32_t vxlan, const struct mac *mac, const struct ip *dst)
{
	begin(b, RTM_DELNEIGH, 0, (struct ndmsg){.ndm_family = AF_BRIDGE, .ndm_ifindex = (int)vxlan, .ndm_flags = NTF_SELF});
	nlb_put_mac(b, NDA_LLADDR, mac);
	if (dst)
		nlb_put_ip(b, NDA_DST, dst);
}

void nl_bridge_row_put_request(struct nlb *b, uint32_t port, const struct mac *mac)
{
	begin(b, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE,
		(struct ndmsg){
			.ndm_family = AF_BRIDGE, .ndm_ifindex = (int)port, .ndm_state = NUD_NOARP, .ndm_flags = NTF_MASTER});
	nlb_put_mac(b, NDA_LLADDR, mac);
}

void nl_bridge_row_del_request(struct nlb *b, uint32_t port, const struct mac *mac)
{
	begin(b, RTM_DELNEIGH, 0, (struct ndmsg){.ndm_family = AF_BRIDGE, .ndm_ifindex = (int)port, .ndm_flags = NTF_MASTER});
	nlb_put_mac(b, NDA_LLADDR, mac);
}

void nl_neigh_put_request(struct nlb *b, uint32_t ifindex, const struct ip *ip, const struct mac *mac)
{
	begin(b, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE,
		(struct ndmsg){.ndm_family = af_of(ip->family), .ndm_ifindex = (int)ifindex, .ndm_state = NUD_PERMANENT});
	nlb_put_ip(b, NDA_DST, ip);
	nlb_put_mac(b, NDA_LLADDR, mac);
	nlb_put_u8(b, NDA_PROTOCOL, NL_PROTOCOL_OWN);
}

void nl_neigh_del_request(struct nlb *b, uint32_t ifindex, const struct ip *ip)
{
	begin(b, RTM_DELNEIGH, 0, (struct ndmsg){.ndm_family = af_of(ip->family), .ndm_ifindex = (int)ifindex});
	nlb_put_ip(b, NDA_DST, ip);
}

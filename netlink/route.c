/* Routes. See route.h. */
#include "netlink/route.h"

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include "netlink/build.h"
#include "netlink/neigh.h"
#include "netlink/parse.h"

enum { T_DST, T_GATEWAY, T_PREFSRC, T_OIF, T_PRIORITY, T_TABLE, T_METRICS, T_COUNT };
static const struct nl_policy route_policy[T_COUNT] = {
	[T_DST] = NL_RANGE(RTA_DST, 4, 16),
	[T_GATEWAY] = NL_RANGE(RTA_GATEWAY, 4, 16),
	[T_PREFSRC] = NL_RANGE(RTA_PREFSRC, 4, 16),
	[T_OIF] = NL_FIXED(RTA_OIF, 4),
	[T_PRIORITY] = NL_FIXED(RTA_PRIORITY, 4),
	[T_TABLE] = NL_FIXED(RTA_TABLE, 4),
	[T_METRICS] = NL_NEST(RTA_METRICS),
};

static const struct nl_policy metrics_policy[] = {NL_FIXED(RTAX_MTU, 4)};

static int parse_attrs(const struct nlattr **a, const struct rtmsg *rtm, struct nl_route *route, struct err *err)
{
	const struct nlattr *mtu[1];

	route->to.ip = nl_ip(a[T_DST]);
	if (!route->to.ip.family)
		route->to.ip.family = rtm->rtm_family == AF_INET6 ? 6 : 4;
	route->to.length = rtm->rtm_dst_len;
	if (route->to.length > ip_bits(&route->to.ip))
		return err_set(err, ERR_CORRUPT, "netlink route: prefix length %u too long", route->to.length);
	route->gateway = nl_ip(a[T_GATEWAY]);
	route->source = nl_ip(a[T_PREFSRC]);
	route->oif = nl_u32(a[T_OIF], 0);
	route->metric = nl_u32(a[T_PRIORITY], 0);
	route->table = nl_u32(a[T_TABLE], rtm->rtm_table);
	if (a[T_METRICS]) {
		if (nl_parse_nested(a[T_METRICS], metrics_policy, 1, mtu, err) < 0)
			return -1;
		route->mtu = nl_u32(mtu[0], 0);
	}
	return 0;
}

int nl_route_parse(const struct nlmsghdr *h, struct nl_route *ret_route, struct err *err)
{
	const struct rtmsg *rtm = mnl_nlmsg_get_payload(h);
	struct nl_route route = {.deleted = h->nlmsg_type == RTM_DELROUTE};
	const struct nlattr *a[T_COUNT];

	if (nl_parse_message(h, sizeof(*rtm), route_policy, T_COUNT, a, err) < 0)
		return -1;
	if (parse_attrs(a, rtm, &route, err) < 0)
		return -1;
	route.protocol = rtm->rtm_protocol;
	route.type = rtm->rtm_type;
	route.onlink = rtm->rtm_flags & RTNH_F_ONLINK;
	*ret_route = route;
	return 0;
}

static uint8_t af_of(uint8_t family)
{
	return family == 6 ? AF_INET6 : AF_INET;
}

void nl_route_dump_request(struct nlb *b, uint8_t family)
{
	struct rtmsg rtm = {.rtm_family = af_of(family)};

	nlb_begin(b, RTM_GETROUTE, 0, &rtm, sizeof(rtm));
}

void nl_route_dump_own_request(struct nlb *b, uint8_t family)
{
	struct rtmsg rtm = {.rtm_family = af_of(family), .rtm_protocol = NL_PROTOCOL_OWN, .rtm_table = RT_TABLE_MAIN};

	nlb_begin(b, RTM_GETROUTE, 0, &rtm, sizeof(rtm));
}

void nl_route_get_request(struct nlb *b, const struct ip *to)
{
	struct rtmsg rtm = {.rtm_family = af_of(to->family), .rtm_dst_len = ip_bits(to), .rtm_flags = RTM_F_FIB_MATCH};

	nlb_begin(b, RTM_GETROUTE, 0, &rtm, sizeof(rtm));
	nlb_put_ip(b, RTA_DST, to);
}

static void begin(struct nlb *b, uint16_t type, uint16_t flags, const struct nl_route *route)
{
	bool direct = !route->gateway.family && route->to.ip.family == 4 && route->type == RTN_UNICAST;
	struct rtmsg rtm = {
		.rtm_family = af_of(route->to.ip.family),
		.rtm_dst_len = route->to.length,
		.rtm_protocol = route->protocol,
		.rtm_type = route->type,
		.rtm_scope = direct ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE,
		.rtm_table = RT_TABLE_UNSPEC,
		.rtm_flags = route->onlink ? RTNH_F_ONLINK : 0,
	};

	nlb_begin(b, type, flags, &rtm, sizeof(rtm));
	nlb_put_u32(b, RTA_TABLE, route->table ? route->table : RT_TABLE_MAIN);
	if (route->to.length)
		nlb_put_ip(b, RTA_DST, &route->to.ip);
	if (route->gateway.family)
		nlb_put_ip(b, RTA_GATEWAY, &route->gateway);
	if (route->source.family)
		nlb_put_ip(b, RTA_PREFSRC, &route->source);
	if (route->oif)
		nlb_put_u32(b, RTA_OIF, route->oif);
	if (route->metric)
		nlb_put_u32(b, RTA_PRIORITY, route->metric);
}

static void begin_new(struct nlb *b, uint16_t how, const struct nl_route *route)
{
	begin(b, RTM_NEWROUTE, NLM_F_CREATE | how, route);
	if (route->mtu) {
		size_t nest = nlb_nest(b, RTA_METRICS);

		nlb_put_u32(b, RTAX_MTU, route->mtu);
		nlb_nest_end(b, nest);
	}
}

void nl_route_put_request(struct nlb *b, const struct nl_route *route)
{
	begin_new(b, NLM_F_REPLACE, route);
}

void nl_route_add_request(struct nlb *b, const struct nl_route *route)
{
	begin_new(b, NLM_F_EXCL, route);
}

void nl_route_del_request(struct nlb *b, const struct nl_route *route)
{
	begin(b, RTM_DELROUTE, 0, route);
}

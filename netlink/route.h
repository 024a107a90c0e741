/* Routes. */
#ifndef NETLINK_ROUTE_H
#define NETLINK_ROUTE_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/err.h"

struct nlb;

struct nl_route {
	bool deleted;		   /* RTM_DELROUTE */
	struct prefix to;	   /* length 0: the default route */
	struct ip gateway, source; /* family 0: none */
	uint32_t oif;		   /* 0: several next hops, or none (blackhole) */
	uint32_t metric, table, mtu /* RTAX_MTU, 0: the device's */;
	uint8_t protocol, type /* RTN_ */;
	bool onlink;
};

int nl_route_parse(const struct nlmsghdr *h, struct nl_route *ret_route, struct err *err);
void nl_route_dump_request(struct nlb *b, uint8_t family /* 4 or 6 */);
/* Those of the main table that carry NL_PROTOCOL_OWN (neigh.h): the kernel filters. */
void nl_route_dump_own_request(struct nlb *b, uint8_t family);
/* The entry of a table by which the kernel would reach an address: for one of its own that of type RTN_LOCAL, with the device
 * that has it. Waits for nobody who holds the RTNL lock. */
void nl_route_get_request(struct nlb *b, const struct ip *to);
/* CREATE|REPLACE: the kernel replaces the first match of prefix, tos and metric, whoever owns it; use a metric of our own. */
void nl_route_put_request(struct nlb *b, const struct nl_route *route);
/* CREATE|EXCL: EEXIST when there is one of that prefix, tos and metric, whoever owns it. */
void nl_route_add_request(struct nlb *b, const struct nl_route *route);
/* Matches the protocol too, so that another owner's route to the same prefix is left alone. */
void nl_route_del_request(struct nlb *b, const struct nl_route *route);

#endif

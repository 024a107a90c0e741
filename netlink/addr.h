/* Addresses of links. */
#ifndef NETLINK_ADDR_H
#define NETLINK_ADDR_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/err.h"

struct nlb;

struct nl_addr {
	bool deleted; /* RTM_DELADDR */
	uint32_t ifindex;
	struct prefix prefix; /* the address with its prefix length */
};

int nl_addr_parse(const struct nlmsghdr *h, struct nl_addr *ret_addr, struct err *err);
void nl_addr_dump_request(struct nlb *b);
/* IPv6 without duplicate address detection: its solicitations would be flooded, and custody already makes addresses unique. */
void nl_addr_put_request(struct nlb *b, uint32_t ifindex, const struct prefix *address);
void nl_addr_del_request(struct nlb *b, uint32_t ifindex, const struct prefix *address);

#endif

/* Kernel messages through the policy parsers. The first byte chooses the message type; the rest is what follows its nlmsghdr.
 * What parses must hold what its type promises: texts end, addresses have a family, prefix lengths fit. */
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "netlink/addr.h"
#include "netlink/link.h"
#include "netlink/neigh.h"
#include "netlink/route.h"

#define INPUT_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth)
{
	if (!truth)
		abort();
}

static bool family_is_valid(const struct ip *ip)
{
	return ip->family == 0 || ip->family == 4 || ip->family == 6;
}

static void try_link(const struct nlmsghdr *h, struct err *err)
{
	struct nl_link link;

	if (nl_link_parse(h, &link, err) < 0)
		return;
	require(memchr(link.name, 0, sizeof(link.name)) && memchr(link.alias, 0, sizeof(link.alias)));
	require((link.port_flags & ~link.port_known) == 0);
	require(family_is_valid(&link.vxlan.local));
	require(link.deleted == (h->nlmsg_type == RTM_DELLINK));
	err->code = ERR_OK;
}

static void try_row(const struct nlmsghdr *h, struct err *err)
{
	struct nl_row row;

	if (nl_row_parse(h, &row, err) < 0)
		return;
	require(row.kind <= NL_ROW_NEIGH && family_is_valid(&row.ip));
	require(row.kind != NL_ROW_BRIDGE || row.master != 0);
	err->code = ERR_OK;
}

static void try_addr(const struct nlmsghdr *h, struct err *err)
{
	struct nl_addr addr;

	if (nl_addr_parse(h, &addr, err) < 0)
		return;
	require(addr.prefix.ip.family && addr.prefix.length <= ip_bits(&addr.prefix.ip));
	err->code = ERR_OK;
}

static void try_route(const struct nlmsghdr *h, struct err *err)
{
	struct nl_route route;

	if (nl_route_parse(h, &route, err) < 0)
		return;
	require(route.to.ip.family && route.to.length <= ip_bits(&route.to.ip));
	require(family_is_valid(&route.gateway) && family_is_valid(&route.source));
	err->code = ERR_OK;
}

static void try_table(const struct nlmsghdr *h, struct err *err)
{
	struct nl_neigh_table table;

	if (nl_neigh_table_parse(h, &table, err) == 0)
		err->code = ERR_OK;
}

static const struct {
	uint16_t type;
	void (*attempt)(const struct nlmsghdr *h, struct err *err);
} kinds[] = {
	{RTM_NEWLINK, try_link},
	{RTM_DELLINK, try_link},
	{RTM_NEWNEIGH, try_row},
	{RTM_DELNEIGH, try_row},
	{RTM_NEWADDR, try_addr},
	{RTM_DELADDR, try_addr},
	{RTM_NEWROUTE, try_route},
	{RTM_DELROUTE, try_route},
	{RTM_NEWNEIGHTBL, try_table},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err err = {.code = ERR_INTERNAL};
	struct nlmsghdr *h;
	size_t kind;

	if (size == 0 || size > INPUT_MAX)
		return 0;
	kind = data[0] % (sizeof(kinds) / sizeof(kinds[0]));
	h = malloc(NLMSG_HDRLEN + size - 1);
	if (!h)
		return 0;
	*h = (struct nlmsghdr){.nlmsg_len = NLMSG_HDRLEN + (uint32_t)size - 1, .nlmsg_type = kinds[kind].type};
	memcpy((uint8_t *)h + NLMSG_HDRLEN, data + 1, size - 1);
	kinds[kind].attempt(h, &err);
	/* A refusal is named: what is corrupt, or a bug of ours never seen. */
	require(err.code == ERR_OK || err.code == ERR_CORRUPT);
	free(h);
	return 0;
}

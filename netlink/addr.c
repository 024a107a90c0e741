/* Addresses of links. See addr.h. */
#include "netlink/addr.h"

#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include "netlink/build.h"
#include "netlink/parse.h"

enum { A_LOCAL, A_ADDRESS, A_COUNT };
static const struct nl_policy addr_policy[A_COUNT] = {
	[A_LOCAL] = NL_RANGE(IFA_LOCAL, 4, 16),
	[A_ADDRESS] = NL_RANGE(IFA_ADDRESS, 4, 16),
};

int nl_addr_parse(const struct nlmsghdr *h, struct nl_addr *ret_addr, struct err *err)
{
	const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(h);
	const struct nlattr *a[A_COUNT];
	struct ip ip;

	if (nl_parse_message(h, sizeof(*ifa), addr_policy, A_COUNT, a, err) < 0)
		return -1;
	ip = nl_ip(a[A_LOCAL] ? a[A_LOCAL] : a[A_ADDRESS]);
	if (!ip.family || ifa->ifa_prefixlen > ip_bits(&ip))
		return err_set(err, ERR_CORRUPT, "netlink address of link %u: no address, or prefix length %u too long",
			ifa->ifa_index, ifa->ifa_prefixlen);
	*ret_addr = (struct nl_addr){
		.deleted = h->nlmsg_type == RTM_DELADDR,
		.ifindex = ifa->ifa_index,
		.prefix = {.ip = ip, .length = ifa->ifa_prefixlen},
	};
	return 0;
}

static void begin(struct nlb *b, uint16_t type, uint16_t flags, uint32_t ifindex, const struct prefix *address)
{
	bool v6 = address->ip.family == 6;
	struct ifaddrmsg ifa = {
		.ifa_family = v6 ? AF_INET6 : AF_INET,
		.ifa_prefixlen = address->length,
		.ifa_flags = v6 ? IFA_F_NODAD : 0,
		.ifa_index = ifindex,
	};

	nlb_begin(b, type, flags, &ifa, sizeof(ifa));
	nlb_put_ip(b, IFA_LOCAL, &address->ip);
	nlb_put_ip(b, IFA_ADDRESS, &address->ip);
}

void nl_addr_dump_request(struct nlb *b)
{
	struct ifaddrmsg ifa = {0};

	nlb_begin(b, RTM_GETADDR, 0, &ifa, sizeof(ifa));
}

void nl_addr_put_request(struct nlb *b, uint32_t ifindex, const struct prefix *address)
{
	begin(b, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, ifindex, address);
}

void nl_addr_del_request(struct nlb *b, uint32_t ifindex, const struct prefix *address)
{
	begin(b, RTM_DELADDR, 0, ifindex, address);
}

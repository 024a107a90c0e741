/* The MTU of the device that has an address of this host: how large an inner packet may be. No state, no node. */
#include "daemon/underlay.h"

#include <ifaddrs.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netlink/build.h"
#include "netlink/route.h"
#include "netlink/socket.h"

#define VXLAN_OVERHEAD_4 50 /* outer Ethernet 14, IPv4 20, UDP 8, VXLAN 8 (RFC 7348 section 5) */
#define VXLAN_OVERHEAD_6 70
#define MTU_FALLBACK 1500

static unsigned mtu_of(const char *ifname)
{
	struct ifreq req = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	unsigned mtu = MTU_FALLBACK;

	snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", ifname);
	if (fd >= 0 && ioctl(fd, SIOCGIFMTU, &req) == 0)
		mtu = (unsigned)req.ifr_mtu;
	if (fd >= 0)
		close(fd);
	return mtu;
}

static bool is_address(const struct sockaddr *sa, const struct ip *ip)
{
	if (!sa)
		return false;
	if (sa->sa_family == AF_INET && ip->family == 4)
		return memcmp(&((const struct sockaddr_in *)(const void *)sa)->sin_addr, ip->bytes, 4) == 0;
	return sa->sa_family == AF_INET6 && ip->family == 6 &&
	       memcmp(&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, ip->bytes, 16) == 0;
}

static int take_route(void *arg, const struct nlmsghdr *h, struct err *err)
{
	return nl_route_parse(h, arg, err);
}

/* By the route that the kernel keeps for an address of its own. */
static bool device_by_route(const struct ip *own, char ret_name[IF_NAMESIZE])
{
	struct nl_route route = {0};
	struct nl_socket *s;
	struct nlb b;
	struct err err;
	int result;

	if (nl_open(-1, NULL, 0, &s, &err) < 0)
		return false;
	nl_route_get_request(&b, own);
	result = nl_query(s, &b, take_route, &route, &err);
	nl_close(s);
	return result == 0 && route.type == RTN_LOCAL && route.oif && if_indextoname(route.oif, ret_name);
}

/* Of a device that is down, or of a VRF, the first table asked has no route. A dump waits for whoever configures a device. */
static bool device_by_dump(const struct ip *own, char ret_name[IF_NAMESIZE])
{
	struct ifaddrs *list, *at;

	if (getifaddrs(&list) < 0)
		return false;
	for (at = list; at && !is_address(at->ifa_addr, own); at = at->ifa_next)
		;
	if (at)
		snprintf(ret_name, IF_NAMESIZE, "%s", at->ifa_name);
	freeifaddrs(list);
	return at != NULL;
}

unsigned underlay_mtu(const struct ip *own)
{
	char name[IF_NAMESIZE];

	return device_by_route(own, name) || device_by_dump(own, name) ? mtu_of(name) : MTU_FALLBACK;
}

unsigned underlay_overhead(const struct ip *own)
{
	return own->family == 6 ? VXLAN_OVERHEAD_6 : VXLAN_OVERHEAD_4;
}

/* The fabric: the network namespace that holds the bridges and vxlan devices, out of reach of host firewalls and network
 * managers. */
#include <stddef.h>
#include <unistd.h>

#include "driver/vxlan/vxlan_internal.h"
#include "netlink/netns.h"

static const struct {
	const char *path, *value;
} settings[] = {
	/* Else each of our devices sends router solicitations, MLD reports and DAD probes into the containers' segment. */
	{"/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1"},
	{"/proc/sys/net/ipv6/conf/default/accept_ra", "0"},
	{"/proc/sys/net/ipv6/conf/default/router_solicitations", "0"},
	/* Neighbour rows for IPv6 are refused on a device where it is disabled, and a namespace may inherit that from the host.
	 */
	{"/proc/sys/net/ipv6/conf/default/disable_ipv6", "0"},
	/* Bridge netfilter is per namespace and on in a new one: a forward policy of drop would cut the segment. */
	{"/proc/sys/net/bridge/bridge-nf-call-iptables", "0"},
	{"/proc/sys/net/bridge/bridge-nf-call-ip6tables", "0"},
	{"/proc/sys/net/bridge/bridge-nf-call-arptables", "0"},
};

/* A file that is not there belongs to a module that is not loaded; it may appear later, so this is repeated at each resync. */
static int write_settings(void *arg, struct err *err)
{
	(void)arg;
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		if (netns_sysctl(settings[i].path, settings[i].value, NULL, err) < 0)
			return err_prefix(err, "fabric namespace");
	return 0;
}

int vx_fabric_prepare(int fabric_fd, struct err *err)
{
	return netns_run(fabric_fd, write_settings, NULL, err);
}

int vx_fabric_open(const char *path, int *ret_fd, struct err *err)
{
	struct err why = {0};

	if (netns_open(path, ret_fd, &why) == 0)
		return 0;
	if (why.code != ERR_NOT_FOUND) {
		if (err)
			*err = why;
		return -1;
	}
	/* Perhaps a file left by a crash between making it and mounting on it. */
	if (netns_remove(path, err) < 0 || netns_create(path, err) < 0)
		return -1;
	return netns_open(path, ret_fd, err);
}

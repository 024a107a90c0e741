/* The fabric: the network namespace that holds the bridges and vxlan devices, out of reach of host firewalls and network
 * managers. */
#include <errno.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

#include "driver/vxlan/vxlan.h"
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

/* A crash between making the file and mounting on it leaves an empty file, and a reboot does too where /run is kept. Anything
 * else is somebody's. Not unmounted first: unlink() refuses a mount point, and none that netns_open does not know is ours. */
static int remove_leftover(const char *path, struct err *err)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_sys(err, errno, "fabric namespace %s", path);
	if (!S_ISREG(st.st_mode) || st.st_size > 0)
		return err_set(err, ERR_CONFLICT,
			"fabric namespace %s: expected a network namespace, an empty file or nothing, found %s; name another "
			"path "
			"with --fabric, or move it away",
			path,
			S_ISDIR(st.st_mode)   ? "a directory"
			: S_ISREG(st.st_mode) ? "a file with content"
					      : "a special file");
	if (unlink(path) == 0)
		return 0;
	if (errno != EBUSY)
		return err_sys(err, errno, "remove %s", path);
	return err_set(err, ERR_CONFLICT,
		"fabric namespace %s: something that is no network namespace is mounted there; name another path with --fabric, "
		"or unmount it",
		path);
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
	if (remove_leftover(path, err) < 0 || netns_create(path, err) < 0)
		return -1;
	return netns_open(path, ret_fd, err);
}

int vxlan_prepare(const char *fabric_path, struct err *err)
{
	int fd, ret;

	if (vx_fabric_open(fabric_path, &fd, err) < 0)
		return -1;
	ret = vx_fabric_prepare(fd, err);
	close(fd);
	return ret;
}

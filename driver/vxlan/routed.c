/* Mode l3, and the host's ends of networks of mode l2 (driver_exit): what there is beside devices and rows. The sysctls of our
 * links and of the host, and the table of nat.h.
 *
 * Ours are only the links that we make: their settings are compared at each full comparison and put right. Of the host's own
 * settings two are needed, and are switched on and never off again, as others may have come to rely on them (container runtimes
 * do the same): net.ipv4.ip_forward, and net.ipv6.conf.all.forwarding, since IPv6 forwards by that one alone (a setting per
 * device came with Linux 6.17). The latter makes the kernel ignore router advertisements where accept_ra is 1; a host that lives
 * by them would lose its default route minutes later, so every such device is told to accept them all the same first (accept_ra
 * 2). */
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/alloc.h"
#include "driver/vxlan/nft.h"
#include "driver/vxlan/vxlan_internal.h"
#include "netlink/build.h"
#include "netlink/neigh.h"
#include "netlink/netns.h"
#include "netlink/route.h"

#define CONF4 "/proc/sys/net/ipv4/conf"
#define CONF6 "/proc/sys/net/ipv6/conf"
#define FORWARD4 "/proc/sys/net/ipv4/ip_forward"
#define FORWARD6 CONF6 "/all/forwarding"
#define PURGE_ROUNDS 4096 /* of a batch each */

/* False: no such file. */
static bool read_value(const char *path, char buf[16])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd >= 0 ? read(fd, buf, 15) : -1;

	if (fd >= 0)
		close(fd);
	buf[got > 0 ? got : 0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return got >= 0;
}

/* Writing a setting takes the kernel's lock, and makes notices: only what differs is written. What is not there (a host without
 * IPv6, a link that went) is not to be put right. */
static int conform(const char *path, const char *value, bool *wrote, struct err *err)
{
	char have[16];
	bool absent;

	if (read_value(path, have) && strcmp(have, value) == 0)
		return 0;
	if (netns_sysctl(path, value, &absent, err) < 0)
		return -1;
	*wrote |= !absent;
	return 0;
}

static const struct setting {
	const char *directory, *name, *value;
	bool pair, ip6; /* only of a container's link; only where the network has IPv6 */
} settings[] = {
	{CONF4, "forwarding", "1", false, false},
	/* A container sends with its own address: strictly, whatever is set for all. */
	{CONF4, "rp_filter", "1", true, false},
	{CONF4, "send_redirects", "0", false, false},
	{CONF6, "disable_ipv6", "0", false, true},
	/* None of the host's own, and no word of the host on the container's link: nobody there would ask. */
	{CONF6, "addr_gen_mode", "1", false, false},
	/* A container is no router of the host's. */
	{CONF6, "accept_ra", "0", false, false},
};

int vx_routed_conf(const char *name, bool pair, bool has_ip6, bool *wrote, struct err *err)
{
	char path[96];

	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		const struct setting *s = &settings[i];

		if ((s->pair && !pair) || (s->ip6 && !has_ip6))
			continue;
		snprintf(path, sizeof(path), "%s/%s/%s", s->directory, name, s->name);
		if (conform(path, s->value, wrote, err) < 0)
			return -1;
	}
	return 0;
}

/* ---- the host's ---- */

static int keep_advertisements(struct err *err)
{
	struct if_nameindex *names = if_nameindex();
	char path[sizeof(CONF6) + IF_NAMESIZE + 16], have[16];
	int ret = 0;

	for (const struct if_nameindex *at = names; at && at->if_name && ret == 0; at++) {
		snprintf(path, sizeof(path), CONF6 "/%s/accept_ra", at->if_name);
		if (read_value(path, have) && strcmp(have, "1") == 0)
			ret = netns_sysctl(path, "2", NULL, err);
	}
	if (names)
		if_freenameindex(names);
	return ret;
}

bool vx_routed_has(const struct prefix *pools, unsigned count, uint8_t family)
{
	for (unsigned i = 0; i < count; i++)
		if (pools[i].ip.family == family)
			return true;
	return false;
}

/* *wrote: it was off. */
static int let_forward(struct vxlan *vx, uint8_t family, bool *wrote, struct err *err)
{
	const char *path = family == 4 ? FORWARD4 : FORWARD6;
	struct vx_network *n, *next;
	bool wanted = false;
	char have[16];

	HASH_ITER(hh, vx->networks, n, next)
	wanted |= n->live && n->routed && vx_routed_has(n->routed->pools, n->routed->pool_count, family);
	for (size_t i = 0; i < vx->exit_count; i++)
		wanted |= vx_routed_has(vx->exits[i].pools, vx->exits[i].pool_count, family);
	if (!wanted || !read_value(path, have) || strcmp(have, "1") == 0)
		return 0;
	if ((family == 6 && keep_advertisements(err) < 0) || conform(path, "1", wrote, err) < 0)
		return err_prefix(
			err, "let the host forward IPv%u, which networks of mode l3 and ways out of mode l2 need", family);
	log_info("vxlan", "%s was %s: networks of mode l3 and ways out of mode l2 need 1, so it is 1 now, and stays so", path,
		have);
	return 0;
}

/* ---- netfilter ---- */

/* Docker, and firewalls, drop what is forwarded unless they know it. Rules of our table cannot overrule that. */
static int look_for_drops(struct vxlan *vx, struct err *err)
{
	struct vx_network *n, *next;
	const struct prefix *pool = NULL;
	char chain[128] = "", text[PREFIX_TEXT_SIZE];

	vx->warning[0] = '\0';
	HASH_ITER(hh, vx->networks, n, next)
	if (n->live && n->routed && n->routed->pool_count)
		pool = &n->routed->pools[0];
	for (size_t i = 0; i < vx->exit_count && !pool; i++)
		pool = vx->exits[i].pool_count ? &vx->exits[i].pools[0] : NULL;
	if (!pool)
		return 0;
	if (nft_find_forward_drop(vx->table, chain, sizeof(chain), err) < 0)
		return -1;
	if (*chain)
		snprintf(vx->warning, sizeof(vx->warning),
			"the %s drops what this host forwards, unless a rule of its accepts it: containers of CNI need one "
			"for "
			"what comes from their subnets and one for what goes there. With Docker: \"iptables -I DOCKER-USER -s %s "
			"-j "
			"ACCEPT\", and the same with -d",
			chain, prefix_format(pool, text));
	return 0;
}

static void fill(const struct vx_network *n, struct nat_network *to)
{
	const struct vx_routed *routed = n->routed;

	to->pair_group = VX_GROUP_PAIR(n->vni);
	to->tunnel_group = VX_GROUP_TUNNEL(n->vni);
	to->internal = routed->internal;
	to->pool_count = routed->pool_count;
	memcpy(to->pools, routed->pools, routed->pool_count * sizeof(routed->pools[0]));
}

static void fill_exit(const struct driver_exit *e, struct nat_network *to)
{
	to->pair_group = VX_GROUP_PAIR(e->vni);
	to->tunnel_group = VX_GROUP_TUNNEL(e->vni);
	to->pool_count = e->pool_count;
	memcpy(to->pools, e->pools, e->pool_count * sizeof(e->pools[0]));
}

/* They are made by others, but the host routes through them all the same. */
static int prepare_exits(struct vxlan *vx, bool *wrote, struct err *err)
{
	for (size_t i = 0; i < vx->exit_count; i++) {
		const struct driver_exit *e = &vx->exits[i];

		if (vx_routed_conf(e->ifname, true, vx_routed_has(e->pools, e->pool_count, 6), wrote, err) < 0)
			return err_prefix(err, "settings of link %s", e->ifname);
	}
	return 0;
}

_Static_assert(NAT_POOLS_MAX == DRIVER_POOLS_MAX, "copied");

void vx_routed_nat(struct vxlan *vx, bool *ret_wrote, struct err *err)
{
	struct nat_network *list = alloc_array(struct nat_network, HASH_COUNT(vx->networks) + vx->exit_count + 1);
	struct vx_network *n, *next;
	size_t count = 0;

	HASH_ITER(hh, vx->networks, n, next)
	if (n->live && n->routed)
		fill(n, &list[count++]);
	for (size_t i = 0; i < vx->exit_count; i++)
		fill_exit(&vx->exits[i], &list[count++]);
	/* The filters first: what is refused after them leaves nothing open. */
	vx->guard_dirty = nat_apply(vx->nat, list, count, ret_wrote, err) < 0 || prepare_exits(vx, ret_wrote, err) < 0 ||
			  let_forward(vx, 4, ret_wrote, err) < 0 || let_forward(vx, 6, ret_wrote, err) < 0 ||
			  look_for_drops(vx, err) < 0;
	free(list);
}

/* ---- our links ---- */

int vx_routed_prepare(struct vxlan *vx, struct err *err)
{
	struct vx_have_link *l, *next;

	HASH_ITER(hh, vx->links, l, next)
	{
		const struct vx_routed *routed = l->network ? l->network->routed : NULL;
		bool wrote = false;

		if (!l->assigned || !routed || !l->network->live || !l->link.up)
			continue;
		if (vx_routed_conf(l->link.name, l->endpoint != NULL, vx_routed_has(routed->pools, routed->pool_count, 6), &wrote,
			    err) < 0)
			return err_prefix(err, "settings of link %s", l->link.name);
		vx->counters.repairs += wrote;
		vx->counters.last_drift.different += wrote;
	}
	return 0;
}

/* ---- routes ---- */

struct vx_network *vx_routed_network(struct vxlan *vx, const struct prefix *to)
{
	struct vx_network *n, *next;

	HASH_ITER(hh, vx->networks, n, next)
	for (unsigned i = 0; n->routed && i < n->routed->pool_count; i++) {
		const struct prefix *pool = &n->routed->pools[i];

		if (pool->length <= to->length && prefix_contains(pool, &to->ip))
			return n;
	}
	return NULL;
}

static int delete_route(void *arg, const struct nlmsghdr *h, struct err *err)
{
	struct nl_route route;
	struct nl_batch *batch = arg;
	struct nlb b;

	if (nl_route_parse(h, &route, err) < 0)
		return -1;
	if (route.type != RTN_UNREACHABLE || route.metric != VX_METRIC_LAST || nl_batch_count(batch) == NL_BATCH_MAX)
		return 0;
	route.oif = 0;
	nl_route_del_request(&b, &route);
	nl_batch_add(batch, &b, 0);
	return 0;
}

static void ignore(void *arg, uint32_t cookie, int error, const char *extack)
{
	(void)arg, (void)cookie, (void)error, (void)extack;
}

int vx_routed_purge(struct vxlan *vx, struct err *err)
{
	struct nlb b;

	for (unsigned round = 0; round < PURGE_ROUNDS; round++) {
		for (uint8_t family = 4; family <= 6; family += 2) {
			nl_route_dump_own_request(&b, family);
			if (nl_dump(vx->fabric, &b, delete_route, NULL, vx->batch, NULL, err) < 0)
				return err_prefix(err, "list routes of the host");
		}
		if (!nl_batch_count(vx->batch))
			return 0;
		if (nl_batch_send(vx->fabric, vx->batch, ignore, NULL, err) < 0)
			return err_prefix(err, "delete routes of the host");
	}
	return err_set(err, ERR_SYSTEM, "routes of the host with protocol %d keep coming back", NL_PROTOCOL_OWN);
}

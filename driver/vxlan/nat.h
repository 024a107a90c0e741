/* What routed networks (mode l3), and the host's ends of others (driver_exit), need of netfilter, in an nft table of our own
 * (`inet <name>`), in the network namespace where nat_open was called. Devices are told by their group, which is made of the
 * network's VNI (plan.h), so no rule depends on a name.
 *
 * - prerouting: a container's packet whose source is not an address of that container is counted as spoofed and dropped (strict
 *   reverse path; IPv4 has rp_filter too, IPv6 has nothing else).
 * - forward: from one routed network to another, from the tunnel back into it, and into or out of an internal network: counted as
 *   strayed, dropped.
 * - postrouting: what goes into the tunnel with a source that is no address of a pool (the host after DNAT, or whoever the host
 *   forwards for) is translated to this host's own address in that network, which the other hosts have a route to. What goes out
 *   of the pools to anywhere else is translated to the address of the device it leaves by.
 *
 * The postrouting chain comes behind those of iptables, so a translation that others ask for counts first. Chains of others that
 * drop what is forwarded stay in force: nothing here can overrule them.
 *
 * The table exists while there is a routed network with devices here, since address translation makes conntrack look at every
 * packet of the host. It outlives the daemon: nat_close leaves it working. */
#ifndef DRIVER_VXLAN_NAT_H
#define DRIVER_VXLAN_NAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/err.h"

struct nat;
struct nft;

#define NAT_POOLS_MAX 8

struct nat_network {
	uint32_t pair_group, tunnel_group;
	bool internal;
	unsigned pool_count;
	struct prefix pools[NAT_POOLS_MAX];
};

int nat_open(const char *table, struct nat **ret_nat, struct err *err);
void nat_close(struct nat *nat);
struct nft *nat_nft(struct nat *nat); /* the table, for its notices */

/* Makes the kernel hold exactly these; without any, no table. *ret_wrote: the kernel had it otherwise. */
int nat_apply(struct nat *nat, const struct nat_network *networks, size_t count, bool *ret_wrote, struct err *err);
/* Packets since the table was built; 0 when there is none. */
int nat_counters(struct nat *nat, uint64_t *ret_spoofed, uint64_t *ret_strayed, struct err *err);
int nat_purge(struct nat *nat, struct err *err);

#endif

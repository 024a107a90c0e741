/* Networks on kernel VXLAN. Mode l2: per network a bridge and a vxlan device in the fabric namespace, per endpoint a veth pair.
 * Mode l3: per network a vxlan device in the host's namespace, per endpoint a veth pair, and routes. Each mode is a driver of its
 * own, of the same code. Theory of operation: the top of vxlan.c. */
#ifndef DRIVER_VXLAN_VXLAN_H
#define DRIVER_VXLAN_VXLAN_H

#include "driver/driver.h"

#define VXLAN_PORT 4789 /* IANA, RFC 7348 section 5 */

struct vxlan_config {
	const char *fabric_path; /* "/run/netns/trestle": made when absent, adopted when live */
	uint16_t port;		 /* UDP, host order; 0 = VXLAN_PORT */
	struct ip local;	 /* VTEP: our underlay address */
	uint32_t hostno;	 /* seeds the VTEP devices' MACs */
	const char *table;	 /* nft table name, default "trestle"; that of mode l3 is the same with "-l3" behind it */
	bool routed;		 /* the driver of mode l3 */
};

/* Opens sockets in the caller's and the fabric's network namespace, adopts what carries our tag. The host's namespace is the one
 * the calling thread is in. The driver of mode l2 keeps the members-only filter for both, so it is told of every network. */
int vxlan_open(const struct vxlan_config *config, struct driver **ret_driver, struct err *err);
/* Makes the fabric when it is absent and sets its sysctls, which takes more rights than the rest: a daemon in a container without
 * privileges finds it done. */
int vxlan_prepare(const char *fabric_path, struct err *err);

/* The MAC of a host's vxlan devices, by which the others speak to it in mode l3: made of its number, so no two have one. */
struct mac vxlan_tunnel_mac(uint32_t hostno);

/* The group of a network's links to containers in the host's namespace: what its filters tell them by. */
uint32_t vxlan_pair_group(uint32_t vni);

#endif

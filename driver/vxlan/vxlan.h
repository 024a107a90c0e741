/* Mode l2 on kernel VXLAN: per network a bridge and a vxlan device in the fabric namespace, per endpoint a veth pair.
 * Theory of operation: the top of vxlan.c. Messages and kernel behaviour: `kernel.md` 12 of the design references. */
#ifndef DRIVER_VXLAN_VXLAN_H
#define DRIVER_VXLAN_VXLAN_H

#include "driver/driver.h"

#define VXLAN_PORT 4789 /* IANA, RFC 7348 section 5 */

struct vxlan_config {
	const char *fabric_path; /* "/run/netns/trestle": made when absent, adopted when live */
	uint16_t port;		 /* UDP, host order; 0 = VXLAN_PORT */
	struct ip local;	 /* VTEP: our underlay address */
	uint32_t hostno;	 /* seeds the VTEP devices' MACs */
	const char *table;	 /* nft table name, default "trestle" */
};

/* Opens sockets in the caller's and the fabric's network namespace, adopts what carries our tag. The host's namespace is the one
 * the calling thread is in. */
int vxlan_open(const struct vxlan_config *config, struct driver **ret_driver, struct err *err);
/* Makes the fabric when it is absent and sets its sysctls, which takes more rights than the rest: a daemon in a container without
 * privileges finds it done. */
int vxlan_prepare(const char *fabric_path, struct err *err);

#endif

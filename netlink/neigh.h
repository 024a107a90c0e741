/* Rows of RTM_NEWNEIGH: forwarding entries of vxlan devices (SELF) and bridges (MASTER), and neighbours (ARP, ND). */
#ifndef NETLINK_NEIGH_H
#define NETLINK_NEIGH_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/err.h"

struct nlb;

#define NL_PROTOCOL_OWN 111 /* tags our neighbours and routes: rtm_protocol, NDA_PROTOCOL */

enum nl_row_kind {
	NL_ROW_OTHER,
	NL_ROW_VXLAN,  /* a device's own row: MAC -> dst; MAC zero: one more destination of what is flooded */
	NL_ROW_BRIDGE, /* a bridge's row: MAC -> port */
	NL_ROW_NEIGH,  /* IP -> MAC on a device */
};

struct nl_row {
	bool deleted; /* RTM_DELNEIGH */
	enum nl_row_kind kind;
	uint32_t ifindex; /* the device; for NL_ROW_BRIDGE the port */
	uint32_t master;  /* NL_ROW_BRIDGE: the bridge */
	struct mac mac;	  /* zero when the kernel has none yet */
	struct ip ip;	  /* dst of a vxlan row, address of a neighbour */
	uint16_t state;	  /* NUD_ */
	uint8_t flags;	  /* NTF_ */
	uint8_t protocol; /* neighbours only */
};

int nl_row_parse(const struct nlmsghdr *h, struct nl_row *ret_row, struct err *err);

void nl_fdb_dump_request(struct nlb *b); /* all rows of all bridges and vxlan devices */
/* The rows of one bridge port alone, its own (SELF) and its bridge's. A dump of everything walks each bridge's whole table once
 * per port, which a thousand ports and ten thousand rows make felt. */
void nl_fdb_dump_port_request(struct nlb *b, uint32_t port);
/* One bridge row, by MAC; ENOENT when there is none. The answer may be of another port than the one asked through. */
void nl_bridge_row_get_request(struct nlb *b, uint32_t port, const struct mac *mac);
void nl_neigh_dump_request(struct nlb *b, uint8_t family /* 4 or 6 */);

/* The kernel's neighbour table of a family. It is one for all network namespaces, and so are its limits; a namespace sees its own
 * rows alone, but these figures everywhere (/proc and /sys have them in the first namespace only). */
struct nl_neigh_table {
	uint32_t entries; /* all; those that are permanent or learned elsewhere do not count against the limit (Linux 5.0) */
	uint32_t limit;	  /* gc_thresh3 */
	uint64_t full;	  /* how often since the boot a neighbour found no room */
};
void nl_neigh_table_request(struct nlb *b, uint8_t family /* 4 or 6 */); /* a dump: the table, then a message for each device */
/* ret_table stays as it is for a device's message. */
int nl_neigh_table_parse(const struct nlmsghdr *h, struct nl_neigh_table *ret_table, struct err *err);
bool nl_row_counts(const struct nl_row *row); /* against the limit of its table */

/* Unicast rows are written with CREATE|REPLACE: CREATE alone returns 0 and changes nothing when the row is there with other
 * content. The zero MAC takes CREATE|APPEND, and REPLACE is refused. */
void nl_fdb_put_request(struct nlb *b, uint32_t vxlan, const struct mac *mac, const struct ip *dst);
void nl_fdb_del_request(struct nlb *b, uint32_t vxlan, const struct mac *mac, const struct ip *dst /* NULL: all of them */);
/* NOARP ("static"): PERMANENT in a bridge row means the bridge itself, and frames would end there. */
void nl_bridge_row_put_request(struct nlb *b, uint32_t port, const struct mac *mac);
void nl_bridge_row_del_request(struct nlb *b, uint32_t port, const struct mac *mac);
void nl_neigh_put_request(struct nlb *b, uint32_t ifindex, const struct ip *ip, const struct mac *mac);
void nl_neigh_del_request(struct nlb *b, uint32_t ifindex, const struct ip *ip);

#endif

/* From what is wanted and what the kernel has to what must be done. Pure: no socket, no clock, no netlink.
 *
 * Each plan_ function compares one object and appends the operations that make the kernel agree; nothing is appended when it
 * does. Applying a plan and planning again therefore gives an empty plan: restart, retry and repair rest on that. */
#ifndef DRIVER_VXLAN_PLAN_H
#define DRIVER_VXLAN_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/id.h"
#include "driver/driver.h"

#define VX_NAME_SIZE 16
#define VX_ALIAS_SIZE 256
#define VX_PLAN_MAX 256	   /* operations; a caller applies a plan before it has less than VX_PLAN_RESERVE left */
#define VX_PLAN_RESERVE 16 /* no single object needs more */

/* Link groups (IFLA_GROUP) are honoured in the create message, ifalias is not. So a link is born in VX_GROUP_NEW and leaves it
 * with the message that tags it: one that is found there untagged is ours, left by a crash between the two. VX_GROUP_REAP holds
 * links that are down, out of their bridge, and wait to be deleted in one call. Group 0 is every other link of the fabric; in the
 * host's namespace a group tells the table of nat.h the network, and whether it is a container's link or the tunnel. */
#define VX_GROUP_NEW 0x7472656eu
#define VX_GROUP_REAP 0x74726578u
#define VX_GROUP_PAIR(vni) (0x54000000u | (vni))
#define VX_GROUP_TUNNEL(vni) (0x55000000u | (vni))

enum vx_kind { VX_OTHER, VX_BRIDGE, VX_VXLAN, VX_VETH };

enum { /* bridge port flags; the values are those of netlink/link.h (checked in apply.c) */
	VX_PORT_LEARNING = 1u << 0,
	VX_PORT_FLOOD = 1u << 1,
	VX_PORT_MCAST_FLOOD = 1u << 2,
	VX_PORT_BCAST_FLOOD = 1u << 3,
	VX_PORT_NEIGH_SUPPRESS = 1u << 4,
	VX_PORT_LOCKED = 1u << 5,
};

/* "trestle:<network, 32 hex digits>:<endpoint>" in ifalias; endpoint empty for a network's own devices. */
struct vx_tag {
	struct id128 network;
	char endpoint[DRIVER_ENDPOINT_ID_MAX + 1];
};
bool vx_tag_parse(const char *alias, struct vx_tag *ret_tag);
const char *vx_tag_format(const struct id128 *network, const char *endpoint, char buf[VX_ALIAS_SIZE]);

/* "<prefix><10 hex digits>": of the network, the endpoint (may be "") and a salt that tells collisions apart. */
void vx_name(char buf[VX_NAME_SIZE], const char *prefix, const struct id128 *network, const char *endpoint, uint32_t salt);
/* Locally administered; `role` is its first byte, so that it never meets an endpoint's MAC (those begin with 02). */
struct mac vx_mac(uint8_t role, const struct id128 *network, const char *endpoint, uint32_t hostno);

struct vx_tunnel {
	uint32_t vni;
	struct ip local;
	uint16_t port;
};

/* A link that the kernel has. */
struct vx_link {
	uint32_t index, master, mtu, group;
	enum vx_kind kind;
	bool up, tagged;
	bool options_ok; /* of a bridge: STP, ageing and snooping off; of a vxlan device: learning off */
	char name[VX_NAME_SIZE];
	struct mac mac;
	uint32_t port_known, port_flags;
	struct vx_tunnel tunnel;
	struct vx_tag tag;
};

/* Wanted devices. `index` and `name` are used when the device has to be made. */
struct vx_want_device {
	uint32_t index, group;
	char name[VX_NAME_SIZE];
	struct mac mac;
};

struct vx_want_network {
	struct id128 id;
	uint32_t mtu;
	struct vx_tunnel tunnel;
	struct vx_want_device bridge, vxlan; /* no bridge in a routed one */
	bool routed, has_ip6;
};

struct vx_want_endpoint {
	struct id128 network;
	const char *id; /* borrowed */
	struct vx_want_device device;
	uint32_t bridge, mtu; /* bridge 0: routed */
	bool has_ip6;
	struct mac peer_mac;
	char peer_name[VX_NAME_SIZE];
	int peer_netns; /* 0: the host's */
};

enum vx_row_kind {
	VX_ROW_FLOOD,  /* a destination of what is flooded: ip */
	VX_ROW_REMOTE, /* on the vxlan device: mac -> ip */
	VX_ROW_PORT,   /* on the bridge: mac -> port (an ifindex; VX_PORT_TUNNEL: the vxlan device, whatever its number) */
	VX_ROW_NEIGH,  /* ip -> mac; on the bridge, or, routed, on `port`. Of another port it is another row */
	VX_ROW_ROUTE,  /* routed: ip/length -> port, with the source; VX_PORT_NONE: unreachable */
	VX_ROW_ADDR,   /* routed: an address of this host, on the vxlan device: ip */
};
#define VX_PORT_TUNNEL 0
#define VX_PORT_NONE UINT32_MAX

struct vx_row {
	enum vx_row_kind kind;
	struct mac mac;
	struct ip ip;
	uint8_t length;	  /* of a route */
	struct ip source; /* of a route: what the host itself sends with; family 0: as the kernel likes */
	uint32_t port;
};

/* Our routes have metrics of our own: a kernel request to replace a route takes the first one of that prefix and metric, whoever
 * owns it. One for what is not reachable comes last. */
#define VX_METRIC 111
#define VX_METRIC_LAST 0x7ffffff0u

enum vx_op_kind {
	VX_OP_BRIDGE_NEW,
	VX_OP_VXLAN_NEW, /* the only one sent from the host's namespace: the socket stays where the request came from */
	VX_OP_VETH_NEW,
	VX_OP_LINK_SET, /* members named by `set` */
	VX_OP_BRIDGE_SET,
	VX_OP_VXLAN_SET,
	VX_OP_PORT_SET,
	VX_OP_CONF, /* the link's sysctls, in the host's namespace: not a message */
	VX_OP_LINK_DEL,
	VX_OP_ROW_PUT,
	VX_OP_ROW_DEL,
	VX_OP_MAX
};

enum { /* vx_op.set */
	VX_SET_TAG = 1u << 0,
	VX_SET_GROUP = 1u << 1,
	VX_SET_MASTER = 1u << 2,
	VX_SET_MTU = 1u << 3,
	VX_SET_MAC = 1u << 4,
	VX_SET_UP = 1u << 5,
	VX_SET_DOWN = 1u << 6,
	VX_SET_PORT = 1u << 7, /* port_flags, before VX_SET_UP, which goes with it */
};

enum { VX_OWNER_NONE, VX_OWNER_NETWORK, VX_OWNER_ENDPOINT, VX_OWNER_ROW };

struct vx_op {
	enum vx_op_kind kind;
	uint32_t index; /* the link; for rows the device that has the row */
	uint32_t set, master, mtu, group, port_mask, port_flags;
	bool pair, has_ip6; /* VX_OP_CONF: a container's link; its network has IPv6 */
	char name[VX_NAME_SIZE];
	struct mac mac;
	struct id128 network;
	const char *endpoint; /* borrowed, "" for a network's devices */
	union {
		struct vx_tunnel tunnel;
		struct {
			char name[VX_NAME_SIZE];
			struct mac mac;
			int netns;
		} peer;
		struct vx_row row;
	};
	void *owner; /* the caller's, handed through */
	unsigned owner_kind;
	bool done; /* set by who applies it */
};

struct vx_plan {
	size_t count;
	struct vx_op ops[VX_PLAN_MAX];
};

bool vx_plan_full(const struct vx_plan *plan);

/* `bridge` and `vxlan` are what the kernel has, or NULL. A vxlan device whose VNI, port or address family differs cannot be
 * changed: it is marked for reaping and a new one made. Devices are never given a smaller MTU than they have: a bridge drops in
 * silence what is larger than the port, so a device stays above the containers that were made before (their MTU is lowered from
 * outside). */
void vx_plan_network(
	struct vx_plan *plan, const struct vx_want_network *want, const struct vx_link *bridge, const struct vx_link *vxlan);
/* The same for a routed network, whose only device is the vxlan device. */
void vx_plan_routed(struct vx_plan *plan, const struct vx_want_network *want, const struct vx_link *vxlan);
/* `have` NULL and `make`: the pair is made. */
void vx_plan_endpoint(struct vx_plan *plan, const struct vx_want_endpoint *want, const struct vx_link *have, bool make);
/* Takes a link out of service at once, in one message; its deletion, which waits for RCU, comes later. */
void vx_plan_mark(struct vx_plan *plan, const struct vx_link *link);
/* `want` and `have` have the same key; NULL: none. `device` has the row; `tunnel` is the vxlan device that VX_PORT_TUNNEL stands
 * for. */
void vx_plan_row(struct vx_plan *plan, const struct vx_row *want, const struct vx_row *have, uint32_t device, uint32_t tunnel);

/* "add pair tv12 with peer c0": for errors. */
const char *vx_op_describe(const struct vx_op *op, char *buf, size_t size);
/* What to do about this error of this operation, or NULL. */
const char *vx_op_hint(const struct vx_op *op, int sys_errno);
/* "Already so" is success: what should go is not there. */
bool vx_op_is_done(const struct vx_op *op, int sys_errno);
/* The pair that it is about went away, with its container's namespace, after it was seen: no failure. The notice of that, which
 * the kernel has sent or is about to, says what is left to do. */
bool vx_op_is_moot(const struct vx_op *op, int sys_errno);

#endif

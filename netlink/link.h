/* Links: bridge, vxlan and veth, made, changed, dumped and parsed. */
#ifndef NETLINK_LINK_H
#define NETLINK_LINK_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/err.h"

struct nlb;

#define NL_IFNAME_SIZE 16 /* IFNAMSIZ */
#define NL_ALIAS_SIZE 256 /* IFALIASZ */

enum nl_link_kind { NL_LINK_OTHER, NL_LINK_BRIDGE, NL_LINK_VXLAN, NL_LINK_VETH };

enum { /* flags of a bridge port */
	NL_PORT_LEARNING = 1u << 0,
	NL_PORT_FLOOD = 1u << 1, /* unknown unicast */
	NL_PORT_MCAST_FLOOD = 1u << 2,
	NL_PORT_BCAST_FLOOD = 1u << 3,
	NL_PORT_NEIGH_SUPPRESS = 1u << 4,
	NL_PORT_LOCKED = 1u << 5,
};

struct nl_vxlan {
	uint32_t vni;
	struct ip local;
	uint16_t port; /* host order */
	bool learning;
};

struct nl_bridge {
	bool stp, mcast_snooping;
	uint32_t ageing_time; /* in 1/100 s */
};

/* What one RTM_NEWLINK or RTM_DELLINK says. */
struct nl_link {
	bool deleted;	  /* RTM_DELLINK */
	bool bridge_only; /* ifi_family AF_BRIDGE: about the port alone; deleted then means "left its bridge" */
	uint32_t index, flags /* IFF_ */, mtu, group, master, peer_index /* IFLA_LINK */;
	int32_t peer_nsid; /* IFLA_LINK_NETNSID, -1 when the peer is in the same namespace */
	char name[NL_IFNAME_SIZE];
	char alias[NL_ALIAS_SIZE];
	struct mac mac;
	enum nl_link_kind kind;
	uint32_t port_known, port_flags; /* NL_PORT_: which the kernel told, and which are on */
	struct nl_vxlan vxlan;
	struct nl_bridge bridge;
};

int nl_link_parse(const struct nlmsghdr *h, struct nl_link *ret_link, struct err *err);

void nl_link_dump_request(struct nlb *b); /* all links, without statistics */
void nl_link_get_request(struct nlb *b, uint32_t index);
void nl_link_get_by_name_request(struct nlb *b, const char *name);

/* What every new link has. Zero members are left to the kernel. */
struct nl_link_new {
	uint32_t index; /* our own number: then we know it without an echo */
	const char *name;
	struct mac mac;
	uint32_t mtu, group, master;
	int netns_fd; /* where it goes; -1: the socket's namespace */
	bool up;
};

void nl_bridge_new_request(struct nlb *b, const struct nl_link_new *link);
void nl_vxlan_new_request(struct nlb *b, const struct nl_link_new *link, const struct nl_vxlan *vxlan);
/* The pair in one message; `peer` may go to another namespace. */
void nl_veth_new_request(struct nlb *b, const struct nl_link_new *link, const struct nl_link_new *peer);

/* A change of an existing link: begin, then any of the nl_link_put_ calls. */
void nl_link_set_request(struct nlb *b, uint32_t index);
void nl_link_set_up_request(struct nlb *b, uint32_t index, bool up); /* may carry further attributes too */
/* The same for a bridge's port: its flags (NL_PORT_), and then up. */
void nl_link_set_port_up_request(struct nlb *b, uint32_t index, uint32_t mask, uint32_t flags);
void nl_link_put_alias(struct nlb *b, const char *alias);
void nl_link_put_group(struct nlb *b, uint32_t group);
void nl_link_put_master(struct nlb *b, uint32_t master); /* 0: none */
void nl_link_put_mtu(struct nlb *b, uint32_t mtu);
void nl_link_put_mac(struct nlb *b, const struct mac *mac);
void nl_bridge_set_request(struct nlb *b, uint32_t index); /* back to the options that nl_bridge_new_request gives */
void nl_vxlan_set_request(struct nlb *b, uint32_t index, const struct ip *local);	/* local address, learning off */
void nl_port_set_request(struct nlb *b, uint32_t index, uint32_t mask, uint32_t flags); /* NL_PORT_ */

void nl_link_del_request(struct nlb *b, uint32_t index);
/* Deletes every link of the group in one call. Group 0 is every link there is: the request is then made unsendable. */
void nl_link_del_group_request(struct nlb *b, uint32_t group);

#endif

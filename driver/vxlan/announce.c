/* Tells this host's containers that an address has another MAC than it had.
 *
 * A container keeps what it learnt: Linux holds an entry as STALE for as long as its table has room, and first asks the old MAC
 * alone, again and again, before it asks everybody. Nothing is flooded for MACs that are unknown, so until then its frames go
 * nowhere. The bridge knows better from the moment the row changes, and says so at once:
 *
 *   IPv4  an ARP request and a reply whose sender and target are the address itself. RFC 5227 section 3 gives the request as the
 *         form of an announcement; RFC 826 updates an entry from any packet's sender, but some hosts heed only one of the two.
 *         Linux takes either at once, even within the second that it locks an entry for (is_garp in arp_process).
 *   IPv6  an unsolicited neighbour advertisement to all nodes, override set, with the target's link-layer address (RFC 4861
 *         7.2.6). Its source is the target, for the bridge has no address.
 *
 * Sent from the bridge device through a packet socket, they pass every container's port and none other: the bridge keeps both
 * from a port that suppresses neighbours, which the tunnel's is, so nothing goes on the wire. (br_do_proxy_suppress_arp: sender
 * equal to target; br_do_suppress_nd: an advertisement that nobody solicited.) The endpoint that the address is given to does not
 * hear it: its link is down still while its rows are put. That matters for IPv6, where duplicate address detection would take it
 * for a second owner.
 *
 * What containers may have learnt is the MAC in vx_entry.last while a row is there, and in vx_network.former after. Only a
 * network with endpoints here has such memories, and at most FORMER_MAX of them; the oldest is forgotten first.
 *
 * One announcement reaches each endpoint of the network here, so what is bounded is their product: COPIES in TICK_MS. The rest
 * waits, each address once, for the timer, which is part of the driver's notify descriptor. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/icmpv6.h>
#include <netinet/ip6.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "driver/vxlan/vxlan_internal.h"
#include "base/alloc.h"
#include "netlink/netns.h"

#define FORMER_MAX 1024
#define COPIES 4000
#define TICK_MS 20

/* The last MAC of an address that has no row now. */
struct vx_former {
	struct vx_key key;
	struct mac mac;
	UT_hash_handle hh; /* vx_network.former, the oldest first */
};

/* An address to be announced with the MAC that its row has when its turn comes. */
struct vx_announcement {
	struct {
		struct id128 network;
		struct vx_key address;
	} key;
	UT_hash_handle hh; /* vxlan.announcements, in order */
};

_Static_assert(sizeof(((struct vx_announcement *)NULL)->key) == sizeof(struct id128) + sizeof(struct vx_key), "no gaps in a key");

struct arp_frame {
	struct ethhdr eth;
	struct arphdr arp;
	uint8_t sender_mac[6], sender_ip[4], target_mac[6], target_ip[4];
} __attribute__((packed));

struct na_frame {
	struct ethhdr eth;
	struct ip6_hdr ip;
	struct icmp6hdr icmp;
	uint8_t target[16];
	uint8_t option_type, option_units;
	uint8_t option_mac[6];
} __attribute__((packed));

_Static_assert(sizeof(struct arp_frame) == 14 + 28, "RFC 826");
_Static_assert(sizeof(struct na_frame) == 14 + 40 + 8 + 16 + 8, "RFC 4861 4.4");

/* ---- what containers may have learnt ---- */

static void former_free(struct vx_network *n, struct vx_former *f)
{
	HASH_DEL(n->former, f);
	free(f);
}

static void enqueue(struct vxlan *vx, const struct vx_entry *e)
{
	struct vx_announcement *a, new = {.key = {.network = e->network->id, .address = e->key}};

	HASH_FIND(hh, vx->announcements, &new.key, sizeof(new.key), a);
	if (a)
		return;
	a = alloc_new(struct vx_announcement);
	*a = new;
	HASH_ADD(hh, vx->announcements, key, sizeof(a->key), a);
}

void vx_announce_put(struct vxlan *vx, struct vx_entry *e)
{
	struct vx_former *f;
	struct mac last = e->last;

	if (e->key.kind != VX_ROW_NEIGH)
		return;
	HASH_FIND(hh, e->network->former, &e->key, sizeof(e->key), f);
	if (f) {
		if (mac_is_zero(&last))
			last = f->mac;
		former_free(e->network, f);
	}
	e->last = e->have.mac;
	if (!mac_is_zero(&last) && !mac_equal(&last, &e->last))
		enqueue(vx, e);
}

void vx_announce_forget(struct vx_entry *e)
{
	struct vx_network *n = e->network;
	struct vx_former *f;

	if (mac_is_zero(&e->last) || !n->live || n->routed)
		return;
	HASH_FIND(hh, n->former, &e->key, sizeof(e->key), f);
	if (f)
		former_free(n, f);
	else if (HASH_COUNT(n->former) >= FORMER_MAX)
		former_free(n, n->former);
	f = alloc_new(struct vx_former);
	f->key = e->key;
	f->mac = e->last;
	HASH_ADD(hh, n->former, key, sizeof(f->key), f);
}

void vx_announce_clear(struct vx_network *n)
{
	while (n->former)
		former_free(n, n->former);
}

/* ---- frames ---- */

static void send_frame(struct vxlan *vx, uint32_t bridge, const void *frame, size_t len, uint16_t protocol)
{
	struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(protocol), .sll_ifindex = (int)bridge};

	/* A bridge that is down or gone has nobody behind it to tell; one that lacks memory is told by nothing. */
	if (sendto(vx->announce_fd, frame, len, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof(to)) == (ssize_t)len)
		vx->counters.announced++;
}

static void send_arp(struct vxlan *vx, uint32_t bridge, const struct ip *ip, const struct mac *mac, uint16_t operation)
{
	struct arp_frame f = {.eth = {.h_proto = htons(ETH_P_ARP)},
		.arp = {.ar_hrd = htons(ARPHRD_ETHER),
			.ar_pro = htons(ETH_P_IP),
			.ar_hln = sizeof(f.sender_mac),
			.ar_pln = sizeof(f.sender_ip),
			.ar_op = htons(operation)}};

	memset(f.eth.h_dest, 0xff, sizeof(f.eth.h_dest));
	memcpy(f.eth.h_source, mac->bytes, sizeof(f.eth.h_source));
	memcpy(f.sender_mac, mac->bytes, sizeof(f.sender_mac));
	memcpy(f.sender_ip, ip->bytes, sizeof(f.sender_ip));
	if (operation == ARPOP_REPLY) /* Linux tells a gratuitous reply by this */
		memcpy(f.target_mac, mac->bytes, sizeof(f.target_mac));
	memcpy(f.target_ip, ip->bytes, sizeof(f.target_ip));
	send_frame(vx, bridge, &f, sizeof(f), ETH_P_ARP);
}

static uint32_t sum16(uint32_t sum, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i += 2)
		sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
	return sum;
}

/* RFC 8200 8.1: over the addresses, the length, the next header, and the message. */
static uint16_t na_checksum(const struct na_frame *f)
{
	const size_t start = offsetof(struct na_frame, icmp), len = sizeof(*f) - start;
	uint32_t sum = (uint32_t)len + IPPROTO_ICMPV6;

	sum = sum16(sum, (const uint8_t *)f + offsetof(struct na_frame, ip.ip6_src), 32);
	sum = sum16(sum, (const uint8_t *)f + start, len);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

static void send_na(struct vxlan *vx, uint32_t bridge, const struct ip *ip, const struct mac *mac)
{
	static const uint8_t all_nodes_mac[6] = {0x33, 0x33, 0, 0, 0, 1};
	struct na_frame f = {.eth = {.h_proto = htons(ETH_P_IPV6)},
		.icmp = {.icmp6_type = 136, .icmp6_override = 1},
		.option_type = 2, /* target link-layer address, in units of 8 bytes */
		.option_units = 1};

	memcpy(f.eth.h_dest, all_nodes_mac, sizeof(f.eth.h_dest));
	memcpy(f.eth.h_source, mac->bytes, sizeof(f.eth.h_source));
	f.ip.ip6_flow = htonl(6u << 28);
	f.ip.ip6_plen = htons(sizeof(f) - offsetof(struct na_frame, icmp));
	f.ip.ip6_nxt = IPPROTO_ICMPV6;
	f.ip.ip6_hlim = 255; /* else it counts as from outside the link */
	memcpy(&f.ip.ip6_src, ip->bytes, 16);
	memcpy(&f.ip.ip6_dst, "\xff\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\1", 16);
	memcpy(f.target, ip->bytes, sizeof(f.target));
	memcpy(f.option_mac, mac->bytes, sizeof(f.option_mac));
	f.icmp.icmp6_cksum = na_checksum(&f);
	send_frame(vx, bridge, &f, sizeof(f), ETH_P_IPV6);
}

/* Returns how many frames arrive somewhere because of it. */
static unsigned announce(struct vxlan *vx, const struct vx_announcement *a)
{
	struct vx_network *n = vx_network_find(vx, &a->key.network);
	struct vx_entry *e = NULL;
	struct vx_row row;

	if (n)
		HASH_FIND(hh, n->rows, &a->key.address, sizeof(a->key.address), e);
	if (!e || !e->has || !n->bridge)
		return 0;
	row = vx_entry_row(e, &e->have);
	if (row.ip.family == 4) {
		send_arp(vx, n->bridge->link.index, &row.ip, &row.mac, ARPOP_REQUEST);
		send_arp(vx, n->bridge->link.index, &row.ip, &row.mac, ARPOP_REPLY);
	} else {
		send_na(vx, n->bridge->link.index, &row.ip, &row.mac);
	}
	return HASH_COUNT(n->endpoints) * (row.ip.family == 4 ? 2 : 1);
}

/* ---- pace ---- */

static void set_timer(struct vxlan *vx, bool on)
{
	struct itimerspec spec = {.it_value = {.tv_nsec = on ? TICK_MS * 1000000L : 0}};

	timerfd_settime(vx->announce_timer, 0, &spec, NULL);
	vx->announce_waits = on;
}

void vx_announce_run(struct vxlan *vx)
{
	struct vx_announcement *a;
	unsigned copies = 0;
	uint64_t expired;

	if (vx->announce_waits && read(vx->announce_timer, &expired, sizeof(expired)) < 0)
		return; /* not yet */
	vx->announce_waits = false;
	while ((a = vx->announcements) && copies < COPIES) {
		copies += announce(vx, a);
		HASH_DEL(vx->announcements, a);
		free(a);
	}
	/* After any announcement: what is asked for by the next sync, a moment later, comes out of the same allowance. */
	if (copies)
		set_timer(vx, true);
}

static int open_socket(void *arg, struct err *err)
{
	struct vxlan *vx = arg;

	vx->announce_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0); /* protocol 0: it receives nothing */
	return vx->announce_fd < 0 ? err_sys(err, errno, "fabric namespace: open a packet socket") : 0;
}

int vx_announce_open(struct vxlan *vx, struct err *err)
{
	vx->announce_timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (vx->announce_timer < 0)
		return err_sys(err, errno, "vxlan driver: make a timer");
	return netns_run(vx->fabric_fd, open_socket, vx, err);
}

void vx_announce_close(struct vxlan *vx)
{
	struct vx_announcement *a, *next;

	HASH_ITER(hh, vx->announcements, a, next)
	{
		HASH_DEL(vx->announcements, a);
		free(a);
	}
	if (vx->announce_fd >= 0)
		close(vx->announce_fd);
	if (vx->announce_timer >= 0)
		close(vx->announce_timer);
}

/* What the kernel has in the fabric, or, mode l3, in the host's namespace: read by dumps, kept current by notices.
 *
 * Notices are a total order of all changes, our own included, so after reading all of them the picture is exact; in between it
 * may show a state that has passed, which is why objects are only marked dirty here and compared later. Our own changes carry no
 * mark in a notice; they show no difference from what is wanted, and that is how they are told from others'. After an overrun the
 * queue is read empty first and then dumped, for what is queued may be older than what was lost. */
#include <errno.h>
#include <linux/if.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "driver/vxlan/vxlan_internal.h"
#include "base/alloc.h"
#include "netlink/addr.h"
#include "netlink/build.h"
#include "netlink/link.h"
#include "netlink/neigh.h"
#include "netlink/route.h"

#define FIRST_INDEX 1000		/* the kernel numbers its own from 2 */
#define FIRST_INDEX_OF_HOST 0x10000000u /* there, others make links all the time */
#define LAST_INDEX 0x7fff0000u

struct vx_have_link *vx_link_find(struct vxlan *vx, uint32_t index)
{
	struct vx_have_link *l;

	HASH_FIND(hh, vx->links, &index, sizeof(index), l);
	return l;
}

bool vx_name_taken(struct vxlan *vx, const char *name)
{
	struct vx_have_link *l, *next;

	HASH_ITER(hh, vx->links, l, next)
	if (strcmp(l->link.name, name) == 0)
		return true;
	return false;
}

uint32_t vx_new_index(struct vxlan *vx)
{
	uint32_t first = vx->routed ? FIRST_INDEX_OF_HOST : FIRST_INDEX;

	do {
		if (vx->next_index < first || vx->next_index > LAST_INDEX)
			vx->next_index = first;
		vx->next_index++;
	} while (vx_link_find(vx, vx->next_index));
	return vx->next_index;
}

void vx_dirty_link(struct vxlan *vx, struct vx_have_link *l)
{
	if (l->dirty)
		return;
	l->dirty = true;
	DL_APPEND(vx->dirty_links, l);
}

struct vx_have_link *vx_find_dying(struct vxlan *vx, const struct vx_network *n, enum vx_kind kind)
{
	struct vx_have_link *l, *next;

	if (!vx->dying || !n->links)
		return NULL;
	HASH_ITER(hh, vx->links, l, next)
	if (l->network == n && l->link.kind == kind && l->link.group == VX_GROUP_REAP)
		return l;
	return NULL;
}

/* The tables of had rows follow the devices they are on: another device starts with none. */
static void use_bridge(struct vxlan *vx, struct vx_network *n, uint32_t index)
{
	if (n->rows_bridge == index)
		return;
	vx_rows_forget(vx, n, 1u << VX_ROW_PORT | 1u << VX_ROW_NEIGH);
	n->rows_bridge = index;
}

static void use_vxlan(struct vxlan *vx, struct vx_network *n, uint32_t index)
{
	if (n->rows_vxlan == index)
		return;
	if (vx->routed)
		vx_rows_forget_tunnel(vx, n);
	else
		vx_rows_forget(vx, n, 1u << VX_ROW_FLOOD | 1u << VX_ROW_REMOTE | 1u << VX_ROW_PORT);
	n->rows_vxlan = index;
}

struct forgetting {
	struct vxlan *vx;
	struct vx_network *n;
};

static void forget_row(void *arg, const struct vx_row *row, bool local)
{
	struct forgetting *f = arg;

	(void)local;
	vx_row_gone(f->vx, f->n, row);
}

/* The kernel takes the routes and neighbours of a link that goes down or away, and does not tell of all: not of IPv4 routes. */
static void link_lost_rows(struct vxlan *vx, const struct vx_have_link *l)
{
	struct vx_network *n = l->network;

	if (!n || !vx->routed)
		return;
	if (l->endpoint)
		vx_endpoint_rows(l->endpoint, l->link.index, forget_row, &(struct forgetting){vx, n});
	else if (n->rows_vxlan == l->link.index)
		vx_rows_forget_tunnel(vx, n);
}

/* Rows wait for the devices; the sync pass skips those of a network without. */
static void dirty_rows(struct vxlan *vx, struct vx_network *n)
{
	struct vx_entry *e, *next;

	HASH_ITER(hh, n->rows, e, next)
	vx_dirty_row(vx, e);
}

static void dirty_owner(struct vxlan *vx, struct vx_have_link *l)
{
	if (l->endpoint)
		vx_dirty_endpoint(vx, l->endpoint);
	else if (l->network)
		vx_dirty_network(vx, l->network);
}

void vx_link_revive(struct vxlan *vx, struct vx_have_link *l)
{
	struct vx_network *n = l->network;
	struct vx_endpoint *e;

	if (!n || l->assigned)
		return;
	if (l->link.kind == VX_BRIDGE && !l->link.tag.endpoint[0] && !n->bridge) {
		n->bridge = l;
		use_bridge(vx, n, l->link.index);
	} else if (l->link.kind == VX_VXLAN && !l->link.tag.endpoint[0] && !n->vxlan) {
		n->vxlan = l;
		use_vxlan(vx, n, l->link.index);
	} else if (l->link.kind == VX_VETH && (e = vx_endpoint_find(n, l->link.tag.endpoint)) && !e->link) {
		e->link = l;
		l->endpoint = e;
		if (n->live)
			vx_endpoint_claim(vx, e, l->link.index);
	} else {
		return;
	}
	l->assigned = true;
	l->expected = false;
	if (!l->endpoint)
		dirty_rows(vx, n);
	dirty_owner(vx, l);
}

void vx_link_adopt(struct vxlan *vx, struct vx_have_link *l)
{
	if (l->link.group != VX_GROUP_REAP)
		vx_link_revive(vx, l);
}

void vx_link_release(struct vxlan *vx, struct vx_have_link *l)
{
	struct vx_network *n = l->network;

	if (!l->assigned)
		return;
	l->assigned = false;
	dirty_owner(vx, l);
	if (n->bridge == l)
		n->bridge = NULL;
	if (n->vxlan == l)
		n->vxlan = NULL;
	if (l->endpoint) {
		vx_endpoint_claim(vx, l->endpoint, 0);
		l->endpoint->link = NULL;
		l->endpoint = NULL;
	}
	vx_dirty_link(vx, l);
}

static void set_network(struct vxlan *vx, struct vx_have_link *l, struct vx_network *n)
{
	if (l->network == n)
		return;
	if (n)
		n->links++;
	if (l->network) {
		l->network->links--;
		vx_dirty_network(vx, l->network); /* perhaps the last to speak of it */
	}
	l->network = n;
}

static void link_gone(struct vxlan *vx, struct vx_have_link *l)
{
	struct vx_network *n = l->network;

	link_lost_rows(vx, l);
	vx_link_release(vx, l);
	if (n && n->rows_bridge == l->link.index)
		use_bridge(vx, n, 0);
	if (n && n->rows_vxlan == l->link.index)
		use_vxlan(vx, n, 0);
	set_network(vx, l, NULL);
	if (l->link.group == VX_GROUP_REAP) {
		vx->dying--;
		vx->counters.reaped++;
	}
	if (l->dirty)
		DL_DELETE(vx->dirty_links, l);
	HASH_DEL(vx->links, l);
	free(l);
}

static enum vx_kind kind_of(enum nl_link_kind kind)
{
	static const enum vx_kind kinds[] = {
		[NL_LINK_OTHER] = VX_OTHER, [NL_LINK_BRIDGE] = VX_BRIDGE, [NL_LINK_VXLAN] = VX_VXLAN, [NL_LINK_VETH] = VX_VETH};

	return kinds[kind];
}

/* Mode l3: a container that lives in the host's namespace has its end there too, under the tag of the pair. It is not the
 * driver's: it is in no group, and has not the MAC of our ends. Both, so that one that is ours stays so when somebody changes
 * either. */
static bool is_containers(const struct vx_link *link)
{
	return link->kind == VX_VETH && link->group == 0 && !mac_equal(&link->mac, &DRIVER_GATEWAY_MAC);
}

static void translate(const struct vxlan *vx, const struct nl_link *nl, struct vx_link *link)
{
	memset(link, 0, sizeof(*link));
	link->index = nl->index;
	link->master = nl->master;
	link->mtu = nl->mtu;
	link->group = nl->group;
	link->kind = kind_of(nl->kind);
	link->up = nl->flags & IFF_UP;
	link->mac = nl->mac;
	memcpy(link->name, nl->name, sizeof(link->name));
	if (!vx->routed || !is_containers(link))
		link->tagged = vx_tag_parse(nl->alias, &link->tag);
	link->port_known = nl->port_known;
	link->port_flags = nl->port_flags;
	if (link->kind == VX_VXLAN) {
		link->tunnel.vni = nl->vxlan.vni;
		link->tunnel.local = nl->vxlan.local;
		link->tunnel.port = nl->vxlan.port;
		link->options_ok = !nl->vxlan.learning;
	} else if (link->kind == VX_BRIDGE) {
		link->options_ok = !nl->bridge.stp && !nl->bridge.mcast_snooping && !nl->bridge.ageing_time;
	}
}

/* A bridge that goes down, or whose MAC changes, loses its neighbours, permanent ones too, and not all of them with a notice. */
static void link_lost_neighbours(struct vxlan *vx, struct vx_have_link *l, const struct vx_link *old)
{
	if (!l->link.up && old->up)
		link_lost_rows(vx, l);
	if (l->network && l->network->rows_bridge == l->link.index &&
		(!l->link.up || (old->index && !mac_equal(&old->mac, &l->link.mac))))
		vx_rows_forget(vx, l->network, 1u << VX_ROW_NEIGH);
}

static bool same_tag(const struct vx_link *a, const struct vx_link *b)
{
	return a->tagged == b->tagged && a->kind == b->kind && id_equal(&a->tag.network, &b->tag.network) &&
	       strcmp(a->tag.endpoint, b->tag.endpoint) == 0;
}

static void link_changed(struct vxlan *vx, struct vx_have_link *l, const struct vx_link *old)
{
	bool dying = l->link.group == VX_GROUP_REAP;

	vx->dying += dying - (old->group == VX_GROUP_REAP);
	if (l->assigned && (dying || !same_tag(&l->link, old)))
		vx_link_release(vx, l);
	set_network(vx, l, l->link.tagged ? vx_network_get(vx, &l->link.tag.network) : NULL);
	link_lost_neighbours(vx, l, old);
	vx_link_adopt(vx, l);
	if (l->assigned && memcmp(old, &l->link, sizeof(*old)) != 0)
		dirty_owner(vx, l);
	else if (!l->assigned && !dying && (l->link.tagged || l->link.group == VX_GROUP_NEW))
		vx_dirty_link(vx, l);
}

void vx_link_was_set(struct vxlan *vx, const struct vx_op *op)
{
	struct vx_have_link *l = vx_link_find(vx, op->index);
	struct vx_link old;

	if (!l)
		return;
	old = l->link;
	if (op->set & VX_SET_GROUP)
		l->link.group = op->group;
	if (op->set & VX_SET_TAG) {
		l->link.tagged = true;
		l->link.tag.network = op->network;
		memset(l->link.tag.endpoint, 0, sizeof(l->link.tag.endpoint));
		memcpy(l->link.tag.endpoint, op->endpoint, strnlen(op->endpoint, DRIVER_ENDPOINT_ID_MAX));
	}
	link_changed(vx, l, &old);
}

static struct vx_have_link *link_get(struct vxlan *vx, uint32_t index)
{
	struct vx_have_link *l = vx_link_find(vx, index);

	if (l)
		return l;
	l = alloc_new(struct vx_have_link);
	l->link.index = index;
	HASH_ADD(hh, vx->links, link.index, sizeof(l->link.index), l);
	l->link.index = index;
	return l;
}

/* Notices of the bridge family speak of the port alone: its flags, or that it left. */
static void port_changed(struct vxlan *vx, const struct nl_link *nl)
{
	struct vx_have_link *l = vx_link_find(vx, nl->index);
	struct vx_link old;

	if (!l || (!nl->deleted && nl->master == 0))
		return; /* also what a bridge says of itself */
	old = l->link;
	l->away = false;
	l->link.master = nl->deleted ? 0 : nl->master;
	l->link.port_known = nl->deleted ? 0 : nl->port_known;
	l->link.port_flags = nl->deleted ? 0 : nl->port_flags;
	link_changed(vx, l, &old);
}

static void link_seen(struct vxlan *vx, const struct nl_link *nl)
{
	struct vx_have_link *l = link_get(vx, nl->index);
	struct vx_link old = l->link;

	if (!l->generation)
		memset(&old, 0, sizeof(old)); /* new to us */
	translate(vx, nl, &l->link);
	l->generation = vx->generation;
	l->running = nl->flags & IFF_LOWER_UP;
	l->peer_index = nl->peer_index;
	l->away = false;
	link_changed(vx, l, &old);
}

static int link_message(struct vxlan *vx, const struct nlmsghdr *h, struct err *err)
{
	struct vx_have_link *l;
	struct nl_link nl;

	if (nl_link_parse(h, &nl, err) < 0)
		return -1;
	if (nl.bridge_only)
		port_changed(vx, &nl);
	else if (!nl.deleted)
		link_seen(vx, &nl);
	else if ((l = vx_link_find(vx, nl.index)))
		link_gone(vx, l);
	return 0;
}

static struct vx_network *network_of(struct vxlan *vx, uint32_t index)
{
	struct vx_have_link *l = vx_link_find(vx, index);

	return l ? l->network : NULL;
}

static void apply_row(struct vxlan *vx, struct vx_network *n, const struct vx_row *row, bool there, bool ours)
{
	if (there && ours)
		vx_row_had(vx, n, row);
	else
		vx_row_gone(vx, n, row); /* also: replaced by one of another kind, which CREATE|REPLACE will take over */
}

static void vxlan_row(struct vxlan *vx, const struct nl_row *nl)
{
	struct vx_network *n = network_of(vx, nl->ifindex);
	struct vx_row row = {.kind = mac_is_zero(&nl->mac) ? VX_ROW_FLOOD : VX_ROW_REMOTE, .mac = nl->mac, .ip = nl->ip};

	if (n && n->rows_vxlan == nl->ifindex && nl->ip.family)
		apply_row(vx, n, &row, !nl->deleted, nl->state & NUD_PERMANENT);
}

/* Only static rows are ours. The bridge keeps permanent ones for its ports' own MACs. */
static void bridge_row(struct vxlan *vx, const struct nl_row *nl)
{
	struct vx_network *n = network_of(vx, nl->master);
	struct vx_row row = {.kind = VX_ROW_PORT, .mac = nl->mac, .port = nl->ifindex};

	if (!n || n->rows_bridge != nl->master)
		return;
	if (row.port == n->rows_vxlan)
		row.port = VX_PORT_TUNNEL;
	apply_row(vx, n, &row, !nl->deleted, nl->state & NUD_NOARP);
}

static void neigh_row(struct vxlan *vx, const struct nl_row *nl)
{
	struct vx_network *n = network_of(vx, nl->ifindex);
	struct vx_row row = {.kind = VX_ROW_NEIGH, .mac = nl->mac, .ip = nl->ip};

	if (n && vx->routed && n->rows_vxlan != nl->ifindex)
		row.port = nl->ifindex;
	if (n && (vx->routed || n->rows_bridge == nl->ifindex) && nl->ip.family)
		apply_row(vx, n, &row, !nl->deleted, nl->state & NUD_PERMANENT && nl->protocol == NL_PROTOCOL_OWN);
}

static int row_message(struct vxlan *vx, const struct nlmsghdr *h, struct err *err)
{
	struct nl_row row;

	if (nl_row_parse(h, &row, err) < 0)
		return -1;
	if (row.kind == NL_ROW_VXLAN)
		vxlan_row(vx, &row);
	else if (row.kind == NL_ROW_BRIDGE)
		bridge_row(vx, &row);
	else if (row.kind == NL_ROW_NEIGH)
		neigh_row(vx, &row);
	return 0;
}

/* Also one of somebody else's that has taken the place of ours: of the same prefix and metric. */
static int route_message(struct vxlan *vx, const struct nlmsghdr *h, struct err *err)
{
	struct vx_row row = {.kind = VX_ROW_ROUTE};
	struct vx_network *n = NULL;
	struct nl_route route;
	bool ours;

	if (nl_route_parse(h, &route, err) < 0)
		return -1;
	if (route.table != RT_TABLE_MAIN || (route.metric != VX_METRIC && route.metric != VX_METRIC_LAST))
		return 0;
	ours = route.protocol == NL_PROTOCOL_OWN;
	row.ip = route.to.ip;
	row.source = route.source;
	row.length = route.to.length;
	if (route.metric == VX_METRIC_LAST) {
		ours &= route.type == RTN_UNREACHABLE;
		row.port = VX_PORT_NONE;
	} else {
		ours &= route.type == RTN_UNICAST;
		n = network_of(vx, route.oif);
		row.port = n && n->rows_vxlan == route.oif ? VX_PORT_TUNNEL : route.oif;
	}
	if (!n)
		n = vx_routed_network(vx, &route.to);
	/* A pool that no network has any more: the row of a network of no name, for it to be taken away. */
	if (!n && ours && row.port == VX_PORT_NONE)
		n = vx_network_get(vx, &(struct id128){.bytes = {0}});
	if (n)
		apply_row(vx, n, &row, !route.deleted, ours);
	return 0;
}

static int addr_message(struct vxlan *vx, const struct nlmsghdr *h, struct err *err)
{
	struct vx_row row = {.kind = VX_ROW_ADDR};
	struct vx_network *n;
	struct nl_addr addr;

	if (nl_addr_parse(h, &addr, err) < 0)
		return -1;
	n = network_of(vx, addr.ifindex);
	row.ip = addr.prefix.ip;
	if (!n || n->rows_vxlan != addr.ifindex)
		return 0;
	/* With the last IPv4 address of a link go its IPv4 routes and neighbours, without a word, and so do routes that have it
	 * as their source; those of IPv6 lose that alone. */
	if (addr.deleted && row.ip.family == 4)
		vx_rows_forget_tunnel(vx, n);
	if (addr.deleted)
		vx_rows_forget_source(vx, n, &row.ip);
	apply_row(vx, n, &row, !addr.deleted, addr.prefix.length == ip_bits(&row.ip));
	return 0;
}

static int on_message(void *arg, const struct nlmsghdr *h, struct err *err)
{
	struct vxlan *vx = arg;

	switch (h->nlmsg_type) {
	case RTM_NEWLINK:
	case RTM_DELLINK:
		return link_message(vx, h, err);
	case RTM_NEWNEIGH:
	case RTM_DELNEIGH:
		return row_message(vx, h, err);
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		return route_message(vx, h, err);
	case RTM_NEWADDR:
	case RTM_DELADDR:
		return addr_message(vx, h, err);
	}
	return 0;
}

int vx_have_drain(struct vxlan *vx, struct err *err)
{
	uint64_t bad = 0;
	int rc = nl_receive(vx->notices, on_message, vx, &bad, err);

	if (rc == NL_RECEIVE_OVERRUN) { /* all of it may be stale now; the dump that follows starts from an empty queue */
		vx->overrun = true;
		vx->counters.overruns++;
	}
	if (bad)
		vx->overrun = true; /* a notice that cannot be read is a lost one */
	return rc < 0 ? -1 : 0;
}

/* What an interrupted dump brought does not count as seen. */
static void next_generation(void *arg)
{
	struct vxlan *vx = arg;

	vx->generation++;
}

static void sweep_links(struct vxlan *vx)
{
	struct vx_have_link *l, *next;

	HASH_ITER(hh, vx->links, l, next)
	if (l->generation != vx->generation)
		link_gone(vx, l);
}

static void sweep_rows(struct vxlan *vx, uint32_t kinds)
{
	struct vx_network *n, *next_network;
	struct vx_entry *e, *next;

	HASH_ITER(hh, vx->networks, n, next_network)
	HASH_ITER(hh, n->rows, e, next)
	if (e->has && kinds & 1u << e->key.kind && e->generation != vx->generation) {
		e->has = false;
		vx_dirty_row(vx, e);
	}
}

static int dump(struct vxlan *vx, struct nlb *b, const char *what, struct err *err)
{
	if (nl_dump(vx->fabric, b, on_message, next_generation, vx, &vx->counters.dump_restarts, err) < 0)
		return err_prefix(err, "list %s of the %s", what, vx->routed ? "host" : "fabric");
	return 0;
}

/* A table of each family is two dumps; both must have come through before anything counts as gone. */
static int dump_families(
	struct vxlan *vx, void (*request)(struct nlb *b, uint8_t family), const char *what, uint32_t kinds, struct err *err)
{
	uint32_t generation;
	struct nlb b;

	for (unsigned i = 0; i < NL_DUMP_TRIES; i++) {
		next_generation(vx);
		generation = vx->generation;
		request(&b, 4);
		if (dump(vx, &b, what, err) < 0)
			return -1;
		generation = vx->generation;
		request(&b, 6);
		if (dump(vx, &b, what, err) < 0)
			return -1;
		if (generation == vx->generation) {
			sweep_rows(vx, kinds);
			return 0;
		}
	}
	return err_set(err, ERR_SYSTEM, "list %s: they keep changing", what);
}

/* A container's row: asked for by itself, since a dump by port would walk the whole table for each port. */
static int ask_row(struct vxlan *vx, struct vx_entry *e, struct err *err)
{
	uint32_t port = e->has ? e->have.port : e->want.port;
	struct mac mac;
	struct nlb b;

	memcpy(mac.bytes, e->key.bytes, sizeof(mac.bytes));
	nl_bridge_row_get_request(&b, port, &mac);
	if (nl_query(vx->fabric, &b, on_message, vx, err) == 0)
		return 0;
	/* No row, no such link, or one that is no bridge's port: then there is no row. */
	if (err->sys_errno != ENOENT && err->sys_errno != ENODEV && err->sys_errno != EINVAL)
		return err_prefix(err, "ask for a bridge row of link %u", port);
	if (e->has) {
		e->has = false;
		vx_dirty_row(vx, e);
	}
	return 0;
}

static bool on_container_port(const struct vx_entry *e)
{
	return e->key.kind == VX_ROW_PORT &&
	       ((e->has && e->have.port != VX_PORT_TUNNEL) || (e->claims && e->want.port != VX_PORT_TUNNEL));
}

static int ask_network(struct vxlan *vx, struct vx_network *n, struct err *err)
{
	struct vx_entry *e, *next;
	struct nlb b;

	if (!n->rows_vxlan)
		return 0;
	nl_fdb_dump_port_request(&b, n->rows_vxlan);
	if (nl_dump(vx->fabric, &b, on_message, NULL, vx, &vx->counters.dump_restarts, err) < 0 && err->sys_errno != ENODEV)
		return err_prefix(err, "list forwarding rows of the fabric");
	HASH_ITER(hh, n->rows, e, next)
	if (n->rows_bridge && on_container_port(e) && e->generation != vx->generation && ask_row(vx, e, err) < 0)
		return -1;
	return 0;
}

static int dump_rows(struct vxlan *vx, struct err *err)
{
	struct vx_network *n, *next;
	struct err own = {0};
	struct nlb b;

	next_generation(vx);
	if (!vx->dumped) {
		nl_fdb_dump_request(&b);
		return dump(vx, &b, "forwarding rows", err);
	}
	HASH_ITER(hh, vx->networks, n, next)
	if (ask_network(vx, n, &own) < 0) {
		if (err)
			*err = own;
		return -1;
	}
	return 0;
}

static int dump_addresses(struct vxlan *vx, struct err *err)
{
	struct nlb b;

	next_generation(vx);
	nl_addr_dump_request(&b);
	if (dump(vx, &b, "addresses", err) < 0)
		return -1;
	sweep_rows(vx, 1u << VX_ROW_ADDR);
	return 0;
}

/* What is on links. Where no link is ours and no network is wanted, none of it would be: the kernel walks its tables, which all
 * namespaces share, for nothing. */
static int dump_on_links(struct vxlan *vx, struct err *err)
{
	if (!vx->networks)
		return 0;
	if (dump_rows(vx, err) < 0)
		return -1;
	sweep_rows(vx, 1u << VX_ROW_FLOOD | 1u << VX_ROW_REMOTE | 1u << VX_ROW_PORT);
	if (dump_families(vx, nl_neigh_dump_request, "neighbours", 1u << VX_ROW_NEIGH, err) < 0)
		return -1;
	return vx->routed ? dump_addresses(vx, err) : 0;
}

int vx_have_dump(struct vxlan *vx, struct err *err)
{
	struct nlb b;

	if (vx_have_drain(vx, err) < 0)
		return -1;
	vx->overrun = false;
	next_generation(vx);
	nl_link_dump_request(&b);
	if (dump(vx, &b, "links", err) < 0)
		return -1;
	sweep_links(vx);
	if (dump_on_links(vx, err) < 0)
		return -1;
	if (vx->routed && dump_families(vx, nl_route_dump_own_request, "routes", 1u << VX_ROW_ROUTE, err) < 0)
		return -1;
	vx->dumped = true;
	return vx_have_drain(vx, err);
}

void vx_have_free(struct vxlan *vx)
{
	struct vx_have_link *l, *next;

	HASH_ITER(hh, vx->links, l, next)
	{
		l->link.group = 0; /* it stays in the kernel: not reaped */
		link_gone(vx, l);
	}
}

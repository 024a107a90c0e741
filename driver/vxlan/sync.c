/* One pass over what is dirty: plan, apply, look again.
 *
 * Links that nobody wants are marked first, then come the networks' devices, then pairs, then rows: what is made later is put
 * into what was made earlier. In the common case, one pair more in a network that is there, all of it is one sendmsg. */
#include <stdlib.h>
#include <string.h>

#include "driver/vxlan/vxlan.h"
#include "driver/vxlan/vxlan_internal.h"

#define ROUNDS_MAX 3 /* applying makes notices, which make things dirty: a second look finds nothing to do, or a third */

#define MAC_BRIDGE 0x0a
#define MAC_VXLAN 0x06
#define MAC_PAIR 0x0e

/* Applying reads notices, and those free links: behind this, a pointer to one must be looked up anew. */
static void make_room(struct vxlan *vx)
{
	if (vx_plan_full(vx->plan))
		vx_apply(vx);
}

static void own(struct vxlan *vx, size_t from, unsigned kind, void *owner)
{
	for (size_t i = from; i < vx->plan->count; i++) {
		vx->plan->ops[i].owner_kind = kind;
		vx->plan->ops[i].owner = owner;
	}
}

/* An operation for an object that did not change its mind is a repair; in a full comparison it is drift. */
static void account(struct vxlan *vx, bool pending, unsigned *drift)
{
	if (!pending)
		vx->counters.repairs++;
	if (vx->counting && (!pending || vx->first_count))
		(*drift)++;
}

/* It serves, or waits for its deletion already, or is none of ours. */
static bool link_agrees(const struct vx_have_link *l)
{
	return l->assigned || l->link.group == VX_GROUP_REAP || !(l->link.tagged || l->link.group == VX_GROUP_NEW);
}

static void review_link(struct vxlan *vx, struct vx_have_link *l)
{
	vx_link_adopt(vx, l);
	if (link_agrees(l))
		return;
	account(vx, l->expected, &vx->counters.last_drift.foreign);
	vx_plan_mark(vx->plan, &l->link);
}

static void pass_links(struct vxlan *vx)
{
	/* Not a list of its own: a notice read while applying may free a link. It may also make one dirty again, and who keeps
	 * changing ours must not hold us here, so what is more than all of them is left to the next round. */
	for (unsigned left = HASH_COUNT(vx->links); left > 0; left--) {
		struct vx_have_link *l;

		make_room(vx);
		l = vx->dirty_links;
		if (!l)
			return;
		DL_DELETE(vx->dirty_links, l);
		l->dirty = false;
		review_link(vx, l);
	}
}

static void free_name(struct vxlan *vx, char name[VX_NAME_SIZE], const char *prefix, const struct vx_network *n,
	const char *endpoint, uint32_t *salt)
{
	for (;; (*salt)++) {
		vx_name(name, prefix, &n->id, endpoint, *salt);
		if (!vx_name_taken(vx, name))
			return;
	}
}

/* A device that waits for its deletion is taken back: it still holds the VNI and its rows. */
static void revive(struct vxlan *vx, struct vx_network *n, struct vx_have_link *const *at, enum vx_kind kind)
{
	struct vx_have_link *l;

	if (*at || !vx_find_dying(vx, n, kind))
		return;
	vx_reap_wait(vx);
	l = vx_find_dying(vx, n, kind);
	if (l)
		vx_link_revive(vx, l);
}

/* Deletes a link that waits for it at once, since it holds what a new one needs. Applying may free it, so it is read before. */
static void delete_now(struct vxlan *vx, const struct vx_have_link *l)
{
	struct vx_op op = {.kind = VX_OP_LINK_DEL, .index = l->link.index, .endpoint = ""};

	memcpy(op.name, l->link.name, sizeof(op.name));
	vx_apply(vx);
	if (!vx_link_find(vx, op.index))
		return; /* the thread that deletes links was faster */
	vx->plan->ops[vx->plan->count++] = op;
	vx_apply(vx);
}

/* The VNI may be held by a device of ours that nobody wants any more: one that waits for its deletion, or one found after a
 * restart. */
static void free_vni(struct vxlan *vx, uint32_t vni)
{
	struct vx_have_link *l, *next;

	HASH_ITER(hh, vx->links, l, next)
	{
		/* Without a tag, and so without a network, it was left by a crash right behind its create message. */
		bool untagged = !l->network && (l->link.group == VX_GROUP_NEW || l->link.group == VX_GROUP_REAP);
		bool unwanted = untagged || (l->network && (!l->assigned || !l->network->live));

		if (unwanted && l->link.kind == VX_VXLAN && l->link.tunnel.vni == vni) {
			delete_now(vx, l);
			return; /* a VNI has one device */
		}
	}
}

uint32_t vxlan_pair_group(uint32_t vni)
{
	return VX_GROUP_PAIR(vni);
}

struct mac vxlan_tunnel_mac(uint32_t hostno)
{
	return (struct mac){{MAC_VXLAN, 't', 'r', (uint8_t)(hostno >> 16), (uint8_t)(hostno >> 8), (uint8_t)hostno}};
}

static bool has_ip6(const struct vx_network *n)
{
	return vx_routed_has(n->routed->pools, n->routed->pool_count, 6);
}

static void want_network(struct vxlan *vx, struct vx_network *n, struct vx_want_network *want)
{
	memset(want, 0, sizeof(*want));
	want->id = n->id;
	want->mtu = n->mtu;
	want->tunnel = (struct vx_tunnel){.vni = n->vni, .local = vx->local, .port = vx->port};
	want->vxlan.mac = vxlan_tunnel_mac(vx->hostno);
	want->routed = vx->routed;
	if (vx->routed) {
		want->vxlan.group = VX_GROUP_TUNNEL(n->vni);
		want->has_ip6 = has_ip6(n);
	} else {
		want->bridge.mac = vx_mac(MAC_BRIDGE, &n->id, "", vx->hostno);
	}
}

static void want_devices(struct vxlan *vx, struct vx_network *n, struct vx_want_network *want)
{
	if (!vx->routed) {
		want->bridge.index = vx_new_index(vx);
		free_name(vx, want->bridge.name, "tb", n, "", &n->salt);
	}
	want->vxlan.index = vx_new_index(vx);
	free_name(vx, want->vxlan.name, "tx", n, "", &n->salt);
}

static void plan_devices(struct vxlan *vx, const struct vx_network *n, const struct vx_want_network *want)
{
	const struct vx_link *vxlan = n->vxlan ? &n->vxlan->link : NULL;

	if (vx->routed)
		vx_plan_routed(vx->plan, want, vxlan);
	else
		vx_plan_network(vx->plan, want, n->bridge ? &n->bridge->link : NULL, vxlan);
}

static void plan_network(struct vxlan *vx, struct vx_network *n)
{
	struct vx_want_network want;
	size_t from;

	revive(vx, n, &n->bridge, VX_BRIDGE);
	revive(vx, n, &n->vxlan, VX_VXLAN);
	if (!n->vxlan)
		free_vni(vx, n->vni);
	make_room(vx);
	want_network(vx, n, &want);
	want_devices(vx, n, &want);
	from = vx->plan->count;
	plan_devices(vx, n, &want);
	own(vx, from, VX_OWNER_NETWORK, n);
	if (vx->plan->count > from)
		account(vx, n->pending,
			(n->bridge || vx->routed) && n->vxlan ? &vx->counters.last_drift.different
							      : &vx->counters.last_drift.missing);
}

static void retire_network(struct vxlan *vx, struct vx_network *n)
{
	make_room(vx);
	for (unsigned i = 0; i < 2; i++) {
		const struct vx_have_link *device = i == 0 ? n->vxlan : n->bridge;

		if (!device)
			continue;
		account(vx, n->pending, &vx->counters.last_drift.foreign);
		vx_plan_mark(vx->plan, &device->link);
	}
}

static void pass_networks(struct vxlan *vx)
{
	struct vx_network *list = vx->dirty_networks;

	vx->dirty_networks = NULL;
	while (list) {
		struct vx_network *n = list;

		DL_DELETE(list, n);
		n->dirty = n->failed = false;
		free(n->error);
		n->error = NULL;
		if (n->live)
			plan_network(vx, n);
		else
			retire_network(vx, n);
		n->pending = false;
		if (!n->live)
			vx_network_gc(vx, n);
	}
}

static bool ready(const struct vx_network *n)
{
	return n->live && n->vxlan && (n->routed || n->bridge);
}

/* The pair of an endpoint that was deleted and comes again still holds its peer's name. */
static void free_peer(struct vxlan *vx, const struct vx_endpoint *e)
{
	struct vx_have_link *l, *next;

	if (!vx->dying || !e->network->links)
		return;
	HASH_ITER(hh, vx->links, l, next)
	if (l->network == e->network && l->link.group == VX_GROUP_REAP && l->link.kind == VX_VETH &&
		strcmp(l->link.tag.endpoint, e->id) == 0) {
		delete_now(vx, l);
		return;
	}
}

static struct vx_want_endpoint want_endpoint(const struct vx_endpoint *e)
{
	const struct vx_network *n = e->network;
	struct vx_want_endpoint want = {
		.network = n->id,
		.id = e->id,
		.bridge = n->routed ? 0 : n->bridge->link.index,
		.mtu = n->mtu,
		.peer_mac = e->mac,
	};

	if (n->routed) {
		want.device.group = VX_GROUP_PAIR(n->vni);
		want.device.mac = DRIVER_GATEWAY_MAC;
		want.has_ip6 = has_ip6(n);
	}

	memcpy(want.peer_name, e->peer_name, sizeof(want.peer_name));
	want.peer_netns = e->peer_netns;
	return want;
}

static void plan_endpoint(struct vxlan *vx, struct vx_endpoint *e)
{
	struct vx_network *n = e->network;
	struct vx_want_endpoint want = want_endpoint(e);
	bool create = !e->link && e->make;
	size_t from = vx->plan->count;

	if (create) {
		want.device.index = vx_new_index(vx);
		if (!n->routed)
			want.device.mac = vx_mac(MAC_PAIR, &n->id, e->id, vx->hostno);
		free_name(vx, want.device.name, "tv", n, e->id, &e->salt);
	}
	vx_plan_endpoint(vx->plan, &want, e->link ? &e->link->link : NULL, e->make);
	own(vx, from, VX_OWNER_ENDPOINT, e);
	if (vx->plan->count > from)
		account(vx, e->pending, e->link ? &vx->counters.last_drift.different : &vx->counters.last_drift.missing);
	vx_endpoint_claim(vx, e, create ? want.device.index : e->link ? e->link->link.index : 0);
}

/* Whatever applies is done here, before anything is read for the plan: a device may go meanwhile. */
static bool prepare_endpoint(struct vxlan *vx, const struct vx_endpoint *e)
{
	make_room(vx);
	if (ready(e->network) && !e->link && e->make)
		free_peer(vx, e);
	return ready(e->network);
}

static void pass_endpoints(struct vxlan *vx)
{
	struct vx_endpoint *list = vx->dirty_endpoints;

	vx->dirty_endpoints = NULL;
	while (list) {
		struct vx_endpoint *e = list;

		DL_DELETE(list, e);
		e->dirty = e->failed = false;
		free(e->error);
		e->error = NULL;
		if (!prepare_endpoint(vx, e)) {
			if (e->network->live)
				vx_dirty_endpoint(vx, e); /* for when the devices could be made */
			continue;
		}
		plan_endpoint(vx, e);
		e->pending = false;
	}
}

static bool held(const struct vxlan *vx, const struct vx_entry *e)
{
	return vx->hold && !e->claims && !e->ever_wanted;
}

/* What leads nowhere needs no device, and goes with none. */
static bool has_device(const struct vx_entry *e)
{
	return ready(e->network) || (e->key.kind == VX_ROW_ROUTE && !e->claims && e->have.route.port == VX_PORT_NONE);
}

/* The link that has the row. */
static uint32_t device_of(const struct vx_entry *e)
{
	const struct vx_network *n = e->network;
	bool on_tunnel = e->key.kind == VX_ROW_FLOOD || e->key.kind == VX_ROW_REMOTE || e->key.kind == VX_ROW_ADDR;

	if (!ready(n))
		return 0;
	if (n->routed && !on_tunnel && e->key.port != VX_PORT_TUNNEL)
		return e->key.port;
	return on_tunnel || n->routed ? n->vxlan->link.index : n->bridge->link.index;
}

static void plan_row(struct vxlan *vx, struct vx_entry *e)
{
	struct vx_network *n = e->network;
	struct vx_row want = vx_entry_row(e, &e->want), have = vx_entry_row(e, &e->have);
	struct driver_drift *drift = &vx->counters.last_drift;
	size_t from = vx->plan->count;

	vx_plan_row(vx->plan, e->claims ? &want : NULL, e->has ? &have : NULL, device_of(e), ready(n) ? n->vxlan->link.index : 0);
	own(vx, from, VX_OWNER_ROW, e);
	if (vx->plan->count == from)
		return;
	account(vx, e->pending, !e->claims ? &drift->foreign : e->has ? &drift->different : &drift->missing);
}

static void pass_rows(struct vxlan *vx)
{
	struct vx_entry *list = vx->dirty_rows;

	vx->dirty_rows = NULL;
	while (list) {
		struct vx_entry *e = list;

		make_room(vx); /* first: it may change whether the row is there, is wanted, and has a device to be on */
		DL_DELETE(list, e);
		e->dirty = false;
		if (!e->has && !e->claims) {
			if (!e->network->desired)
				vx_dirty_network(vx, e->network);
			vx_entry_free(vx, e);
		} else if (has_device(e) && !held(vx, e)) {
			plan_row(vx, e);
			e->pending = false;
		}
	}
}

static void guard(struct vxlan *vx, bool *ret_wrote, struct err *err)
{
	struct vx_network *n, *next;
	size_t count = 0;
	uint32_t *vnis;

	/* An empty member list drops every frame, so nothing is done before the members are known. */
	if (!vx->members_known)
		return;
	vnis = calloc(HASH_COUNT(vx->networks) + 1, sizeof(*vnis));
	if (!vnis)
		return;
	/* All that exist, not only those with devices here: a forged frame is stopped on the way to others. */
	HASH_ITER(hh, vx->networks, n, next)
	if (n->desired)
		vnis[count++] = n->vni;
	vx->guard_dirty = guard_apply(vx->guard, vnis, count, vx->members, count ? vx->member_count : 0, ret_wrote, err) < 0;
	free(vnis);
}

static void table(struct vxlan *vx)
{
	struct err err = {0};
	bool wrote = false;

	if (!vx->guard_dirty)
		return;
	if (vx->routed)
		vx_routed_nat(vx, &wrote, &err);
	else
		guard(vx, &wrote, &err);
	/* The first time it is made anew whatever is there. */
	if (wrote && !vx->guard_pending)
		account(vx, false, &vx->counters.last_drift.different);
	if (vx->guard_dirty && err.code)
		vx_fail(vx, &err);
	else if (!vx->guard_dirty)
		vx->guard_pending = false;
}

static bool any_dirty(const struct vxlan *vx)
{
	return vx->dirty_networks || vx->dirty_endpoints || vx->dirty_rows || vx->dirty_links;
}

/* Plans into the empty plan and takes it back. */
static bool planned_nothing(struct vxlan *vx)
{
	bool nothing = vx->plan->count == 0;

	vx->plan->count = 0;
	return nothing;
}

static bool network_agrees(struct vxlan *vx, struct vx_network *n)
{
	struct vx_want_network want;

	if (!n->live)
		return !n->bridge && !n->vxlan;
	if (!ready(n))
		return false;
	want_network(vx, n, &want);
	plan_devices(vx, n, &want);
	return planned_nothing(vx);
}

static bool endpoint_agrees(struct vxlan *vx, struct vx_endpoint *e)
{
	struct vx_want_endpoint want;

	if (!ready(e->network))
		return !e->network->live;
	if (!e->link)
		return !e->make;
	want = want_endpoint(e);
	vx_plan_endpoint(vx->plan, &want, &e->link->link, false);
	return planned_nothing(vx);
}

static bool row_agrees(const struct vxlan *vx, const struct vx_entry *e)
{
	if (!has_device(e) || held(vx, e))
		return true;
	return e->has ? e->claims && memcmp(&e->want, &e->have, sizeof(e->want)) == 0 : !e->claims;
}

bool vx_differs(struct vxlan *vx)
{
	struct vx_network *n, *next_network;
	struct vx_endpoint *e, *next_endpoint;
	struct vx_entry *row, *next_row;
	struct vx_have_link *l, *next_link;

	DL_FOREACH_SAFE(vx->dirty_networks, n, next_network)
	if (network_agrees(vx, n)) {
		DL_DELETE(vx->dirty_networks, n);
		n->dirty = n->pending = false;
		vx_network_gc(vx, n);
	}
	DL_FOREACH_SAFE(vx->dirty_endpoints, e, next_endpoint)
	if (!e->failed && endpoint_agrees(vx, e)) {
		DL_DELETE(vx->dirty_endpoints, e);
		e->dirty = e->pending = false;
	}
	DL_FOREACH_SAFE(vx->dirty_rows, row, next_row)
	{
		if (!row->has && !row->claims) {
			vx_entry_free(vx, row);
		} else if (row_agrees(vx, row)) {
			DL_DELETE(vx->dirty_rows, row);
			row->dirty = row->pending = false;
		}
	}
	DL_FOREACH_SAFE(vx->dirty_links, l, next_link)
	if (link_agrees(l)) {
		DL_DELETE(vx->dirty_links, l);
		l->dirty = false;
	}
	return any_dirty(vx);
}

static int sync_pass(struct vxlan *vx, struct err *err)
{
	vx->failures = 0;
	table(vx);
	for (unsigned round = 0; round < ROUNDS_MAX && any_dirty(vx) && (round == 0 || vx->failures == 0); round++) {
		pass_networks(vx);
		pass_links(vx);
		/* Pairs go into bridges whose making must have succeeded; if no device had to be made, all goes in one message.
		 */
		if (vx->dirty_endpoints || vx->dirty_rows)
			for (size_t i = 0; i < vx->plan->count; i++)
				if (vx->plan->ops[i].owner_kind == VX_OWNER_NETWORK) {
					vx_apply(vx);
					break;
				}
		pass_endpoints(vx);
		pass_rows(vx);
		vx_apply(vx);
		vx->counting = false;
		if (vx->reap_now)
			vx_reap_all(vx);
	}
	if (!vx->routed)
		vx_announce_run(vx);
	if (!vx->failures)
		return 0;
	if (err)
		*err = vx->failure;
	if (vx->failures > 1)
		err_prefix(err, "%u operations failed, the first", vx->failures);
	return -1;
}

int vx_sync(struct vxlan *vx, struct err *err)
{
	if (vx_have_drain(vx, err) < 0)
		return -1;
	if (vx->overrun)
		return vx_resync(vx, err);
	vx->counters.syncs++;
	return sync_pass(vx, err);
}

int vx_resync(struct vxlan *vx, struct err *err)
{
	struct err prepare;
	bool seen = vx->nothing_yet && vx_have_drain(vx, err) == 0 && !vx->overrun && !vx->networks;

	vx->counters.resyncs++;
	vx->nothing_yet = false;
	if (!seen && vx_have_dump(vx, err) < 0) {
		vx->overrun = true; /* what we think the kernel has may be wrong: the next sync tries again */
		return -1;
	}
	vx_dirty_all(vx);
	vx->guard_dirty = true;
	vx->counting = true;
	vx->first_count = vx->counters.resyncs == 1;
	memset(&vx->counters.last_drift, 0, sizeof(vx->counters.last_drift));
	if (sync_pass(vx, err) < 0)
		return -1;
	if (seen)
		return 0; /* the settings were made at the opening, a moment ago */
	if ((vx->routed ? vx_routed_prepare(vx, &prepare) : vx_fabric_prepare(vx->fabric_fd, &prepare)) < 0) {
		if (err)
			*err = prepare;
		return -1;
	}
	return 0;
}

/* The calls of trestle-cni but for ADD, which workload_add.c has: DEL, GC, CHECK, STATUS, and the same for addresses alone. See
 * docs/api.md, chapter CNI. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/workloads_internal.h"
#include "base/alloc.h"
#include "netlink/netns.h"

/* ---- DEL, GC ---- */

struct removal {
	struct node *node;
	struct control_call *call;
	unsigned open, removed;
	bool gc;
};

static void answer_removal(void *arg)
{
	struct removal *r = arg;

	control_done(r->call, r->gc ? json_pack("{s:i}", "removed", (int)r->removed) : json_object());
	free(r);
}

static void one_removed(void *arg)
{
	struct removal *r = arg;

	if (--r->open == 0)
		outbox_call(r->node->outbox, answer_removal, r);
}

static struct removal *removal_new(struct node *node, struct control_call *call, bool gc)
{
	struct removal *r = alloc_new(struct removal);

	*r = (struct removal){.node = node, .call = call, .open = 1, .gc = gc};
	return r;
}

static void remove_one(struct removal *r, struct workload *w)
{
	r->open++;
	r->removed++;
	workload_remove(r->node, w, one_removed, r);
}

struct deletion {
	struct removal *removal;
	json_t *attachment;
};

static void delete_known(void *arg)
{
	struct deletion *d = arg;
	struct workload *w = workload_of(d->removal->node, d->attachment);

	if (w)
		remove_one(d->removal, w);
	one_removed(d->removal);
	json_decref(d->attachment);
	free(d);
}

static void del(struct node *node, struct control_call *call, json_t *body)
{
	struct deletion *d = alloc_new(struct deletion);

	d->removal = removal_new(node, call, false);
	d->attachment = json_incref(body);
	workload_unbury(node, body, delete_known, d);
}

static bool kept(const struct workload *w, json_t *keep)
{
	json_t *item;
	size_t i;

	json_array_foreach(keep, i, item) if (strcmp(workload_text(item, "container_id"), w->container) == 0 &&
					      strcmp(workload_text(item, "ifname"), w->ifname) == 0) return true;
	return false;
}

/* What is being made at this moment is a runtime's that is alive. */
static void gc(struct node *node, struct control_call *call, json_t *body)
{
	struct removal *r = removal_new(node, call, true);
	const char *config = workload_text(body, "config");
	json_t *keep = json_object_get(body, "keep");
	struct workload *w, *next;

	HASH_ITER(hh, node->workloads, w, next)
	if (strcmp(w->config, config) == 0 && !w->add && !kept(w, keep))
		remove_one(r, w);
	one_removed(r);
}

/* ---- CHECK ---- */

struct check {
	struct node *node;
	struct control_call *call;
	int netns_fd;
	struct workload_link link;
};

static void check_end(struct check *c, const struct err *err)
{
	if (err)
		control_fail(c->call, err);
	else
		control_done(c->call, json_object());
	if (c->netns_fd >= 0)
		close(c->netns_fd);
	free(c->link.routes);
	free(c);
}

static void link_checked(void *arg, const struct err *err)
{
	check_end(arg, err);
}

static int unknown(const struct workload *w, json_t *body, struct err *err)
{
	if (w && w->done && !w->closing)
		return 0;
	return err_set(err, ERR_NOT_FOUND, "container %s has no interface %s in configuration \"%s\" on this host",
		workload_text(body, "container_id"), workload_text(body, "ifname"), workload_text(body, "config"));
}

/* Each of ours must be among the given ones; more than ours may come from other plugins of the list. */
static int check_listed(const struct prefix *address, json_t *ips, bool with_length, struct err *err)
{
	char text[PREFIX_TEXT_SIZE];
	json_t *item;
	size_t i;

	if (!ips || !prefix_is_set(address))
		return 0;
	if (with_length)
		prefix_format(address, text);
	else
		ip_format(&address->ip, text);
	json_array_foreach(ips, i, item) if (strcmp(json_string_value(item), text) == 0) return 0;
	return err_set(err, ERR_CONFLICT, "the address %s of this attachment is not in the result that was given", text);
}

static int check_records(struct node *node, const struct endpoint *ep, json_t *body, struct err *err)
{
	const char *mac = json_string_value(json_object_get(body, "mac"));
	char ours[MAC_TEXT_SIZE], text[IP_TEXT_SIZE];
	const struct prefix *addresses[2] = {&ep->state.address4, &ep->state.address6};

	if (mac && strcasecmp(mac, mac_format(&ep->state.mac, ours)) != 0)
		return err_set(err, ERR_CONFLICT, "the MAC address of this attachment is %s, the result that was given says %s",
			ours, mac);
	for (unsigned i = 0; i < 2; i++) {
		if (check_listed(addresses[i], json_object_get(body, "ips"), true, err) < 0)
			return -1;
		if (prefix_is_set(addresses[i]) && !ep->bound[i] && endpoint_pool(node, ep->network, &addresses[i]->ip))
			return err_set(err, ERR_CONFLICT, "the address %s is not leased to this attachment any more",
				ip_format(&addresses[i]->ip, text));
	}
	return 0;
}

static void check(struct node *node, struct control_call *call, json_t *body)
{
	struct workload *w = workload_of(node, body);
	struct check *c = alloc_new(struct check);
	struct err err = {0};

	*c = (struct check){.node = node, .call = call, .netns_fd = -1};
	if (unknown(w, body, &err) < 0 || !w->ep) {
		if (!err.code)
			err_set(&err, ERR_NOT_FOUND, "this attachment has addresses only");
		check_end(c, &err);
		return;
	}
	if (check_records(node, w->ep, body, &err) < 0) {
		check_end(c, &err);
		return;
	}
	if (netns_open(workload_text(body, "netns"), &c->netns_fd, &err) < 0) {
		c->netns_fd = -1;
		check_end(c, &err);
		return;
	}
	workload_fill_link(w, &c->link);
	workload_link_check(node, c->netns_fd, &c->link, link_checked, c);
}

static void check_addresses(struct node *node, struct control_call *call, json_t *body)
{
	struct workload *w = workload_of(node, body);
	struct err err = {0};
	int ret = unknown(w, body, &err);

	for (unsigned i = 0; ret == 0 && i < 2; i++) {
		const struct workload_lease *lease = &w->leases[i];

		if (prefix_is_set(&lease->address) && !ipam_lookup(node->ipam, &lease->pool, &lease->address.ip, NULL))
			ret = err_set(&err, ERR_CONFLICT, "an address of this attachment is not leased any more");
		else
			ret = check_listed(&lease->address, json_object_get(body, "ips"), false, &err);
	}
	if (ret < 0)
		control_fail(call, &err);
	else
		control_done(call, json_object());
}

/* ---- STATUS ---- */

struct free_count {
	u128 free;
};

static void count_free(void *ctx, const struct ipam_share *share)
{
	struct free_count *count = ctx;

	count->free += share->free_held;
}

/* Free on any host: what others hold can be asked for. */
static bool has_free(struct node *node, const struct network *n, uint8_t family)
{
	bool any = false;

	for (unsigned i = 0; i < n->def.pool_count; i++) {
		struct free_count count = {0};
		struct pool *p;

		if (n->def.pools[i].ip.family != family)
			continue;
		any = true;
		p = endpoint_pool(node, n, &n->def.pools[i].ip);
		if (!p || !p->joined)
			return true; /* not asked yet */
		ipam_each_share(node->ipam, &p->id, count_free, &count);
		if (count.free)
			return true;
	}
	return !any;
}

static int check_status(struct node *node, const char *name, struct err *err)
{
	const char *broken = datapath_last_error(node);
	struct network *n = name ? network_find(node, name) : NULL;

	if (node->leaving || node->join)
		return err_set(err, ERR_UNREACHABLE, "this host is joining or leaving a cluster; try again in a second");
	if (*broken)
		return err_set(err, ERR_SYSTEM, "the kernel refuses what is needed: %s", broken);
	for (uint8_t family = 4; n && family <= 6; family += 2)
		if (!has_free(node, n, family))
			return err_set(err, ERR_EXHAUSTED,
				"network \"%s\" has no free IPv%u address left on any host; `trestle ipam show` tells who holds "
				"what",
				n->def.name, family);
	return 0;
}

static void status(struct node *node, struct control_call *call, const char *name)
{
	struct err err = {0};

	if (check_status(node, name, &err) < 0)
		control_fail(call, &err);
	else
		control_done(call, json_object());
}

/* ---- dispatch ---- */

void workloads_call(struct node *node, struct control_call *call, const struct control_request *request)
{
	switch (request->verb) {
	case CONTROL_CNI_ADD:
		workload_add(node, call, request->body, false);
		break;
	case CONTROL_IPAM_ALLOCATE:
		workload_add(node, call, request->body, true);
		break;
	case CONTROL_CNI_DEL:
	case CONTROL_IPAM_RELEASE:
		del(node, call, request->body);
		break;
	case CONTROL_CNI_CHECK:
		check(node, call, request->body);
		break;
	case CONTROL_IPAM_CHECK:
		check_addresses(node, call, request->body);
		break;
	case CONTROL_CNI_GC:
		gc(node, call, request->body);
		break;
	default:
		status(node, call, request->filter);
		break;
	}
}

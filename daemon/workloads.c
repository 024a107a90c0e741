/* What CNI attached on this host: names, life, and the calls of trestle-cni. See docs/api.md, chapter CNI.
 *
 * An attachment is (configuration, container, interface). It is either an endpoint of ours, an equal of the engine's in the same
 * table, or addresses for an interface that another plugin makes. It is saved before anything is made for it, and saved again as
 * done before the runtime is told: what is found not done at a start belongs to nobody and is undone, with the leases that carry
 * its label.
 *
 * DEL wins over an ADD that still runs. A runtime may also never call DEL: an endpoint whose namespace is gone is collected like
 * an engine's that was forgotten. And DEL may come while no daemon runs: then the plugin leaves word in RUN_DIR/tombstones, which
 * is acted on before the first call is taken, every few seconds, and before an attachment of that name is made. */
#include <dirent.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "base/file.h"
#include "base/jd.h"
#include "daemon/node_internal.h"
#include "netlink/netns.h"

#define TOMBSTONES_MS 3000
#define TOMBSTONES_MAX 1024 /* looked at in one go */
#define TOMBSTONE_SIZE_MAX 4096
#define SAVED_SIZE_MAX (256 * 1024)

struct gone_wait {
	void (*fn)(void *arg);
	void *arg;
	struct gone_wait *next;
};

static void wait_for(struct gone_wait **list, void (*fn)(void *arg), void *arg)
{
	struct gone_wait *wait;

	if (!fn)
		return;
	wait = calloc(1, sizeof(*wait));
	if (!wait)
		abort();
	*wait = (struct gone_wait){.fn = fn, .arg = arg, .next = *list};
	*list = wait;
}

static void tell(struct gone_wait *wait)
{
	struct gone_wait *next;

	for (; wait; wait = next) {
		next = wait->next;
		wait->fn(wait->arg);
		free(wait);
	}
}

/* ---- names ---- */

static const char *text_of(json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

static void make_key(char key[WORKLOAD_KEY_SIZE], json_t *attachment)
{
	snprintf(key, WORKLOAD_KEY_SIZE, "%s:%s:%s", text_of(attachment, "config"), text_of(attachment, "container_id"),
		text_of(attachment, "ifname"));
}

/* From the name, so that an attachment made again meets what is left of its former pair. */
static void make_endpoint_id(struct workload *w)
{
	uint8_t hash[16];
	char hex[2 * sizeof(hash) + 1];

	crypto_generichash(hash, sizeof(hash), (const uint8_t *)w->key, strlen(w->key), NULL, 0);
	hex_encode(hash, sizeof(hash), hex);
	snprintf(w->endpoint_id, sizeof(w->endpoint_id), "cni-%s", hex);
}

static struct workload *find(struct node *node, const char *key)
{
	struct workload *w;

	HASH_FIND_STR(node->workloads, key, w);
	return w;
}

struct workload *workload_of(struct node *node, json_t *attachment)
{
	char key[WORKLOAD_KEY_SIZE];

	make_key(key, attachment);
	return find(node, key);
}

/* A long container id is told by its hash, so that no two attachments share a label. */
const char *workload_label(const struct workload *w, char buf[IPAM_OWNER_MAX + 1])
{
	int n = snprintf(buf, IPAM_OWNER_MAX + 1, "%s:%s/%s", w->config, w->container, w->ifname);

	if (n > IPAM_OWNER_MAX)
		snprintf(buf, IPAM_OWNER_MAX + 1, "%s", w->endpoint_id);
	return buf;
}

static struct workload *add(struct node *node, json_t *attachment)
{
	struct workload *w = calloc(1, sizeof(*w));

	if (!w)
		abort();
	make_key(w->key, attachment);
	make_endpoint_id(w);
	snprintf(w->config, sizeof(w->config), "%s", text_of(attachment, "config"));
	snprintf(w->container, sizeof(w->container), "%s", text_of(attachment, "container_id"));
	snprintf(w->ifname, sizeof(w->ifname), "%s", text_of(attachment, "ifname"));
	HASH_ADD_STR(node->workloads, key, w);
	return w;
}

struct workload *workload_new(struct node *node, json_t *attachment, bool addresses_only)
{
	struct workload *w = add(node, attachment);

	w->addresses_only = addresses_only;
	w->about = json_object();
	return w;
}

static void workload_free(struct workload *w)
{
	struct gone_wait *gone = w->gone;

	json_decref(w->about);
	free(w->routes);
	free(w);
	tell(gone);
}

void workload_describe(const struct workload *w, json_t *endpoint)
{
	static const char *const members[] = {"name", "labels", "aliases"};

	json_object_set_new(endpoint, "container_id", w ? json_string(w->container) : json_null());
	json_object_set_new(endpoint, "ifname", w ? json_string(w->ifname) : json_null());
	for (unsigned i = 0; i < 3; i++) {
		json_t *value = w ? json_object_get(w->about, members[i]) : NULL;

		json_object_set_new(endpoint, members[i], value ? json_incref(value) : json_null());
	}
}

/* ---- saved form: JSON, since half of it is what people said ---- */

static json_t *prefix_json(const struct prefix *prefix)
{
	char text[PREFIX_TEXT_SIZE];

	return prefix_is_set(prefix) ? json_string(prefix_format(prefix, text)) : json_null();
}

static json_t *ip_json(const struct ip *ip)
{
	char text[IP_TEXT_SIZE];

	return ip_is_set(ip) ? json_string(ip_format(ip, text)) : json_null();
}

static json_t *leases_json(const struct workload *w)
{
	json_t *list = json_array();
	char id[ID_TEXT_SIZE];

	for (unsigned i = 0; i < 2; i++)
		if (prefix_is_set(&w->leases[i].address))
			json_array_append_new(
				list, json_pack("{s:s, s:o, s:o}", "pool", id_format(&w->leases[i].pool, id), "address",
					      prefix_json(&w->leases[i].address), "gateway", ip_json(&w->leases[i].gateway)));
	return list;
}

static json_t *routes_json(const struct workload *w)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < w->route_count; i++)
		json_array_append_new(list,
			json_pack("{s:o, s:o}", "to", prefix_json(&w->routes[i].to), "gateway", ip_json(&w->routes[i].gateway)));
	return list;
}

void workload_save(struct node *node, const struct workload *w)
{
	char network[ID_TEXT_SIZE];
	json_t *o = json_pack("{s:i, s:s, s:s, s:s, s:b, s:b, s:I, s:I, s:i, s:o, s:o, s:O, s:s?, s:b}", "format", 1, "config",
		w->config, "container_id", w->container, "ifname", w->ifname, "addresses_only", (int)w->addresses_only, "done",
		(int)w->done, "netns_dev", (json_int_t)w->netns_dev, "netns_ino", (json_int_t)w->netns_ino, "mtu", (int)w->mtu,
		"leases", leases_json(w), "routes", routes_json(w), "about", w->about, "exit_network",
		w->exits ? id_format(&w->exit_network, network) : NULL, "no_exit", (int)w->no_exit);
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;

	if (!text)
		abort();
	outbox_save(
		node->outbox, store_change_new(STORE_BOOT, STORE_WORKLOAD, w->key, strlen(w->key), text, strlen(text), false));
	json_decref(o);
	free(text);
}

static void unsave(struct node *node, const struct workload *w)
{
	outbox_save(node->outbox, store_change_new(STORE_BOOT, STORE_WORKLOAD, w->key, strlen(w->key), NULL, 0, false));
}

static int load_lease(struct workload *w, json_t *item, struct err *err)
{
	struct workload_lease lease = {0};
	struct jd d;

	jd_init(&d, item, "lease", err);
	lease.address = jd_prefix(&d, "address");
	lease.gateway = jd_opt_ip(&d, "gateway");
	if (!d.failed && id_parse(jd_str(&d, "pool", ID_TEXT_SIZE), &lease.pool, err) < 0)
		return -1;
	if (jd_finish_strict(&d) < 0)
		return -1;
	w->leases[lease.address.ip.family == 6] = lease;
	return 0;
}

static int load_routes(struct workload *w, json_t *list, struct err *err)
{
	json_t *item;
	size_t i;

	w->routes = calloc(json_array_size(list) + 1, sizeof(*w->routes));
	if (!w->routes)
		abort();
	json_array_foreach(list, i, item)
	{
		struct jd d;

		jd_init(&d, item, "route", err);
		w->routes[i].to = jd_prefix(&d, "to");
		w->routes[i].gateway = jd_opt_ip(&d, "gateway");
		if (jd_finish_strict(&d) < 0)
			return -1;
		w->route_count++;
	}
	return 0;
}

static int load_members(struct workload *w, struct jd *d)
{
	json_t *leases, *routes, *item;
	const char *exit_network;
	size_t i;

	w->addresses_only = jd_bool(d, "addresses_only");
	w->done = jd_bool(d, "done");
	w->netns_dev = (uint64_t)jd_int(d, "netns_dev", INT64_MIN, INT64_MAX);
	w->netns_ino = (uint64_t)jd_int(d, "netns_ino", INT64_MIN, INT64_MAX);
	w->mtu = (uint32_t)jd_int(d, "mtu", 0, 65535);
	leases = jd_opt_array(d, "leases");
	routes = jd_opt_array(d, "routes");
	w->about = json_incref(jd_opt_object(d, "about"));
	exit_network = jd_opt_str(d, "exit_network", ID_TEXT_SIZE);
	w->no_exit = jd_opt_bool(d, "no_exit", false);
	if (jd_finish(d) < 0)
		return -1;
	if (exit_network && id_parse(exit_network, &w->exit_network, d->err) < 0)
		return -1;
	w->exits = exit_network != NULL;
	json_array_foreach(leases, i, item) if (load_lease(w, item, d->err) < 0) return -1;
	return load_routes(w, routes, d->err);
}

static int load(void *ctx, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct node *node = ctx;
	json_t *root = jd_parse(val, len < SAVED_SIZE_MAX ? len : SAVED_SIZE_MAX, "stored attachment", err);
	struct workload *w;
	struct jd d;
	int ret;

	if (!root)
		return -1;
	jd_init(&d, root, "stored attachment", err);
	if (jd_int(&d, "format", 1, INT64_MAX) != 1 && !d.failed) {
		json_decref(root);
		return err_set(err, ERR_VERSION, "stored attachment %.*s was written by a newer trestled", (int)key_len,
			(const char *)key);
	}
	jd_str(&d, "config", CONTROL_CNI_CONFIG_MAX);
	jd_str(&d, "container_id", CONTROL_CNI_ID_MAX);
	jd_str(&d, "ifname", DRIVER_IFNAME_SIZE - 1);
	if (jd_finish(&d) < 0) {
		json_decref(root);
		return -1;
	}
	w = add(node, root);
	ret = load_members(w, &d);
	json_decref(root);
	return ret;
}

/* ---- the end of one ---- */

struct labelled {
	const char *owner;
	struct ipam_lease found[8];
	unsigned count;
};

static void collect_labelled(void *ctx, const struct ipam_lease *lease)
{
	struct labelled *l = ctx;

	if (!lease->bound && strcmp(lease->owner, l->owner) == 0 && l->count < sizeof(l->found) / sizeof(l->found[0]))
		l->found[l->count++] = *lease;
}

/* Addresses that it was given and that nothing was made with. */
static void release_labelled(struct node *node, const struct workload *w)
{
	char owner[IPAM_OWNER_MAX + 1];
	struct labelled l = {.owner = workload_label(w, owner)};

	ipam_each_lease(node->ipam, NULL, collect_labelled, &l);
	for (unsigned i = 0; i < l.count; i++)
		ipam_release(node->ipam, &l.found[i].pool, &l.found[i].address, clock_boot_ms());
	custody_poke(node);
}

void workload_pool_unused(struct node *node, struct pool *p)
{
	struct ipam_totals totals = {0};

	if (!p->state.pinned || p->state.ref_count)
		return;
	ipam_pool_totals(node->ipam, &p->id, &totals);
	if (totals.leases > p->state.gateway_count)
		return;
	for (unsigned i = 0; i < p->state.gateway_count; i++)
		ipam_release(node->ipam, &p->id, &p->state.gateways[i], clock_boot_ms());
	p->state.gateway_count = 0;
	p->state.pinned = false;
	pool_unuse(node, p);
}

void workload_release(struct node *node, struct workload *w)
{
	for (unsigned i = 0; i < 2; i++) {
		struct workload_lease *lease = &w->leases[i];
		struct pool *p;

		if (!prefix_is_set(&lease->address))
			continue;
		ipam_release(node->ipam, &lease->pool, &lease->address.ip, clock_boot_ms());
		p = pool_by_id(node, &lease->pool);
		if (p && !p->state.def.name[0]) /* asked for by its subnet alone: it ends with its last address */
			workload_pool_unused(node, p);
		lease->address = (struct prefix){0};
	}
	custody_poke(node);
}

void workload_drop(struct node *node, struct workload *w)
{
	HASH_DEL(node->workloads, w);
	unsave(node, w);
	host_end_release(node, w);
	workload_free(w);
}

void workload_endpoint_gone(struct node *node, struct endpoint *ep)
{
	struct workload *w = ep->workload;

	if (!w)
		return;
	w->ep = NULL;
	ep->workload = NULL;
	if (w->add)
		w->closing = true; /* the one who makes it finds out */
	else
		workload_drop(node, w);
}

void workload_ended(struct node *node, struct workload *w)
{
	release_labelled(node, w);
	workload_drop(node, w);
}

void workload_remove(struct node *node, struct workload *w, void (*fn)(void *arg), void *arg)
{
	if (w->add) {
		wait_for(&w->gone, fn, arg);
		w->closing = true;
		if (w->ep)
			endpoint_remove(node, w->ep, NULL, NULL);
		return;
	}
	if (w->ep) {
		endpoint_remove(node, w->ep, fn, arg); /* drops w */
		return;
	}
	workload_release(node, w);
	wait_for(&w->gone, fn, arg);
	workload_ended(node, w);
}

/* ---- word of what was deleted without us ---- */

static void tombstone_dir(const struct node *node, char buf[OPTIONS_PATH_MAX + 32])
{
	snprintf(buf, OPTIONS_PATH_MAX + 32, "%s/tombstones", node->options.run_dir);
}

/* One that is acted on. What it asks for is saved before the word itself goes, and until then nobody takes it for another one. */
struct tombstone {
	struct node *node;
	char path[OPTIONS_PATH_MAX + WORKLOAD_KEY_SIZE + 64];
	struct gone_wait *waiting;
	struct tombstone *prev, *next; /* node->tombstones */
};

static void unlink_tombstone(void *arg)
{
	struct tombstone *t = arg;
	struct gone_wait *waiting = t->waiting;

	if (unlink(t->path) < 0 && errno != ENOENT)
		log_warn("workloads", "remove %s: %s", t->path, strerror(errno));
	DL_DELETE(t->node->tombstones, t);
	free(t);
	tell(waiting);
}

static void tombstone_settled(void *arg)
{
	struct tombstone *t = arg;

	outbox_call(t->node->outbox, unlink_tombstone, t);
}

/* It names an attachment as a call does, and is held against the same limits. */
static int read_tombstone(const char *path, json_t **ret_root, struct err *err)
{
	char *data;
	size_t len;
	int result;

	if (file_read(path, TOMBSTONE_SIZE_MAX, &data, &len, err) < 0)
		return -1;
	result = control_body(CONTROL_IPAM_RELEASE, data, len, ret_root, err);
	free(data);
	return result < 0 ? err_prefix(err, "%s", path) : 0;
}

static struct tombstone *tombstone_find(struct node *node, const char *path)
{
	struct tombstone *t;

	DL_FOREACH(node->tombstones, t)
	if (strcmp(t->path, path) == 0)
		break;
	return t;
}

static struct tombstone *tombstone_new(struct node *node, const char *path)
{
	struct tombstone *t = calloc(1, sizeof(*t));

	if (!t)
		abort();
	t->node = node;
	snprintf(t->path, sizeof(t->path), "%s", path);
	DL_APPEND(node->tombstones, t);
	return t;
}

/* fn (may be NULL) when it is settled. */
static void act_on(struct node *node, const char *path, void (*fn)(void *arg), void *arg)
{
	struct tombstone *t = tombstone_find(node, path);
	struct workload *w = NULL;
	json_t *root = NULL;
	struct err err;

	if (t) {
		wait_for(&t->waiting, fn, arg);
		return;
	}
	t = tombstone_new(node, path);
	wait_for(&t->waiting, fn, arg);
	if (read_tombstone(path, &root, &err) < 0)
		log_warn("workloads", "%s; removing it", err.text);
	else
		w = workload_of(node, root);
	json_decref(root);
	if (w) {
		log_info("workloads", "%s was deleted while no daemon ran", w->key);
		workload_remove(node, w, tombstone_settled, t);
	} else {
		tombstone_settled(t);
	}
}

static void act_on_all(struct node *node)
{
	char dir[OPTIONS_PATH_MAX + 32], path[OPTIONS_PATH_MAX + WORKLOAD_KEY_SIZE + 64];
	DIR *d;
	struct dirent *entry;
	unsigned count = 0;

	tombstone_dir(node, dir);
	d = opendir(dir);
	if (!d)
		return;
	/* cppcheck-suppress readdirCalled ; the stream is this call's own */
	while (count++ < TOMBSTONES_MAX && (entry = readdir(d))) {
		size_t len = strlen(entry->d_name);

		/* One that is being written is a .tmp still. */
		if (entry->d_name[0] == '.' || (len > 4 && strcmp(entry->d_name + len - 4, ".tmp") == 0))
			continue;
		if (snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name) < (int)sizeof(path))
			act_on(node, path, NULL, NULL);
	}
	closedir(d);
}

void workload_unbury(struct node *node, json_t *attachment, void (*fn)(void *arg), void *arg)
{
	char dir[OPTIONS_PATH_MAX + 32], path[OPTIONS_PATH_MAX + WORKLOAD_KEY_SIZE + 64], key[WORKLOAD_KEY_SIZE];

	make_key(key, attachment);
	tombstone_dir(node, dir);
	snprintf(path, sizeof(path), "%s/%s", dir, key);
	if (access(path, F_OK) == 0 || tombstone_find(node, path))
		act_on(node, path, fn, arg);
	else
		fn(arg);
}

void workloads_tick(struct node *node, uint64_t now)
{
	if (now - node->last_tombstones_ms < TOMBSTONES_MS)
		return;
	node->last_tombstones_ms = now;
	act_on_all(node);
}

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
	struct removal *r = calloc(1, sizeof(*r));

	if (!r)
		abort();
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
	struct deletion *d = calloc(1, sizeof(*d));

	if (!d)
		abort();
	d->removal = removal_new(node, call, false);
	d->attachment = json_incref(body);
	workload_unbury(node, body, delete_known, d);
}

static bool kept(const struct workload *w, json_t *keep)
{
	json_t *item;
	size_t i;

	json_array_foreach(keep, i, item) if (strcmp(text_of(item, "container_id"), w->container) == 0 &&
					      strcmp(text_of(item, "ifname"), w->ifname) == 0) return true;
	return false;
}

/* What is being made at this moment is a runtime's that is alive. */
static void gc(struct node *node, struct control_call *call, json_t *body)
{
	struct removal *r = removal_new(node, call, true);
	const char *config = text_of(body, "config");
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
		text_of(body, "container_id"), text_of(body, "ifname"), text_of(body, "config"));
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

const struct ip workload_gateways[2] = {{.family = 4, .bytes = {169, 254, 1, 1}}, {.family = 6, .bytes = {0xfe, 0x80, [15] = 1}}};

static void add_route(struct workload_link *link, struct workload_route route)
{
	link->routes[link->route_count++] = route;
}

/* By the gateway to the network's own subnets, and to everywhere else unless the container has a way already, or is to have none.
 */
static void add_routes(const struct workload *w, struct workload_link *link)
{
	const struct network *n = w->ep->network;

	for (unsigned i = 0; i < 2; i++) {
		struct prefix everywhere = {.ip = {.family = workload_gateways[i].family}};

		if (!prefix_is_set(&link->addresses[i]))
			continue;
		for (unsigned j = 0; j < n->def.pool_count; j++)
			if (n->def.pools[j].ip.family == workload_gateways[i].family)
				add_route(link, (struct workload_route){n->def.pools[j], workload_gateways[i], true, false});
		if (!n->def.internal && !w->no_exit)
			add_route(link, (struct workload_route){everywhere, workload_gateways[i], true, true});
	}
}

bool workload_has_default(const struct workload *w, uint8_t family)
{
	for (unsigned i = 0; i < w->route_count; i++)
		if (w->routes[i].to.ip.family == family && w->routes[i].to.length == 0)
			return true;
	return false;
}

const struct ip *workload_exit(const struct workload *w, unsigned which)
{
	const struct prefix *own = w->exits && w->ep ? &host_end_addresses(w->ep->network)[which] : NULL;
	const struct prefix *address = !w->ep ? NULL : which ? &w->ep->state.address6 : &w->ep->state.address4;

	if (!own || !prefix_is_set(own) || !prefix_is_set(address) || workload_has_default(w, which ? 6 : 4))
		return NULL;
	return &own->ip;
}

/* By this host's end, unless the container has a way already. */
static void add_exits(const struct workload *w, struct workload_link *link)
{
	for (unsigned i = 0; i < 2; i++) {
		const struct ip *gateway = workload_exit(w, i);
		struct prefix everywhere = {.ip = {.family = i ? 6 : 4}};

		if (gateway)
			add_route(link, (struct workload_route){
						everywhere, *gateway, !prefix_contains(&link->addresses[i], gateway), true});
	}
}

/* A route of the configuration's. In mode l3 a gateway of the network's own subnets, as IPAM plugins name one, is the host. */
static void add_asked_route(const struct network *n, const struct workload_route *asked, struct workload_link *link)
{
	struct workload_route route = *asked;

	if (link->routed && (!ip_is_set(&route.gateway) || network_subnet(n, &route.gateway)))
		route.gateway = workload_gateways[route.to.ip.family == 6];
	route.onlink = link->routed;
	for (unsigned i = 0; i < link->route_count; i++)
		if (prefix_equal(&link->routes[i].to, &route.to) && ip_equal(&link->routes[i].gateway, &route.gateway))
			return;
	add_route(link, route);
}

void workload_fill_link(const struct workload *w, struct workload_link *link)
{
	const struct endpoint *ep = w->ep;
	char id[ID_TEXT_SIZE];

	snprintf(link->ifname, sizeof(link->ifname), "%s", w->ifname);
	snprintf(link->alias, sizeof(link->alias), "trestle:%s:%s", id_format(&ep->state.network, id), ep->id);
	link->mac = ep->state.mac;
	link->mtu = w->mtu;
	link->addresses[0] = ep->state.address4;
	link->addresses[1] = ep->state.address6;
	link->routed = ep->network->def.routed;
	link->routes = calloc(w->route_count + NETWORK_POOLS_MAX + 2, sizeof(*link->routes));
	if (!link->routes)
		abort();
	if (link->routed)
		add_routes(w, link);
	else if (w->exits)
		add_exits(w, link);
	for (unsigned i = 0; i < w->route_count; i++)
		add_asked_route(ep->network, &w->routes[i], link);
}

static void check(struct node *node, struct control_call *call, json_t *body)
{
	struct workload *w = workload_of(node, body);
	struct check *c = calloc(1, sizeof(*c));
	struct err err = {0};

	if (!c)
		abort();
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
	if (netns_open(text_of(body, "netns"), &c->netns_fd, &err) < 0) {
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

/* ---- start and end ---- */

int workload_adopt(struct node *node, struct endpoint *ep)
{
	struct workload *w, *next;

	HASH_ITER(hh, node->workloads, w, next)
	if (strcmp(w->endpoint_id, ep->id) == 0) {
		w->ep = ep;
		ep->workload = w;
		return 0;
	}
	return -1;
}

void workloads_release_addresses(struct node *node)
{
	struct workload *w, *next;

	HASH_ITER(hh, node->workloads, w, next)
	if (w->addresses_only)
		workload_remove(node, w, NULL, NULL);
}

int workloads_start(struct node *node, struct err *err)
{
	return store_each(node->store, STORE_BOOT, STORE_WORKLOAD, load, node, err);
}

static void bind_again(struct node *node, const struct workload *w)
{
	char owner[IPAM_OWNER_MAX + 1];

	workload_label(w, owner);
	for (unsigned i = 0; i < 2; i++)
		if (prefix_is_set(&w->leases[i].address))
			ipam_bind(node->ipam, &w->leases[i].pool, &w->leases[i].address.ip, true, owner, clock_boot_ms());
}

void workloads_begin(struct node *node)
{
	struct workload *w, *next;

	HASH_ITER(hh, node->workloads, w, next)
	{
		if (w->done && (w->ep || w->addresses_only)) {
			bind_again(node, w);
			continue;
		}
		log_info("workloads", "%s was not finished when trestled ended, undoing it", w->key);
		if (w->ep) {
			struct endpoint *ep = w->ep;

			ep->workload = NULL;
			w->ep = NULL;
			endpoint_remove(node, ep, NULL, NULL);
		}
		workload_ended(node, w);
	}
	act_on_all(node);
}

void workloads_stop(struct node *node)
{
	struct workload *w, *next;
	struct tombstone *t, *next_t;

	DL_FOREACH_SAFE(node->tombstones, t, next_t)
	{
		DL_DELETE(node->tombstones, t);
		free(t);
	}
	HASH_ITER(hh, node->workloads, w, next)
	{
		HASH_DEL(node->workloads, w);
		json_decref(w->about);
		free(w->routes);
		free(w);
	}
}

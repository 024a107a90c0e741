/* What CNI attached on this host: names, the saved form, life and end. The calls: workload_add.c and workload_calls.c.
 *
 * An attachment is (configuration, container, interface). It is either an endpoint of ours, an equal of the engine's in the same
 * table, or addresses for an interface that another plugin makes. It is saved before anything is made for it, and saved again as
 * done before the runtime is told: what is found not done at a start belongs to nobody and is undone, with the leases that carry
 * its label.
 *
 * DEL wins over an ADD that still runs. A runtime may also never call DEL: an endpoint whose namespace is gone is collected like
 * an engine's that was forgotten. And DEL may come while no daemon runs: tombstones.c. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/jd.h"
#include "base/alloc.h"
#include "base/json_text.h"
#include "daemon/waiters.h"
#include "daemon/workloads_internal.h"

#define SAVED_SIZE_MAX (256 * 1024)

/* ---- names ---- */

const char *workload_text(json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

void workload_key(char key[WORKLOAD_KEY_SIZE], json_t *attachment)
{
	snprintf(key, WORKLOAD_KEY_SIZE, "%s:%s:%s", workload_text(attachment, "config"),
		workload_text(attachment, "container_id"), workload_text(attachment, "ifname"));
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

	workload_key(key, attachment);
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
	struct workload *w = alloc_new(struct workload);

	workload_key(w->key, attachment);
	make_endpoint_id(w);
	snprintf(w->config, sizeof(w->config), "%s", workload_text(attachment, "config"));
	snprintf(w->container, sizeof(w->container), "%s", workload_text(attachment, "container_id"));
	snprintf(w->ifname, sizeof(w->ifname), "%s", workload_text(attachment, "ifname"));
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
	struct waiter *gone = w->gone;

	json_decref(w->about);
	free(w->routes);
	free(w);
	waiters_tell(gone);
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
	char *text = json_print(o, JSON_COMPACT);

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

	w->routes = alloc_array(struct workload_route, json_array_size(list) + 1);
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
	json_t *leases, *routes, *about, *item;
	const char *exit_network;
	size_t i;

	w->addresses_only = jd_bool(d, "addresses_only");
	w->done = jd_bool(d, "done");
	w->netns_dev = (uint64_t)jd_int(d, "netns_dev", INT64_MIN, INT64_MAX);
	w->netns_ino = (uint64_t)jd_int(d, "netns_ino", INT64_MIN, INT64_MAX);
	w->mtu = (uint32_t)jd_int(d, "mtu", 0, 65535);
	leases = jd_opt_array(d, "leases");
	routes = jd_opt_array(d, "routes");
	about = jd_opt_object(d, "about");
	w->about = about ? json_incref(about) : json_object();
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

/* Out of table and store; nothing else. */
static void drop(struct node *node, struct workload *w)
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
		drop(node, w);
}

void workload_ended(struct node *node, struct workload *w)
{
	char owner[IPAM_OWNER_MAX + 1];

	leases_end_unused(node, NULL, workload_label(w, owner));
	drop(node, w);
}

void workload_remove(struct node *node, struct workload *w, void (*fn)(void *arg), void *arg)
{
	if (w->add) {
		waiters_add(&w->gone, fn, arg);
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
	waiters_add(&w->gone, fn, arg);
	workload_ended(node, w);
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
	tombstones_act(node);
}

void workloads_stop(struct node *node)
{
	struct workload *w, *next;

	tombstones_stop(node);
	HASH_ITER(hh, node->workloads, w, next)
	{
		HASH_DEL(node->workloads, w);
		json_decref(w->about);
		free(w->routes);
		free(w);
	}
}

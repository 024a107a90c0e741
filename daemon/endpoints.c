/* This host's endpoints: an engine's (endpoint_calls.c), of attachments (workload_add.c), and the host's own (hostend.c).
 *
 * Life of an endpoint: its addresses are made sure of, it is saved, its pair is made, whoever wants it is told, it is published.
 * At its end it is taken out of the bridge and unpublished; the links are deleted later in groups. Nothing here waits for another
 * host, except for an address that only another host can give.
 *
 * Whose address: with our IPAM the lease is here already and is bound. Without (Docker's own IPAM used by mistake) two hosts can
 * hand out one address; then a pool of ours that covers it is asked, or what other hosts publish is looked at, and the second is
 * refused.
 *
 * An engine can forget an endpoint (killed, its call lost): one that no container uses for --lease-grace seconds is collected.
 * "Used" is what the kernel says: the container's end is in another namespace. */
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "daemon/endpoints_internal.h"
#include "base/alloc.h"
#include "daemon/waiters.h"

/* ---- lookup and bytes ---- */

struct endpoint *endpoint_find(struct node *node, const char *id)
{
	struct endpoint *ep;
	HASH_FIND_STR(node->endpoints, id, ep);
	return ep;
}

struct endpoint *endpoint_with_ip(struct node *node, const struct id128 *network, const struct ip *ip)
{
	struct endpoint *ep = addresses_first(node->addresses, ip);

	while (ep && (ep->closing || !id_equal(&ep->state.network, network)))
		ep = addresses_next(ep, ip);
	return ep;
}

static void enlist(struct node *node, struct endpoint *ep)
{
	HASH_ADD_STR(node->endpoints, id, ep);
	addresses_add(&node->addresses, ep);
}

static void delist(struct node *node, struct endpoint *ep)
{
	addresses_del(&node->addresses, ep);
	HASH_DEL(node->endpoints, ep);
}

/* The topic names the network, the shard the host: 64 bits tell the endpoints of one host in one network apart. */
void endpoint_record_key(const char *id, uint8_t key[ENDPOINT_KEY_SIZE])
{
	uint8_t hash[16];

	crypto_generichash(hash, sizeof(hash), (const uint8_t *)id, strlen(id), NULL, 0);
	key[0] = RECORD_ENDPOINT;
	memcpy(key + 1, hash, ENDPOINT_KEY_SIZE - 1);
}

static void publish_endpoint(struct node *node, const struct endpoint *ep)
{
	struct endpoint_record r = {
		.mac = ep->state.mac, .ip4 = ep->state.address4.ip, .ip6 = ep->state.address6.ip, .since_s = ep->state.since_s};
	uint8_t key[ENDPOINT_KEY_SIZE], buf[GOSSIP_VALUE_MAX];
	uint64_t now_us;

	snprintf(r.short_id, sizeof(r.short_id), "%.*s", ENDPOINT_SHORT_MAX, ep->host_end ? HOST_SHORT_ID : ep->id);
	endpoint_record_key(ep->id, key);
	now_us = clock_boot_us();
	cluster_publish(
		node, topic_of_network(&ep->state.network), key, sizeof(key), buf, endpoint_record_encode(&r, buf, sizeof(buf)));
	log_debug("endpoints", "endpoint %s published at %" PRIu64 " us since boot", r.short_id, now_us);
}

static void publish_waiting(evutil_socket_t fd, short what, void *arg)
{
	struct node *node = arg;
	struct endpoint *ep, *next;

	(void)fd, (void)what;
	DL_FOREACH_SAFE(node->unpublished, ep, next)
	{
		DL_DELETE(node->unpublished, ep);
		ep->publish_waits = false;
		publish_endpoint(node, ep);
	}
}

/* A packet to each other host takes longer than the answer to the one who waits for the endpoint: a timer comes behind what is
 * ready to be written. */
static void publish_soon(struct node *node, struct endpoint *ep)
{
	struct timeval now = {0};

	if (!node->publish_timer)
		node->publish_timer = alloc_made(evtimer_new(node->base, publish_waiting, node), "timer");
	DL_APPEND(node->unpublished, ep);
	ep->publish_waits = true;
	event_add(node->publish_timer, &now);
}

static void publish_never(struct node *node, struct endpoint *ep)
{
	if (ep->publish_waits)
		DL_DELETE(node->unpublished, ep);
	ep->publish_waits = false;
}

void endpoints_publish(struct node *node)
{
	struct endpoint *ep, *next;

	HASH_ITER(hh, node->endpoints, ep, next)
	if (ep->ready && !ep->closing)
		publish_endpoint(node, ep);
	host_addresses_publish(node);
}

void endpoint_save(struct node *node, const struct endpoint *ep)
{
	uint8_t buf[RECORD_MAX];

	outbox_save(node->outbox, store_change_new(STORE_BOOT, STORE_ENDPOINT, ep->id, strlen(ep->id), buf,
					  endpoint_state_encode(&ep->state, buf, sizeof(buf)), false));
}

static void unsave_endpoint(struct node *node, const struct endpoint *ep)
{
	outbox_save(node->outbox, store_change_new(STORE_BOOT, STORE_ENDPOINT, ep->id, strlen(ep->id), NULL, 0, false));
}

/* A locally administered unicast address: host number (20 bits) and 26 random ones. Not made from the IP address, so that a
 * reused address cannot meet a row of its former owner. */
static struct mac new_mac(struct node *node)
{
	struct endpoint *ep, *next;
	struct mac mac;
	uint64_t bits;
	bool taken;

	do {
		bits = (uint64_t)node->cluster.hostno << 26 | randombytes_uniform(1u << 26);
		mac.bytes[0] = (uint8_t)(bits >> 40 << 2 | 2);
		for (int i = 1; i < 6; i++)
			mac.bytes[i] = (uint8_t)(bits >> (40 - 8 * i));
		taken = false;
		HASH_ITER(hh, node->endpoints, ep, next)
		taken |= mac_equal(&ep->state.mac, &mac);
	} while (taken);
	return mac;
}

/* ---- the network's kernel objects exist while an endpoint does ---- */

static void attach_network(struct node *node, struct network *n)
{
	if (n->local_count++ || n->programmed)
		return;
	n->programmed = true;
	host_addresses_begin(node, n);
	datapath_put_network(node, n);
	segment_program(node, n);
}

static void detach_network(struct node *node, struct network *n)
{
	if (--n->local_count)
		return;
	n->programmed = false;
	host_addresses_end(node, n);
	datapath_del_network(node, &n->id);
	network_unuse(node, n);
}

/* ---- addresses ---- */

struct pool *endpoint_pool(struct node *node, const struct network *n, const struct ip *ip)
{
	static const enum pool_space spaces[] = {POOL_SPACE_LOCAL, POOL_SPACE_GLOBAL};

	for (unsigned i = 0; i < n->def.pool_count; i++) {
		if (!prefix_contains(&n->def.pools[i], ip))
			continue;
		for (size_t s = 0; s < 2; s++) {
			struct pool *p = pools_find(node, spaces[s], &n->def.pools[i]);
			if (p && pool_in_use(p))
				return p;
		}
	}
	return NULL;
}

struct pool *network_pool(struct node *node, const struct network *n, unsigned which, unsigned except)
{
	for (unsigned i = 0; i < n->def.pool_count; i++) {
		bool counts = n->def.pools[i].ip.family == (which ? 6 : 4) && !(except & 1u << i);
		struct pool *p = counts ? endpoint_pool(node, n, &n->def.pools[i].ip) : NULL;

		if (p && p->joined)
			return p;
	}
	return NULL;
}

const struct prefix *network_subnet(const struct network *n, const struct ip *ip)
{
	for (unsigned i = 0; i < n->def.pool_count; i++)
		if (prefix_contains(&n->def.pools[i], ip))
			return &n->def.pools[i];
	return NULL;
}

static const struct ip *address_of(const struct endpoint *ep, unsigned which)
{
	return which == 0 ? &ep->state.address4.ip : &ep->state.address6.ip;
}

static void lease_owner(const struct endpoint *ep, char owner[IPAM_OWNER_MAX + 1])
{
	if (ep->workload)
		workload_label(ep->workload, owner);
	else if (ep->host_end)
		snprintf(owner, IPAM_OWNER_MAX + 1, HOST_END_OWNER);
	else
		snprintf(owner, IPAM_OWNER_MAX + 1, "endpoint %.12s", ep->id);
}

static void bind_lease(struct node *node, struct endpoint *ep, unsigned which)
{
	const struct ip *ip = address_of(ep, which);
	struct pool *p = ip_is_set(ip) ? endpoint_pool(node, ep->network, ip) : NULL;
	char owner[IPAM_OWNER_MAX + 1];

	lease_owner(ep, owner);
	if (p && p->joined)
		ep->bound[which] = ipam_bind(node->ipam, &p->id, ip, true, owner, clock_boot_ms());
}

void endpoint_gain_address(struct node *node, struct endpoint *ep, const struct prefix *address)
{
	unsigned which = address->ip.family == 6;

	addresses_del(&node->addresses, ep);
	*(which ? &ep->state.address6 : &ep->state.address4) = *address;
	addresses_add(&node->addresses, ep);
	*(which ? &ep->state.own_lease6 : &ep->state.own_lease4) = true;
	bind_lease(node, ep, which);
	endpoint_save(node, ep);
	segment_program_ip(node, ep->network, &address->ip);
	datapath_put_endpoint(node, ep);
	publish_endpoint(node, ep);
}

static void unbind_lease(struct node *node, struct endpoint *ep, unsigned which)
{
	bool own = which == 0 ? ep->state.own_lease4 : ep->state.own_lease6;
	const struct ip *ip = address_of(ep, which);
	struct pool *p = ep->bound[which] ? endpoint_pool(node, ep->network, ip) : NULL;

	if (!p || !p->joined)
		return;
	ep->bound[which] = false;
	if (own)
		ipam_release(node->ipam, &p->id, ip, clock_boot_ms());
	else
		ipam_bind(node->ipam, &p->id, ip, false, "", clock_boot_ms());
}

/* ---- the end of an endpoint ---- */

static void removed(void *arg, const struct err *err)
{
	struct endpoint *ep = arg;
	struct waiter *gone = ep->gone;

	(void)err; /* the driver keeps what is undesired on its list; resync takes it away */
	free(ep);
	waiters_tell(gone);
}

static void finish_removal(struct node *node, struct endpoint *ep)
{
	struct id128 network = ep->state.network;

	delist(node, ep);
	datapath_del_endpoint(node, &network, ep->id);
	if (ep->network) {
		segment_program_ip(node, ep->network, &ep->state.address4.ip);
		segment_program_ip(node, ep->network, &ep->state.address6.ip);
		detach_network(node, ep->network);
	}
	datapath_commit(node, &network, NULL, removed, ep);
}

/* Withdrawn behind the order to the kernel, whose answer the caller waits for: the packets leave while the worker works. */
void endpoint_remove(struct node *node, struct endpoint *ep, void (*fn)(void *arg), void *arg)
{
	uint64_t topic = topic_of_network(&ep->state.network);
	uint8_t key[ENDPOINT_KEY_SIZE];

	waiters_add(&ep->gone, fn, arg);
	if (ep->closing)
		return;
	ep->closing = true;
	workload_endpoint_gone(node, ep);
	host_end_lost(ep);
	publish_never(node, ep);
	endpoint_record_key(ep->id, key);
	if (ep->network) {
		unbind_lease(node, ep, 0);
		unbind_lease(node, ep, 1);
	}
	unsave_endpoint(node, ep);
	custody_poke(node);
	if (!ep->creating) /* else its creation ends it */
		finish_removal(node, ep);
	cluster_publish(node, topic, key, sizeof(key), NULL, 0);
}

struct remove_all {
	unsigned open;
	void (*fn)(void *arg);
	void *arg;
};

static void one_removed(void *arg)
{
	struct remove_all *r = arg;

	if (--r->open)
		return;
	r->fn(r->arg);
	free(r);
}

void endpoints_remove_all_of(struct node *node, const char *docker_network, void (*fn)(void *arg), void *arg)
{
	struct remove_all *r = alloc_new(struct remove_all);
	struct endpoint *ep, *next;

	*r = (struct remove_all){.open = 1, .fn = fn, .arg = arg};
	if (!docker_network)
		workloads_release_addresses(node);
	HASH_ITER(hh, node->endpoints, ep, next)
	if (!docker_network || strcmp(ep->state.docker_network, docker_network) == 0) {
		r->open++;
		endpoint_remove(node, ep, one_removed, r);
	}
	one_removed(r);
}

/* ---- making one ---- */

struct create {
	struct node *node;
	struct endpoint *ep;
	unsigned step;		   /* 0: IPv4's lease, 1: IPv6's, 2: the kernel */
	struct workload_link link; /* of a workload: the container's side, for the worker */
	int netns_fd;
};

static void create_step(struct create *c);

static void answer_waiting(struct endpoint *ep, const struct err *err)
{
	struct asker *waiting = ep->waiting;

	ep->waiting = NULL;
	askers_tell(waiting, err);
}

static void create_free(struct create *c)
{
	free(c->link.routes);
	free(c);
}

static void create_failed(struct create *c, const struct err *err)
{
	struct endpoint *ep = c->ep;

	log_debug("endpoints", "endpoint %.12s: %s", ep->id, err->text);
	answer_waiting(ep, err);
	ep->creating = false;
	if (ep->closing)
		finish_removal(c->node, ep);
	else
		endpoint_remove(c->node, ep, NULL, NULL);
	create_free(c);
}

static void kernel_done(void *arg, const struct err *err)
{
	struct create *c = arg;
	struct endpoint *ep = c->ep;
	struct err gone = {0};

	if (!err && ep->closing) {
		err_set(&gone, ERR_CONFLICT, "endpoint %.12s was deleted while it was made", ep->id);
		err = &gone;
	}
	if (err) {
		create_failed(c, err);
		return;
	}
	ep->creating = false;
	ep->ready = true;
	ep->netns_fd = -1;
	ep->link = ep->workload ? DRIVER_LINK_AWAY : DRIVER_LINK_IN_HOST;
	if (ep->workload) /* from here on the pair lives and dies with the container; the driver knows */
		ep->make = false;
	publish_soon(c->node, ep);
	answer_waiting(ep, NULL);
	create_free(c);
}

static int make_whole(void *arg, uint32_t peer, struct err *err)
{
	const struct create *c = arg;

	return workload_link_set_up(&c->link, c->netns_fd, peer, err);
}

static void make_links(void *arg)
{
	struct create *c = arg;

	segment_program_ip(c->node, c->ep->network, &c->ep->state.address4.ip);
	segment_program_ip(c->node, c->ep->network, &c->ep->state.address6.ip);
	datapath_put_endpoint(c->node, c->ep);
	if (c->ep->workload) {
		workload_fill_link(c->ep->workload, &c->link);
		c->netns_fd = c->ep->netns_fd;
		datapath_commit_then(c->node, &c->ep->state.network, c->ep->id, make_whole, kernel_done, c);
	} else {
		datapath_commit(c->node, &c->ep->state.network, c->ep->id, kernel_done, c);
	}
}

static int refuse_duplicate(struct node *node, struct endpoint *ep, const struct ip *ip, struct err *err)
{
	struct remote *r = segment_with_ip(node, ep->network->topic, ip);
	char name[GOSSIP_NAME_MAX + 1], text[IP_TEXT_SIZE];

	if (!r)
		return 0;
	return err_set(err, ERR_CONFLICT,
		"address %s of network \"%s\" is used by endpoint %s on host %s. Docker's own IPAM gives addresses per host; "
		"create the network with "
		"--ipam-driver trestle on every host",
		ip_format(ip, text), ep->network->def.name, r->record.short_id,
		host_label(node, r->key.origin, name, sizeof(name)));
}

static void explain_refusal(
	struct create *c, const struct ipam_result *result, const struct ip *ip, const struct pool *p, struct err *err)
{
	char name[GOSSIP_NAME_MAX + 1], text[IP_TEXT_SIZE];

	if (result->code != IPAM_IN_USE) {
		custody_explain(c->node, result, ip, &p->state.def.prefix, err);
		return;
	}
	host_label(c->node, result->holder_hostno ? result->holder_hostno : c->node->cluster.hostno, name, sizeof(name));
	err_set(err, ERR_CONFLICT,
		"address %s of network \"%s\" is leased by host %s%s%s and was not given to this engine by trestle. Docker's own "
		"IPAM gives addresses "
		"per host; create the network with --ipam-driver trestle on every host",
		ip_format(ip, text), c->ep->network->def.name, name, result->owner[0] ? " for " : "", result->owner);
}

static void lease_given(void *arg, const struct ipam_result *result)
{
	struct create *c = arg;
	const struct ip *ip = address_of(c->ep, c->step);
	struct pool *p = endpoint_pool(c->node, c->ep->network, ip);
	struct err err = {0};

	if (result->code != IPAM_GRANTED) {
		if (p)
			explain_refusal(c, result, ip, p, &err);
		else
			err_set(&err, ERR_CONFLICT, "the pool went away meanwhile");
		create_failed(c, &err);
		return;
	}
	*(c->step == 0 ? &c->ep->state.own_lease4 : &c->ep->state.own_lease6) = true;
	if (c->ep->closing && p) /* deleted meanwhile: endpoint_remove has not seen this lease */
		ipam_release(c->node->ipam, &p->id, ip, clock_boot_ms());
	else
		bind_lease(c->node, c->ep, c->step);
	c->step++;
	create_step(c);
}

/* One address: bound if leased here, asked for if a pool of ours covers it, else compared with what others publish. */
static bool secure_address(struct create *c)
{
	struct node *node = c->node;
	const struct ip *ip = address_of(c->ep, c->step);
	struct pool *p = ip_is_set(ip) ? endpoint_pool(node, c->ep->network, ip) : NULL;
	char owner[IPAM_OWNER_MAX + 1];
	struct ipam_want want = {.owner = owner};
	struct ipam_lease lease;
	struct err err = {0};

	if (!ip_is_set(ip))
		return true;
	if (!p) {
		if (refuse_duplicate(node, c->ep, ip, &err) == 0)
			return true;
		create_failed(c, &err);
		return false;
	}
	pool_join_core(node, p);
	if (ipam_lookup(node->ipam, &p->id, ip, &lease) && lease.use == IPAM_USE_ENDPOINT && !lease.bound) {
		bind_lease(node, c->ep, c->step);
		return true;
	}
	lease_owner(c->ep, owner);
	want.pool = p->id;
	want.address = *ip;
	custody_ask(node, &want, lease_given, c);
	return false;
}

static void create_step(struct create *c)
{
	struct err err = {0};

	if (c->ep->closing) {
		err_set(&err, ERR_CONFLICT, "endpoint %.12s was deleted while it was made", c->ep->id);
		create_failed(c, &err);
		return;
	}
	for (; c->step < 2; c->step++)
		if (!secure_address(c))
			return;
	endpoint_save(c->node, c->ep);
	custody_poke(c->node);
	outbox_call(c->node->outbox, make_links, c);
}

static struct endpoint *endpoint_new(struct node *node, const struct endpoint_want *want)
{
	struct endpoint *ep = alloc_new(struct endpoint);

	snprintf(ep->id, sizeof(ep->id), "%s", want->id);
	ep->network = want->network;
	ep->workload = want->workload;
	if (ep->workload)
		ep->workload->ep = ep;
	else if (want->host_end)
		host_end_has(want->host_end, ep);
	ep->netns_fd = want->netns_fd;
	ep->state = (struct endpoint_state){.network = want->network->id,
		.address4 = want->address4,
		.address6 = want->address6,
		.joined = want->workload != NULL,
		.own_lease4 = want->own_lease4,
		.own_lease6 = want->own_lease6,
		.since_s = (uint64_t)clock_wall_s()};
	ep->state.mac_given = !mac_is_zero(&want->mac);
	ep->state.mac = ep->state.mac_given ? want->mac : new_mac(node);
	if (want->ifname)
		snprintf(ep->state.peer_name, sizeof(ep->state.peer_name), "%s", want->ifname);
	else
		snprintf(ep->state.peer_name, sizeof(ep->state.peer_name), "tr%08x", randombytes_random());
	snprintf(ep->state.sandbox, sizeof(ep->state.sandbox), "%s", want->sandbox ? want->sandbox : "");
	snprintf(ep->state.docker_network, sizeof(ep->state.docker_network), "%s",
		want->docker_network ? want->docker_network : "");
	ep->make = true;
	ep->creating = true;
	enlist(node, ep);
	attach_network(node, want->network);
	return ep;
}

static struct create *create_new(struct node *node, struct endpoint *ep)
{
	struct create *c = alloc_new(struct create);

	*c = (struct create){.node = node, .ep = ep};
	return c;
}

void endpoint_make(struct node *node, const struct endpoint_want *want, void (*fn)(void *arg, const struct err *err), void *arg)
{
	struct endpoint *ep = endpoint_new(node, want);

	askers_add(&ep->waiting, fn, arg);
	create_step(create_new(node, ep));
}

void endpoint_prove(struct node *node, struct endpoint *ep)
{
	struct create *c = create_new(node, ep);

	c->step = 2;
	ep->unproven = false;
	ep->ready = false;
	ep->creating = true;
	make_links(c);
}

/* ---- collecting what no container uses ---- */

static bool idle(const struct endpoint *ep)
{
	if (ep->workload) /* may be the host's own namespace, if the runtime insists */
		return ep->link == DRIVER_LINK_ABSENT;
	return !ep->state.joined || ep->link != DRIVER_LINK_AWAY;
}

void endpoints_links_seen(struct node *node)
{
	uint64_t now = clock_boot_ms(), grace = (uint64_t)node->options.lease_grace_s * 1000;
	struct endpoint *ep, *next;

	HASH_ITER(hh, node->endpoints, ep, next)
	{
		if (!ep->ready || ep->closing || ep->host_end)
			continue;
		if (!idle(ep)) {
			ep->idle_since_ms = 0;
		} else if (!ep->idle_since_ms) {
			ep->idle_since_ms = now;
		} else if (now - ep->idle_since_ms >= grace) {
			log_info("endpoints",
				"endpoint %.12s of network \"%s\" has not been used by a container for %u s: the engine has lost "
				"it, collecting",
				ep->id, ep->network ? ep->network->def.name : "?", node->options.lease_grace_s);
			endpoint_remove(node, ep, NULL, NULL);
		}
	}
}

/* ---- start and end ---- */

static int load_endpoint(void *ctx, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct node *node = ctx;
	struct endpoint *ep = calloc(1, sizeof(*ep));

	if (!ep || key_len >= sizeof(ep->id) || endpoint_state_decode(val, len, &ep->state, err) < 0) {
		free(ep);
		return err_prefix(err, "endpoint %.*s", key_len < 12 ? (int)key_len : 12, (const char *)key);
	}
	memcpy(ep->id, key, key_len);
	ep->netns_fd = -1;
	ep->network = network_by_id(node, &ep->state.network);
	if (!ep->network) {
		log_warn("endpoints", "endpoint %.12s belongs to a network that is gone, dropping it", ep->id);
		unsave_endpoint(node, ep);
		free(ep);
		return 0;
	}
	if (host_end_id(ep->id)) {
		host_end_adopt(node, ep);
	} else if (!ep->state.docker_network[0] && workload_adopt(node, ep) < 0) {
		log_warn("endpoints", "endpoint %.12s belongs to an attachment that is gone, dropping it", ep->id);
		unsave_endpoint(node, ep);
		free(ep);
		return 0;
	}
	ep->ready = true;
	ep->make = !ep->state.joined && !ep->state.left;
	ep->unproven = true;
	enlist(node, ep);
	attach_network(node, ep->network);
	datapath_put_endpoint(node, ep);
	bind_lease(node, ep, 0);
	bind_lease(node, ep, 1);
	return 0;
}

int endpoints_start(struct node *node, struct err *err)
{
	return store_each(node->store, STORE_BOOT, STORE_ENDPOINT, load_endpoint, node, err);
}

void endpoints_stop(struct node *node)
{
	struct endpoint *ep, *next;

	if (node->publish_timer)
		event_free(node->publish_timer);
	HASH_ITER(hh, node->endpoints, ep, next)
	{
		delist(node, ep);
		free(ep);
	}
}

/* The network half of the plugin, as far as it is about endpoints.
 *
 * CreateEndpoint makes one and is answered with its MAC. Join is only a note and two names; the engine moves the container's end
 * itself. Leave is a note. DeleteEndpoint is answered when the endpoint is out of the bridge. An engine may repeat each of them:
 * after a restart of ours what it says again is held against the kernel first. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/endpoints_internal.h"
#include "base/alloc.h"
#include "daemon/waiters.h"

/* ---- CreateEndpoint ---- */

static bool same_request(const struct endpoint *ep, const struct plugin_create_endpoint *req)
{
	bool mac_given = !mac_is_zero(&req->mac);

	return strcmp(ep->state.docker_network, req->network_id) == 0 && prefix_equal(&ep->state.address4, &req->address4) &&
	       prefix_equal(&ep->state.address6, &req->address6) && ep->state.mac_given == mac_given &&
	       (!mac_given || mac_equal(&ep->state.mac, &req->mac));
}

static int check_address(const struct network *n, const struct prefix *address, struct err *err)
{
	char text[PREFIX_TEXT_SIZE];

	if (!prefix_is_set(address) || network_subnet(n, &address->ip))
		return 0;
	return err_set(
		err, ERR_INVALID, "address %s lies in no subnet of network \"%s\"", prefix_format(address, text), n->def.name);
}

static int check_create(
	struct node *node, const struct plugin_create_endpoint *req, struct network **ret_network, struct err *err)
{
	struct docker_network *d = docker_network_find(node, req->network_id);
	struct network *n = d ? network_by_id(node, &d->state.network) : NULL;

	if (!n)
		return err_set(err, ERR_NOT_FOUND,
			"network %s is not known to trestled on this host; remove it with `docker network rm` and create it "
			"again",
			req->network_id);
	if (!prefix_is_set(&req->address4) && !prefix_is_set(&req->address6))
		return err_set(err, ERR_INVALID, "endpoint %.12s has no address; create the network with --ipam-driver trestle",
			req->endpoint_id);
	if ((prefix_is_set(&req->address4) && req->address4.ip.family != 4) ||
		(prefix_is_set(&req->address6) && req->address6.ip.family != 6))
		return err_set(err, ERR_INVALID, "endpoint %.12s has an address of the wrong family", req->endpoint_id);
	if (!mac_is_zero(&req->mac) && (req->mac.bytes[0] & 1))
		return err_set(
			err, ERR_INVALID, "endpoint %.12s: a multicast MAC address cannot be an endpoint's", req->endpoint_id);
	if (check_address(n, &req->address4, err) < 0 || check_address(n, &req->address6, err) < 0)
		return -1;
	*ret_network = n;
	return 0;
}

/* An engine that gives an address again has lost its former endpoint. */
static void retire_former(struct node *node, const struct network *n, const struct ip *ip)
{
	struct endpoint *old = endpoint_with_ip(node, &n->id, ip);
	char text[IP_TEXT_SIZE];

	if (!old)
		return;
	log_warn("endpoints", "address %s is given again by the engine: its former endpoint %.12s is dead, removing it",
		ip_format(ip, text), old->id);
	endpoint_remove(node, old, NULL, NULL);
}

struct create_call {
	struct node *node;
	struct plugin_call *call;
	const char *endpoint_id; /* the call's */
};

static void created(void *arg, const struct err *err)
{
	struct create_call *c = arg;
	const struct endpoint *ep = endpoint_find(c->node, c->endpoint_id); /* there until it is answered for */
	struct plugin_endpoint_created made = {.mac = ep->state.mac};

	if (err)
		plugin_fail(c->call, err);
	else
		plugin_done_endpoint(c->call, ep->state.mac_given ? NULL : &made);
	free(c);
}

static struct create_call *create_call_new(struct node *node, struct plugin_call *call, const char *endpoint_id)
{
	struct create_call *c = alloc_new(struct create_call);

	*c = (struct create_call){node, call, endpoint_id};
	return c;
}

static void create_again(
	struct node *node, struct endpoint *ep, struct plugin_call *call, const struct plugin_create_endpoint *req)
{
	struct plugin_endpoint_created made = {.mac = ep->state.mac};
	struct err err = {0};

	if (!same_request(ep, req)) {
		err_set(&err, ERR_EXISTS, "endpoint %.12s exists with other addresses; delete it first", ep->id);
		plugin_fail(call, &err);
	} else if (ep->closing) {
		err_set(&err, ERR_CONFLICT, "endpoint %.12s is being deleted; try again", ep->id);
		plugin_fail(call, &err);
	} else if (ep->creating) {
		askers_add(&ep->waiting, created, create_call_new(node, call, ep->id));
	} else if (ep->unproven) { /* the kernel may have refused while we were away */
		askers_add(&ep->waiting, created, create_call_new(node, call, ep->id));
		endpoint_prove(node, ep);
	} else {
		plugin_done_endpoint(call, ep->state.mac_given ? NULL : &made);
	}
}

void endpoints_create(void *ctx, struct plugin_call *call, const struct plugin_create_endpoint *req)
{
	struct node *node = ctx;
	struct endpoint *ep = endpoint_find(node, req->endpoint_id);
	struct network *n = NULL;
	struct endpoint_want want = {.id = req->endpoint_id,
		.docker_network = req->network_id,
		.mac = req->mac,
		.address4 = req->address4,
		.address6 = req->address6,
		.netns_fd = -1};
	struct err err = {0};

	if (ep) {
		create_again(node, ep, call, req);
		return;
	}
	if (check_create(node, req, &n, &err) < 0) {
		plugin_fail(call, &err);
		return;
	}
	retire_former(node, n, &req->address4.ip);
	retire_former(node, n, &req->address6.ip);
	want.network = n;
	endpoint_make(node, &want, created, create_call_new(node, call, req->endpoint_id));
}

/* ---- Join, Leave, Program, DeleteEndpoint ---- */

struct join_call {
	struct plugin_call *call;
	struct plugin_joined joined;
};

static void answer_join(void *arg)
{
	struct join_call *c = arg;
	plugin_done_join(c->call, &c->joined);
	free(c);
}

static int check_join(const struct endpoint *ep, const char *endpoint_id, const char *sandbox, struct err *err)
{
	if (!ep || ep->closing || !ep->ready)
		return err_set(err, ERR_NOT_FOUND, "endpoint %s is not known to trestled on this host", endpoint_id);
	if (strlen(sandbox) >= sizeof(ep->state.sandbox))
		return err_set(err, ERR_TOO_BIG, "endpoint %.12s: the SandboxKey has %zu bytes, expected at most %zu",
			endpoint_id, strlen(sandbox), sizeof(ep->state.sandbox) - 1);
	if (ep->state.joined && strcmp(ep->state.sandbox, sandbox) != 0)
		return err_set(err, ERR_CONFLICT, "endpoint %.12s has joined sandbox %s already, asked to join %s", endpoint_id,
			ep->state.sandbox, sandbox);
	return 0;
}

struct prove_call {
	struct node *node;
	struct plugin_call *call;
	const char *network_id, *endpoint_id, *sandbox; /* the call's */
};

static void proven(void *arg, const struct err *err)
{
	struct prove_call *c = arg;
	struct endpoint *ep = endpoint_find(c->node, c->endpoint_id);

	if (ep && !err)
		ep->unproven = false;
	if (err)
		plugin_fail(c->call, err);
	else
		endpoints_join(c->node, c->call, c->network_id, c->endpoint_id, c->sandbox);
	free(c);
}

/* Made before a restart of ours and not joined since: whether its link is there is the kernel's to say. */
static void join_after_proof(struct node *node, struct endpoint *ep, struct plugin_call *call, const char *network_id,
	const char *endpoint_id, const char *sandbox)
{
	struct prove_call *c = alloc_new(struct prove_call);

	*c = (struct prove_call){
		.node = node, .call = call, .network_id = network_id, .endpoint_id = endpoint_id, .sandbox = sandbox};
	datapath_put_endpoint(node, ep);
	datapath_commit(node, &ep->state.network, ep->id, proven, c);
}

void endpoints_join(void *ctx, struct plugin_call *call, const char *network_id, const char *endpoint_id, const char *sandbox)
{
	struct node *node = ctx;
	struct endpoint *ep = endpoint_find(node, endpoint_id);
	struct docker_network *d = docker_network_find(node, network_id);
	struct join_call *c;
	struct err err = {0};

	if (check_join(ep, endpoint_id, sandbox, &err) < 0) {
		plugin_fail(call, &err);
		return;
	}
	if (ep->unproven && !ep->state.joined) {
		join_after_proof(node, ep, call, network_id, endpoint_id, sandbox);
		return;
	}
	c = alloc_new(struct join_call);
	c->call = call;
	snprintf(c->joined.src_name, sizeof(c->joined.src_name), "%s", ep->state.peer_name);
	snprintf(c->joined.dst_prefix, sizeof(c->joined.dst_prefix), "%s", d ? d->state.if_prefix : "eth");
	if (!ep->state.joined) {
		ep->state.joined = true;
		ep->state.left = false;
		snprintf(ep->state.sandbox, sizeof(ep->state.sandbox), "%s", sandbox);
		ep->idle_since_ms = 0;
		ep->make = false; /* from here on the pair lives and dies with the container */
		datapath_put_endpoint(node, ep);
		endpoint_save(node, ep);
	}
	outbox_call(node->outbox, answer_join, c);
}

static void answer_done(void *arg)
{
	plugin_done(arg);
}

void endpoints_leave(void *ctx, struct plugin_call *call, const char *network_id, const char *endpoint_id)
{
	struct node *node = ctx;
	struct endpoint *ep = endpoint_find(node, endpoint_id);

	(void)network_id;
	if (ep && !ep->closing && ep->state.joined) {
		ep->state.joined = false;
		ep->state.left = true;
		ep->state.sandbox[0] = 0;
		endpoint_save(node, ep);
	}
	outbox_call(node->outbox, answer_done, call);
}

void endpoints_program(void *ctx, struct plugin_call *call, const char *network_id, const char *endpoint_id)
{
	struct endpoint *ep = endpoint_find(ctx, endpoint_id);
	struct err err = {0};

	(void)network_id;
	if (ep && !ep->closing) {
		plugin_done(call); /* docker_gwbridge publishes the ports */
		return;
	}
	err_set(&err, ERR_NOT_FOUND, "endpoint %s is not known to trestled on this host", endpoint_id);
	plugin_fail(call, &err);
}

struct delete_call {
	struct node *node;
	struct plugin_call *call;
};

static void deleted(void *arg)
{
	struct delete_call *c = arg;

	outbox_call(c->node->outbox, answer_done, c->call);
	free(c);
}

void endpoints_delete(void *ctx, struct plugin_call *call, const char *network_id, const char *endpoint_id)
{
	struct node *node = ctx;
	struct endpoint *ep = endpoint_find(node, endpoint_id);
	struct delete_call *c;

	(void)network_id;
	if (!ep) {
		plugin_done(call);
		return;
	}
	c = alloc_new(struct delete_call);
	c->node = node;
	c->call = call;
	endpoint_remove(node, ep, deleted, c);
}

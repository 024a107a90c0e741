/* The IPAM half of the plugin: RequestPool and ReleasePool, RequestAddress and ReleaseAddress.
 *
 * An engine's RequestPool is a counted reference, kept in the state file; an answer leaves behind the save of what it promises.
 * PoolID is self-describing: "SPACE,PREFIX,first 8 digits of the id[,SUBPOOL]". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#include "daemon/pools_internal.h"

/* ---- pool ids ---- */

struct pool_name {
	struct pool *pool;
	struct prefix within;
};

static void format_pool_id(const struct pool *p, const struct prefix *within, char *buf, size_t size)
{
	char prefix[PREFIX_TEXT_SIZE], sub[PREFIX_TEXT_SIZE], id[ID_TEXT_SIZE];

	snprintf(buf, size, "%s,%s,%.8s%s%s", pool_space_name(p->state.def.space), prefix_format(&p->state.def.prefix, prefix),
		id_format(&p->id, id), prefix_is_set(within) ? "," : "", prefix_is_set(within) ? prefix_format(within, sub) : "");
}

static struct pool *by_short_id(struct node *node, enum pool_space space, const struct prefix *prefix, const char *digits)
{
	struct pool *p, *next;
	char id[ID_TEXT_SIZE];

	HASH_ITER(hh, node->pools, p, next)
	if (p->joined && p->state.def.space == space && prefix_equal(&p->state.def.prefix, prefix) &&
		strncmp(id_format(&p->id, id), digits, 8) == 0)
		return p;
	return NULL;
}

/* -1: not one of ours, or no such pool. */
static int parse_pool_id(struct node *node, const char *text, struct pool_name *ret)
{
	char copy[160], *parts[4] = {0}, *save, *part;
	unsigned count = 0, space;
	struct prefix prefix;

	snprintf(copy, sizeof(copy), "%s", text);
	for (part = strtok_r(copy, ",", &save); part && count < 4; part = strtok_r(NULL, ",", &save))
		parts[count++] = part;
	for (space = 0; count >= 3 && space < POOL_SPACE_HOSTNO && strcmp(parts[0], pool_space_name((enum pool_space)space)) != 0;
		space++)
		;
	if (count < 3 || space == POOL_SPACE_HOSTNO || prefix_parse(parts[1], &prefix, NULL) < 0)
		return -1;
	memset(ret, 0, sizeof(*ret));
	if (count == 4 && prefix_parse(parts[3], &ret->within, NULL) < 0)
		return -1;
	ret->pool = by_short_id(node, (enum pool_space)space, &prefix, parts[2]);
	if (!ret->pool)
		ret->pool = pools_find(node, (enum pool_space)space, &prefix);
	return ret->pool && ret->pool->joined ? 0 : -1;
}

/* ---- RequestPool, ReleasePool ---- */

struct pool_call {
	struct node *node;
	struct plugin_call *call;
	struct prefix within;
	struct plugin_pool_given given;
};

static void answer_pool(void *arg)
{
	struct pool_call *c = arg;
	plugin_done_pool(c->call, &c->given);
	free(c);
}

static struct pool_ref *find_ref(struct pool *p, const struct prefix *within)
{
	for (unsigned i = 0; i < p->state.ref_count; i++)
		if (prefix_equal(&p->state.refs[i].within, within))
			return &p->state.refs[i];
	return NULL;
}

static int add_ref(struct pool *p, const struct prefix *within, struct err *err)
{
	struct pool_ref *ref = find_ref(p, within);

	if (!ref) {
		if (p->state.ref_count == POOL_REFS_MAX)
			return err_set(err, ERR_EXHAUSTED, "a pool can be asked for with %d different --ip-range", POOL_REFS_MAX);
		ref = &p->state.refs[p->state.ref_count++];
		*ref = (struct pool_ref){.within = *within};
	}
	ref->count++;
	return 0;
}

static void pool_given(void *arg, struct pool *p, const struct err *failed)
{
	struct pool_call *c = arg;
	struct err err = {0};

	if (failed) {
		plugin_fail(c->call, failed);
		free(c);
		return;
	}
	if (prefix_is_set(&c->within) && !prefix_contains_prefix(&p->state.def.prefix, &c->within))
		err_set(&err, ERR_INVALID, "--ip-range lies outside the pool");
	if (err.code || add_ref(p, &c->within, &err) < 0) {
		plugin_fail(c->call, &err);
		free(c);
		return;
	}
	format_pool_id(p, &c->within, c->given.pool_id, sizeof(c->given.pool_id));
	c->given.pool = p->state.def.prefix;
	pool_keep(c->node, p);
	outbox_call(c->node->outbox, answer_pool, c);
}

void pools_request(void *ctx, struct plugin_call *call, const struct plugin_request_pool *req)
{
	struct pool_spec spec = {.space = strcmp(req->space, PLUGIN_SPACE_GLOBAL) == 0 ? POOL_SPACE_GLOBAL : POOL_SPACE_LOCAL,
		.family = req->v6 ? 6 : 4,
		.name = req->name};
	struct pool_call *c = alloc_new(struct pool_call);
	bool any = !prefix_is_set(&req->pool) || (ip_number(&req->pool.ip) == 0 && req->pool.length > 0);

	c->node = ctx;
	c->call = call;
	if (prefix_is_set(&req->within))
		c->within = prefix_masked(&req->within);
	if (!any)
		spec.prefix = prefix_masked(&req->pool);
	else if (prefix_is_set(&req->pool))
		spec.length = req->pool.length;
	if (prefix_is_set(&req->pool))
		spec.family = req->pool.ip.family;
	pool_obtain(ctx, &spec, pool_given, c);
}

static void answer_done(void *arg)
{
	plugin_done(arg);
}

void pools_release(void *ctx, struct plugin_call *call, const char *pool_id)
{
	struct node *node = ctx;
	struct pool_name name;
	struct pool_ref *ref;

	if (parse_pool_id(node, pool_id, &name) < 0 || !(ref = find_ref(name.pool, &name.within))) {
		plugin_done(call); /* unknown or released already: that is what was wanted */
		return;
	}
	if (--ref->count == 0)
		*ref = name.pool->state.refs[--name.pool->state.ref_count];
	if (!pool_referenced(name.pool))
		pool_release_leases(node, name.pool);
	pool_unuse(node, name.pool);
	outbox_call(node->outbox, answer_done, call);
}

/* ---- RequestAddress, ReleaseAddress ---- */

struct address_call {
	struct node *node;
	struct plugin_call *call;
	struct id128 pool;
	struct prefix prefix;
	struct ip asked;
	bool gateway;
	bool maybe_aux; /* an address and nothing else: of a container (--ip) or a network (--aux-address), who knows */
	uint64_t ticket;
	struct prefix given; /* unset until granted */
	bool *gone_at_once;  /* while asked: the client may have left already */
};

static void address_given(void *arg, const struct ipam_result *result);

/* Another host has the address for its network. Should a container want it here, CreateEndpoint refuses: it binds no shared
 * lease. */
static void ask_to_share(struct address_call *c)
{
	struct ipam_want want = {.pool = c->pool, .address = c->asked, .use = IPAM_USE_SHARED, .owner = ""};

	c->maybe_aux = false;
	c->ticket = c->node->next_ticket + 1;
	custody_ask(c->node, &want, address_given, c);
}

static void answer_address(void *arg)
{
	struct address_call *c = arg;

	plugin_done_address(c->call, &c->given);
	free(c);
}

static void address_given(void *arg, const struct ipam_result *result)
{
	struct address_call *c = arg;
	struct pool *p = pool_by_id(c->node, &c->pool);
	struct prefix address = {.ip = result->address, .length = c->prefix.length};
	struct err err = {0};

	if (result->code == IPAM_IN_USE && result->shared && c->maybe_aux) {
		ask_to_share(c);
		return;
	}
	if (result->code != IPAM_GRANTED) {
		custody_explain(c->node, result, &c->asked, &c->prefix, &err);
		plugin_fail(c->call, &err);
	} else {
		if (c->gateway && p)
			pool_remember(c->node, p, &result->address, true);
		c->given = address;
		outbox_call(c->node->outbox, answer_address, c); /* behind what was remembered */
		return;
	}
	free(c);
}

/* Nobody waits for the answer any more: an address that comes is given back. The call is owed an answer all the same. */
static void asker_gone(void *arg)
{
	struct address_call *c = arg;
	struct err err = {0};

	if (prefix_is_set(&c->given))
		return; /* on its way */
	if (c->gone_at_once)
		*c->gone_at_once = true;
	custody_abandon(c->node, c->ticket);
	err_set(&err, ERR_UNREACHABLE, "the engine closed the connection before the answer");
	plugin_fail(c->call, &err);
	free(c);
}

void pools_request_address(void *ctx, struct plugin_call *call, const struct plugin_request_address *req)
{
	struct node *node = ctx;
	struct ipam_want want = {.address = req->address, .use = req->gateway ? IPAM_USE_SHARED : IPAM_USE_ENDPOINT};
	char owner[IPAM_OWNER_MAX + 1] = "", mac[MAC_TEXT_SIZE];
	struct pool_name name;
	struct address_call *c;
	bool gone = false;
	struct err err = {0};

	if (parse_pool_id(node, req->pool_id, &name) < 0) {
		err_set(&err, ERR_NOT_FOUND, "pool \"%s\" is not known here; `trestle ipam show` lists the known ones",
			req->pool_id);
		plugin_fail(call, &err);
		return;
	}
	if (ip_is_set(&req->address) && !prefix_contains(&name.pool->state.def.prefix, &req->address)) {
		struct ipam_result outside = {.code = IPAM_OUTSIDE};
		custody_explain(node, &outside, &req->address, &name.pool->state.def.prefix, &err);
		plugin_fail(call, &err);
		return;
	}
	c = alloc_new(struct address_call);
	*c = (struct address_call){.node = node,
		.call = call,
		.pool = name.pool->id,
		.prefix = name.pool->state.def.prefix,
		.asked = req->address,
		.gateway = req->gateway,
		.maybe_aux = ip_is_set(&req->address) && !req->gateway && !req->endpoint};
	if (req->gateway)
		snprintf(owner, sizeof(owner), OWNER_GATEWAY);
	else if (!mac_is_zero(&req->mac))
		snprintf(owner, sizeof(owner), "%s", mac_format(&req->mac, mac));
	else if (req->endpoint_name)
		snprintf(owner, sizeof(owner), "%.120s", req->endpoint_name);
	want.pool = name.pool->id;
	want.within = name.within;
	want.owner = owner;
	want.shared_first = req->gateway && !ip_is_set(&req->address);
	c->ticket = node->next_ticket + 1;
	c->gone_at_once = &gone;
	plugin_call_on_gone(call, asker_gone, c);
	if (gone)
		return;
	c->gone_at_once = NULL;
	custody_ask(node, &want, address_given, c);
}

/* The engine gives up the address of an endpoint that it never deleted: it has lost it. */
static void drop_endpoints(struct node *node, const struct pool *pool, const struct ip *address)
{
	struct endpoint *ep = addresses_first(node->addresses, address), *next;

	for (; ep; ep = next) {
		next = addresses_next(ep, address);
		if (!ep->closing && ep->network && network_def_has(&ep->network->def, &pool->state.def.prefix))
			endpoint_remove(node, ep, NULL, NULL);
	}
}

void pools_release_address(void *ctx, struct plugin_call *call, const char *pool_id, const struct ip *address)
{
	struct node *node = ctx;
	struct pool_name name;
	struct ipam_lease lease;

	if (parse_pool_id(node, pool_id, &name) < 0 || !ipam_lookup(node->ipam, &name.pool->id, address, &lease)) {
		plugin_done(call);
		return;
	}
	pool_forget(node, name.pool, address);
	if (lease.bound)
		drop_endpoints(node, name.pool, address);
	ipam_release(node->ipam, &name.pool->id, address, clock_boot_ms());
	custody_poke(node);
	outbox_call(node->outbox, answer_done, call);
}

/* The control API: which verb is served by whom, in the schema of docs/api.md, and what is asked of the host as a whole: tokens,
 * joining, leaving, a new key. api_status.c and api_show.c read the tables, api_networks.c makes and removes networks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#include "daemon/api_internal.h"

#define TOKEN_TTL_S 3600

/* ---- token, a new key ---- */

static json_t *token(struct node *node, json_t *body, struct err *err)
{
	json_t *ttl = json_object_get(body, "ttl_s");
	char text[512];
	int64_t expires_s;

	if (cluster_token(node, ttl ? json_integer_value(ttl) : TOKEN_TTL_S, text, &expires_s, err) < 0)
		return NULL;
	return json_pack("{s:s, s:I}", "token", text, "expires_s", (json_int_t)expires_s);
}

static json_t *keys_rotate(struct node *node, json_t *body, struct err *err)
{
	(void)body;
	if (gossip_rotate(node->gossip, clock_boot_ms(), err) < 0)
		return NULL;
	log_info("cluster", "a new cluster key is being handed out");
	cluster_poke(node);
	return json_pack("{s:b}", "rotating", 1);
}

/* ---- join, leave ---- */

struct pending {
	struct node *node;
	struct control_call *call;
};

static struct pending *pending_new(struct node *node, struct control_call *call)
{
	struct pending *p = alloc_new(struct pending);

	p->node = node;
	p->call = call;
	return p;
}

static json_t *joined_json(struct node *node)
{
	return json_pack("{s:o, s:i, s:o}", "cluster_id", api_id(&node->cluster.cluster_id), "hostno", (int)node->cluster.hostno,
		"sponsor", api_host_name(node, &node->sponsor));
}

static void joined(void *arg, const struct err *err)
{
	struct pending *p = arg;

	if (err)
		control_fail(p->call, err);
	else
		control_done(p->call, joined_json(p->node));
	free(p);
}

static void join(struct node *node, struct control_call *call, json_t *body)
{
	struct pending *p = pending_new(node, call);
	struct err err = {0};

	if (cluster_join(node, json_string_value(json_object_get(body, "token")), joined, p, &err) == 0)
		return;
	if (err.code == ERR_EXISTS && !cluster_alone(node))
		control_done(call, joined_json(node));
	else
		control_fail(call, &err);
	free(p);
}

static void left(void *arg, const struct err *err)
{
	struct pending *p = arg;

	if (err)
		control_fail(p->call, err);
	else
		control_done(p->call, json_pack("{s:b}", "left", 1));
	free(p);
}

static void endpoints_gone(void *arg)
{
	struct pending *p = arg;
	struct err err = {0};

	p->node->leaving = false; /* cluster_leave takes it over */
	if (cluster_leave(p->node, left, p, &err) < 0) {
		control_fail(p->call, &err);
		free(p);
	}
}

static void leave(struct node *node, struct control_call *call, json_t *body)
{
	bool force = json_is_true(json_object_get(body, "force"));
	unsigned count = api_endpoints_of(node, node->cluster.hostno, 0);
	struct err err = {0};

	if (count && !force) {
		err_set(&err, ERR_CONFLICT,
			"%u endpoints of this host would lose their network; stop their containers first, or use --force", count);
		control_fail(call, &err);
		return;
	}
	if (node->leaving || node->join) {
		err_set(&err, ERR_CONFLICT, "this host is joining or leaving already; wait for the answer");
		control_fail(call, &err);
		return;
	}
	node->leaving = true; /* nothing new from here on */
	endpoints_remove_all_of(node, NULL, endpoints_gone, pending_new(node, call));
}

/* ---- dispatch ---- */

/* How a verb is served: with an answer at once, or later by whoever takes the call. `text` is the object or the filter. */
struct verb {
	json_t *(*plain)(struct node *node);
	json_t *(*about)(struct node *node, const char *text, struct err *err);
	json_t *(*told)(struct node *node, json_t *body, struct err *err);
	void (*later)(struct node *node, struct control_call *call, json_t *body);
	void (*later_about)(struct node *node, struct control_call *call, const char *text);
	void (*whole)(struct node *node, struct control_call *call, const struct control_request *request);
};

static const struct verb verbs[] = {
	[CONTROL_STATUS] = {.plain = api_status},
	[CONTROL_VERSION] = {.plain = api_version},
	[CONTROL_MEMBERS] = {.plain = api_members},
	[CONTROL_NETWORKS] = {.plain = api_networks},
	[CONTROL_NETWORK_CREATE] = {.later = api_network_create},
	[CONTROL_NETWORK_INSPECT] = {.about = api_network_inspect},
	[CONTROL_NETWORK_RM] = {.later_about = api_network_rm},
	[CONTROL_ENDPOINTS] = {.about = api_endpoints},
	[CONTROL_ENDPOINT_INSPECT] = {.about = api_endpoint_inspect},
	[CONTROL_IPAM] = {.about = api_ipam_show},
	[CONTROL_TOKEN] = {.told = token},
	[CONTROL_JOIN] = {.later = join},
	[CONTROL_LEAVE] = {.later = leave},
	[CONTROL_KEYS] = {.plain = api_keys},
	[CONTROL_KEYS_ROTATE] = {.told = keys_rotate},
	[CONTROL_FREEZE] = {.later = freeze_on},
	[CONTROL_THAW] = {.later = freeze_off},
	[CONTROL_FORGET] = {.later = estate_forget},
	[CONTROL_AUDIT] = {.plain = estate_check},
	[CONTROL_CNI_ADD] = {.whole = workloads_call},
	[CONTROL_CNI_DEL] = {.whole = workloads_call},
	[CONTROL_CNI_CHECK] = {.whole = workloads_call},
	[CONTROL_CNI_GC] = {.whole = workloads_call},
	[CONTROL_CNI_STATUS] = {.whole = workloads_call},
	[CONTROL_IPAM_ALLOCATE] = {.whole = workloads_call},
	[CONTROL_IPAM_RELEASE] = {.whole = workloads_call},
	[CONTROL_IPAM_CHECK] = {.whole = workloads_call},
};

/* What makes something new, and what changes the cluster. */
static bool makes(enum control_verb verb)
{
	switch (verb) {
	case CONTROL_NETWORK_CREATE:
	case CONTROL_NETWORK_RM:
	case CONTROL_TOKEN:
	case CONTROL_JOIN:
	case CONTROL_LEAVE:
	case CONTROL_FORGET:
	case CONTROL_CNI_ADD:
	case CONTROL_CNI_STATUS: /* "could a container be attached?" */
	case CONTROL_IPAM_ALLOCATE:
		return true;
	default:
		return false;
	}
}

static int refused(const struct node *node, enum control_verb verb, struct err *err)
{
	if (!node->gossip || !node->ipam)
		return err_set(err, ERR_UNREACHABLE, "this host is changing its cluster; try again in a second");
	if (makes(verb) && freeze_refuses(node, err))
		return -1;
	if (verb == CONTROL_NETWORK_CREATE && (node->leaving || node->join))
		return err_set(err, ERR_UNREACHABLE, "this host is joining or leaving a cluster; try again in a second");
	return 0;
}

static json_t *answer_at_once(
	struct node *node, const struct verb *verb, const struct control_request *request, const char *text, struct err *err)
{
	if (verb->plain)
		return verb->plain(node);
	return verb->about ? verb->about(node, text, err) : verb->told(node, request->body, err);
}

static void handle(void *ctx, struct control_call *call, const struct control_request *request)
{
	const char *text = request->object ? request->object : request->filter;
	const struct verb *verb = &verbs[request->verb];
	struct node *node = ctx;
	struct err err = {0};
	json_t *answer;

	if (refused(node, request->verb, &err) < 0) {
		control_fail(call, &err);
	} else if (verb->later) {
		verb->later(node, call, request->body);
	} else if (verb->later_about) {
		verb->later_about(node, call, text);
	} else if (verb->whole) {
		verb->whole(node, call, request);
	} else {
		answer = answer_at_once(node, verb, request, text, &err);
		if (answer)
			control_done(call, answer);
		else
			control_fail(call, &err);
	}
}

const struct control_backend api_backend = {.handle = handle};

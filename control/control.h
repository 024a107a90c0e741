/* The control API: HTTP + JSON over a Unix socket, versioned paths (/v1/...), described in docs/api.md. The CLI, CNI and scripts
 * use only this. Here: the routes, parameter checks and error form. What the answers say comes from a backend. */
#ifndef CONTROL_CONTROL_H
#define CONTROL_CONTROL_H

#include <event2/event.h>
#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "control/limits.h"

#define CONTROL_REASON_MAX 120 /* bytes of why a host is frozen */

enum control_verb {
	CONTROL_STATUS,		  /* GET    /v1/status */
	CONTROL_VERSION,	  /* GET    /v1/version */
	CONTROL_MEMBERS,	  /* GET    /v1/members */
	CONTROL_NETWORKS,	  /* GET    /v1/networks */
	CONTROL_NETWORK_CREATE,	  /* POST   /v1/networks            {"name", "subnet"?, "subnet6"?, "mtu"?, "vni"?, "internal"?,
				     "mode"?} */
	CONTROL_NETWORK_INSPECT,  /* GET    /v1/networks/NAME_OR_ID */
	CONTROL_NETWORK_RM,	  /* DELETE /v1/networks/NAME_OR_ID */
	CONTROL_ENDPOINTS,	  /* GET    /v1/endpoints           ?network=NAME */
	CONTROL_ENDPOINT_INSPECT, /* GET    /v1/endpoints/ID_OR_ADDRESS */
	CONTROL_IPAM,		  /* GET    /v1/ipam                ?pool=CIDR */
	CONTROL_TOKEN,		  /* POST   /v1/token               {"ttl_s"?} */
	CONTROL_JOIN,		  /* POST   /v1/join                {"token"} */
	CONTROL_LEAVE,		  /* POST   /v1/leave               {"force"?} */
	CONTROL_KEYS,		  /* GET    /v1/keys */
	CONTROL_KEYS_ROTATE,	  /* POST   /v1/keys/rotate         {} */
	CONTROL_FREEZE,		  /* POST   /v1/freeze              {"reason"?} */
	CONTROL_THAW,		  /* POST   /v1/thaw                {} */
	CONTROL_FORGET,		  /* POST   /v1/forget              {"host", "fenced"?, "assume_fenced"?} */
	CONTROL_AUDIT,		  /* GET    /v1/ipam/check */
	/* For trestle-cni. An attachment is named by {"config", "container_id", "ifname"}; docs/api.md has the bodies. */
	CONTROL_CNI_ADD,       /* POST   /v1/cni/add             attachment, "netns", "network", ... */
	CONTROL_CNI_DEL,       /* POST   /v1/cni/del             attachment, "netns"? */
	CONTROL_CNI_CHECK,     /* POST   /v1/cni/check           attachment, "netns", "mac"?, "ips"? */
	CONTROL_CNI_GC,	       /* POST   /v1/cni/gc              {"config", "keep"} */
	CONTROL_CNI_STATUS,    /* GET    /v1/cni/status          ?network=NAME */
	CONTROL_IPAM_ALLOCATE, /* POST   /v1/ipam/allocate       attachment, "network" or "subnet", "subnet6", "ips"? */
	CONTROL_IPAM_RELEASE,  /* POST   /v1/ipam/release        attachment */
	CONTROL_IPAM_CHECK,    /* POST   /v1/ipam/check          attachment, "ips"? */
};

struct control_request {
	enum control_verb verb;
	const char *object; /* last path part, decoded; NULL for collections */
	const char *filter; /* the query parameter of the route; NULL when absent */
	json_t *body;	    /* borrowed; NULL for GET and DELETE. Known members have been type-checked, unknown ones refused */
};

struct control_call;

struct control_backend {
	/* Answers exactly once with control_done or control_fail, now or later. The request is borrowed until then. */
	void (*handle)(void *ctx, struct control_call *call, const struct control_request *request);
};

void control_done(struct control_call *call, json_t *answer); /* steals the reference; 200 */
void control_fail(struct control_call *call,
	const struct err *err);			    /* {"error": {"code", "message"}}; 400, 403, 404, 409, 503 or 500 by code */
bool control_gone(const struct control_call *call); /* the client has hung up: nobody will read the answer */

/* The body of a call, parsed and checked as if it had come by the socket: for such a body that comes another way. */
int control_body(enum control_verb verb, const void *bytes, size_t len, json_t **ret_body, struct err *err);

struct control;
int control_open(struct event_base *base, const char *socket_path, const struct control_backend *backend, void *ctx,
	struct control **ret_control, struct err *err);
void control_close(struct control *control);

#endif

/* The Docker side: decodes the calls of the remote network and IPAM driver protocols, hands them to a backend, encodes its
 * answers.
 *
 * One table of methods; each has decode, handle and encode. Strict about types and ranges, lenient about unknown keys. The
 * backend never sees an impossible value. Static answers (Activate, GetCapabilities, GetDefaultAddressSpaces, Discover*) need no
 * backend. Protocol facts: protocols.md sections 1-3 of the design references (moby pkg/plugins, libnetwork drivers/remote,
 * ipams/remote). */
#ifndef PLUGIN_PLUGIN_H
#define PLUGIN_PLUGIN_H

#include <event2/event.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/err.h"

#define PLUGIN_ID_MAX 128    /* bytes of a network or endpoint id: [0-9A-Za-z_-] */
#define PLUGIN_POOLS_MAX 16  /* IPAMData entries of one family */
#define PLUGIN_AUX_MAX 16    /* auxiliary addresses of one pool */
#define PLUGIN_PATH_MAX 4096 /* of a SandboxKey */
#define PLUGIN_SPACE_LOCAL "trestle-local"
#define PLUGIN_SPACE_GLOBAL "trestle-global"

struct plugin_pool {
	struct prefix pool;    /* masked */
	struct prefix gateway; /* unset when none */
	unsigned aux_count;
	struct ip aux[PLUGIN_AUX_MAX]; /* --aux-address: in the pool, ascending, each once; what they are called is the engine's
					  affair */
};

struct plugin_create_network {
	const char *network_id;
	unsigned pool4_count, pool6_count;
	struct plugin_pool pool4[PLUGIN_POOLS_MAX], pool6[PLUGIN_POOLS_MAX];
	bool internal;
	bool enable_ipv6;
	const char *name;      /* -o trestle.network; NULL when not given */
	uint32_t mtu;	       /* -o com.docker.network.driver.mtu or trestle.mtu; 0 = automatic */
	uint32_t vni;	       /* -o trestle.vni; 0 = automatic */
	const char *mode;      /* -o trestle.mode; NULL = default ("l2"); anything else than l2 is refused by the decoder */
	const char *if_prefix; /* -o com.docker.network.container_iface_prefix; "eth" when not given */
	uint8_t digest[16];    /* over everything that matters: equal digests = the same request again (N2, N3) */
};

struct plugin_create_endpoint {
	const char *network_id, *endpoint_id;
	struct prefix address4, address6; /* unset when not given */
	struct mac mac;			  /* zero when not given */
};

struct plugin_endpoint_created {
	struct mac mac; /* sent back only when the engine gave none */
};

struct plugin_joined {
	char src_name[16];
	char dst_prefix[16];
};

struct plugin_request_pool {
	const char *space;    /* PLUGIN_SPACE_LOCAL or _GLOBAL: others are refused by the decoder */
	struct prefix pool;   /* unset = choose one; length set and address zero = any of that length ("0.0.0.0/28") */
	struct prefix within; /* SubPool; unset = all */
	bool v6;	      /* derived from pool when given */
	const char *name;     /* --ipam-opt trestle.network; NULL when not given */
};

struct plugin_pool_given {
	char pool_id[128];
	struct prefix pool;
};

struct plugin_request_address {
	const char *pool_id;
	struct ip address;	   /* family 0: any */
	bool gateway;		   /* RequestAddressType com.docker.network.gateway */
	bool endpoint;		   /* false also for aux addresses as far as the protocol can tell */
	struct mac mac;		   /* option com.docker.network.endpoint.macaddress; zero when absent */
	const char *endpoint_name; /* option of engines from 29.0; NULL when absent */
};

/* One call in flight. The backend answers exactly once with plugin_done_* or plugin_fail, now or later. Pointers inside the
 * decoded request are borrowed until then. */
struct plugin_call;

struct plugin_backend {
	void (*create_network)(void *ctx, struct plugin_call *call, const struct plugin_create_network *req);
	void (*delete_network)(void *ctx, struct plugin_call *call, const char *network_id);
	void (*create_endpoint)(void *ctx, struct plugin_call *call, const struct plugin_create_endpoint *req);
	void (*delete_endpoint)(void *ctx, struct plugin_call *call, const char *network_id, const char *endpoint_id);
	void (*join)(void *ctx, struct plugin_call *call, const char *network_id, const char *endpoint_id, const char *sandbox);
	void (*leave)(void *ctx, struct plugin_call *call, const char *network_id, const char *endpoint_id);
	/* Program on a network where docker_gwbridge does the work: only checks that the endpoint exists (error otherwise). */
	void (*program)(void *ctx, struct plugin_call *call, const char *network_id, const char *endpoint_id);
	void (*request_pool)(void *ctx, struct plugin_call *call, const struct plugin_request_pool *req);
	void (*release_pool)(void *ctx, struct plugin_call *call, const char *pool_id);
	void (*request_address)(void *ctx, struct plugin_call *call, const struct plugin_request_address *req);
	void (*release_address)(void *ctx, struct plugin_call *call, const char *pool_id, const struct ip *address);
};

void plugin_fail(
	struct plugin_call *call, const struct err *err); /* 400 for ERR_INVALID, else 500; {"Err": text, "Error": text} */
void plugin_done(struct plugin_call *call);		  /* {} */
void plugin_done_endpoint(struct plugin_call *call, const struct plugin_endpoint_created *made); /* NULL: {"Interface":{}} */
void plugin_done_join(struct plugin_call *call, const struct plugin_joined *joined);
void plugin_done_pool(struct plugin_call *call, const struct plugin_pool_given *given);
void plugin_done_address(struct plugin_call *call, const struct prefix *address);
/* Told when the client hangs up before the answer (the answer is still owed, and goes nowhere); at once when it already has. */
void plugin_call_on_gone(struct plugin_call *call, void (*fn)(void *arg), void *arg);

struct plugin;
int plugin_open(struct event_base *base, const char *socket_path, const struct plugin_backend *backend, void *ctx,
	struct plugin **ret_plugin, struct err *err);
void plugin_close(struct plugin *plugin); /* calls in flight are dropped; the backend may still answer them */

struct plugin_counters {
	unsigned long calls;   /* answered or in flight, refused ones included */
	unsigned long refused; /* malformed: never reached the backend */
	unsigned long failed;  /* answered with an error by the backend */
	unsigned in_flight;
};
const struct plugin_counters *plugin_counters(const struct plugin *plugin);

/* For tests and fuzzing: the whole way from method and body to the backend, without a socket. Returns the status that a malformed
 * request gets (with err), or 0 when the backend was called or the answer was static. */
int plugin_decode_only(const char *method, const void *body, size_t len, struct err *err);

#endif

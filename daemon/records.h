/* Values that are shared by gossip or kept in the store: plain structs and their bytes. Pure.
 *
 * Every value starts with a format byte; a higher one than ours is ERR_VERSION, anything that does not decode to its end is
 * ERR_CORRUPT. A shared value fits one gossip record (GOSSIP_VALUE_MAX). Layouts: docs/wire.md and, for what is only stored,
 * records.c. */
#ifndef DAEMON_RECORDS_H
#define DAEMON_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/err.h"
#include "base/id.h"
#include "gossip/gossip.h"

#define NETWORK_NAME_MAX 63
#define NETWORK_POOLS_MAX 8
#define ENDPOINT_ID_MAX 128
#define ENDPOINT_SHORT_MAX 12
#define POOL_REFS_MAX 32
#define POOL_GATEWAYS_MAX 16
#define POOL_AUX_MAX 32
#define RECORD_MAX 4096 /* of a stored value */

/* ---- shared ---- */

struct network_def {
	struct id128 id;
	uint32_t version; /* of two definitions of one id the higher version counts, then the greater bytes */
	char name[NETWORK_NAME_MAX + 1];
	uint32_t vni;
	uint32_t mtu;
	bool internal;
	bool routed; /* mode l3, else l2; for good */
	unsigned pool_count;
	struct prefix pools[NETWORK_POOLS_MAX]; /* masked; both families */
	uint32_t creator;			/* hostno */
	uint64_t created_s;			/* wall clock, a label */
};

enum pool_space { POOL_SPACE_LOCAL, POOL_SPACE_GLOBAL, POOL_SPACE_HOSTNO };

struct pool_def {
	struct id128 id;
	enum pool_space space;
	struct prefix prefix;		 /* masked */
	char name[NETWORK_NAME_MAX + 1]; /* of the network it is tied to; "" = tied by its prefix */
	uint32_t creator;
	bool wanted; /* the publisher has references to it */
};

struct endpoint_record {
	char short_id[ENDPOINT_SHORT_MAX + 1]; /* first digits of the engine's id */
	struct mac mac;
	struct ip ip4, ip6;
	uint64_t since_s; /* wall clock, a label */
};

size_t network_def_encode(const struct network_def *def, void *buf, size_t size); /* 0: does not fit */
int network_def_decode(const void *bytes, size_t len, struct network_def *ret_def, struct err *err);
/* > 0 when a counts over b: both have one id. */
int network_def_compare(const struct network_def *a, const struct network_def *b);
bool network_def_has(const struct network_def *def, const struct prefix *pool); /* as one of its own */
size_t pool_def_encode(const struct pool_def *def, void *buf, size_t size);
int pool_def_decode(const void *bytes, size_t len, struct pool_def *ret_def, struct err *err);
size_t endpoint_record_encode(const struct endpoint_record *record, void *buf, size_t size);
int endpoint_record_decode(const void *bytes, size_t len, struct endpoint_record *ret_record, struct err *err);

/* ---- stored ---- */

struct cluster_state {
	struct id128 cluster_id;
	uint8_t key[CLUSTER_KEY_SIZE];
	uint32_t hostno;
	uint32_t epoch;
	struct id128 hostno_pool;
	bool known; /* to so many hosts that its number is nobody else's: it uses its slices of pools */
};

struct network_state { /* key: network id */
	struct network_def def;
	bool pinned; /* by `trestle network create` on this host */
};

struct docker_network_state { /* key: the engine's network id */
	struct id128 network;
	uint8_t digest[16]; /* of the CreateNetwork request */
	char if_prefix[16];
	bool internal;
};

struct pool_ref {	      /* an engine's reference: one RequestPool */
	struct prefix within; /* SubPool; unset = all */
	uint32_t count;
};

struct pool_state { /* key: pool id */
	struct pool_def def;
	bool pinned;
	unsigned ref_count;
	struct pool_ref refs[POOL_REFS_MAX];
	/* Shared addresses to take again after a reboot: no engine asks again. */
	unsigned gateway_count, aux_count;
	struct ip gateways[POOL_GATEWAYS_MAX];
	struct ip aux[POOL_AUX_MAX];
};

struct endpoint_state { /* key: the engine's endpoint id */
	char docker_network[ENDPOINT_ID_MAX + 1];
	struct id128 network;
	struct mac mac;
	bool mac_given; /* by the engine */
	struct prefix address4, address6;
	char peer_name[16];
	bool joined, left;
	bool own_lease4, own_lease6; /* the lease was taken by CreateEndpoint itself and ends with the endpoint */
	char sandbox[512];
	uint64_t since_s;
};

size_t cluster_state_encode(const struct cluster_state *state, void *buf, size_t size);
int cluster_state_decode(const void *bytes, size_t len, struct cluster_state *ret_state, struct err *err);
size_t network_state_encode(const struct network_state *state, void *buf, size_t size);
int network_state_decode(const void *bytes, size_t len, struct network_state *ret_state, struct err *err);
size_t docker_network_state_encode(const struct docker_network_state *state, void *buf, size_t size);
int docker_network_state_decode(const void *bytes, size_t len, struct docker_network_state *ret_state, struct err *err);
size_t pool_state_encode(const struct pool_state *state, void *buf, size_t size);
int pool_state_decode(const void *bytes, size_t len, struct pool_state *ret_state, struct err *err);
size_t endpoint_state_encode(const struct endpoint_state *state, void *buf, size_t size);
int endpoint_state_decode(const void *bytes, size_t len, struct endpoint_state *ret_state, struct err *err);

#endif

/* The driver's tables, shared by its files. Theory of operation: the top of vxlan.c. */
#ifndef DRIVER_VXLAN_VXLAN_INTERNAL_H
#define DRIVER_VXLAN_VXLAN_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include <utlist.h>

#include "base/uthash.h"
#include "driver/driver.h"
#include "driver/vxlan/guard.h"
#include "driver/vxlan/nat.h"
#include "driver/vxlan/plan.h"
#include "netlink/socket.h"

struct vx_network;
struct vx_endpoint;
struct vx_former;
struct vx_announcement;

/* The identity of a row; what it says is its value. */
struct vx_key {
	uint8_t kind;	/* enum vx_row_kind */
	uint8_t family; /* of an address; 0: bytes are a MAC */
	uint8_t length; /* of a route */
	uint8_t zero;
	uint8_t bytes[16];
	uint32_t port; /* of a neighbour in mode l3: the device it is on */
};
_Static_assert(sizeof(struct vx_key) == 24, "no gaps in a key");

/* All bytes defined, so that memcmp is equality. By kind: FLOOD, ADDR nothing, REMOTE ip, PORT port, ROUTE route, NEIGH mac. */
union vx_value {
	uint8_t bytes[24];
	struct ip ip;
	uint32_t port;
	struct {
		uint32_t port;
		struct ip source;
	} route;
	struct mac mac;
};

/* One row that is wanted, had, or both. It is freed only by the sync pass: operations under way point to it. */
struct vx_entry {
	struct vx_key key;
	union vx_value want, have;
	bool has, dirty, pending; /* pending: wanted or unwanted since the last sync, so not drift */
	bool local;		  /* the winning claim is an endpoint's of this host */
	bool contested;		  /* claims with different content have met */
	bool ever_wanted;	  /* in this process's life: then its removal is not held back */
	struct mac last;	  /* of a neighbour: what containers here may have learnt of it */
	uint32_t claims;	  /* objects that want it; 0: unwanted */
	uint32_t generation;
	struct vx_network *network;
	struct vx_entry *prev, *next; /* dirty list */
	UT_hash_handle hh;	      /* vx_network.rows */
};

struct vx_remote {
	struct mac mac;
	struct ip ip4, ip6, vtep;
	uint32_t hostno;
	UT_hash_handle hh; /* vx_network.remotes */
};

/* A link in the fabric, ours or not. Freed when the kernel says it is gone; operations do not point to it. */
struct vx_have_link {
	struct vx_link link;
	uint32_t generation;
	bool assigned; /* serves as its network's bridge or vxlan device, or as its endpoint's pair */
	bool dirty;
	bool expected;		    /* released by a change of what is wanted: not drift */
	uint32_t peer_index;	    /* of the other end, in its namespace; 0: not told */
	bool running;		    /* its carrier: the peer is up */
	bool away;		    /* a container's end was seen elsewhere, and nothing was heard of the link since */
	struct vx_network *network; /* by tag; counted in vx_network.links */
	struct vx_endpoint *endpoint;
	struct vx_have_link *prev, *next; /* dirty list */
	UT_hash_handle hh;		  /* vxlan.links by link.index */
};

struct vx_endpoint {
	char id[DRIVER_ENDPOINT_ID_MAX + 1];
	struct vx_network *network;
	struct mac mac;
	struct ip ip4, ip6;
	char peer_name[DRIVER_IFNAME_SIZE];
	int peer_netns; /* borrowed; 0: the host's */
	bool make, dirty, pending, failed;
	uint32_t claimed; /* the port its rows are claimed for; 0: none are */
	uint32_t salt;
	struct vx_have_link *link;
	struct err *error;		 /* of the last attempt, or NULL */
	struct vx_endpoint *prev, *next; /* dirty list */
	UT_hash_handle hh;		 /* vx_network.endpoints */
};

/* What a routed network has beside. */
struct vx_routed {
	bool internal;
	struct ip own4, own6;
	unsigned pool_count;
	struct prefix pools[DRIVER_POOLS_MAX];
};

/* A network that is desired, or that a tag in the kernel speaks of. */
struct vx_network {
	struct id128 id;
	bool desired, live /* has devices: desired and with an endpoint here */, dirty, pending, failed;
	uint32_t vni, mtu, salt;
	struct vx_routed *routed; /* mode l3; NULL: mode l2, or not desired */
	struct vx_endpoint *endpoints;
	struct vx_remote *remotes;
	struct vx_entry *rows;
	struct vx_former *former; /* announce.c */
	struct ip *flood;	  /* desired head-end replication list */
	size_t flood_count;
	struct vx_have_link *bridge, *vxlan;
	uint32_t rows_bridge, rows_vxlan; /* devices that the had rows are on */
	uint32_t links;
	struct err *error;
	struct vx_network *prev, *next; /* dirty list */
	UT_hash_handle hh;		/* vxlan.networks */
};

struct vx_reaper {
	bool running;
	pthread_t thread;
	atomic_bool finished;
	struct nl_socket *socket; /* the thread's alone while running */
	struct err err;
	int ret;
};

struct vxlan {
	struct driver driver; /* first: the ops get this */
	bool routed;	      /* the driver of mode l3: `fabric` is the host's namespace, and there are no bridges */
	struct ip local;
	uint16_t port;
	uint32_t hostno;
	char *fabric_path;
	int host_fd, fabric_fd;
	int32_t host_nsid; /* the host's namespace as the fabric numbers it */
	struct nl_socket *host, *fabric, *notices;
	struct nl_batch *batch;
	struct vx_plan *plan;
	struct guard *guard; /* mode l2 */
	struct nat *nat;     /* mode l3 */
	struct nft *table;   /* of one of them */

	struct vx_network *networks;
	struct vx_have_link *links;
	struct vx_network *dirty_networks;
	struct vx_endpoint *dirty_endpoints;
	struct vx_entry *dirty_rows;
	struct vx_have_link *dirty_links;
	unsigned dying; /* links in VX_GROUP_REAP */
	bool reap_now;	/* one of them may be in the way */
	uint32_t next_index, generation;

	struct ip *members;
	size_t member_count;
	struct driver_exit *exits;
	size_t exit_count;
	bool members_known, guard_dirty, guard_pending; /* pending: what is wanted of it changed, so not drift */
	bool hold, overrun, dumped;
	bool nothing_yet; /* opened a moment ago, and there was nothing of ours: what is told since is all that there may be */
	bool counting, first_count; /* a full comparison is under way; it is the first one */
	unsigned failures;	    /* of this sync */
	struct err failure;	    /* the first one */
	struct vx_reaper reaper;
	struct vx_announcement *announcements; /* that wait; all of this is announce.c's */
	int announce_fd, announce_timer;
	bool announce_waits; /* the timer runs */
	int watch_fd;	     /* epoll over the notices and that timer: what the caller watches */
	struct driver_counters counters;
	char warning[400];
};

/* desired.c: what is wanted */
struct vx_network *vx_network_find(struct vxlan *vx, const struct id128 *id);
struct vx_network *vx_network_get(struct vxlan *vx, const struct id128 *id); /* made when absent */
void vx_network_gc(struct vxlan *vx, struct vx_network *n);		     /* frees one that nobody speaks of any more */
struct vx_endpoint *vx_endpoint_find(struct vx_network *n, const char *id);
void vx_put_network(struct vxlan *vx, const struct driver_network *network);
void vx_del_network(struct vxlan *vx, const struct id128 *id);
void vx_put_endpoint(struct vxlan *vx, const struct driver_endpoint *endpoint, bool make);
void vx_del_endpoint(struct vxlan *vx, const struct id128 *network, const char *id);
void vx_put_remote(struct vxlan *vx, const struct driver_remote *remote);
void vx_del_remote(struct vxlan *vx, const struct id128 *network, const struct mac *mac);
void vx_set_flood(struct vxlan *vx, const struct id128 *network, const struct ip *vteps, size_t count);
void vx_start_over(struct vxlan *vx, uint32_t hostno);
void vx_set_members(struct vxlan *vx, const struct ip *vteps, size_t count);
void vx_set_exits(struct vxlan *vx, const struct driver_exit *exits, size_t count);
void vx_endpoint_claim(struct vxlan *vx, struct vx_endpoint *e, uint32_t port); /* 0: gives its rows up */
void vx_desired_free(struct vxlan *vx);
void vx_dirty_network(struct vxlan *vx, struct vx_network *n);
void vx_dirty_endpoint(struct vxlan *vx, struct vx_endpoint *e);
void vx_dirty_all(struct vxlan *vx);
/* The rows that an object wants. */
typedef void vx_row_fn(void *arg, const struct vx_row *row, bool local);
void vx_network_rows(const struct vx_network *n, vx_row_fn *fn, void *arg);
void vx_endpoint_rows(const struct vx_endpoint *e, uint32_t port, vx_row_fn *fn, void *arg);
void vx_remote_rows(const struct vx_network *n, const struct vx_remote *r, vx_row_fn *fn, void *arg);

/* rows.c: rows wanted and had */
struct vx_row vx_entry_row(const struct vx_entry *e, const union vx_value *value);
void vx_claim(struct vxlan *vx, struct vx_network *n, const struct vx_row *row, bool local);
void vx_unclaim(struct vxlan *vx, struct vx_network *n, const struct vx_row *row);
/* The kernel has the row with this content; or has no row of this key. */
void vx_row_had(struct vxlan *vx, struct vx_network *n, const struct vx_row *row);
void vx_row_gone(struct vxlan *vx, struct vx_network *n, const struct vx_row *key);
void vx_rows_forget(struct vxlan *vx, struct vx_network *n, uint32_t kinds /* 1 << VX_ROW_... */);
void vx_rows_forget_tunnel(struct vxlan *vx, struct vx_network *n); /* mode l3: those on the vxlan device */
/* Mode l3: routes that say this source. */
void vx_rows_forget_source(struct vxlan *vx, struct vx_network *n, const struct ip *source);
void vx_dirty_row(struct vxlan *vx, struct vx_entry *e);
void vx_entry_free(struct vxlan *vx, struct vx_entry *e);

/* have.c: what the kernel has */
/* Reads everything anew. The first time each row of the fabric; later those that we know or that are on the vxlan devices:
 * others' rows on containers' ports are told by notices. */
int vx_have_dump(struct vxlan *vx, struct err *err);
int vx_have_drain(struct vxlan *vx, struct err *err); /* reads all notices */
struct vx_have_link *vx_link_find(struct vxlan *vx, uint32_t index);
bool vx_name_taken(struct vxlan *vx, const char *name);
uint32_t vx_new_index(struct vxlan *vx);
void vx_dirty_link(struct vxlan *vx, struct vx_have_link *l);
struct vx_have_link *vx_find_dying(struct vxlan *vx, const struct vx_network *n, enum vx_kind kind);
void vx_link_release(struct vxlan *vx, struct vx_have_link *l); /* it serves nobody any more: its owner is no longer desired */
void vx_link_adopt(struct vxlan *vx, struct vx_have_link *l);	/* gives it to its owner, when there is one without */
void vx_link_revive(struct vxlan *vx, struct vx_have_link *l);	/* the same for one that waits for its deletion */
/* A link's tag and group were changed by us: the kernel gives no notice of that while the link is down. To be called when the
 * notices of that time have been read. */
void vx_link_was_set(struct vxlan *vx, const struct vx_op *op);
void vx_have_free(struct vxlan *vx);

/* apply.c: the plan into messages */
void vx_apply(struct vxlan *vx); /* sends and empties vx->plan; results go to the owners and to vx_fail */
void vx_fail(struct vxlan *vx, const struct err *err);

/* sync.c */
int vx_sync(struct vxlan *vx, struct err *err);
int vx_resync(struct vxlan *vx, struct err *err);
/* Forgets what is dirty without a difference, and says whether anything is left to do. */
bool vx_differs(struct vxlan *vx);

/* announce.c: an address has another MAC */
int vx_announce_open(struct vxlan *vx, struct err *err);
void vx_announce_close(struct vxlan *vx);
void vx_announce_put(struct vxlan *vx, struct vx_entry *e); /* its row was put into the kernel: e->have */
void vx_announce_forget(struct vx_entry *e);		    /* it is about to be freed: remembers what was learnt */
void vx_announce_clear(struct vx_network *n);		    /* no container here is left that could have learnt anything */
void vx_announce_run(struct vxlan *vx);			    /* sends what waits, as much as is due */

/* reap.c */
int vx_reap(struct vxlan *vx, struct err *err);
void vx_reap_all(struct vxlan *vx);  /* at once, waiting for the kernel */
void vx_reap_wait(struct vxlan *vx); /* until no deletion is under way */
int vx_purge(struct vxlan *vx, struct err *err);

/* routed.c: mode l3 */
bool vx_routed_has(const struct prefix *pools, unsigned count, uint8_t family);
/* A link's sysctls. *wrote becomes true when one was otherwise. */
int vx_routed_conf(const char *name, bool pair, bool has_ip6, bool *wrote, struct err *err);
int vx_routed_prepare(struct vxlan *vx, struct err *err);			 /* those of all our links; at each comparison */
struct vx_network *vx_routed_network(struct vxlan *vx, const struct prefix *to); /* with a pool that covers this; NULL: none */
/* The table, the settings of the host and of driver_exit's links, the warning; until it succeeds vx->guard_dirty stays. */
void vx_routed_nat(struct vxlan *vx, bool *ret_wrote, struct err *err);
int vx_routed_purge(struct vxlan *vx, struct err *err); /* routes that go with no device */

/* fabric.c: the namespace that the devices live in */
int vx_fabric_open(const char *path, int *ret_fd, struct err *err); /* made when absent */
int vx_fabric_prepare(int fabric_fd, struct err *err);		    /* its sysctls; repeated at each resync */

#endif

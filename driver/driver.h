/* What a datapath offers to the daemon: it is told the desired state object by object, and makes the kernel agree.
 *
 * Level-triggered. put/del only change what is desired; sync compares with what the kernel has and applies the difference.
 * Running sync again changes nothing when nothing is wrong. Start-up, repair and removal are all this one path.
 *
 * All calls of one driver come from one thread (the daemon's worker). Nothing here blocks longer than the kernel's RTNL lock. */
#ifndef DRIVER_DRIVER_H
#define DRIVER_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/err.h"
#include "base/id.h"

#define DRIVER_ENDPOINT_ID_MAX 128 /* bytes */
#define DRIVER_IFNAME_SIZE 16	   /* IFNAMSIZ */
#define DRIVER_POOLS_MAX 8

/* Mode l3: the MAC of the host's end of every pair. A container sends all to it, whatever it takes for its gateway. */
#define DRIVER_GATEWAY_MAC ((struct mac){.bytes = {0x0e, 't', 'r', 0, 0, 1}})

struct driver_network {
	struct id128 id;
	uint32_t vni; /* 1..2^24-1 */
	uint32_t mtu; /* of the overlay: what a container's link gets */
	bool routed;  /* mode l3: the host routes; else mode l2, a segment. Never changes */
	/* Of a routed network alone: */
	bool internal;	      /* no way in or out of it but the host's own */
	struct ip own4, own6; /* this host's own addresses in it: what it speaks with to containers elsewhere; family 0: none */
	unsigned pool_count;
	struct prefix pools[DRIVER_POOLS_MAX];
};

/* A network of mode l2 with a link of ours in the host's namespace: what comes out of it is forwarded and translated as from a
 * container of mode l3. */
struct driver_exit {
	char ifname[DRIVER_IFNAME_SIZE];
	uint32_t vni;
	unsigned pool_count;
	struct prefix pools[DRIVER_POOLS_MAX];
};

/* An endpoint of this host. */
struct driver_endpoint {
	struct id128 network;
	char id[DRIVER_ENDPOINT_ID_MAX + 1];
	struct mac mac;
	struct ip ip4, ip6;		    /* family 0: none */
	char peer_name[DRIVER_IFNAME_SIZE]; /* name of the container's end, made down and without address */
	/* Namespace that the container's end is made in; 0: the host's, from where it is the engine's to move. Used while `make`
	 * is true: borrowed until put_endpoint with false, or del_endpoint, has been followed by a sync. */
	int peer_netns;
};

/* An endpoint on another host. Key: (network, mac). */
struct driver_remote {
	struct id128 network;
	struct mac mac;
	struct ip ip4, ip6;
	struct ip vtep;
	uint32_t hostno; /* of the host that has it */
};

enum driver_link_state {
	DRIVER_LINK_ABSENT,  /* no pair: never made, or the container's namespace ended and took it along */
	DRIVER_LINK_IN_HOST, /* pair there, container's end in the host's namespace */
	DRIVER_LINK_AWAY,    /* pair there, container's end in another namespace */
};

struct driver_drift { /* found different from desired at the last full comparison, before it was put right */
	unsigned missing, foreign, different;
};

struct driver_counters {
	uint64_t syncs, resyncs, messages, repairs, overruns /* ENOBUFS */, dump_restarts, reaped;
	uint64_t announced;		       /* frames that told containers of another MAC of an address */
	unsigned networks, endpoints, remotes; /* desired */
	struct driver_drift last_drift;
};

struct driver;

struct driver_ops {
	const char *name;		 /* "vxlan" */
	void (*close)(struct driver *d); /* leaves the kernel as it is */

	void (*put_network)(struct driver *d, const struct driver_network *network); /* added or changed */
	void (*del_network)(struct driver *d, const struct id128 *network);	     /* with all that belongs to it */
	/* A pair is made for an endpoint only while `make` is true; afterwards a pair that went with its namespace stays away
	 * (an endpoint without a link is told by endpoint_state). */
	void (*put_endpoint)(struct driver *d, const struct driver_endpoint *endpoint, bool make);
	void (*del_endpoint)(struct driver *d, const struct id128 *network, const char *id);
	void (*put_remote)(struct driver *d, const struct driver_remote *remote);
	void (*del_remote)(struct driver *d, const struct id128 *network, const struct mac *mac);
	/* Hosts that have the network: broadcast goes to each (head-end replication). The whole list each time. */
	void (*set_flood)(struct driver *d, const struct id128 *network, const struct ip *vteps, size_t count);
	/* Members of the cluster: VXLAN with our VNIs from anyone else is dropped and counted. The whole list, ourselves not
	 * needed. */
	void (*set_members)(struct driver *d, const struct ip *vteps, size_t count);
	/* The host is somebody else now, with another number: no network is desired any more. */
	void (*start_over)(struct driver *d, uint32_t hostno);
	/* Mode l3's driver alone. The whole list each time. */
	void (*set_exits)(struct driver *d, const struct driver_exit *exits, size_t count);
	/* While held, kernel rows of remotes that nobody desires are kept (after a start, until records are complete). */
	void (*hold_removals)(struct driver *d, bool hold);

	/* Compares and applies what put/del/set made dirty. An error names the object; the rest is still applied. Errors of one
	 * endpoint can be asked for by endpoint_error. */
	int (*sync)(struct driver *d, struct err *err);
	/* Dumps everything, compares everything, then syncs: after a start, an overrun, every 60 s. */
	int (*resync)(struct driver *d, struct err *err);
	/* Deletes links that were marked for it (sync only takes them down and out of their bridge: a synchronous delete waits
	 * 16-20 ms for RCU, dataplane.md 6.4). Returns how many are left. */
	int (*reap)(struct driver *d, struct err *err);

	/* A descriptor that becomes readable when the kernel says something changed, and what to do then: reads all notices,
	 * updates what is known, marks dirty what differs. Returns true when sync or resync is wanted. */
	int (*notify_fd)(const struct driver *d);
	bool (*drain)(struct driver *d);

	/* The pair is there, as far as notices read until now tell (sync reads them): asks the kernel nothing. */
	bool (*endpoint_there)(struct driver *d, const struct id128 *network, const char *id);
	/* The index of the container's end in its namespace; 0: the kernel has not told yet. */
	uint32_t (*endpoint_peer)(struct driver *d, const struct id128 *network, const char *id);
	/* Mode l3: the name of the host's end, which is in the host's namespace. False: no such link there. */
	bool (*endpoint_ifname)(struct driver *d, const struct id128 *network, const char *id, char ret_name[DRIVER_IFNAME_SIZE]);
	enum driver_link_state (*endpoint_state)(struct driver *d, const struct id128 *network, const char *id);
	/* The last failure to make this endpoint real; false when there is none. */
	bool (*endpoint_error)(struct driver *d, const struct id128 *network, const char *id, struct err *ret_err);
	const struct driver_counters *(*counters)(const struct driver *d);
	/* What of the host's stands in the way of its networks, and what to do; "" for nothing. Looked for at each full
	 * comparison and when networks come or go. */
	const char *(*warning)(const struct driver *d);
	/* Dropped by the driver's filters, from the kernel's counters. Mode l2: frames of no member, and such as a workload
	 * forged; mode l3: packets with another's source, and such as went from network to network. */
	int (*guard_counters)(struct driver *d, uint64_t *ret_foreign, uint64_t *ret_forged, struct err *err);
	/* Removes everything of ours from the kernel: links by tag, tables, the fabric namespace (leave, uninstall). */
	int (*purge)(struct driver *d, struct err *err);
};

struct driver {
	const struct driver_ops *ops;
};

#endif

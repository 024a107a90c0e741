/* The daemon's state and who may call what. One loop thread owns everything here; the worker sees only what a job carries.
 *
 *   cluster.c          who we are, the UDP socket, gossip's effects
 *   join.c             tokens, joining, leaving
 *   hostno.c           host numbers: given to newcomers, spares, who may have addresses
 *   udp.c              what the kernel knows of the socket: ages, drops, refusals; packets out, in batches
 *   stream.c           the TCP side of gossip's port
 *   claims.c           asking a name's home before a network or pool is made
 *   custody.c          ipam's effects and timers: from its ordered actions to store, gossip and answers
 *   standing.c         whether our state was set back or copied: marks, and holding addresses meanwhile
 *   freeze.c           the switch that stops reading what others publish
 *   estate.c           forgetting a host: the call, decrees, our own end; what `trestle ipam check` finds
 *
 *   definitions.c      networks' and pools' definitions, as all hosts that use them publish them
 *   networks.c         definitions of networks: ours, others', winner, VNI
 *   network_obtain.c   finds a network or makes one
 *   network_calls.c    Create and DeleteNetwork; the engine networks of this host
 *   pools.c            definitions of pools: ours, others', known to the core or not
 *   pool_obtain.c      finds a pool or makes one
 *   pool_leases.c      what the leases in a pool are for, and those that nothing uses
 *   pool_calls.c       the IPAM half of the plugin
 *   routes.c           this host's routes, which a subnet must not overlap
 *   underlay.c         how large a packet the hosts' network carries
 *   neighbours.c       how full the kernel's neighbour tables are
 *
 *   endpoints.c        this host's endpoints: made, published, removed; collecting what an engine forgot
 *   endpoint_calls.c   what engines ask of them: Create, Join, Leave, Delete
 *   addresses.c        which endpoints have an address
 *   hostaddr.c         this host's own addresses in networks of mode l3
 *   hostend.c          this host's own end of networks of mode l2
 *   segments.c         endpoints of other hosts, per network
 *   datapath.c         desired state to the driver, on the worker
 *
 *   workloads.c        what trestle-cni attached: names, saved form, life
 *   workload_add.c     ADD
 *   workload_calls.c   the other calls of trestle-cni
 *   workload_routes.c  what the container's side of an attachment is to be
 *   workload_link.c    brings that about, on the worker
 *   tombstones.c       deletes what was deleted while no daemon ran
 *
 *   api.c              the control API: who serves a verb; tokens, joining, leaving
 *   api_status.c       what this host is and counts, and what its operator should hear of
 *   api_show.c         members, endpoints, networks, pools, keys
 *   api_networks.c     making and removing networks by name
 *   api_values.c       values that answers are made of
 *
 *   node.c             construction in order, timers, end
 *
 * Around the node, and without knowledge of the rest of it:
 *
 *   main.c             starts the node, runs the loop
 *   options.c          flags and the configuration file
 *   store.c            the two files, as keys and values
 *   records.c          the bytes of what is saved and published
 *   outbox.c           saves and effects in their order
 *   worker.c           the worker's thread
 *   waiters.c          who waits for the end of something
 *   absent.c           what a static program must not look up
 *   purge.c            `trestled --purge`, where no daemon runs
 */
#ifndef DAEMON_NODE_INTERNAL_H
#define DAEMON_NODE_INTERNAL_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "base/log.h"
#include "base/uthash.h"
#include "control/control.h"
#include "daemon/addresses.h"
#include "daemon/options.h"
#include "daemon/outbox.h"
#include "daemon/records.h"
#include "daemon/store.h"
#include "daemon/udp_internal.h"
#include "daemon/worker.h"
#include "driver/driver.h"
#include "gossip/gossip.h"
#include "ipam/ipam.h"
#include "plugin/plugin.h"

/* Kinds of gossip_tell messages. */
enum tell_kind { TELL_IPAM = 1, TELL_CLAIM = 2, TELL_CLAIM_ANSWER = 3, TELL_CLAIM_DROP = 4 };

/* First byte of a gossip record's key. */
enum record_kind { RECORD_NETWORK = 'N', RECORD_POOL = 'P', RECORD_CUSTODY = 'C', RECORD_ENDPOINT = 'E', RECORD_DECREE = 'F' };

#define TOPIC_CLUSTER 0
#define ENDPOINT_KEY_SIZE 9 /* of a record: the kind, 8 bytes of a hash */
#define IPV6_MTU_MIN 1280   /* RFC 8200 section 5; the kernel takes IPv6 off a link with less */
#define WORKLOAD_KEY_SIZE (CONTROL_CNI_CONFIG_MAX + CONTROL_CNI_ID_MAX + DRIVER_IFNAME_SIZE + 3)
#define FIRST_EPOCH 1		       /* of a host in a cluster */
#define OTHER_NUMBERS_MAX 8	       /* of one host that are shown, and forgotten with it */
#define FIRST_HOSTNO 1		       /* of the host that makes a cluster */
#define ROWS_GRACE_MS (10 * 60 * 1000) /* a dead host's rows stay so long: they lead only to a host that may be back */
#define HOLD_MAX_MS 30000	       /* after a start, rows of unknown endpoints are kept at most so long */

struct network {
	struct id128 id;
	uint64_t topic;
	struct network_def def; /* the one that counts */
	bool mine;		/* an engine or the operator here uses it: we publish it, and keep what others have in it */
	bool pinned;
	unsigned docker_count; /* engine networks of this host that stand for it */
	unsigned local_count;  /* endpoints of this host */
	unsigned host_count;   /* other hosts that publish it */
	bool programmed;       /* the driver knows it */
	struct own_address {   /* mode l3: this host's own addresses, hostaddr.c; IPv4, IPv6 */
		struct ip address;
		struct id128 pool;
		uint64_t ticket;   /* asked for */
		uint64_t again_ms; /* not to be asked for before */
	} own[2];
	struct host_end *host_end; /* mode l2, hostend.c; NULL: none here */
	UT_hash_handle hh, hh_topic;
};

struct docker_network {
	char id[PLUGIN_ID_MAX + 1];
	struct docker_network_state state;
	UT_hash_handle hh;
};

struct pool {
	struct id128 id;
	struct pool_state state;
	bool joined;	     /* the ipam core knows it */
	bool published;	     /* it is on disk, and others hear of it */
	unsigned host_count; /* other hosts that publish it */
	bool wanted_elsewhere;
	uint64_t idle_ms; /* nobody needs it since, and this host holds all of it; 0: not so */
	UT_hash_handle hh;
};

struct endpoint {
	char id[PLUGIN_ID_MAX + 1];
	struct endpoint_state state;
	struct network *network;
	bool ready;    /* the kernel has it */
	bool bound[2]; /* it holds the lease of its IPv4, IPv6 address */
	bool closing;  /* on its way out: unpublished, rows going */
	bool make;     /* the driver may (re)make its pair */
	enum driver_link_state link;
	uint64_t idle_since_ms; /* 0 = in use; else when it was first seen unused */
	bool creating;
	bool unproven;			      /* read back at a start, and not asked about since */
	struct workload *workload;	      /* made by CNI; NULL: the engine's, or: */
	struct host_end *host_end;	      /* the host's own; NULL: a container's */
	int netns_fd;			      /* of the container, while its pair is made; -1 = none */
	char host_ifname[DRIVER_IFNAME_SIZE]; /* mode l3: the host's end, once it was seen */
	struct asker *waiting;		      /* who is told when it is made, or not */
	struct waiter *gone;		      /* who waits for its end */
	bool publish_waits;		      /* in node->unpublished */
	struct endpoint *same_address[2];     /* addresses.h: the next that has its IPv4, IPv6 address */
	struct endpoint *prev, *next;
	UT_hash_handle hh;
};

struct remote {
	struct remote_key {
		uint32_t origin;
		uint8_t hash[ENDPOINT_KEY_SIZE - 1];
	} key;
	struct endpoint_record record;
	bool shadowed4, shadowed6; /* another endpoint has this address and wins */
	UT_hash_handle hh, hh_ip4, hh_ip6;
};

/* When a record came, until the log says so. */
struct arrival {
	uint64_t us;
	uint32_t origin;
	char short_id[ENDPOINT_SHORT_MAX + 1];
};
#define ARRIVALS_MAX 32

struct segment_host {
	uint32_t hostno;
	unsigned endpoints, own;    /* records; of these, of the host's own addresses */
	const struct remote *is_at; /* one of the latter; NULL: none */
	UT_hash_handle hh;
};

struct segment { /* what other hosts have in one network */
	uint64_t topic;
	struct remote *remotes, *by_ip4, *by_ip6;
	struct segment_host *hosts;
	unsigned shadows;
	unsigned host_addresses; /* of the remotes: hosts' own */
	UT_hash_handle hh;
};

struct host { /* a member, as far as rows need it */
	uint32_t hostno;
	enum gossip_state state;
	uint64_t since_ms;
	struct ip vtep;
	bool hidden; /* dead for long, or left: its rows are out of the kernel */
	UT_hash_handle hh;
};

/* What the lease of an address given to another CNI plugin is. */
struct workload_lease {
	struct id128 pool;
	struct prefix address; /* unset: none of this family */
	struct ip gateway;
};

struct workload_route {
	struct prefix to;
	struct ip gateway; /* family 0: none */
	bool onlink;	   /* the gateway lies in no network of the link's */
	bool yields;	   /* to another link's route to there: a container has one default route */
};

/* One attachment of CNI: an endpoint of ours, or addresses for an interface that another plugin makes. */
struct workload {
	char endpoint_id[40];
	char key[WORKLOAD_KEY_SIZE]; /* "config:container:interface"; none of them holds ':' */
	char config[CONTROL_CNI_CONFIG_MAX + 1], container[CONTROL_CNI_ID_MAX + 1], ifname[DRIVER_IFNAME_SIZE];
	bool addresses_only;
	bool done;    /* the runtime was told, or is about to be: what is not done at a start is undone */
	bool closing; /* DEL came while it is made */
	uint64_t netns_dev, netns_ino;
	uint32_t mtu;
	bool no_exit; /* asked for none */
	bool exits;   /* mode l2: its way out is this host's end of: */
	struct id128 exit_network;
	struct endpoint *ep;		 /* NULL with addresses_only, and before there is one */
	struct workload_lease leases[2]; /* IPv4, IPv6; with addresses_only */
	unsigned route_count;
	struct workload_route *routes;
	json_t *about;		  /* {"name", "labels", "aliases"}: for people */
	struct workload_add *add; /* in progress */
	struct waiter *gone;	  /* who waits for the end of one that is being made */
	UT_hash_handle hh;
};

struct asker;
struct waiter;
struct hostno_grant;
struct ticket;
struct claim;
struct pending_claim;
struct met_waiter;
struct datapath;

struct forget;

/* See freeze.c. */
struct freeze {
	bool on;
	uint64_t since_s; /* wall clock, for people */
	char reason[CONTROL_REASON_MAX + 1];
	struct missed *missed;
};

/* See neighbours.c. */
struct neighbour_table {
	uint32_t used, limit; /* limit 0: not looked at yet */
	uint64_t full;
	bool high; /* it is to be warned of */
};
struct neighbours {
	struct neighbour_table tables[2]; /* IPv4, IPv6 */
	bool looking, failed;
	bool counted; /* the last look read all rows */
	uint64_t looked_ms;
};

/* See standing.c. */
struct standing {
	struct gossip_mark mark, base;
	bool proven;   /* the boot file is of this boot and knows no later mark */
	bool set_back; /* for good */
	enum gossip_standing now;
	uint32_t by; /* who said so */
};

struct node {
	struct options options;
	struct event_base *base;
	struct store *store;
	struct worker *worker;
	struct outbox *outbox;
	bool new_boot;
	uint64_t start_ms;

	struct identity identity;
	struct cluster_state cluster;
	struct hostno_grant *grants; /* numbers this host gave to others */
	struct id128 hostnos_seen;   /* the pool of host numbers, which we take part in */
	uint64_t hostnos_until_ms;   /* at the latest */
	uint64_t hostnos_ms;	     /* from then on; 0 = we do, or it is not known */
	unsigned grants_unspread;    /* of these, hosts that too few others know */
	struct gossip *gossip;
	int udp_fd;
	int host_netns_fd;	   /* of the namespace that we run in */
	struct driver_exit *exits; /* as the driver was told */
	size_t exit_count;
	struct udp_measure udp_measure;
	uint64_t measured_ms;
	struct event *udp_event, *gossip_timer;
	struct udp_out out;
	struct event *out_event;    /* sends what waits, behind the callback that made it */
	bool out_follows;	    /* that one sends it itself */
	struct event *udp_writable; /* and what waits for room */
	uint64_t gossip_due_ms;	    /* when gossip_timer is to fire */
	struct streams *streams;
	struct host *hosts;
	struct join *join;    /* in progress; NULL otherwise */
	struct id128 sponsor; /* who let us in, since this start */
	struct {
		uint64_t boot, source_boot; /* see joiner.h: of the first core after that */
	} welcome;
	bool leaving, left;
	bool failed;		/* the loop was ended by an error */
	struct forget *forgets; /* calls that wait */

	struct claim *claims;		      /* as home */
	struct pending_claim *pending_claims; /* as asker */
	uint32_t next_claim;
	struct met_waiter *met_waiters;

	struct standing standing;
	struct freeze freeze;
	struct ipam *ipam;
	struct event *ipam_timer;
	struct ticket *tickets;
	uint64_t next_ticket;

	struct network *networks, *networks_by_topic;
	struct docker_network *docker_networks;
	struct pool *pools;
	struct endpoint *endpoints;
	struct address_users *addresses; /* of the endpoints */
	struct endpoint *unpublished;	 /* made, and told to nobody yet */
	struct event *publish_timer;
	struct workload *workloads;
	struct tombstone *tombstones; /* acted on at this moment */
	uint64_t last_tombstones_ms;
	struct segment *segments;
	struct arrival arrivals[ARRIVALS_MAX];
	unsigned arrival_count;
	unsigned remote_count;
	uint64_t duplicates_seen;

	struct datapath *datapath;
	struct neighbours neighbours;
	struct event *housekeeping;
	uint64_t last_housekeeping_ms, next_join_ms;
	unsigned housekeepings;

	struct plugin *plugin;
	struct control *control;
};

static inline uint64_t first_bytes(const struct id128 *id)
{
	uint64_t topic = 0;
	for (int i = 0; i < 8; i++)
		topic = topic << 8 | id->bytes[i];
	return topic;
}

/* A network's endpoints are kept by the hosts that are part of it. */
static inline uint64_t topic_of_network(const struct id128 *id)
{
	return first_bytes(id) | GOSSIP_TOPIC_SUBSCRIBED;
}

/* Custody of addresses is kept by all. */
static inline uint64_t topic_of_pool(const struct id128 *id)
{
	uint64_t topic = first_bytes(id) & ~GOSSIP_TOPIC_SUBSCRIBED;
	return topic ? topic : 1; /* 0 is the cluster's */
}

void random_bytes(void *ctx, void *buf, size_t len);
struct id128 random_id(void);
/* "n2 (host number 7)" or "host number 7" when unknown. */
const char *host_label(struct node *node, uint32_t hostno, char *buf, size_t size);

/* cluster.c */
int cluster_start(struct node *node, struct err *err);	    /* identity, cluster state with the new epoch, socket */
int cluster_run_gossip(struct node *node, struct err *err); /* core restored and started */
void cluster_stop(struct node *node);
void cluster_poke(struct node *node); /* after anything that may have changed gossip's next deadline */
void cluster_save(struct node *node);
struct host *cluster_host(struct node *node, uint32_t hostno);
void cluster_publish(
	struct node *node, uint64_t topic, const void *key, size_t key_len, const void *val, size_t len); /* val NULL: withdraw */
/* About this network or pool. */
void cluster_publish_of(
	struct node *node, const struct id128 *id, uint64_t topic, const void *key, size_t key_len, const void *val, size_t len);

/* What another host publishes, as it came or noted before. */
void cluster_record(
	struct node *node, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len);
/* Came by a stream. Whether it is proven to be a member's. */
bool cluster_packet(struct node *node, const struct gossip_addr *from, const void *packet, size_t len);
socklen_t cluster_to_sockaddr(const struct gossip_addr *addr, struct sockaddr_storage *ss);
void cluster_from_sockaddr(const struct sockaddr_storage *ss, struct gossip_addr *ret);

void cluster_make(struct cluster_state *c); /* the first of a cluster of its own */
int cluster_replace_state(struct node *node, struct store_change *saves, struct err *err);
void cluster_drop_core(struct node *node);
void cluster_tell_members(struct node *node); /* the driver: whose frames may come in */
void cluster_send(void *ctx, const struct gossip_addr *to, const void *packet, size_t len);
void cluster_send_stream(void *ctx, const struct gossip_addr *to, const void *packet, size_t len);

/* join.c */
bool cluster_alone(const struct node *node);
int cluster_token(struct node *node, int64_t ttl_s, char ret_text[512], int64_t *ret_expires_s, struct err *err);
/* fn is called once: err NULL = joined. */
int cluster_join(
	struct node *node, const char *token_text, void (*fn)(void *arg, const struct err *err), void *arg, struct err *err);
/* Hands addresses over, says goodbye, becomes the first host of a cluster of its own, with a new identity. Then fn. */
int cluster_leave(struct node *node, void (*fn)(void *arg, const struct err *err), void *arg, struct err *err);
/* Becomes the first host of a cluster of its own, with a new identity, and says nothing to the old one. */
void cluster_start_over(struct node *node, void (*fn)(void *arg, const struct err *err), void *arg);
/* False: nobody is joining, the packet is for the core. */
bool join_packet(struct node *node, const struct gossip_addr *from, const void *packet, size_t len, uint64_t now);
void join_stop(struct node *node);

/* hostno.c */
int hostnos_restore(struct node *node, struct err *err); /* before the core starts; then hostnos_start */
int hostnos_start(struct node *node, struct err *err);
void hostnos_stop(struct node *node);
void hostnos_turn(struct node *node, uint64_t now);
void hostnos_look(struct node *node); /* after the core's turn: who is known to a majority now */
void hostno_look(struct node *node, const struct id128 *host_id);
void hostnos_wait(struct node *node);				       /* somebody joins: not now */
void hostnos_pool_seen(struct node *node, const struct pool_def *def); /* the pool of host numbers became known */
unsigned hostnos_spare(struct node *node);			       /* that this host can give away by itself */
uint32_t hostno_admit(void *ctx, const struct id128 *host_id);

/* stream.c: gossip's port over TCP, where UDP does not pass */
int streams_open(struct node *node, struct err *err);
/* A connection that is there already, which does not block; it takes fd. */
void streams_adopt(struct node *node, int fd, const struct gossip_addr *peer, bool inbound);
void streams_close(struct node *node);
void streams_send(
	struct node *node, const struct gossip_addr *to, const void *packet, size_t len); /* its answer: cluster_packet */
/* True: a connection waits for this answer, and went there. */
bool streams_answer(struct node *node, const struct gossip_addr *to, const void *packet, size_t len);
uint64_t streams_refused(const struct node *node);

/* claims.c */
/* patient: waits for what another is making, and is told NULL when that takes too long */
/* At once, or when this host has been compared with another one: fn may make what is not known then. err: it has not in time. */
void claims_when_met(struct node *node, void (*fn)(void *arg, const struct err *err), void *arg);
void claim_name(struct node *node, const char *key, bool patient, const void *mine, size_t len,
	void (*fn)(void *arg, const void *winner, size_t len), void *arg);
void claims_forget(struct node *node, const char *key, bool mine); /* what was made under it, by us or not, is gone */
void claims_told(struct node *node, uint32_t from, uint8_t kind, const void *body, size_t len);
void claims_tick(struct node *node, uint64_t now_ms);
void claims_drain(struct node *node);
void claims_free(struct node *node);

/* custody.c */
int custody_start(struct node *node, struct err *err); /* core made and restored */
void custody_begin(struct node *node);		       /* after gossip runs */
void custody_drain(struct node *node);		       /* ends every open request */
void custody_stop(struct node *node);
void custody_poke(struct node *node);
uint64_t custody_ask(
	struct node *node, const struct ipam_want *want, void (*fn)(void *arg, const struct ipam_result *result), void *arg);
void custody_abandon(struct node *node, uint64_t ticket); /* fn will not be called; what is granted is given back */
void custody_record(struct node *node, uint32_t origin, const void *key, size_t key_len, const void *val, size_t len);
void custody_feed_pool(struct node *node, const struct id128 *pool); /* replays what others published of it */
/* A sentence for a result that is not a grant. */
void custody_explain(
	struct node *node, const struct ipam_result *result, const struct ip *asked, const struct prefix *pool, struct err *err);

/* standing.c */
int standing_start(struct node *node, struct err *err);
void standing_freeze(struct node *node); /* the switch was turned */
void standing_begin(struct node *node);	 /* before gossip_start, the ipam core is there */
void standing_new_identity(struct node *node);
void standing_change(struct node *node);		/* right before a durable save of custody, */
void standing_changed(struct node *node);		/* and right behind it */
void standing_set_back(struct node *node, uint32_t by); /* a later fact of ours is published, or a later mark known, there */
void standing_told(void *ctx, enum gossip_standing standing, uint32_t by); /* gossip's */
const char *standing_sentence(struct node *node, char *buf, size_t size);  /* NULL: nothing to say */

/* estate.c */
void estate_forgotten(struct node *node, uint32_t by);			 /* a member says that we are */
void estate_decree(struct node *node, const struct ipam_decree *decree); /* the ipam core's */
void estate_record(struct node *node, uint32_t origin, const void *val, size_t len);
bool estate_collects(struct node *node);		   /* this host is an heir whose decree is not done */
bool estate_is_buried(struct node *node, uint32_t hostno); /* forgotten: what it published counts no more */
void estate_forget(struct node *node, struct control_call *call, json_t *body);
json_t *estate_check(struct node *node);
void estate_stop(struct node *node);

/* definitions.c */
typedef void definition_fn(void *ctx, const struct gossip_member *publisher, const void *val, size_t len);
void definition_publish(
	struct node *node, enum record_kind kind, const struct id128 *id, const void *val, size_t len); /* val NULL: withdraw */
/* What other members say, but for those that left. */
void definitions_of_others(struct node *node, enum record_kind kind, const struct id128 *id, definition_fn *fn, void *ctx);

/* networks.c */
enum network_mode { NETWORK_MODE_ANY, NETWORK_MODE_L2, NETWORK_MODE_L3 };
int networks_start(struct node *node, struct err *err);
void networks_stop(struct node *node);
void networks_publish(struct node *node);
struct network *network_find(struct node *node, const char *name_or_id); /* lowest id of that name */
struct network *network_by_id(struct node *node, const struct id128 *id);
struct network *network_by_topic(struct node *node, uint64_t topic);
void network_changed(struct node *node, const struct id128 *id); /* somebody's definition came or went */
void network_keep(struct node *node, struct network *network);	 /* save and publish as ours, as it is now */
const char *network_mode_name(const struct network_def *def);	 /* "l2", "l3" */
enum network_mode network_mode_parse(const char *text);		 /* NULL: ANY */
void networks_subscribe(struct node *node);			 /* to the records of those of this host, before gossip starts */
void network_unuse(struct node *node, struct network *network);	 /* after docker_count, pinned or local_count fell */
void networks_collect(struct node *node);			 /* at a start: the same for all */
const void *network_claimed(struct node *node, const char *name, void *buf, size_t size, size_t *ret_len);
uint32_t network_some_host(struct node *node, const struct network *network); /* another one that is part of it, 0 = none */
bool network_conflict(
	struct node *node, const struct network *network, char *buf, size_t size); /* a sentence when its name or VNI is shared */

/* network_obtain.c */
struct network_spec {
	char name[NETWORK_NAME_MAX + 1]; /* "" = after its first pool */
	enum network_mode mode;		 /* ANY: that of one that exists, `routed` for one that is made */
	bool routed;
	unsigned pool_count;
	struct prefix pools[NETWORK_POOLS_MAX];
	uint32_t mtu, vni; /* 0 = automatic */
	bool internal;
};
void network_obtain(struct node *node, const struct network_spec *spec,
	void (*fn)(void *arg, struct network *network, const struct err *err), void *arg);
/* Whether a request for these subnets gives the network the first one of its family: it shares another with it. */
bool network_may_gain(const struct network *n, const struct network_spec *spec, const struct prefix *prefix);

/* network_calls.c */
struct docker_network *docker_network_find(struct node *node, const char *id);
void networks_create(void *ctx, struct plugin_call *call, const struct plugin_create_network *req);
void networks_delete(void *ctx, struct plugin_call *call, const char *network_id);

/* pools.c */
int pools_start(struct node *node, struct err *err);
void pools_stop(struct node *node);
void pools_publish(struct node *node);
void pools_tick(struct node *node);
void pools_join_all(struct node *node); /* also those that nobody here uses */
struct pool *pools_find(struct node *node, enum pool_space space, const struct prefix *prefix);
struct pool *pool_by_id(struct node *node, const struct id128 *id);
bool pool_in_use(const struct pool *pool);
void pool_totals(struct node *node, const struct pool *pool, struct ipam_totals *ret_totals); /* also where it is not joined */
const char *pool_space_name(enum pool_space space);
void pool_keep(struct node *node, struct pool *pool);
void pool_unuse(struct node *node, struct pool *pool);
void pool_changed(struct node *node, const struct id128 *id); /* somebody's definition came or went */
void pool_asked(struct node *node, const struct id128 *id);
void pool_join_core(struct node *node, struct pool *pool);
const void *pool_claimed(struct node *node, const char *key, void *buf, size_t size, size_t *ret_len);

/* pool_obtain.c */
struct pool_spec {
	enum pool_space space;
	uint8_t family;
	struct prefix prefix; /* unset: choose */
	uint8_t length;	      /* with prefix unset: of the pool; 0 = default */
	const char *name;     /* NULL or "": not tied */
};
/* fn is called once, also from within: with a pool that the core knows, or with err. */
void pool_obtain(struct node *node, const struct pool_spec *spec, void (*fn)(void *arg, struct pool *pool, const struct err *err),
	void *arg);

/* pool_leases.c */
void pools_reserve_again(struct node *node); /* gateways and auxiliary addresses that a reboot has cleared */
/* A network's gateway or auxiliary address: when a pool of ours leases it here, no endpoint gets it, and hosts share it. */
void pools_reserve(struct node *node, const struct prefix *pool, const struct ip *ip, bool gateway);
/* Gives back those of a pool (NULL: of all) that are over. `is_over` changes nothing; NULL: all are. */
void leases_end(
	struct node *node, const struct id128 *pool, bool (*is_over)(void *ctx, const struct ipam_lease *lease), void *ctx);
/* What was given under this label and nothing was made with. */
void leases_end_unused(struct node *node, const struct id128 *pool, const char *owner);
void pools_collect_leases(struct node *node, uint64_t now_ms);
void pools_free_orphans(struct node *node); /* at a start, when endpoints and workloads are there */

/* pool_calls.c */
void pools_request(void *ctx, struct plugin_call *call, const struct plugin_request_pool *req);
void pools_release(void *ctx, struct plugin_call *call, const char *pool_id);
void pools_request_address(void *ctx, struct plugin_call *call, const struct plugin_request_address *req);
void pools_release_address(void *ctx, struct plugin_call *call, const char *pool_id, const struct ip *address);

/* endpoints.c */
int endpoints_start(struct node *node, struct err *err);
void endpoint_record_key(const char *id, uint8_t key[ENDPOINT_KEY_SIZE]);
void endpoints_publish(struct node *node);
void endpoint_remove(
	struct node *node, struct endpoint *ep, void (*fn)(void *arg), void *arg); /* fn: when its rows are gone; may be NULL */
/* One that is not on its way out. */
struct endpoint *endpoint_with_ip(struct node *node, const struct id128 *network, const struct ip *ip);
/* NULL: of every engine network. */
void endpoints_remove_all_of(struct node *node, const char *docker_network, void (*fn)(void *arg), void *arg);
struct endpoint_want {
	const char *id;
	struct network *network;
	const char *docker_network; /* of an engine, which moves the pair's end and names it; or: */
	struct workload *workload;  /* whose pair's end is made where it belongs, under its final name; or: */
	struct host_end *host_end;
	const char *ifname; /* NULL: one is chosen */
	struct mac mac;	    /* zero: one of ours */
	struct prefix address4, address6;
	const char *sandbox; /* NULL: none yet */
	int netns_fd;	     /* borrowed until fn; -1: none */
	bool own_lease4, own_lease6;
};
/* fn is called once: err NULL = the kernel has it. The addresses' leases are bound, and released with the endpoint when they are
 * here already. */
void endpoint_make(struct node *node, const struct endpoint_want *want, void (*fn)(void *arg, const struct err *err), void *arg);
/* One that it lacked, leased under its label. */
void endpoint_gain_address(struct node *node, struct endpoint *ep, const struct prefix *address);
struct pool *endpoint_pool(
	struct node *node, const struct network *n, const struct ip *ip); /* the one in use here; NULL: none covers it */
/* The first one of IPv4 (0) or IPv6 (1) that is served here, but for those in `except`, 1 << index. */
struct pool *network_pool(struct node *node, const struct network *n, unsigned which, unsigned except);
/* The network's subnet that it lies in; NULL: in none. */
const struct prefix *network_subnet(const struct network *n, const struct ip *ip);
void endpoints_links_seen(struct node *node); /* fresh `link` members: collect what nobody uses */
void endpoints_stop(struct node *node);

/* endpoint_calls.c */
void endpoints_create(void *ctx, struct plugin_call *call, const struct plugin_create_endpoint *req);
void endpoints_delete(void *ctx, struct plugin_call *call, const char *network_id, const char *endpoint_id);
void endpoints_join(void *ctx, struct plugin_call *call, const char *network_id, const char *endpoint_id, const char *sandbox);
void endpoints_leave(void *ctx, struct plugin_call *call, const char *network_id, const char *endpoint_id);
void endpoints_program(void *ctx, struct plugin_call *call, const char *network_id, const char *endpoint_id);

/* workloads.c */
int workloads_start(struct node *node, struct err *err); /* before endpoints_start */
void workloads_begin(struct node *node);		 /* undoes what was not done, and what was deleted without us */
void workloads_stop(struct node *node);
void workloads_release_addresses(struct node *node);		     /* all that were given to other plugins: their pools go */
struct workload *workload_of(struct node *node, json_t *attachment); /* NULL: not known */
struct workload *workload_new(struct node *node, json_t *attachment, bool addresses_only); /* in the table, with empty `about` */
int workload_adopt(struct node *node, struct endpoint *ep); /* the two of a start find each other; -1: there is none for it */
void workload_save(struct node *node, const struct workload *w);
/* Takes it away with its endpoint or addresses, also while it is made; fn may be NULL. */
void workload_remove(struct node *node, struct workload *w, void (*fn)(void *arg), void *arg);
void workload_ended(
	struct node *node, struct workload *w); /* its making has failed and is undone: drops it and tells who waits */
void workload_endpoint_gone(struct node *node, struct endpoint *ep); /* its endpoint is being removed */
void workload_release(struct node *node, struct workload *w);	     /* its addresses */
void workload_pool_unused(struct node *node, struct pool *p);	     /* unpins it, unless somebody has an address of it */
const char *workload_label(const struct workload *w, char buf[IPAM_OWNER_MAX + 1]); /* owner of its leases */
void workload_describe(const struct workload *w, json_t *endpoint);		    /* members about it; w may be NULL */

/* tombstones.c */
void tombstones_tick(struct node *node, uint64_t now_ms);
/* Acts on word of its deletion, if there is any; then fn. */
void workload_unbury(struct node *node, json_t *attachment, void (*fn)(void *arg), void *arg);

/* workload_calls.c */
void workloads_call(struct node *node, struct control_call *call, const struct control_request *request);

/* workload_routes.c */
struct workload_link;
/* Mode l3: what a container takes for its gateways. They are nobody's: the MAC is set with them. */
extern const struct ip workload_gateways[2];
/* Routes are the caller's to free. */
void workload_fill_link(const struct workload *w, struct workload_link *link);
bool workload_has_default(const struct workload *w, uint8_t family);	  /* a default route of its configuration's */
const struct ip *workload_exit(const struct workload *w, unsigned which); /* mode l2: the gateway of its IPv4, IPv6; NULL: none */

/* hostaddr.c */
#define HOST_SHORT_ID "host" /* of the record of a host's own addresses in a network of mode l3 */
void host_addresses_begin(struct node *node, struct network *network); /* an endpoint is here */
void host_addresses_end(struct node *node, struct network *network);   /* none is any more */
void host_addresses_publish(struct node *node);
void host_addresses_tick(struct node *node);  /* asks again for what was not to be had */
void host_addresses_sweep(struct node *node); /* at a start: leases that a crash left behind */
/* The network in which this address is this host's own; NULL: none. `pool` may be NULL. */
const struct network *host_address_of(const struct node *node, const struct id128 *pool, const struct ip *ip);

/* hostend.c */
#define HOST_END_OWNER "the host's own end"
/* fn when containers can have their way out of the network by this host. It is held for the attachment from here on, whatever fn
 * is told, until the attachment is dropped. */
void host_end_obtain(
	struct node *node, struct workload *w, struct network *network, void (*fn)(void *arg, const struct err *err), void *arg);
void host_end_release(struct node *node, struct workload *w);
const struct prefix *host_end_addresses(const struct network *network); /* IPv4, IPv6; unset: none */
unsigned network_endpoints(const struct network *network);		/* of this host: of containers */
bool host_end_id(const char *endpoint_id);
void host_end_has(struct host_end *end, struct endpoint *ep); /* it is being made */
void host_end_adopt(struct node *node, struct endpoint *ep);  /* read back at a start */
void host_end_lost(struct endpoint *ep);		      /* it is being removed */
void host_end_drop(struct node *node, struct network *n);     /* if nobody uses it any more */
void host_ends_begin(struct node *node);		      /* after workloads_begin */
void host_ends_tick(struct node *node);
void host_ends_stop(struct node *node);

/* workload_add.c */
void workload_add(struct node *node, struct control_call *call, json_t *body, bool addresses_only);

/* workload_link.c: on the worker, in the container's namespace */
struct workload_link {
	char ifname[DRIVER_IFNAME_SIZE], alias[64 + ENDPOINT_ID_MAX];
	struct mac mac;
	uint32_t mtu; /* 0: as it is */
	struct prefix addresses[2];
	bool routed;	/* mode l3: the gateways' MAC is known beforehand */
	uint32_t group; /* 0: as it is */
	unsigned route_count;
	struct workload_route *routes; /* copied */
};
/* Called on the worker. `index` is the interface's; 0: not known. */
int workload_link_set_up(const struct workload_link *link, int netns_fd, uint32_t index, struct err *err);
/* Compares with what is there: ERR_CONFLICT names the first difference. fn is called once, on the loop; netns_fd is borrowed
 * until then. */
void workload_link_check(struct node *node, int netns_fd, const struct workload_link *link,
	void (*fn)(void *arg, const struct err *err), void *arg);
/* The same for setting up what is there already. */
void workload_link_repair(struct node *node, int netns_fd, const struct workload_link *link,
	void (*fn)(void *arg, const struct err *err), void *arg);

/* segments.c */
void segments_record(
	struct node *node, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t len);
bool segments_have(struct node *node, uint32_t origin, uint64_t topic, const void *key, size_t key_len);
struct segment *segment_find(struct node *node, uint64_t topic);
struct remote *segment_with_ip(struct node *node, uint64_t topic, const struct ip *ip);
void segment_program(struct node *node, struct network *network); /* tells the driver all of it */
void segment_program_ip(
	struct node *node, const struct network *network, const struct ip *ip); /* a local endpoint took or left it */
void segments_host_changed(struct node *node, struct host *host);		/* vtep or hidden changed */
void segments_tell_arrivals(struct node *node);
void segment_forget(struct node *node, struct network *network); /* this host is no part of it any more */
void segments_free(struct node *node);
unsigned segment_size(const struct segment *segment); /* endpoints */
bool remote_is_host(const struct remote *remote);     /* no endpoint: the own addresses of a host in mode l3 */

/* datapath.c */
int datapath_start(struct node *node, struct err *err);
int datapath_adopt(struct node *node, struct err *err); /* first comparison, on the calling thread, before the worker is used */
void datapath_hold(struct node *node, bool hold);	/* keep rows that nobody desires */
bool datapath_holds(const struct node *node);
void datapath_stop(struct node *node);
void datapath_put_network(struct node *node, const struct network *network);
void datapath_del_network(struct node *node, const struct id128 *id);
void datapath_put_endpoint(struct node *node, const struct endpoint *ep);
void datapath_del_endpoint(struct node *node, const struct id128 *network, const char *id);
void datapath_put_remote(struct node *node, const struct driver_remote *remote);
void datapath_del_remote(struct node *node, const struct id128 *network, const struct mac *mac);
void datapath_set_flood(struct node *node, const struct id128 *network, const struct ip *vteps, size_t count);
void datapath_set_members(struct node *node, const struct ip *vteps, size_t count);
void datapath_set_exits(struct node *node, const struct driver_exit *exits, size_t count);
/* fn when the kernel agrees with everything put so far, or not about this endpoint (err). id NULL: nothing particular. */
void datapath_commit(
	struct node *node, const struct id128 *network, const char *id, void (*fn)(void *arg, const struct err *err), void *arg);
/* The same, and when the endpoint is there, `then` on the worker: it makes it whole, and is told the index of the container's end
 * in its namespace (0: not known). Behind it the endpoint is not made again, and its namespace is let go. */
void datapath_commit_then(struct node *node, const struct id128 *network, const char *id,
	int (*then)(void *arg, uint32_t peer, struct err *err), void (*fn)(void *arg, const struct err *err), void *arg);
void datapath_look_at_links(struct node *node); /* then endpoints_links_seen */
void datapath_start_over(struct node *node);	/* another cluster, another host number: nothing is desired any more */
const struct driver_counters *datapath_counters(const struct node *node); /* as of the last sync */
uint64_t datapath_last_resync_ms(const struct node *node);
/* Packets that the filters of the two modes have dropped (driver.h, guard_counters). */
struct datapath_drops {
	uint64_t foreign, forged, spoofed, strayed;
};
const struct datapath_drops *datapath_drops(const struct node *node);
const char *datapath_warning(const struct node *node);	  /* what of the host's stands in the way; "" for nothing */
struct mac datapath_tunnel_mac(const struct node *node);  /* of our vxlan devices */
const char *datapath_last_error(const struct node *node); /* "" when the last sync was fine */

/* freeze.c */
int freeze_start(struct node *node, struct err *err);
void freeze_stop(struct node *node);
void freeze_on(struct node *node, struct control_call *call, json_t *body);
void freeze_off(struct node *node, struct control_call *call, json_t *body);
bool freeze_refuses(const struct node *node, struct err *err); /* something new */
/* Whether a record is not to be read now; it is noted. */
bool freeze_misses(
	struct node *node, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len);
bool freeze_sentence(const struct node *node, char *buf, size_t size); /* false: not frozen */
json_t *freeze_json(const struct node *node);			       /* null: not frozen */

/* neighbours.c */
void neighbours_look(struct node *node);					       /* soon, and not too often */
void neighbours_tick(struct node *node);					       /* with each housekeeping */
bool neighbours_sentence(const struct node *node, int table, char *text, size_t size); /* false: there is room */

/* api.c */
extern const struct control_backend api_backend;

/* node.c */
void housekeeping_soon(struct node *node);
void housekeeping_turn(struct node *node, uint64_t now);
/* Calls fn when what was saved so far is on disk. What `id` names may be gone by then. */
void call_behind_saves(struct node *node, const struct id128 *id, void (*fn)(struct node *node, const struct id128 *id));
int node_start(struct node *node, const struct options *options, struct event_base *base, struct err *err);
void node_stop(struct node *node);

#endif

/* Membership and replicated records: the core that the daemon and the simulator share.
 *
 * Sans-IO: no socket, clock, file or thread. Events come in as calls with now_ms (CLOCK_BOOTTIME scale), effects go out through
 * struct gossip_ops. The design and the constants with their sources: the top of gossip.c; rules R1-R6: shards_internal.h. The
 * bytes: docs/wire.md.
 *
 * Records. A *shard* is (origin host, topic). Its origin is its only writer. Topic 0 belongs to the cluster (host records,
 * admissions, definitions). A record is key -> value, opaque to this layer. Topics with GOSSIP_TOPIC_SUBSCRIBED in them are kept
 * by the hosts that subscribe to them, all others by all hosts.
 *
 * Ownership: everything passed to a callback is borrowed for the call. Callbacks may call
 * gossip_put/del/tell/subscribe/unsubscribe, not gossip_free. */
#ifndef GOSSIP_GOSSIP_H
#define GOSSIP_GOSSIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/err.h"
#include "base/id.h"
#include "gossip/identity.h"

#define GOSSIP_KEY_MAX 64      /* bytes of a record's key */
#define GOSSIP_VALUE_MAX 1024  /* bytes of a record's value: one record always fits one packet of 1,200 */
#define GOSSIP_TELL_MAX 1100   /* bytes of one application message */
#define GOSSIP_PACKET_MAX 1200 /* UDP payload, below every sane path MTU: docs/wire.md */
#define GOSSIP_NAME_MAX 63
#define GOSSIP_HOSTNO_MAX 0xfffff /* 20 bits; 0 = not admitted */
#define GOSSIP_MEMBERS_MAX 8192
/* Records in one host's memory, about 100 bytes each: of all hosts together, of one host, of one topic. At a limit a new own
 * record is an error, and one of another host is refused and counted; its shard is asked for again every SHARDS_REFUSED_MS. */
#define GOSSIP_RECORDS_MAX 2000000
#define GOSSIP_RECORDS_HOST_MAX 200000
#define GOSSIP_RECORDS_TOPIC_MAX 1000000
#define GOSSIP_TOPIC_SUBSCRIBED ((uint64_t)1 << 63) /* in a topic: kept by its subscribers alone */
#define GOSSIP_SUBSCRIPTIONS_MAX 32512
#define GOSSIP_PORT_DEFAULT 7956 /* not 7946, which Docker's Swarm and Serf take on the same hosts */

struct gossip;

struct gossip_addr {
	struct ip ip;
	uint16_t port; /* host order */
};

enum gossip_state { GOSSIP_ALIVE, GOSSIP_SUSPECT, GOSSIP_DEAD, GOSSIP_LEFT };
const char *gossip_state_name(enum gossip_state state); /* "alive", "suspect", "dead", "left" */

/* What we know of the way to a host, per direction, from our own packets. */
enum gossip_reach {
	GOSSIP_REACH_BOTH,   /* it answers us */
	GOSSIP_REACH_STREAM, /* it answers us by stream alone: what we send by UDP is lost */
	GOSSIP_REACH_IN,     /* we hear it, and it does not answer us: what we send is lost */
	GOSSIP_REACH_HOST,   /* dead, but its kernel says that nobody listens: the host runs, its daemon does not */
	GOSSIP_REACH_NONE    /* we hear nothing of it */
};
const char *gossip_reach_name(enum gossip_reach reach); /* "both", "tcp", "in", "no daemon", "none" */

struct gossip_member {
	uint32_t hostno;
	struct id128 host_id;
	uint32_t epoch, incarnation;
	enum gossip_state state;
	uint64_t since_ms; /* of the state */
	struct gossip_addr addr;
	struct ip vtep; /* where it takes VXLAN */
	char name[GOSSIP_NAME_MAX + 1];
	uint8_t wire;	      /* the wire version that we send to it */
	uint32_t rtt_us;      /* smoothed, 0 = never measured */
	uint64_t heard_ms;    /* when anything authentic came from it, 0 = never */
	uint64_t answered_ms; /* when it last answered something of ours, 0 = never */
	enum gossip_reach reach;
	bool self;
	uint64_t twin_ms; /* when it was last seen that two hosts speak with this identity; 0 = never */
};

struct gossip_config {
	const struct identity *identity; /* borrowed for the life of the core */
	struct id128 cluster_id;
	uint8_t cluster_key[CLUSTER_KEY_SIZE];
	uint32_t hostno;   /* ours, 1..GOSSIP_HOSTNO_MAX */
	uint32_t epoch;	   /* persisted, +1 before the first packet of a start that cannot prove continuity */
	uint64_t boot_tag; /* random per process start */
	char name[GOSSIP_NAME_MAX + 1];
	struct gossip_addr addr; /* as others reach us */
	struct ip vtep;
	uint8_t wire_max; /* 0, or to act as a later release, which speaks this wire version too and says what nobody knows yet */
	/* Set at the first start after being admitted, when this identity never ran in this cluster before: who admitted it. From
	 * there it gets to know the others. Zero at any later start. */
	struct id128 source;
	uint64_t source_boot; /* its boot tag, from the welcome; 0 = unknown */
};

/* What a host's own state has come to: `count` rises with each change that it must not forget, `tag` is random for each. */
struct gossip_mark {
	uint64_t count, tag;
};

/* Whether `known` is of a state that `said` does not include. */
bool gossip_mark_outranks(const struct gossip_mark *known, const struct gossip_mark *said);

/* How others know us, see standing.c. */
enum gossip_standing {
	GOSSIP_STANDING_ASKING,	  /* nobody has said yet: act on nothing that others may know better */
	GOSSIP_STANDING_SOUND,	  /* nobody knows of a later state of ours, or there is nobody else */
	GOSSIP_STANDING_ALONE,	  /* no other host answers: unknown */
	GOSSIP_STANDING_SET_BACK, /* our state is older than what others have seen of us */
	GOSSIP_STANDING_TWIN,	  /* somebody else speaks with our identity */
	GOSSIP_STANDING_SILENT	  /* likewise, and it was here first: we say nothing any more */
};

struct gossip_ops {
	void (*send)(void *ctx, const struct gossip_addr *to, const void *packet, size_t len);
	void (*random)(void *ctx, void *buf, size_t len);
	/* A member is new or changed. `old` is the state before (GOSSIP_LEFT for a new one). Never called for ourselves. */
	void (*member)(void *ctx, const struct gossip_member *member, enum gossip_state old);
	/* A record of another host appeared, changed (val) or went (val NULL). Own records do not come back. */
	void (*record)(
		void *ctx, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len);
	/* An application message from an authenticated member: may be lost, doubled, reordered. */
	void (*told)(void *ctx, uint32_t from_hostno, uint8_t kind, const void *body, size_t len);
	/* A host with a valid token asks to be admitted: give it a number, the same for the same host_id, or 0 = cannot now, it
	 * repeats. */
	uint32_t (*admit)(void *ctx, const struct id128 *host_id);
	/* Keep (val) or forget (NULL) what a restart needs to find the others again: members with addresses, admissions, keys'
	 * floor. Durable: it must survive a loss of power; the rest would be learned again. */
	void (*save)(void *ctx, const void *key, size_t key_len, const void *val, size_t len, bool durable);
	/* `send`, or with by_stream `stream`, but not before everything given to `save` is on disk. May be NULL: `save` itself is
	 * durable. */
	void (*send_saved)(void *ctx, const struct gossip_addr *to, const void *packet, size_t len, bool by_stream);
	/* Call gossip_kept(ticket) when everything given to `save` before is on disk: a new cluster key is not used before that.
	 * May be NULL: `save` itself is durable. */
	void (*sync)(void *ctx, uint64_t ticket);
	/* The same packet over a stream to the same address: UDP seems not to get there. May be NULL. What comes back goes to
	 * gossip_stream_packet. An address that a packet came from by stream means that stream. */
	void (*stream)(void *ctx, const struct gossip_addr *to, const void *packet, size_t len);
	/* A member says that we are out of the cluster for good. Once. May be NULL. */
	void (*forgotten)(void *ctx, uint32_t by_hostno);
	/* Our standing changed, by what a member said (0: nobody). May be NULL. */
	void (*standing)(void *ctx, enum gossip_standing standing, uint32_t by_hostno);
	/* Wall clock in Unix seconds, for token expiry only. May be NULL: tokens do not expire (simulator). */
	int64_t (*wall_s)(void *ctx);
};

struct gossip *gossip_new(const struct gossip_config *config, const struct gossip_ops *ops, void *ctx, uint64_t now_ms);
void gossip_free(struct gossip *g);
/* Gives back one saved pair, before gossip_start. */
int gossip_restore(struct gossip *g, const void *key, size_t key_len, const void *val, size_t len, struct err *err);
void gossip_start(struct gossip *g, uint64_t now_ms);

/* A datagram arrived. Anything at all may come: what is refused is counted by reason. */
void gossip_packet(struct gossip *g, const struct gossip_addr *from, const void *packet, size_t len, uint64_t now_ms);
/* Likewise, by a stream. Whether it was a member's, and not one that somebody repeats. */
bool gossip_stream_packet(struct gossip *g, const struct gossip_addr *from, const void *packet, size_t len, uint64_t now_ms);
/* The number that `admit` did not have for this host is there now: the host, which waits for it, is answered. */
void gossip_admit_again(struct gossip *g, const struct id128 *host_id, uint64_t now_ms);
/* Timers. Returns when to call again at the latest; what other calls put off may be due earlier, so call it after those too
 * (after all datagrams of a wake-up, not after each). */
uint64_t gossip_tick(struct gossip *g, uint64_t now_ms);
/* After gossip_packet, for who would rather not: when gossip_tick is due because of it, 0 = now. The time that gossip_tick
 * returned before holds besides. */
uint64_t gossip_due(const struct gossip *g);

/* The same clock in microseconds, before gossip_packet and gossip_tick: round trips are then measured with it. May be left out.
 */
void gossip_clock_us(struct gossip *g, uint64_t now_us);
/* What the daemon measured of itself since it last said so, at least once a second: how late its loop was or how long a packet
 * lay in the socket, whichever is more, and whether the kernel dropped packets. The slower we are, the longer others get. */
void gossip_health(struct gossip *g, uint32_t lag_ms, bool dropped, uint64_t now_ms);
unsigned gossip_local_health(const struct gossip *g); /* 0 = fine ... 8 */
/* The kernel of a host refused one of our packets (ICMP port unreachable): a hint only, anybody can forge it. It kills nobody, it
 * tells a dead daemon from a dead host. */
void gossip_unreachable(struct gossip *g, const struct gossip_addr *addr, uint64_t now_ms);
/* So many hosts became suspect lately that it must be the network: withdraw nothing because of them, take nothing over. */
bool gossip_cut_suspected(const struct gossip *g, uint64_t now_ms);

/* What this host keeps of topics with GOSSIP_TOPIC_SUBSCRIBED. From a subscription on their records come by `record`, from their
 * origins and from others that have them, in a round trip or two. Subscribe again before gossip_start to what was subscribed to
 * before a restart. Who ends a subscription has deleted, or deletes at once, its own records there; of others' records it is not
 * told that they go. */
int gossip_subscribe(struct gossip *g, uint64_t topic, uint64_t now_ms, struct err *err); /* ERR_EXHAUSTED, ERR_INVALID */
void gossip_unsubscribe(struct gossip *g, uint64_t topic, uint64_t now_ms);
bool gossip_subscribed(const struct gossip *g, uint64_t topic);

/* Own records, of topic 0 or others kept by all, or of one subscribed to. put with equal value: no change. Limits: ERR_TOO_BIG.
 * The push leaves at the end of the call, or a few ms later when the one before is not acknowledged yet. After a restart, put
 * again what is still true, before gossip_start or within a second after it: others then see only what differs. In topic 0 the
 * keys "h", "k" and "m", keys of 2 bytes that begin with "i" and keys of 17 bytes that begin with "a" belong to this layer:
 * ERR_INVALID. */
int gossip_put(struct gossip *g, uint64_t topic, const void *key, size_t key_len, const void *val, size_t len, uint64_t now_ms,
	struct err *err);
/* What nobody waits for: the push leaves within a tenth of a second, with whatever else changes until then. */
int gossip_put_lazily(struct gossip *g, uint64_t topic, const void *key, size_t key_len, const void *val, size_t len,
	uint64_t now_ms, struct err *err);
void gossip_del(struct gossip *g, uint64_t topic, const void *key, size_t key_len, uint64_t now_ms);
/* Reads one record; borrowed until the next call that can change records. NULL when absent. */
const void *gossip_get(const struct gossip *g, uint32_t origin, uint64_t topic, const void *key, size_t key_len, size_t *ret_len);
/* Visits all live records, own ones too. Do not change records within. */
void gossip_each_record(const struct gossip *g,
	void (*fn)(void *ctx, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len),
	void *ctx);

int gossip_tell(
	struct gossip *g, uint32_t to_hostno, uint8_t kind, const void *body, size_t len, uint64_t now_ms, struct err *err);

bool gossip_member_get(const struct gossip *g, uint32_t hostno, struct gossip_member *ret_member); /* ourselves too */
/* The numbers besides its own that a member was admitted with, of which it may still be found to use one ("Admitted twice",
 * docs/wire.md). Returns how many there are, of which at most `max` are written. */
unsigned gossip_other_numbers(const struct gossip *g, const struct id128 *host_id, uint32_t *ret_numbers, unsigned max);
void gossip_each_member(const struct gossip *g, void (*fn)(void *ctx, const struct gossip_member *member), void *ctx);
unsigned gossip_member_count(const struct gossip *g, enum gossip_state state); /* ourselves count as alive */

/* True once every host that we believe alive has been compared with and found equal since start (or is suspected or dead):
 * absence of a record then means that it is gone. A lone host is in step at once. */
bool gossip_in_step(const struct gossip *g);
/* True once one of them has been: what the cluster knew when we started is known here, but for what is on its way. */
bool gossip_has_met(const struct gossip *g);

/* Whether more than half of the hosts that have not left (this one counts, `hostno` does not) are known to have the admission of
 * `hostno` that this host signed; in clusters of more than 64 hosts 33 are enough: an heir asks all that it knows, and only if
 * each of the 33 were out of the cluster would it not hear of that host. */
bool gossip_admission_spread(const struct gossip *g, uint32_t hostno);
/* The same of ourselves, as far as we can see it: more than half of the others that have not left, or 33, have said something to
 * us since we started, which nobody can who does not know us. True of a host that is alone. */
bool gossip_known(const struct gossip *g);

/* Before gossip_start: the mark at which we were last found sound. Later, while we stand sound: what our state has come to, once
 * it is on disk with the note that it is sound; else nothing happens. Others keep the highest; who starts again with a lower one,
 * or another tag, is set back. */
void gossip_set_mark(struct gossip *g, const struct gossip_mark *mark, uint64_t now_ms);
enum gossip_standing gossip_standing(const struct gossip *g);

/* Says goodbye to all: others mark us left. Then stop calling gossip_tick. */
void gossip_leave(struct gossip *g, uint64_t now_ms);

/* Cluster keys. A host that rotates makes a key and hands it to each member, sealed for that member alone; when all members that
 * are not dead say that they have it, everyone sends with it, and when all do, the one before goes. Members that are away
 * meanwhile fetch it when they are back. Tokens are made with a key and end with it. */
enum gossip_key_state { GOSSIP_KEY_RECEIVE_ONLY, GOSSIP_KEY_ACTIVE, GOSSIP_KEY_RETIRING };
const char *gossip_key_state_name(enum gossip_key_state state); /* "receive-only", "active", "retiring" */
struct gossip_key {
	uint8_t fingerprint[8]; /* names the key and tells nothing of it */
	uint32_t generation;
	enum gossip_key_state state;	/* on this host */
	uint64_t created_s;		/* its maker's wall clock; 0 = the cluster's first key */
	struct id128 rotator;		/* who made it; zero for the first */
	unsigned have, sending, needed; /* members not dead that have it, that send with it, and all; ourselves included */
};
/* ERR_CONFLICT: a rotation is under way, or a member does not say which keys it has. */
int gossip_rotate(struct gossip *g, uint64_t now_ms, struct err *err);
void gossip_kept(struct gossip *g, uint64_t ticket, uint64_t now_ms); /* see `sync` */
void gossip_each_key(const struct gossip *g, void (*fn)(void *ctx, const struct gossip_key *key), void *ctx);
/* The one that tokens are made with. */
void gossip_active_key(const struct gossip *g, uint8_t ret_key[CLUSTER_KEY_SIZE]);

/* The host with this id is out for good: nothing of it is heard any more, it cannot be admitted again, what it says is answered
 * with that. Kept for ever, in every core that is told. `rotate`: the cluster's key changes too, as soon as it can; say so on one
 * host. May be called from within callbacks. */
void gossip_forget(struct gossip *g, const struct id128 *host_id, bool rotate, uint64_t now_ms);
uint32_t gossip_forgotten_by(const struct gossip *g); /* the member that told us so, 0 = we are not */

struct gossip_counters {
	uint64_t packets_in, packets_out, bytes_in, bytes_out;
	uint64_t streamed_in, streamed_out; /* packets of these that came or went by stream */
	uint64_t refused_short, refused_version, refused_sender, refused_key, refused_replay, refused_boot, refused_decode,
		refused_join;
	uint64_t admissions_together; /* verified with others, by one signature */
	uint64_t vouched;	      /* admissions that were published for others, since they were nobody's any more */
	uint64_t probes, probe_timeouts, suspicions, refutations, deaths;
	uint64_t sketches, sketches_failed; /* comparisons by sketch, and those that ended with a vector after all */
	uint64_t audits, audits_failed;	    /* copies compared with their origin record by record; failed: must be 0 */
	uint64_t busy_told, busy_heard;	    /* bulk syncs that were put off here, and elsewhere */
	uint64_t pushes, push_retries, syncs, resets, conflicts; /* conflicts: R6, must be 0 */
	uint64_t rotations, keys_in, keys_refused, recoveries_asked, recoveries_answered, refused_forgotten;
	uint64_t records_refused;						   /* at any limit, of these: */
	uint64_t records_refused_host, records_refused_topic, records_refused_all; /* of one host, one topic, all */
	uint64_t record_count;
	uint64_t subscriptions;
	uint64_t unwanted; /* batches of topics that are not kept here */
};
const struct gossip_counters *gossip_counters(const struct gossip *g);

#endif

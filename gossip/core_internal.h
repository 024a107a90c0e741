/* What the files of the core share: the object itself, its members, and who calls whom.
 *
 *	gossip.c         the design; the door, start, time and end
 *	publish.c        own records and their numbers; where those of others go
 *	packets.c        packets out and in, and who gets the messages in them
 *	members_admit.c  admissions, host records, the sponsor's side of joining
 *	members_signed.c one signature for the admissions of a packet
 *	members_vouch.c  admissions that are nobody's any more
 *	introduce.c      newcomers and the others, without a handshake between each two
 *	keys.c           cluster keys: rotation, handing them out
 *	recover.c        cluster keys for who was away
 *	forget.c         hosts that are out for good
 *	standing.c       how others know us: a state that was set back, a copy of us
 *	members.c        the table: who there is, merging of claims, news
 *	members_compare.c  what differs between the tables of two hosts
 *	members_trust.c  our own health, flapping hosts, failing networks
 *	members_probe.c  SWIM: probing, suspicion, verification
 *	interest.c       who keeps the records of which topic
 *	sync.c           comparing roots, vectors, pulls
 *	sync_bulk.c      who gets much at a time, and newcomers that wait for it
 *	sync_sketch.c    what differs, where there are many shards
 *	sync_tree.c      the same in big clusters, by way of others
 *	sync_push.c      own changes to everyone, with cursors
 *	shards.c         shards, own records, time (rules R1-R6: shards_internal.h); these five know none of the above
 *	shards_table.c   the records, by key and in order
 *	shards_apply.c   what others say of theirs
 *	shards_give.c    what is given of them and asked for
 *	shards_check.c   whether all is sound, for tests
 *
 * All run on one thread within a call of gossip.h. `g->now` is set at the door. */
#ifndef GOSSIP_CORE_INTERNAL_H
#define GOSSIP_CORE_INTERNAL_H

#include <utlist.h>

#include "base/uthash.h"
#include "gossip/admission_internal.h"
#include "gossip/frame_internal.h"
#include "gossip/gossip.h"
#include "gossip/handshake.h"
#include "gossip/keyring_internal.h"
#include "gossip/proto_internal.h"
#include "gossip/shards_internal.h"

#define NEVER UINT64_MAX
#define EPOCH_FIRST 1 /* of a host in a cluster */

/* Constants of time, in ms. Where they come from: the top of gossip.c. */
#define PROBE_PERIOD_MS 1000
#define ACK_MIN_MS 20
#define ACK_MAX_MS 500
#define ACK_UNKNOWN_MS 200 /* before a round trip was measured */
#define HELPERS 3
#define HEALTH_MAX 8
#define VERIFIERS 5
#define VERIFY_QUORUM 3
#define CONFIRM_WHOLE 840 /* what a verifier's word counts; of one with local health h: 1/(1+h) of it */
#define VERIFY_GAP_MS 200
#define INDIRECT_MS 250
#define REFUTE_WINDOW_MS 800
#define SUSPECT_MIN_MS 2000
#define SUSPECT_MAX_MS 12000
#define SUSPECT_PAIR_MS 3000 /* two hosts: nobody else to ask */
#define SUSPECTS_MANY 64     /* so many are looked through */
#define SUSPECTS_GAP_MS 20   /* no more often than so */
#define UNHEARD_MS 5000
#define PAUSE_MS (2 * PROBE_PERIOD_MS)
#define NEWS_DELAY_MS 5
#define NEWS_GAP_MS 100 /* while there is much to tell: what is passed on after something that was, waits for more */
#define NEWS_MUCH 16	/* so many suspects */
#define NEWS_FANOUT 4
#define NEWS_FANOUT_MANY 8 /* in clusters of more than NEWS_ALL_MAX */
#define NEWS_ALL_MAX 64
#define PIGGYBACK_MAX 8
#define RECENT_MAX 32
#define RETURNS_MS 1000	    /* in so long, in big clusters, */
#define RETURNS_MET 8	    /* so many that came back are spoken to at once */
#define TABLE_EVERY_MS 1000 /* with the same host */
#define TABLE_GAP_MS 100    /* with any, in big clusters */
#define MISMATCH_MS 300
#define SETTLE_MS 1000
#define PUSH_RTO_MS 15
#define PUSH_RTO_UNKNOWN_MS 60		       /* before a round trip was measured */
#define HOP_RTO_MS (PUSH_RTO_MS - PUSH_ACK_MS) /* of a relay, whose ack does not wait */
#define PUSH_TRIES 3
#define PUSH_COALESCE_MS 5
#define PUSH_ACK_MS 4	   /* an ack waits for others */
#define PUSH_GATHER_MS 40  /* admissions wait for each other, at most so long */
#define PUSH_LAZY_MS 100   /* the same of what nobody waits for */
#define STRANGER_MS 600	   /* for who should be introduced: then it is asked itself */
#define TREE_ABOVE 64	   /* alive hosts: up to here each change goes straight to each */
#define TREE_WIDE 32	   /* children of a host in clusters of up to TREE_WIDE_MAX: two hops */
#define TREE_WIDE_MAX 1057 /* 1 + 32 + 32 * 32 */
#define TREE_NARROW 18	   /* and above: three hops to 6,175 */
#define TREE_HOPS_MAX 4096
#define TREE_OWN_HOPS_MAX 1024
#define TREE_DIGESTS 128
#define TREE_DIGEST_MS (2 * HOP_RTO_MS) /* behind the first repetition */
#define TREE_DIGEST_TO 2
#define TREE_DIGEST_TO_MANY 6 /* and so many */
#define TREE_GREW_MS 1000     /* so long after the last new member */
#define LACKS_MS 3000
#define LACKS_TABLE_MS 20  /* the table comes behind the records */
#define KNOWN_FIRST_MS 500 /* a newcomer asks some whom it never heard; the gap doubles */
#define KNOWN_MAX_MS 2000
#define KNOWN_AT_ONCE 16
#define ADMISSION_ENOUGH 33 /* hosts that have an admission, ourselves included: a majority is not waited for beyond these */
#define PUSH_WINDOW 16	    /* packets on their way to one peer */
#define PUSH_QUANTUM 4	    /* of one shard, before the next has its turn */
#define PUSH_OWED 48	    /* shards whose acks wait: they fit a packet */
#define BUCKET_RATE 8000    /* bytes per ms for push and sync */
#define BUCKET_BURST 1000000
#define PULL_PACKETS 8	    /* of one shard for one pull */
#define ANSWER_PACKETS 32   /* for one packet that asks */
#define SKETCH_ABOVE 170    /* shards: up to here a vector fits two packets */
#define BULK_FREE_PACKETS 2 /* of one answer, for anybody; more is bulk */
#define BULK_MAX 2	    /* hosts served in bulk at a time */
#define BULK_LASTS_MS 200   /* after its last question */
#define BUSY_MAX_MS 5000
#define AUDIT_MS 3600000 /* each other host once, in clusters of up to 120 */
#define AUDIT_GAP_MS 30000
#define BUSY_NAMES 4
#define SHARDS_TICK_MS 5000
#define SEQ_RESERVE 65536
#define PINGS 256 /* power of two; the oldest gives way */
#define CHECKS 32
#define ADMIT_AGAIN_MS 100 /* half of what a joiner waits before it asks again */
#define ADMIT_BUSY_MS 10   /* half of what it waits when it was told that the sponsor is busy */
#define ADMIT_REMEMBERED 64
#define ADMIT_WAITING 256    /* new hosts at a time: as many come when all of a rack start */
#define ADMIT_WAIT_MS 2000   /* while the number is being saved; the joiner repeats itself meanwhile */
#define ADMIT_PER_S 256	     /* a tenth of a core: of hosts that are known */
#define ADMIT_NEW_PER_S 2048 /* of new hosts; and so many are told to come again, for the daemon saves a number first */
#define LAG_SECONDS 5
#define LAG_CLASSES 5
#define FLAP_POINT 1024 /* flaps are halved as they fade */
#define FLAP_MAX 8
#define FLAP_WINDOW_MS 600000
#define FLAP_FADE_MS 300000
#define FLAP_MAX_MS 64000
#define FREEZE_WINDOW_MS 10000
#define FREEZE_MIN 2
#define FREEZE_PERCENT 20
#define FREEZE_MS 30000
#define REFUSED_LASTS_MS 30000
#define UNANSWERED_MANY 3
#define UNANSWERED_STREAM 2 /* pings by UDP without an answer, and one by stream has one */
#define UNANSWERED_DEAD 4   /* of so many pings to a host that is dead or was not heard yet, one goes by stream too */
#define DOUBT_MS 1000

enum ping_kind { PING_NONE, PING_PROBE, PING_HELP, PING_OTHER };

/* A ping on its way. */
struct ping {
	enum ping_kind kind;
	uint32_t seq;
	uint32_t target;
	uint64_t sent_us;
	bool stream;
	uint64_t deadline_ms;	      /* HELP: when to say NACK */
	uint32_t for_hostno, for_seq; /* HELP */
};

/* The one probe of this period. */
struct probe {
	enum { PROBE_IDLE, PROBE_DIRECT, PROBE_INDIRECT } phase;
	uint32_t target;
	uint32_t seq;
	uint64_t started_ms, deadline_ms;
	unsigned helpers, nacks;
};

/* We verify a suspicion for somebody. */
struct check {
	uint32_t target; /* 0 = free */
	uint32_t for_hostno;
	uint32_t epoch, incarnation;
	uint64_t started_ms, next_ms;
	unsigned pings;
};

/* What is known of few members, or of none most of the time: made when it is first written. */
struct rare {
	/* While suspect. */
	uint32_t accusers[4];
	uint8_t accuser_count;
	bool mine;	     /* we raised it and asked the verifiers */
	bool vetoed;	     /* a verifier reached it */
	uint8_t asked, said; /* verifiers; a bit for each of them that did not reach it */
	uint16_t confirmed;  /* by these, in parts of CONFIRM_WHOLE */
	uint32_t verifiers[VERIFIERS];
	uint64_t window_ms;	    /* not dead before */
	uint32_t flaps, died_epoch; /* flaps: times FLAP_POINT */
	uint64_t flaps_ms, died_ms, refused_ms;
	uint64_t suspected_ms; /* 0 = not lately: it is not in the list of those that were */
	struct member *lately_next, *lately_prev;
	uint64_t doubt_ms;	     /* no look at what by_stream says before */
	uint64_t introduce_until_ms; /* we are to tell the others of it, 0 = no */
	uint64_t key_ms;	     /* when to hand it a key, or to tell it that it is forgotten, at the earliest */
	uint64_t twin_ms;	     /* when two hosts last spoke as this one, 0 = never */
	uint64_t twin_later;	     /* the boot tag of the one that we met later */
	uint64_t remind_ms;	     /* when to tell it again that what it published is less than its mark */
	uint64_t busy_until_ms;	     /* it serves others */
	uint64_t no_sketch_until_ms; /* compare by vector */
	uint64_t elsewhere_until_ms; /* we sent it to another, which gives it all */
};

/* In order of size, since each host has one for each other. */
struct member {
	struct frame_peer frame;
	struct rare *rare; /* NULL: nothing; read by rare_of, written by rare */
	char *name;	   /* at most GOSSIP_NAME_MAX bytes */
	uint64_t since_ms;
	uint64_t digest;
	uint64_t admitted_boot; /* of its first start, as its admission says; 0 = it does not */
	uint64_t heard_ms;
	uint64_t answered_ms, unanswered_ms; /* the last answer; the first ping without one */
	uint64_t suspect_until_ms;
	uint64_t ring_place;
	struct gossip_mark mark; /* the highest that it published since we run */

	/* Comparing with it. */
	uint64_t had_admissions; /* by a tree: of our shard of topic 0 it had all up to here */
	uint64_t had_seq;	 /* of our records it had all up to here when its root was ours */
	uint64_t mismatch_ms;	 /* since when roots differ, 0 = equal */
	uint64_t sync_ms;	 /* when to ask for its root, NEVER */
	uint64_t vector_ms;	 /* last vector sent */
	uint64_t table_ms;	 /* last table sent, or asked for */

	/* Pushing to it. */
	uint64_t push_ms; /* when to look at its cursors, NEVER */
	uint64_t push_last_ms;
	uint32_t push_rtt_ms; /* the shortest of a push, without the wait of its ack; 0 = none was acknowledged yet */
	uint16_t unacked;
	uint16_t owed; /* packets of its pushes without an answer yet */

	uint32_t hostno;
	unsigned slot;
	uint32_t epoch, incarnation;
	uint32_t boot_epoch; /* of the boot tag that its record told */
	uint32_t srtt_us, rttvar_us;
	uint32_t unanswered; /* pings by UDP since one was answered */
	struct gossip_addr addr;
	struct ip vtep;
	uint8_t public_key[IDENTITY_PUBLIC_SIZE];
	uint8_t spread; /* piggybacks left of the news about it */
	enum gossip_state state : 8;
	enum { NEWS_NONE, NEWS_FORWARD, NEWS_ALL } news : 8;
	uint8_t wire;	/* the highest wire version that both of us speak, as far as we know; 0 = the first */
	bool at_start;	/* known when we started */
	bool told_dead; /* somebody said so of its present numbers: a suspect that dies soon, or refutes */
	bool unheard;	/* known from an admission or the disk only: suspected in silence until it speaks */
	bool summed;	/* its digest is in the sum of its part */
	bool greeted;	/* we said hello first */
	bool vouched;	/* we admitted it since we run, and the others get its boot tag from us */
	bool by_stream; /* what we send it by UDP is lost, by stream it arrives */
	bool forgotten;
	bool said_less;	  /* what it published is less than `mark` */
	bool stood;	  /* it knows of no later state of ours */
	bool in_step;	  /* found equal since both of us started */
	bool behind;	  /* a push of ours was left to comparison, and we were not equal since */
	bool listed;	  /* among the suspects */
	bool bare, waits; /* a newcomer that lacks most; it waits for somebody to serve it */
	bool table_now;
};

/* Slots by what a member is looked up by: open addressing, since nobody leaves the table; 0 = free, else a slot + 1. */
struct member_index {
	uint32_t *at;
	uint32_t size, used; /* size: a power of two */
};

/* What is believed of a member changed. */
struct member_change {
	unsigned slot;
	uint64_t ms; /* 0 = none */
};

/* A saved goodbye, until gossip_start: the members may be restored behind it. */
struct kept_left {
	struct kept_left *next;
	struct left_save left;
};

/* A saved admission, until gossip_start publishes it. */
struct kept {
	struct kept *next;
	size_t val_len;
	uint8_t key[SAVED_KEY_SIZE];
	uint8_t val[ADMISSION_MAX];
};

/* A second number of a host, see members_admit.c. */
struct spare_number {
	struct spare_number *next;
	struct member_save save; /* as its admission says */
	uint64_t boot;
	bool is_void; /* the host uses another: this one is nobody's, for good */
};

/* Cluster keys, see keys.c. */
struct keys {
	struct keyring ring;	      /* what we have: on disk or on the way there */
	struct keyring kept;	      /* what is on disk: what we tell others and send with */
	uint64_t ticket, kept_ticket; /* of the last save, and of the last that is on disk */
	uint64_t next_ms;	      /* of the next look, NEVER = nothing to do */
	uint64_t agreed_ms;	      /* since when everyone sends with the active key, 0 = not so */
	uint64_t had_ms;	      /* since when we have the newest */
	bool wanted;		      /* rotate as soon as that is possible */
	bool newest_in_use;	      /* somebody sends with the newest that we have */
};

/* Asking a member for its keys, see recover.c. */
struct recover {
	struct handshake hs;
	bool asking;
	uint32_t target;
	uint64_t asked_ms, next_ms, gap_ms;
	unsigned silent; /* questions since the last answer */
	uint64_t answers_from_ms;
	unsigned answers;
	bool own_known;
	uint8_t own[32]; /* X25519 form of our host key */
};

/* How others know us, see standing.c. */
struct standing {
	enum gossip_standing now;
	struct gossip_mark base;				 /* ours, when we were last found sound; published */
	unsigned answers, voids;				 /* the latter: of who knows nothing of us */
	uint64_t began_ms, first_ms, void_ms, since_ms, next_ms; /* asking began; first of each; of `now`; when to ask again */
};

/* What gossip_health said within one second. */
struct lag_second {
	uint64_t second;
	uint32_t count[LAG_CLASSES];
	bool drops;
};

/* What keeps requests to join, repeated by whoever overheard them, from costing us our time: an answer takes some hundred
 * microseconds of curve arithmetic, a hundred times what refusing any other packet takes. */
struct admit_gate {
	struct {
		uint8_t joiner[32]; /* its ephemeral key, which is new for each time it joins */
		uint64_t until_ms;
	} answered[ADMIT_REMEMBERED];
	unsigned next;
	uint64_t second_ms; /* start of the second in which answers are counted: to hosts that are known, to new ones */
	unsigned answers, put_off, admitted;
};

/* Who gets much of us at present. */
struct bulk {
	uint32_t hostno;
	uint64_t until_ms;
};

/* A shard that changed: two others are told. */
struct tree_digest {
	uint32_t origin;
	uint64_t topic, due_ms;
};

/* A shard of `m` whose head it will be told. */
struct owed_ack {
	struct member *m;
	uint64_t topic;
	uint64_t head; /* what it had, as it pushed last */
};

struct tree_hop;
struct sketch_session;
struct sketch_found;
struct early;

/* A request to join that waits for its number. */
struct waiting_join {
	struct id128 host_id;
	struct gossip_addr from;
	uint64_t until_ms; /* 0 = free */
	uint16_t len;
	uint8_t packet[ADMISSION_JOIN_SIZE];
};

/* Whom we probe on a ring, while it is usable and nobody became so. */
struct successor {
	uint64_t gains;
	struct member *member;
};
#define RINGS 2

#define SIGNED_LISTS 32 /* that are remembered: many are told the same */

/* What was signed a moment ago. */
struct signed_list {
	uint8_t digest[32], signature[ADMISSION_SIGNATURE_SIZE];
};

struct signed_packet {
	const uint8_t *plain;
	size_t len;
	const struct member *from; /* of the batch that is read, when it is of its own shard; else NULL */
	bool checked, genuine;
};

struct gossip {
	struct gossip_config config;
	struct gossip_ops ops;
	void *ctx;
	uint64_t now, now_us;
	bool started, left;
	struct frame_sender sender;
	struct frame_ring ring;
	struct keys keys;
	struct recover recover;
	struct standing standing;
	struct forgotten *forgotten; /* host ids */
	uint32_t forgotten_by;	     /* the member that told us that we are; 0 = nobody */
	struct gossip_counters counters;

	struct member *self;
	struct member_index by_hostno, by_id;
	struct member **slots; /* by member slot; only grows */
	unsigned member_count, slot_capacity;
	uint64_t digest;
	uint64_t sums[PROTO_PARTS]; /* the same, part by part */
	struct member_change recent[RECENT_MAX];
	unsigned recent_next;
	unsigned state_count[4];
	uint64_t news_ms, passed_on_ms; /* when news leave; the last that were passed on did */
	uint64_t tables_ms;		/* no comparison of tables before */
	uint64_t suspects_ms;		/* not later than any suspect is due, */
	uint64_t suspects_from_ms;	/* and they are not looked at before */
	struct member **spreading;	/* members with spread left; one that was forgotten meanwhile has none */
	uint32_t *newsworthy;		/* slots of members with news, likewise */
	uint32_t *suspects;		/* slots of all that are suspect, and of some that were */
	unsigned spreading_count, newsworthy_count, suspect_slots;
	struct member *lately; /* whoever was suspected within FREEZE_WINDOW_MS, in order of time */
	unsigned lately_count, lately_dead;
	unsigned returned; /* within RETURNS_MS before returns_ms, in big clusters */
	uint64_t returns_ms;
	uint64_t member_due_ms; /* not later than any member's sync_ms or push_ms */
	bool stirred;		/* since the last tick came what its functions have to look at */
	uint64_t member_shape;	/* changes when somebody becomes usable or ceases to be */
	uint64_t member_gains;	/* changes when somebody becomes usable */
	uint64_t grew_ms;	/* the last new one */

	unsigned health; /* local health, 0 = fine: the worse of the two */
	unsigned lifeguard, measured;
	uint64_t answered_ms;	     /* the last answer to a ping of ours, by anybody */
	uint32_t srtt_us, rttvar_us; /* of whomever we ping; 0 = nobody has answered yet */
	struct lag_second lags[LAG_SECONDS];
	uint64_t frozen_until_ms;
	uint64_t called_ms;
	uint32_t ping_seq;
	struct ping pings[PINGS];
	unsigned helping; /* pings of kind HELP */
	struct probe probe;
	uint64_t probe_ms, dead_ms, unheard_ms;
	unsigned period;
	struct successor successors[RINGS];
	struct check checks[CHECKS];

	struct shards shards;
	unsigned subscriptions;
	bool interest_said;    /* what we subscribe to has changed since it was published */
	bool interest_ended;   /* there may be records of something that we do not subscribe to any more */
	uint64_t interest_ms;  /* when to look whom to compare with */
	uint64_t readings;     /* of members' lists */
	struct shard **sorted; /* by (topic, origin) */
	unsigned sorted_count;
	uint64_t sorted_shape;
	uint64_t vector_ms; /* next vector not before */
	struct bulk bulks[BULK_MAX];
	unsigned waiting; /* members that wait */
	uint64_t audit_ms;
	unsigned audit_slot, audit_at;
	struct sketch_session *sketch; /* NULL: none */
	unsigned sketch_drops;	       /* since one was of use */
	uint64_t shards_ms;
	uint64_t heads_ms;
	unsigned heads_left;
	bool settled;
	uint64_t seq_reserved;
	struct admit_gate gate;
	struct signed_packet reading; /* the packet that is read */
	struct signed_list signed_lists[SIGNED_LISTS];
	unsigned signed_next;
	struct waiting_join *joins; /* ADMIT_WAITING of them, made when the first waits */
	uint64_t joins_ms;	    /* the first is due */
	bool newcomer;		    /* this identity never ran in this cluster before */
	struct kept *own_admission; /* a newcomer's: published when its sponsor does not have it */
	uint64_t newcomer_ms;
	uint64_t lacks_until_ms; /* not longer than so may a newcomer lack most of what there is */
	uint32_t begun_with;	 /* whom it asked for all last */
	uint64_t known_ms;	 /* when to ask others whether they know us, NEVER = enough do */
	uint32_t known_gap_ms;
	struct early *early;
	uint64_t introduce_ms, introduced_ms, begin_ms, gather_ms, strangers_ms;
	bool begun; /* our source has been asked for all that there is */
	unsigned begin_tries;
	bool admissions_open; /* some could not be verified yet */
	struct spare_number *spares;
	bool members_grew;
	uint64_t vouch_ms; /* when to look whom nobody could get to know; not when this is all as it was: */
	u128 vouched_root;
	uint64_t vouched_shape;
	uint64_t conflicts; /* besides those of shards */
	struct kept *kept;  /* admissions to publish at start */
	struct kept_left *kept_left;
	const struct gossip_addr *stream_from; /* what is being handled came by this stream, */
	const struct member *stream_member;    /* from this member */
	unsigned depth;			       /* of entry: callbacks may come back in */
	int64_t bucket;
	uint64_t bucket_ms;
	struct owed_ack owed[PUSH_OWED];
	unsigned owed_count;
	uint64_t ack_ms; /* when they leave, NEVER = none */
	struct shard **dirty;
	unsigned dirty_count, dirty_capacity;

	struct member **tree_order; /* all members */
	unsigned tree_order_count;
	struct tree_ring tree_ring; /* of topics kept by all */
	struct tree_hop *hops;
	unsigned hop_count;
	uint64_t tree_ms, tree_sent_ms;
	struct tree_digest digests[TREE_DIGESTS];
	unsigned digest_count;
};

static inline void sooner(uint64_t *at, uint64_t when)
{
	if (when < *at)
		*at = when;
}

/* One of a member's times; the members are looked at when the first of all is due. */
static inline void member_due(struct gossip *g, uint64_t *at, uint64_t when)
{
	sooner(at, when);
	sooner(&g->member_due_ms, when);
}

/* gossip.c */
void core_enter(struct gossip *g, uint64_t now_ms);
void core_leave(struct gossip *g);
uint32_t core_random(struct gossip *g, uint32_t below);

/* packets.c */
void core_send(struct gossip *g, struct member *m, enum frame_class class, const struct proto_packet *packet);
void core_send_to(struct gossip *g, const struct member *m, const struct gossip_addr *to, enum frame_class class,
	const struct proto_packet *packet); /* elsewhere than where it says that it is */
void core_send_by(
	struct gossip *g, const struct member *m, enum frame_class class, const struct proto_packet *packet, bool stream);
void core_hello(struct gossip *g, struct member *m);
void core_transmit(struct gossip *g, const struct gossip_addr *to, const uint8_t *packet, size_t len);
/* Behind what was saved before it. */
void core_transmit_saved(struct gossip *g, const struct gossip_addr *to, const uint8_t *packet, size_t len);
void core_messages(struct gossip *g, struct member *m, const uint8_t *plain, size_t len);

/* publish.c */
#define RESERVE_KEY "q"
extern const struct shards_ops core_shards_ops;
bool core_put(
	struct gossip *g, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len); /* false: full */
void core_del(struct gossip *g, uint64_t topic, const void *key, size_t key_len);
/* Sequence numbers of this epoch are reserved on disk before they are used, so that a restart in the same epoch repeats none. */
void core_reserve_seq(struct gossip *g);
int core_restore_seq(struct gossip *g, const void *val, size_t len, struct err *err);
void core_raise_epoch(struct gossip *g, uint32_t epoch, uint64_t past_seq);

/* interest.c */
#define INTEREST_KEY 'i'				  /* and a number u8 */
void interest_record(struct gossip *g, uint32_t origin);  /* one of its lists has changed */
void interest_member(struct gossip *g, struct member *m); /* it is new */
/* Whether it keeps the topic; whether it holds a shard that we hold. */
bool interest_has(struct gossip *g, const struct member *m, struct topic *topic);
bool interest_shares(struct gossip *g, const struct member *m, const struct shard *shard);
unsigned interest_count(struct gossip *g, struct topic *topic); /* other members that subscribe to it, dead ones too */
u128 interest_root(struct gossip *g, const struct member *m);	/* over what the two share */
void interest_changed(struct gossip *g, struct topic *topic);	/* something in it did */
void interest_compared(struct gossip *g, const struct member *m, bool equal);
bool interest_is_new(struct gossip *g, const struct member *m);
void interest_publish(struct gossip *g);
uint64_t interest_tick(struct gossip *g);

/* members_signed.c */
void signed_add(struct gossip *g, struct proto_packet *packet); /* to a packet that is complete */
void signed_read(struct gossip *g, const uint8_t *plain, size_t len);
/* Around the batches of the packet. `m`: who sent it; its own shard of topic 0 */
void signed_batch(struct gossip *g, const struct member *m, const struct proto_batch *batch);
bool signed_by(struct gossip *g, const struct member *sponsor); /* an admission in the batch that is read */

/* members_admit.c */
#define HOST_RECORD_KEY "h"
void core_publish_self(struct gossip *g);
void admit_host_record(struct gossip *g, uint32_t origin, uint32_t epoch, const uint8_t *val, size_t len);
bool admit_record(
	struct gossip *g, const uint8_t *key, size_t key_len, const uint8_t *val, size_t len); /* false: sponsor unknown */
void admit_rescan(struct gossip *g);
const uint8_t *core_public_key(const struct gossip *g, const struct id128 *host_id); /* a forgotten host's too; NULL: not known */
void admit_on_join(struct gossip *g, const struct gossip_addr *from, const uint8_t *packet, size_t len);
int admit_restore(struct gossip *g, const void *key, size_t key_len, const void *val, size_t len, struct err *err);
/* It was heard under its number: a spare one of it is void. */
void admit_in_use(struct gossip *g, const struct member *m);
/* Somebody has heard a host under this number. Whose spare one it is, that host now has it; else NULL. */
struct member *admit_claimed(struct gossip *g, uint32_t hostno);
void admit_free(struct gossip *g);
void admit_publish(struct gossip *g);
void admit_own_gone(struct gossip *g, const void *key); /* somebody's admission is nobody's record any more */
uint64_t admit_tick(struct gossip *g);

bool admit_speaks(const struct gossip *g); /* our admission says what our host record would */

/* members_vouch.c */
void vouch_start(struct gossip *g);
uint64_t vouch_tick(struct gossip *g);

/* introduce.c */
void introduce_start(struct gossip *g);
void introduce_admitted(struct gossip *g, struct member *m, uint64_t boot);
void introduce_heard(struct gossip *g, struct member *m); /* anything authentic came, for the first time */
void introduce_boot(struct gossip *g, struct member *m, uint32_t epoch, uint64_t boot);
/* Whether a claim about somebody that we never heard has been dealt with; `m` NULL: not even a member. */
bool introduce_claim(struct gossip *g, struct member *from, struct member *m, const struct proto_entry *claim);
bool introduce_is_source(const struct gossip *g, const struct member *m);
void introduce_begin(struct gossip *g, struct member *m);
bool introduce_waits(const struct gossip *g, uint32_t origin);
bool introduce_established(struct gossip *g, struct member *m);
bool introduce_due(const struct gossip *g);
bool introduce_lately(const struct gossip *g);
bool introduce_gives(const struct gossip *g, const struct member *m);
uint64_t introduce_tick(struct gossip *g);
void introduce_free(struct gossip *g);

/* keys.c */
#define KEYS_RECORD_KEY "k"
#define KEYS_WANTED_KEY "w" /* saved: a rotation is owed */
#define KEYS_TELL 240	    /* kinds of TELL from here on are the core's own */
void keys_init(struct gossip *g);
int keys_restore(struct gossip *g, const void *val, size_t len, struct err *err);
int keys_restore_wanted(struct gossip *g, const uint8_t *val, size_t len, struct err *err);
void keys_publish(struct gossip *g);
void keys_record(struct gossip *g, uint32_t origin, const uint8_t *val, size_t len);
void keys_record_gone(struct gossip *g, uint32_t origin);
void keys_want_rotation(struct gossip *g);
void keys_heard(struct gossip *g, uint8_t wire_id);
/* New ones are in the ring. Not NULL: send with this one as soon as it is on disk. */
void keys_recovered(struct gossip *g, const uint8_t *active_fingerprint);
void keys_told(struct gossip *g, struct member *m, uint8_t kind, const void *body, size_t len);
bool keys_need(const struct gossip *g, const struct id128 *maker); /* a key of it is in use */
uint64_t keys_tick(struct gossip *g);

/* recover.c */
void recover_want(struct gossip *g, struct member *m); /* it has keys that we lack, or so it seems */
bool recover_packet(
	struct gossip *g, const struct gossip_addr *from, const uint8_t *packet, size_t len); /* false: not of these */

/* forget.c */
bool forget_is(const struct gossip *g, const struct id128 *host_id);
/* The keys of forgotten hosts, for what they signed before. Noted when an admission of it was verified. */
void forget_note(struct gossip *g, const struct admission *a);
const uint8_t *forget_public_key(const struct gossip *g, const struct id128 *host_id); /* NULL: not known */
const uint8_t *forget_sponsor_key(const struct gossip *g, uint32_t hostno);
void forget_start(struct gossip *g);
void forget_free(struct gossip *g);
int forget_restore(struct gossip *g, const uint8_t *key, const uint8_t *val, size_t len, struct err *err);
void forget_tell(struct gossip *g, struct member *m, const struct gossip_addr *to, size_t trigger_len);
void forget_told(struct gossip *g, const void *packet, size_t len);

/* standing.c */
#define MARK_RECORD_KEY "m"
void standing_open(struct gossip *g);
void standing_met(struct gossip *g, struct member *m); /* it has started, or we have */
void standing_mark_record(struct gossip *g, uint32_t origin, const uint8_t *val, size_t len);
void standing_remind(struct gossip *g, struct member *m);
bool standing_on_recall(struct gossip *g, struct member *m, struct bytes_reader *body);
bool standing_on_verdict(struct gossip *g, struct member *m, struct bytes_reader *body);
void standing_twin_seen(struct gossip *g, struct member *m, const struct gossip_addr *from);
uint64_t standing_tick(struct gossip *g);

/* members.c */
struct member *members_add(struct gossip *g, const struct member_save *save);
/* Of a host that was not heard under the number that it has here. False: no memory, nothing changed. */
bool members_renumber(struct gossip *g, struct member *m, const struct member_save *save);
struct member *members_find(const struct gossip *g, uint32_t hostno);
struct member *members_by_id(const struct gossip *g, const struct id128 *host_id);
void members_name(struct member *m, const char *name);
void members_describe(
	struct gossip *g, struct member *m, const char *name, const struct gossip_addr *addr, const struct ip *vtep);
void members_show(const struct gossip *g, const struct member *m, struct gossip_member *ret_member);
void members_save(struct gossip *g, const struct member *m);
int members_restore_left(struct gossip *g, const void *key, size_t key_len, const void *val, size_t len, struct err *err);
void members_start(struct gossip *g); /* with what was restored */
void members_free_left(struct gossip *g);
void members_changed(struct gossip *g, const struct member *m);			 /* something but the state did */
static inline bool member_usable(const struct gossip *g, const struct member *m) /* worth sending to */
{
	return m != g->self && (m->state == GOSSIP_ALIVE || m->state == GOSSIP_SUSPECT);
}
extern const struct rare rare_nothing;
struct rare *rare(struct member *m);
static inline const struct rare *rare_of(const struct member *m)
{
	return m->rare ? m->rare : &rare_nothing;
}
void members_entry(const struct member *m, struct proto_entry *ret_entry);
/* Somebody says so. Returns whether what we know outranks the claim. */
bool members_claim(struct gossip *g, struct member *from, const struct proto_entry *claim);
void members_set_state(struct gossip *g, struct member *m, enum gossip_state state);
void members_introduced(struct gossip *g, struct member *m, const struct proto_entry *claim);
void members_tell(struct gossip *g, struct member *m, int news); /* marks it as news */
void members_announce_self(struct gossip *g);
void members_flush(struct gossip *g);
void members_piggyback(struct gossip *g, const struct member *to, struct proto_packet *packet);

/* members_compare.c */
void members_compare(struct gossip *g, struct member *m, uint64_t digest);
void members_table(struct gossip *g, struct member *m);
bool members_on_sums(struct gossip *g, struct member *m, struct bytes_reader *body);
void members_update_digest(struct gossip *g, struct member *m);

/* members_trust.c */
void probe_unhealthy(struct gossip *g, int by);
void trust_measure(struct gossip *g);
uint64_t trust_stretch(const struct gossip *g, struct member *m, uint64_t ms);
void trust_returned(struct gossip *g, struct member *m);
void trust_suspected(struct gossip *g, struct member *m);
enum gossip_reach trust_reach(const struct gossip *g, const struct member *m);

/* members_probe.c */
void probe_start(struct gossip *g);
uint64_t probe_suspects_due(const struct gossip *g);
uint64_t probe_tick(struct gossip *g);
void probe_paused(struct gossip *g, uint64_t gap_ms);
void probe_end(struct gossip *g, uint32_t hostno); /* nobody has this number any more: no question for it goes on */
void probe_ping(struct gossip *g, struct member *m, enum ping_kind kind);
struct member *probe_follower(const struct gossip *g, uint32_t ring); /* on ring 1 or 2, as last probed; NULL: nobody */
void probe_doubt(struct gossip *g, struct member *m);		      /* does UDP get there, or does it again? */
void probe_suspect(struct gossip *g, struct member *m, uint32_t accuser, bool hearsay_dead);
void probe_on_ping(struct gossip *g, struct member *m, const struct proto_ping *ping);
void probe_on_ack(struct gossip *g, struct member *m, const struct proto_ping *ack);
void probe_on_ping_req(struct gossip *g, struct member *m, const struct proto_ping_req *req);
void probe_on_nack(struct gossip *g, struct member *m, uint32_t seq);
void probe_on_indirect_ack(struct gossip *g, uint32_t seq);
void probe_on_verify(struct gossip *g, struct member *m, const struct proto_entry *suspect);
void probe_on_verdict(struct gossip *g, const struct member *from, const struct proto_verdict *verdict);

/* sync.c */
void sync_reset(struct gossip *g, struct member *m);
void sync_begin(struct gossip *g, struct member *m);
void sync_compare(struct gossip *g, struct member *m, u128 root);
void sync_on_root(struct gossip *g, struct member *m, const struct proto_root *root);
bool sync_on_vector(struct gossip *g, struct member *m, struct bytes_reader *body);
bool sync_on_audit(struct gossip *g, struct member *m, struct bytes_reader *body);
bool sync_on_busy(struct gossip *g, struct member *m, struct bytes_reader *body);
bool sync_on_pull(struct gossip *g, struct member *m, struct bytes_reader *body);
bool sync_on_heads(struct gossip *g, struct member *m, struct bytes_reader *body);
void sync_ask(struct gossip *g, struct member *m); /* for its root */
void sync_poke(struct gossip *g, struct member *m, const struct shard *shard);
void sync_heads(struct gossip *g, struct member *m);
uint64_t sync_tick(struct gossip *g, bool members_due);
/* Batches of one packet are answered together. */
struct sync_answer {
	struct proto_packet pulls;
	struct proto_list pull_list;
	unsigned pull_count;
	bool pushed; /* there were pushes of its own among them */
};
void sync_answer_open(struct sync_answer *answer);
enum shards_verdict sync_on_batch(
	struct gossip *g, struct member *m, const struct proto_batch *batch, struct sync_answer *answer);
void sync_answer_send(struct gossip *g, struct member *m, struct sync_answer *answer);

/* For sync_sketch.c. */
bool sync_sort_shards(struct gossip *g);			      /* g->sorted is up to date; false: no memory */
unsigned sync_shared_count(struct gossip *g, const struct member *m); /* of these */
void sync_head_of(const struct shard *shard, struct proto_head *ret_head);
void sync_difference(struct gossip *g, struct member *m, const struct sketch_found *found, uint32_t count);

/* sync_bulk.c */
bool bulk_afford(struct gossip *g, const struct member *m);	   /* credit for one more packet to it */
bool bulk_place(struct gossip *g, const struct member *m);	   /* false: others are served */
bool bulk_bare(const struct member *m);				   /* a newcomer that has not been served yet */
bool bulk_expects(const struct gossip *g, const struct member *m); /* a copy of all, from us or from another */
bool bulk_lacks_all(const struct gossip *g);			   /* we are a newcomer that may not have all yet */
void bulk_begins(const struct gossip *g, struct member *m);
void bulk_asks(struct gossip *g, struct member *m);
void bulk_busy(struct gossip *g, struct member *m, struct topic *topic); /* it gets no more of us now */
void bulk_cut_short(struct gossip *g, struct member *m);
void bulk_done(struct gossip *g, struct member *m);
void bulk_served(struct gossip *g, struct member *m);
uint64_t bulk_tick(struct gossip *g);

/* sync_sketch.c */
enum sketch_begun {
	SKETCH_NOT_HERE, /* compare by vector */
	SKETCH_BEGUN,
	SKETCH_BUSY /* with it already, or with another one: again later */
};
enum sketch_begun sketch_begin(struct gossip *g, struct member *m);
bool sketch_on_ask(struct gossip *g, struct member *m, struct bytes_reader *body);
bool sketch_on_symbols(struct gossip *g, struct member *m, struct bytes_reader *body);
void sketch_free(struct gossip *g);

/* sync_tree.c */
bool tree_grown(const struct gossip *g);
bool tree_carries(struct gossip *g, struct topic *topic); /* changes of it go by a tree */
bool tree_push(struct gossip *g, struct shard *shard);
void tree_introduce(struct gossip *g, const struct shard *shard);
bool tree_on_relay(struct gossip *g, struct member *m, struct bytes_reader *body, struct sync_answer *answer);
bool tree_on_ack(struct gossip *g, struct member *m, struct bytes_reader *body);
uint64_t tree_tick(struct gossip *g);
void tree_free(struct gossip *g);

/* sync_push.c */
void push_changed(struct gossip *g, struct shard *shard); /* an own shard has a new head */
void push_flush(struct gossip *g);
void push_member(struct gossip *g, struct member *m);
void push_begin(struct shard *shard, const struct member *m); /* it has nothing of it */
void push_given(struct gossip *g, struct member *m, const struct member *by);
/* How far it has `own`, our shard of topic 0 with the admissions, by its own word. */
uint64_t push_admissions(const struct shard *own, const struct member *m);
void push_gather(struct gossip *g, uint64_t ms); /* before the change */
void push_gathered(struct gossip *g, const struct proto_packet *rider);
void push_reset(struct gossip *g, struct member *m, bool from_zero);
void push_acked(struct gossip *g, struct member *m, struct shard *shard, uint64_t head, bool exact);
bool push_on_ack(struct gossip *g, struct member *m, struct bytes_reader *body);
void push_owe(struct gossip *g, struct member *m, const struct proto_batch *batch);
void push_owe_packet(struct gossip *g, struct member *m);
void push_pay(struct gossip *g);
void push_tick(struct gossip *g);
bool push_afford(struct gossip *g);
bool push_afford_relay(struct gossip *g); /* what others want passed on */

#endif

/* Replicated records: shards with one writer, and the rules R1-R6 by which copies of them meet. Pure data; no members, no
 * packets.
 *
 * A *shard* is (origin host, topic). Only its origin writes it. Each change or deletion takes a new sequence number (seq) of the
 * origin and puts the record behind all others of the shard, so that a shard is a list in order of seq, and what a copy knows of
 * it is one number, its *head*: everything up to it has been seen.
 *
 * R1 Only the origin makes a seq. They need not be dense.
 * R2 A batch says "(from, to]: all changes that are still live, and all deletions, with from < seq <= to". A copy with head >=
 * from may take head = to. One that is further behind applies the records (highest seq of a key wins) and remembers the range, at
 * most SHARD_RANGES_MAX of them. R3 With everything up to h known, a key that is absent or newer is deleted or superseded in
 * whatever a peer offers with seq <= h. So no third party can bring anything back, and deletions need no tombstone with a clock.
 * R4 Deletions are kept, as records without a value, down to a *floor*. Who is below the floor gets a *listing* of all live
 * records from 0, packet by packet; what a complete listing did not confirm goes, the rest never flickers. See "Listings" below.
 * R5 A higher epoch of the origin replaces its shards: records of the old epoch stay visible until the new one is complete and
 *    *settled* (the origin has put what it had before), at most SHARDS_OLD_EPOCH_MS; then what was not put again goes.
 *    The origin's word for it, HEADS, names all its shards up to a seq of its own: by R3 a copy that is not named is empty up to
 *    there. What has seen a later seq knows better than a late HEADS.
 * R6 Equal (epoch, seq) with different content is corruption or a cloned identity: counted, and the origin is refused until its
 *    epoch rises.
 *
 * Listings. A batch with PROTO_BATCH_LISTING leaves out deletions at or below its floor, so absence counts. A copy joins such
 * batches from 0 upwards: `listed` is how far, `as_of` the lowest head of a sender among them. A further batch fits when its
 * floor is not above as_of: every deletion after what was listed earlier is then above the floor and hence in this or a later
 * batch. The listing is complete when a batch reaches its own sender's head. */
#ifndef GOSSIP_SHARDS_INTERNAL_H
#define GOSSIP_SHARDS_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/uthash.h"
#include "gossip/proto_internal.h"

#define SHARD_PREFIX_SIZE 17
#define SHARD_RANGES_MAX 16
#define SHARDS_MAX 200000
#define SHARDS_OLD_EPOCH_MS 30000
/* Deletions are kept between one and two of these when somebody does not acknowledge them. */
#define SHARDS_FLOOR_EVERY_MS 600000

#define SHARDS_REFUSED_MS 30000 /* a shard that ran into a limit is not asked for before */

struct shard;
struct topic;

/* One allocation: node, key, value. */
struct record {
	struct record *next, *prev; /* in the shard's list, by seq; old-epoch records in a list of their own */
	struct record *chain;	    /* in the table by (shard, key) */
	struct shard *shard;
	uint64_t seq;
	uint16_t val_len;
	uint8_t key_len;   /* of what is in `bytes` */
	bool prefixed : 1; /* the key goes on from the shard's prefix */
	bool deleted : 1;
	bool unconfirmed : 1; /* not seen in the listing under way */
	bool doomed : 1;      /* a complete listing did not name it: goes when the origin is settled */
	bool old_epoch : 1;
	uint8_t bytes[];
};

struct record_list {
	struct record *first, *last;
	struct record *at; /* where the last search ended: a burst is read from there on, by one peer after the other */
};

struct seq_range {
	uint64_t from, to; /* (from, to] */
};

struct origin;

/* Progress of a push to one peer; own shards only. Owned by sync_push.c. */
struct shard_cursor {
	uint64_t acked; /* the peer has everything up to here */
	uint64_t sent;	/* packets up to here are on their way */
	uint64_t sent_ms;
	uint8_t tries; /* of the packets on their way */
	bool given_up; /* silent: left to anti-entropy */
	bool given;    /* `acked` is not its own word, see push_given */
};

/* What most shards do without most of the time: made when it is needed, freed by shard_relax. */
struct shard_rare {
	struct record_list old; /* of an earlier epoch, not confirmed yet */
	uint64_t floor_next,
		floor_at_ms; /* floor rises to floor_next at floor_at_ms; 0 = since there are deletions nobody looked */
	uint64_t listed, as_of;
	uint64_t refused_ms;			   /* when a limit refused some of it, 0 = never */
	struct seq_range ranges[SHARD_RANGES_MAX]; /* range_count of them: sorted, disjoint, above head */
};

/* Each host has one for each other and each topic, so it is kept small. */
struct shard {
	struct {
		uint64_t topic;
		uint32_t origin;
	} id;
	uint32_t epoch;
	uint32_t cursor_count;
	uint64_t head, floor;
	uint64_t old_until_ms;	 /* R5: when records of the old epoch go at the latest, 0 = there are none */
	u128 root;		 /* our part of shards.root or topic.root */
	struct record_list live; /* of this epoch, deletions too */
	uint64_t pushed;	 /* sync_tree.c sent everything up to here, of others' what it passed on */
	uint64_t pulled_ms;	 /* sync.c: when a peer was asked for it */
	struct origin *of;
	struct topic *in;
	struct shard *next_of_origin;
	struct shard *chain;	      /* in the table by (topic, origin) */
	struct shard_cursor *cursors; /* by member slot */
	struct shard_rare *rare;      /* NULL: nothing; read by shard_rare_of, written by shard_rare */
	uint8_t *prefix; /* SHARD_PREFIX_SIZE, once a key is longer than it: many begin with kind and the id of a pool */
	uint32_t deleted_count;
	uint8_t range_count;
	bool settled;
	bool vacant;	/* its origin had nothing in it up to head: nobody is told of that who does not ask, see shards_offered */
	bool sweep_due; /* listing complete, waiting for settled */
	bool listing;
	bool relist; /* an audit failed: the next listing counts although nothing seems to be missing */
};

extern const struct shard_rare shard_rare_nothing;
static inline const struct shard_rare *shard_rare_of(const struct shard *shard)
{
	return shard->rare ? shard->rare : &shard_rare_nothing;
}

/* Members in the order of sync_tree.c, which owns it. */
struct member;
struct tree_ring {
	struct member **at;
	unsigned count, capacity;
	uint64_t members, subscribers; /* the state of both that it was made from */
};

/* Which members subscribe to a topic. Owned by interest.c. */
struct interest {
	bool looked;	       /* at what all members say; kept up to date from then on */
	unsigned count;	       /* of bits */
	unsigned words;	       /* of 64 bits */
	uint64_t *subscribers; /* bits by member slot */
	uint64_t shape;	       /* changes with any of them */
	uint64_t named_in;     /* a member's list that is being read names it: the number of the reading */
	uint64_t wanted_ms;    /* when we subscribed */
	uint64_t changed_ms;   /* when something of it last changed here */
	uint64_t compared_ms;  /* when we last compared with a co-subscriber, 0 = never */
	uint64_t asked_ms;     /* when we last asked one for that */
	bool equal;	       /* we have been equal with one */
	struct tree_ring ring; /* where there are many */
};

/* What is common to all shards of a topic. Those kept by all (topic_for_all) are in shards.root; of the others, those that this
 * host subscribes to are kept, and its own shards. */
struct topic {
	uint64_t topic;
	unsigned shards;
	bool wanted; /* subscribed to */
	uint64_t record_count;
	u128 root; /* sum over its shards */
	struct interest interest;
	UT_hash_handle hh;
};

static inline bool topic_for_all(uint64_t topic)
{
	return !(topic & GOSSIP_TOPIC_SUBSCRIBED);
}

/* Which limit a record met. */
enum shards_limit { SHARDS_LIMIT_ALL, SHARDS_LIMIT_HOST, SHARDS_LIMIT_TOPIC, SHARDS_LIMIT_MEMORY, SHARDS_LIMIT_MAX };

/* What is common to all shards of a host. */
struct origin {
	uint32_t hostno;
	uint32_t epoch; /* highest seen */
	uint32_t record_count;
	bool refused; /* R6, until epoch rises */
	struct shard *shards;
	struct origin *next;  /* in order of coming; none goes */
	struct origin *chain; /* in the table by number */
};

struct shards_ops {
	/* Somebody else's record appeared, changed or went (val NULL). */
	void (*record)(void *ctx, const struct shard *shard, const void *key, size_t key_len, const void *val, size_t val_len);
	void (*conflict)(void *ctx, const struct shard *shard, uint64_t seq); /* R6 */
	/* Whether time runs for what is left of an earlier epoch (R5): not while the origin cannot be reached. */
	bool (*expires)(void *ctx, uint32_t origin);
};

struct shards {
	uint32_t self;
	uint64_t seq;  /* last one given to an own change */
	uint64_t base; /* numbers up to here were another process's, in the same epoch: below the floor of every own shard */
	const struct shards_ops *ops;
	void *ctx;
	struct shard **by_id; /* chains, a power of two of them */
	struct origin *origins, *last_origin;
	struct origin **by_hostno;
	size_t shard_count, by_id_size, origin_count, by_hostno_size;
	struct record **table; /* power of two */
	size_t table_size;
	uint64_t table_seed;   /* of its hashes: another one in each process, since the addresses of processes differ */
	uint64_t record_count; /* live and deleted */
	uint64_t live_count;
	struct topic *topics;
	uint64_t max[SHARDS_LIMIT_MEMORY]; /* by limit */
	uint64_t refused;		   /* over a limit, and by which */
	uint64_t refused_by[SHARDS_LIMIT_MAX];
	enum shards_limit met; /* the last one */
	uint64_t conflicts;    /* R6 */
	uint64_t resets;       /* listings completed */
	u128 root; /* sum over shards of topics kept by all, of the current epoch, of SipHash-128(topic, origin, epoch, head,
		      settled) */
	uint64_t unwanted; /* batches of topics that are not kept here */
	uint64_t shape;	   /* changes when a shard comes or goes */
	bool ageing;	   /* there may be deletions, or something of an earlier epoch: time has something to do */
	bool no_r3;	   /* tests only: break rule R3, to see that the checker notices */
};

void shards_init(struct shards *s, uint32_t self, uint32_t epoch, const struct shards_ops *ops, void *ctx);
void shards_fini(struct shards *s);

/* All shards, those of one origin together. The one at hand may go meanwhile. */
struct shard *shards_first(const struct shards *s);
struct shard *shards_next(const struct shard *shard);
#define SHARDS_EACH(s, shard, next)                                                                                              \
	for ((shard) = shards_first(s); (shard) && ((next) = shards_next(shard), true); (shard) = (next))

/* A topic that others' records are kept of from here on, beside those kept by all. NULL: no memory. */
struct topic *shards_want(struct shards *s, uint64_t topic);
/* No longer. What is there of others goes with the sweep, and nobody is told of that. */
void shards_unwant(struct shards *s, uint64_t topic);
void shards_sweep_unwanted(struct shards *s);
struct topic *shards_topic(const struct shards *s, uint64_t topic); /* NULL: neither wanted nor any shard of it here */
/* Whether others' shards of it are kept here. */
bool shards_keeps(const struct shards *s, uint64_t topic);

/* Finds or makes an empty copy of somebody else's shard. NULL at the limit. */
struct shard *shards_make(struct shards *s, uint32_t origin, uint64_t topic, uint32_t epoch, uint64_t now_ms);
struct shard *shards_find(const struct shards *s, uint32_t origin, uint64_t topic);
struct origin *shards_origin(const struct shards *s, uint32_t hostno);
const struct record *shards_record(const struct shard *shard, const struct shards *s, const void *key, size_t key_len);
/* The whole key. */
size_t record_key(const struct record *r, uint8_t ret_key[GOSSIP_KEY_MAX]);
static inline const uint8_t *record_val(const struct record *r)
{
	return r->deleted ? NULL : r->bytes + r->key_len;
}

/* Own records. Return the shard when something changed, NULL when not (equal value, absent key) or when a limit refused it (then
 * *ret_full). */
struct shard *shards_put(
	struct shards *s, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len, bool *ret_full);
struct shard *shards_del(struct shards *s, uint64_t topic, const void *key, size_t key_len);
/* Our own epoch rises (somebody proved a later one of ours): own shards start again in it, their records keep their seq. */
void shards_raise_own_epoch(struct shards *s, uint32_t epoch, uint64_t past_seq);

enum shards_verdict {
	SHARDS_APPLIED,	 /* something was learned */
	SHARDS_KNOWN,	 /* nothing new */
	SHARDS_BEHIND,	 /* of an older epoch than we know: the sender needs news from us */
	SHARDS_GAP,	 /* a listing that does not join what we have: pull again */
	SHARDS_REFUSED,	 /* R6 or a limit */
	SHARDS_UNWANTED, /* of a topic that is not kept here */
	SHARDS_OURS	 /* claims more of our own shard than we made ourselves */
};
enum shards_verdict shards_apply(struct shards *s, const struct proto_batch *batch, uint64_t now_ms);

/* A higher epoch of a host is known: its shards of lower ones leave the root and go after SHARDS_OLD_EPOCH_MS. */
void shards_saw_epoch(struct shards *s, uint32_t hostno, uint32_t epoch, uint64_t now_ms);
/* The origin says: in this epoch, up to this seq, these are all my topics in [topic_lo, topic_hi], and they are settled. In those
 * that it does not name nothing is left. What such a copy knew must be kept as a head nevertheless: an earlier process of the
 * same epoch may have put there what it had in the epoch before, and a peer still have that. See shards_adopt too. */
struct shards_settled {
	uint32_t hostno, epoch;
	uint64_t seq;
	uint64_t topic_lo, topic_hi;
	bool (*has)(void *ctx, uint64_t topic, uint64_t *ret_head);
	void *ctx;
};
/* Somebody has this shard in its current epoch: from now on it counts here too, vacant or not. */
void shards_offered(struct shards *s, struct shard *shard);
void shards_settle(struct shards *s, const struct shards_settled *all, uint64_t now_ms);
/* Own shards count as settled from here on. */
void shards_settle_own(struct shards *s);
/* Somebody who knows as much of this shard as we do says that it is settled. */
void shards_confirm_settled(struct shards *s, struct shard *shard);
/* A peer has a shard of ours, of this epoch, that we do not have: a topic of the process before us that was not put again. It
 * comes back as an empty one with a new head, so that the copies learn that nothing is left in it. */
struct shard *shards_adopt(struct shards *s, uint64_t topic);

/* Whether a shard can be compared and given away: it is of its origin's current epoch and knows something. */
static inline bool shard_current(const struct shard *shard)
{
	return shard->head > 0 && shard->epoch == shard->of->epoch && !shard->of->refused && !shard->vacant;
}

/* Nothing beyond the head is known. Else some key may be missing up to the head only because it was seen changed later, and
 * absence proves nothing: such a copy gives no listing and does not call itself settled. */
static inline bool shard_whole(const struct shard *shard)
{
	return !shard->live.last || shard->live.last->seq <= shard->head;
}
static inline bool shard_says_settled(const struct shard *shard)
{
	return shard->settled && shard_whole(shard);
}

/* Writes the batch of `shard` after `from` into the packet, as many records as fit; from < floor makes it a listing, which the
 * caller begins at 0. Returns how far it reaches, or `from` when not even one record fits (or the copy is not whole and a listing
 * is wanted). */
uint64_t shards_encode(const struct shard *shard, uint64_t from, bool listing, uint8_t flags, struct proto_packet *packet);
/* This one record, for who shall know it before all that is in front of it. */
bool shards_encode_one(const struct shard *shard, const struct record *r, struct proto_packet *packet);
/* What to ask for when a peer has more: the head, or the progress of a listing. */
void shards_pull(const struct shard *shard, struct proto_pull *ret_pull);

/* Over all live records, for the audit: equal copies at one head have equal sums. False: the copy is on its way, and no sum
 * counts. */
bool shards_sum(const struct shard *shard, uint64_t *ret_sum);
/* The copy is not what its origin has, although its head is. Returns what to ask the origin for. */
void shards_relist(struct shard *shard, struct proto_pull *ret_pull);

/* Deletions at or below `floor` are forgotten. */
void shards_raise_floor(struct shards *s, struct shard *shard, uint64_t floor);
/* Timers of R4 and R5, every few seconds. */
void shards_tick(struct shards *s, uint64_t now_ms);

/* We were stopped for a while: what would have arrived meanwhile gets its time. */
void shards_paused(struct shards *s, uint64_t now_ms);

/* Tests: recomputes root and counts, checks order, ranges and lists. NULL when sound, else what is wrong. */
const char *shards_check(const struct shards *s);

#endif

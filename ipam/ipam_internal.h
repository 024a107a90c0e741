/* What the files of ipam/ share: the pool, its map of custody, its leases, what other hosts say, and the requests in flight.
 *
 *   custody.c  sorted ranges with the last custody fact of each, and their saved form
 *   slice.c    what of a large pool is a host's own without asking
 *   lease.c    leased and resting addresses, the search for a free one
 *   peers.c    the advisory map made of other hosts' chunks; our own chunks
 *   transfer.c REQ, GRANT, DENY, MOVED, ACK: giving and taking
 *   request.c  what callers wait for
 *   decree.c   forgetting a host: promises, whom we refuse, our own end
 *   heir.c     collecting promises and reports, taking the estate
 *   pool.c     a pool's definition, from create or join to drop; what is saved and shown when its custody changes
 *   restore.c  from what was saved to a core that acts
 *   ipam.c     the public functions: requests, leases, what other hosts say, timers
 *
 * Tests use the two functions at the end. */
#ifndef IPAM_IPAM_INTERNAL_H
#define IPAM_IPAM_INTERNAL_H

#include <utlist.h>

#include "base/uthash.h"
#include "ipam/ipam.h"
#include "ipam/proto_internal.h"

#define IPAM_POOLS_MAX 65536	/* pools known, with and without definition */
#define IPAM_PENDING_MAX 4096	/* requests of one pool that wait for other hosts */
#define IPAM_RESTING_MAX 16384	/* released addresses remembered in order, per pool; beyond, the oldest become plain free */
#define IPAM_SHARED_MAX 256	/* shared leases of one host in one pool: all must be published */
#define IPAM_ASKED_MAX 8192	/* hosts asked for one request */
#define IPAM_REDIRECTS_MAX 4	/* MOVED answers followed for one request */
#define IPAM_REASK_MS 150	/* a donor that has not answered: the next one is asked too */
#define IPAM_ASK_AT_ONCE 16	/* hosts asked together when all of them say that they have nothing free */
#define IPAM_GRANT_RETRY_MS 100 /* first repeat of a GRANT, doubles up to the next */
#define IPAM_GRANT_RETRY_MAX_MS 10000
#define IPAM_FETCH_RETRY_MS 1000 /* prefetch after a refusal, doubles up to the next */
#define IPAM_FETCH_RETRY_MAX_MS 60000
#define IPAM_HANDBACK_OPEN_MAX 64 /* open offers of a pool at which a hand-back waits */
#define IPAM_NEVER UINT64_MAX

struct custody_map {
	struct custody *entries; /* ascending, disjoint */
	size_t count, capacity;
};

#define IPAM_CLAIM_RETRY_MS 200 /* first repeat of a CLAIM, doubles up to the next */
#define IPAM_CLAIM_RETRY_MAX_MS 10000
#define IPAM_HEIRS_MAX 256 /* estates that passed from heir to heir are followed so far */

enum peer_life { PEER_UNTOLD, PEER_ALIVE, PEER_DEAD };

struct peer { /* another host, over all pools */
	uint32_t hostno;
	enum peer_life life;
	bool left;	 /* said goodbye */
	bool ineligible; /* must get no addresses yet */
	bool refused;	 /* gone for good, or named by a decree that we promised or know: nothing is taken from it */
	bool buried;	 /* its estate has moved, or it is gone for good: nobody needs its promise */
	UT_hash_handle hh;
};

struct decree { /* what we promised, know to be done, or ask for ourselves */
	uint32_t victim;
	struct ipam_decree d;
	bool gone;	     /* no decree: the victim said goodbye, and an estate may have moved since because of that */
	struct claim *claim; /* ours, under way */
	UT_hash_handle hh;
};

struct view { /* what another host published about one pool */
	uint32_t hostno;
	struct ipam_chunk **chunks; /* holes are NULL, the last is not */
	unsigned chunk_count;
	bool tried; /* asked ahead of need since we last got something */
	UT_hash_handle hh;
};

struct listed { /* an address that other hosts list as shared lease */
	u128 offset;
	unsigned count;
	uint8_t flags;
	uint32_t tag;
	uint32_t hostno; /* one of them */
	UT_hash_handle hh;
};

struct slot { /* an address that is not plain free */
	u128 offset;
	UT_hash_handle hh;
	struct slot *prev, *next; /* pool->resting, oldest first */
	uint64_t since_ms;
	uint8_t state, use, shared_flags;
	bool bound;
	bool guest; /* shared lease on an address in another host's custody */
	bool saved;
	char *owner; /* NULL: "" */
};

struct offer {			/* given, and not known to have arrived */
	struct custody range;	/* `to` and `xid` set */
	uint64_t rest_until_ms; /* it was in use here not long ago */
	uint64_t next_ms;
	uint32_t backoff_ms;
	struct offer *prev, *next;
};

struct asked {
	uint32_t hostno;
	bool answered;
	bool again; /* asked a second time after it advertised free addresses */
	uint8_t tries;
	uint64_t next_ms;
};

enum request_aim { AIM_ANY, AIM_EXACT, AIM_FIRST_SHARED };

struct request {
	uint64_t ticket, xid, deadline_ms;
	enum request_aim aim;
	enum ipam_use use;
	uint8_t shared_flags;
	u128 offset;	 /* AIM_EXACT and AIM_FIRST_SHARED */
	u128 start, len; /* AIM_ANY: from here; the usable part of `within` */
	char owner[IPAM_OWNER_MAX + 1];
	/* AIM_ANY: whom we asked */
	struct asked *asked;
	unsigned asked_count, asked_capacity;
	struct custody *told; /* IPAM_GIFTS_MAX places, or NULL: the last gifts that those who had nothing told of */
	unsigned told_count;  /* ever told of */
	/* the others: the holder we believe in, and from where */
	uint32_t holder, moved_to, moved_reign;
	uint64_t moved_version;
	unsigned redirects;
	bool astray;  /* the holder says that it is not: it is asked again as soon as anything has changed */
	bool not_yet; /* somebody said so (DENY 6), and nobody gave anything since */
	uint8_t tries;
	uint64_t next_ms; /* repeat the question to the holder */
	uint64_t due_ms;  /* look again; 0: at once */
	struct request *prev, *next;
};

struct recent { /* transfers served and settled: a late copy of the REQ gets nothing more */
	uint32_t hostno;
	uint64_t xid;
};
#define IPAM_RECENT_MAX 64

struct published {
	uint16_t len;
	uint8_t bytes[];
};

struct cursor { /* next-fit position in a range */
	u128 start, len, at;
};

struct fetch {		  /* prefetch: at most one in flight per pool */
	uint64_t xid;	  /* 0: none in flight */
	uint64_t next_ms; /* not before */
	uint32_t backoff_ms;
};

struct pool {
	struct id128 id;
	uint32_t self; /* our hostno */
	bool known;    /* has a definition. Without: chunks of others that came early, or custody facts of a dropped pool */
	struct ipam_pool_def def;
	u128 base, size, first, usable; /* usable addresses: [first, first + usable) */
	enum want_state wanted;
	bool retiring; /* this host leaves */
	unsigned spares;
	struct custody_map custody;
	u128 held; /* sum of what is in our custody */
	struct slot *slots;
	struct slot *resting;
	unsigned leased, leased_held, shared_count, guest_count, resting_count;
	struct cursor cursor, cursor_within;
	struct view *views;
	struct listed *listed;
	struct offer *offers;
	struct request *requests;
	unsigned request_count;
	struct fetch fetch;
	struct published **published;
	unsigned published_count;
	bool dirty;	       /* what we publish is not what is, the bucket apart */
	uint8_t bucket;	       /* as published */
	bool swept;	       /* chunks of an earlier life are withdrawn */
	struct recent *recent; /* ring, allocated with the first transfer */
	unsigned recent_at;
	struct custody *restored; /* custody as found on disk, until ipam_start */
	size_t restored_count, restored_capacity;
	UT_hash_handle hh;
};

/* Ways to break the rules, so that the checkers can show that they notice. */
enum ipam_fault {
	IPAM_FAULT_NONE,
	IPAM_FAULT_IGNORE_VERSION,  /* accepts a GRANT whatever its version */
	IPAM_FAULT_TAKE_BACK,	    /* the donor takes an unanswered offer back */
	IPAM_FAULT_LOWEST,	    /* gives an endpoint the lowest address that is free here, whoever has custody of it */
	IPAM_FAULT_SAVE_LATE,	    /* gives without waiting for the disk: a power cut forgets the gift */
	IPAM_FAULT_FORGET_NAIVE,    /* an heir takes what it itself believes the victim's */
	IPAM_FAULT_FORGET_SNAPSHOT, /* promises tell only what is held or offered now */
	IPAM_FAULT_FORGET_SILENT,   /* an heir does without the promise of one host */
	IPAM_FAULT_NO_HOLD	    /* goes on as if its disk had not been set back */
};

struct ipam {
	struct ipam_config config;
	struct ipam_ops ops;
	void *ctx;
	struct pool *pools;
	struct peer *peers;
	struct decree *decrees;
	uint64_t last_xid;
	bool started;
	bool forgotten; /* a decree names us */
	bool known;	/* to so many that an heir of any donor would ask us */
	enum ipam_hold hold;
	enum ipam_fault fault;
	struct ipam_counters counters;
};

/* custody.c */
typedef void custody_save_fn(void *ctx, const struct custody *entry, bool durable); /* len 0: forget the key of start */
size_t custody_index(const struct custody_map *map, u128 offset);		    /* the first entry that ends behind offset */
const struct custody *custody_at(const struct custody_map *map, u128 offset);	    /* NULL: never ours in any way */
bool custody_newer(uint32_t reign_a, uint64_t version_a, uint32_t reign_b, uint64_t version_b);
/* Makes `entry` the truth for its range. One durable save at the most, which commits: before it everything older is still
 * readable, after it nothing older wins. `save` may be NULL (restore). */
void custody_put(struct custody_map *map, const struct custody *entry, bool durable, custody_save_fn *save, void *ctx);
/* For restore: only where it is newer than what is there. -1: contradicts an entry of the same version. */
int custody_overlay(struct custody_map *map, const struct custody *entry);
/* Forgets what lies outside: a damaged disk must not make us count or give addresses that the pool does not have. */
void custody_clip(struct custody_map *map, u128 start, u128 len);
void custody_fini(struct custody_map *map);

/* slice.c */
bool slice_of(const struct pool *pool, uint32_t hostno, u128 *ret_start, u128 *ret_len); /* false: it has none */
uint32_t slice_host(const struct pool *pool, u128 offset); /* whose slice it is in, if that host is; 0: in none */
u128 first_slice(const struct pool *pool);		   /* behind the last address that is the maker's */
void slice_fill(struct ipam *ipam, struct pool *pool);
u128 slice_held_outside(const struct pool *pool); /* what is ours and not from our own slice */
bool slice_untouched(const struct pool *pool);	  /* nothing of it was ever given to anybody */

/* lease.c */
struct slot *slot_find(const struct pool *pool, u128 offset);
struct slot *slot_lease(struct ipam *ipam, struct pool *pool, u128 offset, enum ipam_use use, uint8_t shared_flags,
	const char *owner, uint64_t now_ms);
void slot_rest(struct ipam *ipam, struct pool *pool, struct slot *slot, uint64_t now_ms);
void slot_rest_since(struct ipam *ipam, struct pool *pool, u128 offset, uint64_t since_ms); /* of another host's use */
void slot_drop(struct ipam *ipam, struct pool *pool, struct slot *slot);		    /* plain free again, or gone */
void slot_set_owner(struct slot *slot, const char *owner);
void slot_save(struct ipam *ipam, struct pool *pool, struct slot *slot);
int slot_restore(struct pool *pool, u128 offset, const struct saved_lease *saved);
const char *slot_owner(const struct slot *slot);
void slots_check_custody(struct ipam *ipam, struct pool *pool); /* after start and after every change of custody */
void slots_start(struct pool *pool);
uint64_t slots_cool(struct ipam *ipam, struct pool *pool, uint64_t now_ms); /* returns when to call again */
void slots_fini(struct pool *pool);
u128 pool_free(const struct pool *pool); /* ours, not leased, not listed as shared elsewhere; resting ones count */
bool free_find(struct pool *pool, u128 start, u128 len, u128 *ret_offset);
/* Up to `count` free addresses of [start, start + len) in at most IPAM_RANGES_MAX ranges, each within one custody entry. */
unsigned free_pick(struct pool *pool, u128 start, u128 len, u128 count, bool resting_too, struct custody *ranges);
/* Those that were released last, one by one. For who leaves. */
unsigned free_pick_resting(struct pool *pool, struct custody *ranges);
/* Every free address that has rested, in whole ranges, at most IPAM_RANGES_MAX at a time. */
unsigned free_pick_all(const struct pool *pool, uint64_t now_ms, struct custody *ranges);

/* peers.c */
enum peer_life peer_life(const struct ipam *ipam, uint32_t hostno);
bool view_wanted(const struct view *view);
bool view_few(const struct view *view); /* it must not be given anything yet, or has not said */
uint8_t view_bucket(const struct view *view);
u128 view_held(const struct view *view, unsigned *ret_fragments);
bool view_holds_some(const struct view *view, u128 start, u128 len);
void view_set_chunk(struct pool *pool, uint32_t hostno, unsigned index, struct ipam_chunk *chunk);
void view_drop(struct pool *pool, uint32_t hostno);
bool view_covers(const struct view *view, const struct custody *range);
/* It tells of an address that we hold what only somebody who got it from us could: we do not remember giving it. */
bool view_contradicts(const struct pool *pool, const struct view *view);
void views_fini(struct pool *pool);
const struct listed *listed_find(const struct pool *pool, u128 offset);
/* Who has the address, by our own facts and by what others publish: 0 = nobody says. */
uint32_t map_holder(const struct ipam *ipam, const struct pool *pool, u128 offset, uint32_t *ret_reign, uint64_t *ret_version);
uint32_t heir_of(const struct ipam *ipam, uint32_t hostno); /* itself, when it is not forgotten */
/* Who was given something of the range, by our own facts, by what others told or by a published offer, and does not show it yet:
 * on its way, or in use there already. 0 = nobody. One that is not dead, if there is any. */
uint32_t map_awaited(
	const struct ipam *ipam, const struct pool *pool, u128 start, u128 len, const struct custody *told, unsigned told_count);
/* Our own gifts of the range that nobody shows yet; returns how many, at most max. */
unsigned map_unseen_gifts(const struct pool *pool, u128 start, u128 end, struct custody *ret, unsigned max);
u128 map_known(const struct pool *pool, uint32_t self); /* addresses somebody is known to hold or to have been offered */
uint32_t owner_tag(const char *owner);
void publish(struct ipam *ipam, struct pool *pool);
void unpublish(struct ipam *ipam, struct pool *pool);

/* transfer.c */
uint64_t next_xid(struct ipam *ipam);
void message_send(struct ipam *ipam, uint32_t to, const struct ipam_message *message);
void on_req(struct ipam *ipam, uint32_t from, const struct ipam_message *message, uint64_t now_ms);
void on_ack(struct ipam *ipam, uint32_t from, const struct ipam_message *message);
/* Takes what is newer than our own facts; always answers with an ACK. */
void accept_ranges(
	struct ipam *ipam, struct pool *pool, uint32_t from, uint64_t xid, const struct custody *ranges, unsigned count);
void let_rest(struct ipam *ipam, struct pool *pool, const struct ipam_message *grant, uint64_t now_ms);
bool handback_is_over(const struct ipam *ipam, const struct pool *pool);
void accept_offers_of(struct ipam *ipam, struct pool *pool, const struct view *view);
void settle_offers_to(struct ipam *ipam, struct pool *pool, uint32_t to);
void prune_offers(struct pool *pool);
void settle_by_view(struct ipam *ipam, struct pool *pool, const struct view *view);
void offers_restore(struct pool *pool, uint32_t self);
uint64_t offers_tick(struct ipam *ipam, struct pool *pool, uint64_t now_ms);
void offers_hurry(struct pool *pool, uint32_t to, uint64_t now_ms);
void offers_fini(struct pool *pool);
void pool_recount(struct ipam *ipam, struct pool *pool);
/* Prefetch when wanted, hand-back when not. Return when to call again. */
uint64_t fetch_tick(struct ipam *ipam, struct pool *pool, uint64_t now_ms);
uint64_t handback_tick(struct ipam *ipam, struct pool *pool, uint64_t now_ms);
enum fetch_answer { FETCH_GRANTED, FETCH_REFUSED /* or no answer */, FETCH_NOT_YET };
void fetch_answered(struct pool *pool, uint64_t xid, enum fetch_answer answer, uint64_t now_ms);

/* request.c */
void request_begin(struct ipam *ipam, struct pool *pool, const struct request *request, uint64_t now_ms);
/* Answers every waiting request that can be answered now, and moves the others on. Calls back: the pool may be gone afterwards.
 */
void requests_run(struct ipam *ipam, const struct id128 *pool_id, uint64_t now_ms);
void on_deny(struct ipam *ipam, uint32_t from, const struct ipam_message *message, uint64_t now_ms);
void on_moved(struct ipam *ipam, uint32_t from, const struct ipam_message *message, uint64_t now_ms);
void on_granted(struct ipam *ipam, struct pool *pool, uint64_t xid); /* before requests_run: whoever is not served asks afresh */
/* A donor that has no more repeats an open gift instead of saying so. Who is not served by that need not wait for its answer. */
void on_gift(struct pool *pool, uint32_t from, uint64_t now_ms);
/* A question for an address that we had just given away may have overtaken the gift: it is asked again when that has arrived. */
void on_arrived(struct pool *pool, const struct custody *gift);
void requests_reconsider(struct pool *pool); /* the map or the state of a host changed */
void requests_hurry(struct pool *pool);	     /* who refused us may give now */
void requests_end(struct ipam *ipam, struct request *requests, enum ipam_result_code code); /* of a pool that is gone */
uint64_t requests_due(const struct pool *pool);
void request_free(struct request *request);

/* decree.c */
struct peer *peer_find(const struct ipam *ipam, uint32_t hostno);
struct peer *peer_get(struct ipam *ipam, uint32_t hostno);
bool peer_refused(const struct ipam *ipam, uint32_t hostno);
bool peer_ineligible(const struct ipam *ipam, uint32_t hostno);
struct decree *decree_find(const struct ipam *ipam, uint32_t victim);
struct decree *decree_get(struct ipam *ipam, uint32_t victim);
bool decree_names(const struct ipam_decree *d, uint32_t hostno); /* as victim or assumed fenced */
void decree_save(struct ipam *ipam, const struct decree *decree, bool durable);
void decrees_apply(struct ipam *ipam);	/* marks peers anew */
void decrees_settle(struct ipam *ipam); /* what a finished decree ends */
void decree_adopt(struct ipam *ipam, const struct ipam_decree *d, uint64_t now_ms);
void note_goodbyes(struct ipam *ipam); /* saved with the next durable save */
int decree_restore(struct ipam *ipam, uint32_t victim, const void *val, size_t len, struct err *err);
void decrees_start(struct ipam *ipam, uint64_t now_ms);
void decrees_fini(struct ipam *ipam);
void on_claim(struct ipam *ipam, uint32_t from, const struct ipam_message *message);
void tell_decree(struct ipam *ipam, uint32_t to, const struct ipam_decree *d);
void answer_refused(struct ipam *ipam, uint32_t from);
void ops_decree(struct ipam *ipam, const struct ipam_decree *d);

/* heir.c */
void claim_begin(struct ipam *ipam, struct decree *decree, uint64_t now_ms);
void claim_free(struct claim *claim);
void claim_hurry(struct ipam *ipam, uint32_t hostno, uint64_t now_ms);
void on_promise(struct ipam *ipam, uint32_t from, const struct ipam_message *message, uint64_t now_ms);
uint64_t heir_claims_tick(struct ipam *ipam, uint64_t now_ms);

/* pool.c */
struct pool *pool_find(const struct ipam *ipam, const struct id128 *id);
struct pool *pool_known(const struct ipam *ipam, const struct id128 *id); /* with a definition */
struct pool *pool_get(struct ipam *ipam, const struct id128 *id);	  /* makes one without; NULL at the limit */
int pool_check_def(const struct ipam_pool_def *def, struct err *err);
void pool_define(struct ipam *ipam, struct pool *pool, const struct ipam_pool_def *def);
void pool_free_if_empty(struct ipam *ipam, struct pool *pool);
void pool_free_all(struct ipam *ipam, struct pool *pool);
/* Of one entry; one without length is forgotten. */
void custody_save(struct ipam *ipam, const struct pool *pool, const struct custody *entry, bool durable);
void pool_put_custody(struct ipam *ipam, struct pool *pool, const struct custody *entry, bool durable);
void pool_use_view(struct ipam *ipam, struct pool *pool, const struct view *view); /* what is ours to take, or has arrived */
void pool_use_views(struct ipam *ipam, struct pool *pool);
void pool_after_change(struct ipam *ipam, struct pool *pool, uint64_t now_ms);
void pool_taken(struct ipam *ipam, struct pool *pool); /* its custody changed by an estate */
void pools_wipe(struct ipam *ipam);		       /* every pool ends here */

/* For tests. */
void ipam_break(struct ipam *ipam, enum ipam_fault fault);
void ipam_each_custody(
	const struct ipam *ipam, const struct id128 *pool, void (*fn)(void *ctx, const struct custody *entry), void *ctx);

#endif

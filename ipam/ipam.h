/* Address management without a coordinator: custody of address ranges, passed from hand to hand.
 *
 * Pure core. (state, event, now, random) in, actions out through struct ipam_ops. No clock, socket, file or thread. One object
 * per host holds all pools of that host. Addresses are offsets in the pool: 0 is the first address of the prefix. Nothing here
 * knows about prefixes of Docker networks beyond struct ipam_pool_def, so the host-number pool of the cluster is served by the
 * same code.
 *
 * Order is the contract: the shell performs actions in exactly the order in which they are emitted, and does not start one before
 * a durable save ahead of it is known to be on disk. A save that is not durable survives the process (not the power).
 *
 * Rules, invariants I1 to I11 and messages: the top of ipam.c and docs/ipam.md. */
#ifndef IPAM_IPAM_H
#define IPAM_IPAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/err.h"
#include "base/id.h"

#define IPAM_OWNER_MAX 128	/* bytes of an owner label */
#define IPAM_MESSAGE_MAX 1024	/* bytes of one message or one published chunk */
#define IPAM_CHUNKS_MAX 64	/* published chunks of one pool by one host */
#define IPAM_COOL_DOWN_MS 60000 /* a released address rests so long while others are free */
#define IPAM_CHUNK_MAX 256	/* addresses passed in one transfer */
#define IPAM_REQUEST_MS 2000	/* default deadline of a request that needs another host */
#define IPAM_ASSUMED_MAX 32	/* hosts that a decree assumes fenced */
#define IPAM_DECREE_MAX 256	/* bytes of an encoded decree */
#define IPAM_SLICE_BITS 20	/* of a host number */

struct ipam;

struct ipam_pool_def {
	struct id128 id;
	struct prefix
		prefix;	     /* masked. Size is 2^(bits - length); IPv6 pools up to /64 and longer prefixes use 128-bit offsets */
	bool edges_reserved; /* first and last address (IPv4 /30 and shorter), or only the first (IPv6), are never given out */
	/* The pool gives out host numbers. A number that some host had is its for good, whoever's custody it comes from: the
	 * estate of a forgotten host moves without the numbers of the hosts that are known. */
	bool host_numbers;
	/* Not 0: the upper half of the pool is cut into 2^slice_bits slices, and slice n is host n's from the beginning
	 * (slice.c). At most IPAM_SLICE_BITS, and an address at least for each. */
	uint8_t slice_bits;
};

enum ipam_result_code {
	IPAM_GRANTED,
	IPAM_IN_USE,	  /* the address asked for is leased; holder_hostno and owner say by whom when known */
	IPAM_EXHAUSTED,	  /* no free address on any host that answered, and all were asked */
	IPAM_UNREACHABLE, /* the holder of what was asked for (holder_hostno) did not answer in time */
	IPAM_HELD,	  /* this host gives nothing at present: see ipam_hold */
	IPAM_OUTSIDE,	  /* not in the pool or in the range asked for, or a reserved edge */
	IPAM_UNKNOWN_POOL
};

struct ipam_result {
	enum ipam_result_code code;
	struct ip address;		/* when granted */
	uint32_t holder_hostno;		/* 0 = unknown or this host */
	char owner[IPAM_OWNER_MAX + 1]; /* "" = unknown */
	bool repeated;			/* granted before to the same owner: idempotent replay */
	bool not_yet; /* with UNREACHABLE: who was asked may not give to this host before more hosts know of it */
	bool shared;  /* with IN_USE: other hosts have it as a shared lease, so IPAM_USE_SHARED would be granted */
};

/* What a lease is for. A shared lease (gateway, aux addresses) may be held by several hosts at once for the same purpose: it is
 * published, and no host gives such an address to an endpoint while any host lists it. */
enum ipam_use { IPAM_USE_ENDPOINT = 0, IPAM_USE_SHARED = 1 };

struct ipam_want {
	struct id128 pool;
	struct ip address;    /* family 0: any */
	struct prefix within; /* only from this part of the pool; unset: all. An explicit address may lie outside it */
	enum ipam_use use;
	const char *owner;   /* label, at most IPAM_OWNER_MAX bytes; same owner and explicit address again = repeated success
			      * ("" never matches) */
	bool shared_first;   /* with use SHARED and no address: an address already listed as shared gateway by any host, else the
			      * first usable one */
	uint32_t timeout_ms; /* 0: IPAM_REQUEST_MS */
};

struct ipam_lease {
	struct id128 pool;
	struct ip address;
	enum ipam_use use;
	uint64_t since_ms; /* CLOCK_BOOTTIME when given or last changed */
	bool bound;	   /* set by ipam_bind: an endpoint uses it */
	char owner[IPAM_OWNER_MAX + 1];
};

/* "The estate of `victim` goes to `heir`." The victim is out of the cluster for good: by the operator's word that it is stopped
 * (powered off, wiped), or by its own goodbye. Hosts assumed fenced are stopped by the same word: they are not asked, and like
 * the victim they must drop everything when they come back. */
struct ipam_decree {
	uint32_t victim, heir;
	struct id128 victim_id, heir_id;
	uint32_t number; /* of two attempts of one heir, and of an heir over one that yielded, the higher counts */
	bool done;	 /* the estate has moved */
	unsigned assumed_count;
	uint32_t assumed[IPAM_ASSUMED_MAX]; /* ascending */
};
size_t ipam_decree_encode(const struct ipam_decree *decree, uint8_t buf[IPAM_DECREE_MAX]);
int ipam_decree_decode(struct ipam_decree *ret_decree, const void *bytes, size_t len);

struct ipam_ops {
	/* Keep (key, val), or forget key when val is NULL. Keys start with 'L' for what belongs to this boot (leases: stored
	 * where a reboot clears them), with anything else for what must survive. */
	void (*save)(void *ctx, const void *key, size_t key_len, const void *val, size_t len, bool durable);
	/* Publish this host's view of a pool, chunk by chunk (0..IPAM_CHUNKS_MAX-1); val NULL withdraws a chunk. */
	void (*publish)(void *ctx, const struct id128 *pool, unsigned chunk, const void *val, size_t len);
	/* Unreliable message to another host; the core repeats what matters. */
	void (*send)(void *ctx, uint32_t to_hostno, const void *msg, size_t len);
	/* A request ended. Called once per ticket, also from within ipam_request when it can be answered at once. */
	void (*complete)(void *ctx, uint64_t ticket, const struct ipam_result *result);
	void (*random)(void *ctx, void *buf, size_t len);
	/* A decree that concerns this host began or changed: this host is its heir (publish it: the victim must be able to see
	 * it), was its heir and yielded, or knows now that it is done, or is named by it and has dropped everything (leave the
	 * cluster, come back as somebody else). May be NULL. */
	void (*decree)(void *ctx, const struct ipam_decree *decree);
	/* Another host publishes a later fact about an address that we hold, so we have forgotten that we gave it away: our disk
	 * was set back. The hold is IPAM_HOLD_FOR_GOOD from here on. May be NULL. */
	void (*set_back)(void *ctx, uint32_t by_hostno);
	/* Another host asks for an address of a pool that is not known here; the pool may have a slice of ours. Joined now, it is
	 * served when it asks again. May be NULL. */
	void (*pool_asked)(void *ctx, const struct id128 *pool);
};

struct ipam_config {
	uint32_t hostno;      /* ours */
	struct id128 host_id; /* ours; stable, breaks ties */
};

struct ipam *ipam_new(const struct ipam_config *config, const struct ipam_ops *ops, void *ctx);
void ipam_free(struct ipam *ipam);

/* Gives back one saved pair; called for each before anything else. Bytes that do not decode: ERR_CORRUPT or ERR_VERSION, state
 * untouched. */
int ipam_restore(struct ipam *ipam, const void *key, size_t key_len, const void *val, size_t len, struct err *err);
/* After the last ipam_restore: publishes, retries open offers. */
void ipam_start(struct ipam *ipam, uint64_t now_ms);

/* A pool made by this host: it holds all of it, durably saved before anything is given. */
int ipam_pool_create(struct ipam *ipam, const struct ipam_pool_def *def, uint64_t now_ms, struct err *err);
/* A pool made elsewhere: known, nothing held. Joining what is known with the same def is fine, with another def ERR_CONFLICT. */
int ipam_pool_join(struct ipam *ipam, const struct ipam_pool_def *def, uint64_t now_ms, struct err *err);
/* While wanted, some free addresses are fetched ahead (low water: below 2 free or 25 %). Not wanted any more: free holdings go to
 * hosts that want the pool, when there are any. `spares` raises the low-water mark (host numbers: 16), 0 = default. */
void ipam_pool_want(struct ipam *ipam, const struct id128 *pool, bool wanted, unsigned spares, uint64_t now_ms);
/* This host leaves the cluster: leases end, nothing is given to endpoints any more, and everything in its custody goes to the
 * other hosts, of each pool to whom has the least. Numbers of hosts stay behind with it: they are nobody else's ever. */
void ipam_retire(struct ipam *ipam, uint64_t now_ms);
/* Nothing is left that anybody reachable could take, and what was given has been taken. */
bool ipam_has_retired(const struct ipam *ipam);
/* All of it is in the custody of this host, the slices of others aside: dropping it takes the pool out of the world. */
bool ipam_pool_is_whole(const struct ipam *ipam, const struct id128 *pool);
/* Forgets a pool of which this host holds everything, or nothing. Else ERR_CONFLICT: addresses would be lost. Leases end. */
int ipam_pool_drop(struct ipam *ipam, const struct id128 *pool, struct err *err);

/* Asks for an address; the answer comes through ops->complete(ticket). */
void ipam_request(struct ipam *ipam, const struct ipam_want *want, uint64_t ticket, uint64_t now_ms);
/* The ticket's asker is gone. True: the request was waiting, asks nobody any more, and complete is not called; what may still
 * arrive for it arrives as free addresses. False: it has ended, its answer is on the way. */
bool ipam_cancel(struct ipam *ipam, uint64_t ticket);
/* Free or unknown is fine: returns false. */
bool ipam_release(struct ipam *ipam, const struct id128 *pool, const struct ip *address, uint64_t now_ms);
/* Marks a lease as in use by an endpoint (or not any more) and renames its owner (NULL keeps it). False when there is no such
 * lease. */
bool ipam_bind(
	struct ipam *ipam, const struct id128 *pool, const struct ip *address, bool bound, const char *owner, uint64_t now_ms);
/* Makes an endpoint's lease that is not bound a shared one, published as such; nothing changes who holds it. An engine asks for
 * an auxiliary address like for an endpoint's: only the network tells later what it was for. Shared already: only renamed. False
 * when there is no such lease, an endpoint uses it, or this host has as many shared ones in the pool as it can publish. */
bool ipam_make_shared(struct ipam *ipam, const struct id128 *pool, const struct ip *address, const char *owner, uint64_t now_ms);
bool ipam_lookup(const struct ipam *ipam, const struct id128 *pool, const struct ip *address, struct ipam_lease *ret_lease);
void ipam_each_lease(const struct ipam *ipam, const struct id128 *pool /* NULL: all */,
	void (*fn)(void *ctx, const struct ipam_lease *lease), void *ctx);

/* From other hosts. Bytes are untrusted in form: what does not decode is counted and ignored. */
void ipam_message(struct ipam *ipam, uint32_t from_hostno, const void *msg, size_t len, uint64_t now_ms);
void ipam_peer_chunk(struct ipam *ipam, uint32_t hostno, const struct id128 *pool, unsigned chunk, const void *val, size_t len,
	uint64_t now_ms); /* val NULL: withdrawn */
/* What this host remembers may be older than what it did (I11). While it is on hold, leases that there are stay, and nothing else
 * happens that a forgotten fact could make wrong: no address is given, here or to others, none is taken, nothing is promised or
 * inherited. Requests wait, and end with IPAM_HELD at their deadline. */
enum ipam_hold {
	IPAM_HOLD_NONE,
	IPAM_HOLD_FROZEN,  /* by the operator, until he says otherwise: others are refused */
	IPAM_HOLD_ASKING,  /* until others have said that they know nothing later */
	IPAM_HOLD_FOR_GOOD /* they do: nothing ends it in this life */
};
void ipam_hold(struct ipam *ipam, enum ipam_hold hold, uint64_t now_ms);
enum ipam_hold ipam_holds(const struct ipam *ipam);
/* Every host ever admitted is told by one of these two before ipam_start and when it becomes known: an estate moves only when all
 * of them have promised. */
void ipam_peer_alive(struct ipam *ipam, uint32_t hostno, bool alive, uint64_t now_ms);
void ipam_peer_left(struct ipam *ipam, uint32_t hostno, uint64_t now_ms); /* it said goodbye: its promise is not needed */
/* A host gets addresses from this one unless it is told that it is not eligible: while its admission is not stored by a majority
 * of the not forgotten hosts (at least one beside its sponsor), nobody but us could know that it has some. Nor does one that says
 * itself that few know of it (ipam_be_known). */
void ipam_peer_eligible(struct ipam *ipam, uint32_t hostno, bool eligible, uint64_t now_ms);

/* Begins to move the estate of a host to this one; 0 when it is under way or done already. `fenced`: the operator's word that the
 * victim is stopped for good, not needed for a host that said goodbye. Again with more assumed hosts: a new attempt that waits
 * for fewer. ERR_INVALID: not fenced, or names this host. ERR_CONFLICT: this host has promised the estate to another heir. */
int ipam_forget(struct ipam *ipam, uint32_t victim, const struct id128 *victim_id, bool fenced, const uint32_t *assumed,
	unsigned assumed_count, uint64_t now_ms, struct err *err);
/* A decree published by its heir. One that names this host ends its custody, whoever says so; a finished one is adopted. */
void ipam_decree_seen(struct ipam *ipam, const struct ipam_decree *decree, uint64_t now_ms);
bool ipam_decree_get(const struct ipam *ipam, uint32_t victim, struct ipam_decree *ret_decree);
void ipam_each_decree(const struct ipam *ipam, void (*fn)(void *ctx, const struct ipam_decree *decree), void *ctx);
/* Whose answers are missing before the estate can move; only at its heir. */
void ipam_each_awaited(const struct ipam *ipam, uint32_t victim, void (*fn)(void *ctx, uint32_t hostno), void *ctx);
bool ipam_is_forgotten(const struct ipam *ipam); /* this host is named by a decree: it holds nothing and gets nothing any more */
/* Does what is due and returns when to call again (now_ms scale; UINT64_MAX: nothing pending). */
uint64_t ipam_tick(struct ipam *ipam, uint64_t now_ms);

/* This host is known to so many that its number cannot be given to another, and that whoever becomes a donor's heir hears of it.
 * From here on it uses its slices, and others give it addresses. Best before ipam_restore when it was so in an earlier life. */
void ipam_be_known(struct ipam *ipam, uint64_t now_ms);

/* For `trestle ipam show`: one line per holder of a pool, this host included (hostno = ours). */
struct ipam_share {
	uint32_t hostno;
	u128 held;	/* addresses in custody */
	u128 free_held; /* of these not leased; for other hosts a rounded figure */
	unsigned fragments;
	bool wanted;
};
struct ipam_totals {
	u128 size;	 /* all addresses of the prefix */
	u128 reserved;	 /* edges */
	u128 held_known; /* sum over all known holders and open offers */
	unsigned leases; /* on this host */
};
bool ipam_pool_totals(const struct ipam *ipam, const struct id128 *pool, struct ipam_totals *ret_totals);
void ipam_def_totals(const struct ipam_pool_def *def, struct ipam_totals *ret_totals); /* of any: `size` and `reserved` */
void ipam_each_share(
	const struct ipam *ipam, const struct id128 *pool, void (*fn)(void *ctx, const struct ipam_share *share), void *ctx);

struct ipam_counters {
	uint64_t requests, local_grants, transfers_in, transfers_out, denied, bad_messages, repeated;
	uint64_t refused; /* messages of hosts that are forgotten */
};
const struct ipam_counters *ipam_counters(const struct ipam *ipam);

#endif

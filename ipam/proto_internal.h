/* The bytes of the address management: messages between hosts, published chunks, saved values. docs/ipam.md draws them.
 *
 * Every encoding starts with IPAM_FORMAT. Decoders take any bytes, allocate only in proportion to them, and leave their output
 * untouched on failure. Nothing here knows pools, hosts or time. */
#ifndef IPAM_PROTO_INTERNAL_H
#define IPAM_PROTO_INTERNAL_H

#include "ipam/ipam.h"

#define IPAM_FORMAT 1
/* Ranges in one GRANT or ACK: at most 53 bytes each, so that a message stays below IPAM_MESSAGE_MAX. */
#define IPAM_RANGES_MAX 16
#define IPAM_HINTS_MAX 8
#define IPAM_GIFTS_MAX 8 /* of one DENY */
/* The highest that a host can have: it bounds what a decree or a promise makes us remember. */
#define IPAM_HOSTNO_MAX 1048575

/* A range with the last thing this host itself knows of its custody. `to` is who got it at (reign, version). */
struct custody {
	u128 start, len;
	uint64_t version;
	uint32_t reign;
	uint32_t to;
	uint64_t xid; /* not 0: given by us under this transfer, and `to` has not been seen to have it (an open offer) */
};

enum ipam_message_type {
	IPAM_MSG_REQ = 1,
	IPAM_MSG_GRANT,
	IPAM_MSG_DENY,
	IPAM_MSG_MOVED,
	IPAM_MSG_ACK,
	IPAM_MSG_CLAIM,	  /* an heir asks for a promise, and for one page of what it needs to know */
	IPAM_MSG_PROMISE, /* the promise and the page; or who holds the promise */
	IPAM_MSG_DECREE,  /* to whom a decree names, and when one is done */
	IPAM_MSG_MAX
};

enum ipam_ask {
	IPAM_ASK_HOSTS = 1, /* hosts that the other knows and that are not gone */
	IPAM_ASK_POOLS,	    /* pools that it knows */
	IPAM_ASK_RANGES,    /* of the pool in the header: the last fact that it itself took part in, for each range */
	IPAM_ASK_MAX
};
#define IPAM_REPORT_BYTES 700  /* of the items of one page: with the longest decree it stays below IPAM_MESSAGE_MAX */
#define IPAM_REPORT_RANGES 128 /* the smallest takes 5 bytes */
#define IPAM_REPORT_HOSTS 140
#define IPAM_REPORT_POOLS 43
#define IPAM_OVER_MAX 8

#define IPAM_REQ_URGENT (1u << 0) /* someone waits: give the last one too */
#define IPAM_REQ_EXACT (1u << 1)  /* this one address */
#define IPAM_REQ_SHARED (1u << 2) /* for a shared lease */
#define IPAM_REQ_FEW (1u << 3)	  /* few hosts know of the asker yet */
#define IPAM_REQ_FLAGS 15u

enum ipam_deny_reason {
	IPAM_DENY_NONE = 1, /* no free address in the range asked for */
	IPAM_DENY_IN_USE,   /* the address is leased; owner says to whom */
	IPAM_DENY_SHARED,   /* the address is a shared lease: for a shared use no custody is needed */
	IPAM_DENY_NOT_MINE, /* not in our custody, and we do not know whose */
	IPAM_DENY_NO_POOL,  /* the pool is not known here */
	IPAM_DENY_NOT_YET,  /* too few hosts have stored the admission of the one that asks */
	IPAM_DENY_MAX
};

struct ipam_hint {
	uint32_t hostno;
	uint8_t bucket;
};

struct ipam_message {
	enum ipam_message_type type;
	struct id128 pool;
	uint64_t xid;
	/* REQ */
	uint8_t flags;
	u128 start, len; /* from where */
	uint32_t count;	 /* at most so many */
	/* GRANT, ACK; PROMISE; DENY: the sender's gifts that nobody shows yet, IPAM_GIFTS_MAX */
	unsigned range_count;
	struct custody ranges[IPAM_REPORT_RANGES]; /* start, len, reign, version; in a PROMISE and a DENY also `to` */
	uint8_t rest_s; /* GRANT: ranges of one address were in use so short a time ago that they rest so long */
	/* DENY */
	enum ipam_deny_reason reason;
	uint8_t bucket; /* free addresses of the sender, see free_bucket */
	char owner[IPAM_OWNER_MAX + 1];
	unsigned hint_count;
	struct ipam_hint hints[IPAM_HINTS_MAX];
	/* MOVED */
	uint32_t to, reign;
	uint64_t version;
	/* CLAIM, PROMISE, DECREE */
	struct ipam_decree decree; /* of a PROMISE that is refused: the one that is in its way */
	enum ipam_ask ask;
	u128 cursor; /* where the page begins: hosts and pools above this, ranges that end above this */
	unsigned over_count;
	struct ipam_over {
		uint32_t hostno, number;
	} over[IPAM_OVER_MAX]; /* CLAIM: heirs that yielded, up to which number */
	bool held;	       /* PROMISE: refused */
	bool more;	       /* another page follows, from the last item on */
	unsigned host_count, pool_count;
	uint32_t hosts[IPAM_REPORT_HOSTS];
	struct id128 pools[IPAM_REPORT_POOLS];
};

/* Returns the length. */
size_t ipam_message_encode(const struct ipam_message *message, uint8_t buf[IPAM_MESSAGE_MAX]);
int ipam_message_decode(struct ipam_message *ret_message, const void *bytes, size_t len);

#define IPAM_SHARED_FIRST (1u << 0) /* taken as "the gateway", without naming an address */

struct shared {
	u128 offset;
	uint8_t flags;
	uint32_t tag; /* hash of the owner label: tells gateways from aux addresses across hosts */
};

/* One published chunk, decoded. Holdings are ascending and do not overlap. */
struct ipam_chunk {
	bool wanted, few;
	uint8_t bucket;
	unsigned holding_count, offer_count, shared_count;
	struct custody *holdings; /* start, len, reign, version */
	struct custody *offers;	  /* with to and xid */
	struct shared *shared;
};

struct ipam_chunk *ipam_chunk_decode(const void *bytes, size_t len); /* NULL when it does not decode */
void ipam_chunk_free(struct ipam_chunk *chunk);

/* Writes chunks one after another: an item that does not fit says so, and the caller starts the next chunk. */
struct chunk_writer {
	uint8_t buf[IPAM_MESSAGE_MAX];
	size_t len;
	u128 last_end; /* of the holding before, in this chunk */
};
void chunk_begin(struct chunk_writer *w, bool wanted, bool few, uint8_t bucket);
bool chunk_put_shared(struct chunk_writer *w, const struct shared *shared);
bool chunk_put_offer(struct chunk_writer *w, const struct custody *offer);
bool chunk_put_holding(struct chunk_writer *w, const struct custody *holding);

uint8_t free_bucket(u128 count); /* 0 for 0, else 1 + floor(log2): changes rarely while the count does */
u128 bucket_low(uint8_t bucket); /* the least count with this bucket */

/* Saved pairs. The key's first byte is the kind. */
enum ipam_saved_kind { IPAM_SAVED_POOL = 'P', IPAM_SAVED_CUSTODY = 'C', IPAM_SAVED_LEASE = 'L', IPAM_SAVED_DECREE = 'F' };
#define IPAM_KEY_MAX 33

enum want_state { WANT_UNTOLD, WANT_YES, WANT_NO, WANT_MAX };
enum slot_state { SLOT_LEASED, SLOT_RESTING, SLOT_MAX };

struct saved_pool {
	struct prefix prefix;
	bool edges_reserved, host_numbers;
	enum want_state wanted;
	uint32_t spares;
	uint8_t slice_bits;
};

struct saved_lease {
	enum slot_state state;
	enum ipam_use use;
	bool bound;
	uint8_t shared_flags;
	uint64_t since_ms;
	char owner[IPAM_OWNER_MAX + 1];
};

#define IPAM_VALUE_MAX 256

size_t ipam_key_encode(uint8_t *buf, enum ipam_saved_kind kind, const struct id128 *pool, u128 offset); /* buf: IPAM_KEY_MAX */
int ipam_key_decode(const void *key, size_t len, enum ipam_saved_kind *ret_kind, struct id128 *ret_pool, u128 *ret_offset);
size_t saved_pool_encode(const struct saved_pool *saved, uint8_t buf[IPAM_VALUE_MAX]);
int saved_pool_decode(struct saved_pool *ret_saved, const void *bytes, size_t len, struct err *err);
size_t saved_custody_encode(const struct custody *custody, uint8_t buf[IPAM_VALUE_MAX]);
int saved_custody_decode(struct custody *ret_custody, u128 start, const void *bytes, size_t len, struct err *err);
size_t saved_lease_encode(const struct saved_lease *saved, uint8_t buf[IPAM_VALUE_MAX]);
int saved_lease_decode(struct saved_lease *ret_saved, const void *bytes, size_t len, struct err *err);
/* `gone`: no decree, the host (decree.victim) said goodbye. The key's offset is the victim, its pool is zero. */
size_t saved_decree_encode(const struct ipam_decree *decree, bool gone, uint8_t buf[IPAM_VALUE_MAX]);
int saved_decree_decode(
	struct ipam_decree *ret_decree, bool *ret_gone, uint32_t victim, const void *bytes, size_t len, struct err *err);
size_t v_size(u128 value); /* bytes that it takes */

#endif

/* How a host becomes a member: JOIN and WELCOME, and the two records that stay. The bytes: docs/wire.md, "Admission" and "Saved
 * pairs".
 *
 * A joiner holds a token: (token id, expiry, secret). It sends JOIN, encrypted under the secret and signed with its host key. Any
 * member derives the same secret from the cluster key, so the sponsor remembers nothing; it asks the core for a host number and
 * answers WELCOME, encrypted under the secret and a Diffie-Hellman of two ephemeral keys, signed with *its* host key: the cluster
 * key, the number, and a few members to talk to. A JOIN is padded to one length, and no answer is longer. The sponsor signs
 * an *admission*, a record of topic 0 in its own shard, by which all others know that host id, key and number belong together,
 * and what the newcomer said of itself in its JOIN: name, addresses, boot tag. As long as nothing of that changes a newcomer has
 * nothing to publish, and its boot tag makes a handshake needless (introduce.c): the sponsor's comes with the WELCOME. The
 * sponsor vouches for that only at a first admission; who asks again as another process, the answer to the first having been lost
 * on it, publishes what it is and shakes hands.
 *
 * A replayed JOIN changes nothing as long as the core gives a host id the number it has; the address in it is a first hint only
 * and must not replace what a member has said of itself; the core's `admit` must refuse (0) a host that was forgotten. */
#ifndef GOSSIP_ADMISSION_INTERNAL_H
#define GOSSIP_ADMISSION_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gossip/gossip.h"
#include "gossip/keyring_internal.h"
#include "gossip/token.h"

#define SAVED_KEY_SIZE 17 /* one letter and a host id */
#define MEMBER_SAVE_MAX 160
#define ADMISSION_MAX 224
#define ADMISSION_JOIN_SIZE 600 /* and the most that an answer may have */
#define ADMISSION_HOSTNO_FORGOTTEN UINT32_MAX
#define ADMISSION_SIGNATURE_SIZE 64
#define ADMISSION_WELCOME_MEMBERS_MAX                                                                                            \
	6 /* so many short ones fit; two places in joiner_result are the admission's and the keys' */

/* What a host keeps of a member to find it again: key "m" | host_id. */
struct member_save {
	uint32_t hostno;
	struct id128 host_id; /* of public_key; both codecs check it */
	uint8_t public_key[IDENTITY_PUBLIC_SIZE];
	uint32_t epoch;
	struct gossip_addr addr;
	struct ip vtep;
	char name[GOSSIP_NAME_MAX + 1];
};

/* Writes key and value, returns the value's length (at most MEMBER_SAVE_MAX). */
size_t member_save_encode(const struct member_save *member, uint8_t ret_key[SAVED_KEY_SIZE], uint8_t ret_val[MEMBER_SAVE_MAX]);
/* ERR_CORRUPT, ERR_VERSION. */
int member_save_decode(
	const void *key, size_t key_len, const void *val, size_t len, struct member_save *ret_member, struct err *err);

/* That a member left, as of which version of it: key "l" | host_id. */
struct left_save {
	struct id128 host_id;
	uint32_t epoch, incarnation;
};

#define LEFT_SAVE_SIZE 9
void left_save_encode(const struct left_save *left, uint8_t ret_key[SAVED_KEY_SIZE], uint8_t ret_val[LEFT_SAVE_SIZE]);
/* ERR_CORRUPT, ERR_VERSION. */
int left_save_decode(const void *key, size_t key_len, const void *val, size_t len, struct left_save *ret_left, struct err *err);

/* That a host belongs: key "a" | host_id, in the sponsor's topic 0, and as a saved pair. The first host admits itself. */
struct admission {
	uint32_t hostno;
	struct id128 host_id;
	uint8_t public_key[IDENTITY_PUBLIC_SIZE];
	char name[GOSSIP_NAME_MAX + 1]; /* this and what follows as of the admission; the host record overrides it */
	struct gossip_addr addr;
	struct ip vtep;
	uint64_t boot; /* of its first start in this cluster, 0 = unknown */
	uint32_t sponsor_hostno;
	uint8_t signature[ADMISSION_SIGNATURE_SIZE]; /* the sponsor's, over cluster id and all of the above */
};

/* Fills the sponsor's number and the signature. */
void admission_sign(
	struct admission *admission, const struct id128 *cluster_id, const struct identity *sponsor, uint32_t sponsor_hostno);
size_t admission_encode(const struct admission *admission, uint8_t ret_key[SAVED_KEY_SIZE], uint8_t ret_val[ADMISSION_MAX]);
int admission_decode(
	const void *key, size_t key_len, const void *val, size_t len, struct admission *ret_admission, struct err *err);
/* About 50 us: do it once per record. ERR_DENIED names the host and the sponsor. The sponsor's key is that of the member with its
 * number. */
int admission_verify(const struct admission *admission, const struct id128 *cluster_id,
	const uint8_t sponsor_public_key[IDENTITY_PUBLIC_SIZE], struct err *err);

/* The values from ADMISSION_EXPIRED on travel in REFUSED: they stay what they are. */
enum admission_verdict {
	ADMISSION_OK,
	ADMISSION_SHORT,       /* not the length of a JOIN; silence */
	ADMISSION_VERSION,     /* silence */
	ADMISSION_KIND,	       /* not a JOIN (a stray WELCOME or REFUSED); silence */
	ADMISSION_CLUSTER,     /* a token of another cluster; silence */
	ADMISSION_TOKEN,       /* not made with our cluster key, or damaged; silence */
	ADMISSION_EXPIRED = 6, /* REFUSED from here on */
	ADMISSION_SIGNATURE,   /* not signed by the host key in it */
	ADMISSION_CONTENT,     /* name empty or with control characters, padding not zero */
	ADMISSION_BUSY,	       /* no host number now: the joiner repeats */
	ADMISSION_FORGOTTEN,   /* this host id is out of the cluster for good */
	ADMISSION_FAMILY,      /* its addresses are IPv6, ours IPv4, or the other way round */
	ADMISSION_VERDICT_MAX
};
const char *admission_verdict_name(enum admission_verdict verdict); /* "ok", "expired", ...: stable */

/* The sponsor: all borrowed for the call. */
struct admission_sponsor {
	const struct identity *identity;
	struct id128 cluster_id;
	const uint8_t *cluster_key;	    /* CLUSTER_KEY_SIZE: the one that tokens are checked with */
	const struct keyring_key *hand_out; /* what the joiner is given; NULL: cluster_key as the first key */
	uint32_t hostno;
	const struct member_save *members; /* to hand to the joiner: ourselves first, then alive ones; as many as fit are sent */
	unsigned member_count;		   /* 1..; more than ADMISSION_WELCOME_MEMBERS_MAX are left out */
	int64_t now_s;			   /* wall clock; 0 = tokens do not expire */
	void (*random)(void *ctx, void *buf, size_t len);
	/* 0 = cannot now, ADMISSION_HOSTNO_FORGOTTEN = never. Must be durable before it returns. */
	uint32_t (*admit)(void *ctx, const struct id128 *host_id);
	/* Whether this admission is the one that all others get. NULL: it is. */
	bool (*vouches)(void *ctx, const struct admission *admission);
	uint64_t boot; /* its boot tag */
	void *ctx;
};

struct admission_result {
	size_t reply_len; /* 0 = silence */
	uint8_t reply[GOSSIP_PACKET_MAX];
	/* With ADMISSION_OK only: */
	struct admission admission; /* signed: put it into topic 0 before sending the reply */
	struct member_save member;  /* the new member, epoch 0 */
};

/* A packet of class FRAME_CLASS_ADMISSION came from `from`. Keeps no state: the same JOIN gives the same number again. */
enum admission_verdict admission_handle(const struct admission_sponsor *sponsor, const struct gossip_addr *from,
	const void *packet, size_t len, struct admission_result *ret_result);

/* Whose JOIN it is, if it was made with a token of this key: at the price of any packet, without arithmetic on curves. That the
 * host itself says so is not proven by that. */
bool admission_peek(
	const struct id128 *cluster_id, const uint8_t *cluster_key, const void *packet, size_t len, struct id128 *ret_host_id);

/* The joiner's side of the same packets, for joiner.c. */
struct admission_request {
	const struct token *token;
	const struct identity *identity;
	char name[GOSSIP_NAME_MAX + 1];
	struct gossip_addr addr;      /* ip of family 0: the sponsor takes what it sees */
	struct ip vtep;		      /* family 0: the same as addr */
	uint64_t boot;		      /* tag of the start that follows */
	uint8_t ephemeral_secret[32]; /* random, used for this one admission */
};

struct admission_welcome {
	struct keyring_key key;
	struct admission admission; /* ours */
	bool vouched;		    /* it is what all others get */
	uint64_t sponsor_boot;
	unsigned member_count; /* at least 1: the sponsor first */
	struct member_save members[ADMISSION_WELCOME_MEMBERS_MAX];
};

/* The same bytes for the same request. */
void admission_join_encode(const struct admission_request *request, uint8_t ret_packet[ADMISSION_JOIN_SIZE]);
/* ADMISSION_OK: a WELCOME that answers this request. ADMISSION_EXPIRED and above: refused by a sponsor, for that reason.
 * Anything else: not for us, ignore. */
enum admission_verdict admission_reply_open(
	const struct admission_request *request, const void *packet, size_t len, struct admission_welcome *ret_welcome);

#endif

/* The cluster's keys: which there are, which counts, their bytes on disk and on their way to another host. Pure. The bytes:
 * docs/wire.md, "Keys".
 *
 * Keys are ordered: higher generation first, at equal ones the lower host id of who made it, then the lower fingerprint. Two
 *hosts that rotate at once, or on both sides of a cut, so make two keys of one generation, and every host that knows both takes
 *the same one for the newest. The first key of a cluster has generation 1 and no maker; every later one is signed by its maker
 *and carried with that signature, so that any member can hand it on.
 *
 *	receive-only	newer than the active one: accepted, not sent with
 *	active		what this host sends with
 *	retiring	older than the active one: accepted while somebody sends with it */
#ifndef GOSSIP_KEYRING_INTERNAL_H
#define GOSSIP_KEYRING_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "gossip/frame_internal.h"
#include "gossip/gossip.h"

#define KEYRING_MAX FRAME_KEYS_MAX
#define KEYRING_SIGNATURE_SIZE 64
#define KEYRING_FINGERPRINT_SIZE 8
#define KEYRING_KEY_SIZE (4 + 8 + 16 + CLUSTER_KEY_SIZE + KEYRING_SIGNATURE_SIZE) /* encoded */
#define KEYRING_SAVE_MAX (3 + KEYRING_MAX * KEYRING_KEY_SIZE)
#define KEYRING_SEALED_SIZE (1 + 24 + 16 + KEYRING_KEY_SIZE)
#define KEYRING_GENERATION_FIRST 1

struct keyring_key {
	uint32_t generation;
	uint64_t created_s;   /* its maker's wall clock, for people; 0 = unknown */
	struct id128 rotator; /* zero for the first key */
	uint8_t secret[CLUSTER_KEY_SIZE];
	uint8_t signature[KEYRING_SIGNATURE_SIZE];
};

struct keyring {
	unsigned count;			      /* at least 1 */
	unsigned active;		      /* index */
	struct keyring_key keys[KEYRING_MAX]; /* ascending: the last is the newest */
};

void keyring_init(struct keyring *ring, const uint8_t cluster_key[CLUSTER_KEY_SIZE]);
void keyring_wipe(struct keyring *ring);
static inline const struct keyring_key *keyring_newest(const struct keyring *ring)
{
	return &ring->keys[ring->count - 1];
}
static inline const struct keyring_key *keyring_active(const struct keyring *ring)
{
	return &ring->keys[ring->active];
}

/* > 0 when a is newer. */
int keyring_compare(const struct keyring_key *a, const struct keyring_key *b);
/* What a key may be named by in public: a hash. */
void keyring_fingerprint(const struct keyring_key *key, uint8_t ret_fingerprint[KEYRING_FINGERPRINT_SIZE]);
int keyring_find(const struct keyring *ring, const uint8_t fingerprint[KEYRING_FINGERPRINT_SIZE]); /* index, -1 = not there */
/* The byte in a frame's header: 1 for the first key, else from the fingerprint. Two keys may share one. */
uint8_t keyring_wire_id(const struct keyring_key *key);

/* In its place. A full ring gives up its oldest key that is not active. False: there already, or older than all of a full ring.
 */
bool keyring_add(struct keyring *ring, const struct keyring_key *key);
/* What is older than the active one goes. False: there was none. */
bool keyring_retire(struct keyring *ring);
void keyring_frames(const struct keyring *ring, struct frame_ring *ret_frames);

/* A key of the next generation. created_s is a label. */
void keyring_make(struct keyring_key *key, const struct keyring *ring, const struct id128 *cluster_id,
	const struct identity *rotator, uint64_t created_s, const uint8_t secret[CLUSTER_KEY_SIZE]);
/* Generation 1 is not signed and never verifies: it comes by admission only. */
bool keyring_verify(
	const struct keyring_key *key, const struct id128 *cluster_id, const uint8_t rotator_public_key[IDENTITY_PUBLIC_SIZE]);

size_t keyring_encode(const struct keyring *ring, uint8_t ret_val[KEYRING_SAVE_MAX]);
int keyring_decode(const void *val, size_t len, struct keyring *ret_ring, struct err *err); /* ERR_CORRUPT, ERR_VERSION */

/* For one host alone, from one host alone: both prove their host key (crypto_box of the X25519 forms of the Ed25519 keys).
 * Returns KEYRING_SEALED_SIZE, 0: the receiver's key has no X25519 form. */
size_t keyring_seal(const struct keyring_key *key, const struct identity *from, const uint8_t to_public_key[IDENTITY_PUBLIC_SIZE],
	const uint8_t nonce[24], uint8_t ret_sealed[KEYRING_SEALED_SIZE]);
bool keyring_open(const void *sealed, size_t len, const struct identity *self,
	const uint8_t from_public_key[IDENTITY_PUBLIC_SIZE], struct keyring_key *ret_key);

/* What a host says of its keys and of the wire versions that it speaks: record "k" of topic 0, in its own shard. */
struct keyring_view {
	uint8_t wire_min, wire_max;
	uint8_t active[KEYRING_FINGERPRINT_SIZE];
	unsigned count;
	uint8_t keys[KEYRING_MAX][KEYRING_FINGERPRINT_SIZE];
};
#define KEYRING_VIEW_MAX (4 + (KEYRING_MAX + 1) * KEYRING_FINGERPRINT_SIZE)
size_t keyring_view_encode(const struct keyring_view *view, uint8_t ret_val[KEYRING_VIEW_MAX]);
bool keyring_view_decode(const void *val, size_t len, struct keyring_view *ret_view);
bool keyring_view_lists(const struct keyring_view *view, const uint8_t fingerprint[KEYRING_FINGERPRINT_SIZE]);

#endif

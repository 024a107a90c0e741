/* How a member that missed a rotation gets the cluster's keys: one packet there, one back. The bytes: docs/wire.md, "Recovery".
 *
 * The exchange is Noise_IK_25519_ChaChaPoly_BLAKE2b (revision 34 of the Noise specification), the static keys being the X25519
 * forms of the host keys. The asker proves its host key and reads the answer with a key that nobody can compute later; the
 * answerer keeps nothing. Pure. A request is as long as a packet may be, and no answer is longer: a forged source address gains
 * nothing. What was not made for this host and this cluster is told apart by a hash, before any curve is computed. */
#ifndef GOSSIP_HANDSHAKE_H
#define GOSSIP_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gossip/gossip.h"

#define HANDSHAKE_KIND_RECOVER 4
#define HANDSHAKE_KIND_KEYS 5
#define HANDSHAKE_KIND_FORGOTTEN 6
#define HANDSHAKE_ANSWER_MAX 1024 /* bytes of an answer's content */
#define HANDSHAKE_FORGOTTEN_SIZE (5 + 16 + 24 + 16 + 1)

struct handshake_state { /* of Noise: SymmetricState */
	uint8_t h[64], ck[64], k[32];
	uint64_t n;
};

/* The asker's side, between its request and the answer. Wipe it. */
struct handshake {
	struct handshake_state state;
	uint8_t e_secret[32], s_secret[32];
};

struct handshake_request {
	struct id128 host_id; /* of who asks; its static key has to be proven with handshake_static_is */
	uint32_t generation;  /* of its newest cluster key */
	uint8_t static_key[32];
};

/* Whether a request was made for the host with this X25519 key: without a curve, and anybody who knows that key can make it so.
 */
bool handshake_own_form(const struct identity *self, uint8_t ret_own[32]);
bool handshake_is_meant(const uint8_t own[32], const struct id128 *cluster_id, const void *packet, size_t len);

/* `ephemeral`: 32 random bytes, for this one exchange. False: `to` has no X25519 form. */
bool handshake_ask(struct handshake *hs, const struct identity *self, const struct id128 *cluster_id,
	const uint8_t to_public_key[IDENTITY_PUBLIC_SIZE], uint32_t generation, const uint8_t ephemeral[32],
	uint8_t ret_packet[GOSSIP_PACKET_MAX]);
/* False, and nothing written, when it does not answer this request; it may be tried with other packets then. */
bool handshake_read_answer(
	const struct handshake *hs, const void *packet, size_t len, uint8_t ret_content[HANDSHAKE_ANSWER_MAX], size_t *ret_len);
void handshake_wipe(struct handshake *hs);

/* The answerer: opens a request into a state, from which one answer is made. */
bool handshake_read_request(struct handshake_state *state, const struct identity *self, const struct id128 *cluster_id,
	const void *packet, size_t len, struct handshake_request *ret_request, uint8_t ret_ephemeral[32]);
bool handshake_static_is(const struct handshake_request *request, const uint8_t public_key[IDENTITY_PUBLIC_SIZE]);
/* Returns the packet's length, 0 when the asker's keys are unusable or the content is too long. */
size_t handshake_answer(struct handshake_state *state, const struct handshake_request *request, const uint8_t asker_ephemeral[32],
	const uint8_t ephemeral[32], const void *content, size_t len, uint8_t ret_packet[GOSSIP_PACKET_MAX]);

/* "You have been forgotten": of one member for one host, in a box that both keys are needed for. */
size_t handshake_forgotten(const struct identity *self, const uint8_t to_public_key[IDENTITY_PUBLIC_SIZE],
	const uint8_t nonce[24], uint8_t ret_packet[GOSSIP_PACKET_MAX]);
/* Who says so; the caller looks up its key. */
bool handshake_forgotten_sender(const void *packet, size_t len, struct id128 *ret_from);
bool handshake_forgotten_open(
	const void *packet, size_t len, const struct identity *self, const uint8_t from_public_key[IDENTITY_PUBLIC_SIZE]);

#endif

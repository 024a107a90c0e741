/* Who a host is: an Ed25519 key pair made at first start. The id is the first 16 bytes of BLAKE2b(public key). */
#ifndef GOSSIP_IDENTITY_H
#define GOSSIP_IDENTITY_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/id.h"

#define IDENTITY_PUBLIC_SIZE 32 /* crypto_sign_PUBLICKEYBYTES */
#define IDENTITY_SECRET_SIZE 64 /* crypto_sign_SECRETKEYBYTES */
#define IDENTITY_SEED_SIZE 32	/* what is stored */
#define CLUSTER_KEY_SIZE 32	/* XChaCha20-Poly1305 */

struct identity {
	struct id128 id;
	uint8_t public_key[IDENTITY_PUBLIC_SIZE];
	uint8_t secret_key[IDENTITY_SECRET_SIZE];
};

void identity_from_seed(struct identity *ret_identity, const uint8_t seed[IDENTITY_SEED_SIZE]);
struct id128 identity_id_of(const uint8_t public_key[IDENTITY_PUBLIC_SIZE]);
void identity_wipe(struct identity *identity);

#endif

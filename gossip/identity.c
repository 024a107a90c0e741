/* Host identity over libsodium. The seed is what is stored; the id follows from the public key, so nobody can claim another's. */
#include "gossip/identity.h"

#include <sodium.h>
#include <string.h>

_Static_assert(IDENTITY_PUBLIC_SIZE == crypto_sign_PUBLICKEYBYTES, "Ed25519 public key");
_Static_assert(IDENTITY_SECRET_SIZE == crypto_sign_SECRETKEYBYTES, "Ed25519 secret key");
_Static_assert(IDENTITY_SEED_SIZE == crypto_sign_SEEDBYTES, "Ed25519 seed");

void identity_from_seed(struct identity *ret_identity, const uint8_t seed[IDENTITY_SEED_SIZE])
{
	struct identity identity;

	crypto_sign_seed_keypair(identity.public_key, identity.secret_key, seed);
	identity.id = identity_id_of(identity.public_key);
	*ret_identity = identity;
	sodium_memzero(&identity, sizeof(identity));
}

struct id128 identity_id_of(const uint8_t public_key[IDENTITY_PUBLIC_SIZE])
{
	uint8_t hash[crypto_generichash_BYTES];
	struct id128 id;

	/* The 32-byte hash cut short, not a 16-byte BLAKE2b: the length is a parameter of BLAKE2b, the two differ. */
	crypto_generichash(hash, sizeof(hash), public_key, IDENTITY_PUBLIC_SIZE, NULL, 0);
	memcpy(id.bytes, hash, sizeof(id.bytes));
	return id;
}

void identity_wipe(struct identity *identity)
{
	if (identity)
		sodium_memzero(identity, sizeof(*identity));
}

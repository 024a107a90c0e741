/* Noise IK over two packets. What it promises: handshake.h; the bytes: docs/wire.md, "Recovery".
 *
 * The names of functions and variables are those of the Noise specification, section 5. Each AEAD key of the pattern encrypts at
 * most one message here, and no transport messages follow. */
#include "gossip/handshake.h"

#include <sodium.h>
#include <string.h>

#include "base/bytes.h"
#include "gossip/frame_internal.h"

#define PROTOCOL "Noise_IK_25519_ChaChaPoly_BLAKE2b"
#define PROLOGUE "trestle recover 1"
#define MAC_DOMAIN "trestle recover mac 1"
#define FORGOTTEN_BYTE 1
#define HASH_SIZE 64
#define BLOCK_SIZE 128
#define TAG 16
#define PREFIX 5
#define MAC_SIZE 16
#define REQUEST_PLAIN (GOSSIP_PACKET_MAX - PREFIX - 32 - (32 + TAG) - TAG - MAC_SIZE)
#define ANSWER_LEAST (PREFIX + 32 + TAG)

_Static_assert(crypto_aead_chacha20poly1305_ietf_ABYTES == TAG, "tag");
_Static_assert(crypto_generichash_BYTES_MAX == HASH_SIZE, "BLAKE2b of 64 bytes");
_Static_assert(sizeof(PROTOCOL) - 1 <= HASH_SIZE, "the name is its own first hash");
_Static_assert(ANSWER_LEAST + HANDSHAKE_ANSWER_MAX <= GOSSIP_PACKET_MAX, "an answer fits");

/* ---- symmetric state ---- */

static void hash2(uint8_t out[HASH_SIZE], const void *a, size_t a_len, const void *b, size_t b_len)
{
	crypto_generichash_state state;

	crypto_generichash_init(&state, NULL, 0, HASH_SIZE);
	crypto_generichash_update(&state, a, a_len);
	if (b_len > 0)
		crypto_generichash_update(&state, b, b_len);
	crypto_generichash_final(&state, out, HASH_SIZE);
}

/* HMAC (RFC 2104), as Noise asks for: the keyed mode of BLAKE2b is another function. Keys here are HASH_SIZE long. */
static void hmac(uint8_t out[HASH_SIZE], const uint8_t key[HASH_SIZE], const void *data, size_t len)
{
	uint8_t pad[BLOCK_SIZE], inner[HASH_SIZE];

	memset(pad, 0x36, sizeof(pad));
	for (unsigned i = 0; i < HASH_SIZE; i++)
		pad[i] ^= key[i];
	hash2(inner, pad, sizeof(pad), data, len);
	for (unsigned i = 0; i < BLOCK_SIZE; i++)
		pad[i] ^= 0x36 ^ 0x5c;
	hash2(out, pad, sizeof(pad), inner, sizeof(inner));
	sodium_memzero(pad, sizeof(pad));
	sodium_memzero(inner, sizeof(inner));
}

static void mix_hash(struct handshake_state *s, const void *data, size_t len)
{
	hash2(s->h, s->h, sizeof(s->h), data, len);
}

static void mix_key(struct handshake_state *s, const uint8_t dh[32])
{
	uint8_t temp[HASH_SIZE], second[HASH_SIZE + 1], out[HASH_SIZE];
	const uint8_t one = 1;

	hmac(temp, s->ck, dh, 32);
	hmac(s->ck, temp, &one, 1);
	memcpy(second, s->ck, HASH_SIZE);
	second[HASH_SIZE] = 2;
	hmac(out, temp, second, sizeof(second));
	memcpy(s->k, out, sizeof(s->k));
	s->n = 0;
	sodium_memzero(temp, sizeof(temp));
	sodium_memzero(second, sizeof(second));
	sodium_memzero(out, sizeof(out));
}

static void make_nonce(uint64_t n, uint8_t ret_nonce[12])
{
	memset(ret_nonce, 0, 12);
	for (unsigned i = 0; i < 8; i++)
		ret_nonce[4 + i] = (uint8_t)(n >> (8 * i)); /* little endian, the one place where Noise says so */
}

static void encrypt_and_hash(struct handshake_state *s, const void *plain, size_t len, uint8_t *out)
{
	uint8_t nonce[12];

	make_nonce(s->n++, nonce);
	crypto_aead_chacha20poly1305_ietf_encrypt(out, NULL, plain, len, s->h, sizeof(s->h), NULL, nonce, s->k);
	mix_hash(s, out, len + TAG);
}

static bool decrypt_and_hash(struct handshake_state *s, const uint8_t *in, size_t len, uint8_t *out)
{
	uint8_t nonce[12];

	make_nonce(s->n++, nonce);
	if (crypto_aead_chacha20poly1305_ietf_decrypt(out, NULL, NULL, in, len, s->h, sizeof(s->h), nonce, s->k) != 0)
		return false;
	mix_hash(s, in, len);
	return true;
}

/* False: the other's key is one of the few that give everyone the same secret. */
static bool mix_dh(struct handshake_state *s, const uint8_t secret[32], const uint8_t public_key[32])
{
	uint8_t dh[32];
	bool usable = crypto_scalarmult(dh, secret, public_key) == 0;

	if (usable)
		mix_key(s, dh);
	sodium_memzero(dh, sizeof(dh));
	return usable;
}

static void begin(struct handshake_state *s, const struct id128 *cluster_id, const uint8_t responder[32])
{
	uint8_t prologue[sizeof(PROLOGUE) - 1 + 16];

	memset(s, 0, sizeof(*s));
	memcpy(s->h, PROTOCOL, sizeof(PROTOCOL) - 1);
	memcpy(s->ck, s->h, sizeof(s->ck));
	memcpy(prologue, PROLOGUE, sizeof(PROLOGUE) - 1);
	memcpy(prologue + sizeof(PROLOGUE) - 1, cluster_id->bytes, 16);
	mix_hash(s, prologue, sizeof(prologue));
	mix_hash(s, responder, 32);
}

/* ---- packets ---- */

static void write_prefix(uint8_t *packet, uint8_t kind)
{
	memset(packet, 0, PREFIX);
	packet[0] = FRAME_VERSION << 4 | FRAME_CLASS_ADMISSION;
	packet[1] = kind;
}

static bool prefix_is(const uint8_t *packet, uint8_t kind)
{
	return packet[0] == (FRAME_VERSION << 4 | FRAME_CLASS_ADMISSION) && packet[1] == kind && !packet[2] && !packet[3] &&
	       !packet[4];
}

/* No secret: who knows a host's public key and the cluster's id can make it, who sprays packets cannot. */
static void make_mac(
	const uint8_t responder[32], const struct id128 *cluster_id, const uint8_t *packet, size_t len, uint8_t ret_mac[MAC_SIZE])
{
	uint8_t key[32], input[sizeof(MAC_DOMAIN) - 1 + 32 + 16];

	memcpy(input, MAC_DOMAIN, sizeof(MAC_DOMAIN) - 1);
	memcpy(input + sizeof(MAC_DOMAIN) - 1, responder, 32);
	memcpy(input + sizeof(MAC_DOMAIN) - 1 + 32, cluster_id->bytes, 16);
	crypto_generichash(key, sizeof(key), input, sizeof(input), NULL, 0);
	crypto_generichash(ret_mac, MAC_SIZE, packet, len, key, sizeof(key));
}

/* ---- the asker: -> e, es, s, ss ---- */

bool handshake_ask(struct handshake *hs, const struct identity *self, const struct id128 *cluster_id,
	const uint8_t to_public_key[IDENTITY_PUBLIC_SIZE], uint32_t generation, const uint8_t ephemeral[32],
	uint8_t ret_packet[GOSSIP_PACKET_MAX])
{
	uint8_t responder[32], own[32], e[32], plain[REQUEST_PLAIN] = {0};
	struct handshake_state *s = &hs->state;
	struct bytes_writer w;

	if (crypto_sign_ed25519_pk_to_curve25519(responder, to_public_key) != 0)
		return false;
	crypto_sign_ed25519_sk_to_curve25519(hs->s_secret, self->secret_key);
	crypto_scalarmult_base(own, hs->s_secret);
	memcpy(hs->e_secret, ephemeral, 32);
	crypto_scalarmult_base(e, hs->e_secret);
	begin(s, cluster_id, responder);
	write_prefix(ret_packet, HANDSHAKE_KIND_RECOVER);
	memcpy(ret_packet + PREFIX, e, 32);
	mix_hash(s, e, 32);
	if (!mix_dh(s, hs->e_secret, responder))
		return false;
	encrypt_and_hash(s, own, 32, ret_packet + PREFIX + 32);
	if (!mix_dh(s, hs->s_secret, responder))
		return false;
	bw_init(&w, plain, sizeof(plain));
	bw_id(&w, &self->id);
	bw_u32(&w, generation);
	encrypt_and_hash(s, plain, sizeof(plain), ret_packet + PREFIX + 32 + 32 + TAG);
	make_mac(responder, cluster_id, ret_packet, GOSSIP_PACKET_MAX - MAC_SIZE, ret_packet + GOSSIP_PACKET_MAX - MAC_SIZE);
	return true;
}

/* <- e, ee, se */
bool handshake_read_answer(
	const struct handshake *hs, const void *packet, size_t len, uint8_t ret_content[HANDSHAKE_ANSWER_MAX], size_t *ret_len)
{
	const uint8_t *bytes = packet;
	struct handshake_state s = hs->state; /* a copy: what does not open must not spoil the real answer */
	uint8_t content[HANDSHAKE_ANSWER_MAX];
	bool opened;

	if (len < ANSWER_LEAST || len > ANSWER_LEAST + HANDSHAKE_ANSWER_MAX || !prefix_is(bytes, HANDSHAKE_KIND_KEYS))
		return false;
	mix_hash(&s, bytes + PREFIX, 32);
	opened = mix_dh(&s, hs->e_secret, bytes + PREFIX) && mix_dh(&s, hs->s_secret, bytes + PREFIX) &&
		 decrypt_and_hash(&s, bytes + PREFIX + 32, len - PREFIX - 32, content);
	if (opened) {
		*ret_len = len - ANSWER_LEAST;
		memcpy(ret_content, content, *ret_len);
	}
	sodium_memzero(&s, sizeof(s));
	sodium_memzero(content, sizeof(content));
	return opened;
}

void handshake_wipe(struct handshake *hs)
{
	if (hs)
		sodium_memzero(hs, sizeof(*hs));
}

/* ---- the answerer ---- */

bool handshake_own_form(const struct identity *self, uint8_t ret_own[32])
{
	return crypto_sign_ed25519_pk_to_curve25519(ret_own, self->public_key) == 0;
}

bool handshake_is_meant(const uint8_t own[32], const struct id128 *cluster_id, const void *packet, size_t len)
{
	const uint8_t *bytes = packet;
	uint8_t mac[MAC_SIZE];

	if (len != GOSSIP_PACKET_MAX || !prefix_is(bytes, HANDSHAKE_KIND_RECOVER))
		return false;
	make_mac(own, cluster_id, bytes, len - MAC_SIZE, mac);
	return sodium_memcmp(mac, bytes + len - MAC_SIZE, MAC_SIZE) == 0;
}

bool handshake_read_request(struct handshake_state *state, const struct identity *self, const struct id128 *cluster_id,
	const void *packet, size_t len, struct handshake_request *ret_request, uint8_t ret_ephemeral[32])
{
	uint8_t own_secret[32], own[32], plain[REQUEST_PLAIN];
	struct handshake_request request = {0};
	const uint8_t *bytes = packet;
	struct bytes_reader r;
	bool opened;

	if (!handshake_own_form(self, own) || !handshake_is_meant(own, cluster_id, packet, len))
		return false;
	crypto_sign_ed25519_sk_to_curve25519(own_secret, self->secret_key);
	begin(state, cluster_id, own);
	mix_hash(state, bytes + PREFIX, 32);
	opened = mix_dh(state, own_secret, bytes + PREFIX) &&
		 decrypt_and_hash(state, bytes + PREFIX + 32, 32 + TAG, request.static_key) &&
		 mix_dh(state, own_secret, request.static_key) &&
		 decrypt_and_hash(state, bytes + PREFIX + 32 + 32 + TAG, REQUEST_PLAIN + TAG, plain);
	sodium_memzero(own_secret, sizeof(own_secret));
	if (!opened)
		return false;
	br_init(&r, plain, sizeof(plain));
	br_id(&r, &request.host_id);
	request.generation = br_u32(&r);
	memcpy(ret_ephemeral, bytes + PREFIX, 32);
	*ret_request = request;
	return true;
}

bool handshake_static_is(const struct handshake_request *request, const uint8_t public_key[IDENTITY_PUBLIC_SIZE])
{
	uint8_t form[32];

	return crypto_sign_ed25519_pk_to_curve25519(form, public_key) == 0 &&
	       sodium_memcmp(form, request->static_key, sizeof(form)) == 0;
}

size_t handshake_answer(struct handshake_state *state, const struct handshake_request *request, const uint8_t asker_ephemeral[32],
	const uint8_t ephemeral[32], const void *content, size_t len, uint8_t ret_packet[GOSSIP_PACKET_MAX])
{
	uint8_t e[32];

	if (len > HANDSHAKE_ANSWER_MAX)
		return 0;
	crypto_scalarmult_base(e, ephemeral);
	write_prefix(ret_packet, HANDSHAKE_KIND_KEYS);
	memcpy(ret_packet + PREFIX, e, 32);
	mix_hash(state, e, 32);
	if (!mix_dh(state, ephemeral, asker_ephemeral) || !mix_dh(state, ephemeral, request->static_key))
		return 0;
	encrypt_and_hash(state, content, len, ret_packet + PREFIX + 32);
	return ANSWER_LEAST + len;
}

/* ---- forgotten ---- */

size_t handshake_forgotten(const struct identity *self, const uint8_t to_public_key[IDENTITY_PUBLIC_SIZE],
	const uint8_t nonce[24], uint8_t ret_packet[GOSSIP_PACKET_MAX])
{
	const uint8_t text = FORGOTTEN_BYTE;
	uint8_t own[32], other[32];
	int sealed;

	if (crypto_sign_ed25519_pk_to_curve25519(other, to_public_key) != 0)
		return 0;
	crypto_sign_ed25519_sk_to_curve25519(own, self->secret_key);
	write_prefix(ret_packet, HANDSHAKE_KIND_FORGOTTEN);
	memcpy(ret_packet + PREFIX, self->id.bytes, 16);
	memcpy(ret_packet + PREFIX + 16, nonce, 24);
	sealed = crypto_box_easy(ret_packet + PREFIX + 40, &text, 1, nonce, other, own);
	sodium_memzero(own, sizeof(own));
	return sealed == 0 ? HANDSHAKE_FORGOTTEN_SIZE : 0;
}

bool handshake_forgotten_sender(const void *packet, size_t len, struct id128 *ret_from)
{
	const uint8_t *bytes = packet;

	if (len != HANDSHAKE_FORGOTTEN_SIZE || !prefix_is(bytes, HANDSHAKE_KIND_FORGOTTEN))
		return false;
	memcpy(ret_from->bytes, bytes + PREFIX, 16);
	return true;
}

bool handshake_forgotten_open(
	const void *packet, size_t len, const struct identity *self, const uint8_t from_public_key[IDENTITY_PUBLIC_SIZE])
{
	uint8_t own[32], other[32], text;
	const uint8_t *bytes = packet;
	int opened;

	if (len != HANDSHAKE_FORGOTTEN_SIZE || crypto_sign_ed25519_pk_to_curve25519(other, from_public_key) != 0)
		return false;
	crypto_sign_ed25519_sk_to_curve25519(own, self->secret_key);
	opened = crypto_box_open_easy(&text, bytes + PREFIX + 40, 1 + TAG, bytes + PREFIX + 16, other, own);
	sodium_memzero(own, sizeof(own));
	return opened == 0 && text == FORGOTTEN_BYTE;
}

/* What strangers can send to a port of ours: JOIN, its answers, frames and hellos; and the saved pairs. The first byte chooses
 * the parser. A fuzzer does not guess keys, so for each packet there is a raw form and one where the input is the plaintext,
 * sealed and signed here as docs/wire.md says. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/admission_internal.h"
#include "gossip/frame_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define JOIN_HEADER 85
#define JOIN_PLAIN (ADMISSION_JOIN_SIZE - JOIN_HEADER - 16)
#define WELCOME_HEADER 45

struct fixture {
	uint8_t cluster_key[CLUSTER_KEY_SIZE];
	struct identity sponsor_identity, joiner_identity;
	struct member_save self;
	struct admission_sponsor sponsor;
	struct token token;
	struct admission_request request;
	uint8_t ephemeral[32]; /* of the request, and of the sponsor */
	struct frame_ring ring;
	struct frame_sender me;
	struct frame_peer peer;
};

static void require(int truth)
{
	if (!truth)
		abort();
}

static void fixed_bytes(void *ctx, void *buf, size_t len)
{
	(void)ctx;
	memset(buf, 0x42, len);
}

static uint32_t admit(void *ctx, const struct id128 *host_id)
{
	(void)ctx;
	return host_id->bytes[0] == 0 ? 0 : 300;
}

static void identity_set(struct identity *identity, uint8_t byte)
{
	uint8_t seed[IDENTITY_SEED_SIZE];

	memset(seed, byte, sizeof(seed));
	identity_from_seed(identity, seed);
}

static void fixture_init(struct fixture *f)
{
	memset(f, 0, sizeof(*f));
	identity_set(&f->sponsor_identity, 1);
	identity_set(&f->joiner_identity, 2);
	f->self.hostno = 1;
	f->self.host_id = f->sponsor_identity.id;
	memcpy(f->self.public_key, f->sponsor_identity.public_key, sizeof(f->self.public_key));
	f->sponsor = (struct admission_sponsor){.identity = &f->sponsor_identity,
		.cluster_key = f->cluster_key,
		.hostno = 1,
		.members = &f->self,
		.member_count = 1,
		.now_s = 1000,
		.random = fixed_bytes,
		.admit = admit};
	token_secret(f->cluster_key, &f->token.token_id, 0, f->token.secret);
	f->request.token = &f->token;
	f->request.identity = &f->joiner_identity;
	memcpy(f->request.name, "gamma", 5);
	fixed_bytes(NULL, f->request.ephemeral_secret, sizeof(f->request.ephemeral_secret));
	crypto_scalarmult_base(f->ephemeral, f->request.ephemeral_secret);
	frame_ring_init(&f->ring);
	frame_ring_add(&f->ring, FRAME_KEY_ID_FIRST, f->cluster_key, NULL);
	f->me.hostno = 1;
	f->me.host_id = f->sponsor_identity.id;
	f->peer.hostno = 2;
	f->peer.host_id = f->joiner_identity.id;
	frame_peer_set_boot(&f->peer, 0x1122334455667788);
}

/* What was admitted must survive its own codecs. */
static void check_result(const struct fixture *f, const struct admission_result *result)
{
	uint8_t key[SAVED_KEY_SIZE], val[ADMISSION_MAX];
	struct member_save member;
	struct admission admission;
	size_t len = admission_encode(&result->admission, key, val);

	require(admission_decode(key, sizeof(key), val, len, &admission, NULL) == 0);
	require(admission_verify(&admission, &f->sponsor.cluster_id, f->sponsor_identity.public_key, NULL) == 0);
	len = member_save_encode(&result->member, key, val);
	require(member_save_decode(key, sizeof(key), val, len, &member, NULL) == 0);
}

static void try_join(struct fixture *f, const uint8_t *packet, size_t len)
{
	static const struct gossip_addr from = {{4, {192, 0, 2, 9}}, 1};
	struct admission_result result;
	enum admission_verdict verdict = admission_handle(&f->sponsor, &from, packet, len, &result);

	require(result.reply_len <= len);
	require((result.reply_len != 0) == (verdict == ADMISSION_OK || verdict >= ADMISSION_EXPIRED));
	if (verdict == ADMISSION_OK)
		check_result(f, &result);
}

static size_t put(uint8_t *at, const void *bytes, size_t len)
{
	memcpy(at, bytes, len);
	return len;
}

static void derive(const struct fixture *f, const uint8_t *input, size_t len, uint8_t ret_key[32])
{
	crypto_generichash(ret_key, 32, input, len, f->token.secret, sizeof(f->token.secret));
}

/* The input is what follows the host key in a JOIN, up to the signature. */
static void try_join_body(struct fixture *f, const uint8_t *data, size_t size)
{
	static const uint8_t nonce[24];
	uint8_t packet[ADMISSION_JOIN_SIZE] = {0x1f, 1}, plain[JOIN_PLAIN] = {0}, text[14 + JOIN_HEADER + JOIN_PLAIN], key[32];
	size_t len = 0, n;

	if (size > JOIN_PLAIN - 32 - 64)
		size = JOIN_PLAIN - 32 - 64;
	memcpy(packet + 45, f->ephemeral, 32); /* ids and expiry are zeros */
	n = put(plain, f->joiner_identity.public_key, 32);
	n += put(plain + n, data, size);
	len += put(text, "trestle join 1", 14);
	len += put(text + len, packet, JOIN_HEADER);
	len += put(text + len, plain, n);
	crypto_sign_detached(plain + n, NULL, text, len, f->joiner_identity.secret_key);
	len = put(text, "trestle join 1", 14);
	len += put(text + len, f->ephemeral, 32);
	derive(f, text, len, key);
	crypto_aead_xchacha20poly1305_ietf_encrypt(
		packet + JOIN_HEADER, NULL, plain, sizeof(plain), packet, JOIN_HEADER, NULL, nonce, key);
	try_join(f, packet, sizeof(packet));
}

static void try_reply(struct fixture *f, const uint8_t *packet, size_t len)
{
	struct admission_welcome welcome;

	if (admission_reply_open(&f->request, packet, len, &welcome) == ADMISSION_OK)
		require(welcome.member_count >= 1 && welcome.member_count <= ADMISSION_WELCOME_MEMBERS_MAX);
}

/* The input is the plaintext of a WELCOME up to its last signature. Both sides use the same ephemeral key, which hurts nothing
 * here. */
static void try_welcome_body(struct fixture *f, const uint8_t *data, size_t size)
{
	static const uint8_t nonce[24];
	uint8_t packet[GOSSIP_PACKET_MAX] = {0x1f, 2}, plain[GOSSIP_PACKET_MAX], aad[WELCOME_HEADER + 32] = {0}, key[32];
	uint8_t text[GOSSIP_PACKET_MAX + 256] = "trestle welcome 1", shared[32];
	size_t len = 17;

	if (size > ADMISSION_JOIN_SIZE - WELCOME_HEADER - 16 - 64)
		size = ADMISSION_JOIN_SIZE - WELCOME_HEADER - 16 - 64;
	memcpy(packet + 5, f->ephemeral, 32);
	memcpy(aad, packet, WELCOME_HEADER);
	require(crypto_scalarmult(shared, f->request.ephemeral_secret, f->ephemeral) == 0);
	len += put(text + len, shared, 32);
	len += put(text + len, f->ephemeral, 32);
	len += put(text + len, f->ephemeral, 32);
	derive(f, text, len, key);
	memset(text + 17, 0, 32); /* cluster and token id */
	len = 17 + 32;
	len += put(text + len, f->ephemeral, 32);
	len += put(text + len, packet + 5, WELCOME_HEADER - 5);
	len += put(text + len, f->joiner_identity.id.bytes, 16);
	len += put(text + len, data, size);
	memcpy(plain, data, size);
	crypto_sign_detached(plain + size, NULL, text, len, f->sponsor_identity.secret_key);
	crypto_aead_xchacha20poly1305_ietf_encrypt(
		packet + WELCOME_HEADER, NULL, plain, size + 64, aad, sizeof(aad), NULL, nonce, key);
	try_reply(f, packet, WELCOME_HEADER + size + 64 + 16);
}

/* 17 bytes of key, then the value. What decodes encodes to the same bytes. */
static void try_saved(const uint8_t *data, size_t size)
{
	uint8_t key[SAVED_KEY_SIZE], val[ADMISSION_MAX];
	struct member_save member;
	struct admission admission;
	size_t len;

	if (size < SAVED_KEY_SIZE)
		return;
	if (member_save_decode(data, SAVED_KEY_SIZE, data + SAVED_KEY_SIZE, size - SAVED_KEY_SIZE, &member, NULL) == 0) {
		len = member_save_encode(&member, key, val);
		require(len == size - SAVED_KEY_SIZE && memcmp(val, data + SAVED_KEY_SIZE, len) == 0);
	}
	if (admission_decode(data, SAVED_KEY_SIZE, data + SAVED_KEY_SIZE, size - SAVED_KEY_SIZE, &admission, NULL) == 0) {
		len = admission_encode(&admission, key, val);
		require(len == size - SAVED_KEY_SIZE && memcmp(val, data + SAVED_KEY_SIZE, len) == 0);
	}
}

static void try_frame(struct fixture *f, const uint8_t *packet, size_t len)
{
	struct frame_hello_outcome outcome;
	uint8_t plain[GOSSIP_PACKET_MAX];
	size_t plain_len;

	if (frame_open(&f->peer, &f->me, &f->ring, packet, len, plain, &plain_len) == FRAME_OK)
		require(plain_len == len - FRAME_OVERHEAD);
	if (frame_hello_handle(&f->peer, &f->me, &f->ring, packet, len, 7, 0, &outcome) == FRAME_OK)
		require(len == FRAME_HELLO_SIZE && !outcome.established); /* we asked nothing */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fixture f;

	if (size == 0)
		return 0;
	fixture_init(&f);
	switch (data[0] % 6) {
	case 0:
		try_join(&f, data + 1, size - 1);
		break;
	case 1:
		try_join_body(&f, data + 1, size - 1);
		break;
	case 2:
		try_reply(&f, data + 1, size - 1);
		break;
	case 3:
		try_welcome_body(&f, data + 1, size - 1);
		break;
	case 4:
		try_saved(data + 1, size - 1);
		break;
	default:
		try_frame(&f, data + 1, size - 1);
		break;
	}
	frame_peer_fini(&f.peer);
	return 0;
}

/* Packets of recovery, and cluster keys in each of their forms. The first byte chooses the reader: raw packets to both sides,
 * packets with a right hash in front of the curves, saved keys, keys in a box, views. What decodes must encode to the same. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/handshake.h"
#include "gossip/keyring_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct id128 cluster_id = {.bytes = {0xc1}};
static const uint8_t asker_random[32] = {1, 1}, answerer_random[32] = {2, 2};

struct fixture {
	struct identity asker, answerer;
	struct handshake hs;
	uint8_t request[GOSSIP_PACKET_MAX];
};

static void require(int truth)
{
	if (!truth)
		abort();
}

static struct fixture *fixture(void)
{
	static struct fixture f;
	static bool made;
	const uint8_t one[IDENTITY_SEED_SIZE] = {1}, two[IDENTITY_SEED_SIZE] = {2};

	if (!made) {
		require(sodium_init() >= 0);
		identity_from_seed(&f.asker, one);
		identity_from_seed(&f.answerer, two);
		require(handshake_ask(&f.hs, &f.asker, &cluster_id, f.answerer.public_key, 7, asker_random, f.request));
		made = true;
	}
	return &f;
}

static void try_request(struct fixture *f, const uint8_t *packet, size_t len)
{
	struct handshake_state state;
	struct handshake_request request;
	uint8_t ephemeral[32], reply[GOSSIP_PACKET_MAX];

	if (!handshake_read_request(&state, &f->answerer, &cluster_id, packet, len, &request, ephemeral))
		return;
	(void)handshake_static_is(&request, f->asker.public_key);
	require(handshake_answer(&state, &request, ephemeral, answerer_random, "x", 1, reply) <= len);
}

/* The input over a good request, and the hash made right again, so that the curves and ciphers see it. */
static void try_changed_request(struct fixture *f, const uint8_t *data, size_t size)
{
	static const char domain[] = "trestle recover mac 1";
	uint8_t packet[GOSSIP_PACKET_MAX], key[32], input[sizeof(domain) - 1 + 32 + 16];
	size_t at, body = sizeof(packet) - 16;

	if (size < 2)
		return;
	memcpy(packet, f->request, sizeof(packet));
	at = ((size_t)data[0] << 8 | data[1]) % (body - 5) + 5;
	data += 2, size -= 2;
	memcpy(packet + at, data, size < body - at ? size : body - at);
	memcpy(input, domain, sizeof(domain) - 1);
	require(crypto_sign_ed25519_pk_to_curve25519(input + sizeof(domain) - 1, f->answerer.public_key) == 0);
	memcpy(input + sizeof(domain) - 1 + 32, cluster_id.bytes, 16);
	crypto_generichash(key, sizeof(key), input, sizeof(input), NULL, 0);
	crypto_generichash(packet + body, 16, packet, body, key, sizeof(key));
	try_request(f, packet, sizeof(packet));
}

static void try_answer(struct fixture *f, const uint8_t *packet, size_t len)
{
	uint8_t content[HANDSHAKE_ANSWER_MAX];
	size_t content_len;
	struct id128 from;

	if (handshake_read_answer(&f->hs, packet, len, content, &content_len))
		require(content_len <= sizeof(content));
	if (handshake_forgotten_sender(packet, len, &from))
		(void)handshake_forgotten_open(packet, len, &f->asker, f->answerer.public_key);
}

static void try_ring(const uint8_t *data, size_t size)
{
	struct keyring ring;
	struct frame_ring frames;
	struct err err = {0};
	uint8_t back[KEYRING_SAVE_MAX];

	if (keyring_decode(data, size, &ring, &err) < 0) {
		require(err.code == ERR_CORRUPT || err.code == ERR_VERSION);
		return;
	}
	require(keyring_encode(&ring, back) == size && memcmp(back, data, size) == 0);
	keyring_frames(&ring, &frames);
	require(frames.count == ring.count);
	(void)keyring_retire(&ring);
	require(ring.active == 0);
}

static void try_box(struct fixture *f, const uint8_t *data, size_t size)
{
	uint8_t plain[KEYRING_KEY_SIZE] = {0}, sealed[KEYRING_SEALED_SIZE] = {1}, own[32], other[32];
	struct keyring_key key;

	(void)keyring_open(data, size, &f->asker, f->answerer.public_key, &key);
	memcpy(plain, data, size < sizeof(plain) ? size : sizeof(plain));
	crypto_sign_ed25519_sk_to_curve25519(own, f->answerer.secret_key);
	require(crypto_sign_ed25519_pk_to_curve25519(other, f->asker.public_key) == 0);
	require(crypto_box_easy(sealed + 25, plain, sizeof(plain), sealed + 1, other, own) == 0);
	if (keyring_open(sealed, sizeof(sealed), &f->asker, f->answerer.public_key, &key)) {
		require(key.generation != 0 && key.generation != UINT32_MAX);
		(void)keyring_verify(&key, &cluster_id, f->answerer.public_key);
	}
}

static void try_view(const uint8_t *data, size_t size)
{
	struct keyring_view view, again;
	uint8_t back[KEYRING_VIEW_MAX];
	size_t len;

	if (!keyring_view_decode(data, size, &view))
		return;
	len = keyring_view_encode(&view, back);
	require(len <= size && keyring_view_decode(back, len, &again) && memcmp(&view, &again, sizeof(view)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fixture *f = fixture();

	if (size == 0)
		return 0;
	switch (data[0] % 6) {
	case 0:
		try_request(f, data + 1, size - 1);
		break;
	case 1:
		try_changed_request(f, data + 1, size - 1);
		break;
	case 2:
		try_answer(f, data + 1, size - 1);
		break;
	case 3:
		try_ring(data + 1, size - 1);
		break;
	case 4:
		try_box(f, data + 1, size - 1);
		break;
	default:
		try_view(data + 1, size - 1);
		break;
	}
	return 0;
}

/* Cluster keys as values. What they promise: keyring_internal.h; the bytes: docs/wire.md, "Keys". */
#include "gossip/keyring_internal.h"

#include <sodium.h>
#include <string.h>

#include "base/bytes.h"

#define SAVE_VERSION 1
#define SEAL_VERSION 1
#define VIEW_VERSION 1

_Static_assert(crypto_box_NONCEBYTES == 24 && crypto_box_MACBYTES == 16, "layout of a sealed key");

void keyring_init(struct keyring *ring, const uint8_t cluster_key[CLUSTER_KEY_SIZE])
{
	memset(ring, 0, sizeof(*ring));
	ring->count = 1;
	ring->keys[0].generation = KEYRING_GENERATION_FIRST;
	memcpy(ring->keys[0].secret, cluster_key, CLUSTER_KEY_SIZE);
}

void keyring_wipe(struct keyring *ring)
{
	if (ring)
		sodium_memzero(ring, sizeof(*ring));
}

void keyring_fingerprint(const struct keyring_key *key, uint8_t ret_fingerprint[KEYRING_FINGERPRINT_SIZE])
{
	static const char domain[] = "trestle key fingerprint 1";
	uint8_t hash[32];

	crypto_generichash(hash, sizeof(hash), (const uint8_t *)domain, sizeof(domain) - 1, key->secret, sizeof(key->secret));
	memcpy(ret_fingerprint, hash, KEYRING_FINGERPRINT_SIZE);
}

int keyring_compare(const struct keyring_key *a, const struct keyring_key *b)
{
	uint8_t fa[KEYRING_FINGERPRINT_SIZE], fb[KEYRING_FINGERPRINT_SIZE];
	int order;

	if (a->generation != b->generation)
		return a->generation > b->generation ? 1 : -1;
	order = memcmp(b->rotator.bytes, a->rotator.bytes, sizeof(a->rotator.bytes));
	if (order != 0)
		return order;
	keyring_fingerprint(a, fa);
	keyring_fingerprint(b, fb);
	return memcmp(fb, fa, sizeof(fa));
}

int keyring_find(const struct keyring *ring, const uint8_t fingerprint[KEYRING_FINGERPRINT_SIZE])
{
	uint8_t own[KEYRING_FINGERPRINT_SIZE];

	for (unsigned i = 0; i < ring->count; i++) {
		keyring_fingerprint(&ring->keys[i], own);
		if (memcmp(own, fingerprint, sizeof(own)) == 0)
			return (int)i;
	}
	return -1;
}

uint8_t keyring_wire_id(const struct keyring_key *key)
{
	uint8_t fingerprint[KEYRING_FINGERPRINT_SIZE];

	if (key->generation == KEYRING_GENERATION_FIRST)
		return FRAME_KEY_ID_FIRST;
	keyring_fingerprint(key, fingerprint);
	return (uint8_t)(2 + fingerprint[0] % 254);
}

static void remove_at(struct keyring *ring, unsigned at)
{
	memmove(&ring->keys[at], &ring->keys[at + 1], (ring->count - at - 1) * sizeof(ring->keys[0]));
	ring->count--;
	sodium_memzero(&ring->keys[ring->count], sizeof(ring->keys[0]));
	if (ring->active > at)
		ring->active--;
}

bool keyring_add(struct keyring *ring, const struct keyring_key *key)
{
	uint8_t fingerprint[KEYRING_FINGERPRINT_SIZE];
	unsigned at = ring->count;

	keyring_fingerprint(key, fingerprint);
	if (keyring_find(ring, fingerprint) >= 0)
		return false;
	if (ring->count == KEYRING_MAX) {
		unsigned oldest = ring->active == 0 ? 1 : 0;

		if (keyring_compare(key, &ring->keys[oldest]) < 0)
			return false;
		remove_at(ring, oldest);
		at--;
	}
	while (at > 0 && keyring_compare(key, &ring->keys[at - 1]) < 0) {
		ring->keys[at] = ring->keys[at - 1];
		at--;
	}
	ring->keys[at] = *key;
	ring->count++;
	if (ring->active >= at && ring->count > 1)
		ring->active++;
	return true;
}

bool keyring_retire(struct keyring *ring)
{
	bool any = ring->active > 0;

	while (ring->active > 0)
		remove_at(ring, 0);
	return any;
}

void keyring_frames(const struct keyring *ring, struct frame_ring *ret_frames)
{
	frame_ring_init(ret_frames);
	/* The active one first: it is what most packets come with, and the first of two with one id is tried first. */
	frame_ring_add(ret_frames, keyring_wire_id(keyring_active(ring)), keyring_active(ring)->secret, NULL);
	for (unsigned i = 0; i < ring->count; i++)
		if (i != ring->active)
			frame_ring_add(ret_frames, keyring_wire_id(&ring->keys[i]), ring->keys[i].secret, NULL);
}

/* ---- signatures ---- */

static size_t transcript(const struct keyring_key *key, const struct id128 *cluster_id, uint8_t ret_bytes[128])
{
	static const char domain[] = "trestle key 1";
	struct bytes_writer w;

	bw_init(&w, ret_bytes, 128);
	bw_bytes(&w, domain, sizeof(domain) - 1);
	bw_id(&w, cluster_id);
	bw_u32(&w, key->generation);
	bw_u64(&w, key->created_s);
	bw_id(&w, &key->rotator);
	bw_bytes(&w, key->secret, sizeof(key->secret));
	return w.len;
}

void keyring_make(struct keyring_key *key, const struct keyring *ring, const struct id128 *cluster_id,
	const struct identity *rotator, uint64_t created_s, const uint8_t secret[CLUSTER_KEY_SIZE])
{
	uint8_t bytes[128];
	size_t len;

	memset(key, 0, sizeof(*key));
	key->generation = keyring_newest(ring)->generation + 1;
	key->created_s = created_s;
	key->rotator = rotator->id;
	memcpy(key->secret, secret, sizeof(key->secret));
	len = transcript(key, cluster_id, bytes);
	crypto_sign_detached(key->signature, NULL, bytes, len, rotator->secret_key);
	sodium_memzero(bytes, sizeof(bytes));
}

bool keyring_verify(
	const struct keyring_key *key, const struct id128 *cluster_id, const uint8_t rotator_public_key[IDENTITY_PUBLIC_SIZE])
{
	struct id128 rotator = identity_id_of(rotator_public_key);
	uint8_t bytes[128];
	size_t len;
	bool genuine;

	if (key->generation <= KEYRING_GENERATION_FIRST || !id_equal(&rotator, &key->rotator))
		return false;
	len = transcript(key, cluster_id, bytes);
	genuine = crypto_sign_verify_detached(key->signature, bytes, len, rotator_public_key) == 0;
	sodium_memzero(bytes, sizeof(bytes));
	return genuine;
}

/* ---- bytes ---- */

static void key_write(struct bytes_writer *w, const struct keyring_key *key)
{
	bw_u32(w, key->generation);
	bw_u64(w, key->created_s);
	bw_id(w, &key->rotator);
	bw_bytes(w, key->secret, sizeof(key->secret));
	bw_bytes(w, key->signature, sizeof(key->signature));
}

static void key_read(struct bytes_reader *r, struct keyring_key *key)
{
	const uint8_t *bytes;

	key->generation = br_u32(r);
	key->created_s = br_u64(r);
	br_id(r, &key->rotator);
	if ((bytes = br_bytes(r, sizeof(key->secret))))
		memcpy(key->secret, bytes, sizeof(key->secret));
	if ((bytes = br_bytes(r, sizeof(key->signature))))
		memcpy(key->signature, bytes, sizeof(key->signature));
	/* The last number has no next one. */
	if (key->generation == 0 || key->generation == UINT32_MAX)
		r->bad = true;
}

size_t keyring_encode(const struct keyring *ring, uint8_t ret_val[KEYRING_SAVE_MAX])
{
	struct bytes_writer w;

	bw_init(&w, ret_val, KEYRING_SAVE_MAX);
	bw_u8(&w, SAVE_VERSION);
	bw_u8(&w, (uint8_t)ring->count);
	bw_u8(&w, (uint8_t)ring->active);
	for (unsigned i = 0; i < ring->count; i++)
		key_write(&w, &ring->keys[i]);
	return w.len;
}

int keyring_decode(const void *val, size_t len, struct keyring *ret_ring, struct err *err)
{
	struct keyring ring = {0};
	struct bytes_reader r;
	uint8_t version;

	br_init(&r, val, len);
	version = br_u8(&r);
	if (!r.bad && version > SAVE_VERSION)
		return err_set(err, ERR_VERSION, "cluster keys: expected version %d, found %u: a newer trestle wrote them",
			SAVE_VERSION, version);
	ring.count = br_u8(&r);
	ring.active = br_u8(&r);
	if (r.bad || version == 0 || ring.count == 0 || ring.count > KEYRING_MAX || ring.active >= ring.count)
		return err_set(err, ERR_CORRUPT, "cluster keys: %zu bytes that do not decode", len);
	for (unsigned i = 0; i < ring.count; i++) {
		key_read(&r, &ring.keys[i]);
		if (!r.bad && i > 0 && keyring_compare(&ring.keys[i], &ring.keys[i - 1]) <= 0)
			r.bad = true;
	}
	if (!br_done(&r)) {
		keyring_wipe(&ring);
		return err_set(err, ERR_CORRUPT, "cluster keys: %zu bytes that do not decode", len);
	}
	*ret_ring = ring;
	keyring_wipe(&ring);
	return 0;
}

/* ---- on the way to another host ---- */

size_t keyring_seal(const struct keyring_key *key, const struct identity *from, const uint8_t to_public_key[IDENTITY_PUBLIC_SIZE],
	const uint8_t nonce[24], uint8_t ret_sealed[KEYRING_SEALED_SIZE])
{
	uint8_t plain[KEYRING_KEY_SIZE], own[32], other[32];
	struct bytes_writer w;
	size_t len = 0;

	if (crypto_sign_ed25519_pk_to_curve25519(other, to_public_key) != 0)
		return 0;
	crypto_sign_ed25519_sk_to_curve25519(own, from->secret_key);
	bw_init(&w, plain, sizeof(plain));
	key_write(&w, key);
	ret_sealed[0] = SEAL_VERSION;
	memcpy(ret_sealed + 1, nonce, 24);
	if (crypto_box_easy(ret_sealed + 25, plain, sizeof(plain), nonce, other, own) == 0)
		len = KEYRING_SEALED_SIZE;
	sodium_memzero(own, sizeof(own));
	sodium_memzero(plain, sizeof(plain));
	return len;
}

bool keyring_open(const void *sealed, size_t len, const struct identity *self,
	const uint8_t from_public_key[IDENTITY_PUBLIC_SIZE], struct keyring_key *ret_key)
{
	uint8_t plain[KEYRING_KEY_SIZE], own[32], other[32];
	const uint8_t *bytes = sealed;
	struct keyring_key key = {0};
	struct bytes_reader r;
	bool opened;

	if (len != KEYRING_SEALED_SIZE || bytes[0] != SEAL_VERSION ||
		crypto_sign_ed25519_pk_to_curve25519(other, from_public_key) != 0)
		return false;
	crypto_sign_ed25519_sk_to_curve25519(own, self->secret_key);
	opened = crypto_box_open_easy(plain, bytes + 25, len - 25, bytes + 1, other, own) == 0;
	sodium_memzero(own, sizeof(own));
	if (opened) {
		br_init(&r, plain, sizeof(plain));
		key_read(&r, &key);
		opened = br_done(&r);
	}
	if (opened)
		*ret_key = key;
	sodium_memzero(plain, sizeof(plain));
	sodium_memzero(&key, sizeof(key));
	return opened;
}

size_t keyring_view_encode(const struct keyring_view *view, uint8_t ret_val[KEYRING_VIEW_MAX])
{
	struct bytes_writer w;

	bw_init(&w, ret_val, KEYRING_VIEW_MAX);
	bw_u8(&w, VIEW_VERSION);
	bw_u8(&w, view->wire_min);
	bw_u8(&w, view->wire_max);
	bw_bytes(&w, view->active, sizeof(view->active));
	bw_u8(&w, (uint8_t)view->count);
	for (unsigned i = 0; i < view->count; i++)
		bw_bytes(&w, view->keys[i], KEYRING_FINGERPRINT_SIZE);
	return w.len;
}

/* Bytes behind what this version knows are of a newer one. */
bool keyring_view_decode(const void *val, size_t len, struct keyring_view *ret_view)
{
	struct keyring_view view = {0};
	const uint8_t *bytes;
	struct bytes_reader r;

	br_init(&r, val, len);
	if (br_u8(&r) == 0)
		return false;
	view.wire_min = br_u8(&r);
	view.wire_max = br_u8(&r);
	if ((bytes = br_bytes(&r, sizeof(view.active))))
		memcpy(view.active, bytes, sizeof(view.active));
	view.count = br_u8(&r);
	if (r.bad || view.count > KEYRING_MAX || view.wire_min > view.wire_max)
		return false;
	for (unsigned i = 0; i < view.count; i++)
		if ((bytes = br_bytes(&r, KEYRING_FINGERPRINT_SIZE)))
			memcpy(view.keys[i], bytes, KEYRING_FINGERPRINT_SIZE);
	if (r.bad)
		return false;
	*ret_view = view;
	return true;
}

bool keyring_view_lists(const struct keyring_view *view, const uint8_t fingerprint[KEYRING_FINGERPRINT_SIZE])
{
	for (unsigned i = 0; i < view->count; i++)
		if (memcmp(view->keys[i], fingerprint, KEYRING_FINGERPRINT_SIZE) == 0)
			return true;
	return false;
}

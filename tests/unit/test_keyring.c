/* Cluster keys as values: order, places in the ring, bytes, signatures, sealing. */
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "gossip/keyring_internal.h"

static const struct id128 cluster_id = {.bytes = {0xc1}};

static struct identity host(uint8_t which)
{
	uint8_t seed[IDENTITY_SEED_SIZE] = {which};
	struct identity identity;

	identity_from_seed(&identity, seed);
	return identity;
}

static struct keyring ring_of_one(void)
{
	uint8_t first[CLUSTER_KEY_SIZE] = {1, 2, 3};
	struct keyring ring;

	keyring_init(&ring, first);
	return ring;
}

static struct keyring_key next_key(const struct keyring *ring, const struct identity *maker, uint8_t secret)
{
	uint8_t bytes[CLUSTER_KEY_SIZE] = {9, secret};
	struct keyring_key key;

	keyring_make(&key, ring, &cluster_id, maker, 1795000000, bytes);
	return key;
}

static void a_key_is_known_by_its_makers_signature(void **state)
{
	struct identity maker = host(1), other = host(2);
	struct keyring ring = ring_of_one();
	struct keyring_key key = next_key(&ring, &maker, 1), changed;
	const struct id128 other_cluster = {.bytes = {0xc2}};
	uint8_t *bytes = (uint8_t *)&changed;

	(void)state;
	assert_int_equal(key.generation, 2);
	assert_true(keyring_verify(&key, &cluster_id, maker.public_key));
	assert_false(keyring_verify(&key, &cluster_id, other.public_key));
	assert_false(keyring_verify(&key, &other_cluster, maker.public_key));
	for (size_t at = 0; at < sizeof(key); at++) {
		if (at >= sizeof(key.generation) && at < offsetof(struct keyring_key, created_s))
			continue; /* the hole that aligns the next member */
		changed = key;
		bytes[at] ^= 1;
		assert_false(keyring_verify(&changed, &cluster_id, maker.public_key));
	}
	assert_false(keyring_verify(&ring.keys[0], &cluster_id, maker.public_key));
}

static void of_one_generation_the_lower_maker_is_newer(void **state)
{
	struct identity a = host(1), b = host(2);
	struct keyring ring = ring_of_one(), one, two;
	struct keyring_key ka = next_key(&ring, &a, 1), kb = next_key(&ring, &b, 2);
	const struct keyring_key *newer = memcmp(a.id.bytes, b.id.bytes, 16) < 0 ? &ka : &kb;

	(void)state;
	assert_true(keyring_compare(&ka, &kb) != 0);
	assert_true((keyring_compare(&ka, &kb) > 0) == (newer == &ka));
	assert_true((keyring_compare(&kb, &ka) > 0) == (newer == &kb));
	assert_int_equal(keyring_compare(&ka, &ka), 0);
	one = two = ring;
	assert_true(keyring_add(&one, &ka) && keyring_add(&one, &kb));
	assert_true(keyring_add(&two, &kb) && keyring_add(&two, &ka));
	assert_memory_equal(keyring_newest(&one), newer, sizeof(*newer));
	assert_memory_equal(keyring_newest(&two), newer, sizeof(*newer));
	assert_int_equal(keyring_active(&one)->generation, 1); /* what is sent with does not change by that */
	assert_false(keyring_add(&one, &ka));
	assert_int_equal(one.count, 3);
}

static void a_full_ring_gives_up_its_oldest_but_never_the_active_one(void **state)
{
	struct identity a = host(1);
	struct keyring ring = ring_of_one();
	struct keyring_key old;

	(void)state;
	for (uint8_t i = 0; i < 6; i++) {
		struct keyring_key key = next_key(&ring, &a, i);

		assert_true(keyring_add(&ring, &key));
		assert_int_equal(keyring_active(&ring)->generation, 1);
	}
	assert_int_equal(ring.count, KEYRING_MAX);
	assert_int_equal(ring.keys[1].generation, 5);
	old = ring.keys[1];
	old.generation = 3;
	old.secret[5] = 1;
	assert_false(keyring_add(&ring, &old));
	ring.active = 2;
	assert_true(keyring_retire(&ring));
	assert_int_equal(ring.count, 2);
	assert_int_equal(ring.active, 0);
	assert_int_equal(keyring_active(&ring)->generation, 6);
	assert_false(keyring_retire(&ring));
}

static void a_late_older_key_does_not_move_the_active_one(void **state)
{
	struct identity a = host(1), b = host(2);
	struct keyring ring = ring_of_one();
	struct keyring_key ka = next_key(&ring, &a, 1), kb = next_key(&ring, &b, 2);
	const struct keyring_key *newer = keyring_compare(&ka, &kb) > 0 ? &ka : &kb, *older = newer == &ka ? &kb : &ka;

	(void)state;
	keyring_add(&ring, newer);
	ring.active = 1;
	keyring_add(&ring, older);
	assert_int_equal(ring.active, 2);
	assert_memory_equal(keyring_active(&ring), newer, sizeof(*newer));
}

static void what_is_saved_is_read_again(void **state)
{
	struct identity a = host(1);
	struct keyring ring = ring_of_one(), back;
	struct keyring_key key = next_key(&ring, &a, 1);
	uint8_t val[KEYRING_SAVE_MAX];
	struct err err = {0};
	size_t len;

	(void)state;
	keyring_add(&ring, &key);
	ring.active = 1;
	len = keyring_encode(&ring, val);
	assert_int_equal(keyring_decode(val, len, &back, &err), 0);
	assert_int_equal(back.count, 2);
	assert_int_equal(back.active, 1);
	assert_int_equal(keyring_compare(&back.keys[1], &key), 0);
	assert_true(keyring_verify(&back.keys[1], &cluster_id, a.public_key));
	for (size_t n = 0; n < len; n++) {
		assert_int_equal(keyring_decode(val, n, &back, &err), -1);
		assert_int_equal(err.code, ERR_CORRUPT);
	}
	val[0] = 2;
	assert_int_equal(keyring_decode(val, len, &back, &err), -1);
	assert_int_equal(err.code, ERR_VERSION);
	val[0] = 1;
	val[2] = 2; /* active is none of them */
	assert_int_equal(keyring_decode(val, len, &back, &err), -1);
	ring.keys[0] = ring.keys[1]; /* not ascending */
	len = keyring_encode(&ring, val);
	assert_int_equal(keyring_decode(val, len, &back, &err), -1);
}

static void a_sealed_key_opens_for_its_receiver_and_from_its_sender_alone(void **state)
{
	struct identity from = host(1), to = host(2), third = host(3);
	struct keyring ring = ring_of_one();
	struct keyring_key key = next_key(&ring, &from, 1), back, before;
	uint8_t sealed[KEYRING_SEALED_SIZE];
	const uint8_t nonce[24] = {7};

	(void)state;
	memset(&back, 0x5a, sizeof(back));
	before = back;
	assert_int_equal(keyring_seal(&key, &from, to.public_key, nonce, sealed), KEYRING_SEALED_SIZE);
	assert_false(keyring_open(sealed, sizeof(sealed), &third, from.public_key, &back));
	assert_false(keyring_open(sealed, sizeof(sealed), &to, third.public_key, &back));
	assert_false(keyring_open(sealed, sizeof(sealed) - 1, &to, from.public_key, &back));
	for (size_t at = 0; at < sizeof(sealed); at++) {
		sealed[at] ^= 0x10;
		assert_false(keyring_open(sealed, sizeof(sealed), &to, from.public_key, &back));
		sealed[at] ^= 0x10;
	}
	assert_memory_equal(&back, &before, sizeof(back));
	assert_true(keyring_open(sealed, sizeof(sealed), &to, from.public_key, &back));
	assert_true(keyring_verify(&back, &cluster_id, from.public_key));
	assert_memory_equal(back.secret, key.secret, sizeof(key.secret));
	for (size_t at = 0; at + sizeof(key.secret) <= sizeof(sealed); at++)
		assert_true(memcmp(sealed + at, key.secret, sizeof(key.secret)) != 0);
}

/* Two keys of one id on the wire: both open, and the active one seals. */
static void frames_open_with_each_key_of_an_id(void **state)
{
	struct identity a = host(1), b = host(2);
	struct keyring ring = ring_of_one();
	struct keyring_key ka = next_key(&ring, &a, 1), kb;
	struct frame_ring frames, only_b;
	struct frame_sender from = {.hostno = 1, .host_id = a.id, .cluster_id = cluster_id, .boot = 11};
	struct frame_sender self = {.hostno = 2, .host_id = b.id, .cluster_id = cluster_id, .boot = 22};
	struct frame_peer peer = {.hostno = 1, .host_id = a.id};
	uint8_t packet[GOSSIP_PACKET_MAX], plain[GOSSIP_PACKET_MAX], secret = 2;
	size_t len, plain_len;

	(void)state;
	do
		kb = next_key(&ring, &b, secret++);
	while (keyring_wire_id(&kb) != keyring_wire_id(&ka) && secret != 0);
	for (unsigned i = 0; keyring_wire_id(&kb) != keyring_wire_id(&ka); i++) {
		memcpy(kb.secret + 4, &i, sizeof(i));
	}
	assert_int_not_equal(keyring_wire_id(&ka), FRAME_KEY_ID_FIRST);
	keyring_add(&ring, &ka);
	keyring_add(&ring, &kb);
	ring.active = 1;
	keyring_frames(&ring, &frames);
	assert_int_equal(frames.count, 3);
	frame_ring_init(&only_b);
	frame_ring_add(&only_b, keyring_wire_id(&kb), kb.secret, NULL);
	frame_peer_set_boot(&peer, 11);
	len = frame_seal(&from, &only_b, FRAME_CLASS_PUSH, &b.id, "x", 1, packet);
	assert_int_equal(frame_open(&peer, &self, &frames, packet, len, plain, &plain_len), FRAME_OK);
	len = frame_seal(&from, &frames, FRAME_CLASS_PUSH, &b.id, "x", 1, packet);
	frame_ring_init(&only_b);
	frame_ring_add(&only_b, keyring_wire_id(keyring_active(&ring)), keyring_active(&ring)->secret, NULL);
	assert_int_equal(frame_open(&peer, &self, &only_b, packet, len, plain, &plain_len), FRAME_OK);
	frame_peer_fini(&peer);
}

static void a_view_of_a_newer_release_is_understood(void **state)
{
	struct keyring_view view = {.wire_min = 1, .wire_max = 3, .count = 2, .active = {1}, .keys = {{1}, {2}}}, back;
	uint8_t val[KEYRING_VIEW_MAX + 8] = {0};
	size_t len = keyring_view_encode(&view, val);

	(void)state;
	val[0] = 9;
	assert_true(keyring_view_decode(val, len + 8, &back));
	assert_int_equal(back.wire_max, 3);
	assert_true(keyring_view_lists(&back, view.keys[1]));
	assert_false(keyring_view_lists(&back, (const uint8_t[8]){3}));
	for (size_t n = 0; n < len; n++)
		assert_false(keyring_view_decode(val, n, &back));
	val[1] = 4; /* least above greatest */
	assert_false(keyring_view_decode(val, len, &back));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_key_is_known_by_its_makers_signature),
		cmocka_unit_test(of_one_generation_the_lower_maker_is_newer),
		cmocka_unit_test(a_full_ring_gives_up_its_oldest_but_never_the_active_one),
		cmocka_unit_test(a_late_older_key_does_not_move_the_active_one),
		cmocka_unit_test(what_is_saved_is_read_again),
		cmocka_unit_test(a_sealed_key_opens_for_its_receiver_and_from_its_sender_alone),
		cmocka_unit_test(frames_open_with_each_key_of_an_id),
		cmocka_unit_test(a_view_of_a_newer_release_is_understood),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("keyring", tests, NULL, NULL);
}

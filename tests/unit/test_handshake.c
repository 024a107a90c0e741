/* The exchange by which a member fetches the cluster's keys: who may ask, who can read, and what anything else becomes. */
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "gossip/handshake.h"

static const struct id128 cluster_id = {.bytes = {0xc1}};
static const uint8_t asker_random[32] = {1, 1}, answerer_random[32] = {2, 2};
static const char content[] = "what the keys are";

struct pair {
	struct identity asker, answerer, third;
	struct handshake hs;
	uint8_t request[GOSSIP_PACKET_MAX], answer[GOSSIP_PACKET_MAX];
	size_t answer_len;
	struct handshake_request seen;
};

static struct identity host(uint8_t which)
{
	uint8_t seed[IDENTITY_SEED_SIZE] = {which};
	struct identity identity;

	identity_from_seed(&identity, seed);
	return identity;
}

static bool read_request(
	struct pair *p, const struct identity *self, const struct id128 *cluster, const uint8_t *packet, size_t len)
{
	struct handshake_state state;
	uint8_t ephemeral[32];

	if (!handshake_read_request(&state, self, cluster, packet, len, &p->seen, ephemeral))
		return false;
	p->answer_len = handshake_answer(&state, &p->seen, ephemeral, answerer_random, content, sizeof(content), p->answer);
	return true;
}

static int set_up(void **state)
{
	static struct pair p;

	memset(&p, 0, sizeof(p));
	p.asker = host(1);
	p.answerer = host(2);
	p.third = host(3);
	assert_true(handshake_ask(&p.hs, &p.asker, &cluster_id, p.answerer.public_key, 7, asker_random, p.request));
	assert_true(read_request(&p, &p.answerer, &cluster_id, p.request, sizeof(p.request)));
	assert_true(p.answer_len > 0);
	*state = &p;
	return 0;
}

static void the_asker_is_known_and_reads_the_answer(void **state)
{
	struct pair *p = *state;
	uint8_t read[HANDSHAKE_ANSWER_MAX];
	size_t len;

	assert_true(id_equal(&p->seen.host_id, &p->asker.id));
	assert_int_equal(p->seen.generation, 7);
	assert_true(handshake_static_is(&p->seen, p->asker.public_key));
	assert_false(handshake_static_is(&p->seen, p->third.public_key));
	assert_true(handshake_read_answer(&p->hs, p->answer, p->answer_len, read, &len));
	assert_int_equal(len, sizeof(content));
	assert_memory_equal(read, content, len);
	assert_true(p->answer_len <= sizeof(p->request));
}

static void a_request_opens_for_one_host_of_one_cluster(void **state)
{
	struct pair *p = *state;
	const struct id128 other = {.bytes = {0xc2}};

	assert_false(read_request(p, &p->third, &cluster_id, p->request, sizeof(p->request)));
	assert_false(read_request(p, &p->asker, &cluster_id, p->request, sizeof(p->request))); /* reflected */
	assert_false(read_request(p, &p->answerer, &other, p->request, sizeof(p->request)));
	assert_false(read_request(p, &p->answerer, &cluster_id, p->request, sizeof(p->request) - 1));
}

static void a_changed_bit_anywhere_spoils_a_request(void **state)
{
	struct pair *p = *state;

	for (size_t at = 0; at < sizeof(p->request); at++) {
		p->request[at] ^= 0x10;
		assert_false(read_request(p, &p->answerer, &cluster_id, p->request, sizeof(p->request)));
		p->request[at] ^= 0x10;
	}
}

static void an_answer_opens_for_its_asker_alone_and_once_changed_for_nobody(void **state)
{
	struct pair *p = *state;
	struct handshake other, stolen;
	uint8_t packet[GOSSIP_PACKET_MAX], read[HANDSHAKE_ANSWER_MAX];
	size_t len = 99;

	memset(read, 0x5a, sizeof(read));
	/* Another question of the same host, and a host that has all but the asker's own key. */
	assert_true(handshake_ask(&other, &p->asker, &cluster_id, p->answerer.public_key, 7, answerer_random, packet));
	assert_false(handshake_read_answer(&other, p->answer, p->answer_len, read, &len));
	stolen = p->hs;
	stolen.s_secret[3] ^= 8;
	assert_false(handshake_read_answer(&stolen, p->answer, p->answer_len, read, &len));
	for (size_t at = 0; at < p->answer_len; at++) {
		p->answer[at] ^= 0x10;
		assert_false(handshake_read_answer(&p->hs, p->answer, p->answer_len, read, &len));
		p->answer[at] ^= 0x10;
	}
	for (size_t n = 0; n < p->answer_len; n++)
		assert_false(handshake_read_answer(&p->hs, p->answer, n, read, &len));
	assert_int_equal(len, 99);
	assert_int_equal(read[0], 0x5a);
	assert_true(handshake_read_answer(&p->hs, p->answer, p->answer_len, read, &len)); /* all of that spoiled nothing */
}

/* Whoever recorded it all and gets the answerer's host key later: the answer needs an ephemeral key too. */
static void a_host_key_that_leaks_later_does_not_open_a_recorded_answer(void **state)
{
	struct pair *p = *state;
	struct handshake thief;
	uint8_t read[HANDSHAKE_ANSWER_MAX];
	size_t len;

	thief = p->hs;
	memset(thief.e_secret, 4, sizeof(thief.e_secret));
	assert_false(handshake_read_answer(&thief, p->answer, p->answer_len, read, &len));
}

static void points_that_everyone_shares_are_refused(void **state)
{
	struct pair *p = *state;
	struct handshake_state hs_state = {0};
	struct handshake_request request = p->seen;
	uint8_t packet[GOSSIP_PACKET_MAX], zero[32] = {0}, read[HANDSHAKE_ANSWER_MAX];
	size_t len;

	assert_int_equal(handshake_answer(&hs_state, &request, zero, answerer_random, content, sizeof(content), packet), 0);
	memset(request.static_key, 0, 32);
	assert_int_equal(
		handshake_answer(&hs_state, &request, asker_random, answerer_random, content, sizeof(content), packet), 0);
	memset(p->answer + 5, 0, 32);
	assert_false(handshake_read_answer(&p->hs, p->answer, p->answer_len, read, &len));
	assert_false(handshake_ask(&p->hs, &p->asker, &cluster_id, zero, 1, asker_random, packet));
}

static void forgotten_is_said_by_one_host_to_one_host(void **state)
{
	struct pair *p = *state;
	uint8_t packet[GOSSIP_PACKET_MAX];
	const uint8_t nonce[24] = {9};
	struct id128 from;
	size_t len = handshake_forgotten(&p->answerer, p->asker.public_key, nonce, packet);

	assert_int_equal(len, HANDSHAKE_FORGOTTEN_SIZE);
	assert_true(handshake_forgotten_sender(packet, len, &from));
	assert_true(id_equal(&from, &p->answerer.id));
	assert_true(handshake_forgotten_open(packet, len, &p->asker, p->answerer.public_key));
	assert_false(handshake_forgotten_open(packet, len, &p->third, p->answerer.public_key));
	assert_false(handshake_forgotten_open(packet, len, &p->asker, p->third.public_key));
	for (size_t at = 5 + 16; at < len; at++) {
		packet[at] ^= 1;
		assert_false(handshake_forgotten_open(packet, len, &p->asker, p->answerer.public_key));
		packet[at] ^= 1;
	}
	assert_false(handshake_forgotten_sender(packet, len - 1, &from));
}

/* BLAKE2b-128 of the two packets as a second implementation makes them, written from the specification over other primitives. */
static void the_bytes_are_those_of_the_noise_specification(void **state)
{
	struct pair *p = *state;
	uint8_t hash[16];
	char text[33];

	crypto_generichash(hash, sizeof(hash), p->request, sizeof(p->request), NULL, 0);
	sodium_bin2hex(text, sizeof(text), hash, sizeof(hash));
	assert_string_equal(text, "eebff0b31bf20f795acc43e000921dc2");
	crypto_generichash(hash, sizeof(hash), p->answer, p->answer_len, NULL, 0);
	sodium_bin2hex(text, sizeof(text), hash, sizeof(hash));
	assert_string_equal(text, "1054cb7bbe9d676f58123ab3b38bfdfc");
}

int main(void)
{
#define test(fn) cmocka_unit_test_setup(fn, set_up)
	const struct CMUnitTest tests[] = {
		test(the_asker_is_known_and_reads_the_answer),
		test(a_request_opens_for_one_host_of_one_cluster),
		test(a_changed_bit_anywhere_spoils_a_request),
		test(an_answer_opens_for_its_asker_alone_and_once_changed_for_nobody),
		test(a_host_key_that_leaks_later_does_not_open_a_recorded_answer),
		test(points_that_everyone_shares_are_refused),
		test(forgotten_is_said_by_one_host_to_one_host),
		test(the_bytes_are_those_of_the_noise_specification),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("handshake", tests, NULL, NULL);
}

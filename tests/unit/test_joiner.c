/* Admission end to end in memory: a joiner and its sponsors over a network that loses, doubles and damages; the records that
 * stay. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "gossip/admission_internal.h"
#include "gossip/frame_internal.h"
#include "gossip/joiner.h"

#define SPONSORS 2
#define FREE_HOSTNO 300
#define JOIN_HEADER 85
#define WELCOME_HEADER 45
#define SPONSOR_BOOT 0x1112131415161718
#define JOINER_BOOT 0x0102030405060708
#define TIMEOUT_MS 10000

/* One cluster of two members, one joiner, and what went over the wire. */
struct world {
	struct id128 cluster_id;
	uint8_t cluster_key[CLUSTER_KEY_SIZE];
	struct identity identities[SPONSORS], joiner_identity;
	struct member_save members[ADMISSION_WELCOME_MEMBERS_MAX];
	struct admission_sponsor sponsors[SPONSORS];
	bool down[SPONSORS];
	uint32_t hostno; /* what admit gives */
	unsigned admits;
	struct token token;
	struct joiner *joiner;
	uint64_t now_ms, random;
	unsigned loss_percent;
	bool double_all;
	unsigned streams;
	unsigned sent_to[SPONSORS], verdicts[ADMISSION_VERDICT_MAX];
	uint8_t last_join[GOSSIP_PACKET_MAX], last_reply[GOSSIP_PACKET_MAX];
	size_t last_join_len, last_reply_len;
	struct admission last_admission;
	struct member_save last_member;
	unsigned done_calls;
	bool admitted;
	struct joiner_result result;
	struct err err;
};

static const struct gossip_addr joiner_from = {{4, {203, 0, 113, 9}}, 40000};

static void fill_random(void *ctx, void *buf, size_t len)
{
	struct world *w = ctx;
	uint8_t *at = buf;

	while (len-- > 0) {
		w->random ^= w->random << 13;
		w->random ^= w->random >> 7;
		w->random ^= w->random << 17;
		*at++ = (uint8_t)(w->random >> 32);
	}
}

static uint32_t admit(void *ctx, const struct id128 *host_id)
{
	struct world *w = ctx;

	assert_true(id_equal(host_id, &w->joiner_identity.id));
	w->admits++;
	return w->hostno;
}

static void ip_set(struct ip *ip, const char *text)
{
	assert_int_equal(ip_parse(text, ip, NULL), 0);
}

static void identity_set(struct identity *identity, uint8_t seed_byte)
{
	uint8_t seed[IDENTITY_SEED_SIZE];

	memset(seed, seed_byte, sizeof(seed));
	identity_from_seed(identity, seed);
}

static void make_member(struct member_save *m, uint32_t hostno, const struct identity *identity, const char *ip, const char *name)
{
	memset(m, 0, sizeof(*m));
	m->hostno = hostno;
	m->host_id = identity->id;
	memcpy(m->public_key, identity->public_key, sizeof(m->public_key));
	m->epoch = 3;
	ip_set(&m->addr.ip, ip);
	m->addr.port = 7946;
	m->vtep = m->addr.ip;
	snprintf(m->name, sizeof(m->name), "%s", name);
}

static int setup(void **state)
{
	static struct world world;
	struct world *w = &world;
	struct admission_sponsor *s;
	unsigned i;

	memset(w, 0, sizeof(*w));
	w->random = 0x9e3779b97f4a7c15;
	memset(w->cluster_id.bytes, 0xcc, 16);
	fill_random(w, w->cluster_key, sizeof(w->cluster_key));
	identity_set(&w->joiner_identity, 99);
	w->hostno = FREE_HOSTNO;
	for (i = 0; i < SPONSORS; i++) {
		identity_set(&w->identities[i], (uint8_t)(i + 1));
		make_member(&w->members[i], i + 1, &w->identities[i], i ? "192.0.2.2" : "192.0.2.1", i ? "beta" : "alpha");
	}
	for (i = 0; i < SPONSORS; i++) {
		s = &w->sponsors[i];
		s->identity = &w->identities[i];
		s->cluster_id = w->cluster_id;
		s->cluster_key = w->cluster_key;
		s->hostno = i + 1;
		s->members = &w->members[i];
		s->member_count = SPONSORS - i;
		s->now_s = 1000;
		s->random = fill_random;
		s->admit = admit;
		s->boot = SPONSOR_BOOT;
		s->ctx = w;
		w->token.seeds[i] = w->members[i].addr;
	}
	w->token.seed_count = SPONSORS;
	w->token.cluster_id = w->cluster_id;
	memset(w->token.token_id.bytes, 0x70, 16);
	w->token.expires_s = 2000;
	token_secret(w->cluster_key, &w->token.token_id, w->token.expires_s, w->token.secret);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	joiner_free(w->joiner);
	return 0;
}

static bool lost(struct world *w)
{
	uint8_t random;

	fill_random(w, &random, 1);
	return random * 100 / 256 < w->loss_percent;
}

static void reach_joiner(struct world *w, unsigned sponsor)
{
	unsigned copies = w->double_all ? 2 : 1;

	if (lost(w))
		return;
	while (copies-- > 0)
		joiner_packet(w->joiner, &w->members[sponsor].addr, w->last_reply, w->last_reply_len, w->now_ms);
}

static void reach_sponsor(struct world *w, unsigned sponsor, const void *packet, size_t len)
{
	struct admission_result result;
	enum admission_verdict verdict = admission_handle(&w->sponsors[sponsor], &joiner_from, packet, len, &result);

	w->verdicts[verdict]++;
	assert_true(result.reply_len <= len);
	if (verdict == ADMISSION_OK) {
		w->last_admission = result.admission;
		w->last_member = result.member;
	}
	if (result.reply_len == 0)
		return;
	w->last_reply_len = result.reply_len;
	memcpy(w->last_reply, result.reply, result.reply_len);
	if (w->joiner)
		reach_joiner(w, sponsor);
}

static void send_packet(void *ctx, const struct gossip_addr *to, const void *packet, size_t len)
{
	struct world *w = ctx;
	unsigned i, copies = w->double_all ? 2 : 1;

	assert_int_equal(w->done_calls, 0);
	assert_int_equal(len, ADMISSION_JOIN_SIZE);
	memcpy(w->last_join, packet, len);
	w->last_join_len = len;
	for (i = 0; i < SPONSORS; i++) {
		if (!ip_equal(&to->ip, &w->members[i].addr.ip))
			continue;
		w->sent_to[i]++;
		if (w->down[i] || lost(w))
			continue;
		while (copies-- > 0)
			reach_sponsor(w, i, packet, len);
	}
}

static void done(void *ctx, const struct joiner_result *result, const struct err *err)
{
	struct world *w = ctx;

	w->done_calls++;
	w->admitted = result != NULL;
	if (result)
		w->result = *result;
	else
		w->err = *err;
}

static void start_joiner(struct world *w)
{
	static const struct joiner_ops ops = {send_packet, fill_random, done, NULL};
	struct gossip_addr self = {.port = 7946};
	struct ip vtep = {0};

	ip_set(&self.ip, "198.51.100.7");
	w->joiner = joiner_new(&w->token, &w->joiner_identity, "gamma", &self, &vtep, TIMEOUT_MS, &ops, w, w->now_ms);
}

/* Runs the joiner to its end, jumping from timer to timer. */
static void run(struct world *w)
{
	uint64_t next;
	unsigned ticks = 0;

	start_joiner(w);
	while ((next = joiner_tick(w->joiner, w->now_ms)) != UINT64_MAX) {
		assert_true(next > w->now_ms);
		assert_true(++ticks < 1000);
		w->now_ms = next;
	}
	assert_int_equal(w->done_calls, 1);
}

/* One JOIN, made by hand, kept in last_join; nobody has received it. */
static void make_join(struct world *w, struct admission_request *request)
{
	memset(request, 0, sizeof(*request));
	request->token = &w->token;
	request->identity = &w->joiner_identity;
	snprintf(request->name, sizeof(request->name), "gamma");
	ip_set(&request->addr.ip, "198.51.100.7");
	request->addr.port = 7946;
	request->boot = JOINER_BOOT;
	fill_random(w, request->ephemeral_secret, sizeof(request->ephemeral_secret));
	admission_join_encode(request, w->last_join);
	w->last_join_len = ADMISSION_JOIN_SIZE;
}

static enum admission_verdict handle(struct world *w, const void *packet, size_t len)
{
	struct admission_result result;
	enum admission_verdict verdict = admission_handle(&w->sponsors[0], &joiner_from, packet, len, &result);

	assert_true(result.reply_len == 0 || verdict == ADMISSION_OK || verdict >= ADMISSION_EXPIRED);
	w->last_reply_len = result.reply_len;
	memcpy(w->last_reply, result.reply, result.reply_len);
	return verdict;
}

/* ---- a host joins ---- */

static void a_host_joins_with_one_exchange(void **state)
{
	struct world *w = *state;
	struct member_save member;
	struct admission admission;
	unsigned i;

	run(w);
	assert_true(w->admitted);
	assert_int_equal(w->sent_to[0], 1);
	assert_int_equal(w->sent_to[1], 0);
	assert_true(id_equal(&w->result.cluster_id, &w->cluster_id));
	assert_memory_equal(w->result.cluster_key, w->cluster_key, CLUSTER_KEY_SIZE);
	assert_int_equal(w->result.hostno, FREE_HOSTNO);
	/* Both members, the sponsor first, and our own admission. */
	assert_int_equal(w->result.saved_count, 3);
	for (i = 0; i < SPONSORS; i++) {
		assert_int_equal(member_save_decode(w->result.saved[i].key, w->result.saved[i].key_len, w->result.saved[i].val,
					 w->result.saved[i].val_len, &member, NULL),
			0);
		assert_memory_equal(&member, &w->members[i], sizeof(member));
	}
	assert_int_equal(admission_decode(w->result.saved[2].key, w->result.saved[2].key_len, w->result.saved[2].val,
				 w->result.saved[2].val_len, &admission, NULL),
		0);
	assert_memory_equal(&admission, &w->last_admission, sizeof(admission));
}

static void the_sponsor_learns_the_joiner_and_signs_for_it(void **state)
{
	struct world *w = *state;
	struct ip ip;

	run(w);
	assert_int_equal(w->last_admission.hostno, FREE_HOSTNO);
	assert_true(id_equal(&w->last_admission.host_id, &w->joiner_identity.id));
	assert_string_equal(w->last_admission.name, "gamma");
	assert_int_equal(w->last_admission.sponsor_hostno, 1);
	ip_set(&ip, "198.51.100.7");
	assert_true(ip_equal(&w->last_admission.addr.ip, &ip) && ip_equal(&w->last_admission.vtep, &ip));
	assert_int_equal(w->last_admission.addr.port, 7946);
	assert_true(w->result.boot != 0 && w->last_admission.boot == w->result.boot);
	assert_true(w->result.source_boot == SPONSOR_BOOT);
	assert_int_equal(admission_verify(&w->last_admission, &w->cluster_id, w->identities[0].public_key, NULL), 0);
	assert_int_equal(w->last_member.hostno, FREE_HOSTNO);
	assert_true(ip_equal(&w->last_member.addr.ip, &ip));
	assert_int_equal(w->last_member.addr.port, 7946);
	assert_true(ip_equal(&w->last_member.vtep, &ip)); /* it named none */
}

static void an_address_the_joiner_does_not_know_is_taken_from_its_packet(void **state)
{
	struct world *w = *state;
	struct admission_request request;

	make_join(w, &request);
	memset(&request.addr, 0, sizeof(request.addr));
	admission_join_encode(&request, w->last_join);
	reach_sponsor(w, 0, w->last_join, w->last_join_len);
	assert_int_equal(w->verdicts[ADMISSION_OK], 1);
	assert_true(ip_equal(&w->last_member.addr.ip, &joiner_from.ip));
	assert_int_equal(w->last_member.addr.port, joiner_from.port);
	assert_true(ip_equal(&w->last_member.vtep, &joiner_from.ip));
}

static void loss_and_doubles_only_cost_time(void **state)
{
	struct world *w = *state;
	unsigned seed, slow = 0;

	for (seed = 1; seed <= 50; seed++) {
		teardown(state);
		setup(state);
		w->random = seed * 0x9e3779b97f4a7c15ull;
		w->loss_percent = 30;
		w->double_all = true;
		run(w);
		assert_true(w->admitted);
		assert_int_equal(w->result.hostno, FREE_HOSTNO);
		slow += w->now_ms > 0;
	}
	assert_true(slow > 10);
}

static void a_dead_seed_is_passed_over(void **state)
{
	struct world *w = *state;

	w->down[0] = true;
	run(w);
	assert_true(w->admitted);
	assert_int_equal(w->sent_to[0], 1);
	assert_int_equal(w->sent_to[1], 1);
	assert_true(w->now_ms < 1000);
	assert_int_equal(w->last_admission.sponsor_hostno, 2);
}

static void the_same_join_gives_the_same_number_again(void **state)
{
	struct world *w = *state;
	struct admission first;

	run(w);
	first = w->last_admission;
	reach_sponsor(w, 0, w->last_join, w->last_join_len); /* late, after the joiner's end */
	assert_int_equal(w->verdicts[ADMISSION_OK], 2);
	assert_memory_equal(&first, &w->last_admission, sizeof(first));
	assert_int_equal(w->done_calls, 1);
}

static void a_welcome_carries_as_many_members_as_fit(void **state)
{
	struct world *w = *state;
	struct admission_request request;
	struct admission_welcome welcome;
	struct identity identity;
	unsigned i;

	for (i = 1; i < ADMISSION_WELCOME_MEMBERS_MAX; i++) {
		identity_set(&identity, (uint8_t)(100 + i));
		make_member(&w->members[i], 100 + i, &identity, "2001:db8::ffff:ffff", "node-with-a-name-of-ordinary-length");
	}
	w->sponsors[0].member_count = ADMISSION_WELCOME_MEMBERS_MAX;
	make_join(w, &request);
	assert_int_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_OK);
	assert_int_equal(admission_reply_open(&request, w->last_reply, w->last_reply_len, &welcome), ADMISSION_OK);
	assert_true(welcome.member_count >= 3);
	assert_true(welcome.member_count < ADMISSION_WELCOME_MEMBERS_MAX);
	for (i = 0; i < welcome.member_count; i++)
		assert_memory_equal(&welcome.members[i], &w->members[i], sizeof(welcome.members[i]));
	/* Short ones: as many as the joiner can hand on. */
	for (i = 1; i < ADMISSION_WELCOME_MEMBERS_MAX; i++) {
		ip_set(&w->members[i].addr.ip, "192.0.2.9");
		w->members[i].vtep = w->members[i].addr.ip;
		w->members[i].name[1] = '\0';
	}
	w->sponsors[0].member_count = ADMISSION_WELCOME_MEMBERS_MAX;
	assert_int_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_OK);
	assert_int_equal(admission_reply_open(&request, w->last_reply, w->last_reply_len, &welcome), ADMISSION_OK);
	assert_int_equal(welcome.member_count, ADMISSION_WELCOME_MEMBERS_MAX);
	start_joiner(w);
	joiner_tick(w->joiner, 0);
	assert_true(w->admitted);
	assert_int_equal(w->result.saved_count, ADMISSION_WELCOME_MEMBERS_MAX + 1);
}

static void a_welcome_hands_out_a_later_key_with_its_makers_signature(void **state)
{
	struct world *w = *state;
	uint8_t secret[CLUSTER_KEY_SIZE] = {77};
	struct keyring ring, saved;
	struct keyring_key key;
	const struct identity *maker = &w->identities[0];

	keyring_init(&ring, w->sponsors[0].cluster_key);
	keyring_make(&key, &ring, &w->cluster_id, maker, 1795000000, secret);
	w->sponsors[0].hand_out = &key;
	start_joiner(w);
	joiner_tick(w->joiner, 0);
	assert_true(w->admitted);
	assert_memory_equal(w->result.cluster_key, secret, sizeof(secret));
	assert_int_equal(w->result.saved[w->result.saved_count - 1].key[0], 'k');
	assert_int_equal(keyring_decode(w->result.saved[w->result.saved_count - 1].val,
				 w->result.saved[w->result.saved_count - 1].val_len, &saved, NULL),
		0);
	assert_int_equal(saved.count, 1);
	assert_true(keyring_verify(&saved.keys[0], &w->cluster_id, maker->public_key));
}

/* ---- a host does not join ---- */

static void silence_ends_with_a_sentence_that_says_what_to_check(void **state)
{
	struct world *w = *state;

	w->down[0] = w->down[1] = true;
	run(w);
	assert_false(w->admitted);
	assert_int_equal(w->now_ms, TIMEOUT_MS);
	assert_int_equal(w->err.code, ERR_UNREACHABLE);
	assert_non_null(strstr(w->err.text, "192.0.2.1:7946, 192.0.2.2:7946"));
	assert_non_null(strstr(w->err.text, "10000 ms"));
	assert_non_null(strstr(w->err.text, "check that trestled runs there"));
	/* In turn, and not a storm. */
	assert_true(w->sent_to[0] - w->sent_to[1] <= 1);
	assert_true(w->sent_to[0] + w->sent_to[1] >= 6 && w->sent_to[0] + w->sent_to[1] <= 12);
	assert_int_equal(joiner_tick(w->joiner, w->now_ms + 1), UINT64_MAX);
	assert_int_equal(w->done_calls, 1);
}

static void count_stream(void *ctx, const struct gossip_addr *to, const void *packet, size_t len)
{
	struct world *w = ctx;

	assert_int_equal(len, ADMISSION_JOIN_SIZE);
	assert_int_equal(to->port, 7946);
	w->streams++;
	reach_sponsor(w, 0, packet, len); /* its answer comes back to joiner_packet */
}

static struct joiner *joiner_with_streams(struct world *w)
{
	static const struct joiner_ops ops = {send_packet, fill_random, done, count_stream};
	struct gossip_addr self = {.port = 7946};
	struct ip vtep = {0};

	ip_set(&self.ip, "198.51.100.7");
	return joiner_new(&w->token, &w->joiner_identity, "gamma", &self, &vtep, TIMEOUT_MS, &ops, w, w->now_ms);
}

static void where_udp_is_silent_a_stream_is_tried(void **state)
{
	struct world *w = *state;
	uint64_t next = 0;

	w->down[0] = w->down[1] = true;
	w->joiner = joiner_with_streams(w);
	while (next != UINT64_MAX && w->streams == 0) {
		w->now_ms = next;
		next = joiner_tick(w->joiner, w->now_ms);
	}
	assert_int_equal(w->sent_to[0] + w->sent_to[1], 2 * 2 + 1); /* two rounds by UDP alone */
	assert_true(w->admitted);
	assert_int_equal(w->done_calls, 1);
}

static void who_is_refused_by_udp_tries_no_stream(void **state)
{
	struct world *w = *state;
	uint64_t next = 0;

	w->hostno = 0; /* busy */
	w->down[1] = true;
	w->joiner = joiner_with_streams(w);
	while (next != UINT64_MAX) {
		w->now_ms = next;
		next = joiner_tick(w->joiner, w->now_ms);
	}
	assert_int_equal(w->streams, 0);
	assert_int_equal(w->err.code, ERR_DENIED);
}

static void a_forgotten_host_is_told_how_to_come_back(void **state)
{
	struct world *w = *state;

	w->hostno = ADMISSION_HOSTNO_FORGOTTEN;
	run(w);
	assert_false(w->admitted);
	assert_true(w->now_ms < TIMEOUT_MS);
	assert_int_equal(w->err.code, ERR_DENIED);
	assert_non_null(strstr(w->err.text, "(forgotten)"));
	assert_non_null(strstr(w->err.text, "`trestle leave` here"));
}

static void many_seeds_are_not_all_named(void **state)
{
	struct world *w = *state;
	unsigned i;

	for (i = 0; i < TOKEN_SEEDS_MAX; i++) {
		ip_set(&w->token.seeds[i].ip, "2001:db8:1111:2222:3333:4444:5555:6666");
		w->token.seeds[i].port = 65535;
	}
	w->token.seed_count = TOKEN_SEEDS_MAX;
	run(w);
	assert_non_null(strstr(w->err.text, "[2001:db8:1111:2222:3333:4444:5555:6666]:65535 and 5 more: check"));
	assert_non_null(strstr(w->err.text, "to any other)")); /* all of it fits */
}

static void an_answer_after_the_end_changes_nothing(void **state)
{
	struct world *w = *state;

	w->loss_percent = 100;
	run(w);
	assert_false(w->admitted);
	w->loss_percent = 0;
	reach_sponsor(w, 0, w->last_join, w->last_join_len);
	assert_int_equal(w->verdicts[ADMISSION_OK], 1);
	assert_int_equal(w->done_calls, 1);
}

static void an_expired_token_ends_the_attempt_at_once(void **state)
{
	struct world *w = *state;

	w->sponsors[0].now_s = w->sponsors[1].now_s = 2001;
	run(w);
	assert_false(w->admitted);
	assert_true(w->now_ms < 1000);
	assert_int_equal(w->err.code, ERR_DENIED);
	assert_non_null(strstr(w->err.text, "refuses (expired): the token has expired"));
	assert_int_equal(w->verdicts[ADMISSION_EXPIRED], 2);
	assert_int_equal(w->admits, 0);
}

static void a_token_is_good_to_its_last_second_and_by_one_sponsor(void **state)
{
	struct world *w = *state;

	w->sponsors[0].now_s = 2001;
	w->sponsors[1].now_s = 2000;
	run(w);
	assert_true(w->admitted);
	assert_int_equal(w->last_admission.sponsor_hostno, 2);
}

static void a_token_without_expiry_and_a_sponsor_without_clock_do_not_expire(void **state)
{
	struct world *w = *state;
	struct admission_request request;

	w->token.expires_s = 0;
	token_secret(w->cluster_key, &w->token.token_id, 0, w->token.secret);
	w->sponsors[0].now_s = INT64_MAX;
	make_join(w, &request);
	assert_int_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_OK);
	w->token.expires_s = 1;
	token_secret(w->cluster_key, &w->token.token_id, 1, w->token.secret);
	make_join(w, &request);
	assert_int_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_EXPIRED);
	w->sponsors[0].now_s = 0;
	assert_int_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_OK);
}

static void a_seed_that_refuses_for_good_is_not_asked_again(void **state)
{
	struct world *w = *state;

	w->sponsors[0].now_s = 2001;
	w->down[1] = true;
	run(w);
	assert_int_equal(w->sent_to[0], 1);
	assert_true(w->sent_to[1] > 3);
	assert_int_equal(w->now_ms, TIMEOUT_MS);
	assert_non_null(strstr(w->err.text, "192.0.2.1:7946 refuses (expired)"));
}

static void a_busy_sponsor_is_asked_again(void **state)
{
	struct world *w = *state;

	w->hostno = 0;
	start_joiner(w);
	joiner_tick(w->joiner, 0);
	assert_int_equal(w->verdicts[ADMISSION_BUSY], 1);
	assert_int_equal(w->done_calls, 0);
	w->hostno = FREE_HOSTNO;
	w->now_ms = joiner_tick(w->joiner, 0);
	joiner_tick(w->joiner, w->now_ms);
	assert_true(w->admitted);
}

static void a_cluster_without_numbers_says_so_at_the_end(void **state)
{
	struct world *w = *state;

	w->hostno = GOSSIP_HOSTNO_MAX + 1;
	run(w);
	assert_int_equal(w->now_ms, TIMEOUT_MS);
	assert_int_equal(w->err.code, ERR_DENIED);
	assert_non_null(strstr(w->err.text, "refuses (busy): the member has no free host number"));
}

static void a_host_whose_name_is_refused_is_told_so(void **state)
{
	static const struct joiner_ops ops = {send_packet, fill_random, done, NULL};
	struct world *w = *state;
	struct gossip_addr self = {.port = 7946};
	struct ip vtep = {0};

	w->joiner = joiner_new(&w->token, &w->joiner_identity, "two\nlines", &self, &vtep, TIMEOUT_MS, &ops, w, 0);
	assert_int_equal(joiner_tick(w->joiner, joiner_tick(w->joiner, 0)), UINT64_MAX);
	assert_int_equal(w->err.code, ERR_DENIED);
	assert_non_null(strstr(w->err.text, "192.0.2.2:7946 refuses (content): the member does not accept this host's name"));
	assert_int_equal(w->done_calls, 1);
}

static void a_refusal_from_an_unknown_address_is_remembered(void **state)
{
	struct world *w = *state;

	w->sponsors[0].now_s = 2001;
	w->down[1] = true;
	ip_set(&w->token.seeds[0].ip, "192.0.2.77"); /* the sponsor's other address: we ask there, it answers from 192.0.2.1 */
	start_joiner(w);
	joiner_tick(w->joiner, 0);
	reach_sponsor(w, 0, w->last_join, w->last_join_len);
	assert_int_equal(w->done_calls, 0);
	joiner_tick(w->joiner, TIMEOUT_MS);
	assert_non_null(strstr(w->err.text, "192.0.2.1:7946 refuses (expired)"));
}

static void a_forged_token_meets_silence(void **state)
{
	struct world *w = *state;

	w->token.secret[5] ^= 1;
	run(w);
	assert_false(w->admitted);
	assert_int_equal(w->err.code, ERR_UNREACHABLE);
	assert_true(w->verdicts[ADMISSION_TOKEN] > 0);
	assert_int_equal(w->last_reply_len, 0);
	assert_int_equal(w->admits, 0);
}

static void a_longer_expiry_than_was_given_is_a_forged_token(void **state)
{
	struct world *w = *state;

	w->token.expires_s += 1000;
	run(w);
	assert_true(w->verdicts[ADMISSION_TOKEN] > 0);
	assert_int_equal(w->last_reply_len, 0);
}

static void a_token_of_another_cluster_meets_silence(void **state)
{
	struct world *w = *state;

	w->token.cluster_id.bytes[0] ^= 1;
	run(w);
	assert_int_equal(w->err.code, ERR_UNREACHABLE);
	assert_true(w->verdicts[ADMISSION_CLUSTER] > 0);
	assert_int_equal(w->last_reply_len, 0);
}

static void a_join_signed_with_another_key_is_refused(void **state)
{
	struct world *w = *state;
	struct admission_request request;
	struct admission_welcome welcome;
	struct identity thief;

	/* Somebody with a genuine token claims the public key of another host. */
	identity_set(&thief, 66);
	memcpy(thief.public_key, w->joiner_identity.public_key, sizeof(thief.public_key));
	make_join(w, &request);
	request.identity = &thief;
	admission_join_encode(&request, w->last_join);
	assert_int_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_SIGNATURE);
	assert_int_equal(w->admits, 0);
	assert_int_equal(admission_reply_open(&request, w->last_reply, w->last_reply_len, &welcome), ADMISSION_SIGNATURE);
}

static void addresses_of_the_other_family_are_refused(void **state)
{
	struct world *w = *state;
	struct admission_request request;

	make_join(w, &request);
	ip_set(&request.addr.ip, "2001:db8::7");
	admission_join_encode(&request, w->last_join);
	assert_int_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_FAMILY);
	make_join(w, &request);
	ip_set(&request.vtep, "2001:db8::7");
	admission_join_encode(&request, w->last_join);
	assert_int_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_FAMILY);
	assert_int_equal(w->admits, 0);
	make_join(w, &request);
	admission_join_encode(&request, w->last_join);
	assert_int_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_OK);
}

static void a_name_that_cannot_be_shown_is_refused(void **state)
{
	static const char *const names[] = {"", "a\nb", "\x1b[2J", "del\x7f", "a b", "\xff", "\xc3\xa4", "cut\xc3", "\xc0\x80"};
	struct world *w = *state;
	struct admission_request request;
	struct admission_welcome welcome;
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		make_join(w, &request);
		snprintf(request.name, sizeof(request.name), "%s", names[i]);
		admission_join_encode(&request, w->last_join);
		assert_int_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_CONTENT);
		assert_int_equal(admission_reply_open(&request, w->last_reply, w->last_reply_len, &welcome), ADMISSION_CONTENT);
	}
	assert_int_equal(w->admits, 0);
}

/* ---- packets damaged, cut and misdirected ---- */

static void a_join_changed_anywhere_meets_silence(void **state)
{
	struct world *w = *state;
	struct admission_request request;
	size_t at;

	make_join(w, &request);
	for (at = 0; at < w->last_join_len; at++) {
		w->last_join[at] ^= 0x20;
		assert_int_not_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_OK);
		assert_int_equal(w->last_reply_len, 0);
		w->last_join[at] ^= 0x20;
	}
	assert_int_equal(w->admits, 0);
	assert_int_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_OK);
}

static void the_verdict_names_what_is_wrong_with_a_join(void **state)
{
	static const struct {
		size_t at;
		enum admission_verdict verdict;
	} cases[] = {
		{0, ADMISSION_VERSION},
		{1, ADMISSION_KIND},
		{4, ADMISSION_KIND},
		{5, ADMISSION_CLUSTER},
		{20, ADMISSION_CLUSTER},
		{21, ADMISSION_TOKEN},
		{44, ADMISSION_TOKEN},
		{45, ADMISSION_TOKEN},
		{77, ADMISSION_TOKEN},
		{JOIN_HEADER, ADMISSION_TOKEN},
		{ADMISSION_JOIN_SIZE - 1, ADMISSION_TOKEN},
	};
	struct world *w = *state;
	struct admission_request request;
	size_t i;

	make_join(w, &request);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		w->last_join[cases[i].at] ^= 0x40;
		assert_int_equal(handle(w, w->last_join, w->last_join_len), cases[i].verdict);
		w->last_join[cases[i].at] ^= 0x40;
	}
	for (i = 0; i < w->last_join_len; i++)
		assert_int_equal(handle(w, w->last_join, i), ADMISSION_SHORT);
	for (i = 0; i < ADMISSION_VERDICT_MAX; i++)
		assert_string_not_equal(admission_verdict_name((enum admission_verdict)i), "unknown");
	assert_string_equal(admission_verdict_name(ADMISSION_VERDICT_MAX), "unknown");
}

static void assert_every_change_is_ignored(
	const struct admission_request *request, uint8_t *packet, size_t len, enum admission_verdict genuine)
{
	struct admission_welcome welcome, before;
	enum admission_verdict verdict;
	size_t at;

	memset(&welcome, 0x5a, sizeof(welcome));
	before = welcome;
	for (at = 0; at < len; at++) {
		packet[at] ^= 0x04;
		verdict = admission_reply_open(request, packet, len, &welcome);
		assert_true(verdict != ADMISSION_OK && verdict < ADMISSION_EXPIRED);
		packet[at] ^= 0x04;
		verdict = admission_reply_open(request, packet, at, &welcome);
		assert_true(verdict != ADMISSION_OK && verdict < ADMISSION_EXPIRED);
	}
	assert_memory_equal(&welcome, &before, sizeof(welcome));
	assert_int_equal(admission_reply_open(request, packet, len, &welcome), genuine);
}

static void an_answer_changed_or_cut_anywhere_is_ignored(void **state)
{
	struct world *w = *state;
	struct admission_request request;

	make_join(w, &request);
	assert_int_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_OK);
	assert_every_change_is_ignored(&request, w->last_reply, w->last_reply_len, ADMISSION_OK);
	w->hostno = 0;
	assert_int_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_BUSY);
	assert_every_change_is_ignored(&request, w->last_reply, w->last_reply_len, ADMISSION_BUSY);
}

static void an_answer_to_someone_else_is_ignored(void **state)
{
	struct world *w = *state;
	struct admission_request request, other;
	struct admission_welcome welcome;
	uint8_t welcome_packet[GOSSIP_PACKET_MAX];
	size_t len;

	make_join(w, &request);
	assert_int_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_OK);
	memcpy(welcome_packet, w->last_reply, w->last_reply_len);
	len = w->last_reply_len;
	/* The same token and host, another attempt. */
	make_join(w, &other);
	assert_int_equal(admission_reply_open(&other, welcome_packet, len, &welcome), ADMISSION_TOKEN);
	/* The same attempt, with another host key: the sponsor signed for the first. */
	other = request;
	other.identity = &w->identities[1];
	assert_int_equal(admission_reply_open(&other, welcome_packet, len, &welcome), ADMISSION_TOKEN);
	assert_int_equal(admission_reply_open(&request, w->last_join, w->last_join_len, &welcome), ADMISSION_KIND);
	assert_int_equal(handle(w, welcome_packet, len), ADMISSION_KIND);
	assert_int_equal(admission_reply_open(&request, welcome_packet, len, &welcome), ADMISSION_OK);
}

static void a_welcome_whose_sponsor_did_not_sign_is_ignored(void **state)
{
	struct world *w = *state;
	struct admission_request request;
	struct admission_welcome welcome;

	/* A holder of the cluster key that claims to be alpha, with a key of its own. */
	w->sponsors[0].identity = &w->identities[1];
	make_join(w, &request);
	assert_int_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_OK);
	assert_int_equal(admission_reply_open(&request, w->last_reply, w->last_reply_len, &welcome), ADMISSION_TOKEN);
}

/* Changes one byte of a WELCOME's plaintext and seals it again, as a holder of the token could who had the ephemeral secret. */
static void change_inside_welcome(struct world *w, const struct admission_request *request, size_t at)
{
	static const uint8_t nonce[24];
	uint8_t text[17 + 96] = "trestle welcome 1", aad[WELCOME_HEADER + 32], plain[GOSSIP_PACKET_MAX], key[32];
	uint8_t *packet = w->last_reply;
	size_t len = w->last_reply_len - WELCOME_HEADER;

	assert_int_equal(crypto_scalarmult(text + 17, request->ephemeral_secret, packet + 5), 0);
	crypto_scalarmult_base(text + 17 + 32, request->ephemeral_secret);
	memcpy(text + 17 + 64, packet + 5, 32);
	crypto_generichash(key, sizeof(key), text, sizeof(text), w->token.secret, sizeof(w->token.secret));
	memcpy(aad, packet, WELCOME_HEADER);
	memcpy(aad + WELCOME_HEADER, w->cluster_id.bytes, 16);
	memcpy(aad + WELCOME_HEADER + 16, w->token.token_id.bytes, 16);
	assert_int_equal(crypto_aead_xchacha20poly1305_ietf_decrypt(
				 plain, NULL, NULL, packet + WELCOME_HEADER, len, aad, sizeof(aad), nonce, key),
		0);
	plain[at] ^= 1;
	crypto_aead_xchacha20poly1305_ietf_encrypt(
		packet + WELCOME_HEADER, NULL, plain, len - 16, aad, sizeof(aad), NULL, nonce, key);
}

static void everything_in_a_welcome_is_signed(void **state)
{
	struct world *w = *state;
	struct admission_request request;
	struct admission_welcome welcome;
	size_t at;

	make_join(w, &request);
	assert_int_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_OK);
	for (at = 0; at < w->last_reply_len - WELCOME_HEADER - 16; at++) {
		change_inside_welcome(w, &request, at);
		assert_in_range(admission_reply_open(&request, w->last_reply, w->last_reply_len, &welcome), ADMISSION_KIND,
			ADMISSION_TOKEN);
		change_inside_welcome(w, &request, at);
	}
	assert_int_equal(admission_reply_open(&request, w->last_reply, w->last_reply_len, &welcome), ADMISSION_OK);
}

static void everything_in_a_join_is_signed_or_zero(void **state)
{
	static const uint8_t nonce[24];
	enum { SIGNED = 32 + 6 + 5 + 2 + 1, SIGNATURE_END = SIGNED + 64 };
	struct world *w = *state;
	struct admission_request request;
	uint8_t text[14 + 32] = "trestle join 1", plain[GOSSIP_PACKET_MAX], key[32], *packet = w->last_join;
	size_t len = ADMISSION_JOIN_SIZE - JOIN_HEADER, at;

	make_join(w, &request);
	memcpy(text + 14, packet + 45, 32);
	crypto_generichash(key, sizeof(key), text, sizeof(text), w->token.secret, sizeof(w->token.secret));
	assert_int_equal(crypto_aead_xchacha20poly1305_ietf_decrypt(
				 plain, NULL, NULL, packet + JOIN_HEADER, len, packet, JOIN_HEADER, nonce, key),
		0);
	for (at = 0; at < len - 16; at++) {
		plain[at] ^= 1;
		crypto_aead_xchacha20poly1305_ietf_encrypt(
			packet + JOIN_HEADER, NULL, plain, len - 16, packet, JOIN_HEADER, NULL, nonce, key);
		if (at < SIGNATURE_END)
			assert_in_range(handle(w, packet, ADMISSION_JOIN_SIZE), ADMISSION_SIGNATURE, ADMISSION_CONTENT);
		else
			assert_int_equal(handle(w, packet, ADMISSION_JOIN_SIZE), ADMISSION_CONTENT);
		plain[at] ^= 1;
	}
	assert_int_equal(w->admits, 0);
}

static void a_degenerate_ephemeral_key_is_refused(void **state)
{
	struct world *w = *state;
	struct admission_request request;
	struct admission_welcome welcome;
	uint8_t packet[ADMISSION_JOIN_SIZE] = {0x1f, 2}; /* WELCOME with the X25519 point zero */

	make_join(w, &request);
	assert_int_equal(admission_reply_open(&request, packet, sizeof(packet), &welcome), ADMISSION_TOKEN);
}

/* ---- what is kept ---- */

static void a_saved_member_changed_in_shape_is_refused(void **state)
{
	struct world *w = *state;
	uint8_t key[SAVED_KEY_SIZE], val[MEMBER_SAVE_MAX + 1] = {0};
	struct member_save back;
	struct err err;
	size_t len = member_save_encode(&w->members[0], key, val), n;

	for (n = 0; n < len; n++)
		assert_int_equal(member_save_decode(key, sizeof(key), val, n, &back, &err), -1);
	assert_int_equal(member_save_decode(key, sizeof(key), val, len + 1, &back, &err), -1);
	assert_int_equal(err.code, ERR_CORRUPT);
	assert_int_equal(member_save_decode(key, sizeof(key) - 1, val, len, &back, &err), -1);
	key[0] = 'a';
	assert_int_equal(member_save_decode(key, sizeof(key), val, len, &back, &err), -1);
	key[0] = 'm';
	val[4] ^= 1; /* the public key: no longer that of the id */
	assert_int_equal(member_save_decode(key, sizeof(key), val, len, &back, &err), -1);
	assert_non_null(strstr(err.text, "its own key names another"));
	val[4] ^= 1;
	val[0] = 2;
	assert_int_equal(member_save_decode(key, sizeof(key), val, len, &back, &err), -1);
	assert_int_equal(err.code, ERR_VERSION);
	val[0] = 1;
	memset(val + 1, 0, 3);
	assert_int_equal(member_save_decode(key, sizeof(key), val, len, &back, &err), -1);
	assert_int_equal(member_save_encode(&w->members[0], key, val), len);
	assert_int_equal(member_save_decode(key, sizeof(key), val, len, &back, &err), 0);
	assert_memory_equal(&back, &w->members[0], sizeof(back));
}

static void the_largest_records_fit_their_buffers(void **state)
{
	struct world *w = *state;
	uint8_t key[SAVED_KEY_SIZE], val[ADMISSION_MAX];
	struct member_save member = w->members[0], member_back;
	struct admission admission = {0}, admission_back;
	size_t len;

	memset(member.name, 'x', GOSSIP_NAME_MAX);
	member.hostno = GOSSIP_HOSTNO_MAX;
	member.epoch = UINT32_MAX;
	ip_set(&member.addr.ip, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff");
	member.addr.port = 65535;
	member.vtep = member.addr.ip;
	len = member_save_encode(&member, key, val);
	assert_int_equal(member_save_decode(key, sizeof(key), val, len, &member_back, NULL), 0);
	assert_memory_equal(&member, &member_back, sizeof(member));
	admission.hostno = GOSSIP_HOSTNO_MAX;
	admission.host_id = member.host_id;
	memcpy(admission.public_key, member.public_key, sizeof(admission.public_key));
	memset(admission.name, 'x', GOSSIP_NAME_MAX);
	admission_sign(&admission, &w->cluster_id, &w->identities[1], GOSSIP_HOSTNO_MAX);
	len = admission_encode(&admission, key, val);
	assert_int_equal(admission_decode(key, sizeof(key), val, len, &admission_back, NULL), 0);
	assert_memory_equal(&admission, &admission_back, sizeof(admission));
}

static void an_admission_holds_only_as_its_sponsor_signed_it(void **state)
{
	struct world *w = *state;
	uint8_t key[SAVED_KEY_SIZE], val[ADMISSION_MAX], damaged[ADMISSION_MAX];
	struct admission admission;
	struct id128 other_cluster = {{1}};
	struct err err;
	size_t len, at;

	run(w);
	len = admission_encode(&w->last_admission, key, val);
	for (at = 0; at < len; at++) {
		memcpy(damaged, val, len);
		damaged[at] ^= 0x01;
		assert_true(admission_decode(key, sizeof(key), damaged, len, &admission, &err) < 0 ||
			    admission_verify(&admission, &w->cluster_id, w->identities[0].public_key, &err) < 0);
		assert_int_equal(admission_decode(key, sizeof(key), val, at, &admission, &err), -1);
	}
	assert_int_equal(admission_decode(key, sizeof(key), val, len, &admission, &err), 0);
	assert_int_equal(admission_verify(&admission, &w->cluster_id, w->identities[0].public_key, &err), 0);
	assert_int_equal(admission_verify(&admission, &other_cluster, w->identities[0].public_key, &err), -1);
	assert_int_equal(err.code, ERR_DENIED);
	assert_non_null(strstr(err.text, "(gamma, number 300): not signed by its sponsor"));
	assert_int_equal(admission_verify(&admission, &w->cluster_id, w->identities[1].public_key, &err), -1);
}

static void an_admission_signed_in_the_name_of_another_does_not_hold(void **state)
{
	struct world *w = *state;
	struct admission admission = {.hostno = 9, .host_id = w->joiner_identity.id, .name = "gamma"};
	struct identity liar = w->identities[1];

	liar.id = w->identities[0].id;
	memcpy(admission.public_key, w->joiner_identity.public_key, sizeof(admission.public_key));
	admission_sign(&admission, &w->cluster_id, &liar, 1);
	assert_int_equal(admission_verify(&admission, &w->cluster_id, w->identities[0].public_key, NULL), -1);
}

static void the_first_host_admits_itself(void **state)
{
	struct world *w = *state;
	struct admission admission = {.hostno = 1, .host_id = w->identities[0].id, .name = "alpha"};

	memcpy(admission.public_key, w->identities[0].public_key, sizeof(admission.public_key));
	admission_sign(&admission, &w->cluster_id, &w->identities[0], 1);
	assert_int_equal(admission.sponsor_hostno, admission.hostno);
	assert_int_equal(admission_verify(&admission, &w->cluster_id, admission.public_key, NULL), 0);
}

/* ---- the bytes of docs/wire.md, "Test vectors": computed by other code than ours ---- */

static void fill_vector(void *ctx, void *buf, size_t len)
{
	(void)ctx;
	memset(buf, len == 32 ? 0x43 : 0x44, len); /* the ephemeral key of WELCOME, the nonce of REFUSED */
}

static void assert_hash(const void *packet, size_t len, const char *expected)
{
	char text[65];
	uint8_t hash[32];

	crypto_generichash(hash, sizeof(hash), packet, len, NULL, 0);
	hex_encode(hash, sizeof(hash), text);
	assert_string_equal(text, expected);
}

static void assert_hex(const void *bytes, size_t len, const char *expected)
{
	char text[2 * GOSSIP_PACKET_MAX + 1];

	hex_encode(bytes, len, text);
	assert_string_equal(text, expected);
}

static void use_vector_keys(struct world *w)
{
	unsigned i;

	for (i = 0; i < sizeof(w->cluster_key); i++)
		w->cluster_key[i] = (uint8_t)i;
	identity_set(&w->joiner_identity, 2);
	token_secret(w->cluster_key, &w->token.token_id, w->token.expires_s, w->token.secret);
	w->sponsors[0].random = fill_vector;
	w->sponsors[0].member_count = 1;
}

static void the_packets_are_the_documented_ones(void **state)
{
	struct world *w = *state;
	struct admission_request request;

	use_vector_keys(w);
	make_join(w, &request);
	memset(request.ephemeral_secret, 0x42, sizeof(request.ephemeral_secret));
	admission_join_encode(&request, w->last_join);
	assert_hash(w->last_join, w->last_join_len, "032039c4b3ddf57b699d2b581fd5df27d589ffb39985706b797553fcf322808e");
	assert_int_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_OK);
	assert_int_equal(w->last_reply_len, 293);
	assert_hash(w->last_reply, w->last_reply_len, "921399ce227cb0838c618c0e376d209a2f8a4d0a7c0ade9ad150c47016986af5");
	w->sponsors[0].now_s = 2001;
	assert_int_equal(handle(w, w->last_join, w->last_join_len), ADMISSION_EXPIRED);
	assert_hex(w->last_reply, w->last_reply_len,
		"1f03000000444444444444444444444444444444444444444444444444f92c556cc4e439eb492f40e1fa0d51d4a9");
}

static void the_saved_pairs_are_the_documented_ones(void **state)
{
	struct world *w = *state;
	uint8_t key[SAVED_KEY_SIZE], val[ADMISSION_MAX];
	struct admission admission = {.hostno = FREE_HOSTNO, .name = "gamma"};
	size_t len;

	use_vector_keys(w);
	admission.host_id = w->joiner_identity.id;
	admission.boot = JOINER_BOOT;
	ip_set(&admission.addr.ip, "198.51.100.7");
	admission.addr.port = 7946;
	admission.vtep = admission.addr.ip;
	memcpy(admission.public_key, w->joiner_identity.public_key, sizeof(admission.public_key));
	admission_sign(&admission, &w->cluster_id, &w->identities[0], 1);
	len = admission_encode(&admission, key, val);
	assert_hex(key, sizeof(key), "61c11ae4092c56101421f745612bdc6b51");
	assert_hex(val, len,
		"0100012c8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b3940567616d6d6104c63364071f0a00010203040506"
		"070800000151b010e156cbcc69706a37d8787d58bde288434a7f10ff85c0f9ae7fef119fca36424c454dc59f6eb3956a31dac2a32bf5a027"
		"cd9f53baf80ea7417824d61f00");
	len = member_save_encode(&w->members[0], key, val);
	assert_hex(key, sizeof(key), "6dc5e21ab1c9f6022d81c3b25e3436cb7f");
	assert_hex(val, len,
		"010000018a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c0000000304c00002011f0a04c000020105616c70"
		"6861");
}

#define test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(a_host_joins_with_one_exchange),
		test(the_sponsor_learns_the_joiner_and_signs_for_it),
		test(an_address_the_joiner_does_not_know_is_taken_from_its_packet),
		test(loss_and_doubles_only_cost_time),
		test(a_dead_seed_is_passed_over),
		test(the_same_join_gives_the_same_number_again),
		test(a_welcome_carries_as_many_members_as_fit),
		test(a_welcome_hands_out_a_later_key_with_its_makers_signature),
		test(a_forgotten_host_is_told_how_to_come_back),
		test(where_udp_is_silent_a_stream_is_tried),
		test(who_is_refused_by_udp_tries_no_stream),
		test(silence_ends_with_a_sentence_that_says_what_to_check),
		test(many_seeds_are_not_all_named),
		test(an_answer_after_the_end_changes_nothing),
		test(an_expired_token_ends_the_attempt_at_once),
		test(a_token_is_good_to_its_last_second_and_by_one_sponsor),
		test(a_token_without_expiry_and_a_sponsor_without_clock_do_not_expire),
		test(a_seed_that_refuses_for_good_is_not_asked_again),
		test(a_busy_sponsor_is_asked_again),
		test(a_cluster_without_numbers_says_so_at_the_end),
		test(a_host_whose_name_is_refused_is_told_so),
		test(a_refusal_from_an_unknown_address_is_remembered),
		test(a_forged_token_meets_silence),
		test(a_longer_expiry_than_was_given_is_a_forged_token),
		test(a_token_of_another_cluster_meets_silence),
		test(a_join_signed_with_another_key_is_refused),
		test(addresses_of_the_other_family_are_refused),
		test(a_name_that_cannot_be_shown_is_refused),
		test(a_join_changed_anywhere_meets_silence),
		test(the_verdict_names_what_is_wrong_with_a_join),
		test(an_answer_changed_or_cut_anywhere_is_ignored),
		test(an_answer_to_someone_else_is_ignored),
		test(a_welcome_whose_sponsor_did_not_sign_is_ignored),
		test(everything_in_a_welcome_is_signed),
		test(everything_in_a_join_is_signed_or_zero),
		test(a_degenerate_ephemeral_key_is_refused),
		test(a_saved_member_changed_in_shape_is_refused),
		test(the_largest_records_fit_their_buffers),
		test(an_admission_holds_only_as_its_sponsor_signed_it),
		test(an_admission_signed_in_the_name_of_another_does_not_hold),
		test(the_first_host_admits_itself),
		test(the_packets_are_the_documented_ones),
		test(the_saved_pairs_are_the_documented_ones),
	};

	return cmocka_run_group_tests_name("joiner", tests, NULL, NULL);
}

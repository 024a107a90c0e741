/* One signature for the admissions of a packet: taken from their sponsor, for exactly these; else each stands for itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "gossip/core_internal.h"

#define SPONSOR 2u
#define OTHER 3u
#define FIRST_NEW 10u
#define NEW 3u

static const struct id128 cluster_id = {{0xcc}};

struct fixture {
	struct identity self, sponsor, other;
	struct gossip *g, *at_sponsor;
	uint32_t seed;
	uint64_t seq; /* of the sponsor's shard, as far as it was sent */
};

static void on_send(void *ctx, const struct gossip_addr *to, const void *packet, size_t len)
{
	(void)ctx, (void)to, (void)packet, (void)len;
}

static void on_random(void *ctx, void *buf, size_t len)
{
	uint32_t *seed = ctx;

	for (size_t i = 0; i < len; i++) {
		*seed = *seed * 1103515245 + 12345;
		((uint8_t *)buf)[i] = (uint8_t)(*seed >> 16);
	}
}

static void on_member(void *ctx, const struct gossip_member *member, enum gossip_state old)
{
	(void)ctx, (void)member, (void)old;
}

static void on_record(
	void *ctx, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len)
{
	(void)ctx, (void)origin, (void)topic, (void)key, (void)key_len, (void)val, (void)val_len;
}

static void on_told(void *ctx, uint32_t from_hostno, uint8_t kind, const void *body, size_t len)
{
	(void)ctx, (void)from_hostno, (void)kind, (void)body, (void)len;
}

static uint32_t on_admit(void *ctx, const struct id128 *host_id)
{
	(void)ctx, (void)host_id;
	return 0;
}

static void on_save(void *ctx, const void *key, size_t key_len, const void *val, size_t len, bool durable)
{
	(void)ctx, (void)key, (void)key_len, (void)val, (void)len, (void)durable;
}

static const struct gossip_ops ops = {.send = on_send,
	.stream = on_send,
	.random = on_random,
	.member = on_member,
	.record = on_record,
	.told = on_told,
	.admit = on_admit,
	.save = on_save};

static void make_identity(struct identity *identity, uint8_t number)
{
	const uint8_t seed[IDENTITY_SEED_SIZE] = {number};

	identity_from_seed(identity, seed);
}

static void know(struct gossip *g, uint32_t hostno, const struct identity *identity)
{
	struct member_save save = {.hostno = hostno,
		.host_id = identity->id,
		.epoch = 1,
		.name = "m",
		.addr = {.port = 1, .ip = {.family = 4, .bytes = {192, 0, 2, 1}}}};
	uint8_t key[SAVED_KEY_SIZE], val[MEMBER_SAVE_MAX];

	memcpy(save.public_key, identity->public_key, sizeof(save.public_key));
	save.vtep = save.addr.ip;
	assert_int_equal(gossip_restore(g, key, sizeof(key), val, member_save_encode(&save, key, val), NULL), 0);
}

static struct gossip *make_core(struct fixture *f, uint32_t hostno, const struct identity *identity)
{
	struct gossip_config config = {
		.identity = identity, .cluster_id = cluster_id, .hostno = hostno, .epoch = 1, .boot_tag = hostno, .name = "self"};
	struct gossip *g = gossip_new(&config, &ops, &f->seed, 1000);

	assert_non_null(g);
	return g;
}

static int set_up(void **state)
{
	static struct fixture f;

	assert_true(sodium_init() >= 0);
	memset(&f, 0, sizeof(f));
	make_identity(&f.self, 1);
	make_identity(&f.sponsor, 2);
	make_identity(&f.other, 3);
	f.g = make_core(&f, 1, &f.self);
	f.at_sponsor = make_core(&f, SPONSOR, &f.sponsor);
	know(f.g, SPONSOR, &f.sponsor);
	know(f.g, OTHER, &f.other);
	gossip_start(f.g, 1000);
	*state = &f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	gossip_free(f->g);
	gossip_free(f->at_sponsor);
	return 0;
}

/* Admissions of `count` hosts from `hostno` on, in a batch of the sponsor's shard. `whole`: each with a signature of its own. */
static void put_admissions(struct fixture *f, struct proto_packet *packet, uint32_t hostno, unsigned count, bool whole)
{
	struct proto_batch batch = {.origin = SPONSOR, .epoch = 1, .from = f->seq, .to = f->seq + count, .head = f->seq + count};
	struct proto_list list;

	assert_true(proto_batch_open(&list, packet));
	for (unsigned i = 0; i < count; i++) {
		struct admission a = {.hostno = hostno + i,
			.addr = {.port = 1, .ip = {.family = 4, .bytes = {192, 0, 2, 9}}},
			.boot = 7,
			.sponsor_hostno = SPONSOR};
		uint8_t key[SAVED_KEY_SIZE], val[ADMISSION_MAX];
		struct proto_record r = {.seq = f->seq + 1 + i, .key = key, .key_len = sizeof(key), .val = val};
		struct identity identity;

		make_identity(&identity, (uint8_t)(hostno + i));
		a.host_id = identity.id;
		memcpy(a.public_key, identity.public_key, sizeof(a.public_key));
		a.vtep = a.addr.ip;
		snprintf(a.name, sizeof(a.name), "new%u", hostno + i);
		if (whole)
			admission_sign(&a, &cluster_id, &f->sponsor, SPONSOR);
		r.val_len = admission_encode(&a, key, val);
		assert_true(proto_batch_add(&list, r.seq - 1, &r));
	}
	assert_true(proto_batch_close(&list, &batch));
	f->seq += count;
}

static void hear(struct fixture *f, uint32_t from, const struct proto_packet *packet)
{
	core_messages(f->g, members_find(f->g, from), packet->bytes, packet->len);
}

static unsigned known(const struct fixture *f, uint32_t hostno, unsigned count)
{
	unsigned found = 0;

	for (unsigned i = 0; i < count; i++)
		found += members_find(f->g, hostno + i) != NULL;
	return found;
}

static uint64_t together(const struct fixture *f)
{
	return gossip_counters(f->g)->admissions_together;
}

static uint64_t refused(const struct fixture *f)
{
	return gossip_counters(f->g)->refused_join;
}

/* ---- the tests ---- */

static void a_sponsor_signs_several_at_once(void **state)
{
	struct fixture *f = *state;
	struct proto_packet packet = {0};
	size_t len;

	put_admissions(f, &packet, FIRST_NEW, NEW, false); /* so that it is this signature that counts */
	len = packet.len;
	signed_add(f->at_sponsor, &packet);
	assert_int_equal(packet.len, len + PROTO_SIGNATURE_SIZE);
	hear(f, SPONSOR, &packet);
	assert_int_equal(known(f, FIRST_NEW, NEW), NEW);
	assert_int_equal(together(f), NEW);
	assert_int_equal(refused(f), 0);
}

static void it_does_not_for_a_few_or_without_room(void **state)
{
	struct fixture *f = *state;
	struct proto_packet packet = {0};
	size_t len;

	put_admissions(f, &packet, FIRST_NEW, NEW - 1, true);
	len = packet.len;
	signed_add(f->at_sponsor, &packet);
	assert_int_equal(packet.len, len);
	hear(f, SPONSOR, &packet);
	assert_int_equal(known(f, FIRST_NEW, NEW - 1), NEW - 1);
	assert_int_equal(together(f), 0);

	packet.len = 0;
	put_admissions(f, &packet, FIRST_NEW + NEW, NEW, true);
	while (proto_put_seq(&packet, PROTO_NACK, 1))
		;
	len = packet.len;
	signed_add(f->at_sponsor, &packet);
	assert_int_equal(packet.len, len);
}

/* Another's admissions are not this host's to sign. */
static void only_the_sponsor_can(void **state)
{
	struct fixture *f = *state;
	struct proto_packet packet = {0};
	struct gossip *at_other = make_core(f, OTHER, &f->other);
	size_t len;

	put_admissions(f, &packet, FIRST_NEW, NEW, true);
	len = packet.len;
	signed_add(at_other, &packet);
	assert_int_equal(packet.len, len);
	gossip_free(at_other);
}

static void from_another_host_each_stands_for_itself(void **state)
{
	struct fixture *f = *state;
	struct proto_packet packet = {0};

	put_admissions(f, &packet, FIRST_NEW, NEW, false);
	signed_add(f->at_sponsor, &packet);
	hear(f, OTHER, &packet);
	assert_int_equal(known(f, FIRST_NEW, NEW), 0);
	assert_int_equal(refused(f), NEW);

	packet.len = 0;
	put_admissions(f, &packet, FIRST_NEW + NEW, NEW, true);
	signed_add(f->at_sponsor, &packet);
	hear(f, OTHER, &packet);
	assert_int_equal(known(f, FIRST_NEW + NEW, NEW), NEW);
	assert_int_equal(together(f), 0);
}

/* Who has the cluster's key can speak in the sponsor's name, but has not its host key. */
static void a_signature_of_other_admissions_is_none(void **state)
{
	struct fixture *f = *state;
	struct proto_packet genuine = {0}, forged = {0};

	put_admissions(f, &genuine, FIRST_NEW, NEW, true);
	signed_add(f->at_sponsor, &genuine);
	hear(f, SPONSOR, &genuine);
	assert_int_equal(together(f), NEW);

	put_admissions(f, &forged, FIRST_NEW + NEW, NEW, false);
	memcpy(forged.bytes + forged.len, genuine.bytes + genuine.len - PROTO_SIGNATURE_SIZE, PROTO_SIGNATURE_SIZE);
	forged.len += PROTO_SIGNATURE_SIZE;
	hear(f, SPONSOR, &forged);
	assert_int_equal(known(f, FIRST_NEW + NEW, NEW), 0);
	assert_int_equal(together(f), NEW);
	assert_int_equal(refused(f), NEW);
}

/* One more in front of those that were signed, or one bit of one of them. */
static void a_changed_packet_is_not_signed(void **state)
{
	struct fixture *f = *state;
	struct proto_packet packet = {0}, behind = {0};

	put_admissions(f, &packet, FIRST_NEW, 1, false);
	put_admissions(f, &behind, FIRST_NEW + 1, NEW, false);
	signed_add(f->at_sponsor, &behind);
	memcpy(packet.bytes + packet.len, behind.bytes, behind.len);
	packet.len += behind.len;
	hear(f, SPONSOR, &packet);
	assert_int_equal(known(f, FIRST_NEW, 1 + NEW), 0);

	packet.len = 0;
	put_admissions(f, &packet, FIRST_NEW + 1 + NEW, NEW, false);
	signed_add(f->at_sponsor, &packet);
	packet.bytes[packet.len - PROTO_SIGNATURE_SIZE - 1] ^= 1; /* of the last one's own signature */
	hear(f, SPONSOR, &packet);
	assert_int_equal(known(f, FIRST_NEW + 1 + NEW, NEW), 0);
	assert_int_equal(together(f), 0);
}

/* By RELAY it is not known who put it there. */
static void what_is_passed_on_stands_for_itself(void **state)
{
	struct fixture *f = *state;
	struct proto_packet packet = {0};

	put_admissions(f, &packet, FIRST_NEW, NEW, false);
	signed_add(f->at_sponsor, &packet);
	proto_make_relay(&packet);
	hear(f, SPONSOR, &packet);
	assert_int_equal(known(f, FIRST_NEW, NEW), 0);
	assert_int_equal(together(f), 0);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_sponsor_signs_several_at_once),
		CASE(it_does_not_for_a_few_or_without_room),
		CASE(only_the_sponsor_can),
		CASE(from_another_host_each_stands_for_itself),
		CASE(a_signature_of_other_admissions_is_none),
		CASE(a_changed_packet_is_not_signed),
		CASE(what_is_passed_on_stands_for_itself),
	};

	return cmocka_run_group_tests_name("gossip signed", tests, NULL, NULL);
}

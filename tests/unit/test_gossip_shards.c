/* Rules R1-R6 on one copy of one shard: a table of steps with what must come of each, then random histories against a naive twin.
 *
 * The twin knows only what the rules promise: the origin's whole history as a plain list of changes, from which it computes what
 * a copy with a given head must show. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/shards_internal.h"

#define ORIGIN 2
#define TOPIC 5

struct copy {
	struct shards s;
	char events[256]; /* "+k=v" appeared or changed, "-k" went */
	unsigned conflicts;
};

static void on_record(void *ctx, const struct shard *shard, const void *key, size_t key_len, const void *val, size_t val_len)
{
	struct copy *c = ctx;
	size_t len = strlen(c->events);

	assert_int_equal(shard->id.origin, ORIGIN);
	snprintf(c->events + len, sizeof(c->events) - len, val ? "+%.*s=%.*s " : "-%.*s ", (int)key_len, (const char *)key,
		(int)val_len, val ? (const char *)val : "");
}

static void on_conflict(void *ctx, const struct shard *shard, uint64_t seq)
{
	struct copy *c = ctx;

	(void)shard;
	(void)seq;
	c->conflicts++;
}

static const struct shards_ops ops = {.record = on_record, .conflict = on_conflict};

static void copy_init(struct copy *c)
{
	memset(c, 0, sizeof(*c));
	shards_init(&c->s, 1, 1, &ops, c);
}

/* One letter keys; value NULL is a deletion. */
struct change {
	uint64_t seq;
	const char *key, *val;
};

static enum shards_verdict offer(
	struct copy *c, const struct proto_batch *like, const struct change *changes, size_t count, uint64_t now)
{
	struct proto_packet packet = {0};
	struct proto_list list;
	struct proto_batch batch = *like, decoded;
	struct bytes_reader r, body;
	uint64_t last = batch.from;
	uint8_t type;

	batch.origin = ORIGIN;
	batch.topic = like->topic ? like->topic : TOPIC;
	assert_true(proto_batch_open(&list, &packet));
	for (size_t i = 0; i < count && changes[i].key; i++) {
		struct proto_record record = {.seq = changes[i].seq,
			.key = (const uint8_t *)changes[i].key,
			.key_len = strlen(changes[i].key),
			.val = (const uint8_t *)changes[i].val,
			.val_len = changes[i].val ? strlen(changes[i].val) : 0};

		assert_true(proto_batch_add(&list, last, &record));
		last = record.seq;
	}
	assert_true(proto_batch_close(&list, &batch));
	br_init(&r, packet.bytes, packet.len);
	assert_true(proto_next(&r, &type, &body));
	assert_true(proto_get_batch(&body, ORIGIN, &decoded));
	return shards_apply(&c->s, &decoded, now);
}

#define SETTLED PROTO_BATCH_SETTLED
#define LISTING (PROTO_BATCH_LISTING | PROTO_BATCH_SETTLED)

struct step {
	const char *what;
	uint32_t epoch;
	uint8_t flags;
	uint64_t from, to, floor, head;
	struct change changes[4];
	enum shards_verdict verdict;
	uint64_t head_after;
	const char *events;
};

static const struct step steps[] = {
	{"R2 a batch that joins moves the head", 1, SETTLED, 0, 2, 0, 2, {{1, "a", "1"}, {2, "b", "1"}}, SHARDS_APPLIED, 2,
		"+a=1 +b=1 "},
	{"the same again is known", 1, SETTLED, 0, 2, 0, 2, {{1, "a", "1"}, {2, "b", "1"}}, SHARDS_KNOWN, 2, ""},
	{"R2 ahead of the head: applied, head stays", 1, SETTLED, 4, 5, 0, 5, {{5, "c", "1"}}, SHARDS_APPLIED, 2, "+c=1 "},
	{"R2 highest seq of a key wins", 1, SETTLED, 2, 4, 0, 5, {{3, "c", "0"}, {4, "b", "2"}}, SHARDS_APPLIED, 5, "+b=2 "},
	{"a deletion", 1, SETTLED, 5, 6, 0, 6, {{6, "a", NULL}}, SHARDS_APPLIED, 6, "-a "},
	{"R3 what is known to be deleted does not return", 1, SETTLED, 0, 1, 0, 1, {{1, "a", "1"}}, SHARDS_KNOWN, 6, ""},
	{"R3 nor an older value", 1, SETTLED, 0, 2, 0, 2, {{2, "b", "1"}}, SHARDS_KNOWN, 6, ""},
	{"unchanged value, new seq: nothing to see", 1, SETTLED, 6, 7, 0, 7, {{7, "c", "1"}}, SHARDS_APPLIED, 7, ""},
	{"the floor rises with the head", 1, SETTLED, 7, 8, 6, 8, {{8, "d", "1"}}, SHARDS_APPLIED, 8, "+d=1 "},
	{"R3 without the tombstone too", 1, SETTLED, 0, 1, 0, 1, {{1, "a", "1"}}, SHARDS_KNOWN, 8, ""},
	{"R4 a delta from below the sender's floor is a gap for who is below it", 1, SETTLED, 8, 40, 30, 40, {{40, "x", "1"}},
		SHARDS_GAP, 8, ""},
	{"R4 a listing from the middle is a gap", 1, LISTING, 20, 40, 30, 40, {{40, "x", "1"}}, SHARDS_GAP, 8, ""},
	{"R4 a listing begins: nothing goes yet", 1, LISTING, 0, 20, 30, 40, {{7, "c", "1"}, {20, "e", "1"}}, SHARDS_APPLIED, 8,
		"+e=1 "},
	{"R4 a batch with a floor above the listing's oldest head does not join", 1, LISTING, 20, 50, 45, 50, {{50, "y", "1"}},
		SHARDS_GAP, 8, ""},
	{"a push ahead, meanwhile", 1, SETTLED, 40, 41, 30, 41, {{41, "f", "1"}}, SHARDS_APPLIED, 8, "+f=1 "},
	{"R4 complete: what it did not name goes", 1, LISTING, 20, 40, 30, 40, {{35, "d", "2"}}, SHARDS_APPLIED, 41, "+d=2 -b "},
	{"R4 and does not return", 1, SETTLED, 2, 4, 0, 5, {{4, "b", "2"}}, SHARDS_KNOWN, 41, ""},
	{"R5 a new epoch begins: nothing goes, equal values are silent", 2, 0, 0, 2, 0, 2, {{1, "c", "1"}, {2, "d", "3"}},
		SHARDS_APPLIED, 2, "+d=3 "},
	{"R5 the old epoch is refused", 1, SETTLED, 41, 42, 30, 42, {{42, "g", "1"}}, SHARDS_BEHIND, 2, ""},
	{"R5 settled: what was not put again goes", 2, SETTLED, 2, 3, 0, 3, {{3, "h", "1"}}, SHARDS_APPLIED, 3, "+h=1 -e -f "},
	{"R6 another value for the same seq", 2, SETTLED, 2, 3, 0, 3, {{3, "h", "2"}}, SHARDS_REFUSED, 3, ""},
	{"R6 nothing more from that origin", 2, SETTLED, 3, 4, 0, 4, {{4, "i", "1"}}, SHARDS_REFUSED, 3, ""},
	{"R6 until its epoch rises", 3, SETTLED, 0, 1, 0, 1, {{1, "h", "1"}}, SHARDS_APPLIED, 1, "-c -d "},
	{"R6 another key for the same seq", 3, SETTLED, 0, 1, 0, 1, {{1, "z", "1"}}, SHARDS_REFUSED, 1, ""},
};

/* Both orders of what goes are fine; sort the events' words. */
static void assert_events(const char *what, const char *found, const char *expected)
{
	const char *at = expected;

	if (strlen(found) != strlen(expected))
		fail_msg("%s: expected \"%s\", found \"%s\"", what, expected, found);
	while (*at) {
		char word[64];
		size_t len = strcspn(at, " ") + 1;

		snprintf(word, sizeof(word), "%.*s", (int)len, at);
		if (!strstr(found, word))
			fail_msg("%s: expected \"%s\", found \"%s\"", what, expected, found);
		at += len;
	}
}

static void rules_step_by_step(void **state)
{
	struct copy c;

	(void)state;
	copy_init(&c);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		const struct step *step = &steps[i];
		struct proto_batch batch = {.epoch = step->epoch,
			.flags = step->flags,
			.from = step->from,
			.to = step->to,
			.floor = step->floor,
			.head = step->head};
		enum shards_verdict verdict;
		const char *wrong;

		c.events[0] = '\0';
		verdict = offer(&c, &batch, step->changes, 4, 1000 + i);
		if (verdict != step->verdict)
			fail_msg("%s: verdict %d, expected %d", step->what, verdict, step->verdict);
		if (shards_find(&c.s, ORIGIN, TOPIC)->head != step->head_after)
			fail_msg("%s: head %llu, expected %llu", step->what,
				(unsigned long long)shards_find(&c.s, ORIGIN, TOPIC)->head, (unsigned long long)step->head_after);
		assert_events(step->what, c.events, step->events);
		wrong = shards_check(&c.s);
		if (wrong)
			fail_msg("%s: %s", step->what, wrong);
	}
	assert_int_equal(c.conflicts, 2);
	shards_fini(&c.s);
}

/* A listing of the old epoch left it out, and before that could be acted on a new epoch began that has it. */
static void what_a_listing_left_out_may_return_with_the_next_epoch(void **state)
{
	struct proto_batch first = {.epoch = 1, .flags = SETTLED, .to = 2, .head = 2},
			   listing = {.epoch = 1, .flags = PROTO_BATCH_LISTING, .to = 40, .floor = 30, .head = 40},
			   second = {.epoch = 2, .flags = SETTLED, .to = 2, .head = 2};
	struct proto_packet packet = {0};
	struct bytes_reader r, body;
	struct proto_batch given;
	struct proto_record record;
	unsigned count = 0;
	size_t pos = 0;
	uint8_t type;
	struct copy c;

	(void)state;
	copy_init(&c);
	offer(&c, &first, (struct change[]){{1, "a", "1"}, {2, "b", "1"}}, 2, 1000);
	offer(&c, &listing, (struct change[]){{1, "a", "1"}}, 1, 1000);
	c.events[0] = '\0';
	offer(&c, &second, (struct change[]){{1, "a", "1"}, {2, "b", "1"}}, 2, 2000);
	assert_string_equal(c.events, "");
	assert_int_equal(c.s.live_count, 2);
	assert_int_equal(shards_encode(shards_find(&c.s, ORIGIN, TOPIC), 0, false, 0, &packet), 2);
	br_init(&r, packet.bytes, packet.len);
	assert_true(proto_next(&r, &type, &body));
	assert_true(proto_get_batch(&body, ORIGIN, &given));
	record.seq = given.from;
	while (proto_batch_next(&given, &pos, &record))
		count++;
	assert_int_equal(count, 2);
	shards_fini(&c.s);
}

/* An audit found the copy wrong: it has another key for a seq than its origin. The listing mends it while it comes. */
static void a_listing_after_an_audit_takes_a_seq_from_the_key_that_had_it(void **state)
{
	struct proto_batch first = {.epoch = 1, .flags = SETTLED, .to = 1, .head = 1},
			   listing = {.epoch = 1, .flags = LISTING, .to = 1, .head = 2},
			   rest = {.epoch = 1, .flags = LISTING, .from = 1, .to = 2, .head = 2};
	struct proto_pull pull;
	struct copy c;

	(void)state;
	copy_init(&c);
	offer(&c, &first, (struct change[]){{1, "wrong", "1"}}, 1, 1000);
	shards_relist(shards_find(&c.s, ORIGIN, TOPIC), &pull);
	c.events[0] = '\0';
	assert_int_equal(offer(&c, &listing, (struct change[]){{1, "right", "1"}}, 1, 1000), SHARDS_APPLIED);
	assert_string_equal(c.events, "-wrong +right=1 ");
	assert_null(shards_check(&c.s));
	assert_int_equal(offer(&c, &rest, (struct change[]){{2, "more", "1"}}, 1, 1000), SHARDS_APPLIED);
	assert_int_equal(c.s.live_count, 2);
	assert_int_equal(c.conflicts, 0);
	assert_null(shards_check(&c.s));
	shards_fini(&c.s);
}

/* Likewise, and what has the seq wrongly is a key that the origin has with a lower one: it goes back to that. */
static void a_listing_after_an_audit_takes_a_key_back_to_the_seq_that_it_has(void **state)
{
	struct proto_batch first = {.epoch = 1, .flags = SETTLED, .to = 9, .head = 9},
			   behind = {.epoch = 1, .flags = LISTING, .to = 5, .head = 8},
			   listing = {.epoch = 1, .flags = LISTING, .to = 9, .head = 9};
	struct change truth[] = {{5, "a", "1"}, {9, "b", "1"}};
	struct proto_pull pull;
	struct copy c;

	(void)state;
	copy_init(&c);
	offer(&c, &first, (struct change[]){{9, "a", "1"}}, 1, 1000);
	shards_relist(shards_find(&c.s, ORIGIN, TOPIC), &pull);
	c.events[0] = '\0';
	assert_int_equal(offer(&c, &behind, truth, 1, 1000), SHARDS_APPLIED);
	assert_int_equal(shards_find(&c.s, ORIGIN, TOPIC)->live.first->seq, 9); /* who sent that may not have seen it */
	shards_relist(shards_find(&c.s, ORIGIN, TOPIC), &pull);
	assert_int_equal(offer(&c, &listing, truth, 2, 1000), SHARDS_APPLIED);
	assert_string_equal(c.events, "+b=1 ");
	assert_int_equal(c.s.live_count, 2);
	assert_int_equal(shards_find(&c.s, ORIGIN, TOPIC)->live.first->seq, 5);
	assert_int_equal(c.conflicts, 0);
	assert_null(shards_check(&c.s));
	shards_fini(&c.s);
}

static void deliver(struct copy *to, const struct proto_packet *packet)
{
	struct bytes_reader r, body;
	struct proto_batch batch;
	uint8_t type;

	br_init(&r, packet->bytes, packet->len);
	if (!proto_next(&r, &type, &body) || !proto_get_batch(&body, ORIGIN, &batch))
		fail_msg("a batch of ours does not decode");
	assert_int_not_equal(shards_apply(&to->s, &batch, 1000), SHARDS_REFUSED);
}

/* HEADS: either it names TOPIC, with `named` as head, or it names nothing (0). */
static bool names_topic(void *ctx, uint64_t topic, uint64_t *ret_head)
{
	const uint64_t *named = ctx;

	*ret_head = *named;
	return topic == TOPIC && *named > 0;
}

static void settle(struct copy *c, uint32_t epoch, uint64_t seq, uint64_t named, uint64_t now)
{
	shards_settle(&c->s,
		&(struct shards_settled){
			.hostno = ORIGIN, .epoch = epoch, .seq = seq, .topic_hi = UINT64_MAX, .has = names_topic, .ctx = &named},
		now);
	assert_null(shards_check(&c->s));
}

static const struct change one_a[] = {{1, "a", "1"}};

/* Two lives of the origin within epoch 2: the first put the record again that it had in epoch 1, the second no longer had it. */
static void what_an_earlier_life_put_does_not_return_after_the_later_one_did_not_name_it(void **state)
{
	struct proto_batch before = {.epoch = 1, .flags = SETTLED, .to = 1, .head = 1},
			   first_life = {.epoch = 2, .flags = SETTLED, .to = 3, .head = 3},
			   second_life = {.epoch = 2, .flags = LISTING, .to = 205, .floor = 100, .head = 205};
	struct copy c, peer;
	struct proto_packet packet = {0};
	struct shard *shard;

	(void)state;
	copy_init(&c);
	copy_init(&peer);
	offer(&c, &before, one_a, 1, 1000);
	offer(&peer, &first_life, (struct change[]){{3, "a", "1"}}, 1, 1000);
	c.events[0] = '\0';
	settle(&c, 2, 110, 0, 2000);
	assert_string_equal(c.events, "-a ");
	assert_true(c.s.root == 0); /* others may have dropped it: nobody is to ask why ours is there */
	assert_int_equal(offer(&c, &first_life, (struct change[]){{3, "a", "1"}}, 1, 3000), SHARDS_KNOWN);
	assert_string_equal(c.events, "-a ");

	/* It is the peer that learns. */
	shard = shards_find(&c.s, ORIGIN, TOPIC);
	assert_int_equal(shard->head, 110);
	assert_int_equal(shards_encode(shard, 0, true, 0, &packet), 110);
	peer.events[0] = '\0';
	deliver(&peer, &packet);
	assert_string_equal(peer.events, "-a ");
	assert_true(peer.s.root == c.s.root && c.s.root != 0);

	/* And what the origin puts from then on is new. */
	offer(&c, &second_life, (struct change[]){{205, "a", "2"}}, 1, 4000);
	assert_string_equal(c.events, "-a +a=2 ");
	assert_null(shards_check(&c.s));
	shards_fini(&c.s);
	shards_fini(&peer.s);
}

static void a_late_heads_does_not_speak_of_what_came_after_it(void **state)
{
	struct proto_batch before = {.epoch = 1, .flags = SETTLED, .to = 1, .head = 1},
			   second_life = {.epoch = 2, .flags = PROTO_BATCH_LISTING, .to = 205, .floor = 100, .head = 205},
			   second_life_too = {.epoch = 2, .from = 205, .to = 206, .floor = 100, .head = 206};
	struct copy c;

	(void)state;
	copy_init(&c);
	offer(&c, &before, one_a, 1, 1000);
	offer(&c, &second_life, (struct change[]){{205, "b", "1"}}, 1, 2000);
	c.events[0] = '\0';
	settle(&c, 2, 7, 5, 2000); /* of the first life: "a" was put again there, and will be here */
	settle(&c, 2, 7, 0, 2000);
	assert_string_equal(c.events, "");
	offer(&c, &second_life_too, (struct change[]){{206, "a", "1"}}, 1, 2100);
	assert_string_equal(c.events, "");
	settle(&c, 2, 206, 206, 2200);
	assert_true(shards_find(&c.s, ORIGIN, TOPIC)->settled);
	assert_string_equal(c.events, "");
	settle(&c, 2, 207, 0, 2300); /* now it says that all of it is gone */
	assert_int_equal(shards_find(&c.s, ORIGIN, TOPIC)->head, 207);
	assert_events("gone", c.events, "-a -b ");
	shards_fini(&c.s);
}

/* What nobody could see return is not worth an entry: else each network that a host ever had would leave one for good. */
static void a_vacant_shard_ends_with_its_epoch(void **state)
{
	struct proto_batch before = {.epoch = 1, .flags = SETTLED, .to = 1, .head = 1};
	struct copy c;

	(void)state;
	copy_init(&c);
	offer(&c, &before, one_a, 1, 1000);
	settle(&c, 2, 10, 0, 2000);
	assert_non_null(shards_find(&c.s, ORIGIN, TOPIC));
	settle(&c, 3, 20, 0, 3000);
	assert_null(shards_find(&c.s, ORIGIN, TOPIC));
	shards_fini(&c.s);
}

static void old_epoch_goes_after_30_seconds(void **state)
{
	struct proto_batch old = {.epoch = 1, .flags = SETTLED, .to = 1, .head = 1}, new = {.epoch = 2, .to = 1, .head = 1};
	struct copy c;

	(void)state;
	copy_init(&c);
	offer(&c, &old, (struct change[]){{1, "a", "1"}}, 1, 1000);
	offer(&c, &new, (struct change[]){{1, "b", "1"}}, 1, 2000);
	c.events[0] = '\0';
	shards_tick(&c.s, 2000 + SHARDS_OLD_EPOCH_MS - 1);
	assert_string_equal(c.events, "");
	shards_tick(&c.s, 2000 + SHARDS_OLD_EPOCH_MS);
	assert_string_equal(c.events, "-a ");
	shards_fini(&c.s);
}

static void ranges_have_a_limit(void **state)
{
	struct copy c;
	struct shard *shard;

	(void)state;
	copy_init(&c);
	for (uint64_t i = 0; i < 2 * SHARD_RANGES_MAX; i++) {
		char key[8];
		struct proto_batch batch = {.epoch = 1, .from = 10 * i + 9, .to = 10 * i + 10, .head = 10 * i + 10};

		snprintf(key, sizeof(key), "k%u", (unsigned)i);
		offer(&c, &batch, (struct change[]){{10 * i + 10, key, "1"}}, 1, 1000);
	}
	shard = shards_find(&c.s, ORIGIN, TOPIC);
	assert_int_equal(shard->range_count, SHARD_RANGES_MAX);
	assert_int_equal(c.s.live_count, 2 * SHARD_RANGES_MAX);
	assert_null(shards_check(&c.s));
	/* The gap closes up to the first range that was not remembered. */
	offer(&c, &(struct proto_batch){.epoch = 1, .to = 10 * SHARD_RANGES_MAX, .head = 10 * SHARD_RANGES_MAX}, NULL, 0, 1000);
	assert_int_equal(shard->head, 10 * SHARD_RANGES_MAX);
	assert_int_equal(shard->range_count, 0);
	assert_null(shard->rare);
	shards_fini(&c.s);
}

static void record_limit_is_counted(void **state)
{
	struct copy c;
	bool full;

	(void)state;
	copy_init(&c);
	c.s.max[SHARDS_LIMIT_ALL] = 2;
	assert_non_null(shards_put(&c.s, 1, "a", 1, "1", 1, &full));
	assert_non_null(shards_put(&c.s, 1, "b", 1, "1", 1, &full));
	assert_null(shards_put(&c.s, 1, "c", 1, "1", 1, &full));
	assert_true(full);
	assert_non_null(shards_put(&c.s, 1, "b", 1, "2", 1, &full));
	assert_int_equal(
		offer(&c, &(struct proto_batch){.epoch = 1, .to = 1, .head = 1}, (struct change[]){{1, "x", "1"}}, 1, 1000),
		SHARDS_REFUSED);
	assert_int_equal(c.s.refused, 2);
	assert_int_equal(shards_find(&c.s, ORIGIN, TOPIC)->head, 0);
	assert_null(shards_check(&c.s));
	shards_fini(&c.s);
}

/* Each limit by itself, and what stays open below another. */
static void each_limit_says_which_it_is(void **state)
{
	const struct proto_batch two = {.epoch = 1, .to = 2, .head = 2};
	struct copy c;
	bool full;

	(void)state;
	copy_init(&c);
	c.s.max[SHARDS_LIMIT_HOST] = 2;
	assert_non_null(shards_put(&c.s, 1, "a", 1, "1", 1, &full));
	assert_non_null(shards_put(&c.s, 2, "b", 1, "1", 1, &full));
	assert_null(shards_put(&c.s, 3, "c", 1, "1", 1, &full));
	assert_true(full && c.s.met == SHARDS_LIMIT_HOST && c.s.refused_by[SHARDS_LIMIT_HOST] == 1);
	assert_int_equal(offer(&c, &two, (struct change[]){{1, "x", "1"}, {2, "y", "1"}}, 2, 1000), SHARDS_APPLIED);
	assert_non_null(shards_del(&c.s, 1, "a", 1));
	shards_raise_floor(&c.s, shards_find(&c.s, 1, 1), UINT64_MAX);
	assert_non_null(shards_put(&c.s, 3, "c", 1, "1", 1, &full));

	c.s.max[SHARDS_LIMIT_HOST] = 100;
	c.s.max[SHARDS_LIMIT_TOPIC] = 3;
	assert_non_null(shards_put(&c.s, TOPIC, "z", 1, "1", 1, &full));
	assert_null(shards_put(&c.s, TOPIC, "q", 1, "1", 1, &full));
	assert_true(full && c.s.met == SHARDS_LIMIT_TOPIC && c.s.refused_by[SHARDS_LIMIT_TOPIC] == 1);
	assert_int_equal(offer(&c, &(struct proto_batch){.epoch = 1, .from = 2, .to = 3, .head = 3},
				 (struct change[]){{3, "w", "1"}}, 1, 2000),
		SHARDS_REFUSED);
	assert_int_equal(shard_rare_of(shards_find(&c.s, ORIGIN, TOPIC))->refused_ms, 2000);
	assert_int_equal(c.s.refused, 3);
	assert_null(shards_check(&c.s));
	shards_fini(&c.s);
}

/* Long keys that begin alike share that; short ones, and long ones that begin otherwise, do not. Nobody sees it. */
/* What only subscribers keep: nothing before, all from then on, nothing after, and our own always. */
static void a_topic_is_kept_while_it_is_wanted(void **state)
{
	const uint64_t topic = GOSSIP_TOPIC_SUBSCRIBED | 7;
	const struct proto_batch batch = {.topic = topic, .epoch = 1, .flags = SETTLED, .to = 2, .head = 2};
	const struct change changes[] = {{1, "a", "1"}, {2, "b", "1"}};
	struct copy c;
	bool full;

	(void)state;
	copy_init(&c);
	assert_int_equal(offer(&c, &batch, changes, 2, 0), SHARDS_UNWANTED);
	assert_null(shards_find(&c.s, ORIGIN, topic));
	assert_int_equal(c.s.unwanted, 1);

	assert_non_null(shards_want(&c.s, topic));
	assert_int_equal(offer(&c, &batch, changes, 2, 0), SHARDS_APPLIED);
	assert_events("wanted", c.events, "+a=1 +b=1 ");
	assert_true(c.s.root == 0); /* it is no part of what all compare */
	assert_true(shards_topic(&c.s, topic)->root != 0);
	assert_non_null(shards_put(&c.s, topic, "own", 3, "1", 1, &full));
	assert_null(shards_check(&c.s));

	c.events[0] = 0;
	shards_unwant(&c.s, topic);
	assert_int_equal(offer(&c, &batch, changes, 2, 0), SHARDS_UNWANTED);
	shards_sweep_unwanted(&c.s);
	assert_null(shards_find(&c.s, ORIGIN, topic));
	assert_non_null(shards_find(&c.s, 1, topic));
	assert_int_equal(c.s.record_count, 1);
	assert_events("forgotten without a word", c.events, "");
	assert_null(shards_check(&c.s));

	assert_non_null(shards_want(&c.s, topic));
	assert_int_equal(offer(&c, &batch, changes, 2, 0), SHARDS_APPLIED);
	assert_events("wanted again", c.events, "+a=1 +b=1 ");
	assert_null(shards_check(&c.s));
	shards_fini(&c.s);
}

/* Whose records come need not be known yet; of hosts that nobody admitted no more are noted than there may be shards. */
static void origins_have_a_limit(void **state)
{
	const struct proto_batch batch = {.topic = TOPIC, .epoch = 1, .to = 1, .head = 1};
	struct copy c;

	(void)state;
	copy_init(&c);
	c.s.origin_count = SHARDS_MAX - 1;
	assert_int_equal(offer(&c, &batch, NULL, 0, 1000), SHARDS_APPLIED);
	assert_int_equal(c.s.origin_count, SHARDS_MAX);
	assert_int_equal(offer(&c, &batch, NULL, 0, 1000), SHARDS_KNOWN);
	assert_null(shards_make(&c.s, ORIGIN + 1, TOPIC, 1, 1000));
	shards_fini(&c.s);

	copy_init(&c);
	c.s.origin_count = SHARDS_MAX;
	assert_int_equal(offer(&c, &batch, NULL, 0, 1000), SHARDS_REFUSED);
	assert_int_equal(c.s.refused_by[SHARDS_LIMIT_MEMORY], 1);
	assert_null(shards_origin(&c.s, ORIGIN));
	shards_fini(&c.s);
}

/* In a cluster each host has one shard of the same topic for each other: the number alone tells them apart. */
static void shards_of_many_hosts_are_found_in_short_chains(void **state)
{
	enum { HOSTS = 2000 };
	struct copy c;
	size_t longest = 0;

	(void)state;
	copy_init(&c);
	for (uint32_t hostno = 2; hostno < HOSTS + 2; hostno++)
		assert_non_null(shards_make(&c.s, hostno, 0, 1, 0));
	for (size_t i = 0; i < c.s.by_id_size; i++) {
		size_t length = 0;

		for (const struct shard *shard = c.s.by_id[i]; shard; shard = shard->chain)
			length++;
		longest = length > longest ? length : longest;
	}
	for (size_t i = 0; i < c.s.by_hostno_size; i++) {
		size_t length = 0;

		for (const struct origin *origin = c.s.by_hostno[i]; origin; origin = origin->chain)
			length++;
		longest = length > longest ? length : longest;
	}
	assert_true(longest < 16);
	shards_fini(&c.s);
}

static void keys_come_back_whole(void **state)
{
	static const struct change changes[] = {{1, "short", "1"}, {2, "a network's id in key 1", "1"},
		{3, "a network's id in key 2", "1"}, {4, "another network's id, long", "1"}, {5, "a network's id in", "1"},
		{6, "key 1", "1"}};
	static const char *const seen =
		"+short=1 +a network's id in key 1=1 +a network's id in key 2=1 +another network's id, long=1 "
		"+a network's id in=1 +key 1=1 ";
	struct proto_packet packet = {0};
	struct bytes_reader r, body;
	struct proto_batch batch;
	struct proto_record record;
	struct copy c;
	size_t pos = 0;
	uint8_t type;

	(void)state;
	copy_init(&c);
	offer(&c, &(struct proto_batch){.epoch = 1, .flags = SETTLED, .to = 6, .head = 6}, changes, 6, 1000);
	assert_string_equal(c.events, seen);
	assert_null(shards_check(&c.s));
	shards_encode(shards_find(&c.s, ORIGIN, TOPIC), 0, false, 0, &packet);
	br_init(&r, packet.bytes, packet.len);
	assert_true(proto_next(&r, &type, &body) && proto_get_batch(&body, ORIGIN, &batch));
	record.seq = batch.from;
	for (size_t i = 0; i < 6; i++) {
		assert_true(proto_batch_next(&batch, &pos, &record));
		assert_int_equal(record.key_len, strlen(changes[i].key));
		assert_memory_equal(record.key, changes[i].key, record.key_len);
		assert_non_null(shards_record(shards_find(&c.s, ORIGIN, TOPIC), &c.s, changes[i].key, strlen(changes[i].key)));
	}
	c.events[0] = '\0';
	offer(&c, &(struct proto_batch){.epoch = 1, .flags = SETTLED, .from = 6, .to = 7, .head = 7},
		(struct change[]){{7, "a network's id in key 1", NULL}}, 1, 1000);
	assert_string_equal(c.events, "-a network's id in key 1 ");
	assert_null(shards_check(&c.s));
	shards_fini(&c.s);
}

static void equal_shards_have_equal_roots_and_bytes(void **state)
{
	struct copy a, b;
	struct proto_packet pa = {0}, pb = {0};
	struct change changes[] = {{1, "a", "1"}, {2, "b", "1"}, {3, "c", "1"}, {4, "a", "2"}};

	(void)state;
	copy_init(&a);
	copy_init(&b);
	offer(&a, &(struct proto_batch){.epoch = 1, .flags = SETTLED, .to = 4, .head = 4}, changes, 4, 1000);
	offer(&b, &(struct proto_batch){.epoch = 1, .flags = SETTLED, .from = 2, .to = 4, .head = 4}, changes + 2, 2, 1000);
	assert_true(a.s.root != b.s.root);
	offer(&b, &(struct proto_batch){.epoch = 1, .flags = SETTLED, .to = 2, .head = 4}, changes, 2, 1000);
	assert_true(a.s.root == b.s.root);
	shards_encode(shards_find(&a.s, ORIGIN, TOPIC), 0, false, 0, &pa);
	shards_encode(shards_find(&b.s, ORIGIN, TOPIC), 0, false, 0, &pb);
	assert_int_equal(pa.len, pb.len);
	assert_memory_equal(pa.bytes, pb.bytes, pa.len);
	shards_fini(&a.s);
	shards_fini(&b.s);
}

/* ---- the twin ---- */

#define KEYS 12
#define HISTORY_MAX 4000

struct twin {
	uint64_t count; /* change i has seq i + 1 */
	struct {
		unsigned key;
		bool deleted;
	} history[HISTORY_MAX];
};

static unsigned rnd(uint64_t *seed, unsigned below)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(*seed >> 33) % below;
}

/* The seq of a key's last change, and whether that was a deletion. */
static uint64_t twin_last(const struct twin *t, unsigned key, bool *ret_deleted)
{
	for (uint64_t seq = t->count; seq > 0; seq--) {
		if (t->history[seq - 1].key == key) {
			*ret_deleted = t->history[seq - 1].deleted;
			return seq;
		}
	}
	*ret_deleted = true;
	return 0;
}

static void write_random(struct shards *origin, struct twin *t, uint64_t *seed)
{
	unsigned key = rnd(seed, KEYS);
	char name[8], value[24];
	bool full, gone, deleted = twin_last(t, key, &gone) != 0 && !gone && rnd(seed, 3) == 0;

	snprintf(name, sizeof(name), "k%u", key);
	snprintf(value, sizeof(value), "%u", (unsigned)t->count + 1);
	if (deleted)
		assert_non_null(shards_del(origin, TOPIC, name, strlen(name)));
	else
		assert_non_null(shards_put(origin, TOPIC, name, strlen(name), value, strlen(value), &full));
	t->history[t->count].key = key;
	t->history[t->count++].deleted = deleted;
}

static void assert_copy_is_twin(const struct copy *c, const struct twin *t, uint64_t seed)
{
	const struct shard *shard = shards_find(&c->s, ORIGIN, TOPIC);
	const char *wrong = shards_check(&c->s);

	if (wrong)
		fail_msg("seed %llu: %s", (unsigned long long)seed, wrong);
	for (unsigned key = 0; shard && key < KEYS; key++) {
		char name[8];
		const struct record *r;
		uint64_t last, found;
		bool deleted;

		snprintf(name, sizeof(name), "k%u", key);
		r = shards_record(shard, &c->s, name, strlen(name));
		found = r ? r->seq : 0;
		last = twin_last(t, key, &deleted);
		/* What is superseded is never sent: only the last change binds, once the head is past it. */
		if (last <= shard->head && found != (deleted ? 0 : last))
			fail_msg("seed %llu: key %u at head %llu: expected seq %llu, found %llu", (unsigned long long)seed, key,
				(unsigned long long)shard->head, (unsigned long long)(deleted ? 0 : last),
				(unsigned long long)found);
		if (found > 0 && (found > t->count || t->history[found - 1].key != key || t->history[found - 1].deleted))
			fail_msg("seed %llu: key %u: seq %llu is not a write of it", (unsigned long long)seed, key,
				(unsigned long long)found);
	}
}

/* What a giver would send: from anywhere, cut anywhere, as a listing when it has to be. */
static bool random_batch(const struct shards *giver, uint64_t *seed, struct proto_packet *packet, uint64_t want)
{
	const struct shard *shard = shards_find(giver, ORIGIN, TOPIC);
	uint64_t from;

	packet->len = 0;
	if (!shard || shard->head == 0)
		return false;
	from = rnd(seed, 3) == 0 ? rnd(seed, (unsigned)shard->head + 1) : want;
	if (from < shard->floor)
		return shards_encode(shard, 0, true, 0, packet) > 0;
	return shards_encode(shard, from, false, 0, packet) > from;
}

#define COPIES 3
#define DELAYED 8

/* One origin, copies that learn from it and from each other, packets kept back and delivered late or twice. */
static void random_history(uint64_t seed)
{
	static struct twin twin;
	struct copy origin, copies[COPIES];
	struct proto_packet delayed[DELAYED] = {0};
	uint64_t rng = seed;

	memset(&twin, 0, sizeof(twin));
	memset(&origin, 0, sizeof(origin));
	shards_init(&origin.s, ORIGIN, 1, &ops, &origin);
	for (unsigned i = 0; i < COPIES; i++)
		copy_init(&copies[i]);
	for (unsigned step = 0; step < 600; step++) {
		unsigned at = rnd(&rng, COPIES), giver = rnd(&rng, COPIES + 1), kept = rnd(&rng, DELAYED);
		const struct shard *mine = shards_find(&copies[at].s, ORIGIN, TOPIC);
		struct proto_packet packet = {0};

		if (rnd(&rng, 3) == 0)
			write_random(&origin.s, &twin, &rng);
		shards_settle_own(&origin.s);
		if (rnd(&rng, 40) == 0 && twin.count > 0)
			shards_raise_floor(&origin.s, shards_find(&origin.s, ORIGIN, TOPIC), 1 + rnd(&rng, (unsigned)twin.count));
		if (giver != at &&
			random_batch(giver == COPIES ? &origin.s : &copies[giver].s, &rng, &packet, mine ? mine->head : 0))
			deliver(&copies[at], rnd(&rng, 3) == 0 && delayed[kept].len > 0 ? &delayed[kept] : &packet);
		if (packet.len > 0 && rnd(&rng, 2) == 0)
			delayed[kept] = packet;
		assert_copy_is_twin(&copies[at], &twin, seed);
	}
	for (unsigned i = 0; i < COPIES; i++) {
		struct proto_packet packet = {0};

		rng = seed;
		if (twin.count > 0 && shards_find(&origin.s, ORIGIN, TOPIC)->head > 0) {
			const struct shard *full = shards_find(&origin.s, ORIGIN, TOPIC);

			shards_encode(full, 0, full->floor > 0, 0, &packet);
			deliver(&copies[i], &packet);
			assert_true(copies[i].s.root == origin.s.root);
		}
		assert_copy_is_twin(&copies[i], &twin, seed);
		assert_int_equal(copies[i].conflicts, 0);
		shards_fini(&copies[i].s);
	}
	shards_fini(&origin.s);
}

static void copies_agree_with_the_twin(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 300; seed++)
		random_history(seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rules_step_by_step),
		cmocka_unit_test(what_a_listing_left_out_may_return_with_the_next_epoch),
		cmocka_unit_test(what_an_earlier_life_put_does_not_return_after_the_later_one_did_not_name_it),
		cmocka_unit_test(a_late_heads_does_not_speak_of_what_came_after_it),
		cmocka_unit_test(a_vacant_shard_ends_with_its_epoch),
		cmocka_unit_test(old_epoch_goes_after_30_seconds),
		cmocka_unit_test(ranges_have_a_limit),
		cmocka_unit_test(a_listing_after_an_audit_takes_a_seq_from_the_key_that_had_it),
		cmocka_unit_test(a_listing_after_an_audit_takes_a_key_back_to_the_seq_that_it_has),
		cmocka_unit_test(record_limit_is_counted),
		cmocka_unit_test(each_limit_says_which_it_is),
		cmocka_unit_test(a_topic_is_kept_while_it_is_wanted),
		cmocka_unit_test(origins_have_a_limit),
		cmocka_unit_test(shards_of_many_hosts_are_found_in_short_chains),
		cmocka_unit_test(keys_come_back_whole),
		cmocka_unit_test(equal_shards_have_equal_roots_and_bytes),
		cmocka_unit_test(copies_agree_with_the_twin),
	};

	return cmocka_run_group_tests_name("gossip shards", tests, NULL, NULL);
}

/* Scenarios of much to catch up on: many that ask at once, and few that have it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "gossip/core_internal.h"
#include "tests/sim/scenario.h"
#include "tests/sim/truth.h"
#include "tests/sim/warm.h"

#define RECORDS 1500
#define VALUE 900

static unsigned records_of(struct world *w, unsigned host, unsigned origin)
{
	struct shard *shard = shards_find(&w->hosts[host].gossip->shards, w->hosts[origin].hostno, 9);
	unsigned count = 0;

	for (const struct record *r = shard ? shard->live.first : NULL; r; r = r->next)
		count += !r->deleted;
	return count;
}

static bool all_have_them(struct world *w)
{
	for (unsigned i = 0; i + 1 < w->host_count; i++)
		if (records_of(w, i, w->host_count - 1) != RECORDS)
			return false;
	return true;
}

/* The last host has many records and dies. All others but the first restart, and have to learn them again from the first, or from
 * one that has. */
static void many_that_lack_much_help_each_other(struct world *w)
{
	const unsigned last = w->host_count - 1;
	static const uint8_t value[VALUE];
	const uint64_t one_copy = (uint64_t)RECORDS * VALUE;
	uint64_t began, sent;

	world_introduce_all(w);
	world_start_all(w);
	expect_quiet(w, 10000);
	for (unsigned i = 0; i < RECORDS; i++) {
		char key[16];

		snprintf(key, sizeof(key), "i%u", i); /* of these the checker keeps no book */
		gossip_put(w->hosts[last].gossip, 9, key, strlen(key), value, sizeof(value), world_now_ms(w), NULL);
		if (i % 10 == 0)
			world_run_ms(w, 2);
	}
	world_touch(w, last);
	world_run_ms(w, 3000);
	expect(w, all_have_them(w), "all have the records while their origin is alive");
	world_crash(w, last);
	world_run_ms(w, 10000);
	for (unsigned i = 1; i < last; i++)
		world_restart(w, i, true);
	sent = gossip_counters(w->hosts[0].gossip)->bytes_out;
	began = world_now_ms(w);
	expect(w, world_run_until(w, 20000, 10, all_have_them), "all have them again, of a host that is dead");
	sent = gossip_counters(w->hosts[0].gossip)->bytes_out - sent;
	printf("     %u hosts learn %u records of a dead one: %llu ms, the one that had them sent %.1f copies of at most %llu "
	       "kB\n",
		last - 1, RECORDS, (unsigned long long)(world_now_ms(w) - began), (double)sent / (double)one_copy,
		(unsigned long long)one_copy / 1000);
	expect(w, gossip_counters(w->hosts[0].gossip)->busy_told > 0, "it had to put some off");
	expect(w, sent < one_copy * (last - 1) / 2, "and did not serve them all itself");
}

static bool has_key(struct world *w, unsigned host, unsigned origin, const char *key)
{
	size_t len;

	return gossip_get(w->hosts[host].gossip, w->hosts[origin].hostno, 5, key, strlen(key), &len) != NULL;
}

static bool first_has_all(struct world *w)
{
	unsigned count = *(unsigned *)w->scenario;
	char key[16];

	snprintf(key, sizeof(key), "new-%u", count);
	for (unsigned i = 1; i <= count; i++)
		if (!has_key(w, 0, i, key))
			return false;
	return true;
}

/* Two of many shards: what one host lacks of some origins is found by what it costs to say just that. */
static void count_sketches(struct world *w, uint64_t *ret_made, uint64_t *ret_failed)
{
	*ret_made = *ret_failed = 0;
	for (unsigned i = 0; i < w->host_count; i++) {
		*ret_made += gossip_counters(w->hosts[i].gossip)->sketches;
		*ret_failed += gossip_counters(w->hosts[i].gossip)->sketches_failed;
	}
}

static void a_difference_costs_what_it_is(struct world *w)
{
	static const unsigned differences[] = {1, 20};
	uint64_t made, failed, made_before, failed_before;
	unsigned count;

	world_introduce_all(w);
	world_start_all(w);
	world_run_ms(w, 5000); /* until all have said that they are settled, which every shard's head tells */
	expect_quiet(w, 20000);
	w->scenario = &count;
	for (size_t d = 0; d < sizeof(differences) / sizeof(differences[0]); d++) {
		count_sketches(w, &made_before, &failed_before);
		count = differences[d];
		world_partition_at(w, 1);
		for (unsigned i = 1; i <= count; i++) {
			char key[16];

			snprintf(key, sizeof(key), "new-%u", count);
			world_put(w, i, 5, key);
		}
		world_run_ms(w, 150); /* longer than what is pushed is repeated, and over before anybody compares */
		world_heal(w);
		expect(w, world_run_until(w, 20000, 5, first_has_all), "it has them");
		count_sketches(w, &made, &failed);
		printf("     %u of %u shards differ: %llu comparisons by sketch, %llu of no use\n", count, 2 * w->host_count,
			(unsigned long long)(made - made_before), (unsigned long long)(failed - failed_before));
		expect(w, made > made_before && failed == failed_before, "by sketches, which suffice");
		world_run_ms(w, 3000);
	}
	w->scenario = NULL;
	expect_quiet(w, 20000);
}

/* The table of one host, of a cluster that began warm. */
static uint64_t table_of(struct world *w, unsigned host)
{
	uint64_t digest;

	world_enter(w, host);
	digest = w->hosts[host].gossip->digest;
	world_leave(w);
	return digest;
}

/* Host 1 has what most have. */
static bool first_has_their_table(struct world *w)
{
	return table_of(w, 0) == table_of(w, 1);
}

#define TOLD_TABLE 6000 /* bytes of a table of 1,000 */

/* What it was asked for besides: it is deaf for a moment, and who pings it then suspects it, or it somebody. */
static uint64_t doubts_of(const struct world *w, unsigned host)
{
	const struct gossip_counters *c = gossip_counters(w->hosts[host].gossip);

	return c->refutations + c->suspicions;
}

/* Returns how many bytes the first host sent until it had what it missed of so many. */
static uint64_t miss_news(struct world *w, unsigned count)
{
	uint64_t before, ms;

	w->hosts[0].loss_in = 1000;
	for (unsigned i = 0; i < count; i++) {
		struct gossip *g = w->hosts[100 + 50 * i].gossip;

		world_enter(w, 100 + 50 * i);
		g->self->incarnation++;
		members_announce_self(g);
		world_leave(w);
		world_touch(w, 100 + 50 * i);
	}
	world_run_ms(w, 150); /* as long as news take, and shorter than anybody is suspected for */
	expect(w, !first_has_their_table(w), "it misses them");
	w->hosts[0].loss_in = 0;
	before = w->hosts[0].sent;
	for (ms = 0; !first_has_their_table(w) && ms < 10000; ms += 10)
		world_run_ms(w, 10);
	printf("     %u of %u members differ: %" PRIu64 " bytes sent by the one that missed them, in %" PRIu64 " ms\n", count,
		w->host_count, w->hosts[0].sent - before, ms);
	expect(w, ms < 5000, "it has them");
	return w->hosts[0].sent - before;
}

/* One host misses what happened to some of a thousand: it is told that, and not all that is known of all. */
static void a_difference_of_tables_costs_what_it_is(struct world *w)
{
	static const unsigned differences[] = {1, 12};

	w->unchecked = true;
	warm_start(w);
	world_run_ms(w, 2000);
	for (size_t d = 0; d < sizeof(differences) / sizeof(differences[0]); d++) {
		bool undoubted = false;

		for (unsigned tries = 0; tries < 10 && !undoubted; tries++) {
			uint64_t doubts = doubts_of(w, 0), cost = miss_news(w, differences[d]);

			undoubted = doubts_of(w, 0) == doubts;
			expect(w, !undoubted || cost < TOLD_TABLE / 2, "for less than half of a table");
			world_run_ms(w, 3000);
		}
		expect(w, undoubted, "once without being suspected meanwhile");
	}
}

#define STORM_MS 2500 /* of 12 seeds: 780 to 1,580 ms: the next ping may be a second away, and its comparison be in vain */

/* While others change something all the time: what the first symbols are made of is not what there is when the next ones come. */
static void a_storm_keeps_nobody_from_comparing(struct world *w)
{
	unsigned count = 120, ms = 0;

	world_introduce_all(w);
	world_start_all(w);
	world_run_ms(w, 5000);
	expect_quiet(w, 20000);
	w->scenario = &count;
	world_partition_at(w, 1);
	for (unsigned i = 1; i <= count; i++)
		world_put(w, i, 5, "new-120");
	world_run_ms(w, 150);
	world_heal(w);
	for (; !first_has_all(w) && ms < STORM_MS && !w->failure[0]; ms++) {
		world_put(w, 121 + ms % 50, 5, "again");
		world_run_ms(w, 1);
	}
	printf("     all there after %u ms\n", ms);
	expect(w, ms < STORM_MS, "it has all of before, during the storm");
	w->scenario = NULL;
	expect_quiet(w, 20000);
}

/* A bit flips in memory, and heads agree all the same. */
static void a_copy_that_went_bad_is_found_and_mended(struct world *w)
{
	struct shard *copy;

	world_introduce_all(w);
	world_start_all(w);
	for (unsigned i = 0; i < 20; i++) {
		char key[16];

		snprintf(key, sizeof(key), "i%u", i); /* of these the checker keeps no book */
		gossip_put(w->hosts[0].gossip, 9, key, strlen(key), "value", 5, world_now_ms(w), NULL);
	}
	world_touch(w, 0);
	expect_quiet(w, 10000);
	copy = shards_find(&w->hosts[1].gossip->shards, w->hosts[0].hostno, 9);
	w->truth->conflicts_expected = true; /* no check of copies meanwhile */
	copy->live.first->bytes[copy->live.first->key_len] ^= 1;
	world_run_ms(w, 3600000 + 120000);
	w->truth->conflicts_expected = false;
	for (unsigned i = 0; i < 20; i++) {
		char key[16];
		size_t len;
		const void *value;

		snprintf(key, sizeof(key), "i%u", i);
		value = gossip_get(w->hosts[1].gossip, w->hosts[0].hostno, 9, key, strlen(key), &len);
		expect(w, value && len == 5 && memcmp(value, "value", 5) == 0, "the copy is right again");
	}
	expect(w, gossip_counters(w->hosts[1].gossip)->audits_failed == 1, "the audit finds the one copy");
	expect(w, gossip_counters(w->hosts[1].gossip)->audits >= 4, "of several");
	expect(w, gossip_counters(w->hosts[2].gossip)->audits_failed == 0, "and no other");
	expect_quiet(w, 3000);
}

/* ---- a storm in one network ---- */

#define STORM 10000
#define STORM_TOPIC 9
#define SINGLE_TOPIC 10
#define HELD_UP_MS 10

struct single {
	unsigned origin;
	char key[8];
};

static bool single_is_everywhere(struct world *w)
{
	const struct single *single = w->scenario;
	size_t len;

	for (unsigned i = 0; i < w->host_count; i++)
		if (!gossip_get(w->hosts[i].gossip, w->hosts[single->origin].hostno, SINGLE_TOPIC, single->key,
			    strlen(single->key), &len))
			return false;
	return true;
}

/* How long a change in another network takes. */
static uint64_t single_takes(struct world *w, unsigned origin, unsigned number)
{
	struct single single = {.origin = origin};
	uint64_t began = w->now_us;

	w->scenario = &single;
	snprintf(single.key, sizeof(single.key), "i%u", number);
	gossip_put(w->hosts[origin].gossip, SINGLE_TOPIC, single.key, strlen(single.key), "v", 1, world_now_ms(w), NULL);
	world_touch(w, origin);
	expect(w, world_run_until(w, 20000, 1, single_is_everywhere), "a change in another network arrives");
	w->scenario = NULL;
	return (w->now_us - began) / SIM_US_PER_MS;
}

static bool storm_is_over(struct world *w)
{
	for (unsigned i = 0; i < w->host_count; i++)
		if (records_of(w, i, 0) != STORM)
			return false;
	return true;
}

/* 10,000 changes at once in one network, by a host that has a change in another one too. */
static void a_storm_in_one_network_holds_up_no_other(struct world *w)
{
	uint64_t before, began, worst[2] = {0};
	unsigned number = 0;

	world_introduce_all(w);
	world_start_all(w);
	expect_quiet(w, 10000);
	world_run_ms(w, 5000);
	w->unchecked = true;
	before = COUNTED(w, suspicions);
	for (unsigned i = 0; i < STORM; i++) {
		char key[40];

		snprintf(key, sizeof(key), "i-of-some-network-%015u", i); /* as endpoints are */
		gossip_put(w->hosts[0].gossip, STORM_TOPIC, key, 33, key, 32, world_now_ms(w), NULL);
	}
	world_touch(w, 0);
	began = w->now_us;
	while (!storm_is_over(w) && !w->failure[0] && w->now_us < began + 60000000) {
		for (unsigned origin = 0; origin < 2; origin++) {
			uint64_t ms = single_takes(w, origin, number++);

			worst[origin] = ms > worst[origin] ? ms : worst[origin];
		}
		world_run_ms(w, 20);
	}
	printf("     %u changes at once are everywhere after %.1f s; of %u changes in another network the slowest took %llu ms, "
	       "by another host %llu ms\n",
		STORM, (double)(w->now_us - began) / 1e6, number, (unsigned long long)worst[0], (unsigned long long)worst[1]);
	expect(w, storm_is_over(w), "the storm ends");
	expect(w, number > 10, "it took long enough to be in somebody's way");
	expect(w, worst[0] <= HELD_UP_MS && worst[1] <= HELD_UP_MS, "and was in nobody's");
	expect(w, COUNTED(w, suspicions) == before, "nobody is suspected for it");
}

const struct scenario bulk_scenarios[] = {
	{"a_storm_in_one_network_holds_up_no_other", 50, false, a_storm_in_one_network_holds_up_no_other},
	{"a_storm_in_one_network_holds_up_no_other", 70, false, a_storm_in_one_network_holds_up_no_other},
	{"a_copy_that_went_bad_is_found_and_mended", 4, false, a_copy_that_went_bad_is_found_and_mended},
	{"a_difference_costs_what_it_is", 180, false, a_difference_costs_what_it_is},
	{"a_difference_of_tables_costs_what_it_is", 1000, false, a_difference_of_tables_costs_what_it_is},
	{"a_storm_keeps_nobody_from_comparing", 180, false, a_storm_keeps_nobody_from_comparing},
	{"many_that_lack_much_help_each_other", 24, false, many_that_lack_much_help_each_other},
	{NULL, 0, false, NULL},
};

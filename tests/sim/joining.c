/* Scenarios of many hosts that join at once: who has been served serves (gossip/sync_bulk.c). */
#include <inttypes.h>
#include <stdio.h>

#include "gossip/core_internal.h"
#include "tests/sim/scenario.h"
#include "tests/sim/truth.h"

static bool sees_all_that_run(struct world *w, const struct sim_host *host)
{
	for (unsigned i = 0; i < w->host_count; i++) {
		struct gossip_member m;

		if (w->hosts[i].gossip && &w->hosts[i] != host &&
			(!gossip_member_get(host->gossip, w->hosts[i].hostno, &m) || m.state != GOSSIP_ALIVE))
			return false;
	}
	return true;
}

static bool all_see_those_that_run(struct world *w)
{
	for (unsigned i = 0; i < w->host_count; i++)
		if (w->hosts[i].gossip && !sees_all_that_run(w, &w->hosts[i]))
			return false;
	return true;
}

static bool all_see_all(struct world *w)
{
	for (unsigned i = 0; i < w->host_count; i++)
		if (!w->hosts[i].gossip)
			return false;
	return all_see_those_that_run(w);
}

static bool all_know_themselves_known(struct world *w)
{
	for (unsigned i = 0; i < w->host_count; i++)
		if (!gossip_known(w->hosts[i].gossip))
			return false;
	return true;
}

/* They join at host 0, `gap_us` apart. Returns how long after the last of them all see all; they must within deadline_ms. */
static uint64_t join_all(struct world *w, unsigned from, uint64_t gap_us, uint64_t deadline_ms)
{
	uint64_t begun;

	for (unsigned i = from; i < w->host_count; i++) {
		world_join(w, i, 0);
		if (gap_us > 0)
			world_run_us(w, gap_us);
	}
	begun = world_now_ms(w);
	expect(w, world_run_until(w, deadline_ms, 10, all_see_all), "all see all in time");
	return world_now_ms(w) - begun;
}

/* What there is to know, for each: an admission, a claim, and what acknowledges and finds them. */
#define JOIN_BYTES 500

static void hundreds_join_at_once(struct world *w)
{
	uint64_t took;

	world_start(w, 0);
	world_run_ms(w, 2000);
	w->bytes = 0;
	took = join_all(w, 1, 0, 200);
	printf("     %u hosts join at once: all see all after %" PRIu64 " ms, %" PRIu64 " bytes sent by a host, %" PRIu64
	       " by the seed\n",
		w->host_count, took, w->bytes / w->host_count, gossip_counters(w->hosts[0].gossip)->bytes_out);
	expect(w, w->bytes / w->host_count < (uint64_t)w->host_count * JOIN_BYTES, "at the cost of about what there is to know");
	expect(w, gossip_counters(w->hosts[0].gossip)->bytes_out < 20 * (uint64_t)w->host_count * JOIN_BYTES,
		"of which the seed bears no more than some copies");
	expect_quiet(w, 5000);
	expect(w, world_run_until(w, 3000, 100, all_know_themselves_known), "and soon each may be given addresses");
}

/* Two copies of all that 2,000 hosts have to know of each other, and a word to each that waits, are more than a burst: the
 * sponsor comes to the end of its credit while it serves the first of them. Here it has little to begin with. */
static void hundreds_join_a_sponsor_without_credit(struct world *w)
{
	struct gossip *sponsor;
	uint64_t took;

	world_start(w, 0);
	world_run_ms(w, 2000);
	sponsor = w->hosts[0].gossip;
	sponsor->bucket = (int64_t)(w->seed % 4) * 2 * BUCKET_RATE;
	sponsor->bucket_ms = world_now_ms(w);
	took = join_all(w, 1, 0, 100);
	printf("     %u hosts join one that may not send much: all see all after %" PRIu64 " ms\n", w->host_count, took);
	expect_quiet(w, 5000);
}

static unsigned count_with_a_part(struct world *w)
{
	const struct shard *all = shards_find(&w->hosts[0].gossip->shards, w->hosts[0].hostno, 0);
	unsigned count = 0;

	for (unsigned i = 1; i < w->host_count; i++) {
		const struct shard *part =
			w->hosts[i].gossip ? shards_find(&w->hosts[i].gossip->shards, all->id.origin, 0) : NULL;

		count += part && part->head > 0 && part->head < all->head / 2;
	}
	return count;
}

/* The sponsor comes to the end of its debt too, and has credit again 125 ms later. Who has a part by then is a newcomer to
 * whoever serves it, like those that have nothing. */
static void newcomers_with_a_part_are_newcomers(struct world *w)
{
	struct gossip *sponsor;
	uint64_t took;

	world_start(w, 0);
	world_run_ms(w, 2000);
	for (unsigned i = 1; i < w->host_count; i++)
		world_join(w, i, 0);
	for (unsigned us = 0; us < 20000 && count_with_a_part(w) < 2; us += 100)
		world_run_us(w, 100);
	expect(w, count_with_a_part(w) >= 2, "some have a part");
	sponsor = w->hosts[0].gossip;
	sponsor->bucket = -BUCKET_BURST;
	sponsor->bucket_ms = world_now_ms(w);
	took = world_now_ms(w);
	expect(w, world_run_until(w, BUCKET_BURST / BUCKET_RATE + 50, 5, all_see_all), "all see all in time");
	took = world_now_ms(w) - took;
	printf("     %u hosts join one that may not send any more: all see all after %" PRIu64 " ms\n", w->host_count, took);
	expect_quiet(w, 5000);
}

/* A sponsor saves each number before it tells it. Some requests find no place to wait, and come again. */
static void numbers_are_saved_first(struct world *w)
{
	uint64_t took;

	w->number_us = 50000;
	world_start(w, 0);
	world_run_ms(w, 2000);
	w->bytes = 0;
	took = join_all(w, 1, 0, 3000);
	printf("     %u hosts join, each number is saved in 0 to %u ms: all see all after %" PRIu64 " ms, %" PRIu64
	       " bytes sent by a host; numbers were asked for %" PRIu64 " times\n",
		w->host_count, w->number_us / 1000, took, w->bytes / w->host_count, w->asked);
	expect(w, w->asked >= 2 * (uint64_t)(w->host_count - 1), "each number is asked for, and again when it is there");
	expect(w, w->asked < 3 * (uint64_t)w->host_count, "and not each time that another's is");
	expect(w, gossip_counters(w->hosts[0].gossip)->refused_join > 0, "some had to come again");
	expect(w, w->bytes / w->host_count < (uint64_t)w->host_count * JOIN_BYTES, "at the cost of about what there is to know");
	expect_quiet(w, 5000);
}

/* At the moment at which a host is in and nobody else runs who could have heard of it; many times, for what is lost is drawn. */
static void a_sponsor_that_loses_power_knows_whom_it_welcomed(struct world *w)
{
	world_allow_power_cuts(w);
	world_start(w, 0);
	world_run_ms(w, 2000);
	for (unsigned i = 1; i < w->host_count && !w->failure[0]; i++) {
		world_join(w, i, 0);
		for (unsigned ms = 0; ms < 2000 && !w->hosts[i].gossip; ms++)
			world_run_ms(w, 1);
		expect(w, w->hosts[i].gossip != NULL, "the host is welcomed");
		world_power_cut(w, 0);
		world_start(w, 0);
		expect(w, world_run_until(w, 30000, 10, all_see_those_that_run), "and its sponsor knows it when it is back");
		world_crash(w, i);
	}
}

/* Not all in the same millisecond. Of 12 seeds: 380 to 520 ms, 415 in the median. */
static void hundreds_join_one_by_one(struct world *w)
{
	uint64_t took;

	world_start(w, 0);
	world_run_ms(w, 2000);
	took = join_all(w, 1, 2000, 700);
	printf("     %u hosts join 2 ms apart: all see all %" PRIu64 " ms after the last\n", w->host_count, took);
	expect_quiet(w, 5000);
}

static void hundreds_join_with_loss(struct world *w)
{
	uint64_t took;

	w->faults.loss = 20;
	world_start(w, 0);
	world_run_ms(w, 2000);
	took = join_all(w, 1, 0, 2500);
	printf("     %u hosts join with 2 %% loss: all see all after %" PRIu64 " ms\n", w->host_count, took);
	w->faults.loss = 0;
	expect_quiet(w, 5000);
}

/* Who is known already hears of them by the tree, in which they do not pass anything on before they know the others, and which is
 * another to each while it grows. Whom it leaves out hears so from those that are told: without that it would not before it
 * compares, after MISMATCH_MS or behind the next ping. */
static void a_hundred_join_a_hundred(struct world *w)
{
	uint64_t took;

	world_start(w, 0);
	for (unsigned i = 1; i < w->host_count / 2; i++)
		world_join(w, i, 0);
	world_run_ms(w, 5000);
	took = join_all(w, w->host_count / 2, 0, 150);
	printf("     %u hosts join as many: all see all after %" PRIu64 " ms\n", w->host_count / 2, took);
	expect_quiet(w, 5000);
}

/* Who serves dies with those that wait for it. */
static void who_serves_newcomers_dies(struct world *w)
{
	unsigned dead = 0;

	world_start(w, 0);
	world_run_ms(w, 2000);
	for (unsigned i = 1; i < w->host_count; i++)
		world_join(w, i, 0);
	for (unsigned ms = 0; ms < 100 && dead < 3; ms++) {
		world_run_ms(w, 1);
		for (unsigned i = 1; i < w->host_count && dead < 3; i++) {
			if (!w->hosts[i].gossip || w->hosts[i].gossip->waiting < 3)
				continue;
			world_crash(w, i);
			dead++;
		}
	}
	expect(w, dead > 0, "some that others wait for die");
	expect(w, world_run_until(w, 3000, 10, all_see_those_that_run), "the others see each other nevertheless");
	expect_quiet(w, 20000);
}

/* Who overheard requests repeats them, each as if it were another: that costs the sponsor no more than it should, and nobody else
 * a place. */
static void repeated_requests_hold_up_no_newcomer(struct world *w)
{
	const unsigned last = w->host_count - 1, repeats = 2 * ADMIT_PER_S;
	struct gossip *g;
	struct token token;
	struct admission_request request = {.token = &token, .identity = &w->hosts[1].identity, .name = "h", .boot = 1};
	const struct gossip_addr from = sim_addr(1);
	uint8_t packet[ADMISSION_JOIN_SIZE];
	uint64_t refused;

	world_start(w, 0);
	for (unsigned i = 1; i < last; i++)
		world_join(w, i, 0);
	world_run_ms(w, 2000);
	g = w->hosts[0].gossip;
	refused = gossip_counters(g)->refused_join;
	sim_token(&token, 0);
	request.addr = from;
	request.vtep = from.ip;
	for (unsigned i = 0; i < repeats; i++) {
		request.ephemeral_secret[4] = (uint8_t)i;
		request.ephemeral_secret[5] = (uint8_t)(i >> 8);
		request.ephemeral_secret[6] = 1;
		admission_join_encode(&request, packet);
		gossip_packet(g, &from, packet, sizeof(packet), world_now_ms(w));
	}
	expect(w, gossip_counters(g)->refused_join == refused + repeats - ADMIT_PER_S, "some are answered, the others are not");
	world_join(w, last, 0);
	world_run_ms(w, 50);
	expect(w, w->hosts[last].gossip, "a new host is admitted meanwhile");
	expect_quiet(w, 3000);
}

const struct scenario joining_scenarios[] = {
	{"repeated_requests_hold_up_no_newcomer", 4, false, repeated_requests_hold_up_no_newcomer},
	{"hundreds_join_at_once", 200, false, hundreds_join_at_once},
	{"hundreds_join_a_sponsor_without_credit", 120, false, hundreds_join_a_sponsor_without_credit},
	{"newcomers_with_a_part_are_newcomers", 120, false, newcomers_with_a_part_are_newcomers},
	{"numbers_are_saved_first", 260, false, numbers_are_saved_first},
	{"a_sponsor_that_loses_power_knows_whom_it_welcomed", 12, false, a_sponsor_that_loses_power_knows_whom_it_welcomed},
	{"hundreds_join_one_by_one", 150, false, hundreds_join_one_by_one},
	{"hundreds_join_with_loss", 120, false, hundreds_join_with_loss},
	{"a_hundred_join_a_hundred", 152, false, a_hundred_join_a_hundred},
	{"who_serves_newcomers_dies", 100, false, who_serves_newcomers_dies},
	{NULL, 0, false, NULL},
};

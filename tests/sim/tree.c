/* Scenarios of clusters so big that changes go by way of others (gossip/sync_tree.c). */
#include <stdio.h>
#include <string.h>

#include "gossip/core_internal.h"
#include "tests/sim/scenario.h"
#include "tests/sim/truth.h"

static unsigned lacking(struct world *w, uint32_t origin, const char *key)
{
	unsigned count = 0;
	size_t len;

	for (unsigned i = 0; i < w->host_count; i++)
		count += w->hosts[i].gossip && !gossip_get(w->hosts[i].gossip, origin, 3, key, strlen(key), &len);
	return count;
}

static void a_change_reaches_all_by_way_of_others(struct world *w)
{
	uint64_t before;

	begin_within(w, 20000);
	for (unsigned i = 0; i < 10; i++) {
		char key[24];

		snprintf(key, sizeof(key), "k%u", i);
		before = COUNTED(w, pushes);
		world_put(w, i, 3, key);
		expect(w, gossip_counters(w->hosts[i].gossip)->pushes <= TREE_WIDE * (i + 1),
			"the origin sends to its children only");
		world_run_ms(w, 3);
		expect(w, lacking(w, w->hosts[i].hostno, key) == 0, "a change is everywhere after 3 ms");
		world_run_ms(w, 200);
		expect(w, COUNTED(w, pushes) - before <= w->host_count, "and costs one packet for each host");
	}
	expect_quiet(w, 3000);
}

/* Nobody knows yet that they are dead: their children are adopted, and a digest finds whom that misses. */
static void dead_relays_delay_a_change_only(struct world *w)
{
	begin_within(w, 20000);
	for (unsigned i = 0; i < w->host_count / 10; i++)
		world_crash(w, 10 * i + 3);
	world_put(w, 0, 3, "k1");
	world_run_ms(w, 1000);
	expect(w, lacking(w, 1, "k1") == 0, "a change passes dead hosts within a second");
	w->faults.loss = 50;
	world_put(w, 5, 3, "k2");
	world_run_ms(w, 1000);
	expect(w, lacking(w, 6, "k2") == 0, "under 5 % loss too");
	w->faults.loss = 0;
	expect_quiet(w, 20000);
}

/* Who follows `origin` in the ring passes on to TREE_WIDE others. */
static unsigned first_child(const struct sim_host *origin)
{
	const struct tree_ring *ring = &origin->gossip->tree_ring;
	unsigned i = 0;

	while (ring->at[i] != origin->gossip->self)
		i++;
	return ring->at[(i + 1) % ring->count]->hostno - 1;
}

/* The first packet to a child is lost. How many are repeated within `ms`. */
static uint64_t repeated_within(struct world *w, const char *key, unsigned ms)
{
	const struct sim_host *origin = &w->hosts[0];
	unsigned child = first_child(origin);
	uint64_t before = gossip_counters(origin->gossip)->push_retries;

	world_cut(w, 0, child, true);
	world_put(w, 0, 3, key);
	world_run_ms(w, 5);
	world_cut(w, 0, child, false);
	world_run_ms(w, ms - 5);
	return gossip_counters(origin->gossip)->push_retries - before;
}

/* The ack of a relay does not wait, as that of a push does: it is missed sooner, unless who misses it is late itself. */
static void a_lost_relay_is_repeated_soon(struct world *w)
{
	begin_within(w, 20000);
	world_put(w, 0, 3, "before");
	world_run_ms(w, 200);
	expect(w, repeated_within(w, "k1", PUSH_RTO_MS - 1) == 1, "what was lost is repeated");
	expect(w, lacking(w, w->hosts[0].hostno, "k1") == 0, "and everywhere");
	world_run_ms(w, 200);
	for (unsigned i = 0; i < 10; i++)
		gossip_health(w->hosts[0].gossip, 60, false, world_now_ms(w));
	expect(w, repeated_within(w, "k2", 2 * HOP_RTO_MS - 2) == 0, "who is late takes nothing for lost so soon");
	world_run_ms(w, 10);
	expect(w, lacking(w, w->hosts[0].hostno, "k2") == 0, "but a little later");
	expect_quiet(w, 3000);
}

/* Two packets to it are lost. Meanwhile a digest tells it of the change, which it pulls: the third packet brings it nothing new,
 * and its children all the same. */
static void a_relay_that_pulled_first_passes_on(struct world *w)
{
	begin_within(w, 20000);
	for (unsigned i = 0; i < 10; i++) {
		struct sim_host *origin = &w->hosts[i];
		unsigned child;
		char key[24];

		snprintf(key, sizeof(key), "before%u", i);
		world_put(w, i, 3, key);
		world_run_ms(w, 200);
		child = first_child(origin);
		snprintf(key, sizeof(key), "k%u", i);
		world_cut(w, i, child, true);
		world_put(w, i, 3, key);
		world_run_ms(w, 3 * HOP_RTO_MS - 5);
		world_cut(w, i, child, false);
		expect(w, lacking(w, origin->hostno, key) > 0, "some wait for it");
		world_run_ms(w, 10);
		expect(w, lacking(w, origin->hostno, key) == 0, "with the third packet all have it");
		world_run_ms(w, 200);
	}
	expect_quiet(w, 3000);
}

static void a_burst_goes_by_the_tree(struct world *w)
{
	uint64_t bytes;

	begin_within(w, 20000);
	bytes = w->bytes;
	for (unsigned i = 0; i < 3000; i++) {
		char key[24];

		snprintf(key, sizeof(key), "k%u", i % 1000);
		world_put(w, 0, 3, key);
	}
	expect_quiet(w, 5000);
	expect(w, w->bytes - bytes < (uint64_t)w->host_count * 250000, "superseded changes are not sent");
}

/* From direct pushes to the tree and back, by starts and deaths. */
/* Every third host takes no records any more. It says so, and its children get the change from its parent at once. */
static void who_refuses_a_change_is_gone_round(struct world *w)
{
	unsigned full = 0;

	begin_within(w, 20000);
	w->unchecked = true;
	for (unsigned i = 1; i < w->host_count; i += 3, full++)
		w->hosts[i].gossip->shards.max[SHARDS_LIMIT_ALL] = 1;
	world_put(w, 0, 3, "k");
	world_run_ms(w, 5);
	expect(w, lacking(w, w->hosts[0].hostno, "k") == full, "all others have it after 5 ms");
}

static void a_cluster_grows_past_the_limit_and_shrinks(struct world *w)
{
	unsigned half = TREE_ABOVE - 4;

	world_introduce_all(w);
	for (unsigned i = 0; i < half; i++)
		world_start(w, i);
	world_run_ms(w, 10000);
	world_put(w, 0, 3, "k1");
	for (unsigned i = half; i < w->host_count; i++) {
		world_start(w, i);
		world_put(w, i % half, 3, "k2");
		world_run_ms(w, 50);
	}
	expect_quiet(w, 10000);
	for (unsigned i = half; i < w->host_count; i++) {
		world_crash(w, i);
		world_put(w, i % half, 3, "k2");
		world_run_ms(w, 500);
	}
	expect_quiet(w, 20000);
}

const struct scenario tree_scenarios[] = {
	{"a_change_reaches_all_by_way_of_others", 100, false, a_change_reaches_all_by_way_of_others},
	{"dead_relays_delay_a_change_only", 100, false, dead_relays_delay_a_change_only},
	{"a_lost_relay_is_repeated_soon", 100, false, a_lost_relay_is_repeated_soon},
	{"a_relay_that_pulled_first_passes_on", 100, false, a_relay_that_pulled_first_passes_on},
	{"a_burst_goes_by_the_tree", 70, false, a_burst_goes_by_the_tree},
	{"who_refuses_a_change_is_gone_round", 100, false, who_refuses_a_change_is_gone_round},
	{"a_cluster_grows_past_the_limit_and_shrinks", 76, false, a_cluster_grows_past_the_limit_and_shrinks},
	{NULL, 0, false, NULL},
};

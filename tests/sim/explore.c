/* Random operations under random faults, invariants checked all the way (truth.h, custody.h), equality when quiet.
 *
 * A run is drawn from its seed: how many hosts, whether they give out addresses too, how long it goes, which faults there are and
 * how bad they are, so that some runs are calm in one respect and wild in another. There may be packets that are lost (in all, or
 * on one host's way in or out), doubled, reordered, changed and cut off, one way or both; hosts that stop, start in the same or
 * the next epoch, lose power and with it what was not on disk, pause, and have clocks of other rates; keys that are rotated
 * meanwhile. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/pool.h"
#include "tests/sim/scenario.h"
#include "tests/sim/truth.h"

#define NETWORKS 4
#define CLOCK_PPM 1000 /* a bad quartz is ten times better */

static void draw_faults(struct world *w)
{
	static const unsigned loss[] = {0, 0, 10, 50, 150, 300}, duplicate[] = {0, 0, 20, 200, 500}, reorder[] = {0, 20, 200},
			      corrupt[] = {0, 0, 0, 2, 20};

	w->faults.loss = loss[sim_rng_below(&w->rng, 6)];
	w->faults.duplicate = duplicate[sim_rng_below(&w->rng, 5)];
	w->faults.reorder = reorder[sim_rng_below(&w->rng, 3)];
	w->faults.corrupt = corrupt[sim_rng_below(&w->rng, 5)];
	w->faults.latency_us = 100 + sim_rng_below(&w->rng, 2000);
	w->faults.jitter_us = sim_rng_below(&w->rng, 5000);
}

static void draw_clocks(struct world *w)
{
	if (sim_rng_permille(&w->rng, 500))
		return;
	for (unsigned i = 0; i < w->host_count; i++)
		w->hosts[i].clock_ppm = (int32_t)sim_rng_below(&w->rng, 2 * CLOCK_PPM + 1) - CLOCK_PPM;
}

static void change_record(struct world *w, unsigned host)
{
	unsigned network = sim_rng_below(&w->rng, NETWORKS);
	uint64_t topic = sim_rng_below(&w->rng, 4);
	char key[24];

	if (w->hosts[host].networks >> network & 1)
		topic = SIM_NETWORK(network);
	snprintf(key, sizeof(key), "k%u", sim_rng_below(&w->rng, 15));
	if (sim_rng_permille(&w->rng, 350)) {
		struct truth_entry *entry = truth_find(w->truth, w->hosts[host].hostno, topic, key);

		if (entry && entry->live)
			world_del(w, host, topic, key);
	} else {
		world_put(w, host, topic, key);
	}
}

/* Some join and leave all the time, and meet what is still on its way to them. */
static void subscribe_or_leave(struct world *w, unsigned host)
{
	unsigned network = sim_rng_below(&w->rng, NETWORKS);

	if (w->hosts[host].networks >> network & 1)
		world_unsubscribe(w, host, network);
	else
		world_subscribe(w, host, network);
}

static void burst(struct world *w, unsigned host)
{
	unsigned count = sim_rng_below(&w->rng, 200), network = sim_rng_below(&w->rng, NETWORKS);
	uint64_t topic = w->hosts[host].networks >> network & 1 ? SIM_NETWORK(network) : 9;

	for (unsigned i = 0; i < count; i++) {
		char key[24];

		snprintf(key, sizeof(key), "kb%u", sim_rng_below(&w->rng, 60));
		world_put(w, host, topic, key);
	}
}

static void rotate_keys(struct world *w, unsigned host)
{
	struct err err = {0};

	gossip_rotate(w->hosts[host].gossip, host_now_ms(&w->hosts[host]), &err); /* may be refused: one is under way */
	world_touch(w, host);
}

/* What the daemon finds changed after a crash: some of what it had is gone. */
static void forget_some(struct world *w, uint32_t hostno)
{
	struct sim_host *host = &w->hosts[hostno - 1];
	struct truth_entry *entry, *tmp;

	for (unsigned n = 0; n < NETWORKS; n++)
		if (sim_rng_permille(&w->rng, 100))
			host->networks &= ~((uint64_t)1 << n);
	HASH_ITER(hh, w->truth->entries, entry, tmp)
	if (entry->id.origin == hostno && entry->live && (sim_rng_permille(&w->rng, 200) || !sim_keeps(host, entry->id.topic)))
		truth_write(w->truth, hostno, entry->id.topic, entry->id.key, false);
}

static void restart(struct world *w, unsigned host, bool new_epoch)
{
	if (w->with_ipam)
		pool_restart(w, host, new_epoch);
	else
		world_restart(w, host, new_epoch);
}

static void cut_power(struct world *w, unsigned host)
{
	if (w->with_ipam)
		pool_power_cut(w, host);
	else
		world_power_cut(w, host);
}

static void crash_or_restart(struct world *w, unsigned host)
{
	if (w->hosts[host].set_back) /* alone, it would have nobody to ask */
		return;
	if (!w->hosts[host].gossip) {
		restart(w, host, sim_rng_permille(&w->rng, 700));
		return;
	}
	if (sim_rng_permille(&w->rng, 300))
		cut_power(w, host);
	else
		world_crash(w, host);
	if (sim_rng_permille(&w->rng, 500))
		forget_some(w, w->hosts[host].hostno);
	if (sim_rng_permille(&w->rng, 500))
		restart(w, host, sim_rng_permille(&w->rng, 700));
}

static void pause_or_resume(struct world *w, unsigned host)
{
	if (w->hosts[host].paused)
		world_resume(w, host);
	else
		world_pause(w, host);
}

static void worsen_one_way(struct world *w, unsigned host)
{
	static const unsigned loss[] = {0, 300, 800, 1000};
	unsigned permille = loss[sim_rng_below(&w->rng, 4)];

	if (sim_rng_permille(&w->rng, 500))
		w->hosts[host].loss_in = permille;
	else
		w->hosts[host].loss_out = permille;
}

static void heal(struct world *w)
{
	world_heal(w);
	for (unsigned i = 0; i < w->host_count; i++)
		w->hosts[i].loss_in = w->hosts[i].loss_out = 0;
}

static void act(struct world *w)
{
	unsigned host = sim_rng_below(&w->rng, w->host_count), what = sim_rng_below(&w->rng, 1000);
	bool up = w->hosts[host].gossip && !w->hosts[host].paused;

	if (what < 20)
		crash_or_restart(w, host);
	else if (what < 40 && w->hosts[host].gossip)
		pause_or_resume(w, host);
	else if (what < 55)
		world_partition(w, sim_rng_next(&w->rng));
	else if (what < 70)
		world_cut(w, host, sim_rng_below(&w->rng, w->host_count), true);
	else if (what < 80)
		worsen_one_way(w, host);
	else if (what < 110)
		heal(w);
	else if (what < 115)
		draw_faults(w);
	else if (what < 120 && up)
		rotate_keys(w, host);
	else if (what < 130 && up)
		burst(w, host);
	else if (what < 180 && up)
		subscribe_or_leave(w, host);
	else if (what < 500 && up && w->with_ipam)
		pool_act(w, host);
	else if (up)
		change_record(w, host);
}

static void calm_down(struct world *w)
{
	heal(w);
	w->faults = (struct sim_faults){.latency_us = 200, .jitter_us = 100};
	for (unsigned i = 0; i < w->host_count; i++) {
		if (w->hosts[i].paused)
			world_resume(w, i);
		if (!w->hosts[i].gossip)
			restart(w, i, true);
	}
}

/* A host gets an old disk back while the others can be reached, who know what it did since: it must notice (I11). */
static void go_back(struct world *w, unsigned host)
{
	calm_down(w);
	world_run_ms(w, 5000);
	w->truth->conflicts_expected = true; /* it begins in an epoch that it has used before */
	pool_power_cut(w, host);
	world_roll_back(w, host);
	pool_restart(w, host, true);
	world_run_ms(w, 15000);
	if (w->hosts[host].set_back && ipam_holds(w->hosts[host].ipam) != IPAM_HOLD_FOR_GOOD)
		world_fail(w, "I11: host %u was set back, and goes on as if it were not", w->hosts[host].hostno);
	draw_faults(w);
}

/* All send with one key, whatever was rotated by whom. */
static bool one_key(struct world *w)
{
	uint8_t first[CLUSTER_KEY_SIZE], key[CLUSTER_KEY_SIZE];

	gossip_active_key(w->hosts[0].gossip, first);
	for (unsigned i = 1; i < w->host_count; i++) {
		gossip_active_key(w->hosts[i].gossip, key);
		if (memcmp(key, first, sizeof(key)) != 0)
			return false;
	}
	return true;
}

static void start(struct world *w)
{
	draw_clocks(w);
	if (sim_rng_permille(&w->rng, 700))
		world_allow_power_cuts(w);
	world_introduce_all(w);
	world_start_all(w);
	if (!w->with_ipam)
		return;
	expect_quiet(w, 10000);
	pool_begin(w);
}

void explore(struct world *w)
{
	unsigned actions = 100 + sim_rng_below(&w->rng, 400), going_back = sim_rng_below(&w->rng, w->host_count);
	bool goes_back;

	start(w);
	goes_back = w->with_ipam && w->power_cuts && sim_rng_permille(&w->rng, 200);
	draw_faults(w);
	for (unsigned i = 0; i < actions && !w->failure[0]; i++) {
		if (goes_back && i == actions / 4)
			world_keep_image(w, going_back);
		if (goes_back && i == actions * 3 / 4)
			go_back(w, going_back);
		act(w);
		world_run_ms(w, sim_rng_permille(&w->rng, 50) ? sim_rng_below(&w->rng, 5000) : sim_rng_below(&w->rng, 100));
	}
	calm_down(w);
	expect_quiet(w, 45000); /* R5 may take 30 s when the word that an origin is settled was lost */
	if (!w->failure[0] && !world_run_until(w, 20000, 100, one_key))
		world_fail(w, "hosts send with different keys 20 s after all is quiet");
	if (w->with_ipam && !w->failure[0])
		pool_expect_sound(w);
	if (w->with_ipam)
		pool_end(w);
}

/* ---- cores that are broken on purpose ---- */

#define CATCH_RUNS 2000

/* Some run must fail, and say so for the right reason; the scenario fails when none does. */
static void expect_caught(struct world *w, enum sim_breakage breakage, bool with_ipam, const char *const *reasons)
{
	for (unsigned i = 0; i < CATCH_RUNS; i++) {
		struct world *broken = world_new(w->seed + i, 3 + i % 4, with_ipam);
		bool caught = false;

		broken->breakage = breakage;
		explore(broken);
		for (unsigned r = 0; reasons[r]; r++)
			caught |= strstr(broken->failure, reasons[r]) != NULL;
		if (caught)
			printf("     caught in run %u: %s\n", i + 1, broken->failure);
		else if (broken->failure[0])
			world_fail(w, "run %u fails for another reason: %s", i + 1, broken->failure);
		world_free(broken);
		if (caught || w->failure[0])
			return;
	}
	world_fail(w, "%u runs of broken cores, and nobody notices", CATCH_RUNS);
}

static const char *const record_reasons[] = {
	"return from deletion", "after version", "which is gone", "still has", "lacks seq", "has an old", NULL};
/* The fifth: counted in the end, some are there twice. */
static const char *const address_reasons[] = {"I1:", "I3:", "I4:", "I11:", "all hosts hold", "has given already", NULL};

static void exploring_catches_a_dropped_r3(struct world *w)
{
	expect_caught(w, SIM_WITHOUT_R3, false, record_reasons);
}

static void exploring_catches_lowest_addresses_without_custody(struct world *w)
{
	expect_caught(w, SIM_LOWEST_ADDRESS, true, address_reasons);
}

static void exploring_catches_gifts_that_are_not_on_disk(struct world *w)
{
	expect_caught(w, SIM_GIFTS_NOT_ON_DISK, true, address_reasons);
}

static void exploring_catches_a_host_that_does_not_ask_what_others_know(struct world *w)
{
	expect_caught(w, SIM_NOBODY_ASKED, true, address_reasons);
}

const struct scenario explore_scenarios[] = {
	{"exploring_catches_a_dropped_r3", 3, false, exploring_catches_a_dropped_r3},
	{"exploring_catches_lowest_addresses_without_custody", 3, false, exploring_catches_lowest_addresses_without_custody},
	{"exploring_catches_gifts_that_are_not_on_disk", 3, false, exploring_catches_gifts_that_are_not_on_disk},
	{"exploring_catches_a_host_that_does_not_ask_what_others_know", 3, false,
		exploring_catches_a_host_that_does_not_ask_what_others_know},
	{NULL, 0, false, NULL},
};

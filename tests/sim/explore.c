/* Random operations under random faults, invariants checked all the way (truth.h), equality when quiet. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/scenario.h"
#include "tests/sim/truth.h"

/* Each run draws its own weather, so that some runs are calm in one respect and wild in another. */
static void draw_faults(struct world *w)
{
	static const unsigned loss[] = {0, 0, 10, 50, 150, 300}, duplicate[] = {0, 0, 20, 200, 500}, reorder[] = {0, 20, 200},
			      corrupt[] = {0, 0, 5, 20};

	w->faults.loss = loss[sim_rng_below(&w->rng, 6)];
	w->faults.duplicate = duplicate[sim_rng_below(&w->rng, 5)];
	w->faults.reorder = reorder[sim_rng_below(&w->rng, 3)];
	w->faults.corrupt = corrupt[sim_rng_below(&w->rng, 4)];
	w->faults.latency_us = 100 + sim_rng_below(&w->rng, 2000);
	w->faults.jitter_us = sim_rng_below(&w->rng, 5000);
}

static void change_record(struct world *w, unsigned host)
{
	uint64_t topic = sim_rng_below(&w->rng, 4);
	char key[24];

	snprintf(key, sizeof(key), "k%u", sim_rng_below(&w->rng, 15));
	if (sim_rng_permille(&w->rng, 350)) {
		struct truth_entry *entry = truth_find(w->truth, w->hosts[host].hostno, topic, key);

		if (entry && entry->live)
			world_del(w, host, topic, key);
	} else {
		world_put(w, host, topic, key);
	}
}

static void burst(struct world *w, unsigned host)
{
	unsigned count = sim_rng_below(&w->rng, 200);

	for (unsigned i = 0; i < count; i++) {
		char key[24];

		snprintf(key, sizeof(key), "kb%u", sim_rng_below(&w->rng, 60));
		world_put(w, host, 9, key);
	}
}

/* What the daemon finds changed after a crash: some of what it had is gone. */
static void forget_some(struct world *w, uint32_t hostno)
{
	struct truth_entry *entry, *tmp;

	HASH_ITER(hh, w->truth->entries, entry, tmp)
	if (entry->id.origin == hostno && entry->live && sim_rng_permille(&w->rng, 200))
		truth_write(w->truth, hostno, entry->id.topic, entry->id.key, false);
}

static void crash_or_restart(struct world *w, unsigned host)
{
	if (!w->hosts[host].gossip) {
		world_restart(w, host, sim_rng_permille(&w->rng, 700));
		return;
	}
	world_crash(w, host);
	if (sim_rng_permille(&w->rng, 500))
		forget_some(w, w->hosts[host].hostno);
	if (sim_rng_permille(&w->rng, 500))
		world_restart(w, host, sim_rng_permille(&w->rng, 700));
}

static void pause_or_resume(struct world *w, unsigned host)
{
	if (w->hosts[host].paused)
		world_resume(w, host);
	else
		world_pause(w, host);
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
	else if (what < 100)
		world_heal(w);
	else if (what < 105)
		draw_faults(w);
	else if (what < 115 && up)
		burst(w, host);
	else if (up)
		change_record(w, host);
}

static void calm_down(struct world *w)
{
	world_heal(w);
	w->faults = (struct sim_faults){.latency_us = 200, .jitter_us = 100};
	for (unsigned i = 0; i < w->host_count; i++) {
		if (w->hosts[i].paused)
			world_resume(w, i);
		if (!w->hosts[i].gossip)
			world_restart(w, i, true);
	}
}

void explore(struct world *w)
{
	unsigned actions = 300 + sim_rng_below(&w->rng, 300);

	world_introduce_all(w);
	world_start_all(w);
	draw_faults(w);
	for (unsigned i = 0; i < actions && !w->failure[0]; i++) {
		act(w);
		world_run_ms(w, sim_rng_permille(&w->rng, 50) ? sim_rng_below(&w->rng, 5000) : sim_rng_below(&w->rng, 100));
	}
	calm_down(w);
	expect_quiet(w, 45000); /* R5 may take 30 s when the word that an origin is settled was lost */
}

/* Hosts that get a fifth of the time they need, as a machine does that is overloaded or whose processes are stopped: how long the
 * next stretch of running or of standing still is. One for our cores and for those of peers.h, so that both suffer the same. */
#ifndef TESTS_SIM_STARVE_H
#define TESTS_SIM_STARVE_H

#include "tests/sim/world.h"

enum starve {
	STARVE_BEAT,   /* stands 0.8 s, runs 0.2 s: SIGSTOP by a timer */
	STARVE_BURSTS, /* stands 0 to 32 s, runs 0 to 8 s: longer than any time-out, and never the same */
	STARVE_MUTE,   /* the same, but its timers go on: what it sends and what is for it waits, as behind a network that is full
			*/
	STARVE_MAX
};

#define STARVED 4 /* the first so many hosts of a cluster of a hundred */

static inline const char *starve_name(enum starve how)
{
	static const char *const names[STARVE_MAX] = {
		[STARVE_BEAT] = "stopped 0.8 s of each",
		[STARVE_BURSTS] = "stopped up to 32 s of 40",
		[STARVE_MUTE] = "cut off up to 32 s of 40",
	};

	return names[how];
}

static inline uint64_t starve_us(struct sim_rng *rng, enum starve how, bool stands)
{
	uint32_t mean_us = how == STARVE_BEAT ? 1000000 : 20000000;
	uint32_t part_us = stands ? mean_us / 5 * 4 : mean_us / 5;

	return how == STARVE_BEAT ? part_us : 1 + sim_rng_below(rng, 2 * part_us);
}

#endif

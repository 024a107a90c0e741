/* What a scenario is: a function that acts on a world and calls world_fail, or prints what it measured. */
#ifndef TESTS_SIM_SCENARIO_H
#define TESTS_SIM_SCENARIO_H

#include <stddef.h>

#include "tests/sim/world.h"

struct scenario {
	const char *name;
	unsigned hosts; /* unless --hosts says otherwise */
	bool with_ipam;
	void (*run)(struct world *w);
};

extern const struct scenario gossip_scenarios[], detect_scenarios[], bulk_scenarios[], trust_scenarios[], tree_scenarios[],
	joining_scenarios[], interest_scenarios[], warm_scenarios[], explore_scenarios[], long_scenarios[], measure_scenarios[],
	ipam_scenarios[], forgetting_scenarios[], peers_scenarios[], peers_long_scenarios[]; /* each ends with a NULL name */

/* One run of random operations and faults over a world of w->host_count hosts, with addresses if it has ipam cores. */
void explore(struct world *w);

void expect(struct world *w, bool fact, const char *what);
/* Fails unless members and records are as they must be within deadline_ms. Returns how long it took. */
uint64_t expect_quiet(struct world *w, uint64_t deadline_ms);

/* All know one another and start. */
void begin_within(struct world *w, uint64_t quiet_ms);
/* Records k0, k1, ... */
void put_many(struct world *w, unsigned host, uint64_t topic, unsigned count);
/* The sum of one of gossip's counters over the hosts that run. */
#define COUNTED(w, counter) counted_by_all(w, offsetof(struct gossip_counters, counter))
uint64_t counted_by_all(struct world *w, size_t counter);

/* The last host of w->host_count >= 5 is admitted by host 0 under SECOND_NUMBER, an answer that is lost, and by host 1, cut off
 * from host 0 together with host 3, under its own. The others have joined before. It runs; the cut is there still. */
#define SECOND_NUMBER 40
void admit_twice(struct world *w);

#endif

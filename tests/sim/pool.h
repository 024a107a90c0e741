/* The pool of 256 addresses that ipam_scenarios.c and explore.c ask for addresses from. */
#ifndef TESTS_SIM_POOL_H
#define TESTS_SIM_POOL_H

#include "tests/sim/world.h"

void pool_begin(struct world *w); /* the hosts run: host 0 makes it, the others join */
void pool_end(struct world *w);
void pool_act(struct world *w, unsigned host); /* which must run: asks for an address, or lets one go */
void pool_restart(struct world *w, unsigned host, bool new_epoch);
void pool_power_cut(struct world *w, unsigned host);
/* When all is quiet: none is lost (I8), and a free address can be got by name and without one, from any host (I9, I10). */
void pool_expect_sound(struct world *w);

#endif

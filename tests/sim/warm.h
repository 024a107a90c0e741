/* Clusters of thousands, as they are some seconds after their start: everybody knows everybody, all copies are equal.
 *
 * Starting n hosts from their disks costs n * n greetings, and as much memory. Instead one core is told, message by message, what
 * n hosts that have just started tell it, and the others begin as copies of its memory (arena.h), in which two members change
 * places: who it was is somebody else now, and who it is was somebody else. `warm_start_is_a_cold_one` holds that against
 * clusters that did start. */
#ifndef TESTS_SIM_WARM_H
#define TESTS_SIM_WARM_H

#include "tests/sim/world.h"

#define WARM_ABOVE 200 /* hosts: up to here a world can afford to start */

void warm_start(struct world *w); /* in place of world_introduce_all and world_start_all; hosts that crash stay down */
/* As if all had been killed and started within `ms`, with all others on disk. */
void warm_restart(struct world *w, uint64_t ms);
/* Whether all hosts that run have the same records and believe exactly those alive that run. */
bool warm_agrees(struct world *w);

#endif

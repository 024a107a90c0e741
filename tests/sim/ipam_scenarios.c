#include "tests/sim/scenario.h"
const struct scenario ipam_scenarios[] = {{NULL, 0, false, NULL}};
void explore_ipam(struct world *w)
{
	(void)w;
}

/* The checker of addresses: looks at the ipam cores of all hosts at once, and at the disks of those that are down.
 *
 *	I1	each address is held by one host, or on its way from one, or reserved; none has two holders, none is lost
 *	I3	an address that an endpoint has is held by the host that gave it
 *	I4	equal versions of an address name equal holders, and who holds it has the newest
 *	I5	all of it also behind a crash or a power cut, since disks are looked at like cores
 *
 * A host that was set back to an older disk remembers what is not so, and is left out: it must not give anything (I11).
 *
 * I2 is on_complete's in ipam_scenarios.c, at each grant; I8 to I10 are asked for when all is quiet. */
#ifndef TESTS_SIM_CUSTODY_H
#define TESTS_SIM_CUSTODY_H

#include "tests/sim/world.h"

#define CUSTODY_ADDRESSES 256

struct custody_view {
	struct id128 pool;
	unsigned first, last;		    /* addresses that are not reserved */
	uint32_t holder[CUSTODY_ADDRESSES]; /* hostno that gave it to an endpoint, 0 = nobody */
};

void custody_check(struct world *w, const struct custody_view *view);

#endif

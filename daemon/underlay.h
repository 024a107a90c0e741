/* What the network between the hosts carries. */
#ifndef DAEMON_UNDERLAY_H
#define DAEMON_UNDERLAY_H

#include "base/addr.h"

unsigned underlay_mtu(const struct ip *own);	  /* of the device that has this address, as of now */
unsigned underlay_overhead(const struct ip *own); /* what a tunnel over its family takes of each packet */

#endif

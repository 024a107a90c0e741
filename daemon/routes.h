/* This host's routes: what a subnet must not overlap. A default route overlaps everything and is none of these. */
#ifndef DAEMON_ROUTES_H
#define DAEMON_ROUTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

struct route_list {
	struct prefix *routes;
	size_t count, max;
};

/* Adds those of one family as of now, but for those through the device `except`; NULL: none. What cannot be read adds nothing. */
void route_list_read(struct route_list *list, uint8_t family, const char *except);
bool route_list_overlaps(const struct route_list *list, const struct prefix *prefix);
void route_list_fini(struct route_list *list);

/* Which of the prefixes do, 1 << index, with a route as of now; `except` as above. */
unsigned routes_overlap(const struct prefix *prefixes, unsigned count, const char *except);

#endif

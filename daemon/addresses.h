/* Which endpoints of this host have an address: an index of node->endpoints. Several have the same one where networks have the
 * same addresses, and while one that is on its way out (closing) makes room for the next. */
#ifndef DAEMON_ADDRESSES_H
#define DAEMON_ADDRESSES_H

#include <stdbool.h>

#include "base/addr.h"

struct endpoint;
struct address_users;

/* The addresses of an endpoint do not change between the two. */
void addresses_add(struct address_users **index, struct endpoint *ep);
void addresses_del(struct address_users **index, struct endpoint *ep);
/* All that have it, closing or not, in no order: the first, and who follows; NULL: no more. */
struct endpoint *addresses_first(struct address_users *index, const struct ip *ip);
struct endpoint *addresses_next(const struct endpoint *ep, const struct ip *ip);

#endif

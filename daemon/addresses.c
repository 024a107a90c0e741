/* See addresses.h. For each address a list, through the endpoints themselves: of one family they have one address. */
#include "daemon/addresses.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "daemon/node_internal.h"

struct address_users {
	struct ip ip;
	struct endpoint *first;
	UT_hash_handle hh;
};

static struct address_users *users_of(struct address_users *index, const struct ip *ip)
{
	struct address_users *u;

	HASH_FIND(hh, index, ip, sizeof(*ip), u);
	return u;
}

static void add(struct address_users **index, struct endpoint *ep, const struct ip *ip)
{
	struct address_users *u = ip_is_set(ip) ? users_of(*index, ip) : NULL;

	if (!ip_is_set(ip))
		return;
	if (!u) {
		u = alloc_new(struct address_users);
		u->ip = *ip;
		HASH_ADD(hh, *index, ip, sizeof(u->ip), u);
	}
	ep->same_address[ip->family == 6] = u->first;
	u->first = ep;
}

static void del(struct address_users **index, struct endpoint *ep, const struct ip *ip)
{
	struct address_users *u = ip_is_set(ip) ? users_of(*index, ip) : NULL;
	struct endpoint **at = u ? &u->first : NULL;

	while (at && *at && *at != ep)
		at = &(*at)->same_address[ip->family == 6];
	if (!at || !*at)
		return;
	*at = ep->same_address[ip->family == 6];
	ep->same_address[ip->family == 6] = NULL;
	if (u->first)
		return;
	HASH_DEL(*index, u);
	free(u);
}

void addresses_add(struct address_users **index, struct endpoint *ep)
{
	add(index, ep, &ep->state.address4.ip);
	add(index, ep, &ep->state.address6.ip);
}

void addresses_del(struct address_users **index, struct endpoint *ep)
{
	del(index, ep, &ep->state.address4.ip);
	del(index, ep, &ep->state.address6.ip);
}

struct endpoint *addresses_first(struct address_users *index, const struct ip *ip)
{
	const struct address_users *u = ip_is_set(ip) ? users_of(index, ip) : NULL;

	return u ? u->first : NULL;
}

struct endpoint *addresses_next(const struct endpoint *ep, const struct ip *ip)
{
	return ep->same_address[ip->family == 6];
}

/* What the files of pools share, and nobody else needs. pools.c has the table, pool_obtain.c finds or makes one, pool_leases.c
 * knows what the leases in one are for, pool_calls.c answers the engine. */
#ifndef DAEMON_POOLS_INTERNAL_H
#define DAEMON_POOLS_INTERNAL_H

#include "daemon/node_internal.h"

#define OWNER_GATEWAY "the gateway"

/* pools.c */
struct pool *pool_add(struct node *node, const struct pool_def *def);
void pool_remove(struct node *node, struct pool *p); /* out of the table; nothing saved or published is undone */
bool pool_referenced(const struct pool *p);	     /* by an engine or the operator here */
/* In use, with that name or any of these addresses; NULL: none. */
struct pool *pool_named(struct node *node, enum pool_space space, uint8_t family, const char *name);
struct pool *pool_overlapping(struct node *node, enum pool_space space, const struct prefix *prefix);
/* What its home is asked about: its prefix, or its name. */
void pool_claim_key(char *buf, size_t size, const struct pool_def *def, bool by_name);
/* Makes it known to the ipam core; `mine`: every address is this host's. Nothing when it is already. */
int pool_join(struct node *node, struct pool *p, bool mine, struct err *err);

/* pool_leases.c */
void pool_reserve_again(struct node *node, struct pool *p); /* at a start: gateways and auxiliary addresses */
bool pool_remember(struct node *node, struct pool *p, const struct ip *ip, bool gateway); /* false: too many */
void pool_forget(struct node *node, struct pool *p, const struct ip *ip);
void pool_release_leases(struct node *node, struct pool *p); /* all; what was remembered goes too */

#endif

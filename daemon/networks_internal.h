/* What the files of networks share, and nobody else needs. */
#ifndef DAEMON_NETWORKS_INTERNAL_H
#define DAEMON_NETWORKS_INTERNAL_H

#include "daemon/node_internal.h"

/* networks.c */
struct network *network_named(struct node *node, const char *name); /* the lowest id of that name */
struct network *network_add(struct node *node, const struct network_def *def);
void network_drop(struct node *node, struct network *n); /* out of table and kernel; nothing saved or published is undone */
bool network_vni_taken(struct node *node, uint32_t vni, const struct id128 *except);
uint32_t network_pick_vni(struct node *node, const struct id128 *id, uint32_t version);

/* network_calls.c */
int docker_networks_start(struct node *node, struct err *err); /* when networks are there */
void docker_networks_stop(struct node *node);

#endif

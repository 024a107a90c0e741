/* What the files of attachments share, and nobody else needs. */
#ifndef DAEMON_WORKLOADS_INTERNAL_H
#define DAEMON_WORKLOADS_INTERNAL_H

#include <jansson.h>

#include "daemon/node_internal.h"

/* workloads.c */
const char *workload_text(json_t *object, const char *name); /* "" when there is no such text */
void workload_key(char key[WORKLOAD_KEY_SIZE], json_t *attachment);

/* tombstones.c */
void tombstones_act(struct node *node); /* on all of them */
void tombstones_stop(struct node *node);

#endif

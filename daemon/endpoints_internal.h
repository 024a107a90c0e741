/* What endpoints.c shows to endpoint_calls.c alone. */
#ifndef DAEMON_ENDPOINTS_INTERNAL_H
#define DAEMON_ENDPOINTS_INTERNAL_H

#include "daemon/node_internal.h"

struct endpoint *endpoint_find(struct node *node, const char *id);
void endpoint_save(struct node *node, const struct endpoint *ep);
/* Makes the last step of one that was read back at a start again: the kernel may have refused meanwhile. */
void endpoint_prove(struct node *node, struct endpoint *ep);

#endif

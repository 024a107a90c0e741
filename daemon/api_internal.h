/* What the files of the control API share. A function that returns JSON hands it over; NULL comes with `err`. */
#ifndef DAEMON_API_INTERNAL_H
#define DAEMON_API_INTERNAL_H

#include <jansson.h>

#include "daemon/node_internal.h"

/* api_values.c */
json_t *api_text(const char *text); /* null for NULL and "" */
json_t *api_id(const struct id128 *id);
json_t *api_ip(const struct ip *ip); /* null when unset */
json_t *api_addr(const struct gossip_addr *addr);
json_t *api_host_name(struct node *node, const struct id128 *id); /* null when no member has it */

/* api_status.c */
json_t *api_status(struct node *node);
json_t *api_version(struct node *node);

/* api_show.c */
json_t *api_members(struct node *node);
json_t *api_endpoints(struct node *node, const char *network, struct err *err); /* NULL: of all */
json_t *api_endpoint_inspect(struct node *node, const char *id_or_address, struct err *err);
json_t *api_networks(struct node *node);
json_t *api_network_inspect(struct node *node, const char *name, struct err *err);
json_t *api_network_full(struct node *node, const struct network *n);
json_t *api_ipam_show(struct node *node, const char *pool, struct err *err); /* NULL: all */
json_t *api_keys(struct node *node);
struct network *api_need_network(struct node *node, const char *name, struct err *err);
unsigned api_endpoints_of(struct node *node, uint32_t hostno, uint64_t topic); /* containers'; topic 0: of every network */

/* api_networks.c */
void api_network_create(struct node *node, struct control_call *call, json_t *body);
void api_network_rm(struct node *node, struct control_call *call, const char *name);

#endif

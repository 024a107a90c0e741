/* Shared by plugin.c (server, table of methods, replies) and decode.c (bodies to plain values). */
#ifndef PLUGIN_PLUGIN_INTERNAL_H
#define PLUGIN_PLUGIN_INTERNAL_H

#include "plugin/plugin.h"

#define PLUGIN_NOTED_MAX 64 /* unknown option names that are remembered, so that each is logged once */

struct plugin_noted {
	unsigned count;
	uint64_t hashes[PLUGIN_NOTED_MAX];
};

/* Every id that a call can name; which of them are set depends on the method. */
struct plugin_ids {
	const char *network_id, *endpoint_id, *sandbox;
};

struct plugin_release {
	const char *pool_id;
	struct ip address;
};

union plugin_args {
	struct plugin_ids ids;
	struct plugin_create_network create_network;
	struct plugin_create_endpoint create_endpoint;
	struct plugin_request_pool request_pool;
	struct plugin_request_address request_address;
	struct plugin_release release;
	json_t *options; /* AllocateNetwork; borrowed, NULL when absent */
};

/* Each reads one kind of body. Pointers in `ret_args` borrow from `body`. On failure err is ERR_INVALID and `ret_args` means
 * nothing. `noted` is where unknown options are remembered; NULL: not logged. */
typedef int plugin_decode_fn(
	json_t *body, const char *what, struct plugin_noted *noted, union plugin_args *ret_args, struct err *err);

plugin_decode_fn plugin_decode_create_network, plugin_decode_network, plugin_decode_create_endpoint, plugin_decode_endpoint,
	plugin_decode_join, plugin_decode_program, plugin_decode_discover, plugin_decode_allocate_network,
	plugin_decode_gw_alloc_check, plugin_decode_request_pool, plugin_decode_pool, plugin_decode_request_address,
	plugin_decode_release_address;

#endif

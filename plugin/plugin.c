/* The plugin socket: the table of methods, calls in flight, answers.
 *
 * What the engine forces on us, and where it is met here:
 * - GetCapabilities that fails once leaves the driver unregistered until dockerd restarts. So the calls that register us are
 * answered from constants, before any backend is ready, and whatever body comes with them.
 * - A call that was lost on the way is repeated with an empty body (the body's reader was consumed by the first try). 400 ends
 *   that loop at once; anything else would be repeated for 15 s.
 * - An error in EndpointOperInfo aborts the start of a container on 20.10. It is never given.
 * - The IPAM side reads "Error" only, the network side "Err" only, and a status other than 200 needs "Err". Both are always sent,
 * with a status other than 200. */
#include "plugin/plugin_internal.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/jd.h"
#include "base/json_text.h"
#include "base/log.h"
#include "http/httpd.h"

#define CONTENT_TYPE "application/vnd.docker.plugins.v1.2+json"
#define LOG_LINES_PER_MINUTE 60

struct plugin_method {
	const char *path;
	plugin_decode_fn *decode; /* NULL: takes no argument, any body is ignored */
	void (*handle)(struct plugin_call *call);
};

struct plugin_call {
	struct plugin *plugin; /* NULL once the plugin is closed */
	const struct plugin_method *method;
	struct httpd_request *http; /* NULL when there is no client to answer (plugin_decode_only) */
	json_t *body;
	union plugin_args args;
	struct plugin_call *prev, *next;
};

struct plugin {
	struct httpd *httpd;
	const struct plugin_backend *backend;
	void *ctx;
	struct plugin_call *calls;
	struct plugin_counters counters;
	struct plugin_noted noted;
	struct log_limit limit;
};

/* ---- answers ---- */

static void send_json(struct httpd_request *http, int status, json_t *answer)
{
	char *text = json_print(answer, JSON_COMPACT);

	json_decref(answer);
	if (http)
		httpd_reply(http, status, text, strlen(text));
	free(text);
}

static void send_error(struct httpd_request *http, int status, const struct err *err)
{
	json_t *answer = json_object();

	json_object_set_new(answer, "Err", json_text(err->text));
	json_object_set_new(answer, "Error", json_text(err->text));
	send_json(http, status, answer);
}

static void call_free(struct plugin_call *call)
{
	if (call->plugin) {
		DL_DELETE(call->plugin->calls, call);
		call->plugin->counters.in_flight--;
	}
	json_decref(call->body);
	free(call);
}

static void call_answer(struct plugin_call *call, json_t *answer)
{
	send_json(call->http, 200, answer);
	call_free(call);
}

void plugin_fail(struct plugin_call *call, const struct err *err)
{
	struct plugin *plugin = call->plugin;

	if (plugin) {
		plugin->counters.failed++;
		log_limited(
			&plugin->limit, clock_boot_ms(), LOG_LEVEL_WARN, "plugin", "%s: %s", call->method->path + 1, err->text);
	}
	send_error(call->http, err->code == ERR_INVALID ? 400 : 500, err);
	call_free(call);
}

void plugin_done(struct plugin_call *call)
{
	call_answer(call, json_object());
}

/* A field that the engine has supplied must not come back, not even with the same value: it rolls the endpoint back. */
void plugin_done_endpoint(struct plugin_call *call, const struct plugin_endpoint_created *made)
{
	json_t *answer = json_object(), *interface = json_object();
	char text[MAC_TEXT_SIZE];

	if (made && !mac_is_zero(&made->mac) && mac_is_zero(&call->args.create_endpoint.mac))
		json_object_set_new(interface, "MacAddress", json_string(mac_format(&made->mac, text)));
	json_object_set_new(answer, "Interface", interface);
	call_answer(call, answer);
}

/* No Gateway on purpose: the engine then attaches docker_gwbridge, which does egress and published ports. */
void plugin_done_join(struct plugin_call *call, const struct plugin_joined *joined)
{
	json_t *answer = json_object(), *name = json_object();

	json_object_set_new(name, "SrcName", json_string(joined->src_name));
	json_object_set_new(name, "DstPrefix", json_string(joined->dst_prefix));
	json_object_set_new(answer, "InterfaceName", name);
	call_answer(call, answer);
}

void plugin_done_pool(struct plugin_call *call, const struct plugin_pool_given *given)
{
	json_t *answer = json_object();
	char text[PREFIX_TEXT_SIZE];

	json_object_set_new(answer, "PoolID", json_text(given->pool_id));
	json_object_set_new(answer, "Pool", json_string(prefix_format(&given->pool, text)));
	json_object_set_new(answer, "Data", json_object());
	call_answer(call, answer);
}

void plugin_done_address(struct plugin_call *call, const struct prefix *address)
{
	json_t *answer = json_object();
	char text[PREFIX_TEXT_SIZE];

	json_object_set_new(answer, "Address", json_string(prefix_format(address, text)));
	json_object_set_new(answer, "Data", json_object());
	call_answer(call, answer);
}

void plugin_call_on_gone(struct plugin_call *call, void (*fn)(void *arg), void *arg)
{
	if (call->http)
		httpd_on_gone(call->http, fn, arg);
}

/* ---- handlers: constants ---- */

static void handle_activate(struct plugin_call *call)
{
	call_answer(call, json_pack("{s:[ss]}", "Implements", "NetworkDriver", "IpamDriver"));
}

static void handle_network_capabilities(struct plugin_call *call)
{
	call_answer(call, json_pack("{ss ss}", "Scope", "local", "ConnectivityScope", "global"));
}

/* No MAC: it would let the engine choose it. No replay: leases are on disk. */
static void handle_ipam_capabilities(struct plugin_call *call)
{
	call_answer(call, json_pack("{sb sb}", "RequiresMACAddress", 0, "RequiresRequestReplay", 0));
}

static void handle_address_spaces(struct plugin_call *call)
{
	call_answer(call, json_pack("{ss ss}", "LocalDefaultAddressSpace", PLUGIN_SPACE_LOCAL, "GlobalDefaultAddressSpace",
				  PLUGIN_SPACE_GLOBAL));
}

static void handle_gw_alloc_check(struct plugin_call *call)
{
	call_answer(call, json_pack("{sb sb}", "SkipIPv4", 0, "SkipIPv6", 0));
}

/* What is answered replaces the network's options on every node, so all of them must come back. */
static void handle_allocate_network(struct plugin_call *call)
{
	json_t *options = call->args.options ? json_incref(call->args.options) : json_object();

	call_answer(call, json_pack("{so}", "Options", options));
}

static void handle_oper_info(struct plugin_call *call)
{
	call_answer(call, json_pack("{s{}}", "Value"));
}

/* ---- handlers: backend ---- */

static void handle_create_network(struct plugin_call *call)
{
	call->plugin->backend->create_network(call->plugin->ctx, call, &call->args.create_network);
}

static void handle_delete_network(struct plugin_call *call)
{
	call->plugin->backend->delete_network(call->plugin->ctx, call, call->args.ids.network_id);
}

static void handle_create_endpoint(struct plugin_call *call)
{
	call->plugin->backend->create_endpoint(call->plugin->ctx, call, &call->args.create_endpoint);
}

static void handle_delete_endpoint(struct plugin_call *call)
{
	call->plugin->backend->delete_endpoint(call->plugin->ctx, call, call->args.ids.network_id, call->args.ids.endpoint_id);
}

static void handle_join(struct plugin_call *call)
{
	const struct plugin_ids *ids = &call->args.ids;

	call->plugin->backend->join(call->plugin->ctx, call, ids->network_id, ids->endpoint_id, ids->sandbox);
}

static void handle_leave(struct plugin_call *call)
{
	call->plugin->backend->leave(call->plugin->ctx, call, call->args.ids.network_id, call->args.ids.endpoint_id);
}

static void handle_program(struct plugin_call *call)
{
	call->plugin->backend->program(call->plugin->ctx, call, call->args.ids.network_id, call->args.ids.endpoint_id);
}

static void handle_request_pool(struct plugin_call *call)
{
	call->plugin->backend->request_pool(call->plugin->ctx, call, &call->args.request_pool);
}

static void handle_release_pool(struct plugin_call *call)
{
	call->plugin->backend->release_pool(call->plugin->ctx, call, call->args.release.pool_id);
}

static void handle_request_address(struct plugin_call *call)
{
	call->plugin->backend->request_address(call->plugin->ctx, call, &call->args.request_address);
}

static void handle_release_address(struct plugin_call *call)
{
	call->plugin->backend->release_address(call->plugin->ctx, call, call->args.release.pool_id, &call->args.release.address);
}

static const struct plugin_method methods[] = {
	{"/Plugin.Activate", NULL, handle_activate},
	{"/NetworkDriver.GetCapabilities", NULL, handle_network_capabilities},
	{"/NetworkDriver.GwAllocCheck", plugin_decode_gw_alloc_check, handle_gw_alloc_check},
	{"/NetworkDriver.AllocateNetwork", plugin_decode_allocate_network, handle_allocate_network},
	{"/NetworkDriver.FreeNetwork", plugin_decode_network, plugin_done},
	{"/NetworkDriver.CreateNetwork", plugin_decode_create_network, handle_create_network},
	{"/NetworkDriver.DeleteNetwork", plugin_decode_network, handle_delete_network},
	{"/NetworkDriver.CreateEndpoint", plugin_decode_create_endpoint, handle_create_endpoint},
	{"/NetworkDriver.EndpointOperInfo", plugin_decode_endpoint, handle_oper_info},
	{"/NetworkDriver.DeleteEndpoint", plugin_decode_endpoint, handle_delete_endpoint},
	{"/NetworkDriver.Join", plugin_decode_join, handle_join},
	{"/NetworkDriver.Leave", plugin_decode_endpoint, handle_leave},
	{"/NetworkDriver.ProgramExternalConnectivity", plugin_decode_program, handle_program},
	{"/NetworkDriver.RevokeExternalConnectivity", plugin_decode_endpoint, plugin_done},
	{"/NetworkDriver.DiscoverNew", plugin_decode_discover, plugin_done},
	{"/NetworkDriver.DiscoverDelete", plugin_decode_discover, plugin_done},
	{"/IpamDriver.GetCapabilities", NULL, handle_ipam_capabilities},
	{"/IpamDriver.GetDefaultAddressSpaces", NULL, handle_address_spaces},
	{"/IpamDriver.RequestPool", plugin_decode_request_pool, handle_request_pool},
	{"/IpamDriver.ReleasePool", plugin_decode_pool, handle_release_pool},
	{"/IpamDriver.RequestAddress", plugin_decode_request_address, handle_request_address},
	{"/IpamDriver.ReleaseAddress", plugin_decode_release_address, handle_release_address},
};

/* ---- the way in ---- */

static const struct plugin_method *find_method(const char *path)
{
	size_t i;

	for (i = 0; i < sizeof methods / sizeof *methods; i++)
		if (!strcmp(methods[i].path, path))
			return &methods[i];
	return NULL;
}

/* Fills method, body and args of `call`. 0, or the status of the refusal. */
static int call_prepare(struct plugin_call *call, const char *path, const void *body, size_t len, struct err *err)
{
	const struct plugin_method *method = find_method(path);
	const char *what;

	if (!method) {
		err_set(err, ERR_NOT_FOUND, "%.100s is not a call that this plugin knows", path);
		return 404;
	}
	call->method = method;
	if (!method->decode)
		return 0;
	what = strchr(path, '.') + 1;
	if (!len) {
		err_set(err, ERR_INVALID, "%s: expected a JSON object, found an empty body: nothing was done", what);
		return 400;
	}
	call->body = jd_parse(body, len, what, err);
	if (!call->body || method->decode(call->body, what, call->plugin ? &call->plugin->noted : NULL, &call->args, err) < 0)
		return 400;
	return 0;
}

static struct plugin_call *call_new(struct plugin *plugin, struct httpd_request *http)
{
	struct plugin_call *call = alloc_new(struct plugin_call);

	call->plugin = plugin;
	call->http = http;
	DL_APPEND(plugin->calls, call);
	plugin->counters.calls++;
	plugin->counters.in_flight++;
	return call;
}

static int call_run(struct plugin_call *call, const char *path, const void *body, size_t len, struct err *err)
{
	int status = call_prepare(call, path, body, len, err);

	if (!status) {
		call->method->handle(call); /* may have freed the call */
		return 0;
	}
	call->plugin->counters.refused++;
	send_error(call->http, status, err);
	call_free(call);
	return status;
}

static void on_request(void *ctx, struct httpd_request *http)
{
	struct plugin *plugin = ctx;
	const char *path = httpd_path(http);
	struct err err;
	size_t len;
	const void *body = httpd_body(http, &len);

	if (call_run(call_new(plugin, http), path, body, len, &err))
		log_limited(&plugin->limit, clock_boot_ms(), LOG_LEVEL_WARN, "plugin", "refused: %s", err.text);
}

int plugin_open(struct event_base *base, const char *socket_path, const struct plugin_backend *backend, void *ctx,
	struct plugin **ret_plugin, struct err *err)
{
	struct plugin *plugin = alloc_new(struct plugin);
	struct httpd_config config = {
		.path = socket_path,
		.mode = 0600,
		.content_type = CONTENT_TYPE,
		.methods = 1u << HTTPD_POST,
		.handle = on_request,
		.ctx = plugin,
	};

	plugin->backend = backend;
	plugin->ctx = ctx;
	plugin->limit.burst = LOG_LINES_PER_MINUTE;
	/* /run is empty after a boot, and the engine does not make its plugin directory. */
	if (file_make_parents(socket_path, 0755, err) < 0 || httpd_open(base, &config, &plugin->httpd, err) < 0) {
		free(plugin);
		return err_prefix(err, "plugin socket %s", socket_path);
	}
	*ret_plugin = plugin;
	return 0;
}

void plugin_close(struct plugin *plugin)
{
	struct plugin_call *call, *next;

	if (!plugin)
		return;
	httpd_close(plugin->httpd);
	DL_FOREACH_SAFE(plugin->calls, call, next)
	{
		DL_DELETE(plugin->calls, call);
		call->plugin = NULL;
	}
	free(plugin);
}

const struct plugin_counters *plugin_counters(const struct plugin *plugin)
{
	return &plugin->counters;
}

/* ---- without a socket ---- */

static void echo_create_network(void *ctx, struct plugin_call *call, const struct plugin_create_network *req)
{
	(void)ctx;
	(void)req;
	plugin_done(call);
}

static void echo_id(void *ctx, struct plugin_call *call, const char *id)
{
	(void)ctx;
	(void)id;
	plugin_done(call);
}

static void echo_create_endpoint(void *ctx, struct plugin_call *call, const struct plugin_create_endpoint *req)
{
	struct plugin_endpoint_created made = {.mac = req->mac};

	(void)ctx;
	plugin_done_endpoint(call, &made);
}

static void echo_endpoint(void *ctx, struct plugin_call *call, const char *network_id, const char *endpoint_id)
{
	(void)ctx;
	(void)network_id;
	(void)endpoint_id;
	plugin_done(call);
}

static void echo_join(void *ctx, struct plugin_call *call, const char *network_id, const char *endpoint_id, const char *sandbox)
{
	struct plugin_joined joined = {.src_name = "src", .dst_prefix = "eth"};

	(void)ctx;
	(void)network_id;
	(void)endpoint_id;
	(void)sandbox;
	plugin_done_join(call, &joined);
}

static void echo_request_pool(void *ctx, struct plugin_call *call, const struct plugin_request_pool *req)
{
	struct plugin_pool_given given = {.pool_id = "pool", .pool = req->pool};

	(void)ctx;
	plugin_done_pool(call, &given);
}

static void echo_request_address(void *ctx, struct plugin_call *call, const struct plugin_request_address *req)
{
	struct prefix address = {.ip = req->address, .length = 24};

	(void)ctx;
	plugin_done_address(call, &address);
}

static void echo_release_address(void *ctx, struct plugin_call *call, const char *pool_id, const struct ip *address)
{
	(void)ctx;
	(void)pool_id;
	(void)address;
	plugin_done(call);
}

static const struct plugin_backend echo_backend = {
	.create_network = echo_create_network,
	.delete_network = echo_id,
	.create_endpoint = echo_create_endpoint,
	.delete_endpoint = echo_endpoint,
	.join = echo_join,
	.leave = echo_endpoint,
	.program = echo_endpoint,
	.request_pool = echo_request_pool,
	.release_pool = echo_id,
	.request_address = echo_request_address,
	.release_address = echo_release_address,
};

int plugin_decode_only(const char *method, const void *body, size_t len, struct err *err)
{
	struct plugin plugin = {.backend = &echo_backend, .noted.count = PLUGIN_NOTED_MAX /* silent */};

	return call_run(call_new(&plugin, NULL), method, body, len, err);
}

/* Routes, parameter checks and answers of the control API (docs/api.md).
 *
 * Everything that can be wrong with a request itself is found here, so that the backend deals with the state of the host only.
 * Unknown members are refused: the clients are ours, and a misspelt "intrenal" must not make an open network. */
#include "control/control.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/jd.h"
#include "base/json_text.h"
#include "base/log.h"
#include "http/httpd.h"

#define OBJECT_MAX 128 /* bytes of the last path part and of a filter */
#define TOKEN_MAX 511
#define HOST_TEXT_MAX 64 /* a name, a number, or an id */
#define TTL_MAX_S 31536000

struct route {
	enum control_verb verb;
	enum httpd_method method;
	const char *path;
	bool object;				     /* one more path part follows */
	const char *filter;			     /* name of the query parameter; NULL: none */
	int (*check)(json_t *body, struct err *err); /* NULL: takes no body */
};

struct control_call {
	struct control *control; /* NULL once the server is closed */
	struct httpd_request *http;
	json_t *body;
	struct control_call *prev, *next;
};

struct control {
	struct httpd *httpd;
	const struct control_backend *backend;
	void *ctx;
	struct control_call *calls;
};

/* ---- bodies ---- */

static void check_family(struct jd *d, const char *name, uint8_t family)
{
	struct prefix prefix = jd_opt_prefix(d, name);
	char text[PREFIX_TEXT_SIZE];

	if (prefix_is_set(&prefix) && prefix.ip.family != family)
		jd_fail(d, name, "expected an IPv%u prefix, found %s", family, prefix_format(&prefix, text));
}

static void check_mode(struct jd *d)
{
	const char *mode = jd_opt_str(d, "mode", 16);

	if (mode && strcmp(mode, "l2") && strcmp(mode, "l3"))
		jd_fail(d, "mode", "expected \"l2\" or \"l3\", found \"%s\"", mode);
}

static int check_network_create(json_t *body, struct err *err)
{
	static const char first[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._";
	const char *name;
	struct jd d;

	jd_init(&d, body, "network", err);
	name = jd_str(&d, "name", 63);
	if (!d.failed && (!*name || name[strspn(name, first)] || strchr("-._", *name)))
		jd_fail(&d, "name", "expected 1 to 63 of [0-9A-Za-z_.-] beginning with a letter or digit, found \"%s\"", name);
	check_family(&d, "subnet", 4);
	check_family(&d, "subnet6", 6);
	jd_opt_int(&d, "mtu", 576, 65535, 0);
	jd_opt_int(&d, "vni", 1, 0xffffff, 0);
	jd_opt_bool(&d, "internal", false);
	check_mode(&d);
	return jd_finish_strict(&d);
}

static int check_token(json_t *body, struct err *err)
{
	struct jd d;

	jd_init(&d, body, "token", err);
	jd_opt_int(&d, "ttl_s", 1, TTL_MAX_S, 0);
	return jd_finish_strict(&d);
}

static int check_join(json_t *body, struct err *err)
{
	struct jd d;

	jd_init(&d, body, "join", err);
	if (!*jd_str(&d, "token", TOKEN_MAX))
		jd_fail(&d, "token", "expected what `trestle token` printed on a member, found an empty text");
	return jd_finish_strict(&d);
}

static int check_leave(json_t *body, struct err *err)
{
	struct jd d;

	jd_init(&d, body, "leave", err);
	jd_opt_bool(&d, "force", false);
	return jd_finish_strict(&d);
}

static int check_forget(json_t *body, struct err *err)
{
	json_t *assumed, *item;
	struct jd d;
	size_t i;

	jd_init(&d, body, "forget", err);
	if (!*jd_str(&d, "host", HOST_TEXT_MAX))
		jd_fail(&d, "host", "expected the name or number of a host, found an empty text");
	jd_opt_bool(&d, "fenced", false);
	assumed = jd_opt_array(&d, "assume_fenced");
	json_array_foreach(assumed, i, item)
	{
		if (!d.failed && (!json_is_string(item) || !json_string_length(item) || json_string_length(item) > HOST_TEXT_MAX))
			jd_fail(&d, "assume_fenced", "expected names or numbers of hosts, found something else");
	}
	return jd_finish_strict(&d);
}

/* ---- bodies of trestle-cni ---- */

static bool is_name(const char *text, size_t max)
{
	static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._";

	return *text && strlen(text) <= max && !text[strspn(text, letters)] && !strchr("-._", *text);
}

static void check_name(struct jd *d, const char *name, size_t max)
{
	const char *text = jd_str(d, name, max);

	if (!d->failed && !is_name(text, max))
		jd_fail(d, name, "expected 1 to %zu of [0-9A-Za-z_.-] beginning with a letter or digit, found \"%s\"", max, text);
}

static void check_attachment(struct jd *d, bool config)
{
	const char *ifname;

	if (config)
		check_name(d, "config", CONTROL_CNI_CONFIG_MAX);
	check_name(d, "container_id", CONTROL_CNI_ID_MAX);
	ifname = jd_str(d, "ifname", 15);
	if (!d->failed && (!*ifname || strpbrk(ifname, "/: \t\n\v\f\r") || !strcmp(ifname, ".") || !strcmp(ifname, "..")))
		jd_fail(d, "ifname", "expected a name that an interface can have, found \"%s\"", ifname);
}

static void check_path(struct jd *d, const char *name, const char *path)
{
	if (!d->failed && path && *path != '/')
		jd_fail(d, name, "expected an absolute path, found \"%s\"", path);
}

static void check_address(struct jd *d, const char *name, const json_t *item, bool with_length)
{
	struct prefix prefix;
	struct ip ip;
	struct err why;

	if (!json_is_string(item))
		jd_fail(d, name, "expected texts only");
	else if (with_length ? prefix_parse(json_string_value(item), &prefix, &why)
			     : ip_parse(json_string_value(item), &ip, &why))
		jd_fail(d, name, "%s", why.text);
}

/* Addresses, or with `with_length` interface addresses ("10.9.0.7/24"). */
static void check_ips(struct jd *d, bool with_length)
{
	json_t *ips = jd_opt_array(d, "ips"), *item;
	size_t i;

	if (json_array_size(ips) > CONTROL_CNI_IPS_MAX)
		jd_fail(d, "ips", "expected at most %d, found %zu", CONTROL_CNI_IPS_MAX, json_array_size(ips));
	json_array_foreach(ips, i, item) check_address(d, "ips", item, with_length);
}

static void check_text(struct jd *d, const char *name, const json_t *item)
{
	if (!json_is_string(item) || json_string_length(item) > CONTROL_CNI_LABEL_MAX)
		jd_fail(d, name, "expected texts of at most %d bytes only", CONTROL_CNI_LABEL_MAX);
}

static void check_labels(struct jd *d)
{
	json_t *labels = jd_opt_object(d, "labels"), *aliases = jd_opt_array(d, "aliases"), *item;
	const char *key;
	size_t i;

	if (json_object_size(labels) > CONTROL_CNI_LABELS_MAX)
		jd_fail(d, "labels", "expected at most %d, found %zu", CONTROL_CNI_LABELS_MAX, json_object_size(labels));
	if (json_array_size(aliases) > CONTROL_CNI_LABELS_MAX)
		jd_fail(d, "aliases", "expected at most %d, found %zu", CONTROL_CNI_LABELS_MAX, json_array_size(aliases));
	json_object_foreach(labels, key, item) check_text(d, "labels", item);
	json_array_foreach(aliases, i, item) check_text(d, "aliases", item);
}

static int check_route(json_t *item, struct err *err)
{
	struct jd d;

	jd_init(&d, item, "add.routes", err);
	jd_prefix(&d, "dst");
	jd_opt_ip(&d, "gw");
	return jd_finish_strict(&d);
}

static void check_routes(struct jd *d)
{
	json_t *routes = jd_opt_array(d, "routes"), *item;
	size_t i;

	if (json_array_size(routes) > CONTROL_CNI_ROUTES_MAX)
		jd_fail(d, "routes", "expected at most %d, found %zu", CONTROL_CNI_ROUTES_MAX, json_array_size(routes));
	json_array_foreach(routes, i, item)
	{
		if (!d->failed && check_route(item, d->err) < 0)
			d->failed = true;
	}
}

static void check_network_name(struct jd *d, const char *network)
{
	if (!d->failed && network && !is_name(network, CONTROL_NETWORK_NAME_MAX))
		jd_fail(d, "network", "expected 1 to %d of [0-9A-Za-z_.-] beginning with a letter or digit, found \"%s\"",
			CONTROL_NETWORK_NAME_MAX, network);
}

static int check_cni_add(json_t *body, struct err *err)
{
	struct jd d;

	jd_init(&d, body, "add", err);
	check_attachment(&d, true);
	check_path(&d, "netns", jd_str(&d, "netns", CONTROL_CNI_PATH_MAX));
	jd_opt_str(&d, "sandbox", CONTROL_CNI_PATH_MAX);
	check_network_name(&d, jd_str(&d, "network", CONTROL_NETWORK_NAME_MAX));
	check_family(&d, "subnet", 4);
	check_family(&d, "subnet6", 6);
	jd_opt_int(&d, "mtu", 576, 65535, 0);
	check_mode(&d);
	check_ips(&d, jd_opt_bool(&d, "address_given", false));
	check_routes(&d);
	jd_opt_bool(&d, "default_gateway", true);
	jd_opt_mac(&d, "mac");
	jd_opt_str(&d, "name", CONTROL_CNI_LABEL_MAX);
	check_labels(&d);
	return jd_finish_strict(&d);
}

static int check_cni_del(json_t *body, struct err *err)
{
	struct jd d;

	jd_init(&d, body, "del", err);
	check_attachment(&d, true);
	check_path(&d, "netns", jd_opt_str(&d, "netns", CONTROL_CNI_PATH_MAX));
	return jd_finish_strict(&d);
}

static int check_cni_check(json_t *body, struct err *err)
{
	struct jd d;

	jd_init(&d, body, "check", err);
	check_attachment(&d, true);
	check_path(&d, "netns", jd_str(&d, "netns", CONTROL_CNI_PATH_MAX));
	jd_opt_mac(&d, "mac");
	check_ips(&d, true);
	return jd_finish_strict(&d);
}

static int check_keep(json_t *item, struct err *err)
{
	struct jd d;

	jd_init(&d, item, "gc.keep", err);
	check_attachment(&d, false);
	return jd_finish_strict(&d);
}

static int check_cni_gc(json_t *body, struct err *err)
{
	json_t *keep, *item;
	struct jd d;
	size_t i;

	jd_init(&d, body, "gc", err);
	check_name(&d, "config", CONTROL_CNI_CONFIG_MAX);
	keep = jd_opt_array(&d, "keep");
	if (!d.failed && !keep)
		jd_fail(&d, "keep", "expected the list of attachments to keep (may be empty), found nothing");
	json_array_foreach(keep, i, item)
	{
		if (d.failed || check_keep(item, err) < 0)
			return -1;
	}
	return jd_finish_strict(&d);
}

static int check_ipam_allocate(json_t *body, struct err *err)
{
	const char *network;
	struct jd d;

	jd_init(&d, body, "allocate", err);
	check_attachment(&d, true);
	network = jd_opt_str(&d, "network", CONTROL_NETWORK_NAME_MAX);
	check_network_name(&d, network);
	check_family(&d, "subnet", 4);
	check_family(&d, "subnet6", 6);
	if (!d.failed && !network && !json_object_get(body, "subnet") && !json_object_get(body, "subnet6"))
		jd_fail(&d, "network", "expected a network, a subnet or a subnet6, found none of them");
	check_ips(&d, false);
	return jd_finish_strict(&d);
}

static int check_ipam_release(json_t *body, struct err *err)
{
	struct jd d;

	jd_init(&d, body, "release", err);
	check_attachment(&d, true);
	return jd_finish_strict(&d);
}

static int check_ipam_check(json_t *body, struct err *err)
{
	struct jd d;

	jd_init(&d, body, "check", err);
	check_attachment(&d, true);
	check_ips(&d, false);
	return jd_finish_strict(&d);
}

static int check_keys_rotate(json_t *body, struct err *err)
{
	struct jd d;

	jd_init(&d, body, "rotate", err);
	return jd_finish_strict(&d);
}

static int check_freeze(json_t *body, struct err *err)
{
	const char *reason;
	struct jd d;

	jd_init(&d, body, "freeze", err);
	reason = jd_opt_str(&d, "reason", CONTROL_REASON_MAX);
	for (; !d.failed && reason && *reason; reason++)
		if ((unsigned char)*reason < ' ' || *reason == 127)
			jd_fail(&d, "reason", "expected one line of text, found the control character %d", *reason);
	return jd_finish_strict(&d);
}

static int check_thaw(json_t *body, struct err *err)
{
	struct jd d;

	jd_init(&d, body, "thaw", err);
	return jd_finish_strict(&d);
}

static const struct route routes[] = {
	{CONTROL_STATUS, HTTPD_GET, "/v1/status", false, NULL, NULL},
	{CONTROL_VERSION, HTTPD_GET, "/v1/version", false, NULL, NULL},
	{CONTROL_MEMBERS, HTTPD_GET, "/v1/members", false, NULL, NULL},
	{CONTROL_NETWORKS, HTTPD_GET, "/v1/networks", false, NULL, NULL},
	{CONTROL_NETWORK_CREATE, HTTPD_POST, "/v1/networks", false, NULL, check_network_create},
	{CONTROL_NETWORK_INSPECT, HTTPD_GET, "/v1/networks", true, NULL, NULL},
	{CONTROL_NETWORK_RM, HTTPD_DELETE, "/v1/networks", true, NULL, NULL},
	{CONTROL_ENDPOINTS, HTTPD_GET, "/v1/endpoints", false, "network", NULL},
	{CONTROL_ENDPOINT_INSPECT, HTTPD_GET, "/v1/endpoints", true, NULL, NULL},
	{CONTROL_IPAM, HTTPD_GET, "/v1/ipam", false, "pool", NULL},
	{CONTROL_TOKEN, HTTPD_POST, "/v1/token", false, NULL, check_token},
	{CONTROL_JOIN, HTTPD_POST, "/v1/join", false, NULL, check_join},
	{CONTROL_LEAVE, HTTPD_POST, "/v1/leave", false, NULL, check_leave},
	{CONTROL_KEYS, HTTPD_GET, "/v1/keys", false, NULL, NULL},
	{CONTROL_KEYS_ROTATE, HTTPD_POST, "/v1/keys/rotate", false, NULL, check_keys_rotate},
	{CONTROL_FREEZE, HTTPD_POST, "/v1/freeze", false, NULL, check_freeze},
	{CONTROL_THAW, HTTPD_POST, "/v1/thaw", false, NULL, check_thaw},
	{CONTROL_FORGET, HTTPD_POST, "/v1/forget", false, NULL, check_forget},
	{CONTROL_AUDIT, HTTPD_GET, "/v1/ipam/check", false, NULL, NULL},
	{CONTROL_CNI_ADD, HTTPD_POST, "/v1/cni/add", false, NULL, check_cni_add},
	{CONTROL_CNI_DEL, HTTPD_POST, "/v1/cni/del", false, NULL, check_cni_del},
	{CONTROL_CNI_CHECK, HTTPD_POST, "/v1/cni/check", false, NULL, check_cni_check},
	{CONTROL_CNI_GC, HTTPD_POST, "/v1/cni/gc", false, NULL, check_cni_gc},
	{CONTROL_CNI_STATUS, HTTPD_GET, "/v1/cni/status", false, "network", NULL},
	{CONTROL_IPAM_ALLOCATE, HTTPD_POST, "/v1/ipam/allocate", false, NULL, check_ipam_allocate},
	{CONTROL_IPAM_RELEASE, HTTPD_POST, "/v1/ipam/release", false, NULL, check_ipam_release},
	{CONTROL_IPAM_CHECK, HTTPD_POST, "/v1/ipam/check", false, NULL, check_ipam_check},
};

/* ---- answers ---- */

static void send_json(struct httpd_request *http, int status, json_t *answer)
{
	char *text = json_print(answer, JSON_COMPACT);

	json_decref(answer);
	httpd_reply(http, status, text, strlen(text));
	free(text);
}

static void send_error(struct httpd_request *http, int status, const struct err *err)
{
	json_t *error = json_object(), *answer = json_object();

	json_object_set_new(error, "code", json_string(err_code_name(err->code)));
	json_object_set_new(error, "message", json_text(err->text));
	json_object_set_new(answer, "error", error);
	send_json(http, status, answer);
}

static int status_of(enum err_code code)
{
	switch (code) {
	case ERR_INVALID:
	case ERR_TOO_BIG:
	case ERR_UNSUPPORTED:
		return 400;
	case ERR_DENIED:
		return 403;
	case ERR_NOT_FOUND:
		return 404;
	case ERR_EXISTS:
	case ERR_CONFLICT:
		return 409;
	case ERR_UNREACHABLE:
	case ERR_EXHAUSTED:
		return 503;
	default:
		return 500;
	}
}

static void call_free(struct control_call *call)
{
	if (call->control)
		DL_DELETE(call->control->calls, call);
	json_decref(call->body);
	free(call);
}

void control_done(struct control_call *call, json_t *answer)
{
	send_json(call->http, 200, answer);
	call_free(call);
}

void control_fail(struct control_call *call, const struct err *err)
{
	int status = status_of(err->code);

	if (status == 500)
		log_error("control", "%s", err->text);
	send_error(call->http, status, err);
	call_free(call);
}

bool control_gone(const struct control_call *call)
{
	return httpd_gone(call->http);
}

/* ---- the way in ---- */

/* The part behind "<route>/", NULL when the path is another one. An id holds no slash, so a path with more parts fits nothing. */
static const char *object_of(const struct route *route, const char *path)
{
	size_t len = strlen(route->path);

	if (strncmp(path, route->path, len) || path[len] != '/' || !path[len + 1] || strchr(path + len + 1, '/'))
		return NULL;
	return path + len + 1;
}

static bool route_fits(const struct route *route, const char *path)
{
	return route->object ? object_of(route, path) != NULL : !strcmp(path, route->path);
}

/* 0, or the status of the refusal. */
static int find_route(const char *path, enum httpd_method method, const struct route **ret_route, struct err *err)
{
	bool known = false;
	size_t i;

	for (i = 0; i < sizeof routes / sizeof *routes; i++) {
		if (!route_fits(&routes[i], path))
			continue;
		known = true;
		if (routes[i].method != method)
			continue;
		*ret_route = &routes[i];
		return 0;
	}
	if (known) {
		err_set(err, ERR_INVALID, "%.100s does not take this method: docs/api.md lists the calls", path);
		return 405;
	}
	err_set(err, ERR_NOT_FOUND, "%.100s is not a path of this version of the API (/v1): docs/api.md lists the calls", path);
	return 404;
}

static int read_body(const struct route *route, const void *bytes, size_t len, json_t **ret_body, struct err *err)
{
	json_t *body;

	if (!route->check) {
		if (len)
			return err_set(err, ERR_INVALID, "expected no body, found %zu bytes", len);
		*ret_body = NULL;
		return 0;
	}
	body = len ? jd_parse(bytes, len, "body", err) : json_object();
	if (!body || route->check(body, err) < 0) {
		json_decref(body);
		return -1;
	}
	*ret_body = body;
	return 0;
}

int control_body(enum control_verb verb, const void *bytes, size_t len, json_t **ret_body, struct err *err)
{
	const struct route *route = routes;

	while (route->verb != verb)
		route++;
	return read_body(route, bytes, len, ret_body, err);
}

/* 0, or the status of the refusal. The strings of the request belong to http. */
static int read_request(struct httpd_request *http, struct control_request *ret_request, struct err *err)
{
	const char *path = httpd_path(http);
	const struct route *route;
	struct control_request request;
	const void *body;
	size_t len;
	int status = find_route(path, httpd_method(http), &route, err);

	if (status)
		return status;
	request = (struct control_request){
		.verb = route->verb,
		.object = route->object ? object_of(route, path) : NULL,
		.filter = route->filter ? httpd_query(http, route->filter) : NULL,
	};
	if ((request.object && strlen(request.object) > OBJECT_MAX) || (request.filter && strlen(request.filter) > OBJECT_MAX)) {
		err_set(err, ERR_INVALID, "expected a name, id or address of at most %d bytes, found more", OBJECT_MAX);
		return 400;
	}
	body = httpd_body(http, &len);
	if (read_body(route, body, len, &request.body, err) < 0)
		return 400;
	*ret_request = request;
	return 0;
}

static void on_request(void *ctx, struct httpd_request *http)
{
	struct control *control = ctx;
	struct control_request request;
	struct control_call *call;
	struct err err;
	int status = read_request(http, &request, &err);

	if (status) {
		send_error(http, status, &err);
		return;
	}
	call = alloc_new(struct control_call);
	call->control = control;
	call->http = http;
	call->body = request.body;
	DL_APPEND(control->calls, call);
	control->backend->handle(control->ctx, call, &request);
}

int control_open(struct event_base *base, const char *socket_path, const struct control_backend *backend, void *ctx,
	struct control **ret_control, struct err *err)
{
	struct control *control = alloc_new(struct control);
	struct httpd_config config = {
		.path = socket_path,
		.mode = 0600,
		.content_type = "application/json",
		.methods = 1u << HTTPD_GET | 1u << HTTPD_POST | 1u << HTTPD_DELETE,
		.handle = on_request,
		.ctx = control,
	};

	control->backend = backend;
	control->ctx = ctx;
	if (file_make_parents(socket_path, 0755, err) < 0 || httpd_open(base, &config, &control->httpd, err) < 0) {
		free(control);
		return err_prefix(err, "control socket %s", socket_path);
	}
	*ret_control = control;
	return 0;
}

void control_close(struct control *control)
{
	struct control_call *call, *next;

	if (!control)
		return;
	httpd_close(control->httpd);
	DL_FOREACH_SAFE(control->calls, call, next)
	{
		DL_DELETE(control->calls, call);
		call->control = NULL;
	}
	free(control);
}

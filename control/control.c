/* Routes, parameter checks and answers of the control API (docs/api.md).
 *
 * Everything that can be wrong with a request itself is found here, so that the backend deals with the state of the host only.
 * Unknown members are refused: the clients are ours, and a misspelt "intrenal" must not make an open network. */
#include "control/control.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/file.h"
#include "base/jd.h"
#include "base/json_text.h"
#include "base/log.h"
#include "http/httpd.h"

#define OBJECT_MAX 128 /* bytes of the last path part and of a filter */
#define TOKEN_MAX 511
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
};

/* ---- answers ---- */

static void send_json(struct httpd_request *http, int status, json_t *answer)
{
	char *text = json_dumps(answer, JSON_COMPACT);

	json_decref(answer);
	if (!text)
		abort();
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

static int read_body(const struct route *route, struct httpd_request *http, json_t **ret_body, struct err *err)
{
	size_t len;
	const void *bytes = httpd_body(http, &len);
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

/* 0, or the status of the refusal. The strings of the request belong to http. */
static int read_request(struct httpd_request *http, struct control_request *ret_request, struct err *err)
{
	const char *path = httpd_path(http);
	const struct route *route;
	struct control_request request;
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
	if (read_body(route, http, &request.body, err) < 0)
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
	call = calloc(1, sizeof *call);
	if (!call)
		abort();
	call->control = control;
	call->http = http;
	call->body = request.body;
	DL_APPEND(control->calls, call);
	control->backend->handle(control->ctx, call, &request);
}

int control_open(struct event_base *base, const char *socket_path, const struct control_backend *backend, void *ctx,
	struct control **ret_control, struct err *err)
{
	struct control *control = calloc(1, sizeof *control);
	struct httpd_config config = {
		.path = socket_path,
		.mode = 0600,
		.content_type = "application/json",
		.methods = 1u << HTTPD_GET | 1u << HTTPD_POST | 1u << HTTPD_DELETE,
		.handle = on_request,
		.ctx = control,
	};
	char *dir = strdup(socket_path), *slash;
	int rc = 0;

	if (!control || !dir)
		abort();
	control->backend = backend;
	control->ctx = ctx;
	slash = strrchr(dir, '/');
	if (slash && slash != dir) {
		*slash = '\0';
		rc = file_make_dirs(dir, 0755, err);
	}
	free(dir);
	if (rc < 0 || httpd_open(base, &config, &control->httpd, err) < 0) {
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

/* The HTTP server of the Docker plugin socket and of the control socket: see httpd.h. evhttp parses and writes; this
 * file owns what evhttp (2.1.12, read and tried) leaves open:
 *
 * - Who is connected. evhttp tells of a connection only when its request is complete, so a limit, a deadline and a count
 *   could not be had. The bufferevent callback runs at each accept; right behind it `adopt` takes the evhttp_connection
 *   out of the bufferevent's callback argument and registers a close callback, which evhttp calls on every path that
 *   frees a server connection.
 * - Who has gone. While a request is being handled evhttp does not read, so it does not see a hang-up; `watch` does.
 * - Slow clients. evhttp's timeout starts again with each byte; `deadline` is for the whole request, and for the whole
 *   reply.
 * - Methods. evhttp answers 501 to those it was told not to allow; it is told to allow all (unknown ones have a bit too),
 *   and the wrong ones get 405 here.
 * - Its own refusals (400 for what does not parse, 413 for a body over the limit) are HTML pages with `Connection:
 *   close`. No engine provokes them; they are left as they are. With lingering close a too large body is read and thrown
 *   away first, so that the client is not cut off in the middle of its send and does read the 413.
 *
 * Invariants: conn->request and request->conn point at each other or are both NULL. The evhttp_request belongs to
 * evhttp; `closed` is where our pointer to it ends, or httpd_reply. */
#include "http/httpd.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <utlist.h>

#include "base/alloc.h"
#include "base/log.h"

#define BACKLOG 128
#define ACCEPT_PAUSE_MS 100 /* after a failed accept (EMFILE): the listener stays readable and would spin */

struct conn {
	struct httpd *httpd;
	struct bufferevent *bev;	 /* a reference of ours until adopted */
	struct evhttp_connection *evcon; /* NULL until adopted */
	struct event *adopt;
	struct event *deadline;
	struct event *watch; /* for a hang-up; pending while a request is handled */
	struct httpd_request *request;
	struct conn *prev, *next;
};

struct httpd {
	struct event_base *base;
	struct evhttp *http;
	struct evconnlistener *listener; /* owned by http */
	struct event *resume;
	char *path;
	dev_t dev; /* of the socket file, to unlink no one else's */
	ino_t ino;
	char *content_type;
	unsigned methods;
	unsigned connections_max;
	struct timeval request_timeout;
	void (*handle)(void *ctx, struct httpd_request *request);
	void *ctx;
	struct conn *conns;
	struct httpd_counters counters;
	struct httpd *prev, *next; /* in `servers` */
};

struct httpd_request {
	struct conn *conn;	    /* NULL: the client is gone */
	struct evhttp_request *req; /* NULL with conn */
	enum httpd_method method;
	char *path;
	struct evkeyvalq query;
	struct evbuffer *body;
	void (*gone_fn)(void *arg);
	void *gone_arg;
};

/* -- requests -- */

static void request_free(struct httpd_request *request)
{
	if (request->conn)
		request->conn->request = NULL;
	evhttp_clear_headers(&request->query);
	evbuffer_free(request->body);
	free(request->path);
	free(request);
}

static const char *method_names[] = {[HTTPD_GET] = "GET", [HTTPD_POST] = "POST", [HTTPD_PUT] = "PUT", [HTTPD_DELETE] = "DELETE"};

static bool method_of(const struct evhttp_request *req, enum httpd_method *ret_method)
{
	switch (req->type) {
	case EVHTTP_REQ_GET:
		*ret_method = HTTPD_GET;
		return true;
	case EVHTTP_REQ_POST:
		*ret_method = HTTPD_POST;
		return true;
	case EVHTTP_REQ_PUT:
		*ret_method = HTTPD_PUT;
		return true;
	case EVHTTP_REQ_DELETE:
		*ret_method = HTTPD_DELETE;
		return true;
	default:
		return false;
	}
}

static void send_reply(struct evhttp_request *req, int status, const char *type, const void *body, size_t len)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(req);
	struct evbuffer *buf = evbuffer_new();
	char length[24];

	if (!buf || evbuffer_add(buf, body, len) < 0)
		abort();
	snprintf(length, sizeof(length), "%zu", len);
	evhttp_add_header(headers, "Content-Type", type);
	evhttp_add_header(headers, "Content-Length", length);
	evhttp_add_header(headers, "Connection", "close");
	/* evhttp would add `keep-alive` for an HTTP/1.0 client that asks for it, and drop our header for a request with a whole
	 * URI, which it takes for one to a proxy. */
	evhttp_remove_header(evhttp_request_get_input_headers(req), "Connection");
	req->flags &= ~EVHTTP_PROXY_REQUEST;
	if (req->type == EVHTTP_REQ_CONNECT) /* or it would keep the connection for the tunnel */
		req->type = EVHTTP_REQ_GET;
	evhttp_send_reply(req, status, NULL, req->type == EVHTTP_REQ_HEAD ? NULL : buf);
	evbuffer_free(buf);
}

static void refuse(struct httpd *httpd, struct evhttp_request *req, int status, const char *sentence)
{
	httpd->counters.refused++;
	send_reply(req, status, "text/plain", sentence, strlen(sentence));
}

static void refuse_method(struct httpd *httpd, struct evhttp_request *req)
{
	char allowed[64] = "", sentence[128];
	size_t len = 0;

	for (unsigned i = 0; i < sizeof(method_names) / sizeof(method_names[0]); i++) {
		if (httpd->methods & 1u << i)
			len += (size_t)snprintf(allowed + len, sizeof(allowed) - len, "%s%s", len ? ", " : "", method_names[i]);
	}
	evhttp_add_header(evhttp_request_get_output_headers(req), "Allow", allowed);
	snprintf(sentence, sizeof(sentence), "method not allowed: this socket takes %s\n", allowed);
	refuse(httpd, req, 405, sentence);
}

/* The decoded path in memory of its own, or NULL: no path, or a NUL in it that would hide what follows. */
static char *decode_path(struct evhttp_request *req)
{
	const char *raw = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(req));
	size_t size = 0;
	char *path = raw ? evhttp_uridecode(raw, 0, &size) : NULL;

	if (path && (size != strlen(path) || !size)) {
		free(path);
		return NULL;
	}
	return path;
}

static int decode_query(struct evhttp_request *req, struct evkeyvalq *ret_query)
{
	const char *raw = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(req));

	return evhttp_parse_query_str(raw ? raw : "", ret_query); /* leaves an empty list on failure */
}

/* evhttp answers in whatever version it was asked in, 0.1 and 1.7 too. */
static bool version_is_known(struct evhttp_request *req)
{
	bool known = req->major == 1;

	req->major = 1;
	if (!known || req->minor > 1)
		req->minor = 1;
	return known;
}

/* NULL when it was refused. */
static struct httpd_request *request_new(struct httpd *httpd, struct evhttp_request *req)
{
	struct httpd_request *request;
	enum httpd_method method;
	char *path;

	if (!version_is_known(req)) {
		refuse(httpd, req, 400, "bad version: expected HTTP/1.1 or HTTP/1.0\n");
		return NULL;
	}
	if (!method_of(req, &method) || !(httpd->methods & 1u << method)) {
		refuse_method(httpd, req);
		return NULL;
	}
	path = decode_path(req);
	if (!path) {
		refuse(httpd, req, 400, "bad path: expected /NAME without NUL bytes\n");
		return NULL;
	}
	request = alloc_new(struct httpd_request);
	if (decode_query(req, &request->query) < 0) {
		free(path);
		free(request);
		refuse(httpd, req, 400, "bad query: expected NAME=VALUE pairs joined by &\n");
		return NULL;
	}
	request->req = req;
	request->method = method;
	request->path = path;
	request->body = evbuffer_new(); /* the evhttp_request dies with its client; a handler may still be reading the body */
	if (!request->body || evbuffer_add_buffer(request->body, evhttp_request_get_input_buffer(req)) < 0)
		abort();
	return request;
}

/* -- connections -- */

static struct conn *conn_find(struct httpd *httpd, const struct evhttp_connection *evcon)
{
	struct conn *conn = httpd->conns;

	while (conn && conn->evcon != evcon)
		conn = conn->next;
	return conn;
}

static void conn_free(struct conn *conn)
{
	DL_DELETE(conn->httpd->conns, conn);
	conn->httpd->counters.open_connections--;
	event_free(conn->adopt);
	event_free(conn->deadline);
	if (conn->watch)
		event_free(conn->watch);
	free(conn);
}

/* evhttp's close callback: the connection is being freed, for whatever reason. */
static void closed(struct evhttp_connection *evcon, void *arg)
{
	struct conn *conn = arg;
	struct httpd_request *request = conn->request;
	void (*gone_fn)(void *arg);
	(void)evcon;

	conn->request = NULL;
	conn_free(conn);
	if (!request)
		return;
	/* A failing connection puts out the request that we have not answered; else the connection frees it after this. */
	if (!evhttp_request_get_connection(request->req))
		evhttp_request_free(request->req);
	request->conn = NULL;
	request->req = NULL;
	gone_fn = request->gone_fn;
	request->gone_fn = NULL;
	if (gone_fn)
		gone_fn(request->gone_arg);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct conn *conn = arg;
	(void)fd;
	(void)what;

	conn->httpd->counters.refused++;
	evhttp_connection_free(conn->evcon);
}

/* Readable while a request is handled: the end, or more bytes. Only a peer that closed both ways has gone; one that ended its
 * sending side waits for the answer. Fires once: what is readable stays so, and would spin. */
static void on_watch(evutil_socket_t fd, short what, void *arg)
{
	struct conn *conn = arg;
	struct pollfd pfd = {.fd = fd};
	(void)what;

	if (poll(&pfd, 1, 0) == 1 && pfd.revents & (POLLHUP | POLLERR))
		evhttp_connection_free(conn->evcon);
}

/* Written past evhttp, which has read nothing yet; a new Unix socket has room for it. */
static void conn_refuse(struct conn *conn)
{
	static const char sentence[] = "too many connections; try again soon\n";
	char reply[256];
	int len = snprintf(reply, sizeof(reply),
		"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: "
		"close\r\n\r\n%s",
		sizeof(sentence) - 1, sentence);

	if (send(bufferevent_getfd(conn->bev), reply, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		log_debug("http", "%s: refusal of a connection was not sent: %s", conn->httpd->path, strerror(errno));
	conn->httpd->counters.refused++;
}

static void on_adopt(evutil_socket_t fd, short what, void *arg)
{
	struct conn *conn = arg;
	struct httpd *httpd = conn->httpd;
	bool full = httpd->counters.open_connections > httpd->connections_max;
	void *evcon = NULL;
	(void)fd;
	(void)what;

	bufferevent_getcb(conn->bev, NULL, NULL, NULL, &evcon);
	if (!evcon) { /* evhttp gave it up at once: out of memory or descriptors */
		bufferevent_decref(conn->bev);
		conn_free(conn);
		return;
	}
	if (full)
		conn_refuse(conn);
	conn->evcon = evcon;
	conn->watch = alloc_made(event_new(httpd->base, bufferevent_getfd(conn->bev), EV_READ, on_watch, conn), "event");
	bufferevent_decref(conn->bev);
	conn->bev = NULL;
	evhttp_connection_set_closecb(conn->evcon, closed, conn);
	event_add(conn->deadline, &httpd->request_timeout);
	if (full)
		evhttp_connection_free(conn->evcon);
}

static struct bufferevent *on_accept(struct event_base *base, void *arg)
{
	struct httpd *httpd = arg;
	struct conn *conn = alloc_new(struct conn);

	conn->httpd = httpd;
	conn->bev = alloc_made(bufferevent_socket_new(base, -1, 0), "connection");
	conn->adopt = alloc_made(event_new(base, -1, 0, on_adopt, conn), "event");
	conn->deadline = alloc_made(event_new(base, -1, 0, on_deadline, conn), "event");
	bufferevent_incref(conn->bev);
	DL_APPEND(httpd->conns, conn);
	httpd->counters.open_connections++;
	event_active(conn->adopt, EV_TIMEOUT, 0);
	return conn->bev;
}

static void on_request(struct evhttp_request *req, void *arg)
{
	struct httpd *httpd = arg;
	struct conn *conn = conn_find(httpd, evhttp_request_get_connection(req));
	struct httpd_request *request = request_new(httpd, req);

	if (!request)
		return;
	if (!conn) /* adoption comes before any byte is read */
		abort();
	request->conn = conn;
	conn->request = request;
	event_del(conn->deadline);
	event_add(conn->watch, NULL);
	httpd->counters.requests++;
	httpd->handle(httpd->ctx, request);
}

/* -- what handlers call -- */

enum httpd_method httpd_method(const struct httpd_request *request)
{
	return request->method;
}

const char *httpd_path(const struct httpd_request *request)
{
	return request->path;
}

const char *httpd_query(const struct httpd_request *request, const char *name)
{
	return evhttp_find_header(&request->query, name);
}

const void *httpd_body(const struct httpd_request *request, size_t *ret_len)
{
	const void *bytes = evbuffer_pullup(request->body, -1);

	*ret_len = evbuffer_get_length(request->body);
	return bytes ? bytes : "";
}

bool httpd_gone(const struct httpd_request *request)
{
	return !request->conn;
}

void httpd_on_gone(struct httpd_request *request, void (*fn)(void *arg), void *arg)
{
	if (!request->conn) {
		if (fn)
			fn(arg);
		return;
	}
	request->gone_fn = fn;
	request->gone_arg = arg;
}

void httpd_reply(struct httpd_request *request, int status, const void *body, size_t len)
{
	struct conn *conn = request->conn;

	if (conn) {
		event_del(conn->watch);
		event_add(conn->deadline, &conn->httpd->request_timeout);
		send_reply(request->req, status, conn->httpd->content_type, body, len);
	}
	request_free(request);
}

const struct httpd_counters *httpd_counters(const struct httpd *httpd)
{
	return &httpd->counters;
}

/* -- the socket -- */

/* Makes the path free: 0, or an error when something lives there. */
static int clear_path(int fd, const struct sockaddr_un *address, struct err *err)
{
	struct stat st;

	if (lstat(address->sun_path, &st) < 0) {
		if (errno == ENOENT)
			return 0;
		return err_sys(err, errno, "socket %s", address->sun_path);
	}
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, ERR_EXISTS,
			"socket %s: expected a socket or nothing, found another kind of file; remove it or choose"
			" another path",
			address->sun_path);
	/* EAGAIN is a full backlog: also alive. */
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN)
		return err_set(err, ERR_EXISTS, "socket %s: another process answers on it; stop that one or choose another path",
			address->sun_path);
	if (errno != ECONNREFUSED)
		return err_sys(err, errno, "socket %s: finding out whether another process answers on it", address->sun_path);
	if (unlink(address->sun_path) < 0 && errno != ENOENT)
		return err_sys(err, errno, "socket %s: removing what an earlier process left", address->sun_path);
	return 0;
}

static int unix_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static int probe_path(const struct sockaddr_un *address, struct err *err)
{
	int fd = unix_socket(), result;

	if (fd < 0)
		return err_sys(err, errno, "socket %s", address->sun_path);
	result = clear_path(fd, address, err);
	close(fd);
	return result;
}

/* bind() makes the file with the mode of the descriptor, so nobody can connect between it and the chmod, which only undoes the
 * umask. */
static int bind_path(int fd, const struct sockaddr_un *address, mode_t mode, struct err *err)
{
	if (fchmod(fd, mode) < 0 || bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
		return err_sys(err, errno, "socket %s: bind", address->sun_path);
	if (chmod(address->sun_path, mode) < 0 || listen(fd, BACKLOG) < 0) {
		err_sys(err, errno, "socket %s: listen with mode %04o", address->sun_path, (unsigned)mode);
		unlink(address->sun_path);
		return -1;
	}
	return 0;
}

static int open_socket(const struct httpd_config *config, struct err *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd;

	if (!*config->path || strlen(config->path) >= sizeof(address.sun_path))
		return err_set(err, ERR_INVALID, "socket path \"%s\": expected 1 to %zu characters, the kernel's limit",
			config->path, sizeof(address.sun_path) - 1);
	memcpy(address.sun_path, config->path, strlen(config->path) + 1);
	if (probe_path(&address, err) < 0)
		return -1;
	fd = unix_socket();
	if (fd < 0)
		return err_sys(err, errno, "socket %s", config->path);
	if (bind_path(fd, &address, config->mode, err) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* -- the server -- */

/* The error callback is given the user data of the listener, which is evhttp's; the loop thread owns this list and all servers in
 * it. */
static struct httpd *servers;

static void on_accept_error(struct evconnlistener *listener, void *arg)
{
	static const struct timeval pause = {.tv_usec = ACCEPT_PAUSE_MS * 1000};
	const char *reason = strerror(EVUTIL_SOCKET_ERROR());
	struct httpd *httpd = servers;
	(void)arg;

	while (httpd && httpd->listener != listener)
		httpd = httpd->next;
	if (!httpd)
		return;
	log_debug("http", "%s: accept: %s, retrying in %d ms", httpd->path, reason, ACCEPT_PAUSE_MS);
	evconnlistener_disable(listener);
	event_add(httpd->resume, &pause);
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
	struct httpd *httpd = arg;
	(void)fd;
	(void)what;

	evconnlistener_enable(httpd->listener);
}

static void on_event_log(int severity, const char *message)
{
	log_write(severity >= EVENT_LOG_WARN ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG, "libevent", "%s", message);
}

static void on_event_fatal(int code)
{
	log_error("libevent", "fatal error %d, aborting", code);
	abort();
}

static void guard_process(void)
{
	struct sigaction action;

	if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL)
		signal(SIGPIPE, SIG_IGN);
	event_set_log_callback(on_event_log);
	event_set_fatal_callback(on_event_fatal);
}

static struct evhttp *http_new(struct httpd *httpd, int fd)
{
	struct evhttp *http = evhttp_new(httpd->base);

	httpd->listener = evconnlistener_new(httpd->base, NULL, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
	httpd->resume = event_new(httpd->base, -1, 0, on_resume, httpd);
	if (!http || !httpd->listener || !httpd->resume || !evhttp_bind_listener(http, httpd->listener))
		abort();
	evconnlistener_set_error_cb(httpd->listener, on_accept_error);
	evhttp_set_max_headers_size(http, HTTPD_HEADERS_MAX);
	evhttp_set_max_body_size(http, HTTPD_BODY_MAX);
	evhttp_set_flags(http, EVHTTP_SERVER_LINGERING_CLOSE);
	evhttp_set_allowed_methods(http, UINT16_MAX);
	evhttp_set_bevcb(http, on_accept, httpd);
	evhttp_set_gencb(http, on_request, httpd);
	return http;
}

int httpd_open(struct event_base *base, const struct httpd_config *config, struct httpd **ret_httpd, struct err *err)
{
	unsigned timeout_ms = config->request_timeout_ms ? config->request_timeout_ms : HTTPD_REQUEST_TIMEOUT_MS;
	struct httpd *httpd;
	struct stat st;
	int fd = open_socket(config, err);

	if (fd < 0)
		return -1;
	guard_process();
	httpd = alloc_new(struct httpd);
	httpd->base = base;
	httpd->path = alloc_text(config->path);
	if (lstat(config->path, &st) == 0) {
		httpd->dev = st.st_dev;
		httpd->ino = st.st_ino;
	}
	httpd->content_type = alloc_text(config->content_type);
	httpd->methods = config->methods;
	httpd->connections_max = config->connections_max ? config->connections_max : HTTPD_CONNECTIONS_MAX;
	httpd->request_timeout = (struct timeval){.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
	httpd->handle = config->handle;
	httpd->ctx = config->ctx;
	httpd->http = http_new(httpd, fd);
	DL_APPEND(servers, httpd);
	*ret_httpd = httpd;
	return 0;
}

void httpd_close(struct httpd *httpd)
{
	struct conn *conn, *next;
	struct stat st;

	if (!httpd)
		return;
	if (lstat(httpd->path, &st) == 0 && st.st_dev == httpd->dev && st.st_ino == httpd->ino)
		unlink(httpd->path);
	DL_DELETE(servers, httpd);
	evhttp_free(httpd->http);
	DL_FOREACH_SAFE(httpd->conns, conn, next)
	{ /* accepted, not adopted yet */
		bufferevent_decref(conn->bev);
		conn_free(conn);
	}
	event_free(httpd->resume);
	free(httpd->path);
	free(httpd->content_type);
	free(httpd);
}

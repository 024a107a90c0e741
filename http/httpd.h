/* A small HTTP/1.1 server on a Unix socket over libevent's evhttp: the Docker plugin socket and the control socket are both this.
 * Bounds everything evhttp leaves open (header and body size, time, methods), answers `Connection: close`, always sets
 * Content-Length. */
#ifndef HTTP_HTTPD_H
#define HTTP_HTTPD_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

#define HTTPD_BODY_MAX (1024 * 1024) /* larger: 413 */
#define HTTPD_HEADERS_MAX 16384
#define HTTPD_REQUEST_TIMEOUT_MS 30000 /* from accept to the whole request, however it trickles; again for taking the reply */
#define HTTPD_CONNECTIONS_MAX 512      /* more at a time: 503 */

struct httpd;
struct httpd_request; /* lives until httpd_reply, also when the client is gone by then */

enum httpd_method { HTTPD_GET, HTTPD_POST, HTTPD_PUT, HTTPD_DELETE };

struct httpd_config {
	const char *path;	     /* of the socket; a stale one is replaced, a live one is an error that says so */
	mode_t mode;		     /* of the socket */
	const char *content_type;    /* of replies */
	unsigned methods;	     /* bits 1 << enum httpd_method; others get 405 */
	unsigned connections_max;    /* 0: HTTPD_CONNECTIONS_MAX */
	unsigned request_timeout_ms; /* 0: HTTPD_REQUEST_TIMEOUT_MS */
	/* Called for each complete request. Must lead to exactly one httpd_reply, now or later. */
	void (*handle)(void *ctx, struct httpd_request *request);
	void *ctx;
};

/* ERR_EXISTS: another process answers on the socket, or the path is no socket. Two things are set for the whole process, since a
 * client must not be able to end it: SIGPIPE is ignored if nobody handles it, and libevent's log and fatal messages go through
 * base/log.h. */
int httpd_open(struct event_base *base, const struct httpd_config *config, struct httpd **ret_httpd, struct err *err);
/* Unlinks the socket if it is still ours; open requests are dropped as if their clients had gone, late replies to them are
 * harmless. Not from within handle(). */
void httpd_close(struct httpd *httpd);

enum httpd_method httpd_method(const struct httpd_request *request);
const char *httpd_path(const struct httpd_request *request);			/* decoded, without the query */
const char *httpd_query(const struct httpd_request *request, const char *name); /* decoded value or NULL */
/* Contiguous, borrowed until the reply; there is no NUL behind it. */
const void *httpd_body(const struct httpd_request *request, size_t *ret_len);
/* True once the client has hung up before the reply. One that only ended its sending side, or sent more behind the request, is
 * not gone. */
bool httpd_gone(const struct httpd_request *request);
/* `fn` is called once when that happens (at once if it has); it may reply, which frees the request. */
void httpd_on_gone(struct httpd_request *request, void (*fn)(void *arg), void *arg);
/* Copies the body. Frees the request, also when there is nobody left to send it to. */
void httpd_reply(struct httpd_request *request, int status, const void *body, size_t len);

struct httpd_counters {
	unsigned long requests; /* given to handle() */
	unsigned long refused;	/* wrong method, bad path or query, over the connection limit, too slow */
	unsigned long open_connections;
};
const struct httpd_counters *httpd_counters(const struct httpd *httpd);

#endif

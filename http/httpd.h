/* A small HTTP/1.1 server on a Unix socket over libevent's evhttp: the Docker plugin socket and the control socket are both this.
 * Bounds everything evhttp leaves open (header and body size, time, methods), answers `Connection: close`, always sets Content-Length. */
#ifndef HTTP_HTTPD_H
#define HTTP_HTTPD_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

#define HTTPD_BODY_MAX (1024 * 1024) /* larger: 413 */
#define HTTPD_HEADERS_MAX 16384
#define HTTPD_READ_TIMEOUT_S 30      /* a client that stops in the middle of a request */
#define HTTPD_CONNECTIONS_MAX 512

struct httpd;
struct httpd_request; /* lives until httpd_reply, also when the client is gone by then */

enum httpd_method { HTTPD_GET, HTTPD_POST, HTTPD_PUT, HTTPD_DELETE };

struct httpd_config {
	const char *path;         /* of the socket; a stale one is replaced, a live one is an error that says so */
	mode_t mode;              /* of the socket */
	const char *content_type; /* of replies */
	unsigned methods;         /* bits 1 << enum httpd_method; others get 405 */
	/* Called for each complete request. Must lead to exactly one httpd_reply, now or later. */
	void (*handle)(void *ctx, struct httpd_request *request);
	void *ctx;
};

int httpd_open(struct event_base *base, const struct httpd_config *config, struct httpd **ret_httpd, struct err *err);
void httpd_close(struct httpd *httpd); /* unlinks the socket; open requests are dropped, late replies to them are harmless */

enum httpd_method httpd_method(const struct httpd_request *request);
const char *httpd_path(const struct httpd_request *request);  /* decoded, without the query */
const char *httpd_query(const struct httpd_request *request, const char *name); /* decoded value or NULL */
const void *httpd_body(const struct httpd_request *request, size_t *ret_len);   /* contiguous, borrowed until the reply */
/* True once the client has hung up before the reply. */
bool httpd_gone(const struct httpd_request *request);
void httpd_on_gone(struct httpd_request *request, void (*fn)(void *arg), void *arg);
void httpd_reply(struct httpd_request *request, int status, const void *body, size_t len);

struct httpd_counters {
	unsigned long requests, refused, open_connections;
};
const struct httpd_counters *httpd_counters(const struct httpd *httpd);

#endif

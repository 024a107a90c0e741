/* The bytes of one HTTP connection, fed to the real server over its socket. The first byte says in which pieces they arrive (0:
 * at once) and, by its top bit, whether the client ends its sending side before it waits. Whatever comes in: the server lives,
 * answers in HTTP or not at all, and has forgotten the connection when the client has closed. */
#include <errno.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "http/httpd.h"

#define INPUT_MAX (2 * HTTPD_BODY_MAX)
#define ROUNDS_MAX 100000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct event_base *base;
static struct httpd *httpd;
static char dir[] = "/tmp/fuzz_http.XXXXXX";
static struct sockaddr_un address = {.sun_family = AF_UNIX};

static void handle(void *ctx, struct httpd_request *request)
{
	size_t len = 0;
	const void *body = httpd_body(request, &len);
	const char *query = httpd_query(request, "q");
	(void)ctx;

	if (!strlen(httpd_path(request)) || (query && strlen(query) > HTTPD_HEADERS_MAX) || len > HTTPD_BODY_MAX)
		abort();
	httpd_reply(request, 200, body, len);
}

static void stop(void)
{
	httpd_close(httpd);
	event_base_free(base);
	rmdir(dir);
}

static void start(void)
{
	struct httpd_config config = {
		.path = address.sun_path,
		.mode = 0600,
		.content_type = "application/json",
		.methods = 1u << HTTPD_POST | 1u << HTTPD_GET,
		.handle = handle,
	};
	struct err err;

	log_set_level(LOG_LEVEL_ERROR);
	base = event_base_new();
	if (!base || !mkdtemp(dir))
		abort();
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", dir);
	if (httpd_open(base, &config, &httpd, &err) < 0)
		abort();
	atexit(stop);
}

/* The start of everything the server said, kept for the check; the rest is taken so that it can go on sending. */
struct reply {
	char head[16];
	size_t len;
	bool ended;
};

static void step(int fd, struct reply *reply)
{
	char buf[65536];
	ssize_t got;

	event_base_loop(base, EVLOOP_NONBLOCK);
	while (!reply->ended && (got = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) != 0) {
		if (got < 0) {
			reply->ended = errno != EAGAIN;
			return;
		}
		for (ssize_t i = 0; i < got && reply->len < sizeof(reply->head); i++)
			reply->head[reply->len++] = buf[i];
	}
	reply->ended = true;
}

static void feed(int fd, const uint8_t *data, size_t size, size_t piece, struct reply *reply)
{
	unsigned rounds = 0;

	for (size_t at = 0; at < size && !reply->ended;) {
		size_t want = piece && piece < size - at ? piece : size - at;
		ssize_t sent = send(fd, data + at, want, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent > 0)
			at += (size_t)sent;
		else if (errno != EAGAIN)
			return; /* refused, and closed */
		else if (++rounds > ROUNDS_MAX)
			abort(); /* the server neither reads nor closes */
		step(fd, reply);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reply reply = {0};
	unsigned rounds = 0;
	int fd;

	if (!size || size > INPUT_MAX)
		return 0;
	if (!base)
		start();
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		abort();
	feed(fd, data + 1, size - 1, data[0] & 0x7f, &reply);
	if (data[0] & 0x80)
		shutdown(fd, SHUT_WR);
	for (int i = 0; i < 8 && !reply.ended; i++) /* an unfinished request has no answer to wait for */
		step(fd, &reply);
	close(fd);
	if (reply.len &&
		(reply.len < 5 || memcmp(reply.head, "HTTP/", 5))) /* the version is the client's, when evhttp itself refuses */
		abort();
	while (httpd_counters(httpd)->open_connections) {
		event_base_loop(base, EVLOOP_NONBLOCK);
		if (++rounds > ROUNDS_MAX)
			abort();
	}
	return 0;
}

/* The HTTP server over a real Unix socket, driven byte by byte by a raw client. Server and client share one thread: the client's
 * calls do not block, and between them the event loop is stepped until what is waited for has happened or the deadline has
 * passed. */
#include "http/httpd.h"

#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_MS 60000
#define HELD_MAX 16

struct fixture {
	struct event_base *base;
	struct httpd *httpd;
	struct httpd_config config;
	char dir[64];
	char path[80];
	struct httpd_request *held[HELD_MAX]; /* of /hold */
	unsigned held_count;
	unsigned gone_count;
	char seen_path[256];
	char seen_query[256];
	enum httpd_method seen_method;
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void on_gone(void *arg)
{
	((struct fixture *)arg)->gone_count++;
}

static void handle(void *ctx, struct httpd_request *request)
{
	struct fixture *f = ctx;
	const char *query = httpd_query(request, "q");
	size_t len = 0;
	const void *body = httpd_body(request, &len);

	snprintf(f->seen_path, sizeof(f->seen_path), "%s", httpd_path(request));
	snprintf(f->seen_query, sizeof(f->seen_query), "%s", query ? query : "(none)");
	f->seen_method = httpd_method(request);
	if (!strcmp(httpd_path(request), "/hold")) {
		assert_true(f->held_count < HELD_MAX);
		httpd_on_gone(request, on_gone, f);
		f->held[f->held_count++] = request;
		return;
	}
	httpd_reply(request, strcmp(httpd_path(request), "/missing") ? 200 : 404, body, len);
}

static void open_httpd(struct fixture *f)
{
	struct err err = {0};

	if (httpd_open(f->base, &f->config, &f->httpd, &err) < 0)
		fail_msg("%s", err.text);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->base = event_base_new();
	snprintf(f->dir, sizeof(f->dir), "/tmp/test_httpd.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->path, sizeof(f->path), "%s/s", f->dir);
	f->config = (struct httpd_config){
		.path = f->path,
		.mode = 0600,
		.content_type = "application/json",
		.methods = 1u << HTTPD_POST | 1u << HTTPD_DELETE,
		.handle = handle,
		.ctx = f,
	};
	open_httpd(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	httpd_close(f->httpd);
	for (unsigned i = 0; i < f->held_count; i++) {
		if (f->held[i])
			httpd_reply(f->held[i], 200, "late", 4);
	}
	event_base_free(f->base);
	unlink(f->path);
	rmdir(f->dir);
	free(f);
	return 0;
}

/* -- the client -- */

static void step(struct fixture *f)
{
	event_base_loop(f->base, EVLOOP_NONBLOCK);
}

/* One more round: whatever the loop or the socket brings first. */
static void wait_for(struct fixture *f, int fd, short events, uint64_t deadline)
{
	struct pollfd pfd = {.fd = fd, .events = events};

	step(f);
	poll(&pfd, 1, 1);
	if (now_ms() > deadline)
		fail_msg("nothing happened within %d ms", DEADLINE_MS);
}

#define STEP_UNTIL(f, condition)                                                                                                 \
	do {                                                                                                                     \
		uint64_t until_ = now_ms() + DEADLINE_MS;                                                                        \
		while (!(condition))                                                                                             \
			wait_for(f, -1, 0, until_);                                                                              \
	} while (0)

static int dial_path(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static int dial(struct fixture *f)
{
	int fd;

	while ((fd = dial_path(f->path)) < 0) {
		assert_int_equal(errno, EAGAIN); /* backlog full */
		step(f);
	}
	return fd;
}

static void send_all(struct fixture *f, int fd, const void *bytes, size_t len)
{
	uint64_t deadline = now_ms() + DEADLINE_MS;

	for (size_t at = 0; at < len;) {
		ssize_t sent = send(fd, (const char *)bytes + at, len - at, MSG_NOSIGNAL);

		if (sent > 0)
			at += (size_t)sent;
		else if (errno == EAGAIN)
			wait_for(f, fd, POLLOUT, deadline);
		else
			fail_msg("send: %s after %zu of %zu bytes", strerror(errno), at, len);
	}
}

static void send_text(struct fixture *f, int fd, const char *text)
{
	send_all(f, fd, text, strlen(text));
}

/* Everything up to the end of the connection, NUL-terminated; closes fd. The end may be a reset when we sent more than was read.
 */
static char *read_all(struct fixture *f, int fd, size_t *ret_len)
{
	uint64_t deadline = now_ms() + DEADLINE_MS;
	size_t len = 0, capacity = 4096;
	char *text = malloc(capacity);

	for (;;) {
		ssize_t got = recv(fd, text + len, capacity - len - 1, 0);

		if (got > 0)
			len += (size_t)got;
		else if (got == 0 || errno == ECONNRESET)
			break;
		else
			wait_for(f, fd, POLLIN, deadline);
		if (capacity - len < 2048)
			text = realloc(text, capacity *= 2);
	}
	close(fd);
	text[len] = '\0';
	if (ret_len)
		*ret_len = len;
	return text;
}

static char *exchange(struct fixture *f, const char *request)
{
	int fd = dial(f);

	send_all(f, fd, request, strlen(request));
	return read_all(f, fd, NULL);
}

static void expect_status(const char *reply, const char *status)
{
	char start[32];

	snprintf(start, sizeof(start), "HTTP/1.1 %s ", status);
	if (strncmp(reply, start, strlen(start)))
		fail_msg("expected %s, found: %.200s", status, reply);
	if (!strstr(reply, "\r\nConnection: close\r\n"))
		fail_msg("no Connection: close in: %.300s", reply);
	if (!strstr(reply, "\r\nContent-Length: "))
		fail_msg("no Content-Length in: %.300s", reply);
}

static void expect_body(const char *reply, const char *body)
{
	const char *blank = strstr(reply, "\r\n\r\n");
	char length[48];

	assert_non_null(blank);
	assert_string_equal(blank + 4, body);
	snprintf(length, sizeof(length), "\r\nContent-Length: %zu\r\n", strlen(body));
	assert_non_null(strstr(reply, length));
}

static void expect_exchange(struct fixture *f, const char *request, const char *status, const char *body)
{
	char *reply = exchange(f, request);

	expect_status(reply, status);
	if (body)
		expect_body(reply, body);
	free(reply);
}

static unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

/* -- ordinary requests -- */

static void request_as_the_engine_sends_it(void **state)
{
	struct fixture *f = *state;
	char *reply = exchange(f,
		"POST /NetworkDriver.Join HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 3\r\n"
		"Accept: application/vnd.docker.plugins.v1.2+json\r\n\r\n{}\n");

	expect_status(reply, "200");
	expect_body(reply, "{}\n");
	assert_non_null(strstr(reply, "\r\nContent-Type: application/json\r\n"));
	assert_string_equal(f->seen_path, "/NetworkDriver.Join");
	assert_int_equal(f->seen_method, HTTPD_POST);
	assert_int_equal(httpd_counters(f->httpd)->requests, 1);
	free(reply);
}

static void host_is_never_judged(void **state)
{
	static const char *const hosts[] = {"Host:\r\n", "Host: \r\n", "", "Host: plugin.moby.localhost\r\n",
		"Host: %2Frun%2Fdocker%2Fplugins%2Fx.sock\r\n", "Host: a b:c:d]\r\n", "Host: one\r\nHost: two\r\n",
		"HOST: [::1]:99999\r\n"};

	for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
		char request[256];

		snprintf(request, sizeof(request), "POST /x HTTP/1.1\r\n%sContent-Length: 2\r\n\r\n{}", hosts[i]);
		expect_exchange(*state, request, "200", "{}");
	}
}

static void empty_body_is_empty(void **state)
{
	expect_exchange(*state, "POST /x HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n", "200", "");
	expect_exchange(*state, "POST /x HTTP/1.1\r\nHost: \r\n\r\n", "200", "");
}

static void status_is_the_handlers(void **state)
{
	expect_exchange(*state, "POST /missing HTTP/1.1\r\nContent-Length: 2\r\n\r\nno", "404", "no");
}

static void bytes_of_the_body_arrive_as_they_are(void **state)
{
	static const char head[] = "POST /x HTTP/1.1\r\nContent-Length: 6\r\n\r\n", body[6] = {0, 'a', 0, '\r', '\n', (char)0xff};
	struct fixture *f = *state;
	int fd = dial(f);
	size_t len = 0;
	char *reply;

	send_all(f, fd, head, sizeof(head) - 1);
	send_all(f, fd, body, sizeof(body));
	reply = read_all(f, fd, &len);
	expect_status(reply, "200");
	assert_true(len > 6);
	assert_memory_equal(reply + len - 6, body, 6);
	free(reply);
}

static void one_byte_at_a_time(void **state)
{
	static const char request[] = "POST /slow HTTP/1.1\r\nHost: \r\nContent-Length: 5\r\n\r\n[1,2]";
	struct fixture *f = *state;
	int fd = dial(f);
	char *reply;

	for (size_t i = 0; i < sizeof(request) - 1; i++) {
		send_all(f, fd, request + i, 1);
		step(f);
	}
	reply = read_all(f, fd, NULL);
	expect_status(reply, "200");
	expect_body(reply, "[1,2]");
	assert_string_equal(f->seen_path, "/slow");
	free(reply);
}

static void chunked_body_is_joined(void **state)
{
	expect_exchange(
		*state, "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "200", "abcde");
}

static void largest_body_passes_and_comes_back(void **state)
{
	struct fixture *f = *state;
	char head[96], *body = malloc(HTTPD_BODY_MAX + 1), *reply;
	size_t len = 0;
	int fd = dial(f);

	memset(body, 'x', HTTPD_BODY_MAX);
	snprintf(head, sizeof(head), "POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", HTTPD_BODY_MAX);
	send_all(f, fd, head, strlen(head));
	send_all(f, fd, body, HTTPD_BODY_MAX);
	reply = read_all(f, fd, &len);
	assert_non_null(strstr(reply, "HTTP/1.1 200 OK\r\n"));
	assert_true(len > HTTPD_BODY_MAX);
	assert_memory_equal(reply + len - HTTPD_BODY_MAX, body, HTTPD_BODY_MAX);
	free(reply);
	free(body);
}

static void path_and_query_are_decoded(void **state)
{
	struct fixture *f = *state;

	expect_exchange(f, "DELETE /v1/networks/a%20b%2fc?x=1&q=%7Bz%7D+y HTTP/1.1\r\n\r\n", "200", "");
	assert_string_equal(f->seen_path, "/v1/networks/a b/c");
	assert_string_equal(f->seen_query, "{z} y");
	assert_int_equal(f->seen_method, HTTPD_DELETE);
	expect_exchange(f, "POST /p? HTTP/1.1\r\n\r\n", "200", "");
	assert_string_equal(f->seen_query, "(none)");
	expect_exchange(f, "POST http://somewhere:80/whole?q=u HTTP/1.1\r\n\r\n", "200", "");
	assert_string_equal(f->seen_path, "/whole");
	assert_string_equal(f->seen_query, "u");
}

static void http_1_0_client_gets_a_close_too(void **state)
{
	struct fixture *f = *state;
	char *reply = exchange(f, "POST /x HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\ny");

	assert_int_equal(strncmp(reply, "HTTP/1.0 200 OK\r\n", 17), 0);
	assert_non_null(strstr(reply, "\r\nConnection: close\r\n"));
	assert_null(strstr(reply, "keep-alive"));
	expect_body(reply, "y");
	free(reply);
}

static void second_request_on_a_connection_is_not_served(void **state)
{
	struct fixture *f = *state;

	expect_exchange(f, "POST /one HTTP/1.1\r\nContent-Length: 1\r\n\r\n1POST /two HTTP/1.1\r\nContent-Length: 1\r\n\r\n2",
		"200", "1");
	assert_string_equal(f->seen_path, "/one");
	assert_int_equal(httpd_counters(f->httpd)->requests, 1);
}

/* -- refusals -- */

static void wrong_method_gets_405(void **state)
{
	static const char *const methods[] = {"GET", "PUT", "HEAD", "OPTIONS", "PATCH", "TRACE", "BREW"};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		char request[64], *reply;

		snprintf(request, sizeof(request), "%s /x HTTP/1.1\r\n\r\n", methods[i]);
		reply = exchange(f, request);
		expect_status(reply, "405");
		assert_non_null(strstr(reply, "\r\nAllow: POST, DELETE\r\n"));
		free(reply);
	}
	expect_exchange(f, "CONNECT somewhere:80 HTTP/1.1\r\n\r\n", "405", NULL);
	assert_int_equal(httpd_counters(f->httpd)->requests, 0);
	assert_int_equal(httpd_counters(f->httpd)->refused, 8);
}

static void what_is_no_request_gets_400(void **state)
{
	static const char *const requests[] = {
		"hello there, this is not HTTP\r\n\r\n",
		"POST /x\r\n\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
		"POST /x HTTP/x.y\r\n\r\n",
		"POST /x HTTP/0.1\r\n\r\n",
		"POST http://[bad HTTP/1.1\r\n\r\n",
		"POST /x HTTP/1.1\r\nno colon in this line\r\n\r\n",
		"POST /x HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
		"POST /x HTTP/1.1\r\nContent-Length: 5x\r\n\r\nabcde",
		"POST /x HTTP/1.1\r\nContent-Length: \r\n\r\n",
		"POST /a%00b HTTP/1.1\r\n\r\n",
		"POST /x?noequals HTTP/1.1\r\n\r\n",
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
		expect_exchange(f, requests[i], "400", NULL);
	assert_int_equal(httpd_counters(f->httpd)->requests, 0);
	expect_exchange(f, "POST /alive HTTP/1.1\r\nContent-Length: 1\r\n\r\ny", "200", "y");
}

static void too_many_header_bytes_get_400(void **state)
{
	struct fixture *f = *state;
	size_t len = HTTPD_HEADERS_MAX + 1000;
	char *request = malloc(len + 1);

	memset(request, 'a', len);
	memcpy(request, "POST /x HTTP/1.1\r\nX: ", 21);
	memcpy(request + len - 4, "\r\n\r\n", 5);
	expect_exchange(f, request, "400", NULL);
	memset(request, 'a', len);
	expect_exchange(f, request, "400", NULL); /* no end of line at all */
	free(request);
}

static void too_large_body_gets_413(void **state)
{
	struct fixture *f = *state;
	size_t len = HTTPD_BODY_MAX + 1;
	char head[80], *body = calloc(1, len), *reply;
	int fd = dial(f);

	snprintf(head, sizeof(head), "POST /x HTTP/1.1\r\nContent-Length: %zu\r\n\r\n", len);
	send_all(f, fd, head, strlen(head));
	send_all(f, fd, body, len); /* all of it can be sent: nobody is cut off in the middle */
	reply = read_all(f, fd, NULL);
	expect_status(reply, "413");
	free(reply);
	fd = dial(f);
	send_text(f, fd, "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n100001\r\n");
	reply = read_all(f, fd, NULL);
	expect_status(reply, "413");
	free(reply);
	free(body);
	assert_int_equal(httpd_counters(f->httpd)->requests, 0);
}

/* -- connections -- */

static void connect_and_close_leaks_nothing(void **state)
{
	struct fixture *f = *state;
	unsigned before;

	expect_exchange(f, "POST /warm HTTP/1.1\r\n\r\n", "200", "");
	STEP_UNTIL(f, httpd_counters(f->httpd)->open_connections == 0);
	before = count_fds();
	for (int i = 0; i < 1000; i++) {
		int fd = dial(f);

		if (i % 3 == 1)
			send_text(f, fd, "POST /x HT");
		if (i % 3 == 2)
			send_text(f, fd, "POST /x HTTP/1.1\r\nContent-Length: 9\r\n\r\n{");
		if (i % 2)
			step(f);
		close(fd);
	}
	STEP_UNTIL(f, httpd_counters(f->httpd)->open_connections == 0);
	assert_int_equal(count_fds(), before);
	assert_int_equal(httpd_counters(f->httpd)->requests, 1);
	expect_exchange(f, "POST /alive HTTP/1.1\r\n\r\n", "200", "");
}

static void reopen(struct fixture *f)
{
	httpd_close(f->httpd);
	open_httpd(f);
}

static void connections_over_the_limit_get_503(void **state)
{
	struct fixture *f = *state;
	int fds[4];

	f->config.connections_max = 4;
	reopen(f);
	for (int i = 0; i < 4; i++)
		fds[i] = dial(f);
	STEP_UNTIL(f, httpd_counters(f->httpd)->open_connections == 4);
	expect_exchange(f, "POST /x HTTP/1.1\r\n\r\n", "503", "too many connections; try again soon\n");
	assert_int_equal(httpd_counters(f->httpd)->refused, 1);
	close(fds[0]);
	STEP_UNTIL(f, httpd_counters(f->httpd)->open_connections == 3);
	expect_exchange(f, "POST /x HTTP/1.1\r\n\r\n", "200", "");
	for (int i = 1; i < 4; i++)
		close(fds[i]);
	STEP_UNTIL(f, httpd_counters(f->httpd)->open_connections == 0);
}

static void running_out_of_descriptors_is_survived(void **state)
{
	struct fixture *f = *state;
	struct rlimit limit, tight;
	unsigned rounds = 0;
	uint64_t start;
	int fd = dial(f), highest = dup(fd);
	char *reply;

	close(highest);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	tight = (struct rlimit){.rlim_cur = (rlim_t)highest, .rlim_max = limit.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	send_text(f, fd, "POST /x HTTP/1.1\r\n\r\n");
	start = now_ms();
	while (now_ms() - start < 50) { /* the loop has nothing to do meanwhile: it does not try again and again */
		event_base_loop(f->base, EVLOOP_ONCE);
		rounds++;
	}
	assert_true(rounds < 10);
	assert_int_equal(httpd_counters(f->httpd)->open_connections, 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	reply = read_all(f, fd, NULL);
	expect_status(reply, "200");
	free(reply);
}

static void trickling_request_is_cut_off(void **state)
{
	struct fixture *f = *state;
	uint64_t start;
	int fd;

	f->config.request_timeout_ms = 50;
	reopen(f);
	fd = dial(f);
	start = now_ms();
	send_text(f, fd, "POST /x HTTP/1.1\r\nX: ");
	STEP_UNTIL(f, httpd_counters(f->httpd)->open_connections == 1);
	while (httpd_counters(f->httpd)->open_connections) { /* a byte in each round does not help */
		send(fd, "a", 1, MSG_NOSIGNAL);
		wait_for(f, -1, 0, start + DEADLINE_MS);
	}
	assert_true(now_ms() - start >= 50);
	assert_int_equal(httpd_counters(f->httpd)->refused, 1);
	close(fd);
}

static void handling_may_take_longer_than_the_request_timeout(void **state)
{
	struct fixture *f = *state;
	uint64_t start;
	char *reply;
	int fd;

	f->config.request_timeout_ms = 50;
	reopen(f);
	fd = dial(f);
	send_text(f, fd, "POST /hold HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody");
	STEP_UNTIL(f, f->held_count == 1);
	start = now_ms();
	STEP_UNTIL(f, now_ms() - start > 150);
	assert_false(httpd_gone(f->held[0]));
	httpd_reply(f->held[0], 200, "done", 4);
	f->held[0] = NULL;
	reply = read_all(f, fd, NULL);
	expect_status(reply, "200");
	expect_body(reply, "done");
	free(reply);
}

static void client_that_does_not_take_its_reply_is_cut_off(void **state)
{
	struct fixture *f = *state;
	char *big = calloc(1, HTTPD_BODY_MAX);
	int fd;

	f->config.request_timeout_ms = 50;
	reopen(f);
	fd = dial(f);
	send_text(f, fd, "POST /hold HTTP/1.1\r\n\r\n");
	STEP_UNTIL(f, f->held_count == 1);
	httpd_reply(f->held[0], 200, big, HTTPD_BODY_MAX);
	f->held[0] = NULL;
	free(big);
	STEP_UNTIL(f, httpd_counters(f->httpd)->open_connections == 0);
	close(fd);
}

static void one_slow_request_holds_up_no_other(void **state)
{
	struct fixture *f = *state;
	int slow = dial(f);
	char *reply;

	send_text(f, slow, "POST /hold HTTP/1.1\r\n\r\n");
	STEP_UNTIL(f, f->held_count == 1);
	for (int i = 0; i < 100; i++)
		expect_exchange(f, "POST /quick HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", "200", "{}");
	httpd_reply(f->held[0], 200, "slow", 4);
	f->held[0] = NULL;
	reply = read_all(f, slow, NULL);
	expect_body(reply, "slow");
	free(reply);
}

/* -- hanging up -- */

static void hang_up_is_noticed_and_late_reply_is_harmless(void **state)
{
	struct fixture *f = *state;
	unsigned before = count_fds();
	size_t len = 0;
	int fd = dial(f);

	send_text(f, fd, "POST /hold HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody");
	STEP_UNTIL(f, f->held_count == 1);
	assert_false(httpd_gone(f->held[0]));
	close(fd);
	STEP_UNTIL(f, f->gone_count == 1);
	assert_true(httpd_gone(f->held[0]));
	assert_int_equal(httpd_counters(f->httpd)->open_connections, 0);
	assert_int_equal(count_fds(), before);
	assert_memory_equal(httpd_body(f->held[0], &len), "body", 4); /* still the handler's */
	assert_string_equal(httpd_path(f->held[0]), "/hold");
	httpd_on_gone(f->held[0], on_gone, f); /* asked too late: told at once */
	assert_int_equal(f->gone_count, 2);
	httpd_reply(f->held[0], 200, "late", 4);
	f->held[0] = NULL;
	expect_exchange(f, "POST /alive HTTP/1.1\r\n\r\n", "200", "");
	assert_int_equal(f->gone_count, 2);
}

static void client_that_ended_its_sending_side_gets_its_reply(void **state)
{
	struct fixture *f = *state;
	int fd = dial(f);
	char *reply;

	send_text(f, fd, "POST /hold HTTP/1.1\r\n\r\n");
	shutdown(fd, SHUT_WR);
	STEP_UNTIL(f, f->held_count == 1);
	for (int i = 0; i < 20; i++)
		step(f);
	assert_false(httpd_gone(f->held[0]));
	httpd_reply(f->held[0], 200, "here", 4);
	f->held[0] = NULL;
	reply = read_all(f, fd, NULL);
	expect_status(reply, "200");
	expect_body(reply, "here");
	free(reply);
	assert_int_equal(f->gone_count, 0);
}

static void hang_up_with_unread_bytes_is_noticed(void **state)
{
	struct fixture *f = *state;
	int fd = dial(f);

	/* the 100 that we send stays unread, so the close is a reset */
	send_text(f, fd, "POST /hold HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
	STEP_UNTIL(f, recv(fd, (char[1]){0}, 1, MSG_PEEK) == 1);
	send_text(f, fd, "body");
	STEP_UNTIL(f, f->held_count == 1);
	close(fd);
	STEP_UNTIL(f, f->gone_count == 1);
	httpd_reply(f->held[0], 200, "late", 4);
	f->held[0] = NULL;
}

static void hang_up_right_behind_the_request(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 8; i++) {
		int fd = dial(f);

		send_text(f, fd, "POST /hold HTTP/1.1\r\n\r\n");
		close(fd);
	}
	STEP_UNTIL(f, f->gone_count == 8);
	assert_int_equal(f->held_count, 8);
	assert_int_equal(httpd_counters(f->httpd)->open_connections, 0);
}

static void replying_to_one_who_hangs_up_meanwhile(void **state)
{
	struct fixture *f = *state;
	char *big = calloc(1, HTTPD_BODY_MAX);

	for (int i = 0; i < 8; i++) { /* the reply is under way when the client closes, with and without a step between */
		int fd = dial(f);

		send_text(f, fd, "POST /hold HTTP/1.1\r\n\r\n");
		STEP_UNTIL(f, f->held_count == 1);
		if (i & 1)
			close(fd);
		httpd_reply(f->held[0], 200, big, HTTPD_BODY_MAX);
		f->held_count = 0;
		if (i & 2)
			step(f);
		if (!(i & 1))
			close(fd);
		STEP_UNTIL(f, httpd_counters(f->httpd)->open_connections == 0);
	}
	free(big);
	assert_int_equal(f->gone_count, 0);
}

static void reply_from_within_gone(void *arg)
{
	struct fixture *f = arg;

	f->gone_count++;
	httpd_reply(f->held[0], 200, "late", 4);
	f->held[0] = NULL;
}

static void gone_callback_may_reply(void **state)
{
	struct fixture *f = *state;
	int fd = dial(f);

	send_text(f, fd, "POST /hold HTTP/1.1\r\n\r\n");
	STEP_UNTIL(f, f->held_count == 1);
	httpd_on_gone(f->held[0], reply_from_within_gone, f);
	close(fd);
	STEP_UNTIL(f, f->gone_count == 1);
	assert_null(f->held[0]);
}

static void closing_the_server_drops_open_requests(void **state)
{
	struct fixture *f = *state;
	int fd = dial(f), idle = dial(f), fresh;

	send_text(f, fd, "POST /hold HTTP/1.1\r\n\r\n");
	STEP_UNTIL(f, f->held_count == 1);
	fresh = dial(f); /* not accepted yet */
	httpd_close(f->httpd);
	f->httpd = NULL;
	assert_int_equal(f->gone_count, 1);
	assert_true(httpd_gone(f->held[0]));
	assert_int_equal(access(f->path, F_OK), -1);
	httpd_reply(f->held[0], 200, "late", 4);
	f->held[0] = NULL;
	free(read_all(f, fd, NULL));
	free(read_all(f, idle, NULL));
	close(fresh);
}

/* -- the socket -- */

static void stale_socket_is_replaced(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	httpd_close(f->httpd);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", f->path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd); /* what kill -9 leaves */
	assert_int_equal(access(f->path, F_OK), 0);
	open_httpd(f);
	expect_exchange(f, "POST /x HTTP/1.1\r\n\r\n", "200", "");
}

static void live_socket_is_refused(void **state)
{
	struct fixture *f = *state;
	struct httpd *second = NULL;
	struct err err = {0};

	assert_int_equal(httpd_open(f->base, &f->config, &second, &err), -1);
	assert_int_equal(err.code, ERR_EXISTS);
	assert_non_null(strstr(err.text, f->path));
	assert_non_null(strstr(err.text, "another process answers"));
	assert_null(second);
	expect_exchange(f, "POST /x HTTP/1.1\r\n\r\n", "200", "");
}

static void other_files_are_not_replaced(void **state)
{
	struct fixture *f = *state;
	struct httpd *second = NULL;
	struct err err = {0};
	char path[96];

	snprintf(path, sizeof(path), "%s/file", f->dir);
	close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	f->config.path = path;
	assert_int_equal(httpd_open(f->base, &f->config, &second, &err), -1);
	assert_int_equal(err.code, ERR_EXISTS);
	assert_int_equal(access(path, F_OK), 0);
	unlink(path);
	f->config.path = "/nonexistent/dir/s";
	assert_int_equal(httpd_open(f->base, &f->config, &second, &err), -1);
	assert_int_equal(err.code, ERR_SYSTEM);
	assert_int_equal(err.sys_errno, ENOENT);
	f->config.path =
		"/tmp/"
		"a-path-that-is-longer-than-the-108-bytes-which-the-kernel-has-for-the-name-of-a-unix-socket-and-then-some-more";
	assert_int_equal(httpd_open(f->base, &f->config, &second, &err), -1);
	assert_int_equal(err.code, ERR_INVALID);
	assert_null(second);
}

static void mode_is_as_asked_whatever_the_umask(void **state)
{
	struct fixture *f = *state;
	mode_t old = umask(0077);
	struct stat st;

	f->config.mode = 0660;
	reopen(f);
	umask(old);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
}

static void socket_of_a_successor_is_left_alone(void **state)
{
	struct fixture *f = *state;
	struct httpd *old = f->httpd;

	unlink(f->path);
	open_httpd(f);
	httpd_close(old);
	expect_exchange(f, "POST /x HTTP/1.1\r\n\r\n", "200", "");
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(request_as_the_engine_sends_it),
		CASE(host_is_never_judged),
		CASE(empty_body_is_empty),
		CASE(status_is_the_handlers),
		CASE(bytes_of_the_body_arrive_as_they_are),
		CASE(one_byte_at_a_time),
		CASE(chunked_body_is_joined),
		CASE(largest_body_passes_and_comes_back),
		CASE(path_and_query_are_decoded),
		CASE(http_1_0_client_gets_a_close_too),
		CASE(second_request_on_a_connection_is_not_served),
		CASE(wrong_method_gets_405),
		CASE(what_is_no_request_gets_400),
		CASE(too_many_header_bytes_get_400),
		CASE(too_large_body_gets_413),
		CASE(connect_and_close_leaks_nothing),
		CASE(connections_over_the_limit_get_503),
		CASE(running_out_of_descriptors_is_survived),
		CASE(trickling_request_is_cut_off),
		CASE(handling_may_take_longer_than_the_request_timeout),
		CASE(client_that_does_not_take_its_reply_is_cut_off),
		CASE(one_slow_request_holds_up_no_other),
		CASE(hang_up_is_noticed_and_late_reply_is_harmless),
		CASE(client_that_ended_its_sending_side_gets_its_reply),
		CASE(hang_up_with_unread_bytes_is_noticed),
		CASE(hang_up_right_behind_the_request),
		CASE(replying_to_one_who_hangs_up_meanwhile),
		CASE(gone_callback_may_reply),
		CASE(closing_the_server_drops_open_requests),
		CASE(stale_socket_is_replaced),
		CASE(live_socket_is_refused),
		CASE(other_files_are_not_replaced),
		CASE(mode_is_as_asked_whatever_the_umask),
		CASE(socket_of_a_successor_is_left_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

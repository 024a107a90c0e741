/* The control server, with a backend that writes down what it was asked, and the client against it: both ends as they run. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/log.h"
#include "control/client.h"
#include "control/control.h"

#define TIMEOUT_MS 5000
#define ROWS 50000

/* The server runs in a thread of its own, since the client blocks. Fields are touched by the server while a call runs, by the
 * test between calls. */
struct fixture {
	pthread_t thread;
	struct event_base *base;
	struct event *stop;
	int stop_pipe[2];
	struct control *control;
	char dir[64], path[96];
	char seen[1024]; /* "" nothing */
	struct err fail; /* answer with this unless ERR_OK */
	bool late;	 /* answer from another turn of the loop */
	json_t *answer;	 /* NULL: {"ok": true} */
};

struct late {
	struct fixture *f;
	struct control_call *call;
};

static const char *const verbs[] = {
	[CONTROL_STATUS] = "status",
	[CONTROL_VERSION] = "version",
	[CONTROL_MEMBERS] = "members",
	[CONTROL_NETWORKS] = "networks",
	[CONTROL_NETWORK_CREATE] = "network-create",
	[CONTROL_NETWORK_INSPECT] = "network-inspect",
	[CONTROL_NETWORK_RM] = "network-rm",
	[CONTROL_ENDPOINTS] = "endpoints",
	[CONTROL_ENDPOINT_INSPECT] = "endpoint-inspect",
	[CONTROL_IPAM] = "ipam",
	[CONTROL_TOKEN] = "token",
	[CONTROL_JOIN] = "join",
	[CONTROL_LEAVE] = "leave",
	[CONTROL_FREEZE] = "freeze",
	[CONTROL_THAW] = "thaw",
	[CONTROL_FORGET] = "forget",
	[CONTROL_AUDIT] = "audit",
};

static void reply(struct fixture *f, struct control_call *call)
{
	if (f->fail.code)
		control_fail(call, &f->fail);
	else
		control_done(call, f->answer ? json_incref(f->answer) : json_pack("{s:b}", "ok", 1));
}

static void reply_late(evutil_socket_t fd, short what, void *arg)
{
	struct late *late = arg;

	(void)fd;
	(void)what;
	reply(late->f, late->call);
	free(late);
}

static void handle(void *ctx, struct control_call *call, const struct control_request *request)
{
	char *body = request->body ? json_dumps(request->body, JSON_COMPACT) : NULL;
	const struct timeval now = {0};
	struct fixture *f = ctx;
	struct late *late;

	snprintf(f->seen, sizeof f->seen, "%s object=%s filter=%s body=%s", verbs[request->verb],
		request->object ? request->object : "-", request->filter ? request->filter : "-", body ? body : "-");
	free(body);
	if (!f->late) {
		reply(f, call);
		return;
	}
	late = malloc(sizeof *late);
	assert_non_null(late);
	*late = (struct late){.f = f, .call = call};
	assert_int_equal(event_base_once(f->base, -1, EV_TIMEOUT, reply_late, late, &now), 0);
}

static const struct control_backend backend = {.handle = handle};

static void on_stop(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	event_base_loopbreak(arg);
}

static void *serve(void *arg)
{
	event_base_dispatch(((struct fixture *)arg)->base);
	return NULL;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct err err;

	assert_non_null(f);
	log_set_level(LOG_LEVEL_ERROR);
	snprintf(f->dir, sizeof f->dir, "/tmp/trestle-control.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof f->path, "%s/run/trestled.sock", f->dir);
	f->base = event_base_new();
	assert_return_code(pipe(f->stop_pipe), errno);
	f->stop = event_new(f->base, f->stop_pipe[0], EV_READ, on_stop, f->base);
	event_add(f->stop, NULL);
	if (control_open(f->base, f->path, &backend, f, &f->control, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(pthread_create(&f->thread, NULL, serve, f), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char sub[96];

	assert_int_equal(write(f->stop_pipe[1], "x", 1), 1);
	pthread_join(f->thread, NULL);
	control_close(f->control);
	event_free(f->stop);
	event_base_free(f->base);
	close(f->stop_pipe[0]);
	close(f->stop_pipe[1]);
	json_decref(f->answer);
	snprintf(sub, sizeof sub, "%s/run", f->dir);
	assert_return_code(rmdir(sub), errno); /* the socket is gone, too */
	rmdir(f->dir);
	free(f);
	return 0;
}

static json_t *call(struct fixture *f, const char *method, const char *path, const char *body, struct err *err)
{
	json_t *parsed = body ? json_loads(body, 0, NULL) : NULL, *answer;

	f->seen[0] = '\0';
	answer = client_call(f->path, method, path, parsed, TIMEOUT_MS, err);
	json_decref(parsed);
	return answer;
}

static void assert_contains(const char *text, const char *fragment)
{
	if (!strstr(text, fragment))
		fail_msg("expected \"%s\" in: %s", fragment, text);
}

static int connect_to(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(addr.sun_path, path, strlen(path));
	assert_return_code(connect(fd, (struct sockaddr *)&addr, sizeof addr), errno);
	return fd;
}

/* Sends bytes as they are, returns the HTTP status and keeps the answer in `buf`. */
static int raw(struct fixture *f, const char *request, char *buf, size_t size)
{
	int fd = connect_to(f->path), status = 0;
	size_t len = 0;
	ssize_t n;

	f->seen[0] = '\0';
	assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
	while (len < size - 1 && (n = recv(fd, buf + len, size - 1 - len, 0)) > 0)
		len += n;
	buf[len] = '\0';
	close(fd);
	assert_int_equal(sscanf(buf, "HTTP/1.1 %d", &status), 1);
	return status;
}

/* ---- routes ---- */

static void each_route_reaches_its_verb(void **state)
{
	static const struct {
		const char *method, *path, *body, *seen;
	} cases[] = {
		{"GET", "/v1/status", NULL, "status object=- filter=- body=-"},
		{"GET", "/v1/version", NULL, "version object=- filter=- body=-"},
		{"GET", "/v1/members", NULL, "members object=- filter=- body=-"},
		{"GET", "/v1/networks", NULL, "networks object=- filter=- body=-"},
		{"GET", "/v1/networks/app", NULL, "network-inspect object=app filter=- body=-"},
		{"DELETE", "/v1/networks/my%20app", NULL, "network-rm object=my app filter=- body=-"},
		{"GET", "/v1/endpoints", NULL, "endpoints object=- filter=- body=-"},
		{"GET", "/v1/endpoints?network=a%26b", NULL, "endpoints object=- filter=a&b body=-"},
		{"GET", "/v1/endpoints/2001%3Adb8%3A%3A5", NULL, "endpoint-inspect object=2001:db8::5 filter=- body=-"},
		{"GET", "/v1/ipam", NULL, "ipam object=- filter=- body=-"},
		{"GET", "/v1/ipam?pool=10.9.0.0%2F24", NULL, "ipam object=- filter=10.9.0.0/24 body=-"},
		{"POST", "/v1/networks", "{\"name\":\"app\"}", "network-create object=- filter=- body={\"name\":\"app\"}"},
		{"POST", "/v1/networks",
			"{\"name\":\"a.b-c_d\",\"subnet\":\"10.9.0.0/24\",\"subnet6\":\"2001:db8::/"
			"64\",\"mtu\":576,\"vni\":16777215,"
			"\"internal\":true}",
			"network-create object=- filter=- "
			"body={\"name\":\"a.b-c_d\",\"subnet\":\"10.9.0.0/24\",\"subnet6\":\"2001:db8::/64\","
			"\"mtu\":576,\"vni\":16777215,\"internal\":true}"},
		{"POST", "/v1/token", NULL, "token object=- filter=- body={}"},
		{"POST", "/v1/token", "{\"ttl_s\":600}", "token object=- filter=- body={\"ttl_s\":600}"},
		{"POST", "/v1/join", "{\"token\":\"trestle1.x\"}", "join object=- filter=- body={\"token\":\"trestle1.x\"}"},
		{"POST", "/v1/leave", "{\"force\":true}", "leave object=- filter=- body={\"force\":true}"},
		{"POST", "/v1/freeze", "{\"reason\":\"ask Kim\"}", "freeze object=- filter=- body={\"reason\":\"ask Kim\"}"},
		{"POST", "/v1/freeze", NULL, "freeze object=- filter=- body={}"},
		{"POST", "/v1/thaw", NULL, "thaw object=- filter=- body={}"},
		{"POST", "/v1/leave", NULL, "leave object=- filter=- body={}"},
		{"GET", "/v1/ipam/check", NULL, "audit object=- filter=- body=-"},
		{"POST", "/v1/forget", "{\"host\":\"n3\",\"fenced\":true,\"assume_fenced\":[\"n4\"]}",
			"forget object=- filter=- body={\"host\":\"n3\",\"fenced\":true,\"assume_fenced\":[\"n4\"]}"},
	};
	struct fixture *f = *state;
	struct err err;
	size_t i;

	for (i = 0; i < 2 * (sizeof cases / sizeof *cases); i++) {
		size_t k = i / 2;
		json_t *answer;

		f->late = i % 2;
		answer = call(f, cases[k].method, cases[k].path, cases[k].body, &err);
		if (!answer)
			fail_msg("%s %s: %s", cases[k].method, cases[k].path, err.text);
		assert_true(json_is_true(json_object_get(answer, "ok")));
		assert_string_equal(f->seen, cases[k].seen);
		json_decref(answer);
	}
}

static void wrong_requests_reach_no_backend(void **state)
{
	static const struct {
		const char *method, *path, *body;
		enum err_code code;
		const char *fragment;
	} cases[] = {
		{"GET", "/", NULL, ERR_NOT_FOUND, "/ is not a path of this version"},
		{"GET", "/v2/status", NULL, ERR_NOT_FOUND, "/v2/status is not a path of this version"},
		{"GET", "/v1/status/", NULL, ERR_NOT_FOUND, "/v1/status/"},
		{"GET", "/v1/networks/", NULL, ERR_NOT_FOUND, "/v1/networks/"},
		{"GET", "/v1/networks/a/b", NULL, ERR_NOT_FOUND, "/v1/networks/a/b"},
		{"GET", "/v1/networks/a%2Fb", NULL, ERR_NOT_FOUND, "/v1/networks/a/b"},
		{"DELETE", "/v1/networks", NULL, ERR_INVALID, "/v1/networks does not take this method"},
		{"POST", "/v1/status", "{}", ERR_INVALID, "/v1/status does not take this method"},
		{"GET", "/v1/token", NULL, ERR_INVALID, "/v1/token does not take this method"},
		{"GET", "/v1/status", "{}", ERR_INVALID, "expected no body, found 2 bytes"},
		{"DELETE", "/v1/networks/app", "{}", ERR_INVALID, "expected no body"},
		{"POST", "/v1/networks", NULL, ERR_INVALID, "network.name: expected string, found nothing"},
		{"POST", "/v1/networks", "[]", ERR_INVALID, "body: expected object, found array"},
		{"POST", "/v1/networks", "{\"name\":5}", ERR_INVALID, "network.name: expected string, found integer"},
		{"POST", "/v1/networks", "{\"name\":\"\"}", ERR_INVALID, "network.name: expected 1 to 63"},
		{"POST", "/v1/networks", "{\"name\":\"-a\"}", ERR_INVALID, "found \"-a\""},
		{"POST", "/v1/networks", "{\"name\":\"a/b\"}", ERR_INVALID, "found \"a/b\""},
		{"POST", "/v1/networks", "{\"name\":\"a\",\"intrenal\":true}", ERR_INVALID,
			"network.intrenal: no such member is known"},
		{"POST", "/v1/networks", "{\"name\":\"a\",\"subnet\":\"10.9.0.0\"}", ERR_INVALID, "network.subnet"},
		{"POST", "/v1/networks", "{\"name\":\"a\",\"subnet\":\"2001:db8::/64\"}", ERR_INVALID, "expected an IPv4 prefix"},
		{"POST", "/v1/networks", "{\"name\":\"a\",\"subnet6\":\"10.9.0.0/24\"}", ERR_INVALID, "expected an IPv6 prefix"},
		{"POST", "/v1/networks", "{\"name\":\"a\",\"mtu\":575}", ERR_INVALID,
			"network.mtu: expected 576 to 65535, found 575"},
		{"POST", "/v1/networks", "{\"name\":\"a\",\"mtu\":\"1450\"}", ERR_INVALID, "network.mtu: expected integer"},
		{"POST", "/v1/networks", "{\"name\":\"a\",\"vni\":16777216}", ERR_INVALID, "network.vni"},
		{"POST", "/v1/networks", "{\"name\":\"a\",\"internal\":1}", ERR_INVALID, "network.internal: expected boolean"},
		{"POST", "/v1/token", "{\"ttl_s\":0}", ERR_INVALID, "token.ttl_s"},
		{"POST", "/v1/token", "{\"ttl\":60}", ERR_INVALID, "token.ttl: no such member is known"},
		{"POST", "/v1/join", "{}", ERR_INVALID, "join.token: expected string, found nothing"},
		{"POST", "/v1/join", "{\"token\":\"\"}", ERR_INVALID, "join.token: expected what `trestle token` printed"},
		{"POST", "/v1/leave", "{\"force\":\"yes\"}", ERR_INVALID, "leave.force: expected boolean"},
		{"POST", "/v1/freeze", "{\"reason\":\"two\\nlines\"}", ERR_INVALID, "freeze.reason: expected one line of text"},
		{"POST", "/v1/thaw", "{\"now\":true}", ERR_INVALID, "thaw"},
		{"POST", "/v1/forget", "{\"fenced\":true}", ERR_INVALID, "forget.host: expected string, found nothing"},
		{"POST", "/v1/forget", "{\"host\":\"\"}", ERR_INVALID, "forget.host: expected the name or number of a host"},
		{"POST", "/v1/forget", "{\"host\":\"n3\",\"fenced\":1}", ERR_INVALID, "forget.fenced: expected boolean"},
		{"POST", "/v1/forget", "{\"host\":\"n3\",\"assume_fenced\":[4]}", ERR_INVALID,
			"forget.assume_fenced: expected names"},
	};
	struct fixture *f = *state;
	struct err err;
	size_t i;

	for (i = 0; i < sizeof cases / sizeof *cases; i++) {
		json_t *answer = call(f, cases[i].method, cases[i].path, cases[i].body, &err);

		if (answer || err.code != cases[i].code)
			fail_msg("%s %s %s: code %d, %s", cases[i].method, cases[i].path, cases[i].body ? cases[i].body : "",
				err.code, answer ? "answered" : err.text);
		assert_contains(err.text, cases[i].fragment);
		assert_string_equal(f->seen, "");
	}
}

static void long_objects_and_tokens_are_refused(void **state)
{
	char path[512], name[201], body[1024], token[601];
	struct fixture *f = *state;
	struct err err;

	memset(name, 'a', 200);
	name[200] = '\0';
	snprintf(path, sizeof path, "/v1/networks/%s", name);
	assert_null(call(f, "GET", path, NULL, &err));
	assert_contains(err.text, "at most 128 bytes");
	snprintf(path, sizeof path, "/v1/endpoints?network=%s", name);
	assert_null(call(f, "GET", path, NULL, &err));
	assert_contains(err.text, "at most 128 bytes");
	memset(token, 'a', 600);
	token[600] = '\0';
	snprintf(body, sizeof body, "{\"token\":\"%s\"}", token);
	assert_null(call(f, "POST", "/v1/join", body, &err));
	assert_contains(err.text, "join.token: expected at most 511 bytes, found 600");
	snprintf(body, sizeof body, "{\"name\":\"%.64s\"}", name);
	assert_null(call(f, "POST", "/v1/networks", body, &err));
	assert_contains(err.text, "network.name: expected at most 63 bytes, found 64");
	assert_string_equal(f->seen, "");
}

static void each_error_code_has_its_status_and_comes_back(void **state)
{
	static const struct {
		enum err_code code;
		int status;
	} cases[] = {{ERR_INVALID, 400}, {ERR_TOO_BIG, 400}, {ERR_UNSUPPORTED, 400}, {ERR_DENIED, 403}, {ERR_NOT_FOUND, 404},
		{ERR_EXISTS, 409}, {ERR_CONFLICT, 409}, {ERR_UNREACHABLE, 503}, {ERR_EXHAUSTED, 503}, {ERR_SYSTEM, 500},
		{ERR_CORRUPT, 500}, {ERR_VERSION, 500}, {ERR_INTERNAL, 500}};
	struct fixture *f = *state;
	char buf[4096], expected[128];
	int saved = dup(2), silent;
	struct err err;
	size_t i;

	/* Internal errors are logged; not into the output of the test. */
	silent = open("/dev/null", O_WRONLY);
	dup2(silent, 2);
	for (i = 0; i < sizeof cases / sizeof *cases; i++) {
		err_set(&f->fail, cases[i].code, "object %zu: expected x, found y", i);
		assert_int_equal(raw(f, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", buf, sizeof buf), cases[i].status);
		snprintf(expected, sizeof expected,
			"{\"error\":{\"code\":\"%s\",\"message\":\"object %zu: expected x, found y\"}}",
			err_code_name(cases[i].code), i);
		assert_contains(buf, expected);
		assert_null(call(f, "GET", "/v1/status", NULL, &err));
		assert_int_equal(err.code, cases[i].code);
		assert_string_equal(err.text, f->fail.text);
	}
	dup2(saved, 2);
	close(saved);
	close(silent);
}

static void other_methods_get_405(void **state)
{
	struct fixture *f = *state;
	char buf[4096];

	assert_int_equal(raw(f, "PUT /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", buf, sizeof buf), 405);
	assert_int_equal(raw(f, "DELETE /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", buf, sizeof buf), 405);
	assert_contains(buf, "{\"error\":{\"code\":\"invalid\"");
	assert_int_equal(raw(f, "GET /v1/nope HTTP/1.1\r\nHost: x\r\n\r\n", buf, sizeof buf), 404);
	assert_string_equal(f->seen, "");
}

static void malformed_json_says_where(void **state)
{
	struct fixture *f = *state;
	char buf[4096];

	assert_int_equal(
		raw(f, "POST /v1/networks HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n{\"name\":", buf, sizeof buf), 400);
	assert_contains(buf, "body: line 1 column");
	assert_int_equal(
		raw(f, "POST /v1/leave HTTP/1.1\r\nHost: x\r\nContent-Length: 29\r\n\r\n{\"force\":true,\"force\":false}\n", buf,
			sizeof buf),
		400);
	assert_contains(buf, "duplicate");
	assert_string_equal(f->seen, "");
}

/* No name gets in that could not be saved, published and shown again. */
static void names_that_are_no_utf8_are_refused(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
	} hostile[] = {{"\xff", 1}, {"\xc3", 1}, {"\xc0\x80", 2}, {"\xe0\x80\xaf", 3}, {"\xed\xa0\x80", 3},
		{"\xf4\x90\x80\x80", 4}, {"\0", 1}, {"\\u0000", 6}, {"\\ud800", 6}};
	static const char *const members[] = {"config", "container_id", "ifname"};
	json_t *body = NULL;
	struct err err;

	(void)state;
	for (size_t i = 0; i < 3 * sizeof(hostile) / sizeof(hostile[0]); i++) {
		char text[256], *end = text + sizeof(text), *at = text;

		at += snprintf(at, end - at, "{");
		for (size_t m = 0; m < 3; m++) {
			at += snprintf(at, end - at, "%s\"%s\":\"a", m ? "," : "", members[m]);
			if (m == i % 3) {
				memcpy(at, hostile[i / 3].bytes, hostile[i / 3].len);
				at += hostile[i / 3].len;
			}
			at += snprintf(at, end - at, "\"");
		}
		at += snprintf(at, end - at, "}");
		assert_int_equal(control_body(CONTROL_CNI_DEL, text, at - text, &body, &err), -1);
		assert_int_equal(err.code, ERR_INVALID);
		assert_contains(err.text, "body: line 1 column");
	}
	assert_null(body);
}

static void texts_that_are_no_utf8_are_still_told(void **state)
{
	struct fixture *f = *state;
	struct err err;

	err_set(&f->fail, ERR_CONFLICT, "name \"a\xc3\" is taken");
	assert_null(call(f, "GET", "/v1/status", NULL, &err));
	assert_string_equal(err.text, "name \"a?\" is taken");
}

static void long_answers_arrive_whole(void **state)
{
	struct fixture *f = *state;
	json_t *rows = json_array(), *answer;
	struct err err;
	int i;

	for (i = 0; i < ROWS; i++)
		json_array_append_new(rows, json_pack("{s:s, s:i}", "id", "0123456789abcdef0123456789abcdef", "n", i));
	f->answer = json_pack("{s:o}", "endpoints", rows);
	answer = call(f, "GET", "/v1/endpoints", NULL, &err);
	assert_non_null(answer);
	assert_true(json_equal(answer, f->answer));
	json_decref(answer);
}

static void socket_is_for_root_alone(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	assert_return_code(stat(f->path, &st), errno);
	assert_int_equal(st.st_mode & 0777, 0600);
}

/* ---- the client alone ---- */

static void client_says_when_there_is_no_daemon(void **state)
{
	char long_path[300];
	struct err err;

	(void)state;
	assert_null(client_call("/nonexistent/s", "GET", "/v1/status", NULL, TIMEOUT_MS, &err));
	assert_int_equal(err.code, ERR_UNREACHABLE);
	assert_contains(err.text,
		"no daemon answers at /nonexistent/s (No such file or directory): start it (`systemctl start trestled`)");
	memset(long_path, 'a', sizeof long_path - 1);
	long_path[sizeof long_path - 1] = '\0';
	assert_null(client_call(long_path, "GET", "/v1/status", NULL, TIMEOUT_MS, &err));
	assert_int_equal(err.code, ERR_INVALID);
	assert_contains(err.text, "is too long: expected at most 107 bytes");
}

static int listen_at(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(addr.sun_path, path, strlen(path));
	assert_return_code(bind(fd, (struct sockaddr *)&addr, sizeof addr), errno);
	assert_return_code(listen(fd, 1), errno);
	return fd;
}

static void client_gives_up_at_its_deadline(void **state)
{
	char dir[] = "/tmp/trestle-client.XXXXXX", path[64];
	struct err err;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/s", dir);
	fd = listen_at(path);
	assert_null(client_call(path, "GET", "/v1/status", NULL, 30, &err));
	assert_int_equal(err.code, ERR_UNREACHABLE);
	assert_contains(err.text, "did not answer within 30 ms");
	close(fd);
	/* A socket file that outlived its daemon */
	assert_null(client_call(path, "GET", "/v1/status", NULL, 30, &err));
	assert_int_equal(err.code, ERR_UNREACHABLE);
	assert_contains(err.text, "the socket of one that was killed: start it");
	unlink(path);
	rmdir(dir);
}

static void client_encodes_what_a_path_cannot_hold(void **state)
{
	static const struct {
		const char *text, *encoded;
	} cases[] = {{"", ""}, {"app", "app"}, {"a b", "a%20b"}, {"10.9.0.0/24", "10.9.0.0%2F24"},
		{"2001:db8::5", "2001%3Adb8%3A%3A5"}, {"a%b?c#d&e=f+g", "a%25b%3Fc%23d%26e%3Df%2Bg"}, {"-._~", "-._~"},
		{"\xc3\xa4\r\n", "%C3%A4%0D%0A"}};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof cases / sizeof *cases; i++) {
		char *encoded = client_encode(cases[i].text);

		assert_string_equal(encoded, cases[i].encoded);
		free(encoded);
	}
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(each_route_reaches_its_verb),
		CASE(wrong_requests_reach_no_backend),
		CASE(long_objects_and_tokens_are_refused),
		CASE(each_error_code_has_its_status_and_comes_back),
		CASE(other_methods_get_405),
		CASE(malformed_json_says_where),
		CASE(names_that_are_no_utf8_are_refused),
		CASE(texts_that_are_no_utf8_are_still_told),
		CASE(long_answers_arrive_whole),
		CASE(socket_is_for_root_alone),
		cmocka_unit_test(client_says_when_there_is_no_daemon),
		cmocka_unit_test(client_gives_up_at_its_deadline),
		cmocka_unit_test(client_encodes_what_a_path_cannot_hold),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

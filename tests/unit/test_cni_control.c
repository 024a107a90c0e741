/* The control calls of trestle-cni: what a body must be, before the daemon's tables are looked at. A backend that says what it
 * was given stands for the daemon. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/client.h"
#include "control/control.h"

static char dir[64], socket_path[108];
static struct event_base *base;
static struct control *control;
static pthread_t loop;
static int stop_pipe[2];
static struct event *stop;
static unsigned handled; /* requests that were good enough for the backend */

static void echo(void *ctx, struct control_call *call, const struct control_request *request)
{
	(void)ctx;
	__atomic_add_fetch(&handled, 1, __ATOMIC_SEQ_CST);
	control_done(call,
		json_pack("{s:i, s:s?, s:O?}", "verb", (int)request->verb, "filter", request->filter, "body", request->body));
}

static void *run_loop(void *arg)
{
	(void)arg;
	event_base_dispatch(base);
	return NULL;
}

static void on_stop(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	event_base_loopbreak(base);
}

static int setup(void **state)
{
	static const struct control_backend backend = {.handle = echo};
	struct err err;

	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/trestle-test-cni-control-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(socket_path, sizeof(socket_path), "%s/s", dir);
	base = event_base_new();
	if (!base || pipe(stop_pipe) < 0)
		return -1;
	stop = event_new(base, stop_pipe[0], EV_READ, on_stop, NULL);
	if (event_add(stop, NULL) < 0 || control_open(base, socket_path, &backend, NULL, &control, &err) < 0)
		return -1;
	return pthread_create(&loop, NULL, run_loop, NULL);
}

static int teardown(void **state)
{
	(void)state;
	if (write(stop_pipe[1], "x", 1) != 1)
		return -1;
	pthread_join(loop, NULL);
	control_close(control);
	event_free(stop);
	close(stop_pipe[0]);
	close(stop_pipe[1]);
	event_base_free(base);
	unlink(socket_path);
	return rmdir(dir);
}

static json_t *post(const char *path, const char *body, struct err *err)
{
	json_t *object = json_loads(body, 0, NULL), *answer;

	assert_non_null(object);
	answer = client_call(socket_path, "POST", path, object, 5000, err);
	json_decref(object);
	return answer;
}

#define NAME "\"config\":\"net1\",\"container_id\":\"c1\",\"ifname\":\"eth0\""
#define ADD NAME ",\"netns\":\"/proc/1/fd/3\",\"network\":\"app\""

static void good_bodies_reach_the_daemon(void **state)
{
	static const struct {
		const char *path, *body;
		enum control_verb verb;
	} cases[] = {
		{"/v1/cni/add", "{" ADD "}", CONTROL_CNI_ADD},
		{"/v1/cni/add",
			"{" ADD ",\"sandbox\":\"/run/netns/x\",\"subnet\":\"10.9.0.0/24\",\"subnet6\":\"2001:db8::/"
			"64\",\"mtu\":1400,\"mode\":\"l2\","
			"\"ips\":[\"10.9.0.5\"],\"routes\":[{\"dst\":\"0.0.0.0/"
			"0\",\"gw\":\"10.9.0.1\"}],\"mac\":\"02:00:00:00:00:01\","
			"\"name\":\"n\",\"labels\":{\"a\":\"b\"},\"aliases\":[\"x\"]}",
			CONTROL_CNI_ADD},
		{"/v1/cni/add", "{" ADD ",\"address_given\":true,\"ips\":[\"10.9.0.5/24\"]}", CONTROL_CNI_ADD},
		{"/v1/cni/del", "{" NAME "}", CONTROL_CNI_DEL},
		{"/v1/cni/check", "{" NAME ",\"netns\":\"/n\",\"mac\":\"02:00:00:00:00:01\",\"ips\":[\"10.9.0.5/24\"]}",
			CONTROL_CNI_CHECK},
		{"/v1/cni/gc", "{\"config\":\"net1\",\"keep\":[{\"container_id\":\"c\",\"ifname\":\"eth0\"}]}", CONTROL_CNI_GC},
		{"/v1/ipam/allocate", "{" NAME ",\"network\":\"app\"}", CONTROL_IPAM_ALLOCATE},
		{"/v1/ipam/allocate", "{" NAME ",\"subnet\":\"10.9.0.0/24\",\"ips\":[\"10.9.0.5\"]}", CONTROL_IPAM_ALLOCATE},
		{"/v1/ipam/release", "{" NAME "}", CONTROL_IPAM_RELEASE},
		{"/v1/ipam/check", "{" NAME ",\"ips\":[\"10.9.0.5\"]}", CONTROL_IPAM_CHECK},
	};
	struct err err;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		json_t *answer = post(cases[i].path, cases[i].body, &err);

		if (!answer)
			fail_msg("%s: %s", cases[i].body, err.text);
		assert_int_equal(json_integer_value(json_object_get(answer, "verb")), cases[i].verb);
		json_decref(answer);
	}
}

static void status_takes_its_network(void **state)
{
	struct err err;
	json_t *answer = client_call(socket_path, "GET", "/v1/cni/status?network=app", NULL, 5000, &err);

	(void)state;
	assert_non_null(answer);
	assert_int_equal(json_integer_value(json_object_get(answer, "verb")), CONTROL_CNI_STATUS);
	assert_string_equal(json_string_value(json_object_get(answer, "filter")), "app");
	json_decref(answer);
}

static void bad_bodies_are_refused_by_name(void **state)
{
	static const struct {
		const char *path, *body, *fragment;
	} cases[] = {
		{"/v1/cni/add", "{}", "add.config: expected string, found nothing"},
		{"/v1/cni/add", "{\"config\":\"\"}", "add.config"},
		{"/v1/cni/add", "{\"config\":\"a:b\"}", "add.config"},
		{"/v1/cni/add", "{\"config\":\"net1\",\"container_id\":\"../x\"}", "add.container_id"},
		{"/v1/cni/add", "{\"config\":\"net1\",\"container_id\":\"c1\",\"ifname\":\"a/b\"}", "add.ifname"},
		{"/v1/cni/add", "{\"config\":\"net1\",\"container_id\":\"c1\",\"ifname\":\"0123456789abcdef\"}", "add.ifname"},
		{"/v1/cni/add", "{" NAME ",\"netns\":\"run/x\"}", "add.netns: expected an absolute path"},
		{"/v1/cni/add", "{" NAME ",\"netns\":\"/n\"}", "add.network"},
		{"/v1/cni/add", "{" NAME ",\"netns\":\"/n\",\"network\":\"a b\"}", "add.network"},
		{"/v1/cni/add", "{" ADD ",\"subnet\":\"2001:db8::/64\"}", "add.subnet"},
		{"/v1/cni/add", "{" ADD ",\"mtu\":100}", "add.mtu"},
		{"/v1/cni/add", "{" ADD ",\"mode\":\"l4\"}", "add.mode"},
		{"/v1/cni/add", "{" ADD ",\"ips\":[\"10.9.0.5/24\"]}", "add.ips"},
		{"/v1/cni/add", "{" ADD ",\"address_given\":true,\"ips\":[\"10.9.0.5\"]}", "add.ips"},
		{"/v1/cni/add", "{" ADD ",\"routes\":[{\"dst\":\"x\"}]}", "add.routes.dst"},
		{"/v1/cni/add", "{" ADD ",\"routes\":[{\"dst\":\"0.0.0.0/0\",\"via\":\"x\"}]}", "add.routes.via"},
		{"/v1/cni/add", "{" ADD ",\"mac\":\"x\"}", "add.mac"},
		{"/v1/cni/add", "{" ADD ",\"labels\":{\"a\":5}}", "add.labels"},
		{"/v1/cni/add", "{" ADD ",\"aliases\":\"x\"}", "add.aliases"},
		{"/v1/cni/add", "{" ADD ",\"netsn\":1}", "add.netsn: no such member"},
		{"/v1/cni/del", "{" NAME ",\"netns\":\"x\"}", "del.netns"},
		{"/v1/cni/check", "{" NAME "}", "check.netns"},
		{"/v1/cni/check", "{" NAME ",\"netns\":\"/n\",\"ips\":[\"10.9.0.5\"]}", "check.ips"},
		{"/v1/cni/gc", "{\"config\":\"net1\"}", "gc.keep"},
		{"/v1/cni/gc", "{\"config\":\"net1\",\"keep\":[{\"container_id\":\"c\"}]}", "gc.keep.ifname"},
		{"/v1/cni/gc", "{\"config\":\"net1\",\"keep\":[5]}", "gc.keep: expected object"},
		{"/v1/ipam/allocate", "{" NAME "}", "allocate.network"},
		{"/v1/ipam/allocate", "{" NAME ",\"network\":\"app\",\"ips\":[5]}", "allocate.ips"},
		{"/v1/ipam/release", "{" NAME ",\"network\":\"app\"}", "release.network: no such member"},
		{"/v1/ipam/check", "{" NAME ",\"ips\":{}}", "check.ips"},
	};
	unsigned before = __atomic_load_n(&handled, __ATOMIC_SEQ_CST);
	struct err err;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		json_t *answer = post(cases[i].path, cases[i].body, &err);

		if (answer || err.code != ERR_INVALID || !strstr(err.text, cases[i].fragment))
			fail_msg("%s: expected \"%s\", found %s", cases[i].body, cases[i].fragment,
				answer ? "an answer" : err.text);
	}
	assert_int_equal(__atomic_load_n(&handled, __ATOMIC_SEQ_CST), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_bodies_reach_the_daemon),
		cmocka_unit_test(status_takes_its_network),
		cmocka_unit_test(bad_bodies_are_refused_by_name),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

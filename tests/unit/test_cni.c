/* The plugin as a runtime sees it: environment and stdin in, stdout and exit status out. A thread plays the daemon: it takes one
 * request on a socket, keeps its path and body, and answers what the test says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cni/cni_internal.h"

#define ENV_MAX 16
#define OWN_NETNS "/proc/self/ns/net"

static char dir[64];	      /* of this run of the test; sockets and word for the daemon */
static char socket_path[108]; /* nobody listens there unless a test starts the daemon */

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/trestle-test-cni-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(socket_path, sizeof(socket_path), "%s/control.sock", dir);
	return 0;
}

static int teardown(void **state)
{
	char path[256];

	(void)state;
	unlink(socket_path);
	snprintf(path, sizeof(path), "%s/tombstones/net1:c1:eth0", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/tombstones", dir);
	rmdir(path);
	return rmdir(dir);
}

/* ---- the daemon ---- */

struct daemon {
	int fd;
	pthread_t thread;
	int status;
	const char *answer;
	char path[256];
	json_t *body;
};

static void *serve(void *arg)
{
	struct daemon *daemon = arg;
	int fd = accept(daemon->fd, NULL, NULL);
	char buf[16384], *body, *length;
	size_t len = 0, need = SIZE_MAX;

	close(daemon->fd); /* one call, and then nobody is there: who asks again is refused, not left waiting */
	while (len < need) {
		ssize_t n = recv(fd, buf + len, sizeof(buf) - 1 - len, 0);

		if (n <= 0)
			break;
		len += (size_t)n;
		buf[len] = '\0';
		body = strstr(buf, "\r\n\r\n");
		length = strstr(buf, "Content-Length: ");
		if (body && length)
			need = (size_t)(body + 4 - buf) + strtoul(length + 16, NULL, 10);
	}
	sscanf(buf, "%*s %255s", daemon->path);
	body = strstr(buf, "\r\n\r\n");
	daemon->body = body ? json_loads(body + 4, 0, NULL) : NULL;
	dprintf(fd, "HTTP/1.1 %d Said\r\nContent-Length: %zu\r\n\r\n%s", daemon->status, strlen(daemon->answer), daemon->answer);
	close(fd);
	return NULL;
}

static void daemon_start(struct daemon *daemon, int status, const char *answer)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	*daemon = (struct daemon){.status = status, .answer = answer};
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", socket_path);
	daemon->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(daemon->fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(daemon->fd, 4), 0);
	assert_int_equal(pthread_create(&daemon->thread, NULL, serve, daemon), 0);
}

/* Waits until the request has been answered. */
static void daemon_join(struct daemon *daemon)
{
	assert_int_equal(pthread_join(daemon->thread, NULL), 0);
	unlink(socket_path);
}

static void daemon_fini(struct daemon *daemon)
{
	json_decref(daemon->body);
}

/* ---- one run ---- */

struct outcome {
	int status;
	char *text; /* stdout as it came */
	json_t *answer;
	unsigned code;
	const char *msg, *details;
};

static int stdin_with(const char *text, size_t len)
{
	int fd = memfd_create("stdin", MFD_CLOEXEC);

	assert_int_equal(write(fd, text, len), (ssize_t)len);
	lseek(fd, 0, SEEK_SET);
	return fd;
}

static void run_fd(struct outcome *o, const char *program, char *const *envp, int in)
{
	size_t size = 0;
	struct cni_streams streams = {.program = program, .envp = envp, .in = in};
	FILE *log = fopen("/dev/null", "w");

	*o = (struct outcome){0};
	streams.out = open_memstream(&o->text, &size);
	streams.log = log;
	o->status = cni_run(&streams);
	fclose(streams.out);
	fclose(log);
	o->answer = size ? json_loads(o->text, 0, NULL) : NULL;
	o->code = (unsigned)json_integer_value(json_object_get(o->answer, "code"));
	o->msg = json_string_value(json_object_get(o->answer, "msg"));
	o->details = json_string_value(json_object_get(o->answer, "details"));
	if (o->status) { /* exactly one error object, one line */
		assert_int_equal(o->status, 1);
		assert_non_null(o->answer);
		assert_true(o->code > 0);
		assert_true(o->msg && *o->msg);
		assert_ptr_equal(strchr(o->text, '\n'), o->text + size - 1);
	}
}

static void run_text(struct outcome *o, char *const *envp, const char *text)
{
	int fd = stdin_with(text, strlen(text));

	run_fd(o, "/opt/cni/bin/trestle", envp, fd);
	close(fd);
}

static void outcome_free(struct outcome *o)
{
	json_decref(o->answer);
	free(o->text);
}

/* The environment that most cases share, with `changes` ("CNI_IFNAME=x", or "CNI_IFNAME" to leave it out) applied. */
struct env {
	char *list[ENV_MAX];
	char texts[ENV_MAX][512];
};

static void env_make(struct env *env, const char *const *changes)
{
	static const char *const base[] = {"CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_NETNS=" OWN_NETNS, "CNI_IFNAME=eth0",
		"CNI_PATH=/opt/cni/bin", "CNI_NETNS_OVERRIDE=1", NULL};
	unsigned n = 0;

	for (unsigned i = 0; base[i]; i++) {
		size_t name = strcspn(base[i], "=");
		bool changed = false;

		for (unsigned c = 0; changes[c]; c++)
			changed |= strncmp(base[i], changes[c], name) == 0 && strcspn(changes[c], "=") == name;
		if (!changed)
			snprintf(env->texts[n++], sizeof(env->texts[0]), "%s", base[i]);
	}
	for (unsigned c = 0; changes[c]; c++)
		if (strchr(changes[c], '='))
			snprintf(env->texts[n++], sizeof(env->texts[0]), "%s", changes[c]);
	for (unsigned i = 0; i < n; i++)
		env->list[i] = env->texts[i];
	env->list[n] = NULL;
}

static const char *config_text(char *buf, size_t size, const char *version, const char *more)
{
	snprintf(buf, size,
		"{\"cniVersion\":\"%s\",\"name\":\"net1\",\"type\":\"trestle\",\"socket\":\"%s\",\"runDir\":\"%s\"%s%s}", version,
		socket_path, dir, *more ? "," : "", more);
	return buf;
}

/* ---- refusals ---- */

struct refusal {
	const char *changes[4];
	const char *in;
	unsigned code;
	const char *fragment;
};

static const char valid[] = "{\"cniVersion\":\"1.0.0\",\"name\":\"net1\",\"type\":\"trestle\"}";
#define CONFIG(more) "{\"cniVersion\":\"1.1.0\",\"name\":\"net1\",\"type\":\"trestle\"," more "}"

static void expect_refusals(const struct refusal *cases, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct outcome o;
		struct env env;

		env_make(&env, cases[i].changes);
		run_text(&o, env.list, cases[i].in);
		if (o.code != cases[i].code || !strstr(o.msg, cases[i].fragment))
			fail_msg("case %zu (%s, %s): expected %u with \"%s\", found %s", i,
				cases[i].changes[0] ? cases[i].changes[0] : "", cases[i].in, cases[i].code, cases[i].fragment,
				o.text);
		outcome_free(&o);
	}
}
#define EXPECT_REFUSALS(cases) expect_refusals(cases, sizeof(cases) / sizeof(cases[0]))

static void environment_is_refused_in_order(void **state)
{
	static const struct refusal cases[] = {
		{{"CNI_NETNS", "CNI_IFNAME"}, valid, 4, "required env variables [CNI_NETNS,CNI_IFNAME] missing"},
		{{"CNI_CONTAINERID", "CNI_NETNS=", "CNI_IFNAME"}, valid, 4,
			"required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing"},
		{{"CNI_CONTAINERID="}, valid, 4, "[CNI_CONTAINERID] missing"},
		{{"CNI_CONTAINERID=some-%%id"}, valid, 4, "CNI_CONTAINERID"},
		{{"CNI_CONTAINERID=-x"}, valid, 4, "\"-x\""},
		{{"CNI_CONTAINERID=a/b"}, valid, 4, "CNI_CONTAINERID"},
		/* What is there and wrong is told before what is missing. */
		{{"CNI_CONTAINERID=-x", "CNI_NETNS"}, valid, 4, "CNI_CONTAINERID"},
		{{"CNI_IFNAME=0123456789abcdef"}, valid, 4, "CNI_IFNAME"},
		{{"CNI_IFNAME=."}, valid, 4, "CNI_IFNAME"},
		{{"CNI_IFNAME=.."}, valid, 4, "CNI_IFNAME"},
		{{"CNI_IFNAME=a/b"}, valid, 4, "CNI_IFNAME"},
		{{"CNI_IFNAME=a:b"}, valid, 4, "CNI_IFNAME"},
		{{"CNI_IFNAME=a b"}, valid, 4, "CNI_IFNAME"},
		{{"CNI_IFNAME=a\xe2\x80\x83"
		  "b"},
			valid, 4, "CNI_IFNAME"},
		{{"CNI_IFNAME=eth\xff"}, valid, 4, "CNI_IFNAME: expected an interface name of 1 to 15 bytes of UTF-8"},
		{{"CNI_IFNAME=\xc0\x80"}, valid, 4, "CNI_IFNAME"},
		{{"CNI_COMMAND=DEL", "CNI_IFNAME=\xed\xa0\x80"}, valid, 4, "CNI_IFNAME"},
		{{"CNI_COMMAND=DEL", "CNI_IFNAME"}, valid, 4, "[CNI_IFNAME] missing"},
		{{"CNI_COMMAND=DEL", "CNI_CONTAINERID"}, valid, 4, "[CNI_CONTAINERID] missing"},
		{{"CNI_COMMAND=CHECK", "CNI_NETNS"}, valid, 4, "[CNI_NETNS] missing"},
		{{"CNI_COMMAND=GC", "CNI_PATH"}, valid, 4, "[CNI_PATH] missing"},
		{{"CNI_COMMAND=NOPE"}, valid, 4, "unknown CNI_COMMAND: NOPE"},
		{{"CNI_COMMAND=add"}, valid, 4, "unknown CNI_COMMAND: add"},
		{{"CNI_COMMAND=NOPE"}, "{", 6, "line 1"},
		{{"CNI_COMMAND=NOPE"}, "{}", 7, "name"},
		/* The environment comes before stdin. */
		{{"CNI_IFNAME="}, "{", 4, "CNI_IFNAME"},
	};

	(void)state;
	EXPECT_REFUSALS(cases);
}

static void configuration_is_refused_by_code(void **state)
{
	static const struct refusal cases[] = {
		{{NULL}, "", 6, "network configuration"},
		{{NULL}, "{", 6, "network configuration"},
		{{NULL}, "[]", 6, "expected an object"},
		{{NULL}, "7", 6, "expected an object"},
		{{NULL}, "null", 7, "name"},
		{{NULL}, "{}", 7, "name: missing"},
		{{NULL}, "{\"name\":\"a\",\"name\":\"b\"}", 6, "duplicate"},
		{{NULL}, "{\"name\":\"a\"} x", 6, "end of file expected"},
		{{NULL}, "{\"cniVersion\":\"1.0.0\",\"name\":\"\"}", 7, "name: missing or empty"},
		{{NULL}, "{\"cniVersion\":\"1.0.0\",\"name\":\"te%%st\"}", 7, "\"te%%st\""},
		{{NULL}, "{\"cniVersion\":\"1.0.0\",\"name\":\"-a\"}", 7, "name"},
		{{NULL}, "{\"name\":5}", 6, "name: expected a string"},
		{{NULL}, "{\"name\":\"net1\",\"cniVersion\":5}", 6, "cniVersion: expected a string"},
		{{NULL}, "{\"name\":\"net1\",\"type\":{}}", 6, "type: expected a string"},
		{{"CNI_COMMAND=DEL"}, "{\"name\":\"\"}", 7, "name"},
		{{NULL}, "{\"cniVersion\":\"9.9.9\",\"name\":\"net1\"}", 1, "9.9.9"},
		{{NULL}, "{\"cniVersion\":\"1.0\",\"name\":\"net1\"}", 1, "\"1.0\""},
		{{NULL}, "{\"cniVersion\":\"0.3\",\"name\":\"net1\"}", 1, "\"0.3\""},
		{{NULL}, "{\"cniVersion\":\"abc\",\"name\":\"net1\"}", 1, "\"abc\""},
		{{"CNI_COMMAND=DEL"}, "{\"cniVersion\":\"abc\",\"name\":\"net1\"}", 1, "\"abc\""},
		{{"CNI_COMMAND=CHECK"}, "{\"cniVersion\":\"abc\",\"name\":\"net1\"}", 6, "cniVersion"},
		{{"CNI_COMMAND=GC"}, "{\"cniVersion\":\"abc\",\"name\":\"net1\"}", 6, "cniVersion"},
		{{"CNI_COMMAND=STATUS"}, "{\"cniVersion\":\"1..0\",\"name\":\"net1\"}", 6, "cniVersion"},
		{{"CNI_COMMAND=CHECK"}, "{\"cniVersion\":\"0.3.1\",\"name\":\"net1\"}", 1, "does not allow CHECK"},
		{{"CNI_COMMAND=CHECK"}, "{\"name\":\"net1\"}", 1, "does not allow CHECK"},
		{{"CNI_COMMAND=GC"}, valid, 1, "does not allow GC"},
		{{"CNI_COMMAND=STATUS"}, valid, 1, "does not allow STATUS"},
		{{"CNI_COMMAND=CHECK"}, "{\"cniVersion\":\"0.4\",\"name\":\"net1\"}", 1, "incompatible CNI versions"},
		{{"CNI_COMMAND=STATUS"}, "{\"cniVersion\":\"2.0.0\",\"name\":\"net1\"}", 1, "incompatible CNI versions"},
	};

	(void)state;
	EXPECT_REFUSALS(cases);
}

static void settings_are_refused_by_name(void **state)
{
	static const struct refusal cases[] = {
		{{NULL}, CONFIG("\"network\":5"), 7, "configuration.network: expected string"},
		{{NULL}, CONFIG("\"network\":\"a b\""), 7, "configuration.network"},
		{{NULL}, CONFIG("\"subnet\":\"10.9.0.0\""), 7, "configuration.subnet"},
		{{NULL}, CONFIG("\"subnet\":\"2001:db8::/64\""), 7, "configuration.subnet: expected an IPv4 prefix"},
		{{NULL}, CONFIG("\"subnet6\":\"10.9.0.0/24\""), 7, "configuration.subnet6"},
		{{NULL}, CONFIG("\"mtu\":\"1400\""), 7, "configuration.mtu"},
		{{NULL}, CONFIG("\"mtu\":100"), 7, "configuration.mtu"},
		{{NULL}, CONFIG("\"mode\":\"l4\""), 7, "configuration.mode"},
		{{NULL}, CONFIG("\"socket\":\"run/x\""), 7, "configuration.socket"},
		{{NULL}, CONFIG("\"dns\":[]"), 7, "dns: expected object"},
		{{NULL}, CONFIG("\"dns\":{\"nameservers\":[\"x\"]}"), 7, "dns.nameservers"},
		{{NULL}, CONFIG("\"ipam\":[]"), 7, "configuration.ipam: expected object"},
		{{NULL}, CONFIG("\"ipam\":{\"type\":5}"), 7, "ipam.type"},
		{{NULL}, CONFIG("\"ipam\":{\"type\":\"../x\"}"), 7, "ipam.type"},
		{{NULL}, CONFIG("\"ipam\":{\"type\":\"trestle\",\"subnet\":\"x\"}"), 7, "ipam.subnet"},
		{{NULL}, CONFIG("\"ipam\":{\"type\":\"trestle\",\"routes\":[{\"dst\":\"x\"}]}"), 7, "ipam.routes[0].dst"},
		{{NULL}, CONFIG("\"prevResult\":[]"), 7, "prevResult: expected object"},
		{{NULL}, CONFIG("\"prevResult\":{\"cniVersion\":\"7\"}"), 7, "prevResult.cniVersion"},
		{{NULL}, CONFIG("\"prevResult\":{\"interfaces\":[{\"name\":4}]}"), 7, "prevResult.interfaces[0].name"},
		{{NULL}, CONFIG("\"prevResult\":{\"ips\":[{\"address\":\"10.0.0.1\"}]}"), 7, "prevResult.ips[0].address"},
		{{NULL}, CONFIG("\"prevResult\":{\"ips\":[{\"address\":\"10.0.0.1/8\",\"interface\":0}]}"), 7,
			"prevResult.ips[0].interface"},
		{{NULL}, CONFIG("\"prevResult\":{\"routes\":[{}]}"), 7, "prevResult.routes[0].dst"},
		{{"CNI_COMMAND=CHECK"}, CONFIG("\"mtu\":1400"), 7, "prevResult"},
		{{"CNI_COMMAND=CHECK"}, CONFIG("\"prevResult\":{}"), 7, "prevResult.interfaces"},
		{{"CNI_COMMAND=GC"}, CONFIG("\"cni.dev/valid-attachments\":{}"), 7, "valid-attachments"},
		{{"CNI_COMMAND=GC"}, CONFIG("\"cni.dev/valid-attachments\":[{\"ifname\":\"eth0\"}]"), 7,
			"valid-attachments[0].containerID"},
	};

	(void)state;
	EXPECT_REFUSALS(cases);
}

static void what_is_asked_for_is_refused_by_name(void **state)
{
#define RUNTIME(more) CONFIG("\"runtimeConfig\":{" more "}")
	static const struct refusal cases[] = {
		{{NULL}, CONFIG("\"runtimeConfig\":[]"), 7, "runtimeConfig"},
		{{NULL}, RUNTIME("\"ips\":\"10.9.0.7\""), 7, "runtimeConfig.ips: expected array"},
		{{NULL}, RUNTIME("\"ips\":[7]"), 7, "runtimeConfig.ips"},
		{{NULL}, RUNTIME("\"ips\":[\"10.9.0\"]"), 7, "runtimeConfig.ips"},
		{{NULL}, RUNTIME("\"ips\":[\"10.9.0.7\",\"10.9.0.8\"]"), 7, "at most one IPv4 address"},
		{{NULL}, RUNTIME("\"mac\":\"02:00:00:00:00\""), 7, "runtimeConfig.mac"},
		{{NULL}, RUNTIME("\"mac\":\"01:00:5e:00:00:01\""), 7, "runtimeConfig.mac"},
		{{NULL}, RUNTIME("\"portMappings\":[{\"hostPort\":0,\"containerPort\":80,\"protocol\":\"tcp\"}]"), 7,
			"runtimeConfig.portMappings[0].hostPort"},
		{{NULL}, RUNTIME("\"portMappings\":[{\"HostPort\":8080,\"ContainerPort\":0,\"Protocol\":\"tcp\"}]"), 7,
			"runtimeConfig.portMappings[0].containerPort"},
		{{NULL}, RUNTIME("\"portMappings\":[{\"hostPort\":1,\"containerPort\":2,\"protocol\":\"foo\"}]"), 7,
			"runtimeConfig.portMappings[0].protocol"},
		{{NULL}, RUNTIME("\"portMappings\":[{\"hostPort\":1,\"containerPort\":2,\"hostIP\":\"x\"}]"), 7,
			"runtimeConfig.portMappings[0].hostIP"},
		{{NULL}, RUNTIME("\"portMappings\":[5]"), 7, "runtimeConfig.portMappings[0]"},
		{{NULL}, RUNTIME("\"bandwidth\":{\"IngressRate\":\"fast\"}"), 7, "runtimeConfig.bandwidth.ingressRate"},
		{{NULL}, RUNTIME("\"dns\":{\"servers\":[\"x\"]}"), 7, "runtimeConfig.dns.nameservers"},
		{{NULL}, RUNTIME("\"aliases\":5"), 7, "runtimeConfig.aliases"},
		{{NULL}, RUNTIME("\"aliases\":[5]"), 7, "runtimeConfig.aliases"},
		{{NULL}, RUNTIME("\"aliases\":{\"net1\":5}"), 7, "runtimeConfig.aliases.net1"},
		{{NULL}, RUNTIME("\"ipRanges\":[[{\"subnet\":\"10.0.0.0/8\"}]]"), 2, "runtimeConfig.ipRanges"},
		{{NULL}, CONFIG("\"args\":{\"cni\":{\"ips\":[\"x\"]}}"), 7, "args.cni.ips"},
		{{NULL}, CONFIG("\"args\":{\"cni\":{\"mac\":5}}"), 7, "args.cni.mac"},
		{{NULL}, CONFIG("\"args\":{\"cni\":5}"), 7, "args.cni"},
		{{"CNI_ARGS=IP=x"}, valid, 4, "CNI_ARGS: IP"},
		{{"CNI_ARGS=IP=10.9.0.7,10.9.0.8"}, valid, 4, "CNI_ARGS: IP"},
		{{"CNI_ARGS=IgnoreUnknown=1;MAC=x"}, valid, 4, "CNI_ARGS: MAC"},
		{{"CNI_NETNS_OVERRIDE"}, valid, 8, "should not be the same"},
		{{"CNI_NETNS_OVERRIDE=0"}, valid, 8, "should not be the same"},
		{{"CNI_NETNS=/nonexistent"}, valid, 8, "CNI_NETNS"},
		{{"CNI_NETNS=/etc/passwd"}, valid, 8, "expected a network namespace"},
		{{"CNI_COMMAND=DEL", "CNI_NETNS_OVERRIDE"}, valid, 8, "should not be the same"},
	};

	(void)state;
	EXPECT_REFUSALS(cases);
}

static void version_error_names_what_is_supported(void **state)
{
	static const char *const none[] = {NULL};
	struct outcome o;
	struct env env;

	(void)state;
	env_make(&env, none);
	run_text(&o, env.list, "{\"cniVersion\":\"9.9.9\",\"name\":\"net1\",\"type\":\"trestle\"}");
	assert_int_equal(o.code, 1);
	assert_non_null(strstr(o.details, "9.9.9"));
	assert_non_null(strstr(o.details, "\"0.1.0\", \"0.2.0\", \"0.3.0\", \"0.3.1\", \"0.4.0\", \"1.0.0\", \"1.1.0\""));
	assert_string_equal(json_string_value(json_object_get(o.answer, "cniVersion")), "9.9.9");
	outcome_free(&o);
}

static void huge_and_deep_input_is_refused(void **state)
{
	static const char *const none[] = {NULL};
	size_t len = 5u * 1024 * 1024;
	char *text = malloc(len + 1);
	struct outcome o;
	struct env env;

	(void)state;
	env_make(&env, none);
	memset(text, '[', len);
	text[len] = '\0';
	run_text(&o, env.list, text);
	assert_int_equal(o.code, 6);
	outcome_free(&o);
	text[10000] = '\0';
	run_text(&o, env.list, text);
	assert_int_equal(o.code, 6);
	outcome_free(&o);
	free(text);
}

static void unreadable_stdin_is_code_5(void **state)
{
	static const char *const none[] = {NULL};
	struct outcome o;
	struct env env;
	int fd = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	(void)state;
	env_make(&env, none);
	run_fd(&o, "trestle", env.list, fd);
	assert_int_equal(o.code, 5);
	outcome_free(&o);
	close(fd);
}

/* ---- VERSION ---- */

static void expect_version(int in, const char *version)
{
	char *envp[] = {(char *)(uintptr_t) "CNI_COMMAND=VERSION", NULL};
	struct outcome o;

	run_fd(&o, "trestle", envp, in);
	assert_int_equal(o.status, 0);
	assert_string_equal(json_string_value(json_object_get(o.answer, "cniVersion")), version);
	assert_int_equal(json_array_size(json_object_get(o.answer, "supportedVersions")), 7);
	outcome_free(&o);
}

static void version_echoes_and_never_hangs(void **state)
{
	int in = stdin_with("{\"cniVersion\":\"0.4.0\"}", 22), pipe_fds[2];

	(void)state;
	expect_version(in, "0.4.0");
	close(in);
	in = stdin_with("{", 1);
	expect_version(in, "1.1.0");
	close(in);
	expect_version(-1, "1.1.0");
	/* Open and silent. */
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	expect_version(pipe_fds[0], "1.1.0");
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

static void without_a_command_it_says_what_it_is(void **state)
{
	char *envp[] = {NULL};
	struct outcome o;

	(void)state;
	run_fd(&o, "trestle", envp, -1);
	assert_int_equal(o.status, 0);
	assert_null(o.answer);
	outcome_free(&o);
}

/* ---- with a daemon ---- */

static const char added[] =
	"{\"endpoint_id\":\"e1\",\"network\":\"net1\",\"mode\":\"l2\",\"mac\":\"02:54:00:00:10:01\",\"host_ifname\":null,"
	"\"host_mac\":null,\"ips\":[{\"address\":\"10.9.0.5/"
	"24\",\"gateway\":null}],\"routes\":[],\"mtu\":1450,\"netns_ifname\":\"eth0\"}";

static void run_with(struct outcome *o, struct daemon *daemon, int status, const char *answer, const char *const *changes,
	const char *version, const char *more)
{
	char text[4096];
	struct env env;

	env_make(&env, changes);
	daemon_start(daemon, status, answer);
	run_text(o, env.list, config_text(text, sizeof(text), version, more));
	daemon_join(daemon);
}

static void expect_text(const json_t *object, const char *name, const char *expected)
{
	const char *found = json_string_value(json_object_get(object, name));

	if (!found || strcmp(found, expected) != 0)
		fail_msg("%s: expected \"%s\", found \"%s\"", name, expected, found ? found : "nothing");
}

/* The answer without spaces, for a comparison with what is written here. */
static void expect_answer(const struct outcome *o, const char *expected)
{
	json_t *object = json_loads(expected, 0, NULL);

	assert_non_null(object);
	if (o->status || !json_equal(object, o->answer))
		fail_msg("expected %s, found %s", expected, o->text);
	json_decref(object);
}

static void add_prints_each_version_in_its_form(void **state)
{
	static const char modern[] =
		"{\"cniVersion\":\"%s\",\"interfaces\":[{\"name\":\"eth0\",\"mac\":\"02:54:00:00:10:01\",%s\"sandbox\":"
		"\"" OWN_NETNS "\"}],\"ips\":[{%s\"address\":\"10.9.0.5/24\",\"interface\":0}]}";
	static const char old[] = "{\"cniVersion\":\"%s\",\"ip4\":{\"ip\":\"10.9.0.5/24\"}}";
	static const char *const none[] = {NULL};
	char expected[512];

	(void)state;
	for (enum cni_version v = 0; v < CNI_VERSION_COUNT; v++) {
		const char *name = cni_version_name(v);
		struct daemon daemon;
		struct outcome o;

		if (v <= CNI_0_2_0)
			snprintf(expected, sizeof(expected), old, name);
		else
			snprintf(expected, sizeof(expected), modern, name, v >= CNI_1_1_0 ? "\"mtu\":1450," : "",
				v <= CNI_0_4_0 ? "\"version\":\"4\"," : "");
		run_with(&o, &daemon, 200, added, none, name, "");
		expect_answer(&o, expected);
		outcome_free(&o);
		daemon_fini(&daemon);
	}
}

static void a_missing_version_is_the_first(void **state)
{
	static const char *const none[] = {NULL};
	struct daemon daemon;
	struct outcome o;

	(void)state;
	run_with(&o, &daemon, 200, added, none, "", "");
	expect_answer(&o, "{\"cniVersion\":\"0.1.0\",\"ip4\":{\"ip\":\"10.9.0.5/24\"}}");
	outcome_free(&o);
	daemon_fini(&daemon);
}

static void add_sends_what_was_asked_for(void **state)
{
	static const char *const changes[] = {
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;IP=10.9.0.8;MAC=02:00:00:00:00:01;X=a=b;;junk",
		NULL};
	static const char more[] =
		"\"network\":\"app\",\"subnet\":\"10.9.0.0/24\",\"mtu\":1400,\"mode\":\"l2\",\"capabilities\":{\"ips\":true},"
		"\"big\":12345678901234567000,\"cni.dev/x\":[1],"
		"\"args\":{\"cni\":{\"mac\":\"02:00:00:00:00:02\",\"ips\":[\"2001:db8::8/"
		"64\"],\"labels\":[{\"key\":\"k\",\"value\":\"v\"}]}},"
		"\"runtimeConfig\":{\"mac\":\"02:00:00:00:00:03\",\"ips\":[\"10.9.0.8/"
		"24\"],\"Aliases\":{\"net1\":[\"a1\"],\"other\":[\"b\"]},"
		"\"bandwidth\":{\"IngressRate\":1,\"IngressBurst\":34359738359},"
		"\"portMappings\":[{\"HostPort\":8080,\"ContainerPort\":80,\"Protocol\":\"tcp\",\"HostIP\":\"\"}]}";
	char netns[64];
	struct daemon daemon;
	struct outcome o;
	json_t *body;

	(void)state;
	run_with(&o, &daemon, 200, added, changes, "1.1.0", more);
	assert_int_equal(o.status, 0);
	assert_string_equal(daemon.path, "/v1/cni/add");
	body = daemon.body;
	expect_text(body, "config", "net1");
	expect_text(body, "container_id", "c1");
	expect_text(body, "ifname", "eth0");
	expect_text(body, "network", "app");
	expect_text(body, "subnet", "10.9.0.0/24");
	expect_text(body, "mode", "l2");
	expect_text(body, "sandbox", OWN_NETNS);
	expect_text(body, "mac", "02:00:00:00:00:03");
	expect_text(body, "name", "shop/web");
	expect_text(json_object_get(body, "labels"), "io.kubernetes.pod.name", "web");
	expect_text(json_object_get(body, "labels"), "k", "v");
	snprintf(netns, sizeof(netns), "/proc/%d/fd/", (int)getpid());
	assert_int_equal(strncmp(json_string_value(json_object_get(body, "netns")), netns, strlen(netns)), 0);
	assert_int_equal(json_integer_value(json_object_get(body, "mtu")), 1400);
	assert_int_equal(json_array_size(json_object_get(body, "ips")), 2);
	assert_string_equal(json_string_value(json_array_get(json_object_get(body, "ips"), 0)), "10.9.0.8");
	assert_string_equal(json_string_value(json_array_get(json_object_get(body, "ips"), 1)), "2001:db8::8");
	assert_int_equal(json_array_size(json_object_get(body, "aliases")), 1);
	outcome_free(&o);
	daemon_fini(&daemon);
}

static void add_puts_ours_behind_what_came_before(void **state)
{
	static const char *const none[] = {NULL};
	static const char more[] =
		"\"prevResult\":{\"cniVersion\":\"0.4.0\",\"interfaces\":[{\"name\":\"lo\",\"mac\":\"00:00:00:00:00:00\","
		"\"sandbox\":\"/n\"}],"
		"\"ips\":[{\"version\":\"4\",\"address\":\"127.0.0.1/8\",\"interface\":0}],\"dns\":{\"domain\":\"d\"}},"
		"\"dns\":{\"nameservers\":[\"192.0.2.53\"]},\"runtimeConfig\":{\"dns\":{\"Servers\":null,\"Searches\":[\"s\"]}}";
	static const char answer[] =
		"{\"mac\":\"02:54:00:00:10:01\",\"host_ifname\":\"tr1\",\"host_mac\":\"02:54:00:00:10:02\",\"mtu\":1450,"
		"\"ips\":[{\"address\":\"10.9.0.5/32\",\"gateway\":\"169.254.1.1\"},{\"address\":\"2001:db8::5/128\"}],"
		"\"routes\":[{\"dst\":\"0.0.0.0/0\",\"gw\":\"169.254.1.1\"}]}";
	struct daemon daemon;
	struct outcome o;

	(void)state;
	run_with(&o, &daemon, 200, answer, none, "1.0.0", more);
	expect_answer(&o,
		"{\"cniVersion\":\"1.0.0\",\"interfaces\":[{\"name\":\"lo\",\"mac\":\"00:00:00:00:00:00\",\"sandbox\":\"/n\"},"
		"{\"name\":\"tr1\",\"mac\":\"02:54:00:00:10:02\"},{\"name\":\"eth0\",\"mac\":\"02:54:00:00:10:01\",\"sandbox\":"
		"\"" OWN_NETNS "\"}],\"ips\":[{\"address\":\"127.0.0.1/8\",\"interface\":0},{\"address\":\"10.9.0.5/"
		"32\",\"gateway\":\"169.254.1.1\","
		"\"interface\":2},{\"address\":\"2001:db8::5/128\",\"interface\":2}],\"routes\":[{\"dst\":\"0.0.0.0/"
		"0\",\"gw\":\"169.254.1.1\"}],"
		"\"dns\":{\"domain\":\"d\",\"nameservers\":[\"192.0.2.53\"],\"search\":[\"s\"]}}");
	outcome_free(&o);
	daemon_fini(&daemon);
}

static void dual_stack_splits_its_routes_in_old_versions(void **state)
{
	static const char *const none[] = {NULL};
	static const char answer[] =
		"{\"mac\":\"02:54:00:00:10:01\",\"mtu\":1450,\"ips\":[{\"address\":\"10.9.0.5/24\",\"gateway\":\"10.9.0.1\"},"
		"{\"address\":\"2001:db8::5/64\"}],\"routes\":[{\"dst\":\"0.0.0.0/0\",\"gw\":\"10.9.0.1\"},{\"dst\":\"::/"
		"0\",\"gw\":\"fe80::1\"}]}";
	struct daemon daemon;
	struct outcome o;

	(void)state;
	run_with(&o, &daemon, 200, answer, none, "0.2.0", "");
	expect_answer(&o,
		"{\"cniVersion\":\"0.2.0\",\"ip4\":{\"ip\":\"10.9.0.5/"
		"24\",\"gateway\":\"10.9.0.1\",\"routes\":[{\"dst\":\"0.0.0.0/0\","
		"\"gw\":\"10.9.0.1\"}]},\"ip6\":{\"ip\":\"2001:db8::5/64\",\"routes\":[{\"dst\":\"::/0\",\"gw\":\"fe80::1\"}]}}");
	outcome_free(&o);
	daemon_fini(&daemon);
}

/* The daemon's errors, each under the code of the verb. */
static void errors_of_the_daemon_get_their_codes(void **state)
{
	static const struct {
		const char *command, *name;
		int status;
		unsigned code;
	} cases[] = {
		{"CNI_COMMAND=ADD", "invalid", 400, 7},
		{"CNI_COMMAND=ADD", "not-found", 404, 7},
		{"CNI_COMMAND=ADD", "exists", 409, 104},
		{"CNI_COMMAND=ADD", "conflict", 409, 101},
		{"CNI_COMMAND=ADD", "exhausted", 503, 100},
		{"CNI_COMMAND=ADD", "unreachable", 503, 11},
		{"CNI_COMMAND=ADD", "system", 500, 105},
		{"CNI_COMMAND=ADD", "corrupt", 500, 103},
		{"CNI_COMMAND=STATUS", "exhausted", 503, 50},
		{"CNI_COMMAND=STATUS", "unreachable", 503, 50},
		{"CNI_COMMAND=STATUS", "system", 500, 51},
		{"CNI_COMMAND=DEL", "system", 500, 105},
		{"CNI_COMMAND=GC", "system", 500, 105},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *const changes[] = {cases[i].command, "CNI_IFNAME=none0", NULL};
		struct daemon daemon;
		char answer[128];
		struct outcome o;

		snprintf(answer, sizeof(answer), "{\"error\":{\"code\":\"%s\",\"message\":\"not found: the reason\"}}",
			cases[i].name);
		run_with(&o, &daemon, cases[i].status, answer, changes, "1.1.0", "\"cni.dev/valid-attachments\":[]");
		assert_int_equal(o.code, cases[i].code);
		assert_non_null(strstr(o.msg, "the reason"));
		/* containerd would take it for success. */
		if (strcmp(cases[i].command, "CNI_COMMAND=DEL") == 0)
			assert_null(strstr(o.msg, "not found"));
		outcome_free(&o);
		daemon_fini(&daemon);
	}
}

static void an_answer_that_makes_no_sense_is_code_103(void **state)
{
	static const char *const answers[] = {
		"[]",
		"{",
		"{}",
		"{\"mac\":\"x\",\"mtu\":1450,\"ips\":[]}",
		"{\"mac\":\"02:54:00:00:10:01\",\"mtu\":0,\"ips\":[]}",
		"{\"mac\":\"02:54:00:00:10:01\",\"mtu\":1450,\"ips\":[\"10.9.0.5\"]}",
		"{\"mac\":\"02:54:00:00:10:01\",\"mtu\":1450,\"ips\":[{\"address\":\"10.9.0.5\"}]}",
		"{\"mac\":\"02:54:00:00:10:01\",\"mtu\":1450,\"ips\":[],\"routes\":[{\"dst\":1}]}",
	};
	static const char *const none[] = {NULL};
	char path[256];

	(void)state;
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		struct daemon daemon;
		struct outcome o;

		run_with(&o, &daemon, 200, answers[i], none, "1.1.0", "");
		if (o.code != CNI_DAEMON)
			fail_msg("%s: %s", answers[i], o.text);
		outcome_free(&o);
		daemon_fini(&daemon);
	}
	/* What it may have made is not left behind: the last one had nobody to tell. */
	snprintf(path, sizeof(path), "%s/tombstones/net1:c1:eth0", dir);
	assert_int_equal(access(path, F_OK), 0);
	unlink(path);
}

static void gc_sends_what_to_keep(void **state)
{
	static const char *const gc[] = {"CNI_COMMAND=GC", NULL};
	static const struct {
		const char *more;
		const char *keep;
	} cases[] = {
		{"\"cni.dev/valid-attachments\":[{\"containerID\":\"c1\",\"ifname\":\"eth0\"}],\"cni.dev/attachments\":[]",
			"[{\"container_id\":\"c1\",\"ifname\":\"eth0\"}]"},
		{"\"cni.dev/attachments\":[{\"containerId\":\"c2\",\"ifName\":\"eth1\"}]",
			"[{\"container_id\":\"c2\",\"ifname\":\"eth1\"}]"},
		{"\"cni.dev/valid-attachments\":null", "[]"},
		{"\"cni.dev/valid-attachments\":[]", "[]"},
		{"\"cni.dev/valid-attachments\":[{\"containerID\":\"a/b\",\"ifname\":\"eth0\"}]", "[]"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		json_t *keep = json_loads(cases[i].keep, 0, NULL);
		struct daemon daemon;
		struct outcome o;

		run_with(&o, &daemon, 200, "{\"removed\":0}", gc, "1.1.0", cases[i].more);
		assert_int_equal(o.status, 0);
		assert_null(o.answer);
		assert_string_equal(daemon.path, "/v1/cni/gc");
		expect_text(daemon.body, "config", "net1");
		assert_true(json_equal(json_object_get(daemon.body, "keep"), keep));
		json_decref(keep);
		outcome_free(&o);
		daemon_fini(&daemon);
	}
}

static void check_sends_address_and_mac_of_the_result(void **state)
{
	static const char *const check[] = {"CNI_COMMAND=CHECK", NULL};
	static const char more[] =
		"\"prevResult\":{\"interfaces\":[{\"name\":\"eth0\"},{\"name\":\"eth0\",\"mac\":\"02:54:00:00:10:01\","
		"\"sandbox\":\"/n\"}],"
		"\"ips\":[{\"address\":\"10.9.0.5/24\",\"interface\":1},{\"address\":\"10.8.0.5/24\",\"interface\":0}]}";
	struct daemon daemon;
	struct outcome o;

	(void)state;
	run_with(&o, &daemon, 200, "{}", check, "1.0.0", more);
	assert_int_equal(o.status, 0);
	assert_null(o.answer);
	assert_string_equal(daemon.path, "/v1/cni/check");
	expect_text(daemon.body, "mac", "02:54:00:00:10:01");
	assert_int_equal(json_array_size(json_object_get(daemon.body, "ips")), 1);
	assert_string_equal(json_string_value(json_array_get(json_object_get(daemon.body, "ips"), 0)), "10.9.0.5/24");
	outcome_free(&o);
	daemon_fini(&daemon);
}

static void status_asks_for_its_network(void **state)
{
	static const char *const status[] = {"CNI_COMMAND=STATUS", "CNI_CONTAINERID", "CNI_NETNS", NULL};
	struct daemon daemon;
	struct outcome o;

	(void)state;
	run_with(&o, &daemon, 200, "{}", status, "1.1.0", "\"network\":\"app\"");
	assert_int_equal(o.status, 0);
	assert_string_equal(daemon.path, "/v1/cni/status?network=app");
	outcome_free(&o);
	daemon_fini(&daemon);
}

static void as_ipam_plugin_it_gives_addresses_only(void **state)
{
	static const char *const none[] = {NULL};
	static const char config[] = "{\"cniVersion\":\"%s\",\"name\":\"net1\",\"type\":\"bridge\",\"ipam\":{\"type\":"
				     "\"trestle\",\"network\":\"app\",\"socket\":\"%s\","
				     "\"routes\":[{\"dst\":\"0.0.0.0/0\"}]}}";
	struct daemon daemon;
	struct outcome o;
	char text[1024];
	struct env env;

	(void)state;
	env_make(&env, none);
	daemon_start(&daemon, 200, "{\"ips\":[{\"address\":\"10.9.0.5/24\",\"gateway\":\"10.9.0.1\"}]}");
	snprintf(text, sizeof(text), config, "1.0.0", socket_path);
	run_text(&o, env.list, text);
	daemon_join(&daemon);
	expect_answer(&o, "{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"10.9.0.5/24\",\"gateway\":\"10.9.0.1\"}],"
			  "\"routes\":[{\"dst\":\"0.0.0.0/0\"}]}");
	assert_string_equal(daemon.path, "/v1/ipam/allocate");
	expect_text(daemon.body, "network", "app");
	outcome_free(&o);
	daemon_fini(&daemon);
	run_text(&o, env.list, "{\"cniVersion\":\"1.0.0\",\"name\":\"net1\",\"type\":\"bridge\"}");
	assert_int_equal(o.code, 7);
	assert_non_null(strstr(o.msg, "ipam"));
	outcome_free(&o);
}

/* ---- without a daemon ---- */

static void an_interface_in_the_way_is_code_102(void **state)
{
	static const char *const changes[] = {"CNI_IFNAME=lo", NULL};
	struct daemon daemon;
	struct outcome o;

	(void)state;
	run_with(&o, &daemon, 409, "{\"error\":{\"code\":\"exists\",\"message\":\"it is there\"}}", changes, "1.0.0", "");
	assert_int_equal(o.code, 102);
	assert_non_null(strstr(o.msg, "interface lo"));
	outcome_free(&o);
	daemon_fini(&daemon);
}

static void without_a_daemon_only_del_succeeds(void **state)
{
	static const struct {
		const char *command;
		unsigned code;
	} cases[] = {{"CNI_COMMAND=ADD", 11}, {"CNI_COMMAND=CHECK", 11}, {"CNI_COMMAND=STATUS", 50}, {"CNI_COMMAND=GC", 11},
		{"CNI_COMMAND=DEL", 0}, {"CNI_COMMAND=DEL", 0}};
	static const char more[] =
		"\"cni.dev/valid-attachments\":[],\"prevResult\":{\"interfaces\":[{\"name\":\"none0\",\"sandbox\":\"/n\"}]}";
	char text[2048], path[256];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *const changes[] = {cases[i].command, "CNI_IFNAME=none0", NULL};
		struct outcome o;
		struct env env;

		env_make(&env, changes);
		/* DEL looks into the namespace for what is ours; this is the test's own. */
		run_text(&o, env.list, config_text(text, sizeof(text), "1.1.0", more));
		if (o.code != cases[i].code)
			fail_msg("%s: %s", cases[i].command, o.text);
		if (cases[i].code)
			assert_non_null(strstr(o.msg, "no daemon answers"));
		else
			assert_string_equal(o.text ? o.text : "", "");
		outcome_free(&o);
	}
	snprintf(path, sizeof(path), "%s/tombstones/net1:c1:none0", dir);
	assert_int_equal(unlink(path), 0);
}

static void del_takes_any_configuration(void **state)
{
	static const char *const more[] = {"\"mtu\":\"x\"", "\"ipam\":5", "\"prevResult\":5", "\"prevResult\":{\"interfaces\":5}",
		"\"runtimeConfig\":5", "\"subnet\":5,\"mode\":7"};
	static const char *const changes[] = {"CNI_COMMAND=DEL", "CNI_NETNS=/nonexistent", NULL};

	(void)state;
	for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++) {
		struct daemon daemon;
		struct outcome o;

		run_with(&o, &daemon, 200, "{}", changes, "1.0.0", more[i]);
		if (o.status || o.answer)
			fail_msg("%s: %s", more[i], o.text);
		assert_string_equal(daemon.path, "/v1/cni/del");
		assert_null(json_object_get(daemon.body, "netns"));
		outcome_free(&o);
		daemon_fini(&daemon);
	}
}

/* ---- other IPAM plugins ---- */

static void write_plugin(char *path, size_t size, const char *script)
{
	FILE *f;

	snprintf(path, size, "%s/fake-ipam", dir);
	f = fopen(path, "w");
	assert_non_null(f);
	fprintf(f, "#!/bin/sh\necho \"$CNI_COMMAND\" >>%s/calls\n%s\n", dir, script);
	fclose(f);
	assert_int_equal(chmod(path, 0755), 0);
}

/* The commands that the plugin was run with, one a line. */
static void expect_calls(const char *expected)
{
	char path[128], found[128] = "";
	FILE *f;

	snprintf(path, sizeof(path), "%s/calls", dir);
	f = fopen(path, "r");
	if (f) {
		found[fread(found, 1, sizeof(found) - 1, f)] = '\0';
		fclose(f);
	}
	unlink(path);
	assert_string_equal(found, expected);
}

static void delegated_addresses_become_ours(void **state)
{
	char path[128], change[128];
	const char *const changes[] = {change, NULL};
	struct daemon daemon;
	struct outcome o;

	(void)state;
	snprintf(change, sizeof(change), "CNI_PATH=/nonexistent:%s", dir);
	write_plugin(path, sizeof(path),
		"grep -q '\"x-mark\":1' || exit 1\necho "
		"'{\"cniVersion\":\"0.2.0\",\"ip4\":{\"ip\":\"10.7.0.5/16\",\"gateway\":\"10.7.0.1\","
		"\"routes\":[{\"dst\":\"0.0.0.0/0\"}]}}'");
	run_with(&o, &daemon, 200, added, changes, "0.4.0", "\"ipam\":{\"type\":\"fake-ipam\"},\"x-mark\":1");
	expect_answer(&o,
		"{\"cniVersion\":\"0.4.0\",\"interfaces\":[{\"name\":\"eth0\",\"mac\":\"02:54:00:00:10:01\",\"sandbox\":"
		"\"" OWN_NETNS
		"\"}],\"ips\":[{\"version\":\"4\",\"address\":\"10.7.0.5/16\",\"gateway\":\"10.7.0.1\",\"interface\":0}],"
		"\"routes\":[{\"dst\":\"0.0.0.0/0\"}]}");
	assert_true(json_is_true(json_object_get(daemon.body, "address_given")));
	assert_string_equal(json_string_value(json_array_get(json_object_get(daemon.body, "ips"), 0)), "10.7.0.5/16");
	expect_text(json_array_get(json_object_get(daemon.body, "routes"), 0), "gw", "10.7.0.1");
	outcome_free(&o);
	daemon_fini(&daemon);
	expect_calls("ADD\n");
	unlink(path);
}

static void delegated_failures_are_passed_up_and_undone(void **state)
{
	static const struct {
		const char *script, *calls;
		unsigned code;
		const char *fragment;
	} cases[] = {
		{"echo '{\"code\":999,\"msg\":\"no more\",\"details\":\"d\"}'; exit 1", "ADD\nDEL\n", 999, "no more"},
		{"exit 3", "ADD\nDEL\n", 107, "exit status 3"},
		{"kill -9 $$", "ADD\nDEL\n", 107, "signal 9"},
		{"echo nonsense", "ADD\nDEL\n", 107, "line 1"},
		{"echo '{}'", "ADD\nDEL\n", 7, "missing IP config"},
		{"echo '{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"x\"}]}'", "ADD\nDEL\n", 7, "ips[0].address"},
		/* The daemon is not there. */
		{"echo '{\"ips\":[{\"address\":\"10.7.0.5/16\"}]}'", "ADD\nDEL\n", 11, "no daemon answers"},
	};
	char path[128], change[128], text[1024];
	const char *const changes[] = {change, NULL};

	(void)state;
	snprintf(change, sizeof(change), "CNI_PATH=%s", dir);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct outcome o;
		struct env env;

		env_make(&env, changes);
		write_plugin(path, sizeof(path), cases[i].script);
		run_text(&o, env.list, config_text(text, sizeof(text), "1.0.0", "\"ipam\":{\"type\":\"fake-ipam\"}"));
		if (o.code != cases[i].code || !strstr(o.msg, cases[i].fragment))
			fail_msg("%s: %s", cases[i].script, o.text);
		outcome_free(&o);
		expect_calls(cases[i].calls);
	}
	unlink(path);
}

static void a_missing_ipam_plugin_is_named(void **state)
{
	static const char *const none[] = {NULL}, *const no_path[] = {"CNI_PATH", NULL};
	char text[1024];
	struct outcome o;
	struct env env;

	(void)state;
	config_text(text, sizeof(text), "1.0.0", "\"ipam\":{\"type\":\"no-such-ipam\"}");
	env_make(&env, none);
	run_text(&o, env.list, text);
	assert_int_equal(o.code, 107);
	assert_non_null(strstr(o.msg, "no-such-ipam"));
	outcome_free(&o);
	env_make(&env, no_path);
	run_text(&o, env.list, text);
	assert_int_equal(o.code, 4);
	assert_non_null(strstr(o.msg, "CNI_PATH"));
	outcome_free(&o);
}

static void del_runs_the_ipam_plugin_without_a_namespace(void **state)
{
	char path[128], change[128];
	const char *const changes[] = {"CNI_COMMAND=DEL", "CNI_NETNS=", change, NULL};
	struct daemon daemon;
	struct outcome o;

	(void)state;
	snprintf(change, sizeof(change), "CNI_PATH=%s", dir);
	write_plugin(path, sizeof(path), "true");
	run_with(&o, &daemon, 200, "{}", changes, "1.0.0", "\"ipam\":{\"type\":\"fake-ipam\"}");
	assert_int_equal(o.status, 0);
	outcome_free(&o);
	daemon_fini(&daemon);
	expect_calls("DEL\n");
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(environment_is_refused_in_order),
		cmocka_unit_test(configuration_is_refused_by_code),
		cmocka_unit_test(settings_are_refused_by_name),
		cmocka_unit_test(what_is_asked_for_is_refused_by_name),
		cmocka_unit_test(version_error_names_what_is_supported),
		cmocka_unit_test(huge_and_deep_input_is_refused),
		cmocka_unit_test(unreadable_stdin_is_code_5),
		cmocka_unit_test(version_echoes_and_never_hangs),
		cmocka_unit_test(without_a_command_it_says_what_it_is),
		cmocka_unit_test(add_prints_each_version_in_its_form),
		cmocka_unit_test(a_missing_version_is_the_first),
		cmocka_unit_test(add_sends_what_was_asked_for),
		cmocka_unit_test(add_puts_ours_behind_what_came_before),
		cmocka_unit_test(dual_stack_splits_its_routes_in_old_versions),
		cmocka_unit_test(errors_of_the_daemon_get_their_codes),
		cmocka_unit_test(an_answer_that_makes_no_sense_is_code_103),
		cmocka_unit_test(gc_sends_what_to_keep),
		cmocka_unit_test(check_sends_address_and_mac_of_the_result),
		cmocka_unit_test(status_asks_for_its_network),
		cmocka_unit_test(as_ipam_plugin_it_gives_addresses_only),
		cmocka_unit_test(an_interface_in_the_way_is_code_102),
		cmocka_unit_test(without_a_daemon_only_del_succeeds),
		cmocka_unit_test(del_takes_any_configuration),
		cmocka_unit_test(delegated_addresses_become_ours),
		cmocka_unit_test(delegated_failures_are_passed_up_and_undone),
		cmocka_unit_test(a_missing_ipam_plugin_is_named),
		cmocka_unit_test(del_runs_the_ipam_plugin_without_a_namespace),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

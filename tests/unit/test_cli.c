/* The command line against a daemon that answers what the test tells it to. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "cli/cli.h"
#include "cli/view.h"

#define WORDS_MAX 24

/* Accepts one connection after the other, keeps the last request, sends `raw` or `status` with `answer`. */
struct daemon {
	pthread_t thread;
	int fd;
	char dir[64], path[96];
	int status;
	const char *answer;
	const char *raw; /* sent as it is when set */
	char request[8192];
};

struct result {
	int status;
	char *out, *err;
};

static size_t read_request(int fd, char *buf, size_t size)
{
	size_t len = 0, want = size - 1;
	const char *end, *length;
	ssize_t n;

	while (len < want && (n = read(fd, buf + len, want - len)) > 0) {
		len += n;
		buf[len] = '\0';
		end = strstr(buf, "\r\n\r\n");
		length = strstr(buf, "Content-Length: ");
		if (end && length)
			want = (end + 4 - buf) + strtoul(length + 16, NULL, 10);
	}
	buf[len] = '\0';
	return len;
}

static void *serve(void *arg)
{
	struct daemon *d = arg;
	char head[128];
	int fd;

	while ((fd = accept(d->fd, NULL, NULL)) >= 0) {
		read_request(fd, d->request, sizeof d->request);
		if (d->raw) {
			assert_true(write(fd, d->raw, strlen(d->raw)) >= 0);
		} else {
			snprintf(head, sizeof head, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n\r\n", d->status, strlen(d->answer));
			assert_true(write(fd, head, strlen(head)) > 0);
			assert_true(write(fd, d->answer, strlen(d->answer)) > 0);
		}
		close(fd);
	}
	return NULL;
}

static int setup(void **state)
{
	struct daemon *d = calloc(1, sizeof *d);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	assert_non_null(d);
	snprintf(d->dir, sizeof d->dir, "/tmp/trestle-cli.XXXXXX");
	assert_non_null(mkdtemp(d->dir));
	snprintf(d->path, sizeof d->path, "%s/s", d->dir);
	memcpy(addr.sun_path, d->path, strlen(d->path));
	d->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_return_code(bind(d->fd, (struct sockaddr *)&addr, sizeof addr), errno);
	assert_return_code(listen(d->fd, 8), errno);
	assert_int_equal(pthread_create(&d->thread, NULL, serve, d), 0);
	*state = d;
	return 0;
}

static int teardown(void **state)
{
	struct daemon *d = *state;

	shutdown(d->fd, SHUT_RDWR);
	pthread_join(d->thread, NULL);
	close(d->fd);
	unlink(d->path);
	rmdir(d->dir);
	free(d);
	return 0;
}

/* Runs a command line that is split at blanks; "''" stands for an empty word. */
static struct result run_with(struct daemon *d, const char *line, const char *input)
{
	char *copy = strdup(line), *word, *at = copy, *argv[WORDS_MAX + 1] = {(char *)"trestle"};
	struct result r = {0};
	size_t out_len, err_len;
	FILE *in, *out, *err;
	int argc = 1;

	while ((word = strsep(&at, " ")) && argc < WORDS_MAX)
		if (*word)
			argv[argc++] = strcmp(word, "''") ? word : (char *)"";
	assert_return_code(setenv("TRESTLE_SOCKET", d->path, 1), errno);
	d->request[0] = '\0';
	in = fmemopen((void *)(*input ? input : "\n"), *input ? strlen(input) : 1, "r");
	out = open_memstream(&r.out, &out_len);
	err = open_memstream(&r.err, &err_len);
	r.status = cli_run(argc, argv, in, out, err);
	fclose(in);
	fclose(out);
	fclose(err);
	free(copy);
	return r;
}

static struct result run(struct daemon *d, const char *line)
{
	return run_with(d, line, "");
}

static void answer(struct daemon *d, int status, const char *text)
{
	d->status = status;
	d->answer = text;
	d->raw = NULL;
}

static void result_free(struct result *r)
{
	free(r->out);
	free(r->err);
}

static void expect(struct result r, int status, const char *out, const char *err)
{
	assert_string_equal(r.err, err);
	assert_string_equal(r.out, out);
	assert_int_equal(r.status, status);
	result_free(&r);
}

static void assert_contains(const char *text, const char *fragment)
{
	if (!strstr(text, fragment))
		fail_msg("expected \"%s\" in:\n%s", fragment, text);
}

static void assert_request(const struct daemon *d, const char *first_line, const char *body)
{
	const char *found = strstr(d->request, "\r\n\r\n");

	assert_non_null(found);
	assert_int_equal(strncmp(d->request, first_line, strlen(first_line)), 0);
	assert_int_equal(strncmp(d->request + strlen(first_line), " HTTP/1.1\r\n", 11), 0);
	assert_string_equal(found + 4, body);
}

static const char status_answer[] =
	"{\"version\":\"0.1.0\",\"name\":\"n1\",\"host_id\":\"5f0c6a0e9d3b4c7f8a1e2d3c4b5a6978\",\"hostno\":1,"
	"\"cluster_id\":\"c0ffee00c0ffee00c0ffee00c0ffee00\",\"epoch\":3,\"state\":\"running\",\"listen\":\"192.0.2.11:7946\","
	"\"vtep\":\"192.0.2.11\",\"members\":{\"alive\":3,\"suspect\":0,\"dead\":0,\"left\":1},\"networks\":1,"
	"\"endpoints\":{\"local\":2,\"remote\":4},\"pools\":1,\"drift\":{\"missing\":0,\"foreign\":0,\"different\":0},\"in_"
	"step\":true,"
	"\"last_resync_age_ms\":4210,\"rss_bytes\":4456448,\"uptime_s\":93,\"counters\":{},\"warnings\":[]}";

static const char members_answer[] =
	"{\"members\":[{\"hostno\":1,\"name\":\"n1\",\"host_id\":\"5f0c6a0e9d3b4c7f8a1e2d3c4b5a6978\",\"state\":\"alive\","
	"\"since_s\":90,"
	"\"address\":\"192.0.2.11:7946\",\"vtep\":\"192.0.2.11\",\"rtt_us\":null,\"epoch\":1,\"incarnation\":0,\"self\":true,"
	"\"endpoints\":2},{\"hostno\":12,\"name\":\"db\\u001b[2J\",\"host_id\":\"77aa6a0e9d3b4c7f8a1e2d3c4b5a6978\",\"state\":"
	"\"dead\","
	"\"since_s\":7200,\"address\":\"[2001:db8::12]:7946\",\"vtep\":\"2001:db8::12\",\"rtt_us\":410,\"reach\":\"no "
	"daemon\",\"epoch\":1,"
	"\"incarnation\":0,"
	"\"self\":false,\"endpoints\":0}]}";

static const char network_answer[] =
	"{\"id\":\"1d2f6a0e9d3b4c7f8a1e2d3c4b5a6978\",\"name\":\"app\",\"vni\":7340113,\"mode\":\"l2\",\"mtu\":1450,"
	"\"pools\":[\"10.9.0.0/24\",\"2001:db8:9::/"
	"64\"],\"internal\":false,\"endpoints_local\":1,\"endpoints_total\":1,\"hosts\":1,"
	"\"conflict\":null,\"pinned\":true,\"docker_ids\":[\"9f2c\"],\"members\":[{\"hostno\":1,\"name\":\"n1\",\"vtep\":\"192.0."
	"2.11\","
	"\"state\":\"alive\",\"endpoints\":1}],\"endpoints\":[{\"id\":\"b5a1b5a1b5a1b5a1b5a1\",\"network\":\"app\","
	"\"network_id\":\"1d2f6a0e9d3b4c7f8a1e2d3c4b5a6978\",\"host\":\"n1\",\"hostno\":1,\"ipv4\":\"10.9.0.5\",\"ipv6\":null,"
	"\"mac\":\"02:54:00:00:10:01\",\"state\":\"joined\",\"link\":\"away\",\"since_s\":12,\"docker_network_id\":\"9f2c\","
	"\"vtep\":\"192.0.2.11\",\"error\":null}]}";

static void status_is_one_screen(void **state)
{
	struct daemon *d = *state;

	answer(d, 200, status_answer);
	expect(run(d, "status"), CLI_FINE,
		"host       n1, number 1, id 5f0c6a0e9d3b\n"
		"daemon     0.1.0, running for 1m33s, 4.2 MiB\n"
		"cluster    c0ffee00c0ff, epoch 3, in step\n"
		"underlay   gossip on 192.0.2.11:7946, VXLAN on 192.0.2.11\n"
		"members    3 alive, 0 suspect, 0 dead, 1 left\n"
		"networks   1, pools 1\n"
		"endpoints  2 here, 4 on other hosts\n"
		"drift      0, compared 4.2 s ago\n"
		"warnings   none\n",
		"");
	assert_request(d, "GET /v1/status", "");
}

static void status_with_a_warning_is_a_problem(void **state)
{
	json_t *model = json_loads(status_answer, 0, NULL);
	struct daemon *d = *state;
	struct result r;
	char *text;

	json_object_set_new(model, "warnings", json_pack("[s]", "host n3 is dead since 12 s"));
	json_object_set_new(model, "drift", json_pack("{s:i,s:i,s:i}", "missing", 1, "foreign", 2, "different", 3));
	json_object_set_new(model, "last_resync_age_ms", json_null());
	text = json_dumps(model, 0);
	answer(d, 200, text);
	r = run(d, "status");
	assert_int_equal(r.status, CLI_PROBLEM);
	assert_contains(r.out, "drift      6 (1 missing, 2 foreign, 3 different), not compared yet\n");
	assert_contains(r.out, "warning    host n3 is dead since 12 s\n");
	result_free(&r);
	r = run(d, "status -o json");
	assert_int_equal(r.status, CLI_PROBLEM);
	result_free(&r);
	free(text);
	json_decref(model);
}

static void members_are_aligned_and_a_dead_one_is_a_problem(void **state)
{
	struct daemon *d = *state;

	answer(d, 200, members_answer);
	expect(run(d, "members"), CLI_PROBLEM,
		"NO  NAME    STATE  SINCE  ADDRESS              VTEP          RTT      REACH      ENDPOINTS  SELF\n"
		" 1  n1      alive  1m30s  192.0.2.11:7946      192.0.2.11    -        -                  2  yes\n"
		"12  db?[2J  dead   2h00m  [2001:db8::12]:7946  2001:db8::12  0.41 ms  no daemon          0  no\n",
		"");
}

static void json_output_is_the_answer_itself(void **state)
{
	static const struct {
		const char *line, *answer;
	} cases[] = {
		{"status -o json", status_answer},
		{"-o json members", members_answer},
		{"members -o=json", members_answer},
		{"network inspect app -o json", network_answer},
		{"network create app -o json", network_answer},
		{"network ls -o json", "{\"networks\":[]}"},
		{"network rm app -o json", "{\"removed\":\"1d2f\"}"},
		{"endpoint ls -o json", "{\"endpoints\":[]}"},
		{"endpoint inspect 10.9.0.5 -o json", "{\"id\":\"b5\"}"},
		{"ipam show -o json", "{\"pools\":[]}"},
		{"token -o json", "{\"token\":\"trestle1.x\",\"expires_s\":1}"},
		{"join trestle1.x -o json", "{\"cluster_id\":\"c0\",\"hostno\":2,\"sponsor\":\"n1\"}"},
		{"leave -o json", "{\"left\":true}"},
		{"cni status pods -o json", "{}"},
	};
	struct daemon *d = *state;
	size_t i;

	for (i = 0; i < sizeof cases / sizeof *cases; i++) {
		json_t *model = json_loads(cases[i].answer, 0, NULL), *found;
		struct result r;

		answer(d, 200, cases[i].answer);
		r = run(d, cases[i].line);
		found = json_loads(r.out, 0, NULL);
		if (!found || !json_equal(model, found))
			fail_msg("%s printed:\n%s", cases[i].line, r.out);
		json_decref(model);
		json_decref(found);
		result_free(&r);
	}
}

static void network_ls_shows_conflicts(void **state)
{
	struct daemon *d = *state;

	answer(d, 200,
		"{\"networks\":[{\"id\":\"1d2f6a0e9d3b4c7f8a1e2d3c4b5a6978\",\"name\":\"app\",\"vni\":77,\"mode\":\"l2\",\"mtu\":"
		"1450,"
		"\"pools\":[\"10.9.0.0/24\"],\"internal\":false,\"endpoints_local\":2,\"endpoints_total\":6,\"hosts\":3,"
		"\"conflict\":\"app is claimed twice\",\"pinned\":true}]}");
	expect(run(d, "network ls"), CLI_PROBLEM,
		"ID            NAME  VNI  MODE   MTU  HERE  ALL  HOSTS  INTERNAL  POOLS\n"
		"1d2f6a0e9d3b  app    77  l2    1450     2    6      3  no        10.9.0.0/24\n"
		"conflict: app is claimed twice\n",
		"");
}

static void network_inspect_shows_hosts_and_endpoints(void **state)
{
	struct daemon *d = *state;

	answer(d, 200, network_answer);
	expect(run(d, "network inspect app"), CLI_FINE,
		"name        app\n"
		"id          1d2f6a0e9d3b4c7f8a1e2d3c4b5a6978\n"
		"vni         7340113\n"
		"mode        l2\n"
		"mtu         1450\n"
		"pools       10.9.0.0/24, 2001:db8:9::/64\n"
		"internal    no\n"
		"pinned      yes\n"
		"docker ids  9f2c\n"
		"conflict    -\n"
		"\n"
		"NO  HOST  VTEP        STATE  ENDPOINTS\n"
		" 1  n1    192.0.2.11  alive          1\n"
		"\n"
		"ID            HOST  IPV4      IPV6  MAC                STATE   LINK  SINCE\n"
		"b5a1b5a1b5a1  n1    10.9.0.5  -     02:54:00:00:10:01  joined  away  12s\n",
		"");
	assert_request(d, "GET /v1/networks/app", "");
}

static void network_create_sends_what_was_asked(void **state)
{
	struct daemon *d = *state;
	struct result r;

	answer(d, 200, network_answer);
	r = run(d, "network create app --subnet 10.9.0.0/24 --subnet6=2001:db8:9::/64 --mtu 1450 --vni 77 --internal");
	assert_int_equal(r.status, CLI_FINE);
	assert_contains(r.out, "vni         7340113\n");
	assert_request(d, "POST /v1/networks",
		"{\"name\":\"app\",\"subnet\":\"10.9.0.0/24\",\"subnet6\":\"2001:db8:9::/"
		"64\",\"mtu\":1450,\"vni\":77,\"internal\":true}");
	result_free(&r);
	r = run(d, "network create app");
	assert_request(d, "POST /v1/networks", "{\"name\":\"app\"}");
	result_free(&r);
}

static void objects_are_encoded_in_the_path(void **state)
{
	struct daemon *d = *state;

	answer(d, 200, "{\"removed\":\"1d2f\"}");
	expect(run(d, "network rm a/b?c"), CLI_FINE, "network a/b?c removed\n", "");
	assert_request(d, "DELETE /v1/networks/a%2Fb%3Fc", "");
	answer(d, 200, "{\"endpoints\":[]}");
	expect(run(d, "endpoint ls --network a&b"), CLI_FINE, "NETWORK  ID  HOST  IPV4  IPV6  MAC  STATE  LINK  SINCE\n", "");
	assert_request(d, "GET /v1/endpoints?network=a%26b", "");
	answer(d, 200, "{\"pools\":[]}");
	expect(run(d, "ipam show 10.9.0.0/24"), CLI_FINE, "no pools\n", "");
	assert_request(d, "GET /v1/ipam?pool=10.9.0.0%2F24", "");
}

static void endpoint_inspect_takes_an_address(void **state)
{
	struct daemon *d = *state;
	struct result r;

	answer(d, 200, "{\"id\":\"b5a1\",\"ipv6\":\"2001:db8::5\",\"since_s\":100000,\"error\":\"link is gone\"}");
	r = run(d, "endpoint inspect 2001:db8::5");
	assert_int_equal(r.status, CLI_PROBLEM);
	assert_contains(r.out, "ipv6               2001:db8::5\n");
	assert_contains(r.out, "since              1d03h\n");
	assert_contains(r.out, "error              link is gone\n");
	assert_request(d, "GET /v1/endpoints/2001%3Adb8%3A%3A5", "");
	result_free(&r);
}

static void endpoint_errors_are_a_problem(void **state)
{
	struct daemon *d = *state;
	struct result r;

	answer(d, 200, "{\"endpoints\":[{\"id\":\"b5a1\",\"network\":\"app\",\"error\":\"fdb row refused\"}]}");
	r = run(d, "endpoint ls");
	assert_int_equal(r.status, CLI_PROBLEM);
	assert_contains(r.out, "error: endpoint b5a1: fdb row refused\n");
	result_free(&r);
}

static void ipam_shows_who_holds_what(void **state)
{
	struct daemon *d = *state;

	answer(d, 200,
		"{\"pools\":[{\"pool\":\"10.9.0.0/"
		"24\",\"pool_id\":\"90ab\",\"network\":\"app\",\"space\":\"local\",\"size\":256,\"reserved\":2,"
		"\"leases\":3,\"shares\":[{\"host\":\"n1\",\"hostno\":1,\"held\":128,\"free\":125,\"fragments\":1,\"wanted\":"
		"true}]}]}");
	expect(run(d, "ipam show"), CLI_FINE,
		"10.9.0.0/24, network app, space local: 256 addresses, 2 reserved, 3 in use here\n"
		"  NO  HOST  HELD  FREE  FRAGMENTS  WANTED\n"
		"   1  n1     128   125          1  yes\n",
		"");
}

static void token_prints_nothing_but_the_token(void **state)
{
	struct daemon *d = *state;

	answer(d, 200, "{\"token\":\"trestle1.abc\",\"expires_s\":1795662000}");
	expect(run(d, "token --ttl 600"), CLI_FINE, "trestle1.abc\n", "");
	assert_request(d, "POST /v1/token", "{\"ttl_s\":600}");
}

static void join_reads_the_token_from_standard_input(void **state)
{
	struct daemon *d = *state;

	answer(d, 200, "{\"cluster_id\":\"c0ffee00c0ffee00c0ffee00c0ffee00\",\"hostno\":2,\"sponsor\":\"n1\"}");
	expect(run_with(d, "join -", "trestle1.abc \r\nmore\n"), CLI_FINE,
		"joined cluster c0ffee00c0ff as host 2, let in by n1\n", "");
	assert_request(d, "POST /v1/join", "{\"token\":\"trestle1.abc\"}");
	expect(run(d, "join trestle1.xyz"), CLI_FINE, "joined cluster c0ffee00c0ff as host 2, let in by n1\n", "");
	assert_request(d, "POST /v1/join", "{\"token\":\"trestle1.xyz\"}");
}

static void join_refuses_what_is_no_token_without_asking(void **state)
{
	char line[1024], tail[601];
	struct daemon *d = *state;
	struct result r;

	memset(tail, 'a', 600);
	tail[600] = '\0';
	snprintf(line, sizeof line, "join trestle1.%s", tail);
	r = run(d, line);
	assert_int_equal(r.status, CLI_CANNOT_TELL);
	result_free(&r);
	r = run_with(d, "join -", "hello\n");
	assert_int_equal(r.status, CLI_CANNOT_TELL);
	assert_contains(r.err, "trestle: join: expected what `trestle token` prints");
	result_free(&r);
	assert_string_equal(d->request, "");
}

static void leave_can_be_forced(void **state)
{
	struct daemon *d = *state;

	answer(d, 200, "{\"left\":true}");
	expect(run(d, "leave"), CLI_FINE, "left the cluster\n", "");
	assert_request(d, "POST /v1/leave", "{}");
	expect(run(d, "leave --force"), CLI_FINE, "left the cluster\n", "");
	assert_request(d, "POST /v1/leave", "{\"force\":true}");
}

static void forget_says_where_the_addresses_went_or_who_is_awaited(void **state)
{
	struct daemon *d = *state;

	answer(d, 200,
		"{\"host\":\"n3\",\"hostno\":3,\"heir\":\"n1\",\"decree\":1,\"done\":true,\"waiting_for\":[],\"assumed_fenced\":["
		"]}");
	expect(run(d, "forget n3 --fenced"), CLI_FINE, "forgot host n3: its addresses went to n1\n", "");
	assert_request(d, "POST /v1/forget", "{\"host\":\"n3\",\"fenced\":true}");
	expect(run(d, "forget n3 --fenced --assume-fenced n4,n5"), CLI_FINE, "forgot host n3: its addresses went to n1\n", "");
	assert_request(d, "POST /v1/forget", "{\"host\":\"n3\",\"fenced\":true,\"assume_fenced\":[\"n4\",\"n5\"]}");
	answer(d, 200,
		"{\"host\":\"n3\",\"hostno\":3,\"heir\":\"n1\",\"decree\":1,\"done\":false,\"waiting_for\":[\"n2\"],"
		"\"assumed_fenced\":[]}");
	expect(run(d, "forget n3 --fenced"), CLI_PROBLEM,
		"host n3 is being forgotten by n1; its addresses move when these have answered:\n  n2\n"
		"say it again to see how far it is; `trestle members` shows which of them are dead: bring those back. "
		"One that is alive may be frozen: `trestle status` there says so, and `trestle thaw` ends it. Or, where one is "
		"stopped for good too:\n  trestle forget n3 --fenced --assume-fenced n2\n",
		"");
}

static void ipam_check_names_what_it_found(void **state)
{
	struct daemon *d = *state;

	answer(d, 200,
		"{\"pools\":1,\"leases\":2,\"leaks\":[],\"duplicates\":[],\"ghosts\":[],"
		"\"kernel\":{\"missing\":0,\"foreign\":0,\"different\":0}}");
	expect(run(d, "ipam check"), CLI_FINE,
		"pools 1, leases of this host 2, duplicates, ghosts and leaks 0; kernel at the last comparison: 0 missing, 0 "
		"foreign\n",
		"");
	assert_request(d, "GET /v1/ipam/check", "");
	answer(d, 200,
		"{\"pools\":1,\"leases\":2,\"leaks\":[{\"address\":\"10.9.0.5\",\"pool\":\"10.9.0.0/24\",\"what\":\"leased\"}],"
		"\"duplicates\":[{\"address\":\"10.9.0.6\",\"pool\":\"10.9.0.0/24\",\"what\":\"twice\"}],\"ghosts\":[],"
		"\"kernel\":{\"missing\":0,\"foreign\":0,\"different\":0}}");
	expect(run(d, "ipam check"), CLI_PROBLEM,
		"duplicate  10.9.0.6 of 10.9.0.0/24: twice\nleak       10.9.0.5 of 10.9.0.0/24: leased\n"
		"pools 1, leases of this host 2, duplicates, ghosts and leaks 2; kernel at the last comparison: 0 missing, 0 "
		"foreign\n",
		"");
}

static void version_needs_no_daemon_for_its_own(void **state)
{
	struct daemon *d = *state;
	struct result r;

	answer(d, 200, "{\"version\":\"0.1.1\",\"api\":1,\"wire\":2,\"commit\":null}");
	r = run(d, "version");
	assert_int_equal(r.status, CLI_FINE);
	assert_contains(r.out, "trestle   0.1.0, API 1");
	assert_contains(r.out, "trestled  0.1.1, API 1, wire 2\n");
	result_free(&r);
	r = run(d, "version --socket /nonexistent/s");
	assert_int_equal(r.status, CLI_CANNOT_TELL);
	assert_contains(r.out, "trestle   0.1.0");
	assert_contains(r.err, "trestle: no daemon answers at /nonexistent/s (No such file or directory): start it");
	result_free(&r);
	r = run(d, "version --socket /nonexistent/s -o json");
	assert_contains(r.out, "\"daemon\": null");
	result_free(&r);
	expect(run(d, "--version"), CLI_FINE, "trestle 0.1.0\n", "");
}

/* How often the main thread has gone to sleep. */
static unsigned sleeps_of_main(void)
{
	static const char field[] = "\nvoluntary_ctxt_switches:\t";
	char status[4096] = "";
	FILE *f = fopen("/proc/self/status", "r");

	assert_non_null(f);
	assert_true(fread(status, 1, sizeof(status) - 1, f) > 0);
	fclose(f);
	assert_non_null(strstr(status, field));
	return (unsigned)strtoul(strstr(status, field) + strlen(field), NULL, 10);
}

/* Its socket is there when somebody has looked for it for a while. */
static void *start_late(void *arg)
{
	struct daemon *d = arg;
	const unsigned before = sleeps_of_main();
	char away[128];

	snprintf(away, sizeof away, "%s.away", d->path);
	for (unsigned i = 0; i < 900 && sleeps_of_main() < before + 3; i++)
		poll(NULL, 0, 1);
	assert_return_code(rename(away, d->path), errno);
	return NULL;
}

/* What a killed daemon leaves: a file, and nobody who listens. */
static void leave_socket(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(addr.sun_path, path, strlen(path));
	assert_return_code(bind(fd, (struct sockaddr *)&addr, sizeof addr), errno);
	close(fd);
}

static void starts_and_is_waited_for(struct daemon *d, bool killed)
{
	char away[128];
	pthread_t starter;
	struct result r;

	snprintf(away, sizeof away, "%s.away", d->path);
	assert_return_code(rename(d->path, away), errno);
	if (killed)
		leave_socket(d->path);
	assert_int_equal(pthread_create(&starter, NULL, start_late, d), 0);
	answer(d, 200, "{\"version\":\"0.1.1\",\"api\":1,\"wire\":2,\"commit\":null}");
	r = run(d, "version");
	assert_int_equal(r.status, CLI_FINE);
	assert_contains(r.out, "trestled  0.1.1, API 1, wire 2\n");
	result_free(&r);
	pthread_join(starter, NULL);
}

static void a_daemon_that_starts_is_waited_for(void **state)
{
	starts_and_is_waited_for(*state, false);
}

static void one_that_starts_where_one_was_killed_too(void **state)
{
	struct daemon *d = *state;
	char path[128], line[192];
	struct result r;

	starts_and_is_waited_for(d, true);
	snprintf(path, sizeof path, "%s.left", d->path);
	leave_socket(path);
	snprintf(line, sizeof line, "status --socket %s", path);
	r = run(d, line);
	assert_int_equal(r.status, CLI_CANNOT_TELL);
	assert_contains(r.err, "the socket of one that was killed: start it (`systemctl start trestled`; `journalctl");
	result_free(&r);
	unlink(path);
}

static void answers_of_the_daemon_decide_the_exit_status(void **state)
{
	static const struct {
		int http;
		const char *answer;
		int status;
		const char *message;
	} cases[] = {
		{404, "{\"error\":{\"code\":\"not-found\",\"message\":\"no such network\"}}", CLI_PROBLEM,
			"trestle: no such network\n"},
		{409, "{\"error\":{\"code\":\"conflict\",\"message\":\"has 2 endpoints\"}}", CLI_PROBLEM,
			"trestle: has 2 endpoints\n"},
		{403, "{\"error\":{\"code\":\"denied\",\"message\":\"no\"}}", CLI_PROBLEM, "trestle: no\n"},
		{400, "{\"error\":{\"code\":\"invalid\",\"message\":\"bad name\"}}", CLI_CANNOT_TELL, "trestle: bad name\n"},
		{503, "{\"error\":{\"code\":\"unreachable\",\"message\":\"n2 is away\"}}", CLI_CANNOT_TELL,
			"trestle: n2 is away\n"},
		{500, "{\"error\":{\"code\":\"new-code\",\"message\":\"odd\"}}", CLI_CANNOT_TELL, "trestle: odd\n"},
		{500, "oops", CLI_CANNOT_TELL, "answered with status 500 and no reason\n"},
		{200, "[1]", CLI_CANNOT_TELL, "is not trestled: answer: expected object, found array\n"},
	};
	struct daemon *d = *state;
	struct result r;
	size_t i;

	for (i = 0; i < sizeof cases / sizeof *cases; i++) {
		answer(d, cases[i].http, cases[i].answer);
		r = run(d, "network rm app");
		assert_string_equal(r.out, "");
		assert_contains(r.err, cases[i].message);
		assert_int_equal(r.status, cases[i].status);
		result_free(&r);
	}
}

static void bytes_that_are_no_answer_are_told(void **state)
{
	static const struct {
		const char *raw, *message;
	} cases[] = {
		{"", "closed the connection without an answer"},
		{"SSH-2.0-x\r\n\r\n", "no HTTP answer"},
		{"HTTP/1.1 200 OK\r\n", "no HTTP answer"},
		{"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\n{}", "no HTTP status"},
		{"HTTP/1.1 200 OK\r\n\r\n{}", "shorter or longer"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}", "shorter or longer"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n{}", "no valid Content-Length"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{", "shorter or longer"},
	};
	struct daemon *d = *state;
	struct result r;
	size_t i;

	for (i = 0; i < sizeof cases / sizeof *cases; i++) {
		d->raw = cases[i].raw;
		r = run(d, "status");
		assert_contains(r.err, cases[i].message);
		assert_int_equal(r.status, CLI_CANNOT_TELL);
		result_free(&r);
	}
}

static void bad_usage_is_told_without_asking(void **state)
{
	static const struct {
		const char *line, *message;
	} cases[] = {
		{"frobnicate", "\"frobnicate\" is no command: `trestle --help` lists them"},
		{"network", "network: expected one of ls, create, rm, inspect behind it"},
		{"network frob", "network: expected one of ls, create, rm, inspect, found \"frob\""},
		{"network create", "network create: expected NAME: usage is `trestle network create NAME [OPTIONS]`"},
		{"network rm a b", "\"b\" is one argument too many"},
		{"status now", "\"now\" is one argument too many: usage is `trestle status`"},
		{"endpoint ls app", "\"app\" is one argument too many: usage is `trestle endpoint ls [OPTIONS]`"},
		{"status --now", "status has no option --now: `trestle status --help` lists them"},
		{"--now status", "--now is no option"},
		{"status -o", "-o: expected json or table, found nothing"},
		{"status -o xml", "-o: expected json or table, found \"xml\""},
		{"status --socket", "--socket: expected a path behind it"},
		{"network create a --mtu", "--mtu: expected N behind it"},
		{"network create a --mtu 12", "--mtu: expected a number from 576 to 65535, found \"12\""},
		{"network create a --mtu 0x600", "--mtu: expected a number"},
		{"network create a --vni 16777216", "--vni: expected a number from 1 to 16777215, found \"16777216\""},
		{"network create a --vni ''", "--vni: expected a number"},
		{"network create \xff", "argument 3: expected UTF-8 text, found \"\xff\""},
		{"network create a --subnet \xc0\x80", "argument 5: expected UTF-8 text"},
		{"forget \xed\xa0\x80", "argument 2: expected UTF-8 text"},
		{"join trestle1.\xff", "argument 2: expected UTF-8 text"},
		{"--socket /\xff cni install", "argument 2: expected UTF-8 text"},
		{"token --ttl 0", "--ttl: expected seconds from 1 to 31536000, found \"0\""},
		{"join", "join: expected TOKEN"},
		{"join hello", "join: expected what `trestle token` prints"},
		{"help frob", "\"frob\" is no command"},
		{"uninstall", "uninstall: expected --purge"},
	};
	struct daemon *d = *state;
	struct result r;
	size_t i;

	for (i = 0; i < sizeof cases / sizeof *cases; i++) {
		r = run(d, cases[i].line);
		assert_int_equal(strncmp(r.err, "trestle: ", 9), 0);
		assert_contains(r.err, cases[i].message);
		assert_string_equal(r.out, "");
		assert_int_equal(r.status, CLI_CANNOT_TELL);
		assert_string_equal(d->request, "");
		result_free(&r);
	}
}

static void double_dash_ends_the_options(void **state)
{
	struct daemon *d = *state;

	answer(d, 200, "{\"removed\":\"1d2f\"}");
	expect(run(d, "network rm -- --force"), CLI_FINE, "network --force removed\n", "");
	assert_request(d, "DELETE /v1/networks/--force", "");
}

static void help_shows_usage_and_an_example_for_every_command(void **state)
{
	static const char *const names[] = {"status", "version", "help", "members", "token", "join", "leave", "network ls",
		"network create", "network rm", "network inspect", "endpoint ls", "endpoint inspect", "ipam show", "ipam check",
		"forget", "cni install", "cni status", "cni uninstall", "uninstall"};
	struct daemon *d = *state;
	struct result all = run(d, "--help"), r;
	char line[128], usage[128];
	size_t i;

	assert_int_equal(all.status, CLI_FINE);
	for (i = 0; i < sizeof names / sizeof *names; i++) {
		snprintf(line, sizeof line, "%s --help", names[i]);
		snprintf(usage, sizeof usage, "\n  %s ", names[i]);
		assert_contains(all.out, usage);
		r = run(d, line);
		assert_int_equal(r.status, CLI_FINE);
		snprintf(usage, sizeof usage, "Usage: trestle %s", names[i]);
		assert_contains(r.out, usage);
		assert_contains(r.out, "\nExample\n  ");
		assert_string_equal(r.err, "");
		result_free(&r);
	}
	result_free(&all);
	r = run(d, "network --help");
	assert_contains(r.out, "Usage: trestle network create NAME [OPTIONS]");
	assert_contains(r.out, "Usage: trestle network inspect NAME");
	result_free(&r);
	r = run(d, "help network create");
	assert_contains(r.out, "--internal");
	result_free(&r);
	r = run(d, "''");
	assert_int_equal(r.status, CLI_CANNOT_TELL);
	result_free(&r);
	r = run(d, " ");
	assert_int_equal(r.status, CLI_CANNOT_TELL);
	assert_contains(r.err, "Usage: trestle COMMAND");
	result_free(&r);
}

static void ages_are_short(void **state)
{
	static const struct {
		json_int_t seconds;
		const char *text;
	} cases[] = {{0, "0s"}, {59, "59s"}, {60, "1m00s"}, {3599, "59m59s"}, {3600, "1h00m"}, {86399, "23h59m"},
		{86400, "1d00h"}, {INT64_MAX, "106751991167300d15h"}};
	char text[32];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof cases / sizeof *cases; i++) {
		view_age(cases[i].seconds, text);
		assert_string_equal(text, cases[i].text);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(status_is_one_screen),
		cmocka_unit_test(status_with_a_warning_is_a_problem),
		cmocka_unit_test(members_are_aligned_and_a_dead_one_is_a_problem),
		cmocka_unit_test(json_output_is_the_answer_itself),
		cmocka_unit_test(network_ls_shows_conflicts),
		cmocka_unit_test(network_inspect_shows_hosts_and_endpoints),
		cmocka_unit_test(network_create_sends_what_was_asked),
		cmocka_unit_test(objects_are_encoded_in_the_path),
		cmocka_unit_test(endpoint_inspect_takes_an_address),
		cmocka_unit_test(endpoint_errors_are_a_problem),
		cmocka_unit_test(ipam_shows_who_holds_what),
		cmocka_unit_test(token_prints_nothing_but_the_token),
		cmocka_unit_test(join_reads_the_token_from_standard_input),
		cmocka_unit_test(join_refuses_what_is_no_token_without_asking),
		cmocka_unit_test(leave_can_be_forced),
		cmocka_unit_test(forget_says_where_the_addresses_went_or_who_is_awaited),
		cmocka_unit_test(ipam_check_names_what_it_found),
		cmocka_unit_test(version_needs_no_daemon_for_its_own),
		cmocka_unit_test(a_daemon_that_starts_is_waited_for),
		cmocka_unit_test(one_that_starts_where_one_was_killed_too),
		cmocka_unit_test(answers_of_the_daemon_decide_the_exit_status),
		cmocka_unit_test(bytes_that_are_no_answer_are_told),
		cmocka_unit_test(bad_usage_is_told_without_asking),
		cmocka_unit_test(double_dash_ends_the_options),
		cmocka_unit_test(help_shows_usage_and_an_example_for_every_command),
		cmocka_unit_test(ages_are_short),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

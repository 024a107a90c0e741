/* The plugin socket with a backend that writes down what it was asked. Case numbers (T8, N10, I11...) are those of the
 * conformance list. */
#include <errno.h>
#include <fcntl.h>
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

#include "base/clock.h"
#include "base/log.h"
#include "http/httpd.h"
#include "plugin/plugin.h"

#define NID "6f1ed002ab5595859014ebf0951522d9aab4e5e5e5c0e1d1b5e1f0c9d8b7a695"
#define EID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define IDS "\"NetworkID\":\"" NID "\",\"EndpointID\":\"" EID "\""
#define DEADLINE_MS 60000
#define HELD_MAX 8

struct fixture {
	struct event_base *base;
	struct plugin *plugin;
	char dir[64], path[96];
	char seen[4096]; /* what the backend was asked last; "" nothing */
	unsigned asked;
	uint8_t digest[16];
	struct err fail; /* answer with this unless ERR_OK */
	bool hold;	 /* keep calls instead of answering */
	bool gone;
	struct plugin_call *held[HELD_MAX];
	unsigned held_count;
};

struct client {
	int fd;
	char reply[65536];
	size_t len;
	bool closed;
};

struct reply {
	int status;
	char *body; /* points into the client's buffer */
	struct client *client;
};

/* ---- the fake backend ---- */

static bool before(struct fixture *f, struct plugin_call *call)
{
	f->asked++;
	if (f->hold && f->held_count < HELD_MAX)
		f->held[f->held_count++] = call;
	else if (f->fail.code)
		plugin_fail(call, &f->fail);
	else
		return false;
	return true;
}

static void note_pools(struct fixture *f, const struct plugin_pool *pools, unsigned count)
{
	char pool[PREFIX_TEXT_SIZE], gateway[PREFIX_TEXT_SIZE], aux[IP_TEXT_SIZE];
	size_t len = strlen(f->seen);
	unsigned i, j;

	for (i = 0; i < count; i++) {
		len += snprintf(f->seen + len, sizeof f->seen - len, " %s via %s", prefix_format(&pools[i].pool, pool),
			prefix_is_set(&pools[i].gateway) ? prefix_format(&pools[i].gateway, gateway) : "none");
		for (j = 0; j < pools[i].aux_count; j++)
			len += snprintf(f->seen + len, sizeof f->seen - len, " aux %s", ip_format(&pools[i].aux[j], aux));
	}
}

static void fake_create_network(void *ctx, struct plugin_call *call, const struct plugin_create_network *req)
{
	struct fixture *f = ctx;

	snprintf(f->seen, sizeof f->seen, "network %s name=%s mtu=%u vni=%u mode=%s prefix=%s%s%s", req->network_id,
		req->name ? req->name : "-", req->mtu, req->vni, req->mode ? req->mode : "-", req->if_prefix,
		req->internal ? " internal" : "", req->enable_ipv6 ? " v6" : "");
	note_pools(f, req->pool4, req->pool4_count);
	note_pools(f, req->pool6, req->pool6_count);
	memcpy(f->digest, req->digest, sizeof f->digest);
	if (!before(f, call))
		plugin_done(call);
}

static void fake_delete_network(void *ctx, struct plugin_call *call, const char *network_id)
{
	struct fixture *f = ctx;

	snprintf(f->seen, sizeof f->seen, "delete network %s", network_id);
	if (!before(f, call))
		plugin_done(call);
}

static void fake_create_endpoint(void *ctx, struct plugin_call *call, const struct plugin_create_endpoint *req)
{
	struct plugin_endpoint_created made = {.mac = {{2, 0x54, 0, 0, 0x10, 1}}};
	char a4[PREFIX_TEXT_SIZE], a6[PREFIX_TEXT_SIZE], mac[MAC_TEXT_SIZE];
	struct fixture *f = ctx;

	snprintf(f->seen, sizeof f->seen, "endpoint %.4s/%.4s 4=%s 6=%s mac=%s", req->network_id, req->endpoint_id,
		prefix_is_set(&req->address4) ? prefix_format(&req->address4, a4) : "-",
		prefix_is_set(&req->address6) ? prefix_format(&req->address6, a6) : "-", mac_format(&req->mac, mac));
	if (!before(f, call))
		plugin_done_endpoint(call, &made);
}

static void note_ids(struct fixture *f, const char *verb, const char *network_id, const char *endpoint_id, const char *more)
{
	snprintf(f->seen, sizeof f->seen, "%s %.4s/%.4s%s", verb, network_id, endpoint_id, more);
}

static void fake_delete_endpoint(void *ctx, struct plugin_call *call, const char *network_id, const char *endpoint_id)
{
	note_ids(ctx, "delete", network_id, endpoint_id, "");
	if (!before(ctx, call))
		plugin_done(call);
}

static void fake_join(void *ctx, struct plugin_call *call, const char *network_id, const char *endpoint_id, const char *sandbox)
{
	struct plugin_joined joined = {.src_name = "tr0123456789ab", .dst_prefix = "eth"};

	note_ids(ctx, "join", network_id, endpoint_id, sandbox);
	if (!before(ctx, call))
		plugin_done_join(call, &joined);
}

static void fake_leave(void *ctx, struct plugin_call *call, const char *network_id, const char *endpoint_id)
{
	note_ids(ctx, "leave", network_id, endpoint_id, "");
	if (!before(ctx, call))
		plugin_done(call);
}

static void fake_program(void *ctx, struct plugin_call *call, const char *network_id, const char *endpoint_id)
{
	note_ids(ctx, "program", network_id, endpoint_id, "");
	if (!before(ctx, call))
		plugin_done(call);
}

static void fake_request_pool(void *ctx, struct plugin_call *call, const struct plugin_request_pool *req)
{
	struct plugin_pool_given given = {.pool_id = "trestle-local/10.9.0.0/24"};
	char pool[PREFIX_TEXT_SIZE], within[PREFIX_TEXT_SIZE];
	struct fixture *f = ctx;

	snprintf(f->seen, sizeof f->seen, "pool %s %s within %s %s name=%s", req->space,
		prefix_is_set(&req->pool) ? prefix_format(&req->pool, pool) : "any",
		prefix_is_set(&req->within) ? prefix_format(&req->within, within) : "all", req->v6 ? "v6" : "v4",
		req->name ? req->name : "-");
	given.pool = req->pool;
	if (!before(f, call))
		plugin_done_pool(call, &given);
}

static void fake_release_pool(void *ctx, struct plugin_call *call, const char *pool_id)
{
	struct fixture *f = ctx;

	snprintf(f->seen, sizeof f->seen, "release pool %s", pool_id);
	if (!before(f, call))
		plugin_done(call);
}

static void fake_request_address(void *ctx, struct plugin_call *call, const struct plugin_request_address *req)
{
	struct prefix address = {.length = 24};
	char text[IP_TEXT_SIZE], mac[MAC_TEXT_SIZE];
	struct fixture *f = ctx;

	snprintf(f->seen, sizeof f->seen, "address %s of %s%s%s mac=%s name=%s",
		ip_is_set(&req->address) ? ip_format(&req->address, text) : "any", req->pool_id, req->gateway ? " gateway" : "",
		req->endpoint ? " endpoint" : "", mac_format(&req->mac, mac), req->endpoint_name ? req->endpoint_name : "-");
	assert_int_equal(ip_parse("10.9.0.5", &address.ip, NULL), 0);
	if (!before(f, call))
		plugin_done_address(call, &address);
}

static void fake_release_address(void *ctx, struct plugin_call *call, const char *pool_id, const struct ip *address)
{
	struct fixture *f = ctx;
	char text[IP_TEXT_SIZE];

	snprintf(f->seen, sizeof f->seen, "release %s of %s", ip_format(address, text), pool_id);
	if (!before(f, call))
		plugin_done(call);
}

static const struct plugin_backend backend = {
	.create_network = fake_create_network,
	.delete_network = fake_delete_network,
	.create_endpoint = fake_create_endpoint,
	.delete_endpoint = fake_delete_endpoint,
	.join = fake_join,
	.leave = fake_leave,
	.program = fake_program,
	.request_pool = fake_request_pool,
	.release_pool = fake_release_pool,
	.request_address = fake_request_address,
	.release_address = fake_release_address,
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct err err;

	assert_non_null(f);
	log_set_level(LOG_LEVEL_ERROR);
	snprintf(f->dir, sizeof f->dir, "/tmp/trestle-plugin.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof f->path, "%s/plugins/trestle.sock", f->dir);
	f->base = event_base_new();
	if (plugin_open(f->base, f->path, &backend, f, &f->plugin, &err) < 0)
		fail_msg("%s", err.text);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char sub[96];

	plugin_close(f->plugin);
	event_base_free(f->base);
	snprintf(sub, sizeof sub, "%s/plugins", f->dir);
	assert_return_code(rmdir(sub), errno); /* the socket is gone, too */
	rmdir(f->dir);
	free(f);
	return 0;
}

/* ---- the client ---- */

static struct client *client_open(struct fixture *f)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct client *c = calloc(1, sizeof *c);

	assert_non_null(c);
	memcpy(addr.sun_path, f->path, strlen(f->path));
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_return_code(connect(c->fd, (struct sockaddr *)&addr, sizeof addr), errno);
	return c;
}

static void client_close(struct client *c)
{
	close(c->fd);
	free(c);
}

static void turn(struct fixture *f)
{
	assert_int_not_equal(event_base_loop(f->base, EVLOOP_NONBLOCK), -1);
}

/* Writes all of it while the server runs. A server that closes in the middle ends it. */
static void client_write(struct fixture *f, struct client *c, const char *data, size_t len)
{
	uint64_t deadline_ms = clock_boot_ms() + DEADLINE_MS;

	while (len && clock_boot_ms() < deadline_ms) {
		ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL);

		if (n > 0) {
			data += n;
			len -= n;
		} else if (n < 0 && errno != EAGAIN) {
			return;
		}
		turn(f);
	}
	assert_int_equal(len, 0);
}

static struct reply client_read(struct fixture *f, struct client *c)
{
	uint64_t deadline_ms = clock_boot_ms() + DEADLINE_MS;
	struct reply r = {.client = c};
	const char *length;
	char *end;

	while (!c->closed && clock_boot_ms() < deadline_ms) {
		ssize_t n = recv(c->fd, c->reply + c->len, sizeof c->reply - 1 - c->len, 0);

		if (n > 0)
			c->len += n;
		else
			c->closed = n == 0 || errno != EAGAIN;
		turn(f);
	}
	assert_true(c->closed);
	end = strstr(c->reply, "\r\n\r\n");
	assert_non_null(end);
	assert_int_equal(sscanf(c->reply, "HTTP/1.1 %d", &r.status), 1);
	length = strcasestr(c->reply, "\r\nContent-Length: ");
	assert_non_null(length); /* T17 */
	r.body = end + 4;
	assert_int_equal(strtoul(length + 18, NULL, 10), strlen(r.body));
	return r;
}

static struct reply send_raw(struct fixture *f, const char *data, size_t len)
{
	struct client *c = client_open(f);

	f->seen[0] = '\0';
	client_write(f, c, data, len);
	return client_read(f, c);
}

static struct reply post_bytes(struct fixture *f, const char *path, const char *body, size_t len)
{
	char *request = malloc(len + 512);
	struct reply r;
	int head;

	assert_non_null(request);
	/* Engines send an empty Host and no Content-Type. */
	head = snprintf(request, 512,
		"POST %s HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: %zu\r\n"
		"Accept: application/vnd.docker.plugins.v1.2+json\r\n\r\n",
		path, len);
	memcpy(request + head, body, len);
	r = send_raw(f, request, head + len);
	free(request);
	return r;
}

static struct reply post(struct fixture *f, const char *path, const char *body)
{
	return post_bytes(f, path, body, strlen(body));
}

static void assert_contains(const char *text, const char *fragment)
{
	if (!strstr(text, fragment))
		fail_msg("expected \"%s\" in: %s", fragment, text);
}

/* "ok": status 200 and this JSON. */
static void expect_ok(struct reply r, const char *json)
{
	json_t *found = json_loads(r.body, 0, NULL), *expected = json_loads(json, 0, NULL);

	assert_non_null(expected);
	if (r.status != 200 || !json_equal(found, expected))
		fail_msg("expected 200 %s, found %d %s", json, r.status, r.body);
	json_decref(found);
	json_decref(expected);
	client_close(r.client);
}

/* "fail(N)": status N with equal non-empty Err and Error (I26). */
static void expect_fail(struct reply r, int status, const char *fragment)
{
	json_t *found = json_loads(r.body, 0, NULL);
	const char *err_text = json_string_value(json_object_get(found, "Err"));
	const char *error_text = json_string_value(json_object_get(found, "Error"));

	if (r.status != status || !err_text || !error_text || !*err_text)
		fail_msg("expected %d with Err and Error, found %d %s", status, r.status, r.body);
	assert_string_equal(err_text, error_text);
	assert_contains(err_text, fragment);
	json_decref(found);
	client_close(r.client);
}

#define BASE_OPTIONS "\"Options\":{\"com.docker.network.enable_ipv6\":false,\"com.docker.network.generic\":{}}"
#define BASE_DATA "\"IPv4Data\":[{\"AddressSpace\":\"l\",\"Gateway\":\"10.9.0.1/24\",\"Pool\":\"10.9.0.0/24\"}],\"IPv6Data\":[]"
#define BASE_NETWORK "{\"NetworkID\":\"" NID "\"," BASE_OPTIONS "," BASE_DATA "}\n"
#define NETWORK_WITH(generic)                                                                                                    \
	"{\"NetworkID\":\"" NID "\",\"Options\":{\"com.docker.network.generic\":{" generic "}}," BASE_DATA "}"
#define NETWORK_POOL(pool) "{\"NetworkID\":\"" NID "\",\"IPv4Data\":[{\"Pool\":" pool "}]}"
#define AUX_15                                                                                                                   \
	"{\"p\":\"10.9.0.16/24\",\"o\":\"10.9.0.15/24\",\"n\":\"10.9.0.14/24\",\"m\":\"10.9.0.13/24\",\"l\":\"10.9.0.12/24\","   \
	"\"k\":\"10.9.0.11/24\",\"j\":\"10.9.0.10/24\",\"a\":\"10.9.0.1/24\",\"b\":\"10.9.0.2/24\",\"c\":\"10.9.0.3/24\","       \
	"\"d\":\"10.9.0.4/24\",\"e\":\"10.9.0.5/24\",\"f\":\"10.9.0.6/24\",\"g\":\"10.9.0.7/24\",\"h\":\"10.9.0.8/24\""
#define AUX_16 AUX_15 ",\"i\":\"10.9.0.9/24\"}"
#define AUX_17 AUX_15 ",\"i\":\"10.9.0.9/24\",\"q\":\"10.9.0.17/24\"}"
#define ENDPOINT_WITH(interface) "{" IDS ",\"Interface\":{" interface "},\"Options\":{}}"
#define POOL_WITH(rest) "{\"AddressSpace\":\"trestle-local\"," rest "}"

/* ---- cases ---- */

static void registration_is_answered_without_a_backend(void **state)
{
	/* T1, T3, T4, I1: empty, {} or even broken bodies. An error here would unregister the driver for good. */
	static const char *const bodies[] = {"", "{}", "{", "null"};
	struct fixture *f = *state;
	size_t i;

	f->hold = true;
	for (i = 0; i < sizeof bodies / sizeof *bodies; i++) {
		expect_ok(post(f, "/Plugin.Activate", bodies[i]), "{\"Implements\":[\"NetworkDriver\",\"IpamDriver\"]}");
		expect_ok(post(f, "/NetworkDriver.GetCapabilities", bodies[i]),
			"{\"Scope\":\"local\",\"ConnectivityScope\":\"global\"}");
		expect_ok(post(f, "/IpamDriver.GetCapabilities", bodies[i]),
			"{\"RequiresMACAddress\":false,\"RequiresRequestReplay\":false}");
		expect_ok(post(f, "/IpamDriver.GetDefaultAddressSpaces", bodies[i]),
			"{\"LocalDefaultAddressSpace\":\"trestle-local\",\"GlobalDefaultAddressSpace\":\"trestle-global\"}");
	}
	assert_int_equal(f->asked, 0);
}

static void each_call_is_decoded_and_answered(void **state)
{
	static const struct {
		const char *path, *body, *seen, *answer;
	} cases[] = {
		/* N1, N4, N6, N7, N5 */
		{"/NetworkDriver.CreateNetwork", BASE_NETWORK,
			"network " NID " name=- mtu=0 vni=0 mode=- prefix=eth 10.9.0.0/24 via 10.9.0.1/24", "{}"},
		{"/NetworkDriver.CreateNetwork",
			"{\"NetworkID\":\"b1qrcb0yjbhuplhpq4i5kr5kz\",\"IPv4Data\":[{\"Pool\":\"10.9.0.0/24\"}]}",
			"network b1qrcb0yjbhuplhpq4i5kr5kz name=- mtu=0 vni=0 mode=- prefix=eth 10.9.0.0/24 via none", "{}"},
		{"/NetworkDriver.CreateNetwork",
			"{\"NetworkID\":\"" NID
			"\",\"Options\":{\"com.docker.network.enable_ipv4\":false,\"com.docker.network.enable_ipv6\":true,"
			"\"com.docker.network.internal\":true},\"IPv4Data\":[],\"IPv6Data\":[{\"Pool\":\"2001:db8::/64\","
			"\"Gateway\":\"2001:db8::1/64\"}]}",
			"network " NID " name=- mtu=0 vni=0 mode=- prefix=eth internal v6 2001:db8::/64 via 2001:db8::1/64",
			"{}"},
		{"/NetworkDriver.CreateNetwork",
			"{\"NetworkID\":\"" NID
			"\",\"IPv4Data\":[{\"Pool\":\"10.9.0.0/24\"},{\"Pool\":\"10.9.1.7/24\",\"AuxAddresses\":"
			"{\"a\":\"10.9.1.9/24\"}}]}",
			"network " NID
			" name=- mtu=0 vni=0 mode=- prefix=eth 10.9.0.0/24 via none 10.9.1.0/24 via none aux 10.9.1.9",
			"{}"},
		/* Names are forgotten, the order is the addresses', one address under two names is one */
		{"/NetworkDriver.CreateNetwork",
			NETWORK_POOL("\"10.9.0.0/24\",\"AuxAddresses\":" AUX_16 "},{\"Pool\":\"10.9.1.0/24\",\"AuxAddresses\":"
				     "{\"a\":\"10.9.1.9/24\",\"b\":\"10.9.1.200/24\",\"c\":\"10.9.1.9/24\",\"d\":\"10.9.1.5/"
				     "24\"}},{\"Pool\":\"10.9.2.0/24\",\"AuxAddresses\":{}"),
			"network " NID
			" name=- mtu=0 vni=0 mode=- prefix=eth 10.9.0.0/24 via none aux 10.9.0.1 aux 10.9.0.2 aux 10.9.0.3 aux "
			"10.9.0.4 aux 10.9.0.5 aux 10.9.0.6 aux 10.9.0.7 aux 10.9.0.8 aux 10.9.0.9 aux 10.9.0.10 aux 10.9.0.11 "
			"aux 10.9.0.12 aux 10.9.0.13 aux 10.9.0.14 aux 10.9.0.15 aux 10.9.0.16 10.9.1.0/24 via none aux "
			"10.9.1.5 aux 10.9.1.9 aux 10.9.1.200 10.9.2.0/24 via none",
			"{}"},
		{"/NetworkDriver.CreateNetwork",
			"{\"NetworkID\":\"" NID "\",\"IPv6Data\":[{\"Pool\":\"2001:db8::/64\",\"AuxAddresses\":"
			"{\"a\":\"2001:db8::9/64\"}}]}",
			"network " NID " name=- mtu=0 vni=0 mode=- prefix=eth 2001:db8::/64 via none aux 2001:db8::9", "{}"},
		{"/NetworkDriver.CreateNetwork",
			NETWORK_WITH(
				"\"trestle.network\":\"app\",\"trestle.mtu\":\"1400\",\"com.docker.network.driver.mtu\":\"1400\","
				"\"trestle.vni\":\"77\",\"trestle.mode\":\"l2\",\"com.docker.network.container_iface_prefix\":"
				"\"net\","
				"\"encrypted\":\"false\",\"unknown\":\"x\",\"odd\":[1]"), /* N9 */
			"network " NID " name=app mtu=1400 vni=77 mode=l2 prefix=net 10.9.0.0/24 via 10.9.0.1/24", "{}"},
		/* T16: unknown keys on every level, null for what is empty */
		{"/NetworkDriver.CreateNetwork",
			"{\"x\":1,\"NetworkID\":\"" NID
			"\",\"Options\":null,\"IPv4Data\":[{\"x\":{},\"Pool\":\"10.9.0.0/24\",\"Gateway\":null,"
			"\"AuxAddresses\":null,\"AddressSpace\":null}],\"IPv6Data\":null}",
			"network " NID " name=- mtu=0 vni=0 mode=- prefix=eth 10.9.0.0/24 via none", "{}"},
		{"/NetworkDriver.DeleteNetwork", "{\"NetworkID\":\"" NID "\"}", "delete network " NID, "{}"},
		/* N12, N13, N14 */
		{"/NetworkDriver.CreateEndpoint",
			ENDPOINT_WITH("\"Address\":\"10.9.0.5/24\",\"AddressIPv6\":\"\",\"MacAddress\":\"\""),
			"endpoint 6f1e/0123 4=10.9.0.5/24 6=- mac=00:00:00:00:00:00",
			"{\"Interface\":{\"MacAddress\":\"02:54:00:00:10:01\"}}"},
		{"/NetworkDriver.CreateEndpoint",
			"{" IDS ",\"Interface\":{\"Address\":\"10.9.0.5/24\",\"AddressIPv6\":\"2001:db8::5/"
			"64\",\"MacAddress\":\"02:42:0a:00:00:01\"},"
			"\"Options\":{\"com.docker.network.endpoint.macaddress\":\"AkIKAAAB\",\"com.docker.network.portmap\":[],"
			"\"k\":\"v\"}}",
			"endpoint 6f1e/0123 4=10.9.0.5/24 6=2001:db8::5/64 mac=02:42:0a:00:00:01", "{\"Interface\":{}}"},
		{"/NetworkDriver.DeleteEndpoint", "{" IDS "}", "delete 6f1e/0123", "{}"},
		{"/NetworkDriver.EndpointOperInfo", "{" IDS "}", "", "{\"Value\":{}}"}, /* N25: never an error */
		{"/NetworkDriver.Join",
			"{" IDS
			",\"SandboxKey\":\"/var/run/docker/netns/abc\",\"Options\":{\"com.docker.network.portmap\":null}}",
			"join 6f1e/0123/var/run/docker/netns/abc",
			"{\"InterfaceName\":{\"SrcName\":\"tr0123456789ab\",\"DstPrefix\":\"eth\"}}"},
		{"/NetworkDriver.Leave", "{" IDS "}", "leave 6f1e/0123", "{}"},
		{"/NetworkDriver.ProgramExternalConnectivity", "{" IDS ",\"Options\":{}}", "program 6f1e/0123", "{}"},
		{"/NetworkDriver.ProgramExternalConnectivity", /* N39 */
			"{" IDS ",\"Options\":{\"com.docker.network.endpoint.exposedports\":[],\"com.docker.network.portmap\":[],"
			"\"com.docker.network.driver.private.no_proxy_6to4\":true}}",
			"program 6f1e/0123", "{}"},
		{"/NetworkDriver.RevokeExternalConnectivity", "{" IDS "}", "", "{}"}, /* N41 */
		{"/NetworkDriver.DiscoverNew",
			"{\"DiscoveryType\":1,\"DiscoveryData\":{\"Address\":\"192.0.2.1\",\"Self\":true}}", "", "{}"},
		{"/NetworkDriver.DiscoverDelete", "{\"DiscoveryType\":7,\"DiscoveryData\":[1],\"x\":2}", "", "{}"}, /* N43 */
		/* N44, T15 */
		{"/NetworkDriver.AllocateNetwork",
			"{\"NetworkID\":\"b1qrcb0yjbhuplhpq4i5kr5kz\",\"Options\":{\"a\":\"a\\u003cb\\ud83d\\ude00\"},"
			"\"IPv4Data\":[],\"IPv6Data\":null}",
			"", "{\"Options\":{\"a\":\"a<b\xf0\x9f\x98\x80\"}}"},
		{"/NetworkDriver.AllocateNetwork", "{\"NetworkID\":\"b1\",\"Options\":null}", "", "{\"Options\":{}}"},
		{"/NetworkDriver.FreeNetwork", "{\"NetworkID\":\"b1\"}", "", "{}"},			    /* N45 */
		{"/NetworkDriver.GwAllocCheck", "{\"Options\":{\"com.docker.network.internal\":true}}", "", /* N46 */
			"{\"SkipIPv4\":false,\"SkipIPv6\":false}"},
		/* I2, I8, I9, I12, I13 */
		{"/IpamDriver.RequestPool", POOL_WITH("\"Pool\":\"10.9.0.0/24\",\"SubPool\":\"\",\"Options\":null,\"V6\":false"),
			"pool trestle-local 10.9.0.0/24 within all v4 name=-",
			"{\"PoolID\":\"trestle-local/10.9.0.0/24\",\"Pool\":\"10.9.0.0/24\",\"Data\":{}}"},
		{"/IpamDriver.RequestPool", POOL_WITH("\"Pool\":\"10.9.0.7/24\",\"SubPool\":\"10.9.0.128/26\""),
			"pool trestle-local 10.9.0.0/24 within 10.9.0.128/26 v4 name=-",
			"{\"PoolID\":\"trestle-local/10.9.0.0/24\",\"Pool\":\"10.9.0.0/24\",\"Data\":{}}"},
		{"/IpamDriver.RequestPool", POOL_WITH("\"Pool\":\"2001:db8:1::/64\",\"V6\":false"),
			"pool trestle-local 2001:db8:1::/64 within all v6 name=-",
			"{\"PoolID\":\"trestle-local/10.9.0.0/24\",\"Pool\":\"2001:db8:1::/64\",\"Data\":{}}"},
		{"/IpamDriver.RequestPool",
			"{\"AddressSpace\":\"trestle-global\",\"Pool\":\"0.0.0.0/28\",\"Options\":{\"trestle.network\":\"app\","
			"\"com.docker.network.ipam.serial\":\"true\",\"RequestAddressType\":\"com.docker.network.gateway\"}}",
			"pool trestle-global 0.0.0.0/28 within all v4 name=app",
			"{\"PoolID\":\"trestle-local/10.9.0.0/24\",\"Pool\":\"0.0.0.0/28\",\"Data\":{}}"},
		{"/IpamDriver.ReleasePool", "{\"PoolID\":\"trestle-local/10.9.0.0/24\"}",
			"release pool trestle-local/10.9.0.0/24", "{}"},
		/* I14, I15, I24 */
		{"/IpamDriver.RequestAddress",
			"{\"PoolID\":\"p\",\"Address\":\"\",\"Options\":{\"RequestAddressType\":\"com.docker.network.gateway\"}}",
			"address any of p gateway mac=00:00:00:00:00:00 name=-", "{\"Address\":\"10.9.0.5/24\",\"Data\":{}}"},
		{"/IpamDriver.RequestAddress", "{\"PoolID\":\"p\",\"Address\":\"10.9.0.5\",\"Options\":null}",
			"address 10.9.0.5 of p mac=00:00:00:00:00:00 name=-", "{\"Address\":\"10.9.0.5/24\",\"Data\":{}}"},
		{"/IpamDriver.RequestAddress", "{\"PoolID\":\"p\",\"Address\":null}",
			"address any of p endpoint mac=00:00:00:00:00:00 name=-", "{\"Address\":\"10.9.0.5/24\",\"Data\":{}}"},
		{"/IpamDriver.RequestAddress",
			"{\"PoolID\":\"p\",\"Address\":\"10.9.0.5\",\"Options\":{\"com.docker.network.endpoint.name\":\"web\","
			"\"com.docker.network.endpoint.macaddress\":\"02:42:0a:00:00:01\",\"com.docker.network.ipam.serial\":"
			"\"true\",\"x\":\"y\"}}",
			"address 10.9.0.5 of p endpoint mac=02:42:0a:00:00:01 name=web",
			"{\"Address\":\"10.9.0.5/24\",\"Data\":{}}"},
		/* I22 */
		{"/IpamDriver.ReleaseAddress", "{\"PoolID\":\"p\",\"Address\":\"10.9.0.5\"}", "release 10.9.0.5 of p", "{}"},
		{"/IpamDriver.ReleaseAddress", "{\"PoolID\":\"p\",\"Address\":\"10.9.0.5/24\"}", "release 10.9.0.5 of p", "{}"},
		{"/IpamDriver.ReleaseAddress", "{\"PoolID\":\"p\",\"Address\":\"2001:db8::5\"}", "release 2001:db8::5 of p",
			"{}"},
	};
	struct fixture *f = *state;
	size_t i;

	for (i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct reply r = post(f, cases[i].path, cases[i].body);

		if (strcmp(f->seen, cases[i].seen))
			fail_msg("%s %s\nexpected \"%s\"\n   found \"%s\"\n  answer %s", cases[i].path, cases[i].body,
				cases[i].seen, f->seen, r.body);
		expect_ok(r, cases[i].answer);
	}
}

static void malformed_bodies_are_refused_and_reach_no_backend(void **state)
{
	static const struct {
		const char *path, *body, *fragment;
	} cases[] = {
		/* T8, T9 */
		{"/NetworkDriver.CreateNetwork", "{", "CreateNetwork: line 1"},
		{"/NetworkDriver.CreateNetwork", "[]", "CreateNetwork: expected object, found array"},
		{"/NetworkDriver.CreateNetwork", "\"x\"", "CreateNetwork: "},
		{"/NetworkDriver.CreateNetwork", "{} {}", "CreateNetwork: line 1"},
		{"/NetworkDriver.CreateNetwork", "{\"NetworkID\": 5}", "CreateNetwork.NetworkID: expected string, found integer"},
		{"/NetworkDriver.CreateNetwork", "{}", "CreateNetwork.NetworkID: expected string, found nothing"},
		{"/NetworkDriver.DeleteNetwork", "{\"NetworkID\":\"a\",\"NetworkID\":\"b\"}", "duplicate"},
		{"/NetworkDriver.DeleteNetwork", "{\"NetworkID\":null}", "expected string, found null"},
		/* N52 */
		{"/NetworkDriver.DeleteNetwork", "{\"NetworkID\":\"../../etc\"}", "found \"../../etc\""},
		{"/NetworkDriver.DeleteNetwork", "{\"NetworkID\":\"\"}", "expected 1 to 128 of [0-9A-Za-z_-]"},
		{"/NetworkDriver.DeleteNetwork", "{\"NetworkID\":\"a b\"}", "NetworkID"},
		{"/NetworkDriver.DeleteNetwork", "{\"NetworkID\":\"a\\u0000b\"}", "DeleteNetwork: line 1"},
		{"/NetworkDriver.Leave", "{\"NetworkID\":\"" NID "\"}", "Leave.EndpointID: expected string, found nothing"},
		{"/NetworkDriver.EndpointOperInfo", "{\"NetworkID\":\"" NID "\",\"EndpointID\":\"a/b\"}", "EndpointID"},
		{"/NetworkDriver.RevokeExternalConnectivity", "{\"NetworkID\":7}", "NetworkID"},
		/* N8 */
		{"/NetworkDriver.CreateNetwork", NETWORK_POOL("\"10.9.0.0/33\""), "IPv4Data[0].Pool"},
		{"/NetworkDriver.CreateNetwork", NETWORK_POOL("\"x\""), "IPv4Data[0].Pool"},
		{"/NetworkDriver.CreateNetwork", NETWORK_POOL("\"10.9.0.0\""), "IPv4Data[0].Pool"},
		{"/NetworkDriver.CreateNetwork", NETWORK_POOL("null"), "IPv4Data[0].Pool: expected string, found null"},
		{"/NetworkDriver.CreateNetwork", "{\"NetworkID\":\"" NID "\",\"IPv4Data\":[{}]}",
			"IPv4Data[0].Pool: expected string, found nothing"},
		{"/NetworkDriver.CreateNetwork", "{\"NetworkID\":\"" NID "\",\"IPv4Data\":[5]}",
			"IPv4Data[0]: expected object, found integer"},
		{"/NetworkDriver.CreateNetwork", "{\"NetworkID\":\"" NID "\",\"IPv4Data\":{}}",
			"IPv4Data: expected array, found object"},
		{"/NetworkDriver.CreateNetwork", "{\"NetworkID\":\"" NID "\",\"IPv4Data\":[]}",
			"expected a pool in it or in IPv6Data"},
		{"/NetworkDriver.CreateNetwork", NETWORK_POOL("\"2001:db8::/64\""),
			"expected an IPv4 prefix, found 2001:db8::/64"},
		{"/NetworkDriver.CreateNetwork", NETWORK_POOL("\"0.0.0.0/0\""), "too large"},
		{"/NetworkDriver.CreateNetwork", NETWORK_POOL("\"10.0.0.0/7\""), "10.0.0.0/7 is too large"},
		{"/NetworkDriver.CreateNetwork", NETWORK_POOL("\"127.0.0.0/16\""), "no container can have"},
		{"/NetworkDriver.CreateNetwork", NETWORK_POOL("\"239.1.0.0/16\""), "no container can have"},
		{"/NetworkDriver.CreateNetwork", NETWORK_POOL("\"10.9.0.0/24\",\"Gateway\":\"10.8.0.1/24\""),
			"10.8.0.1/24 is outside the pool"},
		{"/NetworkDriver.CreateNetwork", NETWORK_POOL("\"10.9.0.0/24\",\"AuxAddresses\":{\"a\":5}"),
			"member \"a\" is not a string"},
		{"/NetworkDriver.CreateNetwork", NETWORK_POOL("\"10.9.0.0/24\",\"AuxAddresses\":[\"10.9.0.5/24\"]"),
			"AuxAddresses: expected object, found array"},
		{"/NetworkDriver.CreateNetwork", NETWORK_POOL("\"10.9.0.0/24\",\"AuxAddresses\":{\"a\":\"10.9.0.5\"}"),
			"member \"a\": expected ADDRESS/LENGTH, found \"10.9.0.5\""},
		{"/NetworkDriver.CreateNetwork", NETWORK_POOL("\"10.9.0.0/24\",\"AuxAddresses\":{\"a\":\"\"}"),
			"member \"a\": expected ADDRESS/LENGTH"},
		{"/NetworkDriver.CreateNetwork",
			NETWORK_POOL("\"10.9.0.0/24\",\"AuxAddresses\":{\"a\":\"10.9.0.5/24\",\"b\":\"10.9.1.5/24\"}"),
			"IPv4Data[0].AuxAddresses: member \"b\": 10.9.1.5/24 is outside the pool"},
		{"/NetworkDriver.CreateNetwork", NETWORK_POOL("\"10.9.0.0/24\",\"AuxAddresses\":{\"a\":\"2001:db8::1/64\"}"),
			"is outside the pool"},
		{"/NetworkDriver.CreateNetwork", NETWORK_POOL("\"10.9.0.0/24\",\"AuxAddresses\":" AUX_17),
			"AuxAddresses: expected at most 16 members, found 17"},
		{"/NetworkDriver.CreateNetwork", NETWORK_POOL("\"10.9.0.0/24\"},{\"Pool\":\"10.9.0.128/25\""),
			"IPv4Data[1].Pool: 10.9.0.128/25 overlaps IPv4Data[0]"},
		{"/NetworkDriver.CreateNetwork", "{\"NetworkID\":\"" NID "\",\"IPv6Data\":[{\"Pool\":\"fe80::/64\"}]}",
			"no container can have"},
		/* N51 */
		{"/NetworkDriver.CreateNetwork",
			"{\"NetworkID\":\"" NID "\",\"Options\":{\"com.docker.network.enable_ipv6\":\"yes\"}," BASE_DATA "}",
			"com.docker.network.enable_ipv6: expected boolean, found string"},
		{"/NetworkDriver.CreateNetwork",
			"{\"NetworkID\":\"" NID "\",\"Options\":{\"com.docker.network.internal\":1}," BASE_DATA "}",
			"com.docker.network.internal: expected boolean"},
		{"/NetworkDriver.CreateNetwork",
			"{\"NetworkID\":\"" NID "\",\"Options\":{\"com.docker.network.generic\":[]}," BASE_DATA "}",
			"com.docker.network.generic: expected object"},
		{"/NetworkDriver.CreateNetwork", "{\"NetworkID\":\"" NID "\",\"Options\":[]," BASE_DATA "}",
			"Options: expected object"},
		/* N10 */
		{"/NetworkDriver.CreateNetwork", NETWORK_WITH("\"trestle.vni\":\"abc\""),
			"option trestle.vni: expected a number from 1 to 16777215, found \"abc\""},
		{"/NetworkDriver.CreateNetwork", NETWORK_WITH("\"trestle.vni\":\"0\""), "option trestle.vni"},
		{"/NetworkDriver.CreateNetwork", NETWORK_WITH("\"trestle.vni\":\"16777216\""), "found \"16777216\""},
		{"/NetworkDriver.CreateNetwork", NETWORK_WITH("\"trestle.vni\":77"),
			"trestle.vni: expected string, found integer"},
		{"/NetworkDriver.CreateNetwork", NETWORK_WITH("\"trestle.mtu\":\"100\""),
			"option trestle.mtu: expected a number from 576 to 65535, found \"100\""},
		{"/NetworkDriver.CreateNetwork", NETWORK_WITH("\"com.docker.network.driver.mtu\":\"1500x\""),
			"option com.docker.network.driver.mtu: expected a number from 576 to 65535, found \"1500x\""},
		{"/NetworkDriver.CreateNetwork",
			NETWORK_WITH("\"com.docker.network.driver.mtu\":\"1500\",\"trestle.mtu\":\"1400\""),
			"option trestle.mtu: expected the value of com.docker.network.driver.mtu"},
		{"/NetworkDriver.CreateNetwork", NETWORK_WITH("\"trestle.mode\":\"l3\""), "option trestle.mode: expected l2"},
		{"/NetworkDriver.CreateNetwork", NETWORK_WITH("\"trestle.network\":\"\""),
			"option trestle.network: expected a name"},
		{"/NetworkDriver.CreateNetwork", NETWORK_WITH("\"trestle.network\":\"a/b\""), "found \"a/b\""},
		{"/NetworkDriver.CreateNetwork", NETWORK_WITH("\"trestle.network\":\".a\""), "option trestle.network"},
		{"/NetworkDriver.CreateNetwork", NETWORK_WITH("\"trestle.netwrok\":\"a\""),
			"option trestle.netwrok is not one of ours: expected trestle.network, trestle.mtu, trestle.vni, "
			"trestle.mode"},
		{"/NetworkDriver.CreateNetwork", NETWORK_WITH("\"com.docker.network.container_iface_prefix\":\"abcdefghijklm\""),
			"option com.docker.network.container_iface_prefix"},
		{"/NetworkDriver.CreateNetwork", NETWORK_WITH("\"encrypted\":\"\""),
			"option encrypted: expected it to be left out"},
		/* N15 and addresses of endpoints */
		{"/NetworkDriver.CreateEndpoint", ENDPOINT_WITH("\"Address\":\"\",\"AddressIPv6\":\"\",\"MacAddress\":\"\""),
			"found neither"},
		{"/NetworkDriver.CreateEndpoint", "{" IDS ",\"Interface\":null}", "found neither"},
		{"/NetworkDriver.CreateEndpoint", "{" IDS ",\"Interface\":5}", "Interface: expected object"},
		{"/NetworkDriver.CreateEndpoint", ENDPOINT_WITH("\"Address\":\"10.9.0.5\""), "CreateEndpoint.Interface.Address"},
		{"/NetworkDriver.CreateEndpoint", ENDPOINT_WITH("\"Address\":\"2001:db8::5/64\""), "expected an IPv4 address"},
		{"/NetworkDriver.CreateEndpoint", ENDPOINT_WITH("\"AddressIPv6\":\"10.9.0.5/24\""), "expected an IPv6 address"},
		{"/NetworkDriver.CreateEndpoint", ENDPOINT_WITH("\"Address\":\"10.9.0.5/24\",\"MacAddress\":\"xx\""),
			"MacAddress"},
		{"/NetworkDriver.CreateEndpoint",
			ENDPOINT_WITH("\"Address\":\"10.9.0.5/24\",\"MacAddress\":\"01:00:5e:00:00:01\""),
			"expected the address of one station, found 01:00:5e:00:00:01"},
		{"/NetworkDriver.CreateEndpoint",
			ENDPOINT_WITH("\"Address\":\"10.9.0.5/24\",\"MacAddress\":\"00:00:00:00:00:00\""),
			"expected the address of one station"},
		{"/NetworkDriver.CreateEndpoint",
			"{" IDS ",\"Interface\":{\"Address\":\"10.9.0.5/24\"},\"Options\":{\"trestle.x\":\"1\"}}",
			"option trestle.x is not one of ours: none is taken here"},
		{"/NetworkDriver.Join", "{" IDS "}", "Join.SandboxKey: expected string, found nothing"},
		{"/NetworkDriver.Join", "{" IDS ",\"SandboxKey\":\"\"}", "SandboxKey: expected a path"},
		{"/NetworkDriver.Join", "{" IDS ",\"SandboxKey\":\"/x\",\"Options\":3}", "Options: expected object"},
		{"/NetworkDriver.ProgramExternalConnectivity", "{" IDS ",\"Options\":[]}", "Options: expected object"},
		{"/NetworkDriver.DiscoverNew", "{\"DiscoveryType\":\"1\"}", "DiscoveryType: expected integer"},
		{"/NetworkDriver.AllocateNetwork", "{\"NetworkID\":\"b1\",\"Options\":{\"a\":1}}",
			"member \"a\" is not a string"},
		/* I10, I11 */
		{"/IpamDriver.RequestPool", POOL_WITH("\"Pool\":\"\",\"SubPool\":\"10.9.0.0/26\""),
			"SubPool: expected Pool to be given"},
		{"/IpamDriver.RequestPool", POOL_WITH("\"Pool\":\"0.0.0.0/24\",\"SubPool\":\"10.9.0.0/26\""),
			"SubPool: expected Pool"},
		{"/IpamDriver.RequestPool", POOL_WITH("\"Pool\":\"10.9.0.0/24\",\"SubPool\":\"10.9.1.0/26\""),
			"10.9.1.0/26 is outside Pool"},
		{"/IpamDriver.RequestPool", POOL_WITH("\"Pool\":\"10.9.0.0/24\",\"SubPool\":\"10.9.0.0/23\""), "outside Pool"},
		{"/IpamDriver.RequestPool", POOL_WITH("\"Pool\":\"10.9.0.0/24\",\"SubPool\":\"2001:db8::/64\""), "outside Pool"},
		{"/IpamDriver.RequestPool", POOL_WITH("\"Pool\":\"garbage\""), "RequestPool.Pool"},
		{"/IpamDriver.RequestPool", POOL_WITH("\"Pool\":\"0.0.0.0/0\""), "too large"},
		{"/IpamDriver.RequestPool", POOL_WITH("\"Pool\":\"::/8\""), "too large"},
		{"/IpamDriver.RequestPool", POOL_WITH("\"Pool\":\"224.0.0.0/24\""), "no container can have"},
		{"/IpamDriver.RequestPool", POOL_WITH("\"Pool\":\"\",\"V6\":\"true\""), "V6: expected boolean"},
		{"/IpamDriver.RequestPool", POOL_WITH("\"Options\":{\"trestle.nework\":\"a\"}"),
			"option trestle.nework is not one of ours"},
		{"/IpamDriver.RequestPool", "{\"AddressSpace\":\"LocalDefault\",\"Pool\":\"\"}",
			"expected trestle-local or trestle-global, found \"LocalDefault\""},
		{"/IpamDriver.RequestPool", "{\"Pool\":\"\"}", "AddressSpace: expected string, found nothing"},
		/* I17 */
		{"/IpamDriver.RequestAddress", "{\"PoolID\":\"p\",\"Address\":\"x\"}", "RequestAddress.Address"},
		{"/IpamDriver.RequestAddress", "{\"PoolID\":\"\",\"Address\":\"\"}", "PoolID: expected 1 to 127"},
		{"/IpamDriver.RequestAddress", "{\"PoolID\":\"a b\",\"Address\":\"\"}", "PoolID"},
		{"/IpamDriver.RequestAddress",
			"{\"PoolID\":\"p\",\"Options\":{\"com.docker.network.endpoint.macaddress\":\"AkIK\"}}",
			"com.docker.network.endpoint.macaddress"},
		{"/IpamDriver.ReleaseAddress", "{\"PoolID\":\"p\",\"Address\":\"\"}", "Address: expected an IP address"},
		{"/IpamDriver.ReleaseAddress", "{\"PoolID\":\"p\"}", "Address: expected string, found nothing"},
		{"/IpamDriver.ReleasePool", "{\"PoolID\":5}", "PoolID: expected string"},
	};
	struct fixture *f = *state;
	size_t i;

	for (i = 0; i < sizeof cases / sizeof *cases; i++) {
		expect_fail(post(f, cases[i].path, cases[i].body), 400, cases[i].fragment);
		assert_string_equal(f->seen, "");
	}
	assert_int_equal(f->asked, 0);
	assert_int_equal(plugin_counters(f->plugin)->refused, sizeof cases / sizeof *cases);
	assert_int_equal(plugin_counters(f->plugin)->in_flight, 0);
}

static void empty_body_ends_the_engines_retries(void **state)
{
	/* T7 for each call that takes arguments */
	static const char *const paths[] = {"/NetworkDriver.CreateNetwork", "/NetworkDriver.DeleteNetwork",
		"/NetworkDriver.CreateEndpoint", "/NetworkDriver.DeleteEndpoint", "/NetworkDriver.EndpointOperInfo",
		"/NetworkDriver.Join", "/NetworkDriver.Leave", "/NetworkDriver.ProgramExternalConnectivity",
		"/NetworkDriver.RevokeExternalConnectivity", "/NetworkDriver.DiscoverNew", "/NetworkDriver.DiscoverDelete",
		"/NetworkDriver.AllocateNetwork", "/NetworkDriver.FreeNetwork", "/NetworkDriver.GwAllocCheck",
		"/IpamDriver.RequestPool", "/IpamDriver.ReleasePool", "/IpamDriver.RequestAddress", "/IpamDriver.ReleaseAddress"};
	struct fixture *f = *state;
	size_t i;

	for (i = 0; i < sizeof paths / sizeof *paths; i++)
		expect_fail(post(f, paths[i], ""), 400, "expected a JSON object, found an empty body");
	assert_int_equal(f->asked, 0);
}

static void unknown_calls_and_methods_are_refused(void **state)
{
	static const char *const paths[] = {"/NetworkDriver.NoSuch", "/nope", "/", "/networkdriver.join", "/NetworkDriver.Join/"};
	static const char get[] = "GET /Plugin.Activate HTTP/1.1\r\nHost: x\r\n\r\n";
	struct fixture *f = *state;
	struct reply r;
	size_t i;

	for (i = 0; i < sizeof paths / sizeof *paths; i++)
		expect_fail(post(f, paths[i], "{}"), 404, "is not a call that this plugin knows"); /* T6 */
	r = send_raw(f, get, sizeof get - 1);
	assert_int_equal(r.status, 405); /* T5 */
	client_close(r.client);
}

static void overlong_input_is_refused(void **state)
{
	struct fixture *f = *state;
	char *big = malloc(HTTPD_BODY_MAX + 4096);
	size_t len, i;
	struct reply r;

	assert_non_null(big);
	/* N52: 10 kB of id */
	len = snprintf(big, 64, "{\"NetworkID\":\"");
	memset(big + len, 'a', 10000);
	snprintf(big + len + 10000, 8, "\"}");
	expect_fail(post(f, "/NetworkDriver.DeleteNetwork", big), 400, "NetworkID: expected at most 128 bytes, found 10000");
	/* More pools than the limit */
	len = snprintf(big, 128, "{\"NetworkID\":\"" NID "\",\"IPv4Data\":[");
	for (i = 0; i <= PLUGIN_POOLS_MAX; i++)
		len += snprintf(big + len, 64, "%s{\"Pool\":\"10.%zu.0.0/16\"}", i ? "," : "", i);
	snprintf(big + len, 8, "]}");
	expect_fail(post(f, "/NetworkDriver.CreateNetwork", big), 400, "IPv4Data: expected at most 16 pools, found 17");
	/* Nesting */
	memset(big, '[', 10000);
	big[10000] = '\0';
	expect_fail(post(f, "/NetworkDriver.CreateNetwork", big), 400, "nesting");
	/* Options */
	len = snprintf(big, 256, "{" IDS ",\"SandboxKey\":\"/x\",\"Options\":{");
	for (i = 0; i <= 256; i++)
		len += snprintf(big + len, 64, "%s\"k%zu\":1", i ? "," : "", i);
	snprintf(big + len, 8, "}}");
	expect_fail(post(f, "/NetworkDriver.Join", big), 400, "Options: expected at most 256 members, found 257");
	/* T14 */
	memset(big, ' ', HTTPD_BODY_MAX + 1);
	r = post_bytes(f, "/NetworkDriver.CreateNetwork", big, HTTPD_BODY_MAX + 1);
	assert_int_equal(r.status, 413);
	client_close(r.client);
	expect_fail(post_bytes(f, "/NetworkDriver.CreateNetwork", "{\0}", 3), 400, "CreateNetwork: line 1"); /* T8 */
	expect_ok(post(f, "/NetworkDriver.Leave", "{" IDS "}"), "{}");
	free(big);
}

static void errors_of_the_backend_are_told_in_both_keys(void **state)
{
	static const struct {
		enum err_code code;
		int status;
	} cases[] = {{ERR_INVALID, 400}, {ERR_CONFLICT, 500}, {ERR_NOT_FOUND, 500}, {ERR_SYSTEM, 500}, {ERR_INTERNAL, 500}};
	static const char *const paths[] = {"/NetworkDriver.Leave", "/NetworkDriver.DeleteEndpoint", "/NetworkDriver.Join"};
	struct fixture *f = *state;
	size_t i, k;

	for (i = 0; i < sizeof cases / sizeof *cases; i++) {
		err_set(&f->fail, cases[i].code, "endpoint %.4s is held by host n2", EID);
		for (k = 0; k < sizeof paths / sizeof *paths; k++)
			expect_fail(post(f, paths[k], "{" IDS ",\"SandboxKey\":\"/x\"}"), cases[i].status,
				"endpoint 0123 is held by host n2");
	}
	/* A text that was cut in a character is still told. */
	err_set(&f->fail, ERR_CONFLICT, "name \"a\xc3\" is taken");
	expect_fail(post(f, "/NetworkDriver.Leave", "{" IDS "}"), 500, "name \"a?\" is taken");
	assert_int_equal(plugin_counters(f->plugin)->failed, 16);
}

static void digest_follows_what_matters(void **state)
{
	/* N2: the same again. N3: something else. */
	static const char *const same[] = {BASE_NETWORK, NETWORK_WITH(""),
		NETWORK_POOL("\"10.9.0.0/24\",\"Gateway\":\"10.9.0.1/24\",\"AuxAddresses\":{}"),
		NETWORK_WITH("\"trestle.mode\":\"l2\",\"unknown\":\"x\""),
		NETWORK_WITH("\"com.docker.network.container_iface_prefix\":\"eth\""),
		"{\"NetworkID\":\"" NID
		"\",\"IPv4Data\":[{\"Pool\":\"10.9.0.77/24\",\"Gateway\":\"10.9.0.1/24\",\"AddressSpace\":\"g\"}]}"};
	static const char *const different[] = {NETWORK_WITH("\"trestle.mtu\":\"1400\""),
		NETWORK_WITH("\"trestle.vni\":\"1400\""), NETWORK_WITH("\"trestle.network\":\"app\""),
		NETWORK_WITH("\"com.docker.network.container_iface_prefix\":\"net\""),
		NETWORK_POOL("\"10.9.0.0/25\",\"Gateway\":\"10.9.0.1/24\""),
		NETWORK_POOL("\"10.8.0.0/24\",\"Gateway\":\"10.8.0.1/24\""), NETWORK_POOL("\"10.9.0.0/24\""),
		NETWORK_POOL("\"10.9.0.0/24\",\"Gateway\":\"10.9.0.2/24\""),
		NETWORK_POOL("\"10.9.0.0/24\",\"Gateway\":\"10.9.0.1/24\",\"AuxAddresses\":{\"a\":\"10.9.0.5/24\"}"),
		NETWORK_POOL("\"10.9.0.0/24\",\"Gateway\":\"10.9.0.1/24\",\"AuxAddresses\":{\"a\":\"10.9.0.6/24\"}"),
		"{\"NetworkID\":\"" NID "\",\"Options\":{\"com.docker.network.internal\":true}," BASE_DATA "}",
		"{\"NetworkID\":\"" NID "\",\"Options\":{\"com.docker.network.enable_ipv6\":true}," BASE_DATA "}"};
	uint8_t first[16], others[sizeof different / sizeof *different][16];
	struct fixture *f = *state;
	size_t i, k;

	for (i = 0; i < sizeof same / sizeof *same; i++) {
		expect_ok(post(f, "/NetworkDriver.CreateNetwork", same[i]), "{}");
		if (!i)
			memcpy(first, f->digest, sizeof first);
		assert_memory_equal(f->digest, first, sizeof first);
	}
	for (i = 0; i < sizeof different / sizeof *different; i++) {
		expect_ok(post(f, "/NetworkDriver.CreateNetwork", different[i]), "{}");
		assert_memory_not_equal(f->digest, first, sizeof first);
		for (k = 0; k < i; k++)
			assert_memory_not_equal(f->digest, others[k], sizeof first);
		memcpy(others[i], f->digest, sizeof first);
	}
}

static struct client *start_leave(struct fixture *f)
{
	static const char body[] = "{" IDS "}";
	struct client *c = client_open(f);
	char request[512];
	int len = snprintf(request, sizeof request,
		"POST /NetworkDriver.Leave HTTP/1.1\r\nHost: \r\nContent-Length: %zu\r\n\r\n%s", sizeof body - 1, body);

	client_write(f, c, request, len);
	return c;
}

static void wait_held(struct fixture *f, unsigned count)
{
	uint64_t deadline_ms = clock_boot_ms() + DEADLINE_MS;

	while (f->held_count < count && clock_boot_ms() < deadline_ms)
		turn(f);
	assert_int_equal(f->held_count, count);
}

static void slow_calls_hold_up_nobody(void **state)
{
	/* T19, and answers in another order than the calls */
	struct client *clients[HELD_MAX];
	struct fixture *f = *state;
	struct err err;
	unsigned i;

	f->hold = true;
	for (i = 0; i < HELD_MAX; i++)
		clients[i] = start_leave(f);
	wait_held(f, HELD_MAX);
	assert_int_equal(plugin_counters(f->plugin)->in_flight, HELD_MAX);
	expect_ok(post(f, "/NetworkDriver.GetCapabilities", ""), "{\"Scope\":\"local\",\"ConnectivityScope\":\"global\"}");
	err_set(&err, ERR_EXHAUSTED, "late");
	for (i = HELD_MAX; i-- > 0;) {
		if (i % 2)
			plugin_done(f->held[i]);
		else
			plugin_fail(f->held[i], &err);
	}
	for (i = 0; i < HELD_MAX; i++) {
		struct reply r = client_read(f, clients[i]);

		assert_int_equal(r.status, i % 2 ? 200 : 500);
		client_close(clients[i]);
	}
	assert_int_equal(plugin_counters(f->plugin)->in_flight, 0);
}

static void mark_gone(void *arg)
{
	((struct fixture *)arg)->gone = true;
}

static void client_that_hangs_up_is_told_and_may_ask_again(void **state)
{
	/* T20 */
	uint64_t deadline_ms = clock_boot_ms() + DEADLINE_MS;
	struct fixture *f = *state;
	struct client *c;

	f->hold = true;
	c = start_leave(f);
	wait_held(f, 1);
	plugin_call_on_gone(f->held[0], mark_gone, f);
	client_close(c);
	while (!f->gone && clock_boot_ms() < deadline_ms)
		turn(f);
	assert_true(f->gone);
	plugin_done(f->held[0]);
	f->hold = false;
	expect_ok(post(f, "/NetworkDriver.Leave", "{" IDS "}"), "{}");
	assert_int_equal(f->asked, 2);
}

static void answers_after_the_end_are_harmless(void **state)
{
	struct fixture *f = *state;
	struct client *a, *b;
	struct err err;

	f->hold = true;
	a = start_leave(f);
	b = start_leave(f);
	wait_held(f, 2);
	plugin_close(f->plugin);
	f->plugin = NULL;
	plugin_done(f->held[0]);
	err_set(&err, ERR_INTERNAL, "late");
	plugin_fail(f->held[1], &err);
	client_close(a);
	client_close(b);
}

static void socket_is_for_root_alone(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	assert_return_code(stat(f->path, &st), errno);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void decode_only_says_what_a_client_would_see(void **state)
{
	struct err err;

	(void)state;
	assert_int_equal(plugin_decode_only("/Plugin.Activate", "", 0, &err), 0);
	assert_int_equal(plugin_decode_only("/NetworkDriver.CreateNetwork", BASE_NETWORK, sizeof BASE_NETWORK - 1, &err), 0);
	assert_int_equal(plugin_decode_only("/NetworkDriver.CreateNetwork", "", 0, &err), 400);
	assert_int_equal(plugin_decode_only("/NetworkDriver.CreateNetwork", "{", 1, &err), 400);
	assert_contains(err.text, "CreateNetwork: line 1");
	assert_int_equal(plugin_decode_only("/nope", "{}", 2, &err), 404);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(registration_is_answered_without_a_backend),
		CASE(each_call_is_decoded_and_answered),
		CASE(malformed_bodies_are_refused_and_reach_no_backend),
		CASE(empty_body_ends_the_engines_retries),
		CASE(unknown_calls_and_methods_are_refused),
		CASE(overlong_input_is_refused),
		CASE(errors_of_the_backend_are_told_in_both_keys),
		CASE(digest_follows_what_matters),
		CASE(slow_calls_hold_up_nobody),
		CASE(client_that_hangs_up_is_told_and_may_ask_again),
		CASE(answers_after_the_end_are_harmless),
		CASE(socket_is_for_root_alone),
		cmocka_unit_test(decode_only_says_what_a_client_would_see),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

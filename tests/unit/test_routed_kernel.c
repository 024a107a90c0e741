/* The driver of mode l3 against the real kernel: what it makes, adopts, puts right and takes away, in a host and a container that
 * are network namespaces of a child process. That packets arrive is for tests/net/test_l3.py. */
#include "driver/vxlan/vxlan.h"

#include <poll.h>

#include "base/clock.h"
#include "driver/vxlan/nat.h"
#include "netlink/netns.h"
#include "tests/unit/kernel.h"

#define MANY_ENDPOINTS 500
#define MANY_REMOTES 10000

static int host, container;
static struct driver *driver;

static const struct driver_network net = {.id = {{1, 2, 3}},
	.vni = 9,
	.mtu = 1450,
	.routed = true,
	.own4 = {.family = 4, .bytes = {10, 91, 0, 1}},
	.own6 = {.family = 6, .bytes = {0x20, 1, 0xd, 0xb8, 0, 91, [15] = 1}},
	.pool_count = 2,
	.pools = {{.ip = {.family = 4, .bytes = {10, 91}}, .length = 16},
		{.ip = {.family = 6, .bytes = {0x20, 1, 0xd, 0xb8, 0, 91}}, .length = 64}}};

/* The number of lines that a command prints. */
static int lines(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static int lines(const char *fmt, ...)
{
	char command[512], line[512];
	va_list ap;
	int count = 0;
	FILE *f;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	enter(host);
	f = popen(command, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		count++;
	pclose(f);
	return count;
}

static struct ip v4(unsigned which, unsigned n)
{
	return (struct ip){.family = 4, .bytes = {10, 91, (uint8_t)(which << 6 | n >> 8), (uint8_t)n}};
}

static struct ip v6(unsigned which, unsigned n)
{
	struct ip ip = {.family = 6, .bytes = {0x20, 1, 0xd, 0xb8, 0, 91}};

	ip.bytes[13] = (uint8_t)which;
	ip.bytes[14] = (uint8_t)(n >> 8);
	ip.bytes[15] = (uint8_t)n;
	return ip;
}

static struct mac mac_of(unsigned which, unsigned n)
{
	return (struct mac){{2, (uint8_t)which, 0, 0, (uint8_t)(n >> 8), (uint8_t)n}};
}

static struct driver_endpoint endpoint_of(unsigned n)
{
	struct driver_endpoint e = {
		.network = net.id, .mac = mac_of(1, n), .ip4 = v4(1, n), .ip6 = v6(1, n), .peer_netns = container};

	snprintf(e.id, sizeof(e.id), "endpoint-%u", n);
	snprintf(e.peer_name, sizeof(e.peer_name), "c%u", n);
	return e;
}

static struct driver_remote remote_of(unsigned n)
{
	return (struct driver_remote){.network = net.id,
		.mac = mac_of(2, n),
		.ip4 = v4(2, n),
		.ip6 = v6(2, n),
		.vtep = {.family = 4, .bytes = {192, 0, 2, 2}},
		.hostno = 2};
}

static void open_driver(void)
{
	struct vxlan_config config = {.fabric_path = "/nowhere",
		.local = {.family = 4, .bytes = {192, 0, 2, 1}},
		.hostno = 1,
		.table = "trestle-unit",
		.routed = true};

	enter(host);
	OK(vxlan_open(&config, &driver, &err));
}

static void close_driver(void)
{
	if (driver)
		driver->ops->close(driver);
	driver = NULL;
}

static void sync_driver(void)
{
	OK(driver->ops->sync(driver, &err));
}

static unsigned drift(void)
{
	const struct driver_drift *d = &driver->ops->counters(driver)->last_drift;

	OK(driver->ops->resync(driver, &err));
	return d->missing + d->foreign + d->different;
}

static void desire_here(const struct driver_endpoint *e, bool make)
{
	driver->ops->put_network(driver, &net);
	driver->ops->put_endpoint(driver, e, make);
}

static void desire(bool make)
{
	struct driver_endpoint e = endpoint_of(1);
	struct driver_remote r = remote_of(1);

	desire_here(&e, make);
	driver->ops->put_remote(driver, &r);
}

static void reopen_driver(void)
{
	close_driver();
	open_driver();
}

static void begin(void)
{
	open_driver();
	desire(true);
	sync_driver();
}

static int routes(void)
{
	return lines("ip route show proto 111; ip -6 route show proto 111");
}

static int ours(void)
{
	return routes() +
	       lines("ip neigh | grep 'proto 111'; ip -o link | grep -E ': t[xv]'; nft list tables | grep trestle-unit");
}

static void reap(void)
{
	uint64_t deadline = clock_boot_ms() + 5000;

	while (driver->ops->reap(driver, NULL) > 0 && clock_boot_ms() < deadline)
		poll(NULL, 0, 1);
	sync_driver();
}

static int teardown(void **state)
{
	(void)state;
	if (!driver)
		return 0;
	OK(driver->ops->purge(driver, &err));
	close_driver();
	return ours();
}

/* ---- the tests ---- */

static void all_of_it_is_made(void **state)
{
	char name[DRIVER_IFNAME_SIZE];
	struct mac mac = vxlan_tunnel_mac(2);
	char text[MAC_TEXT_SIZE];

	(void)state;
	REQUIRE_KERNEL();
	begin();
	assert_true(driver->ops->endpoint_ifname(driver, &net.id, endpoint_of(1).id, name));
	mac_format(&mac, text);
	RUN(host, "ip route show 10.91.64.1 | grep -q 'dev %s proto 111 scope link src 10.91.0.1 metric 111'", name);
	RUN(host, "ip -6 route show 2001:db8:5b::2:1 2>/dev/null | grep -q 'dev tx.*proto 111' || ip -6 route | grep -q 'dev "
		  "tx.*proto 111'");
	RUN(host, "ip route show 10.91.128.1 | grep -q 'dev tx.* proto 111 scope link metric 111'");
	RUN(host, "ip route show 10.91.0.0/16 | grep -q '^unreachable .*proto 111'");
	RUN(host, "ip neigh show 10.91.128.1 | grep -q 'lladdr %s PERMANENT proto 111'", text);
	RUN(host, "bridge fdb | grep -q '%s dev tx.* dst 192.0.2.2 self permanent'", text);
	RUN(host, "ip -o addr show | grep -q 'tx.*10.91.0.1/32'");
	assert_int_equal(routes(), 2 + 2 + 2);
	RUN(host, "ip -o link show %s | grep -qi 0e:74:72:00:00:01", name);
	RUN(host, "test $(cat /proc/sys/net/ipv4/ip_forward) = 1 -a $(cat /proc/sys/net/ipv6/conf/all/forwarding) = 1");
	RUN(host,
		"cd /proc/sys/net; test $(cat ipv4/conf/%s/rp_filter)$(cat ipv4/conf/%s/forwarding)$(cat ipv6/conf/%s/accept_ra) "
		"= 110",
		name, name, name);
	/* Nothing but what containers say leaves or enters by it: no address of the host's own. */
	assert_int_equal(lines("ip -o addr show dev %s", name), 0);
	assert_int_equal(drift(), 0);
}

static void the_hosts_forwarding_keeps_its_advertisements(void **state)
{
	(void)state;
	REQUIRE_KERNEL();
	RUN(host,
		"cd /proc/sys/net; echo 0 >ipv4/ip_forward; echo 0 >ipv6/conf/all/forwarding; echo 1 >ipv6/conf/eth0/accept_ra");
	begin();
	RUN(host, "cd /proc/sys/net; test $(cat ipv4/ip_forward)$(cat ipv6/conf/all/forwarding)$(cat ipv6/conf/eth0/accept_ra) = "
		  "112");
	/* Somebody switches it off: found, put right, counted. */
	RUN(host, "echo 0 >/proc/sys/net/ipv4/ip_forward");
	assert_int_not_equal(drift(), 0);
	assert_int_equal(drift(), 0);
	RUN(host, "test $(cat /proc/sys/net/ipv4/ip_forward) = 1");
}

static void ways_out_are_kept_as_they_should_be(void **state)
{
	struct driver_exit e = {.ifname = "way-out",
		.vni = 5,
		.pool_count = 2,
		.pools = {{.ip = {.family = 4, .bytes = {10, 92}}, .length = 16},
			{.ip = {.family = 6, .bytes = {0x20, 1, 0xd, 0xb8, 0, 92}}, .length = 64}}};

	(void)state;
	REQUIRE_KERNEL();
	open_driver();
	driver->ops->set_exits(driver, &e, 1);
	sync_driver();
	assert_int_equal(drift(), 0); /* a link that is not there has no settings to be found wrong */
	RUN(host, "ip link add way-out type veth peer name way-far");
	assert_int_equal(drift(), 1);
	assert_int_equal(drift(), 0);
	RUN(host, "echo 0 >/proc/sys/net/ipv4/conf/way-out/rp_filter");
	assert_int_equal(drift(), 1);
	assert_int_equal(drift(), 0);
	RUN(host, "test $(cat /proc/sys/net/ipv4/conf/way-out/rp_filter) = 1");
	driver->ops->set_exits(driver, NULL, 0);
	sync_driver();
	RUN(host, "ip link del way-out");
}

static void reopening_adopts_and_writes_nothing(void **state)
{
	uint64_t messages;

	(void)state;
	REQUIRE_KERNEL();
	begin();
	reopen_driver();
	driver->ops->hold_removals(driver, true);
	desire(false);
	assert_int_equal(drift(), 0);
	messages = driver->ops->counters(driver)->messages;
	driver->ops->hold_removals(driver, false);
	sync_driver();
	assert_int_equal(driver->ops->counters(driver)->messages, messages);
	assert_int_equal(messages, 0);
}

static void what_nobody_wants_any_more_goes(void **state)
{
	(void)state;
	REQUIRE_KERNEL();
	begin();
	reopen_driver();
	assert_int_not_equal(drift(), 0);
	reap();
	assert_int_equal(ours(), 0);
	assert_int_equal(drift(), 0);
	/* And in the ordinary way. */
	desire(true);
	sync_driver();
	assert_int_not_equal(ours(), 0);
	driver->ops->del_endpoint(driver, &net.id, endpoint_of(1).id);
	sync_driver();
	driver->ops->del_network(driver, &net.id);
	sync_driver();
	reap();
	assert_int_equal(ours(), 0);
}

/* A container may live in the host's namespace: its end is there under the tag of the pair, and found before the host's. */
static void a_containers_end_in_the_hosts_namespace_is_not_ours(void **state)
{
	struct driver_endpoint e = endpoint_of(1);
	char name[DRIVER_IFNAME_SIZE], again[DRIVER_IFNAME_SIZE], id[ID_TEXT_SIZE];

	(void)state;
	REQUIRE_KERNEL();
	open_driver();
	e.peer_netns = 0;
	desire_here(&e, true);
	sync_driver();
	assert_true(driver->ops->endpoint_ifname(driver, &net.id, e.id, name));
	RUN(host, "ip link set c1 up alias trestle:%s:%s", id_format(&net.id, id), e.id);
	assert_int_equal(lines("ip link show | grep 'alias trestle:%s:%s'", id, e.id), 2);
	assert_int_equal(drift(), 0);
	reopen_driver();
	desire_here(&e, false);
	assert_int_equal(drift(), 0);
	assert_true(driver->ops->endpoint_ifname(driver, &net.id, e.id, again));
	assert_string_equal(again, name);
	assert_int_equal(lines("ip -o link show c1 | grep 'UP.* state UP .*group default'"), 1);
	/* One that is ours stays so when somebody changes one of the two. */
	RUN(host, "ip link set %s group default", name);
	reopen_driver();
	desire_here(&e, false);
	assert_int_equal(drift(), 1);
	assert_int_equal(drift(), 0);
	driver->ops->del_endpoint(driver, &net.id, e.id);
	sync_driver();
	reap();
	assert_int_equal(lines("ip -o link | grep -E ': (c1|%s)'", name), 0);
}

static void held_routes_stay_until_records_are_there(void **state)
{
	struct driver_endpoint e = endpoint_of(1);

	(void)state;
	REQUIRE_KERNEL();
	begin();
	reopen_driver();
	driver->ops->hold_removals(driver, true);
	desire_here(&e, false);
	OK(driver->ops->resync(driver, &err));
	RUN(host, "ip route show 10.91.128.1 | grep -q 'dev tx'");
	driver->ops->hold_removals(driver, false);
	sync_driver();
	assert_int_equal(lines("ip route show 10.91.128.1; ip neigh show 10.91.128.1"), 0);
}

static void moved_behind(const char *link)
{
	RUN(host, "ip route show 10.91.128.5 | grep -q 'dev %s'", link);
	assert_int_equal(lines("ip neigh show 10.91.128.5"), 1);
	assert_int_equal(drift(), 0);
}

static void an_address_moves(void **state)
{
	struct driver_remote r = remote_of(5);
	struct driver_endpoint e = endpoint_of(5);
	char name[DRIVER_IFNAME_SIZE];

	(void)state;
	REQUIRE_KERNEL();
	begin();
	e.ip4 = r.ip4;
	e.ip6 = r.ip6;
	driver->ops->put_remote(driver, &r);
	sync_driver();
	RUN(host, "ip route show 10.91.128.5 | grep -q 'dev tx'");
	/* Records cross: for a moment both have it, and the one that is here counts. */
	driver->ops->put_endpoint(driver, &e, true);
	sync_driver();
	assert_true(driver->ops->endpoint_ifname(driver, &net.id, e.id, name));
	RUN(host, "ip route show 10.91.128.5 | grep -q 'dev %s'", name);
	driver->ops->del_remote(driver, &net.id, &r.mac);
	sync_driver();
	moved_behind(name);
	driver->ops->put_remote(driver, &r);
	driver->ops->del_endpoint(driver, &net.id, e.id);
	sync_driver();
	moved_behind("tx");
}

static void a_remote_changes_its_host(void **state)
{
	struct driver_remote r = remote_of(1);
	struct mac mac = vxlan_tunnel_mac(3);
	char text[MAC_TEXT_SIZE];

	(void)state;
	REQUIRE_KERNEL();
	begin();
	r.hostno = 3;
	r.vtep.bytes[3] = 3;
	driver->ops->put_remote(driver, &r);
	sync_driver();
	RUN(host, "ip neigh show 10.91.128.1 | grep -q 'lladdr %s'", mac_format(&mac, text));
	/* The last of a host's takes its forwarding row along. */
	assert_int_equal(lines("bridge fdb | grep 'dst 192.0.2.'"), 1);
	assert_int_equal(drift(), 0);
}

static void own_addresses_come_later_and_change(void **state)
{
	struct driver_endpoint e = endpoint_of(1);
	struct driver_network n = net;

	(void)state;
	REQUIRE_KERNEL();
	open_driver();
	n.own4 = n.own6 = (struct ip){0};
	driver->ops->put_network(driver, &n);
	driver->ops->put_endpoint(driver, &e, true);
	sync_driver();
	assert_int_equal(lines("ip route show proto 111 | grep src"), 0);
	for (uint8_t last = 1; last <= 2; last++) {
		n.own4 = net.own4;
		n.own4.bytes[3] = last;
		n.own6 = net.own6;
		n.own6.bytes[15] = last;
		driver->ops->put_network(driver, &n);
		sync_driver();
		RUN(host, "ip route show proto 111 | grep -q 'src 10.91.0.%u'", last);
		assert_int_equal(lines("ip -o addr show | grep -E 'tx.*(10.91.0|2001)'"), 2);
		assert_int_equal(drift(), 0);
	}
}

static void a_table_goes_with_the_last_network_and_comes_back_when_flushed(void **state)
{
	uint64_t repairs;

	(void)state;
	REQUIRE_KERNEL();
	begin();
	repairs = driver->ops->counters(driver)->repairs;
	RUN(host, "nft flush ruleset");
	assert_true(driver->ops->drain(driver));
	sync_driver();
	RUN(host, "nft list table inet trestle-unit-l3 | grep -q masquerade");
	assert_true(driver->ops->counters(driver)->repairs > repairs);
	assert_false(driver->ops->drain(driver)); /* our own word is not news */
	driver->ops->del_network(driver, &net.id);
	sync_driver();
	assert_int_equal(lines("nft list tables"), 0);
}

/* Ranges that touch or hold one another are one, for the kernel refuses what overlaps. */
static void pools_become_ranges(void **state)
{
	static const char *const texts[] = {
		"10.0.0.0/24", "10.0.1.0/24", "10.0.1.128/25", "192.0.2.0/24", "255.255.255.0/24", "2001:db8::/64", "ff00::/8"};
	struct nat_network n = {.pair_group = 1, .tunnel_group = 2, .pool_count = sizeof(texts) / sizeof(texts[0])};
	struct nat *nat;
	bool wrote;

	(void)state;
	REQUIRE_KERNEL();
	enter(host);
	for (unsigned i = 0; i < n.pool_count; i++)
		OK(prefix_parse(texts[i], &n.pools[i], &err));
	OK(nat_open("trestle-unit", &nat, &err));
	OK(nat_apply(nat, &n, 1, &wrote, &err));
	assert_true(wrote);
	OK(nat_apply(nat, &n, 1, &wrote, &err));
	assert_false(wrote);
	RUN(host, "nft list set inet trestle-unit pools4 | tr -d '\\n\\t ' | grep -q "
		  "'{10.0.0.0/23,192.0.2.0/24,255.255.255.0/24}'");
	RUN(host, "nft list set inet trestle-unit pools6 | grep -q 'ff00::/8'");
	RUN(host,
		"nft list ruleset >/tmp/trestle-unit-%d.nft && nft flush ruleset && nft -f /tmp/trestle-unit-%d.nft; e=$?; rm "
		"/tmp/trestle-unit-%d.nft; exit $e",
		getpid(), getpid(), getpid());
	/* As nft wrote it back it is another's, although it reads the same: made anew. */
	OK(nat_apply(nat, &n, 1, &wrote, &err));
	assert_true(wrote);
	OK(nat_apply(nat, NULL, 0, &wrote, &err));
	assert_int_equal(lines("nft list tables"), 0);
	nat_close(nat);
}

static void many_are_quick(void **state)
{
	uint64_t start;

	(void)state;
	REQUIRE_KERNEL();
	open_driver();
	desire(true);
	start = clock_boot_us();
	for (unsigned i = 2; i <= MANY_ENDPOINTS; i++) {
		struct driver_endpoint e = endpoint_of(i);
		driver->ops->put_endpoint(driver, &e, true);
	}
	for (unsigned i = 2; i <= MANY_REMOTES; i++) {
		struct driver_remote r = remote_of(i);
		driver->ops->put_remote(driver, &r);
	}
	sync_driver();
	print_message("    %d endpoints and %d remotes: %llu ms\n", MANY_ENDPOINTS, MANY_REMOTES,
		(unsigned long long)(clock_boot_us() - start) / 1000);
	start = clock_boot_us();
	assert_int_equal(drift(), 0);
	print_message("    full comparison: %llu ms\n", (unsigned long long)(clock_boot_us() - start) / 1000);
	assert_int_equal(driver->ops->counters(driver)->overruns, 0);
	start = clock_boot_us();
	RUN(host, "ip route flush proto 111");
	sync_driver();
	assert_int_equal(drift(), 0);
	print_message("    flushed and put back: %llu ms\n", (unsigned long long)(clock_boot_us() - start) / 1000);
	assert_int_equal(routes(), 2 * (MANY_ENDPOINTS + MANY_REMOTES) + 2);
}

static void build(void)
{
	if (geteuid() != 0) {
		skip_reason = "needs root for network namespaces";
		return;
	}
	container = new_ns();
	host = container < 0 ? -1 : new_ns();
	if (host < 0) {
		skip_reason = "this kernel gives no network namespace";
		return;
	}
	if (shell(host, "ip link add eth0 type veth peer name far && ip addr add 192.0.2.1/24 dev eth0 && ip link set eth0 up && "
			"ip link set far up") != 0)
		exit(1);
}

static int run(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(all_of_it_is_made, teardown),
		cmocka_unit_test_teardown(the_hosts_forwarding_keeps_its_advertisements, teardown),
		cmocka_unit_test_teardown(ways_out_are_kept_as_they_should_be, teardown),
		cmocka_unit_test_teardown(reopening_adopts_and_writes_nothing, teardown),
		cmocka_unit_test_teardown(what_nobody_wants_any_more_goes, teardown),
		cmocka_unit_test_teardown(a_containers_end_in_the_hosts_namespace_is_not_ours, teardown),
		cmocka_unit_test_teardown(held_routes_stay_until_records_are_there, teardown),
		cmocka_unit_test_teardown(an_address_moves, teardown),
		cmocka_unit_test_teardown(a_remote_changes_its_host, teardown),
		cmocka_unit_test_teardown(own_addresses_come_later_and_change, teardown),
		cmocka_unit_test_teardown(a_table_goes_with_the_last_network_and_comes_back_when_flushed, teardown),
		cmocka_unit_test_teardown(pools_become_ranges, teardown),
		cmocka_unit_test_teardown(many_are_quick, teardown),
	};

	build();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
	return in_child(run);
}

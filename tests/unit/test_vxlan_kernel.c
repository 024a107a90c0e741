/* The vxlan driver against the real kernel: two hosts as network namespaces joined by a wire, a driver on each, containers.
 *
 *   container c1 -- fabric 1 -- host 1 eth0 192.0.2.1 ======== 192.0.2.2 eth0 host 2 -- fabric 2 -- container c2
 *
 * All of it lives in namespaces of a child process and goes with it. */
#include "driver/vxlan/vxlan.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "driver/vxlan/vxlan_internal.h"
#include "netlink/addr.h"
#include "netlink/build.h"
#include "netlink/link.h"
#include "netlink/neigh.h"
#include "netlink/netns.h"
#include "netlink/socket.h"
#include "tests/unit/kernel.h"

#define DEADLINE_MS 60000
#define MTU 1450
#define VNI 7
#define MANY_ENDPOINTS 1000
#define MANY_REMOTES 10000

struct host {
	int ns;
	struct ip ip;
	char fabric[128];
	struct driver *driver;
};

static struct host hosts[2];
static int containers[2];
static char dir[64];
static const struct driver_network net = {.id = {{1, 2, 3}}, .vni = VNI, .mtu = MTU};

static int fabric_fd(const struct host *h)
{
	int fd = -1;

	OK(netns_open(h->fabric, &fd, &err));
	return fd;
}

#define IN_FABRIC(h, ...)                                                                                                        \
	do {                                                                                                                     \
		int fabric_ = fabric_fd(h);                                                                                      \
		RUN(fabric_, __VA_ARGS__);                                                                                       \
		close(fabric_);                                                                                                  \
	} while (0)

static struct mac mac_of(unsigned host, unsigned n)
{
	return (struct mac){{0x02, (uint8_t)host, 0, 0, (uint8_t)(n >> 8), (uint8_t)n}};
}

static struct ip v4(unsigned host, unsigned n)
{
	struct ip ip = {.family = 4, .bytes = {10, (uint8_t)(90 + host), (uint8_t)(n >> 8), (uint8_t)n}};

	return ip;
}

static struct ip v6(unsigned host, unsigned n)
{
	struct ip ip = {.family = 6, .bytes = {0x20, 0x01, 0x0d, 0xb8}};

	ip.bytes[13] = (uint8_t)host;
	ip.bytes[14] = (uint8_t)(n >> 8);
	ip.bytes[15] = (uint8_t)n;
	return ip;
}

static struct driver_endpoint endpoint_of(unsigned host, unsigned n)
{
	struct driver_endpoint e = {.network = net.id, .mac = mac_of(host, n), .ip4 = v4(host, n), .ip6 = v6(host, n)};

	snprintf(e.id, sizeof(e.id), "%064x", host << 16 | n);
	snprintf(e.peer_name, sizeof(e.peer_name), "c%uh%u", n, host);
	return e;
}

static struct driver_remote remote_of(unsigned host, unsigned n)
{
	return (struct driver_remote){
		.network = net.id, .mac = mac_of(host, n), .ip4 = v4(host, n), .ip6 = v6(host, n), .vtep = hosts[host - 1].ip};
}

static void open_driver(struct host *h)
{
	struct vxlan_config config = {
		.fabric_path = h->fabric, .local = h->ip, .hostno = h->ip.bytes[3], .table = "trestle-unit"};

	enter(h->ns);
	OK(vxlan_open(&config, &h->driver, &err));
}

static void close_driver(struct host *h)
{
	if (h->driver)
		h->driver->ops->close(h->driver);
	h->driver = NULL;
}

static void sync_driver(struct host *h)
{
	OK(h->driver->ops->sync(h->driver, &err));
}

static void resync_driver(struct host *h)
{
	OK(h->driver->ops->resync(h->driver, &err));
}

static const struct driver_counters *counters(const struct host *h)
{
	return h->driver->ops->counters(h->driver);
}

static unsigned drift(const struct host *h)
{
	const struct driver_drift *d = &counters(h)->last_drift;

	return d->missing + d->foreign + d->different;
}

/* What records would say on host i: the network, its own endpoint, the other's. */
static void desire(struct host *h, bool make)
{
	unsigned own = (unsigned)(h - hosts) + 1, other = 3 - own;
	struct driver_endpoint e = endpoint_of(own, 1);
	struct driver_remote r = remote_of(other, 1);
	struct ip members[] = {hosts[0].ip, hosts[1].ip};

	h->driver->ops->put_network(h->driver, &net);
	h->driver->ops->put_endpoint(h->driver, &e, make);
	h->driver->ops->put_remote(h->driver, &r);
	h->driver->ops->set_flood(h->driver, &net.id, members, 2);
	h->driver->ops->set_members(h->driver, members, 2);
}

/* What the engine does with the peer: into the container, renamed, addressed, up. */
static void plug_as(const struct driver_endpoint *e, unsigned host, int container)
{
	struct prefix p4 = {.ip = e->ip4, .length = 8}, p6 = {.ip = e->ip6, .length = 32};
	struct nl_socket *s;
	uint32_t index;
	struct nlb b;

	enter(hosts[host - 1].ns);
	index = if_nametoindex(e->peer_name);
	assert_int_not_equal(index, 0);
	OK(nl_open(-1, NULL, 0, &s, &err));
	nl_link_set_request(&b, index);
	nlb_put_u32(&b, IFLA_NET_NS_FD, (uint32_t)container);
	nlb_put_text(&b, IFLA_IFNAME, "eth0");
	OK(nl_transact(s, &b, &err));
	nl_close(s);

	enter(container);
	index = if_nametoindex("eth0");
	OK(nl_open(-1, NULL, 0, &s, &err));
	nl_addr_put_request(&b, index, &p4);
	OK(nl_transact(s, &b, &err));
	nl_addr_put_request(&b, index, &p6);
	OK(nl_transact(s, &b, &err));
	nl_link_set_up_request(&b, index, true);
	OK(nl_transact(s, &b, &err));
	nl_close(s);
}

static void plug(unsigned host, unsigned n, int container)
{
	struct driver_endpoint e = endpoint_of(host, n);

	plug_as(&e, host, container);
}

static bool pings(int from, const struct ip *to)
{
	char text[IP_TEXT_SIZE];

	return shell(from, "ping -c 1 -W 1 -q %s >/dev/null 2>&1", ip_format(to, text)) == 0;
}

static void must_ping(int from, unsigned host, unsigned n)
{
	struct ip to4 = v4(host, n), to6 = v6(host, n);
	uint64_t deadline = clock_boot_ms() + DEADLINE_MS;
	bool ok = false;

	while (!ok && clock_boot_ms() < deadline)
		ok = pings(from, &to4) && pings(from, &to6);
	assert_true(ok);
}

static void ping_both_ways(void)
{
	must_ping(containers[0], 2, 1);
	must_ping(containers[1], 1, 1);
}

static void attach_both(void)
{
	for (unsigned i = 0; i < 2; i++) {
		open_driver(&hosts[i]);
		desire(&hosts[i], true);
		sync_driver(&hosts[i]);
		assert_int_equal(hosts[i].driver->ops->endpoint_state(hosts[i].driver, &net.id, endpoint_of(i + 1, 1).id),
			DRIVER_LINK_IN_HOST);
		plug(i + 1, 1, containers[i]);
		assert_int_equal(hosts[i].driver->ops->endpoint_state(hosts[i].driver, &net.id, endpoint_of(i + 1, 1).id),
			DRIVER_LINK_AWAY);
	}
}

static int count_links(const struct host *h)
{
	char text[32] = "";
	int fd = fabric_fd(h);
	FILE *f;

	enter(fd);
	close(fd);
	f = popen("ip -o link | wc -l", "r");
	assert_non_null(f);
	assert_non_null(fgets(text, sizeof(text), f));
	pclose(f);
	return (int)strtol(text, NULL, 10);
}

static void purge(struct host *h)
{
	if (!h->driver)
		return;
	OK(h->driver->ops->purge(h->driver, &err));
	close_driver(h);
	assert_int_equal(access(h->fabric, F_OK), -1);
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++)
		purge(&hosts[i]);
	return 0;
}

/* Outer frames on the wire that carry ARP, or a neighbour solicitation or advertisement. */
static int wire_socket(int ns)
{
	int fd;

	enter(ns);
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ALL));
	assert_true(fd >= 0);
	return fd;
}

static unsigned count_questions(int wire, unsigned *ret_frames)
{
	const size_t inner = 14 + 20 + 8 + 8; /* outer Ethernet, IPv4, UDP, VXLAN */
	unsigned questions = 0, frames = 0;
	uint8_t f[2048];
	ssize_t n;

	while ((n = recv(wire, f, sizeof(f), 0)) > 0) {
		const uint8_t *e = f + inner;

		if ((size_t)n < inner + 14 + 41 || f[23] != 17 || f[36] != VXLAN_PORT >> 8 || f[37] != (VXLAN_PORT & 0xff))
			continue;
		frames++;
		questions += (e[12] == 0x08 && e[13] == 0x06) ||
			     (e[12] == 0x86 && e[13] == 0xdd && e[20] == 58 && (e[54] == 135 || e[54] == 136));
	}
	*ret_frames = frames;
	return questions;
}

static void two_hosts_ping_both_ways_without_arp_on_the_wire(void **state)
{
	unsigned frames;
	int wire;

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	IN_FABRIC(&hosts[0], "bridge -d link show | grep -A1 ': tv' | grep -q 'learning off flood off .*locked on'");
	wire = wire_socket(hosts[0].ns);
	ping_both_ways();
	assert_int_equal(count_questions(wire, &frames), 0);
	assert_true(frames >= 8); /* four echoes and their replies: the capture did see the traffic */
	close(wire);
}

static void syncing_twice_sends_nothing(void **state)
{
	uint64_t before;

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	for (unsigned i = 0; i < 2; i++) {
		resync_driver(&hosts[i]);
		before = counters(&hosts[i])->messages;
		sync_driver(&hosts[i]);
		resync_driver(&hosts[i]);
		assert_int_equal(counters(&hosts[i])->messages, before);
		assert_int_equal(drift(&hosts[i]), 0);
		assert_int_equal(counters(&hosts[i])->repairs, 0);
		assert_false(hosts[i].driver->ops->drain(hosts[i].driver)); /* own changes do not look like drift */
	}
}

static bool readable(const struct host *h)
{
	struct pollfd p = {.fd = h->driver->ops->notify_fd(h->driver), .events = POLLIN};

	return poll(&p, 1, DEADLINE_MS) == 1;
}

static const struct {
	const char *what, *command;
} damages[] = {
	{"bridge deleted", "ip link del $(ls /sys/class/net | grep ^tb)"},
	{"vxlan device deleted", "ip link del $(ls /sys/class/net | grep ^tx)"},
	{"bridge down and up", "ip link set $(ls /sys/class/net | grep ^tb) down"},
	{"bridge MAC changed", "ip link set $(ls /sys/class/net | grep ^tb) address 02:00:00:00:00:99"},
	{"vxlan down", "ip link set $(ls /sys/class/net | grep ^tx) down"},
	{"vxlan out of the bridge", "ip link set $(ls /sys/class/net | grep ^tx) nomaster"},
	{"pair out of the bridge", "ip link set $(ls /sys/class/net | grep ^tv) nomaster"},
	{"pair down", "ip link set $(ls /sys/class/net | grep ^tv) down"},
	{"port flags", "bridge link set dev $(ls /sys/class/net | grep ^tx) neigh_suppress off flood on learning on"},
	{"pair unlocked", "bridge link set dev $(ls /sys/class/net | grep ^tv) locked off flood on"},
	{"fdb rows flushed", "bridge fdb del 02:02:00:00:00:01 dev $(ls /sys/class/net | grep ^tx) self"},
	{"fdb row elsewhere", "bridge fdb replace 02:02:00:00:00:01 dev $(ls /sys/class/net | grep ^tx) dst 192.0.2.99 self"},
	{"bridge row deleted", "bridge fdb del 02:02:00:00:00:01 dev $(ls /sys/class/net | grep ^tx) master"},
	{"bridge row stolen", "bridge fdb replace 02:02:00:00:00:01 dev $(ls /sys/class/net | grep ^tv) master static"},
	{"bridge row permanent", "bridge fdb replace 02:02:00:00:00:01 dev $(ls /sys/class/net | grep ^tx) master permanent"},
	{"neighbour deleted", "ip neigh del 10.92.0.1 dev $(ls /sys/class/net | grep ^tb)"},
	{"neighbour wrong",
		"ip neigh replace 10.92.0.1 lladdr 02:00:00:00:00:98 nud permanent dev $(ls /sys/class/net | grep ^tb)"},
	{"neighbours flushed", "ip -6 neigh flush nud permanent dev $(ls /sys/class/net | grep ^tb)"},
	{"flood list deleted", "bridge fdb del 00:00:00:00:00:00 dev $(ls /sys/class/net | grep ^tx) dst 192.0.2.2 self"},
	{"flood list grown", "bridge fdb append 00:00:00:00:00:00 dev $(ls /sys/class/net | grep ^tx) dst 192.0.2.77 self"},
	{"row of nobody", "bridge fdb add 02:77:00:00:00:01 dev $(ls /sys/class/net | grep ^tx) dst 192.0.2.77 self"},
};

/* sysfs shows the devices of the namespace it was mounted in: commands get a mount of their own. */
#define WITH_SYSFS "unshare -m sh -c 'mount -t sysfs none /sys && %s'"

static void damage_is_noticed_and_repaired(void **state)
{
	struct host *h = &hosts[0];

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	ping_both_ways();
	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		print_message("    %s\n", damages[i].what);
		IN_FABRIC(h, WITH_SYSFS, damages[i].command);
		assert_true(readable(h));
		assert_true(h->driver->ops->drain(h->driver));
		sync_driver(h);
		resync_driver(h);
		assert_int_equal(drift(h), 0);
		ping_both_ways();
	}
	assert_true(counters(h)->repairs >= sizeof(damages) / sizeof(damages[0]));
}

static void damage_without_notice_is_found_by_resync(void **state)
{
	struct host *h = &hosts[0];

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	resync_driver(h); /* the first comparison counts what was just made as missing or not; this one is past it */
	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		print_message("    %s\n", damages[i].what);
		IN_FABRIC(h, WITH_SYSFS, damages[i].command);
		resync_driver(h);
		assert_int_not_equal(drift(h), 0);
		resync_driver(h);
		assert_int_equal(drift(h), 0);
	}
	ping_both_ways();
}

static void reopening_adopts_and_changes_nothing(void **state)
{
	struct host *h = &hosts[0];
	char before[4096] = "", after[4096] = "";
	char packets[16] = "";

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	for (unsigned i = 0; i < 2; i++) {
		int fd = fabric_fd(h);
		FILE *f;

		enter(fd);
		close(fd);
		f = popen("ip -o link | cut -d' ' -f1,2", "r");
		assert_non_null(f);
		assert_true(fread(i ? after : before, 1, sizeof(before) - 1, f) > 0);
		pclose(f);
		if (i)
			break;
		/* Pings run through the close, the time without a driver, and the next one's start. */
		enter(containers[0]);
		f = popen("ping -c 30 -i 0.01 -W 1 -q 10.92.0.1 | grep -c ' 0% packet loss'", "r");
		assert_non_null(f);
		close_driver(h);
		open_driver(h);
		desire(h, false);
		resync_driver(h);
		assert_non_null(fgets(packets, sizeof(packets), f));
		pclose(f);
		assert_string_equal(packets, "1\n");
	}
	assert_string_equal(before, after);
	assert_int_equal(drift(h), 0);
	assert_int_equal(counters(h)->messages, 0);
	ping_both_ways();
}

static void what_nobody_wants_after_reopening_goes(void **state)
{
	struct host *h = &hosts[0];
	uint64_t deadline = clock_boot_ms() + DEADLINE_MS;

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	close_driver(h);
	open_driver(h);
	resync_driver(h);
	assert_int_equal(counters(h)->last_drift.foreign, 3); /* bridge, vxlan device, pair */
	while (h->driver->ops->reap(h->driver, NULL) > 0 && clock_boot_ms() < deadline)
		poll(NULL, 0, 5);
	assert_int_equal(count_links(h), 1);
	assert_int_equal(counters(h)->reaped, 3);
}

static void tunnel_mac_in(const struct host *h, char buf[32])
{
	int fd = fabric_fd(h);
	FILE *f;

	enter(fd);
	close(fd);
	f = popen("ip -o link show type vxlan | sed 's/.*link.ether //; s/ .*//'", "r");
	assert_non_null(f);
	assert_non_null(fgets(buf, 32, f));
	pclose(f);
}

static void a_host_that_starts_over_wants_nothing_and_takes_its_new_number(void **state)
{
	struct host *h = &hosts[0];
	uint64_t deadline = clock_boot_ms() + DEADLINE_MS;
	struct mac tunnel = vxlan_tunnel_mac(77);
	char before[32], after[32], expected[32], mac[MAC_TEXT_SIZE];

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	tunnel_mac_in(h, before);
	h->driver->ops->start_over(h->driver, 77);
	sync_driver(h);
	assert_int_equal(counters(h)->networks, 0);
	while (h->driver->ops->reap(h->driver, NULL) > 0 && clock_boot_ms() < deadline)
		poll(NULL, 0, 5);
	assert_int_equal(count_links(h), 1);
	desire(h, true);
	sync_driver(h);
	tunnel_mac_in(h, after);
	snprintf(expected, sizeof(expected), "%s\n", mac_format(&tunnel, mac));
	assert_string_equal(after, expected);
	assert_string_not_equal(after, before);
	resync_driver(h);
	assert_int_equal(drift(h), 0);
}

static void held_rows_stay_until_let_go(void **state)
{
	struct host *h = &hosts[0];
	struct driver_endpoint e = endpoint_of(1, 1);

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	close_driver(h);
	open_driver(h);
	h->driver->ops->hold_removals(h->driver, true);
	h->driver->ops->put_network(h->driver, &net);
	h->driver->ops->put_endpoint(h->driver, &e, false);
	resync_driver(h); /* no record of the remote yet */
	assert_int_equal(drift(h), 0);
	ping_both_ways();
	h->driver->ops->hold_removals(h->driver, false);
	sync_driver(h);
	assert_false(pings(containers[0], &(struct ip){.family = 4, .bytes = {10, 92, 0, 1}}));
}

static void foreign_objects_in_the_fabric_are_left_alone(void **state)
{
	struct host *h = &hosts[0];
	struct err err = {0};

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	IN_FABRIC(h, "ip link add other0 type bridge && ip link set other0 alias somebody && "
		     "ip link add other1 type veth peer name other2 && ip neigh add 10.1.1.1 lladdr 02:01:01:01:01:01 nud "
		     "permanent dev other0");
	resync_driver(h);
	assert_int_equal(drift(h), 0);
	IN_FABRIC(h, "ip link show other0 >/dev/null && ip link show other1 >/dev/null && ip neigh show dev other0 | grep -q "
		     "10.1.1.1");
	/* Even purge leaves them, and the namespace with them, and says so. */
	assert_int_equal(h->driver->ops->purge(h->driver, &err), -1);
	assert_int_equal(err.code, ERR_CONFLICT);
	assert_non_null(strstr(err.text, "is not ours"));
	assert_int_equal(count_links(h), 4);
	IN_FABRIC(h, "ip link del other0 && ip link del other1");
}

static void deleting_and_adding_again_before_the_reaper_works(void **state)
{
	struct host *h = &hosts[0];
	struct driver_endpoint e = endpoint_of(1, 1);

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	for (unsigned i = 0; i < 3; i++) {
		h->driver->ops->del_endpoint(h->driver, &net.id, e.id);
		sync_driver(h);
		assert_int_equal(h->driver->ops->endpoint_state(h->driver, &net.id, e.id), DRIVER_LINK_ABSENT);
		if (i == 2) /* and while it is at work */
			assert_true(h->driver->ops->reap(h->driver, NULL) > 0);
		h->driver->ops->put_endpoint(h->driver, &e, true);
		sync_driver(h);
		enter(h->ns);
		plug(1, 1, containers[0]);
		ping_both_ways();
	}
	resync_driver(h);
	assert_int_equal(drift(h), 0);
}

static void a_pair_that_went_with_its_namespace_stays_away(void **state)
{
	struct host *h = &hosts[0];
	struct driver_endpoint e = endpoint_of(1, 1);

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	h->driver->ops->put_endpoint(h->driver, &e, false);
	sync_driver(h);
	RUN(containers[0], "ip link del eth0");
	assert_true(readable(h));
	h->driver->ops->drain(h->driver);
	sync_driver(h);
	assert_int_equal(h->driver->ops->endpoint_state(h->driver, &net.id, e.id), DRIVER_LINK_ABSENT);
	resync_driver(h);
	assert_int_equal(drift(h), 0);
}

static void errors_name_the_object_and_what_to_do(void **state)
{
	struct host *h = &hosts[0];
	struct driver_endpoint e = endpoint_of(1, 1);
	struct err err = {0};

	(void)state;
	REQUIRE_KERNEL();
	open_driver(h);
	RUN(h->ns, "ip link add alien type vxlan id %d dstport 4789 local 192.0.2.1", VNI);
	desire(h, true);
	assert_int_equal(h->driver->ops->sync(h->driver, &err), -1);
	assert_non_null(strstr(err.text, "VNI 7"));
	assert_non_null(strstr(err.text, "give the network another VNI"));
	assert_true(h->driver->ops->endpoint_error(h->driver, &net.id, e.id, &err));
	RUN(h->ns, "ip link del alien");
	sync_driver(h); /* level-triggered: the next one succeeds */
	assert_false(h->driver->ops->endpoint_error(h->driver, &net.id, e.id, &err));

	e = endpoint_of(1, 2);
	RUN(h->ns, "ip link add %s type veth peer name other", e.peer_name);
	h->driver->ops->put_endpoint(h->driver, &e, true);
	assert_int_equal(h->driver->ops->sync(h->driver, &err), -1);
	assert_true(h->driver->ops->endpoint_error(h->driver, &net.id, e.id, &err));
	assert_int_equal(err.sys_errno, EEXIST);
	assert_non_null(strstr(err.text, e.peer_name));
	assert_non_null(strstr(err.text, "remove or rename it"));
	RUN(h->ns, "ip link del %s", e.peer_name);
	sync_driver(h);
	assert_int_equal(h->driver->ops->endpoint_state(h->driver, &net.id, e.id), DRIVER_LINK_IN_HOST);
	resync_driver(h);
	resync_driver(h);
	assert_int_equal(drift(h), 0);
}

static void a_taken_udp_port_is_said_and_retried(void **state)
{
	struct host *h = &hosts[0];
	struct err err = {0};

	(void)state;
	REQUIRE_KERNEL();
	open_driver(h);
	RUN(h->ns, "ip link add alien type vxlan external dstport 4789 && ip link set alien up");
	desire(h, true);
	assert_int_equal(h->driver->ops->sync(h->driver, &err), -1);
	assert_int_equal(err.sys_errno, EADDRINUSE);
	assert_non_null(strstr(err.text, "holds the UDP port"));
	RUN(h->ns, "ip link del alien");
	sync_driver(h);
	resync_driver(h);
	resync_driver(h);
	assert_int_equal(drift(h), 0);
}

static void a_new_vni_remakes_the_device(void **state)
{
	struct driver_network other = net;

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	other.vni = 4711;
	for (unsigned i = 0; i < 2; i++) {
		hosts[i].driver->ops->put_network(hosts[i].driver, &other);
		sync_driver(&hosts[i]);
	}
	ping_both_ways();
	for (unsigned i = 0; i < 2; i++) {
		IN_FABRIC(&hosts[i], "ip -d link show up type vxlan | grep -q 'id 4711'");
		resync_driver(&hosts[i]);
		assert_int_equal(drift(&hosts[i]), 0);
	}
}

static void one_attach_among_many_is_quick(void **state)
{
	struct host *h = &hosts[0];
	struct driver_endpoint e;
	uint64_t start, best = UINT64_MAX;

	(void)state;
	REQUIRE_KERNEL();
	open_driver(h);
	desire(h, true);
	start = clock_boot_us();
	for (unsigned i = 2; i <= MANY_ENDPOINTS; i++) {
		e = endpoint_of(1, i);
		h->driver->ops->put_endpoint(h->driver, &e, true);
	}
	for (unsigned i = 2; i <= MANY_REMOTES; i++) {
		struct driver_remote r = remote_of(2, i);

		h->driver->ops->put_remote(h->driver, &r);
	}
	sync_driver(h);
	print_message("    %d endpoints and %d remotes: %llu ms\n", MANY_ENDPOINTS, MANY_REMOTES,
		(unsigned long long)(clock_boot_us() - start) / 1000);
	assert_int_equal(counters(h)->overruns, 0);
	for (unsigned i = 0; i < 20; i++) {
		e = endpoint_of(1, MANY_ENDPOINTS + 1 + i);
		start = clock_boot_us();
		h->driver->ops->put_endpoint(h->driver, &e, true);
		sync_driver(h);
		if (clock_boot_us() - start < best)
			best = clock_boot_us() - start;
	}
	print_message("    one more: %llu us at best of 20\n", (unsigned long long)best);
	start = clock_boot_us();
	resync_driver(h);
	print_message("    full comparison: %llu ms\n", (unsigned long long)(clock_boot_us() - start) / 1000);
	resync_driver(h);
	assert_int_equal(drift(h), 0);
	assert_int_equal(counters(h)->overruns, 0);
	start = clock_boot_us();
	h->driver->ops->del_network(h->driver, &net.id);
	sync_driver(h);
	print_message("    all taken down: %llu ms\n", (unsigned long long)(clock_boot_us() - start) / 1000);
}

static void the_link_state_follows_the_peer(void **state)
{
	struct host *h = &hosts[0];
	struct driver_endpoint e = endpoint_of(1, 1);
	uint64_t deadline = clock_boot_ms() + DEADLINE_MS;

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	ping_both_ways(); /* the carrier is up: the answer comes from memory from now on */
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(h->driver->ops->endpoint_state(h->driver, &net.id, e.id), DRIVER_LINK_AWAY);
	h->driver->ops->sync(h->driver, NULL);
	/* What the engine does when a container leaves: renamed, and back into the host's namespace. */
	RUN(containers[0], "ip link set eth0 down && ip link set eth0 name %s netns /proc/%d/fd/%d", e.peer_name, getpid(),
		h->ns);
	while (h->driver->ops->endpoint_state(h->driver, &net.id, e.id) != DRIVER_LINK_IN_HOST && clock_boot_ms() < deadline)
		readable(h);
	assert_int_equal(h->driver->ops->endpoint_state(h->driver, &net.id, e.id), DRIVER_LINK_IN_HOST);
	RUN(h->ns, "ip link set %s name eth9 netns /proc/%d/fd/%d", e.peer_name, getpid(), containers[0]);
	assert_int_equal(h->driver->ops->endpoint_state(h->driver, &net.id, e.id), DRIVER_LINK_AWAY);
	RUN(containers[0], "ip link del eth9");
	assert_int_equal(h->driver->ops->endpoint_state(h->driver, &net.id, e.id), DRIVER_LINK_ABSENT);
}

static void a_container_that_goes_up_or_away_wants_no_sync(void **state)
{
	struct host *h = &hosts[0];
	struct driver_endpoint e = endpoint_of(1, 1);

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	h->driver->ops->put_endpoint(h->driver, &e, false);
	sync_driver(h);
	RUN(containers[0], "ip link set eth0 down");
	assert_true(readable(h));
	assert_false(h->driver->ops->drain(h->driver));
	RUN(containers[0], "ip link del eth0");
	assert_true(readable(h));
	/* Its neighbour rows are left on the bridge: there is something to do, once. */
	assert_true(h->driver->ops->drain(h->driver));
	sync_driver(h);
	assert_false(h->driver->ops->drain(h->driver));
}

static void none_failed(void *arg, uint32_t cookie, int error, const char *extack)
{
	(void)cookie;
	if (error) {
		*(int *)arg = error;
		print_message("%s %s\n", strerror(error), extack);
	}
}

/* More changes by others, while nobody reads, than the notice buffer holds. */
static void flood_notices(const struct host *h, unsigned rows)
{
	struct ip dst = {.family = 4, .bytes = {192, 0, 2, 77}};
	struct nl_batch *batch = nl_batch_new();
	int fabric = fabric_fd(h), failed = 0;
	struct nl_socket *s;
	uint32_t index;
	struct nlb b;

	RUN(fabric, "ip link add other0 type vxlan id 99 dstport 9999 local 192.0.2.1 nolearning");
	index = if_nametoindex("other0");
	OK(nl_open(fabric, NULL, 0, &s, &err));
	for (unsigned i = 0; i < rows; i++) {
		struct mac mac = {{0x02, 0x55, 0, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i}};

		nl_fdb_put_request(&b, index, &mac, &dst);
		assert_true(nl_batch_add(batch, &b, i));
		if (nl_batch_count(batch) == NL_BATCH_MAX)
			OK(nl_batch_send(s, batch, none_failed, &failed, &err));
	}
	OK(nl_batch_send(s, batch, none_failed, &failed, &err));
	assert_int_equal(failed, 0);
	nl_close(s);
	nl_batch_free(batch);
	close(fabric);
}

static void lost_notices_lead_to_a_full_comparison(void **state)
{
	struct host *h = &hosts[0];
	uint64_t resyncs;

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	resync_driver(h);
	resyncs = counters(h)->resyncs;
	flood_notices(h, 50000);
	IN_FABRIC(h, WITH_SYSFS, "bridge fdb del 02:02:00:00:00:01 dev $(ls /sys/class/net | grep ^tx) self");
	assert_true(h->driver->ops->drain(h->driver));
	assert_true(counters(h)->overruns > 0);
	sync_driver(h); /* sees that notices were lost, and compares all */
	assert_int_equal(counters(h)->resyncs, resyncs + 1);
	assert_int_equal(counters(h)->last_drift.missing, 1);
	assert_int_equal(drift(h), 1);
	ping_both_ways();
	IN_FABRIC(h, "ip link del other0");
}

static void two_records_of_one_address_have_one_winner(void **state)
{
	struct host *h = &hosts[0];
	struct driver_remote a = remote_of(2, 1), b = remote_of(2, 5);

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	b.ip4 = a.ip4;
	b.ip6 = a.ip6;
	h->driver->ops->put_remote(h->driver, &b);
	sync_driver(h);
	IN_FABRIC(h, "ip neigh show 10.92.0.1 | grep -q 02:02:00:00:00:01"); /* the lower MAC, whatever came first */
	h->driver->ops->del_remote(h->driver, &net.id, &a.mac);
	sync_driver(h);
	IN_FABRIC(h, "ip neigh show 10.92.0.1 | grep -q 02:02:00:00:00:05");
	h->driver->ops->put_remote(h->driver, &a);
	h->driver->ops->del_remote(h->driver, &net.id, &b.mac);
	sync_driver(h);
	resync_driver(h);
	resync_driver(h);
	assert_int_equal(drift(h), 0);
	ping_both_ways();
}

static void an_ipv6_underlay_carries_too(void **state)
{
	struct ip was[2] = {hosts[0].ip, hosts[1].ip};

	(void)state;
	REQUIRE_KERNEL();
	for (unsigned i = 0; i < 2; i++) {
		hosts[i].ip = (struct ip){.family = 6, .bytes = {0x20, 0x01, 0x0d, 0xb8, [15] = (uint8_t)(i + 1)}};
		RUN(hosts[i].ns, "ip -6 addr add 2001:db8::%u/64 dev eth0 nodad", i + 1);
	}
	attach_both();
	ping_both_ways();
	for (unsigned i = 0; i < 2; i++) {
		resync_driver(&hosts[i]);
		assert_int_equal(counters(&hosts[i])->repairs, 0);
		hosts[i].ip = was[i];
	}
}

static void a_new_underlay_address_is_taken_over_in_place(void **state)
{
	struct host *h = &hosts[0];
	struct ip was = h->ip;

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	RUN(h->ns, "ip addr add 192.0.2.101/24 dev eth0");
	close_driver(h);
	h->ip.bytes[3] = 101;
	open_driver(h);
	desire(h, false);
	resync_driver(h);
	IN_FABRIC(h, "ip -d link show type vxlan | grep -q 'local 192.0.2.101'");
	assert_int_equal(count_links(h), 4);
	desire(&hosts[1], false);
	sync_driver(&hosts[1]);
	ping_both_ways();
	h->ip = was;
}

static void a_vni_passes_to_another_network_at_once(void **state)
{
	struct driver_network other = net;
	struct driver_endpoint e = endpoint_of(1, 3);
	struct host *h = &hosts[0];

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	other.id.bytes[0] = 0x77;
	e.network = other.id;
	h->driver->ops->del_network(h->driver, &net.id);
	sync_driver(h); /* the device is down and waits for its deletion, with the VNI */
	h->driver->ops->put_network(h->driver, &other);
	h->driver->ops->put_endpoint(h->driver, &e, true);
	sync_driver(h);
	IN_FABRIC(h, "ip -d link show up type vxlan | grep -q 'id 7 '");
	/* After a restart the old one is not even marked. */
	close_driver(h);
	open_driver(h);
	e = endpoint_of(1, 4);
	h->driver->ops->put_network(h->driver, &net);
	h->driver->ops->put_endpoint(h->driver, &e, true);
	sync_driver(h);
	assert_int_equal(h->driver->ops->endpoint_state(h->driver, &net.id, e.id), DRIVER_LINK_IN_HOST);
}

static void a_moved_remote_is_followed(void **state)
{
	struct host *h = &hosts[0];
	struct driver_remote r = remote_of(2, 1);

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	r.vtep.bytes[3] = 200;
	h->driver->ops->put_remote(h->driver, &r);
	sync_driver(h);
	assert_false(pings(containers[0], &r.ip4));
	r = remote_of(2, 1);
	h->driver->ops->put_remote(h->driver, &r);
	sync_driver(h);
	ping_both_ways();
}

static void a_leftover_of_a_crash_is_cleared(void **state)
{
	struct host *h = &hosts[0];

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	/* Born, and the daemon died before the message with the tag. 0x7472656e is the group links are born in. */
	IN_FABRIC(h, "ip link add tvleftover group %u type veth peer name tvpeer", 0x7472656e);
	resync_driver(h);
	assert_int_equal(counters(h)->last_drift.foreign, 1);
	for (uint64_t deadline = clock_boot_ms() + DEADLINE_MS;
		h->driver->ops->reap(h->driver, NULL) > 0 && clock_boot_ms() < deadline;)
		readable(h);
	assert_int_equal(shell(fabric_fd(h), "ip link show tvleftover >/dev/null 2>&1"), 1);
	ping_both_ways();
}

static int try_fabric(const struct host *h, const char *path, struct err *err)
{
	struct vxlan_config config = {.fabric_path = path, .local = h->ip, .hostno = 1, .table = "trestle-unit"};
	struct driver *driver = NULL;
	int rc;

	enter(h->ns);
	rc = vxlan_open(&config, &driver, err);
	if (rc == 0)
		driver->ops->close(driver);
	return rc;
}

/* The path is an operator's to choose, and what is there may be something else of theirs. */
static void a_fabric_path_with_something_else_at_it_is_refused_and_left(void **state)
{
	static const char *const what[] = {"mkdir $p", "echo x >$p", "ln -s /nowhere $p",
		"touch $p && mount --bind /etc/hostname $p", "touch $p $p.other && mount --bind $p.other $p"};
	char path[128], command[320];
	struct stat before, after;
	struct err refused = {0};
	int fd = -1;

	(void)state;
	REQUIRE_KERNEL();
	for (unsigned i = 0; i < sizeof(what) / sizeof(what[0]); i++) {
		snprintf(path, sizeof(path), "%s/other%u", dir, i);
		snprintf(command, sizeof(command), "p=%s; %s", path, what[i]);
		assert_int_equal(system(command), 0);
		assert_int_equal(lstat(path, &before), 0);
		assert_int_equal(try_fabric(&hosts[0], path, &refused), -1);
		assert_int_equal(refused.code, ERR_CONFLICT);
		assert_non_null(strstr(refused.text, path));
		assert_int_equal(lstat(path, &after), 0);
		assert_true(before.st_ino == after.st_ino && before.st_dev == after.st_dev);
		umount2(path, MNT_DETACH);
	}
	/* What a crash of ours leaves is an empty file. */
	snprintf(path, sizeof(path), "%s/leftover", dir);
	snprintf(command, sizeof(command), "touch %s", path);
	assert_int_equal(system(command), 0);
	OK(try_fabric(&hosts[0], path, &err));
	OK(netns_open(path, &fd, &err));
	close(fd);
	OK(netns_remove(path, &err));
	assert_int_equal(access(path, F_OK), -1);
}

/* The kernel tells a bridge of a port's carrier up to a second late (linkwatch), and until then the port is closed. */
static void wait_for_port(const struct host *h)
{
	uint64_t deadline = clock_boot_ms() + DEADLINE_MS;
	int fabric = fabric_fd(h), rc = -1;

	while ((rc = shell(fabric, "bridge link show | grep ': tv' | grep -q 'state forwarding'")) != 0 &&
		clock_boot_ms() < deadline)
		poll(NULL, 0, 10);
	close(fabric);
	assert_int_equal(rc, 0);
}

/* The address is given again on the other host: another endpoint, another MAC. `gap`: its record is gone for a while. */
static void reuse(unsigned n, int container, bool gap)
{
	struct driver_endpoint e = endpoint_of(2, n);
	struct driver_remote former = remote_of(2, n - 1), r = remote_of(2, n);

	former.ip4 = e.ip4 = r.ip4 = v4(2, 1);
	former.ip6 = e.ip6 = r.ip6 = v6(2, 1);
	hosts[1].driver->ops->del_endpoint(hosts[1].driver, &net.id, endpoint_of(2, n - 1).id);
	hosts[1].driver->ops->put_endpoint(hosts[1].driver, &e, true);
	sync_driver(&hosts[1]);
	plug_as(&e, 2, container);
	wait_for_port(&hosts[1]);
	hosts[0].driver->ops->del_remote(hosts[0].driver, &net.id, &former.mac);
	if (gap)
		sync_driver(&hosts[0]);
	hosts[0].driver->ops->put_remote(hosts[0].driver, &r);
	sync_driver(&hosts[0]);
}

static void a_reused_address_is_told_to_containers(void **state)
{
	struct ip to4 = v4(2, 1), to6 = v6(2, 1);
	uint64_t told = 0;
	unsigned frames;
	int wire;

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	ping_both_ways(); /* the container here has entries for both addresses, with the first MAC */
	assert_int_equal(counters(&hosts[0])->announced, 0);
	wire = wire_socket(hosts[0].ns);
	for (unsigned n = 2; n <= 3; n++) {
		int fresh = new_ns();

		assert_true(fresh >= 0);
		reuse(n, fresh, n == 3);
		if (n == 3) /* the allowance of the first announcement has to run out */
			for (uint64_t deadline = clock_boot_ms() + DEADLINE_MS;
				counters(&hosts[0])->announced == told && clock_boot_ms() < deadline && readable(&hosts[0]);)
				hosts[0].driver->ops->drain(hosts[0].driver);
		assert_int_equal(counters(&hosts[0])->announced, told + 3); /* ARP request and reply, advertisement */
		told = counters(&hosts[0])->announced;
		assert_true(pings(containers[0], &to4)); /* one packet, answered within the second */
		assert_true(pings(containers[0], &to6));
		close(fresh);
	}
	assert_int_equal(count_questions(wire, &frames), 0);
	assert_true(frames >= 8);
	close(wire);
	resync_driver(&hosts[0]);
	assert_int_equal(counters(&hosts[0])->announced, told); /* and not again */
	assert_int_equal(counters(&hosts[0])->repairs, 0);
}

static void put_remotes(struct host *h, unsigned count, unsigned shift, bool on)
{
	for (unsigned i = 1; i <= count; i++) {
		struct driver_remote r = remote_of(2, i);

		r.mac = mac_of(2, i + shift);
		if (on)
			h->driver->ops->put_remote(h->driver, &r);
		else
			h->driver->ops->del_remote(h->driver, &net.id, &r.mac);
	}
	sync_driver(h);
}

static void announcements_of_many_come_in_portions(void **state)
{
	struct host *h = &hosts[0];
	const unsigned count = 2000, frames = 3 * count, shift = 10000;
	uint64_t told;

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	put_remotes(h, count, 0, true);
	assert_int_equal(counters(h)->announced, 0);
	put_remotes(h, count, 0, false);
	put_remotes(h, count, shift, true);
	/* One endpoint here hears each frame. What is remembered of removed addresses is limited, the latest are kept. */
	assert_in_range(counters(h)->announced, 1024, 2 * 1024);
	told = counters(h)->announced;
	put_remotes(h, count, 2 * shift, true); /* now all change, while their rows are there */
	assert_true(counters(h)->announced - told < frames);
	put_remotes(h, count, shift, false);
	for (uint64_t deadline = clock_boot_ms() + DEADLINE_MS;
		counters(h)->announced - told < frames && clock_boot_ms() < deadline;) {
		assert_true(readable(h));
		h->driver->ops->drain(h->driver);
	}
	assert_true(counters(h)->announced - told >= frames);
	assert_false(h->driver->ops->drain(h->driver));
}

/* Deleted while no driver was there: its rows are held, but give way to whoever has the address or the MAC now. */
static void a_held_row_of_a_former_endpoint_gives_way(void **state)
{
	struct host *h = &hosts[0];
	struct driver_endpoint own = endpoint_of(1, 1), kept = endpoint_of(1, 2);
	struct driver_remote address = remote_of(2, 5), mac = remote_of(2, 6);

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	h->driver->ops->put_endpoint(h->driver, &kept, true);
	sync_driver(h);
	close_driver(h);
	open_driver(h);
	h->driver->ops->hold_removals(h->driver, true);
	h->driver->ops->put_network(h->driver, &net);
	h->driver->ops->put_endpoint(h->driver, &kept, false);
	resync_driver(h);
	IN_FABRIC(h, "ip neigh show 10.91.0.1 | grep -q 02:01:00:00:00:01"); /* held */
	address.ip4 = own.ip4;
	mac.mac = own.mac;
	h->driver->ops->put_remote(h->driver, &address);
	h->driver->ops->put_remote(h->driver, &mac);
	sync_driver(h);
	IN_FABRIC(h, "ip neigh show 10.91.0.1 | grep -q 02:02:00:00:00:05");
	IN_FABRIC(h, "bridge fdb show | grep 02:01:00:00:00:01 | grep -q 'tx.* master'");
	IN_FABRIC(h, "bridge fdb show | grep 02:01:00:00:00:01 | grep -q 'dst 192.0.2.2'");
}

/* Between looking and doing, a container's namespace ends and takes the pair along. */
static void a_pair_that_goes_under_way_is_no_failure(void **state)
{
	struct host *h = &hosts[0];
	struct vxlan *vx;
	struct vx_want_endpoint want = {.network = net.id, .mtu = MTU};
	struct driver_endpoint e = endpoint_of(1, 1);
	struct vx_endpoint *endpoint;
	struct vx_link seen;
	struct err err;

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	vx = (struct vxlan *)h->driver;
	h->driver->ops->put_endpoint(h->driver, &e, false);
	sync_driver(h);
	endpoint = vx_endpoint_find(vx_network_find(vx, &net.id), e.id);
	seen = endpoint->link->link;
	seen.up = false;
	want.id = endpoint->id;
	want.bridge = seen.master;
	RUN(containers[0], "ip link del eth0");
	vx_plan_endpoint(vx->plan, &want, &seen, false);
	assert_int_equal(vx->plan->count, 1);
	vx->plan->ops[0].owner = endpoint;
	vx->plan->ops[0].owner_kind = VX_OWNER_ENDPOINT;
	vx->failures = 0;
	vx_apply(vx);
	assert_int_equal(vx->failures, 0);
	assert_false(h->driver->ops->endpoint_error(h->driver, &net.id, e.id, &err));
	assert_int_equal(h->driver->ops->endpoint_state(h->driver, &net.id, e.id), DRIVER_LINK_ABSENT);
	sync_driver(h);
	assert_false(h->driver->ops->drain(h->driver));
}

static void detaching_leaves_nothing_to_complain_about(void **state)
{
	struct host *h = &hosts[0];
	struct driver_endpoint e = endpoint_of(1, 2);

	(void)state;
	REQUIRE_KERNEL();
	attach_both();
	h->driver->ops->put_endpoint(h->driver, &e, true);
	sync_driver(h);
	h->driver->ops->del_endpoint(h->driver, &net.id, e.id);
	sync_driver(h); /* one batch: out of the bridge, then the rows */
	resync_driver(h);
	assert_int_equal(drift(h), 0);
	IN_FABRIC(h, "! bridge fdb show | grep -q 02:01:00:00:00:02");
}

/* One port of a bridge is the tunnel's. */
static void a_full_bridge_is_said(void **state)
{
	struct host *h = &hosts[0];
	struct driver_endpoint e;
	struct err err = {0};

	(void)state;
	REQUIRE_KERNEL();
	open_driver(h);
	desire(h, true);
	for (unsigned i = 2; i <= 1022; i++) {
		e = endpoint_of(1, i);
		h->driver->ops->put_endpoint(h->driver, &e, true);
	}
	sync_driver(h);
	e = endpoint_of(1, 1023);
	h->driver->ops->put_endpoint(h->driver, &e, true);
	assert_int_equal(h->driver->ops->sync(h->driver, &err), -1);
	assert_int_equal(err.sys_errno, EXFULL);
	assert_true(h->driver->ops->endpoint_error(h->driver, &net.id, e.id, &err));
	assert_non_null(strstr(err.text, "start the container on another host"));
	print_message("    %s\n", err.text);
	h->driver->ops->del_endpoint(h->driver, &net.id, endpoint_of(1, 2).id);
	sync_driver(h); /* a place is free: the one that failed gets it */
	assert_false(h->driver->ops->endpoint_error(h->driver, &net.id, e.id, &err));
}

static bool make_wire(void)
{
	char command[512];

	snprintf(command, sizeof(command),
		"ip link add eth0 type veth peer name eth0 netns /proc/%d/fd/%d && ip addr add 192.0.2.1/24 dev eth0 && ip link "
		"set eth0 up",
		getpid(), hosts[1].ns);
	if (setns(hosts[0].ns, CLONE_NEWNET) < 0 || system(command) != 0)
		return false;
	return setns(hosts[1].ns, CLONE_NEWNET) == 0 && system("ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up") == 0;
}

static void build(void)
{
	snprintf(dir, sizeof(dir), "/tmp/trestle-unit-XXXXXX");
	if (geteuid() != 0)
		skip_reason = "needs root, for network namespaces";
	else if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		skip_reason = "cannot make a mount namespace";
	else if (!mkdtemp(dir))
		skip_reason = "cannot make a directory in /tmp";
	if (skip_reason)
		return;
	for (unsigned i = 0; i < 2; i++) {
		hosts[i].ns = new_ns();
		containers[i] = new_ns();
		snprintf(hosts[i].fabric, sizeof(hosts[i].fabric), "%s/netns/fabric%u", dir, i + 1);
		hosts[i].ip = (struct ip){.family = 4, .bytes = {192, 0, 2, (uint8_t)(i + 1)}};
		if (hosts[i].ns < 0 || containers[i] < 0)
			skip_reason = "cannot make network namespaces";
	}
	if (!skip_reason && !make_wire())
		skip_reason = "cannot join two namespaces by a veth";
}

static int run(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(two_hosts_ping_both_ways_without_arp_on_the_wire, teardown),
		cmocka_unit_test_teardown(syncing_twice_sends_nothing, teardown),
		cmocka_unit_test_teardown(damage_is_noticed_and_repaired, teardown),
		cmocka_unit_test_teardown(damage_without_notice_is_found_by_resync, teardown),
		cmocka_unit_test_teardown(reopening_adopts_and_changes_nothing, teardown),
		cmocka_unit_test_teardown(what_nobody_wants_after_reopening_goes, teardown),
		cmocka_unit_test_teardown(a_host_that_starts_over_wants_nothing_and_takes_its_new_number, teardown),
		cmocka_unit_test_teardown(held_rows_stay_until_let_go, teardown),
		cmocka_unit_test_teardown(foreign_objects_in_the_fabric_are_left_alone, teardown),
		cmocka_unit_test_teardown(deleting_and_adding_again_before_the_reaper_works, teardown),
		cmocka_unit_test_teardown(a_pair_that_went_with_its_namespace_stays_away, teardown),
		cmocka_unit_test_teardown(errors_name_the_object_and_what_to_do, teardown),
		cmocka_unit_test_teardown(a_taken_udp_port_is_said_and_retried, teardown),
		cmocka_unit_test_teardown(a_new_vni_remakes_the_device, teardown),
		cmocka_unit_test_teardown(the_link_state_follows_the_peer, teardown),
		cmocka_unit_test_teardown(a_container_that_goes_up_or_away_wants_no_sync, teardown),
		cmocka_unit_test_teardown(lost_notices_lead_to_a_full_comparison, teardown),
		cmocka_unit_test_teardown(two_records_of_one_address_have_one_winner, teardown),
		cmocka_unit_test_teardown(an_ipv6_underlay_carries_too, teardown),
		cmocka_unit_test_teardown(a_new_underlay_address_is_taken_over_in_place, teardown),
		cmocka_unit_test_teardown(a_vni_passes_to_another_network_at_once, teardown),
		cmocka_unit_test_teardown(a_moved_remote_is_followed, teardown),
		cmocka_unit_test_teardown(a_leftover_of_a_crash_is_cleared, teardown),
		cmocka_unit_test_teardown(a_fabric_path_with_something_else_at_it_is_refused_and_left, teardown),
		cmocka_unit_test_teardown(a_reused_address_is_told_to_containers, teardown),
		cmocka_unit_test_teardown(announcements_of_many_come_in_portions, teardown),
		cmocka_unit_test_teardown(a_held_row_of_a_former_endpoint_gives_way, teardown),
		cmocka_unit_test_teardown(a_pair_that_goes_under_way_is_no_failure, teardown),
		cmocka_unit_test_teardown(detaching_leaves_nothing_to_complain_about, teardown),
		cmocka_unit_test_teardown(a_full_bridge_is_said, teardown),
		cmocka_unit_test_teardown(one_attach_among_many_is_quick, teardown),
	};
	int failed;

	build();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	if (!skip_reason && shell(hosts[0].ns, "rm -rf %s", dir) != 0)
		failed++;
	return failed;
}

/* In a child: its namespaces, and the mounts of the fabrics, go with it however it ends. */
int main(void)
{
	return in_child(run);
}

/* The members filter against the real kernel: frames are sent through it, in network namespaces of the test's own.
 *
 *   sender                        host (guard, sockets in place of vxlan)             peer
 *   192.0.2.1, .9 -- left ------- 192.0.2.2        198.51.100.2 ------------ right -- 198.51.100.1
 *   2001:db8:1::1                 2001:db8:1::2    2001:db8:2::2                      2001:db8:2::1
 *
 * That a frame was dropped is shown without waiting: a marker of a VNI that is not ours follows it on the same path, and packets
 * of one socket over one veth stay in order. */
#include "driver/vxlan/guard.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "tests/unit/kernel.h"

#define TABLE "guardtest"
#define PORT 4789
#define OURS 7
#define MARKER 99
#define DEADLINE_MS 60000

static int sender_ns = -1, host_ns = -1, peer_ns = -1;

static void run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void run(const char *fmt, ...)
{
	char command[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	if (system(command) != 0)
		fail_msg("command failed: %s", command);
}

static void address(const char *dev, const char *prefix)
{
	run("ip addr add %s dev %s%s", prefix, dev, strchr(prefix, ':') ? " nodad" : "");
}

static int setup_namespaces(void **state)
{
	(void)state;
	if (geteuid() != 0) {
		skip_reason = "needs root for network namespaces";
		return 0;
	}
	sender_ns = new_ns();
	peer_ns = new_ns();
	host_ns = new_ns();
	if (sender_ns < 0 || peer_ns < 0 || host_ns < 0) {
		skip_reason = "this kernel gives no network namespace";
		return 0;
	}
	run("ip link add left type veth peer name wire netns /proc/%d/fd/%d", getpid(), sender_ns);
	run("ip link add right type veth peer name wire netns /proc/%d/fd/%d", getpid(), peer_ns);
	address("left", "192.0.2.2/24");
	address("left", "2001:db8:1::2/64");
	address("right", "198.51.100.2/24");
	address("right", "2001:db8:2::2/64");
	run("ip link set left up; ip link set right up");
	run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
	enter(sender_ns);
	run("ip link set wire up");
	address("wire", "192.0.2.1/24");
	address("wire", "192.0.2.9/24");
	address("wire", "2001:db8:1::1/64");
	run("ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8:1::2");
	enter(peer_ns);
	run("ip link set wire up");
	address("wire", "198.51.100.1/24");
	address("wire", "2001:db8:2::1/64");
	run("ip route add default via 198.51.100.2; ip -6 route add default via 2001:db8:2::2");
	enter(host_ns);
	return 0;
}

static int teardown_namespaces(void **state)
{
	(void)state;
	if (sender_ns >= 0)
		close(sender_ns);
	if (peer_ns >= 0)
		close(peer_ns);
	if (host_ns >= 0)
		close(host_ns);
	return 0;
}

static int open_guard(void **state)
{
	struct guard *guard = NULL;
	struct err err = {0};

	if (skip_reason)
		return 0;
	enter(host_ns);
	if (guard_open(TABLE, PORT, &guard, &err) < 0)
		fail_msg("%s", err.text);
	*state = guard;
	return 0;
}

static int close_guard(void **state)
{
	struct err err = {0};

	if (!*state)
		return 0;
	enter(host_ns);
	assert_int_equal(guard_purge(*state, &err), 0);
	guard_close(*state);
	*state = NULL;
	return 0;
}

static struct ip ip(const char *text)
{
	struct ip ret;
	struct err err = {0};

	if (ip_parse(text, &ret, &err) < 0)
		fail_msg("%s", err.text);
	return ret;
}

static void apply(struct guard *guard, const uint32_t *vnis, size_t vni_count, const struct ip *members, size_t member_count)
{
	struct err err = {0};

	if (guard_apply(guard, vnis, vni_count, members, member_count, NULL, &err) < 0)
		fail_msg("%s", err.text);
}

static void apply_one(struct guard *guard, const char *member)
{
	static const uint32_t vni = OURS;
	struct ip members[1];

	members[0] = ip(member);
	apply(guard, &vni, 1, members, 1);
}

/* -- frames -- */

static socklen_t endpoint(const char *text, uint16_t port, struct sockaddr_storage *ss)
{
	struct ip addr = ip(text);

	memset(ss, 0, sizeof(*ss));
	if (addr.family == 4) {
		struct sockaddr_in *in = (struct sockaddr_in *)ss;

		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		memcpy(&in->sin_addr, addr.bytes, 4);
		return sizeof(*in);
	}
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	memcpy(&in6->sin6_addr, addr.bytes, 16);
	return sizeof(*in6);
}

/* In the namespace `ns`, whatever namespace the caller is in; the thread is back in the host's at the end. */
static int udp_socket(int ns, const char *local, uint16_t port)
{
	struct sockaddr_storage ss;
	socklen_t len = endpoint(local, port, &ss);
	int fd;

	enter(ns);
	fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	if (bind(fd, (struct sockaddr *)&ss, len) < 0)
		fail_msg("bind %s: %s", local, strerror(errno));
	enter(host_ns);
	return fd;
}

/* A VXLAN datagram: flags with the I bit, VNI, and an Ethernet frame of nothing. */
static void send_frame(int fd, const char *to, uint16_t port, uint32_t vni)
{
	uint8_t frame[8 + 64] = {0x08, 0, 0, 0, (uint8_t)(vni >> 16), (uint8_t)(vni >> 8), (uint8_t)vni, 0};
	struct sockaddr_storage ss;
	socklen_t len = endpoint(to, port, &ss);

	assert_int_equal(sendto(fd, frame, sizeof(frame), 0, (struct sockaddr *)&ss, len), sizeof(frame));
}

static uint32_t receive_vni(int fd)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	uint8_t frame[256];

	if (poll(&pfd, 1, DEADLINE_MS) != 1)
		fail_msg("no frame within %d ms", DEADLINE_MS);
	assert_true(recv(fd, frame, sizeof(frame), 0) >= 8);
	return (uint32_t)frame[4] << 16 | (uint32_t)frame[5] << 8 | frame[6];
}

/* How many of `count` frames of `vni` arrive. */
static int passed(int receiver_ns, const char *from, const char *to, uint32_t vni, int count)
{
	int receiver = udp_socket(receiver_ns, to, PORT), sender = udp_socket(sender_ns, from, 0), arrived = 0;
	uint32_t got;

	for (int i = 0; i < count; i++)
		send_frame(sender, to, PORT, vni);
	send_frame(sender, to, PORT, MARKER);
	while ((got = receive_vni(receiver)) != MARKER) {
		assert_int_equal(got, vni);
		arrived++;
	}
	close(receiver);
	close(sender);
	return arrived;
}

static void expect_counters(struct guard *guard, uint64_t foreign, uint64_t forged)
{
	uint64_t got_foreign = 0, got_forged = 0;
	struct err err = {0};

	if (guard_counters(guard, &got_foreign, &got_forged, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(got_foreign, foreign);
	assert_int_equal(got_forged, forged);
}

/* -- what passes and what does not -- */

static void frame_of_member_passes(void **state)
{
	REQUIRE_KERNEL();
	apply_one(*state, "192.0.2.1");
	assert_int_equal(passed(host_ns, "192.0.2.1", "192.0.2.2", OURS, 3), 3);
	apply_one(*state, "2001:db8:1::1");
	assert_int_equal(passed(host_ns, "2001:db8:1::1", "2001:db8:1::2", OURS, 3), 3);
	expect_counters(*state, 0, 0);
}

static void frame_of_stranger_is_dropped_and_counted(void **state)
{
	REQUIRE_KERNEL();
	apply_one(*state, "192.0.2.1");
	assert_int_equal(passed(host_ns, "192.0.2.9", "192.0.2.2", OURS, 5), 0);
	expect_counters(*state, 5, 0);
	assert_int_equal(passed(host_ns, "2001:db8:1::1", "2001:db8:1::2", OURS, 2), 0);
	expect_counters(*state, 7, 0);
}

static void vni_of_others_passes_from_anyone(void **state)
{
	REQUIRE_KERNEL();
	apply_one(*state, "192.0.2.1");
	assert_int_equal(passed(host_ns, "192.0.2.9", "192.0.2.2", OURS + 1, 3), 3);
	assert_int_equal(passed(host_ns, "192.0.2.9", "192.0.2.2", OURS << 8, 3), 3);
	assert_int_equal(passed(host_ns, "192.0.2.9", "192.0.2.2", OURS << 16, 3), 3);
	expect_counters(*state, 0, 0);
}

static void other_port_passes(void **state)
{
	int receiver, sender;

	REQUIRE_KERNEL();
	apply_one(*state, "192.0.2.1");
	receiver = udp_socket(host_ns, "192.0.2.2", PORT + 1);
	sender = udp_socket(sender_ns, "192.0.2.9", 0);
	send_frame(sender, "192.0.2.2", PORT + 1, OURS);
	assert_int_equal(receive_vni(receiver), OURS);
	close(receiver);
	close(sender);
	expect_counters(*state, 0, 0);
}

static void forged_frame_is_not_forwarded(void **state)
{
	REQUIRE_KERNEL();
	apply_one(*state, "192.0.2.1");
	assert_int_equal(passed(peer_ns, "192.0.2.1", "198.51.100.1", OURS, 4), 0);
	expect_counters(*state, 0, 4);
	assert_int_equal(passed(peer_ns, "2001:db8:1::1", "2001:db8:2::1", OURS, 2), 0);
	expect_counters(*state, 0, 6);
	assert_int_equal(passed(peer_ns, "192.0.2.1", "198.51.100.1", OURS + 1, 3), 3);
}

static void forged_frame_is_not_masqueraded(void **state)
{
	REQUIRE_KERNEL();
	run("nft 'table ip masq { chain post { type nat hook postrouting priority 100; oifname right masquerade; }; }'");
	apply_one(*state, "192.0.2.1");
	assert_int_equal(passed(peer_ns, "192.0.2.1", "198.51.100.1", OURS, 4), 0);
	expect_counters(*state, 0, 4);
	run("nft delete table ip masq");
}

static unsigned long conntrack_entries(void)
{
	unsigned long count = 0;
	FILE *file = fopen("/proc/sys/net/netfilter/nf_conntrack_count", "r");

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%lu", &count), 1);
	fclose(file);
	return count;
}

static void our_frames_are_not_tracked(void **state)
{
	unsigned long before;

	REQUIRE_KERNEL();
	run("nft 'table ip track { chain in { type filter hook input priority 0; ct state new counter; }; }'");
	apply_one(*state, "192.0.2.1");
	before = conntrack_entries();
	for (int vni = OURS; vni <= OURS + 1; vni++) {
		int receiver = udp_socket(host_ns, "192.0.2.2", PORT);

		for (int i = 0; i < 10; i++) { /* each socket another source port, as each inner flow */
			int sender = udp_socket(sender_ns, "192.0.2.1", 0);

			send_frame(sender, "192.0.2.2", PORT, (uint32_t)vni);
			assert_int_equal(receive_vni(receiver), vni);
			close(sender);
		}
		close(receiver);
		if (vni == OURS)
			assert_int_equal(conntrack_entries(), before);
	}
	assert_true(conntrack_entries() >= before + 10); /* those of others: the count does count */
	run("nft delete table ip track");
}

/* -- sets -- */

static void counters_survive_new_members(void **state)
{
	REQUIRE_KERNEL();
	apply_one(*state, "192.0.2.1");
	assert_int_equal(passed(host_ns, "192.0.2.9", "192.0.2.2", OURS, 5), 0);
	apply_one(*state, "192.0.2.9");
	assert_int_equal(passed(host_ns, "192.0.2.9", "192.0.2.2", OURS, 2), 2);
	assert_int_equal(passed(host_ns, "192.0.2.1", "192.0.2.2", OURS, 1), 0);
	expect_counters(*state, 6, 0);
}

static void no_member_means_nobody_passes(void **state)
{
	static const uint32_t vni = OURS;

	REQUIRE_KERNEL();
	apply(*state, &vni, 1, NULL, 0);
	assert_int_equal(passed(host_ns, "192.0.2.1", "192.0.2.2", OURS, 2), 0);
	expect_counters(*state, 2, 0);
	apply(*state, NULL, 0, NULL, 0);
	assert_int_equal(passed(host_ns, "192.0.2.1", "192.0.2.2", OURS, 2), 2);
}

static void order_and_repetition_do_not_matter(void **state)
{
	static const uint32_t vnis[] = {9, OURS, 9, OURS, 1};
	struct ip members[3];

	REQUIRE_KERNEL();
	members[0] = members[2] = ip("192.0.2.9");
	members[1] = ip("192.0.2.1");
	apply(*state, vnis, 5, members, 3);
	assert_int_equal(passed(host_ns, "192.0.2.9", "192.0.2.2", OURS, 2), 2);
	assert_int_equal(passed(host_ns, "2001:db8:1::1", "2001:db8:1::2", 1, 2), 0);
}

/* The count of nft commits of this namespace. */
static uint32_t generation(void)
{
	struct {
		struct nlmsghdr nlh;
		struct nfgenmsg nfg;
	} request = {{sizeof(request), NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, NLM_F_REQUEST, 1, 0}, {0}};
	uint32_t id = 0;
	char reply[512];
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);

	assert_int_equal(send(fd, &request, sizeof(request), 0), sizeof(request));
	assert_true(recv(fd, reply, sizeof(reply), 0) >= (ssize_t)(sizeof(request) + 8));
	memcpy(&id, reply + sizeof(request) + sizeof(struct nlattr), sizeof(id)); /* NFTA_GEN_ID comes first */
	close(fd);
	return ntohl(id);
}

static void nothing_is_written_when_nothing_differs(void **state)
{
	uint32_t before;

	REQUIRE_KERNEL();
	apply_one(*state, "192.0.2.1");
	before = generation();
	apply_one(*state, "192.0.2.1");
	assert_int_equal(generation(), before);
	run("nft add table ip stranger"); /* must be looked at, and found to be none of our business */
	assert_int_not_equal(generation(), before);
	before = generation();
	apply_one(*state, "192.0.2.1");
	assert_int_equal(generation(), before);
	apply_one(*state, "192.0.2.9");
	assert_int_equal(generation(), before + 1);
	run("nft delete table ip stranger");
}

static void five_thousand_members_fit(void **state)
{
	static const uint32_t vni = OURS;
	struct ip *members = calloc(5001, sizeof(*members));

	REQUIRE_KERNEL();
	for (int i = 0; i < 5000; i++) {
		members[i].family = i % 2 ? 6 : 4;
		members[i].bytes[0] = i % 2 ? 0x20 : 203;
		members[i].bytes[1] = i % 2 ? 0x01 : 0;
		members[i].bytes[2] = (uint8_t)(i >> 8);
		members[i].bytes[3] = (uint8_t)i;
	}
	members[5000] = ip("192.0.2.1");
	apply(*state, &vni, 1, members, 5001);
	assert_int_equal(passed(host_ns, "192.0.2.1", "192.0.2.2", OURS, 2), 2);
	assert_int_equal(passed(host_ns, "192.0.2.9", "192.0.2.2", OURS, 2), 0);
	run("test $(nft list set inet " TABLE " mem4 | grep -o '[0-9.]*\\.[0-9]*\\.[0-9]*\\.[0-9]*' | wc -l) = 2501");
	members[5000] = ip("192.0.2.9");
	apply(*state, &vni, 1, members, 5001);
	assert_int_equal(passed(host_ns, "192.0.2.9", "192.0.2.2", OURS, 2), 2);
	expect_counters(*state, 2, 0);
	free(members);
}

static void too_much_is_refused_and_changes_nothing(void **state)
{
	static const uint32_t wide = 1u << 24, fine = OURS;
	static const struct ip no_family;
	uint32_t *many = calloc(GUARD_VNIS_MAX + 1, sizeof(*many));
	struct err err = {0};

	REQUIRE_KERNEL();
	apply_one(*state, "192.0.2.1");
	assert_int_equal(guard_apply(*state, &wide, 1, NULL, 0, NULL, &err), -1);
	assert_int_equal(err.code, ERR_INVALID);
	assert_non_null(strstr(err.text, "16777216"));
	assert_int_equal(guard_apply(*state, &fine, 1, &no_family, 1, NULL, &err), -1);
	assert_int_equal(err.code, ERR_INVALID);
	assert_int_equal(guard_apply(*state, many, GUARD_VNIS_MAX + 1, NULL, 0, NULL, &err), -1);
	assert_int_equal(err.code, ERR_TOO_BIG);
	free(many);
	assert_int_equal(passed(host_ns, "192.0.2.1", "192.0.2.2", OURS, 1), 1);
	assert_int_equal(passed(host_ns, "192.0.2.9", "192.0.2.2", OURS, 1), 0);
}

static void the_limits_themselves_fit(void **state)
{
	uint32_t *vnis = calloc(GUARD_VNIS_MAX, sizeof(*vnis));
	struct ip *members = calloc(GUARD_MEMBERS_MAX, sizeof(*members));

	REQUIRE_KERNEL();
	for (uint32_t i = 0; i < GUARD_VNIS_MAX; i++)
		vnis[i] = 1000 + i;
	for (uint32_t i = 0; i < GUARD_MEMBERS_MAX; i++) {
		members[i].family = 6;
		members[i].bytes[0] = 0x20;
		members[i].bytes[14] = (uint8_t)(i >> 8);
		members[i].bytes[15] = (uint8_t)i;
	}
	apply(*state, vnis, GUARD_VNIS_MAX, members, GUARD_MEMBERS_MAX);
	assert_int_equal(passed(host_ns, "192.0.2.9", "192.0.2.2", 1000 + GUARD_VNIS_MAX - 1, 1), 0);
	assert_int_equal(passed(host_ns, "192.0.2.9", "192.0.2.2", 1000 + GUARD_VNIS_MAX, 1), 1);
	free(vnis);
	free(members);
}

/* -- what others do -- */

static void damage_is_repaired(void **state)
{
	static const char *const damages[] = {
		"nft flush ruleset",
		"nft flush table inet " TABLE,
		"nft flush set inet " TABLE " vnis",
		"nft add element inet " TABLE " mem4 '{ 192.0.2.9 }'",
		"nft insert rule inet " TABLE " input accept",
		"nft add table inet " TABLE " '{ flags dormant; }'",
		"nft delete table inet " TABLE " && nft add table inet " TABLE,
	};

	REQUIRE_KERNEL();
	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		apply_one(*state, "192.0.2.1");
		run("%s", damages[i]);
		if (passed(host_ns, "192.0.2.9", "192.0.2.2", OURS, 2) != 2)
			fail_msg("no damage done by: %s", damages[i]);
		apply_one(*state, "192.0.2.1");
		if (passed(host_ns, "192.0.2.9", "192.0.2.2", OURS, 2) != 0)
			fail_msg("not repaired after: %s", damages[i]);
		assert_int_equal(passed(host_ns, "192.0.2.1", "192.0.2.2", OURS, 2), 2);
	}
}

/* A process that commits to a table of its own without a pause, as fast as it can, until it is killed. */
static pid_t start_committer(void)
{
	static const uint32_t vnis[] = {1, 2};
	pid_t pid = fork();
	struct guard *other = NULL;

	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* also when the test fails before it kills us */
	if (guard_open("stranger", PORT, &other, NULL) < 0)
		_exit(1);
	for (unsigned i = 0;; i++)
		guard_apply(other, vnis, 1 + i % 2, NULL, 0, NULL, NULL);
}

static void others_committing_all_the_time_do_not_matter(void **state)
{
	uint32_t before;
	pid_t pid;

	REQUIRE_KERNEL();
	pid = start_committer();
	assert_true(pid > 0);
	for (int i = 0; i < 30; i++) {
		apply_one(*state, i % 2 ? "192.0.2.1" : "192.0.2.9");
		before = generation();
		while (generation() == before) /* it is at work between any two of ours */
			assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
	}
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(passed(host_ns, "192.0.2.9", "192.0.2.2", OURS, 2), 0);
	assert_int_equal(passed(host_ns, "192.0.2.1", "192.0.2.2", OURS, 2), 2);
	run("nft delete table inet stranger");
	expect_counters(*state, 2, 0); /* built once, at the start; replacing sets kept it */
}

static void table_of_an_earlier_run_is_taken_over(void **state)
{
	struct guard *next = NULL;
	struct err err = {0};

	REQUIRE_KERNEL();
	apply_one(*state, "192.0.2.1");
	assert_int_equal(guard_open(TABLE, PORT, &next, &err), 0);
	assert_int_equal(passed(host_ns, "192.0.2.9", "192.0.2.2", OURS, 1), 0); /* opening changes nothing */
	apply_one(next, "192.0.2.9");
	assert_int_equal(passed(host_ns, "192.0.2.9", "192.0.2.2", OURS, 2), 2);
	assert_int_equal(passed(host_ns, "192.0.2.1", "192.0.2.2", OURS, 2), 0);
	run("test $(nft list chain inet " TABLE " input | grep -c drop) = 2");
	guard_close(next);
	assert_int_equal(passed(host_ns, "192.0.2.1", "192.0.2.2", OURS, 2), 0); /* closing neither */
}

static void without_a_network_there_is_no_table(void **state)
{
	struct guard *next = NULL;
	struct err err = {0};
	struct ip member = ip("192.0.2.1");
	bool wrote = true;

	REQUIRE_KERNEL();
	apply(*state, NULL, 0, &member, 1);
	run("test -z \"$(nft list ruleset)\"");
	apply_one(*state, "192.0.2.1");
	assert_int_equal(guard_open(TABLE, PORT, &next, &err), 0);
	assert_int_equal(guard_apply(next, NULL, 0, &member, 1, &wrote, &err), 0);
	assert_false(wrote);
	run("test -z \"$(nft list ruleset)\""); /* what the earlier one left is gone */
	apply_one(next, "192.0.2.9");
	assert_int_equal(passed(host_ns, "192.0.2.1", "192.0.2.2", OURS, 1), 0);
	apply(next, NULL, 0, &member, 1);
	run("test -z \"$(nft list ruleset)\"");
	guard_close(next);
}

static void purge_leaves_nothing(void **state)
{
	uint64_t foreign = 77, forged = 78;
	struct err err = {0};

	REQUIRE_KERNEL();
	apply_one(*state, "192.0.2.1");
	run("nft list table inet " TABLE " | grep -q drop");
	assert_int_equal(guard_purge(*state, &err), 0);
	run("test -z \"$(nft list ruleset)\"");
	assert_int_equal(guard_counters(*state, &foreign, &forged, &err), -1);
	assert_int_equal(err.code, ERR_NOT_FOUND);
	assert_int_equal(foreign, 77);
	assert_int_equal(guard_purge(*state, &err), 0);
	apply_one(*state, "192.0.2.1");
	assert_int_equal(passed(host_ns, "192.0.2.9", "192.0.2.2", OURS, 1), 0);
}

/* People save rulesets with `nft list ruleset` and load them again; ours must not be what breaks that. */
static void listing_can_be_loaded_again(void **state)
{
	REQUIRE_KERNEL();
	apply_one(*state, "192.0.2.1");
	run("saved=$(nft list ruleset) && nft flush ruleset && echo \"$saved\" | nft -f - && test \"$(nft list ruleset)\" = "
	    "\"$saved\"");
	assert_int_equal(passed(host_ns, "192.0.2.9", "192.0.2.2", OURS, 1), 0);
	assert_int_equal(passed(host_ns, "192.0.2.1", "192.0.2.2", OURS, 1), 1);
}

static void bad_table_name_is_refused(void **state)
{
	struct guard *guard = NULL;
	struct err err = {0};

	(void)state;
	assert_int_equal(guard_open("", PORT, &guard, &err), -1);
	assert_int_equal(err.code, ERR_INVALID);
	assert_int_equal(guard_open("a-name-that-is-longer-than-any-sane-one", PORT, &guard, &err), -1);
	assert_non_null(strstr(err.text, "1 to 31"));
	assert_null(guard);
	guard_close(NULL);
}

static void strange_table_of_that_name_is_replaced(void **state)
{
	struct guard *odd = NULL;
	struct err err = {0};
	static const uint32_t vni = OURS;

	REQUIRE_KERNEL();
	(void)state;
	assert_int_equal(guard_open(TABLE, PORT, &odd, &err), 0);
	run("nft add table inet " TABLE);
	run("nft 'table inet " TABLE
	    " { chain input { type filter hook input priority 0; }; chain a { jump b; }; chain b { }; }'");
	assert_int_equal(guard_apply(odd, &vni, 1, NULL, 0, NULL, &err), 0); /* whatever was in it */
	guard_close(odd);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, open_guard, close_guard)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(frame_of_member_passes),
		CASE(frame_of_stranger_is_dropped_and_counted),
		CASE(vni_of_others_passes_from_anyone),
		CASE(other_port_passes),
		CASE(forged_frame_is_not_forwarded),
		CASE(forged_frame_is_not_masqueraded),
		CASE(our_frames_are_not_tracked),
		CASE(counters_survive_new_members),
		CASE(no_member_means_nobody_passes),
		CASE(order_and_repetition_do_not_matter),
		CASE(nothing_is_written_when_nothing_differs),
		CASE(five_thousand_members_fit),
		CASE(too_much_is_refused_and_changes_nothing),
		CASE(the_limits_themselves_fit),
		CASE(damage_is_repaired),
		CASE(others_committing_all_the_time_do_not_matter),
		CASE(table_of_an_earlier_run_is_taken_over),
		CASE(without_a_network_there_is_no_table),
		CASE(purge_leaves_nothing),
		CASE(listing_can_be_loaded_again),
		CASE(bad_table_name_is_refused),
		CASE(strange_table_of_that_name_is_replaced),
	};

	return cmocka_run_group_tests(tests, setup_namespaces, teardown_namespaces);
}

/* Netlink sockets and namespaces against the real kernel, in a namespace of a child process. */
#include "netlink/socket.h"

#include <linux/if.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "netlink/addr.h"
#include "netlink/build.h"
#include "netlink/link.h"
#include "netlink/neigh.h"
#include "netlink/netns.h"
#include "netlink/route.h"
#include "tests/unit/kernel.h"

#define BRIDGE 500

static char dir[] = "/tmp/trestle-unit-XXXXXX";

static struct nl_socket *open_here(void)
{
	struct nl_socket *s = NULL;

	OK(nl_open(-1, NULL, 0, &s, &err));
	return s;
}

static void add_bridge(struct nl_socket *s, uint32_t index, const char *name)
{
	struct nl_link_new link = {.index = index, .name = name, .mtu = 1450, .netns_fd = -1, .mac = {{0x0a, 1}}, .up = true};
	struct nlb b;

	nl_bridge_new_request(&b, &link);
	OK(nl_transact(s, &b, &err));
}

static void del_link(struct nl_socket *s, uint32_t index)
{
	struct nlb b;

	nl_link_del_request(&b, index);
	OK(nl_transact(s, &b, &err));
}

static int count(void *arg, const struct nlmsghdr *h, struct err *err)
{
	(void)h;
	(void)err;
	(*(unsigned *)arg)++;
	return 0;
}

static unsigned count_links(struct nl_socket *s)
{
	unsigned links = 0;
	struct nlb b;

	nl_link_dump_request(&b);
	OK(nl_dump(s, &b, count, NULL, &links, NULL, &err));
	return links;
}

static void an_error_carries_errno_and_the_kernels_words(void **state)
{
	struct nl_socket *s;
	struct err err = {0};
	struct nlb b;

	(void)state;
	REQUIRE_KERNEL();
	s = open_here();
	nl_fdb_put_request(&b, 1, &(struct mac){{2}}, &(struct ip){.family = 4, .bytes = {192, 0, 2, 1}});
	assert_int_equal(nl_transact(s, &b, &err), -1);
	assert_int_equal(err.code, ERR_SYSTEM);
	assert_int_not_equal(err.sys_errno, 0);
	assert_true(strlen(err.text) > strlen(strerror(err.sys_errno)) + 2);
	nl_link_get_request(&b, 4242);
	assert_int_equal(nl_transact(s, &b, &err), -1);
	assert_int_equal(err.sys_errno, ENODEV);
	nl_close(s);
}

static void a_refused_dump_is_no_empty_table(void **state)
{
	struct ifinfomsg ifi = {.ifi_change = 77}; /* strict checking wants zeros here */
	struct nl_socket *s;
	struct err err = {0};
	unsigned links = 0;
	struct nlb b;

	(void)state;
	REQUIRE_KERNEL();
	s = open_here();
	nlb_begin(&b, RTM_GETLINK, 0, &ifi, sizeof(ifi));
	assert_int_equal(nl_dump(s, &b, count, NULL, &links, NULL, &err), -1);
	assert_int_equal(err.sys_errno, EINVAL);
	assert_int_equal(links, 0);
	assert_int_equal(count_links(s), 1); /* and the socket is still good */
	nl_close(s);
}

static int refuse(void *arg, const struct nlmsghdr *h, struct err *err)
{
	(void)arg;
	(void)h;
	return err_set(err, ERR_CORRUPT, "the handler's own words");
}

static void a_dump_ends_with_its_handlers_error(void **state)
{
	struct nl_socket *s;
	struct err err = {0};
	struct nlb b;

	(void)state;
	REQUIRE_KERNEL();
	s = open_here();
	for (uint32_t i = 0; i < 40; i++) {
		char name[16];

		snprintf(name, sizeof(name), "b%u", i);
		add_bridge(s, BRIDGE + i, name);
	}
	nl_link_dump_request(&b);
	assert_int_equal(nl_dump(s, &b, refuse, NULL, NULL, NULL, &err), -1);
	assert_string_equal(err.text, "the handler's own words");
	/* The rest of that dump is still on its way: it must not be taken for the answer to what is asked next. */
	assert_int_equal(count_links(s), 41);
	for (uint32_t i = 0; i < 40; i++)
		del_link(s, BRIDGE + i);
	assert_int_equal(count_links(s), 1);
	nl_close(s);
}

static void old_answers_and_strangers_messages_are_skipped(void **state)
{
	struct sockaddr_nl self = {0}, kernel = {.nl_family = AF_NETLINK};
	socklen_t len = sizeof(self);
	struct nl_socket *s;
	int stranger;
	struct nlb b;

	(void)state;
	REQUIRE_KERNEL();
	s = open_here();
	/* A question asked behind its back: the answer waits in the queue. */
	nl_link_get_request(&b, 1);
	nlb_message(&b)->nlmsg_seq = 0xdead;
	assert_true(sendto(nl_fd(s), b.buf, nlb_message(&b)->nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof(kernel)) > 0);
	/* A forged success, from a process, with the number that the next request will have. */
	assert_int_equal(getsockname(nl_fd(s), (struct sockaddr *)&self, &len), 0);
	stranger = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	assert_true(stranger >= 0);
	{
		struct {
			struct nlmsghdr h;
			struct nlmsgerr e;
		} forged = {.h = {.nlmsg_len = sizeof(forged), .nlmsg_type = NLMSG_ERROR, .nlmsg_seq = 1}};

		assert_true(sendto(stranger, &forged, sizeof(forged), 0, (struct sockaddr *)&self, sizeof(self)) > 0);
	}
	nl_link_get_request(&b, 4242);
	assert_int_equal(nl_transact(s, &b, NULL), -1);
	assert_int_equal(count_links(s), 1);
	close(stranger);
	nl_close(s);
}

struct results {
	unsigned called;
	int errors[8];
	char extack[128];
};

static void on_result(void *arg, uint32_t cookie, int error, const char *extack)
{
	struct results *r = arg;

	assert_true(cookie < 8);
	r->called++;
	r->errors[cookie] = error;
	if (extack[0])
		snprintf(r->extack, sizeof(r->extack), "%s", extack);
}

static void a_batch_reports_each_message_by_itself(void **state)
{
	struct nl_link_new link = {.index = BRIDGE, .name = "b0", .netns_fd = -1, .up = true};
	struct nl_link_new same = {.index = BRIDGE + 1, .name = "b0", .netns_fd = -1};
	struct nl_batch *batch = nl_batch_new();
	struct results r = {.called = 0};
	struct nl_socket *s;
	struct nlb b;

	(void)state;
	REQUIRE_KERNEL();
	s = open_here();
	nl_bridge_new_request(&b, &link);
	assert_true(nl_batch_add(batch, &b, 0));
	nl_bridge_new_request(&b, &same);
	assert_true(nl_batch_add(batch, &b, 1));
	nl_link_set_request(&b, BRIDGE);
	nl_link_put_alias(&b, "x");
	assert_true(nl_batch_add(batch, &b, 2));
	nl_link_del_request(&b, 4242);
	assert_true(nl_batch_add(batch, &b, 3));
	OK(nl_batch_send(s, batch, on_result, &r, &err));
	assert_int_equal(r.called, 4);
	assert_int_equal(r.errors[0], 0);
	assert_int_equal(r.errors[1], EEXIST);
	assert_int_equal(r.errors[2], 0);
	assert_int_equal(r.errors[3], ENODEV); /* the last one's ack is its error */
	assert_int_equal(nl_batch_count(batch), 0);
	del_link(s, BRIDGE);
	nl_batch_free(batch);
	nl_close(s);
}

static void a_full_batch_says_so(void **state)
{
	struct nl_batch *batch = nl_batch_new();
	struct nlb b;

	(void)state;
	nl_link_get_request(&b, 1);
	for (unsigned i = 0; i < NL_BATCH_MAX; i++)
		assert_true(nl_batch_add(batch, &b, i));
	assert_false(nl_batch_add(batch, &b, 0));
	nl_batch_free(batch);
}

static int own_ns_is_other(void *arg, struct err *err)
{
	struct stat here, *outside = arg;

	if (stat("/proc/thread-self/ns/net", &here) < 0)
		return err_sys(err, errno, "stat");
	return here.st_ino != outside->st_ino;
}

static void a_namespace_is_made_entered_and_removed_while_we_stay(void **state)
{
	struct stat before, after;
	struct nl_socket *s;
	char path[64];
	int fd, rc;

	(void)state;
	REQUIRE_KERNEL();
	snprintf(path, sizeof(path), "%s/deeper/ns", dir);
	assert_int_equal(stat("/proc/thread-self/ns/net", &before), 0);
	OK(netns_create(path, &err));
	OK(netns_open(path, &fd, &err));
	assert_true(netns_is_live(fd));
	OK(rc = netns_run(fd, own_ns_is_other, &before, &err));
	assert_int_equal(rc, 1);
	OK(nl_open(fd, NULL, 0, &s, &err));
	add_bridge(s, BRIDGE, "inside");
	assert_int_equal(count_links(s), 2);
	nl_close(s);
	s = open_here();
	assert_int_equal(count_links(s), 1);
	nl_close(s);
	assert_int_equal(stat("/proc/thread-self/ns/net", &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	close(fd);
	OK(netns_remove(path, &err));
	OK(netns_remove(path, &err)); /* already so */
	assert_int_equal(access(path, F_OK), -1);
}

static void a_leftover_file_is_no_namespace(void **state)
{
	struct err err = {0};
	char path[64];
	int fd = -2;

	(void)state;
	REQUIRE_KERNEL();
	snprintf(path, sizeof(path), "%s/leftover", dir);
	close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
	assert_int_equal(netns_open(path, &fd, &err), -1);
	assert_int_equal(err.code, ERR_NOT_FOUND);
	assert_int_equal(fd, -2);
	assert_int_equal(netns_create(path, &err), -1);
	assert_int_equal(err.code, ERR_EXISTS);
	assert_int_equal(netns_remove(path, &err), 0);
	assert_int_equal(netns_open(path, &fd, &err), -1);
	assert_int_equal(err.code, ERR_NOT_FOUND);
}

struct seen {
	struct prefix address;
	struct nl_route route;
	unsigned addresses, routes;
};

static int on_addr(void *arg, const struct nlmsghdr *h, struct err *err)
{
	struct seen *seen = arg;
	struct nl_addr addr;

	if (nl_addr_parse(h, &addr, err) < 0)
		return -1;
	if (addr.ifindex == BRIDGE && addr.prefix.ip.family == 4) {
		seen->address = addr.prefix;
		seen->addresses++;
	}
	return 0;
}

static int on_route(void *arg, const struct nlmsghdr *h, struct err *err)
{
	struct seen *seen = arg;
	struct nl_route route;

	if (nl_route_parse(h, &route, err) < 0)
		return -1;
	if (route.protocol == NL_PROTOCOL_OWN) {
		seen->route = route;
		seen->routes++;
	}
	return 0;
}

static int take_route(void *arg, const struct nlmsghdr *h, struct err *err)
{
	return nl_route_parse(h, arg, err);
}

static struct nl_route route_to(struct nl_socket *s, const struct ip *ip)
{
	struct nl_route route;
	struct nlb b;

	nl_route_get_request(&b, ip);
	OK(nl_query(s, &b, take_route, &route, &err));
	return route;
}

static void the_route_of_an_own_address_names_its_device(void **state)
{
	const struct prefix own[] = {{.ip = {.family = 4, .bytes = {192, 0, 2, 1}}, .length = 24},
		{.ip = {.family = 6, .bytes = {0x20, 1, 0xd, 0xb8, [15] = 1}}, .length = 64}};
	const struct prefix neighbour = {.ip = {.family = 4, .bytes = {192, 0, 2, 2}}, .length = 24};
	struct nl_socket *s;
	struct nl_route route;
	struct nlb b;

	(void)state;
	REQUIRE_KERNEL();
	s = open_here();
	add_bridge(s, BRIDGE, "one");
	for (unsigned i = 0; i < 2; i++) {
		nl_addr_put_request(&b, BRIDGE, &own[i]);
		OK(nl_transact(s, &b, &err));
		route = route_to(s, &own[i].ip);
		for (unsigned n = 0; route.type != RTN_LOCAL && n < 1000; n++) { /* IPv6 looks for duplicates first */
			poll(NULL, 0, 10);
			route = route_to(s, &own[i].ip);
		}
		assert_int_equal(route.type, RTN_LOCAL);
		assert_int_equal(route.oif, BRIDGE);
	}
	assert_int_equal(route_to(s, &neighbour.ip).type, RTN_UNICAST);
	del_link(s, BRIDGE);
	nl_close(s);
}

static void addresses_and_routes_are_read_back(void **state)
{
	struct prefix own = {.ip = {.family = 4, .bytes = {192, 0, 2, 1}}, .length = 24};
	struct nl_route route = {.to = {.ip = {.family = 4, .bytes = {198, 51, 100}}, .length = 24},
		.gateway = {.family = 4, .bytes = {192, 0, 2, 9}},
		.oif = BRIDGE,
		.metric = 50,
		.mtu = 1400,
		.protocol = NL_PROTOCOL_OWN,
		.type = RTN_UNICAST,
		.onlink = true};
	struct seen seen = {.addresses = 0};
	struct nl_socket *s;
	struct nlb b;

	(void)state;
	REQUIRE_KERNEL();
	s = open_here();
	add_bridge(s, BRIDGE, "b0");
	nl_addr_put_request(&b, BRIDGE, &own);
	OK(nl_transact(s, &b, &err));
	nl_route_put_request(&b, &route);
	OK(nl_transact(s, &b, &err));
	nl_addr_dump_request(&b);
	OK(nl_dump(s, &b, on_addr, NULL, &seen, NULL, &err));
	nl_route_dump_request(&b, 4);
	OK(nl_dump(s, &b, on_route, NULL, &seen, NULL, &err));
	assert_int_equal(seen.addresses, 1);
	assert_true(prefix_equal(&seen.address, &own));
	assert_int_equal(seen.routes, 1);
	assert_true(prefix_equal(&seen.route.to, &route.to) && ip_equal(&seen.route.gateway, &route.gateway));
	assert_int_equal(seen.route.mtu, 1400);
	assert_int_equal(seen.route.metric, 50);
	nl_route_del_request(&b, &route);
	OK(nl_transact(s, &b, &err));
	nl_addr_del_request(&b, BRIDGE, &own);
	OK(nl_transact(s, &b, &err));
	del_link(s, BRIDGE);
	nl_close(s);
}

static void notices_are_read_until_none_is_left(void **state)
{
	static const unsigned groups[] = {RTNLGRP_LINK};
	struct nl_socket *s, *notices;
	unsigned n = 0;
	uint64_t bad = 0;
	int rc;

	(void)state;
	REQUIRE_KERNEL();
	s = open_here();
	OK(nl_open(-1, groups, 1, &notices, &err));
	OK(rc = nl_receive(notices, count, &n, &bad, &err));
	assert_int_equal(rc, NL_RECEIVE_EMPTY);
	assert_int_equal(n, 0);
	add_bridge(s, BRIDGE, "b0");
	del_link(s, BRIDGE);
	OK(rc = nl_receive(notices, count, &n, &bad, &err));
	assert_true(n >= 2);
	n = 0;
	add_bridge(s, BRIDGE, "b0");
	OK(nl_receive(notices, refuse, &n, &bad, &err)); /* what cannot be read does not stop the rest */
	assert_true(bad > 0);
	OK(nl_receive(notices, count, &n, &bad, &err));
	assert_int_equal(n, 0);
	del_link(s, BRIDGE);
	nl_close(notices);
	nl_close(s);
}

static int note_row(void *arg, const struct nlmsghdr *h, struct err *err)
{
	(void)err;
	assert_true(h->nlmsg_type == RTM_NEWNEIGH || h->nlmsg_type == RTM_DELNEIGH);
	((unsigned *)arg)[h->nlmsg_type == RTM_DELNEIGH]++;
	return 0;
}

static void notices_of_neighbours_are_those_that_somebody_made(void **state)
{
	static const unsigned groups[] = {RTNLGRP_NEIGH};
	struct nl_socket *s, *notices;
	unsigned rows[2] = {0}; /* new, deleted */
	uint64_t bad = 0;

	(void)state;
	REQUIRE_KERNEL();
	s = open_here();
	add_bridge(s, BRIDGE, "b0");
	OK(nl_open(-1, groups, 1, &notices, &err));
	OK(system("ip neigh replace 192.0.2.7 lladdr 02:00:00:00:00:07 nud stale dev b0"));
	OK(system("ip neigh replace 192.0.2.7 lladdr 02:00:00:00:00:07 nud reachable dev b0"));
	OK(nl_receive(notices, note_row, rows, &bad, &err));
	assert_true(rows[0] == 0 && rows[1] == 0 && bad == 0);
	OK(system("ip neigh replace 192.0.2.7 lladdr 02:00:00:00:00:07 nud permanent dev b0"));
	OK(nl_receive(notices, note_row, rows, &bad, &err));
	assert_true(rows[0] == 1 && rows[1] == 0);
	OK(system("ip neigh del 192.0.2.7 dev b0"));
	OK(nl_receive(notices, note_row, rows, &bad, &err));
	assert_true(rows[1] == 1);
	rows[0] = 0;
	OK(system("bridge fdb replace 02:00:00:00:00:08 dev b0 self"));
	OK(nl_receive(notices, note_row, rows, &bad, &err));
	assert_true(rows[0] == 1);
	del_link(s, BRIDGE);
	nl_close(notices);
	nl_close(s);
}

static void build(void)
{
	if (geteuid() != 0)
		skip_reason = "needs root, for network namespaces";
	else if (unshare(CLONE_NEWNS | CLONE_NEWNET) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		skip_reason = "cannot make namespaces";
	else if (!mkdtemp(dir))
		skip_reason = "cannot make a directory in /tmp";
}

static int run(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_error_carries_errno_and_the_kernels_words),
		cmocka_unit_test(a_refused_dump_is_no_empty_table),
		cmocka_unit_test(a_dump_ends_with_its_handlers_error),
		cmocka_unit_test(old_answers_and_strangers_messages_are_skipped),
		cmocka_unit_test(a_batch_reports_each_message_by_itself),
		cmocka_unit_test(a_full_batch_says_so),
		cmocka_unit_test(a_namespace_is_made_entered_and_removed_while_we_stay),
		cmocka_unit_test(a_leftover_file_is_no_namespace),
		cmocka_unit_test(addresses_and_routes_are_read_back),
		cmocka_unit_test(the_route_of_an_own_address_names_its_device),
		cmocka_unit_test(notices_are_read_until_none_is_left),
		cmocka_unit_test(notices_of_neighbours_are_those_that_somebody_made),
	};
	char path[64];
	int failed;

	build();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	if (!skip_reason) {
		snprintf(path, sizeof(path), "%s/deeper", dir);
		rmdir(path);
		rmdir(dir);
	}
	return failed;
}

/* In a child: its namespaces go with it however it ends. */
int main(void)
{
	return in_child(run);
}

/* The policy parser and the message builder: what is too short, too long, unterminated or missing is refused before it is read.
 * Each message lies at the end of its own heap block, so that a read beyond it is seen by the address sanitizer. */
#include "netlink/parse.h"

#include <errno.h>
#include <arpa/inet.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <libmnl/libmnl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "netlink/addr.h"
#include "netlink/build.h"
#include "netlink/link.h"
#include "netlink/neigh.h"
#include "netlink/route.h"

enum { P_NUMBER, P_TEXT, P_NEST, P_COUNT };
static const struct nl_policy policy[P_COUNT] = {
	[P_NUMBER] = NL_NEED(IFLA_MTU, 4),
	[P_TEXT] = NL_TEXT(IFLA_IFNAME, 16),
	[P_NEST] = NL_NEST(IFLA_LINKINFO),
};

/* Attributes written by hand: {length that the header claims, type, payload bytes really there}. */
static size_t put(uint8_t *at, uint16_t claimed, uint16_t type, const void *payload, size_t len)
{
	struct nlattr a = {.nla_len = claimed, .nla_type = type};

	memcpy(at, &a, sizeof(a));
	memcpy(at + sizeof(a), payload, len);
	return sizeof(a) + len;
}

static int parse_copy(const void *bytes, size_t len, const struct nlattr **ret, struct err *err)
{
	void *block = malloc(len ? len : 1);
	int rc;

	memcpy(block, bytes, len);
	rc = nl_parse(block, len, policy, P_COUNT, ret, err);
	free(block);
	return rc;
}

static void good_attributes_are_found_by_their_place(void **state)
{
	const struct nlattr *a[P_COUNT];
	uint8_t buf[64] __attribute__((aligned(8)));
	uint32_t mtu = 1450;
	size_t len = put(buf, 8, IFLA_MTU, &mtu, 4);

	(void)state;
	len += put(buf + len, 8, IFLA_IFNAME, "tb1", 4);
	len += put(buf + len, 8, 999, "xxxx", 4); /* a type of a newer kernel */
	assert_int_equal(nl_parse(buf, len, policy, P_COUNT, a, NULL), 0);
	assert_int_equal(nl_u32(a[P_NUMBER], 0), 1450);
	assert_string_equal(nl_text(a[P_TEXT]), "tb1");
	assert_null(a[P_NEST]);
	assert_int_equal(nl_u32(a[P_NEST], 42), 42);
}

static const struct {
	const char *what;
	uint16_t claimed, type;
	size_t len; /* payload bytes there */
	const char *message;
} bad[] = {
	{"number too short", 4 + 3, IFLA_MTU, 4, "IFLA_MTU: 3 bytes, expected 4..4"},
	{"number too long", 4 + 8, IFLA_MTU, 8, "IFLA_MTU: 8 bytes, expected 4..4"},
	{"number without payload", 4, IFLA_MTU, 0, "IFLA_MTU: 0 bytes"},
	{"text too long", 4 + 20, IFLA_IFNAME, 20, "IFLA_IFNAME: 20 bytes, expected 1..16"},
	{"text without its end", 4 + 8, IFLA_IFNAME, 8, "without its end"},
	{"text empty of bytes", 4, IFLA_IFNAME, 0, "IFLA_IFNAME: 0 bytes"},
	{"attribute longer than the message", 4 + 40, IFLA_MTU, 4, "no attribute"},
	{"attribute shorter than its header", 2, IFLA_MTU, 4, "no attribute"},
	{"attribute of no length", 0, IFLA_MTU, 4, "no attribute"},
	{"required one missing", 4 + 4, 999, 4, "IFLA_MTU: missing"},
};

static void bad_attributes_are_refused_by_name(void **state)
{
	static const char payload[] = "nnnnnnnnnnnnnnnnnnnnnnnn";

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const struct nlattr *a[P_COUNT];
		struct err err = {0};
		uint8_t buf[64];
		size_t len = put(buf, bad[i].claimed, bad[i].type, payload, bad[i].len);

		if (parse_copy(buf, len, a, &err) == 0)
			fail_msg("%s: was accepted", bad[i].what);
		assert_int_equal(err.code, ERR_CORRUPT);
		if (!strstr(err.text, bad[i].message))
			fail_msg("%s: \"%s\"", bad[i].what, err.text);
	}
}

static void trailing_bytes_are_refused(void **state)
{
	const struct nlattr *a[P_COUNT];
	struct err err = {0};
	uint8_t buf[64] = {0};
	uint32_t mtu = 1450;
	size_t len = put(buf, 8, IFLA_MTU, &mtu, 4);

	(void)state;
	for (size_t extra = 1; extra < 4; extra++) {
		assert_int_equal(parse_copy(buf, len + extra, a, &err), -1);
		assert_non_null(strstr(err.text, "no attribute"));
	}
	assert_int_equal(parse_copy(buf, len, a, &err), 0);
	/* A last attribute without its padding is what libraries of old send. */
	len += put(buf + len, 4 + 3, IFLA_IFNAME, "ab", 3);
	assert_int_equal(parse_copy(buf, len, a, &err), 0);
}

static void every_cut_of_a_message_is_survived(void **state)
{
	struct nl_link_new link = {.index = 9, .name = "tx1", .mtu = 1450, .netns_fd = -1, .mac = {{2, 1}}};
	struct nl_vxlan vxlan = {.vni = 7, .port = 4789, .local = {.family = 4, .bytes = {192, 0, 2, 1}}};
	struct nlb b;
	unsigned refused = 0;

	(void)state;
	nl_vxlan_new_request(&b, &link, &vxlan);
	for (uint32_t len = NLMSG_HDRLEN; len <= nlb_message(&b)->nlmsg_len; len++) {
		struct nlmsghdr *h = malloc(len);
		struct nl_link out;

		memcpy(h, nlb_message(&b), len);
		h->nlmsg_len = len;
		refused += nl_link_parse(h, &out, NULL) < 0;
		free(h);
	}
	assert_true(refused > nlb_message(&b)->nlmsg_len / 2);
}

static void what_is_built_is_what_is_parsed(void **state)
{
	struct nl_link_new link = {
		.index = 9, .name = "tx1", .mtu = 1450, .group = 5, .master = 3, .netns_fd = -1, .mac = {{2, 1}}};
	struct nl_vxlan v4 = {.vni = 0xffffff, .port = 8472, .local = {.family = 4, .bytes = {192, 0, 2, 1}}};
	struct nl_vxlan v6 = {.vni = 1, .port = 4789, .local = {.family = 6, .bytes = {0x20, 1, 0x0d, 0xb8, [15] = 1}}};
	struct nl_link out;
	struct nlb b;

	(void)state;
	nl_vxlan_new_request(&b, &link, &v4);
	assert_int_equal(nlb_finish(&b, NULL), 0);
	assert_int_equal(nl_link_parse(nlb_message(&b), &out, NULL), 0);
	assert_int_equal(out.kind, NL_LINK_VXLAN);
	assert_int_equal(out.index, 9);
	assert_int_equal(out.mtu, 1450);
	assert_int_equal(out.group, 5);
	assert_int_equal(out.master, 3);
	assert_string_equal(out.name, "tx1");
	assert_int_equal(out.vxlan.vni, 0xffffff);
	assert_int_equal(out.vxlan.port, 8472);
	assert_true(ip_equal(&out.vxlan.local, &v4.local));
	assert_int_equal(out.peer_nsid, -1);
	nl_vxlan_new_request(&b, &link, &v6);
	assert_int_equal(nl_link_parse(nlb_message(&b), &out, NULL), 0);
	assert_true(ip_equal(&out.vxlan.local, &v6.local));
	nl_bridge_new_request(&b, &link);
	assert_int_equal(nl_link_parse(nlb_message(&b), &out, NULL), 0);
	assert_int_equal(out.kind, NL_LINK_BRIDGE);
	assert_false(out.bridge.mcast_snooping);
}

static void rows_are_told_apart(void **state)
{
	const struct mac mac = {{2, 0, 0, 0, 0, 1}}, zero = {{0}};
	const struct ip v4 = {.family = 4, .bytes = {192, 0, 2, 2}}, v6 = {.family = 6, .bytes = {0x20, 1}};
	struct nl_row row;
	struct nlb b;

	(void)state;
	nl_fdb_put_request(&b, 7, &mac, &v6);
	assert_int_equal(nlb_message(&b)->nlmsg_flags, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE);
	assert_int_equal(nl_row_parse(nlb_message(&b), &row, NULL), 0);
	assert_int_equal(row.kind, NL_ROW_VXLAN);
	assert_true(ip_equal(&row.ip, &v6) && mac_equal(&row.mac, &mac));
	nl_fdb_put_request(&b, 7, &zero, &v4);
	assert_int_equal(nlb_message(&b)->nlmsg_flags, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_APPEND);
	nl_bridge_row_put_request(&b, 8, &mac);
	assert_int_equal(nl_row_parse(nlb_message(&b), &row, NULL), 0);
	assert_int_equal(row.state, NUD_NOARP);
	assert_int_equal(row.kind, NL_ROW_OTHER); /* the kernel's answer names the bridge; a request does not */
	nl_neigh_put_request(&b, 9, &v4, &mac);
	assert_int_equal(nl_row_parse(nlb_message(&b), &row, NULL), 0);
	assert_int_equal(row.kind, NL_ROW_NEIGH);
	assert_int_equal(row.protocol, NL_PROTOCOL_OWN);
	assert_int_equal(row.state, NUD_PERMANENT);
}

static void addresses_and_routes_come_back(void **state)
{
	const struct prefix p = {.ip = {.family = 4, .bytes = {198, 51, 100, 7}}, .length = 24};
	struct nl_route r = {.to = {.ip = {.family = 6, .bytes = {0x20, 1, 0x0d, 0xb8}}, .length = 32},
		.gateway = {.family = 6, .bytes = {0xfe, 0x80, [15] = 1}},
		.oif = 4,
		.metric = 77,
		.mtu = 1400,
		.protocol = NL_PROTOCOL_OWN,
		.type = RTN_UNICAST,
		.onlink = true};
	struct nl_route out;
	struct nl_addr addr;
	struct nlb b;

	(void)state;
	nl_addr_put_request(&b, 3, &p);
	assert_int_equal(nl_addr_parse(nlb_message(&b), &addr, NULL), 0);
	assert_true(prefix_equal(&addr.prefix, &p));
	nl_route_put_request(&b, &r);
	assert_int_equal(nl_route_parse(nlb_message(&b), &out, NULL), 0);
	assert_true(prefix_equal(&out.to, &r.to) && ip_equal(&out.gateway, &r.gateway));
	assert_int_equal(out.oif, 4);
	assert_int_equal(out.metric, 77);
	assert_int_equal(out.mtu, 1400);
	assert_int_equal(out.protocol, NL_PROTOCOL_OWN);
	assert_true(out.onlink);
}

static void an_impossible_prefix_length_is_refused(void **state)
{
	const struct prefix p = {.ip = {.family = 4, .bytes = {198, 51, 100, 7}}, .length = 33};
	struct nl_addr addr;
	struct err err = {0};
	struct nlb b;

	(void)state;
	nl_addr_put_request(&b, 3, &p);
	assert_int_equal(nl_addr_parse(nlb_message(&b), &addr, &err), -1);
	assert_non_null(strstr(err.text, "too long"));
}

static void an_overflow_is_sticky_and_said_once(void **state)
{
	static const char long_text[900] = {[0 ... 898] = 'x'};
	struct ifinfomsg ifi = {0};
	struct err err = {0};
	struct nlb b;

	(void)state;
	nlb_begin(&b, RTM_NEWLINK, 0, &ifi, sizeof(ifi));
	nlb_put_text(&b, IFLA_IFALIAS, long_text);
	assert_int_equal(nlb_finish(&b, &err), 0);
	nlb_put_text(&b, IFLA_IFALIAS, long_text);
	nlb_put_u32(&b, IFLA_MTU, 1);
	assert_int_equal(nlb_finish(&b, &err), -1);
	assert_int_equal(err.code, ERR_INTERNAL);
	nlb_begin(&b, RTM_NEWLINK, 0, &ifi, sizeof(ifi));
	assert_int_equal(nlb_finish(&b, &err), 0);
}

static void deleting_group_zero_is_never_sent(void **state)
{
	struct nlb b;

	(void)state;
	nl_link_del_group_request(&b, 0);
	assert_int_equal(nlb_finish(&b, NULL), -1);
	nl_link_del_group_request(&b, 9);
	assert_int_equal(nlb_finish(&b, NULL), 0);
}

/* What libnftnl and our parsers rely on, of netlink/mnl.c. */
static void attributes_have_their_size(void **state)
{
	char buf[256] __attribute__((aligned(8)));
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct nlattr *nest, *attr;

	(void)state;
	nest = mnl_attr_nest_start(nlh, 9);
	mnl_attr_put_u8(nlh, 1, 7);
	mnl_attr_put_u32(nlh, 2, 70000);
	mnl_attr_put_strz(nlh, 3, "abc");
	mnl_attr_nest_end(nlh, nest);
	assert_int_equal(nlh->nlmsg_len, 16 + 4 + 8 + 8 + 8);
	assert_int_equal(mnl_attr_get_type(nest), 9);
	assert_int_equal(mnl_attr_get_payload_len(nest), 24);
	attr = mnl_attr_get_payload(nest);
	assert_int_equal(mnl_attr_validate(attr, MNL_TYPE_U8), 0);
	assert_int_equal(mnl_attr_validate(attr, MNL_TYPE_U32), -1);
	attr = mnl_attr_next(attr);
	assert_int_equal(mnl_attr_validate(attr, MNL_TYPE_U8), -1);
	assert_int_equal(mnl_attr_get_u32(attr), 70000);
	attr = mnl_attr_next(attr);
	assert_int_equal(mnl_attr_validate(attr, MNL_TYPE_NUL_STRING), 0);
	attr->nla_len--;
	assert_int_equal(mnl_attr_validate(attr, MNL_TYPE_NUL_STRING), -1);
	assert_true(mnl_attr_ok(attr, 8));
	assert_false(mnl_attr_ok(attr, 6));
	assert_false(mnl_attr_put_check(nlh, nlh->nlmsg_len + 7, 4, 4, buf));
	assert_int_equal(mnl_attr_type_valid(attr, 2), -1);
	assert_true(mnl_nlmsg_ok(nlh, (int)nlh->nlmsg_len));
	assert_false(mnl_nlmsg_ok(nlh, (int)nlh->nlmsg_len - 1));
}

static void answers_end_as_the_kernel_says(void **state)
{
	char buf[64] __attribute__((aligned(8)));
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct nlmsgerr *e = mnl_nlmsg_put_extra_header(nlh, sizeof(*e));

	(void)state;
	nlh->nlmsg_type = NLMSG_ERROR;
	nlh->nlmsg_seq = 5;
	assert_int_equal(mnl_cb_run(buf, nlh->nlmsg_len, 5, 0, NULL, NULL), MNL_CB_STOP);
	assert_int_equal(mnl_cb_run(buf, nlh->nlmsg_len, 6, 0, NULL, NULL), MNL_CB_ERROR);
	assert_int_equal(errno, EPROTO);
	e->error = -ENOENT;
	assert_int_equal(mnl_cb_run(buf, nlh->nlmsg_len, 5, 0, NULL, NULL), MNL_CB_ERROR);
	assert_int_equal(errno, ENOENT);
	nlh->nlmsg_len -= 4;
	assert_int_equal(mnl_cb_run(buf, nlh->nlmsg_len, 5, 0, NULL, NULL), MNL_CB_ERROR);
	assert_int_equal(errno, EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(attributes_have_their_size),
		cmocka_unit_test(answers_end_as_the_kernel_says),
		cmocka_unit_test(good_attributes_are_found_by_their_place),
		cmocka_unit_test(bad_attributes_are_refused_by_name),
		cmocka_unit_test(trailing_bytes_are_refused),
		cmocka_unit_test(every_cut_of_a_message_is_survived),
		cmocka_unit_test(what_is_built_is_what_is_parsed),
		cmocka_unit_test(rows_are_told_apart),
		cmocka_unit_test(addresses_and_routes_come_back),
		cmocka_unit_test(an_impossible_prefix_length_is_refused),
		cmocka_unit_test(an_overflow_is_sticky_and_said_once),
		cmocka_unit_test(deleting_group_zero_is_never_sent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

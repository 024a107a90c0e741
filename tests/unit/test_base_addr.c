/* Addresses, prefixes, MACs: strict parsing, formats as Docker writes them, arithmetic across byte boundaries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/addr.h"

static struct ip ip(const char *text)
{
	struct ip ret = {0};
	struct err err;

	if (ip_parse(text, &ret, &err) < 0)
		fail_msg("%s", err.text);
	return ret;
}

static struct prefix prefix(const char *text)
{
	struct prefix ret = {0};
	struct err err;

	if (prefix_parse(text, &ret, &err) < 0)
		fail_msg("%s", err.text);
	return ret;
}

static void addresses_parse_and_format_back(void **state)
{
	static const struct {
		const char *text, *back;
		int family;
	} good[] = {
		{"0.0.0.0", "0.0.0.0", 4},
		{"10.9.0.5", "10.9.0.5", 4},
		{"255.255.255.255", "255.255.255.255", 4},
		{"::", "::", 6},
		{"::1", "::1", 6},
		{"2001:DB8::1", "2001:db8::1", 6},
		{"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1", 6},
		{"::ffff:192.0.2.1", "::ffff:192.0.2.1", 6},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 6},
	};
	char buf[IP_TEXT_SIZE];

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct ip parsed = ip(good[i].text);

		assert_int_equal(parsed.family, good[i].family);
		assert_string_equal(ip_format(&parsed, buf), good[i].back);
	}
}

static void what_is_no_address_is_refused_and_leaves_the_output(void **state)
{
	static const char *const bad[] = {"", " ", "x", "10.9.0", "10.9.0.5 ", " 10.9.0.5", "10.9.0.05", "10.9.0.256",
		"10.9.0.5/24", "1.2.3.4.5", "0x0a.1.1.1", "-1.2.3.4", "fe80::1%eth0", ":::", "1::2::3", "12345::", "::1/128",
		"2001:db8::g", "1:2:3:4:5:6:7:8:9", "::ffff:1.2.3"};
	struct ip before = ip("192.0.2.77");
	struct err err;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct ip out = before;

		if (ip_parse(bad[i], &out, &err) != -1)
			fail_msg("\"%s\" was taken for an address", bad[i]);
		assert_int_equal(err.code, ERR_INVALID);
		assert_non_null(strstr(err.text, "expected an IP address"));
		assert_true(ip_equal(&out, &before));
	}
	assert_int_equal(ip_parse(NULL, &before, NULL), -1);
}

static void an_absent_address_is_a_value(void **state)
{
	struct ip none = {0};
	struct prefix no_prefix = {0};
	char buf[PREFIX_TEXT_SIZE] = "x";

	(void)state;
	assert_false(ip_is_set(&none));
	assert_string_equal(ip_format(&none, buf), "");
	assert_false(prefix_is_set(&no_prefix));
	assert_string_equal(prefix_format(&no_prefix, buf), "");
	assert_false(prefix_contains(&no_prefix, &none));
}

static void addresses_order_by_family_then_bytes(void **state)
{
	static const char *const order[] = {
		"0.0.0.0", "9.255.0.0", "10.9.0.5", "10.9.0.200", "255.0.0.0", "::", "::2", "2001:db8::"};
	const size_t n = sizeof(order) / sizeof(order[0]);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < n; j++) {
			struct ip a = ip(order[i]), b = ip(order[j]);

			assert_true((i < j) == (ip_compare(&a, &b) < 0));
			assert_true((i == j) == ip_equal(&a, &b));
		}
	}
}

static void numbers_and_addresses_convert_both_ways(void **state)
{
	struct ip a = ip("10.9.0.255");
	struct ip b = ip("2001:db8::ffff:ffff");
	char buf[IP_TEXT_SIZE];
	struct ip next;

	(void)state;
	assert_true(ip_number(&a) == 0x0a0900ff);
	next = ip_from_number(4, ip_number(&a) + 1);
	assert_string_equal(ip_format(&next, buf), "10.9.1.0");
	next = ip_from_number(6, ip_number(&b) + 1);
	assert_string_equal(ip_format(&next, buf), "2001:db8::1:0:0");
	next = ip_from_number(6, ~(u128)0);
	assert_string_equal(ip_format(&next, buf), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
	next = ip_from_number(0, 5);
	assert_false(ip_is_set(&next));
	assert_int_equal(ip_bits(&a), 32);
	assert_int_equal(ip_bits(&b), 128);
}

static void prefixes_keep_host_bits(void **state)
{
	static const struct {
		const char *text, *masked;
	} good[] = {
		{"10.9.0.5/24", "10.9.0.0/24"},
		{"10.9.0.5/32", "10.9.0.5/32"},
		{"10.9.255.5/0", "0.0.0.0/0"},
		{"10.9.7.255/23", "10.9.6.0/23"},
		{"2001:db8::5/64", "2001:db8::/64"},
		{"2001:db8::ff/121", "2001:db8::80/121"},
		{"2001:db8::5/128", "2001:db8::5/128"},
		{"ffff::1/0", "::/0"},
	};
	char buf[PREFIX_TEXT_SIZE];

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct prefix parsed = prefix(good[i].text);
		struct prefix masked = prefix_masked(&parsed);

		assert_string_equal(prefix_format(&parsed, buf), good[i].text);
		assert_string_equal(prefix_format(&masked, buf), good[i].masked);
	}
}

static void what_is_no_prefix_is_refused_and_leaves_the_output(void **state)
{
	static const char *const bad[] = {"", "10.9.0.0", "/", "/24", "10.9.0.0/", "10.9.0.0/33", "10.9.0.0/-1", "10.9.0.0/+8",
		"10.9.0.0/ 8", "10.9.0.0/8 ", "10.9.0.0/024", "10.9.0.0/00", "10.9.0.0/24/24", "10.9.0.0/4294967304", "10.9.0/24",
		"::/129", "x/8", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff:1111:2222:3333/64",
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffffffff/64"};
	struct prefix before = prefix("192.0.2.1/25");
	struct err err;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct prefix out = before;

		if (prefix_parse(bad[i], &out, &err) != -1)
			fail_msg("\"%s\" was taken for a prefix", bad[i]);
		assert_int_equal(err.code, ERR_INVALID);
		assert_true(prefix_equal(&out, &before));
	}
	assert_int_equal(prefix_parse(NULL, &before, NULL), -1);
}

static void containment_and_overlap(void **state)
{
	static const struct {
		const char *a, *b;
		int a_contains_b, overlap;
	} cases[] = {
		{"10.9.0.0/24", "10.9.0.0/24", 1, 1},
		{"10.9.0.0/24", "10.9.0.128/25", 1, 1},
		{"10.9.0.128/25", "10.9.0.0/24", 0, 1},
		{"10.9.0.0/24", "10.9.1.0/24", 0, 0},
		{"10.9.0.77/24", "10.9.0.1/32", 1, 1},
		{"0.0.0.0/0", "255.255.255.255/32", 1, 1},
		{"0.0.0.0/0", "::/0", 0, 0},
		{"::/0", "2001:db8::/32", 1, 1},
		{"::/0", "10.0.0.0/8", 0, 0},
		{"2001:db8::/127", "2001:db8::2/127", 0, 0},
		{"2001:db8::/126", "2001:db8::2/127", 1, 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct prefix a = prefix(cases[i].a), b = prefix(cases[i].b);

		assert_int_equal(prefix_contains_prefix(&a, &b), cases[i].a_contains_b);
		assert_int_equal(prefix_overlaps(&a, &b), cases[i].overlap);
		assert_int_equal(prefix_overlaps(&b, &a), cases[i].overlap);
	}
}

static void prefix_edges_are_inside(void **state)
{
	struct prefix p = prefix("10.9.0.64/26");
	struct ip first = ip("10.9.0.64"), last = ip("10.9.0.127"), below = ip("10.9.0.63"), above = ip("10.9.0.128");

	(void)state;
	assert_true(prefix_contains(&p, &first));
	assert_true(prefix_contains(&p, &last));
	assert_false(prefix_contains(&p, &below));
	assert_false(prefix_contains(&p, &above));
}

static void macs_parse_and_format_back(void **state)
{
	static const char *const bad[] = {"", "02:42:ac:11:00", "02:42:ac:11:00:0", "02:42:ac:11:00:022", "02-42-ac-11-00-02",
		"2:42:ac:11:00:002", "02:42:ac:11:00:0g", "0242ac110002", " 02:42:ac:11:0:02", "02:42:ac:11:00:02 "};
	struct mac mac = {{0}};
	char buf[MAC_TEXT_SIZE];
	struct err err;

	(void)state;
	assert_true(mac_is_zero(&mac));
	assert_int_equal(mac_parse("02:42:AC:11:00:fe", &mac, &err), 0);
	assert_string_equal(mac_format(&mac, buf), "02:42:ac:11:00:fe");
	assert_false(mac_is_zero(&mac));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct mac out = mac;

		if (mac_parse(bad[i], &out, &err) != -1)
			fail_msg("\"%s\" was taken for a MAC", bad[i]);
		assert_int_equal(err.code, ERR_INVALID);
		assert_true(mac_equal(&out, &mac));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_parse_and_format_back),
		cmocka_unit_test(what_is_no_address_is_refused_and_leaves_the_output),
		cmocka_unit_test(an_absent_address_is_a_value),
		cmocka_unit_test(addresses_order_by_family_then_bytes),
		cmocka_unit_test(numbers_and_addresses_convert_both_ways),
		cmocka_unit_test(prefixes_keep_host_bits),
		cmocka_unit_test(what_is_no_prefix_is_refused_and_leaves_the_output),
		cmocka_unit_test(containment_and_overlap),
		cmocka_unit_test(prefix_edges_are_inside),
		cmocka_unit_test(macs_parse_and_format_back),
	};

	return cmocka_run_group_tests_name("base_addr", tests, NULL, NULL);
}

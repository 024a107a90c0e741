/* The JSON cursor: path and types in the text of the first error, silence after it, bounds before the parser. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/jd.h"
#include "base/json_text.h"

static json_t *parse(const char *text)
{
	struct err err;
	json_t *root = jd_parse(text, strlen(text), "Test", &err);

	if (!root)
		fail_msg("%s", err.text);
	return root;
}

static void what_is_no_object_is_refused(void **state)
{
	static const struct {
		const char *text;
		size_t len; /* 0: strlen */
		const char *telling;
	} bad[] = {
		{"", 0, "Test: line"},
		{"{", 0, "line 1"},
		{"[]", 0, "expected object, found array"},
		{"\"x\"", 0, "Test: "},
		{"null", 0, "Test: "},
		{"{\"a\":1}x", 0, "end of file expected"},
		{"{\"a\":1}{}", 0, "end of file expected"},
		{"{\"a\":1,\"a\":2}", 0, "duplicate"},
		{"{\n\"a\":\n!}", 0, "line 3"},
		{"{\"a\":\"\\u0000\"}", 0, "\\u0000"},
		{"\0\0\0\0", 4, "Test: "},
		{"{\"a\":\"b\0c\"}", 11, "Test: "},
		{"{\"a\":\"\xff\xfe\"}", 0, "unable to decode byte 0xff"},
		{"{\"a\":99999999999999999999}", 0, "too big integer"},
	};
	struct err err;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		json_t *root = jd_parse(bad[i].text, bad[i].len ? bad[i].len : strlen(bad[i].text), "Test", &err);

		if (root)
			fail_msg("vector %zu was taken", i);
		assert_int_equal(err.code, ERR_INVALID);
		if (!strstr(err.text, bad[i].telling))
			fail_msg("vector %zu: \"%s\" is not in \"%s\"", i, bad[i].telling, err.text);
	}
	assert_null(jd_parse(NULL, 0, "Test", NULL));
}

static json_t *nested(unsigned depth, struct err *err)
{
	char text[256] = "{\"a\":";
	size_t len = strlen(text);

	for (unsigned i = 1; i < depth; i++)
		text[len++] = '[';
	if (depth == 1)
		text[len++] = '1';
	for (unsigned i = 1; i < depth; i++)
		text[len++] = ']';
	text[len++] = '}';
	return jd_parse(text, len, "Test", err);
}

static void nesting_is_bounded(void **state)
{
	struct err err;
	json_t *root = nested(JD_DEPTH_MAX, &err);

	(void)state;
	assert_non_null(root);
	json_decref(root);
	assert_null(nested(JD_DEPTH_MAX + 1, &err));
	assert_int_equal(err.code, ERR_INVALID);
	assert_non_null(strstr(err.text, "nesting"));
	/* Brackets in strings, also behind an escaped quote, do not count. */
	root = parse("{\"a\":\"\\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"}");
	json_decref(root);
}

static void members_come_by_name_and_type(void **state)
{
	json_t *root = parse("{\"s\":\"a\\u003cb\\ud83d\\ude00\",\"t\":true,\"f\":false,\"i\":-5,\"o\":{},\"r\":[1],"
			     "\"ip\":\"192.0.2.1\",\"p\":\"10.9.0.5/24\",\"m\":\"02:42:ac:11:00:02\",\"e\":\"\",\"n\":null}");
	struct err err;
	struct jd d;
	struct ip ip;
	struct prefix prefix;
	struct mac mac;

	(void)state;
	jd_init(&d, root, "Test", &err);
	assert_string_equal(jd_str(&d, "s", 128), "a<b\xf0\x9f\x98\x80");
	assert_string_equal(jd_opt_str(&d, "s", 128), "a<b\xf0\x9f\x98\x80");
	assert_true(jd_bool(&d, "t"));
	assert_false(jd_opt_bool(&d, "f", true));
	assert_int_equal(jd_int(&d, "i", -5, -5), -5);
	assert_int_equal(jd_opt_int(&d, "i", -10, 0, 7), -5);
	assert_true(json_is_object(jd_opt_object(&d, "o")));
	assert_int_equal(json_array_size(jd_opt_array(&d, "r")), 1);
	ip = jd_opt_ip(&d, "ip");
	assert_int_equal(ip.bytes[3], 1);
	prefix = jd_prefix(&d, "p");
	assert_int_equal(prefix.length, 24);
	prefix = jd_opt_prefix(&d, "p");
	assert_int_equal(prefix.ip.bytes[3], 5);
	mac = jd_opt_mac(&d, "m");
	assert_int_equal(mac.bytes[5], 2);
	assert_int_equal(jd_finish(&d), 0);
	json_decref(root);
}

static void absent_null_and_empty_are_absent(void **state)
{
	static const char *const names[] = {"nothing", "n", "e"};
	json_t *root = parse("{\"e\":\"\",\"n\":null}");
	struct err err;
	struct jd d;

	(void)state;
	jd_init(&d, root, "Test", &err);
	for (size_t i = 0; i < 3; i++) {
		struct ip ip = jd_opt_ip(&d, names[i]);
		struct prefix prefix = jd_opt_prefix(&d, names[i]);
		struct mac mac = jd_opt_mac(&d, names[i]);

		assert_false(ip_is_set(&ip));
		assert_false(prefix_is_set(&prefix));
		assert_true(mac_is_zero(&mac));
	}
	for (size_t i = 0; i < 2; i++) {
		assert_null(jd_opt_str(&d, names[i], 8));
		assert_true(jd_opt_bool(&d, names[i], true));
		assert_int_equal(jd_opt_int(&d, names[i], 0, 10, 42), 42);
		assert_null(jd_opt_object(&d, names[i]));
		assert_null(jd_opt_array(&d, names[i]));
	}
	assert_string_equal(jd_opt_str(&d, "e", 8), "");
	assert_int_equal(jd_finish(&d), 0);
	json_decref(root);
}

static void ask_str(struct jd *d)
{
	jd_str(d, "v", 4);
}

static void ask_opt_str(struct jd *d)
{
	jd_opt_str(d, "v", 4);
}

static void ask_bool(struct jd *d)
{
	jd_bool(d, "v");
}

static void ask_int(struct jd *d)
{
	jd_int(d, "v", 1, 10);
}

static void ask_opt_int(struct jd *d)
{
	jd_opt_int(d, "v", 1, 10, 0);
}

static void ask_object(struct jd *d)
{
	jd_opt_object(d, "v");
}

static void ask_array(struct jd *d)
{
	jd_opt_array(d, "v");
}

static void ask_ip(struct jd *d)
{
	jd_opt_ip(d, "v");
}

static void ask_prefix(struct jd *d)
{
	jd_prefix(d, "v");
}

static void ask_mac(struct jd *d)
{
	jd_opt_mac(d, "v");
}

static void errors_name_path_expected_and_found(void **state)
{
	static const struct {
		const char *text;
		void (*ask)(struct jd *d);
		const char *error;
	} cases[] = {
		{"{}", ask_str, "Test.v: expected string, found nothing"},
		{"{\"v\":5}", ask_str, "Test.v: expected string, found integer"},
		{"{\"v\":null}", ask_str, "Test.v: expected string, found null"},
		{"{\"v\":[]}", ask_opt_str, "Test.v: expected string, found array"},
		{"{\"v\":\"12345\"}", ask_str, "Test.v: expected at most 4 bytes, found 5"},
		{"{\"v\":\"yes\"}", ask_bool, "Test.v: expected boolean, found string"},
		{"{\"v\":1.5}", ask_int, "Test.v: expected integer, found real"},
		{"{\"v\":11}", ask_int, "Test.v: expected 1 to 10, found 11"},
		{"{\"v\":0}", ask_opt_int, "Test.v: expected 1 to 10, found 0"},
		{"{\"v\":true}", ask_object, "Test.v: expected object, found boolean"},
		{"{\"v\":{}}", ask_array, "Test.v: expected array, found object"},
		{"{\"v\":\"10.9.0\"}", ask_ip, "Test.v: expected an IP address, found \"10.9.0\""},
		{"{\"v\":\"\"}", ask_prefix, "Test.v: expected address/length, found \"\""},
		{"{\"v\":\"10.9.0.0/33\"}", ask_prefix,
			"Test.v: prefix \"10.9.0.0/33\": expected a length of 0 to 32 behind the slash"},
		{"{\"v\":\"xx\"}", ask_mac, "Test.v: expected a MAC address (six hex pairs with colons), found \"xx\""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		json_t *root = parse(cases[i].text);
		struct err err;
		struct jd d;

		jd_init(&d, root, "Test", &err);
		cases[i].ask(&d);
		assert_int_equal(jd_finish(&d), -1);
		assert_int_equal(err.code, ERR_INVALID);
		assert_string_equal(err.text, cases[i].error);
		json_decref(root);
	}
}

static void the_first_error_stays_and_later_calls_are_safe(void **state)
{
	json_t *root = parse("{\"a\":1,\"o\":{}}");
	struct err err;
	struct prefix prefix;
	struct jd d;

	(void)state;
	jd_init(&d, root, "Test", &err);
	assert_string_equal(jd_str(&d, "a", 8), "");
	assert_string_equal(jd_str(&d, "b", 8), "");
	assert_null(jd_opt_object(&d, "o"));
	assert_int_equal(jd_int(&d, "a", 0, 9), 0);
	assert_false(jd_bool(&d, "b"));
	prefix = jd_prefix(&d, "b");
	assert_false(prefix_is_set(&prefix));
	jd_fail(&d, "c", "later");
	assert_int_equal(jd_finish_strict(&d), -1);
	assert_string_equal(err.text, "Test.a: expected string, found integer");
	json_decref(root);
}

static void a_node_of_another_type_fails_at_once(void **state)
{
	json_t *node = json_integer(5);
	struct err err;
	struct jd d;

	(void)state;
	jd_init(&d, node, "Test.x", &err);
	assert_null(jd_opt_str(&d, "a", 8));
	assert_int_equal(jd_finish(&d), -1);
	assert_string_equal(err.text, "Test.x: expected object, found integer");
	json_decref(node);
	jd_init(&d, NULL, "Test", &err);
	assert_int_equal(jd_finish(&d), -1);
	assert_string_equal(err.text, "Test: expected object, found nothing");
	jd_init(&d, NULL, "Test", NULL);
	assert_int_equal(jd_finish(&d), -1);
}

static void own_checks_fail_with_the_path(void **state)
{
	json_t *root = parse("{}");
	struct err err;
	struct jd d;

	(void)state;
	jd_init(&d, root, "Test", &err);
	jd_fail(&d, "mtu", "%d is odd", 3);
	assert_int_equal(jd_finish(&d), -1);
	assert_string_equal(err.text, "Test.mtu: 3 is odd");
	jd_init(&d, root, "Test", &err);
	jd_fail(&d, NULL, "all wrong");
	assert_string_equal(err.text, "Test: all wrong");
	json_decref(root);
}

static void strict_refuses_members_never_asked_for(void **state)
{
	json_t *root = parse("{\"a\":1,\"typo\":2,\"b\":null}");
	struct err err;
	struct jd d;

	(void)state;
	jd_init(&d, root, "Test", &err);
	jd_int(&d, "a", 0, 9);
	jd_opt_int(&d, "a", 0, 9, 0); /* twice is once */
	jd_opt_str(&d, "b", 9);
	jd_opt_str(&d, "absent", 9);
	assert_int_equal(jd_finish(&d), 0);
	assert_int_equal(jd_finish_strict(&d), -1);
	assert_string_equal(err.text, "Test.typo: no such member is known");
	jd_init(&d, root, "Test", &err);
	jd_int(&d, "a", 0, 9);
	jd_int(&d, "typo", 0, 9);
	jd_opt_str(&d, "b", 9);
	assert_int_equal(jd_finish_strict(&d), 0);
	json_decref(root);
}

static void strict_refuses_more_members_than_it_can_note(void **state)
{
	json_t *root = json_object();
	struct err err;
	char name[16];
	struct jd d;

	(void)state;
	for (int i = 0; i < 65; i++) {
		snprintf(name, sizeof(name), "m%d", i);
		json_object_set_new(root, name, json_integer(i));
	}
	jd_init(&d, root, "Test", &err);
	for (int i = 0; i < 65; i++) {
		snprintf(name, sizeof(name), "m%d", i);
		assert_int_equal(jd_int(&d, name, 0, 64), i);
	}
	assert_int_equal(jd_finish(&d), 0);
	assert_int_equal(jd_finish_strict(&d), -1);
	json_decref(root);
}

static void text_of_any_origin_becomes_a_string(void **state)
{
	static const char *const cases[][2] = {
		{"", ""},
		{"plain", "plain"},
		{"whole \xc3\xa4", "whole \xc3\xa4"},
		{"cut \xc3", "cut ?"},
		{"\xff in \xc3\xa4", "? in ??"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		json_t *text = json_text(cases[i][0]);

		assert_string_equal(json_string_value(text), cases[i][1]);
		json_decref(text);
	}
}

static void what_is_no_utf8_is_known(void **state)
{
	static const char *const valid[] = {"", "plain", "\xc3\xa4", "\xef\xbf\xbd", "\xf4\x8f\xbf\xbf"};
	static const char *const invalid[] = {
		"\x80", "\xff", "a\xc3", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf0\x9f\x98"};

	(void)state;
	for (size_t i = 0; i < sizeof(valid) / sizeof(valid[0]); i++)
		assert_true(json_text_valid(valid[i]));
	for (size_t i = 0; i < sizeof(invalid) / sizeof(invalid[0]); i++)
		assert_false(json_text_valid(invalid[i]));
}

static void a_cut_character_goes_and_no_whole_one(void **state)
{
	static const char *const cases[][2] = {
		{"", ""},
		{"plain", "plain"},
		{"\xc3\xa4", "\xc3\xa4"},
		{"a\xc3", "a"},
		{"\xc3\xa4\xf0\x9f\x98", "\xc3\xa4"},
		{"\xf0\x9f\x98", ""},
	};
	char text[16];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(text, sizeof(text), "%s", cases[i][0]);
		json_text_cut(text);
		assert_string_equal(text, cases[i][1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_no_utf8_is_known),
		cmocka_unit_test(a_cut_character_goes_and_no_whole_one),
		cmocka_unit_test(what_is_no_object_is_refused),
		cmocka_unit_test(nesting_is_bounded),
		cmocka_unit_test(members_come_by_name_and_type),
		cmocka_unit_test(absent_null_and_empty_are_absent),
		cmocka_unit_test(errors_name_path_expected_and_found),
		cmocka_unit_test(the_first_error_stays_and_later_calls_are_safe),
		cmocka_unit_test(a_node_of_another_type_fails_at_once),
		cmocka_unit_test(own_checks_fail_with_the_path),
		cmocka_unit_test(strict_refuses_members_never_asked_for),
		cmocka_unit_test(strict_refuses_more_members_than_it_can_note),
		cmocka_unit_test(text_of_any_origin_becomes_a_string),
	};

	return cmocka_run_group_tests_name("base_jd", tests, NULL, NULL);
}

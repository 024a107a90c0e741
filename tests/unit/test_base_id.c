/* Identifiers, hex text and numbers: exact lengths, nothing written on failure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/number.h"

static void ids_parse_and_format_back(void **state)
{
	static const char text[] = "00112233445566778899aabbccddeeff";
	char buf[ID_TEXT_SIZE], little[ID_SHORT_SIZE];
	struct id128 id = {{0}};
	struct err err;

	(void)state;
	assert_true(id_is_zero(&id));
	assert_int_equal(id_parse(text, &id, &err), 0);
	assert_false(id_is_zero(&id));
	assert_string_equal(id_format(&id, buf), text);
	assert_string_equal(id_short(&id, little), "001122334455");
}

static void what_is_no_id_is_refused(void **state)
{
	static const char *const bad[] = {"", "0", "00112233445566778899aabbccddeef", "00112233445566778899aabbccddeeff0",
		"00112233445566778899aabbccddeefg", "0x112233445566778899aabbccddeeff", " 0112233445566778899aabbccddeeff"};
	struct id128 before = {{1, 2, 3}}, id = before;
	struct err err;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(id_parse(bad[i], &id, &err), -1);
		assert_int_equal(err.code, ERR_INVALID);
		assert_true(id_equal(&id, &before));
	}
	assert_int_equal(id_parse(NULL, &id, NULL), -1);
}

static void ids_compare_as_bytes(void **state)
{
	struct id128 low = {{0, 255}}, high = {{1}};

	(void)state;
	assert_true(id_compare(&low, &high) < 0);
	assert_true(id_compare(&high, &low) > 0);
	assert_int_equal(id_compare(&low, &low), 0);
}

static void hex_takes_either_case_and_writes_lower(void **state)
{
	uint8_t bytes[3];
	char text[7];

	(void)state;
	assert_int_equal(hex_decode("aB09Ff", bytes, 3), 0);
	hex_encode(bytes, 3, text);
	assert_string_equal(text, "ab09ff");
	assert_int_equal(hex_decode("", bytes, 0), 0);
	assert_int_equal(hex_decode("aB09F", bytes, 3), -1);
	assert_int_equal(hex_decode("aB09Ff0", bytes, 3), -1);
}

static void numbers_are_whole_and_in_range(void **state)
{
	static const struct {
		const char *text;
		uint64_t min, max;
		int rc;
		uint64_t value;
	} cases[] = {
		{"0", 0, 10, 0, 0},
		{"10", 0, 10, 0, 10},
		{"0010", 0, 10, 0, 10},
		{"11", 0, 10, -1, 0},
		{"1", 2, 10, -1, 0},
		{"18446744073709551615", 0, UINT64_MAX, 0, UINT64_MAX},
		{"18446744073709551616", 0, UINT64_MAX, -1, 0},
		{"99999999999999999999999", 0, UINT64_MAX, -1, 0},
		{"", 0, 10, -1, 0},
		{"-1", 0, UINT64_MAX, -1, 0},
		{"+1", 0, 10, -1, 0},
		{" 1", 0, 10, -1, 0},
		{"1 ", 0, 10, -1, 0},
		{"0x1", 0, 10, -1, 0},
		{"1e1", 0, 10, -1, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t value = 4711;

		if (number_parse(cases[i].text, cases[i].min, cases[i].max, &value) != cases[i].rc)
			fail_msg("\"%s\" was not judged as it should be", cases[i].text);
		assert_true(value == (cases[i].rc == 0 ? cases[i].value : 4711));
	}
	assert_int_equal(number_parse(NULL, 0, 1, &(uint64_t){0}), -1);
}

static void clocks_agree_and_do_not_go_back(void **state)
{
	uint64_t us = clock_boot_us();
	uint64_t ms = clock_boot_ms();

	(void)state;
	assert_true(us > 0);
	assert_true(ms >= us / 1000 && ms <= us / 1000 + 10000);
	assert_true(clock_boot_us() >= us);
	assert_true(clock_wall_s() > 1700000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ids_parse_and_format_back),
		cmocka_unit_test(what_is_no_id_is_refused),
		cmocka_unit_test(ids_compare_as_bytes),
		cmocka_unit_test(hex_takes_either_case_and_writes_lower),
		cmocka_unit_test(numbers_are_whole_and_in_range),
		cmocka_unit_test(clocks_agree_and_do_not_go_back),
	};

	return cmocka_run_group_tests_name("base_id", tests, NULL, NULL);
}

/* Errors: text, codes, prefixes, cutting at the end of the buffer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/err.h"

static void set_gives_minus_one_code_and_text(void **state)
{
	struct err err;

	(void)state;
	assert_int_equal(err_set(&err, ERR_CONFLICT, "network %s: held by %d", "app", 7), -1);
	assert_int_equal(err.code, ERR_CONFLICT);
	assert_int_equal(err.sys_errno, 0);
	assert_string_equal(err.text, "network app: held by 7");
}

static void sys_appends_the_reason_and_keeps_errno(void **state)
{
	struct err err;

	(void)state;
	assert_int_equal(err_sys(&err, ENOENT, "open %s", "/x"), -1);
	assert_int_equal(err.code, ERR_SYSTEM);
	assert_int_equal(err.sys_errno, ENOENT);
	assert_string_equal(err.text, "open /x: No such file or directory");
}

static void prefix_keeps_code_and_errno(void **state)
{
	struct err err;

	(void)state;
	err_sys(&err, EPERM, "link add");
	assert_int_equal(err_prefix(&err, "network %s", "app"), -1);
	assert_int_equal(err.code, ERR_SYSTEM);
	assert_int_equal(err.sys_errno, EPERM);
	assert_string_equal(err.text, "network app: link add: Operation not permitted");
}

static void own_text_may_be_an_argument(void **state)
{
	struct err err;

	(void)state;
	err_set(&err, ERR_INVALID, "inner");
	err_set(&err, ERR_CORRUPT, "outer (%s)", err.text);
	assert_string_equal(err.text, "outer (inner)");
	err_prefix(&err, "%s again", err.text);
	assert_string_equal(err.text, "outer (inner) again: outer (inner)");
}

static void long_texts_are_cut_and_terminated(void **state)
{
	char longest[2 * ERR_TEXT_SIZE];
	struct err err;

	(void)state;
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	err_set(&err, ERR_INVALID, "%s", longest);
	assert_int_equal(strlen(err.text), ERR_TEXT_SIZE - 1);
	err_prefix(&err, "front");
	assert_int_equal(strlen(err.text), ERR_TEXT_SIZE - 1);
	assert_memory_equal(err.text, "front: aaa", 10);
	err_sys(&err, EIO, "%s", longest);
	assert_int_equal(strlen(err.text), ERR_TEXT_SIZE - 1);
}

static void a_caller_may_not_care(void **state)
{
	(void)state;
	assert_int_equal(err_set(NULL, ERR_INVALID, "x"), -1);
	assert_int_equal(err_sys(NULL, EIO, "x"), -1);
	assert_int_equal(err_prefix(NULL, "x"), -1);
}

/* The names are part of the control API: a change here breaks programs of others. */
static void code_names_are_stable(void **state)
{
	static const char *const names[] = {"ok", "invalid", "not-found", "exists", "conflict", "exhausted", "unreachable",
		"denied", "system", "corrupt", "version", "too-big", "unsupported", "internal"};

	(void)state;
	for (int code = ERR_OK; code <= ERR_INTERNAL; code++)
		assert_string_equal(err_code_name(code), names[code]);
	assert_string_equal(err_code_name(ERR_INTERNAL + 1), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(set_gives_minus_one_code_and_text),
		cmocka_unit_test(sys_appends_the_reason_and_keeps_errno),
		cmocka_unit_test(prefix_keeps_code_and_errno),
		cmocka_unit_test(own_text_may_be_an_argument),
		cmocka_unit_test(long_texts_are_cut_and_terminated),
		cmocka_unit_test(a_caller_may_not_care),
		cmocka_unit_test(code_names_are_stable),
	};

	return cmocka_run_group_tests_name("base_err", tests, NULL, NULL);
}

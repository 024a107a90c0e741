/* Memory: what is had is zeroed; what is not had is named with its size, and ends the process by SIGABRT. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/json_text.h"
#include "base/uthash.h"

struct row {
	uint64_t number;
	char text[40];
};

/* What the address sanitizer would end by itself is answered with NULL, as by the C library. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "allocator_may_return_null=1";
}

static void what_is_had_is_zeroed(void **state)
{
	struct row *row = alloc_new(struct row), none = {0}, *rows = alloc_array(struct row, 3);

	(void)state;
	assert_memory_equal(row, &none, sizeof(none));
	for (unsigned i = 0; i < 3; i++)
		assert_memory_equal(&rows[i], &none, sizeof(none));
	free(rows);
	free(row);
}

static void an_array_of_none_is_there_too(void **state)
{
	struct row *rows = alloc_array(struct row, 0);

	(void)state;
	assert_non_null(rows);
	rows = alloc_resize(rows, struct row, 0);
	assert_non_null(rows);
	free(rows);
}

static void resizing_keeps_what_was_there(void **state)
{
	struct row *rows = alloc_resize(NULL, struct row, 1);

	(void)state;
	rows[0] = (struct row){.number = 7, .text = "seven"};
	rows = alloc_resize(rows, struct row, 1000);
	assert_int_equal(rows[0].number, 7);
	assert_string_equal(rows[0].text, "seven");
	free(rows);
}

static void texts_are_copies(void **state)
{
	char from[] = "network app";
	char *copy = alloc_text(from), *made = alloc_format("%s: %d", from, 4096);

	(void)state;
	from[0] = 'N';
	assert_string_equal(copy, "network app");
	assert_string_equal(made, "network app: 4096");
	free(copy);
	free(made);
}

static void what_others_made_passes(void **state)
{
	int object;

	(void)state;
	assert_ptr_equal(alloc_made(&object, "timer"), &object);
}

/* Runs `fn` in a process of its own: it must die of abort(), and its last words are returned. */
static void last_words(void (*fn)(void), char *ret_text, size_t size)
{
	int ends[2], status;
	size_t len = 0;
	ssize_t got;
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	pid = fork();
	if (pid == 0) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
		signal(SIGABRT, SIG_DFL);
		dup2(ends[1], STDERR_FILENO);
		fn();
		_exit(0);
	}
	assert_true(pid > 0);
	close(ends[1]);
	while ((got = read(ends[0], ret_text + len, size - 1 - len)) > 0)
		len += (size_t)got;
	ret_text[len] = '\0';
	close(ends[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

static volatile size_t too_many = SIZE_MAX / 4; /* times any size it does not fit */

static void want_array(void)
{
	free(alloc_array(struct row, too_many));
}

static void want_resized(void)
{
	free(alloc_resize(NULL, struct row, too_many));
}

static void want_made(void)
{
	alloc_made(too_many ? NULL : (void *)&too_many, "timer");
}

static void want_buckets(void)
{
	free(uthash_malloc(too_many));
}

static void want_unmade(void)
{
	free(json_print(json_pack("{s:s}", "name", too_many ? "\xff" : ""), JSON_COMPACT));
}

/* It is not memory that is missing. */
static void what_could_not_be_made_is_told_from_no_memory(void **state)
{
	char text[512];

	(void)state;
	last_words(want_unmade, text, sizeof(text));
	assert_non_null(strstr(text, "a text in it is not UTF-8"));
}

static void what_is_not_had_is_named_with_its_size(void **state)
{
	char text[8192];

	(void)state;
	last_words(want_array, text, sizeof(text));
	assert_non_null(strstr(text, "error memory: no memory for 4611686018427387903 x struct row, 48 bytes each: aborting"));
	last_words(want_resized, text, sizeof(text));
	assert_non_null(strstr(text, "x struct row, 48 bytes each"));
	last_words(want_made, text, sizeof(text));
	assert_non_null(strstr(text, "error memory: no memory for a timer: aborting"));
	last_words(want_buckets, text, sizeof(text));
	assert_non_null(strstr(text, "1 x hash table of tests/unit/test_base_alloc.c, 4611686018427387903 bytes each"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_had_is_zeroed),
		cmocka_unit_test(an_array_of_none_is_there_too),
		cmocka_unit_test(resizing_keeps_what_was_there),
		cmocka_unit_test(texts_are_copies),
		cmocka_unit_test(what_others_made_passes),
		cmocka_unit_test(what_could_not_be_made_is_told_from_no_memory),
		cmocka_unit_test(what_is_not_had_is_named_with_its_size),
	};

	return cmocka_run_group_tests_name("base_alloc", tests, NULL, NULL);
}

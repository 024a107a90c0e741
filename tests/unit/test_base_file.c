/* Files and log lines, on the real file system in a directory of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"

static char dir[] = "/tmp/trestle-test-file-XXXXXX";

static const char *in_dir(const char *name)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	static const char *const names[] = {"a/b/c", "a/b", "a", "p/q", "p", "file", "log", "big"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		remove(in_dir(names[i]));
	return rmdir(dir); /* also proves that no .tmp file stayed */
}

static void expect_content(const char *path, const char *expected)
{
	struct err err;
	char *data;
	size_t len;

	if (file_read(path, 65536, &data, &len, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(len, strlen(expected));
	assert_string_equal(data, expected);
	free(data);
}

static void writes_replace_and_read_back(void **state)
{
	const char *path = in_dir("file");
	struct stat st;
	struct err err;

	(void)state;
	assert_int_equal(file_write_atomic(path, "one", 3, 0600, &err), 0);
	expect_content(path, "one");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(file_write_atomic(path, "", 0, 0600, &err), 0);
	expect_content(path, "");
}

static void a_leftover_of_a_crash_is_no_obstacle(void **state)
{
	char tmp[PATH_MAX + 8];
	struct err err;
	int fd;

	(void)state;
	snprintf(tmp, sizeof(tmp), "%s.tmp", in_dir("file"));
	fd = open(tmp, O_WRONLY | O_CREAT, 0644);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "half", 4), 4);
	close(fd);
	assert_int_equal(file_write_atomic(in_dir("file"), "whole", 5, 0600, &err), 0);
	expect_content(in_dir("file"), "whole");
	assert_int_equal(access(tmp, F_OK), -1);
}

static void a_failed_write_leaves_the_old_file(void **state)
{
	char *longest = malloc(PATH_MAX + 10);
	struct err err;

	(void)state;
	assert_int_equal(file_write_atomic(in_dir("none/file"), "x", 1, 0600, &err), -1);
	assert_int_equal(err.code, ERR_SYSTEM);
	assert_int_equal(err.sys_errno, ENOENT);
	assert_non_null(strstr(err.text, "none/file"));
	assert_non_null(longest);
	memset(longest, 'a', PATH_MAX + 9);
	longest[PATH_MAX + 9] = '\0';
	assert_int_equal(file_write_atomic(longest, "x", 1, 0600, &err), -1);
	assert_int_equal(err.sys_errno, ENAMETOOLONG);
	free(longest);
}

static void reads_are_bounded(void **state)
{
	char big[10000];
	struct err err;
	char *data = NULL;
	size_t len = 0;

	(void)state;
	memset(big, 'x', sizeof(big));
	assert_int_equal(file_write_atomic(in_dir("big"), big, sizeof(big), 0600, &err), 0);
	assert_int_equal(file_read(in_dir("big"), sizeof(big) - 1, &data, &len, &err), -1);
	assert_int_equal(err.code, ERR_TOO_BIG);
	assert_null(data);
	assert_int_equal(file_read(in_dir("big"), sizeof(big), &data, &len, &err), 0);
	assert_int_equal(len, sizeof(big));
	assert_int_equal(data[len], '\0');
	free(data);
}

static void files_without_a_size_are_read(void **state)
{
	struct err err;
	char *data;
	size_t len;

	(void)state;
	assert_int_equal(file_read("/proc/self/status", 65536, &data, &len, &err), 0);
	assert_true(len > 100);
	free(data);
}

static void a_missing_file_says_so(void **state)
{
	struct err err;
	char *data;
	size_t len;

	(void)state;
	assert_int_equal(file_read(in_dir("missing"), 10, &data, &len, &err), -1);
	assert_int_equal(err.sys_errno, ENOENT);
	assert_non_null(strstr(err.text, "missing"));
	assert_int_equal(file_read(dir, 10, &data, &len, &err), -1);
	assert_int_equal(err.sys_errno, EISDIR);
}

static void directories_are_made_once_and_again(void **state)
{
	struct stat st;
	struct err err;

	(void)state;
	assert_int_equal(file_make_dirs(in_dir("a/b/c"), 0755, &err), 0);
	assert_int_equal(file_make_dirs(in_dir("a/b/c"), 0755, &err), 0);
	assert_int_equal(file_make_dirs(in_dir("a//b/"), 0755, &err), 0);
	assert_int_equal(stat(in_dir("a/b/c"), &st), 0);
	assert_true(S_ISDIR(st.st_mode));
	assert_int_equal(file_make_parents(in_dir("p/q/socket"), 0755, &err), 0);
	assert_int_equal(stat(in_dir("p/q"), &st), 0);
	assert_int_equal(stat(in_dir("p/q/socket"), &st), -1);
	assert_int_equal(file_make_parents("socket", 0755, &err), 0);
	assert_int_equal(file_write_atomic(in_dir("file"), "x", 1, 0600, &err), 0);
	assert_int_equal(file_make_parents(in_dir("file/d/socket"), 0755, &err), -1);
	assert_int_equal(file_make_dirs(in_dir("file/d"), 0755, &err), -1);
	assert_int_equal(err.sys_errno, ENOTDIR);
	assert_int_equal(file_make_dirs("", 0755, &err), -1);
	assert_int_equal(err.code, ERR_INVALID);
}

/* What fn logs, one string. */
static const char *logged(void (*fn)(void))
{
	static char *data;
	int saved = dup(STDERR_FILENO);
	int fd = open(in_dir("log"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct err err;
	size_t len;

	assert_true(saved >= 0 && fd >= 0);
	dup2(fd, STDERR_FILENO);
	fn();
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(fd);
	free(data);
	data = NULL;
	assert_int_equal(file_read(in_dir("log"), 1 << 20, &data, &len, &err), 0);
	return data;
}

static void log_at_three_levels(void)
{
	unsetenv("JOURNAL_STREAM");
	log_set_level(LOG_LEVEL_WARN);
	log_info("gossip", "not shown");
	log_warn("gossip", "member %s suspected", "b\nerror forged: line\x1b[0m");
	log_set_level(LOG_LEVEL_INFO);
	log_info("base", "shown");
	setenv("JOURNAL_STREAM", "8:1", 1);
	log_error("base", "for the journal");
	unsetenv("JOURNAL_STREAM");
}

static void lines_have_level_module_and_no_control_bytes(void **state)
{
	(void)state;
	assert_string_equal(logged(log_at_three_levels), "warn gossip: member b?error forged: line?[0m suspected\n"
							 "info base: shown\n"
							 "<3>error base: for the journal\n");
}

static void log_too_long(void)
{
	char longest[4000];

	memset(longest, 'y', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	log_info("base", "%s", longest);
}

static void long_lines_are_cut_and_still_lines(void **state)
{
	const char *text = logged(log_too_long);
	size_t len = strlen(text);

	(void)state;
	assert_true(len > 500 && len <= 1024);
	assert_int_equal(text[len - 1], '\n');
}

static void log_a_flood(void)
{
	struct log_limit limit = {.burst = 2};

	for (int i = 0; i < 10; i++)
		log_limited(&limit, 1000, LOG_LEVEL_INFO, "m", "flood %d", i);
	log_limited(&limit, 1000 + 59999, LOG_LEVEL_INFO, "m", "still");
	log_limited(&limit, 1000 + 60000, LOG_LEVEL_INFO, "m", "next minute");
	log_limited(&limit, 1000 + 60000, LOG_LEVEL_DEBUG, "m", "below the level");
	log_limited(&limit, 1000 + 60001, LOG_LEVEL_INFO, "m", "after");
}

static void a_flood_is_limited_and_counted(void **state)
{
	(void)state;
	assert_string_equal(logged(log_a_flood), "info m: flood 0\ninfo m: flood 1\n"
						 "info m: next minute (9 like it not shown)\ninfo m: after\n");
}

static void levels_parse_by_name(void **state)
{
	enum log_level level = LOG_LEVEL_ERROR;

	(void)state;
	assert_true(log_level_parse("debug", &level));
	assert_int_equal(level, LOG_LEVEL_DEBUG);
	assert_false(log_level_parse("DEBUG", &level));
	assert_false(log_level_parse("", &level));
	assert_false(log_level_parse(NULL, &level));
	assert_int_equal(level, LOG_LEVEL_DEBUG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writes_replace_and_read_back),
		cmocka_unit_test(a_leftover_of_a_crash_is_no_obstacle),
		cmocka_unit_test(a_failed_write_leaves_the_old_file),
		cmocka_unit_test(reads_are_bounded),
		cmocka_unit_test(files_without_a_size_are_read),
		cmocka_unit_test(a_missing_file_says_so),
		cmocka_unit_test(directories_are_made_once_and_again),
		cmocka_unit_test(lines_have_level_module_and_no_control_bytes),
		cmocka_unit_test(long_lines_are_cut_and_still_lines),
		cmocka_unit_test(a_flood_is_limited_and_counted),
		cmocka_unit_test(levels_parse_by_name),
	};

	return cmocka_run_group_tests_name("base_file", tests, make_dir, remove_dir);
}

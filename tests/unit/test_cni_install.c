/* `trestle cni install` and `cni uninstall` on directories of the test's own; no daemon answers. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/file.h"
#include "cli/cli.h"

#define PLUGIN "\177ELF...@(#)trestle-cni 9.9.9...code"
#define WORDS_MAX 24

struct dirs {
	char root[64], bin[96], conf[96], source[96], plugin[128], conflist[128];
	char said[16384];
};

static void put(const char *path, const char *text)
{
	struct err err;

	if (file_write_atomic(path, text, strlen(text), 0644, &err) < 0)
		fail_msg("%s", err.text);
}

static char *get(const char *path)
{
	struct err err;
	char *data;
	size_t len;

	if (file_read(path, 1 << 20, &data, &len, &err) < 0)
		fail_msg("%s", err.text);
	return data;
}

static void assert_file(const char *path, const char *text)
{
	char *data = get(path);

	assert_string_equal(data, text);
	free(data);
}

static void assert_gone(const char *path)
{
	if (access(path, F_OK) == 0)
		fail_msg("%s is there", path);
}

static void assert_contains(const char *text, const char *fragment)
{
	if (!strstr(text, fragment))
		fail_msg("expected \"%s\" in:\n%s", fragment, text);
}

static int setup(void **state)
{
	struct dirs *d = calloc(1, sizeof *d);

	assert_non_null(d);
	snprintf(d->root, sizeof d->root, "/tmp/trestle-install.XXXXXX");
	assert_non_null(mkdtemp(d->root));
	snprintf(d->bin, sizeof d->bin, "%s/opt/bin", d->root);
	snprintf(d->conf, sizeof d->conf, "%s/etc/net.d", d->root);
	snprintf(d->source, sizeof d->source, "%s/trestle-cni", d->root);
	snprintf(d->plugin, sizeof d->plugin, "%s/trestle", d->bin);
	snprintf(d->conflist, sizeof d->conflist, "%s/10-app.conflist", d->conf);
	put(d->source, PLUGIN);
	/* What uninstall asks first must be nobody's daemon. */
	snprintf(d->said, sizeof d->said, "%s/no-daemon", d->root);
	assert_return_code(setenv("TRESTLE_SOCKET", d->said, 1), errno);
	*state = d;
	return 0;
}

static int teardown(void **state)
{
	struct dirs *d = *state;
	char command[160];

	snprintf(command, sizeof command, "rm -r '%s'", d->root);
	assert_int_equal(system(command), 0);
	free(d);
	return 0;
}

/* Runs `trestle cni WORDS` with our directories; what it says on both streams is in d->said. */
static int cni(struct dirs *d, const char *words)
{
	char line[1024], *at = line, *word, *argv[WORDS_MAX + 1] = {(char *)"trestle", (char *)"cni"};
	FILE *in = fmemopen((void *)"\n", 1, "r"), *out;
	int argc = 2, status;

	memset(d->said, 0, sizeof d->said);
	out = fmemopen(d->said, sizeof d->said - 1, "w");
	snprintf(line, sizeof line, "%s --bin-dir %s --conf-dir %s", words, d->bin, d->conf);
	while ((word = strsep(&at, " ")) && argc < WORDS_MAX)
		argv[argc++] = word;
	status = cli_run(argc, argv, in, out, out);
	fclose(in);
	fclose(out);
	return status;
}

static int install(struct dirs *d, const char *words)
{
	char line[512];

	snprintf(line, sizeof line, "install --network app --from %s%s", d->source, words);
	return cni(d, line);
}

static void assert_mode(const char *path, mode_t mode)
{
	struct stat st;

	assert_return_code(stat(path, &st), errno);
	assert_int_equal(st.st_mode & 07777, mode);
}

static void install_writes_both_and_is_content_the_second_time(void **state)
{
	struct dirs *d = *state;
	char expected[512];

	assert_int_equal(install(d, ""), CLI_FINE);
	snprintf(expected, sizeof expected, "%s: written\n%s: written\n", d->plugin, d->conflist);
	assert_string_equal(d->said, expected);
	assert_file(d->plugin, PLUGIN);
	assert_mode(d->plugin, 0755);
	assert_mode(d->conflist, 0644);
	assert_int_equal(install(d, ""), CLI_FINE);
	snprintf(expected, sizeof expected, "%s: unchanged\n%s: unchanged\n", d->plugin, d->conflist);
	assert_string_equal(d->said, expected);
}

static void install_says_in_the_configuration_what_was_asked(void **state)
{
	struct dirs *d = *state;
	json_t *conf, *plugin, *expected;

	assert_int_equal(
		install(d, " --subnet 10.9.0.0/24 --subnet6 2001:db8:9::/64 --mode l3 --cni-version 1.1.0 --portmap --socket /s"),
		CLI_FINE);
	conf = json_load_file(d->conflist, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(conf, "cniVersion")), "1.1.0");
	assert_string_equal(json_string_value(json_object_get(conf, "name")), "app");
	plugin = json_array_get(json_object_get(conf, "plugins"), 0);
	expected =
		json_loads("{\"type\":\"trestle\",\"network\":\"app\",\"mode\":\"l3\",\"subnet\":\"10.9.0.0/24\",\"subnet6\":"
			   "\"2001:db8:9::/64\",\"socket\":\"/s\",\"capabilities\":{\"ips\":true,\"mac\":true,\"aliases\":true}}",
			0, NULL);
	assert_true(json_equal(plugin, expected));
	assert_string_equal(
		json_string_value(json_object_get(json_array_get(json_object_get(conf, "plugins"), 1), "type")), "portmap");
	json_decref(expected);
	json_decref(conf);
}

static void install_replaces_what_it_wrote(void **state)
{
	struct dirs *d = *state;
	char expected[512];

	assert_int_equal(install(d, ""), CLI_FINE);
	put(d->source, PLUGIN " newer");
	assert_int_equal(install(d, " --mode l2"), CLI_FINE);
	snprintf(expected, sizeof expected, "%s: replaced\n%s: replaced\n", d->plugin, d->conflist);
	assert_string_equal(d->said, expected);
	assert_file(d->plugin, PLUGIN " newer");
}

static void install_leaves_files_of_others(void **state)
{
	struct dirs *d = *state;

	assert_int_equal(install(d, ""), CLI_FINE);
	put(d->plugin, "another plugin");
	put(d->source, PLUGIN " newer");
	assert_int_equal(install(d, " --mode l2"), CLI_PROBLEM);
	assert_contains(d->said, "is not from `trestle cni install`; nothing is done. --force replaces it");
	assert_file(d->plugin, "another plugin");
	/* The configuration was ours, and stayed as well. */
	assert_int_equal(install(d, " --force"), CLI_FINE);
	assert_contains(d->said, "10-app.conflist: unchanged");
	assert_file(d->plugin, PLUGIN " newer");
}

static void install_leaves_a_configuration_that_somebody_changed(void **state)
{
	struct dirs *d = *state;
	json_t *conf;

	assert_int_equal(install(d, ""), CLI_FINE);
	conf = json_load_file(d->conflist, 0, NULL);
	json_object_set_new(json_array_get(json_object_get(conf, "plugins"), 0), "mtu", json_integer(1400));
	assert_int_equal(json_dump_file(conf, d->conflist, 0), 0);
	assert_int_equal(install(d, ""), CLI_PROBLEM);
	assert_contains(d->said, "was changed since it was written");
	assert_int_equal(cni(d, "uninstall"), CLI_PROBLEM);
	assert_contains(d->said, "left, it was changed");
	assert_contains(d->said, "left, a configuration that was left names it");
	assert_file(d->plugin, PLUGIN);
	assert_int_equal(cni(d, "uninstall --force"), CLI_FINE);
	assert_gone(d->conflist);
	assert_gone(d->plugin);
	json_decref(conf);
}

static void a_configuration_only_formatted_anew_is_still_ours(void **state)
{
	struct dirs *d = *state;
	json_t *conf;

	assert_int_equal(install(d, ""), CLI_FINE);
	conf = json_load_file(d->conflist, 0, NULL);
	assert_int_equal(json_dump_file(conf, d->conflist, JSON_COMPACT | JSON_SORT_KEYS), 0);
	assert_int_equal(install(d, ""), CLI_FINE);
	json_decref(conf);
}

static void install_says_when_another_file_comes_first(void **state)
{
	struct dirs *d = *state;
	char other[128];

	assert_int_equal(install(d, ""), CLI_FINE);
	snprintf(other, sizeof other, "%s/05-other.conf", d->conf);
	put(other, "{}");
	assert_int_equal(install(d, ""), CLI_FINE);
	assert_contains(d->said, "05-other.conf comes first by name");
}

static void uninstall_takes_what_is_ours_and_nothing_else(void **state)
{
	static const char foreign[] = "{\"cniVersion\":\"1.0.0\",\"name\":\"b\",\"plugins\":[{\"type\":\"bridge\"}]}";
	struct dirs *d = *state;
	char other[128], second[128];

	assert_int_equal(cni(d, "uninstall"), CLI_FINE);
	assert_contains(d->said, "trestle: was not there");
	assert_int_equal(install(d, ""), CLI_FINE);
	assert_int_equal(install(d, " --network two"), CLI_FINE);
	snprintf(other, sizeof other, "%s/20-bridge.conflist", d->conf);
	snprintf(second, sizeof second, "%s/10-two.conflist", d->conf);
	put(other, foreign);
	assert_int_equal(access(second, F_OK), 0);
	assert_int_equal(cni(d, "uninstall"), CLI_FINE);
	assert_gone(d->conflist);
	assert_gone(second);
	assert_gone(d->plugin);
	assert_file(other, foreign);
}

static void uninstall_leaves_a_plugin_of_somebody_else(void **state)
{
	struct dirs *d = *state;

	assert_int_equal(install(d, ""), CLI_FINE);
	put(d->plugin, "another plugin");
	assert_int_equal(cni(d, "uninstall"), CLI_PROBLEM);
	assert_file(d->plugin, "another plugin");
	assert_gone(d->conflist);
}

static void a_configuration_by_hand_keeps_the_plugin(void **state)
{
	static const char by_hand[] = "{\"cniVersion\":\"1.0.0\",\"name\":\"b\",\"plugins\":[{\"type\":\"trestle\"}]}";
	struct dirs *d = *state;
	char other[128];

	assert_int_equal(install(d, ""), CLI_FINE);
	snprintf(other, sizeof other, "%s/20-hand.conflist", d->conf);
	put(other, by_hand);
	assert_int_equal(cni(d, "uninstall"), CLI_PROBLEM);
	assert_file(other, by_hand);
	assert_file(d->plugin, PLUGIN);
	assert_gone(d->conflist);
}

static void without_the_daemon_only_the_binary_is_written(void **state)
{
	struct dirs *d = *state;

	assert_int_equal(install(d, " --wait 1"), CLI_CANNOT_TELL);
	assert_contains(d->said, "no configuration is written");
	assert_file(d->plugin, PLUGIN);
	assert_gone(d->conflist);
}

static void what_a_killed_install_left_is_no_obstacle(void **state)
{
	struct dirs *d = *state;
	char left[160];

	assert_int_equal(install(d, ""), CLI_FINE);
	snprintf(left, sizeof left, "%s.tmp", d->plugin);
	put(left, "half of a");
	put(d->source, PLUGIN " newer");
	assert_int_equal(install(d, ""), CLI_FINE);
	assert_gone(left);
	put(left, "half of a");
	assert_int_equal(cni(d, "uninstall"), CLI_FINE);
	assert_gone(left);
}

static void bad_usage_writes_nothing(void **state)
{
	static const struct {
		const char *words, *message;
	} cases[] = {
		{" --network ../x", "--network: expected 1 to 63 of"},
		{" --network -x", "--network: expected 1 to 63 of"},
		{" --subnet 10.9.0.0", "--subnet: expected an IPv4 prefix, found \"10.9.0.0\""},
		{" --subnet 2001:db8::/64", "--subnet: expected an IPv4 prefix"},
		{" --subnet6 10.9.0.0/24", "--subnet6: expected an IPv6 prefix"},
		{" --mode l4", "--mode: expected one of l2, l3, found \"l4\""},
		{" --cni-version 2.0.0", "--cni-version: expected one of 0.4.0, 1.0.0, 1.1.0, found \"2.0.0\""},
		{" --wait x", "--wait: expected seconds from 0 to 3600, found \"x\""},
		{" --from /nowhere", "open /nowhere: No such file or directory; say where trestle-cni is with --from FILE"},
		{" --from /bin/sh", "/bin/sh: expected the plugin trestle-cni, found another file"},
	};
	struct dirs *d = *state;
	size_t i;

	for (i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_int_equal(install(d, cases[i].words), CLI_CANNOT_TELL);
		assert_contains(d->said, cases[i].message);
		assert_gone(d->bin);
		assert_gone(d->conf);
	}
	snprintf(d->bin, sizeof d->bin, "opt");
	assert_int_equal(install(d, ""), CLI_CANNOT_TELL);
	assert_contains(d->said, "--bin-dir: expected an absolute path, found \"opt\"");
}

static void what_was_done_is_there_for_programs(void **state)
{
	struct dirs *d = *state;
	json_t *said, *expected;

	assert_int_equal(install(d, " -o json"), CLI_FINE);
	said = json_loads(d->said, 0, NULL);
	expected = json_pack("{s:[{s:s,s:s},{s:s,s:s}],s:[]}", "files", "path", d->plugin, "did", "written", "path", d->conflist,
		"did", "written", "notes");
	assert_true(json_equal(said, expected));
	json_decref(said);
	json_decref(expected);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(install_writes_both_and_is_content_the_second_time),
		CASE(install_says_in_the_configuration_what_was_asked),
		CASE(install_replaces_what_it_wrote),
		CASE(install_leaves_files_of_others),
		CASE(install_leaves_a_configuration_that_somebody_changed),
		CASE(a_configuration_only_formatted_anew_is_still_ours),
		CASE(install_says_when_another_file_comes_first),
		CASE(uninstall_takes_what_is_ours_and_nothing_else),
		CASE(uninstall_leaves_a_plugin_of_somebody_else),
		CASE(a_configuration_by_hand_keeps_the_plugin),
		CASE(without_the_daemon_only_the_binary_is_written),
		CASE(what_a_killed_install_left_is_no_obstacle),
		CASE(bad_usage_writes_nothing),
		CASE(what_was_done_is_there_for_programs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

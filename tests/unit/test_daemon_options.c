/* Options: where a value comes from, what is taken, and that every refusal names the option and the value. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/options.h"

#define ARGS_MAX 16
#define HELP_MAX 16384

static char dir[] = "/tmp/trestle-test-options-XXXXXX";
static char conf[64];
static struct options options;

static void write_conf(const char *text)
{
	FILE *f = fopen(conf, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static int make_dir(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(conf, sizeof(conf), "%s/trestled.conf", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	unlink(conf);
	return rmdir(dir);
}

/* Words are separated by blanks; the file of the test is always named, so that none of this machine is read. */
static int read_words(const char *words, struct err *err)
{
	char copy[1024], *argv[ARGS_MAX] = {(char *)"trestled", (char *)"--config", conf}, *save, *word;
	int argc = 3;

	snprintf(copy, sizeof(copy), "%s", words);
	for (word = strtok_r(copy, " ", &save); word && argc < ARGS_MAX; word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	memset(&options, 0, sizeof(options));
	return options_read(&options, argc, argv, err);
}

static void expect_read(const char *file, const char *words)
{
	struct err err = {0};

	write_conf(file);
	if (read_words(words, &err) < 0)
		fail_msg("%s: %s", words, err.text);
}

static void expect_ip(const struct ip *ip, const char *expected)
{
	char text[IP_TEXT_SIZE];

	assert_string_equal(ip_format(ip, text), expected);
}

static void expect_prefix(const struct prefix *prefix, const char *expected)
{
	char text[PREFIX_TEXT_SIZE];

	assert_string_equal(prefix_format(prefix, text), expected);
}

static void defaults(void **state)
{
	(void)state;
	expect_read("", "--listen 192.0.2.1");
	expect_ip(&options.listen.ip, "192.0.2.1");
	assert_int_equal(options.listen.port, GOSSIP_PORT_DEFAULT);
	expect_ip(&options.vtep, "192.0.2.1");
	assert_int_equal(options.vxlan_port, 4789);
	assert_string_equal(options.state_dir, "/var/lib/trestle");
	assert_string_equal(options.run_dir, "/run/trestle");
	assert_string_equal(options.plugin_socket, "/run/docker/plugins/trestle.sock");
	assert_string_equal(options.control_socket, "/run/trestle/trestled.sock");
	assert_string_equal(options.fabric, "/run/netns/trestle");
	assert_string_equal(options.nft_table, "trestle");
	expect_prefix(&options.supernet4, "10.192.0.0/10");
	expect_prefix(&options.supernet6, "fd74:7265:7374::/48");
	assert_int_equal(options.pool_length4, 24);
	assert_int_equal(options.pool_length6, 64);
	assert_int_equal(options.lease_grace_s, 60);
	assert_int_equal(options.log_level, LOG_LEVEL_INFO);
	assert_string_equal(options.join, "");
	assert_int_equal(strlen(options.boot_id), 36); /* the kernel's, without the line end */
	assert_true(strlen(options.name) > 0);
	assert_false(options.help || options.version);
}

static void flag_beats_file_beats_default(void **state)
{
	static const char file[] = "# a comment\n"
				   "\n"
				   "\r\n"
				   "  name = from-file\n"
				   "vxlan-port=4790\r\n"
				   "\tlease-grace =\t5 \t\n"
				   "   # another\n"
				   "log-level = debug\n"
				   "run-dir = /run/a = b\n"
				   "listen = 192.0.2.7"; /* the last line may have no end */

	(void)state;
	expect_read(file, "");
	assert_string_equal(options.name, "from-file");
	assert_int_equal(options.vxlan_port, 4790);
	assert_int_equal(options.lease_grace_s, 5);
	assert_int_equal(options.log_level, LOG_LEVEL_DEBUG);
	assert_string_equal(options.run_dir, "/run/a = b");
	assert_string_equal(options.control_socket, "/run/a = b/trestled.sock");
	expect_ip(&options.listen.ip, "192.0.2.7");
	assert_int_equal(options.pool_length4, 24);

	expect_read(file, "--vxlan-port 4791 --name=from-flag --lease-grace 7 --lease-grace 8 --vtep 192.0.2.9");
	assert_string_equal(options.name, "from-flag");
	assert_int_equal(options.vxlan_port, 4791);
	assert_int_equal(options.lease_grace_s, 8); /* the last word counts */
	assert_int_equal(options.log_level, LOG_LEVEL_DEBUG);
	expect_ip(&options.vtep, "192.0.2.9");
	expect_ip(&options.listen.ip, "192.0.2.7");
}

static void forms_of_listen(void **state)
{
	static const struct {
		const char *text, *ip;
		uint16_t port;
	} cases[] = {
		{"192.0.2.1", "192.0.2.1", GOSSIP_PORT_DEFAULT},
		{"192.0.2.1:1", "192.0.2.1", 1},
		{"192.0.2.1:65535", "192.0.2.1", 65535},
		{"2001:db8::1", "2001:db8::1", GOSSIP_PORT_DEFAULT},
		{"[2001:db8::1]", "2001:db8::1", GOSSIP_PORT_DEFAULT},
		{"[2001:db8::1]:7000", "2001:db8::1", 7000},
		{"[2001:db8:1:2:3:4:5:6]:65535", "2001:db8:1:2:3:4:5:6", 65535},
	};
	char words[128];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(words, sizeof(words), "--listen %s", cases[i].text);
		expect_read("", words);
		expect_ip(&options.listen.ip, cases[i].ip);
		assert_int_equal(options.listen.port, cases[i].port);
		expect_ip(&options.vtep, cases[i].ip);
	}
}

static void names_of_a_table(void **state)
{
	static const char *const names[] = {"t", "_", "Trestle.b-2_x", "a-name-whose-l3-just-fits-28", "l3", "trestle-l3-"};
	char words[128];

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(words, sizeof(words), "--listen 192.0.2.1 --nft-table %s", names[i]);
		expect_read("", words);
		assert_string_equal(options.nft_table, names[i]);
	}
}

static void expect_refused(const char *file, const char *words, const char *a, const char *b, const char *c)
{
	struct options before;
	struct err err = {0};

	write_conf(file);
	memset(&before, 0, sizeof(before));
	assert_int_equal(read_words(words, &err), -1);
	assert_int_equal(err.code, ERR_INVALID);
	if (!strstr(err.text, a) || !strstr(err.text, b) || !strstr(err.text, c))
		fail_msg("%s%s: expected \"%s\", \"%s\" and \"%s\", found: %s", file, words, a, b, c, err.text);
	assert_memory_equal(&options, &before, sizeof(before));
}

/* The kernel takes any bytes for the name of a host; others print it. */
static void the_host_s_own_name_must_do_for_a_cluster(void **state)
{
	static const char *const names[] = {
		"a b", "\xff", "h\xc3\xa4ns", "a\x1b[2J", "0123456789012345678901234567890123456789012345678901234567890123"};

	(void)state;
	assert_int_equal(unshare(CLONE_NEWUTS), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_int_equal(sethostname(names[i], strlen(names[i])), 0);
		expect_refused("", "--listen 192.0.2.1", "this host's own name", names[i], "give one with --name");
	}
	assert_int_equal(sethostname("h1.example", strlen("h1.example")), 0);
	expect_read("", "--listen 192.0.2.1");
	assert_string_equal(options.name, "h1.example");
}

/* Each option once as a flag and once in the file: the text names the place, the option and the value. */
static void refusals_name_option_and_value(void **state)
{
	static const struct {
		const char *option, *value, *word;
	} cases[] = {
		{"name", "a/b", "found '/'"},
		{"name", "0123456789012345678901234567890123456789012345678901234567890123456789", "characters, found 70"},
		{"listen", "192.0.2", ""},
		{"listen", "192.0.2.1:0", "port '0' is not in 1..65535"},
		{"listen", "192.0.2.1:65536", "port '65536'"},
		{"listen", "192.0.2.1:", "port ''"},
		{"listen", "192.0.2.1:+5", "port '+5'"},
		{"listen", "[2001:db8::1]:0", "port '0'"},
		{"listen", "[2001:db8::1]7000", "found '7000'"},
		{"listen", "[2001:db8::1", ""},
		{"listen", "[]:7000", ""},
		{"listen", "2001:db8::1%eth0", ""},
		{"listen", "0.0.0.0", "no address at which other hosts reach this one"},
		{"listen", "[::]:7000", "no address at which"},
		{"listen", "239.1.1.1", "no address at which"},
		{"listen", "ff02::1", "no address at which"},
		{"listen", "host.example", ""},
		{"listen", "0123456789012345678901234567890123456789012345678901234567890123456789", "ADDRESS:PORT"},
		{"vtep", "192.0.2.1:4789", ""},
		{"vxlan-port", "0", "1..65535"},
		{"vxlan-port", "65536", "1..65535"},
		{"vxlan-port", "4789x", "1..65535"},
		{"nft-table", "a-name-whose-l3-is-too-long--", "1 to 28 characters, found 29"},
		{"nft-table", "", "1 to 28 characters, found 0"},
		{"nft-table", "trestle;", "letters, digits, '-', '.' and '_', found ';'; choose another"},
		{"nft-table", "two/words", "found '/'"},
		{"nft-table", "\xc3\xa9t\xc3\xa9", "begins with a letter or '_'"},
		{"nft-table", "2nd", "begins with a letter or '_', found '2'"},
		{"nft-table", "-t", "begins with a letter or '_', found '-'"},
		{"nft-table", "trestle-l3", "does not end in '-l3'"},
		{"supernet", "10.0.0.0", ""},
		{"supernet", "fd00::/48", "expected an IPv4 prefix"},
		{"supernet6", "10.0.0.0/8", "expected an IPv6 prefix"},
		{"pool-length", "7", "8..30"},
		{"pool-length", "31", "8..30"},
		{"lease-grace", "0", "1..86400"},
		{"lease-grace", "-1", "1..86400"},
		{"lease-grace", "86401", "1..86400"},
		{"log-level", "loud", "error, warn, info or debug"},
		{"state-dir", "", "1 to 4095 characters, found 0"},
		{"boot-id", "", "found 0"},
	};
	char words[256], file[256], named[64], valued[128], where[96];

	(void)state;
	snprintf(where, sizeof(where), "%s:3: ", conf);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(named, sizeof(named), "option '%s'", cases[i].option);
		snprintf(valued, sizeof(valued), "value '%s'", cases[i].value);
		snprintf(words, sizeof(words), "--%s=%s", cases[i].option, cases[i].value);
		expect_refused("", words, "command line: ", named, cases[i].word);
		expect_refused("", words, named, valued, cases[i].word);
		snprintf(file, sizeof(file), "#\n\n%s = %s\n", cases[i].option, cases[i].value);
		expect_refused(file, "", where, valued, named);
	}
}

static void what_is_no_option_is_refused(void **state)
{
	(void)state;
	expect_refused("", "--colour red", "command line", "unknown option 'colour'", "--help");
	expect_refused("", "--name2 x", "unknown option 'name2'", "", "");
	expect_refused("", "--nam x", "unknown option 'nam'", "", "");
	expect_refused("", "--", "unknown option ''", "", "");
	expect_refused("", "start", "unexpected argument 'start'", "", "");
	expect_refused("", "-v", "unexpected argument '-v'", "", "");
	expect_refused("", "--listen", "option 'listen' needs ADDRESS[:PORT]", "", "");
	expect_refused("", "--listen 192.0.2.1 --config", "option 'config' needs FILE", "", "");
	expect_refused("listen = 192.0.2.1\ncolour = red\n", "", conf, ":2: ", "unknown option 'colour'");
	expect_refused("listen 192.0.2.1\n", "", ":1: ", "expected 'name = value'", "listen 192.0.2.1");
	expect_refused("help = 1\n", "", "unknown option 'help'", "", "");
}

static void options_that_contradict_are_refused(void **state)
{
	(void)state;
	expect_refused("", "--listen 192.0.2.1 --supernet 10.0.0.0/25", "option 'pool-length', value '24'", "option 'supernet'",
		"10.0.0.0/25");
	expect_refused("", "--listen 192.0.2.1 --supernet6 fd00::/65", "option 'supernet6', value 'fd00::/65'", "/64", "");
	expect_read("", "--listen 192.0.2.1 --supernet 10.0.0.9/24 --supernet6 fd00::1/64");
	expect_prefix(&options.supernet4, "10.0.0.0/24"); /* host bits mean nothing */
	expect_prefix(&options.supernet6, "fd00::/64");
}

static void a_named_file_must_be_there(void **state)
{
	char *argv[] = {(char *)"trestled", (char *)"--config=/nonexistent/trestled.conf", (char *)"--listen=192.0.2.1"};
	struct err err = {0};

	(void)state;
	assert_int_equal(options_read(&options, 3, argv, &err), -1);
	assert_non_null(strstr(err.text, "/nonexistent/trestled.conf"));
}

static void too_large_a_file_is_refused(void **state)
{
	char *big = malloc(70001);
	struct err err = {0};

	(void)state;
	assert_non_null(big);
	memset(big, '#', 70000);
	big[70000] = '\0';
	write_conf(big);
	free(big);
	assert_int_equal(read_words("--listen 192.0.2.1", &err), -1);
	assert_non_null(strstr(err.text, conf));
}

static void help_and_version_ask_for_nothing_else(void **state)
{
	(void)state;
	expect_read("", "--help");
	assert_true(options.help);
	expect_read("", "-h");
	assert_true(options.help);
	expect_read("", "--version");
	assert_true(options.version && !options.help);
	expect_read("", "--prepare --fabric /run/netns/f");
	assert_true(options.prepare && !options.help && !options.version);
	assert_string_equal(options.fabric, "/run/netns/f");
	expect_read("", "--purge --run-dir /run/x");
	assert_true(options.purge && !options.prepare);
	assert_string_equal(options.control_socket, "/run/x/trestled.sock");
}

static void read_help(char help[HELP_MAX])
{
	int saved, file;
	ssize_t len;

	fflush(stdout);
	saved = dup(STDOUT_FILENO);
	file = open(conf, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(saved >= 0 && file >= 0);
	dup2(file, STDOUT_FILENO);
	options_help();
	fflush(stdout);
	dup2(saved, STDOUT_FILENO);
	len = pread(file, help, HELP_MAX - 1, 0);
	close(file);
	close(saved);
	assert_true(len > 0);
	help[len] = '\0';
}

static void help_names_every_option(void **state)
{
	static const char *const names[] = {"name NAME", "listen ADDRESS[:PORT]", "vtep ADDRESS", "vxlan-port PORT",
		"state-dir DIR", "run-dir DIR", "plugin-socket PATH", "control-socket PATH", "fabric PATH", "nft-table NAME",
		"supernet CIDR", "supernet6 CIDR", "pool-length N", "lease-grace SECONDS", "join TOKEN", "boot-id TEXT",
		"machine-id TEXT", "machine-uuid TEXT", "adopt MACHINE-ID", "log-level LEVEL", "config FILE"};
	char help[HELP_MAX], line[64], words[64];

	(void)state;
	read_help(help);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(line, sizeof(line), "  --%s\n", names[i]);
		if (!strstr(help, line))
			fail_msg("no \"--%s\" in: %s", names[i], help);
	}
	/* And what help names is known: each line with an option needs its argument. */
	for (const char *at = strstr(help, "\n  --"); at; at = strstr(at + 1, "\n  --")) {
		char *blank;

		snprintf(words, sizeof(words), "%.50s", at + 3);
		blank = strchr(words, ' ');
		assert_non_null(blank);
		*blank = '\0';
		expect_refused("", words, "option '", words + 2, "needs");
	}
	assert_non_null(strstr(help, "(default: 4789)"));
	assert_non_null(strstr(help, OPTIONS_FILE_DEFAULT));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(the_host_s_own_name_must_do_for_a_cluster),
		cmocka_unit_test(flag_beats_file_beats_default),
		cmocka_unit_test(forms_of_listen),
		cmocka_unit_test(names_of_a_table),
		cmocka_unit_test(refusals_name_option_and_value),
		cmocka_unit_test(what_is_no_option_is_refused),
		cmocka_unit_test(options_that_contradict_are_refused),
		cmocka_unit_test(a_named_file_must_be_there),
		cmocka_unit_test(too_large_a_file_is_refused),
		cmocka_unit_test(help_and_version_ask_for_nothing_else),
		cmocka_unit_test(help_names_every_option),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}

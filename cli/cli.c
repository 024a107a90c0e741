/* The command line: finds the command, its arguments and options, prints help. What a command does is in commands.c.
 *
 * Options may stand anywhere, since people add `-o json` to the line they have just typed. */
#include "cli/cli_internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json_text.h"
#include "base/version.h"
#include "control/client.h"

const char *cli_option(const struct cli *cli, const char *name)
{
	int i;

	for (i = 0; cli->command->options[i].name; i++)
		if (!strcmp(cli->command->options[i].name, name))
			return cli->options[i];
	return NULL;
}

bool cli_beside(char buf[PATH_MAX], const char *name)
{
	ssize_t n = readlink("/proc/self/exe", buf, PATH_MAX - 1);
	size_t dir, room;

	if (n <= 0)
		return false;
	buf[n] = '\0';
	dir = (size_t)(strrchr(buf, '/') + 1 - buf);
	room = PATH_MAX - dir;
	return (size_t)snprintf(buf + dir, room, "%s", name) < room;
}

int cli_complain(const struct cli *cli, int status, const char *fmt, ...)
{
	va_list args;

	fputs("trestle: ", cli->err);
	va_start(args, fmt);
	vfprintf(cli->err, fmt, args);
	va_end(args);
	fputc('\n', cli->err);
	return status;
}

/* ---- help ---- */

static void help(FILE *out)
{
	const struct cli_command *command;
	const char *group = NULL;
	char usage[64];

	fputs("Usage: trestle COMMAND [ARGUMENTS] [-o json] [--socket PATH]\n", out);
	for (command = cli_commands; command->name; command++) {
		if (!group || strcmp(group, command->group))
			fprintf(out, "\n%s\n", command->group);
		group = command->group;
		snprintf(usage, sizeof usage, "%s %s", command->name, command->args);
		fprintf(out, "  %-30s %s\n", usage, command->help);
	}
	fputs("\n`trestle COMMAND --help` shows its options and an example.\n"
	      "Exit status: 0 fine, 1 a problem found, 2 cannot tell.\n"
	      "The socket is also taken from TRESTLE_SOCKET; else it is " CONTROL_SOCKET_DEFAULT ".\n",
		out);
}

#define USAGE_SIZE 96
static const char *usage_of(const struct cli_command *command, char buf[USAGE_SIZE])
{
	snprintf(buf, USAGE_SIZE, "trestle %s%s%s%s", command->name, *command->args ? " " : "", command->args,
		command->options[0].name ? " [OPTIONS]" : "");
	return buf;
}

static const struct cli_option common_options[] = {
	{"-o", "json", "the API's answer instead of a table (docs/api.md)"},
	{"--socket", "PATH", "control socket of the daemon"},
	{0},
};

static int option_width(const struct cli_option *option)
{
	return (int)(strlen(option->name) + (option->value ? 1 + strlen(option->value) : 0));
}

static int options_width(const struct cli_option *option)
{
	int width = 0;

	for (; option->name; option++)
		if (option_width(option) > width)
			width = option_width(option);
	return width;
}

static void help_options(FILE *out, const struct cli_option *option, int width)
{
	for (; option->name; option++)
		fprintf(out, "  %s%s%s%*s   %s\n", option->name, option->value ? " " : "", option->value ? option->value : "",
			width - option_width(option), "", option->help);
}

static void help_command(FILE *out, const struct cli_command *command)
{
	int own = options_width(command->options), common = options_width(common_options);
	int width = own > common ? own : common;
	char usage[USAGE_SIZE];

	fprintf(out, "Usage: %s\n\n%c%s.\n\nOptions\n", usage_of(command, usage), command->help[0] - 'a' + 'A',
		command->help + 1);
	help_options(out, command->options, width);
	help_options(out, common_options, width);
	fprintf(out, "\nExample\n  %s\n", command->example);
}

/* ---- finding the command ---- */

static const struct cli_command *find_command(const char *first, const char *second)
{
	const struct cli_command *command;
	size_t len = strlen(first);

	for (command = cli_commands; command->name; command++) {
		if (!strcmp(command->name, first))
			return command;
		if (second && !strncmp(command->name, first, len) && command->name[len] == ' ' &&
			!strcmp(command->name + len + 1, second))
			return command;
	}
	return NULL;
}

/* "ls, create, rm, inspect" for "network"; false when no command begins so. */
static bool list_subcommands(const char *first, char *buf, size_t size)
{
	const struct cli_command *command;
	size_t len = strlen(first), at = 0;

	for (command = cli_commands; command->name; command++)
		if (!strncmp(command->name, first, len) && command->name[len] == ' ' && at < size)
			at += snprintf(buf + at, size - at, "%s%s", at ? ", " : "", command->name + len + 1);
	return at > 0;
}

static int unknown_command(const struct cli *cli, const char *first, const char *second)
{
	char list[256];

	if (list_subcommands(first, list, sizeof list)) {
		if (second)
			return cli_complain(cli, CLI_CANNOT_TELL, "%s: expected one of %s, found \"%s\"", first, list, second);
		return cli_complain(cli, CLI_CANNOT_TELL, "%s: expected one of %s behind it", first, list);
	}
	return cli_complain(cli, CLI_CANNOT_TELL, "\"%s\" is no command: `trestle --help` lists them", first);
}

/* `network --help` shows all that begin so. */
static int help_prefix(FILE *out, const char *first)
{
	const struct cli_command *command;
	size_t len = strlen(first);
	bool found = false;

	for (command = cli_commands; command->name; command++) {
		if (strncmp(command->name, first, len) || command->name[len] != ' ')
			continue;
		if (found)
			fputc('\n', out);
		help_command(out, command);
		found = true;
	}
	return found ? CLI_FINE : CLI_CANNOT_TELL;
}

int cli_run_help(struct cli *cli)
{
	const char *first = cli->arg_count > 0 ? cli->args[0] : NULL, *second = cli->arg_count > 1 ? cli->args[1] : NULL;
	const struct cli_command *command;

	if (!first) {
		help(cli->out);
		return CLI_FINE;
	}
	command = find_command(first, second);
	if (command) {
		help_command(cli->out, command);
		return CLI_FINE;
	}
	if (!second && help_prefix(cli->out, first) == CLI_FINE)
		return CLI_FINE;
	return unknown_command(cli, first, second);
}

/* ---- options ---- */

/* Value of the option `name` at argv[*i]: behind "=" or the next word. 1 found, 0 another word, -1 the value is missing. */
static int take_value(int argc, char *const argv[], int *i, const char *name, const char **ret_value)
{
	size_t len = strlen(name);

	if (strncmp(argv[*i], name, len) || (argv[*i][len] && argv[*i][len] != '='))
		return 0;
	if (argv[*i][len] == '=') {
		*ret_value = argv[*i] + len + 1;
		return 1;
	}
	if (*i + 1 >= argc)
		return -1;
	*ret_value = argv[++*i];
	return 1;
}

/* Options of every command. 1 taken, 0 not one of them, -1 complained. */
static int take_common(struct cli *cli, int argc, char *const argv[], int *i)
{
	const char *output = NULL;
	int rc;

	if (!strcmp(argv[*i], "--help") || !strcmp(argv[*i], "-h")) {
		cli->help = true;
		return 1;
	}
	rc = take_value(argc, argv, i, "--socket", &cli->socket);
	if (rc < 0)
		cli_complain(cli, 0, "--socket: expected a path behind it");
	if (rc)
		return rc;
	rc = take_value(argc, argv, i, "-o", &output);
	if (rc < 0 || (rc && strcmp(output, "json") && strcmp(output, "table"))) {
		cli_complain(cli, 0, "-o: expected json or table, found %s%s%s", output ? "\"" : "nothing", output ? output : "",
			output ? "\"" : "");
		return -1;
	}
	if (rc)
		cli->json = !strcmp(output, "json");
	return rc;
}

static int take_own(struct cli *cli, int argc, char *const argv[], int *i)
{
	const struct cli_option *option = cli->command->options;
	int k, rc;

	for (k = 0; option[k].name; k++) {
		if (!option[k].value) {
			if (strcmp(argv[*i], option[k].name))
				continue;
			cli->options[k] = "";
			return 1;
		}
		rc = take_value(argc, argv, i, option[k].name, &cli->options[k]);
		if (rc < 0)
			cli_complain(cli, 0, "%s: expected %s behind it", option[k].name, option[k].value);
		if (rc)
			return rc;
	}
	return 0;
}

static bool is_option(const char *word)
{
	return word[0] == '-' && word[1];
}

/* Takes the words behind the command. */
static int parse_rest(struct cli *cli, int argc, char *const argv[], int i)
{
	bool only_args = false;
	char usage[USAGE_SIZE];
	int rc;

	for (; i < argc; i++) {
		if (!only_args && !strcmp(argv[i], "--")) {
			only_args = true;
			continue;
		}
		rc = only_args ? 0 : take_common(cli, argc, argv, &i);
		if (!rc && !only_args)
			rc = take_own(cli, argc, argv, &i);
		if (rc < 0)
			return -1;
		if (rc)
			continue;
		if (!only_args && is_option(argv[i])) {
			cli_complain(cli, 0, "%s has no option %s: `trestle %s --help` lists them", cli->command->name, argv[i],
				cli->command->name);
			return -1;
		}
		if (cli->arg_count == cli->command->args_max) {
			cli_complain(cli, 0, "%s: \"%s\" is one argument too many: usage is `%s`", cli->command->name, argv[i],
				usage_of(cli->command, usage));
			return -1;
		}
		cli->args[cli->arg_count++] = argv[i];
	}
	if (cli->help || cli->arg_count >= cli->command->args_min)
		return 0;
	cli_complain(
		cli, 0, "%s: expected %s: usage is `%s`", cli->command->name, cli->command->args, usage_of(cli->command, usage));
	return -1;
}

static int run_command(struct cli *cli, int argc, char *const argv[], int i)
{
	const char *first = argv[i], *second = i + 1 < argc && !is_option(argv[i + 1]) ? argv[i + 1] : NULL;
	int status;

	cli->command = find_command(first, second);
	if (!cli->command) {
		for (; i < argc; i++)
			if (!second && (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) &&
				help_prefix(cli->out, first) == CLI_FINE)
				return CLI_FINE;
		return unknown_command(cli, first, second);
	}
	if (parse_rest(cli, argc, argv, i + (strchr(cli->command->name, ' ') ? 2 : 1)) < 0)
		return CLI_CANNOT_TELL;
	if (cli->help) {
		help_command(cli->out, cli->command);
		return CLI_FINE;
	}
	status = cli->command->run(cli);
	if (fflush(cli->out) || ferror(cli->out))
		return cli_complain(cli, CLI_CANNOT_TELL, "the output could not be written");
	return status;
}

int cli_run(int argc, char *const argv[], FILE *in, FILE *out, FILE *err)
{
	struct cli cli = {.in = in, .out = out, .err = err};
	const char *socket = getenv("TRESTLE_SOCKET");
	int i, rc;

	cli.socket = socket && *socket ? socket : CONTROL_SOCKET_DEFAULT;
	if (!json_text_valid(cli.socket))
		return cli_complain(&cli, CLI_CANNOT_TELL, "TRESTLE_SOCKET: expected UTF-8 text, found \"%s\"", cli.socket);
	for (i = 1; i < argc; i++)
		if (!json_text_valid(argv[i]))
			return cli_complain(&cli, CLI_CANNOT_TELL, "argument %d: expected UTF-8 text, found \"%s\"", i, argv[i]);
	for (i = 1; i < argc && is_option(argv[i]); i++) {
		if (!strcmp(argv[i], "--version")) {
			fputs("trestle " TRESTLE_VERSION "\n", out);
			return CLI_FINE;
		}
		rc = take_common(&cli, argc, argv, &i);
		if (rc < 0)
			return CLI_CANNOT_TELL;
		if (!rc)
			return cli_complain(&cli, CLI_CANNOT_TELL, "%s is no option: `trestle --help` shows the usage", argv[i]);
	}
	if (i < argc)
		return run_command(&cli, argc, argv, i);
	help(cli.help ? out : err);
	return cli.help ? CLI_FINE : CLI_CANNOT_TELL;
}

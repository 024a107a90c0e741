/* Between cli.c (command line, help), commands.c (what each command asks and shows), cni_install.c (the plugin's files) and
 * uninstall.c. */
#ifndef CLI_CLI_INTERNAL_H
#define CLI_CLI_INTERNAL_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"
#include "cli/cli.h"

#define CLI_OPTIONS_MAX 12
#define CLI_ARGS_MAX 4
#define CLI_CNI_BIN_DIR "/opt/cni/bin"
#define CLI_CNI_CONF_DIR "/etc/cni/net.d"

struct cli_option {
	const char *name;  /* "--subnet" */
	const char *value; /* how the help calls it; NULL: a flag */
	const char *help;
};

struct cli;

struct cli_command {
	const char *group; /* heading in the help */
	const char *name;  /* one or two words */
	const char *args;  /* as in the usage line; "" none */
	int args_min, args_max;
	const char *help;
	const char *example;
	int (*run)(struct cli *cli);		    /* an enum cli_exit */
	struct cli_option options[CLI_OPTIONS_MAX]; /* ends with a NULL name */
};

struct cli {
	const struct cli_command *command;
	const char *socket;
	bool json;
	bool help;
	const char *args[CLI_ARGS_MAX];
	int arg_count;
	const char *options[CLI_OPTIONS_MAX]; /* value given, "" for a flag; NULL: not given */
	FILE *in, *out, *err;
};

extern const struct cli_command cli_commands[]; /* ends with a NULL name */

const char *cli_option(const struct cli *cli, const char *name); /* NULL: not given */
/* Where a file is whose path goes out from this program's directory; false: that cannot be told. */
bool cli_beside(char buf[PATH_MAX], const char *name);
/* "trestle: <sentence>" on the error stream. */
int cli_complain(const struct cli *cli, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int cli_run_help(struct cli *cli);
int cli_run_cni_install(struct cli *cli);
int cli_run_cni_uninstall(struct cli *cli);
int cli_cni_uninstall(struct cli *cli, const char *bin_dir, const char *conf_dir);
int cli_run_uninstall(struct cli *cli);

#endif

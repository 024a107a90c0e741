/* `trestle uninstall --purge`: what Trestle made on this host goes. The kernel's part and the state are trestled's business, who
 * knows the tags; it does that only where no trestled runs. The plugin's files are ours. */
#include "cli/cli_internal.h"

#include <errno.h>
#include <spawn.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/client.h"

#define ASK_TIMEOUT_MS 2000

/* Beside this program, as the build puts it, or as `make install` does. */
static bool find_daemon(char buf[PATH_MAX])
{
	return (cli_beside(buf, "trestled") && access(buf, X_OK) == 0) ||
	       (cli_beside(buf, "../sbin/trestled") && access(buf, X_OK) == 0);
}

static int run_purge(struct cli *cli)
{
	const char *config = cli_option(cli, "--config"), *given = cli_option(cli, "--daemon");
	char path[PATH_MAX], *argv[5] = {path, (char *)"--purge"};
	int status, error;
	pid_t pid;

	if (given)
		snprintf(path, sizeof path, "%s", given);
	else if (!find_daemon(path))
		return cli_complain(cli, -1, "trestled is not beside this program: say where it is with --daemon FILE");
	if (config) {
		argv[2] = (char *)"--config";
		argv[3] = (char *)(uintptr_t)config;
	}
	fflush(cli->out);
	error = posix_spawn(&pid, path, NULL, NULL, argv, environ);
	if (error)
		return cli_complain(cli, -1, "run %s: %s", path, strerror(error));
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return cli_complain(cli, -1, "wait for %s: %s", path, strerror(errno));
	return WIFEXITED(status) && WEXITSTATUS(status) == 0
		       ? 0
		       : cli_complain(cli, -1, "%s --purge did not end well: nothing else is done", path);
}

int cli_run_uninstall(struct cli *cli)
{
	struct err err;
	json_t *answer;

	if (!cli_option(cli, "--purge"))
		return cli_complain(cli, CLI_CANNOT_TELL,
			"uninstall: expected --purge. The programs themselves are removed by what installed them (`make "
			"uninstall`)");
	answer = client_call(cli->socket, "GET", "/v1/status", NULL, ASK_TIMEOUT_MS, &err);
	json_decref(answer);
	if (answer)
		return cli_complain(cli, CLI_PROBLEM,
			"trestled runs on this host: `trestle leave`, so that its addresses go to the others, then stop it "
			"(`systemctl disable --now trestled`) and say this again");
	if (run_purge(cli) < 0)
		return CLI_CANNOT_TELL;
	return cli_cni_uninstall(cli, CLI_CNI_BIN_DIR, CLI_CNI_CONF_DIR);
}

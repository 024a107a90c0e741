/* trestle: asks the daemon on this host. */
#include "cli/cli.h"

int main(int argc, char *argv[])
{
	return cli_run(argc, argv, stdin, stdout, stderr);
}

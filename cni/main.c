/* trestle-cni: the CNI plugin, installed as /opt/cni/bin/trestle. */
#include <signal.h>
#include <unistd.h>

#include "cni/cni.h"

/* By this line what(1) and `trestle cni install` know the plugin from a file of somebody else. */
static const char mark[] __attribute__((used)) = "@(#)trestle-cni " TRESTLE_VERSION;

int main(int argc, char *argv[])
{
	struct cni_streams streams = {
		.program = argc > 0 ? argv[0] : "trestle", .envp = environ, .in = STDIN_FILENO, .out = stdout, .log = stderr};

	/* A runtime that went away is an error of the write, not the end of us in the middle of taking things back. */
	signal(SIGPIPE, SIG_IGN);
	return cni_run(&streams);
}

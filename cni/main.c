/* trestle-cni: the CNI plugin, installed as /opt/cni/bin/trestle. */
#include <jansson.h>
#include <signal.h>
#include <stdint.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "cni/cni.h"

/* By this line what(1) and `trestle cni install` know the plugin from a file of somebody else. */
static const char mark[] __attribute__((used)) = "@(#)trestle-cni " TRESTLE_VERSION;

int main(int argc, char *argv[])
{
	struct cni_streams streams = {
		.program = argc > 0 ? argv[0] : "trestle", .envp = environ, .in = STDIN_FILENO, .out = stdout, .log = stderr};

	/* jansson would open /dev/urandom to seed its tables; the kernel has handed 16 random bytes to this process already. */
	json_object_seed(*(const uint32_t *)getauxval(AT_RANDOM));
	/* A runtime that went away is an error of the write, not the end of us in the middle of taking things back. */
	signal(SIGPIPE, SIG_IGN);
	return cni_run(&streams);
}

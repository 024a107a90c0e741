/* The `trestle` command. The API's answer is the model; view.h writes it as a table or as JSON. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdio.h>

enum cli_exit {
	CLI_FINE = 0,
	CLI_PROBLEM = 1,     /* the answer is there, and something in it wants attention; or the daemon refused */
	CLI_CANNOT_TELL = 2, /* no daemon, no answer, bad usage */
};

/* Runs one command line, argv[0] included. The streams stay the caller's. Returns the exit status. */
int cli_run(int argc, char *const argv[], FILE *in, FILE *out, FILE *err);

#endif

/* trestle-cni: one run of the plugin, from environment and standard input to what it prints and its exit status.
 *
 * The plugin is started for each operation, checks everything that can be wrong with the request itself, makes one call to the
 * daemon and prints the result in the form of the version that was asked for. All state is the daemon's. */
#ifndef CNI_CNI_H
#define CNI_CNI_H

#include <stddef.h>
#include <stdio.h>

/* What the runtime hands to a plugin. Set but empty is missing. */
struct cni_streams {
	const char *program; /* argv[0]: a network whose type is another plugin's makes us an IPAM plugin */
	char *const *envp;
	int in;		 /* the configuration, read to its end */
	FILE *out, *log; /* the result or the error object and nothing else; remarks for people */
};

/* Exit status: 0, or 1 with one error object on `out`. */
int cni_run(const struct cni_streams *streams);

#endif

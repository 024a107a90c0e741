/* trestled: one per host. Reads the options, starts the node, runs the loop until told to end. */
#include <errno.h>
#include <event2/event.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/version.h"
#include "daemon/node_internal.h"
#include "daemon/purge.h"
#include "driver/vxlan/vxlan.h"

static void on_signal(evutil_socket_t signal_number, short what, void *arg)
{
	(void)what;
	log_info("main", "%s: ending; what is in the kernel stays and carries traffic", strsignal((int)signal_number));
	event_base_loopbreak(arg);
}

static void on_fatal(int code)
{
	log_error("main", "libevent failed with code %d", code);
	abort();
}

/* Keys are in memory: no core file unless somebody asks for one. */
static void limit_process(void)
{
	struct rlimit files = {.rlim_cur = 65536, .rlim_max = 65536}, core = {0};

	mallopt(M_ARENA_MAX, 1); /* the worker's jobs are few: a heap of its own is not worth its pages */
	setrlimit(RLIMIT_NOFILE, &files);
	setrlimit(RLIMIT_CORE, &core);
	signal(SIGPIPE, SIG_IGN);
}

/* The kernel does not say which right it missed, and is seldom refused to root. */
static const char *missing_rights(const struct err *err)
{
	if (err->sys_errno == EPERM)
		return " (trestled needs CAP_NET_ADMIN and CAP_SYS_ADMIN: run it as root, in a container with these)";
	return err->sys_errno == EACCES ? " (run trestled as root)" : "";
}

static int run(const struct options *options)
{
	struct event_base *base = event_base_new();
	struct event *term, *interrupt;
	struct node *node = calloc(1, sizeof(*node));
	struct err err = {0};
	int status = 0;

	if (!base || !node)
		return 1;
	term = evsignal_new(base, SIGTERM, on_signal, base);
	interrupt = evsignal_new(base, SIGINT, on_signal, base);
	if (!term || !interrupt || event_add(term, NULL) < 0 || event_add(interrupt, NULL) < 0)
		return 1;
	if (node_start(node, options, base, &err) < 0) {
		log_error("main", "%s%s", err.text, missing_rights(&err));
		status = 1;
	} else {
		log_info("main", "trestled %s serves host %s", TRESTLE_VERSION, options->name);
		event_base_dispatch(base);
		status = node->failed;
	}
	node_stop(node);
	event_free(term);
	event_free(interrupt);
	event_base_free(base);
	free(node);
	return status;
}

static int prepare(const struct options *options)
{
	struct err err = {0};

	if (vxlan_prepare(options->fabric, &err) == 0)
		return 0;
	fprintf(stderr, "trestled: %s\n", err.text);
	return 1;
}

static int purge(const struct options *options)
{
	struct err err = {0};

	if (purge_host(options, &err) < 0) {
		fprintf(stderr, "trestled: %s\n", err.text);
		return 1;
	}
	printf("links, filters, routes, %s and %s are gone. Hosts of its cluster, if it did not say `trestle leave`, need "
	       "`trestle forget`.\n",
		options->state_dir, options->run_dir);
	return 0;
}

int main(int argc, char **argv)
{
	static struct options options;
	struct err err = {0};

	if (options_read(&options, argc, argv, &err) < 0) {
		fprintf(stderr, "trestled: %s\n", err.text);
		return 2;
	}
	if (options.help) {
		options_help();
		return 0;
	}
	if (options.version) {
		printf("trestled %s\n", TRESTLE_VERSION);
		return 0;
	}
	if (options.prepare)
		return prepare(&options);
	if (options.purge)
		return purge(&options);
	log_set_level(options.log_level);
	event_set_fatal_callback(on_fatal);
	limit_process();
	return run(&options);
}

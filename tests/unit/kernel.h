/* What unit tests against the real kernel share: network namespaces of a child process, with which they go however it ends. */
#ifndef TESTS_UNIT_KERNEL_H
#define TESTS_UNIT_KERNEL_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"

static const char *skip_reason; /* set before the tests run: all of them are skipped then */

#define REQUIRE_KERNEL()                                                                                                         \
	do {                                                                                                                     \
		if (skip_reason) {                                                                                               \
			print_message("skipped: %s\n", skip_reason);                                                             \
			skip();                                                                                                  \
		}                                                                                                                \
	} while (0)

/* A call whose last argument is `&err`. */
#define OK(call)                                                                                                                 \
	do {                                                                                                                     \
		struct err err = {0};                                                                                            \
		if ((call) < 0)                                                                                                  \
			fail_msg("%s: %s", #call, err.text);                                                                     \
	} while (0)

static inline void enter(int ns)
{
	if (setns(ns, CLONE_NEWNET) < 0)
		fail_msg("setns: %s", strerror(errno));
}

/* The caller is in it then. -1: there is none to be had. */
static inline int new_ns(void)
{
	int fd;

	if (unshare(CLONE_NEWNET) < 0)
		return -1;
	fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	return fd >= 0 && system("ip link set lo up") == 0 ? fd : -1;
}

/* Runs a command in a namespace, where the caller stays, and returns its exit status. */
static inline int shell(int ns, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static inline int shell(int ns, const char *fmt, ...)
{
	char command[512];
	va_list ap;
	int status;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	enter(ns);
	status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define RUN(ns, ...) assert_int_equal(shell(ns, __VA_ARGS__), 0)

/* For main: the exit status of `tests`, which returns how many failed, in a child. */
static inline int in_child(int (*tests)(void))
{
	pid_t child = fork();
	int status;

	if (child == 0)
		exit(tests() ? 1 : 0);
	if (child < 0 || waitpid(child, &status, 0) != child)
		return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

#endif

/* Ends a process by SIGKILL between two of its system calls, at a place that can be named and so be swept.
 *
 *	killat N PROGRAM      starts the program; its status, or 137 when it was killed
 *	killat N -p PID       takes a running process with all its threads, says "ready"; 0 when it was killed
 *
 * N counts the system calls that the process is about to make, of all its threads together; the N-th is not made. 0: never. When
 *a running process is not to be killed any more, SIGTERM lets it go (status 1). The last line on standard error says how many
 *calls were seen. By ptrace(2), so that nothing in the process has to know. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/number.h"

#define OPTIONS (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC)
#define SYSCALL_STOP (SIGTRAP | 0x80)

static pid_t target;
static uint64_t limit, seen;
static volatile sig_atomic_t killed;

static void die(const char *what)
{
	fprintf(stderr, "killat: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* The kernel lets what is traced go on when its tracer ends. */
static void on_term(int signum)
{
	char digits[24], *at = digits + sizeof(digits);

	(void)signum;
	*--at = '\n';
	do
		*--at = (char)('0' + seen % 10);
	while (seen /= 10);
	if (write(STDERR_FILENO, at, (size_t)(digits + sizeof(digits) - at)) < 0)
		_exit(2);
	_exit(killed ? 0 : 1);
}

/* Each call stops its thread twice, before and behind it. */
static bool is_entry(pid_t tid)
{
	struct __ptrace_syscall_info info;

	return ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info) > 0 && info.op == PTRACE_SYSCALL_INFO_ENTRY;
}

static void count(pid_t tid)
{
	if (!is_entry(tid) || ++seen != limit)
		return;
	killed = 1;
	kill(target, SIGKILL);
}

/* Of a stopped thread: what it is to be given when it goes on. */
static int look(pid_t tid, int status)
{
	int signum = WSTOPSIG(status), event = status >> 16;

	if (signum == SYSCALL_STOP) {
		count(tid);
		return 0;
	}
	if (event == PTRACE_EVENT_STOP && signum != SIGTRAP) { /* a stop by job control: it stays stopped */
		ptrace(PTRACE_LISTEN, tid, 0, 0);
		return -1;
	}
	return event ? 0 : signum;
}

/* Until the process has ended. Its wait status. */
static int follow(void)
{
	for (;;) {
		int status, signum;
		pid_t tid = waitpid(-1, &status, __WALL);

		if (tid < 0 && errno == EINTR)
			continue;
		if (tid < 0)
			return SIGKILL; /* another's child, collected by its parent */
		if (WIFSTOPPED(status)) {
			signum = look(tid, status);
			if (signum >= 0)
				ptrace(PTRACE_SYSCALL, tid, 0, signum);
		} else if (tid == target) {
			return status;
		}
	}
}

static void start(char **argv)
{
	int status;

	target = fork();
	if (target < 0)
		die("fork");
	if (target == 0) {
		raise(SIGSTOP);
		execv(argv[0], argv);
		die(argv[0]);
	}
	if (waitpid(target, &status, WUNTRACED) < 0 || ptrace(PTRACE_SEIZE, target, 0, OPTIONS) < 0)
		die("trace");
	kill(target, SIGCONT);
	/* From the exec on, so that what is counted is the program's. */
	while (waitpid(target, &status, __WALL) == target && WIFSTOPPED(status) && status >> 16 != PTRACE_EVENT_EXEC)
		ptrace(PTRACE_CONT, target, 0, status >> 16 || WSTOPSIG(status) == SIGCONT ? 0 : WSTOPSIG(status));
	ptrace(PTRACE_SYSCALL, target, 0, 0);
}

static void take(const char *pid)
{
	char path[64];
	struct dirent *entry;
	uint64_t number;
	DIR *d;

	if (number_parse(pid, 1, INT32_MAX, &number) < 0)
		die("process id");
	target = (pid_t)number;
	snprintf(path, sizeof(path), "/proc/%d/task", (int)target);
	d = opendir(path);
	if (!d)
		die(path);
	/* Those that a thread makes from here on are traced with it. */
	while ((entry = readdir(d))) {
		pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);

		if (tid <= 0)
			continue;
		if (ptrace(PTRACE_SEIZE, tid, 0, OPTIONS) == 0 && ptrace(PTRACE_INTERRUPT, tid, 0, 0) == 0)
			continue;
		if (errno != ESRCH || tid == target) /* any other thread may have ended meanwhile */
			die("trace");
	}
	closedir(d);
	printf("ready\n");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct sigaction term = {.sa_handler = on_term};
	int status;

	if (argc < 3 || number_parse(argv[1], 0, INT32_MAX, &limit) < 0) {
		fprintf(stderr, "usage: killat N PROGRAM ARGS... | killat N -p PID\n");
		return 2;
	}
	sigaction(SIGTERM, &term, NULL);
	if (argc == 4 && strcmp(argv[2], "-p") == 0)
		take(argv[3]);
	else
		start(argv + 2);
	status = follow();
	fprintf(stderr, "%llu\n", (unsigned long long)seen);
	if (argc == 4 && strcmp(argv[2], "-p") == 0)
		return killed ? 0 : 1;
	return killed ? 137 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* A runtime's hand: starts a CNI plugin as a process of its own and says how long it took, without the weight of a script around
 *it.
 *
 *	cnirun PLUGIN CONFIG-FILE CNI_PATH
 *
 * Stands in the host's namespaces. Standard input has rounds: a line with a number N, then N lines "VERB CONTAINER NETNS IFNAME".
 * The N plugins of a round are started at once. Standard output answers with a line for the round, its nanoseconds from the first
 * start to the last end, and one for each plugin in the order given: "STATUS NANOSECONDS CPU-MICROSECONDS", where the CPU time is
 * the plugin's and that of its children. What a plugin that failed has printed follows on its line. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUND_MAX 256
#define SAID_MAX 1024

struct operation {
	char verb[16], container[64], netns[256], ifname[16];
	pid_t pid;
	int out;
	uint64_t began_ns, took_ns;
	long cpu_us;
	int status;
};

static const char *plugin, *config, *path;

static void die(const char *what)
{
	fprintf(stderr, "cnirun: %s: %s\n", what, strerror(errno));
	exit(2);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static long cpu_us(const struct rusage *used)
{
	return (used->ru_utime.tv_sec + used->ru_stime.tv_sec) * 1000000L + used->ru_utime.tv_usec + used->ru_stime.tv_usec;
}

static void start(struct operation *op)
{
	static char search[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
	char command[32], container[96], netns[288], ifname[48], dirs[512];
	char *envp[] = {command, container, netns, ifname, dirs, search, NULL};
	char *argv[] = {(char *)(uintptr_t)plugin, NULL};
	posix_spawn_file_actions_t actions;

	snprintf(command, sizeof(command), "CNI_COMMAND=%s", op->verb);
	snprintf(container, sizeof(container), "CNI_CONTAINERID=%s", op->container);
	snprintf(netns, sizeof(netns), "CNI_NETNS=%s", op->netns);
	snprintf(ifname, sizeof(ifname), "CNI_IFNAME=%s", op->ifname);
	snprintf(dirs, sizeof(dirs), "CNI_PATH=%s", path);
	op->out = memfd_create("said", MFD_CLOEXEC);
	if (op->out < 0)
		die("memfd");
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, config, O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, op->out, STDOUT_FILENO);
	op->began_ns = now_ns();
	errno = posix_spawn(&op->pid, plugin, &actions, NULL, argv, envp);
	if (errno)
		die(plugin);
	posix_spawn_file_actions_destroy(&actions);
}

static void finish(struct operation *ops, unsigned count)
{
	struct rusage used;
	int status;
	pid_t pid = wait4(-1, &status, 0, &used);
	uint64_t end_ns = now_ns();

	if (pid < 0)
		die("wait");
	for (unsigned i = 0; i < count; i++) {
		if (ops[i].pid != pid)
			continue;
		ops[i].took_ns = end_ns - ops[i].began_ns;
		ops[i].cpu_us = cpu_us(&used);
		ops[i].status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
}

static void tell(struct operation *op)
{
	char said[SAID_MAX] = "";
	ssize_t n = op->status ? pread(op->out, said, sizeof(said) - 1, 0) : 0;

	for (ssize_t i = 0; i < n; i++)
		if (said[i] == '\n')
			said[i] = ' ';
	printf("%d %llu %ld %s\n", op->status, (unsigned long long)op->took_ns, op->cpu_us, said);
	close(op->out);
}

static void run(struct operation *ops, unsigned count)
{
	uint64_t began_ns = now_ns(), took_ns;

	for (unsigned i = 0; i < count; i++)
		start(&ops[i]);
	for (unsigned i = 0; i < count; i++)
		finish(ops, count);
	took_ns = now_ns() - began_ns;
	printf("%llu\n", (unsigned long long)took_ns);
	for (unsigned i = 0; i < count; i++)
		tell(&ops[i]);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static struct operation ops[ROUND_MAX];
	unsigned count;

	if (argc != 4) {
		fprintf(stderr, "usage: cnirun PLUGIN CONFIG-FILE CNI_PATH\n");
		return 2;
	}
	plugin = argv[1];
	config = argv[2];
	path = argv[3];
	while (scanf("%u", &count) == 1) {
		if (count == 0 || count > ROUND_MAX) {
			fprintf(stderr, "cnirun: a round has 1 to %d plugins, not %u\n", ROUND_MAX, count);
			return 2;
		}
		for (unsigned i = 0; i < count; i++)
			if (scanf("%15s %63s %255s %15s", ops[i].verb, ops[i].container, ops[i].netns, ops[i].ifname) != 4)
				return 2;
		run(ops, count);
	}
	return 0;
}

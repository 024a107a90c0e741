/* Other IPAM plugins, run as the specification says: same environment but for CNI_COMMAND, the whole configuration on stdin,
 * their log on our log.
 *
 * Their stdin is a memfd and not a pipe: a plugin that answers before it has read everything, or reads nothing, cannot stop us.
 */
#include "cni/cni_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"

#define ANSWER_MAX (1024 * 1024)
#define PATIENCE_MS 120000

static int find(const char *name, const char *dirs, char ret_path[PATH_MAX], struct cni_error *e)
{
	const char *dir = dirs;

	if (!dirs)
		return cni_fail(e, CNI_ENVIRONMENT,
			"required env variables [CNI_PATH] missing: the IPAM plugin %s is looked for there", name);
	while (*dir) {
		size_t len = strcspn(dir, ":");
		struct stat st;
		int n = snprintf(ret_path, PATH_MAX, "%.*s/%s", len < PATH_MAX ? (int)len : 0, dir, name);

		if (len && n > 0 && n < PATH_MAX && stat(ret_path, &st) == 0 && S_ISREG(st.st_mode))
			return 0;
		dir += len + (dir[len] == ':');
	}
	return cni_fail(e, CNI_DELEGATE, "ipam.type: there is no plugin %s in CNI_PATH %.300s", name, dirs);
}

/* Our environment with the command put in. The array is the caller's to free, the texts are not copied. */
static char **environment(char *const *envp, char *command)
{
	size_t count = 0, n = 0;
	char **copy;

	while (envp[count])
		count++;
	copy = alloc_array(char *, count + 2);
	for (size_t i = 0; i < count; i++)
		if (strncmp(envp[i], "CNI_COMMAND=", 12) != 0)
			copy[n++] = envp[i];
	copy[n] = command;
	return copy;
}

static int stdin_of(const struct cni_input *input, struct err *err)
{
	int fd = memfd_create("cni-config", MFD_CLOEXEC);
	size_t done = 0;

	if (fd < 0)
		return err_sys(err, errno, "stdin for the IPAM plugin");
	while (done < input->len) {
		ssize_t n = write(fd, input->text + done, input->len - done);

		if (n < 0) {
			err_sys(err, errno, "stdin for the IPAM plugin");
			close(fd);
			return -1;
		}
		done += (size_t)n;
	}
	if (lseek(fd, 0, SEEK_SET) < 0) {
		err_sys(err, errno, "stdin for the IPAM plugin");
		close(fd);
		return -1;
	}
	return fd;
}

static int start(const char *path, char **envp, int in, int out, pid_t *ret_pid, struct err *err)
{
	char *argv[] = {(char *)(uintptr_t)path, NULL};
	posix_spawn_file_actions_t actions;
	int rc;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	rc = posix_spawn(ret_pid, path, &actions, NULL, argv, envp);
	posix_spawn_file_actions_destroy(&actions);
	return rc ? err_sys(err, rc, "run %s", path) : 0;
}

/* Reads to the end, at most `size` - 1 bytes. */
static int read_answer(int fd, char *buf, size_t size, size_t *ret_len, struct err *err)
{
	uint64_t deadline_ms = clock_boot_ms() + PATIENCE_MS;
	size_t len = 0;

	for (;;) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		uint64_t now_ms = clock_boot_ms();
		ssize_t n;

		if (now_ms >= deadline_ms || poll(&pfd, 1, (int)(deadline_ms - now_ms)) == 0)
			return err_set(err, ERR_UNREACHABLE, "no answer within %d s", PATIENCE_MS / 1000);
		n = read(fd, buf + len, size - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, errno, "read its answer");
		if (n == 0)
			break;
		len += (size_t)n;
		if (len == size - 1)
			return err_set(err, ERR_TOO_BIG, "an answer of more than %zu bytes", size - 2);
	}
	buf[len] = '\0';
	*ret_len = len;
	return 0;
}

/* Runs the plugin and collects what it prints. ret_status is its wait status. */
static int run(const struct cni_input *input, const char *path, char *command, char *buf, size_t *ret_len, int *ret_status,
	struct err *err)
{
	char **envp = environment(input->streams->envp, command);
	int in = stdin_of(input, err), out[2] = {-1, -1}, ret = -1;
	pid_t pid = -1;

	if (in >= 0 && pipe2(out, O_CLOEXEC) < 0)
		err_sys(err, errno, "pipe for the IPAM plugin");
	else if (in >= 0)
		ret = start(path, envp, in, out[1], &pid, err);
	free(envp);
	if (in >= 0)
		close(in);
	if (out[1] >= 0)
		close(out[1]);
	if (ret == 0) {
		ret = read_answer(out[0], buf, ANSWER_MAX, ret_len, err);
		if (ret < 0)
			kill(pid, SIGKILL);
		while (waitpid(pid, ret_status, 0) < 0 && errno == EINTR)
			;
	}
	if (out[0] >= 0)
		close(out[0]);
	return ret;
}

/* The plugin's own error object becomes ours. */
static int refused(const char *name, const char *command, int status, const char *text, size_t len, struct cni_error *e)
{
	json_t *object = cni_json_load(text, len, "answer", NULL);
	const char *msg = json_string_value(json_object_get(object, "msg"));
	const char *details = json_string_value(json_object_get(object, "details"));
	json_int_t code = json_integer_value(json_object_get(object, "code"));

	if (msg && code > 0 && code <= 0xffffff)
		cni_fail(e, (unsigned)code, "IPAM plugin %s, %s: %s", name, command, msg);
	else if (WIFSIGNALED(status))
		cni_fail(e, CNI_DELEGATE, "IPAM plugin %s, %s: ended by signal %d", name, command, WTERMSIG(status));
	else
		cni_fail(e, CNI_DELEGATE, "IPAM plugin %s, %s: exit status %d without a reason", name, command,
			WEXITSTATUS(status));
	if (details)
		cni_details(e, "%s", details);
	json_decref(object);
	return -1;
}

static int take_answer(const char *name, const char *text, size_t len, json_t **ret_answer, struct cni_error *e)
{
	struct err err;
	json_t *answer = cni_json_load(text, len, "answer", &err);

	if (!answer)
		return cni_fail(e, CNI_DELEGATE, "IPAM plugin %s: %s", name, err.text);
	if (!json_is_object(answer)) {
		json_decref(answer);
		return cni_fail(e, CNI_DELEGATE, "IPAM plugin %s: expected an object", name);
	}
	*ret_answer = answer;
	return 0;
}

int cni_delegate(const struct cni_input *input, const char *command, json_t **ret_answer, struct cni_error *e)
{
	const char *name = input->config.delegate;
	char path[PATH_MAX], variable[32], *buf;
	int status = 0, ret;
	struct err err;
	size_t len = 0;

	if (find(name, input->env.path, path, e) < 0)
		return -1;
	snprintf(variable, sizeof(variable), "CNI_COMMAND=%s", command);
	buf = alloc_array(char, ANSWER_MAX);
	if (run(input, path, variable, buf, &len, &status, &err) < 0)
		ret = cni_fail(e, CNI_DELEGATE, "IPAM plugin %s, %s: %s", name, command, err.text);
	else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		ret = refused(name, command, status, buf, len, e);
	else
		ret = ret_answer ? take_answer(name, buf, len, ret_answer, e) : 0;
	free(buf);
	return ret;
}

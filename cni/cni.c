/* One run: environment, stdin, version, verb, in the order in which the Go library refuses, so that a mistake has the same code
 * here as with every other plugin. */
#include "cni/cni.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/json_text.h"
#include "base/clock.h"
#include "cni/cni_internal.h"

#define VERSION_WAIT_MS 250 /* some callers of VERSION leave stdin open and write nothing */

/* ---- stdin ---- */

static bool wait_for_input(int fd, uint64_t deadline_ms)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	uint64_t now_ms = clock_boot_ms();

	return !deadline_ms || (now_ms < deadline_ms && poll(&pfd, 1, (int)(deadline_ms - now_ms)) > 0);
}

/* To the end, or to the deadline (0: none). */
static int read_input(int fd, uint64_t deadline_ms, char **ret_text, size_t *ret_len, struct cni_error *e)
{
	size_t len = 0, capacity = 8192;
	char *text = alloc_array(char, capacity + 1);
	ssize_t n = 0;

	while (len <= CNI_STDIN_MAX && wait_for_input(fd, deadline_ms)) {
		n = read(fd, text + len, capacity - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
		if (len == capacity) {
			capacity *= 2;
			text = alloc_resize(text, char, capacity + 1);
		}
	}
	if (n < 0 || len > CNI_STDIN_MAX) {
		int error = errno;

		free(text);
		return n < 0 ? cni_fail(e, CNI_IO, "read the network configuration from stdin: %s", strerror(error))
			     : cni_fail(e, CNI_DECODE, "network configuration: expected at most %u bytes, found more",
				       CNI_STDIN_MAX);
	}
	text[len] = '\0';
	*ret_text = text;
	*ret_len = len;
	return 0;
}

/* ---- VERSION ---- */

static json_t *version_answer(const struct cni_streams *streams)
{
	struct cni_error ignored = {0};
	json_t *root = NULL, *answer = json_object(), *version;
	char *text;
	size_t len;

	if (read_input(streams->in, clock_boot_ms() + VERSION_WAIT_MS, &text, &len, &ignored) == 0) {
		root = cni_json_load(text, len, "stdin", NULL);
		free(text);
	}
	version = json_object_get(root, "cniVersion");
	if (json_string_length(version))
		json_object_set(answer, "cniVersion", version);
	else
		json_object_set_new(answer, "cniVersion", json_string(cni_version_name(CNI_1_1_0)));
	json_object_set_new(answer, "supportedVersions", cni_version_list());
	json_decref(root);
	return answer;
}

/* ---- versions ---- */

static const struct {
	enum cni_verb verb;
	unsigned since[3];
} since[] = {{CNI_CHECK, {0, 4, 0}}, {CNI_GC, {1, 1, 0}}, {CNI_STATUS, {1, 1, 0}}};

static int check_verb_in_version(const struct cni_input *input, struct cni_error *e)
{
	unsigned parts[3];

	for (size_t i = 0; i < sizeof(since) / sizeof(since[0]); i++) {
		if (since[i].verb != input->env.verb)
			continue;
		if (!cni_version_parse(input->config.version, parts))
			return cni_fail(e, CNI_DECODE, "network configuration: cniVersion: expected a version, found \"%.64s\"",
				input->config.version);
		if (memcmp(parts, since[i].since, sizeof(parts)) == 0)
			return 0;
		for (unsigned n = 0; n < 3; n++) {
			if (parts[n] > since[i].since[n])
				return 0;
			if (parts[n] < since[i].since[n])
				return cni_fail(e, CNI_VERSION, "config version does not allow %s: cniVersion is \"%.64s\"",
					input->env.command, input->config.version);
		}
	}
	return 0;
}

static int check_version(struct cni_input *input, struct cni_error *e)
{
	char supported[128] = "";

	if (check_verb_in_version(input, e) < 0)
		return -1;
	if (cni_version_find(input->config.version, &input->config.format))
		return 0;
	for (unsigned i = 0; i < CNI_VERSION_COUNT; i++) {
		size_t len = strlen(supported);

		snprintf(supported + len, sizeof(supported) - len, "%s\"%s\"", i ? ", " : "", cni_version_name(i));
	}
	cni_fail(e, CNI_VERSION, "incompatible CNI versions: cniVersion is \"%.64s\"", input->config.version);
	cni_details(e, "config is \"%.64s\", plugin supports [%s]", input->config.version, supported);
	return -1;
}

/* ---- verbs ---- */

static int dispatch(struct cni_input *input, json_t **ret_answer, struct cni_error *e)
{
	bool as_ipam;

	if (input->env.verb == CNI_DEL)
		cni_config_lenient(&input->config, input->streams->program);
	else if (cni_config_check(&input->config, input->streams->program, e) < 0)
		return -1;
	as_ipam = input->config.as_ipam;
	switch (input->env.verb) {
	case CNI_ADD:
		return as_ipam ? cni_ipam_add(input, ret_answer, e) : cni_do_add(input, ret_answer, e);
	case CNI_DEL:
		return as_ipam ? cni_ipam_del(input, e) : cni_do_del(input, e);
	case CNI_CHECK:
		return as_ipam ? cni_ipam_check(input, e) : cni_do_check(input, e);
	case CNI_GC:
		return cni_do_gc(input, e);
	default:
		return cni_do_status(input, e);
	}
}

static int run(struct cni_input *input, json_t **ret_answer, struct cni_error *e)
{
	if (cni_env_read(input->streams->envp, &input->env, e) < 0)
		return -1;
	if (input->env.verb == CNI_VERB_VERSION) {
		*ret_answer = version_answer(input->streams);
		return 0;
	}
	if (read_input(input->streams->in, 0, &input->text, &input->len, e) < 0 ||
		cni_config_parse(input->text, input->len, &input->config, e) < 0)
		return -1;
	if (input->env.verb == CNI_VERB_UNKNOWN)
		return cni_fail(e, CNI_ENVIRONMENT, "unknown CNI_COMMAND: %.200s", input->env.command);
	if (check_version(input, e) < 0)
		return -1;
	return dispatch(input, ret_answer, e);
}

static int print_answer(FILE *out, json_t *answer)
{
	char *text = json_print(answer, JSON_COMPACT);
	int ret;

	ret = fprintf(out, "%s\n", text) < 0 || fflush(out) == EOF ? -1 : 0;
	free(text);
	return ret;
}

static int about(FILE *log)
{
	fprintf(log,
		"trestle-cni %s: attaches containers to Trestle networks\nCNI protocol versions supported: ", TRESTLE_VERSION);
	for (unsigned i = 0; i < CNI_VERSION_COUNT; i++)
		fprintf(log, "%s%s", i ? ", " : "", cni_version_name(i));
	fputc('\n', log);
	return 0;
}

/* A result that the runtime never got is no attachment to it: taken back. */
static int finish_add(struct cni_input *input, json_t *answer)
{
	struct cni_error ignored = {0};

	if (print_answer(input->streams->out, answer) == 0)
		return 0;
	if (input->env.verb == CNI_ADD) {
		if (input->config.as_ipam)
			cni_ipam_del(input, &ignored);
		else
			cni_do_del(input, &ignored);
	}
	return 1;
}

int cni_run(const struct cni_streams *streams)
{
	struct cni_input input = {.streams = streams};
	struct cni_error e = {0};
	json_t *answer = NULL;
	int status = 0;

	if (!cni_env_get(streams->envp, "CNI_COMMAND"))
		return about(streams->log);
	if (run(&input, &answer, &e) < 0) {
		cni_print_error(streams->out, &e, input.config.version);
		status = 1;
	} else if (answer) {
		status = finish_add(&input, answer);
	}
	json_decref(answer);
	json_decref(input.config.root);
	free(input.text);
	return status;
}

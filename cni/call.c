/* Calls of the daemon, and what its errors are called in CNI. */
#include "cni/cni_internal.h"

#include <string.h>

#include "control/client.h"

/* How long a call may take. A runtime's own patience is minutes; STATUS is asked every few seconds. */
#define ADD_MS 60000
#define DEL_MS 30000
#define STATUS_MS 2000

static int timeout_of(enum cni_verb verb)
{
	switch (verb) {
	case CNI_STATUS:
		return STATUS_MS;
	case CNI_ADD:
	case CNI_GC:
		return ADD_MS;
	default:
		return DEL_MS;
	}
}

/* docs/api.md shows the same table. */
static unsigned code_of(enum cni_verb verb, enum err_code code)
{
	if (verb == CNI_STATUS)
		return code == ERR_SYSTEM ? CNI_LIMITED : CNI_NOT_READY;
	switch (code) {
	case ERR_INVALID:
	case ERR_TOO_BIG:
	case ERR_UNSUPPORTED:
		return CNI_CONFIG;
	case ERR_NOT_FOUND:
		return verb == CNI_CHECK ? CNI_UNKNOWN : CNI_CONFIG;
	case ERR_EXISTS:
		return CNI_ATTACHED;
	case ERR_CONFLICT:
		return verb == CNI_CHECK ? CNI_DIFFERS : CNI_ADDRESS;
	case ERR_EXHAUSTED:
		return CNI_EXHAUSTED;
	case ERR_UNREACHABLE:
	case ERR_DENIED:
		return CNI_TRY_LATER;
	case ERR_SYSTEM:
		return CNI_KERNEL;
	default:
		return CNI_DAEMON;
	}
}

json_t *cni_attachment(const struct cni_input *input)
{
	json_t *body = json_object();

	json_object_set_new(body, "config", json_string(input->config.name));
	json_object_set_new(body, "container_id", json_string(input->env.container_id));
	json_object_set_new(body, "ifname", json_string(input->env.ifname));
	return body;
}

json_t *cni_call(const struct cni_input *input, const char *method, const char *path, json_t *body, struct cni_error *e)
{
	struct err err;
	json_t *answer = client_call(input->config.socket, method, path, body, timeout_of(input->env.verb), &err);

	if (!answer)
		cni_fail_err(e, code_of(input->env.verb, err.code), &err);
	return answer;
}

/* containerd takes an error of DEL that says "not found" for success and never comes back (go-cni, Remove). */
static void reword(char *text)
{
	for (char *at = strstr(text, "not found"); at; at = strstr(at, "not found"))
		memcpy(at, "not known", 9);
	for (char *at = strstr(text, "no such file or directory"); at; at = strstr(at, "no such file or directory"))
		memcpy(at, "No", 2);
}

int cni_call_del(const struct cni_input *input, const char *path, json_t *body, struct cni_error *e)
{
	struct err err;
	json_t *answer = client_call(input->config.socket, "POST", path, body, DEL_MS, &err);

	if (answer || err.code == ERR_NOT_FOUND) {
		json_decref(answer);
		return 0;
	}
	if (err.code == ERR_UNREACHABLE)
		return -2;
	cni_fail_err(e, code_of(CNI_DEL, err.code), &err);
	reword(e->msg);
	return -1;
}

void cni_undo(const struct cni_input *input, const char *path)
{
	json_t *body = cni_attachment(input);
	struct cni_error ignored = {0};

	if (cni_call_del(input, path, body, &ignored) < 0)
		cni_tombstone_write(input->config.run_dir, input->config.name, input->env.container_id, input->env.ifname, NULL);
	json_decref(body);
}

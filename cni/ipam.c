/* Our other role: the IPAM plugin of another one (bridge, ptp, macvlan), which runs us with its own configuration. Only `ipam` in
 * it is ours to read; addresses come from our pools and no interface is touched. GC and STATUS are those of verbs.c. */
#include "cni/cni_internal.h"

#include <string.h>

static void put_text(json_t *body, const char *name, const char *text)
{
	if (text)
		json_object_set_new(body, name, json_string(text));
}

static json_t *allocate(const struct cni_input *input, const struct cni_request *request, struct cni_error *e)
{
	json_t *body = cni_attachment(input), *answer;

	put_text(body, "network", input->config.network);
	put_text(body, "subnet", input->config.subnet);
	put_text(body, "subnet6", input->config.subnet6);
	if (request->ips)
		json_object_set(body, "ips", request->ips);
	answer = cni_call(input, "POST", "/v1/ipam/allocate", body, e);
	json_decref(body);
	return answer;
}

/* `answer` becomes the result, with the routes of the configuration. */
static json_t *print(const struct cni_input *input, json_t *answer, struct cni_error *e)
{
	struct cni_error why = {0};
	struct cni_result result;
	json_t *printed;

	if (input->config.routes)
		json_object_set(answer, "routes", input->config.routes);
	if (cni_result_parse(answer, "answer of the daemon", "1.1.0", &result, &why) < 0) {
		cni_fail(e, CNI_DAEMON, "%s", why.msg);
		return NULL;
	}
	if (!json_array_size(result.ips)) {
		cni_fail(e, CNI_DAEMON, "answer of the daemon: ips: expected an address, found none");
		cni_result_fini(&result);
		return NULL;
	}
	printed = cni_result_print(&result, input->config.format, true, e);
	cni_result_fini(&result);
	return printed;
}

/* Before anything is taken: routes that could not be printed. */
static int check_routes(const struct cni_input *input, struct cni_error *e)
{
	json_t *object = json_object();
	struct cni_result result;
	int ret;

	if (input->config.routes)
		json_object_set(object, "routes", input->config.routes);
	ret = cni_result_parse(object, "ipam", "1.1.0", &result, e);
	json_decref(object);
	if (ret == 0)
		cni_result_fini(&result);
	return ret;
}

int cni_ipam_add(struct cni_input *input, json_t **ret_answer, struct cni_error *e)
{
	struct cni_request request;
	json_t *answer, *printed;

	if (check_routes(input, e) < 0 || cni_request_read(&input->config, &input->env, &request, e) < 0)
		return -1;
	answer = allocate(input, &request, e);
	cni_request_fini(&request);
	if (!answer)
		return -1;
	printed = print(input, answer, e);
	json_decref(answer);
	if (!printed) {
		cni_undo(input, "/v1/ipam/release");
		return -1;
	}
	*ret_answer = printed;
	return 0;
}

int cni_ipam_del(struct cni_input *input, struct cni_error *e)
{
	json_t *body = cni_attachment(input);
	struct err err;
	int ret = cni_call_del(input, "/v1/ipam/release", body, e);

	json_decref(body);
	if (ret != -2)
		return ret;
	if (cni_tombstone_write(input->config.run_dir, input->config.name, input->env.container_id, input->env.ifname, &err) < 0)
		return cni_fail(e, CNI_TRY_LATER, "no daemon answers at %.200s, and word cannot be left for it: %s",
			input->config.socket, err.text);
	return 0;
}

/* The addresses of the parent's result without their lengths. Those of a plugin before it in the list may be among them, so the
 * daemon is asked whether its own are there, not the other way round. */
static json_t *prev_ips(const struct cni_input *input, struct cni_error *e)
{
	json_t *prev = json_object_get(input->config.root, "prevResult"), *ips, *item;
	struct cni_result result;
	size_t i;

	if (!prev || json_is_null(prev)) {
		cni_fail(e, CNI_CONFIG, "prevResult: CHECK needs the result of ADD, and there is none");
		return NULL;
	}
	if (cni_result_parse(prev, "prevResult", input->config.version, &result, e) < 0)
		return NULL;
	ips = json_array();
	json_array_foreach(result.ips, i, item)
	{
		const char *text = json_string_value(json_object_get(item, "address"));

		json_array_append_new(ips, json_stringn(text, strcspn(text, "/")));
	}
	cni_result_fini(&result);
	return ips;
}

int cni_ipam_check(struct cni_input *input, struct cni_error *e)
{
	json_t *ips = prev_ips(input, e), *body, *answer;

	if (!ips)
		return -1;
	body = cni_attachment(input);
	json_object_set_new(body, "ips", ips);
	answer = cni_call(input, "POST", "/v1/ipam/check", body, e);
	json_decref(body);
	json_decref(answer);
	return answer ? 0 : -1;
}

/* What a runtime hands to the CNI plugin: the first line is CNI_ARGS, the rest is stdin. Everything is read that a run
 * reads before it asks the daemon, and a result that was read is printed in every version and read again. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_text.h"
#include "cni/cni_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A refusal has a code and a sentence. */
static void expect_reason(const struct cni_error *e)
{
	if (!e->code || !*e->msg)
		abort();
}

/* Printed in a version's form and read again, it prints alike. */
static void there_and_back(const struct cni_result *result, enum cni_version version)
{
	struct cni_error e = {0};
	struct cni_result again;
	json_t *first = cni_result_print(result, version, false, &e), *second;

	if (!first) {
		expect_reason(&e);
		return;
	}
	if (cni_result_parse(first, "printed", "none", &again, &e) < 0)
		abort();
	second = cni_result_print(&again, version, false, &e);
	if (!second || !json_equal(first, second))
		abort();
	json_decref(first);
	json_decref(second);
	cni_result_fini(&again);
}

static void try_result(const struct cni_config *config)
{
	json_t *prev = json_object_get(config->root, "prevResult"), *ips;
	struct cni_error e = {0};
	struct cni_result result;
	const char *mac;

	if (!prev)
		return;
	if (cni_result_parse(prev, "prevResult", config->version, &result, &e) < 0) {
		expect_reason(&e);
		return;
	}
	for (unsigned v = 0; v < CNI_VERSION_COUNT; v++)
		there_and_back(&result, v);
	if (cni_result_find(&result, "eth0", &ips, &mac))
		json_decref(ips);
	cni_result_fini(&result);
}

static void try_request(const struct cni_config *config, const char *args)
{
	struct cni_env env = {.verb = CNI_ADD, .args = *args ? args : NULL};
	struct cni_error e = {0};
	struct cni_request request;

	if (cni_request_read(config, &env, &request, &e) < 0) {
		expect_reason(&e);
		return;
	}
	if (json_array_size(request.ips) > 2 || json_array_size(request.aliases) > CONTROL_CNI_LABELS_MAX ||
		(request.name && !json_text_valid(request.name)))
		abort();
	cni_request_fini(&request);
}

static void try_config(const char *text, size_t len, const char *args)
{
	struct cni_error e = {0};
	struct cni_config config;

	if (cni_config_parse(text, len, &config, &e) < 0) {
		expect_reason(&e);
		return;
	}
	cni_config_lenient(&config, "trestle");
	if (!config.socket || *config.socket != '/' || !config.run_dir || *config.run_dir != '/')
		abort();
	if (cni_config_check(&config, "trestle", &e) < 0)
		expect_reason(&e);
	else
		try_request(&config, args);
	try_result(&config);
	json_decref(config.root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
	size_t len = end ? (size_t)(end - data) : 0;
	char args[1024];

	if (!end || len >= sizeof(args) || memchr(data, '\0', len))
		return 0;
	memcpy(args, data, len);
	args[len] = '\0';
	if (cni_ifname_valid(args) && !json_text_valid(args))
		abort();
	cni_name_valid(args, CONTROL_CNI_ID_MAX);
	try_config((const char *)end + 1, size - len - 1, args);
	return 0;
}

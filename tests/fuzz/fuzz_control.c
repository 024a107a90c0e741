/* Bodies of the control API's calls, and the word that the CNI plugin leaves for a daemon that does not run, which has the form
 * of one of them. The first byte picks the call, the rest is the body. What is taken keeps the limits that the daemon builds on,
 * and printed it is taken again; what is refused is told why. */
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "control/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define IFNAME_MAX 15

static void require(int truth)
{
	if (!truth)
		abort();
}

static void check_part(const json_t *body, const char *name, size_t max)
{
	const char *text = json_string_value(json_object_get(body, name));

	require(text && *text && strlen(text) <= max && !strpbrk(text, ":/") && strcmp(text, ".") && strcmp(text, ".."));
}

/* Config, container and interface become one file name. */
static void check_attachment(const json_t *body)
{
	check_part(body, "config", CONTROL_CNI_CONFIG_MAX);
	check_part(body, "container_id", CONTROL_CNI_ID_MAX);
	check_part(body, "ifname", IFNAME_MAX);
}

static void check_add(const json_t *body)
{
	const char *netns = json_string_value(json_object_get(body, "netns"));

	check_attachment(body);
	require(netns && *netns == '/' && strlen(netns) <= CONTROL_CNI_PATH_MAX);
	require(json_array_size(json_object_get(body, "ips")) <= CONTROL_CNI_IPS_MAX);
	require(json_array_size(json_object_get(body, "routes")) <= CONTROL_CNI_ROUTES_MAX);
	require(json_array_size(json_object_get(body, "aliases")) <= CONTROL_CNI_LABELS_MAX);
	require(json_object_size(json_object_get(body, "labels")) <= CONTROL_CNI_LABELS_MAX);
}

static void check_taken(enum control_verb verb, const json_t *body)
{
	if (verb == CONTROL_CNI_ADD)
		check_add(body);
	else if (verb == CONTROL_CNI_DEL || verb == CONTROL_CNI_CHECK || verb >= CONTROL_IPAM_ALLOCATE)
		check_attachment(body);
	else if (verb == CONTROL_NETWORK_CREATE)
		check_part(body, "name", CONTROL_NETWORK_NAME_MAX);
}

static void expect_reason(const struct err *err)
{
	require(err->code == ERR_INVALID || err->code == ERR_TOO_BIG);
	require(err->text[0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err err = {0};
	json_t *body = NULL, *again = NULL;
	enum control_verb verb;
	char *text;

	if (!size)
		return 0;
	verb = data[0] % (CONTROL_IPAM_CHECK + 1);
	if (control_body(verb, data + 1, size - 1, &body, &err) < 0) {
		expect_reason(&err);
		return 0;
	}
	if (!body)
		return 0; /* the call has none */
	check_taken(verb, body);
	text = json_dumps(body, JSON_COMPACT);
	require(text && control_body(verb, text, strlen(text), &again, &err) == 0 && json_equal(body, again));
	free(text);
	json_decref(again);
	json_decref(body);
	return 0;
}

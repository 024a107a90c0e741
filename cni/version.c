/* The versions of the specification. A configuration names one of them exactly; only "is this verb in it" compares numbers. */
#include "cni/cni_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"

static const char *const names[] = {
	[CNI_0_1_0] = "0.1.0",
	[CNI_0_2_0] = "0.2.0",
	[CNI_0_3_0] = "0.3.0",
	[CNI_0_3_1] = "0.3.1",
	[CNI_0_4_0] = "0.4.0",
	[CNI_1_0_0] = "1.0.0",
	[CNI_1_1_0] = "1.1.0",
};
_Static_assert(sizeof(names) / sizeof(names[0]) == CNI_VERSION_COUNT, "a name for each version");

const char *cni_version_name(enum cni_version version)
{
	return names[version];
}

bool cni_version_find(const char *text, enum cni_version *ret_version)
{
	for (unsigned i = 0; i < CNI_VERSION_COUNT; i++) {
		if (strcmp(text, names[i]) == 0) {
			*ret_version = i;
			return true;
		}
	}
	return false;
}

bool cni_version_parse(const char *text, unsigned ret_parts[3])
{
	unsigned parts[3] = {0};

	for (unsigned i = 0; i < 3; i++) {
		size_t len = strcspn(text, ".");
		char digits[8];
		uint64_t value;

		if (len >= sizeof(digits))
			return false;
		memcpy(digits, text, len);
		digits[len] = '\0';
		if (number_parse(digits, 0, 9999999, &value) < 0)
			return false;
		parts[i] = (unsigned)value;
		text += len;
		if (!*text) {
			memcpy(ret_parts, parts, sizeof(parts));
			return true;
		}
		text++;
	}
	return false;
}

json_t *cni_version_list(void)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < CNI_VERSION_COUNT; i++)
		json_array_append_new(list, json_string(names[i]));
	return list;
}

/* Text into JSON and out of it (see json_text.h). */
#include "base/json_text.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"

json_t *json_text(const char *text)
{
	json_t *string = json_string(text);
	char *copy, *p;

	if (string)
		return string;
	copy = alloc_text(text);
	for (p = copy; *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	string = json_string(copy);
	free(copy);
	return string;
}

bool json_text_valid(const char *text)
{
	json_t *string = json_string(text);

	json_decref(string);
	return string != NULL;
}

void json_text_cut(char *text)
{
	size_t len = strlen(text);

	for (unsigned i = 0; i < 3 && len > 0 && !json_text_valid(text); i++)
		text[--len] = '\0';
}

char *json_print(const json_t *value, size_t flags)
{
	if (!value) {
		log_error("json",
			"a JSON value that was to be sent or saved could not be made: a text in it is not UTF-8, or there is "
			"no memory: aborting; what is saved is complete, start again, and tell us what was asked for");
		abort();
	}
	return alloc_made(json_dumps(value, flags), "JSON text");
}

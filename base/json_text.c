/* json_string for text of any origin (see json_text.h): every byte above ASCII is replaced when the whole is not UTF-8. */
#include "base/json_text.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

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

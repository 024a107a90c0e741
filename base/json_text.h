/* Text of any origin as a JSON string. */
#ifndef BASE_JSON_TEXT_H
#define BASE_JSON_TEXT_H

#include <jansson.h>

/* json_string refuses bytes that are not UTF-8, and an error text can hold them: a file name of the kernel's, or a quoted value
 * that was cut in the middle of a character. Such bytes become '?' here, so that an error is never lost on the way out. New
 * reference. */
json_t *json_text(const char *text);

#endif

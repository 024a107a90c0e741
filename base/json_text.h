/* Text of any origin as a JSON string. */
#ifndef BASE_JSON_TEXT_H
#define BASE_JSON_TEXT_H

#include <jansson.h>
#include <stdbool.h>

/* json_string refuses bytes that are not UTF-8, and an error text can hold them: a file name of the kernel's, or a quoted value
 * that was cut in the middle of a character. Such bytes become '?' here, so that an error is never lost on the way out. New
 * reference. */
json_t *json_text(const char *text);

/* Whether jansson takes the text: UTF-8, nothing overlong, no surrogates. json_string and json_pack answer NULL to anything else,
 * so it is asked where text of others comes in by another way than JSON: environment, arguments. */
bool json_text_valid(const char *text);
/* What snprintf cut in the middle of a character ends before it. */
void json_text_cut(char *text);

/* The value as text, by free(). Aborts with the reason when there is none: NULL is a value whose maker, json_pack, was given what
 * json_text_valid denies, or no memory. */
char *json_print(const json_t *value, size_t flags) __attribute__((returns_nonnull));

#endif

/* 128-bit identifiers (hosts, networks, pools): random or a hash, compared as bytes, written as 32 lower-case hex digits. */
#ifndef BASE_ID_H
#define BASE_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define ID_TEXT_SIZE 33
#define ID_SHORT_SIZE 13 /* the first 12 digits: what people see */

struct id128 {
	uint8_t bytes[16];
};

bool id_equal(const struct id128 *a, const struct id128 *b);
int id_compare(const struct id128 *a, const struct id128 *b);
bool id_is_zero(const struct id128 *id);
const char *id_format(const struct id128 *id, char buf[ID_TEXT_SIZE]);
const char *id_short(const struct id128 *id, char buf[ID_SHORT_SIZE]);
int id_parse(const char *text, struct id128 *ret_id, struct err *err);

void hex_encode(const void *bytes, size_t len, char *ret_text); /* writes 2 * len digits and a NUL */
int hex_decode(const char *text, void *ret_bytes, size_t len);	/* exactly 2 * len digits, either case */

#endif

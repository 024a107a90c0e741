/* 128-bit identifiers and the hex text they are written in (see id.h). */
#include "base/id.h"

#include <string.h>

static const char digits[] = "0123456789abcdef";

bool id_equal(const struct id128 *a, const struct id128 *b)
{
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

int id_compare(const struct id128 *a, const struct id128 *b)
{
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

bool id_is_zero(const struct id128 *id)
{
	static const struct id128 zero;

	return id_equal(id, &zero);
}

const char *id_format(const struct id128 *id, char buf[ID_TEXT_SIZE])
{
	hex_encode(id->bytes, sizeof(id->bytes), buf);
	return buf;
}

const char *id_short(const struct id128 *id, char buf[ID_SHORT_SIZE])
{
	hex_encode(id->bytes, (ID_SHORT_SIZE - 1) / 2, buf);
	return buf;
}

int id_parse(const char *text, struct id128 *ret_id, struct err *err)
{
	if (hex_decode(text, ret_id->bytes, sizeof(ret_id->bytes)) < 0)
		return err_set(err, ERR_INVALID, "identifier: expected 32 hex digits, found \"%.40s\"", text ? text : "");
	return 0;
}

void hex_encode(const void *bytes, size_t len, char *ret_text)
{
	const uint8_t *at = bytes;

	for (size_t i = 0; i < len; i++) {
		ret_text[2 * i] = digits[at[i] >> 4];
		ret_text[2 * i + 1] = digits[at[i] & 15];
	}
	ret_text[2 * len] = '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int hex_decode(const char *text, void *ret_bytes, size_t len)
{
	uint8_t *out = ret_bytes;

	if (!text || strnlen(text, 2 * len + 1) != 2 * len)
		return -1;
	/* Two passes: the output stays untouched unless every digit is one. */
	for (size_t i = 0; i < 2 * len; i++) {
		if (hex_digit(text[i]) < 0)
			return -1;
	}
	for (size_t i = 0; i < len; i++)
		out[i] = (uint8_t)(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
	return 0;
}

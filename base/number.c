/* Text to number, strictly: strtoul would take blanks, signs, and wrap "-1" to the largest value, all of them silently. */
#include "base/number.h"

#include <stddef.h>

int number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value)
{
	uint64_t value = 0;

	if (!text || !*text)
		return -1;
	for (const char *at = text; *at; at++) {
		if (*at < '0' || *at > '9')
			return -1;
		if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
			__builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
			return -1;
	}
	if (value < min || value > max)
		return -1;
	*ret_value = value;
	return 0;
}

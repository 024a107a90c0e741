/* The one place where text becomes a number. */
#ifndef BASE_NUMBER_H
#define BASE_NUMBER_H

#include <stdint.h>

/* Whole text, decimal digits only, no sign, no blanks. 0, or -1 when it is not a number in min..max. */
int number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value);

#endif

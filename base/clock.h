/* The clocks, read only at the edge. Cores get now_ms as an argument. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_boot_ms(void); /* CLOCK_BOOTTIME: durations and deadlines, counts suspend */
uint64_t clock_boot_us(void);
int64_t clock_wall_s(void);  /* Unix seconds: labels and token expiry only */
int64_t clock_wall_us(void); /* to compare with the kernel's time stamps on packets, nothing else */

#endif

/* The clocks, read at the edge and handed down as numbers (see clock.h).
 *
 * clock_gettime on these clocks cannot fail on a kernel that has them (CLOCK_BOOTTIME: Linux 2.6.39), so nothing is returned
 * for a failure. */
#include "base/clock.h"

#include <time.h>

uint64_t clock_boot_us(void)
{
	struct timespec t = {0};

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

uint64_t clock_boot_ms(void)
{
	return clock_boot_us() / 1000u;
}

int64_t clock_wall_us(void)
{
	struct timespec t = {0};

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t clock_wall_s(void)
{
	return clock_wall_us() / 1000000;
}

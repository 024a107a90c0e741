/* Memory that is there. A small object that cannot be had leaves nothing to answer with, and every path that tried to would be
 * one that no test walks: it is said what was wanted, and the process aborts. What is saved is complete at every moment, so that
 * a start goes on from there, and the kernel carries the traffic meanwhile.
 *
 * What has a size that comes from outside is bounded first. Who has an error to return (a table at its limit, a record of
 * another host) uses calloc and returns it. All that comes from here is zeroed where its maker is ours, and goes by free(). */
#ifndef BASE_ALLOC_H
#define BASE_ALLOC_H

#include <stddef.h>

#define alloc_new(type) ((type *)alloc_zeroed(1, sizeof(type), #type))
#define alloc_array(type, count) ((type *)alloc_zeroed(count, sizeof(type), #type)) /* count 0: not NULL either */
/* What is beyond the old count is not zeroed. */
#define alloc_resize(old, type, count) ((type *)alloc_resized(old, count, sizeof(type), #type))

void *alloc_zeroed(size_t count, size_t size, const char *what) __attribute__((malloc, returns_nonnull));
void *alloc_resized(void *old, size_t count, size_t size, const char *what) __attribute__((returns_nonnull));
char *alloc_text(const char *text) __attribute__((malloc, returns_nonnull));
char *alloc_format(const char *fmt, ...) __attribute__((malloc, returns_nonnull, format(printf, 1, 2)));
/* What a library made, where only want of memory makes its answer NULL: `timer = alloc_made(evtimer_new(...), "timer")`. */
void *alloc_made(void *object, const char *what) __attribute__((returns_nonnull));

#endif

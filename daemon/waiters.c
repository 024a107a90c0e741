/* See waiters.h. */
#include "daemon/waiters.h"

#include <stdlib.h>

struct waiter {
	void (*fn)(void *arg);
	void *arg;
	struct waiter *next;
};

void waiters_add(struct waiter **list, void (*fn)(void *arg), void *arg)
{
	struct waiter *w;

	if (!fn)
		return;
	w = calloc(1, sizeof(*w));
	if (!w)
		abort();
	*w = (struct waiter){.fn = fn, .arg = arg, .next = *list};
	*list = w;
}

void waiters_tell(struct waiter *list)
{
	struct waiter *next;

	for (; list; list = next) {
		next = list->next;
		list->fn(list->arg);
		free(list);
	}
}

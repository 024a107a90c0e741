/* See waiters.h. */
#include "daemon/waiters.h"

#include <stdlib.h>

#include "base/alloc.h"

struct waiter {
	void (*fn)(void *arg);
	void *arg;
	struct waiter *next;
};

struct asker {
	void (*fn)(void *arg, const struct err *err);
	void *arg;
	struct asker *next;
};

void waiters_add(struct waiter **list, void (*fn)(void *arg), void *arg)
{
	struct waiter *w;

	if (!fn)
		return;
	w = alloc_new(struct waiter);
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

void askers_add(struct asker **list, void (*fn)(void *arg, const struct err *err), void *arg)
{
	struct asker *a = alloc_new(struct asker);

	*a = (struct asker){.fn = fn, .arg = arg, .next = *list};
	*list = a;
}

void askers_tell(struct asker *list, const struct err *err)
{
	struct asker *next;

	for (; list; list = next) {
		next = list->next;
		list->fn(list->arg, err);
		free(list);
	}
}

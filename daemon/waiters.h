/* Who waits for the end of something. */
#ifndef DAEMON_WAITERS_H
#define DAEMON_WAITERS_H

struct waiter;

void waiters_add(struct waiter **list, void (*fn)(void *arg), void *arg); /* fn NULL: nobody does */
/* Calls each once and frees the list. What had it may be gone by then: its owner takes the list out first. */
void waiters_tell(struct waiter *list);

#endif

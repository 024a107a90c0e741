/* Who waits for the end of something, and who waits to hear how it went. */
#ifndef DAEMON_WAITERS_H
#define DAEMON_WAITERS_H

struct err;
struct waiter;
struct asker;

void waiters_add(struct waiter **list, void (*fn)(void *arg), void *arg); /* fn NULL: nobody does */
/* Calls each once and frees the list. What had it may be gone by then: its owner takes the list out first. */
void waiters_tell(struct waiter *list);

void askers_add(struct asker **list, void (*fn)(void *arg, const struct err *err), void *arg);
void askers_tell(struct asker *list, const struct err *err); /* likewise; err NULL: it went well */

#endif

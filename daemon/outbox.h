/* Actions in order: nothing leaves the host before what it depends on is saved.
 *
 * The cores emit saves and effects (publish, send, answer). The outbox performs the effects in exactly that order, and the saves
 * to each file; an effect behind a save to the state file waits until the worker has it on disk, a save does not wait for
 * effects. Saves to the boot file are made on the loop thread, when an effect comes behind them or the loop's turn ends. When
 * nothing is waiting, an effect runs at once. A save that fails is said and tried again every second; what is behind it waits. */
#ifndef DAEMON_OUTBOX_H
#define DAEMON_OUTBOX_H

#include <event2/event.h>

#include "daemon/store.h"
#include "daemon/worker.h"

struct outbox;

struct outbox *outbox_new(struct event_base *base, struct store *store, struct worker *worker);
void outbox_free(struct outbox *o);
/* Takes the change. */
void outbox_save(struct outbox *o, struct store_change *change);
/* Calls fn(arg) after everything before it. fn owns arg. */
void outbox_call(struct outbox *o, void (*fn)(void *arg), void *arg);
/* Why what is to be saved cannot be; "" when it can. */
const char *outbox_trouble(const struct outbox *o);
/* True when an effect would run at once. */
bool outbox_idle(const struct outbox *o);

#endif

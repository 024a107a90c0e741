/* One list of actions, in the order in which the cores emitted them (see outbox.h). Its head decides: a save to the state file
 * goes to the worker at the end of the loop's turn, as one batch that the list waits for; an effect runs.
 *
 * A batch is one transaction, and each costs a wait for the disk. So it takes along what is to be saved behind effects that wait
 * for their turn: of fifty requests that came together, each a save and an answer, all saves are made, then all are answered.
 * What a kill leaves is as if those effects had been lost on their way. A save to the boot file is not passed, so of two files
 * the state file is never ahead.
 *
 * Always: when an effect runs, everything that was put before it is done; one batch at a time is with the worker. */
#include "daemon/outbox.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#define RETRY_S 1

struct action {
	struct action *next;
	struct store_change *save; /* or */
	void (*fn)(void *arg);
	void *arg;
};

struct outbox {
	struct store *store;
	struct worker *worker;
	struct action *head, **tail;
	struct event *pump; /* also the retry timer */
	bool busy;	    /* a batch is with the worker, or we wait to try again */
	bool retrying;	    /* the latter: the timer is armed */
	bool pumping;
	char trouble[ERR_TEXT_SIZE];
	struct log_limit said;
};

struct batch {
	struct worker_job job;
	struct outbox *outbox;
	struct store_change *list;
	struct err err;
	int result;
};

static void pump(struct outbox *o, bool turn_ended);

static void append(struct outbox *o, struct action *a)
{
	*o->tail = a;
	o->tail = &a->next;
}

static struct action *take(struct outbox *o)
{
	struct action *a = o->head;
	o->head = a->next;
	if (!o->head)
		o->tail = &o->head;
	return a;
}

static void retry_later(struct outbox *o)
{
	struct timeval later = {.tv_sec = RETRY_S};
	o->busy = true;
	o->retrying = true;
	event_add(o->pump, &later);
}

static void batch_run(void *arg)
{
	struct batch *b = arg;
	b->result = store_apply(b->outbox->store, STORE_STATE, b->list, NULL, &b->err);
}

static void changes_free(struct store_change *list)
{
	while (list) {
		struct store_change *next = list->next;
		free(list);
		list = next;
	}
}

/* Puts the changes of a failed batch back at the front, in order. */
static void put_back(struct outbox *o, struct store_change *list)
{
	struct action **at = &o->head;

	while (list) {
		struct action *a = alloc_new(struct action);
		a->save = list;
		list = list->next;
		a->save->next = NULL;
		a->next = *at;
		if (!*at)
			o->tail = &a->next;
		*at = a;
		at = &a->next;
	}
}

static void note_failure(struct outbox *o, const struct err *err)
{
	snprintf(o->trouble, sizeof(o->trouble), "%s", err->text);
	log_limited(&o->said, clock_boot_ms(), LOG_LEVEL_ERROR, "store",
		"%s; trying again every %d s, requests that depend on it wait", err->text, RETRY_S);
}

static void note_success(struct outbox *o)
{
	if (*o->trouble)
		log_info("store", "what could not be saved is saved now");
	*o->trouble = 0;
}

const char *outbox_trouble(const struct outbox *o)
{
	return o->trouble;
}

static void batch_done(void *arg)
{
	struct batch *b = arg;
	struct outbox *o = b->outbox;

	o->busy = false;
	if (b->result < 0) {
		note_failure(o, &b->err);
		put_back(o, b->list);
		retry_later(o);
	} else {
		note_success(o);
		changes_free(b->list);
		pump(o, true);
	}
	free(b);
}

static bool saves_to(const struct action *a, enum store_area area)
{
	return a && a->save && a->save->area == area;
}

/* Takes the action that *at points to out of the list; its save is the next of *tail. */
static void take_save(struct outbox *o, struct action **at, struct store_change ***tail)
{
	struct action *a = *at;

	*at = a->next;
	if (!a->next)
		o->tail = at;
	**tail = a->save;
	*tail = &a->save->next;
	free(a);
}

/* All that are to be made before the next one to the boot file. */
static struct store_change *take_state_saves(struct outbox *o)
{
	struct store_change *list = NULL, **tail = &list;
	struct action **at = &o->head;

	while (*at && !saves_to(*at, STORE_BOOT)) {
		if ((*at)->save)
			take_save(o, at, &tail);
		else
			at = &(*at)->next;
	}
	return list;
}

/* The leading run. */
static struct store_change *take_boot_saves(struct outbox *o)
{
	struct store_change *list = NULL, **tail = &list;

	while (saves_to(o->head, STORE_BOOT))
		take_save(o, &o->head, &tail);
	return list;
}

static void submit_batch(struct outbox *o)
{
	struct batch *b = alloc_new(struct batch);

	b->list = take_state_saves(o);
	b->outbox = o;
	b->job = (struct worker_job){.run = batch_run, .done = batch_done, .arg = b};
	o->busy = true;
	if (worker_submit(o->worker, &b->job, &b->err) < 0) {
		b->result = -1;
		batch_done(b);
	}
}

static void save_boot(struct outbox *o)
{
	struct store_change *list = take_boot_saves(o);
	struct err err = {0};

	if (store_apply(o->store, STORE_BOOT, list, NULL, &err) < 0) {
		note_failure(o, &err);
		put_back(o, list);
		retry_later(o);
		return;
	}
	note_success(o);
	changes_free(list);
}

/* State saves wait for the end of the loop's turn, so that all of one step share a transaction. */
static void pump(struct outbox *o, bool turn_ended)
{
	if (o->pumping)
		return;
	o->pumping = true;
	while (o->head && !o->busy && (turn_ended || !saves_to(o->head, STORE_STATE))) {
		if (saves_to(o->head, STORE_STATE)) {
			submit_batch(o);
		} else if (o->head->save) {
			save_boot(o);
		} else {
			struct action *a = take(o);
			void (*fn)(void *) = a->fn;
			void *arg = a->arg;
			free(a);
			fn(arg);
		}
	}
	o->pumping = false;
}

static void on_pump(evutil_socket_t fd, short what, void *arg)
{
	struct outbox *o = arg;

	(void)fd;
	if (o->retrying && !(what & EV_TIMEOUT)) { /* woken early: firing has taken the timer along */
		retry_later(o);
		return;
	}
	if (o->retrying)
		o->retrying = o->busy = false;
	pump(o, true);
}

struct outbox *outbox_new(struct event_base *base, struct store *store, struct worker *worker)
{
	struct outbox *o = alloc_new(struct outbox);

	o->store = store;
	o->worker = worker;
	o->tail = &o->head;
	o->said.burst = 1;
	o->pump = alloc_made(event_new(base, -1, 0, on_pump, o), "event");
	return o;
}

void outbox_free(struct outbox *o)
{
	if (!o)
		return;
	if (!o->busy && saves_to(o->head, STORE_BOOT))
		save_boot(o);
	while (o->head) {
		struct action *a = take(o);
		free(a->save);
		free(a);
	}
	event_free(o->pump);
	free(o);
}

void outbox_save(struct outbox *o, struct store_change *change)
{
	struct action *a = alloc_new(struct action);

	if (!change) /* no memory, or a bug: its key is over STORE_KEY_MAX */
		abort();
	a->save = change;
	change->next = NULL;
	append(o, a);
	if (!o->busy)
		event_active(o->pump, EV_WRITE, 0);
}

void outbox_call(struct outbox *o, void (*fn)(void *arg), void *arg)
{
	struct action *a;

	if (outbox_idle(o)) {
		fn(arg);
		return;
	}
	a = alloc_new(struct action);
	a->fn = fn;
	a->arg = arg;
	append(o, a);
	pump(o, false);
}

bool outbox_idle(const struct outbox *o)
{
	return !o->head && !o->busy;
}

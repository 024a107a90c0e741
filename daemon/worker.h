/* One thread for what may block: the kernel's RTNL lock, a namespace, the disk. Jobs run in the order given, one at a time; their
 * results come back to the loop as calls of `done`, in the same order. The queue is bounded. Nothing else is shared. */
#ifndef DAEMON_WORKER_H
#define DAEMON_WORKER_H

#include <event2/event.h>

#include "base/err.h"

#define WORKER_QUEUE_MAX 65536

struct worker;

struct worker_job {
	void (*run)(void *arg);	 /* on the worker thread */
	void (*done)(void *arg); /* on the loop thread, afterwards; frees arg */
	void *arg;
	struct worker_job *next; /* the worker's */
};

int worker_start(struct event_base *base, struct worker **ret_worker, struct err *err);
/* The job is embedded in its arg and belongs to the worker until done is called. ERR_EXHAUSTED: the queue is full, nothing was
 * taken. */
int worker_submit(struct worker *worker, struct worker_job *job, struct err *err);
unsigned worker_depth(const struct worker *worker); /* submitted, not done */
/* Lets what is queued finish, and what the open `done`s submit; ends the thread. */
void worker_stop(struct worker *worker);

#endif

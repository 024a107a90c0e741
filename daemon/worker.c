/* The worker thread: two lists under one mutex, a condition for the thread, an eventfd for the loop. */
#include "daemon/worker.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct job_list {
	struct worker_job *head, **tail;
};

struct worker {
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t wake;
	struct job_list todo, finished; /* under mutex */
	bool stopping;			/* under mutex */
	unsigned depth;			/* loop thread only */
	int fd;
	struct event *event;
};

static void list_init(struct job_list *list)
{
	list->head = NULL;
	list->tail = &list->head;
}

static void list_add(struct job_list *list, struct worker_job *job)
{
	job->next = NULL;
	*list->tail = job;
	list->tail = &job->next;
}

static struct worker_job *list_take(struct job_list *list)
{
	struct worker_job *all = list->head;
	list_init(list);
	return all;
}

static void *thread_main(void *arg)
{
	struct worker *w = arg;
	uint64_t one = 1;
	bool first;

	pthread_mutex_lock(&w->mutex);
	for (;;) {
		struct worker_job *job = w->todo.head;
		if (!job) {
			if (w->stopping)
				break;
			pthread_cond_wait(&w->wake, &w->mutex);
			continue;
		}
		w->todo.head = job->next;
		if (!job->next)
			list_init(&w->todo);
		pthread_mutex_unlock(&w->mutex);
		job->run(job->arg);
		pthread_mutex_lock(&w->mutex);
		first = !w->finished.head;
		list_add(&w->finished, job);
		pthread_mutex_unlock(&w->mutex);
		/* Behind the mutex, or the loop would wake up to wait for it. One that has not come yet takes all. */
		if (first && write(w->fd, &one, sizeof(one)) < 0) {
			/* The counter is at its maximum: the loop is awake already. */
		}
		pthread_mutex_lock(&w->mutex);
	}
	pthread_mutex_unlock(&w->mutex);
	return NULL;
}

static void call_done(struct worker *w)
{
	struct worker_job *job, *next;

	pthread_mutex_lock(&w->mutex);
	job = list_take(&w->finished);
	pthread_mutex_unlock(&w->mutex);
	for (; job; job = next) {
		next = job->next;
		w->depth--;
		job->done(job->arg);
	}
}

static void on_finished(evutil_socket_t fd, short what, void *arg)
{
	uint64_t count;

	(void)what;
	if (read(fd, &count, sizeof(count)) < 0)
		return;
	call_done(arg);
}

int worker_start(struct event_base *base, struct worker **ret_worker, struct err *err)
{
	struct worker *w = calloc(1, sizeof(*w));

	if (!w)
		return err_set(err, ERR_INTERNAL, "out of memory");
	list_init(&w->todo);
	list_init(&w->finished);
	pthread_mutex_init(&w->mutex, NULL);
	pthread_cond_init(&w->wake, NULL);
	w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	w->event = w->fd < 0 ? NULL : event_new(base, w->fd, EV_READ | EV_PERSIST, on_finished, w);
	if (!w->event || event_add(w->event, NULL) < 0 || pthread_create(&w->thread, NULL, thread_main, w) != 0) {
		if (w->event)
			event_free(w->event);
		if (w->fd >= 0)
			close(w->fd);
		free(w);
		return err_set(err, ERR_INTERNAL, "cannot start the worker thread");
	}
	*ret_worker = w;
	return 0;
}

int worker_submit(struct worker *w, struct worker_job *job, struct err *err)
{
	if (w->depth >= WORKER_QUEUE_MAX)
		return err_set(err, ERR_EXHAUSTED,
			"the kernel worker has %u jobs queued and takes no more; is the host overloaded?", w->depth);
	w->depth++;
	pthread_mutex_lock(&w->mutex);
	list_add(&w->todo, job);
	pthread_mutex_unlock(&w->mutex);
	pthread_cond_signal(&w->wake);
	return 0;
}

unsigned worker_depth(const struct worker *w)
{
	return w->depth;
}

/* A `done` may have submitted more: what the outbox had behind a save, for one. The thread has ended, so it runs here. */
static void finish(struct worker *w)
{
	struct worker_job *job, *next;

	call_done(w);
	while (w->todo.head) {
		for (job = list_take(&w->todo); job; job = next) {
			next = job->next;
			job->run(job->arg);
			list_add(&w->finished, job);
		}
		call_done(w);
	}
}

void worker_stop(struct worker *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->mutex);
	w->stopping = true;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->mutex);
	pthread_join(w->thread, NULL);
	finish(w);
	event_free(w->event);
	close(w->fd);
	pthread_mutex_destroy(&w->mutex);
	pthread_cond_destroy(&w->wake);
	free(w);
}

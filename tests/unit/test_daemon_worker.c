/* The worker thread: order, the bound of its queue, and that nothing is lost when it is stopped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/worker.h"

#define JOBS 1000
#define DEADLINE_S 60

struct fixture {
	struct event_base *base;
	struct worker *worker;
	pthread_t loop;
	unsigned run_count; /* worker thread */
	unsigned done_count;
	bool wrong_thread, wrong_order;
	sem_t gate; /* what a blocked job waits for */
	struct worker_job *follow_up;
};

struct job {
	struct worker_job job;
	struct fixture *fixture;
	unsigned number;
	bool blocks;
	bool ran;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct err err = {0};

	if (!f)
		return -1;
	f->base = event_base_new();
	f->loop = pthread_self();
	sem_init(&f->gate, 0, 0);
	if (!f->base || worker_start(f->base, &f->worker, &err) < 0)
		return -1;
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	worker_stop(f->worker);
	event_base_free(f->base);
	sem_destroy(&f->gate);
	free(f);
	return 0;
}

static void run(void *arg)
{
	struct job *j = arg;

	if (j->blocks)
		sem_wait(&j->fixture->gate);
	j->fixture->wrong_thread |= pthread_equal(pthread_self(), j->fixture->loop) != 0;
	j->fixture->wrong_order |= j->number != j->fixture->run_count;
	j->fixture->run_count++;
	j->ran = true;
}

static void done(void *arg)
{
	struct job *j = arg;
	struct fixture *f = j->fixture;

	f->wrong_thread |= !pthread_equal(pthread_self(), f->loop);
	f->wrong_order |= !j->ran || j->number != f->done_count;
	f->done_count++;
	free(j);
}

static struct job *job_new(struct fixture *f, unsigned number)
{
	struct job *j = calloc(1, sizeof(*j));

	assert_non_null(j);
	*j = (struct job){.job = {.run = run, .done = done, .arg = j}, .fixture = f, .number = number};
	return j;
}

static void submit(struct fixture *f, struct job *j)
{
	struct err err = {0};

	if (worker_submit(f->worker, &j->job, &err) < 0)
		fail_msg("%s", err.text);
}

static void too_late(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	fail_msg("nothing happened for %d s", DEADLINE_S);
}

static void loop_until(struct fixture *f, const unsigned *counter, unsigned count)
{
	struct event *deadline = event_new(f->base, -1, 0, too_late, NULL);
	struct timeval tv = {.tv_sec = DEADLINE_S};

	event_add(deadline, &tv);
	while (*counter < count)
		event_base_loop(f->base, EVLOOP_ONCE);
	event_free(deadline);
}

static void expect_fine(const struct fixture *f, unsigned count)
{
	assert_int_equal(f->run_count, count);
	assert_int_equal(f->done_count, count);
	assert_false(f->wrong_thread);
	assert_false(f->wrong_order);
}

static void jobs_run_and_end_in_order(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < JOBS; i++)
		submit(f, job_new(f, i));
	assert_int_equal(f->done_count, 0); /* never from within submit */
	assert_int_equal(worker_depth(f->worker), JOBS);
	loop_until(f, &f->done_count, JOBS);
	expect_fine(f, JOBS);
	assert_int_equal(worker_depth(f->worker), 0);
}

static void the_loop_goes_on_while_a_job_blocks(void **state)
{
	struct fixture *f = *state;
	struct job *j = job_new(f, 0);

	j->blocks = true;
	submit(f, j);
	submit(f, job_new(f, 1));
	event_base_loop(f->base, EVLOOP_NONBLOCK);
	assert_int_equal(f->done_count, 0);
	assert_int_equal(worker_depth(f->worker), 2);
	sem_post(&f->gate);
	loop_until(f, &f->done_count, 2);
	expect_fine(f, 2);
}

static void done_and_follow(void *arg)
{
	struct job *j = arg;
	struct fixture *f = j->fixture;
	struct err err = {0};
	struct worker_job *next = f->follow_up;

	f->follow_up = NULL;
	done(j);
	if (next)
		assert_int_equal(worker_submit(f->worker, next, &err), 0);
}

static void done_may_submit(void **state)
{
	struct fixture *f = *state;
	struct job *j = job_new(f, 0);

	j->job.done = done_and_follow;
	f->follow_up = &job_new(f, 1)->job;
	submit(f, j);
	loop_until(f, &f->done_count, 2);
	expect_fine(f, 2);
}

static void the_queue_is_bounded(void **state)
{
	struct fixture *f = *state;
	struct job *j = job_new(f, 0), *last = job_new(f, WORKER_QUEUE_MAX);
	struct err err = {0};

	j->blocks = true;
	submit(f, j);
	for (unsigned i = 1; i < WORKER_QUEUE_MAX; i++)
		submit(f, job_new(f, i));
	assert_int_equal(worker_submit(f->worker, &last->job, &err), -1);
	assert_int_equal(err.code, ERR_EXHAUSTED);
	assert_non_null(strstr(err.text, "65536 jobs"));
	assert_int_equal(worker_depth(f->worker), WORKER_QUEUE_MAX);
	sem_post(&f->gate);
	loop_until(f, &f->done_count, WORKER_QUEUE_MAX);
	submit(f, last); /* there is room again */
	loop_until(f, &f->done_count, WORKER_QUEUE_MAX + 1);
	expect_fine(f, WORKER_QUEUE_MAX + 1);
}

static void stopping_finishes_what_is_queued(void **state)
{
	struct fixture *f = *state;
	struct job *j = job_new(f, 0);

	j->blocks = true;
	submit(f, j);
	for (unsigned i = 1; i < 50; i++)
		submit(f, job_new(f, i));
	sem_post(&f->gate);
	worker_stop(f->worker);
	f->worker = NULL;
	expect_fine(f, 50);
	worker_stop(NULL);
}

static void stopping_finishes_what_done_submits(void **state)
{
	struct fixture *f = *state;
	struct job *j = job_new(f, 0), *last = job_new(f, 1);

	j->job.done = done_and_follow;
	f->follow_up = &last->job;
	submit(f, j);
	worker_stop(f->worker);
	f->worker = NULL;
	assert_int_equal(f->run_count, 2);
	assert_int_equal(f->done_count, 2);
	assert_false(f->wrong_order);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(jobs_run_and_end_in_order),
		CASE(the_loop_goes_on_while_a_job_blocks),
		CASE(done_may_submit),
		CASE(the_queue_is_bounded),
		CASE(stopping_finishes_what_is_queued),
		CASE(stopping_finishes_what_done_submits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

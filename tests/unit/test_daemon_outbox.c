/* The outbox: effects in order, none before what it depends on is on disk, and a store that fails for a while. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/outbox.h"

#define DEADLINE_S 60
#define MANY 2000

static char root[] = "/tmp/trestle-test-outbox-XXXXXX";

struct fixture {
	char state_dir[128], run_dir[128], state_db[160], boot_db[160];
	struct event_base *base;
	struct store *store;
	struct worker *worker;
	struct outbox *outbox;
	sqlite3 *other; /* reads state.db and stands in the way of both */
	char said[64];	/* one letter per effect */
	unsigned effects;
	bool too_early; /* an effect ran and its save was not there */
	bool too_late;	/* it ran behind a save that had to wait for it */
};

struct effect {
	struct fixture *fixture;
	char letter;
	const char *needs;	   /* key that must be in the file by now; NULL: none */
	const char *lacks;	   /* key that must not be there yet; NULL: none */
	struct store_change *then; /* saved by the effect itself, */
	struct effect *after;	   /* which this one depends on */
};

static int set_up(void **state)
{
	static unsigned number;
	struct fixture *f = calloc(1, sizeof(*f));
	struct err err = {0};
	bool new_boot;

	if (!f)
		return -1;
	snprintf(f->state_dir, sizeof(f->state_dir), "%s/%u/state", root, ++number);
	snprintf(f->run_dir, sizeof(f->run_dir), "%s/%u/run", root, number);
	snprintf(f->state_db, sizeof(f->state_db), "%s/state.db", f->state_dir);
	snprintf(f->boot_db, sizeof(f->boot_db), "%s/boot.db", f->run_dir);
	f->base = event_base_new();
	if (!f->base || store_open(f->state_dir, f->run_dir, "b1", &f->store, &new_boot, &err) < 0 ||
		worker_start(f->base, &f->worker, &err) < 0)
		return -1;
	f->outbox = outbox_new(f->base, f->store, f->worker);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	sqlite3_close(f->other);
	worker_stop(f->worker);
	outbox_free(f->outbox);
	store_close(f->store);
	event_base_free(f->base);
	free(f);
	return 0;
}

static int make_root(void **state)
{
	(void)state;
	log_set_level(LOG_LEVEL_ERROR);
	return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof(command), "rm -r %s", root);
	return system(command);
}

/* ---- what is on disk, as another process sees it ---- */

static int row_exists(const char *path, const char *key)
{
	sqlite3 *db;
	sqlite3_stmt *s;
	int found;

	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT 1 FROM kv WHERE key = ?1", -1, &s, NULL), SQLITE_OK);
	sqlite3_bind_blob(s, 1, key, (int)strlen(key), SQLITE_STATIC);
	found = sqlite3_step(s) == SQLITE_ROW;
	sqlite3_finalize(s);
	sqlite3_close(db);
	return found;
}

static void block(struct fixture *f, const char *path)
{
	assert_int_equal(sqlite3_open(path, &f->other), SQLITE_OK);
	assert_int_equal(sqlite3_exec(f->other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
}

static void unblock(struct fixture *f)
{
	assert_int_equal(sqlite3_exec(f->other, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(f->other);
	f->other = NULL;
}

/* ---- saves and effects ---- */

static struct store_change *change(enum store_area area, const char *key, const char *val)
{
	struct store_change *c = store_change_new(area, STORE_POOL, key, strlen(key), val, val ? strlen(val) : 0, true);

	assert_non_null(c);
	return c;
}

static void save(struct fixture *f, enum store_area area, const char *key)
{
	outbox_save(f->outbox, change(area, key, "1"));
}

static struct effect *effect_new(struct fixture *f, char letter, const char *needs)
{
	struct effect *e = calloc(1, sizeof(*e));

	assert_non_null(e);
	*e = (struct effect){.fixture = f, .letter = letter, .needs = needs};
	return e;
}

/* Keys begin with the kind: "p<key>". "S..." is looked for in the state file, "B..." in the boot file. */
static bool is_there(const struct fixture *f, const char *name)
{
	char key[64];

	snprintf(key, sizeof(key), "%c%s", STORE_POOL, name);
	return row_exists(name[0] == 'S' ? f->state_db : f->boot_db, key);
}

static void perform(void *arg)
{
	struct effect *e = arg;
	struct fixture *f = e->fixture;

	f->too_early |= e->needs && !is_there(f, e->needs);
	f->too_late |= e->lacks && is_there(f, e->lacks);
	f->said[f->effects % (sizeof(f->said) - 1)] = e->letter;
	f->effects++;
	if (e->then)
		outbox_save(f->outbox, e->then);
	if (e->after)
		outbox_call(f->outbox, perform, e->after);
	free(e);
}

static void call(struct fixture *f, char letter, const char *needs)
{
	outbox_call(f->outbox, perform, effect_new(f, letter, needs));
}

static void too_late(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	fail_msg("only \"%s\" after %d s", ((struct fixture *)arg)->said, DEADLINE_S);
}

static void loop_until(struct fixture *f, unsigned effects)
{
	struct event *deadline = event_new(f->base, -1, 0, too_late, f);
	struct timeval tv = {.tv_sec = DEADLINE_S};

	event_add(deadline, &tv);
	while (f->effects < effects || !outbox_idle(f->outbox))
		event_base_loop(f->base, EVLOOP_ONCE);
	event_free(deadline);
	assert_false(f->too_early);
	assert_false(f->too_late);
}

static void nothing(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
}

/* Runs the loop for so long: here it is shown that something does not happen. */
static void loop_for(struct fixture *f, int ms)
{
	struct event *wake = event_new(f->base, -1, EV_PERSIST, nothing, NULL);
	struct timeval tv = {.tv_usec = 20000};
	uint64_t end = clock_boot_ms() + (uint64_t)ms;

	event_add(wake, &tv);
	while (clock_boot_ms() < end)
		event_base_loop(f->base, EVLOOP_ONCE);
	event_free(wake);
}

/* ---- the tests ---- */

static void with_nothing_before_it_an_effect_runs_at_once(void **state)
{
	struct fixture *f = *state;

	assert_true(outbox_idle(f->outbox));
	call(f, 'a', NULL);
	call(f, 'b', NULL);
	assert_string_equal(f->said, "ab");
	assert_true(outbox_idle(f->outbox));
}

static void boot_saves_are_made_together_when_an_effect_comes(void **state)
{
	struct fixture *f = *state;

	save(f, STORE_BOOT, "B1");
	save(f, STORE_BOOT, "B2");
	assert_false(row_exists(f->boot_db, "pB1"));
	call(f, 'a', "B1");
	assert_string_equal(f->said, "a");
	assert_true(row_exists(f->boot_db, "pB2"));
	assert_false(f->too_early);
	assert_true(outbox_idle(f->outbox));
}

static void boot_saves_are_made_when_the_turn_ends(void **state)
{
	struct fixture *f = *state;

	save(f, STORE_BOOT, "B1");
	loop_until(f, 0);
	assert_true(row_exists(f->boot_db, "pB1"));
}

static void boot_saves_are_made_at_the_end(void **state)
{
	struct fixture *f = *state;

	save(f, STORE_BOOT, "B1");
	outbox_free(f->outbox);
	assert_true(row_exists(f->boot_db, "pB1"));
	f->outbox = outbox_new(f->base, f->store, f->worker);
}

static void effects_wait_for_the_saves_before_them(void **state)
{
	struct fixture *f = *state;

	save(f, STORE_STATE, "S1");
	assert_false(outbox_idle(f->outbox));
	call(f, 'a', "S1");
	save(f, STORE_BOOT, "B1");
	call(f, 'b', "B1");
	save(f, STORE_STATE, "S2");
	save(f, STORE_STATE, "S3");
	call(f, 'c', "S3");
	call(f, 'd', "S2");
	assert_string_equal(f->said, "");
	assert_false(row_exists(f->boot_db, "pB1")); /* its turn has not come */
	loop_until(f, 4);
	assert_string_equal(f->said, "abcd");
}

/* As many hosts ask for a number at once: each has its save and, behind it, its answer. */
static void what_comes_together_is_saved_together(void **state)
{
	static const char *const keys[] = {"S1", "S2", "S3"};
	struct fixture *f = *state;

	for (unsigned i = 0; i < 3; i++) {
		save(f, STORE_STATE, keys[i]);
		call(f, (char)('a' + i), "S3"); /* so the first is answered when the last is saved: in one transaction */
	}
	assert_string_equal(f->said, "");
	assert_false(row_exists(f->state_db, "pS1"));
	loop_until(f, 3);
	assert_string_equal(f->said, "abc");
}

static void a_state_save_does_not_pass_a_boot_save(void **state)
{
	struct fixture *f = *state;
	struct effect *a = effect_new(f, 'a', "S1");

	a->lacks = "S2";
	save(f, STORE_STATE, "S1");
	outbox_call(f->outbox, perform, a);
	save(f, STORE_BOOT, "B1");
	save(f, STORE_STATE, "S2");
	call(f, 'b', "S2");
	loop_until(f, 2);
	assert_string_equal(f->said, "ab");
	assert_true(row_exists(f->boot_db, "pB1"));
}

static void later_changes_of_a_key_win(void **state)
{
	struct fixture *f = *state;

	outbox_save(f->outbox, change(STORE_STATE, "S1", "old"));
	outbox_save(f->outbox, change(STORE_STATE, "S1", NULL));
	outbox_save(f->outbox, change(STORE_STATE, "S2", NULL));
	outbox_save(f->outbox, change(STORE_STATE, "S2", "new"));
	call(f, 'a', "S2");
	loop_until(f, 1);
	assert_false(row_exists(f->state_db, "pS1"));
}

static void effects_may_add_more(void **state)
{
	struct fixture *f = *state;
	struct effect *a = effect_new(f, 'a', "S1");

	a->then = change(STORE_STATE, "S2", "1");
	a->after = effect_new(f, 'd', "S2");
	a->after->then = change(STORE_BOOT, "B2", "1");
	a->after->after = effect_new(f, 'e', "B2");
	save(f, STORE_STATE, "S1");
	outbox_call(f->outbox, perform, a);
	call(f, 'b', "S1");
	call(f, 'c', NULL);
	loop_until(f, 5);
	assert_string_equal(f->said, "abcde");
}

static void many_in_a_row_keep_their_order(void **state)
{
	struct fixture *f = *state;
	static char keys[MANY][16];

	for (unsigned i = 0; i < MANY; i++) {
		snprintf(keys[i], sizeof(keys[i]), "%c%u", i % 3 ? 'S' : 'B', i);
		save(f, i % 3 ? STORE_STATE : STORE_BOOT, keys[i]);
		if (i % 100 == 0)
			call(f, (char)('a' + i / 100), keys[i]);
	}
	loop_until(f, MANY / 100);
	assert_string_equal(f->said, "abcdefghijklmnopqrst");
	for (unsigned i = 0; i < MANY; i += 37) {
		char key[32];
		snprintf(key, sizeof(key), "p%.15s", keys[i]);
		assert_true(row_exists(i % 3 ? f->state_db : f->boot_db, key));
	}
}

static void a_failing_state_file_is_waited_for(void **state)
{
	struct fixture *f = *state;

	block(f, f->state_db);
	save(f, STORE_STATE, "S1");
	save(f, STORE_STATE, "S2");
	call(f, 'a', "S2");
	save(f, STORE_BOOT, "B1");
	call(f, 'b', "B1");
	loop_for(f, 1300); /* the first try and one more */
	assert_string_equal(f->said, "");
	assert_false(outbox_idle(f->outbox));
	save(f, STORE_STATE, "S3");
	call(f, 'c', "S3");
	unblock(f);
	assert_false(row_exists(f->state_db, "pS1"));
	assert_false(row_exists(f->boot_db, "pB1"));
	loop_until(f, 3);
	assert_string_equal(f->said, "abc");
	assert_true(row_exists(f->state_db, "pS1"));
}

static void a_failing_boot_file_is_waited_for(void **state)
{
	struct fixture *f = *state;

	block(f, f->boot_db);
	save(f, STORE_BOOT, "B1");
	call(f, 'a', "B1");
	save(f, STORE_STATE, "S1");
	call(f, 'b', "S1");
	loop_for(f, 1300);
	assert_string_equal(f->said, "");
	save(f, STORE_BOOT, "B2");
	call(f, 'c', "B2");
	unblock(f);
	assert_false(row_exists(f->state_db, "pS1")); /* not out of turn */
	loop_until(f, 3);
	assert_string_equal(f->said, "abc");
}

/* A state save that was queued in the same turn wakes the outbox; its retry must not be lost by that. */
static void a_wait_that_is_woken_early_goes_on(void **state)
{
	struct fixture *f = *state;
	struct effect *e = effect_new(f, 'a', "S0");

	block(f, f->boot_db);
	save(f, STORE_STATE, "S0");
	e->then = change(STORE_STATE, "S1", "1");
	outbox_call(f->outbox, perform, e);
	save(f, STORE_BOOT, "B1");
	call(f, 'b', "B1");
	while (!f->effects)
		event_base_loop(f->base, EVLOOP_ONCE);
	loop_for(f, 100);
	assert_string_equal(f->said, "a");
	unblock(f);
	loop_until(f, 2);
	assert_string_equal(f->said, "ab");
	assert_true(row_exists(f->state_db, "pS0"));
}

static void stopping_the_worker_performs_what_waits(void **state)
{
	struct fixture *f = *state;

	save(f, STORE_STATE, "S1");
	call(f, 'a', "S1");
	event_base_loop(f->base, EVLOOP_NONBLOCK); /* hands S1 to the worker */
	save(f, STORE_BOOT, "B1");
	save(f, STORE_STATE, "S2");
	call(f, 'b', "S2");
	worker_stop(f->worker);
	f->worker = NULL;
	assert_string_equal(f->said, "ab");
	assert_false(f->too_early);
}

static void freeing_drops_what_waits(void **state)
{
	struct fixture *f = *state;

	save(f, STORE_STATE, "S1");
	save(f, STORE_STATE, "S2");
	outbox_free(f->outbox);
	outbox_free(NULL);
	f->outbox = NULL;
	assert_false(row_exists(f->state_db, "pS1"));
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(with_nothing_before_it_an_effect_runs_at_once),
		CASE(boot_saves_are_made_together_when_an_effect_comes),
		CASE(boot_saves_are_made_when_the_turn_ends),
		CASE(boot_saves_are_made_at_the_end),
		CASE(effects_wait_for_the_saves_before_them),
		CASE(what_comes_together_is_saved_together),
		CASE(a_state_save_does_not_pass_a_boot_save),
		CASE(later_changes_of_a_key_win),
		CASE(effects_may_add_more),
		CASE(many_in_a_row_keep_their_order),
		CASE(a_failing_state_file_is_waited_for),
		CASE(a_failing_boot_file_is_waited_for),
		CASE(a_wait_that_is_woken_early_goes_on),
		CASE(stopping_the_worker_performs_what_waits),
		CASE(freeing_drops_what_waits),
	};

	return cmocka_run_group_tests(tests, make_root, remove_root);
}

/* The store: what is kept over a close, a kill and a boot, and the files that it refuses and must leave as they are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "daemon/store.h"

#define FILE_MAX (16 * 1024 * 1024)
#define BATCH 3
#define ROUNDS 6
#define ACKS_PER_ROUND 150

static char root[] = "/tmp/trestle-test-store-XXXXXX";

struct dirs {
	char state[128], run[128], state_db[160], boot_db[160];
};

/* SQLite's waits for the disk pass here: a function of the program goes before the C library's. */
static unsigned long waits;

int fdatasync(int fd)
{
	waits++;
	return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	waits++;
	return (int)syscall(SYS_fsync, fd);
}

static int make_dirs(void **state)
{
	static unsigned number;
	struct dirs *d = calloc(1, sizeof(*d));

	if (!d)
		return -1;
	snprintf(d->state, sizeof(d->state), "%s/%u/state", root, ++number);
	snprintf(d->run, sizeof(d->run), "%s/%u/run", root, number);
	snprintf(d->state_db, sizeof(d->state_db), "%s/state.db", d->state);
	snprintf(d->boot_db, sizeof(d->boot_db), "%s/boot.db", d->run);
	*state = d;
	return 0;
}

static int free_dirs(void **state)
{
	free(*state);
	return 0;
}

static int make_root(void **state)
{
	(void)state;
	return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof(command), "rm -r %s", root);
	return system(command);
}

static struct store *open_store(const struct dirs *d, const char *boot, bool *ret_new_boot)
{
	struct store *store = NULL;
	struct err err = {0};
	bool new_boot;

	if (store_open(d->state, d->run, boot, &store, ret_new_boot ? ret_new_boot : &new_boot, &err) < 0)
		fail_msg("%s", err.text);
	return store;
}

static void put(struct store *store, enum store_area area, enum store_kind kind, const char *key, const char *val, bool durable)
{
	struct store_change *c = store_change_new(area, kind, key, strlen(key), val, val ? strlen(val) : 0, durable);
	struct err err = {0};

	assert_non_null(c);
	if (store_apply(store, area, c, NULL, &err) < 0)
		fail_msg("%s", err.text);
	free(c);
}

struct listing {
	char text[4096];
	unsigned count, stop_at;
};

static int list_one(void *ctx, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct listing *l = ctx;
	size_t at = strlen(l->text);

	if (++l->count == l->stop_at)
		return err_set(err, ERR_INVALID, "enough");
	snprintf(l->text + at, sizeof(l->text) - at, "%.*s=%.*s ", (int)key_len, (const char *)key, (int)len, (const char *)val);
	return 0;
}

static void expect_list(struct store *store, enum store_area area, enum store_kind kind, const char *expected)
{
	struct listing l = {0};
	struct err err = {0};

	if (store_each(store, area, kind, list_one, &l, &err) < 0)
		fail_msg("%s", err.text);
	assert_string_equal(l.text, expected);
}

/* ---- keeping ---- */

static void changes_survive_close_and_open(void **state)
{
	const struct dirs *d = *state;
	struct store *store = open_store(d, "b1", NULL);
	struct stat st;

	put(store, STORE_STATE, STORE_POOL, "b", "2", true);
	put(store, STORE_STATE, STORE_POOL, "a", "1", false);
	put(store, STORE_STATE, STORE_POOL, "", "empty", false);
	put(store, STORE_STATE, STORE_NETWORK, "a", "other", true);
	put(store, STORE_STATE, STORE_POOL, "c", "", true);
	put(store, STORE_BOOT, STORE_LEASE, "x", "9", false);
	store_close(store);
	assert_int_equal(stat(d->state_db, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);

	store = open_store(d, "b1", NULL);
	expect_list(store, STORE_STATE, STORE_POOL, "=empty a=1 b=2 c= ");
	expect_list(store, STORE_STATE, STORE_NETWORK, "a=other ");
	expect_list(store, STORE_STATE, STORE_LEASE, "");
	expect_list(store, STORE_BOOT, STORE_LEASE, "x=9 ");
	put(store, STORE_STATE, STORE_POOL, "a", "3", false);
	put(store, STORE_STATE, STORE_POOL, "b", NULL, true);
	put(store, STORE_STATE, STORE_POOL, "unknown", NULL, true);
	store_close(store);

	store = open_store(d, "b1", NULL);
	expect_list(store, STORE_STATE, STORE_POOL, "=empty a=3 c= ");
	store_close(store);
	store_close(NULL);
}

static void a_new_boot_clears_the_boot_file_alone(void **state)
{
	const struct dirs *d = *state;
	bool new_boot = false;
	struct store *store = open_store(d, "b1", &new_boot);

	assert_true(new_boot);
	put(store, STORE_STATE, STORE_POOL, "p", "1", true);
	put(store, STORE_BOOT, STORE_LEASE, "l", "1", false);
	put(store, STORE_BOOT, STORE_ENDPOINT, "e", "1", false);
	store_close(store);

	store = open_store(d, "b1", &new_boot);
	assert_false(new_boot);
	expect_list(store, STORE_BOOT, STORE_LEASE, "l=1 ");
	store_close(store);

	store = open_store(d, "b12", &new_boot); /* begins like the old one */
	assert_true(new_boot);
	expect_list(store, STORE_BOOT, STORE_LEASE, "");
	expect_list(store, STORE_BOOT, STORE_ENDPOINT, "");
	expect_list(store, STORE_STATE, STORE_POOL, "p=1 ");
	put(store, STORE_BOOT, STORE_LEASE, "l", "2", false);
	store_close(store);

	store = open_store(d, "b12", &new_boot);
	assert_false(new_boot);
	expect_list(store, STORE_BOOT, STORE_LEASE, "l=2 ");
	store_close(store);
}

static void wiping_takes_one_kind(void **state)
{
	const struct dirs *d = *state;
	struct store *store = open_store(d, "b1", NULL);
	struct err err = {0};

	put(store, STORE_STATE, STORE_POOL, "a", "1", true);
	put(store, STORE_STATE, STORE_POOL, "\xff\xff", "2", true);
	put(store, STORE_STATE, (enum store_kind)(STORE_POOL - 1), "\xff", "3", true);
	put(store, STORE_STATE, (enum store_kind)(STORE_POOL + 1), "", "4", true);
	assert_int_equal(store_wipe(store, STORE_STATE, STORE_POOL, &err), 0);
	expect_list(store, STORE_STATE, STORE_POOL, "");
	expect_list(store, STORE_STATE, (enum store_kind)(STORE_POOL - 1), "\xff=3 ");
	expect_list(store, STORE_STATE, (enum store_kind)(STORE_POOL + 1), "=4 ");
	store_close(store);
}

static void a_visitor_can_stop(void **state)
{
	struct store *store = open_store(*state, "b1", NULL);
	struct listing l = {.stop_at = 2};
	struct err err = {0};

	put(store, STORE_STATE, STORE_POOL, "a", "1", false);
	put(store, STORE_STATE, STORE_POOL, "b", "2", false);
	put(store, STORE_STATE, STORE_POOL, "c", "3", false);
	assert_int_equal(store_each(store, STORE_STATE, STORE_POOL, list_one, &l, &err), -1);
	assert_string_equal(err.text, "enough");
	assert_string_equal(l.text, "a=1 ");
	store_close(store);
}

static void keys_have_a_limit(void **state)
{
	char key[STORE_KEY_MAX];
	struct store_change *c;

	(void)state;
	memset(key, 'k', sizeof(key));
	c = store_change_new(STORE_STATE, STORE_POOL, key, STORE_KEY_MAX - 1, "v", 1, true);
	assert_non_null(c);
	free(c);
	assert_null(store_change_new(STORE_STATE, STORE_POOL, key, STORE_KEY_MAX, "v", 1, true));
}

static void a_list_ends_where_it_is_told_and_is_whole_or_nothing(void **state)
{
	const struct dirs *d = *state;
	struct store *store = open_store(d, "b1", NULL);
	struct store_change *c[3];
	struct err err = {0};
	sqlite3 *other;

	for (size_t i = 0; i < 3; i++) {
		c[i] = store_change_new(STORE_STATE, STORE_POOL, (const char *[]){"a", "b", "c"}[i], 1, "1", 1, i == 1);
		assert_non_null(c[i]);
		if (i)
			c[i - 1]->next = c[i];
	}
	assert_int_equal(store_apply(store, STORE_STATE, c[0], c[2], &err), 0);
	expect_list(store, STORE_STATE, STORE_POOL, "a=1 b=1 ");

	/* Somebody else writes: refused with a reason, and the next try succeeds. */
	assert_int_equal(sqlite3_open(d->state_db, &other), SQLITE_OK);
	assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(store_apply(store, STORE_STATE, c[0], NULL, &err), -1);
	assert_int_equal(err.code, ERR_SYSTEM);
	assert_non_null(strstr(err.text, d->state_db));
	assert_non_null(strstr(err.text, "locked"));
	assert_int_equal(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(other);
	assert_int_equal(store_apply(store, STORE_STATE, c[0], NULL, &err), 0);
	expect_list(store, STORE_STATE, STORE_POOL, "a=1 b=1 c=1 ");
	for (size_t i = 0; i < 3; i++)
		free(c[i]);
	store_close(store);
}

static void durable_changes_wait_for_the_disk(void **state)
{
	struct store *store = open_store(*state, "b1", NULL);

	put(store, STORE_STATE, STORE_POOL, "a", "1", true);
	waits = 0;
	put(store, STORE_STATE, STORE_POOL, "a", "2", true);
	assert_true(waits > 0);
	waits = 0;
	for (int i = 0; i < 20; i++)
		put(store, STORE_STATE, STORE_POOL, "a", "3", false);
	assert_int_equal(waits, 0);
	put(store, STORE_STATE, STORE_POOL, "a", "4", true);
	assert_true(waits > 0);
	store_close(store);
}

/* ---- refusing ---- */

/* More than one page, all of it in the file itself. */
static void fill_files(const struct dirs *d)
{
	struct store *store = open_store(d, "b1", NULL);
	char key[16], val[200];

	memset(val, 'v', sizeof(val));
	val[sizeof(val) - 1] = '\0';
	for (int i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "key%d", i);
		put(store, STORE_STATE, STORE_POOL, key, val, false);
		put(store, STORE_BOOT, STORE_LEASE, key, val, false);
	}
	store_close(store);
}

static char *content(const char *path, size_t *ret_len)
{
	struct err err = {0};
	char *data;

	if (file_read(path, FILE_MAX, &data, ret_len, &err) < 0)
		fail_msg("%s", err.text);
	return data;
}

static void write_file(const char *path, const void *data, size_t len)
{
	FILE *f = fopen(path, "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static void run_sql(const char *path, const char *sql)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void expect_refused(const struct dirs *d, const char *path, enum err_code code, const char *word)
{
	size_t before_len, after_len;
	char *before = content(path, &before_len), *after;
	struct store *store = NULL;
	struct err err = {0};
	bool new_boot = false;

	assert_int_equal(store_open(d->state, d->run, "b1", &store, &new_boot, &err), -1);
	assert_null(store);
	assert_false(new_boot);
	if (err.code != code || !strstr(err.text, path) || !strstr(err.text, word))
		fail_msg("expected %s, \"%s\" and \"%s\", found %s: %s", err_code_name(code), path, word, err_code_name(err.code),
			err.text);
	after = content(path, &after_len);
	assert_int_equal(after_len, before_len);
	assert_memory_equal(after, before, before_len);
	free(before);
	free(after);
}

static void cut_everywhere(const struct dirs *d, const char *path, const char *advice)
{
	size_t len;
	char *whole;
	struct store *store;

	fill_files(d);
	whole = content(path, &len);
	assert_true(len > 3 * 4096);
	for (size_t i = 0; i < 11; i++) {
		size_t cut = (const size_t[]){0, 1, 15, 99, 100, 511, 512, 4095, 4096, len - 4096, len - 1}[i];
		write_file(path, whole, cut);
		expect_refused(d, path, ERR_CORRUPT, advice);
	}
	write_file(path, whole, len); /* it was the cut that was refused */
	free(whole);
	store = open_store(d, "b1", NULL);
	store_close(store);
}

static void cut_files_are_refused(void **state)
{
	const struct dirs *d = *state;

	cut_everywhere(d, d->state_db, "start as a new host");
	cut_everywhere(d, d->boot_db, "containers");
}

static void an_empty_file_is_said_to_be_empty(void **state)
{
	const struct dirs *d = *state;

	fill_files(d);
	write_file(d->state_db, "", 0);
	expect_refused(d, d->state_db, ERR_CORRUPT, "empty");
}

static void damage_in_the_middle_is_refused(void **state)
{
	const struct dirs *d = *state;
	size_t len;
	char *whole;

	fill_files(d);
	whole = content(d->state_db, &len);
	for (size_t at = 4096; at + 4096 <= len; at += 4096) {
		char *bad = malloc(len);

		assert_non_null(bad);
		memcpy(bad, whole, len);
		memset(bad + at, 0xff, 4096);
		write_file(d->state_db, bad, len);
		expect_refused(d, d->state_db, ERR_CORRUPT, "damaged");
		free(bad);
	}
	free(whole);
}

static void files_of_others_are_refused(void **state)
{
	const struct dirs *d = *state;
	char text[4096 * 3];

	fill_files(d);
	assert_int_equal(unlink(d->state_db), 0);
	run_sql(d->state_db, "CREATE TABLE kv(key, val); INSERT INTO kv VALUES('a', 'b')");
	expect_refused(d, d->state_db, ERR_CORRUPT, "not a file of trestled");
	assert_int_equal(unlink(d->state_db), 0);
	run_sql(d->state_db, "PRAGMA journal_mode=WAL; PRAGMA application_id=77; CREATE TABLE t(x)");
	expect_refused(d, d->state_db, ERR_CORRUPT, "not a file of trestled");
	memset(text, 't', sizeof(text));
	write_file(d->state_db, text, sizeof(text));
	expect_refused(d, d->state_db, ERR_CORRUPT, "not a database");
}

static void newer_files_are_refused(void **state)
{
	const struct dirs *d = *state;
	struct store *store;

	fill_files(d);
	run_sql(d->state_db, "PRAGMA user_version=2");
	expect_refused(d, d->state_db, ERR_VERSION, "newer trestled (format 2, this one knows up to 1)");
	run_sql(d->state_db, "PRAGMA user_version=1");
	run_sql(d->boot_db, "PRAGMA user_version=1000");
	expect_refused(d, d->boot_db, ERR_VERSION, "format 1000");
	run_sql(d->boot_db, "PRAGMA user_version=1");
	store = open_store(d, "b1", NULL);
	store_close(store);
}

static void what_a_death_while_making_files_left_is_no_obstacle(void **state)
{
	const struct dirs *d = *state;
	char path[200];
	struct store *store;

	fill_files(d);
	snprintf(path, sizeof(path), "%s.new", d->state_db);
	write_file(path, "half", 4);
	assert_int_equal(unlink(d->state_db), 0);
	store = open_store(d, "b1", NULL);
	expect_list(store, STORE_STATE, STORE_POOL, "");
	store_close(store);
	assert_int_equal(access(path, F_OK), -1);
}

/* ---- other processes ---- */

/* A child that holds the store until it is killed. */
static pid_t hold_store(const struct dirs *d)
{
	int ready[2];
	pid_t child;
	char byte;

	assert_int_equal(pipe(ready), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct store *store;
		struct err err = {0};
		bool new_boot;

		close(ready[0]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (store_open(d->state, d->run, "b1", &store, &new_boot, &err) < 0 || write(ready[1], "y", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return child;
}

static void end_child(pid_t child)
{
	int status;

	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
}

static void expect_locked(const struct dirs *d, pid_t by, const char *option)
{
	struct store *store = NULL;
	struct err err = {0};
	char pid[32];
	bool new_boot;

	assert_int_equal(store_open(d->state, d->run, "b2", &store, &new_boot, &err), -1);
	assert_int_equal(err.code, ERR_EXISTS);
	snprintf(pid, sizeof(pid), "process %d)", (int)by);
	if (!strstr(err.text, pid) || !strstr(err.text, option))
		fail_msg("expected \"%s\" and \"%s\", found: %s", pid, option, err.text);
}

static void one_process_at_a_time(void **state)
{
	const struct dirs *d = *state;
	struct dirs other_state = *d, other_run = *d;
	struct store *store = open_store(d, "b1", NULL);
	pid_t child;

	put(store, STORE_BOOT, STORE_LEASE, "l", "1", false);
	store_close(store);
	child = hold_store(d);
	snprintf(other_state.state, sizeof(other_state.state), "%.100s2", d->state);
	snprintf(other_run.run, sizeof(other_run.run), "%.100s2", d->run);
	expect_locked(d, child, "--state-dir");
	expect_locked(&other_run, child, "--state-dir");
	expect_locked(&other_state, child, "--run-dir");
	end_child(child);
	store = open_store(d, "b1", NULL);
	expect_list(store, STORE_BOOT, STORE_LEASE, "l=1 ");
	store_close(store);
}

static void one_directory_for_both_is_fine(void **state)
{
	const struct dirs *d = *state;
	struct dirs same = *d;
	struct store *store;

	memcpy(same.run, same.state, sizeof(same.run));
	store = open_store(&same, "b1", NULL);
	put(store, STORE_BOOT, STORE_LEASE, "l", "1", false);
	store_close(store);
	store = open_store(&same, "b1", NULL);
	expect_list(store, STORE_BOOT, STORE_LEASE, "l=1 ");
	store_close(store);
}

/* Writes batches of BATCH keys for ever, saying each number when it is acknowledged. */
static void write_for_ever(const struct dirs *d, unsigned from, int acks)
{
	struct store *store;
	struct err err = {0};
	bool new_boot;

	if (store_open(d->state, d->run, "b1", &store, &new_boot, &err) < 0)
		_exit(1);
	for (unsigned n = from;; n++) {
		enum store_area area = n % 2 ? STORE_STATE : STORE_BOOT;
		struct store_change *list = NULL;

		for (unsigned i = 0; i < BATCH; i++) {
			char key[32], val[300];
			struct store_change *c;

			snprintf(key, sizeof(key), "%08u.%u", n, i);
			memset(val, 'v', sizeof(val));
			c = store_change_new(area, STORE_POOL, key, strlen(key), val, sizeof(val), n % 3 == 0);
			c->next = list;
			list = c;
		}
		if (store_apply(store, area, list, NULL, &err) < 0 || write(acks, &n, sizeof(n)) != sizeof(n))
			_exit(1);
		while (list) {
			struct store_change *next = list->next;
			free(list);
			list = next;
		}
	}
}

struct tally {
	unsigned char *seen; /* keys found per number */
	unsigned max, highest;
};

static int tally_one(void *ctx, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct tally *t = ctx;
	char text[32];
	unsigned n;

	(void)val, (void)err;
	assert_true(key_len < sizeof(text) && len == 300);
	memcpy(text, key, key_len);
	text[key_len] = '\0';
	assert_int_equal(sscanf(text, "%u.", &n), 1);
	assert_true(n < t->max);
	t->seen[n]++;
	if (n > t->highest)
		t->highest = n;
	return 0;
}

/* What was acknowledged is there; of what was not, all or nothing. */
static unsigned check_numbers(const struct dirs *d, unsigned acked)
{
	struct tally t = {.max = 1000000};
	struct store *store = open_store(d, "b1", NULL);
	struct err err = {0};

	t.seen = calloc(t.max, 1);
	assert_non_null(t.seen);
	assert_int_equal(store_each(store, STORE_STATE, STORE_POOL, tally_one, &t, &err), 0);
	assert_int_equal(store_each(store, STORE_BOOT, STORE_POOL, tally_one, &t, &err), 0);
	for (unsigned n = 1; n <= acked; n++)
		if (t.seen[n] != BATCH)
			fail_msg("of batch %u, acknowledged, %u keys are left", n, t.seen[n]);
	for (unsigned n = acked + 1; n <= t.highest; n++)
		assert_int_equal(t.seen[n], BATCH);
	free(t.seen);
	store_close(store);
	return t.highest;
}

static void a_kill_loses_nothing_acknowledged(void **state)
{
	const struct dirs *d = *state;
	unsigned acked = 0, from = 1;

	for (unsigned round = 0; round < ROUNDS; round++) {
		int acks[2];
		pid_t child;

		assert_int_equal(pipe(acks), 0);
		child = fork();
		assert_true(child >= 0);
		if (child == 0) {
			close(acks[0]);
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			write_for_ever(d, from, acks[1]);
		}
		close(acks[1]);
		for (unsigned i = 0; i < ACKS_PER_ROUND + 7 * round; i++)
			assert_int_equal(read(acks[0], &acked, sizeof(acked)), sizeof(acked));
		end_child(child);
		while (read(acks[0], &acked, sizeof(acked)) == sizeof(acked))
			; /* what it said until it died */
		close(acks[0]);
		from = check_numbers(d, acked) + 1;
	}
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, make_dirs, free_dirs)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(changes_survive_close_and_open),
		CASE(a_new_boot_clears_the_boot_file_alone),
		CASE(wiping_takes_one_kind),
		CASE(a_visitor_can_stop),
		CASE(keys_have_a_limit),
		CASE(a_list_ends_where_it_is_told_and_is_whole_or_nothing),
		CASE(durable_changes_wait_for_the_disk),
		CASE(cut_files_are_refused),
		CASE(an_empty_file_is_said_to_be_empty),
		CASE(damage_in_the_middle_is_refused),
		CASE(files_of_others_are_refused),
		CASE(newer_files_are_refused),
		CASE(what_a_death_while_making_files_left_is_no_obstacle),
		CASE(one_process_at_a_time),
		CASE(one_directory_for_both_is_fine),
		CASE(a_kill_loses_nothing_acknowledged),
	};

	return cmocka_run_group_tests(tests, make_root, remove_root);
}

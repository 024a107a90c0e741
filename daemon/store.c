/* Keys and values in SQLite.
 *
 * A new file is made under another name and renamed when it is complete, so a file of zero bytes is damage and is said to be. WAL
 * mode: commits of a killed process are found again at the next open; `synchronous` FULL makes a commit wait for the disk, NORMAL
 * does not. */
#include "daemon/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

#define APPLICATION_ID 0x54525354 /* "TRST": PRAGMA application_id, tells our files from other SQLite files */
#define PAGE_SIZE_MIN 512	  /* SQLite's smallest page */

struct area {
	sqlite3 *db;
	sqlite3_stmt *put, *del, *each;
	int synchronous; /* as last set: 1 NORMAL, 2 FULL */
	char path[4200];
	const char *advice; /* what to do when the file is damaged */
};

struct store {
	struct area areas[2];
	int lock_fds[2];
};

/* Other names than each other's: both may be in one directory. */
static const struct {
	const char *file, *lock, *option, *advice;
} area_names[] = {
	[STORE_STATE] = {"state.db", "lock", "state-dir",
		"restore it, or move it and its log (-wal) away to start as a new host"},
	[STORE_BOOT] = {"boot.db", "boot.lock", "run-dir",
		"stop the containers of this host's networks and move it away, or reboot"},
};

struct store_change *store_change_new(
	enum store_area area, enum store_kind kind, const void *key, size_t key_len, const void *val, size_t len, bool durable)
{
	struct store_change *c;

	if (key_len + 1 > STORE_KEY_MAX)
		return NULL;
	c = calloc(1, sizeof(*c) + 1 + key_len + len);
	if (!c)
		return NULL;
	c->area = area;
	c->durable = durable;
	c->key_len = key_len + 1;
	c->gone = val == NULL;
	c->len = val ? len : 0;
	c->bytes[0] = (unsigned char)kind;
	memcpy(c->bytes + 1, key, key_len);
	if (val && len)
		memcpy(c->bytes + 1 + key_len, val, len);
	return c;
}

static int db_error(const struct area *a, const char *doing, struct err *err)
{
	int code = sqlite3_errcode(a->db);

	if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB)
		return err_set(err, ERR_CORRUPT, "%s: %s: %s. The file is damaged; %s", a->path, doing, sqlite3_errmsg(a->db),
			a->advice);
	return err_set(err, ERR_SYSTEM, "%s: %s: %s", a->path, doing, sqlite3_errmsg(a->db));
}

static int run_sql(struct area *a, const char *sql, const char *doing, struct err *err)
{
	if (sqlite3_exec(a->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		return db_error(a, doing, err);
	return 0;
}

static int read_int(struct area *a, const char *sql, int *ret, struct err *err)
{
	sqlite3_stmt *s;

	if (sqlite3_prepare_v2(a->db, sql, -1, &s, NULL) != SQLITE_OK || sqlite3_step(s) != SQLITE_ROW) {
		db_error(a, "reading", err);
		sqlite3_finalize(s);
		return -1;
	}
	*ret = sqlite3_column_int(s, 0);
	sqlite3_finalize(s);
	return 0;
}

static int sync_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC), result;

	if (fd < 0)
		return -1;
	result = fsync(fd);
	close(fd);
	return result;
}

/* Nobody reads it before it has its name. So it needs no journal, and is waited for once, when it is complete. */
static int create_file(const struct area *a, struct err *err)
{
	struct area n = {.advice = a->advice};
	char sql[512];
	int result = -1;

	if ((size_t)snprintf(n.path, sizeof(n.path), "%s.new", a->path) >= sizeof(n.path))
		return err_set(err, ERR_TOO_BIG, "%s: the path is too long", a->path);
	unlink(n.path);
	snprintf(sql, sizeof(sql),
		"PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN; "
		"PRAGMA application_id=%d; PRAGMA user_version=%d; CREATE TABLE kv(key BLOB PRIMARY KEY, val BLOB NOT NULL) "
		"WITHOUT ROWID; COMMIT; PRAGMA journal_mode=WAL;",
		APPLICATION_ID, STORE_VERSION);
	if (sqlite3_open(n.path, &n.db) != SQLITE_OK)
		db_error(&n, "creating", err);
	else if (run_sql(&n, sql, "creating", err) == 0)
		result = 0;
	sqlite3_close(n.db);
	if (result == 0 && (chmod(n.path, 0600) < 0 || sync_file(n.path) < 0 || rename(n.path, a->path) < 0))
		result = err_sys(err, errno, "%s: creating", a->path);
	return result;
}

static bool has_log(const struct area *a)
{
	struct stat st;
	char path[4300];

	snprintf(path, sizeof(path), "%s-wal", a->path);
	return stat(path, &st) == 0 && st.st_size > 0;
}

/* After a kill the last saves are in the log only, and SQLite would take them for those of a new file. */
static int log_alone(const struct area *a, struct err *err)
{
	return err_set(err, ERR_CORRUPT,
		"%s is not there, but its log %s-wal is, with what was saved last; restore the file, or move "
		"the log away too",
		a->path, a->path);
}

/* SQLite fills half a page at the end with zeros and finds no fault in it. Rightly so while there is a log: it has that page
 * whole. */
static int check_whole_pages(struct area *a, off_t size, struct err *err)
{
	int page;

	if (read_int(a, "PRAGMA page_size", &page, err) < 0)
		return -1;
	if (size % page && !has_log(a))
		return err_set(err, ERR_CORRUPT, "%s: the file is damaged, cut short (%lld bytes are no whole pages of %d); %s",
			a->path, (long long)size, page, a->advice);
	return 0;
}

static int check_file(struct area *a, off_t size, struct err *err)
{
	int app, version, broken;

	if (read_int(a, "PRAGMA application_id", &app, err) < 0 || read_int(a, "PRAGMA user_version", &version, err) < 0)
		return -1;
	if (app != APPLICATION_ID)
		return err_set(err, ERR_CORRUPT, "%s: not a file of trestled (application id %d, expected %d)", a->path, app,
			APPLICATION_ID);
	if (version > STORE_VERSION)
		return err_set(err, ERR_VERSION,
			"%s: made by a newer trestled (format %d, this one knows up to %d). Install that version again", a->path,
			version, STORE_VERSION);
	if (check_whole_pages(a, size, err) < 0)
		return -1;
	if (read_int(a, "SELECT count(*) FROM pragma_quick_check WHERE quick_check <> 'ok'", &broken, err) < 0)
		return -1;
	if (broken)
		return err_set(err, ERR_CORRUPT, "%s: the file is damaged (PRAGMA quick_check finds %d faults); %s", a->path,
			broken, a->advice);
	return 0;
}

/* The checks read through a read-only handle first, so that a file we refuse stays as it is, byte for byte. */
static int check_read_only(struct area *a, struct err *err)
{
	struct stat st;
	int result;

	if (stat(a->path, &st) < 0 && errno != ENOENT)
		return err_sys(err, errno, "%s", a->path);
	if (stat(a->path, &st) < 0)
		return has_log(a) ? log_alone(a, err) : create_file(a, err);
	if (st.st_size == 0)
		return err_set(err, ERR_CORRUPT, "%s: the file is empty, expected a database; %s", a->path, a->advice);
	if (st.st_size < PAGE_SIZE_MIN) /* SQLite takes it for a database without tables */
		return err_set(err, ERR_CORRUPT, "%s: the file is damaged, cut short to %lld bytes; %s", a->path,
			(long long)st.st_size, a->advice);
	if (sqlite3_open_v2(a->path, &a->db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK)
		result = db_error(a, "opening", err);
	else
		result = check_file(a, st.st_size, err);
	sqlite3_close(a->db);
	a->db = NULL;
	return result;
}

static int prepare(struct area *a, const char *sql, sqlite3_stmt **ret_statement, struct err *err)
{
	if (sqlite3_prepare_v3(a->db, sql, -1, SQLITE_PREPARE_PERSISTENT, ret_statement, NULL) != SQLITE_OK)
		return db_error(a, "opening", err);
	return 0;
}

static int open_area(struct area *a, struct err *err)
{
	if (check_read_only(a, err) < 0)
		return -1;
	if (sqlite3_open_v2(a->path, &a->db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
		return db_error(a, "opening", err);
	if (run_sql(a,
		    "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-512; PRAGMA wal_autocheckpoint=256",
		    "opening", err) < 0)
		return -1;
	a->synchronous = 1;
	if (prepare(a, "INSERT OR REPLACE INTO kv VALUES(?1, ?2)", &a->put, err) < 0 ||
		prepare(a, "DELETE FROM kv WHERE key = ?1", &a->del, err) < 0 ||
		prepare(a, "SELECT key, val FROM kv WHERE key >= ?1 AND key < ?2 ORDER BY key", &a->each, err) < 0)
		return -1;
	return 0;
}

static int lock_dir(const char *dir, enum store_area area, int *ret_fd, struct err *err)
{
	char path[4200], pid[32] = "";
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, area_names[area].lock);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(err, errno, "%s", path);
	*ret_fd = fd;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (read(fd, pid, sizeof(pid) - 1) <= 0)
			snprintf(pid, sizeof(pid), "unknown");
		return err_set(err, ERR_EXISTS,
			"%s: another trestled (process %s) uses this directory; stop it, or give this one another --%s", path,
			pid, area_names[area].option);
	}
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	if (ftruncate(fd, 0) < 0 || write(fd, pid, strlen(pid)) < 0)
		return err_sys(err, errno, "%s", path);
	return 0;
}

/* Locks first: what another process writes must not be judged. */
static int open_areas(struct store *store, const char *const dirs[2], struct err *err)
{
	for (size_t i = 0; i < 2; i++)
		if (lock_dir(dirs[i], (enum store_area)i, &store->lock_fds[i], err) < 0)
			return -1;
	for (size_t i = 0; i < 2; i++) {
		struct area *a = &store->areas[i];
		a->advice = area_names[i].advice;
		snprintf(a->path, sizeof(a->path), "%s/%s", dirs[i], area_names[i].file);
		if (open_area(a, err) < 0)
			return -1;
	}
	return 0;
}

/* The boot id itself is kept under the empty key of its own kind. */
#define BOOT_ID_KIND 'b'

struct text_match {
	const char *text;
	bool same;
};

static int compare_boot_id(void *ctx, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct text_match *m = ctx;

	(void)key, (void)key_len, (void)err;
	m->same = len == strlen(m->text) && memcmp(val, m->text, len) == 0;
	return 0;
}

static int enter_boot(struct store *store, const char *boot_id, bool *ret_new_boot, struct err *err)
{
	struct text_match match = {.text = boot_id};
	struct store_change *c;
	int result;

	if (store_each(store, STORE_BOOT, BOOT_ID_KIND, compare_boot_id, &match, err) < 0)
		return -1;
	*ret_new_boot = !match.same;
	if (match.same)
		return 0;
	if (run_sql(&store->areas[STORE_BOOT], "DELETE FROM kv", "clearing what an earlier boot left", err) < 0)
		return -1;
	c = store_change_new(STORE_BOOT, BOOT_ID_KIND, "", 0, boot_id, strlen(boot_id), false);
	result = c ? store_apply(store, STORE_BOOT, c, NULL, err) : err_set(err, ERR_INTERNAL, "out of memory");
	free(c);
	return result;
}

/* SQLite's pools, made for many statements a second: 48 KiB and 20 pages for each of two small files, all touched at once. And
 * its counts of memory, which nobody reads: a lock, and a question to the C library, for each piece.
 * Refused when SQLite runs already, by a test that opened a file before. */
static void keep_small(void)
{
	sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0);
	sqlite3_config(SQLITE_CONFIG_PAGECACHE, NULL, 0, 0);
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

int store_open(const char *state_dir, const char *run_dir, const char *boot_id, struct store **ret_store, bool *ret_new_boot,
	struct err *err)
{
	const char *const dirs[] = {[STORE_STATE] = state_dir, [STORE_BOOT] = run_dir};
	struct store *store;
	bool new_boot;

	keep_small();
	if (file_make_dirs(state_dir, 0700, err) < 0 || file_make_dirs(run_dir, 0755, err) < 0)
		return -1;
	store = calloc(1, sizeof(*store));
	if (!store)
		return err_set(err, ERR_INTERNAL, "out of memory");
	store->lock_fds[0] = store->lock_fds[1] = -1;
	if (open_areas(store, dirs, err) < 0 || enter_boot(store, boot_id, &new_boot, err) < 0) {
		store_close(store);
		return -1;
	}
	*ret_store = store;
	*ret_new_boot = new_boot;
	return 0;
}

void store_close(struct store *store)
{
	if (!store)
		return;
	for (size_t i = 0; i < 2; i++) {
		sqlite3_finalize(store->areas[i].put);
		sqlite3_finalize(store->areas[i].del);
		sqlite3_finalize(store->areas[i].each);
		sqlite3_close(store->areas[i].db);
	}
	for (size_t i = 0; i < 2; i++)
		if (store->lock_fds[i] >= 0)
			close(store->lock_fds[i]);
	free(store);
}

static int remove_files(const char *dir, enum store_area area, struct err *err)
{
	static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
	char path[4200];

	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s%s", dir, area_names[area].file, suffixes[i]);
		if (unlink(path) < 0 && errno != ENOENT)
			return err_sys(err, errno, "remove %s", path);
	}
	snprintf(path, sizeof(path), "%s/%s", dir, area_names[area].lock);
	return unlink(path) < 0 && errno != ENOENT ? err_sys(err, errno, "remove %s", path) : 0;
}

int store_remove(const char *state_dir, const char *run_dir, int (*first)(void *arg, struct err *err), void *arg, struct err *err)
{
	const char *const dirs[] = {[STORE_STATE] = state_dir, [STORE_BOOT] = run_dir};
	int fds[2] = {-1, -1}, ret;

	ret = file_make_dirs(state_dir, 0700, err) < 0 ? -1 : file_make_dirs(run_dir, 0755, err);
	for (size_t i = 0; i < 2 && ret == 0; i++)
		ret = lock_dir(dirs[i], (enum store_area)i, &fds[i], err);
	if (ret == 0)
		ret = first(arg, err);
	for (size_t i = 0; i < 2 && ret == 0; i++)
		ret = remove_files(dirs[i], (enum store_area)i, err);
	for (size_t i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return ret;
}

int store_each(struct store *store, enum store_area area, enum store_kind kind,
	int (*fn)(void *ctx, const void *key, size_t key_len, const void *val, size_t len, struct err *err), void *ctx,
	struct err *err)
{
	struct area *a = &store->areas[area];
	unsigned char from = (unsigned char)kind, to = (unsigned char)(kind + 1);
	sqlite3_stmt *s = a->each;
	int step, result = 0;

	sqlite3_bind_blob(s, 1, &from, 1, SQLITE_STATIC);
	sqlite3_bind_blob(s, 2, &to, 1, SQLITE_STATIC);
	while (result == 0 && (step = sqlite3_step(s)) != SQLITE_DONE) {
		const unsigned char *key = sqlite3_column_blob(s, 0);
		if (step != SQLITE_ROW)
			result = db_error(a, "reading", err);
		else
			result = fn(ctx, key + 1, (size_t)sqlite3_column_bytes(s, 0) - 1, sqlite3_column_blob(s, 1),
				(size_t)sqlite3_column_bytes(s, 1), err);
	}
	sqlite3_reset(s);
	sqlite3_clear_bindings(s);
	return result;
}

static int apply_one(struct area *a, const struct store_change *c, struct err *err)
{
	sqlite3_stmt *s = c->gone ? a->del : a->put;
	int step;

	sqlite3_bind_blob(s, 1, c->bytes, (int)c->key_len, SQLITE_STATIC);
	if (!c->gone)
		sqlite3_bind_blob(s, 2, c->len ? c->bytes + c->key_len : (const void *)"", (int)c->len, SQLITE_STATIC);
	step = sqlite3_step(s);
	sqlite3_reset(s);
	sqlite3_clear_bindings(s);
	return step == SQLITE_DONE ? 0 : db_error(a, "writing", err);
}

static int set_synchronous(struct area *a, bool durable, struct err *err)
{
	int want = durable ? 2 : 1;

	if (a->synchronous == want)
		return 0;
	if (run_sql(a, durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL", "writing", err) < 0)
		return -1;
	a->synchronous = want;
	return 0;
}

int store_apply(struct store *store, enum store_area area, const struct store_change *list, const struct store_change *end,
	struct err *err)
{
	struct area *a = &store->areas[area];
	bool durable = false;

	for (const struct store_change *c = list; c != end; c = c->next)
		durable |= c->durable;
	if (set_synchronous(a, durable, err) < 0 || run_sql(a, "BEGIN IMMEDIATE", "writing", err) < 0)
		return -1;
	for (const struct store_change *c = list; c != end; c = c->next)
		if (apply_one(a, c, err) < 0) {
			run_sql(a, "ROLLBACK", "writing", NULL);
			return -1;
		}
	if (run_sql(a, "COMMIT", "writing", err) < 0) {
		run_sql(a, "ROLLBACK", "writing", NULL);
		return -1;
	}
	return 0;
}

static int wipe_kind(struct area *a, enum store_kind kind, struct err *err)
{
	char sql[96];

	snprintf(sql, sizeof(sql), "DELETE FROM kv WHERE key >= x'%02x' AND key < x'%02x'", kind, kind + 1);
	return run_sql(a, sql, "clearing", err);
}

int store_replace(struct store *store, enum store_area area, const enum store_kind *kinds, size_t kind_count,
	const struct store_change *list, struct err *err)
{
	struct area *a = &store->areas[area];
	int result = 0;

	if (set_synchronous(a, true, err) < 0 || run_sql(a, "BEGIN IMMEDIATE", "writing", err) < 0)
		return -1;
	for (size_t i = 0; i < kind_count && result == 0; i++)
		result = wipe_kind(a, kinds[i], err);
	for (const struct store_change *c = list; c && result == 0; c = c->next)
		result = apply_one(a, c, err);
	if (result == 0)
		result = run_sql(a, "COMMIT", "writing", err);
	if (result < 0)
		run_sql(a, "ROLLBACK", "writing", NULL);
	return result;
}

int store_wipe(struct store *store, enum store_area area, enum store_kind kind, struct err *err)
{
	return wipe_kind(&store->areas[area], kind, err);
}

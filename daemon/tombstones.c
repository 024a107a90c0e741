/* Word of what was deleted while no daemon ran. Then DEL leaves RUN_DIR/tombstones/CONFIG:CONTAINER:INTERFACE, written beside and
 * renamed. It is acted on before the first call is taken, every few seconds, and before an attachment of that name is made. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "base/file.h"
#include "base/alloc.h"
#include "daemon/waiters.h"
#include "daemon/workloads_internal.h"

#define TOMBSTONES_MS 10000 /* left while a daemon runs, which is rare; looking costs an idle one as much as a packet */
#define TOMBSTONES_MAX 1024 /* looked at in one go */
#define TOMBSTONE_SIZE_MAX 4096

static void tombstone_dir(const struct node *node, char buf[OPTIONS_PATH_MAX + 32])
{
	snprintf(buf, OPTIONS_PATH_MAX + 32, "%s/tombstones", node->options.run_dir);
}

/* One that is acted on. What it asks for is saved before the word itself goes, and until then nobody takes it for another one. */
struct tombstone {
	struct node *node;
	char path[OPTIONS_PATH_MAX + WORKLOAD_KEY_SIZE + 64];
	struct waiter *waiting;
	struct tombstone *prev, *next; /* node->tombstones */
};

static void unlink_tombstone(void *arg)
{
	struct tombstone *t = arg;
	struct waiter *waiting = t->waiting;

	if (unlink(t->path) < 0 && errno != ENOENT)
		log_warn("workloads", "remove %s: %s", t->path, strerror(errno));
	DL_DELETE(t->node->tombstones, t);
	free(t);
	waiters_tell(waiting);
}

static void tombstone_settled(void *arg)
{
	struct tombstone *t = arg;

	outbox_call(t->node->outbox, unlink_tombstone, t);
}

/* It names an attachment as a call does, and is held against the same limits. */
static int read_tombstone(const char *path, json_t **ret_root, struct err *err)
{
	char *data;
	size_t len;
	int result;

	if (file_read(path, TOMBSTONE_SIZE_MAX, &data, &len, err) < 0)
		return -1;
	result = control_body(CONTROL_IPAM_RELEASE, data, len, ret_root, err);
	free(data);
	return result < 0 ? err_prefix(err, "%s", path) : 0;
}

static struct tombstone *tombstone_find(struct node *node, const char *path)
{
	struct tombstone *t;

	DL_FOREACH(node->tombstones, t)
	if (strcmp(t->path, path) == 0)
		break;
	return t;
}

static struct tombstone *tombstone_new(struct node *node, const char *path)
{
	struct tombstone *t = alloc_new(struct tombstone);

	t->node = node;
	snprintf(t->path, sizeof(t->path), "%s", path);
	DL_APPEND(node->tombstones, t);
	return t;
}

/* fn (may be NULL) when it is settled. */
static void act_on(struct node *node, const char *path, void (*fn)(void *arg), void *arg)
{
	struct tombstone *t = tombstone_find(node, path);
	struct workload *w = NULL;
	json_t *root = NULL;
	struct err err;

	if (t) {
		waiters_add(&t->waiting, fn, arg);
		return;
	}
	t = tombstone_new(node, path);
	waiters_add(&t->waiting, fn, arg);
	if (read_tombstone(path, &root, &err) < 0)
		log_warn("workloads", "%s; removing it", err.text);
	else
		w = workload_of(node, root);
	json_decref(root);
	if (w) {
		log_info("workloads", "%s was deleted while no daemon ran", w->key);
		workload_remove(node, w, tombstone_settled, t);
	} else {
		tombstone_settled(t);
	}
}

void tombstones_act(struct node *node)
{
	char dir[OPTIONS_PATH_MAX + 32], path[OPTIONS_PATH_MAX + WORKLOAD_KEY_SIZE + 64];
	DIR *d;
	struct dirent *entry;
	unsigned count = 0;

	tombstone_dir(node, dir);
	d = opendir(dir);
	if (!d)
		return;
	/* cppcheck-suppress readdirCalled ; the stream is this call's own */
	while (count++ < TOMBSTONES_MAX && (entry = readdir(d))) {
		size_t len = strlen(entry->d_name);

		/* One that is being written is a .tmp still. */
		if (entry->d_name[0] == '.' || (len > 4 && strcmp(entry->d_name + len - 4, ".tmp") == 0))
			continue;
		if (snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name) < (int)sizeof(path))
			act_on(node, path, NULL, NULL);
	}
	closedir(d);
}

void workload_unbury(struct node *node, json_t *attachment, void (*fn)(void *arg), void *arg)
{
	char dir[OPTIONS_PATH_MAX + 32], path[OPTIONS_PATH_MAX + WORKLOAD_KEY_SIZE + 64], key[WORKLOAD_KEY_SIZE];

	workload_key(key, attachment);
	tombstone_dir(node, dir);
	snprintf(path, sizeof(path), "%s/%s", dir, key);
	if (access(path, F_OK) == 0 || tombstone_find(node, path))
		act_on(node, path, fn, arg);
	else
		fn(arg);
}

void tombstones_tick(struct node *node, uint64_t now)
{
	if (now - node->last_tombstones_ms < TOMBSTONES_MS)
		return;
	node->last_tombstones_ms = now;
	tombstones_act(node);
}

void tombstones_stop(struct node *node)
{
	struct tombstone *t, *next;

	DL_FOREACH_SAFE(node->tombstones, t, next)
	{
		DL_DELETE(node->tombstones, t);
		free(t);
	}
}

/* What the daemon remembers: two SQLite files of keys and values.
 *
 * STORE_STATE (STATE-DIR/state.db) survives a reboot: identity, cluster key, custody of addresses, networks.
 * STORE_BOOT  (RUN-DIR/boot.db) is cleared when the boot id changes: endpoints and leases mean nothing without their containers.
 *
 * Both use a write-ahead log, so a killed process loses nothing that was written. A durable write is on disk when it returns.
 * After store_open the state file belongs to the worker thread, the boot file to the loop thread; each call names its area.
 *
 * The first byte of a key says whose it is; enum store_kind is the list. */
#ifndef DAEMON_STORE_H
#define DAEMON_STORE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define STORE_VERSION 1
#define STORE_KEY_MAX 256

enum store_area { STORE_STATE, STORE_BOOT };

enum store_kind {
	/* state */
	STORE_IDENTITY = 'i',
	STORE_CLUSTER = 'c',
	STORE_GOSSIP = 'g',
	STORE_IPAM = 'a',
	STORE_NETWORK = 'n',
	STORE_DOCKER_NETWORK = 'd',
	STORE_POOL = 'p',
	STORE_HOSTNO = 'h',
	STORE_LEAVING = 'x', /* it says goodbye: the next start is somebody else's */
	STORE_MACHINE = 'm', /* which machine this state belongs to */
	STORE_MARK = 'k',    /* what the state has come to; also in the boot file */
	STORE_FREEZE = 'f',  /* the host is frozen */
	/* boot */
	STORE_LEASE = 'l',
	STORE_ENDPOINT = 'e',
	STORE_WORKLOAD = 'w',
};

struct store;

struct store_change {
	struct store_change *next;
	enum store_area area;
	bool durable;
	size_t key_len, len;
	bool gone;	       /* removes the key */
	unsigned char bytes[]; /* key, then value */
};

struct store_change *store_change_new(enum store_area area, enum store_kind kind, const void *key, size_t key_len,
	const void *val, size_t len, bool durable); /* val NULL: removes. NULL: out of memory, or a key over the limit */

/* Takes a lock on each directory (they may be the same). A file that is cut short, not ours, or from a newer version: an error
 * that says which, file untouched. */
int store_open(const char *state_dir, const char *run_dir, const char *boot_id, struct store **ret_store, bool *ret_new_boot,
	struct err *err);
void store_close(struct store *store);
/* The files themselves, damaged or not, under the locks of store_open and only after first() has returned 0. */
int store_remove(
	const char *state_dir, const char *run_dir, int (*first)(void *arg, struct err *err), void *arg, struct err *err);
/* Visits the keys of one kind (without the kind byte), in key order. fn returns -1 with err filled to stop; it does not
 * visit the same area. */
int store_each(struct store *store, enum store_area area, enum store_kind kind,
	int (*fn)(void *ctx, const void *key, size_t key_len, const void *val, size_t len, struct err *err), void *ctx,
	struct err *err);
/* All changes of the list up to `end` (exclusive) in one transaction; all of one area. */
int store_apply(struct store *store, enum store_area area, const struct store_change *list, const struct store_change *end,
	struct err *err);
/* In one transaction: every key of these kinds goes, then the list is written, durably. */
int store_replace(struct store *store, enum store_area area, const enum store_kind *kinds, size_t kind_count,
	const struct store_change *list, struct err *err);
/* Removes every key of a kind. */
int store_wipe(struct store *store, enum store_area area, enum store_kind kind, struct err *err);

#endif

/* What really happened, against which every copy is held.
 *
 * Per origin and key: the version of its last write and of its last deletion. Every value carries its version. Checked on the
 *spot:
 *
 *	- nobody sees a value that its origin did not write, nor an older one after a newer one, nor one that it saw deleted (R1,
 *R3)
 *	- nobody sees the same value twice, nor a deletion that did not happen: restarts do not flicker (R4, R5)
 *	- a copy with head h has exactly what its origin has up to h (R2, R3), its lists and sums are sound
 *	- no copy of a topic is kept by a host that does not subscribe to it (of those that not all keep)
 *	- no conflict is counted unless the scenario made one (R6)
 *
 * And when all is quiet: all copies equal the origins', all roots of what two hosts share are equal, all hosts agree on who is
 * alive. */
#ifndef TESTS_SIM_TRUTH_H
#define TESTS_SIM_TRUTH_H

#include "tests/sim/world.h"

struct truth_key {
	uint32_t origin, zero;
	uint64_t topic;
	char key[24];
};

struct truth_entry {
	struct truth_key id;
	uint64_t version;	  /* of the last write */
	uint64_t deleted_version; /* version of the last write that was deleted */
	bool live;
	UT_hash_handle hh;
};

struct truth {
	uint64_t version;
	struct truth_entry *entries;
	bool conflicts_expected;
};

/* What one host has seen, since it started. */
struct truth_seen {
	struct truth_key id;
	uint64_t version;
	bool live;
	UT_hash_handle hh;
};

struct truth_host {
	struct truth_seen *seen;
};

struct truth *truth_new(void);
void truth_free(struct truth *truth);
struct truth_host *truth_host_new(void);
void truth_host_free(struct truth_host *host);

struct truth_entry *truth_find(struct truth *truth, uint32_t origin, uint64_t topic, const char *key);
/* Notes a write or deletion; returns the entry. */
struct truth_entry *truth_write(struct truth *truth, uint32_t origin, uint64_t topic, const char *key, bool live);
/* The value that belongs to a version of a key. */
size_t truth_value(const struct truth_entry *entry, char buf[64]);

/* The checker's part of ops->record; only keys that begin with 'k' are held against the truth. */
void truth_on_record(
	struct sim_host *host, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len);
/* It has left the topic: what it sees when it is back is new to it. */
void truth_forget_topic(struct sim_host *host, uint64_t topic);
/* Any time: one host's copies against their origins. */
void truth_check_host(struct world *w, unsigned host);
/* When quiet: true when all are equal; with `why`, says what is not. */
bool truth_converged(struct world *w, char *why, size_t why_size);
/* Whether all running hosts believe exactly the running ones alive, and have equal tables. */
bool truth_members_agree(struct world *w, char *why, size_t why_size);

#endif

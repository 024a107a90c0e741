/* Memory of one simulated host that shares what is equal with the others: for clusters of thousands.
 *
 * In a cluster of n hosts each knows n - 1 others, so a world of 5,000 holds 25 million members and as many shards. Nearly all of
 * it is the same on every host. Here a host's core lives in a *window*, at one fixed address, into which the pages of the host
 * that acts are moved (mremap: page tables move, no byte is copied). All hosts begin as private mappings of one *image*, in which
 * a core was built; a page that a host writes to becomes its own, all others exist once.
 *
 * Where there is memory for as many copies as there are hosts, each has one of its own instead, in its own place: a word that
 * points into the image is made to point into the copy. Then nothing is mapped when another host acts, and a world of 1,000 runs
 * twice as fast.
 *
 * While `arena_on`, malloc and its kin serve from the window; outside of the core's calls they are the C library's. */
#ifndef TESTS_SIM_ARENA_H
#define TESTS_SIM_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Not with the sanitizers, which bring a malloc of their own. */
bool arena_possible(void);
/* A fresh image in the window, allocation on: build in it, then arena_image_close. One set of hosts at a time. */
void arena_image_open(void);
void arena_image_close(unsigned hosts);		   /* the image is fixed; every host 0..hosts-1 has it */
void *arena_object(unsigned host, void *in_image); /* where the host, once it entered, has it */
/* Maps the host's memory into the window, and turns allocation there on. */
void arena_enter(unsigned host);
void arena_leave(void); /* allocation off; the window keeps the host's memory until another enters */
/* For callbacks out of the core: allocation off, and as it was again. */
bool arena_pause(void);
void arena_resume(bool was);
void arena_close(void); /* everything goes, without any destructor having been called */
/* Bytes that exist: the image once, and the pages that hosts have of their own. */
uint64_t arena_bytes(void);

#endif

/* uthash, whose tables and buckets are memory like all other (alloc.h). Left to itself it ends the process without a word when
 * there is none, and by what a regular end runs, in the middle of a change. */
#ifndef BASE_UTHASH_H
#define BASE_UTHASH_H

#include "base/alloc.h"

#define uthash_malloc(size) alloc_zeroed(1, size, "hash table of " __FILE__)
#define uthash_bzero(at, size) ((void)0)
#define uthash_fatal(why) alloc_made(NULL, "hash table") /* uthash_malloc is never NULL; the library has to be told something */
#include <uthash.h>

#endif

/* Rateless invertible Bloom lookup tables (arXiv 2402.02668) over the heads of shards: what tells two sets apart, in about 1.4
 * to 1.8 symbols for each item that only one of them has, however big they are. Pure data.
 *
 * A set's *symbols* are an endless row. Each symbol holds the number of the items that fall into it, their sum (exclusive or of
 * their bytes) and the sum (exclusive or) of their hashes. An item falls into symbol 0 and from there on into ever rarer ones,
 * by a row of gaps that follows from its hash. Symbols of two sets subtract to the symbols of what only one of them has; one with
 * a single item in it shows it, and taken out of its other symbols it uncovers more. Done when symbol 0 is empty, since every
 * item is in that. Who has the beginning of the row and needs more asks on from there: nothing is thrown away.
 *
 * The hash is keyed for each comparison by who asks, so no choice of heads makes two sets hard to tell apart. The bytes of an
 * item and a symbol: docs/wire.md, "Sketches". */
#ifndef GOSSIP_SKETCH_INTERNAL_H
#define GOSSIP_SKETCH_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gossip/proto_internal.h"

#define SKETCH_SYMBOLS_MAX 4096 /* of one comparison; more differences than these are not worth it */

struct sketch_symbol {
	uint16_t count; /* modulo 2^16, of theirs less ours */
	uint8_t sum[SKETCH_ITEM_SIZE];
	uint64_t check;
};

/* One that only one side has. */
struct sketch_found {
	bool theirs;
	struct proto_head head;
};

/* Adds (or takes out, which differs in the count only) one item to symbols [first, first + count) of a row. */
void sketch_add(struct sketch_symbol *symbols, uint32_t first, uint32_t count, const uint8_t key[SKETCH_KEY_SIZE],
	const struct proto_head *head, bool theirs);
/* Takes apart the first `count` symbols of a difference. Returns true when nothing is left unexplained: then *ret_found items are
 * in `found`, which has room for `count`. Changes the symbols. */
bool sketch_peel(struct sketch_symbol *symbols, uint32_t count, const uint8_t key[SKETCH_KEY_SIZE], struct sketch_found *found,
	uint32_t *ret_found);

#endif

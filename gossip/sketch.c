/* See sketch_internal.h. All arithmetic is of integers, so that every implementation walks the same row. */
#include "gossip/sketch_internal.h"

#include <math.h>
#include <sodium.h>
#include <string.h>

_Static_assert(SKETCH_KEY_SIZE == crypto_shorthash_KEYBYTES, "the key of SipHash-2-4");

struct item {
	uint8_t bytes[SKETCH_ITEM_SIZE];
	uint64_t hash;
};

static void make_item(struct item *item, const uint8_t *key)
{
	uint8_t out[crypto_shorthash_BYTES];
	struct bytes_reader r;

	crypto_shorthash(out, item->bytes, sizeof(item->bytes), key);
	br_init(&r, out, sizeof(out));
	item->hash = br_u64(&r);
}

/* floor(sqrt(n)); the machine's root is off by one at most. */
static uint64_t root(uint64_t n)
{
	uint64_t r = (uint64_t)sqrt((double)n);

	while (r > UINT32_MAX || r * r > n)
		r--;
	while (r < UINT32_MAX && (r + 1) * (r + 1) <= n)
		r++;
	return r;
}

/* The chance that an item falls into none of the symbols behind number i up to j is ((i + 1.5) / (j + 1.5))^2: so the j is drawn,
 * with the root of a random number in 16 bits of fraction. */
static uint64_t next_index(uint64_t index, uint64_t *state)
{
	uint64_t fraction, step;

	*state = *state * 0xda942042e4dd58b5u + 1;
	fraction = root(UINT64_MAX / ((*state >> 32) + 1));
	step = ((2 * index + 3) * (fraction - 65536) + 131071) >> 17;
	return index + (step ? step : 1);
}

static void apply(struct sketch_symbol *s, const struct item *item, bool theirs)
{
	s->count = (uint16_t)(s->count + (theirs ? 1 : 0xffff));
	s->check ^= item->hash;
	for (size_t i = 0; i < sizeof(item->bytes); i++)
		s->sum[i] ^= item->bytes[i];
}

static void apply_row(struct sketch_symbol *symbols, uint32_t first, uint32_t count, const struct item *item, bool theirs)
{
	uint64_t state = item->hash;

	for (uint64_t i = 0; i < (uint64_t)first + count; i = next_index(i, &state))
		if (i >= first)
			apply(&symbols[i - first], item, theirs);
}

void sketch_add(struct sketch_symbol *symbols, uint32_t first, uint32_t count, const uint8_t key[SKETCH_KEY_SIZE],
	const struct proto_head *head, bool theirs)
{
	struct item item;

	proto_sketch_item(head, item.bytes);
	make_item(&item, key);
	apply_row(symbols, first, count, &item, theirs);
}

/* A single item, by its count and its hash; a sum that is no head belongs to none. */
static bool is_pure(const struct sketch_symbol *s, const uint8_t *key, struct item *ret_item, struct proto_head *ret_head)
{
	if (s->count != 1 && s->count != 0xffff)
		return false;
	memcpy(ret_item->bytes, s->sum, sizeof(ret_item->bytes));
	make_item(ret_item, key);
	return ret_item->hash == s->check && proto_sketch_head(ret_item->bytes, ret_head);
}

static bool is_empty(const struct sketch_symbol *s)
{
	static const uint8_t zero[SKETCH_ITEM_SIZE];

	return s->count == 0 && s->check == 0 && memcmp(s->sum, zero, sizeof(zero)) == 0;
}

/* Each round goes over all symbols: what one uncovers is mostly behind it, and seen in the same round. */
bool sketch_peel(struct sketch_symbol *symbols, uint32_t count, const uint8_t key[SKETCH_KEY_SIZE], struct sketch_found *found,
	uint32_t *ret_found)
{
	uint32_t n = 0;
	bool more = true;

	while (more) {
		more = false;
		for (uint32_t i = 0; i < count && n < count; i++) {
			struct item item;
			struct proto_head head;
			bool theirs = symbols[i].count == 1;

			if (!is_pure(&symbols[i], key, &item, &head))
				continue;
			apply_row(symbols, 0, count, &item, !theirs);
			found[n++] = (struct sketch_found){.theirs = theirs, .head = head};
			more = true;
		}
	}
	if (count == 0 || !is_empty(&symbols[0]))
		return false;
	*ret_found = n;
	return true;
}

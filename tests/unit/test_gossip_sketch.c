/* Sketches: what two sets of heads do not share comes back, at a cost that follows how much that is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/sketch_internal.h"

static const uint8_t key[SKETCH_KEY_SIZE] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

static struct proto_head head_of(uint32_t i, uint64_t head)
{
	return (struct proto_head){
		.origin = 1 + i % 5000, .topic = i / 5000, .epoch = 1 + i % 3, .head = head, .settled = i % 2 == 0};
}

static bool same_head(const struct proto_head *a, const struct proto_head *b)
{
	return a->origin == b->origin && a->topic == b->topic && a->epoch == b->epoch && a->head == b->head &&
	       a->settled == b->settled;
}

/* `shared` items are on both sides, `mine` and `theirs` on one. Returns the symbols that it took. */
static uint32_t compare(uint32_t shared, uint32_t mine, uint32_t theirs, uint32_t seed, struct sketch_found *found)
{
	static struct sketch_symbol row[SKETCH_SYMBOLS_MAX], work[SKETCH_SYMBOLS_MAX];
	uint32_t n = 0;

	memset(row, 0, sizeof(row));
	for (uint32_t i = 0; i < shared; i++) {
		struct proto_head head = head_of(i, 7);

		sketch_add(row, 0, SKETCH_SYMBOLS_MAX, key, &head, true);
		sketch_add(row, 0, SKETCH_SYMBOLS_MAX, key, &head, false);
	}
	for (uint32_t i = 0; i < mine + theirs; i++) {
		struct proto_head head = head_of(i, 1000 + seed * 1000000 + i);

		sketch_add(row, 0, SKETCH_SYMBOLS_MAX, key, &head, i >= mine);
	}
	for (uint32_t count = 1; count <= SKETCH_SYMBOLS_MAX; count += count / 32 + 1) {
		memcpy(work, row, count * sizeof(*work));
		if (!sketch_peel(work, count, key, found, &n))
			continue;
		assert_int_equal(n, mine + theirs);
		return count;
	}
	fail_msg("%u differences were not told from %d symbols", mine + theirs, SKETCH_SYMBOLS_MAX);
	return 0;
}

static void the_difference_comes_back(void **state)
{
	struct sketch_found *found = calloc(SKETCH_SYMBOLS_MAX, sizeof(*found));

	(void)state;
	assert_non_null(found);
	for (uint32_t seed = 0; seed < 20; seed++) {
		unsigned theirs = 0;

		compare(300, seed, 2 * seed, seed, found);
		for (uint32_t i = 0; i < 3 * seed; i++) {
			bool known = false;

			theirs += found[i].theirs;
			for (uint32_t k = 0; k < 3 * seed; k++) {
				struct proto_head head = head_of(k, 1000 + seed * 1000000 + k);

				known |= same_head(&head, &found[i].head) && found[i].theirs == (k >= seed);
			}
			assert_true(known);
		}
		assert_int_equal(theirs, 2 * seed);
	}
	free(found);
}

static void the_cost_follows_the_difference(void **state)
{
	static const struct {
		uint32_t differences;
		double at_most; /* symbols for each, in the mean of 20 */
	} cases[] = {{1, 1.3}, {5, 2.4}, {20, 2.0}, {100, 1.7}, {1000, 1.55}};
	struct sketch_found *found = calloc(SKETCH_SYMBOLS_MAX, sizeof(*found));

	(void)state;
	assert_non_null(found);
	for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		uint32_t d = cases[c].differences, runs = d < 1000 ? 20 : 3, symbols = 0;
		double each;

		for (uint32_t seed = 0; seed < runs; seed++)
			symbols += compare(c == 0 ? 2000 : 0, d / 2, d - d / 2, 100 + seed, found);
		each = (double)symbols / runs / d;
		print_message("%u differences: %.2f symbols for each\n", d, each);
		assert_true(each <= cases[c].at_most);
	}
	free(found);
}

static void equal_sets_need_one_symbol(void **state)
{
	struct sketch_found found[1];

	(void)state;
	assert_int_equal(compare(5000, 0, 0, 0, found), 1);
}

/* The beginning of the row and what follows, made at different times, are one row. */
static void a_row_goes_on_where_it_ended(void **state)
{
	struct sketch_symbol whole[200], parts[200];

	(void)state;
	memset(whole, 0, sizeof(whole));
	memset(parts, 0, sizeof(parts));
	for (uint32_t i = 0; i < 500; i++) {
		struct proto_head head = head_of(i, i + 1);

		sketch_add(whole, 0, 200, key, &head, i % 2);
		sketch_add(parts, 0, 33, key, &head, i % 2);
		sketch_add(parts + 33, 33, 167, key, &head, i % 2);
	}
	assert_memory_equal(whole, parts, sizeof(whole));
}

/* Whatever a peer sends as symbols: an end, and nothing that is no head. */
static void garbage_ends(void **state)
{
	static struct sketch_symbol row[512];
	static struct sketch_found found[512];
	uint32_t n;

	(void)state;
	for (unsigned round = 0; round < 200; round++) {
		uint8_t seed[randombytes_SEEDBYTES] = {(uint8_t)round};

		randombytes_buf_deterministic(row, sizeof(row), seed);
		for (unsigned i = 0; i < 512; i++)
			if (row[i].count % 3 == 0)
				row[i].count = row[i].count & 1 ? 1 : 0xffff;
		assert_false(sketch_peel(row, 512, key, found, &n));
	}
}

/* docs/wire.md, "Test vectors". */
static void documented_row(void **state)
{
	struct sketch_symbol row[20];
	struct proto_head head = {.origin = 10, .topic = 0x0102030405060708, .epoch = 3, .head = 300, .settled = true};
	char text[64] = "";

	(void)state;
	memset(row, 0, sizeof(row));
	sketch_add(row, 0, 20, key, &head, true);
	for (unsigned i = 0; i < 20; i++)
		if (row[i].count)
			snprintf(text + strlen(text), sizeof(text) - strlen(text), "%u ", i);
	assert_true(row[0].check == 0xccb2192567f34bc5);
	assert_string_equal(text, "0 1 2 3 4 7 11 ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_difference_comes_back),
		cmocka_unit_test(the_cost_follows_the_difference),
		cmocka_unit_test(equal_sets_need_one_symbol),
		cmocka_unit_test(a_row_goes_on_where_it_ended),
		cmocka_unit_test(garbage_ends),
		cmocka_unit_test(documented_row),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("gossip sketch", tests, NULL, NULL);
}

/* One host's address management: what is given, in which order, what is saved before what, and what survives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ipam/ipam_internal.h"

#define SAVED_MAX 4096
#define LOG_MAX 8192

struct saved {
	uint8_t key[IPAM_KEY_MAX], val[IPAM_VALUE_MAX];
	size_t key_len, len;
};

/* A shell that keeps everything and remembers the order: s save, S durable save, f forget, p publish, w withdraw, > send, !
 * complete. */
struct shell {
	struct ipam *ipam;
	struct saved saved[SAVED_MAX];
	unsigned saved_count;
	bool save_nothing; /* for the large ones */
	char log[LOG_MAX];
	unsigned log_len;
	struct ipam_result last;
	uint64_t last_ticket;
	unsigned completed;
	uint8_t chunk[IPAM_MESSAGE_MAX];
	size_t chunk_len;
	struct ipam_message sent;
	uint32_t sent_to;
	unsigned sent_count;
};

static void note(struct shell *s, char what)
{
	if (s->log_len < LOG_MAX - 1)
		s->log[s->log_len++] = what;
}

static void forget_log(struct shell *s)
{
	memset(s->log, 0, sizeof(s->log));
	s->log_len = 0;
}

static struct saved *saved_find(struct shell *s, const void *key, size_t key_len)
{
	for (unsigned i = 0; i < s->saved_count; i++)
		if (s->saved[i].key_len == key_len && !memcmp(s->saved[i].key, key, key_len))
			return &s->saved[i];
	return NULL;
}

static void op_save(void *ctx, const void *key, size_t key_len, const void *val, size_t len, bool durable)
{
	struct shell *s = ctx;
	struct saved *there;

	note(s, !val ? 'f' : durable ? 'S' : 's');
	assert_true(key_len <= IPAM_KEY_MAX && len <= IPAM_VALUE_MAX);
	if (s->save_nothing)
		return;
	there = saved_find(s, key, key_len);
	if (!val) {
		if (there)
			*there = s->saved[--s->saved_count];
		return;
	}
	if (!there) {
		assert_true(s->saved_count < SAVED_MAX);
		there = &s->saved[s->saved_count++];
	}
	memcpy(there->key, key, key_len);
	there->key_len = key_len;
	memcpy(there->val, val, len);
	there->len = len;
}

static void op_publish(void *ctx, const struct id128 *pool, unsigned chunk, const void *val, size_t len)
{
	struct shell *s = ctx;

	(void)pool;
	assert_true(chunk < IPAM_CHUNKS_MAX && len <= IPAM_MESSAGE_MAX);
	if (!val && chunk > 0)
		return;
	note(s, val ? 'p' : 'w');
	if (chunk == 0) {
		s->chunk_len = len;
		if (val)
			memcpy(s->chunk, val, len);
	}
}

static void op_send(void *ctx, uint32_t to_hostno, const void *msg, size_t len)
{
	struct shell *s = ctx;

	note(s, '>');
	assert_int_equal(ipam_message_decode(&s->sent, msg, len), 0);
	s->sent_to = to_hostno;
	s->sent_count++;
}

static void op_complete(void *ctx, uint64_t ticket, const struct ipam_result *result)
{
	struct shell *s = ctx;

	note(s, '!');
	s->last = *result;
	s->last_ticket = ticket;
	s->completed++;
}

static void op_random(void *ctx, void *buf, size_t len)
{
	(void)ctx;
	memset(buf, 0x55, len);
}

static const struct ipam_ops ops = {
	.save = op_save, .publish = op_publish, .send = op_send, .complete = op_complete, .random = op_random};
static const struct ipam_config config = {.hostno = 1};
static const struct id128 pool_id = {{0xaa, 1}};

static struct ipam_pool_def def_of(const char *text)
{
	struct ipam_pool_def def = {.id = pool_id, .edges_reserved = true};
	struct err err;

	assert_int_equal(prefix_parse(text, &def.prefix, &err), 0);
	return def;
}

static struct ip ip_of(const char *text)
{
	struct ip ip;
	struct err err;

	assert_int_equal(ip_parse(text, &ip, &err), 0);
	return ip;
}

static struct shell *shell_new(const char *pool)
{
	struct shell *s = calloc(1, sizeof(*s));
	struct err err;

	s->ipam = ipam_new(&config, &ops, s);
	ipam_start(s->ipam, 0);
	if (pool) {
		struct ipam_pool_def def = def_of(pool);

		assert_int_equal(ipam_pool_create(s->ipam, &def, 0, &err), 0);
	}
	return s;
}

static void shell_free(struct shell *s)
{
	ipam_free(s->ipam);
	free(s);
}

/* The daemon dies and starts again; `reboot` clears what belongs to the boot. Pairs come back in the order `step` makes. */
static void shell_restart(struct shell *s, bool reboot, unsigned step, uint64_t now_ms)
{
	unsigned count = 0;
	struct err err;

	ipam_free(s->ipam);
	s->ipam = ipam_new(&config, &ops, s);
	for (unsigned i = 0; i < s->saved_count; i++)
		if (!reboot || s->saved[i].key[0] != 'L')
			s->saved[count++] = s->saved[i];
	s->saved_count = count;
	for (unsigned i = 0, at = 0; i < count; i++, at = (at + step) % count) {
		struct saved *p = &s->saved[at];

		if (ipam_restore(s->ipam, p->key, p->key_len, p->val, p->len, &err) < 0)
			fail_msg("%s", err.text);
	}
	ipam_start(s->ipam, now_ms);
}

static enum ipam_result_code ask_with(struct shell *s, struct ipam_want want, uint64_t now_ms)
{
	unsigned before = s->completed;

	want.pool = pool_id;
	ipam_request(s->ipam, &want, 1, now_ms);
	assert_int_equal(s->completed, before + 1);
	return s->last.code;
}

static const char *ask_any(struct shell *s, uint64_t now_ms)
{
	static char text[IP_TEXT_SIZE];

	if (ask_with(s, (struct ipam_want){.owner = "x"}, now_ms) != IPAM_GRANTED)
		return "none";
	return ip_format(&s->last.address, text);
}

static enum ipam_result_code ask_for(struct shell *s, const char *address, const char *owner)
{
	return ask_with(s, (struct ipam_want){.owner = owner, .address = ip_of(address)}, 0);
}

static void let_go(struct shell *s, const char *address, uint64_t now_ms)
{
	struct ip ip = ip_of(address);

	assert_true(ipam_release(s->ipam, &pool_id, &ip, now_ms));
}

/* --- pools --- */

static void a_pool_has_its_usable_addresses_and_no_edges(void **state)
{
	static const struct {
		const char *prefix;
		uint64_t size, reserved;
		const char *first, *last_refused;
	} vectors[] = {
		{"10.1.0.0/24", 256, 2, "10.1.0.1", "10.1.0.255"},
		{"10.1.0.0/30", 4, 2, "10.1.0.1", "10.1.0.3"},
		{"10.1.0.0/31", 2, 0, "10.1.0.0", "10.1.0.2"},
		{"10.1.0.7/32", 1, 0, "10.1.0.7", "10.1.0.8"},
		{"0.0.0.0/12", 1048576, 2, "0.0.0.1", "0.15.255.255"},
		{"2001:db8::/120", 256, 1, "2001:db8::1", "2001:db8::"},
		{"2001:db8::/126", 4, 1, "2001:db8::1", "2001:db8::"},
		{"2001:db8::/127", 2, 0, "2001:db8::", "2001:db8::2"},
		{"2001:db8::5:0/112", 65536, 1, "2001:db8::5:1", "2001:db8::6:0"},
		{"2001:db8:ffff:ffff:8000::/65", UINT64_C(1) << 63, 1, "2001:db8:ffff:ffff:8000::1", "2001:db8:ffff:ffff:8000::"},
		{"2001:db8::9/128", 1, 0, "2001:db8::9", "2001:db8::a"},
		{"10.0.0.0/8", 16777216, 2, "10.0.0.1", "10.255.255.255"},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		struct shell *s = shell_new(vectors[i].prefix);
		struct ipam_totals totals;

		assert_true(ipam_pool_totals(s->ipam, &pool_id, &totals));
		assert_true(totals.size == vectors[i].size);
		assert_true(totals.reserved == vectors[i].reserved);
		assert_true(totals.held_known == vectors[i].size - vectors[i].reserved);
		assert_string_equal(ask_any(s, 0), vectors[i].first);
		assert_int_equal(ask_for(s, vectors[i].last_refused, "x"), IPAM_OUTSIDE);
		shell_free(s);
	}
}

/* A host that did not make the pool gives from its own slice, once that is open, and nobody hears of it but by its record. */
static void a_slice_is_given_from_without_asking(void **state)
{
	static const struct {
		const char *prefix;
		uint8_t bits;
		const char *first, *last, *beyond; /* of host 1 */
	} vectors[] = {
		{"2001:db8::/64", 20, "2001:db8::8000:800:0:0", "2001:db8::8000:fff:ffff:ffff", "2001:db8::8000:1000:0:0"},
		{"2001:db8::/96", 20, "2001:db8::8000:800", "2001:db8::8000:fff", "2001:db8::8000:1000"},
		{"8000::/1", 20, "c000:400::", "c000:7ff:ffff:ffff:ffff:ffff:ffff:ffff", "c000:800::"},
		{"10.1.0.0/24", 3, "10.1.0.144", "10.1.0.159", "10.1.0.160"},
		{"10.1.0.0/24", 7, "10.1.0.129", "10.1.0.129", "10.1.0.130"},
	};
	struct ipam_pool_def def;
	struct ip beyond;
	struct err err;

	(void)state;
	for (unsigned i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		struct shell *s = shell_new(NULL);

		def = def_of(vectors[i].prefix);
		def.slice_bits = vectors[i].bits;
		assert_int_equal(ipam_pool_join(s->ipam, &def, 0, &err), 0);
		ipam_request(s->ipam, &(struct ipam_want){.pool = pool_id, .owner = "waits"}, 2, 0);
		assert_int_equal(s->completed, 0);
		ipam_be_known(s->ipam, 0);
		assert_int_equal(s->completed, 1);
		beyond = ip_of(vectors[i].first);
		assert_true(ip_equal(&s->last.address, &beyond));
		if (strcmp(vectors[i].first, vectors[i].last))
			assert_int_equal(ask_for(s, vectors[i].last, "x"), IPAM_GRANTED);
		assert_int_equal(s->sent_count, 0);
		beyond = ip_of(vectors[i].beyond);
		ipam_request(s->ipam, &(struct ipam_want){.pool = pool_id, .owner = "y", .address = beyond}, 3, 0);
		ipam_tick(s->ipam, IPAM_REQUEST_MS);
		assert_int_equal(s->last_ticket, 3);
		assert_int_equal(s->last.code, IPAM_UNREACHABLE);
		assert_int_equal(s->last.holder_hostno, 2);
		shell_restart(s, false, 1, 0); /* closed again: what is leased is ours by what was saved */
		assert_int_equal(ask_for(s, vectors[i].first, "waits"), IPAM_GRANTED);
		assert_true(s->last.repeated);
		shell_free(s);
	}
	def = def_of("2001:db8::/64");
	def.slice_bits = IPAM_SLICE_BITS + 1;
	assert_int_equal(ipam_pool_join(NULL, &def, 0, &err), -1);
	def = def_of("10.1.0.0/24");
	def.slice_bits = 8;
	assert_int_equal(ipam_pool_join(NULL, &def, 0, &err), -1);
}

/* Sizes that 64 bits do not hold, and the addresses at which a carry would show. */
static void pools_beyond_64_bits_have_every_address(void **state)
{
	static const struct {
		const char *prefix;
		unsigned bits;
		const char *given[5], *outside[3];
	} vectors[] = {
		{"2001:db8::/64", 64,
			{"2001:db8::ffff:ffff:ffff:ffff", "2001:db8::ffff:ffff", "2001:db8::1:0:0", "2001:db8::8000:0:0:0",
				"2001:db8::ffff:ffff:0:0"},
			{"2001:db8::", "2001:db8:0:1::", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff"}},
		{"2001:db8:0:fffe::/63", 65,
			{"2001:db8:0:ffff:ffff:ffff:ffff:ffff", "2001:db8:0:ffff::", "2001:db8:0:fffe:ffff:ffff:ffff:ffff",
				"2001:db8:0:fffe::2", "2001:db8:0:ffff::1"},
			{"2001:db8:0:fffe::", "2001:db8:1::", "2001:db8:0:fffd:ffff:ffff:ffff:ffff"}},
		{"8000::/1", 127,
			{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "8000:0:0:1::", "8000::ffff:ffff:ffff:ffff",
				"c000::", "8000:0:0:1::1"},
			{"8000::", "::", "7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		struct shell *s = shell_new(vectors[i].prefix);
		struct ipam_totals totals;

		assert_true(ipam_pool_totals(s->ipam, &pool_id, &totals));
		assert_true(totals.size == (u128)1 << vectors[i].bits);
		assert_true(totals.held_known == totals.size - 1);
		for (unsigned j = 0; j < 5; j++) {
			assert_int_equal(ask_for(s, vectors[i].given[j], "x"), IPAM_GRANTED);
			assert_int_equal(ask_for(s, vectors[i].given[j], "y"), IPAM_IN_USE);
		}
		for (unsigned j = 0; j < 3; j++)
			assert_int_equal(ask_for(s, vectors[i].outside[j], "x"), IPAM_OUTSIDE);
		shell_free(s);
	}
}

static void absurd_pools_are_refused_and_nothing_is_saved(void **state)
{
	struct shell *s = shell_new(NULL);
	struct ipam_pool_def def = def_of("10.1.0.0/24");
	struct err err;

	(void)state;
	def.prefix.length = 33;
	assert_int_equal(ipam_pool_create(s->ipam, &def, 0, &err), -1);
	assert_int_equal(err.code, ERR_INVALID);
	def = def_of("10.1.0.5/24");
	assert_int_equal(ipam_pool_create(s->ipam, &def, 0, &err), -1);
	assert_non_null(strstr(err.text, "10.1.0.5/24"));
	def = def_of("::/0");
	assert_int_equal(ipam_pool_join(s->ipam, &def, 0, &err), -1);
	def = (struct ipam_pool_def){.id = pool_id};
	assert_int_equal(ipam_pool_create(s->ipam, &def, 0, &err), -1);
	assert_int_equal(s->log_len, 0);
	shell_free(s);
}

static void one_pool_id_has_one_definition(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct ipam_pool_def same = def_of("10.1.0.0/24"), other = def_of("10.2.0.0/24");
	struct err err;

	(void)state;
	assert_int_equal(ipam_pool_join(s->ipam, &same, 0, &err), 0);
	assert_int_equal(ipam_pool_create(s->ipam, &same, 0, &err), 0);
	assert_int_equal(ipam_pool_join(s->ipam, &other, 0, &err), -1);
	assert_int_equal(err.code, ERR_CONFLICT);
	assert_non_null(strstr(err.text, "10.1.0.0/24"));
	assert_non_null(strstr(err.text, "10.2.0.0/24"));
	same.edges_reserved = false;
	assert_int_equal(ipam_pool_create(s->ipam, &same, 0, &err), -1);
	assert_int_equal(err.code, ERR_CONFLICT);
	shell_free(s);
}

static void a_pool_made_elsewhere_cannot_be_made_again(void **state)
{
	struct shell *s = shell_new(NULL);
	struct ipam_pool_def def = def_of("10.1.0.0/24");
	struct err err;

	(void)state;
	assert_int_equal(ipam_pool_join(s->ipam, &def, 0, &err), 0);
	assert_int_equal(ipam_pool_create(s->ipam, &def, 0, &err), -1);
	assert_int_equal(err.code, ERR_EXISTS);
	shell_free(s);
}

static void a_new_pool_is_on_disk_before_it_is_published(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");

	(void)state;
	assert_string_equal(s->log, "sSp");
	shell_free(s);
}

static void dropping_a_whole_pool_leaves_nothing_on_disk(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct err err;

	(void)state;
	ask_any(s, 0);
	assert_int_equal(ipam_pool_drop(s->ipam, &pool_id, &err), 0);
	assert_int_equal(s->saved_count, 0);
	assert_int_equal(s->chunk_len, 0);
	assert_int_equal(ask_with(s, (struct ipam_want){0}, 0), IPAM_UNKNOWN_POOL);
	assert_int_equal(ipam_pool_drop(s->ipam, &pool_id, &err), -1);
	assert_int_equal(err.code, ERR_NOT_FOUND);
	shell_free(s);
}

/* What is left by a crash between the first two saves, or by a drop. */
static void a_pool_whose_custody_was_left_is_saved_when_made_again(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct ipam_pool_def def = def_of("10.1.0.0/24");
	struct ipam_totals totals;
	struct err err;

	(void)state;
	for (unsigned i = 0; i < s->saved_count; i++)
		if (s->saved[i].key[0] == 'P')
			s->saved[i--] = s->saved[--s->saved_count];
	assert_int_equal(s->saved_count, 1);
	shell_restart(s, false, 1, 0);
	assert_false(ipam_pool_totals(s->ipam, &pool_id, &totals));
	assert_int_equal(ipam_pool_create(s->ipam, &def, 0, &err), 0);
	shell_restart(s, false, 1, 0);
	assert_true(ipam_pool_totals(s->ipam, &pool_id, &totals));
	assert_true(totals.held_known == 254);
	shell_free(s);
}

/* --- requests --- */

static void a_lease_is_saved_before_it_is_answered(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");

	(void)state;
	forget_log(s);
	ask_any(s, 0);
	assert_string_equal(s->log, "s!");
	shell_free(s);
}

static void addresses_come_one_after_another_until_none_is_left(void **state)
{
	struct shell *s = shell_new("10.1.0.0/29");
	char expected[IP_TEXT_SIZE];

	(void)state;
	for (unsigned i = 1; i <= 6; i++) {
		snprintf(expected, sizeof(expected), "10.1.0.%u", i);
		assert_string_equal(ask_any(s, 0), expected);
	}
	assert_string_equal(ask_any(s, 0), "none");
	assert_int_equal(s->last.code, IPAM_EXHAUSTED);
	shell_free(s);
}

static void an_explicit_address_is_given_once_and_repeated_to_its_owner(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");

	(void)state;
	assert_int_equal(ask_for(s, "10.1.0.9", "web"), IPAM_GRANTED);
	assert_false(s->last.repeated);
	assert_int_equal(ask_for(s, "10.1.0.9", "web"), IPAM_GRANTED);
	assert_true(s->last.repeated);
	assert_int_equal(ask_for(s, "10.1.0.9", "db"), IPAM_IN_USE);
	assert_string_equal(s->last.owner, "web");
	assert_int_equal(s->last.holder_hostno, 0);
	assert_int_equal(ask_for(s, "10.1.0.8", ""), IPAM_GRANTED);
	assert_int_equal(ask_for(s, "10.1.0.8", ""), IPAM_IN_USE);
	assert_int_equal(ipam_counters(s->ipam)->repeated, 1);
	shell_free(s);
}

static void addresses_of_another_family_or_pool_are_outside(void **state)
{
	static const char *const outside[] = {"10.1.1.1", "10.1.0.0", "10.1.0.255", "2001:db8::1", "0.0.0.0"};
	struct shell *s = shell_new("10.1.0.0/24");

	(void)state;
	for (unsigned i = 0; i < sizeof(outside) / sizeof(outside[0]); i++)
		assert_int_equal(ask_for(s, outside[i], "x"), IPAM_OUTSIDE);
	shell_free(s);
}

static void a_released_address_is_the_last_to_come_back(void **state)
{
	struct shell *s = shell_new("10.1.0.0/29");

	(void)state;
	ask_any(s, 0);
	ask_any(s, 0);
	ask_any(s, 0);
	let_go(s, "10.1.0.2", 10);
	let_go(s, "10.1.0.1", 20);
	assert_string_equal(ask_any(s, 30), "10.1.0.4");
	assert_string_equal(ask_any(s, 30), "10.1.0.5");
	assert_string_equal(ask_any(s, 30), "10.1.0.6");
	/* Nothing else is free: the longest-free one, cooled down or not. */
	assert_string_equal(ask_any(s, 30), "10.1.0.2");
	assert_string_equal(ask_any(s, 30), "10.1.0.1");
	shell_free(s);
}

static void releasing_twice_or_what_was_never_given_is_harmless(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct ip given = ip_of("10.1.0.1"), never = ip_of("10.1.0.77"), other = ip_of("2001:db8::1");

	(void)state;
	ask_any(s, 0);
	assert_true(ipam_release(s->ipam, &pool_id, &given, 0));
	assert_false(ipam_release(s->ipam, &pool_id, &given, 0));
	assert_false(ipam_release(s->ipam, &pool_id, &never, 0));
	assert_false(ipam_release(s->ipam, &pool_id, &other, 0));
	assert_false(ipam_release(s->ipam, &(struct id128){{9}}, &given, 0));
	shell_free(s);
}

static void a_range_limits_free_choice_and_not_explicit_addresses(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct ipam_want want = {.owner = "x"};
	struct err err;

	(void)state;
	assert_int_equal(prefix_parse("10.1.0.64/30", &want.within, &err), 0);
	for (unsigned i = 64; i < 68; i++) {
		assert_int_equal(ask_with(s, want, 0), IPAM_GRANTED);
		assert_int_equal(s->last.address.bytes[3], i);
	}
	assert_int_equal(ask_with(s, want, 0), IPAM_EXHAUSTED);
	let_go(s, "10.1.0.66", 0);
	assert_int_equal(ask_with(s, want, 0), IPAM_GRANTED);
	assert_int_equal(s->last.address.bytes[3], 66);
	want.address = ip_of("10.1.0.9");
	assert_int_equal(ask_with(s, want, 0), IPAM_GRANTED);
	want.address = (struct ip){0};
	assert_int_equal(prefix_parse("10.2.0.0/24", &want.within, &err), 0);
	assert_int_equal(ask_with(s, want, 0), IPAM_OUTSIDE);
	assert_int_equal(prefix_parse("10.0.0.0/8", &want.within, &err), 0);
	assert_int_equal(ask_with(s, want, 0), IPAM_GRANTED);
	assert_int_equal(prefix_parse("10.1.0.255/32", &want.within, &err), 0);
	assert_int_equal(ask_with(s, want, 0), IPAM_OUTSIDE);
	shell_free(s);
}

static void bind_marks_and_renames(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct ip ip = ip_of("10.1.0.1");
	struct ipam_lease lease;

	(void)state;
	ask_any(s, 5);
	assert_true(ipam_lookup(s->ipam, &pool_id, &ip, &lease));
	assert_false(lease.bound);
	assert_string_equal(lease.owner, "x");
	assert_int_equal(lease.since_ms, 5);
	assert_true(ipam_bind(s->ipam, &pool_id, &ip, true, "endpoint e1", 9));
	assert_true(ipam_bind(s->ipam, &pool_id, &ip, true, NULL, 10));
	shell_restart(s, false, 1, 20);
	assert_true(ipam_lookup(s->ipam, &pool_id, &ip, &lease));
	assert_true(lease.bound);
	assert_string_equal(lease.owner, "endpoint e1");
	assert_int_equal(lease.since_ms, 10);
	ip = ip_of("10.1.0.2");
	assert_false(ipam_bind(s->ipam, &pool_id, &ip, true, NULL, 10));
	shell_free(s);
}

/* --- shared leases --- */

static enum ipam_result_code ask_gateway(struct shell *s, const char *owner)
{
	return ask_with(s, (struct ipam_want){.owner = owner, .use = IPAM_USE_SHARED, .shared_first = true}, 0);
}

/* What host 2 publishes: these offsets as shared leases, and holdings. */
static size_t peer_chunk(uint8_t *buf, const struct shared *shared, unsigned shared_count, const struct custody *held,
	unsigned held_count, uint8_t bucket)
{
	struct chunk_writer w;

	chunk_begin(&w, true, false, bucket);
	for (unsigned i = 0; i < shared_count; i++)
		assert_true(chunk_put_shared(&w, &shared[i]));
	for (unsigned i = 0; i < held_count; i++)
		assert_true(chunk_put_holding(&w, &held[i]));
	memcpy(buf, w.buf, w.len);
	return w.len;
}

static void a_gateway_is_the_first_address_and_the_same_again(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct ip ip = ip_of("10.1.0.1");
	struct ipam_lease lease;

	(void)state;
	forget_log(s);
	assert_int_equal(ask_gateway(s, "gateway"), IPAM_GRANTED);
	assert_string_equal(s->log, "sp!"); /* others know of it before it is used */
	assert_true(ip_equal(&s->last.address, &ip));
	assert_int_equal(ask_gateway(s, "gateway"), IPAM_GRANTED);
	assert_true(s->last.repeated);
	assert_true(ipam_lookup(s->ipam, &pool_id, &ip, &lease));
	assert_int_equal(lease.use, IPAM_USE_SHARED);
	assert_string_equal(ask_any(s, 0), "10.1.0.2");
	assert_int_equal(ask_for(s, "10.1.0.1", "gateway"), IPAM_IN_USE);
	shell_free(s);
}

static void what_another_host_lists_as_shared_is_joined_and_never_an_endpoints(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct shared shared[] = {
		{.offset = 3, .tag = owner_tag("aux")},
		{.offset = 254, .flags = IPAM_SHARED_FIRST, .tag = owner_tag("gateway")},
	};
	struct ipam_want aux = {.owner = "aux", .use = IPAM_USE_SHARED, .address = ip_of("10.1.0.3")};
	uint8_t buf[IPAM_MESSAGE_MAX];
	size_t len = peer_chunk(buf, shared, 2, NULL, 0, 0);

	(void)state;
	ipam_peer_chunk(s->ipam, 2, &pool_id, 0, buf, len, 0);
	assert_int_equal(ask_gateway(s, "gateway"), IPAM_GRANTED);
	assert_int_equal(s->last.address.bytes[3], 254);
	assert_int_equal(ask_for(s, "10.1.0.3", "web"), IPAM_IN_USE);
	assert_int_equal(s->last.holder_hostno, 2);
	for (unsigned i = 0; i < 252; i++) {
		assert_int_equal(ask_with(s, (struct ipam_want){.owner = "x"}, 0), IPAM_GRANTED);
		assert_true(s->last.address.bytes[3] != 3 && s->last.address.bytes[3] != 254);
	}
	assert_int_equal(ask_with(s, (struct ipam_want){.owner = "x"}, 0), IPAM_EXHAUSTED);
	assert_int_equal(ask_with(s, aux, 0), IPAM_GRANTED);
	let_go(s, "10.1.0.3", 0);
	/* Host 2 still lists it. */
	assert_int_equal(ask_with(s, (struct ipam_want){.owner = "x"}, 0), IPAM_EXHAUSTED);
	ipam_peer_chunk(s->ipam, 2, &pool_id, 0, NULL, 0, 0);
	assert_string_equal(ask_any(s, 0), "10.1.0.3");
	shell_free(s);
}

static void a_guest_shares_a_gateway_without_custody(void **state)
{
	struct shell *s = shell_new(NULL);
	struct ipam_pool_def def = def_of("10.1.0.0/24");
	struct shared gateway = {.offset = 1, .flags = IPAM_SHARED_FIRST, .tag = owner_tag("gateway")};
	struct custody all = {.start = 1, .len = 254};
	struct ip ip = ip_of("10.1.0.1");
	uint8_t buf[IPAM_MESSAGE_MAX];
	struct err err;

	(void)state;
	/* The record comes before the pool is known. */
	ipam_peer_chunk(s->ipam, 2, &pool_id, 0, buf, peer_chunk(buf, &gateway, 1, &all, 1, 8), 0);
	assert_int_equal(ipam_pool_join(s->ipam, &def, 0, &err), 0);
	assert_int_equal(ask_gateway(s, "gateway"), IPAM_GRANTED);
	assert_true(ip_equal(&s->last.address, &ip));
	assert_int_equal(s->sent_count, 0); /* at once, whoever can be reached */
	shell_restart(s, false, 1, 10);
	assert_true(ipam_lookup(s->ipam, &pool_id, &ip, NULL));
	assert_true(ipam_release(s->ipam, &pool_id, &ip, 20));
	assert_false(ipam_lookup(s->ipam, &pool_id, &ip, NULL));
	shell_free(s);
}

static void an_unbound_lease_becomes_shared_and_stays_so_over_a_restart(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct ip ip = ip_of("10.1.0.1");
	struct ipam_chunk *chunk;
	struct ipam_lease lease;

	(void)state;
	ask_any(s, 0);
	assert_true(ipam_bind(s->ipam, &pool_id, &ip, true, NULL, 0));
	assert_false(ipam_make_shared(s->ipam, &pool_id, &ip, "aux", 1)); /* an endpoint uses it */
	assert_true(ipam_bind(s->ipam, &pool_id, &ip, false, NULL, 0));
	assert_true(ipam_make_shared(s->ipam, &pool_id, &ip, "aux", 1));
	chunk = ipam_chunk_decode(s->chunk, s->chunk_len);
	assert_non_null(chunk);
	assert_int_equal(chunk->shared_count, 1);
	assert_int_equal(chunk->shared[0].tag, owner_tag("aux"));
	ipam_chunk_free(chunk);
	shell_restart(s, false, 1, 2);
	assert_true(ipam_lookup(s->ipam, &pool_id, &ip, &lease));
	assert_int_equal(lease.use, IPAM_USE_SHARED);
	ip = ip_of("10.1.0.2");
	assert_false(ipam_make_shared(s->ipam, &pool_id, &ip, "aux", 1));
	shell_free(s);
}

static void shared_leases_end_at_what_can_be_published(void **state)
{
	struct shell *s = shell_new("10.1.0.0/16");
	struct ipam_want want = {.owner = "aux", .use = IPAM_USE_SHARED};

	(void)state;
	for (unsigned i = 0; i < IPAM_SHARED_MAX; i++)
		assert_int_equal(ask_with(s, want, 0), IPAM_GRANTED);
	assert_int_equal(ask_with(s, want, 0), IPAM_EXHAUSTED);
	want.use = IPAM_USE_ENDPOINT;
	assert_int_equal(ask_with(s, want, 0), IPAM_GRANTED);
	shell_free(s);
}

static void a_gateway_whose_address_an_endpoint_has_is_another_one(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");

	(void)state;
	ask_any(s, 0);
	assert_int_equal(ask_gateway(s, "gateway"), IPAM_GRANTED);
	assert_int_equal(s->last.address.bytes[3], 2);
	assert_int_equal(ask_gateway(s, "gateway"), IPAM_GRANTED);
	assert_int_equal(s->last.address.bytes[3], 2);
	shell_free(s);
}

/* --- other hosts --- */

static struct shell *shell_beside(const struct custody *held, uint8_t bucket)
{
	struct shell *s = shell_new(NULL);
	struct ipam_pool_def def = def_of("10.1.0.0/24");
	uint8_t buf[IPAM_MESSAGE_MAX];
	struct err err;

	assert_int_equal(ipam_pool_join(s->ipam, &def, 0, &err), 0);
	ipam_peer_chunk(s->ipam, 2, &pool_id, 0, buf, peer_chunk(buf, NULL, 0, held, 1, bucket), 0);
	return s;
}

static void deliver(struct shell *s, uint32_t from, const struct ipam_message *m, uint64_t now_ms)
{
	uint8_t buf[IPAM_MESSAGE_MAX];

	ipam_message(s->ipam, from, buf, ipam_message_encode(m, buf), now_ms);
}

static const struct custody all_of_24 = {.start = 1, .len = 254};

static void a_grant_is_on_disk_before_it_is_used_or_acknowledged(void **state)
{
	struct shell *s = shell_beside(&all_of_24, 8);
	struct ipam_want want = {.pool = pool_id, .owner = "x"};
	struct ipam_message grant = {.type = IPAM_MSG_GRANT, .pool = pool_id, .range_count = 1};

	(void)state;
	ipam_peer_alive(s->ipam, 2, true, 0);
	ipam_request(s->ipam, &want, 7, 0);
	assert_int_equal(s->sent_to, 2);
	assert_int_equal(s->sent.type, IPAM_MSG_REQ);
	assert_true(s->sent.flags & IPAM_REQ_URGENT);
	grant.xid = s->sent.xid;
	grant.ranges[0] = (struct custody){.start = 253, .len = 2, .version = 1};
	forget_log(s);
	deliver(s, 2, &grant, 1);
	assert_string_equal(s->log, "Sp>sp!"); /* custody, its record, ACK; the lease, the lower free count, the answer */
	assert_int_equal(s->last_ticket, 7);
	assert_int_equal(s->last.address.bytes[3], 253);
	/* Again, late: nothing but another ACK. */
	forget_log(s);
	deliver(s, 2, &grant, 2);
	assert_string_equal(s->log, ">");
	assert_int_equal(s->sent.type, IPAM_MSG_ACK);
	shell_free(s);
}

static void a_gift_is_on_disk_before_it_leaves_and_repeats_until_acknowledged(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct ipam_message req = {
		.type = IPAM_MSG_REQ, .pool = pool_id, .xid = 77, .flags = IPAM_REQ_URGENT, .start = 1, .len = 254, .count = 1};
	struct ipam_message ack = {.type = IPAM_MSG_ACK, .pool = pool_id, .xid = 77, .range_count = 1};

	(void)state;
	ipam_peer_alive(s->ipam, 2, true, 0);
	forget_log(s);
	deliver(s, 2, &req, 0);
	assert_string_equal(s->log, "Ssp>"); /* the gift is the durable one; the tail of the old range is tidied behind it */
	assert_int_equal(s->sent.type, IPAM_MSG_GRANT);
	assert_true(s->sent.ranges[0].start == 254 && s->sent.ranges[0].len == 1 && s->sent.ranges[0].version == 1);
	deliver(s, 2, &req, 1); /* a copy gets the same, not more */
	assert_true(s->sent.ranges[0].start == 254 && s->sent.range_count == 1);
	shell_restart(s, true, 1, 50); /* ends its host's life, not the offer's */
	ipam_peer_alive(s->ipam, 2, true, 50);
	s->sent_count = 0;
	ipam_tick(s->ipam, 50);
	assert_int_equal(s->sent_count, 1);
	assert_int_equal(s->sent.type, IPAM_MSG_GRANT);
	assert_int_equal(s->sent.xid, 77);
	ack.ranges[0] = s->sent.ranges[0];
	deliver(s, 3, &ack, 60); /* not 3's to say */
	ipam_tick(s->ipam, 1000);
	assert_int_equal(s->sent_count, 2);
	deliver(s, 2, &ack, 1001);
	ipam_tick(s->ipam, 100000);
	assert_int_equal(s->sent_count, 2);
	shell_free(s);
}

/* Every third address of a gift came back, so after a restart what is open of it is in more pieces than a message holds. */
static void a_gift_in_many_pieces_is_repeated_whole(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct ipam_message req = {
		.type = IPAM_MSG_REQ, .pool = pool_id, .xid = 77, .flags = IPAM_REQ_URGENT, .start = 1, .len = 254, .count = 256};
	struct ipam_message back = {.type = IPAM_MSG_GRANT, .pool = pool_id, .range_count = 1};
	const struct offer *offer;
	struct custody gift;
	unsigned open = 0;

	(void)state;
	deliver(s, 2, &req, 0);
	gift = s->sent.ranges[0];
	assert_int_equal(gift.len, 127);
	for (unsigned i = 1; i < 63; i += 3) {
		back.xid = i;
		back.ranges[0] = (struct custody){.start = gift.start + i, .len = 1, .version = 2};
		deliver(s, 2, &back, 0);
	}
	shell_restart(s, true, 1, 50);
	ipam_peer_alive(s->ipam, 2, true, 50);
	for (uint64_t now = 50, next; now < 60000; now = next) {
		next = ipam_tick(s->ipam, now);
		assert_true(next > now);
	}
	DL_FOREACH(pool_find(s->ipam, &pool_id)->offers, offer)
	{
		assert_in_range(offer->next_ms, 60000, 60000 + IPAM_GRANT_RETRY_MAX_MS);
		open++;
	}
	assert_int_equal(open, 22);
	shell_free(s);
}

static void a_published_holding_ends_the_offer_like_an_ack(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct ipam_message req = {
		.type = IPAM_MSG_REQ, .pool = pool_id, .xid = 78, .flags = IPAM_REQ_URGENT, .start = 1, .len = 254, .count = 1};
	struct custody older = {.start = 254, .len = 1, .version = 0}, there = {.start = 254, .len = 1, .version = 1};
	uint8_t buf[IPAM_MESSAGE_MAX];

	(void)state;
	deliver(s, 2, &req, 0);
	ipam_peer_alive(s->ipam, 2, true, 0);
	ipam_peer_chunk(s->ipam, 2, &pool_id, 0, buf, peer_chunk(buf, NULL, 0, &older, 1, 1), 0);
	assert_true(ipam_tick(s->ipam, 0) != UINT64_MAX);
	ipam_peer_chunk(s->ipam, 2, &pool_id, 0, buf, peer_chunk(buf, NULL, 0, &there, 1, 1), 0);
	assert_true(ipam_tick(s->ipam, 0) == UINT64_MAX);
	shell_free(s);
}

static void the_last_free_address_goes_to_who_waits_and_not_to_who_stocks_up(void **state)
{
	struct shell *s = shell_new("10.1.0.0/30");
	struct ipam_message req = {.type = IPAM_MSG_REQ, .pool = pool_id, .xid = 79, .start = 1, .len = 2, .count = 256};
	struct ipam_message ack = {.type = IPAM_MSG_ACK, .pool = pool_id, .xid = 80, .range_count = 1};

	(void)state;
	ipam_pool_want(s->ipam, &pool_id, true, 0, 0);
	deliver(s, 2, &req, 0);
	assert_int_equal(s->sent.type, IPAM_MSG_DENY);
	req.flags = IPAM_REQ_URGENT;
	for (unsigned i = 0; i < 2; i++) {
		req.xid++;
		deliver(s, 2, &req, 0);
		assert_int_equal(s->sent.type, IPAM_MSG_GRANT);
		assert_true(s->sent.ranges[0].len == 1);
	}
	/* "Nothing left" is no answer for who has something on its way to it. */
	req.xid++;
	deliver(s, 2, &req, 0);
	assert_int_equal(s->sent.type, IPAM_MSG_GRANT);
	assert_int_equal(s->sent.xid, 80);
	ack.ranges[0] = (struct custody){.start = 1, .len = 2, .version = 1};
	deliver(s, 2, &ack, 0);
	deliver(s, 2, &req, 0);
	assert_int_equal(s->sent.type, IPAM_MSG_DENY);
	shell_free(s);
}

static void a_chunk_is_a_share_of_what_is_free(void **state)
{
	static const struct {
		const char *pool;
		unsigned count;
	} vectors[] = {{"10.1.0.0/24", 63}, {"10.1.0.0/16", 256}, {"10.1.0.0/28", 3}, {"10.1.0.0/31", 1}};
	struct ipam_message req = {
		.type = IPAM_MSG_REQ, .pool = pool_id, .xid = 80, .flags = IPAM_REQ_URGENT, .len = 65536, .count = 256};

	(void)state;
	for (unsigned i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		struct shell *s = shell_new(vectors[i].pool);

		ipam_pool_want(s->ipam, &pool_id, true, 0, 0); /* two want it: this host and the asker */
		deliver(s, 2, &req, 0);
		assert_int_equal(s->sent.type, IPAM_MSG_GRANT);
		assert_int_equal((unsigned)s->sent.ranges[0].len, vectors[i].count);
		shell_free(s);
	}
}

static void a_silent_holder_is_named_when_time_is_up(void **state)
{
	struct shell *s = shell_beside(&all_of_24, 8);
	struct ipam_want want = {.pool = pool_id, .owner = "x", .address = ip_of("10.1.0.9")};
	uint64_t now = 0, due;

	(void)state;
	ipam_peer_alive(s->ipam, 2, true, 0);
	ipam_request(s->ipam, &want, 1, 0);
	while (!s->completed && (due = ipam_tick(s->ipam, now)) != UINT64_MAX) {
		assert_true(due > now);
		now = due;
	}
	assert_int_equal(now, IPAM_REQUEST_MS);
	assert_int_equal(s->last.code, IPAM_UNREACHABLE);
	assert_int_equal(s->last.holder_hostno, 2);
	assert_in_range(s->sent_count, 3, 6);
	/* Known to be dead: said at once. */
	ipam_peer_alive(s->ipam, 2, false, now);
	ipam_request(s->ipam, &want, 2, now);
	assert_int_equal(s->last_ticket, 2);
	assert_int_equal(s->last.code, IPAM_UNREACHABLE);
	shell_free(s);
}

static void moved_is_followed_four_times_and_no_further(void **state)
{
	struct shell *s = shell_beside(&all_of_24, 8);
	struct ipam_want want = {.pool = pool_id, .owner = "x", .address = ip_of("10.1.0.9")};
	struct ipam_message moved = {.type = IPAM_MSG_MOVED, .pool = pool_id};

	(void)state;
	for (uint32_t host = 2; host < 10; host++)
		ipam_peer_alive(s->ipam, host, true, 0);
	ipam_request(s->ipam, &want, 1, 0);
	for (uint32_t host = 2; host < 6; host++) {
		assert_int_equal(s->sent_to, host);
		moved.xid = s->sent.xid;
		moved.to = host + 1;
		moved.version = host;
		deliver(s, host, &moved, 0);
	}
	assert_int_equal(s->completed, 0);
	moved.to = 7;
	moved.version = 9;
	deliver(s, 6, &moved, 0);
	assert_int_equal(s->last.code, IPAM_UNREACHABLE);
	assert_int_equal(s->last.holder_hostno, 7);
	shell_free(s);
}

static void a_used_address_names_its_host_and_owner(void **state)
{
	struct shell *s = shell_beside(&all_of_24, 8);
	struct ipam_want want = {.pool = pool_id, .owner = "x", .address = ip_of("10.1.0.9")};
	struct ipam_message deny = {.type = IPAM_MSG_DENY, .pool = pool_id, .reason = IPAM_DENY_IN_USE, .owner = "web on app"};

	(void)state;
	ipam_peer_alive(s->ipam, 2, true, 0);
	ipam_request(s->ipam, &want, 1, 0);
	deny.xid = s->sent.xid;
	deliver(s, 3, &deny, 0); /* not the one we asked */
	assert_int_equal(s->completed, 0);
	deliver(s, 2, &deny, 0);
	assert_int_equal(s->last.code, IPAM_IN_USE);
	assert_int_equal(s->last.holder_hostno, 2);
	assert_string_equal(s->last.owner, "web on app");
	shell_free(s);
}

/* The record of the sharing has not come yet; the holder's answer is as good. */
static void a_holders_word_that_an_address_is_shared_lets_a_share_join_and_an_endpoint_not(void **state)
{
	struct ipam_message deny = {.type = IPAM_MSG_DENY, .pool = pool_id, .reason = IPAM_DENY_SHARED, .owner = "gateway"};

	(void)state;
	for (unsigned use = IPAM_USE_ENDPOINT; use <= IPAM_USE_SHARED; use++) {
		struct shell *s = shell_beside(&all_of_24, 8);
		struct ipam_want want = {.pool = pool_id, .owner = "gateway", .use = use, .address = ip_of("10.1.0.1")};

		ipam_peer_alive(s->ipam, 2, true, 0);
		ipam_request(s->ipam, &want, 1, 0);
		assert_int_equal(s->completed, 0);
		assert_int_equal(!!(s->sent.flags & IPAM_REQ_SHARED), use == IPAM_USE_SHARED);
		deny.xid = s->sent.xid;
		deliver(s, 2, &deny, 0);
		assert_int_equal(s->completed, 1);
		assert_int_equal(s->last.code, use == IPAM_USE_SHARED ? IPAM_GRANTED : IPAM_IN_USE);
		assert_true(s->last.shared == (use == IPAM_USE_ENDPOINT));
		shell_free(s);
	}
}

/* Both asked before either was answered; the holder's record does not list the address. */
static void two_that_share_an_address_get_it_on_the_holders_word(void **state)
{
	struct ipam_message deny = {.type = IPAM_MSG_DENY, .pool = pool_id, .reason = IPAM_DENY_SHARED, .owner = "aux"};

	(void)state;
	for (unsigned first = 0; first < 2; first++) {
		struct shell *s = shell_beside(&all_of_24, 8);
		struct ipam_want want = {.pool = pool_id, .owner = "aux", .use = IPAM_USE_SHARED};
		uint64_t xid;

		if (first)
			want.shared_first = true;
		else
			want.address = ip_of("10.1.0.1");
		ipam_peer_alive(s->ipam, 2, true, 0);
		ipam_request(s->ipam, &want, 1, 0);
		xid = s->sent.xid;
		ipam_request(s->ipam, &want, 2, 0);
		assert_true(s->sent.xid != xid);
		deny.xid = s->sent.xid;
		deliver(s, 2, &deny, 0);
		deny.xid = xid;
		deliver(s, 2, &deny, 0);
		assert_int_equal(s->completed, 2);
		assert_int_equal(s->last.code, IPAM_GRANTED);
		assert_true(s->last.repeated);
		assert_int_equal(pool_find(s->ipam, &pool_id)->shared_count, 1);
		shell_free(s);
	}
}

static void a_shared_address_is_not_passed_on(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct ipam_message req = {.type = IPAM_MSG_REQ,
		.pool = pool_id,
		.xid = 81,
		.flags = IPAM_REQ_URGENT | IPAM_REQ_EXACT,
		.start = 1,
		.len = 1,
		.count = 1};
	struct shared listed = {.offset = 7};
	uint8_t buf[IPAM_MESSAGE_MAX];

	(void)state;
	ask_gateway(s, "gateway");
	deliver(s, 2, &req, 0);
	assert_int_equal(s->sent.type, IPAM_MSG_DENY);
	assert_int_equal(s->sent.reason, IPAM_DENY_SHARED);
	assert_string_equal(s->sent.owner, "gateway");
	ipam_peer_chunk(s->ipam, 3, &pool_id, 0, buf, peer_chunk(buf, &listed, 1, NULL, 0, 0), 0);
	req.start = 7;
	req.xid++;
	deliver(s, 2, &req, 0);
	assert_int_equal(s->sent.reason, IPAM_DENY_SHARED);
	shell_free(s);
}

static void a_host_that_does_not_know_says_so(void **state)
{
	struct shell *s = shell_new(NULL);
	struct ipam_pool_def def = def_of("10.1.0.0/24");
	struct ipam_message req = {.type = IPAM_MSG_REQ,
		.pool = pool_id,
		.xid = 82,
		.flags = IPAM_REQ_URGENT | IPAM_REQ_EXACT,
		.start = 1,
		.len = 1,
		.count = 1};
	struct err err;

	(void)state;
	deliver(s, 2, &req, 0);
	assert_int_equal(s->sent.reason, IPAM_DENY_NO_POOL);
	assert_int_equal(ipam_pool_join(s->ipam, &def, 0, &err), 0);
	deliver(s, 2, &req, 0);
	assert_int_equal(s->sent.reason, IPAM_DENY_NOT_MINE);
	shell_free(s);
}

static void a_former_holder_says_who_has_it(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct ipam_message req = {.type = IPAM_MSG_REQ,
		.pool = pool_id,
		.xid = 83,
		.flags = IPAM_REQ_URGENT | IPAM_REQ_EXACT,
		.start = 9,
		.len = 1,
		.count = 1};

	(void)state;
	deliver(s, 2, &req, 0);
	assert_int_equal(s->sent.type, IPAM_MSG_GRANT);
	req.xid++;
	deliver(s, 3, &req, 0);
	assert_int_equal(s->sent.type, IPAM_MSG_MOVED);
	assert_int_equal(s->sent.to, 2);
	assert_true(s->sent.version == 1);
	/* He to whom it was given asks again under another number: the same gift. */
	req.xid++;
	deliver(s, 2, &req, 0);
	assert_int_equal(s->sent.type, IPAM_MSG_GRANT);
	assert_int_equal(s->sent.xid, 83);
	shell_free(s);
}

static void an_offer_in_a_record_is_taken_when_the_pool_becomes_known(void **state)
{
	struct shell *s = shell_new(NULL);
	struct ipam_pool_def def = def_of("10.1.0.0/24");
	struct custody offer = {.start = 40, .len = 2, .version = 3, .to = 1, .xid = 5};
	struct chunk_writer w;
	struct err err;

	(void)state;
	chunk_begin(&w, true, false, 0);
	assert_true(chunk_put_offer(&w, &offer));
	ipam_peer_chunk(s->ipam, 2, &pool_id, 0, w.buf, w.len, 0);
	assert_int_equal(s->log_len, 0);
	assert_int_equal(ipam_pool_join(s->ipam, &def, 0, &err), 0);
	assert_string_equal(s->log, "sSp>"); /* the pool, the range, our record, ACK */
	assert_string_equal(ask_any(s, 0), "10.1.0.40");
	assert_string_equal(ask_any(s, 0), "10.1.0.41");
	shell_free(s);
}

static void requests_of_a_dropped_pool_are_answered(void **state)
{
	struct shell *s = shell_beside(&all_of_24, 8);
	struct ipam_want want = {.pool = pool_id, .owner = "x"};
	struct err err;

	(void)state;
	ipam_peer_alive(s->ipam, 2, true, 0);
	ipam_request(s->ipam, &want, 1, 0);
	ipam_request(s->ipam, &want, 2, 0);
	assert_int_equal(ipam_pool_drop(s->ipam, &pool_id, &err), 0);
	assert_int_equal(s->completed, 2);
	assert_int_equal(s->last.code, IPAM_UNKNOWN_POOL);
	assert_true(ipam_tick(s->ipam, 10000) == UINT64_MAX);
	shell_free(s);
}

static void dropping_is_refused_while_a_gift_is_on_its_way(void **state)
{
	struct shell *s = shell_new("10.1.0.0/31");
	struct ipam_message req = {
		.type = IPAM_MSG_REQ, .pool = pool_id, .flags = IPAM_REQ_URGENT, .start = 0, .len = 2, .count = 1};
	struct ipam_message ack = {
		.type = IPAM_MSG_ACK, .pool = pool_id, .xid = 9, .range_count = 1, .ranges = {{.len = 2, .version = 1}}};
	struct ipam_pool_def def = def_of("10.1.0.0/31");
	struct err err;

	(void)state;
	for (req.xid = 8; req.xid < 10; req.xid++)
		deliver(s, 2, &req, 0);
	assert_int_equal(ipam_pool_drop(s->ipam, &pool_id, &err), -1);
	assert_int_equal(err.code, ERR_CONFLICT);
	deliver(s, 2, &ack, 0);
	assert_int_equal(ipam_pool_drop(s->ipam, &pool_id, &err), 0);
	assert_true(s->saved_count > 0); /* the memory of what was given */
	shell_restart(s, false, 1, 0);
	assert_int_equal(ask_with(s, (struct ipam_want){.owner = "x"}, 0), IPAM_UNKNOWN_POOL);
	assert_int_equal(ipam_pool_create(s->ipam, &def, 0, &err), 0); /* it did make this pool once: no second helping */
	assert_int_equal(ask_for(s, "10.1.0.9", "x"), IPAM_OUTSIDE);
	assert_true(pool_free(pool_find(s->ipam, &pool_id)) == 0);
	shell_free(s);
}

struct shares {
	unsigned count;
	struct ipam_share all[4];
};

static void take_share(void *ctx, const struct ipam_share *share)
{
	struct shares *shares = ctx;

	assert_true(shares->count < 4);
	shares->all[shares->count++] = *share;
}

static void shares_tell_who_holds_what(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct ipam_message req = {
		.type = IPAM_MSG_REQ, .pool = pool_id, .xid = 84, .flags = IPAM_REQ_URGENT, .start = 1, .len = 254, .count = 20};
	struct custody there[] = {{.start = 235, .len = 10, .version = 1}, {.start = 245, .len = 10, .version = 1}};
	uint8_t buf[IPAM_MESSAGE_MAX];
	struct shares shares = {0};
	struct ipam_totals totals;

	(void)state;
	ask_any(s, 0);
	deliver(s, 2, &req, 0);
	assert_true(ipam_pool_totals(s->ipam, &pool_id, &totals));
	assert_true(totals.held_known == 254); /* an open offer counts */
	ipam_peer_chunk(s->ipam, 2, &pool_id, 0, buf, peer_chunk(buf, NULL, 0, there, 2, free_bucket(20)), 0);
	assert_true(ipam_pool_totals(s->ipam, &pool_id, &totals));
	assert_true(totals.held_known == 254 && totals.leases == 1);
	ipam_each_share(s->ipam, &pool_id, take_share, &shares);
	assert_int_equal(shares.count, 2);
	assert_int_equal(shares.all[0].hostno, 1);
	assert_true(shares.all[0].held == 234 && shares.all[0].free_held == 233 && shares.all[0].fragments == 1);
	assert_int_equal(shares.all[1].hostno, 2);
	assert_true(shares.all[1].held == 20 && shares.all[1].free_held == 16 && shares.all[1].fragments == 2 &&
		    shares.all[1].wanted);
	shell_free(s);
}

/* Every second address is given away: 1,000 fragments, which take several records. A second core reads them all. */
static void a_pool_in_a_thousand_pieces_is_published_whole(void **state)
{
	struct shell *s = shell_new("10.1.0.0/21"), *reader = shell_new(NULL);
	struct ipam_message req = {
		.type = IPAM_MSG_REQ, .pool = pool_id, .flags = IPAM_REQ_URGENT | IPAM_REQ_EXACT, .len = 1, .count = 1};
	struct ipam_message ack = {.type = IPAM_MSG_ACK, .pool = pool_id, .range_count = 1};
	struct ipam_pool_def def = def_of("10.1.0.0/21");
	const struct pool *pool;
	const struct view *view;
	unsigned fragments;
	uint32_t host = 7;

	(void)state;
	s->save_nothing = true;
	for (unsigned i = 2; i < 2046; i += 2) {
		req.xid = ack.xid = i;
		req.start = i;
		deliver(s, 2, &req, 0);
		ack.ranges[0] = s->sent.ranges[0];
		deliver(s, 2, &ack, 0);
	}
	pool = pool_find(s->ipam, &pool_id);
	assert_in_range(pool->published_count, 5, 12);
	assert_int_equal(ipam_pool_join(reader->ipam, &def, 0, NULL), 0);
	for (unsigned i = 0; i < pool->published_count; i++)
		ipam_peer_chunk(reader->ipam, host, &pool_id, i, pool->published[i]->bytes, pool->published[i]->len, 0);
	HASH_FIND(hh, pool_find(reader->ipam, &pool_id)->views, &host, sizeof(host), view);
	assert_non_null(view);
	assert_true(view_held(view, &fragments) == 1024);
	assert_int_equal(fragments, 1023);
	/* Given back, nothing is missing. */
	for (unsigned i = 2; i < 2046; i += 2) {
		ack = (struct ipam_message){.type = IPAM_MSG_GRANT, .pool = pool_id, .xid = 5000 + i, .range_count = 1};
		ack.ranges[0] = (struct custody){.start = i, .len = 1, .version = 2};
		deliver(s, 2, &ack, 0);
	}
	assert_true(pool->held == 2046);
	for (unsigned i = 0; i < pool->published_count; i++)
		ipam_peer_chunk(reader->ipam, host, &pool_id, i, pool->published[i]->bytes, pool->published[i]->len, 0);
	assert_true(view_held(view, NULL) == 2046);
	shell_free(reader);
	shell_free(s);
}

static void everybody_is_asked_before_a_pool_counts_as_exhausted(void **state)
{
	struct shell *s = shell_new(NULL);
	struct ipam_pool_def def = def_of("10.1.0.0/22");
	struct ipam_want want = {.pool = pool_id, .owner = "x"};
	struct ipam_message deny = {.type = IPAM_MSG_DENY, .pool = pool_id, .reason = IPAM_DENY_NONE};
	uint8_t buf[IPAM_MESSAGE_MAX];

	(void)state;
	assert_int_equal(ipam_pool_join(s->ipam, &def, 0, NULL), 0);
	for (uint32_t host = 2; host < 1002; host++) {
		struct custody held = {.start = host - 1, .len = host == 1001 ? 23 : 1};

		ipam_peer_alive(s->ipam, host, true, 0);
		ipam_peer_chunk(s->ipam, host, &pool_id, 0, buf, peer_chunk(buf, NULL, 0, &held, 1, host == 500), 0);
	}
	ipam_request(s->ipam, &want, 1, 0);
	assert_int_equal(s->sent_to, 500); /* the only one that says it has one */
	deny.xid = s->sent.xid;
	deliver(s, 500, &deny, 0);
	for (uint32_t host = 2; host < 1002; host++) {
		assert_int_equal(s->completed, 0);
		if (host != 500)
			deliver(s, host, &deny, 0);
	}
	assert_int_equal(s->completed, 0);
	deliver(s, 500, &deny, 0); /* a copy that comes late is no answer */
	assert_int_equal(s->completed, 0);
	deny.xid = s->sent.xid;
	deliver(s, 500, &deny, 0); /* once more, since its record still says so */
	assert_int_equal(s->completed, 1);
	assert_int_equal(s->last.code, IPAM_EXHAUSTED);
	assert_int_equal(s->sent_count, 1001);
	shell_free(s);
}

/* Two addresses: one is leased here, the other was given to host 2. */
static struct shell *shell_that_gave_its_last(void)
{
	struct shell *s = shell_new("10.1.0.0/31");
	struct ipam_message req = {
		.type = IPAM_MSG_REQ, .pool = pool_id, .xid = 5, .flags = IPAM_REQ_URGENT, .start = 0, .len = 2, .count = 1};

	ipam_peer_alive(s->ipam, 2, true, 0);
	assert_string_equal(ask_any(s, 0), "10.1.0.0");
	deliver(s, 2, &req, 0);
	assert_int_equal(s->sent.type, IPAM_MSG_GRANT);
	s->completed = s->sent_count = 0;
	return s;
}

/* Whoever got it may have it free: it is asked as soon as it shows it, though it said before that it has nothing. */
static void a_pool_is_not_exhausted_while_a_gift_is_on_its_way(void **state)
{
	struct shell *s = shell_that_gave_its_last();
	struct ipam_want want = {.pool = pool_id, .owner = "x"};
	struct custody given = {.start = 1, .len = 1, .version = 1}, other = {.start = 0, .len = 1};
	struct ipam_message ack = {.type = IPAM_MSG_ACK, .pool = pool_id, .xid = 5, .range_count = 1, .ranges = {given}};
	struct ipam_message deny = {.type = IPAM_MSG_DENY, .pool = pool_id, .reason = IPAM_DENY_NONE};
	uint8_t buf[IPAM_MESSAGE_MAX];

	(void)state;
	ipam_peer_chunk(s->ipam, 2, &pool_id, 0, buf, peer_chunk(buf, NULL, 0, &other, 1, 0), 0);
	ipam_request(s->ipam, &want, 1, 0);
	assert_int_equal(s->sent.type, IPAM_MSG_REQ);
	deny.xid = s->sent.xid;
	deliver(s, 2, &deny, 0);
	assert_int_equal(s->completed, 0);
	deliver(s, 2, &ack, 0); /* no longer an offer, and not to be seen anywhere */
	assert_int_equal(s->completed, 0);
	s->sent_count = 0;
	ipam_peer_chunk(s->ipam, 2, &pool_id, 0, buf, peer_chunk(buf, NULL, 0, &given, 1, 1), 0);
	assert_int_equal(s->sent_count, 1);
	assert_int_equal(s->sent_to, 2);
	deny.xid = s->sent.xid;
	deliver(s, 2, &deny, 0);
	assert_int_equal(s->completed, 1);
	assert_int_equal(s->last.code, IPAM_EXHAUSTED);
	shell_free(s);
}

static void a_gift_that_cannot_be_waited_for_is_out_of_reach(void **state)
{
	struct shell *s = shell_that_gave_its_last();
	struct ipam_want want = {.pool = pool_id, .owner = "x"};

	(void)state;
	ipam_request(s->ipam, &want, 1, 0);
	assert_int_equal(s->completed, 0);
	ipam_tick(s->ipam, IPAM_REQUEST_MS);
	assert_int_equal(s->completed, 1);
	assert_int_equal(s->last.code, IPAM_UNREACHABLE);
	assert_int_equal(s->last.holder_hostno, 2);
	ipam_peer_alive(s->ipam, 2, false, IPAM_REQUEST_MS);
	assert_int_equal(ask_with(s, want, IPAM_REQUEST_MS), IPAM_UNREACHABLE);
	assert_int_equal(s->last.holder_hostno, 2);
	shell_free(s);
}

/* Host 2 published that it gave the other address to host 3. */
static void a_gift_between_two_others_is_waited_for_too(void **state)
{
	struct shell *s = shell_that_gave_its_last();
	struct ipam_want want = {.pool = pool_id, .owner = "x"};
	struct custody passed_on = {.start = 1, .len = 1, .version = 2, .to = 3, .xid = 6}, got = passed_on;
	uint8_t buf[IPAM_MESSAGE_MAX];
	struct chunk_writer w;

	(void)state;
	ipam_peer_alive(s->ipam, 3, true, 0);
	chunk_begin(&w, true, false, 0);
	assert_true(chunk_put_offer(&w, &passed_on));
	ipam_peer_chunk(s->ipam, 2, &pool_id, 0, w.buf, w.len, 0);
	ipam_peer_alive(s->ipam, 2, false, 0); /* it has done its part */
	ipam_request(s->ipam, &want, 1, 0);
	assert_int_equal(s->completed, 0);
	ipam_peer_chunk(s->ipam, 3, &pool_id, 0, buf, peer_chunk(buf, NULL, 0, &got, 1, 1), 0);
	assert_int_equal(s->sent.type, IPAM_MSG_REQ);
	assert_int_equal(s->sent_to, 3);
	shell_free(s);
}

/* Its gift may be known to nobody who asks next: the record of it comes later than the answer, and ends with the ACK. */
static void who_gave_its_last_tells_to_whom(void **state)
{
	struct shell *s = shell_that_gave_its_last();
	struct custody given = {.start = 1, .len = 1, .version = 1};
	struct ipam_message ack = {.type = IPAM_MSG_ACK, .pool = pool_id, .xid = 5, .range_count = 1, .ranges = {given}};
	struct ipam_message req = {
		.type = IPAM_MSG_REQ, .pool = pool_id, .xid = 9, .flags = IPAM_REQ_URGENT, .start = 0, .len = 2, .count = 1};
	uint8_t buf[IPAM_MESSAGE_MAX];

	(void)state;
	ipam_peer_alive(s->ipam, 3, true, 0);
	deliver(s, 2, &ack, 0);
	deliver(s, 3, &req, 0);
	assert_int_equal(s->sent.type, IPAM_MSG_DENY);
	assert_int_equal(s->sent.range_count, 1);
	assert_int_equal(s->sent.ranges[0].start, 1);
	assert_int_equal(s->sent.ranges[0].to, 2);
	ipam_peer_chunk(s->ipam, 2, &pool_id, 0, buf, peer_chunk(buf, NULL, 0, &given, 1, 1), 0);
	req.xid++;
	deliver(s, 3, &req, 0);
	assert_int_equal(s->sent.xid, req.xid);
	assert_int_equal(s->sent.range_count, 0); /* its record shows it: who asks is told of the host instead */
	assert_int_equal(s->sent.hint_count, 1);
	shell_free(s);
}

/* The donor says no, and tells whom it gave its last to: that one said no before it came, and its record has not come either. */
static void a_gift_that_a_donor_tells_of_is_waited_for(void **state)
{
	struct shell *s = shell_beside(&(struct custody){.start = 0, .len = 2}, 0);
	struct ipam_want want = {.pool = pool_id, .owner = "x"};
	struct custody gift = {.start = 1, .len = 1, .version = 1, .to = 3};
	struct ipam_message deny = {.type = IPAM_MSG_DENY, .pool = pool_id, .reason = IPAM_DENY_NONE};
	uint8_t buf[IPAM_MESSAGE_MAX];

	(void)state;
	ipam_peer_alive(s->ipam, 2, true, 0);
	ipam_peer_alive(s->ipam, 3, true, 0);
	ipam_request(s->ipam, &want, 1, 0);
	assert_int_equal(s->sent_to, 2);
	deny.xid = s->sent.xid;
	deny.range_count = 1;
	deny.ranges[0] = gift;
	deliver(s, 2, &deny, 0);
	assert_int_equal(s->completed, 0);
	ipam_peer_chunk(s->ipam, 3, &pool_id, 0, buf, peer_chunk(buf, NULL, 0, &gift, 1, 1), 0);
	assert_int_equal(s->sent.type, IPAM_MSG_REQ);
	assert_int_equal(s->sent_to, 3);
	shell_free(s);
}

/* A record without room left does not show all: what may be in the rest is not waited for, or it would be for ever. */
static void what_a_full_record_may_leave_out_is_not_waited_for(void **state)
{
	struct shell *s = shell_that_gave_its_last();
	struct custody other = {.start = 0, .len = 1};
	uint8_t buf[IPAM_MESSAGE_MAX];

	(void)state;
	ipam_peer_chunk(s->ipam, 3, &pool_id, IPAM_CHUNKS_MAX - 1, buf, peer_chunk(buf, NULL, 0, &other, 1, 0), 0);
	assert_int_equal(ask_with(s, (struct ipam_want){.owner = "x"}, 0), IPAM_EXHAUSTED);
	shell_free(s);
}

/* After a start some are known to be dead before others are known to be alive. */
static void the_dead_with_the_most_do_not_hide_one_that_may_come(void **state)
{
	struct shell *s = shell_new(NULL);
	struct ipam_pool_def def = def_of("10.1.0.0/24");
	struct ipam_want want = {.pool = pool_id, .owner = "x"};
	struct custody most = {.start = 1, .len = 200}, rest = {.start = 201, .len = 54};
	uint8_t buf[IPAM_MESSAGE_MAX];

	(void)state;
	assert_int_equal(ipam_pool_join(s->ipam, &def, 0, NULL), 0);
	ipam_peer_chunk(s->ipam, 2, &pool_id, 0, buf, peer_chunk(buf, NULL, 0, &most, 1, 8), 0);
	ipam_peer_chunk(s->ipam, 3, &pool_id, 0, buf, peer_chunk(buf, NULL, 0, &rest, 1, 1), 0);
	ipam_peer_alive(s->ipam, 2, false, 0);
	ipam_request(s->ipam, &want, 1, 0);
	assert_int_equal(s->completed, 0);
	ipam_peer_alive(s->ipam, 3, true, 0);
	assert_int_equal(s->sent.type, IPAM_MSG_REQ);
	assert_int_equal(s->sent_to, 3);
	shell_free(s);
}

static void a_cancelled_request_is_not_answered_and_its_address_stays_free(void **state)
{
	struct shell *s = shell_beside(&all_of_24, 8);
	struct ipam_want want = {.pool = pool_id, .owner = "x", .address = ip_of("10.1.0.9")};
	struct ipam_message grant = {.type = IPAM_MSG_GRANT, .pool = pool_id, .range_count = 1};

	(void)state;
	ipam_peer_alive(s->ipam, 2, true, 0);
	ipam_request(s->ipam, &want, 1, 0);
	grant.xid = s->sent.xid;
	grant.ranges[0] = (struct custody){.start = 9, .len = 1, .version = 1};
	assert_true(ipam_cancel(s->ipam, 1));
	assert_false(ipam_cancel(s->ipam, 1));
	assert_false(ipam_cancel(s->ipam, 99));
	deliver(s, 2, &grant, 1);
	assert_int_equal(s->completed, 0);
	assert_string_equal(ask_any(s, 2), "10.1.0.9");
	shell_free(s);
}

static void grants_outside_the_pool_are_counted_and_ignored(void **state)
{
	static const struct custody outside[] = {{.start = 0, .len = 1, .version = 9}, {.start = 255, .len = 1, .version = 9},
		{.start = 200, .len = 100, .version = 9}, {.start = (u128)1 << 100, .len = 5, .version = 9}};
	struct shell *s = shell_beside(&all_of_24, 8);
	struct ipam_message grant = {.type = IPAM_MSG_GRANT, .pool = pool_id, .xid = 5, .range_count = 1};

	(void)state;
	for (unsigned i = 0; i < sizeof(outside) / sizeof(outside[0]); i++) {
		grant.ranges[0] = outside[i];
		forget_log(s);
		deliver(s, 2, &grant, 0);
		assert_string_equal(s->log, "");
	}
	assert_int_equal(ipam_counters(s->ipam)->bad_messages, 4);
	shell_free(s);
}

static void a_host_asks_ahead_before_it_runs_out(void **state)
{
	struct shell *s = shell_beside(&all_of_24, 8);
	struct ipam_message grant = {.type = IPAM_MSG_GRANT, .pool = pool_id, .range_count = 1};

	(void)state;
	ipam_peer_alive(s->ipam, 2, true, 0);
	assert_int_equal(s->sent_count, 0);
	ipam_pool_want(s->ipam, &pool_id, true, 0, 0);
	assert_int_equal(s->sent_count, 1);
	assert_false(s->sent.flags & IPAM_REQ_URGENT);
	grant.xid = s->sent.xid;
	grant.ranges[0] = (struct custody){.start = 252, .len = 3, .version = 1};
	deliver(s, 2, &grant, 0);
	s->sent_count = 0;
	ask_any(s, 0);
	assert_int_equal(s->sent_count, 0);
	ask_any(s, 0); /* one left */
	assert_int_equal(s->sent_count, 1);
	ipam_pool_want(s->ipam, &pool_id, true, 16, 0);
	shell_free(s);
}

static struct id128 id_of_number(unsigned i)
{
	return (struct id128){{0xff, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i}};
}

/* As many as a host can know, each of which it once passed addresses of on. One is not gone: another host speaks of it. */
static void the_memory_of_a_pool_that_is_gone_makes_room(void **state)
{
	struct shell *s = shell_new(NULL);
	struct ipam *full = ipam_new(&(struct ipam_config){.hostno = 1}, &ops, s);
	struct ipam_pool_def def = def_of("10.1.0.0/24");
	struct custody fact = {.start = 1, .len = 1, .version = 1, .to = 2};
	uint8_t key[IPAM_KEY_MAX], value[IPAM_VALUE_MAX];
	struct chunk_writer w;
	struct id128 id;
	struct err err;

	(void)state;
	for (unsigned i = 0; i < IPAM_POOLS_MAX; i++) {
		size_t key_len;

		id = id_of_number(i);
		key_len = ipam_key_encode(key, IPAM_SAVED_CUSTODY, &id, 1);
		assert_int_equal(ipam_restore(full, key, key_len, value, saved_custody_encode(&fact, value), &err), 0);
	}
	chunk_begin(&w, true, false, 0);
	id = id_of_number(0);
	ipam_peer_chunk(full, 2, &id, 0, w.buf, w.len, 0);
	ipam_start(full, 0);
	ipam_peer_alive(full, 2, false, 0);
	assert_int_equal(ipam_pool_create(full, &def, 0, &err), -1); /* host 2 may know what nobody else says */
	ipam_peer_alive(full, 2, true, 0);
	for (unsigned i = 0; i < 2; i++) {
		def.id.bytes[0] = (uint8_t)i + 1;
		assert_int_equal(ipam_pool_create(full, &def, 0, &err), 0);
	}
	assert_int_equal(HASH_COUNT(full->pools), IPAM_POOLS_MAX);
	assert_int_equal(pool_find(full, &id)->custody.count, 1);
	ipam_free(full);
	shell_free(s);
}

/* If all who know it were forgotten, nobody would ask it what it has. */
static void who_says_that_few_know_it_gets_nothing(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct ipam_message req = {.type = IPAM_MSG_REQ, .pool = pool_id, .xid = 77, .start = 1, .len = 254, .count = 1};
	struct chunk_writer w;

	(void)state;
	ipam_peer_alive(s->ipam, 2, true, 0);
	req.flags = IPAM_REQ_URGENT | IPAM_REQ_FEW;
	deliver(s, 2, &req, 0);
	assert_int_equal(s->sent.type, IPAM_MSG_DENY);
	assert_int_equal(s->sent.reason, IPAM_DENY_NOT_YET);
	for (int few = 1; few >= 0; few--) {
		s->sent_count = 0;
		chunk_begin(&w, true, few, 0);
		ipam_peer_chunk(s->ipam, 2, &pool_id, 0, w.buf, w.len, 0);
		ipam_pool_want(s->ipam, &pool_id, false, 0, 0);
		ipam_tick(s->ipam, 0);
		assert_int_equal(s->sent_count, !few); /* nor what nobody here needs */
	}
	shell_free(s);
}

static void who_is_known_to_few_says_so_and_asks_again_when_it_is_known(void **state)
{
	struct shell *s = shell_beside(&all_of_24, 8);
	struct ipam_message no = {.type = IPAM_MSG_DENY, .pool = pool_id, .reason = IPAM_DENY_NOT_YET};

	(void)state;
	ipam_peer_alive(s->ipam, 2, true, 0);
	ipam_request(s->ipam, &(struct ipam_want){.pool = pool_id, .owner = "x"}, 7, 0);
	assert_true(s->sent.flags & IPAM_REQ_FEW);
	no.xid = s->sent.xid;
	deliver(s, 2, &no, 1);
	s->sent_count = 0;
	ipam_be_known(s->ipam, 2);
	assert_int_equal(s->sent_count, 1);
	assert_int_equal(s->sent.type, IPAM_MSG_REQ);
	assert_false(s->sent.flags & IPAM_REQ_FEW);
	shell_free(s);
}

/* The only holder is our sponsor, which waits for others to know us. */
static void who_may_have_no_addresses_yet_asks_again(void **state)
{
	struct shell *s = shell_beside(&all_of_24, 8);
	struct ipam_want want = {.pool = pool_id, .owner = "x"};
	struct ipam_message deny = {.type = IPAM_MSG_DENY, .pool = pool_id, .reason = IPAM_DENY_NOT_YET};
	struct ipam_message grant = {.type = IPAM_MSG_GRANT, .pool = pool_id, .range_count = 1};
	uint64_t due;

	(void)state;
	ipam_peer_alive(s->ipam, 2, true, 0);
	ipam_request(s->ipam, &want, 1, 0);
	grant.xid = deny.xid = s->sent.xid;
	deliver(s, 2, &deny, 1);
	assert_int_equal(s->completed, 0);
	assert_int_equal(s->sent_count, 1);
	due = ipam_tick(s->ipam, 1);
	assert_in_range(due, 2, IPAM_REASK_MS);
	ipam_tick(s->ipam, due);
	assert_int_equal(s->sent_count, 2);
	assert_int_equal(s->sent.xid, grant.xid);
	grant.ranges[0] = (struct custody){.start = 254, .len = 1, .version = 1};
	deliver(s, 2, &grant, due);
	assert_int_equal(s->completed, 1);
	assert_int_equal(s->last.code, IPAM_GRANTED);
	shell_free(s);
}

static void who_may_have_no_addresses_until_its_deadline_is_told_so(void **state)
{
	struct shell *s = shell_beside(&all_of_24, 8);
	struct ipam_want want = {.pool = pool_id, .owner = "x"};
	struct ipam_message deny = {.type = IPAM_MSG_DENY, .pool = pool_id, .reason = IPAM_DENY_NOT_YET};
	uint64_t now = 0;

	(void)state;
	ipam_peer_alive(s->ipam, 2, true, 0);
	ipam_request(s->ipam, &want, 1, 0);
	while (!s->completed && now <= 2 * IPAM_REQUEST_MS) {
		deny.xid = s->sent.xid;
		deliver(s, 2, &deny, now);
		now = ipam_tick(s->ipam, now);
	}
	assert_int_equal(s->completed, 1);
	assert_int_equal(s->last.code, IPAM_UNREACHABLE);
	assert_true(s->last.not_yet);
	assert_int_equal(s->last.holder_hostno, 2);
	shell_free(s);
}

static void all_who_have_some_are_asked_ahead_in_turn(void **state)
{
	static const uint32_t turn[] = {3, 4, 2, 3};
	struct shell *s = shell_new(NULL);
	struct ipam_pool_def def = def_of("10.1.0.0/24");
	struct ipam_message deny = {.type = IPAM_MSG_DENY, .pool = pool_id, .reason = IPAM_DENY_NONE};
	uint8_t buf[IPAM_MESSAGE_MAX];
	uint64_t now = 0;

	(void)state;
	assert_int_equal(ipam_pool_join(s->ipam, &def, 0, NULL), 0);
	for (uint32_t host = 2; host < 5; host++) {
		struct custody held = {.start = 1 + 60 * (host - 2), .len = 60};

		ipam_peer_alive(s->ipam, host, true, 0);
		ipam_peer_chunk(s->ipam, host, &pool_id, 0, buf, peer_chunk(buf, NULL, 0, &held, 1, host == 2 ? 3 : 5), 0);
	}
	ipam_pool_want(s->ipam, &pool_id, true, 0, 0);
	for (unsigned i = 0; i < sizeof(turn) / sizeof(turn[0]); i++) {
		assert_int_equal(s->sent_count, i + 1);
		assert_int_equal(s->sent_to, turn[i]);
		deny.xid = s->sent.xid;
		deliver(s, turn[i], &deny, now);
		now += IPAM_FETCH_RETRY_MAX_MS;
		ipam_tick(s->ipam, now);
	}
	shell_free(s);
}

static void who_is_new_asks_ahead_every_second_until_it_may_have_some(void **state)
{
	struct shell *s = shell_beside(&all_of_24, 8);
	struct ipam_message deny = {.type = IPAM_MSG_DENY, .pool = pool_id, .reason = IPAM_DENY_NOT_YET};
	uint64_t now = 0;

	(void)state;
	ipam_peer_alive(s->ipam, 2, true, 0);
	ipam_pool_want(s->ipam, &pool_id, true, 0, 0);
	for (unsigned i = 1; i <= 10; i++) {
		assert_int_equal(s->sent_count, i);
		deny.xid = s->sent.xid;
		deny.reason = i == 5 ? IPAM_DENY_NONE : IPAM_DENY_NOT_YET; /* what others say does not add up with it */
		deliver(s, 2, &deny, now);
		now += IPAM_FETCH_RETRY_MS * (i == 5 ? 2 : 1);
		ipam_tick(s->ipam, now);
	}
	shell_free(s);
}

static void spares_are_fetched_up_to_their_number(void **state)
{
	struct shell *s = shell_beside(&all_of_24, 8);
	struct ipam_message grant = {.type = IPAM_MSG_GRANT, .pool = pool_id, .range_count = 1};
	unsigned rounds = 0;

	(void)state;
	ipam_peer_alive(s->ipam, 2, true, 0);
	ipam_pool_want(s->ipam, &pool_id, true, 16, 0);
	for (; s->sent.type == IPAM_MSG_REQ && rounds < 10; rounds++) {
		grant.xid = s->sent.xid;
		grant.ranges[0] = (struct custody){.start = 200 + 5 * rounds, .len = 5, .version = 1};
		s->sent.type = IPAM_MSG_ACK;
		deliver(s, 2, &grant, 0);
	}
	assert_int_equal(rounds, 4); /* 20 of 16 */
	shell_free(s);
}

static void buckets_are_powers_of_two(void **state)
{
	static const struct {
		uint64_t count, low;
		uint8_t bucket;
	} vectors[] = {{0, 0, 0}, {1, 1, 1}, {2, 2, 2}, {3, 2, 2}, {4, 4, 3}, {255, 128, 8}, {256, 256, 9}};

	(void)state;
	for (unsigned i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		assert_int_equal(free_bucket(vectors[i].count), vectors[i].bucket);
		assert_true(bucket_low(vectors[i].bucket) == vectors[i].low);
	}
	assert_int_equal(free_bucket(~(u128)0), 128);
	assert_true(bucket_low(255) == (u128)1 << 127);
}

/* --- restart --- */

static void leases_survive_a_restart_and_end_with_the_boot(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct ip ip = ip_of("10.1.0.1");

	(void)state;
	ask_any(s, 0);
	ask_any(s, 0);
	shell_restart(s, false, 1, 0);
	assert_true(ipam_lookup(s->ipam, &pool_id, &ip, NULL));
	assert_string_equal(ask_any(s, 0), "10.1.0.3"); /* and the walk goes on where it was */
	shell_restart(s, true, 1, 0);
	assert_false(ipam_lookup(s->ipam, &pool_id, &ip, NULL));
	assert_string_equal(ask_any(s, 0), "10.1.0.1");
	shell_free(s);
}

/* A killed daemon may have saved a gift without having waited for the disk. */
static void what_was_read_back_is_made_durable_before_others_hear_of_it(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct ipam_message req = {
		.type = IPAM_MSG_REQ, .pool = pool_id, .xid = 90, .flags = IPAM_REQ_URGENT, .start = 1, .len = 254, .count = 1};

	(void)state;
	ask_any(s, 0);
	deliver(s, 2, &req, 0);
	forget_log(s);
	shell_restart(s, false, 1, 0);
	assert_string_equal(s->log, "Sp");
	shell_free(s);
}

static void rest_survives_a_restart(void **state)
{
	struct shell *s = shell_new("10.1.0.0/29");

	(void)state;
	for (unsigned i = 0; i < 6; i++)
		ask_any(s, i);
	let_go(s, "10.1.0.5", 100);
	let_go(s, "10.1.0.2", 200);
	shell_restart(s, false, 1, 300);
	assert_string_equal(ask_any(s, 300), "10.1.0.5");
	/* Once cooled down, nothing of it stays on disk. */
	assert_int_equal(ipam_tick(s->ipam, 300), 200 + IPAM_COOL_DOWN_MS);
	forget_log(s);
	ipam_tick(s->ipam, 200 + IPAM_COOL_DOWN_MS);
	assert_string_equal(s->log, "f");
	assert_string_equal(ask_any(s, 70000), "10.1.0.2");
	shell_free(s);
}

struct map_copy {
	struct custody entries[256];
	unsigned count;
};

static void copy_entry(void *ctx, const struct custody *entry)
{
	struct map_copy *copy = ctx;

	assert_true(copy->count < 256);
	copy->entries[copy->count++] = *entry;
}

static bool coprime(unsigned a, unsigned b)
{
	while (b) {
		unsigned rest = a % b;

		a = b;
		b = rest;
	}
	return a == 1;
}

/* Stale pairs lie beside newer ones, as after a crash between the saves of one transfer; and keys come back in any order. */
static void a_torn_map_is_the_same_after_restart_in_any_order(void **state)
{
	struct ipam_message req = {
		.type = IPAM_MSG_REQ, .pool = pool_id, .flags = IPAM_REQ_URGENT | IPAM_REQ_EXACT, .len = 1, .count = 1};
	struct shell *s = shell_new("10.1.0.0/24");
	struct saved whole = {0};
	struct map_copy before = {0};

	(void)state;
	for (unsigned i = 0; i < s->saved_count; i++)
		if (s->saved[i].key[0] == 'C')
			whole = s->saved[i];
	for (unsigned i = 0; i < 40; i++) {
		req.xid = i + 1;
		req.start = 10 + i * 37 % 200;
		deliver(s, 2 + i % 3, &req, 0);
	}
	ipam_each_custody(s->ipam, &pool_id, copy_entry, &before);
	assert_true(before.count > 60);
	for (unsigned step = 1; step < 60; step++) {
		struct map_copy after = {0};
		unsigned custody_pairs = 0;

		if (!coprime(step, s->saved_count))
			continue;
		*saved_find(s, whole.key, whole.key_len) =
			whole; /* the pair of the uncut range is back, as if its shrinking was lost */
		shell_restart(s, true, step, 0);
		ipam_each_custody(s->ipam, &pool_id, copy_entry, &after);
		assert_int_equal(after.count, before.count);
		for (unsigned i = 0; i < after.count; i++)
			assert_true(after.entries[i].start == before.entries[i].start &&
				    after.entries[i].len == before.entries[i].len &&
				    after.entries[i].to == before.entries[i].to &&
				    after.entries[i].version == before.entries[i].version);
		for (unsigned i = 0; i < s->saved_count; i++)
			custody_pairs += s->saved[i].key[0] == 'C';
		assert_int_equal(custody_pairs, after.count); /* and the disk is tidy again */
	}
	shell_free(s);
}

static void saved_bytes_that_do_not_decode_are_refused_and_newer_ones_by_name(void **state)
{
	struct shell *s = shell_new("10.1.0.0/24");
	struct ipam *fresh = ipam_new(&config, &ops, s);
	uint8_t newer[IPAM_VALUE_MAX];
	struct err err;

	(void)state;
	ask_any(s, 0);
	for (unsigned i = 0; i < s->saved_count; i++) {
		struct saved *p = &s->saved[i];

		for (size_t len = 0; len < p->len; len++) {
			err = (struct err){0};
			assert_int_equal(ipam_restore(fresh, p->key, p->key_len, p->val, len, &err), -1);
			assert_int_equal(err.code, ERR_CORRUPT);
		}
		assert_int_equal(ipam_restore(fresh, p->key, p->key_len - 1, p->val, p->len, &err), -1);
		assert_int_equal(err.code, ERR_CORRUPT);
		memcpy(newer, p->val, p->len);
		newer[0] = IPAM_FORMAT + 1;
		assert_int_equal(ipam_restore(fresh, p->key, p->key_len, newer, p->len, &err), -1);
		assert_int_equal(err.code, ERR_VERSION);
		assert_non_null(strstr(err.text, "format 2"));
	}
	assert_int_equal(ipam_restore(fresh, "X", 1, "", 0, &err), -1);
	assert_null(fresh->pools);
	ipam_free(fresh);
	shell_free(s);
}

/* --- the codec --- */

static void messages_survive_the_wire(void **state)
{
	static const struct ipam_message vectors[] = {
		{.type = IPAM_MSG_REQ, .xid = 1, .flags = 3, .start = 5, .len = 1, .count = 1},
		{.type = IPAM_MSG_REQ, .xid = UINT64_MAX, .start = (u128)1 << 100, .len = (u128)1 << 64, .count = UINT32_MAX},
		{.type = IPAM_MSG_GRANT,
			.xid = 2,
			.range_count = 2,
			.ranges = {{.start = 1, .len = 1, .version = 1}, {.start = 9, .len = 200}}},
		{.type = IPAM_MSG_DENY, .xid = 3, .reason = IPAM_DENY_IN_USE, .owner = "a", .hint_count = 1, .hints = {{7, 3}}},
		{.type = IPAM_MSG_DENY,
			.xid = 3,
			.reason = IPAM_DENY_NONE,
			.range_count = 1,
			.ranges = {{.start = 9, .len = 2, .version = 7, .to = 5}}},
		{.type = IPAM_MSG_MOVED, .xid = 4, .to = 9, .reign = 1, .version = UINT64_MAX},
		{.type = IPAM_MSG_ACK,
			.xid = 5,
			.range_count = 1,
			.ranges = {{.start = ((u128)1 << 127), .len = 1, .reign = UINT32_MAX}}},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		uint8_t buf[IPAM_MESSAGE_MAX], again[IPAM_MESSAGE_MAX];
		size_t len = ipam_message_encode(&vectors[i], buf);
		struct ipam_message m;

		assert_true(len > 0);
		assert_int_equal(ipam_message_decode(&m, buf, len), 0);
		assert_int_equal(ipam_message_encode(&m, again), len);
		assert_memory_equal(buf, again, len);
		for (size_t cut = 0; cut < len; cut++)
			assert_int_equal(ipam_message_decode(&m, buf, cut), -1);
		buf[0] = IPAM_FORMAT + 1;
		assert_int_equal(ipam_message_decode(&m, buf, len), -1);
	}
}

static void the_largest_message_fits(void **state)
{
	struct ipam_message m = {.type = IPAM_MSG_GRANT, .range_count = IPAM_RANGES_MAX};
	uint8_t buf[IPAM_MESSAGE_MAX];

	(void)state;
	for (unsigned i = 0; i < IPAM_RANGES_MAX; i++)
		m.ranges[i] = (struct custody){.start = ~(u128)0 - 100, .len = 50, .reign = UINT32_MAX, .version = UINT64_MAX};
	assert_true(ipam_message_encode(&m, buf) > 0);
	m.type = IPAM_MSG_DENY;
	m.reason = IPAM_DENY_NONE;
	m.hint_count = IPAM_HINTS_MAX;
	m.range_count = IPAM_GIFTS_MAX;
	for (unsigned i = 0; i < IPAM_GIFTS_MAX; i++)
		m.ranges[i].to = IPAM_HOSTNO_MAX;
	memset(m.owner, 'o', IPAM_OWNER_MAX);
	assert_true(ipam_message_encode(&m, buf) > 0);
}

/* --- large --- */

static void a_pool_of_any_size_costs_a_few_hundred_bytes(void **state)
{
	static const char *const pools[] = {"10.0.0.0/8", "2001:db8::/64", "10.1.0.0/24"};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct shell *s = shell_new(NULL);
		struct ipam_pool_def def = def_of(pools[i]);
		size_t before = mallinfo2().uordblks, after;
		struct err err;

		s->save_nothing = true;
		ipam_pool_create(s->ipam, &def, 0, &err);
		after = mallinfo2().uordblks;
		assert_true(after - before < 2048); /* with the first bucket array of the hash of pools */
		assert_string_not_equal(ask_any(s, 0), "none");
		shell_free(s);
	}
}

static double cpu_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* More leases end at once than are remembered as resting: the oldest of those make room meanwhile. */
static void leaving_with_a_full_queue_of_resting_addresses_ends_every_lease(void **state)
{
	struct shell *s = shell_new("10.0.0.0/8");
	struct ipam_want want = {.owner = "x"};
	struct ipam_totals totals;
	struct ip *given = calloc(IPAM_RESTING_MAX + 200, sizeof(*given));

	(void)state;
	s->save_nothing = true;
	for (unsigned i = 0; i < IPAM_RESTING_MAX + 200; i++) {
		assert_int_equal(ask_with(s, want, 0), IPAM_GRANTED);
		given[i] = s->last.address;
	}
	for (unsigned i = 200; i < IPAM_RESTING_MAX + 200; i++)
		assert_true(ipam_release(s->ipam, &pool_id, &given[i], i));
	free(given);
	ipam_retire(s->ipam, 100000);
	assert_true(ipam_pool_totals(s->ipam, &pool_id, &totals));
	assert_int_equal(totals.leases, 0);
	assert_int_equal(pool_find(s->ipam, &pool_id)->resting_count, IPAM_RESTING_MAX);
	shell_free(s);
}

/* 100,000 leases, then as many releases and new ones: microseconds each. The bound is far above, for slow and instrumented
 * builds. */
static void a_hundred_thousand_leases_stay_quick(void **state)
{
	struct shell *s = shell_new("10.0.0.0/15"); /* 131,070 usable: well filled */
	double start, filled, churned;

	(void)state;
	s->save_nothing = true;
	start = cpu_seconds();
	for (unsigned i = 0; i < 100000; i++)
		assert_int_equal(ask_with(s, (struct ipam_want){.owner = "x"}, i), IPAM_GRANTED);
	filled = cpu_seconds();
	for (unsigned i = 0; i < 100000; i++) {
		struct ip ip = ip_from_number(4, 0x0a000001 + (uint64_t)i * 7919 % 100000);

		if (ipam_release(s->ipam, &pool_id, &ip, 200000 + i))
			assert_int_equal(ask_with(s, (struct ipam_want){.owner = "x"}, 200000 + i), IPAM_GRANTED);
	}
	churned = cpu_seconds();
	print_message("first fill %.2f us, release and new lease %.2f us each\n", (filled - start) * 10, (churned - filled) * 10);
	assert_true(churned - start < 10);
	shell_free(s);
}

#define TWIN_SIZE 1024
#define TWIN_STEPS 100000

static uint64_t twin_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* The twin is an array of flags. An address is given exactly when the twin has a free one in the range, and never one in use. */
static void a_naive_twin_agrees_over_100000_steps(void **state)
{
	const char *text = getenv("TRESTLE_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 10) : 20261126;
	struct shell *s = shell_new("10.1.0.0/22");
	bool used[TWIN_SIZE] = {[0] = true, [TWIN_SIZE - 1] = true};
	uint64_t now = 0;

	(void)state;
	for (unsigned step = 0; step < TWIN_STEPS; step++) {
		uint64_t r = twin_random(&seed);
		unsigned offset = (unsigned)(r >> 32) % TWIN_SIZE, length = 22 + (unsigned)(r >> 20) % 11;
		struct ip ip = ip_from_number(4, 0x0a010000 + offset);
		struct ipam_want want = {.owner = "x"};
		unsigned low, count = 0;

		now += r % 2000;
		if (r % 100 < 45) {
			assert_int_equal(ipam_release(s->ipam, &pool_id, &ip, now),
				used[offset] && offset != 0 && offset != TWIN_SIZE - 1);
			used[offset] = offset == 0 || offset == TWIN_SIZE - 1;
		} else if (r % 100 < 60) {
			want.address = ip;
			want.owner = "";
			if ((ask_with(s, want, now) == IPAM_GRANTED) != !used[offset])
				fail_msg("TRESTLE_SEED: step %u, offset %u", step, offset);
			used[offset] = true;
		} else {
			want.within = (struct prefix){ip, (uint8_t)length};
			low = offset & ~((1u << (32 - length)) - 1);
			for (unsigned i = low; i < low + (1u << (32 - length)); i++)
				count += !used[i];
			if ((ask_with(s, want, now) == IPAM_GRANTED) != (count > 0))
				fail_msg("TRESTLE_SEED: step %u, within %u/%u: %u free, code %d", step, offset, length, count,
					s->last.code);
			if (s->last.code == IPAM_GRANTED) {
				unsigned got = (unsigned)(ip_number(&s->last.address) - 0x0a010000);

				assert_in_range(got, low, low + (1u << (32 - length)) - 1);
				assert_false(used[got]);
				used[got] = true;
			}
		}
		if (step % 1000 == 0) {
			ipam_tick(s->ipam, now);
			shell_restart(s, false, 1, now);
		}
	}
	shell_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pool_has_its_usable_addresses_and_no_edges),
		cmocka_unit_test(pools_beyond_64_bits_have_every_address),
		cmocka_unit_test(a_slice_is_given_from_without_asking),
		cmocka_unit_test(absurd_pools_are_refused_and_nothing_is_saved),
		cmocka_unit_test(one_pool_id_has_one_definition),
		cmocka_unit_test(a_pool_made_elsewhere_cannot_be_made_again),
		cmocka_unit_test(a_new_pool_is_on_disk_before_it_is_published),
		cmocka_unit_test(dropping_a_whole_pool_leaves_nothing_on_disk),
		cmocka_unit_test(a_pool_whose_custody_was_left_is_saved_when_made_again),
		cmocka_unit_test(a_lease_is_saved_before_it_is_answered),
		cmocka_unit_test(addresses_come_one_after_another_until_none_is_left),
		cmocka_unit_test(an_explicit_address_is_given_once_and_repeated_to_its_owner),
		cmocka_unit_test(addresses_of_another_family_or_pool_are_outside),
		cmocka_unit_test(a_released_address_is_the_last_to_come_back),
		cmocka_unit_test(releasing_twice_or_what_was_never_given_is_harmless),
		cmocka_unit_test(a_range_limits_free_choice_and_not_explicit_addresses),
		cmocka_unit_test(bind_marks_and_renames),
		cmocka_unit_test(a_gateway_is_the_first_address_and_the_same_again),
		cmocka_unit_test(what_another_host_lists_as_shared_is_joined_and_never_an_endpoints),
		cmocka_unit_test(a_guest_shares_a_gateway_without_custody),
		cmocka_unit_test(an_unbound_lease_becomes_shared_and_stays_so_over_a_restart),
		cmocka_unit_test(shared_leases_end_at_what_can_be_published),
		cmocka_unit_test(a_gateway_whose_address_an_endpoint_has_is_another_one),
		cmocka_unit_test(a_holders_word_that_an_address_is_shared_lets_a_share_join_and_an_endpoint_not),
		cmocka_unit_test(two_that_share_an_address_get_it_on_the_holders_word),
		cmocka_unit_test(a_shared_address_is_not_passed_on),
		cmocka_unit_test(a_host_that_does_not_know_says_so),
		cmocka_unit_test(a_former_holder_says_who_has_it),
		cmocka_unit_test(an_offer_in_a_record_is_taken_when_the_pool_becomes_known),
		cmocka_unit_test(requests_of_a_dropped_pool_are_answered),
		cmocka_unit_test(dropping_is_refused_while_a_gift_is_on_its_way),
		cmocka_unit_test(shares_tell_who_holds_what),
		cmocka_unit_test(buckets_are_powers_of_two),
		cmocka_unit_test(a_grant_is_on_disk_before_it_is_used_or_acknowledged),
		cmocka_unit_test(a_gift_is_on_disk_before_it_leaves_and_repeats_until_acknowledged),
		cmocka_unit_test(a_gift_in_many_pieces_is_repeated_whole),
		cmocka_unit_test(a_published_holding_ends_the_offer_like_an_ack),
		cmocka_unit_test(the_last_free_address_goes_to_who_waits_and_not_to_who_stocks_up),
		cmocka_unit_test(a_chunk_is_a_share_of_what_is_free),
		cmocka_unit_test(a_silent_holder_is_named_when_time_is_up),
		cmocka_unit_test(moved_is_followed_four_times_and_no_further),
		cmocka_unit_test(a_used_address_names_its_host_and_owner),
		cmocka_unit_test(a_pool_in_a_thousand_pieces_is_published_whole),
		cmocka_unit_test(everybody_is_asked_before_a_pool_counts_as_exhausted),
		cmocka_unit_test(a_pool_is_not_exhausted_while_a_gift_is_on_its_way),
		cmocka_unit_test(a_gift_that_cannot_be_waited_for_is_out_of_reach),
		cmocka_unit_test(a_gift_between_two_others_is_waited_for_too),
		cmocka_unit_test(who_gave_its_last_tells_to_whom),
		cmocka_unit_test(a_gift_that_a_donor_tells_of_is_waited_for),
		cmocka_unit_test(what_a_full_record_may_leave_out_is_not_waited_for),
		cmocka_unit_test(the_dead_with_the_most_do_not_hide_one_that_may_come),
		cmocka_unit_test(a_cancelled_request_is_not_answered_and_its_address_stays_free),
		cmocka_unit_test(grants_outside_the_pool_are_counted_and_ignored),
		cmocka_unit_test(a_host_asks_ahead_before_it_runs_out),
		cmocka_unit_test(the_memory_of_a_pool_that_is_gone_makes_room),
		cmocka_unit_test(who_says_that_few_know_it_gets_nothing),
		cmocka_unit_test(who_is_known_to_few_says_so_and_asks_again_when_it_is_known),
		cmocka_unit_test(who_may_have_no_addresses_yet_asks_again),
		cmocka_unit_test(who_may_have_no_addresses_until_its_deadline_is_told_so),
		cmocka_unit_test(all_who_have_some_are_asked_ahead_in_turn),
		cmocka_unit_test(who_is_new_asks_ahead_every_second_until_it_may_have_some),
		cmocka_unit_test(spares_are_fetched_up_to_their_number),
		cmocka_unit_test(leases_survive_a_restart_and_end_with_the_boot),
		cmocka_unit_test(what_was_read_back_is_made_durable_before_others_hear_of_it),
		cmocka_unit_test(rest_survives_a_restart),
		cmocka_unit_test(a_torn_map_is_the_same_after_restart_in_any_order),
		cmocka_unit_test(saved_bytes_that_do_not_decode_are_refused_and_newer_ones_by_name),
		cmocka_unit_test(messages_survive_the_wire),
		cmocka_unit_test(the_largest_message_fits),
		cmocka_unit_test(a_pool_of_any_size_costs_a_few_hundred_bytes),
		cmocka_unit_test(leaving_with_a_full_queue_of_resting_addresses_ends_every_lease),
		cmocka_unit_test(a_hundred_thousand_leases_stay_quick),
		cmocka_unit_test(a_naive_twin_agrees_over_100000_steps),
	};

	return cmocka_run_group_tests_name("ipam", tests, NULL, NULL);
}

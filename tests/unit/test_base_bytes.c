/* The byte writer and reader: exact bytes, every cut of a good message is bad, one form per varint. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/bytes.h"

static void integers_are_big_endian(void **state)
{
	static const uint8_t expected[] = {1, 0x12, 0x34, 0x12, 0x34, 0x56, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 0, 0, 0, 0, 0, 9};
	uint8_t buf[sizeof(expected)];
	struct bytes_writer w;
	struct bytes_reader r;

	(void)state;
	bw_init(&w, buf, sizeof(buf));
	bw_u8(&w, 1);
	bw_u16(&w, 0x1234);
	bw_u24(&w, 0x123456);
	bw_u32(&w, 0x01020304);
	bw_u64(&w, 0x0102030405060708);
	bw_u128(&w, 9);
	assert_false(w.overflow);
	assert_int_equal(w.len, sizeof(expected));
	assert_memory_equal(buf, expected, sizeof(expected));

	br_init(&r, buf, w.len);
	assert_int_equal(br_u8(&r), 1);
	assert_int_equal(br_u16(&r), 0x1234);
	assert_int_equal(br_u24(&r), 0x123456);
	assert_int_equal(br_u32(&r), 0x01020304);
	assert_true(br_u64(&r) == 0x0102030405060708);
	assert_true(br_u128(&r) == 9);
	assert_true(br_done(&r));
}

static void a_full_writer_stays_full(void **state)
{
	uint8_t buf[4] = {0};
	struct bytes_writer w;

	(void)state;
	bw_init(&w, buf, 3);
	bw_u16(&w, 0x0101);
	bw_u16(&w, 0x0202); /* does not fit, and must not be written in part */
	assert_true(w.overflow);
	assert_int_equal(w.len, 2);
	bw_u8(&w, 3); /* would fit: refused all the same */
	assert_int_equal(w.len, 2);
	assert_memory_equal(buf, "\1\1\0\0", 4);
	bw_init(&w, buf, 2);
	bw_bytes(&w, "abc", SIZE_MAX);
	assert_true(w.overflow);
}

static void varints_have_one_form(void **state)
{
	static const struct {
		uint64_t value;
		size_t len;
		uint8_t bytes[10];
	} good[] = {
		{0, 1, {0}},
		{127, 1, {0x7f}},
		{128, 2, {0x80, 1}},
		{300, 2, {0xac, 2}},
		{16384, 3, {0x80, 0x80, 1}},
		{UINT32_MAX, 5, {0xff, 0xff, 0xff, 0xff, 0x0f}},
		{UINT64_MAX, 10, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}},
	};
	static const struct {
		size_t len;
		uint8_t bytes[11];
	} bad[] = {
		{0, {0}},
		{1, {0x80}},
		{2, {0x80, 0}},
		{3, {0xac, 0x82, 0}},
		{10, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2}},
		{10, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81}},
		{11, {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1}},
	};
	struct bytes_reader r;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		uint8_t buf[10];
		struct bytes_writer w;

		bw_init(&w, buf, sizeof(buf));
		bw_varint(&w, good[i].value);
		assert_int_equal(w.len, good[i].len);
		assert_memory_equal(buf, good[i].bytes, good[i].len);
		br_init(&r, buf, w.len);
		assert_true(br_varint(&r) == good[i].value);
		assert_true(br_done(&r));
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		br_init(&r, bad[i].bytes, bad[i].len);
		assert_true(br_varint(&r) == 0);
		if (!r.bad)
			fail_msg("bad varint %zu was taken", i);
	}
}

static const struct id128 some_id = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

static size_t write_message(uint8_t *buf, size_t size)
{
	struct ip none = {0}, v4 = {.family = 4, .bytes = {192, 0, 2, 1}}, v6 = {.family = 6, .bytes = {0x20, 1, 0xd, 0xb8}};
	struct mac mac = {{2, 1, 2, 3, 4, 5}};
	struct bytes_writer w;

	bw_init(&w, buf, size);
	bw_id(&w, &some_id);
	bw_ip(&w, &none);
	bw_ip(&w, &v4);
	bw_ip(&w, &v6);
	bw_mac(&w, &mac);
	bw_text(&w, "host-1");
	bw_text(&w, "");
	bw_bytes(&w, "xyz", 3);
	assert_false(w.overflow);
	return w.len;
}

static bool read_message(const uint8_t *buf, size_t len)
{
	struct id128 id;
	struct ip none, v4, v6;
	struct mac mac;
	char name[7], empty[1], text[IP_TEXT_SIZE];
	struct bytes_reader r;
	const uint8_t *tail;

	br_init(&r, buf, len);
	br_id(&r, &id);
	br_ip(&r, &none);
	br_ip(&r, &v4);
	br_ip(&r, &v6);
	br_mac(&r, &mac);
	br_text(&r, name, sizeof(name));
	br_text(&r, empty, sizeof(empty));
	tail = br_bytes(&r, 3);
	if (!br_done(&r))
		return false;
	assert_true(id_equal(&id, &some_id));
	assert_false(ip_is_set(&none));
	assert_string_equal(ip_format(&v4, text), "192.0.2.1");
	assert_string_equal(ip_format(&v6, text), "2001:db8::");
	assert_int_equal(mac.bytes[5], 5);
	assert_string_equal(name, "host-1");
	assert_string_equal(empty, "");
	assert_memory_equal(tail, "xyz", 3);
	return true;
}

static void values_come_back_and_every_cut_is_bad(void **state)
{
	uint8_t buf[128];
	size_t len = write_message(buf, sizeof(buf));

	(void)state;
	assert_true(read_message(buf, len));
	assert_false(read_message(buf, len + 1));
	for (size_t cut = 0; cut < len; cut++)
		assert_false(read_message(buf, cut));
}

static void a_bad_reader_gives_zeros(void **state)
{
	static const uint8_t buf[] = {1, 2, 3, 4};
	struct bytes_reader r;
	struct id128 id = some_id;
	struct ip ip = {.family = 4};
	struct mac mac = {{1}};
	char text[8] = "before";

	(void)state;
	br_init(&r, buf, sizeof(buf));
	assert_true(br_u64(&r) == 0);
	assert_true(r.bad);
	assert_int_equal(br_u8(&r), 0);
	assert_null(br_bytes(&r, 0));
	br_id(&r, &id);
	br_ip(&r, &ip);
	br_mac(&r, &mac);
	br_text(&r, text, sizeof(text));
	assert_true(id_is_zero(&id));
	assert_false(ip_is_set(&ip));
	assert_true(mac_is_zero(&mac));
	assert_string_equal(text, "");
	assert_int_equal(br_left(&r), 0);
	assert_false(br_done(&r));
}

static void bad_families_and_texts_are_refused(void **state)
{
	static const struct {
		size_t len;
		uint8_t bytes[8];
	} texts[] = {
		{4, {4, 'a', 'b', 'c'}},	     /* shorter than it says */
		{5, {4, 'a', 'b', 'c', 'd'}},	     /* no room for the NUL */
		{4, {3, 'a', 0, 'c'}},		     /* NUL inside */
		{6, {0xff, 0xff, 0xff, 0xff, 0x7f}}, /* absurd length */
	};
	struct bytes_reader r;
	struct ip ip;
	char buf[4];

	(void)state;
	for (unsigned family = 0; family < 256; family++) {
		uint8_t bytes[17] = {(uint8_t)family};

		br_init(&r, bytes, sizeof(bytes));
		br_ip(&r, &ip);
		assert_int_equal(r.bad, family != 0 && family != 4 && family != 6);
	}
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		br_init(&r, texts[i].bytes, texts[i].len);
		br_text(&r, buf, sizeof(buf));
		assert_true(r.bad);
		assert_string_equal(buf, "");
	}
}

static void nothing_is_a_fine_message(void **state)
{
	struct bytes_reader r;

	(void)state;
	br_init(&r, NULL, 0);
	assert_true(br_done(&r));
	assert_int_equal(br_u8(&r), 0);
	assert_true(r.bad);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(integers_are_big_endian),
		cmocka_unit_test(a_full_writer_stays_full),
		cmocka_unit_test(varints_have_one_form),
		cmocka_unit_test(values_come_back_and_every_cut_is_bad),
		cmocka_unit_test(a_bad_reader_gives_zeros),
		cmocka_unit_test(bad_families_and_texts_are_refused),
		cmocka_unit_test(nothing_is_a_fine_message),
	};

	return cmocka_run_group_tests_name("base_bytes", tests, NULL, NULL);
}

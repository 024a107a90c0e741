/* The bytes of shared and stored values: there and back, cut at every length, from a newer version, and impossible. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/records.h"

#define VALUE_SIZE_MAX 16384

/* One row per kind of value. Functions of different types are called through these wrappers. */
struct kind {
	const char *name;
	size_t size;
	size_t (*encode)(const void *value, void *buf, size_t size);
	int (*decode)(const void *bytes, size_t len, void *value, struct err *err);
	void (*fill)(void *value); /* something in every member, every list full */
	size_t max;		   /* bytes that the full one may have */
};

#define WRAP(type)                                                                                                               \
	static size_t encode_##type(const void *value, void *buf, size_t size)                                                   \
	{                                                                                                                        \
		return type##_encode(value, buf, size);                                                                          \
	}                                                                                                                        \
	static int decode_##type(const void *bytes, size_t len, void *value, struct err *err)                                    \
	{                                                                                                                        \
		return type##_decode(bytes, len, value, err);                                                                    \
	}

WRAP(network_def)
WRAP(pool_def)
WRAP(endpoint_record)
WRAP(cluster_state)
WRAP(network_state)
WRAP(docker_network_state)
WRAP(pool_state)
WRAP(endpoint_state)

static struct id128 id_of(uint8_t first)
{
	struct id128 id;

	for (size_t i = 0; i < sizeof(id.bytes); i++)
		id.bytes[i] = (uint8_t)(first + i);
	return id;
}

static struct prefix prefix_of(const char *text)
{
	struct prefix prefix = {0};

	assert_int_equal(prefix_parse(text, &prefix, NULL), 0);
	return prefix;
}

static struct ip ip_of(const char *text)
{
	struct ip ip = {0};

	assert_int_equal(ip_parse(text, &ip, NULL), 0);
	return ip;
}

static void fill_text(char *buf, size_t size)
{
	for (size_t i = 0; i + 1 < size; i++)
		buf[i] = (char)('a' + i % 26);
	buf[size - 1] = '\0';
}

static void fill_network_def(void *value)
{
	struct network_def *d = value;

	d->id = id_of(1);
	d->version = 0xfffffffe;
	fill_text(d->name, sizeof(d->name));
	d->vni = 0xffffff;
	d->mtu = 65535;
	d->internal = d->routed = true;
	d->pool_count = NETWORK_POOLS_MAX;
	for (unsigned i = 0; i < d->pool_count; i++) {
		d->pools[i] = prefix_of("2001:db8::/64");
		d->pools[i].ip.bytes[7] = (uint8_t)i;
	}
	d->pools[0] = prefix_of("10.9.0.0/24");
	d->creator = GOSSIP_HOSTNO_MAX;
	d->created_s = UINT64_MAX;
}

static void fill_pool_def(void *value)
{
	struct pool_def *d = value;

	d->id = id_of(2);
	d->space = POOL_SPACE_HOSTNO;
	d->prefix = prefix_of("2001:db8:1::/64");
	fill_text(d->name, sizeof(d->name));
	d->creator = GOSSIP_HOSTNO_MAX;
	d->wanted = true;
}

static void fill_endpoint_record(void *value)
{
	struct endpoint_record *e = value;

	fill_text(e->short_id, sizeof(e->short_id));
	e->mac = (struct mac){{2, 1, 2, 3, 4, 5}};
	e->ip4 = ip_of("10.9.0.5");
	e->ip6 = ip_of("2001:db8::5");
	e->since_s = UINT64_MAX;
}

static void fill_cluster_state(void *value)
{
	struct cluster_state *s = value;

	s->cluster_id = id_of(3);
	memset(s->key, 0xa5, sizeof(s->key));
	s->hostno = GOSSIP_HOSTNO_MAX;
	s->epoch = UINT32_MAX;
	s->hostno_pool = id_of(4);
	s->known = true;
}

static void fill_network_state(void *value)
{
	struct network_state *s = value;

	fill_network_def(&s->def);
	s->pinned = true;
}

static void fill_docker_network_state(void *value)
{
	struct docker_network_state *s = value;

	s->network = id_of(5);
	memset(s->digest, 0x5a, sizeof(s->digest));
	fill_text(s->if_prefix, sizeof(s->if_prefix));
	s->internal = true;
}

static void fill_pool_state(void *value)
{
	struct pool_state *s = value;

	fill_pool_def(&s->def);
	s->pinned = true;
	s->ref_count = POOL_REFS_MAX;
	for (unsigned i = 0; i < s->ref_count; i++) {
		s->refs[i].within = prefix_of("2001:db8:1::/80");
		s->refs[i].within.ip.bytes[9] = (uint8_t)i;
		s->refs[i].count = UINT32_MAX - i;
	}
	s->refs[0].within = (struct prefix){0};
	s->gateway_count = POOL_GATEWAYS_MAX;
	for (unsigned i = 0; i < s->gateway_count; i++) {
		s->gateways[i] = ip_of("2001:db8:1::");
		s->gateways[i].bytes[15] = (uint8_t)(i + 1);
	}
	s->aux_count = POOL_AUX_MAX;
	for (unsigned i = 0; i < s->aux_count; i++) {
		s->aux[i] = ip_of("2001:db8:1::a:0");
		s->aux[i].bytes[15] = (uint8_t)i;
	}
}

static void fill_endpoint_state(void *value)
{
	struct endpoint_state *s = value;

	fill_text(s->docker_network, sizeof(s->docker_network));
	s->network = id_of(6);
	s->mac = (struct mac){{2, 1, 2, 3, 4, 5}};
	s->mac_given = true;
	s->address4 = prefix_of("10.9.0.5/24");
	s->address6 = prefix_of("2001:db8::5/64");
	fill_text(s->peer_name, sizeof(s->peer_name));
	s->joined = s->left = s->own_lease4 = s->own_lease6 = true;
	fill_text(s->sandbox, sizeof(s->sandbox));
	s->since_s = UINT64_MAX;
}

#define KIND(type, max)                                                                                                          \
	{                                                                                                                        \
#type, sizeof(struct type), encode_##type, decode_##type, fill_##type, max                                       \
	}
static const struct kind kinds[] = {
	KIND(network_def, GOSSIP_VALUE_MAX),
	KIND(pool_def, GOSSIP_VALUE_MAX),
	KIND(endpoint_record, GOSSIP_VALUE_MAX),
	KIND(cluster_state, RECORD_MAX),
	KIND(network_state, RECORD_MAX),
	KIND(docker_network_state, RECORD_MAX),
	KIND(pool_state, RECORD_MAX),
	KIND(endpoint_state, RECORD_MAX),
};
#define KIND_COUNT (sizeof(kinds) / sizeof(kinds[0]))

static union {
	uint8_t bytes[VALUE_SIZE_MAX];
	uint64_t aligned;
} value, back;

static size_t encode_full(const struct kind *k, uint8_t *buf, size_t size)
{
	assert_true(k->size <= sizeof(value));
	memset(&value, 0, sizeof(value));
	k->fill(&value);
	return k->encode(&value, buf, size);
}

static void full_values_fit_and_come_back(void **state)
{
	uint8_t buf[RECORD_MAX];
	struct err err = {0};

	(void)state;
	for (size_t i = 0; i < KIND_COUNT; i++) {
		size_t len = encode_full(&kinds[i], buf, kinds[i].max);

		if (len == 0)
			fail_msg("%s: a full one does not fit %zu bytes", kinds[i].name, kinds[i].max);
		memset(&back, 0xee, sizeof(back));
		if (kinds[i].decode(buf, len, &back, &err) < 0)
			fail_msg("%s: %s", kinds[i].name, err.text);
		assert_memory_equal(&back, &value, kinds[i].size);
	}
}

static void a_buffer_too_small_gives_nothing(void **state)
{
	uint8_t buf[RECORD_MAX + 1];

	(void)state;
	for (size_t i = 0; i < KIND_COUNT; i++) {
		size_t len = encode_full(&kinds[i], buf, RECORD_MAX);

		for (size_t size = 0; size < len; size++) {
			buf[size] = 0x77;
			assert_int_equal(kinds[i].encode(&value, buf, size), 0);
			assert_int_equal(buf[size], 0x77);
		}
		assert_int_equal(kinds[i].encode(&value, buf, len), len);
	}
}

static void cut_or_prolonged_bytes_are_corrupt(void **state)
{
	uint8_t buf[RECORD_MAX + 1];

	(void)state;
	for (size_t i = 0; i < KIND_COUNT; i++) {
		size_t len = encode_full(&kinds[i], buf, RECORD_MAX);

		buf[len] = 0;
		for (size_t cut = 0; cut <= len + 1; cut++) {
			struct err err = {0};
			uint8_t *exact = malloc(cut ? cut : 1); /* a read behind its end is seen by the sanitizer */

			assert_non_null(exact);
			memcpy(exact, buf, cut);
			memset(&back, 0xee, sizeof(back));
			if (cut == len) {
				assert_int_equal(kinds[i].decode(exact, cut, &back, &err), 0);
			} else {
				assert_int_equal(kinds[i].decode(exact, cut, &back, &err), -1);
				assert_int_equal(err.code, ERR_CORRUPT);
				assert_int_equal(back.bytes[0], 0xee);
				assert_int_equal(back.bytes[kinds[i].size - 1], 0xee);
			}
			free(exact);
		}
	}
}

static void newer_formats_are_told_apart_from_damage(void **state)
{
	uint8_t buf[RECORD_MAX];

	(void)state;
	for (size_t i = 0; i < KIND_COUNT; i++) {
		size_t len = encode_full(&kinds[i], buf, sizeof(buf));
		struct err err = {0};

		for (unsigned format = 2; format < 256; format += 23) {
			buf[0] = (uint8_t)format;
			assert_int_equal(kinds[i].decode(buf, len, &back, &err), -1);
			assert_int_equal(err.code, ERR_VERSION);
		}
		buf[0] = 2; /* alone: the rest of a newer one is not ours to judge */
		assert_int_equal(kinds[i].decode(buf, 1, &back, &err), -1);
		assert_int_equal(err.code, ERR_VERSION);
		assert_non_null(strstr(err.text, "knows up to 1"));
		buf[0] = 0;
		assert_int_equal(kinds[i].decode(buf, len, &back, &err), -1);
		assert_int_equal(err.code, ERR_CORRUPT);
	}
}

/* Whatever decodes has one form: encoding it again gives the same bytes. */
static void what_decodes_encodes_to_the_same(void **state)
{
	uint8_t buf[RECORD_MAX], again[RECORD_MAX];
	unsigned accepted = 0;

	(void)state;
	for (size_t i = 0; i < KIND_COUNT; i++) {
		size_t len = encode_full(&kinds[i], buf, sizeof(buf));

		for (size_t at = 1; at < len; at++) {
			uint8_t was = buf[at];
			static const uint8_t flips[] = {0x01, 0x80, 0xff, 0x04};

			for (size_t f = 0; f < sizeof(flips); f++) {
				buf[at] = was ^ flips[f];
				if (kinds[i].decode(buf, len, &back, NULL) < 0)
					continue;
				accepted++;
				assert_int_equal(kinds[i].encode(&back, again, sizeof(again)), len);
				assert_memory_equal(again, buf, len);
			}
			buf[at] = was;
		}
	}
	assert_true(accepted > 1000);
}

/* ---- impossible values ---- */

static void expect_refused(const struct kind *k)
{
	uint8_t buf[RECORD_MAX];
	struct err err = {0};
	size_t len = k->encode(&value, buf, sizeof(buf));

	assert_true(len > 0);
	assert_int_equal(k->decode(buf, len, &back, &err), -1);
	assert_int_equal(err.code, ERR_CORRUPT);
	assert_non_null(strstr(err.text, "do not decode"));
}

static const struct kind *kind_named(const char *name)
{
	for (size_t i = 0; i < KIND_COUNT; i++)
		if (strcmp(kinds[i].name, name) == 0)
			return &kinds[i];
	fail_msg("no kind %s", name);
	return NULL;
}

/* Fills a value, spoils one member, and wants it refused. */
#define REFUSED(type, spoil)                                                                                                     \
	do {                                                                                                                     \
		struct type *v = (struct type *)(void *)&value;                                                                  \
		memset(&value, 0, sizeof(value));                                                                                \
		fill_##type(v);                                                                                                  \
		spoil;                                                                                                           \
		expect_refused(kind_named(#type));                                                                               \
	} while (0)

static void impossible_networks_are_refused(void **state)
{
	(void)state;
	REFUSED(network_def, v->name[0] = '\0');
	REFUSED(network_def, v->name[3] = '\n');
	REFUSED(network_def, v->name[3] = '\033');
	REFUSED(network_def, v->name[3] = ' ');
	REFUSED(network_def, v->name[3] = '\xc3');
	REFUSED(network_def, v->vni = 0);
	REFUSED(network_def, v->mtu = 67);
	REFUSED(network_def, v->pools[0].ip.bytes[3] = 1);
	REFUSED(network_def, v->pools[1].ip.bytes[15] = 1);
	REFUSED(network_def, memset(&v->pools[2], 0, sizeof(v->pools[2])));
	REFUSED(network_def, v->pools[0].length = 33);
	REFUSED(network_def, v->pools[1].length = 129);
	REFUSED(network_state, v->def.vni = 0);
	REFUSED(docker_network_state, v->if_prefix[0] = '\t');
}

static void impossible_pools_are_refused(void **state)
{
	(void)state;
	REFUSED(pool_def, v->space = (enum pool_space)3);
	REFUSED(pool_def, memset(&v->prefix, 0, sizeof(v->prefix)));
	REFUSED(pool_def, v->prefix.ip.bytes[15] = 1);
	REFUSED(pool_def, v->name[1] = '\r');
	REFUSED(pool_state, v->def.prefix.ip.bytes[15] = 1);
	REFUSED(pool_state, v->refs[3].count = 0);
	REFUSED(pool_state, v->refs[3].within = prefix_of("2001:db8:2::/80"));
	REFUSED(pool_state, v->refs[3].within = prefix_of("10.9.0.0/24"));
	REFUSED(pool_state, v->refs[0].within.length = 24);
	REFUSED(pool_state, memset(&v->gateways[15], 0, sizeof(struct ip)));
	REFUSED(pool_state, v->gateways[0] = ip_of("2001:db8:2::1"));
	REFUSED(pool_state, v->aux[0] = ip_of("10.9.0.1"));
	REFUSED(pool_state, memset(&v->aux[31], 0, sizeof(struct ip)));
}

static void impossible_endpoints_are_refused(void **state)
{
	(void)state;
	REFUSED(endpoint_record, memset(&v->mac, 0, sizeof(v->mac)));
	REFUSED(endpoint_record, v->mac.bytes[0] = 3);
	REFUSED(endpoint_record, v->ip4 = ip_of("2001:db8::1"));
	REFUSED(endpoint_record, v->ip6 = ip_of("10.9.0.1"));
	REFUSED(endpoint_record, v->short_id[0] = '\033');
	REFUSED(endpoint_state, memset(&v->mac, 0, sizeof(v->mac)));
	REFUSED(endpoint_state, v->mac.bytes[0] = 0xff);
	REFUSED(endpoint_state, v->address4 = prefix_of("2001:db8::5/64"));
	REFUSED(endpoint_state, v->address6 = prefix_of("10.9.0.5/24"));
	REFUSED(endpoint_state, v->docker_network[5] = '\n');
	REFUSED(endpoint_state, v->peer_name[0] = '\n');
}

static void impossible_clusters_are_refused(void **state)
{
	(void)state;
	REFUSED(cluster_state, v->hostno = 0);
	REFUSED(cluster_state, v->hostno = GOSSIP_HOSTNO_MAX + 1);
}

/* Counts and flags that no struct of ours can have are made in the bytes. */
static void impossible_bytes_are_refused(void **state)
{
	static const struct {
		const char *kind;
		size_t from_end; /* of the byte, in a value whose lists are empty */
		uint8_t byte;
	} cases[] = {
		{"network_def", 12, NETWORK_POOLS_MAX + 1}, /* count, creator 3, created 8 */
		{"network_def", 13, 4},			    /* internal, routed, and no third */
		{"pool_def", 1, 2},
		{"pool_state", 3, POOL_REFS_MAX + 1},
		{"pool_state", 2, POOL_GATEWAYS_MAX + 1},
		{"pool_state", 1, POOL_AUX_MAX + 1},
		{"pool_state", 4, 2}, /* pinned */
		{"docker_network_state", 1, 255},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct kind *k = kind_named(cases[i].kind);
		uint8_t buf[RECORD_MAX];
		struct err err = {0};
		size_t len;

		encode_full(k, buf, sizeof(buf));
		if (k->fill == fill_network_def)
			((struct network_def *)(void *)&value)->pool_count = 0;
		if (k->fill == fill_pool_state) {
			struct pool_state *s = (struct pool_state *)(void *)&value;
			s->ref_count = s->gateway_count = s->aux_count = 0;
		}
		len = k->encode(&value, buf, sizeof(buf));
		assert_int_equal(k->decode(buf, len, &back, &err), 0);
		buf[len - cases[i].from_end] = cases[i].byte;
		assert_int_equal(k->decode(buf, len, &back, &err), -1);
		assert_int_equal(err.code, ERR_CORRUPT);
	}
}

static void hexadecimal_ids_take_half_the_room(void **state)
{
	uint8_t hex[RECORD_MAX], buf[RECORD_MAX];
	struct endpoint_record e = {.mac = {{2, 0, 0, 0, 0, 1}}, .short_id = "0123456789ab"}, e2;
	size_t len, hex_len = endpoint_record_encode(&e, hex, sizeof(hex));

	(void)state;
	assert_int_equal(endpoint_record_decode(hex, hex_len, &e2, NULL), 0);
	assert_string_equal(e2.short_id, "0123456789ab");
	e.short_id[11] = 'B';
	len = endpoint_record_encode(&e, buf, sizeof(buf));
	assert_int_equal(len, hex_len + 6);
	assert_int_equal(endpoint_record_decode(buf, len, &e2, NULL), 0);
	assert_string_equal(e2.short_id, "0123456789aB");
	for (size_t i = 0; i < len; i++)
		if (buf[i] == 'B')
			buf[i] = 'b';
	assert_int_equal(endpoint_record_decode(buf, len, &e2, NULL), -1); /* the longer form of the same value */
	hex[1] = 0x80 | 7;
	assert_int_equal(endpoint_record_decode(hex, hex_len, &e2, NULL), -1);
}

static void absent_addresses_are_fine(void **state)
{
	uint8_t buf[RECORD_MAX];
	struct endpoint_record e = {.mac = {{2, 0, 0, 0, 0, 1}}, .ip6 = {.family = 6, .bytes = {0x20, 1}}}, e2;
	struct endpoint_state s = {.mac = {{2, 0, 0, 0, 0, 1}}}, s2;
	struct pool_state p = {.def = {.id = id_of(1), .prefix = prefix_of("10.9.0.0/24")}}, p2;
	size_t len;

	(void)state;
	len = endpoint_record_encode(&e, buf, sizeof(buf));
	assert_int_equal(endpoint_record_decode(buf, len, &e2, NULL), 0);
	assert_memory_equal(&e2, &e, sizeof(e));
	len = endpoint_state_encode(&s, buf, sizeof(buf));
	assert_int_equal(endpoint_state_decode(buf, len, &s2, NULL), 0);
	assert_memory_equal(&s2.address4, &s.address4, sizeof(s.address4));
	len = pool_state_encode(&p, buf, sizeof(buf));
	assert_int_equal(pool_state_decode(buf, len, &p2, NULL), 0);
	assert_int_equal(p2.ref_count + p2.gateway_count + p2.aux_count, 0);
}

static void of_two_definitions_one_counts(void **state)
{
	struct network_def a = {0}, b;

	(void)state;
	fill_network_def(&a);
	b = a;
	assert_int_equal(network_def_compare(&a, &b), 0);
	b.version--;
	assert_true(network_def_compare(&a, &b) > 0 && network_def_compare(&b, &a) < 0);
	b = a;
	b.vni--;
	assert_true(network_def_compare(&a, &b) > 0 && network_def_compare(&b, &a) < 0);
	b.version++; /* before the bytes */
	assert_true(network_def_compare(&a, &b) < 0 && network_def_compare(&b, &a) > 0);
	b = a;
	b.pool_count--;
	assert_true(network_def_compare(&a, &b) != 0);
	assert_true((network_def_compare(&a, &b) > 0) == (network_def_compare(&b, &a) < 0));
}

/* With TRESTLE_CORPUS=DIR the full values are written there as inputs of fuzz_state. */
static int write_corpus(void **state)
{
	const char *dir = getenv("TRESTLE_CORPUS");
	uint8_t buf[RECORD_MAX + 1];
	char path[4096];

	(void)state;
	for (size_t i = 0; dir && i < KIND_COUNT; i++) {
		size_t len = encode_full(&kinds[i], buf + 1, RECORD_MAX);
		FILE *f;

		buf[0] = (uint8_t)i;
		snprintf(path, sizeof(path), "%s/%s", dir, kinds[i].name);
		f = fopen(path, "wb");
		if (!f || fwrite(buf, 1, len + 1, f) != len + 1 || fclose(f) != 0)
			return -1;
	}
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(full_values_fit_and_come_back),
		cmocka_unit_test(a_buffer_too_small_gives_nothing),
		cmocka_unit_test(cut_or_prolonged_bytes_are_corrupt),
		cmocka_unit_test(newer_formats_are_told_apart_from_damage),
		cmocka_unit_test(what_decodes_encodes_to_the_same),
		cmocka_unit_test(impossible_networks_are_refused),
		cmocka_unit_test(impossible_pools_are_refused),
		cmocka_unit_test(impossible_endpoints_are_refused),
		cmocka_unit_test(impossible_clusters_are_refused),
		cmocka_unit_test(impossible_bytes_are_refused),
		cmocka_unit_test(hexadecimal_ids_take_half_the_room),
		cmocka_unit_test(absent_addresses_are_fine),
		cmocka_unit_test(of_two_definitions_one_counts),
	};

	return cmocka_run_group_tests(tests, write_corpus, NULL);
}

/* Everything in base/ that reads bytes of others: the first byte picks the parser, the rest is its input.
 * What parses must format to text that parses to the same value. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/addr.h"
#include "base/bytes.h"
#include "base/id.h"
#include "base/jd.h"
#include "base/json_text.h"
#include "base/number.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth)
{
	if (!truth)
		abort();
}

static void try_ip(const char *text)
{
	char back[IP_TEXT_SIZE];
	struct ip a, b;
	struct err err;

	if (ip_parse(text, &a, &err) < 0)
		return;
	require(ip_parse(ip_format(&a, back), &b, &err) == 0 && ip_equal(&a, &b));
	b = ip_from_number(a.family, ip_number(&a));
	require(ip_equal(&a, &b));
}

static void try_prefix(const char *text)
{
	char back[PREFIX_TEXT_SIZE];
	struct prefix a, b;
	struct err err;

	if (prefix_parse(text, &a, &err) < 0)
		return;
	require(prefix_parse(prefix_format(&a, back), &b, &err) == 0 && prefix_equal(&a, &b));
	b = prefix_masked(&a);
	require(prefix_contains(&b, &a.ip) && prefix_contains_prefix(&a, &b) && prefix_contains_prefix(&b, &a));
}

static void try_mac(const char *text)
{
	char back[MAC_TEXT_SIZE];
	struct mac a, b;
	struct err err;

	if (mac_parse(text, &a, &err) < 0)
		return;
	require(mac_parse(mac_format(&a, back), &b, &err) == 0 && mac_equal(&a, &b));
}

static void try_id_and_number(const char *text)
{
	char back[ID_TEXT_SIZE];
	struct id128 a, b;
	uint64_t number;
	struct err err;

	if (id_parse(text, &a, &err) == 0)
		require(id_parse(id_format(&a, back), &b, &err) == 0 && id_equal(&a, &b));
	if (number_parse(text, 5, 70000, &number) == 0)
		require(number >= 5 && number <= 70000);
}

static void try_json(const uint8_t *data, size_t size)
{
	struct err err;
	struct jd d;
	struct prefix prefix;
	json_t *root = jd_parse(data, size, "fuzz", &err);

	if (!root) {
		require(err.code == ERR_INVALID && err.text[0] != '\0');
		return;
	}
	jd_init(&d, root, "fuzz", &err);
	require(strlen(jd_str(&d, "s", 16)) <= 16);
	jd_opt_ip(&d, "ip");
	prefix = jd_opt_prefix(&d, "p");
	require(prefix.length <= ip_bits(&prefix.ip));
	jd_opt_mac(&d, "m");
	require(jd_opt_int(&d, "i", -1, 1, 0) <= 1);
	jd_opt_bool(&d, "b", true);
	jd_opt_object(&d, "o");
	jd_opt_array(&d, "a");
	require((jd_finish_strict(&d) == 0) == !d.failed);
	json_decref(root);
}

/* A reader either fails or has read what a writer would write again. */
static void try_bytes(const uint8_t *data, size_t size)
{
	uint8_t again[1024];
	char text[64];
	struct bytes_reader r;
	struct bytes_writer w;
	struct id128 id;
	struct ip ip;
	struct mac mac;
	uint64_t number;
	uint32_t vni;

	br_init(&r, data, size);
	number = br_varint(&r);
	br_text(&r, text, sizeof(text));
	br_id(&r, &id);
	br_ip(&r, &ip);
	br_mac(&r, &mac);
	vni = br_u24(&r);
	if (r.bad)
		return;
	bw_init(&w, again, sizeof(again));
	bw_varint(&w, number);
	bw_text(&w, text);
	bw_id(&w, &id);
	bw_ip(&w, &ip);
	bw_mac(&w, &mac);
	bw_u24(&w, vni);
	require(!w.overflow && w.len == size - br_left(&r) && memcmp(again, data, w.len) == 0);
}

/* Whatever it is, it can be told. */
static void try_text(char *text)
{
	bool valid = json_text_valid(text);
	json_t *told = json_text(text);

	require(told && strlen(json_string_value(told)) == strlen(text));
	require(!valid || strcmp(json_string_value(told), text) == 0);
	free(json_print(told, JSON_ENCODE_ANY));
	json_decref(told);
	json_text_cut(text);
	require(!valid || json_text_valid(text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[256];

	if (size < 1 || size > 65536)
		return 0;
	if (data[0] == 'j') {
		try_json(data + 1, size - 1);
		return 0;
	}
	if (data[0] == 'b') {
		try_bytes(data + 1, size - 1);
		return 0;
	}
	if (size > sizeof(text))
		return 0;
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	switch (data[0]) {
	case 'i':
		try_ip(text);
		break;
	case 'p':
		try_prefix(text);
		break;
	case 'm':
		try_mac(text);
		break;
	case 'n':
		try_id_and_number(text);
		break;
	case 'u':
		try_text(text);
		break;
	}
	return 0;
}

/* Tokens: what is encoded decodes to the same, and every way in which a paste goes wrong is refused by its own sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "gossip/token.h"

static const uint8_t cluster_key[CLUSTER_KEY_SIZE] = {1, 2, 3, 4};

static void seed_set(struct gossip_addr *seed, const char *ip, uint16_t port)
{
	memset(seed, 0, sizeof(*seed));
	assert_int_equal(ip_parse(ip, &seed->ip, NULL), 0);
	seed->port = port;
}

static struct token make_token(void)
{
	struct token token = {.expires_s = 1800000000, .seed_count = 2};

	memset(token.cluster_id.bytes, 0xc1, 16);
	memset(token.token_id.bytes, 0x70, 16);
	token_secret(cluster_key, &token.token_id, token.expires_s, token.secret);
	seed_set(&token.seeds[0], "192.0.2.1", 7946);
	seed_set(&token.seeds[1], "2001:db8::1", 17946);
	return token;
}

static void assert_same(const struct token *a, const struct token *b)
{
	unsigned i;

	assert_memory_equal(&a->cluster_id, &b->cluster_id, sizeof(a->cluster_id));
	assert_memory_equal(&a->token_id, &b->token_id, sizeof(a->token_id));
	assert_int_equal(a->expires_s, b->expires_s);
	assert_memory_equal(a->secret, b->secret, sizeof(a->secret));
	assert_int_equal(a->seed_count, b->seed_count);
	for (i = 0; i < a->seed_count; i++) {
		assert_true(ip_equal(&a->seeds[i].ip, &b->seeds[i].ip));
		assert_int_equal(a->seeds[i].port, b->seeds[i].port);
	}
}

static void assert_refused(const char *text, enum err_code code, const char *fragment)
{
	struct token token, before;
	struct err err = {0};

	memset(&token, 0x5a, sizeof(token));
	before = token;
	assert_int_equal(token_decode(text, &token, &err), -1);
	if (err.code != code || !strstr(err.text, fragment))
		fail_msg("\"%s\": got %s \"%s\", expected %s with \"%s\"", text, err_code_name(err.code), err.text,
			err_code_name(code), fragment);
	assert_memory_equal(&token, &before, sizeof(token));
}

static void a_token_decodes_to_what_it_was(void **state)
{
	struct token token = make_token(), back;
	char text[TOKEN_TEXT_MAX];

	(void)state;
	assert_int_equal(token_encode(&token, text, NULL), 0);
	assert_memory_equal(text, "trestle1.", 9);
	assert_int_equal(strspn(text + 9, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), strlen(text) - 9);
	assert_int_equal(token_decode(text, &back, NULL), 0);
	assert_same(&token, &back);
}

static void the_largest_token_fits(void **state)
{
	struct token token = make_token(), back;
	char text[TOKEN_TEXT_MAX];
	unsigned i;

	(void)state;
	token.expires_s = INT64_MAX;
	token.seed_count = TOKEN_SEEDS_MAX;
	for (i = 0; i < TOKEN_SEEDS_MAX; i++)
		seed_set(&token.seeds[i], "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 65535);
	assert_int_equal(token_encode(&token, text, NULL), 0);
	assert_int_equal(token_decode(text, &back, NULL), 0);
	assert_same(&token, &back);
}

static void the_secret_follows_from_key_id_and_expiry(void **state)
{
	struct token token = make_token();
	static const uint8_t other_key[CLUSTER_KEY_SIZE] = {1, 2, 3, 5};
	uint8_t secret[TOKEN_SECRET_SIZE], same[TOKEN_SECRET_SIZE];
	struct id128 other_id = token.token_id;

	(void)state;
	token_secret(cluster_key, &token.token_id, token.expires_s, same);
	assert_memory_equal(same, token.secret, sizeof(same));
	token_secret(other_key, &token.token_id, token.expires_s, secret);
	assert_memory_not_equal(secret, same, sizeof(same));
	token_secret(cluster_key, &token.token_id, token.expires_s + 1, secret);
	assert_memory_not_equal(secret, same, sizeof(same));
	other_id.bytes[15] ^= 1;
	token_secret(cluster_key, &other_id, token.expires_s, secret);
	assert_memory_not_equal(secret, same, sizeof(same));
}

static void every_changed_character_is_noticed(void **state)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.+/= \n";
	struct token token = make_token(), back;
	char text[TOKEN_TEXT_MAX], was;
	struct err err;
	size_t at, i;

	(void)state;
	assert_int_equal(token_encode(&token, text, NULL), 0);
	for (at = 0; text[at]; at++) {
		was = text[at];
		for (i = 0; alphabet[i]; i++) {
			if (alphabet[i] == was)
				continue;
			text[at] = alphabet[i];
			if (token_decode(text, &back, &err) == 0)
				fail_msg("character %zu changed from %c to %c went unnoticed", at, was, alphabet[i]);
			assert_memory_equal(err.text, "token: ", 7);
		}
		text[at] = was;
	}
}

static void a_token_cut_off_anywhere_is_refused(void **state)
{
	struct token token = make_token(), back;
	char text[TOKEN_TEXT_MAX];
	size_t at;

	(void)state;
	assert_int_equal(token_encode(&token, text, NULL), 0);
	for (at = strlen(text); at-- > 0;) {
		text[at] = '\0';
		assert_int_equal(token_decode(text, &back, NULL), -1);
	}
}

static void every_mistake_has_its_sentence(void **state)
{
	struct token token = make_token();
	char text[TOKEN_TEXT_MAX], bad[2 * TOKEN_TEXT_MAX];
	size_t length;

	(void)state;
	assert_int_equal(token_encode(&token, text, NULL), 0);
	length = strlen(text);
	assert_refused("", ERR_INVALID, "has 0 characters");
	assert_refused("trestle", ERR_INVALID, "has 7 characters");
	assert_refused("SWMTKN-1-abcdefgh", ERR_INVALID, "does not begin with \"trestle1.\"");
	assert_refused("trestle2.AAAA", ERR_VERSION, "begins with \"trestle2.\"");
	assert_refused("trestle1.AAAA", ERR_INVALID, "too short, 3 bytes");
	assert_refused("trestle1.", ERR_INVALID, "too short, 0 bytes");
	assert_refused("trestle1.AAAAA", ERR_INVALID, "5 characters after");
	snprintf(bad, sizeof(bad), "%s\n", text);
	assert_refused(bad, ERR_INVALID, "is not one of");
	snprintf(bad, sizeof(bad), "%.20s %s", text, text + 20);
	assert_refused(bad, ERR_INVALID, "character 21 is not one of");
	snprintf(bad, sizeof(bad), "%.*s", (int)length - 2, text);
	assert_refused(bad, ERR_INVALID, "checksum does not match");
	memset(bad, 'A', sizeof(bad));
	memcpy(bad, "trestle1.", 9);
	bad[sizeof(bad) - 1] = '\0';
	assert_refused(bad, ERR_TOO_BIG, "longer than 511");
}

/* Bytes with a right checksum: what only a wrong encoder makes. */
static void assert_bytes_refused(uint8_t *bytes, size_t len, const char *fragment)
{
	uint8_t input[9 + 512], sum[32];
	char text[TOKEN_TEXT_MAX] = "trestle1.";

	memcpy(input, text, 9);
	memcpy(input + 9, bytes, len);
	crypto_generichash(sum, sizeof(sum), input, 9 + len, NULL, 0);
	memcpy(bytes + len, sum, 4);
	sodium_bin2base64(text + 9, sizeof(text) - 9, bytes, len + 4, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	assert_refused(text, ERR_INVALID, fragment);
}

static void seeds_are_checked(void **state)
{
	uint8_t bytes[300] = {0};
	enum { COUNT_AT = 72, SEEDS_AT = 73 };

	(void)state;
	assert_bytes_refused(bytes, SEEDS_AT, "0 seed addresses");
	bytes[COUNT_AT] = TOKEN_SEEDS_MAX + 1;
	assert_bytes_refused(bytes, SEEDS_AT, "9 seed addresses");
	bytes[COUNT_AT] = 1;
	assert_bytes_refused(bytes, SEEDS_AT, "do not fill");
	memcpy(bytes + SEEDS_AT, "\x04\xc0\x00\x02\x01\x00\x00", 7);
	assert_bytes_refused(bytes, SEEDS_AT + 7, "seed 1 has no address or no port");
	memcpy(bytes + SEEDS_AT, "\x00\x1f\x0a", 3);
	assert_bytes_refused(bytes, SEEDS_AT + 3, "seed 1 has no address or no port");
	memcpy(bytes + SEEDS_AT, "\x05\xc0\x00\x02\x01\x1f\x0a", 7);
	assert_bytes_refused(bytes, SEEDS_AT + 7, "do not fill");
	memcpy(bytes + SEEDS_AT, "\x04\xc0\x00\x02\x01\x1f\x0a\x00", 8);
	assert_bytes_refused(bytes, SEEDS_AT + 8, "do not fill");
	bytes[32] = 0x80;
	assert_bytes_refused(bytes, SEEDS_AT + 7, "before 1970");
}

static void what_cannot_be_decoded_is_not_encoded(void **state)
{
	struct token token = make_token();
	char text[TOKEN_TEXT_MAX] = "untouched";
	struct err err;

	(void)state;
	token.seed_count = 0;
	assert_int_equal(token_encode(&token, text, &err), -1);
	assert_non_null(strstr(err.text, "0 seed addresses"));
	token.seed_count = TOKEN_SEEDS_MAX + 1;
	assert_int_equal(token_encode(&token, text, &err), -1);
	token.seed_count = 2;
	token.seeds[1].port = 0;
	assert_int_equal(token_encode(&token, text, &err), -1);
	assert_non_null(strstr(err.text, "seed 2"));
	token = make_token();
	token.expires_s = -1;
	assert_int_equal(token_encode(&token, text, &err), -1);
	assert_int_equal(err.code, ERR_INVALID);
	assert_string_equal(text, "untouched");
}

/* The layout does not change by accident: these texts are what hosts of other releases hold. */
static void the_text_is_the_documented_one(void **state)
{
	struct token token = make_token();
	char text[TOKEN_TEXT_MAX];

	(void)state;
	assert_int_equal(token_encode(&token, text, NULL), 0);
	assert_string_equal(text,
		"trestle1.wcHBwcHBwcHBwcHBwcHBwXBwcHBwcHBwcHBwcHBwcHAAAAAAa0nSAIcz3paPh5FEMTwCJRhPF9nuRWXznkfnN7Shgcp5RJDI"
		"AgTAAAIBHwoGIAENuAAAAAAAAAAAAAAAAUYaXyon2g");
}

static void an_identity_follows_from_its_seed(void **state)
{
	uint8_t seed[IDENTITY_SEED_SIZE] = {0};
	struct identity identity, again;
	char text[ID_TEXT_SIZE];
	struct id128 id;

	(void)state;
	identity_from_seed(&identity, seed);
	identity_from_seed(&again, seed);
	assert_memory_equal(&identity, &again, sizeof(identity));
	id = identity_id_of(identity.public_key);
	assert_true(id_equal(&id, &identity.id));
	assert_string_equal(id_format(&id, text), "689dae2f77b048dcc08e14d73104ea14");
	seed[31] = 1;
	identity_from_seed(&again, seed);
	assert_false(id_equal(&again.id, &identity.id));
	identity_wipe(&again);
	assert_true(sodium_is_zero((const uint8_t *)&again, sizeof(again)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_token_decodes_to_what_it_was),
		cmocka_unit_test(the_largest_token_fits),
		cmocka_unit_test(the_secret_follows_from_key_id_and_expiry),
		cmocka_unit_test(every_changed_character_is_noticed),
		cmocka_unit_test(a_token_cut_off_anywhere_is_refused),
		cmocka_unit_test(every_mistake_has_its_sentence),
		cmocka_unit_test(seeds_are_checked),
		cmocka_unit_test(what_cannot_be_decoded_is_not_encoded),
		cmocka_unit_test(the_text_is_the_documented_one),
		cmocka_unit_test(an_identity_follows_from_its_seed),
	};

	return cmocka_run_group_tests_name("token", tests, NULL, NULL);
}

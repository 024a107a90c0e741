/* Join tokens: bytes and text. "trestle1." names the layout, so a later one is told apart before anything is decoded.
 *
 * People paste tokens, so each way in which that goes wrong has its own sentence: cut off, a character too many, one changed. The
 * checksum only serves that; whether a token is genuine, a sponsor decides by the secret. */
#include "gossip/token.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

#define TOKEN_PREFIX "trestle1."
#define TOKEN_PREFIX_LENGTH (sizeof(TOKEN_PREFIX) - 1)
#define TOKEN_FAMILY "trestle"
#define TOKEN_CHECKSUM_SIZE 4
#define TOKEN_FIXED_SIZE (16 + 16 + 8 + TOKEN_SECRET_SIZE + 1)
#define TOKEN_SEED_MAX (1 + 16 + 2)
#define TOKEN_BYTES_MAX (TOKEN_FIXED_SIZE + TOKEN_SEEDS_MAX * TOKEN_SEED_MAX + TOKEN_CHECKSUM_SIZE)

_Static_assert(TOKEN_PREFIX_LENGTH + (TOKEN_BYTES_MAX + 2) / 3 * 4 + 1 <= TOKEN_TEXT_MAX, "the longest token fits its text");

void token_secret(const uint8_t cluster_key[CLUSTER_KEY_SIZE], const struct id128 *token_id, int64_t expires_s,
	uint8_t ret_secret[TOKEN_SECRET_SIZE])
{
	uint8_t input[24];
	struct bytes_writer w;

	bw_init(&w, input, sizeof(input));
	bw_id(&w, token_id);
	bw_u64(&w, (uint64_t)expires_s);
	crypto_generichash(ret_secret, TOKEN_SECRET_SIZE, input, w.len, cluster_key, CLUSTER_KEY_SIZE);
}

static void checksum(const uint8_t *bytes, size_t len, uint8_t ret_sum[TOKEN_CHECKSUM_SIZE])
{
	crypto_generichash_state state;
	uint8_t hash[crypto_generichash_BYTES];

	crypto_generichash_init(&state, NULL, 0, sizeof(hash));
	crypto_generichash_update(&state, (const uint8_t *)TOKEN_PREFIX, TOKEN_PREFIX_LENGTH);
	crypto_generichash_update(&state, bytes, len);
	crypto_generichash_final(&state, hash, sizeof(hash));
	memcpy(ret_sum, hash, TOKEN_CHECKSUM_SIZE);
}

static bool seed_is_usable(const struct gossip_addr *seed)
{
	return ip_is_set(&seed->ip) && seed->port != 0;
}

int token_encode(const struct token *token, char ret_text[TOKEN_TEXT_MAX], struct err *err)
{
	uint8_t bytes[TOKEN_BYTES_MAX], sum[TOKEN_CHECKSUM_SIZE];
	struct bytes_writer w;
	unsigned i;

	if (token->seed_count == 0 || token->seed_count > TOKEN_SEEDS_MAX)
		return err_set(
			err, ERR_INVALID, "token: %u seed addresses, expected 1 to %d", token->seed_count, TOKEN_SEEDS_MAX);
	if (token->expires_s < 0)
		return err_set(err, ERR_INVALID, "token: expiry %" PRId64 " lies before 1970", token->expires_s);
	bw_init(&w, bytes, sizeof(bytes));
	bw_id(&w, &token->cluster_id);
	bw_id(&w, &token->token_id);
	bw_u64(&w, (uint64_t)token->expires_s);
	bw_bytes(&w, token->secret, TOKEN_SECRET_SIZE);
	bw_u8(&w, (uint8_t)token->seed_count);
	for (i = 0; i < token->seed_count; i++) {
		if (!seed_is_usable(&token->seeds[i]))
			return err_set(err, ERR_INVALID, "token: seed %u has no address or no port", i + 1);
		bw_ip(&w, &token->seeds[i].ip);
		bw_u16(&w, token->seeds[i].port);
	}
	checksum(bytes, w.len, sum);
	bw_bytes(&w, sum, sizeof(sum));
	memcpy(ret_text, TOKEN_PREFIX, TOKEN_PREFIX_LENGTH);
	sodium_bin2base64(ret_text + TOKEN_PREFIX_LENGTH, TOKEN_TEXT_MAX - TOKEN_PREFIX_LENGTH, bytes, w.len,
		sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	sodium_memzero(bytes, sizeof(bytes));
	return 0;
}

static int check_prefix(const char *text, size_t length, struct err *err)
{
	if (strncmp(text, TOKEN_PREFIX, TOKEN_PREFIX_LENGTH) == 0)
		return 0;
	if (length < TOKEN_PREFIX_LENGTH)
		return err_set(err, ERR_INVALID, "token: has %zu characters; a token begins with \"%s\", paste all of it", length,
			TOKEN_PREFIX);
	/* "trestle2.": another digit, everything else as expected. */
	if (strncmp(text, TOKEN_FAMILY, strlen(TOKEN_FAMILY)) == 0 && text[strlen(TOKEN_FAMILY)] >= '0' &&
		text[strlen(TOKEN_FAMILY)] <= '9' && text[TOKEN_PREFIX_LENGTH - 1] == '.')
		return err_set(err, ERR_VERSION,
			"token: begins with \"%.9s\", this trestle reads \"%s\": use the same release on both hosts", text,
			TOKEN_PREFIX);
	return err_set(
		err, ERR_INVALID, "token: does not begin with \"%s\", paste all of what `trestle token` printed", TOKEN_PREFIX);
}

/* Base64url without padding, all of it. Says which character is not of the alphabet, since that is what a bad paste brings. */
static int decode_base64(const char *text, uint8_t *buf, size_t size, size_t *ret_len, struct err *err)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	const char *body = text + TOKEN_PREFIX_LENGTH;
	size_t good = strspn(body, alphabet);

	if (body[good] != '\0')
		return err_set(err, ERR_INVALID,
			"token: character %zu is not one of A-Z a-z 0-9 - _: copy the token again, in one line",
			TOKEN_PREFIX_LENGTH + good + 1);
	if (sodium_base642bin(buf, size, body, good, NULL, ret_len, NULL, sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0)
		return err_set(err, ERR_INVALID, "token: %zu characters after \"%s\" cannot be a whole token: copy it again",
			good, TOKEN_PREFIX);
	return 0;
}

static void read_seeds(struct bytes_reader *r, struct token *token)
{
	unsigned i;

	for (i = 0; i < token->seed_count && i < TOKEN_SEEDS_MAX; i++) {
		br_ip(r, &token->seeds[i].ip);
		token->seeds[i].port = br_u16(r);
	}
}

static int check_seeds(const struct token *token, const struct bytes_reader *r, struct err *err)
{
	unsigned i;

	if (token->seed_count == 0 || token->seed_count > TOKEN_SEEDS_MAX)
		return err_set(err, ERR_INVALID, "token: %u seed addresses, expected 1 to %d: make a new token",
			token->seed_count, TOKEN_SEEDS_MAX);
	for (i = 0; !r->bad && i < token->seed_count; i++)
		if (!seed_is_usable(&token->seeds[i]))
			return err_set(err, ERR_INVALID, "token: seed %u has no address or no port: make a new token", i + 1);
	if (!br_done(r))
		return err_set(err, ERR_INVALID, "token: the %u seed addresses do not fill its length: make a new token",
			token->seed_count);
	return 0;
}

static int decode_bytes(const uint8_t *bytes, size_t len, struct token *ret_token, struct err *err)
{
	uint8_t sum[TOKEN_CHECKSUM_SIZE];
	struct token token = {0};
	struct bytes_reader r;
	const uint8_t *secret;

	if (len < TOKEN_FIXED_SIZE + TOKEN_CHECKSUM_SIZE)
		return err_set(err, ERR_INVALID,
			"token: too short, %zu bytes where at least %d are needed: the end is missing, copy it again", len,
			TOKEN_FIXED_SIZE + TOKEN_CHECKSUM_SIZE);
	len -= TOKEN_CHECKSUM_SIZE;
	checksum(bytes, len, sum);
	if (memcmp(sum, bytes + len, sizeof(sum)) != 0)
		return err_set(err, ERR_INVALID,
			"token: the checksum does not match: a character is wrong or the end is missing, copy it again");
	br_init(&r, bytes, len);
	br_id(&r, &token.cluster_id);
	br_id(&r, &token.token_id);
	token.expires_s = (int64_t)br_u64(&r);
	secret = br_bytes(&r, TOKEN_SECRET_SIZE);
	if (secret)
		memcpy(token.secret, secret, TOKEN_SECRET_SIZE);
	token.seed_count = br_u8(&r);
	read_seeds(&r, &token);
	if (check_seeds(&token, &r, err) < 0)
		return -1;
	if (token.expires_s < 0)
		return err_set(err, ERR_INVALID, "token: expiry lies before 1970: make a new token");
	*ret_token = token;
	return 0;
}

int token_decode(const char *text, struct token *ret_token, struct err *err)
{
	uint8_t bytes[TOKEN_TEXT_MAX];
	size_t length = strnlen(text, TOKEN_TEXT_MAX), len;
	int ret;

	if (length == TOKEN_TEXT_MAX)
		return err_set(err, ERR_TOO_BIG, "token: longer than %d characters: paste one token only", TOKEN_TEXT_MAX - 1);
	if (check_prefix(text, length, err) < 0 || decode_base64(text, bytes, sizeof(bytes), &len, err) < 0)
		return -1;
	ret = decode_bytes(bytes, len, ret_token, err);
	sodium_memzero(bytes, sizeof(bytes));
	return ret;
}

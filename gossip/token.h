/* Join tokens. Text: "trestle1." + base64url of the bytes below, so it can be pasted.
 * The secret is BLAKE2b(key = cluster key, token id | expiry): every member can check every token, none has to remember it. */
#ifndef GOSSIP_TOKEN_H
#define GOSSIP_TOKEN_H

#include <stdint.h>

#include "base/err.h"
#include "base/id.h"
#include "gossip/gossip.h"

#define TOKEN_SEEDS_MAX 8
#define TOKEN_TEXT_MAX 512 /* with the NUL */
#define TOKEN_SECRET_SIZE 32

struct token {
	struct id128 cluster_id;
	struct id128 token_id; /* random */
	int64_t expires_s;     /* Unix seconds; 0 = never */
	uint8_t secret[TOKEN_SECRET_SIZE];
	unsigned seed_count;
	struct gossip_addr seeds[TOKEN_SEEDS_MAX]; /* members to ask, first hint only */
};

void token_secret(const uint8_t cluster_key[CLUSTER_KEY_SIZE], const struct id128 *token_id, int64_t expires_s,
	uint8_t ret_secret[TOKEN_SECRET_SIZE]);
int token_encode(const struct token *token, char ret_text[TOKEN_TEXT_MAX], struct err *err);
/* Refuses with a sentence that says which part is wrong (prefix, length, checksum, seeds). */
int token_decode(const char *text, struct token *ret_token, struct err *err);

#endif

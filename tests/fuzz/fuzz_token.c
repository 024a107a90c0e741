/* Token text. The first byte chooses: the rest is the text itself, or the bytes of a token, given a right checksum so that what
 * lies behind it is reached. What decodes must encode to a text that decodes to the same. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/token.h"

#define PREFIX "trestle1."
#define PREFIX_LENGTH 9

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth)
{
	if (!truth)
		abort();
}

static void try_text(const char *text)
{
	struct token a = {0}, b = {0};
	char back[TOKEN_TEXT_MAX];
	struct err err = {0};

	if (token_decode(text, &a, &err) < 0) {
		require(err.code != ERR_OK && err.text[0] != '\0');
		return;
	}
	require(token_encode(&a, back, &err) == 0);
	require(strcmp(back, text) == 0); /* one token, one text */
	require(token_decode(back, &b, &err) == 0);
	require(memcmp(&a, &b, sizeof(a)) == 0);
}

static void try_bytes(const uint8_t *data, size_t size)
{
	uint8_t input[PREFIX_LENGTH + 400] = PREFIX, sum[32];
	char text[PREFIX_LENGTH + 800] = PREFIX;

	if (size > sizeof(input) - PREFIX_LENGTH - 4)
		size = sizeof(input) - PREFIX_LENGTH - 4;
	memcpy(input + PREFIX_LENGTH, data, size);
	crypto_generichash(sum, sizeof(sum), input, PREFIX_LENGTH + size, NULL, 0);
	memcpy(input + PREFIX_LENGTH + size, sum, 4);
	sodium_bin2base64(text + PREFIX_LENGTH, sizeof(text) - PREFIX_LENGTH, input + PREFIX_LENGTH, size + 4,
		sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	try_text(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (size == 0)
		return 0;
	if (data[0] % 2) {
		try_bytes(data + 1, size - 1);
		return 0;
	}
	text = malloc(size);
	if (!text)
		return 0;
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	try_text(text);
	free(text);
	return 0;
}

/* What the sets of a table hold, as it was found and as its user wants it: sorted, each key once, so that equality is memcmp. */
#include "driver/vxlan/nft_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

void nft_keys_put(struct nft_keys *keys, const void *key, bool end)
{
	uint8_t *entry;

	if (keys->count == keys->capacity) {
		keys->capacity = keys->capacity ? keys->capacity * 2 : 16;
		keys->bytes = alloc_resize(keys->bytes, uint8_t, keys->capacity * keys->stride);
	}
	entry = keys->bytes + keys->count++ * keys->stride;
	memcpy(entry, key, keys->size);
	if (keys->stride > keys->size)
		entry[keys->size] = end;
}

void nft_keys_add(struct nft_keys *keys, const void *key)
{
	nft_keys_put(keys, key, false);
}

void nft_keys_add_range(struct nft_keys *keys, const void *first, const void *end)
{
	nft_keys_put(keys, first, false);
	if (end)
		nft_keys_put(keys, end, true);
}

static int key_compare(const void *a, const void *b, void *size)
{
	return memcmp(a, b, *(size_t *)size);
}

void nft_keys_sort(struct nft_keys *keys)
{
	size_t kept = 0;

	if (!keys->count)
		return;
	qsort_r(keys->bytes, keys->count, keys->stride, key_compare, &keys->stride);
	for (size_t i = 1; i < keys->count; i++) {
		const uint8_t *key = keys->bytes + i * keys->stride;

		if (memcmp(keys->bytes + kept * keys->stride, key, keys->stride))
			memmove(keys->bytes + ++kept * keys->stride, key, keys->stride);
	}
	keys->count = kept + 1;
}

bool nft_keys_equal(const struct nft_keys *a, const struct nft_keys *b)
{
	return a->count == b->count && (!a->count || !memcmp(a->bytes, b->bytes, a->count * a->stride));
}

void nft_content_init(struct nft_content *content, const struct nft_def *def)
{
	content->set_count = def->set_count;
	for (unsigned i = 0; i < def->set_count; i++)
		content->sets[i] =
			(struct nft_keys){.size = def->sets[i].key_size, .stride = def->sets[i].key_size + def->sets[i].interval};
}

void nft_content_fini(struct nft_content *content)
{
	for (unsigned i = 0; i < content->set_count; i++)
		free(content->sets[i].bytes);
	*content = (struct nft_content){0};
}

bool nft_content_equal(const struct nft_content *a, const struct nft_content *b)
{
	for (unsigned i = 0; i < a->set_count; i++)
		if (!nft_keys_equal(&a->sets[i], &b->sets[i]))
			return false;
	return true;
}

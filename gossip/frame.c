/* Sealing and opening datagrams, the replay window, the hello exchange. What they promise: frame_internal.h; the bytes:
 * docs/wire.md.
 *
 * The order in frame_open matters: everything that costs nothing is checked before the cipher runs, and nothing of a peer changes
 * before the cipher has proven the packet. */
#include "gossip/frame_internal.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"

#define FRAME_DOMAIN "trestle frame 1"
#define AAD_MAX (FRAME_HELLO_HEADER_SIZE + 16 + 16)
/* One word more than the window has: the word that the highest counter is in is only partly used. */
#define WINDOW_WORDS (FRAME_WINDOW_BITS / 64 + 1)

_Static_assert(FRAME_TAG_SIZE == crypto_aead_xchacha20poly1305_ietf_ABYTES, "tag");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_NPUBBYTES == 24, "nonce = 8 of the host id, 8 of the boot, 8 of the counter");
_Static_assert(FRAME_WINDOW_BITS % 64 == 0, "whole words");

/* ---- keys ---- */

void frame_ring_init(struct frame_ring *ring)
{
	memset(ring, 0, sizeof(*ring));
}

int frame_ring_add(struct frame_ring *ring, uint8_t id, const uint8_t cluster_key[CLUSTER_KEY_SIZE], struct err *err)
{
	uint8_t input[sizeof(FRAME_DOMAIN)];

	if (ring->count == FRAME_KEYS_MAX)
		return err_set(
			err, ERR_EXHAUSTED, "key %u: the ring holds %d keys already, retire one first", id, FRAME_KEYS_MAX);
	if (ring->count == 0)
		ring->active = id;
	memcpy(input, FRAME_DOMAIN, sizeof(FRAME_DOMAIN) - 1);
	input[sizeof(input) - 1] = id;
	crypto_generichash(
		ring->keys[ring->count].key, sizeof(ring->keys[0].key), input, sizeof(input), cluster_key, CLUSTER_KEY_SIZE);
	ring->keys[ring->count++].id = id;
	return 0;
}

void frame_ring_wipe(struct frame_ring *ring)
{
	if (ring)
		sodium_memzero(ring, sizeof(*ring));
}

static const uint8_t *ring_key(const struct frame_ring *ring, uint8_t id)
{
	unsigned i;

	for (i = 0; i < ring->count; i++)
		if (ring->keys[i].id == id)
			return ring->keys[i].key;
	return NULL;
}

/* ---- the replay window ---- */

static uint64_t seen_at(const struct frame_peer *peer, unsigned i)
{
	return peer->top - (uint16_t)(peer->top - peer->seen[i]);
}

static bool was_seen(const struct frame_peer *peer, uint64_t counter)
{
	bool seen = false;

	if (peer->bits)
		return peer->bits[counter / 64 % WINDOW_WORDS] >> (counter % 64) & 1;
	for (unsigned i = 0; i < peer->seen_count; i++)
		seen |= seen_at(peer, i) == counter;
	return seen;
}

static bool window_accepts(const struct frame_peer *peer, uint64_t counter)
{
	if (counter <= peer->floor)
		return false;
	if (counter > peer->top)
		return true;
	if (peer->top - counter >= FRAME_WINDOW_BITS)
		return false;
	return !was_seen(peer, counter);
}

static void set_bit(struct frame_peer *peer, uint64_t counter)
{
	peer->bits[counter / 64 % WINDOW_WORDS] |= 1ull << (counter % 64);
}

static void drop_bits(struct frame_peer *peer)
{
	free(peer->bits);
	peer->bits = NULL;
	peer->seen_count = 0;
}

/* The ring of RFC 6479: advancing clears words, nothing is shifted. Past all of them nothing is left that bits are needed for. */
static void advance_bits(struct frame_peer *peer, uint64_t counter)
{
	if (counter / 64 - peer->top / 64 >= WINDOW_WORDS) {
		drop_bits(peer);
		return;
	}
	for (uint64_t word = peer->top / 64; word < counter / 64;)
		peer->bits[++word % WINDOW_WORDS] = 0;
}

/* Those that the window leaves behind go. */
static void advance_seen(struct frame_peer *peer, uint64_t counter)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < peer->seen_count; i++)
		if (counter - seen_at(peer, i) < FRAME_WINDOW_BITS)
			peer->seen[kept++] = peer->seen[i];
	peer->seen_count = (uint8_t)kept;
}

static void need_bits(struct frame_peer *peer)
{
	peer->bits = alloc_array(uint64_t, WINDOW_WORDS);
	for (unsigned i = 0; i < peer->seen_count; i++)
		set_bit(peer, seen_at(peer, i));
}

static void window_note(struct frame_peer *peer, uint64_t counter)
{
	if (counter > peer->top) {
		if (peer->bits)
			advance_bits(peer, counter);
		else
			advance_seen(peer, counter);
		peer->top = counter;
	}
	if (!peer->bits && peer->seen_count == FRAME_SEEN_FEW)
		need_bits(peer);
	if (peer->bits)
		set_bit(peer, counter);
	else
		peer->seen[peer->seen_count++] = (uint16_t)counter;
}

static void window_clear(struct frame_peer *peer)
{
	peer->top = peer->floor = 0;
	drop_bits(peer);
}

void frame_peer_fini(struct frame_peer *peer)
{
	if (!peer)
		return;
	drop_bits(peer);
}

void frame_peer_set_boot(struct frame_peer *peer, uint64_t boot)
{
	if (peer->boot_known && peer->boot == boot)
		return;
	peer->boot_before = peer->boot_known ? peer->boot : 0;
	peer->boot_known = true;
	peer->boot = boot;
	window_clear(peer);
}

/* ---- headers ---- */

static bool class_is_known(unsigned class)
{
	return class <= FRAME_CLASS_SYNC || class == FRAME_CLASS_HELLO || class == FRAME_CLASS_ADMISSION;
}

static size_t header_size(enum frame_class class)
{
	return class == FRAME_CLASS_HELLO ? FRAME_HELLO_HEADER_SIZE : FRAME_HEADER_SIZE;
}

enum frame_verdict frame_peek(const void *packet, size_t len, struct frame_header *ret_header)
{
	return frame_peek_up_to(packet, len, FRAME_VERSION, ret_header);
}

/* All versions so far have the same frames; the version is authenticated with the header, so that nobody can lower it. */
enum frame_verdict frame_peek_up_to(const void *packet, size_t len, unsigned version_max, struct frame_header *ret_header)
{
	struct frame_header header = {0};
	struct bytes_reader r;
	uint8_t first;

	br_init(&r, packet, len);
	first = br_u8(&r);
	if (r.bad || len > GOSSIP_PACKET_MAX)
		return FRAME_SHORT;
	if (first >> 4 < FRAME_VERSION || first >> 4 > (version_max ? version_max : FRAME_VERSION) || !class_is_known(first & 15))
		return FRAME_VERSION_UNKNOWN;
	if (first >> 4 > FRAME_VERSION && (first & 15) > FRAME_CLASS_SYNC)
		return FRAME_VERSION_UNKNOWN;
	header.class = first & 15;
	if (header.class == FRAME_CLASS_ADMISSION) {
		*ret_header = header;
		return FRAME_OK;
	}
	header.key_id = br_u8(&r);
	header.hostno = br_u24(&r);
	header.boot = header.class == FRAME_CLASS_HELLO ? br_u64(&r) : br_u32(&r);
	header.counter = br_u64(&r);
	if (r.bad || br_left(&r) < FRAME_TAG_SIZE)
		return FRAME_SHORT;
	if (header.hostno == 0 || header.hostno > GOSSIP_HOSTNO_MAX)
		return FRAME_SENDER;
	*ret_header = header;
	return FRAME_OK;
}

static void write_header(const struct frame_sender *sender, uint8_t key_id, enum frame_class class, uint8_t *buf)
{
	struct bytes_writer w;

	bw_init(&w, buf, header_size(class));
	bw_u8(&w, (class <= FRAME_CLASS_SYNC && sender->version ? sender->version : FRAME_VERSION) << 4 | class);
	bw_u8(&w, key_id);
	bw_u24(&w, sender->hostno);
	if (class == FRAME_CLASS_HELLO)
		bw_u64(&w, sender->boot);
	else
		bw_u32(&w, (uint32_t)sender->boot);
	bw_u64(&w, sender->counter);
}

static void make_nonce(const struct id128 *host_id, uint64_t boot, uint64_t counter, uint8_t ret_nonce[24])
{
	struct bytes_writer w;

	bw_init(&w, ret_nonce, 24);
	bw_bytes(&w, host_id->bytes, 8);
	bw_u64(&w, boot);
	bw_u64(&w, counter);
}

static size_t make_aad(const uint8_t *header, enum frame_class class, const struct id128 *cluster_id, const struct id128 *to,
	uint8_t ret_aad[AAD_MAX])
{
	struct bytes_writer w;

	bw_init(&w, ret_aad, AAD_MAX);
	bw_bytes(&w, header, header_size(class));
	bw_id(&w, cluster_id);
	bw_id(&w, to);
	return w.len;
}

/* ---- sealing and opening ---- */

static size_t seal(struct frame_sender *sender, const struct frame_ring *ring, enum frame_class class, const struct id128 *to,
	const void *plain, size_t len, uint8_t ret_packet[GOSSIP_PACKET_MAX])
{
	const uint8_t *key = ring_key(ring, ring->active);
	uint8_t nonce[24], aad[AAD_MAX];
	size_t head = header_size(class), aad_len;

	if (!key || len > GOSSIP_PACKET_MAX - head - FRAME_TAG_SIZE)
		return 0;
	sender->counter++;
	write_header(sender, ring->active, class, ret_packet);
	make_nonce(&sender->host_id, sender->boot, sender->counter, nonce);
	aad_len = make_aad(ret_packet, class, &sender->cluster_id, to, aad);
	crypto_aead_xchacha20poly1305_ietf_encrypt(ret_packet + head, NULL, plain, len, aad, aad_len, NULL, nonce, key);
	return head + len + FRAME_TAG_SIZE;
}

/* `boot` is what the caller holds the sender's to be. Writes ret_plain in any case: it must not be used unless FRAME_OK. */
static enum frame_verdict unseal(const struct frame_peer *peer, const struct frame_sender *self, const struct frame_ring *ring,
	const struct frame_header *header, uint64_t boot, const uint8_t *packet, size_t len, uint8_t *ret_plain)
{
	uint8_t nonce[24], aad[AAD_MAX];
	size_t head = header_size(header->class), aad_len;

	if (!ring_key(ring, header->key_id))
		return FRAME_KEY;
	make_nonce(&peer->host_id, boot, header->counter, nonce);
	aad_len = make_aad(packet, header->class, &self->cluster_id, &self->host_id, aad);
	for (unsigned i = 0; i < ring->count; i++)
		if (ring->keys[i].id == header->key_id &&
			crypto_aead_xchacha20poly1305_ietf_decrypt(
				ret_plain, NULL, NULL, packet + head, len - head, aad, aad_len, nonce, ring->keys[i].key) == 0)
			return FRAME_OK;
	return FRAME_KEY;
}

size_t frame_seal(struct frame_sender *sender, const struct frame_ring *ring, enum frame_class class, const struct id128 *to,
	const void *plain, size_t len, uint8_t ret_packet[GOSSIP_PACKET_MAX])
{
	if (class > FRAME_CLASS_SYNC)
		return 0;
	return seal(sender, ring, class, to, plain, len, ret_packet);
}

enum frame_verdict frame_open(struct frame_peer *peer, const struct frame_sender *self, const struct frame_ring *ring,
	const void *packet, size_t len, uint8_t ret_plain[GOSSIP_PACKET_MAX], size_t *ret_len)
{
	struct frame_header header;
	enum frame_verdict verdict = frame_peek_up_to(packet, len, self->version_max, &header);

	if (verdict != FRAME_OK)
		return verdict;
	if (header.class > FRAME_CLASS_SYNC)
		return FRAME_VERSION_UNKNOWN;
	if (header.hostno != peer->hostno)
		return FRAME_SENDER;
	if (!peer->boot_known || (uint32_t)peer->boot != header.boot)
		return FRAME_BOOT;
	if (!window_accepts(peer, header.counter))
		return FRAME_REPLAY;
	verdict = unseal(peer, self, ring, &header, peer->boot, packet, len, ret_plain);
	if (verdict != FRAME_OK)
		return verdict;
	window_note(peer, header.counter);
	*ret_len = len - FRAME_OVERHEAD;
	return FRAME_OK;
}

/* ---- hello ---- */

size_t frame_hello_seal(struct frame_sender *sender, const struct frame_ring *ring, const struct id128 *to,
	const struct frame_hello *hello, uint8_t ret_packet[GOSSIP_PACKET_MAX])
{
	uint8_t plain[16];
	struct bytes_writer w;

	bw_init(&w, plain, sizeof(plain));
	bw_u64(&w, hello->echo);
	bw_u64(&w, hello->ask);
	return seal(sender, ring, FRAME_CLASS_HELLO, to, plain, w.len, ret_packet);
}

/* Our open question, kept while it lives: two hellos that cross must not invalidate each other's. */
static uint64_t open_ask(struct frame_peer *peer, uint64_t fresh, uint64_t now_ms)
{
	if (peer->ask == 0 || now_ms >= peer->ask_until_ms) {
		peer->ask = fresh ? fresh : 1;
		peer->ask_until_ms = now_ms + FRAME_ASK_LIVES_MS;
	}
	return peer->ask;
}

bool frame_peer_ask(struct frame_peer *peer, size_t trigger_len, uint64_t fresh, uint64_t now_ms, struct frame_hello *ret_hello)
{
	if (trigger_len < FRAME_HELLO_SIZE || now_ms < peer->ask_next_ms)
		return false;
	peer->ask_next_ms = now_ms + FRAME_ASK_EVERY_MS;
	ret_hello->echo = 0;
	ret_hello->ask = open_ask(peer, fresh, now_ms);
	return true;
}

static bool may_answer(struct frame_peer *peer, uint64_t now_ms)
{
	if (now_ms - peer->answers_from_ms >= 1000) {
		peer->answers_from_ms = now_ms;
		peer->answers = 0;
	}
	return peer->answers < FRAME_ANSWERS_PER_S && ++peer->answers;
}

static enum frame_verdict hello_open(const struct frame_peer *peer, const struct frame_sender *self,
	const struct frame_ring *ring, const void *packet, size_t len, struct frame_header *ret_header,
	struct frame_hello *ret_hello)
{
	uint8_t plain[GOSSIP_PACKET_MAX];
	struct bytes_reader r;
	enum frame_verdict verdict = frame_peek(packet, len, ret_header);

	if (verdict != FRAME_OK)
		return verdict;
	if (ret_header->class != FRAME_CLASS_HELLO)
		return FRAME_VERSION_UNKNOWN;
	if (ret_header->hostno != peer->hostno)
		return FRAME_SENDER;
	if (len != FRAME_HELLO_SIZE)
		return FRAME_DECODE;
	/* Of the known boot: one of its counters like any other. Of another one: only a fresh echo makes it count. */
	if (peer->boot_known && peer->boot == ret_header->boot && !window_accepts(peer, ret_header->counter))
		return FRAME_REPLAY;
	verdict = unseal(peer, self, ring, ret_header, ret_header->boot, packet, len, plain);
	if (verdict != FRAME_OK)
		return verdict;
	br_init(&r, plain, 16);
	ret_hello->echo = br_u64(&r);
	ret_hello->ask = br_u64(&r);
	return FRAME_OK;
}

enum frame_verdict frame_hello_handle(struct frame_peer *peer, const struct frame_sender *self, const struct frame_ring *ring,
	const void *packet, size_t len, uint64_t fresh, uint64_t now_ms, struct frame_hello_outcome *ret_outcome)
{
	struct frame_hello_outcome outcome = {0};
	struct frame_header header;
	struct frame_hello hello;
	enum frame_verdict verdict = hello_open(peer, self, ring, packet, len, &header, &hello);
	bool known;

	if (verdict != FRAME_OK)
		return verdict;
	known = peer->boot_known && peer->boot == header.boot;
	if (hello.echo != 0 && hello.echo == peer->ask && now_ms < peer->ask_until_ms) {
		peer->ask = 0;
		outcome.established = !known;
		outcome.twin = !known && header.boot != 0 && header.boot == peer->boot_before;
		frame_peer_set_boot(peer, header.boot);
		if (!known)
			peer->floor = header.counter;
		known = true;
	}
	if (known)
		window_note(peer, header.counter);
	/* Only what proves nothing is counted: whoever repeats old hellos must not use up what is the owner's. */
	if (hello.ask != 0 && (known || may_answer(peer, now_ms))) {
		outcome.answer = true;
		outcome.reply.echo = hello.ask;
		outcome.reply.ask = known ? 0 : open_ask(peer, fresh, now_ms);
	}
	*ret_outcome = outcome;
	return FRAME_OK;
}

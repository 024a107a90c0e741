/* Bounded byte writer and reader with a sticky error (see bytes.h).
 *
 * Everything goes through two functions, room() and br_bytes(), and only they compare lengths. Varints have one encoding each:
 * records are compared and hashed as bytes, so a second spelling of the same number would be a second record. */
#include "base/bytes.h"

#include <endian.h>
#include <string.h>

#define VARINT_MAX 10 /* 64 bits, seven a byte */

/* Where the next len bytes go, or NULL once the buffer is (or would be) overrun. */
static uint8_t *room(struct bytes_writer *w, size_t len)
{
	uint8_t *at;

	if (w->overflow || len > w->capacity - w->len) {
		w->overflow = true;
		return NULL;
	}
	at = w->buf + w->len;
	w->len += len;
	return at;
}

/* The last `len` of 8 bytes. */
static inline void put_number(struct bytes_writer *w, uint64_t value, unsigned len)
{
	const uint64_t big = htobe64(value);
	uint8_t *at = room(w, len);

	if (at)
		memcpy(at, (const uint8_t *)&big + sizeof(big) - len, len);
}

void bw_init(struct bytes_writer *w, void *buf, size_t capacity)
{
	*w = (struct bytes_writer){.buf = buf, .capacity = capacity};
}

void bw_u8(struct bytes_writer *w, uint8_t value)
{
	put_number(w, value, 1);
}

void bw_u16(struct bytes_writer *w, uint16_t value)
{
	put_number(w, value, 2);
}

void bw_u24(struct bytes_writer *w, uint32_t value)
{
	put_number(w, value, 3);
}

void bw_u32(struct bytes_writer *w, uint32_t value)
{
	put_number(w, value, 4);
}

void bw_u64(struct bytes_writer *w, uint64_t value)
{
	put_number(w, value, 8);
}

void bw_u128(struct bytes_writer *w, u128 value)
{
	const uint64_t big[2] = {htobe64((uint64_t)(value >> 64)), htobe64((uint64_t)value)};

	bw_bytes(w, big, sizeof(big));
}

void bw_varint(struct bytes_writer *w, uint64_t value)
{
	uint8_t encoded[VARINT_MAX];
	size_t len = 0;

	while (value >= 0x80) {
		encoded[len++] = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	encoded[len++] = (uint8_t)value;
	bw_bytes(w, encoded, len);
}

void bw_bytes(struct bytes_writer *w, const void *bytes, size_t len)
{
	uint8_t *at = room(w, len);

	if (at && len > 0)
		memcpy(at, bytes, len);
}

void bw_id(struct bytes_writer *w, const struct id128 *id)
{
	bw_bytes(w, id->bytes, sizeof(id->bytes));
}

void bw_ip(struct bytes_writer *w, const struct ip *ip)
{
	bw_u8(w, ip->family);
	if (ip_is_set(ip))
		bw_bytes(w, ip->bytes, ip_bits(ip) / 8);
}

void bw_mac(struct bytes_writer *w, const struct mac *mac)
{
	bw_bytes(w, mac->bytes, sizeof(mac->bytes));
}

void bw_text(struct bytes_writer *w, const char *text)
{
	size_t len = strlen(text);

	bw_varint(w, len);
	bw_bytes(w, text, len);
}

void br_init(struct bytes_reader *r, const void *bytes, size_t len)
{
	/* An empty reader gets a place of its own: NULL must not meet pointer arithmetic, and br_bytes(r, 0) is not a failure. */
	const uint8_t *at = bytes ? bytes : (const uint8_t *)"";

	*r = (struct bytes_reader){.at = at, .end = at + (bytes ? len : 0)};
}

const uint8_t *br_bytes(struct bytes_reader *r, size_t len)
{
	const uint8_t *at = r->at;

	if (r->bad || len > (size_t)(r->end - r->at)) {
		r->bad = true;
		return NULL;
	}
	r->at += len;
	return at;
}

static inline uint64_t get_number(struct bytes_reader *r, unsigned len)
{
	const uint8_t *at = br_bytes(r, len);
	uint64_t big = 0;

	if (at)
		memcpy((uint8_t *)&big + sizeof(big) - len, at, len);
	return be64toh(big);
}

uint8_t br_u8(struct bytes_reader *r)
{
	return (uint8_t)get_number(r, 1);
}

uint16_t br_u16(struct bytes_reader *r)
{
	return (uint16_t)get_number(r, 2);
}

uint32_t br_u24(struct bytes_reader *r)
{
	return (uint32_t)get_number(r, 3);
}

uint32_t br_u32(struct bytes_reader *r)
{
	return (uint32_t)get_number(r, 4);
}

uint64_t br_u64(struct bytes_reader *r)
{
	return (uint64_t)get_number(r, 8);
}

u128 br_u128(struct bytes_reader *r)
{
	const uint8_t *at = br_bytes(r, 16);
	uint64_t big[2] = {0};

	if (at)
		memcpy(big, at, sizeof(big));
	return (u128)be64toh(big[0]) << 64 | be64toh(big[1]);
}

uint64_t br_varint(struct bytes_reader *r)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < VARINT_MAX; i++) {
		uint8_t byte = br_u8(r);

		if (r->bad)
			return 0;
		/* The tenth byte holds bit 63 alone. */
		if (i == VARINT_MAX - 1 && byte > 1)
			break;
		value |= (uint64_t)(byte & 0x7f) << (7 * i);
		if (byte & 0x80)
			continue;
		/* A last byte of zero adds nothing: the number had a shorter form. */
		if (byte == 0 && i > 0)
			break;
		return value;
	}
	r->bad = true;
	return 0;
}

void br_id(struct bytes_reader *r, struct id128 *ret_id)
{
	const uint8_t *at = br_bytes(r, sizeof(ret_id->bytes));

	memset(ret_id, 0, sizeof(*ret_id));
	if (at)
		memcpy(ret_id->bytes, at, sizeof(ret_id->bytes));
}

void br_ip(struct bytes_reader *r, struct ip *ret_ip)
{
	struct ip ip = {.family = br_u8(r)};
	const uint8_t *at;

	memset(ret_ip, 0, sizeof(*ret_ip));
	if (ip.family != 0 && ip.family != 4 && ip.family != 6)
		r->bad = true;
	if (r->bad || ip.family == 0)
		return;
	at = br_bytes(r, ip_bits(&ip) / 8);
	if (!at)
		return;
	memcpy(ip.bytes, at, ip_bits(&ip) / 8);
	*ret_ip = ip;
}

void br_mac(struct bytes_reader *r, struct mac *ret_mac)
{
	const uint8_t *at = br_bytes(r, sizeof(ret_mac->bytes));

	memset(ret_mac, 0, sizeof(*ret_mac));
	if (at)
		memcpy(ret_mac->bytes, at, sizeof(ret_mac->bytes));
}

void br_text(struct bytes_reader *r, char *buf, size_t size)
{
	uint64_t len = br_varint(r);
	const uint8_t *at;

	if (size == 0) {
		r->bad = true;
		return;
	}
	buf[0] = '\0';
	if (len >= size)
		r->bad = true;
	at = br_bytes(r, (size_t)len);
	if (!at)
		return;
	if (memchr(at, '\0', (size_t)len)) {
		r->bad = true;
		return;
	}
	memcpy(buf, at, (size_t)len);
	buf[len] = '\0';
}

void br_word(struct bytes_reader *r, char *buf, size_t size)
{
	br_text(r, buf, size);
	for (const char *c = buf; *c; c++)
		if (*c <= ' ' || *c > '~')
			r->bad = true;
}

size_t br_left(const struct bytes_reader *r)
{
	return r->bad ? 0 : (size_t)(r->end - r->at);
}

bool br_done(const struct bytes_reader *r)
{
	return !r->bad && r->at == r->end;
}

/* Bounded byte writer and reader with a sticky error: code reads straight down, one check at the end.
 * Integers are big endian. A varint is LEB128, at most 10 bytes, shortest form only (others set `bad`). */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/id.h"

struct bytes_writer {
	uint8_t *buf; /* caller's */
	size_t capacity;
	size_t len;
	bool overflow; /* sticky; nothing is written after it is set */
};

struct bytes_reader {
	const uint8_t *at; /* borrowed */
	const uint8_t *end;
	bool bad; /* sticky; every read after it gives zeros */
};

void bw_init(struct bytes_writer *w, void *buf, size_t capacity);
void bw_u8(struct bytes_writer *w, uint8_t value);
void bw_u16(struct bytes_writer *w, uint16_t value);
void bw_u24(struct bytes_writer *w, uint32_t value);
void bw_u32(struct bytes_writer *w, uint32_t value);
void bw_u64(struct bytes_writer *w, uint64_t value);
void bw_u128(struct bytes_writer *w, u128 value);
void bw_varint(struct bytes_writer *w, uint64_t value);
void bw_bytes(struct bytes_writer *w, const void *bytes, size_t len);
void bw_id(struct bytes_writer *w, const struct id128 *id);
void bw_ip(struct bytes_writer *w, const struct ip *ip); /* family byte 0, 4 or 6, then 0, 4 or 16 bytes */
void bw_mac(struct bytes_writer *w, const struct mac *mac);
void bw_text(struct bytes_writer *w, const char *text); /* varint length, bytes, no NUL */

void br_init(struct bytes_reader *r, const void *bytes, size_t len);
uint8_t br_u8(struct bytes_reader *r);
uint16_t br_u16(struct bytes_reader *r);
uint32_t br_u24(struct bytes_reader *r);
uint32_t br_u32(struct bytes_reader *r);
uint64_t br_u64(struct bytes_reader *r);
u128 br_u128(struct bytes_reader *r);
uint64_t br_varint(struct bytes_reader *r);
const uint8_t *br_bytes(struct bytes_reader *r, size_t len); /* borrowed; NULL when bad */
void br_id(struct bytes_reader *r, struct id128 *ret_id);
void br_ip(struct bytes_reader *r, struct ip *ret_ip);
void br_mac(struct bytes_reader *r, struct mac *ret_mac);
void br_text(
	struct bytes_reader *r, char *buf, size_t size); /* NUL-terminates; an embedded NUL or a text of size or more is bad */
/* The same of visible ASCII alone: what is printed on terminals and in JSON, and used as a key. */
void br_word(struct bytes_reader *r, char *buf, size_t size);
size_t br_left(const struct bytes_reader *r);
bool br_done(const struct bytes_reader *r); /* not bad, and nothing left */

#endif

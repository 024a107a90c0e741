/* Netlink messages, written attribute by attribute over libmnl into a buffer of their own.
 *
 * The error is sticky: after an overflow every put is a no-op and nlb_finish() says so, once. A message is a value: it may be
 * copied into a batch, sent twice, or kept. Everything in this directory is made of libmnl; libnl-route's objects would be a
 * second way to say the same thing, with an allocation for each. */
#ifndef NETLINK_BUILD_H
#define NETLINK_BUILD_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/err.h"

#define NLB_SIZE 1024 /* bytes; the largest message we send (a veth with its peer and two names) needs about 300 */

struct nlb {
	bool overflow;
	_Alignas(8) uint8_t buf[NLB_SIZE];
};

/* Starts a message; `header` is the family's fixed header (ifinfomsg, ndmsg, ...). */
void nlb_begin(struct nlb *b, uint16_t type, uint16_t flags, const void *header, size_t header_size);
void nlb_put(struct nlb *b, uint16_t type, const void *data, size_t len);
void nlb_put_u8(struct nlb *b, uint16_t type, uint8_t value);
void nlb_put_be16(struct nlb *b, uint16_t type, uint16_t value);
void nlb_put_u32(struct nlb *b, uint16_t type, uint32_t value);
void nlb_put_text(struct nlb *b, uint16_t type, const char *text);  /* with its NUL */
void nlb_put_ip(struct nlb *b, uint16_t type, const struct ip *ip); /* 4 or 16 bytes */
void nlb_put_mac(struct nlb *b, uint16_t type, const struct mac *mac);
/* Adds a fixed header inside a nest (veth's peer has an ifinfomsg). */
void nlb_put_header(struct nlb *b, const void *header, size_t size);
/* An open nest is named by its offset, so a copy of the message stays valid. */
size_t nlb_nest(struct nlb *b, uint16_t type);
void nlb_nest_end(struct nlb *b, size_t nest);
int nlb_finish(const struct nlb *b, struct err *err);

struct nlmsghdr *nlb_message(struct nlb *b);

#endif

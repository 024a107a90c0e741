/* What the kernel sends, checked against a table before any payload is touched.
 *
 * A policy says which attributes are wanted, how long each may be and whether it must be there. nl_parse() walks the attributes
 * once, refuses a malformed walk or a length outside the policy, ignores types that the table does not name (kernels grow), and
 * leaves result[i] for policy[i]. After it, reading is safe without further checks. */
#ifndef NETLINK_PARSE_H
#define NETLINK_PARSE_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/err.h"

enum nl_kind {
	NL_BYTES,  /* min..max bytes */
	NL_STRING, /* at most max bytes with its NUL, which must be there */
	NL_NESTED, /* attributes again; walked by a second nl_parse() */
};

struct nl_policy {
	uint16_t type;
	uint8_t kind; /* enum nl_kind */
	bool required;
	uint16_t min, max; /* payload bytes */
	const char *name;
};

#define NL_FIXED(attr, size)                                                                                                     \
	{                                                                                                                        \
		.type = attr, .kind = NL_BYTES, .min = size, .max = size, .name = #attr                                          \
	}
#define NL_NEED(attr, size)                                                                                                      \
	{                                                                                                                        \
		.type = attr, .kind = NL_BYTES, .required = true, .min = size, .max = size, .name = #attr                        \
	}
#define NL_RANGE(attr, low, high)                                                                                                \
	{                                                                                                                        \
		.type = attr, .kind = NL_BYTES, .min = low, .max = high, .name = #attr                                           \
	}
#define NL_TEXT(attr, size)                                                                                                      \
	{                                                                                                                        \
		.type = attr, .kind = NL_STRING, .min = 1, .max = size, .name = #attr                                            \
	}
#define NL_NEST(attr)                                                                                                            \
	{                                                                                                                        \
		.type = attr, .kind = NL_NESTED, .max = UINT16_MAX, .name = #attr                                                \
	}

/* 0, or -1 with ERR_CORRUPT; results are then unspecified but safe (NULL or inside the payload). */
int nl_parse(const void *attrs, size_t len, const struct nl_policy *policy, size_t count, const struct nlattr **ret_attrs,
	struct err *err);
/* The attributes behind a fixed header. */
int nl_parse_message(const struct nlmsghdr *h, size_t header_size, const struct nl_policy *policy, size_t count,
	const struct nlattr **ret_attrs, struct err *err);
int nl_parse_nested(const struct nlattr *nest, const struct nl_policy *policy, size_t count, const struct nlattr **ret_attrs,
	struct err *err);

/* NULL gives `absent`. The policy has checked the length. */
uint8_t nl_u8(const struct nlattr *a, uint8_t absent);
uint16_t nl_be16(const struct nlattr *a, uint16_t absent);
uint32_t nl_u32(const struct nlattr *a, uint32_t absent);
const char *nl_text(const struct nlattr *a); /* "" when absent; borrowed */
/* Copies; a text of size or more is cut (the policy has said it cannot be). */
void nl_copy_text(const struct nlattr *a, char *buf, size_t size);
struct ip nl_ip(const struct nlattr *a); /* by length: 4 or 16, else family 0 */
bool nl_mac(const struct nlattr *a, struct mac *ret_mac);

#endif

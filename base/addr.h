/* IP addresses, prefixes and MAC addresses as values. Bytes are in network order; text is what inet_ntop and Docker write. */
#ifndef BASE_ADDR_H
#define BASE_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define IP_TEXT_SIZE 46 /* with the NUL */
#define PREFIX_TEXT_SIZE 50
#define MAC_TEXT_SIZE 18

typedef unsigned __int128 u128;

struct ip {
	uint8_t family;	   /* 4, 6, or 0 = none (a valid "absent" value) */
	uint8_t bytes[16]; /* IPv4 uses the first four; the rest is zero, so memcmp of two values is equality */
};

struct prefix {
	struct ip ip; /* host bits are kept as given: "10.9.0.5/24" is an interface address */
	uint8_t length;
};

struct mac {
	uint8_t bytes[6];
};

/* Strict: the whole text, no blanks, no leading zeros, no scope id. Untouched on failure. */
int ip_parse(const char *text, struct ip *ret_ip, struct err *err);
const char *ip_format(const struct ip *ip, char buf[IP_TEXT_SIZE]); /* "" when family is 0; returns buf */
bool ip_equal(const struct ip *a, const struct ip *b);
int ip_compare(const struct ip *a, const struct ip *b);
bool ip_is_set(const struct ip *ip);
unsigned ip_bits(const struct ip *ip); /* 32 or 128 */
u128 ip_number(const struct ip *ip);   /* the address as an integer; IPv4 below 2^32 */
struct ip ip_from_number(uint8_t family, u128 number);

/* Needs the "/length". */
int prefix_parse(const char *text, struct prefix *ret_prefix, struct err *err);
const char *prefix_format(const struct prefix *prefix, char buf[PREFIX_TEXT_SIZE]);
struct prefix prefix_masked(const struct prefix *prefix); /* host bits cleared */
bool prefix_contains(const struct prefix *prefix, const struct ip *ip);
bool prefix_contains_prefix(const struct prefix *outer, const struct prefix *inner);
bool prefix_overlaps(const struct prefix *a, const struct prefix *b);
bool prefix_equal(const struct prefix *a, const struct prefix *b); /* host bits count */
bool prefix_is_set(const struct prefix *prefix);

int mac_parse(const char *text, struct mac *ret_mac, struct err *err); /* six hex pairs with colons */
const char *mac_format(const struct mac *mac, char buf[MAC_TEXT_SIZE]);
bool mac_equal(const struct mac *a, const struct mac *b);
bool mac_is_zero(const struct mac *mac);

#endif

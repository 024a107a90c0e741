/* IP addresses, prefixes and MAC addresses as values (see addr.h).
 *
 * Invariant: the unused tail of an IPv4 value is zero, and so is all of an absent one; every function here that makes a value
 * keeps it, because equality is memcmp. Arithmetic goes through u128, so that both families share one piece of code. */
#include "base/addr.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "base/id.h"
#include "base/number.h"

int ip_parse(const char *text, struct ip *ret_ip, struct err *err)
{
	struct ip ip = {0};

	/* inet_pton is as strict as is wanted: whole text, four decimal parts without leading zeros, no scope id. */
	if (text && inet_pton(AF_INET, text, ip.bytes) == 1)
		ip.family = 4;
	else if (text && inet_pton(AF_INET6, text, ip.bytes) == 1)
		ip.family = 6;
	else
		return err_set(err, ERR_INVALID, "expected an IP address, found \"%.64s\"", text ? text : "");
	*ret_ip = ip;
	return 0;
}

const char *ip_format(const struct ip *ip, char buf[IP_TEXT_SIZE])
{
	buf[0] = '\0';
	if (ip->family == 4)
		inet_ntop(AF_INET, ip->bytes, buf, IP_TEXT_SIZE);
	else if (ip->family == 6)
		inet_ntop(AF_INET6, ip->bytes, buf, IP_TEXT_SIZE);
	return buf;
}

int ip_compare(const struct ip *a, const struct ip *b)
{
	if (a->family != b->family)
		return a->family < b->family ? -1 : 1;
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

bool ip_equal(const struct ip *a, const struct ip *b)
{
	return ip_compare(a, b) == 0;
}

bool ip_is_set(const struct ip *ip)
{
	return ip->family != 0;
}

unsigned ip_bits(const struct ip *ip)
{
	return ip->family == 4 ? 32 : 128;
}

u128 ip_number(const struct ip *ip)
{
	u128 number = 0;

	for (unsigned i = 0; i < ip_bits(ip) / 8; i++)
		number = number << 8 | ip->bytes[i];
	return number;
}

struct ip ip_from_number(uint8_t family, u128 number)
{
	struct ip ip = {.family = family};

	if (family == 0)
		return ip;
	for (unsigned i = ip_bits(&ip) / 8; i-- > 0; number >>= 8)
		ip.bytes[i] = (uint8_t)number;
	return ip;
}

int prefix_parse(const char *text, struct prefix *ret_prefix, struct err *err)
{
	const char *slash = text ? strchr(text, '/') : NULL;
	char address[IP_TEXT_SIZE];
	struct prefix prefix = {0};
	uint64_t length;
	size_t len;

	if (!slash)
		return err_set(err, ERR_INVALID, "expected address/length, found \"%.64s\"", text ? text : "");
	len = (size_t)(slash - text);
	if (len >= sizeof(address))
		return err_set(err, ERR_INVALID, "expected address/length, found \"%.64s\"", text);
	memcpy(address, text, len);
	address[len] = '\0';
	if (ip_parse(address, &prefix.ip, err) < 0)
		return -1;
	/* "/024" would read back as "/24": one value, one text. */
	if ((slash[1] == '0' && slash[2] != '\0') || number_parse(slash + 1, 0, ip_bits(&prefix.ip), &length) < 0)
		return err_set(err, ERR_INVALID, "prefix \"%.64s\": expected a length of 0 to %u behind the slash", text,
			ip_bits(&prefix.ip));
	prefix.length = (uint8_t)length;
	*ret_prefix = prefix;
	return 0;
}

const char *prefix_format(const struct prefix *prefix, char buf[PREFIX_TEXT_SIZE])
{
	char address[IP_TEXT_SIZE];

	buf[0] = '\0';
	if (prefix_is_set(prefix))
		snprintf(buf, PREFIX_TEXT_SIZE, "%s/%u", ip_format(&prefix->ip, address), (unsigned)prefix->length);
	return buf;
}

/* The bits below the prefix, set. A shift by the whole width of the type is undefined, hence the case for /0 of IPv6. */
static u128 host_mask(const struct prefix *prefix)
{
	unsigned bits = ip_bits(&prefix->ip);
	unsigned host = prefix->length < bits ? bits - prefix->length : 0;

	return host == 128 ? ~(u128)0 : ((u128)1 << host) - 1;
}

struct prefix prefix_masked(const struct prefix *prefix)
{
	struct prefix masked = *prefix;

	masked.ip = ip_from_number(prefix->ip.family, ip_number(&prefix->ip) & ~host_mask(prefix));
	return masked;
}

bool prefix_contains(const struct prefix *prefix, const struct ip *ip)
{
	if (!prefix_is_set(prefix) || prefix->ip.family != ip->family)
		return false;
	return ((ip_number(&prefix->ip) ^ ip_number(ip)) & ~host_mask(prefix)) == 0;
}

bool prefix_contains_prefix(const struct prefix *outer, const struct prefix *inner)
{
	return inner->length >= outer->length && prefix_contains(outer, &inner->ip);
}

bool prefix_overlaps(const struct prefix *a, const struct prefix *b)
{
	return prefix_contains_prefix(a, b) || prefix_contains_prefix(b, a);
}

bool prefix_equal(const struct prefix *a, const struct prefix *b)
{
	return a->length == b->length && ip_equal(&a->ip, &b->ip);
}

bool prefix_is_set(const struct prefix *prefix)
{
	return ip_is_set(&prefix->ip);
}

int mac_parse(const char *text, struct mac *ret_mac, struct err *err)
{
	char hex[13];
	struct mac mac;

	if (!text || strnlen(text, MAC_TEXT_SIZE) != MAC_TEXT_SIZE - 1)
		goto bad;
	for (unsigned i = 0; i < 6; i++) {
		if (i > 0 && text[3 * i - 1] != ':')
			goto bad;
		hex[2 * i] = text[3 * i];
		hex[2 * i + 1] = text[3 * i + 1];
	}
	hex[12] = '\0';
	if (hex_decode(hex, mac.bytes, sizeof(mac.bytes)) < 0)
		goto bad;
	*ret_mac = mac;
	return 0;
bad:
	return err_set(err, ERR_INVALID, "expected a MAC address (six hex pairs with colons), found \"%.64s\"", text ? text : "");
}

const char *mac_format(const struct mac *mac, char buf[MAC_TEXT_SIZE])
{
	const uint8_t *b = mac->bytes;

	snprintf(buf, MAC_TEXT_SIZE, "%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5]);
	return buf;
}

bool mac_equal(const struct mac *a, const struct mac *b)
{
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

bool mac_is_zero(const struct mac *mac)
{
	static const struct mac zero;

	return mac_equal(mac, &zero);
}

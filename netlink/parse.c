/* The policy parser. See parse.h. */
#include "netlink/parse.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <string.h>

static int check_attr(const struct nlattr *a, const struct nl_policy *p, struct err *err)
{
	size_t len = mnl_attr_get_payload_len(a);

	if (len < p->min || len > p->max)
		return err_set(
			err, ERR_CORRUPT, "netlink attribute %s: %zu bytes, expected %u..%u", p->name, len, p->min, p->max);
	if (p->kind == NL_STRING && !memchr(mnl_attr_get_payload(a), '\0', len))
		return err_set(err, ERR_CORRUPT, "netlink attribute %s: text of %zu bytes without its end", p->name, len);
	return 0;
}

static const struct nl_policy *find(const struct nl_policy *policy, size_t count, uint16_t type)
{
	for (size_t i = 0; i < count; i++)
		if (policy[i].type == type)
			return &policy[i];
	return NULL;
}

int nl_parse(const void *attrs, size_t len, const struct nl_policy *policy, size_t count, const struct nlattr **ret_attrs,
	struct err *err)
{
	const struct nlattr *a = attrs;
	const char *end = (const char *)attrs + len;

	for (size_t i = 0; i < count; i++)
		ret_attrs[i] = NULL;
	while (mnl_attr_ok(a, (int)(end - (const char *)a))) {
		const struct nl_policy *p = find(policy, count, mnl_attr_get_type(a));

		if (p && check_attr(a, p, err) < 0)
			return -1;
		if (p)
			ret_attrs[p - policy] = a;
		/* The last attribute may lack its padding; stepping over it must not pass the end. */
		if ((ptrdiff_t)MNL_ALIGN(a->nla_len) >= end - (const char *)a) {
			a = (const struct nlattr *)end;
			break;
		}
		a = mnl_attr_next(a);
	}
	if ((const char *)a != end)
		return err_set(
			err, ERR_CORRUPT, "netlink attributes: %td bytes at the end are no attribute", end - (const char *)a);
	for (size_t i = 0; i < count; i++)
		if (policy[i].required && !ret_attrs[i])
			return err_set(err, ERR_CORRUPT, "netlink attribute %s: missing", policy[i].name);
	return 0;
}

int nl_parse_message(const struct nlmsghdr *h, size_t header_size, const struct nl_policy *policy, size_t count,
	const struct nlattr **ret_attrs, struct err *err)
{
	size_t start = NLMSG_ALIGN(header_size);
	size_t payload = mnl_nlmsg_get_payload_len(h);

	if (h->nlmsg_len < NLMSG_HDRLEN || payload < start)
		return err_set(err, ERR_CORRUPT, "netlink message of type %u: %u bytes, shorter than its header", h->nlmsg_type,
			h->nlmsg_len);
	return nl_parse((const char *)mnl_nlmsg_get_payload(h) + start, payload - start, policy, count, ret_attrs, err);
}

int nl_parse_nested(
	const struct nlattr *nest, const struct nl_policy *policy, size_t count, const struct nlattr **ret_attrs, struct err *err)
{
	return nl_parse(mnl_attr_get_payload(nest), mnl_attr_get_payload_len(nest), policy, count, ret_attrs, err);
}

uint8_t nl_u8(const struct nlattr *a, uint8_t absent)
{
	return a ? mnl_attr_get_u8(a) : absent;
}

uint16_t nl_be16(const struct nlattr *a, uint16_t absent)
{
	return a ? ntohs(mnl_attr_get_u16(a)) : absent;
}

uint32_t nl_u32(const struct nlattr *a, uint32_t absent)
{
	return a ? mnl_attr_get_u32(a) : absent;
}

const char *nl_text(const struct nlattr *a)
{
	return a ? mnl_attr_get_str(a) : "";
}

void nl_copy_text(const struct nlattr *a, char *buf, size_t size)
{
	const char *text = nl_text(a);
	size_t len = strnlen(text, size - 1);

	memcpy(buf, text, len);
	memset(buf + len, 0, size - len);
}

struct ip nl_ip(const struct nlattr *a)
{
	struct ip ip = {0};
	size_t len = a ? mnl_attr_get_payload_len(a) : 0;

	if (len == 4 || len == 16) {
		ip.family = len == 4 ? 4 : 6;
		memcpy(ip.bytes, mnl_attr_get_payload(a), len);
	}
	return ip;
}

bool nl_mac(const struct nlattr *a, struct mac *ret_mac)
{
	if (!a || mnl_attr_get_payload_len(a) != sizeof(ret_mac->bytes))
		return false;
	memcpy(ret_mac->bytes, mnl_attr_get_payload(a), sizeof(ret_mac->bytes));
	return true;
}

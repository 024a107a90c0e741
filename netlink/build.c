/* The message builder. See build.h. */
#include "netlink/build.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <string.h>

struct nlmsghdr *nlb_message(struct nlb *b)
{
	return (struct nlmsghdr *)b->buf;
}

static bool room(struct nlb *b, size_t len)
{
	if (!b->overflow && NLMSG_ALIGN(nlb_message(b)->nlmsg_len) + NLMSG_ALIGN(len) > NLB_SIZE)
		b->overflow = true;
	return !b->overflow;
}

void nlb_begin(struct nlb *b, uint16_t type, uint16_t flags, const void *header, size_t header_size)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(b->buf);

	h->nlmsg_type = type;
	h->nlmsg_flags = NLM_F_REQUEST | flags;
	b->overflow = false;
	nlb_put_header(b, header, header_size);
}

void nlb_put_header(struct nlb *b, const void *header, size_t size)
{
	if (room(b, size))
		memcpy(mnl_nlmsg_put_extra_header(nlb_message(b), size), header, size);
}

void nlb_put(struct nlb *b, uint16_t type, const void *data, size_t len)
{
	if (b->overflow || !mnl_attr_put_check(nlb_message(b), NLB_SIZE, type, len, data))
		b->overflow = true;
}

void nlb_put_u8(struct nlb *b, uint16_t type, uint8_t value)
{
	nlb_put(b, type, &value, sizeof(value));
}

void nlb_put_be16(struct nlb *b, uint16_t type, uint16_t value)
{
	value = htons(value);
	nlb_put(b, type, &value, sizeof(value));
}

void nlb_put_u32(struct nlb *b, uint16_t type, uint32_t value)
{
	nlb_put(b, type, &value, sizeof(value));
}

void nlb_put_text(struct nlb *b, uint16_t type, const char *text)
{
	nlb_put(b, type, text, strlen(text) + 1);
}

void nlb_put_ip(struct nlb *b, uint16_t type, const struct ip *ip)
{
	nlb_put(b, type, ip->bytes, ip->family == 4 ? 4 : 16);
}

void nlb_put_mac(struct nlb *b, uint16_t type, const struct mac *mac)
{
	nlb_put(b, type, mac->bytes, sizeof(mac->bytes));
}

size_t nlb_nest(struct nlb *b, uint16_t type)
{
	size_t at = NLMSG_ALIGN(nlb_message(b)->nlmsg_len);

	nlb_put(b, type | NLA_F_NESTED, NULL, 0);
	return at;
}

void nlb_nest_end(struct nlb *b, size_t nest)
{
	if (!b->overflow)
		mnl_attr_nest_end(nlb_message(b), (struct nlattr *)(b->buf + nest));
}

int nlb_finish(const struct nlb *b, struct err *err)
{
	if (b->overflow)
		return err_set(err, ERR_INTERNAL, "netlink message of type %u: longer than %d bytes",
			((const struct nlmsghdr *)b->buf)->nlmsg_type, NLB_SIZE);
	return 0;
}

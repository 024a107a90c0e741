/* Values that the answers of the control API are made of. */
#include <stdio.h>

#include "base/json_text.h"
#include "daemon/api_internal.h"

json_t *api_text(const char *text)
{
	return text && *text ? json_text(text) : json_null();
}

json_t *api_ip(const struct ip *ip)
{
	char text[IP_TEXT_SIZE];
	return api_text(ip_format(ip, text));
}

json_t *api_id(const struct id128 *id)
{
	char text[ID_TEXT_SIZE];
	return json_string(id_format(id, text));
}

json_t *api_addr(const struct gossip_addr *addr)
{
	char ip[IP_TEXT_SIZE];

	ip_format(&addr->ip, ip);
	return addr->ip.family == 6 ? json_sprintf("[%s]:%u", ip, addr->port) : json_sprintf("%s:%u", ip, addr->port);
}

struct named {
	struct id128 id;
	char name[GOSSIP_NAME_MAX + 1];
};

static void if_named(void *ctx, const struct gossip_member *m)
{
	struct named *s = ctx;

	if (id_equal(&m->host_id, &s->id))
		snprintf(s->name, sizeof(s->name), "%s", m->name);
}

json_t *api_host_name(struct node *node, const struct id128 *id)
{
	struct named s = {.id = *id};

	gossip_each_member(node->gossip, if_named, &s);
	return api_text(s.name);
}

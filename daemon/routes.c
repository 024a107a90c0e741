/* This host's routes, as /proc tells them: what a subnet must not overlap. No state, no node. */
#include "daemon/routes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/id.h"

#define ROUTES_MAX (4 * 1024 * 1024)

static void add_route(struct route_list *list, const struct prefix *route)
{
	if (list->count == list->max) {
		list->max = list->max ? 2 * list->max : 64;
		list->routes = alloc_resize(list->routes, struct prefix, list->max);
	}
	list->routes[list->count++] = *route;
}

static bool parse_route4(const char *line, struct prefix *ret)
{
	uint32_t dst, mask;

	if (sscanf(line, "%*s %x %*x %*x %*d %*d %*d %x", &dst, &mask) != 2 || mask == 0)
		return false;
	*ret = (struct prefix){.ip = ip_from_number(4, __builtin_bswap32(dst)), .length = (uint8_t)__builtin_popcount(mask)};
	return true;
}

static bool parse_route6(const char *line, struct prefix *ret)
{
	char hex[33];
	unsigned length;

	*ret = (struct prefix){.ip = {.family = 6}};
	if (sscanf(line, "%32s %x", hex, &length) != 2 || length == 0 || length > 128 || hex_decode(hex, ret->ip.bytes, 16) < 0)
		return false;
	ret->length = (uint8_t)length;
	return true;
}

/* The device is the first word of a line of IPv4's, the last one of IPv6's. */
static bool is_through(const char *line, uint8_t family, const char *ifname)
{
	size_t len = ifname ? strlen(ifname) : 0;
	const char *last = strrchr(line, ' ');
	const char *word = family == 4 ? line : last ? last + 1 : "";

	return len && strncmp(word, ifname, len) == 0 && (!word[len] || strchr(" \t", word[len]));
}

void route_list_read(struct route_list *list, uint8_t family, const char *except)
{
	const char *path = family == 4 ? "/proc/self/net/route" : "/proc/self/net/ipv6_route";
	char *data, *line, *save = NULL;
	struct prefix route;
	size_t len;

	if (file_read(path, ROUTES_MAX, &data, &len, NULL) < 0)
		return;
	for (line = strtok_r(data, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (!is_through(line, family, except) && (family == 4 ? parse_route4(line, &route) : parse_route6(line, &route)))
			add_route(list, &route);
	free(data);
}

bool route_list_overlaps(const struct route_list *list, const struct prefix *prefix)
{
	for (size_t i = 0; i < list->count; i++)
		if (prefix_overlaps(&list->routes[i], prefix))
			return true;
	return false;
}

void route_list_fini(struct route_list *list)
{
	free(list->routes);
	*list = (struct route_list){0};
}

unsigned routes_overlap(const struct prefix *prefixes, unsigned count, const char *except)
{
	struct route_list list = {0};
	bool read[2] = {false};
	unsigned found = 0;

	for (unsigned i = 0; i < count; i++) {
		bool *done = &read[prefixes[i].ip.family == 6];

		if (!*done)
			route_list_read(&list, prefixes[i].ip.family, except);
		*done = true;
		found |= route_list_overlaps(&list, &prefixes[i]) ? 1u << i : 0;
	}
	route_list_fini(&list);
	return found;
}

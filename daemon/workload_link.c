/* The container's side of an attachment, set up and compared by the worker through a socket that was opened in the container's
 * namespace.
 *
 * The pair itself is the driver's. Here are the tag, the MTU, the addresses, up, and the routes of an interface that the driver
 * has put there, in the order in which the kernel takes them: a route needs its gateway's network, which needs an address on a
 * link that is up. */
#include <errno.h>
#include <linux/if.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/node_internal.h"
#include "base/alloc.h"
#include "netlink/addr.h"
#include "netlink/build.h"
#include "netlink/link.h"
#include "netlink/neigh.h"
#include "netlink/netns.h"
#include "netlink/route.h"
#include "netlink/socket.h"

struct link_job {
	struct worker_job job;
	bool repair; /* or compare */
	int netns_fd, result;
	struct workload_link link;
	struct err err;
	void (*fn)(void *arg, const struct err *err);
	void *arg;
};

/* ---- what is there ---- */

static int take_link(void *arg, const struct nlmsghdr *h, struct err *err)
{
	return nl_link_parse(h, arg, err);
}

static int get_link(struct nl_socket *s, const char *ifname, struct nl_link *ret_link, struct err *err)
{
	struct nlb b;

	nl_link_get_by_name_request(&b, ifname);
	return nl_query(s, &b, take_link, ret_link, err);
}

/* ---- setting up ---- */

/* One exchange for all of it: each message by itself would cost a turn of the kernel's lock and of this thread. */
struct set_up {
	const struct workload_link *link;
	struct nl_socket *socket;
	struct nl_batch *batch;
	int result;
	struct err *err; /* the first; what follows is its consequence */
};

/* What a message is about. */
enum { ABOUT_LINK, ABOUT_ADDRESS, ABOUT_GATEWAY = ABOUT_ADDRESS + 2, ABOUT_ROUTE = ABOUT_GATEWAY + 2 };

static int set_sysctl(const char *ifname, const char *name, const char *value, struct err *err)
{
	char path[96];

	snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/%s", ifname, name);
	return netns_sysctl(path, value, NULL, err);
}

/* While the link is down. Runtimes make namespaces with IPv6 switched off for interfaces to come; whoever gives an IPv6 address
 * switches it on. No detection of duplicates (RFC 4862 5.4): addresses are given once, and the link-local one is made from a MAC
 * address that is; it would keep the interface from speaking for a second and ask all hosts. No router of a container's
 * making: a neighbour that sends advertisements would be everybody's way out (CVE-2020-10749). */
static int prepare_ipv6(void *arg, struct err *err)
{
	const struct workload_link *link = arg;

	if (set_sysctl(link->ifname, "accept_ra", "0", err) < 0 || set_sysctl(link->ifname, "accept_dad", "0", err) < 0)
		return -1;
	return prefix_is_set(&link->addresses[1]) ? set_sysctl(link->ifname, "disable_ipv6", "0", err) : 0;
}

static struct nl_route route_of(const struct workload_route *route, uint32_t index)
{
	return (struct nl_route){.to = prefix_masked(&route->to),
		.gateway = route->gateway,
		.onlink = route->onlink,
		.oif = index,
		.protocol = RTPROT_STATIC,
		.type = RTN_UNICAST};
}

static void name_route(const struct workload_link *link, const struct workload_route *route, struct err *err)
{
	char to[PREFIX_TEXT_SIZE], gateway[IP_TEXT_SIZE];

	err_prefix(err, "add route to %s%s%s through interface %s in the container", prefix_format(&route->to, to),
		ip_is_set(&route->gateway) ? " by " : "", ip_format(&route->gateway, gateway), link->ifname);
}

static void on_result(void *arg, uint32_t about, int error, const char *extack)
{
	struct set_up *s = arg;
	char text[PREFIX_TEXT_SIZE];

	if (!error || s->result < 0 || (error == EEXIST && about >= ABOUT_ROUTE && s->link->routes[about - ABOUT_ROUTE].yields))
		return;
	s->result = err_sys(s->err, error, "%s", extack[0] ? extack : "the kernel refuses");
	if (about == ABOUT_LINK)
		err_prefix(s->err, "set up interface %s in the container", s->link->ifname);
	else if (about >= ABOUT_GATEWAY && about < ABOUT_ROUTE)
		err_prefix(s->err, "say where gateway %s is on interface %s in the container",
			ip_format(&workload_gateways[about - ABOUT_GATEWAY], text), s->link->ifname);
	else if (about < ABOUT_GATEWAY)
		err_prefix(s->err, "add address %s to interface %s in the container",
			prefix_format(&s->link->addresses[about - ABOUT_ADDRESS], text), s->link->ifname);
	else
		name_route(s->link, &s->link->routes[about - ABOUT_ROUTE], s->err);
}

static void send_batch(struct set_up *s)
{
	struct err broken;

	/* Each message has reported the failure of the exchange by itself. */
	nl_batch_send(s->socket, s->batch, on_result, s, &broken);
}

static void add(struct set_up *s, struct nlb *b, uint32_t about)
{
	if (nl_batch_add(s->batch, b, about))
		return;
	send_batch(s);
	if (!nl_batch_add(s->batch, b, about))
		on_result(s, about, EMSGSIZE, "");
}

static void add_address(struct set_up *s, uint32_t index, unsigned which)
{
	const struct prefix *address = &s->link->addresses[which];
	struct nlb b;

	if (!prefix_is_set(address))
		return;
	nl_addr_put_request(&b, index, address);
	add(s, &b, ABOUT_ADDRESS + which);
}

static void add_link(struct set_up *s, uint32_t index)
{
	struct nlb b;

	nl_link_set_up_request(&b, index, true);
	nl_link_put_alias(&b, s->link->alias);
	if (s->link->mtu)
		nl_link_put_mtu(&b, s->link->mtu);
	if (s->link->group)
		nl_link_put_group(&b, s->link->group);
	add(s, &b, ABOUT_LINK);
}

/* Nobody answers for a gateway's address: where it is has to be known beforehand. */
static void add_gateway(struct set_up *s, uint32_t index, unsigned which)
{
	struct nlb b;

	if (!s->link->routed || !prefix_is_set(&s->link->addresses[which]))
		return;
	nl_neigh_put_request(&b, index, &workload_gateways[which], &DRIVER_GATEWAY_MAC);
	add(s, &b, ABOUT_GATEWAY + which);
}

/* IPv4 first: an address may be given to a link that is down, and the link is never seen up without one. */
static int set_up(struct set_up *s, uint32_t index)
{
	struct nlb b;

	add_address(s, index, 0);
	add_link(s, index);
	add_address(s, index, 1);
	add_gateway(s, index, 0);
	add_gateway(s, index, 1);
	for (unsigned i = 0; i < s->link->route_count; i++) {
		struct nl_route route = route_of(&s->link->routes[i], index);

		if (s->link->routes[i].yields)
			nl_route_add_request(&b, &route);
		else
			nl_route_put_request(&b, &route);
		add(s, &b, ABOUT_ROUTE + i);
	}
	send_batch(s);
	return s->result;
}

static int find_index(const struct workload_link *link, struct nl_socket *s, uint32_t *index, struct err *err)
{
	struct nl_link have;

	if (*index)
		return 0;
	if (get_link(s, link->ifname, &have, err) < 0)
		return err_prefix(err, "interface %s in the container", link->ifname);
	*index = have.index;
	return 0;
}

int workload_link_set_up(const struct workload_link *link, int netns_fd, uint32_t index, struct err *err)
{
	struct set_up s = {.link = link, .err = err};
	int ret = -1;

	if (netns_visit(netns_fd, prepare_ipv6, (void *)(uintptr_t)link, err) < 0)
		return -1;
	if (nl_open(netns_fd, NULL, 0, &s.socket, err) < 0)
		return -1;
	s.batch = alloc_made(nl_batch_new(), "netlink batch");
	if (find_index(link, s.socket, &index, err) == 0)
		ret = set_up(&s, index);
	nl_batch_free(s.batch);
	nl_close(s.socket);
	return ret;
}

/* ---- comparing ---- */

static int check_link(const struct workload_link *link, const struct nl_link *have, struct err *err)
{
	char ours[MAC_TEXT_SIZE], theirs[MAC_TEXT_SIZE];

	if (have->kind != NL_LINK_VETH || strcmp(have->alias, link->alias) != 0)
		return err_set(err, ERR_CONFLICT, "interface %s in the container is not the one that was made", link->ifname);
	if (!mac_equal(&have->mac, &link->mac))
		return err_set(err, ERR_CONFLICT, "interface %s has the MAC address %s, expected %s", link->ifname,
			mac_format(&have->mac, theirs), mac_format(&link->mac, ours));
	if (!(have->flags & IFF_UP))
		return err_set(err, ERR_CONFLICT, "interface %s is down", link->ifname);
	/* The carrier, at once; IFF_RUNNING follows it up to a second later. */
	if (!(have->flags & IFF_LOWER_UP))
		return err_set(
			err, ERR_CONFLICT, "interface %s has no carrier: the host's end of the pair is down", link->ifname);
	if (link->group && have->group != link->group)
		return err_set(
			err, ERR_CONFLICT, "interface %s is in group %u, expected %u", link->ifname, have->group, link->group);
	if (link->mtu && have->mtu != link->mtu)
		return err_set(err, ERR_CONFLICT, "interface %s has the MTU %u, expected %u", link->ifname, have->mtu, link->mtu);
	return 0;
}

struct seen {
	const struct workload_link *link;
	uint32_t index;
	bool address[2], gateway[2];
	bool *routes;
};

static int see_address(void *arg, const struct nlmsghdr *h, struct err *err)
{
	struct seen *seen = arg;
	struct nl_addr a;

	if (nl_addr_parse(h, &a, err) < 0)
		return -1;
	for (unsigned i = 0; i < 2; i++)
		if (a.ifindex == seen->index && prefix_equal(&a.prefix, &seen->link->addresses[i]))
			seen->address[i] = true;
	return 0;
}

static int see_neighbour(void *arg, const struct nlmsghdr *h, struct err *err)
{
	struct seen *seen = arg;
	struct nl_row row;

	if (nl_row_parse(h, &row, err) < 0)
		return -1;
	for (unsigned i = 0; i < 2; i++)
		if (row.kind == NL_ROW_NEIGH && row.ifindex == seen->index && ip_equal(&row.ip, &workload_gateways[i]) &&
			mac_equal(&row.mac, &DRIVER_GATEWAY_MAC))
			seen->gateway[i] = true;
	return 0;
}

static int see_route(void *arg, const struct nlmsghdr *h, struct err *err)
{
	struct seen *seen = arg;
	struct nl_route have;

	if (nl_route_parse(h, &have, err) < 0)
		return -1;
	for (unsigned i = 0; i < seen->link->route_count; i++) {
		struct nl_route want = route_of(&seen->link->routes[i], seen->index);
		bool same_to = want.to.length == have.to.length && (!want.to.length || ip_equal(&want.to.ip, &have.to.ip));

		if (same_to && seen->link->routes[i].yields)
			seen->routes[i] |= have.to.ip.family == want.to.ip.family;
		else if (same_to && have.oif == want.oif && ip_equal(&have.gateway, &want.gateway))
			seen->routes[i] = true;
	}
	return 0;
}

static int look(const struct workload_link *link, struct nl_socket *s, struct seen *seen, struct err *err)
{
	struct nlb b;

	nl_addr_dump_request(&b);
	if (nl_dump(s, &b, see_address, NULL, seen, NULL, err) < 0)
		return err_prefix(err, "addresses of the container");
	for (uint8_t family = 4; link->route_count && family <= 6; family += 2) {
		nl_route_dump_request(&b, family);
		if (nl_dump(s, &b, see_route, NULL, seen, NULL, err) < 0)
			return err_prefix(err, "routes of the container");
	}
	for (uint8_t family = 4; link->routed && family <= 6; family += 2) {
		nl_neigh_dump_request(&b, family);
		if (nl_dump(s, &b, see_neighbour, NULL, seen, NULL, err) < 0)
			return err_prefix(err, "neighbours of the container");
	}
	return 0;
}

static int judge(const struct workload_link *link, const struct seen *seen, struct err *err)
{
	char text[PREFIX_TEXT_SIZE];

	for (unsigned i = 0; i < 2; i++)
		if (prefix_is_set(&link->addresses[i]) && !seen->address[i])
			return err_set(err, ERR_CONFLICT, "interface %s has lost its address %s", link->ifname,
				prefix_format(&link->addresses[i], text));
	for (unsigned i = 0; link->routed && i < 2; i++)
		if (prefix_is_set(&link->addresses[i]) && !seen->gateway[i])
			return err_set(err, ERR_CONFLICT, "the container has lost where its gateway %s is on %s",
				ip_format(&workload_gateways[i], text), link->ifname);
	for (unsigned i = 0; i < link->route_count; i++)
		if (!seen->routes[i])
			return err_set(err, ERR_CONFLICT, "the container has lost its route to %s through %s",
				prefix_format(&link->routes[i].to, text), link->ifname);
	return 0;
}

static int compare(struct link_job *j, struct nl_socket *s, struct err *err)
{
	const struct workload_link *link = &j->link;
	struct seen seen = {.link = link};
	struct nl_link have;
	int ret;

	if (get_link(s, link->ifname, &have, err) < 0) {
		if (err->sys_errno == ENODEV)
			err_set(err, ERR_CONFLICT, "the container has no interface %s", link->ifname);
		return -1;
	}
	if (check_link(link, &have, err) < 0)
		return -1;
	seen.index = have.index;
	seen.routes = alloc_array(bool, link->route_count + 1);
	ret = look(link, s, &seen, err) < 0 ? -1 : judge(link, &seen, err);
	free(seen.routes);
	return ret;
}

/* ---- to the worker and back ---- */

static void run(void *arg)
{
	struct link_job *j = arg;
	struct nl_socket *s = NULL;

	if (j->repair) {
		j->result = workload_link_set_up(&j->link, j->netns_fd, 0, &j->err);
		return;
	}
	j->result = nl_open(j->netns_fd, NULL, 0, &s, &j->err);
	if (j->result == 0)
		j->result = compare(j, s, &j->err);
	nl_close(s);
}

static void done(void *arg)
{
	struct link_job *j = arg;

	j->fn(j->arg, j->result < 0 ? &j->err : NULL);
	free(j->link.routes);
	free(j);
}

static void submit(struct node *node, int netns_fd, const struct workload_link *link, bool repair,
	void (*fn)(void *arg, const struct err *err), void *arg)
{
	struct link_job *j = alloc_new(struct link_job);

	*j = (struct link_job){.repair = repair, .netns_fd = netns_fd, .link = *link, .fn = fn, .arg = arg};
	j->link.routes = alloc_array(struct workload_route, link->route_count + 1);
	if (link->route_count)
		memcpy(j->link.routes, link->routes, link->route_count * sizeof(*link->routes));
	j->job = (struct worker_job){.run = run, .done = done, .arg = j};
	if (worker_submit(node->worker, &j->job, &j->err) < 0) {
		j->result = -1;
		done(j);
	}
}

void workload_link_check(struct node *node, int netns_fd, const struct workload_link *link,
	void (*fn)(void *arg, const struct err *err), void *arg)
{
	submit(node, netns_fd, link, false, fn, arg);
}

void workload_link_repair(struct node *node, int netns_fd, const struct workload_link *link,
	void (*fn)(void *arg, const struct err *err), void *arg)
{
	submit(node, netns_fd, link, true, fn, arg);
}

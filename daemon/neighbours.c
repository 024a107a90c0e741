/* How full the kernel's neighbour tables are. Linux keeps one for IPv4 and one for IPv6, for all network namespaces together, and
 * lets 1,024 neighbours into each unless told otherwise. A host of a large cluster, or one with many containers that others speak
 * with, fills that: packets are then lost at random, and hosts that are well look dead. So somebody has to say it before.
 *
 * The figures come from RTM_GETNEIGHTBL, which is the same in every namespace. Its number of entries includes those that no limit
 * is kept for, permanent ones and those that a control plane put there (NTF_EXT_LEARNED); ours in mode l3 are such, and there may
 * be thousands. How many there are in all namespaces nobody tells; so when the table looks full enough to warn, those in our two
 * namespaces are counted and taken off. Where other programs keep such entries in namespaces of theirs we warn too early.
 *
 * A look is a job of the worker (a dump names each device of the host): one at the start, one with every LOOK_EVERY-th
 * housekeeping, one when status is asked, each at least LOOK_AGAIN_MS after the one before, LOOK_COUNTED_MS when that one had to
 * count rows: it takes the worker milliseconds for thousands. Status tells what was seen last. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "daemon/node_internal.h"
#include "netlink/build.h"
#include "netlink/neigh.h"
#include "netlink/netns.h"
#include "netlink/socket.h"

#define LOOK_AGAIN_MS 1000
#define LOOK_COUNTED_MS 5000
#define LOOK_EVERY 32
#define ROOM 4 /* times what is used: the limit to advise */

static const uint8_t families[2] = {4, 6};

struct look {
	struct worker_job job;
	struct node *node;
	const char *fabric;
	struct neighbour_table seen[2];
	bool counted;
	int result;
	struct err err;
};

/* ---- on the worker ---- */

static int take_table(void *arg, const struct nlmsghdr *h, struct err *err)
{
	return nl_neigh_table_parse(h, arg, err);
}

static int take_row(void *arg, const struct nlmsghdr *h, struct err *err)
{
	struct nl_row row;

	if (nl_row_parse(h, &row, err) < 0)
		return -1;
	*(uint32_t *)arg += row.kind == NL_ROW_NEIGH && !nl_row_counts(&row);
	return 0;
}

static void from_zero(void *arg)
{
	*(uint32_t *)arg = 0;
}

/* Rows of one namespace that do not count. */
static int exempt_in(int netns_fd, uint8_t family, uint32_t *ret_count, struct err *err)
{
	struct nl_socket *s;
	struct nlb b;
	int result;

	*ret_count = 0;
	if (nl_open(netns_fd, NULL, 0, &s, err) < 0)
		return -1;
	nl_neigh_dump_request(&b, family);
	result = nl_dump(s, &b, take_row, from_zero, ret_count, NULL, err);
	nl_close(s);
	return result;
}

static int take_off_exempt(const char *fabric, uint8_t family, uint32_t *used, struct err *err)
{
	uint32_t here = 0, there = 0;
	int fd, result;

	if (exempt_in(-1, family, &here, err) < 0)
		return -1;
	if (netns_open(fabric, &fd, err) == 0) { /* else there is none yet */
		result = exempt_in(fd, family, &there, err);
		close(fd);
		if (result < 0)
			return -1;
	}
	*used -= here + there < *used ? here + there : *used; /* they may have come since */
	return 0;
}

static bool above_half(const struct neighbour_table *t)
{
	return (uint64_t)t->used * 2 > t->limit;
}

static int look_at(struct look *look, struct nl_socket *s, int i)
{
	uint8_t family = families[i];
	struct nl_neigh_table table = {0};
	struct neighbour_table seen;
	struct nlb b;

	nl_neigh_table_request(&b, family);
	if (nl_dump(s, &b, take_table, NULL, &table, NULL, &look->err) < 0)
		return -1;
	seen = (struct neighbour_table){.used = table.entries, .limit = table.limit, .full = table.full};
	if (above_half(&seen)) {
		look->counted = true;
		if (take_off_exempt(look->fabric, family, &seen.used, &look->err) < 0)
			return -1;
	}
	look->seen[i] = seen;
	return 0;
}

static void run(void *arg)
{
	struct look *look = arg;
	struct nl_socket *s;

	look->result = nl_open(-1, NULL, 0, &s, &look->err);
	if (look->result < 0)
		return;
	for (int i = 0; i < 2 && look->result == 0; i++)
		look->result = look_at(look, s, i);
	nl_close(s);
}

/* ---- on the loop ---- */

bool neighbours_sentence(const struct node *node, int i, char *text, size_t size)
{
	const struct neighbour_table *t = &node->neighbours.tables[i];
	const char *sysctl = i == 0 ? "net.ipv4.neigh.default" : "net.ipv6.neigh.default";
	uint64_t advised = 1024;

	if (!t->high)
		return false;
	while (advised < (uint64_t)t->used * ROOM)
		advised *= 2;
	snprintf(text, size,
		"the kernel's IPv%u neighbour table, one for all network namespaces of this machine, has %u entries: "
		"expected at most half of its limit, gc_thresh3 = %u. When it is full, packets are lost and hosts that are "
		"well seem dead. Raise it: sysctl -w %s.gc_thresh3=%llu %s.gc_thresh2=%llu",
		families[i], t->used, t->limit, sysctl, (unsigned long long)advised, sysctl, (unsigned long long)advised / 2);
	return true;
}

/* Said in the log once, until it has been well below. */
static void note(struct node *node, int i, const struct neighbour_table *seen)
{
	struct neighbour_table *t = &node->neighbours.tables[i];
	bool was = t->high;
	char text[600];

	*t = *seen;
	t->high = above_half(t) || (was && (uint64_t)t->used * 5 > (uint64_t)t->limit * 2);
	if (!was && neighbours_sentence(node, i, text, sizeof(text)))
		log_warn("neighbours", "%s", text);
	if (was && !t->high)
		log_info("neighbours", "the kernel's IPv%u neighbour table has room again: %u entries of %u", families[i],
			t->used, t->limit);
}

static void done(void *arg)
{
	struct look *look = arg;
	struct neighbours *n = &look->node->neighbours;

	n->looking = false;
	n->looked_ms = clock_boot_ms();
	n->counted = look->counted;
	if (look->result < 0 && !n->failed)
		log_warn("neighbours", "how full the kernel's neighbour tables are cannot be told: %s", look->err.text);
	n->failed = look->result < 0;
	for (int i = 0; i < 2 && !n->failed; i++)
		note(look->node, i, &look->seen[i]);
	free(look);
}

void neighbours_look(struct node *node)
{
	struct neighbours *n = &node->neighbours;
	struct look *look;

	if (n->looking || (n->looked_ms && clock_boot_ms() - n->looked_ms < (n->counted ? LOOK_COUNTED_MS : LOOK_AGAIN_MS)))
		return;
	n->looking = true;
	look = alloc_new(struct look);
	look->node = node;
	look->fabric = node->options.fabric;
	look->job = (struct worker_job){.run = run, .done = done, .arg = look};
	if (worker_submit(node->worker, &look->job, &look->err) < 0) {
		look->result = -1;
		done(look);
	}
}

void neighbours_tick(struct node *node)
{
	if (node->housekeepings % LOOK_EVERY == 0)
		neighbours_look(node);
}

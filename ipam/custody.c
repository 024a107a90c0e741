/* The custody map of one pool: for each range the last fact that this host itself took part in.
 *
 * An entry with `to` = ourselves is a holding; any other is history ("given to host 7 at version 4"). Both live in one map
 * because the rule for accepting is about both: a range is taken only at a version above everything we ourselves accepted or
 * gave. Neighbours with equal facts are one entry, so a pool of 2^24 addresses that was never split costs 64 bytes.
 *
 * On disk each entry is one pair, keyed by its start. Entries split and merge, and a crash may fall between any two saves; so
 * reading overlays what it finds, and where two pairs overlap the newer version wins. The order of saves keeps that right: first
 * the tail that an overwritten key would lose, then the entry itself (the only durable save, the commit), then what only tidies
 * up. */
#include "ipam/ipam_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

static u128 end_of(const struct custody *c)
{
	return c->start + c->len;
}

bool custody_newer(uint32_t reign_a, uint64_t version_a, uint32_t reign_b, uint64_t version_b)
{
	return reign_a != reign_b ? reign_a > reign_b : version_a > version_b;
}

static bool same_fact(const struct custody *a, const struct custody *b)
{
	return a->reign == b->reign && a->version == b->version && a->to == b->to && a->xid == b->xid;
}

size_t custody_index(const struct custody_map *map, u128 offset)
{
	size_t low = 0, high = map->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (end_of(&map->entries[middle]) > offset)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

const struct custody *custody_at(const struct custody_map *map, u128 offset)
{
	size_t i = custody_index(map, offset);

	return i < map->count && map->entries[i].start <= offset ? &map->entries[i] : NULL;
}

/* Replaces entries [low, high) by `count` new ones. */
static void splice(struct custody_map *map, size_t low, size_t high, const struct custody *with, size_t count)
{
	size_t new_count = map->count - (high - low) + count;

	if (new_count > map->capacity) {
		map->capacity = new_count < 4 ? new_count : new_count + new_count / 2;
		map->entries = alloc_resize(map->entries, struct custody, map->capacity);
	}
	memmove(map->entries + low + count, map->entries + high, (map->count - high) * sizeof(*map->entries));
	memcpy(map->entries + low, with, count * sizeof(*with));
	map->count = new_count;
}

struct put {
	size_t low, high;		    /* entries that are replaced */
	struct custody left, middle, right; /* by these; len 0: absent */
};

/* The residues of what the entry cuts into. */
static struct put plan_cut(const struct custody_map *map, const struct custody *entry)
{
	struct put p = {.low = custody_index(map, entry->start), .middle = *entry};

	for (p.high = p.low; p.high < map->count && map->entries[p.high].start < end_of(entry); p.high++)
		;
	if (p.low == p.high)
		return p;
	if (map->entries[p.low].start < entry->start) {
		p.left = map->entries[p.low];
		p.left.len = entry->start - p.left.start;
	}
	if (end_of(&map->entries[p.high - 1]) > end_of(entry)) {
		p.right = map->entries[p.high - 1];
		p.right.len = end_of(&p.right) - end_of(entry);
		p.right.start = end_of(entry);
	}
	return p;
}

static void plan_merge(const struct custody_map *map, struct put *p)
{
	if (!p->left.len && p->low > 0 && end_of(&map->entries[p->low - 1]) == p->middle.start &&
		same_fact(&map->entries[p->low - 1], &p->middle))
		p->left = map->entries[--p->low];
	if (p->left.len && same_fact(&p->left, &p->middle)) {
		p->middle.start = p->left.start;
		p->middle.len += p->left.len;
		p->left.len = 0;
	}
	if (!p->right.len && p->high < map->count && map->entries[p->high].start == end_of(&p->middle) &&
		same_fact(&map->entries[p->high], &p->middle))
		p->right = map->entries[p->high++];
	if (p->right.len && same_fact(&p->right, &p->middle)) {
		p->middle.len += p->right.len;
		p->right.len = 0;
	}
}

static bool starts_one(const struct put *p, u128 start)
{
	return p->middle.start == start || (p->left.len && p->left.start == start) || (p->right.len && p->right.start == start);
}

static void save_plan(const struct custody_map *map, const struct put *p, bool durable, custody_save_fn *save, void *ctx)
{
	if (p->right.len)
		save(ctx, &p->right, false);
	save(ctx, &p->middle, durable);
	if (p->left.len)
		save(ctx, &p->left, false);
	for (size_t i = p->low; i < p->high; i++) {
		struct custody gone = {.start = map->entries[i].start};

		if (!starts_one(p, gone.start))
			save(ctx, &gone, false);
	}
}

void custody_put(struct custody_map *map, const struct custody *entry, bool durable, custody_save_fn *save, void *ctx)
{
	struct put p = plan_cut(map, entry);
	struct custody with[3];
	size_t count = 0;

	plan_merge(map, &p);
	if (save)
		save_plan(map, &p, durable, save, ctx);
	if (p.left.len)
		with[count++] = p.left;
	with[count++] = p.middle;
	if (p.right.len)
		with[count++] = p.right;
	splice(map, p.low, p.high, with, count);
}

/* Of two facts with one version, the settled one is the later: an offer is open before it is settled. */
static bool wins(const struct custody *a, const struct custody *b)
{
	if (a->reign != b->reign || a->version != b->version)
		return custody_newer(a->reign, a->version, b->reign, b->version);
	return a->xid == 0 && b->xid != 0;
}

static bool contradicts(const struct custody *a, const struct custody *b)
{
	return a->reign == b->reign && a->version == b->version && a->to != b->to;
}

int custody_overlay(struct custody_map *map, const struct custody *entry)
{
	u128 at = entry->start;

	for (size_t i = custody_index(map, at); i < map->count && map->entries[i].start < end_of(entry); i++)
		if (contradicts(&map->entries[i], entry))
			return -1;
	while (at < end_of(entry)) {
		size_t i = custody_index(map, at);
		const struct custody *there = i < map->count && map->entries[i].start < end_of(entry) ? &map->entries[i] : NULL;
		u128 stop = there ? (there->start > at ? there->start : end_of(there)) : end_of(entry);
		struct custody piece = *entry;

		if (stop > end_of(entry))
			stop = end_of(entry);
		piece.start = at;
		piece.len = stop - at;
		if (!there || there->start > at || wins(entry, there))
			custody_put(map, &piece, false, NULL, NULL);
		at = stop;
	}
	return 0;
}

void custody_clip(struct custody_map *map, u128 start, u128 len)
{
	size_t kept = 0;

	for (size_t i = 0; i < map->count; i++) {
		struct custody c = map->entries[i];
		u128 end = end_of(&c) < start + len ? end_of(&c) : start + len;

		if (c.start < start)
			c.start = start;
		if (c.start >= end)
			continue;
		c.len = end - c.start;
		map->entries[kept++] = c;
	}
	map->count = kept;
}

void custody_fini(struct custody_map *map)
{
	free(map->entries);
	*map = (struct custody_map){0};
}

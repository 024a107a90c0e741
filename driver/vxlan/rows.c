/* Rows of forwarding tables and neighbours, as a table of what is wanted beside what the kernel has.
 *
 * Several objects may want one row with different content: two records with one address while an old one has not yet gone, or a
 * container here and a record elsewhere with its MAC. The winner is chosen by rule, not by order of arrival, so that all hosts
 * agree and a restart changes nothing: an endpoint of this host before a remote one, then the lower value. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#include "driver/vxlan/vxlan_internal.h"

static struct vx_key key_of(const struct vx_row *row)
{
	struct vx_key key = {.kind = row->kind};

	if (row->kind == VX_ROW_REMOTE || row->kind == VX_ROW_PORT) {
		memcpy(key.bytes, row->mac.bytes, sizeof(row->mac.bytes));
		return key;
	}
	key.family = row->ip.family;
	memcpy(key.bytes, row->ip.bytes, sizeof(row->ip.bytes));
	if (row->kind == VX_ROW_NEIGH)
		key.port = row->port;
	else if (row->kind == VX_ROW_ROUTE)
		key.length = row->length;
	return key;
}

static union vx_value value_of(const struct vx_row *row)
{
	union vx_value value = {.bytes = {0}};

	switch (row->kind) {
	case VX_ROW_FLOOD:
	case VX_ROW_ADDR:
		break;
	case VX_ROW_REMOTE:
		value.ip = row->ip;
		break;
	case VX_ROW_ROUTE:
		value.route.port = row->port;
		value.route.source = row->source;
		break;
	case VX_ROW_PORT:
		value.port = row->port;
		break;
	case VX_ROW_NEIGH:
		value.mac = row->mac;
		break;
	}
	return value;
}

static int value_compare(const union vx_value *a, const union vx_value *b)
{
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

struct vx_row vx_entry_row(const struct vx_entry *e, const union vx_value *value)
{
	struct vx_row row = {.kind = e->key.kind, .length = e->key.length, .port = e->key.port};

	if (e->key.family) {
		row.ip.family = e->key.family;
		memcpy(row.ip.bytes, e->key.bytes, sizeof(row.ip.bytes));
	} else {
		memcpy(row.mac.bytes, e->key.bytes, sizeof(row.mac.bytes));
	}
	switch (row.kind) {
	case VX_ROW_FLOOD:
	case VX_ROW_ADDR:
		break;
	case VX_ROW_REMOTE:
		row.ip = value->ip;
		break;
	case VX_ROW_ROUTE:
		row.port = value->route.port;
		row.source = value->route.source;
		break;
	case VX_ROW_PORT:
		row.port = value->port;
		break;
	case VX_ROW_NEIGH:
		row.mac = value->mac;
		break;
	}
	return row;
}

static struct vx_entry *find(struct vx_network *n, const struct vx_key *key)
{
	struct vx_entry *e;

	HASH_FIND(hh, n->rows, key, sizeof(*key), e);
	return e;
}

static struct vx_entry *get(struct vx_network *n, const struct vx_row *row)
{
	struct vx_key key = key_of(row);
	struct vx_entry *e = find(n, &key);

	if (e)
		return e;
	e = alloc_new(struct vx_entry);
	e->key = key;
	e->network = n;
	HASH_ADD(hh, n->rows, key, sizeof(e->key), e);
	return e;
}

void vx_dirty_row(struct vxlan *vx, struct vx_entry *e)
{
	if (e->dirty)
		return;
	e->dirty = true;
	if (e->key.kind == VX_ROW_ADDR) /* first: routes name it as their source */
		DL_PREPEND(vx->dirty_rows, e);
	else
		DL_APPEND(vx->dirty_rows, e);
}

void vx_entry_free(struct vxlan *vx, struct vx_entry *e)
{
	if (e->dirty)
		DL_DELETE(vx->dirty_rows, e);
	vx_announce_forget(e);
	HASH_DEL(e->network->rows, e);
	free(e);
}

static bool beats(bool local, const union vx_value *value, const struct vx_entry *e)
{
	if (local != e->local)
		return local;
	return value_compare(value, &e->want) < 0;
}

static void want(struct vxlan *vx, struct vx_entry *e, const union vx_value *value, bool local)
{
	e->want = *value;
	e->local = local;
	e->pending = true;
	vx_dirty_row(vx, e);
}

void vx_claim(struct vxlan *vx, struct vx_network *n, const struct vx_row *row, bool local)
{
	struct vx_entry *e = get(n, row);
	union vx_value value = value_of(row);

	if (e->claims && (local != e->local || value_compare(&value, &e->want) != 0))
		e->contested = true;
	if (e->claims++ == 0 || beats(local, &value, e))
		want(vx, e, &value, local);
	e->ever_wanted = true;
}

/* One claim that is left: the best so far goes to best. */
struct candidates {
	struct vx_key key;
	struct vx_entry best; /* only want and local are used */
	bool found;
};

static void consider(void *arg, const struct vx_row *row, bool local)
{
	struct candidates *c = arg;
	struct vx_key key = key_of(row);
	union vx_value value = value_of(row);

	if (memcmp(&key, &c->key, sizeof(key)) != 0 || (c->found && !beats(local, &value, &c->best)))
		return;
	c->found = true;
	c->best.want = value;
	c->best.local = local;
}

/* Who else wants this row, and how? Only asked when a winner gives up a row that others want otherwise, which takes two records
 * that contradict: of a row that all want alike, as all remotes of a host want the way to it, one claim less is a number. */
static void elect(struct vxlan *vx, struct vx_entry *e)
{
	struct candidates c = {.key = e->key};
	struct vx_network *n = e->network;
	struct vx_endpoint *endpoint, *next_endpoint;
	struct vx_remote *remote, *next_remote;

	vx_network_rows(n, consider, &c);
	HASH_ITER(hh, n->endpoints, endpoint, next_endpoint)
	if (endpoint->claimed)
		vx_endpoint_rows(endpoint, endpoint->claimed, consider, &c);
	HASH_ITER(hh, n->remotes, remote, next_remote)
	vx_remote_rows(n, remote, consider, &c);
	if (c.found)
		want(vx, e, &c.best.want, c.best.local);
}

void vx_unclaim(struct vxlan *vx, struct vx_network *n, const struct vx_row *row)
{
	struct vx_key key = key_of(row);
	union vx_value value = value_of(row);
	struct vx_entry *e = find(n, &key);

	if (!e || e->claims == 0)
		return;
	e->claims--;
	if (e->claims == 0) {
		e->pending = true;
		e->local = e->contested = false;
		vx_dirty_row(vx, e);
	} else if (e->contested && value_compare(&value, &e->want) == 0) {
		elect(vx, e);
	}
}

void vx_row_had(struct vxlan *vx, struct vx_network *n, const struct vx_row *row)
{
	struct vx_entry *e = get(n, row);
	union vx_value value = value_of(row);

	e->generation = vx->generation;
	if (e->has && value_compare(&value, &e->have) == 0)
		return;
	e->has = true;
	e->have = value;
	if (e->key.kind == VX_ROW_NEIGH)
		e->last = value.mac;
	vx_dirty_row(vx, e);
}

static void forget(struct vxlan *vx, struct vx_entry *e)
{
	if (!e->has)
		return;
	e->has = false;
	vx_dirty_row(vx, e);
}

void vx_row_gone(struct vxlan *vx, struct vx_network *n, const struct vx_row *row)
{
	struct vx_key key = key_of(row);
	struct vx_entry *e = find(n, &key);

	if (e)
		forget(vx, e);
}

static bool on_tunnel(const struct vx_entry *e)
{
	if (e->key.kind == VX_ROW_ROUTE)
		return e->have.route.port == VX_PORT_TUNNEL;
	return e->key.kind != VX_ROW_NEIGH || e->key.port == VX_PORT_TUNNEL;
}

void vx_rows_forget_tunnel(struct vxlan *vx, struct vx_network *n)
{
	struct vx_entry *e, *next;

	HASH_ITER(hh, n->rows, e, next)
	if (on_tunnel(e))
		forget(vx, e);
}

void vx_rows_forget_source(struct vxlan *vx, struct vx_network *n, const struct ip *source)
{
	struct vx_entry *e, *next;

	HASH_ITER(hh, n->rows, e, next)
	if (e->key.kind == VX_ROW_ROUTE && ip_equal(&e->have.route.source, source))
		forget(vx, e);
}

void vx_rows_forget(struct vxlan *vx, struct vx_network *n, uint32_t kinds)
{
	struct vx_entry *e, *next;

	HASH_ITER(hh, n->rows, e, next)
	if (kinds & 1u << e->key.kind)
		forget(vx, e);
}

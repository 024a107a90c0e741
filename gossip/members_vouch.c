/* Whom a newcomer could not get to know, and who vouches for them.
 *
 * A newcomer believes an admission when it knows the key of the sponsor that signed it, and it knows that from the sponsor's own
 * admission. Those are records in somebody's shard, and what is nobody's any more is lost when the last that had a copy stops:
 * a host that is down publishes nothing, and when all others have started since, neither its own admission nor those that it
 * signed are to be had. They know it, and whom it admitted; whoever joins then would not, and refuse half of the cluster.
 *
 * So one of them, the one that is alive with the lowest number, looks now and then what follows from what is published: from
 * hosts that signed for themselves, as the first one does, to those that they admitted, and so on. Whoever has no admission at
 * all, and who is not reached then either, gets one of it, in its own shard. Nobody else has to believe anything new, and a host
 * that published its admission again in between has two, which does no harm. A host that is not reached itself signs for itself:
 * it is the first of those that are left.
 *
 * Hosts that were forgotten are among them as long as somebody's admission is signed by them, or a key is: no member (forget.c),
 * but what they signed before is genuine. */
#include "gossip/core_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VOUCH_MS 20000 /* between two looks; behind a start others must have had the time to say what they have */

/* One host signed for another; by member slot. */
struct edge {
	unsigned of, by;
};

struct look {
	struct gossip *g;
	struct edge *edges;
	size_t count, capacity;
	uint8_t *marks; /* by member slot */
};

enum { MARK_REACHED = 1, MARK_NAMED = 2, MARK_SIGNS = 4 };

static bool add_edge(struct look *l, const struct admission *a)
{
	const struct member *of = members_by_id(l->g, &a->host_id), *by = members_find(l->g, a->sponsor_hostno);
	struct edge *grown;

	if (!of || of->hostno != a->hostno)
		return true;
	l->marks[of->slot] |= MARK_NAMED | (a->sponsor_hostno == a->hostno ? MARK_REACHED : 0);
	if (!by) /* a forgotten one that was never a member here: whoever joins cannot have its key from us */
		return true;
	if (by->forgotten && !of->forgotten)
		l->marks[by->slot] |= MARK_SIGNS;
	if (l->count == l->capacity) {
		l->capacity = l->capacity ? 2 * l->capacity : 64;
		grown = realloc(l->edges, l->capacity * sizeof(*grown));
		if (!grown)
			return false;
		l->edges = grown;
	}
	l->edges[l->count++] = (struct edge){.of = of->slot, .by = by->slot};
	return true;
}

static bool read_edges(struct look *l)
{
	struct shard *shard, *next;

	SHARDS_EACH(&l->g->shards, shard, next)
	{
		if (shard->id.topic != 0)
			continue;
		for (const struct record *r = shard->live.first; r; r = r->next) {
			struct admission a;

			if (r->deleted || r->key_len != SAVED_KEY_SIZE || r->bytes[0] != 'a' ||
				admission_decode(r->bytes, r->key_len, record_val(r), r->val_len, &a, NULL) < 0)
				continue;
			if (!add_edge(l, &a))
				return false;
		}
	}
	return true;
}

static void reach(struct look *l)
{
	for (bool more = true; more;) {
		more = false;
		for (size_t i = 0; i < l->count; i++) {
			const struct edge *e = &l->edges[i];

			if ((l->marks[e->of] & MARK_REACHED) || !(l->marks[e->by] & MARK_REACHED))
				continue;
			l->marks[e->of] |= MARK_REACHED;
			more = true;
		}
	}
}

static void sign_for(struct gossip *g, const struct member *m)
{
	struct admission a = {.hostno = m->hostno, .host_id = m->frame.host_id, .addr = m->addr, .vtep = m->vtep};
	uint8_t key[SAVED_KEY_SIZE], val[ADMISSION_MAX];
	size_t len;

	memcpy(a.public_key, m->public_key, sizeof(a.public_key));
	snprintf(a.name, sizeof(a.name), "%s", m->name);
	admission_sign(&a, &g->config.cluster_id, g->config.identity, g->self->hostno);
	len = admission_encode(&a, key, val);
	push_gather(g, PUSH_LAZY_MS);
	core_put(g, 0, key, sizeof(key), val, len);
	g->counters.vouched++;
}

/* Somebody that ran here once; a number that was never heard may be the one of two that is void. */
static bool is_needed(const struct look *l, const struct member *m)
{
	if (m == l->g->self)
		return false;
	return m->forgotten ? (l->marks[m->slot] & MARK_SIGNS) || keys_need(l->g, &m->frame.host_id) : m->epoch > 0;
}

static void sign_for_those_without(struct look *l, unsigned mark)
{
	for (unsigned i = 0; i < l->g->member_count; i++) {
		const struct member *m = l->g->slots[i];

		if ((l->marks[i] & mark) || !is_needed(l, m))
			continue;
		sign_for(l->g, m);
		l->marks[i] |= MARK_NAMED | MARK_REACHED;
	}
}

static void look(struct gossip *g)
{
	struct look l = {.g = g, .marks = calloc(g->member_count, sizeof(*l.marks))};

	if (l.marks && read_edges(&l)) {
		reach(&l);
		if (!(l.marks[g->self->slot] & MARK_REACHED))
			sign_for(g, g->self);
		l.marks[g->self->slot] |= MARK_REACHED;
		sign_for_those_without(&l, MARK_NAMED);
		reach(&l);
		sign_for_those_without(&l, MARK_REACHED);
	}
	free(l.edges);
	free(l.marks);
}

static bool is_our_turn(const struct gossip *g)
{
	for (unsigned i = 0; i < g->member_count; i++)
		if (g->slots[i]->state == GOSSIP_ALIVE && g->slots[i]->hostno < g->self->hostno)
			return false;
	return gossip_in_step(g);
}

void vouch_start(struct gossip *g)
{
	g->vouch_ms = g->now + VOUCH_MS;
}

uint64_t vouch_tick(struct gossip *g)
{
	if (g->now < g->vouch_ms)
		return g->vouch_ms;
	g->vouch_ms = g->now + VOUCH_MS;
	if ((g->vouched_root != g->shards.root || g->vouched_shape != g->member_shape) && is_our_turn(g)) {
		look(g);
		g->vouched_root = g->shards.root;
		g->vouched_shape = g->member_shape;
	}
	return g->vouch_ms;
}

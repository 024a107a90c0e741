/* Level 1 of anti-entropy where there are many shards: what differs is found from a sketch (sketch_internal.h) instead of a whole
 * vector. A cluster of 5,000 hosts has a vector of some 70 packets; ten shards that differ are told from one packet of symbols.
 *
 * Whoever wants to compare draws a key and asks for the first symbols; the other side computes them from its shards and remembers
 * nothing. While they do not suffice, more are asked for, twice as many packets each time. What is found is handled like the
 * entries of a vector. When the row grows as long as a vector would be, when all changes faster than symbols come, or nothing is
 * answered (a release that has no sketches), a vector is sent after all, and for a while to that peer. One comparison at a time.
 */
#include "gossip/core_internal.h"
#include "gossip/sketch_internal.h"

#include <stdlib.h>
#include <string.h>

#define SKETCH_WAIT_MS 150
#define SKETCH_TRIES 3
#define SKETCH_DROPS 3 /* in a row, when all changes faster than we compare */
#define SKETCH_PACKETS_MAX 8
#define SKETCH_PER_PACKET 33   /* symbols */
#define SKETCH_SILENT_MS 60000 /* no sketch with who did not answer one */
#define SKETCH_UNLIKE_MS 300   /* nor with who differs too much, before the vector has had its effect */
#define VECTOR_ENTRY_SIZE 16   /* about */

struct sketch_session {
	uint32_t hostno;
	uint8_t key[SKETCH_KEY_SIZE];
	u128 root;	   /* over what we share, when the first symbols came */
	uint64_t theirs;   /* the same of the other side */
	uint32_t shards;   /* of ours that are compared, when it began */
	uint32_t count;	   /* symbols here */
	uint32_t asked_to; /* that were asked for */
	uint8_t packets;
	unsigned tries;				      /* without an answer */
	uint64_t until_ms;			      /* when the answer counts as lost */
	struct sketch_symbol row[SKETCH_SYMBOLS_MAX]; /* theirs less ours */
};

static void ask(struct gossip *g, struct member *m)
{
	struct sketch_session *s = g->sketch;
	struct proto_sketch ask = {.first = s->count, .shards = s->shards, .packets = s->packets};
	struct proto_packet packet = {0};

	memcpy(ask.key, s->key, sizeof(ask.key));
	s->asked_to = s->count + (uint32_t)s->packets * SKETCH_PER_PACKET;
	s->until_ms = g->now + SKETCH_WAIT_MS;
	proto_put_sketch_ask(&packet, &ask);
	core_send(g, m, FRAME_CLASS_SYNC, &packet);
	member_due(g, &m->sync_ms, s->until_ms);
}

static void end_session(struct gossip *g)
{
	free(g->sketch);
	g->sketch = NULL;
}

void sketch_free(struct gossip *g)
{
	end_session(g);
}

static void give_up(struct gossip *g, struct member *m, uint64_t for_ms)
{
	g->counters.sketches_failed++;
	g->sketch_drops = 0;
	rare(m)->no_sketch_until_ms = g->now + for_ms;
	end_session(g);
}

enum sketch_begun sketch_begin(struct gossip *g, struct member *m)
{
	struct sketch_session *s = g->sketch;
	unsigned shards = sync_shared_count(g, m);

	if (shards <= SKETCH_ABOVE || g->now < rare_of(m)->no_sketch_until_ms)
		return SKETCH_NOT_HERE;
	if (s && s->hostno != m->hostno && g->now < s->until_ms) {
		member_due(g, &m->sync_ms, s->until_ms + core_random(g, 20));
		return SKETCH_BUSY;
	}
	if (s && s->hostno == m->hostno) {
		if (g->now < s->until_ms)
			return SKETCH_BUSY;
		if (++s->tries < SKETCH_TRIES) {
			ask(g, m);
			return SKETCH_BUSY;
		}
		give_up(g, m, SKETCH_SILENT_MS);
		return SKETCH_NOT_HERE;
	}
	end_session(g);
	g->sketch = s = calloc(1, sizeof(*s));
	if (!s)
		return SKETCH_NOT_HERE;
	s->hostno = m->hostno;
	s->shards = shards;
	s->packets = 1;
	g->ops.random(g->ctx, s->key, sizeof(s->key));
	g->counters.sketches++;
	ask(g, m);
	return SKETCH_BEGUN;
}

/* ---- the other side ---- */

static void add_all(struct gossip *g, const struct member *m, struct sketch_symbol *row, uint32_t first, uint32_t count,
	const uint8_t *key, bool theirs)
{
	for (unsigned i = 0; i < g->sorted_count; i++) {
		struct proto_head head;

		if (!shard_current(g->sorted[i]) || !interest_shares(g, m, g->sorted[i]))
			continue;
		sync_head_of(g->sorted[i], &head);
		sketch_add(row, first, count, key, &head, theirs);
	}
}

static void send_symbols(
	struct gossip *g, struct member *m, struct proto_sketch *sketch, const struct sketch_symbol *row, uint32_t count)
{
	for (uint32_t i = 0; i < count && push_afford(g);) {
		struct proto_packet packet = {0};
		struct proto_list list;

		proto_sketch_open(&list, &packet, sketch);
		while (i < count && proto_sketch_add(&list, row[i].count, row[i].sum, row[i].check)) {
			i++;
			sketch->first++;
		}
		if (!proto_list_close(&list))
			return;
		core_send(g, m, FRAME_CLASS_SYNC, &packet);
	}
}

bool sketch_on_ask(struct gossip *g, struct member *m, struct bytes_reader *body)
{
	struct sketch_symbol row[SKETCH_PACKETS_MAX * SKETCH_PER_PACKET];
	struct proto_sketch ask;
	uint32_t count;

	if (!proto_get_sketch_ask(body, &ask))
		return false;
	if (ask.first >= SKETCH_SYMBOLS_MAX || !sync_sort_shards(g))
		return true;
	count = (ask.packets < SKETCH_PACKETS_MAX ? ask.packets : SKETCH_PACKETS_MAX) * SKETCH_PER_PACKET;
	if (count > SKETCH_SYMBOLS_MAX - ask.first)
		count = SKETCH_SYMBOLS_MAX - ask.first;
	memset(row, 0, sizeof(row));
	add_all(g, m, row, ask.first, count, ask.key, true);
	ask.shards = sync_shared_count(g, m);
	ask.root = (uint64_t)interest_root(g, m);
	send_symbols(g, m, &ask, row, count);
	return true;
}

/* ---- symbols arrive ---- */

static bool is_worth_it(const struct sketch_session *s, uint32_t shards)
{
	uint32_t more = shards > s->shards ? shards : s->shards, less = shards + s->shards - more;

	return s->count < SKETCH_SYMBOLS_MAX && more - less < SKETCH_SYMBOLS_MAX / 2 &&
	       (uint64_t)s->count * PROTO_SKETCH_SYMBOL_SIZE < (uint64_t)less * VECTOR_ENTRY_SIZE;
}

/* Whether the difference is known now. */
static bool try_peel(struct gossip *g, struct member *m)
{
	struct sketch_session *s = g->sketch;
	struct sketch_symbol *work = malloc(s->count * sizeof(*work));
	struct sketch_found *found = malloc(s->count * sizeof(*found));
	uint32_t n;
	bool done = false;

	if (work && found) {
		memcpy(work, s->row, s->count * sizeof(*work));
		done = sketch_peel(work, s->count, s->key, found, &n);
	}
	if (done) {
		g->sketch_drops = 0;
		end_session(g);
		sync_difference(g, m, found, n);
	}
	free(work);
	free(found);
	return done;
}

static void take_symbols(struct gossip *g, const struct member *m, struct bytes_reader *body)
{
	struct sketch_session *s = g->sketch;
	uint32_t first = s->count;
	struct sketch_symbol symbol;

	while (proto_get_sketch_symbol(body, &symbol.count, symbol.sum, &symbol.check))
		if (s->count < SKETCH_SYMBOLS_MAX)
			s->row[s->count++] = symbol;
	if (sync_sort_shards(g))
		add_all(g, m, s->row + first, first, s->count - first, s->key, false);
}

bool sketch_on_symbols(struct gossip *g, struct member *m, struct bytes_reader *body)
{
	struct sketch_session *s = g->sketch;
	struct proto_sketch sketch;

	if (!proto_get_sketch_open(body, &sketch))
		return false;
	if (!s || s->hostno != m->hostno || memcmp(s->key, sketch.key, sizeof(s->key)) != 0 || sketch.first != s->count ||
		br_left(body) == 0)
		return true;
	if (s->count > 0 && (s->root != interest_root(g, m) || s->theirs != sketch.root)) {
		/* These are not what the first symbols were made of, on one side or the other. What differs is being told by
		 * others: look again. But changes that never pause must not keep us from comparing: a vector is of one moment. */
		if (++g->sketch_drops == SKETCH_DROPS)
			give_up(g, m, SKETCH_UNLIKE_MS);
		else
			end_session(g);
		member_due(g, &m->sync_ms, g->now + core_random(g, 20));
		return true;
	}
	if (s->count == 0) {
		s->root = interest_root(g, m);
		s->theirs = sketch.root;
	}
	take_symbols(g, m, body);
	s->tries = 0;
	if (try_peel(g, m))
		return true;
	if (!is_worth_it(s, sketch.shards)) {
		give_up(g, m, SKETCH_UNLIKE_MS);
		member_due(g, &m->sync_ms, g->now + core_random(g, 10));
	} else if (s->count >= s->asked_to) {
		s->packets = s->packets < SKETCH_PACKETS_MAX / 2 ? (uint8_t)(2 * s->packets) : SKETCH_PACKETS_MAX;
		ask(g, m);
	}
	return true;
}

/* Own changes to everyone who keeps the topic, in one hop.
 *
 * There is no queue. For each own shard and peer there is a cursor: what the peer has acknowledged, and what is on its way. What
 * has to be sent is the shard's tail behind the cursor, read when there is room for it, so that a change which was superseded
 * meanwhile is never sent and a backlog is bounded by what is live, not by how often it changed.
 *
 * The first packet leaves at once. While a peer has something unacknowledged, further changes are gathered for PUSH_COALESCE_MS,
 * and at most PUSH_WINDOW packets are on their way: a burst goes out at the pace of the acks. A silent peer gets PUSH_TRIES
 * repetitions; after that anti-entropy has it, and only new changes are sent to it.
 *
 * What leaves is bounded by a budget of bytes, probes and membership excepted, which are few and never wait. A burst in one
 * network must not hold up a change in another: the first packet of a shard that has none on its way to a peer leaves whatever
 * window and budget say, which is at most one for each round trip; what others want passed on may run into debt; the rest of our
 * own and answers of comparisons go when there is credit, PUSH_QUANTUM packets of a shard in turn. */
#include "gossip/core_internal.h"

#include <stdlib.h>
#include <string.h>

/* Push and sync share a token bucket per host; core_send takes from it. */
static void refill(struct gossip *g)
{
	g->bucket += (int64_t)(g->now - g->bucket_ms) * BUCKET_RATE;
	g->bucket_ms = g->now;
	if (g->bucket > BUCKET_BURST)
		g->bucket = BUCKET_BURST;
}

bool push_afford(struct gossip *g)
{
	refill(g);
	return g->bucket > 0;
}

bool push_afford_relay(struct gossip *g)
{
	refill(g);
	return g->bucket > -BUCKET_BURST;
}

static struct shard_cursor *cursor_of(const struct gossip *g, struct shard *shard, const struct member *m)
{
	if (m->slot >= shard->cursor_count) {
		unsigned count = g->slot_capacity;
		struct shard_cursor *cursors = realloc(shard->cursors, count * sizeof(*cursors));

		if (!cursors)
			return NULL;
		memset(cursors + shard->cursor_count, 0, (count - shard->cursor_count) * sizeof(*cursors));
		shard->cursors = cursors;
		shard->cursor_count = count;
	}
	return &shard->cursors[m->slot];
}

static bool pushes_to(const struct gossip *g, const struct member *m)
{
	return member_usable(g, m) && !m->unheard;
}

static bool goes_to(struct gossip *g, const struct member *m, const struct shard *shard)
{
	return interest_has(g, m, shard->in) && !tree_carries(g, shard->in);
}

/* A packet to one peer under construction. */
struct train {
	struct gossip *g;
	struct member *m;
	struct proto_packet packet;
};

static void depart(struct train *t)
{
	if (t->packet.len == 0)
		return;
	t->m->unacked++;
	t->m->push_last_ms = t->g->now;
	t->g->counters.pushes++;
	signed_add(t->g, &t->packet);
	core_send(t->g, t->m, FRAME_CLASS_PUSH, &t->packet);
	t->packet.len = 0;
}

static bool may_send(const struct train *t)
{
	if (t->m->unacked >= PUSH_WINDOW)
		return false;
	if (push_afford(t->g))
		return true;
	member_due(t->g, &t->m->push_ms, t->g->now + PUSH_COALESCE_MS);
	return false;
}

/* The peer is below the floor: a small shard goes as a whole, for a bigger one the peer is told to pull. */
static uint64_t load_listing(struct train *t, const struct shard *shard)
{
	uint64_t to;

	depart(t);
	to = shards_encode(shard, 0, true, PROTO_BATCH_PUSH, &t->packet);
	if (to == shard->head)
		return to;
	t->packet.len = 0;
	sync_poke(t->g, t->m, shard);
	return shard->head;
}

/* All that is left of a shard, in the packet if there is room: goes whatever window and budget say. */
static bool load_rest(struct train *t, const struct shard *shard, uint64_t from)
{
	for (unsigned i = 0; i < 2 && from >= shard->floor; i++) {
		const size_t len = t->packet.len;

		if (shards_encode(shard, from, false, PROTO_BATCH_PUSH, &t->packet) == shard->head)
			return true;
		t->packet.len = len;
		depart(t);
	}
	return false;
}

/* Returns how far it came: `from`, when the packet was full and has left. */
static uint64_t load_batch(struct train *t, const struct shard *shard, uint64_t from)
{
	uint64_t to;

	if (from < shard->floor)
		return load_listing(t, shard);
	to = shards_encode(shard, from, false, PROTO_BATCH_PUSH, &t->packet);
	if (to == from)
		depart(t);
	return to;
}

static void loaded(struct train *t, struct shard_cursor *c, uint64_t to)
{
	c->sent = to;
	c->sent_ms = t->g->now;
	c->tries = 0;
}

/* What waits for others (push_gather) is not taken along by an ack that makes room. Who lacks more than that gets all. */
static bool is_gathering(const struct gossip *g, const struct shard *shard)
{
	unsigned i = 0;

	if (g->now >= g->gather_ms || g->gather_ms == NEVER)
		return false;
	while (i < g->dirty_count && g->dirty[i] != shard)
		i++;
	return i < g->dirty_count;
}

/* Returns whether it is worth coming back when the other shards have had their turn. */
static bool load(struct train *t, struct shard *shard, struct shard_cursor *c)
{
	uint64_t from = c->acked > c->sent ? c->acked : c->sent;
	unsigned batches = 0;

	if (from >= shard->pushed && from < shard->head && is_gathering(t->g, shard))
		return false;
	while (from < shard->head && may_send(t)) {
		const bool empty = t->packet.len == 0;
		uint64_t to;

		if (batches++ == PUSH_QUANTUM)
			return true;
		to = load_batch(t, shard, from);
		if (to > from)
			loaded(t, c, to);
		else if (empty)
			return false;
		from = to;
	}
	if (from < shard->head && from == c->acked && load_rest(t, shard, from))
		loaded(t, c, shard->head);
	return false;
}

/* Who has just come, and whoever hears us while we are late ourselves, is not asked again too soon. When many come, they and we
 * are busy, and what one of them was sent twice is the admission of another. */
static uint64_t rto(const struct gossip *g, const struct member *m, const struct shard_cursor *c)
{
	uint64_t base = m->srtt_us	 ? 3 * (uint64_t)m->srtt_us / 1000
			: m->push_rtt_ms ? 3 * (uint64_t)m->push_rtt_ms
					 : PUSH_RTO_UNKNOWN_MS;
	uint64_t least = introduce_lately(g) ? PUSH_RTO_UNKNOWN_MS : PUSH_RTO_MS;

	return (base > least ? base : least) * (1 + g->health) << c->tries;
}

/* Takes back what was not acknowledged in time, or gives up. */
static void check_rto(struct gossip *g, struct member *m, struct shard_cursor *c)
{
	if (c->sent <= c->acked || c->given_up || g->now < c->sent_ms + rto(g, m, c))
		return;
	m->unacked = 0;
	if (c->tries + 1 >= PUSH_TRIES) {
		c->given_up = true;
		m->behind = true;
		member_due(g, &m->sync_ms, g->now + MISMATCH_MS);
		probe_doubt(g, m);
		return;
	}
	g->counters.push_retries++;
	c->sent = c->acked;
}

static bool load_checked(struct train *t, struct shard *shard)
{
	struct shard_cursor *c = goes_to(t->g, t->m, shard) ? cursor_of(t->g, shard, t->m) : NULL;
	bool more;
	uint8_t tries;

	if (!c)
		return false;
	tries = c->tries;
	if (c->sent > c->acked && !c->given_up && t->g->now >= c->sent_ms + rto(t->g, t->m, c)) {
		check_rto(t->g, t->m, c);
		more = load(t, shard, c);
		if (c->sent > c->acked && !c->given_up)
			c->tries = (uint8_t)(tries + 1);
	} else {
		if (c->given_up && c->sent < shard->head)
			c->given_up = false;
		more = load(t, shard, c);
	}
	if (c->sent > c->acked && !c->given_up)
		member_due(t->g, &t->m->push_ms, c->sent_ms + rto(t->g, t->m, c));
	return more;
}

void push_member(struct gossip *g, struct member *m)
{
	struct train t = {.g = g, .m = m};
	bool more;

	m->push_ms = NEVER;
	if (!pushes_to(g, m) || !g->started)
		return;
	do {
		more = false;
		for (struct shard *shard = shards_origin(&g->shards, g->self->hostno)->shards; shard;
			shard = shard->next_of_origin)
			more |= load_checked(&t, shard);
	} while (more);
	depart(&t);
}

void push_changed(struct gossip *g, struct shard *shard)
{
	interest_changed(g, shard->in);
	for (unsigned i = 0; i < g->dirty_count; i++)
		if (g->dirty[i] == shard)
			return;
	if (g->dirty_count == g->dirty_capacity) {
		unsigned capacity = g->dirty_capacity ? g->dirty_capacity * 2 : 8;
		struct shard **dirty = realloc(g->dirty, capacity * sizeof(*dirty));

		if (!dirty)
			return; /* anti-entropy brings it */
		g->dirty = dirty;
		g->dirty_capacity = capacity;
	}
	g->dirty[g->dirty_count++] = shard;
}

/* What goes by a tree, as far as that has room. Returns how many of the others there are: the last ones of the list. */
static unsigned flush_by_tree(struct gossip *g)
{
	unsigned kept = 0, direct = g->dirty_count;

	for (unsigned i = 0; i < direct;) {
		struct shard *shard = g->dirty[i];

		if (!tree_carries(g, shard->in)) {
			g->dirty[i] = g->dirty[--direct];
			g->dirty[direct] = shard;
			continue;
		}
		if (!tree_push(g, shard))
			g->dirty[kept++] = shard;
		i++;
	}
	if (g->dirty_count > direct)
		memmove(g->dirty + kept, g->dirty + direct, (g->dirty_count - direct) * sizeof(*g->dirty));
	direct = g->dirty_count - direct;
	g->dirty_count = kept;
	return direct;
}

/* Behind what is pushed, in the same packet if it has room. */
static void take_along(struct train *t, const struct proto_packet *rider)
{
	if (t->packet.len == 0 || t->packet.len + rider->len > sizeof(t->packet.bytes)) {
		depart(t);
		core_send(t->g, t->m, FRAME_CLASS_MEMBERSHIP, rider);
		return;
	}
	memcpy(t->packet.bytes + t->packet.len, rider->bytes, rider->len);
	t->packet.len += rider->len;
}

static void send_to_all(struct gossip *g, const struct proto_packet *packet)
{
	for (unsigned i = 0; i < g->member_count; i++)
		if (member_usable(g, g->slots[i]) && !g->slots[i]->unheard)
			core_send(g, g->slots[i], FRAME_CLASS_MEMBERSHIP, packet);
}

/* `rider`: a message for everybody that goes along, or NULL. */
static void flush(struct gossip *g, const struct proto_packet *rider)
{
	unsigned count;
	struct shard **direct;

	count = flush_by_tree(g);
	direct = g->dirty + g->dirty_count;
	if (rider && tree_grown(g)) {
		send_to_all(g, rider);
		rider = NULL;
	}
	for (unsigned s = 0; s < count; s++)
		direct[s]->pushed = direct[s]->head;
	for (unsigned i = 0; (count > 0 || rider) && i < g->member_count; i++) {
		struct member *m = g->slots[i];
		struct train t = {.g = g, .m = m};
		bool more;

		if (!pushes_to(g, m))
			continue;
		if (m->unacked > 0 && g->now < m->push_last_ms + PUSH_COALESCE_MS) {
			member_due(g, &m->push_ms, m->push_last_ms + PUSH_COALESCE_MS);
			if (rider)
				core_send(g, m, FRAME_CLASS_MEMBERSHIP, rider);
			continue;
		}
		do {
			more = false;
			for (unsigned s = 0; s < count; s++)
				more |= load_checked(&t, direct[s]);
		} while (more);
		if (rider)
			take_along(&t, rider);
		depart(&t);
	}
}

/* Admissions whose newcomers have spoken meanwhile leave with the word that these live. */
void push_flush(struct gossip *g)
{
	if (!g->started || (g->dirty_count > 0 && g->gather_ms != NEVER && (g->now < g->gather_ms || introduce_due(g))))
		return;
	g->gather_ms = NEVER;
	if (g->dirty_count > 0)
		flush(g, NULL);
}

void push_begin(struct shard *shard, const struct member *m)
{
	if (m->slot < shard->cursor_count)
		shard->cursors[m->slot] = (struct shard_cursor){0};
}

/* `by` has our shards of topics kept by all and gives them to `m`: only what changes from here on goes to it directly. That `m`
 * has them is the word of another, and what was sent to that one may have been lost: where it matters who has what, it does not
 * count (push_admissions). */
void push_given(struct gossip *g, struct member *m, const struct member *by)
{
	struct origin *us = shards_origin(&g->shards, g->self->hostno);

	for (struct shard *shard = us ? us->shards : NULL; shard; shard = shard->next_of_origin) {
		const struct shard_cursor *from = cursor_of(g, shard, by);
		uint64_t head = from && from->sent > from->acked ? from->sent : from ? from->acked : 0;
		struct shard_cursor *c = topic_for_all(shard->id.topic) ? cursor_of(g, shard, m) : NULL;

		if (!c || c->sent > c->acked || c->acked >= head)
			continue;
		c->acked = c->sent = head;
		c->given = true;
	}
}

/* What changes in this call may wait so long for other changes, and then leaves with them in one packet for each peer; before, if
 * something changes that may not wait. */
void push_gather(struct gossip *g, uint64_t ms)
{
	if (g->dirty_count > 0 && g->gather_ms == NEVER)
		return; /* something that may not wait changed in this very call */
	sooner(&g->gather_ms, g->now + ms);
}

void push_gathered(struct gossip *g, const struct proto_packet *rider)
{
	g->gather_ms = NEVER;
	flush(g, rider);
}

void push_reset(struct gossip *g, struct member *m, bool from_zero)
{
	struct origin *us = shards_origin(&g->shards, g->self->hostno);

	m->unacked = 0;
	for (struct shard *shard = us ? us->shards : NULL; shard; shard = shard->next_of_origin) {
		struct shard_cursor *c = m->slot < shard->cursor_count || goes_to(g, m, shard) ? cursor_of(g, shard, m) : NULL;

		if (!c)
			continue;
		if (from_zero) {
			c->acked = 0;
			c->given = false;
		}
		c->sent = c->acked;
		c->tries = 0;
		c->given_up = false;
	}
	member_due(g, &m->push_ms, g->now);
}

/* R4: deletions that every alive host which keeps the topic has seen need not be kept. */
static void maybe_raise_floor(struct gossip *g, struct shard *shard)
{
	uint64_t lowest = shard->head;

	if (shard->deleted_count == 0)
		return;
	for (unsigned i = 0; i < g->member_count; i++) {
		struct member *m = g->slots[i];

		if (m == g->self || m->state == GOSSIP_DEAD || m->state == GOSSIP_LEFT || !interest_has(g, m, shard->in))
			continue;
		if (m->slot >= shard->cursor_count)
			return;
		if (shard->cursors[m->slot].acked < lowest)
			lowest = shard->cursors[m->slot].acked;
	}
	shards_raise_floor(&g->shards, shard, lowest);
}

/* The shortest counts: those of a cluster that is starting say little about it. */
static void note_round_trip(struct member *m, uint64_t ms)
{
	uint32_t rtt = ms > PUSH_ACK_MS ? (uint32_t)(ms - PUSH_ACK_MS) : 1;

	if (m->push_rtt_ms == 0 || rtt < m->push_rtt_ms)
		m->push_rtt_ms = rtt;
}

void push_acked(struct gossip *g, struct member *m, struct shard *shard, uint64_t head, bool exact)
{
	struct shard_cursor *c = cursor_of(g, shard, m);

	if (!c)
		return;
	if (m->by_stream)
		probe_doubt(g, m);
	if (!exact && c->tries == 0 && c->sent > c->acked && head >= c->sent)
		note_round_trip(m, g->now - c->sent_ms);
	if (exact || head >= c->acked)
		c->given = false;
	if (exact && head < c->acked)
		c->sent = c->acked = head; /* it restarted, or lost it some other way */
	if (head > c->acked)
		c->acked = head;
	if (c->acked >= c->sent) {
		c->sent = c->acked;
		c->tries = 0;
		c->given_up = false;
	}
	if (exact && c->acked < shard->head) {
		c->sent = c->acked;
		c->given_up = false;
		member_due(g, &m->push_ms, g->now);
	}
	if (c->acked == shard->head)
		maybe_raise_floor(g, shard);
}

uint64_t push_admissions(const struct shard *own, const struct member *m)
{
	const struct shard_cursor *c = m->slot < own->cursor_count ? &own->cursors[m->slot] : NULL;
	uint64_t had = m->had_seq > m->had_admissions ? m->had_seq : m->had_admissions;

	return c && !c->given && c->acked > had ? c->acked : had;
}

/* Whose head it is that the peer has as we sent it. One that we have not sent last is none: the ack of that one follows. */
static struct shard *sent_with_head(const struct gossip *g, const struct member *m, uint64_t head)
{
	struct shard *shard = shards_origin(&g->shards, g->self->hostno)->shards;

	while (shard && (m->slot >= shard->cursor_count || shard->cursors[m->slot].sent != head))
		shard = shard->next_of_origin;
	return shard;
}

bool push_on_ack(struct gossip *g, struct member *m, struct bytes_reader *body)
{
	struct proto_push_ack ack;
	uint64_t topic, head;

	if (!proto_get_push_ack_open(body, &ack))
		return false;
	m->unacked -= m->unacked < ack.packets ? m->unacked : ack.packets;
	while (proto_get_push_ack(body, &ack, &topic, &head)) {
		struct shard *shard = ack.named ? shards_find(&g->shards, g->self->hostno, topic) : sent_with_head(g, m, head);

		if (shard && ack.epoch == shard->epoch && head <= shard->head)
			push_acked(g, m, shard, head, false);
	}
	if (!br_done(body))
		return false;
	push_member(g, m);
	return true;
}

/* ---- the receiver's side ---- */

static void pay(struct gossip *g, struct member *m)
{
	const struct origin *origin = shards_origin(&g->shards, m->hostno);
	struct proto_push_ack ack = {.packets = (uint8_t)m->owed, .epoch = origin ? origin->epoch : 0};
	struct proto_packet packet = {0};
	struct proto_list list;
	const struct shard *shards[PUSH_OWED];
	unsigned count = 0, kept = 0;

	for (unsigned i = 0; i < g->owed_count; i++) {
		const struct owed_ack *owed = &g->owed[i];
		const struct shard *shard = owed->m == m ? shards_find(&g->shards, m->hostno, owed->topic) : NULL;

		if (shard && shard->epoch == ack.epoch) {
			ack.named |= shard->head != owed->head;
			shards[count++] = shard;
		}
		if (owed->m != m)
			g->owed[kept++] = *owed;
	}
	g->owed_count = kept;
	m->owed = 0;
	proto_push_ack_open(&list, &packet, &ack);
	for (unsigned i = 0; i < count; i++)
		proto_push_ack_add(&list, &ack, shards[i]->id.topic, shards[i]->head);
	if (count > 0 && proto_list_close(&list))
		core_send(g, m, FRAME_CLASS_PROBE, &packet);
}

/* All acks that wait. */
void push_pay(struct gossip *g)
{
	while (g->owed_count > 0)
		pay(g, g->owed[0].m);
	g->ack_ms = NEVER;
}

/* What it pushed is acknowledged, but not at once: what follows within PUSH_ACK_MS shares the packet, and who has just heard of
 * something has better to do. The origin repeats after PUSH_RTO_MS. */
void push_owe(struct gossip *g, struct member *m, const struct proto_batch *batch)
{
	unsigned i = 0;

	while (i < g->owed_count && (g->owed[i].m != m || g->owed[i].topic != batch->topic))
		i++;
	if (i == PUSH_OWED) {
		push_pay(g);
		i = 0;
	}
	g->owed[i] = (struct owed_ack){.m = m, .topic = batch->topic, .head = batch->head};
	if (i == g->owed_count)
		g->owed_count++;
	sooner(&g->ack_ms, g->now + PUSH_ACK_MS);
}

/* Its window is half full: it shall not wait for us. */
void push_owe_packet(struct gossip *g, struct member *m)
{
	if (++m->owed >= PUSH_WINDOW / 2)
		pay(g, m);
}

void push_tick(struct gossip *g)
{
	for (unsigned i = 0; i < g->member_count; i++) {
		struct member *m = g->slots[i];

		if (g->now >= m->push_ms)
			push_member(g, m);
		sooner(&g->member_due_ms, m->push_ms);
	}
}

/* Own changes to everyone who keeps a topic, where those are more than TREE_ABOVE hosts: a tree, instead of one packet to each.
 *
 * All hosts put those of them that they believe alive in one order, by a hash of their numbers: the ring. The origin of a change
 * is number 0, who follows it 1 and so on; the children of number i are the numbers w * i + 1 to w * i + w. So everybody knows
 * its children without being told, each origin has other inner hosts, and nothing about the tree is kept. Where views differ,
 * some host gets a packet twice or not at all: the latter is what the digest is for.
 *
 * A relay packet is a batch, forwarded as it is, once, by whoever has what is in it. Each hop is acknowledged ("I took over as
 * far as this"), repeated like a direct push, and after PUSH_TRIES the silent child's children become our own. Some time after a
 * host has learned something, it tells two others at random where the shard stands: who is behind pulls. One that pulled before
 * a repetition came has its children to serve nevertheless.
 *
 * At the limit of hops on their way, or of the token bucket, an origin waits, while a relay does not forward: anti-entropy has it
 * then. */
#include "gossip/core_internal.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

struct tree_packet {
	unsigned refs;
	uint32_t origin, epoch;
	uint64_t topic, from, to;
	bool last; /* of its shard: no part of a burst */
	struct proto_packet packet;
};

struct tree_hop {
	struct tree_hop *next, *prev;
	struct tree_packet *p;
	struct member *m;
	unsigned index;
	uint64_t sent_ms;
	unsigned tries;
};

/* ---- the ring ---- */

static uint64_t place(uint32_t hostno)
{
	static const uint8_t key[crypto_shorthash_KEYBYTES] = {1};
	uint8_t in[4], out[crypto_shorthash_BYTES];
	struct bytes_writer w;
	struct bytes_reader r;

	bw_init(&w, in, sizeof(in));
	bw_u32(&w, hostno);
	crypto_shorthash(out, in, w.len, key);
	br_init(&r, out, sizeof(out));
	return br_u64(&r);
}

static int compare_places(const void *a, const void *b)
{
	const struct member *const *x = a, *const *y = b;

	if ((*x)->ring_place != (*y)->ring_place)
		return (*x)->ring_place < (*y)->ring_place ? -1 : 1;
	return (*x)->hostno < (*y)->hostno ? -1 : (*x)->hostno > (*y)->hostno;
}

/* All members, sorted when there are new ones: a place follows from the number, who is in the ring is found later. */
static bool order_members(struct gossip *g)
{
	struct member **order;

	if (g->tree_order_count == g->member_count)
		return true;
	order = realloc(g->tree_order, g->slot_capacity * sizeof(*order));
	if (!order)
		return false;
	g->tree_order = order;
	for (unsigned i = g->tree_order_count; i < g->member_count; i++) {
		g->slots[i]->ring_place = place(g->slots[i]->hostno);
		order[i] = g->slots[i];
	}
	g->tree_order_count = g->member_count;
	qsort(order, g->member_count, sizeof(*order), compare_places);
	return true;
}

static bool takes_part(struct gossip *g, struct member *m, struct topic *topic)
{
	if (m == g->self)
		return topic_for_all(topic->topic) || topic->wanted;
	return member_usable(g, m) && !m->unheard && interest_has(g, m, topic);
}

/* The ring of a topic. NULL when there is no memory for it: nothing is sent then, and anti-entropy does the work. */
static const struct tree_ring *ring_of(struct gossip *g, struct topic *topic)
{
	struct tree_ring *ring = topic_for_all(topic->topic) ? &g->tree_ring : &topic->interest.ring;

	if (ring->at && ring->members == g->member_shape && ring->subscribers == topic->interest.shape)
		return ring;
	if (!order_members(g))
		return NULL;
	if (!ring->at || ring->capacity < g->member_count) {
		struct member **at = realloc(ring->at, g->slot_capacity * sizeof(*at));

		if (!at)
			return NULL;
		ring->at = at;
		ring->capacity = g->slot_capacity;
	}
	ring->count = 0;
	for (unsigned i = 0; i < g->member_count; i++)
		if (takes_part(g, g->tree_order[i], topic))
			ring->at[ring->count++] = g->tree_order[i];
	ring->members = g->member_shape;
	ring->subscribers = topic->interest.shape;
	return ring;
}

/* How many of the ring stand before it; *ret_in: it is in the ring itself. */
static unsigned ring_place(const struct tree_ring *ring, const struct member *m, bool *ret_in)
{
	unsigned lo = 0, hi = ring->count;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (compare_places(&ring->at[mid], &m) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	*ret_in = lo < ring->count && ring->at[lo] == m;
	return lo;
}

/* An origin that has left the topic is number 0 nevertheless. */
static unsigned tree_size(const struct tree_ring *ring, const struct member *origin)
{
	bool in;

	ring_place(ring, origin, &in);
	return ring->count + !in;
}

static struct member *at_number(const struct tree_ring *ring, const struct member *origin, unsigned number)
{
	bool in;
	unsigned start = ring_place(ring, origin, &in);

	return ring->at[(start + number - !in) % ring->count];
}

static unsigned number_of(const struct tree_ring *ring, const struct member *origin, const struct member *m)
{
	bool in, m_in;
	unsigned start = ring_place(ring, origin, &in), place = ring_place(ring, m, &m_in);

	return (place + ring->count - start) % ring->count + !in;
}

bool tree_grown(const struct gossip *g)
{
	return g->state_count[GOSSIP_ALIVE] + g->state_count[GOSSIP_SUSPECT] > TREE_ABOVE;
}

bool tree_carries(struct gossip *g, struct topic *topic)
{
	const struct tree_ring *ring;

	if (!tree_grown(g) || topic_for_all(topic->topic))
		return tree_grown(g);
	if (interest_count(g, topic) < TREE_ABOVE)
		return false;
	ring = ring_of(g, topic);
	return !ring || tree_size(ring, g->self) > TREE_ABOVE;
}

static unsigned width(unsigned size)
{
	return size <= TREE_WIDE_MAX ? TREE_WIDE : TREE_NARROW;
}

/* ---- hops ---- */

static void release(struct tree_packet *p)
{
	if (--p->refs == 0)
		free(p);
}

static void drop_hop(struct gossip *g, struct tree_hop *hop)
{
	DL_DELETE(g->hops, hop);
	g->hop_count--;
	release(hop->p);
	free(hop);
}

static void send_hop(struct gossip *g, struct tree_hop *hop)
{
	hop->sent_ms = g->now;
	g->counters.pushes++;
	core_send(g, hop->m, FRAME_CLASS_PUSH, &hop->p->packet);
}

/* RFC 6298's timeout, or three round trips, and at least HOP_RTO_MS. A relay is acknowledged at once; what the ack takes beyond
 * the round trip is what either end is late, and when we are ourselves (gossip_health), we wait longer. Of 852 relays among 72
 * daemons on two busy cores none was repeated. Whom we never pinged is taken for as far away as the others. */
static uint64_t hop_due(const struct gossip *g, const struct tree_hop *hop)
{
	bool pinged = hop->m->srtt_us > 0;
	uint64_t srtt_us = pinged ? hop->m->srtt_us : g->srtt_us, rttvar_us = pinged ? hop->m->rttvar_us : g->rttvar_us;
	uint64_t rto = (srtt_us + (rttvar_us > srtt_us / 2 ? 4 * rttvar_us : 2 * srtt_us)) / 1000;
	uint64_t least = srtt_us > 0 ? HOP_RTO_MS : PUSH_RTO_MS;

	return hop->sent_ms + ((rto > least ? rto : least) * (1 + g->measured) << hop->tries);
}

static void add_hop(struct gossip *g, struct tree_packet *p, unsigned index, struct member *m)
{
	struct tree_hop *hop;

	if (g->hop_count >= TREE_HOPS_MAX || (!p->last && !push_afford_relay(g)) || !(hop = calloc(1, sizeof(*hop))))
		return;
	*hop = (struct tree_hop){.p = p, .m = m, .index = index};
	p->refs++;
	DL_APPEND(g->hops, hop);
	g->hop_count++;
	send_hop(g, hop);
	sooner(&g->tree_ms, hop_due(g, hop));
}

/* To the children of number `index`. A newcomer that is about to be served gets it with all the rest, and serves nobody yet. */
static void spread(struct gossip *g, struct tree_packet *p, unsigned index)
{
	const struct member *origin = members_find(g, p->origin);
	struct topic *topic = shards_topic(&g->shards, p->topic);
	const struct tree_ring *ring = topic ? ring_of(g, topic) : NULL;
	unsigned size = origin && ring ? tree_size(ring, origin) : 0;
	uint64_t first = (uint64_t)index * width(size) + 1;

	for (uint64_t i = first; i < first + width(size) && i < size; i++) {
		struct member *m = at_number(ring, origin, (unsigned)i);

		if (bulk_expects(g, m))
			spread(g, p, (unsigned)i);
		else if (m != g->self)
			add_hop(g, p, (unsigned)i, m);
	}
}

static struct tree_packet *make_packet(const struct proto_batch *batch)
{
	struct tree_packet *p = calloc(1, sizeof(*p));

	if (p)
		*p = (struct tree_packet){.refs = 1,
			.origin = batch->origin,
			.epoch = batch->epoch,
			.topic = batch->topic,
			.to = batch->to,
			.last = batch->to == batch->head};
	return p;
}

/* ---- origin ---- */

static bool is_over(struct gossip *g)
{
	return g->hop_count >= TREE_OWN_HOPS_MAX || !push_afford(g) ||
	       (g->hop_count > 0 && g->now < g->tree_sent_ms + PUSH_COALESCE_MS);
}

static bool is_on_its_way(const struct gossip *g, const struct shard *shard)
{
	const struct tree_hop *hop;

	DL_FOREACH(g->hops, hop)
	if (hop->p->origin == g->self->hostno && hop->p->topic == shard->id.topic)
		return true;
	return false;
}

static struct tree_packet *own_packet(const struct shard *shard)
{
	const struct proto_batch batch = {
		.origin = shard->id.origin, .epoch = shard->epoch, .topic = shard->id.topic, .to = shard->pushed};
	struct tree_packet *p = make_packet(&batch);

	if (!p)
		return NULL;
	p->from = shard->pushed;
	p->to = shards_encode(shard, shard->pushed, false, 0, &p->packet);
	p->last = p->to == shard->head;
	if (p->to > p->from)
		proto_make_relay(&p->packet);
	return p;
}

/* Whether all of it is on its way. A burst waits for credit; what one packet holds does not wait for bursts of others. */
bool tree_push(struct gossip *g, struct shard *shard)
{
	if (shard->pushed < shard->floor)
		shard->pushed = shard->floor; /* who knows less pulls */
	while (shard->pushed < shard->head) {
		bool over = is_over(g), goes = !over || !is_on_its_way(g, shard);
		struct tree_packet *p = goes ? own_packet(shard) : NULL;

		if (goes && !p)
			return true;
		if (!goes || (over && !p->last)) {
			if (p)
				release(p);
			sooner(&g->tree_ms, g->now + PUSH_COALESCE_MS);
			return false;
		}
		goes = p->to > p->from;
		if (goes)
			spread(g, p, 0);
		shard->pushed = p->to;
		release(p);
		if (!goes)
			return true;
		if (shard->pushed == shard->head)
			g->tree_sent_ms = g->now;
	}
	return true;
}

/* In the name of a newcomer, which does not know its children yet. */
void tree_introduce(struct gossip *g, const struct shard *shard)
{
	struct proto_batch batch = {.origin = shard->id.origin, .epoch = shard->epoch, .topic = shard->id.topic};
	struct tree_packet *p = make_packet(&batch);

	if (!p)
		return;
	p->to = shards_encode(shard, 0, false, 0, &p->packet);
	if (p->to > 0) {
		proto_make_relay(&p->packet);
		spread(g, p, 0);
	}
	release(p);
}

/* ---- relay ---- */

static void remember_digest(struct gossip *g, const struct proto_batch *batch)
{
	for (unsigned i = 0; i < g->digest_count; i++)
		if (g->digests[i].topic == batch->topic && g->digests[i].origin == batch->origin)
			return;
	if (g->digest_count == TREE_DIGESTS)
		return;
	g->digests[g->digest_count++] = (struct tree_digest){.origin = batch->origin,
		.topic = batch->topic,
		.due_ms = g->now + TREE_DIGEST_MS + core_random(g, TREE_DIGEST_MS / 2)};
	sooner(&g->tree_ms, g->digests[g->digest_count - 1].due_ms);
}

static void acknowledge(struct gossip *g, struct member *m, const struct proto_batch *batch, bool not_passed_on)
{
	struct proto_packet packet = {0};
	struct proto_list list;
	const struct proto_head ack = {.origin = batch->origin,
		.topic = batch->topic,
		.epoch = batch->epoch,
		.head = batch->to,
		.settled = not_passed_on};

	proto_relay_ack_open(&list, &packet);
	proto_relay_ack_add(&list, &ack);
	if (proto_list_close(&list))
		core_send(g, m, FRAME_CLASS_PROBE, &packet);
}

/* Whether it is ours to pass on. What we have by another way our children may lack; what is repeated for want of an ack only,
 * they have of us. */
static bool take_over(struct gossip *g, const struct proto_batch *batch, enum shards_verdict verdict)
{
	struct shard *shard = shards_find(&g->shards, batch->origin, batch->topic);

	if (!shard || (verdict != SHARDS_APPLIED && (verdict != SHARDS_KNOWN || shard->pushed >= batch->to)))
		return false;
	if (shard->pushed < batch->to)
		shard->pushed = batch->to;
	return true;
}

bool tree_on_relay(struct gossip *g, struct member *m, struct bytes_reader *body, struct sync_answer *answer)
{
	const uint8_t *bytes = body->at;
	size_t len = br_left(body);
	enum shards_verdict verdict;
	const struct tree_ring *ring;
	struct proto_batch batch;
	struct tree_packet *p;
	struct member *origin;
	struct topic *topic;
	bool goes_round;

	if (!proto_get_batch(body, m->hostno, &batch) || batch.flags & (PROTO_BATCH_PUSH | PROTO_BATCH_MORE))
		return false;
	verdict = sync_on_batch(g, m, &batch, answer);
	goes_round = verdict == SHARDS_REFUSED || bulk_lacks_all(g);
	if (verdict != SHARDS_UNWANTED) /* else it finds others for its part of the tree when we have said nothing */
		acknowledge(g, m, &batch, goes_round);
	if (goes_round || batch.origin == g->self->hostno || !take_over(g, &batch, verdict))
		return true;
	remember_digest(g, &batch);
	origin = members_find(g, batch.origin);
	topic = shards_topic(&g->shards, batch.topic);
	ring = topic ? ring_of(g, topic) : NULL;
	if (!origin || !ring || ring->count == 0)
		return true;
	p = make_packet(&batch);
	if (p && proto_put_relay(&p->packet, bytes, len))
		spread(g, p, number_of(ring, origin, g->self));
	if (p)
		release(p);
	return true;
}

/* Our own changes of topic 0, admissions among them, without a gap behind what it is known to have. */
static void note_admissions(const struct gossip *g, struct member *m, const struct tree_packet *p)
{
	const struct shard *own = p->origin == g->self->hostno && p->topic == 0 ? shards_find(&g->shards, p->origin, 0) : NULL;
	uint64_t had = own ? push_admissions(own, m) : 0;

	if (own && p->from <= had && p->to > had)
		m->had_admissions = p->to;
}

/* Its children become ours. */
static void go_round(struct gossip *g, struct tree_hop *hop)
{
	struct tree_packet *p = hop->p;
	unsigned index = hop->index;

	p->refs++;
	drop_hop(g, hop);
	spread(g, p, index);
	release(p);
}

bool tree_on_ack(struct gossip *g, struct member *m, struct bytes_reader *body)
{
	struct proto_head ack;

	while (proto_get_head(body, &ack)) {
		struct tree_hop *hop, *next;

		DL_FOREACH_SAFE(g->hops, hop, next)
		{
			if (hop->m != m || hop->p->origin != ack.origin || hop->p->topic != ack.topic ||
				hop->p->epoch != ack.epoch || hop->p->to != ack.head)
				continue;
			if (ack.settled) {
				go_round(g, hop);
				continue;
			}
			note_admissions(g, m, hop->p);
			drop_hop(g, hop);
		}
	}
	return br_done(body);
}

/* ---- time ---- */

static void step_hop(struct gossip *g, struct tree_hop *hop)
{
	bool usable = member_usable(g, hop->m);

	if (usable && g->now < hop_due(g, hop))
		return;
	if (!usable || hop->tries + 1 >= PUSH_TRIES) {
		if (usable)
			probe_doubt(g, hop->m);
		go_round(g, hop);
		return;
	}
	g->counters.push_retries++;
	hop->tries++;
	send_hop(g, hop);
}

/* While a cluster grows its hosts do not agree who is whose child, and some are nobody's: of so many that each tells two others,
 * e to the power of -2 are told by nobody, of those that tell six one of 400. */
static unsigned digest_to(const struct gossip *g)
{
	return g->now < g->grew_ms + TREE_GREW_MS ? TREE_DIGEST_TO_MANY : TREE_DIGEST_TO;
}

static void step_digests(struct gossip *g)
{
	for (unsigned i = 0; i < g->digest_count;) {
		const struct tree_digest d = g->digests[i];
		const struct tree_ring *ring;
		const struct shard *shard;

		if (g->now < d.due_ms) {
			sooner(&g->tree_ms, d.due_ms);
			i++;
			continue;
		}
		g->digests[i] = g->digests[--g->digest_count];
		shard = shards_find(&g->shards, d.origin, d.topic);
		ring = shard && shard_current(shard) ? ring_of(g, shard->in) : NULL;
		for (unsigned n = 0; ring && n < digest_to(g) && ring->count > 1; n++) {
			struct member *m = ring->at[core_random(g, ring->count)];

			if (member_usable(g, m))
				sync_poke(g, m, shard);
		}
	}
}

uint64_t tree_tick(struct gossip *g)
{
	struct tree_hop *hop, *next;

	if (g->now < g->tree_ms)
		return g->tree_ms;
	g->tree_ms = NEVER;
	DL_FOREACH_SAFE(g->hops, hop, next)
	step_hop(g, hop);
	DL_FOREACH(g->hops, hop)
	sooner(&g->tree_ms, hop_due(g, hop));
	step_digests(g);
	push_flush(g);
	return g->tree_ms;
}

void tree_free(struct gossip *g)
{
	while (g->hops)
		drop_hop(g, g->hops);
	free(g->tree_order);
	free(g->tree_ring.at);
}

/* Anti-entropy: the safety net under the pushes, whose cost follows the difference.
 *
 * Two hosts compare what they share (interest.c), of topics that only subscribers keep as of those that all keep.
 *
 * Level 0: every ping and ack carries the root, 16 bytes over all those shards. Equal roots end it. A mismatch is looked at when
 * it lasts MISMATCH_MS (changes are on their way all the time), at once with a host that we have not been equal with since it or
 * we started. Level 1: where there are few shards, our version vector, shard by shard (topic, origin, epoch, head), cut into
 * ranges that fit a packet. The other side gives what we lack and pulls what it lacks, so that one side's vector repairs both.
 * Where there are many, what differs is found from a sketch (sync_sketch.c). Level 2: a pull names a shard and a head; the answer
 * is the tail behind it, or a listing (rule R4), PULL_PACKETS at a time.
 *
 * One vector at a time leaves each host: many peers differ for the same reason, and the first answer cures most of it.
 *
 * Who lacks much does not get it from everybody at once (sync_bulk.c). In clusters where each origin pushes to all, nearly
 * everything comes from its origin and comparison has little to do. */
#include "gossip/core_internal.h"
#include "gossip/sketch_internal.h"

#include <stdlib.h>
#include <string.h>

#define VECTOR_GAP_MS 50    /* between two vectors to different peers */
#define VECTOR_EVERY_MS 150 /* to the same peer */
#define PULL_EVERY_MS 100   /* of the same shard, from different peers */
#define RETRY_MS 200	    /* root asked again while unequal */
#define BEHIND_MS 1000	    /* root asked again of whom a push did not reach: nobody else may have a reason to compare */

static void send_root(struct gossip *g, struct member *m, bool want_reply)
{
	struct proto_packet packet = {0};
	struct proto_root root = {.want_reply = want_reply, .root = interest_root(g, m), .members = g->digest};

	proto_put_root(&packet, &root);
	core_send(g, m, FRAME_CLASS_SYNC, &packet);
}

void sync_ask(struct gossip *g, struct member *m)
{
	send_root(g, m, true);
}

void sync_reset(struct gossip *g, struct member *m)
{
	bulk_done(g, m);
	m->in_step = false;
	m->had_seq = m->had_admissions = 0;
	m->mismatch_ms = 0;
	m->vector_ms = 0;
	m->sync_ms = NEVER;
	member_due(g, &m->sync_ms, g->now + core_random(g, 10));
}

/* ---- level 1: vectors ---- */

static int compare_ids(uint64_t topic_a, uint32_t origin_a, uint64_t topic_b, uint32_t origin_b)
{
	if (topic_a != topic_b)
		return topic_a < topic_b ? -1 : 1;
	return origin_a < origin_b ? -1 : origin_a > origin_b;
}

static int compare_shards(const void *a, const void *b)
{
	const struct shard *const *x = a, *const *y = b;

	return compare_ids((*x)->id.topic, (*x)->id.origin, (*y)->id.topic, (*y)->id.origin);
}

/* The shards in order; rebuilt only when one came or went. */
bool sync_sort_shards(struct gossip *g)
{
	struct shard *shard, *next;
	size_t count = g->shards.shard_count;
	struct shard **sorted;

	if (g->sorted_shape == g->shards.shape && g->sorted)
		return true;
	sorted = realloc(g->sorted, (count + 1) * sizeof(*sorted));
	if (!sorted)
		return false;
	g->sorted = sorted;
	g->sorted_count = 0;
	SHARDS_EACH(&g->shards, shard, next)
	g->sorted[g->sorted_count++] = shard;
	qsort(g->sorted, g->sorted_count, sizeof(*g->sorted), compare_shards);
	g->sorted_shape = g->shards.shape;
	return true;
}

unsigned sync_shared_count(struct gossip *g, const struct member *m)
{
	unsigned count = 0;

	for (unsigned i = 0; i < g->sorted_count; i++)
		count += interest_shares(g, m, g->sorted[i]);
	return count;
}

void sync_head_of(const struct shard *shard, struct proto_head *ret_head)
{
	*ret_head = (struct proto_head){.origin = shard->id.origin,
		.topic = shard->id.topic,
		.epoch = shard->epoch,
		.head = shard->head,
		.settled = shard_says_settled(shard)};
}

/* In front of a newcomer's vector: that it is there, and that it lacks what the others have. */
static void say_what_we_are(struct gossip *g, struct proto_packet *packet)
{
	struct proto_list list;
	struct proto_entry entry;

	members_entry(g->self, &entry);
	proto_members_open(&list, packet, PROTO_MEMBERS_LACKS);
	proto_members_add(&list, &entry);
	proto_list_close(&list);
}

static void send_vector(struct gossip *g, struct member *m, bool begins)
{
	struct proto_range range = {.topic_hi = UINT64_MAX, .origin_hi = 0xffffff};
	struct proto_packet packet = {0};
	struct proto_list list;

	if (begins || bulk_lacks_all(g))
		say_what_we_are(g, &packet);
	if (!sync_sort_shards(g))
		return;
	m->vector_ms = g->now;
	g->vector_ms = g->now + VECTOR_GAP_MS;
	g->counters.syncs++;
	proto_vector_open(&list, &packet, &range);
	for (unsigned i = 0; i < g->sorted_count; i++) {
		struct proto_head head;

		if (!shard_current(g->sorted[i]) || !interest_shares(g, m, g->sorted[i]))
			continue;
		sync_head_of(g->sorted[i], &head);
		if (proto_vector_add(&list, &head))
			continue;
		/* This range ends just before the shard that did not fit, and the next begins with it. */
		range.topic_hi = head.topic;
		range.origin_hi = head.origin - 1;
		proto_vector_close_at(&list, &range);
		core_send(g, m, FRAME_CLASS_SYNC, &packet);
		packet.len = 0;
		range = (struct proto_range){
			.topic_lo = head.topic, .origin_lo = head.origin, .topic_hi = UINT64_MAX, .origin_hi = 0xffffff};
		proto_vector_open(&list, &packet, &range);
		i--;
	}
	proto_list_close(&list);
	core_send(g, m, FRAME_CLASS_SYNC, &packet);
}

/* Tells one peer where one shard stands, so that it pulls. */
void sync_poke(struct gossip *g, struct member *m, const struct shard *shard)
{
	struct proto_range range = {.topic_lo = shard->id.topic,
		.topic_hi = shard->id.topic,
		.origin_lo = shard->id.origin,
		.origin_hi = shard->id.origin};
	struct proto_packet packet = {0};
	struct proto_list list;
	struct proto_head head;

	sync_head_of(shard, &head);
	proto_vector_open(&list, &packet, &range);
	proto_vector_add(&list, &head);
	proto_list_close(&list);
	core_send(g, m, FRAME_CLASS_SYNC, &packet);
}

/* ---- level 0: roots ---- */

void sync_compare(struct gossip *g, struct member *m, u128 root)
{
	bool equal = root == interest_root(g, m);

	interest_compared(g, m, equal);
	if (equal) {
		m->in_step = true;
		m->behind = false;
		bulk_done(g, m);
		m->had_seq = g->shards.seq;
		m->mismatch_ms = 0;
		m->sync_ms = NEVER;
		return;
	}
	if (m->mismatch_ms == 0)
		m->mismatch_ms = g->now;
	/* In a big cluster a new host would hear of all its differences from everybody at once: it begins, the others wait. */
	if ((m->in_step || introduce_gives(g, m) || (g->settled && tree_grown(g))) && g->now < m->mismatch_ms + MISMATCH_MS &&
		!interest_is_new(g, m)) {
		member_due(g, &m->sync_ms, m->mismatch_ms + MISMATCH_MS);
		return;
	}
	if (g->now < rare_of(m)->busy_until_ms) {
		member_due(g, &m->sync_ms, rare_of(m)->busy_until_ms + core_random(g, 20));
		return;
	}
	if (g->now < g->vector_ms || (m->vector_ms != 0 && g->now < m->vector_ms + VECTOR_EVERY_MS)) {
		member_due(g, &m->sync_ms, (g->vector_ms > g->now ? g->vector_ms : g->now + VECTOR_GAP_MS) + core_random(g, 20));
		return;
	}
	m->sync_ms = NEVER;
	if (!sync_sort_shards(g))
		return;
	switch (sketch_begin(g, m)) {
	case SKETCH_NOT_HERE:
		send_vector(g, m, false);
		break;
	case SKETCH_BEGUN:
		m->vector_ms = g->now;
		g->vector_ms = g->now + VECTOR_GAP_MS;
		g->counters.syncs++;
		break;
	case SKETCH_BUSY:
		break;
	}
	member_due(g, &m->sync_ms, g->now + RETRY_MS);
}

/* A newcomer lacks everything: there is nothing to compare first. It says that it is there, and asks for all. */
void sync_begin(struct gossip *g, struct member *m)
{
	g->begun_with = m->hostno;
	m->in_step = false;
	m->had_seq = 0;
	m->mismatch_ms = g->now;
	m->sync_ms = NEVER;
	member_due(g, &m->sync_ms, g->now + MISMATCH_MS);
	send_vector(g, m, true);
}

void sync_on_root(struct gossip *g, struct member *m, const struct proto_root *root)
{
	if (root->want_reply)
		send_root(g, m, false);
	members_compare(g, m, root->members);
	if (!root->want_reply || root->root == interest_root(g, m))
		sync_compare(g, m, root->root);
}

/* ---- level 2: giving and pulling ---- */

/* Packets filled with batches for one peer. */
struct gift {
	struct gossip *g;
	struct member *m;
	struct proto_packet packet;
	unsigned packets;
	bool busy;	     /* it gets no more of us now */
	bool cut;	     /* there is more than it got, */
	bool dry;	     /* for want of credit */
	struct topic *topic; /* of the shard that is being given */
};

static void hand_over(struct gift *gift)
{
	if (gift->packet.len == 0)
		return;
	gift->packets++;
	signed_add(gift->g, &gift->packet);
	core_send(gift->g, gift->m, FRAME_CLASS_SYNC, &gift->packet);
	gift->packet.len = 0;
}

static bool room_for(struct gift *gift)
{
	gift->dry |= !bulk_afford(gift->g, gift->m);
	if (gift->packets >= ANSWER_PACKETS || gift->busy || gift->dry)
		return false;
	gift->busy = (bulk_bare(gift->m) || gift->packets >= BULK_FREE_PACKETS) && !bulk_place(gift->g, gift->m);
	return !gift->busy;
}

static void end_gift(struct gift *gift)
{
	hand_over(gift);
	if (gift->busy)
		bulk_busy(gift->g, gift->m, gift->topic);
	else if (!gift->cut)
		bulk_served(gift->g, gift->m);
	else if (gift->dry)
		bulk_cut_short(gift->g, gift->m);
}

/* The shard after `from`. Each piece is flagged MORE unless it reaches the head: the peer pulls on when the last of them arrives,
 * and knows it for the last by its own progress. */
static void give(struct gift *gift, const struct shard *shard, uint64_t from, bool listing)
{
	unsigned limit = gift->packets + PULL_PACKETS;

	if (!gift->busy)
		gift->topic = shard->in;
	if (from < shard->floor && !listing) {
		listing = true;
		from = 0;
	}
	while (from < shard->head && gift->packets < limit && room_for(gift)) {
		bool last = gift->packets + 1 >= limit || gift->packets + 1 >= ANSWER_PACKETS;
		uint64_t to = shards_encode(shard, from, listing, last ? PROTO_BATCH_MORE : 0, &gift->packet);

		if (to == from && gift->packet.len == 0)
			return;
		if (to == from)
			hand_over(gift);
		else
			from = to;
	}
	gift->cut |= from < shard->head;
}

static struct shard *first_in(const struct gossip *g, const struct proto_range *range, unsigned *ret_index)
{
	unsigned lo = 0, hi = g->sorted_count;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;
		const struct shard *shard = g->sorted[mid];

		if (compare_ids(shard->id.topic, shard->id.origin, range->topic_lo, range->origin_lo) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	*ret_index = lo;
	return lo < g->sorted_count ? g->sorted[lo] : NULL;
}

struct comparison {
	struct gossip *g;
	struct member *m;
	struct gift gift;
	struct proto_packet pulls;
	struct proto_list pull_list;
	unsigned pull_count;
	bool lists_differ; /* what one of the two keeps may not be known to the other */
};

static bool ran_into_a_limit(const struct gossip *g, const struct shard *shard)
{
	uint64_t refused_ms = shard_rare_of(shard)->refused_ms;

	return refused_ms != 0 && g->now < refused_ms + SHARDS_REFUSED_MS;
}

/* Many peers offer the same shard at once when we are new: one is asked. */
static void want(struct comparison *c, struct shard *shard, const struct proto_pull *pull)
{
	if (shard && (c->g->now < shard->pulled_ms + PULL_EVERY_MS || ran_into_a_limit(c->g, shard)))
		return;
	if (!proto_pull_add(&c->pull_list, pull))
		return;
	c->pull_count++;
	if (shard)
		shard->pulled_ms = c->g->now;
}

/* Equal heads: the one who knows that the origin is settled says so. */
static void compare_settled(struct comparison *c, const struct proto_head *theirs, struct shard *ours)
{
	if (theirs->settled == ours->settled)
		return;
	if (ours->settled)
		sync_poke(c->g, c->m, ours);
	else if (theirs->origin != c->g->self->hostno)
		shards_confirm_settled(&c->g->shards, ours);
}

/* The peer's copy of a shard of ours. More than we made ourselves means that we were set back to an older state, or have a clone.
 */
static void compare_own(struct comparison *c, const struct proto_head *theirs, struct shard *ours)
{
	struct gossip *g = c->g;

	if (theirs->epoch > g->self->epoch ||
		(theirs->epoch == g->self->epoch && theirs->head > (ours ? ours->head : g->shards.seq))) {
		g->conflicts++;
		core_raise_epoch(g, theirs->epoch + (theirs->epoch < UINT32_MAX), theirs->head);
		return;
	}
	if (!ours) {
		if (theirs->epoch != g->self->epoch)
			return;
		core_reserve_seq(g);
		ours = shards_adopt(&g->shards, theirs->topic);
		if (!ours)
			return;
		if (g->settled)
			shards_confirm_settled(&g->shards, ours);
		push_changed(g, ours);
	}
	if (theirs->topic == 0 && theirs->epoch == ours->epoch && theirs->head > c->m->had_admissions)
		c->m->had_admissions = theirs->head;
	if (theirs->epoch == ours->epoch && theirs->head == ours->head)
		compare_settled(c, theirs, ours);
	if (tree_carries(g, ours->in) || !interest_has(g, c->m, ours->in))
		give(&c->gift, ours, theirs->epoch < ours->epoch ? 0 : theirs->head, false);
	else if (theirs->epoch < ours->epoch)
		push_acked(g, c->m, ours, 0, true);
	else
		push_acked(g, c->m, ours, theirs->head < ours->head ? theirs->head : ours->head, true);
}

static void note_lists(struct comparison *c, const struct proto_head *theirs, const struct shard *ours)
{
	if (theirs->topic == 0 && (theirs->origin == c->m->hostno || theirs->origin == c->g->self->hostno))
		c->lists_differ |= !ours || ours->epoch != theirs->epoch || ours->head != theirs->head;
}

/* The peer has this of one shard; what do we have of it? */
static void compare_entry(struct comparison *c, const struct proto_head *theirs)
{
	struct gossip *g = c->g;
	struct origin *origin = shards_origin(&g->shards, theirs->origin);
	struct shard *ours = shards_find(&g->shards, theirs->origin, theirs->topic);
	struct proto_pull pull = {.after = *theirs};

	note_lists(c, theirs, ours);
	if (theirs->origin == g->self->hostno) {
		compare_own(c, theirs, ours);
		return;
	}
	if (!shards_keeps(&g->shards, theirs->topic))
		return;
	if (origin && (origin->refused || theirs->epoch < origin->epoch)) {
		if (ours && shard_current(ours))
			give(&c->gift, ours, 0, false);
		return;
	}
	if (ours && ours->epoch == theirs->epoch)
		shards_offered(&g->shards, ours);
	if (!ours || ours->epoch < theirs->epoch) {
		pull.after.head = 0;
		want(c, ours ? ours : shards_make(&g->shards, theirs->origin, theirs->topic, theirs->epoch, g->now), &pull);
	} else if (ours->head < theirs->head) {
		shards_pull(ours, &pull);
		want(c, ours, &pull);
	} else if (ours->head > theirs->head) {
		give(&c->gift, ours, theirs->head, false);
	} else {
		compare_settled(c, theirs, ours);
	}
}

static void peer_lacks(struct comparison *c, struct shard *ours)
{
	if (!shard_current(ours) || ours->id.origin == c->m->hostno || introduce_waits(c->g, ours->id.origin) ||
		!interest_shares(c->g, c->m, ours) || (c->lists_differ && !topic_for_all(ours->id.topic)))
		return;
	if (ours->id.origin == c->g->self->hostno && !tree_carries(c->g, ours->in))
		push_acked(c->g, c->m, ours, 0, true);
	else
		give(&c->gift, ours, 0, false);
}

static void finish_comparison(struct comparison *c)
{
	end_gift(&c->gift);
	if (c->pull_count > 0 && proto_list_close(&c->pull_list))
		core_send(c->g, c->m, FRAME_CLASS_SYNC, &c->pulls);
}

static bool is_paired(const struct sketch_found *found, uint32_t count, const struct proto_head *head)
{
	for (uint32_t i = 0; i < count; i++)
		if (found[i].theirs && found[i].head.topic == head->topic && found[i].head.origin == head->origin)
			return true;
	return false;
}

void sync_difference(struct gossip *g, struct member *m, const struct sketch_found *found, uint32_t count)
{
	struct comparison c = {.g = g, .m = m, .gift = {.g = g, .m = m}};

	proto_pull_open(&c.pull_list, &c.pulls);
	for (uint32_t i = 0; i < count; i++)
		if (found[i].head.topic == 0 && (found[i].head.origin == m->hostno || found[i].head.origin == g->self->hostno))
			c.lists_differ = true;
	for (uint32_t i = 0; i < count; i++) {
		struct shard *ours;

		if (found[i].theirs) {
			compare_entry(&c, &found[i].head);
			continue;
		}
		ours = shards_find(&g->shards, found[i].head.origin, found[i].head.topic);
		if (ours && !is_paired(found, count, &found[i].head))
			peer_lacks(&c, ours);
	}
	finish_comparison(&c);
}

/* Walks both sides' sorted lists over the range of the packet. */
bool sync_on_vector(struct gossip *g, struct member *m, struct bytes_reader *body)
{
	struct comparison c = {.g = g, .m = m, .gift = {.g = g, .m = m}};
	struct proto_range range;
	struct proto_head theirs;
	unsigned i;

	if (!proto_get_range(body, &range))
		return false;
	if (!sync_sort_shards(g))
		return true;
	bulk_asks(g, m);
	proto_pull_open(&c.pull_list, &c.pulls);
	first_in(g, &range, &i);
	while (proto_get_head(body, &theirs)) {
		for (; i < g->sorted_count; i++) {
			struct shard *ours = g->sorted[i];
			int order = compare_ids(ours->id.topic, ours->id.origin, theirs.topic, theirs.origin);

			if (order == 0)
				i++;
			if (order >= 0)
				break;
			peer_lacks(&c, ours);
		}
		compare_entry(&c, &theirs);
	}
	for (; i < g->sorted_count &&
		compare_ids(g->sorted[i]->id.topic, g->sorted[i]->id.origin, range.topic_hi, range.origin_hi) <= 0;
		i++)
		peer_lacks(&c, g->sorted[i]);
	finish_comparison(&c);
	return br_done(body);
}

bool sync_on_pull(struct gossip *g, struct member *m, struct bytes_reader *body)
{
	struct gift gift = {.g = g, .m = m};
	struct proto_pull pull;

	while (proto_get_pull(body, &pull)) {
		struct shard *shard = shards_find(&g->shards, pull.after.origin, pull.after.topic);
		bool same;

		if (!shard || !shard_current(shard) || shard->epoch < pull.after.epoch)
			continue;
		same = shard->epoch == pull.after.epoch;
		give(&gift, shard, same ? pull.after.head : 0, same && (pull.flags & PROTO_PULL_LISTING));
	}
	end_gift(&gift);
	return br_done(body);
}

/* ---- batches ---- */

void sync_answer_open(struct sync_answer *answer)
{
	answer->pulls.len = 0;
	answer->pull_count = 0;
	answer->pushed = false;
	proto_pull_open(&answer->pull_list, &answer->pulls);
}

static void pull_more(struct gossip *g, struct sync_answer *answer, const struct proto_batch *batch)
{
	struct shard *shard = shards_find(&g->shards, batch->origin, batch->topic);
	struct proto_pull pull;

	if (!shard)
		return;
	shards_pull(shard, &pull);
	/* Who has it by another way meanwhile asks once more: so the one that serves it knows. */
	if ((pull.after.head >= batch->head && !(bulk_lacks_all(g) && batch->flags & PROTO_BATCH_MORE)) ||
		ran_into_a_limit(g, shard) || !proto_pull_add(&answer->pull_list, &pull))
		return;
	answer->pull_count++;
	shard->pulled_ms = g->now;
}

/* In a tree, what comes after a gap is the first sign of it. */
static bool lags(const struct gossip *g, const struct proto_batch *batch)
{
	const struct shard *shard = tree_grown(g) ? shards_find(&g->shards, batch->origin, batch->topic) : NULL;

	return shard && batch->origin != g->self->hostno && shard->epoch == batch->epoch && shard->head < batch->to &&
	       g->now >= shard->pulled_ms + PULL_EVERY_MS;
}

enum shards_verdict sync_on_batch(struct gossip *g, struct member *m, const struct proto_batch *batch, struct sync_answer *answer)
{
	enum shards_verdict verdict;
	const struct shard *shard;

	if (!members_find(g, batch->origin) && g->member_count >= GOSSIP_MEMBERS_MAX)
		return SHARDS_REFUSED;
	verdict = shards_apply(&g->shards, batch, g->now);
	if (verdict == SHARDS_UNWANTED)
		return verdict;
	if (verdict == SHARDS_OURS) {
		g->conflicts++;
		core_raise_epoch(g, batch->epoch + (batch->epoch < UINT32_MAX), batch->to);
	}
	if (verdict == SHARDS_GAP || batch->flags & PROTO_BATCH_MORE || lags(g, batch))
		pull_more(g, answer, batch);
	shard = shards_find(&g->shards, batch->origin, batch->topic);
	if (shard && verdict == SHARDS_APPLIED)
		interest_changed(g, shard->in);
	if (shard && shard->head >= batch->head && m->hostno == g->begun_with)
		sooner(&g->lacks_until_ms, g->now + LACKS_TABLE_MS);
	if (!(batch->flags & PROTO_BATCH_PUSH)) {
		if (verdict == SHARDS_APPLIED && (m->mismatch_ms != 0 || !m->in_step))
			member_due(g, &m->sync_ms, g->now + 20);
		return verdict;
	}
	push_owe(g, m, batch);
	answer->pushed = true;
	return verdict;
}

void sync_answer_send(struct gossip *g, struct member *m, struct sync_answer *answer)
{
	if (answer->pushed)
		push_owe_packet(g, m);
	if (answer->pull_count > 0 && proto_list_close(&answer->pull_list))
		core_send(g, m, FRAME_CLASS_SYNC, &answer->pulls);
}

/* ---- level 3: audit ---- */

/* Equal heads mean equal records, unless memory or code failed. So each host tells the others in turn, each about once an hour,
 * the sums of its own shards; a copy whose sum is another is listed anew, and counted: it must not happen. */
static void send_audit(struct gossip *g, struct member *m)
{
	struct proto_packet packet = {0};
	struct proto_list list;
	bool any = false;

	if (!sync_sort_shards(g))
		return;
	proto_audit_open(&list, &packet);
	for (unsigned i = 0; i < g->sorted_count; i++) {
		const struct shard *shard = g->sorted[(g->audit_at + i) % g->sorted_count];
		struct proto_head head;
		uint64_t sum;

		if (shard->id.origin != g->self->hostno || !interest_shares(g, m, shard) || !shards_sum(shard, &sum))
			continue;
		sync_head_of(shard, &head);
		if (!proto_audit_add(&list, &head, sum)) {
			g->audit_at = (g->audit_at + i) % g->sorted_count; /* the next one begins with it */
			break;
		}
		any = true;
	}
	if (any && proto_list_close(&list))
		core_send(g, m, FRAME_CLASS_SYNC, &packet);
}

bool sync_on_audit(struct gossip *g, struct member *m, struct bytes_reader *body)
{
	struct proto_packet pulls = {0};
	struct proto_list list;
	struct proto_head head;
	uint64_t theirs, ours;
	unsigned count = 0;

	proto_pull_open(&list, &pulls);
	while (proto_get_audit(body, &head, &theirs)) {
		struct shard *shard = shards_find(&g->shards, m->hostno, head.topic);
		struct proto_pull pull;

		if (!shard || shard->epoch != head.epoch || shard->head != head.head || !shards_sum(shard, &ours))
			continue;
		g->counters.audits++;
		if (ours == theirs)
			continue;
		g->counters.audits_failed++;
		shards_relist(shard, &pull);
		count += proto_pull_add(&list, &pull);
	}
	if (count > 0 && proto_list_close(&list))
		core_send(g, m, FRAME_CLASS_SYNC, &pulls);
	return br_done(body);
}

static void step_audit(struct gossip *g)
{
	struct member *m;
	uint64_t gap = AUDIT_MS / g->member_count;

	if (g->now < g->audit_ms)
		return;
	g->audit_ms = g->now + (gap > AUDIT_GAP_MS ? gap : AUDIT_GAP_MS);
	m = g->slots[g->audit_slot++ % g->member_count];
	if (g->settled && member_usable(g, m) && m->in_step)
		send_audit(g, m);
}

/* ---- the list of all own shards ---- */

/* Sent when we are settled (R5): what others still hold of us from an earlier life goes. */
void sync_heads(struct gossip *g, struct member *m)
{
	struct proto_heads heads = {.epoch = g->self->epoch, .seq = g->shards.seq, .topic_hi = UINT64_MAX};
	struct proto_packet packet = {0};
	struct proto_list list;

	if (!sync_sort_shards(g))
		return;
	proto_heads_open(&list, &packet, &heads);
	for (unsigned i = 0; i < g->sorted_count; i++) {
		const struct shard *shard = g->sorted[i];

		if (shard->id.origin != g->self->hostno || shard->head == 0)
			continue;
		if (proto_heads_add(&list, shard->id.topic, shard->head))
			continue;
		proto_heads_close_at(&list, shard->id.topic - 1);
		core_send(g, m, FRAME_CLASS_SYNC, &packet);
		packet.len = 0;
		heads.topic_lo = shard->id.topic;
		proto_heads_open(&list, &packet, &heads);
		i--;
	}
	proto_list_close(&list);
	core_send(g, m, FRAME_CLASS_SYNC, &packet);
}

#define HEADS_MAX 128 /* entries of one packet: (1,167 - 18) / 9, or fewer */

struct named {
	unsigned count;
	uint64_t topic[HEADS_MAX], head[HEADS_MAX];
};

static bool is_named(void *ctx, uint64_t topic, uint64_t *ret_head)
{
	const struct named *named = ctx;

	for (unsigned i = 0; i < named->count; i++) {
		if (named->topic[i] == topic) {
			*ret_head = named->head[i];
			return true;
		}
	}
	return false;
}

bool sync_on_heads(struct gossip *g, struct member *m, struct bytes_reader *body)
{
	struct named named = {0};
	struct proto_heads heads;
	uint64_t topic, head;

	if (!proto_get_heads_open(body, &heads))
		return false;
	while (proto_get_heads_entry(body, &topic, &head)) {
		if (named.count == HEADS_MAX)
			return false;
		named.topic[named.count] = topic;
		named.head[named.count++] = head;
	}
	if (!br_done(body))
		return false;
	shards_settle(&g->shards,
		&(struct shards_settled){.hostno = m->hostno,
			.epoch = heads.epoch,
			.seq = heads.seq,
			.topic_lo = heads.topic_lo,
			.topic_hi = heads.topic_hi,
			.has = is_named,
			.ctx = &named},
		g->now);
	return true;
}

static void step_heads(struct gossip *g)
{
	if (g->now < g->heads_ms)
		return;
	if (!g->settled) {
		g->settled = true;
		shards_settle_own(&g->shards);
	}
	for (unsigned i = 0; i < g->member_count; i++)
		if (member_usable(g, g->slots[i]) && !g->slots[i]->unheard)
			sync_heads(g, g->slots[i]);
	g->heads_ms = g->heads_left-- > 1 ? g->now + SETTLE_MS : NEVER;
}

uint64_t sync_tick(struct gossip *g, bool members_due)
{
	uint64_t next;

	step_heads(g);
	step_audit(g);
	if (g->now >= g->shards_ms) {
		shards_tick(&g->shards, g->now);
		g->shards_ms = g->now + SHARDS_TICK_MS;
	}
	next = bulk_tick(g);
	sooner(&next, g->heads_ms); /* the others go along with the next probe */
	for (unsigned i = 0; members_due && i < g->member_count; i++) {
		struct member *m = g->slots[i];

		if (g->now >= m->sync_ms) {
			m->sync_ms = !m->in_step || m->mismatch_ms ? g->now + RETRY_MS : m->behind ? g->now + BEHIND_MS : NEVER;
			if (member_usable(g, m) && !m->unheard)
				send_root(g, m, true);
			else
				m->sync_ms = NEVER;
		}
		sooner(&g->member_due_ms, m->sync_ms);
	}
	return next;
}

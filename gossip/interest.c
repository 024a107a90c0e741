/* Interest: which hosts keep the records of which topics.
 *
 * Topics without GOSSIP_TOPIC_SUBSCRIBED are kept by all. Of the others a host keeps what it subscribes to, and says so in
 * records of topic 0 (INTEREST_KEY and a number, each with up to INTEREST_TOPICS of them in order). So who subscribes is known
 * wherever topic 0 is, by its rules, and needs no messages of its own.
 *
 * A host *holds* a shard if it keeps the topic or is the origin. What two hosts both hold they *share*: that is what the one
 * pushes to the other, and what their roots are sums of. Each computes it from the other's list. While the two have different
 * ideas of a list their roots differ, topic 0 differs between them too, and comparing repairs that first (sync.c).
 *
 * For the topics that concern this host (it subscribes, or has a shard of its own) a bit for each member is kept, brought up to
 * date when a member's list changes; for all others nothing. The own shards of a topic that was left stay: empty, and with a head
 * by which co-subscribers learn that they are.
 *
 * Members that meet by probing rarely share a network in a big cluster, so each host compares with a co-subscriber of its own
 * accord when none has compared with it for a while: soon while a topic changes, and at once when it has just subscribed. */
#include "gossip/core_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define INTEREST_VERSION 1
#define INTEREST_TOPICS 127 /* of one record */
#define INTEREST_RECORDS 256
#define FIRST_MS 30	   /* from subscribing to the first comparison: what comes straight from its origins is there then */
#define FIRST_AGAIN_MS 300 /* while we have not been equal with any */
#define FRESH_MS 5000	   /* without patience for what is on its way */
#define CHANGING_MS 5000   /* a topic is lively so long after a change */
#define LIVELY_MS 1500	   /* between comparisons while it is; probes count: where all share it, one a second */
#define QUIET_MS 10000
#define NEXT_MS 1000 /* from one topic to the next, when several are due */

/* ---- bits ---- */

static bool has_bit(const struct interest *i, unsigned slot)
{
	return slot / 64 < i->words && (i->subscribers[slot / 64] >> slot % 64 & 1) != 0;
}

static bool set_bit(struct gossip *g, struct interest *i, unsigned slot, bool on)
{
	if (slot / 64 >= i->words) {
		unsigned words = g->slot_capacity / 64 + 1;
		uint64_t *bits = on ? realloc(i->subscribers, words * sizeof(*bits)) : NULL;

		if (!bits)
			return false;
		memset(bits + i->words, 0, (words - i->words) * sizeof(*bits));
		i->subscribers = bits;
		i->words = words;
	}
	if (has_bit(i, slot) == on)
		return false;
	i->subscribers[slot / 64] ^= (uint64_t)1 << slot % 64;
	i->count += on ? 1 : -1u;
	i->shape++;
	return true;
}

/* ---- what members say ---- */

/* The topics of one record, one after the other. False: there is no such record, or none that we can read. */
static bool open_list(const struct gossip *g, const struct member *m, unsigned number, struct bytes_reader *r)
{
	const struct shard *shard = shards_find(&g->shards, m->hostno, 0);
	const uint8_t key[] = {INTEREST_KEY, (uint8_t)number};
	const struct record *record = shard ? shards_record(shard, &g->shards, key, sizeof(key)) : NULL;

	if (!record)
		return false;
	br_init(r, record_val(record), record->val_len);
	return br_u8(r) == INTEREST_VERSION;
}

static bool next_topic(struct bytes_reader *r, uint64_t *ret_topic)
{
	if (br_left(r) < sizeof(*ret_topic))
		return false;
	*ret_topic = br_u64(r);
	return true;
}

static bool lists(const struct gossip *g, const struct member *m, uint64_t wanted)
{
	struct bytes_reader r;
	uint64_t topic;

	for (unsigned i = 0; i < INTEREST_RECORDS && open_list(g, m, i, &r); i++)
		while (next_topic(&r, &topic))
			if (topic == wanted)
				return true;
	return false;
}

/* Notes which of our topics its list names: their `named_in` is the number that is returned. */
static uint64_t read_list(struct gossip *g, const struct member *m)
{
	uint64_t topic, reading = ++g->readings;
	struct bytes_reader r;

	for (unsigned i = 0; i < INTEREST_RECORDS && open_list(g, m, i, &r); i++) {
		while (next_topic(&r, &topic)) {
			struct topic *ours = topic_for_all(topic) ? NULL : shards_topic(&g->shards, topic);

			if (ours)
				ours->interest.named_in = reading;
		}
	}
	return reading;
}

/* It gets what we have there ourselves, all of it: whatever it had of an earlier time is gone. */
static void begins(struct gossip *g, struct member *m, const struct topic *topic)
{
	struct shard *shard = shards_find(&g->shards, g->self->hostno, topic->topic);

	if (!shard)
		return;
	push_begin(shard, m);
	member_due(g, &m->push_ms, g->now);
}

void interest_member(struct gossip *g, struct member *m)
{
	uint64_t reading;
	struct topic *topic, *tmp;

	if (m == g->self)
		return;
	reading = read_list(g, m);
	HASH_ITER(hh, g->shards.topics, topic, tmp)
	{
		bool named = topic->interest.named_in == reading;

		if (!topic->interest.looked || !set_bit(g, &topic->interest, m->slot, named) || !named)
			continue;
		begins(g, m, topic);
		sooner(&g->interest_ms, g->now + LIVELY_MS);
	}
}

void interest_record(struct gossip *g, uint32_t origin)
{
	struct member *m = members_find(g, origin);

	if (m)
		interest_member(g, m);
}

/* A topic that concerns us from now on. */
static struct interest *look(struct gossip *g, struct topic *topic)
{
	struct interest *i = &topic->interest;

	if (i->looked)
		return i;
	i->looked = true;
	for (unsigned n = 0; n < g->member_count; n++)
		if (g->slots[n] != g->self && lists(g, g->slots[n], topic->topic))
			set_bit(g, i, n, true);
	return i;
}

/* ---- what follows ---- */

bool interest_has(struct gossip *g, const struct member *m, struct topic *topic)
{
	return topic_for_all(topic->topic) || has_bit(look(g, topic), m->slot);
}

bool interest_shares(struct gossip *g, const struct member *m, const struct shard *shard)
{
	return shard->id.origin == m->hostno || interest_has(g, m, shard->in);
}

unsigned interest_count(struct gossip *g, struct topic *topic)
{
	return look(g, topic)->count;
}

u128 interest_root(struct gossip *g, const struct member *m)
{
	const struct origin *origin = shards_origin(&g->shards, m->hostno);
	struct topic *topic, *tmp;
	u128 root = g->shards.root;

	HASH_ITER(hh, g->shards.topics, topic, tmp)
	if (!topic_for_all(topic->topic) && interest_has(g, m, topic))
		root += topic->root;
	for (const struct shard *shard = origin ? origin->shards : NULL; shard; shard = shard->next_of_origin)
		if (!interest_has(g, m, shard->in))
			root += shard->root; /* it has left a topic of ours: only of its own shard we both know */
	return root;
}

void interest_changed(struct gossip *g, struct topic *topic)
{
	topic->interest.changed_ms = g->now;
	if (topic->wanted)
		sooner(&g->interest_ms, g->now + LIVELY_MS);
}

/* Roots were compared, by a probe or otherwise. */
void interest_compared(struct gossip *g, const struct member *m, bool equal)
{
	struct topic *topic, *tmp;

	HASH_ITER(hh, g->shards.topics, topic, tmp)
	{
		if (topic_for_all(topic->topic) || !topic->wanted || !interest_has(g, m, topic))
			continue;
		topic->interest.compared_ms = g->now;
		topic->interest.equal |= equal;
	}
}

static bool is_fresh(const struct gossip *g, const struct topic *topic)
{
	return topic->wanted && !topic->interest.equal && g->now < topic->interest.wanted_ms + FRESH_MS;
}

/* We have just subscribed to something that it has: what differs is not on its way. */
bool interest_is_new(struct gossip *g, const struct member *m)
{
	struct topic *topic, *tmp;

	HASH_ITER(hh, g->shards.topics, topic, tmp)
	if (!topic_for_all(topic->topic) && is_fresh(g, topic) && interest_has(g, m, topic))
		return true;
	return false;
}

/* ---- what we say ---- */

static int compare_topics(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static uint64_t *wanted_topics(const struct gossip *g, unsigned *ret_count)
{
	uint64_t *list = alloc_array(uint64_t, HASH_COUNT(g->shards.topics) + 1);
	const struct topic *topic, *tmp;
	unsigned count = 0;

	HASH_ITER(hh, g->shards.topics, topic, tmp)
	if (topic->wanted)
		list[count++] = topic->topic;
	qsort(list, count, sizeof(*list), compare_topics);
	*ret_count = count;
	return list;
}

/* In order, so that a host that subscribes to the same as before its restart says the same. */
void interest_publish(struct gossip *g)
{
	unsigned count, at = 0, number = 0;
	uint64_t *list = wanted_topics(g, &count);
	uint8_t key[] = {INTEREST_KEY, 0}, val[1 + INTEREST_TOPICS * sizeof(*list)];
	const struct shard *shard;

	g->interest_said = false;
	for (; at < count; number++) {
		struct bytes_writer w;

		bw_init(&w, val, sizeof(val));
		bw_u8(&w, INTEREST_VERSION);
		for (unsigned i = 0; i < INTEREST_TOPICS && at < count; i++)
			bw_u64(&w, list[at++]);
		key[1] = (uint8_t)number;
		core_put(g, 0, key, sizeof(key), val, w.len);
	}
	free(list);
	shard = shards_find(&g->shards, g->self->hostno, 0);
	for (; number < INTEREST_RECORDS; number++) {
		key[1] = (uint8_t)number;
		if (!shard || !shards_record(shard, &g->shards, key, sizeof(key)))
			break;
		core_del(g, 0, key, sizeof(key));
	}
}

int gossip_subscribe(struct gossip *g, uint64_t number, uint64_t now_ms, struct err *err)
{
	struct topic *topic = shards_topic(&g->shards, number);

	if (topic_for_all(number))
		return err_set(err, ERR_INVALID, "gossip topic %016llx is kept by all hosts: there is nothing to subscribe to",
			(unsigned long long)number);
	if (topic && topic->wanted)
		return 0;
	if (g->subscriptions >= GOSSIP_SUBSCRIPTIONS_MAX)
		return err_set(err, ERR_EXHAUSTED,
			"gossip: this host keeps the records of %d networks already, the most that one can; it has none of this "
			"one's",
			GOSSIP_SUBSCRIPTIONS_MAX);
	core_enter(g, now_ms);
	topic = alloc_made(shards_want(&g->shards, number), "topic");
	g->subscriptions++;
	look(g, topic);
	topic->interest.wanted_ms = g->now;
	topic->interest.asked_ms = 0;
	g->interest_said = true;
	g->gather_ms = NEVER;
	sooner(&g->interest_ms, g->now + FIRST_MS);
	core_leave(g);
	return 0;
}

void gossip_unsubscribe(struct gossip *g, uint64_t number, uint64_t now_ms)
{
	struct topic *topic = shards_topic(&g->shards, number);

	if (!topic || !topic->wanted)
		return;
	core_enter(g, now_ms);
	shards_unwant(&g->shards, number);
	g->subscriptions--;
	g->interest_said = g->interest_ended = true;
	g->gather_ms = NEVER;
	core_leave(g);
}

bool gossip_subscribed(const struct gossip *g, uint64_t number)
{
	const struct topic *topic = shards_topic(&g->shards, number);

	return topic && topic->wanted;
}

_Static_assert(GOSSIP_SUBSCRIPTIONS_MAX == INTEREST_RECORDS * INTEREST_TOPICS, "what the records hold");

/* ---- time ---- */

/* One of those that can be asked, at random. */
static struct member *some_subscriber(struct gossip *g, const struct interest *i)
{
	struct member *found = NULL;
	uint32_t seen = 0;

	for (unsigned n = 0; n < g->member_count; n++) {
		struct member *m = g->slots[n];

		if (has_bit(i, n) && member_usable(g, m) && !m->unheard && g->now >= rare_of(m)->busy_until_ms &&
			core_random(g, ++seen) == 0)
			found = m;
	}
	return found;
}

/* When the topic wants to be compared; NEVER: there is nobody to compare with. */
static uint64_t comparison_due(struct gossip *g, struct topic *topic)
{
	const struct interest *i = &topic->interest;
	uint64_t gap = g->now < i->changed_ms + CHANGING_MS ? LIVELY_MS : QUIET_MS, since = i->compared_ms;

	if (topic_for_all(topic->topic) || !topic->wanted || interest_count(g, topic) == 0)
		return NEVER;
	if (is_fresh(g, topic))
		return i->asked_ms ? i->asked_ms + FIRST_AGAIN_MS : i->wanted_ms + FIRST_MS;
	if (i->asked_ms > since)
		since = i->asked_ms;
	return since + gap;
}

uint64_t interest_tick(struct gossip *g)
{
	struct topic *topic, *tmp, *first = NULL;
	uint64_t first_ms = NEVER;
	unsigned waiting = 0;

	if (g->now < g->interest_ms)
		return g->interest_ms;
	g->interest_ms = NEVER;
	HASH_ITER(hh, g->shards.topics, topic, tmp)
	{
		uint64_t due = comparison_due(g, topic);

		if (due > g->now) {
			sooner(&g->interest_ms, due);
			continue;
		}
		waiting++;
		if (due < first_ms) {
			first_ms = due;
			first = topic;
		}
	}
	if (first) {
		struct member *m = some_subscriber(g, &first->interest);

		first->interest.asked_ms = g->now;
		if (m)
			sync_ask(g, m);
		sooner(&g->interest_ms,
			waiting > 1 ? g->now + (is_fresh(g, first) ? FIRST_MS : NEXT_MS) : comparison_due(g, first));
	}
	return g->interest_ms;
}

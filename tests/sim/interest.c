/* Scenarios of topics that not all hosts keep (gossip/interest.c): what a host subscribes to is what it gets, keeps and pays for.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "gossip/core_internal.h"
#include "tests/sim/scenario.h"
#include "tests/sim/truth.h"

/* Of others, in one network; deletions do not count. */
static unsigned records_of(const struct sim_host *host, unsigned network)
{
	const struct shard *shard, *next;
	unsigned count = 0;

	SHARDS_EACH(&host->gossip->shards, shard, next)
	for (const struct record *r = shard->live.first; r; r = r->next)
		count += shard->id.topic == SIM_NETWORK(network) && shard->id.origin != host->hostno && !r->deleted;
	return count;
}

/* ---- joining ---- */

struct joining {
	unsigned host, network, records;
};

static bool has_all(struct world *w)
{
	const struct joining *j = w->scenario;

	return records_of(&w->hosts[j->host], j->network) == j->records;
}

/* Returns how long it took until it had everything. */
static double join(struct world *w, unsigned host, unsigned network, unsigned records, uint64_t deadline_ms)
{
	struct joining j = {.host = host, .network = network, .records = records};
	uint64_t began = w->now_us;

	world_subscribe(w, host, network);
	w->scenario = &j;
	if (!world_run_until(w, deadline_ms, 1, has_all))
		world_fail(w, "host %u has %u of %u records %u ms after it has subscribed", host + 1,
			records_of(&w->hosts[host], network), records, (unsigned)deadline_ms);
	w->scenario = NULL;
	return (double)(w->now_us - began) / 1000.0;
}

static void who_subscribes_has_all_at_once(struct world *w)
{
	const unsigned last = w->host_count - 1;

	begin_within(w, 20000);
	for (unsigned i = 0; i < last - 1; i++) {
		world_subscribe(w, i, 1);
		put_many(w, i, SIM_NETWORK(1), 20);
	}
	expect_quiet(w, 3000);
	expect(w, records_of(&w->hosts[last], 1) == 0, "who does not subscribe has nothing");
	printf("     %u records of %u hosts: there %.0f ms after subscribing\n", 20 * (last - 1), last - 1,
		join(w, last, 1, 20 * (last - 1), 5));
	expect_quiet(w, 3000);
	world_unsubscribe(w, last, 1);
	world_run_ms(w, 50);
	printf("     and again after having left: %.0f ms\n", join(w, last, 1, 20 * (last - 1), 5));
	expect_quiet(w, 3000);

	/* An origin that is dead cannot say it again. Others can. */
	world_crash(w, 0);
	world_run_ms(w, 10000);
	printf("     and when one of those hosts is dead: %.0f ms\n", join(w, last - 1, 1, 20 * (last - 1), 60));
	world_restart(w, 0, true);
	expect_quiet(w, 10000);

	/* It may be lost, many times. */
	w->faults.loss = 300;
	world_unsubscribe(w, last, 1);
	world_run_ms(w, 2000);
	printf("     with 30 %% loss: %.0f ms\n", join(w, last, 1, 20 * (last - 1), 5000));
	w->faults.loss = 0;
	expect_quiet(w, 10000);
	expect(w, COUNTED(w, unwanted) == 0, "nobody was sent what it does not keep");
}

/* ---- leaving ---- */

/* A host deletes what it has and leaves, unheard by another. That one must learn that nothing is left. */
static void who_left_is_known_to_have_nothing(struct world *w)
{
	size_t len;

	begin_within(w, 20000);
	for (unsigned i = 0; i < w->host_count; i++)
		world_subscribe(w, i, 1);
	put_many(w, 0, SIM_NETWORK(1), 5);
	put_many(w, 1, SIM_NETWORK(1), 5);
	expect_quiet(w, 3000);
	world_partition_at(w, 2); /* hosts 1 and 2 against the others */
	world_run_ms(w, 10000);
	world_unsubscribe(w, 0, 1);
	world_unsubscribe(w, 1, 1);
	world_run_ms(w, 1000);
	expect(w, records_of(&w->hosts[0], 1) == 0, "who left has forgotten what others have");
	expect(w, gossip_get(w->hosts[2].gossip, 1, SIM_NETWORK(1), "k0", 2, &len) != NULL, "others still have what it had");
	world_heal(w);
	expect_quiet(w, 10000);
	expect(w, gossip_get(w->hosts[2].gossip, 1, SIM_NETWORK(1), "k0", 2, &len) == NULL, "and learn that it is gone");

	/* It is back before another has noticed: that one has it all again. */
	put_many(w, 2, SIM_NETWORK(1), 5);
	for (unsigned i = 0; i < 10; i++) {
		world_subscribe(w, 0, 1);
		world_run_ms(w, i);
		world_unsubscribe(w, 0, 1);
	}
	world_subscribe(w, 0, 1);
	put_many(w, 0, SIM_NETWORK(1), 3);
	expect_quiet(w, 5000);
	expect(w, records_of(&w->hosts[0], 1) == 5, "who is back has what others have");
}

/* Two of many share a network and one leaves it, while what it says to the other is lost: nobody else could tell, and in a
 * cluster of many these two probe each other once in a long time. */
static void who_left_says_it_until_it_is_heard(struct world *w)
{
	size_t len;

	begin_within(w, 20000);
	world_subscribe(w, 0, 1);
	world_subscribe(w, 1, 1);
	put_many(w, 0, SIM_NETWORK(1), 5);
	expect_quiet(w, 3000);
	world_cut(w, 0, 1, true);
	world_unsubscribe(w, 0, 1);
	world_run_ms(w, 1000); /* its three tries, and what it asks then */
	expect(w, gossip_get(w->hosts[1].gossip, 1, SIM_NETWORK(1), "k0", 2, &len) != NULL, "the other still has what it had");
	world_cut(w, 0, 1, false);
	world_run_ms(w, 2000);
	expect(w, gossip_get(w->hosts[1].gossip, 1, SIM_NETWORK(1), "k0", 2, &len) == NULL, "and learns that it is gone");
	expect_quiet(w, 10000);
}

/* Two sides of a cut with other ideas of who subscribes: when it heals, that costs a few packets and no storm. */
static void views_that_differ_cost_little(struct world *w)
{
	uint64_t bytes, packets;

	begin_within(w, 20000);
	for (unsigned i = 0; i < w->host_count; i++)
		for (unsigned n = 0; n < 8; n++)
			if ((i + n) % 2)
				world_subscribe(w, i, n);
	for (unsigned i = 0; i < w->host_count; i++)
		for (unsigned n = 0; n < 8; n++)
			if ((i + n) % 2)
				put_many(w, i, SIM_NETWORK(n), 10);
	expect_quiet(w, 10000);
	world_partition_at(w, w->host_count / 2);
	world_run_ms(w, 20000);
	for (unsigned i = 0; i < w->host_count; i++)
		for (unsigned n = 0; n < 8; n++)
			if ((i + n) % 2)
				world_unsubscribe(w, i, n);
			else
				world_subscribe(w, i, n);
	world_run_ms(w, 5000);
	bytes = w->bytes;
	packets = w->packets;
	world_heal(w);
	world_run_ms(w, 5000);
	bytes = w->bytes - bytes;
	packets = w->packets - packets;
	printf("     all have changed what they subscribe to, heal and 5 s: %" PRIu64 " packets and %" PRIu64 " bytes by a host, "
	       "%" PRIu64 " batches unwanted\n",
		packets / w->host_count, bytes / w->host_count, COUNTED(w, unwanted));
	expect(w, bytes / w->host_count < 60000, "less than 60 kB by a host");
	expect_quiet(w, 3000);
}

/* ---- many ---- */

static void count_copies(struct world *w, unsigned network, unsigned *ret_have, unsigned *ret_should)
{
	size_t len;

	*ret_have = *ret_should = 0;
	for (unsigned i = 1; i < w->host_count; i++) {
		*ret_should += sim_keeps(&w->hosts[i], SIM_NETWORK(network));
		*ret_have += gossip_get(w->hosts[i].gossip, 1, SIM_NETWORK(network), "k0", 2, &len) != NULL;
	}
}

static void a_network_of_many_has_its_own_tree(struct world *w)
{
	unsigned have, should;
	uint64_t packets;

	begin_within(w, 20000);
	for (unsigned i = 0; i < w->host_count; i++)
		if (i % 4 != 3)
			world_subscribe(w, i, 1);
	expect_quiet(w, 10000);
	packets = gossip_counters(w->hosts[0].gossip)->pushes;
	world_put(w, 0, SIM_NETWORK(1), "k0");
	expect(w, gossip_counters(w->hosts[0].gossip)->pushes - packets <= TREE_WIDE, "the origin sends to its children only");
	world_run_ms(w, 3);
	count_copies(w, 1, &have, &should);
	expect(w, should > TREE_ABOVE && have == should, "it is with all subscribers after 3 ms");
	/* One that has left is still heard: its deletion goes by the tree as well. */
	world_unsubscribe(w, 0, 1);
	world_run_ms(w, 3);
	count_copies(w, 1, &have, &should);
	expect(w, have == 0, "and so is that it is gone");
	printf("     the first to join: %.0f ms\n", join(w, 3, 1, 0, 100));
	for (unsigned i = 4; i < 40; i += 4)
		put_many(w, i, SIM_NETWORK(1), 10);
	expect_quiet(w, 5000);
	printf("     one more joins %u that have 90 records: %.0f ms\n", should, join(w, 7, 1, 90, 1000));
	expect_quiet(w, 10000);
	expect(w, COUNTED(w, unwanted) <= w->host_count / 4, "nearly nobody was sent what it does not keep");
}

static void a_network_of_few_in_a_big_cluster_needs_no_tree(struct world *w)
{
	unsigned have, should;

	begin_within(w, 20000);
	for (unsigned i = 0; i < w->host_count; i += 10)
		world_subscribe(w, i, 1);
	world_run_ms(w, 2000); /* they have met */
	world_put(w, 0, SIM_NETWORK(1), "k0");
	expect(w, gossip_counters(w->hosts[0].gossip)->pushes > 0, "it is on its way at once");
	world_run_ms(w, 1);
	count_copies(w, 1, &have, &should);
	expect(w, have == should, "one hop, and all subscribers have it");
	/* Nobody probes just them: they find out by themselves what was lost. */
	for (unsigned i = 10; i < w->host_count; i += 10)
		world_cut(w, 0, i, i < w->host_count / 2);
	world_put(w, 0, SIM_NETWORK(1), "k1");
	world_run_ms(w, 500);
	world_heal(w);
	expect_quiet(w, 5000);
}

/* ---- what it costs ---- */

#define NETWORKS_IN_ALL 40
#define HOSTS_OF_EACH 10
#define HOSTS_OF_EACH_LATER 40
#define RECORDS_OF_EACH 5 /* of each of the ten in one network */

static size_t memory_of(const struct sim_host *host)
{
	const struct shards *s = &host->gossip->shards;
	const struct topic *topic, *tmp_topic;
	const struct shard *shard, *next;
	size_t bytes = s->table_size * sizeof(*s->table);

	HASH_ITER(hh, s->topics, topic, tmp_topic)
	bytes += sizeof(*topic) + topic->interest.words * 8 + topic->interest.ring.capacity * sizeof(void *);
	SHARDS_EACH(s, shard, next)
	{
		bytes += sizeof(*shard) + shard->cursor_count * sizeof(*shard->cursors);
		for (const struct record *r = shard->live.first; r; r = r->next)
			bytes += offsetof(struct record, bytes) + r->key_len + r->val_len;
	}
	return bytes;
}

/* With the nine behind it; of a network they are ten in a row. */
static bool neighbours_are_equal(struct world *w)
{
	for (unsigned i = 0; i < w->host_count; i++) {
		for (unsigned j = 1; j < HOSTS_OF_EACH; j++) {
			struct sim_host *a = &w->hosts[i], *b = &w->hosts[(i + j) % w->host_count];

			if (interest_root(a->gossip, members_find(a->gossip, b->hostno)) !=
				interest_root(b->gossip, members_find(b->gossip, a->hostno)))
				return false;
		}
	}
	return true;
}

static void settle(struct world *w)
{
	world_run_ms(w, 100);
	if (!world_run_until(w, 60000, 200, neighbours_are_equal))
		world_fail(w, "co-subscribers are not equal after 60 s");
	world_run_ms(w, 6000); /* what changed is compared more often for 5 s */
}

struct cost {
	double memory, records, joining, pushes;
};

static struct sim_host *host_of(struct world *w, unsigned network, unsigned i)
{
	return &w->hosts[(i + network * w->host_count / NETWORKS_IN_ALL) % w->host_count];
}

/* Each network has so many hosts from now on. Everything by one host, in the mean. */
static struct cost measure_cost(struct world *w, double memory_before, unsigned hosts)
{
	struct cost cost = {.memory = -memory_before};
	uint64_t bytes = w->bytes;

	for (unsigned n = 0; n < NETWORKS_IN_ALL; n++)
		for (unsigned i = 0; i < hosts; i++)
			if (!sim_keeps(host_of(w, n, i), SIM_NETWORK(n)))
				world_subscribe(w, host_of(w, n, i)->index, n);
	for (unsigned n = 0; n < NETWORKS_IN_ALL; n++)
		for (unsigned i = 0; i < HOSTS_OF_EACH; i++)
			put_many(w, host_of(w, n, i)->index, SIM_NETWORK(n), RECORDS_OF_EACH);
	settle(w);
	cost.joining = (double)(w->bytes - bytes) / w->host_count;
	for (unsigned i = 0; i < w->host_count; i++) {
		cost.memory += (double)memory_of(&w->hosts[i]) / w->host_count;
		cost.records += (double)w->hosts[i].gossip->shards.record_count / w->host_count;
	}
	cost.pushes = -(double)COUNTED(w, pushes);
	for (unsigned n = 0; n < NETWORKS_IN_ALL; n++)
		world_put(w, host_of(w, n, 0)->index, SIM_NETWORK(n), "k0");
	settle(w);
	cost.pushes += (double)COUNTED(w, pushes);
	return cost;
}

/* 40 networks in a cluster of 200: what one host keeps and pays follows how many of them it is in, two first and eight later. */
static void measure_interest(struct world *w)
{
	const double endpoints = RECORDS_OF_EACH * HOSTS_OF_EACH;
	struct cost few, more;
	double memory = 0;

	w->unchecked = true;
	begin_within(w, 20000);
	for (unsigned i = 0; i < w->host_count; i++)
		memory += (double)memory_of(&w->hosts[i]) / w->host_count;
	few = measure_cost(w, memory, HOSTS_OF_EACH);
	more = measure_cost(w, memory, HOSTS_OF_EACH_LATER);
	printf("     %u hosts, %u networks of %.0f endpoints. A host in two: %.0f records, %.0f kB more than without; in eight: "
	       "%.0f, %.0f kB\n",
		w->host_count, NETWORKS_IN_ALL, endpoints, few.records, few.memory / 1000, more.records, more.memory / 1000);
	printf("     bytes sent by a host to become part of them %.0f, %.0f; pushes for a change in each of the 40: %.0f, %.0f\n",
		few.joining, more.joining, few.pushes, more.pushes);
	/* The rest are records of topic 0. */
	expect(w, more.records - few.records < 1.1 * 6 * endpoints && more.records - few.records > 0.9 * 6 * endpoints,
		"records follow what it is in");
	expect(w, more.memory < 5 * few.memory && more.memory > 1.5 * few.memory, "and memory does");
	expect(w,
		few.pushes == NETWORKS_IN_ALL * (HOSTS_OF_EACH - 1) && more.pushes == NETWORKS_IN_ALL * (HOSTS_OF_EACH_LATER - 1),
		"a change goes once to each host that is in its network, and to no other");
}

const struct scenario interest_scenarios[] = {
	{"who_subscribes_has_all_at_once", 12, false, who_subscribes_has_all_at_once},
	{"who_left_is_known_to_have_nothing", 6, false, who_left_is_known_to_have_nothing},
	{"who_left_says_it_until_it_is_heard", 60, false, who_left_says_it_until_it_is_heard},
	{"views_that_differ_cost_little", 16, false, views_that_differ_cost_little},
	{"a_network_of_many_has_its_own_tree", 120, false, a_network_of_many_has_its_own_tree},
	{"a_network_of_few_in_a_big_cluster_needs_no_tree", 100, false, a_network_of_few_in_a_big_cluster_needs_no_tree},
	{"measure_interest", 200, false, measure_interest},
	{NULL, 0, false, NULL},
};

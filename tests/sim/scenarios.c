/* Named scenarios of membership and records. Each says in its name what must hold. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/core_internal.h"
#include "tests/sim/scenario.h"
#include "tests/sim/truth.h"

static bool quiet(struct world *w)
{
	char why[256];

	return truth_members_agree(w, why, sizeof(why)) && truth_converged(w, why, sizeof(why));
}

uint64_t expect_quiet(struct world *w, uint64_t deadline_ms)
{
	uint64_t start_us = w->now_us;
	char why[256] = "";

	if (!world_run_until(w, deadline_ms, 10, quiet)) {
		if (truth_members_agree(w, why, sizeof(why)))
			truth_converged(w, why, sizeof(why));
		world_fail(w, "not quiet after %" PRIu64 " ms: %s", deadline_ms, why);
	}
	for (unsigned i = 0; i < w->host_count; i++)
		truth_check_host(w, i);
	return (w->now_us - start_us) / SIM_US_PER_MS;
}

void begin_within(struct world *w, uint64_t quiet_ms)
{
	world_introduce_all(w);
	world_start_all(w);
	expect_quiet(w, quiet_ms);
}

uint64_t counted_by_all(struct world *w, size_t counter)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < w->host_count; i++)
		if (w->hosts[i].gossip)
			sum += *(const uint64_t *)((const char *)gossip_counters(w->hosts[i].gossip) + counter);
	return sum;
}

void put_many(struct world *w, unsigned host, uint64_t topic, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		char key[24];

		snprintf(key, sizeof(key), "k%u", i);
		world_put(w, host, topic, key);
	}
}

void expect(struct world *w, bool fact, const char *what)
{
	if (!fact)
		world_fail(w, "expected: %s", what);
}

static enum gossip_state state_at(struct world *w, unsigned observer, unsigned of)
{
	struct gossip_member member = {.state = GOSSIP_LEFT};

	gossip_member_get(w->hosts[observer].gossip, w->hosts[of].hostno, &member);
	return member.state;
}

static const struct gossip_counters *counters(struct world *w, unsigned host)
{
	return gossip_counters(w->hosts[host].gossip);
}

/* ---- records ---- */

static void records_reach_all(struct world *w)
{
	size_t len;

	begin_within(w, 5000);
	world_put(w, 0, 7, "k1");
	world_run_ms(w, 2);
	for (unsigned i = 1; i < w->host_count; i++)
		expect(w, gossip_get(w->hosts[i].gossip, 1, 7, "k1", 2, &len), "a change is everywhere after 2 ms");
	world_put(w, 0, 7, "k1");
	world_del(w, 0, 7, "k1");
	world_run_ms(w, 30);
	for (unsigned i = 1; i < w->host_count; i++)
		expect(w, !gossip_get(w->hosts[i].gossip, 1, 7, "k1", 2, &len), "a deletion is everywhere after 30 ms");
	expect_quiet(w, 1000);
}

static void equal_put_is_silent(struct world *w)
{
	uint64_t pushes;

	begin_within(w, 5000);
	gossip_put(w->hosts[0].gossip, 7, "x", 1, "same", 4, world_now_ms(w), NULL);
	world_run_ms(w, 100);
	pushes = counters(w, 0)->pushes;
	gossip_put(w->hosts[0].gossip, 7, "x", 1, "same", 4, world_now_ms(w), NULL);
	world_run_ms(w, 100);
	expect(w, counters(w, 0)->pushes == pushes, "an equal value is not pushed");
}

static void put_lazily(struct world *w, const char *key)
{
	gossip_put_lazily(w->hosts[0].gossip, 7, key, strlen(key), "v", 1, world_now_ms(w), NULL);
	world_touch(w, 0);
}

static bool last_has(struct world *w, const char *key)
{
	size_t len;

	return gossip_get(w->hosts[w->host_count - 1].gossip, w->hosts[0].hostno, 7, key, strlen(key), &len) != NULL;
}

/* What nobody waits for does not leave with each ack either; what may not wait takes it along. */
static void what_may_wait_leaves_together(struct world *w)
{
	uint64_t pushes;
	char key[24] = "";

	begin_within(w, 5000);
	pushes = counters(w, 0)->pushes;
	for (unsigned i = 0; i < 18; i++) {
		snprintf(key, sizeof(key), "lazy%u", i);
		put_lazily(w, key);
		world_run_ms(w, 5);
	}
	expect(w, !last_has(w, "lazy0"), "it waits");
	world_run_ms(w, PUSH_LAZY_MS - 18 * 5 + 5);
	expect(w, last_has(w, key), "but not for long");
	expect(w, counters(w, 0)->pushes - pushes == w->host_count - 1, "one packet for each peer");
	put_lazily(w, "lazy");
	world_run_ms(w, 5);
	gossip_put(w->hosts[0].gossip, 9, "now", 3, "v", 1, world_now_ms(w), NULL);
	world_run_ms(w, 5);
	expect(w, last_has(w, "lazy"), "the next packet has room for it");
	expect(w, counters(w, 0)->pushes - pushes == 2 * (w->host_count - 1), "which is one");
}

static void loss_is_repaired(struct world *w)
{
	w->faults.loss = 100;
	w->faults.duplicate = 50;
	w->faults.reorder = 50;
	w->faults.corrupt = 10;
	world_introduce_all(w);
	world_start_all(w);
	for (unsigned round = 0; round < 100; round++) {
		unsigned host = sim_rng_below(&w->rng, w->host_count);
		char key[24];

		snprintf(key, sizeof(key), "k%u", sim_rng_below(&w->rng, 20));
		if (sim_rng_permille(&w->rng, 300))
			world_del(w, host, 1 + sim_rng_below(&w->rng, 3), key);
		else
			world_put(w, host, 1 + sim_rng_below(&w->rng, 3), key);
		world_run_ms(w, sim_rng_below(&w->rng, 100));
	}
	expect_quiet(w, 15000);
}

static void lost_push_is_repeated(struct world *w)
{
	unsigned missing = 0;
	size_t len;

	begin_within(w, 5000);
	w->faults.loss = 100;
	for (unsigned i = 0; i < 100; i++) {
		char key[24];

		snprintf(key, sizeof(key), "k%u", i);
		world_put(w, 0, 3, key);
		world_run_ms(w, 110); /* three repetitions, and less than a comparison takes */
		for (unsigned j = 1; j < w->host_count; j++)
			missing += !gossip_get(w->hosts[j].gossip, 1, 3, key, strlen(key), &len);
	}
	expect(w, missing <= 2 * (w->host_count - 1), "of 100 changes under 10 % loss hardly one is late anywhere");
	w->faults.loss = 0;
	expect_quiet(w, 5000);
}

static void burst_goes_out_in_pace(struct world *w)
{
	uint64_t packets, bytes;

	begin_within(w, 5000);
	packets = w->packets;
	bytes = w->bytes;
	for (unsigned i = 0; i < 10000; i++) {
		char key[24];

		snprintf(key, sizeof(key), "k%u", i % 2000);
		world_put(w, 0, 5, key);
	}
	expect(w, w->packets - packets <= PUSH_WINDOW * w->host_count, "a burst leaves at the pace of the acks");
	expect_quiet(w, 3000);
	/* 2,000 live records of about 40 bytes to each peer, not 10,000 changes. */
	expect(w, w->bytes - bytes < (uint64_t)(w->host_count - 1) * 250000, "superseded changes are not sent");
}

static void big_values_fit(struct world *w)
{
	static char value[GOSSIP_VALUE_MAX], key[GOSSIP_KEY_MAX];
	struct err err = {0};
	size_t len = 0;

	begin_within(w, 5000);
	memset(value, 'v', sizeof(value));
	memset(key, 'b', sizeof(key));
	expect(w,
		gossip_put(w->hosts[0].gossip, UINT64_MAX >> 1, key, sizeof(key), value, sizeof(value), world_now_ms(w), &err) ==
			0,
		err.text);
	world_touch(w, 0);
	world_run_ms(w, 5);
	expect(w, gossip_get(w->hosts[1].gossip, 1, UINT64_MAX >> 1, key, sizeof(key), &len) && len == sizeof(value),
		"the largest record reaches the others");
	expect(w,
		gossip_put(w->hosts[0].gossip, 1, key, sizeof(key), value, sizeof(value) + 1, world_now_ms(w), &err) < 0 &&
			err.code == ERR_TOO_BIG,
		"a larger one is refused");
}

/* R4: who was away while deletions were forgotten gets a listing, and sees no more than what changed. */
static void below_the_floor_gets_a_listing(struct world *w)
{
	unsigned away = w->host_count - 1;

	begin_within(w, 5000);
	put_many(w, 0, 3, 300);
	expect_quiet(w, 2000);
	world_partition_at(w, away);
	for (unsigned i = 0; i < 200; i++) {
		char key[24];

		snprintf(key, sizeof(key), "k%u", i);
		if (i % 3 == 0)
			world_put(w, 0, 3, key);
		else
			world_del(w, 0, 3, key);
	}
	world_run_ms(w, 2 * SHARDS_FLOOR_EVERY_MS + 20000);
	expect(w, shards_find(&w->hosts[0].gossip->shards, 1, 3)->deleted_count == 0, "deletions are forgotten in time");
	world_heal(w);
	expect_quiet(w, 5000);
	expect(w, counters(w, away)->resets > 0, "the host that was away got a listing");
}

static void acknowledged_deletions_are_forgotten(struct world *w)
{
	begin_within(w, 5000);
	put_many(w, 0, 3, 100);
	expect_quiet(w, 2000);
	for (unsigned i = 0; i < 100; i++) {
		char key[24];

		snprintf(key, sizeof(key), "k%u", i);
		world_del(w, 0, 3, key);
	}
	expect_quiet(w, 2000);
	expect(w, shards_find(&w->hosts[0].gossip->shards, 1, 3)->deleted_count == 0, "what all have acknowledged is not kept");
}

/* R5 */
static void restart(struct world *w, bool new_epoch)
{
	size_t len;

	begin_within(w, 5000);
	put_many(w, 0, 3, 200);
	put_many(w, 0, 4, 5);
	put_many(w, 0, 5, 1);
	expect_quiet(w, 2000);
	world_crash(w, 0);
	world_run_ms(w, 300);
	/* While it was down, one record went, one topic with it. */
	truth_write(w->truth, 1, 3, "k7", false);
	truth_write(w->truth, 1, 5, "k0", false);
	world_restart(w, 0, new_epoch);
	world_put(w, 0, 3, "k8");
	expect_quiet(w, 5000);
	for (unsigned i = 1; i < w->host_count; i++)
		expect(w, !gossip_get(w->hosts[i].gossip, 1, 5, "k0", 2, &len), "a topic that was not put again goes");
}

static void restart_in_a_new_epoch_does_not_flicker(struct world *w)
{
	restart(w, true);
}

static void restart_in_the_same_epoch_does_not_flicker(struct world *w)
{
	restart(w, false);
}

/* Host 0 lives twice in one epoch. In the first life it puts the record again that it had before, and only host 1 hears of it; in
 * the second it no longer has it, and host 1 does not hear of that. */
static void what_one_life_of_an_epoch_put_does_not_come_back_after_the_next(struct world *w)
{
	size_t len;

	begin_within(w, 5000);
	put_many(w, 0, 3, 1);
	expect_quiet(w, 2000);
	world_partition(w, 0x3); /* 0 1 | 2 3 */
	world_restart(w, 0, true);
	world_run_ms(w, 3000);
	world_crash(w, 0);
	truth_write(w->truth, 1, 3, "k0", false);
	world_partition(w, 0x2); /* 1 | 0 2 3 */
	world_restart(w, 0, false);
	world_run_ms(w, 20000);
	expect(w, !gossip_get(w->hosts[2].gossip, 1, 3, "k0", 2, &len), "host 2 knows that it is gone");
	expect(w, gossip_get(w->hosts[1].gossip, 1, 3, "k0", 2, &len), "host 1 does not");
	world_partition(w, 0x9); /* 0 3 | 1 2 */
	world_run_ms(w, 20000);
	expect(w, !gossip_get(w->hosts[1].gossip, 1, 3, "k0", 2, &len), "host 2 has told host 1");
	world_heal(w);
	expect_quiet(w, 10000);
}

/* A state that was set back: the daemon comes with an epoch that the others know to be old. */
static void older_state_goes_past_what_others_know(struct world *w)
{
	begin_within(w, 5000);
	put_many(w, 0, 3, 10);
	expect_quiet(w, 2000);
	world_restart(w, 0, true);
	expect_quiet(w, 5000);
	w->hosts[0].epoch -= 1;
	sim_disk_clear(&w->hosts[0].disk);
	world_introduce_all(w);
	w->truth->conflicts_expected = true; /* what it is told of itself is more than it made */
	world_restart(w, 0, false);
	world_put(w, 0, 3, "k3");
	expect_quiet(w, 10000);
	expect(w, w->hosts[0].gossip->self->epoch > 2, "it took an epoch above the one that the others knew");
}

static void everybody_restarts_at_once(struct world *w)
{
	begin_within(w, 5000);
	for (unsigned i = 0; i < w->host_count; i++)
		put_many(w, i, 9, 10);
	expect_quiet(w, 3000);
	for (unsigned i = 0; i < w->host_count; i++)
		world_crash(w, i);
	for (unsigned i = 0; i < w->host_count; i++)
		world_restart(w, i, true);
	expect_quiet(w, 3000);
}

/* ---- rules broken on purpose ---- */

/* An old batch, from before a deletion, arrives once more by way of a third host. */
static void replay_old_batch(struct world *w)
{
	struct gossip *g = w->hosts[1].gossip;
	struct proto_packet packet = {0};
	struct proto_list list;
	struct shard *shard = shards_find(&w->hosts[0].gossip->shards, 1, 3);
	struct proto_batch batch = {.origin = 1,
		.topic = 3,
		.epoch = shard->epoch,
		.from = shard->head - 3,
		.to = shard->head - 2,
		.head = shard->head - 2,
		.flags = PROTO_BATCH_SETTLED};
	struct proto_record record = {.seq = batch.to, .key = (const uint8_t *)"k2", .key_len = 2};
	char value[64];

	record.val_len = truth_value(truth_find(w->truth, 1, 3, "k2"), value);
	record.val = (const uint8_t *)value;
	proto_batch_open(&list, &packet);
	proto_batch_add(&list, batch.from, &record);
	proto_batch_close(&list, &batch);
	core_messages(g, members_find(g, 3), packet.bytes, packet.len);
}

static void prepare_replay(struct world *w)
{
	begin_within(w, 5000);
	world_put(w, 0, 3, "k1");
	world_put(w, 0, 3, "k2");
	world_run_ms(w, 100);
	world_del(w, 0, 3, "k2");
	world_run_ms(w, 1000);
	world_put(w, 0, 3, "k1"); /* brings the floor: the deletion is forgotten everywhere */
	world_run_ms(w, 1000);
	expect(w, shards_find(&w->hosts[1].gossip->shards, 1, 3)->deleted_count == 0, "the deletion is forgotten at the copy");
}

static void old_batch_brings_nothing_back(struct world *w)
{
	prepare_replay(w);
	replay_old_batch(w);
	expect_quiet(w, 2000);
}

/* The checker must notice a core that breaks R3: this scenario fails unless it does. */
static void checker_notices_a_broken_rule(struct world *w)
{
	prepare_replay(w);
	w->hosts[1].gossip->shards.no_r3 = true;
	replay_old_batch(w);
	if (!strstr(w->failure, "return from deletion")) {
		w->failure[0] = '\0';
		world_fail(w, "rule R3 was broken and the checker did not say so");
		return;
	}
	w->failure[0] = '\0';
}

/* R6: the same (epoch, seq) with another value, as a cloned host would send, or one whose disk was set back. */
static void who_repeats_an_epoch_is_refused_and_takes_a_later_one(struct world *w)
{
	struct gossip *g;
	struct shard *shard;
	struct proto_packet packet = {0};
	struct proto_list list;
	struct proto_batch batch = {.origin = 1, .topic = 3, .flags = PROTO_BATCH_SETTLED};
	struct proto_record record = {.key = (const uint8_t *)"k1", .key_len = 2, .val = (const uint8_t *)"other", .val_len = 5};

	begin_within(w, 5000);
	world_put(w, 0, 3, "k1");
	world_run_ms(w, 100);
	w->truth->conflicts_expected = true;
	g = w->hosts[1].gossip;
	shard = shards_find(&g->shards, 1, 3);
	batch.epoch = shard->epoch;
	batch.from = shard->live.first->seq - 1;
	batch.to = batch.head = record.seq = shard->live.first->seq;
	proto_batch_open(&list, &packet);
	proto_batch_add(&list, batch.from, &record);
	proto_batch_close(&list, &batch);
	core_messages(g, members_find(g, 1), packet.bytes, packet.len);
	expect(w, counters(w, 1)->conflicts == 1, "the conflict is counted");
	world_put(w, 0, 3, "k2");
	world_run_ms(w, 50);
	expect(w, !shards_record(shard, &g->shards, "k2", 2), "nothing more is taken from that origin");
	expect_quiet(w, 5000);
	expect(w, w->hosts[0].gossip->self->epoch > 1, "it was told, and took a later epoch");
}

/* ---- members ---- */

static bool host_0_is_dead_everywhere(struct world *w)
{
	for (unsigned i = 1; i < w->host_count; i++)
		if (state_at(w, i, 0) != GOSSIP_DEAD)
			return false;
	return true;
}

static void crash_is_noticed_and_return_too(struct world *w)
{
	begin_within(w, 5000);
	put_many(w, 0, 3, 10);
	expect_quiet(w, 2000);
	world_crash(w, 0);
	expect(w, world_run_until(w, 16000, 10, host_0_is_dead_everywhere), "a crashed host is dead within 16 s");
	for (unsigned i = 1; i < w->host_count; i++) {
		size_t len;

		expect(w, gossip_get(w->hosts[i].gossip, 1, 3, "k1", 2, &len), "a dead host's records stay");
	}
	world_run_ms(w, 600000);
	world_restart(w, 0, true);
	expect_quiet(w, 3000);
}

static void never_dead(struct sim_host *host, const struct gossip_member *member, enum gossip_state old)
{
	if (member->state == GOSSIP_DEAD && old != GOSSIP_DEAD)
		world_fail(host->world, "host %u takes host %u for dead while a cut heals", host->hostno, member->hostno);
}

/* Each side brings its belief that the other is dead; nobody may take that for news about its neighbours. */
static void healing_kills_nobody(struct world *w)
{
	begin_within(w, 5000);
	world_partition_at(w, w->host_count / 2);
	world_run_ms(w, 60000);
	w->hooks.member = never_dead;
	world_heal(w);
	expect_quiet(w, 2000);
	world_run_ms(w, 5000);
}

static void cut_heals_in_two_seconds(struct world *w)
{
	begin_within(w, 5000);
	put_many(w, 0, 3, 50);
	expect_quiet(w, 2000);
	world_partition_at(w, w->host_count / 2);
	world_run_ms(w, 60000);
	put_many(w, 0, 3, 20);
	put_many(w, w->host_count - 1, 4, 20);
	world_run_ms(w, 1000);
	world_heal(w);
	expect_quiet(w, 2000);
}

static void isolated_host_returns_in_two_seconds(struct world *w)
{
	begin_within(w, 5000);
	world_partition_at(w, 1);
	world_run_ms(w, 600000);
	put_many(w, 0, 3, 20);
	put_many(w, w->host_count - 1, 4, 20);
	world_run_ms(w, 1000);
	world_heal(w);
	expect_quiet(w, 2000);
}

static uint64_t deaths_of_all(struct world *w)
{
	uint64_t deaths = 0;

	for (unsigned i = 0; i < w->host_count; i++)
		deaths += counters(w, i)->deaths;
	return deaths;
}

/* What only goes wrong between two hosts is not a death: helpers and verifiers see that. */
static void one_way_cut_kills_nobody(struct world *w)
{
	uint64_t before;

	begin_within(w, 5000);
	before = deaths_of_all(w);
	world_cut(w, 0, 1, true);
	world_run_ms(w, 120000);
	expect(w, deaths_of_all(w) == before, "nobody dies of a one-way cut between two hosts");
	world_heal(w);
	expect_quiet(w, 2000);
}

/* One packet in ten lost, everywhere, for ten minutes. */
static void loss_kills_nobody(struct world *w)
{
	uint64_t before;

	begin_within(w, 5000);
	before = deaths_of_all(w);
	w->faults.loss = 100;
	world_run_ms(w, 600000);
	expect(w, deaths_of_all(w) == before, "nobody dies of 10 % loss");
	w->faults.loss = 0;
	expect_quiet(w, 5000);
}

/* A host that gets the processor only now and then: it may be suspected, the others must not suffer. */
static void starved_host_harms_nobody_else(struct world *w)
{
	begin_within(w, 5000);
	for (unsigned i = 0; i < 200; i++) {
		world_pause(w, 0);
		world_run_ms(w, 800);
		world_resume(w, 0);
		world_run_ms(w, 200);
	}
	for (unsigned i = 0; i < w->host_count; i++)
		for (unsigned j = 1; j < w->host_count; j++)
			expect(w, state_at(w, i, j) == GOSSIP_ALIVE, "the healthy hosts are alive everywhere");
	for (unsigned i = 1; i < w->host_count; i++)
		expect(w, counters(w, i)->deaths <= 2, "and hardly ever take the starved one for dead");
	expect_quiet(w, 5000);
}

static void paused_host_blames_nobody(struct world *w)
{
	begin_within(w, 5000);
	world_pause(w, 0);
	world_run_ms(w, 30000);
	for (unsigned i = 1; i < w->host_count; i++)
		expect(w, state_at(w, i, 0) == GOSSIP_DEAD, "a host that was stopped for 30 s is dead");
	world_resume(w, 0);
	for (unsigned i = 1; i < w->host_count; i++)
		expect(w, state_at(w, 0, i) == GOSSIP_ALIVE, "it does not blame the others for its pause");
	expect_quiet(w, 3000);
}

static void short_pauses_are_survived(struct world *w)
{
	begin_within(w, 5000);
	for (unsigned i = 0; i < 20; i++) {
		world_pause(w, 0);
		world_run_ms(w, 250);
		world_resume(w, 0);
		world_run_ms(w, 500);
	}
	for (unsigned i = 1; i < w->host_count; i++)
		expect(w, counters(w, i)->deaths == 0, "a pause of 250 ms is no death");
	expect_quiet(w, 2000);
}

static void leaving_is_no_death(struct world *w)
{
	begin_within(w, 5000);
	gossip_leave(w->hosts[0].gossip, world_now_ms(w));
	world_run_ms(w, 50);
	for (unsigned i = 1; i < w->host_count; i++) {
		expect(w, state_at(w, i, 0) == GOSSIP_LEFT, "the others know at once that it left");
		expect(w, counters(w, i)->deaths == 0, "nobody thinks it dead");
	}
	world_run_ms(w, 30000);
	for (unsigned i = 1; i < w->host_count; i++)
		expect(w, state_at(w, i, 0) == GOSSIP_LEFT, "and keep knowing it");
	/* All of them, so that none can tell another. */
	for (unsigned i = 1; i < w->host_count; i++)
		world_crash(w, i);
	for (unsigned i = 1; i < w->host_count; i++)
		world_restart(w, i, true);
	for (unsigned i = 1; i < w->host_count; i++)
		expect(w, state_at(w, i, 0) == GOSSIP_LEFT, "also behind a restart");
	world_run_ms(w, 30000);
	for (unsigned i = 1; i < w->host_count; i++) {
		expect(w, state_at(w, i, 0) == GOSSIP_LEFT, "where it is not waited for");
		expect(w, counters(w, i)->deaths == 0, "nor thought dead");
	}
	world_restart(w, 0, true);
	expect_quiet(w, 3000);
	world_restart(w, 1, true);
	expect_quiet(w, 3000);
}

static void moved_host_is_followed(struct world *w)
{
	struct gossip *g;
	struct ip vtep = {.family = 6, .bytes = {0x20, 0x01, 0x0d, 0xb8, [15] = 1}};
	struct gossip_member member;

	begin_within(w, 5000);
	g = w->hosts[0].gossip;
	members_name(g->self, "renamed"); /* as if it had been started so */
	g->self->vtep = vtep;
	core_publish_self(g);
	world_touch(w, 0);
	world_run_ms(w, 10);
	for (unsigned i = 1; i < w->host_count; i++) {
		gossip_member_get(w->hosts[i].gossip, 1, &member);
		expect(w, strcmp(member.name, "renamed") == 0 && ip_equal(&member.vtep, &vtep),
			"name and VTEP are known everywhere");
	}
}

/* From one host, each of the others joins by a token at a random earlier one; all know all by the admissions alone. */
static void cluster_grows_by_tokens(struct world *w)
{
	w->faults.loss = 50;
	world_start(w, 0);
	put_many(w, 0, 3, 10);
	for (unsigned i = 1; i < w->host_count; i++) {
		world_join(w, i, sim_rng_below(&w->rng, i));
		world_run_ms(w, i % 3 == 0 ? 10 : 2000);
		for (unsigned j = 0; j < i; j++)
			while (!w->hosts[j].gossip && !w->failure[0])
				world_run_ms(w, 100);
	}
	w->faults.loss = 0;
	expect_quiet(w, 15000);
	/* The sponsor of everybody's sponsor comes back with nothing but its disk. */
	world_restart(w, 0, true);
	expect_quiet(w, 5000);
}

static void joiner_knows_all_at_once(struct world *w)
{
	for (unsigned i = 0; i + 1 < w->host_count; i++) {
		if (i == 0)
			world_start(w, 0);
		else
			world_join(w, i, 0);
		world_run_ms(w, 3000);
	}
	put_many(w, 1, 3, 100);
	world_run_ms(w, 5000);
	world_join(w, w->host_count - 1, 0);
	expect_quiet(w, 1000);
}

static unsigned pairs_alive(struct world *w)
{
	unsigned pairs = 0;

	for (unsigned i = 0; i < w->host_count; i++) {
		struct gossip_member m;

		for (unsigned j = 0; j < w->host_count && w->hosts[i].gossip; j++)
			pairs += gossip_member_get(w->hosts[i].gossip, w->hosts[j].hostno, &m) && m.state == GOSSIP_ALIVE;
	}
	return pairs;
}

static bool published_itself(struct world *w, unsigned at, unsigned whose)
{
	const struct shard *shard = shards_find(&w->hosts[at].gossip->shards, w->hosts[whose].hostno, 0);

	return shard && shards_record(shard, &w->hosts[at].gossip->shards, HOST_RECORD_KEY, 1);
}

/* All at once, and the cost follows what there is to know, not the number of pairs. */
static void newcomers_need_no_handshakes(struct world *w)
{
	unsigned all = w->host_count * w->host_count;
	uint64_t begun, together = 0;

	world_start(w, 0);
	world_run_ms(w, 2000);
	w->bytes = w->packets = 0;
	begun = w->now_us;
	for (unsigned i = 1; i < w->host_count; i++)
		world_join(w, i, 0);
	while (pairs_alive(w) < all && w->now_us < begun + 20000000)
		world_run_ms(w, 1);
	printf("     %u hosts join at once: all see all after %" PRIu64 " ms, %" PRIu64 " bytes and %" PRIu64
	       " packets sent by a host\n",
		w->host_count, (w->now_us - begun) / 1000, w->bytes / w->host_count, w->packets / w->host_count);
	expect(w, pairs_alive(w) == all, "all see all");
	expect(w, w->now_us - begun < 300000, "before anybody had to be asked itself");
	expect(w, w->bytes / w->host_count < 9900, "at the cost of about what there is to know");
	for (unsigned i = 1; i < w->host_count; i++)
		together += counters(w, i)->admissions_together;
	expect(w, together > all * 3 / 4, "most admissions are verified with others");
	for (unsigned i = 1; i < w->host_count; i++)
		expect(w, !published_itself(w, 0, i), "which their admissions say");
	expect_quiet(w, 5000);
}

/* As on a machine that starts them one after another: the admissions of a moment share packets, acks or not. */
static void newcomers_of_a_moment_share_packets(struct world *w)
{
	uint64_t bytes, packets;

	world_start(w, 0);
	world_run_ms(w, 2000);
	w->bytes = w->packets = 0;
	for (unsigned i = 1; i < w->host_count; i++) {
		world_join(w, i, 0);
		world_run_ms(w, 6);
	}
	while (pairs_alive(w) < w->host_count * w->host_count && w->now_us < 20000000)
		world_run_ms(w, 1);
	bytes = w->bytes / w->host_count;
	packets = w->packets / w->host_count;
	printf("     %u hosts join in %u ms: %" PRIu64 " bytes and %" PRIu64 " packets sent by a host\n", w->host_count,
		6 * w->host_count, bytes, packets);
	expect(w, pairs_alive(w) == w->host_count * w->host_count, "all see all");
	expect(w, bytes < 10200 && packets < 20, "at little more than all at once cost");
	expect_quiet(w, 5000);
}

/* The welcome is lost, and with it the process that asked: the others were told another boot tag than that of the next one. */
static void newcomer_asks_again_as_another_process(struct world *w)
{
	unsigned last = w->host_count - 1;

	world_start(w, 0);
	for (unsigned i = 1; i < last; i++)
		world_join(w, i, 0);
	world_run_ms(w, 3000);
	world_cut(w, 0, last, true);
	world_join(w, last, 0);
	world_run_ms(w, 100);
	world_crash(w, last);
	world_cut(w, 0, last, false);
	world_join(w, last, 0);
	expect_quiet(w, 3000);
	for (unsigned i = 0; i < last; i++) {
		expect(w, published_itself(w, i, last), "it says itself who it is now");
		expect(w, i == 0 || !published_itself(w, last, i), "the others need not");
	}
}

/* Who admitted it dies before it can introduce it. */
static void newcomer_survives_its_source(struct world *w)
{
	unsigned last = w->host_count - 1;

	world_start(w, 0);
	for (unsigned i = 1; i < last; i++)
		world_join(w, i, 0);
	world_run_ms(w, 3000);
	world_join(w, last, 0);
	while (!w->hosts[last].gossip && !w->failure[0])
		world_run_ms(w, 1);
	world_run_ms(w, 50);
	world_crash(w, 0);
	world_run_ms(w, 8000);
	for (unsigned i = 1; i < last; i++) {
		struct gossip_member m = {.state = GOSSIP_LEFT};

		expect(w, gossip_member_get(w->hosts[i].gossip, w->hosts[last].hostno, &m) && m.state == GOSSIP_ALIVE,
			"all others know the newcomer");
	}
	world_restart(w, 0, true);
	expect_quiet(w, 5000);
}

static void lone_host_is_in_step(struct world *w)
{
	world_start(w, 0);
	expect(w, gossip_in_step(w->hosts[0].gossip), "a lone host is in step at once");
	world_put(w, 0, 1, "k1");
	world_run_ms(w, 10000);
	expect(w, gossip_in_step(w->hosts[0].gossip), "and stays so");
}

static void not_in_step_before_all_were_compared(struct world *w)
{
	begin_within(w, 5000);
	put_many(w, 1, 3, 10);
	expect_quiet(w, 2000);
	world_restart(w, 0, true);
	expect(w, !gossip_in_step(w->hosts[0].gossip), "a host that restarted is not in step");
	expect_quiet(w, 3000);
	world_crash(w, 0);
	for (unsigned i = 1; i < w->host_count; i++)
		world_crash(w, i);
	world_restart(w, 0, true);
	world_run_ms(w, 2000);
	expect(w, !gossip_in_step(w->hosts[0].gossip), "nor when nobody answers yet");
	world_run_ms(w, 10000);
	expect(w, gossip_in_step(w->hosts[0].gossip), "but when they all are dead");
}

static void strangers_are_refused(struct world *w)
{
	uint8_t junk[GOSSIP_PACKET_MAX];

	begin_within(w, 5000);
	for (unsigned i = 0; i < 2000; i++) {
		size_t len = sim_rng_below(&w->rng, sizeof(junk) + 1);

		for (size_t j = 0; j < len; j++)
			junk[j] = (uint8_t)sim_rng_next(&w->rng);
		if (len > 4 && i % 2) {
			junk[0] = (uint8_t)(FRAME_VERSION << 4 | (i / 2) % 4);
			memcpy(junk + 1, (const uint8_t[]){FRAME_KEY_ID_FIRST, 0, 0, 2}, 4);
		}
		world_inject(w, 0, junk, len);
	}
	world_run_ms(w, 1000);
	expect(w,
		counters(w, 0)->refused_short + counters(w, 0)->refused_version + counters(w, 0)->refused_sender +
				counters(w, 0)->refused_key + counters(w, 0)->refused_boot + counters(w, 0)->refused_join >=
			2000,
		"each is counted by reason");
	expect_quiet(w, 1000);
}

static void same_seed_is_same_run(struct world *w)
{
	uint64_t digests[2];

	for (unsigned i = 0; i < 2; i++) {
		struct world *other = world_new(w->seed, w->host_count, false);

		explore(other);
		if (other->failure[0])
			world_fail(w, "%s", other->failure);
		digests[i] = other->digest;
		world_free(other);
	}
	expect(w, digests[0] == digests[1], "the same seed delivers the same packets at the same times");
}

const struct scenario gossip_scenarios[] = {
	{"records_reach_all", 3, false, records_reach_all},
	{"equal_put_is_silent", 3, false, equal_put_is_silent},
	{"what_may_wait_leaves_together", 10, false, what_may_wait_leaves_together},
	{"loss_is_repaired", 6, false, loss_is_repaired},
	{"lost_push_is_repeated", 5, false, lost_push_is_repeated},
	{"burst_goes_out_in_pace", 5, false, burst_goes_out_in_pace},
	{"big_values_fit", 2, false, big_values_fit},
	{"below_the_floor_gets_a_listing", 4, false, below_the_floor_gets_a_listing},
	{"acknowledged_deletions_are_forgotten", 4, false, acknowledged_deletions_are_forgotten},
	{"restart_in_a_new_epoch_does_not_flicker", 4, false, restart_in_a_new_epoch_does_not_flicker},
	{"restart_in_the_same_epoch_does_not_flicker", 4, false, restart_in_the_same_epoch_does_not_flicker},
	{"what_one_life_of_an_epoch_put_does_not_come_back_after_the_next", 4, false,
		what_one_life_of_an_epoch_put_does_not_come_back_after_the_next},
	{"older_state_goes_past_what_others_know", 3, false, older_state_goes_past_what_others_know},
	{"everybody_restarts_at_once", 12, false, everybody_restarts_at_once},
	{"old_batch_brings_nothing_back", 3, false, old_batch_brings_nothing_back},
	{"checker_notices_a_broken_rule", 3, false, checker_notices_a_broken_rule},
	{"who_repeats_an_epoch_is_refused_and_takes_a_later_one", 3, false,
		who_repeats_an_epoch_is_refused_and_takes_a_later_one},
	{"crash_is_noticed_and_return_too", 3, false, crash_is_noticed_and_return_too},
	{"crash_is_noticed_and_return_too", 12, false, crash_is_noticed_and_return_too},
	{"crash_is_noticed_and_return_too", 2, false, crash_is_noticed_and_return_too},
	{"cut_heals_in_two_seconds", 3, false, cut_heals_in_two_seconds},
	{"cut_heals_in_two_seconds", 20, false, cut_heals_in_two_seconds},
	{"healing_kills_nobody", 20, false, healing_kills_nobody},
	{"isolated_host_returns_in_two_seconds", 3, false, isolated_host_returns_in_two_seconds},
	{"isolated_host_returns_in_two_seconds", 20, false, isolated_host_returns_in_two_seconds},
	{"one_way_cut_kills_nobody", 6, false, one_way_cut_kills_nobody},
	{"loss_kills_nobody", 10, false, loss_kills_nobody},
	{"starved_host_harms_nobody_else", 10, false, starved_host_harms_nobody_else},
	{"paused_host_blames_nobody", 6, false, paused_host_blames_nobody},
	{"short_pauses_are_survived", 6, false, short_pauses_are_survived},
	{"leaving_is_no_death", 4, false, leaving_is_no_death},
	{"moved_host_is_followed", 3, false, moved_host_is_followed},
	{"cluster_grows_by_tokens", 12, false, cluster_grows_by_tokens},
	{"joiner_knows_all_at_once", 10, false, joiner_knows_all_at_once},
	{"newcomers_need_no_handshakes", 50, false, newcomers_need_no_handshakes},
	{"newcomers_of_a_moment_share_packets", 50, false, newcomers_of_a_moment_share_packets},
	{"newcomer_asks_again_as_another_process", 6, false, newcomer_asks_again_as_another_process},
	{"newcomer_survives_its_source", 10, false, newcomer_survives_its_source},
	{"lone_host_is_in_step", 1, false, lone_host_is_in_step},
	{"not_in_step_before_all_were_compared", 3, false, not_in_step_before_all_were_compared},
	{"strangers_are_refused", 3, false, strangers_are_refused},
	{"same_seed_is_same_run", 7, false, same_seed_is_same_run},
	{NULL, 0, false, NULL},
};

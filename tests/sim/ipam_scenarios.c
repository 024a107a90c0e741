/* Addresses over gossip: real ipam cores on real gossip cores. After every grant the whole cluster is looked at: an address that
 * two running hosts have given to an endpoint ends the run (I2). When quiet, what is held by all plus what is reserved is the
 * pool (I8). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/custody.h"
#include "tests/sim/pool.h"
#include "tests/sim/scenario.h"
#include "tests/sim/truth.h"

#define ADDRESSES CUSTODY_ADDRESSES

struct leases {
	struct id128 pool;
	struct ipam_pool_def def;
	struct custody_view view;
	unsigned granted, exhausted, other;
	uint64_t ticket;
	uint64_t slow_ms;
};

static struct leases *leases_of(struct world *w)
{
	return w->scenario;
}

static void on_complete(struct sim_host *host, uint64_t ticket, const struct ipam_result *result)
{
	struct world *w = host->world;
	struct leases *l = leases_of(w);
	uint8_t last = result->address.bytes[3];

	(void)ticket;
	if (result->code == IPAM_EXHAUSTED)
		l->exhausted++;
	else if (result->code != IPAM_GRANTED)
		l->other++;
	if (result->code != IPAM_GRANTED)
		return;
	l->granted++;
	if (l->view.holder[last] != 0)
		world_fail(w, "host %u gives out .%u, which host %u has given already", host->hostno, last, l->view.holder[last]);
	if (last == 0 || last == 255)
		world_fail(w, "host %u gives out .%u, an edge of the pool", host->hostno, last);
	l->view.holder[last] = host->hostno;
}

static void check_custody(struct world *w)
{
	custody_check(w, &leases_of(w)->view);
}

void pool_begin(struct world *w)
{
	struct leases *l = calloc(1, sizeof(*l));
	struct err err = {0};

	if (!l)
		abort();
	w->scenario = l;
	w->hooks.complete = on_complete;
	memset(l->pool.bytes, 5, sizeof(l->pool.bytes));
	l->view = (struct custody_view){.pool = l->pool, .first = 1, .last = ADDRESSES - 2};
	l->def = (struct ipam_pool_def){.id = l->pool, .edges_reserved = true};
	prefix_parse("10.9.0.0/24", &l->def.prefix, &err);
	if (ipam_pool_create(w->hosts[0].ipam, &l->def, host_now_ms(&w->hosts[0]), &err) < 0)
		world_fail(w, "pool: %s", err.text);
	for (unsigned i = 0; i < w->host_count; i++) {
		uint64_t now_ms = host_now_ms(&w->hosts[i]);

		if (!w->hosts[i].ipam) /* joins later */
			continue;
		if (i > 0 && ipam_pool_join(w->hosts[i].ipam, &l->def, now_ms, &err) < 0)
			world_fail(w, "pool: %s", err.text);
		ipam_pool_want(w->hosts[i].ipam, &l->pool, true, 0, now_ms);
		world_touch(w, i);
	}
	w->hooks.saved = check_custody;
	world_run_ms(w, 2000);
}

static void begin(struct world *w)
{
	world_introduce_all(w);
	world_start_all(w);
	expect_quiet(w, 10000);
	pool_begin(w);
}

void pool_end(struct world *w)
{
	w->hooks.saved = NULL;
	w->hooks.complete = NULL;
	free(w->scenario);
	w->scenario = NULL;
}

static void request(struct world *w, unsigned host)
{
	struct leases *l = leases_of(w);
	char owner[32];
	struct ipam_want want = {.pool = l->pool, .owner = owner};

	snprintf(owner, sizeof(owner), "endpoint-%" PRIu64, ++l->ticket);
	ipam_request(w->hosts[host].ipam, &want, l->ticket, world_now_ms(w));
	world_touch(w, host);
}

static void release_some(struct world *w, unsigned host)
{
	struct leases *l = leases_of(w);
	unsigned last = 1 + sim_rng_below(&w->rng, 254);

	if (l->view.holder[last] != w->hosts[host].hostno)
		return;
	l->view.holder[last] = 0;
	ipam_release(
		w->hosts[host].ipam, &l->pool, &(struct ip){.family = 4, .bytes = {10, 9, 0, (uint8_t)last}}, world_now_ms(w));
	world_touch(w, host);
}

static void add_held(void *ctx, const struct ipam_share *share)
{
	uint64_t *held = ctx;

	if (share->hostno == (uint32_t)(*held >> 32))
		*held += (uint64_t)share->held;
}

/* What each host itself says that it holds, summed. */
static unsigned held_by_all(struct world *w)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < w->host_count; i++) {
		uint64_t held = (uint64_t)w->hosts[i].hostno << 32;

		ipam_each_share(w->hosts[i].ipam, &leases_of(w)->pool, add_held, &held);
		sum += (unsigned)(held & 0xffffffff);
	}
	return sum;
}

static bool none_is_lost(struct world *w)
{
	struct ipam_totals totals;

	if (!ipam_pool_totals(w->hosts[0].ipam, &leases_of(w)->pool, &totals))
		return false;
	return held_by_all(w) + (unsigned)totals.reserved == ADDRESSES;
}

static void expect_none_lost(struct world *w)
{
	struct ipam_totals totals = {0};

	if (world_run_until(w, 20000, 100, none_is_lost))
		return;
	ipam_pool_totals(w->hosts[0].ipam, &leases_of(w)->pool, &totals);
	world_fail(w, "all hosts hold %u addresses, %u are reserved, the pool has %u", held_by_all(w), (unsigned)totals.reserved,
		ADDRESSES);
}

static void fill_to_the_last_address(struct world *w)
{
	struct leases *l;

	begin(w);
	l = leases_of(w);
	for (unsigned i = 0; i < 254 && !w->failure[0]; i++) {
		request(w, sim_rng_below(&w->rng, w->host_count));
		world_run_ms(w, 20);
	}
	world_run_ms(w, 5000);
	printf("     filled: %u addresses of a /24 given by %u hosts\n", l->granted, w->host_count);
	if (l->granted != 254)
		world_fail(w, "254 addresses were asked for one after the other, %u given, %u exhausted, %u other", l->granted,
			l->exhausted, l->other);
	request(w, 0);
	world_run_ms(w, 5000);
	if (l->granted == 254 && l->exhausted != 1)
		world_fail(w, "the 255th is not refused as exhausted");
	expect_none_lost(w);
	pool_end(w);
}

static void fill_at_once(struct world *w)
{
	struct leases *l;

	begin(w);
	l = leases_of(w);
	for (unsigned i = 0; i < 200; i++)
		request(w, i % w->host_count);
	world_run_ms(w, 10000);
	if (l->granted != 200)
		world_fail(w, "200 addresses were asked for at once, %u given, %u exhausted, %u other", l->granted, l->exhausted,
			l->other);
	expect_none_lost(w);
	pool_end(w);
}

static void both_sides_of_a_cut_allocate(struct world *w)
{
	struct leases *l;
	unsigned before;

	begin(w);
	l = leases_of(w);
	world_partition_at(w, w->host_count / 2);
	for (unsigned i = 0; i < 600 && !w->failure[0]; i++) {
		unsigned host = sim_rng_below(&w->rng, w->host_count);

		if (i % 3 == 2)
			release_some(w, host);
		else
			request(w, host);
		world_run_ms(w, 100);
	}
	world_heal(w);
	expect_quiet(w, 3000);
	before = l->granted;
	expect_none_lost(w);
	for (unsigned last = 1; last < 255; last++)
		if (l->view.holder[last] == 0)
			before++;
	for (unsigned i = 0; i < 300 && l->granted < before && !w->failure[0]; i++) {
		request(w, sim_rng_below(&w->rng, w->host_count));
		world_run_ms(w, 100);
	}
	world_run_ms(w, 5000);
	if (l->granted != before)
		world_fail(w, "after the heal %u of %u free addresses can be given", before - l->granted, before);
	expect_none_lost(w);
	pool_end(w);
}

static void messages_may_be_lost(struct world *w)
{
	struct leases *l;

	begin(w);
	l = leases_of(w);
	w->faults.loss = 200;
	w->faults.duplicate = 100;
	w->faults.reorder = 100;
	for (unsigned i = 0; i < 200 && !w->failure[0]; i++) {
		request(w, sim_rng_below(&w->rng, w->host_count));
		world_run_ms(w, 50);
	}
	w->faults.loss = w->faults.duplicate = w->faults.reorder = 0;
	world_run_ms(w, 20000);
	if (l->granted + l->exhausted + l->other != 200)
		world_fail(w, "200 requests, %u answers", l->granted + l->exhausted + l->other);
	expect_none_lost(w);
	pool_end(w);
}

/* ---- random ---- */

/* The daemon knows its pools from its own store; the leases of this boot survive a crash of the process. */
void pool_restart(struct world *w, unsigned host, bool new_epoch)
{
	struct leases *l = leases_of(w);
	struct err err = {0};
	uint64_t now_ms;

	world_restart(w, host, new_epoch);
	now_ms = host_now_ms(&w->hosts[host]);
	if (ipam_pool_join(w->hosts[host].ipam, &l->def, now_ms, &err) < 0)
		world_fail(w, "pool after a restart: %s", err.text);
	ipam_pool_want(w->hosts[host].ipam, &l->pool, true, 0, now_ms);
	world_touch(w, host);
}

/* Its containers are gone too. */
void pool_power_cut(struct world *w, unsigned host)
{
	struct leases *l = leases_of(w);

	world_power_cut(w, host);
	for (unsigned i = 0; i < ADDRESSES; i++)
		if (l->view.holder[i] == w->hosts[host].hostno)
			l->view.holder[i] = 0;
}

void pool_act(struct world *w, unsigned host)
{
	if (sim_rng_permille(&w->rng, 300))
		release_some(w, host);
	else
		request(w, host);
}

/* One that is free by chance, by its name, from a host by chance. */
static void expect_named(struct world *w)
{
	struct leases *l = leases_of(w);
	unsigned last = 1 + sim_rng_below(&w->rng, ADDRESSES - 2), host = sim_rng_below(&w->rng, w->host_count);
	unsigned before = l->granted;
	bool taken = l->view.holder[last] != 0;
	char owner[32];
	struct ipam_want want = {.pool = l->pool,
		.owner = owner,
		.address = {.family = 4, .bytes = {10, 9, 0, (uint8_t)last}},
		.timeout_ms = 10000};

	snprintf(owner, sizeof(owner), "endpoint-%" PRIu64, ++l->ticket);
	ipam_request(w->hosts[host].ipam, &want, l->ticket, host_now_ms(&w->hosts[host]));
	world_touch(w, host);
	world_run_ms(w, 11000);
	if ((l->granted != before) == taken)
		world_fail(w, "I10: .%u is %s, and host %u %s it", last, taken ? "taken" : "free", w->hosts[host].hostno,
			taken ? "got" : "did not get");
}

static void expect_any(struct world *w)
{
	struct leases *l = leases_of(w);
	unsigned before = l->granted, taken = 0;

	for (unsigned i = 0; i < ADDRESSES; i++)
		taken += l->view.holder[i] != 0;
	request(w, sim_rng_below(&w->rng, w->host_count));
	world_run_ms(w, 3000);
	if (taken < ADDRESSES - 2 && l->granted == before)
		world_fail(w, "I9: %u addresses are free, and none was got", ADDRESSES - 2 - taken);
}

void pool_expect_sound(struct world *w)
{
	for (unsigned i = 0; i < w->host_count; i++)
		if (w->hosts[i].set_back)
			return; /* what it had is lost until it is forgotten */
	expect_none_lost(w);
	expect_any(w);
	expect_named(w);
	check_custody(w);
}

/* What no host may do: take the lowest address that nobody is heard to have, without custody of it. */
static void take_lowest_heard_free(struct world *w, unsigned host)
{
	struct ipam_result result = {.code = IPAM_GRANTED, .address = {.family = 4, .bytes = {10, 9, 0, 0}}};
	bool taken = true;

	for (unsigned last = 1; taken && last < ADDRESSES - 1; last++) {
		char key[24];
		size_t len;

		taken = false;
		snprintf(key, sizeof(key), "taken-%u", last);
		for (unsigned origin = 1; origin <= w->host_count; origin++)
			taken |= gossip_get(w->hosts[host].gossip, origin, 77, key, strlen(key), &len) != NULL;
		if (taken)
			continue;
		gossip_put(w->hosts[host].gossip, 77, key, strlen(key), "", 0, world_now_ms(w), NULL);
		result.address.bytes[3] = (uint8_t)last;
	}
	world_touch(w, host);
	on_complete(&w->hosts[host], 0, &result);
}

/* The checker must notice it: this scenario fails unless it does. */
static void checker_notices_addresses_without_custody(struct world *w)
{
	bool noticed;

	begin(w);
	for (unsigned i = 0; i < 5; i++) {
		take_lowest_heard_free(w, i % w->host_count);
		world_run_ms(w, 100);
	}
	if (w->failure[0]) {
		pool_end(w);
		return;
	}
	world_partition_at(w, w->host_count / 2);
	take_lowest_heard_free(w, 0);
	world_run_ms(w, 100);
	take_lowest_heard_free(w, w->host_count - 1);
	noticed = strstr(w->failure, "has given already") != NULL;
	w->failure[0] = '\0';
	if (!noticed)
		world_fail(w, "one address was given on both sides of a cut and the checker did not say so");
	pool_end(w);
}

/* ---- a disk that was set back ---- */

static void know_pool(struct world *w, unsigned host)
{
	struct err err = {0};

	if (ipam_pool_join(w->hosts[host].ipam, &leases_of(w)->def, world_now_ms(w), &err) < 0)
		world_fail(w, "pool after going back: %s", err.text);
	ipam_pool_want(w->hosts[host].ipam, &leases_of(w)->pool, true, 0, world_now_ms(w));
	world_touch(w, host);
}

/* Host 0 made the pool and gives most of it away behind its backup. */
static void give_away_and_go_back(struct world *w)
{
	begin(w);
	world_run_ms(w, 1000);
	world_keep_image(w, 0);
	for (unsigned i = 0; i < 200 && !w->failure[0]; i++) {
		request(w, 1 + i % (w->host_count - 1));
		world_run_ms(w, 20);
	}
	world_crash(w, 0);
	world_roll_back(w, 0);
	world_restart(w, 0, true);
	know_pool(w, 0);
	for (unsigned i = 0; i < 40 && !w->failure[0]; i++) {
		request(w, i % 2 ? 0 : 1 + i % (w->host_count - 1));
		world_run_ms(w, 50);
	}
	world_run_ms(w, 5000);
}

static void a_state_that_was_set_back_gives_nothing(struct world *w)
{
	give_away_and_go_back(w);
	if (ipam_holds(w->hosts[0].ipam) != IPAM_HOLD_FOR_GOOD)
		world_fail(w, "host 1 was set back and goes on giving addresses");
	pool_end(w);
}

/* A rack is set up anew and one disk in it comes from a backup: the others that start with it have nothing against it, for they
 * have heard nothing of it yet. That is no word for it; who has run all the time knows. */
static void who_has_just_started_vouches_for_nobody(struct world *w)
{
	const unsigned started = w->host_count - 2;
	bool believed = false;

	begin(w);
	while (!w->hosts[0].base.count && !w->failure[0])
		world_run_ms(w, 1);
	world_keep_image(w, 0);
	for (unsigned i = 0; i < 200 && !w->failure[0]; i++) {
		request(w, 1 + i % (w->host_count - 1));
		world_run_ms(w, 20);
	}
	for (unsigned i = 0; i < started; i++)
		world_crash(w, i);
	world_roll_back(w, 0);
	for (unsigned i = 0; i < started; i++)
		world_restart(w, i, true);
	know_pool(w, 0);
	if (!w->hosts[0].set_back)
		world_fail(w, "host 1 has given nothing away since its backup");
	for (unsigned i = 0; i < 3000 && !w->failure[0]; i++) {
		believed |= gossip_standing(w->hosts[0].gossip) == GOSSIP_STANDING_SOUND;
		world_run_ms(w, 1);
	}
	if (believed)
		world_fail(w, "host 1 was set back, and hosts that know nothing of it were taken at their word");
	if (ipam_holds(w->hosts[0].ipam) != IPAM_HOLD_FOR_GOOD)
		world_fail(w, "host 1 was set back and nobody told it");
	pool_end(w);
}

/* The checker must notice what comes of it when nobody asks. */
static void checker_notices_a_state_that_was_set_back(struct world *w)
{
	bool noticed;

	w->breakage = SIM_NOBODY_ASKED;
	give_away_and_go_back(w);
	noticed = strstr(w->failure, "has given already") || strncmp(w->failure, "I", 1) == 0;
	w->failure[0] = '\0';
	if (!noticed)
		world_fail(w,
			"a host gave addresses that it had handed away before it was set back, and the checker did not say so");
	pool_end(w);
}

/* What it does alone raises its own mark above what the others know. They know better all the same. */
static void set_back_and_alone_is_found_later(struct world *w)
{
	struct err err = {0};

	begin(w);
	world_keep_image(w, 0);
	for (unsigned i = 0; i < 200 && !w->failure[0]; i++) {
		request(w, 1);
		world_run_ms(w, 20);
	}
	world_partition_at(w, 1);
	world_crash(w, 0);
	world_roll_back(w, 0);
	world_restart(w, 0, true);
	know_pool(w, 0);
	world_run_ms(w, 20000);
	if (ipam_holds(w->hosts[0].ipam) != IPAM_HOLD_NONE)
		world_fail(w, "a host that finds nobody to ask gives nothing after 20 s");
	for (unsigned i = 1; i <= 50; i++) {
		struct ipam_pool_def def = leases_of(w)->def;

		memset(def.id.bytes, 100 + (int)i, sizeof(def.id.bytes));
		if (ipam_pool_create(w->hosts[0].ipam, &def, world_now_ms(w), &err) < 0)
			world_fail(w, "pool made alone: %s", err.text);
	}
	world_touch(w, 0);
	world_heal(w);
	world_run_ms(w, 15000);
	if (ipam_holds(w->hosts[0].ipam) != IPAM_HOLD_FOR_GOOD)
		world_fail(w, "others can be reached again, and the host that was set back was not told");
	pool_end(w);
}

static void a_restart_is_not_taken_for_going_back(struct world *w)
{
	begin(w);
	for (unsigned i = 0; i < 100 && !w->failure[0]; i++) {
		unsigned host = sim_rng_below(&w->rng, w->host_count);

		request(w, sim_rng_below(&w->rng, w->host_count));
		world_run_ms(w, 20);
		if (i % 10 != 0)
			continue;
		pool_restart(w, host, true);
		world_run_ms(w, 1000);
		if (ipam_holds(w->hosts[host].ipam) != IPAM_HOLD_NONE)
			world_fail(w, "host %u is on hold a second after a plain restart", w->hosts[host].hostno);
	}
	expect_none_lost(w);
	pool_end(w);
}

static bool host_0_is_forgotten(struct world *w)
{
	struct ipam_decree decree;

	return ipam_decree_get(w->hosts[2].ipam, w->hosts[0].hostno, &decree) && decree.done;
}

/* Both sides of the cut and the newcomer give addresses; and nobody waits for the word of a number that nobody has. */
static void who_was_admitted_twice_gets_each_address_once(struct world *w)
{
	const unsigned joiner = w->host_count - 1;
	struct err err = {0};

	world_start(w, 0);
	for (unsigned i = 1; i < joiner; i++)
		world_join(w, i, 0);
	world_run_ms(w, 3000);
	pool_begin(w);
	admit_twice(w);
	know_pool(w, joiner);
	for (unsigned i = 0; i < 100; i++) {
		request(w, i % w->host_count);
		world_run_ms(w, 50);
	}
	world_heal(w);
	for (unsigned i = 0; i < 2 * ADDRESSES; i++) {
		request(w, i % w->host_count);
		world_run_ms(w, 50);
	}
	world_run_ms(w, 10000);
	expect(w, leases_of(w)->granted == ADDRESSES - 2, "all addresses are given, each once");
	pool_expect_sound(w);
	w->hooks.saved = NULL; /* from here on what is on host 0's disk does not count */
	world_crash(w, 0);
	world_run_ms(w, 60000);
	if (ipam_forget(w->hosts[2].ipam, w->hosts[0].hostno, &w->hosts[0].identity.id, true, NULL, 0, world_now_ms(w), &err) < 0)
		world_fail(w, "the first sponsor is not forgotten: %s", err.text);
	world_touch(w, 2);
	expect(w, world_run_until(w, 20000, 100, host_0_is_forgotten), "its estate moves");
	pool_end(w);
}

const struct scenario ipam_scenarios[] = {
	{"who_was_admitted_twice_gets_each_address_once", 5, true, who_was_admitted_twice_gets_each_address_once},
	{"a_state_that_was_set_back_gives_nothing", 6, true, a_state_that_was_set_back_gives_nothing},
	{"who_has_just_started_vouches_for_nobody", 12, true, who_has_just_started_vouches_for_nobody},
	{"checker_notices_a_state_that_was_set_back", 6, true, checker_notices_a_state_that_was_set_back},
	{"set_back_and_alone_is_found_later", 4, true, set_back_and_alone_is_found_later},
	{"a_restart_is_not_taken_for_going_back", 8, true, a_restart_is_not_taken_for_going_back},
	{"fill_to_the_last_address", 50, true, fill_to_the_last_address},
	{"fill_to_the_last_address", 3, true, fill_to_the_last_address},
	{"fill_at_once", 20, true, fill_at_once},
	{"both_sides_of_a_cut_allocate", 50, true, both_sides_of_a_cut_allocate},
	{"both_sides_of_a_cut_allocate", 4, true, both_sides_of_a_cut_allocate},
	{"messages_may_be_lost", 8, true, messages_may_be_lost},
	{"checker_notices_addresses_without_custody", 6, true, checker_notices_addresses_without_custody},
	{NULL, 0, false, NULL},
};

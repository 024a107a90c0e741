/* Scenarios of hosts that are gone for good, and of what they leave behind. */
#include <stdio.h>

#include "gossip/core_internal.h"
#include "tests/sim/scenario.h"

#define GONE 1 /* who is gone */

static void forget_at(struct world *w, unsigned host)
{
	gossip_forget(w->hosts[host].gossip, &w->hosts[GONE].identity.id, false, host_now_ms(&w->hosts[host]));
	world_touch(w, host);
}

static bool knows_the_others(struct world *w, unsigned host)
{
	for (unsigned i = 0; i < w->host_count; i++) {
		struct gossip_member m;

		if (i != host && i != GONE &&
			(!gossip_member_get(w->hosts[host].gossip, w->hosts[i].hostno, &m) || m.state != GOSSIP_ALIVE))
			return false;
	}
	return true;
}

static bool all_know_all_others(struct world *w)
{
	for (unsigned i = 0; i < w->host_count; i++)
		if (i != GONE && (!w->hosts[i].gossip || !knows_the_others(w, i)))
			return false;
	return true;
}

/* Told that the host is forgotten before it has heard of anybody. */
static void join_and_forget(struct world *w, unsigned host)
{
	world_join(w, host, 0);
	for (unsigned ms = 0; ms < 1000 && !w->hosts[host].gossip; ms++)
		world_run_ms(w, 1);
	expect(w, w->hosts[host].gossip, "it is in");
	forget_at(w, host);
}

/* Half of them have published the admission that it signed since, in a second life. */
static void who_joins_when_the_sponsor_of_others_is_forgotten_knows_them(struct world *w)
{
	const unsigned last = w->host_count - 1;

	world_start(w, 0);
	world_run_ms(w, 1000);
	world_join(w, GONE, 0);
	world_run_ms(w, 1000);
	for (unsigned i = GONE + 1; i < last; i++)
		world_join(w, i, GONE);
	world_run_ms(w, 2000);
	for (unsigned i = GONE + 1; i < last; i += 2)
		world_restart(w, i, true);
	world_run_ms(w, 5000);
	world_crash(w, GONE);
	world_run_ms(w, 10000);
	for (unsigned i = 0; i < last; i++)
		if (i != GONE)
			forget_at(w, i);
	world_run_ms(w, 1000);
	join_and_forget(w, last);
	expect(w, world_run_until(w, 5000, 100, all_know_all_others), "the newcomer and all others know each other");
}

/* It admitted all of them, is down, and none of them runs any more that had its admission. */
static void the_first_host_goes_and_the_others_start_again(struct world *w)
{
	world_start(w, GONE);
	world_run_ms(w, 1000);
	for (unsigned i = 0; i + 1 < w->host_count; i++)
		if (i != GONE)
			world_join(w, i, GONE);
	world_run_ms(w, 5000);
	world_crash(w, GONE);
	world_run_ms(w, 10000);
	for (unsigned i = 0; i + 1 < w->host_count; i++)
		if (i != GONE)
			world_crash(w, i);
	for (unsigned i = 0; i + 1 < w->host_count; i++)
		if (i != GONE)
			world_start(w, i);
	world_run_ms(w, 1000);
}

static void who_joins_when_the_first_host_is_gone_knows_all(struct world *w)
{
	struct gossip_member m;

	the_first_host_goes_and_the_others_start_again(w);
	world_join(w, w->host_count - 1, 0);
	expect(w, world_run_until(w, 30000, 100, all_know_all_others), "the newcomer and all others know each other");
	expect(w, gossip_member_get(w->hosts[w->host_count - 1].gossip, w->hosts[GONE].hostno, &m) && m.state == GOSSIP_DEAD,
		"and it knows of the one that is gone");
	expect(w, COUNTED(w, vouched) == 2, "one host signed for two: the one that is gone, and itself");
	world_run_ms(w, 60000);
	expect(w, COUNTED(w, vouched) == 2, "once");
}

static void who_joins_when_the_first_host_is_forgotten_knows_all(struct world *w)
{
	the_first_host_goes_and_the_others_start_again(w);
	for (unsigned i = 0; i + 1 < w->host_count; i++)
		if (i != GONE)
			forget_at(w, i);
	join_and_forget(w, w->host_count - 1);
	expect(w, world_run_until(w, 30000, 100, all_know_all_others), "the newcomer and all others know each other");
	expect(w, COUNTED(w, vouched) == 2, "by the word of one host");
}

/* The last host knows those that the forgotten one admitted, and they know it. */
static bool the_last_knows_those_from_2_on(struct world *w)
{
	const unsigned last = w->host_count - 1;
	struct gossip_member m;

	for (unsigned i = 2; i < last; i++)
		if (!w->hosts[last].gossip || !gossip_member_get(w->hosts[last].gossip, w->hosts[i].hostno, &m) ||
			m.state != GOSSIP_ALIVE || !gossip_member_get(w->hosts[i].gossip, w->hosts[last].hostno, &m) ||
			m.state != GOSSIP_ALIVE)
			return false;
	return true;
}

/* All but 2 and the last were admitted by who is gone, more than a WELCOME names, and 0 says so. 2 hears that it was forgotten
 * before it hears of it, and is the one that vouches once 0 is gone too, and what 0 said with it. */
static void who_vouches_knew_the_forgotten_sponsor_by_its_key_only(struct world *w)
{
	const unsigned last = w->host_count - 1;
	struct gossip_member m;

	world_start(w, GONE);
	world_run_ms(w, 1000);
	for (unsigned i = 0; i < last; i++)
		if (i != GONE && i != 2)
			world_join(w, i, GONE);
	world_run_ms(w, 5000);
	world_crash(w, GONE);
	world_run_ms(w, 10000);
	for (unsigned i = 0; i < last; i++)
		if (i != GONE && i != 2)
			world_crash(w, i);
	for (unsigned i = 0; i < last; i++)
		if (i != GONE && i != 2) {
			world_start(w, i);
			forget_at(w, i);
		}
	world_run_ms(w, 50000);
	join_and_forget(w, 2);
	world_run_ms(w, 5000);
	expect(w, !gossip_member_get(w->hosts[2].gossip, w->hosts[GONE].hostno, &m), "it never was a member there");
	world_crash(w, 0);
	world_run_ms(w, 20000);
	for (unsigned i = 2; i < last; i++)
		world_crash(w, i);
	for (unsigned i = 2; i < last; i++)
		world_start(w, i);
	world_run_ms(w, 50000);
	world_join(w, last, 2);
	expect(w, world_run_until(w, 10000, 100, the_last_knows_those_from_2_on), "who joins now and the others know each other");
}

static bool is_suspected(struct world *w)
{
	struct gossip_member m;

	return gossip_member_get(w->hosts[0].gossip, w->hosts[GONE].hostno, &m) && m.state != GOSSIP_ALIVE;
}

static void note_generation(void *ctx, const struct gossip_key *key)
{
	uint32_t *generation = ctx;

	if (key->state == GOSSIP_KEY_ACTIVE)
		*generation = key->generation;
}

static bool all_others_rotated(struct world *w)
{
	for (unsigned i = 0; i < w->host_count; i++) {
		uint32_t generation = 0;

		if (i == GONE)
			continue;
		gossip_each_key(w->hosts[i].gossip, note_generation, &generation);
		if (generation < 2)
			return false;
	}
	return true;
}

/* The maker dies when one other has its key, and is forgotten before a newcomer hears of it, which cannot be left out. */
static void a_key_of_a_forgotten_host_is_taken_by_who_never_knew_it(struct world *w)
{
	const unsigned last = w->host_count - 1;
	struct err err = {0};

	world_start(w, 0);
	for (unsigned i = 1; i < last; i++)
		world_join(w, i, 0);
	world_run_ms(w, 3000);
	for (unsigned i = 2; i < last; i++)
		world_cut(w, GONE, i, true);
	expect(w, gossip_rotate(w->hosts[GONE].gossip, world_now_ms(w), &err) == 0, "a rotation begins");
	world_touch(w, GONE);
	world_run_ms(w, 100);
	world_crash(w, GONE);
	expect(w, world_run_until(w, 10000, 1, is_suspected), "the death of its maker is noticed");
	for (unsigned i = 0; i < last; i++)
		if (i != GONE)
			forget_at(w, i);
	join_and_forget(w, last);
	expect(w, world_run_until(w, 20000, 100, all_others_rotated), "all have the new key, the newcomer too");
}

const struct scenario forgetting_scenarios[] = {
	{"who_joins_when_the_sponsor_of_others_is_forgotten_knows_them", 60, false,
		who_joins_when_the_sponsor_of_others_is_forgotten_knows_them},
	{"who_joins_when_the_first_host_is_gone_knows_all", 20, false, who_joins_when_the_first_host_is_gone_knows_all},
	{"who_joins_when_the_first_host_is_forgotten_knows_all", 20, false, who_joins_when_the_first_host_is_forgotten_knows_all},
	{"who_vouches_knew_the_forgotten_sponsor_by_its_key_only", 30, false,
		who_vouches_knew_the_forgotten_sponsor_by_its_key_only},
	{"a_key_of_a_forgotten_host_is_taken_by_who_never_knew_it", 5, false,
		a_key_of_a_forgotten_host_is_taken_by_who_never_knew_it},
	{NULL, 0, false, NULL},
};

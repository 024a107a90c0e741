/* Rotation of the cluster key among many hosts: under loss, across cuts, with two makers, with deaths and restarts half way.
 * Every host must end with one and the same key, none must be taken for dead because of it, and nothing may stop on the way. */
#include <sodium.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "gossip/core_internal.h"
#include "tests/sim/world.h"

struct seen_keys {
	unsigned count;
	struct gossip_key newest;
	bool sends_newest;
};

static void see_key(void *ctx, const struct gossip_key *key)
{
	struct seen_keys *seen = ctx;

	seen->count++;
	seen->newest = *key; /* the oldest comes first */
	seen->sends_newest = key->state == GOSSIP_KEY_ACTIVE;
}

static struct seen_keys keys_of(struct world *w, unsigned host)
{
	struct seen_keys seen = {0};

	gossip_each_key(w->hosts[host].gossip, see_key, &seen);
	return seen;
}

static uint32_t generation_of(struct world *w, unsigned host)
{
	return keys_of(w, host).newest.generation;
}

static void rotate(struct world *w, unsigned host)
{
	struct err err = {0};

	if (gossip_rotate(w->hosts[host].gossip, world_now_ms(w), &err) < 0)
		fail_msg("%s", err.text);
	world_touch(w, host);
}

/* One key everywhere, later than the first. */
static bool rotated(struct world *w)
{
	struct seen_keys first = {0};
	bool have = false;

	for (unsigned i = 0; i < w->host_count; i++) {
		struct seen_keys seen;

		if (!w->hosts[i].gossip)
			continue;
		seen = keys_of(w, i);
		if (!have)
			first = seen;
		have = true;
		if (seen.count != 1 || seen.newest.generation < 2 ||
			memcmp(seen.newest.fingerprint, first.newest.fingerprint, sizeof(first.newest.fingerprint)) != 0)
			return false;
	}
	return have;
}

static bool all_alive(struct world *w)
{
	for (unsigned i = 0; i < w->host_count; i++)
		if (w->hosts[i].gossip && gossip_member_count(w->hosts[i].gossip, GOSSIP_ALIVE) != w->host_count)
			return false;
	return true;
}

static struct world *cluster(unsigned hosts, uint64_t seed)
{
	struct world *w = world_new(seed, hosts, false);

	world_introduce_all(w);
	world_start_all(w);
	assert_true(world_run_until(w, 20000, 50, all_alive));
	world_run_ms(w, 3000);
	return w;
}

static void end(struct world *w)
{
	if (w->failure[0])
		fail_msg("%s", w->failure);
	world_free(w);
}

static uint64_t deaths(struct world *w)
{
	uint64_t count = 0;

	for (unsigned i = 0; i < w->host_count; i++)
		count += gossip_counters(w->hosts[i].gossip)->deaths + gossip_counters(w->hosts[i].gossip)->suspicions;
	return count;
}

static void a_rotation_reaches_all_and_suspects_nobody(void **state)
{
	struct world *w = cluster(12, 1);
	uint64_t before = deaths(w), refused = 0;

	(void)state;
	w->faults.loss = 20;
	rotate(w, 3);
	assert_true(world_run_until(w, 15000, 50, rotated));
	w->faults.loss = 0;
	assert_int_equal(deaths(w), before);
	for (unsigned i = 0; i < w->host_count; i++)
		refused += gossip_counters(w->hosts[i].gossip)->refused_key;
	assert_int_equal(refused, 0); /* no packet was sealed with a key that its receiver lacked */
	assert_true(all_alive(w));
	end(w);
}

static void a_lone_host_rotates(void **state)
{
	struct world *w = world_new(7, 1, false);

	(void)state;
	world_start(w, 0);
	world_run_ms(w, 100);
	rotate(w, 0);
	assert_true(world_run_until(w, 10000, 50, rotated));
	end(w);
}

static void it_rotates_again_and_again(void **state)
{
	struct world *w = cluster(5, 2);

	(void)state;
	for (unsigned round = 0; round < 6; round++) {
		rotate(w, round % 5);
		assert_true(world_run_until(w, 15000, 50, rotated));
		assert_int_equal(generation_of(w, 0), round + 2);
	}
	end(w);
}

static void a_second_rotation_waits_for_the_first(void **state)
{
	struct world *w = cluster(3, 3);
	struct err err = {0};

	(void)state;
	rotate(w, 0);
	assert_int_equal(gossip_rotate(w->hosts[0].gossip, world_now_ms(w), &err), -1);
	assert_int_equal(err.code, ERR_CONFLICT);
	assert_non_null(strstr(err.text, "under way"));
	assert_true(world_run_until(w, 15000, 50, rotated));
	end(w);
}

static void of_two_makers_at_once_the_same_wins_everywhere(void **state)
{
	(void)state;
	for (uint64_t seed = 10; seed < 15; seed++) {
		struct world *w = cluster(8, seed);
		struct seen_keys seen;
		const struct sim_host *lower = &w->hosts[1], *other = &w->hosts[6];

		if (memcmp(other->identity.id.bytes, lower->identity.id.bytes, 16) < 0)
			lower = other;
		rotate(w, 1);
		rotate(w, 6);
		assert_true(world_run_until(w, 30000, 50, rotated));
		seen = keys_of(w, 0);
		assert_int_equal(seen.newest.generation, 2);
		assert_true(id_equal(&seen.newest.rotator, &lower->identity.id));
		assert_true(all_alive(w));
		end(w);
	}
}

static void what_the_maker_began_the_others_finish(void **state)
{
	struct world *w = cluster(9, 20);

	(void)state;
	/* It reaches some and dies. */
	for (unsigned i = 4; i < 9; i++)
		world_cut(w, 0, i, true);
	rotate(w, 0);
	world_run_ms(w, 100);
	world_crash(w, 0);
	assert_int_equal(generation_of(w, 2), 2);
	assert_int_equal(generation_of(w, 7), 1);
	assert_true(world_run_until(w, 40000, 50, rotated));
	end(w);
}

static void a_restart_half_way_loses_nothing(void **state)
{
	(void)state;
	for (uint64_t at_ms = 0; at_ms < 6000; at_ms += 700) {
		struct world *w = cluster(5, 30 + at_ms);

		rotate(w, 2);
		world_run_ms(w, at_ms);
		world_crash(w, 2);
		world_restart(w, 2, true);
		world_run_ms(w, 50);
		world_crash(w, 4);
		world_restart(w, 4, true);
		if (!world_run_until(w, 40000, 50, rotated))
			fail_msg("restart after %d ms: not one key", (int)at_ms);
		assert_true(world_run_until(w, 20000, 50, all_alive));
		end(w);
	}
}

static void all_restart_half_way(void **state)
{
	struct world *w = cluster(6, 50);

	(void)state;
	rotate(w, 0);
	world_run_ms(w, 250);
	for (unsigned i = 0; i < 6; i++)
		world_crash(w, i);
	for (unsigned i = 0; i < 6; i++)
		world_restart(w, i, true);
	assert_true(world_run_until(w, 40000, 50, rotated));
	assert_true(world_run_until(w, 20000, 50, all_alive));
	end(w);
}

static uint64_t recoveries(struct world *w)
{
	uint64_t count = 0;

	for (unsigned i = 0; i < w->host_count; i++)
		if (w->hosts[i].gossip)
			count += gossip_counters(w->hosts[i].gossip)->recoveries_answered;
	return count;
}

static bool others_rotated(struct world *w)
{
	for (unsigned i = 1; i < w->host_count; i++) {
		struct seen_keys seen = keys_of(w, i);

		if (seen.count != 1 || seen.newest.generation < 2)
			return false;
	}
	return true;
}

/* Host 0 is away while keys change `rounds` times, then back. */
static struct world *missed(uint64_t seed, unsigned rounds)
{
	struct world *w = cluster(6, seed);

	world_crash(w, 0);
	for (unsigned round = 0; round < rounds; round++) {
		world_run_ms(w, 15000);
		rotate(w, 1 + round);
		assert_true(world_run_until(w, 30000, 50, others_rotated));
	}
	world_run_ms(w, 5000);
	return w;
}

static void who_was_away_fetches_the_keys(void **state)
{
	(void)state;
	for (unsigned rounds = 1; rounds < 4; rounds++) {
		struct world *w = missed(60 + rounds, rounds);

		w->faults.loss = 100;
		world_restart(w, 0, true);
		assert_true(world_run_until(w, 20000, 50, all_alive));
		assert_true(world_run_until(w, 20000, 50, rotated));
		assert_true(recoveries(w) > 0);
		assert_int_equal(generation_of(w, 0), rounds + 1);
		end(w);
	}
}

static void who_was_cut_off_fetches_the_keys(void **state)
{
	struct world *w = cluster(6, 70);

	(void)state;
	world_partition(w, 1);
	world_run_ms(w, 20000);
	rotate(w, 3);
	assert_true(world_run_until(w, 30000, 50, others_rotated));
	world_run_ms(w, 10000);
	world_heal(w);
	assert_true(world_run_until(w, 30000, 50, all_alive));
	assert_true(world_run_until(w, 20000, 50, rotated));
	end(w);
}

static bool is_one_key_on_each_side(struct world *w)
{
	for (unsigned i = 0; i < w->host_count; i++) {
		struct seen_keys seen = keys_of(w, i);

		if (seen.count != 1 || seen.newest.generation != 2)
			return false;
	}
	return true;
}

/* Both sides of a cut retire the old key, so that they share none at all when they meet. */
static void two_sides_that_share_no_key_any_more_meet(void **state)
{
	(void)state;
	for (uint64_t seed = 80; seed < 84; seed++) {
		struct world *w = cluster(8, seed);

		world_partition(w, 0x0f);
		world_run_ms(w, 20000);
		rotate(w, 1);
		rotate(w, 6);
		assert_true(world_run_until(w, 40000, 50, is_one_key_on_each_side));
		assert_memory_not_equal(keys_of(w, 0).newest.fingerprint, keys_of(w, 7).newest.fingerprint, 8);
		world_heal(w);
		assert_true(world_run_until(w, 60000, 50, all_alive));
		assert_true(world_run_until(w, 60000, 50, rotated));
		end(w);
	}
}

/* Frames name a key by one byte of a hash: of two later keys that share it, either is beyond the active one. */
static void later_keys_with_one_wire_id_are_heard(void **state)
{
	struct world *w = cluster(2, 96);
	struct keys *keys = &w->hosts[0].gossip->keys;
	struct keyring_key *second = &keys->ring.keys[1], *third = &keys->ring.keys[2];

	(void)state;
	*second = *third = keys->ring.keys[0];
	second->generation = 2;
	third->generation = 3;
	for (uint64_t i = 1; i == 1 || keyring_wire_id(third) != keyring_wire_id(second); i++)
		memcpy(third->secret, &i, sizeof(i));
	keys->ring.count = 3;
	keys_heard(w->hosts[0].gossip, keyring_wire_id(&keys->ring.keys[0]));
	assert_false(keys->newest_in_use);
	keys_heard(w->hosts[0].gossip, keyring_wire_id(third));
	assert_true(keys->newest_in_use);
	keys->newest_in_use = false;
	keys->ring.active = 1; /* then it may be that one */
	keys_heard(w->hosts[0].gossip, keyring_wire_id(third));
	assert_false(keys->newest_in_use);
	end(w);
}

/* ---- forgotten hosts ---- */

static void tell_all(struct world *w, unsigned victim)
{
	for (unsigned i = 0; i < w->host_count; i++)
		if (i != victim) {
			gossip_forget(w->hosts[i].gossip, &w->hosts[victim].identity.id, i == 1, world_now_ms(w));
			world_touch(w, i);
		}
}

static void a_forgotten_host_is_not_heard_and_is_told_so(void **state)
{
	struct world *w = cluster(5, 90);
	struct gossip_member shown;
	uint64_t refused = 0;

	(void)state;
	world_crash(w, 0);
	world_run_ms(w, 15000);
	tell_all(w, 0);
	assert_true(world_run_until(w, 30000, 50, others_rotated)); /* without it */
	world_restart(w, 0, true);
	world_run_ms(w, 20000);
	assert_int_not_equal(gossip_forgotten_by(w->hosts[0].gossip), 0);
	assert_int_equal(generation_of(w, 0), 1); /* nobody gave it the key */
	for (unsigned i = 1; i < 5; i++) {
		assert_true(gossip_member_get(w->hosts[i].gossip, w->hosts[0].hostno, &shown));
		assert_int_equal(shown.state, GOSSIP_LEFT);
		assert_int_equal(gossip_member_count(w->hosts[i].gossip, GOSSIP_ALIVE), 4);
		refused += gossip_counters(w->hosts[i].gossip)->refused_forgotten;
	}
	assert_true(refused > 0);
	end(w);
}

static void what_is_forgotten_stays_so_over_restarts(void **state)
{
	struct world *w = cluster(4, 91);

	(void)state;
	world_crash(w, 0);
	world_run_ms(w, 15000);
	tell_all(w, 0);
	assert_true(world_run_until(w, 30000, 50, others_rotated));
	for (unsigned i = 1; i < 4; i++)
		world_crash(w, i);
	for (unsigned i = 0; i < 4; i++)
		world_restart(w, i, true);
	world_run_ms(w, 20000);
	assert_int_not_equal(gossip_forgotten_by(w->hosts[0].gossip), 0);
	for (unsigned i = 1; i < 4; i++)
		assert_int_equal(gossip_member_count(w->hosts[i].gossip, GOSSIP_ALIVE), 3);
	end(w);
}

/* Killed before it could begin, and with nothing else to remind it. */
static void a_rotation_that_is_owed_survives_a_restart(void **state)
{
	struct world *w = cluster(4, 93);

	(void)state;
	world_crash(w, 0);
	world_run_ms(w, 15000);
	for (unsigned i = 1; i < 4; i++)
		gossip_forget(w->hosts[i].gossip, &w->hosts[0].identity.id, i == 1, world_now_ms(w));
	world_crash(w, 1);
	world_run_ms(w, 1000);
	world_restart(w, 1, true);
	assert_true(world_run_until(w, 30000, 50, others_rotated));
	end(w);
}

/* Rubbish that looks like questions, more than are answered in a second, and a member's question behind it. */
static void rubbish_uses_up_no_answers(void **state)
{
	struct world *w = cluster(3, 94);
	uint8_t packet[GOSSIP_PACKET_MAX] = {0x1f, HANDSHAKE_KIND_RECOVER}, secret[32] = {9};
	const struct gossip_addr from = {.ip = {.family = 4, .bytes = {192, 0, 2, 99}}, .port = 1};
	struct gossip *g = w->hosts[0].gossip;
	struct handshake hs;
	uint64_t refused = gossip_counters(g)->refused_join;

	(void)state;
	for (unsigned i = 0; i < 100; i++) {
		packet[100] = (uint8_t)i;
		gossip_packet(g, &from, packet, sizeof(packet), world_now_ms(w));
	}
	assert_int_equal(gossip_counters(g)->refused_join, refused + 100);
	assert_true(handshake_ask(
		&hs, &w->hosts[1].identity, &g->config.cluster_id, w->hosts[0].identity.public_key, 1, secret, packet));
	gossip_packet(g, &from, packet, sizeof(packet), world_now_ms(w));
	assert_int_equal(gossip_counters(g)->recoveries_answered, 1);
	end(w);
}

/* A host that hears of it late, from one that never knew better, must not bring it back. */
static void one_that_was_not_told_yet_brings_it_back_to_nobody(void **state)
{
	struct world *w = cluster(5, 92);

	(void)state;
	for (unsigned i = 1; i < 4; i++) {
		gossip_forget(w->hosts[i].gossip, &w->hosts[0].identity.id, false, world_now_ms(w));
		world_touch(w, i);
	}
	world_run_ms(w, 20000);
	for (unsigned i = 1; i < 4; i++)
		assert_int_equal(gossip_member_count(w->hosts[i].gossip, GOSSIP_ALIVE), 4);
	gossip_forget(w->hosts[4].gossip, &w->hosts[0].identity.id, false, world_now_ms(w));
	world_touch(w, 4);
	world_run_ms(w, 20000);
	for (unsigned i = 1; i < 5; i++)
		assert_int_equal(gossip_member_count(w->hosts[i].gossip, GOSSIP_ALIVE), 4);
	end(w);
}

/* It has the new key, and stands still before it hears that all have it. The others drop the old one, and start again meanwhile:
 * it can open all that they send, and they nothing of what it sends. */
static void who_was_left_behind_with_both_keys_follows(void **state)
{
	(void)state;
	for (unsigned restarts = 0; restarts < 2; restarts++) {
		struct world *w = cluster(3, 40 + restarts);

		world_cut(w, 1, 2, true); /* host 1's word that it has the key does not arrive */
		rotate(w, 0);
		for (unsigned ms = 0; ms < 5000 && keys_of(w, 2).count < 2; ms++)
			world_run_ms(w, 1);
		assert_int_equal(keys_of(w, 2).count, 2);
		assert_false(keys_of(w, 2).sends_newest);
		world_pause(w, 2);
		world_run_ms(w, 40000);
		assert_int_equal(keys_of(w, 0).count, 1);
		assert_int_equal(keys_of(w, 1).count, 1);
		assert_false(keys_of(w, 2).sends_newest);
		for (unsigned i = 0; i < 2 * restarts; i++)
			world_restart(w, i, true);
		world_heal(w);
		world_resume(w, 2);
		assert_true(world_run_until(w, 40000, 50, rotated));
		assert_true(world_run_until(w, 5000, 50, all_alive));
		end(w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_rotation_reaches_all_and_suspects_nobody),
		cmocka_unit_test(a_lone_host_rotates),
		cmocka_unit_test(it_rotates_again_and_again),
		cmocka_unit_test(a_second_rotation_waits_for_the_first),
		cmocka_unit_test(of_two_makers_at_once_the_same_wins_everywhere),
		cmocka_unit_test(what_the_maker_began_the_others_finish),
		cmocka_unit_test(a_restart_half_way_loses_nothing),
		cmocka_unit_test(all_restart_half_way),
		cmocka_unit_test(who_was_away_fetches_the_keys),
		cmocka_unit_test(who_was_cut_off_fetches_the_keys),
		cmocka_unit_test(later_keys_with_one_wire_id_are_heard),
		cmocka_unit_test(two_sides_that_share_no_key_any_more_meet),
		cmocka_unit_test(who_was_left_behind_with_both_keys_follows),
		cmocka_unit_test(a_forgotten_host_is_not_heard_and_is_told_so),
		cmocka_unit_test(what_is_forgotten_stays_so_over_restarts),
		cmocka_unit_test(a_rotation_that_is_owed_survives_a_restart),
		cmocka_unit_test(rubbish_uses_up_no_answers),
		cmocka_unit_test(one_that_was_not_told_yet_brings_it_back_to_nobody),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("keys", tests, NULL, NULL);
}

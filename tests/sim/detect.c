/* Scenarios of failure detection, one for each thing that docs/membership.md says of it: whom a host probes, how long it waits,
 * who confirms a suspicion, what makes it doubt itself. They look into the core, since a constant that is another one would still
 * work. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/core_internal.h"
#include "tests/sim/scenario.h"
#include "tests/sim/truth.h"

static void begin(struct world *w)
{
	begin_within(w, 5000);
	world_run_ms(w, 3000); /* what was suspected of nobody in particular at the start is over */
}

static struct gossip *core(struct world *w, unsigned host)
{
	return w->hosts[host].gossip;
}

static struct member *member(struct world *w, unsigned observer, unsigned of)
{
	return members_find(core(w, observer), w->hosts[of].hostno);
}

/* Until this host begins its next probe. */
static const struct probe *next_probe(struct world *w, unsigned host)
{
	const struct probe *probe = &core(w, host)->probe;
	uint32_t last = probe->seq;

	for (unsigned ms = 0; probe->seq == last && ms < 3 * PROBE_PERIOD_MS; ms++)
		world_run_ms(w, 1);
	expect(w, probe->seq != last, "a host probes another each period");
	return probe;
}

/* ---- whom, and how long ---- */

/* One of the two that a host probes most of the time. */
static unsigned neighbour(struct world *w, unsigned host)
{
	return core(w, host)->successors[0].member->hostno - 1;
}

static void three_of_four_probes_go_round_the_rings(struct world *w)
{
	const unsigned periods = 400;
	unsigned count[64] = {0}, best = 0, second = 0, met = 0;

	begin(w);
	w->unchecked = true;
	for (unsigned i = 0; i < periods && !w->failure[0]; i++)
		count[next_probe(w, 0)->target - 1]++;
	for (unsigned i = 0; i < w->host_count; i++) {
		met += count[i] > 0;
		if (count[i] > best) {
			second = best;
			best = count[i];
		} else if (count[i] > second) {
			second = count[i];
		}
	}
	expect(w, best + second > periods * 72 / 100, "three of four probes go to two hosts, the next ones on two rings");
	expect(w, second > periods * 30 / 100, "to each of the two as often");
	expect(w, met > w->host_count * 3 / 4, "and the fourth to anybody");
}

/* Each host is the next one of some other on each ring. */
static void everybody_is_probed_by_somebody(struct world *w)
{
	unsigned probers[64] = {0};

	begin(w);
	w->unchecked = true;
	for (unsigned i = 0; i < 2 * 4; i++) { /* eight periods */
		for (unsigned host = 0; host < w->host_count; host++)
			probers[core(w, host)->probe.target - 1]++;
		world_run_ms(w, PROBE_PERIOD_MS);
	}
	for (unsigned i = 0; i < w->host_count; i++)
		expect(w, probers[i] >= 2, "nobody waits for long to be probed");
}

static void patience_follows_the_round_trip(struct world *w)
{
	static const struct {
		uint32_t srtt_us, rttvar_us;
		unsigned health, ms;
	} cases[] = {{500, 100, 0, 20}, {10000, 5000, 0, 30}, {100000, 25000, 0, 200}, {400000, 100000, 0, 500}, {0, 0, 0, 200},
		{500, 100, 1, 40}, {400000, 100000, 3, 2000}, {500, 100, 8, 180}};

	begin(w);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct gossip *g = core(w, 0);
		const struct probe *probe;

		for (unsigned j = 1; j < w->host_count; j++) {
			member(w, 0, j)->srtt_us = cases[i].srtt_us;
			member(w, 0, j)->rttvar_us = cases[i].rttvar_us;
		}
		g->health = g->lifeguard = cases[i].health;
		g->probe.phase = PROBE_IDLE;
		g->probe_ms = g->now;
		probe_tick(g);
		probe = &g->probe;
		expect(w, probe->deadline_ms - probe->started_ms == cases[i].ms,
			"srtt + 4 rttvar within 20 and 500 ms, as many times as we are slow");
		world_touch(w, 0);
		g->health = g->lifeguard = 0;
		world_run_ms(w, 3000);
	}
}

static void a_crash_is_suspected_300_ms_after_the_probe(struct world *w)
{
	const struct probe *probe;
	const struct member *m;
	unsigned dead;

	begin(w);
	dead = neighbour(w, 0);
	m = member(w, 0, dead);
	for (unsigned i = 1; i < w->host_count; i++)
		core(w, i)->probe_ms = NEVER; /* nobody else is to be first */
	world_crash(w, dead);
	do
		probe = next_probe(w, 0);
	while (probe->target != m->hostno && !w->failure[0]);
	expect(w, m->state == GOSSIP_ALIVE, "not before it was probed");
	world_run_ms(w, 30);
	expect(w, probe->phase == PROBE_INDIRECT && probe->helpers == 3, "three others are asked for help after 20 ms");
	world_run_ms(w, 16);
	expect(w, probe->nacks == 3, "and say after 16 more that they had no answer either");
	world_run_ms(w, 300 - 46);
	expect(w, m->state != GOSSIP_ALIVE, "suspected 300 ms after the probe");
	expect(w, core(w, 0)->lifeguard == 0, "which is no point against us");
}

/* ---- ourselves ---- */

static void silent_helpers_are_our_own_fault(struct world *w)
{
	struct gossip *g;

	begin(w);
	g = core(w, 0);
	for (unsigned i = 1; i < w->host_count; i++)
		world_cut(w, i, 0, true); /* it hears nobody */
	world_run_ms(w, 1500);
	expect(w, g->lifeguard >= 3, "each helper that does not even say that is a point against us");
	world_run_ms(w, 10000);
	expect(w, g->lifeguard == 8, "eight at most");
	world_heal(w);
	world_run_ms(w, 3000);
	expect(w, g->lifeguard < 8, "each probe that is answered takes one away");
	world_run_ms(w, 15000);
	expect(w, g->lifeguard == 0, "until none is left");
	expect_quiet(w, 5000);
}

static void who_must_refute_doubts_itself(struct world *w)
{
	struct gossip *g;
	struct proto_entry accusation;
	uint32_t incarnation;

	begin(w);
	g = core(w, 0);
	incarnation = g->self->incarnation;
	members_entry(g->self, &accusation);
	accusation.state = GOSSIP_SUSPECT;
	members_claim(g, member(w, 0, 1), &accusation);
	expect(w, g->self->incarnation == incarnation + 1, "an accusation is refuted by a higher incarnation");
	expect(w, g->lifeguard == 1, "and is a point against us");
	world_touch(w, 0);
	world_run_ms(w, 5);
	for (unsigned i = 1; i < w->host_count; i++)
		expect(w, member(w, i, 0)->incarnation == incarnation + 1, "all hear the refutation at once");
}

/* Stopped in the middle of a suspicion, and nobody's word waits for it when it goes on. */
static void after_a_pause_all_time_begins_anew(struct world *w)
{
	struct gossip *g;

	begin(w);
	g = core(w, 0);
	world_touch(w, 0);
	for (unsigned i = 1; i < w->host_count; i++)
		world_cut(w, i, 0, true);
	probe_suspect(g, member(w, 0, 1), g->self->hostno, false);
	world_run_ms(w, 100);
	world_pause(w, 0);
	world_run_ms(w, 30000);
	world_heal(w);
	world_resume(w, 0);
	expect(w, g->lifeguard == 8, "a pause is all the points against us that there are");
	world_run_ms(w, 5000);
	expect(w, gossip_counters(g)->deaths == 0, "and no time in which anybody could have refuted");
	expect_quiet(w, 5000);
}

static void what_is_heard_counts_as_an_answer(struct world *w)
{
	begin(w);
	world_cut(w, 0, 1, true);			       /* its pings are lost, and with two hosts nobody can help */
	for (unsigned i = 0; i < 250 && !w->failure[0]; i++) { /* later it takes us for dead */
		world_put(w, 1, 3, i % 2 ? "k1" : "k2");
		world_run_ms(w, 10);
		expect(w, member(w, 0, 1)->state == GOSSIP_ALIVE, "who is heard of all the time is alive");
	}
	world_heal(w);
	expect_quiet(w, 5000);
}

/* ---- suspicion ---- */

/* With two hosts the ping is the only way by which the accused can hear of it. */
static void the_accused_hears_of_it_with_the_ping(struct world *w)
{
	uint32_t incarnation;

	begin(w);
	incarnation = core(w, 1)->self->incarnation;
	core(w, 1)->probe_ms = NEVER; /* else it hears of it with the answers to its own, too */
	world_partition_at(w, 1);
	while (member(w, 0, 1)->state == GOSSIP_ALIVE && !w->failure[0])
		world_run_ms(w, 10);
	world_heal(w);
	world_run_ms(w, 2500);
	expect(w, core(w, 1)->self->incarnation > incarnation, "the accused refutes");
	expect(w, member(w, 0, 1)->state == GOSSIP_ALIVE && gossip_counters(core(w, 0))->deaths == 0, "and lives");
}

static void say(struct world *w, unsigned from, unsigned of, bool alive, unsigned health)
{
	const struct member *m = member(w, 0, of);
	struct proto_verdict verdict = {
		.hostno = m->hostno, .epoch = m->epoch, .incarnation = m->incarnation, .alive = alive, .health = health};
	struct proto_packet packet = {0};

	proto_put_verdict(&packet, &verdict);
	core_messages(core(w, 0), member(w, 0, from), packet.bytes, packet.len);
}

/* What host 0 is told of host 1: `words` times that it does not answer, by so many of the five that were asked in turn; by how
 * many that were not asked; at last that it does. */
struct told {
	unsigned words, by, by_others, health;
	bool veto;
};

static bool was_asked(const struct rare *r, uint32_t hostno)
{
	for (unsigned i = 0; i < r->asked; i++)
		if (r->verifiers[i] == hostno)
			return true;
	return false;
}

static void tell(struct world *w, const struct rare *r, struct told told)
{
	for (unsigned i = 0; i < told.words; i++)
		say(w, r->verifiers[i % told.by] - 1, 1, false, told.health);
	for (unsigned i = 2; i < w->host_count && told.by_others > 0; i++)
		if (!was_asked(r, w->hosts[i].hostno)) {
			say(w, i, 1, false, told.health);
			told.by_others--;
		}
	expect(w, told.by_others == 0, "there are so many that were not asked");
	if (told.veto)
		say(w, r->verifiers[4] - 1, 1, true, 0);
}

/* Host 0 suspects host 1 and hears nobody else. */
static struct world *suspecting(struct world *w, struct member **ret_m)
{
	struct world *other = world_new(w->seed, w->host_count, false);
	struct member *m;

	begin(other);
	world_crash(other, 1);
	for (unsigned i = 1; i < other->host_count; i++)
		world_cut(other, i, 0, true);
	m = member(other, 0, 1);
	world_touch(other, 0);
	core(other, 0)->probe.phase = PROBE_IDLE;
	probe_suspect(core(other, 0), m, core(other, 0)->self->hostno, false);
	expect(w, rare_of(m)->asked == 5, "five are asked");
	core(other, 0)->health = core(other, 0)->lifeguard = 0;
	*ret_m = m;
	return other;
}

static void run_touched(struct world *w, const struct member *m, unsigned ms)
{
	while (m->state == GOSSIP_SUSPECT && ms-- > 0) {
		world_touch(w, 0);
		world_run_ms(w, 1);
	}
}

/* Returns after how many ms host 0 takes host 1 for dead, 0: not before a suspicion ends that all confirm. */
static uint64_t dies_after(struct world *w, struct told told)
{
	struct member *m;
	struct world *other = suspecting(w, &m);
	uint64_t ms = world_now_ms(other);

	tell(other, rare_of(m), told);
	run_touched(other, m, 1900);
	ms = world_now_ms(other) - ms;
	world_free(other);
	return ms < 1900 ? ms : 0;
}

static void three_of_five_verifiers_make_a_death(struct world *w)
{
	uint64_t ms = dies_after(w, (struct told){.words = 3, .by = 3});

	expect(w, ms >= 799 && ms <= 805, "three are enough, after the time to refute");
	expect(w, dies_after(w, (struct told){.words = 2, .by = 2}) == 0, "two are not");
	expect(w, dies_after(w, (struct told){.words = 3, .by = 1}) == 0, "nor is one that says it three times");
	expect(w, dies_after(w, (struct told){.words = 79, .by = 2}) == 0, "nor two, as often as they say it");
	expect(w, dies_after(w, (struct told){.words = 2, .by = 2, .by_others = 2}) == 0, "with others that were not asked");
	expect(w, dies_after(w, (struct told){.words = 4, .by = 4, .veto = true}) == 0, "nor four, if a fifth has an answer");
	expect(w, dies_after(w, (struct told){.words = 3, .by = 3, .health = 1}) == 0, "nor three that are slow themselves");
	expect(w, dies_after(w, (struct told){.words = 5, .by = 5, .health = 8}) == 0, "nor five");
	expect(w, dies_after(w, (struct told){.words = 5, .by = 5}) != 0, "but five that are well");
	expect(w, dies_after(w, (struct told){.words = 79, .by = 5}) == ms, "and what they say again takes nothing back");
}

/* Host 1 refuted, and somebody suspects it anew: what was found before is no evidence. */
static void a_refutation_ends_what_was_said_before(struct world *w)
{
	struct member *m;
	struct world *other = suspecting(w, &m);
	struct proto_entry claim;

	tell(other, rare_of(m), (struct told){.words = 5, .by = 5});
	run_touched(other, m, 700);
	members_entry(m, &claim);
	claim.incarnation += 2;
	members_claim(core(other, 0), member(other, 0, 2), &claim);
	run_touched(other, m, 1900);
	expect(w, m->state == GOSSIP_SUSPECT, "it is suspected for as long as any other");
	world_free(other);
}

static void five_verifiers_look_for_themselves(struct world *w)
{
	unsigned looking = 0, dead;

	begin(w);
	dead = neighbour(w, 0);
	world_crash(w, dead);
	for (unsigned i = 1; i < w->host_count; i++)
		if (i != dead)
			core(w, i)->probe_ms = NEVER; /* nobody else is to be first */
	for (unsigned ms = 0; ms < 10000 && member(w, 0, dead)->state == GOSSIP_ALIVE; ms++)
		world_run_ms(w, 1);
	world_run_ms(w, 2);
	for (unsigned i = 1; i < w->host_count; i++)
		for (unsigned c = 0; i != dead && c < CHECKS; c++)
			looking += core(w, i)->checks[c].target == w->hosts[dead].hostno;
	expect(w, looking == 5, "five hosts look for themselves");
	world_run_ms(w, 410);
	expect(w, rare_of(member(w, 0, dead))->confirmed == 5 * CONFIRM_WHOLE, "twice within 400 ms, and say what they found");
	world_run_ms(w, 400);
	expect(w, member(w, 0, dead)->state == GOSSIP_DEAD, "so that the death is certain when the time to refute is over");
}

/* Who holds that it raised the suspicion of `of`, and has gone as far as `state`. */
static unsigned raiser(struct world *w, unsigned of, enum gossip_state state)
{
	for (unsigned i = 0; i < w->host_count; i++)
		if (i != of && w->hosts[i].gossip && member(w, i, of)->state == state &&
			(state == GOSSIP_DEAD || rare_of(member(w, i, of))->mine))
			return i;
	return w->host_count;
}

static bool all_hold_dead(struct world *w, unsigned of)
{
	for (unsigned i = 0; i < w->host_count; i++)
		if (w->hosts[i].gossip && i != of && member(w, i, of)->state != GOSSIP_DEAD)
			return false;
	return true;
}

/* Only who raised a suspicion tells everybody of the death: who it is may die at any moment of that. */
static void a_death_is_known_when_who_raised_it_dies_too(struct world *w)
{
	static const enum gossip_state moments[] = {GOSSIP_SUSPECT, GOSSIP_DEAD};
	unsigned dead = 1, first, ms;

	begin(w);
	for (unsigned i = 0; i < 2; i++, dead++) {
		while (!w->hosts[dead].gossip)
			dead++;
		world_crash(w, dead);
		for (ms = 0; (first = raiser(w, dead, moments[i])) == w->host_count && ms < 20000 && !w->failure[0]; ms++)
			world_run_ms(w, 1);
		world_crash(w, first);
		for (ms = 0; !all_hold_dead(w, dead) && ms < 20000 && !w->failure[0]; ms += 10)
			world_run_ms(w, 10);
		expect(w, ms < 12000, "all know of the death within the longest suspicion");
	}
}

static uint64_t suspicion_lasts(struct world *w, unsigned accusers, unsigned flaps, unsigned health)
{
	struct gossip *g = core(w, 0);
	struct member *m = member(w, 0, 1);
	uint64_t lasts;

	members_set_state(g, m, GOSSIP_ALIVE);
	rare(m)->flaps = flaps * FLAP_POINT;
	rare(m)->flaps_ms = g->now;
	g->health = health;
	for (unsigned i = 0; i < accusers; i++)
		probe_suspect(g, m, w->hosts[2 + i].hostno, false);
	lasts = m->suspect_until_ms - m->since_ms;
	members_set_state(g, m, GOSSIP_ALIVE);
	rare(m)->flaps = 0;
	g->health = 0;
	return lasts;
}

/* Lifeguard's max - (max - min) log(C + 1) / log(K + 1). */
static void a_suspicion_is_shorter_the_more_confirm_it(struct world *w)
{
	begin(w);
	expect(w, suspicion_lasts(w, 1, 0, 0) == 12000, "twelve seconds when nobody confirms");
	expect(w, suspicion_lasts(w, 2, 0, 0) == 7000, "seven when one does");
	expect(w, suspicion_lasts(w, 3, 0, 0) == 4080, "four when two do");
	expect(w, suspicion_lasts(w, 4, 0, 0) == 2000, "two when three do");
	expect(w, suspicion_lasts(w, 4, 0, 2) == 6000, "as many times as we are slow");
	expect(w, suspicion_lasts(w, 4, 1, 0) == 4000 && suspicion_lasts(w, 4, 2, 0) == 8000,
		"twice as long with each time it flapped");
	expect(w, suspicion_lasts(w, 4, 8, 0) == 64000, "but not for ever");
}

static void of_two_hosts_one_waits_three_seconds(struct world *w)
{
	uint64_t since;

	begin(w);
	world_crash(w, 1);
	while (member(w, 0, 1)->state == GOSSIP_ALIVE && !w->failure[0])
		world_run_ms(w, 1);
	since = world_now_ms(w);
	core(w, 0)->health = core(w, 0)->lifeguard = 0;
	while (member(w, 0, 1)->state == GOSSIP_SUSPECT && !w->failure[0])
		world_run_ms(w, 1);
	expect(w, world_now_ms(w) - since >= 2990 && world_now_ms(w) - since <= 3010, "three seconds");
}

/* Higher evidence counts although the state stays, else an old word of its life would undo the death. */
static void a_late_word_undoes_no_death(struct world *w)
{
	struct proto_entry claim;
	struct gossip *g;
	struct member *m;

	begin(w);
	g = core(w, 0);
	m = member(w, 0, 1);
	world_crash(w, 1);
	while (m->state != GOSSIP_DEAD && !w->failure[0])
		world_run_ms(w, 100);
	members_entry(m, &claim);
	claim.incarnation += 5;
	claim.state = GOSSIP_DEAD;
	members_claim(g, member(w, 0, 2), &claim);
	claim.incarnation--;
	claim.state = GOSSIP_ALIVE;
	expect(w, members_claim(g, member(w, 0, 2), &claim), "who says what is out of date is told better");
	expect(w, m->state == GOSSIP_DEAD, "what is known to be later counts");
	claim.incarnation += 2;
	members_claim(g, member(w, 0, 2), &claim);
	expect(w, m->state == GOSSIP_ALIVE, "and what is later still, too");
	world_restart(w, 1, true);
	expect_quiet(w, 10000);
}

/* ---- many, and the dead ---- */

static void more_than_a_fifth_at_once_is_a_cut(struct world *w)
{
	begin(w);
	for (unsigned i = 1; i <= 4; i++)
		world_crash(w, i);
	world_run_ms(w, 15000);
	expect(w, !gossip_cut_suspected(core(w, 0), world_now_ms(w)), "four of twenty may be crashes");
	for (unsigned i = 1; i <= 4; i++)
		world_restart(w, i, true);
	expect_quiet(w, 10000);
	world_run_ms(w, 15000);
	for (unsigned i = 1; i <= 5; i++)
		world_crash(w, i);
	world_run_ms(w, 9000);
	expect(w, gossip_cut_suspected(core(w, 0), world_now_ms(w)), "five are not");
	expect(w, !gossip_cut_suspected(core(w, 0), world_now_ms(w) + 30000), "for thirty seconds");
	for (unsigned i = 1; i <= 5; i++)
		world_restart(w, i, true);
	expect_quiet(w, 10000);
}

static void the_dead_are_asked_once_a_second_for_ever(struct world *w)
{
	uint64_t before;

	begin(w);
	world_crash(w, 1);
	world_crash(w, 2);
	world_run_ms(w, 3600000);
	before = gossip_counters(core(w, 0))->probes;
	world_run_ms(w, 100000);
	before = gossip_counters(core(w, 0))->probes - before;
	expect(w, before >= 100 + 98 && before <= 100 + 130, "each second one of the dead is asked, now and then by stream too");
	world_restart(w, 1, true);
	world_restart(w, 2, true);
	expect_quiet(w, 3000);
}

const struct scenario detect_scenarios[] = {
	{"three_of_four_probes_go_round_the_rings", 20, false, three_of_four_probes_go_round_the_rings},
	{"everybody_is_probed_by_somebody", 20, false, everybody_is_probed_by_somebody},
	{"patience_follows_the_round_trip", 3, false, patience_follows_the_round_trip},
	{"a_crash_is_suspected_300_ms_after_the_probe", 8, false, a_crash_is_suspected_300_ms_after_the_probe},
	{"silent_helpers_are_our_own_fault", 6, false, silent_helpers_are_our_own_fault},
	{"who_must_refute_doubts_itself", 6, false, who_must_refute_doubts_itself},
	{"after_a_pause_all_time_begins_anew", 4, false, after_a_pause_all_time_begins_anew},
	{"what_is_heard_counts_as_an_answer", 2, false, what_is_heard_counts_as_an_answer},
	{"the_accused_hears_of_it_with_the_ping", 2, false, the_accused_hears_of_it_with_the_ping},
	{"three_of_five_verifiers_make_a_death", 9, false, three_of_five_verifiers_make_a_death},
	{"a_refutation_ends_what_was_said_before", 9, false, a_refutation_ends_what_was_said_before},
	{"five_verifiers_look_for_themselves", 12, false, five_verifiers_look_for_themselves},
	{"a_death_is_known_when_who_raised_it_dies_too", 100, false, a_death_is_known_when_who_raised_it_dies_too},
	{"a_suspicion_is_shorter_the_more_confirm_it", 8, false, a_suspicion_is_shorter_the_more_confirm_it},
	{"of_two_hosts_one_waits_three_seconds", 2, false, of_two_hosts_one_waits_three_seconds},
	{"a_late_word_undoes_no_death", 4, false, a_late_word_undoes_no_death},
	{"more_than_a_fifth_at_once_is_a_cut", 20, false, more_than_a_fifth_at_once_is_a_cut},
	{"the_dead_are_asked_once_a_second_for_ever", 5, false, the_dead_are_asked_once_a_second_for_ever},
	{NULL, 0, false, NULL},
};

/* Scenarios of what should not be believed too soon: our own view when we are slow, a host that flaps, many deaths at once. */
#include <stdio.h>
#include <stdlib.h>

#include "gossip/core_internal.h"
#include "tests/sim/scenario.h"
#include "tests/sim/truth.h"

static void count_deaths(struct sim_host *host, const struct gossip_member *member, enum gossip_state old)
{
	if (member->state == GOSSIP_DEAD && old != GOSSIP_DEAD)
		host->world->scenario = host->world;
}

static struct gossip_member view(struct world *w, unsigned observer, unsigned of)
{
	struct gossip_member member = {.state = GOSSIP_LEFT};

	gossip_member_get(w->hosts[observer].gossip, w->hosts[of].hostno, &member);
	return member;
}

/* The last host hears, but is not heard. It learns that host 0 has a new epoch, and can ask nobody for what there is in it. */
static void who_is_not_heard_takes_nothing_for_gone(struct world *w)
{
	const unsigned last = w->host_count - 1;
	size_t len;

	begin_within(w, 5000);
	world_put(w, 0, 3, "k1");
	world_run_ms(w, 1000);
	w->hosts[last].loss_out = 1000;
	world_run_ms(w, 15000);
	world_restart(w, 0, true);
	world_run_ms(w, 90000);
	expect(w, view(w, last, 0).epoch == 2, "it knows of the new epoch");
	expect(w, gossip_get(w->hosts[last].gossip, w->hosts[0].hostno, 3, "k1", 2, &len), "what it had of the old one is there");
	w->hosts[last].loss_out = 0;
	expect_quiet(w, 10000);
}

static void cut_both_ways(struct world *w, unsigned a, unsigned b, bool cut)
{
	world_cut(w, a, b, cut);
	world_cut(w, b, a, cut);
}

/* Host 4 is admitted by host 0. The two reach none of the others, then host 1, which reaches nobody else, then host 2 too. */
static void an_admission_counts_when_a_majority_has_it(struct world *w)
{
	const unsigned joins = 4;
	struct gossip *g;

	world_start(w, 0);
	for (unsigned i = 1; i < joins; i++)
		world_join(w, i, 0);
	world_run_ms(w, 3000);
	g = w->hosts[0].gossip;
	expect(w, gossip_admission_spread(g, w->hosts[1].hostno), "all know the first that joined");
	expect(w, !gossip_admission_spread(g, w->hosts[joins].hostno), "who is not admitted is not known");
	for (unsigned i = 1; i < joins; i++) {
		cut_both_ways(w, 0, i, true);
		cut_both_ways(w, joins, i, true);
		if (i > 1)
			cut_both_ways(w, 1, i, true);
	}
	world_join(w, joins, 0);
	world_run_ms(w, 1000);
	expect(w, view(w, 0, joins).hostno == w->hosts[joins].hostno, "it is admitted");
	expect(w, !gossip_admission_spread(g, w->hosts[joins].hostno), "but nobody else knows it");
	expect(w, !gossip_known(w->hosts[joins].gossip), "as it knows");
	cut_both_ways(w, 0, 1, false);
	world_run_ms(w, 5000);
	expect(w, !gossip_admission_spread(g, w->hosts[joins].hostno), "two of four are no majority");
	cut_both_ways(w, 0, 2, false);
	world_run_ms(w, 5000);
	expect(w, gossip_admission_spread(g, w->hosts[joins].hostno), "three are");
	expect(w, !gossip_known(w->hosts[joins].gossip), "but it has heard it of one only");
	world_heal(w);
	world_run_ms(w, 5000);
	expect(w, gossip_known(w->hosts[joins].gossip), "and now of all");
}

/* Host 0's admission of host 2 is lost on its way to host 1, which admits host 3 and introduces it to host 0: what host 3 was
 * given is host 0's guess. */
static void an_admission_that_was_only_sent_counts_for_nobody(struct world *w)
{
	const struct gossip *g;

	world_start(w, 0);
	world_join(w, 1, 0);
	world_run_ms(w, 3000);
	g = w->hosts[0].gossip;
	world_cut(w, 0, 1, true);
	cut_both_ways(w, 2, 1, true);
	cut_both_ways(w, 3, 0, true);
	cut_both_ways(w, 3, 2, true);
	world_join(w, 2, 0);
	world_run_ms(w, 300);
	expect(w, view(w, 0, 2).hostno == w->hosts[2].hostno, "it is admitted");
	world_join(w, 3, 1);
	world_run_ms(w, 300);
	expect(w, view(w, 0, 3).state == GOSSIP_ALIVE, "another one is introduced");
	expect(w, !gossip_admission_spread(g, w->hosts[2].hostno), "and does not count, nor does who introduced it");
	world_heal(w);
	world_run_ms(w, 3000);
	expect(w, gossip_admission_spread(g, w->hosts[2].hostno), "until they say so themselves");
}

static bool one_number_everywhere(struct world *w)
{
	const unsigned joiner = w->host_count - 1;
	struct gossip_member member;

	for (unsigned i = 0; i < w->host_count; i++) {
		const struct gossip *g = w->hosts[i].gossip;

		if (gossip_member_get(g, SECOND_NUMBER, &member) || view(w, i, joiner).state != GOSSIP_ALIVE ||
			g->digest != w->hosts[0].gossip->digest || g->member_count != w->host_count)
			return false;
	}
	return true;
}

static void note_void(struct sim_host *host, const struct gossip_member *member, enum gossip_state old)
{
	unsigned *voided = host->world->scenario;

	(void)old;
	if (member->hostno == SECOND_NUMBER && member->state == GOSSIP_LEFT)
		voided[host->index]++;
}

static void admit_twice_within(struct world *w, uint64_t ms)
{
	const unsigned joiner = w->host_count - 1;
	struct sim_host *host = &w->hosts[joiner];
	struct gossip_member member;

	host->other_number = SECOND_NUMBER;
	host->number_by = w->hosts[1].hostno;
	world_partition(w, 0x5); /* 0 2 | 1 3 .. */
	host->side = w->hosts[0].side;
	world_cut(w, 0, joiner, true);
	world_join(w, joiner, 0);
	world_run_ms(w, ms / 5);
	expect(w, gossip_member_get(w->hosts[2].gossip, SECOND_NUMBER, &member), "one side has a number for it");
	joiner_free(host->joiner);
	host->joiner = NULL;
	host->side = w->hosts[1].side;
	world_join(w, joiner, 1);
	world_run_ms(w, ms);
	expect(w, host->gossip != NULL, "it is in");
	expect(w, view(w, 3, joiner).state == GOSSIP_ALIVE, "under the other side's number");
}

void admit_twice(struct world *w)
{
	admit_twice_within(w, 5000);
}

/* Whoever probes it, or was asked to verify that it is dead, learns meanwhile that nobody has the number. */
static void the_probe_of_a_number_that_is_void_ends(struct world *w)
{
	struct gossip *g;

	world_start(w, 0);
	for (unsigned i = 1; i + 1 < w->host_count; i++)
		world_join(w, i, 0);
	world_run_ms(w, 3000);
	admit_twice_within(w, 500);
	g = w->hosts[2].gossip;
	g->probe = (struct probe){
		.phase = PROBE_DIRECT, .target = SECOND_NUMBER, .deadline_ms = g->now + 5000, .started_ms = g->now};
	g->checks[0] = (struct check){.target = SECOND_NUMBER, .for_hostno = 1, .next_ms = g->now + 5000, .started_ms = g->now};
	world_heal(w);
	expect(w, world_run_until(w, 10000, 10, one_number_everywhere), "all have the one that it uses");
	expect_quiet(w, 10000);
}

static bool one_table(struct world *w)
{
	for (unsigned i = 1; i < w->host_count; i++)
		if (w->hosts[i].gossip && w->hosts[i].gossip->digest != w->hosts[0].gossip->digest)
			return false;
	return true;
}

/* Each side of the cut holds another number of it for the one, and nobody can say which it would have used. */
static void who_was_admitted_twice_and_never_ran_is_no_difference(struct world *w)
{
	const unsigned joiner = w->host_count - 1;

	world_start(w, 0);
	for (unsigned i = 1; i < joiner; i++)
		world_join(w, i, 0);
	world_run_ms(w, 3000);
	w->hosts[joiner].other_number = SECOND_NUMBER;
	w->hosts[joiner].number_by = w->hosts[1].hostno;
	world_partition(w, 0x5); /* 0 2 | 1 3 .. */
	for (unsigned sponsor = 0; sponsor < 2; sponsor++) {
		w->hosts[joiner].side = w->hosts[sponsor].side;
		world_cut(w, sponsor, joiner, true);
		world_join(w, joiner, sponsor);
		world_run_ms(w, 500);
		joiner_free(w->hosts[joiner].joiner);
		w->hosts[joiner].joiner = NULL;
	}
	world_heal(w);
	world_run_ms(w, 20000);
	expect(w, view(w, 0, joiner).hostno == 0 && view(w, 1, joiner).hostno != 0, "each side has a number of its own for it");
	expect(w, world_run_until(w, 10000, 100, one_table), "and compares equal to the other");
}

static void who_was_admitted_twice_has_one_number(struct world *w)
{
	unsigned *voided = calloc(w->host_count, sizeof(*voided));

	if (!voided)
		abort();
	w->scenario = voided;
	w->hooks.member = note_void;
	world_start(w, 0);
	for (unsigned i = 1; i + 1 < w->host_count; i++)
		world_join(w, i, 0);
	world_run_ms(w, 3000);
	admit_twice(w);
	world_run_ms(w, 15000); /* and dead under the one number where that is known */
	world_heal(w);
	expect(w, world_run_until(w, 10000, 100, one_number_everywhere), "all have the one that it uses");
	expect_quiet(w, 10000);
	for (unsigned i = 0; i < w->host_count; i++)
		expect(w, voided[i] == 1, "the other one is void, as each is told once");
	for (unsigned i = 0; i < w->host_count; i++)
		world_restart(w, i, i % 2 == 0);
	expect(w, world_run_until(w, 20000, 100, one_number_everywhere), "and when all have started again");
	expect_quiet(w, 45000);
	for (unsigned i = 0; i < w->host_count; i++)
		expect(w, voided[i] == 2, "whoever starts is told again");
	w->scenario = NULL;
	free(voided);
}

static bool late_is_spread(struct world *w)
{
	return gossip_admission_spread(w->hosts[0].gossip, w->hosts[w->host_count - 2].hostno);
}

static bool late_knows_itself_known(struct world *w)
{
	return gossip_known(w->hosts[w->host_count - 2].gossip);
}

/* Where changes go by a tree, its children acknowledge to the sponsor. */
static void an_admission_counts_when_enough_of_many_have_it(struct world *w)
{
	const unsigned late = w->host_count - 2, last = w->host_count - 1;
	struct gossip *g;

	world_start(w, 0);
	for (unsigned i = 1; i < late; i++) {
		world_join(w, i, 0);
		world_run_ms(w, 50);
	}
	world_run_ms(w, 10000);
	g = w->hosts[0].gossip;
	expect(w, tree_grown(g), "there are so many that changes go by the tree");
	world_join(w, late, 0);
	world_run_ms(w, 100);
	expect(w, view(w, 0, late).hostno == w->hosts[late].hostno, "one more is admitted");
	expect(w, world_run_until(w, 5000, 10, late_is_spread), "and enough others are known to have that soon");
	expect(w, world_run_until(w, 3000, 10, late_knows_itself_known), "which it finds out itself");
	for (unsigned i = 1; i < last; i++)
		cut_both_ways(w, 0, i, true);
	world_join(w, last, 0);
	world_run_ms(w, 500);
	expect(w, view(w, 0, last).hostno == w->hosts[last].hostno, "a sponsor that is cut off admits another");
	expect(w, !gossip_admission_spread(g, w->hosts[last].hostno), "which nobody knows");
}

static void say_lag(struct world *w, unsigned samples, uint32_t lag_ms)
{
	for (unsigned i = 0; i < samples; i++) {
		gossip_health(w->hosts[0].gossip, lag_ms, false, world_now_ms(w));
		world_run_ms(w, 100);
	}
}

static void a_slow_host_says_so_itself(struct world *w)
{
	struct gossip *g;

	begin_within(w, 5000);
	g = w->hosts[0].gossip;
	say_lag(w, 30, 0);
	say_lag(w, 1, 2000);
	expect(w, gossip_local_health(g) == 0, "one hiccup in three seconds is none");
	say_lag(w, 30, 300);
	expect(w, gossip_local_health(g) == 4, "a loop that is 300 ms late makes a health of 4");
	say_lag(w, 60, 0);
	expect(w, gossip_local_health(g) == 0, "and none when it is on time again");
	gossip_health(g, 0, true, world_now_ms(w));
	expect(w, gossip_local_health(g) == 4, "packets that the kernel dropped count as much");
	world_run_ms(w, 10000);
	expect(w, gossip_local_health(g) == 0, "for five seconds");
}

static void a_dead_daemon_is_told_from_a_dead_host(struct world *w)
{
	begin_within(w, 5000);
	w->refusals = true;
	world_crash(w, 0);
	world_run_ms(w, 10000);
	for (unsigned i = 1; i < w->host_count; i++) {
		expect(w, view(w, i, 0).state == GOSSIP_DEAD, "a crashed daemon is dead");
		expect(w, view(w, i, 0).reach == GOSSIP_REACH_HOST, "and its host is known to run");
	}
	w->refusals = false;
	world_run_ms(w, 60000);
	for (unsigned i = 1; i < w->host_count; i++)
		expect(w, view(w, i, 0).reach == GOSSIP_REACH_NONE, "until the host is silent too");
	world_restart(w, 0, true);
	expect_quiet(w, 3000);
	expect(w, view(w, 1, 0).reach == GOSSIP_REACH_BOTH, "a host that is back is reached");
}

/* Anybody can send an ICMP message. */
static void a_forged_refusal_kills_nobody(struct world *w)
{
	begin_within(w, 5000);
	for (unsigned i = 0; i < 100; i++) {
		struct gossip_addr addr = sim_addr(1);

		gossip_unreachable(w->hosts[0].gossip, &addr, world_now_ms(w));
		world_run_ms(w, 100);
		expect(w, view(w, 0, 1).state == GOSSIP_ALIVE, "a refusal alone is no death");
	}
	expect(w, view(w, 0, 1).reach == GOSSIP_REACH_BOTH, "who answers is reached, whatever is said");
}

static void a_lost_direction_is_named(struct world *w)
{
	begin_within(w, 5000);
	world_cut(w, 0, 1, true);
	world_run_ms(w, 60000);
	expect(w, view(w, 0, 1).reach == GOSSIP_REACH_IN, "what goes to host 2 is lost, what comes is heard");
	expect(w, view(w, 0, 2).reach == GOSSIP_REACH_BOTH, "the others are not affected");
	world_heal(w);
	world_run_ms(w, 20000);
	expect(w, view(w, 0, 1).reach == GOSSIP_REACH_BOTH, "healed");
}

static bool all_ways_are_open(struct world *w)
{
	bool open = true;

	for (unsigned i = 0; i < w->host_count; i++)
		for (unsigned j = 0; j < w->host_count; j++)
			open &= view(w, i, j).state == GOSSIP_ALIVE && view(w, i, j).reach == GOSSIP_REACH_BOTH;
	return open;
}

/* What was not answered while it was away says nothing of now, and most have no reason to ping it soon: they hear of it. */
static void who_is_back_is_not_called_silent(struct world *w)
{
	begin_within(w, 10000);
	expect(w, world_run_until(w, 10000, 100, all_ways_are_open), "all hear all");
	world_partition_at(w, w->host_count / 2);
	world_run_ms(w, 60000);
	world_heal(w);
	expect(w, world_run_until(w, 5000, 100, all_ways_are_open), "and again, when the cut is healed");
}

static void filter_all_of(struct world *w, unsigned host)
{
	for (unsigned i = 0; i < w->host_count; i++)
		if (i != host)
			world_filter(w, host, i, true);
}

static uint64_t streamed(struct world *w)
{
	uint64_t packets = 0;

	for (unsigned i = 0; i < w->host_count; i++)
		packets += gossip_counters(w->hosts[i].gossip)->streamed_out;
	return packets;
}

/* A firewall that lets no UDP to one host or from it. */
static void without_udp_there_are_streams(struct world *w)
{
	size_t len;

	begin_within(w, 5000);
	expect(w, streamed(w) == 0, "where UDP passes nothing goes by stream");
	w->hooks.member = count_deaths;
	filter_all_of(w, 0);
	world_put(w, 1, 3, "k1");
	world_run_ms(w, 5000);
	world_put(w, 1, 3, "k2");
	world_put(w, 0, 4, "k3");
	world_run_ms(w, 30000);
	expect(w, view(w, 1, 0).reach == GOSSIP_REACH_STREAM, "it is known how it is reached");
	expect(w, view(w, 1, 0).state == GOSSIP_ALIVE && view(w, 0, 1).state == GOSSIP_ALIVE,
		"it is alive, and so are the others");
	expect(w, gossip_get(w->hosts[0].gossip, 2, 3, "k2", 2, &len) && gossip_get(w->hosts[1].gossip, 1, 4, "k3", 2, &len),
		"changes come through, either way");
	world_put(w, 1, 3, "k4");
	world_run_ms(w, 50);
	expect(w, gossip_get(w->hosts[0].gossip, 2, 3, "k4", 2, &len), "at once, where it was found out");
	world_heal(w);
	for (unsigned i = 0; i < 2; i++) { /* of which one is more than DOUBT_MS after the last try in vain */
		world_put(w, 1, 3, i ? "k6" : "k5");
		world_run_ms(w, DOUBT_MS + 100);
	}
	expect(w, view(w, 1, 0).reach == GOSSIP_REACH_BOTH, "UDP is taken when it passes again and there is something to say");
	expect_quiet(w, 5000);
	expect(w, w->scenario == NULL, "nobody was taken for dead");
}

/* Restarted behind such a firewall: boot tags are exchanged by stream too. */
static void who_starts_without_udp_is_met_by_stream(struct world *w)
{
	begin_within(w, 5000);
	world_crash(w, 0);
	world_run_ms(w, 10000);
	filter_all_of(w, 0);
	world_restart(w, 0, true);
	world_put(w, 0, 4, "k1");
	expect_quiet(w, 30000);
}

/* Somebody that host 0 probes by chance only, and that probes host 0 so. */
static unsigned stranger_of_first(struct world *w)
{
	for (unsigned i = 1; i < w->host_count; i++) {
		bool near = false;

		for (unsigned ring = 0; ring < RINGS; ring++)
			near |= w->hosts[0].gossip->successors[ring].member->hostno == w->hosts[i].hostno ||
				w->hosts[i].gossip->successors[ring].member->hostno == w->hosts[0].hostno;
		if (!near)
			return i;
	}
	return 1;
}

/* What is not acknowledged makes a host look, long before it would probe the other. */
static void two_without_udp_between_them_talk(struct world *w)
{
	unsigned other;
	size_t len;

	begin_within(w, 5000);
	world_run_ms(w, 5000);
	other = stranger_of_first(w);
	world_filter(w, 0, other, true);
	for (unsigned i = 0; i < 4; i++) {
		world_put(w, 0, 3, i % 2 ? "k1" : "k2");
		world_run_ms(w, 500);
	}
	world_put(w, 0, 3, "k3");
	world_run_ms(w, 20);
	expect(w, gossip_get(w->hosts[other].gossip, 1, 3, "k3", 2, &len), "a change comes by stream, not by way of others");
	expect(w, view(w, 0, other).reach == GOSSIP_REACH_STREAM, "and that is shown");
	for (unsigned i = 1; i < w->host_count; i++)
		expect(w, i == other || view(w, 0, i).reach == GOSSIP_REACH_BOTH, "of these two alone");
	world_heal(w);
	expect_quiet(w, 5000);
}

static void one_death_is_no_cut_and_many_are(struct world *w)
{
	begin_within(w, 5000);
	world_crash(w, 0);
	world_run_ms(w, 10000);
	expect(w, !gossip_cut_suspected(w->hosts[1].gossip, world_now_ms(w)), "one crash is a crash");
	world_restart(w, 0, true);
	expect_quiet(w, 5000);
	world_partition_at(w, w->host_count / 2);
	world_run_ms(w, 10000);
	for (unsigned i = 0; i < w->host_count; i++)
		expect(w, gossip_cut_suspected(w->hosts[i].gossip, world_now_ms(w)), "half of the hosts at once are a cut");
	world_run_ms(w, 60000);
	expect(w, !gossip_cut_suspected(w->hosts[1].gossip, world_now_ms(w)), "for half a minute");
	world_heal(w);
	expect_quiet(w, 3000);
}

struct changes {
	unsigned count[SIM_HOSTS_MAX];
	unsigned bystanders;
};

static void count_change(struct sim_host *host, const struct gossip_member *member, enum gossip_state old)
{
	struct changes *c = host->world->scenario;
	bool was = old == GOSSIP_DEAD, is = member->state == GOSSIP_DEAD;

	if (was == is || host->index == 0)
		return;
	if (member->hostno == 1)
		c->count[host->index]++;
	else
		c->bystanders++;
}

/* Four of five packets from and to one host are lost. */
static void a_flapping_host_is_damped(struct world *w)
{
	struct changes *c = calloc(1, sizeof(*c));
	const unsigned minutes = 12;
	unsigned worst = 0;

	if (!c)
		abort();
	begin_within(w, 5000);
	w->scenario = c;
	w->hooks.member = count_change;
	w->hosts[0].loss_in = w->hosts[0].loss_out = 800;
	world_run_ms(w, minutes * 60000);
	for (unsigned i = 1; i < w->host_count; i++)
		worst = c->count[i] > worst ? c->count[i] : worst;
	printf("     80 %% loss at one of %u hosts: %u changes of its state in %u minutes, %u of others\n", w->host_count, worst,
		minutes, c->bystanders);
	expect(w, worst <= minutes, "its state changes at most once a minute");
	expect(w, c->bystanders == 0, "nobody else's does");
	w->hosts[0].loss_in = w->hosts[0].loss_out = 0;
	expect_quiet(w, 5000);
	free(c);
	w->scenario = NULL;
}

/* The last host is a copy of the first: the same key, number and disk, at another address. */
static void start_copy(struct world *w)
{
	struct sim_host *copy = &w->hosts[w->host_count - 1];

	copy->identity = w->hosts[0].identity;
	copy->hostno = w->hosts[0].hostno;
	copy->epoch = w->hosts[0].epoch + 1;
	sim_disk_copy(&copy->disk, &w->hosts[0].disk);
	world_start(w, w->host_count - 1);
}

static void a_copy_of_a_host_falls_silent(struct world *w)
{
	const unsigned last = w->host_count - 1;
	uint64_t sent;

	w->truth->conflicts_expected = true;
	world_introduce_all(w);
	for (unsigned i = 0; i < last; i++)
		world_start(w, i);
	world_run_ms(w, 90000);
	expect(w, gossip_standing(w->hosts[0].gossip) == GOSSIP_STANDING_SOUND, "nobody has anything against a plain host");
	start_copy(w);
	world_run_ms(w, 20000);
	expect(w, gossip_standing(w->hosts[0].gossip) == GOSSIP_STANDING_TWIN, "the first one knows that there is a copy");
	expect(w, gossip_standing(w->hosts[last].gossip) == GOSSIP_STANDING_SILENT, "the copy knows that it is one");
	sent = gossip_counters(w->hosts[last].gossip)->packets_out;
	world_run_ms(w, 60000);
	expect(w, gossip_counters(w->hosts[last].gossip)->packets_out == sent, "and says nothing any more");
	for (unsigned i = 1; i < last; i++) {
		expect(w, view(w, i, 0).state == GOSSIP_ALIVE, "the first one is a member like before");
		expect(w, view(w, i, 0).twin_ms != 0, "with a copy, as is known");
		expect(w, view(w, i, 0).addr.ip.bytes[3] == sim_addr(0).ip.bytes[3], "reached where it is");
	}
}

static bool host_0_knows_host_1(struct world *w)
{
	return members_find(w->hosts[0].gossip, w->hosts[1].hostno)->frame.boot_known;
}

/* Host 1 tells host 0 that it stands sound: in host 0's first life, on the wire and kept by somebody; and in its second, in
 * answer to a question of the first one that somebody had kept back. Nobody else says anything in the second, which has an old
 * disk. */
static void what_was_said_to_an_earlier_life_does_not_count(struct world *w)
{
	const struct gossip_mark later = {.count = 5, .tag = 55};
	uint8_t kept[GOSSIP_PACKET_MAX];
	struct proto_packet plain = {0}, answer = {0};
	struct proto_standing sound = {.verdict = PROTO_SOUND, .epoch = 1, .mark = later};
	struct gossip *asker, *knows;
	uint64_t replays;
	size_t len;

	begin_within(w, 5000);
	asker = w->hosts[0].gossip;
	knows = w->hosts[1].gossip;
	gossip_set_mark(asker, &later, world_now_ms(w));
	sound.boot = asker->sender.boot;
	proto_put_standing(&plain, &sound);
	len = frame_seal(
		&knows->sender, &knows->ring, FRAME_CLASS_MEMBERSHIP, &w->hosts[0].identity.id, plain.bytes, plain.len, kept);
	world_run_ms(w, 1000);
	world_restart(w, 0, true); /* without `later` */
	asker = w->hosts[0].gossip;
	expect(w, world_run_until(w, 1000, 1, host_0_knows_host_1), "they meet");
	world_cut(w, 1, 0, true);
	world_inject(w, 0, kept, len);
	world_run_ms(w, 100);
	replays = gossip_counters(asker)->refused_replay;
	expect(w, replays > 0, "the packet is an old one");
	proto_put_standing(&answer, &sound);
	core_messages(asker, members_find(asker, w->hosts[1].hostno), answer.bytes, answer.len);
	expect(w, gossip_counters(asker)->refused_replay == replays + 1, "the answer is to another process");
	world_run_ms(w, 3000);
	expect(w, gossip_standing(asker) != GOSSIP_STANDING_SOUND, "nobody has said that this one is sound");
	world_heal(w);
	world_run_ms(w, 15000);
	expect(w, gossip_standing(asker) == GOSSIP_STANDING_SET_BACK, "it was set back, as host 1 knows");
}

const struct scenario trust_scenarios[] = {
	{"what_was_said_to_an_earlier_life_does_not_count", 2, false, what_was_said_to_an_earlier_life_does_not_count},
	{"a_copy_of_a_host_falls_silent", 6, false, a_copy_of_a_host_falls_silent},
	{"who_is_not_heard_takes_nothing_for_gone", 48, false, who_is_not_heard_takes_nothing_for_gone},
	{"the_probe_of_a_number_that_is_void_ends", 5, false, the_probe_of_a_number_that_is_void_ends},
	{"who_was_admitted_twice_and_never_ran_is_no_difference", 5, false,
		who_was_admitted_twice_and_never_ran_is_no_difference},
	{"who_was_admitted_twice_has_one_number", 6, false, who_was_admitted_twice_has_one_number},
	{"an_admission_counts_when_a_majority_has_it", 5, false, an_admission_counts_when_a_majority_has_it},
	{"an_admission_that_was_only_sent_counts_for_nobody", 4, false, an_admission_that_was_only_sent_counts_for_nobody},
	{"an_admission_counts_when_enough_of_many_have_it", 72, false, an_admission_counts_when_enough_of_many_have_it},
	{"a_slow_host_says_so_itself", 3, false, a_slow_host_says_so_itself},
	{"a_dead_daemon_is_told_from_a_dead_host", 6, false, a_dead_daemon_is_told_from_a_dead_host},
	{"a_forged_refusal_kills_nobody", 3, false, a_forged_refusal_kills_nobody},
	{"a_lost_direction_is_named", 3, false, a_lost_direction_is_named},
	{"who_is_back_is_not_called_silent", 24, false, who_is_back_is_not_called_silent},
	{"without_udp_there_are_streams", 8, false, without_udp_there_are_streams},
	{"without_udp_there_are_streams", 2, false, without_udp_there_are_streams},
	{"who_starts_without_udp_is_met_by_stream", 6, false, who_starts_without_udp_is_met_by_stream},
	{"two_without_udp_between_them_talk", 20, false, two_without_udp_between_them_talk},
	{"one_death_is_no_cut_and_many_are", 20, false, one_death_is_no_cut_and_many_are},
	{"a_flapping_host_is_damped", 50, false, a_flapping_host_is_damped},
	{NULL, 0, false, NULL},
};

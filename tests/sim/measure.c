/* Figures in virtual time, printed for information: how long a change, a death, a heal takes, and what idleness costs. The bounds
 * that fail are far above what is usual, so that they catch a mistake and not a bad seed. */
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/records.h"
#include "gossip/core_internal.h"
#include "tests/sim/arena.h"
#include "tests/sim/scenario.h"
#include "tests/sim/starve.h"
#include "tests/sim/truth.h"
#include "tests/sim/warm.h"

#define SAMPLES_MAX 1200000
#define HEADERS 42 /* Ethernet, IPv4 and UDP, around each packet */
#define CASES_MAX 200
#define EVENTS_MANY 40 /* where there are thousands of hosts */

struct samples {
	uint64_t since_us;
	uint32_t victim;
	size_t count;
	uint32_t us[SAMPLES_MAX];
	uint64_t last_us[SIM_HOSTS_MAX];
	size_t case_begin, case_count; /* samples of one event end at the next one's beginning, where they are not told by name */
	uint32_t case_last_us[CASES_MAX];
	uint64_t case_since_us[CASES_MAX]; /* of changes, of which one may arrive when the next has been made */
	unsigned case_seen[CASES_MAX];
};

static void sample(struct world *w)
{
	struct samples *s = w->scenario;

	if (s->count < SAMPLES_MAX)
		s->us[s->count++] = (uint32_t)(w->now_us - s->since_us);
}

static int compare(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static double percentile_of(uint32_t *us, size_t count, unsigned percent)
{
	if (count == 0)
		return 0;
	qsort(us, count, sizeof(us[0]), compare);
	return us[(count * percent + 99) / 100 - 1] / 1000.0; /* nearest rank: a value that was seen */
}

static double percentile(struct samples *s, unsigned percent)
{
	return percentile_of(s->us, s->count, percent);
}

/* One event is over: when did the last host know? */
static void case_ends(struct samples *s)
{
	uint32_t last = 0;

	for (; s->case_begin < s->count; s->case_begin++)
		if (s->us[s->case_begin] > last)
			last = s->us[s->case_begin];
	if (s->case_count < CASES_MAX)
		s->case_last_us[s->case_count++] = last;
}

static void report_last(struct world *w, const char *what)
{
	struct samples *s = w->scenario;

	printf("     %s, %u hosts, to the last one: p50 %.2f ms, p99 %.2f ms, max %.2f ms, n %zu\n", what, w->host_count,
		percentile_of(s->case_last_us, s->case_count, 50), percentile_of(s->case_last_us, s->case_count, 99),
		percentile_of(s->case_last_us, s->case_count, 100), s->case_count);
	printf("     cases, ms:");
	for (size_t i = 0; i < s->case_count; i++)
		printf(" %.2f", s->case_last_us[i] / 1000.0);
	printf("\n");
}

static void report(struct world *w, const char *what)
{
	struct samples *s = w->scenario;

	printf("     %s, %u hosts: p50 %.2f ms, p99 %.2f ms, max %.2f ms, n %zu\n", what, w->host_count, percentile(s, 50),
		percentile(s, 99), percentile(s, 100), s->count);
}

static void begin(struct world *w)
{
	w->scenario = calloc(1, sizeof(struct samples));
	if (!w->scenario)
		abort();
	w->unchecked = w->host_count > 100;
	if (w->host_count > WARM_ABOVE) {
		warm_start(w);
		return;
	}
	world_introduce_all(w);
	world_start_all(w);
	expect_quiet(w, w->host_count > 100 ? 60000 : 10000);
}

/* As expect_quiet, for warm worlds too. */
static void settle(struct world *w, uint64_t deadline_ms)
{
	if (!w->warm)
		expect_quiet(w, deadline_ms);
	else if (!world_run_until(w, deadline_ms, 10, warm_agrees))
		world_fail(w, "not quiet after %" PRIu64 " ms", deadline_ms);
}

static unsigned running(const struct world *w)
{
	unsigned up = 0;

	for (unsigned i = 0; i < w->host_count; i++)
		up += w->hosts[i].gossip != NULL;
	return up;
}

static unsigned some_running(struct world *w)
{
	unsigned host;

	do
		host = sim_rng_below(&w->rng, w->host_count);
	while (!w->hosts[host].gossip);
	return host;
}

static void end(struct world *w)
{
	free(w->scenario);
	w->scenario = NULL;
}

static void on_record(
	struct sim_host *host, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len)
{
	struct samples *s = host->world->scenario;
	unsigned i = 0;
	uint32_t us;

	(void)origin;
	(void)topic;
	(void)val;
	(void)val_len;
	for (size_t at = 1; at < key_len; at++) /* "k12" */
		i = i * 10 + ((const uint8_t *)key)[at] - '0';
	if (i >= s->case_count)
		abort();
	us = (uint32_t)(host->world->now_us - s->case_since_us[i]);
	if (us > s->case_last_us[i])
		s->case_last_us[i] = us;
	s->case_seen[i]++;
	if (s->count < SAMPLES_MAX)
		s->us[s->count++] = us;
}

/* `dead_percent` of the hosts have just stopped, when a change is made, and nobody knows it yet. */
struct event_weather {
	const char *what;
	unsigned loss, dead_percent, events;
	uint64_t wait_ms;
	double p99_limit_ms;
};

static void stop_some(struct world *w, unsigned percent)
{
	for (unsigned i = 0; i < w->host_count * percent / 100; i++)
		world_crash(w, some_running(w));
}

static void event_latency(struct world *w, const struct event_weather *weather)
{
	unsigned events = w->host_count > 2000 && weather->events > EVENTS_MANY ? EVENTS_MANY : weather->events;
	struct samples *s;
	size_t expected = 0;

	begin(w);
	s = w->scenario;
	w->faults.loss = weather->loss;
	w->hooks.record = on_record;
	for (unsigned i = 0; i < events && !w->failure[0]; i++) {
		char key[24];

		snprintf(key, sizeof(key), "k%u", i);
		stop_some(w, weather->dead_percent);
		expected += running(w) - 1;
		s->case_since_us[s->case_count++] = w->now_us;
		world_put(w, some_running(w), 3, key);
		world_run_ms(w, weather->wait_ms + sim_rng_below(&w->rng, 500));
	}
	world_run_ms(w, 3000); /* what is late of the last ones */
	report_last(w, weather->what);
	report(w, weather->what);
	if (s->count < expected * 99 / 100)
		world_fail(w, "%zu of %zu deliveries in time", s->count, expected);
	for (size_t i = 0; i < s->case_count; i++)
		if (s->case_seen[i] >= w->host_count)
			world_fail(w, "change %zu arrived %u times at %u hosts", i, s->case_seen[i], w->host_count - 1);
	if (percentile(s, 99) > weather->p99_limit_ms)
		world_fail(w, "p99 above %.0f ms", weather->p99_limit_ms);
	end(w);
}

static void measure_event(struct world *w)
{
	event_latency(w, &(struct event_weather){"change to a host", 0, 0, 100, 500, 20});
}

static void measure_event_with_loss(struct world *w)
{
	event_latency(w, &(struct event_weather){"change to a host, 1 % loss", 10, 0, 100, 500, 100});
}

/* Of an arrival behind the next change, too, it is known which change it was. */
static void measure_event_close_together(struct world *w)
{
	event_latency(
		w, &(struct event_weather){"change to a host, 30 % loss, half a second apart at most", 300, 0, 100, 0, 2000});
}

static void measure_event_in_trouble(struct world *w)
{
	event_latency(
		w, &(struct event_weather){"change to a host, 5 % loss, 1 % of the hosts just dead", 50, 1, 10, 3000, 2000});
}

static void on_member(struct sim_host *host, const struct gossip_member *member, enum gossip_state old)
{
	struct samples *s = host->world->scenario;

	(void)old;
	if (member->hostno == s->victim && member->state == GOSSIP_DEAD)
		sample(host->world);
}

static bool all_know(struct world *w)
{
	const struct samples *s = w->scenario;

	return s->count - s->case_begin == running(w);
}

static void measure_detection(struct world *w)
{
	size_t expected = 0;
	struct samples *s;

	begin(w);
	s = w->scenario;
	w->hooks.member = on_member;
	for (unsigned i = 0; i < 20 && !w->failure[0]; i++) {
		unsigned victim = some_running(w);

		s->victim = w->hosts[victim].hostno;
		s->since_us = w->now_us;
		world_crash(w, victim);
		expected += running(w);
		world_run_until(w, 15000, 50, all_know);
		case_ends(s);
		s->victim = 0;
		if (!w->warm)
			world_restart(w, victim, true);
		settle(w, 5000);
		world_run_ms(w, 1000 + sim_rng_below(&w->rng, 1000));
	}
	report_last(w, "crash to being dead");
	report(w, "crash to being dead at a host");
	if (s->count != expected)
		world_fail(w, "%zu of %zu hosts noticed", s->count, expected);
	if (percentile(s, 99) > 8000)
		world_fail(w, "p99 above 8 s");
	end(w);
}

#define CUT_MS 100000

/* `first_of_b` 0: in the middle. */
static void heal(struct world *w, const char *what, unsigned first_of_b, double limit_ms)
{
	unsigned rounds = w->host_count <= WARM_ABOVE ? 10 : w->host_count > 2000 ? 1 : 3;
	uint64_t bytes = 0;

	begin(w);
	for (unsigned i = 0; i < rounds && !w->failure[0]; i++) {
		struct samples *s = w->scenario;

		world_partition_at(w, first_of_b ? first_of_b : w->host_count / 2);
		world_run_ms(w, CUT_MS + sim_rng_below(&w->rng, 1000));
		world_put(w, 0, 3, "k1");
		world_put(w, w->host_count - 1, 3, "k1");
		world_run_ms(w, 500);
		s->since_us = w->now_us;
		bytes -= w->bytes;
		world_heal(w);
		settle(w, 10000);
		bytes += w->bytes;
		sample(w);
		world_run_ms(w, 5000);
	}
	report(w, what);
	printf("     heal, %u hosts: %.0f bytes sent by a host\n", w->host_count, (double)bytes / w->host_count / rounds);
	if (percentile(w->scenario, 100) > limit_ms)
		world_fail(w, "above %.0f ms", limit_ms);
	end(w);
}

static void measure_heal(struct world *w)
{
	heal(w, "half from half for 100 s, heal to all pairs alive and equal", 0, 3000);
}

static void measure_isolated(struct world *w)
{
	heal(w, "one host cut off for 100 s, heal to all pairs alive and equal", 1, 10000);
}

static void last_seen(
	struct sim_host *host, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len)
{
	struct samples *s = host->world->scenario;

	(void)origin;
	(void)topic;
	(void)key;
	(void)key_len;
	(void)val;
	(void)val_len;
	s->last_us[host->index] = host->world->now_us;
}

/* 10,000 changes in 10 s, spread over all hosts; then how long until each host has seen its last one. */
static void measure_storm(struct world *w)
{
	struct samples *s;
	uint64_t bytes;

	begin(w);
	s = w->scenario;
	w->hooks.record = last_seen;
	bytes = w->bytes;
	for (unsigned i = 0; i < 10000; i++) {
		char key[24];

		snprintf(key, sizeof(key), "k%u", i % 200);
		s->since_us = w->now_us;
		world_put(w, i % w->host_count, 3, key);
		world_run_ms(w, 1);
	}
	settle(w, 10000);
	for (unsigned i = 0; i < w->host_count; i++)
		s->us[s->count++] = s->last_us[i] > s->since_us ? (uint32_t)(s->last_us[i] - s->since_us) : 0;
	report(w, "10,000 changes in 10 s, last change to the last one seen by a host");
	printf("     storm, %u hosts: %.0f bytes/s sent by a host\n", w->host_count,
		(double)(w->bytes - bytes) / w->host_count / 10);
	if (percentile(s, 100) > 1000)
		world_fail(w, "above 1 s");
	end(w);
}

/* For the clock on the wall: an hour in which nothing happens. */
static void measure_hour(struct world *w)
{
	uint64_t suspicions = 0, syncs = 0, audits = 0, failed = 0;

	begin(w);
	world_run_ms(w, 3600000);
	for (unsigned i = 0; i < w->host_count; i++) {
		const struct gossip_counters *c = gossip_counters(w->hosts[i].gossip);

		suspicions += c->suspicions;
		syncs += c->syncs;
		audits += c->audits;
		failed += c->audits_failed + c->conflicts;
	}
	printf("     an hour, %u hosts: %" PRIu64 " suspicions, %" PRIu64 " comparisons, %" PRIu64 " audits\n", w->host_count,
		suspicions, syncs, audits);
	if (suspicions + failed > 0 || audits == 0)
		world_fail(w, "an hour without any fault: %" PRIu64 " suspicions, %" PRIu64 " copies that went bad", suspicions,
			failed);
	end(w);
}

static void measure_idle(struct world *w)
{
	uint64_t bytes, packets;
	double per_host, count;
	uint64_t began_us;

	begin(w);
	began_us = w->now_us;
	world_run_ms(w, 5000);
	bytes = w->bytes;
	packets = w->packets;
	world_run_ms(w, 60000);
	count = (double)(w->packets - packets) / w->host_count / 60;
	per_host = (double)(w->bytes - bytes) / w->host_count / 60 + count * HEADERS;
	printf("     idle, %u hosts: %.0f bytes/s and %.2f packets/s sent by a host (on the wire)\n", w->host_count, per_host,
		count);
	printf("     idle: ran %.1f s\n", (double)(w->now_us - began_us) / 1e6);
	if (w->warm)
		printf("     memory of %u hosts: %.0f MiB\n", w->host_count, (double)arena_bytes() / (1 << 20));
	if (per_host > 400)
		world_fail(w, "more than 400 bytes/s");
	end(w);
}

static size_t heap_bytes(void)
{
	struct mallinfo2 info = mallinfo2();

	return info.uordblks + info.hblkhd;
}

/* An endpoint as the daemon publishes it, by the daemon's own encoder: key and id are hashes and random, the MAC address has the
 * host's number and 26 random bits, the IPv4 address is the next of the host's custody, containers were started over a month. */
static size_t put_endpoint(struct world *w, unsigned host, uint64_t topic, unsigned number)
{
	struct endpoint_record e = {.since_s = 1700000000 + number * 25ull + sim_rng_below(&w->rng, 2592000 / 64)};
	uint64_t mac = (uint64_t)w->hosts[host].hostno << 26 | sim_rng_below(&w->rng, 1u << 26);
	const uint8_t ip4[4] = {10, (uint8_t)(64 + host / 32), (uint8_t)(host % 32 * 8 + number / w->host_count / 256),
		(uint8_t)(number / w->host_count)};
	uint8_t key[9] = {'E'}, value[GOSSIP_VALUE_MAX];
	size_t len;

	for (unsigned i = 1; i < sizeof(key); i++)
		key[i] = (uint8_t)sim_rng_next(&w->rng);
	snprintf(e.short_id, sizeof(e.short_id), "%012" PRIx64, sim_rng_next(&w->rng) >> 16);
	e.mac.bytes[0] = (uint8_t)(mac >> 40 << 2 | 2);
	for (unsigned i = 1; i < 6; i++)
		e.mac.bytes[i] = (uint8_t)(mac >> (40 - 8 * i));
	e.ip4.family = 4;
	memcpy(e.ip4.bytes, ip4, sizeof(ip4));
	len = endpoint_record_encode(&e, value, sizeof(value));
	gossip_put(w->hosts[host].gossip, topic, key, sizeof(key), value, len, world_now_ms(w), NULL);
	return sizeof(key) + len;
}

/* 10,000 endpoints on each of four hosts: all that the process has allocated since, with what malloc adds to it. */
static void measure_memory(struct world *w)
{
	size_t before, all = 0;
	double bytes;

	begin(w);
	before = heap_bytes();
	for (unsigned i = 0; i < 10000; i++) {
		all += put_endpoint(w, i % (w->host_count - 1), 1 + i % 2, i);
		world_touch(w, i % (w->host_count - 1));
	}
	expect_quiet(w, 10000);
	bytes = (double)(heap_bytes() - before) / w->host_count;
	printf("     10,000 records of %zu bytes: %.2f MB of heap on each host\n", all / 10000, bytes / 1e6);
	if (bytes > 1300000)
		world_fail(w, "more than 130 bytes for each");
	end(w);
}

/* ---- in company of the sick ---- */

struct sick {
	bool is[SIM_HOSTS_MAX];
	unsigned changes[SIM_HOSTS_MAX]; /* of a sick host's state, at the observer who saw most */
	unsigned false_deaths;
	uint16_t *seen; /* [observer * hosts + sick host]: changes */
};

static void count_sick(struct sim_host *host, const struct gossip_member *member, enum gossip_state old)
{
	struct world *w = host->world;
	struct sick *sick = w->scenario;
	unsigned of = member->hostno - 1;
	bool was = old == GOSSIP_DEAD, is = member->state == GOSSIP_DEAD;

	if (was == is || sick->is[host->index])
		return;
	if (!sick->is[of]) {
		sick->false_deaths += is;
		return;
	}
	if (++sick->seen[host->index * w->host_count + of] > sick->changes[of])
		sick->changes[of] = sick->seen[host->index * w->host_count + of];
}

static struct sick *begin_sick(struct world *w, unsigned count)
{
	struct sick *sick = calloc(1, sizeof(*sick));

	begin(w);
	free(w->scenario);
	if (!sick)
		abort();
	sick->seen = calloc((size_t)w->host_count * w->host_count, sizeof(*sick->seen));
	if (!sick->seen)
		abort();
	for (unsigned i = 0; i < count; i++)
		sick->is[i] = true;
	w->scenario = sick;
	w->hooks.member = count_sick;
	return sick;
}

static void end_sick(struct world *w)
{
	struct sick *sick = w->scenario;

	w->hooks.member = NULL;
	free(sick->seen);
	free(sick);
	w->scenario = NULL;
}

struct starved {
	uint64_t next_us;
	bool stands;
};

static void starve(struct world *w, struct starved *s, unsigned host, enum starve how)
{
	s->stands = !s->stands;
	s->next_us = w->now_us + starve_us(&w->rng, how, s->stands);
	if (!s->stands)
		world_resume(w, host);
	else if (how == STARVE_MUTE)
		world_mute(w, host);
	else
		world_pause(w, host);
}

/* Nobody may take a healthy host for dead because of four that starve. */
static void starve_for(struct world *w, enum starve how, unsigned hours)
{
	struct sick *sick = w->scenario;
	struct starved starved[STARVED] = {0};
	uint64_t end_us = w->now_us + hours * 3600000ull * SIM_US_PER_MS;

	sick->false_deaths = 0;
	for (unsigned i = 0; i < STARVED; i++)
		starved[i].next_us = w->now_us + sim_rng_below(&w->rng, 1000000);
	while (w->now_us < end_us && !w->failure[0]) {
		unsigned next = 0;

		for (unsigned i = 1; i < STARVED; i++)
			if (starved[i].next_us < starved[next].next_us)
				next = i;
		world_run_us(w, starved[next].next_us - w->now_us);
		starve(w, &starved[next], next, how);
	}
	for (unsigned i = 0; i < STARVED; i++)
		world_resume(w, i);
	printf("     starved, %s: %u of %u hosts, %u host hours: %u false deaths of healthy hosts\n", starve_name(how), STARVED,
		w->host_count, w->host_count * hours, sick->false_deaths);
	if (sick->false_deaths > 0)
		world_fail(w, "healthy hosts are taken for dead");
}

static void measure_starved(struct world *w)
{
	begin_sick(w, STARVED);
	w->unchecked = true;
	for (enum starve how = 0; how < STARVE_MAX; how++)
		starve_for(w, how, w->hours ? w->hours : 1);
	end_sick(w);
}

#define SICK_MINUTES 5 /* 2 where there are more than 500 hosts */

/* Four of five packets of one host in a hundred are lost, or all that it sends. */
static void measure_sick(struct world *w)
{
	unsigned count = w->host_count / 100 ? w->host_count / 100 : 1, worst = 0, all = 0;
	unsigned minutes = w->host_count > 500 ? 2 : SICK_MINUTES;
	struct sick *sick = begin_sick(w, count);

	for (unsigned i = 0; i < count; i++) {
		w->hosts[i].loss_out = i % 2 ? 1000 : 800;
		w->hosts[i].loss_in = i % 2 ? 0 : 800;
	}
	world_run_ms(w, minutes * 60000);
	for (unsigned i = 0; i < count; i++) {
		worst = sick->changes[i] > worst ? sick->changes[i] : worst;
		all += sick->changes[i];
	}
	printf("     sick: %u of %u hosts: %.2f changes of one's state a minute, of the worst one's %.2f, %u false deaths of "
	       "healthy "
	       "hosts\n",
		count, w->host_count, (double)all / count / minutes, (double)worst / minutes, sick->false_deaths);
	if (worst > 2 * minutes)
		world_fail(w, "a view that changes all the time");
	end_sick(w);
}

/* ---- all at once ---- */

static bool all_alive(struct world *w)
{
	bool alive = true;

	for (unsigned i = 0; i < w->host_count && alive; i++) {
		world_enter(w, i);
		alive = gossip_member_count(w->hosts[i].gossip, GOSSIP_ALIVE) == w->host_count;
		world_leave(w);
	}
	return alive;
}

/* All daemons were killed and start within a tenth of a second, in a new epoch, with what they have on disk: the others'
 * addresses as they were last. There is no seed to ask. */
static void measure_restart_all(struct world *w)
{
	uint64_t bytes;

	w->unchecked = w->host_count > 100;
	w->scenario = calloc(1, sizeof(struct samples));
	if (!w->scenario)
		abort();
	if (w->host_count <= WARM_ABOVE) {
		world_introduce_all(w);
		world_start_all(w);
		expect_quiet(w, 60000);
		for (unsigned i = 0; i < w->host_count; i++)
			world_crash(w, i);
		world_run_ms(w, 5000);
	}
	bytes = w->bytes;
	((struct samples *)w->scenario)->since_us = w->now_us;
	if (w->host_count > WARM_ABOVE)
		warm_restart(w, 100);
	for (unsigned i = 0; i < w->host_count && !w->warm; i++) {
		world_run_us(w, 100000 / w->host_count);
		world_restart(w, i, true);
	}
	if (!world_run_until(w, 60000, 10, all_alive))
		world_fail(w, "not one cluster after 60 s");
	sample(w);
	report(w, "all killed, from the first start to all seeing all");
	printf("     restart, %u hosts: %.0f bytes sent by a host\n", w->host_count, (double)(w->bytes - bytes) / w->host_count);
	end(w);
}

/* ---- newcomers ---- */

static bool all_joined(struct world *w)
{
	for (unsigned i = 0; i < w->host_count; i++)
		if (!w->hosts[i].gossip || gossip_member_count(w->hosts[i].gossip, GOSSIP_ALIVE) != w->host_count)
			return false;
	return true;
}

/* All join at once, by a token of the first. */
static void measure_join(struct world *w)
{
	uint64_t bytes;

	w->unchecked = true;
	world_start(w, 0);
	world_run_ms(w, 3000);
	bytes = w->bytes;
	for (unsigned i = 1; i < w->host_count; i++)
		world_join(w, i, 0);
	w->scenario = calloc(1, sizeof(struct samples));
	if (!w->scenario)
		abort();
	((struct samples *)w->scenario)->since_us = w->now_us;
	if (!world_run_until(w, 120000, 10, all_joined))
		world_fail(w, "not joined after 120 s");
	sample(w);
	report(w, "all join at one host, to all seeing all");
	printf("     join, %u hosts: %.0f bytes sent by a host\n", w->host_count, (double)(w->bytes - bytes) / w->host_count);
	end(w);
}

static bool last_is_equal(struct world *w)
{
	const struct sim_host *last = &w->hosts[w->host_count - 1];

	return last->gossip->shards.root == w->hosts[0].gossip->shards.root && gossip_in_step(last->gossip);
}

/* 100,000 endpoints in one network, and one host that has none of them. */
static void measure_newcomer(struct world *w)
{
	const unsigned records = 100000;
	struct samples *s;
	uint64_t bytes;

	begin(w);
	s = w->scenario;
	w->unchecked = true;
	for (unsigned i = 0; i < records; i++) {
		unsigned host = i % (w->host_count - 1);

		put_endpoint(w, host, 3, i);
		if (i % 1000 == 999) {
			for (unsigned j = 0; j < w->host_count; j++)
				world_touch(w, j);
			world_run_ms(w, 100);
		}
	}
	expect_quiet(w, 30000);
	world_crash(w, w->host_count - 1);
	world_run_ms(w, 20000);
	bytes = w->bytes;
	s->since_us = w->now_us;
	world_restart(w, w->host_count - 1, true);
	if (!world_run_until(w, 60000, 10, last_is_equal))
		world_fail(w, "not equal after 60 s");
	sample(w);
	report(w, "a host without any of 100,000 endpoints, to having them all");
	printf("     newcomer: %.0f bytes sent by all\n", (double)(w->bytes - bytes));
	end(w);
}

/* Only by name: they take long. */
const struct scenario long_scenarios[] = {
	{"measure_hour", 50, false, measure_hour},
	{"measure_event_in_trouble", 1000, false, measure_event_in_trouble},
	{"measure_starved", 100, false, measure_starved},
	{"measure_sick", 1000, false, measure_sick},
	{"measure_restart_all", 50, false, measure_restart_all},
	{"measure_join", 200, false, measure_join},
	{"measure_newcomer", 50, false, measure_newcomer},
	{"measure_storm", 50, false, measure_storm},
	{NULL, 0, false, NULL},
};

const struct scenario measure_scenarios[] = {
	{"measure_event", 50, false, measure_event},
	{"measure_event_with_loss", 50, false, measure_event_with_loss},
	{"measure_event_close_together", 8, false, measure_event_close_together},
	{"measure_detection", 50, false, measure_detection},
	{"measure_detection_of_three", 3, false, measure_detection},
	{"measure_heal", 50, false, measure_heal},
	{"measure_heal_of_three", 3, false, measure_heal},
	{"measure_isolated", 50, false, measure_isolated},
	{"measure_idle", 50, false, measure_idle},
	{"measure_memory", 4, false, measure_memory},
	{NULL, 0, false, NULL},
};

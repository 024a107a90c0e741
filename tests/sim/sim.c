/* The simulator's program: named scenarios, then random ones.
 *
 *	sim [--seed S] [--runs N] [--hosts N] [--hours H] [--trace] [SCENARIO]
 *
 * Without a scenario: all of them, then `runs` explorations from seeds S, S+1, ... Each run is a function of its seed and its
 *number of hosts; a failed one prints the command that repeats it. */
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/number.h"
#include "tests/sim/arena.h"
#include "tests/sim/scenario.h"

#define RUNS 100 /* about ten seconds */
#define RUNS_UNSAID UINT64_MAX
#define RUNS_BRIEF 200 /* above, only what fails is told */
#define JOBS_MAX 16
#define HOURS_MAX 100000

struct options {
	uint64_t seed, runs, hosts, hours;
	bool trace, brief;
	const char *scenario;
};

struct totals {
	unsigned passed, failed, skipped;
};

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void finish(struct world *w, const char *name, double since, bool brief, struct totals *totals)
{
	if (w->failure[0]) {
		totals->failed++;
		printf("FAIL %s: at %.3f s: %s\n", name, (double)w->now_us / 1e6, w->failure);
		printf("     again: build/release/tests/sim/sim --seed %" PRIu64 " --hosts %u %s\n", w->seed, w->host_count,
			name);
	} else {
		totals->passed++;
		if (!brief)
			printf("ok   %s (%u hosts, %.1f s virtual, %.2f s)\n", name, w->host_count, (double)w->now_us / 1e6,
				seconds() - since);
	}
	world_free(w);
	fflush(stdout);
}

static void run_scenario(const struct scenario *s, const struct options *o, struct totals *totals)
{
	double since = seconds();
	struct world *w = world_new(o->seed, o->hosts ? (unsigned)o->hosts : s->hosts, s->with_ipam);

	w->trace = o->trace;
	w->hours = (unsigned)o->hours;
	s->run(w);
	finish(w, s->name, since, false, totals);
}

/* Everything about a run comes from its seed, the number of hosts too unless it is given. */
static void run_explore(const struct options *o, uint64_t seed, struct totals *totals)
{
	double since = seconds();
	struct sim_rng rng = {.state = seed};
	unsigned drawn = 3 + sim_rng_below(&rng, sim_rng_permille(&rng, 900) ? 6 : 48);
	bool with_ipam = sim_rng_permille(&rng, 500);
	struct world *w = world_new(seed, o->hosts ? (unsigned)o->hosts : drawn, with_ipam);

	w->trace = o->trace;
	explore(w);
	finish(w, "explore", since, o->brief, totals);
}

/* One of several processes, each with every jobs-th run. */
static void explore_job(const struct options *o, unsigned job, unsigned jobs, int to, uint64_t *ret_at)
{
	struct totals totals = {0};

	for (uint64_t i = job; i < o->runs; i += jobs) {
		*ret_at = o->seed + i;
		run_explore(o, o->seed + i, &totals);
	}
	if (write(to, &totals, sizeof(totals)) != sizeof(totals))
		_exit(1);
	_exit(0);
}

static unsigned count_jobs(const struct options *o)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	return o->runs < RUNS_BRIEF || cpus < 1 ? 1 : cpus > JOBS_MAX ? JOBS_MAX : (unsigned)cpus;
}

/* A process that ends before its time failed in the run that it was in. */
static void gather(pid_t pid, int from, const uint64_t *at, struct totals *totals)
{
	struct totals found;

	if (read(from, &found, sizeof(found)) == sizeof(found)) {
		totals->passed += found.passed;
		totals->failed += found.failed;
	} else {
		totals->failed++;
		printf("FAIL explore: the process ended\n     again: build/release/tests/sim/sim --seed %" PRIu64
		       " --runs 1 explore\n",
			*at);
	}
	waitpid(pid, NULL, 0);
}

static void explore_all(const struct options *o, struct totals *totals)
{
	unsigned jobs = count_jobs(o);
	int pipes[JOBS_MAX][2];
	pid_t pids[JOBS_MAX];
	uint64_t *at = mmap(NULL, sizeof(*at) * JOBS_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	double since = seconds();

	if (at == MAP_FAILED)
		abort();
	fflush(stdout);
	for (unsigned i = 0; i < jobs; i++) {
		if (pipe(pipes[i]) < 0 || (pids[i] = fork()) < 0)
			abort();
		if (pids[i] == 0)
			explore_job(o, i, jobs, pipes[i][1], &at[i]);
		close(pipes[i][1]);
	}
	for (unsigned i = 0; i < jobs; i++) {
		gather(pids[i], pipes[i][0], &at[i], totals);
		close(pipes[i][0]);
	}
	munmap(at, sizeof(*at) * JOBS_MAX);
	printf("     explored: %" PRIu64 " runs from seed %" PRIu64 " in %.1f s, %u processes\n", o->runs, o->seed,
		seconds() - since, jobs);
}

static const struct scenario *const lists[] = {gossip_scenarios, detect_scenarios, bulk_scenarios, trust_scenarios,
	tree_scenarios, joining_scenarios, interest_scenarios, warm_scenarios, ipam_scenarios, forgetting_scenarios,
	peers_scenarios, explore_scenarios, measure_scenarios, long_scenarios, peers_long_scenarios};

static int usage(void)
{
	fprintf(stderr, "usage: sim [--seed S] [--runs N] [--hosts N] [--hours H] [--trace] [SCENARIO]\nscenarios: explore");
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		for (const struct scenario *s = lists[i]; s->name; s++)
			fprintf(stderr, " %s", s->name);
	fprintf(stderr, "\n");
	return 2;
}

static int parse(int argc, char **argv, struct options *o)
{
	for (int i = 1; i < argc; i++) {
		uint64_t *number = strcmp(argv[i], "--seed") == 0    ? &o->seed
				   : strcmp(argv[i], "--runs") == 0  ? &o->runs
				   : strcmp(argv[i], "--hosts") == 0 ? &o->hosts
				   : strcmp(argv[i], "--hours") == 0 ? &o->hours
								     : NULL;

		if (strcmp(argv[i], "--trace") == 0)
			o->trace = true;
		else if (!number && argv[i][0] != '-' && !o->scenario)
			o->scenario = argv[i];
		else if (!number || i + 1 == argc || number_parse(argv[++i], 0, UINT64_MAX, number) < 0)
			return -1;
	}
	return o->hosts > SIM_HOSTS_MAX || o->hours > HOURS_MAX ? -1 : 0;
}

static uint64_t runs_wanted(void)
{
	const char *text = getenv("TRESTLE_SIM_RUNS");
	uint64_t runs = RUNS;

	if (text && number_parse(text, 0, UINT64_MAX, &runs) < 0)
		fprintf(stderr, "sim: TRESTLE_SIM_RUNS: expected a number, found %s, exploring %u runs\n", text, RUNS);
	return runs;
}

int main(int argc, char **argv)
{
	struct options o = {.seed = 1, .runs = RUNS_UNSAID};
	struct totals totals = {0};
	bool exploring;

	if (sodium_init() < 0 || parse(argc, argv, &o) < 0)
		return usage();
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		for (const struct scenario *s = lists[i]; s->name && (lists[i] != warm_scenarios || arena_possible()); s++)
			if (o.scenario ? strcmp(s->name, o.scenario) == 0
				       : lists[i] != long_scenarios && lists[i] != peers_long_scenarios)
				run_scenario(s, &o, &totals);
	exploring = !o.scenario || strcmp(o.scenario, "explore") == 0;
	if (o.runs == RUNS_UNSAID)
		o.runs = o.scenario ? 1 : runs_wanted();
	o.brief = o.runs > RUNS_BRIEF;
	if (exploring && o.runs > 0)
		explore_all(&o, &totals);
	if (totals.passed + totals.failed == 0)
		return usage();
	printf("%u passed, %u failed, %u skipped\n", totals.passed, totals.failed, totals.skipped);
	return totals.failed > 0;
}

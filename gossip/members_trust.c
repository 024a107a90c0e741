/* How far what we see may be trusted: is it us who are slow, does one host flap, does the whole network fail?
 *
 * Our own health is the worse of two: Lifeguard's counter of probes that went wrong in a way that points at us, and what the
 * daemon measures: how late its loop is, how long packets lay in the socket, whether the kernel dropped some. Of five seconds of
 * such samples the tenth worst of a hundred counts, so that one hiccup does not, and a host that is starved says so before it
 * has accused anybody.
 *
 * A host that died and came back gets a point, which fades; each point doubles the time it is given to refute. So a host behind a
 * bad link ends up in one state instead of changing it every minute.
 *
 * Many suspicions at once are far more often a cut than many crashes: for a while nobody should draw conclusions from them. */
#include "gossip/core_internal.h"

#include <string.h>

/* ---- ourselves ---- */

static const uint16_t lag_limit_ms[LAG_CLASSES] = {0, 50, 100, 250, 1000};
static const uint8_t lag_health[LAG_CLASSES] = {0, 1, 2, 4, 8};

static void update_health(struct gossip *g)
{
	g->health = g->lifeguard > g->measured ? g->lifeguard : g->measured;
}

void probe_unhealthy(struct gossip *g, int by)
{
	int health = (int)g->lifeguard + by;

	g->lifeguard = health < 0 ? 0 : health > HEALTH_MAX ? HEALTH_MAX : (unsigned)health;
	update_health(g);
}

static struct lag_second *this_second(struct gossip *g)
{
	uint64_t second = g->now / 1000;
	struct lag_second *s = &g->lags[second % LAG_SECONDS];

	if (s->second != second)
		*s = (struct lag_second){.second = second};
	return s;
}

/* The highest class that more than a tenth of the samples reach. */
void trust_measure(struct gossip *g)
{
	uint64_t second = g->now / 1000;
	unsigned total = 0, above = 0, drops = 0;
	unsigned count[LAG_CLASSES] = {0};

	for (unsigned i = 0; i < LAG_SECONDS; i++) {
		const struct lag_second *s = &g->lags[i];

		if (s->second + LAG_SECONDS <= second)
			continue;
		drops |= s->drops;
		for (unsigned c = 0; c < LAG_CLASSES; c++) {
			count[c] += s->count[c];
			total += s->count[c];
		}
	}
	g->measured = drops ? lag_health[3] : 0;
	for (unsigned c = LAG_CLASSES - 1; c > 0; c--) {
		above += count[c];
		if (above * 10 > total) {
			g->measured = g->measured > lag_health[c] ? g->measured : lag_health[c];
			break;
		}
	}
	update_health(g);
}

void gossip_health(struct gossip *g, uint32_t lag_ms, bool dropped, uint64_t now_ms)
{
	struct lag_second *s;
	unsigned class = 0;

	if (now_ms > g->now)
		g->now = now_ms;
	while (class + 1 < LAG_CLASSES && lag_ms > lag_limit_ms[class + 1])
		class ++;
	s = this_second(g);
	s->count[class]++;
	s->drops |= dropped;
	if (class > 0 || dropped || g->measured > 0)
		trust_measure(g);
}

unsigned gossip_local_health(const struct gossip *g)
{
	return g->health;
}

/* ---- a host that flaps ---- */

static void fade(const struct gossip *g, struct rare *r)
{
	for (; r->flaps > 0 && g->now >= r->flaps_ms + FLAP_FADE_MS; r->flaps_ms += FLAP_FADE_MS)
		r->flaps /= 2;
	if (r->flaps == 0)
		r->flaps_ms = g->now;
}

uint64_t trust_stretch(const struct gossip *g, struct member *m, uint64_t ms)
{
	uint64_t stretched = ms;

	if (m->rare)
		fade(g, m->rare);
	for (unsigned points = rare_of(m)->flaps / FLAP_POINT; points > 0 && stretched < FLAP_MAX_MS; points--)
		stretched *= 2;
	return ms > FLAP_MAX_MS ? ms : stretched < FLAP_MAX_MS ? stretched : FLAP_MAX_MS;
}

/* `m` was dead and is alive. What was dead since before we started proves nothing; a new epoch proves that it did stop. */
void trust_returned(struct gossip *g, struct member *m)
{
	struct rare *r = m->rare;

	if (!r || r->died_ms == 0 || r->died_ms + FLAP_WINDOW_MS < g->now || r->died_epoch != m->epoch)
		return;
	r->flaps += FLAP_POINT;
	if (r->flaps > FLAP_MAX * FLAP_POINT)
		r->flaps = FLAP_MAX * FLAP_POINT;
	fade(g, r);
}

/* ---- everybody at once ---- */

static void not_lately(struct gossip *g, struct member *m)
{
	DL_DELETE2(g->lately, m, rare->lately_prev, rare->lately_next);
	g->lately_count--;
	g->lately_dead -= m->state == GOSSIP_DEAD;
	rare(m)->suspected_ms = 0;
}

void trust_suspected(struct gossip *g, struct member *m)
{
	if (rare_of(m)->suspected_ms != 0)
		not_lately(g, m);
	while (g->lately && rare_of(g->lately)->suspected_ms + FREEZE_WINDOW_MS < g->now)
		not_lately(g, g->lately);
	rare(m)->suspected_ms = g->now;
	DL_APPEND2(g->lately, m, rare->lately_prev, rare->lately_next);
	g->lately_count++;
	if (g->lately_count > FREEZE_MIN &&
		g->lately_count * 100 >
			(g->state_count[GOSSIP_ALIVE] + g->state_count[GOSSIP_SUSPECT] + g->lately_dead) * FREEZE_PERCENT)
		g->frozen_until_ms = g->now + FREEZE_MS;
}

bool gossip_cut_suspected(const struct gossip *g, uint64_t now_ms)
{
	return now_ms < g->frozen_until_ms;
}

/* ---- one host's daemon, and one direction ---- */

/* The dead are asked in turn, one in a second, so with many of them an answer of the kernel counts for longer. */
static bool daemon_down(const struct gossip *g, const struct member *m)
{
	uint64_t lasts = REFUSED_LASTS_MS + (uint64_t)g->state_count[GOSSIP_DEAD] * PROBE_PERIOD_MS;

	return m->state == GOSSIP_DEAD && rare_of(m)->refused_ms > m->heard_ms && rare_of(m)->refused_ms + lasts > g->now;
}

void gossip_unreachable(struct gossip *g, const struct gossip_addr *addr, uint64_t now_ms)
{
	if (now_ms > g->now)
		g->now = now_ms;
	for (unsigned i = 0; i < g->member_count; i++) {
		struct member *m = g->slots[i];
		bool was = daemon_down(g, m);

		if (m == g->self || m->addr.port != addr->port || !ip_equal(&m->addr.ip, &addr->ip))
			continue;
		rare(m)->refused_ms = g->now;
		if (!was && daemon_down(g, m))
			members_changed(g, m);
		return;
	}
}

enum gossip_reach trust_reach(const struct gossip *g, const struct member *m)
{
	if (m == g->self)
		return GOSSIP_REACH_BOTH;
	if (daemon_down(g, m))
		return GOSSIP_REACH_HOST;
	if (m->heard_ms == 0 || (m->state == GOSSIP_DEAD && m->unanswered > 0))
		return GOSSIP_REACH_NONE;
	if (m->by_stream)
		return GOSSIP_REACH_STREAM;
	if (m->unanswered < UNANSWERED_MANY)
		return GOSSIP_REACH_BOTH;
	return m->heard_ms > m->unanswered_ms ? GOSSIP_REACH_IN : GOSSIP_REACH_NONE;
}

const char *gossip_reach_name(enum gossip_reach reach)
{
	static const char *const names[] = {[GOSSIP_REACH_BOTH] = "both",
		[GOSSIP_REACH_STREAM] = "tcp",
		[GOSSIP_REACH_IN] = "in",
		[GOSSIP_REACH_HOST] = "no daemon",
		[GOSSIP_REACH_NONE] = "none"};

	return names[reach];
}

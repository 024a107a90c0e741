/* Failure detection: SWIM with Lifeguard, and verifiers.
 *
 * Each period one member is pinged. No ack in time: HELPERS others ping it for us, and say NACK when they had no answer, so that
 * we can tell a dead host from a deaf self. No ack then either: it is suspect. We ask up to VERIFIERS hosts, picked by a hash
 * that all compute alike, to try for themselves; VERIFY_QUORUM that fail make it dead after the window in which it may refute. A
 * cluster too small for a quorum, or one whose verifiers stay silent, waits by Lifeguard's rule: the more confirm, the shorter.
 *
 * What each of these promises, and the scenario that holds it to that: docs/membership.md.
 *
 * Whoever pings a suspect puts the accusation first in the packet: the accused refutes with a higher incarnation. */
#include "gossip/core_internal.h"

#include <sodium.h>
#include <string.h>

/* ---- pings ---- */

static uint64_t ack_timeout(const struct gossip *g, const struct member *m)
{
	uint64_t timeout = ACK_UNKNOWN_MS;

	if (m->srtt_us > 0) {
		timeout = (m->srtt_us + 4u * m->rttvar_us) / 1000;
		timeout = timeout < ACK_MIN_MS ? ACK_MIN_MS : timeout > ACK_MAX_MS ? ACK_MAX_MS : timeout;
	}
	return timeout * (1 + g->health);
}

/* As RFC 6298 has it. */
static void estimate(uint32_t rtt, uint32_t *srtt_us, uint32_t *rttvar_us)
{
	uint32_t off = rtt > *srtt_us ? rtt - *srtt_us : *srtt_us - rtt;

	if (*srtt_us == 0) {
		*srtt_us = rtt;
		*rttvar_us = rtt / 2;
		return;
	}
	*rttvar_us += off / 4 - *rttvar_us / 4;
	*srtt_us += rtt / 8 - *srtt_us / 8;
}

/* Of it, and of any whom we never pinged. Who has no finer clock than milliseconds measures 0 for most: that counts as half of
 * one. */
static void measured(struct gossip *g, struct member *m, uint64_t rtt_us)
{
	uint32_t rtt = rtt_us == 0 ? 500 : rtt_us > 10000000 ? 10000000 : (uint32_t)rtt_us;

	estimate(rtt, &m->srtt_us, &m->rttvar_us);
	estimate(rtt, &g->srtt_us, &g->rttvar_us);
}

static struct ping *ping_slot(struct gossip *g, uint32_t seq)
{
	return &g->pings[seq & (PINGS - 1)];
}

static void fill_ping(struct gossip *g, const struct member *m, struct proto_ping *ping, uint32_t seq)
{
	*ping = (struct proto_ping){
		.seq = seq,
		.epoch = g->self->epoch,
		.incarnation = g->self->incarnation,
		.root = interest_root(g, m),
		.members = g->digest,
	};
}

static void accuse(struct proto_packet *packet, const struct member *m)
{
	struct proto_list list;
	struct proto_entry entry;

	members_entry(m, &entry);
	proto_members_open(&list, packet, 0);
	proto_members_add(&list, &entry);
	proto_list_close(&list);
}

static struct ping *ping_by(struct gossip *g, struct member *m, enum ping_kind kind, bool stream)
{
	struct proto_packet packet = {0};
	struct proto_ping body;
	struct ping *ping = ping_slot(g, ++g->ping_seq);

	if (ping->kind == PING_HELP)
		g->helping--;
	*ping = (struct ping){.kind = kind, .seq = g->ping_seq, .target = m->hostno, .sent_us = g->now_us, .stream = stream};
	if (!stream && m->unanswered++ == 0)
		m->unanswered_ms = g->now;
	if (m->state != GOSSIP_ALIVE && !m->unheard)
		accuse(&packet, m);
	members_piggyback(g, m, &packet); /* before what is compared */
	fill_ping(g, m, &body, ping->seq);
	proto_put_ping(&packet, PROTO_PING, &body);
	if (g->sender.version_max > FRAME_VERSION)
		proto_put_next(&packet);
	g->counters.probes++;
	core_send_by(g, m, FRAME_CLASS_PROBE, &packet, stream);
	return ping;
}

static void try_stream(struct gossip *g, struct member *m)
{
	if (g->ops.stream && ip_is_set(&m->addr.ip))
		ping_by(g, m, PING_OTHER, true);
}

/* By UDP, and by stream where only that arrives: when UDP arrives again, that is seen. */
static struct ping *send_ping(struct gossip *g, struct member *m, enum ping_kind kind)
{
	if (m->by_stream || ((m->unheard || m->state == GOSSIP_DEAD) && m->unanswered % UNANSWERED_DEAD == UNANSWERED_DEAD - 1))
		try_stream(g, m);
	return ping_by(g, m, kind, false);
}

/* What we push to it is not acknowledged: two pings by UDP, since one is easily lost, and one by stream, whose answer comes
 * later. What goes by stream is: whether it has to is seen as soon as there is something to say, not when chance makes it the
 * next whom we probe. */
void probe_doubt(struct gossip *g, struct member *m)
{
	if (g->now < rare_of(m)->doubt_ms || !g->ops.stream)
		return;
	rare(m)->doubt_ms = g->now + DOUBT_MS;
	if (m->by_stream) {
		ping_by(g, m, PING_OTHER, false);
		return;
	}
	send_ping(g, m, PING_OTHER);
	send_ping(g, m, PING_OTHER);
	try_stream(g, m);
}

void probe_ping(struct gossip *g, struct member *m, enum ping_kind kind)
{
	send_ping(g, m, kind);
}

/* ---- who is next ---- */

static uint64_t keyed_hash(uint32_t a, uint32_t b, uint32_t c)
{
	static const uint8_t key[crypto_shorthash_KEYBYTES];
	uint8_t in[12], out[crypto_shorthash_BYTES];
	struct bytes_writer w;
	struct bytes_reader r;

	bw_init(&w, in, sizeof(in));
	bw_u32(&w, a);
	bw_u32(&w, b);
	bw_u32(&w, c);
	crypto_shorthash(out, in, w.len, key);
	br_init(&r, out, sizeof(out));
	return br_u64(&r);
}

/* The successor of ourselves on one of two rings. Each host then has one prober per ring at any time, instead of a number that
 * varies by chance, which takes the long tail off the wait for the first probe. */
static struct member *find_successor(struct gossip *g, uint32_t ring)
{
	uint64_t here = keyed_hash(ring, g->self->hostno, 0), best = UINT64_MAX;
	struct member *next = NULL;

	for (unsigned i = 0; i < g->member_count; i++) {
		struct member *m = g->slots[i];
		uint64_t distance;

		if (!member_usable(g, m))
			continue;
		distance = keyed_hash(ring, m->hostno, 0) - here;
		if (!next || distance < best) {
			best = distance;
			next = m;
		}
	}
	return next;
}

/* Looked for only when it went or somebody came: among thousands that takes longer than all the rest of a probe. */
static struct member *ring_successor(struct gossip *g, uint32_t ring)
{
	struct successor *s = &g->successors[ring - 1];

	if (s->gains != g->member_gains || !s->member || !member_usable(g, s->member))
		*s = (struct successor){.gains = g->member_gains, .member = find_successor(g, ring)};
	return s->member;
}

/* For news, which are passed on many times between two probes: it may have come since who stands between. */
struct member *probe_follower(const struct gossip *g, uint32_t ring)
{
	struct member *m = g->successors[ring - 1].member;

	return m && member_usable(g, m) && !m->unheard ? m : NULL;
}

static struct member *random_of(struct gossip *g, bool dead)
{
	unsigned start = core_random(g, g->member_count);

	if (dead && g->state_count[GOSSIP_DEAD] == 0)
		return NULL;
	for (unsigned i = 0; i < g->member_count; i++) {
		struct member *m = g->slots[(start + i) % g->member_count];

		if (m != g->self && (dead ? m->state == GOSSIP_DEAD : member_usable(g, m)))
			return m;
	}
	return NULL;
}

/* Three of four periods go round the rings; the fourth covers views that differ and a ring neighbour that does not probe. In this
 * order nobody waits for more than three periods for the one that precedes it on a ring. */
static struct member *next_target(struct gossip *g)
{
	static const uint8_t rings[] = {1, 2, 1, 0, 2, 1, 2, 0};
	uint32_t ring = rings[g->period++ % sizeof(rings)];

	return ring ? ring_successor(g, ring) : random_of(g, false);
}

/* ---- the probe of the period ---- */

static void begin_probe(struct gossip *g)
{
	struct member *m = next_target(g);

	if (!m)
		return;
	g->probe = (struct probe){
		.phase = PROBE_DIRECT,
		.target = m->hostno,
		.seq = send_ping(g, m, PING_PROBE)->seq,
		.started_ms = g->now,
		.deadline_ms = g->now + ack_timeout(g, m),
	};
}

static void ask_helpers(struct gossip *g, struct member *target)
{
	uint64_t timeout = ack_timeout(g, target);
	struct proto_ping_req req = {.seq = g->probe.seq,
		.hostno = target->hostno,
		.timeout_ms = (uint16_t)(timeout * 4 / 5 > 60000 ? 60000 : timeout * 4 / 5)};
	unsigned start = core_random(g, g->member_count);

	for (unsigned i = 0; i < g->member_count && g->probe.helpers < HELPERS; i++) {
		struct member *m = g->slots[(start + i) % g->member_count];
		struct proto_packet packet = {0};

		if (m == g->self || m == target || m->state != GOSSIP_ALIVE)
			continue;
		proto_put_ping_req(&packet, &req);
		core_send(g, m, FRAME_CLASS_PROBE, &packet);
		g->probe.helpers++;
	}
	g->probe.phase = PROBE_INDIRECT;
	g->probe.deadline_ms = g->now + (2 * timeout > INDIRECT_MS ? 2 * timeout : INDIRECT_MS);
	send_ping(g, target, PING_OTHER);
	if (!target->by_stream)
		try_stream(g, target);
}

static void probe_done(struct gossip *g, bool alive)
{
	if (alive)
		probe_unhealthy(g, -1);
	g->probe.phase = PROBE_IDLE;
	g->stirred = true; /* nothing is due where its deadline was */
}

static void probe_failed(struct gossip *g, struct member *m)
{
	/* Helpers that did not even say NACK: the fault may be ours. Lifeguard. */
	probe_unhealthy(g, (int)g->probe.helpers - (int)g->probe.nacks);
	probe_done(g, false);
	g->counters.probe_timeouts++;
	if (m->state != GOSSIP_ALIVE)
		return;
	probe_suspect(g, m, g->self->hostno, false);
	members_tell(g, m, NEWS_ALL);
}

/* Anything authentic from it since the probe went out counts as an ack. */
static void step_probe(struct gossip *g)
{
	struct member *m;

	if (g->probe.phase == PROBE_IDLE || g->now < g->probe.deadline_ms)
		return;
	m = members_find(g, g->probe.target);
	if (m->heard_ms >= g->probe.started_ms && m->heard_ms != 0) {
		probe_done(g, true);
		return;
	}
	if (g->probe.phase == PROBE_DIRECT)
		ask_helpers(g, m);
	else
		probe_failed(g, m);
}

/* ---- suspicion ---- */

static unsigned others(const struct gossip *g) /* who could verify: all but us and the suspect */
{
	unsigned up = g->state_count[GOSSIP_ALIVE];

	return up > 0 ? up - 1 : 0; /* ourselves are among them, the suspect is not any more */
}

/* Lifeguard's dynamic suspicion: from max down to min as more hosts confirm, by log(confirmations + 1) / log(k + 1), k of them
 * being enough. The logarithms in thousandths, so that every host computes the same without libm. */
static uint64_t suspicion_time(const struct gossip *g, unsigned confirmations)
{
	static const uint16_t share[4][4] = {{0}, {0, 1000}, {0, 631, 1000}, {0, 500, 792, 1000}};
	unsigned k = others(g) < 3 ? others(g) : 3;

	if (k == 0)
		return SUSPECT_PAIR_MS * (1 + g->health);
	if (confirmations > k)
		confirmations = k;
	return (SUSPECT_MAX_MS - (SUSPECT_MAX_MS - SUSPECT_MIN_MS) * share[k][confirmations] / 1000) * (1 + g->health);
}

/* The verifiers: highest hash of (suspect, epoch, host) among the alive. */
static unsigned pick_verifiers(const struct gossip *g, const struct member *suspect, struct member *ret[VERIFIERS])
{
	uint64_t weight[VERIFIERS];
	unsigned count = 0;

	for (unsigned i = 0; i < g->member_count; i++) {
		struct member *m = g->slots[i];
		uint64_t w = keyed_hash(suspect->hostno, suspect->epoch, m->hostno);
		unsigned at;

		if (m == g->self || m == suspect || m->state != GOSSIP_ALIVE)
			continue;
		for (at = count; at > 0 && weight[at - 1] < w; at--) {
			if (at < VERIFIERS) {
				weight[at] = weight[at - 1];
				ret[at] = ret[at - 1];
			}
		}
		if (at < VERIFIERS) {
			weight[at] = w;
			ret[at] = m;
			count += count < VERIFIERS;
		}
	}
	return count;
}

static void ask_verifiers(struct gossip *g, struct member *suspect)
{
	struct member *verifiers[VERIFIERS];
	struct rare *r = rare(suspect);
	struct proto_packet packet = {0};
	struct proto_entry entry;

	members_entry(suspect, &entry);
	proto_put_verify(&packet, &entry);
	r->mine = true;
	r->window_ms = g->now + trust_stretch(g, suspect, REFUTE_WINDOW_MS * (1 + g->health));
	r->asked = (uint8_t)pick_verifiers(g, suspect, verifiers);
	for (unsigned i = 0; i < r->asked; i++) {
		r->verifiers[i] = verifiers[i]->hostno;
		core_send(g, verifiers[i], FRAME_CLASS_MEMBERSHIP, &packet);
	}
}

static bool add_accuser(struct member *m, uint32_t accuser)
{
	struct rare *r = rare(m);

	for (unsigned i = 0; i < r->accuser_count; i++)
		if (r->accusers[i] == accuser)
			return false;
	if (r->accuser_count == sizeof(r->accusers) / sizeof(r->accusers[0]))
		return false;
	r->accusers[r->accuser_count++] = accuser;
	return true;
}

/* By as many verifiers as it takes, none of which had an answer. */
static bool is_confirmed(const struct member *m)
{
	const struct rare *r = rare_of(m);

	return r->mine && !r->vetoed && r->confirmed >= VERIFY_QUORUM * CONFIRM_WHOLE;
}

static void set_deadline(struct gossip *g, struct member *m)
{
	const struct rare *r = rare_of(m);
	unsigned confirmations = r->accuser_count > 0 ? r->accuser_count - 1 : 0;

	if (r->mine && r->confirmed / CONFIRM_WHOLE > confirmations)
		confirmations = r->confirmed / CONFIRM_WHOLE;
	m->suspect_until_ms = m->since_ms + trust_stretch(g, m, suspicion_time(g, confirmations));
	sooner(&g->suspects_ms, m->suspect_until_ms);
	if (is_confirmed(m))
		sooner(&g->suspects_ms, r->window_ms);
}

/* In big clusters many say so, and all ask it: once by each of us is enough. */
static void hear_of_death(struct gossip *g, struct member *m)
{
	uint64_t until = g->now + trust_stretch(g, m, REFUTE_WINDOW_MS * (1 + g->health));
	bool first = until < m->suspect_until_ms;

	sooner(&m->suspect_until_ms, until);
	sooner(&g->suspects_ms, m->suspect_until_ms);
	if (first || !tree_grown(g))
		send_ping(g, m, PING_OTHER);
}

void probe_suspect(struct gossip *g, struct member *m, uint32_t accuser, bool hearsay_dead)
{
	bool fresh = m->state != GOSSIP_SUSPECT || m->unheard;

	if (fresh) {
		m->unheard = false;
		g->member_shape++;
		members_set_state(g, m, GOSSIP_SUSPECT);
		m->since_ms = g->now;
		g->counters.suspicions++;
		trust_suspected(g, m);
	}
	if (add_accuser(m, accuser) || fresh)
		set_deadline(g, m);
	if (hearsay_dead) {
		hear_of_death(g, m);
		return;
	}
	if (fresh && accuser == g->self->hostno)
		ask_verifiers(g, m);
}

/* Who raised the suspicion tells everybody. The others' time is up when they have heard of it from several, and so have all: had
 * each told everybody, a host that dies would cost the square of their number. */
static void declare_dead(struct gossip *g, struct member *m)
{
	bool silent = m->unheard, mine = rare_of(m)->mine;

	members_set_state(g, m, GOSSIP_DEAD);
	if (!silent)
		members_tell(g, m, mine ? NEWS_ALL : NEWS_FORWARD);
}

uint64_t probe_suspects_due(const struct gossip *g)
{
	return g->suspects_ms > g->suspects_from_ms ? g->suspects_ms : g->suspects_from_ms;
}

static uint64_t step_suspects(struct gossip *g)
{
	uint64_t next = NEVER;

	for (unsigned i = 0; i < g->suspect_slots;) {
		struct member *m = g->slots[g->suspects[i]];

		if (m->state != GOSSIP_SUSPECT) {
			m->listed = false;
			g->suspects[i] = g->suspects[--g->suspect_slots];
			continue;
		}
		i++;
		if (g->now >= m->suspect_until_ms || (is_confirmed(m) && g->now >= rare_of(m)->window_ms)) {
			declare_dead(g, m);
			continue;
		}
		sooner(&next, m->suspect_until_ms);
		if (is_confirmed(m))
			sooner(&next, rare_of(m)->window_ms);
	}
	return next;
}

/* ---- verifying for others ---- */

void probe_on_verify(struct gossip *g, struct member *m, const struct proto_entry *suspect)
{
	struct member *target = members_find(g, suspect->hostno);
	struct check *free_check = NULL;
	struct proto_entry claim = *suspect;

	claim.state = GOSSIP_SUSPECT;
	members_claim(g, m, &claim);
	if (!target || target == g->self)
		return;
	for (unsigned i = 0; i < CHECKS; i++) {
		struct check *c = &g->checks[i];

		if (c->target == suspect->hostno && c->for_hostno == m->hostno)
			return;
		if (c->target == 0)
			free_check = c;
	}
	if (!free_check)
		return;
	*free_check = (struct check){
		.target = suspect->hostno,
		.for_hostno = m->hostno,
		.epoch = suspect->epoch,
		.incarnation = suspect->incarnation,
		.started_ms = g->now,
		.next_ms = g->now,
	};
}

static void finish_check(struct gossip *g, struct check *c, bool alive)
{
	struct member *asker = members_find(g, c->for_hostno);
	struct proto_verdict verdict = {
		.hostno = c->target, .epoch = c->epoch, .incarnation = c->incarnation, .alive = alive, .health = g->health};
	struct proto_packet packet = {0};

	c->target = 0;
	proto_put_verdict(&packet, &verdict);
	if (asker && asker != g->self)
		core_send(g, asker, FRAME_CLASS_MEMBERSHIP, &packet);
}

static uint64_t step_checks(struct gossip *g)
{
	uint64_t next = NEVER;

	for (unsigned i = 0; i < CHECKS; i++) {
		struct check *c = &g->checks[i];
		struct member *m;

		if (c->target == 0)
			continue;
		m = members_find(g, c->target);
		if (m->heard_ms >= c->started_ms && c->pings > 0) {
			finish_check(g, c, true);
			continue;
		}
		if (g->now >= c->next_ms) {
			if (c->pings == 2) {
				finish_check(g, c, false);
				continue;
			}
			send_ping(g, m, PING_OTHER);
			if (c->pings > 0 && !m->by_stream)
				try_stream(g, m);
			c->pings++;
			c->next_ms = g->now + VERIFY_GAP_MS;
		}
		sooner(&next, c->next_ms);
	}
	return next;
}

static unsigned place_among_asked(const struct rare *r, uint32_t hostno)
{
	unsigned place = 0;

	while (place < r->asked && r->verifiers[place] != hostno)
		place++;
	return place;
}

/* Three that say so count, not one that says so three times: who was asked has one word, and who was not has none. */
void probe_on_verdict(struct gossip *g, const struct member *from, const struct proto_verdict *verdict)
{
	struct member *m = members_find(g, verdict->hostno);
	unsigned place;
	struct rare *r;

	if (!m || m->state != GOSSIP_SUSPECT || !rare_of(m)->mine || m->epoch != verdict->epoch ||
		m->incarnation != verdict->incarnation)
		return;
	r = rare(m);
	place = place_among_asked(r, from->hostno);
	if (place == r->asked)
		return;
	r->vetoed |= verdict->alive;
	if (verdict->alive || (r->said & 1u << place))
		return;
	r->said |= (uint8_t)(1u << place);
	r->confirmed += (uint16_t)(CONFIRM_WHOLE / (1 + verdict->health));
	set_deadline(g, m);
}

/* ---- answers ---- */

static void compare(struct gossip *g, struct member *m, const struct proto_ping *ping)
{
	struct proto_entry alive = {
		.hostno = m->hostno, .state = GOSSIP_ALIVE, .epoch = ping->epoch, .incarnation = ping->incarnation};

	members_claim(g, m, &alive);
	members_compare(g, m, ping->members);
	sync_compare(g, m, ping->root);
	standing_remind(g, m);
}

void probe_on_ping(struct gossip *g, struct member *m, const struct proto_ping *ping)
{
	struct proto_packet packet = {0};
	struct proto_ping ack;

	compare(g, m, ping);
	if (m->state != GOSSIP_ALIVE)
		accuse(&packet, m);
	members_piggyback(g, m, &packet);
	fill_ping(g, m, &ack, ping->seq);
	proto_put_ping(&packet, PROTO_ACK, &ack);
	core_send(g, m, FRAME_CLASS_PROBE, &packet);
	if (m == g->stream_member || m->by_stream) /* one of us had no answer by UDP */
		probe_doubt(g, m);
}

static void help_done(struct gossip *g, struct ping *ping, enum proto_type answer)
{
	struct member *asker = members_find(g, ping->for_hostno);
	struct proto_packet packet = {0};

	g->helping--;
	ping->kind = PING_NONE;
	proto_put_seq(&packet, answer, ping->for_seq);
	if (asker)
		core_send(g, asker, FRAME_CLASS_PROBE, &packet);
}

void probe_on_ack(struct gossip *g, struct member *m, const struct proto_ping *ack)
{
	struct ping *ping = ping_slot(g, ack->seq);

	compare(g, m, ack);
	if (ping->kind == PING_NONE || ping->seq != ack->seq || ping->target != m->hostno)
		return;
	m->answered_ms = g->answered_ms = g->now;
	if (ping->stream) {
		m->by_stream |= m->unanswered >= UNANSWERED_STREAM;
	} else {
		measured(g, m, g->now_us - ping->sent_us);
		m->by_stream = false;
		m->unanswered = 0;
	}
	if (ping->kind == PING_PROBE && g->probe.phase != PROBE_IDLE && g->probe.seq == ping->seq)
		probe_done(g, true);
	if (ping->kind == PING_HELP)
		help_done(g, ping, PROTO_INDIRECT_ACK);
	ping->kind = PING_NONE;
}

void probe_on_ping_req(struct gossip *g, struct member *m, const struct proto_ping_req *req)
{
	struct member *target = members_find(g, req->hostno);
	struct ping *ping;

	if (!target || target == g->self)
		return;
	ping = send_ping(g, target, PING_HELP);
	ping->for_hostno = m->hostno;
	ping->for_seq = req->seq;
	ping->deadline_ms = g->now + req->timeout_ms;
	g->helping++;
}

void probe_on_nack(struct gossip *g, struct member *m, uint32_t seq)
{
	(void)m;
	if (g->probe.phase == PROBE_INDIRECT && g->probe.seq == seq && g->probe.nacks < g->probe.helpers)
		g->probe.nacks++;
}

void probe_on_indirect_ack(struct gossip *g, uint32_t seq)
{
	if (g->probe.phase == PROBE_INDIRECT && g->probe.seq == seq)
		probe_done(g, true);
}

static uint64_t step_help(struct gossip *g)
{
	uint64_t next = NEVER;

	for (unsigned i = 0; i < PINGS && g->helping > 0; i++) {
		struct ping *ping = &g->pings[i];

		if (ping->kind != PING_HELP)
			continue;
		if (g->now >= ping->deadline_ms)
			help_done(g, ping, PROTO_NACK);
		else
			sooner(&next, ping->deadline_ms);
	}
	return next;
}

/* ---- time ---- */

/* The dead are asked for ever: one in a second by each host, so that n hosts on each side of a cut meet about 1/n s after the
 * heal. Alone, a host asks harder: it is all it has to do. */
static uint64_t dead_period(const struct gossip *g)
{
	return g->state_count[GOSSIP_ALIVE] <= 2 ? PROBE_PERIOD_MS / 2 : PROBE_PERIOD_MS;
}

static void ask_unheard(struct gossip *g, struct member *m)
{
	m->greeted = true;
	if (m->frame.boot_known) {
		send_ping(g, m, PING_OTHER);
		return;
	}
	core_hello(g, m);
	if (m->unanswered++ % UNANSWERED_DEAD == UNANSWERED_DEAD - 1)
		try_stream(g, m); /* who does not know our boot answers with a question for it */
}

static void step_unheard(struct gossip *g)
{
	unsigned asked = 0, start = core_random(g, g->member_count);

	g->unheard_ms = NEVER;
	for (unsigned i = 0; i < g->member_count; i++) {
		struct member *m = g->slots[(start + i) % g->member_count];

		if (!m->unheard)
			continue;
		if (g->now < g->strangers_ms && !id_equal(&m->frame.host_id, &g->config.source)) {
			sooner(&g->unheard_ms, g->strangers_ms);
			continue;
		}
		sooner(&g->unheard_ms, g->now + PROBE_PERIOD_MS / 2);
		if (m->heard_ms == 0 && m->since_ms + STRANGER_MS > g->now && !m->at_start)
			sooner(&g->unheard_ms, m->since_ms + STRANGER_MS);
		else if (asked++ < NEWS_ALL_MAX)
			ask_unheard(g, m);
	}
}

void probe_start(struct gossip *g)
{
	g->probe_ms = g->now + core_random(g, PROBE_PERIOD_MS);
	g->dead_ms = g->now + core_random(g, PROBE_PERIOD_MS);
	g->unheard_ms = g->config.source_boot ? g->now + STRANGER_MS : g->now; /* introduce_start has begun with it */
	g->strangers_ms = g->newcomer ? g->now + STRANGER_MS : 0;
}

uint64_t probe_tick(struct gossip *g)
{
	uint64_t next;

	if (g->measured > 0)
		trust_measure(g);
	step_probe(g);
	if (g->now >= g->probe_ms) {
		g->probe_ms = g->now + PROBE_PERIOD_MS;
		if (g->probe.phase == PROBE_IDLE)
			begin_probe(g);
	}
	if (g->now >= g->dead_ms) {
		struct member *m = random_of(g, true);

		g->dead_ms = g->now + dead_period(g);
		if (m)
			send_ping(g, m, PING_OTHER);
	}
	if (g->now >= g->unheard_ms)
		step_unheard(g);
	if (g->now >= probe_suspects_due(g)) {
		g->suspects_ms = NEVER; /* deaths may bring it forward */
		g->suspects_from_ms = g->state_count[GOSSIP_SUSPECT] > SUSPECTS_MANY ? g->now + SUSPECTS_GAP_MS : 0;
		next = step_suspects(g);
		sooner(&g->suspects_ms, next);
	}
	next = probe_suspects_due(g);
	sooner(&next, step_checks(g));
	sooner(&next, step_help(g));
	sooner(&next, g->probe_ms);
	if (g->state_count[GOSSIP_DEAD] > 0)
		sooner(&next, g->dead_ms);
	sooner(&next, g->unheard_ms);
	if (g->probe.phase != PROBE_IDLE)
		sooner(&next, g->probe.deadline_ms);
	return next;
}

void probe_end(struct gossip *g, uint32_t hostno)
{
	if (g->probe.target == hostno)
		g->probe.phase = PROBE_IDLE;
	for (unsigned i = 0; i < CHECKS; i++)
		if (g->checks[i].target == hostno)
			g->checks[i].target = 0;
}

/* We were stopped for a while (SIGSTOP, a suspended VM): nobody else is to blame for what we did not hear. */
void probe_paused(struct gossip *g, uint64_t gap_ms)
{
	g->probe.phase = PROBE_IDLE;
	probe_unhealthy(g, HEALTH_MAX);
	for (unsigned i = 0; i < g->member_count; i++) {
		struct member *m = g->slots[i];

		if (m->state != GOSSIP_SUSPECT || m->since_ms + gap_ms > g->now)
			continue; /* the packets that waited for us may have raised it just now */
		m->since_ms += gap_ms;
		m->suspect_until_ms += gap_ms;
		if (m->rare)
			m->rare->window_ms += gap_ms;
	}
	for (unsigned i = 0; i < CHECKS; i++)
		g->checks[i].target = 0;
}

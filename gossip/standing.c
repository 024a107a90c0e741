/* How others know us: whether our state was set back to an older one, and whether somebody else speaks with our identity.
 *
 * A state directory that is restored from a backup has forgotten what its host did since: addresses that it handed away, promises
 * that it made. It cannot notice that alone. So each host publishes a *mark* of its state, a number that rises with each change
 * that must not be forgotten and a random tag of that change, and everybody keeps the highest mark of each other host for as
 * long as it runs, through the other's restarts. A host that starts asks (RECALL) before it acts on what it remembers. Who knows
 * a higher mark of it, or another one of the same number, says so (STANDING), also unasked when a lower mark is published.
 *
 * It asks with its *base*: the mark at which it was last found sound. What it did since then alone, told nobody, proves nothing:
 * a state that was set back and went on alone has high marks too. So a mark is published only by who stands sound.
 *
 * What is said to a process counts for that process alone: a STANDING names the boot tag that it is for. An answer of the life
 * before, or to a question of that life which somebody kept back, is about what was the state then.
 *
 * Enough is known when ENOUGH others have answered, or all that are there, or one has and the rest is silent for a while. A host
 * that finds nobody stands ALONE: what it does then is the caller's to decide, and it asks whoever appears. Marks are kept in
 * memory, so who has started with us knows nothing of us and says so (a mark of 0): that is a *void* answer, which counts only
 * when all have answered, or nobody who knows more does for a longer while.
 *
 * Two hosts with one identity (a copied disk) take each other's place at every third host: a boot tag comes back that another had
 * replaced, which a restart never does. The third host tells both, and the one that it met later that it is the later one. That
 * one falls silent for good; one that has stood sound for a while does not believe that it is the later one, since whoever it was
 * cut off from may have met them in the other order. */
#include "gossip/core_internal.h"

#define MARK_VERSION 1
#define MARK_SIZE 17
#define ENOUGH 3
#define FIRST_ALONE_MS 500 /* one answer is enough when no other comes for so long */
#define VOID_ALONE_MS 3000 /* likewise, of those that know nothing of us */
#define NOBODY_MS 10000	   /* by then who does not answer is suspected at least */
#define ASK_AGAIN_MS 300
#define ASK_AT_ONCE 8
#define REMIND_MS 1000
#define FIRM_AFTER_MS 60000 /* who has stood sound for so long is not the later one */

static bool asks(const struct gossip *g)
{
	return g->standing.now == GOSSIP_STANDING_ASKING || g->standing.now == GOSSIP_STANDING_ALONE;
}

static void become(struct gossip *g, enum gossip_standing standing, uint32_t by)
{
	if (g->standing.now == standing)
		return;
	g->standing.now = standing;
	g->standing.since_ms = g->now;
	if (g->ops.standing)
		g->ops.standing(g->ctx, standing, by);
}

/* ---- marks ---- */

bool gossip_mark_outranks(const struct gossip_mark *known, const struct gossip_mark *said)
{
	return known->count > said->count || (known->count == said->count && known->tag != said->tag);
}

static void publish_mark(struct gossip *g)
{
	uint8_t val[MARK_SIZE];
	struct bytes_writer w;

	bw_init(&w, val, sizeof(val));
	bw_u8(&w, MARK_VERSION);
	bw_u64(&w, g->standing.base.count);
	bw_u64(&w, g->standing.base.tag);
	push_gather(g, PUSH_LAZY_MS); /* many changes of a state come together */
	core_put(g, 0, MARK_RECORD_KEY, 1, val, w.len);
}

void gossip_set_mark(struct gossip *g, const struct gossip_mark *mark, uint64_t now_ms)
{
	if (!g->started) {
		g->standing.base = *mark;
		return;
	}
	if (g->standing.now != GOSSIP_STANDING_SOUND)
		return;
	core_enter(g, now_ms);
	g->standing.base = *mark;
	publish_mark(g);
	core_leave(g);
}

static void tell(struct gossip *g, struct member *m, const struct gossip_addr *to, enum proto_verdict_of_us verdict)
{
	struct proto_standing s = {.verdict = verdict, .boot = m->frame.boot, .epoch = m->epoch, .mark = m->mark};
	struct proto_packet packet = {0};

	proto_put_standing(&packet, &s);
	core_send_to(g, m, to, FRAME_CLASS_MEMBERSHIP, &packet);
}

/* Its record of topic 0 says so. */
void standing_mark_record(struct gossip *g, uint32_t origin, const uint8_t *val, size_t len)
{
	struct member *m = members_find(g, origin);
	struct gossip_mark mark;
	struct bytes_reader r;

	br_init(&r, val, len);
	if (br_u8(&r) != MARK_VERSION)
		return;
	mark.count = br_u64(&r);
	mark.tag = br_u64(&r);
	if (!br_done(&r)) {
		g->counters.refused_decode++;
		return;
	}
	if (!m || m == g->self)
		return;
	m->said_less = mark.count <= m->mark.count && gossip_mark_outranks(&m->mark, &mark);
	if (mark.count > m->mark.count)
		m->mark = mark;
	if (m->rare)
		m->rare->remind_ms = g->now;
	standing_remind(g, m);
}

/* It uses an epoch a second time, for something else (R6): its disk was set back to before it had used it first. It need not have
 * forgotten anything that a mark tells of; what it has to do is to take a later epoch. */
static bool repeats_epoch(const struct gossip *g, const struct member *m)
{
	const struct origin *origin = g->shards.conflicts ? shards_origin(&g->shards, m->hostno) : NULL;

	return origin && origin->refused && origin->epoch == m->epoch;
}

/* Again while it probes and answers: the word may be lost, and who was set back may lack the key that it is said with. */
void standing_remind(struct gossip *g, struct member *m)
{
	if (g->now < rare_of(m)->remind_ms || !member_usable(g, m) || !(m->said_less || repeats_epoch(g, m)))
		return;
	rare(m)->remind_ms = g->now + REMIND_MS;
	tell(g, m, &m->addr, PROTO_SET_BACK);
}

/* ---- asking ---- */

static void ask(struct gossip *g, struct member *m)
{
	struct proto_packet packet = {0};

	proto_put_recall(&packet, &g->standing.base);
	core_send(g, m, FRAME_CLASS_MEMBERSHIP, &packet);
}

void standing_open(struct gossip *g)
{
	g->standing.began_ms = g->standing.since_ms = g->standing.next_ms = g->now;
	if (g->newcomer) /* there is no older state of it */
		become(g, GOSSIP_STANDING_SOUND, 0);
}

void standing_met(struct gossip *g, struct member *m)
{
	m->stood = false;
	if (asks(g))
		ask(g, m);
}

static unsigned count_usable(const struct gossip *g, unsigned *ret_others)
{
	unsigned usable = 0, others = 0;

	for (unsigned i = 0; i < g->member_count; i++) {
		const struct member *m = g->slots[i];

		if (m == g->self || m->state == GOSSIP_LEFT || m->forgotten)
			continue;
		others++;
		usable += member_usable(g, m);
	}
	*ret_others = others;
	return usable;
}

static void settle(struct gossip *g)
{
	struct standing *s = &g->standing;
	unsigned others, usable = count_usable(g, &others);
	unsigned need = usable < ENOUGH ? usable : ENOUGH;

	if (others == 0 || (s->answers > 0 && (s->answers >= need || g->now >= s->first_ms + FIRST_ALONE_MS)))
		become(g, GOSSIP_STANDING_SOUND, 0);
	else if (s->voids > 0 && (s->answers + s->voids >= usable || g->now >= s->void_ms + VOID_ALONE_MS))
		become(g, GOSSIP_STANDING_SOUND, 0);
	else if (s->answers == 0 && s->voids == 0 && (usable == 0 || g->now >= s->began_ms + NOBODY_MS))
		become(g, GOSSIP_STANDING_ALONE, 0);
}

uint64_t standing_tick(struct gossip *g)
{
	unsigned asked = 0, start;

	if (!asks(g))
		return NEVER;
	if (g->now < g->standing.next_ms)
		return g->standing.next_ms;
	settle(g);
	if (!asks(g))
		return NEVER;
	start = core_random(g, g->member_count);
	for (unsigned i = 0; i < g->member_count && asked < ASK_AT_ONCE; i++) {
		struct member *m = g->slots[(start + i) % g->member_count];

		if (m->stood || !member_usable(g, m) || !m->frame.boot_known)
			continue;
		ask(g, m);
		asked++;
	}
	g->standing.next_ms = g->now + ASK_AGAIN_MS;
	return g->standing.next_ms;
}

bool standing_on_recall(struct gossip *g, struct member *m, struct bytes_reader *body)
{
	struct gossip_mark said;

	if (!proto_get_recall(body, &said))
		return false;
	tell(g, m, &m->addr, gossip_mark_outranks(&m->mark, &said) ? PROTO_SET_BACK : PROTO_SOUND);
	return true;
}

/* ---- being told ---- */

static void on_sound(struct gossip *g, struct member *m, const struct gossip_mark *known)
{
	struct standing *s = &g->standing;

	if (m->stood)
		return;
	m->stood = true;
	if (known->count == 0 && s->base.count > 0) {
		if (s->voids++ == 0)
			s->void_ms = g->now;
	} else if (s->answers++ == 0) {
		s->first_ms = g->now;
	}
	if (asks(g)) {
		settle(g);
		g->standing.next_ms = g->now + FIRST_ALONE_MS / 5;
	}
}

static void on_twin(struct gossip *g, struct member *m, bool later)
{
	bool firm = g->standing.now == GOSSIP_STANDING_SOUND && g->now >= g->standing.since_ms + FIRM_AFTER_MS;

	rare(g->self)->twin_ms = g->now;
	if (later && !firm && g->standing.now != GOSSIP_STANDING_TWIN)
		become(g, GOSSIP_STANDING_SILENT, m->hostno);
	else
		become(g, GOSSIP_STANDING_TWIN, m->hostno);
}

bool standing_on_verdict(struct gossip *g, struct member *m, struct bytes_reader *body)
{
	struct proto_standing s;

	if (!proto_get_standing(body, &s))
		return false;
	if (s.boot != g->sender.boot) {
		g->counters.refused_replay++;
		return true;
	}
	if (g->standing.now == GOSSIP_STANDING_SILENT)
		return true;
	switch (s.verdict) {
	case PROTO_SOUND:
		on_sound(g, m, &s.mark);
		break;
	case PROTO_SET_BACK:
		if (gossip_mark_outranks(&s.mark, &g->standing.base))
			become(g, GOSSIP_STANDING_SET_BACK, m->hostno);
		break;
	case PROTO_TWIN:
	case PROTO_TWIN_LATER:
		on_twin(g, m, s.verdict == PROTO_TWIN_LATER);
		break;
	}
	/* What we say under numbers that were used before would be refused (R6). */
	if (s.verdict == PROTO_SET_BACK && s.epoch >= g->self->epoch && s.epoch < UINT32_MAX)
		core_raise_epoch(g, s.epoch + 1, 0);
	return true;
}

/* ---- what we see of others ---- */

void standing_twin_seen(struct gossip *g, struct member *m, const struct gossip_addr *from)
{
	g->conflicts++;
	if (rare(m)->twin_ms == 0)
		rare(m)->twin_later = m->frame.boot_before;
	rare(m)->twin_ms = g->now;
	tell(g, m, from, m->frame.boot == rare(m)->twin_later ? PROTO_TWIN_LATER : PROTO_TWIN);
}

enum gossip_standing gossip_standing(const struct gossip *g)
{
	return g->standing.now;
}

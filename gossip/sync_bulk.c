/* Who gets much of us at a time, and who gets it of others.
 *
 * The first BULK_FREE_PACKETS of an answer go to anybody; more than those gets only who is among the BULK_MAX served in bulk at a
 * time. The next one is told BUSY, leaves us alone for so long, and turns to another: when many start at once, those that have
 * been served serve.
 *
 * A newcomer that lacks most of what there is (*bare*) knows hardly anybody else to turn to. It gets no part when the places are
 * taken, but waits; who has been served takes half of those that wait, or all when no other is being served. Each of them is told
 * of it what the two need to speak: its admission, that it is alive, and BUSY with its number. It begins with that host as it did
 * with us, and waits there in turn. BUSY with our own number says that it is its turn here. So of N that join at once none asks
 * in vain, each host serves two or three, and the last one has its state after log2 N times what one copy takes. Who is served
 * gets our table behind the state, and with it knows everybody that it is to serve.
 *
 * What is lost on the way, or a host that dies with its waiting ones, costs WAITS_MS: then the newcomer compares with its source
 * again, as it does in any case. */
#include "gossip/core_internal.h"

#define WAITS_MS 400
#define ELSEWHERE_MS 200 /* by then another has served it */

static bool has_place(const struct gossip *g, const struct member *m)
{
	for (unsigned i = 0; i < BULK_MAX; i++)
		if (g->bulks[i].hostno == m->hostno && g->now < g->bulks[i].until_ms)
			return true;
	return false;
}

/* A newcomer that has a place is given all, into debt: it shall serve half of those that wait, and they would all wait for what
 * it lacks. */
bool bulk_afford(struct gossip *g, const struct member *m)
{
	return m->bare && has_place(g, m) ? push_afford_relay(g) : push_afford(g);
}

/* Whether the peer is among those served in bulk, or becomes one of them. A place ends when it has all, or when nothing has been
 * asked for a while. */
bool bulk_place(struct gossip *g, const struct member *m)
{
	struct bulk *place = NULL;

	for (unsigned i = 0; i < BULK_MAX; i++) {
		if (g->bulks[i].hostno == m->hostno) {
			place = &g->bulks[i];
			break;
		}
		if (!place && g->now >= g->bulks[i].until_ms)
			place = &g->bulks[i];
	}
	if (!place)
		return false;
	*place = (struct bulk){.hostno = m->hostno, .until_ms = g->now + BULK_LASTS_MS};
	return true;
}

/* ---- who waits ---- */

static const struct record *admission_in(
	const struct gossip *g, uint32_t sponsor, const struct member *m, struct shard **ret_shard)
{
	uint8_t key[SAVED_KEY_SIZE] = {'a'};
	struct shard *shard = shards_find(&g->shards, sponsor, 0);
	const struct record *r;

	memcpy(key + 1, m->frame.host_id.bytes, sizeof(m->frame.host_id.bytes));
	r = shard && shard_current(shard) ? shards_record(shard, &g->shards, key, sizeof(key)) : NULL;
	if (!r || r->deleted || r->doomed || r->old_epoch)
		return NULL;
	*ret_shard = shard;
	return r;
}

/* Most were admitted by us, or by who admitted us. */
static const struct record *admission_of(const struct gossip *g, const struct member *m, struct shard **ret_shard)
{
	const struct member *source = members_by_id(g, &g->config.source);
	const struct record *r = admission_in(g, g->self->hostno, m, ret_shard);

	if (!r && source)
		r = admission_in(g, source->hostno, m, ret_shard);
	for (unsigned i = 0; !r && i < g->member_count; i++)
		r = admission_in(g, g->slots[i]->hostno, m, ret_shard);
	return r;
}

static bool make_referral(const struct gossip *g, const struct member *to, struct proto_packet *packet)
{
	struct shard *shard;
	const struct record *r = admission_of(g, to, &shard);
	struct proto_list list;
	struct proto_entry entry;

	if (!r || !shards_encode_one(shard, r, packet))
		return false;
	members_entry(to, &entry);
	proto_members_open(&list, packet, 0);
	if (!proto_members_add(&list, &entry) || !proto_list_close(&list))
		return false;
	proto_busy_open(&list, packet, WAITS_MS);
	return proto_busy_add(&list, to->hostno) && proto_list_close(&list);
}

static unsigned places_taken(const struct gossip *g)
{
	unsigned taken = 0;

	for (unsigned i = 0; i < BULK_MAX; i++)
		taken += g->now < g->bulks[i].until_ms;
	return taken;
}

/* So many of those that wait are told to begin with `with`. Who begins with us is a newcomer still, also if it has a part. */
static void tell_waiting(struct gossip *g, const struct member *with, unsigned count, const struct proto_packet *packet)
{
	for (unsigned i = 0; i < g->member_count && count > 0; i++) {
		struct member *m = g->slots[i];

		if (!m->waits || m == with)
			continue;
		m->waits = false;
		if (with != g->self) {
			m->bare = false;
			rare(m)->elsewhere_until_ms = g->now + ELSEWHERE_MS;
		}
		g->waiting--;
		count--;
		if (member_usable(g, m))
			core_send(g, m, FRAME_CLASS_SYNC, packet);
	}
}

static void refer_to(struct gossip *g, const struct member *to)
{
	struct proto_packet packet = {0};

	if (g->waiting > 0 && member_usable(g, to) && !to->unheard && make_referral(g, to, &packet))
		tell_waiting(g, to, places_taken(g) > 0 ? (g->waiting + 1) / 2 : g->waiting, &packet);
}

/* Places are free and there is credit, and nobody was served who could serve: those who wait begin with us once more. */
static void call_up(struct gossip *g)
{
	struct proto_packet packet = {0};
	struct proto_list list;

	proto_busy_open(&list, &packet, WAITS_MS);
	proto_busy_add(&list, g->self->hostno);
	if (proto_list_close(&list))
		tell_waiting(g, g->self, BULK_MAX - places_taken(g), &packet);
}

uint64_t bulk_tick(struct gossip *g)
{
	uint64_t next = NEVER;

	if (g->waiting == 0)
		return NEVER;
	if (places_taken(g) == 0 && push_afford(g))
		call_up(g);
	if (g->waiting > 0 && places_taken(g) == 0)
		return g->now + PUSH_COALESCE_MS;
	for (unsigned i = 0; i < BULK_MAX && g->waiting > 0; i++)
		if (g->now < g->bulks[i].until_ms)
			sooner(&next, g->bulks[i].until_ms);
	return next;
}

bool bulk_bare(const struct member *m)
{
	return m->bare;
}

bool bulk_expects(const struct gossip *g, const struct member *m)
{
	return m->bare || g->now < rare_of(m)->elsewhere_until_ms;
}

bool bulk_lacks_all(const struct gossip *g)
{
	return g->now < g->lacks_until_ms;
}

static void wait_here(struct gossip *g, struct member *m)
{
	g->waiting += !m->waits;
	m->waits = true;
}

/* It has all, or started anew. */
void bulk_done(struct gossip *g, struct member *m)
{
	g->waiting -= m->waits;
	m->waits = m->bare = false;
}

/* It says that it lacks most: also who has a part, of a host that could not give it all. */
void bulk_begins(const struct gossip *g, struct member *m)
{
	m->bare |= m->epoch <= EPOCH_FIRST && !m->at_start && member_usable(g, m);
}

/* It waits no longer, but asks. */
void bulk_asks(struct gossip *g, struct member *m)
{
	const bool bare = m->bare;

	bulk_done(g, m);
	m->bare = bare;
}

static void end_place(struct gossip *g, const struct member *m)
{
	for (unsigned i = 0; i < BULK_MAX; i++)
		if (g->bulks[i].hostno == m->hostno)
			g->bulks[i] = (struct bulk){0};
}

/* There was no credit for the rest: a newcomer is called up when there is. */
void bulk_cut_short(struct gossip *g, struct member *m)
{
	if (!m->bare)
		return;
	end_place(g, m);
	wait_here(g, m);
}

/* It has all that we have, or all that it asked for last: who serves with a part passes on the part. */
void bulk_served(struct gossip *g, struct member *m)
{
	const bool bare = m->bare;

	end_place(g, m);
	bulk_done(g, m);
	if (!bare)
		return;
	members_table(g, m);
	refer_to(g, m);
}

/* ---- BUSY ---- */

/* It is told who has what we have: some of those that have been served. */
static void name_others(struct gossip *g, const struct member *m, struct topic *topic, struct proto_list *list)
{
	unsigned named = 0, start = core_random(g, g->member_count);

	for (unsigned i = 0; i < g->member_count && named < BUSY_NAMES; i++) {
		const struct member *other = g->slots[(start + i) % g->member_count];

		if (other != m && member_usable(g, other) && other->in_step && other->mismatch_ms == 0 &&
			interest_has(g, other, topic))
			named += proto_busy_add(list, other->hostno);
	}
}

void bulk_busy(struct gossip *g, struct member *m, struct topic *topic)
{
	struct proto_packet packet = {0};
	struct proto_list list;

	g->counters.busy_told++;
	proto_busy_open(&list, &packet, m->bare ? WAITS_MS : BULK_LASTS_MS);
	if (!m->bare)
		name_others(g, m, topic, &list);
	else
		wait_here(g, m);
	if (proto_list_close(&list))
		core_send(g, m, FRAME_CLASS_SYNC, &packet);
}

static bool may_ask(const struct gossip *g, const struct member *m)
{
	return m && member_usable(g, m) && !m->unheard && g->now >= rare_of(m)->busy_until_ms;
}

static void ask_now(struct gossip *g, struct member *m)
{
	m->mismatch_ms = m->mismatch_ms ? m->mismatch_ms : g->now;
	m->sync_ms = NEVER;
	member_due(g, &m->sync_ms, g->now);
}

static struct member *anybody_else(struct gossip *g)
{
	unsigned start = core_random(g, g->member_count);

	for (unsigned i = 0; i < g->member_count; i++) {
		struct member *other = g->slots[(start + i) % g->member_count];

		if (may_ask(g, other) && !(other->in_step && other->mismatch_ms == 0))
			return other;
	}
	return NULL;
}

/* It serves others. One that it names is asked instead, or just somebody else that differs from us. Who has nothing yet begins
 * with the one that is named, and who is not sent on waits for that. */
bool sync_on_busy(struct gossip *g, struct member *m, struct bytes_reader *body)
{
	const bool bare = bulk_lacks_all(g);
	struct member *instead = NULL;
	uint16_t retry_ms;
	uint32_t hostno;

	if (!proto_get_busy_open(body, &retry_ms))
		return false;
	g->counters.busy_heard++;
	while (proto_get_busy_hostno(body, &hostno)) {
		struct member *named = members_find(g, hostno);

		if (!instead && (named == m || may_ask(g, named)))
			instead = named;
	}
	rare(m)->busy_until_ms = g->now + (instead == m ? 0 : retry_ms < BUSY_MAX_MS ? retry_ms : BUSY_MAX_MS);
	m->sync_ms = NEVER;
	member_due(g, &m->sync_ms, rare_of(m)->busy_until_ms + core_random(g, BULK_LASTS_MS));
	if (bare && g->strangers_ms < rare_of(m)->busy_until_ms + STRANGER_MS)
		g->strangers_ms = rare_of(m)->busy_until_ms + STRANGER_MS;
	if (instead && bare)
		sync_begin(g, instead);
	else if (!bare && (instead || (instead = anybody_else(g)) != NULL))
		ask_now(g, instead);
	return br_done(body);
}

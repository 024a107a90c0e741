/* The member table: who there is, what is believed of whom, and how beliefs meet.
 *
 * A belief is (epoch, incarnation, state). Higher (epoch, incarnation) wins; at equal ones alive < suspect < dead < left. Only a
 * host itself raises its incarnation, to refute. What is stored is the maximum of all evidence, also when the state stays: else a
 * delayed "alive" could undo a death that was heard of twice.
 *
 * Two departures from SWIM. Nobody leaves the table: a dead host is asked for ever, or a cut longer than some timeout would never
 * heal. And hearsay of a death does not kill a host that we see alive: it becomes suspect and is asked at once, with the
 * accusation in the ping, so that after a cut the two sides do not kill each other's healthy hosts before those could refute. */
#include "gossip/core_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

const char *gossip_state_name(enum gossip_state state)
{
	static const char *const names[] = {
		[GOSSIP_ALIVE] = "alive", [GOSSIP_SUSPECT] = "suspect", [GOSSIP_DEAD] = "dead", [GOSSIP_LEFT] = "left"};

	return names[state];
}

const struct rare rare_nothing;

struct rare *rare(struct member *m)
{
	if (!m->rare)
		m->rare = alloc_new(struct rare);
	return m->rare;
}

/* ---- finding ---- */

static uint32_t hash_of_hostno(uint32_t hostno)
{
	return hostno * 0x9e3779b1u >> 8; /* numbers are given in runs that begin at powers of two */
}

static uint32_t hash_of_id(const struct id128 *host_id)
{
	uint32_t hash;

	memcpy(&hash, host_id->bytes, sizeof(hash));
	return hash;
}

static void index_put(struct member_index *index, uint32_t hash, unsigned slot)
{
	uint32_t i = hash & (index->size - 1);

	while (index->at[i])
		i = (i + 1) & (index->size - 1);
	index->at[i] = slot + 1;
	index->used++;
}

/* For one more: never more than three of four are taken. */
static bool index_grow(struct gossip *g, struct member_index *index, bool by_id)
{
	struct member_index grown = {.size = index->size ? index->size * 2 : 16};

	if ((uint64_t)(index->used + 1) * 4 <= (uint64_t)index->size * 3)
		return true;
	grown.at = calloc(grown.size, sizeof(*grown.at));
	if (!grown.at)
		return false;
	for (unsigned i = 0; i < g->member_count; i++)
		index_put(&grown, by_id ? hash_of_id(&g->slots[i]->frame.host_id) : hash_of_hostno(g->slots[i]->hostno), i);
	free(index->at);
	*index = grown;
	return true;
}

struct member *members_find(const struct gossip *g, uint32_t hostno)
{
	const struct member_index *index = &g->by_hostno;
	uint32_t i = hash_of_hostno(hostno);

	for (; index->size && index->at[i & (index->size - 1)]; i++) {
		struct member *m = g->slots[index->at[i & (index->size - 1)] - 1];

		if (m->hostno == hostno)
			return m;
	}
	return NULL;
}

struct member *members_by_id(const struct gossip *g, const struct id128 *host_id)
{
	const struct member_index *index = &g->by_id;
	uint32_t i = hash_of_id(host_id);

	for (; index->size && index->at[i & (index->size - 1)]; i++) {
		struct member *m = g->slots[index->at[i & (index->size - 1)] - 1];

		if (id_equal(&m->frame.host_id, host_id))
			return m;
	}
	return NULL;
}

void members_show(const struct gossip *g, const struct member *m, struct gossip_member *ret_member)
{
	*ret_member = (struct gossip_member){
		.hostno = m->hostno,
		.host_id = m->frame.host_id,
		.epoch = m->epoch,
		.incarnation = m->incarnation,
		.state = m->state,
		.since_ms = m->since_ms,
		.addr = m->addr,
		.vtep = m->vtep,
		.wire = m == g->self ? g->sender.version_max
			: m->wire    ? m->wire
				     : FRAME_VERSION,
		.rtt_us = m->srtt_us,
		.heard_ms = m->heard_ms,
		.answered_ms = m->answered_ms,
		.reach = trust_reach(g, m),
		.self = m == g->self,
		.twin_ms = rare_of(m)->twin_ms,
	};
	snprintf(ret_member->name, sizeof(ret_member->name), "%s", m->name);
}

static void show_change(struct gossip *g, const struct member *m, enum gossip_state old)
{
	struct gossip_member member;

	if (m == g->self)
		return;
	members_show(g, m, &member);
	g->ops.member(g->ctx, &member, old);
}

void members_changed(struct gossip *g, const struct member *m)
{
	show_change(g, m, m->state);
}

void members_save(struct gossip *g, const struct member *m)
{
	struct member_save save = {
		.hostno = m->hostno, .host_id = m->frame.host_id, .epoch = m->epoch, .addr = m->addr, .vtep = m->vtep};
	uint8_t key[SAVED_KEY_SIZE], val[MEMBER_SAVE_MAX];
	size_t len;

	memcpy(save.public_key, m->public_key, sizeof(save.public_key));
	snprintf(save.name, sizeof(save.name), "%s", m->name);
	len = member_save_encode(&save, key, val);
	g->ops.save(g->ctx, key, sizeof(key), val, len, false);
}

/* Else a host that left would be waited for and declared dead by whoever starts again. */
static void save_left(struct gossip *g, const struct member *m)
{
	struct left_save left = {.host_id = m->frame.host_id, .epoch = m->epoch, .incarnation = m->incarnation};
	uint8_t key[SAVED_KEY_SIZE], val[LEFT_SAVE_SIZE];

	left_save_encode(&left, key, val);
	if (m->state == GOSSIP_LEFT)
		g->ops.save(g->ctx, key, sizeof(key), val, sizeof(val), false);
	else
		g->ops.save(g->ctx, key, sizeof(key), NULL, 0, false);
}

/* Bounded by GOSSIP_MEMBERS_MAX. */
static void grow_slots(struct gossip *g)
{
	unsigned capacity = g->slot_capacity ? g->slot_capacity * 2 : 16;

	if (g->member_count < g->slot_capacity)
		return;
	g->slots = alloc_resize(g->slots, struct member *, capacity);
	g->spreading = alloc_resize(g->spreading, struct member *, capacity);
	g->newsworthy = alloc_resize(g->newsworthy, uint32_t, capacity);
	g->suspects = alloc_resize(g->suspects, uint32_t, capacity);
	g->slot_capacity = capacity;
}

/* The number of those in each state, and the lists, follow. */
static void enter_state(struct gossip *g, struct member *m, enum gossip_state state)
{
	enum gossip_state old = m->state;

	g->state_count[state]++;
	m->state = state;
	if (state == GOSSIP_SUSPECT && !m->listed) {
		m->listed = true;
		g->suspects[g->suspect_slots++] = m->slot;
	}
	if (old > GOSSIP_SUSPECT && state <= GOSSIP_SUSPECT)
		g->member_gains++;
	if (rare_of(m)->suspected_ms != 0)
		g->lately_dead += state == GOSSIP_DEAD;
}

static void leave_state(struct gossip *g, struct member *m)
{
	g->state_count[m->state]--;
	if (rare_of(m)->suspected_ms != 0)
		g->lately_dead -= m->state == GOSSIP_DEAD;
}

static void enter_number(struct gossip *g, struct member *m)
{
	m->frame.hostno = m->hostno;
	index_put(&g->by_hostno, hash_of_hostno(m->hostno), m->slot);
	members_update_digest(g, m);
	shards_saw_epoch(&g->shards, m->hostno, m->epoch, g->now);
	g->member_shape++;
	g->member_gains++;
	g->grew_ms = g->now;
	interest_member(g, m);
}

void members_name(struct member *m, const char *name)
{
	free(m->name);
	m->name = alloc_format("%.*s", GOSSIP_NAME_MAX, name);
}

struct member *members_add(struct gossip *g, const struct member_save *save)
{
	struct member *m;

	if (g->member_count >= GOSSIP_MEMBERS_MAX || !index_grow(g, &g->by_hostno, false) || !index_grow(g, &g->by_id, true))
		return NULL;
	m = calloc(1, sizeof(*m));
	if (!m)
		return NULL;
	grow_slots(g);
	m->hostno = save->hostno;
	memcpy(m->public_key, save->public_key, sizeof(m->public_key));
	members_name(m, save->name);
	m->addr = save->addr;
	m->vtep = save->vtep;
	m->epoch = save->epoch;
	m->unheard = true;
	m->since_ms = g->now;
	m->suspect_until_ms = g->now + UNHEARD_MS;
	m->sync_ms = m->push_ms = NEVER;
	m->frame.host_id = save->host_id;
	m->slot = g->member_count;
	g->slots[g->member_count++] = m;
	enter_state(g, m, GOSSIP_SUSPECT);
	sooner(&g->suspects_ms, m->suspect_until_ms);
	index_put(&g->by_id, hash_of_id(&m->frame.host_id), m->slot);
	enter_number(g, m);
	return m;
}

bool members_renumber(struct gossip *g, struct member *m, const struct member_save *save)
{
	if (!index_grow(g, &g->by_hostno, false))
		return false;
	probe_end(g, m->hostno);
	m->hostno = save->hostno; /* its old place in the index leads to a member with another number, so to nobody */
	g->tree_order_count = 0;  /* its place follows from the number */
	m->addr = save->addr;
	m->vtep = save->vtep;
	frame_peer_fini(&m->frame);
	m->frame = (struct frame_peer){.host_id = m->frame.host_id};
	m->vouched = false;
	m->admitted_boot = 0;
	leave_state(g, m);
	enter_state(g, m, GOSSIP_SUSPECT);
	m->unheard = true;
	m->since_ms = g->now;
	m->suspect_until_ms = g->now + UNHEARD_MS;
	sooner(&g->suspects_ms, m->suspect_until_ms);
	enter_number(g, m);
	return true;
}

void members_describe(struct gossip *g, struct member *m, const char *name, const struct gossip_addr *addr, const struct ip *vtep)
{
	bool moved = !ip_equal(&m->addr.ip, &addr->ip) || m->addr.port != addr->port;

	if (!moved && ip_equal(&m->vtep, vtep) && strcmp(m->name, name) == 0)
		return;
	members_name(m, name);
	m->addr = *addr;
	m->vtep = *vtep;
	members_save(g, m);
	show_change(g, m, m->state);
}

void members_entry(const struct member *m, struct proto_entry *ret_entry)
{
	*ret_entry =
		(struct proto_entry){.hostno = m->hostno, .state = m->state, .epoch = m->epoch, .incarnation = m->incarnation};
}

static void forget_suspicion(struct member *m)
{
	m->suspect_until_ms = NEVER;
	m->told_dead = false;
	if (!m->rare)
		return;
	m->rare->accuser_count = 0;
	m->rare->mine = m->rare->vetoed = false;
	m->rare->asked = m->rare->said = 0;
	m->rare->confirmed = 0;
}

static void raise_version(struct gossip *g, struct member *m, const struct proto_entry *claim)
{
	bool new_epoch = claim->epoch > m->epoch;

	m->told_dead &= claim->epoch == m->epoch && claim->incarnation == m->incarnation;
	m->epoch = claim->epoch;
	m->incarnation = claim->incarnation;
	members_update_digest(g, m);
	if (!new_epoch)
		return;
	shards_saw_epoch(&g->shards, m->hostno, m->epoch, g->now);
	members_save(g, m);
	admit_in_use(g, m);
}

/* Who told us that it is alive gave us its records and gives it ours: nothing has to be said between us for now. */
void members_introduced(struct gossip *g, struct member *m, const struct proto_entry *claim)
{
	raise_version(g, m, claim);
	m->unheard = false;
	m->in_step = true;
	members_set_state(g, m, GOSSIP_ALIVE);
}

/* A cut is over, and half of the cluster is back. Each of us would greet each of them: we know what they had, what they changed
 * comes from the first that we speak to, or from the others of us. */
static bool is_one_of_many(struct gossip *g, const struct member *m)
{
	if (!m->in_step || !tree_grown(g))
		return false;
	if (g->now >= g->returns_ms) {
		g->returns_ms = g->now + RETURNS_MS;
		g->returned = 0;
	}
	return g->returned++ >= RETURNS_MET;
}

/* It is there (again): own changes first, then a comparison, and what either side missed of the others. */
static void came_alive(struct gossip *g, struct member *m)
{
	m->unheard = false;
	members_update_digest(g, m);
	g->member_shape++;
	if (rare_of(m)->introduce_until_ms || introduce_is_source(g, m)) /* the newcomer begins, and asks for all */
		return;
	push_reset(g, m, false);
	m->table_now = true;
	if (is_one_of_many(g, m))
		return;
	member_due(g, &m->sync_ms, g->now + (m->in_step ? MISMATCH_MS + core_random(g, 100) : core_random(g, 20)));
	if (g->settled)
		sync_heads(g, m);
	if (m->heard_ms + PROBE_PERIOD_MS < g->now || m->heard_ms == 0)
		probe_ping(g, m, PING_OTHER);
}

/* It was suspected before we heard it or were introduced: nothing has begun between us. */
static bool is_unmet(const struct gossip *g, const struct member *m)
{
	return m != g->self && m->heard_ms == 0 && !m->in_step;
}

void members_set_state(struct gossip *g, struct member *m, enum gossip_state state)
{
	enum gossip_state old = m->state;
	bool was_unheard = m->unheard;

	forget_suspicion(m);
	g->member_shape++;
	if (state == GOSSIP_DEAD) {
		g->counters.deaths++;
		rare(m)->died_ms = was_unheard ? 0 : g->now;
		rare(m)->died_epoch = m->epoch;
	}
	if (state == GOSSIP_ALIVE && old == GOSSIP_DEAD)
		trust_returned(g, m);
	if (state == GOSSIP_ALIVE && old != GOSSIP_ALIVE)
		m->unanswered = 0; /* of a time when it may have been away: what is lost now, later pings show (trust_reach) */
	if (state == GOSSIP_DEAD || state == GOSSIP_LEFT) {
		m->unheard = false;
		m->push_ms = m->sync_ms = NEVER;
		m->in_step = m->in_step && state == GOSSIP_DEAD;
	}
	leave_state(g, m);
	enter_state(g, m, state);
	members_update_digest(g, m);
	if (state != old)
		m->since_ms = g->now;
	if (m != g->self && (state == GOSSIP_LEFT || old == GOSSIP_LEFT))
		save_left(g, m);
	if (state == GOSSIP_ALIVE && (old != GOSSIP_ALIVE || was_unheard) &&
		(was_unheard || old != GOSSIP_SUSPECT || is_unmet(g, m)))
		came_alive(g, m);
	if (state != old)
		show_change(g, m, old);
}

static unsigned spread_times(const struct gossip *g)
{
	unsigned times = 6;

	for (unsigned n = g->member_count; n > 10; n /= 10)
		times += 6;
	return times;
}

/* A cut may take half of thousands: each packet then tells of several. One that dies is not waited with. */
static uint64_t pass_on_ms(const struct gossip *g)
{
	uint64_t at = g->now + NEWS_DELAY_MS, gap = g->state_count[GOSSIP_SUSPECT] > NEWS_MUCH ? NEWS_GAP_MS : 0;

	return at < g->passed_on_ms + gap ? g->passed_on_ms + gap : at;
}

void members_tell(struct gossip *g, struct member *m, int news)
{
	if (m->news == NEWS_NONE)
		g->newsworthy[g->newsworthy_count++] = m->slot;
	if ((int)m->news < news)
		m->news = news;
	if (m->spread == 0)
		g->spreading[g->spreading_count++] = m;
	m->spread = spread_times(g);
	sooner(&g->news_ms, news == NEWS_ALL ? g->now : pass_on_ms(g));
}

void members_announce_self(struct gossip *g)
{
	members_update_digest(g, g->self);
	members_tell(g, g->self, NEWS_ALL);
}

/* Somebody believes of us what is not so. A claim that we ourselves never made means an older state of ours is known: go past it.
 */
static bool claim_about_self(struct gossip *g, const struct proto_entry *claim)
{
	struct member *me = g->self;

	if (claim->epoch < me->epoch || (claim->epoch == me->epoch && claim->incarnation < me->incarnation))
		return true;
	if (claim->epoch == me->epoch && claim->incarnation == me->incarnation && claim->state == me->state)
		return false;
	if (g->left || claim->epoch == UINT32_MAX || claim->incarnation == UINT32_MAX)
		return false; /* nothing outranks the last number: only a broken member says so */
	if (claim->epoch > me->epoch)
		core_raise_epoch(g, claim->epoch + 1, 0);
	else
		me->incarnation = claim->incarnation + 1;
	if (claim->state != GOSSIP_ALIVE)
		probe_unhealthy(g, 1);
	g->counters.refutations++;
	members_announce_self(g);
	return false;
}

/* Hearsay of its death: it has time to refute. */
static void doubt(struct gossip *g, struct member *m, const struct member *from)
{
	probe_suspect(g, m, from->hostno, true);
	m->told_dead = true;
	members_update_digest(g, m);
}

/* A claim that outranks what is believed. */
static void believe(struct gossip *g, struct member *m, const struct member *from, const struct proto_entry *claim)
{
	bool seen_alive = m->state == GOSSIP_ALIVE && !m->unheard;

	raise_version(g, m, claim);
	switch (claim->state) {
	case GOSSIP_ALIVE:
	case GOSSIP_LEFT:
		members_set_state(g, m, claim->state);
		break;
	case GOSSIP_SUSPECT:
		if (m->state == GOSSIP_DEAD || m->state == GOSSIP_LEFT)
			break;
		if (m->state == GOSSIP_SUSPECT && !m->unheard) { /* it refuted what we hold against it, and is suspected anew */
			forget_suspicion(m);
			m->since_ms = g->now;
		}
		probe_suspect(g, m, from->hostno, false);
		break;
	case GOSSIP_DEAD:
		if (seen_alive)
			doubt(g, m, from);
		else
			members_set_state(g, m, GOSSIP_DEAD);
		break;
	}
	/* Everybody is told of whom we introduce, and knows what our source tells us in the beginning. */
	if (!rare_of(m)->introduce_until_ms && !(introduce_is_source(g, from) && !from->in_step))
		members_tell(g, m, NEWS_FORWARD);
}

/* A suspicion that is younger than it could have been verified, or a host heard of since: both sides of a healing cut say "dead"
 * of hosts that have not had the time to refute. */
static bool may_refute_still(const struct gossip *g, const struct member *m)
{
	uint64_t window = REFUTE_WINDOW_MS * (1 + g->health);

	return m->since_ms + window / 2 > g->now || m->heard_ms + window > g->now;
}

bool members_claim(struct gossip *g, struct member *from, const struct proto_entry *claim)
{
	struct member *m = members_find(g, claim->hostno);

	if (!m && claim->epoch > 0)
		m = admit_claimed(g, claim->hostno);
	if (!m) {
		introduce_claim(g, from, NULL, claim);
		return false;
	}
	if (m == g->self)
		return claim_about_self(g, claim);
	if (m->forgotten)
		return false; /* nobody can undo that */
	if (claim->epoch < m->epoch || (claim->epoch == m->epoch && claim->incarnation < m->incarnation))
		return true;
	if (introduce_claim(g, from, m, claim))
		return false;
	if (claim->epoch == m->epoch && claim->incarnation == m->incarnation && !m->unheard) {
		if (claim->state == GOSSIP_SUSPECT && m->state == GOSSIP_SUSPECT) {
			probe_suspect(g, m, from->hostno, false);
			return false;
		}
		if (claim->state == GOSSIP_DEAD && m->state == GOSSIP_SUSPECT && may_refute_still(g, m)) {
			doubt(g, m, from);
			return false;
		}
		if (claim->state <= m->state)
			return claim->state < m->state;
	}
	believe(g, m, from, claim);
	return false;
}

/* ---- who had left before a restart ---- */

int members_restore_left(struct gossip *g, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct kept_left *kept;
	struct left_save left;

	if (left_save_decode(key, key_len, val, len, &left, err) < 0)
		return -1;
	kept = calloc(1, sizeof(*kept));
	if (!kept)
		return err_set(err, ERR_EXHAUSTED, "gossip: out of memory for a host that left");
	kept->left = left;
	kept->next = g->kept_left;
	g->kept_left = kept;
	return 0;
}

/* A member saved with a later epoch came back since. */
void members_start(struct gossip *g)
{
	for (const struct kept_left *kept = g->kept_left; kept; kept = kept->next) {
		struct proto_entry left = {.epoch = kept->left.epoch, .incarnation = kept->left.incarnation};
		struct member *m = members_by_id(g, &kept->left.host_id);

		if (!m || m == g->self || left.epoch < m->epoch)
			continue;
		raise_version(g, m, &left);
		members_set_state(g, m, GOSSIP_LEFT);
	}
	members_free_left(g);
}

void members_free_left(struct gossip *g)
{
	struct kept_left *kept;

	while ((kept = g->kept_left)) {
		g->kept_left = kept->next;
		free(kept);
	}
}

/* ---- news ---- */

/* All that is marked, in as few packets as possible; what does not fit so many stays marked. */
static unsigned pack_news(struct gossip *g, struct proto_packet *packets, unsigned max)
{
	struct proto_list list;
	unsigned count = 0, entries = 0, taken = 0;

	for (; taken < g->newsworthy_count; taken++) {
		struct member *m = g->slots[g->newsworthy[taken]];
		struct proto_entry entry;

		if (m->news == NEWS_NONE)
			continue;
		members_entry(m, &entry);
		if (entries > 0 && !proto_members_add(&list, &entry)) {
			proto_list_close(&list);
			entries = 0;
			if (++count == max)
				break;
		}
		if (entries++ == 0) {
			packets[count].len = 0;
			proto_members_open(&list, &packets[count], 0);
			proto_members_add(&list, &entry);
		}
		m->news = NEWS_NONE;
	}
	if (entries > 0) {
		proto_list_close(&list);
		count++;
	}
	g->newsworthy_count -= taken;
	memmove(g->newsworthy, g->newsworthy + taken, g->newsworthy_count * sizeof(*g->newsworthy));
	return count;
}

static void send_news(struct gossip *g, struct member *m, const struct proto_packet *packets, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		core_send(g, m, FRAME_CLASS_MEMBERSHIP, &packets[i]);
}

/* To everyone, in an order that begins anywhere. */
static void flush_to_all(struct gossip *g, const struct proto_packet *packets, unsigned count)
{
	unsigned targets = NEWS_ALL_MAX, start = core_random(g, g->member_count);

	for (unsigned i = 0; i < g->member_count && targets > 0; i++) {
		struct member *m = g->slots[(start + i) % g->member_count];

		if (!member_usable(g, m) || m->unheard)
			continue;
		send_news(g, m, packets, count);
		targets--;
	}
}

/* To a few, each drawn by itself: neighbours in the table would be the same ones for several senders. Of so many that everyone
 * passes it on once, e to the power of minus the fan-out remain without it: two of five thousand, who would take the death that
 * follows for hearsay, and wait. So where there are many two of the few are those that follow us on the rings: who is drawn by
 * nobody has it of two that precede it. */
static void flush_to_some(struct gossip *g, const struct proto_packet *packets, unsigned count)
{
	unsigned targets = g->member_count > NEWS_ALL_MAX ? NEWS_FANOUT_MANY : NEWS_FANOUT;

	for (uint32_t ring = 1; g->member_count > NEWS_ALL_MAX && ring <= RINGS; ring++) {
		struct member *m = probe_follower(g, ring);

		if (m) {
			send_news(g, m, packets, count);
			targets--;
		}
	}
	for (unsigned draws = 0; draws < 4 * targets && targets > 0; draws++) {
		struct member *m = g->slots[core_random(g, g->member_count)];

		if (!member_usable(g, m) || m->unheard)
			continue;
		send_news(g, m, packets, count);
		targets--;
	}
}

/* What starts here goes to everyone, what is only passed on to a few: with the fan-out of all, each event reaches all in one or
 * two hops, and what was lost comes with the piggybacks and the table. */
void members_flush(struct gossip *g)
{
	struct proto_packet packets[4];
	bool all = false;
	unsigned count;

	if (g->news_ms > g->now)
		return;
	g->news_ms = NEVER;
	for (unsigned i = 0; i < g->newsworthy_count; i++)
		all |= g->slots[g->newsworthy[i]]->news == NEWS_ALL;
	count = pack_news(g, packets, 4);
	if (g->newsworthy_count > 0)
		g->news_ms = g->now;
	if (all || g->member_count <= 2 * NEWS_FANOUT)
		flush_to_all(g, packets, count);
	else
		flush_to_some(g, packets, count);
	g->passed_on_ms = g->now;
}

void members_piggyback(struct gossip *g, const struct member *to, struct proto_packet *packet)
{
	struct proto_list list;
	struct proto_entry entry;
	unsigned count = 0, looked = g->spreading_count, at = looked > 0 ? core_random(g, looked) : 0;

	for (; looked > 0 && count < PIGGYBACK_MAX; looked--) {
		struct member *m;

		if (at >= g->spreading_count)
			at = 0;
		m = g->spreading[at];
		if (m->spread > 0 && m == to) {
			at++;
			continue;
		}
		if (m->spread > 0) {
			if (count++ == 0)
				proto_members_open(&list, packet, 0);
			members_entry(m, &entry);
			proto_members_add(&list, &entry);
			m->spread--;
		}
		if (m->spread == 0)
			g->spreading[at] = g->spreading[--g->spreading_count];
		else
			at++;
	}
	if (count > 0)
		proto_list_close(&list);
}

/* ---- reading ---- */

bool gossip_member_get(const struct gossip *g, uint32_t hostno, struct gossip_member *ret_member)
{
	const struct member *m = members_find(g, hostno);

	if (!m)
		return false;
	members_show(g, m, ret_member);
	return true;
}

void gossip_each_member(const struct gossip *g, void (*fn)(void *ctx, const struct gossip_member *member), void *ctx)
{
	for (unsigned i = 0; i < g->member_count; i++) {
		struct gossip_member member;

		members_show(g, g->slots[i], &member);
		fn(ctx, &member);
	}
}

unsigned gossip_member_count(const struct gossip *g, enum gossip_state state)
{
	return g->state_count[state];
}

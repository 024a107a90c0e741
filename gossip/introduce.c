/* How a newcomer and the others come to know each other without a word between each two of them.
 *
 * A newcomer turns to one member, its *source*: who admitted it. It says that it is there and fetches the state; the source tells
 * all others of it, several newcomers together when many come at once: their admissions and, behind them in the same packet, that
 * they are alive. So N hosts that join cost about N copies of what there is to know, and not N * N handshakes. Of many that come
 * at once the source serves a few, and these the others (sync_bulk.c).
 *
 * What makes the handshake needless is the boot tag in the admission or the host record. It proves that a packet is no repeated
 * one wherever there is nothing to repeat: to a host that never ran before, and from a host in its first epoch that we never knew
 * in an earlier life of ours. An admission's is of the first epoch, and is believed together with a claim that its host is in
 * that. Between a newcomer and its source JOIN and WELCOME have said it. Everybody else is asked (frame.c, hello), and so is
 * whoever was not introduced within STRANGER_MS: a lost packet or a source that dies costs time, nothing else.
 *
 * A claim that somebody is alive may come before its admission; it is kept for EARLY_LIVES_MS. */
#include "gossip/core_internal.h"

#include <stdlib.h>
#include <string.h>

#define BEGIN_MS 50	   /* for the source's first word */
#define BEGIN_TRIES 6	   /* then it is asked like everybody whom we never heard */
#define GATHER_FIRST_MS 10 /* from one newcomer to its introduction */
#define GATHER_MORE_MS 40  /* when another was introduced less than GATHER_LULL_MS ago */
#define GATHER_LULL_MS 100
#define INTRODUCE_AGAIN_MS 10 /* its record has not come yet */
#define WAIT_MS 3000	      /* at most so long; it may be a slow host */
#define EARLY_LIVES_MS 2000
#define PACKETS 8
#define ASK_AFTER_MS 20	   /* from an introduction to the question who knows of it, and as long again at random */
#define DIRECT_MEMBERS 256 /* above, others help to tell them all */

struct early {
	struct proto_entry claim;
	uint32_t from;
	uint64_t until_ms;
	UT_hash_handle hh;
};

/* ---- those who are introduced to us ---- */

static bool boot_proves(const struct gossip *g, const struct member *m, uint32_t epoch)
{
	return g->newcomer || (epoch == EPOCH_FIRST && !m->at_start);
}

static bool keep_early(struct gossip *g, const struct member *from, const struct proto_entry *claim)
{
	struct early *e;

	HASH_FIND(hh, g->early, &claim->hostno, sizeof(claim->hostno), e);
	if (!e) {
		if (HASH_COUNT(g->early) >= GOSSIP_MEMBERS_MAX || (e = calloc(1, sizeof(*e))) == NULL)
			return false;
		e->claim.hostno = claim->hostno;
		HASH_ADD(hh, g->early, claim.hostno, sizeof(e->claim.hostno), e);
		sooner(&g->introduce_ms, g->now + EARLY_LIVES_MS);
	}
	e->claim = *claim;
	e->from = from->hostno;
	e->until_ms = g->now + EARLY_LIVES_MS;
	return true;
}

static void drop_early(struct gossip *g, struct early *e)
{
	HASH_DEL(g->early, e);
	free(e);
}

static void believe_admission(const struct gossip *g, struct member *m)
{
	if (m->frame.boot_known || m->admitted_boot == 0 || !boot_proves(g, m, EPOCH_FIRST))
		return;
	m->boot_epoch = EPOCH_FIRST;
	frame_peer_set_boot(&m->frame, m->admitted_boot);
}

bool introduce_claim(struct gossip *g, struct member *from, struct member *m, const struct proto_entry *claim)
{
	if (!m)
		return keep_early(g, from, claim);
	if (claim->state != GOSSIP_ALIVE || !m->unheard || m->heard_ms != 0)
		return false;
	if (claim->epoch == EPOCH_FIRST)
		believe_admission(g, m);
	if (!m->frame.boot_known && boot_proves(g, m, claim->epoch))
		return keep_early(g, from, claim);
	if (!m->frame.boot_known || m->boot_epoch != claim->epoch)
		return false;
	members_introduced(g, m, claim);
	push_given(g, m, from);
	member_due(g, &m->push_ms, g->now); /* of what it subscribes to, `from` may have nothing */
	return true;
}

static void claim_again(struct gossip *g, const struct member *m)
{
	struct early *e;

	HASH_FIND(hh, g->early, &m->hostno, sizeof(m->hostno), e);
	if (e) {
		const struct early kept = *e;
		struct member *from = members_find(g, kept.from);

		drop_early(g, e);
		if (from)
			members_claim(g, from, &kept.claim);
	}
}

void introduce_admitted(struct gossip *g, struct member *m, uint64_t boot)
{
	if (boot == 0 || m->frame.boot_known || m->heard_ms != 0 || !m->unheard)
		return;
	m->admitted_boot = boot;
	claim_again(g, m);
}

/* Its own word, from its host record. */
void introduce_boot(struct gossip *g, struct member *m, uint32_t epoch, uint64_t boot)
{
	if (boot == 0 || m->frame.boot_known || m->heard_ms != 0 || epoch < m->epoch)
		return;
	m->boot_epoch = epoch;
	if (!boot_proves(g, m, epoch))
		return;
	frame_peer_set_boot(&m->frame, boot);
	claim_again(g, m);
}

/* ---- those whom we introduce ---- */

bool introduce_is_source(const struct gossip *g, const struct member *m)
{
	return g->newcomer && id_equal(&m->frame.host_id, &g->config.source);
}

/* Without a welcome that told its boot tag, behind its first word: what overtakes our side of the hello would be refused. */
void introduce_begin(struct gossip *g, struct member *m)
{
	g->begun = true;
	push_reset(g, m, true);
	push_member(g, m);
	sync_begin(g, m);
}

void introduce_start(struct gossip *g)
{
	struct member *source = members_by_id(g, &g->config.source);

	if (!source || g->config.source_boot == 0)
		return;
	frame_peer_set_boot(&source->frame, g->config.source_boot);
	introduce_begin(g, source);
	g->begin_ms = g->now + BEGIN_MS;
	sooner(&g->introduce_ms, g->begin_ms);
}

/* No word of it. */
static void begin_again(struct gossip *g)
{
	struct member *source = members_by_id(g, &g->config.source);

	g->begin_ms = NEVER;
	if (!source || g->begin_tries++ >= BEGIN_TRIES)
		return;
	if (!g->begun)
		probe_ping(g, source, PING_OTHER);
	else if (source->unheard)
		g->begin_ms = g->now + (uint64_t)BEGIN_MS * g->begin_tries;
	introduce_begin(g, source);
}

static void introduce_soon(struct gossip *g, struct member *m)
{
	rare(m)->introduce_until_ms = g->now + WAIT_MS;
	/* What it was told with its welcome may make its digest equal to ours, and it has not heard anybody yet. */
	if (g->member_count <= TREE_ABOVE)
		members_table(g, m);
	else
		m->table_now = true;
	m->vector_ms = g->now; /* it compares with us, not we with it */
	member_due(g, &m->sync_ms, g->now + STRANGER_MS);
	sooner(&g->introduce_ms, g->now + (g->now < g->introduced_ms + GATHER_LULL_MS ? GATHER_MORE_MS : GATHER_FIRST_MS));
	sooner(&g->introduce_ms, g->gather_ms); /* admissions leave then, and the claim with them */
}

void introduce_heard(struct gossip *g, struct member *m)
{
	if (m->vouched && m->unheard && rare_of(m)->introduce_until_ms == 0)
		introduce_soon(g, m);
}

bool introduce_established(struct gossip *g, struct member *m)
{
	if (introduce_is_source(g, m) && !g->begun) {
		g->begin_ms = g->now + BEGIN_MS;
		sooner(&g->introduce_ms, g->begin_ms);
		return true;
	}
	if (!m->unheard || m->at_start || m->epoch > EPOCH_FIRST || m->greeted)
		return false;
	m->vouched = false;
	introduce_soon(g, m);
	probe_ping(g, m, PING_OTHER);
	return true;
}

struct round {
	struct proto_packet claims; /* of those whose admission says it all */
	struct proto_list claim_list;
	struct proto_packet packets[PACKETS];
	unsigned count;
	struct member *only; /* the one whom it is about; NULL: several */
	unsigned members;
	bool claimed;
};

static const struct shard *record_of(const struct gossip *g, const struct member *m)
{
	const struct shard *shard = shards_find(&g->shards, m->hostno, 0);

	return shard && shards_record(shard, &g->shards, HOST_RECORD_KEY, 1) ? shard : NULL;
}

/* Records first, the claim in the same packet. False: no room left. */
static bool add_records(struct round *r, struct member *m, const struct shard *shard)
{
	struct proto_list list;
	struct proto_entry entry;

	members_entry(m, &entry);
	for (; r->count <= PACKETS; r->count++) {
		struct proto_packet *packet;
		size_t before;

		if (r->count == 0)
			r->count = 1;
		packet = &r->packets[r->count - 1];
		before = packet->len;
		if (shards_encode(shard, 0, false, 0, packet) == shard->head) {
			proto_members_open(&list, packet, 0);
			if (proto_members_add(&list, &entry) && proto_list_close(&list))
				break;
		}
		packet->len = before;
		if (r->count == PACKETS || before == 0)
			return false;
		r->packets[r->count].len = 0;
	}
	return true;
}

static bool add_claim(struct round *r, const struct member *m)
{
	struct proto_entry entry;

	members_entry(m, &entry);
	if (!r->claimed)
		proto_members_open(&r->claim_list, &r->claims, 0);
	r->claimed = true;
	return proto_members_add(&r->claim_list, &entry);
}

/* `shard` NULL: its admission says it all. */
static bool add_to_round(struct round *r, struct member *m, const struct shard *shard)
{
	if (shard ? !add_records(r, m, shard) : !add_claim(r, m))
		return false;
	r->only = r->members++ == 0 ? m : NULL;
	return true;
}

static void send_round(struct gossip *g, const struct round *r)
{
	for (unsigned i = 0; r->members > 0 && i < g->member_count; i++) {
		struct member *m = g->slots[i];

		if (!member_usable(g, m) || m->unheard || m == r->only)
			continue;
		for (unsigned p = 0; p < r->count && r->packets[p].len; p++)
			core_send(g, m, FRAME_CLASS_MEMBERSHIP, &r->packets[p]);
	}
}

/* Its records are about to go to all: whoever compares with us now need not be given them. */
bool introduce_waits(const struct gossip *g, uint32_t origin)
{
	const struct member *m = members_find(g, origin);

	return m && rare_of(m)->introduce_until_ms != 0 && m->state == GOSSIP_ALIVE;
}

/* A newcomer gets no addresses before enough others are known to have its admission. In a mesh their acks tell; by a tree few
 * acknowledge to us, so some are compared with. */
static void ask_who_knows(struct gossip *g)
{
	unsigned asked = 0;

	for (unsigned i = 0; tree_grown(g) && i < g->member_count && asked < ADMISSION_ENOUGH; i++) {
		struct member *m = g->slots[i];

		if (!member_usable(g, m) || m->unheard || m->had_seq >= g->shards.seq)
			continue;
		member_due(g, &m->sync_ms, g->now + ASK_AFTER_MS + core_random(g, ASK_AFTER_MS));
		asked++;
	}
}

/* An admission and a claim, or its own records; NULL in *ret_shard: the former. */
static bool is_ready(const struct gossip *g, const struct member *m, const struct shard **ret_shard)
{
	*ret_shard = m->vouched ? NULL : record_of(g, m);
	return m->state == GOSSIP_ALIVE && !m->unheard && (m->vouched || *ret_shard);
}

static void introduce_waiting(struct gossip *g)
{
	static struct round r;

	r.count = r.members = 0;
	r.packets[0].len = r.claims.len = 0;
	r.claimed = false;
	for (unsigned i = 0; i < g->member_count; i++) {
		struct member *m = g->slots[i];
		const struct shard *shard;
		bool ready;

		if (!rare_of(m)->introduce_until_ms)
			continue;
		ready = is_ready(g, m, &shard);
		if (!ready && g->now < rare_of(m)->introduce_until_ms) {
			sooner(&g->introduce_ms, g->now + INTRODUCE_AGAIN_MS);
			continue;
		}
		rare(m)->introduce_until_ms = 0;
		if (ready && g->member_count > DIRECT_MEMBERS) {
			if (shard)
				tree_introduce(g, shard);
			members_tell(g, m, NEWS_ALL);
		} else if (ready && !add_to_round(&r, m, shard)) {
			/* More than a packet holds is left to the comparisons; what did not fit beside others goes next. */
			if (r.members == 0) {
				members_tell(g, m, NEWS_ALL);
				continue;
			}
			rare(m)->introduce_until_ms = g->now + WAIT_MS;
			g->introduce_ms = g->now;
		}
	}
	if (r.members == 0)
		return;
	g->introduced_ms = g->now;
	if (r.claimed)
		proto_list_close(&r.claim_list);
	push_gathered(g, r.claimed ? &r.claims : NULL); /* the admissions go first */
	send_round(g, &r);
	ask_who_knows(g);
}

/* ---- time ---- */

static void expire_early(struct gossip *g)
{
	struct early *e, *next;

	HASH_ITER(hh, g->early, e, next)
	{
		if (g->now >= e->until_ms)
			drop_early(g, e);
		else
			sooner(&g->introduce_ms, e->until_ms);
	}
}

void introduce_free(struct gossip *g)
{
	struct early *e, *next;

	HASH_ITER(hh, g->early, e, next)
	drop_early(g, e);
}

/* One of us came by the other, which gives it all that there is: what differs is on its way. */
bool introduce_gives(const struct gossip *g, const struct member *m)
{
	return m->vouched || rare_of(m)->introduce_until_ms || introduce_is_source(g, m);
}

/* We have introduced somebody a moment ago. */
bool introduce_lately(const struct gossip *g)
{
	return g->introduced_ms && g->now < g->introduced_ms + GATHER_LULL_MS;
}

/* The next tick introduces whoever waits. */
bool introduce_due(const struct gossip *g)
{
	return g->now >= g->introduce_ms;
}

uint64_t introduce_tick(struct gossip *g)
{
	if (g->now >= g->introduce_ms) {
		if (g->now >= g->begin_ms)
			begin_again(g);
		g->introduce_ms = g->begin_ms;
		introduce_waiting(g);
		expire_early(g);
	}
	return g->introduce_ms;
}

/* Member tables are compared, and what differs is told.
 *
 * Each ping and ack carries a sum over the table of who sends it. Where sums differ, the smaller cluster's whole table goes out:
 * it fits one packet. In a bigger one a difference is a handful of thousands: mostly what changed just now, whose news has not
 * arrived yet. So one packet tells whom we suspect, and what changed here last, and behind it the sums of PROTO_PARTS parts of
 * the table. Who gets it believes the news first; the parts that differ then, it answers with, about a hundred bytes for each
 * 1,000 hosts and part, and asks back: either of the two may be the one that lacks something. */
#include "gossip/core_internal.h"

#include <sodium.h>
#include <string.h>

#define WHOLE_MAX 128		/* members: the table fits one packet */
#define SUSPECTS_MAX 48		/* with RECENT_MAX others and the sums they fit one packet */
#define RECENT_MS 10000		/* so long a change is told first */
#define PART_FACTOR 2654435769u /* numbers are given in runs: these go to different parts */

static const uint8_t siphash_key[crypto_shorthash_KEYBYTES];

static unsigned part_of(const struct member *m)
{
	return m->hostno * PART_FACTOR >> 26;
}

/* Suspects count as alive: their state is not the same everywhere and soon settles. Whom somebody told us dead counts as that:
 * who waits for it to refute has heard what the others have, and lacks nothing that they could tell. */
static uint8_t class_of(const struct member *m)
{
	if (m->state == GOSSIP_SUSPECT && m->told_dead)
		return GOSSIP_DEAD;
	return m->state == GOSSIP_DEAD || m->state == GOSSIP_LEFT ? (uint8_t)m->state : 0;
}

static uint64_t digest_of(const struct member *m)
{
	uint8_t in[16], out[crypto_shorthash_BYTES];
	struct bytes_writer w;
	struct bytes_reader r;

	/* Hosts that never knew it must agree with us; and of one that never ran, some may hold another number (members_admit.c),
	 * or none, since there is nothing to tell of it: its admission is a record. */
	if (m->forgotten || m->epoch == 0)
		return 0;
	bw_init(&w, in, sizeof(in));
	bw_u32(&w, m->hostno);
	bw_u32(&w, m->epoch);
	bw_u32(&w, m->incarnation);
	bw_u8(&w, class_of(m));
	crypto_shorthash(out, in, w.len, siphash_key);
	br_init(&r, out, sizeof(out));
	return br_u64(&r);
}

/* The last of each host. */
static void note_change(struct gossip *g, const struct member *m)
{
	struct member_change *at = &g->recent[g->recent_next];

	for (unsigned i = 0; i < RECENT_MAX; i++)
		if (g->recent[i].slot == m->slot && g->recent[i].ms != 0)
			at = &g->recent[i];
	if (at == &g->recent[g->recent_next])
		g->recent_next = (g->recent_next + 1) % RECENT_MAX;
	*at = (struct member_change){.slot = m->slot, .ms = g->now};
}

/* Whom nobody told us alive or dead is in no part: who compares parts with us tells us of it. */
void members_update_digest(struct gossip *g, struct member *m)
{
	uint64_t digest = digest_of(m);

	g->sums[part_of(m)] += (m->unheard ? 0 : digest) - (m->summed ? m->digest : 0);
	m->summed = !m->unheard;
	if (digest == m->digest)
		return;
	g->digest += digest - m->digest;
	m->digest = digest;
	note_change(g, m);
}

/* ---- telling ---- */

/* The parts whose bits are set. */
static void tell_parts(struct gossip *g, struct member *m, uint64_t parts, enum frame_class class)
{
	struct proto_packet packet = {0};
	struct proto_list list;

	proto_members_open(&list, &packet, PROTO_MEMBERS_TABLE);
	for (unsigned i = 0; i < g->member_count; i++) {
		const struct member *about = g->slots[i];
		struct proto_entry entry;

		if (!(parts >> part_of(about) & 1) || about->unheard)
			continue;
		members_entry(about, &entry);
		if (proto_members_add(&list, &entry))
			continue;
		proto_list_close(&list);
		core_send(g, m, class, &packet);
		packet.len = 0;
		proto_members_open(&list, &packet, PROTO_MEMBERS_TABLE);
		i--;
	}
	proto_list_close(&list);
	core_send(g, m, class, &packet);
}

void members_table(struct gossip *g, struct member *m)
{
	m->table_ms = g->now;
	m->table_now = false;
	tell_parts(g, m, UINT64_MAX, FRAME_CLASS_MEMBERSHIP);
}

static unsigned put_entry(struct proto_list *list, const struct member *m)
{
	struct proto_entry entry;

	if (m->unheard)
		return 0;
	members_entry(m, &entry);
	return proto_members_add(list, &entry);
}

/* Whom we suspect is in no sum, and must hear of it to refute. */
static unsigned put_suspects(struct gossip *g, struct proto_list *list)
{
	unsigned count = 0;

	for (unsigned i = 0; i < g->suspect_slots && count < SUSPECTS_MAX; i++)
		if (g->slots[g->suspects[i]]->state == GOSSIP_SUSPECT)
			count += put_entry(list, g->slots[g->suspects[i]]);
	return count;
}

static unsigned put_recent(struct gossip *g, struct proto_list *list)
{
	unsigned count = 0;

	for (unsigned i = 0; i < RECENT_MAX; i++) {
		const struct member_change *recent = &g->recent[i];

		if (recent->ms != 0 && recent->ms + RECENT_MS >= g->now && g->slots[recent->slot]->state != GOSSIP_SUSPECT)
			count += put_entry(list, g->slots[recent->slot]);
	}
	return count;
}

static void ask_for_parts(struct gossip *g, struct member *m, bool back)
{
	struct proto_packet packet = {0};
	struct proto_sums sums = {.back = back};
	struct proto_list list;

	m->table_ms = g->now;
	m->table_now = false;
	proto_members_open(&list, &packet, 0);
	if (put_suspects(g, &list) + put_recent(g, &list) > 0)
		proto_list_close(&list);
	memcpy(sums.at, g->sums, sizeof(sums.at));
	if (!proto_put_sums(&packet, &sums)) { /* epochs in the millions */
		core_send(g, m, FRAME_CLASS_MEMBERSHIP, &packet);
		packet.len = 0;
		proto_put_sums(&packet, &sums);
	}
	core_send(g, m, FRAME_CLASS_MEMBERSHIP, &packet);
}

/* ---- comparing ---- */

void members_compare(struct gossip *g, struct member *m, uint64_t digest)
{
	if (digest == g->digest) {
		m->table_now = false;
		return;
	}
	/* When many start at once, each would ask each while its table grows. */
	if (g->now < g->tables_ms || (!m->table_now && m->table_ms + TABLE_EVERY_MS > g->now))
		return;
	if (g->member_count <= WHOLE_MAX || rare_of(m)->introduce_until_ms != 0)
		members_table(g, m);
	else
		ask_for_parts(g, m, false);
	g->tables_ms = g->now + (g->member_count > TREE_ABOVE ? TABLE_GAP_MS : 0);
}

bool members_on_sums(struct gossip *g, struct member *m, struct bytes_reader *body)
{
	struct proto_sums theirs;
	uint64_t parts = 0;

	if (!proto_get_sums(body, &theirs))
		return false;
	for (unsigned i = 0; i < PROTO_PARTS; i++)
		parts |= (uint64_t)(theirs.at[i] != g->sums[i]) << i;
	if (parts == 0)
		return true;
	if (push_afford(g))
		tell_parts(g, m, parts, FRAME_CLASS_SYNC);
	if (!theirs.back)
		ask_for_parts(g, m, true);
	return true;
}

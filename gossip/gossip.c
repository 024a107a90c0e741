/* The core of gossip: its design, the door that each call comes through, start, time and end. Own records are in publish.c,
 * packets in packets.c; who does what else, and who calls whom: core_internal.h.
 *
 * What it promises, and how:
 *
 * Membership. Every member is probed by some other within a second or two (members_probe.c), a suspicion is checked by others
 * before it becomes a death, and a death only suspends: a dead host is asked for ever and its records stay. States merge by
 * (epoch, incarnation) (members.c).
 *
 * Records. Each host writes its own shards and nobody else's (shards*.c, rules R1-R6), pushes each change straight to every alive
 * member (sync_push.c), in big clusters by way of others (sync_tree.c), and compares roots with whom it probes anyway (sync.c).
 * Nothing is queued: what has to be sent is always read from the state. So a burst costs what is live, and a host that was away
 * for a second or a week is brought up to date by the same path.
 *
 * Identity. A host is its key; a member is known from an *admission*, signed by the sponsor and kept in the sponsor's shard of
 * topic 0, or from what we saved. Its host record (name, addresses) is a record of its own shard of topic 0. Both are internal:
 * keys of topic 0 that begin like theirs are refused in gossip_put and never shown.
 *
 * Restarts. An epoch that rose tells the others to replace what they have of us; what is put again before gossip_start, or in the
 * second after it, never flickers (R5). With the same epoch the sequence numbers go on: a saved reservation is stepped over.
 *
 * Constants (core_internal.h) and where they come from. PROBE_PERIOD 1 s, 3 helpers, suspicion 2-12 s, health 0-8: memberlist's
 * LAN profile and the Lifeguard paper (arXiv 1707.00788), with an ack timeout that follows the measured round trip (RFC 6298)
 * between 20 and 500 ms instead of a fixed 500. VERIFIERS 5, quorum 3: two pings 200 ms apart each. REFUTE_WINDOW 800 ms, after
 * a probe that takes at least 270: a host that is stopped for a second survives it; a crash is known to 50 hosts after 1.7 s in
 * the median, 4 s at worst (`sim measure_detection`), and that does not grow with their number. PUSH_RTO 15 ms: above a
 * scheduling hiccup and the 4 ms that an ack may wait (PUSH_ACK), below what anybody notices; three tries cover 5 % loss to 1e-4.
 * HOP_RTO 11 ms: the same of a relay, whose ack waits for nothing. MISMATCH 300 ms: above the last retry.
 * PUSH_LAZY 100 ms: fifty hosts that come in take spare host numbers, and each tells each of the others; with a packet for each
 * change that was 75 kB for each host, now it is 33. BUCKET 8 MB/s: a quarter of what one core can seal. */
#include "gossip/core_internal.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* ---- door ---- */

void core_enter(struct gossip *g, uint64_t now_ms)
{
	if (now_ms > g->now)
		g->now = now_ms;
	if (g->now_us < g->now * 1000)
		g->now_us = g->now * 1000;
	g->depth++;
}

/* What the call caused leaves together. */
void core_leave(struct gossip *g)
{
	if (g->depth == 1 && g->interest_ended) {
		g->interest_ended = false;
		shards_sweep_unwanted(&g->shards);
	}
	if (g->depth == 1 && g->started) {
		while (g->members_grew && g->admissions_open) {
			g->members_grew = false;
			admit_rescan(g);
		}
		if (g->interest_said)
			interest_publish(g);
		push_flush(g);
		members_flush(g);
	}
	g->depth--;
}

uint32_t core_random(struct gossip *g, uint32_t below)
{
	uint32_t value;

	if (below < 2)
		return 0;
	g->ops.random(g->ctx, &value, sizeof(value));
	return value % below;
}

/* ---- life ---- */

struct gossip *gossip_new(const struct gossip_config *config, const struct gossip_ops *ops, void *ctx, uint64_t now_ms)
{
	struct gossip *g = calloc(1, sizeof(*g));
	struct member_save self = {.hostno = config->hostno, .epoch = config->epoch, .addr = config->addr, .vtep = config->vtep};

	if (!g)
		return NULL;
	g->config = *config;
	g->ops = *ops;
	g->ctx = ctx;
	g->now = g->called_ms = g->bucket_ms = now_ms;
	g->bucket = BUCKET_BURST;
	g->news_ms = g->probe_ms = g->dead_ms = g->unheard_ms = g->shards_ms = g->heads_ms = g->tree_ms = g->member_due_ms =
		g->interest_ms = g->suspects_ms = g->joins_ms = g->newcomer_ms = g->introduce_ms = g->begin_ms = g->gather_ms =
			g->ack_ms = g->known_ms = NEVER;
	g->newcomer = !id_is_zero(&config->source);
	g->sender = (struct frame_sender){.hostno = config->hostno,
		.host_id = config->identity->id,
		.cluster_id = config->cluster_id,
		.boot = config->boot_tag,
		.version_max = config->wire_max ? config->wire_max : FRAME_VERSION};
	keys_init(g);
	shards_init(&g->shards, config->hostno, config->epoch, &core_shards_ops, g);
	self.host_id = config->identity->id;
	memcpy(self.public_key, config->identity->public_key, sizeof(self.public_key));
	memcpy(self.name, config->name, sizeof(self.name));
	g->self = alloc_made(members_add(g, &self), "member");
	g->self->unheard = false;
	members_set_state(g, g->self, GOSSIP_ALIVE);
	return g;
}

void gossip_free(struct gossip *g)
{
	struct kept *kept;

	if (!g)
		return;
	for (unsigned i = 0; i < g->member_count; i++) {
		frame_peer_fini(&g->slots[i]->frame);
		free(g->slots[i]->rare);
		free(g->slots[i]->name);
		free(g->slots[i]);
	}
	while ((kept = g->kept)) {
		g->kept = kept->next;
		free(kept);
	}
	free(g->own_admission);
	admit_free(g);
	free(g->joins);
	introduce_free(g);
	members_free_left(g);
	tree_free(g);
	sketch_free(g);
	shards_fini(&g->shards);
	frame_ring_wipe(&g->ring);
	sodium_memzero(&g->keys, sizeof(g->keys));
	handshake_wipe(&g->recover.hs);
	forget_free(g);
	free(g->slots);
	free(g->spreading);
	free(g->newsworthy);
	free(g->suspects);
	free(g->sorted);
	free(g->dirty);
	free(g->by_hostno.at);
	free(g->by_id.at);
	free(g);
}

static int restore_member(struct gossip *g, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct member_save save;
	struct member *m;

	if (member_save_decode(key, key_len, val, len, &save, err) < 0)
		return -1;
	if (id_equal(&save.host_id, &g->self->frame.host_id)) {
		/* Only written when somebody proved a later epoch of ours. */
		if (save.epoch > g->self->epoch)
			core_raise_epoch(g, save.epoch + (save.epoch < UINT32_MAX), 0);
		return 0;
	}
	if (members_find(g, save.hostno) || members_by_id(g, &save.host_id))
		return 0;
	m = members_add(g, &save);
	if (!m)
		return err_set(err, ERR_EXHAUSTED, "gossip members: more than %d are saved", GOSSIP_MEMBERS_MAX);
	m->at_start = true;
	return 0;
}

int gossip_restore(struct gossip *g, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	const uint8_t *kind = key;

	if (key_len == SAVED_KEY_SIZE && kind[0] == 'm')
		return restore_member(g, key, key_len, val, len, err);
	if (key_len == SAVED_KEY_SIZE && kind[0] == 'a')
		return admit_restore(g, key, key_len, val, len, err);
	if (key_len == SAVED_KEY_SIZE && kind[0] == 'l')
		return members_restore_left(g, key, key_len, val, len, err);
	if (key_len == SAVED_KEY_SIZE && kind[0] == 'f')
		return forget_restore(g, key, val, len, err);
	if (key_len == 1 && kind[0] == KEYS_RECORD_KEY[0])
		return keys_restore(g, val, len, err);
	if (key_len == 1 && kind[0] == KEYS_WANTED_KEY[0])
		return keys_restore_wanted(g, val, len, err);
	if (key_len == 1 && kind[0] == RESERVE_KEY[0])
		return core_restore_seq(g, val, len, err);
	return err_set(err, ERR_CORRUPT, "gossip saved pair: expected a key of kind m, a, l, f, k or q, found one of %zu bytes",
		key_len);
}

void gossip_start(struct gossip *g, uint64_t now_ms)
{
	core_enter(g, now_ms);
	g->started = true;
	g->called_ms = g->now;
	for (unsigned i = 0; i < g->member_count; i++)
		g->slots[i]->suspect_until_ms = g->now + UNHEARD_MS;
	g->suspects_ms = g->now + UNHEARD_MS;
	if (!admit_speaks(g))
		core_publish_self(g);
	keys_publish(g);
	interest_publish(g);
	admit_publish(g);
	members_start(g);
	forget_start(g);
	standing_open(g);
	probe_start(g);
	vouch_start(g);
	g->shards_ms = g->now + SHARDS_TICK_MS;
	g->heads_ms = g->now + SETTLE_MS;
	g->heads_left = 3;
	g->audit_ms = g->now + AUDIT_GAP_MS + core_random(g, AUDIT_GAP_MS);
	if (g->newcomer) { /* nobody holds anything of an earlier life */
		g->settled = true;
		shards_settle_own(&g->shards);
		g->heads_ms = NEVER;
		g->newcomer_ms = g->now + SETTLE_MS;
		g->lacks_until_ms = g->now + LACKS_MS;
		g->known_gap_ms = KNOWN_FIRST_MS;
		g->known_ms = g->now + g->known_gap_ms;
		introduce_start(g);
	}
	core_leave(g);
}

uint64_t gossip_due(const struct gossip *g)
{
	uint64_t due = g->news_ms;

	if (g->stirred)
		return 0;
	sooner(&due, g->tree_ms);
	sooner(&due, g->member_due_ms);
	sooner(&due, g->gather_ms);
	sooner(&due, g->ack_ms);
	sooner(&due, g->interest_ms);
	sooner(&due, probe_suspects_due(g));
	sooner(&due, g->introduce_ms);
	sooner(&due, g->keys.next_ms);
	return due;
}

uint64_t gossip_tick(struct gossip *g, uint64_t now_ms)
{
	uint64_t next, gap;
	bool members_due;

	if (!g->started || g->left)
		return NEVER;
	core_enter(g, now_ms);
	g->stirred = false;
	gap = g->now - g->called_ms;
	g->called_ms = g->now;
	if (gap > PAUSE_MS) {
		probe_paused(g, gap);
		shards_paused(&g->shards, g->now);
	}
	if (g->now >= g->ack_ms)
		push_pay(g);
	next = probe_tick(g);
	members_due = g->now >= g->member_due_ms;
	if (members_due)
		g->member_due_ms = NEVER;
	sooner(&next, sync_tick(g, members_due));
	sooner(&next, interest_tick(g));
	sooner(&next, keys_tick(g));
	sooner(&next, standing_tick(g));
	sooner(&next, admit_tick(g));
	sooner(&next, vouch_tick(g));
	sooner(&next, introduce_tick(g));
	core_leave(g);
	core_enter(g, now_ms);
	if (members_due)
		push_tick(g);
	sooner(&next, tree_tick(g));
	core_leave(g);
	sooner(&next, g->news_ms);
	sooner(&next, g->tree_ms);
	sooner(&next, g->member_due_ms);
	sooner(&next, g->gather_ms);
	sooner(&next, g->interest_ms);
	sooner(&next, g->ack_ms);
	return next > g->now ? next : g->now + 1;
}

void gossip_clock_us(struct gossip *g, uint64_t now_us)
{
	if (now_us > g->now_us)
		g->now_us = now_us;
}

bool gossip_in_step(const struct gossip *g)
{
	for (unsigned i = 0; i < g->member_count; i++) {
		const struct member *m = g->slots[i];

		if (m == g->self || m->in_step)
			continue;
		if (m->state == GOSSIP_ALIVE || (m->unheard && m->at_start))
			return false;
	}
	return true;
}

bool gossip_has_met(const struct gossip *g)
{
	for (unsigned i = 0; i < g->member_count; i++)
		if (g->slots[i] != g->self && g->slots[i]->in_step && g->slots[i]->state == GOSSIP_ALIVE)
			return true;
	return gossip_in_step(g);
}

/* Twice, since nobody acknowledges it; who misses both hears it from the others, or sees a death. */
void gossip_leave(struct gossip *g, uint64_t now_ms)
{
	struct proto_packet packet = {0};
	struct proto_list list;
	struct proto_entry entry;

	if (!g->started || g->left)
		return;
	core_enter(g, now_ms);
	g->gather_ms = NEVER;
	push_flush(g);
	members_set_state(g, g->self, GOSSIP_LEFT);
	members_entry(g->self, &entry);
	proto_members_open(&list, &packet, 0);
	proto_members_add(&list, &entry);
	proto_list_close(&list);
	for (unsigned i = 0; i < 2 * g->member_count; i++) {
		struct member *m = g->slots[i % g->member_count];

		if (member_usable(g, m))
			core_send(g, m, FRAME_CLASS_MEMBERSHIP, &packet);
	}
	g->left = true;
	g->depth--;
}

const struct gossip_counters *gossip_counters(const struct gossip *g)
{
	struct gossip_counters *c = (struct gossip_counters *)&g->counters; /* the object itself is not const */

	c->records_refused = g->shards.refused;
	c->records_refused_host = g->shards.refused_by[SHARDS_LIMIT_HOST];
	c->records_refused_topic = g->shards.refused_by[SHARDS_LIMIT_TOPIC];
	c->records_refused_all = g->shards.refused_by[SHARDS_LIMIT_ALL];
	c->record_count = g->shards.live_count;
	c->subscriptions = g->subscriptions;
	c->unwanted = g->shards.unwanted;
	c->resets = g->shards.resets;
	c->conflicts = g->conflicts + g->shards.conflicts;
	return c;
}

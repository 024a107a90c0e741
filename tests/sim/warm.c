/* Warm starts: see warm.h. */
#include "tests/sim/warm.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/core_internal.h"
#include "tests/sim/arena.h"
#include "tests/sim/scenario.h"
#include "tests/sim/truth.h"

#define AGE_MS 10000  /* how long ago the cluster started */
#define HEARD_MS 4000 /* when the image hears of the others: its own shards are settled then */
#define RTT_US 500

static void no_send(void *ctx, const struct gossip_addr *to, const void *packet, size_t len)
{
	(void)ctx;
	(void)to;
	(void)packet;
	(void)len;
}

static void no_save(void *ctx, const void *key, size_t key_len, const void *val, size_t len, bool durable)
{
	(void)ctx;
	(void)key;
	(void)key_len;
	(void)val;
	(void)len;
	(void)durable;
}

static void no_member(void *ctx, const struct gossip_member *member, enum gossip_state old)
{
	(void)ctx;
	(void)member;
	(void)old;
}

/* While the image is made nobody hears what it sends. */
static struct gossip_ops silent_ops(void)
{
	struct gossip_ops ops = world_gossip_ops;

	ops.send = no_send;
	ops.save = no_save;
	ops.member = no_member;
	return ops;
}

static uint64_t start_ms(const struct world *w)
{
	return world_now_ms(w) - AGE_MS;
}

static struct gossip *lone_core(struct world *w, unsigned index, const struct gossip_config *config)
{
	struct gossip_ops ops = silent_ops();
	struct gossip *g = gossip_new(config, &ops, &w->hosts[index], start_ms(w));

	if (!g)
		abort();
	return g;
}

/* What a host publishes when it has started, as the batches that others get. */
static unsigned own_batches(struct world *w, unsigned index, const struct gossip_config *config, struct proto_packet packets[4])
{
	struct gossip *g = lone_core(w, index, config);
	const struct shard *shard;
	unsigned count = 0;
	uint64_t at = 0;

	gossip_start(g, start_ms(w));
	gossip_tick(g, start_ms(w) + SETTLE_MS);
	shard = shards_find(&g->shards, config->hostno, 0);
	while (at < shard->head && count < 4) {
		packets[count].len = 0;
		at = shards_encode(shard, at, false, 0, &packets[count++]);
	}
	gossip_free(g);
	return count;
}

static void say_ping(struct gossip *g, struct member *m, enum proto_type type, uint32_t seq)
{
	struct proto_packet packet = {0};
	struct proto_ping ping = {.seq = seq, .epoch = m->epoch, .root = g->shards.root, .members = g->digest};

	proto_put_ping(&packet, type, &ping);
	core_messages(g, m, packet.bytes, packet.len);
}

/* The member says hello, that it is alive, what it has published; and it answers a ping. */
static void hear_of(struct gossip *g, struct member *m, uint64_t boot, const struct proto_packet *packets, unsigned count)
{
	frame_peer_set_boot(&m->frame, boot);
	m->heard_ms = g->now;
	m->epoch = m->epoch ? m->epoch : 1;
	say_ping(g, m, PROTO_PING, 1);
	for (unsigned i = 0; i < count; i++)
		core_messages(g, m, packets[i].bytes, packets[i].len);
	probe_ping(g, m, PING_OTHER);
	g->now_us += RTT_US;
	say_ping(g, m, PROTO_ACK, g->ping_seq);
}

/* All acknowledge what was pushed to them. */
static void acknowledge_all(struct gossip *g)
{
	const struct shard *own = shards_find(&g->shards, g->self->hostno, 0);
	const struct proto_push_ack ack = {.packets = 1, .named = true, .epoch = own->epoch};
	struct proto_packet packet;
	struct proto_list list;

	while (g->hops) {
		struct proto_head hop = {.origin = g->self->hostno, .topic = 0, .epoch = own->epoch, .head = own->head};

		packet.len = 0;
		proto_relay_ack_open(&list, &packet);
		proto_relay_ack_add(&list, &hop);
		proto_list_close(&list);
		for (unsigned i = 0; i < g->member_count && g->hops; i++)
			core_messages(g, g->slots[i], packet.bytes, packet.len);
	}
	for (unsigned i = 0; i < g->member_count && !tree_grown(g); i++) {
		if (g->slots[i] == g->self)
			continue;
		packet.len = 0;
		proto_push_ack_open(&list, &packet, &ack);
		proto_push_ack_add(&list, &ack, 0, own->head);
		proto_list_close(&list);
		core_messages(g, g->slots[i], packet.bytes, packet.len);
	}
}

/* Whom it heard of since is taken off the list: each host would do that in its own copy of all members' pages. */
static void drop_suspects(struct gossip *g)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < g->suspect_slots; i++) {
		struct member *m = g->slots[g->suspects[i]];

		m->listed = m->state == GOSSIP_SUSPECT;
		if (m->listed)
			g->suspects[kept++] = m->slot;
	}
	g->suspect_slots = kept;
}

/* What some more seconds would do: news is old, nothing is on its way. */
static void let_settle(struct gossip *g)
{
	for (unsigned i = 0; i < g->member_count; i++) {
		struct member *m = g->slots[i];

		m->news = NEWS_NONE;
		m->spread = 0;
		if (m != g->self)
			say_ping(g, m, PROTO_PING, 2); /* its root is ours */
	}
	drop_suspects(g);
	g->spreading_count = g->newsworthy_count = 0;
	g->digest_count = 0;
	g->news_ms = g->unheard_ms = g->heads_ms = g->tree_ms = g->member_due_ms = NEVER;
	g->probe.phase = PROBE_IDLE;
	memset(g->pings, 0, sizeof(g->pings));
	g->standing.now = GOSSIP_STANDING_SOUND;
	sync_sort_shards(g);
}

/* What is on disk about the others. */
static void restore_others(struct world *w, struct gossip *g)
{
	struct err err = {0};

	for (unsigned i = 1; i < w->host_count; i++) {
		struct member_save save = world_saved_member(&w->hosts[i]);
		uint8_t key[SAVED_KEY_SIZE], val[MEMBER_SAVE_MAX];

		if (gossip_restore(g, key, sizeof(key), val, member_save_encode(&save, key, val), &err) < 0)
			world_fail(w, "image: %s", err.text);
	}
}

static struct gossip *make_image(struct world *w, const struct gossip_config *configs)
{
	struct gossip *g = lone_core(w, 0, &configs[0]);

	restore_others(w, g);
	gossip_start(g, start_ms(w));
	for (uint64_t ms = SETTLE_MS; ms < HEARD_MS; ms += SETTLE_MS)
		gossip_tick(g, start_ms(w) + ms);
	core_enter(g, start_ms(w) + HEARD_MS);
	for (unsigned i = 1; i < w->host_count; i++) {
		struct proto_packet packets[4];
		bool was = arena_pause();
		unsigned count = own_batches(w, i, &configs[i], packets);

		arena_resume(was);
		hear_of(g, members_find(g, configs[i].hostno), configs[i].boot_tag, packets, count);
	}
	core_leave(g);
	core_enter(g, start_ms(w) + AGE_MS - 1);
	push_tick(g);
	acknowledge_all(g);
	let_settle(g);
	core_leave(g);
	return g;
}

/* What one member is to us becomes what another is to us; who they are stays. */
static void take_part(struct member *m, const struct member *part, uint64_t boot)
{
	struct member is = *m;

	*m = *part;
	m->hostno = is.hostno;
	m->slot = is.slot;
	memcpy(m->public_key, is.public_key, sizeof(m->public_key));
	m->name = is.name;
	m->addr = is.addr;
	m->vtep = is.vtep;
	m->epoch = is.epoch;
	m->incarnation = is.incarnation;
	m->digest = is.digest;
	m->frame.hostno = is.frame.hostno;
	m->frame.host_id = is.frame.host_id;
	m->frame.boot = m->frame.boot_known ? boot : 0;
	m->ring_place = is.ring_place;
}

/* The image's host changes places with another one. */
static void become(struct world *w, struct gossip *g, unsigned index, const struct gossip_config *configs)
{
	struct member *me = members_find(g, configs[index].hostno), *was = g->self;
	const struct member as_peer = *me, as_self = *was;
	struct shard *own = shards_find(&g->shards, me->hostno, 0), *others = shards_find(&g->shards, was->hostno, 0);

	for (unsigned i = 0; me->listed != was->listed && i < g->suspect_slots; i++)
		if (g->suspects[i] == (me->listed ? me : was)->slot)
			g->suspects[i] = (me->listed ? was : me)->slot;
	take_part(was, &as_peer, configs[0].boot_tag);
	take_part(me, &as_self, configs[index].boot_tag);
	if (own && others) {
		uint64_t pushed = others->pushed;

		others->pushed = own->pushed;
		own->pushed = pushed;
	}
	g->self = me;
	g->shards.self = me->hostno;
	g->config = configs[index];
	g->ctx = &w->hosts[index];
	g->sender.hostno = me->hostno;
	g->sender.host_id = me->frame.host_id;
	g->sender.boot = configs[index].boot_tag;
	memset(g->successors, 0, sizeof(g->successors));
}

/* Nobody's clock is in step with anybody's. */
static void draw_phases(struct world *w, struct gossip *g)
{
	uint64_t now_ms = world_now_ms(w);

	g->probe_ms = now_ms + sim_rng_below(&w->rng, PROBE_PERIOD_MS);
	g->dead_ms = now_ms + sim_rng_below(&w->rng, PROBE_PERIOD_MS);
	g->shards_ms = now_ms + sim_rng_below(&w->rng, SHARDS_TICK_MS);
	g->period = sim_rng_below(&w->rng, 4);
	g->called_ms = now_ms;
	memset(&g->counters, 0, sizeof(g->counters));
}

static struct gossip_config *all_configs(struct world *w)
{
	struct gossip_config *configs = calloc(w->host_count, sizeof(*configs));

	if (!configs || !arena_possible())
		abort();
	for (unsigned i = 0; i < w->host_count; i++)
		configs[i] = world_config(w, i);
	return configs;
}

void warm_start(struct world *w)
{
	struct gossip_config *configs = all_configs(w);
	struct gossip *g;

	w->now_us = AGE_MS * SIM_US_PER_MS;
	w->warm = true;
	arena_image_open();
	g = make_image(w, configs);
	g->ops = world_gossip_ops;
	arena_image_close(w->host_count);
	for (unsigned i = 0; i < w->host_count; i++) {
		struct gossip *own = arena_object(i, g);

		arena_enter(i);
		if (i > 0)
			become(w, own, i, configs);
		draw_phases(w, own);
		arena_leave();
		w->hosts[i].gossip = own;
		w->hosts[i].truth = truth_host_new();
		world_touch(w, i);
	}
	free(configs);
}

/* The image is a core that has read its disk and not started; it knows the others with their epochs. */
void warm_restart(struct world *w, uint64_t ms)
{
	struct gossip_config *configs;
	struct gossip *g;

	w->warm = true;
	for (unsigned i = 0; i < w->host_count; i++)
		w->hosts[i].epoch++;
	configs = all_configs(w);
	arena_image_open();
	g = gossip_new(&configs[0], &world_gossip_ops, &w->hosts[0], world_now_ms(w));
	restore_others(w, g);
	arena_image_close(w->host_count);
	for (unsigned i = 0; i < w->host_count; i++) {
		struct gossip *own = arena_object(i, g);

		world_run_us(w, ms * SIM_US_PER_MS / w->host_count);
		arena_enter(i);
		if (i > 0)
			become(w, own, i, configs);
		gossip_start(own, world_now_ms(w));
		arena_leave();
		w->hosts[i].gossip = own;
		w->hosts[i].truth = truth_host_new();
		world_touch(w, i);
	}
	free(configs);
}

bool warm_agrees(struct world *w)
{
	unsigned up = 0;
	bool have = false, same = true;
	u128 root = 0;

	for (unsigned i = 0; i < w->host_count; i++)
		up += w->hosts[i].gossip != NULL;
	for (unsigned i = 0; i < w->host_count && same; i++) {
		const struct gossip *g = w->hosts[i].gossip;

		if (!g)
			continue;
		world_enter(w, i);
		if (!have)
			root = g->shards.root;
		have = true;
		same = g->shards.root == root && g->state_count[GOSSIP_ALIVE] == up;
		world_leave(w);
	}
	return same;
}

/* ---- the same as a cluster that did start ---- */

static const char *member_differs(const struct member *a, const struct member *b)
{
	if (!id_equal(&a->frame.host_id, &b->frame.host_id) || strcmp(a->name, b->name) != 0)
		return "who it is";
	if (memcmp(a->public_key, b->public_key, sizeof(a->public_key)) != 0)
		return "its key";
	if (!ip_equal(&a->addr.ip, &b->addr.ip) || a->addr.port != b->addr.port || !ip_equal(&a->vtep, &b->vtep))
		return "where it is";
	if (a->epoch != b->epoch || a->incarnation != b->incarnation || a->state != b->state || a->unheard != b->unheard)
		return "its state";
	if (a->digest != b->digest)
		return "its digest";
	if (a->frame.boot_known != b->frame.boot_known || a->frame.boot != b->frame.boot)
		return "its boot";
	if (a->in_step != b->in_step || a->had_seq != b->had_seq || a->mismatch_ms != b->mismatch_ms || a->table_now)
		return "how far it was compared";
	return NULL;
}

static const char *shard_differs(const struct shard *a, const struct shard *b)
{
	const struct record *x, *y;

	if (!b || a->epoch != b->epoch || a->head != b->head || a->floor != b->floor || a->settled != b->settled)
		return "its head";
	for (x = a->live.first, y = b->live.first; x && y; x = x->next, y = y->next)
		if (x->seq != y->seq || x->key_len != y->key_len || x->val_len != y->val_len ||
			memcmp(x->bytes, y->bytes, (size_t)x->key_len + x->val_len) != 0)
			return "a record";
	return x || y ? "the number of records" : NULL;
}

static void compare_cores(struct world *w, unsigned index, const struct gossip *cold, const struct gossip *warm)
{
	if (cold->digest != warm->digest || cold->shards.root != warm->shards.root)
		world_fail(w, "host %u: digest or root", index + 1);
	if (cold->self->hostno != warm->self->hostno || cold->sender.boot != warm->sender.boot ||
		cold->settled != warm->settled || cold->shards.seq != warm->shards.seq ||
		cold->member_count != warm->member_count || cold->shards.shard_count != warm->shards.shard_count)
		world_fail(w, "host %u: what it is itself", index + 1);
	for (unsigned i = 0; i < cold->member_count; i++) {
		const struct member *m = cold->slots[i];
		const char *wrong = member_differs(m, members_find(warm, m->hostno));

		if (wrong)
			world_fail(w, "host %u of host %u: %s", index + 1, m->hostno, wrong);
	}
	for (const struct shard *shard = shards_first(&cold->shards); shard; shard = shards_next(shard)) {
		const char *wrong = shard_differs(shard, shards_find(&warm->shards, shard->id.origin, shard->id.topic));

		if (wrong)
			world_fail(w, "host %u of shard %u: %s", index + 1, shard->id.origin, wrong);
	}
	if (shards_check(&warm->shards))
		world_fail(w, "host %u: shards: %s", index + 1, shards_check(&warm->shards));
}

static void warm_start_is_a_cold_one(struct world *w)
{
	struct world *warm = world_new(w->seed, w->host_count, false);

	world_introduce_all(w);
	world_start_all(w);
	expect_quiet(w, 20000);
	world_run_ms(w, 10000);
	warm_start(warm);
	for (unsigned i = 0; i < w->host_count && !w->failure[0]; i++) {
		world_enter(warm, i);
		compare_cores(w, i, w->hosts[i].gossip, warm->hosts[i].gossip);
		world_leave(warm);
	}
	world_run_ms(warm, 20000);
	if (!warm_agrees(warm))
		world_fail(w, "a warm cluster does not stay as it was");
	for (unsigned i = 0; i < w->host_count; i++) {
		const struct gossip_counters *c;

		world_enter(warm, i);
		c = gossip_counters(warm->hosts[i].gossip);
		if (c->suspicions + c->syncs + c->pushes + c->refused_boot + c->refused_key + c->refused_replay != 0)
			world_fail(w, "host %u of a warm cluster has more to do than to probe", i + 1);
		if (c->probes < 18)
			world_fail(w, "host %u of a warm cluster does not probe", i + 1);
		world_leave(warm);
	}
	if (warm->failure[0])
		world_fail(w, "%s", warm->failure);
	world_free(warm);
}

const struct scenario warm_scenarios[] = {
	{"warm_start_is_a_cold_one", 12, false, warm_start_is_a_cold_one},
	{"warm_start_is_a_cold_one", 80, false, warm_start_is_a_cold_one},
	{NULL, 0, false, NULL},
};

/* The simulated world: event queue, network, hosts. See world.h. */
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/core_internal.h"
#include "ipam/ipam_internal.h"
#include "tests/sim/arena.h"
#include "tests/sim/truth.h"

#define SIM_EPOCH_MS 1000 /* virtual time does not start at 0, which cores use for "never" */

#define CLUSTER_ID_BYTE 7
#define CLUSTER_KEY_BYTE 9

#define CHECK_EVERY 192 /* packets, between two looks at some host's copies */

enum event_kind { EVENT_PACKET, EVENT_TICK, EVENT_NUMBER };

struct sim_event {
	uint64_t at_us, order;
	enum event_kind kind;
	unsigned host, joiner;
	struct sim_packet *packet;
};

struct sim_packet {
	struct sim_packet *next;
	unsigned to; /* of one that its host did not get rid of yet */
	struct gossip_addr from;
	bool stream;
	size_t len;
	uint8_t bytes[];
};

/* ---- random: splitmix64 ---- */

uint64_t sim_rng_next(struct sim_rng *rng)
{
	uint64_t z = (rng->state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

uint32_t sim_rng_below(struct sim_rng *rng, uint32_t below)
{
	return below == 0 ? 0 : (uint32_t)(sim_rng_next(rng) % below);
}

bool sim_rng_permille(struct sim_rng *rng, unsigned permille)
{
	return permille > 0 && sim_rng_below(rng, 1000) < permille;
}

/* ---- disks ---- */

static void forget_pair(struct sim_disk *disk, struct sim_pair *pair)
{
	HASH_DEL(disk->first, pair);
	free(pair->val);
	free(pair);
}

void sim_disk_save(struct sim_disk *disk, const void *key, size_t key_len, const void *val, size_t len)
{
	struct sim_pair *pair;

	HASH_FIND(hh, disk->first, key, key_len, pair);
	if (!val) {
		if (pair)
			forget_pair(disk, pair);
		return;
	}
	if (!pair) {
		pair = calloc(1, sizeof(*pair));
		if (!pair || key_len > sizeof(pair->key))
			abort();
		memcpy(pair->key, key, key_len);
		pair->key_len = key_len;
		HASH_ADD_KEYPTR(hh, disk->first, pair->key, key_len, pair);
	}
	if (len != pair->val_len || !pair->val) {
		free(pair->val);
		pair->val = malloc(len + 1);
		if (!pair->val)
			abort();
	}
	memcpy(pair->val, val, len);
	pair->val_len = len;
}

void sim_disk_clear(struct sim_disk *disk)
{
	struct sim_pair *pair, *next;

	HASH_ITER(hh, disk->first, pair, next)
	forget_pair(disk, pair);
}

void sim_disk_copy(struct sim_disk *to, const struct sim_disk *from)
{
	sim_disk_clear(to);
	for (const struct sim_pair *pair = from->first; pair; pair = pair->hh.next)
		sim_disk_save(to, pair->key, pair->key_len, pair->val, pair->val_len);
}

static void forget_undo(struct sim_host *host)
{
	for (unsigned i = 0; i < host->undo_count; i++)
		free(host->undo[i].val);
	host->undo_count = 0;
}

static void note_undo(struct sim_host *host, struct sim_disk *disk, const void *key, size_t key_len)
{
	struct sim_undo *undo;
	struct sim_pair *pair;

	if (host->undo_count == SIM_UNDO_MAX) {
		free(host->undo[0].val);
		memmove(host->undo, host->undo + 1, --host->undo_count * sizeof(*host->undo));
	}
	undo = &host->undo[host->undo_count++];
	*undo = (struct sim_undo){.disk = disk, .key_len = key_len};
	memcpy(undo->key, key, key_len);
	HASH_FIND(hh, disk->first, key, key_len, pair);
	if (!pair)
		return;
	undo->val = malloc(pair->val_len + 1);
	if (!undo->val)
		abort();
	memcpy(undo->val, pair->val, pair->val_len);
	undo->val_len = pair->val_len;
}

static void save(
	struct sim_host *host, struct sim_disk *disk, const void *key, size_t key_len, const void *val, size_t len, bool durable)
{
	if (host->undo && !durable)
		note_undo(host, disk, key, key_len);
	sim_disk_save(disk, key, key_len, val, len);
	if (host->undo && durable)
		forget_undo(host);
}

/* ---- the queue: a binary heap ---- */

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void push_event(struct world *w, struct sim_event event)
{
	size_t i = w->heap_count++;

	if (w->heap_count > w->heap_capacity) {
		w->heap_capacity = w->heap_capacity ? 2 * w->heap_capacity : 1024;
		w->heap = realloc(w->heap, w->heap_capacity * sizeof(*w->heap));
		if (!w->heap)
			abort();
	}
	event.order = w->created++;
	for (; i > 0 && earlier(&event, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
		w->heap[i] = w->heap[(i - 1) / 2];
	w->heap[i] = event;
}

static struct sim_event pop_event(struct world *w)
{
	struct sim_event first = w->heap[0], last = w->heap[--w->heap_count];
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= w->heap_count)
			break;
		if (child + 1 < w->heap_count && earlier(&w->heap[child + 1], &w->heap[child]))
			child++;
		if (!earlier(&w->heap[child], &last))
			break;
		w->heap[i] = w->heap[child];
		i = child;
	}
	w->heap[i] = last;
	return first;
}

uint64_t world_now_ms(const struct world *w)
{
	return SIM_EPOCH_MS + w->now_us / SIM_US_PER_MS;
}

static uint64_t host_us_at(const struct sim_host *host, uint64_t world_us)
{
	return SIM_EPOCH_MS * SIM_US_PER_MS + (uint64_t)((int64_t)world_us + (int64_t)world_us * host->clock_ppm / 1000000);
}

static uint64_t host_now_us(const struct sim_host *host)
{
	return host_us_at(host, host->world->now_us);
}

uint64_t host_now_ms(const struct sim_host *host)
{
	return host_now_us(host) / SIM_US_PER_MS;
}

/* When the host's clock shows that much. */
static uint64_t world_us_of(const struct sim_host *host, uint64_t host_ms)
{
	uint64_t us = (host_ms - SIM_EPOCH_MS) * SIM_US_PER_MS, at = us;

	if (host->clock_ppm == 0)
		return us;
	at = us * 1000000 / (uint64_t)(1000000 + host->clock_ppm);
	while (host_us_at(host, at) < host_ms * SIM_US_PER_MS)
		at++;
	return at;
}

void world_enter(const struct world *w, unsigned host)
{
	if (w->warm)
		arena_enter(host);
}

void world_leave(const struct world *w)
{
	if (w->warm)
		arena_leave();
}

void world_fail(struct world *w, const char *fmt, ...)
{
	va_list args;

	if (w->failure[0])
		return;
	va_start(args, fmt);
	vsnprintf(w->failure, sizeof(w->failure), fmt, args);
	va_end(args);
}

void world_trace(struct world *w, const char *fmt, ...)
{
	va_list args;

	if (!w->trace)
		return;
	printf("%12.6f ", (double)w->now_us / 1e6);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
}

/* ---- the network ---- */

struct gossip_addr sim_addr(unsigned host)
{
	struct gossip_addr addr = {.port = (uint16_t)(GOSSIP_PORT_DEFAULT + host / 250), .ip = {.family = 4}};
	const uint8_t bytes[4] = {192, 0, 2, (uint8_t)(1 + host % 250)};

	memcpy(addr.ip.bytes, bytes, sizeof(bytes));
	return addr;
}

static unsigned host_at(const struct gossip_addr *addr)
{
	return (unsigned)(addr->port - GOSSIP_PORT_DEFAULT) * 250 + addr->ip.bytes[3] - 1;
}

static struct sim_packet *copy_packet(const struct gossip_addr *from, const void *bytes, size_t len)
{
	struct sim_packet *packet = malloc(sizeof(*packet) + len);

	if (!packet)
		abort();
	*packet = (struct sim_packet){.from = *from, .len = len};
	memcpy(packet->bytes, bytes, len);
	return packet;
}

static void put_in_flight(struct world *w, unsigned to, struct sim_packet *packet)
{
	uint64_t delay = w->faults.latency_us + sim_rng_below(&w->rng, w->faults.jitter_us + 1);

	if (sim_rng_permille(&w->rng, w->faults.reorder))
		delay += sim_rng_below(&w->rng, 50 * SIM_US_PER_MS);
	if (packet->len > 0 && sim_rng_permille(&w->rng, w->faults.corrupt))
		packet->bytes[sim_rng_below(&w->rng, (uint32_t)packet->len)] ^= (uint8_t)(1 + sim_rng_below(&w->rng, 255));
	push_event(w, (struct sim_event){.at_us = w->now_us + delay, .kind = EVENT_PACKET, .host = to, .packet = packet});
}

static bool is_cut(const struct world *w, unsigned from, unsigned to)
{
	return w->hosts[from].side != w->hosts[to].side || (w->cut && w->cut[from * w->host_count + to]);
}

static bool is_filtered(const struct world *w, unsigned from, unsigned to)
{
	return w->filtered && w->filtered[from * w->host_count + to];
}

/* As much as a socket's buffer holds. */
static void keep_for_later(struct sim_packet **first, struct sim_packet **last, unsigned *count, struct sim_packet *packet)
{
	if (*count >= SIM_SOCKET_PACKETS) {
		free(packet);
		return;
	}
	packet->next = NULL;
	if (*first)
		(*last)->next = packet;
	else
		*first = packet;
	*last = packet;
	(*count)++;
}

static struct sim_packet *take_kept(struct sim_packet **first, unsigned *count)
{
	struct sim_packet *packet = *first;

	if (packet) {
		*first = packet->next;
		(*count)--;
	}
	return packet;
}

/* A connection takes three ways. */
static void dispatch(struct world *w, unsigned to, struct sim_packet *packet)
{
	uint64_t delay = 3 * (w->faults.latency_us + w->faults.jitter_us);

	if (!packet->stream)
		put_in_flight(w, to, packet);
	else
		push_event(w, (struct sim_event){.at_us = w->now_us + delay, .kind = EVENT_PACKET, .host = to, .packet = packet});
}

static void send_or_keep(struct sim_host *host, unsigned to, struct sim_packet *packet)
{
	packet->to = to;
	if (host->mute)
		keep_for_later(&host->unsent, &host->unsent_last, &host->unsent_count, packet);
	else
		dispatch(host->world, to, packet);
}

static void send_packet(struct sim_host *host, const struct gossip_addr *to, const void *bytes, size_t len)
{
	struct world *w = host->world;
	struct gossip_addr from = sim_addr(host->index);
	unsigned target = host_at(to);

	w->packets++;
	w->bytes += len;
	host->sent += len;
	if (len > GOSSIP_PACKET_MAX)
		world_fail(w, "host %u sent a packet of %zu bytes", host->hostno, len);
	if (target >= w->host_count || is_cut(w, host->index, target) || is_filtered(w, host->index, target) ||
		sim_rng_permille(&w->rng, w->faults.loss) || sim_rng_permille(&w->rng, host->loss_out) ||
		sim_rng_permille(&w->rng, w->hosts[target].loss_in))
		return;
	send_or_keep(host, target, copy_packet(&from, bytes, len));
	if (sim_rng_permille(&w->rng, w->faults.duplicate))
		send_or_keep(host, target, copy_packet(&from, bytes, len));
}

static void op_send(void *ctx, const struct gossip_addr *to, const void *bytes, size_t len)
{
	bool was = arena_pause();

	send_packet(ctx, to, bytes, len);
	arena_resume(was);
}

/* A connection is a packet there, one back and one there again, with time for each; one that fails is not tried again. */
static void send_stream(struct sim_host *host, const struct gossip_addr *to, const void *bytes, size_t len)
{
	struct world *w = host->world;
	struct gossip_addr from = sim_addr(host->index);
	unsigned target = host_at(to);
	struct sim_packet *packet;

	w->packets++;
	w->bytes += len;
	if (target >= w->host_count || is_cut(w, host->index, target) || is_cut(w, target, host->index))
		return;
	for (unsigned i = 0; i < 3; i++) {
		const struct sim_host *one = i == 1 ? &w->hosts[target] : host, *other = i == 1 ? host : &w->hosts[target];

		if (sim_rng_permille(&w->rng, w->faults.loss) || sim_rng_permille(&w->rng, one->loss_out) ||
			sim_rng_permille(&w->rng, other->loss_in))
			return;
	}
	packet = copy_packet(&from, bytes, len);
	packet->stream = true;
	send_or_keep(host, target, packet);
}

static void op_stream(void *ctx, const struct gossip_addr *to, const void *bytes, size_t len)
{
	bool was = arena_pause();

	send_stream(ctx, to, bytes, len);
	arena_resume(was);
}

void world_inject(struct world *w, unsigned to, const void *packet, size_t len)
{
	struct gossip_addr from = sim_addr(249);

	put_in_flight(w, to, copy_packet(&from, packet, len));
}

/* ---- ops of the cores ---- */

static void op_random(void *ctx, void *buf, size_t len)
{
	struct sim_host *host = ctx;
	uint8_t *at = buf;

	for (size_t i = 0; i < len; i++)
		at[i] = (uint8_t)sim_rng_next(&host->rng);
}

static void op_member(void *ctx, const struct gossip_member *member, enum gossip_state old)
{
	struct sim_host *host = ctx;
	bool was = arena_pause();

	world_trace(host->world, "host %u: host %u was %s, is %s (epoch %u, incarnation %u)", host->hostno, member->hostno,
		gossip_state_name(old), gossip_state_name(member->state), member->epoch, member->incarnation);
	if (host->ipam && member->state == GOSSIP_LEFT)
		ipam_peer_left(host->ipam, member->hostno, host_now_ms(host));
	else if (host->ipam)
		ipam_peer_alive(host->ipam, member->hostno, member->state == GOSSIP_ALIVE || member->state == GOSSIP_SUSPECT,
			host_now_ms(host));
	if (host->world->hooks.member)
		host->world->hooks.member(host, member, old);
	arena_resume(was);
}

/* A chunk of a pool: topic = the pool id's first bytes, key = "i" | pool id | chunk. */
static void chunk_arrived(
	struct sim_host *host, uint32_t origin, const uint8_t *key, size_t key_len, const void *val, size_t val_len)
{
	struct id128 pool;

	if (!host->ipam || key_len != 18)
		return;
	memcpy(pool.bytes, key + 1, sizeof(pool.bytes));
	ipam_peer_chunk(host->ipam, origin, &pool, key[17], val, val_len, host_now_ms(host));
}

static void op_record(
	void *ctx, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len)
{
	struct sim_host *host = ctx;
	bool was = arena_pause();

	if (key_len > 0 && *(const char *)key == 'i')
		chunk_arrived(host, origin, key, key_len, val, val_len);
	else
		truth_on_record(host, origin, topic, key, key_len, val, val_len);
	if (host->world->hooks.record)
		host->world->hooks.record(host, origin, topic, key, key_len, val, val_len);
	arena_resume(was);
}

static void op_told(void *ctx, uint32_t from_hostno, uint8_t kind, const void *body, size_t len)
{
	struct sim_host *host = ctx;

	if (kind == SIM_TOLD_IPAM && host->ipam)
		ipam_message(host->ipam, from_hostno, body, len, host_now_ms(host));
}

/* Like the daemon: nothing at first; the core is called again when the number is on disk. */
static bool number_is_saved(struct sim_host *host, struct sim_host *joiner)
{
	struct world *w = host->world;

	if (w->number_us == 0 || joiner->saved_by == host->index + 1)
		return true;
	if (joiner->asked_of == host->index + 1)
		return false;
	joiner->asked_of = host->index + 1;
	push_event(w, (struct sim_event){.at_us = w->now_us + 1 + sim_rng_below(&w->rng, w->number_us),
			      .kind = EVENT_NUMBER,
			      .host = host->index,
			      .joiner = joiner->index});
	return false;
}

/* Numbers of simulated joiners follow from their index. */
static uint32_t op_admit(void *ctx, const struct id128 *host_id)
{
	struct sim_host *host = ctx;

	host->world->asked++;
	for (unsigned i = 0; i < host->world->host_count; i++) {
		struct sim_host *joiner = &host->world->hosts[i];

		if (!id_equal(&joiner->identity.id, host_id))
			continue;
		if (!number_is_saved(host, joiner))
			return 0;
		return joiner->other_number && joiner->number_by != host->hostno ? joiner->other_number : joiner->hostno;
	}
	return 0;
}

static void op_save(void *ctx, const void *key, size_t key_len, const void *val, size_t len, bool durable)
{
	struct sim_host *host = ctx;
	bool was = arena_pause();

	save(host, &host->disk, key, key_len, val, len, durable);
	arena_resume(was);
}

/* Like the daemon: the mark is on disk as sound before gossip has it. */
static void publish_mark(struct sim_host *host)
{
	host->base = host->mark;
	gossip_set_mark(host->gossip, &host->base, host_now_ms(host));
}

/* Acted on from the host's next tick: here the core is in a call. */
static void op_standing(void *ctx, enum gossip_standing standing, uint32_t by)
{
	struct sim_host *host = ctx;

	world_trace(host->world, "host %u has standing %d, says host %u", host->hostno, standing, by);
}

static void look_at_standing(struct sim_host *host)
{
	enum gossip_standing standing = gossip_standing(host->gossip);
	uint64_t now_ms = host_now_ms(host);

	if (host->stood == standing)
		return;
	host->stood = standing;
	if (standing == GOSSIP_STANDING_SOUND && host->ipam && ipam_holds(host->ipam) != IPAM_HOLD_FOR_GOOD)
		publish_mark(host);
	if (host->ipam && standing != GOSSIP_STANDING_ASKING)
		ipam_hold(host->ipam, standing <= GOSSIP_STANDING_ALONE ? IPAM_HOLD_NONE : IPAM_HOLD_FOR_GOOD, now_ms);
}

const struct gossip_ops world_gossip_ops = {.send = op_send,
	.random = op_random,
	.member = op_member,
	.record = op_record,
	.told = op_told,
	.admit = op_admit,
	.save = op_save,
	.stream = op_stream,
	.standing = op_standing};

static void ipam_op_save(void *ctx, const void *key, size_t key_len, const void *val, size_t len, bool durable)
{
	struct sim_host *host = ctx;

	save(host, &host->ipam_disk, key, key_len, val, len, durable);
	host->world->ipam_saved = true;
	if (!durable || ipam_holds(host->ipam))
		return;
	host->mark.count++;
	host->mark.tag = sim_rng_next(&host->rng);
	if (host->stood == GOSSIP_STANDING_SOUND)
		publish_mark(host);
}

static uint64_t pool_topic(const struct id128 *pool)
{
	uint64_t topic = 0;

	for (unsigned i = 0; i < 8; i++)
		topic = topic << 8 | pool->bytes[i];
	return topic & ~GOSSIP_TOPIC_SUBSCRIBED;
}

static void ipam_op_publish(void *ctx, const struct id128 *pool, unsigned chunk, const void *val, size_t len)
{
	struct sim_host *host = ctx;
	uint8_t key[18] = {'i'};

	memcpy(key + 1, pool->bytes, sizeof(pool->bytes));
	key[17] = (uint8_t)chunk;
	if (val)
		gossip_put(host->gossip, pool_topic(pool), key, sizeof(key), val, len, host_now_ms(host), NULL);
	else
		gossip_del(host->gossip, pool_topic(pool), key, sizeof(key), host_now_ms(host));
}

static void ipam_op_send(void *ctx, uint32_t to_hostno, const void *msg, size_t len)
{
	struct sim_host *host = ctx;

	gossip_tell(host->gossip, to_hostno, SIM_TOLD_IPAM, msg, len, host_now_ms(host), NULL);
}

static void ipam_op_complete(void *ctx, uint64_t ticket, const struct ipam_result *result)
{
	struct sim_host *host = ctx;

	if (host->world->hooks.complete)
		host->world->hooks.complete(host, ticket, result);
}

static const struct ipam_ops ipam_ops = {.save = ipam_op_save,
	.publish = ipam_op_publish,
	.send = ipam_op_send,
	.complete = ipam_op_complete,
	.random = op_random};

/* ---- time ---- */

static void tick_host(struct world *w, struct sim_host *host)
{
	uint64_t now_ms = host_now_ms(host), next;

	if (!host->gossip || host->paused)
		return;
	world_enter(w, host->index);
	gossip_clock_us(host->gossip, host_now_us(host));
	look_at_standing(host);
	if (host->ipam) {
		uint64_t ipam_next;

		if (!host->known && (host->known = gossip_known(host->gossip)))
			ipam_be_known(host->ipam, now_ms);
		ipam_next = ipam_tick(host->ipam, now_ms);
		next = gossip_tick(host->gossip, now_ms);
		next = ipam_next < next ? ipam_next : next;
	} else {
		next = gossip_tick(host->gossip, now_ms);
	}
	world_leave(w);
	if (next == UINT64_MAX)
		return;
	if (next <= now_ms)
		next = now_ms + 1;
	next = world_us_of(host, next);
	if (host->tick_us == next)
		return;
	host->tick_us = next;
	push_event(w, (struct sim_event){.at_us = host->tick_us, .kind = EVENT_TICK, .host = host->index});
}

void world_touch(struct world *w, unsigned host)
{
	tick_host(w, &w->hosts[host]);
}

static void tick_joiner(struct world *w, struct sim_host *host)
{
	uint64_t next = joiner_tick(host->joiner, host_now_ms(host));

	host->tick_us = world_us_of(host, next);
	push_event(w, (struct sim_event){.at_us = host->tick_us, .kind = EVENT_TICK, .host = host->index});
}

static void joiner_deliver(struct world *w, struct sim_host *host, const struct sim_packet *packet)
{
	joiner_packet(host->joiner, &packet->from, packet->bytes, packet->len, host_now_ms(host));
	if (!host->admitted) {
		tick_joiner(w, host);
		return;
	}
	joiner_free(host->joiner);
	host->joiner = NULL;
	world_start(w, host->index);
}

static void refuse(struct world *w, unsigned by, const struct gossip_addr *from)
{
	unsigned to = host_at(from);
	struct gossip_addr addr = sim_addr(by);

	if (to < w->host_count && w->hosts[to].gossip && !w->hosts[to].paused && !is_cut(w, by, to)) {
		world_enter(w, to);
		gossip_unreachable(w->hosts[to].gossip, &addr, host_now_ms(&w->hosts[to]));
		world_leave(w);
	}
}

/* Of everything delivered, so that two runs can be compared. */
static void digest_packet(struct world *w, const struct sim_host *host, const struct sim_packet *packet)
{
	for (size_t i = 0; i < packet->len; i += sizeof(uint64_t)) {
		uint64_t word = 0;

		memcpy(&word, packet->bytes + i, packet->len - i < sizeof(word) ? packet->len - i : sizeof(word));
		w->digest = (w->digest ^ word) * 0x9e3779b97f4a7c15u;
		w->digest ^= w->digest >> 29;
	}
	w->digest = (w->digest ^ w->now_us ^ host->index) * 0x100000001b3u;
}

static void hand_to_core(struct world *w, struct sim_host *host, const struct sim_packet *packet)
{
	w->delivered++;
	if (!w->unchecked)
		digest_packet(w, host, packet);
	world_enter(w, host->index);
	gossip_clock_us(host->gossip, host_now_us(host));
	if (packet->stream)
		gossip_stream_packet(host->gossip, &packet->from, packet->bytes, packet->len, host_now_ms(host));
	else
		gossip_packet(host->gossip, &packet->from, packet->bytes, packet->len, host_now_ms(host));
	world_leave(w);
}

static void deliver(struct world *w, struct sim_host *host, struct sim_packet *packet)
{
	if (w->refusals && !host->gossip && !host->joiner)
		refuse(w, host->index, &packet->from);
	if (host->joiner)
		joiner_deliver(w, host, packet);
	if (host->gossip && (host->paused || host->mute)) {
		keep_for_later(&host->backlog, &host->backlog_last, &host->backlog_count, packet);
		return;
	}
	if (host->gossip) {
		hand_to_core(w, host, packet);
		tick_host(w, host);
		if (w->delivered % CHECK_EVERY == 0 && !w->unchecked)
			truth_check_host(w, sim_rng_below(&w->rng, w->host_count));
	}
	free(packet);
}

static void number_saved(struct world *w, struct sim_host *host, struct sim_host *joiner)
{
	joiner->saved_by = host->index + 1;
	if (!host->gossip)
		return;
	world_enter(w, host->index);
	gossip_admit_again(host->gossip, &joiner->identity.id, host_now_ms(host));
	world_leave(w);
	tick_host(w, host);
}

static void step(struct world *w)
{
	struct sim_event event = pop_event(w);
	struct sim_host *host = &w->hosts[event.host];

	w->now_us = event.at_us;
	if (event.kind == EVENT_PACKET)
		deliver(w, host, event.packet);
	else if (event.kind == EVENT_NUMBER)
		number_saved(w, host, &w->hosts[event.joiner]);
	else if (event.at_us == host->tick_us && host->joiner)
		tick_joiner(w, host);
	else if (event.at_us == host->tick_us)
		tick_host(w, host);
	if (w->ipam_saved && w->hooks.saved)
		w->hooks.saved(w);
	w->ipam_saved = false;
}

static void run_to(struct world *w, uint64_t end_us)
{
	while (w->heap_count > 0 && w->heap[0].at_us <= end_us && !w->failure[0])
		step(w);
	w->now_us = end_us;
}

void world_run_us(struct world *w, uint64_t us)
{
	run_to(w, w->now_us + us);
}

void world_run_ms(struct world *w, uint64_t ms)
{
	world_run_us(w, ms * SIM_US_PER_MS);
}

bool world_run_until(struct world *w, uint64_t deadline_ms, uint64_t step_ms, bool (*done)(struct world *w))
{
	uint64_t end_us = w->now_us + deadline_ms * SIM_US_PER_MS;

	while (!done(w)) {
		if (w->now_us >= end_us || w->failure[0])
			return false;
		run_to(w, w->now_us + step_ms * SIM_US_PER_MS);
	}
	return true;
}

/* ---- hosts ---- */

struct member_save world_saved_member(const struct sim_host *host)
{
	struct member_save save = {
		.hostno = host->hostno, .host_id = host->identity.id, .epoch = 0, .addr = sim_addr(host->index)};

	memcpy(save.public_key, host->identity.public_key, sizeof(save.public_key));
	save.vtep = save.addr.ip;
	snprintf(save.name, sizeof(save.name), "h%u", host->hostno);
	return save;
}

void world_introduce_all(struct world *w)
{
	for (unsigned i = 0; i < w->host_count; i++) {
		struct member_save save = world_saved_member(&w->hosts[i]);
		uint8_t key[SAVED_KEY_SIZE], val[MEMBER_SAVE_MAX];
		size_t len = member_save_encode(&save, key, val);

		for (unsigned j = 0; j < w->host_count; j++)
			if (j != i)
				sim_disk_save(&w->hosts[j].disk, key, sizeof(key), val, len);
	}
}

/* What the daemon puts again from its own store at every start. */
static void put_own_again(struct world *w, struct sim_host *host)
{
	struct truth_entry *entry, *tmp;

	HASH_ITER(hh, w->truth->entries, entry, tmp)
	{
		char value[64];

		if (entry->id.origin == host->hostno && entry->live)
			gossip_put(host->gossip, entry->id.topic, entry->id.key, strlen(entry->id.key), value,
				truth_value(entry, value), host_now_ms(host), NULL);
	}
}

static void start_ipam(struct world *w, struct sim_host *host)
{
	static const enum ipam_fault faults[SIM_BREAKAGE_MAX] = {
		[SIM_LOWEST_ADDRESS] = IPAM_FAULT_LOWEST,
		[SIM_GIFTS_NOT_ON_DISK] = IPAM_FAULT_SAVE_LATE,
		[SIM_NOBODY_ASKED] = IPAM_FAULT_NO_HOLD,
	};
	struct ipam_config config = {.hostno = host->hostno, .host_id = host->identity.id};

	host->ipam = ipam_new(&config, &ipam_ops, host);
	ipam_break(host->ipam, faults[w->breakage]);
	ipam_hold(host->ipam, IPAM_HOLD_ASKING, host_now_ms(host));
	if (host->known)
		ipam_be_known(host->ipam, host_now_ms(host));
	for (struct sim_pair *pair = host->ipam_disk.first; pair; pair = pair->hh.next) {
		struct err err = {0};

		if (ipam_restore(host->ipam, pair->key, pair->key_len, pair->val, pair->val_len, &err) < 0)
			world_fail(w, "host %u cannot restore its addresses: %s", host->hostno, err.text);
	}
}

struct gossip_config world_config(struct world *w, unsigned index)
{
	struct sim_host *host = &w->hosts[index];
	struct gossip_config config = {
		.identity = &host->identity,
		.hostno = host->hostno,
		.epoch = host->epoch,
		.boot_tag = host->boot ? host->boot : sim_rng_next(&host->rng),
		.addr = sim_addr(index),
		.vtep = sim_addr(index).ip,
		.source = host->source,
		.source_boot = host->boot ? host->source_boot : 0,
	};

	memset(config.cluster_id.bytes, CLUSTER_ID_BYTE, sizeof(config.cluster_id.bytes));
	memset(config.cluster_key, CLUSTER_KEY_BYTE, sizeof(config.cluster_key));
	snprintf(config.name, sizeof(config.name), "h%u", host->hostno);
	return config;
}

void world_start(struct world *w, unsigned index)
{
	struct sim_host *host = &w->hosts[index];
	struct gossip_config config = world_config(w, index);

	world_trace(w, "host %u starts, epoch %u", host->hostno, host->epoch);
	memset(&host->source, 0, sizeof(host->source));
	host->boot = 0;
	host->gossip = gossip_new(&config, &world_gossip_ops, host, host_now_ms(host));
	host->gossip->shards.no_r3 = w->breakage == SIM_WITHOUT_R3;
	host->paused = false;
	truth_host_free(host->truth);
	host->truth = truth_host_new();
	for (struct sim_pair *pair = host->disk.first; pair; pair = pair->hh.next) {
		struct err err = {0};

		if (gossip_restore(host->gossip, pair->key, pair->key_len, pair->val, pair->val_len, &err) < 0)
			world_fail(w, "host %u cannot restore: %s", host->hostno, err.text);
	}
	for (unsigned i = 0; i < SIM_NETWORKS; i++)
		if (host->networks >> i & 1)
			gossip_subscribe(host->gossip, SIM_NETWORK(i), host_now_ms(host), NULL);
	put_own_again(w, host);
	if (w->with_ipam)
		start_ipam(w, host);
	gossip_set_mark(host->gossip, &host->base, host_now_ms(host));
	host->stood = GOSSIP_STANDING_ASKING;
	gossip_start(host->gossip, host_now_ms(host));
	if (host->ipam)
		ipam_start(host->ipam, host_now_ms(host));
	tick_host(w, host);
}

static void op_joined(void *ctx, const struct joiner_result *result, const struct err *err)
{
	struct sim_host *host = ctx;

	if (!result) {
		world_fail(host->world, "host %u is not admitted: %s", host->hostno, err->text);
		return;
	}
	if (result->hostno != host->hostno || result->cluster_key[0] != CLUSTER_KEY_BYTE)
		world_fail(host->world, "host %u got number %u", host->hostno, result->hostno);
	for (unsigned i = 0; i < result->saved_count; i++)
		sim_disk_save(&host->disk, result->saved[i].key, result->saved[i].key_len, result->saved[i].val,
			result->saved[i].val_len);
	memcpy(&host->source, result->saved[0].key + 1, sizeof(host->source));
	host->boot = result->boot;
	host->source_boot = result->source_boot;
	host->admitted = true;
}

void sim_token(struct token *ret_token, unsigned sponsor)
{
	uint8_t key[CLUSTER_KEY_SIZE];

	*ret_token = (struct token){.seed_count = 1, .seeds[0] = sim_addr(sponsor)};
	memset(key, CLUSTER_KEY_BYTE, sizeof(key));
	memset(ret_token->cluster_id.bytes, CLUSTER_ID_BYTE, sizeof(ret_token->cluster_id.bytes));
	memset(ret_token->token_id.bytes, 3, sizeof(ret_token->token_id.bytes));
	token_secret(key, &ret_token->token_id, 0, ret_token->secret);
}

void world_join(struct world *w, unsigned index, unsigned sponsor)
{
	static const struct joiner_ops joiner_ops = {.send = op_send, .random = op_random, .done = op_joined};
	struct sim_host *host = &w->hosts[index];
	struct gossip_addr self = sim_addr(index);
	struct token token;
	char name[16];

	sim_token(&token, sponsor);
	snprintf(name, sizeof(name), "h%u", host->hostno);
	host->joiner = joiner_new(&token, &host->identity, name, &self, &self.ip, 30000, &joiner_ops, host, host_now_ms(host));
	tick_joiner(w, host);
}

void world_start_all(struct world *w)
{
	for (unsigned i = 0; i < w->host_count; i++)
		world_start(w, i);
}

static void drop_backlog(struct sim_host *host)
{
	struct sim_packet *packet;

	while ((packet = take_kept(&host->backlog, &host->backlog_count)))
		free(packet);
	while ((packet = take_kept(&host->unsent, &host->unsent_count)))
		free(packet);
}

void world_crash(struct world *w, unsigned index)
{
	struct sim_host *host = &w->hosts[index];

	world_trace(w, "host %u stops", host->hostno);
	if (!w->warm) /* else its memory stays as it is: it does not start again */
		gossip_free(host->gossip);
	joiner_free(host->joiner);
	host->joiner = NULL;
	ipam_free(host->ipam);
	host->gossip = NULL;
	host->ipam = NULL;
	host->tick_us = 0;
	drop_backlog(host);
}

void world_restart(struct world *w, unsigned index, bool new_epoch)
{
	if (w->hosts[index].gossip)
		world_crash(w, index);
	w->hosts[index].epoch += new_epoch;
	world_start(w, index);
}

/* A reboot clears what belongs to a boot: keys that begin with L. */
static void clear_boot(struct sim_disk *disk)
{
	struct sim_pair *pair, *next;

	HASH_ITER(hh, disk->first, pair, next)
	if (pair->key[0] == 'L')
		forget_pair(disk, pair);
}

void world_allow_power_cuts(struct world *w)
{
	w->power_cuts = true;
	for (unsigned i = 0; i < w->host_count; i++) {
		w->hosts[i].undo = calloc(SIM_UNDO_MAX, sizeof(*w->hosts[i].undo));
		if (!w->hosts[i].undo)
			abort();
	}
}

void world_power_cut(struct world *w, unsigned index)
{
	struct sim_host *host = &w->hosts[index];
	unsigned lost = sim_rng_below(&w->rng, host->undo_count + 1);

	world_trace(w, "host %u loses power, and its last %u writes", host->hostno, lost);
	world_crash(w, index);
	for (; lost > 0; lost--) {
		struct sim_undo *undo = &host->undo[--host->undo_count];

		sim_disk_save(undo->disk, undo->key, undo->key_len, undo->val, undo->val_len);
		free(undo->val);
	}
	forget_undo(host);
	clear_boot(&host->ipam_disk);
	host->epoch++;
}

static void drop_image(struct sim_host *host)
{
	if (!host->image)
		return;
	sim_disk_clear(&host->image->disk);
	sim_disk_clear(&host->image->ipam_disk);
	free(host->image);
	host->image = NULL;
}

void world_keep_image(struct world *w, unsigned index)
{
	struct sim_host *host = &w->hosts[index];

	world_trace(w, "host %u: an image of its disk is kept", host->hostno);
	drop_image(host);
	host->image = calloc(1, sizeof(*host->image));
	if (!host->image)
		abort();
	sim_disk_copy(&host->image->disk, &host->disk);
	sim_disk_copy(&host->image->ipam_disk, &host->ipam_disk);
	host->image->epoch = host->epoch;
	host->image->mark = host->mark;
	host->image->base = host->base;
}

void world_roll_back(struct world *w, unsigned index)
{
	struct sim_host *host = &w->hosts[index];

	world_trace(w, "host %u gets its disk of epoch %u back", host->hostno, host->image->epoch);
	forget_undo(host);
	sim_disk_copy(&host->disk, &host->image->disk);
	sim_disk_copy(&host->ipam_disk, &host->image->ipam_disk);
	clear_boot(&host->ipam_disk);
	host->epoch = host->image->epoch;
	host->set_back = host->mark.count != host->image->mark.count || host->mark.tag != host->image->mark.tag;
	host->mark = host->image->mark;
	host->base = host->image->base;
}

void world_pause(struct world *w, unsigned index)
{
	world_trace(w, "host %u pauses", index + 1);
	w->hosts[index].paused = true;
}

void world_mute(struct world *w, unsigned index)
{
	world_trace(w, "host %u falls mute", index + 1);
	w->hosts[index].mute = true;
}

void world_resume(struct world *w, unsigned index)
{
	struct sim_host *host = &w->hosts[index];
	struct sim_packet *packet;

	world_trace(w, "host %u resumes", host->hostno);
	host->paused = host->mute = false;
	while ((packet = take_kept(&host->unsent, &host->unsent_count)))
		dispatch(w, packet->to, packet);
	while ((packet = take_kept(&host->backlog, &host->backlog_count))) {
		if (host->gossip)
			hand_to_core(w, host, packet);
		free(packet);
	}
	tick_host(w, host);
}

void world_cut(struct world *w, unsigned from, unsigned to, bool cut)
{
	world_trace(w, "host %u to host %u: %s", from + 1, to + 1, cut ? "cut" : "open");
	if (!w->cut)
		w->cut = calloc(w->host_count, w->host_count);
	if (!w->cut)
		abort();
	w->cut[from * w->host_count + to] = cut;
}

void world_filter(struct world *w, unsigned a, unsigned b, bool filtered)
{
	if (!w->filtered)
		w->filtered = calloc(w->host_count, w->host_count);
	if (!w->filtered)
		abort();
	w->filtered[a * w->host_count + b] = w->filtered[b * w->host_count + a] = filtered;
}

static void open_all(struct world *w)
{
	free(w->cut);
	free(w->filtered);
	w->cut = w->filtered = NULL;
	for (unsigned i = 0; i < w->host_count; i++)
		w->hosts[i].side = 0;
}

void world_partition(struct world *w, uint64_t side_a)
{
	world_trace(w, "partition %" PRIx64, side_a);
	open_all(w);
	for (unsigned i = 0; i < w->host_count; i++)
		w->hosts[i].side = side_a >> (i % 64) & 1;
}

void world_partition_at(struct world *w, unsigned first_of_b)
{
	open_all(w);
	for (unsigned i = first_of_b; i < w->host_count; i++)
		w->hosts[i].side = 1;
}

void world_heal(struct world *w)
{
	world_trace(w, "healed");
	open_all(w);
}

void world_put(struct world *w, unsigned index, uint64_t topic, const char *key)
{
	struct sim_host *host = &w->hosts[index];
	struct truth_entry *entry = truth_write(w->truth, host->hostno, topic, key, true);
	struct err err = {0};
	char value[64];
	size_t len = truth_value(entry, value);
	int done;

	world_enter(w, index);
	done = gossip_put(host->gossip, topic, key, strlen(key), value, len, host_now_ms(host), &err);
	world_leave(w);
	if (done < 0)
		world_fail(w, "put: %s", err.text);
	world_touch(w, index);
}

void world_del(struct world *w, unsigned index, uint64_t topic, const char *key)
{
	struct sim_host *host = &w->hosts[index];

	truth_write(w->truth, host->hostno, topic, key, false);
	world_enter(w, index);
	gossip_del(host->gossip, topic, key, strlen(key), host_now_ms(host));
	world_leave(w);
	world_touch(w, index);
}

bool sim_keeps(const struct sim_host *host, uint64_t topic)
{
	return !(topic & GOSSIP_TOPIC_SUBSCRIBED) || (host->networks >> (topic & (SIM_NETWORKS - 1)) & 1) != 0;
}

void world_subscribe(struct world *w, unsigned index, unsigned network)
{
	struct sim_host *host = &w->hosts[index];
	struct err err = {0};

	world_trace(w, "host %u subscribes to %u", host->hostno, network);
	host->networks |= (uint64_t)1 << network;
	w->networks = true;
	if (!host->gossip)
		return;
	world_enter(w, index);
	if (gossip_subscribe(host->gossip, SIM_NETWORK(network), host_now_ms(host), &err) < 0)
		world_fail(w, "subscribe: %s", err.text);
	world_leave(w);
	world_touch(w, index);
}

void world_unsubscribe(struct world *w, unsigned index, unsigned network)
{
	struct sim_host *host = &w->hosts[index];
	struct truth_entry *entry, *tmp;

	world_trace(w, "host %u leaves %u", host->hostno, network);
	HASH_ITER(hh, w->truth->entries, entry, tmp)
	if (entry->id.origin == host->hostno && entry->id.topic == SIM_NETWORK(network) && entry->live)
		world_del(w, index, entry->id.topic, entry->id.key);
	host->networks &= ~((uint64_t)1 << network);
	truth_forget_topic(host, SIM_NETWORK(network));
	world_enter(w, index);
	gossip_unsubscribe(host->gossip, SIM_NETWORK(network), host_now_ms(host));
	world_leave(w);
	world_touch(w, index);
}

/* ---- the world ---- */

/* Keys are made of the host's number alone, and kept: making them takes longer than a short run. */
static const struct identity *identity_of(unsigned index)
{
	static struct identity identities[SIM_HOSTS_MAX];
	uint8_t seed[IDENTITY_SEED_SIZE] = {1, 0, 0, 0, 0, 0, 0, 0, (uint8_t)index, (uint8_t)(index >> 8)};
	static const struct id128 none;

	if (id_equal(&identities[index].id, &none))
		identity_from_seed(&identities[index], seed);
	return &identities[index];
}

struct world *world_new(uint64_t seed, unsigned hosts, bool with_ipam)
{
	struct world *w = calloc(1, sizeof(*w));

	if (!w || hosts > SIM_HOSTS_MAX)
		abort();
	w->seed = seed;
	w->rng.state = seed;
	w->host_count = hosts;
	w->hosts = calloc(hosts, sizeof(*w->hosts));
	if (!w->hosts)
		abort();
	w->with_ipam = with_ipam;
	w->faults = (struct sim_faults){.latency_us = 200, .jitter_us = 100};
	w->truth = truth_new();
	for (unsigned i = 0; i < hosts; i++) {
		w->hosts[i] = (struct sim_host){.world = w, .index = i, .hostno = i + 1, .epoch = 1, .identity = *identity_of(i)};
		w->hosts[i].rng.state = sim_rng_next(&w->rng);
	}
	return w;
}

void world_free(struct world *w)
{
	if (!w)
		return;
	for (unsigned i = 0; i < w->host_count; i++) {
		struct sim_host *host = &w->hosts[i];

		world_crash(w, i);
		truth_host_free(host->truth);
		sim_disk_clear(&host->disk);
		sim_disk_clear(&host->ipam_disk);
		forget_undo(host);
		free(host->undo);
		drop_image(host);
	}
	if (w->warm)
		arena_close();
	for (size_t i = 0; i < w->heap_count; i++)
		free(w->heap[i].packet);
	free(w->heap);
	free(w->cut);
	free(w->filtered);
	free(w->hosts);
	truth_free(w->truth);
	free(w);
}

/* What a member could send: message bodies behind the encryption, through the decoder and into a live core with members and
 * records.
 *
 * The input is packets: length u16, sender u8 (one of three; top bit: by stream; the next: behind a change of what this host
 * subscribes to), that many bytes. Afterwards the core must still be sound, and keep ticking. The corpus is packets as the
 * simulator's hosts sent them, of every message type. */
#include <sodium.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/core_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HOSTS 4
#define TICKS_AFTER 16
#define JOINS 0x40
#define NETWORK (GOSSIP_TOPIC_SUBSCRIBED | 1)

static void on_send(void *ctx, const struct gossip_addr *to, const void *packet, size_t len)
{
	(void)ctx;
	(void)to;
	(void)packet;
	if (len > GOSSIP_PACKET_MAX)
		abort();
}

static void on_random(void *ctx, void *buf, size_t len)
{
	uint32_t *seed = ctx;
	uint8_t *at = buf;

	for (size_t i = 0; i < len; i++) {
		*seed = *seed * 1103515245 + 12345;
		at[i] = (uint8_t)(*seed >> 16);
	}
}

static void on_member(void *ctx, const struct gossip_member *member, enum gossip_state old)
{
	(void)ctx;
	if (strlen(member->name) > GOSSIP_NAME_MAX || !gossip_state_name(member->state) || !gossip_state_name(old))
		abort();
}

static void on_record(
	void *ctx, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len)
{
	(void)ctx;
	(void)topic;
	(void)val;
	if (origin == 1 || key_len == 0 || key_len > GOSSIP_KEY_MAX || val_len > GOSSIP_VALUE_MAX || !key)
		abort();
}

static void on_told(void *ctx, uint32_t from_hostno, uint8_t kind, const void *body, size_t len)
{
	(void)ctx;
	(void)kind;
	(void)body;
	if (from_hostno == 1 || len > GOSSIP_TELL_MAX)
		abort();
}

static uint32_t on_admit(void *ctx, const struct id128 *host_id)
{
	(void)ctx;
	(void)host_id;
	return 0;
}

static void on_save(void *ctx, const void *key, size_t key_len, const void *val, size_t len, bool durable)
{
	(void)ctx;
	(void)key;
	(void)val;
	(void)durable;
	if (key_len > 64 || len > 512)
		abort();
}

static const struct gossip_ops ops = {.send = on_send,
	.stream = on_send,
	.random = on_random,
	.member = on_member,
	.record = on_record,
	.told = on_told,
	.admit = on_admit,
	.save = on_save};

/* Keys are made once: their arithmetic would take as long as all the rest. */
static struct identity identities[HOSTS];

static void make_identities(void)
{
	if (sodium_init() < 0)
		abort();
	for (unsigned i = 0; i < HOSTS; i++)
		identity_from_seed(&identities[i], (const uint8_t[IDENTITY_SEED_SIZE]){(uint8_t)(1 + i)});
}

static void add_member(struct gossip *g, uint32_t hostno)
{
	const struct identity *identity = &identities[hostno - 1];
	struct member_save save = {
		.hostno = hostno, .epoch = 1, .name = "m", .addr = {.port = 1, .ip = {.family = 4, .bytes = {192, 0, 2, 1}}}};
	uint8_t key[SAVED_KEY_SIZE], val[MEMBER_SAVE_MAX];
	size_t len;

	save.host_id = identity->id;
	memcpy(save.public_key, identity->public_key, sizeof(save.public_key));
	save.vtep = save.addr.ip;
	len = member_save_encode(&save, key, val);
	if (gossip_restore(g, key, sizeof(key), val, len, NULL) < 0)
		abort();
}

static void join_or_leave(struct gossip *g, uint64_t now)
{
	if (gossip_subscribed(g, NETWORK)) {
		gossip_del(g, NETWORK, "own", 3, now);
		gossip_unsubscribe(g, NETWORK, now);
	} else if (gossip_subscribe(g, NETWORK, now, NULL) < 0 || gossip_put(g, NETWORK, "own", 3, "value", 5, now, NULL) < 0) {
		abort();
	}
}

static struct gossip *make_core(uint32_t *seed)
{
	struct gossip_config config = {.identity = &identities[0], .hostno = 1, .epoch = 1, .boot_tag = 5, .name = "self"};
	struct gossip *g = gossip_new(&config, &ops, seed, 1000);

	if (!g)
		abort();
	for (uint32_t hostno = 2; hostno <= HOSTS; hostno++)
		add_member(g, hostno);
	gossip_start(g, 1000);
	for (uint8_t i = 0; i < 5; i++)
		gossip_put(g, i % 2, &i, 1, "value", 5, 1000, NULL);
	gossip_del(g, 1, (const uint8_t[]){1}, 1, 1001);
	join_or_leave(g, 1001);
	return g;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct gossip_addr stream = {.port = 40000, .ip = {.family = 4, .bytes = {192, 0, 2, 9}}};
	uint32_t seed = 1;
	uint64_t now = 2000;
	struct gossip *g;
	struct bytes_reader r;
	const char *unsound;

	if (id_is_zero(&identities[0].id))
		make_identities();
	g = make_core(&seed);
	br_init(&r, data, size);
	for (unsigned packets = 0; br_left(&r) > 0 && packets < 64; packets++) {
		size_t len = br_u16(&r);
		uint8_t from = br_u8(&r);
		uint32_t sender = 2 + (from & 0x3f) % (HOSTS - 1);
		const uint8_t *bytes;

		if (len > br_left(&r))
			len = br_left(&r);
		bytes = br_bytes(&r, len);
		if (r.bad || len > PROTO_PLAIN_MAX)
			break;
		if (from & JOINS)
			join_or_leave(g, now);
		g->stream_from = from & 0x80 ? &stream : NULL;
		g->stream_member = from & 0x80 ? members_find(g, sender) : NULL;
		core_messages(g, members_find(g, sender), bytes, len);
		g->stream_from = NULL;
		g->stream_member = NULL;
		gossip_tick(g, now += 7);
	}
	for (unsigned i = 0; i < TICKS_AFTER; i++)
		now = gossip_tick(g, now);
	unsound = shards_check(&g->shards);
	if (unsound) {
		fprintf(stderr, "the shards are not sound: %s\n", unsound);
		abort();
	}
	gossip_free(g);
	return 0;
}

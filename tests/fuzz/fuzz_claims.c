/* What members say about names before something is made: bodies of the messages of daemon/claims.c, to a home that remembers and
 * an asker that waits.
 *
 * The input is messages: kind u8, sender u8 (one of two), length u16, that many bytes. What an asker is told must be something
 * that the decoders of definitions can be given; what the home keeps is bounded. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "daemon/node_internal.h"
#include "gossip/admission_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HOME 2
#define MESSAGES_MAX 64

/* Of gossip/core_internal.h, whose names and the daemon's do not go together. */
struct member *members_find(const struct gossip *g, uint32_t hostno);
void members_set_state(struct gossip *g, struct member *m, enum gossip_state state);

static struct node *node;
static unsigned told;

static void no_send(void *ctx, const struct gossip_addr *to, const void *packet, size_t len)
{
	(void)ctx;
	(void)to;
	(void)packet;
	if (len > GOSSIP_PACKET_MAX)
		abort();
}

static void no_random(void *ctx, void *buf, size_t len)
{
	(void)ctx;
	memset(buf, 7, len);
}

static void no_member(void *ctx, const struct gossip_member *member, enum gossip_state old)
{
	(void)ctx;
	(void)member;
	(void)old;
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

static const struct gossip_ops ops = {.send = no_send, .random = no_random, .member = no_member, .save = no_save};

static void add_member(struct gossip *g, uint32_t hostno)
{
	struct member_save save = {
		.hostno = hostno, .epoch = 1, .name = "m", .addr = {.port = 1, .ip = {.family = 4, .bytes = {192, 0, 2, 1}}}};
	uint8_t seed[IDENTITY_SEED_SIZE] = {(uint8_t)hostno}, key[SAVED_KEY_SIZE], val[MEMBER_SAVE_MAX];
	struct identity identity;
	size_t len;

	identity_from_seed(&identity, seed);
	save.host_id = identity.id;
	memcpy(save.public_key, identity.public_key, sizeof(save.public_key));
	save.vtep = save.addr.ip;
	len = member_save_encode(&save, key, val);
	if (gossip_restore(g, key, sizeof(key), val, len, NULL) < 0)
		abort();
}

static void start(void)
{
	static struct identity identity;
	uint8_t seed[IDENTITY_SEED_SIZE] = {1};
	struct gossip_config config = {.identity = &identity, .hostno = 1, .epoch = 1, .boot_tag = 5, .name = "self"};

	node = calloc(1, sizeof(*node));
	if (!node || sodium_init() < 0)
		abort();
	identity_from_seed(&identity, seed);
	node->cluster.hostno = 1;
	node->cluster.epoch = 1;
	node->left = true; /* nothing is to be poked */
	node->gossip = gossip_new(&config, &ops, node, 1000);
	if (!node->gossip)
		abort();
	add_member(node->gossip, HOME);
	add_member(node->gossip, HOME + 1);
	gossip_start(node->gossip, 1000);
	for (uint32_t hostno = HOME; hostno < HOME + 2; hostno++)
		members_set_state(node->gossip, members_find(node->gossip, hostno), GOSSIP_ALIVE);
}

/* As the callers of claim_name do. */
static void on_winner(void *arg, const void *winner, size_t len)
{
	struct network_def network;
	struct pool_def pool;
	struct err err;

	(void)arg;
	told++;
	if (!winner)
		return;
	if (len > GOSSIP_TELL_MAX)
		abort();
	network_def_decode(winner, len, &network, &err);
	pool_def_decode(winner, len, &pool, &err);
}

/* A name whose home is another host. */
static void ask(const char *prefix, bool patient)
{
	unsigned before, i = 0;
	char key[32];

	do {
		before = told;
		snprintf(key, sizeof(key), "%s%u", prefix, i++);
		claim_name(node, key, patient, "mine", 4, on_winner, NULL);
	} while (told != before); /* decided here */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes_reader r;

	if (!node)
		start();
	node->next_claim = 0;
	ask("n:app", false);
	ask("p:10.9.0.", true);
	told = 0; /* this host is the home of the names before those */
	br_init(&r, data, size);
	for (unsigned i = 0; i < MESSAGES_MAX && br_left(&r) > 0; i++) {
		uint8_t kind = br_u8(&r);
		uint32_t from = HOME + br_u8(&r) % 2;
		size_t len = br_u16(&r);
		const uint8_t *body;

		len = len < br_left(&r) ? len : br_left(&r);
		body = br_bytes(&r, len);
		if (r.bad || len > GOSSIP_TELL_MAX)
			break;
		claims_told(node, from, (uint8_t)(TELL_CLAIM + kind % 3), body, len);
	}
	claims_drain(node);
	if (told != 2) /* everybody who waits is told once */
		abort();
	claims_free(node);
	return 0;
}

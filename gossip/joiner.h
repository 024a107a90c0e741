/* The joining side of admission: asks the seeds of a token until one answers. Sans-IO like gossip.h; ends before a core exists.
 */
#ifndef GOSSIP_JOINER_H
#define GOSSIP_JOINER_H

#include "gossip/gossip.h"
#include "gossip/token.h"

#define JOINER_PEERS_MAX 8

struct joiner;

struct joiner_result {
	struct id128 cluster_id;
	uint8_t cluster_key[CLUSTER_KEY_SIZE];
	uint32_t hostno; /* ours from now on */
	/* For the core's configuration: all others are told the first of these, and the sponsor's is the second. 0: draw one,
	 * unknown.
	 */
	uint64_t boot, source_boot;
	/* What the new core is told by gossip_restore so that it knows its sponsor and some others. */
	unsigned saved_count;
	struct {
		uint8_t key[64];
		size_t key_len;
		uint8_t val[512];
		size_t val_len;
	} saved[JOINER_PEERS_MAX];
};

struct joiner_ops {
	void (*send)(void *ctx, const struct gossip_addr *to, const void *packet, size_t len);
	void (*random)(void *ctx, void *buf, size_t len);
	/* Once: admitted (result) or given up (result NULL, err says why and what to do). */
	void (*done)(void *ctx, const struct joiner_result *result, const struct err *err);
	/* As send, over a stream: UDP has been silent for two rounds over the seeds. May be NULL. */
	void (*stream)(void *ctx, const struct gossip_addr *to, const void *packet, size_t len);
};

struct joiner *joiner_new(const struct token *token, const struct identity *identity, const char *name,
	const struct gossip_addr *self, const struct ip *vtep, uint32_t timeout_ms, const struct joiner_ops *ops, void *ctx,
	uint64_t now_ms);
void joiner_free(struct joiner *j); /* not from within done */
void joiner_packet(struct joiner *j, const struct gossip_addr *from, const void *packet, size_t len, uint64_t now_ms);
uint64_t joiner_tick(struct joiner *j, uint64_t now_ms);

#endif

/* Definitions of networks and pools, as hosts publish them: each in the host's own shard of topic 0, under its kind and id.
 * Whoever uses one publishes all of it, so it lives as long as anybody does. */
#include <string.h>

#include "daemon/node_internal.h"

#define KEY_SIZE (1 + sizeof(struct id128))

static void make_key(enum record_kind kind, const struct id128 *id, uint8_t key[KEY_SIZE])
{
	key[0] = (uint8_t)kind;
	memcpy(key + 1, id, sizeof(*id));
}

void definition_publish(struct node *node, enum record_kind kind, const struct id128 *id, const void *val, size_t len)
{
	uint8_t key[KEY_SIZE];

	make_key(kind, id, key);
	cluster_publish_of(node, id, TOPIC_CLUSTER, key, sizeof(key), val, len);
}

struct survey {
	const struct gossip *gossip;
	uint8_t key[KEY_SIZE];
	definition_fn *fn;
	void *ctx;
};

static void survey_member(void *ctx, const struct gossip_member *m)
{
	struct survey *s = ctx;
	const void *val;
	size_t len;

	if (m->self || m->state == GOSSIP_LEFT)
		return;
	val = gossip_get(s->gossip, m->hostno, TOPIC_CLUSTER, s->key, sizeof(s->key), &len);
	if (val)
		s->fn(s->ctx, m, val, len);
}

void definitions_of_others(struct node *node, enum record_kind kind, const struct id128 *id, definition_fn *fn, void *ctx)
{
	struct survey s = {.gossip = node->gossip, .fn = fn, .ctx = ctx};

	make_key(kind, id, s.key);
	gossip_each_member(node->gossip, survey_member, &s);
}

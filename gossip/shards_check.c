/* Whether shards, records, counts and roots are sound: what the other files of shards promise, as a test sees it. */
#include "gossip/shards_parts_internal.h"

static const char *check_shard(const struct shards *s, const struct shard *shard, uint64_t *live, uint64_t *all)
{
	uint64_t last = 0;
	unsigned deleted = 0;

	for (const struct record *r = shard->live.first; r; r = r->next) {
		if (r->seq <= last)
			return "records out of order";
		if (r->shard != shard || r->old_epoch || !record_is_found(s, r))
			return "record not where it belongs";
		last = r->seq;
		deleted += r->deleted;
		(*all)++;
		*live += !r->deleted;
	}
	for (const struct record *r = shard_rare_of(shard)->old.first; r; r = r->next) {
		if (!r->old_epoch || r->deleted)
			return "old record not where it belongs";
		(*all)++;
		(*live)++;
	}
	if (deleted != shard->deleted_count)
		return "count of deletions";
	for (unsigned i = 0; i < shard->range_count; i++) {
		uint64_t below = i == 0 ? shard->head : shard->rare->ranges[i - 1].to;

		if (shard->rare->ranges[i].from <= below || shard->rare->ranges[i].to <= shard->rare->ranges[i].from)
			return "ranges out of order";
	}
	if (shard->floor > shard->head && shard->head > 0)
		return "floor above head";
	if (shard->root != shard_root(shard))
		return "a shard's part of the root is out of date";
	if (shard->id.origin != s->self && !shards_keeps(s, shard->id.topic))
		return "a shard of a topic that is not kept here";
	return NULL;
}

static const char *check_topic(const struct shards *s, const struct topic *topic, u128 *all)
{
	const struct shard *shard, *next;
	u128 root = 0;

	SHARDS_EACH(s, shard, next)
	if (shard->in == topic)
		root += shard->root;
	if (topic_for_all(topic->topic))
		*all += root;
	return root == topic->root ? NULL : "a topic's root is not the sum of its parts";
}

const char *shards_check(const struct shards *s)
{
	struct shard *shard, *next;
	struct topic *topic, *tmp_topic;
	u128 root = 0;
	uint64_t live = 0, all = 0;

	SHARDS_EACH(s, shard, next)
	{
		const char *wrong = check_shard(s, shard, &live, &all);

		if (wrong)
			return wrong;
	}
	HASH_ITER(hh, s->topics, topic, tmp_topic)
	{
		const char *wrong = check_topic(s, topic, &root);

		if (wrong)
			return wrong;
	}
	if (root != s->root)
		return "root is not the sum of its parts";
	if (live != s->live_count || all != s->record_count)
		return "record counts";
	return NULL;
}

/* What others say of their shards: batches, listings, and the word that a shard is settled (rules R2, R3, R5, R6 and "Listings"
 * in shards_internal.h). Records go into shards_table.c; sync.c and sync_tree.c bring the batches, and act on the verdict.
 *
 * Always: the head never passes a seq that may not have been seen, ranges are above it, sorted and apart; what is told to
 * ops->record is in the table already. */
#include "gossip/shards_parts_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- what is known ---- */

static bool is_known(const struct shard *shard, uint64_t seq)
{
	if (seq <= shard->head)
		return true;
	for (unsigned i = 0; i < shard->range_count; i++)
		if (seq > shard->rare->ranges[i].from && seq <= shard->rare->ranges[i].to)
			return true;
	return false;
}

static void remove_range(struct shard *shard, unsigned i)
{
	struct seq_range *ranges = shard->rare->ranges;

	memmove(&ranges[i], &ranges[i + 1], (shard->range_count - i - 1u) * sizeof(*ranges));
	shard->range_count--;
}

/* Ranges that the head has reached become part of it. */
static void absorb_ranges(struct shard *shard)
{
	while (shard->range_count > 0 && shard->rare->ranges[0].from <= shard->head) {
		if (shard->rare->ranges[0].to > shard->head)
			shard->head = shard->rare->ranges[0].to;
		remove_range(shard, 0);
	}
	shard_relax(shard);
}

/* R2, the second half. At the limit the range is not remembered: its records are applied all the same, and come once more. */
static void add_range(struct shard *shard, uint64_t from, uint64_t to)
{
	struct seq_range *ranges = shard_rare(shard)->ranges;
	unsigned i = 0;

	while (i < shard->range_count) {
		const struct seq_range *r = &ranges[i];

		if (r->to < from) {
			i++;
			continue;
		}
		if (r->from > to)
			break;
		from = r->from < from ? r->from : from;
		to = r->to > to ? r->to : to;
		remove_range(shard, i);
	}
	if (shard->range_count == SHARD_RANGES_MAX)
		return;
	memmove(&ranges[i + 1], &ranges[i], (shard->range_count - i) * sizeof(*ranges));
	ranges[i] = (struct seq_range){.from = from, .to = to};
	shard->range_count++;
}

/* ---- applying ---- */

static bool same_content(const struct record *r, const struct proto_record *in)
{
	return r->deleted == !in->val && r->val_len == in->val_len &&
	       (r->deleted || memcmp(record_val(r), in->val, in->val_len) == 0);
}

/* R6 */
static void conflict(struct shards *s, struct shard *shard, uint64_t seq)
{
	s->conflicts++;
	shard->of->refused = true;
	for (struct shard *each = shard->of->shards; each; each = each->next_of_origin)
		shard_update_root(s, each);
	s->ops->conflict(s->ctx, shard, seq);
}

/* Who holds this seq. Only the neighbourhood where it would go is looked at. */
static struct record *holder_of(const struct shard *shard, uint64_t seq)
{
	struct record *r = shard->live.last;

	while (r && r->seq > seq)
		r = r->prev;
	return r && r->seq == seq ? r : NULL;
}

static void notify(struct shards *s, const struct record *r, bool gone)
{
	uint8_t key[GOSSIP_KEY_MAX];

	if (r->shard->id.origin != s->self)
		s->ops->record(s->ctx, r->shard, key, record_key(r, key), gone ? NULL : record_val(r), gone ? 0 : r->val_len);
}

/* A record of the old epoch is confirmed or replaced without a gap: people see at most a changed value. */
static bool renew(struct shards *s, struct shard *shard, struct record *r, const struct proto_record *in)
{
	if (!in->val) {
		bool was_seen = !r->deleted;

		if (!record_store(s, shard, r, in))
			return false;
		if (was_seen)
			notify(s, record_find(s, shard, in->key, in->key_len), true);
		return true;
	}
	if (same_content(r, in)) {
		record_move(r, false, in->seq);
		return true;
	}
	r = record_store(s, shard, r, in);
	if (r)
		notify(s, r, false);
	return r != NULL;
}

static bool replace(struct shards *s, struct shard *shard, struct record *old, const struct proto_record *in)
{
	bool was_seen = old && !old->deleted;
	bool changed = !old || !same_content(old, in);
	struct record *r = record_store(s, shard, old, in);

	if (!r)
		return false;
	if (r->deleted ? was_seen : changed)
		notify(s, r, r->deleted);
	return true;
}

/* A listing after an audit names its key with a lower seq, by somebody who has seen all up to as_of: ours is wrong. */
static bool is_disproved(const struct shard *shard, const struct record *r)
{
	return shard->relist && r->unconfirmed && r->seq <= shard_rare_of(shard)->as_of;
}

/* One record of a batch. False: R6 or a limit, the rest of the batch is not applied. */
static bool apply_record(struct shards *s, struct shard *shard, const struct proto_record *in, bool listing)
{
	struct record *r = record_find(s, shard, in->key, in->key_len), *other;

	if (r && !r->old_epoch) {
		if (r->seq == in->seq) {
			if (!same_content(r, in) && listing && shard->relist)
				return replace(s, shard, r, in);
			if (!same_content(r, in)) {
				conflict(s, shard, in->seq);
				return false;
			}
			r->unconfirmed &= !listing;
			return true;
		}
		if (r->seq > in->seq && !(listing && is_disproved(shard, r)))
			return true;
	}
	other = holder_of(shard, in->seq);
	if (other && !(listing && shard->relist)) {
		conflict(s, shard, in->seq);
		return false;
	}
	if (other) /* what an audit found wrong: the seq is this key's (R1), and a batch with both would be refused by all */
		record_expire(s, other);
	if (!listing && is_known(shard, in->seq) && !s->no_r3)
		return true; /* R3 */
	if (!in->val && in->seq <= shard->floor && !r)
		return true;
	if (!(r && r->old_epoch ? renew(s, shard, r, in) : replace(s, shard, r, in)))
		return false;
	/* What comes from elsewhere while a listing is under way may be older than it: the listing must name it too. */
	r = record_find(s, shard, in->key, in->key_len);
	if (r && r->seq == in->seq)
		r->unconfirmed = shard->listing && !listing;
	return true;
}

static bool apply_records(struct shards *s, struct shard *shard, const struct proto_batch *batch, bool listing)
{
	struct proto_record in = {.seq = batch->from};
	size_t pos = 0;

	while (proto_batch_next(batch, &pos, &in))
		if (!apply_record(s, shard, &in, listing))
			return false;
	return true;
}

/* What a complete listing did not name is gone, unless it is newer than the listing. */
static void end_listing(struct shards *s, struct shard *shard)
{
	for (struct record *r = shard->live.first; r; r = r->next) {
		r->doomed |= r->unconfirmed && r->seq <= shard_rare_of(shard)->listed;
		r->unconfirmed = false;
	}
	shard->listing = shard->relist = false;
	shard->sweep_due = true;
	s->resets++;
}

static void sweep_doomed(struct shards *s, struct shard *shard)
{
	struct record *r, *next;

	for (r = shard->live.first; r; r = next) {
		next = r->next;
		if (r->doomed)
			record_expire(s, r);
	}
	shard->sweep_due = false;
}

static void sweep_if_due(struct shards *s, struct shard *shard)
{
	if (!shard->settled)
		return;
	if (shard->sweep_due)
		sweep_doomed(s, shard);
	shard_sweep_old(s, shard);
	shard_relax(shard);
}

void shards_confirm_settled(struct shards *s, struct shard *shard)
{
	shard->settled = true;
	sweep_if_due(s, shard);
	shard_update_root(s, shard);
}

static void begin_listing(struct shard *shard, uint64_t head)
{
	shard->listing = true;
	shard_rare(shard)->listed = 0;
	shard->rare->as_of = head;
	for (struct record *r = shard->live.first; r; r = r->next)
		r->unconfirmed = true;
}

static enum shards_verdict apply_listing(struct shards *s, struct shard *shard, const struct proto_batch *batch)
{
	if (batch->from == 0 && (!shard->listing || batch->floor > shard->rare->as_of))
		begin_listing(shard, batch->head);
	if (!shard->listing || batch->from > shard->rare->listed || batch->floor > shard->rare->as_of)
		return SHARDS_GAP;
	if (batch->to <= shard->rare->listed)
		return SHARDS_KNOWN;
	if (batch->head < shard->rare->as_of)
		shard->rare->as_of = batch->head;
	if (!apply_records(s, shard, batch, true))
		return SHARDS_REFUSED;
	shard->rare->listed = batch->to;
	if (batch->to < batch->head)
		return SHARDS_APPLIED;
	end_listing(s, shard);
	shard->head = batch->to;
	absorb_ranges(shard);
	shards_raise_floor(s, shard, batch->floor);
	return SHARDS_APPLIED;
}

static enum shards_verdict apply_delta(struct shards *s, struct shard *shard, const struct proto_batch *batch)
{
	bool known = batch->to <= shard->head;

	if (batch->from < batch->floor && shard->head < batch->floor)
		return SHARDS_GAP; /* deletions are missing from it that we have not seen */
	if (!apply_records(s, shard, batch, false))
		return SHARDS_REFUSED;
	if (known)
		return SHARDS_KNOWN;
	if (batch->from > shard->head) {
		add_range(shard, batch->from, batch->to);
		return SHARDS_APPLIED;
	}
	shard->head = batch->to;
	absorb_ranges(shard);
	if (shard->listing && shard->head >= shard->rare->as_of)
		shard->listing = false; /* overtaken: the gap it was to close is closed */
	shards_raise_floor(s, shard, batch->floor);
	return SHARDS_APPLIED;
}

/* Claims about our own shard that we did not make: a clone of us, or we were set back to an older state. */
static enum shards_verdict apply_to_own(const struct shards *s, const struct proto_batch *batch)
{
	const struct origin *origin = shards_origin(s, s->self);

	if (batch->epoch > origin->epoch || (batch->epoch == origin->epoch && batch->to > s->seq))
		return SHARDS_OURS;
	return SHARDS_KNOWN;
}

static struct shard *shard_for(struct shards *s, const struct proto_batch *batch, uint64_t now_ms)
{
	struct shard *shard = shards_find(s, batch->origin, batch->topic);

	if (!shard)
		return shard_make(s, shards_origin(s, batch->origin), batch->topic);
	if (shard->epoch < batch->epoch)
		shard_begin_epoch(s, shard, now_ms);
	return shard;
}

/* The origin started again (R5, or the same epoch with its seqs continued): nothing is swept before it says that it is done. */
static void unsettle(struct shards *s, struct shard *shard, uint64_t now_ms)
{
	shard->settled = false;
	s->ageing = true;
	if (shard->old_until_ms == 0)
		shard->old_until_ms = now_ms + SHARDS_OLD_EPOCH_MS;
}

enum shards_verdict shards_apply(struct shards *s, const struct proto_batch *batch, uint64_t now_ms)
{
	struct origin *origin;
	struct shard *shard;
	enum shards_verdict verdict;
	uint64_t head_before;

	if (batch->origin == s->self)
		return apply_to_own(s, batch);
	if (!shards_keeps(s, batch->topic)) {
		s->unwanted++;
		return SHARDS_UNWANTED;
	}
	if (!origin_fits(s, batch->origin)) {
		shards_refuse(s, SHARDS_LIMIT_MEMORY);
		return SHARDS_REFUSED;
	}
	shards_saw_epoch(s, batch->origin, batch->epoch, now_ms);
	origin = shards_origin(s, batch->origin);
	if (batch->epoch < origin->epoch)
		return SHARDS_BEHIND;
	if (origin->refused)
		return SHARDS_REFUSED;
	shard = shard_for(s, batch, now_ms);
	if (!shard) {
		shards_refuse(s, SHARDS_LIMIT_MEMORY);
		return SHARDS_REFUSED;
	}
	shards_offered(s, shard);
	head_before = shard->head;
	if (!(batch->flags & PROTO_BATCH_SETTLED) && batch->head > shard->head)
		unsettle(s, shard, now_ms);
	/* A listing matters to who is below its floor; to others it is a batch like any. */
	if (batch->flags & PROTO_BATCH_LISTING && (shard->head < batch->floor || shard->relist))
		verdict = apply_listing(s, shard, batch);
	else
		verdict = apply_delta(s, shard, batch);
	/* Only who knows as much as we do can say so: a copy from before the restart was settled too. */
	if (batch->flags & PROTO_BATCH_SETTLED && batch->head >= head_before && shard->head >= batch->head)
		shard->settled = true;
	sweep_if_due(s, shard);
	shard_update_root(s, shard);
	if (verdict == SHARDS_REFUSED && !origin->refused)
		shard_rare(shard)->refused_ms = now_ms;
	return verdict;
}

void shards_offered(struct shards *s, struct shard *shard)
{
	if (!shard->vacant)
		return;
	shard->vacant = false;
	shard_update_root(s, shard);
}

static bool shows_something(const struct shard *shard)
{
	const struct record *r = shard_rare_of(shard)->old.first;

	for (r = r ? r : shard->live.first; r && r->deleted; r = r->next)
		;
	return r != NULL;
}

/* The origin has nothing in it up to `seq`. */
static void vacate(struct shards *s, struct shard *shard, uint64_t seq, uint64_t now_ms)
{
	bool earlier = shard->epoch < shard->of->epoch;

	if (earlier && !shows_something(shard)) {
		shard_drop(s, shard);
		return;
	}
	if (!earlier && shard->head > seq)
		return;
	if (earlier) {
		shard_begin_epoch(s, shard, now_ms);
		shard->vacant = true;
	}
	while (shard->live.first && shard->live.first->seq <= seq)
		record_expire(s, shard->live.first);
	shard->head = shard->floor = seq;
	shard->listing = shard->relist = false;
	absorb_ranges(shard);
	shards_confirm_settled(s, shard);
}

void shards_settle(struct shards *s, const struct shards_settled *all, uint64_t now_ms)
{
	struct origin *origin;
	struct shard *shard, *next;

	if (all->hostno == s->self)
		return;
	shards_saw_epoch(s, all->hostno, all->epoch, now_ms);
	origin = shards_origin(s, all->hostno);
	if (all->epoch < origin->epoch || origin->refused)
		return;
	for (shard = origin->shards; shard; shard = next) {
		uint64_t head;

		next = shard->next_of_origin;
		if (shard->id.topic < all->topic_lo || shard->id.topic > all->topic_hi)
			continue;
		if (!all->has(all->ctx, shard->id.topic, &head))
			vacate(s, shard, all->seq, now_ms);
		else if (shard->epoch == all->epoch && shard->head >= head && shard->head <= all->seq)
			shards_confirm_settled(s, shard);
	}
}

/* What is given of a shard, and asked for: batches and listings for a peer, the pull that fits what we have, the sum by which an
 * audit compares. shards_apply.c is the other end. Nothing here changes a record, a head or a root. */
#include "gossip/shards_parts_internal.h"

#include <sodium.h>

#define TAIL_USUAL 32

/* ---- giving ---- */

static const struct record *first_after(const struct shard *shard, uint64_t seq)
{
	struct record_list *list = (struct record_list *)&shard->live; /* what is in it stays */
	struct record *r = list->last;

	if (!r || r->seq <= seq)
		return NULL;
	/* Usually the tail is wanted. */
	for (unsigned i = 0; i < TAIL_USUAL && r->prev && r->prev->seq > seq; i++)
		r = r->prev;
	if (r->prev && r->prev->seq > seq && list->at)
		r = list->at;
	while (r->seq <= seq)
		r = r->next;
	while (r->prev && r->prev->seq > seq)
		r = r->prev;
	list->at = r;
	return r;
}

uint64_t shards_encode(const struct shard *shard, uint64_t from, bool listing, uint8_t flags, struct proto_packet *packet)
{
	struct proto_list list;
	struct proto_batch batch = {
		.origin = shard->id.origin,
		.topic = shard->id.topic,
		.epoch = shard->epoch,
		.from = from,
		.to = from,
		.floor = shard->floor,
		.head = shard->head,
		.flags = (uint8_t)(flags | (listing ? PROTO_BATCH_LISTING : 0) |
				   (shard_says_settled(shard) ? PROTO_BATCH_SETTLED : 0)),
	};
	const struct record *r;

	if (from >= shard->head || (listing && !shard_whole(shard)) || !proto_batch_open(&list, packet))
		return from;
	for (r = first_after(shard, from); r && r->seq <= shard->head; r = r->next) {
		uint8_t key[GOSSIP_KEY_MAX];
		struct proto_record record = {
			.seq = r->seq, .key = key, .key_len = record_key(r, key), .val = record_val(r), .val_len = r->val_len};

		if (r->doomed)
			continue;
		if (!proto_batch_add(&list, batch.to, &record))
			break;
		if (batch.to == from && batch.topic == 0)
			proto_batch_reserve(&list, PROTO_SIGNATURE_SIZE); /* admissions: members_signed.c */
		batch.to = r->seq;
	}
	if (!r || r->seq > shard->head)
		batch.to = shard->head;
	if (batch.to == from || !proto_batch_close(&list, &batch))
		return from;
	return batch.to;
}

/* Between two numbers there is nothing, deletions neither: no floor is above that. */
bool shards_encode_one(const struct shard *shard, const struct record *r, struct proto_packet *packet)
{
	uint8_t key[GOSSIP_KEY_MAX];
	const struct proto_batch batch = {
		.origin = shard->id.origin,
		.topic = shard->id.topic,
		.epoch = shard->epoch,
		.from = r->seq - 1,
		.to = r->seq,
		.head = shard->head,
		.flags = shard_says_settled(shard) ? PROTO_BATCH_SETTLED : 0,
	};
	const struct proto_record record = {
		.seq = r->seq, .key = key, .key_len = record_key(r, key), .val = record_val(r), .val_len = r->val_len};
	struct proto_list list;

	return proto_batch_open(&list, packet) && proto_batch_add(&list, batch.from, &record) && proto_batch_close(&list, &batch);
}

void shards_pull(const struct shard *shard, struct proto_pull *ret_pull)
{
	bool current = shard->epoch == shard->of->epoch;

	*ret_pull = (struct proto_pull){
		.after = {.origin = shard->id.origin, .topic = shard->id.topic, .epoch = shard->of->epoch},
		.flags = current && shard->listing ? PROTO_PULL_LISTING : 0,
	};
	if (current)
		ret_pull->after.head = shard->listing ? shard->rare->listed : shard->head;
}

/* ---- audit ---- */

bool shards_sum(const struct shard *shard, uint64_t *ret_sum)
{
	uint64_t sum = 0;

	if (!shard_current(shard) || !shard_says_settled(shard) || shard->listing || shard->sweep_due ||
		shard_rare_of(shard)->old.first)
		return false;
	for (const struct record *r = shard->live.first; r; r = r->next) {
		uint8_t in[8 + 1 + GOSSIP_KEY_MAX + GOSSIP_VALUE_MAX], out[crypto_shorthash_BYTES], key[GOSSIP_KEY_MAX];
		size_t key_len = record_key(r, key);
		struct bytes_writer w;
		struct bytes_reader reader;

		if (r->deleted)
			continue;
		bw_init(&w, in, sizeof(in));
		bw_u64(&w, r->seq);
		bw_u8(&w, (uint8_t)key_len);
		bw_bytes(&w, key, key_len);
		bw_bytes(&w, record_val(r), r->val_len);
		crypto_shorthash(out, in, w.len, shards_siphash_key);
		br_init(&reader, out, sizeof(out));
		sum += br_u64(&reader);
	}
	*ret_sum = sum;
	return true;
}

void shards_relist(struct shard *shard, struct proto_pull *ret_pull)
{
	shard->relist = true;
	shard->listing = false;
	*ret_pull = (struct proto_pull){.after = {.origin = shard->id.origin, .topic = shard->id.topic, .epoch = shard->epoch},
		.flags = PROTO_PULL_LISTING};
}

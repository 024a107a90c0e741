/* Messages inside a frame: bytes <-> plain values. The bytes: docs/wire.md, "Messages".
 *
 *	plaintext of a frame = message*        message = type u8 | length varint | body
 *
 * Unknown types are skipped, so that a newer host can talk to us; a known type whose body is short, long, out of range or not in
 * shortest form spoils the packet: what stood before it in the packet has been handled, the rest is dropped and counted. Nothing
 * here keeps state, allocates or recurses. Decoded values borrow from the packet. */
#ifndef GOSSIP_PROTO_INTERNAL_H
#define GOSSIP_PROTO_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "gossip/frame_internal.h"
#include "gossip/gossip.h"

#define PROTO_PLAIN_MAX FRAME_PLAIN_MAX

enum proto_type {
	PROTO_PING = 1,	    /* probe; carries what both ends compare */
	PROTO_ACK,	    /* the same fields, the ping's seq */
	PROTO_PING_REQ,	    /* ping somebody for me */
	PROTO_NACK,	    /* I did, in vain, but you see that I live */
	PROTO_INDIRECT_ACK, /* I did, it lives */
	PROTO_MEMBERS,	    /* states of hosts: news, accusations, whole tables */
	PROTO_VERIFY,	    /* I suspect it, probe it yourself */
	PROTO_VERDICT,	    /* what came of it */
	PROTO_BATCH,	    /* records of one shard */
	PROTO_PUSH_ACK,	    /* heads of the addressee's own shards */
	PROTO_ROOT,	    /* level 0 apart from probes */
	PROTO_VECTOR,	    /* level 1: heads in a range of shards */
	PROTO_PULL,	    /* level 2: send me these shards after these heads */
	PROTO_HEADS,	    /* all shards of the sender: what else you have of it goes */
	PROTO_TELL,	    /* application message */
	PROTO_RELAY,	    /* a batch that the receiver passes on, see sync_tree.c */
	PROTO_RELAY_ACK,    /* batches that the sender took over */
	PROTO_RECALL,	    /* what is the last you know of me? */
	PROTO_STANDING,	    /* that, and unasked when there is something against it */
	PROTO_SKETCH_ASK,   /* level 1 where there are many shards: send me symbols of yours */
	PROTO_SKETCH,	    /* symbols, see sketch_internal.h */
	PROTO_BUSY,	    /* I serve others in bulk: ask somebody else */
	PROTO_AUDIT,	    /* sums over the records of the sender's own shards */
	PROTO_SUMS,	    /* what differs between our member tables? */
	PROTO_SIGNATURE,    /* of the admissions in the packet, all in one: members_signed.c */
	PROTO_TYPE_MAX,
	PROTO_TYPE_NEXT = 200 /* of no release: skipped */
};

/* What fits: plain values, and one writer. */
struct proto_packet {
	size_t len;
	uint8_t bytes[PROTO_PLAIN_MAX];
};

struct proto_ping {
	uint32_t seq;
	uint32_t epoch, incarnation; /* of the sender */
	u128 root;		     /* over the shards, see sync.c */
	uint64_t members;	     /* over the member table, see members.c */
};

struct proto_ping_req {
	uint32_t seq;
	uint32_t hostno;
	uint16_t timeout_ms;
};

struct proto_entry {
	uint32_t hostno;
	enum gossip_state state;
	uint32_t epoch, incarnation;
};

#define PROTO_MEMBERS_TABLE 1u /* part of a whole table: answer with what you know better */
#define PROTO_MEMBERS_LACKS 2u /* of a newcomer itself, before its vector: it may lack most of what there is */

#define PROTO_HEALTH_MAX 8
struct proto_verdict {
	uint32_t hostno, epoch, incarnation;
	bool alive;	 /* the verifier got an answer from it */
	unsigned health; /* else: the verifier's own local health, 0 = fine */
};

enum proto_verdict_of_us {
	PROTO_SOUND,	 /* nothing against it */
	PROTO_SET_BACK,	 /* a later mark is known */
	PROTO_TWIN,	 /* two speak as the receiver */
	PROTO_TWIN_LATER /* and the receiver is the one met later */
};

struct proto_standing {
	enum proto_verdict_of_us verdict;
	uint64_t boot;		 /* of the receiver, who believes nothing that was said to another process */
	uint32_t epoch;		 /* the receiver's, as known */
	struct gossip_mark mark; /* likewise, the highest */
};

struct proto_root {
	bool want_reply;
	u128 root;
	uint64_t members;
};

/* The sum over the member table, part by part. */
#define PROTO_PARTS 64
struct proto_sums {
	bool back; /* after the receiver's */
	uint64_t at[PROTO_PARTS];
};

struct proto_head {
	uint32_t origin;
	uint64_t topic;
	uint32_t epoch;
	uint64_t head;
	bool settled; /* as PROTO_BATCH_SETTLED */
};

#define SKETCH_KEY_SIZE 16
#define SKETCH_ITEM_SIZE 24
#define PROTO_SKETCH_SYMBOL_SIZE 34

struct proto_sketch {
	uint8_t key[SKETCH_KEY_SIZE];
	uint32_t first;	 /* of the symbols that are asked for, or that follow */
	uint32_t shards; /* how many the sender has */
	uint8_t packets; /* SKETCH_ASK: as many answers */
	uint64_t root;	 /* SKETCH: the lower half of what ROOT says: symbols of one row are of one state */
};

#define PROTO_PULL_LISTING 1u /* head is progress in a listing from 0, see shards_apply.c */

struct proto_pull {
	struct proto_head after;
	uint8_t flags;
};

/* What is common to the heads of one PUSH_ACK. A seq is used once in an epoch: a head that the origin sent names its shard. */
struct proto_push_ack {
	uint8_t packets; /* answered by this, at most 127 */
	bool named;	 /* each head comes with its topic */
	uint32_t epoch;
};

/* (from, to]: all changes that are still live, and all deletions above floor, with from < seq <= to, in order of seq. */
#define PROTO_BATCH_SETTLED 1u /* the origin has put all that it had before its restart */
#define PROTO_BATCH_LISTING 2u /* part of a listing of all live records from 0: rule R4 */
#define PROTO_BATCH_MORE 4u    /* the answer to a pull ends here, but the shard goes on: pull again */
#define PROTO_BATCH_PUSH 8u    /* from the origin, wants PUSH_ACK */
#define PROTO_BATCH_FLAGS 15u

struct proto_batch {
	uint32_t origin;
	uint64_t topic;
	uint32_t epoch;
	uint8_t flags;
	uint64_t from, to;
	uint64_t floor; /* of the sender's copy */
	uint64_t head;	/* of the sender's copy, >= to */
	const uint8_t *records;
	size_t records_len;
};

struct proto_record {
	uint64_t seq;
	const uint8_t *key;
	size_t key_len;
	const uint8_t *val; /* NULL: deleted */
	size_t val_len;
};

/* A range of shards, ordered by (topic, origin), both ends included. */
struct proto_range {
	uint64_t topic_lo, topic_hi;
	uint32_t origin_lo, origin_hi;
};

struct proto_heads {
	uint32_t epoch;
	uint64_t seq; /* the sender's last one: what follows is all that it has up to here */
	uint64_t topic_lo, topic_hi;
};

#define PROTO_SIGNATURE_SIZE 66 /* of the whole message */

/* A message under construction whose entries are added until one no longer fits. */
struct proto_list {
	struct proto_packet *packet;
	uint8_t type;
	struct bytes_writer w;
	uint8_t body[PROTO_PLAIN_MAX];
};

/* All false (and nothing written) when it does not fit. */
bool proto_put_ping(struct proto_packet *packet, enum proto_type ping_or_ack, const struct proto_ping *ping);
bool proto_put_ping_req(struct proto_packet *packet, const struct proto_ping_req *req);
bool proto_put_next(struct proto_packet *packet); /* of a type that no release knows */
bool proto_put_seq(struct proto_packet *packet, enum proto_type nack_or_indirect_ack, uint32_t seq);
bool proto_put_verify(struct proto_packet *packet, const struct proto_entry *suspect);
bool proto_put_verdict(struct proto_packet *packet, const struct proto_verdict *verdict);
bool proto_put_root(struct proto_packet *packet, const struct proto_root *root);
bool proto_put_sums(struct proto_packet *packet, const struct proto_sums *sums);
bool proto_put_recall(struct proto_packet *packet, const struct gossip_mark *mark);
bool proto_put_standing(struct proto_packet *packet, const struct proto_standing *standing);
bool proto_put_sketch_ask(struct proto_packet *packet, const struct proto_sketch *ask);
void proto_sketch_open(struct proto_list *list, struct proto_packet *packet, const struct proto_sketch *sketch);
bool proto_sketch_add(struct proto_list *list, uint16_t count, const uint8_t sum[SKETCH_ITEM_SIZE], uint64_t check);
/* The bytes of a head as one item of a set, and back: false when they are not those of one. */
void proto_sketch_item(const struct proto_head *head, uint8_t ret_bytes[SKETCH_ITEM_SIZE]);
bool proto_sketch_head(const uint8_t bytes[SKETCH_ITEM_SIZE], struct proto_head *ret);
/* Hosts that have what the sender has may follow. */
bool proto_put_signature(struct proto_packet *packet, const uint8_t signature[64]);
void proto_audit_open(struct proto_list *list, struct proto_packet *packet);
bool proto_audit_add(struct proto_list *list, const struct proto_head *head, uint64_t sum);
void proto_busy_open(struct proto_list *list, struct proto_packet *packet, uint16_t retry_ms);
bool proto_busy_add(struct proto_list *list, uint32_t hostno);
bool proto_put_tell(struct proto_packet *packet, uint8_t kind, const void *body, size_t len);

void proto_members_open(struct proto_list *list, struct proto_packet *packet, uint8_t flags);
bool proto_members_add(struct proto_list *list, const struct proto_entry *entry);
void proto_push_ack_open(struct proto_list *list, struct proto_packet *packet, const struct proto_push_ack *ack);
bool proto_push_ack_add(struct proto_list *list, const struct proto_push_ack *ack, uint64_t topic, uint64_t head);
void proto_vector_open(struct proto_list *list, struct proto_packet *packet, const struct proto_range *range);
bool proto_vector_add(struct proto_list *list, const struct proto_head *head);
void proto_pull_open(struct proto_list *list, struct proto_packet *packet);
bool proto_pull_add(struct proto_list *list, const struct proto_pull *pull);
void proto_heads_open(struct proto_list *list, struct proto_packet *packet, const struct proto_heads *heads);
bool proto_heads_add(struct proto_list *list, uint64_t topic, uint64_t head);
/* Ends the message. False: the packet has no room (its entries were added against the room left at open, so only an interleaved
 * message can cause this). */
bool proto_list_close(struct proto_list *list);
/* Closes a vector or heads message whose range turned out narrower than it was opened with. */
bool proto_vector_close_at(struct proto_list *list, const struct proto_range *range);
bool proto_heads_close_at(struct proto_list *list, uint64_t topic_hi);

/* Batches: open with all fields but to; add in order of seq; close states how far the batch reaches. */
/* Room that the records leave, for a message behind them. */
void proto_batch_reserve(struct proto_list *list, size_t bytes);
bool proto_batch_open(struct proto_list *list, struct proto_packet *packet);
bool proto_batch_add(struct proto_list *list, uint64_t last_seq, const struct proto_record *record);
bool proto_batch_close(struct proto_list *list, const struct proto_batch *batch);

/* A packet of one batch becomes a relay packet. */
void proto_make_relay(struct proto_packet *packet);
/* The body of one as it came. */
bool proto_put_relay(struct proto_packet *packet, const uint8_t *body, size_t len);
/* Heads, of which only origin, topic, epoch and head count: how far the batches reached. Read with proto_get_head. */
void proto_relay_ack_open(struct proto_list *list, struct proto_packet *packet);
bool proto_relay_ack_add(struct proto_list *list, const struct proto_head *head);

/* Next message of a packet; false at the end, and when it is malformed (`packet->bad` is then set). */
bool proto_next(struct bytes_reader *packet, uint8_t *ret_type, struct bytes_reader *ret_body);

/* All: false when the body is not exactly that. */
bool proto_get_ping(struct bytes_reader *body, struct proto_ping *ret);
bool proto_get_ping_req(struct bytes_reader *body, struct proto_ping_req *ret);
bool proto_get_seq(struct bytes_reader *body, uint32_t *ret_seq);
bool proto_get_verify(struct bytes_reader *body, struct proto_entry *ret);
bool proto_get_verdict(struct bytes_reader *body, struct proto_verdict *ret);
bool proto_get_root(struct bytes_reader *body, struct proto_root *ret);
bool proto_get_sums(struct bytes_reader *body, struct proto_sums *ret);
bool proto_get_recall(struct bytes_reader *body, struct gossip_mark *ret);
bool proto_get_standing(struct bytes_reader *body, struct proto_standing *ret);
bool proto_get_sketch_ask(struct bytes_reader *body, struct proto_sketch *ret);
bool proto_get_sketch_open(struct bytes_reader *body, struct proto_sketch *ret);
bool proto_get_sketch_symbol(
	struct bytes_reader *body, uint16_t *ret_count, uint8_t ret_sum[SKETCH_ITEM_SIZE], uint64_t *ret_check);
/* Fills topic, epoch and head. */
bool proto_get_signature(struct bytes_reader *body, uint8_t ret_signature[64]);
bool proto_get_audit(struct bytes_reader *body, struct proto_head *ret_head, uint64_t *ret_sum);
bool proto_get_busy_open(struct bytes_reader *body, uint16_t *ret_retry_ms);
bool proto_get_busy_hostno(struct bytes_reader *body, uint32_t *ret_hostno);
bool proto_get_tell(struct bytes_reader *body, uint8_t *ret_kind, const uint8_t **ret_body, size_t *ret_len);
/* Checks every record, so that proto_batch_next cannot fail. A push does not name its origin, which is who it comes from. */
bool proto_get_batch(struct bytes_reader *body, uint32_t from, struct proto_batch *ret);
/* Walks the records of a checked batch; start with *pos = 0 and record->seq = batch->from. */
bool proto_batch_next(const struct proto_batch *batch, size_t *pos, struct proto_record *record);

/* Lists: read the opening, then entries until false; the list was sound if br_done(body). */
bool proto_get_members_flags(struct bytes_reader *body, uint8_t *ret_flags);
bool proto_get_entry(struct bytes_reader *body, struct proto_entry *ret);
bool proto_get_push_ack_open(struct bytes_reader *body, struct proto_push_ack *ret_ack);
/* *ret_topic counts only when ack->named. */
bool proto_get_push_ack(struct bytes_reader *body, const struct proto_push_ack *ack, uint64_t *ret_topic, uint64_t *ret_head);
bool proto_get_range(struct bytes_reader *body, struct proto_range *ret);
bool proto_get_head(struct bytes_reader *body, struct proto_head *ret);
bool proto_get_pull(struct bytes_reader *body, struct proto_pull *ret);
bool proto_get_heads_open(struct bytes_reader *body, struct proto_heads *ret);
bool proto_get_heads_entry(struct bytes_reader *body, uint64_t *ret_topic, uint64_t *ret_head);

#endif

/* What the files of shards (shards*.c) share with each other and with nobody else; the rest of the core sees shards_internal.h.
 */
#ifndef GOSSIP_SHARDS_PARTS_INTERNAL_H
#define GOSSIP_SHARDS_PARTS_INTERNAL_H

#include "gossip/shards_internal.h"

/* shards_table.c */
void table_open(struct shards *s);
void table_close(struct shards *s); /* with all records, without a word */
/* Deletions and records of an earlier epoch too. */
struct record *record_find(const struct shards *s, const struct shard *shard, const void *key, size_t key_len);
bool record_is_found(const struct shards *s, const struct record *r);
/* Puts a record in, in place of one of the same key. NULL at a limit or without memory, counted; then `old` is still there. */
struct record *record_store(struct shards *s, struct shard *shard, struct record *old, const struct proto_record *from);
void record_move(struct record *r, bool old_epoch, uint64_t seq);
void record_delete(struct shards *s, struct record *r, uint64_t seq);
void record_drop(struct shards *s, struct record *r);
/* The same, and it is told to who saw it. */
void record_expire(struct shards *s, struct record *r);
void shards_refuse(struct shards *s, enum shards_limit limit); /* counts it */

/* shards.c */
bool origin_fits(const struct shards *s, uint32_t hostno);			   /* one more at the most */
struct shard *shard_make(struct shards *s, struct origin *origin, uint64_t topic); /* NULL at the limit */
void shard_drop(struct shards *s, struct shard *shard);
void shard_begin_epoch(struct shards *s, struct shard *shard, uint64_t now_ms);
void shard_sweep_old(struct shards *s, struct shard *shard);
struct shard_rare *shard_rare(struct shard *shard);
void shard_relax(struct shard *shard);
u128 shard_root(const struct shard *shard);
void shard_update_root(struct shards *s, struct shard *shard);

/* All hosts must agree: equality, not secrecy. */
extern const uint8_t shards_siphash_key[16];

#endif

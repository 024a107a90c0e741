/* What the files of a table of ours (nft*.c) share; its users see nft.h. */
#ifndef DRIVER_VXLAN_NFT_INTERNAL_H
#define DRIVER_VXLAN_NFT_INTERNAL_H

#include <linux/netfilter/nf_tables.h>

#include "driver/vxlan/nft.h"

#define NFT_TABLE_NAME_MAX 31
#define NFT_MESSAGES_MAX 512 /* of a batch; the limits in guard.h and nat.h need at most 200 */

struct mnl_socket;
struct nlmsghdr;

struct nft {
	struct mnl_socket *socket, *notices;
	const struct nft_def *def;
	const void *arg;
	uint32_t seq;
	char table[NFT_TABLE_NAME_MAX + 1];
	char extack[200]; /* the kernel's own words on the last refusal, or "" */

	bool built; /* the table is of this object; its handles are known */
	uint64_t table_handle;
	uint64_t rule_handles[NFT_RULES_MAX];
	size_t rule_count;

	uint32_t generation; /* at which the kernel held `applied`; 0, which the kernel leaves out: not known */
	struct nft_content applied;
};

/* nft_keys.c */
void nft_keys_put(struct nft_keys *keys, const void *key, bool end);
void nft_keys_sort(struct nft_keys *keys);
bool nft_keys_equal(const struct nft_keys *a, const struct nft_keys *b);
bool nft_content_equal(const struct nft_content *a, const struct nft_content *b);

/* nft_ask.c: 0 or a negative errno */
typedef int (*nft_reply_fn)(const struct nlmsghdr *nlh, void *arg);
struct nft_table_facts {
	uint64_t handle;
	uint32_t flags;
};

struct nft_rule_list {
	const char *table;
	uint64_t handles[NFT_RULES_MAX];
	size_t count; /* may exceed NFT_RULES_MAX: strangers in our table */
};

struct nlmsghdr *nft_question(struct nft *nft, void *buf, uint16_t type, uint16_t flags); /* flags 0: one answer, and an ack */
/* One question and all of its answers, up to DONE (dumps) or the acknowledgement. EINTR: the dump was overtaken by a commit. */
int nft_ask(struct nft *nft, struct nlmsghdr *request, nft_reply_fn fn, void *arg);
int nft_closing_error(struct nft *nft, const struct nlmsghdr *nlh);
int nft_get_generation(struct nft *nft, uint32_t *ret_generation);
int nft_get_table(struct nft *nft, struct nft_table_facts *facts);
int nft_get_rules(struct nft *nft, struct nft_rule_list *list);
int nft_get_content(struct nft *nft, struct nft_content *content);
int nft_on_table(const struct nlmsghdr *nlh, void *arg); /* struct nft_table_facts */
int nft_on_rule(const struct nlmsghdr *nlh, void *arg);	 /* struct nft_rule_list */

/* nft_batch.c */
struct nft_batch {
	struct nft *nft;
	char *buf;
	size_t len;
	size_t capacity;
	uint32_t first_seq;
	size_t count;
	struct nlmsghdr *last; /* dangles after the next message was begun */
	const char *what[NFT_MESSAGES_MAX];
};

struct nft_verdict {
	int error;	  /* the first one */
	const char *what; /* the message it belongs to, or NULL */
	bool acknowledged;
	struct nft_table_facts table; /* echoed */
	struct nft_rule_list rules;
};

/* Generation 0: commit whatever others have done. */
void nft_batch_begin(struct nft_batch *batch, struct nft *nft, uint32_t generation);
struct nlmsghdr *nft_batch_message(struct nft_batch *batch, uint16_t type, uint16_t flags, const char *what);
void nft_batch_end_message(struct nft_batch *batch, struct nlmsghdr *nlh);
void nft_batch_delete_table(struct nft_batch *batch);
void nft_batch_build(struct nft_batch *batch); /* in place of whatever there is */
void nft_batch_flush_set(struct nft_batch *batch, unsigned index);
void nft_batch_elements(struct nft_batch *batch, unsigned index, const struct nft_keys *keys);
/* Sends the batch and frees it. `before` is a generation from before it. ERESTART: others committed since the one it was begun
 * with. */
int nft_batch_commit(struct nft_batch *batch, uint32_t before, struct nft_verdict *verdict);

#endif

/* One nft table of ours, made and kept by comparing: what its users (guard.c, nat.c) say is in it, in sets, counters, chains and
 * rules, is what the kernel holds after nft_apply. How that is done, and why so: the top of nft.c.
 *
 * The structure of a table (chains, rules, which sets there are) is fixed by its definition; what the sets hold changes. */
#ifndef DRIVER_VXLAN_NFT_H
#define DRIVER_VXLAN_NFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct nft;
struct nft_batch;
struct nftnl_rule;

#define NFT_SETS_MAX 8
#define NFT_KEY_MAX 16	 /* bytes */
#define NFT_RULES_MAX 32 /* of a table */
#define NFT_COUNTERS_MAX 4
#define NFT_VNI_OFFSET 12 /* from the UDP header: its 8 bytes, flags, 24 reserved bits (RFC 7348 section 5) */

struct nft_set_def {
	const char *name;
	uint32_t key_type; /* nft's numbers: 4 integer, 7 IPv4, 8 IPv6, 35 device group; the kernel keeps them for `nft list`
			      alone */
	uint32_t key_size;
	bool interval;	 /* elements are ranges: see nft_keys_add_range */
	bool host_order; /* of an integer's bytes: what `nft list` is told */
	bool vni;	 /* a raw VNI from behind the UDP header: what `nft list` is told of the key's type */
};

struct nft_def {
	unsigned set_count, counter_count;
	const struct nft_set_def *sets;
	const char *const *counters;
	/* Adds chains and rules to the batch, with the calls below. `arg` is that of nft_open. */
	void (*build)(struct nft_batch *batch, const void *arg);
};

/* A set's content: sorted, each key once, so that equality is memcmp. Filled by its user, sorted by nft_apply. */
struct nft_keys {
	uint8_t *bytes;
	size_t size, stride; /* of one key; of one entry: an interval's has a byte more, 1 for its end */
	size_t count, capacity;
};

struct nft_content {
	unsigned set_count;
	struct nft_keys sets[NFT_SETS_MAX];
};

void nft_content_init(struct nft_content *content, const struct nft_def *def);
void nft_content_fini(struct nft_content *content);
void nft_keys_add(struct nft_keys *keys, const void *key);
/* From `first` to before `end`; NULL: to the last one there is. Ranges of one set must neither overlap nor touch. */
void nft_keys_add_range(struct nft_keys *keys, const void *first, const void *end);

/* Opens netfilter sockets in the calling thread's network namespace; changes nothing yet. def, and arg, are borrowed. */
int nft_open(const char *table, const struct nft_def *def, const void *arg, struct nft **ret_nft, struct err *err);
void nft_close(struct nft *nft);

/* Makes the kernel hold exactly this; takes `wanted` over (it is empty afterwards). *ret_wrote (may be NULL): the kernel had it
 * otherwise. Compares first, and when nothing differs it writes nothing (one short question while no one has touched any nft
 * table since). Each change is one transaction: no packet sees half of it. The first call rebuilds the table whatever it finds,
 * as an older version may have left it. */
int nft_apply(struct nft *nft, struct nft_content *wanted, bool *ret_wrote, struct err *err);
/* Packets of a counter since the table was built; replacing the sets keeps them. ERR_NOT_FOUND when there is no table. */
int nft_counter(struct nft *nft, const char *name, uint64_t *ret_packets, struct err *err);
int nft_purge(struct nft *nft, struct err *err); /* deletes the table; fine when there is none */

/* Becomes readable when anybody commits a change; nft_drain reads all of it and says whether somebody else may have touched our
 * table. */
int nft_fd(const struct nft *nft);
bool nft_drain(struct nft *nft);

/* The first chain of anybody's that sees what the host forwards and drops it unless a rule of its accepts it: "chain FORWARD of
 * table ip filter"; "" when there is none. */
int nft_find_forward_drop(struct nft *nft, char *buf, size_t size, struct err *err);

/* ---- for build() ---- */

void nft_chain(struct nft_batch *batch, const char *name, const char *type, uint32_t hook, int32_t priority);
struct nftnl_rule *nft_rule(struct nft_batch *batch, const char *chain);
/* Ends the rule; `what` names it in errors. */
void nft_rule_end(struct nft_batch *batch, struct nftnl_rule *rule, const char *what);
void nft_load_meta(struct nftnl_rule *rule, uint32_t key, uint32_t reg);
void nft_load_payload(struct nftnl_rule *rule, uint32_t base, uint32_t offset, uint32_t size);
void nft_match(struct nftnl_rule *rule, uint32_t op /* NFT_CMP_ */, const void *value, size_t size); /* register 1 */
void nft_match_set(struct nft_batch *batch, struct nftnl_rule *rule, unsigned set, bool inverted);   /* from register 1 */
void nft_match_protocol(struct nftnl_rule *rule, uint8_t family /* NFPROTO_ */);
/* The source address's route does not lead back to where the packet came in. */
void nft_match_no_way_back(struct nftnl_rule *rule);
void nft_masquerade(struct nftnl_rule *rule);
void nft_notrack(struct nftnl_rule *rule);
void nft_count_and_drop(struct nftnl_rule *rule, const char *counter);

#endif

/* Chains and rules for build() of a table's definition (the last part of nft.h): each call adds one message to the batch, or one
 * expression to a rule. */
#include "driver/vxlan/nft_internal.h"

#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <linux/netfilter.h>
#include <linux/netlink.h>

#include "base/alloc.h"

void nft_chain(struct nft_batch *batch, const char *name, const char *type, uint32_t hook, int32_t priority)
{
	struct nftnl_chain *chain = alloc_made(nftnl_chain_alloc(), "nft chain");
	struct nlmsghdr *nlh;

	nftnl_chain_set_str(chain, NFTNL_CHAIN_TABLE, batch->nft->table);
	nftnl_chain_set_str(chain, NFTNL_CHAIN_NAME, name);
	nftnl_chain_set_str(chain, NFTNL_CHAIN_TYPE, type);
	nftnl_chain_set_u32(chain, NFTNL_CHAIN_HOOKNUM, hook);
	nftnl_chain_set_s32(chain, NFTNL_CHAIN_PRIO, priority);
	nftnl_chain_set_u32(chain, NFTNL_CHAIN_POLICY, NF_ACCEPT);
	nlh = nft_batch_message(batch, NFT_MSG_NEWCHAIN, NLM_F_CREATE, name);
	nftnl_chain_nlmsg_build_payload(nlh, chain);
	nft_batch_end_message(batch, nlh);
	nftnl_chain_free(chain);
}

struct nftnl_rule *nft_rule(struct nft_batch *batch, const char *chain)
{
	struct nftnl_rule *rule = alloc_made(nftnl_rule_alloc(), "nft rule");

	nftnl_rule_set_str(rule, NFTNL_RULE_TABLE, batch->nft->table);
	nftnl_rule_set_str(rule, NFTNL_RULE_CHAIN, chain);
	nftnl_rule_set_u32(rule, NFTNL_RULE_FAMILY, NFPROTO_INET);
	return rule;
}

void nft_rule_end(struct nft_batch *batch, struct nftnl_rule *rule, const char *what)
{
	struct nlmsghdr *nlh = nft_batch_message(batch, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND | NLM_F_ECHO, what);

	nftnl_rule_nlmsg_build_payload(nlh, rule);
	nft_batch_end_message(batch, nlh);
	nftnl_rule_free(rule);
}

static struct nftnl_expr *rule_expr(struct nftnl_rule *rule, const char *kind)
{
	struct nftnl_expr *expr = alloc_made(nftnl_expr_alloc(kind), "nft expression");

	nftnl_rule_add_expr(rule, expr);
	return expr;
}

void nft_load_meta(struct nftnl_rule *rule, uint32_t key, uint32_t reg)
{
	struct nftnl_expr *meta = rule_expr(rule, "meta");

	nftnl_expr_set_u32(meta, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(meta, NFTNL_EXPR_META_DREG, reg);
}

void nft_load_payload(struct nftnl_rule *rule, uint32_t base, uint32_t offset, uint32_t size)
{
	struct nftnl_expr *payload = rule_expr(rule, "payload");

	nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_BASE, base);
	nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
	nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_LEN, size);
	nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_DREG, NFT_REG_1);
}

void nft_match(struct nftnl_rule *rule, uint32_t op, const void *value, size_t size)
{
	struct nftnl_expr *cmp = rule_expr(rule, "cmp");

	nftnl_expr_set_u32(cmp, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
	nftnl_expr_set_u32(cmp, NFTNL_EXPR_CMP_OP, op);
	nftnl_expr_set(cmp, NFTNL_EXPR_CMP_DATA, value, (uint32_t)size);
}

void nft_match_set(struct nft_batch *batch, struct nftnl_rule *rule, unsigned set, bool inverted)
{
	struct nftnl_expr *lookup = rule_expr(rule, "lookup");

	nftnl_expr_set_u32(lookup, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
	nftnl_expr_set_str(lookup, NFTNL_EXPR_LOOKUP_SET, batch->nft->def->sets[set].name);
	nftnl_expr_set_u32(lookup, NFTNL_EXPR_LOOKUP_SET_ID, set + 1);
	if (inverted)
		nftnl_expr_set_u32(lookup, NFTNL_EXPR_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
}

void nft_match_protocol(struct nftnl_rule *rule, uint8_t family)
{
	nft_load_meta(rule, NFT_META_NFPROTO, NFT_REG_1);
	nft_match(rule, NFT_CMP_EQ, &family, sizeof(family));
}

void nft_match_no_way_back(struct nftnl_rule *rule)
{
	static const uint32_t missing = 0;
	struct nftnl_expr *fib = rule_expr(rule, "fib");

	nftnl_expr_set_u32(fib, NFTNL_EXPR_FIB_DREG, NFT_REG_1);
	nftnl_expr_set_u32(fib, NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_OIF);
	nftnl_expr_set_u32(fib, NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF);
	nft_match(rule, NFT_CMP_EQ, &missing, sizeof(missing));
}

void nft_masquerade(struct nftnl_rule *rule)
{
	rule_expr(rule, "masq");
}

void nft_notrack(struct nftnl_rule *rule)
{
	rule_expr(rule, "notrack");
}

void nft_count_and_drop(struct nftnl_rule *rule, const char *counter)
{
	struct nftnl_expr *objref = rule_expr(rule, "objref");
	struct nftnl_expr *verdict;

	nftnl_expr_set_u32(objref, NFTNL_EXPR_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
	nftnl_expr_set_str(objref, NFTNL_EXPR_OBJREF_IMM_NAME, counter);
	verdict = rule_expr(rule, "immediate");
	nftnl_expr_set_u32(verdict, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_u32(verdict, NFTNL_EXPR_IMM_VERDICT, NF_DROP);
}

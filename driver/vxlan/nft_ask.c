/* Questions to netfilter and what is read from the answers: generation, table, rules, elements. Nothing here writes, and nothing
 * is remembered but the kernel's last words of refusal. Functions return 0 or a negative errno; nft.c makes the sentence. */
#include "driver/vxlan/nft_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/common.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <string.h>

static void note_extack(struct nft *nft, const struct nlmsghdr *nlh)
{
	const struct nlmsgerr *error = mnl_nlmsg_get_payload(nlh);
	size_t offset = sizeof(*error);
	const struct nlattr *attr;

	nft->extack[0] = '\0';
	if (!(nlh->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	if (!(nlh->nlmsg_flags & NLM_F_CAPPED))
		offset += error->msg.nlmsg_len - sizeof(error->msg);
	if (mnl_nlmsg_get_payload_len(nlh) < offset)
		return;
	mnl_attr_for_each(attr, nlh, offset)
	{
		if (mnl_attr_get_type(attr) == NLMSGERR_ATTR_MSG && !mnl_attr_validate(attr, MNL_TYPE_NUL_STRING))
			snprintf(nft->extack, sizeof(nft->extack), "%s", mnl_attr_get_str(attr));
	}
}

/* The error of a DONE or ERROR message. */
int nft_closing_error(struct nft *nft, const struct nlmsghdr *nlh)
{
	int error;

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(error))
		return nlh->nlmsg_type == NLMSG_DONE ? 0 : -EBADMSG;
	memcpy(&error, mnl_nlmsg_get_payload(nlh), sizeof(error));
	if (nlh->nlmsg_type == NLMSG_ERROR && mnl_nlmsg_get_payload_len(nlh) < sizeof(struct nlmsgerr))
		return -EBADMSG;
	if (error && nlh->nlmsg_type == NLMSG_ERROR)
		note_extack(nft, nlh);
	return error;
}

int nft_ask(struct nft *nft, struct nlmsghdr *request, nft_reply_fn fn, void *arg)
{
	char buf[32768] __attribute__((aligned(NLMSG_ALIGNTO)));
	int result = 0;

	if (mnl_socket_sendto(nft->socket, request, request->nlmsg_len) < 0)
		return -errno;
	for (;;) {
		ssize_t got = mnl_socket_recvfrom(nft->socket, buf, sizeof(buf));
		const struct nlmsghdr *nlh = (const struct nlmsghdr *)buf;

		if (got < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		for (int left = (int)got; mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left)) {
			if (nlh->nlmsg_seq != request->nlmsg_seq)
				continue; /* a late answer to a question that we gave up on */
			if (nlh->nlmsg_flags & NLM_F_DUMP_INTR)
				result = -EINTR;
			if (nlh->nlmsg_type == NLMSG_DONE || nlh->nlmsg_type == NLMSG_ERROR) {
				int error = nft_closing_error(nft, nlh);

				return error ? error : result;
			}
			if (!result)
				result = fn(nlh, arg);
		}
	}
}

struct nlmsghdr *nft_question(struct nft *nft, void *buf, uint16_t type, uint16_t flags)
{
	return nftnl_nlmsg_build_hdr(buf, type, NFPROTO_INET, flags ? flags : NLM_F_ACK, ++nft->seq);
}

static int on_generation(const struct nlmsghdr *nlh, void *arg)
{
	const struct nlattr *attr;

	mnl_attr_for_each(attr, nlh, sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(attr) == NFTA_GEN_ID && !mnl_attr_validate(attr, MNL_TYPE_U32)) {
			*(uint32_t *)arg = ntohl(mnl_attr_get_u32(attr));
			return 0;
		}
	}
	return -EBADMSG;
}

int nft_get_generation(struct nft *nft, uint32_t *ret_generation)
{
	char buf[256] __attribute__((aligned(NLMSG_ALIGNTO)));

	return nft_ask(nft, nft_question(nft, buf, NFT_MSG_GETGEN, 0), on_generation, ret_generation);
}

int nft_on_table(const struct nlmsghdr *nlh, void *arg)
{
	struct nft_table_facts *facts = arg;
	struct nftnl_table *table = nftnl_table_alloc();
	int result = -EBADMSG;

	if (table && nftnl_table_nlmsg_parse(nlh, table) == 0) {
		facts->handle = nftnl_table_get_u64(table, NFTNL_TABLE_HANDLE);
		facts->flags = nftnl_table_get_u32(table, NFTNL_TABLE_FLAGS);
		result = 0;
	}
	nftnl_table_free(table);
	return result;
}

int nft_get_table(struct nft *nft, struct nft_table_facts *facts)
{
	char buf[512] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *nlh = nft_question(nft, buf, NFT_MSG_GETTABLE, 0);

	mnl_attr_put_strz(nlh, NFTA_TABLE_NAME, nft->table);
	return nft_ask(nft, nlh, nft_on_table, facts);
}

int nft_on_rule(const struct nlmsghdr *nlh, void *arg)
{
	struct nft_rule_list *list = arg;
	struct nftnl_rule *rule = nftnl_rule_alloc();
	int result = -EBADMSG;

	if (rule && nftnl_rule_nlmsg_parse(nlh, rule) == 0) {
		const char *table = nftnl_rule_get_str(rule, NFTNL_RULE_TABLE);

		result = 0;
		if (table && !strcmp(table, list->table)) {
			if (list->count < NFT_RULES_MAX)
				list->handles[list->count] = nftnl_rule_get_u64(rule, NFTNL_RULE_HANDLE);
			list->count++;
		}
	}
	nftnl_rule_free(rule);
	return result;
}

int nft_get_rules(struct nft *nft, struct nft_rule_list *list)
{
	char buf[512] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *nlh = nft_question(nft, buf, NFT_MSG_GETRULE, NLM_F_DUMP);

	list->table = nft->table;
	mnl_attr_put_strz(nlh, NFTA_RULE_TABLE, nft->table);
	return nft_ask(nft, nlh, nft_on_rule, list);
}

static int on_element(struct nftnl_set_elem *element, void *arg)
{
	struct nft_keys *keys = arg;
	uint32_t size = 0, flags = 0;
	const void *key = nftnl_set_elem_get(element, NFTNL_SET_ELEM_KEY, &size);

	if (!key || size != keys->size)
		return -1;
	if (nftnl_set_elem_is_set(element, NFTNL_SET_ELEM_FLAGS))
		flags = nftnl_set_elem_get_u32(element, NFTNL_SET_ELEM_FLAGS);
	nft_keys_put(keys, key, flags & NFT_SET_ELEM_INTERVAL_END);
	return 0;
}

static int on_elements(const struct nlmsghdr *nlh, void *arg)
{
	struct nftnl_set *set = nftnl_set_alloc();
	int result = -EBADMSG;

	if (set && nftnl_set_elems_nlmsg_parse(nlh, set) == 0 && nftnl_set_elem_foreach(set, on_element, arg) >= 0)
		result = 0;
	nftnl_set_free(set);
	return result;
}

int nft_get_content(struct nft *nft, struct nft_content *content)
{
	for (unsigned i = 0; i < nft->def->set_count; i++) {
		char buf[512] __attribute__((aligned(NLMSG_ALIGNTO)));
		struct nlmsghdr *nlh = nft_question(nft, buf, NFT_MSG_GETSETELEM, NLM_F_DUMP);
		int error;

		mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_TABLE, nft->table);
		mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_SET, nft->def->sets[i].name);
		error = nft_ask(nft, nlh, on_elements, &content->sets[i]);
		if (error < 0)
			return error;
		nft_keys_sort(&content->sets[i]);
	}
	return 0;
}

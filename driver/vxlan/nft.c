/* nft tables of ours: see nft.h. nfnetlink batches over libmnl, objects encoded by libnftnl.
 *
 * What the kernel does and what follows from it:
 * - A batch is one transaction, and it names the generation that it was computed from (NFNL_BATCH_GENID): if anyone has
 *   committed in between, the kernel answers ERESTART and we look again. So comparing first and writing after has no
 *   window. Where someone commits without a pause that race could be lost for ever, so after a few rounds all is written
 *   unconditionally, and looked at again the next time.
 * - NLM_F_ECHO gives back what was made with its handles, in the same transaction: a table or rule of another handle is
 *   not ours.
 * - The generation counts every commit of the namespace. As long as it is the one that our last look or commit ended
 *   with, nothing can have changed, and nft_apply costs one question.
 * - An acknowledgement of BATCH_BEGIN proves nothing, one of BATCH_END is not given by older kernels, and a message
 *   whose attribute length wrapped around is dropped without an error. Success is therefore: no error, the last real
 *   message acknowledged, and the generation moved.
 * - nla_len has 16 bits: about 4,000 IPv4 or 2,300 IPv6 elements are the most a message can carry. We send 1,000.
 * - Notices of a flush name each table that went, and those of our own commits come as well: they are answered with the
 *   one question above. */
#include "driver/vxlan/nft.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/alloc.h"

#define TABLE_NAME_MAX 31
#define ATTEMPTS_POLITE 4 /* rounds lost to others, before one is written unconditionally */
#define ATTEMPTS_MAX 16	  /* before it is an error */
#define ELEMENTS_PER_MESSAGE 1000
#define MESSAGE_ROOM 65536 /* kept free in front of each message: more than the largest one we build */
#define MESSAGES_MAX 512   /* of a batch; the limits in guard.h and nat.h need at most 200 */
#define NOTICE_BUFFER (1 << 20)
#define REPLY_TIMEOUT_MS 3000 /* the kernel answers within sendmsg; only a bug gets here */
#define SEND_BUFFER (8 << 20) /* a batch must fit in one datagram */

struct nft {
	struct mnl_socket *socket, *notices;
	const struct nft_def *def;
	const void *arg;
	uint32_t seq;
	char table[TABLE_NAME_MAX + 1];
	char extack[200]; /* the kernel's own words on the last refusal, or "" */

	bool built; /* the table is of this object; its handles are known */
	uint64_t table_handle;
	uint64_t rule_handles[NFT_RULES_MAX];
	size_t rule_count;

	uint32_t generation; /* at which the kernel held `applied`; 0, which the kernel leaves out: not known */
	struct nft_content applied;
};

/* -- keys -- */

static void keys_add(struct nft_keys *keys, const void *key, bool end)
{
	uint8_t *entry;

	if (keys->count == keys->capacity) {
		keys->capacity = keys->capacity ? keys->capacity * 2 : 16;
		keys->bytes = alloc_resize(keys->bytes, uint8_t, keys->capacity * keys->stride);
	}
	entry = keys->bytes + keys->count++ * keys->stride;
	memcpy(entry, key, keys->size);
	if (keys->stride > keys->size)
		entry[keys->size] = end;
}

void nft_keys_add(struct nft_keys *keys, const void *key)
{
	keys_add(keys, key, false);
}

void nft_keys_add_range(struct nft_keys *keys, const void *first, const void *end)
{
	keys_add(keys, first, false);
	if (end)
		keys_add(keys, end, true);
}

static int key_compare(const void *a, const void *b, void *size)
{
	return memcmp(a, b, *(size_t *)size);
}

static void keys_sort(struct nft_keys *keys)
{
	size_t kept = 0;

	if (!keys->count)
		return;
	qsort_r(keys->bytes, keys->count, keys->stride, key_compare, &keys->stride);
	for (size_t i = 1; i < keys->count; i++) {
		const uint8_t *key = keys->bytes + i * keys->stride;

		if (memcmp(keys->bytes + kept * keys->stride, key, keys->stride))
			memmove(keys->bytes + ++kept * keys->stride, key, keys->stride);
	}
	keys->count = kept + 1;
}

static bool keys_equal(const struct nft_keys *a, const struct nft_keys *b)
{
	return a->count == b->count && (!a->count || !memcmp(a->bytes, b->bytes, a->count * a->stride));
}

void nft_content_init(struct nft_content *content, const struct nft_def *def)
{
	content->set_count = def->set_count;
	for (unsigned i = 0; i < def->set_count; i++)
		content->sets[i] =
			(struct nft_keys){.size = def->sets[i].key_size, .stride = def->sets[i].key_size + def->sets[i].interval};
}

void nft_content_fini(struct nft_content *content)
{
	for (unsigned i = 0; i < content->set_count; i++)
		free(content->sets[i].bytes);
	*content = (struct nft_content){0};
}

static bool content_equal(const struct nft_content *a, const struct nft_content *b)
{
	for (unsigned i = 0; i < a->set_count; i++)
		if (!keys_equal(&a->sets[i], &b->sets[i]))
			return false;
	return true;
}

/* -- exchange: functions below return 0 or a negative errno; the public ones make the sentence -- */

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
static int closing_error(struct nft *nft, const struct nlmsghdr *nlh)
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

typedef int (*reply_fn)(const struct nlmsghdr *nlh, void *arg);

/* One question and all of its answers, up to DONE (dumps) or the acknowledgement. EINTR: the dump was overtaken by a commit. */
static int ask(struct nft *nft, struct nlmsghdr *request, reply_fn fn, void *arg)
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
				int error = closing_error(nft, nlh);

				return error ? error : result;
			}
			if (!result)
				result = fn(nlh, arg);
		}
	}
}

static struct nlmsghdr *question(struct nft *nft, void *buf, uint16_t type, uint16_t flags)
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

static int get_generation(struct nft *nft, uint32_t *ret_generation)
{
	char buf[256] __attribute__((aligned(NLMSG_ALIGNTO)));

	return ask(nft, question(nft, buf, NFT_MSG_GETGEN, 0), on_generation, ret_generation);
}

struct table_facts {
	uint64_t handle;
	uint32_t flags;
};

static int on_table(const struct nlmsghdr *nlh, void *arg)
{
	struct table_facts *facts = arg;
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

static int get_table(struct nft *nft, struct table_facts *facts)
{
	char buf[512] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *nlh = question(nft, buf, NFT_MSG_GETTABLE, 0);

	mnl_attr_put_strz(nlh, NFTA_TABLE_NAME, nft->table);
	return ask(nft, nlh, on_table, facts);
}

struct rule_list {
	const char *table;
	uint64_t handles[NFT_RULES_MAX];
	size_t count; /* may exceed NFT_RULES_MAX: strangers in our table */
};

static int on_rule(const struct nlmsghdr *nlh, void *arg)
{
	struct rule_list *list = arg;
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

static int get_rules(struct nft *nft, struct rule_list *list)
{
	char buf[512] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *nlh = question(nft, buf, NFT_MSG_GETRULE, NLM_F_DUMP);

	list->table = nft->table;
	mnl_attr_put_strz(nlh, NFTA_RULE_TABLE, nft->table);
	return ask(nft, nlh, on_rule, list);
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
	keys_add(keys, key, flags & NFT_SET_ELEM_INTERVAL_END);
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

static int get_content(struct nft *nft, struct nft_content *content)
{
	for (unsigned i = 0; i < nft->def->set_count; i++) {
		char buf[512] __attribute__((aligned(NLMSG_ALIGNTO)));
		struct nlmsghdr *nlh = question(nft, buf, NFT_MSG_GETSETELEM, NLM_F_DUMP);
		int error;

		mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_TABLE, nft->table);
		mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_SET, nft->def->sets[i].name);
		error = ask(nft, nlh, on_elements, &content->sets[i]);
		if (error < 0)
			return error;
		keys_sort(&content->sets[i]);
	}
	return 0;
}

/* -- batches -- */

struct nft_batch {
	struct nft *nft;
	char *buf;
	size_t len;
	size_t capacity;
	uint32_t first_seq;
	size_t count;
	struct nlmsghdr *last; /* dangles after the next message was begun */
	const char *what[MESSAGES_MAX];
};

static void *batch_room(struct nft_batch *batch, const char *what)
{
	if (batch->capacity - batch->len < MESSAGE_ROOM) {
		batch->capacity = batch->capacity * 2 + MESSAGE_ROOM;
		batch->buf = alloc_resize(batch->buf, char, batch->capacity);
	}
	if (batch->count == MESSAGES_MAX)
		abort();
	batch->what[batch->count++] = what;
	return batch->buf + batch->len;
}

static void batch_end_message(struct nft_batch *batch, struct nlmsghdr *nlh)
{
	batch->last = nlh;
	batch->len += MNL_ALIGN(nlh->nlmsg_len);
}

/* Generation 0: commit whatever others have done. */
static void batch_begin(struct nft_batch *batch, struct nft *nft, uint32_t generation)
{
	struct nlmsghdr *nlh;

	memset(batch, 0, sizeof(*batch));
	batch->nft = nft;
	batch->first_seq = nft->seq + 1;
	nlh = nftnl_batch_begin(batch_room(batch, "begin"), ++nft->seq);
	if (generation)
		mnl_attr_put_u32(nlh, NFNL_BATCH_GENID, htonl(generation));
	batch_end_message(batch, nlh);
}

static struct nlmsghdr *batch_message(struct nft_batch *batch, uint16_t type, uint16_t flags, const char *what)
{
	return nftnl_nlmsg_build_hdr(batch_room(batch, what), type, NFPROTO_INET, flags, ++batch->nft->seq);
}

static void batch_table(struct nft_batch *batch, uint16_t type, uint16_t flags)
{
	struct nlmsghdr *nlh = batch_message(batch, type, flags, "table");

	mnl_attr_put_strz(nlh, NFTA_TABLE_NAME, batch->nft->table);
	if (type == NFT_MSG_NEWTABLE)
		mnl_attr_put_u32(nlh, NFTA_TABLE_FLAGS, 0);
	batch_end_message(batch, nlh);
}

/* Makes one first, so that there is one to delete. */
static void batch_delete_table(struct nft_batch *batch)
{
	batch_table(batch, NFT_MSG_NEWTABLE, NLM_F_CREATE);
	batch_table(batch, NFT_MSG_DELTABLE, 0);
}

/* What `nft` leaves with a set declared as `typeof @th,96,24`. The kernel only stores it; without it `nft list` could not name
 * the key's type, and would print a ruleset that `nft -f` does not take back. */
static void describe_vni_key(struct nftnl_set *set)
{
	enum { BYTE_ORDER_BIG = 2, EXPR_PAYLOAD = 7, RAW_DESC = 0, RAW_TYPE = 2, DESC = 0, TYPE, BASE, OFFSET_BITS, LENGTH_BITS };
	struct nftnl_udata_buf *buf = alloc_made(nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN), "nft userdata");
	struct nftnl_udata *type, *payload;

	nftnl_udata_put_u32(buf, NFTNL_UDATA_SET_KEYBYTEORDER, BYTE_ORDER_BIG);
	type = nftnl_udata_nest_start(buf, NFTNL_UDATA_SET_KEY_TYPEOF);
	nftnl_udata_put_u32(buf, NFTNL_UDATA_SET_TYPEOF_EXPR, EXPR_PAYLOAD);
	payload = nftnl_udata_nest_start(buf, NFTNL_UDATA_SET_TYPEOF_DATA);
	nftnl_udata_put_u32(buf, DESC, RAW_DESC);
	nftnl_udata_put_u32(buf, TYPE, RAW_TYPE);
	nftnl_udata_put_u32(buf, BASE, 3); /* nft's own number of the transport header */
	nftnl_udata_put_u32(buf, OFFSET_BITS, NFT_VNI_OFFSET * 8);
	nftnl_udata_put_u32(buf, LENGTH_BITS, 3 * 8);
	nftnl_udata_nest_end(buf, payload);
	nftnl_udata_nest_end(buf, type);
	nftnl_set_set_data(set, NFTNL_SET_USERDATA, nftnl_udata_buf_data(buf), nftnl_udata_buf_len(buf));
	nftnl_udata_buf_free(buf);
}

static void describe_host_order(struct nftnl_set *set)
{
	enum { BYTE_ORDER_HOST = 1 };
	struct nftnl_udata_buf *buf = alloc_made(nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN), "nft userdata");

	nftnl_udata_put_u32(buf, NFTNL_UDATA_SET_KEYBYTEORDER, BYTE_ORDER_HOST);
	nftnl_set_set_data(set, NFTNL_SET_USERDATA, nftnl_udata_buf_data(buf), nftnl_udata_buf_len(buf));
	nftnl_udata_buf_free(buf);
}

static void batch_set(struct nft_batch *batch, unsigned index)
{
	const struct nft_set_def *def = &batch->nft->def->sets[index];
	struct nftnl_set *set = alloc_made(nftnl_set_alloc(), "nft set");
	struct nlmsghdr *nlh;

	nftnl_set_set_str(set, NFTNL_SET_TABLE, batch->nft->table);
	nftnl_set_set_str(set, NFTNL_SET_NAME, def->name);
	nftnl_set_set_u32(set, NFTNL_SET_ID, (uint32_t)index + 1);
	nftnl_set_set_u32(set, NFTNL_SET_KEY_TYPE, def->key_type);
	nftnl_set_set_u32(set, NFTNL_SET_KEY_LEN, def->key_size);
	if (def->interval)
		nftnl_set_set_u32(set, NFTNL_SET_FLAGS, NFT_SET_INTERVAL);
	if (def->vni)
		describe_vni_key(set);
	if (def->host_order)
		describe_host_order(set);
	nlh = batch_message(batch, NFT_MSG_NEWSET, NLM_F_CREATE, def->name);
	nftnl_set_nlmsg_build_payload(nlh, set);
	batch_end_message(batch, nlh);
	nftnl_set_free(set);
}

static void batch_flush_set(struct nft_batch *batch, unsigned index)
{
	struct nlmsghdr *nlh = batch_message(batch, NFT_MSG_DELSETELEM, 0, batch->nft->def->sets[index].name);

	mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_TABLE, batch->nft->table);
	mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_SET, batch->nft->def->sets[index].name);
	batch_end_message(batch, nlh);
}

/* Written with libmnl: an element is a key and nothing else, and libnftnl would allocate an object for each. */
static void batch_elements(struct nft_batch *batch, unsigned index, const struct nft_keys *keys)
{
	for (size_t at = 0; at < keys->count; at += ELEMENTS_PER_MESSAGE) {
		size_t end = at + ELEMENTS_PER_MESSAGE < keys->count ? at + ELEMENTS_PER_MESSAGE : keys->count;
		struct nlmsghdr *nlh = batch_message(batch, NFT_MSG_NEWSETELEM, NLM_F_CREATE, batch->nft->def->sets[index].name);
		struct nlattr *list;

		mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_TABLE, batch->nft->table);
		mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_SET, batch->nft->def->sets[index].name);
		mnl_attr_put_u32(nlh, NFTA_SET_ELEM_LIST_SET_ID, htonl((uint32_t)index + 1));
		list = mnl_attr_nest_start(nlh, NFTA_SET_ELEM_LIST_ELEMENTS);
		for (size_t i = at; i < end; i++) {
			const uint8_t *entry = keys->bytes + i * keys->stride;
			struct nlattr *element = mnl_attr_nest_start(nlh, NFTA_LIST_ELEM);
			struct nlattr *key = mnl_attr_nest_start(nlh, NFTA_SET_ELEM_KEY);

			mnl_attr_put(nlh, NFTA_DATA_VALUE, keys->size, entry);
			mnl_attr_nest_end(nlh, key);
			if (keys->stride > keys->size && entry[keys->size])
				mnl_attr_put_u32(nlh, NFTA_SET_ELEM_FLAGS, htonl(NFT_SET_ELEM_INTERVAL_END));
			mnl_attr_nest_end(nlh, element);
		}
		mnl_attr_nest_end(nlh, list);
		batch_end_message(batch, nlh);
	}
}

static void batch_counter(struct nft_batch *batch, const char *name)
{
	struct nftnl_obj *obj = alloc_made(nftnl_obj_alloc(), "nft object");
	struct nlmsghdr *nlh;

	nftnl_obj_set_str(obj, NFTNL_OBJ_TABLE, batch->nft->table);
	nftnl_obj_set_str(obj, NFTNL_OBJ_NAME, name);
	nftnl_obj_set_u32(obj, NFTNL_OBJ_TYPE, NFT_OBJECT_COUNTER);
	nftnl_obj_set_u64(obj, NFTNL_OBJ_CTR_PKTS, 0);
	nftnl_obj_set_u64(obj, NFTNL_OBJ_CTR_BYTES, 0);
	nlh = batch_message(batch, NFT_MSG_NEWOBJ, NLM_F_CREATE, name);
	nftnl_obj_nlmsg_build_payload(nlh, obj);
	batch_end_message(batch, nlh);
	nftnl_obj_free(obj);
}

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
	nlh = batch_message(batch, NFT_MSG_NEWCHAIN, NLM_F_CREATE, name);
	nftnl_chain_nlmsg_build_payload(nlh, chain);
	batch_end_message(batch, nlh);
	nftnl_chain_free(chain);
}

/* -- rules -- */

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
	struct nlmsghdr *nlh = batch_message(batch, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND | NLM_F_ECHO, what);

	nftnl_rule_nlmsg_build_payload(nlh, rule);
	batch_end_message(batch, nlh);
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

static void batch_build(struct nft_batch *batch)
{
	const struct nft_def *def = batch->nft->def;

	batch_delete_table(batch);
	batch_table(batch, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ECHO);
	for (unsigned i = 0; i < def->set_count; i++)
		batch_set(batch, i);
	for (unsigned i = 0; i < def->counter_count; i++)
		batch_counter(batch, def->counters[i]);
	def->build(batch, batch->nft->arg);
}

/* -- commit -- */

struct verdict {
	int error;	  /* the first one */
	const char *what; /* the message it belongs to, or NULL */
	bool acknowledged;
	struct table_facts table; /* echoed */
	struct rule_list rules;
};

static void read_verdict(struct nft_batch *batch, const struct nlmsghdr *nlh, uint32_t last_seq, struct verdict *verdict)
{
	uint32_t index = nlh->nlmsg_seq - batch->first_seq;
	int error;

	if (index >= batch->count)
		return;
	if (nlh->nlmsg_type == (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWTABLE))
		on_table(nlh, &verdict->table);
	if (nlh->nlmsg_type == (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWRULE))
		on_rule(nlh, &verdict->rules);
	if (nlh->nlmsg_type != NLMSG_ERROR)
		return;
	if (verdict->error)
		return; /* what follows the first error follows from it */
	error = closing_error(batch->nft, nlh);
	if (error) {
		verdict->error = error;
		verdict->what = batch->what[index];
	} else if (nlh->nlmsg_seq == last_seq) {
		verdict->acknowledged = true;
	}
}

/* nfnetlink works inside sendmsg: when it returns, every answer is in our queue already. */
static void collect_verdict(struct nft_batch *batch, uint32_t last_seq, struct verdict *verdict)
{
	char buf[32768] __attribute__((aligned(NLMSG_ALIGNTO)));
	ssize_t got;

	while ((got = recv(mnl_socket_get_fd(batch->nft->socket), buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
		const struct nlmsghdr *nlh = (const struct nlmsghdr *)buf;

		for (int left = (int)got; mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left))
			read_verdict(batch, nlh, last_seq, verdict);
	}
}

static int send_batch(struct nft_batch *batch)
{
	struct nft *nft = batch->nft;
	int error = 0;

	batch->last->nlmsg_flags |= NLM_F_ACK;
	batch_end_message(batch, nftnl_batch_end(batch_room(batch, "commit"), ++nft->seq));
	nft->extack[0] = '\0';
	if (mnl_socket_sendto(nft->socket, batch->buf, batch->len) < 0)
		error = -errno;
	free(batch->buf);
	batch->buf = NULL;
	return error;
}

/* Sends the batch and frees it. `before` is a generation from before it. ERESTART: others committed since the one it was begun
 * with. */
static int batch_commit(struct nft_batch *batch, uint32_t before, struct verdict *verdict)
{
	uint32_t now = before, last_seq = batch->nft->seq;
	int error = send_batch(batch);

	memset(verdict, 0, sizeof(*verdict));
	verdict->rules.table = batch->nft->table;
	if (error)
		return error;
	collect_verdict(batch, last_seq, verdict);
	if (verdict->error)
		return verdict->error;
	error = get_generation(batch->nft, &now);
	if (error)
		return error;
	return verdict->acknowledged && now != before ? 0 : -EUCLEAN;
}

/* The kernel counts commits up by one and leaves out 0. */
static uint32_t generation_after(uint32_t generation)
{
	return generation + 1 ? generation + 1 : 1;
}

/* -- compare -- */

/* 1: the table is the one that we built, untouched but for its sets. 0: it is not. */
static int structure_intact(struct nft *nft, bool polite)
{
	struct table_facts facts = {0};
	struct rule_list rules = {0};
	int error;

	if (!nft->built)
		return 0;
	error = get_table(nft, &facts);
	if (error == -ENOENT)
		return 0;
	if (error)
		return error;
	if (facts.handle != nft->table_handle || facts.flags) /* a flag: dormant */
		return 0;
	if (!polite) /* any dump would be overtaken */
		return 1;
	error = get_rules(nft, &rules);
	if (error)
		return error;
	return rules.count == nft->rule_count && !memcmp(rules.handles, nft->rule_handles, rules.count * sizeof(uint64_t));
}

/* From what was echoed. A kernel that echoes nothing leaves it unbuilt, and has it built again with each change. */
static void remember_handles(struct nft *nft, const struct verdict *verdict)
{
	nft->built = verdict->table.handle && verdict->rules.count && verdict->rules.count <= NFT_RULES_MAX;
	nft->table_handle = verdict->table.handle;
	nft->rule_count = verdict->rules.count;
	memcpy(nft->rule_handles, verdict->rules.handles, sizeof(nft->rule_handles));
}

/* What the kernel holds, as far as it has to be known. */
struct view {
	uint32_t generation;
	bool intact;			 /* the structure is; else all of it is built again */
	const struct nft_content *known; /* what the sets hold; NULL: not known */
	struct nft_content looked;
};

static int look_at_sets(struct nft *nft, struct view *view)
{
	uint32_t now = 0;
	int error = get_content(nft, &view->looked);

	if (!error)
		error = get_generation(nft, &now);
	if (error == -ENOENT) { /* a set is gone, or all of it since we looked */
		view->intact = false;
		return 0;
	}
	if (error)
		return error;
	if (now != view->generation)
		return -EINTR;
	view->known = &view->looked;
	return 0;
}

static int look(struct nft *nft, bool polite, struct view *view)
{
	int intact, error = get_generation(nft, &view->generation);

	if (error)
		return error;
	if (nft->built && nft->generation == view->generation) { /* nobody committed since */
		view->intact = true;
		view->known = &nft->applied;
		return 0;
	}
	intact = structure_intact(nft, polite);
	if (intact < 0)
		return intact;
	view->intact = intact;
	return intact && polite ? look_at_sets(nft, view) : 0;
}

/* The sets that differ, or all of them when it is not known what they hold. */
static int write_difference(
	struct nft *nft, bool polite, const struct view *view, const struct nft_content *wanted, struct verdict *verdict)
{
	struct nft_batch batch;

	batch_begin(&batch, nft, polite ? view->generation : 0);
	if (!view->intact)
		batch_build(&batch);
	for (unsigned i = 0; i < nft->def->set_count; i++) {
		if (view->intact && view->known && polite && keys_equal(&view->known->sets[i], &wanted->sets[i]))
			continue;
		if (view->intact)
			batch_flush_set(&batch, i);
		batch_elements(&batch, i, &wanted->sets[i]);
	}
	return batch_commit(&batch, view->generation, verdict);
}

static void remember(struct nft *nft, struct nft_content *wanted, uint32_t generation)
{
	nft_content_fini(&nft->applied);
	nft->applied = *wanted;
	*wanted = (struct nft_content){0};
	nft->generation = generation;
}

/* One round; EINTR and ERESTART mean that others committed while we worked. */
static int apply_once(struct nft *nft, bool polite, struct nft_content *wanted, bool *ret_wrote, const char **ret_what)
{
	struct view view = {0};
	struct verdict verdict = {0};
	int error;

	nft_content_init(&view.looked, nft->def);
	error = look(nft, polite, &view);
	if (!error && view.intact && view.known && content_equal(view.known, wanted)) {
		remember(nft, wanted, view.generation);
	} else if (!error) {
		error = write_difference(nft, polite, &view, wanted, &verdict);
		*ret_what = verdict.what;
		*ret_wrote = true;
		if (!error && !view.intact)
			remember_handles(nft, &verdict);
		if (!error)
			remember(nft, wanted, polite ? generation_after(view.generation) : 0);
	}
	nft_content_fini(&view.looked);
	return error == -ENOENT && !polite ? -ERESTART : error; /* deleted since we looked */
}

static int fail(struct nft *nft, int error, const char *verb, const char *what, struct err *err)
{
	if (error == -ERESTART || error == -EINTR)
		return err_set(err, ERR_CONFLICT,
			"nft table inet %s: others changed nft tables %d times while it was %s; try again", nft->table,
			ATTEMPTS_MAX, verb);
	if (error == -EUCLEAN)
		return err_set(err, ERR_SYSTEM,
			"nft table inet %s was not %s: the kernel neither acknowledged nor refused the transaction", nft->table,
			verb);
	return err_sys(err, -error, "nft table inet %s could not be %s%s%s%s%s", nft->table, verb, what ? ": " : "",
		what ? what : "", nft->extack[0] ? ": " : "", nft->extack);
}

/* -- public -- */

static int open_socket(struct nft *nft)
{
	static const struct timeval timeout = {.tv_sec = REPLY_TIMEOUT_MS / 1000, .tv_usec = REPLY_TIMEOUT_MS % 1000 * 1000};
	int one = 1, size = SEND_BUFFER, fd;

	nft->socket = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
	if (!nft->socket || mnl_socket_bind(nft->socket, 0, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	fd = mnl_socket_get_fd(nft->socket);
	mnl_socket_setsockopt(nft->socket, NETLINK_EXT_ACK, &one, sizeof(one));
	mnl_socket_setsockopt(nft->socket, NETLINK_CAP_ACK, &one, sizeof(one));
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0 ||
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0)
		return -errno;
	return 0;
}

static int open_notices(struct nft *nft)
{
	int size = NOTICE_BUFFER;

	nft->notices = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!nft->notices || mnl_socket_bind(nft->notices, 1u << (NFNLGRP_NFTABLES - 1), MNL_SOCKET_AUTOPID) < 0 ||
		setsockopt(mnl_socket_get_fd(nft->notices), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
		return -errno;
	return 0;
}

int nft_open(const char *table, const struct nft_def *def, const void *arg, struct nft **ret_nft, struct err *err)
{
	struct nft *nft;
	int error;

	if (!*table || strlen(table) > TABLE_NAME_MAX)
		return err_set(err, ERR_INVALID, "nft table name \"%s\": expected 1 to %d characters", table, TABLE_NAME_MAX);
	nft = alloc_new(struct nft);
	memcpy(nft->table, table, strlen(table) + 1);
	nft->def = def;
	nft->arg = arg;
	nft_content_init(&nft->applied, def);
	error = open_socket(nft);
	if (!error)
		error = open_notices(nft);
	if (error) {
		nft_close(nft);
		return err_sys(err, -error, "nft table inet %s: netfilter socket (CAP_NET_ADMIN is needed)", table);
	}
	*ret_nft = nft;
	return 0;
}

void nft_close(struct nft *nft)
{
	if (!nft)
		return;
	if (nft->socket)
		mnl_socket_close(nft->socket);
	if (nft->notices)
		mnl_socket_close(nft->notices);
	nft_content_fini(&nft->applied);
	free(nft);
}

int nft_apply(struct nft *nft, struct nft_content *wanted, bool *ret_wrote, struct err *err)
{
	const char *what = NULL;
	bool wrote = false;
	int error = -ERESTART;

	for (unsigned i = 0; i < wanted->set_count; i++)
		keys_sort(&wanted->sets[i]);
	for (int i = 0; i < ATTEMPTS_MAX && (error == -ERESTART || error == -EINTR); i++)
		error = apply_once(nft, i < ATTEMPTS_POLITE, wanted, &wrote, &what);
	nft_content_fini(wanted);
	if (ret_wrote)
		*ret_wrote = wrote;
	return error ? fail(nft, error, "applied", what, err) : 0;
}

static int on_counter(const struct nlmsghdr *nlh, void *arg)
{
	struct nftnl_obj *obj = nftnl_obj_alloc();
	int result = -EBADMSG;

	if (obj && nftnl_obj_nlmsg_parse(nlh, obj) == 0 && nftnl_obj_is_set(obj, NFTNL_OBJ_CTR_PKTS)) {
		*(uint64_t *)arg = nftnl_obj_get_u64(obj, NFTNL_OBJ_CTR_PKTS);
		result = 0;
	}
	nftnl_obj_free(obj);
	return result;
}

int nft_counter(struct nft *nft, const char *name, uint64_t *ret_packets, struct err *err)
{
	char buf[512] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *nlh = question(nft, buf, NFT_MSG_GETOBJ, 0);
	uint64_t packets = 0;
	int error;

	mnl_attr_put_strz(nlh, NFTA_OBJ_TABLE, nft->table);
	mnl_attr_put_strz(nlh, NFTA_OBJ_NAME, name);
	mnl_attr_put_u32(nlh, NFTA_OBJ_TYPE, htonl(NFT_OBJECT_COUNTER));
	error = ask(nft, nlh, on_counter, &packets);
	if (error == -ENOENT)
		return err_set(err, ERR_NOT_FOUND,
			"nft table inet %s: not there, so it counts nothing; it is built with the first network", nft->table);
	if (error)
		return fail(nft, error, "read", NULL, err);
	*ret_packets = packets;
	return 0;
}

int nft_purge(struct nft *nft, struct err *err)
{
	struct verdict verdict = {0};
	struct nft_batch batch;
	uint32_t before = 0;
	int error = get_generation(nft, &before);

	nft->built = false;
	if (!error) {
		batch_begin(&batch, nft, 0);
		batch_delete_table(&batch);
		error = batch_commit(&batch, before, &verdict);
	}
	return error ? fail(nft, error, "deleted", verdict.what, err) : 0;
}

/* -- chains of others -- */

struct drop_search {
	char *buf;
	size_t size;
};

static const char *family_name(uint8_t family)
{
	return family == NFPROTO_IPV4 ? "ip" : family == NFPROTO_IPV6 ? "ip6" : family == NFPROTO_INET ? "inet" : NULL;
}

static int on_chain(const struct nlmsghdr *nlh, void *arg)
{
	struct drop_search *search = arg;
	struct nftnl_chain *chain = nftnl_chain_alloc();
	int result = -EBADMSG;

	if (chain && nftnl_chain_nlmsg_parse(nlh, chain) == 0) {
		const char *family = family_name((uint8_t)nftnl_chain_get_u32(chain, NFTNL_CHAIN_FAMILY));

		result = 0;
		if (!*search->buf && family && nftnl_chain_is_set(chain, NFTNL_CHAIN_HOOKNUM) &&
			nftnl_chain_get_u32(chain, NFTNL_CHAIN_HOOKNUM) == NF_INET_FORWARD &&
			nftnl_chain_get_u32(chain, NFTNL_CHAIN_POLICY) == NF_DROP)
			snprintf(search->buf, search->size, "chain %s of table %s %s",
				nftnl_chain_get_str(chain, NFTNL_CHAIN_NAME), family,
				nftnl_chain_get_str(chain, NFTNL_CHAIN_TABLE));
	}
	nftnl_chain_free(chain);
	return result;
}

int nft_find_forward_drop(struct nft *nft, char *buf, size_t size, struct err *err)
{
	char request[256] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct drop_search search = {.buf = buf, .size = size};
	int error = -EINTR;

	for (int i = 0; i < ATTEMPTS_POLITE && error == -EINTR; i++) {
		struct nlmsghdr *nlh = nftnl_nlmsg_build_hdr(request, NFT_MSG_GETCHAIN, NFPROTO_UNSPEC, NLM_F_DUMP, ++nft->seq);

		*buf = '\0';
		error = ask(nft, nlh, on_chain, &search);
	}
	/* Others that do not stop to commit keep this from being known; that is no failure of ours. */
	return error && error != -EINTR ? fail(nft, error, "looked around from", NULL, err) : 0;
}

/* -- notices -- */

int nft_fd(const struct nft *nft)
{
	return mnl_socket_get_fd(nft->notices);
}

_Static_assert(NFTA_TABLE_NAME == 1 && NFTA_CHAIN_TABLE == 1 && NFTA_RULE_TABLE == 1 && NFTA_SET_TABLE == 1 &&
		       NFTA_SET_ELEM_LIST_TABLE == 1 && NFTA_OBJ_TABLE == 1,
	"whatever a notice is about, its first attribute names the table");

static bool names_us(const struct nft *nft, const struct nlmsghdr *nlh)
{
	const struct nlattr *attr;

	if (nlh->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES || mnl_nlmsg_get_payload_len(nlh) < sizeof(struct nfgenmsg))
		return false;
	mnl_attr_for_each(attr, nlh, sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(attr) == NFTA_TABLE_NAME && (nlh->nlmsg_type & 0xff) != NFT_MSG_NEWGEN)
			return !mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) && !strcmp(mnl_attr_get_str(attr), nft->table);
	}
	return false;
}

bool nft_drain(struct nft *nft)
{
	char buf[32768] __attribute__((aligned(NLMSG_ALIGNTO)));
	bool ours = false;
	uint32_t now = 0;
	ssize_t got;

	while ((got = recv(nft_fd(nft), buf, sizeof(buf), MSG_DONTWAIT)) > 0 || errno == ENOBUFS) {
		const struct nlmsghdr *nlh = (const struct nlmsghdr *)buf;

		if (got < 0) {
			ours = true; /* word was lost; what follows in the queue is read all the same */
			errno = 0;
			continue;
		}
		for (int left = (int)got; mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left))
			ours |= names_us(nft, nlh);
	}
	return ours && (!nft->built || get_generation(nft, &now) != 0 || now != nft->generation);
}

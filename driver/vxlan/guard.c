/* Members only: see guard.h for what the table does. This file says it to the kernel: nfnetlink batches over libmnl,
 * objects encoded by libnftnl. The vxlan driver is its only user.
 *
 * What the kernel does and what follows from it:
 * - A batch is one transaction, and it names the generation that it was computed from (NFNL_BATCH_GENID): if anyone has
 *   committed in between, the kernel answers ERESTART and we look again. So comparing first and writing after has no
 *   window. Where someone commits without a pause that race could be lost for ever, so after a few rounds all is written
 *   unconditionally, and looked at again the next time.
 * - NLM_F_ECHO gives back what was made with its handles, in the same transaction: a table or rule of another handle is
 *   not ours.
 * - The generation counts every commit of the namespace. As long as it is the one that our last look or commit ended
 *   with, nothing can have changed, and guard_apply costs one question.
 * - An acknowledgement of BATCH_BEGIN proves nothing, one of BATCH_END is not given by older kernels, and a message
 *   whose attribute length wrapped around is dropped without an error. Success is therefore: no error, the last real
 *   message acknowledged, and the generation moved.
 * - nla_len has 16 bits: about 4,000 IPv4 or 2,300 IPv6 elements are the most a message can carry. We send 1,000.
 * - Forwarded fragments: the VNI lies behind the first eight bytes, so a first fragment of eight bytes would pass the
 *   forward chain. It cannot be masqueraded in that shape: address translation needs conntrack, which reassembles at
 *   -400, before our chains. */
#include "driver/vxlan/guard.h"

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

#define TABLE_NAME_MAX 31
#define RULES_MAX 16
#define ATTEMPTS_POLITE 4 /* rounds lost to others, before one is written unconditionally */
#define ATTEMPTS_MAX 16	  /* before it is an error */
#define VNI_OFFSET 12	  /* from the UDP header: its 8 bytes, flags, 24 reserved bits (RFC 7348 section 5) */
#define ELEMENTS_PER_MESSAGE 1000
#define MESSAGE_ROOM 65536    /* kept free in front of each message: more than the largest one we build */
#define MESSAGES_MAX 512      /* of a batch; the limits in guard.h need at most 100 */
#define REPLY_TIMEOUT_MS 3000 /* the kernel answers within sendmsg; only a bug gets here */
#define SEND_BUFFER (8 << 20) /* a batch must fit in one datagram */

enum set_index { SET_VNIS, SET_MEM4, SET_MEM6, SET_MAX };

static const struct set_def {
	const char *name;
	uint32_t key_type; /* nft's numbers: 4 integer, 7 IPv4, 8 IPv6; the kernel keeps them for `nft list` alone */
	uint32_t key_size;
} set_defs[] = {
	[SET_VNIS] = {"vnis", 4, 3},
	[SET_MEM4] = {"mem4", 7, 4},
	[SET_MEM6] = {"mem6", 8, 16},
};
_Static_assert(sizeof(set_defs) / sizeof(set_defs[0]) == SET_MAX, "one definition per set");

/* A set's content: sorted, each key once, so that equality is memcmp. */
struct keys {
	uint8_t *bytes;
	size_t size; /* of one key */
	size_t count;
	size_t capacity;
};

struct content {
	struct keys sets[SET_MAX];
};

struct guard {
	struct mnl_socket *socket;
	uint32_t seq;
	uint16_t port;
	char table[TABLE_NAME_MAX + 1];
	char extack[200]; /* the kernel's own words on the last refusal, or "" */

	bool built; /* the table is of this guard; its handles are known */
	uint64_t table_handle;
	uint64_t rule_handles[RULES_MAX];
	size_t rule_count;

	uint32_t generation; /* at which the kernel held `applied`; 0, which the kernel leaves out: not known */
	struct content applied;
};

/* -- keys -- */

static void *allocate(void *old, size_t size)
{
	void *p = realloc(old, size ? size : 1);

	if (!p)
		abort();
	return p;
}

static void keys_add(struct keys *keys, const void *key)
{
	if (keys->count == keys->capacity) {
		keys->capacity = keys->capacity ? keys->capacity * 2 : 16;
		keys->bytes = allocate(keys->bytes, keys->capacity * keys->size);
	}
	memcpy(keys->bytes + keys->count++ * keys->size, key, keys->size);
}

static int key_compare(const void *a, const void *b, void *size)
{
	return memcmp(a, b, *(size_t *)size);
}

static void keys_sort(struct keys *keys)
{
	size_t kept = 0;

	if (!keys->count)
		return;
	qsort_r(keys->bytes, keys->count, keys->size, key_compare, &keys->size);
	for (size_t i = 1; i < keys->count; i++) {
		const uint8_t *key = keys->bytes + i * keys->size;

		if (memcmp(keys->bytes + kept * keys->size, key, keys->size))
			memmove(keys->bytes + ++kept * keys->size, key, keys->size);
	}
	keys->count = kept + 1;
}

static bool keys_equal(const struct keys *a, const struct keys *b)
{
	return a->count == b->count && (!a->count || !memcmp(a->bytes, b->bytes, a->count * a->size));
}

static void content_init(struct content *content)
{
	for (int i = 0; i < SET_MAX; i++)
		content->sets[i] = (struct keys){.size = set_defs[i].key_size};
}

static void content_fini(struct content *content)
{
	for (int i = 0; i < SET_MAX; i++)
		free(content->sets[i].bytes);
	content_init(content);
}

static bool content_equal(const struct content *a, const struct content *b)
{
	for (int i = 0; i < SET_MAX; i++) {
		if (!keys_equal(&a->sets[i], &b->sets[i]))
			return false;
	}
	return true;
}

static int content_add_vni(struct content *content, uint32_t vni, struct err *err)
{
	uint32_t key = htonl(vni << 8);

	if (vni > 0xffffff)
		return err_set(err, ERR_INVALID, "VNI %u: expected at most 16777215 (24 bits)", vni);
	keys_add(&content->sets[SET_VNIS], &key);
	return 0;
}

static int content_add_member(struct content *content, const struct ip *member, struct err *err)
{
	if (member->family != 4 && member->family != 6)
		return err_set(err, ERR_INVALID, "member address: expected family 4 or 6, found %u", member->family);
	keys_add(&content->sets[member->family == 4 ? SET_MEM4 : SET_MEM6], member->bytes);
	return 0;
}

/* Fills an initialised content; the caller frees it also on failure. */
static int content_make(struct content *content, const uint32_t *vnis, size_t vni_count, const struct ip *members,
	size_t member_count, struct err *err)
{
	if (vni_count > GUARD_VNIS_MAX)
		return err_set(err, ERR_TOO_BIG, "%zu VNIs: the filter holds at most %d", vni_count, GUARD_VNIS_MAX);
	if (member_count > GUARD_MEMBERS_MAX)
		return err_set(err, ERR_TOO_BIG, "%zu members: the filter holds at most %d", member_count, GUARD_MEMBERS_MAX);
	for (size_t i = 0; i < vni_count; i++) {
		if (content_add_vni(content, vnis[i], err) < 0)
			return -1;
	}
	for (size_t i = 0; i < member_count; i++) {
		if (content_add_member(content, &members[i], err) < 0)
			return -1;
	}
	for (int i = 0; i < SET_MAX; i++)
		keys_sort(&content->sets[i]);
	return 0;
}

/* -- exchange: functions below return 0 or a negative errno; the public ones make the sentence -- */

static void note_extack(struct guard *guard, const struct nlmsghdr *nlh)
{
	const struct nlmsgerr *error = mnl_nlmsg_get_payload(nlh);
	size_t offset = sizeof(*error);
	const struct nlattr *attr;

	guard->extack[0] = '\0';
	if (!(nlh->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	if (!(nlh->nlmsg_flags & NLM_F_CAPPED))
		offset += error->msg.nlmsg_len - sizeof(error->msg);
	if (mnl_nlmsg_get_payload_len(nlh) < offset)
		return;
	mnl_attr_for_each(attr, nlh, offset)
	{
		if (mnl_attr_get_type(attr) == NLMSGERR_ATTR_MSG && !mnl_attr_validate(attr, MNL_TYPE_NUL_STRING))
			snprintf(guard->extack, sizeof(guard->extack), "%s", mnl_attr_get_str(attr));
	}
}

/* The error of a DONE or ERROR message. */
static int closing_error(struct guard *guard, const struct nlmsghdr *nlh)
{
	int error;

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(error))
		return nlh->nlmsg_type == NLMSG_DONE ? 0 : -EBADMSG;
	memcpy(&error, mnl_nlmsg_get_payload(nlh), sizeof(error));
	if (nlh->nlmsg_type == NLMSG_ERROR && mnl_nlmsg_get_payload_len(nlh) < sizeof(struct nlmsgerr))
		return -EBADMSG;
	if (error && nlh->nlmsg_type == NLMSG_ERROR)
		note_extack(guard, nlh);
	return error;
}

typedef int (*reply_fn)(const struct nlmsghdr *nlh, void *arg);

/* One question and all of its answers, up to DONE (dumps) or the acknowledgement. EINTR: the dump was overtaken by a commit. */
static int ask(struct guard *guard, struct nlmsghdr *request, reply_fn fn, void *arg)
{
	char buf[32768] __attribute__((aligned(NLMSG_ALIGNTO)));
	int result = 0;

	if (mnl_socket_sendto(guard->socket, request, request->nlmsg_len) < 0)
		return -errno;
	for (;;) {
		ssize_t got = mnl_socket_recvfrom(guard->socket, buf, sizeof(buf));
		const struct nlmsghdr *nlh = (const struct nlmsghdr *)buf;

		if (got < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		for (int left = (int)got; mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left)) {
			if (nlh->nlmsg_seq != request->nlmsg_seq)
				continue; /* a late answer to a question that we gave up on */
			if (nlh->nlmsg_flags & NLM_F_DUMP_INTR)
				result = -EINTR;
			if (nlh->nlmsg_type == NLMSG_DONE || nlh->nlmsg_type == NLMSG_ERROR) {
				int error = closing_error(guard, nlh);

				return error ? error : result;
			}
			if (!result)
				result = fn(nlh, arg);
		}
	}
}

static struct nlmsghdr *question(struct guard *guard, void *buf, uint16_t type, uint16_t flags)
{
	return nftnl_nlmsg_build_hdr(buf, type, NFPROTO_INET, flags ? flags : NLM_F_ACK, ++guard->seq);
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

static int get_generation(struct guard *guard, uint32_t *ret_generation)
{
	char buf[256] __attribute__((aligned(NLMSG_ALIGNTO)));

	return ask(guard, question(guard, buf, NFT_MSG_GETGEN, 0), on_generation, ret_generation);
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

static int get_table(struct guard *guard, struct table_facts *facts)
{
	char buf[512] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *nlh = question(guard, buf, NFT_MSG_GETTABLE, 0);

	mnl_attr_put_strz(nlh, NFTA_TABLE_NAME, guard->table);
	return ask(guard, nlh, on_table, facts);
}

struct rule_list {
	const char *table;
	uint64_t handles[RULES_MAX];
	size_t count; /* may exceed RULES_MAX: strangers in our table */
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
			if (list->count < RULES_MAX)
				list->handles[list->count] = nftnl_rule_get_u64(rule, NFTNL_RULE_HANDLE);
			list->count++;
		}
	}
	nftnl_rule_free(rule);
	return result;
}

static int get_rules(struct guard *guard, struct rule_list *list)
{
	char buf[512] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *nlh = question(guard, buf, NFT_MSG_GETRULE, NLM_F_DUMP);

	list->table = guard->table;
	mnl_attr_put_strz(nlh, NFTA_RULE_TABLE, guard->table);
	return ask(guard, nlh, on_rule, list);
}

static int on_element(struct nftnl_set_elem *element, void *arg)
{
	struct keys *keys = arg;
	uint32_t size = 0;
	const void *key = nftnl_set_elem_get(element, NFTNL_SET_ELEM_KEY, &size);

	if (!key || size != keys->size)
		return -1;
	keys_add(keys, key);
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

static int get_content(struct guard *guard, struct content *content)
{
	for (int i = 0; i < SET_MAX; i++) {
		char buf[512] __attribute__((aligned(NLMSG_ALIGNTO)));
		struct nlmsghdr *nlh = question(guard, buf, NFT_MSG_GETSETELEM, NLM_F_DUMP);
		int error;

		mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_TABLE, guard->table);
		mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_SET, set_defs[i].name);
		error = ask(guard, nlh, on_elements, &content->sets[i]);
		if (error < 0)
			return error;
		keys_sort(&content->sets[i]);
	}
	return 0;
}

/* -- batches -- */

struct batch {
	struct guard *guard;
	char *buf;
	size_t len;
	size_t capacity;
	uint32_t first_seq;
	size_t count;
	struct nlmsghdr *last; /* dangles after the next message was begun */
	const char *what[MESSAGES_MAX];
};

static void *batch_room(struct batch *batch, const char *what)
{
	if (batch->capacity - batch->len < MESSAGE_ROOM) {
		batch->capacity = batch->capacity * 2 + MESSAGE_ROOM;
		batch->buf = allocate(batch->buf, batch->capacity);
	}
	if (batch->count == MESSAGES_MAX)
		abort();
	batch->what[batch->count++] = what;
	return batch->buf + batch->len;
}

static void batch_end_message(struct batch *batch, struct nlmsghdr *nlh)
{
	batch->last = nlh;
	batch->len += MNL_ALIGN(nlh->nlmsg_len);
}

/* Generation 0: commit whatever others have done. */
static void batch_begin(struct batch *batch, struct guard *guard, uint32_t generation)
{
	struct nlmsghdr *nlh;

	memset(batch, 0, sizeof(*batch));
	batch->guard = guard;
	batch->first_seq = guard->seq + 1;
	nlh = nftnl_batch_begin(batch_room(batch, "begin"), ++guard->seq);
	if (generation)
		mnl_attr_put_u32(nlh, NFNL_BATCH_GENID, htonl(generation));
	batch_end_message(batch, nlh);
}

static struct nlmsghdr *batch_message(struct batch *batch, uint16_t type, uint16_t flags, const char *what)
{
	return nftnl_nlmsg_build_hdr(batch_room(batch, what), type, NFPROTO_INET, flags, ++batch->guard->seq);
}

static void batch_table(struct batch *batch, uint16_t type, uint16_t flags)
{
	struct nlmsghdr *nlh = batch_message(batch, type, flags, "table");

	mnl_attr_put_strz(nlh, NFTA_TABLE_NAME, batch->guard->table);
	if (type == NFT_MSG_NEWTABLE)
		mnl_attr_put_u32(nlh, NFTA_TABLE_FLAGS, 0);
	batch_end_message(batch, nlh);
}

/* Makes one first, so that there is one to delete. */
static void batch_delete_table(struct batch *batch)
{
	batch_table(batch, NFT_MSG_NEWTABLE, NLM_F_CREATE);
	batch_table(batch, NFT_MSG_DELTABLE, 0);
}

/* What `nft` leaves with a set declared as `typeof @th,96,24`. The kernel only stores it; without it `nft list` could not name
 * the key's type, and would print a ruleset that `nft -f` does not take back. */
static void describe_vni_key(struct nftnl_set *set)
{
	enum { BYTE_ORDER_BIG = 2, EXPR_PAYLOAD = 7, RAW_DESC = 0, RAW_TYPE = 2, DESC = 0, TYPE, BASE, OFFSET_BITS, LENGTH_BITS };
	struct nftnl_udata_buf *buf = nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);
	struct nftnl_udata *type, *payload;

	if (!buf)
		abort();
	nftnl_udata_put_u32(buf, NFTNL_UDATA_SET_KEYBYTEORDER, BYTE_ORDER_BIG);
	type = nftnl_udata_nest_start(buf, NFTNL_UDATA_SET_KEY_TYPEOF);
	nftnl_udata_put_u32(buf, NFTNL_UDATA_SET_TYPEOF_EXPR, EXPR_PAYLOAD);
	payload = nftnl_udata_nest_start(buf, NFTNL_UDATA_SET_TYPEOF_DATA);
	nftnl_udata_put_u32(buf, DESC, RAW_DESC);
	nftnl_udata_put_u32(buf, TYPE, RAW_TYPE);
	nftnl_udata_put_u32(buf, BASE, 3); /* nft's own number of the transport header */
	nftnl_udata_put_u32(buf, OFFSET_BITS, VNI_OFFSET * 8);
	nftnl_udata_put_u32(buf, LENGTH_BITS, set_defs[SET_VNIS].key_size * 8);
	nftnl_udata_nest_end(buf, payload);
	nftnl_udata_nest_end(buf, type);
	nftnl_set_set_data(set, NFTNL_SET_USERDATA, nftnl_udata_buf_data(buf), nftnl_udata_buf_len(buf));
	nftnl_udata_buf_free(buf);
}

static void batch_set(struct batch *batch, enum set_index index)
{
	const struct set_def *def = &set_defs[index];
	struct nftnl_set *set = nftnl_set_alloc();
	struct nlmsghdr *nlh;

	if (!set)
		abort();
	nftnl_set_set_str(set, NFTNL_SET_TABLE, batch->guard->table);
	nftnl_set_set_str(set, NFTNL_SET_NAME, def->name);
	nftnl_set_set_u32(set, NFTNL_SET_ID, (uint32_t)index + 1);
	nftnl_set_set_u32(set, NFTNL_SET_KEY_TYPE, def->key_type);
	nftnl_set_set_u32(set, NFTNL_SET_KEY_LEN, def->key_size);
	if (index == SET_VNIS)
		describe_vni_key(set);
	nlh = batch_message(batch, NFT_MSG_NEWSET, NLM_F_CREATE, def->name);
	nftnl_set_nlmsg_build_payload(nlh, set);
	batch_end_message(batch, nlh);
	nftnl_set_free(set);
}

static void batch_flush_set(struct batch *batch, enum set_index index)
{
	struct nlmsghdr *nlh = batch_message(batch, NFT_MSG_DELSETELEM, 0, set_defs[index].name);

	mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_TABLE, batch->guard->table);
	mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_SET, set_defs[index].name);
	batch_end_message(batch, nlh);
}

/* Written with libmnl: an element is a key and nothing else, and libnftnl would allocate an object for each. */
static void batch_elements(struct batch *batch, enum set_index index, const struct keys *keys)
{
	for (size_t at = 0; at < keys->count; at += ELEMENTS_PER_MESSAGE) {
		size_t end = at + ELEMENTS_PER_MESSAGE < keys->count ? at + ELEMENTS_PER_MESSAGE : keys->count;
		struct nlmsghdr *nlh = batch_message(batch, NFT_MSG_NEWSETELEM, NLM_F_CREATE, set_defs[index].name);
		struct nlattr *list;

		mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_TABLE, batch->guard->table);
		mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_SET, set_defs[index].name);
		mnl_attr_put_u32(nlh, NFTA_SET_ELEM_LIST_SET_ID, htonl((uint32_t)index + 1));
		list = mnl_attr_nest_start(nlh, NFTA_SET_ELEM_LIST_ELEMENTS);
		for (size_t i = at; i < end; i++) {
			struct nlattr *element = mnl_attr_nest_start(nlh, NFTA_LIST_ELEM);
			struct nlattr *key = mnl_attr_nest_start(nlh, NFTA_SET_ELEM_KEY);

			mnl_attr_put(nlh, NFTA_DATA_VALUE, keys->size, keys->bytes + i * keys->size);
			mnl_attr_nest_end(nlh, key);
			mnl_attr_nest_end(nlh, element);
		}
		mnl_attr_nest_end(nlh, list);
		batch_end_message(batch, nlh);
	}
}

static const char *const counter_names[] = {"foreign", "forged"};

static void batch_counter(struct batch *batch, const char *name)
{
	struct nftnl_obj *obj = nftnl_obj_alloc();
	struct nlmsghdr *nlh;

	if (!obj)
		abort();
	nftnl_obj_set_str(obj, NFTNL_OBJ_TABLE, batch->guard->table);
	nftnl_obj_set_str(obj, NFTNL_OBJ_NAME, name);
	nftnl_obj_set_u32(obj, NFTNL_OBJ_TYPE, NFT_OBJECT_COUNTER);
	nftnl_obj_set_u64(obj, NFTNL_OBJ_CTR_PKTS, 0);
	nftnl_obj_set_u64(obj, NFTNL_OBJ_CTR_BYTES, 0);
	nlh = batch_message(batch, NFT_MSG_NEWOBJ, NLM_F_CREATE, name);
	nftnl_obj_nlmsg_build_payload(nlh, obj);
	batch_end_message(batch, nlh);
	nftnl_obj_free(obj);
}

static void batch_chain(struct batch *batch, const char *name, uint32_t hook, int32_t priority)
{
	struct nftnl_chain *chain = nftnl_chain_alloc();
	struct nlmsghdr *nlh;

	if (!chain)
		abort();
	nftnl_chain_set_str(chain, NFTNL_CHAIN_TABLE, batch->guard->table);
	nftnl_chain_set_str(chain, NFTNL_CHAIN_NAME, name);
	nftnl_chain_set_str(chain, NFTNL_CHAIN_TYPE, "filter");
	nftnl_chain_set_u32(chain, NFTNL_CHAIN_HOOKNUM, hook);
	nftnl_chain_set_s32(chain, NFTNL_CHAIN_PRIO, priority);
	nftnl_chain_set_u32(chain, NFTNL_CHAIN_POLICY, NF_ACCEPT);
	nlh = batch_message(batch, NFT_MSG_NEWCHAIN, NLM_F_CREATE, name);
	nftnl_chain_nlmsg_build_payload(nlh, chain);
	batch_end_message(batch, nlh);
	nftnl_chain_free(chain);
}

/* -- rules -- */

static struct nftnl_expr *rule_expr(struct nftnl_rule *rule, const char *kind)
{
	struct nftnl_expr *expr = nftnl_expr_alloc(kind);

	if (!expr)
		abort();
	nftnl_rule_add_expr(rule, expr);
	return expr;
}

static void match_meta_u8(struct nftnl_rule *rule, uint32_t key, uint8_t value)
{
	struct nftnl_expr *meta = rule_expr(rule, "meta");
	struct nftnl_expr *cmp;

	nftnl_expr_set_u32(meta, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(meta, NFTNL_EXPR_META_DREG, NFT_REG_1);
	cmp = rule_expr(rule, "cmp");
	nftnl_expr_set_u32(cmp, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
	nftnl_expr_set_u32(cmp, NFTNL_EXPR_CMP_OP, NFT_CMP_EQ);
	nftnl_expr_set(cmp, NFTNL_EXPR_CMP_DATA, &value, sizeof(value));
}

static void load_payload(struct nftnl_rule *rule, uint32_t base, uint32_t offset, uint32_t size)
{
	struct nftnl_expr *payload = rule_expr(rule, "payload");

	nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_BASE, base);
	nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
	nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_LEN, size);
	nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_DREG, NFT_REG_1);
}

static void match_set(struct nftnl_rule *rule, enum set_index index, bool inverted)
{
	struct nftnl_expr *lookup = rule_expr(rule, "lookup");

	nftnl_expr_set_u32(lookup, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
	nftnl_expr_set_str(lookup, NFTNL_EXPR_LOOKUP_SET, set_defs[index].name);
	nftnl_expr_set_u32(lookup, NFTNL_EXPR_LOOKUP_SET_ID, (uint32_t)index + 1);
	if (inverted)
		nftnl_expr_set_u32(lookup, NFTNL_EXPR_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
}

/* UDP to the port, and the VNI is one of ours. */
static void match_our_vni(struct nftnl_rule *rule, uint16_t port)
{
	uint16_t dport = htons(port);
	struct nftnl_expr *cmp;

	match_meta_u8(rule, NFT_META_L4PROTO, IPPROTO_UDP);
	load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 2, sizeof(dport));
	cmp = rule_expr(rule, "cmp");
	nftnl_expr_set_u32(cmp, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
	nftnl_expr_set_u32(cmp, NFTNL_EXPR_CMP_OP, NFT_CMP_EQ);
	nftnl_expr_set(cmp, NFTNL_EXPR_CMP_DATA, &dport, sizeof(dport));
	load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, VNI_OFFSET, set_defs[SET_VNIS].key_size);
	match_set(rule, SET_VNIS, false);
}

static void match_no_member(struct nftnl_rule *rule, uint8_t family)
{
	bool v4 = family == NFPROTO_IPV4;

	load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, v4 ? 12 : 8, v4 ? 4 : 16); /* the source address */
	match_set(rule, v4 ? SET_MEM4 : SET_MEM6, true);
}

static void count_and_drop(struct nftnl_rule *rule, const char *counter)
{
	struct nftnl_expr *objref = rule_expr(rule, "objref");
	struct nftnl_expr *verdict;

	nftnl_expr_set_u32(objref, NFTNL_EXPR_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
	nftnl_expr_set_str(objref, NFTNL_EXPR_OBJREF_IMM_NAME, counter);
	verdict = rule_expr(rule, "immediate");
	nftnl_expr_set_u32(verdict, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_u32(verdict, NFTNL_EXPR_IMM_VERDICT, NF_DROP);
}

static struct nftnl_rule *rule_new(struct batch *batch, const char *chain)
{
	struct nftnl_rule *rule = nftnl_rule_alloc();

	if (!rule)
		abort();
	nftnl_rule_set_str(rule, NFTNL_RULE_TABLE, batch->guard->table);
	nftnl_rule_set_str(rule, NFTNL_RULE_CHAIN, chain);
	nftnl_rule_set_u32(rule, NFTNL_RULE_FAMILY, NFPROTO_INET);
	return rule;
}

static void batch_rule(struct batch *batch, struct nftnl_rule *rule, const char *what)
{
	struct nlmsghdr *nlh = batch_message(batch, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND | NLM_F_ECHO, what);

	nftnl_rule_nlmsg_build_payload(nlh, rule);
	batch_end_message(batch, nlh);
	nftnl_rule_free(rule);
}

static void batch_members_rule(struct batch *batch, uint8_t family)
{
	struct nftnl_rule *rule = rule_new(batch, "input");

	match_meta_u8(rule, NFT_META_NFPROTO, family);
	match_our_vni(rule, batch->guard->port);
	match_no_member(rule, family);
	count_and_drop(rule, "foreign");
	batch_rule(batch, rule, family == NFPROTO_IPV4 ? "members rule (IPv4)" : "members rule (IPv6)");
}

static void batch_forward_rule(struct batch *batch)
{
	struct nftnl_rule *rule = rule_new(batch, "forward");

	match_our_vni(rule, batch->guard->port);
	count_and_drop(rule, "forged");
	batch_rule(batch, rule, "forward rule");
}

static void batch_notrack_rule(struct batch *batch, const char *chain)
{
	struct nftnl_rule *rule = rule_new(batch, chain);

	match_our_vni(rule, batch->guard->port);
	rule_expr(rule, "notrack");
	batch_rule(batch, rule, "notrack rule");
}

static void batch_build(struct batch *batch)
{
	batch_delete_table(batch);
	batch_table(batch, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ECHO);
	for (int i = 0; i < SET_MAX; i++)
		batch_set(batch, i);
	batch_counter(batch, counter_names[0]);
	batch_counter(batch, counter_names[1]);
	batch_chain(batch, "input", NF_INET_LOCAL_IN, -310);
	batch_chain(batch, "forward", NF_INET_FORWARD, -310);
	batch_chain(batch, "prerouting", NF_INET_PRE_ROUTING, -300); /* conntrack begins at -200 */
	batch_chain(batch, "output", NF_INET_LOCAL_OUT, -300);
	batch_members_rule(batch, NFPROTO_IPV4);
	batch_members_rule(batch, NFPROTO_IPV6);
	batch_forward_rule(batch);
	batch_notrack_rule(batch, "prerouting");
	batch_notrack_rule(batch, "output");
}

/* -- commit -- */

struct verdict {
	int error;	  /* the first one */
	const char *what; /* the message it belongs to, or NULL */
	bool acknowledged;
	struct table_facts table; /* echoed */
	struct rule_list rules;
};

static void read_verdict(struct batch *batch, const struct nlmsghdr *nlh, uint32_t last_seq, struct verdict *verdict)
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
	error = closing_error(batch->guard, nlh);
	if (error) {
		verdict->error = error;
		verdict->what = batch->what[index];
	} else if (nlh->nlmsg_seq == last_seq) {
		verdict->acknowledged = true;
	}
}

/* nfnetlink works inside sendmsg: when it returns, every answer is in our queue already. */
static void collect_verdict(struct batch *batch, uint32_t last_seq, struct verdict *verdict)
{
	char buf[32768] __attribute__((aligned(NLMSG_ALIGNTO)));
	ssize_t got;

	while ((got = recv(mnl_socket_get_fd(batch->guard->socket), buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
		const struct nlmsghdr *nlh = (const struct nlmsghdr *)buf;

		for (int left = (int)got; mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left))
			read_verdict(batch, nlh, last_seq, verdict);
	}
}

static int send_batch(struct batch *batch)
{
	struct guard *guard = batch->guard;
	int error = 0;

	batch->last->nlmsg_flags |= NLM_F_ACK;
	batch_end_message(batch, nftnl_batch_end(batch_room(batch, "commit"), ++guard->seq));
	guard->extack[0] = '\0';
	if (mnl_socket_sendto(guard->socket, batch->buf, batch->len) < 0)
		error = -errno;
	free(batch->buf);
	batch->buf = NULL;
	return error;
}

/* Sends the batch and frees it. `before` is a generation from before it. ERESTART: others committed since the one it was begun
 * with. */
static int batch_commit(struct batch *batch, uint32_t before, struct verdict *verdict)
{
	uint32_t now = before, last_seq = batch->guard->seq;
	int error = send_batch(batch);

	memset(verdict, 0, sizeof(*verdict));
	verdict->rules.table = batch->guard->table;
	if (error)
		return error;
	collect_verdict(batch, last_seq, verdict);
	if (verdict->error)
		return verdict->error;
	error = get_generation(batch->guard, &now);
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
static int structure_intact(struct guard *guard, bool polite)
{
	struct table_facts facts = {0};
	struct rule_list rules = {0};
	int error;

	if (!guard->built)
		return 0;
	error = get_table(guard, &facts);
	if (error == -ENOENT)
		return 0;
	if (error)
		return error;
	if (facts.handle != guard->table_handle || facts.flags) /* a flag: dormant */
		return 0;
	if (!polite) /* any dump would be overtaken */
		return 1;
	error = get_rules(guard, &rules);
	if (error)
		return error;
	return rules.count == guard->rule_count && !memcmp(rules.handles, guard->rule_handles, rules.count * sizeof(uint64_t));
}

/* From what was echoed. A kernel that echoes nothing leaves it unbuilt, and has it built again with each change. */
static void remember_handles(struct guard *guard, const struct verdict *verdict)
{
	guard->built = verdict->table.handle && verdict->rules.count && verdict->rules.count <= RULES_MAX;
	guard->table_handle = verdict->table.handle;
	guard->rule_count = verdict->rules.count;
	memcpy(guard->rule_handles, verdict->rules.handles, sizeof(guard->rule_handles));
}

/* What the kernel holds, as far as it has to be known. */
struct view {
	uint32_t generation;
	bool intact;		     /* the structure is; else all of it is built again */
	const struct content *known; /* what the sets hold; NULL: not known */
	struct content looked;
};

static int look_at_sets(struct guard *guard, struct view *view)
{
	uint32_t now = 0;
	int error = get_content(guard, &view->looked);

	if (!error)
		error = get_generation(guard, &now);
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

static int look(struct guard *guard, bool polite, struct view *view)
{
	int intact, error = get_generation(guard, &view->generation);

	if (error)
		return error;
	if (guard->built && guard->generation == view->generation) { /* nobody committed since */
		view->intact = true;
		view->known = &guard->applied;
		return 0;
	}
	intact = structure_intact(guard, polite);
	if (intact < 0)
		return intact;
	view->intact = intact;
	return intact && polite ? look_at_sets(guard, view) : 0;
}

/* The sets that differ, or all of them when it is not known what they hold. */
static int write_difference(
	struct guard *guard, bool polite, const struct view *view, const struct content *wanted, struct verdict *verdict)
{
	struct batch batch;

	batch_begin(&batch, guard, polite ? view->generation : 0);
	if (!view->intact)
		batch_build(&batch);
	for (int i = 0; i < SET_MAX; i++) {
		if (view->intact && view->known && polite && keys_equal(&view->known->sets[i], &wanted->sets[i]))
			continue;
		if (view->intact)
			batch_flush_set(&batch, i);
		batch_elements(&batch, i, &wanted->sets[i]);
	}
	return batch_commit(&batch, view->generation, verdict);
}

static void remember(struct guard *guard, struct content *wanted, uint32_t generation)
{
	content_fini(&guard->applied);
	guard->applied = *wanted;
	content_init(wanted);
	guard->generation = generation;
}

/* One round; EINTR and ERESTART mean that others committed while we worked. */
static int apply_once(struct guard *guard, bool polite, struct content *wanted, const char **ret_what)
{
	struct view view = {0};
	struct verdict verdict = {0};
	int error;

	content_init(&view.looked);
	error = look(guard, polite, &view);
	if (!error && view.intact && view.known && content_equal(view.known, wanted)) {
		remember(guard, wanted, view.generation);
	} else if (!error) {
		error = write_difference(guard, polite, &view, wanted, &verdict);
		*ret_what = verdict.what;
		if (!error && !view.intact)
			remember_handles(guard, &verdict);
		if (!error)
			remember(guard, wanted, polite ? generation_after(view.generation) : 0);
	}
	content_fini(&view.looked);
	return error == -ENOENT && !polite ? -ERESTART : error; /* deleted since we looked */
}

static int fail(struct guard *guard, int error, const char *verb, const char *what, struct err *err)
{
	if (error == -ERESTART || error == -EINTR)
		return err_set(err, ERR_CONFLICT,
			"nft table inet %s: others changed nft tables %d times while it was %s; try again", guard->table,
			ATTEMPTS_MAX, verb);
	if (error == -EUCLEAN)
		return err_set(err, ERR_SYSTEM,
			"nft table inet %s was not %s: the kernel neither acknowledged nor refused the transaction", guard->table,
			verb);
	return err_sys(err, -error, "nft table inet %s could not be %s%s%s%s%s", guard->table, verb, what ? ": " : "",
		what ? what : "", guard->extack[0] ? ": " : "", guard->extack);
}

/* -- public -- */

static int open_socket(struct guard *guard)
{
	static const struct timeval timeout = {.tv_sec = REPLY_TIMEOUT_MS / 1000, .tv_usec = REPLY_TIMEOUT_MS % 1000 * 1000};
	int one = 1, size = SEND_BUFFER, fd;

	guard->socket = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
	if (!guard->socket || mnl_socket_bind(guard->socket, 0, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	fd = mnl_socket_get_fd(guard->socket);
	mnl_socket_setsockopt(guard->socket, NETLINK_EXT_ACK, &one, sizeof(one));
	mnl_socket_setsockopt(guard->socket, NETLINK_CAP_ACK, &one, sizeof(one));
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0 ||
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0)
		return -errno;
	return 0;
}

int guard_open(const char *table, uint16_t port, struct guard **ret_guard, struct err *err)
{
	struct guard *guard;
	int error;

	if (!*table || strlen(table) > TABLE_NAME_MAX)
		return err_set(err, ERR_INVALID, "nft table name \"%s\": expected 1 to %d characters", table, TABLE_NAME_MAX);
	guard = allocate(NULL, sizeof(*guard));
	memset(guard, 0, sizeof(*guard));
	memcpy(guard->table, table, strlen(table) + 1);
	guard->port = port;
	content_init(&guard->applied);
	error = open_socket(guard);
	if (error) {
		guard_close(guard);
		return err_sys(err, -error, "nft table inet %s: netfilter socket (CAP_NET_ADMIN is needed)", table);
	}
	*ret_guard = guard;
	return 0;
}

void guard_close(struct guard *guard)
{
	if (!guard)
		return;
	if (guard->socket)
		mnl_socket_close(guard->socket);
	content_fini(&guard->applied);
	free(guard);
}

int guard_apply(struct guard *guard, const uint32_t *vnis, size_t vni_count, const struct ip *members, size_t member_count,
	struct err *err)
{
	struct content wanted;
	const char *what = NULL;
	int error = -ERESTART;

	content_init(&wanted);
	if (content_make(&wanted, vnis, vni_count, members, member_count, err) < 0) {
		content_fini(&wanted);
		return -1;
	}
	for (int i = 0; i < ATTEMPTS_MAX && (error == -ERESTART || error == -EINTR); i++)
		error = apply_once(guard, i < ATTEMPTS_POLITE, &wanted, &what);
	content_fini(&wanted);
	return error ? fail(guard, error, "applied", what, err) : 0;
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

static int get_counter(struct guard *guard, const char *name, uint64_t *ret_packets)
{
	char buf[512] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *nlh = question(guard, buf, NFT_MSG_GETOBJ, 0);

	mnl_attr_put_strz(nlh, NFTA_OBJ_TABLE, guard->table);
	mnl_attr_put_strz(nlh, NFTA_OBJ_NAME, name);
	mnl_attr_put_u32(nlh, NFTA_OBJ_TYPE, htonl(NFT_OBJECT_COUNTER));
	return ask(guard, nlh, on_counter, ret_packets);
}

int guard_counters(struct guard *guard, uint64_t *ret_foreign, uint64_t *ret_forged, struct err *err)
{
	uint64_t foreign = 0, forged = 0;
	int error = get_counter(guard, "foreign", &foreign);

	if (!error)
		error = get_counter(guard, "forged", &forged);
	if (error == -ENOENT)
		return err_set(err, ERR_NOT_FOUND,
			"nft table inet %s: not there, so it counts nothing; it is built with the first network", guard->table);
	if (error)
		return fail(guard, error, "read", NULL, err);
	*ret_foreign = foreign;
	*ret_forged = forged;
	return 0;
}

int guard_purge(struct guard *guard, struct err *err)
{
	struct verdict verdict = {0};
	struct batch batch;
	uint32_t before = 0;
	int error = get_generation(guard, &before);

	guard->built = false;
	if (!error) {
		batch_begin(&batch, guard, 0);
		batch_delete_table(&batch);
		error = batch_commit(&batch, before, &verdict);
	}
	return error ? fail(guard, error, "deleted", verdict.what, err) : 0;
}

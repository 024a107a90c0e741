/* A batch: messages that make or empty table, sets and counters, and the commit of all in one transaction. Chains and rules are
 * put in by nft_rules.c; which batch is due is nft.c's to say. What the kernel does with one: the top of nft.c. */
#include "driver/vxlan/nft_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/common.h>
#include <libnftnl/object.h>
#include <libnftnl/set.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/alloc.h"

#define ELEMENTS_PER_MESSAGE 1000
#define MESSAGE_ROOM 65536 /* kept free in front of each message: more than the largest one we build */

static void *batch_room(struct nft_batch *batch, const char *what)
{
	if (batch->capacity - batch->len < MESSAGE_ROOM) {
		batch->capacity = batch->capacity * 2 + MESSAGE_ROOM;
		batch->buf = alloc_resize(batch->buf, char, batch->capacity);
	}
	if (batch->count == NFT_MESSAGES_MAX)
		abort();
	batch->what[batch->count++] = what;
	return batch->buf + batch->len;
}

void nft_batch_end_message(struct nft_batch *batch, struct nlmsghdr *nlh)
{
	batch->last = nlh;
	batch->len += MNL_ALIGN(nlh->nlmsg_len);
}

void nft_batch_begin(struct nft_batch *batch, struct nft *nft, uint32_t generation)
{
	struct nlmsghdr *nlh;

	memset(batch, 0, sizeof(*batch));
	batch->nft = nft;
	batch->first_seq = nft->seq + 1;
	nlh = nftnl_batch_begin(batch_room(batch, "begin"), ++nft->seq);
	if (generation)
		mnl_attr_put_u32(nlh, NFNL_BATCH_GENID, htonl(generation));
	nft_batch_end_message(batch, nlh);
}

struct nlmsghdr *nft_batch_message(struct nft_batch *batch, uint16_t type, uint16_t flags, const char *what)
{
	return nftnl_nlmsg_build_hdr(batch_room(batch, what), type, NFPROTO_INET, flags, ++batch->nft->seq);
}

static void batch_table(struct nft_batch *batch, uint16_t type, uint16_t flags)
{
	struct nlmsghdr *nlh = nft_batch_message(batch, type, flags, "table");

	mnl_attr_put_strz(nlh, NFTA_TABLE_NAME, batch->nft->table);
	if (type == NFT_MSG_NEWTABLE)
		mnl_attr_put_u32(nlh, NFTA_TABLE_FLAGS, 0);
	nft_batch_end_message(batch, nlh);
}

/* Makes one first, so that there is one to delete. */
void nft_batch_delete_table(struct nft_batch *batch)
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
	nlh = nft_batch_message(batch, NFT_MSG_NEWSET, NLM_F_CREATE, def->name);
	nftnl_set_nlmsg_build_payload(nlh, set);
	nft_batch_end_message(batch, nlh);
	nftnl_set_free(set);
}

void nft_batch_flush_set(struct nft_batch *batch, unsigned index)
{
	struct nlmsghdr *nlh = nft_batch_message(batch, NFT_MSG_DELSETELEM, 0, batch->nft->def->sets[index].name);

	mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_TABLE, batch->nft->table);
	mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_SET, batch->nft->def->sets[index].name);
	nft_batch_end_message(batch, nlh);
}

/* Written with libmnl: an element is a key and nothing else, and libnftnl would allocate an object for each. */
void nft_batch_elements(struct nft_batch *batch, unsigned index, const struct nft_keys *keys)
{
	for (size_t at = 0; at < keys->count; at += ELEMENTS_PER_MESSAGE) {
		size_t end = at + ELEMENTS_PER_MESSAGE < keys->count ? at + ELEMENTS_PER_MESSAGE : keys->count;
		struct nlmsghdr *nlh =
			nft_batch_message(batch, NFT_MSG_NEWSETELEM, NLM_F_CREATE, batch->nft->def->sets[index].name);
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
		nft_batch_end_message(batch, nlh);
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
	nlh = nft_batch_message(batch, NFT_MSG_NEWOBJ, NLM_F_CREATE, name);
	nftnl_obj_nlmsg_build_payload(nlh, obj);
	nft_batch_end_message(batch, nlh);
	nftnl_obj_free(obj);
}

void nft_batch_build(struct nft_batch *batch)
{
	const struct nft_def *def = batch->nft->def;

	nft_batch_delete_table(batch);
	batch_table(batch, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ECHO);
	for (unsigned i = 0; i < def->set_count; i++)
		batch_set(batch, i);
	for (unsigned i = 0; i < def->counter_count; i++)
		batch_counter(batch, def->counters[i]);
	def->build(batch, batch->nft->arg);
}

/* -- commit -- */

static void read_verdict(struct nft_batch *batch, const struct nlmsghdr *nlh, uint32_t last_seq, struct nft_verdict *verdict)
{
	uint32_t index = nlh->nlmsg_seq - batch->first_seq;
	int error;

	if (index >= batch->count)
		return;
	if (nlh->nlmsg_type == (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWTABLE))
		nft_on_table(nlh, &verdict->table);
	if (nlh->nlmsg_type == (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWRULE))
		nft_on_rule(nlh, &verdict->rules);
	if (nlh->nlmsg_type != NLMSG_ERROR)
		return;
	if (verdict->error)
		return; /* what follows the first error follows from it */
	error = nft_closing_error(batch->nft, nlh);
	if (error) {
		verdict->error = error;
		verdict->what = batch->what[index];
	} else if (nlh->nlmsg_seq == last_seq) {
		verdict->acknowledged = true;
	}
}

/* nfnetlink works inside sendmsg: when it returns, every answer is in our queue already. */
static void collect_verdict(struct nft_batch *batch, uint32_t last_seq, struct nft_verdict *verdict)
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
	nft_batch_end_message(batch, nftnl_batch_end(batch_room(batch, "commit"), ++nft->seq));
	nft->extack[0] = '\0';
	if (mnl_socket_sendto(nft->socket, batch->buf, batch->len) < 0)
		error = -errno;
	free(batch->buf);
	batch->buf = NULL;
	return error;
}

int nft_batch_commit(struct nft_batch *batch, uint32_t before, struct nft_verdict *verdict)
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
	error = nft_get_generation(batch->nft, &now);
	if (error)
		return error;
	return verdict->acknowledged && now != before ? 0 : -EUCLEAN;
}

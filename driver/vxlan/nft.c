/* One table of ours, compared and applied: see nft.h. What sets hold is in nft_keys.c; questions to the kernel, over libmnl, in
 * nft_ask.c; batches and their commit in nft_batch.c; chains and rules, encoded by libnftnl, in nft_rules.c.
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
#include "driver/vxlan/nft_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/object.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/alloc.h"

#define ATTEMPTS_POLITE 4 /* rounds lost to others, before one is written unconditionally */
#define ATTEMPTS_MAX 16	  /* before it is an error */
#define NOTICE_BUFFER (1 << 20)
#define REPLY_TIMEOUT_MS 3000 /* the kernel answers within sendmsg; only a bug gets here */
#define SEND_BUFFER (8 << 20) /* a batch must fit in one datagram */

/* -- compare -- */

/* The kernel counts commits up by one and leaves out 0. */
static uint32_t generation_after(uint32_t generation)
{
	return generation + 1 ? generation + 1 : 1;
}

/* 1: the table is the one that we built, untouched but for its sets. 0: it is not. */
static int structure_intact(struct nft *nft, bool polite)
{
	struct nft_table_facts facts = {0};
	struct nft_rule_list rules = {0};
	int error;

	if (!nft->built)
		return 0;
	error = nft_get_table(nft, &facts);
	if (error == -ENOENT)
		return 0;
	if (error)
		return error;
	if (facts.handle != nft->table_handle || facts.flags) /* a flag: dormant */
		return 0;
	if (!polite) /* any dump would be overtaken */
		return 1;
	error = nft_get_rules(nft, &rules);
	if (error)
		return error;
	return rules.count == nft->rule_count && !memcmp(rules.handles, nft->rule_handles, rules.count * sizeof(uint64_t));
}

/* From what was echoed. A kernel that echoes nothing leaves it unbuilt, and has it built again with each change. */
static void remember_handles(struct nft *nft, const struct nft_verdict *verdict)
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
	int error = nft_get_content(nft, &view->looked);

	if (!error)
		error = nft_get_generation(nft, &now);
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
	int intact, error = nft_get_generation(nft, &view->generation);

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
	struct nft *nft, bool polite, const struct view *view, const struct nft_content *wanted, struct nft_verdict *verdict)
{
	struct nft_batch batch;

	nft_batch_begin(&batch, nft, polite ? view->generation : 0);
	if (!view->intact)
		nft_batch_build(&batch);
	for (unsigned i = 0; i < nft->def->set_count; i++) {
		if (view->intact && view->known && polite && nft_keys_equal(&view->known->sets[i], &wanted->sets[i]))
			continue;
		if (view->intact)
			nft_batch_flush_set(&batch, i);
		nft_batch_elements(&batch, i, &wanted->sets[i]);
	}
	return nft_batch_commit(&batch, view->generation, verdict);
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
	struct nft_verdict verdict = {0};
	int error;

	nft_content_init(&view.looked, nft->def);
	error = look(nft, polite, &view);
	if (!error && view.intact && view.known && nft_content_equal(view.known, wanted)) {
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

	if (!*table || strlen(table) > NFT_TABLE_NAME_MAX)
		return err_set(err, ERR_INVALID, "nft table name \"%s\": expected 1 to %d characters", table, NFT_TABLE_NAME_MAX);
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
		nft_keys_sort(&wanted->sets[i]);
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
	struct nlmsghdr *nlh = nft_question(nft, buf, NFT_MSG_GETOBJ, 0);
	uint64_t packets = 0;
	int error;

	mnl_attr_put_strz(nlh, NFTA_OBJ_TABLE, nft->table);
	mnl_attr_put_strz(nlh, NFTA_OBJ_NAME, name);
	mnl_attr_put_u32(nlh, NFTA_OBJ_TYPE, htonl(NFT_OBJECT_COUNTER));
	error = nft_ask(nft, nlh, on_counter, &packets);
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
	struct nft_verdict verdict = {0};
	struct nft_batch batch;
	uint32_t before = 0;
	int error = nft_get_generation(nft, &before);

	nft->built = false;
	if (!error) {
		nft_batch_begin(&batch, nft, 0);
		nft_batch_delete_table(&batch);
		error = nft_batch_commit(&batch, before, &verdict);
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
		error = nft_ask(nft, nlh, on_chain, &search);
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
	return ours && (!nft->built || nft_get_generation(nft, &now) != 0 || now != nft->generation);
}

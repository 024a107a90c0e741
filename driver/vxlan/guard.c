/* Members only: see guard.h for what the table does, nft.h for how it gets into the kernel.
 *
 * Forwarded fragments: the VNI lies behind the first eight bytes, so a first fragment of eight bytes would pass the forward
 * chain. It cannot be masqueraded in that shape: address translation needs conntrack, which reassembles at -400, before our
 * chains. */
#include "driver/vxlan/guard.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "driver/vxlan/nft.h"

#define VNI_SIZE 3

enum set_index { SET_VNIS, SET_MEM4, SET_MEM6, SET_MAX };

static const struct nft_set_def sets[] = {
	[SET_VNIS] = {.name = "vnis", .key_type = 4, .key_size = VNI_SIZE, .vni = true},
	[SET_MEM4] = {.name = "mem4", .key_type = 7, .key_size = 4},
	[SET_MEM6] = {.name = "mem6", .key_type = 8, .key_size = 16},
};
_Static_assert(sizeof(sets) / sizeof(sets[0]) == SET_MAX, "one definition per set");

static const char *const counters[] = {"foreign", "forged"};

struct guard {
	struct nft *nft;
	uint16_t port;
	bool there; /* the table, or what an earlier life left of it */
};

/* -- content -- */

static int add_vni(struct nft_content *content, uint32_t vni, struct err *err)
{
	uint32_t key = htonl(vni << 8);

	if (vni > 0xffffff)
		return err_set(err, ERR_INVALID, "VNI %u: expected at most 16777215 (24 bits)", vni);
	nft_keys_add(&content->sets[SET_VNIS], &key);
	return 0;
}

static int add_member(struct nft_content *content, const struct ip *member, struct err *err)
{
	if (member->family != 4 && member->family != 6)
		return err_set(err, ERR_INVALID, "member address: expected family 4 or 6, found %u", member->family);
	nft_keys_add(&content->sets[member->family == 4 ? SET_MEM4 : SET_MEM6], member->bytes);
	return 0;
}

/* Fills an initialised content; the caller frees it also on failure. */
static int fill(struct nft_content *content, const uint32_t *vnis, size_t vni_count, const struct ip *members,
	size_t member_count, struct err *err)
{
	if (vni_count > GUARD_VNIS_MAX)
		return err_set(err, ERR_TOO_BIG, "%zu VNIs: the filter holds at most %d", vni_count, GUARD_VNIS_MAX);
	if (member_count > GUARD_MEMBERS_MAX)
		return err_set(err, ERR_TOO_BIG, "%zu members: the filter holds at most %d", member_count, GUARD_MEMBERS_MAX);
	for (size_t i = 0; i < vni_count; i++) {
		if (add_vni(content, vnis[i], err) < 0)
			return -1;
	}
	for (size_t i = 0; i < member_count; i++) {
		if (add_member(content, &members[i], err) < 0)
			return -1;
	}
	return 0;
}

/* -- rules -- */

/* UDP to the port, and the VNI is one of ours. */
static void match_our_vni(struct nft_batch *batch, struct nftnl_rule *rule, uint16_t port)
{
	uint16_t dport = htons(port);
	uint8_t udp = IPPROTO_UDP;

	nft_load_meta(rule, NFT_META_L4PROTO, NFT_REG_1);
	nft_match(rule, NFT_CMP_EQ, &udp, sizeof(udp));
	nft_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, 2, sizeof(dport));
	nft_match(rule, NFT_CMP_EQ, &dport, sizeof(dport));
	nft_load_payload(rule, NFT_PAYLOAD_TRANSPORT_HEADER, NFT_VNI_OFFSET, VNI_SIZE);
	nft_match_set(batch, rule, SET_VNIS, false);
}

static void members_rule(struct nft_batch *batch, uint16_t port, uint8_t family)
{
	struct nftnl_rule *rule = nft_rule(batch, "input");
	bool v4 = family == NFPROTO_IPV4;

	nft_match_protocol(rule, family);
	match_our_vni(batch, rule, port);
	nft_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, v4 ? 12 : 8, v4 ? 4 : 16); /* the source address */
	nft_match_set(batch, rule, v4 ? SET_MEM4 : SET_MEM6, true);
	nft_count_and_drop(rule, "foreign");
	nft_rule_end(batch, rule, v4 ? "members rule (IPv4)" : "members rule (IPv6)");
}

static void forward_rule(struct nft_batch *batch, uint16_t port)
{
	struct nftnl_rule *rule = nft_rule(batch, "forward");

	match_our_vni(batch, rule, port);
	nft_count_and_drop(rule, "forged");
	nft_rule_end(batch, rule, "forward rule");
}

static void notrack_rule(struct nft_batch *batch, uint16_t port, const char *chain)
{
	struct nftnl_rule *rule = nft_rule(batch, chain);

	match_our_vni(batch, rule, port);
	nft_notrack(rule);
	nft_rule_end(batch, rule, "notrack rule");
}

static void build(struct nft_batch *batch, const void *arg)
{
	uint16_t port = ((const struct guard *)arg)->port;

	nft_chain(batch, "input", "filter", NF_INET_LOCAL_IN, -310);
	nft_chain(batch, "forward", "filter", NF_INET_FORWARD, -310);
	nft_chain(batch, "prerouting", "filter", NF_INET_PRE_ROUTING, -300); /* conntrack begins at -200 */
	nft_chain(batch, "output", "filter", NF_INET_LOCAL_OUT, -300);
	members_rule(batch, port, NFPROTO_IPV4);
	members_rule(batch, port, NFPROTO_IPV6);
	forward_rule(batch, port);
	notrack_rule(batch, port, "prerouting");
	notrack_rule(batch, port, "output");
}

static const struct nft_def definition = {.set_count = SET_MAX,
	.sets = sets,
	.counter_count = sizeof(counters) / sizeof(counters[0]),
	.counters = counters,
	.build = build};

/* -- public -- */

int guard_open(const char *table, uint16_t port, struct guard **ret_guard, struct err *err)
{
	struct guard *guard = alloc_new(struct guard);

	guard->port = port;
	guard->there = true;
	if (nft_open(table, &definition, guard, &guard->nft, err) < 0) {
		free(guard);
		return -1;
	}
	*ret_guard = guard;
	return 0;
}

void guard_close(struct guard *guard)
{
	if (!guard)
		return;
	nft_close(guard->nft);
	free(guard);
}

struct nft *guard_nft(struct guard *guard)
{
	return guard->nft;
}

int guard_apply(struct guard *guard, const uint32_t *vnis, size_t vni_count, const struct ip *members, size_t member_count,
	bool *ret_wrote, struct err *err)
{
	struct nft_content wanted;

	if (ret_wrote)
		*ret_wrote = false;
	/* Every rule asks for one of our VNIs: without one, four chains only make each packet of the host dearer. */
	if (!vni_count)
		return guard->there ? guard_purge(guard, err) : 0;
	nft_content_init(&wanted, &definition);
	if (fill(&wanted, vnis, vni_count, members, member_count, err) < 0) {
		nft_content_fini(&wanted);
		return -1;
	}
	guard->there = true;
	return nft_apply(guard->nft, &wanted, ret_wrote, err);
}

int guard_counters(struct guard *guard, uint64_t *ret_foreign, uint64_t *ret_forged, struct err *err)
{
	uint64_t foreign, forged;

	if (nft_counter(guard->nft, "foreign", &foreign, err) < 0 || nft_counter(guard->nft, "forged", &forged, err) < 0)
		return -1;
	*ret_foreign = foreign;
	*ret_forged = forged;
	return 0;
}

int guard_purge(struct guard *guard, struct err *err)
{
	if (nft_purge(guard->nft, err) < 0)
		return -1;
	guard->there = false;
	return 0;
}

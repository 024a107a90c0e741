/* The table of routed networks: see nat.h for what it does, nft.h for how it gets into the kernel. */
#include "driver/vxlan/nat.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "driver/vxlan/nft.h"

#define LOOPBACK_INDEX 1
#define NAT_PRIORITY 110 /* behind iptables' 100 */

enum set_index { SET_PAIRS, SET_TUNNELS, SET_OURS, SET_LANES, SET_INSIDE, SET_POOLS4, SET_POOLS6, SET_MAX };

#define DEVGROUP 35 /* nft's number of the type; a concatenation is 6 bits for each */

static const struct nft_set_def sets[] = {
	[SET_PAIRS] = {.name = "pairs", .key_type = DEVGROUP, .key_size = 4, .host_order = true},
	[SET_TUNNELS] = {.name = "tunnels", .key_type = DEVGROUP, .key_size = 4, .host_order = true},
	[SET_OURS] = {.name = "ours", .key_type = DEVGROUP, .key_size = 4, .host_order = true},
	/* From which group to which a packet may pass: within one network, and not from the tunnel into the tunnel. */
	[SET_LANES] = {.name = "lanes", .key_type = DEVGROUP << 6 | DEVGROUP, .key_size = 8},
	[SET_INSIDE] = {.name = "inside", .key_type = DEVGROUP, .key_size = 4, .host_order = true},
	[SET_POOLS4] = {.name = "pools4", .key_type = 7, .key_size = 4, .interval = true},
	[SET_POOLS6] = {.name = "pools6", .key_type = 8, .key_size = 16, .interval = true},
};
_Static_assert(sizeof(sets) / sizeof(sets[0]) == SET_MAX && SET_MAX <= NFT_SETS_MAX, "one definition per set");

static const char *const counters[] = {"spoofed", "strayed"};

struct nat {
	struct nft *nft;
	bool there; /* the table may be: built, or not looked at since nat_open */
};

/* -- content -- */

static void add_lane(struct nft_content *content, uint32_t from, uint32_t to)
{
	uint32_t key[2] = {from, to};

	nft_keys_add(&content->sets[SET_LANES], key);
}

static void add_groups(struct nft_content *content, const struct nat_network *n)
{
	nft_keys_add(&content->sets[SET_PAIRS], &n->pair_group);
	nft_keys_add(&content->sets[SET_TUNNELS], &n->tunnel_group);
	nft_keys_add(&content->sets[SET_OURS], &n->pair_group);
	nft_keys_add(&content->sets[SET_OURS], &n->tunnel_group);
	add_lane(content, n->pair_group, n->pair_group);
	add_lane(content, n->pair_group, n->tunnel_group);
	add_lane(content, n->tunnel_group, n->pair_group);
	if (!n->internal)
		return;
	nft_keys_add(&content->sets[SET_INSIDE], &n->pair_group);
	nft_keys_add(&content->sets[SET_INSIDE], &n->tunnel_group);
}

/* The first address behind a prefix; false: the prefix reaches to the last address there is. */
static bool behind(const struct prefix *p, uint8_t end[NFT_KEY_MAX])
{
	unsigned size = ip_bits(&p->ip) / 8, bit = p->length;

	memcpy(end, p->ip.bytes, size);
	while (bit > 0) {
		bit--;
		end[bit / 8] ^= (uint8_t)(0x80 >> bit % 8);
		if (end[bit / 8] & 0x80 >> bit % 8)
			return true; /* no carry */
	}
	return false;
}

static int compare_prefixes(const void *a, const void *b)
{
	const struct prefix *x = a, *y = b;
	int order = memcmp(x->ip.bytes, y->ip.bytes, sizeof(x->ip.bytes));

	return order ? order : (int)x->length - (int)y->length;
}

/* Of one family, sorted: a pool within another comes behind it, and neighbours become one range. */
static void add_ranges(struct nft_keys *keys, const struct prefix *pools, size_t count)
{
	uint8_t end[NFT_KEY_MAX], next[NFT_KEY_MAX];

	for (size_t i = 0, j; i < count; i = j) {
		bool bounded = behind(&pools[i], end);

		for (j = i + 1; j < count && (!bounded || memcmp(pools[j].ip.bytes, end, keys->size) <= 0); j++) {
			if (!bounded)
				continue;
			bounded = behind(&pools[j], next);
			if (!bounded || memcmp(next, end, keys->size) > 0)
				memcpy(end, next, keys->size);
		}
		nft_keys_add_range(keys, pools[i].ip.bytes, bounded ? end : NULL);
	}
}

static void add_pools(struct nft_content *content, const struct nat_network *networks, size_t count, uint8_t family)
{
	struct prefix *pools = alloc_array(struct prefix, count * NAT_POOLS_MAX + 1);
	size_t found = 0;

	for (size_t i = 0; i < count; i++)
		for (unsigned j = 0; j < networks[i].pool_count; j++)
			if (networks[i].pools[j].ip.family == family)
				pools[found++] = networks[i].pools[j];
	qsort(pools, found, sizeof(*pools), compare_prefixes);
	add_ranges(&content->sets[family == 4 ? SET_POOLS4 : SET_POOLS6], pools, found);
	free(pools);
}

/* -- rules -- */

static void match_group(struct nft_batch *batch, struct nftnl_rule *rule, uint32_t which, enum set_index set, bool inverted)
{
	nft_load_meta(rule, which, NFT_REG_1);
	nft_match_set(batch, rule, set, inverted);
}

static void match_source(struct nft_batch *batch, struct nftnl_rule *rule, uint8_t family, bool inverted)
{
	bool v4 = family == NFPROTO_IPV4;

	nft_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, v4 ? 12 : 8, v4 ? 4 : 16);
	nft_match_set(batch, rule, v4 ? SET_POOLS4 : SET_POOLS6, inverted);
}

/* Without link-local sources, which have no route: a container's own neighbour discovery and multicast listening, and those of a
 * machine that has no address yet. */
static void spoof_rule(struct nft_batch *batch, uint8_t family)
{
	static const uint8_t any[4] = {0};
	static const uint8_t link_local[] = {0xfe, 0x80}, none[16] = {0};
	struct nftnl_rule *rule = nft_rule(batch, "prerouting");
	bool v4 = family == NFPROTO_IPV4;

	nft_match_protocol(rule, family);
	match_group(batch, rule, NFT_META_IIFGROUP, SET_PAIRS, false);
	if (v4) {
		nft_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 12, 4);
		nft_match(rule, NFT_CMP_NEQ, any, sizeof(any));
	} else {
		nft_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 8, sizeof(link_local));
		nft_match(rule, NFT_CMP_NEQ, link_local, sizeof(link_local));
		nft_load_payload(rule, NFT_PAYLOAD_NETWORK_HEADER, 8, sizeof(none));
		nft_match(rule, NFT_CMP_NEQ, none, sizeof(none));
	}
	nft_match_no_way_back(rule);
	nft_count_and_drop(rule, "spoofed");
	nft_rule_end(batch, rule, v4 ? "spoof rule (IPv4)" : "spoof rule (IPv6)");
}

static void lanes_rule(struct nft_batch *batch)
{
	struct nftnl_rule *rule = nft_rule(batch, "forward");

	match_group(batch, rule, NFT_META_IIFGROUP, SET_OURS, false);
	match_group(batch, rule, NFT_META_OIFGROUP, SET_OURS, false);
	nft_load_meta(rule, NFT_META_IIFGROUP, NFT_REG_1);
	nft_load_meta(rule, NFT_META_OIFGROUP, NFT_REG32_01);
	nft_match_set(batch, rule, SET_LANES, true);
	nft_count_and_drop(rule, "strayed");
	nft_rule_end(batch, rule, "lanes rule");
}

static void inside_rule(struct nft_batch *batch, uint32_t inner, uint32_t outer)
{
	struct nftnl_rule *rule = nft_rule(batch, "forward");

	match_group(batch, rule, inner, SET_INSIDE, false);
	match_group(batch, rule, outer, SET_OURS, true);
	nft_count_and_drop(rule, "strayed");
	nft_rule_end(batch, rule, "inside rule");
}

static void into_tunnel_rule(struct nft_batch *batch, uint8_t family)
{
	struct nftnl_rule *rule = nft_rule(batch, "postrouting");

	nft_match_protocol(rule, family);
	match_group(batch, rule, NFT_META_OIFGROUP, SET_TUNNELS, false);
	match_source(batch, rule, family, true);
	nft_masquerade(rule);
	nft_rule_end(batch, rule, "tunnel masquerade rule");
}

static void out_rule(struct nft_batch *batch, uint8_t family)
{
	static const uint32_t loopback = LOOPBACK_INDEX;
	struct nftnl_rule *rule = nft_rule(batch, "postrouting");

	nft_match_protocol(rule, family);
	match_source(batch, rule, family, false);
	match_group(batch, rule, NFT_META_OIFGROUP, SET_OURS, true);
	nft_load_meta(rule, NFT_META_OIF, NFT_REG_1);
	nft_match(rule, NFT_CMP_NEQ, &loopback, sizeof(loopback));
	nft_masquerade(rule);
	nft_rule_end(batch, rule, "masquerade rule");
}

static void build(struct nft_batch *batch, const void *arg)
{
	(void)arg;
	nft_chain(batch, "prerouting", "filter", NF_INET_PRE_ROUTING, -300); /* before anybody translates the address */
	nft_chain(batch, "forward", "filter", NF_INET_FORWARD, -310);
	nft_chain(batch, "postrouting", "nat", NF_INET_POST_ROUTING, NAT_PRIORITY);
	spoof_rule(batch, NFPROTO_IPV4);
	spoof_rule(batch, NFPROTO_IPV6);
	lanes_rule(batch);
	inside_rule(batch, NFT_META_IIFGROUP, NFT_META_OIFGROUP);
	inside_rule(batch, NFT_META_OIFGROUP, NFT_META_IIFGROUP);
	into_tunnel_rule(batch, NFPROTO_IPV4);
	into_tunnel_rule(batch, NFPROTO_IPV6);
	out_rule(batch, NFPROTO_IPV4);
	out_rule(batch, NFPROTO_IPV6);
}

static const struct nft_def definition = {.set_count = SET_MAX,
	.sets = sets,
	.counter_count = sizeof(counters) / sizeof(counters[0]),
	.counters = counters,
	.build = build};

/* -- public -- */

int nat_open(const char *table, struct nat **ret_nat, struct err *err)
{
	struct nat *nat = alloc_new(struct nat);

	if (nft_open(table, &definition, nat, &nat->nft, err) < 0) {
		free(nat);
		return -1;
	}
	nat->there = true;
	*ret_nat = nat;
	return 0;
}

void nat_close(struct nat *nat)
{
	if (!nat)
		return;
	nft_close(nat->nft);
	free(nat);
}

struct nft *nat_nft(struct nat *nat)
{
	return nat->nft;
}

int nat_apply(struct nat *nat, const struct nat_network *networks, size_t count, bool *ret_wrote, struct err *err)
{
	struct nft_content wanted;

	*ret_wrote = false;
	if (!count)
		return nat->there ? nat_purge(nat, err) : 0;
	nft_content_init(&wanted, &definition);
	for (size_t i = 0; i < count; i++)
		add_groups(&wanted, &networks[i]);
	add_pools(&wanted, networks, count, 4);
	add_pools(&wanted, networks, count, 6);
	nat->there = true;
	return nft_apply(nat->nft, &wanted, ret_wrote, err);
}

int nat_counters(struct nat *nat, uint64_t *ret_spoofed, uint64_t *ret_strayed, struct err *err)
{
	uint64_t spoofed = 0, strayed = 0;

	if (nat->there &&
		(nft_counter(nat->nft, "spoofed", &spoofed, err) < 0 || nft_counter(nat->nft, "strayed", &strayed, err) < 0))
		return -1;
	*ret_spoofed = spoofed;
	*ret_strayed = strayed;
	return 0;
}

int nat_purge(struct nat *nat, struct err *err)
{
	if (nft_purge(nat->nft, err) < 0)
		return -1;
	nat->there = false;
	return 0;
}

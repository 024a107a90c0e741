/* Bodies of the Docker plugin calls to plain values.
 *
 * The one place that bounds and checks what an engine sends: the backend behind it never sees an impossible value. Types are
 * strict. Unknown members are ignored, since these formats grow with the engine. `null` is "absent" everywhere, as Go writes it
 * for a nil map or slice. Options that begin with "trestle." are ours: a misspelt one is refused, because it would otherwise be
 * dropped in silence and the network made with the wrong property. */
#include "plugin/plugin_internal.h"

#include <sodium.h>
#include <string.h>

#include "base/bytes.h"
#include "base/jd.h"
#include "base/log.h"
#include "base/number.h"

#define OPT_GENERIC "com.docker.network.generic"
#define OPT_INTERNAL "com.docker.network.internal"
#define OPT_ENABLE_IPV4 "com.docker.network.enable_ipv4"
#define OPT_ENABLE_IPV6 "com.docker.network.enable_ipv6"
#define OPT_DRIVER_MTU "com.docker.network.driver.mtu"
#define OPT_IF_PREFIX "com.docker.network.container_iface_prefix"
#define OPT_MAC "com.docker.network.endpoint.macaddress"
#define OPT_ENDPOINT_NAME "com.docker.network.endpoint.name"
#define OPT_ADDRESS_TYPE "RequestAddressType"
#define ADDRESS_TYPE_GATEWAY "com.docker.network.gateway"

#define OWN_PREFIX "trestle."

#define TEXT_MAX 1024	  /* of a value that we look at */
#define NAME_MAX_BYTES 63 /* of a network's name */
#define IF_PREFIX_MAX 12  /* IFNAMSIZ less the NUL and three digits of index that the engine appends */
#define OPTIONS_MAX 256	  /* members of one option map */
#define POOL_ID_MAX 127	  /* sizeof plugin_pool_given.pool_id less the NUL */
#define MTU_MIN 576	  /* RFC 791: every host takes a datagram of 576 */
#define VNI_MAX 0xffffff  /* RFC 7348: 24 bits */
#define POOL4_SHORTEST 8
#define POOL6_SHORTEST 32

#define WORDS "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

/* ---- helpers ---- */

/* A decoder for a member of d's object; its failure becomes d's by sub_finish. */
static void sub_init(struct jd *sub, const struct jd *d, json_t *node, const char *name)
{
	char path[sizeof sub->path];
	int len;

	if (d->failed) {
		*sub = *d;
		return;
	}
	len = snprintf(path, sizeof path, "%s.%s", d->path, name);
	if (len < 0 || (size_t)len >= sizeof path)
		memcpy(path + sizeof path - 4, "...", 4);
	jd_init(sub, node, path, d->err);
}

static void sub_finish(struct jd *d, const struct jd *sub)
{
	d->failed |= sub->failed;
}

static const char *decode_id(struct jd *d, const char *name)
{
	const char *id = jd_str(d, name, PLUGIN_ID_MAX);

	if (!d->failed && (!*id || id[strspn(id, WORDS "_-")]))
		jd_fail(d, name, "expected 1 to %d of [0-9A-Za-z_-], found \"%.40s\"", PLUGIN_ID_MAX, id);
	return id;
}

static const char *decode_pool_id(struct jd *d)
{
	const char *id = jd_str(d, "PoolID", POOL_ID_MAX), *p = id;

	while (*p > ' ' && *p < 0x7f)
		p++;
	if (!d->failed && (!*id || *p))
		jd_fail(d, "PoolID", "expected 1 to %d printable characters, found \"%.40s\"", POOL_ID_MAX, id);
	return id;
}

/* Both option maps and their values are user input; a map is bounded before anyone walks it. */
static json_t *decode_options(struct jd *d)
{
	json_t *options = jd_opt_object(d, "Options");

	if (options && json_object_size(options) > OPTIONS_MAX)
		jd_fail(d, "Options", "expected at most %d members, found %zu", OPTIONS_MAX, json_object_size(options));
	return d->failed ? NULL : options;
}

static void option_fail(struct jd *d, const char *option, const char *value, const char *expected)
{
	if (d->failed)
		return;
	err_set(d->err, ERR_INVALID, "option %s: expected %s, found \"%.64s\"", option, expected, value);
	d->failed = true;
}

static uint32_t option_number(struct jd *d, const char *option, uint32_t min, uint32_t max)
{
	const char *text = jd_opt_str(d, option, TEXT_MAX);
	char expected[64];
	uint64_t value;

	if (!text)
		return 0;
	if (number_parse(text, min, max, &value) == 0)
		return value;
	snprintf(expected, sizeof expected, "a number from %u to %u", min, max);
	option_fail(d, option, text, expected);
	return 0;
}

static const char *option_name(struct jd *d)
{
	const char *name = jd_opt_str(d, "trestle.network", TEXT_MAX);
	size_t len = name ? strlen(name) : 0;

	if (!name)
		return NULL;
	if (!len || len > NAME_MAX_BYTES || name[strspn(name, WORDS "_.-")] || strchr("_.-", name[0]))
		option_fail(d, "trestle.network", name, "a name of 1 to 63 of [0-9A-Za-z_.-] that begins with a letter or digit");
	return d->failed ? NULL : name;
}

static void note_unknown(struct plugin_noted *noted, const char *what, const char *option)
{
	static const unsigned char key[crypto_shorthash_KEYBYTES];
	uint64_t hash;
	unsigned i;

	if (!noted || noted->count == PLUGIN_NOTED_MAX)
		return;
	crypto_shorthash((unsigned char *)&hash, (const unsigned char *)option, strlen(option), key);
	for (i = 0; i < noted->count; i++)
		if (noted->hashes[i] == hash)
			return;
	noted->hashes[noted->count++] = hash;
	log_info("plugin", "%s: option %.64s is not known here, ignoring it", what, option);
}

static void refuse_own(struct jd *d, const char *option, const char *const *known)
{
	char list[256] = "";
	size_t len = 0;

	for (; *known; known++)
		if (!strncmp(*known, OWN_PREFIX, strlen(OWN_PREFIX)) && len < sizeof list)
			len += snprintf(list + len, sizeof list - len, "%s%s", len ? ", " : "", *known);
	err_set(d->err, ERR_INVALID, "option %.64s is not one of ours: %s%s", option, *list ? "expected " : "none is taken here",
		list);
	d->failed = true;
}

static bool is_known(const char *option, const char *const *known)
{
	while (*known && strcmp(*known, option))
		known++;
	return *known;
}

/* Walks a map that users write into. `known` ends with NULL. */
static void check_unknown(struct jd *d, const char *what, const char *const *known, struct plugin_noted *noted)
{
	void *iter = d->failed ? NULL : json_object_iter(d->node);

	for (; iter && !d->failed; iter = json_object_iter_next(d->node, iter)) {
		const char *option = json_object_iter_key(iter);

		if (is_known(option, known))
			continue;
		if (!strncmp(option, OWN_PREFIX, strlen(OWN_PREFIX)))
			refuse_own(d, option, known);
		else
			note_unknown(noted, what, option);
	}
}

/* ---- pools ---- */

static bool is_absurd(const struct prefix *pool)
{
	static const char *const absurd[] = {"0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "::/8", "fe80::/10", "ff00::/8"};
	struct prefix bad;
	size_t i;

	for (i = 0; i < sizeof absurd / sizeof *absurd; i++)
		if (prefix_parse(absurd[i], &bad, NULL) == 0 && prefix_overlaps(&bad, pool))
			return true;
	return false;
}

static void check_pool(struct jd *d, const char *name, const struct prefix *pool)
{
	unsigned shortest = pool->ip.family == 6 ? POOL6_SHORTEST : POOL4_SHORTEST;
	char text[PREFIX_TEXT_SIZE];

	if (d->failed)
		return;
	if (pool->length < shortest)
		jd_fail(d, name, "%s is too large: expected a prefix of at least /%u", prefix_format(pool, text), shortest);
	else if (is_absurd(pool))
		jd_fail(d, name, "%s holds addresses that no container can have (this-host, loopback, link-local or multicast)",
			prefix_format(pool, text));
}

/* Keeps the list ascending and each address once: the order of a JSON object's members is nobody's, and the digest must not see
 * it. */
static void add_aux(struct plugin_pool *entry, const struct ip *ip)
{
	unsigned at = 0;

	while (at < entry->aux_count && ip_compare(&entry->aux[at], ip) < 0)
		at++;
	if (at < entry->aux_count && ip_equal(&entry->aux[at], ip))
		return;
	memmove(&entry->aux[at + 1], &entry->aux[at], (entry->aux_count - at) * sizeof entry->aux[0]);
	entry->aux[at] = *ip;
	entry->aux_count++;
}

/* {name: CIDR}. The names are users' text, so an error says which one it is about. */
static void decode_aux(struct jd *d, struct plugin_pool *entry)
{
	json_t *aux = jd_opt_object(d, "AuxAddresses"), *value;
	struct prefix address;
	const char *name;

	if (!aux || d->failed)
		return;
	if (json_object_size(aux) > PLUGIN_AUX_MAX)
		jd_fail(d, "AuxAddresses", "expected at most %d members, found %zu", PLUGIN_AUX_MAX, json_object_size(aux));
	for (void *iter = json_object_iter(aux); iter && !d->failed; iter = json_object_iter_next(aux, iter)) {
		name = json_object_iter_key(iter);
		value = json_object_iter_value(iter);
		if (!json_is_string(value))
			jd_fail(d, "AuxAddresses", "member \"%.40s\" is not a string", name);
		else if (prefix_parse(json_string_value(value), &address, NULL) < 0)
			jd_fail(d, "AuxAddresses", "member \"%.40s\": expected ADDRESS/LENGTH, found \"%.60s\"", name,
				json_string_value(value));
		else if (!prefix_contains(&entry->pool, &address.ip))
			jd_fail(d, "AuxAddresses", "member \"%.40s\": %s is outside the pool", name, json_string_value(value));
		else
			add_aux(entry, &address.ip);
	}
}

static void decode_pool_entry(struct jd *d, uint8_t family, struct plugin_pool *ret_pool)
{
	struct plugin_pool entry = {.pool = jd_prefix(d, "Pool"), .gateway = jd_opt_prefix(d, "Gateway")};
	char text[PREFIX_TEXT_SIZE];

	jd_opt_str(d, "AddressSpace", TEXT_MAX);
	if (d->failed)
		return;
	entry.pool = prefix_masked(&entry.pool);
	if (entry.pool.ip.family != family) {
		jd_fail(d, "Pool", "expected an IPv%u prefix, found %s", family, prefix_format(&entry.pool, text));
		return;
	}
	check_pool(d, "Pool", &entry.pool);
	if (prefix_is_set(&entry.gateway) && !prefix_contains(&entry.pool, &entry.gateway.ip))
		jd_fail(d, "Gateway", "%s is outside the pool", prefix_format(&entry.gateway, text));
	decode_aux(d, &entry);
	*ret_pool = entry;
}

static unsigned decode_pools(struct jd *d, const char *name, uint8_t family, struct plugin_pool pools[PLUGIN_POOLS_MAX])
{
	json_t *array = jd_opt_array(d, name), *node;
	char text[PREFIX_TEXT_SIZE], index[32];
	size_t i, j;

	if (!array || d->failed)
		return 0;
	if (json_array_size(array) > PLUGIN_POOLS_MAX) {
		jd_fail(d, name, "expected at most %d pools, found %zu", PLUGIN_POOLS_MAX, json_array_size(array));
		return 0;
	}
	json_array_foreach(array, i, node)
	{
		struct jd sub;

		snprintf(index, sizeof index, "%s[%zu]", name, i);
		sub_init(&sub, d, node, index);
		decode_pool_entry(&sub, family, &pools[i]);
		for (j = 0; j < i && !sub.failed; j++)
			if (prefix_overlaps(&pools[i].pool, &pools[j].pool))
				jd_fail(&sub, "Pool", "%s overlaps %s[%zu]", prefix_format(&pools[i].pool, text), name, j);
		sub_finish(d, &sub);
	}
	return d->failed ? 0 : json_array_size(array);
}

/* ---- CreateNetwork ---- */

static uint32_t option_mtu(struct jd *d)
{
	uint32_t engine = option_number(d, OPT_DRIVER_MTU, MTU_MIN, 65535);
	uint32_t ours = option_number(d, "trestle.mtu", MTU_MIN, 65535);
	char value[16];

	if (engine && ours && engine != ours) {
		snprintf(value, sizeof value, "%u", ours);
		option_fail(d, "trestle.mtu", value, "the value of " OPT_DRIVER_MTU " or only one of the two");
	}
	return ours ? ours : engine;
}

static const char *option_mode(struct jd *d)
{
	const char *mode = jd_opt_str(d, "trestle.mode", TEXT_MAX);

	if (mode && strcmp(mode, "l2"))
		option_fail(d, "trestle.mode", mode,
			"l2: an engine gives its containers a subnet and a gateway in it, which is a segment. Mode l3 is for "
			"CNI");
	return mode;
}

static const char *option_if_prefix(struct jd *d)
{
	const char *prefix = jd_opt_str(d, OPT_IF_PREFIX, TEXT_MAX);

	if (!prefix)
		return "eth";
	if (!*prefix || strlen(prefix) > IF_PREFIX_MAX || prefix[strspn(prefix, WORDS "_-")])
		option_fail(d, OPT_IF_PREFIX, prefix, "1 to 12 of [0-9A-Za-z_-]");
	return prefix;
}

/* Docker's overlay knows -o encrypted. Ignoring it like other unknown options would send in the clear what someone asked to
 * protect. */
static void refuse_encrypted(struct jd *d)
{
	const char *value = jd_opt_str(d, "encrypted", TEXT_MAX);

	if (value && strcmp(value, "false") && strcmp(value, "0"))
		option_fail(d, "encrypted", value, "it to be left out (this version does not encrypt container traffic)");
}

static void decode_generic(struct jd *d, const char *what, struct plugin_noted *noted, struct plugin_create_network *ret)
{
	static const char *const known[] = {OPT_DRIVER_MTU, OPT_IF_PREFIX, "encrypted", "trestle.network", "trestle.mtu",
		"trestle.vni", "trestle.mode", NULL};

	if (json_object_size(d->node) > OPTIONS_MAX)
		jd_fail(d, NULL, "expected at most %d members, found %zu", OPTIONS_MAX, json_object_size(d->node));
	ret->name = option_name(d);
	ret->mtu = option_mtu(d);
	ret->vni = option_number(d, "trestle.vni", 1, VNI_MAX);
	ret->mode = option_mode(d);
	ret->if_prefix = option_if_prefix(d);
	refuse_encrypted(d);
	check_unknown(d, what, known, noted);
}

static void decode_network_options(struct jd *d, const char *what, struct plugin_noted *noted, struct plugin_create_network *ret)
{
	json_t *options = decode_options(d), *generic;
	struct jd sub, inner;

	ret->if_prefix = "eth";
	if (!options)
		return;
	sub_init(&sub, d, options, "Options");
	ret->internal = jd_opt_bool(&sub, OPT_INTERNAL, false);
	ret->enable_ipv6 = jd_opt_bool(&sub, OPT_ENABLE_IPV6, false);
	jd_opt_bool(&sub, OPT_ENABLE_IPV4, true);
	generic = jd_opt_object(&sub, OPT_GENERIC);
	if (generic && !sub.failed) {
		sub_init(&inner, &sub, generic, "generic");
		decode_generic(&inner, what, noted, ret);
		sub_finish(&sub, &inner);
	}
	sub_finish(d, &sub);
}

static void write_pools(struct bytes_writer *w, const struct plugin_pool *pools, unsigned count)
{
	unsigned i;

	bw_varint(w, count);
	for (i = 0; i < count; i++) {
		bw_ip(w, &pools[i].pool.ip);
		bw_u8(w, pools[i].pool.length);
		bw_ip(w, &pools[i].gateway.ip);
		bw_varint(w, pools[i].aux_count);
		for (unsigned j = 0; j < pools[i].aux_count; j++)
			bw_ip(w, &pools[i].aux[j]);
	}
}

static void make_digest(struct plugin_create_network *net)
{
	uint8_t buf[16384]; /* 32 pools of at most 36 bytes and 16 auxiliary addresses of 17, and texts of at most 63 */
	struct bytes_writer w;

	bw_init(&w, buf, sizeof buf);
	write_pools(&w, net->pool4, net->pool4_count);
	write_pools(&w, net->pool6, net->pool6_count);
	bw_u8(&w, net->internal);
	bw_u8(&w, net->enable_ipv6);
	bw_u32(&w, net->mtu);
	bw_u32(&w, net->vni);
	bw_text(&w, net->name ? net->name : "");
	bw_text(&w, net->mode ? net->mode : "l2");
	bw_text(&w, net->if_prefix);
	crypto_generichash(net->digest, sizeof net->digest, buf, w.len, NULL, 0);
}

int plugin_decode_create_network(
	json_t *body, const char *what, struct plugin_noted *noted, union plugin_args *ret_args, struct err *err)
{
	struct plugin_create_network *net = &ret_args->create_network;
	struct jd d;

	*net = (struct plugin_create_network){0};
	jd_init(&d, body, what, err);
	net->network_id = decode_id(&d, "NetworkID");
	decode_network_options(&d, what, noted, net);
	net->pool4_count = decode_pools(&d, "IPv4Data", 4, net->pool4);
	net->pool6_count = decode_pools(&d, "IPv6Data", 6, net->pool6);
	if (!d.failed && !net->pool4_count && !net->pool6_count)
		jd_fail(&d, "IPv4Data", "expected a pool in it or in IPv6Data, found none");
	if (jd_finish(&d) < 0)
		return -1;
	make_digest(net);
	return 0;
}

/* ---- other calls of the network driver ---- */

int plugin_decode_network(
	json_t *body, const char *what, struct plugin_noted *noted, union plugin_args *ret_args, struct err *err)
{
	struct jd d;

	(void)noted;
	jd_init(&d, body, what, err);
	ret_args->ids = (struct plugin_ids){.network_id = decode_id(&d, "NetworkID")};
	return jd_finish(&d);
}

int plugin_decode_endpoint(
	json_t *body, const char *what, struct plugin_noted *noted, union plugin_args *ret_args, struct err *err)
{
	struct jd d;

	(void)noted;
	jd_init(&d, body, what, err);
	ret_args->ids = (struct plugin_ids){.network_id = decode_id(&d, "NetworkID"), .endpoint_id = decode_id(&d, "EndpointID")};
	return jd_finish(&d);
}

int plugin_decode_join(json_t *body, const char *what, struct plugin_noted *noted, union plugin_args *ret_args, struct err *err)
{
	const char *sandbox;
	struct jd d;

	if (plugin_decode_endpoint(body, what, noted, ret_args, err) < 0)
		return -1;
	jd_init(&d, body, what, err);
	sandbox = jd_str(&d, "SandboxKey", PLUGIN_PATH_MAX);
	if (!d.failed && !*sandbox)
		jd_fail(&d, "SandboxKey", "expected a path, found an empty text");
	decode_options(&d);
	ret_args->ids.sandbox = sandbox;
	return jd_finish(&d);
}

int plugin_decode_program(
	json_t *body, const char *what, struct plugin_noted *noted, union plugin_args *ret_args, struct err *err)
{
	struct jd d;

	if (plugin_decode_endpoint(body, what, noted, ret_args, err) < 0)
		return -1;
	jd_init(&d, body, what, err);
	decode_options(&d);
	return jd_finish(&d);
}

static struct prefix decode_address(struct jd *d, const char *name, uint8_t family)
{
	struct prefix address = jd_opt_prefix(d, name);
	char text[PREFIX_TEXT_SIZE];

	if (!d->failed && prefix_is_set(&address) && address.ip.family != family)
		jd_fail(d, name, "expected an IPv%u address, found %s", family, prefix_format(&address, text));
	return address;
}

static struct mac decode_mac(struct jd *d, const char *name)
{
	const char *text = jd_opt_str(d, name, TEXT_MAX);
	struct mac mac = jd_opt_mac(d, name);

	if (!d->failed && text && *text && (mac_is_zero(&mac) || mac.bytes[0] & 1))
		jd_fail(d, name, "expected the address of one station, found %s", text);
	return mac;
}

static void decode_interface(struct jd *d, struct plugin_create_endpoint *ret)
{
	json_t *interface = jd_opt_object(d, "Interface");
	struct jd sub;

	if (interface && !d->failed) {
		sub_init(&sub, d, interface, "Interface");
		ret->address4 = decode_address(&sub, "Address", 4);
		ret->address6 = decode_address(&sub, "AddressIPv6", 6);
		ret->mac = decode_mac(&sub, "MacAddress");
		sub_finish(d, &sub);
	}
	if (!d->failed && !prefix_is_set(&ret->address4) && !prefix_is_set(&ret->address6))
		jd_fail(d, "Interface",
			"expected Address or AddressIPv6, found neither: addresses come from the network's IPAM driver "
			"(--ipam-driver trestle)");
}

int plugin_decode_create_endpoint(
	json_t *body, const char *what, struct plugin_noted *noted, union plugin_args *ret_args, struct err *err)
{
	/* The MAC of the options is base64 and repeats Interface.MacAddress; ports are published through docker_gwbridge. */
	static const char *const ignored[] = {OPT_MAC, "com.docker.network.endpoint.exposedports", "com.docker.network.portmap",
		"com.docker.network.endpoint.dnsservers", "com.docker.network.endpoint.sysctls", NULL};
	struct plugin_create_endpoint *ep = &ret_args->create_endpoint;
	json_t *options;
	struct jd d, sub;

	*ep = (struct plugin_create_endpoint){0};
	jd_init(&d, body, what, err);
	ep->network_id = decode_id(&d, "NetworkID");
	ep->endpoint_id = decode_id(&d, "EndpointID");
	decode_interface(&d, ep);
	options = decode_options(&d);
	if (options) {
		sub_init(&sub, &d, options, "Options");
		check_unknown(&sub, what, ignored, noted);
		sub_finish(&d, &sub);
	}
	return jd_finish(&d);
}

int plugin_decode_discover(
	json_t *body, const char *what, struct plugin_noted *noted, union plugin_args *ret_args, struct err *err)
{
	struct jd d;

	(void)noted;
	(void)ret_args;
	jd_init(&d, body, what, err);
	jd_opt_int(&d, "DiscoveryType", INT32_MIN, INT32_MAX, 0);
	return jd_finish(&d);
}

int plugin_decode_gw_alloc_check(
	json_t *body, const char *what, struct plugin_noted *noted, union plugin_args *ret_args, struct err *err)
{
	struct jd d;

	(void)noted;
	(void)ret_args;
	jd_init(&d, body, what, err);
	decode_options(&d);
	return jd_finish(&d);
}

int plugin_decode_allocate_network(
	json_t *body, const char *what, struct plugin_noted *noted, union plugin_args *ret_args, struct err *err)
{
	json_t *options, *value;
	const char *name;
	struct jd d;

	(void)noted;
	jd_init(&d, body, what, err);
	decode_id(&d, "NetworkID");
	options = decode_options(&d);
	json_object_foreach(options, name, value) if (!json_is_string(value))
		jd_fail(&d, "Options", "member \"%.40s\" is not a string", name);
	ret_args->options = options;
	return jd_finish(&d);
}

/* ---- IPAM driver ---- */

static const char *decode_space(struct jd *d)
{
	const char *space = jd_str(d, "AddressSpace", TEXT_MAX);

	if (!d->failed && strcmp(space, PLUGIN_SPACE_LOCAL) && strcmp(space, PLUGIN_SPACE_GLOBAL))
		jd_fail(d, "AddressSpace", "expected %s or %s, found \"%.40s\"", PLUGIN_SPACE_LOCAL, PLUGIN_SPACE_GLOBAL, space);
	return space;
}

/* "0.0.0.0/28" or "::/64" (engines from 29.0): any free pool of that length. */
static bool is_any_of_length(const struct prefix *pool)
{
	return prefix_is_set(pool) && ip_number(&pool->ip) == 0;
}

static void decode_pool_and_sub_pool(struct jd *d, struct plugin_request_pool *ret)
{
	char text[PREFIX_TEXT_SIZE];
	unsigned shortest;

	ret->pool = jd_opt_prefix(d, "Pool");
	ret->within = jd_opt_prefix(d, "SubPool");
	if (d->failed)
		return;
	ret->pool = prefix_masked(&ret->pool);
	ret->within = prefix_masked(&ret->within);
	if (prefix_is_set(&ret->within) && (!prefix_is_set(&ret->pool) || is_any_of_length(&ret->pool))) {
		jd_fail(d, "SubPool", "expected Pool to be given with it (--subnet with --ip-range)");
		return;
	}
	if (prefix_is_set(&ret->within) && !prefix_contains_prefix(&ret->pool, &ret->within)) {
		jd_fail(d, "SubPool", "%s is outside Pool", prefix_format(&ret->within, text));
		return;
	}
	if (!is_any_of_length(&ret->pool)) {
		if (prefix_is_set(&ret->pool))
			check_pool(d, "Pool", &ret->pool);
		return;
	}
	shortest = ret->pool.ip.family == 6 ? POOL6_SHORTEST : POOL4_SHORTEST;
	if (ret->pool.length < shortest)
		jd_fail(d, "Pool", "%s is too large: expected a prefix of at least /%u", prefix_format(&ret->pool, text),
			shortest);
}

int plugin_decode_request_pool(
	json_t *body, const char *what, struct plugin_noted *noted, union plugin_args *ret_args, struct err *err)
{
	/* Swarm adds the last two. */
	static const char *const known[] = {"trestle.network", "com.docker.network.ipam.serial", OPT_ADDRESS_TYPE, NULL};
	struct plugin_request_pool *req = &ret_args->request_pool;
	json_t *options;
	struct jd d, sub;

	*req = (struct plugin_request_pool){0};
	jd_init(&d, body, what, err);
	req->space = decode_space(&d);
	decode_pool_and_sub_pool(&d, req);
	req->v6 = jd_opt_bool(&d, "V6", false);
	/* Swarm never sets V6, so an explicit prefix decides. */
	if (!d.failed && prefix_is_set(&req->pool))
		req->v6 = req->pool.ip.family == 6;
	options = decode_options(&d);
	if (options) {
		sub_init(&sub, &d, options, "Options");
		req->name = option_name(&sub);
		check_unknown(&sub, what, known, noted);
		sub_finish(&d, &sub);
	}
	return jd_finish(&d);
}

int plugin_decode_pool(json_t *body, const char *what, struct plugin_noted *noted, union plugin_args *ret_args, struct err *err)
{
	struct jd d;

	(void)noted;
	jd_init(&d, body, what, err);
	ret_args->release = (struct plugin_release){.pool_id = decode_pool_id(&d)};
	return jd_finish(&d);
}

int plugin_decode_request_address(
	json_t *body, const char *what, struct plugin_noted *noted, union plugin_args *ret_args, struct err *err)
{
	struct plugin_request_address *req = &ret_args->request_address;
	const char *type = NULL;
	json_t *options;
	struct jd d, sub;

	(void)noted; /* swarm passes the driver's options along: nothing unknown is worth a line here */
	*req = (struct plugin_request_address){0};
	jd_init(&d, body, what, err);
	req->pool_id = decode_pool_id(&d);
	req->address = jd_opt_ip(&d, "Address");
	options = decode_options(&d);
	if (options) {
		sub_init(&sub, &d, options, "Options");
		type = jd_opt_str(&sub, OPT_ADDRESS_TYPE, TEXT_MAX);
		req->mac = decode_mac(&sub, OPT_MAC);
		req->endpoint_name = jd_opt_str(&sub, OPT_ENDPOINT_NAME, TEXT_MAX);
		sub_finish(&d, &sub);
	}
	if (jd_finish(&d) < 0)
		return -1;
	req->gateway = type && !strcmp(type, ADDRESS_TYPE_GATEWAY);
	/* Up to engine 28 `--aux-address` and `--ip` look alike: an address and no options. Such a request may be either. */
	req->endpoint = !req->gateway && (!ip_is_set(&req->address) || !mac_is_zero(&req->mac) || req->endpoint_name);
	return 0;
}

int plugin_decode_release_address(
	json_t *body, const char *what, struct plugin_noted *noted, union plugin_args *ret_args, struct err *err)
{
	struct plugin_release *req = &ret_args->release;
	const char *text;
	struct prefix cidr;
	struct jd d;

	(void)noted;
	*req = (struct plugin_release){0};
	jd_init(&d, body, what, err);
	req->pool_id = decode_pool_id(&d);
	text = jd_str(&d, "Address", TEXT_MAX);
	/* The engine sends a plain address; the answer to RequestAddress was a CIDR, and that is taken too. */
	if (!d.failed && prefix_parse(text, &cidr, NULL) == 0)
		req->address = cidr.ip;
	else if (!d.failed && ip_parse(text, &req->address, NULL) < 0)
		jd_fail(&d, "Address", "expected an IP address, found \"%.64s\"", text);
	return jd_finish(&d);
}

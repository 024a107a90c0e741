/* Each value has one put_ and one get_ function that name the same members in the same order: the layout is what they say. */
#include "daemon/records.h"

#include <sodium.h>
#include <string.h>

#include "base/bytes.h"

#define FORMAT 1

static void put_prefix(struct bytes_writer *w, const struct prefix *p)
{
	bw_ip(w, &p->ip);
	bw_u8(w, p->length);
}

static void get_prefix(struct bytes_reader *r, struct prefix *p)
{
	br_ip(r, &p->ip);
	p->length = br_u8(r);
	if (p->length > (ip_is_set(&p->ip) ? ip_bits(&p->ip) : 0))
		r->bad = true;
}

/* A subnet: set, and without host bits, since subnets are compared as values. */
static void get_subnet(struct bytes_reader *r, struct prefix *p)
{
	struct prefix masked;

	get_prefix(r, p);
	masked = prefix_masked(p);
	if (!prefix_is_set(p) || !prefix_equal(p, &masked))
		r->bad = true;
}

/* An interface's address, or none. */
static void get_address(struct bytes_reader *r, uint8_t family, struct prefix *p)
{
	get_prefix(r, p);
	if (prefix_is_set(p) && p->ip.family != family)
		r->bad = true;
}

static void get_station(struct bytes_reader *r, struct mac *mac)
{
	br_mac(r, mac);
	if (mac_is_zero(mac) || (mac->bytes[0] & 1))
		r->bad = true;
}

static void get_ip_within(struct bytes_reader *r, const struct prefix *prefix, struct ip *ip)
{
	br_ip(r, ip);
	if (!ip_is_set(ip) || !prefix_contains(prefix, ip))
		r->bad = true;
}

static void get_bool(struct bytes_reader *r, bool *ret)
{
	uint8_t v = br_u8(r);
	if (v > 1)
		r->bad = true;
	*ret = v == 1;
}

static unsigned get_count(struct bytes_reader *r, unsigned max)
{
	uint64_t n = br_varint(r);
	if (n > max) {
		r->bad = true;
		return 0;
	}
	return (unsigned)n;
}

static void get_raw(struct bytes_reader *r, void *to, size_t len)
{
	const uint8_t *p = br_bytes(r, len);
	if (p)
		memcpy(to, p, len);
}

static size_t finish(const struct bytes_writer *w)
{
	return w->overflow ? 0 : w->len;
}

static int begin(struct bytes_reader *r, const void *bytes, size_t len, const char *what, struct err *err)
{
	uint8_t format;

	br_init(r, bytes, len);
	format = br_u8(r);
	if (!r->bad && format > FORMAT)
		return err_set(err, ERR_VERSION, "%s: format %u, this version knows up to %d", what, format, FORMAT);
	if (r->bad || format == 0)
		return err_set(err, ERR_CORRUPT, "%s: %zu bytes that do not decode", what, len);
	return 0;
}

static int end(const struct bytes_reader *r, size_t len, const char *what, struct err *err)
{
	return br_done(r) ? 0 : err_set(err, ERR_CORRUPT, "%s: %zu bytes that do not decode", what, len);
}

/* One encode and one decode function per value, around put_NAME and get_NAME. */
#define CODEC(name, what)                                                                                                        \
	size_t name##_encode(const struct name *v, void *buf, size_t size)                                                       \
	{                                                                                                                        \
		struct bytes_writer w;                                                                                           \
		bw_init(&w, buf, size);                                                                                          \
		bw_u8(&w, FORMAT);                                                                                               \
		put_##name(&w, v);                                                                                               \
		return finish(&w);                                                                                               \
	}                                                                                                                        \
	int name##_decode(const void *bytes, size_t len, struct name *ret, struct err *err)                                      \
	{                                                                                                                        \
		struct bytes_reader r;                                                                                           \
		struct name v;                                                                                                   \
		memset(&v, 0, sizeof(v));                                                                                        \
		if (begin(&r, bytes, len, what, err) < 0)                                                                        \
			return -1;                                                                                               \
		get_##name(&r, &v);                                                                                              \
		if (end(&r, len, what, err) < 0)                                                                                 \
			return -1;                                                                                               \
		*ret = v;                                                                                                        \
		return 0;                                                                                                        \
	}

enum { NETWORK_INTERNAL = 1, NETWORK_ROUTED = 2 };

static void put_network_def(struct bytes_writer *w, const struct network_def *d)
{
	bw_id(w, &d->id);
	bw_u32(w, d->version);
	bw_text(w, d->name);
	bw_u24(w, d->vni);
	bw_u16(w, (uint16_t)d->mtu);
	bw_u8(w, (d->internal ? NETWORK_INTERNAL : 0) | (d->routed ? NETWORK_ROUTED : 0));
	bw_varint(w, d->pool_count);
	for (unsigned i = 0; i < d->pool_count; i++)
		put_prefix(w, &d->pools[i]);
	bw_u24(w, d->creator);
	bw_u64(w, d->created_s);
}

static void get_network_def(struct bytes_reader *r, struct network_def *d)
{
	uint8_t flags;

	br_id(r, &d->id);
	d->version = br_u32(r);
	br_word(r, d->name, sizeof(d->name));
	d->vni = br_u24(r);
	d->mtu = br_u16(r);
	flags = br_u8(r);
	d->internal = flags & NETWORK_INTERNAL;
	d->routed = flags & NETWORK_ROUTED;
	r->bad |= (flags & ~(NETWORK_INTERNAL | NETWORK_ROUTED)) != 0;
	d->pool_count = get_count(r, NETWORK_POOLS_MAX);
	for (unsigned i = 0; i < d->pool_count; i++)
		get_subnet(r, &d->pools[i]);
	d->creator = br_u24(r);
	d->created_s = br_u64(r);
	if (!d->name[0] || d->vni == 0 || d->mtu < 68)
		r->bad = true;
}
CODEC(network_def, "network definition")

int network_def_compare(const struct network_def *a, const struct network_def *b)
{
	uint8_t x[GOSSIP_VALUE_MAX], y[GOSSIP_VALUE_MAX];
	size_t nx, ny;
	int order;

	if (a->version != b->version)
		return a->version > b->version ? 1 : -1;
	nx = network_def_encode(a, x, sizeof(x));
	ny = network_def_encode(b, y, sizeof(y));
	order = memcmp(x, y, nx < ny ? nx : ny);
	return order ? order : (nx > ny) - (nx < ny);
}

bool network_def_has(const struct network_def *def, const struct prefix *pool)
{
	for (unsigned i = 0; i < def->pool_count; i++)
		if (prefix_equal(&def->pools[i], pool))
			return true;
	return false;
}

static void put_pool_def(struct bytes_writer *w, const struct pool_def *d)
{
	bw_id(w, &d->id);
	bw_u8(w, (uint8_t)d->space);
	put_prefix(w, &d->prefix);
	bw_text(w, d->name);
	bw_u24(w, d->creator);
	bw_u8(w, d->wanted);
}

static void get_pool_def(struct bytes_reader *r, struct pool_def *d)
{
	uint8_t space;

	br_id(r, &d->id);
	space = br_u8(r);
	get_subnet(r, &d->prefix);
	br_word(r, d->name, sizeof(d->name));
	d->creator = br_u24(r);
	get_bool(r, &d->wanted);
	if (space > POOL_SPACE_HOSTNO)
		r->bad = true;
	d->space = (enum pool_space)space;
}
CODEC(pool_def, "pool definition")

/* The engine's ids are hexadecimal: two digits to a byte, behind a length that says so. */
#define SHORT_ID_HEX 0x80

static bool is_hex(const char *id, size_t len)
{
	return len > 0 && len % 2 == 0 && strspn(id, "0123456789abcdef") == len;
}

static void put_short_id(struct bytes_writer *w, const char *id)
{
	uint8_t bytes[ENDPOINT_SHORT_MAX / 2];
	size_t len = strlen(id);

	if (!is_hex(id, len) || sodium_hex2bin(bytes, sizeof(bytes), id, len, NULL, NULL, NULL) != 0) {
		bw_text(w, id);
		return;
	}
	bw_u8(w, (uint8_t)(SHORT_ID_HEX | len / 2));
	bw_bytes(w, bytes, len / 2);
}

static void get_short_id(struct bytes_reader *r, char id[ENDPOINT_SHORT_MAX + 1])
{
	uint8_t first = br_u8(r);
	bool hex = first & SHORT_ID_HEX;
	size_t len = first & ~SHORT_ID_HEX;
	const uint8_t *bytes = br_bytes(r, len);

	id[0] = '\0';
	if (r->bad || len > (hex ? ENDPOINT_SHORT_MAX / 2 : ENDPOINT_SHORT_MAX) || (hex && len == 0)) {
		r->bad = true;
	} else if (hex) {
		sodium_bin2hex(id, ENDPOINT_SHORT_MAX + 1, bytes, len);
	} else {
		memcpy(id, bytes, len);
		id[len] = '\0';
		for (size_t i = 0; i < len; i++)
			r->bad |= bytes[i] <= ' ' || bytes[i] > '~';
		r->bad |= is_hex(id, len); /* one value has one form */
	}
}

static void put_endpoint_record(struct bytes_writer *w, const struct endpoint_record *e)
{
	put_short_id(w, e->short_id);
	bw_mac(w, &e->mac);
	bw_ip(w, &e->ip4);
	bw_ip(w, &e->ip6);
	bw_varint(w, e->since_s);
}

static void get_endpoint_record(struct bytes_reader *r, struct endpoint_record *e)
{
	get_short_id(r, e->short_id);
	get_station(r, &e->mac);
	br_ip(r, &e->ip4);
	br_ip(r, &e->ip6);
	e->since_s = br_varint(r);
	if ((e->ip4.family && e->ip4.family != 4) || (e->ip6.family && e->ip6.family != 6))
		r->bad = true;
}
CODEC(endpoint_record, "endpoint record")

static void put_cluster_state(struct bytes_writer *w, const struct cluster_state *s)
{
	bw_id(w, &s->cluster_id);
	bw_bytes(w, s->key, sizeof(s->key));
	bw_u32(w, s->hostno);
	bw_u32(w, s->epoch);
	bw_id(w, &s->hostno_pool);
	bw_u8(w, s->known);
}

static void get_cluster_state(struct bytes_reader *r, struct cluster_state *s)
{
	br_id(r, &s->cluster_id);
	get_raw(r, s->key, sizeof(s->key));
	s->hostno = br_u32(r);
	s->epoch = br_u32(r);
	br_id(r, &s->hostno_pool);
	get_bool(r, &s->known);
	if (s->hostno == 0 || s->hostno > GOSSIP_HOSTNO_MAX)
		r->bad = true;
}
CODEC(cluster_state, "cluster state")

static void put_network_state(struct bytes_writer *w, const struct network_state *s)
{
	put_network_def(w, &s->def);
	bw_u8(w, s->pinned);
}

static void get_network_state(struct bytes_reader *r, struct network_state *s)
{
	get_network_def(r, &s->def);
	get_bool(r, &s->pinned);
}
CODEC(network_state, "stored network")

static void put_docker_network_state(struct bytes_writer *w, const struct docker_network_state *s)
{
	bw_id(w, &s->network);
	bw_bytes(w, s->digest, sizeof(s->digest));
	bw_text(w, s->if_prefix);
	bw_u8(w, s->internal);
}

static void get_docker_network_state(struct bytes_reader *r, struct docker_network_state *s)
{
	br_id(r, &s->network);
	get_raw(r, s->digest, sizeof(s->digest));
	br_word(r, s->if_prefix, sizeof(s->if_prefix));
	get_bool(r, &s->internal);
}
CODEC(docker_network_state, "stored engine network")

static void put_pool_state(struct bytes_writer *w, const struct pool_state *s)
{
	put_pool_def(w, &s->def);
	bw_u8(w, s->pinned);
	bw_varint(w, s->ref_count);
	for (unsigned i = 0; i < s->ref_count; i++) {
		put_prefix(w, &s->refs[i].within);
		bw_u32(w, s->refs[i].count);
	}
	bw_varint(w, s->gateway_count);
	bw_varint(w, s->aux_count);
	for (unsigned i = 0; i < s->gateway_count; i++)
		bw_ip(w, &s->gateways[i]);
	for (unsigned i = 0; i < s->aux_count; i++)
		bw_ip(w, &s->aux[i]);
}

static void get_pool_state(struct bytes_reader *r, struct pool_state *s)
{
	get_pool_def(r, &s->def);
	get_bool(r, &s->pinned);
	s->ref_count = get_count(r, POOL_REFS_MAX);
	for (unsigned i = 0; i < s->ref_count; i++) {
		get_prefix(r, &s->refs[i].within);
		s->refs[i].count = br_u32(r);
		if (s->refs[i].count == 0 ||
			(prefix_is_set(&s->refs[i].within) && !prefix_contains_prefix(&s->def.prefix, &s->refs[i].within)))
			r->bad = true;
	}
	s->gateway_count = get_count(r, POOL_GATEWAYS_MAX);
	s->aux_count = get_count(r, POOL_AUX_MAX);
	for (unsigned i = 0; i < s->gateway_count; i++)
		get_ip_within(r, &s->def.prefix, &s->gateways[i]);
	for (unsigned i = 0; i < s->aux_count; i++)
		get_ip_within(r, &s->def.prefix, &s->aux[i]);
}
CODEC(pool_state, "stored pool")

static void put_endpoint_state(struct bytes_writer *w, const struct endpoint_state *s)
{
	bw_text(w, s->docker_network);
	bw_id(w, &s->network);
	bw_mac(w, &s->mac);
	bw_u8(w, s->mac_given);
	put_prefix(w, &s->address4);
	put_prefix(w, &s->address6);
	bw_text(w, s->peer_name);
	bw_u8(w, s->joined);
	bw_u8(w, s->left);
	bw_u8(w, s->own_lease4);
	bw_u8(w, s->own_lease6);
	bw_text(w, s->sandbox);
	bw_u64(w, s->since_s);
}

static void get_endpoint_state(struct bytes_reader *r, struct endpoint_state *s)
{
	br_word(r, s->docker_network, sizeof(s->docker_network));
	br_id(r, &s->network);
	get_station(r, &s->mac);
	get_bool(r, &s->mac_given);
	get_address(r, 4, &s->address4);
	get_address(r, 6, &s->address6);
	br_word(r, s->peer_name, sizeof(s->peer_name));
	get_bool(r, &s->joined);
	get_bool(r, &s->left);
	get_bool(r, &s->own_lease4);
	get_bool(r, &s->own_lease6);
	br_text(r, s->sandbox, sizeof(s->sandbox));
	s->since_s = br_u64(r);
}
CODEC(endpoint_state, "stored endpoint")

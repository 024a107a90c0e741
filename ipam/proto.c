/* Encoders and decoders of the address management: see proto_internal.h for the rules, docs/ipam.md for the layouts.
 *
 *   message   format:u8 type:u8 pool:16 xid:u64 body
 *     REQ     flags:u8 start:v len:v count:v
 *     GRANT   n:u8 n*(start:v len-1:v reign:v version:v) rest:u8
 *     DENY    reason:u8 bucket:u8 owner:text n:u8 n*(hostno:v bucket:u8)
 *     MOVED   to:v reign:v version:v
 *     ACK     like GRANT, without rest
 *     CLAIM   decree ask:u8 cursor:v n:u8 n*(hostno:v number:v)
 *     PROMISE decree flags:u8 ask:u8 cursor:v, until the end: hosts hostno:v; pools pool:16; ranges start:v len-1:v reign:v
 * version:v to:v DECREE  decree decree    victim:v id:16 heir:v id:16 number:v flags:u8 n:u8 n*hostno:v chunk     format:u8
 * flags:u8 bucket:u8 items, each kind:u8 and 1 holding  gap-after-the-holding-before:v len-1:v reign:v version:v 2 offer start:v
 * len-1:v reign:v version:v to:v xid:u64 3 shared   offset:v flags:u8 tag:u32 saved     'P' pool:16           -> format family:u8
 * address length:u8 flags:u8 wanted:u8 spares:v 'C' pool:16 start:16  -> format len-1:v reign:v version:v to:v xid:u64 'L'
 * pool:16 offset:16 -> format state:u8 use:u8 flags:u8 since:u64 owner:text 'F' zero:16 victim:16 -> format kind:u8 (0 said
 * goodbye, 1 decree) decree
 *
 * v is LEB128, here up to 128 bits (19 bytes), shortest form only. A length is stored less one, so an empty range cannot be
 * written. */
#include "ipam/proto_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"

#define LEB128_MAX 19

static void put_v(struct bytes_writer *w, u128 value)
{
	while (value >= 0x80) {
		bw_u8(w, (uint8_t)value | 0x80);
		value >>= 7;
	}
	bw_u8(w, (uint8_t)value);
}

size_t v_size(u128 value)
{
	size_t size = 1;

	for (; value >= 0x80; value >>= 7)
		size++;
	return size;
}

static u128 get_v(struct bytes_reader *r)
{
	u128 value = 0;

	for (unsigned i = 0; i < LEB128_MAX; i++) {
		uint8_t byte = br_u8(r);

		if (i == LEB128_MAX - 1 && byte > 3)
			break; /* bits beyond 128 */
		value |= (u128)(byte & 0x7f) << (7 * i);
		if (!(byte & 0x80)) {
			if (byte == 0 && i > 0)
				break; /* not the shortest form */
			return value;
		}
	}
	r->bad = true;
	return 0;
}

static uint32_t get_u32(struct bytes_reader *r)
{
	u128 value = get_v(r);

	if (value > UINT32_MAX)
		r->bad = true;
	return (uint32_t)value;
}

static uint32_t get_hostno(struct bytes_reader *r)
{
	uint32_t hostno = get_u32(r);

	if (hostno == 0 || hostno > IPAM_HOSTNO_MAX)
		r->bad = true;
	return hostno;
}

static uint64_t get_u64(struct bytes_reader *r)
{
	u128 value = get_v(r);

	if (value > UINT64_MAX)
		r->bad = true;
	return (uint64_t)value;
}

static void put_range(struct bytes_writer *w, u128 start, const struct custody *range)
{
	put_v(w, start);
	put_v(w, range->len - 1);
	put_v(w, range->reign);
	put_v(w, range->version);
}

/* A range ends at 2^128 - 1 at the latest, so that its end can be computed anywhere without a second thought. */
static void get_range(struct bytes_reader *r, u128 base, struct custody *ret)
{
	u128 gap = get_v(r), less_one = get_v(r);

	*ret = (struct custody){.reign = get_u32(r)};
	ret->version = get_u64(r);
	ret->start = base + gap;
	ret->len = less_one + 1;
	if (ret->start < base || ret->len == 0 || ret->start + ret->len < ret->start)
		r->bad = true;
}

/* --- messages --- */

/* With whom it is for. */
static void put_gift(struct bytes_writer *w, const struct custody *gift)
{
	put_range(w, gift->start, gift);
	put_v(w, gift->to);
}

static void get_gift(struct bytes_reader *r, struct custody *ret)
{
	get_range(r, 0, ret);
	ret->to = get_hostno(r);
}

static void put_ranges(struct bytes_writer *w, const struct ipam_message *m)
{
	bw_u8(w, (uint8_t)m->range_count);
	for (unsigned i = 0; i < m->range_count; i++)
		put_range(w, m->ranges[i].start, &m->ranges[i]);
}

static void get_ranges(struct bytes_reader *r, struct ipam_message *m)
{
	m->range_count = br_u8(r);
	if (m->range_count == 0 || m->range_count > IPAM_RANGES_MAX) {
		r->bad = true;
		m->range_count = 0;
	}
	for (unsigned i = 0; i < m->range_count; i++)
		get_range(r, 0, &m->ranges[i]);
}

static void put_req(struct bytes_writer *w, const struct ipam_message *m)
{
	bw_u8(w, m->flags);
	put_v(w, m->start);
	put_v(w, m->len);
	put_v(w, m->count);
}

static void get_req(struct bytes_reader *r, struct ipam_message *m)
{
	m->flags = br_u8(r);
	m->start = get_v(r);
	m->len = get_v(r);
	m->count = get_u32(r);
	if ((m->flags & ~IPAM_REQ_FLAGS) || m->len == 0 || m->start + m->len < m->start || m->count == 0)
		r->bad = true;
	if ((m->flags & IPAM_REQ_EXACT) && m->len != 1)
		r->bad = true;
}

static void put_grant(struct bytes_writer *w, const struct ipam_message *m)
{
	put_ranges(w, m);
	bw_u8(w, m->rest_s);
}

static void get_grant(struct bytes_reader *r, struct ipam_message *m)
{
	get_ranges(r, m);
	m->rest_s = br_u8(r);
	r->bad |= m->rest_s > IPAM_COOL_DOWN_MS / 1000;
}

static void put_deny(struct bytes_writer *w, const struct ipam_message *m)
{
	bw_u8(w, (uint8_t)m->reason);
	bw_u8(w, m->bucket);
	bw_text(w, m->owner);
	bw_u8(w, (uint8_t)m->hint_count);
	for (unsigned i = 0; i < m->hint_count; i++) {
		put_v(w, m->hints[i].hostno);
		bw_u8(w, m->hints[i].bucket);
	}
	bw_u8(w, (uint8_t)m->range_count);
	for (unsigned i = 0; i < m->range_count; i++)
		put_gift(w, &m->ranges[i]);
}

static void get_deny(struct bytes_reader *r, struct ipam_message *m)
{
	unsigned reason = br_u8(r);

	m->bucket = br_u8(r);
	br_text(r, m->owner, sizeof(m->owner));
	m->hint_count = br_u8(r);
	if (reason == 0 || reason >= IPAM_DENY_MAX || m->hint_count > IPAM_HINTS_MAX) {
		r->bad = true;
		m->hint_count = 0;
		return;
	}
	m->reason = reason;
	for (unsigned i = 0; i < m->hint_count; i++) {
		m->hints[i].hostno = get_u32(r);
		m->hints[i].bucket = br_u8(r);
	}
	m->range_count = br_u8(r);
	if (m->range_count > IPAM_GIFTS_MAX) {
		r->bad = true;
		m->range_count = 0;
	}
	for (unsigned i = 0; i < m->range_count; i++)
		get_gift(r, &m->ranges[i]);
}

static void put_moved(struct bytes_writer *w, const struct ipam_message *m)
{
	put_v(w, m->to);
	put_v(w, m->reign);
	put_v(w, m->version);
}

static void get_moved(struct bytes_reader *r, struct ipam_message *m)
{
	m->to = get_u32(r);
	m->reign = get_u32(r);
	m->version = get_u64(r);
	if (m->to == 0)
		r->bad = true;
}

/* --- decrees --- */

#define DECREE_DONE (1u << 0)

static void put_decree(struct bytes_writer *w, const struct ipam_decree *d)
{
	put_v(w, d->victim);
	bw_id(w, &d->victim_id);
	put_v(w, d->heir);
	bw_id(w, &d->heir_id);
	put_v(w, d->number);
	bw_u8(w, d->done ? DECREE_DONE : 0);
	bw_u8(w, (uint8_t)d->assumed_count);
	for (unsigned i = 0; i < d->assumed_count; i++)
		put_v(w, d->assumed[i]);
}

static void get_decree(struct bytes_reader *r, struct ipam_decree *d)
{
	uint8_t flags;

	d->victim = get_hostno(r);
	br_id(r, &d->victim_id);
	d->heir = get_hostno(r);
	br_id(r, &d->heir_id);
	d->number = get_u32(r);
	flags = br_u8(r);
	d->done = flags & DECREE_DONE;
	d->assumed_count = br_u8(r);
	if (d->victim == d->heir || d->number == 0 || (flags & ~DECREE_DONE) || d->assumed_count > IPAM_ASSUMED_MAX) {
		r->bad = true;
		d->assumed_count = 0;
	}
	for (unsigned i = 0; i < d->assumed_count; i++) {
		d->assumed[i] = get_hostno(r);
		if (d->assumed[i] <= (i ? d->assumed[i - 1] : 0) || d->assumed[i] == d->heir || d->assumed[i] == d->victim)
			r->bad = true;
	}
}

size_t ipam_decree_encode(const struct ipam_decree *decree, uint8_t buf[IPAM_DECREE_MAX])
{
	struct bytes_writer w;

	bw_init(&w, buf, IPAM_DECREE_MAX);
	bw_u8(&w, IPAM_FORMAT);
	put_decree(&w, decree);
	return w.len;
}

int ipam_decree_decode(struct ipam_decree *ret_decree, const void *bytes, size_t len)
{
	struct ipam_decree d = {0};
	struct bytes_reader r;

	br_init(&r, bytes, len);
	if (br_u8(&r) != IPAM_FORMAT)
		return -1;
	get_decree(&r, &d);
	if (!br_done(&r))
		return -1;
	*ret_decree = d;
	return 0;
}

static void put_decree_only(struct bytes_writer *w, const struct ipam_message *m)
{
	put_decree(w, &m->decree);
}

static void get_decree_only(struct bytes_reader *r, struct ipam_message *m)
{
	get_decree(r, &m->decree);
}

static void put_claim(struct bytes_writer *w, const struct ipam_message *m)
{
	put_decree(w, &m->decree);
	bw_u8(w, (uint8_t)m->ask);
	put_v(w, m->cursor);
	bw_u8(w, (uint8_t)m->over_count);
	for (unsigned i = 0; i < m->over_count; i++) {
		put_v(w, m->over[i].hostno);
		put_v(w, m->over[i].number);
	}
}

static void get_ask(struct bytes_reader *r, struct ipam_message *m)
{
	unsigned ask = br_u8(r);

	m->cursor = get_v(r);
	if (ask == 0 || ask >= IPAM_ASK_MAX)
		r->bad = true;
	else
		m->ask = ask;
}

static void get_claim(struct bytes_reader *r, struct ipam_message *m)
{
	get_decree(r, &m->decree);
	get_ask(r, m);
	m->over_count = br_u8(r);
	if (m->decree.done || m->over_count > IPAM_OVER_MAX) {
		r->bad = true;
		m->over_count = 0;
	}
	for (unsigned i = 0; i < m->over_count; i++) {
		m->over[i].hostno = get_hostno(r);
		m->over[i].number = get_u32(r);
	}
}

#define PROMISE_HELD (1u << 0)
#define PROMISE_MORE (1u << 1)

static void put_promise(struct bytes_writer *w, const struct ipam_message *m)
{
	put_decree(w, &m->decree);
	bw_u8(w, (m->held ? PROMISE_HELD : 0) | (m->more ? PROMISE_MORE : 0));
	bw_u8(w, (uint8_t)m->ask);
	put_v(w, m->cursor);
	for (unsigned i = 0; i < m->host_count; i++)
		put_v(w, m->hosts[i]);
	for (unsigned i = 0; i < m->pool_count; i++)
		bw_id(w, &m->pools[i]);
	for (unsigned i = 0; i < m->range_count; i++)
		put_gift(w, &m->ranges[i]);
}

static void get_item(struct bytes_reader *r, struct ipam_message *m)
{
	if (m->ask == IPAM_ASK_HOSTS && m->host_count < IPAM_REPORT_HOSTS) {
		m->hosts[m->host_count++] = get_hostno(r);
	} else if (m->ask == IPAM_ASK_POOLS && m->pool_count < IPAM_REPORT_POOLS) {
		br_id(r, &m->pools[m->pool_count++]);
	} else if (m->ask == IPAM_ASK_RANGES && m->range_count < IPAM_REPORT_RANGES) {
		get_gift(r, &m->ranges[m->range_count++]);
	} else {
		r->bad = true;
	}
}

static void get_promise(struct bytes_reader *r, struct ipam_message *m)
{
	unsigned items;
	uint8_t flags;

	get_decree(r, &m->decree);
	flags = br_u8(r);
	m->held = flags & PROMISE_HELD;
	m->more = flags & PROMISE_MORE;
	get_ask(r, m);
	if (flags & ~(PROMISE_HELD | PROMISE_MORE))
		r->bad = true;
	while (!r->bad && br_left(r) > 0)
		get_item(r, m);
	items = m->host_count + m->pool_count + m->range_count;
	if ((m->more && items == 0) || (m->held && (m->more || items > 0)))
		r->bad = true; /* a page that leads nowhere, or of somebody who promised nothing */
}

static const struct {
	void (*put)(struct bytes_writer *w, const struct ipam_message *m);
	void (*get)(struct bytes_reader *r, struct ipam_message *m);
} message_codecs[IPAM_MSG_MAX] = {
	[IPAM_MSG_REQ] = {put_req, get_req},
	[IPAM_MSG_GRANT] = {put_grant, get_grant},
	[IPAM_MSG_DENY] = {put_deny, get_deny},
	[IPAM_MSG_MOVED] = {put_moved, get_moved},
	[IPAM_MSG_ACK] = {put_ranges, get_ranges},
	[IPAM_MSG_CLAIM] = {put_claim, get_claim},
	[IPAM_MSG_PROMISE] = {put_promise, get_promise},
	[IPAM_MSG_DECREE] = {put_decree_only, get_decree_only},
};

size_t ipam_message_encode(const struct ipam_message *message, uint8_t buf[IPAM_MESSAGE_MAX])
{
	struct bytes_writer w;

	bw_init(&w, buf, IPAM_MESSAGE_MAX);
	bw_u8(&w, IPAM_FORMAT);
	bw_u8(&w, (uint8_t)message->type);
	bw_id(&w, &message->pool);
	bw_u64(&w, message->xid);
	message_codecs[message->type].put(&w, message);
	return w.overflow ? 0 : w.len;
}

int ipam_message_decode(struct ipam_message *ret_message, const void *bytes, size_t len)
{
	struct ipam_message m = {0};
	struct bytes_reader r;
	unsigned type;

	if (len > IPAM_MESSAGE_MAX)
		return -1;
	br_init(&r, bytes, len);
	if (br_u8(&r) != IPAM_FORMAT)
		return -1;
	type = br_u8(&r);
	br_id(&r, &m.pool);
	m.xid = br_u64(&r);
	if (r.bad || type == 0 || type >= IPAM_MSG_MAX || m.xid == 0)
		return -1;
	m.type = type;
	message_codecs[type].get(&r, &m);
	if (!br_done(&r))
		return -1;
	*ret_message = m;
	return 0;
}

/* --- chunks --- */

enum chunk_item { ITEM_HOLDING = 1, ITEM_OFFER, ITEM_SHARED };
#define CHUNK_WANTED (1u << 0)
#define CHUNK_FEW (1u << 1) /* few hosts know of the sender yet: it must not be given anything */

void chunk_begin(struct chunk_writer *w, bool wanted, bool few, uint8_t bucket)
{
	w->buf[0] = IPAM_FORMAT;
	w->buf[1] = (wanted ? CHUNK_WANTED : 0) | (few ? CHUNK_FEW : 0);
	w->buf[2] = bucket;
	w->len = 3;
	w->last_end = 0;
}

static bool chunk_end_item(struct chunk_writer *w, const struct bytes_writer *item)
{
	if (item->overflow)
		return false;
	w->len += item->len;
	return true;
}

bool chunk_put_shared(struct chunk_writer *w, const struct shared *shared)
{
	struct bytes_writer item;

	bw_init(&item, w->buf + w->len, sizeof(w->buf) - w->len);
	bw_u8(&item, ITEM_SHARED);
	put_v(&item, shared->offset);
	bw_u8(&item, shared->flags);
	bw_u32(&item, shared->tag);
	return chunk_end_item(w, &item);
}

bool chunk_put_offer(struct chunk_writer *w, const struct custody *offer)
{
	struct bytes_writer item;

	bw_init(&item, w->buf + w->len, sizeof(w->buf) - w->len);
	bw_u8(&item, ITEM_OFFER);
	put_range(&item, offer->start, offer);
	put_v(&item, offer->to);
	bw_u64(&item, offer->xid);
	return chunk_end_item(w, &item);
}

bool chunk_put_holding(struct chunk_writer *w, const struct custody *holding)
{
	struct bytes_writer item;

	bw_init(&item, w->buf + w->len, sizeof(w->buf) - w->len);
	bw_u8(&item, ITEM_HOLDING);
	put_range(&item, holding->start - w->last_end, holding);
	if (!chunk_end_item(w, &item))
		return false;
	w->last_end = holding->start + holding->len;
	return true;
}

static void get_offer(struct bytes_reader *r, struct custody *ret)
{
	get_range(r, 0, ret);
	ret->to = get_u32(r);
	ret->xid = br_u64(r);
	if (ret->to == 0 || ret->xid == 0)
		r->bad = true;
}

static void get_shared(struct bytes_reader *r, struct shared *ret)
{
	ret->offset = get_v(r);
	ret->flags = br_u8(r);
	ret->tag = br_u32(r);
}

static void get_items(struct bytes_reader *r, struct ipam_chunk *c)
{
	u128 last_end = 0;

	while (!r->bad && br_left(r) > 0) {
		switch (br_u8(r)) {
		case ITEM_HOLDING:
			get_range(r, last_end, &c->holdings[c->holding_count]);
			last_end = c->holdings[c->holding_count].start + c->holdings[c->holding_count].len;
			c->holding_count++;
			break;
		case ITEM_OFFER:
			get_offer(r, &c->offers[c->offer_count++]);
			break;
		case ITEM_SHARED:
			get_shared(r, &c->shared[c->shared_count++]);
			break;
		default:
			r->bad = true;
		}
	}
}

/* The smallest items take 5, 14 and 7 bytes, so a chunk of 1,024 bytes holds at most so many. */
#define HOLDINGS_MAX (IPAM_MESSAGE_MAX / 5 + 1)
#define OFFERS_MAX (IPAM_MESSAGE_MAX / 14 + 1)
#define SHARED_MAX (IPAM_MESSAGE_MAX / 7 + 1)

static void *copy_of(const void *from, size_t size)
{
	void *to = size ? alloc_zeroed(1, size, "struct ipam_chunk") : NULL;

	if (size)
		memcpy(to, from, size);
	return to;
}

struct ipam_chunk *ipam_chunk_decode(const void *bytes, size_t len)
{
	struct custody holdings[HOLDINGS_MAX], offers[OFFERS_MAX];
	struct shared shared[SHARED_MAX];
	struct ipam_chunk c = {.holdings = holdings, .offers = offers, .shared = shared};
	struct bytes_reader r;
	uint8_t flags;

	if (len > IPAM_MESSAGE_MAX)
		return NULL;
	br_init(&r, bytes, len);
	if (br_u8(&r) != IPAM_FORMAT)
		return NULL;
	flags = br_u8(&r);
	c.wanted = flags & CHUNK_WANTED;
	c.few = flags & CHUNK_FEW;
	c.bucket = br_u8(&r);
	if (flags & ~(CHUNK_WANTED | CHUNK_FEW))
		return NULL;
	get_items(&r, &c);
	if (!br_done(&r))
		return NULL;
	c.holdings = copy_of(holdings, c.holding_count * sizeof(*holdings));
	c.offers = copy_of(offers, c.offer_count * sizeof(*offers));
	c.shared = copy_of(shared, c.shared_count * sizeof(*shared));
	return copy_of(&c, sizeof(c));
}

void ipam_chunk_free(struct ipam_chunk *chunk)
{
	if (!chunk)
		return;
	free(chunk->holdings);
	free(chunk->offers);
	free(chunk->shared);
	free(chunk);
}

uint8_t free_bucket(u128 count)
{
	uint8_t bucket = 0;

	for (; count; count >>= 1)
		bucket++;
	return bucket;
}

u128 bucket_low(uint8_t bucket)
{
	if (bucket == 0)
		return 0;
	return (u128)1 << (bucket > 128 ? 127 : bucket - 1);
}

/* --- saved pairs --- */

size_t ipam_key_encode(uint8_t *buf, enum ipam_saved_kind kind, const struct id128 *pool, u128 offset)
{
	struct bytes_writer w;

	bw_init(&w, buf, IPAM_KEY_MAX);
	bw_u8(&w, (uint8_t)kind);
	bw_id(&w, pool);
	if (kind != IPAM_SAVED_POOL)
		bw_u128(&w, offset);
	return w.len;
}

int ipam_key_decode(const void *key, size_t len, enum ipam_saved_kind *ret_kind, struct id128 *ret_pool, u128 *ret_offset)
{
	struct bytes_reader r;
	struct id128 pool;
	u128 offset = 0;
	uint8_t kind;

	br_init(&r, key, len);
	kind = br_u8(&r);
	br_id(&r, &pool);
	if (kind == IPAM_SAVED_CUSTODY || kind == IPAM_SAVED_LEASE || kind == IPAM_SAVED_DECREE)
		offset = br_u128(&r);
	else if (kind != IPAM_SAVED_POOL)
		return -1;
	if (!br_done(&r))
		return -1;
	*ret_kind = kind;
	*ret_pool = pool;
	*ret_offset = offset;
	return 0;
}

/* The format byte of a saved value, judged before anything else so that a downgrade gets its own error. */
static int saved_begin(struct bytes_reader *r, const void *bytes, size_t len, const char *what, struct err *err)
{
	uint8_t format;

	br_init(r, bytes, len);
	format = br_u8(r);
	if (r->bad || format == 0)
		return err_set(err, ERR_CORRUPT, "%s: does not start with a format number", what);
	if (format > IPAM_FORMAT)
		return err_set(err, ERR_VERSION,
			"%s: saved in format %u, this version reads up to %u: install the newer version again", what, format,
			IPAM_FORMAT);
	return 0;
}

static int saved_end(const struct bytes_reader *r, const char *what, size_t len, struct err *err)
{
	if (br_done(r))
		return 0;
	return err_set(err, ERR_CORRUPT, "%s: %zu bytes that do not decode", what, len);
}

#define POOL_EDGES (1u << 0)
#define POOL_HOST_NUMBERS (1u << 1)

size_t saved_pool_encode(const struct saved_pool *saved, uint8_t buf[IPAM_VALUE_MAX])
{
	struct bytes_writer w;

	bw_init(&w, buf, IPAM_VALUE_MAX);
	bw_u8(&w, IPAM_FORMAT);
	bw_ip(&w, &saved->prefix.ip);
	bw_u8(&w, saved->prefix.length);
	bw_u8(&w, (saved->edges_reserved ? POOL_EDGES : 0) | (saved->host_numbers ? POOL_HOST_NUMBERS : 0));
	bw_u8(&w, (uint8_t)saved->wanted);
	put_v(&w, saved->spares);
	bw_u8(&w, saved->slice_bits);
	return w.len;
}

int saved_pool_decode(struct saved_pool *ret_saved, const void *bytes, size_t len, struct err *err)
{
	struct saved_pool saved;
	struct bytes_reader r;
	uint8_t edges, wanted;

	if (saved_begin(&r, bytes, len, "address pool", err) < 0)
		return -1;
	br_ip(&r, &saved.prefix.ip);
	saved.prefix.length = br_u8(&r);
	edges = br_u8(&r);
	wanted = br_u8(&r);
	saved.spares = get_u32(&r);
	saved.slice_bits = br_u8(&r);
	if (edges & ~(POOL_EDGES | POOL_HOST_NUMBERS) || wanted >= WANT_MAX)
		r.bad = true;
	if (saved_end(&r, "address pool", len, err) < 0)
		return -1;
	saved.edges_reserved = edges & POOL_EDGES;
	saved.host_numbers = edges & POOL_HOST_NUMBERS;
	saved.wanted = wanted;
	*ret_saved = saved;
	return 0;
}

size_t saved_custody_encode(const struct custody *custody, uint8_t buf[IPAM_VALUE_MAX])
{
	struct bytes_writer w;

	bw_init(&w, buf, IPAM_VALUE_MAX);
	bw_u8(&w, IPAM_FORMAT);
	put_v(&w, custody->len - 1);
	put_v(&w, custody->reign);
	put_v(&w, custody->version);
	put_v(&w, custody->to);
	bw_u64(&w, custody->xid);
	return w.len;
}

int saved_custody_decode(struct custody *ret_custody, u128 start, const void *bytes, size_t len, struct err *err)
{
	struct custody c = {.start = start};
	struct bytes_reader r;

	if (saved_begin(&r, bytes, len, "address range", err) < 0)
		return -1;
	c.len = get_v(&r) + 1;
	c.reign = get_u32(&r);
	c.version = get_u64(&r);
	c.to = get_u32(&r);
	c.xid = br_u64(&r);
	if (c.len == 0 || c.start + c.len < c.start || c.to == 0)
		r.bad = true;
	if (saved_end(&r, "address range", len, err) < 0)
		return -1;
	*ret_custody = c;
	return 0;
}

#define LEASE_BOUND (1u << 0)
#define LEASE_SHARED_FIRST (1u << 1)

size_t saved_lease_encode(const struct saved_lease *saved, uint8_t buf[IPAM_VALUE_MAX])
{
	struct bytes_writer w;

	bw_init(&w, buf, IPAM_VALUE_MAX);
	bw_u8(&w, IPAM_FORMAT);
	bw_u8(&w, (uint8_t)saved->state);
	bw_u8(&w, (uint8_t)saved->use);
	bw_u8(&w, (saved->bound ? LEASE_BOUND : 0) | (saved->shared_flags & IPAM_SHARED_FIRST ? LEASE_SHARED_FIRST : 0));
	bw_u64(&w, saved->since_ms);
	bw_text(&w, saved->owner);
	return w.len;
}

int saved_lease_decode(struct saved_lease *ret_saved, const void *bytes, size_t len, struct err *err)
{
	struct saved_lease saved = {0};
	struct bytes_reader r;
	uint8_t state, use, flags;

	if (saved_begin(&r, bytes, len, "address lease", err) < 0)
		return -1;
	state = br_u8(&r);
	use = br_u8(&r);
	flags = br_u8(&r);
	saved.since_ms = br_u64(&r);
	br_text(&r, saved.owner, sizeof(saved.owner));
	if (state >= SLOT_MAX || use > IPAM_USE_SHARED || flags & ~(LEASE_BOUND | LEASE_SHARED_FIRST))
		r.bad = true;
	if (saved_end(&r, "address lease", len, err) < 0)
		return -1;
	saved.state = state;
	saved.use = use;
	saved.bound = flags & LEASE_BOUND;
	saved.shared_flags = flags & LEASE_SHARED_FIRST ? IPAM_SHARED_FIRST : 0;
	*ret_saved = saved;
	return 0;
}

size_t saved_decree_encode(const struct ipam_decree *decree, bool gone, uint8_t buf[IPAM_VALUE_MAX])
{
	struct bytes_writer w;

	bw_init(&w, buf, IPAM_VALUE_MAX);
	bw_u8(&w, IPAM_FORMAT);
	bw_u8(&w, !gone);
	if (!gone)
		put_decree(&w, decree);
	return w.len;
}

int saved_decree_decode(
	struct ipam_decree *ret_decree, bool *ret_gone, uint32_t victim, const void *bytes, size_t len, struct err *err)
{
	struct ipam_decree d = {.victim = victim};
	struct bytes_reader r;
	uint8_t kind;

	if (saved_begin(&r, bytes, len, "decree", err) < 0)
		return -1;
	kind = br_u8(&r);
	if (kind == 1)
		get_decree(&r, &d);
	if (kind > 1 || victim == 0 || d.victim != victim)
		r.bad = true;
	if (saved_end(&r, "decree", len, err) < 0)
		return -1;
	*ret_decree = d;
	*ret_gone = kind == 0;
	return 0;
}

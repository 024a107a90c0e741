/* What other hosts send: messages and published chunks, one after another, to a host that holds a pool, has leases and waits for
 * an address, and collects the estate of another. Frames: kind (even message, odd chunk, 255 decree), sender, length (2 bytes),
 * bytes. Whatever comes, an endpoint's lease stays within our custody, custody within the pool; and what decodes as a message
 * encodes to the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "ipam/ipam_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FRAMES_MAX 64

static struct ipam_pool_def def = {.id = {{0xaa, 1}}, .prefix = {{4, {10, 1, 0, 0}}, 24}, .edges_reserved = true};

static void require(bool truth)
{
	if (!truth)
		abort();
}

static void op_save(void *ctx, const void *key, size_t key_len, const void *val, size_t len, bool durable)
{
	(void)ctx, (void)val, (void)durable;
	require(key && key_len <= IPAM_KEY_MAX && len <= IPAM_VALUE_MAX);
}

static void op_publish(void *ctx, const struct id128 *pool, unsigned chunk, const void *val, size_t len)
{
	struct ipam_chunk *decoded = val ? ipam_chunk_decode(val, len) : NULL;

	(void)ctx, (void)pool;
	require(chunk < IPAM_CHUNKS_MAX && len <= IPAM_MESSAGE_MAX && (!val || decoded));
	ipam_chunk_free(decoded);
}

static void op_send(void *ctx, uint32_t to_hostno, const void *msg, size_t len)
{
	struct ipam_message m;

	(void)ctx;
	require(to_hostno != 0 && len > 0 && ipam_message_decode(&m, msg, len) == 0);
}

static void op_complete(void *ctx, uint64_t ticket, const struct ipam_result *result)
{
	(void)ctx;
	require(ticket <= 20 && result->code <= IPAM_UNKNOWN_POOL);
}

static void op_random(void *ctx, void *buf, size_t len)
{
	(void)ctx;
	memset(buf, 0x42, len);
}

static void check_entry(void *ctx, const struct custody *entry)
{
	u128 *held = ctx;

	require(entry->start >= 1 && entry->start + entry->len <= 255);
	if (entry->to == 1)
		*held += entry->len;
}

static void check_lease(void *ctx, const struct ipam_lease *lease)
{
	struct pool *pool = ctx;
	const struct custody *c = custody_at(&pool->custody, lease->address.bytes[3]);

	require(lease->use == IPAM_USE_SHARED || (c && c->to == 1));
}

static void check(struct ipam *ipam)
{
	struct pool *pool = pool_find(ipam, &def.id);
	u128 held = 0;

	require(!pool == ipam_is_forgotten(ipam));
	if (!pool)
		return;
	ipam_each_custody(ipam, &def.id, check_entry, &held);
	require(held == pool->held && pool_free(pool) <= held && map_known(pool, 1) <= 254);
	ipam_each_lease(ipam, &def.id, check_lease, pool);
}

static void round_trip(const uint8_t *bytes, size_t len)
{
	uint8_t again[IPAM_MESSAGE_MAX];
	struct ipam_message m;

	if (ipam_message_decode(&m, bytes, len) == 0)
		require(ipam_message_encode(&m, again) == len && !memcmp(again, bytes, len));
}

static struct ipam *start(void)
{
	static const struct ipam_ops ops = {
		.save = op_save, .publish = op_publish, .send = op_send, .complete = op_complete, .random = op_random};
	struct ipam *ipam = ipam_new(&(struct ipam_config){.hostno = 1}, &ops, NULL);
	struct ipam_want want = {.pool = def.id, .owner = "x"};
	struct err err;

	ipam_be_known(ipam, 0);
	ipam_start(ipam, 0);
	require(ipam_pool_create(ipam, &def, 0, &err) == 0);
	for (uint32_t host = 2; host < 6; host++)
		ipam_peer_alive(ipam, host, true, 0);
	for (uint64_t ticket = 1; ticket <= 3; ticket++)
		ipam_request(ipam, &want, ticket, 0);
	require(ipam_forget(ipam, 5, &(struct id128){{5}}, true, NULL, 0, 0, &err) == 0);
	return ipam;
}

static void decree_round_trip(struct ipam *ipam, const uint8_t *bytes, size_t len, uint64_t now_ms)
{
	uint8_t again[IPAM_DECREE_MAX];
	struct ipam_decree d;

	if (ipam_decree_decode(&d, bytes, len) < 0)
		return;
	require(ipam_decree_encode(&d, again) == len && !memcmp(again, bytes, len));
	ipam_decree_seen(ipam, &d, now_ms);
}

static void feed(struct ipam *ipam, uint8_t kind, uint32_t from, const uint8_t *bytes, size_t len, uint64_t now_ms)
{
	if (kind == UINT8_MAX) {
		decree_round_trip(ipam, bytes, len, now_ms);
	} else if (kind % 2 == 0) {
		round_trip(bytes, len);
		ipam_message(ipam, from, bytes, len, now_ms);
	} else {
		ipam_peer_chunk(ipam, from, &def.id, kind / 2 % IPAM_CHUNKS_MAX, len ? bytes : NULL, len, now_ms);
	}
}

static void run(const uint8_t *data, size_t size)
{
	struct ipam *ipam = start();
	struct bytes_reader r;
	uint64_t now_ms = 1;

	br_init(&r, data, size);
	for (unsigned i = 0; i < FRAMES_MAX && br_left(&r) >= 4; i++, now_ms += 77) {
		uint8_t kind = br_u8(&r);
		uint32_t from = br_u8(&r);
		size_t len = br_u16(&r);
		const uint8_t *bytes = br_bytes(&r, len < br_left(&r) ? len : br_left(&r));

		if (i == 3) /* somebody waits for what others have */
			ipam_request(ipam, &(struct ipam_want){.pool = def.id, .owner = "y", .address = {4, {10, 1, 0, 200}}}, 20,
				now_ms);
		feed(ipam, kind, from, bytes, len < 65536 && bytes ? (size_t)(r.at - bytes) : 0, now_ms);
		ipam_tick(ipam, now_ms);
		check(ipam);
	}
	ipam_free(ipam);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (def.slice_bits = 0; def.slice_bits <= 3; def.slice_bits += 3)
		run(data, size);
	return 0;
}

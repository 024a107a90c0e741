/* A saved state that may be cut short, damaged or of another version: pairs of key length (1 byte), key, value length (1 byte),
 * value. What is refused says so and changes nothing; what remains starts, and gives no address that it does not hold, nor one
 * twice. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "ipam/ipam_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PAIRS_MAX 256

static const struct id128 pool_id = {{0xaa, 1}};

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
	(void)ctx, (void)pool, (void)val;
	require(chunk < IPAM_CHUNKS_MAX && len <= IPAM_MESSAGE_MAX);
}

static void op_send(void *ctx, uint32_t to_hostno, const void *msg, size_t len)
{
	(void)ctx, (void)msg;
	require(to_hostno != 0 && len > 0);
}

struct given {
	struct ip seen[64];
	unsigned count;
};

static void op_complete(void *ctx, uint64_t ticket, const struct ipam_result *result)
{
	struct given *given = ctx;

	(void)ticket;
	if (result->code != IPAM_GRANTED)
		return;
	for (unsigned i = 0; i < given->count; i++)
		require(!ip_equal(&given->seen[i], &result->address));
	given->seen[given->count++] = result->address;
}

static void op_random(void *ctx, void *buf, size_t len)
{
	(void)ctx;
	memset(buf, 0x42, len);
}

static void check_lease(void *ctx, const struct ipam_lease *lease)
{
	const struct pool *pool = ctx;
	const struct custody *c;

	require(prefix_contains(&pool->def.prefix, &lease->address));
	c = custody_at(&pool->custody, ip_number(&lease->address) - pool->base);
	require(lease->use == IPAM_USE_SHARED || (c && c->to == 1));
}

static void check(struct ipam *ipam)
{
	struct pool *pool = pool_find(ipam, &pool_id);
	u128 held = 0;

	if (!pool || !pool->known)
		return;
	for (size_t i = 0; i < pool->custody.count; i++) {
		const struct custody *c = &pool->custody.entries[i];

		require(c->len > 0 && (i == 0 || c->start >= c[-1].start + c[-1].len));
		require(c->start >= pool->first && c->start + c->len <= pool->first + pool->usable);
		held += c->to == 1 ? c->len : 0;
	}
	require(held == pool->held && pool_free(pool) <= held);
	ipam_each_lease(ipam, &pool_id, check_lease, pool);
}

static void restore_all(struct ipam *ipam, const uint8_t *data, size_t size)
{
	struct bytes_reader r;

	br_init(&r, data, size);
	for (unsigned i = 0; i < PAIRS_MAX && br_left(&r) > 0; i++) {
		size_t key_len = br_u8(&r);
		const uint8_t *key = br_bytes(&r, key_len);
		size_t len = br_u8(&r);
		const uint8_t *val = br_bytes(&r, len);
		struct err err = {.code = ERR_OK};

		if (r.bad)
			return;
		if (ipam_restore(ipam, key, key_len, val, len, &err) < 0)
			require((err.code == ERR_CORRUPT || err.code == ERR_VERSION) && err.text[0]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct ipam_ops ops = {
		.save = op_save, .publish = op_publish, .send = op_send, .complete = op_complete, .random = op_random};
	struct given given = {.count = 0};
	struct ipam *ipam = ipam_new(&(struct ipam_config){.hostno = 1}, &ops, &given);
	struct ipam_want want = {.pool = pool_id, .owner = "x"};

	restore_all(ipam, data, size);
	ipam_start(ipam, 1000);
	check(ipam);
	for (uint64_t ticket = 1; ticket <= 16; ticket++)
		ipam_request(ipam, &want, ticket, 1000 + ticket);
	ipam_tick(ipam, 2000);
	ipam_pool_want(ipam, &pool_id, false, 0, 3000);
	check(ipam);
	ipam_free(ipam);
	return 0;
}

/* The index of endpoints by address, beside the plainest way of finding them; and `trestle ipam check` of as many, which is to
 * find what is wrong and nothing else, without looking through all for each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/node_internal.h"

#define ENDPOINTS 10000
#define ADDRESSES 4000 /* fewer: many are shared */

static struct endpoint *endpoints;
static bool there[ENDPOINTS];

static struct ip address4(unsigned i)
{
	return ip_from_number(4, 0x0a090000 + i);
}

/* Every third has one, and each is two endpoints'. */
static struct ip address6(unsigned i)
{
	struct ip ip = {.family = 6, .bytes = {0x20, 0x01, 0x0d, 0xb8}};

	if (i % 3)
		return (struct ip){0};
	ip.bytes[14] = (uint8_t)(i / 6 >> 8);
	ip.bytes[15] = (uint8_t)(i / 6);
	return ip;
}

static struct address_users *make(void)
{
	struct address_users *index = NULL;

	endpoints = calloc(ENDPOINTS, sizeof(*endpoints));
	assert_non_null(endpoints);
	for (unsigned i = 0; i < ENDPOINTS; i++) {
		endpoints[i].state.address4.ip = address4(i % ADDRESSES);
		endpoints[i].state.address6.ip = address6(i);
		addresses_add(&index, &endpoints[i]);
		there[i] = true;
	}
	return index;
}

static void take_away(struct address_users **index, unsigned i)
{
	if (there[i])
		addresses_del(index, &endpoints[i]);
	there[i] = false;
}

static unsigned count_by_index(struct address_users *index, const struct ip *ip)
{
	unsigned count = 0;

	for (const struct endpoint *ep = addresses_first(index, ip); ep; ep = addresses_next(ep, ip)) {
		assert_true(there[ep - endpoints]);
		assert_true(ip_equal(&ep->state.address4.ip, ip) || ip_equal(&ep->state.address6.ip, ip));
		count++;
	}
	return count;
}

static unsigned count_plainly(const struct ip *ip)
{
	unsigned count = 0;

	for (unsigned i = 0; i < ENDPOINTS; i++)
		count += there[i] &&
			 (ip_equal(&endpoints[i].state.address4.ip, ip) || ip_equal(&endpoints[i].state.address6.ip, ip));
	return count;
}

static void compare(struct address_users *index)
{
	for (unsigned i = 0; i < ADDRESSES; i += 7) {
		struct ip four = address4(i), six = address6(i * 3);

		assert_int_equal(count_by_index(index, &four), count_plainly(&four));
		if (ip_is_set(&six))
			assert_int_equal(count_by_index(index, &six), count_plainly(&six));
	}
}

static void all_that_have_an_address_are_found(void **state)
{
	const struct ip none = {0}, foreign = address4(ADDRESSES);
	struct address_users *index = make();

	(void)state;
	compare(index);
	assert_null(addresses_first(index, &none));
	assert_null(addresses_first(index, &foreign));
	for (unsigned i = 0; i < ENDPOINTS; i += 2) /* the first of a list, the last, and some between */
		take_away(&index, i);
	compare(index);
	for (unsigned i = 0; i < ENDPOINTS; i += 4) {
		addresses_add(&index, &endpoints[i]);
		there[i] = true;
	}
	compare(index);
	for (unsigned i = 0; i < ENDPOINTS; i++)
		take_away(&index, ENDPOINTS - 1 - i);
	assert_null(index); /* and nothing is left, which the sanitizer sees too */
	free(endpoints);
}

static void what_is_not_there_is_not_taken_away(void **state)
{
	struct endpoint one = {0}, other = {0};
	struct address_users *index = NULL;
	const struct ip ip = address4(1);

	(void)state;
	one.state.address4.ip = other.state.address4.ip = ip;
	addresses_del(&index, &one);
	addresses_add(&index, &one);
	addresses_del(&index, &other);
	assert_ptr_equal(addresses_first(index, &ip), &one);
	addresses_del(&index, &one);
	assert_null(index);
}

/* ---- ipam check ---- */

#define DATAPATH_SIZE 65536 /* more than a struct datapath, which has nothing to tell */

static void no_save(void *ctx, const void *key, size_t key_len, const void *val, size_t len, bool durable)
{
	(void)ctx, (void)key, (void)key_len, (void)val, (void)len, (void)durable;
}

static void no_publish(void *ctx, const struct id128 *pool, unsigned chunk, const void *val, size_t len)
{
	(void)ctx, (void)pool, (void)chunk, (void)val, (void)len;
}

static void no_send(void *ctx, uint32_t to_hostno, const void *msg, size_t len)
{
	(void)ctx, (void)to_hostno, (void)msg, (void)len;
}

static void fixed(void *ctx, void *buf, size_t len)
{
	(void)ctx;
	memset(buf, 0x55, len);
}

static void granted(void *ctx, uint64_t ticket, const struct ipam_result *result)
{
	struct endpoint *ep = ctx;

	(void)ticket;
	assert_int_equal(result->code, IPAM_GRANTED);
	ep[ticket].state.address4.ip = result->address;
}

static struct network net = {.id = {{1}}, .def = {.name = "app", .pool_count = 1}};
static struct pool pool = {.id = {{2}}, .joined = true};

static struct node *busy_node(void)
{
	static const struct ipam_ops ops = {
		.save = no_save, .publish = no_publish, .send = no_send, .complete = granted, .random = fixed};
	static const struct ipam_config config = {.hostno = 1};
	struct node *node = calloc(1, sizeof(*node));
	struct ipam_pool_def def = {.id = pool.id, .edges_reserved = true};
	struct ipam_want want = {.pool = pool.id, .owner = "somebody"};
	struct err err;

	endpoints = calloc(ENDPOINTS, sizeof(*endpoints));
	assert_true(node && endpoints);
	assert_int_equal(prefix_parse("10.9.0.0/18", &def.prefix, &err), 0);
	net.def.pools[0] = pool.state.def.prefix = def.prefix;
	HASH_ADD(hh, node->networks, id, sizeof(net.id), &net);
	HASH_ADD(hh, node->pools, id, sizeof(pool.id), &pool);
	node->datapath = calloc(1, DATAPATH_SIZE);
	node->ipam = ipam_new(&config, &ops, endpoints);
	assert_true(node->datapath && node->ipam);
	ipam_start(node->ipam, 1000);
	assert_int_equal(ipam_pool_create(node->ipam, &def, 1000, &err), 0);
	for (unsigned i = 0; i < ENDPOINTS; i++) {
		struct endpoint *ep = &endpoints[i];

		ipam_request(node->ipam, &want, i, 1000);
		assert_true(ipam_bind(node->ipam, &pool.id, &ep->state.address4.ip, true, NULL, 1000));
		snprintf(ep->id, sizeof(ep->id), "endpoint-%u", i);
		ep->network = &net;
		ep->state.network = net.id;
		HASH_ADD_STR(node->endpoints, id, ep);
		addresses_add(&node->addresses, ep);
	}
	return node;
}

static void expect_found(struct node *node, unsigned leases, const struct ip *leak, const struct ip *ghost)
{
	json_t *found = estate_check(node), *leaks = json_object_get(found, "leaks"), *ghosts = json_object_get(found, "ghosts");
	char text[IP_TEXT_SIZE];

	assert_int_equal(json_integer_value(json_object_get(found, "leases")), leases);
	assert_int_equal(json_array_size(json_object_get(found, "duplicates")), 0);
	assert_int_equal(json_array_size(leaks), leak ? 1 : 0);
	assert_int_equal(json_array_size(ghosts), ghost ? 1 : 0);
	if (leak)
		assert_string_equal(
			json_string_value(json_object_get(json_array_get(leaks, 0), "address")), ip_format(leak, text));
	if (ghost)
		assert_string_equal(
			json_string_value(json_object_get(json_array_get(ghosts, 0), "address")), ip_format(ghost, text));
	json_decref(found);
}

static void ten_thousand_endpoints_are_checked(void **state)
{
	struct node *node = busy_node();
	struct endpoint *lost = &endpoints[ENDPOINTS / 2], *other = &endpoints[ENDPOINTS - 1];

	(void)state;
	expect_found(node, ENDPOINTS, NULL, NULL);
	addresses_del(&node->addresses, lost);
	HASH_DEL(node->endpoints, lost);
	expect_found(node, ENDPOINTS, &lost->state.address4.ip, NULL);
	assert_true(ipam_release(node->ipam, &pool.id, &other->state.address4.ip, 2000));
	expect_found(node, ENDPOINTS - 1, &lost->state.address4.ip, &other->state.address4.ip);
	for (unsigned i = 0; i < ENDPOINTS; i++)
		if (&endpoints[i] != lost)
			addresses_del(&node->addresses, &endpoints[i]);
	assert_null(node->addresses);
	HASH_CLEAR(hh, node->endpoints);
	HASH_CLEAR(hh, node->networks);
	HASH_CLEAR(hh, node->pools);
	ipam_free(node->ipam);
	free(node->datapath);
	free(node);
	free(endpoints);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_that_have_an_address_are_found),
		cmocka_unit_test(what_is_not_there_is_not_taken_away),
		cmocka_unit_test(ten_thousand_endpoints_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The index of endpoints by address, beside the plainest way of finding them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_that_have_an_address_are_found),
		cmocka_unit_test(what_is_not_there_is_not_taken_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

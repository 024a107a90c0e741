/* Leases that become shared: two cores, whose messages and records are passed by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "ipam/ipam_internal.h"

#define MESSAGES_MAX 64

struct message {
	uint32_t to;
	size_t len;
	uint8_t bytes[IPAM_MESSAGE_MAX];
};

struct record {
	bool set;
	size_t len;
	uint8_t bytes[IPAM_MESSAGE_MAX];
};

struct host {
	uint32_t hostno;
	struct ipam *ipam;
	struct message messages[MESSAGES_MAX];
	unsigned count;
	struct record records[IPAM_CHUNKS_MAX];
	bool answered;
	struct ipam_result result;
	unsigned saves;
};

struct pair {
	struct host hosts[2];
	struct ipam_pool_def def;
	uint64_t now;
};

static void on_save(void *ctx, const void *key, size_t key_len, const void *val, size_t len, bool durable)
{
	struct host *h = ctx;

	(void)key, (void)key_len, (void)val, (void)len, (void)durable;
	h->saves++;
}

static void on_publish(void *ctx, const struct id128 *pool, unsigned chunk, const void *val, size_t len)
{
	struct record *r = &((struct host *)ctx)->records[chunk];

	(void)pool;
	r->set = val != NULL;
	r->len = len;
	if (val)
		memcpy(r->bytes, val, len);
}

static void on_send(void *ctx, uint32_t to, const void *msg, size_t len)
{
	struct host *h = ctx;

	assert_true(h->count < MESSAGES_MAX);
	h->messages[h->count] = (struct message){.to = to, .len = len};
	memcpy(h->messages[h->count++].bytes, msg, len);
}

static void on_complete(void *ctx, uint64_t ticket, const struct ipam_result *result)
{
	struct host *h = ctx;

	(void)ticket;
	h->answered = true;
	h->result = *result;
}

static void on_random(void *ctx, void *buf, size_t len)
{
	memset(buf, 7 + (int)((struct host *)ctx)->hostno, len);
}

static void pass_records(struct pair *p, unsigned from)
{
	struct host *a = &p->hosts[from], *b = &p->hosts[!from];

	for (unsigned i = 0; i < IPAM_CHUNKS_MAX; i++)
		ipam_peer_chunk(b->ipam, a->hostno, &p->def.id, i, a->records[i].set ? a->records[i].bytes : NULL,
			a->records[i].len, p->now);
}

static void pass_messages(struct pair *p)
{
	for (unsigned round = 0; round < 10; round++)
		for (unsigned i = 0; i < 2; i++) {
			struct host *h = &p->hosts[i];
			struct message sent[MESSAGES_MAX];
			unsigned count = h->count;

			memcpy(sent, h->messages, sizeof(sent[0]) * count);
			h->count = 0;
			for (unsigned m = 0; m < count; m++)
				ipam_message(p->hosts[!i].ipam, h->hostno, sent[m].bytes, sent[m].len, p->now);
		}
}

static int set_up(void **state)
{
	static const struct ipam_ops ops = {
		.save = on_save, .publish = on_publish, .send = on_send, .complete = on_complete, .random = on_random};
	struct pair *p = calloc(1, sizeof(*p));

	if (!p)
		return -1;
	p->now = 1000000;
	p->def.id.bytes[0] = 1;
	p->def.edges_reserved = true;
	assert_int_equal(prefix_parse("10.9.0.0/28", &p->def.prefix, NULL), 0);
	for (unsigned i = 0; i < 2; i++) {
		struct host *h = &p->hosts[i];
		struct ipam_config config = {.hostno = i + 1};

		config.host_id.bytes[0] = (uint8_t)(i + 1);
		h->hostno = i + 1;
		h->ipam = ipam_new(&config, &ops, h);
		ipam_be_known(h->ipam, 0);
		ipam_start(h->ipam, p->now);
		ipam_peer_alive(h->ipam, 2 - i, true, p->now);
	}
	assert_int_equal(ipam_pool_create(p->hosts[0].ipam, &p->def, p->now, NULL), 0);
	assert_int_equal(ipam_pool_join(p->hosts[1].ipam, &p->def, p->now, NULL), 0);
	ipam_tick(p->hosts[0].ipam, p->now);
	pass_records(p, 0);
	*state = p;
	return 0;
}

static int tear_down(void **state)
{
	struct pair *p = *state;

	ipam_free(p->hosts[0].ipam);
	ipam_free(p->hosts[1].ipam);
	free(p);
	return 0;
}

static struct ip ip_of(const char *text)
{
	struct ip ip = {0};

	assert_int_equal(ip_parse(text, &ip, NULL), 0);
	return ip;
}

static const struct ipam_result *ask(struct pair *p, unsigned host, const char *address, enum ipam_use use)
{
	struct ipam_want want = {.pool = p->def.id, .address = ip_of(address), .use = use, .owner = ""};
	struct host *h = &p->hosts[host];

	h->answered = false;
	ipam_request(h->ipam, &want, 1, p->now);
	ipam_tick(h->ipam, p->now);
	pass_messages(p);
	assert_true(h->answered);
	return &h->result;
}

static bool share(struct pair *p, unsigned host, const char *address)
{
	struct ip ip = ip_of(address);

	return ipam_make_shared(p->hosts[host].ipam, &p->def.id, &ip, "kept", p->now);
}

static void what_was_an_endpoints_is_shared(void **state)
{
	struct pair *p = *state;
	struct ip ip = ip_of("10.9.0.5");
	struct ipam_totals totals;
	struct ipam_lease lease;
	unsigned saves;

	assert_int_equal(ask(p, 0, "10.9.0.5", IPAM_USE_ENDPOINT)->code, IPAM_GRANTED);
	saves = p->hosts[0].saves;
	assert_true(share(p, 0, "10.9.0.5"));
	assert_true(p->hosts[0].saves > saves);
	assert_true(ipam_lookup(p->hosts[0].ipam, &p->def.id, &ip, &lease));
	assert_int_equal(lease.use, IPAM_USE_SHARED);
	assert_string_equal(lease.owner, "kept");
	assert_true(share(p, 0, "10.9.0.5")); /* again changes nothing */
	assert_true(ipam_pool_totals(p->hosts[0].ipam, &p->def.id, &totals));
	assert_int_equal(totals.leases, 1);
	assert_int_equal(ask(p, 0, "10.9.0.5", IPAM_USE_ENDPOINT)->code, IPAM_IN_USE);
	assert_false(p->hosts[0].result.shared); /* our own: sharing would not be granted either */
}

static void other_hosts_hear_by_record(void **state)
{
	struct pair *p = *state;

	ask(p, 0, "10.9.0.5", IPAM_USE_ENDPOINT);
	assert_true(share(p, 0, "10.9.0.5"));
	pass_records(p, 0);
	assert_int_equal(ask(p, 1, "10.9.0.5", IPAM_USE_ENDPOINT)->code, IPAM_IN_USE);
	assert_true(p->hosts[1].result.shared);
	assert_int_equal(p->hosts[1].result.holder_hostno, 1);
	assert_int_equal(ask(p, 1, "10.9.0.5", IPAM_USE_SHARED)->code, IPAM_GRANTED);
}

static void other_hosts_hear_by_answer_when_the_record_is_late(void **state)
{
	struct pair *p = *state;

	ask(p, 0, "10.9.0.5", IPAM_USE_ENDPOINT);
	assert_true(share(p, 0, "10.9.0.5"));
	assert_int_equal(ask(p, 1, "10.9.0.5", IPAM_USE_ENDPOINT)->code, IPAM_IN_USE);
	assert_true(p->hosts[1].result.shared);
	assert_int_equal(ask(p, 1, "10.9.0.5", IPAM_USE_SHARED)->code, IPAM_GRANTED);
}

static void what_an_endpoint_uses_is_not_shared(void **state)
{
	struct pair *p = *state;
	struct ip ip = ip_of("10.9.0.5");

	ask(p, 0, "10.9.0.5", IPAM_USE_ENDPOINT);
	assert_true(ipam_bind(p->hosts[0].ipam, &p->def.id, &ip, true, "web", p->now));
	assert_false(share(p, 0, "10.9.0.5"));
	assert_false(share(p, 0, "10.9.0.6")); /* no lease */
	assert_false(share(p, 0, "10.8.0.6")); /* not in the pool */
	assert_int_equal(ask(p, 1, "10.9.0.5", IPAM_USE_ENDPOINT)->code, IPAM_IN_USE);
	assert_false(p->hosts[1].result.shared);
	assert_string_equal(p->hosts[1].result.owner, "web");
}

static void released_everywhere_it_is_free_again(void **state)
{
	struct pair *p = *state;
	struct ip ip = ip_of("10.9.0.5");

	ask(p, 0, "10.9.0.5", IPAM_USE_ENDPOINT);
	assert_true(share(p, 0, "10.9.0.5"));
	pass_records(p, 0);
	ask(p, 1, "10.9.0.5", IPAM_USE_SHARED);
	ipam_tick(p->hosts[1].ipam, p->now);
	pass_records(p, 1);
	assert_true(ipam_release(p->hosts[0].ipam, &p->def.id, &ip, p->now));
	pass_records(p, 0);
	assert_int_equal(ask(p, 0, "10.9.0.5", IPAM_USE_ENDPOINT)->code, IPAM_IN_USE); /* the other one keeps it */
	assert_true(ipam_release(p->hosts[1].ipam, &p->def.id, &ip, p->now));
	ipam_tick(p->hosts[1].ipam, p->now);
	pass_records(p, 1);
	assert_int_equal(ask(p, 0, "10.9.0.5", IPAM_USE_ENDPOINT)->code, IPAM_GRANTED);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(what_was_an_endpoints_is_shared),
		CASE(other_hosts_hear_by_record),
		CASE(other_hosts_hear_by_answer_when_the_record_is_late),
		CASE(what_an_endpoint_uses_is_not_shared),
		CASE(released_everywhere_it_is_free_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

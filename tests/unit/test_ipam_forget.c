/* Forgetting a host, and leaving, told one story at a time: what is saved before what is said, who is waited for, who is refused,
 * who yields, and what a host does that finds itself forgotten. Random histories and crashes: test_ipam_cluster.c; every state:
 * tests/model.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipam/ipam_internal.h"

#define HOSTS 4
#define VICTIM 4 /* host number */
#define SAVED_MAX 2048
#define QUEUE_MAX 4096
#define LOG_MAX 256

struct saved {
	uint8_t key[IPAM_KEY_MAX], val[IPAM_VALUE_MAX];
	size_t key_len, len;
};

struct cluster;

struct host {
	struct cluster *cluster;
	uint32_t hostno;
	struct ipam *ipam;
	bool up;
	struct saved *saved;
	unsigned saved_count;
	char log[LOG_MAX]; /* S durable save, s save, > send, D decree told to the shell */
	struct ipam_decree decree;
	unsigned decrees;
	uint8_t chunk[IPAM_MESSAGE_MAX];
	size_t chunk_len;
	struct ipam_result last;
};

struct queued {
	uint32_t from, to;
	size_t len;
	uint8_t bytes[IPAM_MESSAGE_MAX];
};

struct cluster {
	struct host hosts[HOSTS + 1]; /* by number */
	struct queued queue[QUEUE_MAX];
	unsigned head, tail;
	uint64_t now;
	struct ipam_pool_def def;
	bool lose[HOSTS + 1][HOSTS + 1];
};

static void note(struct host *h, char what)
{
	size_t len = strlen(h->log);

	if (len < LOG_MAX - 1)
		h->log[len] = what;
}

static void op_save(void *ctx, const void *key, size_t key_len, const void *val, size_t len, bool durable)
{
	struct host *h = ctx;
	unsigned i = 0;

	note(h, durable ? 'S' : 's');
	while (i < h->saved_count && (h->saved[i].key_len != key_len || memcmp(h->saved[i].key, key, key_len)))
		i++;
	if (!val) {
		if (i < h->saved_count)
			h->saved[i] = h->saved[--h->saved_count];
		return;
	}
	assert_true(i < SAVED_MAX);
	h->saved_count += i == h->saved_count;
	memcpy(h->saved[i].key, key, key_len);
	memcpy(h->saved[i].val, val, len);
	h->saved[i].key_len = key_len;
	h->saved[i].len = len;
}

static void op_publish(void *ctx, const struct id128 *pool, unsigned chunk, const void *val, size_t len)
{
	struct host *h = ctx;

	(void)pool;
	if (chunk > 0)
		return;
	h->chunk_len = val ? len : 0;
	if (val)
		memcpy(h->chunk, val, len);
}

static void op_send(void *ctx, uint32_t to_hostno, const void *msg, size_t len)
{
	struct host *h = ctx;
	struct cluster *c = h->cluster;
	struct queued *q = &c->queue[c->tail++ % QUEUE_MAX];

	note(h, '>');
	assert_true(c->tail - c->head < QUEUE_MAX && len <= IPAM_MESSAGE_MAX);
	*q = (struct queued){.from = h->hostno, .to = to_hostno, .len = len};
	memcpy(q->bytes, msg, len);
}

static void op_complete(void *ctx, uint64_t ticket, const struct ipam_result *result)
{
	(void)ticket;
	((struct host *)ctx)->last = *result;
}

static void op_random(void *ctx, void *buf, size_t len)
{
	memset(buf, (int)((struct host *)ctx)->hostno, len);
}

static void op_decree(void *ctx, const struct ipam_decree *decree)
{
	struct host *h = ctx;

	note(h, 'D');
	h->decree = *decree;
	h->decrees++;
}

static const struct ipam_ops ops = {
	.save = op_save,
	.publish = op_publish,
	.send = op_send,
	.complete = op_complete,
	.random = op_random,
	.decree = op_decree,
};

static struct id128 host_id(uint32_t hostno)
{
	return (struct id128){{(uint8_t)hostno}};
}

static void host_start(struct cluster *c, uint32_t hostno)
{
	struct ipam_config config = {.hostno = hostno, .host_id = host_id(hostno)};
	struct host *h = &c->hosts[hostno];
	struct err err;

	h->cluster = c;
	h->hostno = hostno;
	h->up = true;
	h->ipam = ipam_new(&config, &ops, h);
	ipam_be_known(h->ipam, 0);
	for (unsigned i = 0; i < h->saved_count; i++)
		if (ipam_restore(h->ipam, h->saved[i].key, h->saved[i].key_len, h->saved[i].val, h->saved[i].len, &err) < 0)
			fail_msg("%s", err.text);
	for (uint32_t other = 1; other <= HOSTS; other++)
		if (other != hostno)
			ipam_peer_alive(h->ipam, other, c->hosts[other].up, c->now);
	ipam_start(h->ipam, c->now);
}

static void host_stop(struct cluster *c, uint32_t hostno)
{
	ipam_free(c->hosts[hostno].ipam);
	c->hosts[hostno].ipam = NULL;
	c->hosts[hostno].up = false;
	for (uint32_t other = 1; other <= HOSTS; other++)
		if (c->hosts[other].up)
			ipam_peer_alive(c->hosts[other].ipam, hostno, false, c->now);
}

static void host_return(struct cluster *c, uint32_t hostno)
{
	host_start(c, hostno);
	for (uint32_t other = 1; other <= HOSTS; other++)
		if (other != hostno && c->hosts[other].up)
			ipam_peer_alive(c->hosts[other].ipam, hostno, true, c->now);
}

static void deliver_one(struct cluster *c)
{
	struct queued q = c->queue[c->head++ % QUEUE_MAX];

	if (c->hosts[q.to].up && !c->lose[q.from][q.to])
		ipam_message(c->hosts[q.to].ipam, q.from, q.bytes, q.len, c->now);
}

static void run(struct cluster *c, uint64_t ms)
{
	for (uint64_t until = c->now + ms; c->now <= until; c->now += 50) {
		for (uint32_t i = 1; i <= HOSTS; i++)
			if (c->hosts[i].up)
				ipam_tick(c->hosts[i].ipam, c->now);
		while (c->head != c->tail)
			deliver_one(c);
	}
}

static struct cluster *cluster_new(const char *pool, bool host_numbers)
{
	struct cluster *c = calloc(1, sizeof(*c));
	struct err err;

	c->now = 1000;
	c->def = (struct ipam_pool_def){.id = {{7}}, .edges_reserved = true, .host_numbers = host_numbers};
	assert_int_equal(prefix_parse(pool, &c->def.prefix, &err), 0);
	for (uint32_t i = 1; i <= HOSTS; i++)
		c->hosts[i] = (struct host){.saved = calloc(SAVED_MAX, sizeof(struct saved)), .up = true};
	for (uint32_t i = 1; i <= HOSTS; i++)
		host_start(c, i);
	assert_int_equal(ipam_pool_create(c->hosts[VICTIM].ipam, &c->def, c->now, &err), 0);
	for (uint32_t i = 1; i < VICTIM; i++)
		assert_int_equal(ipam_pool_join(c->hosts[i].ipam, &c->def, c->now, &err), 0);
	return c;
}

static void cluster_free(struct cluster *c)
{
	for (uint32_t i = 1; i <= HOSTS; i++) {
		ipam_free(c->hosts[i].ipam);
		free(c->hosts[i].saved);
	}
	free(c);
}

/* `to` asks `from` for exactly this address; what follows is delivered unless lost. */
static void move(struct cluster *c, uint32_t from, uint32_t to, unsigned offset)
{
	struct ipam_message m = {.type = IPAM_MSG_REQ,
		.pool = c->def.id,
		.xid = 7000 + c->tail,
		.flags = IPAM_REQ_URGENT | IPAM_REQ_EXACT,
		.start = offset,
		.len = 1,
		.count = 1};
	uint8_t buf[IPAM_MESSAGE_MAX];
	size_t len = ipam_message_encode(&m, buf);

	ipam_message(c->hosts[from].ipam, to, buf, len, c->now);
	run(c, 0);
}

static bool holds(const struct cluster *c, uint32_t hostno, unsigned offset)
{
	const struct pool *pool = pool_find(c->hosts[hostno].ipam, &c->def.id);
	const struct custody *fact = pool ? custody_at(&pool->custody, offset) : NULL;

	return fact && fact->to == hostno;
}

static u128 held(const struct cluster *c, uint32_t hostno)
{
	const struct pool *pool = pool_find(c->hosts[hostno].ipam, &c->def.id);

	return pool ? pool->held : 0;
}

static int forget(struct cluster *c, uint32_t heir, uint32_t victim, const uint32_t *assumed, unsigned count, struct err *err)
{
	struct id128 id = host_id(victim);

	return ipam_forget(c->hosts[heir].ipam, victim, &id, true, assumed, count, c->now, err);
}

static bool is_done(const struct cluster *c, uint32_t at, uint32_t victim)
{
	struct ipam_decree d;

	return ipam_decree_get(c->hosts[at].ipam, victim, &d) && d.done;
}

static void count_awaited(void *ctx, uint32_t hostno)
{
	(void)hostno;
	++*(unsigned *)ctx;
}

static unsigned awaited(const struct cluster *c, uint32_t heir, uint32_t victim)
{
	unsigned count = 0;

	ipam_each_awaited(c->hosts[heir].ipam, victim, count_awaited, &count);
	return count;
}

/* --- stories --- */

static void the_estate_moves_and_gifts_are_kept(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);
	struct err err;

	(void)state;
	move(c, VICTIM, 2, 3);
	move(c, 2, 3, 3);
	move(c, VICTIM, 1, 4);
	assert_true(holds(c, 3, 3) && holds(c, 1, 4));
	host_stop(c, VICTIM);
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0);
	run(c, 1000);
	for (uint32_t i = 1; i < VICTIM; i++)
		assert_true(is_done(c, i, VICTIM));
	assert_true(holds(c, 3, 3) && !holds(c, 1, 3));
	assert_int_equal((unsigned)held(c, 1), 13);
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0); /* said again: nothing */
	assert_int_equal(c->hosts[1].decree.number, 1);
	cluster_free(c);
}

/* In a healthy cluster all is over before any timer is due. */
static void no_timer_is_needed(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);
	struct err err;

	(void)state;
	host_stop(c, VICTIM);
	run(c, 0);
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0);
	while (c->head != c->tail)
		deliver_one(c);
	assert_true(is_done(c, 1, VICTIM));
	cluster_free(c);
}

static void nothing_is_said_before_it_is_on_disk(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);
	struct err err;

	(void)state;
	host_stop(c, VICTIM);
	run(c, 0);
	for (uint32_t i = 1; i < VICTIM; i++)
		memset(c->hosts[i].log, 0, LOG_MAX);
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0);
	assert_int_equal(strncmp(c->hosts[1].log, "SD>>", 4), 0);
	memset(c->hosts[1].log, 0, LOG_MAX);
	deliver_one(c); /* CLAIM at 2 */
	assert_string_equal(c->hosts[2].log, "S>");
	run(c, 1000);
	assert_true(is_done(c, 1, VICTIM));
	/* The ranges, then that it is done, both durable; then the others are told. */
	assert_non_null(strstr(c->hosts[1].log, "SS>>D"));
	cluster_free(c);
}

static void the_operators_word_is_needed(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);
	struct id128 id = host_id(VICTIM), own = host_id(1);
	uint32_t self = 1;
	struct err err;

	(void)state;
	assert_int_equal(ipam_forget(c->hosts[1].ipam, VICTIM, &id, false, NULL, 0, c->now, &err), -1);
	assert_int_equal(err.code, ERR_INVALID);
	assert_non_null(strstr(err.text, "fenced"));
	assert_int_equal(ipam_forget(c->hosts[1].ipam, 1, &own, true, NULL, 0, c->now, &err), -1);
	assert_int_equal(ipam_forget(c->hosts[1].ipam, VICTIM, &id, true, &self, 1, c->now, &err), -1);
	assert_int_equal(c->hosts[1].decrees, 0);
	/* A goodbye is word enough. */
	host_stop(c, VICTIM);
	for (uint32_t i = 1; i < VICTIM; i++)
		ipam_peer_left(c->hosts[i].ipam, VICTIM, c->now);
	assert_int_equal(ipam_forget(c->hosts[1].ipam, VICTIM, &id, false, NULL, 0, c->now, &err), 0);
	run(c, 1000);
	assert_true(is_done(c, 1, VICTIM));
	cluster_free(c);
}

static void a_late_gift_of_the_victim_is_refused_by_message_and_by_record(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);
	struct queued grant = {0};
	struct err err;

	(void)state;
	c->lose[VICTIM][3] = true;
	move(c, VICTIM, 3, 5);
	for (unsigned i = 0; i < c->tail; i++)
		if (c->queue[i].from == VICTIM && c->queue[i].to == 3)
			grant = c->queue[i];
	assert_true(grant.len > 0);
	host_stop(c, VICTIM);
	c->lose[VICTIM][3] = false;
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0);
	run(c, 1000);
	ipam_message(c->hosts[3].ipam, VICTIM, grant.bytes, grant.len, c->now);
	ipam_peer_chunk(c->hosts[3].ipam, VICTIM, &c->def.id, 0, c->hosts[VICTIM].chunk, c->hosts[VICTIM].chunk_len, c->now);
	assert_true(holds(c, 1, 5) && !holds(c, 3, 5));
	assert_int_equal(ipam_counters(c->hosts[3].ipam)->refused, 1);
	cluster_free(c);
}

/* A promise alone is enough: the record must not bring what the message may not. */
static void a_promise_refuses_offers_in_records_too(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);
	struct err err;

	(void)state;
	c->lose[VICTIM][3] = true;
	move(c, VICTIM, 3, 5);
	host_stop(c, VICTIM);
	c->lose[2][1] = true; /* so that it is never done */
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0);
	run(c, 1000);
	assert_false(is_done(c, 1, VICTIM));
	ipam_peer_chunk(c->hosts[3].ipam, VICTIM, &c->def.id, 0, c->hosts[VICTIM].chunk, c->hosts[VICTIM].chunk_len, c->now);
	assert_false(holds(c, 3, 5));
	cluster_free(c);
}

static void a_silent_host_is_waited_for_through_restarts(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);
	struct err err;

	(void)state;
	move(c, VICTIM, 3, 6); /* only the silent one knows */
	host_stop(c, VICTIM);
	host_stop(c, 3);
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0);
	run(c, 30000);
	assert_false(is_done(c, 1, VICTIM));
	assert_int_equal(awaited(c, 1, VICTIM), 1);
	assert_int_equal((unsigned)held(c, 1), 0);
	host_stop(c, 1);
	host_return(c, 1);
	run(c, 1000);
	assert_int_equal(awaited(c, 1, VICTIM), 1);
	host_return(c, 3);
	run(c, 1000);
	assert_true(is_done(c, 1, VICTIM) && holds(c, 3, 6) && !holds(c, 1, 6));
	cluster_free(c);
}

static void an_assumed_fenced_host_is_not_asked_and_drops_all_when_it_returns(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);
	uint32_t assumed[] = {3, 3};
	struct err err;

	(void)state;
	move(c, VICTIM, 3, 6);
	host_stop(c, VICTIM);
	host_stop(c, 3);
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0);
	run(c, 1000);
	assert_int_equal(forget(c, 1, VICTIM, assumed, 2, &err), 0);
	assert_int_equal(c->hosts[1].decree.number, 2);
	assert_int_equal(c->hosts[1].decree.assumed_count, 1);
	run(c, 1000);
	assert_true(is_done(c, 1, VICTIM) && holds(c, 1, 6));
	host_return(c, 3);
	move(c, 3, 2, 6); /* it gives what is not its any more: refused, and answered with the decree */
	run(c, 1000);
	assert_false(holds(c, 2, 6));
	assert_true(ipam_is_forgotten(c->hosts[3].ipam));
	assert_int_equal((unsigned)held(c, 3), 0);
	assert_int_equal(c->hosts[3].decree.victim, VICTIM);
	cluster_free(c);
}

static void the_victim_drops_everything_and_stays_so(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);
	struct ipam_want want = {.pool = c->def.id, .owner = "web"};
	struct err err;

	(void)state;
	ipam_request(c->hosts[VICTIM].ipam, &want, 1, c->now);
	assert_int_equal(c->hosts[VICTIM].last.code, IPAM_GRANTED);
	host_stop(c, VICTIM);
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0);
	run(c, 1000);
	host_return(c, VICTIM);
	memset(c->hosts[VICTIM].log, 0, LOG_MAX);
	ipam_decree_seen(c->hosts[VICTIM].ipam, &c->hosts[1].decree, c->now);
	assert_int_equal(c->hosts[VICTIM].log[0], 'S');
	assert_true(ipam_is_forgotten(c->hosts[VICTIM].ipam));
	assert_false(ipam_lookup(c->hosts[VICTIM].ipam, &c->def.id, &c->hosts[VICTIM].last.address, NULL));
	ipam_request(c->hosts[VICTIM].ipam, &want, 2, c->now);
	assert_int_equal(c->hosts[VICTIM].last.code, IPAM_UNKNOWN_POOL);
	assert_int_equal(ipam_pool_join(c->hosts[VICTIM].ipam, &c->def, c->now, &err), -1);
	assert_int_equal(err.code, ERR_DENIED);
	host_stop(c, VICTIM);
	c->hosts[VICTIM].decrees = 0;
	host_return(c, VICTIM);
	assert_true(ipam_is_forgotten(c->hosts[VICTIM].ipam));
	assert_int_equal(c->hosts[VICTIM].decrees, 1); /* the shell is told again, should it have died in between */
	cluster_free(c);
}

/* Killed behind the first save: the next start finishes what was begun. */
static void a_crash_while_dropping_is_finished_at_the_next_start(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);
	struct ipam_decree d = {.victim = VICTIM, .victim_id = host_id(VICTIM), .heir = 1, .heir_id = host_id(1), .number = 1};
	struct host *h = &c->hosts[VICTIM];
	static const struct id128 none;
	uint8_t key[IPAM_KEY_MAX], val[IPAM_VALUE_MAX];
	size_t key_len = ipam_key_encode(key, IPAM_SAVED_DECREE, &none, VICTIM);

	(void)state;
	host_stop(c, VICTIM);
	op_save(h, key, key_len, val, saved_decree_encode(&d, false, val), true);
	host_return(c, VICTIM);
	assert_true(ipam_is_forgotten(h->ipam));
	for (unsigned i = 0; i < h->saved_count; i++)
		assert_int_equal(h->saved[i].key[0], IPAM_SAVED_DECREE);
	cluster_free(c);
}

static void a_decree_against_another_identity_with_our_number_is_not_ours(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);
	struct ipam_decree d = {
		.victim = VICTIM, .victim_id = host_id(99), .heir = 1, .heir_id = host_id(1), .number = 1, .done = true};

	(void)state;
	ipam_decree_seen(c->hosts[VICTIM].ipam, &d, c->now);
	assert_false(ipam_is_forgotten(c->hosts[VICTIM].ipam));
	assert_int_equal((unsigned)held(c, VICTIM), 14);
	cluster_free(c);
}

static void of_two_heirs_the_lower_id_goes_on(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);
	struct err err;

	(void)state;
	host_stop(c, VICTIM);
	/* 2 gets the promise of 3 before 1 asks; and neither hears of the other yet. */
	c->lose[2][1] = c->lose[1][2] = c->lose[3][2] = true;
	assert_int_equal(forget(c, 2, VICTIM, NULL, 0, &err), 0);
	run(c, 500);
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0);
	run(c, 500);
	assert_false(is_done(c, 1, VICTIM) || is_done(c, 2, VICTIM));
	c->lose[2][1] = c->lose[1][2] = c->lose[3][2] = false;
	run(c, 30000);
	for (uint32_t i = 1; i < VICTIM; i++)
		assert_true(is_done(c, i, VICTIM));
	assert_int_equal(c->hosts[1].decree.heir, 1);
	assert_int_equal((unsigned)held(c, 1), 14);
	assert_int_equal((unsigned)held(c, 2), 0);
	cluster_free(c);
}

static void who_has_promised_cannot_be_heir(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);
	uint32_t first = 1;
	struct err err;

	(void)state;
	host_stop(c, VICTIM);
	c->lose[3][1] = true;
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0);
	run(c, 500);
	assert_int_equal(forget(c, 2, VICTIM, NULL, 0, &err), -1);
	assert_int_equal(err.code, ERR_CONFLICT);
	assert_non_null(strstr(err.text, "host number 1"));
	/* Unless the heir is gone too. */
	host_stop(c, 1);
	assert_int_equal(forget(c, 2, VICTIM, &first, 1, &err), 0);
	run(c, 1000);
	assert_true(is_done(c, 2, VICTIM));
	assert_int_equal((unsigned)held(c, 2), 14);
	cluster_free(c);
}

static void a_host_that_is_not_eligible_gets_nothing_yet(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);

	(void)state;
	ipam_peer_eligible(c->hosts[VICTIM].ipam, 2, false, c->now);
	move(c, VICTIM, 2, 3);
	assert_false(holds(c, 2, 3));
	move(c, VICTIM, 3, 3);
	assert_true(holds(c, 3, 3));
	ipam_peer_eligible(c->hosts[VICTIM].ipam, 2, true, c->now);
	move(c, VICTIM, 2, 4);
	assert_true(holds(c, 2, 4));
	cluster_free(c);
}

static void a_host_known_to_another_only_is_asked_too(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);
	struct err err;

	(void)state;
	move(c, VICTIM, 3, 6);
	host_stop(c, VICTIM);
	/* Host 1 starts without ever having heard of 3. */
	ipam_free(c->hosts[1].ipam);
	c->hosts[1].ipam = ipam_new(&(struct ipam_config){.hostno = 1, .host_id = host_id(1)}, &ops, &c->hosts[1]);
	ipam_be_known(c->hosts[1].ipam, 0);
	for (unsigned i = 0; i < c->hosts[1].saved_count; i++) {
		const struct saved *s = &c->hosts[1].saved[i];

		assert_int_equal(ipam_restore(c->hosts[1].ipam, s->key, s->key_len, s->val, s->len, &err), 0);
	}
	ipam_peer_alive(c->hosts[1].ipam, 2, true, c->now);
	ipam_start(c->hosts[1].ipam, c->now);
	c->lose[3][1] = true;
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0);
	run(c, 2000);
	assert_false(is_done(c, 1, VICTIM));
	assert_int_equal(awaited(c, 1, VICTIM), 1);
	c->lose[3][1] = false;
	run(c, 12000);
	assert_true(is_done(c, 1, VICTIM) && holds(c, 3, 6) && !holds(c, 1, 6));
	cluster_free(c);
}

/* 2 has not heard that 3 left: a gift of 3 could still reach it behind its report. */
static void whoever_missed_a_goodbye_is_asked_again(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);
	struct err err;

	(void)state;
	host_stop(c, VICTIM);
	host_stop(c, 3);
	ipam_peer_left(c->hosts[1].ipam, 3, c->now);
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0);
	run(c, 3000);
	assert_false(is_done(c, 1, VICTIM));
	ipam_peer_left(c->hosts[2].ipam, 3, c->now);
	run(c, 12000);
	assert_true(is_done(c, 1, VICTIM));
	cluster_free(c);
}

static void a_pool_that_only_others_know_keeps_the_decree_open(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);
	struct ipam_pool_def other = c->def;
	struct err err;

	(void)state;
	other.id.bytes[0] = 8;
	assert_int_equal(ipam_pool_create(c->hosts[VICTIM].ipam, &other, c->now, &err), 0);
	assert_int_equal(ipam_pool_join(c->hosts[2].ipam, &other, c->now, &err), 0);
	host_stop(c, VICTIM);
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0);
	run(c, 1000);
	assert_int_equal((unsigned)held(c, 1), 14); /* what it knows is taken at once */
	assert_false(is_done(c, 1, VICTIM));
	assert_int_equal(ipam_pool_join(c->hosts[1].ipam, &other, c->now, &err), 0);
	run(c, 25000);
	assert_true(is_done(c, 1, VICTIM));
	assert_int_equal((unsigned)pool_find(c->hosts[1].ipam, &other.id)->held, 14);
	cluster_free(c);
}

/* What was told of it meanwhile has been forgotten, with the pool; not that it was told. */
static void a_pool_that_becomes_known_late_is_told_again(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);
	struct ipam_pool_def other = c->def;
	struct err err;

	(void)state;
	other.id.bytes[0] = 8;
	assert_int_equal(ipam_pool_create(c->hosts[2].ipam, &other, c->now, &err), 0);
	host_stop(c, VICTIM);
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0);
	run(c, 15000);
	assert_false(is_done(c, 1, VICTIM));
	assert_int_equal(ipam_pool_join(c->hosts[1].ipam, &other, c->now, &err), 0);
	run(c, 25000);
	assert_true(is_done(c, 1, VICTIM));
	assert_int_equal((unsigned)pool_find(c->hosts[1].ipam, &other.id)->held, 0);
	assert_int_equal((unsigned)pool_find(c->hosts[2].ipam, &other.id)->held, 14);
	cluster_free(c);
}

/* Every second address is somebody's: reports of several pages. */
static void long_reports_come_page_by_page(void **state)
{
	struct cluster *c = cluster_new("198.51.0.0/21", false);
	struct err err;

	(void)state;
	for (unsigned a = 1; a < 2000; a += 2)
		move(c, VICTIM, 2 + a / 2 % 2, a);
	host_stop(c, VICTIM);
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0);
	run(c, 2000);
	assert_true(is_done(c, 1, VICTIM));
	assert_int_equal((unsigned)held(c, 1), 2046 - 1000);
	assert_int_equal((unsigned)(held(c, 2) + held(c, 3)), 1000);
	cluster_free(c);
}

static void numbers_of_known_hosts_stay_behind(void **state)
{
	struct cluster *c = cluster_new("0.0.0.0/12", true);
	struct err err;

	(void)state;
	host_stop(c, VICTIM);
	host_stop(c, 1); /* what the pool is comes from disk */
	host_return(c, 1);
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0);
	run(c, 1000);
	assert_true(is_done(c, 1, VICTIM));
	for (unsigned n = 1; n <= HOSTS; n++)
		assert_false(holds(c, 1, n));
	assert_true(holds(c, 1, HOSTS + 1));
	assert_int_equal((unsigned)held(c, 1), (1u << 20) - 2 - HOSTS);
	cluster_free(c);
}

static void an_estate_can_be_inherited_again(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/28", false);
	const struct custody *fact;
	struct err err;

	(void)state;
	move(c, VICTIM, 2, 9);
	move(c, 2, VICTIM, 9); /* a fact of host 2 names the first victim for ever */
	host_stop(c, VICTIM);
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0);
	run(c, 1000);
	host_stop(c, 1);
	assert_int_equal(forget(c, 2, 1, NULL, 0, &err), 0);
	run(c, 1000);
	assert_true(is_done(c, 2, 1));
	assert_int_equal((unsigned)held(c, 2), 14);
	assert_true(holds(c, 2, 9));
	fact = custody_at(&pool_find(c->hosts[2].ipam, &c->def.id)->custody, 5);
	assert_int_equal(fact->reign, 2);
	cluster_free(c);
}

static void an_ipv6_estate_moves(void **state)
{
	struct cluster *c = cluster_new("2001:db8::/64", false);
	struct err err;

	(void)state;
	move(c, VICTIM, 2, 77);
	host_stop(c, VICTIM);
	assert_int_equal(forget(c, 1, VICTIM, NULL, 0, &err), 0);
	run(c, 1000);
	assert_true(is_done(c, 1, VICTIM));
	assert_true(held(c, 1) == ((u128)1 << 64) - 2);
	assert_true(holds(c, 2, 77));
	cluster_free(c);
}

/* --- leaving --- */

/* Gossip brings everybody's record to everybody. */
static void share_records(struct cluster *c)
{
	for (uint32_t i = 1; i <= HOSTS; i++)
		for (uint32_t j = 1; j <= HOSTS; j++)
			if (i != j && c->hosts[i].up && c->hosts[j].up && c->hosts[i].chunk_len)
				ipam_peer_chunk(
					c->hosts[j].ipam, i, &c->def.id, 0, c->hosts[i].chunk, c->hosts[i].chunk_len, c->now);
}

static struct ip lease(struct cluster *c, uint32_t hostno, bool shared)
{
	struct ipam_want want = {
		.pool = c->def.id, .owner = "x", .use = shared ? IPAM_USE_SHARED : IPAM_USE_ENDPOINT, .shared_first = shared};

	ipam_request(c->hosts[hostno].ipam, &want, 1, c->now);
	run(c, 0);
	assert_int_equal(c->hosts[hostno].last.code, IPAM_GRANTED);
	return c->hosts[hostno].last.address;
}

static void who_leaves_hands_over_what_it_leased_too(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/24", false);
	struct ipam_want want = {.pool = c->def.id, .owner = "late"};

	(void)state;
	move(c, VICTIM, 1, 200);
	move(c, VICTIM, 2, 201);
	share_records(c);
	lease(c, VICTIM, true);
	share_records(c);
	lease(c, 1, true); /* as a guest: the leaver lists it */
	share_records(c);
	for (unsigned i = 0; i < 20; i++)
		lease(c, VICTIM, false);
	assert_false(held(c, VICTIM) == 0);
	ipam_retire(c->hosts[VICTIM].ipam, c->now);
	assert_false(ipam_has_retired(c->hosts[VICTIM].ipam));
	ipam_request(c->hosts[VICTIM].ipam, &want, 9, c->now);
	assert_int_equal(c->hosts[VICTIM].last.code, IPAM_UNKNOWN_POOL);
	for (unsigned i = 0; i < 20 && !ipam_has_retired(c->hosts[VICTIM].ipam); i++) {
		run(c, 0);
		share_records(c);
	}
	assert_true(ipam_has_retired(c->hosts[VICTIM].ipam));
	assert_int_equal((unsigned)held(c, VICTIM), 0);
	assert_int_equal((unsigned)(held(c, 1) + held(c, 2) + held(c, 3)), 254);
	cluster_free(c);
}

static void the_smallest_holder_is_given_what_a_leaver_has(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/24", false);

	(void)state;
	for (unsigned a = 1; a < 9; a++)
		move(c, VICTIM, 1, a);
	move(c, VICTIM, 2, 100);
	for (uint32_t i = 1; i < VICTIM; i++)
		ipam_pool_want(c->hosts[i].ipam, &c->def.id, i < 3, 0, c->now); /* 3 has least, and no use for it */
	share_records(c);
	ipam_retire(c->hosts[VICTIM].ipam, c->now);
	run(c, 200);
	assert_int_equal((unsigned)held(c, VICTIM), 0);
	assert_true(held(c, 2) > 230); /* some may have been passed on ahead of need */
	assert_int_equal((unsigned)held(c, 3), 0);
	cluster_free(c);
}

static void it_is_not_over_before_the_other_side_has_it(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/24", false);

	(void)state;
	share_records(c);
	c->lose[1][VICTIM] = c->lose[2][VICTIM] = c->lose[3][VICTIM] = true;
	ipam_retire(c->hosts[VICTIM].ipam, c->now);
	run(c, 300);
	assert_int_equal((unsigned)held(c, VICTIM), 0);
	assert_false(ipam_has_retired(c->hosts[VICTIM].ipam));
	share_records(c); /* the new holder's record serves as well */
	run(c, 100);
	assert_true(ipam_has_retired(c->hosts[VICTIM].ipam));
	cluster_free(c);
}

static void who_leaves_waits_for_who_may_be_given_something_soon(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/24", false);

	(void)state;
	share_records(c);
	for (uint32_t i = 1; i <= HOSTS; i++)
		if (i != VICTIM)
			ipam_peer_eligible(c->hosts[VICTIM].ipam, i, false, c->now);
	ipam_retire(c->hosts[VICTIM].ipam, c->now);
	run(c, 300);
	assert_int_not_equal((unsigned)held(c, VICTIM), 0);
	assert_false(ipam_has_retired(c->hosts[VICTIM].ipam));
	ipam_peer_eligible(c->hosts[VICTIM].ipam, 2, true, c->now);
	run(c, 300);
	assert_int_equal((unsigned)held(c, VICTIM), 0);
	assert_true(ipam_has_retired(c->hosts[VICTIM].ipam));
	cluster_free(c);
}

static void what_was_used_rests_where_it_goes(void **state)
{
	struct cluster *c = cluster_new("192.0.2.0/29", false); /* 6 addresses */
	struct ip used, got;

	(void)state;
	share_records(c);
	used = lease(c, VICTIM, false);
	ipam_release(c->hosts[VICTIM].ipam, &c->def.id, &used, c->now);
	run(c, 20000);
	ipam_pool_want(c->hosts[1].ipam, &c->def.id, true, 0, c->now);
	share_records(c);
	ipam_retire(c->hosts[VICTIM].ipam, c->now);
	run(c, 500);
	assert_int_equal((unsigned)held(c, 1), 6);
	for (unsigned i = 0; i < 5; i++) {
		got = lease(c, 1, false);
		assert_false(ip_equal(&got, &used));
	}
	got = lease(c, 1, false); /* nothing else is left: better early than not at all */
	assert_true(ip_equal(&got, &used));
	cluster_free(c);
}

static void who_leaves_keeps_the_numbers_of_hosts(void **state)
{
	struct cluster *c = cluster_new("0.0.0.0/12", true);

	(void)state;
	for (unsigned n = 1; n <= HOSTS; n++)
		lease(c, VICTIM, false);
	share_records(c);
	ipam_retire(c->hosts[VICTIM].ipam, c->now);
	run(c, 500);
	assert_true(ipam_has_retired(c->hosts[VICTIM].ipam));
	assert_int_equal((unsigned)held(c, VICTIM), HOSTS);
	for (unsigned n = 1; n <= HOSTS; n++)
		assert_true(holds(c, VICTIM, n));
	cluster_free(c);
}

/* --- bytes --- */

static void decrees_decode_as_encoded_and_bad_ones_do_not(void **state)
{
	struct ipam_decree d = {.victim = 9,
				   .victim_id = host_id(9),
				   .heir = 0xfffff,
				   .heir_id = host_id(3),
				   .number = UINT32_MAX,
				   .done = true,
				   .assumed_count = IPAM_ASSUMED_MAX},
			   got;
	uint8_t buf[IPAM_DECREE_MAX];
	size_t len;

	(void)state;
	for (unsigned i = 0; i < IPAM_ASSUMED_MAX; i++)
		d.assumed[i] = 0xfff00 + i;
	len = ipam_decree_encode(&d, buf);
	assert_int_equal(ipam_decree_decode(&got, buf, len), 0);
	assert_memory_equal(&got, &d, sizeof(d));
	for (size_t cut = 0; cut < len; cut++)
		assert_int_equal(ipam_decree_decode(&got, buf, cut), -1);
	d.assumed[1] = d.assumed[0]; /* not ascending */
	len = ipam_decree_encode(&d, buf);
	assert_int_equal(ipam_decree_decode(&got, buf, len), -1);
	d.assumed_count = 0;
	d.heir = d.victim;
	len = ipam_decree_encode(&d, buf);
	assert_int_equal(ipam_decree_decode(&got, buf, len), -1);
}

/* The longest decree and a full page fit together. */
static void the_longest_page_fits(void **state)
{
	static struct ipam_message m, got;
	uint8_t buf[IPAM_MESSAGE_MAX];
	size_t bytes = 0, len;

	(void)state;
	m = (struct ipam_message){
		.type = IPAM_MSG_PROMISE, .xid = UINT64_MAX, .ask = IPAM_ASK_RANGES, .more = true, .cursor = ~(u128)0};
	m.decree = (struct ipam_decree){
		.victim = IPAM_HOSTNO_MAX, .heir = IPAM_HOSTNO_MAX - 1, .number = UINT32_MAX, .assumed_count = IPAM_ASSUMED_MAX};
	for (unsigned i = 0; i < IPAM_ASSUMED_MAX; i++)
		m.decree.assumed[i] = 0xf0000 + i;
	for (;;) {
		struct custody c = {.start = ~(u128)0 - 200 + 2 * m.range_count,
			.len = 1,
			.reign = UINT32_MAX,
			.version = UINT64_MAX,
			.to = IPAM_HOSTNO_MAX};

		bytes += v_size(c.start) + v_size(0) + v_size(c.reign) + v_size(c.version) + v_size(c.to);
		if (bytes > IPAM_REPORT_BYTES)
			break;
		m.ranges[m.range_count++] = c;
	}
	len = ipam_message_encode(&m, buf);
	assert_true(len > 0);
	assert_int_equal(ipam_message_decode(&got, buf, len), 0);
	assert_int_equal(got.range_count, m.range_count);
	assert_true(got.more && !got.held);
}

/* Each would be remembered. */
static void host_numbers_that_no_host_has_are_refused(void **state)
{
	struct ipam_decree d = {.victim = 9, .heir = 3, .number = 1, .assumed_count = 1, .assumed = {IPAM_HOSTNO_MAX}}, got;
	static struct ipam_message m, got_m;
	uint8_t buf[IPAM_MESSAGE_MAX];

	(void)state;
	for (unsigned bad = 0; bad < 4; bad++) {
		uint32_t *const number[] = {&d.assumed[0], &d.assumed[0], &d.victim, &d.heir};
		uint32_t kept = *number[bad];

		*number[bad] = IPAM_HOSTNO_MAX + (bad > 0);
		assert_int_equal(ipam_decree_decode(&got, buf, ipam_decree_encode(&d, buf)), bad ? -1 : 0);
		*number[bad] = kept;
	}
	for (uint32_t host = IPAM_HOSTNO_MAX; host <= IPAM_HOSTNO_MAX + 1; host++) {
		m = (struct ipam_message){.type = IPAM_MSG_PROMISE, .xid = 1, .ask = IPAM_ASK_HOSTS, .decree = d};
		m.hosts[m.host_count++] = host;
		assert_int_equal(
			ipam_message_decode(&got_m, buf, ipam_message_encode(&m, buf)), host == IPAM_HOSTNO_MAX ? 0 : -1);
		m = (struct ipam_message){.type = IPAM_MSG_PROMISE, .xid = 1, .ask = IPAM_ASK_RANGES, .decree = d};
		m.ranges[m.range_count++] = (struct custody){.start = 5, .len = 1, .to = host};
		assert_int_equal(
			ipam_message_decode(&got_m, buf, ipam_message_encode(&m, buf)), host == IPAM_HOSTNO_MAX ? 0 : -1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_estate_moves_and_gifts_are_kept),
		cmocka_unit_test(no_timer_is_needed),
		cmocka_unit_test(nothing_is_said_before_it_is_on_disk),
		cmocka_unit_test(the_operators_word_is_needed),
		cmocka_unit_test(a_late_gift_of_the_victim_is_refused_by_message_and_by_record),
		cmocka_unit_test(a_promise_refuses_offers_in_records_too),
		cmocka_unit_test(a_silent_host_is_waited_for_through_restarts),
		cmocka_unit_test(an_assumed_fenced_host_is_not_asked_and_drops_all_when_it_returns),
		cmocka_unit_test(the_victim_drops_everything_and_stays_so),
		cmocka_unit_test(a_crash_while_dropping_is_finished_at_the_next_start),
		cmocka_unit_test(a_decree_against_another_identity_with_our_number_is_not_ours),
		cmocka_unit_test(of_two_heirs_the_lower_id_goes_on),
		cmocka_unit_test(who_has_promised_cannot_be_heir),
		cmocka_unit_test(a_host_that_is_not_eligible_gets_nothing_yet),
		cmocka_unit_test(a_host_known_to_another_only_is_asked_too),
		cmocka_unit_test(whoever_missed_a_goodbye_is_asked_again),
		cmocka_unit_test(a_pool_that_only_others_know_keeps_the_decree_open),
		cmocka_unit_test(a_pool_that_becomes_known_late_is_told_again),
		cmocka_unit_test(long_reports_come_page_by_page),
		cmocka_unit_test(numbers_of_known_hosts_stay_behind),
		cmocka_unit_test(an_estate_can_be_inherited_again),
		cmocka_unit_test(an_ipv6_estate_moves),
		cmocka_unit_test(who_leaves_hands_over_what_it_leased_too),
		cmocka_unit_test(the_smallest_holder_is_given_what_a_leaver_has),
		cmocka_unit_test(it_is_not_over_before_the_other_side_has_it),
		cmocka_unit_test(who_leaves_waits_for_who_may_be_given_something_soon),
		cmocka_unit_test(what_was_used_rests_where_it_goes),
		cmocka_unit_test(who_leaves_keeps_the_numbers_of_hosts),
		cmocka_unit_test(decrees_decode_as_encoded_and_bad_ones_do_not),
		cmocka_unit_test(host_numbers_that_no_host_has_are_refused),
		cmocka_unit_test(the_longest_page_fits),
	};

	return cmocka_run_group_tests_name("ipam_forget", tests, NULL, NULL);
}

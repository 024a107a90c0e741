/* The shell around the ipam core: its ordered actions become saves, gossip records, messages and answers, through the outbox. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#include "daemon/node_internal.h"

struct ticket {
	uint64_t number;
	struct id128 pool;
	void (*fn)(void *arg, const struct ipam_result *result); /* NULL: nobody waits any more */
	void *arg;
	UT_hash_handle hh;
};

struct effect {
	struct node *node;
	enum { EFFECT_PUBLISH, EFFECT_SEND, EFFECT_COMPLETE, EFFECT_DECREE } what;
	struct id128 pool;
	unsigned chunk;
	bool withdraw;
	uint32_t to;
	uint64_t ticket;
	struct ipam_result result;
	size_t len;
	uint8_t bytes[IPAM_MESSAGE_MAX];
};

#define CUSTODY_KEY_SIZE (1 + sizeof(struct id128) + 1)

static void complete(struct node *node, uint64_t number, const struct ipam_result *result)
{
	struct ticket *t;

	HASH_FIND(hh, node->tickets, &number, sizeof(number), t);
	if (!t)
		return;
	HASH_DEL(node->tickets, t);
	if (t->fn)
		t->fn(t->arg, result);
	else if (result->code == IPAM_GRANTED && !result->repeated)
		ipam_release(node->ipam, &t->pool, &result->address, clock_boot_ms());
	free(t);
}

void custody_abandon(struct node *node, uint64_t number)
{
	struct ticket *t;

	HASH_FIND(hh, node->tickets, &number, sizeof(number), t);
	if (!t)
		return;
	t->fn = NULL;
	if (!node->ipam || !ipam_cancel(node->ipam, number))
		return; /* its answer is on the way */
	HASH_DEL(node->tickets, t);
	free(t);
}

static void perform(void *arg)
{
	struct effect *e = arg;
	struct node *node = e->node;

	if (e->what == EFFECT_PUBLISH) {
		uint8_t key[CUSTODY_KEY_SIZE] = {RECORD_CUSTODY};
		memcpy(key + 1, &e->pool, sizeof(e->pool));
		key[CUSTODY_KEY_SIZE - 1] = (uint8_t)e->chunk;
		cluster_publish_of(
			node, &e->pool, topic_of_pool(&e->pool), key, sizeof(key), e->withdraw ? NULL : e->bytes, e->len);
	} else if (e->what == EFFECT_SEND) {
		if (node->gossip)
			gossip_tell(node->gossip, e->to, TELL_IPAM, e->bytes, e->len, clock_boot_ms(), NULL);
		cluster_poke(node);
	} else if (e->what == EFFECT_DECREE) {
		struct ipam_decree decree;
		if (node->ipam && ipam_decree_decode(&decree, e->bytes, e->len) == 0)
			estate_decree(node, &decree);
	} else {
		complete(node, e->ticket, &e->result);
	}
	free(e);
}

static struct effect *effect_new(struct node *node, const void *bytes, size_t len)
{
	struct effect *e = alloc_new(struct effect);

	if (len > sizeof(e->bytes)) /* a bug */
		abort();
	e->node = node;
	e->len = len;
	if (bytes)
		memcpy(e->bytes, bytes, len);
	return e;
}

static void on_save(void *ctx, const void *key, size_t key_len, const void *val, size_t len, bool durable)
{
	struct node *node = ctx;
	bool lease = key_len > 0 && *(const char *)key == 'L';

	if (durable && !lease)
		standing_change(node);
	outbox_save(node->outbox, store_change_new(lease ? STORE_BOOT : STORE_STATE, lease ? STORE_LEASE : STORE_IPAM, key,
					  key_len, val, len, durable && !lease));
	if (durable && !lease)
		standing_changed(node);
}

static void on_set_back(void *ctx, uint32_t by)
{
	standing_set_back(ctx, by);
}

static void on_publish(void *ctx, const struct id128 *pool, unsigned chunk, const void *val, size_t len)
{
	struct node *node = ctx;
	struct effect *e = effect_new(node, val, val ? len : 0);

	e->what = EFFECT_PUBLISH;
	e->pool = *pool;
	e->chunk = chunk;
	e->withdraw = !val;
	outbox_call(node->outbox, perform, e);
}

static void on_send(void *ctx, uint32_t to, const void *msg, size_t len)
{
	struct node *node = ctx;
	struct effect *e = effect_new(node, msg, len);

	e->what = EFFECT_SEND;
	e->to = to;
	outbox_call(node->outbox, perform, e);
}

static void on_complete(void *ctx, uint64_t ticket, const struct ipam_result *result)
{
	struct node *node = ctx;
	struct effect *e = effect_new(node, NULL, 0);

	e->what = EFFECT_COMPLETE;
	e->ticket = ticket;
	e->result = *result;
	outbox_call(node->outbox, perform, e);
}

static void on_decree(void *ctx, const struct ipam_decree *decree)
{
	struct node *node = ctx;
	uint8_t bytes[IPAM_DECREE_MAX];
	struct effect *e = effect_new(node, bytes, ipam_decree_encode(decree, bytes));

	e->what = EFFECT_DECREE;
	outbox_call(node->outbox, perform, e);
}

static void on_pool_asked(void *ctx, const struct id128 *pool)
{
	if (!((struct node *)ctx)->freeze.on)
		pool_asked(ctx, pool);
}

static const struct ipam_ops ipam_ops = {
	.save = on_save,
	.publish = on_publish,
	.send = on_send,
	.complete = on_complete,
	.random = random_bytes,
	.decree = on_decree,
	.set_back = on_set_back,
	.pool_asked = on_pool_asked,
};

static int restore(void *ctx, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct node *node = ctx;
	return ipam_restore(node->ipam, key, key_len, val, len, err);
}

int custody_start(struct node *node, struct err *err)
{
	struct ipam_config config = {.hostno = node->cluster.hostno, .host_id = node->identity.id};

	node->ipam = ipam_new(&config, &ipam_ops, node);
	if (!node->ipam)
		return err_set(err, ERR_INTERNAL, "out of memory");
	if (node->cluster.known)
		ipam_be_known(node->ipam, clock_boot_ms());
	if (store_each(node->store, STORE_STATE, STORE_IPAM, restore, node, err) < 0)
		return err_prefix(err, "custody of addresses");
	if (store_each(node->store, STORE_BOOT, STORE_LEASE, restore, node, err) < 0)
		return err_prefix(err, "leases");
	return 0;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct node *node = arg;
	uint64_t now = clock_boot_ms(), next;
	struct timeval tv;

	(void)fd, (void)what;
	next = ipam_tick(node->ipam, now);
	next = next > now ? next - now : 1;
	if (next >= 1000) /* the housekeeping pokes */
		return;
	tv = (struct timeval){.tv_sec = (time_t)(next / 1000), .tv_usec = (suseconds_t)(next % 1000) * 1000};
	event_add(node->ipam_timer, &tv);
}

void custody_begin(struct node *node)
{
	if (!node->ipam_timer)
		node->ipam_timer = alloc_made(evtimer_new(node->base, on_timer, node), "timer");
	ipam_start(node->ipam, clock_boot_ms());
	custody_poke(node);
}

/* Not at once: the caller may be within one of the core's callbacks. */
void custody_poke(struct node *node)
{
	if (node->ipam && node->ipam_timer)
		event_active(node->ipam_timer, EV_TIMEOUT, 0);
}

/* Whoever waits for an address is answered: the pool is about to be gone. */
void custody_drain(struct node *node)
{
	const struct ipam_result gone = {.code = IPAM_UNKNOWN_POOL};
	struct ticket *t, *next;

	HASH_ITER(hh, node->tickets, t, next)
	{
		void (*fn)(void *, const struct ipam_result *) = t->fn;
		void *arg = t->arg;
		HASH_DEL(node->tickets, t);
		free(t);
		if (fn)
			fn(arg, &gone);
	}
}

void custody_stop(struct node *node)
{
	struct ticket *t, *next;

	ipam_free(node->ipam);
	node->ipam = NULL;
	if (node->ipam_timer)
		event_free(node->ipam_timer);
	node->ipam_timer = NULL;
	HASH_ITER(hh, node->tickets, t, next)
	{
		HASH_DEL(node->tickets, t);
		free(t);
	}
}

uint64_t custody_ask(
	struct node *node, const struct ipam_want *want, void (*fn)(void *arg, const struct ipam_result *result), void *arg)
{
	struct ticket *t = alloc_new(struct ticket);
	uint64_t number = ++node->next_ticket;

	t->number = number;
	t->pool = want->pool;
	t->fn = fn;
	t->arg = arg;
	HASH_ADD(hh, node->tickets, number, sizeof(t->number), t);
	ipam_request(node->ipam, want, number, clock_boot_ms());
	custody_poke(node);
	return number;
}

void custody_record(struct node *node, uint32_t origin, const void *key, size_t key_len, const void *val, size_t len)
{
	const uint8_t *k = key;
	struct id128 pool;

	if (key_len != CUSTODY_KEY_SIZE || k[CUSTODY_KEY_SIZE - 1] >= IPAM_CHUNKS_MAX || !node->ipam)
		return;
	memcpy(&pool, k + 1, sizeof(pool));
	ipam_peer_chunk(node->ipam, origin, &pool, k[CUSTODY_KEY_SIZE - 1], val, len, clock_boot_ms());
}

struct feed {
	struct node *node;
	struct id128 pool;
};

static void feed_one(void *ctx, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t len)
{
	struct feed *f = ctx;
	const uint8_t *k = key;

	(void)topic;
	if (origin == f->node->cluster.hostno || key_len != CUSTODY_KEY_SIZE || k[0] != RECORD_CUSTODY ||
		memcmp(k + 1, &f->pool, sizeof(f->pool)) != 0)
		return;
	custody_record(f->node, origin, key, key_len, val, len);
}

void custody_feed_pool(struct node *node, const struct id128 *pool)
{
	struct feed f = {.node = node, .pool = *pool};

	if (node->gossip)
		gossip_each_record(node->gossip, feed_one, &f);
}

/* We came in while many hosts were away (docs/ipam.md): the one that we asked is there and willing, and must not. */
static void explain_not_yet(struct node *node, const char *address, const char *pool, const char *holder, struct err *err)
{
	unsigned dead = gossip_member_count(node->gossip, GOSSIP_DEAD),
		 here = gossip_member_count(node->gossip, GOSSIP_ALIVE) + gossip_member_count(node->gossip, GOSSIP_SUSPECT);

	err_set(err, ERR_UNREACHABLE,
		"%s of pool %s: host %s may not give addresses to this host before more than half of the cluster know that it "
		"has come in, and %u of %u hosts are dead. Bring them back, or say `trestle forget HOST --fenced` for each that "
		"is gone for good",
		address, pool, holder, dead, dead + here);
}

void custody_explain(
	struct node *node, const struct ipam_result *result, const struct ip *asked, const struct prefix *pool, struct err *err)
{
	char name[GOSSIP_NAME_MAX + 1], pool_text[PREFIX_TEXT_SIZE], ip_text[IP_TEXT_SIZE] = "an address", why[600];

	prefix_format(pool, pool_text);
	if (asked && ip_is_set(asked))
		ip_format(asked, ip_text);
	host_label(node, result->holder_hostno ? result->holder_hostno : node->cluster.hostno, name, sizeof(name));
	switch (result->code) {
	case IPAM_IN_USE:
		err_set(err, ERR_EXISTS,
			"address %s of pool %s is in use%s%s, leased by host %s; ask for another, or `trestle endpoint inspect "
			"%s`",
			ip_text, pool_text, result->owner[0] ? " by " : "", result->owner, name, ip_text);
		break;
	case IPAM_EXHAUSTED:
		err_set(err, ERR_EXHAUSTED,
			"pool %s has no free address left on any host that answers; `trestle ipam show` tells who holds what",
			pool_text);
		break;
	case IPAM_UNREACHABLE:
		if (result->not_yet) {
			explain_not_yet(node, ip_text, pool_text, name, err);
			break;
		}
		if (!result->holder_hostno) {
			err_set(err, ERR_UNREACHABLE,
				"no host that answers says that it has %s of pool %s; `trestle ipam show` tells who holds what, "
				"`trestle members` who is silent",
				ip_text, pool_text);
			break;
		}
		err_set(err, ERR_UNREACHABLE,
			"%s of pool %s can only be given by host %s, which does not answer; `trestle members` tells its state",
			ip_text, pool_text, name);
		break;
	case IPAM_OUTSIDE:
		err_set(err, ERR_INVALID,
			"%s is not an address that pool %s can give (outside, or the network or broadcast address)", ip_text,
			pool_text);
		break;
	case IPAM_UNKNOWN_POOL:
		err_set(err, ERR_NOT_FOUND, "pool %s is not known here; `trestle ipam show` lists the known ones", pool_text);
		break;
	case IPAM_HELD:
		if (freeze_refuses(node, err))
			break;
		err_set(err, ERR_UNREACHABLE, "an address of pool %s: %s", pool_text,
			standing_sentence(node, why, sizeof(why)) ? why
								  : "this host has not heard from another since it started");
		break;
	case IPAM_GRANTED:
		break;
	}
}

/* Becoming somebody else: a member of another cluster, or again the first of one's own.
 *
 * Joining is possible while this host is alone and uses no network: what it had is dropped, its key pair stays. Leaving hands the
 * addresses over, says goodbye, and begins anew with a new identity, since the old one is not waited for any more. Both end in
 * one change of the state file, on the worker, behind what the outbox still had of the old cluster; then everything is started
 * over. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/node_internal.h"
#include "base/alloc.h"
#include "gossip/joiner.h"
#include "gossip/token.h"

#define JOIN_TIMEOUT_MS 10000
#define LEAVE_MS 5000 /* for handing addresses over */

struct join {
	struct joiner *joiner;
	struct event *timer;
	void (*fn)(void *arg, const struct err *err);
	void *arg;
	bool ended;
	struct joiner_result result;
	struct err err;
	struct node *node;
};

bool cluster_alone(const struct node *node)
{
	return HASH_COUNT(node->hosts) == 0;
}

struct seed_list {
	struct token *token;
};

static void add_seed(void *ctx, const struct gossip_member *m)
{
	struct token *token = ((struct seed_list *)ctx)->token;

	if (m->state == GOSSIP_ALIVE && !m->self && token->seed_count < TOKEN_SEEDS_MAX)
		token->seeds[token->seed_count++] = m->addr;
}

int cluster_token(struct node *node, int64_t ttl_s, char ret_text[512], int64_t *ret_expires_s, struct err *err)
{
	struct token token = {
		.cluster_id = node->cluster.cluster_id, .token_id = random_id(), .expires_s = clock_wall_s() + ttl_s};
	struct seed_list list = {&token};
	char text[TOKEN_TEXT_MAX];
	uint8_t key[CLUSTER_KEY_SIZE];

	token.seeds[token.seed_count++] = node->options.listen;
	gossip_each_member(node->gossip, add_seed, &list);
	gossip_active_key(node->gossip, key);
	token_secret(key, &token.token_id, token.expires_s, token.secret);
	sodium_memzero(key, sizeof(key));
	if (token_encode(&token, text, err) < 0)
		return -1;
	snprintf(ret_text, 512, "%s", text);
	*ret_expires_s = token.expires_s;
	return 0;
}

bool join_packet(struct node *node, const struct gossip_addr *from, const void *packet, size_t len, uint64_t now)
{
	struct join *j = node->join;

	if (!j || j->ended)
		return false;
	joiner_packet(j->joiner, from, packet, len, now);
	event_active(j->timer, EV_TIMEOUT, 0); /* what it heard may let it ask again sooner */
	return true;
}

void join_stop(struct node *node)
{
	struct join *j = node->join;

	if (!j)
		return;
	node->join = NULL;
	joiner_free(j->joiner);
	event_free(j->timer);
	sodium_memzero(j, sizeof(*j));
	free(j);
}

static void end_join(struct node *node, const struct err *err)
{
	struct join *j = node->join;

	node->join = NULL;
	j->fn(j->arg, err);
	joiner_free(j->joiner);
	event_free(j->timer);
	sodium_memzero(j, sizeof(*j));
	free(j);
}

/* ---- becoming somebody else: a member of another cluster, or again the first of one's own ---- */

struct change {
	struct node *node;
	struct worker_job job;
	struct store_change *saves;
	struct joiner_result result; /* saved pairs for the new core */
	uint8_t seed[IDENTITY_SEED_SIZE];
	bool new_identity;
	void (*fn)(void *arg, const struct err *err);
	void *arg;
	int failed;
	struct err err;
};

/* On the worker: what this host was before goes, what it is now is written. */
static void change_run(void *arg)
{
	struct change *c = arg;

	c->failed = cluster_replace_state(c->node, c->saves, &c->err);
}

static void add_save(struct change *c, enum store_kind kind, const void *key, size_t key_len, const void *val, size_t len)
{
	struct store_change *s =
		alloc_made(store_change_new(STORE_STATE, kind, key, key_len, val, len, true), "change of the store");

	s->next = c->saves;
	c->saves = s;
}

static void list_saves(struct change *c)
{
	uint8_t buf[RECORD_MAX];

	for (unsigned i = 0; i < c->result.saved_count; i++)
		add_save(c, STORE_GOSSIP, c->result.saved[i].key, c->result.saved[i].key_len, c->result.saved[i].val,
			c->result.saved[i].val_len);
	if (c->new_identity)
		add_save(c, STORE_IDENTITY, "", 0, c->seed, sizeof(c->seed));
	add_save(c, STORE_CLUSTER, "", 0, buf, cluster_state_encode(&c->node->cluster, buf, sizeof(buf)));
	sodium_memzero(buf, sizeof(buf));
}

static void change_free(struct change *c)
{
	while (c->saves) {
		struct store_change *next = c->saves->next;
		sodium_memzero(c->saves->bytes, c->saves->key_len + c->saves->len);
		free(c->saves);
		c->saves = next;
	}
	sodium_memzero(c, sizeof(*c));
	free(c);
}

static void change_done(void *arg)
{
	struct change *c = arg;
	struct node *node = c->node;

	if (!c->failed && store_wipe(node->store, STORE_BOOT, STORE_LEASE, &c->err) == 0 && custody_start(node, &c->err) == 0 &&
		cluster_run_gossip(node, &c->err) == 0) {
		custody_begin(node);
		datapath_start_over(node);
		cluster_tell_members(node);
		c->fn(c->arg, NULL);
	} else { /* what is on disk is whole, before or after; what is in memory is not */
		log_error("cluster", "changing the cluster failed: %s; ending, start the daemon again", c->err.text);
		node->failed = true;
		c->fn(c->arg, &c->err);
		event_base_loopexit(node->base, NULL);
	}
	change_free(c);
}

/* Behind what the outbox still had of the old cluster. */
static void submit_change(void *arg)
{
	struct change *c = arg;

	list_saves(c);
	c->job = (struct worker_job){.run = change_run, .done = change_done, .arg = c};
	if (worker_submit(c->node->worker, &c->job, &c->err) < 0) {
		c->failed = -1;
		change_done(c);
	}
}

/* Takes c. node->cluster is set already. */
static void change_cluster(struct change *c)
{
	struct node *node = c->node;

	claims_drain(node);
	custody_drain(node);
	custody_stop(node);
	cluster_drop_core(node);
	segments_free(node);
	networks_stop(node);
	pools_stop(node);
	if (c->new_identity) {
		identity_from_seed(&node->identity, c->seed);
		standing_new_identity(node);
	}
	outbox_call(node->outbox, submit_change, c);
}

static void now_member(void *arg, const struct err *err)
{
	struct node *node = arg;

	if (!err)
		log_info("cluster", "joined: this host has number %u", node->cluster.hostno);
	end_join(node, err);
}

static void become_member(struct node *node)
{
	struct change *c = alloc_new(struct change);

	c->node = node;
	c->result = node->join->result;
	if (c->result.saved_count && c->result.saved[0].key_len == 1 + sizeof(node->sponsor)) /* 'm' and the sponsor's host id */
		memcpy(&node->sponsor, c->result.saved[0].key + 1, sizeof(node->sponsor));
	node->welcome.boot = c->result.boot;
	node->welcome.source_boot = c->result.source_boot;
	c->fn = now_member;
	c->arg = node;
	node->cluster.cluster_id = c->result.cluster_id;
	memcpy(node->cluster.key, c->result.cluster_key, sizeof(node->cluster.key));
	node->cluster.hostno = c->result.hostno;
	node->cluster.epoch = FIRST_EPOCH;
	node->cluster.known = false;
	memset(&node->cluster.hostno_pool, 0, sizeof(node->cluster.hostno_pool));
	change_cluster(c);
}

static int owns_nothing(const struct node *node, struct err *err)
{
	if (!node->docker_networks && !node->endpoints && !node->networks && !node->pools)
		return 0;
	return err_set(err, ERR_CONFLICT,
		"this host has %u networks, %u pools and %u endpoints of its own, which would be lost; remove them first "
		"(`docker network rm`, `trestle network rm`)",
		HASH_COUNT(node->networks), HASH_COUNT(node->pools), HASH_COUNT(node->endpoints));
}

static void on_join_timer(evutil_socket_t fd, short what, void *arg)
{
	struct node *node = arg;
	struct join *j = node->join;
	uint64_t now = clock_boot_ms(), next;
	struct timeval tv;

	(void)fd, (void)what;
	if (j->ended) { /* out of the joiner's callback */
		if (!j->err.code)
			owns_nothing(node, &j->err); /* made while the sponsor was asked: it would be lost */
		if (j->err.code)
			end_join(node, &j->err);
		else
			become_member(node);
		return;
	}
	next = joiner_tick(j->joiner, now);
	if (j->ended)
		return;
	next = next > now ? next - now : 1;
	tv = (struct timeval){.tv_sec = (time_t)(next / 1000), .tv_usec = (suseconds_t)(next % 1000) * 1000};
	event_add(j->timer, &tv);
}

static void on_joined(void *ctx, const struct joiner_result *result, const struct err *err)
{
	struct node *node = ctx;
	struct join *j = node->join;
	struct timeval at_once = {0};

	j->ended = true;
	if (result)
		j->result = *result;
	else
		j->err = *err;
	event_add(j->timer, &at_once);
}

static int may_join(struct node *node, const struct token *token, struct err *err)
{
	if (node->join || node->leaving || !node->gossip)
		return err_set(err, ERR_CONFLICT, "this host is joining or leaving already; wait for the answer");
	if (id_equal(&token->cluster_id, &node->cluster.cluster_id))
		return err_set(err, ERR_EXISTS, "this host is a member of that cluster already");
	if (!cluster_alone(node))
		return err_set(err, ERR_CONFLICT, "this host is in another cluster with %u other hosts; `trestle leave` first",
			HASH_COUNT(node->hosts));
	return owns_nothing(node, err);
}

/* Else its members could be asked, but never answer. */
static int check_seeds(const struct node *node, const struct token *token, struct err *err)
{
	const struct ip *own = &node->options.listen.ip;
	char ours[IP_TEXT_SIZE], theirs[IP_TEXT_SIZE];

	for (unsigned i = 0; i < token->seed_count; i++)
		if (token->seeds[i].ip.family == own->family)
			return 0;
	if (!token->seed_count)
		return 0;
	return err_set(err, ERR_DENIED,
		"join: the hosts of that cluster have IPv%u addresses (%s), this one listens on %s; start trestled here with "
		"--listen and an IPv%u address",
		token->seeds[0].ip.family, ip_format(&token->seeds[0].ip, theirs), ip_format(own, ours),
		token->seeds[0].ip.family);
}

int cluster_join(
	struct node *node, const char *token_text, void (*fn)(void *arg, const struct err *err), void *arg, struct err *err)
{
	static const struct joiner_ops ops = {
		.send = cluster_send, .stream = cluster_send_stream, .random = random_bytes, .done = on_joined};
	struct timeval at_once = {0};
	struct token token;
	struct join *j;

	if (token_decode(token_text, &token, err) < 0 || may_join(node, &token, err) < 0 || check_seeds(node, &token, err) < 0)
		return -1;
	j = alloc_new(struct join);
	j->node = node;
	j->fn = fn;
	j->arg = arg;
	j->timer = alloc_made(evtimer_new(node->base, on_join_timer, node), "timer");
	node->join = j;
	j->joiner = joiner_new(&token, &node->identity, node->options.name, &node->options.listen, &node->options.vtep,
		JOIN_TIMEOUT_MS, &ops, node, clock_boot_ms());
	event_add(j->timer, &at_once);
	return 0;
}

struct leave {
	struct node *node;
	struct event *timer;
	uint64_t deadline_ms;
	void (*fn)(void *arg, const struct err *err);
	void *arg;
};

static void left(void *arg, const struct err *err)
{
	struct leave *l = arg;

	l->node->leaving = false;
	l->node->left = false;
	l->fn(l->arg, err);
	event_free(l->timer);
	free(l);
}

/* That it does so is on disk: whoever hears this counts on it. */
static void say_goodbye(void *arg)
{
	struct leave *l = arg;

	gossip_leave(l->node->gossip, clock_boot_ms());
	l->node->left = true;
	cluster_start_over(l->node, left, l);
}

/* Hosts that came in a moment ago take part in the pool of host numbers only when joining has gone quiet: until then nobody takes
 * these numbers, and without them nobody could join any more. */
static bool numbers_wait_for_others(struct node *node)
{
	struct host *host, *next;

	if (!hostnos_spare(node))
		return false;
	HASH_ITER(hh, node->hosts, host, next)
	if (host->state == GOSSIP_ALIVE)
		return true;
	return false;
}

/* What this host held has been handed over, or nobody takes it in time: goodbye. */
static void on_leave_timer(evutil_socket_t fd, short what, void *arg)
{
	struct leave *l = arg;
	struct node *node = l->node;
	struct timeval soon = {.tv_usec = 50000};
	bool keeps = !cluster_alone(node) && (!ipam_has_retired(node->ipam) || numbers_wait_for_others(node));

	(void)fd, (void)what;
	if (keeps && clock_boot_ms() < l->deadline_ms) {
		event_add(l->timer, &soon);
		return;
	}
	if (keeps)
		log_warn("cluster", "leaving with addresses in custody that no other host took: they are lost to the cluster "
				    "until it forgets this host");
	outbox_save(node->outbox, store_change_new(STORE_STATE, STORE_LEAVING, "", 0, "1", 1, true));
	outbox_call(node->outbox, say_goodbye, l);
}

void cluster_start_over(struct node *node, void (*fn)(void *arg, const struct err *err), void *arg)
{
	struct change *c = alloc_new(struct change);

	c->node = node;
	c->new_identity = true;
	randombytes_buf(c->seed, sizeof(c->seed));
	c->fn = fn;
	c->arg = arg;
	cluster_make(&node->cluster);
	node->cluster.epoch = FIRST_EPOCH;
	memset(&node->sponsor, 0, sizeof(node->sponsor));
	change_cluster(c);
}

int cluster_leave(struct node *node, void (*fn)(void *arg, const struct err *err), void *arg, struct err *err)
{
	struct timeval at_once = {0};
	struct leave *l;

	if (node->leaving || node->join)
		return err_set(err, ERR_CONFLICT, "this host is joining or leaving already; wait for the answer");
	l = alloc_new(struct leave);
	*l = (struct leave){.node = node, .fn = fn, .arg = arg, .deadline_ms = clock_boot_ms() + LEAVE_MS};
	l->timer = alloc_made(evtimer_new(node->base, on_leave_timer, l), "timer");
	node->leaving = true;
	node->options.join[0] = 0; /* who leaves does not want to be brought back */
	ipam_retire(node->ipam, clock_boot_ms());
	custody_poke(node);
	event_add(l->timer, &at_once);
	return 0;
}

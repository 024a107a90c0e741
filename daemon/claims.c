/* Before something with a cluster-wide name is made, the name's *home* is asked: the alive host with the highest rendezvous hash.
 * The home knows what exists, and remembers who asked first for what does not yet, so two hosts that create the same name at once
 * get one answer: the first definition. What a host asks for again under another definition replaces what it asked before: that
 * one is gone by then. A home that does not answer within CLAIM_MS does not stop anybody: the asker creates alone, and if two did
 * so on the two sides of a cut, both objects exist and are shown as a conflict.
 *
 * Who has just started or joined knows of nothing that exists, takes itself for the home of everything, or both: it makes nothing
 * before it has been compared with one other host (`claims_when_met`). One that hears nobody takes the others for dead in the
 * end, and goes on alone.
 *
 * A claim is not yet the thing: its maker may fail, or die before it has published. Of a network that does no harm, its
 * definition is all of it. A pool that nobody made has no address in anybody's custody, so an asker that would join one waits
 * until it is published (`patient`). A maker that fails tells the home; the claim of one that died, or has started anew since, is
 * void.
 *
 * A frozen host (freeze.c) is home as any other. It answers from what is its own and what it was asked since: what it knows of
 * others may be gone.
 *
 *   CLAIM         xid u32, key text, definition
 *   CLAIM_ANSWER  xid u32, settled u8 (0: another's, which nobody has published), definition that counts
 *   CLAIM_DROP    key text: nothing came of it
 */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/bytes.h"
#include "base/alloc.h"
#include "daemon/node_internal.h"

#define CLAIM_MS 200
#define CLAIM_RESEND_MS 50
#define CLAIM_PATIENCE_MS 2000
#define CLAIM_MEET_MS 5000  /* who has not met anybody by then is told so: an engine asks again */
#define CLAIM_KEEP_MS 30000 /* by then the record has spread */
#define CLAIM_KEY_MAX 128
#define CLAIMS_MAX 4096
#define CLAIM_VALUE_MAX (GOSSIP_TELL_MAX - CLAIM_KEY_MAX - 16)

struct claim {
	char key[CLAIM_KEY_MAX + 1];
	uint32_t from, epoch; /* of the maker */
	uint64_t until_ms;
	size_t len;
	UT_hash_handle hh;
	uint8_t value[];
};

struct asker {
	void (*fn)(void *arg, const void *winner, size_t len);
	void *arg;
	struct asker *next;
};

struct pending_claim {
	uint32_t xid;
	uint32_t home;
	uint64_t deadline_ms, resend_ms;
	bool patient;
	uint64_t patience_ms; /* until when, once the home has told of a maker; 0: it has not */
	char key[CLAIM_KEY_MAX + 1];
	struct asker *askers; /* all of this host that want the name meanwhile: one answer for them */
	size_t len;
	UT_hash_handle hh;
	uint8_t value[];
};

struct met_waiter {
	void (*fn)(void *arg, const struct err *err);
	void *arg;
	uint64_t until_ms;
	struct met_waiter *prev, *next;
};

/* ---- meeting the cluster ---- */

static void end_waiter(struct node *node, struct met_waiter *w, const struct err *err)
{
	DL_DELETE(node->met_waiters, w);
	w->fn(w->arg, err);
	free(w);
}

void claims_when_met(struct node *node, void (*fn)(void *arg, const struct err *err), void *arg)
{
	struct met_waiter *w;

	if (!node->gossip || gossip_has_met(node->gossip)) {
		fn(arg, NULL);
		return;
	}
	w = alloc_new(struct met_waiter);
	*w = (struct met_waiter){.fn = fn, .arg = arg, .until_ms = clock_boot_ms() + CLAIM_MEET_MS};
	DL_APPEND(node->met_waiters, w);
	housekeeping_soon(node);
}

static void end_waiters(struct node *node, uint64_t now, bool drain)
{
	struct met_waiter *w, *next;
	struct err err = {0};
	bool met;

	if (!node->met_waiters)
		return;
	met = node->gossip && gossip_has_met(node->gossip);
	err_set(&err, ERR_UNREACHABLE,
		"this host does not know yet what exists in its cluster: no other host has answered it since it started; "
		"`trestle members` shows whom it hears; try again in a few seconds");
	DL_FOREACH_SAFE(node->met_waiters, w, next)
	if (met || drain || now >= w->until_ms)
		end_waiter(node, w, met && !drain ? NULL : &err);
}

/* ---- home ---- */

/* What exists already under the key: "n:NAME" or "p:...". */
static const void *existing(struct node *node, const char *key, void *buf, size_t size, size_t *ret_len)
{
	if (!key[0] || key[1] != ':')
		return NULL;
	return key[0] == 'n' ? network_claimed(node, key + 2, buf, size, ret_len) : pool_claimed(node, key, buf, size, ret_len);
}

static void forget_old(struct node *node, uint64_t now)
{
	struct claim *c, *next;

	HASH_ITER(hh, node->claims, c, next)
	{
		if (c->until_ms > now)
			continue;
		HASH_DEL(node->claims, c);
		free(c);
	}
}

static void forget(struct node *node, struct claim *c)
{
	HASH_DEL(node->claims, c);
	free(c);
}

static uint32_t home_of(struct node *node, const char *key);

void claims_forget(struct node *node, const char *key, bool mine)
{
	uint32_t home = mine && node->gossip ? home_of(node, key) : node->cluster.hostno;
	uint8_t body[CLAIM_KEY_MAX + 8];
	struct bytes_writer w;
	struct claim *c;

	HASH_FIND_STR(node->claims, key, c);
	if (c)
		forget(node, c);
	bw_init(&w, body, sizeof(body));
	bw_text(&w, key);
	if (home != node->cluster.hostno && !w.overflow)
		gossip_tell(node->gossip, home, TELL_CLAIM_DROP, body, w.len, clock_boot_ms(), NULL);
}

/* Lost, doubled and late ones: the maker's own next claim replaces this one, and a thing that is published outlives its claim. */
static void on_drop(struct node *node, uint32_t from, struct bytes_reader *r)
{
	char key[CLAIM_KEY_MAX + 1];
	struct claim *c;

	br_text(r, key, sizeof(key));
	if (r->bad)
		return;
	HASH_FIND_STR(node->claims, key, c);
	if (c && c->from == from)
		forget(node, c);
}

static uint32_t epoch_of(struct node *node, uint32_t hostno)
{
	struct gossip_member m;

	if (hostno == node->cluster.hostno)
		return node->cluster.epoch;
	return gossip_member_get(node->gossip, hostno, &m) && m.state <= GOSSIP_SUSPECT ? m.epoch : 0;
}

static struct claim *remember(struct node *node, uint32_t from, const char *key, const void *value, size_t len)
{
	struct claim *c = alloc_zeroed(1, sizeof(*c) + len, "struct claim");

	snprintf(c->key, sizeof(c->key), "%s", key);
	memcpy(c->value, value, len);
	c->len = len;
	c->from = from;
	c->epoch = epoch_of(node, from);
	c->until_ms = clock_boot_ms() + CLAIM_KEEP_MS;
	HASH_ADD_STR(node->claims, key, c);
	return c;
}

/* Borrowed until the next call. */
static const void *decide(
	struct node *node, uint32_t from, const char *key, const void *value, size_t len, size_t *ret_len, bool *ret_settled)
{
	static uint8_t buf[GOSSIP_VALUE_MAX];
	const void *known = existing(node, key, buf, sizeof(buf), ret_len);
	struct claim *c;

	HASH_FIND_STR(node->claims, key, c);
	if (c && (known || c->from == from || c->epoch != epoch_of(node, c->from))) {
		forget(node, c);
		c = NULL;
	}
	*ret_settled = known || !c;
	if (known)
		return known;
	if (!c && HASH_COUNT(node->claims) < CLAIMS_MAX)
		c = remember(node, from, key, value, len);
	*ret_len = c ? c->len : len;
	return c ? c->value : value;
}

static void on_claim(struct node *node, uint32_t from, struct bytes_reader *r)
{
	char key[CLAIM_KEY_MAX + 1];
	uint8_t body[GOSSIP_TELL_MAX];
	struct bytes_writer w;
	uint32_t xid = br_u32(r);
	const void *winner;
	bool settled;
	size_t len;

	br_text(r, key, sizeof(key));
	if (r->bad || br_left(r) > CLAIM_VALUE_MAX)
		return;
	winner = decide(node, from, key, r->at, br_left(r), &len, &settled);
	bw_init(&w, body, sizeof(body));
	bw_u32(&w, xid);
	bw_u8(&w, settled);
	bw_bytes(&w, winner, len);
	if (!w.overflow)
		gossip_tell(node->gossip, from, TELL_CLAIM_ANSWER, body, w.len, clock_boot_ms(), NULL);
}

/* ---- asker ---- */

struct rendezvous {
	const char *key;
	uint32_t home;
	uint64_t best;
};

static void weigh(void *ctx, const struct gossip_member *m)
{
	struct rendezvous *r = ctx;
	uint8_t hash[crypto_generichash_BYTES_MIN];
	uint64_t weight = 0;

	if (m->state != GOSSIP_ALIVE)
		return;
	crypto_generichash(
		hash, sizeof(hash), (const uint8_t *)r->key, strlen(r->key), m->host_id.bytes, sizeof(m->host_id.bytes));
	for (size_t i = 0; i < 8; i++)
		weight = weight << 8 | hash[i];
	if (weight >= r->best) {
		r->best = weight;
		r->home = m->hostno;
	}
}

static uint32_t home_of(struct node *node, const char *key)
{
	struct rendezvous r = {.key = key, .home = node->cluster.hostno};

	gossip_each_member(node->gossip, weigh, &r);
	return r.home;
}

static void finish(struct node *node, struct pending_claim *p, const void *winner, size_t len)
{
	struct asker *a = p->askers, *next;

	HASH_DEL(node->pending_claims, p);
	for (; a; a = next) {
		next = a->next;
		a->fn(a->arg, winner, len);
		free(a);
	}
	free(p);
}

/* In the order of asking: the first one's definition was sent. */
static void add_asker(struct pending_claim *p, void (*fn)(void *arg, const void *winner, size_t len), void *arg)
{
	struct asker *a = alloc_new(struct asker), **at = &p->askers;

	a->fn = fn;
	a->arg = arg;
	while (*at)
		at = &(*at)->next;
	*at = a;
}

static void send_claim(struct node *node, struct pending_claim *p, uint64_t now)
{
	uint8_t body[GOSSIP_TELL_MAX];
	struct bytes_writer w;

	bw_init(&w, body, sizeof(body));
	bw_u32(&w, p->xid);
	bw_text(&w, p->key);
	bw_bytes(&w, p->value, p->len);
	p->resend_ms = now + CLAIM_RESEND_MS;
	if (!w.overflow)
		gossip_tell(node->gossip, p->home, TELL_CLAIM, body, w.len, now, NULL);
	cluster_poke(node);
}

static void heard(struct node *node, struct pending_claim *p, bool settled, const void *winner, size_t len, uint64_t now)
{
	if (settled || !p->patient) {
		finish(node, p, winner, len);
		return;
	}
	p->deadline_ms = now + CLAIM_MS;
	p->resend_ms = now + CLAIM_RESEND_MS;
	if (!p->patience_ms)
		p->patience_ms = now + CLAIM_PATIENCE_MS;
}

static void ask(struct node *node, struct pending_claim *p, uint64_t now)
{
	const void *winner;
	bool settled;
	size_t len;

	if (p->home != node->cluster.hostno) {
		send_claim(node, p, now);
		return;
	}
	winner = decide(node, p->home, p->key, p->value, p->len, &len, &settled);
	heard(node, p, settled, winner, len, now);
}

void claim_name(struct node *node, const char *key, bool patient, const void *mine, size_t len,
	void (*fn)(void *arg, const void *winner, size_t len), void *arg)
{
	uint64_t now = clock_boot_ms();
	struct pending_claim *p, *next;

	HASH_ITER(hh, node->pending_claims, p, next)
	if (strcmp(p->key, key) == 0) {
		p->patient |= patient;
		add_asker(p, fn, arg);
		return;
	}
	p = alloc_zeroed(1, sizeof(*p) + len, "struct pending_claim");
	p->xid = ++node->next_claim;
	p->home = home_of(node, key);
	p->deadline_ms = now + CLAIM_MS;
	p->patient = patient;
	snprintf(p->key, sizeof(p->key), "%s", key);
	add_asker(p, fn, arg);
	p->len = len;
	memcpy(p->value, mine, len);
	HASH_ADD(hh, node->pending_claims, xid, sizeof(p->xid), p);
	if (HASH_COUNT(node->pending_claims) == 1) /* else it is on its way: claims in a row must not put it off */
		housekeeping_soon(node);
	ask(node, p, now);
}

static void on_answer(struct node *node, uint32_t from, struct bytes_reader *r)
{
	uint32_t xid = br_u32(r);
	bool settled = br_u8(r);
	struct pending_claim *p;

	HASH_FIND(hh, node->pending_claims, &xid, sizeof(xid), p);
	if (p && !r->bad && p->home == from)
		heard(node, p, settled, r->at, br_left(r), clock_boot_ms());
}

void claims_told(struct node *node, uint32_t from, uint8_t kind, const void *body, size_t len)
{
	struct bytes_reader r;

	br_init(&r, body, len);
	if (kind == TELL_CLAIM)
		on_claim(node, from, &r);
	else if (kind == TELL_CLAIM_ANSWER)
		on_answer(node, from, &r);
	else if (kind == TELL_CLAIM_DROP)
		on_drop(node, from, &r);
}

/* Who waits for another's to be published may hear of it before the home does; a frozen home hears nothing. */
static bool has_come(struct node *node, struct pending_claim *p)
{
	uint8_t buf[GOSSIP_VALUE_MAX];
	size_t len;
	const void *known = p->patience_ms ? existing(node, p->key, buf, sizeof(buf), &len) : NULL;

	if (known)
		finish(node, p, known, len);
	return known;
}

static void tick_one(struct node *node, struct pending_claim *p, uint64_t now)
{
	char name[GOSSIP_NAME_MAX + 1];

	if (p->patience_ms && now >= p->patience_ms) {
		finish(node, p, NULL, 0);
	} else if (now >= p->deadline_ms && !p->patience_ms) { /* else its maker is known: asked until patience ends */
		log_warn("claims", "host %s did not answer about \"%s\" within %d ms, creating it alone",
			host_label(node, p->home, name, sizeof(name)), p->key, CLAIM_MS);
		finish(node, p, p->value, p->len);
	} else if (now >= p->resend_ms && !has_come(node, p)) {
		ask(node, p, now);
	}
}

void claims_tick(struct node *node, uint64_t now)
{
	struct pending_claim *p, *next;

	end_waiters(node, now, false);
	HASH_ITER(hh, node->pending_claims, p, next)
	tick_one(node, p, now);
	forget_old(node, now);
}

/* Whoever waits is told that there is no answer (winner NULL), as when patience ends. */
void claims_drain(struct node *node)
{
	struct pending_claim *p, *next;

	end_waiters(node, clock_boot_ms(), true);
	HASH_ITER(hh, node->pending_claims, p, next)
	finish(node, p, NULL, 0);
}

void claims_free(struct node *node)
{
	struct pending_claim *p, *next_pending;
	struct claim *c, *next;

	struct met_waiter *w, *next_waiter;

	DL_FOREACH_SAFE(node->met_waiters, w, next_waiter)
	{
		DL_DELETE(node->met_waiters, w);
		free(w);
	}
	HASH_ITER(hh, node->pending_claims, p, next_pending)
	{
		struct asker *a = p->askers, *next_asker;
		HASH_DEL(node->pending_claims, p);
		for (; a; a = next_asker) {
			next_asker = a->next;
			free(a);
		}
		free(p);
	}
	HASH_ITER(hh, node->claims, c, next)
	forget(node, c);
}

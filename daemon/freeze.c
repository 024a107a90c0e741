/* The switch for the night: `trestle freeze` stops a host from acting on what others publish, until `trestle thaw`.
 *
 * Gossip brings a record everywhere within a second, and so a mistake in one, or in who reads it. A frozen host keeps what it
 * has:
 *   - Membership, keys and the exchange of records go on: it answers, is not taken for dead, and lags behind nobody. Below this
 *     line a record is bytes.
 *   - No record of another host is read (cluster_record): networks, pools, custody and endpoints stay as they were, and with them
 *     the rows in the kernel. Which ones came is noted, by key. One is heeded in part: whom a decree that is done has forgotten
 *     is out for gossip at once (shut_out).
 *   - It makes nothing new: no network, endpoint, attachment, address, token, joining or leaving. Ends are accepted, since a
 *     container that is gone is gone: its address falls back to this host.
 *   - The ipam core is on hold (IPAM_HOLD_FROZEN). It refuses others, takes nothing and promises nothing; what of its messages it
 *     does not read is lost to it, as in a cut. So freezing can neither lose an address nor give one twice: all that it does to
 *     custody is to leave steps out. An offer to this host stays open until it acts again.
 *   - Rows of dead hosts stay: whoever is dead may have died of the same. Those of a host that says goodbye or is forgotten go,
 *     as they go with each word about membership: nothing answers there.
 *   - A host that its cluster has forgotten does start over, frozen or not, once a member says so in person (forget.c): others
 *     may have its addresses. The decree itself it reads at the thaw.
 *
 * Thawing reads what was noted, as it is by then, reserves again what a reboot cleared meanwhile, and ends the hold. The switch
 * is in the state file and holds through restarts: a daemon that starts frozen knows no endpoint of others, and keeps the rows
 * that it finds in the kernel (datapath_hold). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/json_text.h"
#include "daemon/node_internal.h"

#define FREEZE_FORMAT 1

/* A record of another host that changed. An endpoint that came and went is dropped again, as the most frequent; of definitions
 * and custody the key stays, some hundred bytes, until the thaw or the next start. */
struct missed {
	struct missed_key {
		uint64_t topic;
		uint32_t origin;
		uint32_t len;
		uint8_t key[GOSSIP_KEY_MAX];
	} key;
	UT_hash_handle hh;
};

/* ---- the switch ---- */

static void save(struct node *node)
{
	uint8_t val[16 + CONTROL_REASON_MAX];
	struct bytes_writer w;

	bw_init(&w, val, sizeof(val));
	bw_u8(&w, FREEZE_FORMAT);
	bw_u64(&w, node->freeze.since_s);
	bw_text(&w, node->freeze.reason);
	outbox_save(node->outbox, store_change_new(STORE_STATE, STORE_FREEZE, "", 0, node->freeze.on ? val : NULL,
					  node->freeze.on ? w.len : 0, true));
}

static int take(void *ctx, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct freeze *f = ctx;
	struct bytes_reader r;
	uint8_t format;

	(void)key, (void)key_len;
	br_init(&r, val, len);
	format = br_u8(&r);
	if (!r.bad && format > FREEZE_FORMAT)
		return err_set(err, ERR_VERSION, "stored freeze: format %u, this version knows up to %d", format, FREEZE_FORMAT);
	f->since_s = br_u64(&r);
	br_text(&r, f->reason, sizeof(f->reason));
	f->on = true;
	return br_done(&r) ? 0 : err_set(err, ERR_CORRUPT, "stored freeze: %zu bytes that do not decode", len);
}

int freeze_start(struct node *node, struct err *err)
{
	char text[400];

	if (store_each(node->store, STORE_STATE, STORE_FREEZE, take, &node->freeze, err) < 0)
		return -1;
	if (freeze_sentence(node, text, sizeof(text)))
		log_warn("freeze", "%s", text);
	return 0;
}

bool freeze_sentence(const struct node *node, char *buf, size_t size)
{
	const struct freeze *f = &node->freeze;
	uint64_t now = (uint64_t)clock_wall_s();

	if (!f->on)
		return false;
	snprintf(buf, size,
		"this host is FROZEN, for %llu min now%s%s%s: it reads nothing that others publish and makes nothing new; "
		"containers that run keep their network. `trestle thaw` ends it",
		(unsigned long long)(now > f->since_s ? now - f->since_s : 0) / 60, *f->reason ? " (" : "", f->reason,
		*f->reason ? ")" : "");
	return true;
}

bool freeze_refuses(const struct node *node, struct err *err)
{
	char text[400];

	if (!freeze_sentence(node, text, sizeof(text)))
		return false;
	err_set(err, ERR_UNREACHABLE, "%s", text);
	return true;
}

/* ---- what comes meanwhile ---- */

static void forget_missed(struct node *node, struct missed *m)
{
	HASH_DEL(node->freeze.missed, m);
	free(m);
}

/* The one thing that cannot wait: a host that is forgotten may be in wrong hands, and asks members for the cluster's keys. Gossip
 * alone is told. The estate, and a decree about ourselves, wait for the thaw. */
static void shut_out(struct node *node, uint32_t origin, const void *val, size_t len)
{
	struct ipam_decree d;

	if (!val || ipam_decree_decode(&d, val, len) < 0 || d.heir != origin || !d.done || d.victim == node->cluster.hostno ||
		id_equal(&d.victim_id, &node->identity.id))
		return;
	gossip_forget(node->gossip, &d.victim_id, false, clock_boot_ms());
}

bool freeze_misses(
	struct node *node, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len)
{
	struct missed_key k;
	struct missed *m;

	if (!node->freeze.on)
		return false;
	memset(&k, 0, sizeof(k));
	k.topic = topic;
	k.origin = origin;
	k.len = (uint32_t)key_len;
	memcpy(k.key, key, key_len);
	if (k.key[0] == RECORD_DECREE)
		shut_out(node, origin, val, val_len);
	HASH_FIND(hh, node->freeze.missed, &k, sizeof(k), m);
	if (m && !val && k.key[0] == RECORD_ENDPOINT && !segments_have(node, origin, topic, key, key_len)) {
		forget_missed(node, m);
		return true;
	}
	if (m)
		return true;
	m = alloc_new(struct missed);
	m->key = k;
	HASH_ADD(hh, node->freeze.missed, key, sizeof(m->key), m);
	return true;
}

static void read_missed(struct node *node, const struct missed_key *k)
{
	uint8_t val[GOSSIP_VALUE_MAX];
	size_t len = 0;
	const void *at = gossip_get(node->gossip, k->origin, k->topic, k->key, k->len, &len);

	if (at) /* what reads it may change records */
		memcpy(val, at, len);
	cluster_record(node, k->origin, k->topic, k->key, k->len, at ? val : NULL, len);
}

static void catch_up(struct node *node)
{
	struct missed *m, *next;

	HASH_ITER(hh, node->freeze.missed, m, next)
	{
		if (node->gossip)
			read_missed(node, &m->key);
		forget_missed(node, m);
	}
}

void freeze_stop(struct node *node)
{
	struct missed *m, *next;

	HASH_ITER(hh, node->freeze.missed, m, next)
	forget_missed(node, m);
}

/* ---- the calls ---- */

struct answer {
	struct node *node;
	struct control_call *call;
};

static void answer(void *arg)
{
	struct answer *a = arg;

	control_done(a->call, json_pack("{s:o}", "frozen", freeze_json(a->node)));
	free(a);
}

static void answer_when_saved(struct node *node, struct control_call *call)
{
	struct answer *a = alloc_new(struct answer);

	*a = (struct answer){node, call};
	save(node);
	outbox_call(node->outbox, answer, a);
}

json_t *freeze_json(const struct node *node)
{
	const struct freeze *f = &node->freeze;
	uint64_t now = (uint64_t)clock_wall_s();

	if (!f->on)
		return json_null();
	return json_pack("{s:I, s:o, s:I}", "since_s", (json_int_t)(now > f->since_s ? now - f->since_s : 0), "reason",
		*f->reason ? json_text(f->reason) : json_null(), "missed", (json_int_t)HASH_COUNT(f->missed));
}

void freeze_on(struct node *node, struct control_call *call, json_t *body)
{
	const char *reason = json_string_value(json_object_get(body, "reason"));
	struct freeze *f = &node->freeze;
	struct err err = {0};

	if (node->leaving || node->join) {
		err_set(&err, ERR_CONFLICT,
			"this host is joining or leaving a cluster, which cannot stop half way; try again in a second");
		control_fail(call, &err);
		return;
	}
	if (!f->on)
		f->since_s = (uint64_t)clock_wall_s();
	if (reason || !f->on)
		snprintf(f->reason, sizeof(f->reason), "%s", reason ? reason : "");
	f->on = true;
	standing_freeze(node);
	log_warn("freeze", "frozen%s%s: nothing that others publish is read until `trestle thaw`", *f->reason ? ": " : "",
		f->reason);
	answer_when_saved(node, call);
}

void freeze_off(struct node *node, struct control_call *call, json_t *body)
{
	unsigned missed = HASH_COUNT(node->freeze.missed);

	(void)body;
	if (node->freeze.on) {
		node->freeze.on = false;
		catch_up(node);		   /* before custody moves on, which looks at what others have */
		pools_reserve_again(node); /* before anybody gets an address: behind a reboot they waited for this */
		standing_freeze(node);
		cluster_poke(node);
		log_info("freeze", "thawed: %u records that changed meanwhile were read", missed);
	}
	answer_when_saved(node, call);
}

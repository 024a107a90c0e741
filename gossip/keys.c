/* Rotation of the cluster key.
 *
 *	maker                                  every other member
 *	  makes a key, keeps it on disk
 *	  TELL key, sealed for that member --->  keeps it on disk
 *	                                         says so in its record "k"
 *	all members not dead list it:            the same, seen there
 *	  active, on disk, then sends with it      likewise
 *	all members not dead send with it, for a while:
 *	  the one before goes
 *
 * There is no coordinator after the first step: each host decides for itself from the records "k". What it decides is on disk
 * before it tells anyone or acts on it, so a restart at any point goes on from there. Everything is judged on hosts that are not
 * dead: one that is unheard of counts until it is found dead, so that a host that has just started does not decide alone. Whoever
 * was dead, and missed it all, asks for the keys when it is back.
 *
 * The maker hands the key out. When it dies half way, the holder with the lowest number does; when that does not help, anyone. */
#include "gossip/core_internal.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define WIRE_MIN FRAME_VERSION
#define WANTED_VERSION 1
#define NEXT_EXTENSION 3  /* bytes behind the record of a host that speaks a later version: the test of what others make of it */
#define LOOK_MS 200	  /* between two looks at the records while keys change */
#define HAND_AGAIN_MS 600 /* a key to a member that does not list it yet */
#define HAND_PER_LOOK 64  /* a box costs about 100 us */
#define HELP_ONE_MS 1000  /* the maker alone hands out before */
#define HELP_ALL_MS 5000  /* so long without success, and every holder hands it out */
#define RETIRE_AFTER_MS 3000 /* packets sealed with the old key before its sender changed */
#define TELL_KEY KEYS_TELL

static void apply(struct gossip *g)
{
	struct keyring ring = g->keys.ring;
	int active = 0;
	uint8_t fingerprint[KEYRING_FINGERPRINT_SIZE];

	/* Open with all that we have, seal with what is on disk as the active one. */
	keyring_fingerprint(keyring_active(&g->keys.kept), fingerprint);
	active = keyring_find(&ring, fingerprint);
	if (active >= 0)
		ring.active = (unsigned)active;
	keyring_frames(&ring, &g->ring);
	keyring_wipe(&ring);
}

void keys_init(struct gossip *g)
{
	keyring_init(&g->keys.ring, g->config.cluster_key);
	g->keys.kept = g->keys.ring;
	g->keys.next_ms = NEVER;
	/* A ticket of an earlier core of this process must not count. */
	g->keys.ticket = g->keys.kept_ticket = g->config.boot_tag >> 1;
	apply(g);
}

int keys_restore(struct gossip *g, const void *val, size_t len, struct err *err)
{
	if (keyring_decode(val, len, &g->keys.ring, err) < 0)
		return -1;
	g->keys.kept = g->keys.ring;
	if (g->keys.ring.count > 1)
		g->keys.next_ms = g->now;
	apply(g);
	return 0;
}

/* Of a host that says nothing: it has the cluster's first key, and speaks the first wire version. So who joins a cluster whose
 * key was never changed need not say so. False: we do not know that key any more. */
static bool view_of_silent(const struct gossip *g, struct keyring_view *ret_view)
{
	const struct keyring_key *first = &g->keys.ring.keys[0];

	if (first->generation != KEYRING_GENERATION_FIRST)
		return false;
	*ret_view = (struct keyring_view){.wire_min = WIRE_MIN, .wire_max = FRAME_VERSION, .count = 1};
	keyring_fingerprint(first, ret_view->active);
	keyring_fingerprint(first, ret_view->keys[0]);
	return true;
}

static const struct record *record_of(const struct gossip *g, uint32_t hostno)
{
	const struct shard *shard = shards_find(&g->shards, hostno, 0);

	return shard ? shards_record(shard, &g->shards, KEYS_RECORD_KEY, 1) : NULL;
}

static bool goes_without_saying(const struct gossip *g, const struct keyring_view *view)
{
	return view->count == 1 && g->keys.kept.keys[0].generation == KEYRING_GENERATION_FIRST &&
	       view->wire_max == FRAME_VERSION && !record_of(g, g->self->hostno);
}

void keys_publish(struct gossip *g)
{
	struct keyring_view view = {.wire_min = WIRE_MIN, .wire_max = g->sender.version_max, .count = g->keys.kept.count};
	uint8_t val[KEYRING_VIEW_MAX + NEXT_EXTENSION] = {0};
	size_t len;

	if (!g->started)
		return;
	keyring_fingerprint(keyring_active(&g->keys.kept), view.active);
	for (unsigned i = 0; i < view.count; i++)
		keyring_fingerprint(&g->keys.kept.keys[i], view.keys[i]);
	if (goes_without_saying(g, &view))
		return;
	len = keyring_view_encode(&view, val);
	if (g->sender.version_max > FRAME_VERSION)
		len += NEXT_EXTENSION;
	core_put(g, 0, KEYS_RECORD_KEY, 1, val, len);
}

/* What it says of its keys is read where it is when keys change; what it speaks, now. */
void keys_record(struct gossip *g, uint32_t origin, const uint8_t *val, size_t len)
{
	struct member *m = members_find(g, origin);
	struct keyring_view view;

	if (!m || m == g->self || !keyring_view_decode(val, len, &view) || view.wire_min > g->sender.version_max ||
		view.wire_max < WIRE_MIN)
		return;
	m->wire = view.wire_max < g->sender.version_max ? view.wire_max : g->sender.version_max;
}

/* An earlier life of it may have spoken a later version. */
void keys_record_gone(struct gossip *g, uint32_t origin)
{
	struct member *m = members_find(g, origin);

	if (m && m != g->self)
		m->wire = 0;
}

static void kept(struct gossip *g, uint64_t ticket)
{
	g->keys.kept_ticket = ticket;
	if (ticket != g->keys.ticket)
		return; /* a later one is on its way to disk */
	g->keys.kept = g->keys.ring;
	g->keys.next_ms = g->now;
	apply(g);
	keys_publish(g);
}

static void save(struct gossip *g)
{
	uint8_t val[KEYRING_SAVE_MAX];
	size_t len = keyring_encode(&g->keys.ring, val);

	g->keys.ticket++;
	g->keys.agreed_ms = 0;
	g->keys.newest_in_use = false;
	apply(g);
	g->ops.save(g->ctx, KEYS_RECORD_KEY, 1, val, len, true);
	sodium_memzero(val, sizeof(val));
	if (g->ops.sync)
		g->ops.sync(g->ctx, g->keys.ticket);
	else
		kept(g, g->keys.ticket);
}

void gossip_kept(struct gossip *g, uint64_t ticket, uint64_t now_ms)
{
	core_enter(g, now_ms);
	if (!g->left && ticket > g->keys.kept_ticket && ticket <= g->keys.ticket)
		kept(g, ticket);
	core_leave(g);
}

void keys_recovered(struct gossip *g, const uint8_t *active_fingerprint)
{
	int active = active_fingerprint ? keyring_find(&g->keys.ring, active_fingerprint) : -1;

	if (active > (int)g->keys.ring.active)
		g->keys.ring.active = (unsigned)active;
	g->keys.had_ms = g->now;
	save(g);
}

/* ---- what the others say ---- */

static bool view_of(const struct gossip *g, const struct member *m, struct keyring_view *ret_view)
{
	const struct record *r = record_of(g, m->hostno);

	return r ? keyring_view_decode(record_val(r), r->val_len, ret_view) : view_of_silent(g, ret_view);
}

static bool counts(const struct member *m)
{
	return m->state == GOSSIP_ALIVE || m->state == GOSSIP_SUSPECT;
}

struct census {
	unsigned have, sending, needed;
};

static struct census take_census(const struct gossip *g, const uint8_t fingerprint[KEYRING_FINGERPRINT_SIZE])
{
	struct census census = {0};

	for (unsigned i = 0; i < g->member_count; i++) {
		const struct member *m = g->slots[i];
		struct keyring_view view;

		if (!counts(m))
			continue;
		census.needed++;
		if (!view_of(g, m, &view))
			continue;
		census.have += keyring_view_lists(&view, fingerprint);
		census.sending += memcmp(view.active, fingerprint, KEYRING_FINGERPRINT_SIZE) == 0;
	}
	return census;
}

/* ---- handing it out ---- */

static bool is_alive_holder(const struct gossip *g, const struct member *m, const uint8_t *fingerprint)
{
	struct keyring_view view;

	return m && m->state == GOSSIP_ALIVE && !m->unheard && view_of(g, m, &view) && keyring_view_lists(&view, fingerprint);
}

static bool our_turn(const struct gossip *g, const struct keyring_key *key, const uint8_t *fingerprint)
{
	uint64_t had_ms = g->now - g->keys.had_ms;

	if (id_equal(&key->rotator, &g->self->frame.host_id) || had_ms > HELP_ALL_MS)
		return true;
	if (had_ms < HELP_ONE_MS || is_alive_holder(g, members_by_id(g, &key->rotator), fingerprint))
		return false;
	for (unsigned i = 0; i < g->member_count; i++)
		if (g->slots[i]->hostno < g->self->hostno && is_alive_holder(g, g->slots[i], fingerprint))
			return false;
	return true;
}

static void hand(struct gossip *g, struct member *m, const struct keyring_key *key)
{
	uint8_t nonce[24], sealed[KEYRING_SEALED_SIZE];
	struct proto_packet packet = {0};

	rare(m)->key_ms = g->now + HAND_AGAIN_MS;
	g->ops.random(g->ctx, nonce, sizeof(nonce));
	if (keyring_seal(key, g->config.identity, m->public_key, nonce, sealed) == 0)
		return;
	if (proto_put_tell(&packet, TELL_KEY, sealed, sizeof(sealed)))
		core_send(g, m, FRAME_CLASS_MEMBERSHIP, &packet);
}

static void hand_out(struct gossip *g)
{
	const struct keyring_key *key = keyring_newest(&g->keys.kept);
	uint8_t fingerprint[KEYRING_FINGERPRINT_SIZE];
	unsigned left = HAND_PER_LOOK;

	keyring_fingerprint(key, fingerprint);
	if (key->generation == KEYRING_GENERATION_FIRST || !our_turn(g, key, fingerprint))
		return;
	for (unsigned i = 0; i < g->member_count && left > 0; i++) {
		struct member *m = g->slots[i];
		struct keyring_view view;

		if (!member_usable(g, m) || m->unheard || rare_of(m)->key_ms > g->now)
			continue;
		if (!view_of(g, m, &view) || keyring_view_lists(&view, fingerprint))
			continue;
		hand(g, m, key);
		left--;
	}
}

static void on_key(struct gossip *g, const struct member *m, const void *body, size_t len)
{
	struct keyring_key key;
	const uint8_t *rotator;

	if (!keyring_open(body, len, g->config.identity, m->public_key, &key)) {
		g->counters.keys_refused++;
		return;
	}
	rotator = core_public_key(g, &key.rotator);
	/* Not known here yet: its admission comes, and the key again. */
	if (!rotator || !keyring_verify(&key, &g->config.cluster_id, rotator) ||
		keyring_compare(&key, keyring_active(&g->keys.ring)) < 0) {
		g->counters.keys_refused++;
	} else if (keyring_add(&g->keys.ring, &key)) {
		g->counters.keys_in++;
		g->keys.had_ms = g->now;
		save(g);
	} else {
		keys_publish(g); /* it has not heard that we have it: no change, when it is only late */
	}
	sodium_memzero(&key, sizeof(key));
}

void keys_told(struct gossip *g, struct member *m, uint8_t kind, const void *body, size_t len)
{
	if (kind == TELL_KEY)
		on_key(g, m, body, len);
}

/* ---- deciding ---- */

/* A member sends with the key that a frame calls so. */
void keys_heard(struct gossip *g, uint8_t wire_id)
{
	const struct keyring *ring = &g->keys.ring;

	for (unsigned i = 0; i <= ring->active; i++)
		if (keyring_wire_id(&ring->keys[i]) == wire_id)
			return; /* it may be that one */
	/* Of two later ones with one wire id either would do: both are beyond ours. */
	if (keyring_wire_id(keyring_newest(ring)) == wire_id)
		g->keys.newest_in_use = true;
}

/* The others have agreed without us, whom they took for dead when they did: they may have dropped by now what we send with, and
 * then we wait in vain for what they say. Whoever really lacks the new key asks us for it. */
static bool left_behind(const struct gossip *g)
{
	return g->keys.newest_in_use && g->now - g->keys.had_ms > HELP_ALL_MS;
}

static bool pending(const struct gossip *g)
{
	return g->keys.ticket != g->keys.kept_ticket;
}

static void activate_or_retire(struct gossip *g)
{
	struct keyring *ring = &g->keys.ring;
	uint8_t fingerprint[KEYRING_FINGERPRINT_SIZE];
	struct census census;

	keyring_fingerprint(keyring_newest(ring), fingerprint);
	census = take_census(g, fingerprint);
	if (ring->active + 1 < ring->count) {
		if (census.have < census.needed && !left_behind(g))
			return;
		ring->active = ring->count - 1;
		save(g);
		return;
	}
	if (census.sending < census.needed) {
		g->keys.agreed_ms = 0;
		return;
	}
	if (g->keys.agreed_ms == 0)
		g->keys.agreed_ms = g->now;
	if (g->now - g->keys.agreed_ms < RETIRE_AFTER_MS || !keyring_retire(ring))
		return;
	g->counters.rotations++;
	save(g);
}

bool keys_need(const struct gossip *g, const struct id128 *maker)
{
	for (unsigned i = 0; i < g->keys.ring.count; i++)
		if (id_equal(&g->keys.ring.keys[i].rotator, maker))
			return true;
	return false;
}

uint64_t keys_tick(struct gossip *g)
{
	struct err err;

	if (g->keys.next_ms > g->now)
		return g->keys.next_ms;
	g->keys.next_ms = NEVER;
	if (g->keys.wanted && gossip_rotate(g, g->now, &err) == 0) {
		g->keys.wanted = false;
		g->ops.save(g->ctx, KEYS_WANTED_KEY, 1, NULL, 0, false);
	}
	if (g->keys.ring.count == 1 && !g->keys.wanted)
		return NEVER;
	if (g->keys.ring.count > 1 && !pending(g)) {
		hand_out(g);
		activate_or_retire(g);
	}
	sooner(&g->keys.next_ms, g->now + LOOK_MS);
	return g->keys.next_ms;
}

/* Kept until it is done: whoever was forgotten must not read on because this host was restarted meanwhile. */
void keys_want_rotation(struct gossip *g)
{
	const uint8_t version = WANTED_VERSION;

	g->keys.wanted = true;
	g->keys.next_ms = g->now;
	g->ops.save(g->ctx, KEYS_WANTED_KEY, 1, &version, 1, false);
}

int keys_restore_wanted(struct gossip *g, const uint8_t *val, size_t len, struct err *err)
{
	if (len < 1 || val[0] != WANTED_VERSION)
		return err_set(err, ERR_CORRUPT, "gossip wish for a key rotation: expected version %d, found %u in %zu bytes",
			WANTED_VERSION, len ? val[0] : 0, len);
	g->keys.wanted = true;
	g->keys.next_ms = g->now;
	return 0;
}

/* ---- for the operator ---- */

const char *gossip_key_state_name(enum gossip_key_state state)
{
	static const char *const names[] = {
		[GOSSIP_KEY_RECEIVE_ONLY] = "receive-only", [GOSSIP_KEY_ACTIVE] = "active", [GOSSIP_KEY_RETIRING] = "retiring"};

	return names[state];
}

int gossip_rotate(struct gossip *g, uint64_t now_ms, struct err *err)
{
	uint8_t secret[CLUSTER_KEY_SIZE];
	struct keyring_key key;

	if (!g->started || g->left)
		return err_set(err, ERR_CONFLICT, "key rotation: this host is not a member now");
	if (g->keys.ring.count > 1)
		return err_set(err, ERR_CONFLICT,
			"key rotation: one is under way, to generation %u; `trestle keys ls` shows how far it is",
			keyring_newest(&g->keys.ring)->generation);
	for (unsigned i = 0; i < g->member_count; i++) {
		struct keyring_view view;

		if (counts(g->slots[i]) && g->slots[i] != g->self && !view_of(g, g->slots[i], &view))
			return err_set(err, ERR_CONFLICT,
				"key rotation: host %s (number %u) does not say which keys it has: it has just joined, or runs a "
				"release that cannot rotate; try again, or upgrade it",
				g->slots[i]->name, g->slots[i]->hostno);
	}
	core_enter(g, now_ms);
	g->ops.random(g->ctx, secret, sizeof(secret));
	keyring_make(&key, &g->keys.ring, &g->config.cluster_id, g->config.identity,
		g->ops.wall_s ? (uint64_t)g->ops.wall_s(g->ctx) : 0, secret);
	keyring_add(&g->keys.ring, &key);
	g->keys.had_ms = g->now;
	save(g);
	sodium_memzero(secret, sizeof(secret));
	sodium_memzero(&key, sizeof(key));
	core_leave(g);
	return 0;
}

void gossip_each_key(const struct gossip *g, void (*fn)(void *ctx, const struct gossip_key *key), void *ctx)
{
	const struct keyring *ring = &g->keys.kept;

	for (unsigned i = 0; i < ring->count; i++) {
		const struct keyring_key *key = &ring->keys[i];
		struct gossip_key shown = {.generation = key->generation, .created_s = key->created_s, .rotator = key->rotator};
		struct census census;

		shown.state = i == ring->active	 ? GOSSIP_KEY_ACTIVE
			      : i > ring->active ? GOSSIP_KEY_RECEIVE_ONLY
						 : GOSSIP_KEY_RETIRING;
		keyring_fingerprint(key, shown.fingerprint);
		census = take_census(g, shown.fingerprint);
		shown.have = census.have;
		shown.sending = census.sending;
		shown.needed = census.needed;
		fn(ctx, &shown);
	}
}

void gossip_active_key(const struct gossip *g, uint8_t ret_key[CLUSTER_KEY_SIZE])
{
	memcpy(ret_key, keyring_active(&g->keys.kept)->secret, CLUSTER_KEY_SIZE);
}

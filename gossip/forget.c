/* Hosts that are out of the cluster for good.
 *
 * Who decides that, and how everyone hears of it, is the application's; it tells each core. From then on nothing that the host
 * says is heard, its admission is void whenever it arrives, and keys change without it. The id is kept on disk for ever: ids are
 * hashes of keys and never used again, so no time limit is needed and none would be safe.
 *
 * The host itself cannot be reached by ordinary packets any more. When it speaks, it is told so in a box that its key opens. */
#include "gossip/core_internal.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define FORGOTTEN_KEY 'f'
#define FORGOTTEN_VERSION 1
#define TELL_EVERY_MS 1000

struct forgotten {
	struct id128 host_id;
	uint32_t hostno; /* of an admission; 0 = none was seen */
	uint8_t public_key[IDENTITY_PUBLIC_SIZE];
	UT_hash_handle hh;
};

bool forget_is(const struct gossip *g, const struct id128 *host_id)
{
	struct forgotten *f;

	HASH_FIND(hh, g->forgotten, host_id, sizeof(*host_id), f);
	return f != NULL;
}

void forget_note(struct gossip *g, const struct admission *a)
{
	struct forgotten *f;

	HASH_FIND(hh, g->forgotten, &a->host_id, sizeof(a->host_id), f);
	if (!f)
		return;
	f->hostno = a->hostno;
	memcpy(f->public_key, a->public_key, sizeof(f->public_key));
	g->members_grew = true; /* what it signed can be verified */
}

const uint8_t *forget_public_key(const struct gossip *g, const struct id128 *host_id)
{
	struct forgotten *f;

	HASH_FIND(hh, g->forgotten, host_id, sizeof(*host_id), f);
	return f && f->hostno ? f->public_key : NULL;
}

const uint8_t *forget_sponsor_key(const struct gossip *g, uint32_t hostno)
{
	for (const struct forgotten *f = g->forgotten; f; f = f->hh.next)
		if (f->hostno == hostno)
			return f->public_key;
	return NULL;
}

static bool add(struct gossip *g, const struct id128 *host_id)
{
	struct forgotten *f;

	if (forget_is(g, host_id))
		return false;
	f = alloc_new(struct forgotten);
	f->host_id = *host_id;
	HASH_ADD(hh, g->forgotten, host_id, sizeof(f->host_id), f);
	return true;
}

static void void_member(struct gossip *g, struct member *m)
{
	if (m == g->self || m->forgotten)
		return;
	m->forgotten = true;
	m->spread = 0;
	m->news = NEWS_NONE;
	if (m->state != GOSSIP_LEFT)
		members_set_state(g, m, GOSSIP_LEFT);
	/* Hosts that never knew it, or knew another epoch of it, must agree with us on the sum. */
	members_update_digest(g, m);
}

void forget_start(struct gossip *g)
{
	for (unsigned i = 0; i < g->member_count; i++)
		if (forget_is(g, &g->slots[i]->frame.host_id))
			void_member(g, g->slots[i]);
}

void forget_free(struct gossip *g)
{
	struct forgotten *f, *next;

	HASH_ITER(hh, g->forgotten, f, next)
	{
		HASH_DEL(g->forgotten, f);
		free(f);
	}
}

int forget_restore(struct gossip *g, const uint8_t *key, const uint8_t *val, size_t len, struct err *err)
{
	struct id128 host_id;

	if (len < 1 || val[0] == 0)
		return err_set(err, ERR_CORRUPT, "forgotten host: expected a version, found %zu bytes", len);
	if (val[0] > FORGOTTEN_VERSION)
		return err_set(err, ERR_VERSION, "forgotten host: expected version %d, found %u", FORGOTTEN_VERSION, val[0]);
	memcpy(host_id.bytes, key + 1, sizeof(host_id.bytes));
	add(g, &host_id);
	return 0;
}

static void now_forgotten(struct gossip *g, uint32_t by)
{
	if (g->forgotten_by)
		return;
	g->forgotten_by = by;
	if (g->ops.forgotten)
		g->ops.forgotten(g->ctx, by);
}

void gossip_forget(struct gossip *g, const struct id128 *host_id, bool rotate, uint64_t now_ms)
{
	uint8_t key[SAVED_KEY_SIZE] = {FORGOTTEN_KEY}, val = FORGOTTEN_VERSION;
	struct member *m;

	core_enter(g, now_ms);
	m = members_by_id(g, host_id);
	if (m == g->self) {
		now_forgotten(g, g->self->hostno);
	} else if (add(g, host_id)) {
		memcpy(key + 1, host_id->bytes, sizeof(host_id->bytes));
		g->ops.save(g->ctx, key, sizeof(key), &val, 1, false);
		if (m) {
			void_member(g, m);
			admit_in_use(g, m); /* what else it was admitted with is nobody's either */
		}
		if (rotate)
			keys_want_rotation(g);
	}
	core_leave(g);
}

uint32_t gossip_forgotten_by(const struct gossip *g)
{
	return g->forgotten_by;
}

/* ---- telling it ---- */

/* The answer is never longer than what made us answer. */
void forget_tell(struct gossip *g, struct member *m, const struct gossip_addr *to, size_t trigger_len)
{
	uint8_t nonce[24], packet[GOSSIP_PACKET_MAX];

	g->counters.refused_forgotten++;
	if (trigger_len < HANDSHAKE_FORGOTTEN_SIZE || g->now < rare_of(m)->key_ms)
		return;
	rare(m)->key_ms = g->now + TELL_EVERY_MS;
	g->ops.random(g->ctx, nonce, sizeof(nonce));
	core_transmit(g, to, packet, handshake_forgotten(g->config.identity, m->public_key, nonce, packet));
}

void forget_told(struct gossip *g, const void *packet, size_t len)
{
	struct id128 from;
	const struct member *m;

	if (!handshake_forgotten_sender(packet, len, &from) || (m = members_by_id(g, &from)) == NULL || m->forgotten ||
		!handshake_forgotten_open(packet, len, g->config.identity, m->public_key)) {
		g->counters.refused_join++;
		return;
	}
	now_forgotten(g, m->hostno);
}

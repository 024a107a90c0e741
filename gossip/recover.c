/* Keys for who was away while they changed.
 *
 * A host that gets a packet of a member which its keys do not open asks that member for its keys, with the exchange of
 * handshake.c. Both ends come to it: who has the newer keys learns nothing, and asking tells the other that there is something to
 * learn. What comes back is proven to come from that member; the signatures of makers that are known here are checked as well.
 *
 * A packet that does not open may be forged, so that it costs little: one question at a time, and the time to the next doubles
 * while nothing new is learned. Questions of others are answered at a limited rate, whatever comes. */
#include "gossip/core_internal.h"

#include <sodium.h>
#include <string.h>

#define ASK_FIRST_MS 500
#define ASK_MAX_MS 10000
#define ASK_LIVES_MS 5000
#define SILENT_ASKS 3 /* unanswered ones after which the other transport is tried too */
#define ANSWERS_PER_S 32
#define HEARD_MS 3000

static void ask(struct gossip *g, struct member *m)
{
	struct recover *r = &g->recover;
	uint8_t ephemeral[32], packet[GOSSIP_PACKET_MAX];

	g->ops.random(g->ctx, ephemeral, sizeof(ephemeral));
	handshake_wipe(&r->hs);
	r->asking = handshake_ask(&r->hs, g->config.identity, &g->config.cluster_id, m->public_key,
		keyring_newest(&g->keys.ring)->generation, ephemeral, packet);
	sodium_memzero(ephemeral, sizeof(ephemeral));
	r->target = m->hostno;
	r->asked_ms = g->now;
	r->gap_ms = r->gap_ms == 0 ? ASK_FIRST_MS : r->gap_ms * 2 < ASK_MAX_MS ? r->gap_ms * 2 : ASK_MAX_MS;
	r->next_ms = g->now + r->gap_ms;
	if (!r->asking)
		return;
	g->counters.recoveries_asked++;
	core_transmit(g, &m->addr, packet, sizeof(packet));
	if (++r->silent > SILENT_ASKS && g->ops.stream && ip_is_set(&m->addr.ip))
		g->ops.stream(g->ctx, &m->addr, packet, sizeof(packet));
}

void recover_want(struct gossip *g, struct member *m)
{
	if (!m->forgotten && m->state != GOSSIP_LEFT && m != g->self && g->now >= g->recover.next_ms)
		ask(g, m);
}

/* ---- the answer ---- */

/* Somebody is there whom we understand: then what to send with is decided with it, in keys.c. */
static bool in_company(const struct gossip *g)
{
	for (unsigned i = 0; i < g->member_count; i++) {
		const struct member *m = g->slots[i];

		if (m != g->self && m->state == GOSSIP_ALIVE && !m->unheard && m->heard_ms + HEARD_MS > g->now)
			return true;
	}
	return false;
}

static bool acceptable(const struct gossip *g, const struct keyring_key *key)
{
	const uint8_t *maker = core_public_key(g, &key->rotator);

	if (key->generation == KEYRING_GENERATION_FIRST)
		return false; /* nothing vouches for it, and we had it when we were admitted */
	/* Of a maker that was admitted meanwhile we know nothing yet: the member that answers stands for it. */
	return !maker || keyring_verify(key, &g->config.cluster_id, maker);
}

static void on_answer(struct gossip *g, const void *packet, size_t len)
{
	struct recover *r = &g->recover;
	uint8_t content[HANDSHAKE_ANSWER_MAX], fingerprint[KEYRING_FINGERPRINT_SIZE];
	struct keyring theirs;
	size_t content_len;
	bool news = false;

	if (!r->asking || g->now - r->asked_ms > ASK_LIVES_MS ||
		!handshake_read_answer(&r->hs, packet, len, content, &content_len)) {
		g->counters.refused_join++;
		return;
	}
	r->asking = false;
	r->silent = 0;
	handshake_wipe(&r->hs);
	if (keyring_decode(content, content_len, &theirs, NULL) == 0) {
		for (unsigned i = 0; i < theirs.count; i++)
			if (acceptable(g, &theirs.keys[i]))
				news |= keyring_add(&g->keys.ring, &theirs.keys[i]);
		keyring_fingerprint(keyring_active(&theirs), fingerprint);
		if (news)
			keys_recovered(g, in_company(g) ? NULL : fingerprint);
		keyring_wipe(&theirs);
	}
	if (news) {
		g->counters.keys_in++;
		r->gap_ms = 0;
		r->next_ms = g->now + ASK_FIRST_MS;
	}
	sodium_memzero(content, sizeof(content));
}

/* ---- the question of another ---- */

/* Before anything is counted or computed: rubbish must not use up what members may ask. */
static bool is_meant(struct gossip *g, const void *packet, size_t len)
{
	struct recover *r = &g->recover;

	if (!r->own_known)
		r->own_known = handshake_own_form(g->config.identity, r->own);
	return r->own_known && handshake_is_meant(r->own, &g->config.cluster_id, packet, len);
}

static bool may_answer(struct recover *r, uint64_t now)
{
	if (now - r->answers_from_ms >= 1000) {
		r->answers_from_ms = now;
		r->answers = 0;
	}
	return r->answers < ANSWERS_PER_S && ++r->answers;
}

static void answer(struct gossip *g, const struct gossip_addr *from, struct handshake_state *state,
	const struct handshake_request *request, const uint8_t *asker_ephemeral)
{
	uint8_t ephemeral[32], content[KEYRING_SAVE_MAX], reply[GOSSIP_PACKET_MAX];
	size_t len = keyring_encode(&g->keys.kept, content);

	g->ops.random(g->ctx, ephemeral, sizeof(ephemeral));
	len = handshake_answer(state, request, asker_ephemeral, ephemeral, content, len, reply);
	sodium_memzero(ephemeral, sizeof(ephemeral));
	sodium_memzero(content, sizeof(content));
	g->counters.recoveries_answered++;
	core_transmit(g, from, reply, len);
}

static void on_request(struct gossip *g, const struct gossip_addr *from, const void *packet, size_t len)
{
	struct handshake_state state;
	struct handshake_request request;
	uint8_t asker_ephemeral[32];
	struct member *m = NULL;

	if (is_meant(g, packet, len) && may_answer(&g->recover, g->now) &&
		handshake_read_request(
			&state, g->config.identity, &g->config.cluster_id, packet, len, &request, asker_ephemeral)) {
		m = members_by_id(g, &request.host_id);
		if (m && !handshake_static_is(&request, m->public_key))
			m = NULL;
	}
	if (m && m->forgotten) {
		forget_tell(g, m, from, len);
	} else if (!m || m == g->self || m->state == GOSSIP_LEFT) {
		g->counters.refused_join++;
	} else {
		answer(g, from, &state, &request, asker_ephemeral);
		if (request.generation > keyring_newest(&g->keys.ring)->generation)
			recover_want(g, m);
	}
	sodium_memzero(&state, sizeof(state));
}

bool recover_packet(struct gossip *g, const struct gossip_addr *from, const uint8_t *packet, size_t len)
{
	if (len < 2)
		return false;
	switch (packet[1]) {
	case HANDSHAKE_KIND_RECOVER:
		on_request(g, from, packet, len);
		return true;
	case HANDSHAKE_KIND_KEYS:
		on_answer(g, packet, len);
		return true;
	case HANDSHAKE_KIND_FORGOTTEN:
		forget_told(g, packet, len);
		return true;
	default:
		return false;
	}
}

/* One signature for the admissions of a packet.
 *
 * Verifying an admission takes some 40 us, and who joins with many others gets as many: that was a quarter of all that joining
 * costs. A sponsor that sends several of those that it has signed, in batches of its own shard, signs all of them once more in a
 * message behind them. Who verifies that need not verify each: it is the same key's word for the same bytes. Where the message is
 * missing, or not genuine, each admission stands for itself, and so it does when it comes from anybody but its sponsor. Nothing
 * of this is kept: an admission is saved, and given to others, with its own signature.
 *
 * Many are told the same, so what was signed last is remembered. */
#include "gossip/core_internal.h"

#include <sodium.h>
#include <string.h>

#define SIGNED_MIN 3 /* signing and verifying costs as much as verifying one or two */
#define DOMAIN "trestle admissions 1"

struct statement {
	uint8_t bytes[sizeof(DOMAIN) - 1 + 16 + 32];
	unsigned count;
};

static bool is_admission(const struct proto_record *r)
{
	return r->val && r->key_len == SAVED_KEY_SIZE && r->key[0] == 'a';
}

static unsigned hash_batch(crypto_generichash_state *state, const struct proto_batch *batch)
{
	struct proto_record r = {.seq = batch->from};
	unsigned count = 0;
	size_t pos = 0;

	while (proto_batch_next(batch, &pos, &r)) {
		const uint8_t len[2] = {(uint8_t)(r.val_len >> 8), (uint8_t)r.val_len};

		if (!is_admission(&r))
			continue;
		crypto_generichash_update(state, len, sizeof(len));
		crypto_generichash_update(state, r.val, r.val_len);
		count++;
	}
	return count;
}

static bool is_own_batch(const struct proto_batch *batch, uint32_t sender)
{
	return batch->origin == sender && batch->topic == 0;
}

/* What the sender signs of this packet; *ret_signature (may be NULL) is left alone when there is none. */
static void read_statement(const struct gossip *g, uint32_t sender, const uint8_t *plain, size_t len, struct statement *ret,
	uint8_t *ret_signature, bool *ret_signed)
{
	const size_t domain = sizeof(DOMAIN) - 1;
	crypto_generichash_state state;
	struct bytes_reader packet, body;
	struct proto_batch batch;
	uint8_t type;

	ret->count = 0;
	*ret_signed = false;
	crypto_generichash_init(&state, NULL, 0, 32);
	br_init(&packet, plain, len);
	while (proto_next(&packet, &type, &body)) {
		if (type == PROTO_BATCH && proto_get_batch(&body, sender, &batch) && is_own_batch(&batch, sender))
			ret->count += hash_batch(&state, &batch);
		else if (type == PROTO_SIGNATURE && ret_signature)
			*ret_signed = proto_get_signature(&body, ret_signature);
	}
	memcpy(ret->bytes, DOMAIN, domain);
	memcpy(ret->bytes + domain, g->config.cluster_id.bytes, 16);
	crypto_generichash_final(&state, ret->bytes + domain + 16, 32);
}

/* ---- the sponsor ---- */

static const uint8_t *sign(struct gossip *g, const struct statement *s)
{
	const uint8_t *digest = s->bytes + sizeof(s->bytes) - 32;
	struct signed_list *list;

	for (unsigned i = 0; i < SIGNED_LISTS; i++)
		if (memcmp(g->signed_lists[i].digest, digest, 32) == 0)
			return g->signed_lists[i].signature;
	list = &g->signed_lists[g->signed_next];
	g->signed_next = (g->signed_next + 1) % SIGNED_LISTS;
	memcpy(list->digest, digest, 32);
	crypto_sign_detached(list->signature, NULL, s->bytes, sizeof(s->bytes), g->config.identity->secret_key);
	return list->signature;
}

void signed_add(struct gossip *g, struct proto_packet *packet)
{
	struct statement s;
	bool is_signed;

	if (packet->len < SIGNED_MIN * ADMISSION_SIGNATURE_SIZE || packet->len + PROTO_SIGNATURE_SIZE > sizeof(packet->bytes))
		return;
	read_statement(g, g->self->hostno, packet->bytes, packet->len, &s, NULL, &is_signed);
	if (s.count >= SIGNED_MIN)
		proto_put_signature(packet, sign(g, &s));
}

/* ---- who hears of them ---- */

void signed_read(struct gossip *g, const uint8_t *plain, size_t len)
{
	g->reading = (struct signed_packet){.plain = plain, .len = len};
}

void signed_batch(struct gossip *g, const struct member *m, const struct proto_batch *batch)
{
	g->reading.from = m && is_own_batch(batch, m->hostno) ? m : NULL;
}

static bool is_genuine(const struct gossip *g, const struct member *from)
{
	uint8_t signature[ADMISSION_SIGNATURE_SIZE];
	struct statement s;
	bool is_signed;

	read_statement(g, from->hostno, g->reading.plain, g->reading.len, &s, signature, &is_signed);
	return is_signed && crypto_sign_verify_detached(signature, s.bytes, sizeof(s.bytes), from->public_key) == 0;
}

bool signed_by(struct gossip *g, const struct member *sponsor)
{
	struct signed_packet *reading = &g->reading;

	if (!sponsor || reading->from != sponsor)
		return false;
	if (!reading->checked)
		reading->genuine = is_genuine(g, sponsor);
	reading->checked = true;
	g->counters.admissions_together += reading->genuine;
	return reading->genuine;
}

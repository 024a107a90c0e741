/* The joining side: sends one and the same JOIN to the seeds of the token in turn until a sponsor answers, all refuse, or time is
 * up.
 *
 * The packets themselves are admission.c's. Here is the patience: which seed when, and what to tell the operator at the end.
 * Members are silent to a token that is not of their making, so silence has several causes and the sentence names them all.
 * `done` is called exactly once, and nothing is sent after it. */
#include "gossip/joiner.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "gossip/admission_internal.h"

#define GAP_FIRST_MS 200 /* between two requests: above the round trip of a LAN, so the first seed usually ends it */
#define GAP_MAX_MS 2000	 /* doubled after each round over the seeds, up to this */
#define GAP_BUSY_MS 20	 /* a sponsor is busy while it writes our number to disk: some milliseconds, the first time always */
#define BUSY_TRIES 5	 /* so many in a row, then the usual patience: its numbers are all given */
#define SILENT_ROUNDS 2	 /* over the seeds by UDP alone */
#define SEEDS_NAMED_MAX 3
#define SEED_TEXT_SIZE (IP_TEXT_SIZE + 8)

_Static_assert(JOINER_PEERS_MAX == ADMISSION_WELCOME_MEMBERS_MAX + 2, "members, our own admission, keys");
_Static_assert(KEYRING_SAVE_MAX <= 512, "saved keys fit struct joiner_result");
_Static_assert(MEMBER_SAVE_MAX <= 512 && ADMISSION_MAX <= 512 && SAVED_KEY_SIZE <= 64, "saved pairs fit struct joiner_result");

struct joiner {
	struct token token;
	struct identity identity;
	struct admission_request request;
	struct joiner_ops ops;
	void *ctx;
	uint8_t packet[ADMISSION_JOIN_SIZE];
	enum admission_verdict refused[TOKEN_SEEDS_MAX]; /* ADMISSION_OK = not refused */
	struct gossip_addr refuser; /* who refused last, and why; a member may answer from another address than its seed's */
	enum admission_verdict reason;
	unsigned next_seed;
	unsigned sent;
	unsigned busy_left;
	uint32_t gap_ms, timeout_ms;
	uint64_t next_ms, deadline_ms;
	bool ended, streamed;
};

struct joiner *joiner_new(const struct token *token, const struct identity *identity, const char *name,
	const struct gossip_addr *self, const struct ip *vtep, uint32_t timeout_ms, const struct joiner_ops *ops, void *ctx,
	uint64_t now_ms)
{
	struct joiner *j = alloc_new(struct joiner);

	j->token = *token;
	if (j->token.seed_count > TOKEN_SEEDS_MAX)
		j->token.seed_count = TOKEN_SEEDS_MAX;
	j->identity = *identity;
	j->request.token = &j->token;
	j->request.identity = &j->identity;
	snprintf(j->request.name, sizeof(j->request.name), "%s", name);
	j->request.addr = *self;
	j->request.vtep = *vtep;
	j->ops = *ops;
	j->ctx = ctx;
	j->ops.random(ctx, j->request.ephemeral_secret, sizeof(j->request.ephemeral_secret));
	j->ops.random(ctx, &j->request.boot, sizeof(j->request.boot));
	admission_join_encode(&j->request, j->packet);
	j->gap_ms = GAP_FIRST_MS;
	j->busy_left = BUSY_TRIES;
	j->timeout_ms = timeout_ms;
	j->next_ms = now_ms;
	j->deadline_ms = now_ms + timeout_ms;
	return j;
}

void joiner_free(struct joiner *j)
{
	if (!j)
		return;
	sodium_memzero(j, sizeof(*j));
	free(j);
}

/* ---- the end ---- */

static void give_up(struct joiner *j, const struct err *err)
{
	j->ended = true;
	j->ops.done(j->ctx, NULL, err);
}

static const char *seed_format(const struct gossip_addr *seed, char buf[SEED_TEXT_SIZE])
{
	char ip[IP_TEXT_SIZE];

	snprintf(buf, SEED_TEXT_SIZE, seed->ip.family == 6 ? "[%s]:%u" : "%s:%u", ip_format(&seed->ip, ip), seed->port);
	return buf;
}

static const char *seeds_format(const struct joiner *j, char *buf, size_t size)
{
	char one[SEED_TEXT_SIZE];
	size_t len = 0;
	unsigned i;

	buf[0] = '\0';
	for (i = 0; i < j->token.seed_count && i < SEEDS_NAMED_MAX && len < size; i++)
		len += (size_t)snprintf(buf + len, size - len, "%s%s", i ? ", " : "", seed_format(&j->token.seeds[i], one));
	if (i < j->token.seed_count && len < size)
		snprintf(buf + len, size - len, " and %u more", j->token.seed_count - i);
	return buf;
}

static const char *refusal_sentence(enum admission_verdict reason)
{
	switch (reason) {
	case ADMISSION_EXPIRED:
		return "the token has expired by the member's clock: make a new one with `trestle token` on a member";
	case ADMISSION_SIGNATURE:
		return "the request is not signed by this host's key: use the same release of trestle on both hosts";
	case ADMISSION_BUSY:
		return "the member has no free host number now, or is frozen (`trestle status` there): try again, or ask another "
		       "member for a token";
	case ADMISSION_FORGOTTEN:
		return "this host was forgotten by that cluster, and its identity stays so: `trestle leave` here gives it a new "
		       "one, then join again";
	case ADMISSION_FAMILY:
		return "its addresses and this host's are not of one family: start trestled here with --listen, and --vtep if "
		       "given, IPv4 or IPv6 as there";
	default:
		return "the member does not accept this host's name or address: check both options here, and that both hosts run "
		       "the same release";
	}
}

static void give_up_refused(struct joiner *j)
{
	char text[SEED_TEXT_SIZE];
	struct err err = {0};

	err_set(&err, ERR_DENIED, "join: %s refuses (%s): %s", seed_format(&j->refuser, text), admission_verdict_name(j->reason),
		refusal_sentence(j->reason));
	give_up(j, &err);
}

static void give_up_late(struct joiner *j)
{
	char text[SEEDS_NAMED_MAX * (SEED_TEXT_SIZE + 2) + 24];
	struct err err = {0};

	/* One refusal explains more than the silence of the others. */
	if (j->reason != ADMISSION_OK) {
		give_up_refused(j);
		return;
	}
	err_set(&err, ERR_UNREACHABLE,
		"join: no answer in %" PRIu32
		" ms to %u requests to %s: check that trestled runs there, that UDP to these ports passes "
		"both ways, and that the token was made in that cluster, after its key was last rotated (members are silent to "
		"any other)",
		j->timeout_ms, j->sent, seeds_format(j, text, sizeof(text)));
	give_up(j, &err);
}

/* A first key needs no word: a core that is told of none takes its cluster key for that. */
static void save_keys(struct joiner_result *result, const struct keyring_key *key)
{
	struct keyring ring = {.count = 1, .keys[0] = *key};
	unsigned i = result->saved_count++;

	result->saved[i].key[0] = 'k';
	result->saved[i].key_len = 1;
	result->saved[i].val_len = keyring_encode(&ring, result->saved[i].val);
	keyring_wipe(&ring);
}

static void succeed(struct joiner *j, const struct admission_welcome *welcome)
{
	struct joiner_result *result = alloc_new(struct joiner_result);
	unsigned i;

	result->cluster_id = j->token.cluster_id;
	memcpy(result->cluster_key, welcome->key.secret, sizeof(result->cluster_key));
	result->hostno = welcome->admission.hostno;
	if (welcome->vouched) {
		result->boot = welcome->admission.boot;
		result->source_boot = welcome->sponsor_boot;
	}
	for (i = 0; i < welcome->member_count; i++) {
		result->saved[i].key_len = SAVED_KEY_SIZE;
		result->saved[i].val_len = member_save_encode(&welcome->members[i], result->saved[i].key, result->saved[i].val);
	}
	result->saved[i].key_len = SAVED_KEY_SIZE;
	result->saved[i].val_len = admission_encode(&welcome->admission, result->saved[i].key, result->saved[i].val);
	result->saved_count = i + 1;
	if (welcome->key.generation > KEYRING_GENERATION_FIRST)
		save_keys(result, &welcome->key);
	j->ended = true;
	j->ops.done(j->ctx, result, NULL);
	sodium_memzero(result, sizeof(*result));
	free(result);
}

/* ---- the way there ---- */

static bool same_addr(const struct gossip_addr *a, const struct gossip_addr *b)
{
	return a->port == b->port && ip_equal(&a->ip, &b->ip);
}

/* BUSY is a state of the sponsor's and may pass; every other refusal is about us and stays. */
static bool is_final(enum admission_verdict verdict)
{
	return verdict != ADMISSION_OK && verdict != ADMISSION_BUSY;
}

static bool all_refuse(const struct joiner *j)
{
	unsigned i;

	for (i = 0; i < j->token.seed_count; i++)
		if (!is_final(j->refused[i]))
			return false;
	return true;
}

static void ask_soon(struct joiner *j, unsigned seed, uint64_t now_ms)
{
	if (j->busy_left == 0 || now_ms + GAP_BUSY_MS >= j->next_ms)
		return;
	j->busy_left--;
	j->next_seed = seed;
	j->next_ms = now_ms + GAP_BUSY_MS;
}

static void refused_by(struct joiner *j, const struct gossip_addr *from, enum admission_verdict reason, uint64_t now_ms)
{
	unsigned i;

	j->refuser = *from;
	j->reason = reason;
	for (i = 0; i < j->token.seed_count; i++) {
		if (!same_addr(&j->token.seeds[i], from))
			continue;
		j->refused[i] = reason;
		if (reason == ADMISSION_BUSY)
			ask_soon(j, i, now_ms);
	}
	if (all_refuse(j))
		give_up_refused(j);
}

void joiner_packet(struct joiner *j, const struct gossip_addr *from, const void *packet, size_t len, uint64_t now_ms)
{
	struct admission_welcome welcome;
	enum admission_verdict verdict;

	if (j->ended || now_ms >= j->deadline_ms)
		return;
	verdict = admission_reply_open(&j->request, packet, len, &welcome);
	if (verdict == ADMISSION_OK) {
		succeed(j, &welcome);
		sodium_memzero(&welcome, sizeof(welcome));
	} else if (verdict >= ADMISSION_EXPIRED) {
		refused_by(j, from, verdict, now_ms);
	}
}

static void ask_next(struct joiner *j, uint64_t now_ms)
{
	unsigned seed;

	do {
		seed = j->next_seed++;
		if (j->next_seed == j->token.seed_count)
			j->next_seed = 0;
	} while (is_final(j->refused[seed])); /* ends: all_refuse would have ended the joiner */
	j->next_ms = now_ms + j->gap_ms;
	if (j->next_seed == 0 && j->gap_ms < GAP_MAX_MS)
		j->gap_ms = j->gap_ms * 2 < GAP_MAX_MS ? j->gap_ms * 2 : GAP_MAX_MS;
	j->sent++;
	j->ops.send(j->ctx, &j->token.seeds[seed], j->packet, sizeof(j->packet));
	/* Refusals come by UDP too: then it passes. A busy sponsor may be answering streams alone. */
	if (j->ops.stream && j->sent > SILENT_ROUNDS * j->token.seed_count && (j->reason == ADMISSION_OK || j->streamed)) {
		j->streamed = true;
		j->ops.stream(j->ctx, &j->token.seeds[seed], j->packet, sizeof(j->packet));
	}
}

uint64_t joiner_tick(struct joiner *j, uint64_t now_ms)
{
	if (!j->ended && (now_ms >= j->deadline_ms || j->token.seed_count == 0))
		give_up_late(j);
	if (!j->ended && now_ms >= j->next_ms)
		ask_next(j, now_ms);
	if (j->ended)
		return UINT64_MAX;
	return j->next_ms < j->deadline_ms ? j->next_ms : j->deadline_ms;
}

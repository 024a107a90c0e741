/* The join exchange and its two records. What they promise: admission_internal.h; the bytes: docs/wire.md, "Admission", "Saved
 * pairs".
 *
 * Three keys follow from a token's secret, one per packet kind, each bound to the joiner's ephemeral key. JOIN and WELCOME keys
 * are used for one plaintext only, so their nonce is zero: the same JOIN is sent again bit by bit, a second WELCOME has a new
 * ephemeral key. REFUSED may say different things under one key and carries a random nonce. Secrets are wiped from the stack when
 * they end there. */
#include "gossip/admission_internal.h"

#include <sodium.h>
#include <string.h>

#include "base/bytes.h"
#include "gossip/frame_internal.h"

#define SAVED_MEMBER 'm'
#define SAVED_ADMISSION 'a'
#define SAVED_LEFT 'l'
#define SAVED_VERSION 1

#define KIND_JOIN 1
#define KIND_WELCOME 2
#define KIND_REFUSED 3
#define PREFIX_SIZE 5 /* version and class, kind, hostno 0: what all packets begin with */
#define JOIN_HEADER_SIZE (PREFIX_SIZE + 16 + 16 + 8 + 32 + 8)
#define WELCOME_HEADER_SIZE (PREFIX_SIZE + 32 + 8)
#define REFUSED_SIZE (PREFIX_SIZE + 24 + 1 + FRAME_TAG_SIZE)
#define JOIN_PLAIN_SIZE (ADMISSION_JOIN_SIZE - JOIN_HEADER_SIZE - FRAME_TAG_SIZE)
#define WELCOME_PLAIN_MAX (ADMISSION_JOIN_SIZE - WELCOME_HEADER_SIZE - FRAME_TAG_SIZE)

static const uint8_t zero_nonce[crypto_aead_xchacha20poly1305_ietf_NPUBBYTES];

/* What is hashed or signed: a domain, then fields in order. */
struct transcript {
	uint8_t bytes[GOSSIP_PACKET_MAX + 256];
	struct bytes_writer w;
};

static void transcript_begin(struct transcript *t, const char *domain)
{
	bw_init(&t->w, t->bytes, sizeof(t->bytes));
	bw_bytes(&t->w, domain, strlen(domain));
}

static void transcript_sign(
	const struct transcript *t, const struct identity *identity, uint8_t ret_signature[ADMISSION_SIGNATURE_SIZE])
{
	crypto_sign_detached(ret_signature, NULL, t->bytes, t->w.len, identity->secret_key);
}

static bool transcript_verify(const struct transcript *t, const uint8_t *public_key, const uint8_t *signature)
{
	return !t->w.overflow && crypto_sign_verify_detached(signature, t->bytes, t->w.len, public_key) == 0;
}

static void transcript_key(struct transcript *t, const uint8_t secret[TOKEN_SECRET_SIZE], uint8_t ret_key[32])
{
	crypto_generichash(ret_key, 32, t->bytes, t->w.len, secret, TOKEN_SECRET_SIZE);
	sodium_memzero(t, sizeof(*t));
}

static bool hostno_is_valid(uint32_t hostno)
{
	return hostno != 0 && hostno <= GOSSIP_HOSTNO_MAX;
}

/* ---- saved pairs and records ---- */

static void write_key(char letter, const struct id128 *host_id, uint8_t ret_key[SAVED_KEY_SIZE])
{
	ret_key[0] = (uint8_t)letter;
	memcpy(ret_key + 1, host_id->bytes, sizeof(host_id->bytes));
}

static int check_key(char letter, const void *key, size_t key_len, const struct id128 *host_id, const char *what, struct err *err)
{
	uint8_t expected[SAVED_KEY_SIZE];
	char text[ID_SHORT_SIZE];

	write_key(letter, host_id, expected);
	if (key_len != SAVED_KEY_SIZE || memcmp(key, expected, SAVED_KEY_SIZE) != 0)
		return err_set(err, ERR_CORRUPT, "%s: the public key in it is that of host %s, its own key names another", what,
			id_short(host_id, text));
	return 0;
}

static int check_version(uint8_t version, const char *what, struct err *err)
{
	if (version > SAVED_VERSION)
		return err_set(err, ERR_VERSION, "%s: has version %u, this trestle reads %d: it was written by a newer one", what,
			version, SAVED_VERSION);
	if (version == 0)
		return err_set(err, ERR_CORRUPT, "%s: is empty or has version 0, expected %d", what, SAVED_VERSION);
	return 0;
}

static void read_array(struct bytes_reader *r, void *ret_bytes, size_t len)
{
	const uint8_t *bytes = br_bytes(r, len);

	if (bytes)
		memcpy(ret_bytes, bytes, len);
}

static void write_addr(struct bytes_writer *w, const struct gossip_addr *addr)
{
	bw_ip(w, &addr->ip);
	bw_u16(w, addr->port);
}

static void read_addr(struct bytes_reader *r, struct gossip_addr *ret_addr)
{
	br_ip(r, &ret_addr->ip);
	ret_addr->port = br_u16(r);
}

static void write_member(struct bytes_writer *w, const struct member_save *member)
{
	bw_u8(w, SAVED_VERSION);
	bw_u24(w, member->hostno);
	bw_bytes(w, member->public_key, sizeof(member->public_key));
	bw_u32(w, member->epoch);
	write_addr(w, &member->addr);
	bw_ip(w, &member->vtep);
	bw_text(w, member->name);
}

/* Everything but the version byte. False: not a member. */
static bool read_member(struct bytes_reader *r, struct member_save *ret_member)
{
	struct member_save member = {0};

	member.hostno = br_u24(r);
	read_array(r, member.public_key, sizeof(member.public_key));
	member.epoch = br_u32(r);
	read_addr(r, &member.addr);
	br_ip(r, &member.vtep);
	br_word(r, member.name, sizeof(member.name));
	if (r->bad || !hostno_is_valid(member.hostno))
		return false;
	member.host_id = identity_id_of(member.public_key);
	*ret_member = member;
	return true;
}

size_t member_save_encode(const struct member_save *member, uint8_t ret_key[SAVED_KEY_SIZE], uint8_t ret_val[MEMBER_SAVE_MAX])
{
	struct bytes_writer w;

	write_key(SAVED_MEMBER, &member->host_id, ret_key);
	bw_init(&w, ret_val, MEMBER_SAVE_MAX);
	write_member(&w, member);
	return w.len;
}

int member_save_decode(
	const void *key, size_t key_len, const void *val, size_t len, struct member_save *ret_member, struct err *err)
{
	struct member_save member;
	struct bytes_reader r;

	br_init(&r, val, len);
	if (check_version(br_u8(&r), "saved member", err) < 0)
		return -1;
	if (!read_member(&r, &member) || !br_done(&r))
		return err_set(err, ERR_CORRUPT,
			"saved member: its %zu bytes do not decode; it will be learned again from the others", len);
	if (check_key(SAVED_MEMBER, key, key_len, &member.host_id, "saved member", err) < 0)
		return -1;
	*ret_member = member;
	return 0;
}

void left_save_encode(const struct left_save *left, uint8_t ret_key[SAVED_KEY_SIZE], uint8_t ret_val[LEFT_SAVE_SIZE])
{
	struct bytes_writer w;

	write_key(SAVED_LEFT, &left->host_id, ret_key);
	bw_init(&w, ret_val, LEFT_SAVE_SIZE);
	bw_u8(&w, SAVED_VERSION);
	bw_u32(&w, left->epoch);
	bw_u32(&w, left->incarnation);
}

int left_save_decode(const void *key, size_t key_len, const void *val, size_t len, struct left_save *ret_left, struct err *err)
{
	const uint8_t *key_bytes = key;
	struct left_save left;
	struct bytes_reader r;

	br_init(&r, val, len);
	if (check_version(br_u8(&r), "saved goodbye", err) < 0)
		return -1;
	left.epoch = br_u32(&r);
	left.incarnation = br_u32(&r);
	if (!br_done(&r) || key_len != SAVED_KEY_SIZE || key_bytes[0] != SAVED_LEFT)
		return err_set(err, ERR_CORRUPT, "saved goodbye: its %zu bytes do not decode; the others know who left", len);
	memcpy(left.host_id.bytes, key_bytes + 1, sizeof(left.host_id.bytes));
	*ret_left = left;
	return 0;
}

/* VXLAN is mostly at the same address as everything else. */
static void write_ends(struct bytes_writer *w, const struct gossip_addr *addr, const struct ip *vtep)
{
	const struct ip none = {0};

	write_addr(w, addr);
	bw_ip(w, ip_equal(vtep, &addr->ip) ? &none : vtep);
}

static void read_ends(struct bytes_reader *r, struct gossip_addr *ret_addr, struct ip *ret_vtep)
{
	read_addr(r, ret_addr);
	br_ip(r, ret_vtep);
	if (!ip_is_set(ret_vtep))
		*ret_vtep = ret_addr->ip;
	else if (ip_equal(ret_vtep, &ret_addr->ip))
		r->bad = true; /* one form for one thing */
}

/* What is signed, in the order in which it is saved. */
static void write_admission(struct bytes_writer *w, const struct admission *admission)
{
	bw_u24(w, admission->hostno);
	bw_bytes(w, admission->public_key, sizeof(admission->public_key));
	bw_text(w, admission->name);
	write_ends(w, &admission->addr, &admission->vtep);
	bw_u64(w, admission->boot);
	bw_u24(w, admission->sponsor_hostno);
}

static void admission_transcript(
	const struct admission *admission, const struct id128 *cluster_id, struct transcript *ret_transcript)
{
	transcript_begin(ret_transcript, "trestle admission 1");
	bw_id(&ret_transcript->w, cluster_id);
	write_admission(&ret_transcript->w, admission);
}

void admission_sign(
	struct admission *admission, const struct id128 *cluster_id, const struct identity *sponsor, uint32_t sponsor_hostno)
{
	struct transcript t;

	admission->sponsor_hostno = sponsor_hostno;
	admission_transcript(admission, cluster_id, &t);
	transcript_sign(&t, sponsor, admission->signature);
}

size_t admission_encode(const struct admission *admission, uint8_t ret_key[SAVED_KEY_SIZE], uint8_t ret_val[ADMISSION_MAX])
{
	struct bytes_writer w;

	write_key(SAVED_ADMISSION, &admission->host_id, ret_key);
	bw_init(&w, ret_val, ADMISSION_MAX);
	bw_u8(&w, SAVED_VERSION);
	write_admission(&w, admission);
	bw_bytes(&w, admission->signature, sizeof(admission->signature));
	return w.len;
}

int admission_decode(
	const void *key, size_t key_len, const void *val, size_t len, struct admission *ret_admission, struct err *err)
{
	struct admission admission = {0};
	struct bytes_reader r;

	br_init(&r, val, len);
	if (check_version(br_u8(&r), "admission", err) < 0)
		return -1;
	admission.hostno = br_u24(&r);
	read_array(&r, admission.public_key, sizeof(admission.public_key));
	br_word(&r, admission.name, sizeof(admission.name));
	read_ends(&r, &admission.addr, &admission.vtep);
	admission.boot = br_u64(&r);
	admission.sponsor_hostno = br_u24(&r);
	read_array(&r, admission.signature, sizeof(admission.signature));
	if (!br_done(&r) || !hostno_is_valid(admission.hostno) || !hostno_is_valid(admission.sponsor_hostno))
		return err_set(err, ERR_CORRUPT, "admission: its %zu bytes do not decode", len);
	admission.host_id = identity_id_of(admission.public_key);
	if (check_key(SAVED_ADMISSION, key, key_len, &admission.host_id, "admission", err) < 0)
		return -1;
	*ret_admission = admission;
	return 0;
}

int admission_verify(const struct admission *admission, const struct id128 *cluster_id,
	const uint8_t sponsor_public_key[IDENTITY_PUBLIC_SIZE], struct err *err)
{
	char host[ID_SHORT_SIZE];
	struct transcript t;

	admission_transcript(admission, cluster_id, &t);
	if (!transcript_verify(&t, sponsor_public_key, admission->signature))
		return err_set(err, ERR_DENIED,
			"admission of host %s (%s, number %u): not signed by its sponsor, number %u, ignoring",
			id_short(&admission->host_id, host), admission->name, admission->hostno, admission->sponsor_hostno);
	return 0;
}

/* ---- what both sides of the exchange compute ---- */

static const char *const verdict_names[] = {
	[ADMISSION_OK] = "ok",
	[ADMISSION_SHORT] = "short",
	[ADMISSION_VERSION] = "version",
	[ADMISSION_KIND] = "kind",
	[ADMISSION_CLUSTER] = "cluster",
	[ADMISSION_TOKEN] = "token",
	[ADMISSION_EXPIRED] = "expired",
	[ADMISSION_SIGNATURE] = "signature",
	[ADMISSION_CONTENT] = "content",
	[ADMISSION_BUSY] = "busy",
	[ADMISSION_FORGOTTEN] = "forgotten",
	[ADMISSION_FAMILY] = "family",
};
_Static_assert(sizeof(verdict_names) / sizeof(verdict_names[0]) == ADMISSION_VERDICT_MAX, "a name for every verdict");

const char *admission_verdict_name(enum admission_verdict verdict)
{
	return (unsigned)verdict < ADMISSION_VERDICT_MAX ? verdict_names[verdict] : "unknown";
}

/* What a JOIN says in clear. */
struct join_header {
	struct id128 cluster_id, token_id;
	int64_t expires_s;
	uint8_t ephemeral[32];
	uint64_t boot; /* as in a hello: who watches the network with a key needs it */
};

static void write_prefix(struct bytes_writer *w, uint8_t kind)
{
	bw_u8(w, FRAME_VERSION << 4 | FRAME_CLASS_ADMISSION);
	bw_u8(w, kind);
	bw_u24(w, 0);
}

/* ADMISSION_OK: a packet of admission whose kind is *ret_kind. */
static enum admission_verdict read_prefix(struct bytes_reader *r, uint8_t *ret_kind)
{
	uint8_t first = br_u8(r), kind = br_u8(r);
	uint32_t hostno = br_u24(r);

	if (r->bad)
		return ADMISSION_SHORT;
	if (first != (FRAME_VERSION << 4 | FRAME_CLASS_ADMISSION))
		return ADMISSION_VERSION;
	if (hostno != 0)
		return ADMISSION_KIND;
	*ret_kind = kind;
	return ADMISSION_OK;
}

static void join_key(const uint8_t *secret, const uint8_t *joiner_ephemeral, uint8_t ret_key[32])
{
	struct transcript t;

	transcript_begin(&t, "trestle join 1");
	bw_bytes(&t.w, joiner_ephemeral, 32);
	transcript_key(&t, secret, ret_key);
}

static void refused_key(const uint8_t *secret, const uint8_t *joiner_ephemeral, uint8_t ret_key[32])
{
	struct transcript t;

	transcript_begin(&t, "trestle refused 1");
	bw_bytes(&t.w, joiner_ephemeral, 32);
	transcript_key(&t, secret, ret_key);
}

/* False: the other side's ephemeral key is one of the few that give everyone the same shared secret. */
static bool welcome_key(const uint8_t *secret, const uint8_t *own_secret, const uint8_t *other, const uint8_t *joiner_ephemeral,
	const uint8_t *sponsor_ephemeral, uint8_t ret_key[32])
{
	uint8_t shared[32];
	struct transcript t;

	if (crypto_scalarmult(shared, own_secret, other) != 0)
		return false;
	transcript_begin(&t, "trestle welcome 1");
	bw_bytes(&t.w, shared, sizeof(shared));
	bw_bytes(&t.w, joiner_ephemeral, 32);
	bw_bytes(&t.w, sponsor_ephemeral, 32);
	transcript_key(&t, secret, ret_key);
	sodium_memzero(shared, sizeof(shared));
	return true;
}

static void join_transcript(const uint8_t *header, const uint8_t *plain, size_t signed_len, struct transcript *ret_transcript)
{
	transcript_begin(ret_transcript, "trestle join 1");
	bw_bytes(&ret_transcript->w, header, JOIN_HEADER_SIZE);
	bw_bytes(&ret_transcript->w, plain, signed_len);
}

/* `header`: of the WELCOME, of which what is behind the prefix counts. */
static void welcome_transcript(const struct join_header *join, const uint8_t *header, const struct id128 *joiner_id,
	const uint8_t *plain, size_t signed_len, struct transcript *ret_transcript)
{
	struct bytes_writer *w = &ret_transcript->w;

	transcript_begin(ret_transcript, "trestle welcome 1");
	bw_id(w, &join->cluster_id);
	bw_id(w, &join->token_id);
	bw_bytes(w, join->ephemeral, sizeof(join->ephemeral));
	bw_bytes(w, header + PREFIX_SIZE, WELCOME_HEADER_SIZE - PREFIX_SIZE);
	bw_id(w, joiner_id);
	bw_bytes(w, plain, signed_len);
}

/* Additional data of WELCOME and REFUSED: the header in clear, and which token of which cluster this is about. */
static size_t reply_aad(
	const uint8_t *header, size_t header_len, const struct join_header *join, uint8_t ret_aad[WELCOME_HEADER_SIZE + 32])
{
	struct bytes_writer w;

	bw_init(&w, ret_aad, WELCOME_HEADER_SIZE + 32);
	bw_bytes(&w, header, header_len);
	bw_id(&w, &join->cluster_id);
	bw_id(&w, &join->token_id);
	return w.len;
}

/* ---- the sponsor ---- */

struct join_body {
	uint8_t public_key[IDENTITY_PUBLIC_SIZE];
	char name[GOSSIP_NAME_MAX + 1];
	struct gossip_addr addr;
	struct ip vtep;
};

static void read_join_header(struct bytes_reader *r, struct join_header *ret_join)
{
	br_id(r, &ret_join->cluster_id);
	br_id(r, &ret_join->token_id);
	ret_join->expires_s = (int64_t)br_u64(r);
	read_array(r, ret_join->ephemeral, sizeof(ret_join->ephemeral));
	ret_join->boot = br_u64(r);
}

/* What can be said without knowing who asks: silence for everything it refuses. */
static enum admission_verdict open_join(const struct admission_sponsor *sponsor, const uint8_t *packet, size_t len,
	struct join_header *ret_join, uint8_t ret_secret[TOKEN_SECRET_SIZE], uint8_t ret_plain[JOIN_PLAIN_SIZE])
{
	enum admission_verdict verdict;
	uint8_t key[32], kind;
	struct bytes_reader r;
	int opened;

	br_init(&r, packet, len);
	verdict = read_prefix(&r, &kind);
	if (verdict != ADMISSION_OK)
		return verdict;
	if (kind != KIND_JOIN)
		return ADMISSION_KIND;
	if (len != ADMISSION_JOIN_SIZE)
		return ADMISSION_SHORT;
	read_join_header(&r, ret_join);
	if (!id_equal(&ret_join->cluster_id, &sponsor->cluster_id))
		return ADMISSION_CLUSTER;
	token_secret(sponsor->cluster_key, &ret_join->token_id, ret_join->expires_s, ret_secret);
	join_key(ret_secret, ret_join->ephemeral, key);
	opened = crypto_aead_xchacha20poly1305_ietf_decrypt(ret_plain, NULL, NULL, packet + JOIN_HEADER_SIZE,
		len - JOIN_HEADER_SIZE, packet, JOIN_HEADER_SIZE, zero_nonce, key);
	sodium_memzero(key, sizeof(key));
	return opened == 0 ? ADMISSION_OK : ADMISSION_TOKEN;
}

static enum admission_verdict read_join_body(
	const uint8_t *header, const uint8_t plain[JOIN_PLAIN_SIZE], struct join_body *ret_body)
{
	struct join_body body = {0};
	const uint8_t *signature;
	struct transcript t;
	struct bytes_reader r;
	size_t signed_len;

	br_init(&r, plain, JOIN_PLAIN_SIZE);
	read_array(&r, body.public_key, sizeof(body.public_key));
	br_word(&r, body.name, sizeof(body.name));
	read_addr(&r, &body.addr);
	br_ip(&r, &body.vtep);
	signed_len = JOIN_PLAIN_SIZE - br_left(&r);
	signature = br_bytes(&r, ADMISSION_SIGNATURE_SIZE);
	if (!signature)
		return ADMISSION_CONTENT;
	join_transcript(header, plain, signed_len, &t);
	if (!transcript_verify(&t, body.public_key, signature))
		return ADMISSION_SIGNATURE;
	if (body.name[0] == '\0' || !sodium_is_zero(r.at, br_left(&r)))
		return ADMISSION_CONTENT;
	*ret_body = body;
	return ADMISSION_OK;
}

/* A joiner behind an address that it does not know of itself is reached where its packet came from. */
static void fill_addresses(struct join_body *body, const struct gossip_addr *from)
{
	if (!ip_is_set(&body->addr.ip))
		body->addr.ip = from->ip;
	if (body->addr.port == 0)
		body->addr.port = from->port;
	if (!ip_is_set(&body->vtep))
		body->vtep = body->addr.ip;
}

/* As many as fit; the count goes in front. */
static void write_members(struct bytes_writer *w, const struct admission_sponsor *sponsor, size_t room)
{
	size_t count_at = w->len, before;
	unsigned i, max = sponsor->member_count;
	uint8_t val[MEMBER_SAVE_MAX];
	struct bytes_writer one;

	if (max > ADMISSION_WELCOME_MEMBERS_MAX)
		max = ADMISSION_WELCOME_MEMBERS_MAX;
	before = w->len;
	bw_u8(w, 0);
	for (i = 0; i < max; i++) {
		bw_init(&one, val, sizeof(val));
		write_member(&one, &sponsor->members[i]);
		if (w->len - before + one.len > room)
			break;
		bw_bytes(w, val, one.len);
	}
	w->buf[count_at] = (uint8_t)i;
}

/* The first key of a cluster has nothing to be said about; a later one comes with what its maker signed. */
static void write_cluster_key(struct bytes_writer *w, const struct admission_sponsor *sponsor)
{
	const struct keyring_key *key = sponsor->hand_out;

	bw_bytes(w, key ? key->secret : sponsor->cluster_key, CLUSTER_KEY_SIZE);
	bw_u8(w, key ? keyring_wire_id(key) : FRAME_KEY_ID_FIRST);
	if (!key || key->generation == KEYRING_GENERATION_FIRST)
		return;
	bw_u32(w, key->generation);
	bw_u64(w, key->created_s);
	bw_id(w, &key->rotator);
	bw_bytes(w, key->signature, sizeof(key->signature));
}

static size_t welcome_plain(const struct admission_sponsor *sponsor, const struct join_header *join, const uint8_t *header,
	const struct admission *admission, uint8_t ret_plain[WELCOME_PLAIN_MAX])
{
	uint8_t signature[ADMISSION_SIGNATURE_SIZE];
	struct bytes_writer w;
	struct transcript t;

	bw_init(&w, ret_plain, WELCOME_PLAIN_MAX);
	write_cluster_key(&w, sponsor);
	bw_u24(&w, admission->hostno);
	write_ends(&w, &admission->addr, &admission->vtep);
	bw_bytes(&w, admission->signature, sizeof(admission->signature));
	bw_u8(&w, !sponsor->vouches || sponsor->vouches(sponsor->ctx, admission));
	write_members(&w, sponsor, WELCOME_PLAIN_MAX - w.len - sizeof(signature));
	welcome_transcript(join, header, &admission->host_id, ret_plain, w.len, &t);
	transcript_sign(&t, sponsor->identity, signature);
	sodium_memzero(&t, sizeof(t));
	bw_bytes(&w, signature, sizeof(signature));
	return w.len;
}

/* 0: the joiner's ephemeral key is unusable. */
static size_t welcome_encode(const struct admission_sponsor *sponsor, const struct join_header *join, const uint8_t *secret,
	const struct admission *admission, uint8_t ret_packet[GOSSIP_PACKET_MAX])
{
	uint8_t ephemeral_secret[32], ephemeral[32], key[32], plain[WELCOME_PLAIN_MAX], aad[WELCOME_HEADER_SIZE + 32];
	struct bytes_writer w;
	size_t len = 0, aad_len;

	sponsor->random(sponsor->ctx, ephemeral_secret, sizeof(ephemeral_secret));
	crypto_scalarmult_base(ephemeral, ephemeral_secret);
	if (welcome_key(secret, ephemeral_secret, join->ephemeral, join->ephemeral, ephemeral, key)) {
		bw_init(&w, ret_packet, GOSSIP_PACKET_MAX);
		write_prefix(&w, KIND_WELCOME);
		bw_bytes(&w, ephemeral, sizeof(ephemeral));
		bw_u64(&w, sponsor->boot);
		aad_len = reply_aad(ret_packet, w.len, join, aad);
		len = welcome_plain(sponsor, join, ret_packet, admission, plain);
		crypto_aead_xchacha20poly1305_ietf_encrypt(
			ret_packet + w.len, NULL, plain, len, aad, aad_len, NULL, zero_nonce, key);
		len += w.len + FRAME_TAG_SIZE;
	}
	sodium_memzero(ephemeral_secret, sizeof(ephemeral_secret));
	sodium_memzero(key, sizeof(key));
	sodium_memzero(plain, sizeof(plain));
	return len;
}

static size_t refused_encode(const struct admission_sponsor *sponsor, const struct join_header *join, const uint8_t *secret,
	enum admission_verdict reason, uint8_t ret_packet[GOSSIP_PACKET_MAX])
{
	uint8_t key[32], nonce[24], aad[WELCOME_HEADER_SIZE + 32], plain = (uint8_t)reason;
	struct bytes_writer w;
	size_t aad_len;

	sponsor->random(sponsor->ctx, nonce, sizeof(nonce));
	bw_init(&w, ret_packet, GOSSIP_PACKET_MAX);
	write_prefix(&w, KIND_REFUSED);
	aad_len = reply_aad(ret_packet, w.len, join, aad);
	bw_bytes(&w, nonce, sizeof(nonce));
	refused_key(secret, join->ephemeral, key);
	crypto_aead_xchacha20poly1305_ietf_encrypt(ret_packet + w.len, NULL, &plain, 1, aad, aad_len, NULL, nonce, key);
	sodium_memzero(key, sizeof(key));
	return REFUSED_SIZE;
}

static void fill_result(const struct admission_sponsor *sponsor, const struct join_header *join, const struct join_body *body,
	uint32_t hostno, struct admission_result *result)
{
	struct admission *admission = &result->admission;
	struct member_save *member = &result->member;

	admission->hostno = member->hostno = hostno;
	admission->host_id = member->host_id = identity_id_of(body->public_key);
	memcpy(admission->public_key, body->public_key, sizeof(admission->public_key));
	memcpy(member->public_key, body->public_key, sizeof(member->public_key));
	memcpy(admission->name, body->name, sizeof(admission->name));
	memcpy(member->name, body->name, sizeof(member->name));
	admission->addr = member->addr = body->addr;
	admission->vtep = member->vtep = body->vtep;
	admission->boot = join->boot;
	admission_sign(admission, &sponsor->cluster_id, sponsor->identity, sponsor->hostno);
}

/* The sponsor can reach it, and their vxlan devices each other: a device's socket is of one family. */
static bool same_families(const struct admission_sponsor *sponsor, const struct join_body *body)
{
	const struct member_save *own = &sponsor->members[0];

	return body->addr.ip.family == own->addr.ip.family && body->vtep.family == own->vtep.family;
}

/* The token is genuine: from here on the joiner gets an answer. */
static enum admission_verdict decide(const struct admission_sponsor *sponsor, const struct gossip_addr *from,
	const struct join_header *join, const uint8_t *header, const uint8_t *plain, const uint8_t *secret,
	struct admission_result *result)
{
	enum admission_verdict verdict;
	struct join_body body;
	struct id128 host_id;
	uint32_t hostno;

	if (join->expires_s != 0 && sponsor->now_s > join->expires_s)
		return ADMISSION_EXPIRED;
	verdict = read_join_body(header, plain, &body);
	if (verdict != ADMISSION_OK)
		return verdict;
	fill_addresses(&body, from);
	if (!same_families(sponsor, &body))
		return ADMISSION_FAMILY;
	host_id = identity_id_of(body.public_key);
	hostno = sponsor->admit(sponsor->ctx, &host_id);
	if (hostno == ADMISSION_HOSTNO_FORGOTTEN)
		return ADMISSION_FORGOTTEN;
	if (!hostno_is_valid(hostno))
		return ADMISSION_BUSY;
	fill_result(sponsor, join, &body, hostno, result);
	result->reply_len = welcome_encode(sponsor, join, secret, &result->admission, result->reply);
	return result->reply_len ? ADMISSION_OK : ADMISSION_CONTENT;
}

enum admission_verdict admission_handle(const struct admission_sponsor *sponsor, const struct gossip_addr *from,
	const void *packet, size_t len, struct admission_result *ret_result)
{
	uint8_t secret[TOKEN_SECRET_SIZE] = {0}, plain[JOIN_PLAIN_SIZE];
	enum admission_verdict verdict;
	struct join_header join;

	memset(ret_result, 0, sizeof(*ret_result));
	verdict = open_join(sponsor, packet, len, &join, secret, plain);
	if (verdict == ADMISSION_OK) {
		verdict = decide(sponsor, from, &join, packet, plain, secret, ret_result);
		if (verdict != ADMISSION_OK)
			ret_result->reply_len = refused_encode(sponsor, &join, secret, verdict, ret_result->reply);
	}
	sodium_memzero(secret, sizeof(secret));
	return verdict;
}

bool admission_peek(
	const struct id128 *cluster_id, const uint8_t *cluster_key, const void *packet, size_t len, struct id128 *ret_host_id)
{
	const struct admission_sponsor sponsor = {.cluster_id = *cluster_id, .cluster_key = cluster_key};
	uint8_t secret[TOKEN_SECRET_SIZE] = {0}, plain[JOIN_PLAIN_SIZE];
	struct join_header join;
	bool ours = open_join(&sponsor, packet, len, &join, secret, plain) == ADMISSION_OK;

	sodium_memzero(secret, sizeof(secret));
	if (ours)
		*ret_host_id = identity_id_of(plain);
	return ours;
}

/* ---- the joiner ---- */

static void request_header(const struct admission_request *request, struct join_header *ret_join)
{
	ret_join->cluster_id = request->token->cluster_id;
	ret_join->token_id = request->token->token_id;
	ret_join->expires_s = request->token->expires_s;
	ret_join->boot = request->boot;
	crypto_scalarmult_base(ret_join->ephemeral, request->ephemeral_secret);
}

static void join_plain(const struct admission_request *request, const uint8_t *header, uint8_t ret_plain[JOIN_PLAIN_SIZE])
{
	uint8_t signature[ADMISSION_SIGNATURE_SIZE];
	struct bytes_writer w;
	struct transcript t;

	memset(ret_plain, 0, JOIN_PLAIN_SIZE);
	bw_init(&w, ret_plain, JOIN_PLAIN_SIZE);
	bw_bytes(&w, request->identity->public_key, IDENTITY_PUBLIC_SIZE);
	bw_text(&w, request->name);
	write_addr(&w, &request->addr);
	bw_ip(&w, &request->vtep);
	join_transcript(header, ret_plain, w.len, &t);
	transcript_sign(&t, request->identity, signature);
	bw_bytes(&w, signature, sizeof(signature));
}

void admission_join_encode(const struct admission_request *request, uint8_t ret_packet[ADMISSION_JOIN_SIZE])
{
	uint8_t key[32], plain[JOIN_PLAIN_SIZE];
	struct join_header join;
	struct bytes_writer w;

	request_header(request, &join);
	bw_init(&w, ret_packet, ADMISSION_JOIN_SIZE);
	write_prefix(&w, KIND_JOIN);
	bw_id(&w, &join.cluster_id);
	bw_id(&w, &join.token_id);
	bw_u64(&w, (uint64_t)join.expires_s);
	bw_bytes(&w, join.ephemeral, sizeof(join.ephemeral));
	bw_u64(&w, join.boot);
	join_plain(request, ret_packet, plain);
	join_key(request->token->secret, join.ephemeral, key);
	crypto_aead_xchacha20poly1305_ietf_encrypt(
		ret_packet + w.len, NULL, plain, sizeof(plain), ret_packet, w.len, NULL, zero_nonce, key);
	sodium_memzero(key, sizeof(key));
}

static enum admission_verdict refused_open(
	const struct admission_request *request, const struct join_header *join, const uint8_t *packet, size_t len)
{
	uint8_t key[32], aad[WELCOME_HEADER_SIZE + 32], reason;
	size_t aad_len;
	int opened;

	if (len != REFUSED_SIZE)
		return ADMISSION_SHORT;
	aad_len = reply_aad(packet, PREFIX_SIZE, join, aad);
	refused_key(request->token->secret, join->ephemeral, key);
	opened = crypto_aead_xchacha20poly1305_ietf_decrypt(
		&reason, NULL, NULL, packet + PREFIX_SIZE + 24, len - PREFIX_SIZE - 24, aad, aad_len, packet + PREFIX_SIZE, key);
	sodium_memzero(key, sizeof(key));
	if (opened != 0)
		return ADMISSION_TOKEN;
	/* A reason of a newer sponsor is a refusal all the same. */
	return reason < ADMISSION_EXPIRED || reason >= ADMISSION_VERDICT_MAX ? ADMISSION_CONTENT : reason;
}

static bool read_cluster_key(struct bytes_reader *r, struct keyring_key *key)
{
	uint8_t id;

	read_array(r, key->secret, sizeof(key->secret));
	id = br_u8(r);
	key->generation = KEYRING_GENERATION_FIRST;
	if (id != FRAME_KEY_ID_FIRST) {
		key->generation = br_u32(r);
		key->created_s = br_u64(r);
		br_id(r, &key->rotator);
		read_array(r, key->signature, sizeof(key->signature));
	}
	return !r->bad && key->generation != 0 && key->generation != UINT32_MAX && keyring_wire_id(key) == id;
}

static bool read_welcome(struct bytes_reader *r, struct admission_welcome *welcome)
{
	unsigned i;

	if (!read_cluster_key(r, &welcome->key))
		return false;
	welcome->admission.hostno = br_u24(r);
	read_ends(r, &welcome->admission.addr, &welcome->admission.vtep);
	read_array(r, welcome->admission.signature, sizeof(welcome->admission.signature));
	welcome->vouched = br_u8(r);
	welcome->member_count = br_u8(r);
	if (welcome->member_count == 0 || welcome->member_count > ADMISSION_WELCOME_MEMBERS_MAX)
		return false;
	for (i = 0; i < welcome->member_count; i++)
		if (br_u8(r) != SAVED_VERSION || !read_member(r, &welcome->members[i]))
			return false;
	return !r->bad && hostno_is_valid(welcome->admission.hostno);
}

static enum admission_verdict check_welcome(const struct admission_request *request, const struct join_header *join,
	const uint8_t *header, const uint8_t *plain, size_t len, struct admission_welcome *ret_welcome)
{
	struct admission_welcome welcome = {0};
	struct admission *admission = &welcome.admission;
	const uint8_t *signature;
	struct bytes_reader r;
	struct transcript t;
	bool genuine;

	br_init(&r, header + PREFIX_SIZE + 32, 8);
	welcome.sponsor_boot = br_u64(&r);
	br_init(&r, plain, len);
	if (!read_welcome(&r, &welcome) || br_left(&r) != ADMISSION_SIGNATURE_SIZE)
		return ADMISSION_KIND;
	signature = br_bytes(&r, ADMISSION_SIGNATURE_SIZE);
	welcome_transcript(join, header, &request->identity->id, plain, len - ADMISSION_SIGNATURE_SIZE, &t);
	genuine = transcript_verify(&t, welcome.members[0].public_key, signature);
	sodium_memzero(&t, sizeof(t));
	admission->host_id = request->identity->id;
	memcpy(admission->public_key, request->identity->public_key, sizeof(admission->public_key));
	memcpy(admission->name, request->name, sizeof(admission->name));
	admission->boot = request->boot;
	admission->sponsor_hostno = welcome.members[0].hostno;
	genuine = genuine && admission_verify(admission, &join->cluster_id, welcome.members[0].public_key, NULL) == 0;
	if (genuine)
		*ret_welcome = welcome;
	sodium_memzero(&welcome.key, sizeof(welcome.key));
	return genuine ? ADMISSION_OK : ADMISSION_TOKEN;
}

static enum admission_verdict welcome_open(const struct admission_request *request, const struct join_header *join,
	const uint8_t *packet, size_t len, struct admission_welcome *ret_welcome)
{
	const uint8_t *ephemeral = packet + PREFIX_SIZE;
	uint8_t key[32], plain[WELCOME_PLAIN_MAX], aad[WELCOME_HEADER_SIZE + 32];
	enum admission_verdict verdict = ADMISSION_TOKEN;
	size_t aad_len;

	if (len < WELCOME_HEADER_SIZE + FRAME_TAG_SIZE || len > ADMISSION_JOIN_SIZE)
		return ADMISSION_SHORT;
	if (!welcome_key(request->token->secret, request->ephemeral_secret, ephemeral, join->ephemeral, ephemeral, key))
		return ADMISSION_TOKEN;
	aad_len = reply_aad(packet, WELCOME_HEADER_SIZE, join, aad);
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(plain, NULL, NULL, packet + WELCOME_HEADER_SIZE, len - WELCOME_HEADER_SIZE,
		    aad, aad_len, zero_nonce, key) == 0)
		verdict = check_welcome(request, join, packet, plain, len - WELCOME_HEADER_SIZE - FRAME_TAG_SIZE, ret_welcome);
	sodium_memzero(key, sizeof(key));
	sodium_memzero(plain, sizeof(plain));
	return verdict;
}

enum admission_verdict admission_reply_open(
	const struct admission_request *request, const void *packet, size_t len, struct admission_welcome *ret_welcome)
{
	enum admission_verdict verdict;
	struct join_header join;
	struct bytes_reader r;
	uint8_t kind;

	br_init(&r, packet, len);
	verdict = read_prefix(&r, &kind);
	if (verdict != ADMISSION_OK)
		return verdict;
	if (kind != KIND_WELCOME && kind != KIND_REFUSED)
		return ADMISSION_KIND;
	request_header(request, &join);
	if (kind == KIND_REFUSED)
		return refused_open(request, &join, packet, len);
	return welcome_open(request, &join, packet, len, ret_welcome);
}

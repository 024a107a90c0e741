/* Who may be a member: admissions, host records, and the sponsor's side of joining.
 *
 * A member is known from what we saved or from an admission: a record of topic 0 in its sponsor's shard, signed by the sponsor,
 * verified once when it arrives, alone or with others (members_signed.c). What it says of itself (name, addresses, boot tag) is
 * in its admission, and once that is not so any more in its host record, in its own shard of topic 0. Each host publishes the
 * admissions that it signed and its own, so that they outlive a sponsor; a newcomer does so only when its sponsor's shard has it
 * not (any more), and from its second start on. Nobody is forgotten when such a record goes.
 *
 * Two sponsors that do not reach each other may admit one host, each under a number of its own: the answer of the first was lost.
 * The host took one of the answers, on disk before its first word, and never uses the other number. So the one that it uses is
 * its number everywhere, whatever was heard first: a claim about a member tells, with an epoch that only the host itself can have
 * begun. Until then each host keeps the number that it heard first, and the other is a *spare*. The one that is not used is void
 * for good: the application is told of it as of a host that left, which keeps it from being given again with the estate of the
 * sponsor that gave it.
 *
 * A number for a newcomer takes the application a moment, to find one and to save it. The request waits for it here, instead of
 * being refused and sent again. */
#include "gossip/core_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOST_RECORD_VERSION 1
#define JOINER_AT 45 /* of a JOIN: docs/wire.md */

/* ---- host records ---- */

void core_publish_self(struct gossip *g)
{
	uint8_t val[16 + 1 + 17 + 2 + 17 + 1 + GOSSIP_NAME_MAX + 8];
	struct bytes_writer w;

	bw_init(&w, val, sizeof(val));
	bw_u8(&w, HOST_RECORD_VERSION);
	bw_id(&w, &g->self->frame.host_id);
	bw_ip(&w, &g->self->addr.ip);
	bw_u16(&w, g->self->addr.port);
	bw_ip(&w, &g->self->vtep);
	bw_text(&w, g->self->name);
	bw_u64(&w, g->sender.boot);
	core_put(g, 0, HOST_RECORD_KEY, 1, val, w.len);
}

/* What is behind it is an extension of a newer host. */
void admit_host_record(struct gossip *g, uint32_t origin, uint32_t epoch, const uint8_t *val, size_t len)
{
	struct member *m = members_find(g, origin);
	struct bytes_reader r;
	struct id128 host_id;
	struct gossip_addr addr = {0};
	struct ip vtep;
	char name[GOSSIP_NAME_MAX + 1];
	uint64_t boot;

	if (!m || m == g->self)
		return;
	br_init(&r, val, len);
	if (br_u8(&r) != HOST_RECORD_VERSION)
		return; /* a newer host: what we know from its admission has to do */
	br_id(&r, &host_id);
	br_ip(&r, &addr.ip);
	addr.port = br_u16(&r);
	br_ip(&r, &vtep);
	br_word(&r, name, sizeof(name));
	boot = br_u64(&r);
	if (r.bad || !id_equal(&host_id, &m->frame.host_id)) {
		g->counters.refused_decode++;
		return;
	}
	members_describe(g, m, name, &addr, &vtep);
	introduce_boot(g, m, epoch, boot);
}

/* ---- admissions ---- */

/* It is known under its number now. */
static void met(struct gossip *g, struct member *m)
{
	struct shard *shard;
	const struct record *r;
	struct gossip_member shown;

	g->members_grew = true;
	members_save(g, m);
	members_show(g, m, &shown);
	g->ops.member(g->ctx, &shown, GOSSIP_LEFT);
	shard = shards_find(&g->shards, m->hostno, 0);
	r = shard ? shards_record(shard, &g->shards, HOST_RECORD_KEY, 1) : NULL;
	if (r)
		admit_host_record(g, m->hostno, shard->epoch, record_val(r), r->val_len);
	r = shard ? shards_record(shard, &g->shards, KEYS_RECORD_KEY, 1) : NULL;
	if (r)
		keys_record(g, m->hostno, record_val(r), r->val_len);
	sooner(&g->unheard_ms, g->now + STRANGER_MS);
}

static struct member *new_member(struct gossip *g, const struct member_save *save)
{
	struct member *m = members_add(g, save);

	if (m)
		met(g, m);
	return m;
}

/* ---- a second number ---- */

static void member_to_save(const struct member *m, struct member_save *ret_save)
{
	*ret_save = (struct member_save){
		.hostno = m->hostno, .host_id = m->frame.host_id, .epoch = m->epoch, .addr = m->addr, .vtep = m->vtep};
	memcpy(ret_save->public_key, m->public_key, sizeof(m->public_key));
	snprintf(ret_save->name, sizeof(ret_save->name), "%s", m->name);
}

static bool in_use(const struct gossip *g, const struct member *m)
{
	return m == g->self || m->epoch > 0 || m->heard_ms != 0;
}

static void make_void(struct gossip *g, struct spare_number *s, const struct member *m)
{
	struct gossip_member shown;

	if (s->is_void)
		return;
	s->is_void = true;
	members_show(g, m, &shown);
	shown.hostno = s->save.hostno;
	shown.state = GOSSIP_LEFT;
	shown.self = false;
	g->ops.member(g->ctx, &shown, GOSSIP_LEFT);
}

void admit_in_use(struct gossip *g, const struct member *m)
{
	for (struct spare_number *s = g->spares; s; s = s->next)
		if (s->save.hostno != m->hostno && id_equal(&s->save.host_id, &m->frame.host_id))
			make_void(g, s, m);
}

unsigned gossip_other_numbers(const struct gossip *g, const struct id128 *host_id, uint32_t *ret_numbers, unsigned max)
{
	unsigned count = 0;

	for (const struct spare_number *s = g->spares; s; s = s->next) {
		if (s->is_void || !id_equal(&s->save.host_id, host_id))
			continue;
		if (count < max)
			ret_numbers[count] = s->save.hostno;
		count++;
	}
	return count;
}

static struct spare_number *find_spare(const struct gossip *g, uint32_t hostno)
{
	struct spare_number *s = g->spares;

	while (s && s->save.hostno != hostno)
		s = s->next;
	return s;
}

static void note_number(struct gossip *g, const struct member_save *save, uint64_t boot)
{
	struct spare_number *s = find_spare(g, save->hostno) ? NULL : calloc(1, sizeof(*s));

	if (!s)
		return;
	*s = (struct spare_number){.next = g->spares, .save = *save, .boot = boot};
	g->spares = s;
}

/* The application hears of the new number before it hears that the other is void: there is no moment at which it counts one host
 * too few. */
static void use_number(struct gossip *g, struct member *m, const struct spare_number *spare)
{
	struct member_save before;

	member_to_save(m, &before);
	if (!members_renumber(g, m, &spare->save))
		return;
	note_number(g, &before, 0);
	met(g, m);
	introduce_admitted(g, m, spare->boot);
	admit_in_use(g, m);
	g->admissions_open = true; /* one that the number had stood in the way of */
}

struct member *admit_claimed(struct gossip *g, uint32_t hostno)
{
	const struct spare_number *s = find_spare(g, hostno);
	struct member *m = s && !s->is_void ? members_by_id(g, &s->save.host_id) : NULL;

	if (!m || m->forgotten)
		return NULL;
	if (in_use(g, m)) { /* two hosts with one identity, admitted twice */
		g->conflicts++;
		return NULL;
	}
	use_number(g, m, s);
	return members_find(g, hostno);
}

static void second_number(struct gossip *g, const struct member *m, const struct member_save *save, uint64_t boot)
{
	if (members_find(g, save->hostno)) {
		g->conflicts++;
		return;
	}
	note_number(g, save, boot);
	if (in_use(g, m))
		admit_in_use(g, m);
}

void admit_free(struct gossip *g)
{
	struct spare_number *s;

	while ((s = g->spares)) {
		g->spares = s->next;
		free(s);
	}
}

const uint8_t *core_public_key(const struct gossip *g, const struct id128 *host_id)
{
	const struct member *m = members_by_id(g, host_id);

	return m ? m->public_key : forget_public_key(g, host_id);
}

/* By the sponsor that a number names: who has it, or had it and was forgotten. */
static bool is_genuine(struct gossip *g, const struct admission *a, const struct member *sponsor)
{
	const uint8_t *forgotten;

	if (signed_by(g, sponsor))
		return true;
	if (sponsor && admission_verify(a, &g->config.cluster_id, sponsor->public_key, NULL) == 0)
		return true;
	forgotten = forget_sponsor_key(g, a->sponsor_hostno);
	if (forgotten && admission_verify(a, &g->config.cluster_id, forgotten, NULL) == 0)
		return true;
	return a->sponsor_hostno == a->hostno && admission_verify(a, &g->config.cluster_id, a->public_key, NULL) == 0;
}

/* Returns false when the sponsor is not known yet. */
bool admit_record(struct gossip *g, const uint8_t *key, size_t key_len, const uint8_t *val, size_t len)
{
	struct admission a;
	const struct member *sponsor;
	struct member_save save = {0};
	struct member *known;
	bool is_void;

	if (admission_decode(key, key_len, val, len, &a, NULL) < 0) {
		g->counters.refused_decode++;
		return true;
	}
	known = members_by_id(g, &a.host_id);
	is_void = forget_is(g, &a.host_id);
	if (is_void && core_public_key(g, &a.host_id))
		return true; /* for ever, but not what it signed */
	if (known && known->hostno == a.hostno) {
		if (known != g->self)
			introduce_admitted(g, known, a.boot);
		return true;
	}
	if (!known && !is_void && members_find(g, a.hostno)) {
		g->conflicts++;
		return true;
	}
	sponsor = members_find(g, a.sponsor_hostno);
	if (!sponsor && a.sponsor_hostno != a.hostno && !forget_sponsor_key(g, a.sponsor_hostno))
		return false;
	if (!is_genuine(g, &a, sponsor)) {
		g->counters.refused_join++;
		return true;
	}
	if (is_void) {
		forget_note(g, &a);
		return true;
	}
	save.hostno = a.hostno;
	save.host_id = a.host_id;
	save.addr = a.addr;
	save.vtep = a.vtep;
	memcpy(save.public_key, a.public_key, sizeof(save.public_key));
	memcpy(save.name, a.name, sizeof(save.name));
	if (known) {
		second_number(g, known, &save, a.boot);
		return true;
	}
	known = new_member(g, &save);
	if (known)
		introduce_admitted(g, known, a.boot);
	return true;
}

/* A sponsor's own admission may arrive behind those that it signed. */
void admit_rescan(struct gossip *g)
{
	struct shard *shard, *next;

	g->admissions_open = false;
	SHARDS_EACH(&g->shards, shard, next)
	{
		if (shard->id.topic != 0)
			continue;
		for (const struct record *r = shard->live.first; r; r = r->next)
			if (!r->deleted && r->key_len == SAVED_KEY_SIZE && r->bytes[0] == 'a' &&
				!admit_record(g, r->bytes, r->key_len, record_val(r), r->val_len))
				g->admissions_open = true;
	}
}

static uint32_t admit(void *ctx, const struct id128 *host_id)
{
	struct gossip *g = ctx;
	const struct member *known = members_by_id(g, host_id);
	uint32_t hostno;

	if (forget_is(g, host_id))
		return ADMISSION_HOSTNO_FORGOTTEN;
	if (known)
		return known == g->self ? 0 : known->hostno;
	hostno = g->ops.admit ? g->ops.admit(g->ctx, host_id) : 0;
	return members_find(g, hostno) ? 0 : hostno;
}

/* What a host says that asks a second time, as another process, is not what the others were told. */
static bool vouches(void *ctx, const struct admission *a)
{
	const struct gossip *g = ctx;
	const struct member *known = members_by_id(g, &a->host_id);

	return !known || (known->vouched && known->admitted_boot == a->boot && known->addr.port == a->addr.port &&
				 ip_equal(&known->addr.ip, &a->addr.ip) && ip_equal(&known->vtep, &a->vtep) &&
				 strcmp(known->name, a->name) == 0);
}

static void sponsor_random(void *ctx, void *buf, size_t len)
{
	struct gossip *g = ctx;

	g->ops.random(g->ctx, buf, len);
}

/* Ourselves first, then a random sample of who is alive. */
static unsigned introduce(struct gossip *g, struct member_save saves[ADMISSION_WELCOME_MEMBERS_MAX])
{
	unsigned count = 1, start = core_random(g, g->member_count);

	member_to_save(g->self, &saves[0]);
	for (unsigned i = 0; i < g->member_count && count < ADMISSION_WELCOME_MEMBERS_MAX; i++) {
		const struct member *m = g->slots[(start + i) % g->member_count];

		if (m != g->self && m->state == GOSSIP_ALIVE && ip_is_set(&m->addr.ip))
			member_to_save(m, &saves[count++]);
	}
	return count;
}

/* The number was on disk before; the admission is there before the joiner hears of it (answer_join), or nobody might know it when
 * we lost power in between. */
static void welcome(struct gossip *g, const struct admission_result *result)
{
	uint8_t key[SAVED_KEY_SIZE], val[ADMISSION_MAX];
	size_t len = admission_encode(&result->admission, key, val);
	struct member *m;

	g->ops.save(g->ctx, key, sizeof(key), val, len, true);
	push_gather(g, PUSH_GATHER_MS);
	core_put(g, 0, key, sizeof(key), val, len);
	m = new_member(g, &result->member);
	if (!m)
		return;
	/* It never ran in this cluster: what comes with this boot tag is no repeated packet. */
	m->vouched = true;
	m->admitted_boot = result->admission.boot;
	m->boot_epoch = EPOCH_FIRST;
	frame_peer_set_boot(&m->frame, result->admission.boot);
}

/* Some microseconds: the token is right, and this is the host that asks. */
static bool whose(const struct gossip *g, const uint8_t *packet, size_t len, struct id128 *ret_host_id)
{
	for (unsigned i = g->keys.ring.count; i > 0; i--)
		if (admission_peek(&g->config.cluster_id, g->keys.ring.keys[i - 1].secret, packet, len, ret_host_id))
			return true;
	return false;
}

/* Whether to spend on this request at all. A stranger can repeat what it overheard, and that is of hosts that are known; only who
 * holds a token can make a request of a new one, and each costs us a number. So the two are counted apart, and many that come at
 * once do not wait for each other. What is looked at has not been proven by the host yet: forging it gains nothing but silence.
 */
static bool gate_open(struct gossip *g, const uint8_t *packet, size_t len, struct id128 *ret_host_id, bool *ret_new)
{
	struct admit_gate *gate = &g->gate;

	if (g->now - gate->second_ms >= 1000) {
		gate->second_ms = g->now;
		gate->answers = gate->put_off = gate->admitted = 0;
	}
	if (len < JOINER_AT + sizeof(gate->answered[0].joiner))
		return false;
	for (unsigned i = 0; i < ADMIT_REMEMBERED; i++)
		if (g->now < gate->answered[i].until_ms &&
			memcmp(gate->answered[i].joiner, packet + JOINER_AT, sizeof(gate->answered[0].joiner)) == 0)
			return false;
	if (!whose(g, packet, len, ret_host_id))
		return false;
	*ret_new = !members_by_id(g, ret_host_id) && !forget_is(g, ret_host_id);
	if (!*ret_new)
		return gate->answers < ADMIT_PER_S;
	return gate->admitted < ADMIT_NEW_PER_S && gate->put_off < ADMIT_NEW_PER_S;
}

static void gate_answered(struct gossip *g, const uint8_t *packet, enum admission_verdict verdict, bool is_new)
{
	struct admit_gate *gate = &g->gate;

	if (!is_new)
		gate->answers++;
	else if (verdict == ADMISSION_OK)
		gate->admitted++;
	else
		gate->put_off++;
	memcpy(gate->answered[gate->next].joiner, packet + JOINER_AT, sizeof(gate->answered[0].joiner));
	gate->answered[gate->next].until_ms = g->now + (verdict == ADMISSION_BUSY ? ADMIT_BUSY_MS : ADMIT_AGAIN_MS);
	gate->next = (gate->next + 1) % ADMIT_REMEMBERED;
}

/* A token is made with the key that was active then; the newest is the likely one. */
static enum admission_verdict handle_with_any_key(struct gossip *g, struct admission_sponsor *sponsor,
	const struct gossip_addr *from, const void *packet, size_t len, struct admission_result *ret_result)
{
	enum admission_verdict verdict = ADMISSION_TOKEN;

	for (unsigned i = g->keys.ring.count; i > 0 && verdict == ADMISSION_TOKEN; i--) {
		sponsor->cluster_key = g->keys.ring.keys[i - 1].secret;
		verdict = admission_handle(sponsor, from, packet, len, ret_result);
	}
	return verdict;
}

/* ---- requests that wait for a number ---- */

static struct waiting_join *waiting_of(struct gossip *g, const uint8_t *packet, size_t len)
{
	for (unsigned i = 0; g->joins && i < ADMIT_WAITING; i++)
		if (g->joins[i].until_ms && g->joins[i].len == len && memcmp(g->joins[i].packet, packet, len) == 0)
			return &g->joins[i];
	return NULL;
}

/* False: no room. */
static bool join_waits(
	struct gossip *g, const struct id128 *host_id, const struct gossip_addr *from, const uint8_t *packet, size_t len)
{
	if (len > sizeof(g->joins->packet) || (!g->joins && (g->joins = calloc(ADMIT_WAITING, sizeof(*g->joins))) == NULL))
		return false;
	for (unsigned i = 0; i < ADMIT_WAITING; i++) {
		struct waiting_join *w = &g->joins[i];

		if (w->until_ms)
			continue;
		*w = (struct waiting_join){
			.host_id = *host_id, .from = *from, .until_ms = g->now + ADMIT_WAIT_MS, .len = (uint16_t)len};
		memcpy(w->packet, packet, len);
		sooner(&g->joins_ms, w->until_ms);
		return true;
	}
	return false;
}

static void answer_join(struct gossip *g, const struct id128 *host_id, const struct gossip_addr *from, const uint8_t *packet,
	size_t len, bool is_new, bool may_wait)
{
	struct member_save members[ADMISSION_WELCOME_MEMBERS_MAX];
	struct admission_result result;
	struct admission_sponsor sponsor = {
		.identity = g->config.identity,
		.cluster_id = g->config.cluster_id,
		.hand_out = keyring_active(&g->keys.kept),
		.hostno = g->self->hostno,
		.members = members,
		.member_count = introduce(g, members),
		.now_s = g->ops.wall_s ? g->ops.wall_s(g->ctx) : 0,
		.random = sponsor_random,
		.admit = admit,
		.vouches = vouches,
		.boot = g->sender.boot,
		.ctx = g,
	};
	enum admission_verdict verdict = handle_with_any_key(g, &sponsor, from, packet, len, &result);

	if (verdict == ADMISSION_BUSY && may_wait && join_waits(g, host_id, from, packet, len))
		return;
	if (result.reply_len)
		gate_answered(g, packet, verdict, is_new);
	if (verdict != ADMISSION_OK)
		g->counters.refused_join++;
	else if (!members_by_id(g, &result.member.host_id))
		welcome(g, &result);
	core_transmit_saved(g, from, result.reply, result.reply_len);
}

/* That of this host, and those that waited long enough. */
static void answer_waiting(struct gossip *g, const struct id128 *host_id)
{
	g->joins_ms = NEVER;
	for (unsigned i = 0; g->joins && i < ADMIT_WAITING; i++) {
		struct waiting_join w = g->joins[i];

		if (!w.until_ms)
			continue;
		if (g->now < w.until_ms && !(host_id && id_equal(host_id, &w.host_id))) {
			sooner(&g->joins_ms, w.until_ms);
			continue;
		}
		g->joins[i].until_ms = 0;
		answer_join(g, &w.host_id, &w.from, w.packet, w.len, true, g->now < w.until_ms);
	}
}

/* Whoever asks again while it waits: the application may have failed to find a number, and be asked once more by that. */
static bool ask_again(struct gossip *g, const struct waiting_join *w)
{
	struct id128 host_id;

	if (!w)
		return false;
	host_id = w->host_id;
	if (admit(g, &host_id))
		answer_waiting(g, &host_id);
	return true;
}

void admit_on_join(struct gossip *g, const struct gossip_addr *from, const uint8_t *packet, size_t len)
{
	struct id128 host_id;
	bool is_new;

	if (ask_again(g, waiting_of(g, packet, len)))
		return;
	if (!gate_open(g, packet, len, &host_id, &is_new))
		g->counters.refused_join++;
	else
		answer_join(g, &host_id, from, packet, len, is_new, true);
}

void gossip_admit_again(struct gossip *g, const struct id128 *host_id, uint64_t now_ms)
{
	core_enter(g, now_ms);
	answer_waiting(g, host_id);
	core_leave(g);
}

/* Records of ours up to there; `but` is the host that is not counted. Without a shard: us, since a packet is sealed for a host
 * id.
 */
static bool many_have(const struct gossip *g, const struct shard *shard, uint64_t seq, const struct member *but)
{
	unsigned all = 0, have = 0;

	for (unsigned i = 0; i < g->member_count; i++) {
		const struct member *m = g->slots[i];

		if (m == but || m->state == GOSSIP_LEFT)
			continue;
		all++;
		have += m == g->self || (shard ? push_admissions(shard, m) >= seq : m->heard_ms != 0);
	}
	return all == 0 || 2 * have > all || have >= ADMISSION_ENOUGH;
}

bool gossip_known(const struct gossip *g)
{
	return many_have(g, NULL, 0, g->self);
}

/* A newcomer gets addresses when it has heard of enough others that they know it. In a mesh they acknowledge what it pushes; of a
 * big cluster few have a reason to speak to it, so it asks. */
static void ask_who_knows_us(struct gossip *g)
{
	unsigned asked = 0, start = core_random(g, g->member_count);

	g->known_ms = NEVER;
	if (gossip_known(g))
		return;
	for (unsigned i = 0; i < g->member_count && asked < KNOWN_AT_ONCE && !bulk_lacks_all(g); i++) {
		struct member *m = g->slots[(start + i) % g->member_count];

		if (m->heard_ms != 0 || m->unheard || !member_usable(g, m))
			continue;
		probe_ping(g, m, PING_OTHER);
		asked++;
	}
	g->known_ms = g->now + g->known_gap_ms;
	g->known_gap_ms = g->known_gap_ms < KNOWN_MAX_MS ? 2 * g->known_gap_ms : KNOWN_MAX_MS;
}

bool gossip_admission_spread(const struct gossip *g, uint32_t hostno)
{
	const struct member *admitted = members_find(g, hostno);
	const struct shard *shard = shards_find(&g->shards, g->self->hostno, 0);
	uint8_t key[SAVED_KEY_SIZE] = {'a'};
	const struct record *r;

	if (!admitted || !shard)
		return false;
	memcpy(key + 1, admitted->frame.host_id.bytes, sizeof(admitted->frame.host_id.bytes));
	r = shards_record(shard, &g->shards, key, sizeof(key));
	return r && !r->deleted && many_have(g, shard, r->seq, admitted);
}

int admit_restore(struct gossip *g, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct admission a;
	struct kept *kept;

	if (admission_decode(key, key_len, val, len, &a, err) < 0)
		return -1;
	kept = calloc(1, sizeof(*kept));
	if (!kept)
		return err_set(err, ERR_EXHAUSTED, "gossip: out of memory for the admission of host %u", a.hostno);
	memcpy(kept->key, key, sizeof(kept->key));
	memcpy(kept->val, val, len);
	kept->val_len = len;
	kept->next = g->kept;
	g->kept = kept;
	return 0;
}

/* The first host has nobody to admit it. */
static void admit_self(struct gossip *g)
{
	struct admission a = {
		.hostno = g->self->hostno, .host_id = g->self->frame.host_id, .addr = g->self->addr, .vtep = g->self->vtep};
	uint8_t key[SAVED_KEY_SIZE], val[ADMISSION_MAX];
	size_t len;

	memcpy(a.public_key, g->self->public_key, sizeof(a.public_key));
	snprintf(a.name, sizeof(a.name), "%s", g->self->name);
	admission_sign(&a, &g->config.cluster_id, g->config.identity, g->self->hostno);
	len = admission_encode(&a, key, val);
	g->ops.save(g->ctx, key, sizeof(key), val, len, false);
	core_put(g, 0, key, sizeof(key), val, len);
}

bool admit_speaks(const struct gossip *g)
{
	const struct kept *kept = g->kept;
	struct admission a;

	while (kept && memcmp(kept->key + 1, g->self->frame.host_id.bytes, sizeof(g->self->frame.host_id.bytes)) != 0)
		kept = kept->next;
	if (!g->newcomer || !kept || admission_decode(kept->key, sizeof(kept->key), kept->val, kept->val_len, &a, NULL) < 0)
		return false;
	return a.boot == g->sender.boot && a.addr.port == g->self->addr.port && ip_equal(&a.addr.ip, &g->self->addr.ip) &&
	       ip_equal(&a.vtep, &g->self->vtep) && strcmp(a.name, g->self->name) == 0;
}

void admit_publish(struct gossip *g)
{
	bool own = false;

	for (struct kept *kept; (kept = g->kept);) {
		bool ours = memcmp(kept->key + 1, g->self->frame.host_id.bytes, sizeof(g->self->frame.host_id.bytes)) == 0;

		own |= ours;
		if (ours && g->newcomer && !g->own_admission) {
			g->own_admission = kept;
			g->kept = kept->next;
			continue;
		}
		core_put(g, 0, kept->key, sizeof(kept->key), kept->val, kept->val_len);
		/* A host that we admitted just before a crash may be known from here alone. */
		admit_record(g, kept->key, sizeof(kept->key), kept->val, kept->val_len);
		g->kept = kept->next;
		free(kept);
	}
	if (!own)
		admit_self(g);
}

/* ---- a newcomer's own admission ---- */

static void publish_own(struct gossip *g)
{
	struct kept *own = g->own_admission;

	if (!own)
		return;
	g->own_admission = NULL;
	core_put(g, 0, own->key, sizeof(own->key), own->val, own->val_len);
	free(own);
}

void admit_own_gone(struct gossip *g, const void *key)
{
	if (g->own_admission && memcmp(g->own_admission->key, key, SAVED_KEY_SIZE) == 0)
		publish_own(g);
}

/* Some time after the start: does the sponsor have it, as far as we know? */
static void look_for_own(struct gossip *g)
{
	const struct member *source = members_by_id(g, &g->config.source);
	const struct shard *shard = source ? shards_find(&g->shards, source->hostno, 0) : NULL;

	if (g->own_admission && (!shard || !shards_record(shard, &g->shards, g->own_admission->key, SAVED_KEY_SIZE)))
		publish_own(g);
}

uint64_t admit_tick(struct gossip *g)
{
	uint64_t next;

	if (g->now >= g->joins_ms)
		answer_waiting(g, NULL);
	if (g->now >= g->newcomer_ms) {
		struct member *source = members_by_id(g, &g->config.source);

		g->newcomer_ms = NEVER;
		look_for_own(g);
		if (source)
			member_due(g, &source->sync_ms, g->now);
	}
	if (g->now >= g->known_ms)
		ask_who_knows_us(g);
	next = g->joins_ms;
	sooner(&next, g->newcomer_ms);
	sooner(&next, g->known_ms);
	return next;
}

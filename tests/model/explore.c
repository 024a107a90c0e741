/* Every state that custody and forgetting can reach, in a cluster of three hosts and a victim, with the real address management.
 *
 * A state is what lies on the four disks and every message ever sent. A message is never used up, so each one may be lost, late,
 * doubled and overtaken by any other; a host is built anew from its disk for each step, so each step is also a crash. From each
 * state all steps are taken: a host gives an address to another, takes what is on its way, promises, collects promises as heir;
 * the victim stops; two hosts try to become its heir. All states up to a number of versions are visited, breadth first.
 *
 * In each state: no address is held by two hosts that are not stopped, and once an estate has moved every address is held by a
 * live host or on its way to one. The rule must come through, and each broken rule must be caught; a trace of steps says how.
 *
 *   explore                        the short form, below a minute: what `make test` runs
 *   explore long                   all that fits into some GiB of memory
 *   explore VARIANT ADDRESSES VERSIONS  one of them: rule naive snapshot alive silent; 1 or 2 addresses
 *
 * Left out because losing it is a state of its own anyway, and having it changes no fact: ACK (it only ends repeats; the variant
 * that needs it has it) and the news that a decree is done. A refused claim is heard at once or not at all.
 *
 * Not here: more hosts, records of gossip (an offer found in a record is accepted like its GRANT), eligibility, clocks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ipam/ipam_internal.h"

#define HOSTS 4
#define VICTIM 3 /* index; host number is one more */
#define HEIRS 2	 /* hosts 0 and 1 may become heir */
#define PAIRS_MAX 16
#define MESSAGES_MAX 512
#define MESSAGE_BYTES 120
#define LABEL_BYTES 44
#define NOW 1000

struct pair {
	uint8_t key[IPAM_KEY_MAX], val[IPAM_VALUE_MAX];
	uint8_t key_len;
	uint16_t len;
};

struct disk {
	unsigned count;
	struct pair pairs[PAIRS_MAX]; /* ascending keys */
};

struct note { /* a message that was sent at some time */
	uint8_t from, to, type, len;
	uint8_t bytes[MESSAGE_BYTES];
};

struct state {
	bool stopped; /* the victim */
	struct disk disks[HOSTS];
	unsigned count;
	struct note notes[MESSAGES_MAX]; /* ascending */
};

struct variant {
	const char *name;
	enum ipam_fault fault;
	bool alive; /* forgets a victim that runs */
	bool sound;
};

static const struct variant variants[] = {
	{"rule", IPAM_FAULT_NONE, false, true},
	{"naive", IPAM_FAULT_FORGET_NAIVE, false, false},
	{"snapshot", IPAM_FAULT_FORGET_SNAPSHOT, false, false},
	{"alive", IPAM_FAULT_NONE, true, false},
	{"silent", IPAM_FAULT_FORGET_SILENT, false, false},
};

static const struct id128 pool_id = {{0xaa}};
static const struct variant *variant;
static unsigned addresses, versions;
static bool with_acks;
static struct ipam_pool_def def;

static void give_up(const char *what)
{
	fprintf(stderr, "explore: %s\n", what);
	exit(2);
}

/* --- one host, for one step --- */

struct host {
	struct state *state; /* being made */
	unsigned index;
	bool mute;	     /* what it repeats at its start was sent before */
	struct note refusal; /* what it answered to the last CLAIM, when it did not promise */
	struct ipam *ipam;
};

static void op_save(void *ctx, const void *key, size_t key_len, const void *val, size_t len, bool durable)
{
	struct host *h = ctx;
	struct disk *d = &h->state->disks[h->index];
	unsigned at = 0;
	int order = -1;

	(void)durable;
	if (*(const char *)key == IPAM_SAVED_POOL)
		return; /* the same for all, for ever */
	while (at < d->count && (order = memcmp(d->pairs[at].key, key, key_len)) < 0)
		at++;
	if (at < d->count && order == 0 && !val) {
		memmove(&d->pairs[at], &d->pairs[at + 1], (--d->count - at) * sizeof(struct pair));
		return;
	}
	if (!val)
		return;
	if (at == d->count || order != 0) {
		if (d->count == PAIRS_MAX)
			give_up("a disk is full");
		memmove(&d->pairs[at + 1], &d->pairs[at], (d->count++ - at) * sizeof(struct pair));
	}
	memset(&d->pairs[at], 0, sizeof(struct pair));
	memcpy(d->pairs[at].key, key, key_len);
	memcpy(d->pairs[at].val, val, len);
	d->pairs[at].key_len = (uint8_t)key_len;
	d->pairs[at].len = (uint16_t)len;
}

static int by_bytes(const struct note *a, const struct note *b)
{
	return memcmp(a, b, sizeof(*a));
}

static void add_note(struct state *s, const struct note *note)
{
	unsigned at = 0;
	int order = -1;

	while (at < s->count && (order = by_bytes(&s->notes[at], note)) < 0)
		at++;
	if (at < s->count && order == 0)
		return;
	if (s->count == MESSAGES_MAX)
		give_up("too many messages");
	memmove(&s->notes[at + 1], &s->notes[at], (s->count++ - at) * sizeof(*note));
	s->notes[at] = *note;
}

static struct note note_of(unsigned from, unsigned to, const struct ipam_message *m)
{
	struct note note = {.from = (uint8_t)from, .to = (uint8_t)to, .type = (uint8_t)m->type};
	uint8_t buf[IPAM_MESSAGE_MAX];
	size_t len = ipam_message_encode(m, buf);

	if (len > MESSAGE_BYTES)
		give_up("a message is longer than expected");
	memcpy(note.bytes, buf, len);
	note.len = (uint8_t)len;
	return note;
}

/* What an heir asks first is about hosts. Here it asks for the ranges at once, which it does as soon as that is answered: the
 * promise and the report are one step, and a later report is a later copy of the same question. */
static void op_send(void *ctx, uint32_t to_hostno, const void *msg, size_t len)
{
	struct host *h = ctx;
	struct ipam_message m;
	struct note note;

	if (ipam_message_decode(&m, msg, len) < 0)
		give_up("a message does not decode");
	if (h->mute || to_hostno > HOSTS || m.type == IPAM_MSG_DENY || m.type == IPAM_MSG_MOVED || m.type == IPAM_MSG_REQ)
		return;
	if (m.type == IPAM_MSG_DECREE || (m.type == IPAM_MSG_ACK && !with_acks))
		return;
	if (m.type == IPAM_MSG_PROMISE && m.held) {
		h->refusal = note_of(h->index, to_hostno - 1, &m);
		return; /* changes nothing here; its reader hears it at once or not at all */
	}
	if (m.type == IPAM_MSG_CLAIM) {
		m.ask = IPAM_ASK_RANGES;
		m.pool = pool_id;
		m.cursor = 0;
	}
	note = note_of(h->index, to_hostno - 1, &m);
	add_note(h->state, &note);
}

static void op_publish(void *ctx, const struct id128 *pool, unsigned chunk, const void *val, size_t len)
{
	(void)ctx, (void)pool, (void)chunk, (void)val, (void)len;
}

static void op_complete(void *ctx, uint64_t ticket, const struct ipam_result *result)
{
	(void)ctx, (void)ticket, (void)result;
}

static void op_random(void *ctx, void *buf, size_t len)
{
	(void)ctx;
	memset(buf, 0x11, len);
}

static const struct ipam_ops ops = {
	.save = op_save,
	.publish = op_publish,
	.send = op_send,
	.complete = op_complete,
	.random = op_random,
};

static struct id128 host_id(unsigned index)
{
	return (struct id128){{(uint8_t)(index + 1)}};
}

/* From its disk in `state`, where what it does is written down. */
static void host_build(struct host *h, struct state *state, unsigned index)
{
	struct ipam_config config = {.hostno = index + 1, .host_id = host_id(index)};
	const struct disk *d = &state->disks[index];
	struct err err;

	*h = (struct host){.state = state, .index = index, .mute = true, .ipam = ipam_new(&config, &ops, h)};
	ipam_break(h->ipam, variant->fault);
	for (unsigned i = 0; i < d->count; i++)
		if (ipam_restore(h->ipam, d->pairs[i].key, d->pairs[i].key_len, d->pairs[i].val, d->pairs[i].len, &err) < 0)
			give_up(err.text);
	if (ipam_pool_join(h->ipam, &def, NOW, &err) < 0)
		give_up(err.text);
	for (unsigned i = 0; i < HOSTS; i++)
		if (i != index)
			ipam_peer_alive(h->ipam, i + 1, i != VICTIM || !state->stopped, NOW);
	ipam_start(h->ipam, NOW);
	h->mute = false;
}

static void deliver(struct host *h, const struct note *note)
{
	ipam_message(h->ipam, note->from + 1u, note->bytes, note->len, NOW);
}

/* --- the facts on the disks --- */

static bool fact_at(const struct disk *d, u128 address, struct custody *ret)
{
	enum ipam_saved_kind kind;
	struct custody c, best = {0};
	struct id128 pool;
	u128 start;

	for (unsigned i = 0; i < d->count; i++) {
		const struct pair *p = &d->pairs[i];

		if (p->key[0] != IPAM_SAVED_CUSTODY || ipam_key_decode(p->key, p->key_len, &kind, &pool, &start) < 0 ||
			saved_custody_decode(&c, start, p->val, p->len, NULL) < 0)
			continue;
		if (address < start || address - start >= c.len)
			continue;
		if (!best.to || custody_newer(c.reign, c.version, best.reign, best.version))
			best = c;
	}
	*ret = best;
	return best.to;
}

static bool decree_of(const struct disk *d, struct ipam_decree *ret)
{
	bool gone;

	for (unsigned i = 0; i < d->count; i++)
		if (d->pairs[i].key[0] == IPAM_SAVED_DECREE)
			return saved_decree_decode(ret, &gone, VICTIM + 1, d->pairs[i].val, d->pairs[i].len, NULL) == 0 && !gone;
	return false;
}

static bool has_duplicate(const struct state *s)
{
	struct custody c;

	for (unsigned a = 0; a < addresses; a++) {
		unsigned holders = 0;

		for (unsigned h = 0; h < HOSTS; h++)
			if ((h != VICTIM || !s->stopped) && fact_at(&s->disks[h], a, &c))
				holders += c.to == h + 1;
		if (holders > 1)
			return true;
	}
	return false;
}

static bool estate_has_moved(const struct state *s)
{
	struct ipam_decree d;

	for (unsigned h = 0; h < HEIRS; h++)
		if (decree_of(&s->disks[h], &d) && d.done)
			return true;
	return false;
}

/* Held by nobody, and the newest fact of the living does not name somebody to whom it is on its way. */
static bool has_leak(const struct state *s)
{
	struct custody c, own;

	if (!s->stopped || !estate_has_moved(s))
		return false;
	for (unsigned a = 0; a < addresses; a++) {
		struct custody top = {0};

		for (unsigned h = 0; h < VICTIM; h++)
			if (fact_at(&s->disks[h], a, &c) &&
				(!top.to || custody_newer(c.reign, c.version, top.reign, top.version)))
				top = c;
		if (top.to == 0 || top.to == VICTIM + 1)
			return true;
		if (fact_at(&s->disks[top.to - 1], a, &own) && own.to != top.to &&
			!custody_newer(top.reign, top.version, own.reign, own.version))
			return true;
	}
	return false;
}

/* --- what has been visited --- */

struct visited {
	uint64_t *keys; /* pairs of 64 bits, 0 0 is free */
	uint32_t *parents;
	char (*labels)[LABEL_BYTES];
	size_t table_size, count, capacity;
};

struct frontier { /* states to expand, packed, in order */
	uint8_t **blobs;
	size_t head, tail, capacity;
};

static uint64_t mix(uint64_t hash, const uint8_t *bytes, size_t len, uint64_t prime)
{
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ bytes[i]) * prime;
	return hash ^ hash >> 29;
}

static void *grow(void *old, size_t size)
{
	void *got = realloc(old, size);

	if (!got)
		give_up("out of memory");
	return got;
}

static void visited_rehash(struct visited *v)
{
	uint64_t *old = v->keys;
	size_t old_size = v->table_size;

	v->table_size = old_size ? 2 * old_size : 1 << 16;
	v->keys = calloc(v->table_size * 2, sizeof(*v->keys));
	if (!v->keys)
		give_up("out of memory");
	for (size_t i = 0; i < old_size; i++) {
		size_t at = old[2 * i] & (v->table_size - 1);

		if (!old[2 * i])
			continue;
		while (v->keys[2 * at])
			at = (at + 1) & (v->table_size - 1);
		v->keys[2 * at] = old[2 * i];
		v->keys[2 * at + 1] = old[2 * i + 1];
	}
	free(old);
}

/* False when it was there. Two states with equal 127 bits of hash would be taken for one: not at these numbers. */
static bool visit(struct visited *v, const uint8_t *blob, size_t len, uint32_t parent, const char *label)
{
	uint64_t one = mix(14695981039346656037u, blob, len, 1099511628211u) | 1;
	uint64_t two = mix(0x9e3779b97f4a7c15u, blob, len, 0xd6e8feb86659fd93u);
	size_t at;

	if (2 * (v->count + 1) > v->table_size)
		visited_rehash(v);
	for (at = one & (v->table_size - 1); v->keys[2 * at]; at = (at + 1) & (v->table_size - 1))
		if (v->keys[2 * at] == one && v->keys[2 * at + 1] == two)
			return false;
	v->keys[2 * at] = one;
	v->keys[2 * at + 1] = two;
	if (v->count == v->capacity) {
		v->capacity = v->capacity ? 2 * v->capacity : 1 << 14;
		v->parents = grow(v->parents, v->capacity * sizeof(*v->parents));
		v->labels = grow(v->labels, v->capacity * sizeof(*v->labels));
	}
	v->parents[v->count] = parent;
	snprintf(v->labels[v->count++], LABEL_BYTES, "%s", label);
	return true;
}

static uint8_t *put(uint8_t *at, const void *bytes, size_t len)
{
	memcpy(at, bytes, len);
	return at + len;
}

static size_t pack(const struct state *s, uint8_t *buf)
{
	uint8_t *at = buf;

	*at++ = s->stopped;
	for (unsigned h = 0; h < HOSTS; h++) {
		*at++ = (uint8_t)s->disks[h].count;
		for (unsigned i = 0; i < s->disks[h].count; i++) {
			const struct pair *p = &s->disks[h].pairs[i];

			*at++ = p->key_len;
			at = put(at, p->key, p->key_len);
			*at++ = (uint8_t)p->len;
			at = put(at, p->val, p->len);
		}
	}
	at = put(at, &s->count, sizeof(s->count));
	for (unsigned i = 0; i < s->count; i++)
		at = put(at, &s->notes[i], offsetof(struct note, bytes) + s->notes[i].len);
	return (size_t)(at - buf);
}

static void unpack(struct state *s, const uint8_t *at)
{
	memset(s, 0, sizeof(*s));
	s->stopped = *at++;
	for (unsigned h = 0; h < HOSTS; h++) {
		s->disks[h].count = *at++;
		for (unsigned i = 0; i < s->disks[h].count; i++) {
			struct pair *p = &s->disks[h].pairs[i];

			p->key_len = *at++;
			memcpy(p->key, at, p->key_len);
			at += p->key_len;
			p->len = *at++;
			memcpy(p->val, at, p->len);
			at += p->len;
		}
	}
	memcpy(&s->count, at, sizeof(s->count));
	at += sizeof(s->count);
	for (unsigned i = 0; i < s->count; i++) {
		memcpy(&s->notes[i], at, offsetof(struct note, bytes));
		memcpy(s->notes[i].bytes, at + offsetof(struct note, bytes), s->notes[i].len);
		at += offsetof(struct note, bytes) + s->notes[i].len;
	}
}

/* --- the search --- */

struct search {
	struct visited visited;
	struct frontier frontier;
	uint32_t at; /* the state being expanded */
	const struct state *from;
	struct state next, aside; /* the step works here */
	uint32_t bad;		  /* a state with a duplicate; UINT32_MAX: none */
	size_t leaks;
	uint32_t leak;
};

static void step_begin(struct search *s)
{
	s->next = *s->from;
}

static void step_end(struct search *s, const char *label)
{
	static uint8_t buf[sizeof(struct state)];
	size_t len = pack(&s->next, buf);
	struct frontier *f = &s->frontier;
	uint8_t *blob;

	if (s->bad != UINT32_MAX || !visit(&s->visited, buf, len, s->at, label))
		return;
	if (has_duplicate(&s->next)) {
		s->bad = (uint32_t)s->visited.count - 1;
		return;
	}
	if (has_leak(&s->next) && s->leaks++ == 0)
		s->leak = (uint32_t)s->visited.count - 1;
	blob = grow(NULL, len);
	memcpy(blob, buf, len);
	if (f->tail == f->capacity) {
		f->capacity = f->capacity ? 2 * f->capacity : 1 << 14;
		f->blobs = grow(f->blobs, f->capacity * sizeof(*f->blobs));
	}
	f->blobs[f->tail++] = blob;
}

/* --- steps --- */

static bool is_up(const struct state *s, unsigned host)
{
	return host != VICTIM || !s->stopped;
}

/* The one that asks is played here: any host may ask for anything at any time. */
static void step_give(struct search *s, unsigned donor, unsigned to, unsigned address)
{
	struct ipam_message m = {.type = IPAM_MSG_REQ,
		.pool = pool_id,
		.flags = IPAM_REQ_URGENT | IPAM_REQ_EXACT,
		.start = address,
		.len = 1,
		.count = 1};
	char label[LABEL_BYTES];
	struct note note;
	struct custody c;
	struct host h;

	if (!is_up(s->from, donor) || !is_up(s->from, to) || !fact_at(&s->from->disks[donor], address, &c) || c.to != donor + 1 ||
		c.version >= versions)
		return;
	m.xid = 1 + address + 4 * c.version + 1024 * (uint64_t)c.reign;
	note = note_of(to, donor, &m);
	step_begin(s);
	host_build(&h, &s->next, donor);
	deliver(&h, &note);
	ipam_free(h.ipam);
	snprintf(label, sizeof(label), "%u gives address %u to %u", donor + 1, address, to + 1);
	step_end(s, label);
}

static void step_deliver(struct search *s, const struct note *note)
{
	static const char *const names[IPAM_MSG_MAX] = {
		[IPAM_MSG_GRANT] = "GRANT", [IPAM_MSG_ACK] = "ACK", [IPAM_MSG_CLAIM] = "CLAIM"};
	char label[LABEL_BYTES];
	struct host h;

	if (!names[note->type] || !is_up(s->from, note->to))
		return; /* an heir hears promises together, below */
	step_begin(s);
	host_build(&h, &s->next, note->to);
	deliver(&h, note);
	ipam_free(h.ipam);
	snprintf(label, sizeof(label), "%s of %u reaches %u", names[note->type], note->from + 1u, note->to + 1u);
	step_end(s, label);
}

static void step_stop(struct search *s)
{
	if (s->from->stopped)
		return;
	step_begin(s);
	s->next.stopped = true;
	step_end(s, "the victim stops");
}

static void step_forget(struct search *s, unsigned heir)
{
	struct id128 id = host_id(VICTIM);
	struct ipam_decree d;
	char label[LABEL_BYTES];
	struct host h;

	if ((!s->from->stopped && !variant->alive) || decree_of(&s->from->disks[heir], &d))
		return;
	step_begin(s);
	host_build(&h, &s->next, heir);
	if (ipam_forget(h.ipam, VICTIM + 1, &id, true, NULL, 0, NOW, NULL) < 0)
		give_up("a host without a promise may not forget");
	ipam_free(h.ipam);
	snprintf(label, sizeof(label), "%u forgets the victim", heir + 1);
	step_end(s, label);
}

/* The pages about hosts and pools are the same whoever tells them when. */
static void tell_lists(struct host *h, unsigned from, const struct ipam_decree *decree)
{
	struct ipam_message m = {.type = IPAM_MSG_PROMISE, .xid = decree->number, .decree = *decree};
	struct note note;

	m.ask = IPAM_ASK_HOSTS;
	for (unsigned i = 0; i < HOSTS; i++)
		if (i != from)
			m.hosts[m.host_count++] = i + 1;
	note = note_of(from, h->index, &m);
	deliver(h, &note);
	m.host_count = 0;
	m.ask = IPAM_ASK_POOLS;
	m.pools[m.pool_count++] = pool_id;
	note = note_of(from, h->index, &m);
	deliver(h, &note);
}

/* Those who have promised to another answer so now. True when one did. */
static bool hear_refusals(struct search *s, struct host *heir, unsigned from)
{
	bool heard = false;

	for (unsigned i = 0; i < s->from->count; i++) {
		const struct note *claim = &s->from->notes[i];
		struct state *beside = &s->aside;
		struct host other;

		if (claim->type != IPAM_MSG_CLAIM || claim->from != heir->index || claim->to != from)
			continue;
		*beside = *s->from;
		host_build(&other, beside, from);
		deliver(&other, claim);
		ipam_free(other.ipam);
		if (other.refusal.len && other.refusal.to == heir->index) {
			deliver(heir, &other.refusal);
			heard = true;
		}
	}
	return heard;
}

/* Some of what others answered, together: for each host nothing, or one of its answers; then, from one, that it promised to
 * another. */
static void step_collect(struct search *s, unsigned heir, const struct note *const answers[VICTIM], int refused_by)
{
	struct ipam_decree d;
	char label[LABEL_BYTES];
	struct ipam_message m;
	struct host h;

	step_begin(s);
	host_build(&h, &s->next, heir);
	for (unsigned i = 0; i < VICTIM; i++) {
		if (!answers[i] || ipam_message_decode(&m, answers[i]->bytes, answers[i]->len) < 0)
			continue;
		if (ipam_decree_get(h.ipam, VICTIM + 1, &d) && d.number == m.decree.number)
			tell_lists(&h, i, &m.decree);
		deliver(&h, answers[i]);
	}
	if (refused_by >= 0 && hear_refusals(s, &h, (unsigned)refused_by))
		ipam_tick(h.ipam, NOW + 60000); /* asks again, now naming who yielded */
	ipam_free(h.ipam);
	snprintf(label, sizeof(label), "%u collects promises", heir + 1);
	step_end(s, label);
}

static bool is_current(const struct search *s, unsigned heir, const struct note *n)
{
	struct ipam_message m;
	struct ipam_decree d;

	return decree_of(&s->from->disks[heir], &d) && ipam_message_decode(&m, n->bytes, n->len) == 0 &&
	       m.decree.number == d.number;
}

/* Promises are worth something together only: all of them, or one (of a rival) and a refusal. */
static void each_choice(struct search *s, unsigned heir, unsigned host, const struct note *answers[VICTIM])
{
	if (host == VICTIM) {
		step_collect(s, heir, answers, -1);
		return;
	}
	answers[host] = NULL;
	if (host == heir || (variant->fault == IPAM_FAULT_FORGET_SILENT && host == 2))
		each_choice(s, heir, host + 1, answers);
	for (unsigned i = 0; i < s->from->count; i++) {
		const struct note *n = &s->from->notes[i];

		if (n->type != IPAM_MSG_PROMISE || n->to != heir || n->from != host || !is_current(s, heir, n))
			continue;
		answers[host] = n;
		each_choice(s, heir, host + 1, answers);
	}
	answers[host] = NULL;
}

static void each_refusal(struct search *s, unsigned heir)
{
	const struct note *answers[VICTIM] = {NULL};

	for (unsigned by = 0; by < VICTIM; by++) {
		if (by == heir)
			continue;
		step_collect(s, heir, answers, (int)by);
		for (unsigned i = 0; i < s->from->count; i++) {
			const struct note *n = &s->from->notes[i];

			if (n->type != IPAM_MSG_PROMISE || n->to != heir || n->from == by || !is_current(s, heir, n))
				continue;
			answers[n->from] = n;
			step_collect(s, heir, answers, (int)by);
			answers[n->from] = NULL;
		}
	}
}

static void expand(struct search *s)
{
	const struct note *answers[VICTIM];
	struct ipam_decree d;

	for (unsigned donor = 0; donor < HOSTS; donor++)
		for (unsigned to = 0; to < HOSTS; to++)
			for (unsigned a = 0; a < addresses && to != donor; a++)
				step_give(s, donor, to, a);
	for (unsigned i = 0; i < s->from->count; i++)
		step_deliver(s, &s->from->notes[i]);
	step_stop(s);
	for (unsigned heir = 0; heir < HEIRS; heir++) {
		step_forget(s, heir);
		if (decree_of(&s->from->disks[heir], &d) && d.heir == heir + 1 && !d.done) {
			each_choice(s, heir, 0, answers);
			each_refusal(s, heir);
		}
	}
}

static void begin(struct search *s)
{
	static struct state first;
	struct host h;

	memset(&first, 0, sizeof(first));
	memset(s, 0, sizeof(*s));
	s->bad = s->leak = UINT32_MAX;
	s->next = first;
	h = (struct host){.state = &s->next, .index = VICTIM};
	h.ipam = ipam_new(&(struct ipam_config){.hostno = VICTIM + 1, .host_id = host_id(VICTIM)}, &ops, &h);
	ipam_start(h.ipam, NOW);
	if (ipam_pool_create(h.ipam, &def, NOW, NULL) < 0)
		give_up("the pool cannot be made");
	ipam_free(h.ipam);
	step_end(s, "");
}

static void print_trace(const struct search *s, uint32_t at)
{
	uint32_t path[256];
	unsigned count = 0;

	for (; at != 0 && count < 256; at = s->visited.parents[at])
		path[count++] = at;
	while (count > 0)
		printf("#   %s\n", s->visited.labels[path[--count]]);
}

static void end(struct search *s)
{
	while (s->frontier.head < s->frontier.tail)
		free(s->frontier.blobs[s->frontier.head++]);
	free(s->frontier.blobs);
	free(s->visited.keys);
	free(s->visited.parents);
	free(s->visited.labels);
}

/* Whether it went as it should. */
static bool explore(const char *name, unsigned address_count, unsigned version_count)
{
	static struct search s;
	static struct state from;
	struct timespec start, stop;
	bool sound;

	variant = NULL;
	for (size_t i = 0; i < sizeof(variants) / sizeof(*variants); i++)
		if (!strcmp(variants[i].name, name))
			variant = &variants[i];
	if (!variant || address_count < 1 || address_count > 2)
		give_up("usage: explore [long | rule|naive|snapshot|alive|silent ADDRESSES VERSIONS]");
	addresses = address_count;
	versions = version_count;
	with_acks = variant->fault == IPAM_FAULT_FORGET_SNAPSHOT;
	def = (struct ipam_pool_def){.id = pool_id};
	prefix_parse(addresses == 1 ? "192.0.2.0/32" : "192.0.2.0/31", &def.prefix, NULL);
	clock_gettime(CLOCK_MONOTONIC, &start);
	begin(&s);
	while (s.frontier.head < s.frontier.tail && s.bad == UINT32_MAX && (!s.leaks || !variant->sound)) {
		unpack(&from, s.frontier.blobs[s.frontier.head]);
		free(s.frontier.blobs[s.frontier.head]);
		s.at = (uint32_t)s.frontier.head++;
		s.from = &from;
		expand(&s);
	}
	clock_gettime(CLOCK_MONOTONIC, &stop);
	sound = s.bad == UINT32_MAX && !s.leaks;
	printf("# %s, %u addresses, %u versions: %s after %zu states, %lld s\n", name, addresses, versions,
		s.bad != UINT32_MAX ? "DUPLICATE"
		: s.leaks	    ? "LEAK"
				    : "exhausted, no duplicate, no leak",
		s.visited.count, (long long)(stop.tv_sec - start.tv_sec));
	if (!sound)
		print_trace(&s, s.bad != UINT32_MAX ? s.bad : s.leak);
	fflush(stdout);
	sound = variant->sound ? sound : s.bad != UINT32_MAX;
	end(&s);
	return sound;
}

struct run {
	const char *name;
	unsigned addresses, versions;
};

static const struct run short_form[] = {
	{"naive", 1, 2}, {"snapshot", 1, 3}, {"alive", 1, 2}, {"silent", 1, 2}, {"rule", 1, 3}, {"rule", 2, 1}};
static const struct run long_form[] = {{"rule", 1, 4}, {"rule", 2, 2}};

static int run_all(const struct run *runs, size_t count)
{
	unsigned failed = 0;

	for (size_t i = 0; i < count; i++) {
		bool good = explore(runs[i].name, runs[i].addresses, runs[i].versions);

		failed += !good;
		printf("%s %zu - %s, %u addresses, %u versions\n", good ? "ok" : "not ok", i + 1, runs[i].name, runs[i].addresses,
			runs[i].versions);
	}
	printf("%zu passed, %u failed, 0 skipped\n", count - failed, failed);
	return failed ? 1 : 0;
}

int main(int argc, char **argv)
{
	if (argc == 4)
		return explore(argv[1], (unsigned)strtoul(argv[2], NULL, 10), (unsigned)strtoul(argv[3], NULL, 10)) ? 0 : 1;
	if (argc == 2 && !strcmp(argv[1], "long"))
		return run_all(long_form, sizeof(long_form) / sizeof(*long_form));
	return run_all(short_form, sizeof(short_form) / sizeof(*short_form));
}

/* The checker: see truth.h. */
#include "tests/sim/truth.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/core_internal.h"

struct truth *truth_new(void)
{
	return calloc(1, sizeof(struct truth));
}

void truth_free(struct truth *truth)
{
	struct truth_entry *entry, *tmp;

	if (!truth)
		return;
	HASH_ITER(hh, truth->entries, entry, tmp)
	{
		HASH_DEL(truth->entries, entry);
		free(entry);
	}
	free(truth);
}

struct truth_host *truth_host_new(void)
{
	return calloc(1, sizeof(struct truth_host));
}

void truth_host_free(struct truth_host *host)
{
	struct truth_seen *seen, *tmp;

	if (!host)
		return;
	HASH_ITER(hh, host->seen, seen, tmp)
	{
		HASH_DEL(host->seen, seen);
		free(seen);
	}
	free(host);
}

static struct truth_key make_key(uint32_t origin, uint64_t topic, const void *key, size_t key_len)
{
	struct truth_key id;

	memset(&id, 0, sizeof(id));
	id.origin = origin;
	id.topic = topic;
	memcpy(id.key, key, key_len < sizeof(id.key) - 1 ? key_len : sizeof(id.key) - 1);
	return id;
}

struct truth_entry *truth_find(struct truth *truth, uint32_t origin, uint64_t topic, const char *key)
{
	struct truth_key id = make_key(origin, topic, key, strlen(key));
	struct truth_entry *entry;

	HASH_FIND(hh, truth->entries, &id, sizeof(id), entry);
	return entry;
}

struct truth_entry *truth_write(struct truth *truth, uint32_t origin, uint64_t topic, const char *key, bool live)
{
	struct truth_entry *entry = truth_find(truth, origin, topic, key);

	if (!entry) {
		entry = calloc(1, sizeof(*entry));
		if (!entry)
			abort();
		entry->id = make_key(origin, topic, key, strlen(key));
		HASH_ADD(hh, truth->entries, id, sizeof(entry->id), entry);
	}
	if (live)
		entry->version = ++truth->version;
	else
		entry->deleted_version = entry->version;
	entry->live = live;
	return entry;
}

size_t truth_value(const struct truth_entry *entry, char buf[64])
{
	return (size_t)snprintf(buf, 64, "%" PRIu64 " of %s by %u", entry->version, entry->id.key, entry->id.origin);
}

/* ---- on the spot ---- */

static struct truth_seen *seen_of(struct sim_host *host, const struct truth_key *id)
{
	struct truth_seen *seen;

	HASH_FIND(hh, host->truth->seen, id, sizeof(*id), seen);
	if (seen)
		return seen;
	seen = calloc(1, sizeof(*seen));
	if (!seen)
		abort();
	seen->id = *id;
	HASH_ADD(hh, host->truth->seen, id, sizeof(seen->id), seen);
	return seen;
}

void truth_forget_topic(struct sim_host *host, uint64_t topic)
{
	struct truth_seen *seen, *tmp;

	HASH_ITER(hh, host->truth->seen, seen, tmp)
	{
		if (seen->id.topic != topic)
			continue;
		HASH_DEL(host->truth->seen, seen);
		free(seen);
	}
}

static void see_value(struct sim_host *host, struct truth_seen *seen, const struct truth_entry *entry, const char *text)
{
	uint64_t version = strtoull(text, NULL, 10);
	struct world *w = host->world;

	if (version > entry->version)
		world_fail(w, "host %u sees version %" PRIu64 " of %s, which host %u never wrote", host->hostno, version,
			seen->id.key, seen->id.origin);
	if (seen->version != 0 && version < seen->version)
		world_fail(w, "host %u sees version %" PRIu64 " of %s by %u after version %" PRIu64, host->hostno, version,
			seen->id.key, seen->id.origin, seen->version);
	if (version == seen->version)
		world_fail(w, "host %u sees version %" PRIu64 " of %s by %u %s", host->hostno, version, seen->id.key,
			seen->id.origin, seen->live ? "twice" : "return from deletion");
	seen->version = version;
	seen->live = true;
}

void truth_on_record(
	struct sim_host *host, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len)
{
	struct truth_key id = make_key(origin, topic, key, key_len);
	struct truth_entry *entry;
	struct truth_seen *seen;
	char text[64] = "";

	if (id.key[0] != 'k')
		return;
	if (!sim_keeps(host, topic))
		world_fail(host->world, "host %u is told of %s by %u, of a topic that it does not keep", host->hostno, id.key,
			origin);
	world_trace(host->world, "host %u: (%u, %" PRIu64 ") %s: %.*s", host->hostno, origin, topic, id.key,
		val ? (int)val_len : 4, val ? (const char *)val : "gone");
	HASH_FIND(hh, host->world->truth->entries, &id, sizeof(id), entry);
	seen = seen_of(host, &id);
	if (!entry) {
		world_fail(host->world, "host %u sees %s by %u, which was never written", host->hostno, id.key, origin);
		return;
	}
	if (val) {
		memcpy(text, val, val_len < sizeof(text) - 1 ? val_len : sizeof(text) - 1);
		see_value(host, seen, entry, text);
		return;
	}
	if (!seen->live)
		world_fail(
			host->world, "host %u is told that %s by %u is gone, which it never had", host->hostno, id.key, origin);
	if (entry->deleted_version < seen->version)
		world_fail(host->world, "host %u is told that version %" PRIu64 " of %s by %u is gone, but it is not",
			host->hostno, seen->version, id.key, origin);
	seen->live = false;
}

/* ---- any time ---- */

static bool same_key(const struct record *a, const struct record *b)
{
	uint8_t of_a[GOSSIP_KEY_MAX], of_b[GOSSIP_KEY_MAX];
	size_t len = record_key(a, of_a);

	return len == record_key(b, of_b) && memcmp(of_a, of_b, len) == 0;
}

/* Deletions too, which shards_record hides. */
static const struct record *raw_record(const struct shards *s, const struct shard *shard, const struct record *like)
{
	uint8_t key[GOSSIP_KEY_MAX];
	const struct record *found = shards_record(shard, s, key, record_key(like, key));

	for (const struct record *r = shard->live.last; !found && shard->deleted_count > 0 && r; r = r->prev)
		if (same_key(r, like))
			found = r;
	return found && !found->old_epoch ? found : NULL;
}

static bool same_record(const struct record *a, const struct record *b)
{
	return a->seq == b->seq && a->deleted == b->deleted && a->val_len == b->val_len && same_key(a, b) &&
	       memcmp(a->bytes + a->key_len, b->bytes + b->key_len, a->val_len) == 0;
}

/* R2 and R3: up to its head, a copy is its origin. */
static void check_copy(struct world *w, const struct sim_host *host, const struct shard *copy, const struct shard *origin)
{
	const struct shards *origin_shards = &w->hosts[copy->id.origin - 1].gossip->shards;
	const struct shards *copies = &host->gossip->shards;

	for (const struct record *r = origin->live.first; r && r->seq <= copy->head; r = r->next) {
		const struct record *mine = r->deleted ? NULL : raw_record(copies, copy, r);

		if (!r->deleted && (!mine || !same_record(mine, r)))
			world_fail(w,
				"host %u says it has all of shard (%u, %" PRIu64 ") up to %" PRIu64 " and lacks seq %" PRIu64,
				host->hostno, copy->id.origin, copy->id.topic, copy->head, r->seq);
	}
	if (copy->sweep_due || copy->head < origin->floor)
		return;
	for (const struct record *r = copy->live.first; r && r->seq <= copy->head; r = r->next) {
		const struct record *theirs = r->deleted ? NULL : raw_record(origin_shards, origin, r);

		if (!r->deleted && (!theirs || (theirs->seq != r->seq && theirs->seq <= copy->head)))
			world_fail(w, "host %u has seq %" PRIu64 " of shard (%u, %" PRIu64 ") at head %" PRIu64 ", which is gone",
				host->hostno, r->seq, copy->id.origin, copy->id.topic, copy->head);
	}
}

/* ---- the member table ---- */

/* Each slot once, and all that has to be there. */
static const char *check_slots(const struct gossip *g, const uint32_t *slots, unsigned count, uint8_t mark, uint8_t *seen)
{
	if (count > g->slot_capacity)
		return "a list longer than its room";
	for (unsigned i = 0; i < count; i++) {
		if (slots[i] >= g->member_count)
			return "a slot that nobody has";
		if (seen[slots[i]] & mark)
			return "a slot that is listed twice";
		seen[slots[i]] |= mark;
	}
	return NULL;
}

enum { SEEN_SUSPECT = 1, SEEN_NEWS = 2, SEEN_SPREADING = 4, SEEN_LATELY = 8 };

static const char *check_member(const struct gossip *g, const struct member *m, uint8_t seen)
{
	if (members_find(g, m->hostno) != m || members_by_id(g, &m->frame.host_id) != m)
		return "a member that is not found";
	if (m->listed != !!(seen & SEEN_SUSPECT) || (m->state == GOSSIP_SUSPECT && !m->listed))
		return "a suspect that is not listed";
	if (m->news != NEWS_NONE && (!(seen & SEEN_NEWS) || g->news_ms == NEVER))
		return "news that never leave";
	if (m->spread > 0 && !(seen & SEEN_SPREADING))
		return "news that are not spread";
	if ((rare_of(m)->suspected_ms != 0) != !!(seen & SEEN_LATELY))
		return "a list of who was suspected lately that is not right";
	if (m->state == GOSSIP_SUSPECT && g->started && g->suspects_ms > m->suspect_until_ms)
		return "a suspect whose time never ends";
	return NULL;
}

/* What the table adds up to: in all, and in parts without those that were not heard of. */
static bool sums_are_right(const struct gossip *g)
{
	uint64_t digest = 0, heard = 0, parts = 0;

	for (unsigned i = 0; i < g->member_count; i++) {
		const struct member *m = g->slots[i];

		digest += m->digest;
		heard += m->unheard ? 0 : m->digest;
	}
	for (unsigned i = 0; i < PROTO_PARTS; i++)
		parts += g->sums[i];
	return digest == g->digest && heard == parts;
}

static const char *check_members(const struct gossip *g)
{
	unsigned states[4] = {0}, lately = 0, lately_dead = 0;
	uint8_t *seen = calloc(g->member_count, 1);
	const char *wrong = check_slots(g, g->suspects, g->suspect_slots, SEEN_SUSPECT, seen);

	if (!wrong)
		wrong = check_slots(g, g->newsworthy, g->newsworthy_count, SEEN_NEWS, seen);
	if (!wrong && g->spreading_count > g->slot_capacity)
		wrong = "more is spread than there is room for";
	for (unsigned i = 0; !wrong && i < g->spreading_count; i++)
		seen[g->spreading[i]->slot] |= SEEN_SPREADING;
	for (const struct member *m = g->lately; !wrong && m; m = m->rare->lately_next, lately++) {
		seen[m->slot] |= SEEN_LATELY;
		lately_dead += m->state == GOSSIP_DEAD;
	}
	for (unsigned i = 0; !wrong && i < g->member_count; i++) {
		states[g->slots[i]->state]++;
		wrong = check_member(g, g->slots[i], seen[i]);
	}
	if (!wrong && (memcmp(states, g->state_count, sizeof(states)) != 0 || lately != g->lately_count ||
			      lately_dead != g->lately_dead))
		wrong = "counts of states";
	if (!wrong && g->started && !sums_are_right(g))
		wrong = "the sums over the members";
	free(seen);
	return wrong;
}

void truth_check_host(struct world *w, unsigned index)
{
	struct sim_host *host = &w->hosts[index];
	struct shard *shard, *next;
	const char *wrong;

	if (!host->gossip)
		return;
	wrong = shards_check(&host->gossip->shards);
	if (wrong)
		world_fail(w, "host %u: shards: %s", host->hostno, wrong);
	wrong = check_members(host->gossip);
	if (wrong)
		world_fail(w, "host %u: members: %s", host->hostno, wrong);
	if (gossip_counters(host->gossip)->conflicts > 0 && !w->truth->conflicts_expected)
		world_fail(w, "host %u counts a conflict (R6) that nobody made", host->hostno);
	SHARDS_EACH(&host->gossip->shards, shard, next)
	{
		struct sim_host *origin = shard->id.origin <= w->host_count ? &w->hosts[shard->id.origin - 1] : NULL;
		const struct shard *original;

		if (origin != host && !sim_keeps(host, shard->id.topic))
			world_fail(w, "host %u keeps shard (%u, %" PRIx64 "), and does not subscribe to it", host->hostno,
				shard->id.origin, shard->id.topic);
		if (!origin || !origin->gossip || origin == host || w->truth->conflicts_expected)
			continue;
		original = shards_find(&origin->gossip->shards, shard->id.origin, shard->id.topic);
		if (original && original->epoch == shard->epoch)
			check_copy(w, host, shard, original);
	}
}

/* ---- when quiet ---- */

static bool records_complete(struct world *w, struct sim_host *host, char *why, size_t why_size)
{
	struct truth_entry *entry, *tmp;

	HASH_ITER(hh, w->truth->entries, entry, tmp)
	{
		char value[64];
		size_t value_len = truth_value(entry, value), len = 0;
		const void *found =
			gossip_get(host->gossip, entry->id.origin, entry->id.topic, entry->id.key, strlen(entry->id.key), &len);

		if (!sim_keeps(host, entry->id.topic))
			continue;
		if (!w->hosts[entry->id.origin - 1].gossip)
			continue; /* a dead host's records: as far as they had come */
		if (!entry->live && !found)
			continue;
		if (!entry->live || !found || len != value_len || memcmp(found, value, len) != 0) {
			snprintf(why, why_size, "host %u %s %s by %u", host->hostno,
				!found	      ? "lacks"
				: entry->live ? "has an old"
					      : "still has",
				entry->id.key, entry->id.origin);
			return false;
		}
	}
	return true;
}

/* Of many hosts, each with a few. */
static bool roots_agree(struct world *w, struct sim_host *host, char *why, size_t why_size)
{
	unsigned step = w->host_count > 64 ? w->host_count / 16 : 1;

	for (unsigned i = host->index % step; i < w->host_count; i += step) {
		struct sim_host *other = &w->hosts[i];
		const struct member *there, *here;

		if (!other->gossip || other == host)
			continue;
		there = members_find(host->gossip, other->hostno);
		here = members_find(other->gossip, host->hostno);
		if (there && here && interest_root(host->gossip, there) == interest_root(other->gossip, here))
			continue;
		snprintf(why, why_size, "hosts %u and %u have different roots", host->hostno, other->hostno);
		return false;
	}
	return true;
}

bool truth_converged(struct world *w, char *why, size_t why_size)
{
	const struct sim_host *first = NULL;

	for (unsigned i = 0; i < w->host_count; i++) {
		struct sim_host *host = &w->hosts[i];

		if (!host->gossip)
			continue;
		if (!records_complete(w, host, why, why_size))
			return false;
		if (first && host->gossip->shards.root != first->gossip->shards.root) {
			snprintf(why, why_size, "hosts %u and %u have different roots", first->hostno, host->hostno);
			return false;
		}
		if (w->networks && !roots_agree(w, host, why, why_size))
			return false;
		if (!gossip_in_step(host->gossip)) {
			snprintf(why, why_size, "host %u is not in step", host->hostno);
			return false;
		}
		first = first ? first : host;
	}
	return true;
}

/* Else they would tell each other their tables for ever. */
static bool tables_are_equal(struct world *w, char *why, size_t why_size)
{
	const struct sim_host *first = NULL;

	for (unsigned i = 0; i < w->host_count; i++) {
		const struct sim_host *host = &w->hosts[i];

		if (!host->gossip)
			continue;
		first = first ? first : host;
		if (host->gossip->digest == first->gossip->digest)
			continue;
		snprintf(why, why_size, "hosts %u and %u have different tables of members", first->hostno, host->hostno);
		return false;
	}
	return true;
}

bool truth_members_agree(struct world *w, char *why, size_t why_size)
{
	for (unsigned i = 0; i < w->host_count; i++) {
		for (unsigned j = 0; j < w->host_count && w->hosts[i].gossip; j++) {
			struct gossip_member member;
			enum gossip_state expected = w->hosts[j].gossip ? GOSSIP_ALIVE : GOSSIP_DEAD;

			if (!gossip_member_get(w->hosts[i].gossip, w->hosts[j].hostno, &member)) {
				snprintf(why, why_size, "host %u does not know host %u", i + 1, j + 1);
				return false;
			}
			if (member.state != expected && !(member.state == GOSSIP_LEFT && expected == GOSSIP_DEAD)) {
				snprintf(why, why_size, "host %u believes host %u %s", i + 1, j + 1,
					gossip_state_name(member.state));
				return false;
			}
		}
	}
	return tables_are_equal(w, why, why_size);
}

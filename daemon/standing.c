/* Whether this host's state is the latest that it ever had, and its alone (invariant I11 of ipam.c).
 *
 * A state directory restored from a backup holds addresses that the host has handed away since. Each durable change of custody
 * takes the next *mark* (a number and a random tag), saved in one transaction with it, copied to the boot file behind it, and
 * published by gossip, where the other hosts keep the highest. A start that finds the boot file of this very boot, and no later
 * mark in it than in the state, goes on at once: nothing was set back. Any other start (a reboot, too) holds all addresses until
 * other hosts have said that they know no later mark; a host that finds nobody goes on after a while and says so.
 *
 * `base` is the last mark that was published, or might have been: it is on disk before gossip gets it. What was found once, that
 * the state was set back, is kept in the state: the others will forget. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/alloc.h"
#include "daemon/node_internal.h"

#define MARK_FORMAT 1
#define MARK_SIZE 34

struct saved_mark {
	const struct id128 *of; /* marks of other identities are not looked at; NULL: any */
	bool found;
	struct gossip_mark mark, base;
	bool set_back;
};

static void save(struct node *node, enum store_area area, bool durable)
{
	const struct standing *s = &node->standing;
	uint8_t val[MARK_SIZE];
	struct bytes_writer w;

	bw_init(&w, val, sizeof(val));
	bw_u8(&w, MARK_FORMAT);
	bw_u64(&w, s->mark.count);
	bw_u64(&w, s->mark.tag);
	bw_u64(&w, s->base.count);
	bw_u64(&w, s->base.tag);
	bw_u8(&w, s->set_back);
	/* The boot file outlives a state directory that is moved away or brought in: there the mark is its identity's. */
	if (area == STORE_BOOT)
		outbox_save(node->outbox,
			store_change_new(area, STORE_MARK, &node->identity.id, sizeof(node->identity.id), val, w.len, durable));
	else
		outbox_save(node->outbox, store_change_new(area, STORE_MARK, "", 0, val, w.len, durable));
}

static int take_mark(void *ctx, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct saved_mark *m = ctx;
	struct bytes_reader r;
	uint8_t format;

	if (m->of && (key_len != sizeof(*m->of) || memcmp(key, m->of, key_len) != 0))
		return 0;
	br_init(&r, val, len);
	format = br_u8(&r);
	if (!r.bad && format > MARK_FORMAT)
		return err_set(err, ERR_VERSION, "stored mark: format %u, this version knows up to %d", format, MARK_FORMAT);
	m->mark.count = br_u64(&r);
	m->mark.tag = br_u64(&r);
	m->base.count = br_u64(&r);
	m->base.tag = br_u64(&r);
	m->set_back = br_u8(&r);
	m->found = true;
	return br_done(&r) ? 0 : err_set(err, ERR_CORRUPT, "stored mark: %zu bytes that do not decode", len);
}

int standing_start(struct node *node, struct err *err)
{
	struct standing *s = &node->standing;
	struct saved_mark state = {0}, boot = {.of = &node->identity.id};
	bool later;

	if (store_each(node->store, STORE_STATE, STORE_MARK, take_mark, &state, err) < 0 ||
		store_each(node->store, STORE_BOOT, STORE_MARK, take_mark, &boot, err) < 0)
		return -1;
	s->mark = state.mark;
	s->base = state.base;
	s->proven = boot.found;
	later = boot.found && gossip_mark_outranks(&boot.mark, &s->mark);
	if (later)
		log_error("standing",
			"the state in %s is older than what this host did since it booted (change %llu, found %llu): it was set "
			"back; this host gives no addresses",
			node->options.state_dir, (unsigned long long)boot.mark.count, (unsigned long long)s->mark.count);
	s->set_back = state.set_back || later;
	return 0;
}

/* What our standing allows, the operator may have stopped. */
static enum ipam_hold unless_frozen(const struct node *node)
{
	return node->freeze.on ? IPAM_HOLD_FROZEN : IPAM_HOLD_NONE;
}

void standing_freeze(struct node *node)
{
	enum ipam_hold hold = ipam_holds(node->ipam);

	if (hold == IPAM_HOLD_NONE || hold == IPAM_HOLD_FROZEN)
		ipam_hold(node->ipam, unless_frozen(node), clock_boot_ms());
	custody_poke(node);
}

void standing_begin(struct node *node)
{
	struct standing *s = &node->standing;

	gossip_set_mark(node->gossip, &s->base, clock_boot_ms());
	s->now = GOSSIP_STANDING_ASKING;
	s->by = 0;
	if (s->set_back) {
		save(node, STORE_STATE, true);
		ipam_hold(node->ipam, IPAM_HOLD_FOR_GOOD, clock_boot_ms());
	} else {
		save(node, STORE_BOOT, false);
		ipam_hold(node->ipam, s->proven ? unless_frozen(node) : IPAM_HOLD_ASKING, clock_boot_ms());
	}
}

/* Another identity: what was known of the old one is no more about this one. */
void standing_new_identity(struct node *node)
{
	node->standing.set_back = false;
	node->standing.proven = true;
	save(node, STORE_STATE, true);
}

/* ---- changes ---- */

struct told {
	struct node *node;
	struct gossip_mark mark;
};

static void tell(void *arg)
{
	struct told *t = arg;

	if (t->node->gossip)
		gossip_set_mark(t->node->gossip, &t->mark, clock_boot_ms());
	cluster_poke(t->node);
	free(t);
}

static void publish_behind(struct node *node)
{
	struct told *t = alloc_new(struct told);

	*t = (struct told){node, node->standing.base};
	outbox_call(node->outbox, tell, t);
}

/* Nothing that happens on hold counts: else a state that was set back would catch up with what is known of it. Who is frozen
 * knows where it stands. */
static bool counts(const struct node *node)
{
	return node->ipam && (!ipam_holds(node->ipam) || ipam_holds(node->ipam) == IPAM_HOLD_FROZEN);
}

void standing_change(struct node *node)
{
	struct standing *s = &node->standing;

	if (!counts(node))
		return;
	s->mark.count++;
	randombytes_buf(&s->mark.tag, sizeof(s->mark.tag));
	if (s->now == GOSSIP_STANDING_SOUND)
		s->base = s->mark;
	save(node, STORE_STATE, false);
}

void standing_changed(struct node *node)
{
	if (!counts(node))
		return;
	save(node, STORE_BOOT, false);
	if (node->standing.now == GOSSIP_STANDING_SOUND)
		publish_behind(node);
}

/* ---- what others say ---- */

static void hold_for_good(struct node *node)
{
	ipam_hold(node->ipam, IPAM_HOLD_FOR_GOOD, clock_boot_ms());
	custody_poke(node);
}

void standing_set_back(struct node *node, uint32_t by)
{
	struct standing *s = &node->standing;
	char name[GOSSIP_NAME_MAX + 1];

	if (s->set_back)
		return;
	s->set_back = true;
	s->by = by;
	log_error("standing",
		"host %s knows a later state of this host: the state in %s was set back; this host gives no addresses",
		host_label(node, by, name, sizeof(name)), node->options.state_dir);
	save(node, STORE_STATE, true);
	hold_for_good(node);
}

static void found_sound(struct node *node)
{
	struct standing *s = &node->standing;

	if (s->set_back)
		return;
	if (gossip_mark_outranks(&s->mark, &s->base)) {
		s->base = s->mark;
		save(node, STORE_STATE, true);
	}
	/* A newcomer has done nothing in this cluster that it could forget. */
	if (node->cluster.epoch != FIRST_EPOCH || id_is_zero(&node->sponsor))
		publish_behind(node);
	ipam_hold(node->ipam, unless_frozen(node), clock_boot_ms());
	custody_poke(node);
}

static void found_alone(struct node *node)
{
	if (node->standing.set_back || node->standing.proven)
		return;
	log_warn("standing", "no other host answers whether it knows a later state of this one; going on with what there is");
	ipam_hold(node->ipam, unless_frozen(node), clock_boot_ms());
	custody_poke(node);
}

static void found_twin(struct node *node)
{
	bool silent = node->standing.now == GOSSIP_STANDING_SILENT;
	char name[GOSSIP_NAME_MAX + 1];

	log_error("standing", "another host speaks with the identity of this one, host %s says: this host gives no addresses%s",
		host_label(node, node->standing.by, name, sizeof(name)),
		silent ? ", and says nothing any more, since the other was here first" : "");
	hold_for_good(node);
}

struct verdict {
	struct node *node;
	enum gossip_standing standing;
	uint32_t by;
};

/* Out of the core's call: what was held goes on, and calls back into it. */
static void on_verdict(evutil_socket_t fd, short what, void *arg)
{
	struct verdict *v = arg;
	struct node *node = v->node;

	(void)fd, (void)what;
	if (node->gossip && node->ipam) {
		node->standing.now = v->standing;
		node->standing.by = v->by;
		if (v->standing == GOSSIP_STANDING_SOUND)
			found_sound(node);
		else if (v->standing == GOSSIP_STANDING_ALONE)
			found_alone(node);
		else if (v->standing == GOSSIP_STANDING_SET_BACK)
			standing_set_back(node, v->by);
		else if (v->standing != GOSSIP_STANDING_ASKING)
			found_twin(node);
	}
	free(v);
}

void standing_told(void *ctx, enum gossip_standing standing, uint32_t by)
{
	const struct timeval at_once = {0};
	struct verdict *v = alloc_new(struct verdict);

	*v = (struct verdict){ctx, standing, by};
	event_base_once(v->node->base, -1, EV_TIMEOUT, on_verdict, v, &at_once);
}

/* ---- for people ---- */

static void say_twin(struct node *node, char *buf, size_t size)
{
	char name[GOSSIP_NAME_MAX + 1];

	host_label(node, node->standing.by, name, sizeof(name));
	if (node->standing.now == GOSSIP_STANDING_SILENT)
		snprintf(buf, size,
			"another host has this host's identity and was here first (host %s met both): this one is a copy, says "
			"nothing to "
			"the others and gives no addresses. Stop it, move its state directory %s away, and join it as a new host",
			name, node->options.state_dir);
	else
		snprintf(buf, size,
			"another host has a copy of this host's state directory and speaks as this one (host %s met both): this "
			"host gives "
			"no addresses. Stop the copy, move its state directory away, then restart this daemon",
			name);
}

static void say_set_back(struct node *node, char *buf, size_t size)
{
	char name[GOSSIP_NAME_MAX + 1];
	uint32_t by = node->standing.by;

	snprintf(buf, size,
		"the state of this host was set back to an older one (restored from a backup?)%s%s: it cannot know which "
		"addresses it "
		"handed away since, and gives none. Remove its containers and let it leave (`trestle leave`); then `trestle "
		"forget %u` "
		"on another host brings its addresses back, and it can join as a new host",
		by ? "; a later one is known to host " : "", by ? host_label(node, by, name, sizeof(name)) : "",
		node->cluster.hostno);
}

const char *standing_sentence(struct node *node, char *buf, size_t size)
{
	const struct standing *s = &node->standing;

	if (s->now == GOSSIP_STANDING_SILENT || s->now == GOSSIP_STANDING_TWIN)
		say_twin(node, buf, size);
	else if (s->set_back)
		say_set_back(node, buf, size);
	else if (s->now == GOSSIP_STANDING_ALONE && !s->proven)
		snprintf(buf, size,
			"no other host answered since this one started: whether its state is the latest is not known. If it was "
			"restored from a backup, start no containers before another host can be reached");
	else if (node->ipam && ipam_holds(node->ipam) == IPAM_HOLD_ASKING)
		snprintf(buf, size,
			"this host has just started and waits for others to say whether they know a later state of it; it gives "
			"addresses then");
	else
		return NULL;
	return buf;
}

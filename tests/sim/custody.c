/* The checker of addresses: see custody.h. */
#include "tests/sim/custody.h"

#include <string.h>

#include "ipam/ipam_internal.h"

struct survey {
	uint32_t host;	 /* whose facts are being looked at */
	bool incomplete; /* some host remembers what is not so: what it was given last nobody can tell */
	uint32_t holder[CUSTODY_ADDRESSES], second[CUSTODY_ADDRESSES];
	struct custody top[CUSTODY_ADDRESSES]; /* the newest fact about it anywhere */
	bool top_open[CUSTODY_ADDRESSES];
	struct world *w;
};

static void note_address(struct survey *s, unsigned a, const struct custody *e)
{
	bool open = e->to != s->host && e->xid;
	struct custody *top = &s->top[a];

	if (e->to == s->host && s->holder[a])
		s->second[a] = s->host;
	else if (e->to == s->host)
		s->holder[a] = s->host;
	if (top->to && top->reign == e->reign && top->version == e->version) {
		if (top->to != e->to)
			world_fail(s->w, "I4: address .%u has holders %u and %u at one version", a, top->to, e->to);
		s->top_open[a] |= open;
	} else if (!top->to || custody_newer(e->reign, e->version, top->reign, top->version)) {
		*top = *e;
		s->top_open[a] = open;
	}
}

static void note_entry(void *ctx, const struct custody *e)
{
	for (unsigned a = (unsigned)e->start; a < (unsigned)(e->start + e->len) && a < CUSTODY_ADDRESSES; a++)
		note_address(ctx, a, e);
}

static void no_save(void *ctx, const void *key, size_t key_len, const void *val, size_t len, bool durable)
{
	(void)ctx;
	(void)key;
	(void)key_len;
	(void)val;
	(void)len;
	(void)durable;
}

static void no_chance(void *ctx, void *buf, size_t len)
{
	(void)ctx;
	memset(buf, 1, len);
}

/* What a host that is down would come back with. */
static void survey_disk(struct survey *s, const struct sim_host *host, const struct id128 *pool)
{
	static const struct ipam_ops ops = {.save = no_save, .random = no_chance};
	struct ipam_config config = {.hostno = host->hostno, .host_id = host->identity.id};
	struct ipam *ipam = ipam_new(&config, &ops, NULL);

	for (struct sim_pair *pair = host->ipam_disk.first; pair; pair = pair->hh.next) {
		struct err err = {0};

		if (ipam_restore(ipam, pair->key, pair->key_len, pair->val, pair->val_len, &err) < 0)
			world_fail(s->w, "host %u could not restore its addresses: %s", host->hostno, err.text);
	}
	ipam_each_custody(ipam, pool, note_entry, s);
	ipam_free(ipam);
}

static void check_address(struct world *w, const struct survey *s, const struct custody_view *view, unsigned a)
{
	if (s->second[a])
		world_fail(w, "I1: address .%u is held by hosts %u and %u", a, s->holder[a], s->second[a]);
	else if (s->holder[a] && s->top[a].to != s->holder[a])
		world_fail(
			w, "I4: address .%u is held by host %u, and a newer fact names host %u", a, s->holder[a], s->top[a].to);
	else if (!s->holder[a] && !s->top_open[a] && !s->incomplete)
		world_fail(w, "I1: address .%u is lost: host %u should have it, and nobody does or is being given it", a,
			s->top[a].to);
	if (view->holder[a] && view->holder[a] != s->holder[a] && !w->hosts[view->holder[a] - 1].set_back)
		world_fail(w, "I3: host %u has given .%u to an endpoint, and host %u holds it", view->holder[a], a, s->holder[a]);
}

void custody_check(struct world *w, const struct custody_view *view)
{
	struct survey s;

	memset(&s, 0, sizeof(s));
	s.w = w;
	for (unsigned i = 0; i < w->host_count; i++) {
		const struct sim_host *host = &w->hosts[i];

		s.host = host->hostno;
		s.incomplete |= host->set_back;
		if (host->set_back)
			continue;
		if (host->ipam)
			ipam_each_custody(host->ipam, &view->pool, note_entry, &s);
		else
			survey_disk(&s, host, &view->pool);
	}
	for (unsigned a = view->first; a <= view->last; a++)
		check_address(w, &s, view, a);
}

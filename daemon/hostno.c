/* Host numbers: a pool of addresses like others, whose addresses are numbers.
 *
 * A sponsor gives a newcomer one of its own spares, so that hosts can join on both sides of a cut; each takes spares when joining
 * has gone quiet. A number once granted belongs to that host for good, since MACs carry it: it is kept in the state file and
 * leased again at each start. Here is also what depends on who knows of an admission: a newcomer may have addresses of its
 * sponsor (ipam_peer_eligible) when a majority has it, and of others when it has itself heard a majority (ipam_be_known). */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#include "daemon/node_internal.h"

#define HOSTNO_SPARES 16    /* so that a sponsor works inside a cut from its own reserve */
#define SPARES_LULL_MS 300  /* without a new host, before this one asks for spare numbers */
#define SPARES_SPREAD_MS 20 /* for each host that may ask at the same time */
#define SPARES_WAIT_MAX_MS 5000
#define GRANT_SIZE 5 /* its number and `spread` */

static const struct prefix hostno_prefix = {.ip = {.family = 4}, .length = 12}; /* 2^20 numbers: gossip's limit */

struct hostno_grant {
	struct node *node;
	struct id128 host_id;
	uint32_t hostno; /* 0 = being asked for */
	bool saved;
	bool spread; /* a majority knows it: it may have addresses */
	UT_hash_handle hh;
};

static void grant_save(struct node *node, const struct hostno_grant *g, bool durable)
{
	uint8_t val[GRANT_SIZE];

	memcpy(val, &g->hostno, sizeof(g->hostno));
	val[4] = g->spread;
	outbox_save(node->outbox,
		store_change_new(STORE_STATE, STORE_HOSTNO, &g->host_id, sizeof(g->host_id), val, sizeof(val), durable));
}

/* Who forgets this host asks all that it knows. A host that nobody but us knew would not be asked what it got from us, and its
 * addresses would be taken for ours: so it gets none before a majority knows it. */
static void grant_look(struct node *node, struct hostno_grant *g)
{
	struct gossip_member m;
	bool spread;

	if (g->spread || !g->hostno || !node->ipam || !gossip_member_get(node->gossip, g->hostno, &m) || m.self ||
		!id_equal(&m.host_id, &g->host_id))
		return;
	spread = gossip_admission_spread(node->gossip, g->hostno);
	ipam_peer_eligible(node->ipam, g->hostno, spread, clock_boot_ms());
	if (!spread)
		return;
	custody_poke(node);
	g->spread = true;
	node->grants_unspread--;
	grant_save(node, g, false);
}

void hostno_look(struct node *node, const struct id128 *host_id)
{
	struct hostno_grant *g;

	HASH_FIND(hh, node->grants, host_id, sizeof(*host_id), g);
	if (g)
		grant_look(node, g);
}

static void grants_look(struct node *node)
{
	struct hostno_grant *g, *next;

	if (node->grants_unspread)
		HASH_ITER(hh, node->grants, g, next)
	grant_look(node, g);
}

/* The other way round: known to many, our number is ours for good, and with it our slice of each large pool; and others give us
 * addresses. Each is asked for with the word that we are not yet: it would be no use to have donors count, who may have just
 * started, or sit in a cut that nobody has noticed. */
static void known_look(struct node *node)
{
	if (node->cluster.known || !node->ipam || !gossip_known(node->gossip))
		return;
	node->cluster.known = true;
	cluster_save(node);
	ipam_be_known(node->ipam, clock_boot_ms());
	custody_poke(node);
}

static void grant_saved(struct node *node, const struct id128 *host_id)
{
	struct hostno_grant *g;

	HASH_FIND(hh, node->grants, host_id, sizeof(*host_id), g);
	if (!g)
		return;
	g->saved = true;
	gossip_admit_again(node->gossip, host_id, clock_boot_ms());
	cluster_poke(node);
}

static void grant_result(void *arg, const struct ipam_result *result)
{
	struct hostno_grant *g = arg;
	struct node *node = g->node;
	uint32_t hostno;

	if (result->code != IPAM_GRANTED) {
		struct err err = {0};
		custody_explain(node, result, NULL, &hostno_prefix, &err);
		log_warn("cluster", "no host number for a joiner: %s; it asks again", err.text);
		HASH_DEL(node->grants, g);
		free(g);
		return;
	}
	hostno = (uint32_t)ip_number(&result->address);
	g->hostno = hostno;
	g->spread = id_equal(&g->host_id, &node->identity.id);
	node->grants_unspread += !g->spread;
	grant_save(node, g, true);
	call_behind_saves(node, &g->host_id, grant_saved);
}

static struct hostno_grant *grant_new(struct node *node, const struct id128 *host_id)
{
	struct hostno_grant *g = alloc_new(struct hostno_grant);

	g->node = node;
	g->host_id = *host_id;
	HASH_ADD(hh, node->grants, host_id, sizeof(g->host_id), g);
	return g;
}

static void ask_hostno(struct node *node, struct hostno_grant *g, uint32_t hostno)
{
	char owner[ID_TEXT_SIZE];
	struct ipam_want want = {.pool = node->cluster.hostno_pool, .owner = id_format(&g->host_id, owner)};

	if (hostno)
		want.address = ip_from_number(4, hostno);
	custody_ask(node, &want, grant_result, g);
}

static void begin(struct node *node);

uint32_t hostno_admit(void *ctx, const struct id128 *host_id)
{
	struct node *node = ctx;
	struct hostno_grant *g;

	HASH_FIND(hh, node->grants, host_id, sizeof(*host_id), g);
	if (g)
		return g->saved ? g->hostno : 0;
	if (node->freeze.on)
		return 0;
	if (id_is_zero(&node->cluster.hostno_pool) && node->hostnos_ms)
		begin(node);
	if (id_is_zero(&node->cluster.hostno_pool))
		return 0;
	ask_hostno(node, grant_new(node, host_id), 0);
	return 0; /* not before it is on disk: the request waits for that */
}

static int load_grant(void *ctx, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct node *node = ctx;
	struct hostno_grant *g;
	struct id128 id;

	if (key_len != sizeof(id) || len != GRANT_SIZE)
		return err_set(err, ERR_CORRUPT, "a stored host number has %zu bytes", len);
	memcpy(&id, key, sizeof(id));
	g = grant_new(node, &id);
	memcpy(&g->hostno, val, sizeof(g->hostno));
	g->spread = ((const uint8_t *)val)[4];
	node->grants_unspread += !g->spread;
	g->saved = true;
	return 0;
}

static void lease_again(void *arg, const struct ipam_result *result)
{
	const struct hostno_grant *g = arg;

	if (result->code != IPAM_GRANTED)
		log_error("cluster", "host number %u, granted by this host, is not in its custody any more", g->hostno);
}

/* The first host makes the pool and takes its own number; later starts lease again what was granted. */
static int start(struct node *node, struct err *err)
{
	struct ipam_pool_def def = {
		.id = node->cluster.hostno_pool, .prefix = hostno_prefix, .edges_reserved = true, .host_numbers = true};
	struct hostno_grant *g, *next;
	struct ipam_totals totals;
	uint64_t now = clock_boot_ms();

	if (id_is_zero(&def.id))
		return 0; /* joined; whose pool it is comes with the records */
	if (node->cluster.hostno == FIRST_HOSTNO && !ipam_pool_totals(node->ipam, &def.id, &totals)) {
		if (ipam_pool_create(node->ipam, &def, now, err) < 0)
			return -1;
		ask_hostno(node, grant_new(node, &node->identity.id), FIRST_HOSTNO);
	} else {
		if (ipam_pool_join(node->ipam, &def, now, err) < 0)
			return -1;
		HASH_FIND(hh, node->grants, &node->identity.id, sizeof(node->identity.id), g);
		if (node->cluster.hostno == FIRST_HOSTNO && !g) /* killed between the pool and the grant of our own number */
			ask_hostno(node, grant_new(node, &node->identity.id), FIRST_HOSTNO);
		HASH_ITER(hh, node->grants, g, next)
		{
			char owner[ID_TEXT_SIZE];
			struct ipam_want want = {
				.pool = def.id, .owner = id_format(&g->host_id, owner), .address = ip_from_number(4, g->hostno)};
			if (g->saved)
				custody_ask(node, &want, lease_again, g);
		}
	}
	ipam_pool_want(node->ipam, &def.id, true, HOSTNO_SPARES, now);
	return 0;
}

static void publish_pool(struct node *node)
{
	struct pool_def def = {
		.id = node->cluster.hostno_pool, .space = POOL_SPACE_HOSTNO, .prefix = hostno_prefix, .wanted = true};
	uint8_t buf[GOSSIP_VALUE_MAX];

	if (!id_is_zero(&def.id))
		definition_publish(node, RECORD_POOL, &def.id, buf, pool_def_encode(&def, buf, sizeof(buf)));
}

static void begin(struct node *node)
{
	struct err err = {0};

	node->hostnos_ms = 0;
	node->cluster.hostno_pool = node->hostnos_seen;
	cluster_save(node);
	if (start(node, &err) < 0)
		log_error("cluster", "the pool of host numbers: %s", err.text);
	custody_feed_pool(node, &node->cluster.hostno_pool);
	publish_pool(node);
	custody_poke(node); /* the numbers that it asks for are published together with this */
}

/* Not while others join, and not all at the same time. */
void hostnos_wait(struct node *node)
{
	uint64_t at = clock_boot_ms() + SPARES_LULL_MS + randombytes_uniform(SPARES_SPREAD_MS * (HASH_COUNT(node->hosts) + 1));

	node->hostnos_ms = at < node->hostnos_until_ms ? at : node->hostnos_until_ms;
}

/* Spare numbers are not urgent, unless somebody joins here. */
void hostnos_pool_seen(struct node *node, const struct pool_def *def)
{
	if (!id_is_zero(&node->cluster.hostno_pool) || !node->ipam || node->hostnos_ms)
		return;
	node->hostnos_seen = def->id;
	node->hostnos_until_ms = clock_boot_ms() + SPARES_WAIT_MAX_MS;
	hostnos_wait(node);
}

void hostnos_turn(struct node *node, uint64_t now)
{
	if (node->hostnos_ms && now >= node->hostnos_ms)
		begin(node);
}

void hostnos_look(struct node *node)
{
	grants_look(node);
	known_look(node);
}

int hostnos_restore(struct node *node, struct err *err)
{
	return store_each(node->store, STORE_STATE, STORE_HOSTNO, load_grant, node, err);
}

int hostnos_start(struct node *node, struct err *err)
{
	if (start(node, err) < 0)
		return -1;
	publish_pool(node);
	return 0;
}

void hostnos_stop(struct node *node)
{
	struct hostno_grant *g, *next;

	node->hostnos_ms = 0;
	HASH_ITER(hh, node->grants, g, next)
	{
		HASH_DEL(node->grants, g);
		free(g);
	}
	node->grants_unspread = 0;
}

static void own_spares(void *ctx, const struct ipam_share *share)
{
	struct node *node = ((void **)ctx)[0];
	unsigned *count = ((void **)ctx)[1];

	if (share->hostno == node->cluster.hostno)
		*count = (unsigned)share->free_held;
}

unsigned hostnos_spare(struct node *node)
{
	unsigned count = 0;

	ipam_each_share(node->ipam, &node->cluster.hostno_pool, own_spares, (void *[]){node, &count});
	return count;
}

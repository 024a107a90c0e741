/* Who this host is, and gossip's side effects.
 *
 * A new host is the first of its own cluster: random cluster id and key, host number 1. Joining another cluster is possible while
 * it is alone and uses no network: what it had is then dropped, its key pair stays. The UDP socket is bound once and serves the
 * joiner and the core alike. Each start takes the next epoch, on disk before the first packet. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/node_internal.h"
#include "gossip/joiner.h"
#include "gossip/token.h"

#define NEXT_WIRE_ENV "TRESTLE_TEST_NEXT_WIRE" /* for tests: act as the release after this one */
#define NEXT_WIRE 2
#define FIRST_HOSTNO 1
#define HOSTNO_SPARES 16    /* so that a sponsor works inside a cut from its own reserve */
#define SPARES_LULL_MS 300  /* without a new host, before this one asks for spare numbers */
#define SPARES_SPREAD_MS 20 /* for each host that may ask at the same time */
#define SPARES_WAIT_MAX_MS 5000
#define JOIN_TIMEOUT_MS 10000
#define LEAVE_MS 5000 /* for handing addresses over */
#define RECEIVE_BATCH 16
#define SOCKET_BUFFER (4 * 1024 * 1024)
#define MEASURE_EVERY_MS 200
#define LATE_MS 50
#define LOOP_TICK_MS 4
#define HEAR_FIRST_BATCHES 512

struct join {
	struct joiner *joiner;
	struct event *timer;
	void (*fn)(void *arg, const struct err *err);
	void *arg;
	bool ended;
	struct joiner_result result;
	struct err err;
	struct node *node;
};

void random_bytes(void *ctx, void *buf, size_t len)
{
	(void)ctx;
	randombytes_buf(buf, len);
}

struct id128 random_id(void)
{
	struct id128 id;
	randombytes_buf(&id, sizeof(id));
	return id;
}

const char *host_label(struct node *node, uint32_t hostno, char *buf, size_t size)
{
	struct gossip_member m;

	if (node->gossip && gossip_member_get(node->gossip, hostno, &m))
		snprintf(buf, size, "%s", m.name);
	else
		snprintf(buf, size, "host number %u", hostno);
	return buf;
}

/* ---- identity and cluster state ---- */

struct blob {
	bool found;
	uint8_t bytes[RECORD_MAX];
	size_t len;
};

static int take_blob(void *ctx, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct blob *b = ctx;

	(void)key, (void)key_len;
	if (len > sizeof(b->bytes))
		return err_set(err, ERR_CORRUPT, "a stored value has %zu bytes", len);
	memcpy(b->bytes, val, len);
	b->len = len;
	b->found = true;
	return 0;
}

static int save_now(struct node *node, enum store_kind kind, const void *val, size_t len, struct err *err)
{
	struct store_change *c = store_change_new(STORE_STATE, kind, "", 0, val, len, true);
	int result = c ? store_apply(node->store, STORE_STATE, c, NULL, err) : err_set(err, ERR_INTERNAL, "out of memory");

	free(c);
	return result;
}

static int load_identity(struct node *node, struct err *err)
{
	struct blob b = {0};

	if (store_each(node->store, STORE_STATE, STORE_IDENTITY, take_blob, &b, err) < 0)
		return -1;
	if (b.found && b.len != IDENTITY_SEED_SIZE)
		return err_set(err, ERR_CORRUPT, "the stored host key has %zu bytes, expected %d", b.len, IDENTITY_SEED_SIZE);
	if (!b.found) {
		randombytes_buf(b.bytes, IDENTITY_SEED_SIZE);
		if (save_now(node, STORE_IDENTITY, b.bytes, IDENTITY_SEED_SIZE, err) < 0)
			return -1;
	}
	identity_from_seed(&node->identity, b.bytes);
	sodium_memzero(&b, sizeof(b));
	return 0;
}

/* "ID" or "ID\nUUID": of the system and of the (virtual) hardware. Either may be unknown, "". */
struct machine {
	char id[sizeof(((struct options *)0)->machine_id)], uuid[sizeof(((struct options *)0)->machine_uuid)];
};

static void machine_read(struct machine *m, const struct blob *b)
{
	const char *text = (const char *)b->bytes, *end = memchr(text, '\n', b->len);
	size_t len = end ? (size_t)(end - text) : b->len;

	memset(m, 0, sizeof(*m));
	snprintf(m->id, sizeof(m->id), "%.*s", (int)len, text);
	if (end)
		snprintf(m->uuid, sizeof(m->uuid), "%.*s", (int)(b->len - len - 1), end + 1);
}

static bool differ(const char *a, const char *b)
{
	return *a && *b && strcmp(a, b) != 0;
}

static int machine_save(struct node *node, const struct machine *was, struct err *err)
{
	const struct options *o = &node->options;
	char text[sizeof(struct machine) + 1];

	snprintf(text, sizeof(text), "%s\n%s", o->machine_id[0] ? o->machine_id : was->id,
		o->machine_uuid[0] ? o->machine_uuid : was->uuid);
	return save_now(node, STORE_MACHINE, text, strlen(text), err);
}

/* A copied disk makes two hosts of one identity: both would give out the same addresses. Images are cloned with their machine id,
 * so the hardware is asked too. */
static int check_machine(struct node *node, struct err *err)
{
	const struct options *o = &node->options;
	struct machine of = {0};
	struct blob b = {0};
	const char *was, *is;

	if (store_each(node->store, STORE_STATE, STORE_MACHINE, take_blob, &b, err) < 0)
		return -1;
	machine_read(&of, &b);
	if (!differ(of.id, o->machine_id) && !differ(of.uuid, o->machine_uuid))
		return (o->machine_id[0] && !of.id[0]) || (o->machine_uuid[0] && !of.uuid[0]) ? machine_save(node, &of, err) : 0;
	was = differ(of.id, o->machine_id) ? of.id : of.uuid;
	is = differ(of.id, o->machine_id) ? o->machine_id : o->machine_uuid;
	if (!o->adopt[0] || (strcmp(of.id, o->adopt) != 0 && strcmp(of.uuid, o->adopt) != 0))
		return err_set(err, ERR_CONFLICT,
			"%s belongs to the machine %s, and this one is %s: two hosts with one identity would give out the same "
			"addresses. If this is a copy, move it away and join as a new host; if the other machine is gone for "
			"good, or "
			"this one only got a new id, start once with --adopt %s",
			o->state_dir, was, is, was);
	log_warn("cluster", "this machine, %s, adopts the state of %s", is, was);
	return machine_save(node, &of, err);
}

static int save_cluster_now(struct node *node, struct err *err)
{
	uint8_t buf[RECORD_MAX];
	size_t len = cluster_state_encode(&node->cluster, buf, sizeof(buf));

	return save_now(node, STORE_CLUSTER, buf, len, err);
}

void cluster_save(struct node *node)
{
	uint8_t buf[RECORD_MAX];
	size_t len = cluster_state_encode(&node->cluster, buf, sizeof(buf));

	outbox_save(node->outbox, store_change_new(STORE_STATE, STORE_CLUSTER, "", 0, buf, len, true));
}

/* The first of a cluster of its own. */
static void make_cluster(struct cluster_state *c)
{
	*c = (struct cluster_state){.cluster_id = random_id(), .hostno = FIRST_HOSTNO, .hostno_pool = random_id()};
	randombytes_buf(c->key, sizeof(c->key));
}

static int load_cluster(struct node *node, struct err *err)
{
	struct blob b = {0};

	if (store_each(node->store, STORE_STATE, STORE_CLUSTER, take_blob, &b, err) < 0)
		return -1;
	if (b.found) {
		if (cluster_state_decode(b.bytes, b.len, &node->cluster, err) < 0)
			return -1;
	} else {
		make_cluster(&node->cluster);
	}
	sodium_memzero(&b, sizeof(b));
	node->cluster.epoch++;
	return save_cluster_now(node, err);
}

/* What a host is in a cluster, and nowhere else. */
static const enum store_kind of_a_member[] = {
	STORE_GOSSIP, STORE_IPAM, STORE_NETWORK, STORE_DOCKER_NETWORK, STORE_POOL, STORE_HOSTNO, STORE_LEAVING};
#define OF_A_MEMBER (sizeof(of_a_member) / sizeof(of_a_member[0]))

/* It said goodbye and was killed before it had become somebody else. Its old self must not come back: the others do not wait for
 * its promises any more. */
static int finish_leaving(struct node *node, struct err *err)
{
	struct blob b = {0};

	if (store_each(node->store, STORE_STATE, STORE_LEAVING, take_blob, &b, err) < 0)
		return -1;
	if (!b.found)
		return 0;
	log_info("cluster", "this host has left its cluster; it is the first of its own now, with a new identity");
	if (store_wipe(node->store, STORE_BOOT, STORE_LEASE, err) < 0)
		return -1;
	if (store_wipe(node->store, STORE_STATE, STORE_IDENTITY, err) < 0 ||
		store_wipe(node->store, STORE_STATE, STORE_CLUSTER, err) < 0 ||
		store_wipe(node->store, STORE_STATE, STORE_MARK, err) < 0)
		return -1;
	/* The note last: until here a kill leads back to this place. */
	return store_replace(node->store, STORE_STATE, of_a_member, OF_A_MEMBER, NULL, err);
}

/* ---- the socket ---- */

socklen_t cluster_to_sockaddr(const struct gossip_addr *addr, struct sockaddr_storage *ss)
{
	memset(ss, 0, sizeof(*ss));
	if (addr->ip.family == 4) {
		struct sockaddr_in *s = (struct sockaddr_in *)ss;
		s->sin_family = AF_INET;
		s->sin_port = htons(addr->port);
		memcpy(&s->sin_addr, addr->ip.bytes, 4);
		return sizeof(*s);
	}
	struct sockaddr_in6 *s = (struct sockaddr_in6 *)ss;
	s->sin6_family = AF_INET6;
	s->sin6_port = htons(addr->port);
	memcpy(&s->sin6_addr, addr->ip.bytes, 16);
	return sizeof(*s);
}

void cluster_from_sockaddr(const struct sockaddr_storage *ss, struct gossip_addr *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (ss->ss_family == AF_INET) {
		const struct sockaddr_in *s = (const struct sockaddr_in *)ss;
		ret->ip.family = 4;
		memcpy(ret->ip.bytes, &s->sin_addr, 4);
		ret->port = ntohs(s->sin_port);
	} else if (ss->ss_family == AF_INET6) {
		const struct sockaddr_in6 *s = (const struct sockaddr_in6 *)ss;
		ret->ip.family = 6;
		memcpy(ret->ip.bytes, &s->sin6_addr, 16);
		ret->port = ntohs(s->sin6_port);
	}
}

static void flush_out(struct node *node)
{
	if (udp_flush(&node->out, node->udp_fd))
		event_add(node->udp_writable, NULL);
}

/* Behind a callback, or when the socket is writable. */
static void on_out(evutil_socket_t fd, short what, void *arg)
{
	struct node *node = arg;

	(void)fd, (void)what;
	flush_out(node);
}

static void send_packet(void *ctx, const struct gossip_addr *to, const void *packet, size_t len)
{
	struct node *node = ctx;
	struct sockaddr_storage ss;
	socklen_t ss_len;

	if (streams_answer(node, to, packet, len) || to->ip.family != node->options.listen.ip.family)
		return;
	ss_len = cluster_to_sockaddr(to, &ss);
	if (node->out.count == 0)
		event_active(node->out_event, EV_WRITE, 0);
	udp_queue(&node->out, node->udp_fd, &ss, ss_len, packet, len);
}

static void on_refused(void *ctx, const struct sockaddr_storage *ss)
{
	struct node *node = ctx;
	struct gossip_addr addr;

	cluster_from_sockaddr(ss, &addr);
	if (node->gossip && !node->left)
		gossip_unreachable(node->gossip, &addr, clock_boot_ms());
}

static void receive(struct node *node, const struct gossip_addr *from, const void *packet, size_t len, bool stream, uint64_t now)
{
	if (node->join && !node->join->ended) {
		joiner_packet(node->join->joiner, from, packet, len, now);
		event_active(node->join->timer, EV_TIMEOUT, 0); /* what it heard may let it ask again sooner */
	} else if (node->gossip && !node->left) {
		if (stream)
			gossip_stream_packet(node->gossip, from, packet, len, now);
		else
			gossip_packet(node->gossip, from, packet, len, now);
	}
}

/* Returns how many came, -1 (errno). */
static int receive_batch(struct node *node, int fd)
{
	static uint8_t buffers[RECEIVE_BATCH][GOSSIP_PACKET_MAX + 1];
	static uint8_t control[RECEIVE_BATCH][UDP_CONTROL_SIZE] __attribute__((aligned(8)));
	static struct sockaddr_storage from[RECEIVE_BATCH];
	static struct mmsghdr msgs[RECEIVE_BATCH];
	static struct iovec iov[RECEIVE_BATCH];
	static int used = RECEIVE_BATCH; /* of the arrays, since they were made ready */
	uint64_t now = clock_boot_ms();
	int count;

	for (int i = 0; i < used; i++) {
		iov[i] = (struct iovec){.iov_base = buffers[i], .iov_len = sizeof(buffers[i])};
		msgs[i].msg_hdr = (struct msghdr){.msg_name = &from[i],
			.msg_namelen = sizeof(from[i]),
			.msg_iov = &iov[i],
			.msg_iovlen = 1,
			.msg_control = control[i],
			.msg_controllen = UDP_CONTROL_SIZE};
	}
	count = recvmmsg(fd, msgs, RECEIVE_BATCH, MSG_DONTWAIT, NULL);
	used = count > 0 ? count : 0;
	if (node->gossip && count > 0)
		gossip_clock_us(node->gossip, clock_boot_us());
	for (int i = 0; i < count; i++) {
		struct gossip_addr addr;
		cluster_from_sockaddr(&from[i], &addr);
		udp_note_datagram(&node->udp_measure, &msgs[i].msg_hdr);
		receive(node, &addr, buffers[i], msgs[i].msg_len, false, now);
	}
	return count;
}

static void gossip_turn(struct node *node, uint64_t now);
static void arm_gossip(struct node *node, uint64_t now, uint64_t due);

/* What follows of most packets has time. */
static void after_packets(struct node *node, uint64_t now)
{
	uint64_t due;

	if (!node->gossip || node->left)
		return;
	due = node->grants_unspread || !node->cluster.known ? 0 : gossip_due(node->gossip);
	if (due <= now)
		gossip_turn(node, now);
	else if (due < node->gossip_due_ms)
		arm_gossip(node, now, due);
}

/* Pending errors make the first call fail. */
static void on_packets(evutil_socket_t fd, short what, void *arg)
{
	struct node *node = arg;

	(void)what;
	if (receive_batch(node, fd) < 0) {
		udp_take_errors(fd, on_refused, node);
		receive_batch(node, fd);
	}
	after_packets(node, clock_boot_ms());
	flush_out(node);
}

void cluster_packet(struct node *node, const struct gossip_addr *from, const void *packet, size_t len)
{
	receive(node, from, packet, len, true, clock_boot_ms());
	cluster_poke(node);
}

static int open_socket(struct node *node, struct err *err)
{
	struct sockaddr_storage ss;
	socklen_t len = cluster_to_sockaddr(&node->options.listen, &ss);
	int on = 1, size = SOCKET_BUFFER;
	char text[IP_TEXT_SIZE];

	node->udp_fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (node->udp_fd < 0)
		return err_sys(err, errno, "UDP socket");
	if (ss.ss_family == AF_INET6)
		setsockopt(node->udp_fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	setsockopt(node->udp_fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	udp_prepare(node->udp_fd, ss.ss_family);
	if (bind(node->udp_fd, (struct sockaddr *)&ss, len) < 0)
		return err_sys(err, errno,
			"cannot listen on UDP %s port %u (is the address on this host, and no other daemon on the port?)",
			ip_format(&node->options.listen.ip, text), node->options.listen.port);
	node->udp_event = event_new(node->base, node->udp_fd, EV_READ | EV_PERSIST, on_packets, node);
	node->out_event = event_new(node->base, -1, 0, on_out, node);
	node->udp_writable = event_new(node->base, node->udp_fd, EV_WRITE, on_out, node);
	if (!node->udp_event || !node->out_event || !node->udp_writable || event_add(node->udp_event, NULL) < 0)
		return err_set(err, ERR_INTERNAL, "cannot watch the UDP socket");
	return 0;
}

int cluster_start(struct node *node, struct err *err)
{
	if (check_machine(node, err) < 0 || finish_leaving(node, err) < 0 || load_identity(node, err) < 0 ||
		load_cluster(node, err) < 0)
		return -1;
	return open_socket(node, err) < 0 ? -1 : streams_open(node, err);
}

/* ---- effects of the core ---- */

struct host *cluster_host(struct node *node, uint32_t hostno)
{
	struct host *host;
	HASH_FIND(hh, node->hosts, &hostno, sizeof(hostno), host);
	return host;
}

static void tell_members(struct node *node)
{
	unsigned count = 0, max = HASH_COUNT(node->hosts) + 1;
	struct ip *vteps = calloc(max, sizeof(*vteps));
	struct host *host, *next;

	if (!vteps)
		abort();
	vteps[count++] = node->options.vtep;
	HASH_ITER(hh, node->hosts, host, next)
	if (host->state != GOSSIP_LEFT && ip_is_set(&host->vtep)) /* an admission alone tells no address */
		vteps[count++] = host->vtep;
	datapath_set_members(node, vteps, count);
	free(vteps);
}

static void grant_look_of(struct node *node, const struct id128 *host_id);

static void hostnos_wait(struct node *node);

static void on_member(void *ctx, const struct gossip_member *m, enum gossip_state old)
{
	struct node *node = ctx;
	struct host *host = cluster_host(node, m->hostno);
	bool moved;

	if (!host) {
		host = calloc(1, sizeof(*host));
		if (!host)
			abort();
		host->hostno = m->hostno;
		host->state = GOSSIP_LEFT;
		HASH_ADD(hh, node->hosts, hostno, sizeof(host->hostno), host);
		if (node->hostnos_ms)
			hostnos_wait(node);
	}
	moved = !ip_equal(&host->vtep, &m->vtep) || (m->state == GOSSIP_LEFT) != (host->state == GOSSIP_LEFT);
	if (host->state != m->state)
		log_info("cluster", "host %s (number %u) is %s, was %s", m->name, m->hostno, gossip_state_name(m->state),
			gossip_state_name(old));
	host->state = m->state;
	host->since_ms = m->since_ms;
	host->vtep = m->vtep;
	if (moved || (host->hidden && m->state <= GOSSIP_SUSPECT)) {
		host->hidden = m->state == GOSSIP_LEFT || estate_is_buried(node, m->hostno);
		tell_members(node);
		segments_host_changed(node, host);
	}
	if (node->ipam && m->state == GOSSIP_LEFT)
		ipam_peer_left(node->ipam, m->hostno, clock_boot_ms());
	else if (node->ipam)
		ipam_peer_alive(node->ipam, m->hostno, m->state <= GOSSIP_SUSPECT, clock_boot_ms());
	grant_look_of(node, &m->host_id);
	custody_poke(node);
}

static void on_record(
	void *ctx, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len)
{
	struct node *node = ctx;
	const uint8_t *k = key;
	struct id128 id;

	if (key_len > 0 && k[0] == RECORD_ENDPOINT) {
		if (!val || (gossip_subscribed(node->gossip, topic) && !estate_is_buried(node, origin)))
			segments_record(node, origin, topic, key, key_len, val, val_len);
		return;
	}
	if (key_len < 1 + sizeof(id))
		return;
	memcpy(&id, k + 1, sizeof(id));
	custody_poke(node);
	switch (k[0]) {
	case RECORD_NETWORK:
		network_changed(node, &id);
		break;
	case RECORD_POOL:
		pool_changed(node, &id);
		break;
	case RECORD_CUSTODY:
		custody_record(node, origin, key, key_len, val, val_len);
		break;
	case RECORD_DECREE:
		estate_record(node, origin, val, val_len);
		break;
	default: /* of a newer release */
		break;
	}
}

static void on_told(void *ctx, uint32_t from, uint8_t kind, const void *body, size_t len)
{
	struct node *node = ctx;

	if (kind == TELL_IPAM) {
		ipam_message(node->ipam, from, body, len, clock_boot_ms());
		custody_poke(node);
	} else {
		claims_told(node, from, kind, body, len);
	}
}

static void on_save(void *ctx, const void *key, size_t key_len, const void *val, size_t len)
{
	struct node *node = ctx;
	/* Cluster keys must not be lost; what is told of other members would be learned again. */
	bool durable = key_len == 1 && *(const char *)key == GOSSIP_SAVED_KEYS;
	struct store_change *c = store_change_new(STORE_STATE, STORE_GOSSIP, key, key_len, val, len, durable);

	if (c)
		outbox_save(node->outbox, c);
}

struct kept {
	struct node *node;
	uint64_t ticket;
};

static void on_kept(void *arg)
{
	struct kept *k = arg;

	if (k->node->gossip)
		gossip_kept(k->node->gossip, k->ticket, clock_boot_ms());
	cluster_poke(k->node);
	free(k);
}

static void on_sync(void *ctx, uint64_t ticket)
{
	struct node *node = ctx;
	struct kept *k = calloc(1, sizeof(*k));

	if (!k)
		abort();
	*k = (struct kept){node, ticket};
	outbox_call(node->outbox, on_kept, k);
}

static void send_stream(void *ctx, const struct gossip_addr *to, const void *packet, size_t len)
{
	streams_send(ctx, to, packet, len);
}

static void on_forgotten(void *ctx, uint32_t by)
{
	estate_forgotten(ctx, by);
}

static int64_t wall(void *ctx)
{
	(void)ctx;
	return clock_wall_s();
}

/* ---- host numbers ---- */

/* A number once granted belongs to that host for good: MACs carry it. Kept in the state file and leased again at each start. */
struct hostno_grant {
	struct node *node;
	struct id128 host_id;
	uint32_t hostno; /* 0 = being asked for */
	bool saved;
	bool spread; /* a majority knows it: it may have addresses */
	UT_hash_handle hh;
};

#define GRANT_SIZE 5 /* its number and `spread`; 4 of an earlier trestle, which did not look at that */

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

static void grant_look_of(struct node *node, const struct id128 *host_id)
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

/* The other way round: known to many, our number is ours for good, and with it our slice of each large pool. */
static void known_look(struct node *node)
{
	if (node->cluster.known || !node->ipam || !gossip_known(node->gossip))
		return;
	node->cluster.known = true;
	cluster_save(node);
	ipam_open_slices(node->ipam, clock_boot_ms());
	custody_poke(node);
}

static const struct prefix hostno_prefix = {.ip = {.family = 4}, .length = 12}; /* 2^20 numbers: gossip's limit */

static void grant_saved(struct node *node, const struct id128 *host_id)
{
	struct hostno_grant *g;

	HASH_FIND(hh, node->grants, host_id, sizeof(*host_id), g);
	if (!g)
		return;
	g->saved = true;
	gossip_admit_again(node->gossip, clock_boot_ms());
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
	struct hostno_grant *g = calloc(1, sizeof(*g));

	if (!g)
		abort();
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

static void hostnos_begin(struct node *node);

static uint32_t on_admit(void *ctx, const struct id128 *host_id)
{
	struct node *node = ctx;
	struct hostno_grant *g;

	HASH_FIND(hh, node->grants, host_id, sizeof(*host_id), g);
	if (g)
		return g->saved ? g->hostno : 0;
	if (id_is_zero(&node->cluster.hostno_pool) && node->hostnos_ms)
		hostnos_begin(node);
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

	if (key_len != sizeof(id) || (len != GRANT_SIZE && len != sizeof(g->hostno)))
		return err_set(err, ERR_CORRUPT, "a stored host number has %zu bytes", len);
	memcpy(&id, key, sizeof(id));
	g = grant_new(node, &id);
	memcpy(&g->hostno, val, sizeof(g->hostno));
	g->spread = len == sizeof(g->hostno) || ((const uint8_t *)val)[4];
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
static int start_hostnos(struct node *node, struct err *err)
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

static void publish_hostno_pool(struct node *node)
{
	struct pool_def def = {
		.id = node->cluster.hostno_pool, .space = POOL_SPACE_HOSTNO, .prefix = hostno_prefix, .wanted = true};
	uint8_t key[17], buf[GOSSIP_VALUE_MAX];

	if (id_is_zero(&def.id))
		return;
	key[0] = RECORD_POOL;
	memcpy(key + 1, &def.id, sizeof(def.id));
	cluster_publish(node, TOPIC_CLUSTER, key, sizeof(key), buf, pool_def_encode(&def, buf, sizeof(buf)));
}

static void hostnos_begin(struct node *node)
{
	struct err err = {0};

	node->hostnos_ms = 0;
	node->cluster.hostno_pool = node->hostnos_seen;
	cluster_save(node);
	if (start_hostnos(node, &err) < 0)
		log_error("cluster", "the pool of host numbers: %s", err.text);
	custody_feed_pool(node, &node->cluster.hostno_pool);
	publish_hostno_pool(node);
}

/* Not while others join, and not all at the same time. */
static void hostnos_wait(struct node *node)
{
	uint64_t at = clock_boot_ms() + SPARES_LULL_MS + randombytes_uniform(SPARES_SPREAD_MS * (HASH_COUNT(node->hosts) + 1));

	node->hostnos_ms = at < node->hostnos_until_ms ? at : node->hostnos_until_ms;
}

/* Spare numbers are not urgent, unless somebody joins here. */
void cluster_pool_seen(struct node *node, const struct pool_def *def)
{
	if (!id_is_zero(&node->cluster.hostno_pool) || !node->ipam || node->hostnos_ms)
		return;
	node->hostnos_seen = def->id;
	node->hostnos_until_ms = clock_boot_ms() + SPARES_WAIT_MAX_MS;
	hostnos_wait(node);
}

/* ---- running the core ---- */

/* What waited in the socket while this host was late or paused (a full machine, SIGSTOP, a suspended one) is heard before anybody
 * is blamed for silence. */
static void hear_first(struct node *node)
{
	for (int i = 0; i < HEAR_FIRST_BATCHES && receive_batch(node, node->udp_fd) == RECEIVE_BATCH; i++)
		;
}

static void measure_self(struct node *node, uint64_t now)
{
	struct udp_measure *m = &node->udp_measure;

	udp_note_wakeup(m, now);
	if (m->lag_ms > LATE_MS)
		hear_first(node);
	if (now < node->measured_ms + MEASURE_EVERY_MS)
		return;
	gossip_health(node->gossip, m->lag_ms, m->dropped, now);
	node->measured_ms = now;
	m->lag_ms = 0;
	m->dropped = false;
}

static void arm_gossip(struct node *node, uint64_t now, uint64_t due)
{
	uint64_t wait = due > now ? due - now : 1;
	struct timeval tv;

	if (wait > 1000)
		wait = 1000;
	tv = (struct timeval){.tv_sec = (time_t)(wait / 1000), .tv_usec = (suseconds_t)(wait % 1000) * 1000};
	event_add(node->gossip_timer, &tv);
	node->gossip_due_ms = node->udp_measure.due_ms = now + wait;
}

static void gossip_turn(struct node *node, uint64_t now)
{
	if (!node->gossip || node->left)
		return;
	measure_self(node, now);
	if (node->hostnos_ms && now >= node->hostnos_ms)
		hostnos_begin(node);
	gossip_clock_us(node->gossip, clock_boot_us());
	arm_gossip(node, now, gossip_tick(node->gossip, now));
	segments_tell_arrivals(node);
	grants_look(node);
	known_look(node);
	housekeeping_turn(node, now);
}

/* The loop's clock counts in ticks of the kernel, some ms, and may be ahead of ours by one. */
static void on_gossip_timer(evutil_socket_t fd, short what, void *arg)
{
	struct node *node = arg;
	uint64_t now = clock_boot_ms();

	(void)fd, (void)what;
	if (now < node->gossip_due_ms && node->gossip_due_ms <= now + LOOP_TICK_MS)
		now = node->gossip_due_ms;
	gossip_turn(node, now);
	flush_out(node);
}

/* Not at once: the caller may be within one of the core's callbacks. By a timer, which comes behind what is ready to be written:
 * an answer does not wait for the packets that its change makes. */
void cluster_poke(struct node *node)
{
	struct timeval now = {0};

	if (!node->gossip || node->left)
		return;
	node->gossip_due_ms = 0;
	event_add(node->gossip_timer, &now);
}

static const struct gossip_ops gossip_ops = {
	.send = send_packet,
	.random = random_bytes,
	.member = on_member,
	.record = on_record,
	.told = on_told,
	.admit = on_admit,
	.save = on_save,
	.sync = on_sync,
	.stream = send_stream,
	.forgotten = on_forgotten,
	.standing = standing_told,
	.wall_s = wall,
};

static int restore_gossip(void *ctx, const void *key, size_t key_len, const void *val, size_t len, struct err *err)
{
	struct node *node = ctx;
	return gossip_restore(node->gossip, key, key_len, val, len, err);
}

static struct gossip *make_core(struct node *node)
{
	struct gossip_config c = {
		.identity = &node->identity,
		.cluster_id = node->cluster.cluster_id,
		.hostno = node->cluster.hostno,
		.epoch = node->cluster.epoch,
		.addr = node->options.listen,
		.vtep = node->options.vtep,
	};
	struct gossip *g;

	if (getenv(NEXT_WIRE_ENV))
		c.wire_max = NEXT_WIRE;
	randombytes_buf(&c.boot_tag, sizeof(c.boot_tag));
	if (node->cluster.epoch == FIRST_EPOCH)
		c.source = node->sponsor;
	if (node->welcome.boot) {
		c.boot_tag = node->welcome.boot;
		c.source_boot = node->welcome.source_boot;
	}
	node->welcome.boot = 0; /* of one start */
	memcpy(c.cluster_key, node->cluster.key, sizeof(c.cluster_key));
	snprintf(c.name, sizeof(c.name), "%s", node->options.name);
	g = gossip_new(&c, &gossip_ops, node, clock_boot_ms());
	sodium_memzero(&c, sizeof(c));
	return g;
}

static void know_member(void *ctx, const struct gossip_member *m)
{
	struct node *node = ctx;

	if (!m->self && !cluster_host(node, m->hostno))
		on_member(node, m, GOSSIP_LEFT);
}

int cluster_run_gossip(struct node *node, struct err *err)
{
	if (!node->gossip_timer)
		node->gossip_timer = evtimer_new(node->base, on_gossip_timer, node);
	node->gossip = make_core(node);
	if (!node->gossip || !node->gossip_timer)
		return err_set(err, ERR_INTERNAL, "out of memory");
	if (store_each(node->store, STORE_STATE, STORE_GOSSIP, restore_gossip, node, err) < 0 ||
		store_each(node->store, STORE_STATE, STORE_HOSTNO, load_grant, node, err) < 0)
		return -1;
	networks_subscribe(node);
	standing_begin(node);
	gossip_start(node->gossip, clock_boot_ms());
	if (start_hostnos(node, err) < 0)
		return -1;
	publish_hostno_pool(node);
	/* Members known from disk are members before they are heard, or the guard would drop their frames until then. */
	gossip_each_member(node->gossip, know_member, node);
	tell_members(node);
	cluster_poke(node);
	return 0;
}

static void drop_core(struct node *node)
{
	struct host *host, *next_host;
	struct hostno_grant *grant, *next_grant;

	gossip_free(node->gossip);
	node->gossip = NULL;
	node->hostnos_ms = 0;
	HASH_ITER(hh, node->hosts, host, next_host)
	{
		HASH_DEL(node->hosts, host);
		free(host);
	}
	HASH_ITER(hh, node->grants, grant, next_grant)
	{
		HASH_DEL(node->grants, grant);
		free(grant);
	}
	node->grants_unspread = 0;
}

void cluster_stop(struct node *node)
{
	if (node->join) {
		joiner_free(node->join->joiner);
		event_free(node->join->timer);
		free(node->join);
		node->join = NULL;
	}
	streams_close(node);
	if (node->udp_event)
		event_free(node->udp_event);
	if (node->out_event)
		event_free(node->out_event);
	udp_flush(&node->out, node->udp_fd);
	udp_out_free(&node->out);
	if (node->udp_writable)
		event_free(node->udp_writable);
	if (node->gossip_timer)
		event_free(node->gossip_timer);
	if (node->udp_fd >= 0)
		close(node->udp_fd);
	drop_core(node);
	identity_wipe(&node->identity);
	sodium_memzero(&node->cluster, sizeof(node->cluster));
}

void cluster_publish(struct node *node, uint64_t topic, const void *key, size_t key_len, const void *val, size_t len)
{
	struct err err = {0};

	if (!node->gossip)
		return;
	if (!val)
		gossip_del(node->gossip, topic, key, key_len, clock_boot_ms());
	else if (gossip_put(node->gossip, topic, key, key_len, val, len, clock_boot_ms(), &err) < 0)
		log_error("cluster", "a record of kind %c is not published: %s", *(const char *)key, err.text);
	flush_out(node);
	cluster_poke(node);
}

/* ---- tokens, joining, leaving ---- */

bool cluster_alone(const struct node *node)
{
	return HASH_COUNT(node->hosts) == 0;
}

static void own_spares(void *ctx, const struct ipam_share *share)
{
	struct node *node = ((void **)ctx)[0];
	unsigned *count = ((void **)ctx)[1];

	if (share->hostno == node->cluster.hostno)
		*count = (unsigned)share->free_held;
}

unsigned cluster_spare_numbers(struct node *node)
{
	unsigned count = 0;

	ipam_each_share(node->ipam, &node->cluster.hostno_pool, own_spares, (void *[]){node, &count});
	return count;
}

struct seed_list {
	struct token *token;
};

static void add_seed(void *ctx, const struct gossip_member *m)
{
	struct token *token = ((struct seed_list *)ctx)->token;

	if (m->state == GOSSIP_ALIVE && !m->self && token->seed_count < TOKEN_SEEDS_MAX)
		token->seeds[token->seed_count++] = m->addr;
}

int cluster_token(struct node *node, int64_t ttl_s, char ret_text[512], int64_t *ret_expires_s, struct err *err)
{
	struct token token = {
		.cluster_id = node->cluster.cluster_id, .token_id = random_id(), .expires_s = clock_wall_s() + ttl_s};
	struct seed_list list = {&token};
	char text[TOKEN_TEXT_MAX];
	uint8_t key[CLUSTER_KEY_SIZE];

	token.seeds[token.seed_count++] = node->options.listen;
	gossip_each_member(node->gossip, add_seed, &list);
	gossip_active_key(node->gossip, key);
	token_secret(key, &token.token_id, token.expires_s, token.secret);
	sodium_memzero(key, sizeof(key));
	if (token_encode(&token, text, err) < 0)
		return -1;
	snprintf(ret_text, 512, "%s", text);
	*ret_expires_s = token.expires_s;
	return 0;
}

static void end_join(struct node *node, const struct err *err)
{
	struct join *j = node->join;

	node->join = NULL;
	j->fn(j->arg, err);
	joiner_free(j->joiner);
	event_free(j->timer);
	sodium_memzero(j, sizeof(*j));
	free(j);
}

/* ---- becoming somebody else: a member of another cluster, or again the first of one's own ---- */

struct change {
	struct node *node;
	struct worker_job job;
	struct store_change *saves;
	struct joiner_result result; /* saved pairs for the new core */
	uint8_t seed[IDENTITY_SEED_SIZE];
	bool new_identity;
	void (*fn)(void *arg, const struct err *err);
	void *arg;
	int failed;
	struct err err;
};

/* On the worker: what this host was before goes, what it is now is written. */
static void change_run(void *arg)
{
	struct change *c = arg;

	c->failed = store_replace(c->node->store, STORE_STATE, of_a_member, OF_A_MEMBER, c->saves, &c->err);
}

static void add_save(struct change *c, enum store_kind kind, const void *key, size_t key_len, const void *val, size_t len)
{
	struct store_change *s = store_change_new(STORE_STATE, kind, key, key_len, val, len, true);

	if (!s)
		abort();
	s->next = c->saves;
	c->saves = s;
}

static void list_saves(struct change *c)
{
	uint8_t buf[RECORD_MAX];

	for (unsigned i = 0; i < c->result.saved_count; i++)
		add_save(c, STORE_GOSSIP, c->result.saved[i].key, c->result.saved[i].key_len, c->result.saved[i].val,
			c->result.saved[i].val_len);
	if (c->new_identity)
		add_save(c, STORE_IDENTITY, "", 0, c->seed, sizeof(c->seed));
	add_save(c, STORE_CLUSTER, "", 0, buf, cluster_state_encode(&c->node->cluster, buf, sizeof(buf)));
	sodium_memzero(buf, sizeof(buf));
}

static void change_free(struct change *c)
{
	while (c->saves) {
		struct store_change *next = c->saves->next;
		sodium_memzero(c->saves->bytes, c->saves->key_len + c->saves->len);
		free(c->saves);
		c->saves = next;
	}
	sodium_memzero(c, sizeof(*c));
	free(c);
}

static void change_done(void *arg)
{
	struct change *c = arg;
	struct node *node = c->node;

	if (!c->failed && store_wipe(node->store, STORE_BOOT, STORE_LEASE, &c->err) == 0 && custody_start(node, &c->err) == 0 &&
		cluster_run_gossip(node, &c->err) == 0) {
		custody_begin(node);
		datapath_start_over(node);
		tell_members(node);
		c->fn(c->arg, NULL);
	} else { /* what is on disk is whole, before or after; what is in memory is not */
		log_error("cluster", "changing the cluster failed: %s; ending, start the daemon again", c->err.text);
		node->failed = true;
		c->fn(c->arg, &c->err);
		event_base_loopexit(node->base, NULL);
	}
	change_free(c);
}

/* Behind what the outbox still had of the old cluster. */
static void submit_change(void *arg)
{
	struct change *c = arg;

	list_saves(c);
	c->job = (struct worker_job){.run = change_run, .done = change_done, .arg = c};
	if (worker_submit(c->node->worker, &c->job, &c->err) < 0) {
		c->failed = -1;
		change_done(c);
	}
}

/* Takes c. node->cluster is set already. */
static void change_cluster(struct change *c)
{
	struct node *node = c->node;

	claims_drain(node);
	custody_drain(node);
	custody_stop(node);
	drop_core(node);
	segments_free(node);
	networks_stop(node);
	pools_stop(node);
	if (c->new_identity) {
		identity_from_seed(&node->identity, c->seed);
		standing_new_identity(node);
	}
	outbox_call(node->outbox, submit_change, c);
}

static void now_member(void *arg, const struct err *err)
{
	struct node *node = arg;

	if (!err)
		log_info("cluster", "joined: this host has number %u", node->cluster.hostno);
	end_join(node, err);
}

static void become_member(struct node *node)
{
	struct change *c = calloc(1, sizeof(*c));

	if (!c)
		abort();
	c->node = node;
	c->result = node->join->result;
	if (c->result.saved_count && c->result.saved[0].key_len == 1 + sizeof(node->sponsor)) /* 'm' and the sponsor's host id */
		memcpy(&node->sponsor, c->result.saved[0].key + 1, sizeof(node->sponsor));
	node->welcome.boot = c->result.boot;
	node->welcome.source_boot = c->result.source_boot;
	c->fn = now_member;
	c->arg = node;
	node->cluster.cluster_id = c->result.cluster_id;
	memcpy(node->cluster.key, c->result.cluster_key, sizeof(node->cluster.key));
	node->cluster.hostno = c->result.hostno;
	node->cluster.epoch = FIRST_EPOCH;
	node->cluster.known = false;
	memset(&node->cluster.hostno_pool, 0, sizeof(node->cluster.hostno_pool));
	change_cluster(c);
}

static int owns_nothing(const struct node *node, struct err *err)
{
	if (!node->docker_networks && !node->endpoints && !node->networks && !node->pools)
		return 0;
	return err_set(err, ERR_CONFLICT,
		"this host has %u networks, %u pools and %u endpoints of its own, which would be lost; remove them first "
		"(`docker network rm`, `trestle network rm`)",
		HASH_COUNT(node->networks), HASH_COUNT(node->pools), HASH_COUNT(node->endpoints));
}

static void on_join_timer(evutil_socket_t fd, short what, void *arg)
{
	struct node *node = arg;
	struct join *j = node->join;
	uint64_t now = clock_boot_ms(), next;
	struct timeval tv;

	(void)fd, (void)what;
	if (j->ended) { /* out of the joiner's callback */
		if (!j->err.code)
			owns_nothing(node, &j->err); /* made while the sponsor was asked: it would be lost */
		if (j->err.code)
			end_join(node, &j->err);
		else
			become_member(node);
		return;
	}
	next = joiner_tick(j->joiner, now);
	if (j->ended)
		return;
	next = next > now ? next - now : 1;
	tv = (struct timeval){.tv_sec = (time_t)(next / 1000), .tv_usec = (suseconds_t)(next % 1000) * 1000};
	event_add(j->timer, &tv);
}

static void on_joined(void *ctx, const struct joiner_result *result, const struct err *err)
{
	struct node *node = ctx;
	struct join *j = node->join;
	struct timeval at_once = {0};

	j->ended = true;
	if (result)
		j->result = *result;
	else
		j->err = *err;
	event_add(j->timer, &at_once);
}

static int may_join(struct node *node, const struct token *token, struct err *err)
{
	if (node->join || node->leaving || !node->gossip)
		return err_set(err, ERR_CONFLICT, "this host is joining or leaving already; wait for the answer");
	if (id_equal(&token->cluster_id, &node->cluster.cluster_id))
		return err_set(err, ERR_EXISTS, "this host is a member of that cluster already");
	if (!cluster_alone(node))
		return err_set(err, ERR_CONFLICT, "this host is in another cluster with %u other hosts; `trestle leave` first",
			HASH_COUNT(node->hosts));
	return owns_nothing(node, err);
}

/* Else its members could be asked, but never answer. */
static int check_seeds(const struct node *node, const struct token *token, struct err *err)
{
	const struct ip *own = &node->options.listen.ip;
	char ours[IP_TEXT_SIZE], theirs[IP_TEXT_SIZE];

	for (unsigned i = 0; i < token->seed_count; i++)
		if (token->seeds[i].ip.family == own->family)
			return 0;
	if (!token->seed_count)
		return 0;
	return err_set(err, ERR_DENIED,
		"join: the hosts of that cluster have IPv%u addresses (%s), this one listens on %s; start trestled here with "
		"--listen and an IPv%u address",
		token->seeds[0].ip.family, ip_format(&token->seeds[0].ip, theirs), ip_format(own, ours),
		token->seeds[0].ip.family);
}

int cluster_join(
	struct node *node, const char *token_text, void (*fn)(void *arg, const struct err *err), void *arg, struct err *err)
{
	static const struct joiner_ops ops = {
		.send = send_packet, .stream = send_stream, .random = random_bytes, .done = on_joined};
	struct timeval at_once = {0};
	struct token token;
	struct join *j;

	if (token_decode(token_text, &token, err) < 0 || may_join(node, &token, err) < 0 || check_seeds(node, &token, err) < 0)
		return -1;
	j = calloc(1, sizeof(*j));
	if (!j)
		return err_set(err, ERR_INTERNAL, "out of memory");
	j->node = node;
	j->fn = fn;
	j->arg = arg;
	j->timer = evtimer_new(node->base, on_join_timer, node);
	node->join = j;
	j->joiner = joiner_new(&token, &node->identity, node->options.name, &node->options.listen, &node->options.vtep,
		JOIN_TIMEOUT_MS, &ops, node, clock_boot_ms());
	if (!j->timer || !j->joiner)
		abort();
	event_add(j->timer, &at_once);
	return 0;
}

struct leave {
	struct node *node;
	struct event *timer;
	uint64_t deadline_ms;
	void (*fn)(void *arg, const struct err *err);
	void *arg;
};

static void left(void *arg, const struct err *err)
{
	struct leave *l = arg;

	l->node->leaving = false;
	l->node->left = false;
	l->fn(l->arg, err);
	event_free(l->timer);
	free(l);
}

/* That it does so is on disk: whoever hears this counts on it. */
static void say_goodbye(void *arg)
{
	struct leave *l = arg;

	gossip_leave(l->node->gossip, clock_boot_ms());
	l->node->left = true;
	cluster_start_over(l->node, left, l);
}

/* Hosts that came in a moment ago take part in the pool of host numbers only when joining has gone quiet: until then nobody takes
 * these numbers, and without them nobody could join any more. */
static bool numbers_wait_for_others(struct node *node)
{
	struct host *host, *next;

	if (!cluster_spare_numbers(node))
		return false;
	HASH_ITER(hh, node->hosts, host, next)
	if (host->state == GOSSIP_ALIVE)
		return true;
	return false;
}

/* What this host held has been handed over, or nobody takes it in time: goodbye. */
static void on_leave_timer(evutil_socket_t fd, short what, void *arg)
{
	struct leave *l = arg;
	struct node *node = l->node;
	struct timeval soon = {.tv_usec = 50000};
	bool keeps = !cluster_alone(node) && (!ipam_has_retired(node->ipam) || numbers_wait_for_others(node));

	(void)fd, (void)what;
	if (keeps && clock_boot_ms() < l->deadline_ms) {
		event_add(l->timer, &soon);
		return;
	}
	if (keeps)
		log_warn("cluster", "leaving with addresses in custody that no other host took: they are lost to the cluster "
				    "until it forgets this host");
	outbox_save(node->outbox, store_change_new(STORE_STATE, STORE_LEAVING, "", 0, "1", 1, true));
	outbox_call(node->outbox, say_goodbye, l);
}

void cluster_start_over(struct node *node, void (*fn)(void *arg, const struct err *err), void *arg)
{
	struct change *c = calloc(1, sizeof(*c));

	if (!c)
		abort();
	c->node = node;
	c->new_identity = true;
	randombytes_buf(c->seed, sizeof(c->seed));
	c->fn = fn;
	c->arg = arg;
	make_cluster(&node->cluster);
	node->cluster.epoch = FIRST_EPOCH;
	memset(&node->sponsor, 0, sizeof(node->sponsor));
	change_cluster(c);
}

int cluster_leave(struct node *node, void (*fn)(void *arg, const struct err *err), void *arg, struct err *err)
{
	struct timeval at_once = {0};
	struct leave *l;

	if (node->leaving || node->join)
		return err_set(err, ERR_CONFLICT, "this host is joining or leaving already; wait for the answer");
	l = calloc(1, sizeof(*l));
	if (!l)
		return err_set(err, ERR_INTERNAL, "out of memory");
	*l = (struct leave){.node = node, .fn = fn, .arg = arg, .deadline_ms = clock_boot_ms() + LEAVE_MS};
	l->timer = evtimer_new(node->base, on_leave_timer, l);
	if (!l->timer)
		abort();
	node->leaving = true;
	node->options.join[0] = 0; /* who leaves does not want to be brought back */
	ipam_retire(node->ipam, clock_boot_ms());
	custody_poke(node);
	event_add(l->timer, &at_once);
	return 0;
}

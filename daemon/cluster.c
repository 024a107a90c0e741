/* Who this host is, and gossip's side effects.
 *
 * A new host is the first of its own cluster: random cluster id and key, host number 1. It becomes a member of another one in
 * join.c. The UDP socket is bound once and serves the joiner and the core alike. Each start takes the next epoch, on disk before
 * the first packet. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"

#include "daemon/node_internal.h"

#define NEXT_WIRE_ENV "TRESTLE_TEST_NEXT_WIRE" /* for tests: act as the release after this one */
#define NEXT_WIRE 2
#define RECEIVE_BATCH 16
#define SOCKET_BUFFER (4 * 1024 * 1024)
#define MEASURE_EVERY_MS 200
#define LATE_MS 50
#define LOOP_TICK_MS 4
#define HEAR_FIRST_BATCHES 512

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
void cluster_make(struct cluster_state *c)
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
		cluster_make(&node->cluster);
	}
	sodium_memzero(&b, sizeof(b));
	node->cluster.epoch++;
	return save_cluster_now(node, err);
}

/* What a host is in a cluster, and nowhere else, goes; `saves` comes. On the worker, or before there is one. */
int cluster_replace_state(struct node *node, struct store_change *saves, struct err *err)
{
	static const enum store_kind of_a_member[] = {
		STORE_GOSSIP, STORE_IPAM, STORE_NETWORK, STORE_DOCKER_NETWORK, STORE_POOL, STORE_HOSTNO, STORE_LEAVING};

	return store_replace(node->store, STORE_STATE, of_a_member, sizeof(of_a_member) / sizeof(of_a_member[0]), saves, err);
}

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
	return cluster_replace_state(node, NULL, err);
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

void cluster_send(void *ctx, const struct gossip_addr *to, const void *packet, size_t len)
{
	struct node *node = ctx;
	struct sockaddr_storage ss;
	socklen_t ss_len;

	if (streams_answer(node, to, packet, len) || to->ip.family != node->options.listen.ip.family)
		return;
	ss_len = cluster_to_sockaddr(to, &ss);
	if (node->out.count == 0 && !node->out_follows)
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

static bool receive(struct node *node, const struct gossip_addr *from, const void *packet, size_t len, bool stream, uint64_t now)
{
	if (join_packet(node, from, packet, len, now) || !node->gossip || node->left)
		return false;
	if (stream)
		return gossip_stream_packet(node->gossip, from, packet, len, now);
	gossip_packet(node->gossip, from, packet, len, now);
	return false;
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
	node->out_follows = true;
	if (receive_batch(node, fd) < 0) {
		udp_take_errors(fd, on_refused, node);
		receive_batch(node, fd);
	}
	after_packets(node, clock_boot_ms());
	node->out_follows = false;
	flush_out(node);
}

bool cluster_packet(struct node *node, const struct gossip_addr *from, const void *packet, size_t len)
{
	bool proven = receive(node, from, packet, len, true, clock_boot_ms());

	cluster_poke(node);
	return proven;
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

void cluster_tell_members(struct node *node)
{
	unsigned count = 0, max = HASH_COUNT(node->hosts) + 1;
	struct ip *vteps = alloc_array(struct ip, max);
	struct host *host, *next;

	vteps[count++] = node->options.vtep;
	HASH_ITER(hh, node->hosts, host, next)
	if (host->state != GOSSIP_LEFT && ip_is_set(&host->vtep)) /* an admission alone tells no address */
		vteps[count++] = host->vtep;
	datapath_set_members(node, vteps, count);
	free(vteps);
}

static void on_member(void *ctx, const struct gossip_member *m, enum gossip_state old)
{
	struct node *node = ctx;
	struct host *host = cluster_host(node, m->hostno);
	bool moved;

	if (!host) {
		host = alloc_new(struct host);
		host->hostno = m->hostno;
		host->state = GOSSIP_LEFT;
		HASH_ADD(hh, node->hosts, hostno, sizeof(host->hostno), host);
		if (node->hostnos_ms)
			hostnos_wait(node);
	}
	moved = !ip_equal(&host->vtep, &m->vtep) || (m->state == GOSSIP_LEFT) != (host->state == GOSSIP_LEFT);
	/* Whom nobody has heard yet, as each newcomer at first, is called suspect: no news. */
	if (host->state != m->state && !(old == GOSSIP_LEFT && m->state == GOSSIP_SUSPECT))
		log_info("cluster", "host %s (number %u) is %s, was %s", m->name, m->hostno, gossip_state_name(m->state),
			gossip_state_name(old));
	host->state = m->state;
	host->since_ms = m->since_ms;
	host->vtep = m->vtep;
	if (moved || (host->hidden && m->state <= GOSSIP_SUSPECT)) {
		host->hidden = m->state == GOSSIP_LEFT || estate_is_buried(node, m->hostno);
		cluster_tell_members(node);
		segments_host_changed(node, host);
	}
	if (node->ipam && m->state == GOSSIP_LEFT)
		ipam_peer_left(node->ipam, m->hostno, clock_boot_ms());
	else if (node->ipam)
		ipam_peer_alive(node->ipam, m->hostno, m->state <= GOSSIP_SUSPECT, clock_boot_ms());
	hostno_look(node, &m->host_id);
	custody_poke(node);
}

void cluster_record(
	struct node *node, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len)
{
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

static void on_record(
	void *ctx, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val, size_t val_len)
{
	if (!freeze_misses(ctx, origin, topic, key, key_len, val, val_len))
		cluster_record(ctx, origin, topic, key, key_len, val, val_len);
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

static void on_save(void *ctx, const void *key, size_t key_len, const void *val, size_t len, bool durable)
{
	struct node *node = ctx;
	struct store_change *c = store_change_new(STORE_STATE, STORE_GOSSIP, key, key_len, val, len, durable);

	if (c)
		outbox_save(node->outbox, c);
}

struct packet {
	struct node *node;
	struct gossip_addr to;
	bool by_stream;
	size_t len;
	uint8_t bytes[];
};

static void on_packet_due(void *arg)
{
	struct packet *p = arg;

	if (p->by_stream)
		cluster_send_stream(p->node, &p->to, p->bytes, p->len);
	else
		cluster_send(p->node, &p->to, p->bytes, p->len);
	free(p);
}

static void on_send_saved(void *ctx, const struct gossip_addr *to, const void *packet, size_t len, bool by_stream)
{
	struct node *node = ctx;
	struct packet *p = alloc_zeroed(1, sizeof(*p) + len, "struct packet");

	p->node = node;
	p->to = *to;
	p->by_stream = by_stream;
	p->len = len;
	memcpy(p->bytes, packet, len);
	outbox_call(node->outbox, on_packet_due, p);
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
	struct kept *k = alloc_new(struct kept);

	*k = (struct kept){node, ticket};
	outbox_call(node->outbox, on_kept, k);
}

void cluster_send_stream(void *ctx, const struct gossip_addr *to, const void *packet, size_t len)
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
	hostnos_turn(node, now);
	gossip_clock_us(node->gossip, clock_boot_us());
	arm_gossip(node, now, gossip_tick(node->gossip, now));
	segments_tell_arrivals(node);
	hostnos_look(node);
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
	node->out_follows = true;
	gossip_turn(node, now);
	node->out_follows = false;
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
	.send = cluster_send,
	.random = random_bytes,
	.member = on_member,
	.record = on_record,
	.told = on_told,
	.admit = hostno_admit,
	.save = on_save,
	.send_saved = on_send_saved,
	.sync = on_sync,
	.stream = cluster_send_stream,
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
	if (store_each(node->store, STORE_STATE, STORE_GOSSIP, restore_gossip, node, err) < 0 || hostnos_restore(node, err) < 0)
		return -1;
	networks_subscribe(node);
	standing_begin(node);
	gossip_start(node->gossip, clock_boot_ms());
	if (hostnos_start(node, err) < 0)
		return -1;
	/* Members known from disk are members before they are heard, or the guard would drop their frames until then. */
	gossip_each_member(node->gossip, know_member, node);
	cluster_tell_members(node);
	cluster_poke(node);
	return 0;
}

void cluster_drop_core(struct node *node)
{
	struct host *host, *next_host;

	gossip_free(node->gossip);
	node->gossip = NULL;
	HASH_ITER(hh, node->hosts, host, next_host)
	{
		HASH_DEL(node->hosts, host);
		free(host);
	}
	hostnos_stop(node);
}

void cluster_stop(struct node *node)
{
	join_stop(node);
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
	cluster_drop_core(node);
	identity_wipe(&node->identity);
	sodium_memzero(&node->cluster, sizeof(node->cluster));
}

static void publish(struct node *node, uint64_t topic, const void *key, size_t key_len, const void *val, size_t len, bool lazily)
{
	struct err err = {0};
	uint64_t now = clock_boot_ms();

	if (!node->gossip)
		return;
	if (!val)
		gossip_del(node->gossip, topic, key, key_len, now);
	else if ((lazily ? gossip_put_lazily : gossip_put)(node->gossip, topic, key, key_len, val, len, now, &err) < 0)
		log_error("cluster", "a record of kind %c is not published: %s", *(const char *)key, err.text);
	flush_out(node);
	cluster_poke(node);
}

void cluster_publish(struct node *node, uint64_t topic, const void *key, size_t key_len, const void *val, size_t len)
{
	publish(node, topic, key, key_len, val, len, false);
}

/* Who has which spare host numbers is of no interest until somebody runs out of them, and each host that joins takes some. */
void cluster_publish_of(
	struct node *node, const struct id128 *id, uint64_t topic, const void *key, size_t key_len, const void *val, size_t len)
{
	publish(node, topic, key, key_len, val, len, id_equal(id, &node->cluster.hostno_pool));
}

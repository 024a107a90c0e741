/* What a host can do with a TCP connection to gossip's port, or at the other end of one of ours: daemon/stream.c on real sockets,
 * which cuts a stream of bytes into packets, takes questions and carries answers.
 *
 * The input is steps; the first byte of each has the connection in its two lowest bits (three of them; a new one where there is
 * none), above these what is done: bytes are sent as they stand in the input (length u8, or u16) or as one that is repeated
 * (length u16, byte), the core sends packets or an answer, the peer reads, or it ends its half or all of the connection. The top
 * bit: more of it before the loop runs. So a packet may come in any number of pieces, and any number of packets in one.
 *
 * Beside it stands what must come of it: the bytes of each connection, cut here in the plainest way. The core must get the
 * same packets, each once, none behind the first that breaks a rule, and what the peer reads must be whole packets of ours. */
#include <event2/event.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "daemon/node_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LINKS 3 /* at once: two from outside, one of ours */
#define OPENED_MAX 32
#define SENT_MAX (1u << 16)
#define PREFIX 2
#define SLOW_MS 400 /* from here on deadlines may have ended connections */
#define SNDBUF 16384
#define REPLY_BYTE 0x5a

enum step { STEP_CHUNK, STEP_CHUNK_TOO, STEP_LONG_CHUNK, STEP_FILL, STEP_SEND, STEP_ANSWER, STEP_READ, STEP_END, STEP_MAX };

struct link {
	int fd; /* the peer's end, -1: none */
	bool inbound;
	struct gossip_addr addr;
	uint8_t sent[SENT_MAX];
	size_t sent_len, taken; /* so much of it the core was given */
	bool over;		/* by what was sent */
	bool asked;		/* so: a question, and who sent it waits for the answer */
	bool unsure;		/* the peer has gone without waiting: what was on its way may be lost, or be read */
	bool half;		/* it sends no more */
	uint8_t got[PREFIX + GOSSIP_PACKET_MAX];
	size_t got_len;
};

static struct event_base *base;
static struct node *node;
static struct link links[LINKS];
static unsigned opened, bad, unsure;
static size_t pending; /* sent since the loop ran */

static void require(int truth)
{
	if (!truth)
		abort();
}

/* ---- what daemon/stream.c asks of its neighbours ---- */

socklen_t cluster_to_sockaddr(const struct gossip_addr *addr, struct sockaddr_storage *ss)
{
	(void)addr, (void)ss;
	abort(); /* nothing here may connect to anywhere */
}

void cluster_from_sockaddr(const struct sockaddr_storage *ss, struct gossip_addr *ret)
{
	(void)ss, (void)ret;
	abort();
}

enum next { NEXT_PART, NEXT_PACKET, NEXT_QUESTION, NEXT_BAD };

/* The next of what was sent, read by the rules of docs/wire.md. */
static enum next next_of(const struct link *l, size_t *ret_len)
{
	const uint8_t *at = l->sent + l->taken;
	size_t left = l->sent_len - l->taken, len;

	if (left < PREFIX)
		return NEXT_PART;
	len = (size_t)at[0] * 256 + at[1];
	if (len == 0 || len > GOSSIP_PACKET_MAX)
		return NEXT_BAD;
	if (left < PREFIX + len)
		return NEXT_PART;
	*ret_len = len;
	if (at[PREFIX] < 0x10)
		return NEXT_BAD;
	switch (at[PREFIX] & 0xf) {
	case 0 ... 3:
	case 14:
		return NEXT_PACKET;
	case 15:
		return NEXT_QUESTION;
	default:
		return NEXT_BAD;
	}
}

static size_t reply(uint8_t *packet, uint8_t size)
{
	const size_t len = 1 + (size_t)size * (GOSSIP_PACKET_MAX - 1) / 255;

	memset(packet, REPLY_BYTE, len);
	packet[0] = 0x11;
	return len;
}

static void core_sends(const struct link *l, uint8_t size)
{
	uint8_t packet[GOSSIP_PACKET_MAX];
	size_t len = reply(packet, size);

	streams_send(node, &l->addr, packet, len);
}

static void core_answers(const struct link *l, uint8_t size)
{
	uint8_t packet[GOSSIP_PACKET_MAX];
	size_t len = reply(packet, size);

	packet[0] = 0x1f;
	streams_answer(node, &l->addr, packet, len);
}

bool cluster_packet(struct node *of, const struct gossip_addr *from, const void *packet, size_t len)
{
	struct link *l = NULL;
	size_t expected = 0;
	enum next next;
	uint8_t last = ((const uint8_t *)packet)[len - 1];

	for (unsigned i = 0; i < LINKS; i++)
		if (links[i].addr.port == from->port)
			l = &links[i];
	if (!l) /* its place is another's meanwhile */
		return false;
	next = next_of(l, &expected);
	require(of == node && !l->over && (next == NEXT_PACKET || next == NEXT_QUESTION));
	require(len == expected && memcmp(packet, l->sent + l->taken + PREFIX, len) == 0);
	l->taken += PREFIX + len;
	l->over = l->asked = next == NEXT_QUESTION;
	if (last % 4 == 1)
		core_answers(l, last);
	else if (last % 4 >= 2)
		core_sends(&links[last % LINKS], last);
	return last & 4;
}

/* ---- the peers ---- */

static void open_link(unsigned i)
{
	struct link *l = &links[i];
	int pair[2], size = SNDBUF;

	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)); /* so that it fills */
	memset(l, 0, sizeof(*l));
	l->fd = pair[0];
	l->inbound = i < LINKS - 1;
	l->addr = (struct gossip_addr){.ip = {.family = 6, .bytes = {0x20, 1, 0xd, 0xb8}}, .port = (uint16_t)++opened};
	streams_adopt(node, pair[1], &l->addr, l->inbound);
}

static void send_bytes(struct link *l, const uint8_t *bytes, size_t len)
{
	ssize_t sent;

	if (l->half || len > SENT_MAX - l->sent_len)
		return;
	sent = send(l->fd, bytes, len, MSG_NOSIGNAL);
	if (sent <= 0) /* our side has ended it, or is full */
		return;
	memcpy(l->sent + l->sent_len, bytes, (size_t)sent);
	l->sent_len += (size_t)sent;
	pending += (size_t)sent;
}

static void fill(struct link *l, size_t len, uint8_t byte)
{
	uint8_t bytes[2048];

	memset(bytes, byte, sizeof(bytes));
	send_bytes(l, bytes, len % sizeof(bytes));
}

static void got_byte(struct link *l, uint8_t byte)
{
	size_t len;

	l->got[l->got_len++] = byte;
	if (l->got_len <= PREFIX)
		return;
	len = (size_t)l->got[0] * 256 + l->got[1];
	require(len > 0 && len <= GOSSIP_PACKET_MAX);
	require(l->got_len == PREFIX + 1 ? byte == 0x11 || byte == 0x1f : byte == REPLY_BYTE);
	if (l->got_len == PREFIX + len)
		l->got_len = 0;
}

/* Whether our side has ended it. */
static bool read_all(struct link *l)
{
	uint8_t bytes[4096];
	ssize_t n;

	while ((n = recv(l->fd, bytes, sizeof(bytes), 0)) > 0)
		for (ssize_t i = 0; i < n; i++)
			got_byte(l, bytes[i]);
	return n == 0 || errno != EAGAIN;
}

static void end_link(struct link *l, bool half)
{
	if (half) {
		shutdown(l->fd, SHUT_WR);
		l->half = true;
		return;
	}
	close(l->fd);
	l->fd = -1;
	l->unsure = true;
	unsure++;
}

/* ---- what must have come of it ---- */

static void check(struct link *l)
{
	size_t len = 0;
	enum next next;

	if (l->fd < 0 || l->over)
		return;
	next = next_of(l, &len);
	require(next == NEXT_PART || next == NEXT_BAD);
	if (next == NEXT_BAD) {
		l->over = true;
		bad++;
	}
}

static void turn(uint64_t began_ms)
{
	for (size_t i = 0; i < 8 + pending / (GOSSIP_PACKET_MAX / 2); i++)
		require(event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK) >= 0);
	pending = 0;
	if (clock_boot_ms() - began_ms >= SLOW_MS)
		return;
	for (unsigned i = 0; i < LINKS; i++)
		check(&links[i]);
}

static void step(struct bytes_reader *r, uint8_t first)
{
	struct link *l = &links[(first & 3) % LINKS];
	size_t len = 0;
	uint8_t byte;

	if (l->fd < 0) {
		if (opened == OPENED_MAX)
			return;
		open_link((unsigned)(l - links));
	}
	switch ((enum step)((first >> 2) % STEP_MAX)) {
	case STEP_CHUNK:
	case STEP_CHUNK_TOO:
	case STEP_LONG_CHUNK:
		len = (first >> 2) % STEP_MAX == STEP_LONG_CHUNK ? br_u16(r) : br_u8(r);
		len = len < br_left(r) ? len : br_left(r);
		send_bytes(l, br_bytes(r, len), len);
		break;
	case STEP_FILL:
		len = br_u16(r);
		fill(l, len, br_u8(r));
		break;
	case STEP_SEND:
		byte = br_u8(r);
		for (unsigned i = 0; i <= byte % 64u; i++)
			core_sends(l, byte);
		break;
	case STEP_ANSWER:
		core_answers(l, br_u8(r));
		break;
	case STEP_READ:
		read_all(l);
		break;
	default:
		end_link(l, br_u8(r) & 1);
		break;
	}
}

/* All who are still there end, and nothing of ours may be left waiting. */
static void finish(uint64_t began_ms)
{
	for (unsigned i = 0; i < LINKS; i++)
		if (links[i].fd >= 0 && !links[i].half)
			end_link(&links[i], true);
	turn(began_ms);
	if (clock_boot_ms() - began_ms < SLOW_MS)
		require(streams_refused(node) >= bad && streams_refused(node) <= bad + unsure);
	for (unsigned i = 0; i < LINKS; i++) {
		if (links[i].fd < 0)
			continue;
		/* A question waits for its answer, output for who reads it. */
		while (!read_all(&links[i]) && !(links[i].asked && links[i].inbound) && clock_boot_ms() - began_ms < SLOW_MS)
			turn(began_ms);
		close(links[i].fd);
		links[i].fd = -1;
	}
	streams_close(node);
}

static void start(void)
{
	struct event_config *config = event_config_new();

	signal(SIGPIPE, SIG_IGN); /* as daemon/main.c does */
	require(config != NULL);
	event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
	base = event_base_new_with_config(config);
	event_config_free(config);
	node = calloc(1, sizeof(*node));
	require(base && node);
	node->base = base;
	node->options.listen.ip.family = 4; /* not the peers': what has no connection goes nowhere */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint64_t began_ms = clock_boot_ms();
	struct bytes_reader r;

	if (!base)
		start();
	opened = bad = unsure = 0;
	pending = 0;
	for (unsigned i = 0; i < LINKS; i++) {
		links[i].fd = -1;
		links[i].addr.port = 0;
	}
	br_init(&r, data, size);
	while (br_left(&r) > 0) {
		uint8_t first = br_u8(&r);

		step(&r, first);
		if (!(first & 0x80) || pending > SNDBUF)
			turn(began_ms);
	}
	finish(began_ms);
	return 0;
}

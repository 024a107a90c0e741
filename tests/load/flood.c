/* A hostile stranger on the underlay: sends what it overheard, bent in one way, as fast as it can.
 *
 *	flood MODE SECONDS FILE
 *
 * FILE holds overheard UDP datagrams, each as: source address, destination address (4 bytes each), source port, destination port,
 * length (2 each), all in network order, then the payload. The packets sent carry the overheard addresses, whoever we are.
 *
 *	replay    as it was
 *	forge     one byte behind the header changed, the counter raised so that the replay window has no objection
 *	boot      of a boot that nobody knows
 *	truncate  cut short anywhere, the counter raised likewise
 *	reflect   back to its sender
 *	wrongkey  well-formed, of the right host and counter, sealed with another key
 *	noise     random bytes of any length and first byte
 *
 * All variants are made before the clock starts: what is measured is the receiver. The last line says how many were sent. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/ip.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/number.h"
#include "gossip/frame_internal.h"

#define HEARD_MAX 256
#define VARIANTS 4096
#define BATCH 64
#define COUNTER_AT 9 /* docs/wire.md, "Ordinary frame" */
#define BOOT_AT 5
#define COUNTER_AHEAD 1000000 /* of more than a host sends while all floods last: else they are refused as replays */

struct heard {
	uint32_t src, dst; /* network order, as the ports */
	uint16_t src_port, dst_port;
	uint16_t len;
	uint8_t bytes[GOSSIP_PACKET_MAX];
};

struct variant {
	struct sockaddr_in to;
	size_t len;
	struct {
		struct iphdr ip;
		struct udphdr udp;
		uint8_t payload[GOSSIP_PACKET_MAX];
	} __attribute__((packed)) packet;
};

typedef void bend_fn(struct heard *h);

static void bend_nothing(struct heard *h)
{
	(void)h;
}

static void raise_counter(struct heard *h)
{
	uint64_t counter = 0;

	for (int i = 0; i < 8; i++)
		counter = counter << 8 | h->bytes[COUNTER_AT + i];
	counter += 1 + randombytes_uniform(COUNTER_AHEAD);
	for (int i = 7; i >= 0; i--, counter >>= 8)
		h->bytes[COUNTER_AT + i] = (uint8_t)counter;
}

static void bend_forge(struct heard *h)
{
	raise_counter(h);
	h->bytes[FRAME_HEADER_SIZE + randombytes_uniform(h->len - FRAME_HEADER_SIZE)] ^= (uint8_t)(1 + randombytes_uniform(255));
}

static void bend_boot(struct heard *h)
{
	randombytes_buf(h->bytes + BOOT_AT, 4);
}

static void bend_truncate(struct heard *h)
{
	raise_counter(h);
	h->len = (uint16_t)randombytes_uniform(h->len);
}

static void bend_reflect(struct heard *h)
{
	uint32_t addr = h->src;
	uint16_t port = h->src_port;

	h->src = h->dst;
	h->src_port = h->dst_port;
	h->dst = addr;
	h->dst_port = port;
}

static void bend_wrongkey(struct heard *h)
{
	static struct frame_ring ring;
	static struct id128 cluster;
	struct frame_header header;
	struct frame_sender sender = {.cluster_id = cluster};
	uint8_t plain[FRAME_PLAIN_MAX] = {0}, key[CLUSTER_KEY_SIZE];
	size_t len;

	if (ring.count == 0) {
		randombytes_buf(key, sizeof(key));
		randombytes_buf(&cluster, sizeof(cluster));
		frame_ring_init(&ring);
		frame_ring_add(&ring, FRAME_KEY_ID_FIRST, key, NULL);
	}
	raise_counter(h);
	if (frame_peek(h->bytes, h->len, &header) != FRAME_OK)
		return;
	sender.hostno = header.hostno;
	sender.boot = header.boot;
	sender.counter = header.counter;
	len = frame_seal(&sender, &ring, header.class, &cluster, plain, h->len - FRAME_OVERHEAD, h->bytes);
	if (len)
		h->len = (uint16_t)len;
}

static void bend_noise(struct heard *h)
{
	h->len = (uint16_t)randombytes_uniform(GOSSIP_PACKET_MAX);
	randombytes_buf(h->bytes, h->len);
}

static const struct {
	const char *name;
	bend_fn *bend;
} modes[] = {
	{"replay", bend_nothing},
	{"forge", bend_forge},
	{"boot", bend_boot},
	{"truncate", bend_truncate},
	{"reflect", bend_reflect},
	{"wrongkey", bend_wrongkey},
	{"noise", bend_noise},
};

static bend_fn *find_mode(const char *name)
{
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		if (strcmp(modes[i].name, name) == 0)
			return modes[i].bend;
	return NULL;
}

/* ---- what was overheard ---- */

static bool read_one(FILE *f, struct heard *h)
{
	uint16_t len;

	if (fread(&h->src, 4, 1, f) != 1 || fread(&h->dst, 4, 1, f) != 1 || fread(&h->src_port, 2, 1, f) != 1 ||
		fread(&h->dst_port, 2, 1, f) != 1 || fread(&len, 2, 1, f) != 1)
		return false;
	h->len = ntohs(len);
	return h->len <= sizeof(h->bytes) && fread(h->bytes, h->len, 1, f) == 1;
}

static unsigned read_heard(const char *path, struct heard heard[HEARD_MAX])
{
	FILE *f = fopen(path, "rb");
	unsigned count = 0;

	if (!f) {
		fprintf(stderr, "flood: %s: %s\n", path, strerror(errno));
		exit(2);
	}
	while (count < HEARD_MAX && read_one(f, &heard[count]))
		count += heard[count].len > FRAME_OVERHEAD;
	fclose(f);
	return count;
}

/* ---- sending ---- */

/* The kernel fills in the checksum and the id (raw(7)); a UDP checksum of zero is none (RFC 768). */
static void make_variant(const struct heard *overheard, bend_fn *bend, struct variant *v)
{
	struct heard h = *overheard;

	bend(&h);
	memset(v, 0, sizeof(*v));
	v->to = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = h.dst};
	v->packet.ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .saddr = h.src, .daddr = h.dst};
	v->packet.udp = (struct udphdr){
		.source = h.src_port, .dest = h.dst_port, .len = htons((uint16_t)(sizeof(struct udphdr) + h.len))};
	memcpy(v->packet.payload, h.bytes, h.len);
	v->len = sizeof(v->packet.ip) + sizeof(v->packet.udp) + h.len;
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static unsigned long blast(int fd, struct variant *variants, double duration_s)
{
	struct mmsghdr msgs[BATCH];
	struct iovec iov[BATCH];
	unsigned long sent = 0;
	unsigned next = 0;

	for (double end = seconds() + duration_s; seconds() < end;) {
		int count;

		memset(msgs, 0, sizeof(msgs));
		for (unsigned i = 0; i < BATCH; i++) {
			struct variant *v = &variants[(next + i) % VARIANTS];
			iov[i] = (struct iovec){.iov_base = &v->packet, .iov_len = v->len};
			msgs[i].msg_hdr = (struct msghdr){
				.msg_name = &v->to, .msg_namelen = sizeof(v->to), .msg_iov = &iov[i], .msg_iovlen = 1};
		}
		count = sendmmsg(fd, msgs, BATCH, 0);
		if (count > 0)
			sent += (unsigned)count;
		next += BATCH; /* past one that cannot be sent, too */
	}
	return sent;
}

int main(int argc, char **argv)
{
	static struct heard heard[HEARD_MAX];
	struct variant *variants = calloc(VARIANTS, sizeof(*variants));
	uint64_t duration_s;
	bend_fn *bend;
	unsigned count;
	int fd;

	if (argc != 4 || !(bend = find_mode(argv[1])) || number_parse(argv[2], 1, 3600, &duration_s) < 0 || !variants ||
		sodium_init() < 0) {
		fprintf(stderr, "usage: flood replay|forge|boot|truncate|reflect|wrongkey|noise SECONDS FILE\n");
		return 2;
	}
	count = read_heard(argv[3], heard);
	fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	if (count == 0 || fd < 0) {
		fprintf(stderr, "flood: %u packets in %s, raw socket: %s\n", count, argv[3], strerror(errno));
		return 2;
	}
	for (unsigned i = 0; i < VARIANTS; i++)
		make_variant(&heard[i % count], bend, &variants[i]);
	printf("sent %lu packets in %lu s\n", blast(fd, variants, (double)duration_s), (unsigned long)duration_s);
	free(variants);
	return 0;
}

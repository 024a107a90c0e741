/* What the kernel knows about our UDP socket besides the datagrams: how long one waited, how many it dropped, and which hosts
 * refuse ours because nobody listens there. */
#ifndef DAEMON_UDP_INTERNAL_H
#define DAEMON_UDP_INTERNAL_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "gossip/gossip.h"

#define UDP_CONTROL_SIZE 128 /* for a time stamp and a drop counter */

/* What was measured since udp_measured last took it. */
struct udp_measure {
	uint64_t due_ms; /* when the loop meant to be back, 0 = not waiting */
	uint32_t lag_ms;
	uint32_t drops; /* the kernel's counter */
	bool dropped;
};

#define UDP_OUT_PACKETS 8 /* no more: the first shall be under way while the others are sealed */
#define UDP_OUT_BYTES (UDP_OUT_PACKETS * GOSSIP_PACKET_MAX)

/* What waits to be sent: several packets cost one system call. */
struct udp_out {
	unsigned count;
	size_t used;
	struct mmsghdr msgs[UDP_OUT_PACKETS];
	struct iovec iov[UDP_OUT_PACKETS];
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} to[UDP_OUT_PACKETS];
	uint8_t bytes[UDP_OUT_BYTES];
	struct udp_waiting *waiting; /* found the socket's buffer full */
	unsigned waiting_count;
	uint64_t waited;  /* so many had to */
	uint64_t dropped; /* bulk that found it so */
	uint64_t lost;	  /* what found no room to wait, or the kernel did not take for another reason */
};

/* Asks for time stamps, drop counts and errors. A kernel that has one of them not is served without. */
void udp_prepare(int fd, int family);
/* Takes a copy of the packet; when there is no room, what waits is sent first. */
void udp_queue(struct udp_out *out, int fd, const struct sockaddr_storage *to, socklen_t to_len, const void *packet, size_t len);
/* Where the socket is full, what says of itself that it is bulk (classes 2 and 3, docs/wire.md) is dropped, its sender repeats
 * it; anything else waits. Returns whether something does: flush again when the socket is writable. */
bool udp_flush(struct udp_out *out, int fd);
void udp_out_free(struct udp_out *out);
/* The control data of one datagram. */
void udp_note_datagram(struct udp_measure *measure, struct msghdr *msg);
void udp_note_wakeup(struct udp_measure *measure, uint64_t now_ms);
/* Reads pending errors, and calls `refused` for each host whose kernel said that the port is closed. As long as errors are
 * pending, the socket is readable and sends fail. */
void udp_take_errors(int fd, void (*refused)(void *ctx, const struct sockaddr_storage *addr), void *ctx);

#endif

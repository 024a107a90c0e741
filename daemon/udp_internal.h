/* What the kernel knows about our UDP socket besides the datagrams: how long one waited, how many it dropped, and which hosts
 * refuse ours because nobody listens there. */
#ifndef DAEMON_UDP_INTERNAL_H
#define DAEMON_UDP_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define UDP_CONTROL_SIZE 128 /* for a time stamp and a drop counter */

/* What was measured since udp_measured last took it. */
struct udp_measure {
	uint64_t due_ms; /* when the loop meant to be back, 0 = not waiting */
	uint32_t lag_ms;
	uint32_t drops; /* the kernel's counter */
	bool dropped;
};

/* Asks for time stamps, drop counts and errors. A kernel that has one of them not is served without. */
void udp_prepare(int fd, int family);
/* The control data of one datagram. */
void udp_note_datagram(struct udp_measure *measure, struct msghdr *msg);
void udp_note_wakeup(struct udp_measure *measure, uint64_t now_ms);
/* Reads pending errors, and calls `refused` for each host whose kernel said that the port is closed. As long as errors are
 * pending, the socket is readable and sends fail. */
void udp_take_errors(int fd, void (*refused)(void *ctx, const struct sockaddr_storage *addr), void *ctx);

#endif

/* See udp_internal.h. Facts: sendmmsg(2) tells of an error only when the first of its packets had it. With IP_RECVERR (ip(7)) an
 * ICMP error about a datagram of ours lies in the socket's error queue, with the destination as the address and what was found as
 * a struct sock_extended_err, and the next call on the socket fails once with it. A datagram's age is the difference of two
 * readings of the wall clock by the same kernel; a step of that clock between them is told by its size. */
#include "daemon/udp_internal.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"

#define ERRORS_AT_ONCE 64
#define AGE_MAX_MS 60000 /* above: the clock was set */

void udp_prepare(int fd, int family)
{
	int on = 1;

	setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof(on));
	if (family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &on, sizeof(on));
	else
		setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof(on));
}

void udp_queue(struct udp_out *out, int fd, const struct sockaddr_storage *to, socklen_t to_len, const void *packet, size_t len)
{
	unsigned i;

	if (len > UDP_OUT_BYTES || to_len > sizeof(out->to[0]))
		return;
	if (out->count == UDP_OUT_PACKETS || out->used + len > UDP_OUT_BYTES)
		udp_flush(out, fd);
	i = out->count++;
	memcpy(out->bytes + out->used, packet, len);
	memcpy(&out->to[i], to, to_len);
	out->iov[i] = (struct iovec){.iov_base = out->bytes + out->used, .iov_len = len};
	out->msgs[i].msg_hdr =
		(struct msghdr){.msg_name = &out->to[i], .msg_namelen = to_len, .msg_iov = &out->iov[i], .msg_iovlen = 1};
	out->used += len;
}

void udp_flush(struct udp_out *out, int fd)
{
	unsigned at = 0;
	bool again = false;

	while (at < out->count) {
		int sent = sendmmsg(fd, out->msgs + at, out->count - at, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent > 0) {
			at += (unsigned)sent;
			again = false;
		} else if (!again) { /* the first failure may be an ICMP error about an earlier packet to somebody else */
			again = true;
		} else {
			log_debug("cluster", "a packet of %zu bytes was not sent: %s", out->iov[at].iov_len, strerror(errno));
			at++;
			again = false;
		}
	}
	out->count = 0;
	out->used = 0;
}

static void note_lag(struct udp_measure *measure, int64_t lag_ms)
{
	if (lag_ms > measure->lag_ms && lag_ms < AGE_MAX_MS)
		measure->lag_ms = (uint32_t)lag_ms;
}

void udp_note_datagram(struct udp_measure *measure, struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_TIMESTAMPNS) {
			struct timespec then;

			memcpy(&then, CMSG_DATA(c), sizeof(then));
			note_lag(measure, (clock_wall_us() - (int64_t)then.tv_sec * 1000000 - then.tv_nsec / 1000) / 1000);
		} else if (c->cmsg_type == SO_RXQ_OVFL) {
			uint32_t drops;

			memcpy(&drops, CMSG_DATA(c), sizeof(drops));
			measure->dropped |= drops != measure->drops;
			measure->drops = drops;
		}
	}
}

void udp_note_wakeup(struct udp_measure *measure, uint64_t now_ms)
{
	if (measure->due_ms != 0 && now_ms > measure->due_ms)
		note_lag(measure, (int64_t)(now_ms - measure->due_ms));
	measure->due_ms = 0;
}

static bool is_refusal(struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		struct sock_extended_err e;

		if (!(c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR) &&
			!(c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR))
			continue;
		memcpy(&e, CMSG_DATA(c), sizeof(e));
		if ((e.ee_origin == SO_EE_ORIGIN_ICMP || e.ee_origin == SO_EE_ORIGIN_ICMP6) && e.ee_errno == ECONNREFUSED)
			return true;
	}
	return false;
}

void udp_take_errors(int fd, void (*refused)(void *ctx, const struct sockaddr_storage *addr), void *ctx)
{
	for (unsigned i = 0; i < ERRORS_AT_ONCE; i++) {
		struct sockaddr_storage addr = {0};
		char payload[1];
		char control[512] __attribute__((aligned(8)));
		struct iovec iov = {.iov_base = payload, .iov_len = sizeof(payload)};
		struct msghdr msg = {.msg_name = &addr,
			.msg_namelen = sizeof(addr),
			.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control)};

		if (recvmsg(fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			return;
		if (is_refusal(&msg))
			refused(ctx, &addr);
	}
}

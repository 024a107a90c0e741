/* See udp_internal.h. Facts: sendmmsg(2) tells of an error only when the first of its packets had it. With IP_RECVERR (ip(7)) an
 * ICMP error about a datagram of ours lies in the socket's error queue, with the destination as the address and what was found as
 * a struct sock_extended_err, and the next call on the socket fails once with it. A datagram's age is the difference of two
 * readings of the wall clock by the same kernel; a step of that clock between them is told by its size.
 *
 * The socket's send buffer stays at the kernel's default (net.core.wmem_default, 208 KiB): what lies in it lies before the next
 * probe, a millisecond of it at a gigabit a second. A device that is busy for longer fills it, and then a send fails with EAGAIN
 * (udp(7)). Where the device's own queue is shorter than that, it drops, and a socket with IP_RECVERR is told so by ENOBUFS: lost
 * like a packet on the way, and counted. To wait for that one device would hold up what goes by others. */
#include "daemon/udp_internal.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/log.h"

#define ERRORS_AT_ONCE 64
#define WAITING_MAX 512
#define CLASS_PUSH 2
#define CLASS_SYNC 3
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

/* ---- a socket that is full ---- */

struct udp_waiting {
	struct udp_waiting *prev, *next;
	struct sockaddr_storage to;
	socklen_t to_len;
	size_t len;
	uint8_t packet[];
};

static bool is_bulk(const struct msghdr *msg)
{
	const uint8_t class = *(const uint8_t *)msg->msg_iov->iov_base & 15;

	return class == CLASS_PUSH || class == CLASS_SYNC;
}

static void wait_or_drop(struct udp_out *out, const struct msghdr *msg)
{
	const size_t len = msg->msg_iov->iov_len;
	struct udp_waiting *w;

	if (is_bulk(msg)) {
		out->dropped++;
		return;
	}
	w = out->waiting_count < WAITING_MAX ? calloc(1, sizeof(*w) + len) : NULL;
	if (!w) {
		out->lost++;
		return;
	}
	if (msg->msg_namelen > 0)
		memcpy(&w->to, msg->msg_name, msg->msg_namelen);
	w->to_len = msg->msg_namelen;
	w->len = len;
	memcpy(w->packet, msg->msg_iov->iov_base, len);
	DL_APPEND(out->waiting, w);
	out->waiting_count++;
	out->waited++;
}

static void drop_first(struct udp_out *out)
{
	struct udp_waiting *w = out->waiting;

	DL_DELETE(out->waiting, w);
	out->waiting_count--;
	free(w);
}

/* Whether the socket is still full. */
static bool send_waiting(struct udp_out *out, int fd)
{
	while (out->waiting) {
		const struct udp_waiting *w = out->waiting;
		bool sent = false;

		for (int try = 0; try < 2 && !sent; try++)
			sent = sendto(fd, w->packet, w->len, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)&w->to,
				       w->to_len) >= 0;
		if (!sent && errno == EAGAIN)
			return true;
		out->lost += !sent;
		drop_first(out);
	}
	return false;
}

void udp_out_free(struct udp_out *out)
{
	while (out->waiting)
		drop_first(out);
}

/* ---- sending ---- */

bool udp_flush(struct udp_out *out, int fd)
{
	bool again = false, full = send_waiting(out, fd);
	unsigned at = 0;

	while (at < out->count) {
		int sent = full ? 0 : sendmmsg(fd, out->msgs + at, out->count - at, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (full) {
			wait_or_drop(out, &out->msgs[at++].msg_hdr);
		} else if (sent > 0) {
			at += (unsigned)sent;
			again = false;
		} else if (errno == EAGAIN) {
			full = true;
		} else if (!again) { /* the first failure may be an ICMP error about an earlier packet to somebody else */
			again = true;
		} else { /* a lost one: the core repeats what matters */
			log_debug("cluster", "a packet of %zu bytes was not sent: %s", out->iov[at].iov_len, strerror(errno));
			out->lost++;
			at++;
			again = false;
		}
	}
	out->count = 0;
	out->used = 0;
	return out->waiting != NULL;
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

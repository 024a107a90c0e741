/* Netlink sockets, requests, dumps, notices and batches. See socket.h. */
#include "netlink/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/filter.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "netlink/build.h"
#include "netlink/netns.h"
#include "netlink/parse.h"

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif

#define REPLY_SIZE 32768	 /* bytes; what the kernel fills per dump skb at most (NLMSG_GOODSIZE bounds it) */
#define NOTICE_BUFFER (8 << 20)	 /* bytes; holds a few thousand notices, where the default holds some 250 */
#define REQUEST_BUFFER (1 << 20) /* bytes; an error for every message of a batch fits */
#define REPLY_TIMEOUT_S 5
#define BATCH_BYTES 65536
#define EXTACK_SIZE 256

struct nl_socket {
	int fd;
	uint32_t seq;
	_Alignas(8) char buf[REPLY_SIZE];
};

struct nl_batch {
	size_t count, len;
	uint32_t cookies[NL_BATCH_MAX];
	bool failed[NL_BATCH_MAX];
	_Alignas(8) uint8_t buf[BATCH_BYTES];
};

struct open_call {
	const unsigned *groups;
	size_t count;
	int fd; /* result */
};

#define NUD_RESOLVED (NUD_INCOMPLETE | NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE)

/* What ARP and ND find out by themselves about a neighbour is said twice a minute for each that is in use, as a notice of the
 * group of which we want those about permanent rows: it shall not wake us. A filter loads numbers in network order (socket(7),
 * SO_ATTACH_FILTER); the skb of a notice holds one message. Without it, for want of memory, more is read. */
static void leave_out_resolution(int fd)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_type)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_NEWNEIGH), 0, 5),
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, NLMSG_HDRLEN + offsetof(struct ndmsg, ndm_family)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_BRIDGE, 3, 0),
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, NLMSG_HDRLEN + offsetof(struct ndmsg, ndm_state)),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, htons(NUD_RESOLVED), 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	struct sock_fprog filter = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter));
}

static int set_options(int fd, const unsigned *groups, size_t count, struct err *err)
{
	int one = 1, size = count ? NOTICE_BUFFER : REQUEST_BUFFER;
	struct timeval timeout = {.tv_sec = REPLY_TIMEOUT_S};
	struct sockaddr_nl addr = {.nl_family = AF_NETLINK};

	/* Kernels before 4.12 and 4.20 lack these two options: errors are then shorter and dumps unfiltered, which the handlers
	 * bear. */
	setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
	setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
	setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &one, sizeof(one));
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0)
		return err_sys(err, errno, "netlink socket: set timeout");
	if (count)
		leave_out_resolution(fd);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return err_sys(err, errno, "netlink socket: bind");
	for (size_t i = 0; i < count; i++)
		if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i], sizeof(groups[i])) < 0)
			return err_sys(err, errno, "netlink socket: subscribe to group %u", groups[i]);
	return 0;
}

static int open_here(void *arg, struct err *err)
{
	struct open_call *call = arg;
	int flags = SOCK_RAW | SOCK_CLOEXEC | (call->count ? SOCK_NONBLOCK : 0);
	int fd = socket(AF_NETLINK, flags, NETLINK_ROUTE);

	if (fd < 0)
		return err_sys(err, errno, "netlink socket");
	if (set_options(fd, call->groups, call->count, err) < 0) {
		close(fd);
		return -1;
	}
	call->fd = fd;
	return 0;
}

int nl_open(int netns_fd, const unsigned *groups, size_t count, struct nl_socket **ret_socket, struct err *err)
{
	struct open_call call = {.groups = groups, .count = count, .fd = -1};
	struct nl_socket *s;

	if ((netns_fd < 0 ? open_here(&call, err) : netns_visit(netns_fd, open_here, &call, err)) < 0)
		return -1;
	s = malloc(sizeof(*s));
	if (!s) {
		close(call.fd);
		return err_sys(err, ENOMEM, "netlink socket");
	}
	s->fd = call.fd;
	s->seq = 0;
	*ret_socket = s;
	return 0;
}

void nl_close(struct nl_socket *s)
{
	if (!s)
		return;
	close(s->fd);
	free(s);
}

int nl_fd(const struct nl_socket *s)
{
	return s->fd;
}

static int send_bytes(struct nl_socket *s, const void *bytes, size_t len, struct err *err)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	ssize_t n;

	do
		n = sendto(s->fd, bytes, len, 0, (struct sockaddr *)&kernel, sizeof(kernel));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_sys(err, errno, "netlink send of %zu bytes", len);
	return 0;
}

/* One datagram from the kernel. Anyone on the machine may send to a netlink socket by its port: others' are dropped. */
static ssize_t receive(struct nl_socket *s)
{
	for (;;) {
		struct sockaddr_nl from = {0};
		struct iovec iov = {.iov_base = s->buf, .iov_len = sizeof(s->buf)};
		struct msghdr msg = {.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1};
		ssize_t n = recvmsg(s->fd, &msg, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n >= 0 && (from.nl_pid != 0 || msg.msg_namelen != sizeof(from)))
			continue;
		if (n >= 0 && (msg.msg_flags & MSG_TRUNC)) {
			errno = EMSGSIZE;
			return -1;
		}
		return n;
	}
}

static int receive_reply(struct nl_socket *s, size_t *ret_len, struct err *err)
{
	ssize_t n = receive(s);

	if (n < 0 && errno == EAGAIN)
		return err_sys(err, ETIMEDOUT, "netlink: no answer from the kernel in %d s", REPLY_TIMEOUT_S);
	if (n < 0)
		return err_sys(err, errno, "netlink receive");
	*ret_len = (size_t)n;
	return 0;
}

/* The kernel's sentence behind an error or a DONE, when there is one. `skip` is what stands before the attributes. */
static void read_extack(const struct nlmsghdr *h, size_t skip, char buf[EXTACK_SIZE])
{
	static const struct nl_policy policy[] = {NL_TEXT(NLMSGERR_ATTR_MSG, EXTACK_SIZE - 1)};
	const struct nlattr *a[1];

	buf[0] = '\0';
	if (h->nlmsg_flags & NLM_F_ACK_TLVS && nl_parse_message(h, skip, policy, 1, a, NULL) == 0)
		nl_copy_text(a[0], buf, EXTACK_SIZE);
}

/* errno of an NLMSG_ERROR, 0 for an ack, and its sentence. */
static int read_error(const struct nlmsghdr *h, char extack[EXTACK_SIZE])
{
	const struct nlmsgerr *e = mnl_nlmsg_get_payload(h);
	size_t skip = sizeof(*e);

	extack[0] = '\0';
	if (mnl_nlmsg_get_payload_len(h) < sizeof(*e))
		return EBADMSG;
	/* Without NLM_F_CAPPED the whole request is quoted before the attributes. */
	if (!(h->nlmsg_flags & NLM_F_CAPPED) && e->error && e->msg.nlmsg_len >= NLMSG_HDRLEN)
		skip += NLMSG_ALIGN(e->msg.nlmsg_len) - NLMSG_HDRLEN;
	read_extack(h, skip, extack);
	return e->error < 0 ? -e->error : e->error;
}

static int fail(struct err *err, int error, const char *extack)
{
	return err_sys(err, error, "%s", extack[0] ? extack : "the kernel refuses");
}

/* An answer under way. After a handler's error the rest is read and dropped: a dump that is left half-way keeps the socket busy.
 */
struct answer {
	nl_handler *fn;
	void *arg;
	bool interrupted, refused;
};

/* Walks one datagram of an answer. 1: finished, 0: more to come, -1: error. */
static int read_answer(struct nl_socket *s, size_t len, struct answer *answer, struct err *err)
{
	const struct nlmsghdr *h = (const struct nlmsghdr *)s->buf;
	int left = (int)len;
	char extack[EXTACK_SIZE];

	for (; mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left)) {
		int error;

		if (h->nlmsg_seq != s->seq)
			continue;
		if (h->nlmsg_flags & NLM_F_DUMP_INTR)
			answer->interrupted = true;
		switch (h->nlmsg_type) {
		case NLMSG_ERROR:
			error = read_error(h, extack);
			return error && !answer->refused ? fail(err, error, extack) : 1;
		case NLMSG_DONE:
			if (mnl_nlmsg_get_payload_len(h) < sizeof(int) || *(const int *)mnl_nlmsg_get_payload(h) >= 0 ||
				answer->refused)
				return 1;
			read_extack(h, sizeof(int), extack);
			return fail(err, -*(const int *)mnl_nlmsg_get_payload(h), extack);
		case NLMSG_NOOP:
			break;
		default:
			if (answer->fn && !answer->refused && answer->fn(answer->arg, h, err) < 0)
				answer->refused = true;
		}
	}
	return 0;
}

static int exchange(struct nl_socket *s, struct nlb *b, uint16_t flags, struct answer *answer, struct err *err)
{
	struct nlmsghdr *h = nlb_message(b);
	size_t len;
	int rc;

	if (nlb_finish(b, err) < 0)
		return -1;
	h->nlmsg_flags |= flags;
	h->nlmsg_seq = ++s->seq;
	if (send_bytes(s, h, h->nlmsg_len, err) < 0)
		return -1;
	do {
		if (receive_reply(s, &len, err) < 0)
			return -1;
		rc = read_answer(s, len, answer, err);
	} while (rc == 0);
	return rc < 0 || answer->refused ? -1 : 0;
}

int nl_transact(struct nl_socket *s, struct nlb *b, struct err *err)
{
	struct answer answer = {.fn = NULL};

	return exchange(s, b, NLM_F_ACK, &answer, err);
}

int nl_query(struct nl_socket *s, struct nlb *b, nl_handler *fn, void *arg, struct err *err)
{
	struct answer answer = {.fn = fn, .arg = arg};

	return exchange(s, b, NLM_F_ACK, &answer, err);
}

int nl_dump(struct nl_socket *s, struct nlb *b, nl_handler *fn, void (*restart)(void *arg), void *arg, uint64_t *restarts,
	struct err *err)
{
	for (unsigned i = 0; i < NL_DUMP_TRIES; i++) {
		struct answer answer = {.fn = fn, .arg = arg};

		if (i && restart)
			restart(arg);
		if (i && restarts)
			(*restarts)++;
		if (exchange(s, b, NLM_F_DUMP, &answer, err) < 0)
			return -1;
		if (!answer.interrupted)
			return 0;
	}
	return err_sys(err, EAGAIN, "netlink dump of type %u: interrupted %d times, the table keeps changing",
		nlb_message(b)->nlmsg_type, NL_DUMP_TRIES);
}

static void read_notices(struct nl_socket *s, size_t len, nl_handler *fn, void *arg, uint64_t *bad)
{
	const struct nlmsghdr *h = (const struct nlmsghdr *)s->buf;
	int left = (int)len;
	struct err ignored;

	for (; mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left))
		if (h->nlmsg_type >= NLMSG_MIN_TYPE && fn(arg, h, &ignored) < 0 && bad)
			(*bad)++;
}

int nl_receive(struct nl_socket *s, nl_handler *fn, void *arg, uint64_t *bad, struct err *err)
{
	bool overrun = false;

	for (;;) {
		ssize_t n = receive(s);

		if (n >= 0)
			read_notices(s, (size_t)n, fn, arg, bad);
		else if (errno == ENOBUFS || errno == EMSGSIZE)
			overrun = true;
		else if (errno == EAGAIN)
			return overrun ? NL_RECEIVE_OVERRUN : NL_RECEIVE_EMPTY;
		else
			return err_sys(err, errno, "netlink receive of notices");
	}
}

struct nl_batch *nl_batch_new(void)
{
	struct nl_batch *batch = malloc(sizeof(*batch));

	if (batch)
		batch->count = batch->len = 0;
	return batch;
}

void nl_batch_free(struct nl_batch *batch)
{
	free(batch);
}

size_t nl_batch_count(const struct nl_batch *batch)
{
	return batch->count;
}

bool nl_batch_add(struct nl_batch *batch, struct nlb *b, uint32_t cookie)
{
	const struct nlmsghdr *h = nlb_message(b);
	size_t len = NLMSG_ALIGN(h->nlmsg_len);

	if (b->overflow || batch->count == NL_BATCH_MAX || batch->len + len > sizeof(batch->buf))
		return false;
	memset(batch->buf + batch->len, 0, len);
	memcpy(batch->buf + batch->len, h, h->nlmsg_len);
	batch->cookies[batch->count] = cookie;
	batch->failed[batch->count++] = false;
	batch->len += len;
	return true;
}

/* Numbers the messages first, first + 1, ... and asks for an ack on the last. */
static void number_messages(struct nl_batch *batch, uint32_t first)
{
	size_t at = 0;

	for (size_t i = 0; i < batch->count; i++) {
		struct nlmsghdr *h = (struct nlmsghdr *)(batch->buf + at);

		h->nlmsg_seq = first + (uint32_t)i;
		if (i + 1 == batch->count)
			h->nlmsg_flags |= NLM_F_ACK;
		at += NLMSG_ALIGN(h->nlmsg_len);
	}
}

/* True when the last message's answer was among them. */
static bool read_results(struct nl_socket *s, size_t len, struct nl_batch *batch, uint32_t first, nl_result_fn *fn, void *arg)
{
	const struct nlmsghdr *h = (const struct nlmsghdr *)s->buf;
	int left = (int)len;
	bool done = false;

	for (; mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left)) {
		uint32_t i = h->nlmsg_seq - first;
		char extack[EXTACK_SIZE];
		int error;

		if (h->nlmsg_type != NLMSG_ERROR || i >= batch->count)
			continue;
		error = read_error(h, extack);
		if (error && !batch->failed[i]) {
			batch->failed[i] = true;
			fn(arg, batch->cookies[i], error, extack);
		}
		done = done || i + 1 == batch->count;
	}
	return done;
}

static void report_rest(struct nl_batch *batch, int error, nl_result_fn *fn, void *arg)
{
	for (size_t i = 0; i < batch->count; i++)
		if (!batch->failed[i])
			fn(arg, batch->cookies[i], error, "");
	batch->count = batch->len = 0;
}

int nl_batch_send(struct nl_socket *s, struct nl_batch *batch, nl_result_fn *fn, void *arg, struct err *err)
{
	uint32_t first = s->seq + 1;
	struct err own = {0};
	size_t len;
	bool done = false;

	if (batch->count == 0)
		return 0;
	number_messages(batch, first);
	s->seq += (uint32_t)batch->count;
	if (send_bytes(s, batch->buf, batch->len, &own) < 0)
		goto broken;
	while (!done) {
		if (receive_reply(s, &len, &own) < 0)
			goto broken;
		done = read_results(s, len, batch, first, fn, arg);
	}
	report_rest(batch, 0, fn, arg);
	return 0;
broken:
	report_rest(batch, own.sys_errno ? own.sys_errno : EIO, fn, arg);
	if (err)
		*err = own;
	return -1;
}

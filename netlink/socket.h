/* rtnetlink sockets: one for requests, one for notices, each in the namespace it was opened in.
 *
 * A request is answered before sendmsg returns, so requests are synchronous, with a receive timeout as a guard. The kernel's own
 * sentence (extended ack) becomes part of the error. Replies with an old sequence number are skipped. Not for several threads. */
#ifndef NETLINK_SOCKET_H
#define NETLINK_SOCKET_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct nlb;
struct nl_socket;

/* Called for each message of an answer or notice. A negative return ends the dump with that error (err is filled by the handler).
 */
typedef int nl_handler(void *arg, const struct nlmsghdr *h, struct err *err);

/* Opens a socket in the namespace (netns_fd -1: the calling thread's) and subscribes it to `groups` (RTNLGRP_...; may be empty).
 * A socket with groups gets a receive buffer of 8 MiB and never blocks. Neighbours that the kernel resolves, confirms and ages by
 * itself are not told: that somebody put one of those in the place of a permanent one takes a dump to find. */
int nl_open(int netns_fd, const unsigned *groups, size_t count, struct nl_socket **ret_socket, struct err *err);
void nl_close(struct nl_socket *s);
int nl_fd(const struct nl_socket *s);

/* Sends one message and waits for its ack. On failure err has ERR_SYSTEM, sys_errno and the kernel's sentence. */
int nl_transact(struct nl_socket *s, struct nlb *b, struct err *err);
/* The same for a request that is answered with one message (GETLINK of one device). */
int nl_query(struct nl_socket *s, struct nlb *b, nl_handler *fn, void *arg, struct err *err);

/* Dumps until one was not interrupted by a change of the table, at most NL_DUMP_TRIES times; `restart` (may be NULL) is called
 * before each further try so that the caller forgets what came. Adds the number of restarts to *restarts (may be NULL). An error
 * inside the final NLMSG_DONE (a filter that strict checking refuses) is an error, never an empty table. */
#define NL_DUMP_TRIES 8
int nl_dump(struct nl_socket *s, struct nlb *b, nl_handler *fn, void (*restart)(void *arg), void *arg, uint64_t *restarts,
	struct err *err);

enum nl_receive_result {
	NL_RECEIVE_EMPTY = 0,	/* everything was read */
	NL_RECEIVE_OVERRUN = 1, /* notices were lost (ENOBUFS); what was still queued has been read too */
};
/* Reads all notices that are queued. Returns an nl_receive_result, or -1. A handler's error does not end it: a notice that cannot
 * be read is counted in *bad (may be NULL) and the next one is taken. */
int nl_receive(struct nl_socket *s, nl_handler *fn, void *arg, uint64_t *bad, struct err *err);

/* A batch: many messages in one sendmsg, one ack on the last. The kernel reports each error by sequence number and carries on
 * with the next message, so every message gets its own result. */
#define NL_BATCH_MAX 128 /* messages; so many errors fit the receive buffer */

struct nl_batch;
typedef void nl_result_fn(void *arg, uint32_t cookie, int error /* errno, 0 = done */, const char *extack /* "" = none */);

struct nl_batch *nl_batch_new(void);
void nl_batch_free(struct nl_batch *batch);
size_t nl_batch_count(const struct nl_batch *batch);
/* Copies the message. False when the batch is full (send it, then add again) or the message overflowed. */
bool nl_batch_add(struct nl_batch *batch, struct nlb *b, uint32_t cookie);
/* Sends and empties the batch; fn is called once for each message with the cookie given to add. -1: the exchange itself broke
 * (err); messages without a result have then been reported with that errno. */
int nl_batch_send(struct nl_socket *s, struct nl_batch *batch, nl_result_fn *fn, void *arg, struct err *err);

#endif

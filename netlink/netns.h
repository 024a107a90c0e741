/* Network namespaces: made without leaving our own, kept by a bind mount, entered by a short-lived thread.
 *
 * A namespace belongs to a thread. Entering one on the calling thread and failing to come back would leave the daemon in the
 * wrong place for good, so whatever must happen inside happens on a thread that ends afterwards. To open a socket inside, which
 * is one system call, netns_visit is three times as fast: should coming back fail, it ends the process, whose next start finds
 * everything as it is. */
#ifndef NETLINK_NETNS_H
#define NETLINK_NETNS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct nl_socket;

/* Runs fn(arg, err) on a thread inside the namespace and waits for it. Returns what fn returned, or -1. */
int netns_run(int netns_fd, int (*fn)(void *arg, struct err *err), void *arg, struct err *err);

/* The same on the calling thread, for a few system calls: coming back must not depend on what fn does. */
int netns_visit(int netns_fd, int (*fn)(void *arg, struct err *err), void *arg, struct err *err);

/* The calling thread's namespace. */
int netns_open_own(int *ret_fd, struct err *err);
/* A live namespace at path. ERR_NOT_FOUND: no file there, or a leftover file with no namespace mounted on it. */
int netns_open(const char *path, int *ret_fd, struct err *err);
/* Whether fd is a namespace file (nsfs) rather than the plain file that the mount would cover. */
bool netns_is_live(int fd);
/* Makes a namespace and mounts it at path (made, with its directories). ERR_EXISTS: something is there already. */
int netns_create(const char *path, struct err *err);
/* Unmounts and removes the file. The namespace itself goes with its last user. A missing path is success. */
int netns_remove(const char *path, struct err *err);

/* The number by which the namespace of the socket knows the namespace of netns_fd (IFLA_LINK_NETNSID speaks in these); one is
 * assigned when there is none. */
int netns_id(struct nl_socket *s, int netns_fd, int32_t *ret_nsid, struct err *err);

/* Writes a sysctl of a namespace the calling thread is in (for fn of netns_run). 0 when written or when this kernel has no such
 * file, which `ret_absent` (may be NULL) tells. */
int netns_sysctl(const char *path, const char *value, bool *ret_absent, struct err *err);
/* In a container without all privileges /proc/sys is mounted read-only, and made writable with CAP_SYS_ADMIN in a mount namespace
 * that is its own. Nothing to do elsewhere. */
int netns_unlock_sysctls(struct err *err);

#endif

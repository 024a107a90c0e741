/* The container's namespace: opened once, so that what is checked is what is used, and looked into when no daemon can.
 *
 * rtnetlink is spoken by hand here, two messages of it: the plugin is linked statically to start in a fraction of a millisecond,
 * and Debian has no static libmnl. A socket belongs to the namespace that it was opened in, so the process goes there for that
 * moment only: what it may start afterwards (an IPAM plugin) must run where the runtime put us. */
#include "cni/cni_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <unistd.h>

#define ANSWER_MAX 32768
#define WAIT_S 2 /* for the kernel, which answers at once */

/* ---- opening ---- */

/* Of the kind that we need: nsfs has files of others. */
static bool is_namespace(int fd)
{
	struct statfs st;

	return fstatfs(fd, &st) == 0 && st.f_type == NSFS_MAGIC && ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET;
}

static bool is_own(int fd)
{
	struct stat it, own;

	return fstat(fd, &it) == 0 && stat("/proc/self/ns/net", &own) == 0 && it.st_dev == own.st_dev && it.st_ino == own.st_ino;
}

int cni_netns_open(const struct cni_env *env, int *ret_fd, struct cni_error *e)
{
	bool needed = env->verb != CNI_DEL;
	int fd = env->netns ? open(env->netns, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1;

	if (fd < 0 && needed)
		return cni_fail(e, CNI_NETNS, "CNI_NETNS: open %.400s: %s", env->netns ? env->netns : "", strerror(errno));
	if (fd >= 0 && !is_namespace(fd)) {
		close(fd);
		fd = -1;
		if (needed)
			return cni_fail(e, CNI_NETNS, "CNI_NETNS: expected a network namespace, %.400s is another kind of file",
				env->netns);
	}
	if (fd >= 0 && !env->same_netns_allowed && is_own(fd)) {
		close(fd);
		return cni_fail(
			e, CNI_NETNS, "plugin's netns and netns from CNI_NETNS should not be the same: %.400s", env->netns);
	}
	*ret_fd = fd;
	return 0;
}

/* ---- two messages of rtnetlink ---- */

struct request {
	struct nlmsghdr head;
	struct ifinfomsg ifi;
	struct rtattr attr;
	char name[16];
};

static int open_and_return(int netns_fd, int home, struct err *err)
{
	int fd, error;

	if (setns(netns_fd, CLONE_NEWNET) < 0)
		return err_sys(err, errno, "enter the network namespace");
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	error = errno;
	if (setns(home, CLONE_NEWNET) < 0) {
		error = errno;
		if (fd >= 0)
			close(fd);
		return err_sys(err, error, "return from the network namespace");
	}
	return fd < 0 ? err_sys(err, error, "netlink socket") : fd;
}

static int open_inside(int netns_fd, struct err *err)
{
	struct timeval wait = {.tv_sec = WAIT_S};
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), fd;

	if (home < 0)
		return err_sys(err, errno, "open own network namespace");
	fd = open_and_return(netns_fd, home, err);
	close(home);
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	return fd;
}

/* Sends and receives one answer. Returns its length. */
static int exchange(int fd, uint16_t type, uint16_t flags, const char *ifname, void *answer, struct err *err)
{
	struct request request = {
		.head = {.nlmsg_len = sizeof(request), .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags, .nlmsg_seq = 1},
		.attr = {.rta_type = IFLA_IFNAME, .rta_len = RTA_LENGTH(sizeof(request.name))},
	};
	ssize_t n;

	snprintf(request.name, sizeof(request.name), "%s", ifname);
	if (send(fd, &request, sizeof(request), 0) < 0)
		return err_sys(err, errno, "netlink: send");
	n = recv(fd, answer, ANSWER_MAX, 0);
	if (n < 0)
		return err_sys(err, errno, "netlink: receive");
	return (int)n;
}

struct seen {
	char alias[256];
	uint8_t mac[6];
	bool has_mac;
};

static void read_attributes(const struct nlmsghdr *head, struct seen *seen)
{
	int left = (int)head->nlmsg_len - (int)NLMSG_LENGTH(sizeof(struct ifinfomsg));
	const struct rtattr *a = (const void *)((const char *)head + NLMSG_SPACE(sizeof(struct ifinfomsg)));

	for (; RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		size_t len = RTA_PAYLOAD(a);

		if (a->rta_type == IFLA_IFALIAS && len < sizeof(seen->alias))
			memcpy(seen->alias, RTA_DATA(a), len);
		if (a->rta_type == IFLA_ADDRESS && len == sizeof(seen->mac)) {
			memcpy(seen->mac, RTA_DATA(a), len);
			seen->has_mac = true;
		}
	}
}

/* The errno of an answer that is an ack or an error, 0 for anything else. */
static int errno_of(const struct nlmsghdr *head, int len)
{
	const struct nlmsgerr *ack = NLMSG_DATA(head);

	if (!NLMSG_OK(head, (uint32_t)len))
		return EPROTO;
	if (head->nlmsg_type != NLMSG_ERROR)
		return 0;
	return head->nlmsg_len < NLMSG_LENGTH(sizeof(*ack)) ? EPROTO : -ack->error;
}

static int look(int fd, const char *ifname, const char *mac, enum cni_link *ret_link, struct err *err)
{
	_Alignas(struct nlmsghdr) char answer[ANSWER_MAX];
	struct nlmsghdr *head = (void *)answer;
	struct seen seen = {0};
	struct mac expected;
	int len = exchange(fd, RTM_GETLINK, 0, ifname, answer, err), error;

	if (len < 0)
		return -1;
	error = errno_of(head, len);
	if (error == ENODEV) {
		*ret_link = CNI_LINK_ABSENT;
		return 0;
	}
	if (error || head->nlmsg_type != RTM_NEWLINK)
		return err_sys(err, error ? error : EPROTO, "interface %s", ifname);
	read_attributes(head, &seen);
	if (strncmp(seen.alias, "trestle:", 8) == 0 || (mac && seen.has_mac && mac_parse(mac, &expected, NULL) == 0 &&
							       memcmp(expected.bytes, seen.mac, sizeof(seen.mac)) == 0))
		*ret_link = CNI_LINK_OURS;
	else
		*ret_link = CNI_LINK_FOREIGN;
	return 0;
}

int cni_link_look(int netns_fd, const char *ifname, const char *mac, enum cni_link *ret_link, struct err *err)
{
	int fd = open_inside(netns_fd, err), ret;

	if (fd < 0)
		return -1;
	ret = look(fd, ifname, mac, ret_link, err);
	close(fd);
	return ret;
}

static int remove_link(int fd, const char *ifname, struct err *err)
{
	_Alignas(struct nlmsghdr) char answer[ANSWER_MAX];
	int len = exchange(fd, RTM_DELLINK, NLM_F_ACK, ifname, answer, err), error;

	if (len < 0)
		return -1;
	error = errno_of((void *)answer, len);
	if (error && error != ENODEV)
		return err_sys(err, error, "remove interface %s", ifname);
	return 0;
}

int cni_link_remove(int netns_fd, const char *ifname, const char *mac, struct err *err)
{
	int fd = open_inside(netns_fd, err), ret;
	enum cni_link link;

	if (fd < 0)
		return -1;
	ret = look(fd, ifname, mac, &link, err);
	if (ret == 0 && link == CNI_LINK_OURS)
		ret = remove_link(fd, ifname, err);
	close(fd);
	return ret;
}

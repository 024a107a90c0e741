/* Network namespaces. See netns.h. */
#include "netlink/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/magic.h>
#include <linux/net_namespace.h>
#include <linux/rtnetlink.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/file.h"
#include "netlink/build.h"
#include "netlink/parse.h"
#include "netlink/socket.h"

#define NAMED "/run/netns" /* where ip-netns(8) has them */
#define STACK_BYTES (256 * 1024)

struct call {
	int netns_fd;
	int (*fn)(void *arg, struct err *err);
	void *arg;
	struct err err;
	int ret;
};

static void *call_thread(void *arg)
{
	struct call *call = arg;

	if (call->netns_fd >= 0 && setns(call->netns_fd, CLONE_NEWNET) < 0)
		call->ret = err_sys(&call->err, errno, "enter network namespace");
	else
		call->ret = call->fn(call->arg, &call->err);
	return NULL;
}

static int run_thread(struct call *call)
{
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	rc = pthread_create(&thread, &attr, call_thread, call);
	pthread_attr_destroy(&attr);
	if (rc)
		return err_sys(&call->err, rc, "start a thread for a network namespace");
	pthread_join(thread, NULL);
	return call->ret;
}

int netns_run(int netns_fd, int (*fn)(void *arg, struct err *err), void *arg, struct err *err)
{
	struct call call = {.netns_fd = netns_fd, .fn = fn, .arg = arg};
	int ret = run_thread(&call);

	if (ret < 0 && err)
		*err = call.err;
	return ret;
}

int netns_visit(int netns_fd, int (*fn)(void *arg, struct err *err), void *arg, struct err *err)
{
	int home = -1, ret;

	if (netns_open_own(&home, err) < 0)
		return -1;
	if (setns(netns_fd, CLONE_NEWNET) < 0) {
		ret = err_sys(err, errno, "enter network namespace");
	} else {
		ret = fn(arg, err);
		if (setns(home, CLONE_NEWNET) < 0)
			abort();
	}
	close(home);
	return ret;
}

int netns_open_own(int *ret_fd, struct err *err)
{
	int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return err_sys(err, errno, "open own network namespace");
	*ret_fd = fd;
	return 0;
}

bool netns_is_live(int fd)
{
	struct statfs st;

	return fstatfs(fd, &st) == 0 && st.f_type == NSFS_MAGIC;
}

int netns_open(const char *path, int *ret_fd, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return err_set(err, ERR_NOT_FOUND, "network namespace %s: no such file", path);
	if (fd < 0)
		return err_sys(err, errno, "open network namespace %s", path);
	if (!netns_is_live(fd)) {
		close(fd);
		return err_set(err, ERR_NOT_FOUND, "network namespace %s: a file with no namespace mounted on it", path);
	}
	*ret_fd = fd;
	return 0;
}

static int make_and_mount(void *arg, struct err *err)
{
	const char *path = arg;
	char own[64];

	if (unshare(CLONE_NEWNET) < 0)
		return err_sys(err, errno, "make network namespace %s", path);
	/* thread-self is resolved here, while the thread still lives; the mount then holds the namespace by itself. */
	snprintf(own, sizeof(own), "/proc/thread-self/ns/net");
	if (mount(own, path, "none", MS_BIND, NULL) < 0)
		return err_sys(err, errno, "mount network namespace on %s", path);
	return 0;
}

/* As ip-netns(8) does at its first use. Left to it, it would mount the directory over itself with our namespace in it: mounted
 * twice, once out of reach, it could not be removed until the reboot. */
static int share_named(const char *dir, struct err *err)
{
	if (strcmp(dir, NAMED) != 0 || mount("", dir, "none", MS_SHARED | MS_REC, NULL) == 0)
		return 0;
	if (errno != EINVAL || mount(dir, dir, "none", MS_BIND | MS_REC, NULL) < 0 ||
		mount("", dir, "none", MS_SHARED | MS_REC, NULL) < 0)
		return err_sys(err, errno, "share the mounts below %s", dir);
	return 0;
}

static int make_parent(const char *path, struct err *err)
{
	char *copy = strdup(path), *dir;
	int ret;

	if (!copy)
		return err_sys(err, ENOMEM, "directory of %s", path);
	dir = dirname(copy);
	ret = file_make_dirs(dir, 0755, err) < 0 ? -1 : share_named(dir, err);
	free(copy);
	return ret;
}

int netns_create(const char *path, struct err *err)
{
	int fd;

	if (make_parent(path, err) < 0)
		return -1;
	fd = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
	if (fd < 0 && errno == EEXIST)
		return err_set(err, ERR_EXISTS, "network namespace %s: the file exists", path);
	if (fd < 0)
		return err_sys(err, errno, "make %s", path);
	close(fd);
	if (netns_run(-1, make_and_mount, (void *)(uintptr_t)path, err) < 0) {
		unlink(path);
		return -1;
	}
	return 0;
}

int netns_remove(const char *path, struct err *err)
{
	/* EINVAL: nothing is mounted there, a leftover file. */
	if (umount2(path, MNT_DETACH) < 0 && errno != EINVAL && errno != ENOENT)
		return err_sys(err, errno, "unmount network namespace %s", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return err_sys(err, errno, "remove %s", path);
	return 0;
}

static int read_nsid(void *arg, const struct nlmsghdr *h, struct err *err)
{
	static const struct nl_policy policy[] = {NL_NEED(NETNSA_NSID, 4)};
	const struct nlattr *a[1];

	if (nl_parse_message(h, sizeof(struct rtgenmsg), policy, 1, a, err) < 0)
		return -1;
	*(int32_t *)arg = (int32_t)nl_u32(a[0], UINT32_MAX);
	return 0;
}

static int ask_nsid(struct nl_socket *s, int netns_fd, int32_t *ret_nsid, struct err *err)
{
	struct rtgenmsg gen = {0};
	struct nlb b;

	nlb_begin(&b, RTM_GETNSID, 0, &gen, sizeof(gen));
	nlb_put_u32(&b, NETNSA_FD, (uint32_t)netns_fd);
	return nl_query(s, &b, read_nsid, ret_nsid, err);
}

int netns_id(struct nl_socket *s, int netns_fd, int32_t *ret_nsid, struct err *err)
{
	int32_t nsid = NETNSA_NSID_NOT_ASSIGNED;
	struct rtgenmsg gen = {0};
	struct nlb b;

	if (ask_nsid(s, netns_fd, &nsid, err) < 0)
		return err_prefix(err, "ask for a namespace's number");
	if (nsid == NETNSA_NSID_NOT_ASSIGNED) {
		nlb_begin(&b, RTM_NEWNSID, 0, &gen, sizeof(gen));
		nlb_put_u32(&b, NETNSA_FD, (uint32_t)netns_fd);
		nlb_put_u32(&b, NETNSA_NSID, UINT32_MAX);
		if (nl_transact(s, &b, err) < 0 || ask_nsid(s, netns_fd, &nsid, err) < 0)
			return err_prefix(err, "number a namespace");
	}
	*ret_nsid = nsid;
	return 0;
}

int netns_unlock_sysctls(struct err *err)
{
	struct statvfs st;

	if (statvfs("/proc/sys", &st) < 0)
		return err_sys(err, errno, "/proc/sys");
	if (!(st.f_flag & ST_RDONLY))
		return 0;
	/* The flags of a bind mount are its own: the proc file system behind it is writable. */
	if (mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL) < 0)
		return err_sys(err, errno, "make /proc/sys writable");
	return 0;
}

int netns_sysctl(const char *path, const char *value, bool *ret_absent, struct err *err)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;

	if (ret_absent)
		*ret_absent = fd < 0 && errno == ENOENT;
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0)
		return err_sys(err, errno, "write \"%s\" to %s", value, path);
	n = write(fd, value, strlen(value));
	if (n < 0) {
		int e = errno;

		close(fd);
		return err_sys(err, e, "write \"%s\" to %s", value, path);
	}
	close(fd);
	return 0;
}

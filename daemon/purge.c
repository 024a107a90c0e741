/* `trestled --purge`: everything of ours leaves this host, by a process that finds no daemon running. Kernel objects by their
 * tags, the files of both directories, sockets. What is not ours stays, and a directory that is not empty then. The cluster is
 * not told: a host says `trestle leave` before. */
#include "daemon/purge.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/store.h"
#include "driver/vxlan/vxlan.h"

static int purge_mode(const struct options *o, bool routed, struct err *err)
{
	/* Any address: no device is made. */
	struct vxlan_config config = {.fabric_path = o->fabric,
		.port = o->vxlan_port,
		.local = ip_from_number(4, 0x7f000001),
		.table = o->nft_table,
		.routed = routed};
	struct driver *driver;
	int ret;

	if (vxlan_open(&config, &driver, err) < 0)
		return -1;
	ret = driver->ops->purge(driver, err);
	driver->ops->close(driver);
	return ret;
}

static int remove_file(const char *path, struct err *err)
{
	if (unlink(path) < 0 && errno != ENOENT)
		return err_sys(err, errno, "remove %s", path);
	return 0;
}

static int not_dots(const struct dirent *e)
{
	return strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
}

/* Word of deletions that no daemon will act on. */
static int remove_tombstones(const struct options *o, struct err *err)
{
	char dir[OPTIONS_PATH_MAX + 16], path[OPTIONS_PATH_MAX + 300];
	struct dirent **names;
	int count, ret = 0;

	snprintf(dir, sizeof(dir), "%s/tombstones", o->run_dir);
	count = scandir(dir, &names, not_dots, alphasort);
	if (count < 0)
		return errno == ENOENT ? 0 : err_sys(err, errno, "read %s", dir);
	for (int i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
		ret = ret < 0 ? ret : remove_file(path, err);
		free(names[i]);
	}
	free(names);
	rmdir(dir);
	return ret;
}

static int purge_all(void *arg, struct err *err)
{
	const struct options *o = arg;

	if (purge_mode(o, false, err) < 0 || purge_mode(o, true, err) < 0 || remove_tombstones(o, err) < 0)
		return -1;
	return remove_file(o->plugin_socket, err) < 0 ? -1 : remove_file(o->control_socket, err);
}

int purge_host(const struct options *o, struct err *err)
{
	/* The files last: a purge that failed half way is begun anew with all that is known. */
	if (store_remove(o->state_dir, o->run_dir, purge_all, (void *)(uintptr_t)o, err) < 0)
		return -1;
	rmdir(o->state_dir);
	rmdir(o->run_dir);
	return 0;
}

/* Word for a daemon that does not run: what DEL wanted freed.
 *
 * One file for each attachment, named after it, so that a DEL that is repeated leaves one file, and so that a daemon that serves
 * an ADD of the same attachment can look for the file by name and settle the old one first. The three parts of the name hold no
 * ':' and no '/' (env.c and config.c saw to it). */
#include "cni/cni_internal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

int cni_tombstone_write(const char *run_dir, const char *config, const char *container_id, const char *ifname, struct err *err)
{
	char dir[PATH_MAX], path[PATH_MAX];
	json_t *object;
	char *text;
	int n, ret;

	n = snprintf(dir, sizeof(dir), "%s/tombstones", run_dir);
	if (n < 0 || (size_t)n >= sizeof(dir) || file_make_dirs(dir, 0700, err) < 0)
		return err_prefix(err, "word for the daemon");
	n = snprintf(path, sizeof(path), "%s/%s:%s:%s", dir, config, container_id, ifname);
	if (n < 0 || (size_t)n >= sizeof(path))
		return err_set(err, ERR_TOO_BIG, "word for the daemon: the path %.100s... is too long", dir);
	object = json_pack("{s:s, s:s, s:s}", "config", config, "container_id", container_id, "ifname", ifname);
	text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	json_decref(object);
	if (!text)
		return err_set(err, ERR_INVALID, "word for the daemon: \"%.32s\" is not UTF-8", ifname);
	ret = file_write_atomic(path, text, strlen(text), 0600, err);
	free(text);
	return ret;
}

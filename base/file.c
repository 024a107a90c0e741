/* Small files: bounded read, atomic replace (see file.h).
 *
 * rename(2) replaces the name atomically, but the data may still be in the page cache and the new name only in a directory block
 * that was not written: hence the fsync of the file before and of its directory after. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_STEP 4096u

/* Reads until the end or max + 1 bytes. The size in fstat is not used: it is 0 for everything in /proc and /sys. */
static int read_all(int fd, const char *path, size_t max, char **ret_data, size_t *ret_len, struct err *err)
{
	char *data = NULL;
	size_t capacity = 0;
	size_t len = 0;
	ssize_t n;

	do {
		if (capacity - len < 2) {
			size_t bigger = capacity ? 2 * capacity : READ_STEP;
			char *grown = realloc(data, bigger);

			if (!grown) {
				free(data);
				return err_sys(err, ENOMEM, "read %s", path);
			}
			data = grown;
			capacity = bigger;
		}
		do
			n = read(fd, data + len, capacity - len - 1);
		while (n < 0 && errno == EINTR);
		if (n < 0) {
			int saved = errno;

			free(data);
			return err_sys(err, saved, "read %s", path);
		}
		len += (size_t)n;
		if (len > max) {
			free(data);
			return err_set(err, ERR_TOO_BIG, "read %s: expected at most %zu bytes, found more", path, max);
		}
	} while (n > 0);
	data[len] = '\0';
	*ret_data = data;
	*ret_len = len;
	return 0;
}

int file_read(const char *path, size_t max, char **ret_data, size_t *ret_len, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return err_sys(err, errno, "open %s", path);
	rc = read_all(fd, path, max, ret_data, ret_len, err);
	close(fd);
	return rc;
}

static int write_all(int fd, const char *path, const void *data, size_t len, struct err *err)
{
	const char *at = data;

	while (len > 0) {
		ssize_t n = write(fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, errno, "write %s", path);
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

static int sync_directory_of(const char *path, struct err *err)
{
	char dir[PATH_MAX];
	const char *slash = strrchr(path, '/');
	int fd;
	int rc = 0;

	if (!slash)
		snprintf(dir, sizeof(dir), ".");
	else
		snprintf(dir, sizeof(dir), "%.*s", slash == path ? 1 : (int)(slash - path), path);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(err, errno, "open %s", dir);
	if (fsync(fd) < 0)
		rc = err_sys(err, errno, "fsync %s", dir);
	close(fd);
	return rc;
}

static int write_new(const char *path, const void *data, size_t len, mode_t mode, struct err *err)
{
	int fd;
	int rc;

	/* A leftover of a crash may have other permissions; a fresh file has the asked-for ones from its first byte. */
	if (unlink(path) < 0 && errno != ENOENT)
		return err_sys(err, errno, "unlink %s", path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0)
		return err_sys(err, errno, "create %s", path);
	rc = write_all(fd, path, data, len, err);
	if (rc == 0 && fsync(fd) < 0)
		rc = err_sys(err, errno, "fsync %s", path);
	if (close(fd) < 0 && rc == 0)
		rc = err_sys(err, errno, "close %s", path);
	if (rc < 0)
		unlink(path);
	return rc;
}

int file_write_atomic(const char *path, const void *data, size_t len, mode_t mode, struct err *err)
{
	char tmp[PATH_MAX];
	int n = snprintf(tmp, sizeof(tmp), "%s.tmp", path);

	if (n < 0 || (size_t)n >= sizeof(tmp))
		return err_sys(err, ENAMETOOLONG, "write %.64s...", path);
	if (write_new(tmp, data, len, mode, err) < 0)
		return -1;
	if (rename(tmp, path) < 0) {
		int saved = errno;

		unlink(tmp);
		return err_sys(err, saved, "rename %s to %s", tmp, path);
	}
	return sync_directory_of(path, err);
}

static int make_dir(const char *path, mode_t mode, struct err *err)
{
	struct stat st;

	if (mkdir(path, mode) == 0)
		return 0;
	/* On a read-only parent mkdir may say EROFS for a directory that is there. */
	int saved = errno;
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return 0;
	return err_sys(err, saved == EEXIST ? ENOTDIR : saved, "create directory %s", path);
}

int file_make_parents(const char *path, mode_t mode, struct err *err)
{
	char part[PATH_MAX];
	int n = snprintf(part, sizeof(part), "%s", path);

	if (n <= 0 || (size_t)n >= sizeof(part))
		return err_set(err, ERR_INVALID, "create directory: expected a path of 1 to %d bytes, found %d", PATH_MAX - 1, n);
	for (char *at = part + 1; *at; at++) {
		if (*at != '/')
			continue;
		*at = '\0';
		if (make_dir(part, mode, err) < 0)
			return -1;
		*at = '/';
	}
	return 0;
}

int file_make_dirs(const char *path, mode_t mode, struct err *err)
{
	return file_make_parents(path, mode, err) < 0 ? -1 : make_dir(path, mode, err);
}

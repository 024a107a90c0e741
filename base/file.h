/* Small files: bounded read, atomic replace. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

/* Reads a whole file of at most max bytes. Allocates with a NUL behind the data; the caller frees. */
int file_read(const char *path, size_t max, char **ret_data, size_t *ret_len, struct err *err);
/* Writes path.tmp, fsyncs, renames, fsyncs the directory. */
int file_write_atomic(const char *path, const void *data, size_t len, mode_t mode, struct err *err);
/* mkdir -p of the directory that this file is in; existing directories are fine. */
int file_make_parents(const char *path, mode_t mode, struct err *err);
/* mkdir -p of the path itself. */
int file_make_dirs(const char *path, mode_t mode, struct err *err);

#endif

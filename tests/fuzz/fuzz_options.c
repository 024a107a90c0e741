/* The daemon's options file. What a file says, the same names and values say as flags: both ways lead to the same options, or the
 * file is refused with a sentence that names its line. */
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX 8192
#define LINES_MAX 256

/* What else would be looked up in the machine. */
static const char *const fixed[] = {
	"--listen", "192.0.2.1", "--boot-id", "boot", "--machine-id", "machine", "--machine-uuid", "uuid"};
#define FIXED (sizeof(fixed) / sizeof(fixed[0]))

static int read_options(const char *config, char **flags, int count, struct options *ret_options, struct err *err)
{
	char *argv[3 + LINES_MAX + FIXED] = {(char *)"trestled", (char *)"--config", (char *)config};
	int argc = 3;

	for (int i = 0; i < count; i++)
		argv[argc++] = flags[i];
	for (size_t i = 0; i < FIXED; i++)
		argv[argc++] = (char *)fixed[i];
	return options_read(ret_options, argc, argv, err);
}

static bool is_ended(const char *text, size_t size)
{
	return memchr(text, '\0', size) != NULL;
}

static void check(const struct options *o)
{
	if (!is_ended(o->name, sizeof(o->name)) || !is_ended(o->state_dir, sizeof(o->state_dir)) ||
		!is_ended(o->run_dir, sizeof(o->run_dir)) || !is_ended(o->plugin_socket, sizeof(o->plugin_socket)) ||
		!is_ended(o->control_socket, sizeof(o->control_socket)) || !is_ended(o->fabric, sizeof(o->fabric)) ||
		!is_ended(o->nft_table, sizeof(o->nft_table)) || !is_ended(o->adopt, sizeof(o->adopt)) ||
		!is_ended(o->join, sizeof(o->join)))
		abort();
	if (!o->name[0] || !o->state_dir[0] || !o->run_dir[0] || !o->control_socket[0] || !o->vxlan_port || !o->lease_grace_s ||
		o->help || o->version || o->prepare || o->purge)
		abort();
	if (o->supernet4.length > o->pool_length4 || o->supernet6.length > o->pool_length6 || o->pool_length4 > 32)
		abort();
}

/* " name = value " to "--name=value"; false: says nothing. */
static bool as_flag(const char *line, size_t len, char **ret_flag)
{
	const char *equals, *end = line + len;

	while (line < end && strchr(" \t\r", *line))
		line++;
	if (line == end || *line == '#')
		return false;
	equals = memchr(line, '=', (size_t)(end - line));
	if (!equals)
		abort(); /* and yet it was taken */
	len = (size_t)(equals - line);
	while (len > 0 && isspace((unsigned char)line[len - 1]))
		len--;
	equals++;
	while (equals < end && strchr(" \t", *equals))
		equals++;
	while (end > equals && isspace((unsigned char)end[-1]))
		end--;
	if (asprintf(ret_flag, "--%.*s=%.*s", (int)len, line, (int)(end - equals), equals) < 0)
		abort();
	return true;
}

static void try_flags(const char *text, const struct options *from_file)
{
	char *flags[LINES_MAX];
	struct options o;
	struct err err;
	int count = 0;

	while (text && count < LINES_MAX) {
		const char *next = strchr(text, '\n');

		count += as_flag(text, next ? (size_t)(next - text) : strlen(text), &flags[count]);
		text = next ? next + 1 : NULL;
	}
	if (!text && (read_options("/dev/null", flags, count, &o, &err) < 0 || memcmp(&o, from_file, sizeof(o)) != 0))
		abort();
	while (count > 0)
		free(flags[--count]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	char path[32], text[INPUT_MAX + 1];
	struct options o;
	struct err err = {0};

	if (size > INPUT_MAX)
		return 0;
	if (fd < 0)
		fd = memfd_create("options", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, 0) < 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (read_options(path, NULL, 0, &o, &err) < 0) {
		if (!err.code || !err.text[0])
			abort();
		return 0;
	}
	check(&o);
	memcpy(text, data, size);
	text[size] = '\0';
	if (strlen(text) != size)
		abort(); /* a part was ignored */
	try_flags(text, &o);
	return 0;
}

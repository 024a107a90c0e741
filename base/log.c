/* Log lines to stderr (see log.h). One write(2) a line, so that lines of two processes on one terminal or journal do not mix.
 *
 * No timestamp: journald, docker and every supervisor add their own. When stderr is the journal (systemd says so in
 * JOURNAL_STREAM) the line starts with the "<N>" priority that sd-daemon(3) defines. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOG_LINE_SIZE 1024
#define LOG_WINDOW_MS 60000u

static const char *const level_names[] = {"error", "warn", "info", "debug"};
/* err, warning, info, debug of syslog(3) */
static const char *const level_priorities[] = {"<3>", "<4>", "<6>", "<7>"};

static enum log_level current_level = LOG_LEVEL_INFO;

void log_set_level(enum log_level level)
{
	current_level = level;
}

bool log_shows(enum log_level level)
{
	return level <= current_level;
}

bool log_level_parse(const char *text, enum log_level *ret_level)
{
	for (unsigned i = 0; text && i < sizeof(level_names) / sizeof(level_names[0]); i++) {
		if (strcmp(text, level_names[i]) == 0) {
			*ret_level = (enum log_level)i;
			return true;
		}
	}
	return false;
}

/* Control bytes come from names that others chose: shown as "?", so that nobody can forge a second line. */
static void clean(char *line, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	}
}

static size_t clamp(int n, size_t room)
{
	if (n < 0)
		return 0;
	return (size_t)n < room ? (size_t)n : room - 1;
}

static void write_line(enum log_level level, const char *module, unsigned long swallowed, const char *fmt, va_list args)
{
	char line[LOG_LINE_SIZE];
	size_t room = sizeof(line) - 1; /* one stays for the newline */
	const char *priority = getenv("JOURNAL_STREAM") ? level_priorities[level] : "";
	size_t len;
	ssize_t written;

	len = clamp(snprintf(line, room, "%s%s %s: ", priority, level_names[level], module), room);
	len += clamp(vsnprintf(line + len, room - len, fmt, args), room - len);
	if (swallowed > 0)
		len += clamp(snprintf(line + len, room - len, " (%lu like it not shown)", swallowed), room - len);
	clean(line, len);
	line[len++] = '\n';
	/* A log that cannot be written has nowhere to complain. */
	written = write(STDERR_FILENO, line, len);
	(void)written;
}

void log_write(enum log_level level, const char *module, const char *fmt, ...)
{
	va_list args;

	if (level > current_level)
		return;
	va_start(args, fmt);
	write_line(level, module, 0, fmt, args);
	va_end(args);
}

void log_limited(struct log_limit *limit, uint64_t now_ms, enum log_level level, const char *module, const char *fmt, ...)
{
	unsigned long swallowed;
	va_list args;

	if (level > current_level)
		return;
	if (limit->used == 0 || now_ms - limit->window_start_ms >= LOG_WINDOW_MS) {
		limit->window_start_ms = now_ms;
		limit->used = 0;
	}
	if (limit->used >= limit->burst) {
		limit->swallowed++;
		return;
	}
	limit->used++;
	swallowed = limit->swallowed;
	limit->swallowed = 0;
	va_start(args, fmt);
	write_line(level, module, swallowed, fmt, args);
	va_end(args);
}

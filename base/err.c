/* Error objects: filled where the fact is known, prefixed on the way up (see err.h).
 *
 * Text is built in a second buffer before it replaces the old one, so that an error's own text may be an argument of the call
 * that rewrites it. Text that does not fit is cut at the end; the front names the object, which is what matters most. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const code_names[] = {
	[ERR_OK] = "ok",
	[ERR_INVALID] = "invalid",
	[ERR_NOT_FOUND] = "not-found",
	[ERR_EXISTS] = "exists",
	[ERR_CONFLICT] = "conflict",
	[ERR_EXHAUSTED] = "exhausted",
	[ERR_UNREACHABLE] = "unreachable",
	[ERR_DENIED] = "denied",
	[ERR_SYSTEM] = "system",
	[ERR_CORRUPT] = "corrupt",
	[ERR_VERSION] = "version",
	[ERR_TOO_BIG] = "too-big",
	[ERR_UNSUPPORTED] = "unsupported",
	[ERR_INTERNAL] = "internal",
};

/* Appends at *len, never past the buffer; *len stays the length of the text in it. */
static void append(char text[ERR_TEXT_SIZE], size_t *len, const char *more)
{
	size_t room = ERR_TEXT_SIZE - 1 - *len;
	size_t take = strnlen(more, room);

	memcpy(text + *len, more, take);
	*len += take;
	text[*len] = '\0';
}

static size_t format(char text[ERR_TEXT_SIZE], const char *fmt, va_list args)
{
	int n = vsnprintf(text, ERR_TEXT_SIZE, fmt, args);

	if (n < 0) {
		text[0] = '\0';
		return 0;
	}
	return n < ERR_TEXT_SIZE ? (size_t)n : ERR_TEXT_SIZE - 1;
}

int err_set(struct err *err, enum err_code code, const char *fmt, ...)
{
	char text[ERR_TEXT_SIZE];
	va_list args;
	size_t len;

	if (!err)
		return -1;
	va_start(args, fmt);
	len = format(text, fmt, args);
	va_end(args);
	err->code = code;
	err->sys_errno = 0;
	memcpy(err->text, text, len + 1);
	return -1;
}

int err_sys(struct err *err, int sys_errno, const char *fmt, ...)
{
	char text[ERR_TEXT_SIZE];
	char reason[128];
	va_list args;
	size_t len;

	if (!err)
		return -1;
	va_start(args, fmt);
	len = format(text, fmt, args);
	va_end(args);
	append(text, &len, ": ");
	append(text, &len, strerror_r(sys_errno, reason, sizeof(reason)));
	err->code = ERR_SYSTEM;
	err->sys_errno = sys_errno;
	memcpy(err->text, text, len + 1);
	return -1;
}

int err_prefix(struct err *err, const char *fmt, ...)
{
	char text[ERR_TEXT_SIZE];
	va_list args;
	size_t len;

	if (!err)
		return -1;
	va_start(args, fmt);
	len = format(text, fmt, args);
	va_end(args);
	append(text, &len, ": ");
	append(text, &len, err->text);
	memcpy(err->text, text, len + 1);
	return -1;
}

const char *err_code_name(enum err_code code)
{
	if ((unsigned)code >= sizeof(code_names) / sizeof(code_names[0]))
		return "unknown";
	return code_names[code];
}

/* Memory that is there (see alloc.h). The last word is a log line, which takes no memory. */
#include "base/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static _Noreturn void give_up(const char *what, size_t count, size_t size)
{
	log_error("memory", "no memory for %zu x %s, %zu bytes each: aborting; what is saved is complete, start again", count,
		what, size);
	abort();
}

void *alloc_zeroed(size_t count, size_t size, const char *what)
{
	void *got = calloc(count ? count : 1, size ? size : 1);

	if (!got)
		give_up(what, count, size);
	return got;
}

void *alloc_resized(void *old, size_t count, size_t size, const char *what)
{
	void *got = reallocarray(old, count ? count : 1, size);

	if (!got)
		give_up(what, count, size);
	return got;
}

char *alloc_text(const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		give_up("text", 1, strlen(text) + 1);
	return copy;
}

char *alloc_format(const char *fmt, ...)
{
	char *text;
	va_list args;
	int len;

	va_start(args, fmt);
	len = vasprintf(&text, fmt, args);
	va_end(args);
	if (len < 0)
		give_up(fmt, 1, strlen(fmt));
	return text;
}

void *alloc_made(void *object, const char *what)
{
	if (!object) {
		log_error("memory", "no memory for a %s: aborting; what is saved is complete, start again", what);
		abort();
	}
	return object;
}

/* Errors: one object, filled once where the fact is known, prefixed on the way up, printed at the edge.
 *
 * Every function that can fail takes `struct err *err` last and returns a negative number (or NULL) on failure;
 * on failure its other outputs are untouched. `err` may be NULL when the caller does not care. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#define ERR_TEXT_SIZE 512

enum err_code {
	ERR_OK = 0,
	ERR_INVALID,	 /* the caller's input is wrong: nothing was done */
	ERR_NOT_FOUND,	 /* the named object is not known here */
	ERR_EXISTS,	 /* it exists already, with other content */
	ERR_CONFLICT,	 /* it contradicts something else that exists; the text names both */
	ERR_EXHAUSTED,	 /* a pool, table or limit is full */
	ERR_UNREACHABLE, /* another host, or the daemon, had to be asked and was not reached, or cannot answer now */
	ERR_DENIED,	 /* keys, tokens, permissions */
	ERR_SYSTEM,	 /* the kernel or libc refused; sys_errno says how */
	ERR_CORRUPT,	 /* stored or received bytes do not decode */
	ERR_VERSION,	 /* made by a newer version of us */
	ERR_TOO_BIG,	 /* over a stated limit */
	ERR_UNSUPPORTED, /* well formed, and we do not do it */
	ERR_INTERNAL	 /* a bug of ours */
};

struct err {
	enum err_code code;
	int sys_errno; /* 0 unless code is ERR_SYSTEM */
	char text[ERR_TEXT_SIZE];
};

/* All three return -1, so that `return err_set(err, ...)` reads well. */
int err_set(struct err *err, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Appends ": <strerror(sys_errno)>". */
int err_sys(struct err *err, int sys_errno, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Puts "<fmt>: " before the text that is there. */
int err_prefix(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

const char *err_code_name(enum err_code code); /* "invalid", "not-found", ...: stable, for JSON */

#endif

/* JSON decoding by name and type: a cursor that knows its path and keeps the first error.
 *
 *   jd_init(&d, root, "CreateNetwork", err);
 *   id = jd_str(&d, "NetworkID", 128);          CreateNetwork.NetworkID: expected string, found integer
 *   if (jd_finish(&d) < 0) return -1;
 *
 * After an error every call is a cheap no-op that gives a safe value ("", 0, false, NULL). Strings and nodes are borrowed from
 * root. `null` counts as absent for the jd_opt_ calls. */
#ifndef BASE_JD_H
#define BASE_JD_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/err.h"

#define JD_DEPTH_MAX 32 /* nesting accepted by jd_parse */

struct jd {
	json_t *node; /* the object read from; borrowed */
	char path[128];
	struct err *err; /* may be NULL */
	bool failed;
	uint64_t seen; /* bit n: the object's member n was asked for; jd_finish_strict takes at most 64 members */
};

/* Parses one JSON object; duplicate keys, trailing bytes, NUL bytes and deep nesting are refused with line and column.
 * Returns a new reference or NULL. */
json_t *jd_parse(const void *bytes, size_t len, const char *what, struct err *err);

void jd_init(
	struct jd *d, json_t *node, const char *path, struct err *err); /* node not an object: fails with "expected object" */
const char *jd_str(struct jd *d, const char *name, size_t max_len);
const char *jd_opt_str(struct jd *d, const char *name, size_t max_len); /* NULL when absent */
bool jd_bool(struct jd *d, const char *name);
bool jd_opt_bool(struct jd *d, const char *name, bool absent);
int64_t jd_int(struct jd *d, const char *name, int64_t min, int64_t max);
int64_t jd_opt_int(struct jd *d, const char *name, int64_t min, int64_t max, int64_t absent);
json_t *jd_opt_object(struct jd *d, const char *name); /* NULL when absent */
json_t *jd_opt_array(struct jd *d, const char *name);  /* NULL when absent */
/* Text forms; "" counts as absent (family 0 / length 0 / zero MAC) in the opt forms. */
struct ip jd_opt_ip(struct jd *d, const char *name);
struct prefix jd_prefix(struct jd *d, const char *name);
struct prefix jd_opt_prefix(struct jd *d, const char *name);
struct mac jd_opt_mac(struct jd *d, const char *name);
/* Records an error of the caller's own about member `name` (may be NULL): "<path>.<name>: <fmt>". */
void jd_fail(struct jd *d, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int jd_finish(const struct jd *d);  /* 0, or -1 with err filled (ERR_INVALID) */
int jd_finish_strict(struct jd *d); /* also refuses members that were never asked for, by name */

#endif

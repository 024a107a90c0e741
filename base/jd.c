/* JSON decoding by name and type (see jd.h).
 *
 * Everything decoded here came over a socket or out of a file someone may have edited. Size is bounded by whoever read the
 * bytes; nesting is bounded here before jansson sees the text, because its parser recurses. */
#include "base/jd.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SEEN_MAX 64 /* bits in jd.seen */

/* The deepest nesting of brackets outside strings. Malformed text gives any number; the parser refuses it afterwards. */
static unsigned depth_of(const char *text, size_t len)
{
	unsigned depth = 0;
	unsigned deepest = 0;
	bool in_string = false;

	for (size_t i = 0; i < len; i++) {
		char c = text[i];

		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		} else if (c == '"') {
			in_string = true;
		} else if (c == '{' || c == '[') {
			if (++depth > deepest)
				deepest = depth;
		} else if ((c == '}' || c == ']') && depth > 0) {
			depth--;
		}
	}
	return deepest;
}

static const char *type_name(const json_t *node)
{
	if (!node)
		return "nothing";
	switch (json_typeof(node)) {
	case JSON_OBJECT:
		return "object";
	case JSON_ARRAY:
		return "array";
	case JSON_STRING:
		return "string";
	case JSON_INTEGER:
		return "integer";
	case JSON_REAL:
		return "real";
	case JSON_TRUE:
	case JSON_FALSE:
		return "boolean";
	case JSON_NULL:
		return "null";
	}
	return "unknown";
}

json_t *jd_parse(const void *bytes, size_t len, const char *what, struct err *err)
{
	const char *text = bytes ? bytes : "";
	json_error_t where;
	json_t *root;

	if (depth_of(text, len) > JD_DEPTH_MAX) {
		err_set(err, ERR_INVALID, "%s: expected nesting of at most %d, found more", what, JD_DEPTH_MAX);
		return NULL;
	}
	/* Without JSON_ALLOW_NUL jansson refuses \u0000, so every string it gives is a C string. */
	root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
	if (!root) {
		err_set(err, ERR_INVALID, "%s: line %d column %d: %s", what, where.line, where.column, where.text);
		return NULL;
	}
	if (!json_is_object(root)) {
		err_set(err, ERR_INVALID, "%s: expected object, found %s", what, type_name(root));
		json_decref(root);
		return NULL;
	}
	return root;
}

void jd_fail(struct jd *d, const char *name, const char *fmt, ...)
{
	char text[ERR_TEXT_SIZE];
	va_list args;

	if (d->failed)
		return;
	d->failed = true;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	err_set(d->err, ERR_INVALID, "%s%s%s: %s", d->path, name ? "." : "", name ? name : "", text);
}

void jd_init(struct jd *d, json_t *node, const char *path, struct err *err)
{
	*d = (struct jd){.node = node, .err = err};
	snprintf(d->path, sizeof(d->path), "%s", path);
	if (!json_is_object(node))
		jd_fail(d, NULL, "expected object, found %s", type_name(node));
}

/* Notes that the member was asked for, by its place in the object (jansson keeps the order of the text). */
static void note_seen(struct jd *d, const char *name)
{
	unsigned place = 0;
	void *iter;

	for (iter = json_object_iter(d->node); iter && place < SEEN_MAX; iter = json_object_iter_next(d->node, iter), place++) {
		if (strcmp(json_object_iter_key(iter), name) == 0) {
			d->seen |= (uint64_t)1 << place;
			return;
		}
	}
}

/* The member, or NULL when absent or after an error. */
static json_t *member(struct jd *d, const char *name)
{
	json_t *value;

	if (d->failed)
		return NULL;
	value = json_object_get(d->node, name);
	if (value)
		note_seen(d, name);
	return value;
}

static json_t *opt_member(struct jd *d, const char *name)
{
	json_t *value = member(d, name);

	return json_is_null(value) ? NULL : value;
}

static void fail_type(struct jd *d, const char *name, const char *expected, const json_t *found)
{
	jd_fail(d, name, "expected %s, found %s", expected, type_name(found));
}

static const char *text_of(struct jd *d, const char *name, const json_t *value, size_t max_len)
{
	if (!json_is_string(value)) {
		fail_type(d, name, "string", value);
		return NULL;
	}
	if (json_string_length(value) > max_len) {
		jd_fail(d, name, "expected at most %zu bytes, found %zu", max_len, json_string_length(value));
		return NULL;
	}
	return json_string_value(value);
}

const char *jd_str(struct jd *d, const char *name, size_t max_len)
{
	const char *text = text_of(d, name, member(d, name), max_len);

	return text ? text : "";
}

const char *jd_opt_str(struct jd *d, const char *name, size_t max_len)
{
	json_t *value = opt_member(d, name);

	return value ? text_of(d, name, value, max_len) : NULL;
}

static bool bool_of(struct jd *d, const char *name, const json_t *value)
{
	if (!json_is_boolean(value))
		fail_type(d, name, "boolean", value);
	return json_is_true(value);
}

bool jd_bool(struct jd *d, const char *name)
{
	return bool_of(d, name, member(d, name));
}

bool jd_opt_bool(struct jd *d, const char *name, bool absent)
{
	json_t *value = opt_member(d, name);

	return value ? bool_of(d, name, value) : absent;
}

static int64_t int_of(struct jd *d, const char *name, const json_t *value, int64_t min, int64_t max)
{
	int64_t number;

	if (!json_is_integer(value)) {
		fail_type(d, name, "integer", value);
		return 0;
	}
	number = json_integer_value(value);
	if (number < min || number > max) {
		jd_fail(d, name, "expected %" PRId64 " to %" PRId64 ", found %" PRId64, min, max, number);
		return 0;
	}
	return number;
}

int64_t jd_int(struct jd *d, const char *name, int64_t min, int64_t max)
{
	return int_of(d, name, member(d, name), min, max);
}

int64_t jd_opt_int(struct jd *d, const char *name, int64_t min, int64_t max, int64_t absent)
{
	json_t *value = opt_member(d, name);

	return value ? int_of(d, name, value, min, max) : absent;
}

json_t *jd_opt_object(struct jd *d, const char *name)
{
	json_t *value = opt_member(d, name);

	if (!value || json_is_object(value))
		return value;
	fail_type(d, name, "object", value);
	return NULL;
}

json_t *jd_opt_array(struct jd *d, const char *name)
{
	json_t *value = opt_member(d, name);

	if (!value || json_is_array(value))
		return value;
	fail_type(d, name, "array", value);
	return NULL;
}

struct ip jd_opt_ip(struct jd *d, const char *name)
{
	const char *text = jd_opt_str(d, name, IP_TEXT_SIZE);
	struct ip ip = {0};
	struct err why;

	if (text && *text && ip_parse(text, &ip, &why) < 0)
		jd_fail(d, name, "%s", why.text);
	return ip;
}

static struct prefix prefix_of(struct jd *d, const char *name, const char *text)
{
	struct prefix prefix = {0};
	struct err why;

	if (!d->failed && prefix_parse(text, &prefix, &why) < 0)
		jd_fail(d, name, "%s", why.text);
	return prefix;
}

struct prefix jd_prefix(struct jd *d, const char *name)
{
	return prefix_of(d, name, jd_str(d, name, PREFIX_TEXT_SIZE));
}

struct prefix jd_opt_prefix(struct jd *d, const char *name)
{
	const char *text = jd_opt_str(d, name, PREFIX_TEXT_SIZE);

	if (!text || !*text)
		return (struct prefix){0};
	return prefix_of(d, name, text);
}

struct mac jd_opt_mac(struct jd *d, const char *name)
{
	const char *text = jd_opt_str(d, name, MAC_TEXT_SIZE);
	struct mac mac = {0};
	struct err why;

	if (text && *text && mac_parse(text, &mac, &why) < 0)
		jd_fail(d, name, "%s", why.text);
	return mac;
}

int jd_finish(const struct jd *d)
{
	return d->failed ? -1 : 0;
}

int jd_finish_strict(struct jd *d)
{
	unsigned place = 0;
	void *iter;

	if (d->failed)
		return -1;
	for (iter = json_object_iter(d->node); iter; iter = json_object_iter_next(d->node, iter), place++) {
		if (place >= SEEN_MAX || !(d->seen >> place & 1)) {
			jd_fail(d, json_object_iter_key(iter), "no such member is known");
			return -1;
		}
	}
	return 0;
}

/* Errors as a runtime reads them: a code for programs, a sentence for people (cni_internal.h has the codes). */
#include "cni/cni_internal.h"

#include <stdarg.h>
#include <stdlib.h>

#include "base/json_text.h"

int cni_fail(struct cni_error *e, unsigned code, const char *fmt, ...)
{
	va_list args;

	if (e->code)
		return -1;
	e->code = code;
	va_start(args, fmt);
	vsnprintf(e->msg, sizeof(e->msg), fmt, args);
	va_end(args);
	return -1;
}

int cni_fail_err(struct cni_error *e, unsigned code, const struct err *err)
{
	return cni_fail(e, code, "%s", err->text);
}

void cni_details(struct cni_error *e, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(e->details, sizeof(e->details), fmt, args);
	va_end(args);
}

void cni_print_error(FILE *out, const struct cni_error *e, const char *version)
{
	json_t *object = json_object();
	char *text;

	if (version)
		json_object_set_new(object, "cniVersion", json_text(version));
	json_object_set_new(object, "code", json_integer(e->code));
	json_object_set_new(object, "msg", json_text(e->msg));
	if (*e->details)
		json_object_set_new(object, "details", json_text(e->details));
	text = json_print(object, JSON_COMPACT);
	json_decref(object);
	fprintf(out, "%s\n", text);
	free(text);
}

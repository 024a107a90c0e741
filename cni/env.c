/* The environment, checked in the order that the Go library keeps, so that a runtime sees the same code for the same mistake:
 * what is there and wrong fails at once, what is missing is collected and named together. */
#include "cni/cni_internal.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/json_text.h"

struct need {
	const char *command;
	enum cni_verb verb;
	bool attachment; /* needs CNI_CONTAINERID and CNI_IFNAME */
	bool netns, path;
};

static const struct need needs[] = {
	{"ADD", CNI_ADD, true, true, false},
	{"DEL", CNI_DEL, true, false, false},
	{"CHECK", CNI_CHECK, true, true, false},
	{"GC", CNI_GC, false, false, true},
	{"STATUS", CNI_STATUS, false, false, false},
	{"VERSION", CNI_VERB_VERSION, false, false, false},
};

const char *cni_env_get(char *const *envp, const char *name)
{
	size_t len = strlen(name);

	for (; *envp; envp++)
		if (strncmp(*envp, name, len) == 0 && (*envp)[len] == '=')
			return (*envp)[len + 1] ? *envp + len + 1 : NULL;
	return NULL;
}

bool cni_name_valid(const char *name, size_t max)
{
	static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_.-";

	return *name && !strchr("_.-", *name) && !name[strspn(name, letters)] && strlen(name) <= max;
}

/* Blanks beyond ASCII that Unicode counts as white space, in UTF-8. */
static bool has_wide_blank(const char *text)
{
	static const char *const blanks[] = {"\xc2\x85", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004",
		"\u2005", "\u2006", "\u2007", "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};

	for (size_t i = 0; i < sizeof(blanks) / sizeof(blanks[0]); i++)
		if (strstr(text, blanks[i]))
			return true;
	return false;
}

/* What dev_valid_name() of the kernel takes, without the white space that the specification excludes, and what JSON can tell. */
bool cni_ifname_valid(const char *name)
{
	return *name && strlen(name) <= CNI_IFNAME_MAX && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
	       !strpbrk(name, "/: \t\n\v\f\r") && !has_wide_blank(name) && json_text_valid(name);
}

static const struct need *need_of(const char *command)
{
	for (size_t i = 0; command && i < sizeof(needs) / sizeof(needs[0]); i++)
		if (strcmp(command, needs[i].command) == 0)
			return &needs[i];
	return NULL;
}

static void add_missing(char *list, size_t size, const char *name)
{
	size_t len = strlen(list);

	snprintf(list + len, size - len, "%s%s", len ? "," : "", name);
}

static int check_attachment(const struct cni_env *env, char *missing, size_t size, struct cni_error *e)
{
	if (!env->container_id)
		add_missing(missing, size, "CNI_CONTAINERID");
	else if (!cni_name_valid(env->container_id, CONTROL_CNI_ID_MAX))
		return cni_fail(e, CNI_ENVIRONMENT,
			"CNI_CONTAINERID: expected at most %d of [0-9A-Za-z_.-] beginning with a letter or digit, found "
			"\"%.300s\"",
			CONTROL_CNI_ID_MAX, env->container_id);
	return 0;
}

static int check_ifname(const struct cni_env *env, char *missing, size_t size, struct cni_error *e)
{
	if (!env->ifname)
		add_missing(missing, size, "CNI_IFNAME");
	else if (!cni_ifname_valid(env->ifname))
		return cni_fail(e, CNI_ENVIRONMENT,
			"CNI_IFNAME: expected an interface name of 1 to %d bytes of UTF-8 without /, : and white space, found "
			"\"%.300s\"",
			CNI_IFNAME_MAX, env->ifname);
	return 0;
}

static int check(const struct cni_env *env, const struct need *need, struct cni_error *e)
{
	char missing[128] = "";

	if (need->attachment && check_attachment(env, missing, sizeof(missing), e) < 0)
		return -1;
	if (need->netns && !env->netns)
		add_missing(missing, sizeof(missing), "CNI_NETNS");
	if (need->attachment && check_ifname(env, missing, sizeof(missing), e) < 0)
		return -1;
	if (need->path && !env->path)
		add_missing(missing, sizeof(missing), "CNI_PATH");
	if (*missing)
		return cni_fail(e, CNI_ENVIRONMENT, "required env variables [%s] missing", missing);
	return 0;
}

int cni_env_read(char *const *envp, struct cni_env *ret_env, struct cni_error *e)
{
	struct cni_env env = {
		.verb = CNI_VERB_UNKNOWN,
		.command = cni_env_get(envp, "CNI_COMMAND"),
		.container_id = cni_env_get(envp, "CNI_CONTAINERID"),
		.netns = cni_env_get(envp, "CNI_NETNS"),
		.ifname = cni_env_get(envp, "CNI_IFNAME"),
		.args = cni_env_get(envp, "CNI_ARGS"),
		.path = cni_env_get(envp, "CNI_PATH"),
	};
	const char *override = cni_env_get(envp, "CNI_NETNS_OVERRIDE");
	const struct need *need = need_of(env.command);

	if (!env.command)
		return cni_fail(e, CNI_ENVIRONMENT, "required env variables [CNI_COMMAND] missing");
	env.same_netns_allowed = override && (strcmp(override, "1") == 0 || strcasecmp(override, "true") == 0);
	if (need) {
		env.verb = need->verb;
		if (check(&env, need, e) < 0)
			return -1;
	}
	*ret_env = env;
	return 0;
}

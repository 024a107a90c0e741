/* The configuration on standard input.
 *
 * Two steps, because the order of refusals is part of the protocol: what is not JSON, or has no valid name, is refused whatever
 * the verb; the rest is looked at once version and verb are known to be served. Unknown members are ignored: runtimes add their
 * own, and leave `capabilities` in. A member of ours with a wrong type or value is named in the error. */
#include "cni/cni_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- JSON ---- */

/* Reals that are whole numbers become integers again, except beyond what a double counts exactly. */
static void restore_integers(json_t *node)
{
	const char *key;
	json_t *item;
	size_t i;

	if (json_is_object(node)) {
		json_object_foreach(node, key, item)
		{
			double value = json_real_value(item);

			if (json_is_real(item) && value > -0x1p53 && value < 0x1p53 && value == (double)(json_int_t)value)
				json_object_set_new_nocheck(node, key, json_integer((json_int_t)value));
			else
				restore_integers(item);
		}
	} else if (json_is_array(node)) {
		json_array_foreach(node, i, item)
		{
			double value = json_real_value(item);

			if (json_is_real(item) && value > -0x1p53 && value < 0x1p53 && value == (double)(json_int_t)value)
				json_array_set_new(node, i, json_integer((json_int_t)value));
			else
				restore_integers(item);
		}
	}
}

json_t *cni_json_load(const char *text, size_t len, const char *what, struct err *err)
{
	/* jansson counts nesting (2,048) and refuses \u0000 by itself. */
	size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY;
	json_error_t where;
	json_t *root = json_loadb(text, len, flags, &where);

	if (!root && json_error_code(&where) == json_error_numeric_overflow) {
		root = json_loadb(text, len, flags | JSON_DECODE_INT_AS_REAL, &where);
		restore_integers(root);
	}
	if (!root)
		err_set(err, ERR_INVALID, "%s: line %d column %d: %s", what, where.line, where.column, where.text);
	return root;
}

/* ---- step 4: name and version ---- */

/* A text, absent as NULL; null counts as absent, as it does for Go. */
static int text_member(json_t *root, const char *name, const char **ret_text, struct cni_error *e)
{
	json_t *value = json_object_get(root, name);

	*ret_text = NULL;
	if (!value || json_is_null(value))
		return 0;
	if (!json_is_string(value))
		return cni_fail(e, CNI_DECODE, "network configuration: %s: expected a string", name);
	*ret_text = json_string_value(value);
	return 0;
}

static int check_name(const struct cni_config *config, struct cni_error *e)
{
	if (!config->name || !*config->name)
		return cni_fail(e, CNI_CONFIG, "network configuration: name: missing or empty");
	if (!cni_name_valid(config->name, CONTROL_CNI_CONFIG_MAX))
		return cni_fail(e, CNI_CONFIG,
			"network configuration: name: expected at most %d of [0-9A-Za-z_.-] beginning with a letter or digit, "
			"found \"%.300s\"",
			CONTROL_CNI_CONFIG_MAX, config->name);
	return 0;
}

static int read_head(json_t *root, struct cni_config *config, struct cni_error *e)
{
	if (text_member(root, "name", &config->name, e) < 0 || text_member(root, "cniVersion", &config->version, e) < 0 ||
		text_member(root, "type", &config->type, e) < 0)
		return -1;
	if (!config->version || !*config->version)
		config->version = "0.1.0";
	return check_name(config, e);
}

int cni_config_parse(const char *text, size_t len, struct cni_config *ret_config, struct cni_error *e)
{
	struct cni_config config = {0};
	struct err err;
	json_t *root = cni_json_load(text, len, "network configuration", &err);

	if (!root)
		return cni_fail_err(e, CNI_DECODE, &err);
	if (json_is_null(root)) { /* Go decodes null as an empty object */
		json_decref(root);
		root = json_object();
	}
	if (!json_is_object(root)) {
		json_decref(root);
		return cni_fail(e, CNI_DECODE, "network configuration: expected an object");
	}
	if (read_head(root, &config, e) < 0) {
		json_decref(root);
		return -1;
	}
	config.root = root;
	*ret_config = config;
	return 0;
}

/* ---- the rest ---- */

static bool is_ours(const char *type, const char *program)
{
	const char *slash = program ? strrchr(program, '/') : NULL;
	const char *base = slash ? slash + 1 : program;

	return !type || strcmp(type, "trestle") == 0 || strcmp(type, "trestle-cni") == 0 || (base && strcmp(type, base) == 0);
}

/* "" counts as absent. */
static const char *opt_text(struct jd *d, const char *name, size_t max)
{
	const char *text = jd_opt_str(d, name, max);

	return text && *text ? text : NULL;
}

static void check_path(struct jd *d, const char *name, const char **path)
{
	if (*path && **path != '/')
		jd_fail(d, name, "expected an absolute path, found \"%s\"", *path);
	if (d->failed)
		*path = NULL;
}

/* `own` is what this plugin reads its settings from: the whole configuration, or its ipam object when it is an IPAM plugin. */
static void read_own(struct cni_config *config, struct jd *own)
{
	struct prefix prefix;

	config->network = opt_text(own, "network", CONTROL_NETWORK_NAME_MAX);
	prefix = jd_opt_prefix(own, "subnet");
	if (prefix_is_set(&prefix) && prefix.ip.family != 4)
		jd_fail(own, "subnet", "expected an IPv4 prefix, found \"%s\"", jd_opt_str(own, "subnet", PREFIX_TEXT_SIZE));
	prefix = jd_opt_prefix(own, "subnet6");
	if (prefix_is_set(&prefix) && prefix.ip.family != 6)
		jd_fail(own, "subnet6", "expected an IPv6 prefix, found \"%s\"", jd_opt_str(own, "subnet6", PREFIX_TEXT_SIZE));
	config->subnet = opt_text(own, "subnet", PREFIX_TEXT_SIZE);
	config->subnet6 = opt_text(own, "subnet6", PREFIX_TEXT_SIZE);
	config->routes = jd_opt_array(own, "routes");
	config->socket = opt_text(own, "socket", CONTROL_CNI_PATH_MAX);
	check_path(own, "socket", &config->socket);
	config->run_dir = opt_text(own, "runDir", CONTROL_CNI_PATH_MAX);
	check_path(own, "runDir", &config->run_dir);
}

static void read_link_settings(struct cni_config *config, struct jd *d)
{
	config->mtu = jd_opt_int(d, "mtu", 0, 65535, 0);
	if (config->mtu && config->mtu < 576)
		jd_fail(d, "mtu", "expected 0 (the path's) or 576 to 65535, found %d", (int)config->mtu);
	config->no_gateway = !jd_opt_bool(d, "isDefaultGateway", true);
	config->mode = opt_text(d, "mode", 16);
	if (config->mode && strcmp(config->mode, "l2") && strcmp(config->mode, "l3"))
		jd_fail(d, "mode", "expected \"l2\" or \"l3\", found \"%s\"", config->mode);
}

/* ipam absent, null, empty or of our type: our own pools. */
static void read_delegate(struct cni_config *config, struct jd *d, const char *program)
{
	json_t *ipam = jd_opt_object(d, "ipam");
	struct jd i;

	if (!ipam || json_object_size(ipam) == 0)
		return;
	jd_init(&i, ipam, "network configuration: ipam", d->err);
	config->delegate = opt_text(&i, "type", 255);
	if (config->delegate && is_ours(config->delegate, program))
		config->delegate = NULL;
	if (config->delegate && strchr(config->delegate, '/'))
		jd_fail(&i, "type", "expected the name of a plugin without /, found \"%s\"", config->delegate);
	if (!config->delegate && !i.failed)
		read_own(config, &i);
	d->failed |= i.failed;
}

static void check_network(struct cni_config *config, struct jd *d)
{
	/* As an IPAM plugin with a subnet, the subnet says all. */
	if (!config->network && !(config->as_ipam && (config->subnet || config->subnet6)))
		config->network = config->name;
	if (!config->network)
		return;
	if (!cni_name_valid(config->network, CONTROL_NETWORK_NAME_MAX))
		jd_fail(d, "network", "expected 1 to %d of [0-9A-Za-z_.-] beginning with a letter or digit, found \"%.100s\"",
			CONTROL_NETWORK_NAME_MAX, config->network);
}

static void defaults(struct cni_config *config)
{
	if (!config->socket)
		config->socket = "/run/trestle/trestled.sock";
	if (!config->run_dir)
		config->run_dir = "/run/trestle";
}

/* Settings of ours stand beside `type`; those of an own ipam object come second. */
static void read_main(struct cni_config *config, struct jd *d, const char *program)
{
	struct cni_config own = *config, ipam = *config;

	read_own(&own, d);
	read_link_settings(&own, d);
	read_delegate(&ipam, d, program);
	own.delegate = ipam.delegate;
	own.network = own.network ? own.network : ipam.network;
	own.subnet = own.subnet ? own.subnet : ipam.subnet;
	own.subnet6 = own.subnet6 ? own.subnet6 : ipam.subnet6;
	own.routes = own.routes ? own.routes : ipam.routes;
	own.socket = own.socket ? own.socket : ipam.socket;
	own.run_dir = own.run_dir ? own.run_dir : ipam.run_dir;
	*config = own;
}

static void read_as_ipam(struct cni_config *config, struct jd *d)
{
	json_t *ipam = jd_opt_object(d, "ipam");
	struct jd i;

	if (!ipam)
		jd_fail(d, "ipam", "missing: the type \"%.60s\" is another plugin's, so this one is asked for addresses only",
			config->type);
	if (d->failed)
		return;
	jd_init(&i, ipam, "network configuration: ipam", d->err);
	read_own(config, &i);
	d->failed |= i.failed;
}

int cni_config_check(struct cni_config *config, const char *program, struct cni_error *e)
{
	struct err err;
	struct jd d;

	jd_init(&d, config->root, "network configuration", &err);
	config->as_ipam = !is_ours(config->type, program);
	if (config->as_ipam)
		read_as_ipam(config, &d);
	else
		read_main(config, &d, program);
	check_network(config, &d);
	defaults(config);
	if (jd_finish(&d) < 0)
		return cni_fail_err(e, CNI_CONFIG, &err);
	return 0;
}

static const char *lenient_path(json_t *object, const char *name)
{
	const char *path = json_string_value(json_object_get(object, name));

	return path && *path == '/' ? path : NULL;
}

void cni_config_lenient(struct cni_config *config, const char *program)
{
	json_t *ipam = json_object_get(config->root, "ipam");
	const char *type = json_string_value(json_object_get(ipam, "type"));
	json_t *own;

	config->as_ipam = !is_ours(config->type, program);
	if (!config->as_ipam && type && *type && !strchr(type, '/') && !is_ours(type, program))
		config->delegate = type;
	own = config->as_ipam ? ipam : config->root;
	config->socket = lenient_path(own, "socket");
	config->run_dir = lenient_path(own, "runDir");
	if (!config->as_ipam && !config->delegate) {
		config->socket = config->socket ? config->socket : lenient_path(ipam, "socket");
		config->run_dir = config->run_dir ? config->run_dir : lenient_path(ipam, "runDir");
	}
	defaults(config);
}

/* What one attachment asks for beside the configuration: runtimeConfig, args.cni and CNI_ARGS.
 *
 * Three ways to say the same things grew over the years and runtimes use all of them. Addresses of all three are collected, of
 * the MACs the latest way counts (CNI_ARGS, args.cni, runtimeConfig), both as the common plugins do. Members of runtimeConfig are
 * matched without regard to case, since containerd and Nomad write Go's field names. portMappings and bandwidth are for plugins
 * chained after us; they are checked here because a mistake is better told before an address is taken. */
#include "cni/cni_internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/json_text.h"

json_t *cni_fold_keys(json_t *object, const char *const *names)
{
	json_t *folded = json_object(), *value;
	const char *key;

	json_object_foreach(object, key, value)
	{
		const char *const *name;

		for (name = names; *name && strcasecmp(*name, key) != 0; name++)
			;
		/* The exact spelling counts where both are there. */
		if (*name && (strcmp(*name, key) == 0 || !json_object_get(object, *name)))
			json_object_set(folded, *name, value);
		else if (!*name)
			json_object_set(folded, key, value);
	}
	return folded;
}

/* ---- addresses and MAC ---- */

/* "10.9.0.7" or "10.9.0.7/24"; the length is the network's to say. */
static int parse_address(const char *text, struct ip *ret_ip, struct err *err)
{
	struct prefix prefix;

	if (!strchr(text, '/'))
		return ip_parse(text, ret_ip, err);
	if (prefix_parse(text, &prefix, err) < 0)
		return -1;
	*ret_ip = prefix.ip;
	return 0;
}

static int add_address(struct cni_request *request, const char *text, unsigned code, const char *where, struct cni_error *e)
{
	char plain[IP_TEXT_SIZE];
	struct ip ip, other;
	struct err err;
	json_t *item;
	size_t i;

	if (parse_address(text, &ip, &err) < 0)
		return cni_fail(e, code, "%s: %s", where, err.text);
	if (!request->ips)
		request->ips = json_array();
	json_array_foreach(request->ips, i, item)
	{
		if (ip_parse(json_string_value(item), &other, &err) < 0 || other.family != ip.family)
			continue;
		if (ip_equal(&ip, &other))
			return 0;
		return cni_fail(e, code, "%s: expected at most one IPv%u address for an attachment, found %s and %s", where,
			ip.family, json_string_value(item), text);
	}
	json_array_append_new(request->ips, json_string(ip_format(&ip, plain)));
	return 0;
}

static int set_mac(struct cni_request *request, const char *text, unsigned code, const char *where, struct cni_error *e)
{
	struct mac mac;
	struct err err;

	if (mac_parse(text, &mac, &err) < 0)
		return cni_fail(e, code, "%s: %s", where, err.text);
	if (mac_is_zero(&mac) || mac.bytes[0] & 1)
		return cni_fail(e, code, "%s: expected the MAC address of one interface, found %s", where, text);
	mac_format(&mac, request->mac_text);
	request->mac = request->mac_text;
	return 0;
}

static int add_addresses(struct cni_request *request, json_t *list, const char *where, struct cni_error *e)
{
	json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		if (!json_is_string(item))
			return cni_fail(e, CNI_CONFIG, "%s: expected texts only", where);
		if (add_address(request, json_string_value(item), CNI_CONFIG, where, e) < 0)
			return -1;
	}
	return 0;
}

/* ---- CNI_ARGS ---- */

static const struct {
	const char *key, *label;
} label_names[] = {
	{"K8S_POD_NAMESPACE", "io.kubernetes.pod.namespace"},
	{"K8S_POD_NAME", "io.kubernetes.pod.name"},
	{"K8S_POD_UID", "io.kubernetes.pod.uid"},
	{"K8S_POD_INFRA_CONTAINER_ID", "io.kubernetes.sandbox.id"},
	{"NOMAD_NAMESPACE", "nomad.namespace"},
	{"NOMAD_JOB_ID", "nomad.job"},
	{"NOMAD_GROUP_NAME", "nomad.group"},
	{"NOMAD_ALLOC_ID", "nomad.alloc"},
};

static void add_label(struct cni_request *request, const char *key, const char *value)
{
	/* A label is for people to read: one that is too long or not UTF-8 is left out rather than the attachment refused. */
	if (*value && strlen(value) <= CONTROL_CNI_LABEL_MAX && json_object_size(request->labels) < CONTROL_CNI_LABELS_MAX)
		json_object_set_new(request->labels, key, json_string(value));
}

static int take_addresses(struct cni_request *request, char *list, struct cni_error *e)
{
	for (char *comma; list; list = comma) {
		comma = strchr(list, ',');
		if (comma)
			*comma++ = '\0';
		if (add_address(request, list, CNI_ENVIRONMENT, "CNI_ARGS: IP", e) < 0)
			return -1;
	}
	return 0;
}

static int take_arg(struct cni_request *request, const char *key, char *value, struct cni_error *e)
{
	if (!*value)
		return 0;
	if (strcmp(key, "IP") == 0)
		return take_addresses(request, value, e);
	if (strcmp(key, "MAC") == 0)
		return set_mac(request, value, CNI_ENVIRONMENT, "CNI_ARGS: MAC", e);
	for (size_t i = 0; i < sizeof(label_names) / sizeof(label_names[0]); i++)
		if (strcmp(key, label_names[i].key) == 0)
			add_label(request, label_names[i].label, value);
	return 0;
}

/* K=V;K=V, split at the first '='; what is not known is ignored, whatever IgnoreUnknown says. */
static int read_args(struct cni_request *request, const char *args, struct cni_error *e)
{
	char *next, *pair;

	request->storage = alloc_text(args);
	for (pair = request->storage; pair; pair = next) {
		char *equals;

		next = strchr(pair, ';');
		if (next)
			*next++ = '\0';
		equals = strchr(pair, '=');
		if (!equals)
			continue;
		*equals = '\0';
		if (take_arg(request, pair, equals + 1, e) < 0)
			return -1;
	}
	return 0;
}

/* ---- args.cni ---- */

static int read_label_list(struct cni_request *request, json_t *list, struct err *err)
{
	json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		const char *key, *value;
		struct jd d;

		jd_init(&d, item, "args.cni.labels", err);
		key = jd_str(&d, "key", CONTROL_CNI_LABEL_MAX);
		value = jd_str(&d, "value", CONTROL_CNI_LABEL_MAX);
		if (jd_finish(&d) < 0)
			return -1;
		if (*key)
			add_label(request, key, value);
	}
	return 0;
}

static int read_args_cni(struct cni_request *request, json_t *root, struct cni_error *e)
{
	json_t *args, *cni, *ips, *labels;
	const char *mac;
	struct err err;
	struct jd d;

	jd_init(&d, root, "network configuration", &err);
	args = jd_opt_object(&d, "args");
	if (jd_finish(&d) < 0)
		return cni_fail_err(e, CNI_CONFIG, &err);
	if (!args)
		return 0;
	jd_init(&d, args, "args", &err);
	cni = jd_opt_object(&d, "cni");
	if (jd_finish(&d) < 0)
		return cni_fail_err(e, CNI_CONFIG, &err);
	if (!cni)
		return 0;
	jd_init(&d, cni, "args.cni", &err);
	ips = jd_opt_array(&d, "ips");
	mac = jd_opt_str(&d, "mac", 64);
	labels = jd_opt_array(&d, "labels");
	if (jd_finish(&d) < 0 || read_label_list(request, labels, &err) < 0)
		return cni_fail_err(e, CNI_CONFIG, &err);
	if (add_addresses(request, ips, "args.cni.ips", e) < 0)
		return -1;
	return mac && *mac ? set_mac(request, mac, CNI_CONFIG, "args.cni.mac", e) : 0;
}

/* ---- runtimeConfig ---- */

static int check_mapping(json_t *mapping, size_t i, struct err *err)
{
	static const char *const names[] = {"hostPort", "containerPort", "protocol", "hostIP", NULL};
	static const char *const protocols[] = {"", "tcp", "udp", "sctp"};
	json_t *folded = json_is_object(mapping) ? cni_fold_keys(mapping, names) : json_incref(mapping);
	const char *protocol;
	bool known = false;
	char path[64];
	struct jd d;
	int ret;

	snprintf(path, sizeof(path), "runtimeConfig.portMappings[%zu]", i);
	jd_init(&d, folded, path, err);
	jd_int(&d, "hostPort", 1, 65535);
	jd_int(&d, "containerPort", 1, 65535);
	protocol = jd_opt_str(&d, "protocol", 32);
	for (size_t p = 0; protocol && p < sizeof(protocols) / sizeof(protocols[0]); p++)
		known |= strcasecmp(protocol, protocols[p]) == 0;
	if (protocol && !known)
		jd_fail(&d, "protocol", "expected tcp, udp or sctp, found \"%s\"", protocol);
	jd_opt_ip(&d, "hostIP");
	ret = jd_finish(&d);
	json_decref(folded);
	return ret;
}

static int check_mappings(json_t *mappings, struct err *err)
{
	json_t *mapping;
	size_t i;

	json_array_foreach(mappings, i, mapping)
	{
		if (check_mapping(mapping, i, err) < 0)
			return -1;
	}
	return 0;
}

static int check_bandwidth(json_t *bandwidth, struct err *err)
{
	static const char *const names[] = {"ingressRate", "ingressBurst", "egressRate", "egressBurst", NULL};
	json_t *folded;
	struct jd d;
	int ret;

	if (!bandwidth)
		return 0;
	folded = cni_fold_keys(bandwidth, names);
	jd_init(&d, folded, "runtimeConfig.bandwidth", err);
	for (unsigned i = 0; names[i]; i++)
		jd_opt_int(&d, names[i], 0, INT64_MAX, 0);
	ret = jd_finish(&d);
	json_decref(folded);
	return ret;
}

static int add_aliases(struct cni_request *request, json_t *list, struct err *err)
{
	json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		if (!json_is_string(item) || json_string_length(item) > CONTROL_CNI_LABEL_MAX)
			return err_set(err, ERR_INVALID, "runtimeConfig.aliases: expected texts of at most %d bytes only",
				CONTROL_CNI_LABEL_MAX);
		if (json_array_size(request->aliases) >= CONTROL_CNI_LABELS_MAX)
			return err_set(err, ERR_INVALID, "runtimeConfig.aliases: expected at most %d", CONTROL_CNI_LABELS_MAX);
		json_array_append(request->aliases, item);
	}
	return 0;
}

/* A list, or podman's map of network to list: then the names in this network. */
static int read_aliases(struct cni_request *request, json_t *aliases, const char *network, struct err *err)
{
	json_t *list;

	if (!aliases || json_is_null(aliases))
		return 0;
	if (json_is_array(aliases))
		return add_aliases(request, aliases, err);
	if (!json_is_object(aliases))
		return err_set(err, ERR_INVALID, "runtimeConfig.aliases: expected a list of names or a map of networks to lists");
	list = json_object_get(aliases, network);
	if (list && !json_is_array(list) && !json_is_null(list))
		return err_set(err, ERR_INVALID, "runtimeConfig.aliases.%.64s: expected a list of names", network);
	return add_aliases(request, list, err);
}

/* {servers, searches, options}; what has none of them set is absent. */
static int read_dns(struct cni_request *request, json_t *dns, struct cni_error *e)
{
	static const char *const names[] = {"servers", "searches", "options", NULL};
	static const char *const result_names[] = {"nameservers", "search", "options"};
	json_t *folded, *renamed;

	if (!dns)
		return 0;
	folded = cni_fold_keys(dns, names);
	renamed = json_object();
	for (unsigned i = 0; names[i]; i++) {
		json_t *value = json_object_get(folded, names[i]);

		if (value && !json_is_null(value))
			json_object_set(renamed, result_names[i], value);
	}
	json_decref(folded);
	request->dns = cni_dns_parse(renamed, "runtimeConfig.dns", e);
	json_decref(renamed);
	return request->dns ? 0 : -1;
}

static int read_folded(struct cni_request *request, json_t *runtime, const char *network, struct cni_error *e)
{
	json_t *ips, *mappings, *bandwidth, *dns;
	const char *mac;
	struct err err;
	struct jd d;

	jd_init(&d, runtime, "runtimeConfig", &err);
	ips = jd_opt_array(&d, "ips");
	mac = jd_opt_str(&d, "mac", 64);
	mappings = jd_opt_array(&d, "portMappings");
	bandwidth = jd_opt_object(&d, "bandwidth");
	dns = jd_opt_object(&d, "dns");
	if (jd_finish(&d) < 0 || check_mappings(mappings, &err) < 0 || check_bandwidth(bandwidth, &err) < 0 ||
		read_aliases(request, json_object_get(runtime, "aliases"), network, &err) < 0)
		return cni_fail_err(e, CNI_CONFIG, &err);
	/* Only a configuration that declares the capability is sent this. */
	if (json_array_size(json_object_get(runtime, "ipRanges")))
		return cni_fail(e, CNI_FIELD,
			"runtimeConfig.ipRanges: %zu ranges are asked for, and addresses come from the pool of the network: "
			"remove the capability ipRanges from the configuration",
			json_array_size(json_object_get(runtime, "ipRanges")));
	if (add_addresses(request, ips, "runtimeConfig.ips", e) < 0 || read_dns(request, dns, e) < 0)
		return -1;
	return mac && *mac ? set_mac(request, mac, CNI_CONFIG, "runtimeConfig.mac", e) : 0;
}

static int read_runtime_config(struct cni_request *request, const struct cni_config *config, struct cni_error *e)
{
	static const char *const names[] = {"ips", "mac", "portMappings", "bandwidth", "dns", "aliases", "ipRanges", NULL};
	json_t *runtime = json_object_get(config->root, "runtimeConfig"), *folded;
	int ret;

	if (!runtime || json_is_null(runtime))
		return 0;
	if (!json_is_object(runtime))
		return cni_fail(e, CNI_CONFIG, "runtimeConfig: expected an object");
	folded = cni_fold_keys(runtime, names);
	ret = read_folded(request, folded, config->name, e);
	json_decref(folded);
	return ret;
}

/* ---- all of it ---- */

/* "namespace/pod" as Kubernetes people write it, or what there is of it. */
static void make_name(struct cni_request *request)
{
	const char *pod = json_string_value(json_object_get(request->labels, "io.kubernetes.pod.name"));
	const char *space = json_string_value(json_object_get(request->labels, "io.kubernetes.pod.namespace"));

	if (!pod)
		return;
	snprintf(request->name_text, sizeof(request->name_text), "%s%s%s", space ? space : "", space ? "/" : "", pod);
	json_text_cut(request->name_text);
	request->name = request->name_text;
}

int cni_request_read(
	const struct cni_config *config, const struct cni_env *env, struct cni_request *ret_request, struct cni_error *e)
{
	struct cni_request *request = ret_request;

	*request = (struct cni_request){.labels = json_object(), .aliases = json_array()};
	if ((env->args && read_args(request, env->args, e) < 0) || read_args_cni(request, config->root, e) < 0 ||
		read_runtime_config(request, config, e) < 0) {
		cni_request_fini(request);
		return -1;
	}
	make_name(request);
	return 0;
}

void cni_request_fini(struct cni_request *request)
{
	json_decref(request->ips);
	json_decref(request->labels);
	json_decref(request->aliases);
	json_decref(request->dns);
	free(request->storage);
	*request = (struct cni_request){0};
}

/* Results: read in any version's form, kept in that of the newest, printed in the one that was asked for.
 *
 * What a previous plugin answered is passed on as it came where the version can say it; only what we rely on is checked. The
 * forms: up to 0.2.0 one address for each family and no interfaces; 0.3.0 to 0.4.0 interfaces, and addresses that say their
 * family; 1.0.0 without it; 1.1.0 with more about interfaces and routes. */
#include "cni/cni_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXTS_MAX 64 /* of one list in dns */

void cni_result_init(struct cni_result *result)
{
	*result = (struct cni_result){json_array(), json_array(), json_array(), json_object()};
}

void cni_result_fini(struct cni_result *result)
{
	json_decref(result->interfaces);
	json_decref(result->ips);
	json_decref(result->routes);
	json_decref(result->dns);
	*result = (struct cni_result){0};
}

/* ---- dns ---- */

static void copy_texts(struct jd *d, const char *name, bool addresses, json_t *to)
{
	json_t *list = jd_opt_array(d, name), *item;
	struct err why;
	struct ip ip;
	size_t i;

	if (json_array_size(list) > TEXTS_MAX)
		jd_fail(d, name, "expected at most %d, found %zu", TEXTS_MAX, json_array_size(list));
	json_array_foreach(list, i, item)
	{
		if (!json_is_string(item))
			jd_fail(d, name, "expected texts only");
		else if (addresses && ip_parse(json_string_value(item), &ip, &why) < 0)
			jd_fail(d, name, "%s", why.text);
	}
	if (!d->failed && json_array_size(list))
		json_object_set(to, name, list);
}

json_t *cni_dns_parse(json_t *object, const char *path, struct cni_error *e)
{
	json_t *dns = json_object();
	const char *domain;
	struct err err;
	struct jd d;

	jd_init(&d, object, path, &err);
	copy_texts(&d, "nameservers", true, dns);
	domain = jd_opt_str(&d, "domain", 255);
	if (domain && *domain)
		json_object_set_new(dns, "domain", json_string(domain));
	copy_texts(&d, "search", false, dns);
	copy_texts(&d, "options", false, dns);
	if (jd_finish(&d) < 0) {
		json_decref(dns);
		cni_fail_err(e, CNI_CONFIG, &err);
		return NULL;
	}
	return dns;
}

/* ---- reading ---- */

static int read_interfaces(json_t *list, const char *what, struct cni_result *result, struct err *err)
{
	char path[96];
	json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		struct jd d;

		snprintf(path, sizeof(path), "%s.interfaces[%zu]", what, i);
		jd_init(&d, item, path, err);
		jd_str(&d, "name", 255);
		jd_opt_str(&d, "mac", 128);
		jd_opt_str(&d, "sandbox", CONTROL_CNI_PATH_MAX);
		if (jd_finish(&d) < 0)
			return -1;
		json_array_append(result->interfaces, item);
	}
	return 0;
}

/* An entry of ips in the modern form, from its address, its gateway and its interface (NULL: none). */
static json_t *make_ip(const char *address, const char *gateway, json_t *interface)
{
	json_t *ip = json_object();

	json_object_set_new(ip, "address", json_string(address));
	if (gateway && *gateway)
		json_object_set_new(ip, "gateway", json_string(gateway));
	if (interface)
		json_object_set(ip, "interface", interface);
	return ip;
}

static int read_ips(json_t *list, const char *what, struct cni_result *result, struct err *err)
{
	char path[96];
	json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		json_t *interface = json_object_get(item, "interface");
		const char *address, *gateway;
		int64_t index;
		struct jd d;

		snprintf(path, sizeof(path), "%s.ips[%zu]", what, i);
		jd_init(&d, item, path, err);
		jd_prefix(&d, "address");
		address = jd_str(&d, "address", PREFIX_TEXT_SIZE);
		jd_opt_ip(&d, "gateway");
		gateway = jd_opt_str(&d, "gateway", IP_TEXT_SIZE);
		/* -1 is met in the wild and means none. */
		index = jd_opt_int(&d, "interface", -1, INT32_MAX, -1);
		if (index >= (int64_t)json_array_size(result->interfaces))
			jd_fail(&d, "interface", "expected an index below %zu, found %lld", json_array_size(result->interfaces),
				(long long)index);
		if (jd_finish(&d) < 0)
			return -1;
		json_array_append_new(result->ips, make_ip(address, gateway, index < 0 ? NULL : interface));
	}
	return 0;
}

static int read_routes(json_t *list, const char *what, struct cni_result *result, struct err *err)
{
	char path[96];
	json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		struct prefix to;
		struct ip gateway;
		struct jd d;

		snprintf(path, sizeof(path), "%s.routes[%zu]", what, i);
		jd_init(&d, item, path, err);
		to = jd_prefix(&d, "dst");
		gateway = jd_opt_ip(&d, "gw");
		if (!d.failed && ip_is_set(&gateway) && gateway.family != to.ip.family)
			jd_fail(&d, "gw", "expected an IPv%u address as in dst, found \"%s\"", to.ip.family,
				jd_opt_str(&d, "gw", IP_TEXT_SIZE));
		if (jd_finish(&d) < 0)
			return -1;
		json_array_append(result->routes, item);
	}
	return 0;
}

static int read_modern(struct jd *d, const char *what, struct cni_result *result)
{
	json_t *interfaces = jd_opt_array(d, "interfaces"), *ips = jd_opt_array(d, "ips"), *routes = jd_opt_array(d, "routes");

	if (jd_finish(d) < 0)
		return -1;
	if (read_interfaces(interfaces, what, result, d->err) < 0 || read_ips(ips, what, result, d->err) < 0)
		return -1;
	return read_routes(routes, what, result, d->err);
}

static int read_family(struct jd *d, const char *name, const char *what, struct cni_result *result)
{
	json_t *object = jd_opt_object(d, name), *routes;
	const char *address, *gateway;
	char path[96];
	struct jd f;

	if (jd_finish(d) < 0)
		return -1;
	if (!object)
		return 0;
	snprintf(path, sizeof(path), "%s.%s", what, name);
	jd_init(&f, object, path, d->err);
	jd_prefix(&f, "ip");
	address = jd_str(&f, "ip", PREFIX_TEXT_SIZE);
	jd_opt_ip(&f, "gateway");
	gateway = jd_opt_str(&f, "gateway", IP_TEXT_SIZE);
	routes = jd_opt_array(&f, "routes");
	if (jd_finish(&f) < 0)
		return -1;
	json_array_append_new(result->ips, make_ip(address, gateway, NULL));
	return read_routes(routes, path, result, d->err);
}

static int read_body(json_t *object, const char *what, const char *fallback, struct cni_result *result, struct err *err)
{
	enum cni_version version;
	const char *text;
	struct jd d;

	jd_init(&d, object, what, err);
	text = jd_opt_str(&d, "cniVersion", 32);
	if (!text || !*text)
		text = fallback;
	if (!d.failed && !cni_version_find(text, &version))
		jd_fail(&d, "cniVersion", "expected 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0 or 1.1.0, found \"%s\"", text);
	if (jd_finish(&d) < 0)
		return -1;
	if (version > CNI_0_2_0)
		return read_modern(&d, what, result);
	if (read_family(&d, "ip4", what, result) < 0)
		return -1;
	return read_family(&d, "ip6", what, result);
}

int cni_result_parse(json_t *object, const char *what, const char *fallback, struct cni_result *ret_result, struct cni_error *e)
{
	struct cni_result result;
	json_t *dns = json_object_get(object, "dns"), *parsed;
	char path[64];
	struct err err;

	cni_result_init(&result);
	if (read_body(object, what, fallback, &result, &err) < 0) {
		cni_result_fini(&result);
		return cni_fail_err(e, CNI_CONFIG, &err);
	}
	if (dns && !json_is_null(dns)) {
		snprintf(path, sizeof(path), "%s.dns", what);
		parsed = cni_dns_parse(dns, path, e);
		if (!parsed) {
			cni_result_fini(&result);
			return -1;
		}
		json_decref(result.dns);
		result.dns = parsed;
	}
	*ret_result = result;
	return 0;
}

/* ---- joining ---- */

void cni_result_append(struct cni_result *result, const struct cni_result *ours)
{
	json_int_t shift = (json_int_t)json_array_size(result->interfaces);
	json_t *item;
	size_t i;

	json_array_extend(result->interfaces, ours->interfaces);
	json_array_foreach(ours->ips, i, item)
	{
		json_t *ip = json_copy(item), *interface = json_object_get(ip, "interface");

		if (interface)
			json_object_set_new(ip, "interface", json_integer(json_integer_value(interface) + shift));
		json_array_append_new(result->ips, ip);
	}
	json_array_extend(result->routes, ours->routes);
	if (json_object_size(ours->dns))
		json_object_update(result->dns, ours->dns);
}

bool cni_result_find(const struct cni_result *result, const char *ifname, json_t **ret_ips, const char **ret_mac)
{
	json_t *item, *ips, *interface, *index;
	size_t i, at = json_array_size(result->interfaces);
	const char *sandbox;

	json_array_foreach(result->interfaces, i, item)
	{
		sandbox = json_string_value(json_object_get(item, "sandbox"));
		if (sandbox && *sandbox && strcmp(json_string_value(json_object_get(item, "name")), ifname) == 0)
			at = i;
	}
	if (at == json_array_size(result->interfaces))
		return false;
	interface = json_array_get(result->interfaces, at);
	ips = json_array();
	json_array_foreach(result->ips, i, item)
	{
		index = json_object_get(item, "interface");
		if (index && json_integer_value(index) == (json_int_t)at)
			json_array_append(ips, json_object_get(item, "address"));
	}
	*ret_ips = ips;
	*ret_mac = json_string_value(json_object_get(interface, "mac"));
	return true;
}

/* ---- printing ---- */

static unsigned family_of(const char *address)
{
	return address && strchr(address, ':') ? 6 : 4;
}

/* A copy with the named members only. */
static json_t *pick(json_t *object, const char *const *names)
{
	json_t *copy = json_object();

	for (; *names; names++) {
		json_t *value = json_object_get(object, *names);

		if (value)
			json_object_set(copy, *names, value);
	}
	return copy;
}

static const char *const route_old[] = {"dst", "gw", NULL};

static json_t *print_interfaces(const struct cni_result *result, enum cni_version version)
{
	static const char *const old[] = {"name", "mac", "sandbox", NULL};
	json_t *list = json_array(), *item;
	size_t i;

	json_array_foreach(result->interfaces, i, item)
		json_array_append_new(list, version >= CNI_1_1_0 ? json_copy(item) : pick(item, old));
	return list;
}

static json_t *print_ips(const struct cni_result *result, enum cni_version version, bool abbreviated)
{
	json_t *list = json_array(), *item;
	size_t i;

	json_array_foreach(result->ips, i, item)
	{
		json_t *ip = json_copy(item);

		if (version <= CNI_0_4_0)
			json_object_set_new(
				ip, "version", json_sprintf("%u", family_of(json_string_value(json_object_get(ip, "address")))));
		if (abbreviated)
			json_object_del(ip, "interface");
		json_array_append_new(list, ip);
	}
	return list;
}

static json_t *print_routes(const struct cni_result *result, enum cni_version version)
{
	json_t *list = json_array(), *item;
	size_t i;

	json_array_foreach(result->routes, i, item)
		json_array_append_new(list, version >= CNI_1_1_0 ? json_copy(item) : pick(item, route_old));
	return list;
}

static json_t *print_modern(const struct cni_result *result, enum cni_version version, bool abbreviated)
{
	json_t *object = json_object();

	if (!abbreviated)
		json_object_set_new(object, "interfaces", print_interfaces(result, version));
	json_object_set_new(object, "ips", print_ips(result, version, abbreviated));
	if (json_array_size(result->routes))
		json_object_set_new(object, "routes", print_routes(result, version));
	return object;
}

/* One family in the form of 0.2.0; NULL without error: no address of it. */
static json_t *print_family(const struct cni_result *result, unsigned family, struct cni_error *e)
{
	json_t *object = NULL, *routes, *item;
	const char *text;
	size_t i;

	json_array_foreach(result->ips, i, item)
	{
		text = json_string_value(json_object_get(item, "address"));
		if (family_of(text) != family)
			continue;
		if (object) {
			cni_fail(e, CNI_CONFIG,
				"cniVersion: results before 0.3.0 hold one IPv%u address, and there are %s and %s", family,
				json_string_value(json_object_get(object, "ip")), text);
			json_decref(object);
			return NULL;
		}
		object = json_object();
		json_object_set_new(object, "ip", json_string(text));
		if (json_object_get(item, "gateway"))
			json_object_set(object, "gateway", json_object_get(item, "gateway"));
	}
	routes = json_array();
	json_array_foreach(result->routes, i, item)
	{
		if (family_of(json_string_value(json_object_get(item, "dst"))) == family)
			json_array_append_new(routes, pick(item, route_old));
	}
	if (object && json_array_size(routes))
		json_object_set(object, "routes", routes);
	json_decref(routes);
	return object;
}

static json_t *print_old(const struct cni_result *result, struct cni_error *e)
{
	json_t *ip4 = print_family(result, 4, e), *ip6 = e->code ? NULL : print_family(result, 6, e), *object;

	if (!e->code && !ip4 && !ip6)
		cni_fail(e, CNI_CONFIG, "cniVersion: results before 0.3.0 need an address, and there is none");
	if (e->code) {
		json_decref(ip4);
		json_decref(ip6);
		return NULL;
	}
	object = json_object();
	if (ip4)
		json_object_set_new(object, "ip4", ip4);
	if (ip6)
		json_object_set_new(object, "ip6", ip6);
	return object;
}

json_t *cni_result_print(const struct cni_result *result, enum cni_version version, bool abbreviated, struct cni_error *e)
{
	json_t *object, *printed = json_object();

	object = version <= CNI_0_2_0 ? print_old(result, e) : print_modern(result, version, abbreviated);
	if (!object) {
		json_decref(printed);
		return NULL;
	}
	json_object_set_new(printed, "cniVersion", json_string(cni_version_name(version)));
	json_object_update(printed, object);
	json_decref(object);
	if (json_object_size(result->dns))
		json_object_set(printed, "dns", result->dns);
	return printed;
}

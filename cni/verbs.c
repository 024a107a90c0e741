/* What each verb does when we make interfaces. ipam.c has our other role. */
#include "cni/cni_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "control/client.h"

/* ---- shared ---- */

/* The namespace as the daemon can open it: through our own descriptor, so that it is the one that was checked, whatever happens
 * to the path, and also where the daemon does not see the runtime's mounts. It is open for as long as we wait for the answer. */
static void put_netns(json_t *body, int netns_fd)
{
	json_object_set_new(body, "netns", json_sprintf("/proc/%d/fd/%d", (int)getpid(), netns_fd));
}

static void put_text(json_t *body, const char *name, const char *text)
{
	if (text)
		json_object_set_new(body, name, json_string(text));
}

/* Absent and null leave it empty. */
static int read_prev(const struct cni_config *config, struct cni_result *ret_prev, struct cni_error *e)
{
	json_t *prev = json_object_get(config->root, "prevResult");

	if (prev && !json_is_null(prev))
		return cni_result_parse(prev, "prevResult", config->version, ret_prev, e);
	cni_result_init(ret_prev);
	return 0;
}

/* ---- ADD ---- */

struct add {
	struct cni_request request;
	struct cni_result result; /* of the plugins before us, then with ours */
	struct cni_result ipam;	  /* of the delegated IPAM plugin, or only the routes of our ipam object */
	json_t *dns;		  /* of the configuration */
	int netns_fd;
};

static void add_fini(struct add *a)
{
	cni_request_fini(&a->request);
	cni_result_fini(&a->result);
	cni_result_fini(&a->ipam);
	json_decref(a->dns);
	if (a->netns_fd >= 0)
		close(a->netns_fd);
}

static int read_dns(const struct cni_config *config, json_t **ret_dns, struct cni_error *e)
{
	json_t *dns = json_object_get(config->root, "dns");

	if (!dns || json_is_null(dns))
		return 0;
	*ret_dns = cni_dns_parse(dns, "network configuration: dns", e);
	return *ret_dns ? 0 : -1;
}

static int read_routes(json_t *routes, struct cni_result *ret_result, struct cni_error *e)
{
	json_t *object = json_object();
	int ret;

	if (routes)
		json_object_set(object, "routes", routes);
	ret = cni_result_parse(object, "ipam", "1.1.0", ret_result, e);
	json_decref(object);
	return ret;
}

static int add_init(struct add *a, const struct cni_input *input, struct cni_error *e)
{
	*a = (struct add){.netns_fd = -1};
	if (cni_request_read(&input->config, &input->env, &a->request, e) < 0 || read_prev(&input->config, &a->result, e) < 0 ||
		read_dns(&input->config, &a->dns, e) < 0 || read_routes(input->config.routes, &a->ipam, e) < 0 ||
		cni_netns_open(&input->env, &a->netns_fd, e) < 0) {
		add_fini(a);
		return -1;
	}
	return 0;
}

static int ask_delegate(struct add *a, const struct cni_input *input, struct cni_error *e)
{
	json_t *answer = NULL;
	struct cni_result result;

	if (cni_delegate(input, "ADD", &answer, e) < 0)
		return -1;
	if (cni_result_parse(answer, "result of the IPAM plugin", input->config.version, &result, e) < 0) {
		json_decref(answer);
		return -1;
	}
	json_decref(answer);
	cni_result_fini(&a->ipam);
	a->ipam = result;
	if (!json_array_size(result.ips))
		return cni_fail(e, CNI_CONFIG, "IPAM plugin %s returned missing IP config", input->config.delegate);
	return 0;
}

/* A route without gateway goes through the first address's of its family. */
static const char *gateway_for(const struct cni_result *ipam, json_t *route)
{
	const char *gw = json_string_value(json_object_get(route, "gw")), *dst = json_string_value(json_object_get(route, "dst"));
	json_t *ip;
	size_t i;

	if (gw && *gw)
		return gw;
	json_array_foreach(ipam->ips, i, ip)
	{
		if (!strchr(json_string_value(json_object_get(ip, "address")), ':') == !strchr(dst, ':'))
			return json_string_value(json_object_get(ip, "gateway"));
	}
	return NULL;
}

static void put_routes(json_t *body, const struct cni_result *ipam)
{
	json_t *routes = json_array(), *route;
	size_t i;

	json_array_foreach(ipam->routes, i, route)
	{
		json_t *resolved = json_object();

		json_object_set(resolved, "dst", json_object_get(route, "dst"));
		put_text(resolved, "gw", gateway_for(ipam, route));
		json_array_append_new(routes, resolved);
	}
	if (json_array_size(routes))
		json_object_set(body, "routes", routes);
	json_decref(routes);
}

static void put_addresses(json_t *body, const struct add *a, bool delegated)
{
	json_t *ips, *ip;
	size_t i;

	if (!delegated) {
		if (a->request.ips)
			json_object_set(body, "ips", a->request.ips);
		return;
	}
	ips = json_array();
	json_array_foreach(a->ipam.ips, i, ip) json_array_append(ips, json_object_get(ip, "address"));
	json_object_set_new(body, "ips", ips);
	json_object_set_new(body, "address_given", json_true());
}

static json_t *add_body(const struct add *a, const struct cni_input *input)
{
	const struct cni_config *config = &input->config;
	json_t *body = cni_attachment(input);

	put_netns(body, a->netns_fd);
	put_text(body, "sandbox", input->env.netns);
	put_text(body, "network", config->network);
	put_text(body, "subnet", config->subnet);
	put_text(body, "subnet6", config->subnet6);
	put_text(body, "mode", config->mode);
	if (config->mtu)
		json_object_set_new(body, "mtu", json_integer(config->mtu));
	if (config->no_gateway)
		json_object_set_new(body, "default_gateway", json_false());
	put_addresses(body, a, config->delegate != NULL);
	put_routes(body, &a->ipam);
	put_text(body, "mac", a->request.mac);
	put_text(body, "name", a->request.name);
	if (json_object_size(a->request.labels))
		json_object_set(body, "labels", a->request.labels);
	if (json_array_size(a->request.aliases))
		json_object_set(body, "aliases", a->request.aliases);
	return body;
}

/* Our part of the result in the form of 1.1.0, from the daemon's answer. */
static json_t *own_object(const struct cni_input *input, const struct add *a, json_t *answer)
{
	const char *host = json_string_value(json_object_get(answer, "host_ifname"));
	const char *mode = json_string_value(json_object_get(answer, "mode"));
	/* What is routed is not as the IPAM plugin says: addresses stand alone, and the gateway is another. */
	bool delegated = input->config.delegate != NULL && !(mode && strcmp(mode, "l3") == 0);
	json_t *interfaces = json_array(), *object = json_object(), *inside, *ips, *ip;
	size_t i;

	if (host) {
		json_array_append_new(interfaces, json_pack("{s:s}", "name", host));
		put_text(json_array_get(interfaces, 0), "mac", json_string_value(json_object_get(answer, "host_mac")));
	}
	inside = json_object();
	put_text(inside, "name", input->env.ifname);
	json_object_set(inside, "mac", json_object_get(answer, "mac"));
	json_object_set(inside, "mtu", json_object_get(answer, "mtu"));
	put_text(inside, "sandbox", input->env.netns);
	json_array_append_new(interfaces, inside);
	ips = json_deep_copy(delegated ? a->ipam.ips : json_object_get(answer, "ips"));
	json_array_foreach(ips, i, ip)
	{
		if (json_is_object(ip))
			json_object_set_new(ip, "interface", json_integer(host ? 1 : 0));
	}
	json_object_set_new(object, "interfaces", interfaces);
	json_object_set_new(object, "ips", ips);
	json_object_set(object, "routes", delegated ? a->ipam.routes : json_object_get(answer, "routes"));
	json_object_set(object, "dns", a->ipam.dns);
	return object;
}

static int check_answer(json_t *answer, struct err *err)
{
	struct jd d;

	jd_init(&d, answer, "answer of the daemon", err);
	jd_opt_str(&d, "host_ifname", CNI_IFNAME_MAX);
	if (!*jd_str(&d, "mac", MAC_TEXT_SIZE))
		jd_fail(&d, "mac", "expected a MAC address, found nothing");
	jd_opt_mac(&d, "mac");
	jd_int(&d, "mtu", 68, 65535);
	if (!jd_opt_array(&d, "ips"))
		jd_fail(&d, "ips", "expected a list of addresses, found nothing");
	return jd_finish(&d);
}

/* Joins what the daemon answered with what came before. */
static int take_answer(struct add *a, const struct cni_input *input, json_t *answer, struct cni_error *e)
{
	struct cni_error why = {0};
	struct cni_result own;
	struct err err;
	json_t *object;
	int ret;

	if (check_answer(answer, &err) < 0)
		return cni_fail_err(e, CNI_DAEMON, &err);
	object = own_object(input, a, answer);
	ret = cni_result_parse(object, "answer of the daemon", "1.1.0", &own, &why);
	json_decref(object);
	if (ret < 0)
		return cni_fail(e, CNI_DAEMON, "%s", why.msg);
	/* The more particular setting counts: what the runtime asks for, then the configuration, then the IPAM plugin. */
	if (a->dns)
		json_object_update(own.dns, a->dns);
	if (a->request.dns)
		json_object_update(own.dns, a->request.dns);
	cni_result_append(&a->result, &own);
	cni_result_fini(&own);
	return 0;
}

static int call_and_print(struct add *a, struct cni_input *input, json_t **ret_printed, struct cni_error *e)
{
	json_t *body = add_body(a, input), *answer, *printed = NULL;

	answer = cni_call(input, "POST", "/v1/cni/add", body, e);
	json_decref(body);
	if (!answer)
		return -1;
	if (take_answer(a, input, answer, e) == 0)
		printed = cni_result_print(&a->result, input->config.format, false, e);
	json_decref(answer);
	if (!printed) {
		cni_undo(input, "/v1/cni/del");
		return -1;
	}
	*ret_printed = printed;
	return 0;
}

/* The daemon cannot tell whose an interface is that stands in the way; we can look. */
static void explain(const struct add *a, const struct cni_input *input, struct cni_error *e)
{
	enum cni_link link;

	if (e->code != CNI_ATTACHED && e->code != CNI_KERNEL)
		return;
	if (cni_link_look(a->netns_fd, input->env.ifname, NULL, &link, NULL) < 0 || link != CNI_LINK_FOREIGN)
		return;
	e->code = CNI_OK;
	cni_fail(e, CNI_IFNAME, "CNI_IFNAME: the namespace %.300s has an interface %s already, which is not ours: left as it is",
		input->env.netns, input->env.ifname);
}

int cni_do_add(struct cni_input *input, json_t **ret_answer, struct cni_error *e)
{
	bool delegated = input->config.delegate != NULL;
	struct cni_error ignored = {0};
	struct add a;
	int ret;

	if (add_init(&a, input, e) < 0)
		return -1;
	ret = delegated ? ask_delegate(&a, input, e) : 0;
	if (ret == 0)
		ret = call_and_print(&a, input, ret_answer, e);
	if (ret < 0 && delegated)
		cni_delegate(input, "DEL", NULL, &ignored);
	if (ret < 0)
		explain(&a, input, e);
	add_fini(&a);
	return ret;
}

/* ---- DEL ---- */

/* The MAC that the final result gave our interface. A cache that was lost or spoilt is no reason to fail. */
static char *prev_mac(const struct cni_input *input)
{
	struct cni_error ignored = {0};
	struct cni_result prev;
	const char *mac = NULL;
	json_t *ips = NULL;
	char *copy = NULL;

	if (read_prev(&input->config, &prev, &ignored) < 0)
		return NULL;
	if (cni_result_find(&prev, input->env.ifname, &ips, &mac)) {
		copy = mac ? strdup(mac) : NULL;
		json_decref(ips);
	}
	cni_result_fini(&prev);
	return copy;
}

/* Without a daemon: word first, so that a crash between the two leaves too much word rather than too little. */
static int del_alone(const struct cni_input *input, int netns_fd, struct cni_error *e)
{
	char *mac = prev_mac(input);
	struct err err, gone;
	int word, link = 0;

	word = cni_tombstone_write(input->config.run_dir, input->config.name, input->env.container_id, input->env.ifname, &err);
	if (netns_fd >= 0)
		link = cni_link_remove(netns_fd, input->env.ifname, mac, &gone);
	free(mac);
	if (word < 0)
		return cni_fail(e, CNI_TRY_LATER, "no daemon answers at %.200s, and word cannot be left for it: %s",
			input->config.socket, err.text);
	return link < 0 ? cni_fail_err(e, CNI_KERNEL, &gone) : 0;
}

static int del_own(const struct cni_input *input, int netns_fd, struct cni_error *e)
{
	json_t *body = cni_attachment(input);
	int ret;

	if (netns_fd >= 0)
		put_netns(body, netns_fd);
	ret = cni_call_del(input, "/v1/cni/del", body, e);
	json_decref(body);
	return ret == -2 ? del_alone(input, netns_fd, e) : ret;
}

int cni_do_del(struct cni_input *input, struct cni_error *e)
{
	int netns_fd, ret;

	if (cni_netns_open(&input->env, &netns_fd, e) < 0)
		return -1;
	ret = del_own(input, netns_fd, e);
	if (netns_fd >= 0)
		close(netns_fd);
	/* Also when ours failed: the addresses are the other plugin's to free. The first error is the one that is told. */
	if (input->config.delegate && cni_delegate(input, "DEL", NULL, e) < 0)
		ret = -1;
	return ret;
}

/* ---- CHECK ---- */

static int check_own(const struct cni_input *input, int netns_fd, json_t *ips, const char *mac, struct cni_error *e)
{
	json_t *body = cni_attachment(input), *answer;

	put_netns(body, netns_fd);
	put_text(body, "mac", mac);
	json_object_set(body, "ips", ips);
	answer = cni_call(input, "POST", "/v1/cni/check", body, e);
	json_decref(body);
	json_decref(answer);
	return answer ? 0 : -1;
}

static int check_prev(const struct cni_input *input, const struct cni_result *prev, struct cni_error *e)
{
	json_t *ips = NULL;
	const char *mac;
	int netns_fd, ret;

	if (!cni_result_find(prev, input->env.ifname, &ips, &mac))
		return cni_fail(e, CNI_CONFIG, "prevResult.interfaces: expected the interface %s in a sandbox, found none",
			input->env.ifname);
	ret = cni_netns_open(&input->env, &netns_fd, e);
	if (ret == 0) {
		ret = check_own(input, netns_fd, ips, mac, e);
		close(netns_fd);
	}
	json_decref(ips);
	return ret;
}

int cni_do_check(struct cni_input *input, struct cni_error *e)
{
	json_t *object = json_object_get(input->config.root, "prevResult");
	struct cni_result prev;
	int ret;

	if (!object || json_is_null(object))
		return cni_fail(e, CNI_CONFIG, "prevResult: CHECK needs the result of ADD, and there is none");
	if (read_prev(&input->config, &prev, e) < 0)
		return -1;
	ret = check_prev(input, &prev, e);
	cni_result_fini(&prev);
	if (ret == 0 && input->config.delegate)
		ret = cni_delegate(input, "CHECK", NULL, e);
	return ret;
}

/* ---- GC ---- */

static int add_kept(json_t *keep, json_t *item, size_t i, struct err *err)
{
	static const char *const names[] = {"containerID", "ifname", NULL};
	json_t *folded = json_is_object(item) ? cni_fold_keys(item, names) : json_incref(item);
	const char *id, *ifname;
	char path[64];
	struct jd d;
	int ret;

	snprintf(path, sizeof(path), "cni.dev/valid-attachments[%zu]", i);
	jd_init(&d, folded, path, err);
	id = jd_str(&d, "containerID", 4096);
	ifname = jd_str(&d, "ifname", 4096);
	ret = jd_finish(&d);
	/* What can be no attachment of ours need not be kept by us. */
	if (ret == 0 && cni_name_valid(id, CONTROL_CNI_ID_MAX) && cni_ifname_valid(ifname))
		json_array_append_new(keep, json_pack("{s:s, s:s}", "container_id", id, "ifname", ifname));
	json_decref(folded);
	return ret;
}

/* The list under its name in the specification, or under the one that its first release had. false: not there. */
static bool find_list(json_t *root, json_t **ret_list)
{
	*ret_list = json_object_get(root, "cni.dev/valid-attachments");
	if (!*ret_list)
		*ret_list = json_object_get(root, "cni.dev/attachments");
	return *ret_list != NULL;
}

static int gc_own(const struct cni_input *input, json_t *list, struct cni_error *e)
{
	json_t *keep = json_array(), *body, *item, *answer;
	struct err err;
	size_t i;

	json_array_foreach(list, i, item)
	{
		if (add_kept(keep, item, i, &err) < 0) {
			json_decref(keep);
			return cni_fail_err(e, CNI_CONFIG, &err);
		}
	}
	body = json_pack("{s:s, s:o}", "config", input->config.name, "keep", keep);
	answer = cni_call(input, "POST", "/v1/cni/gc", body, e);
	json_decref(body);
	json_decref(answer);
	return answer ? 0 : -1;
}

int cni_do_gc(struct cni_input *input, struct cni_error *e)
{
	json_t *list;
	int ret = 0;

	/* Without a list nothing is known to be dead; null is an empty list: nothing is alive. */
	if (find_list(input->config.root, &list)) {
		if (!json_is_array(list) && !json_is_null(list))
			return cni_fail(e, CNI_CONFIG, "cni.dev/valid-attachments: expected a list or null");
		ret = gc_own(input, list, e);
	}
	if (input->config.delegate && cni_delegate(input, "GC", NULL, e) < 0)
		ret = -1;
	return ret;
}

/* ---- STATUS ---- */

int cni_do_status(struct cni_input *input, struct cni_error *e)
{
	char *network = input->config.network ? client_encode(input->config.network) : NULL;
	char *path = alloc_format("/v1/cni/status%s%s", network ? "?network=" : "", network ? network : "");
	json_t *answer = cni_call(input, "GET", path, NULL, e);
	free(path);
	free(network);
	json_decref(answer);
	if (!answer)
		return -1;
	return input->config.delegate ? cni_delegate(input, "STATUS", NULL, e) : 0;
}

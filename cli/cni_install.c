/* `trestle cni install` and `cni uninstall`: the plugin's binary in CNI's directories, and a configuration that names it.
 *
 * Both only touch what is theirs. The binary is known by a line in it (cni/main.c), a configuration by its member "writtenBy",
 * which holds a digest of the rest: one that somebody has edited since is somebody's work, and stays unless --force is given.
 * Everything is looked at before anything is written, so a refusal changes nothing. The binary comes before the configuration and
 * goes after it, since a runtime that reads the configuration runs the binary. */
#include "cli/cli_internal.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/addr.h"
#include "base/alloc.h"
#include "base/json_text.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/number.h"
#include "base/version.h"
#include "cli/view.h"
#include "control/client.h"
#include "control/limits.h"

#define NETWORK "trestle"
#define BINARY_MAX (64u * 1024 * 1024)
#define CONF_MAX (1024u * 1024)
#define WAIT_MAX_S 3600
#define WAIT_STEP_MS 200
#define STATUS_TIMEOUT_MS 2000
#define WRITTEN_BY "trestle cni install, digest "
#define DIGEST_SIZE 16

enum own {
	OWN_ABSENT,
	OWN_OURS,    /* as we wrote it */
	OWN_EDITED,  /* ours, and changed since */
	OWN_FOREIGN, /* somebody else's */
};

struct report {
	struct cli *cli;
	json_t *files; /* [{"path", "did"}] */
	json_t *notes;
};

/* ---- saying what was done ---- */

static void did(struct report *r, const char *path, const char *what)
{
	json_array_append_new(r->files, json_pack("{s:s,s:s}", "path", path, "did", what));
	if (!r->cli->json)
		fprintf(r->cli->out, "%s: %s\n", path, what);
}

/* Kubernetes' runtimes take the first file of the directory, whatever it is. */
static void note_before(struct report *r, const char *path)
{
	json_t *text = json_sprintf(
		"%s comes first by name: runtimes that take one network only, as Kubernetes' do, use that one", path);

	json_array_append_new(r->notes, json_incref(text));
	if (!r->cli->json)
		fprintf(r->cli->out, "note: %s\n", json_string_value(text));
	json_decref(text);
}

static void report_init(struct report *r, struct cli *cli)
{
	*r = (struct report){cli, json_array(), json_array()};
}

static int report_end(struct report *r, int status)
{
	json_t *all = json_pack("{s:o,s:o}", "files", r->files, "notes", r->notes);

	if (r->cli->json)
		view_json(r->cli->out, all);
	json_decref(all);
	return status;
}

static const char *option_or(struct cli *cli, const char *name, const char *fallback)
{
	const char *value = cli_option(cli, name);

	return value ? value : fallback;
}

/* ---- whose is it ---- */

/* Put together here, so that this program is not taken for the plugin. */
static bool is_plugin(const char *data, size_t len)
{
	char mark[32];

	return memmem(data, len, mark, (size_t)snprintf(mark, sizeof mark, "@(#)%s ", "trestle-cni")) != NULL;
}

static void digest_of(json_t *conf, char buf[2 * DIGEST_SIZE + 1])
{
	unsigned char digest[DIGEST_SIZE];
	json_t *rest = json_copy(conf);
	char *text;

	json_object_del(rest, "writtenBy");
	text = json_dumps(rest, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(rest);
	crypto_generichash(digest, sizeof digest, (const unsigned char *)text, strlen(text), NULL, 0);
	free(text);
	sodium_bin2hex(buf, 2 * DIGEST_SIZE + 1, digest, sizeof digest);
}

static bool names_plugin(json_t *conf)
{
	json_t *plugins = json_object_get(conf, "plugins"), *plugin;
	const char *type;
	size_t i;

	json_array_foreach(plugins, i, plugin)
	{
		type = json_string_value(json_object_get(plugin, "type"));
		if (type && !strcmp(type, "trestle"))
			return true;
	}
	type = json_string_value(json_object_get(conf, "type"));
	return type && !strcmp(type, "trestle");
}

static enum own own_of_conf(json_t *conf)
{
	const char *by = json_string_value(json_object_get(conf, "writtenBy"));
	char digest[2 * DIGEST_SIZE + 1];

	if (!by || strncmp(by, WRITTEN_BY, strlen(WRITTEN_BY)))
		return OWN_FOREIGN;
	digest_of(conf, digest);
	return strcmp(by + strlen(WRITTEN_BY), digest) ? OWN_EDITED : OWN_OURS;
}

/* What stands at `path`; its bytes as well (the caller frees), NULL when there are none. */
static int look(const char *path, size_t max, bool binary, enum own *ret_own, char **ret_data, size_t *ret_len, struct err *err)
{
	json_t *conf;

	*ret_data = NULL;
	*ret_len = 0;
	if (file_read(path, max, ret_data, ret_len, err) < 0) {
		if (err->code == ERR_TOO_BIG || (err->code == ERR_SYSTEM && err->sys_errno != ENOENT)) {
			*ret_own = OWN_FOREIGN;
			return err->code == ERR_TOO_BIG ? 0 : -1;
		}
		*ret_own = OWN_ABSENT;
		return 0;
	}
	if (binary) {
		*ret_own = is_plugin(*ret_data, *ret_len) ? OWN_OURS : OWN_FOREIGN;
		return 0;
	}
	conf = json_loadb(*ret_data, *ret_len, JSON_REJECT_DUPLICATES, NULL);
	*ret_own = own_of_conf(conf);
	json_decref(conf);
	return 0;
}

/* ---- the configuration ---- */

/* A CNI network's name, which becomes a file's. */
static bool is_name(const char *text)
{
	size_t len = strlen(text);

	return len && len <= CONTROL_NETWORK_NAME_MAX && isalnum((unsigned char)*text) &&
	       strspn(text, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_.-") == len;
}

static int put_subnet(struct cli *cli, json_t *plugin, const char *option, const char *member, unsigned family)
{
	const char *text = cli_option(cli, option);
	struct prefix prefix;
	struct err err;

	if (!text)
		return 0;
	if (prefix_parse(text, &prefix, &err) < 0 || prefix.ip.family != family)
		return cli_complain(cli, -1, "%s: expected an IPv%u prefix, found \"%s\"", option, family, text);
	json_object_set_new(plugin, member, json_string(text));
	return 0;
}

/* The value of an option that has a few words to choose from; NULL: complained. */
static const char *choose(struct cli *cli, const char *option, const char *const words[], const char *fallback)
{
	const char *text = option_or(cli, option, fallback);
	char list[128] = "";

	for (int i = 0; words[i]; i++) {
		if (!strcmp(words[i], text))
			return text;
		snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", words[i]);
	}
	cli_complain(cli, 0, "%s: expected one of %s, found \"%s\"", option, list, text);
	return NULL;
}

static json_t *make_plugin(struct cli *cli, const char *network)
{
	static const char *const modes[] = {"l2", "l3", NULL};
	json_t *plugin = json_pack("{s:s,s:s}", "type", "trestle", "network", network);
	const char *mode = NULL;

	if (cli_option(cli, "--mode")) {
		mode = choose(cli, "--mode", modes, "l3");
		if (mode)
			json_object_set_new(plugin, "mode", json_string(mode));
	}
	if ((cli_option(cli, "--mode") && !mode) || put_subnet(cli, plugin, "--subnet", "subnet", 4) < 0 ||
		put_subnet(cli, plugin, "--subnet6", "subnet6", 6) < 0) {
		json_decref(plugin);
		return NULL;
	}
	if (strcmp(cli->socket, CONTROL_SOCKET_DEFAULT))
		json_object_set_new(plugin, "socket", json_string(cli->socket));
	json_object_set_new(plugin, "capabilities", json_pack("{s:b,s:b,s:b}", "ips", 1, "mac", 1, "aliases", 1));
	return plugin;
}

/* NULL: complained. */
static json_t *make_conf(struct cli *cli, const char *network)
{
	/* What a runtime can read: most know 1.0.0; 1.1.0 is what makes them ask for STATUS, and old ones refuse it. */
	static const char *const versions[] = {"0.4.0", "1.0.0", "1.1.0", NULL};
	const char *version = choose(cli, "--cni-version", versions, "1.0.0");
	char digest[2 * DIGEST_SIZE + 1];
	json_t *plugin, *conf;

	if (!version)
		return NULL;
	if (!is_name(network)) {
		cli_complain(cli, 0,
			"--network: expected 1 to %d of [0-9A-Za-z_.-] beginning with a letter or digit, found \"%s\"",
			CONTROL_NETWORK_NAME_MAX, network);
		return NULL;
	}
	plugin = make_plugin(cli, network);
	if (!plugin)
		return NULL;
	conf = json_pack("{s:s,s:s,s:[o]}", "cniVersion", version, "name", network, "plugins", plugin);
	if (cli_option(cli, "--portmap"))
		json_array_append_new(json_object_get(conf, "plugins"),
			json_pack("{s:s,s:{s:b}}", "type", "portmap", "capabilities", "portMappings", 1));
	digest_of(conf, digest);
	json_object_set_new(conf, "writtenBy", json_sprintf(WRITTEN_BY "%s", digest));
	return conf;
}

static char *conf_text(json_t *conf)
{
	char *text = json_print(conf, JSON_INDENT(2)), *line = alloc_format("%s\n", text);

	free(text);
	return line;
}

/* ---- install ---- */

struct install {
	char path[PATH_MAX];
	char *data;
	size_t len;
	mode_t mode;
	bool binary;
	enum own own;
	bool same;
};

/* The plugin that belongs to this program: beside it, as `make install` and the build put it. */
static int find_source(struct cli *cli, char buf[PATH_MAX])
{
	const char *from = cli_option(cli, "--from");

	if (from)
		snprintf(buf, PATH_MAX, "%s", from);
	else if (!cli_beside(buf, "trestle-cni"))
		return cli_complain(cli, -1, "where this program is cannot be read: say where trestle-cni is with --from FILE");
	return 0;
}

static int load_binary(struct cli *cli, struct install *f)
{
	char source[PATH_MAX];
	struct err err;

	if (find_source(cli, source) < 0)
		return -1;
	if (file_read(source, BINARY_MAX, &f->data, &f->len, &err) < 0)
		return cli_complain(cli, -1, "%s; say where trestle-cni is with --from FILE", err.text);
	if (!is_plugin(f->data, f->len))
		return cli_complain(cli, -1, "%s: expected the plugin trestle-cni, found another file", source);
	return 0;
}

/* Compares with what is there. */
static int inspect(struct cli *cli, struct install *f)
{
	struct err err;
	char *there;
	size_t len;

	if (look(f->path, f->binary ? BINARY_MAX : CONF_MAX, f->binary, &f->own, &there, &len, &err) < 0)
		return cli_complain(cli, -1, "%s", err.text);
	f->same = there && len == f->len && !memcmp(there, f->data, len);
	free(there);
	return 0;
}

static bool may_write(struct cli *cli, const struct install *f)
{
	if (f->same || f->own <= OWN_OURS || cli_option(cli, "--force"))
		return true;
	cli_complain(cli, 0,
		f->own == OWN_EDITED ? "%s: was changed since it was written; nothing is done. --force replaces it"
				     : "%s: is not from `trestle cni install`; nothing is done. --force replaces it",
		f->path);
	return false;
}

static int put_file(struct report *r, const struct install *f)
{
	struct err err;

	if (f->same) {
		did(r, f->path, "unchanged");
		return 0;
	}
	if (file_make_parents(f->path, 0755, &err) < 0 || file_write_atomic(f->path, f->data, f->len, f->mode, &err) < 0)
		return cli_complain(r->cli, -1, "%s", err.text);
	did(r, f->path, f->own == OWN_ABSENT ? "written" : "replaced");
	return 0;
}

static int read_wait(struct cli *cli, uint64_t *ret_seconds)
{
	const char *text = option_or(cli, "--wait", "0");

	if (number_parse(text, 0, WAIT_MAX_S, ret_seconds) < 0)
		return cli_complain(cli, -1, "--wait: expected seconds from 0 to %d, found \"%s\"", WAIT_MAX_S, text);
	return 0;
}

/* The configuration makes a Kubernetes node ready, so it can wait until the daemon is. */
static int wait_for_daemon(struct cli *cli)
{
	uint64_t seconds, until;
	const char *state;
	struct err err;
	json_t *answer;
	bool running;

	if (read_wait(cli, &seconds) < 0)
		return -1;
	if (!seconds)
		return 0;
	for (until = clock_boot_ms() + seconds * 1000;; poll(NULL, 0, WAIT_STEP_MS)) {
		answer = client_call(cli->socket, "GET", "/v1/status", NULL, STATUS_TIMEOUT_MS, &err);
		state = json_string_value(json_object_get(answer, "state"));
		running = state && !strcmp(state, "running");
		if (answer && !running)
			err_set(&err, ERR_UNREACHABLE, "the daemon is %s", state ? state : "in no state");
		json_decref(answer);
		if (running)
			return 0;
		if (clock_boot_ms() >= until)
			return cli_complain(cli, -1, "%s (after %d s): no configuration is written", err.text, (int)seconds);
	}
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_conf(const struct dirent *e)
{
	const char *dot = strrchr(e->d_name, '.');

	return dot && (!strcmp(dot, ".conflist") || !strcmp(dot, ".conf") || !strcmp(dot, ".json"));
}

static void note_first(struct report *r, const char *path)
{
	struct dirent **names;
	char dir[PATH_MAX], first[PATH_MAX];
	const char *name = strrchr(path, '/') + 1;
	int n;

	snprintf(dir, sizeof dir, "%.*s", (int)(name - path), path);
	n = scandir(dir, &names, is_conf, by_name);
	if (n > 0 && strcmp(names[0]->d_name, name)) {
		snprintf(first, sizeof first, "%.2048s%s", dir, names[0]->d_name);
		note_before(r, first);
	}
	for (int i = 0; i < n; i++)
		free(names[i]);
	if (n >= 0)
		free(names);
}

static int check_dir(struct cli *cli, const char *option, const char *dir)
{
	if (*dir == '/' && strlen(dir) < PATH_MAX - 256)
		return 0;
	return cli_complain(cli, -1, "%s: expected an absolute path, found \"%s\"", option, dir);
}

static int prepare(struct cli *cli, struct install *binary, struct install *conf)
{
	const char *bin_dir = option_or(cli, "--bin-dir", CLI_CNI_BIN_DIR),
		   *conf_dir = option_or(cli, "--conf-dir", CLI_CNI_CONF_DIR);
	const char *network = option_or(cli, "--network", NETWORK);
	uint64_t seconds;
	json_t *root;

	if (check_dir(cli, "--bin-dir", bin_dir) < 0 || check_dir(cli, "--conf-dir", conf_dir) < 0 ||
		read_wait(cli, &seconds) < 0)
		return -1;
	root = make_conf(cli, network);
	if (!root)
		return -1;
	conf->data = conf_text(root);
	conf->len = strlen(conf->data);
	json_decref(root);
	snprintf(conf->path, sizeof conf->path, "%s/10-%s.conflist", conf_dir, network);
	snprintf(binary->path, sizeof binary->path, "%s/trestle", bin_dir);
	if (load_binary(cli, binary) < 0 || inspect(cli, binary) < 0 || inspect(cli, conf) < 0)
		return -1;
	return 0;
}

static int write_both(struct cli *cli, const struct install *binary, const struct install *conf)
{
	struct report r;
	int status;

	report_init(&r, cli);
	status = put_file(&r, binary) < 0 || wait_for_daemon(cli) < 0 || put_file(&r, conf) < 0 ? CLI_CANNOT_TELL : CLI_FINE;
	if (status == CLI_FINE)
		note_first(&r, conf->path);
	return report_end(&r, status);
}

int cli_run_cni_install(struct cli *cli)
{
	struct install binary = {.mode = 0755, .binary = true}, conf = {.mode = 0644};
	int status = CLI_CANNOT_TELL;
	bool may;

	if (prepare(cli, &binary, &conf) == 0) {
		may = may_write(cli, &binary);
		may = may_write(cli, &conf) && may;
		status = may ? write_both(cli, &binary, &conf) : CLI_PROBLEM;
	}
	free(binary.data);
	free(conf.data);
	return status;
}

/* ---- uninstall ---- */

/* Removes a file that is ours, or any that --force names. 0 gone, 1 left, -1 complained. */
static int take_away(struct report *r, const char *path, enum own own)
{
	char tmp[PATH_MAX];

	if (own > OWN_OURS && !cli_option(r->cli, "--force")) {
		did(r, path,
			own == OWN_EDITED ? "left, it was changed since it was written (--force removes it)"
					  : "left, it is not from `trestle cni install` (--force removes it)");
		return 1;
	}
	if (unlink(path) < 0 && errno != ENOENT)
		return cli_complain(r->cli, -1, "remove %s: %s", path, strerror(errno));
	did(r, path, own == OWN_ABSENT ? "was not there" : "removed");
	/* What an install that was killed in the middle leaves. */
	snprintf(tmp, sizeof tmp, "%.4090s.tmp", path);
	unlink(tmp);
	return 0;
}

static int uninstall_conf(struct report *r, const char *path)
{
	struct err err;
	enum own own;
	json_t *conf;
	char *data;
	size_t len;
	bool uses;

	if (look(path, CONF_MAX, false, &own, &data, &len, &err) < 0)
		return cli_complain(r->cli, -1, "%s", err.text);
	conf = data ? json_loadb(data, len, JSON_REJECT_DUPLICATES, NULL) : NULL;
	uses = names_plugin(conf);
	json_decref(conf);
	free(data);
	return uses ? take_away(r, path, own) : 0;
}

static int uninstall_confs(struct report *r, const char *dir)
{
	struct dirent **names;
	char path[PATH_MAX];
	int n = scandir(dir, &names, is_conf, by_name), left = 0, ret = 0;

	if (n < 0)
		return errno == ENOENT ? 0 : cli_complain(r->cli, -1, "read %s: %s", dir, strerror(errno));
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof path, "%.3800s/%s", dir, names[i]->d_name);
		ret = ret < 0 ? ret : uninstall_conf(r, path);
		left += ret > 0;
		free(names[i]);
	}
	free(names);
	return ret < 0 ? ret : left;
}

/* DEL is the plugin's work: without it a runtime cannot take its containers down. Who has no daemon is believed. */
static size_t attached(struct cli *cli)
{
	struct err err;
	json_t *answer = client_call(cli->socket, "GET", "/v1/endpoints", NULL, STATUS_TIMEOUT_MS, &err), *row;
	size_t i, count = 0;

	json_array_foreach(json_object_get(answer, "endpoints"), i, row) count +=
		json_is_string(json_object_get(row, "container_id"));
	json_decref(answer);
	return count;
}

static int uninstall_binary(struct report *r, const char *dir, int confs_left)
{
	char path[PATH_MAX], *data;
	struct err err;
	enum own own;
	size_t len;

	snprintf(path, sizeof path, "%s/trestle", dir);
	if (look(path, BINARY_MAX, true, &own, &data, &len, &err) < 0)
		return cli_complain(r->cli, -1, "%s", err.text);
	free(data);
	if (confs_left && own == OWN_OURS) {
		did(r, path, "left, a configuration that was left names it");
		return 1;
	}
	return take_away(r, path, own);
}

int cli_cni_uninstall(struct cli *cli, const char *bin_dir, const char *conf_dir)
{
	struct report r;
	int left, rest;

	report_init(&r, cli);
	left = uninstall_confs(&r, conf_dir);
	rest = left < 0 ? left : uninstall_binary(&r, bin_dir, left);
	return report_end(&r, rest < 0 ? CLI_CANNOT_TELL : left + rest ? CLI_PROBLEM : CLI_FINE);
}

int cli_run_cni_uninstall(struct cli *cli)
{
	const char *bin_dir = option_or(cli, "--bin-dir", CLI_CNI_BIN_DIR),
		   *conf_dir = option_or(cli, "--conf-dir", CLI_CNI_CONF_DIR);
	size_t count;

	if (check_dir(cli, "--bin-dir", bin_dir) < 0 || check_dir(cli, "--conf-dir", conf_dir) < 0)
		return CLI_CANNOT_TELL;
	count = cli_option(cli, "--force") ? 0 : attached(cli);
	if (count)
		return cli_complain(cli, CLI_PROBLEM,
			"%zu container%s on this host attached through the plugin, and need%s it to be removed: nothing is done. "
			"Remove %s first (`trestle endpoint ls`), or say --force",
			count, count == 1 ? " is" : "s are", count == 1 ? "s" : "", count == 1 ? "it" : "them");
	return cli_cni_uninstall(cli, bin_dir, conf_dir);
}

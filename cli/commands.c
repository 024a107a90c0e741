/* What each command asks of the daemon and how people see the answer. */
#include "cli/cli_internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/json_text.h"
#include "base/number.h"
#include "base/version.h"
#include "cli/view.h"
#include "control/client.h"

#define TIMEOUT_MS 10000
#define JOIN_TIMEOUT_MS 30000 /* the daemon itself gives up earlier, with a better sentence */
#define TOKEN_TEXT_SIZE 512
#define TTL_MAX_S 31536000

/* ---- asking ---- */

static int status_of(const struct err *err)
{
	switch (err->code) {
	case ERR_NOT_FOUND:
	case ERR_EXISTS:
	case ERR_CONFLICT:
	case ERR_EXHAUSTED:
	case ERR_DENIED:
		return CLI_PROBLEM; /* the daemon knows, and the answer is no */
	default:
		return CLI_CANNOT_TELL;
	}
}

/* Steals `body`. NULL: complained, and *ret_status says how to exit. */
static json_t *ask(struct cli *cli, const char *method, const char *path, json_t *body, int timeout_ms, int *ret_status)
{
	struct err err;
	json_t *answer;

	answer = client_ask(cli->socket, method, path, body, timeout_ms, &err);
	json_decref(body);
	if (!answer)
		*ret_status = cli_complain(cli, status_of(&err), "%s", err.text);
	return answer;
}

/* "<base>/<object>" or "<base>?<name>=<object>"; the caller frees. */
static char *make_path(const char *base, const char *between, const char *object)
{
	char *encoded = client_encode(object), *path = alloc_format("%s%s%s", base, between, encoded);

	free(encoded);
	return path;
}

static json_t *get(struct cli *cli, const char *path, int *ret_status)
{
	return ask(cli, "GET", path, NULL, TIMEOUT_MS, ret_status);
}

static json_t *get_object(struct cli *cli, const char *base, const char *between, const char *object, int *ret_status)
{
	char *path = make_path(base, between, object);
	json_t *answer = get(cli, path, ret_status);

	free(path);
	return answer;
}

static json_int_t number_of(json_t *object, const char *member)
{
	return json_integer_value(json_object_get(object, member));
}

static const char *text_of(json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text ? text : "-";
}

static bool any_set(json_t *rows, const char *member)
{
	json_t *row;
	size_t i;

	json_array_foreach(rows, i, row) if (json_is_string(json_object_get(row, member))) return true;
	return false;
}

/* ---- status, version ---- */

static void show_host(FILE *out, json_t *s)
{
	char id[VIEW_CELL_MAX], name[VIEW_CELL_MAX], age[32];

	view_cell(s, "host_id", VIEW_ID, id);
	view_cell(s, "name", VIEW_TEXT, name);
	view_age(number_of(s, "uptime_s"), age);
	fprintf(out, "host       %s, number %" JSON_INTEGER_FORMAT ", id %s\n", name, number_of(s, "hostno"), id);
	fprintf(out, "daemon     %s, %s for %s, %.1f MiB\n", text_of(s, "version"), text_of(s, "state"), age,
		number_of(s, "rss_bytes") / 1048576.0);
	view_cell(s, "cluster_id", VIEW_ID, id);
	fprintf(out, "cluster    %s, epoch %" JSON_INTEGER_FORMAT ", %s\n", id, number_of(s, "epoch"),
		json_is_true(json_object_get(s, "in_step")) ? "in step" : "not in step yet");
	fprintf(out, "underlay   gossip on %s, VXLAN on %s\n", text_of(s, "listen"), text_of(s, "vtep"));
}

static void show_counts(FILE *out, json_t *s)
{
	json_t *members = json_object_get(s, "members"), *endpoints = json_object_get(s, "endpoints");

	fprintf(out,
		"members    %" JSON_INTEGER_FORMAT " alive, %" JSON_INTEGER_FORMAT " suspect, %" JSON_INTEGER_FORMAT
		" dead, %" JSON_INTEGER_FORMAT " left\n",
		number_of(members, "alive"), number_of(members, "suspect"), number_of(members, "dead"),
		number_of(members, "left"));
	fprintf(out, "networks   %" JSON_INTEGER_FORMAT ", pools %" JSON_INTEGER_FORMAT "\n", number_of(s, "networks"),
		number_of(s, "pools"));
	fprintf(out, "endpoints  %" JSON_INTEGER_FORMAT " here, %" JSON_INTEGER_FORMAT " on other hosts\n",
		number_of(endpoints, "local"), number_of(endpoints, "remote"));
}

static void show_drift(FILE *out, json_t *s)
{
	json_t *drift = json_object_get(s, "drift"), *age_ms = json_object_get(s, "last_resync_age_ms");
	json_int_t missing = number_of(drift, "missing"), foreign = number_of(drift, "foreign"),
		   different = number_of(drift, "different");

	fprintf(out, "drift      %" JSON_INTEGER_FORMAT, missing + foreign + different);
	if (missing + foreign + different)
		fprintf(out,
			" (%" JSON_INTEGER_FORMAT " missing, %" JSON_INTEGER_FORMAT " foreign, %" JSON_INTEGER_FORMAT
			" different)",
			missing, foreign, different);
	if (json_is_integer(age_ms))
		fprintf(out, ", compared %.1f s ago\n", json_integer_value(age_ms) / 1000.0);
	else
		fputs(", not compared yet\n", out);
}

static void show_warnings(FILE *out, json_t *warnings)
{
	char line[ERR_TEXT_SIZE];
	json_t *warning;
	size_t i;

	if (!json_array_size(warnings))
		fputs("warnings   none\n", out);
	json_array_foreach(warnings, i, warning)
	{
		snprintf(line, sizeof line, "%s", json_is_string(warning) ? json_string_value(warning) : "?");
		view_printable(line);
		fprintf(out, "warning    %s\n", line);
	}
}

static int run_status(struct cli *cli)
{
	int status = CLI_FINE;
	json_t *answer = get(cli, "/v1/status", &status), *warnings;

	if (!answer)
		return status;
	warnings = json_object_get(answer, "warnings");
	if (json_array_size(warnings))
		status = CLI_PROBLEM;
	if (cli->json) {
		view_json(cli->out, answer);
	} else {
		show_host(cli->out, answer);
		show_counts(cli->out, answer);
		show_drift(cli->out, answer);
		show_warnings(cli->out, warnings);
	}
	json_decref(answer);
	return status;
}

/* What this program is can be told without a daemon, so it comes first. */
static int run_version(struct cli *cli)
{
	const char *commit = *TRESTLE_COMMIT ? TRESTLE_COMMIT : NULL;
	int status = CLI_FINE;
	json_t *answer, *both;

	if (!cli->json)
		fprintf(cli->out, "trestle   %s, API %d%s%s\n", TRESTLE_VERSION, TRESTLE_API, commit ? ", commit " : "",
			commit ? commit : "");
	answer = get(cli, "/v1/version", &status);
	if (cli->json) {
		both = json_pack("{s:{s:s, s:i, s:i, s:s?}, s:O?}", "client", "version", TRESTLE_VERSION, "api", TRESTLE_API,
			"wire", TRESTLE_WIRE, "commit", commit, "daemon", answer);
		view_json(cli->out, both);
		json_decref(both);
	} else if (answer) {
		commit = json_string_value(json_object_get(answer, "commit"));
		fprintf(cli->out, "trestled  %s, API %" JSON_INTEGER_FORMAT ", wire %" JSON_INTEGER_FORMAT "%s%s\n",
			text_of(answer, "version"), number_of(answer, "api"), number_of(answer, "wire"),
			commit ? ", commit " : "", commit ? commit : "");
	}
	json_decref(answer);
	return status;
}

static void show_other_numbers(FILE *out, json_t *rows)
{
	char no[VIEW_CELL_MAX], name[VIEW_CELL_MAX], others[VIEW_CELL_MAX];
	json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		if (json_array_size(json_object_get(row, "other_numbers")) == 0)
			continue;
		view_cell(row, "hostno", VIEW_COUNT, no);
		view_cell(row, "name", VIEW_TEXT, name);
		view_cell(row, "other_numbers", VIEW_LIST, others);
		fprintf(out,
			"host %s was admitted as number %s and as %s, by hosts that did not reach each other; the one that it "
			"uses shows "
			"when it speaks. Gone for good: trestle forget %s --fenced\n",
			name, no, others, no);
	}
}

static int run_members(struct cli *cli)
{
	static const struct view_column columns[] = {
		{"NO", "hostno", VIEW_COUNT},
		{"NAME", "name", VIEW_TEXT},
		{"STATE", "state", VIEW_TEXT},
		{"SINCE", "since_s", VIEW_AGE},
		{"ADDRESS", "address", VIEW_TEXT},
		{"VTEP", "vtep", VIEW_TEXT},
		{"RTT", "rtt_us", VIEW_RTT},
		{"REACH", "reach", VIEW_TEXT},
		{"ENDPOINTS", "endpoints", VIEW_COUNT},
		{"SELF", "self", VIEW_TEXT},
		{NULL, NULL, VIEW_TEXT},
	};
	int status = CLI_FINE;
	json_t *answer = get(cli, "/v1/members", &status), *rows, *row;
	const char *state;
	size_t i;

	if (!answer)
		return status;
	rows = json_object_get(answer, "members");
	json_array_foreach(rows, i, row)
	{
		state = text_of(row, "state");
		if (!strcmp(state, "suspect") || !strcmp(state, "dead"))
			status = CLI_PROBLEM;
	}
	if (cli->json) {
		view_json(cli->out, answer);
	} else {
		view_table(cli->out, columns, rows);
		show_other_numbers(cli->out, rows);
	}
	json_decref(answer);
	return status;
}

/* ---- networks ---- */

static int run_network_ls(struct cli *cli)
{
	static const struct view_column columns[] = {
		{"ID", "id", VIEW_ID},
		{"NAME", "name", VIEW_TEXT},
		{"VNI", "vni", VIEW_COUNT},
		{"MODE", "mode", VIEW_TEXT},
		{"MTU", "mtu", VIEW_COUNT},
		{"HERE", "endpoints_local", VIEW_COUNT},
		{"ALL", "endpoints_total", VIEW_COUNT},
		{"HOSTS", "hosts", VIEW_COUNT},
		{"INTERNAL", "internal", VIEW_TEXT},
		{"POOLS", "pools", VIEW_LIST},
		{NULL, NULL, VIEW_TEXT},
	};
	int status = CLI_FINE;
	json_t *answer = get(cli, "/v1/networks", &status), *rows, *row;
	char cell[VIEW_CELL_MAX];
	size_t i;

	if (!answer)
		return status;
	rows = json_object_get(answer, "networks");
	if (any_set(rows, "conflict"))
		status = CLI_PROBLEM;
	if (cli->json) {
		view_json(cli->out, answer);
	} else {
		view_table(cli->out, columns, rows);
		json_array_foreach(rows, i, row)
		{
			view_cell(row, "conflict", VIEW_TEXT, cell);
			if (json_is_string(json_object_get(row, "conflict")))
				fprintf(cli->out, "conflict: %s\n", cell);
		}
	}
	json_decref(answer);
	return status;
}

static void show_network(FILE *out, json_t *network)
{
	static const struct view_column facts[] = {
		{"name", "name", VIEW_TEXT},
		{"id", "id", VIEW_TEXT},
		{"vni", "vni", VIEW_TEXT},
		{"mode", "mode", VIEW_TEXT},
		{"mtu", "mtu", VIEW_TEXT},
		{"pools", "pools", VIEW_LIST},
		{"internal", "internal", VIEW_TEXT},
		{"pinned", "pinned", VIEW_TEXT},
		{"docker ids", "docker_ids", VIEW_LIST},
		{"conflict", "conflict", VIEW_TEXT},
		{NULL, NULL, VIEW_TEXT},
	};

	view_facts(out, facts, network);
}

static int run_network_create(struct cli *cli)
{
	static const struct {
		const char *option, *member;
		uint32_t min, max; /* max 0: text */
	} map[] = {{"--subnet", "subnet", 0, 0}, {"--subnet6", "subnet6", 0, 0}, {"--mode", "mode", 0, 0},
		{"--mtu", "mtu", 576, 65535}, {"--vni", "vni", 1, 0xffffff}};
	json_t *body = json_object(), *answer;
	int status = CLI_FINE;
	uint64_t number;
	size_t i;

	json_object_set_new(body, "name", json_string(cli->args[0]));
	for (i = 0; i < sizeof map / sizeof *map && !status; i++) {
		const char *value = cli_option(cli, map[i].option);

		if (!value)
			continue;
		if (!map[i].max)
			json_object_set_new(body, map[i].member, json_string(value));
		else if (number_parse(value, map[i].min, map[i].max, &number) < 0)
			status = cli_complain(cli, CLI_CANNOT_TELL, "%s: expected a number from %u to %u, found \"%s\"",
				map[i].option, map[i].min, map[i].max, value);
		else
			json_object_set_new(body, map[i].member, json_integer(number));
	}
	if (cli_option(cli, "--internal"))
		json_object_set_new(body, "internal", json_true());
	if (status) {
		json_decref(body);
		return status;
	}
	answer = ask(cli, "POST", "/v1/networks", body, TIMEOUT_MS, &status);
	if (!answer)
		return status;
	if (cli->json)
		view_json(cli->out, answer);
	else
		show_network(cli->out, answer);
	json_decref(answer);
	return CLI_FINE;
}

static int run_network_rm(struct cli *cli)
{
	char *path = make_path("/v1/networks", "/", cli->args[0]);
	int status = CLI_FINE;
	json_t *answer = ask(cli, "DELETE", path, NULL, TIMEOUT_MS, &status);

	free(path);
	if (!answer)
		return status;
	if (cli->json)
		view_json(cli->out, answer);
	else
		fprintf(cli->out, "network %s removed\n", cli->args[0]);
	json_decref(answer);
	return CLI_FINE;
}

static void show_endpoints(FILE *out, json_t *rows, bool with_network)
{
	static const struct view_column columns[] = {
		{"NETWORK", "network", VIEW_TEXT},
		{"ID", "id", VIEW_ID},
		{"HOST", "host", VIEW_TEXT},
		{"IPV4", "ipv4", VIEW_TEXT},
		{"IPV6", "ipv6", VIEW_TEXT},
		{"MAC", "mac", VIEW_TEXT},
		{"STATE", "state", VIEW_TEXT},
		{"LINK", "link", VIEW_TEXT},
		{"SINCE", "since_s", VIEW_AGE},
		{NULL, NULL, VIEW_TEXT},
	};
	char id[VIEW_CELL_MAX], cell[VIEW_CELL_MAX];
	json_t *row;
	size_t i;

	view_table(out, with_network ? columns : columns + 1, rows);
	json_array_foreach(rows, i, row)
	{
		if (!json_is_string(json_object_get(row, "error")))
			continue;
		view_cell(row, "id", VIEW_ID, id);
		view_cell(row, "error", VIEW_TEXT, cell);
		fprintf(out, "error: endpoint %s: %s\n", id, cell);
	}
}

static int run_network_inspect(struct cli *cli)
{
	static const struct view_column hosts[] = {
		{"NO", "hostno", VIEW_COUNT},
		{"HOST", "name", VIEW_TEXT},
		{"VTEP", "vtep", VIEW_TEXT},
		{"STATE", "state", VIEW_TEXT},
		{"ENDPOINTS", "endpoints", VIEW_COUNT},
		{NULL, NULL, VIEW_TEXT},
	};
	int status = CLI_FINE;
	json_t *answer = get_object(cli, "/v1/networks", "/", cli->args[0], &status), *endpoints;

	if (!answer)
		return status;
	endpoints = json_object_get(answer, "endpoints");
	if (json_is_string(json_object_get(answer, "conflict")) || any_set(endpoints, "error"))
		status = CLI_PROBLEM;
	if (cli->json) {
		view_json(cli->out, answer);
	} else {
		show_network(cli->out, answer);
		fputc('\n', cli->out);
		view_table(cli->out, hosts, json_object_get(answer, "members"));
		fputc('\n', cli->out);
		show_endpoints(cli->out, endpoints, false);
	}
	json_decref(answer);
	return status;
}

/* ---- endpoints, addresses ---- */

static int run_endpoint_ls(struct cli *cli)
{
	const char *network = cli_option(cli, "--network");
	int status = CLI_FINE;
	json_t *answer, *rows;

	answer = network ? get_object(cli, "/v1/endpoints", "?network=", network, &status) : get(cli, "/v1/endpoints", &status);
	if (!answer)
		return status;
	rows = json_object_get(answer, "endpoints");
	if (any_set(rows, "error"))
		status = CLI_PROBLEM;
	if (cli->json)
		view_json(cli->out, answer);
	else
		show_endpoints(cli->out, rows, true);
	json_decref(answer);
	return status;
}

static int run_endpoint_inspect(struct cli *cli)
{
	static const struct view_column facts[] = {
		{"id", "id", VIEW_TEXT},
		{"network", "network", VIEW_TEXT},
		{"network id", "network_id", VIEW_TEXT},
		{"docker network id", "docker_network_id", VIEW_TEXT},
		{"host", "host", VIEW_TEXT},
		{"host number", "hostno", VIEW_TEXT},
		{"vtep", "vtep", VIEW_TEXT},
		{"ipv4", "ipv4", VIEW_TEXT},
		{"ipv6", "ipv6", VIEW_TEXT},
		{"mac", "mac", VIEW_TEXT},
		{"state", "state", VIEW_TEXT},
		{"link", "link", VIEW_TEXT},
		{"since", "since_s", VIEW_AGE},
		{"error", "error", VIEW_TEXT},
		{NULL, NULL, VIEW_TEXT},
	};
	int status = CLI_FINE;
	json_t *answer = get_object(cli, "/v1/endpoints", "/", cli->args[0], &status);

	if (!answer)
		return status;
	if (json_is_string(json_object_get(answer, "error")))
		status = CLI_PROBLEM;
	if (cli->json)
		view_json(cli->out, answer);
	else
		view_facts(cli->out, facts, answer);
	json_decref(answer);
	return status;
}

static void show_pool(FILE *out, json_t *pool)
{
	static const struct view_column shares[] = {
		{"  NO", "hostno", VIEW_COUNT},
		{"HOST", "host", VIEW_TEXT},
		{"HELD", "held", VIEW_COUNT},
		{"FREE", "free", VIEW_COUNT},
		{"FRAGMENTS", "fragments", VIEW_COUNT},
		{"WANTED", "wanted", VIEW_TEXT},
		{NULL, NULL, VIEW_TEXT},
	};
	char network[VIEW_CELL_MAX];

	view_cell(pool, "network", VIEW_TEXT, network);
	fprintf(out,
		"%s, network %s, space %s: %" JSON_INTEGER_FORMAT " addresses, %" JSON_INTEGER_FORMAT
		" reserved, %" JSON_INTEGER_FORMAT " in use here\n",
		text_of(pool, "pool"), network, text_of(pool, "space"), number_of(pool, "size"), number_of(pool, "reserved"),
		number_of(pool, "leases"));
	if (json_array_size(json_object_get(pool, "shares")))
		view_table(out, shares, json_object_get(pool, "shares"));
	else
		fputs("  who holds them is known to the hosts that use the pool; this one does not\n", out);
}

static int run_ipam_show(struct cli *cli)
{
	int status = CLI_FINE;
	json_t *answer, *pools, *pool;
	size_t i;

	answer = cli->arg_count ? get_object(cli, "/v1/ipam", "?pool=", cli->args[0], &status) : get(cli, "/v1/ipam", &status);
	if (!answer)
		return status;
	pools = json_object_get(answer, "pools");
	if (cli->json) {
		view_json(cli->out, answer);
	} else {
		if (!json_array_size(pools))
			fputs("no pools\n", cli->out);
		json_array_foreach(pools, i, pool)
		{
			if (i)
				fputc('\n', cli->out);
			show_pool(cli->out, pool);
		}
	}
	json_decref(answer);
	return CLI_FINE;
}

/* ---- cluster ---- */

static int run_token(struct cli *cli)
{
	const char *ttl = cli_option(cli, "--ttl");
	json_t *body = json_object(), *answer;
	int status = CLI_FINE;
	uint64_t seconds;

	if (ttl && number_parse(ttl, 1, TTL_MAX_S, &seconds) < 0) {
		json_decref(body);
		return cli_complain(cli, CLI_CANNOT_TELL, "--ttl: expected seconds from 1 to %d, found \"%s\"", TTL_MAX_S, ttl);
	}
	if (ttl)
		json_object_set_new(body, "ttl_s", json_integer(seconds));
	answer = ask(cli, "POST", "/v1/token", body, TIMEOUT_MS, &status);
	if (!answer)
		return status;
	/* The token alone, so that $(trestle token) can be passed on. */
	if (cli->json)
		view_json(cli->out, answer);
	else
		fprintf(cli->out, "%s\n", text_of(answer, "token"));
	json_decref(answer);
	return CLI_FINE;
}

/* A token given as an argument shows in `ps`; "-" reads it from standard input. */
static int read_token(struct cli *cli, char buf[TOKEN_TEXT_SIZE])
{
	const char *given = cli->args[0];
	size_t len;

	if (!strcmp(given, "-")) {
		if (!fgets(buf, TOKEN_TEXT_SIZE, cli->in))
			return cli_complain(cli, CLI_CANNOT_TELL, "join: expected a token on standard input, found nothing");
		len = strcspn(buf, " \t\r\n");
		buf[len] = '\0';
	} else {
		len = strlen(given);
		snprintf(buf, TOKEN_TEXT_SIZE, "%s", given);
	}
	if (len >= TOKEN_TEXT_SIZE - 1 || strncmp(buf, "trestle1.", 9) || !json_text_valid(buf))
		return cli_complain(cli, CLI_CANNOT_TELL,
			"join: expected what `trestle token` prints on a member (trestle1....), found something else");
	return CLI_FINE;
}

static int run_join(struct cli *cli)
{
	char token[TOKEN_TEXT_SIZE], cluster[VIEW_CELL_MAX], sponsor[VIEW_CELL_MAX];
	int status = read_token(cli, token);
	json_t *answer;

	if (status)
		return status;
	answer = ask(cli, "POST", "/v1/join", json_pack("{s:s}", "token", token), JOIN_TIMEOUT_MS, &status);
	if (!answer)
		return status;
	if (cli->json) {
		view_json(cli->out, answer);
	} else {
		view_cell(answer, "cluster_id", VIEW_ID, cluster);
		view_cell(answer, "sponsor", VIEW_TEXT, sponsor);
		fprintf(cli->out, "joined cluster %s as host %" JSON_INTEGER_FORMAT ", let in by %s\n", cluster,
			number_of(answer, "hostno"), text_of(answer, "sponsor"));
	}
	json_decref(answer);
	return CLI_FINE;
}

static int run_keys_ls(struct cli *cli)
{
	static const struct view_column columns[] = {
		{"ID", "id", VIEW_TEXT},
		{"GENERATION", "generation", VIEW_COUNT},
		{"STATE", "state", VIEW_TEXT},
		{"AGE", "age_s", VIEW_AGE},
		{"MADE BY", "made_by", VIEW_TEXT},
		{"HOSTS", "hosts", VIEW_COUNT},
		{"SENDING", "sending", VIEW_COUNT},
		{"OF", "of", VIEW_COUNT},
		{NULL, NULL, VIEW_TEXT},
	};
	int status = CLI_FINE;
	json_t *answer = get(cli, "/v1/keys", &status);

	if (!answer)
		return status;
	if (cli->json)
		view_json(cli->out, answer);
	else
		view_table(cli->out, columns, json_object_get(answer, "keys"));
	json_decref(answer);
	return status;
}

/* A call whose answer says no more than that it was done. */
static int call_and_say(struct cli *cli, const char *path, json_t *body, const char *text)
{
	int status = CLI_FINE;
	json_t *answer = ask(cli, "POST", path, body, TIMEOUT_MS, &status);

	if (!answer)
		return status;
	if (cli->json)
		view_json(cli->out, answer);
	else
		fputs(text, cli->out);
	json_decref(answer);
	return CLI_FINE;
}

static int run_keys_rotate(struct cli *cli)
{
	return call_and_say(
		cli, "/v1/keys/rotate", json_object(), "a new key is being handed out; `trestle keys ls` shows how far it is\n");
}

static int run_freeze(struct cli *cli)
{
	const char *reason = cli_option(cli, "--reason");
	json_t *body = json_object();

	if (reason)
		json_object_set_new(body, "reason", json_string(reason));
	return call_and_say(cli, "/v1/freeze", body,
		"frozen: this host reads nothing that others publish and makes nothing new, also after a restart; "
		"containers that run keep their network. `trestle status` says so until `trestle thaw`\n");
}

static int run_thaw(struct cli *cli)
{
	return call_and_say(cli, "/v1/thaw", json_object(),
		"thawed: what changed meanwhile has been read; `trestle status` shows whether all is well\n");
}

static int run_leave(struct cli *cli)
{
	json_t *body = json_object(), *answer;
	int status = CLI_FINE;

	if (cli_option(cli, "--force"))
		json_object_set_new(body, "force", json_true());
	answer = ask(cli, "POST", "/v1/leave", body, JOIN_TIMEOUT_MS, &status);
	if (!answer)
		return status;
	if (cli->json)
		view_json(cli->out, answer);
	else
		fputs("left the cluster\n", cli->out);
	json_decref(answer);
	return CLI_FINE;
}

static json_t *names_of(const char *list)
{
	json_t *names = json_array();

	for (const char *at = list; at && *at;) {
		size_t len = strcspn(at, ",");

		if (len)
			json_array_append_new(names, json_stringn(at, len));
		at += len + (at[len] == ',');
	}
	return names;
}

static int run_forget(struct cli *cli)
{
	const char *assumed = cli_option(cli, "--assume-fenced");
	json_t *body = json_pack("{s:s}", "host", cli->args[0]), *answer, *waiting, *name;
	int status = CLI_FINE;
	bool done;
	size_t i;

	if (cli_option(cli, "--fenced"))
		json_object_set_new(body, "fenced", json_true());
	if (assumed)
		json_object_set_new(body, "assume_fenced", names_of(assumed));
	answer = ask(cli, "POST", "/v1/forget", body, JOIN_TIMEOUT_MS, &status);
	if (!answer)
		return status;
	done = json_is_true(json_object_get(answer, "done"));
	waiting = json_object_get(answer, "waiting_for");
	if (cli->json) {
		view_json(cli->out, answer);
	} else if (done) {
		fprintf(cli->out, "forgot host %s: its addresses went to %s\n", text_of(answer, "host"), text_of(answer, "heir"));
	} else {
		fprintf(cli->out, "host %s is being forgotten by %s; its addresses move when these have answered:\n",
			text_of(answer, "host"), text_of(answer, "heir"));
		json_array_foreach(waiting, i, name)
			fprintf(cli->out, "  %s\n", json_string_value(name) ? json_string_value(name) : "?");
		fprintf(cli->out,
			"say it again to see how far it is; `trestle members` shows which of them are dead: bring those back. "
			"One that is alive may be frozen: `trestle status` there says so, and `trestle thaw` ends it. Or, where "
			"one is stopped for good too:\n  trestle forget %s --fenced --assume-fenced %s\n",
			cli->args[0],
			json_string_value(json_array_get(waiting, 0)) ? json_string_value(json_array_get(waiting, 0)) : "NAME");
	}
	json_decref(answer);
	return done ? CLI_FINE : CLI_PROBLEM;
}

static size_t show_findings(FILE *out, json_t *answer, const char *kind, const char *heading)
{
	json_t *list = json_object_get(answer, kind), *f;
	size_t i;

	json_array_foreach(list, i, f)
		fprintf(out, "%-10s %s of %s: %s\n", heading, text_of(f, "address"), text_of(f, "pool"), text_of(f, "what"));
	return json_array_size(list);
}

static int run_ipam_check(struct cli *cli)
{
	int status = CLI_FINE;
	json_t *answer = get(cli, "/v1/ipam/check", &status), *kernel;
	size_t found;

	if (!answer)
		return status;
	kernel = json_object_get(answer, "kernel");
	found = json_array_size(json_object_get(answer, "leaks")) + json_array_size(json_object_get(answer, "duplicates")) +
		json_array_size(json_object_get(answer, "ghosts"));
	if (cli->json) {
		view_json(cli->out, answer);
	} else {
		show_findings(cli->out, answer, "duplicates", "duplicate");
		show_findings(cli->out, answer, "ghosts", "ghost");
		show_findings(cli->out, answer, "leaks", "leak");
		fprintf(cli->out,
			"pools %" JSON_INTEGER_FORMAT ", leases of this host %" JSON_INTEGER_FORMAT
			", duplicates, ghosts and leaks %zu; kernel at the last comparison: %" JSON_INTEGER_FORMAT
			" missing, %" JSON_INTEGER_FORMAT " foreign\n",
			number_of(answer, "pools"), number_of(answer, "leases"), found, number_of(kernel, "missing"),
			number_of(kernel, "foreign"));
	}
	json_decref(answer);
	return found ? CLI_PROBLEM : CLI_FINE;
}

/* ---- CNI ---- */

/* The question of a runtime's STATUS, for whoever cannot run the plugin: a readiness probe. */
static int run_cni_status(struct cli *cli)
{
	int status = CLI_FINE;
	json_t *answer = cli->arg_count ? get_object(cli, "/v1/cni/status", "?network=", cli->args[0], &status)
					: get(cli, "/v1/cni/status", &status);

	if (!answer)
		return status;
	if (cli->json)
		view_json(cli->out, answer);
	else
		fputs("a container could be attached now\n", cli->out);
	json_decref(answer);
	return CLI_FINE;
}

/* ---- the table ---- */

#define THIS_HOST "This host"
#define CLUSTER "Cluster"
#define NETWORKS "Networks"
#define CNI "CNI"

const struct cli_command cli_commands[] = {
	{THIS_HOST, "status", "", 0, 0, "shows one screen about this host and what wants attention", "trestle status", run_status,
		{{0}}},
	{THIS_HOST, "version", "", 0, 0, "shows the versions of this program and of the daemon", "trestle version -o json",
		run_version, {{0}}},
	{THIS_HOST, "help", "[COMMAND]", 0, 2, "shows this list, or usage and an example of one command",
		"trestle help network create", cli_run_help, {{0}}},
	{THIS_HOST, "freeze", "", 0, 0, "stops acting on what other hosts publish, and making anything new, until `thaw`",
		"trestle freeze --reason 'rows vanish since 3:10, ask Kim'", run_freeze,
		{{"--reason", "TEXT", "for whoever reads `trestle status`"}, {0}}},
	{THIS_HOST, "thaw", "", 0, 0, "ends `freeze` and reads what changed meanwhile", "trestle thaw", run_thaw, {{0}}},
	{THIS_HOST, "uninstall", "--purge", 0, 0, "takes away all that Trestle made on this host", "trestle uninstall --purge",
		cli_run_uninstall,
		{{"--purge", NULL, "links, filters, state, the CNI plugin and its configurations"},
			{"--config", "FILE", "options of the daemon (default /etc/trestle/trestled.conf)"},
			{"--daemon", "FILE", "trestled (default: beside this program)"},
			{"--force", NULL, "also CNI files of others that name the plugin"}, {0}}},
	{CLUSTER, "members", "", 0, 0, "lists the hosts of the cluster", "trestle members", run_members, {{0}}},
	{CLUSTER, "token", "", 0, 0, "prints a token with which hosts can join", "trestle token --ttl 600", run_token,
		{{"--ttl", "SECONDS", "how long it is good for (default 3600)"}, {0}}},
	{CLUSTER, "join", "TOKEN", 1, 1, "joins the cluster of a token; - reads it from standard input",
		"ssh n1 trestle token | trestle join -", run_join, {{0}}},
	{CLUSTER, "leave", "", 0, 0, "leaves the cluster", "trestle leave", run_leave,
		{{"--force", NULL, "also with endpoints on this host"}, {0}}},
	{CLUSTER, "keys ls", "", 0, 0, "lists the cluster's keys and how many hosts have them; never the keys themselves",
		"trestle keys ls", run_keys_ls, {{0}}},
	{CLUSTER, "keys rotate", "", 0, 0, "replaces the cluster's key; tokens made before end with it", "trestle keys rotate",
		run_keys_rotate, {{0}}},
	{CLUSTER, "forget", "HOST", 1, 1, "moves the addresses of a host that is gone for good to this one",
		"trestle forget n3 --fenced", run_forget,
		{{"--fenced", NULL, "your word that it is powered off or wiped"},
			{"--assume-fenced", "HOST,...", "these are stopped for good too: do not wait for them"}, {0}}},
	{NETWORKS, "network ls", "", 0, 0, "lists the networks of the cluster", "trestle network ls", run_network_ls, {{0}}},
	{NETWORKS, "network create", "NAME", 1, 1, "creates a network, or adds subnets to the one that is there",
		"trestle network create app --subnet 10.9.0.0/24 --mtu 1450", run_network_create,
		{{"--subnet", "CIDR", "IPv4 pool (default: the first request decides)"}, {"--subnet6", "CIDR", "IPv6 pool"},
			{"--mode", "l2|l3", "one Ethernet segment, or routed by the hosts, for CNI (default: l2)"},
			{"--mtu", "N", "of the containers' links (default: the path's)"},
			{"--vni", "N", "VXLAN id (default: chosen)"}, {"--internal", NULL, "no way out of the network"}, {0}}},
	{NETWORKS, "network rm", "NAME", 1, 1, "removes a network that nobody uses", "trestle network rm app", run_network_rm,
		{{0}}},
	{NETWORKS, "network inspect", "NAME", 1, 1, "shows a network with its hosts and endpoints", "trestle network inspect app",
		run_network_inspect, {{0}}},
	{NETWORKS, "endpoint ls", "", 0, 0, "lists the endpoints of the cluster", "trestle endpoint ls --network app",
		run_endpoint_ls, {{"--network", "NAME", "only those of this network"}, {0}}},
	{NETWORKS, "endpoint inspect", "ID|ADDRESS", 1, 1, "shows one endpoint", "trestle endpoint inspect 10.9.0.5",
		run_endpoint_inspect, {{0}}},
	{NETWORKS, "ipam show", "[CIDR]", 0, 1, "shows the pools and which host holds how much of them",
		"trestle ipam show 10.9.0.0/24", run_ipam_show, {{0}}},
	{NETWORKS, "ipam check", "", 0, 0, "compares leases, endpoints and the kernel of this host", "trestle ipam check",
		run_ipam_check, {{0}}},
	{CNI, "cni install", "", 0, 0, "puts the CNI plugin and a configuration that names it where runtimes look",
		"trestle cni install --network pods --subnet 10.42.0.0/16 --mode l3 --portmap", cli_run_cni_install,
		{{"--bin-dir", "DIR", "of the plugin (default /opt/cni/bin)"},
			{"--conf-dir", "DIR", "of the configuration (default /etc/cni/net.d)"},
			{"--network", "NAME", "the network that containers get (default trestle)"},
			{"--subnet", "CIDR", "its IPv4 pool, if it is not there yet"}, {"--subnet6", "CIDR", "its IPv6 pool"},
			{"--mode", "l2|l3", "its mode"},
			{"--cni-version", "V", "0.4.0, 1.0.0 (default) or 1.1.0, which old runtimes refuse"},
			{"--portmap", NULL, "lets the plugin portmap publish ports"},
			{"--from", "FILE", "the plugin (default: trestle-cni beside this program)"},
			{"--wait", "SECONDS", "for the daemon, before the configuration is written"},
			{"--force", NULL, "replaces files of others and changed ones"}, {0}}},
	{CNI, "cni status", "[NETWORK]", 0, 1, "tells whether a container could be attached now", "trestle cni status pods",
		run_cni_status, {{0}}},
	{CNI, "cni uninstall", "", 0, 0, "takes away what `cni install` wrote", "trestle cni uninstall", cli_run_cni_uninstall,
		{{"--bin-dir", "DIR", "of the plugin (default /opt/cni/bin)"},
			{"--conf-dir", "DIR", "of the configurations (default /etc/cni/net.d)"},
			{"--force", NULL, "also configurations of others that name the plugin, and with containers"}, {0}}},
	{NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, {{0}}},
};

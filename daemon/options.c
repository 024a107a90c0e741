/* Options as one table: name, meaning, default, how the text is read. The help text, the file and the flags all come from it. */
#include "daemon/options.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/file.h"
#include "base/number.h"

#define CONFIG_FILE_MAX 65536
#define NFT_TABLE_L3 "-l3" /* driver/vxlan/vxlan.c */

struct option_row {
	const char *name;
	const char *argument;
	const char *fallback; /* NULL: found out by options_read */
	const char *help;
	int (*read)(struct options *o, const char *text, struct err *err);
};

static int copy_text(char *buf, size_t size, const char *text, struct err *err)
{
	if (!*text || strlen(text) >= size)
		return err_set(err, ERR_INVALID, "expected 1 to %zu characters, found %zu", size - 1, strlen(text));
	snprintf(buf, size, "%s", text);
	return 0;
}

#define TEXT_OPTION(field)                                                                                                       \
	static int read_##field(struct options *o, const char *text, struct err *err)                                            \
	{                                                                                                                        \
		return copy_text(o->field, sizeof(o->field), text, err);                                                         \
	}
TEXT_OPTION(state_dir)
TEXT_OPTION(run_dir)
TEXT_OPTION(plugin_socket)
TEXT_OPTION(control_socket)
TEXT_OPTION(fabric)
TEXT_OPTION(boot_id)
TEXT_OPTION(machine_id)
TEXT_OPTION(machine_uuid)
TEXT_OPTION(adopt)
TEXT_OPTION(join)

static int read_name(struct options *o, const char *text, struct err *err)
{
	for (const char *p = text; *p; p++)
		if (!isalnum((unsigned char)*p) && *p != '-' && *p != '.' && *p != '_')
			return err_set(err, ERR_INVALID, "a host name has letters, digits, '-', '.' and '_', found '%c'", *p);
	return copy_text(o->name, sizeof(o->name), text, err);
}

/* What nft(8) reads back without quotes, so that the table can be looked at and deleted by hand. Another with "-l3" behind the
 * name is ours too. */
static int read_nft_table(struct options *o, const char *text, struct err *err)
{
	const size_t len = strlen(text), ending = sizeof(NFT_TABLE_L3) - 1;

	if (*text && !isalpha((unsigned char)*text) && *text != '_')
		return err_set(err, ERR_INVALID, "a table's name begins with a letter or '_', found '%c'; choose another", *text);
	for (const char *p = text; *p; p++)
		if (!isalnum((unsigned char)*p) && *p != '-' && *p != '.' && *p != '_')
			return err_set(err, ERR_INVALID,
				"a table's name has letters, digits, '-', '.' and '_', found '%c'; choose another", *p);
	if (len >= ending && strcmp(text + len - ending, NFT_TABLE_L3) == 0)
		return err_set(err, ERR_INVALID,
			"expected a name that does not end in '" NFT_TABLE_L3
			"', which mode l3 has behind the name of its table; "
			"leave that away");
	return copy_text(o->nft_table, sizeof(o->nft_table), text, err);
}

static bool is_multicast(const struct ip *ip)
{
	return ip->family == 4 ? ip->bytes[0] >> 4 == 0xe : ip->bytes[0] == 0xff;
}

/* "192.0.2.1", "192.0.2.1:7956", "[2001:db8::1]:7956", "2001:db8::1" */
static int read_listen(struct options *o, const char *text, struct err *err)
{
	char host[IP_TEXT_SIZE + 2];
	const char *port_text = NULL, *close = strchr(text, ']');
	size_t len = strlen(text);
	uint64_t port = GOSSIP_PORT_DEFAULT;
	struct ip ip;

	if (*text == '[' && close) {
		len = (size_t)(close - text) - 1;
		if (close[1] && close[1] != ':')
			return err_set(err, ERR_INVALID, "expected nothing or :PORT behind ']', found '%s'", close + 1);
		port_text = close[1] ? close + 2 : NULL;
		text++;
	} else if (strchr(text, ':') && strchr(text, ':') == strrchr(text, ':')) {
		port_text = strchr(text, ':') + 1;
		len = (size_t)(port_text - text) - 1;
	}
	if (len >= sizeof(host))
		return err_set(err, ERR_INVALID, "expected ADDRESS or ADDRESS:PORT");
	memcpy(host, text, len);
	host[len] = 0;
	if (ip_parse(host, &ip, err) < 0)
		return -1;
	if (ip_number(&ip) == 0 || is_multicast(&ip))
		return err_set(err, ERR_INVALID, "%s is no address at which other hosts reach this one", host);
	if (port_text && number_parse(port_text, 1, 65535, &port) < 0)
		return err_set(err, ERR_INVALID, "port '%s' is not in 1..65535", port_text);
	o->listen.ip = ip;
	o->listen.port = (uint16_t)port;
	return 0;
}

static int read_vtep(struct options *o, const char *text, struct err *err)
{
	struct ip ip;

	if (ip_parse(text, &ip, err) < 0)
		return -1;
	if (ip_number(&ip) == 0 || is_multicast(&ip))
		return err_set(err, ERR_INVALID, "%s is no address at which other hosts reach this one", text);
	o->vtep = ip;
	return 0;
}

static int read_vxlan_port(struct options *o, const char *text, struct err *err)
{
	uint64_t port;
	if (number_parse(text, 1, 65535, &port) < 0)
		return err_set(err, ERR_INVALID, "expected a port in 1..65535");
	o->vxlan_port = (uint16_t)port;
	return 0;
}

static int read_supernet(struct prefix *ret, uint8_t family, const char *text, struct err *err)
{
	struct prefix prefix;
	if (prefix_parse(text, &prefix, err) < 0)
		return -1;
	if (prefix.ip.family != family)
		return err_set(err, ERR_INVALID, "expected an IPv%u prefix", family);
	*ret = prefix_masked(&prefix);
	return 0;
}

static int read_supernet4(struct options *o, const char *text, struct err *err)
{
	return read_supernet(&o->supernet4, 4, text, err);
}

static int read_supernet6(struct options *o, const char *text, struct err *err)
{
	return read_supernet(&o->supernet6, 6, text, err);
}

static int read_pool_length4(struct options *o, const char *text, struct err *err)
{
	uint64_t n;
	if (number_parse(text, 8, 30, &n) < 0)
		return err_set(err, ERR_INVALID, "expected a prefix length in 8..30");
	o->pool_length4 = (unsigned)n;
	return 0;
}

static int read_lease_grace(struct options *o, const char *text, struct err *err)
{
	uint64_t n;
	if (number_parse(text, 1, 86400, &n) < 0)
		return err_set(err, ERR_INVALID, "expected seconds in 1..86400");
	o->lease_grace_s = (unsigned)n;
	return 0;
}

static int read_log_level(struct options *o, const char *text, struct err *err)
{
	if (!log_level_parse(text, &o->log_level))
		return err_set(err, ERR_INVALID, "expected error, warn, info or debug");
	return 0;
}

static const struct option_row rows[] = {
	{"name", "NAME", NULL, "what people call this host (default: the host name)", read_name},
	{"listen", "ADDRESS[:PORT]", NULL,
		"where other hosts reach this daemon, UDP and TCP; all hosts of a cluster IPv4, or all IPv6 (default: the "
		"address of the "
		"default route, IPv4's if there is one, port 7956)",
		read_listen},
	{"vtep", "ADDRESS", NULL, "where other hosts send VXLAN; of one family on all hosts (default: the address of --listen)",
		read_vtep},
	{"vxlan-port", "PORT", "4789", "UDP port of VXLAN, the same on all hosts", read_vxlan_port},
	{"state-dir", "DIR", "/var/lib/trestle", "what must survive a reboot: identity, custody of addresses, networks",
		read_state_dir},
	{"run-dir", "DIR", "/run/trestle", "what a reboot makes meaningless: endpoints and leases", read_run_dir},
	{"plugin-socket", "PATH", "/run/docker/plugins/trestle.sock", "where Docker finds the drivers", read_plugin_socket},
	{"control-socket", "PATH", NULL, "where the trestle command finds the daemon (default: RUN-DIR/trestled.sock)",
		read_control_socket},
	{"fabric", "PATH", "/run/netns/trestle", "network namespace of bridges and vxlan devices", read_fabric},
	{"nft-table", "NAME", "trestle", "name of our nftables table; mode l3's has " NFT_TABLE_L3 " behind it", read_nft_table},
	{"supernet", "CIDR", "10.192.0.0/10", "IPv4 pools asked for without a subnet come from here", read_supernet4},
	{"supernet6", "CIDR", "fd74:7265:7374::/48", "IPv6 pools asked for without a subnet come from here, /64 each",
		read_supernet6},
	{"pool-length", "N", "24", "prefix length of such an IPv4 pool", read_pool_length4},
	{"lease-grace", "SECONDS", "60", "collect addresses and links that no endpoint uses for so long", read_lease_grace},
	{"join", "TOKEN", NULL, "join this cluster at start, if this host is alone", read_join},
	{"machine-id", "TEXT", NULL, "what tells this machine from a copy of it (default: /etc/machine-id)", read_machine_id},
	{"machine-uuid", "TEXT", NULL,
		"likewise, for machines made from one image (default: the product UUID that the firmware tells, DMI)",
		read_machine_uuid},
	{"adopt", "MACHINE-ID", NULL,
		"go on with state that was written on the machine with this id or UUID, which is gone for good", read_adopt},
	{"boot-id", "TEXT", NULL, "what changes with a reboot (default: the kernel's boot id)", read_boot_id},
	{"log-level", "LEVEL", "info", "error, warn, info or debug", read_log_level},
};
#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

static const struct option_row *find_row(const char *name, size_t len)
{
	for (size_t i = 0; i < ROW_COUNT; i++)
		if (strlen(rows[i].name) == len && memcmp(rows[i].name, name, len) == 0)
			return &rows[i];
	return NULL;
}

static int set_row(struct options *o, const char *name, size_t name_len, const char *value, const char *where, struct err *err)
{
	const struct option_row *row = find_row(name, name_len);

	if (!row)
		return err_set(
			err, ERR_INVALID, "%s: unknown option '%.*s'; trestled --help lists them", where, (int)name_len, name);
	if (!value)
		return err_set(err, ERR_INVALID, "%s: option '%s' needs %s", where, row->name, row->argument);
	if (row->read(o, value, err) < 0)
		return err_prefix(err, "%s: option '%s', value '%s'", where, row->name, value);
	return 0;
}

/* "name = value" lines; '#' starts a comment line. */
static int read_line(struct options *o, char *line, const char *where, struct err *err)
{
	char *equals, *value, *end;
	size_t len;

	line += strspn(line, " \t\r");
	if (!*line || *line == '#')
		return 0;
	equals = strchr(line, '=');
	if (!equals)
		return err_set(err, ERR_INVALID, "%s: expected 'name = value', found '%s'", where, line);
	len = (size_t)(equals - line);
	while (len && isspace((unsigned char)line[len - 1]))
		len--;
	value = equals + 1 + strspn(equals + 1, " \t");
	end = value + strlen(value);
	while (end > value && isspace((unsigned char)end[-1]))
		*--end = 0;
	return set_row(o, line, len, value, where, err);
}

static int read_file(struct options *o, const char *path, bool must_exist, struct err *err)
{
	char *data, *next;
	size_t len;
	unsigned number = 0;
	int result = 0;

	if (!must_exist && access(path, F_OK) != 0)
		return 0;
	if (file_read(path, CONFIG_FILE_MAX, &data, &len, err) < 0)
		return -1;
	if (strlen(data) != len) /* what is behind it would be ignored */
		result = err_set(err, ERR_INVALID, "%s: expected text, found a NUL byte at %zu", path, strlen(data));
	for (char *line = data; line && result == 0; line = next) {
		char where[OPTIONS_PATH_MAX + 16];
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		snprintf(where, sizeof(where), "%s:%u", path, ++number);
		result = read_line(o, line, where, err);
	}
	free(data);
	return result;
}

/* "--name value" or "--name=value" */
static int read_arguments(struct options *o, int argc, char **argv, struct err *err)
{
	for (int i = 1; i < argc; i++) {
		const char *name = argv[i], *equals = strchr(name, '=');
		const char *value = equals ? equals + 1 : (i + 1 < argc ? argv[i + 1] : NULL);
		size_t len;

		if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
			o->help = true;
			continue;
		}
		if (strcmp(name, "--version") == 0) {
			o->version = true;
			continue;
		}
		if (strcmp(name, "--prepare") == 0) {
			o->prepare = true;
			continue;
		}
		if (strcmp(name, "--purge") == 0) {
			o->purge = true;
			continue;
		}
		if (strncmp(name, "--", 2) != 0)
			return err_set(err, ERR_INVALID, "unexpected argument '%s'; trestled takes only --options", name);
		name += 2;
		len = equals ? (size_t)(equals - name) : strlen(name);
		if (len == 6 && memcmp(name, "config", 6) == 0) {
			if (!value)
				return err_set(err, ERR_INVALID, "command line: option 'config' needs FILE");
			i += equals ? 0 : 1; /* read before the flags, by options_read */
			continue;
		}
		if (set_row(o, name, len, value, "command line", err) < 0)
			return -1;
		i += equals ? 0 : 1;
	}
	return 0;
}

static const char *config_argument(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], "--config=", 9) == 0)
			return argv[i] + 9;
		if (strcmp(argv[i], "--config") == 0 && i + 1 < argc)
			return argv[i + 1];
	}
	return NULL;
}

/* Where the socket's packets to `to` would come from; it is connected, which sends nothing. */
static int source_address(const struct sockaddr *to, struct sockaddr *own, socklen_t len)
{
	int fd = socket(to->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0), result;

	if (fd < 0)
		return -1;
	result = connect(fd, to, len) < 0 ? -1 : getsockname(fd, own, &len);
	close(fd);
	return result;
}

/* The source address of the default route to the documentation addresses; IPv4's where there are both. */
static int default_address(struct ip *ret_ip, struct err *err)
{
	struct sockaddr_in to4 = {.sin_family = AF_INET, .sin_port = htons(9)}, own4;
	struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_port = htons(9)}, own6;

	to4.sin_addr.s_addr = htonl(0xc0000201); /* 192.0.2.1 */
	if (source_address((struct sockaddr *)&to4, (struct sockaddr *)&own4, sizeof(to4)) == 0) {
		*ret_ip = ip_from_number(4, ntohl(own4.sin_addr.s_addr));
		return 0;
	}
	inet_pton(AF_INET6, "2001:db8::1", &to6.sin6_addr);
	if (source_address((struct sockaddr *)&to6, (struct sockaddr *)&own6, sizeof(to6)) < 0)
		return err_set(err, ERR_INVALID, "no default route to take an address from: name one with --listen ADDRESS");
	*ret_ip = (struct ip){.family = 6};
	memcpy(ret_ip->bytes, &own6.sin6_addr, sizeof(own6.sin6_addr));
	return 0;
}

static int kernel_boot_id(char *buf, size_t size, struct err *err)
{
	char *data;
	size_t len;

	if (file_read("/proc/sys/kernel/random/boot_id", 128, &data, &len, err) < 0)
		return -1;
	data[strcspn(data, "\n")] = 0;
	snprintf(buf, size, "%s", data);
	free(data);
	return 0;
}

/* A machine without one cannot be told from its copy: that is no error. */
static void first_line(const char *path, char *buf, size_t size)
{
	char *data;
	size_t len;

	if (file_read(path, 128, &data, &len, NULL) < 0)
		return;
	data[strcspn(data, "\n")] = 0;
	snprintf(buf, size, "%s", data);
	free(data);
}

/* The kernel takes any bytes for a host's name. */
static int default_name(struct options *o, struct err *err)
{
	char name[HOST_NAME_MAX + 1] = "";

	if (gethostname(name, sizeof(name)) < 0 || read_name(o, name, err) < 0)
		return err_prefix(err, "this host's own name, \"%s\", is none for a cluster, give one with --name", name);
	return 0;
}

static int fill_defaults(struct options *o, struct err *err)
{
	char text[PREFIX_TEXT_SIZE];

	if (!o->name[0] && default_name(o, err) < 0)
		return -1;
	if (!o->listen.port)
		o->listen.port = GOSSIP_PORT_DEFAULT;
	if (!o->purge && !ip_is_set(&o->listen.ip) && default_address(&o->listen.ip, err) < 0)
		return -1;
	if (!ip_is_set(&o->vtep))
		o->vtep = o->listen.ip;
	if (!o->control_socket[0] && (size_t)snprintf(o->control_socket, sizeof(o->control_socket), "%s/trestled.sock",
					     o->run_dir) >= sizeof(o->control_socket))
		return err_set(err, ERR_INVALID, "option 'run-dir', value '%.60s...': too long for the control socket in it",
			o->run_dir);
	if (!o->machine_id[0])
		first_line("/etc/machine-id", o->machine_id, sizeof(o->machine_id));
	if (!o->machine_uuid[0])
		first_line("/sys/class/dmi/id/product_uuid", o->machine_uuid, sizeof(o->machine_uuid));
	if (!o->boot_id[0] && kernel_boot_id(o->boot_id, sizeof(o->boot_id), err) < 0)
		return -1;
	if (o->supernet4.length > o->pool_length4)
		return err_set(err, ERR_INVALID,
			"option 'pool-length', value '%u': such a pool does not fit option 'supernet', value '%s'",
			o->pool_length4, prefix_format(&o->supernet4, text));
	if (o->supernet6.length > o->pool_length6)
		return err_set(err, ERR_INVALID, "option 'supernet6', value '%s': its pools have /%u, which does not fit",
			prefix_format(&o->supernet6, text), o->pool_length6);
	return 0;
}

int options_read(struct options *ret_options, int argc, char **argv, struct err *err)
{
	struct options *o = calloc(1, sizeof(*o));
	const char *config = config_argument(argc, argv);
	int result = -1;

	if (!o)
		return err_set(err, ERR_INTERNAL, "out of memory");
	o->pool_length6 = 64;
	for (size_t i = 0; i < ROW_COUNT; i++)
		if (rows[i].fallback && rows[i].read(o, rows[i].fallback, err) < 0)
			goto out;
	if (read_file(o, config ? config : OPTIONS_FILE_DEFAULT, config != NULL, err) < 0 ||
		read_arguments(o, argc, argv, err) < 0)
		goto out;
	if (!o->help && !o->version && !o->prepare && fill_defaults(o, err) < 0)
		goto out;
	*ret_options = *o;
	result = 0;
out:
	free(o);
	return result;
}

void options_help(void)
{
	printf("trestled: joins the containers of many hosts into one network. One per host, as root.\n\n"
	       "usage: trestled [--config FILE] [--OPTION VALUE ...]\n"
	       "       trestled --prepare [--fabric PATH]   makes that namespace, which may take more rights than the rest, and "
	       "ends\n"
	       "       trestled --purge [--OPTION VALUE ...]    takes everything of ours away, and ends; after `trestle "
	       "leave`\n\n");
	for (size_t i = 0; i < ROW_COUNT; i++) {
		printf("  --%s %s\n      %s", rows[i].name, rows[i].argument, rows[i].help);
		if (rows[i].fallback)
			printf(" (default: %s)", rows[i].fallback);
		printf("\n");
	}
	printf("  --config FILE\n      the same names as 'name = value' lines (default: %s)\n\n"
	       "example: trestled --listen 192.0.2.1\n"
	       "The first host needs nothing more. On it, `trestle token` prints what the next host joins with: `trestle join "
	       "TOKEN`.\n",
		OPTIONS_FILE_DEFAULT);
}

/* What trestled can be told: flags, and the same names in a file. Flag beats file beats default. */
#ifndef DAEMON_OPTIONS_H
#define DAEMON_OPTIONS_H

#include <stdbool.h>

#include "base/err.h"
#include "base/log.h"
#include "gossip/gossip.h"

#define OPTIONS_PATH_MAX 4096
#define OPTIONS_FILE_DEFAULT "/etc/trestle/trestled.conf"

struct options {
	char name[GOSSIP_NAME_MAX + 1]; /* default: the host name */
	struct gossip_addr listen;	/* default: the address of the default route, port 7956 */
	struct ip vtep;			/* default: listen's */
	uint16_t vxlan_port;		/* UDP */
	char state_dir[OPTIONS_PATH_MAX];
	char run_dir[OPTIONS_PATH_MAX];
	char plugin_socket[OPTIONS_PATH_MAX];
	char control_socket[OPTIONS_PATH_MAX]; /* default: RUN_DIR/trestled.sock */
	char fabric[OPTIONS_PATH_MAX];	       /* network namespace file */
	char nft_table[29];		       /* room for "-l3" in the 31 characters that the driver takes */
	char machine_id[64];		       /* default: /etc/machine-id; "" = this machine has none */
	char machine_uuid[64];		       /* default: of the firmware; likewise */
	char adopt[64];			       /* go on with the state of the machine with this id */
	char boot_id[64];		       /* default: the kernel's */
	char join[512];			       /* token; used only while this host belongs to no cluster of several */
	struct prefix supernet4, supernet6;    /* pools asked for without a subnet come from here */
	unsigned pool_length4, pool_length6;
	unsigned lease_grace_s; /* an address or link that no endpoint uses for so long is collected */
	enum log_level log_level;
	bool help, version;
	bool prepare; /* only make the fabric */
	bool purge;   /* only take everything of ours away */
};

/* Reads the file (missing is fine unless named by --config) and the arguments. Each error names the option, the value and what
 * would do. */
int options_read(struct options *ret_options, int argc, char **argv, struct err *err);
void options_help(void);

#endif

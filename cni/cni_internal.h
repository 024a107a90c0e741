/* Shared by the files of the plugin. */
#ifndef CNI_CNI_INTERNAL_H
#define CNI_CNI_INTERNAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/err.h"
#include "base/jd.h"
#include "cni/cni.h"
#include "control/limits.h"

#define CNI_STDIN_MAX (4u * 1024 * 1024)
#define CNI_IFNAME_MAX 15

/* ---- error.c ---- */

/* Codes below 100 are the specification's. */
enum cni_code {
	CNI_OK = 0,
	CNI_VERSION = 1, /* version not supported, or verb not in that version */
	CNI_FIELD = 2,	 /* unsupported field in the configuration */
	CNI_UNKNOWN = 3, /* no such attachment: nothing to clean up */
	CNI_ENVIRONMENT = 4,
	CNI_IO = 5,
	CNI_DECODE = 6,
	CNI_CONFIG = 7,
	CNI_NETNS = 8, /* no namespace, or the plugin's own */
	CNI_TRY_LATER = 11,
	CNI_NOT_READY = 50,  /* STATUS: ADD cannot be served */
	CNI_LIMITED = 51,    /* STATUS: the same, and what exists may suffer as well */
	CNI_EXHAUSTED = 100, /* no free address */
	CNI_ADDRESS = 101,   /* the address asked for is taken or outside the pool */
	CNI_IFNAME = 102,    /* the namespace has an interface of that name */
	CNI_DAEMON = 103,    /* the daemon's answer makes no sense */
	CNI_ATTACHED = 104,  /* this container has that attachment already */
	CNI_KERNEL = 105,
	CNI_DIFFERS = 106,  /* CHECK: the kernel or the daemon has it otherwise */
	CNI_DELEGATE = 107, /* the IPAM plugin that the configuration names could not be run */
};

struct cni_error {
	unsigned code;
	char msg[ERR_TEXT_SIZE + 128];
	char details[1024]; /* "" = none */
};

/* All return -1. The first error stays. */
int cni_fail(struct cni_error *e, unsigned code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int cni_fail_err(struct cni_error *e, unsigned code, const struct err *err);
void cni_details(struct cni_error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints the error object; version may be NULL. */
void cni_print_error(FILE *out, const struct cni_error *e, const char *version);

/* ---- version.c ---- */

enum cni_version { /* by format, in order */
	CNI_0_1_0,
	CNI_0_2_0,
	CNI_0_3_0,
	CNI_0_3_1,
	CNI_0_4_0,
	CNI_1_0_0,
	CNI_1_1_0,
	CNI_VERSION_COUNT
};

const char *cni_version_name(enum cni_version version);
/* Exact match with a supported one. */
bool cni_version_find(const char *text, enum cni_version *ret_version);
/* Dotted integers, so that "0.4" is before 0.4.1. False: no version at all. */
bool cni_version_parse(const char *text, unsigned ret_parts[3]);
json_t *cni_version_list(void);

/* ---- env.c ---- */

enum cni_verb { CNI_ADD, CNI_DEL, CNI_CHECK, CNI_GC, CNI_STATUS, CNI_VERB_VERSION, CNI_VERB_UNKNOWN };

struct cni_env { /* borrowed from the environment; NULL when missing or empty */
	enum cni_verb verb;
	const char *command, *container_id, *netns, *ifname, *args, *path;
	bool same_netns_allowed; /* CNI_NETNS_OVERRIDE */
};

const char *cni_env_get(char *const *envp, const char *name);
int cni_env_read(char *const *envp, struct cni_env *ret_env, struct cni_error *e);
bool cni_ifname_valid(const char *name);
bool cni_name_valid(const char *name, size_t max); /* container ids and network names */

/* ---- config.c ---- */

/* The configuration. Strings are borrowed from `root`. */
struct cni_config {
	json_t *root;
	const char *name;    /* of the CNI network */
	const char *version; /* as given, "0.1.0" when missing */
	const char *type;    /* NULL when missing */
	enum cni_version format;

	bool as_ipam;			     /* we are the IPAM plugin of another one */
	const char *delegate;		     /* ipam.type when it is another plugin; NULL: our own pools */
	const char *network;		     /* of Trestle */
	const char *subnet, *subnet6, *mode; /* NULL when missing */
	json_t *routes;			     /* of our ipam object; NULL: none */
	const char *socket, *run_dir;
	int64_t mtu;	 /* 0: the path's */
	bool no_gateway; /* isDefaultGateway is there, and false */
};

/* Step 4 of a run: JSON with a valid name. Whatever the verb, this much must hold. */
int cni_config_parse(const char *text, size_t len, struct cni_config *ret_config, struct cni_error *e);
/* The rest, for all verbs but DEL. */
int cni_config_check(struct cni_config *config, const char *program, struct cni_error *e);
/* What DEL needs. It must work with a configuration that was changed since ADD, so nothing here can fail. */
void cni_config_lenient(struct cni_config *config, const char *program);
/* Any JSON text within the limits of jansson; an integer too large for 64 bits becomes a real, since a member that nobody reads
 * may hold one. NULL with err. */
json_t *cni_json_load(const char *text, size_t len, const char *what, struct err *err);

/* ---- request.c: what is asked for beside the configuration ---- */

struct cni_request {
	json_t *ips;	 /* texts, no lengths; NULL: any */
	const char *mac; /* NULL: any */
	json_t *labels, *aliases;
	const char *name; /* NULL: none */
	json_t *dns;	  /* runtimeConfig.dns in the form of a result; NULL: none */
	char *storage;	  /* the texts of CNI_ARGS that are pointed to */
	char mac_text[MAC_TEXT_SIZE], name_text[CONTROL_CNI_LABEL_MAX + 1];
};

/* runtimeConfig, args.cni and CNI_ARGS. */
int cni_request_read(
	const struct cni_config *config, const struct cni_env *env, struct cni_request *ret_request, struct cni_error *e);
void cni_request_fini(struct cni_request *request);
/* The object with the given member names where they differ in case only (some runtimes write Go's field names). New reference. */
json_t *cni_fold_keys(json_t *object, const char *const *names);

/* ---- result.c: results, kept in the form of the newest version ---- */

struct cni_result {
	json_t *interfaces, *ips, *routes; /* arrays */
	json_t *dns;			   /* object; may be empty */
};

void cni_result_init(struct cni_result *result);
void cni_result_fini(struct cni_result *result);
/* Any version's form, checked. `what` begins the path of errors ("prevResult"); `fallback` counts when it names no version. */
int cni_result_parse(json_t *object, const char *what, const char *fallback, struct cni_result *ret_result, struct cni_error *e);
/* Puts `ours` behind `result`, moving the indices of its interfaces; its dns counts when it has one. */
void cni_result_append(struct cni_result *result, const struct cni_result *ours);
/* In the form of a version. `abbreviated`: what IPAM plugins answer, without interfaces. New reference or NULL: more than the
 * version can say. */
json_t *cni_result_print(const struct cni_result *result, enum cni_version version, bool abbreviated, struct cni_error *e);
/* The addresses ("ip/len" texts) and the MAC of an interface of the result; ret_mac borrowed, NULL when it has none.
 * False: no interface of that name in a namespace. */
bool cni_result_find(const struct cni_result *result, const char *ifname, json_t **ret_ips, const char **ret_mac);
/* A dns object of a configuration or result: {"nameservers", "domain", "search", "options"}. NULL: wrong, e says why. */
json_t *cni_dns_parse(json_t *object, const char *path, struct cni_error *e);

/* ---- delegate.c: other IPAM plugins ---- */

struct cni_input { /* everything that one run was given */
	const struct cni_streams *streams;
	struct cni_env env;
	struct cni_config config;
	char *text; /* stdin as it came */
	size_t len;
};

/* Runs the IPAM plugin of the configuration with our environment, `command` in it, and our stdin. ret_answer (may be NULL): new
 * reference, for ADD. Its error object becomes ours. */
int cni_delegate(const struct cni_input *input, const char *command, json_t **ret_answer, struct cni_error *e);

/* ---- netns.c ---- */

/* ADD and CHECK need a live namespace that is not ours; DEL takes what is there: ret_fd is -1 when there is none. */
int cni_netns_open(const struct cni_env *env, int *ret_fd, struct cni_error *e);
enum cni_link { CNI_LINK_ABSENT, CNI_LINK_OURS, CNI_LINK_FOREIGN };
/* Looks at the interface in the namespace: ours by the tag in its alias, or by `mac` (may be NULL). */
int cni_link_look(int netns_fd, const char *ifname, const char *mac, enum cni_link *ret_link, struct err *err);
/* Takes the interface away if it is ours. */
int cni_link_remove(int netns_fd, const char *ifname, const char *mac, struct err *err);

/* ---- tombstone.c ---- */

/* Leaves word for a daemon that does not run: DIR/tombstones/... says what to free. Overwrites an equal one. */
int cni_tombstone_write(const char *run_dir, const char *config, const char *container_id, const char *ifname, struct err *err);

/* ---- verbs.c, ipam.c ---- */

int cni_do_add(struct cni_input *input, json_t **ret_answer, struct cni_error *e);
int cni_do_del(struct cni_input *input, struct cni_error *e);
int cni_do_check(struct cni_input *input, struct cni_error *e);
int cni_do_gc(struct cni_input *input, struct cni_error *e);
int cni_do_status(struct cni_input *input, struct cni_error *e);

int cni_ipam_add(struct cni_input *input, json_t **ret_answer, struct cni_error *e);
int cni_ipam_del(struct cni_input *input, struct cni_error *e);
int cni_ipam_check(struct cni_input *input, struct cni_error *e);

/* ---- call.c ---- */

/* {"config", "container_id", "ifname"} */
json_t *cni_attachment(const struct cni_input *input);
/* One call of the daemon. The error is the daemon's sentence under the code that fits the verb. New reference or NULL. */
json_t *cni_call(const struct cni_input *input, const char *method, const char *path, json_t *body, struct cni_error *e);
/* The same for DEL: -2 when no daemon answers. */
int cni_call_del(const struct cni_input *input, const char *path, json_t *body, struct cni_error *e);
/* Undoes by this call what failed behind the daemon's answer. What cannot be undone now is left as word for the daemon. */
void cni_undo(const struct cni_input *input, const char *path);

#endif

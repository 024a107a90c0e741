/* A cluster in one process: real cores, virtual time, and a network that may lose, double, reorder, change, delay and cut.
 *
 * Everything that happens is an event of one queue, ordered by (virtual time, order of creation), and everything random comes
 * from one seed, so a seed is a run: the same one gives the same packets at the same times. What a host keeps on disk survives
 * its crash. Each host may carry an ipam object, whose messages and published chunks travel by gossip like in the daemon.
 *
 * A checker rides along: see truth.h. */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/uthash.h"
#include "gossip/gossip.h"
#include "gossip/joiner.h"
#include "ipam/ipam.h"

#define SIM_HOSTS_MAX 8192
#define SIM_US_PER_MS 1000u
#define SIM_SOCKET_PACKETS 512 /* a paused host's receive buffer */
#define SIM_TOLD_IPAM 1
#define SIM_NETWORKS 64
#define SIM_NETWORK(n) (GOSSIP_TOPIC_SUBSCRIBED | (n)) /* topics that hosts subscribe to */

struct world;

struct sim_rng {
	uint64_t state;
};
uint64_t sim_rng_next(struct sim_rng *rng);
uint32_t sim_rng_below(struct sim_rng *rng, uint32_t below); /* 0 when below is 0 */
bool sim_rng_permille(struct sim_rng *rng, unsigned permille);

/* What a host has on disk. */
struct sim_pair {
	size_t key_len, val_len;
	uint8_t key[64];
	uint8_t *val;
	UT_hash_handle hh; /* in order of first saving */
};

struct sim_disk {
	struct sim_pair *first;
};
void sim_disk_save(struct sim_disk *disk, const void *key, size_t key_len, const void *val, size_t len);
void sim_disk_clear(struct sim_disk *disk);
void sim_disk_copy(struct sim_disk *to, const struct sim_disk *from);

/* How it was before a write that nobody waited for: a power cut takes back some of the last of these. The store is one log, so
 * what is lost is always an end of it, and a write torn in the middle is lost as a whole. */
struct sim_undo {
	struct sim_disk *disk;
	size_t key_len, val_len;
	uint8_t key[64];
	uint8_t *val; /* NULL: there was none */
};
#define SIM_UNDO_MAX 256 /* older writes have reached the disk by themselves */

/* What was on a host's disks at some time. */
struct sim_image {
	struct gossip_mark mark, base;
	struct sim_disk disk, ipam_disk;
	uint32_t epoch;
};

struct sim_packet;

struct sim_host {
	struct world *world;
	unsigned index;
	uint32_t hostno;
	struct identity identity;
	struct gossip *gossip; /* NULL while down */
	struct joiner *joiner; /* while it asks to be admitted */
	bool admitted;
	struct id128 source; /* who admitted it, until it starts */
	uint64_t boot, source_boot;
	struct ipam *ipam;     /* NULL when the world has none, or while down */
	uint32_t other_number; /* what all sponsors but the one with the number `number_by` give it, 0 = its own too */
	uint32_t number_by;
	unsigned asked_of, saved_by; /* sponsors (index + 1) that find a number for it, or have it on disk: see number_us */
	uint32_t epoch;
	bool paused;
	bool mute;		    /* what it sends and what is for it waits */
	unsigned loss_in, loss_out; /* per mille of what is sent to it and of what it sends, besides faults.loss */
	uint64_t sent;		    /* bytes */
	unsigned side;		    /* hosts of different sides hear nothing of each other */
	int32_t clock_ppm;	    /* how much faster than the world's its clock goes */
	struct sim_rng rng;
	struct sim_disk disk, ipam_disk;
	struct sim_undo *undo; /* SIM_UNDO_MAX, NULL when the world has no power cuts */
	unsigned undo_count;
	struct sim_image *image;
	uint64_t networks;			   /* bits: what it subscribes to, also after a restart */
	bool known;				   /* to many, in this life or an earlier one */
	bool set_back;				   /* it got an old image back: what it remembers is not so */
	struct gossip_mark mark, base;		   /* of what is on ipam_disk; the latter as last found sound */
	enum gossip_standing stood;		   /* as last looked at */
	uint64_t tick_us;			   /* when the pending tick is due: older tick events are stale */
	struct sim_packet *backlog, *backlog_last; /* while paused or mute */
	unsigned backlog_count;
	struct sim_packet *unsent, *unsent_last; /* while mute */
	unsigned unsent_count;
	struct truth_host *truth;
	void *scenario; /* for the scenario's own use */
};

struct sim_faults {
	unsigned loss, duplicate, reorder, corrupt; /* per mille */
	uint32_t latency_us, jitter_us;
};

/* Called for what the cores tell, after the checker has seen it. Any may be NULL. */
struct sim_hooks {
	void (*member)(struct sim_host *host, const struct gossip_member *member, enum gossip_state old);
	void (*record)(struct sim_host *host, uint32_t origin, uint64_t topic, const void *key, size_t key_len, const void *val,
		size_t val_len);
	void (*complete)(struct sim_host *host, uint64_t ticket, const struct ipam_result *result);
	void (*saved)(struct world *w); /* some ipam has saved something, and what made it do so is over */
};

/* Rules that the cores of a world break, so that exploring it shows that the checkers notice. */
enum sim_breakage {
	SIM_SOUND,
	SIM_WITHOUT_R3,	       /* what is known to be deleted or superseded is believed again */
	SIM_LOWEST_ADDRESS,    /* the lowest address that is free here is given, whoever holds it */
	SIM_GIFTS_NOT_ON_DISK, /* a donor does not wait for its disk */
	SIM_NOBODY_ASKED,      /* who starts acts on what it remembers, without asking whether others know better */
	SIM_BREAKAGE_MAX
};

struct sim_event;

struct world {
	uint64_t seed, now_us, created;
	struct sim_rng rng;
	unsigned host_count;
	unsigned hours; /* how long what is measured by the hour takes, 0 = as the scenario says */
	struct sim_host *hosts;
	struct sim_faults faults;
	uint8_t *cut;	   /* [from * host_count + to]; NULL: nothing is */
	uint8_t *filtered; /* likewise, of datagrams only: streams pass */
	struct sim_event *heap;
	size_t heap_count, heap_capacity;
	struct sim_hooks hooks;
	bool with_ipam;
	bool ipam_saved; /* hooks.saved is due */
	bool warm;	 /* hosts live in an arena, see warm.h: only the host that was entered may be looked at */
	bool power_cuts; /* writes that nobody waited for may be lost */
	bool unchecked;	 /* measured runs of many hosts: what was delivered is checked, not all copies all the time */
	bool refusals;	 /* a host without a daemon answers with ICMP port unreachable */
	struct truth *truth;
	enum sim_breakage breakage;
	bool networks;	    /* some host has subscribed to something */
	bool trace;	    /* prints what happens to hosts and records */
	char failure[512];  /* the first thing that was wrong, "" = nothing */
	uint32_t number_us; /* at most so long a sponsor takes to have a new host's number on disk; 0: no time */
	uint64_t asked;	    /* how often a core asked for a number */
	uint64_t packets, bytes, delivered;
	uint64_t digest; /* over everything delivered: equal seeds, equal digests */
	void *scenario;
};

struct world *world_new(uint64_t seed, unsigned hosts, bool with_ipam);
void world_free(struct world *w);
/* Keeps the first one only. */
void world_fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void world_trace(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

uint64_t world_now_ms(const struct world *w);
uint64_t host_now_ms(const struct sim_host *host); /* by its own clock */
void world_run_ms(struct world *w, uint64_t ms);   /* stops early on failure */
void world_run_us(struct world *w, uint64_t us);
/* Runs until `done` (asked every step_ms) or the deadline. False: it did not come true. */
bool world_run_until(struct world *w, uint64_t deadline_ms, uint64_t step_ms, bool (*done)(struct world *w));

/* Everybody knows everybody from disk, as after a restart of the whole cluster. */
void world_introduce_all(struct world *w);
void world_start(struct world *w, unsigned host);
void world_start_all(struct world *w);
/* Asks `sponsor` for admission with a token, and starts when it has it. */
void world_join(struct world *w, unsigned host, unsigned sponsor);
void sim_token(struct token *ret_token, unsigned sponsor); /* the one that they join by */
void world_crash(struct world *w, unsigned host);	   /* its disk stays */
void world_restart(struct world *w, unsigned host, bool new_epoch);
/* Everything since the last durable write may be gone, and what a reboot clears is. Starting again takes a new epoch. */
void world_allow_power_cuts(struct world *w);
void world_power_cut(struct world *w, unsigned host);
/* Its disks as they are now, for world_roll_back: the host, which must be down, then has them again. */
void world_keep_image(struct world *w, unsigned host);
void world_roll_back(struct world *w, unsigned host);
void world_pause(struct world *w, unsigned host);
/* Its core goes on, and neither hears nor says anything until it resumes. */
void world_mute(struct world *w, unsigned host);
void world_resume(struct world *w, unsigned host);
void world_cut(struct world *w, unsigned from, unsigned to, bool cut);	   /* one way */
void world_filter(struct world *w, unsigned a, unsigned b, bool filtered); /* both ways */
void world_partition(struct world *w, uint64_t side_a); /* hosts with their bit set against the others (up to 64 hosts) */
void world_partition_at(struct world *w, unsigned first_of_b);
void world_heal(struct world *w);
/* A datagram from outside the cluster. */
void world_inject(struct world *w, unsigned to, const void *packet, size_t len);

/* Own records through the truth (see truth.h). A value says its version, so equal values of one key never recur. */
void world_put(struct world *w, unsigned host, uint64_t topic, const char *key);
void world_del(struct world *w, unsigned host, uint64_t topic, const char *key);

/* The topic SIM_NETWORK(network). Who leaves it deletes its own records there first. */
void world_subscribe(struct world *w, unsigned host, unsigned network);
void world_unsubscribe(struct world *w, unsigned host, unsigned network);
/* Whether this host, by what it was told to do, keeps the topic. */
bool sim_keeps(const struct sim_host *host, uint64_t topic);

/* Calls the cores' timers after a scenario has acted on a host directly. */
void world_touch(struct world *w, unsigned host);

/* Before looking at a host's core, in a world that may be a warm one. Nothing may be allocated until world_leave. */
void world_enter(const struct world *w, unsigned host);
void world_leave(const struct world *w);

/* What warm.c starts a host with, and hands it over with. */
struct gossip_config world_config(struct world *w, unsigned host);
struct member_save world_saved_member(const struct sim_host *host);
extern const struct gossip_ops world_gossip_ops;

struct gossip_addr sim_addr(unsigned host);

#endif

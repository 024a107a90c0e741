/* Members only: the nft table that keeps foreign frames out of our VNIs, and keeps workloads from forging such frames.
 *
 * VXLAN has no authentication: whoever can send a UDP datagram to the port puts a frame into a segment. Four chains in a table
 * of our own (`inet <name>`), in the network namespace where guard_open was called (the one that holds the vxlan sockets):
 *
 *   input        one of our VNIs, and the outer source is no member: counted as foreign, dropped
 *   forward      one of our VNIs at all: counted as forged, dropped. Overlay traffic of the host is sent and received by it,
 * never forwarded; what is forwarded was written by a container, and masquerade would give it a member's address prerouting,
 *   output       one of our VNIs: not tracked. Outer UDP source ports differ per inner flow, so conntrack would hold an entry
 * each
 *
 * Every rule asks for the port *and* one of our VNIs, so other users of the port on the host stay untouched.
 * The table outlives the daemon: guard_close leaves it working. No call blocks for longer than the kernel takes to commit. */
#ifndef DRIVER_VXLAN_GUARD_H
#define DRIVER_VXLAN_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/err.h"

#define GUARD_VNIS_MAX 16384	/* more: ERR_TOO_BIG */
#define GUARD_MEMBERS_MAX 65536 /* likewise */

struct guard;
struct nft;

/* Opens a netfilter socket in the calling thread's network namespace; changes nothing yet. `port` is in host order. */
int guard_open(const char *table, uint16_t port, struct guard **ret_guard, struct err *err);
void guard_close(struct guard *guard);
struct nft *guard_nft(struct guard *guard); /* the table, for its notices */

/* Makes the kernel hold exactly these VNIs and members; order and repetitions do not matter. Level-triggered: compares first, and
 * when nothing differs it writes nothing (one short question to the kernel while no one has touched any nft table since). What
 * was changed or deleted by others (`nft flush ruleset`) is put right. Each change is one transaction: no packet sees half of it.
 *
 * The first call of a guard builds the table whatever it finds, as an older version may have left it; without a VNI it takes it
 * away. So call it when the members are known: an empty list means that every frame of these VNIs is dropped. */
int guard_apply(struct guard *guard, const uint32_t *vnis, size_t vni_count, const struct ip *members, size_t member_count,
	bool *ret_wrote /* may be NULL: the kernel had it otherwise */, struct err *err);

/* Packets dropped since the table was built; replacing the sets keeps them. ERR_NOT_FOUND when there is no table. */
int guard_counters(struct guard *guard, uint64_t *ret_foreign, uint64_t *ret_forged, struct err *err);

/* Deletes the table; fine when there is none. */
int guard_purge(struct guard *guard, struct err *err);

#endif

/* One datagram between two members: header in clear, everything else authenticated encryption. The bytes: docs/wire.md, "Frames".
 *
 * A packet is bound to its sender (the nonce holds its host id and its boot), to its receiver and to the cluster (both in the
 * additional data), so that it cannot be replayed to another host. Against replay to the same host each peer has a window of
 * 2,048 counters. A peer counts what it sends to anybody, so of many hosts few of the last 2,048 came here: those are noted one
 * by one, and as bits only where they are more than FRAME_SEEN_FEW.
 *
 * A packet carries only the low half of the sender's boot tag. Who does not know the other half cannot even build the nonce: it
 * asks with a *hello*, a frame that carries the full boot tag in clear and two numbers inside the encryption: `ask`, fresh and
 * random, to be given back, and `echo`, what the other had asked. A boot is believed only when our own open `ask` comes back, so
 * an old hello, replayed, establishes nothing. Nor does an old packet of a boot that is established anew, because its receiver
 * started again or had taken a twin for the sender: only what was sealed after that hello is accepted. Every hello has one size,
 *FRAME_HELLO_SIZE, and shorter packets trigger none: no amplification.
 *
 *	restarted A                                    B (knows another boot of A, or none)
 *	   -- any packet of >= FRAME_HELLO_SIZE bytes -->   frame_open: FRAME_BOOT, frame_peer_ask
 *	   <-- hello(echo 0, ask b) ---------------------
 *	   -- hello(echo b, ask a or 0) ---------------->   established (A asks only when B's boot is unknown to it)
 *	   <-- hello(echo a, ask 0) ---------------------
 *
 * A host that starts need not wait for that: it may send hello(0, ask) to everyone it wants to talk to first.
 * Pure: no clock, no random source, one allocation (the bits of a peer that talks much with us). */
#ifndef GOSSIP_FRAME_INTERNAL_H
#define GOSSIP_FRAME_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gossip/gossip.h"

#define FRAME_VERSION 1
#define FRAME_HEADER_SIZE 17	   /* of an ordinary frame */
#define FRAME_HELLO_HEADER_SIZE 21 /* with the full boot tag */
#define FRAME_TAG_SIZE 16
#define FRAME_OVERHEAD (FRAME_HEADER_SIZE + FRAME_TAG_SIZE)
#define FRAME_PLAIN_MAX (GOSSIP_PACKET_MAX - FRAME_OVERHEAD)
#define FRAME_HELLO_SIZE (FRAME_HELLO_HEADER_SIZE + 16 + FRAME_TAG_SIZE)
#define FRAME_KEYS_MAX 4
#define FRAME_KEY_ID_FIRST 1 /* of a cluster's first key */
#define FRAME_WINDOW_BITS 2048
#define FRAME_SEEN_FEW 6

#define FRAME_ASK_EVERY_MS 100 /* at most one unprompted hello per peer in this time */
#define FRAME_ASK_LIVES_MS                                                                                                       \
	5000		      /* how long an `ask` may be answered: far above any round trip on a network that carries overlays */
#define FRAME_ANSWERS_PER_S 8 /* hellos of a boot not established, per peer: an exchange needs one or two */

/* Low four bits of the first byte: what a sender drops last to first when it has to, and two kinds that are no ordinary frames.
 */
enum frame_class {
	FRAME_CLASS_PROBE,
	FRAME_CLASS_MEMBERSHIP,
	FRAME_CLASS_PUSH,
	FRAME_CLASS_SYNC,
	FRAME_CLASS_HELLO = 14,
	FRAME_CLASS_ADMISSION = 15 /* hostno 0: for admission_handle or the joiner, no frame of ours */
};

enum frame_verdict {
	FRAME_OK,
	FRAME_SHORT,	       /* or longer than GOSSIP_PACKET_MAX */
	FRAME_VERSION_UNKNOWN, /* version or class */
	FRAME_SENDER,	       /* hostno 0 or outside the range, or not that of `peer` */
	FRAME_BOOT,	       /* a boot of the peer that is not established: frame_peer_ask */
	FRAME_KEY,	       /* unknown key id, or authentication failed: other key, cluster, receiver, or a changed bit */
	FRAME_REPLAY,	       /* seen, or older than the window */
	FRAME_DECODE	       /* authentic, but not what a hello looks like */
};

struct frame_header {
	enum frame_class class;
	uint8_t key_id;
	uint32_t hostno;
	uint64_t boot; /* the low 32 bits only, unless class is FRAME_CLASS_HELLO */
	uint64_t counter;
};

/* Keys by id. Frames use a key derived from the cluster key, which itself encrypts nothing. */
struct frame_ring {
	unsigned count;
	uint8_t active; /* id of the key that seals */
	struct {
		uint8_t id;
		uint8_t key[32];
	} keys[FRAME_KEYS_MAX];
};

void frame_ring_init(struct frame_ring *ring);
/* The first key added becomes active. Of several keys with one id the first seals, and each is tried in turn to open.
 * ERR_EXHAUSTED at FRAME_KEYS_MAX. */
int frame_ring_add(struct frame_ring *ring, uint8_t id, const uint8_t cluster_key[CLUSTER_KEY_SIZE], struct err *err);
void frame_ring_wipe(struct frame_ring *ring);

/* Our end. (host_id, boot, counter) never repeats: boot is random per process start, counter counts up in here. */
struct frame_sender {
	uint32_t hostno;
	struct id128 host_id;
	struct id128 cluster_id;
	uint64_t boot;
	uint8_t version_max; /* the highest wire version that this host speaks; 0 = FRAME_VERSION */
	uint8_t version;     /* of the next ordinary frame, 0 = FRAME_VERSION; everything else is sent in FRAME_VERSION */
	uint64_t counter;    /* of the last packet sealed; starts at 0 */
};

/* What we know of the other end. Zero it, set hostno and host_id; frame_peer_fini frees the window. */
struct frame_peer {
	uint32_t hostno;
	struct id128 host_id;
	bool boot_known;
	uint8_t seen_count;	       /* of `seen`, while there are no bits */
	uint16_t seen[FRAME_SEEN_FEW]; /* counters in the window that were seen, their low bits */
	uint64_t boot;
	uint64_t boot_before; /* the one established before this, 0 = none */
	uint64_t floor;	      /* of this boot, what was sealed up to here is not accepted */
	uint64_t top;	      /* highest counter accepted of this boot */
	uint64_t *bits;	      /* ring of words, indexed by counter / 64; NULL: `seen` has it all */
	uint64_t ask;	      /* our open question, 0 = none */
	uint64_t ask_until_ms, ask_next_ms;
	uint64_t answers_from_ms : 56, answers : 8; /* start of the second in which answers are counted */
};

void frame_peer_fini(struct frame_peer *peer);
/* The boot is known from elsewhere, e.g. a host record newer than what we had. Opens an empty window. No change when equal. */
void frame_peer_set_boot(struct frame_peer *peer, uint64_t boot);

/* Reads the header only; nothing of it is authentic yet. FRAME_OK, FRAME_SHORT, FRAME_VERSION_UNKNOWN or FRAME_SENDER.
 * Class FRAME_CLASS_ADMISSION gives FRAME_OK with only the class set. */
enum frame_verdict frame_peek_up_to(const void *packet, size_t len, unsigned version_max, struct frame_header *ret_header);
enum frame_verdict frame_peek(const void *packet, size_t len, struct frame_header *ret_header);

/* Seals `plain` for host `to`. Returns the packet's length, 0 when len > FRAME_PLAIN_MAX or the ring is empty (nothing is sent
 * then). */
size_t frame_seal(struct frame_sender *sender, const struct frame_ring *ring, enum frame_class class, const struct id128 *to,
	const void *plain, size_t len, uint8_t ret_packet[GOSSIP_PACKET_MAX]);

/* Opens an ordinary frame of `peer` that was sent to `self`, and notes its counter. On anything but FRAME_OK nothing changes. */
enum frame_verdict frame_open(struct frame_peer *peer, const struct frame_sender *self, const struct frame_ring *ring,
	const void *packet, size_t len, uint8_t ret_plain[GOSSIP_PACKET_MAX], size_t *ret_len);

struct frame_hello {
	uint64_t echo; /* the receiver's `ask`, 0 = answers nothing */
	uint64_t ask;  /* to be echoed, 0 = asks nothing */
};

/* Returns FRAME_HELLO_SIZE, 0 when the ring is empty. */
size_t frame_hello_seal(struct frame_sender *sender, const struct frame_ring *ring, const struct id128 *to,
	const struct frame_hello *hello, uint8_t ret_packet[GOSSIP_PACKET_MAX]);

/* Whether to send a hello of our own to this peer now. trigger_len: length of the packet that made us ask; pass GOSSIP_PACKET_MAX
 * when nothing did (start). fresh: 64 random bits. False: too soon, or the trigger was shorter than the hello would be. */
bool frame_peer_ask(struct frame_peer *peer, size_t trigger_len, uint64_t fresh, uint64_t now_ms, struct frame_hello *ret_hello);

struct frame_hello_outcome {
	bool established; /* the peer's boot is proven now and was not the one known before: it restarted, or is new to us */
	/* A boot came back that another had replaced: a host that starts never has an old boot tag, so two speak as this one. */
	bool twin;
	bool answer; /* send `reply` back to where the hello came from */
	struct frame_hello reply;
};

/* Handles a packet of class FRAME_CLASS_HELLO from `peer`: opens, checks, establishes, prepares the answer. fresh: 64 random
 * bits. */
enum frame_verdict frame_hello_handle(struct frame_peer *peer, const struct frame_sender *self, const struct frame_ring *ring,
	const void *packet, size_t len, uint64_t fresh, uint64_t now_ms, struct frame_hello_outcome *ret_outcome);

#endif

/* Frames: what comes through, and everything that must not: every changed byte, every truncation, replays, other hosts, other
 * clusters, other keys, old boots. Two hosts A and B, everything deterministic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "gossip/frame_internal.h"

struct host {
	struct frame_sender self;
	struct frame_ring ring;
	struct frame_peer other;
};

struct pair {
	struct host a, b;
};

static const uint8_t cluster_key[CLUSTER_KEY_SIZE] = {1, 2, 3};

static void host_init(struct host *h, uint32_t hostno, uint32_t other, uint64_t boot)
{
	memset(h, 0, sizeof(*h));
	h->self.hostno = hostno;
	memset(h->self.host_id.bytes, (int)hostno, 16);
	memset(h->self.cluster_id.bytes, 0xcc, 16);
	h->self.boot = boot;
	frame_ring_init(&h->ring);
	assert_int_equal(frame_ring_add(&h->ring, FRAME_KEY_ID_FIRST, cluster_key, NULL), 0);
	h->other.hostno = other;
	memset(h->other.host_id.bytes, (int)other, 16);
}

static int setup(void **state)
{
	static struct pair pair;

	host_init(&pair.a, 10, 20, 0xaaaaaaaa11111111);
	host_init(&pair.b, 20, 10, 0xbbbbbbbb22222222);
	frame_peer_set_boot(&pair.a.other, pair.b.self.boot);
	frame_peer_set_boot(&pair.b.other, pair.a.self.boot);
	*state = &pair;
	return 0;
}

static int teardown(void **state)
{
	struct pair *p = *state;

	frame_peer_fini(&p->a.other);
	frame_peer_fini(&p->b.other);
	return 0;
}

static size_t seal_text(struct host *from, const char *text, uint8_t *packet)
{
	return frame_seal(&from->self, &from->ring, FRAME_CLASS_PUSH, &from->other.host_id, text, strlen(text), packet);
}

static enum frame_verdict open_at(struct host *at, const uint8_t *packet, size_t len)
{
	uint8_t plain[GOSSIP_PACKET_MAX];
	size_t plain_len;

	return frame_open(&at->other, &at->self, &at->ring, packet, len, plain, &plain_len);
}

static void what_is_sealed_opens(void **state)
{
	struct pair *p = *state;
	uint8_t packet[GOSSIP_PACKET_MAX], plain[GOSSIP_PACKET_MAX];
	struct frame_header header;
	size_t len, plain_len = 0;

	len = seal_text(&p->a, "hello over there", packet);
	assert_int_equal(len, 16 + FRAME_OVERHEAD);
	assert_int_equal(frame_peek(packet, len, &header), FRAME_OK);
	assert_int_equal(header.class, FRAME_CLASS_PUSH);
	assert_int_equal(header.key_id, FRAME_KEY_ID_FIRST);
	assert_int_equal(header.hostno, 10);
	assert_int_equal(header.boot, 0x11111111);
	assert_int_equal(header.counter, 1);
	assert_int_equal(frame_open(&p->b.other, &p->b.self, &p->b.ring, packet, len, plain, &plain_len), FRAME_OK);
	assert_int_equal(plain_len, 16);
	assert_memory_equal(plain, "hello over there", 16);
}

static void every_length_that_fits_comes_through(void **state)
{
	struct pair *p = *state;
	uint8_t packet[GOSSIP_PACKET_MAX], text[GOSSIP_PACKET_MAX], plain[GOSSIP_PACKET_MAX];
	size_t len, n, plain_len;

	memset(text, 'x', sizeof(text));
	for (n = 0; n <= FRAME_PLAIN_MAX; n++) {
		len = frame_seal(&p->a.self, &p->a.ring, FRAME_CLASS_SYNC, &p->a.other.host_id, text, n, packet);
		assert_int_equal(len, n + FRAME_OVERHEAD);
		assert_int_equal(frame_open(&p->b.other, &p->b.self, &p->b.ring, packet, len, plain, &plain_len), FRAME_OK);
		assert_int_equal(plain_len, n);
		assert_memory_equal(plain, text, n);
	}
	assert_int_equal(len, GOSSIP_PACKET_MAX);
	assert_int_equal(frame_seal(&p->a.self, &p->a.ring, FRAME_CLASS_SYNC, &p->a.other.host_id, text, n, packet), 0);
	/* Hellos and admission have their own ways. */
	assert_int_equal(frame_seal(&p->a.self, &p->a.ring, FRAME_CLASS_HELLO, &p->a.other.host_id, text, 1, packet), 0);
}

static void a_changed_bit_anywhere_is_refused(void **state)
{
	struct pair *p = *state;
	uint8_t packet[GOSSIP_PACKET_MAX];
	size_t len = seal_text(&p->a, "some forty bytes, all of which do matter", packet), bit;

	for (bit = 0; bit < len * 8; bit++) {
		packet[bit / 8] ^= 1 << bit % 8;
		assert_int_not_equal(open_at(&p->b, packet, len), FRAME_OK);
		packet[bit / 8] ^= 1 << bit % 8;
	}
	/* None of the refusals cost the real one its place in the window. */
	assert_int_equal(open_at(&p->b, packet, len), FRAME_OK);
}

static void the_refusal_names_what_was_changed(void **state)
{
	static const struct {
		size_t at;
		uint8_t flip;
		enum frame_verdict verdict;
	} cases[] = {
		{0, 0x10, FRAME_VERSION_UNKNOWN}, /* version 0 */
		{0, 0x08, FRAME_VERSION_UNKNOWN}, /* class 10 */
		{0, 0x01, FRAME_KEY},		  /* another class, which exists: authentication */
		{1, 0x40, FRAME_KEY},		  /* key id */
		{2, 0x80, FRAME_SENDER},	  /* hostno above 20 bits */
		{4, 0x01, FRAME_SENDER},	  /* hostno of someone else */
		{4, 10, FRAME_SENDER},		  /* hostno 0 */
		{8, 0x01, FRAME_BOOT},		  /* boot */
		{16, 0x02, FRAME_KEY},		  /* counter 1 becomes 3 */
		{16, 0x01, FRAME_REPLAY},	  /* counter 0, which is never sent */
		{17, 0x01, FRAME_KEY},		  /* ciphertext */
	};
	struct pair *p = *state;
	uint8_t packet[GOSSIP_PACKET_MAX];
	size_t len = seal_text(&p->a, "text", packet), i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		packet[cases[i].at] ^= cases[i].flip;
		assert_int_equal(open_at(&p->b, packet, len), cases[i].verdict);
		packet[cases[i].at] ^= cases[i].flip;
	}
}

static void a_packet_cut_off_anywhere_is_refused(void **state)
{
	struct pair *p = *state;
	uint8_t packet[GOSSIP_PACKET_MAX + 1] = {0};
	struct frame_hello hello = {1, 2};
	struct frame_hello_outcome outcome;
	size_t len = seal_text(&p->a, "cut me", packet), n;

	for (n = 0; n < len; n++)
		assert_int_equal(open_at(&p->b, packet, n), n < FRAME_OVERHEAD ? FRAME_SHORT : FRAME_KEY);
	assert_int_equal(open_at(&p->b, packet, len + 1), FRAME_KEY);
	assert_int_equal(open_at(&p->b, packet, GOSSIP_PACKET_MAX + 1), FRAME_SHORT);
	len = frame_hello_seal(&p->a.self, &p->a.ring, &p->a.other.host_id, &hello, packet);
	for (n = 0; n < len; n++)
		assert_int_not_equal(
			frame_hello_handle(&p->b.other, &p->b.self, &p->b.ring, packet, n, 5, 0, &outcome), FRAME_OK);
	assert_int_equal(frame_hello_handle(&p->b.other, &p->b.self, &p->b.ring, packet, len + 1, 5, 0, &outcome), FRAME_DECODE);
}

static void only_the_addressed_host_of_the_cluster_can_open(void **state)
{
	struct pair *p = *state;
	static const uint8_t other_key[CLUSTER_KEY_SIZE] = {9};
	uint8_t packet[GOSSIP_PACKET_MAX];
	size_t len = seal_text(&p->a, "for B", packet);
	struct host b = p->b;

	b.self.host_id.bytes[15] ^= 1; /* another host, to which the packet is sent again */
	assert_int_equal(open_at(&b, packet, len), FRAME_KEY);
	b = p->b;
	b.self.cluster_id.bytes[0] ^= 1;
	assert_int_equal(open_at(&b, packet, len), FRAME_KEY);
	b = p->b;
	b.other.host_id.bytes[7] ^= 1; /* hostno known, but it is another host's */
	assert_int_equal(open_at(&b, packet, len), FRAME_KEY);
	b = p->b;
	frame_ring_init(&b.ring);
	assert_int_equal(frame_ring_add(&b.ring, FRAME_KEY_ID_FIRST, other_key, NULL), 0);
	assert_int_equal(open_at(&b, packet, len), FRAME_KEY);
	/* Nor does a packet open at its own sender, reflected. */
	assert_int_equal(open_at(&p->a, packet, len), FRAME_SENDER);
	assert_int_equal(open_at(&p->b, packet, len), FRAME_OK);
}

static void the_ring_opens_with_every_key_and_seals_with_the_active(void **state)
{
	struct pair *p = *state;
	static const uint8_t second[CLUSTER_KEY_SIZE] = {7};
	uint8_t packet[GOSSIP_PACKET_MAX];
	struct err err;
	size_t len;
	unsigned i;

	assert_int_equal(frame_ring_add(&p->a.ring, 2, second, NULL), 0);
	p->a.ring.active = 2;
	len = seal_text(&p->a, "new key", packet);
	assert_int_equal(packet[1], 2);
	assert_int_equal(open_at(&p->b, packet, len), FRAME_KEY);
	assert_int_equal(frame_ring_add(&p->b.ring, 2, second, NULL), 0);
	assert_int_equal(open_at(&p->b, packet, len), FRAME_OK);
	p->a.ring.active = FRAME_KEY_ID_FIRST;
	len = seal_text(&p->a, "old key", packet);
	assert_int_equal(open_at(&p->b, packet, len), FRAME_OK);
	for (i = p->a.ring.count; i < FRAME_KEYS_MAX; i++)
		assert_int_equal(frame_ring_add(&p->a.ring, (uint8_t)(10 + i), second, &err), 0);
	assert_int_equal(frame_ring_add(&p->a.ring, 99, second, &err), -1);
	assert_int_equal(err.code, ERR_EXHAUSTED);
	assert_non_null(strstr(err.text, "key 99"));
	frame_ring_wipe(&p->a.ring);
	assert_int_equal(seal_text(&p->a, "no key", packet), 0);
}

/* ---- replay ---- */

/* Seals the packet that has this counter. */
static size_t seal_counter(struct host *from, uint64_t counter, uint8_t *packet)
{
	from->self.counter = counter - 1;
	return seal_text(from, "n", packet);
}

static enum frame_verdict deliver(struct pair *p, uint64_t counter)
{
	uint8_t packet[GOSSIP_PACKET_MAX];
	size_t len = seal_counter(&p->a, counter, packet);

	return open_at(&p->b, packet, len);
}

static void a_packet_counts_once(void **state)
{
	struct pair *p = *state;

	assert_int_equal(deliver(p, 5), FRAME_OK);
	assert_int_equal(deliver(p, 5), FRAME_REPLAY);
	assert_int_equal(deliver(p, 6), FRAME_OK);
	assert_int_equal(deliver(p, 5), FRAME_REPLAY);
	assert_int_equal(deliver(p, 6), FRAME_REPLAY);
}

static void the_window_takes_2048_and_not_one_more(void **state)
{
	static const uint64_t tops[] = {2048, 4097, 8191, 16384, 50000, 1ull << 40, UINT64_MAX - 1};
	struct pair *p = *state;
	size_t i;

	for (i = 0; i < sizeof(tops) / sizeof(tops[0]); i++) {
		assert_int_equal(deliver(p, tops[i]), FRAME_OK);
		if (tops[i] > FRAME_WINDOW_BITS)
			assert_int_equal(deliver(p, tops[i] - FRAME_WINDOW_BITS), FRAME_REPLAY);
		assert_int_equal(deliver(p, tops[i] - FRAME_WINDOW_BITS + 1), FRAME_OK);
		assert_int_equal(deliver(p, tops[i] - FRAME_WINDOW_BITS + 1), FRAME_REPLAY);
	}
}

/* Against the naive twin: a set of all counters ever accepted, and the highest. By turns the peer talks with us alone and with
 * hundreds of others. */
static void the_window_agrees_with_a_plain_set(void **state)
{
	enum { STEPS = 60000, SPAN = 6000000, TURN = 700 };
	static bool seen[SPAN + 1];
	struct pair *p = *state;
	uint64_t random = 88172645463325252ull, top = 0, counter, step;
	enum frame_verdict expected;
	unsigned i, accepted = 0, few = 0, many = 0;

	memset(seen, 0, sizeof(seen));
	for (i = 0; i < STEPS; i++) {
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		step = i / TURN % 2 ? 700 : 8;
		/* Mostly near the top, sometimes far ahead or anywhere behind. */
		if (random % 64 == 0)
			counter = top + random / 64 % 4000;
		else if (random % 8 == 0)
			counter = random / 64 % (top + 1);
		else
			counter = top + step > random / 64 % (2100 + step) ? top + step - random / 64 % (2100 + step) : 1;
		if (counter == 0 || counter > SPAN)
			continue;
		expected = seen[counter] || counter + FRAME_WINDOW_BITS <= top ? FRAME_REPLAY : FRAME_OK;
		assert_int_equal(deliver(p, counter), expected);
		seen[counter] = true;
		accepted += expected == FRAME_OK;
		few += p->b.other.bits == NULL;
		many += p->b.other.bits != NULL;
		if (counter > top)
			top = counter;
	}
	assert_true(accepted > 1000);
	assert_true(top > 3 * FRAME_WINDOW_BITS);
	assert_true(few > 1000 && many > 1000);
}

/* Who seldom hears of a peer keeps no bits for it, and has them again no longer than it needs them. */
static void few_packets_need_no_allocation(void **state)
{
	struct pair *p = *state;
	uint64_t counter = 1;

	for (unsigned i = 0; i < 1000; i++, counter += FRAME_WINDOW_BITS / FRAME_SEEN_FEW + 1) {
		assert_int_equal(deliver(p, counter), FRAME_OK);
		assert_int_equal(deliver(p, counter), FRAME_REPLAY);
		assert_null(p->b.other.bits);
	}
	for (unsigned i = 0; i <= FRAME_SEEN_FEW; i++)
		assert_int_equal(deliver(p, counter + i), FRAME_OK);
	assert_non_null(p->b.other.bits);
	assert_int_equal(deliver(p, counter), FRAME_REPLAY);
	assert_int_equal(deliver(p, counter + 100000), FRAME_OK);
	assert_null(p->b.other.bits);
	assert_int_equal(deliver(p, counter), FRAME_REPLAY);
	assert_int_equal(deliver(p, counter + 100000), FRAME_REPLAY);
}

static void a_forged_counter_does_not_move_the_window(void **state)
{
	struct pair *p = *state;
	uint8_t packet[GOSSIP_PACKET_MAX];
	size_t len;

	assert_int_equal(deliver(p, 3), FRAME_OK);
	len = seal_counter(&p->a, 4, packet);
	packet[9] = 0xff; /* the counter's highest byte */
	assert_int_equal(open_at(&p->b, packet, len), FRAME_KEY);
	assert_int_equal(deliver(p, 2), FRAME_OK);
	assert_int_equal(deliver(p, 4), FRAME_OK);
}

static void learning_the_same_boot_again_keeps_the_window(void **state)
{
	struct pair *p = *state;

	assert_int_equal(deliver(p, 7), FRAME_OK);
	frame_peer_set_boot(&p->b.other, p->a.self.boot);
	assert_int_equal(deliver(p, 7), FRAME_REPLAY);
	/* Another boot starts a window of its own. */
	p->a.self.boot = 0x77;
	frame_peer_set_boot(&p->b.other, 0x77);
	assert_int_equal(deliver(p, 7), FRAME_OK);
	assert_int_equal(deliver(p, 7), FRAME_REPLAY);
}

/* ---- hello ---- */

static bool twin_seen; /* in the last exchange */

/* Carries one hello, and every answer to it, back and forth. Returns how many packets that took. */
static unsigned exchange(struct host *from, struct host *to, struct frame_hello hello, uint64_t now_ms)
{
	struct frame_hello_outcome outcome;
	uint8_t packet[GOSSIP_PACKET_MAX];
	unsigned packets = 0;
	struct host *swap;
	size_t len;

	twin_seen = false;

	do {
		len = frame_hello_seal(&from->self, &from->ring, &from->other.host_id, &hello, packet);
		assert_int_equal(len, FRAME_HELLO_SIZE);
		packets++;
		assert_int_equal(
			frame_hello_handle(&to->other, &to->self, &to->ring, packet, len, 1000 + packets, now_ms, &outcome),
			FRAME_OK);
		twin_seen |= outcome.twin;
		hello = outcome.reply;
		swap = from;
		from = to;
		to = swap;
	} while (outcome.answer && packets < 10);
	return packets;
}

static void restart(struct host *h, uint64_t boot)
{
	frame_peer_fini(&h->other);
	memset(&h->other, 0, sizeof(h->other));
	h->other.hostno = h->self.hostno == 10 ? 20 : 10;
	memset(h->other.host_id.bytes, (int)h->other.hostno, 16);
	h->self.boot = boot;
	h->self.counter = 0;
}

static void a_restarted_host_is_asked_and_then_heard(void **state)
{
	struct pair *p = *state;
	uint8_t packet[GOSSIP_PACKET_MAX];
	struct frame_hello hello;
	size_t len;

	restart(&p->a, 0xa2a2a2a2a2a2a2a2);
	len = seal_text(&p->a, "a ping that is longer than a hello is", packet);
	assert_int_equal(open_at(&p->b, packet, len), FRAME_BOOT);
	assert_true(frame_peer_ask(&p->b.other, len, 4711, 100, &hello));
	assert_int_equal(hello.echo, 0);
	assert_int_equal(hello.ask, 4711);
	/* B asks; A echoes and asks in turn, since it has no boot of B either; B echoes. */
	assert_int_equal(exchange(&p->b, &p->a, hello, 100), 3);
	assert_true(p->b.other.boot_known);
	assert_int_equal(p->b.other.boot, p->a.self.boot);
	assert_int_equal(p->a.other.boot, p->b.self.boot);
	/* What was sealed before the hello is not believed, whenever it comes. */
	assert_int_equal(open_at(&p->b, packet, len), FRAME_REPLAY);
	len = seal_text(&p->a, "the same again", packet);
	assert_int_equal(open_at(&p->b, packet, len), FRAME_OK);
	assert_int_equal(open_at(&p->b, packet, len), FRAME_REPLAY);
	len = seal_text(&p->b, "and back", packet);
	assert_int_equal(open_at(&p->a, packet, len), FRAME_OK);
}

/* B runs on; its boot and counters are the same for the process of A that ended and for the next one. */
static void what_was_sent_to_an_earlier_process_is_not_for_the_next(void **state)
{
	struct pair *p = *state;
	uint8_t heard[GOSSIP_PACKET_MAX], kept_back[GOSSIP_PACKET_MAX], next[GOSSIP_PACKET_MAX];
	size_t len = seal_text(&p->b, "heard", heard);
	struct frame_hello hello;

	assert_int_equal(open_at(&p->a, heard, len), FRAME_OK);
	assert_int_equal(seal_text(&p->b, "never", kept_back), len);
	restart(&p->a, 0xa2);
	assert_true(frame_peer_ask(&p->a.other, GOSSIP_PACKET_MAX, 77, 0, &hello));
	assert_int_equal(exchange(&p->a, &p->b, hello, 0), 3);
	assert_int_equal(p->a.other.boot, p->b.self.boot);
	assert_int_equal(open_at(&p->a, heard, len), FRAME_REPLAY);
	assert_int_equal(open_at(&p->a, kept_back, len), FRAME_REPLAY);
	assert_int_equal(seal_text(&p->b, "fresh", next), len);
	assert_int_equal(open_at(&p->a, next, len), FRAME_OK);
}

/* Two daemons with one state directory: each packet of one makes the other a stranger again. */
static void an_old_boot_that_comes_back_is_a_twin(void **state)
{
	static const uint64_t boots[] = {0xa1, 0xa2, 0xa3, 0xa2};
	struct pair *p = *state;
	struct frame_hello hello;

	for (unsigned i = 0; i < 4; i++) {
		restart(&p->a, boots[i]);
		assert_true(frame_peer_ask(&p->b.other, GOSSIP_PACKET_MAX, 4711 + i, 1000 * (i + 1), &hello));
		assert_int_equal(exchange(&p->b, &p->a, hello, 1000 * (i + 1)), 3);
		assert_int_equal(p->b.other.boot, boots[i]);
		assert_int_equal(twin_seen, i == 3); /* restarts are none */
	}
}

static void a_host_that_starts_may_ask_first(void **state)
{
	struct pair *p = *state;
	struct frame_hello hello;

	restart(&p->a, 3);
	assert_true(frame_peer_ask(&p->a.other, GOSSIP_PACKET_MAX, 9, 0, &hello));
	assert_int_equal(exchange(&p->a, &p->b, hello, 0), 3);
	assert_int_equal(p->b.other.boot, 3);
	assert_int_equal(p->a.other.boot, p->b.self.boot);
	/* Both known: a question is answered, and that is all. */
	hello.ask = 5;
	assert_int_equal(exchange(&p->a, &p->b, hello, 0), 2);
}

static void questions_that_cross_both_count(void **state)
{
	struct pair *p = *state;
	struct frame_hello ask_a, ask_b;

	restart(&p->a, 3);
	assert_true(frame_peer_ask(&p->a.other, GOSSIP_PACKET_MAX, 9, 0, &ask_a));
	assert_true(frame_peer_ask(&p->b.other, GOSSIP_PACKET_MAX, 8, 0, &ask_b));
	assert_int_equal(exchange(&p->a, &p->b, ask_a, 1), 3);
	assert_int_equal(p->b.other.boot, 3);
	assert_int_equal(p->a.other.boot, p->b.self.boot);
	assert_int_equal(exchange(&p->b, &p->a, ask_b, 2), 2);
	assert_int_equal(p->b.other.boot, 3);
}

static void an_old_hello_establishes_nothing(void **state)
{
	struct pair *p = *state;
	uint8_t old[GOSSIP_PACKET_MAX];
	struct frame_hello_outcome outcome;
	struct frame_hello hello;
	uint64_t boot;
	size_t len;

	/* A, in an old life, answered B's question; somebody kept the packet. */
	restart(&p->a, 0x01d);
	assert_true(frame_peer_ask(&p->b.other, GOSSIP_PACKET_MAX, 4711, 0, &hello));
	hello.echo = hello.ask;
	hello.ask = 0;
	len = frame_hello_seal(&p->a.self, &p->a.ring, &p->a.other.host_id, &hello, old);
	assert_int_equal(frame_hello_handle(&p->b.other, &p->b.self, &p->b.ring, old, len, 1, 0, &outcome), FRAME_OK);
	assert_true(outcome.established);
	assert_int_equal(frame_hello_handle(&p->b.other, &p->b.self, &p->b.ring, old, len, 1, 0, &outcome), FRAME_REPLAY);
	/* A lives on as another boot, which B knows; the old packet comes again, even while B asks something. */
	restart(&p->a, 0x2e2);
	assert_true(frame_peer_ask(&p->a.other, GOSSIP_PACKET_MAX, 77, 1000, &hello));
	exchange(&p->a, &p->b, hello, 1000);
	boot = p->b.other.boot;
	assert_int_equal(boot, 0x2e2);
	assert_true(frame_peer_ask(&p->b.other, GOSSIP_PACKET_MAX, 4712, 1000, &hello));
	assert_int_equal(frame_hello_handle(&p->b.other, &p->b.self, &p->b.ring, old, len, 1, 1000, &outcome), FRAME_OK);
	assert_false(outcome.established);
	assert_false(outcome.answer);
	assert_int_equal(p->b.other.boot, boot);
}

static void an_answer_that_comes_too_late_establishes_nothing(void **state)
{
	struct pair *p = *state;
	uint8_t packet[GOSSIP_PACKET_MAX];
	struct frame_hello_outcome outcome;
	struct frame_hello hello;
	size_t len;

	restart(&p->a, 0x2e2);
	assert_true(frame_peer_ask(&p->b.other, GOSSIP_PACKET_MAX, 4711, 0, &hello));
	hello.echo = hello.ask;
	hello.ask = 0;
	len = frame_hello_seal(&p->a.self, &p->a.ring, &p->a.other.host_id, &hello, packet);
	assert_int_equal(
		frame_hello_handle(&p->b.other, &p->b.self, &p->b.ring, packet, len, 1, FRAME_ASK_LIVES_MS, &outcome), FRAME_OK);
	assert_false(outcome.established);
	assert_int_equal(
		frame_hello_handle(&p->b.other, &p->b.self, &p->b.ring, packet, len, 1, FRAME_ASK_LIVES_MS - 1, &outcome),
		FRAME_OK);
	assert_true(outcome.established);
}

static void nothing_short_or_frequent_makes_us_ask(void **state)
{
	struct pair *p = *state;
	struct frame_hello first, hello;

	assert_false(frame_peer_ask(&p->b.other, FRAME_HELLO_SIZE - 1, 1, 1000, &hello));
	assert_true(frame_peer_ask(&p->b.other, FRAME_HELLO_SIZE, 1, 1000, &first));
	assert_false(frame_peer_ask(&p->b.other, GOSSIP_PACKET_MAX, 2, 1000 + FRAME_ASK_EVERY_MS - 1, &hello));
	/* Later again, and still the same question while it is open: the answer to the first may be on its way. */
	assert_true(frame_peer_ask(&p->b.other, GOSSIP_PACKET_MAX, 3, 1000 + FRAME_ASK_EVERY_MS, &hello));
	assert_int_equal(hello.ask, first.ask);
	assert_true(frame_peer_ask(&p->b.other, GOSSIP_PACKET_MAX, 4, 1000 + FRAME_ASK_LIVES_MS, &hello));
	assert_int_equal(hello.ask, 4);
}

static void answers_are_counted_by_the_second(void **state)
{
	struct pair *p = *state;
	uint8_t packet[GOSSIP_PACKET_MAX];
	struct frame_hello_outcome outcome;
	struct frame_hello hello = {0, 6};
	unsigned i, answered = 0;
	size_t len;

	restart(&p->a, 0x2e2);
	for (i = 0; i < 3 * FRAME_ANSWERS_PER_S; i++) {
		len = frame_hello_seal(&p->a.self, &p->a.ring, &p->a.other.host_id, &hello, packet);
		assert_int_equal(
			frame_hello_handle(&p->b.other, &p->b.self, &p->b.ring, packet, len, 1, 5000 + i, &outcome), FRAME_OK);
		answered += outcome.answer;
	}
	assert_int_equal(answered, FRAME_ANSWERS_PER_S);
	len = frame_hello_seal(&p->a.self, &p->a.ring, &p->a.other.host_id, &hello, packet);
	assert_int_equal(frame_hello_handle(&p->b.other, &p->b.self, &p->b.ring, packet, len, 1, 6000, &outcome), FRAME_OK);
	assert_true(outcome.answer);
}

/* Whoever kept a hello of an earlier life sends it again and again: it has a question, and establishes nothing. Its owner is
 * answered all the same, once it has shown that it is there. */
static void repeated_hellos_use_up_no_answer_of_their_owner(void **state)
{
	struct pair *p = *state;
	uint8_t old[GOSSIP_PACKET_MAX], packet[GOSSIP_PACKET_MAX];
	struct frame_hello hello = {0, 6};
	struct frame_hello_outcome outcome;
	size_t old_len, len;

	restart(&p->a, 0x01d);
	old_len = frame_hello_seal(&p->a.self, &p->a.ring, &p->a.other.host_id, &hello, old);
	restart(&p->a, 0x2e2);
	for (unsigned i = 0; i < 3 * FRAME_ANSWERS_PER_S; i++)
		assert_int_equal(
			frame_hello_handle(&p->b.other, &p->b.self, &p->b.ring, old, old_len, 1, 5000, &outcome), FRAME_OK);
	assert_false(outcome.answer);
	/* Any packet of A makes B ask, and A answers and asks in its turn. */
	assert_true(frame_peer_ask(&p->b.other, GOSSIP_PACKET_MAX, 4711, 5000, &hello));
	hello.echo = hello.ask;
	hello.ask = 815;
	len = frame_hello_seal(&p->a.self, &p->a.ring, &p->a.other.host_id, &hello, packet);
	assert_int_equal(frame_hello_handle(&p->b.other, &p->b.self, &p->b.ring, packet, len, 1, 5001, &outcome), FRAME_OK);
	assert_true(outcome.established);
	assert_true(outcome.answer);
	assert_int_equal(outcome.reply.echo, 815);
}

static void a_hello_is_guarded_like_any_frame(void **state)
{
	struct pair *p = *state;
	uint8_t packet[GOSSIP_PACKET_MAX];
	struct frame_hello_outcome outcome = {.established = true};
	struct frame_hello hello = {0, 6};
	size_t len = frame_hello_seal(&p->a.self, &p->a.ring, &p->a.other.host_id, &hello, packet), bit;
	struct host other = p->b;

	for (bit = 0; bit < len * 8; bit++) {
		packet[bit / 8] ^= 1 << bit % 8;
		assert_int_not_equal(
			frame_hello_handle(&p->b.other, &p->b.self, &p->b.ring, packet, len, 1, 0, &outcome), FRAME_OK);
		packet[bit / 8] ^= 1 << bit % 8;
	}
	other.self.host_id.bytes[0] ^= 1;
	assert_int_equal(frame_hello_handle(&other.other, &other.self, &other.ring, packet, len, 1, 0, &outcome), FRAME_KEY);
	assert_true(outcome.established); /* untouched */
	assert_int_equal(open_at(&p->b, packet, len), FRAME_VERSION_UNKNOWN);
	assert_int_equal(frame_hello_handle(&p->b.other, &p->b.self, &p->b.ring, packet, len, 1, 0, &outcome), FRAME_OK);
	assert_false(outcome.established);
	len = seal_text(&p->a, "an ordinary frame of the size of a hello, or so", packet);
	assert_int_equal(
		frame_hello_handle(&p->b.other, &p->b.self, &p->b.ring, packet, len, 1, 0, &outcome), FRAME_VERSION_UNKNOWN);
}

static void a_join_is_recognised_and_not_opened(void **state)
{
	struct pair *p = *state;
	uint8_t packet[GOSSIP_PACKET_MAX] = {0x1f, 1};
	struct frame_header header;

	assert_int_equal(frame_peek(packet, sizeof(packet), &header), FRAME_OK);
	assert_int_equal(header.class, FRAME_CLASS_ADMISSION);
	assert_int_equal(open_at(&p->b, packet, sizeof(packet)), FRAME_VERSION_UNKNOWN);
}

/* The bytes of docs/wire.md, "Test vectors": computed there by other code than ours. */
static void the_bytes_are_the_documented_ones(void **state)
{
	static const char frame[] = "120100000a1111111100000000000000014b4f6bc7cb0a4db45b3a4fd4542347a333502b57";
	static const char hello_text[] =
		"1e0100000aaaaaaaaa111111110000000000000002a3065e8f171894147c669e4659d698bffef3798ca36c94595e58e1a0b9cbce50";
	struct pair *p = *state;
	struct frame_hello hello = {0x1111, 0x2222};
	uint8_t packet[GOSSIP_PACKET_MAX], key[CLUSTER_KEY_SIZE];
	char text[2 * GOSSIP_PACKET_MAX + 1];
	unsigned i;

	for (i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)i;
	frame_ring_init(&p->a.ring);
	assert_int_equal(frame_ring_add(&p->a.ring, FRAME_KEY_ID_FIRST, key, NULL), 0);
	hex_encode(packet, seal_text(&p->a, "text", packet), text);
	assert_string_equal(text, frame);
	hex_encode(packet, frame_hello_seal(&p->a.self, &p->a.ring, &p->a.other.host_id, &hello, packet), text);
	assert_string_equal(text, hello_text);
}

#define test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(what_is_sealed_opens),
		test(every_length_that_fits_comes_through),
		test(a_changed_bit_anywhere_is_refused),
		test(the_refusal_names_what_was_changed),
		test(a_packet_cut_off_anywhere_is_refused),
		test(only_the_addressed_host_of_the_cluster_can_open),
		test(the_ring_opens_with_every_key_and_seals_with_the_active),
		test(a_packet_counts_once),
		test(the_window_takes_2048_and_not_one_more),
		test(the_window_agrees_with_a_plain_set),
		test(few_packets_need_no_allocation),
		test(a_forged_counter_does_not_move_the_window),
		test(learning_the_same_boot_again_keeps_the_window),
		test(a_restarted_host_is_asked_and_then_heard),
		test(what_was_sent_to_an_earlier_process_is_not_for_the_next),
		test(an_old_boot_that_comes_back_is_a_twin),
		test(a_host_that_starts_may_ask_first),
		test(questions_that_cross_both_count),
		test(an_old_hello_establishes_nothing),
		test(an_answer_that_comes_too_late_establishes_nothing),
		test(nothing_short_or_frequent_makes_us_ask),
		test(answers_are_counted_by_the_second),
		test(repeated_hellos_use_up_no_answer_of_their_owner),
		test(a_hello_is_guarded_like_any_frame),
		test(a_join_is_recognised_and_not_opened),
		test(the_bytes_are_the_documented_ones),
	};

	return cmocka_run_group_tests_name("gossip_frame", tests, NULL, NULL);
}

/* What becomes of packets that find the socket full, on sockets whose reader is the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/udp_internal.h"

#define SIZE 1200

struct pair {
	int writer, reader;
	struct udp_out out;
};

static struct pair open_pair(void)
{
	struct pair p = {0};
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds), 0);
	p.writer = fds[0];
	p.reader = fds[1];
	return p;
}

static void close_pair(struct pair *p)
{
	udp_out_free(&p->out);
	close(p->writer);
	close(p->reader);
}

static const struct sockaddr_storage nowhere; /* the pair is connected */

static bool put(struct pair *p, uint8_t class, uint8_t number)
{
	uint8_t packet[SIZE] = {(uint8_t)(1 << 4 | class), number};

	udp_queue(&p->out, p->writer, &nowhere, 0, packet, sizeof(packet));
	return udp_flush(&p->out, p->writer);
}

/* The number of the next packet of another class than push, -1: there is none. */
static int take(struct pair *p)
{
	uint8_t packet[SIZE];

	while (recv(p->reader, packet, sizeof(packet), 0) == SIZE)
		if (packet[0] != (1 << 4 | 2))
			return packet[1];
	return -1;
}

static void fill(struct pair *p)
{
	while (p->out.dropped == 0)
		assert_false(put(p, 2, 0));
}

static void probes_wait_where_bulk_is_dropped(void **state)
{
	static const uint8_t classes[] = {0, 1, 14, 15};
	struct pair p = open_pair();

	(void)state;
	fill(&p);
	for (uint8_t i = 0; i < sizeof(classes); i++)
		assert_true(put(&p, classes[i], i));
	assert_true(put(&p, 2, 99));
	assert_true(put(&p, 3, 99));
	assert_int_equal(p.out.waited, sizeof(classes));
	assert_int_equal(p.out.dropped, 3);
	assert_true(udp_flush(&p.out, p.writer)); /* still full */
	assert_int_equal(take(&p), -1);
	assert_false(udp_flush(&p.out, p.writer));
	for (uint8_t i = 0; i < sizeof(classes); i++)
		assert_int_equal(take(&p), i);
	assert_int_equal(take(&p), -1);
	assert_false(put(&p, 2, 0)); /* and bulk goes again */
	assert_int_equal(p.out.dropped, 3);
	close_pair(&p);
}

static void what_waits_goes_before_what_comes_later(void **state)
{
	struct pair p = open_pair();

	(void)state;
	fill(&p);
	assert_true(put(&p, 0, 1));
	assert_int_equal(take(&p), -1);
	assert_false(put(&p, 0, 2)); /* room for both */
	assert_int_equal(take(&p), 1);
	assert_int_equal(take(&p), 2);
	close_pair(&p);
}

static void so_many_wait_and_no_more(void **state)
{
	struct pair p = open_pair();
	unsigned before;

	(void)state;
	fill(&p);
	do {
		before = p.out.waiting_count;
		put(&p, 0, 1);
	} while (p.out.waiting_count > before);
	assert_int_equal(p.out.waited, before);
	assert_in_range(before, 64, 1024);
	assert_int_equal(p.out.dropped, 1); /* by fill() */
	assert_int_equal(p.out.lost, 1);
	close_pair(&p);
}

/* As where a device's queue is full and IP_RECVERR is on: not EAGAIN. What comes behind goes on. */
static void what_the_kernel_refuses_is_counted(void **state)
{
	static uint8_t too_big[UDP_OUT_BYTES] = {1 << 4};
	struct pair p = open_pair();
	int size = 1; /* the kernel's least, less than such a packet */

	(void)state;
	assert_int_equal(setsockopt(p.writer, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
	udp_queue(&p.out, p.writer, &nowhere, 0, too_big, sizeof(too_big));
	assert_false(udp_flush(&p.out, p.writer));
	assert_int_equal(p.out.lost, 1);
	assert_false(put(&p, 0, 7));
	assert_int_equal(take(&p), 7);
	assert_int_equal(p.out.waited + p.out.dropped, 0);
	close_pair(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(probes_wait_where_bulk_is_dropped),
		cmocka_unit_test(what_waits_goes_before_what_comes_later),
		cmocka_unit_test(so_many_wait_and_no_more),
		cmocka_unit_test(what_the_kernel_refuses_is_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The TCP side of gossip's port, where UDP does not pass.
 *
 * A connection carries the very packets that UDP would, each behind its length (u16, big endian). A packet of admission or
 * recovery is a question: one answer ends the connection. Members' packets go both ways as long as the connection lives; when it
 * has ended, the next packet makes another. The packets bring their own encryption, so nothing here is trusted or secret. What
 * comes from outside is bounded: so many connections each way, one packet of at most GOSSIP_PACKET_MAX at a time, and a deadline
 * for the whole of it, so that nobody keeps a place for longer by saying something. Nor does anybody keep members out who only
 * opens connections: when all places are taken, the oldest that has brought nothing of a member yet is ended for the next one.
 * The core answers to the address that it was given, within its call or a moment later: an answer to an address that a connection
 * waits at goes there. */
#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <utlist.h>

#include "base/alloc.h"

#include "daemon/node_internal.h"

#define INBOUND_MAX 64
#define OUTBOUND_MAX 64
#define DEADLINE_S 5
#define ANSWER_MS 500 /* for the core, from a packet to its answer: silence is an answer too */
#define PREFIX_SIZE 2
#define OUTPUT_MAX 65536 /* not taken by the peer: what comes behind it is lost, as with a full socket of UDP */
#define CLASSES 4	 /* of ordinary frames */
#define CLASS_HELLO 14
#define CLASS_ADMISSION 15

struct stream {
	struct streams *streams;
	struct bufferevent *bev;
	struct event *deadline; /* of the whole connection: a byte now and then does not extend it */
	struct gossip_addr peer;
	bool inbound;
	bool proven; /* it brought a packet of a member */
	bool ending; /* it brought a question, or the answer to one */
	bool answered;
	struct stream *prev, *next;
};

struct streams {
	struct node *node;
	struct evconnlistener *listener;
	struct stream *list;
	unsigned inbound, outbound;
	uint64_t refused;
};

static void stream_free(struct stream *s)
{
	struct streams *all = s->streams;

	DL_DELETE(all->list, s);
	if (s->inbound)
		all->inbound--;
	else
		all->outbound--;
	if (s->bev)
		bufferevent_free(s->bev);
	if (s->deadline)
		event_free(s->deadline);
	free(s);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	stream_free(arg);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	(void)bev;
	if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR | BEV_EVENT_TIMEOUT))
		stream_free(arg);
}

static void on_written(struct bufferevent *bev, void *arg)
{
	struct stream *s = arg;

	(void)bev;
	if (s->inbound && s->answered)
		stream_free(s);
}

static void write_packet(struct stream *s, const void *packet, size_t len)
{
	uint8_t prefix[PREFIX_SIZE] = {(uint8_t)(len >> 8), (uint8_t)len};

	bufferevent_write(s->bev, prefix, sizeof(prefix));
	bufferevent_write(s->bev, packet, len);
}

/* False: whoever sent that does not speak this protocol. */
static bool take_packet(struct stream *s, uint8_t packet[GOSSIP_PACKET_MAX], size_t *ret_len)
{
	struct evbuffer *in = bufferevent_get_input(s->bev);
	uint8_t prefix[PREFIX_SIZE];
	size_t len;

	*ret_len = 0;
	if (evbuffer_copyout(in, prefix, sizeof(prefix)) != sizeof(prefix))
		return true;
	len = (size_t)prefix[0] << 8 | prefix[1];
	if (len == 0 || len > GOSSIP_PACKET_MAX)
		return false;
	if (evbuffer_get_length(in) < PREFIX_SIZE + len)
		return true;
	evbuffer_drain(in, PREFIX_SIZE);
	evbuffer_remove(in, packet, len);
	*ret_len = len;
	return packet[0] >> 4 != 0 && ((packet[0] & 15) < CLASSES || (packet[0] & 15) >= CLASS_HELLO);
}

static bool is_question(const uint8_t *packet)
{
	return (packet[0] & 15) == CLASS_ADMISSION;
}

/* What there is already, from a member. The call may end other connections, never this one. */
static void take_all(struct stream *s)
{
	uint8_t packet[GOSSIP_PACKET_MAX];
	struct streams *all = s->streams;
	size_t len;

	for (;;) {
		if (!take_packet(s, packet, &len)) {
			all->refused++;
			stream_free(s);
			return;
		}
		if (len == 0)
			return;
		if (is_question(packet))
			break;
		s->proven |= cluster_packet(all->node, &s->peer, packet, len);
	}
	s->ending = true;
	bufferevent_disable(s->bev, EV_READ);
	if (s->inbound)
		event_add(s->deadline, &(struct timeval){.tv_usec = ANSWER_MS * 1000});
	cluster_packet(all->node, &s->peer, packet, len);
	if (!s->inbound)
		stream_free(s);
}

static void on_readable(struct bufferevent *bev, void *arg)
{
	struct stream *s = arg;

	(void)bev;
	if (!s->ending)
		take_all(s);
}

/* A connection that ends without an answer ends at once, also when this process does: its kernel would else say goodbye for
 * minutes to a peer that is not there, and keep a network namespace for that. */
static void set_linger(evutil_socket_t fd, bool until_sent)
{
	const struct linger linger = {.l_onoff = !until_sent};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

static struct stream *stream_new(struct streams *all, evutil_socket_t fd, const struct gossip_addr *peer, bool inbound)
{
	const struct timeval deadline = {.tv_sec = DEADLINE_S};
	struct stream *s = alloc_new(struct stream);

	*s = (struct stream){.streams = all, .peer = *peer, .inbound = inbound};
	DL_APPEND(all->list, s);
	if (inbound)
		all->inbound++;
	else
		all->outbound++;
	set_linger(fd, false);
	s->bev = alloc_made(bufferevent_socket_new(all->node->base, fd, BEV_OPT_CLOSE_ON_FREE), "stream");
	s->deadline = alloc_made(evtimer_new(all->node->base, on_deadline, s), "timer");
	event_add(s->deadline, &deadline);
	bufferevent_setcb(s->bev, on_readable, on_written, on_event, s);
	bufferevent_setwatermark(s->bev, EV_READ, 0, PREFIX_SIZE + GOSSIP_PACKET_MAX);
	bufferevent_enable(s->bev, EV_READ | EV_WRITE);
	return s;
}

/* Of those that prove nothing one without a question first, since an answer may be on its way to the others. */
static bool give_way(struct streams *all)
{
	struct stream *s, *found = NULL;

	DL_FOREACH(all->list, s)
	if (s->inbound && !s->proven && (!found || (found->ending && !s->ending)))
		found = s;
	if (!found)
		return false;
	all->refused++;
	stream_free(found);
	return true;
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *sa, int sa_len, void *arg)
{
	struct streams *all = arg;
	struct sockaddr_storage ss = {0};
	struct gossip_addr peer;

	(void)listener;
	if (sa_len < 0 || (size_t)sa_len > sizeof(ss) || (all->inbound >= INBOUND_MAX && !give_way(all))) {
		all->refused++;
		evutil_closesocket(fd);
		return;
	}
	memcpy(&ss, sa, (size_t)sa_len);
	cluster_from_sockaddr(&ss, &peer);
	stream_new(all, fd, &peer, true);
}

static struct streams *streams_of(struct node *node)
{
	if (!node->streams) {
		node->streams = alloc_new(struct streams);
		node->streams->node = node;
	}
	return node->streams;
}

int streams_open(struct node *node, struct err *err)
{
	unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE;
	struct streams *all = streams_of(node);
	struct sockaddr_storage ss;
	char text[IP_TEXT_SIZE];
	socklen_t len;

	if (node->options.listen.ip.family == 6)
		flags |= LEV_OPT_BIND_IPV6ONLY;
	len = cluster_to_sockaddr(&node->options.listen, &ss);
	all->listener = evconnlistener_new_bind(node->base, on_accept, all, flags, INBOUND_MAX, (struct sockaddr *)&ss, (int)len);
	if (!all->listener)
		return err_sys(err, errno,
			"cannot listen on TCP %s port %u (is the address on this host, and no other daemon on the port?)",
			ip_format(&node->options.listen.ip, text), node->options.listen.port);
	return 0;
}

void streams_adopt(struct node *node, int fd, const struct gossip_addr *peer, bool inbound)
{
	stream_new(streams_of(node), fd, peer, inbound);
}

void streams_close(struct node *node)
{
	struct streams *all = node->streams;
	struct stream *s, *next;

	if (!all)
		return;
	DL_FOREACH_SAFE(all->list, s, next)
	stream_free(s);
	if (all->listener)
		evconnlistener_free(all->listener);
	free(all);
	node->streams = NULL;
}

/* One that members' packets go by: whose peer has that address, or came from it. */
static struct stream *find_open(const struct streams *all, const struct gossip_addr *to)
{
	struct stream *s;

	DL_FOREACH(all->list, s)
	if (!s->ending && to->port == s->peer.port && ip_equal(&to->ip, &s->peer.ip))
		break;
	return s;
}

void streams_send(struct node *node, const struct gossip_addr *to, const void *packet, size_t len)
{
	struct streams *all = node->streams;
	struct stream *s = all && !is_question(packet) ? find_open(all, to) : NULL;
	struct sockaddr_storage ss;
	socklen_t ss_len;
	int fd;

	/* What answers a question within the call that brought it is sent by stream: to where that connection came from, not to a
	 * port that nobody listens at. */
	if (is_question(packet) && streams_answer(node, to, packet, len))
		return;
	if (s) {
		if (evbuffer_get_length(bufferevent_get_output(s->bev)) < OUTPUT_MAX)
			write_packet(s, packet, len);
		return;
	}
	if (!all || all->outbound >= OUTBOUND_MAX || to->ip.family != node->options.listen.ip.family)
		return;
	ss_len = cluster_to_sockaddr(to, &ss);
	fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	s = stream_new(all, fd, to, false);
	write_packet(s, packet, len);
	/* What is found to fail later, on_event is told, from the loop. */
	if (bufferevent_socket_connect(s->bev, (struct sockaddr *)&ss, (int)ss_len) < 0)
		stream_free(s);
}

bool streams_answer(struct node *node, const struct gossip_addr *to, const void *packet, size_t len)
{
	struct stream *s;

	if (!node->streams || !node->streams->inbound)
		return false;
	DL_FOREACH(node->streams->list, s)
	{
		if (!s->inbound || !s->ending || s->answered || to->port != s->peer.port || !ip_equal(&to->ip, &s->peer.ip))
			continue;
		s->answered = true;
		set_linger(bufferevent_getfd(s->bev), true);
		write_packet(s, packet, len);
		return true;
	}
	return false;
}

uint64_t streams_refused(const struct node *node)
{
	return node->streams ? node->streams->refused : 0;
}

/* What an attachment costs when nobody keeps books: makes the kernel's objects of one, and nothing else.
 *
 * Called as a CNI plugin is (CNI_COMMAND ADD or DEL, CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME), in the host's namespace, where the
 * bridge "objects0" must be. The container's id ends in a number, from which everything else follows. ADD makes what trestled
 * makes for an attachment of mode l2: the pair in one message, its host end a tagged and locked port of the bridge, the bridge's
 * row and neighbour of it; in the container address, up, a default route. Each namespace gets one batch, as cheap as the kernel
 * takes it. DEL deletes the pair and waits for it. Static, as the plugin is, so that both start alike. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BRIDGE "objects0"
#define BRIDGE_INDEX 900
#define FIRST_INDEX 1000
#define SUBNET 0x0a1f0000u /* 10.31.0.0/16 */
#define MTU 1450

struct batch {
	_Alignas(8) char bytes[4096];
	size_t len, last; /* last: where the last message begins */
};

static void die(const char *what, int error)
{
	fprintf(stderr, "objects: %s: %s\n", what, strerror(error));
	exit(1);
}

static void *put(struct batch *b, const void *data, size_t len)
{
	void *at = b->bytes + b->len;

	memcpy(at, data, len);
	b->len = NLMSG_ALIGN(b->len + len);
	return at;
}

static void begin(struct batch *b, uint16_t type, uint16_t flags, const void *head, size_t len)
{
	struct nlmsghdr h = {.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags};

	b->last = b->len;
	put(b, &h, sizeof(h));
	put(b, head, len);
}

static void end(struct batch *b)
{
	((struct nlmsghdr *)(b->bytes + b->last))->nlmsg_len = (uint32_t)(b->len - b->last);
}

static void attribute(struct batch *b, uint16_t type, const void *data, size_t len)
{
	struct rtattr a = {.rta_type = type, .rta_len = (unsigned short)RTA_LENGTH(len)};

	put(b, &a, sizeof(a));
	put(b, data, len);
}

static void number(struct batch *b, uint16_t type, uint32_t value)
{
	attribute(b, type, &value, sizeof(value));
}

static size_t open_nest(struct batch *b, uint16_t type)
{
	size_t at = b->len;

	attribute(b, type | NLA_F_NESTED, "", 0);
	return at;
}

static void close_nest(struct batch *b, size_t at)
{
	((struct rtattr *)(b->bytes + at))->rta_len = (unsigned short)(b->len - at);
}

/* Sends the batch and waits for the answer to its last message, or the first error. */
static void run(struct batch *b, int fd, const char *what)
{
	_Alignas(8) char answer[4096];
	const struct nlmsghdr *h = (const void *)answer;
	const struct nlmsgerr *e;
	ssize_t n;

	((struct nlmsghdr *)(b->bytes + b->last))->nlmsg_flags |= NLM_F_ACK;
	if (send(fd, b->bytes, b->len, 0) < 0 || (n = recv(fd, answer, sizeof(answer), 0)) < 0)
		die(what, errno);
	e = NLMSG_DATA(h);
	if (!NLMSG_OK(h, (size_t)n) || h->nlmsg_type != NLMSG_ERROR || e->error)
		die(what, h->nlmsg_type == NLMSG_ERROR ? -e->error : EPROTO);
}

static int open_netlink(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0)
		die("socket", errno);
	return fd;
}

struct pair {
	uint32_t index; /* of both ends, each in its namespace */
	uint8_t mac[6], host_mac[6];
	uint32_t address; /* network order */
	char name[16], alias[64];
	const char *ifname;
	int netns;
};

static void put_end(struct batch *b, const char *name, const uint8_t mac[6])
{
	attribute(b, IFLA_IFNAME, name, strlen(name) + 1);
	attribute(b, IFLA_ADDRESS, mac, 6);
	number(b, IFLA_MTU, MTU);
	number(b, IFLA_NUM_TX_QUEUES, 1);
	number(b, IFLA_NUM_RX_QUEUES, 1);
}

static void put_veth(struct batch *b, const struct pair *p)
{
	struct ifinfomsg ifi = {.ifi_index = (int)p->index}, peer = {.ifi_index = (int)p->index};
	size_t info, data, end_of_peer;

	begin(b, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &ifi, sizeof(ifi));
	put_end(b, p->name, p->host_mac);
	number(b, IFLA_MASTER, BRIDGE_INDEX);
	info = open_nest(b, IFLA_LINKINFO);
	attribute(b, IFLA_INFO_KIND, "veth", 5);
	data = open_nest(b, IFLA_INFO_DATA);
	end_of_peer = open_nest(b, VETH_INFO_PEER);
	put(b, &peer, sizeof(peer));
	put_end(b, p->ifname, p->mac);
	number(b, IFLA_NET_NS_FD, (uint32_t)p->netns);
	close_nest(b, end_of_peer);
	close_nest(b, data);
	close_nest(b, info);
	end(b);
}

static void put_port(struct batch *b, const struct pair *p)
{
	struct ifinfomsg ifi = {.ifi_index = (int)p->index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
	size_t info, data;
	uint8_t on = 1, off = 0;

	begin(b, RTM_NEWLINK, 0, &ifi, sizeof(ifi));
	attribute(b, IFLA_IFALIAS, p->alias, strlen(p->alias));
	info = open_nest(b, IFLA_LINKINFO);
	attribute(b, IFLA_INFO_SLAVE_KIND, "bridge", 7);
	data = open_nest(b, IFLA_INFO_SLAVE_DATA);
	attribute(b, IFLA_BRPORT_LEARNING, &off, 1);
	attribute(b, IFLA_BRPORT_UNICAST_FLOOD, &off, 1);
	attribute(b, IFLA_BRPORT_LOCKED, &on, 1);
	close_nest(b, data);
	close_nest(b, info);
	end(b);
}

static void put_rows(struct batch *b, const struct pair *p)
{
	struct ndmsg row = {
		.ndm_family = AF_BRIDGE, .ndm_ifindex = (int)p->index, .ndm_state = NUD_NOARP, .ndm_flags = NTF_MASTER};
	struct ndmsg neighbour = {.ndm_family = AF_INET, .ndm_ifindex = BRIDGE_INDEX, .ndm_state = NUD_PERMANENT};

	begin(b, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &row, sizeof(row));
	attribute(b, NDA_LLADDR, p->mac, 6);
	end(b);
	begin(b, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &neighbour, sizeof(neighbour));
	attribute(b, NDA_DST, &p->address, 4);
	attribute(b, NDA_LLADDR, p->mac, 6);
	end(b);
}

static void put_inside(struct batch *b, const struct pair *p)
{
	struct ifaddrmsg addr = {.ifa_family = AF_INET, .ifa_prefixlen = 16, .ifa_index = p->index};
	struct ifinfomsg up = {.ifi_index = (int)p->index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
	struct rtmsg route = {.rtm_family = AF_INET,
		.rtm_table = RT_TABLE_MAIN,
		.rtm_protocol = RTPROT_STATIC,
		.rtm_scope = RT_SCOPE_UNIVERSE,
		.rtm_type = RTN_UNICAST};
	uint32_t gateway = htonl(SUBNET | 1);

	begin(b, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &addr, sizeof(addr));
	attribute(b, IFA_LOCAL, &p->address, 4);
	attribute(b, IFA_ADDRESS, &p->address, 4);
	end(b);
	begin(b, RTM_NEWLINK, 0, &up, sizeof(up));
	attribute(b, IFLA_IFALIAS, p->alias, strlen(p->alias));
	end(b);
	begin(b, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, &route, sizeof(route));
	attribute(b, RTA_GATEWAY, &gateway, 4);
	number(b, RTA_OIF, p->index);
	end(b);
}

static void add(struct pair *p, const char *netns)
{
	struct batch outside = {.len = 0}, inside = {.len = 0};

	p->netns = open(netns, O_RDONLY | O_CLOEXEC);
	if (p->netns < 0)
		die(netns, errno);
	put_veth(&outside, p);
	put_port(&outside, p);
	put_rows(&outside, p);
	run(&outside, open_netlink(), "host");
	if (setns(p->netns, CLONE_NEWNET) < 0)
		die("enter the container", errno);
	put_inside(&inside, p);
	run(&inside, open_netlink(), "container");
	printf("{\"address\":\"%s/16\"}\n", inet_ntop(AF_INET, &p->address, (char[32]){0}, 32));
}

static void del(const struct pair *p)
{
	struct ifinfomsg ifi = {.ifi_index = (int)p->index};
	struct batch b = {.len = 0};

	begin(&b, RTM_DELLINK, 0, &ifi, sizeof(ifi));
	end(&b);
	run(&b, open_netlink(), "delete");
}

static const char *need(const char *name)
{
	const char *value = getenv(name);

	if (!value || !*value)
		die(name, EINVAL);
	return value;
}

int main(void)
{
	const char *id = need("CNI_CONTAINERID");
	struct pair p = {.mac = {2, 0xfe}, .host_mac = {2, 0xee}, .ifname = need("CNI_IFNAME")};
	uint32_t n = (uint32_t)strtoul(id + strcspn(id, "0123456789"), NULL, 10), be = htonl(n);

	p.index = FIRST_INDEX + n;
	p.address = htonl(SUBNET | (n + 2));
	memcpy(p.mac + 2, &be, 4);
	memcpy(p.host_mac + 2, &be, 4);
	snprintf(p.name, sizeof(p.name), "ob%u", n);
	snprintf(p.alias, sizeof(p.alias), "objects:%.40s", id);
	if (strcmp(need("CNI_COMMAND"), "ADD") == 0)
		add(&p, need("CNI_NETNS"));
	else
		del(&p);
	return 0;
}

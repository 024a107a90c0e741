"""The Docker engine's side of the plugin protocol, call by call, and a small container runtime on it.

Speaks as dockerd 20.10 does: POST, an empty Host, no Content-Type, a Content-Length, one object with a line end. Runtime.attach and
detach make the calls in the order that dockerd makes them and move the link into the container's namespace as it does.
"""
import itertools
import json
import secrets
import signal
import socket
import time

from .shell import Failed

ENDPOINT_GATEWAY = {"RequestAddressType": "com.docker.network.gateway"}


class Refused(Failed):
    """The plugin answered with an error."""

    def __init__(self, method, status, text):
        super().__init__(f"{method}: {status}: {text}")
        self.method, self.status, self.text = method, status, text


class Lost(ConnectionError):
    """The daemon went away with a call in its hands: nobody knows whether it was done."""


class Plugin:
    """One call, one connection. `where` gives the socket's path, which moves when its host boots.

    OSError when the daemon is not there; of these, Lost when it had taken the call.
    """

    def __init__(self, where, timeout=30):
        self.where, self.timeout = where, timeout

    def raw(self, data):
        """Sends bytes as they are; returns (status, body)."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(self.timeout)
            s.connect(self.where())
            try:
                s.sendall(data)
                return self._answer(s)
            except OSError as e:
                raise Lost(f"cut off: {e}") from e

    @staticmethod
    def _answer(s):
        got = b""
        while b"\r\n\r\n" not in got:
            more = s.recv(65536)
            if not more:
                raise ConnectionError(f"closed before an answer: {got!r}")
            got += more
        head, body = got.split(b"\r\n\r\n", 1)
        headers = {k.strip().lower(): v.strip() for k, v in (l.split(b":", 1) for l in head.split(b"\r\n")[1:])}
        length = int(headers[b"content-length"])
        while len(body) < length:
            more = s.recv(65536)
            if not more:
                raise ConnectionError("closed inside an answer")
            body += more
        return int(head.split()[1]), body

    def call(self, method, **body):
        return self.post(method, body)

    def post(self, method, body=None):
        data = b"" if body is None else json.dumps(body).encode() + b"\n"
        head = (f"POST /{method} HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {len(data)}\r\n"
                "Accept: application/vnd.docker.plugins.v1.2+json\r\n\r\n").encode()
        status, text = self.raw(head + data)
        answer = json.loads(text)
        error = answer.get("Err") or answer.get("Error") if isinstance(answer, dict) else None
        if status != 200 or error:
            raise Refused(method, status, error or text.decode())
        return answer

    def request_pool(self, pool="", sub="", options=None, v6=False, space="trestle-local"):
        return self.call("IpamDriver.RequestPool", AddressSpace=space, Pool=pool, SubPool=sub, Options=options or {}, V6=v6)

    def request_address(self, pool_id, address="", options=None):
        return self.call("IpamDriver.RequestAddress", PoolID=pool_id, Address=address, Options=options)["Address"]

    def release_address(self, pool_id, address):
        return self.call("IpamDriver.ReleaseAddress", PoolID=pool_id, Address=address.split("/")[0])

    def create_network(self, name, subnet, gateway=None, options=None, network_id=None, subnet6=None):
        """Pools, gateways and network, as `docker network create -d trestle --ipam-driver trestle --subnet` does; with subnet6 as
        `--ipv6 --subnet SUBNET6` does beside it, or without subnet as newer engines do for IPv6 alone. (id, pool id, IPv6 pool id)"""
        pool_id, data = self._gateway(subnet, False, gateway)
        pool6_id, data6 = self._gateway(subnet6, True, None)
        network_id = network_id or secrets.token_hex(32)
        self.call("NetworkDriver.CreateNetwork", NetworkID=network_id, IPv4Data=data, IPv6Data=data6,
                  Options={"com.docker.network.enable_ipv6": subnet6 is not None,
                           "com.docker.network.generic": {"trestle.network": name, **(options or {})}})
        return network_id, pool_id, pool6_id

    def _gateway(self, subnet, v6, gateway):
        """A pool with its gateway: its id, and what CreateNetwork says of it."""
        if subnet is None:
            return None, []
        pool_id = self.request_pool(subnet, v6=v6)["PoolID"]
        gateway = self.request_address(pool_id, gateway or "", ENDPOINT_GATEWAY)
        return pool_id, [{"AddressSpace": "trestle-local", "Pool": subnet, "Gateway": gateway}]

    def create_endpoint(self, network_id, endpoint_id, address, mac="", address6=""):
        return self.call("NetworkDriver.CreateEndpoint", NetworkID=network_id, EndpointID=endpoint_id,
                         Interface={"Address": address, "AddressIPv6": address6, "MacAddress": mac},
                         Options={"com.docker.network.endpoint.exposedports": [], "com.docker.network.portmap": []})

    def join(self, network_id, endpoint_id, sandbox=None):
        return self.call("NetworkDriver.Join", NetworkID=network_id, EndpointID=endpoint_id,
                         SandboxKey=sandbox or f"/var/run/docker/netns/{endpoint_id[:12]}",
                         Options={"com.docker.network.endpoint.exposedports": [], "com.docker.network.portmap": []})

    def leave(self, network_id, endpoint_id):
        return self.call("NetworkDriver.Leave", NetworkID=network_id, EndpointID=endpoint_id)

    def delete_endpoint(self, network_id, endpoint_id):
        return self.call("NetworkDriver.DeleteEndpoint", NetworkID=network_id, EndpointID=endpoint_id)


class Container:
    """A container of the small runtime: a namespace in the host, and what it was given. An address is "" where there is none."""

    def __init__(self, host, name, endpoint_id, address, mac, address6=""):
        self.host, self.name, self.endpoint_id, self.address, self.mac = host, name, endpoint_id, address, mac
        self.address6 = address6

    @property
    def ip(self):
        return self.address.split("/")[0]

    @property
    def ip6(self):
        return self.address6.split("/")[0]


class Runtime:
    """Containers on one host in one network, without an engine. A pool id is None where the network lacks the family.

    As dockerd: a call that finds no daemon is repeated for 15 s. One that was cut off is not (its repetition has an empty body, which
    is refused), so what it did is unknown, and the calls that undo the failed operation follow.
    """

    PATIENCE_S = 15
    _numbers = itertools.count(1)

    def __init__(self, daemon, network_id, pool_id, pool6_id=None):
        self.host, self.plugin = daemon.host, daemon.plugin()
        self.network_id, self.pool_id, self.pool6_id = network_id, pool_id, pool6_id
        self.dead = False  # the host is going down: nobody repeats anything

    def insist(self, call, *args):
        deadline = time.monotonic() + self.PATIENCE_S
        while True:
            try:
                return call(*args)
            except Lost:
                raise
            except OSError:
                if self.dead or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def attach(self, address="", given=lambda address: None, failed=lambda address: None, address6=""):
        """Runs a container. `given` is told each address as soon as it is acknowledged, `failed` before it is taken back again."""
        endpoint_id = secrets.token_hex(32)
        undo, got = [], []
        try:
            for pool, wanted in ((self.pool_id, address), (self.pool6_id, address6)):
                got.append(self.insist(self.plugin.request_address, pool, wanted) if pool else "")
                if pool:
                    given(got[-1])
                    undo.append((self.plugin.release_address, pool, got[-1]))
            mac = self.insist(self.plugin.create_endpoint, self.network_id, endpoint_id, got[0], "", got[1])["Interface"]["MacAddress"]
            undo.append((self.plugin.delete_endpoint, self.network_id, endpoint_id))
            joined = self.insist(self.plugin.join, self.network_id, endpoint_id)["InterfaceName"]
            undo.append((self.plugin.leave, self.network_id, endpoint_id))
            name = f"c{next(Runtime._numbers)}"
            self._enter(name, joined["SrcName"], joined["DstPrefix"] + "0", [a for a in got if a], mac)
        except (Refused, OSError, Failed):
            for given_back in got:
                if given_back:
                    failed(given_back)
            self._tell(reversed(undo))
            raise
        return Container(self.host, name, endpoint_id, got[0], mac, got[1])

    def _tell(self, calls):
        """Calls that an engine makes whatever their outcome."""
        for call, *args in calls:
            try:
                self.insist(call, *args)
            except OSError:
                pass

    def _enter(self, name, link, inside, addresses, mac):
        # nodad as engines do; it is no word for IPv4 addresses.
        add = "".join(f"ip -n {name} addr add {a} dev {inside}{' nodad' if ':' in a else ''}\n" for a in addresses)
        done = self.host.run("sh", "-ec", f"""
            ip netns add {name}
            ip link set {link} netns {name}
            ip -n {name} link set lo up
            ip -n {name} link set {link} down name {inside} address {mac}
            {add}ip -n {name} link set {inside} up""", check=False)
        if done.returncode != 0:
            self.host.run("ip", "netns", "del", name, check=False)
            raise Failed(f"container {name} with {link} and {addresses}: {done.stderr}")

    def detach(self, container):
        self._tell([(self.plugin.leave, self.network_id, container.endpoint_id)])
        self.end(container)
        given = [(pool, address) for pool, address in ((self.pool_id, container.address), (self.pool6_id, container.address6)) if address]
        self._tell([(self.plugin.delete_endpoint, self.network_id, container.endpoint_id),
                    *[(self.plugin.release_address, pool, address) for pool, address in given]])

    def end(self, container):
        """The container's namespace goes, and its link with it; the daemon is not told."""
        self.host.run("ip", "netns", "del", container.name, check=False)

    def ping(self, container, address, count=1, wait_s=1, size=None):
        """Whether address answers; ARP and neighbour discovery included. With a size: so many bytes of IP, in one piece."""
        whole = ["-M", "do", "-s", size - (48 if ":" in address else 28)] if size else []
        return self.host.run("ip", "netns", "exec", container.name, "ping", "-n", "-q", "-c", count, "-W", wait_s, *whole, address,
                             check=False, timeout=30 + count * wait_s).returncode == 0

    def ping_steadily(self, container, address):
        return Pings(self.host, container, address)


class Pings:
    """A ping every 10 ms or oftener until lost() is asked: with 0.01 ping's timers make it 16 ms, with 0.005 6 ms."""

    def __init__(self, host, container, address):
        name = f"ping-{container.name}"
        self.process = host.start("ip", "netns", "exec", container.name, "ping", "-n", "-i", "0.005", address, name=name)

    def lost(self):
        """Ends it; (sequence numbers without an answer, number of answers). What was in flight at the end does not count."""
        self.process.end(signal.SIGINT)
        with open(self.process.log) as f:
            seen = {int(line.split("icmp_seq=")[1].split()[0]) for line in f if "bytes from" in line}
        last = max(seen, default=0)
        return sorted(set(range(1, last + 1)) - seen), len(seen)

"""The Docker engine's side of the plugin protocol, call by call, and a small container runtime on it.

Speaks as dockerd 20.10 does: POST, an empty Host, no Content-Type, a Content-Length, one object with a line end. Runtime.attach and
detach make the calls in the order that dockerd makes them and move the link into the container's namespace as it does.
"""
import itertools
import json
import os
import secrets
import socket

from .shell import Failed

ENDPOINT_GATEWAY = {"RequestAddressType": "com.docker.network.gateway"}


class Refused(Exception):
    """The plugin answered with an error."""

    def __init__(self, method, status, text):
        super().__init__(f"{method}: {status}: {text}")
        self.method, self.status, self.text = method, status, text


class Plugin:
    """One call, one connection. OSError when the daemon is not there or goes away before the answer is complete."""

    def __init__(self, path, timeout=10):
        self.path, self.timeout = path, timeout

    def raw(self, data):
        """Sends bytes as they are; returns (status, body)."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(self.timeout)
            s.connect(self.path)
            s.sendall(data)
            return self._answer(s)

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

    def create_network(self, name, subnet, gateway=None, options=None, network_id=None):
        """Pool, gateway and network, as `docker network create -d trestle --ipam-driver trestle --subnet` does. (id, pool id)"""
        pool_id = self.request_pool(subnet)["PoolID"]
        gateway = self.request_address(pool_id, gateway or "", ENDPOINT_GATEWAY)
        network_id = network_id or secrets.token_hex(32)
        self.call("NetworkDriver.CreateNetwork", NetworkID=network_id, IPv6Data=[],
                  IPv4Data=[{"AddressSpace": "trestle-local", "Pool": subnet, "Gateway": gateway}],
                  Options={"com.docker.network.enable_ipv6": False,
                           "com.docker.network.generic": {"trestle.network": name, **(options or {})}})
        return network_id, pool_id

    def create_endpoint(self, network_id, endpoint_id, address, mac=""):
        return self.call("NetworkDriver.CreateEndpoint", NetworkID=network_id, EndpointID=endpoint_id,
                         Interface={"Address": address, "AddressIPv6": "", "MacAddress": mac},
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
    """A container of the small runtime: a namespace in the host, and what it was given."""

    def __init__(self, name, endpoint_id, address, mac):
        self.name, self.endpoint_id, self.address, self.mac = name, endpoint_id, address, mac

    @property
    def ip(self):
        return self.address.split("/")[0]


class Runtime:
    """Containers on one host in one network, without an engine."""

    _numbers = itertools.count(1)

    def __init__(self, daemon, network_id, pool_id):
        self.host, self.plugin = daemon.host, daemon.plugin()
        self.network_id, self.pool_id = network_id, pool_id

    def refresh(self):
        """After a reboot the socket's path goes through another process."""
        self.plugin = Plugin(self.host.path("/run/docker/plugins/trestle.sock"))

    def attach(self, address="", on_address=None, on_endpoint=None):
        """Runs a container. The callbacks see each acknowledged step, so a test knows what it holds when the daemon dies in between."""
        given = self.plugin.request_address(self.pool_id, address)
        if on_address:
            on_address(given)
        endpoint_id = secrets.token_hex(32)
        if on_endpoint:
            on_endpoint(endpoint_id)
        made = self.plugin.create_endpoint(self.network_id, endpoint_id, given)
        mac = made["Interface"]["MacAddress"]
        joined = self.plugin.join(self.network_id, endpoint_id)["InterfaceName"]
        name = f"c{next(Runtime._numbers)}"
        self._enter(name, joined["SrcName"], joined["DstPrefix"] + "0", given, mac)
        return Container(name, endpoint_id, given, mac)

    def _enter(self, name, link, inside, address, mac):
        done = self.host.run("sh", "-ec", f"""
            ip netns add {name}
            ip link set {link} netns {name}
            ip -n {name} link set lo up
            ip -n {name} link set {link} down name {inside} address {mac}
            ip -n {name} addr add {address} dev {inside}
            ip -n {name} link set {inside} up""", check=False)
        if done.returncode != 0:
            self.host.run("ip", "netns", "del", name, check=False)
            raise Failed(f"container {name} with {link} and {address}: {done.stderr}")

    def detach(self, container):
        self.plugin.leave(self.network_id, container.endpoint_id)
        self.end(container)
        self.plugin.delete_endpoint(self.network_id, container.endpoint_id)
        self.plugin.release_address(self.pool_id, container.address)

    def end(self, container):
        """The container's namespace goes, and its link with it; the daemon is not told."""
        self.host.run("ip", "netns", "del", container.name, check=False)

    def ping(self, container, address, count=1, deadline=1):
        """Whether address answers; ARP included."""
        return self.host.run("ip", "netns", "exec", container.name, "ping", "-n", "-q", "-c", count, "-W", deadline, address,
                             check=False, timeout=30 + count * deadline).returncode == 0

    def pings(self, container, address):
        """Starts a ping every 10 ms; end it with SIGINT to make it sum up."""
        log = os.path.join(self.host.dir, f"ping-{container.name}.log")
        return self.host.start("ip", "netns", "exec", container.name, "ping", "-n", "-i", "0.01", address, name=f"ping-{container.name}"), log

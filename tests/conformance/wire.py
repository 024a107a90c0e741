"""What the conformance tests share: raw HTTP on the plugin socket, a daemon per test, and the two verdicts of the case tables.

"ok" is status 200 and a JSON object without a non-empty Err or Error. "fail(N)" is status N and JSON with both of them non-empty.
"""
import json
import os
import secrets
import socket
import time
import unittest

from tests.lab import Daemon, Lab, leaks, wait_for
from tests.lab.daemon import PLUGIN

LOCAL, GLOBAL = "trestle-local", "trestle-global"
GATEWAY_OPTIONS = {"RequestAddressType": "com.docker.network.gateway"}
POOL = "10.9.0.0/24"
SANDBOX = "/var/run/docker/netns/0123456789ab"
PORTS_NONE = {"com.docker.network.endpoint.exposedports": [], "com.docker.network.portmap": []}


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """The text of the error, "" when there is none."""
        answer = self.json
        return (answer.get("Err") or answer.get("Error") or "") if isinstance(answer, dict) else f"no object: {self.body!r}"

    @property
    def ok(self):
        return self.status == 200 and not self.error

    def __repr__(self):
        return f"{self.status} {self.body[:400]!r}"


def head(method, length, verb="POST", more="", host=""):
    """The header lines of one request as dockerd 20.10 sends them."""
    return (f"{verb} /{method} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {length}\r\n"
            f"{more}\r\n").encode()


class Wire:
    """One connection to the plugin socket. Bytes out as given, answers in one by one."""

    def __init__(self, path, timeout=60):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise
        self._got = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError(f"closed before the end of an answer; so far {self._got[:200]!r}")
        self._got += data

    def answer(self):
        while b"\r\n\r\n" not in self._got:
            self._more()
        text, self._got = self._got.split(b"\r\n\r\n", 1)
        status, *lines = text.decode().split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, v in (l.split(":", 1) for l in lines)}
        length = int(headers["content-length"])
        while len(self._got) < length:
            self._more()
        body, self._got = self._got[:length], self._got[length:]
        return Answer(int(status.split()[1]), headers, body)

    def closed(self):
        """Waits until the other side closes, and returns True when nothing more came."""
        return self._got == b"" and self.socket.recv(1) == b""


class Socket:
    """Calls on the plugin socket of a daemon, one connection each."""

    def __init__(self, path):
        self.path = path

    def raw(self, data, timeout=60):
        with Wire(self.path, timeout) as wire:
            wire.send(data)
            return wire.answer()

    def send(self, method, data, timeout=60):
        """Any bytes as the body."""
        return self.raw(head(method, len(data)) + data, timeout)

    def post(self, method, body=None, timeout=60):
        """A JSON object as the body; None: no body at all."""
        return self.send(method, b"" if body is None else json.dumps(body).encode() + b"\n", timeout)


def new_id():
    return secrets.token_hex(32)


def network_body(network, pools=(POOL,), generic=None, options=None, **more):
    """The base body of the case table."""
    return {"NetworkID": network,
            "Options": {"com.docker.network.enable_ipv6": False, "com.docker.network.generic": generic or {}, **(options or {})},
            "IPv4Data": [{"AddressSpace": "l", "Gateway": gateway_of(p), "Pool": p} for p in pools], "IPv6Data": [], **more}


def gateway_of(pool):
    address, length = pool.split("/")
    return f"{address.rsplit('.', 1)[0]}.1/{length}"


def endpoint_body(network, endpoint, address="10.9.0.5/24", address6="", mac="", options=None):
    return {"NetworkID": network, "EndpointID": endpoint,
            "Interface": {"Address": address, "AddressIPv6": address6, "MacAddress": mac},
            "Options": PORTS_NONE if options is None else options}


def ids(network, endpoint):
    return {"NetworkID": network, "EndpointID": endpoint}


def join_body(network, endpoint, sandbox=SANDBOX):
    return {**ids(network, endpoint), "SandboxKey": sandbox, "Options": PORTS_NONE}


class Conformance(unittest.TestCase):
    """A lab and fresh daemons for each test: no case sees what another left."""

    HOSTS = 1
    OPTIONS = ()
    START = True

    def setUp(self):
        self.lab = Lab(hosts=self.HOSTS).open()
        self.addCleanup(self.lab.close)
        self.host = self.lab.hosts[0]
        self.daemons = [Daemon(h, *self.OPTIONS, start=self.START) for h in self.lab.hosts]
        self.daemon = self.daemons[0]
        for daemon in self.daemons:
            self.addCleanup(self.ends_well, daemon)
        self.sockets = [Socket(h.path(PLUGIN)) for h in self.lab.hosts]
        self.socket = self.sockets[0]
        if self.START:
            if self.HOSTS > 1:
                Daemon.cluster(self.daemons)
            # The fabric and our tables are there now; whatever else appears was made by the case.
            self.before = leaks.host(self.host)

    def ends_well(self, daemon):
        """Every daemon that still runs ends in order on SIGTERM; under a sanitizer that includes its leaks."""
        if daemon.process:
            process = daemon.process
            self.assertEqual(daemon.stop(), 0, process.tail())

    def ok(self, answer, where=""):
        self.assertEqual(answer.status, 200, f"{where} {answer}")
        self.assertIsInstance(answer.json, dict, f"{where} {answer}")
        self.assertFalse(answer.json.get("Err") or answer.json.get("Error"), f"{where} {answer}")
        return answer.json

    def fail_with(self, answer, *statuses, where=""):
        """fail(N): returns the text."""
        self.assertIn(answer.status, statuses or (400, 500), f"{where} {answer}")
        for key in ("Err", "Error"):
            self.assertIsInstance(answer.json.get(key), str, f"{where} {answer}")
            self.assertTrue(answer.json[key], f"{where} {answer}")
        return answer.json["Err"]

    def post(self, method, body=None, timeout=60):
        return self.socket.post(method, body, timeout)

    def alive(self):
        """The daemon still serves, and it is the same process."""
        self.assertTrue(self.daemon.alive(), self.daemon.log_text()[-2000:])
        self.ok(self.post("NetworkDriver.GetCapabilities"))

    # The network driver's usual steps, each of which must succeed.

    def create_network(self, network=None, **kw):
        network = network or new_id()
        self.ok(self.post("NetworkDriver.CreateNetwork", network_body(network, **kw)))
        return network

    def create_endpoint(self, network, address="10.9.0.5/24", endpoint=None, **kw):
        endpoint = endpoint or new_id()
        return endpoint, self.ok(self.post("NetworkDriver.CreateEndpoint", endpoint_body(network, endpoint, address, **kw)))

    def join(self, network, endpoint, sandbox=SANDBOX):
        return self.ok(self.post("NetworkDriver.Join", join_body(network, endpoint, sandbox)))

    def joined(self, address="10.9.0.5/24", **kw):
        """Network, endpoint, name of the link."""
        network = self.create_network(**kw)
        endpoint, _ = self.create_endpoint(network, address)
        return network, endpoint, self.join(network, endpoint)["InterfaceName"]["SrcName"]

    # What the kernel has.

    def pairs(self):
        """Names of the host's ends of containers' links, not yet in a container."""
        return sorted(set(leaks.host(self.host)["links"]) - set(self.before["links"]))

    def ports(self):
        """Bridge ports of containers in the fabric."""
        links = self.host.run("nsenter", "--net=/run/netns/trestle", "ip", "-j", "-d", "link", check=False).stdout
        return sorted(l["ifname"] for l in json.loads(links or "[]") if l.get("linkinfo", {}).get("info_kind") == "veth")

    def no_links(self):
        """Devices go in groups a little after the answer."""
        wait_for(lambda: not self.pairs() and not self.ports(), 10, lambda: f"end of the links: {self.pairs()} {self.ports()}")

    def nothing_left(self):
        wait_for(lambda: not leaks.difference(self.before, leaks.host(self.host)), 10,
                 lambda: f"nothing left: {leaks.difference(self.before, leaks.host(self.host))}")
        self.assertEqual(self.daemon.endpoints(), [])

    def move_into(self, link, name):
        """What the engine does with the link: into a namespace of its own."""
        self.host.run("ip", "netns", "add", name)
        self.host.run("ip", "link", "set", link, "netns", name)

    def rules(self):
        """Every netfilter rule of the host, without counters, once several looks in a row agree."""
        seen = []

        def look():
            now = self.host.run("nft", "-s", "list", "ruleset").stdout
            seen[:] = [*seen, now] if seen[:1] == [now] else [now]
            return len(seen) >= 4
        wait_for(look, 10, "rules at rest")
        return seen[0]

    def fds(self):
        return len(os.listdir(f"/proc/{self.daemon.process.pid}/fd"))

    def within(self, seconds, function, *args):
        """Calls, and refuses an answer that took longer."""
        begun = time.monotonic()
        answer = function(*args)
        self.assertLess(time.monotonic() - begun, seconds)
        return answer

    # The IPAM driver's usual steps.

    def request_pool(self, pool=POOL, sub="", options=None, v6=False, space=LOCAL, socket=None):
        return (socket or self.socket).post("IpamDriver.RequestPool", {"AddressSpace": space, "Pool": pool, "SubPool": sub,
                                                                       "Options": options, "V6": v6})

    def pool(self, *args, **kw):
        """A pool that must be given: its id."""
        return self.ok(self.request_pool(*args, **kw))["PoolID"]

    def request_address(self, pool_id, address="", options=None, socket=None, timeout=60):
        return (socket or self.socket).post("IpamDriver.RequestAddress", {"PoolID": pool_id, "Address": address, "Options": options},
                                            timeout)

    def address(self, pool_id, address="", options=None, **kw):
        """An address that must be given, as CIDR."""
        return self.ok(self.request_address(pool_id, address, options, **kw))["Address"]

    def release_address(self, pool_id, address, **kw):
        return (kw.get("socket") or self.socket).post("IpamDriver.ReleaseAddress", {"PoolID": pool_id, "Address": address})

    def release_pool(self, pool_id):
        return self.post("IpamDriver.ReleasePool", {"PoolID": pool_id})

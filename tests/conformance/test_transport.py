"""How the engine's HTTP meets the plugin socket: cases T1 to T20."""
import json
import os
import threading
import time

from tests.lab import wait_for

from .wire import Conformance, Wire, endpoint_body, head, ids, join_body, network_body, new_id, GATEWAY_OPTIONS, LOCAL, POOL

MEGABYTE = 1024 * 1024


class Transport(Conformance):
    def test_T01_activate_answers_both_drivers(self):
        """POST /Plugin.Activate, Content-Length 0, no Content-Type: 200, Implements is exactly NetworkDriver and IpamDriver."""
        answer = self.post("Plugin.Activate")
        self.assertEqual(sorted(self.ok(answer)["Implements"]), ["IpamDriver", "NetworkDriver"])

    def test_T03_network_capabilities_are_static(self):
        """GetCapabilities with an empty body, three times: ok, Scope local or global, identical."""
        answers = [self.post("NetworkDriver.GetCapabilities") for _ in range(3)]
        for answer in answers:
            self.assertIn(self.ok(answer)["Scope"], ("local", "global"))
            self.assertEqual(answer.json, answers[0].json)

    def test_T04_network_capabilities_take_a_body(self):
        """The same with the body {}."""
        self.assertEqual(self.ok(self.post("NetworkDriver.GetCapabilities", {})), self.ok(self.post("NetworkDriver.GetCapabilities")))

    def test_T05_get_is_refused(self):
        """GET /Plugin.Activate: 405."""
        self.assertEqual(self.socket.raw(head("Plugin.Activate", 0, "GET")).status, 405)

    def test_T06_unknown_methods_are_404(self):
        """POST /NetworkDriver.NoSuch and /nope: 404, and an error text all the same."""
        for method in ("NetworkDriver.NoSuch", "IpamDriver.NoSuch", "nope", "", "NetworkDriver.CreateNetwork/x"):
            self.fail_with(self.post(method, {}), 404, where=method)

    def test_T07_empty_body_of_a_mutation_is_400(self):
        """A lost call is repeated with an empty body: 400 ends the loop; nothing is created."""
        for method in ("NetworkDriver.CreateNetwork", "NetworkDriver.DeleteNetwork", "NetworkDriver.CreateEndpoint",
                       "NetworkDriver.DeleteEndpoint", "NetworkDriver.Join", "NetworkDriver.Leave", "IpamDriver.RequestPool",
                       "IpamDriver.ReleasePool", "IpamDriver.RequestAddress", "IpamDriver.ReleaseAddress",
                       "NetworkDriver.ProgramExternalConnectivity", "NetworkDriver.RevokeExternalConnectivity"):
            self.fail_with(self.post(method), 400, where=method)
        self.assertEqual(self.daemon.call("GET", "/v1/networks")["networks"], [])
        self.assertEqual(self.daemon.call("GET", "/v1/ipam")["pools"], [])

    def test_T08_what_is_no_json_object_is_400(self):
        """Bodies {, [], "x", NUL bytes and other malformed ones: fail(400)."""
        whole = json.dumps(network_body(new_id())).encode()
        bodies = [b"{", b"[]", b'"x"', b"\0\0\0\0", b"null", b"5", b"\xff\xfe", whole[:-1], whole + b"x", whole[:len(whole) // 2],
                  b'{"NetworkID":"a","NetworkID":"b"}', b'{"a":' * 5000, b"[" * 100000, b" ", b"\n"]
        for method in ("NetworkDriver.CreateNetwork", "NetworkDriver.Join", "IpamDriver.RequestPool"):
            for body in bodies:
                self.fail_with(self.socket.send(method, body), 400, where=f"{method} {body[:40]!r}")
        self.assertEqual(self.daemon.call("GET", "/v1/networks")["networks"], [])
        self.alive()

    def test_T09_wrong_type_is_400(self):
        """{"NetworkID": 5}: fail(400); the text names member, expected and found."""
        text = self.fail_with(self.post("NetworkDriver.CreateNetwork", {"NetworkID": 5}), 400)
        for fragment in ("NetworkID", "string", "integer"):
            self.assertIn(fragment, text)
        for method, body in (("NetworkDriver.CreateNetwork", {**network_body(new_id()), "IPv4Data": {}}),
                             ("NetworkDriver.CreateEndpoint", {**endpoint_body(new_id(), new_id()), "Interface": []}),
                             ("IpamDriver.RequestPool", {"AddressSpace": LOCAL, "Pool": 10, "V6": False}),
                             ("IpamDriver.RequestPool", {"AddressSpace": LOCAL, "Pool": POOL, "V6": "no"}),
                             ("IpamDriver.RequestAddress", {"PoolID": "x", "Address": None, "Options": []})):
            self.fail_with(self.post(method, body), 400, where=f"{method} {body}")

    def test_T10_host_and_accept_do_not_matter(self):
        """A percent-encoded path as Host, an empty one, none of Accept: handled normally."""
        for host in ("%2Frun%2Fdocker%2Fplugins%2Fx.sock", "", "plugin.moby.localhost", "a b"):
            body = json.dumps(network_body(new_id(), pools=[f"10.{100 + len(host)}.0.0/24"])).encode()
            self.ok(self.socket.raw(head("NetworkDriver.CreateNetwork", len(body), host=host) + body), host)
        more = "Accept: application/vnd.docker.plugins.v1.2+json\r\nContent-Type: text/x-strange\r\n"
        self.ok(self.socket.raw(head("Plugin.Activate", 0, more=more)))

    def test_T11_two_requests_on_one_connection(self):
        """Both are answered in order, or the first answer says Connection: close and the peer closes."""
        with Wire(self.socket.path) as wire:
            wire.send(head("NetworkDriver.GetCapabilities", 0))
            first = wire.answer()
            self.assertIn("Scope", self.ok(first))
            if first.headers.get("connection", "").lower() == "close":
                self.assertTrue(wire.closed())
            else:
                wire.send(head("Plugin.Activate", 0))
                self.assertIn("Implements", self.ok(wire.answer()))

    def test_T12_connections_without_a_request(self):
        """Connect, send nothing, close, 100 times: no effect, no descriptor leaks."""
        self.alive()
        before = self.fds()
        for _ in range(100):
            Wire(self.socket.path).socket.close()
        wait_for(lambda: self.fds() <= before, 10, lambda: f"descriptors as before ({before}), not {self.fds()}")
        self.alive()

    def test_T13_one_byte_at_a_time(self):
        """A request delivered byte by byte, or header and body apart: handled normally."""
        body = json.dumps(network_body(new_id())).encode()
        request = head("NetworkDriver.CreateNetwork", len(body)) + body
        with Wire(self.socket.path) as wire:
            for i in range(len(request)):
                wire.send(request[i:i + 1])
            self.ok(wire.answer())
        body = json.dumps(network_body(new_id(), pools=["10.10.0.0/24"])).encode()
        with Wire(self.socket.path) as wire:
            wire.send(head("NetworkDriver.CreateNetwork", len(body)))
            self.alive()  # another connection is served meanwhile: the header has certainly arrived alone
            wire.send(body)
            self.ok(wire.answer())

    def test_T14_too_large_a_body(self):
        """More than 1 MiB: 413 or fail(400), the connection is closed, the server lives."""
        body = json.dumps({**network_body(new_id()), "Padding": "x" * MEGABYTE}).encode()
        with Wire(self.socket.path) as wire:
            try:
                wire.send(head("NetworkDriver.CreateNetwork", len(body)) + body)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused by its announced length, before all of it was read
            answer = wire.answer()
            self.assertIn(answer.status, (400, 413))
            try:
                self.assertTrue(wire.closed())
            except ConnectionResetError:
                pass
        self.assertEqual(self.daemon.call("GET", "/v1/networks")["networks"], [])
        self.alive()

    def test_T14_too_large_a_header(self):
        """A header without end is refused as well, and a large one within the body's limit does not matter."""
        with Wire(self.socket.path) as wire:
            try:
                wire.send(b"POST /Plugin.Activate HTTP/1.1\r\n" + b"X-Padding: " + b"x" * MEGABYTE)
                wire.send(b"\r\n\r\n")
                self.assertGreaterEqual(wire.answer().status, 400)
            except (BrokenPipeError, ConnectionError):
                pass
        self.alive()

    def test_T15_escapes_become_utf8(self):
        """The option value "a\\u003cb\\ud83d\\ude00" is echoed as a<b and the emoji, in UTF-8."""
        body = b'{"NetworkID":"abc","Options":{"k":"a\\u003cb\\ud83d\\ude00"},"IPv4Data":[],"IPv6Data":null}'
        answer = self.socket.send("NetworkDriver.AllocateNetwork", body)
        self.assertEqual(self.ok(answer)["Options"]["k"], "a<b\U0001F600")
        self.assertIn("a<b\U0001F600".encode(), answer.body)

    def test_T16_unknown_keys_and_nulls(self):
        """Additional keys at every level are ignored; null stands for an empty array or map."""
        network, endpoint = new_id(), new_id()
        body = {"NetworkID": network, "New": {"a": [1]}, "IPv6Data": None,
                "Options": {"com.docker.network.generic": None, "com.docker.network.enable_ipv6": False, "com.docker.new": {"x": 1}},
                "IPv4Data": [{"AddressSpace": "l", "Gateway": "10.9.0.1/24", "Pool": POOL, "AuxAddresses": None, "New": 5}]}
        self.ok(self.post("NetworkDriver.CreateNetwork", body))
        body = {**endpoint_body(network, endpoint), "Options": None, "New": [{}]}
        body["Interface"]["New"] = {"deep": {"deeper": None}}
        self.ok(self.post("NetworkDriver.CreateEndpoint", body))
        self.ok(self.post("NetworkDriver.Join", {**join_body(network, endpoint), "Options": None, "New": 1.5}))
        pool = self.ok(self.post("IpamDriver.RequestPool", {"AddressSpace": LOCAL, "Pool": "10.10.0.0/24", "SubPool": "", "Options": None,
                                                            "V6": False, "New": "x"}))["PoolID"]
        self.ok(self.post("IpamDriver.RequestAddress", {"PoolID": pool, "Address": "", "Options": None, "New": None}))

    def test_T17_form_of_every_reply(self):
        """Every call: Content-Length, status 200 on success, a body that is one JSON value."""
        network, endpoint = new_id(), new_id()
        pool = self.pool()
        steps = [("Plugin.Activate", None), ("NetworkDriver.GetCapabilities", None), ("IpamDriver.GetCapabilities", None),
                 ("IpamDriver.GetDefaultAddressSpaces", None), ("NetworkDriver.GwAllocCheck", {"Options": {}}),
                 ("NetworkDriver.AllocateNetwork", {"NetworkID": new_id(), "Options": {}, "IPv4Data": [], "IPv6Data": None}),
                 ("NetworkDriver.FreeNetwork", {"NetworkID": new_id()}),
                 ("IpamDriver.RequestPool", {"AddressSpace": LOCAL, "Pool": POOL, "SubPool": "", "Options": {}, "V6": False}),
                 ("IpamDriver.RequestAddress", {"PoolID": pool, "Address": "", "Options": GATEWAY_OPTIONS}),
                 ("IpamDriver.RequestAddress", {"PoolID": pool, "Address": "10.9.0.5", "Options": None}),
                 ("NetworkDriver.CreateNetwork", network_body(network)),
                 ("NetworkDriver.CreateEndpoint", endpoint_body(network, endpoint)),
                 ("NetworkDriver.Join", join_body(network, endpoint)),
                 ("NetworkDriver.ProgramExternalConnectivity", {**ids(network, endpoint), "Options": {}}),
                 ("NetworkDriver.EndpointOperInfo", ids(network, endpoint)),
                 ("NetworkDriver.RevokeExternalConnectivity", ids(network, endpoint)),
                 ("NetworkDriver.Leave", ids(network, endpoint)), ("NetworkDriver.DeleteEndpoint", ids(network, endpoint)),
                 ("IpamDriver.ReleaseAddress", {"PoolID": pool, "Address": "10.9.0.5"}),
                 ("IpamDriver.ReleasePool", {"PoolID": pool}), ("NetworkDriver.DeleteNetwork", {"NetworkID": network}),
                 ("NetworkDriver.DiscoverNew", {"DiscoveryType": 1, "DiscoveryData": {"Address": "192.0.2.9", "Self": False}}),
                 ("NetworkDriver.DiscoverDelete", {"DiscoveryType": 1, "DiscoveryData": {"Address": "192.0.2.9", "Self": False}})]
        for method, body in steps:
            answer = self.post(method, body)
            self.ok(answer, method)
            self.assertEqual(int(answer.headers["content-length"]), len(answer.body), method)
            self.assertNotIn("transfer-encoding", answer.headers, method)

    def test_T18_stale_socket_after_kill(self):
        """Killed, its socket file left behind: the next start binds again, and known networks are still known."""
        network = self.create_network()
        self.daemon.kill9()
        self.assertTrue(os.path.exists(self.socket.path), "the stale socket is the point of this case")
        with self.assertRaises(ConnectionRefusedError):
            Wire(self.socket.path)
        self.daemon.start()
        self.test_T03_network_capabilities_are_static()
        self.create_endpoint(network)

    def test_T20_client_leaves_and_repeats(self):
        """The client disconnects in the middle of a call and sends it again: idempotent, nothing twice."""
        network, endpoint = new_id(), new_id()
        calls = (("NetworkDriver.CreateNetwork", network_body(network)), ("NetworkDriver.CreateEndpoint", endpoint_body(network, endpoint)),
                 ("NetworkDriver.Join", join_body(network, endpoint)))
        for method, body in calls:
            data = json.dumps(body).encode()
            with Wire(self.socket.path) as wire:  # half of the body, then gone
                wire.send(head(method, len(data)) + data[:len(data) // 2])
            with Wire(self.socket.path) as wire:  # all of it, gone before the answer
                wire.send(head(method, len(data)) + data)
            self.ok(self.post(method, body), method)
        self.assertEqual(len(self.daemon.call("GET", "/v1/networks")["networks"]), 1)
        self.assertEqual(len(self.daemon.endpoints()), 1)
        self.assertEqual(len(self.pairs()), 1)
        self.assertEqual(len(self.ports()), 1)
        for method in ("NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint"):
            data = json.dumps(ids(network, endpoint)).encode()
            with Wire(self.socket.path) as wire:
                wire.send(head(method, len(data)) + data)
            self.ok(self.post(method, ids(network, endpoint)), method)
        self.no_links()


class BeforeTheCluster(Conformance):
    HOSTS = 2
    START = False

    def test_T02_activate_before_the_cluster_is_up(self):
        """T1 while the daemon is still waiting for its cluster: the same answer, at once."""
        first, second = self.daemons
        first.start()
        token = first.token()
        self.lab.cut(self.lab.hosts[:1], self.lab.hosts[1:])
        second.start("--join", token, wait=False)
        socket = self.sockets[1]
        wait_for(lambda: os.path.exists(socket.path) and Wire(socket.path).socket.close() is None, 10, "the plugin socket")
        answer = self.within(9, socket.post, "Plugin.Activate")  # in less than a join takes to be given up
        self.assertEqual(sorted(self.ok(answer)["Implements"]), ["IpamDriver", "NetworkDriver"])
        self.assertIn("Scope", self.ok(self.within(9, socket.post, "NetworkDriver.GetCapabilities")))
        self.assertEqual(first.call("GET", "/v1/status")["members"]["alive"], 1, "the cut held")


class Blocked(Conformance):
    HOSTS = 2

    def test_T19_capabilities_while_a_call_is_blocked(self):
        """A request waits for a host that does not answer; GetCapabilities beside it is answered in less than 1 s, mostly: a busy machine
        holds up anybody now and then."""
        wide, holder = "10.9.0.0/16", 1
        self.pool(wide, socket=self.sockets[holder])
        pool = self.pool(wide)
        self.address(pool)  # some of the pool has arrived here
        name = self.lab.hosts[holder].name
        wait_for(lambda: any(s["host"] == name and s["held"] for p in self.daemons[0].call("GET", "/v1/ipam")["pools"] for s in p["shares"]), 5,
                 f"what {name} holds is known here")
        # It holds most of the pool, and is silent.
        self.daemons[holder].process.pause()
        self.addCleanup(self.daemons[holder].process.resume)
        answers = []

        def ask():
            # Addresses far apart: what has been passed on is one small range.
            for address in ("10.9.200.1", "10.9.100.1", "10.9.50.1"):
                answers.append(self.request_address(pool, address))
                if not answers[-1].ok:
                    return
        thread = threading.Thread(target=ask)
        thread.start()
        try:
            served = []
            while thread.is_alive():
                began = time.monotonic()
                self.ok(self.post("NetworkDriver.GetCapabilities"))
                served.append(time.monotonic() - began)
                thread.join(0.02)
        finally:
            thread.join()
        text = self.fail_with(answers[-1], 500)
        self.assertIn(name, text)
        self.assertGreaterEqual(len(served), 5, "the address was refused at once: nothing was blocked")
        self.assertLess(sorted(served)[len(served) // 2], 1)

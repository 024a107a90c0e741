"""The remote network driver: cases N1 to N52.

Where the protocol leaves a choice, ours is: Join never answers a Gateway, so docker_gwbridge does egress and publishes ports, and
Program for a known endpoint is answered ok and maps nothing; unknown options are ignored, wrong values of our own are refused;
addresses come from the engine's IPAM driver, never from CreateEndpoint; EndpointOperInfo never fails.
"""
import concurrent.futures
import ipaddress
import json
import threading
import time

from tests.lab import wait_for

from .wire import (Conformance, Wire, endpoint_body, gateway_of, head, ids, join_body, network_body, new_id, PORTS_NONE, POOL)

MAC = "02:42:0a:09:00:05"


def port_map(*entries, **more):
    """Options of Program: (protocol, port, first host port, last host port) each."""
    return {"com.docker.network.endpoint.exposedports": [{"Proto": p, "Port": port} for p, port, _, _ in entries],
            "com.docker.network.portmap": [{"Proto": p, "IP": "", "Port": port, "HostIP": "", "HostPort": first, "HostPortEnd": last}
                                           for p, port, first, last in entries], **more}


class Networks(Conformance):
    def test_N01_create_network(self):
        """The base CreateNetwork: ok, and exactly {}."""
        self.assertEqual(self.ok(self.post("NetworkDriver.CreateNetwork", network_body(new_id()))), {})

    def test_N02_repeated_identically(self):
        """The same again: ok, one network."""
        body = network_body(new_id())
        for _ in range(3):
            self.ok(self.post("NetworkDriver.CreateNetwork", body))
        self.assertEqual(len(self.daemon.call("GET", "/v1/networks")["networks"]), 1)

    def test_N03_same_id_other_pool(self):
        """The same id with another Pool: fail; the first stays usable."""
        network = self.create_network()
        self.fail_with(self.post("NetworkDriver.CreateNetwork", network_body(network, pools=["10.10.0.0/24"])))
        self.create_endpoint(network)

    def test_N04_swarm_ids(self):
        """A NetworkID of 25 base-36 characters: ok."""
        self.create_network("n1w8yb7jjdpg1ga2t5gkn0xq9")

    def test_N05_ipv6_only(self):
        """No IPv4 pool and one IPv6 pool: ok, or fail with a clear text; never a crash."""
        body = network_body(new_id(), pools=[], options={"com.docker.network.enable_ipv4": False, "com.docker.network.enable_ipv6": True},
                            IPv6Data=[{"AddressSpace": "l", "Gateway": "fd00:9::1/64", "Pool": "fd00:9::/64"}])
        answer = self.post("NetworkDriver.CreateNetwork", body)
        if answer.ok:
            self.ok(self.post("NetworkDriver.CreateEndpoint", endpoint_body(body["NetworkID"], new_id(), "", "fd00:9::5/64")))
        else:
            self.assertIn("IPv6", self.fail_with(answer))
        self.alive()

    def test_N06_no_gateway_no_aux(self):
        """No Gateway key, no AuxAddresses key: ok."""
        self.ok(self.post("NetworkDriver.CreateNetwork", network_body(new_id(), IPv4Data=[{"AddressSpace": "l", "Pool": POOL}])))

    def test_N07_two_pools(self):
        """Two IPv4Data entries: ok, and an endpoint can have an address of either."""
        network = self.create_network(pools=[POOL, "10.10.0.0/24"])
        for address in ("10.9.0.5/24", "10.10.0.5/24"):
            endpoint, _ = self.create_endpoint(network, address)
            self.join(network, endpoint)
        self.assertEqual(sorted(e["ipv4"].split("/")[0] for e in self.daemon.endpoints()), ["10.10.0.5", "10.9.0.5"])

    def test_N08_bad_pools(self):
        """Pool 10.9.0.0/33, x or missing: fail; the network is unknown afterwards."""
        for data in ({"Pool": "10.9.0.0/33"}, {"Pool": "x"}, {"Pool": ""}, {}, {"Pool": "fd00::/64"}, {"Pool": 5}):
            network = new_id()
            self.fail_with(self.post("NetworkDriver.CreateNetwork", network_body(network, IPv4Data=[{"AddressSpace": "l", **data}])),
                           where=data)
            text = self.fail_with(self.post("NetworkDriver.CreateEndpoint", endpoint_body(network, new_id())), where=data)
            self.assertIn(network[:12], text)

    def test_N09_unknown_option(self):
        """An unknown key in generic: ok, ignored with a log line that names it."""
        self.create_network(generic={"com.example.colour": "blue"})
        wait_for(lambda: "com.example.colour" in self.daemon.log_text(), 5, "a log line about the option")

    def test_N10_bad_value_of_an_own_option(self):
        """A bad value of an own option: fail; the text names option and value."""
        for option, value in (("trestle.vni", "0"), ("trestle.vni", "16777216"), ("trestle.vni", "blue"), ("trestle.mtu", "12"),
                              ("trestle.mode", "l9"), ("com.docker.network.driver.mtu", "99999"), ("trestle.network", "no/slash"),
                              ("com.docker.network.container_iface_prefix", "much-too-long-a-prefix")):
            text = self.fail_with(self.post("NetworkDriver.CreateNetwork", network_body(new_id(), generic={option: value})), where=option)
            self.assertIn(option, text)
            self.assertIn(value, text)
        self.assertIn("trestle.netwrok", self.fail_with(
            self.post("NetworkDriver.CreateNetwork", network_body(new_id(), generic={"trestle.netwrok": "app"}))))

    def test_N11_internal(self):
        """com.docker.network.internal: ok; Join returns no Gateway."""
        network = self.create_network(options={"com.docker.network.internal": True})
        endpoint, _ = self.create_endpoint(network, options={})
        answer = self.join(network, endpoint)
        self.assertFalse(answer.get("Gateway") or answer.get("GatewayIPv6"), answer)

    def test_N31_delete_with_a_live_endpoint(self):
        """DeleteNetwork with an endpoint left: ok; endpoint and link are gone."""
        network, _, _ = self.joined()
        self.ok(self.post("NetworkDriver.DeleteNetwork", {"NetworkID": network}))
        self.nothing_left()

    def test_N32_delete_unknown(self):
        """DeleteNetwork of an unknown id, and twice: ok."""
        self.ok(self.post("NetworkDriver.DeleteNetwork", {"NetworkID": new_id()}))
        network = self.create_network()
        for _ in range(2):
            self.ok(self.post("NetworkDriver.DeleteNetwork", {"NetworkID": network}))

    def test_N43_discover(self):
        """DiscoverNew and DiscoverDelete with type 1, type 7 and unknown keys: ok."""
        for method in ("NetworkDriver.DiscoverNew", "NetworkDriver.DiscoverDelete"):
            for body in ({"DiscoveryType": 1, "DiscoveryData": {"Address": "192.0.2.9", "BindAddress": "192.0.2.1", "Self": True}},
                         {"DiscoveryType": 1, "DiscoveryData": {"Address": "192.0.2.9", "BindAddress": "", "Self": False}},
                         {"DiscoveryType": 7, "DiscoveryData": {}}, {"DiscoveryType": 1, "DiscoveryData": {"Colour": "blue"}, "New": 1},
                         {"DiscoveryType": 1, "DiscoveryData": None}):
                self.ok(self.post(method, body), f"{method} {body}")

    def test_N44_allocate_network(self):
        """AllocateNetwork with {a: b}: the answer has it; repeated with the result merged, it is identical."""
        body = {"NetworkID": "n1w8yb7jjdpg1ga2t5gkn0xq9", "Options": {"a": "b"}, "IPv6Data": None,
                "IPv4Data": [{"AddressSpace": "", "Pool": POOL, "Gateway": "10.9.0.1/24"}]}
        first = self.ok(self.post("NetworkDriver.AllocateNetwork", body))["Options"]
        self.assertEqual(first["a"], "b")
        again = self.ok(self.post("NetworkDriver.AllocateNetwork", {**body, "Options": {**body["Options"], **first}}))["Options"]
        self.assertEqual(again, first)

    def test_N45_free_network(self):
        """FreeNetwork, known and unknown: ok."""
        self.ok(self.post("NetworkDriver.FreeNetwork", {"NetworkID": new_id()}))
        self.ok(self.post("NetworkDriver.FreeNetwork", {"NetworkID": self.create_network()}))

    def test_N46_gateway_check(self):
        """GwAllocCheck: two booleans; a CreateNetwork that follows them is accepted."""
        options = {"com.docker.network.internal": True, "com.docker.network.enable_ipv6": False, "com.docker.network.generic": {}}
        answer = self.ok(self.post("NetworkDriver.GwAllocCheck", {"Options": options}))
        self.assertIsInstance(answer["SkipIPv4"], bool)
        self.assertIsInstance(answer["SkipIPv6"], bool)
        data = {"AddressSpace": "l", "Pool": POOL}
        if not answer["SkipIPv4"]:
            data["Gateway"] = gateway_of(POOL)
        self.ok(self.post("NetworkDriver.CreateNetwork", network_body(new_id(), options=options, IPv4Data=[data])))
        self.ok(self.post("NetworkDriver.CreateNetwork", network_body(new_id(), options=options, IPv4Data=[
            {"AddressSpace": "l", "Pool": "10.10.0.0/24"}])))

    def test_N51_options_of_wrong_type(self):
        """Option values of a wrong type: fail(400) or ignored, no crash."""
        for options in ({"com.docker.network.enable_ipv6": "yes"}, {"com.docker.network.internal": 1},
                        {"com.docker.network.generic": []}, {"com.docker.network.generic": {"trestle.vni": 7}},
                        {"com.docker.network.generic": {"trestle.network": {}}}, {"com.docker.network.enable_ipv4": None}):
            answer = self.post("NetworkDriver.CreateNetwork", network_body(new_id(), options=options))
            if answer.ok:
                self.ok(self.post("NetworkDriver.DeleteNetwork", {"NetworkID": new_id()}))
            else:
                self.fail_with(answer, 400, where=options)
            self.alive()
        for options in ([], "x", 5):
            self.fail_with(self.post("NetworkDriver.CreateNetwork", {**network_body(new_id()), "Options": options}), 400, where=options)

    def test_N52_bad_ids(self):
        """A NetworkID ../../etc, one of 10 kB, an empty one, one with a blank: fail(400) in every call that takes one."""
        network = self.create_network()
        for bad in ("../../etc", "x" * 10240, "", "a b", "a\n", "\u00e4"):
            for method, body in (("NetworkDriver.CreateNetwork", network_body(bad)), ("NetworkDriver.DeleteNetwork", {"NetworkID": bad}),
                                 ("NetworkDriver.CreateEndpoint", endpoint_body(bad, new_id())),
                                 ("NetworkDriver.CreateEndpoint", endpoint_body(network, bad)),
                                 ("NetworkDriver.Join", join_body(network, bad)), ("NetworkDriver.Leave", ids(bad, new_id())),
                                 ("NetworkDriver.DeleteEndpoint", ids(network, bad))):
                self.fail_with(self.post(method, body), 400, where=f"{method} {bad[:20]!r}")
        self.assertEqual(len(self.daemon.call("GET", "/v1/networks")["networks"]), 1)


class Endpoints(Conformance):
    def test_N12_create_endpoint(self):
        """An address, no MAC: the reply has a MAC (unicast, locally administered) and no address."""
        _, answer = self.create_endpoint(self.create_network())
        first = int(answer["Interface"]["MacAddress"].split(":")[0], 16)
        self.assertEqual(first & 3, 2, answer)
        self.assertEqual(len(answer["Interface"]["MacAddress"].split(":")), 6)
        self.assertFalse(answer["Interface"].get("Address") or answer["Interface"].get("AddressIPv6"), answer)

    def test_N13_given_mac(self):
        """A given MAC: the reply's Interface is empty, and the link has that MAC."""
        network = self.create_network()
        endpoint, answer = self.create_endpoint(network, mac=MAC)
        self.assertFalse(any((answer.get("Interface") or {}).values()), answer)
        link = self.join(network, endpoint)["InterfaceName"]["SrcName"]
        self.assertEqual(self.host.links()[link]["address"], MAC)

    def test_N14_base64_mac(self):
        """A base64 MAC in Options beside Interface.MacAddress: the Interface's wins; alone, it is not misread."""
        network = self.create_network()
        options = {**PORTS_NONE, "com.docker.network.endpoint.macaddress": "AkKsEQAC"}  # 02:42:ac:11:00:02
        endpoint, _ = self.create_endpoint(network, mac=MAC, options=options)
        link = self.join(network, endpoint)["InterfaceName"]["SrcName"]
        self.assertEqual(self.host.links()[link]["address"], MAC)
        _, answer = self.create_endpoint(network, "10.9.0.6/24", options=options)
        self.assertRegex(answer["Interface"]["MacAddress"], r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$")

    def test_N15_no_address_at_all(self):
        """All Interface fields empty: fail; nothing is invented."""
        network = self.create_network()
        self.fail_with(self.post("NetworkDriver.CreateEndpoint", endpoint_body(network, new_id(), "")))
        self.assertEqual(self.daemon.endpoints(), [])

    def test_N16_unknown_network(self):
        """CreateEndpoint on an unknown network: fail, the text contains the id; no state is left."""
        network = new_id()
        text = self.fail_with(self.post("NetworkDriver.CreateEndpoint", endpoint_body(network, new_id())))
        self.assertIn(network[:12], text)
        self.nothing_left()

    def test_N17_twice_equal(self):
        """CreateEndpoint twice with an equal body: the same reply twice, one pair of links."""
        network, endpoint = self.create_network(), new_id()
        replies = [self.ok(self.post("NetworkDriver.CreateEndpoint", endpoint_body(network, endpoint))) for _ in range(2)]
        self.assertEqual(replies[0], replies[1])
        self.join(network, endpoint)
        self.assertEqual((len(self.pairs()), len(self.ports())), (1, 1))

    def test_N18_twice_with_another_address(self):
        """CreateEndpoint again with another address: fail; the first is intact."""
        network = self.create_network()
        endpoint, _ = self.create_endpoint(network)
        self.fail_with(self.post("NetworkDriver.CreateEndpoint", endpoint_body(network, endpoint, "10.9.0.6/24")))
        self.join(network, endpoint)
        self.assertEqual([e["ipv4"].split("/")[0] for e in self.daemon.endpoints()], ["10.9.0.5"])

    def test_N19_join(self):
        """Join: SrcName is a link of the host's namespace, at most 15 characters, DstPrefix eth, the MAC of CreateEndpoint, its MTU
        set, no address on it."""
        network = self.create_network()
        endpoint, created = self.create_endpoint(network)
        name = self.join(network, endpoint)["InterfaceName"]
        self.assertLessEqual(len(name["SrcName"]), 15)
        self.assertEqual(name["DstPrefix"], "eth")
        link = self.host.links()[name["SrcName"]]
        self.assertEqual(link["address"], created["Interface"]["MacAddress"])
        self.assertEqual(link["mtu"], 1450)  # the underlay's 1500 less VXLAN over IPv4
        addresses = json.loads(self.host.run("ip", "-j", "addr", "show", "dev", name["SrcName"]).stdout)
        self.assertEqual(addresses[0]["addr_info"], [])

    def test_N19_interface_prefix(self):
        """container_iface_prefix and the engine's MTU option are honoured."""
        network = self.create_network(generic={"com.docker.network.container_iface_prefix": "lan", "com.docker.network.driver.mtu": "1300"})
        endpoint, _ = self.create_endpoint(network)
        name = self.join(network, endpoint)["InterfaceName"]
        self.assertEqual(name["DstPrefix"], "lan")
        self.assertEqual(self.host.links()[name["SrcName"]]["mtu"], 1300)

    def test_N20_join_before_the_sandbox_exists(self):
        """Join with a SandboxKey path that does not exist: ok."""
        network = self.create_network()
        endpoint, _ = self.create_endpoint(network)
        self.join(network, endpoint, "/var/run/docker/netns/no-such-file")

    def test_N21_join_unknown(self):
        """Join of an unknown endpoint, or on an unknown network: fail."""
        network = self.create_network()
        self.fail_with(self.post("NetworkDriver.Join", join_body(network, new_id())))
        self.fail_with(self.post("NetworkDriver.Join", join_body(new_id(), new_id())))

    def test_N22_join_again(self):
        """A second Join with the same SandboxKey: ok, the same SrcName."""
        network, endpoint, link = self.joined()
        self.assertEqual(self.join(network, endpoint)["InterfaceName"]["SrcName"], link)
        self.assertEqual(len(self.pairs()), 1)

    def test_N23_join_from_another_sandbox(self):
        """A second Join with another SandboxKey: fail; the first stays."""
        network, endpoint, link = self.joined()
        self.fail_with(self.post("NetworkDriver.Join", join_body(network, endpoint, "/var/run/docker/netns/fedcba987654")))
        self.assertEqual(self.pairs(), [link])

    def test_N24_routes_and_gateways(self):
        """Every StaticRoutes entry has a parsable Destination, and RouteType 0 a NextHop; there is no Gateway and the gateway service
        stays on, for docker_gwbridge."""
        for number, options in enumerate(({}, {"com.docker.network.internal": True})):
            network = self.create_network(pools=[f"10.{20 + number}.0.0/24"], options=options)
            endpoint, _ = self.create_endpoint(network, f"10.{20 + number}.0.5/24")
            answer = self.join(network, endpoint)
            for route in answer.get("StaticRoutes") or []:
                ipaddress.ip_network(route["Destination"])
                if route["RouteType"] == 0:
                    ipaddress.ip_address(route["NextHop"])
            self.assertFalse(answer.get("Gateway") or answer.get("GatewayIPv6") or answer.get("DisableGatewayService"), answer)

    def test_N25_oper_info(self):
        """EndpointOperInfo of a known and of an unknown endpoint: ok {"Value": {}}: an error would abort the container's start."""
        network, endpoint, link = self.joined()
        for pair in ((network, endpoint), (network, new_id()), (new_id(), new_id())):
            self.assertEqual(self.ok(self.post("NetworkDriver.EndpointOperInfo", ids(*pair))), {"Value": {}})
        self.assertEqual(self.pairs(), [link])

    def test_N26_leave(self):
        """Leave, Leave again, Leave of unknown ids: ok each."""
        network, endpoint, _ = self.joined()
        for pair in ((network, endpoint), (network, endpoint), (network, new_id()), (new_id(), new_id())):
            self.ok(self.post("NetworkDriver.Leave", ids(*pair)))

    def test_N27_delete_while_joined(self):
        """DeleteEndpoint without Leave, the link inside a container: ok; the pair is gone."""
        network, endpoint, link = self.joined()
        self.move_into(link, "c1")
        self.ok(self.post("NetworkDriver.DeleteEndpoint", ids(network, endpoint)))
        self.no_links()
        wait_for(lambda: len(json.loads(self.host.run("ip", "-n", "c1", "-j", "link").stdout)) == 1, 10, "only lo in the container")

    def test_N28_delete_unknown(self):
        """DeleteEndpoint twice, and of an unknown id: ok."""
        network, endpoint, _ = self.joined()
        for pair in ((network, endpoint), (network, endpoint), (network, new_id()), (new_id(), new_id())):
            self.ok(self.post("NetworkDriver.DeleteEndpoint", ids(*pair)))
        self.no_links()

    def test_N29_namespace_gone_before_leave(self):
        """The container's namespace is destroyed first, its link with it: Leave and DeleteEndpoint ok, nothing left."""
        network, endpoint, link = self.joined()
        self.move_into(link, "c1")
        self.host.run("ip", "netns", "del", "c1")
        wait_for(lambda: not self.ports(), 10, "the port went with its peer")
        for method in ("NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint"):
            self.ok(self.post(method, ids(network, endpoint)), method)
        self.ok(self.post("NetworkDriver.DeleteNetwork", {"NetworkID": network}))
        self.nothing_left()

    def test_N30_never_joined(self):
        """CreateEndpoint, then DeleteEndpoint: ok; no link is left."""
        network = self.create_network()
        endpoint, _ = self.create_endpoint(network)
        self.ok(self.post("NetworkDriver.DeleteEndpoint", ids(network, endpoint)))
        self.no_links()
        self.assertEqual(self.daemon.endpoints(), [])

    def test_N49_many_at_once(self):
        """64 times CreateEndpoint and Join in parallel on one network: all ok, names and MACs distinct."""
        network = self.create_network()

        def attach(number):
            endpoint, created = self.create_endpoint(network, f"10.9.0.{10 + number}/24")
            return created["Interface"]["MacAddress"], self.join(network, endpoint)["InterfaceName"]["SrcName"]
        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            made = list(pool.map(attach, range(64)))
        self.assertEqual(len({mac for mac, _ in made}), 64)
        self.assertEqual(sorted(name for _, name in made), self.pairs())
        self.assertEqual(len(self.ports()), 64)

    def test_N50_leave_after_a_failed_join(self):
        """Leave twice after a Join that failed, then DeleteEndpoint: ok."""
        network = self.create_network()
        endpoint, _ = self.create_endpoint(network)
        self.fail_with(self.post("NetworkDriver.Join", {**ids(network, endpoint), "SandboxKey": 5}))
        for method in ("NetworkDriver.Leave", "NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint"):
            self.ok(self.post(method, ids(network, endpoint)), method)
        self.fail_with(self.post("NetworkDriver.Join", join_body(network, endpoint)))
        for method in ("NetworkDriver.Leave", "NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint"):
            self.ok(self.post(method, ids(network, endpoint)), method)
        self.no_links()


class Ports(Conformance):
    """Program and Revoke. docker_gwbridge publishes, so no call changes a rule of the host."""

    def setUp(self):
        super().setUp()
        self.network, self.endpoint, _ = self.joined()
        self.rules_before = self.rules()

    def program(self, options, endpoint=None):
        return self.post("NetworkDriver.ProgramExternalConnectivity", {**ids(self.network, endpoint or self.endpoint), "Options": options})

    def programmed(self, options):
        self.ok(self.program(options), options)
        self.assertEqual(self.rules(), self.rules_before)

    def occupy(self, port):
        """Something else in the host listens on the port."""
        program = f"import socket, signal\ns = socket.create_server(('', {port}))\nsignal.pause()"
        self.host.start("python3", "-c", program, name=f"port-{port}")
        wait_for(lambda: f":{port} " in self.host.run("ss", "-Hltn").stdout, 10, f"a listener on port {port}")

    def test_N33_program(self):
        """Program of a known endpoint: ok, nothing mapped. Of an unknown one: fail, naming it."""
        self.programmed(port_map((6, 80, 8080, 8080)))
        unknown = new_id()
        self.assertIn(unknown[:12], self.fail_with(self.program(port_map((6, 80, 8080, 8080)), unknown)))

    def test_N34_program_any_port(self):
        """HostPort 0: ok, nothing mapped."""
        self.programmed(port_map((6, 80, 0, 0)))

    def test_N35_program_range(self):
        """A range whose first port is busy: ok, nothing mapped."""
        self.occupy(8000)
        self.programmed(port_map((6, 80, 8000, 8002)))

    def test_N36_program_busy_port(self):
        """A fixed port that is busy: ok here; docker_gwbridge publishes, so the engine itself finds the port busy."""
        self.occupy(8080)
        self.programmed(port_map((6, 80, 8080, 8080)))

    def test_N37_program_protocols(self):
        """UDP, SCTP, ICMP: ok each, nothing mapped."""
        for protocol in (17, 132, 1):
            self.programmed(port_map((protocol, 53, 5353, 5353)))

    def test_N38_program_twice(self):
        """Twice with different lists: ok, nothing mapped by either."""
        self.programmed(port_map((6, 80, 8080, 8080), (6, 81, 8081, 8081)))
        self.programmed(port_map((6, 80, 8090, 8090)))

    def test_N39_program_nothing(self):
        """Empty lists, empty Options, none at all, and no_proxy_6to4: ok."""
        for options in (port_map(), {}, None, port_map(**{"com.docker.network.driver.private.no_proxy_6to4": True})):
            self.programmed(options)

    def test_N40_program_internal(self):
        """On an internal network: ok, no mapping."""
        self.network = self.create_network(pools=["10.10.0.0/24"], options={"com.docker.network.internal": True})
        self.endpoint, _ = self.create_endpoint(self.network, "10.10.0.5/24")
        self.join(self.network, self.endpoint)
        self.rules_before = self.rules()
        self.programmed(port_map((6, 80, 8080, 8080)))

    def test_N41_revoke(self):
        """Revoke of an endpoint that was not programmed, and of an unknown one: ok."""
        for pair in ((self.network, self.endpoint), (self.network, new_id()), (new_id(), new_id())):
            self.ok(self.post("NetworkDriver.RevokeExternalConnectivity", ids(*pair)))
        self.assertEqual(self.rules(), self.rules_before)

    def test_N42_no_revoke(self):
        """Program, then Leave and DeleteEndpoint without Revoke: ok; no mapping and no link is left."""
        self.programmed(port_map((6, 80, 8080, 8080)))
        for method in ("NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint"):
            self.ok(self.post(method, ids(self.network, self.endpoint)), method)
        self.no_links()
        self.assertNotIn("8080", self.rules())


class Killed(Conformance):
    def test_N47_kill_after_join(self):
        """kill -9 after Join, restart, then Leave, DeleteEndpoint, DeleteNetwork: all ok, nothing left on the host."""
        network, endpoint, link = self.joined()
        self.daemon.kill9()
        self.assertIn(link, self.host.links(), "the link does not depend on the daemon")
        self.daemon.start()
        self.assertEqual([e["ipv4"].split("/")[0] for e in self.daemon.endpoints()], ["10.9.0.5"])
        for method in ("NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint"):
            self.ok(self.post(method, ids(network, endpoint)), method)
        self.ok(self.post("NetworkDriver.DeleteNetwork", {"NetworkID": network}))
        self.nothing_left()

    def test_N48_kill_during_create_endpoint(self):
        """kill -9 at moments all over CreateEndpoint and Join, restart, the same calls again: ok, one pair of links, no orphan."""
        network = self.create_network()
        moments = 16
        endpoint, begun = new_id(), time.monotonic()
        self.attach_raw(network, endpoint)
        span = time.monotonic() - begun
        self.detach(network, endpoint)
        for moment in range(moments):
            endpoint = new_id()
            caller = threading.Thread(target=self.attach_raw, args=(network, endpoint))
            caller.start()
            # Here the moment itself is the input: it walks over the whole of the two calls, and a little behind.
            threading.Event().wait(span * moment * 1.2 / moments)
            self.daemon.kill9()
            caller.join(100)
            self.daemon.start()
            self.create_endpoint(network, endpoint=endpoint)
            link = self.join(network, endpoint)["InterfaceName"]["SrcName"]
            wait_for(lambda: self.pairs() == [link] and len(self.ports()) == 1, 10, lambda: f"one pair: {self.pairs()} {self.ports()}")
            self.assertEqual(len(self.daemon.endpoints()), 1)
            self.detach(network, endpoint)

    def attach_raw(self, network, endpoint):
        """CreateEndpoint and Join, to whatever end."""
        for method, body in (("NetworkDriver.CreateEndpoint", endpoint_body(network, endpoint)),
                             ("NetworkDriver.Join", join_body(network, endpoint))):
            data = json.dumps(body).encode()
            try:
                with Wire(self.socket.path) as wire:
                    wire.send(head(method, len(data)) + data)
                    wire.answer()
            except OSError:
                return

    def detach(self, network, endpoint):
        for method in ("NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint"):
            self.ok(self.post(method, ids(network, endpoint)), method)
        self.no_links()

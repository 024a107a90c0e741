"""The remote IPAM driver: cases I1 to I31.

Where the protocol leaves a choice, ours is: the gateway asked for without an address is the first usable one; 0.0.0.0/N and ::/N
(engines from 29.0) are answered with a free pool of that length; a /32 pool gives its one address.
"""
import concurrent.futures
import ipaddress
import itertools
import threading

from tests.lab import wait_for

from .wire import Conformance, GATEWAY_OPTIONS, GLOBAL, LOCAL, POOL

SERIAL = {"com.docker.network.ipam.serial": "true"}


def ip(cidr):
    return str(ipaddress.ip_interface(cidr).ip)


class Pools(Conformance):
    # Four /24 in all, so that running out of them takes four calls.
    OPTIONS = ("--supernet", "10.200.0.0/22")

    def test_I01_capabilities_and_spaces(self):
        """GetCapabilities and GetDefaultAddressSpaces with an empty body: ok; both space names non-empty and different."""
        capabilities = self.ok(self.post("IpamDriver.GetCapabilities"))
        self.assertIsInstance(capabilities["RequiresMACAddress"], bool)
        self.assertIsInstance(capabilities["RequiresRequestReplay"], bool)
        spaces = self.ok(self.post("IpamDriver.GetDefaultAddressSpaces"))
        self.assertTrue(spaces["LocalDefaultAddressSpace"] and spaces["GlobalDefaultAddressSpace"])
        self.assertNotEqual(spaces["LocalDefaultAddressSpace"], spaces["GlobalDefaultAddressSpace"])

    def test_I02_request_pool(self):
        """An explicit pool: a PoolID, and the pool itself."""
        answer = self.ok(self.request_pool())
        self.assertTrue(answer["PoolID"])
        self.assertEqual(answer["Pool"], POOL)

    def test_I03_request_pool_again(self):
        """The same pool again: the same PoolID; two ReleasePool are needed before it is really gone."""
        first, second = self.pool(), self.pool()
        self.assertEqual(first, second)
        self.ok(self.release_pool(first))
        self.address(first)
        self.fail_with(self.request_pool("10.9.0.0/25"))
        self.ok(self.release_pool(first))
        self.fail_with(self.request_address(first))
        self.ok(self.request_pool("10.9.0.0/25"))

    def test_I04_overlap(self):
        """A pool that overlaps another one of the same space: fail, naming it."""
        self.pool()
        for pool in ("10.9.0.0/25", "10.9.0.0/16", "10.9.0.128/25"):
            self.assertIn(POOL, self.fail_with(self.request_pool(pool), where=pool))

    def test_I05_other_space(self):
        """The same pool in the other address space: ok."""
        self.pool()
        self.assertEqual(self.ok(self.request_pool(space=GLOBAL))["Pool"], POOL)

    def test_I06_automatic_pools(self):
        """Pool "" twice without release: two pools that do not overlap."""
        a, b = (ipaddress.ip_network(self.ok(self.request_pool(""))["Pool"]) for _ in range(2))
        self.assertFalse(a.overlaps(b), f"{a} {b}")

    def test_I07_automatic_pools_run_out(self):
        """Pool "" until there is none: fail, not a repetition and no hang; after one ReleasePool it works again."""
        given = {}
        for _ in range(5):
            answer = self.request_pool("")
            if not answer.ok:
                break
            self.assertNotIn(answer.json["Pool"], given)
            given[answer.json["Pool"]] = answer.json["PoolID"]
        self.fail_with(answer)
        self.assertEqual(sorted(given), [f"10.200.{i}.0/24" for i in range(4)])
        pool, pool_id = given.popitem()
        self.ok(self.release_pool(pool_id))
        wait_for(lambda: self.request_pool("").ok, 10, f"{pool} again")

    def test_I07_routes_of_the_host_are_overlaps(self):
        """An automatic pool overlaps no route of the host."""
        self.host.run("ip", "link", "add", "own", "type", "bridge")
        self.host.run("ip", "link", "set", "own", "up")
        self.host.run("ip", "route", "add", "10.200.0.0/23", "dev", "own")
        self.assertIn(self.ok(self.request_pool(""))["Pool"], ("10.200.2.0/24", "10.200.3.0/24"))

    def test_I08_automatic_ipv6_pool(self):
        """Pool "" with V6: an IPv6 pool."""
        self.assertEqual(ipaddress.ip_network(self.ok(self.request_pool("", v6=True))["Pool"]).version, 6)

    def test_I09_any_pool_of_a_length(self):
        """0.0.0.0/28 and ::/64: any free pool of that length."""
        for wanted, v6 in (("0.0.0.0/28", False), ("::/64", True)):
            pool = ipaddress.ip_network(self.ok(self.request_pool(wanted, v6=v6))["Pool"])
            self.assertEqual(pool.prefixlen, ipaddress.ip_network(wanted).prefixlen)
            self.assertNotEqual(int(pool.network_address), 0)

    def test_I10_sub_pool_without_pool(self):
        """Pool "" with a SubPool: fail."""
        self.fail_with(self.request_pool("", "10.9.0.0/26"))

    def test_I11_bad_pools(self):
        """A SubPool outside the pool or of the other family, garbage, an unknown space: fail each; no pool is left."""
        for pool, sub, space in ((POOL, "10.10.0.0/26", LOCAL), (POOL, "fd00::/64", LOCAL), (POOL, "10.9.0.0/16", LOCAL),
                                 (POOL, "x", LOCAL), ("garbage", "", LOCAL), ("10.9.0.0", "", LOCAL), ("10.9.0.0/33", "", LOCAL), ("10.9.0/24", "", LOCAL),
                                 (POOL, "", "no-such-space"), (POOL, "", ""), ("127.0.0.0/24", "", LOCAL), ("224.0.0.0/24", "", LOCAL),
                                 ("10.0.0.0/4", "", LOCAL)):
            self.fail_with(self.request_pool(pool, sub, space=space), where=f"{pool} {sub} {space}")
        self.assertEqual(self.daemon.call("GET", "/v1/ipam")["pools"], [])

    def test_I12_host_bits(self):
        """10.9.0.7/24 is treated as 10.9.0.0/24."""
        answer = self.ok(self.request_pool("10.9.0.7/24"))
        self.assertEqual(answer["Pool"], POOL)
        self.assertEqual(self.pool(), answer["PoolID"])

    def test_I13_ipv6_without_the_flag(self):
        """An IPv6 pool with V6 false, as swarm sends it: ok."""
        pool = self.ok(self.request_pool("fd00:9::/64"))
        self.assertEqual(pool["Pool"], "fd00:9::/64")
        self.assertEqual(ipaddress.ip_interface(self.address(pool["PoolID"])).network, ipaddress.ip_network("fd00:9::/64"))

    def test_I27_release_with_addresses_held(self):
        """ReleasePool with addresses held: ok; the pool can be had again, and the addresses are free."""
        pool = self.pool()
        self.address(pool, "10.9.0.77")
        self.ok(self.release_pool(pool))
        again = self.pool()
        self.assertEqual(self.address(again, "10.9.0.77"), "10.9.0.77/24")

    def test_I28_release_unknown_pool(self):
        """ReleasePool of an unknown id, and twice: ok."""
        self.ok(self.release_pool("no-such-pool"))
        pool = self.pool()
        for _ in range(2):
            self.ok(self.release_pool(pool))

    def test_I31_restart_between(self):
        """kill -9 between RequestPool and RequestAddress, and after it: the PoolID stays valid and the address stays held."""
        pool = self.pool()
        self.daemon.kill9()
        self.daemon.start()
        self.assertEqual(self.address(pool, "10.9.0.9"), "10.9.0.9/24")
        self.daemon.kill9()
        self.daemon.start()
        self.fail_with(self.request_address(pool, "10.9.0.9", {"com.docker.network.endpoint.name": "another"}))


class Addresses(Conformance):
    def test_I14_gateway(self):
        """The gateway without an address: inside the pool, with its prefix length: the first usable one."""
        self.assertEqual(self.address(self.pool(), options=GATEWAY_OPTIONS), "10.9.0.1/24")

    def test_I15_gateway_by_address(self):
        """The gateway 10.9.0.254: exactly that."""
        self.assertEqual(self.address(self.pool(), "10.9.0.254", GATEWAY_OPTIONS), "10.9.0.254/24")

    def test_I16_any_address(self):
        """Any address: not network, broadcast, gateway, nor one that is held."""
        pool = self.pool()
        given = [self.address(pool, options=GATEWAY_OPTIONS), self.address(pool, "10.9.0.2"), self.address(pool, "10.9.0.3")]
        given += [self.address(pool) for _ in range(50)]
        self.assertEqual(len(set(given)), 53)
        for cidr in given:
            self.assertEqual(ipaddress.ip_interface(cidr).network, ipaddress.ip_network(POOL))
            self.assertNotIn(ip(cidr), ("10.9.0.0", "10.9.0.255"))

    def test_I17_explicit_address(self):
        """An explicit address that is free, held, outside the pool, no address: exact, fail, fail, fail(400)."""
        pool = self.pool()
        name = {"com.docker.network.endpoint.name": "web"}
        self.assertEqual(self.address(pool, "10.9.0.20", name), "10.9.0.20/24")
        text = self.fail_with(self.request_address(pool, "10.9.0.20", {"com.docker.network.endpoint.name": "other"}))
        self.assertIn("10.9.0.20", text)
        automatic = ip(self.address(pool))
        self.fail_with(self.request_address(pool, automatic, {"com.docker.network.endpoint.name": "other"}))
        self.assertIn("10.10.0.20", self.fail_with(self.request_address(pool, "10.10.0.20")))
        for edge in ("10.9.0.0", "10.9.0.255", "fd00::5"):
            self.fail_with(self.request_address(pool, edge), where=edge)
        for bad in ("x", "10.9.0", "10.9.0.20/24/7"):
            self.fail_with(self.request_address(pool, bad), 400, where=bad)

    def test_I18_outside_sub_pool(self):
        """An explicit address outside the SubPool, inside the pool: ok."""
        pool = self.pool(sub="10.9.0.128/26")
        self.assertEqual(self.address(pool, "10.9.0.5"), "10.9.0.5/24")
        self.assertEqual(self.address(pool, "10.9.0.1", GATEWAY_OPTIONS), "10.9.0.1/24")

    def test_I19_automatic_inside_sub_pool(self):
        """Automatic addresses with SubPool 10.9.0.128/26: all of .128 to .191, down to the last, and with the pool's length."""
        pool = self.pool(sub="10.9.0.128/26")
        given = [self.address(pool) for _ in range(64)]
        self.assertEqual(sorted(given, key=ipaddress.ip_interface), [f"10.9.0.{n}/24" for n in range(128, 192)])
        self.fail_with(self.request_address(pool))

    def test_I20_exhaust(self):
        """A /29: six addresses less the gateway, then fail; after a ReleaseAddress it works again."""
        pool = self.pool("10.9.0.0/29")
        self.assertEqual(self.address(pool, options=GATEWAY_OPTIONS), "10.9.0.1/29")
        given = [self.address(pool) for _ in range(5)]
        self.assertEqual(sorted(given), [f"10.9.0.{n}/29" for n in range(2, 7)])
        text = self.fail_with(self.request_address(pool))
        self.assertIn("10.9.0.0/29", text)
        self.ok(self.release_address(pool, ip(given[2])))
        self.assertEqual(self.address(pool), given[2])

    def test_I21_tiny_pools(self):
        """A /31 has both addresses; a /32 has its one."""
        pool = self.pool("10.9.0.0/31")
        self.assertEqual(sorted(self.address(pool) for _ in range(2)), ["10.9.0.0/31", "10.9.0.1/31"])
        self.fail_with(self.request_address(pool))
        pool = self.pool("10.9.1.7/32")
        self.assertEqual(self.address(pool), "10.9.1.7/32")
        self.fail_with(self.request_address(pool))

    def test_I22_release(self):
        """ReleaseAddress of a held one, a free one, in an unknown pool, as CIDR text: ok each."""
        pool = self.pool()
        held = self.address(pool, "10.9.0.20")
        for pool_id, address in ((pool, "10.9.0.20"), (pool, "10.9.0.20"), (pool, "10.9.0.99"), ("no-such-pool", "10.9.0.20")):
            self.ok(self.release_address(pool_id, address), f"{pool_id} {address}")
        self.assertEqual(self.address(pool, "10.9.0.20"), held)
        self.ok(self.release_address(pool, held))
        self.assertEqual(self.address(pool, "10.9.0.20"), held)

    def test_I23_release_of_a_gateway_never_asked_for(self):
        """A gateway that came otherwise (from Data, of another driver's time): ok."""
        self.ok(self.release_address(self.pool(), "10.9.0.1"))

    def test_I24_options(self):
        """Endpoint name, MAC, ipam.serial, unknown keys, with any and with an explicit address: ok."""
        pool = self.pool()
        several = ({"com.docker.network.endpoint.name": "web"}, {"com.docker.network.endpoint.macaddress": "02:42:0a:09:00:05"}, SERIAL,
                   {"com.example.colour": "blue"}, {}, None)
        for number, options in enumerate(several):
            self.address(pool, options=options)
            self.assertEqual(self.address(pool, f"10.9.0.{200 + number}", options), f"10.9.0.{200 + number}/24")

    def test_I25_released_address_rests(self):
        """Release, then request with ipam.serial: not the one just released while others are free."""
        pool = self.pool()
        first = self.address(pool, options=SERIAL)
        self.ok(self.release_address(pool, ip(first)))
        self.assertNotEqual(self.address(pool, options=SERIAL), first)

    def test_I26_form_of_errors(self):
        """Every error: a status other than 200 with Err and Error; never 200 with only Err."""
        pool = self.pool("10.9.0.0/31")
        for _ in range(2):
            self.address(pool)
        for method, body in (("IpamDriver.RequestPool", {"AddressSpace": "x", "Pool": POOL, "V6": False}),
                             ("IpamDriver.RequestPool", {"AddressSpace": LOCAL, "Pool": "10.9.0.0/24", "SubPool": "", "V6": False}),
                             ("IpamDriver.RequestPool", {"AddressSpace": LOCAL, "Pool": "x", "V6": False}),
                             ("IpamDriver.RequestAddress", {"PoolID": "no-such-pool", "Address": "", "Options": None}),
                             ("IpamDriver.RequestAddress", {"PoolID": pool, "Address": "", "Options": None}),
                             ("IpamDriver.RequestAddress", {"PoolID": pool, "Address": "x", "Options": None}),
                             ("IpamDriver.RequestAddress", {"PoolID": pool, "Address": "192.0.2.1", "Options": None}),
                             ("IpamDriver.ReleaseAddress", {"PoolID": pool, "Address": "x"}), ("IpamDriver.ReleasePool", {})):
            self.fail_with(self.post(method, body), where=f"{method} {body}")


class Cluster(Conformance):
    HOSTS = 3

    def test_I29_never_twice(self):
        """Any address of one pool, 1000 times at once on two hosts and 100 times on a third that is cut off: never one twice."""
        wide = "10.9.0.0/20"
        pools = [self.pool(wide, socket=s) for s in self.sockets]
        lock, given, refused = threading.Lock(), [], []

        def take(host):
            answer = self.sockets[host].post("IpamDriver.RequestAddress", {"PoolID": pools[host], "Address": "", "Options": None})
            with lock:
                (given if answer.ok else refused).append((host, answer.json.get("Address")))
        for host in range(3):
            take(host)  # each has its first addresses before the cut
        self.assertEqual(len(given), 3, refused)
        self.lab.cut(self.lab.hosts[2:], self.lab.hosts[:2])
        # Executors apart: calls of the host that is alone wait for others in vain, and must not hold up the rest.
        with concurrent.futures.ThreadPoolExecutor(12) as two, concurrent.futures.ThreadPoolExecutor(8) as alone:
            list(itertools.chain(two.map(take, [0, 1] * 500), alone.map(take, [2] * 100)))
        addresses = [a for _, a in given]
        self.assertEqual(len(addresses), len(set(addresses)))
        together = sum(1 for host, _ in given if host < 2)
        self.assertGreaterEqual(together, 1000, f"the two hosts that see each other were refused {len(refused)} times")
        self.lab.heal()
        # The third asks on after the heal; what it was given in the dark stays its own.
        wait_for(lambda: self.request_address(pools[2], socket=self.sockets[2]).ok, 20, "an address after the heal")

    def test_I30_manager_and_node(self):
        """A pool requested by the manager in the global space, then by a node in the local one, and the task's IP again on the node:
        ok, the same CIDR."""
        manager, node = self.sockets[0], self.sockets[1]
        pool = self.pool(space=GLOBAL, socket=manager)
        gateway = self.address(pool, options={**GATEWAY_OPTIONS, **SERIAL}, socket=manager)
        task = self.address(pool, options=SERIAL, socket=manager)
        there = self.pool(space=LOCAL, socket=node)
        self.assertEqual(self.address(there, ip(gateway), GATEWAY_OPTIONS, socket=node), gateway)
        self.assertEqual(self.address(there, ip(task), socket=node), task)

"""Pools of a network: IPv6 ones from end to end, and one that is added while the network lives."""
import ipaddress
import secrets
import unittest

from tests.lab import Daemon, Runtime, wait_for
from tests.lab.plugin import ENDPOINT_GATEWAY, Refused
from tests.net.hosts import Hosts

FIRST, SECOND = "10.9.0.0/24", "10.10.0.0/24"
SIX = "2001:db8:9::/120"  # 256 addresses, of which the first is the routers' and the next the gateway


def create(plugin, pool_id, subnet, gateway, name, v6=False):
    data = [{"AddressSpace": "trestle-local", "Pool": subnet, "Gateway": gateway, "AuxAddresses": {}}]
    network_id = secrets.token_hex(32)
    plugin.call("NetworkDriver.CreateNetwork", NetworkID=network_id, IPv4Data=[] if v6 else data, IPv6Data=data if v6 else [],
                Options={"com.docker.network.enable_ipv6": v6, "com.docker.network.generic": {"trestle.network": name}})
    return network_id


class Added(Hosts):
    def runtime(self, daemon, subnet, options):
        plugin = daemon.plugin()
        pool = plugin.request_pool(subnet, options=options)["PoolID"]
        gateway = plugin.request_address(pool, "", ENDPOINT_GATEWAY)
        return Runtime(daemon, create(plugin, pool, subnet, gateway, "app"), pool)

    def subnets(self, daemon):
        return sorted(daemon.call("GET", "/v1/networks/app")["pools"])

    def test_a_pool_is_added_to_a_live_network(self):
        tied = {"trestle.network": "app"}
        one = self.runtime(self.daemons[0], FIRST, tied)
        self.know_network("app")
        # Its size is known where nobody uses it yet.
        wait_for(lambda: [(p["size"], p["reserved"], p["shares"]) for p in self.daemons[1].call("GET", "/v1/ipam")["pools"]] == [(256, 2, [])],
                 10, "the size of a pool that another host has")
        two = self.runtime(self.daemons[1], FIRST, tied)
        a, b = one.attach(), two.attach()
        self.reach(one, a, b.ip)
        # Not by mistake: without the name it is another network's.
        with self.assertRaises(Refused):
            self.runtime(self.daemons[1], "10.11.0.0/24", {})
        more = []
        for adder in reversed(self.daemons):
            more.append(self.runtime(adder, SECOND, tied))
            for d in self.daemons:
                wait_for(lambda d=d: self.subnets(d) == sorted([FIRST, SECOND]), 10, f"{d.host.name} knows both subnets")
        x, y = [r.attach() for r in more]
        self.assertTrue(x.ip.startswith("10.10.0.") and y.ip.startswith("10.10.0."), (x.ip, y.ip))
        self.assertNotEqual(x.ip, y.ip)
        self.reach(more[0], x, y.ip)
        self.reach(one, a, b.ip)
        networks = self.daemons[0].call("GET", "/v1/networks")["networks"]
        self.assertEqual(len([n for n in networks if n["name"] == "app"]), 1)
        # It is on disk.
        self.daemons[1].restart()
        self.assertEqual(self.subnets(self.daemons[1]), sorted([FIRST, SECOND]))


class Six(Hosts):
    HOSTS = 3
    OPTIONS = ("--lease-grace", 600)  # what is given here is never used

    def test_every_address_of_an_ipv6_pool_once(self):
        plugins = [d.plugin() for d in self.daemons]
        pools = [p.request_pool(SIX, v6=True)["PoolID"] for p in plugins]
        gateways = {p.request_address(pool, "", ENDPOINT_GATEWAY) for p, pool in zip(plugins, pools)}
        self.assertEqual(gateways, {"2001:db8:9::1/120"})
        given = []

        def take(i):
            try:
                given.append(plugins[i].request_address(pools[i]))
            except Refused as e:  # for good, or because another host did not answer in time
                self.assertIn("no free address", str(e))

        def all_taken():
            for i in range(3):
                take(i)
            return len(given) >= 254
        wait_for(all_taken, 20, "254 addresses", every=0)
        for i in range(3):
            take(i)
        self.assertEqual((len(given), len(set(given))), (254, 254))
        self.assertNotIn("2001:db8:9::/120", given)
        with self.assertRaises(Refused) as caught:
            plugins[1].request_address(pools[1], given[100].split("/")[0])
        self.assertIn("in use", str(caught.exception))


class Slices(Hosts):
    """Of a large IPv6 pool each host has a part of its own from the beginning: prefix, a one, its number in 20 bits, the rest."""
    HOSTS = 3
    OPTIONS = ("--lease-grace", 600)
    LARGE = "2001:db8:9::/64"

    def owner(self, address):
        """Whose slice the address is in; None: in the half that is the maker's."""
        low = int(ipaddress.ip_interface(address).ip) & (1 << 64) - 1
        return low >> 43 & 0xfffff if low >> 63 else None

    def test_a_host_gives_from_its_slice_alone_and_by_name_from_all(self):
        plugins = [d.plugin() for d in self.daemons]
        number = [d.call("GET", "/v1/status")["hostno"] for d in self.daemons]
        pool = plugins[0].request_pool(self.LARGE, v6=True)["PoolID"]
        # The maker has the half where people choose addresses.
        self.assertIsNone(self.owner(plugins[0].request_address(pool)))
        wait_for(lambda: self.daemons[2].call("GET", "/v1/status")["pools"], 10, "h3 knows the pool")
        self.assertEqual(plugins[2].request_pool(self.LARGE, v6=True)["PoolID"], pool)
        # Once it is known to the others, which it is within moments.
        wait_for(lambda: self.owner(plugins[2].request_address(pool)) == number[2], 20, "h3 gives from its slice")
        self.lab.cut(self.lab.hosts[:2], self.lab.hosts[2:])
        given = [plugins[2].request_address(pool) for _ in range(50)]
        self.assertEqual(len(set(given)), 50)
        self.assertEqual({self.owner(a) for a in given}, {number[2]})
        self.daemons[2].restart()  # alone, and it does not forget
        plugins[2] = self.daemons[2].plugin()
        more = wait_for(lambda: self.take(plugins[2], pool), 30, "h3 gives again")
        self.assertEqual(self.owner(more), number[2])
        self.assertNotIn(more, given)
        self.lab.heal()
        Daemon.wait_members(self.daemons)
        # By name each is to be had of whose slice it is in, also when that host does not use the pool (h2).
        with self.assertRaises(Refused) as caught:
            plugins[0].request_address(pool, given[7].split("/")[0])
        self.assertIn("in use", str(caught.exception))
        self.assertIn("h3", str(caught.exception))
        base = int(ipaddress.ip_network(self.LARGE).network_address)
        for i in (1, 2):
            free = str(ipaddress.ip_address(base + (1 << 63) + (number[i] << 43) + 0xabcdef))
            self.assertEqual(plugins[0].request_address(pool, free), free + "/64")

    def take(self, plugin, pool):
        try:
            return plugin.request_address(pool)
        except Refused as e:
            self.assertIn("has not heard from another", str(e))
            return None


if __name__ == "__main__":
    unittest.main()

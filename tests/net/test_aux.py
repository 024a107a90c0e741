"""Addresses that a network keeps for itself, its gateway and auxiliary ones: reserved on every host, whoever comes, until the network goes."""
import secrets
import unittest

from tests.lab import Daemon, Refused, Runtime, wait_for
from tests.lab.plugin import ENDPOINT_GATEWAY
from tests.net.hosts import Hosts

SUBNET = "10.9.0.0/28"  # .1 to .14
GATEWAY = "10.9.0.1"
AUX = ["10.9.0.2", "10.9.0.7"]
FREE = 14 - 1 - len(AUX)
AS_CONTAINER = {"com.docker.network.endpoint.name": "web"}  # what engines from 29.0 say of an endpoint


class Network:
    """A network with auxiliary addresses on one host, in the order of an engine's calls."""

    def __init__(self, daemon, aux=AUX, subnet=SUBNET):
        self.daemon, self.plugin, self.aux = daemon, daemon.plugin(), aux
        self.pool = self.plugin.request_pool(subnet)["PoolID"]
        self.gateway = self.plugin.request_address(self.pool, "", ENDPOINT_GATEWAY)
        for address in aux:
            self.plugin.request_address(self.pool, address)
        self.id = secrets.token_hex(32)
        self.plugin.call("NetworkDriver.CreateNetwork", NetworkID=self.id, IPv6Data=[],
                         IPv4Data=[{"AddressSpace": "trestle-local", "Pool": subnet, "Gateway": self.gateway,
                                    "AuxAddresses": {f"a{i}": f"{a}/28" for i, a in enumerate(aux)}}],
                         Options={"com.docker.network.enable_ipv6": False, "com.docker.network.generic": {"trestle.network": "app"}})
        self.runtime = Runtime(daemon, self.id, self.pool)

    def remove(self):
        for address in [self.gateway, *self.aux]:
            self.plugin.release_address(self.pool, address)
        self.plugin.call("IpamDriver.ReleasePool", PoolID=self.pool)
        self.plugin.call("NetworkDriver.DeleteNetwork", NetworkID=self.id)


class Networks(Hosts):
    OPTIONS = ("--lease-grace", 600)

    def setUp(self):
        super().setUp()
        self.networks = []
        for d in self.daemons:
            self.networks.append(Network(d))
            self.know_network("app")

    def refuses(self, network, address, options=None):
        try:
            got = network.plugin.request_address(network.pool, address, options)
        except Refused as e:
            self.assertIn(address, e.text)
            return
        self.fail(f"{network.daemon.host.name} gave {got}, asked for with {options}")

    def keeps(self, *networks):
        """No host gives the network's own addresses, however it is asked."""
        for network in networks or self.networks:
            for address in [GATEWAY, *AUX]:
                self.refuses(network, address, AS_CONTAINER)
                self.refuses(network, address)

    def give_all(self):
        """Takes what there is on both hosts in turn; what was given."""
        given = []

        def take():
            network = self.networks[len(given) % 2]
            try:
                given.append(network.plugin.request_address(network.pool, "", AS_CONTAINER).split("/")[0])
            except Refused as e:  # at once, or behind a question to the other host that was not answered in time
                self.assertIn("no free address", e.text)
            return len(given) >= FREE
        wait_for(take, 20, f"{FREE} addresses")
        for network in self.networks:
            self.refuses(network, "", AS_CONTAINER)
        return given

    def test_reserved_on_both_hosts(self):
        self.assertEqual([n.gateway for n in self.networks], [GATEWAY + "/28"] * 2)
        self.keeps()

    def test_never_given_to_anyone(self):
        given = self.give_all()
        self.assertEqual(len(given), FREE)
        self.assertEqual(sorted(set(given)), sorted(given))
        self.assertFalse(set(given) & {GATEWAY, *AUX})

    def test_an_endpoint_is_refused(self):
        """With an engine that does not say what an address is for, the endpoint itself is refused."""
        for network in self.networks:
            with self.assertRaises(Refused):
                network.plugin.create_endpoint(network.id, secrets.token_hex(32), AUX[0] + "/28")
        self.keeps()

    def test_released_with_the_network(self):
        self.networks[0].remove()
        self.keeps(self.networks[1])
        self.networks[1].remove()
        wait_for(lambda: not any(self.leases(d) for d in self.daemons), 5, "all leases end")
        again = Network(self.daemons[0], aux=[])
        for address in AUX:
            # The other host's release may be on its way.
            got = wait_for(lambda a=address: again.plugin.request_address(again.pool, a, AS_CONTAINER), 5, f"{address} is free")
            self.assertEqual(got, address + "/28")


class Collected(Networks):
    """Behind the time after which an address that was given and not used is taken back: what a network keeps is none of these."""

    GRACE_S = 3
    OPTIONS = ("--lease-grace", GRACE_S)

    def collect_once(self):
        """Waits until addresses that nobody used have been taken back on both hosts."""
        lost = [n.plugin.request_address(n.pool, "", AS_CONTAINER).split("/")[0] for n in self.networks]
        for network, address in zip(self.networks, lost):
            wait_for(lambda n=network, a=address: f"address {a} was given" in n.daemon.log_text(), 3 * self.GRACE_S, f"{address} is taken back")

    def test_kept_behind_the_grace_time(self):
        self.collect_once()
        self.keeps()

    def test_survives_the_daemon(self):
        for daemon, end in zip(self.daemons, (Daemon.stop, Daemon.kill9)):
            end(daemon)
            daemon.start()
        self.daemons[0].wait_members(self.daemons)
        self.collect_once()
        self.keeps()

    def test_survives_a_boot(self):
        for host, daemon in zip(self.lab.hosts, self.daemons):
            host.boot()
            daemon.start()
        self.daemons[0].wait_members(self.daemons)
        wait_for(lambda: all(self.leases(d) >= 3 for d in self.daemons), 10, "the addresses are taken again")
        self.collect_once()
        self.keeps()

    def test_one_host_boots_alone(self):
        """Its addresses are nobody's meanwhile, but the other host lists them."""
        self.lab.hosts[0].boot()
        self.keeps(self.networks[1])
        self.daemons[0].start()
        self.daemons[0].wait_members(self.daemons)
        wait_for(lambda: self.leases(self.daemons[0]) >= 3, 10, "the addresses are taken again")
        self.keeps()

    def test_lease_shared_for_nothing_is_taken_back(self):
        """Asked for like an auxiliary address of another host's network, and no network came that has it."""
        self.networks[1].remove()
        pool = self.networks[1].plugin.request_pool(SUBNET)["PoolID"]
        plain = Network(self.daemons[1], aux=[])
        self.assertEqual(plain.plugin.request_address(pool, AUX[0]), AUX[0] + "/28")
        wait_for(lambda: f"address {AUX[0]} was given" in self.daemons[1].log_text(), 5, "it is taken back")
        self.keeps(self.networks[0])


if __name__ == "__main__":
    unittest.main()

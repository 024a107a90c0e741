"""IPv6 by real engines: `docker network create --ipv6` with both subnets on two hosts."""
import ipaddress
import unittest

from tests.docker.cluster import Cluster
from tests.lab import wait_for


class Dual(Cluster):
    HOSTS = 2

    def address6(self, number, name, network):
        return self.engines[number].inspect(name)["NetworkSettings"]["Networks"][network]["GlobalIPv6Address"]

    def test_both_families(self):
        name, part = self.network("--ipv6", "--subnet", "2001:db8:9::/64", "-o", "trestle.mtu=1400")
        for e in self.engines:
            self.assertEqual([c["Subnet"] for c in e.api("GET", f"/networks/{name}")["IPAM"]["Config"]],
                             [f"{part}.0/24", "2001:db8:9::/64"])
        containers = self.one_on_each(name)
        self.all_reach(containers)
        six = {c: (n, self.address6(n, c, name)) for c, (n, _) in containers.items()}
        self.assertEqual(len(set(six.values())), 2)
        self.assertTrue(all(ipaddress.ip_address(a) in ipaddress.ip_network("2001:db8:9::/64") for _, a in six.values()), six)
        self.all_reach(six)
        for d in self.daemons:
            wait_for(lambda d=d: {e["ipv6"] for e in d.endpoints(name)} == {a for _, a in six.values()}, 5, f"{d.host.name} knows both")
        # By name, and what is taken is refused on the other host too.
        self.run_one(1, "named", name, "--ip6", "2001:db8:9::abcd")
        self.assertEqual(self.address6(1, "named", name), "2001:db8:9::abcd")
        self.reaches(0, "c1", "2001:db8:9::abcd")
        self.assertIn("in use", self.refused(0, "run", "-d", "--name", "second", "--network", name, "--ip6", "2001:db8:9::abcd", "lab", "true"))
        self.engines[0].docker("rm", "-f", "second")
        # Both engines and daemons start anew; the addresses are the containers' still.
        self.engines[1].docker("stop", "-t", "0", "named")
        self.daemons[1].restart()
        self.engines[1].docker("start", "named")
        self.assertEqual(self.address6(1, "named", name), "2001:db8:9::abcd")
        self.reaches(0, "c1", "2001:db8:9::abcd")
        self.all_reach(six)

    def test_subnets_are_chosen_for_both_families(self):
        for e in self.engines:
            e.docker("network", "create", "-d", "trestle", "--ipam-driver", "trestle", "--ipv6", "--ipam-opt", "trestle.network=chosen",
                     "-o", "trestle.network=chosen", "chosen")
            self.know_network("chosen")
        subnets = [[c["Subnet"] for c in e.api("GET", "/networks/chosen")["IPAM"]["Config"]] for e in self.engines]
        self.assertEqual(subnets[0], subnets[1])
        self.assertEqual([ipaddress.ip_network(s).version for s in subnets[0]], [4, 6])
        containers = self.one_on_each("chosen")
        self.all_reach({c: (n, self.address6(n, c, "chosen")) for c, (n, _) in containers.items()})


if __name__ == "__main__":
    unittest.main()

"""Asking for a pool that another host is making at this moment, and that never comes to be: nobody may join it, for no address of it is in
anybody's custody. The subnets are many because the host that is asked first differs from one to the other."""
import ipaddress
import threading
import unittest

from tests.lab import Daemon, wait_for
from tests.lab.plugin import Refused
from tests.net.hosts import Hosts


class Unmade(Hosts):
    HOSTS = 3

    def use(self, daemon, subnet):
        plugin = daemon.plugin()
        pool = plugin.request_pool(subnet)["PoolID"]
        address = ipaddress.ip_interface(plugin.request_address(pool))
        self.assertIn(address.ip, ipaddress.ip_network(subnet))

    def test_a_choice_that_is_not_needed(self):
        """Hosts that ask for a network's pool by its name at once choose a range each, and use one. The other is free at once."""
        names = [f"n{number}" for number in range(8)]
        given = {}

        def ask(daemon, name):
            given[daemon.host.name, name] = daemon.plugin().request_pool("", options={"trestle.network": name})["Pool"]
        askers = [threading.Thread(target=ask, args=(d, n)) for n in names for d in self.daemons]
        for a in askers:
            a.start()
        for a in askers:
            a.join()
        for name in names:
            self.assertEqual(len({given[d.host.name, name] for d in self.daemons}), 1, given)
        chosen = list(ipaddress.ip_network("10.192.0.0/16").subnets(new_prefix=24))[:4 * len(names)]
        for subnet in {str(c) for c in chosen} - set(given.values()):
            self.use(self.daemons[0], subnet)

    def test_a_maker_that_dies(self):
        """Its disk is full, so that it stays before the moment at which the pool is made."""
        one, two, three = self.daemons
        self.small_disk(one)
        self.fill_disk(one)
        subnets = [f"10.{number}.0.0/24" for number in range(40, 46)]

        def make(subnet):
            try:
                one.plugin().request_pool(subnet)
            except OSError:
                pass  # killed
        makers = [threading.Thread(target=make, args=(s,)) for s in subnets]
        for m in makers:
            m.start()
        wait_for(lambda: {p["pool"] for p in one.call("GET", "/v1/ipam")["pools"]} >= set(subnets), 10, "it has asked for all")
        # As long as it lives, it may succeed at any moment.
        for s in subnets[:3]:
            self.assertTrue(self.waits(two, s), s)
        one.kill9()
        for m in makers:
            m.join()
        for d in (two, three):
            wait_for(lambda d=d: d.call("GET", "/v1/status")["members"]["dead"] == 1, 30, f"{d.host.name} knows of its death")
        for s in subnets:
            self.use(two, s)
            self.use(three, s)
        one.host.run("rm", f"{one.state}/fill")
        one.start()
        Daemon.wait_members(self.daemons)
        for s in subnets:
            self.use(one, s)

    def test_who_has_just_started_makes_nothing_that_is_there(self):
        """It hears nobody, and nobody is dead for it yet: it would be the home of all names, and know of none."""
        one, two, three = self.daemons
        three.kill9()
        one.plugin().create_network("made", "10.60.0.0/24")
        self.lab.cut(self.lab.hosts[:2], self.lab.hosts[2:])
        three.start()
        answers = []
        asker = threading.Thread(target=lambda: answers.append(three.plugin().request_pool("10.60.0.0/24")))
        asker.start()
        wait_for(lambda: answers or three.call("GET", "/v1/status")["counters"]["gossip"]["probe_timeouts"], 10, "its probes fail")
        self.assertFalse(answers)
        self.lab.heal()
        asker.join()
        self.assertEqual(len(answers), 1)
        self.assertEqual(answers[0]["PoolID"], one.plugin().request_pool("10.60.0.0/24")["PoolID"])

    def waits(self, daemon, subnet):
        try:
            daemon.plugin().request_pool(subnet)
        except Refused as e:
            return "is being made by another host" in str(e)
        return False


if __name__ == "__main__":
    unittest.main()

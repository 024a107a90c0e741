"""A host keeps the endpoints of the networks that it is part of, and of no others."""
import time
import unittest

from tests.lab import wait_for
from tests.lab.daemon import PORT, ControlError
from tests.net.hosts import Hosts

MANY = 40


class Interest(Hosts):
    HOSTS = 3

    def counters(self, daemon):
        return daemon.call("GET", "/v1/status")["counters"]["gossip"]

    def test_a_host_keeps_what_it_is_part_of(self):
        h1, h2, h3 = self.daemons
        shop = self.runtimes("shop", "10.9.0.0/24", daemons=[h1, h2])
        store = self.runtimes("store", "10.10.0.0/24", daemons=[h2, h3])
        a, b = [r.attach() for r in shop]
        c, d = [r.attach() for r in store]
        self.reach(shop[0], a, b.ip)
        self.reach(store[0], c, d.ip)
        for daemon, mine in ((h1, {a.ip, b.ip}), (h2, {a.ip, b.ip, c.ip, d.ip}), (h3, {c.ip, d.ip})):
            wait_for(lambda: set(self.endpoints(daemon)) == mine, 5, f"{daemon.host.name} knows {mine}, no more")

        # It knows that there is more, and says who knows about that.
        row = next(n for n in h3.call("GET", "/v1/networks")["networks"] if n["name"] == "shop")
        self.assertEqual((row["kept"], row["endpoints_local"], row["endpoints_total"], row["hosts"]), (False, 0, None, None))
        self.assertRegex(h3.text("network", "ls"), r"shop .* 0 +- +- ")
        with self.assertRaises(ControlError) as refused:
            h3.endpoints("shop")
        self.assertEqual(refused.exception.status, 409)
        self.assertRegex(str(refused.exception), "ask host h[12]")
        with self.assertRaises(ControlError) as unknown:
            h3.call("GET", "/v1/endpoints/" + a.ip)
        self.assertEqual(unknown.exception.status, 404)

        # Nothing of the other network's changes is sent here, or known.
        for _ in range(5):
            shop[0].detach(shop[0].attach())
        self.assertEqual(self.counters(h3)["unwanted"], 0)
        self.assertNotIn(f"endpoint {a.endpoint_id[:12]}", h3.log_text())

        # It becomes a part of it, and reaches all.
        late = self.runtimes("shop", "10.9.0.0/24", daemons=[h3])[0]
        e = late.attach()
        for ip in (a.ip, b.ip):
            self.reach(late, e, ip)
        for daemon in (h1, h2, h3):
            wait_for(lambda: {a.ip, b.ip, e.ip} <= set(self.endpoints(daemon)), 5, f"{daemon.host.name} knows all of shop")
        self.assertEqual(next(n for n in h3.call("GET", "/v1/networks")["networks"] if n["name"] == "shop")["hosts"], 3)

        # It is so again after a restart, and what is there is not asked for twice.
        h3.restart()
        wait_for(lambda: {a.ip, b.ip, c.ip, d.ip, e.ip} == set(self.endpoints(h3)), 10, "h3 knows both again")
        self.reach(late, e, a.ip)

        # It leaves: what others have there is forgotten, what they have elsewhere is not, and they know that its own is gone.
        late.detach(e)
        late.plugin.call("NetworkDriver.DeleteNetwork", NetworkID=late.network_id)
        wait_for(lambda: set(self.endpoints(h3)) == {c.ip, d.ip}, 5, "h3 knows store alone")
        for daemon in (h1, h2):
            wait_for(lambda: set(e for e in self.endpoints(daemon) if e.startswith("10.9.")) == {a.ip, b.ip}, 5,
                     f"{daemon.host.name} knows that h3's endpoint is gone")
        self.assertEqual(self.counters(h3)["subscriptions"], 1)
        self.reach(store[0], c, d.ip)
        self.reach(shop[0], a, b.ip)

    def warned(self, daemon, begin, peer):
        return any(begin in w and f"host {peer.host.name}," in w for w in daemon.call("GET", "/v1/status")["warnings"])

    def reaches(self, daemon):
        return {m["name"]: m["reach"] for m in daemon.call("GET", "/v1/members")["members"]}

    def test_a_lost_direction_between_the_only_two(self):
        """Containers cannot talk over it either, so nothing relays these records for the two. It is said on both, and whoever is
        part of the network too brings the records."""
        h1, h2, h3 = self.daemons
        one, two = self.runtimes("shop", "10.9.0.0/24", daemons=[h1, h2])
        self.lab.cut([h1.host], [h2.host], one_way=True)
        a, b = one.attach(), two.attach()
        wait_for(lambda: self.warned(h1, "nothing that this host sends arrives at", h2), 20, "h1 names the direction")
        wait_for(lambda: self.warned(h2, "nothing arrives here from", h1), 20, "h2 names the direction")
        self.assertEqual((self.reaches(h1)["h2"], self.reaches(h2)["h1"]), ("in", "none"))
        self.assertRegex(h1.text("members"), r"h2 +alive .* in ")
        self.assertFalse([w for w in h3.call("GET", "/v1/status")["warnings"] if "arrives" in w])
        self.assertEqual(set(self.endpoints(h1)), {a.ip, b.ip})
        self.assertEqual(set(self.endpoints(h2)), {b.ip})
        h3.call("POST", "/v1/networks", {"name": "shop"})
        wait_for(lambda: set(self.endpoints(h2)) == {a.ip, b.ip}, 20, "h2 knows h1's endpoint by h3")
        c = one.attach()
        wait_for(lambda: c.ip in self.endpoints(h2), 20, "and the next one")
        self.assertEqual([d.call("GET", "/v1/status")["members"]["alive"] for d in self.daemons], [3, 3, 3])
        self.lab.heal()
        for d in (h1, h2):
            wait_for(lambda d=d: not d.call("GET", "/v1/status")["warnings"], 20, f"{d.host.name} warns of nothing")
        self.reach(one, c, b.ip)

    def test_a_lost_direction_of_udp_alone(self):
        """There are streams."""
        h1, h2, _ = self.daemons
        one, two = self.runtimes("shop", "10.9.0.0/24", daemons=[h1, h2])
        h2.host.run("nft", "-f", "-", stdin=f"""add table ip filtered; add chain ip filtered input {{ type filter hook input priority 0; }}
            add rule ip filtered input ip saddr {h1.host.address} udp dport {PORT} drop""")
        a, b = one.attach(), two.attach()
        for d in (h1, h2):
            wait_for(lambda d=d: set(self.endpoints(d)) == {a.ip, b.ip}, 20, f"{d.host.name} knows both")
        wait_for(lambda: self.reaches(h1)["h2"] == "tcp", 20, "h1 has gone over to TCP")
        self.reach(one, a, b.ip)
        self.assertFalse([w for d in (h1, h2) for w in d.call("GET", "/v1/status")["warnings"] if "arrives" in w])

    def test_what_others_have_is_there_before_the_first_container(self):
        """The first container in a network of this host finds those of others as fast as a later one: within milliseconds of
        CreateNetwork this host knows them all, far below the second after which an unanswered ARP request is repeated."""
        h1, h2, h3 = self.daemons
        one = self.runtimes("app", "10.9.0.0/24", daemons=[h1])[0]
        there = [one.attach() for _ in range(MANY)]
        self.know_network("app", daemons=[h2])
        self.assertEqual(self.endpoints(h2), {})
        began = time.monotonic()
        two = self.runtimes("app", "10.9.0.0/24", daemons=[h2])[0]
        made = time.monotonic()
        wait_for(lambda: len(self.endpoints(h2)) == MANY, 5, "h2 knows the endpoints of h1", every=0)
        known = time.monotonic()
        x = two.attach()
        self.assertTrue(two.ping(x, there[-1].ip), "the first packet to an endpoint of another host gets an answer")
        print(f"# network made in {(made - began) * 1e3:.0f} ms, {MANY} endpoints of another host known {(known - made) * 1e3:.0f} ms later")


if __name__ == "__main__":
    unittest.main()

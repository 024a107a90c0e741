"""A host dies for good and is forgotten: its addresses become usable on the others, none is given twice, and when it comes back all the
same, it gives up what it had."""
import json
import secrets
import unittest

from tests.lab import Daemon, wait_for
from tests.lab.daemon import ControlError
from tests.lab.plugin import Refused
from tests.net.hosts import Hosts

POOL = "10.9.0.0/27"  # small: 30 addresses, of which the victim holds some


class Forget(Hosts):
    HOSTS = 3
    OPTIONS = ("--lease-grace", 600)  # addresses are taken here that nobody uses

    def setUp(self):
        super().setUp()
        self.one, self.two, self.three = self.runtimes(subnet=POOL)
        self.victim = self.daemons[2]

    def pool(self, daemon):
        return next(p for p in daemon.call("GET", "/v1/ipam")["pools"] if p["pool"] == POOL)

    def held(self, daemon):
        """{host: addresses in its custody} as one daemon sees it."""
        return {s["host"]: s["held"] for s in self.pool(daemon)["shares"]}

    def dies(self):
        self.victim.kill9()
        for d in self.daemons[:2]:
            wait_for(lambda d=d: self.state(d, "h3") == "dead", 60, f"{d.host.name} takes h3 for dead")

    def state(self, daemon, name):
        return next((m["state"] for m in daemon.call("GET", "/v1/members")["members"] if m["name"] == name), None)

    def forget(self, name, *options):
        """Until it is done: the command waits four seconds for the others' promises, and may be given again."""
        return wait_for(lambda: self.daemons[0].trestle("forget", name, "--fenced", *options), 20, f"{name} is forgotten")

    def take_all(self, runtime, count):
        """Every address that can still be had, as an engine asks for them; there are so many, and no more."""
        taken = []

        def take():
            taken.append(runtime.plugin.request_address(runtime.pool_id).split("/")[0])
            return len(taken) >= count
        # Others are asked for theirs, and may not answer within the two seconds that a call can wait.
        wait_for(take, 20, f"{count} addresses on {runtime.host.name}")
        with self.assertRaises(Refused):
            runtime.plugin.request_address(runtime.pool_id)
        self.assertEqual(len(set(taken)), count, taken)
        return taken

    def test_estate_moves_and_victim_drops_it(self):
        a, b, c = self.one.attach(), self.two.attach(), self.three.attach()
        lost = self.three.attach()
        self.reach(self.one, a, c.ip)
        wait_for(lambda: self.held(self.daemons[0]).get("h3", 0) >= 2, 10, "h3 has addresses of its own")
        self.dies()

        # Not without the operator's word, and not a host that answers.
        for host, words in (("h3", "--fenced"), ("h2", "answers"), ("h1", "this host"), ("h9", "no host")):
            done = self.daemons[0].trestle("forget", host, check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(words, done.stderr)
        self.assertGreaterEqual(self.held(self.daemons[0])["h3"], 2)

        said = wait_for(lambda: self.daemons[0].text("forget", "h3", "--fenced"), 20, "h3 is forgotten")
        self.assertIn("forgot host h3", said)
        again = self.daemons[0].trestle("forget", "h3", "--fenced")
        self.assertTrue(again["done"])
        for d in self.daemons[:2]:
            wait_for(lambda d=d: self.held(d).get("h3", 0) == 0, 10, f"{d.host.name} counts nothing as h3's")
            wait_for(lambda d=d: set(self.endpoints(d).values()) == {"h1", "h2"}, 10, f"{d.host.name} shows no endpoint of h3")

        # What the victim's container had works for another one, everywhere.
        heir = self.one.attach(c.ip)
        self.reach(self.two, b, c.ip)

        # All 30 less the gateway can be had, the victim's too, and none of them twice.
        given = [a.ip, b.ip, heir.ip] + self.take_all(self.two, 26)
        self.assertEqual(len(set(given)), 29)
        self.assertIn(lost.ip, given)
        for d in self.daemons[:2]:
            self.assertEqual(d.trestle("ipam", "check")["duplicates"], [])
            self.assertEqual(d.call("GET", "/v1/status")["counters"]["ipam"]["bad_messages"], 0)

        # It comes back with everything it had, and has to give it up.
        self.victim.start(wait=False)
        wait_for(self.started_over, 60, "h3 gives up what it had and starts over")
        self.assertEqual(self.victim.local_endpoints(), [])
        self.assertIn("has been forgotten by its cluster", self.victim.log_text())
        for d in self.daemons[:2]:
            self.assertEqual(self.endpoints(d).get(c.ip), "h1")
            self.assertEqual(d.trestle("ipam", "check")["duplicates"], [])
        self.reach(self.two, b, c.ip)

        # As somebody else it is welcome.
        self.victim.join(self.daemons[0])
        wait_for(lambda: self.state(self.daemons[0], "h3") is not None, 20, "h1 knows h3 again")

    def started_over(self):
        try:
            return "with a new identity" in self.victim.log_text() and self.victim.call("GET", "/v1/ipam")["pools"] == []
        except (OSError, ControlError):
            return False

    def test_a_silent_host_is_waited_for_or_assumed_fenced(self):
        """With h2 silent too, h1 waits for it: h2 could have addresses from h3 that h1 knows nothing of."""
        self.three.attach()
        wait_for(lambda: self.held(self.daemons[0]).get("h3", 0) >= 2, 10, "h3 has addresses of its own")
        self.victim.kill9()
        self.daemons[1].kill9()
        for name in ("h2", "h3"):
            wait_for(lambda name=name: self.state(self.daemons[0], name) == "dead", 60, f"h1 takes {name} for dead")
        done = self.daemons[0].trestle("forget", "h3", "--fenced", "-o", "json", check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        answer = json.loads(done.stdout)
        self.assertEqual((answer["done"], answer["waiting_for"]), (False, ["h2"]))
        self.assertGreaterEqual(self.held(self.daemons[0])["h3"], 2)

        # The wait is on disk: it goes on after a restart, and ends when h2 is back.
        self.daemons[0].kill9()
        self.daemons[0].start()
        self.daemons[1].start()
        wait_for(lambda: self.daemons[0].trestle("forget", "h3", "--fenced", "-o", "json", check=False).returncode == 0, 60,
                 "h2 has promised")
        wait_for(lambda: self.held(self.daemons[0]).get("h3", 0) == 0, 10, "the estate is h1's")

    def test_the_word_covers_a_second_host(self):
        self.three.attach()
        wait_for(lambda: self.held(self.daemons[0]).get("h3", 0) >= 2, 10, "h3 has addresses of its own")
        self.victim.kill9()
        self.daemons[1].kill9()
        for name in ("h2", "h3"):
            wait_for(lambda name=name: self.state(self.daemons[0], name) == "dead", 60, f"h1 takes {name} for dead")
        answer = self.forget("h3", "--assume-fenced", "h2")
        self.assertEqual((answer["done"], answer["assumed_fenced"]), (True, ["h2"]))
        self.assertTrue(self.forget("h2")["done"])
        self.take_all(self.one, 29)

    def test_an_estate_in_a_pool_that_its_heir_never_used(self):
        other = "10.9.1.0/27"
        two, three = self.runtimes("db", other, daemons=self.daemons[1:])
        three.attach()

        def held():
            pool = next(p for p in self.daemons[1].call("GET", "/v1/ipam")["pools"] if p["pool"] == other)
            return {s["host"]: s["held"] for s in pool["shares"]}.get("h3", 0)
        wait_for(held, 10, "h3 has addresses of its own")
        self.dies()
        self.forget("h3")
        self.take_all(two, 29)

    def test_check_is_quiet_on_healthy_hosts(self):
        self.one.attach(), self.two.attach()
        for d in self.daemons:
            answer = wait_for(lambda d=d: d.trestle("ipam", "check"), 5, f"{d.host.name} finds nothing")
            self.assertEqual((answer["leaks"], answer["duplicates"], answer["ghosts"]), ([], [], []))

    def found(self, daemon):
        """(exit status, kinds with the addresses that were found)."""
        done = daemon.trestle("ipam", "check", "-o", "json", check=False)
        answer = json.loads(done.stdout)
        return done.returncode, {k: [f["address"] for f in answer[k]] for k in ("leaks", "duplicates", "ghosts") if answer[k]}

    def test_check_finds_a_lease_whose_container_is_gone(self):
        gone = self.one.attach()
        wait_for(lambda: self.found(self.daemons[0]) == (0, {}), 5, "nothing is wrong yet")
        self.one.end(gone)  # its namespace and link; no engine says a word
        wait_for(lambda: self.found(self.daemons[0]) == (1, {"leaks": [gone.ip]}), 20, "a leak is found")
        self.assertEqual(self.found(self.daemons[1]), (0, {}))
        self.assertIn(f"leak       {gone.ip} of {POOL}", self.daemons[0].trestle("ipam", "check", check=False).stdout)

    def foreign_network(self, daemon):
        plugin, network = daemon.plugin(), secrets.token_hex(32)
        plugin.call("NetworkDriver.CreateNetwork", NetworkID=network, IPv6Data=[],
                    IPv4Data=[{"AddressSpace": "LocalDefault", "Pool": "10.20.0.0/24", "Gateway": "10.20.0.1/24", "AuxAddresses": {}}],
                    Options={"com.docker.network.generic": {"trestle.network": "foreign"}})
        return plugin, network

    def test_check_finds_two_endpoints_with_one_address(self):
        """Addresses of another IPAM driver: nobody keeps two hosts from giving one twice."""
        networks = []
        for d in self.daemons:
            networks.append(self.foreign_network(d))
            self.know_network("foreign")
        self.lab.cut(self.lab.hosts[:1], self.lab.hosts[1:])
        for plugin, network in networks[:2]:  # each as if it were alone
            plugin.create_endpoint(network, secrets.token_hex(32), "10.20.0.5/24")
        self.assertEqual(self.found(self.daemons[0]), (0, {}))
        self.lab.heal()
        for d in self.daemons:
            wait_for(lambda d=d: self.found(d) == (1, {"duplicates": ["10.20.0.5"]}), 20, f"{d.host.name} finds the duplicate")

    def test_who_leaves_with_leases_hands_everything_over(self):
        """h1 made the pool and the cluster: it holds nearly all addresses, and all numbers of hosts."""
        gone = [self.one.attach() for _ in range(5)]
        stays = self.two.attach()
        self.daemons[0].trestle("leave", "--force")
        for d in self.daemons[1:]:
            wait_for(lambda d=d: self.state(d, "h1") in ("left", None), 10, f"{d.host.name} knows that h1 left")
        given = [stays.ip] + self.take_all(self.three, 28)
        self.assertEqual(len(set(given)), 29)
        self.assertTrue(set(c.ip for c in gone) <= set(given))
        # Numbers of hosts are not given again.
        numbers = {m["hostno"] for m in self.daemons[1].call("GET", "/v1/members")["members"]}
        self.assertLessEqual(numbers, {1, 2, 3})
        self.daemons[0].join(self.daemons[1])
        Daemon.wait_members(self.daemons)
        mine = next(m["hostno"] for m in self.daemons[0].call("GET", "/v1/members")["members"]
                    if m["name"] == "h1" and m["state"] == "alive")
        self.assertNotIn(mine, {1, 2, 3})


class Newcomer(Hosts):
    """It came in while most of the others were away. Its sponsor must not give it addresses, and the error says why, and what helps."""
    HOSTS = 4
    JOINED = False

    def test_the_error_says_what_helps_and_that_helps(self):
        one, two, three, four = self.daemons
        Daemon.cluster(self.daemons[:3])
        one.plugin().create_network("app", POOL)
        for d in (two, three):
            d.kill9()
        wait_for(lambda: one.call("GET", "/v1/status")["members"]["dead"] == 2, 60, "two are dead")
        four.join(one)
        plugin = four.plugin()
        pool = plugin.request_pool(POOL)["PoolID"]
        wanted = ("host h1 may not give addresses to this host", "2 of 4 hosts are dead", "trestle forget HOST --fenced")

        def said():
            with self.assertRaises(Refused) as refused:
                plugin.request_address(pool)
            return all(w in str(refused.exception) for w in wanted)
        wait_for(said, 10, f"the error says {wanted}")  # and not that h1 did not answer in time
        for name, options in (("h2", ["--assume-fenced", "h3"]), ("h3", [])):
            wait_for(lambda n=name, o=options: one.trestle("forget", n, "--fenced", *o), 20, f"{name} is forgotten")
        wait_for(lambda: plugin.request_address(pool), 20, "an address")


class NewcomerAmongFew(Hosts):
    """It came in by h1 while h2 was the only other one there. If h1 and h2 are forgotten, nobody who is asked knows it: what h2 had given it
    would be given again."""
    HOSTS = 5
    JOINED = False

    def test_nobody_gives_to_whom_few_know(self):
        one, two, three, four, five = self.daemons
        Daemon.cluster(self.daemons[:4])
        two.plugin().create_network("app", POOL)
        for d in (three, four):
            d.kill9()
        for d in (one, two):
            wait_for(lambda d=d: d.call("GET", "/v1/status")["members"]["dead"] == 2, 60, f"two are dead for {d.host.name}")
        five.join(one)
        plugin = five.plugin()
        pool = plugin.request_pool(POOL)["PoolID"]
        wait_for(lambda: any(s["host"] == "h2" and s["held"] for p in five.call("GET", "/v1/ipam")["pools"] for s in p["shares"]), 10,
                 "h5 knows that h2 has addresses")
        for _ in range(2):
            with self.assertRaises(Refused) as refused:
                plugin.request_address(pool)
            self.assertIn("host h2 may not give addresses to this host", str(refused.exception))
        two.kill9()  # who starts again finds h5 in its memory, and does not remember how few were there when it came
        two.start()
        for d, name in ((two, "h5"), (five, "h2")):
            wait_for(lambda d=d, n=name: ("alive", n) in ((m["state"], m["name"]) for m in d.call("GET", "/v1/members")["members"]), 20,
                     f"{d.host.name} hears {name}")
        with self.assertRaises(Refused) as refused:
            plugin.request_address(pool)
        self.assertIn("host h2 may not give addresses to this host", str(refused.exception))
        three.start()
        wait_for(lambda: plugin.request_address(pool), 20, "an address, with three of five there")


class AdmittedTwice(Hosts):
    """Two hosts that did not reach each other admitted one that heard neither, and never spoke: it has two numbers, and each host knows
    it by the one that it heard of first."""
    HOSTS = 4
    JOINED = False

    def numbers(self, daemon):
        """The one in front, all."""
        row = next((m for m in daemon.call("GET", "/v1/members")["members"] if m["name"] == "h4"), None)
        return row and (row["hostno"], {row["hostno"], *row["other_numbers"]})

    def admit_twice(self):
        one, two, three, four = self.daemons
        hosts = self.lab.hosts
        Daemon.cluster(self.daemons[:3])
        for d in self.daemons[:3]:
            d.wait_sponsor()
        token = one.token()
        self.lab.cut([hosts[0], hosts[2]], [hosts[1]])
        hosts[3].run("nft", "-f", "-", stdin="""add table ip deaf; add chain ip deaf input { type filter hook input priority 0; }
            add rule ip deaf input ip protocol { tcp, udp } drop""")
        hosts[3].start(four.cli_binary, "join", token)
        for d in (one, two, three):
            wait_for(lambda d=d: self.numbers(d), 20, f"{d.host.name} knows h4")
        four.kill9()
        self.lab.heal()
        Daemon.wait_members(self.daemons[:3], timeout=30)

    def test_both_are_named_and_forgotten_by_either(self):
        self.admit_twice()
        one, two, three, _ = self.daemons
        first = self.numbers(one)[0]
        for d in (one, two, three):
            wait_for(lambda d=d: len(self.numbers(d)[1]) == 2, 20, f"{d.host.name} knows both numbers")
        (other,) = self.numbers(one)[1] - {first}
        self.assertEqual(self.numbers(two), (other, {first, other}))
        self.assertIn(f"admitted as number {first} and as {other}", one.trestle("members", check=False).stdout)
        for d in (one, two, three):
            wait_for(lambda d=d: d.call("GET", "/v1/status")["members"]["dead"] == 1, 60, f"{d.host.name} takes h4 for dead")
        wait_for(lambda: one.trestle("forget", other, "--fenced", check=False).returncode == 0, 20, "h4 is forgotten")
        for d in (one, two, three):
            wait_for(lambda d=d: d.call("GET", "/v1/status")["members"]["left"] == 1, 10, f"{d.host.name} has forgotten it")
            self.assertEqual(len(self.numbers(d)[1]), 1)
            self.assertFalse([w for w in d.call("GET", "/v1/status")["warnings"] if "dead" in w or "suspected" in w])
        # Nor does anybody get one of the two.
        newcomer = Daemon(self.lab.hosts[3], start=False)
        newcomer.state += "-new"
        newcomer.host.run("nft", "delete", "table", "ip", "deaf")
        newcomer.start()
        newcomer.join(two)
        Daemon.wait_members([one, two, three, newcomer])
        self.assertNotIn(newcomer.call("GET", "/v1/status")["hostno"], {first, other})


if __name__ == "__main__":
    unittest.main()

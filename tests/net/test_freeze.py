"""A frozen host keeps what runs, reads nothing that others publish and makes nothing new; thawed, it is as if it had never been."""
import hashlib
import json
import threading

from tests.lab import Daemon, wait_for
from tests.lab.daemon import ControlError
from tests.lab.plugin import Refused
from tests.net.hosts import Hosts

WHY = "rows vanish, ask Kim"


class Freeze(Hosts):
    HOSTS = 4
    JOINED = False

    def setUp(self):
        super().setUp()
        *self.daemons, self.newcomer = self.daemons
        Daemon.cluster(self.daemons)
        self.frozen, *self.others = self.daemons

    def containers(self):
        self.runs = self.runtimes(subnet="10.9.0.0/27")
        self.here, self.gone, self.stays = [r.attach() for r in self.runs]
        for d in self.daemons:
            self.knows(d, {self.here.ip, self.gone.ip, self.stays.ip})
        for other in (self.gone, self.stays):
            self.reach(self.runs[0], self.here, other.ip)

    def knows(self, daemon, addresses):
        wait_for(lambda: set(self.endpoints(daemon)) == addresses, 10, f"{daemon.host.name} knows {sorted(addresses)}")

    def status(self):
        return self.frozen.call("GET", "/v1/status")

    def freeze(self):
        self.frozen.trestle("freeze", "--reason", WHY)
        self.is_frozen()

    def is_frozen(self):
        done = self.frozen.trestle("status", check=False)
        self.assertEqual(done.returncode, 1)
        for word in ("FROZEN", WHY, "trestle thaw"):
            self.assertIn(word, done.stdout)
        self.assertEqual(self.status()["frozen"]["reason"], WHY)

    def refuses(self):
        with self.assertRaises(Refused) as refused:
            self.runs[0].attach()
        calls = [lambda: self.frozen.call("POST", "/v1/networks", {"name": "new"}), self.frozen.token,
                 lambda: self.frozen.call("POST", "/v1/leave", {"force": True}), lambda: self.frozen.call("GET", "/v1/cni/status")]
        texts = [str(refused.exception)]
        for call in calls:
            with self.assertRaises(ControlError) as denied:
                call()
            texts.append(str(denied.exception))
        for text in texts:
            self.assertIn("FROZEN", text)
            self.assertIn("trestle thaw", text)

    def test_frozen_and_thawed(self):
        self.containers()
        token = self.frozen.token()
        wait_for(lambda: any(other.call("GET", "/v1/status")["spare_numbers"] for other in self.others), 10, "a number to give")
        self.freeze()
        self.assertIn(self.newcomer.trestle("join", token)["sponsor"], ("h2", "h3"))  # the others that the token names
        Daemon.wait_members(self.daemons, 4)
        new = self.runs[2].attach()
        self.runs[1].detach(self.gone)
        self.knows(self.others[0], {self.here.ip, self.stays.ip, new.ip})
        wait_for(lambda: self.status()["frozen"]["missed"] >= 2, 10, "the records come, and are not read")
        old = {self.here.ip, self.gone.ip, self.stays.ip}
        self.assertEqual(set(self.endpoints(self.frozen)), old)
        self.assertFalse(self.runs[0].ping(self.here, new.ip))
        self.refuses()

        pings = self.runs[0].ping_steadily(self.here, self.stays.ip)
        self.frozen.restart()
        Daemon.wait_members(self.daemons, 4)
        self.is_frozen()
        in_step = wait_for(lambda: self.status()["in_step"] and self.status()["uptime_s"], 20, "it is in step with the others")
        wait_for(lambda: self.status()["uptime_s"] > in_step + 2, 20, "some turns of the housekeeping later")
        self.refuses()
        self.assertEqual(set(self.endpoints(self.frozen)), {self.here.ip}, "after a start it knows none of others")
        self.assertTrue(self.runs[0].ping(self.here, self.stays.ip), "and keeps their rows")
        lost, answers = pings.lost()
        self.assertGreater(answers, 100)
        self.assertEqual(lost, [])
        self.assertEqual([d.call("GET", "/v1/status")["counters"]["gossip"]["deaths"] for d in self.others], [0, 0])

        self.assertEqual(self.frozen.trestle("thaw"), {"frozen": None})
        self.knows(self.frozen, {self.here.ip, self.stays.ip, new.ip})
        self.reach(self.runs[0], self.here, new.ip)
        more = self.runs[0].attach()
        for d in self.daemons:
            self.knows(d, {self.here.ip, self.stays.ip, new.ip, more.ip})
            self.assertEqual(d.trestle("ipam", "check", check=False).returncode, 0)
        self.assertEqual(self.frozen.trestle("status", check=False).returncode, 0)

    def test_ends_are_accepted_and_no_address_is_lost(self):
        self.containers()
        self.freeze()
        self.runs[0].detach(self.here)
        for d in self.others:
            self.knows(d, {self.gone.ip, self.stays.ip})
        taken = self.take_all(1) + self.take_all(2)
        self.frozen.trestle("thaw")
        for run in self.runs:
            taken += self.take_all(self.runs.index(run))
        taken += [self.gone.ip, self.stays.ip]
        self.assertEqual(len(set(taken)), len(taken), "an address was given twice")
        gateway = 1
        self.assertEqual(len(taken), 30 - gateway, "an address was lost")

    def test_who_is_forgotten_meanwhile_gets_no_key(self):
        heir, slow = self.others
        self.newcomer.join(heir)
        Daemon.wait_members([*self.daemons, self.newcomer])
        self.newcomer.kill9()
        slow.trestle("freeze")  # so that the decree is not done before the freeze
        wait_for(lambda: self.state(heir, "h4") != "alive", 60, "h4 is missed")
        done = heir.trestle("forget", "h4", "--fenced", "-o", "json", check=False)
        self.assertEqual(json.loads(done.stdout)["waiting_for"], ["h3"])
        self.freeze()
        self.assertIn(self.state(self.frozen, "h4"), ("suspect", "dead"))
        slow.trestle("thaw")
        wait_for(lambda: self.state(self.frozen, "h4") in ("left", None), 10, "the decree is done")
        self.lab.cut([d.host for d in self.others], [self.newcomer.host])
        self.newcomer.start(wait=False)
        wait_for(lambda: "forgotten by its cluster, host h1 says" in self.newcomer.log_text(), 20, "the frozen host refuses h4")
        self.is_frozen()
        self.makes_one_of(heir, slow)

    def makes_one_of(self, a, b):
        """Two hosts that make the same pool at once get one, also when it is the frozen host that both ask."""
        subnets = [s for s in (f"10.{number}.0.0/24" for number in range(40, 90)) if self.home(f"p:global:{s}") == "h1"][:6]
        given = {}

        def make(daemon, subnet):
            given[daemon, subnet] = daemon.plugin().request_pool(subnet, space="trestle-global")["PoolID"]
        makers = [threading.Thread(target=make, args=(d, s)) for s in subnets for d in (a, b)]
        for m in makers:
            m.start()
        for m in makers:
            m.join()
        self.assertEqual([given.get((a, s)) for s in subnets], [given.get((b, s)) for s in subnets])
        self.assertEqual(len({given[a, s] for s in subnets}), 6)

    def home(self, key):
        """The name of the alive host with the highest hash, as claims.c finds it."""
        def weight(m):
            host = bytes.fromhex(m["host_id"].replace("-", ""))
            return hashlib.blake2b(key.encode(), key=host, digest_size=16).digest()[:8]
        return max((m for m in self.others[0].call("GET", "/v1/members")["members"] if m["state"] == "alive"), key=weight)["name"]

    def state(self, daemon, name):
        return next((m["state"] for m in daemon.call("GET", "/v1/members")["members"] if m["name"] == name), None)

    def take_all(self, host):
        """Addresses until none is left that this host can get."""
        run, taken = self.runs[host], []
        while True:
            try:
                taken.append(run.plugin.request_address(run.pool_id).split("/")[0])
            except Refused:
                return taken

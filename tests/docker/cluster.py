"""Three hosts with an engine and a trestled each, shared by the tests of one class; every test leaves them as it found them.

Each test takes fresh network names and subnets, so that nothing one test leaves in a cool-down can change the next.
"""
import concurrent.futures
import itertools
import os
import unittest

from tests.lab import Daemon, Engine, Lab, leaks, wait_for

LONG = bool(os.environ.get("TRESTLE_LONG"))
# Ends at once on SIGTERM, which the first process of a container ignores unless it says otherwise.
FOREVER = ("sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait")


class Cluster(unittest.TestCase):
    HOSTS = 3
    _numbers = itertools.count(1)

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab(hosts=cls.HOSTS).open()
        cls.addClassCleanup(cls.lab.close)
        cls.hosts = cls.lab.hosts
        cls.engines = [Engine(h, start=False) for h in cls.hosts]
        cls.daemons = [Daemon(h, start=False) for h in cls.hosts]
        cls.complaints = {d: 0 for d in cls.daemons}  # seen so far; the first test answers for the start too
        for e in cls.engines:
            e.start()
        for d in cls.daemons:
            d.start(wait=False)
        for d in cls.daemons:
            d.wait_ready()
        Daemon.cluster(cls.daemons)
        for e in cls.engines:
            e.wait_ready()
            e.load_image()

    def setUp(self):
        self.recover()
        self.networks = []
        self.before = [self.still(h) for h in self.hosts]

    def tearDown(self):
        for d in self.daemons:
            self.assertTrue(d.alive(), f"trestled on {d.host.name} ended: {d.log_text()[-2000:]}")
            wait_for(lambda d=d: sum(d.call("GET", "/v1/status")["drift"].values()) == 0, 5, f"no drift on {d.host.name}")
        self.remove_all()
        for name in self.networks:
            wait_for(lambda n=name: self.is_gone(n), 5, f"removal of network {name}")
        for h, d, before in zip(self.hosts, self.daemons, self.before):
            wait_for(lambda d=d: not d.endpoints(), 5, f"{h.name} knows no endpoint any more")
            wait_for(lambda h=h, b=before: not leaks.difference(b, self.still(h)), 10,
                     lambda h=h, b=before: f"{h.name} is as before: {leaks.difference(b, self.still(h))}")
        new = {d.host.name: d.complaints()[self.complaints[d]:] for d in self.daemons}
        self.complaints.update({d: len(d.complaints()) for d in self.daemons})
        self.assertEqual(new, {name: [] for name in new}, "errors in a daemon's log")

    def is_gone(self, network):
        """By itself, when the last engine's removal is known here, or because it is taken away: one made by name stays otherwise."""
        first = self.daemons[0]
        return all(n["name"] != network for n in first.call("GET", "/v1/networks")["networks"]) or first.trestle("network", "rm", network)

    def recover(self):
        """Puts right what a failed test left, so that it does not take the next ones with it."""
        self.lab.heal()
        for d, e in zip(self.daemons, self.engines):
            if not d.alive():
                d.start()
            if not e.alive():
                e.start()
                e.wait_ready()
        Daemon.wait_members(self.daemons)
        self.remove_all()

    def remove_all(self):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(Engine.remove_all, self.engines))

    @staticmethod
    def still(host):
        """What must be the same before and after a test: the gateway bridge stays from its first use on, and so does the fabric."""
        found = leaks.host(host)
        found["links"] = [l for l in found["links"] if l != "docker_gwbridge"]
        found["namespaces"] = [n for n in found["namespaces"] if n != "trestle"]
        found["tables"] = [t for t in found["tables"] if "trestle" not in t]
        return found

    def network(self, *options, engines=None, ipam=True):
        """One network on the engines (all unless said); returns (name, first three bytes of its addresses)."""
        number = next(Cluster._numbers)
        name, part = f"net{number}", f"10.9.{number}"
        for e in engines or self.engines:
            e.docker("network", "create", "-d", "trestle", *(["--ipam-driver", "trestle"] if ipam else []), "--subnet", f"{part}.0/24",
                     "-o", f"trestle.network={name}", *options, name)
            if not engines:  # before the next one is asked, as it is with people: two that are asked at once are for other tests
                self.know_network(name)
        self.networks.append(name)
        return name, part

    def know_network(self, name):
        for d in self.daemons:
            wait_for(lambda d=d: d.call("GET", "/v1/networks/" + name), 5, f"{d.host.name} knows {name}")

    def run_one(self, number, name, network, *options, command=FOREVER):
        """Runs a container on host `number` (from 0); returns its address in the network."""
        self.engines[number].docker("run", "-d", "--name", name, "--network", network, *options, "lab", *command)
        return self.engines[number].address(name, network)

    def one_on_each(self, network, prefix="c", *options):
        """{container: (host number, address)}, one on each host."""
        with concurrent.futures.ThreadPoolExecutor() as pool:
            names = [f"{prefix}{n + 1}" for n in range(len(self.engines))]
            addresses = list(pool.map(lambda n: self.run_one(n, names[n], network, *options), range(len(names))))
        self.assertEqual(len(set(addresses)), len(addresses), addresses)
        return {name: (n, a) for n, (name, a) in enumerate(zip(names, addresses))}

    def reaches(self, number, name, address, timeout=3):
        wait_for(lambda: self.engines[number].ping(name, address), timeout, f"{name} on {self.hosts[number].name} reaches {address}")

    def all_reach(self, containers, timeout=3):
        for (a, (number, _)), (b, (_, address)) in itertools.permutations(containers.items(), 2):
            self.reaches(number, a, address, timeout)

    def silent(self, number, name, address):
        self.assertFalse(self.engines[number].ping(name, address), f"{name} still reaches {address}")

    def refused(self, number, *argv):
        """A docker command that must fail; its words."""
        done = self.engines[number].docker(*argv, check=False)
        self.assertNotEqual(done.returncode, 0, f"docker {' '.join(argv)} was not refused: {done.stdout}")
        return done.stderr

    def known(self, network):
        """{address: host name} as every daemon says whose host is part of the network, once they agree."""
        def agreed():
            part = [d for d in self.daemons if d.call("GET", "/v1/networks/" + network)["kept"]]
            seen = [{e["ipv4"]: e["host"] for e in d.endpoints(network)} for d in part]
            return seen[:1] if all(s == seen[0] for s in seen) else []  # in a list: an empty network is an answer too
        return wait_for(agreed, 5, f"all daemons agree on {network}")[0]

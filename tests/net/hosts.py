"""Hosts with a trestled each and the small runtime of the lab: what the tests of this directory share."""
import os
import threading
import unittest

from tests.lab import Daemon, Lab, Runtime, wait_for

LONG = bool(os.environ.get("TRESTLE_LONG"))


class Hosts(unittest.TestCase):
    """A lab per test: what is tested here are deaths and cuts, after which nothing is as before."""

    HOSTS = 2
    OPTIONS = ()
    JOINED = True
    FAMILIES = (4, 6)  # of the underlay

    def setUp(self):
        self.lab = Lab(hosts=self.HOSTS, families=self.FAMILIES).open()
        self.addCleanup(self.lab.close)
        self.daemons = [Daemon(h, *self.OPTIONS) for h in self.lab.hosts]
        if self.JOINED:
            Daemon.cluster(self.daemons)

    def runtimes(self, name="app", subnet="10.9.0.0/24", subnet6=None, daemons=None):
        """The network on every host, one after the other as people do it: each knows what was made before. A Runtime for each."""
        made = []
        for d in daemons or self.daemons:
            made.append(Runtime(d, *d.plugin().create_network(name, subnet, subnet6=subnet6)))
            if d.call("GET", "/v1/status")["members"]["alive"] > 1:
                self.know_network(name, daemons)
        return made

    def know_network(self, name, daemons=None):
        for d in daemons or self.daemons:
            wait_for(lambda d=d: d.call("GET", "/v1/networks/" + name), 5, f"{d.host.name} knows network {name}")

    def reach(self, a, container, address, timeout=3):
        wait_for(lambda: a.ping(container, address), timeout, f"{container.name} on {a.host.name} reaches {address}")

    def small_disk(self, daemon):
        """The daemon goes on with its state on a disk of its own, which is soon full."""
        state = daemon.state
        daemon.stop()
        daemon.host.run("sh", "-ec", f"""
            mv {state} {state}.old; mkdir -m 700 {state}
            mount -t tmpfs -o size=2m,mode=700 tmpfs {state}; cp -a {state}.old/. {state}""")
        daemon.start()
        Daemon.wait_members(self.daemons)

    def fill_disk(self, daemon):
        """The file that takes what was free."""
        path = f"{daemon.state}/fill"
        daemon.host.run("sh", "-c", f"cat /dev/zero >{path}", check=False)
        return path

    def endpoints(self, daemon):
        """{address: host} as one daemon sees it."""
        return {e["ipv4"]: e["host"] for e in daemon.endpoints()}

    def leases(self, daemon):
        return sum(p["leases"] for p in daemon.call("GET", "/v1/ipam")["pools"])


class Ledger:
    """What has been acknowledged to whom, over all hosts. An address given while someone holds it is noted as a fault."""

    def __init__(self):
        self._lock = threading.Lock()
        self.held = {}      # address -> host name
        self.attached = {}  # endpoint id -> Container
        self.faults = []
        self.count = 0

    def give(self, address, host):
        address = address.split("/")[0]
        with self._lock:
            if address in self.held:
                self.faults.append(f"{address} given to {host} while {self.held[address]} holds it")
            self.held[address] = host
            self.count += 1

    def take_back(self, address):
        """Before the release is sent: from then on the address may be given again."""
        with self._lock:
            self.held.pop(address.split("/")[0], None)

    def attach(self, container):
        with self._lock:
            self.attached[container.endpoint_id] = container

    def detach(self, container):
        with self._lock:
            self.attached.pop(container.endpoint_id, None)

    def snapshot(self):
        with self._lock:
            return dict(self.attached)

    def forget_host(self, host):
        """The host lost everything at once."""
        with self._lock:
            self.held = {a: h for a, h in self.held.items() if h != host}


class Worker(threading.Thread):
    """Attaches and detaches containers on one host until told to stop, and keeps the ledger true."""

    KEEP = 3

    def __init__(self, runtime, ledger, random):
        super().__init__(daemon=True)
        self.runtime, self.ledger, self.random = runtime, ledger, random
        self.mine, self.failed, self.crash = [], 0, None
        self._stop_asked = threading.Event()

    def run(self):
        try:
            while not self._stop_asked.is_set():
                self._step()
            while self.mine and not self.runtime.dead:
                self._detach()
        except Exception as e:  # reported by end(), in the test's own thread
            self.crash = e

    def _step(self):
        if len(self.mine) >= self.KEEP:
            self._detach()
        try:
            container = self.runtime.attach(given=lambda address: self.ledger.give(address, self.runtime.host.name),
                                            failed=self.ledger.take_back)
        except Exception as e:
            if not self._excused(e):
                raise
            self.failed += 1
            return
        self.mine.append(container)
        self.ledger.attach(container)

    def _excused(self, e):
        """A daemon that dies, or a host, makes attaches fail; a refusal is never right here."""
        return self.runtime.dead or isinstance(e, OSError)

    def _detach(self):
        container = self.mine.pop(self.random.randrange(len(self.mine)))
        self.ledger.detach(container)
        self.ledger.take_back(container.address)
        self.runtime.detach(container)

    def end(self):
        self._stop_asked.set()
        self.join(300)
        if self.is_alive():
            raise AssertionError(f"worker on {self.runtime.host.name} does not end")
        if self.crash and not self.runtime.dead:
            raise self.crash

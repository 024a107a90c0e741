"""How long until a running container is in a network, and out of it again?

Two engines in Swarm mode, so that Docker's own overlay is there beside ours and its bridge. The three take turns in every round; the
times are those of the engine's API, without the start of a command line. Two cases, since an overlay has more to do for the first container
of a network on a host: `connect` is that first one (a resident waits on the other host), `connect_more` finds a resident on this host too.

At the plugin's socket the engine's own work falls away: CreateEndpoint and Join, the two calls between which a container gets its link,
with 1 and with 1,000 endpoints on the host.
"""
import os
import secrets
import time

from bench.report import Report
from tests.lab import Daemon, Engine, Lab, Runtime, program, wait_for

ROUNDS = int(os.environ.get("TRESTLE_BENCH_ROUNDS", "30"))
CROWD = int(os.environ.get("TRESTLE_BENCH_CROWD", "1000"))
SOCKET_ROUNDS = 200
SUBJECTS = {"trestle": "ours", "docker-overlay": "overlay", "docker-bridge": "local"}


def swarm(engines):
    first, second = engines
    first.docker("swarm", "init", "--advertise-addr", first.host.address)
    token = first.docker("swarm", "join-token", "-q", "worker")
    second.docker("swarm", "join", "--token", token, "--advertise-addr", second.host.address, f"{first.host.address}:2377")


def networks(engines):
    for e in engines:
        e.docker("network", "create", "-d", "trestle", "--ipam-driver", "trestle", "--subnet", "10.9.0.0/24", "-o", "trestle.network=ours",
                 "ours")
        e.docker("network", "create", "-d", "bridge", "local")
    engines[0].docker("network", "create", "-d", "overlay", "--attachable", "overlay")
    residents(engines[1])
    engines[0].docker("run", "-d", "--name", "guest", "--stop-timeout", "0", "lab", "sleep", "100000")


def residents(engine):
    for name in SUBJECTS.values():
        engine.run(f"in-{name}", name)


def meet(engines):
    """The residents of both hosts reach each other: what is timed is a network that works."""
    for name in ("ours", "overlay"):
        far = engines[1].address(f"in-{name}", name)
        wait_for(lambda: engines[0].ping(f"in-{name}", far), 20, f"{name}: its residents reach each other")


def connects(engine):
    """{subject: (connect times, disconnect times)} in ms."""
    times = {s: ([], []) for s in SUBJECTS}
    for number in range(-2, ROUNDS):  # the first two warm up
        for subject, network in SUBJECTS.items():
            began = time.monotonic()
            engine.api("POST", f"/networks/{network}/connect", {"Container": "guest"})
            inside = time.monotonic()
            engine.api("POST", f"/networks/{network}/disconnect", {"Container": "guest"})
            outside = time.monotonic()
            if number >= 0:
                times[subject][0].append((inside - began) * 1000)
                times[subject][1].append((outside - inside) * 1000)
    return times


class Crowd:
    """Endpoints of one network made at the socket."""

    def __init__(self, daemon, name="crowd", subnet="10.20.0.0/16"):
        self.runtime = Runtime(daemon, *daemon.plugin().create_network(name, subnet))
        self.host, self.plugin, self.name = daemon.host, self.runtime.plugin, name
        self.first = secrets.randbits(128) << 64  # endpoint ids are unique among all crowds
        self.size = 0
        self.host.run("ip", "netns", "add", name)

    def attach(self, number):
        """(endpoint, address, link, ms of CreateEndpoint and Join)"""
        endpoint_id = f"{self.first + number:064x}"
        address = self.plugin.request_address(self.runtime.pool_id)
        began = time.monotonic()
        self.plugin.create_endpoint(self.runtime.network_id, endpoint_id, address)
        joined = self.plugin.join(self.runtime.network_id, endpoint_id)
        took = (time.monotonic() - began) * 1000
        return endpoint_id, address, joined["InterfaceName"]["SrcName"], took

    def grow(self, size, move=True):
        """With `move` their links go into one namespace, as if in containers: 25 ms each, all the kernel's."""
        while self.size < size:
            links = []
            while self.size < size and len(links) < 100:
                self.size += 1
                links.append(self.attach(self.size)[2])
            if move:
                self.host.run("ip", "-b", "-", stdin="".join(f"link set {l} netns {self.name}\n" for l in links))

    def measure(self):
        times = []
        for number in range(SOCKET_ROUNDS):
            endpoint_id, address, _, took = self.attach(self.size + 1 + number)
            times.append(took)
            self.plugin.leave(self.runtime.network_id, endpoint_id)
            self.plugin.delete_endpoint(self.runtime.network_id, endpoint_id)
            self.plugin.release_address(self.runtime.pool_id, address)
        return times


def main():
    report = Report("attach")
    with Lab(hosts=2) as lab:
        engines = [Engine(h) for h in lab.hosts]
        daemons = [Daemon(h, log_level="info") for h in lab.hosts]
        Daemon.cluster(daemons)
        swarm(engines)
        networks(engines)
        for case in ("", "_more"):
            if case:
                residents(engines[0])
                meet(engines)
            for subject, (inside, outside) in connects(engines[0]).items():
                report.add(subject, f"connect{case}_p50", "ms", inside)
                report.add(subject, f"connect{case}_p99", "ms", inside, 99)
                report.add(subject, f"disconnect{case}_p50", "ms", outside)
        crowd = Crowd(daemons[0])
        for size in (1, CROWD):
            crowd.grow(size)
            samples = crowd.measure()
            report.add("trestle", f"socket_attach_p50_{size}", "ms", samples)
            report.add("trestle", f"socket_attach_p99_{size}", "ms", samples, 99)
    report.write()


if __name__ == "__main__":
    program("bench", main)

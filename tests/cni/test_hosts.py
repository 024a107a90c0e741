"""CNI containers on two hosts, beside an engine's, through restarts and deaths, and with Debian's own CNI plugins."""
import json
import os
import random
import signal
import threading
import time
import unittest

from tests.cni.runtime import Cni, PluginTest, Sandbox
from tests.lab import Daemon, Failed, Runtime, wait_for

DEBIAN = "/usr/lib/cni"
SEED = random.SystemRandom().randrange(1 << 32)


class Reach(PluginTest):
    HOSTS = 2

    def test_containers_of_two_hosts_reach_each_other(self):
        there = Cni(self.daemons[1])
        a, b = self.sandbox(), self.sandbox(self.lab.hosts[1])
        config = self.cni.config(name="dual", subnet="10.61.0.0/24", subnet6="2001:db8:61::/64")
        first = self.add("a", a, config)
        # The other host knows the network by name: nothing else has to be said twice.
        self.know_network("dual")
        second = self.add("b", b, there.config(name="dual", subnet=None), cni=there)
        self.assertEqual(len(second.addresses()), 2)
        self.assertFalse(set(first.addresses()) & set(second.addresses()))
        for address in second.addresses():
            wait_for(lambda a=a, to=address: a.ping(to), 5, f"a reaches {address}")
        for address in first.addresses():
            wait_for(lambda b=b, to=address: b.ping(to), 5, f"b reaches {address}")

    def test_an_engine_and_a_runtime_share_a_network(self):
        daemon = self.daemons[1]
        runtime = Runtime(daemon, *daemon.plugin().create_network("app", "10.62.0.0/24"))
        docker = runtime.attach()
        self.addCleanup(runtime.detach, docker)
        s = self.sandbox()
        config = self.cni.config(name="pods", network="app", subnet=None)
        self.know_network("app")
        done = self.add("web", s, config, CNI_ARGS="K8S_POD_NAME=web")
        self.assertTrue(done.addresses()[0].startswith("10.62.0."))
        wait_for(lambda: s.ping(docker.ip), 5, "the CNI container reaches the engine's")
        wait_for(lambda: runtime.ping(docker, done.addresses()[0]), 5, "the engine's reaches the CNI container")
        wait_for(lambda: {e["ipv4"] for e in self.daemon.endpoints("app")} == {docker.ip, done.addresses()[0]}, 5, "both are known here")
        endpoints = {e["ipv4"]: e for e in self.daemon.endpoints("app")}
        self.assertEqual(endpoints[done.addresses()[0]]["name"], "web")

    def test_an_address_is_not_given_twice(self):
        there = Cni(self.daemons[1])
        config = self.cni.config(name="twice", subnet="10.63.0.0/24", runtimeConfig={"ips": ["10.63.0.9"]})
        self.add("one", self.sandbox(), config)
        self.know_network("twice")
        done = there.call("ADD", "two", self.sandbox(self.lab.hosts[1]), config=config)
        self.refused(done, 101, "10.63.0.9")


class Lives(PluginTest):
    """The daemon is restarted, killed, and away."""
    OPTIONS = ("--lease-grace", 3)

    def test_attachments_outlive_a_restart(self):
        s = self.sandbox()
        result = self.add("c1", s).json
        for end in (self.daemon.stop, self.daemon.kill9):
            end()
            self.daemon.start()
            self.quiet(self.cni.call("CHECK", "c1", s, config=self.cni.config(prevResult=result)))
            self.refused(self.cni.call("ADD", "c1", s), 104)
            taken = {"ips": [result["ips"][0]["address"]]}
            self.refused(self.cni.call("ADD", "c2", self.sandbox(), config=self.cni.config(runtimeConfig=taken)), 101)

    def test_addresses_for_other_plugins_outlive_a_restart(self):
        config = {"cniVersion": "1.0.0", "name": "br1", "type": "bridge", "ipam": {"type": "trestle", "subnet": "10.64.0.0/29"}}
        s = self.sandbox()
        result = self.add("c1", s, config).json
        self.daemon.kill9()
        self.daemon.start()
        self.quiet(self.cni.call("CHECK", "c1", s, config={**config, "prevResult": result}))
        given = {result["ips"][0]["address"], result["ips"][0]["gateway"] + "/29"}
        for i in range(4):
            given.add(self.add(f"d{i}", s, config).json["ips"][0]["address"])
        self.assertEqual(len(given), 6)
        self.refused(self.cni.call("ADD", "e", s, config=config), 100)

    def test_a_container_that_ends_without_del_is_collected(self):
        s, before = self.sandbox(), self.state()
        self.assertEqual(self.cni.call("ADD", "c1", s).status, 0)
        s.remove()
        wait_for(lambda: self.state() == before, 15, "collected")
        # Its name is free again.
        self.add("c1", self.sandbox())

    def test_kill_9_at_random_moments(self):
        """What a runtime was told of stays until it says DEL, and what it was not told of is gone. No address is given twice."""
        chance = random.Random(SEED)
        before, held, faults, stop = self.state(), {}, [], threading.Event()
        sandboxes = [self.sandbox() for _ in range(4)]
        lock = threading.Lock()

        def run(number):
            name, s = f"k{number}", sandboxes[number]
            while not stop.is_set():
                done = self.cni.call("ADD", name, s)
                if done.status == 0:
                    with lock:
                        if done.addresses()[0] in held.values():
                            faults.append(f"{done.addresses()[0]} given twice")
                        held[name] = done.addresses()[0]
                    if s.addresses() != [done.addresses()[0] + "/24"]:
                        faults.append(f"{name}: told of {done.addresses()}, has {s.addresses()}")
                elif done.code not in (11, 104, 102):
                    faults.append(f"{name}: {done}")
                with lock:
                    held.pop(name, None)
                while (gone := self.cni.call("DEL", name, s)).status:
                    if gone.code not in (11, 105):
                        faults.append(f"{name}: {gone}")

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(sandboxes))]
        for t in threads:
            t.start()
        rounds = 10
        for _ in range(rounds):
            time.sleep(chance.uniform(0.05, 0.4))
            self.daemon.kill9()
            self.daemon.start()
        stop.set()
        for t in threads:
            t.join()
        self.assertEqual(faults, [], f"seed {SEED}")
        self.nothing_left(before)
        for s in sandboxes:
            self.gone(s)


@unittest.skipUnless(os.path.exists(f"{DEBIAN}/bridge"), "needs the package containernetworking-plugins")
class Debian(PluginTest):
    """Debian's Go plugins before, behind and around ours."""

    def go(self, plugin, verb, container, sandbox, config):
        return self.cni.call(verb, container, sandbox, config=config, binary=f"{DEBIAN}/{plugin}")

    def test_host_local_gives_us_addresses(self):
        s = self.sandbox()
        config = self.cni.config("1.0.0", name="hl", subnet=None, ipam={
            "type": "host-local", "ranges": [[{"subnet": "10.65.0.0/24"}]], "routes": [{"dst": "198.51.100.0/24"}],
            "dataDir": f"{self.host.dir}/host-local"})
        done = self.add("hl1", s, config)
        self.assertEqual(done.json["ips"][0]["gateway"], "10.65.0.1")
        self.assertEqual(s.addresses(), [done.json["ips"][0]["address"]])
        self.assertIn("via 10.65.0.1", s.ip("route", "show", "198.51.100.0/24").stdout)
        self.quiet(self.cni.call("CHECK", "hl1", s, config={**config, "prevResult": done.json}))
        self.quiet(self.cni.call("DEL", "hl1", s, config=config))
        self.assertEqual([f for f in os.listdir(f"{self.host.dir}/host-local/hl") if f.startswith("10.")], [])

    def test_bridge_takes_our_addresses(self):
        self.script("trestle", f'exec {self.cni.binary} "$@"\n')
        s = self.sandbox()
        config = {"cniVersion": "1.0.0", "name": "br", "type": "bridge", "bridge": "cni0", "isGateway": True,
                  "ipam": {"type": "trestle", "subnet": "10.66.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}
        done = self.go("bridge", "ADD", "b1", s, config)
        self.assertEqual(done.status, 0, done)
        self.addCleanup(self.go, "bridge", "DEL", "b1", s, config)
        self.assertEqual(s.addresses(), [done.json["ips"][0]["address"]])
        self.assertIn("default via 10.66.0.1", s.ip("route").stdout)
        s.ping("10.66.0.1")
        self.quiet(self.go("bridge", "CHECK", "b1", s, {**config, "prevResult": done.json}))
        self.quiet(self.go("bridge", "DEL", "b1", s, config))
        self.assertEqual(self.leases().get("10.66.0.0/24", 0), 0)

    def test_ptp_and_macvlan_take_our_addresses(self):
        self.script("trestle", f'exec {self.cni.binary} "$@"\n')
        for plugin, more in (("ptp", {}), ("macvlan", {"master": "eth0"})):
            with self.subTest(plugin):
                s = self.sandbox()
                config = {"cniVersion": "1.0.0", "name": plugin, "type": plugin, **more, "ipam": {"type": "trestle", "subnet": "10.67.0.0/24"}}
                done = self.go(plugin, "ADD", "p1", s, config)
                self.assertEqual(done.status, 0, done)
                self.addCleanup(self.go, plugin, "DEL", "p1", s, config)
                self.assertEqual(s.addresses(), [done.json["ips"][0]["address"]])
                self.quiet(self.go(plugin, "CHECK", "p1", s, {**config, "prevResult": done.json}))
                self.quiet(self.go(plugin, "DEL", "p1", s, config))
                self.assertEqual(self.leases().get("10.67.0.0/24", 0), 0)

    def test_tuning_and_portmap_behind_us(self):
        s = self.sandbox()
        runtime = {"portMappings": [{"hostPort": 8067, "containerPort": 80, "protocol": "tcp"}],
                   "bandwidth": {"ingressRate": 8000000, "ingressBurst": 800000, "egressRate": 8000000, "egressBurst": 800000}}
        result = self.add("chain", s, self.cni.config("1.0.0", runtimeConfig=runtime)).json
        chain = [("tuning", {"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}), ("portmap", {})]
        for plugin, more in chain:
            config = {"cniVersion": "1.0.0", "name": "net1", "type": plugin, "prevResult": result, "runtimeConfig": runtime, **more}
            done = self.go(plugin, "ADD", "chain", s, config)
            self.assertEqual(done.status, 0, f"{plugin}: {done}")
            self.addCleanup(self.go, plugin, "DEL", "chain", s, config)
            self.assertEqual(done.json["ips"], result["ips"])
            result = done.json
        self.quiet(self.cni.call("CHECK", "chain", s, config=self.cni.config("1.0.0", prevResult=result)))


if __name__ == "__main__":
    unittest.main()

"""`trestle uninstall --purge` leaves nothing behind: containers of both modes were attached, the daemon is stopped, everything goes."""
import json
import os
import unittest

from tests.cni.runtime import Cni, Sandbox
from tests.lab import Daemon, leaks, wait_for
from tests.lab.podman import own_cni_dirs
from tests.net.hosts import Hosts


class Purge(Hosts):
    def setUp(self):
        super().setUp()
        self.one, self.two = self.daemons
        self.host = self.one.host
        own_cni_dirs(self.host)

    def trestle(self, *argv):
        return self.host.run(self.one.cli_binary, *argv, check=False)

    def routes(self):
        """But those that the kernel makes by itself with an address."""
        return sorted(r["dst"] for r in json.loads(self.host.run("ip", "-j", "route").stdout) if r.get("protocol") != "kernel")

    def files(self):
        wanted = ("/run/trestle", "/run/docker/plugins/trestle.sock", self.one.state, "/opt/cni/bin/trestle", "/run/netns/trestle")
        return [p for p in wanted if os.path.lexists(self.host.path(p))] + os.listdir(self.host.path("/etc/cni/net.d"))

    def test_nothing_is_left(self):
        before, routes = leaks.host(self.host), self.routes()
        before["namespaces"] = [n for n in before["namespaces"] if n != "trestle"]
        before["tables"] = [t for t in before["tables"] if "trestle" not in t]
        self.assertEqual(self.trestle("cni", "install", "--network", "app").returncode, 0)
        cni, runtime = Cni(self.one), self.runtimes("flat", "10.8.0.0/24")[0]
        container, s = runtime.attach(), Sandbox(self.host, "pod")
        done = cni.call("ADD", "pod", s, config=cni.config(name="app", mode="l3"))
        self.assertEqual(done.status, 0, done)

        refused = self.trestle("uninstall", "--purge")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("trestled runs on this host", refused.stderr)
        self.assertEqual(self.one.call("POST", "/v1/leave", {"force": True}), {"left": True})
        self.one.kill9()
        # The containers are still there: their interfaces go as well.
        with open(f"{self.host.dir}/trestled.conf", "w") as f:
            f.write(f"state-dir = {self.one.state}\n")
        gone = self.trestle("uninstall", "--purge", "--config", f"{self.host.dir}/trestled.conf")
        self.assertEqual(gone.returncode, 0, gone.stderr)
        self.assertNotIn("eth0", s.links())
        s.remove()
        runtime.end(container)
        self.assertEqual(self.files(), [])
        self.assertEqual(self.routes(), routes)
        wait_for(lambda: not leaks.difference(before, leaks.host(self.host)), 5, "nothing is left in the kernel")
        again = self.trestle("uninstall", "--purge", "--config", f"{self.host.dir}/trestled.conf")
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual(self.files(), [])

    def test_it_goes_without_a_goodbye_and_with_damaged_files(self):
        self.runtimes()[0].attach()
        self.two.wait_sponsor()
        self.one.kill9()
        with open(f"{self.one.state}/state.db", "wb") as f:
            f.write(b"no database")
        gone = self.host.run(self.one.binary, "--purge", "--state-dir", self.one.state)
        self.assertIn("trestle forget", gone.stdout)
        self.assertEqual(self.files(), [])
        # A host that starts here now is a new one, which can join.
        self.one.start()
        self.one.join(self.two)
        Daemon.wait_members([self.one, self.two])


if __name__ == "__main__":
    unittest.main()

"""What a kill -9 between two saves leaves, made by hand: the rows that would not have been written are taken out of the files of a
daemon that is down. The next start must put it right, whatever the moment was."""
import unittest

from tests.lab import Daemon, wait_for
from tests.net.hosts import Hosts

GRACE_S = 2
# First bytes of keys (daemon/store.h).
DOCKER_NETWORK, ENDPOINT, LEAVING = b"d", b"e", b"x"
INSERT = """
import contextlib, sqlite3, sys
with contextlib.closing(sqlite3.connect(sys.argv[1])) as db, db:
    db.execute("INSERT INTO kv VALUES (?, ?)", (bytes.fromhex(sys.argv[2]), b"1"))
"""
DELETE = """
import contextlib, sqlite3, sys
with contextlib.closing(sqlite3.connect(sys.argv[1])) as db, db:
    print(db.execute("DELETE FROM kv WHERE substr(key, 1, 1) = ?", (bytes.fromhex(sys.argv[2]),)).rowcount)
"""


class Between(Hosts):
    OPTIONS = ("--lease-grace", GRACE_S)

    def without(self, daemon, **kinds):
        """Stops the daemon as a kill would, takes every row of these kinds out of its files, and starts it."""
        daemon.kill9()
        files = {"state": f"{daemon.state}/state.db", "boot": "/run/trestle/boot.db"}
        for area, kind in kinds.items():  # inside the host: SQLite resolves the path of a file, and /proc/PID/root with it
            gone = daemon.host.run("python3", "-c", DELETE, files[area], kind.hex()).stdout
            self.assertGreater(int(gone), 0, f"no row of kind {kind} in {files[area]}")
        daemon.start()
        Daemon.wait_members(self.daemons)

    def networks(self, daemon):
        return [n["name"] for n in daemon.call("GET", "/v1/networks")["networks"]]

    def test_the_end_of_a_network(self):
        """The engine's network was gone from the file, the network was not."""
        one, two = self.daemons
        plugin = one.plugin()
        plugin.create_network("app", "10.9.0.0/24")
        wait_for(lambda: self.networks(two) == ["app"], 5, "the network is known there")
        self.without(one, state=DOCKER_NETWORK)
        for d in self.daemons:
            wait_for(lambda d=d: self.networks(d) == [], 5, f"{d.host.name} knows no network")

    def test_the_making_of_an_endpoint(self):
        """The lease was bound, the endpoint not written, and the engine died as well: nobody gives the address back."""
        one = self.daemons[0]
        plugin = one.plugin()
        network, pool, _ = plugin.create_network("app", "10.9.0.0/24")
        address = plugin.request_address(pool)
        plugin.create_endpoint(network, "e" * 64, address)
        self.assertEqual(self.leases(one), 2)
        self.without(one, boot=ENDPOINT)
        self.assertEqual(one.local_endpoints(), [])
        wait_for(lambda: self.leases(one) == 1, 5 * GRACE_S, "only the gateway's lease is left")

    def test_an_endpoint_that_is_there_keeps_its_address(self):
        one = self.daemons[0]
        runtime = self.runtimes()[0]
        container = runtime.attach()
        one.kill9()
        one.start()
        wait_for(lambda: one.call("GET", "/v1/status")["uptime_s"] >= 2 * GRACE_S, 30, "the grace is over")
        self.assertEqual(self.leases(one), 2)
        self.assertEqual([e["ipv4"] for e in one.local_endpoints()], [container.ip])

    def state_of(self, daemon, host_id):
        return {m["host_id"]: m["state"] for m in daemon.call("GET", "/v1/members")["members"]}[host_id]

    def test_goodbye(self):
        """The note that it says goodbye was written, and not yet what it is now."""
        one, two = self.daemons
        one.plugin().create_network("app", "10.9.0.0/24")
        two.wait_sponsor()
        before = one.call("GET", "/v1/status")
        one.kill9()
        one.host.run("python3", "-c", INSERT, f"{one.state}/state.db", LEAVING.hex())
        one.start()
        after = one.call("GET", "/v1/status")
        self.assertNotEqual(after["host_id"], before["host_id"])
        self.assertNotEqual(after["cluster_id"], before["cluster_id"])
        self.assertEqual((after["members"]["alive"], after["networks"], after["pools"]), (1, 0, 0))
        # Once: the next start is the same host, and it can come in again.
        one.restart()
        self.assertEqual(one.call("GET", "/v1/status")["host_id"], after["host_id"])
        one.join(two)
        wait_for(lambda: self.state_of(two, after["host_id"]) == "alive", 5, "it is in again")


class FullDisk(Hosts):
    def test_nobody_hears_a_goodbye_that_is_not_on_disk(self):
        one, two = self.daemons
        self.small_disk(one)
        host_id = one.call("GET", "/v1/status")["host_id"]
        full = self.fill_disk(one)
        self.assertRaises(OSError, one.call, "POST", "/v1/leave", {}, timeout=7)  # its patience for handing over is 5 s
        members = {m["host_id"]: m["state"] for m in two.call("GET", "/v1/members")["members"]}
        self.assertIn(members[host_id], ("alive", "suspect"))
        one.host.run("rm", full)
        wait_for(lambda: one.call("GET", "/v1/status")["host_id"] != host_id, 10, "it has left")
        wait_for(lambda: [m["state"] for m in two.call("GET", "/v1/members")["members"] if m["host_id"] == host_id] in ([], ["left"]), 5,
                 "and the other has heard it")

    def test_what_cannot_be_saved_is_said(self):
        one, _ = self.daemons
        self.small_disk(one)
        full = self.fill_disk(one)
        self.assertRaises(OSError, one.call, "POST", "/v1/freeze", {"reason": "no room"}, timeout=0.5)  # in force, and not on disk
        warnings = wait_for(lambda: [w for w in one.call("GET", "/v1/status")["warnings"] if "cannot save" in w], 5, "a warning")
        for word in (one.state, "full", "make room"):
            self.assertIn(word, warnings[0])
        self.assertEqual(one.call("GET", "/v1/status")["frozen"]["reason"], "no room")
        one.host.run("rm", full)
        wait_for(lambda: not [w for w in one.call("GET", "/v1/status")["warnings"] if "cannot save" in w], 10, "it can save again")
        self.assertEqual(one.log_text().count("database or disk is full"), 1, "said once, not every second")
        one.restart()
        self.assertEqual(one.call("GET", "/v1/status")["frozen"]["reason"], "no room")


if __name__ == "__main__":
    unittest.main()

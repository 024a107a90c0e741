"""A host whose state was set back to an older copy, and a copy of a host: no address is given twice, and `trestle status` says what it is."""
import os
import shutil
import unittest

from tests.lab import Daemon, Runtime, wait_for
from tests.lab.plugin import Refused
from tests.net.hosts import Hosts

POOL = "10.9.0.0/27"  # 30 addresses


class Standing(Hosts):
    HOSTS = 3

    def copy_state(self, daemon, to):
        """While it is stopped, as a backup of the disk has it."""
        shutil.copytree(daemon.state, to, ignore=shutil.ignore_patterns("*.lock", "lock"))
        return to

    def set_back(self, daemon, backup):
        shutil.rmtree(daemon.state)
        shutil.copytree(backup, daemon.state)

    def warnings(self, daemon):
        return " ".join(daemon.call("GET", "/v1/status")["warnings"])

    def take(self, runtime):
        return runtime.plugin.request_address(runtime.pool_id).split("/")[0]

    def take_all(self, runtime):
        taken = []
        while True:
            try:
                taken.append(self.take(runtime))
            except Refused as e:
                return taken, str(e)


class SetBack(Standing):
    def setUp(self):
        super().setUp()
        self.one, self.two, self.three = self.runtimes(subnet=POOL)
        self.daemon, *self.others = self.daemons
        self.daemon.stop()
        self.backup = self.copy_state(self.daemon, os.path.join(self.lab.hosts[0].dir, "backup"))
        self.daemon.start()
        Daemon.wait_members(self.daemons)
        # What is asked of another host is refused when that does not answer in time.
        self.given = [wait_for(lambda r=r: self.take(r), 10, "an address") for r in (self.two, self.three) * 8]
        self.assertEqual(len(set(self.given)), len(self.given))
        self.daemon.stop()

    def gives_nothing(self):
        wait_for(lambda: "set back" in self.warnings(self.daemon), 10, "the daemon says that its state was set back")
        with self.assertRaises(Refused) as refused:
            self.take(self.one)
        self.assertIn("set back", str(refused.exception))
        self.assertIn("trestle leave", str(refused.exception))

    def test_a_backup_restored_behind_a_reboot_gives_nothing(self):
        self.lab.hosts[0].boot()
        self.set_back(self.daemon, self.backup)
        self.daemon.start()
        self.gives_nothing()
        self.daemon.restart()  # it has not forgotten
        self.gives_nothing()

        # The way out: nothing is handed over, its addresses are collected from what the others know, and it is a new host.
        number = self.daemon.call("GET", "/v1/status")["hostno"]
        self.one.plugin.call("NetworkDriver.DeleteNetwork", NetworkID=self.one.network_id)
        self.one.plugin.call("IpamDriver.ReleasePool", PoolID=self.one.pool_id)
        self.daemon.trestle("leave")
        self.assertNotIn("set back", self.warnings(self.daemon))
        wait_for(lambda: self.others[0].trestle("forget", str(number))["done"], 20, "it is forgotten")
        self.daemon.join(self.others[0])
        Daemon.wait_members(self.daemons)
        again = Runtime(self.daemon, *self.daemon.plugin().create_network("app", POOL))
        more = []
        for runtime in (again, self.two, self.three):
            taken, _ = self.take_all(runtime)
            more += taken
        self.assertTrue(more, "the addresses of the old host work again")
        everything = self.given + more
        self.assertEqual(len(set(everything)), len(everything), "an address was given twice")

    def test_a_backup_restored_within_one_boot_is_noticed_alone(self):
        for d in self.others:
            d.stop()
        self.set_back(self.daemon, self.backup)
        self.daemon.start()
        self.gives_nothing()

    def test_a_new_host_in_the_place_of_an_old_one_gives_addresses(self):
        shutil.rmtree(self.daemon.state)  # what this boot remembers is of the former identity
        self.daemon.start()
        new = Runtime(self.daemon, *self.daemon.plugin().create_network("other", "10.10.0.0/27"))
        wait_for(lambda: self.take(new), 10, "an address")
        self.assertEqual(self.warnings(self.daemon), "")

    def test_a_reboot_is_no_setting_back(self):
        self.lab.hosts[0].boot()
        self.daemon.start()
        taken = wait_for(lambda: self.take(self.one), 10, "an address")  # once the others have answered
        self.assertNotIn(taken, self.given)
        self.assertEqual(self.warnings(self.daemon), "")


class Copy(Standing):
    JOINED = False

    def test_a_copy_of_a_host_says_nothing_and_gives_nothing(self):
        one, two, three = self.daemons
        Daemon.cluster([one, two])
        runtime, other = self.runtimes(subnet=POOL, daemons=[one, two])
        self.take(runtime)
        three.stop()
        shutil.rmtree(three.state)
        one.stop()
        self.copy_state(one, three.state)
        one.start()
        Daemon.wait_members([one, two])
        three.start()
        wait_for(lambda: "this one is a copy" in self.warnings(three), 20, "the copy says that it is one")
        wait_for(lambda: "has a copy" in self.warnings(one), 20, "the first host knows of the copy")
        for d, words in ((three, "this one is a copy"), (one, "has a copy")):
            self.assertIn(words, d.trestle("status", check=False).stdout)
        with self.assertRaises(Refused) as refused:
            self.take(runtime)
        self.assertIn("has a copy", str(refused.exception))

        three.stop()
        one.restart()
        wait_for(lambda: "copy" not in self.warnings(one), 10, "nothing against the first host any more")
        self.assertNotEqual(self.take(runtime), self.take(other))


if __name__ == "__main__":
    unittest.main()

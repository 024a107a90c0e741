"""What the daemon says of state it cannot read: a clear error that names the file, and the file stays as it was."""
import hashlib
import os
import sqlite3
import unittest

from tests.lab import Daemon, wait_for
from tests.net.hosts import Hosts


class State(Hosts):
    HOSTS = 1
    JOINED = False

    def setUp(self):
        super().setUp()
        self.daemon = self.daemons[0]
        (self.runtime,) = self.runtimes()
        self.container = self.runtime.attach()
        self.daemon.stop()
        self.path = os.path.join(self.daemon.state, "state.db")

    def digest(self):
        with open(self.path, "rb") as f:
            return hashlib.sha256(f.read()).hexdigest()

    def refusal(self, daemon, *options):
        """What a daemon says that does not start: it ends by itself, with a status."""
        at = os.path.getsize(daemon.log)
        try:
            daemon.start(*options, wait=False)
            wait_for(lambda: not daemon.process.alive(), 10, "end of a daemon that may not use its state")
            self.assertNotEqual(daemon.process.wait(), 0)
        except RuntimeError as e:  # ended before anyone could look
            self.assertNotIn("ended at once with 0:", str(e))
        with open(daemon.log, errors="replace") as f:
            f.seek(at)
            return f.read()

    def says(self, said, *words):
        for word in words:
            self.assertIn(word, said)

    def refuses(self, *words):
        """The daemon names its file with these words, and the file has not changed."""
        before = self.digest()
        self.says(self.refusal(self.daemon), self.path, *words)
        self.assertEqual(self.digest(), before, "the file was changed")

    def test_a_log_without_its_file_is_not_taken_for_a_new_hosts(self):
        self.daemon.start()
        self.daemon.kill9()
        wal = self.path + "-wal"
        self.assertGreater(os.path.getsize(wal), 0)
        os.rename(self.path, self.path + ".away")
        self.says(self.refusal(self.daemon), self.path, wal, "move the log away too")
        self.assertFalse(os.path.exists(self.path))
        os.rename(wal, wal + ".away")
        self.daemon.start()
        self.assertEqual(self.daemon.local_endpoints(), [])

    def test_a_copied_state_is_refused_until_it_is_adopted(self):
        """As on a machine made from an image of another."""
        self.daemon.start("--machine-id", "aaaa1111", *self.adopt_own())
        self.daemon.stop()
        self.daemon.options = ["--machine-id", "bbbb2222"]
        self.says(self.refusal(self.daemon), self.daemon.state, "aaaa1111", "bbbb2222", "--adopt aaaa1111")
        self.daemon.start("--adopt", "aaaa1111")
        self.assertIn("adopts the state of aaaa1111", self.daemon.log_text())
        self.daemon.restart()  # it is this machine's now
        self.assertEqual([e["ipv4"] for e in self.daemon.local_endpoints()], [self.container.ip])

    def test_an_image_with_its_machine_id_is_a_copy_all_the_same(self):
        old, new = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
        self.daemon.start("--machine-uuid", old, *self.adopt_own())
        self.daemon.stop()
        self.says(self.refusal(self.daemon, "--machine-uuid", new), self.daemon.state, old, new, f"--adopt {old}")
        self.daemon.start("--machine-uuid", new, "--adopt", old)
        self.daemon.stop()
        self.daemon.start("--machine-uuid", new)
        self.assertEqual([e["ipv4"] for e in self.daemon.local_endpoints()], [self.container.ip])

    def adopt_own(self):
        """The state is this machine's so far, if this machine has an id at all."""
        try:
            with open("/etc/machine-id") as f:
                own = f.read().strip()
        except OSError:
            own = ""
        return ("--adopt", own) if own else ()

    def test_cut_short(self):
        size = os.path.getsize(self.path)
        self.assertGreater(size, 4096)
        with open(self.path, "r+b") as f:
            f.truncate(size - 1000)
        self.refuses("damaged")

    def test_empty(self):
        with open(self.path, "r+b") as f:
            f.truncate(0)
        self.refuses("empty")

    def test_overwritten_in_the_middle(self):
        with open(self.path, "r+b") as f:
            f.seek(4096)
            f.write(b"\xff" * 4096)
        self.refuses("damaged")

    def test_not_a_database(self):
        with open(self.path, "wb") as f:
            f.write(b"once upon a time " * 1000)
        self.refuses()

    def test_another_programs_database(self):
        os.unlink(self.path)
        db = sqlite3.connect(self.path)
        db.execute("create table kv(key, val)")
        db.commit()
        db.close()
        self.refuses("not a file of trestled")

    def test_newer_version(self):
        db = sqlite3.connect(self.path)
        (version,) = db.execute("pragma user_version").fetchone()
        db.execute(f"pragma user_version={version + 1}")
        db.commit()
        db.close()
        self.refuses("newer")

    def test_two_daemons_on_one_state(self):
        self.daemon.start()
        second = Daemon(self.lab.hosts[0], "--run-dir", "/run/second", "--plugin-socket", "/run/second/plugin.sock", start=False)
        self.says(self.refusal(second), "another trestled")
        self.assertTrue(self.daemon.alive())
        self.assertEqual(self.endpoints(self.daemon), {self.container.ip: "h1"})

    def test_a_daemon_without_its_rights_says_which(self):
        # Who is not root may be kept from where they were built, /root for one.
        self.daemon.host.run("install", "-m", "755", self.daemon.binary, "/run/any-trestled")
        self.daemon.host.run("install", "-m", "755", self.daemon.cli_binary, "/run/any-trestle")
        argv = ["timeout", "10", "/run/any-trestled", "--state-dir", "/run/other-state", "--run-dir", "/run/other"]
        for without in ("net_admin", "sys_admin"):
            done = self.daemon.host.run("setpriv", f"--bounding-set=-{without}", f"--inh-caps=-{without}", *argv, check=False)
            self.assertEqual(done.returncode, 1)
            self.says(done.stderr, "Operation not permitted", "needs CAP_NET_ADMIN and CAP_SYS_ADMIN")
        done = self.daemon.host.run("setpriv", "--reuid=65534", "--clear-groups", *argv, check=False)
        self.assertEqual(done.returncode, 1)
        self.says(done.stderr, "run trestled as root")
        self.daemon.start()
        done = self.daemon.host.run("setpriv", "--reuid=65534", "--clear-groups", "/run/any-trestle", "status", check=False)
        self.assertEqual(done.returncode, 2)  # it cannot tell
        self.says(done.stderr, "run as root")

    def test_started_again_all_is_as_before(self):
        """The other side of the refusals above: untouched state is taken up."""
        self.daemon.start()
        self.assertEqual(self.endpoints(self.daemon), {self.container.ip: "h1"})
        again = self.runtime.attach()
        self.reach(self.runtime, again, self.container.ip)


if __name__ == "__main__":
    unittest.main()

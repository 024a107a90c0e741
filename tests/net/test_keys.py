"""The cluster's keys on real daemons: rotation under load, who was away, who may not come back."""
import threading
import unittest

from tests.lab import Daemon, wait_for
from tests.lab.daemon import ControlError
from tests.net.hosts import Hosts


def keys(daemon):
    return daemon.call("GET", "/v1/keys")["keys"]


def one_key(daemons, generation):
    """All have one and the same key, of this generation."""
    seen = [keys(d) for d in daemons]
    return all(len(k) == 1 and k[0]["generation"] == generation and k[0]["id"] == seen[0][0]["id"] for k in seen)


class Keys(Hosts):
    HOSTS = 4

    def counters(self, daemon):
        return daemon.call("GET", "/v1/status")["counters"]["gossip"]

    def rotated(self, daemons, generation, timeout=30):
        wait_for(lambda: one_key(daemons, generation), timeout, f"one key of generation {generation} everywhere", every=0.05)

    def test_rotation_under_load(self):
        runtimes = self.runtimes()
        a, b = runtimes[0].attach(), runtimes[3].attach()
        self.reach(runtimes[0], a, b.ip)
        before = [self.counters(d) for d in self.daemons]
        pings = runtimes[0].ping_steadily(a, b.ip)
        stop, failed = threading.Event(), []

        def load(runtime):
            while not stop.is_set():
                try:
                    runtime.detach(runtime.attach())
                except Exception as e:  # told by the test's own thread
                    failed.append(e)
                    return

        workers = [threading.Thread(target=load, args=(r,), daemon=True) for r in runtimes[1:3]]
        for w in workers:
            w.start()
        try:
            for generation, maker in ((2, 0), (3, 2)):
                self.daemons[maker].trestle("keys", "rotate")
                self.rotated(self.daemons, generation)
        finally:
            stop.set()
            for w in workers:
                w.join(20)
        self.assertEqual(failed, [])
        lost, answered = pings.lost()
        self.assertEqual(lost, [], f"of {answered}")
        self.assertGreater(answered, 100)
        for d, old in zip(self.daemons, before):
            new = self.counters(d)
            self.assertEqual(new["deaths"], old["deaths"], d.host.name)
            self.assertEqual(new["refused_key"], old["refused_key"], d.host.name)
            self.assertEqual(new["rotations"], old["rotations"] + 2, d.host.name)
        # What is there is told, what it is is not.
        shown = self.daemons[1].text("keys", "ls")
        self.assertIn("active", shown)
        self.assertIn("h3", shown)
        row, = keys(self.daemons[1])
        self.assertEqual((row["state"], row["hosts"], row["sending"], row["of"]), ("active", 4, 4, 4))

    def test_one_rotation_at_a_time_and_tokens_end_with_their_key(self):
        old = self.daemons[0].token()
        self.daemons[0].trestle("keys", "rotate")
        with self.assertRaises(ControlError) as caught:
            self.daemons[0].call("POST", "/v1/keys/rotate", {})
        self.assertEqual(caught.exception.status, 409)
        self.rotated(self.daemons, 2)
        self.daemons[3].trestle("leave")
        self.assertNotEqual(self.daemons[3].trestle("join", old, check=False).returncode, 0)
        self.daemons[3].join(self.daemons[0])
        wait_for(lambda: one_key(self.daemons, 2), 10, "the joiner has the later key")
        # It can make the next one itself.
        wait_for(lambda: self.daemons[3].trestle("keys", "rotate", check=False).returncode == 0, 5, "a rotation by the joiner")
        self.rotated(self.daemons, 3)

    def test_killed_half_way(self):
        self.daemons[1].trestle("keys", "rotate")
        wait_for(lambda: keys(self.daemons[0])[-1]["generation"] == 2, 5, "the key at another host", every=0.005)
        for d in self.daemons[1:3]:
            d.kill9()
        for d in self.daemons[1:3]:
            d.start()
        self.rotated(self.daemons, 2)
        Daemon.wait_members(self.daemons)


if __name__ == "__main__":
    unittest.main()

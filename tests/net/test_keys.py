"""The cluster's keys on real daemons: rotation under load, who was away, who may not come back."""
import secrets
import socket
import threading
import time
import unittest

from tests.lab import Daemon, Runtime, wait_for
from tests.lab.daemon import PORT, ControlError
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

    def rotate(self, daemon):
        """Refused for a moment where it has not heard yet which keys everybody has."""
        wait_for(lambda: daemon.trestle("keys", "rotate"), 10, f"a rotation by {daemon.host.name}")

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
                self.rotate(self.daemons[maker])
                self.rotated(self.daemons, generation)
        finally:
            stop.set()
            for w in workers:
                w.join(100)
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
        self.rotate(self.daemons[0])
        self.rotated(self.daemons, 2)
        # One that cannot end: a host is silent, and not dead yet.
        self.daemons[3].process.pause()
        self.rotate(self.daemons[0])
        with self.assertRaises(ControlError) as caught:
            self.daemons[0].call("POST", "/v1/keys/rotate", {})
        self.assertEqual(caught.exception.status, 409)
        self.daemons[3].process.resume()
        self.rotated(self.daemons, 3)
        self.daemons[3].trestle("leave")
        self.assertNotEqual(self.daemons[3].trestle("join", old, check=False).returncode, 0)
        self.daemons[3].join(self.daemons[0])
        wait_for(lambda: one_key(self.daemons, 3), 10, "the joiner has the later key")
        # It can make the next one itself.
        self.rotate(self.daemons[3])
        self.rotated(self.daemons, 4)

    def test_killed_half_way(self):
        self.rotate(self.daemons[1])
        wait_for(lambda: keys(self.daemons[0])[-1]["generation"] == 2, 5, "the key at another host", every=0.005)
        for d in self.daemons[1:3]:
            d.kill9()
        for d in self.daemons[1:3]:
            d.start()
        self.rotated(self.daemons, 2)
        Daemon.wait_members(self.daemons)


class Away(Hosts):
    """Who missed a rotation, who is forgotten, and where UDP does not pass."""

    HOSTS = 3

    def counters(self, daemon):
        return daemon.call("GET", "/v1/status")["counters"]["gossip"]

    def rotate_without(self, others, generation):
        wait_for(lambda: others[0].call("GET", "/v1/status")["members"]["alive"] == len(others), 60, "the other is missed")
        wait_for(lambda: others[0].trestle("keys", "rotate"), 10, "a rotation")
        wait_for(lambda: one_key(others, generation), 30, f"one key of generation {generation}", every=0.05)

    def no_udp(self, number, hooks=("input",)):
        host = self.lab.hosts[number]
        host.run("nft", "add table ip filtered;" + "".join(
            f"add chain ip filtered {hook} {{ type filter hook {hook} priority 0; }}; add rule ip filtered {hook} udp dport {PORT} drop;" for hook in hooks))
        return lambda: host.run("nft", "delete table ip filtered")

    def test_a_stopped_host_fetches_what_it_missed(self):
        away = self.daemons[2]
        away.kill9()
        self.rotate_without(self.daemons[:2], 2)
        wait_for(lambda: self.daemons[0].trestle("keys", "rotate"), 10, "a second rotation")
        wait_for(lambda: one_key(self.daemons[:2], 3), 30, "one key of generation 3")
        away.start()
        Daemon.wait_members(self.daemons)
        wait_for(lambda: one_key(self.daemons, 3), 20, "the same key at the one that was away")
        self.assertGreater(self.counters(away)["recoveries_asked"], 0)
        self.assertEqual(self.counters(away)["conflicts"], 0)
        # And it is on disk there.
        away.kill9()
        away.start()
        Daemon.wait_members(self.daemons)
        wait_for(lambda: one_key(self.daemons, 3), 10, "the same key everywhere")
        self.assertEqual(keys(away)[0]["generation"], 3)

    def test_a_frozen_host_fetches_what_it_missed(self):
        frozen = self.daemons[1]
        frozen.process.pause()
        self.rotate_without([self.daemons[0], self.daemons[2]], 2)
        frozen.process.resume()
        Daemon.wait_members(self.daemons)
        wait_for(lambda: one_key(self.daemons, 2), 20, "the same key at the one that was frozen")

    def test_a_forgotten_host_gets_no_key_and_is_told(self):
        victim = self.daemons[2]
        victim.kill9()
        wait_for(lambda: self.daemons[0].call("GET", "/v1/status")["members"]["dead"] == 1, 60, "h3 is taken for dead")
        wait_for(lambda: self.daemons[0].trestle("forget", "h3", "--fenced")["done"], 20, "h3 is forgotten")
        wait_for(lambda: one_key(self.daemons[:2], 2), 30, "keys change without the forgotten host")
        victim.start(wait=False)
        wait_for(lambda: "has been forgotten by its cluster" in victim.log_text(), 30, "h3 is told")
        Daemon.wait_members(self.daemons[:2])
        self.assertGreater(sum(self.counters(d)["refused_forgotten"] for d in self.daemons[:2]), 0)
        self.assertEqual(sum(self.counters(d)["recoveries_answered"] for d in self.daemons[:2]), 0)

    def test_joining_where_udp_is_filtered(self):
        joiner = self.daemons[2]
        # Either seed of the token may be the sponsor; h2, which is not to hear from h1 then, needs host numbers of its own for that.
        self.daemons[1].wait_sponsor()
        joiner.trestle("leave")
        token = self.daemons[0].token()
        pass_again = self.no_udp(0, ("input", "output"))
        self.assertEqual(joiner.trestle("join", token)["cluster_id"], self.daemons[0].call("GET", "/v1/status")["cluster_id"])
        Daemon.wait_members(self.daemons, timeout=30)
        pass_again()
        Daemon.wait_members(self.daemons)

    def reach(self, daemon, of):
        return next(m["reach"] for m in daemon.call("GET", "/v1/members")["members"] if m["name"] == of.host.name)

    def test_members_go_on_where_udp_is_filtered(self):
        """Neither to h1 nor from it. It stays a member, and what is said comes through."""
        one, two, three = self.daemons
        deaths = sum(self.counters(d)["deaths"] for d in self.daemons)
        self.assertEqual([self.counters(d)["streamed_out"] for d in (two, three)], [0, 0])
        pass_again = self.no_udp(0, ("input", "output"))
        for d in (two, three):
            wait_for(lambda d=d: self.reach(d, one) == "tcp" and self.reach(one, d) == "tcp", 30, f"{d.host.name} and h1 reach each other by TCP")
        self.assertEqual(self.reach(two, three), "both")
        self.assertIn(f"1 host is reached by TCP only, which is slower: let UDP port {PORT} pass between them and this one; `trestle members` names them",
                      two.call("GET", "/v1/status")["warnings"])
        # A network made on one, which asks its home, and its containers' addresses, which h1 has in custody. h3 is part of it: it hears.
        runtimes = [Runtime(d, *d.plugin().create_network("app", "10.9.0.0/24")) for d in self.daemons]
        containers = [r.attach() for r in runtimes[:2]]
        for d in self.daemons:
            wait_for(lambda d=d: len(d.endpoints()) == 2, 10, f"{d.host.name} knows both containers")
        wait_for(lambda: runtimes[0].ping(containers[0], containers[1].ip), 10, "they reach each other")
        # Each has probed five times: whom a probe does not reach would be suspected, and verified, by then.
        probes = {d: self.counters(d)["probes"] for d in self.daemons}
        wait_for(lambda: all(self.counters(d)["probes"] >= probes[d] + 5 for d in self.daemons), 20, "five probes of each")
        self.assertEqual([d.call("GET", "/v1/status")["members"]["alive"] for d in self.daemons], [3, 3, 3])
        one.kill9()  # and who starts there is met
        one.start()
        Daemon.wait_members(self.daemons, timeout=30)
        pass_again()
        wait_for(lambda: self.reach(two, one) == self.reach(one, two) == "both", 30, "UDP is taken again")
        self.assertEqual(sum(self.counters(d)["deaths"] for d in (two, three)), deaths)

    def test_streams_that_bring_rubbish_change_nothing(self):
        target = self.daemons[0]
        before = target.call("GET", "/v1/status")["members"]
        open_ones = []
        for i in range(60):
            s = self.lab.hosts[1].socket(socket.AF_INET, socket.SOCK_STREAM)
            s.settimeout(60)
            s.connect((self.lab.hosts[0].address, PORT))
            try:
                if i % 3 == 0:
                    s.sendall(b"GET / HTTP/1.1\r\n\r\n")
                elif i % 3 == 1:
                    s.sendall((1200).to_bytes(2, "big") + secrets.token_bytes(1200))
                else:
                    s.sendall(b"\x04")  # and no more
            except OSError:
                pass  # refused already
            open_ones.append(s)
        # All are closed, the silent ones by the deadline; no answer to any.
        for s in open_ones:
            try:
                self.assertEqual(s.recv(1), b"")
            except ConnectionResetError:
                pass
            s.close()
        wait_for(lambda: target.call("GET", "/v1/status")["members"] == before, 10, "the members as before")
        self.daemons[2].trestle("leave")
        self.daemons[2].join(target)


if __name__ == "__main__":
    unittest.main()

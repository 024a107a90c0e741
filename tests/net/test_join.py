"""Who gets in, and what the daemon makes of packets that are none of its business."""
import secrets
import shutil
import socket
import threading
import time
import unittest

from tests.lab import Daemon, wait_for
from tests.lab.daemon import PORT, ControlError
from tests.lab.plugin import Refused
from tests.net.hosts import Hosts

ETH_P_IP = 0x0800
UDP = 17


class Join(Hosts):
    HOSTS = 3
    JOINED = False

    def members(self, daemon):
        return {m["name"]: m["state"] for m in daemon.call("GET", "/v1/members")["members"]}

    def refused(self, number, token):
        done = self.daemons[number].trestle("join", token, check=False)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        return done.stderr

    def test_three_join_and_say_so(self):
        answer = self.daemons[1].trestle("join", self.daemons[0].token())
        self.assertEqual(answer["sponsor"], "h1")
        self.daemons[2].trestle("join", self.daemons[1].token())  # any member's token will do
        Daemon.wait_members(self.daemons)
        numbers = {m["hostno"] for m in self.daemons[0].call("GET", "/v1/members")["members"]}
        self.assertEqual(len(numbers), 3)
        again = self.daemons[1].trestle("join", self.daemons[0].token())
        self.assertEqual(again["cluster_id"], answer["cluster_id"])
        self.assertEqual(again["hostno"], answer["hostno"])

    def test_join_at_start(self):
        self.daemons[1].stop()
        self.daemons[1].start("--join", self.daemons[0].token())
        Daemon.wait_members(self.daemons[:2])

    def test_members_find_each_other_again_after_all_were_down(self):
        Daemon.cluster(self.daemons)
        for d in self.daemons:
            d.stop()
        for d in self.daemons:
            d.start(wait=False)
        for d in self.daemons:
            d.wait_ready()
        Daemon.wait_members(self.daemons)

    def test_leave_and_join_again(self):
        Daemon.cluster(self.daemons)
        self.daemons[2].trestle("leave")
        for d in self.daemons[:2]:
            wait_for(lambda d=d: self.members(d).get("h3", "left") == "left", 5, f"{d.host.name} knows that h3 left")
        self.daemons[2].join(self.daemons[0])
        Daemon.wait_members(self.daemons)

    def test_a_machine_that_lost_its_state_joins_as_a_new_host(self):
        """And who looks at the old one, which nobody hears of any more, is told what to do."""
        one, two, _ = self.daemons
        Daemon.cluster([one, two])
        number = two.call("GET", "/v1/status")["hostno"]
        two.stop()
        shutil.rmtree(two.state)
        two.start()
        two.join(one)
        warning = f"host h2 (number {number}) is dead, and host h2 (number {two.call('GET', '/v1/status')['hostno']}) has its address"
        (said,) = wait_for(lambda: [w for w in one.call("GET", "/v1/status")["warnings"] if w.startswith(warning)], 30, "a warning")
        self.assertIn(f"trestle forget {number} --fenced", said)
        wait_for(lambda: one.trestle("forget", str(number), "--fenced")["done"], 10, "what it says is done")
        wait_for(lambda: not one.call("GET", "/v1/status")["warnings"], 10, "no warning any more")

    def test_token_of_another_cluster(self):
        """h2 belongs to h1's cluster; h3's token must not move it, and nothing changes anywhere."""
        self.daemons[1].join(self.daemons[0])
        Daemon.wait_members(self.daemons[:2])
        said = self.refused(1, self.daemons[2].token())
        self.assertIn("cluster", said)
        together = {"h1": "alive", "h2": "alive"}
        wait_for(lambda: [self.members(d) for d in self.daemons] == [together, together, {"h3": "alive"}], 5, "the members as before")

    def test_expired_token(self):
        token = self.daemons[0].call("POST", "/v1/token", {"ttl_s": 1})
        wait_for(lambda: time.time() > token["expires_s"] + 1, 5, "the token's end")
        self.assertIn("expired", self.refused(1, token["token"]))
        self.assertEqual(self.members(self.daemons[0]), {"h1": "alive"})

    def test_bad_tokens(self):
        good = self.daemons[0].token()
        middle = len(good) // 2
        changed = good[:middle] + ("A" if good[middle] != "A" else "B") + good[middle + 1:]
        for bad in ("", "x", "trestle1.", "trestle2" + good[8:], good[:-5], good + "AAAA", changed, "trestle1." + "A" * 600):
            with self.subTest(token=bad[:40]):
                done = self.daemons[1].trestle("join", bad, check=False)
                self.assertNotEqual(done.returncode, 0)
                self.assertTrue(done.stderr.strip(), "no word about it")
        with self.assertRaises(ControlError) as caught:
            self.daemons[1].call("POST", "/v1/join", {"token": good[:-5]})
        self.assertEqual(caught.exception.status, 400)
        self.assertEqual([self.members(d) for d in self.daemons[:2]], [{"h1": "alive"}, {"h2": "alive"}])

    def test_seed_that_does_not_answer(self):
        token = self.daemons[0].token()
        self.daemons[0].stop()
        said = self.refused(1, token)
        self.assertIn(self.lab.hosts[0].address, said)
        self.assertEqual(self.members(self.daemons[1]), {"h2": "alive"})

    def test_nothing_new_while_joining(self):
        """What an engine made while the sponsor is asked would be lost: it is refused, and the host is as before."""
        token = self.daemons[0].token()
        self.lab.cut(self.lab.hosts[:1], self.lab.hosts[1:2])
        plugin = self.daemons[1].plugin()

        def join():
            # Given up after ten seconds, which the rest of this may have taken.
            wait_for(lambda: self.daemons[1].trestle("join", token), 20, "h2 is in")
        joining = threading.Thread(target=join)
        joining.start()
        self.addCleanup(joining.join)
        self.addCleanup(self.lab.heal)
        wait_for(lambda: self.daemons[1].call("GET", "/v1/status")["state"] == "joining", 5, "h2 is joining")
        with self.assertRaises(Refused) as caught:
            plugin.create_network("app", "10.9.0.0/24")
        self.assertIn("joining", caught.exception.text)
        self.lab.heal()
        joining.join()
        Daemon.wait_members(self.daemons[:2])
        plugin.create_network("app", "10.9.0.0/24")
        self.assertEqual([n["name"] for n in self.daemons[1].call("GET", "/v1/networks")["networks"]], ["app"])


class Packets(Hosts):
    """Gossip packets that members did not send: counted by reason, and nothing else happens."""

    def counters(self, number=0):
        return self.daemons[number].call("GET", "/v1/status")["counters"]["gossip"]

    def refused_since(self, before):
        return sum(v - before[k] for k, v in self.counters().items() if k.startswith("refused_"))

    def capture(self, number):
        return self.lab.hosts[number].socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))

    def gossip_frames(self, number, source, count):
        """Frames of gossip that reach a host from an address."""
        with self.capture(number) as s:
            s.bind(("eth0", ETH_P_IP))
            s.settimeout(100)
            frames = []
            while len(frames) < count:
                frame = s.recv(2048)
                if frame[23] == UDP and frame[26:30] == socket.inet_aton(source) and frame[36:38] == PORT.to_bytes(2, "big"):
                    # The checksum is not in it yet where the sender's link does that work; zero is "none" (RFC 768).
                    frames.append(frame[:40] + b"\0\0" + frame[42:])
            return frames

    def unharmed(self):
        for d in self.daemons:
            self.assertTrue(d.alive(), d.log_text()[-2000:])
        Daemon.wait_members(self.daemons)

    def test_noise_from_a_stranger(self):
        stranger = self.lab.hosts[1].socket(socket.AF_INET, socket.SOCK_DGRAM)
        with stranger:
            before = self.counters()
            sent = 0
            for size in (1, 16, 17, 33, 34, 200, 1200, 1452):
                for first in (0x00, 0x10, 0x11, 0xff):
                    stranger.sendto(bytes([first]) + secrets.token_bytes(size - 1), (self.lab.hosts[0].address, PORT))
                    sent += 1
            wait_for(lambda: self.refused_since(before) >= sent, 5, f"{sent} packets refused and counted")
        self.unharmed()

    def test_replayed_packets(self):
        """Frames of h2 sent to h1 a second time, as they were."""
        one, two = self.runtimes()
        two.attach()
        frames = self.gossip_frames(0, self.lab.hosts[1].address, 5)
        before = self.counters()["refused_replay"]
        epoch = [m["epoch"] for m in self.daemons[0].call("GET", "/v1/members")["members"]]
        with self.capture(1) as s:
            s.bind(("eth0", ETH_P_IP))
            for frame in frames * 3:
                s.send(frame)
            wait_for(lambda: self.counters()["refused_replay"] >= before + 3 * len(frames), 5, "all replays refused")
        self.unharmed()
        self.assertEqual([m["epoch"] for m in self.daemons[0].call("GET", "/v1/members")["members"]], epoch)

    def test_packets_replayed_after_a_restart(self):
        """What was recorded before both daemons started anew belongs to boot tags that are no more."""
        frames = self.gossip_frames(0, self.lab.hosts[1].address, 5)
        for d in self.daemons:
            d.restart()
        Daemon.wait_members(self.daemons)
        before = self.counters()
        with self.capture(1) as s:
            s.bind(("eth0", ETH_P_IP))
            for frame in frames:
                s.send(frame)
            wait_for(lambda: self.refused_since(before) >= len(frames), 5, "all refused")
        self.unharmed()

    def test_changed_packets(self):
        """One bit turned in each part of a real packet: refused, since every byte is authenticated."""
        frame = self.gossip_frames(0, self.lab.hosts[1].address, 1)[0]
        before = self.counters()
        payload = frame[42:]
        with self.lab.hosts[1].socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            for at in range(len(payload)):
                changed = payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1:]
                s.sendto(changed, (self.lab.hosts[0].address, PORT))
                if at % 32 == 31:  # no more at once than a receive buffer of any size holds
                    wait_for(lambda n=at: self.refused_since(before) > n, 5, f"{at + 1} packets refused", every=0.002)
            wait_for(lambda: self.refused_since(before) >= len(payload), 5, f"{len(payload)} packets refused")
        self.unharmed()

    def test_vxlan_of_a_stranger_is_dropped(self):
        """A frame with our VNI from an address that is no member does not reach a container."""
        one, two = self.runtimes()
        a, b = one.attach(), two.attach()
        self.reach(one, a, b.ip)
        vni = self.daemons[0].call("GET", "/v1/networks/app")["vni"]
        self.lab.hosts[1].run("ip", "addr", "add", "192.0.2.99/24", "dev", "eth0")
        eth = bytes.fromhex(a.mac.replace(":", "") + b.mac.replace(":", "") + "0800")
        inner = eth + self.udp4(b.ip, a.ip, 7000, b"forged")
        frame = bytes([8, 0, 0, 0]) + vni.to_bytes(3, "big") + b"\0" + inner
        listen = ("import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 7000))\n"
                  "while True: print(s.recv(99), flush=True)")
        heard = self.lab.hosts[0].start("ip", "netns", "exec", a.name, "python3", "-c", listen, name="heard")
        wait_for(lambda: ":1B58 " in self.lab.hosts[0].run("ip", "netns", "exec", a.name, "cat", "/proc/net/udp").stdout, 5, "listener")
        with self.lab.hosts[1].socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind(("192.0.2.99", 0))
            for _ in range(5):
                s.sendto(frame, (self.lab.hosts[0].address, 4789))
        # The same from a member's address arrives: the filter and not a mistake here kept the others out.
        with self.lab.hosts[1].socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind((self.lab.hosts[1].address, 0))
            member = bytes([8, 0, 0, 0]) + vni.to_bytes(3, "big") + b"\0" + eth + self.udp4(b.ip, a.ip, 7000, b"member")
            s.sendto(member, (self.lab.hosts[0].address, 4789))
        wait_for(lambda: "member" in heard.tail(), 5, "the member's frame")
        self.assertNotIn("forged", heard.tail())

    @staticmethod
    def udp4(source, destination, port, data):
        udp = (5000).to_bytes(2, "big") + port.to_bytes(2, "big") + (8 + len(data)).to_bytes(2, "big") + b"\0\0" + data
        head = bytearray(bytes([0x45, 0]) + (20 + len(udp)).to_bytes(2, "big") + bytes([0, 1, 0, 0, 64, UDP, 0, 0])
                         + socket.inet_aton(source) + socket.inet_aton(destination))
        total = sum(int.from_bytes(head[i:i + 2], "big") for i in range(0, 20, 2))
        total = (total & 0xffff) + (total >> 16)
        head[10:12] = (~(total + (total >> 16)) & 0xffff).to_bytes(2, "big")
        return bytes(head) + udp


if __name__ == "__main__":
    unittest.main()

"""contrib/trestle.lua in tshark: the vectors of docs/wire.md, and what real daemons say."""
import json
import os
import select
import shutil
import socket
import sqlite3
import struct
import subprocess
import tempfile
import time
import unittest

from tests.lab import ROOT, Daemon, Lab, wait_for
from tests.lab.daemon import PORT

LUA = os.path.join(ROOT, "contrib/trestle.lua")
ETH_P_ALL = 3


def write_pcap(path, frames):
    with open(path, "wb") as f:
        f.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
        for number, frame in enumerate(frames):
            f.write(struct.pack("<IIII", 1 + number // 1000, number % 1000, len(frame), len(frame)) + frame)


def udp_frame(source, destination, payload):
    """What a capture has of a datagram; checksums are not looked at."""
    udp = struct.pack("!HHHH", PORT, PORT, 8 + len(payload), 0) + payload
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(destination))
    return bytes(12) + b"\x08\x00" + ip + udp


@unittest.skipUnless(shutil.which("tshark"), "there is no tshark")
class Dissector(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.pcap = os.path.join(directory.name, "capture.pcap")

    def dissect(self, key, cluster_id, hosts, *fields):
        """A row of field values for each packet of ours."""
        argv = ["tshark", "-X", f"lua_script:{LUA}", "-r", self.pcap, "-Y", "trestle", "-T", "fields", "-E", "separator=|",
                "-o", f"trestle.cluster_key:{key}", "-o", f"trestle.cluster_id:{cluster_id}",
                "-o", "trestle.hosts:" + ",".join(f"{n}={i}" for n, i in hosts.items())]
        for field in fields:
            argv += ["-e", field]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": os.path.dirname(self.pcap)})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("Lua", done.stderr)
        return [line.split("|") for line in done.stdout.splitlines()]

    def test_the_documented_frames(self):
        frame = bytes.fromhex("120100000a1111111100000000000000014b4f6bc7cb0a4db45b3a4fd4542347a333502b57")
        hello = bytes.fromhex("1e0100000aaaaaaaaa111111110000000000000002a3065e8f171894147c669e4659d698bffef3798ca36c94595e58e1a0b9cbce50")
        write_pcap(self.pcap, [udp_frame("192.0.2.1", "192.0.2.2", p) for p in (hello, frame, frame[:-1] + b"\0")])
        key, cluster = bytes(range(32)).hex(), "cc" * 16
        rows = self.dissect("ff" * 32 + "," + key, cluster, {10: "0a" * 16, 20: "14" * 16}, "trestle.status", "trestle.hello.echo", "trestle.hello.ask")
        self.assertEqual(rows[0], ["authentic, for host number 20", "0x0000000000001111", "0x0000000000002222"])
        self.assertEqual(rows[1][0], "authentic, for host number 20")
        self.assertIn("does not fit", rows[2][0])
        wrong = self.dissect("ff" * 32, cluster, {10: "0a" * 16, 20: "14" * 16}, "trestle.status")
        self.assertTrue(all("does not fit" in r[0] for r in wrong), wrong)

    @staticmethod
    def listen(tap, frames, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([tap], [], [], 0.1)[0]:
                frames.append(tap.recv(4096))

    def test_real_daemons(self):
        """From the first packet of a join to endpoints coming and going: each ordinary frame opens, each message in it is understood."""
        with Lab(hosts=2) as lab:
            one, two = [Daemon(h) for h in lab.hosts]
            with lab.hosts[0].socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as tap:
                tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
                tap.bind(("eth0", ETH_P_ALL))
                Daemon.cluster([one, two])
                network, pool, _ = one.plugin().create_network("app", "10.9.0.0/24")
                wait_for(lambda: two.call("GET", "/v1/networks/app"), 5, "h2 knows the network")
                two.call("POST", "/v1/networks", {"name": "app"})
                address = one.plugin().request_address(pool)
                one.plugin().create_endpoint(network, "e" * 64, address)
                wait_for(lambda: two.endpoints(), 5, "h2 knows the endpoint")
                one.plugin().delete_endpoint(network, "e" * 64)
                wait_for(lambda: not two.endpoints(), 5, "h2 knows that it went")
                hosts = {m["hostno"]: m["host_id"] for m in one.call("GET", "/v1/members")["members"]}
                cluster = one.call("GET", "/v1/status")["cluster_id"]
                with sqlite3.connect(f"file:{one.state}/state.db?mode=ro", uri=True) as db:
                    (key,) = db.execute("SELECT hex(substr(val, 18, 32)) FROM kv WHERE key = CAST('c' AS BLOB)").fetchone()
                frames = []

                def heard_all():
                    self.listen(tap, frames, 3)
                    write_pcap(self.pcap, frames)
                    self.rows = self.dissect(key, cluster, hosts, "trestle.class", "trestle.status", "trestle.message",
                                             "trestle.malformed", "trestle.admission.kind")
                    self.heard = {name for r in self.rows for name in r[2].split(",")}
                    return {"PING", "ACK", "BATCH", "PUSH_ACK", "MEMBERS"} <= self.heard and len(self.rows) > 20
                wait_for(heard_all, 10, "every usual message")
        rows, heard = self.rows, self.heard
        ordinary = [r for r in rows if r[0] in "0123"]
        self.assertGreater(len(ordinary), 10)
        self.assertEqual([r for r in rows if r[3]], [], "malformed")
        # Those before the first hello of a boot are refused by their receiver, too.
        self.assertEqual([r for r in ordinary[len(ordinary) // 2:] if not r[1].startswith("authentic")], [])
        self.assertFalse([n for n in heard if n.startswith("type ")], "a message that the dissector does not know")
        self.assertIn("1", {r[4] for r in rows}, "the JOIN")
        self.assertIn("2", {r[4] for r in rows}, "the WELCOME")


if __name__ == "__main__":
    unittest.main()

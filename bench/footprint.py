"""What does the daemon cost a host in memory and on disk?

Resident memory of trestled when idle in a cluster of two, and with 1,000 local and 10,000 remote endpoints: real ones, made call by call at
the plugin's socket of this host and of the other, spread over ten networks, since a bridge of the kernel takes 1,023 ports. And the size
of the programs as they are shipped, without debug symbols.
"""
import os
import tempfile
import time

from bench.attach import Crowd
from bench.report import Report
from tests.lab import BUILD, Daemon, Lab, program, run, wait_for

LOCAL = int(os.environ.get("TRESTLE_BENCH_LOCAL", "1000"))
REMOTE = int(os.environ.get("TRESTLE_BENCH_REMOTE", "10000"))
NETWORKS = 10
READINGS = 5


def rss(daemon):
    """MiB, several readings a moment apart."""
    readings = []
    for _ in range(READINGS):
        with open(f"/proc/{daemon.process.pid}/status") as f:
            readings.append(next(int(l.split()[1]) for l in f if l.startswith("VmRSS:")) / 1024)
        time.sleep(0.2)
    return readings


def stripped(name):
    with tempfile.TemporaryDirectory() as directory:
        out = os.path.join(directory, name)
        run("strip", "-o", out, os.path.join(BUILD, name))
        return os.path.getsize(out) / 1024


def main():
    report = Report("footprint")
    with Lab(hosts=2) as lab:
        # The links stay where they are made; the grace for links that no container takes would be over before all are there.
        here, there = daemons = [Daemon(h, "--lease-grace", 86400, log_level="info") for h in lab.hosts]
        Daemon.cluster(daemons)
        report.add("trestle", "rss_idle", "MiB", rss(here))
        for number in range(NETWORKS):
            for daemon, count in ((here, LOCAL), (there, REMOTE)):
                Crowd(daemon, f"crowd{number}", f"10.{20 + number}.0.0/16").grow(count // NETWORKS, move=False)
        wait_for(lambda: here.call("GET", "/v1/status")["endpoints"] == {"local": LOCAL, "remote": REMOTE}, 120,
                 f"{LOCAL} local and {REMOTE} remote endpoints known", every=0.5)
        report.add("trestle", f"rss_{LOCAL}_local_{REMOTE}_remote", "MiB", rss(here))
    for name in ("trestled", "trestle"):
        report.add("trestle", f"size_{name}", "KiB", [stripped(name)])
    report.write()


if __name__ == "__main__":
    program("bench", main)

"""Many small hosts on one machine, for measuring: a network namespace each, one switch, one program in each, its log read through a pipe.

Lighter than tests/lab, which gives a host its own processes and mounts: at a hundred hosts those would be what is measured. Stamps of log
lines are those of the moment they were read, on the clock that the daemon's own stamps use (CLOCK_BOOTTIME). State is on a tmpfs: in
life each host has a disk of its own, here fifty would queue for one.
"""
import ctypes
import json
import os
import re
import select
import shutil
import signal
import subprocess
import time

from tests.lab import Failed, run

CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000
MS_REC_PRIVATE = 0x4000 | 0x40000
PR_SET_PDEATHSIG = 1
WAITING = "waits at the gate"
LAUNCHER = ["sh", "-c", f'echo "{WAITING}"; read -r _; exec "$@" </dev/null', "sh"]
LIBC = ctypes.CDLL(None, use_errno=True)


def now():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Program:
    """One running program and what it said: lines() since the last call, with the time at which each was read.

    `gate`: a pipe; the program is not executed before its other end is closed, only what will execute it is there."""

    def __init__(self, fleet, number, argv, gate=subprocess.DEVNULL):
        self.number, self.waits = number, False
        self._rest = b""
        if gate != subprocess.DEVNULL:
            argv = LAUNCHER + argv

        def enter():
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            with open(f"/run/netns/{fleet.netns(number)}") as ns:
                if LIBC.setns(ns.fileno(), CLONE_NEWNET) or LIBC.unshare(CLONE_NEWNS):
                    os._exit(71)
            if LIBC.mount(b"none", b"/", None, MS_REC_PRIVATE, None) or LIBC.mount(b"run", b"/run", b"tmpfs", 0, b"mode=755"):
                os._exit(72)
            os.makedirs("/run/netns")

        self.process = subprocess.Popen([str(a) for a in argv], stdin=gate, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, preexec_fn=enter)
        self.pid, self.fd = self.process.pid, self.process.stdout.fileno()
        os.set_blocking(self.fd, False)

    def read(self):
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return []
        stamp = now()
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [(stamp, l.decode(errors="replace")) for l in lines]

    def signal(self, signum):
        self.process.send_signal(signum)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def rss_mib(self):
        with open(f"/proc/{self.pid}/status") as f:
            return next(int(l.split()[1]) for l in f if l.startswith("VmRSS:")) / 1024

    def cpu(self):
        """(seconds, times it was put on a core) of all threads. The ticks of /proc/PID/stat are too coarse for what nearly always sleeps."""
        spent = turns = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/schedstat") as f:
                ran, _, count = f.read().split()
                spent, turns = spent + int(ran) / 1e9, turns + int(count)
        return spent, turns


class Fleet:
    """N hosts h0.. with 198.51.100.0/24 addresses on one bridge. A subject says how its program is started and what its log means.

    argv(fleet, number): the command line. STATE: a regular expression with groups "name" and "state". STATES: what its states are called
    here. wants(line): whether to keep any other line."""

    def __init__(self, subject, count):
        self.subject, self.count = subject, count
        self.prefix = f"bg{os.getpid()}"
        self.switch = f"{self.prefix}-sw"
        self.dir = f"/dev/shm/{self.prefix}"
        self.programs = {}
        self.view = {}      # (host, other) -> (state, since when)
        self.history = []   # (when, host, other, state)
        self.notes = []     # (when, host, line), of those that the subject wants
        self.state = re.compile(subject.STATE)
        self.poll = select.poll()
        self.by_fd = {}

    def netns(self, number):
        return f"{self.prefix}-{number}"

    @staticmethod
    def address(number):
        return f"198.51.100.{number + 1}"

    def host_dir(self, number):
        return f"{self.dir}/h{number}"

    def __enter__(self):
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _open(self):
        os.mkdir(self.dir)
        run("ip", "netns", "add", self.switch)
        for n in range(self.count):
            os.mkdir(self.host_dir(n))
            run("ip", "netns", "add", self.netns(n))
        # Where br_netfilter is loaded, for Docker, each packet would pass through iptables on the switch.
        run("ip", "netns", "exec", self.switch, "sh", "-c",
            "for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $f ] || echo 0 >$f; done")
        lines = ["link add sw type bridge mcast_snooping 0", "link set sw addrgenmode none", "link set sw up"]
        for n in range(self.count):
            lines += [f"link add h{n} type veth peer name eth0 netns {self.netns(n)}", f"link set h{n} addrgenmode none",
                      f"link set h{n} master sw up"]
        self._batch(self.switch, lines)
        for n in range(self.count):
            self._batch(self.netns(n), ["link set lo up", "link set eth0 addrgenmode none",
                                        f"addr add {self.address(n)}/24 dev eth0", "link set eth0 up"])

    @staticmethod
    def _batch(netns, lines):
        run("ip", "-n", netns, "-b", "-", stdin="\n".join(lines) + "\n", timeout=180)

    def __exit__(self, *_):
        for p in self.programs.values():
            p.process.poll() is None and p.process.kill()
        for p in self.programs.values():
            p.close()
        self.programs = {}
        for name in [self.netns(n) for n in range(self.count)] + [self.switch]:
            run("ip", "netns", "del", name, check=False)
        shutil.rmtree(self.dir, ignore_errors=True)

    # ---- programs ----

    def start(self, number, gate=subprocess.DEVNULL):
        old = self.programs.get(number)
        if old:
            self._unwatch(old)
        for pair in [p for p in self.view if p[0] == number]:
            del self.view[pair]
        p = self.programs[number] = Program(self, number, self.subject.argv(self, number), gate)
        self.by_fd[p.fd] = p
        self.poll.register(p.fd, select.POLLIN)
        return p

    def start_together(self, numbers):
        """Starts them at one moment, and returns which: they wait in their namespaces, all that is left is to execute each."""
        gate, release = os.pipe()
        try:
            programs = [self.start(n, gate) for n in numbers]
            require(self.wait(lambda: all(p.waits for p in programs), 60), "not all programs wait to be started after 60 s")
        finally:
            os.close(gate)
            begun = now()
            os.close(release)
        return begun

    def _unwatch(self, p):
        if self.by_fd.pop(p.fd, None):
            self.poll.unregister(p.fd)
        p.close()

    def kill(self, number):
        self.programs[number].kill()
        self._unwatch(self.programs.pop(number))

    def alive(self):
        return sorted(self.programs)

    def pump(self, seconds):
        """Reads logs for so long."""
        end = now() + seconds
        while True:
            left = end - now()
            for fd, what in self.poll.poll(max(left, 0) * 1000):
                p = self.by_fd[fd]
                lines = p.read()
                if not lines and what & select.POLLHUP:
                    self.by_fd.pop(fd)
                    self.poll.unregister(fd)
                for stamp, line in lines:
                    self._heard(p.number, stamp, line)
            if left <= 0:
                return

    def quiet(self, seconds):
        """Lets so much time pass without reading, so that nobody wakes for it; then reads what was said."""
        time.sleep(seconds)
        self.pump(0.02)

    def _heard(self, host, stamp, line):
        found = self.state.search(line)
        if found:
            name, state = found["name"], self.subject.STATES.get(found["state"], found["state"])
            self.view[host, name] = (state, stamp)
            self.history.append((stamp, host, name, state))
        elif line == WAITING:
            self.programs[host].waits = True
        elif self.subject.wants(line):
            self.notes.append((stamp, host, line))

    def wait(self, condition, deadline_s, every=0.05):
        """Whether it came true in time."""
        end = now() + deadline_s
        while not condition():
            if now() > end:
                return False
            self.pump(every)
        return True

    def sees(self, host, other):
        return self.view.get((host, f"h{other}"), (None, 0))

    def all_see_all(self):
        alive = self.alive()
        return all(self.sees(a, b)[0] == "alive" for a in alive for b in alive if a != b)

    def latest(self, state, hosts=None, others=None):
        """When the last pair of those came to be in this state."""
        hosts, others = hosts or self.alive(), others or self.alive()
        return max(self.sees(a, b)[1] for a in hosts for b in others if a != b and self.sees(a, b)[0] == state)

    def cpu(self):
        """(seconds, turns) of all hosts together."""
        each = [p.cpu() for p in self.programs.values()]
        return sum(e[0] for e in each), sum(e[1] for e in each)

    # ---- the underlay ----

    def sent(self):
        """[(bytes, packets)] that each host put on the wire: what the switch's ports received."""
        links = json.loads(run("ip", "-n", self.switch, "-s", "-j", "link", timeout=60).stdout)
        by_name = {l["ifname"]: l["stats64"]["rx"] for l in links}
        return [(by_name[f"h{n}"]["bytes"], by_name[f"h{n}"]["packets"]) for n in range(self.count)]

    def cut(self, side):
        """Nothing passes between the hosts of side and the others."""
        names = ", ".join(f'"h{n}"' for n in side)
        self._nft(f"""add table bridge cut
            add set bridge cut side {{ type ifname; elements = {{ {names} }}; }}
            add chain bridge cut forward {{ type filter hook forward priority 0; }}
            add rule bridge cut forward iifname @side oifname != @side drop
            add rule bridge cut forward iifname != @side oifname @side drop""")

    def heal(self):
        self._nft("delete table bridge cut")

    def lose(self, percent):
        """So many of a hundred packets, at random."""
        self._nft(f"""add table bridge loss
            add chain bridge loss forward {{ type filter hook forward priority 0; }}
            add rule bridge loss forward numgen random mod 100 < {percent} drop""")

    def lose_nothing(self):
        self._nft("delete table bridge loss")

    def _nft(self, commands):
        run("nsenter", f"--net=/run/netns/{self.switch}", "nft", "-f", "-", stdin=commands + "\n")


def require(condition, what):
    if not condition:
        raise Failed(what)

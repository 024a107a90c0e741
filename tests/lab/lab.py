"""Hosts on one machine: each a set of namespaces (network, mount, process) with an eth0 into a switch, the underlay.

The switch is a namespace with a bridge; cuts are nftables drops between its ports. A host's first process ends everything in the host
when it is killed, as a power cut would: daemons, engines, containers. Each thing registers its own removal at the moment it is made,
and removals run in the opposite order on exit, on an exception, on SIGINT and SIGTERM. What even kill -9 of the run leaves (names of
namespaces, a directory) is found by its prefix and removed by `python3 -m tests.lab clean`.
"""
import atexit
import ctypes
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

from . import leaks
from .shell import Failed, alive, children, kill, run, start_time, state, wait_for

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("TRESTLE_BUILD", os.path.join(ROOT, "build/release"))
BASE = "/tmp/trestle-lab"
UNDERLAY4 = "192.0.2"
UNDERLAY6 = "2001:db8::"
STORY_LINES = 60  # of each log
END_S = 60  # for a process that was killed to be gone, with all that the kernel takes down behind it
PR_SET_PDEATHSIG = 1
CLONE_NEWNET = 0x40000000

# The first process of a host. Its loop adopts and reaps what dies around it, which `sleep` alone would not. The machine's own namespaces
# are let go first: engines look mounts up by path, and would find these below the host's /run.
INIT = r"""
mount --make-rprivate / &&
{ umount -lR /run/netns 2>/dev/null || :; } &&
mount -t tmpfs -o mode=755 tmpfs /run &&
mkdir -p /run/docker/plugins /run/netns /run/lock &&
ip link set lo up && : > "$1/up" || exit 1
while :; do sleep 3600; done
"""


def _die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A program that runs inside a host until it is stopped. pid is the program's own, seen from outside."""

    def __init__(self, host, argv, log, env=None):
        self.argv = [str(a) for a in argv]
        self.log = log
        with open(log, "ab") as out:
            self._enter = subprocess.Popen(host.enter(*self.argv), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                           env={**os.environ, **(env or {})}, start_new_session=True)
        # nsenter forks to land in the process namespace: the child is the program.
        self.pid = wait_for(self._find, 10, f"start of {self.argv[0]}", every=0.002)

    def _find(self):
        if self._enter.poll() is not None:
            raise RuntimeError(f"{' '.join(self.argv)}: ended at once with {self._enter.returncode}: {self.tail()}")
        return next(iter(children(self._enter.pid)), None)

    def alive(self):
        return self._enter.poll() is None and alive(self.pid)

    def pause(self):
        """Stops the program, and waits for nsenter, which stops itself when it sees that: else it might do so after resume()."""
        os.kill(self.pid, signal.SIGSTOP)
        wait_for(lambda: state(self.pid) == state(self._enter.pid) == "T", 10, f"{self.argv[0]} is stopped", every=0.002)

    def resume(self):
        for pid in (self._enter.pid, self.pid):
            os.kill(pid, signal.SIGCONT)
        wait_for(lambda: "T" not in (state(self._enter.pid), state(self.pid)), 10, f"{self.argv[0]} goes on", every=0.002)

    def end(self, signum=signal.SIGTERM, timeout=20):
        """Ends the program and returns its status; SIGKILL follows when it does not listen."""
        if self._enter.poll() is None:
            try:
                kill(self.pid, signum, timeout)
            except Failed:
                kill(self.pid, signal.SIGKILL)
                raise
        return self.wait()

    def wait(self):
        return self._enter.wait(END_S)

    def tail(self, size=3000):
        with open(self.log, errors="replace") as f:
            return f.read()[-size:]


class Host:
    """One host: network namespace PREFIX-NAME, private mounts, own processes. eth0 has 192.0.2.N and 2001:db8::N, or one of them
    alone; `address` is the one that the others use."""

    def __init__(self, lab, number, mtu=1500, families=(4, 6)):
        self.lab, self.number, self.mtu, self.families = lab, number, mtu, families
        self.name = f"h{number}"
        self.netns = f"{lab.prefix}-{self.name}"
        self.address6 = f"{UNDERLAY6}{number}"
        self.address = f"{UNDERLAY4}.{number}" if 4 in families else self.address6
        self.dir = os.path.join(lab.dir, self.name)
        self.boot_id = 1
        self.on_boot = []  # daemons and engines forget their processes here
        self.daemons = []
        self.processes = []
        self.pid = None
        os.mkdir(self.dir)
        lab.defer(self._remove)
        self._up()

    def _up(self):
        up = os.path.join(self.dir, "up")
        if os.path.exists(up):
            os.unlink(up)
        run("ip", "netns", "add", self.netns)
        run("ip", "-n", self.netns, "link", "add", "eth0", "mtu", self.mtu, "type", "veth", "peer", "name", self.name, "mtu", self.mtu,
            "netns", self.lab.switch)
        if 4 in self.families:
            run("ip", "-n", self.netns, "addr", "add", f"{UNDERLAY4}.{self.number}/24", "dev", "eth0")
        if 6 in self.families:
            run("ip", "-n", self.netns, "addr", "add", f"{self.address6}/64", "dev", "eth0", "nodad")
        run("ip", "-n", self.netns, "link", "set", "eth0", "up")
        run("ip", "-n", self.lab.switch, "link", "set", self.name, "master", "sw", "up")
        with open(os.path.join(self.dir, "init.log"), "ab") as log:
            self._init = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.netns}", "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child",
                 "--mount-proc", "sh", "-c", INIT, f"{self.lab.prefix}-init", self.dir],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=_die_with_parent)
        wait_for(lambda: os.path.exists(up) or self._init.poll() is not None, 10, f"host {self.name}")
        self.pid = next(iter(children(self._init.pid)), None)
        if self.pid is None:
            with open(log.name) as f:
                raise Failed(f"host {self.name} did not start: {f.read()}")
        self.run("hostname", self.name)

    def _down(self):
        """What a power cut does: every process of the host ends at once, its namespaces go."""
        if self.pid:
            kill(self.pid, signal.SIGKILL)
            self._init.wait(END_S)
        for process in self.processes:
            process.wait()
        self.pid, self.processes = None, []
        run("ip", "netns", "del", self.netns, check=False)
        # The port goes with its peer, a little later than the namespace's name.
        wait_for(lambda: run("ip", "-n", self.lab.switch, "link", "show", self.name, check=False).returncode != 0, 10,
                 f"end of {self.name}'s port")
        for path in glob.glob(f"/sys/fs/cgroup/*/{self.netns}"):
            _remove_cgroup(path)

    def _remove(self):
        self._down()
        shutil.rmtree(self.dir, ignore_errors=True)

    def boot(self):
        """Kills everything in the host and makes it anew: empty /run, no fabric, another boot id. Its disk stays."""
        self._down()
        self.boot_id += 1
        for forget in self.on_boot:
            forget()
        self._up()

    def enter(self, *argv):
        """The command line that runs argv inside the host."""
        return ["nsenter", "-t", str(self.pid), "--net", "--mount", "--uts", "--ipc", "--pid", "--", *[str(a) for a in argv]]

    def run(self, *argv, **kw):
        return run(*self.enter(*argv), **kw)

    def start(self, *argv, name=None, env=None):
        process = Process(self, argv, os.path.join(self.dir, f"{name or os.path.basename(str(argv[0]))}.log"), env)
        self.processes.append(process)
        return process

    def socket(self, family, kind, proto=0):
        """A socket of the host's network namespace, for this process to use."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/self/ns/net") as own, open(f"/run/netns/{self.netns}") as other:
            if libc.setns(other.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"setns {self.netns}")
            try:
                return socket.socket(family, kind, proto)
            finally:
                if libc.setns(own.fileno(), CLONE_NEWNET) != 0:
                    os._exit(70)  # nothing here may run on in the wrong namespace

    def story(self):
        """The ends of the logs of what runs or ran here, and what the daemon says of itself: for the report of a test that failed."""
        for log in sorted(glob.glob(os.path.join(self.dir, "*.log")), key=os.path.getmtime):
            lines = _tail(log, STORY_LINES)
            if lines:
                yield f"---- {self.name}: {os.path.basename(log)}"
                yield from lines
        for d in self.daemons:
            yield f"---- {self.name}: trestle status"
            try:
                yield from json.dumps(d.call("GET", "/v1/status", timeout=5), indent=None).splitlines()
            except (Failed, OSError, ValueError) as e:
                yield f"none: {e}"

    def path(self, inside):
        """A path of the host as seen from outside."""
        return f"/proc/{self.pid}/root{inside}"

    def links(self):
        return {l["ifname"]: l for l in json.loads(self.run("ip", "-j", "-d", "link").stdout)}


class Lab:
    """with Lab(hosts=3) as lab: lab.hosts[0].run("ping", ...)"""

    def __init__(self, hosts=2, mtu=1500, families=(4, 6)):
        self.prefix = f"tl{os.getpid()}x{Lab._count}"
        Lab._count += 1
        self.dir = os.path.join(BASE, self.prefix)
        self.switch = f"{self.prefix}-sw"
        self.hosts = []
        self._removals = []
        self._signals = {}
        self._wanted = (hosts, mtu, families)

    _count = 0
    opened = []

    def defer(self, removal, *args):
        self._removals.append((removal, args))

    def __enter__(self):
        self.open()
        return self

    def __exit__(self, *_):
        self.close()

    def open(self):
        if os.geteuid() != 0:
            raise Failed("the lab makes network namespaces: run it as root")
        # unittest runs no clean-up of its own after an interrupt.
        atexit.register(self.close)
        Lab.opened.append(self)
        try:
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._signals[signum] = signal.signal(signum, self._interrupted)
            os.makedirs(self.dir)
            with open(os.path.join(self.dir, "owner"), "w") as f:
                f.write(f"{os.getpid()} {start_time(os.getpid())}\n")
            self.defer(shutil.rmtree, self.dir, True)
            self._make_switch()
            count, mtu, families = self._wanted
            for number in range(1, count + 1):
                self.hosts.append(Host(self, number, mtu, families))
        except BaseException:
            self.close()
            raise
        return self

    def _interrupted(self, _signum, _frame):
        # Not SystemExit, which unittest would take for a test's failure and go on.
        raise KeyboardInterrupt

    def close(self):
        """Removes everything, last made first. A removal that fails does not keep the others from running; the first is raised."""
        atexit.unregister(self.close)
        if self in Lab.opened:
            Lab.opened.remove(self)
        for signum in self._signals:  # a second ^C must not stop the removal half way
            signal.signal(signum, signal.SIG_IGN)
        first = None
        while self._removals:
            removal, args = self._removals.pop()
            try:
                removal(*args)
            except Exception as e:
                print(f"lab: {e}", file=sys.stderr)
                first = first or e
        for signum, old in self._signals.items():
            signal.signal(signum, old)
        self._signals = {}
        if first:
            raise first

    def _make_switch(self):
        self.defer(run, "ip", "netns", "del", self.switch)
        run("ip", "netns", "add", self.switch)
        run("ip", "-n", self.switch, "link", "add", "sw", "type", "bridge", "mcast_snooping", "0")
        run("ip", "-n", self.switch, "link", "set", "sw", "up")
        # Frames only: what br_netfilter would make of them is not an underlay's business.
        self._nft("add table bridge cuts",
                  "add set bridge cuts pairs { typeof iifname . oifname; }",
                  "add chain bridge cuts forward { type filter hook forward priority 0; }",
                  "add chain bridge cuts loss",
                  "add rule bridge cuts forward iifname . oifname @pairs drop",
                  "add rule bridge cuts forward jump loss")

    def _nft(self, *commands):
        run("nsenter", f"--net=/run/netns/{self.switch}", "nft", "-f", "-", stdin="\n".join(commands) + "\n")

    def _pairs(self, a, b, one_way):
        pairs = [f'"{x.name}" . "{y.name}"' for x in a for y in b if x is not y]
        if not one_way:
            pairs += [f'"{y.name}" . "{x.name}"' for x in a for y in b if x is not y]
        return ", ".join(pairs)

    def cut(self, a, b, one_way=False):
        """Drops every frame between the hosts a and the hosts b; with one_way only those from a to b."""
        self._nft(f"add element bridge cuts pairs {{ {self._pairs(a, b, one_way)} }}")

    def heal(self):
        """Ends all cuts and losses."""
        self._nft("flush set bridge cuts pairs", "flush chain bridge cuts loss")

    def lose(self, percent, hosts=None):
        """Every host, or each of these in both directions, loses so many of its frames, at random."""
        if hosts is None:
            where = [""]
        else:
            names = ", ".join(f'"{h.name}"' for h in hosts)
            where = [f"iifname {{ {names} }} ", f"oifname {{ {names} }} "]
        self._nft("flush chain bridge cuts loss",
                  *[f"add rule bridge cuts loss {w}numgen random mod 100 < {percent} drop" for w in where])


def stories():
    """Of every host of every lab that is open now."""
    for lab in list(Lab.opened):
        for host in lab.hosts:
            yield from host.story()


def program(name, main):
    """Runs main() as a program: what failed is told in one line, and by then every lab has removed what it made."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # unwinds like ^C
    try:
        main()
    except (Failed, OSError, RuntimeError) as e:
        sys.exit(f"{name}: failed: {e}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted; everything is removed")


def _tail(path, count):
    try:
        with open(path, "rb") as f:
            f.seek(max(0, os.path.getsize(path) - count * 400))
            return f.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []


def _remove_cgroup(path):
    """Removes a cgroup and those in it; their processes are dead but may take a moment to leave."""
    for directory, _, _ in os.walk(path, topdown=False):
        wait_for(lambda d=directory: _rmdir(d), 10, f"removal of cgroup {directory}")


def _rmdir(path):
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    return True


def clean(out=print):
    """Removes what dead runs left. A run is dead when the process that owned it is."""
    for directory in sorted(glob.glob(f"{BASE}/tl*")):
        prefix = os.path.basename(directory)
        try:
            with open(os.path.join(directory, "owner")) as f:
                pid, started = f.read().split()
        except (OSError, ValueError):
            if time.time() - os.stat(directory).st_mtime < 60:
                continue  # being made at this moment
            pid, started = "0", "none"
        if str(start_time(pid)) == started:
            continue
        out(f"removing what run {prefix} left")
        _clean_run(prefix, directory)


def _clean_run(prefix, directory):
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as f:
                words = f.read().split(b"\0")
        except OSError:
            continue
        if f"{prefix}-init".encode() in words:
            kill(int(path.split("/")[2]), signal.SIGKILL)
    for name in leaks.machine(prefix)["namespaces"]:
        run("ip", "netns", "del", name, check=False)
    for path in glob.glob(f"/sys/fs/cgroup/*/{prefix}-*"):
        _remove_cgroup(path)
    shutil.rmtree(directory, ignore_errors=True)

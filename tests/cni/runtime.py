"""A CNI runtime, as far as tests need one: runs the plugin's binary in a host with an environment and a configuration.

Containers are network namespaces of the host. Nothing is added to what the plugin gets and nothing taken from what it prints.
"""
import ipaddress
import json
import os
import subprocess
import unittest

from tests.lab import BUILD, Daemon, Failed, Lab, wait_for
from tests.lab.shell import children

BINARY = os.path.join(BUILD, "trestle-cni")
VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


class Outcome:
    """What one run of the plugin came to."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err
        self.json = json.loads(out) if out.strip() else None
        self.code = self.json.get("code") if status else None
        self.msg = self.json.get("msg", "") if status else ""
        self.details = self.json.get("details", "") if status else ""

    def __repr__(self):
        return f"status {self.status}, stdout {self.out!r}, stderr {self.err!r}"

    def addresses(self):
        """Of the result, without lengths; any version."""
        if "ips" in self.json:
            return [ip["address"].split("/")[0] for ip in self.json["ips"]]
        return [self.json[k]["ip"].split("/")[0] for k in ("ip4", "ip6") if k in self.json]


class Sandbox:
    """A container: a namespace of the host with lo up."""

    def __init__(self, host, name):
        self.host, self.name = host, name
        self.path = f"/run/netns/{name}"
        host.run("ip", "netns", "add", name)
        host.run("ip", "-n", name, "link", "set", "lo", "up")

    def remove(self):
        self.host.run("ip", "netns", "del", self.name, check=False)

    def run(self, *argv, **kw):
        return self.host.run("ip", "netns", "exec", self.name, *argv, **kw)

    def ip(self, *words, check=True):
        return self.host.run("ip", "-n", self.name, *words, check=check)

    def links(self):
        return {l["ifname"]: l for l in json.loads(self.ip("-j", "-d", "link").stdout)}

    def addresses(self, ifname="eth0"):
        """Global ones, with lengths."""
        links = json.loads(self.ip("-j", "addr", "show", "dev", ifname).stdout)
        return [f"{a['local']}/{a['prefixlen']}" for l in links for a in l.get("addr_info", []) if a["scope"] == "global"]

    def ping(self, address, check=True):
        v6 = ["-6"] if ipaddress.ip_address(address).version == 6 else []
        return self.run("ping", *v6, "-c", 1, "-W", 1, address, check=check)


class Cni:
    """The plugin in one host, with the settings that most calls share."""

    def __init__(self, daemon, binary=BINARY):
        self.daemon, self.host, self.binary = daemon, daemon.host, binary

    MODE = "l2"

    def config(self, version="1.1.0", name="net1", **more):
        return {k: v for k, v in {"cniVersion": version, "name": name, "type": "trestle-cni", "subnet": "10.9.0.0/24", "mode": self.MODE,
                                  **more}.items() if v is not None}

    def environment(self, verb, container, sandbox, ifname, **more):
        env = {"CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_NETNS": getattr(sandbox, "path", sandbox), "CNI_IFNAME": ifname,
               "CNI_PATH": f"{self.host.dir}/bin:/usr/lib/cni", "PATH": os.environ["PATH"], **more}
        return {k: v for k, v in env.items() if v is not None}

    def argv(self, env, binary=None):
        return self.host.enter("env", "-i", *[f"{k}={v}" for k, v in env.items()], binary or self.binary)

    def raw(self, env, stdin, binary=None, timeout=300):
        """stdin: text, or a file for the program to have as such."""
        words = {"input": stdin} if isinstance(stdin, (str, bytes)) else {"stdin": stdin}
        done = subprocess.run(self.argv(env, binary), capture_output=True, timeout=timeout,
                              **{k: v.encode() if isinstance(v, str) else v for k, v in words.items()})
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    def call(self, verb, container="c1", sandbox="/run/netns/t", ifname="eth0", config=None, binary=None, **env):
        config = self.config() if config is None else config
        stdin = config if isinstance(config, str) else json.dumps(config)
        return self.raw(self.environment(verb, container, sandbox, ifname, **env), stdin, binary)

    def start(self, verb, container, sandbox, ifname="eth0", config=None):
        """Not waited for: a subprocess.Popen. finish() gives its outcome."""
        p = subprocess.Popen(self.argv(self.environment(verb, container, sandbox, ifname)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, start_new_session=True)
        p.stdin.write(json.dumps(config or self.config()).encode())
        p.stdin.close()
        p.stdin = None
        return p

    @staticmethod
    def end(p):
        """Of one that was killed: whatever it was started through ends as well."""
        p.communicate(timeout=60)

    @staticmethod
    def finish(p):
        out, err = p.communicate(timeout=300)
        return Outcome(p.returncode, out.decode(), err.decode())


def descendants(pid):
    own = children(pid)
    return own + [d for p in own for d in descendants(p)]


class Runner:
    """tests/load/cnirun in a host: many plugins at once, and how long each took, without this program's own weight."""

    def __init__(self, host, plugin, config, dirs):
        self.host, self.plugin = host, plugin
        path = f"{host.dir}/{os.path.basename(plugin)}-{config.get('name', '')}.json"
        with open(path, "w") as f:
            json.dump(config, f)
        self.process = subprocess.Popen(host.enter(os.path.join(BUILD, "tests/load/cnirun"), plugin, path, dirs), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, start_new_session=True)

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)

    def run(self, verb, operations):
        """operations: [(container, namespace, interface)], all at once. (ms of all, [ms of each], CPU ms of all)"""
        lines = [str(len(operations))] + [f"{verb} {c} /run/netns/{n} {i}" for c, n, i in operations]
        self.process.stdin.write("\n".join(lines) + "\n")
        self.process.stdin.flush()
        total = int(self._line())
        answers = [self._line().split(maxsplit=3) for _ in operations]
        failed = [a for a in answers if a[0] != "0"]
        if failed:
            raise Failed(f"{self.plugin}: {verb}: {len(failed)} of {len(operations)} failed: {failed[0]}")
        return total / 1e6, [int(a[1]) / 1e6 for a in answers], sum(int(a[2]) for a in answers) / 1000

    def _line(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"{self.plugin}: the runner ended")
        return line.strip()

    def namespaces(self, names):
        self.host.run("ip", "-b", "-", stdin="".join(f"netns add {n}\n" for n in names), timeout=300)


class PluginTest(unittest.TestCase):
    """One host with a daemon for all cases of a class; each case cleans up its own containers."""

    HOSTS = 1
    OPTIONS = ()

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab(hosts=cls.HOSTS).open()
        cls.addClassCleanup(cls.lab.close)
        cls.daemons = [Daemon(h, *cls.OPTIONS) for h in cls.lab.hosts]
        if cls.HOSTS > 1:
            Daemon.cluster(cls.daemons)
        cls.daemon, cls.host = cls.daemons[0], cls.lab.hosts[0]
        cls.cni = Cni(cls.daemon)
        os.makedirs(f"{cls.host.dir}/bin", exist_ok=True)
        cls.count = 0

    def know_network(self, name):
        """Before another host uses it: one that has not heard of it would make it anew."""
        for d in self.daemons:
            wait_for(lambda d=d: d.call("GET", "/v1/networks/" + name), 5, f"{d.host.name} knows network {name}")

    def sandbox(self, host=None):
        type(self).count += 1
        s = Sandbox(host or self.host, f"t{self.count}")
        self.addCleanup(s.remove)
        return s

    def script(self, name, text):
        """A plugin of our own in CNI_PATH."""
        path = f"{self.host.dir}/bin/{name}"
        with open(path, "w") as f:
            f.write("#!/bin/sh\n" + text)
        os.chmod(path, 0o755)
        self.addCleanup(lambda: os.path.exists(path) and os.unlink(path))
        return path

    def add(self, container, sandbox, config=None, cni=None, **more):
        """An ADD that works, and is undone with the case."""
        cni = cni or self.cni
        done = cni.call("ADD", container, sandbox, config=config, **more)
        self.assertEqual(done.status, 0, done)
        self.addCleanup(cni.call, "DEL", container, sandbox, config=config, **more)
        return done

    def refused(self, done, code, *fragments):
        self.assertEqual((done.status, done.code), (1, code), done)
        self.assertEqual(len(done.out.strip().splitlines()), 1, done)
        for fragment in fragments:
            self.assertIn(fragment, done.msg + " " + done.details)

    def quiet(self, done):
        """Success without a word."""
        self.assertEqual((done.status, done.out), (0, ""), done)

    def leases(self, daemon=None):
        """Of containers: neither a pool's gateway is one, nor the host's own end of a network."""
        daemon = daemon or self.daemon
        own = [ipaddress.ip_address(a) for n in daemon.call("GET", "/v1/networks")["networks"] for a in n["host_addresses"]]
        count = {p["pool"]: p["leases"] - 1 - sum(a in ipaddress.ip_network(p["pool"]) for a in own)
                 for p in daemon.call("GET", "/v1/ipam")["pools"]}
        return {pool: n for pool, n in count.items() if n > 0}

    def pools(self):
        return sorted(p["pool"] for p in self.daemon.call("GET", "/v1/ipam")["pools"])

    def attached(self, daemon=None):
        return {e["container_id"]: e for e in (daemon or self.daemon).local_endpoints()}

    def gone(self, sandbox, ifname="eth0"):
        """The pair is deleted behind the answer, in groups."""
        wait_for(lambda: ifname not in sandbox.links(), 3, f"{ifname} gone from {sandbox.name}")

    def nothing_left(self, before):
        """As before(): attachments, leases, pairs in the fabric."""
        wait_for(lambda: self.state() == before, 5, lambda: f"as before: {before}; now {self.state()}")

    def state(self):
        fabric = self.host.run("ip", "netns", "exec", "trestle", "ip", "-j", "link", check=False).stdout or "[]"
        mine = json.loads(self.host.run("ip", "-j", "link").stdout)
        ends = {l.get("link_index") for l in mine if l["ifname"].startswith("th")}  # of the host itself: they may stay a little longer
        links = [l for l in json.loads(fabric) if l["ifindex"] not in ends] + mine
        pairs = sorted(l["ifname"] for l in links if l["ifname"].startswith("tv") and "UP" in l["flags"])
        return sorted(self.attached()), self.leases(), pairs

    def block(self, sandbox, ifname="eth0"):
        """An interface of somebody else; its ifindex."""
        sandbox.ip("link", "add", ifname, "type", "veth", "peer", "name", "other0")
        return sandbox.links()[ifname]["ifindex"]

    def plugin_of(self, started):
        """The pid of a plugin that was start()ed and waits for the daemon's answer."""
        def waiting():
            for pid in [started.pid, *descendants(started.pid)]:
                with open(f"/proc/{pid}/comm") as comm, open(f"/proc/{pid}/stat") as stat:
                    if comm.read().strip() != "trestle-cni" or stat.read().rsplit(")", 1)[1].split()[0] != "S":
                        continue
                if any(os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:") for fd in os.listdir(f"/proc/{pid}/fd")):
                    return pid
            return None
        return wait_for(waiting, 5, "the plugin waits for the daemon", every=0.01)

    def freeze(self):
        """The daemon takes connections and does nothing until thaw."""
        self.daemon.process.pause()

    def thaw(self):
        self.daemon.process.resume()

"""Programs of others that run the plugin: the Go library that the runtimes link (through cnitool), and containerd by `ctr run --cni`.

The plugin has its installed name and place; the plugins behind it in a list are Debian's. What each client calls is in its own words,
so these cases look at what came of it: in the container, at the daemon, and that nothing is left.
"""
import json
import os
import shutil
import unittest

from tests.cni.runtime import BINARY, PluginTest
from tests.lab import BUILD, ROOT, run, wait_for

DEBIAN = "/usr/lib/cni"
TOOL = os.path.join(BUILD, "tests/cni/cnitool")
LIBRARY = "/usr/share/gocode"
BUSYBOX = "/bin/busybox"


def install(host):
    """The plugin where a runtime looks for it, in the host's own /opt."""
    host.run("mount", "-t", "tmpfs", "tmpfs", "/opt")
    host.run("mkdir", "-p", "/opt/cni/bin")
    host.run("cp", BINARY, "/opt/cni/bin/trestle")


def conflist(name, *plugins, version="1.0.0"):
    return {"cniVersion": version, "name": name, "plugins": list(plugins)}


@unittest.skipUnless(shutil.which("go") and os.path.isdir(f"{LIBRARY}/src/github.com/containernetworking/cni"),
                     "needs the packages golang-go and golang-github-appc-cni-dev")
class Cnitool(PluginTest):
    """C76, C77 by the library itself."""
    HOSTS = 2

    @classmethod
    def setUpClass(cls):
        os.makedirs(os.path.dirname(TOOL), exist_ok=True)
        run("go", "build", "-o", TOOL, os.path.join(ROOT, "tests/cni/cnitool/main.go"), timeout=300,
            env={**os.environ, "GO111MODULE": "off", "GOPATH": LIBRARY, "GOCACHE": os.path.join(BUILD, "go"), "GOFLAGS": ""})
        super().setUpClass()
        install(cls.host)
        cls.dir = f"{cls.host.dir}/cnitool"
        os.makedirs(f"{cls.dir}/net.d")

    def network(self, name, *plugins, version="1.0.0"):
        with open(f"{self.dir}/net.d/{name}.conflist", "w") as f:
            json.dump(conflist(name, *plugins, version=version), f)
        return name

    def tool(self, verb, network, sandbox, check=True, **env):
        words = [f"{k}={v}" for k, v in {"NETCONFPATH": f"{self.dir}/net.d", "CNI_PATH": f"/opt/cni/bin:{DEBIAN}", "CNI_CACHE": f"{self.dir}/cache",
                                         **env}.items()]
        return self.host.run("env", *words, TOOL, verb, network, sandbox.path, check=check)

    def test_c76_every_verb(self):
        s, before = self.sandbox(), self.state()
        own = {"type": "trestle", "subnet": "10.76.0.0/24"}
        name, newest = self.network("all", own), self.network("all11", {**own, "network": "all"}, version="1.1.0")
        self.tool("version", name, s)
        result = json.loads(self.tool("add", name, s).stdout)
        self.assertEqual(result["cniVersion"], "1.0.0")
        self.assertEqual(s.addresses(), [result["ips"][0]["address"]])
        self.tool("check", name, s)
        self.tool("status", newest, s)
        s.ip("addr", "flush", "dev", "eth0")
        differs = self.tool("check", name, s, check=False)
        self.assertEqual(differs.returncode, 1)
        self.assertIn("has lost its address", differs.stderr)
        self.tool("del", name, s)
        self.tool("del", name, s)  # the cached result is gone by now
        self.nothing_left(before)
        self.assertEqual(os.listdir(f"{self.dir}/cache/results"), [])

    def test_c76_gc_frees_what_was_lost(self):
        s, before = self.sandbox(), self.state()
        self.network("lost", {"type": "trestle", "subnet": "10.77.0.0/24"})
        self.tool("add", "lost", s)
        self.tool("add", "lost", s, CNI_IFNAME="eth1")
        self.network("lost", {"type": "trestle", "subnet": "10.77.0.0/24"}, version="1.1.0")
        self.tool("gc", "lost", s)
        self.gone(s)
        self.gone(s, "eth1")
        self.nothing_left(before)

    def serve(self, sandbox, text):
        """Something to be reached at port 80."""
        directory = f"{self.dir}/www-{sandbox.name}"
        os.mkdir(directory)
        with open(f"{directory}/index.html", "w") as f:
            f.write(text)
        server = self.host.start("ip", "netns", "exec", sandbox.name, "busybox", "httpd", "-f", "-p", "80", "-h", directory, name=sandbox.name)
        self.addCleanup(server.end)

    def fetch(self, where, host):
        program = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=2).read().decode(), end='')"
        return host.run("python3", "-c", program, f"http://{where}/").stdout

    CAPABILITIES = {"ips": ["10.78.0.78"], "mac": "02:00:00:00:00:78",
                    "portMappings": [{"hostPort": 8078, "containerPort": 80, "protocol": "tcp"}],
                    "bandwidth": {"ingressRate": 8000000, "ingressBurst": 800000}}

    def test_c77_a_list_with_what_the_runtime_gives(self):
        s, before = self.sandbox(), self.state()
        name = self.network("chain", {"type": "trestle", "subnet": "10.78.0.0/24", "capabilities": {"ips": True, "mac": True}},
                            {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}},
                            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
                            {"type": "bandwidth", "capabilities": {"bandwidth": True}})
        caps = {"CAP_ARGS": json.dumps(self.CAPABILITIES)}
        result = json.loads(self.tool("add", name, s, CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web", **caps).stdout)
        self.assertEqual(result["ips"][0]["address"], "10.78.0.78/32")
        self.assertEqual(s.links()["eth0"]["address"], "02:00:00:00:00:78")
        self.assertIn("shop/web", [e["name"] for e in self.daemon.local_endpoints()])
        self.assertEqual(s.run("cat", "/proc/sys/net/ipv4/conf/eth0/arp_filter").stdout.strip(), "1")
        ours = next(i["name"] for i in result["interfaces"] if not i.get("sandbox"))
        self.assertIn("rate 8Mbit", self.host.run("tc", "qdisc", "show", "dev", ours).stdout)
        self.serve(s, "hello")
        for where in ("10.78.0.78", f"{self.host.address}:8078"):
            wait_for(lambda w=where: self.fetch(w, self.host) == "hello", 5, f"{where} from the host itself")
        wait_for(lambda: self.fetch(f"{self.host.address}:8078", self.lab.hosts[1]) == "hello", 5, "the port from another host")
        # No check: portmap 1.1.1 looks for an IPv6 chain that it did not make.
        self.tool("del", name, s, **caps)
        self.assertNotIn("10.78.0.78", self.host.run("iptables-save", "-t", "nat").stdout)
        self.nothing_left(before)

    def test_the_daemons_words_reach_the_user(self):
        name = self.network("wrong", {"type": "trestle", "subnet": "10.79.0.0/33"})
        done = self.tool("add", name, self.sandbox(), check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("subnet", done.stderr)


CONFIG = """version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
"""
SOCKET = "/run/containerd/containerd.sock"


@unittest.skipUnless(shutil.which("ctr") and shutil.which("containerd") and shutil.which("runc") and os.path.exists(BUSYBOX),
                     "needs the packages containerd, runc and busybox-static")
class Ctr(PluginTest):
    HOSTS = 2
    OPTIONS = ("--lease-grace", 3)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for host in cls.lab.hosts:
            install(host)
            host.run("mount", "-t", "tmpfs", "tmpfs", "/etc/cni")
            host.run("mkdir", "-p", "/etc/cni/net.d")
            cls.network(host)
            cls.root(host)
            with open(f"{host.dir}/containerd.toml", "w") as f:
                f.write(CONFIG)
            host.start("containerd", "--config", f"{host.dir}/containerd.toml", "--root", f"{host.dir}/containerd", "--state", "/run/containerd",
                       "--address", SOCKET)
            wait_for(lambda h=host: cls.ctr(h, "version"), 20, "containerd answers")

    @staticmethod
    def network(host):
        path = host.path("/etc/cni/net.d/10-app.conflist")
        with open(path, "w") as f:
            json.dump(conflist("app", {"type": "trestle", "subnet": "10.80.0.0/24"}), f)

    @staticmethod
    def root(host):
        for name in ("bin", "proc", "sys", "dev", "etc", "tmp", "run"):
            os.makedirs(f"{host.dir}/root/{name}")
        shutil.copy(BUSYBOX, f"{host.dir}/root/bin/busybox")
        for name in ("sh", "sleep", "ip", "ping"):
            os.symlink("busybox", f"{host.dir}/root/bin/{name}")

    @staticmethod
    def ctr(host, *argv, check=True):
        return host.run("ctr", "-a", SOCKET, *argv, check=check, timeout=60)

    def start(self, host, name, *options, command=("/bin/sleep", "1000"), check=True):
        return self.ctr(host, "run", "--cni", "--cgroup", f"/{host.netns}/{name}", *options, "--rootfs", f"{host.dir}/root", name,
                        *command, check=check)

    def end(self, host, name):
        self.ctr(host, "task", "rm", "-f", name, check=False)
        self.ctr(host, "container", "rm", name, check=False)

    def address(self, host, name):
        """ctr may lose what a short command says."""
        words = lambda: self.ctr(host, "task", "exec", "--exec-id", "look", name, "/bin/ip", "-o", "-4", "addr", "show", "dev", "eth0").stdout.split()
        return wait_for(lambda: words()[3], 10, f"address of {name}").split("/")[0]

    def test_a_container_that_ends(self):
        """ctr says DEL with an empty CNI_NETNS when the task has ended."""
        before = self.state()
        short = lambda: self.start(self.host, "short", "--rm", command=("/bin/ip", "-o", "-4", "addr", "show", "dev", "eth0"))
        wait_for(lambda: "10.80.0." in short().stdout, 10, "what the container said of its address")  # ctr may lose it
        self.nothing_left(before)

    def test_containers_of_two_hosts(self):
        """ctr never says DEL for what it started with -d: the ended container is collected."""
        before = self.state()
        for host in self.lab.hosts:
            self.start(host, "web", "-d")
            self.addCleanup(self.end, host, "web")
            self.know_network("app")
        one, two = (self.address(h, "web") for h in self.lab.hosts)
        self.assertNotEqual(one, two)
        wait_for(lambda: self.ctr(self.host, "task", "exec", "--exec-id", "ping", "web", "/bin/ping", "-c", "1", "-W", "1", two), 5, "one reaches two")
        self.assertEqual({e["container_id"] for e in self.daemon.local_endpoints()}, {"default-web"})
        self.end(self.host, "web")
        wait_for(lambda: self.state() == before, 15, "collected")

    def test_an_add_that_fails(self):
        """ctr says DEL, leaves task and container behind, and shows what the daemon said."""
        before = self.state()
        self.daemon.stop()
        failed = self.start(self.host, "late", "-d", check=False)
        self.end(self.host, "late")
        self.daemon.start()
        self.assertNotEqual(failed.returncode, 0)
        self.assertIn("no daemon answers", failed.stderr)
        self.nothing_left(before)


if __name__ == "__main__":
    unittest.main()

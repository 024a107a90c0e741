"""The Go library that the runtimes link runs the plugin, through cnitool.

The plugin has its installed name and place; the plugins behind it in a list are Debian's. What the library calls is in its own words,
so these cases look at what came of it: in the container, at the daemon, and that nothing is left.
"""
import json
import os
import shutil
import unittest

from tests.cni.runtime import BINARY, PluginTest
from tests.lab import BUILD, ROOT, run, wait_for
from tests.lab.podman import own_cni_dirs

DEBIAN = "/usr/lib/cni"
TOOL = os.path.join(BUILD, "tests/cni/cnitool")
LIBRARY = "/usr/share/gocode"


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
        own_cni_dirs(cls.host)
        cls.host.run("cp", BINARY, "/opt/cni/bin/trestle")
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


if __name__ == "__main__":
    unittest.main()

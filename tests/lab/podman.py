"""podman in a host, with Debian's defaults: CNI as its network backend, plugins in /opt/cni/bin and /usr/lib/cni, networks in
/etc/cni/net.d. These and its storage are the host's own, by mounts that only the host sees."""
import json
import os

from .engine import IMAGE, image_path

OPTIONS = """[network]
network_backend = "cni"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"""


def own_cni_dirs(host):
    """Where runtimes look by default, empty, and the host's own."""
    for path in ("/opt", "/etc/cni", "/var/lib/cni"):
        host.run("mkdir", "-p", path)
        host.run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", path)
    host.run("mkdir", "-p", "/opt/cni/bin", "/etc/cni/net.d")


class Podman:
    def __init__(self, host):
        self.host, self.dir = host, f"{host.dir}/podman"
        self.settings = f"{self.dir}/containers.conf"
        os.makedirs(self.dir)
        with open(self.settings, "w") as f:
            f.write(OPTIONS)
        own_cni_dirs(host)

    def write(self, path, text):
        with open(self.host.path(path), "w") as f:
            f.write(text)

    def network(self, name, **more):
        """A network of ours, as somebody would write it by hand."""
        config = {"cniVersion": "0.4.0", "name": name, "plugins": [
            {"type": "trestle", "capabilities": {"aliases": True}, **more}, {"type": "portmap", "capabilities": {"portMappings": True}}]}
        self.write(f"/etc/cni/net.d/{name}.conflist", json.dumps(config))

    def __call__(self, *argv, check=True):
        return self.host.run("env", f"CONTAINERS_CONF={self.settings}", "podman", "--root", f"{self.dir}/store", "--runroot",
                             "/run/containers", "--storage-driver", "vfs", "--runtime", "runc", *argv, check=check, timeout=60)

    def load_image(self):
        self("import", image_path(self.host.lab), IMAGE)

    def run(self, name, network, *options, command=("sleep", "100000"), check=True):
        return self("run", "-d", "--name", name, "--network", network, "--stop-timeout", "0", "--cgroup-parent", f"/{self.host.netns}",
                    *options, IMAGE, *command, check=check)

    def exec(self, name, *argv, check=True):
        return self("exec", name, *argv, check=check)

    def address(self, name, ifname="eth0"):
        for line in self.exec(name, "ip", "-o", "-4", "addr", "show", "dev", ifname).stdout.splitlines():
            return line.split()[3].split("/")[0]
        return None

    def ping(self, name, address):
        return self.exec(name, "ping", "-c", "1", "-W", "1", address)

    def remove_all(self):
        self("rm", "-a", "-f", "-t", "0", check=False)

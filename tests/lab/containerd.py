"""containerd in a host, driven by its own `ctr`; CNI's directories are the host's own."""
import os
import tarfile

from .engine import CONFIG, CONTAINERD, image_path
from .podman import own_cni_dirs
from .shell import wait_for


class Containerd:
    def __init__(self, host):
        self.host = host
        own_cni_dirs(host)
        self.root = f"{host.dir}/rootfs"
        with tarfile.open(image_path(host.lab)) as tar:
            tar.extractall(self.root)
        config = f"{host.dir}/containerd.toml"
        with open(config, "w") as f:
            f.write(CONFIG)
        host.start("containerd", "--config", config, "--root", f"{host.dir}/containerd", "--state", "/run/containerd", "--address", CONTAINERD)
        wait_for(lambda: os.path.exists(host.path(CONTAINERD)), 20, "containerd")

    def ctr(self, *argv, check=True):
        return self.host.run("ctr", "--address", CONTAINERD, *argv, check=check, timeout=60)

    def run(self, name, *options, command=("/bin/sleep", "100000"), check=True):
        return self.ctr("run", "--cni", "--cgroup", f"/{self.host.netns}/{name}", *options, "--rootfs", self.root, name, *command, check=check)

    def exec(self, name, *argv, check=True):
        return self.ctr("task", "exec", "--exec-id", "x", name, *argv, check=check)

    def address(self, name, ifname="eth0"):
        """ctr may lose what a short command says."""
        def said():
            words = self.exec(name, "/bin/ip", "-o", "-4", "addr", "show", "dev", ifname).stdout.split()
            return words[3].split("/")[0] if len(words) > 3 else None
        return wait_for(said, 10, f"address of {name}")

    def ping(self, name, address):
        return self.exec(name, "/bin/ping", "-c", "1", "-W", "1", address)

    def remove(self, name):
        self.ctr("task", "rm", "-f", name, check=False)
        self.ctr("container", "rm", name, check=False)

"""A Docker engine (20.10, Debian's) in a host: its own containerd, data, /run and cgroup.

containerd is a process of its own, since a dockerd that starts one does not find it again after kill -9. Sockets are reached through
the host's root, so `docker` and the API run outside it and cost no nsenter.
"""
import io
import json
import os
import signal
import tarfile

from .shell import Failed, ask, run, wait_for

SOCKET = "/run/docker.sock"
CONTAINERD = "/run/containerd/containerd.sock"
DOCKER = "/usr/bin/docker"
IMAGE = "lab"
APPLETS = ("sh sleep ping nc ip ifconfig cat dd md5sum sha256sum wget httpd hostname ls mv echo true false head tail arping nslookup "
           "sync mkdir rm wc grep ps kill seq traceroute env test stat").split()
CONFIG = """version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
"""


def image_tar():
    """A root file system of one static busybox."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "www"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        tar.add("/bin/busybox", "bin/busybox")
        for name in APPLETS:
            info = tarfile.TarInfo(f"bin/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
        hello = b"hello from a container\n"
        info = tarfile.TarInfo("www/index.html")
        info.size = len(hello)
        tar.addfile(info, io.BytesIO(hello))
    return out.getvalue()


def image_path(lab):
    """image_tar() as a file; made once for a lab."""
    path = os.path.join(lab.dir, "image.tar")
    if not os.path.exists(path):
        with open(path, "wb") as f:
            f.write(image_tar())
    return path


class Engine:
    def __init__(self, host, *options, start=True):
        self.host, self.options = host, [str(o) for o in options]
        self.dockerd = self.containerd = None
        self.data = os.path.join(host.dir, "docker")
        self.config = os.path.join(host.dir, "containerd.toml")
        with open(self.config, "w") as f:
            f.write(CONFIG)
        host.on_boot.append(self._forget)
        if start:
            self.start()
            self.wait_ready()
            self.load_image()

    def _forget(self):
        self.dockerd = self.containerd = None

    def start(self):
        """Starts what does not run; wait_ready() tells when it answers."""
        if not self.containerd:
            self.containerd = self.host.start("containerd", "--config", self.config, "--root", self.data + "-containerd", "--state",
                                              "/run/containerd", "--address", CONTAINERD)
            wait_for(lambda: os.path.exists(self.host.path(CONTAINERD)), 20, "containerd")
        # What a kill -9 leaves would make the next start refuse.
        self.host.run("rm", "-f", "/run/docker.pid", SOCKET)
        self.dockerd = self.host.start(
            "dockerd", "-H", f"unix://{SOCKET}", "--containerd", CONTAINERD, "--data-root", self.data, "--exec-root", "/run/docker",
            "--pidfile", "/run/docker.pid", "--cgroup-parent", f"/{self.host.netns}", "--storage-driver", "overlay2",
            "--userland-proxy=false", *self.options)

    def wait_ready(self, timeout=60):
        def ready():
            if not self.dockerd.alive():
                raise RuntimeError(f"dockerd on {self.host.name} ended: {self.dockerd.tail()}")
            return self.api("GET", "/_ping") is not None
        wait_for(ready, timeout, f"dockerd on {self.host.name} answers", every=0.1)

    def load_image(self):
        self.docker("import", image_path(self.host.lab), IMAGE)

    def alive(self):
        return self.dockerd is not None and self.dockerd.alive()

    def end(self, signum=signal.SIGTERM, timeout=60):
        """Ends dockerd, not containerd."""
        process, self.dockerd = self.dockerd, None
        process.end(signum, timeout)

    def docker(self, *argv, check=True, timeout=120):
        """A docker command; its output without the last line end, or CompletedProcess with check=False."""
        env = {**os.environ, "DOCKER_CONFIG": os.path.join(self.host.dir, "docker-cli")}
        done = run(DOCKER, "-H", f"unix://{self.host.path(SOCKET)}", *argv, check=check, timeout=timeout, env=env)
        return done.stdout.strip() if check else done

    def api(self, method, path, body=None, timeout=60):
        """One call of the engine's API; the decoded answer, or the text when it is none. Failed with the engine's words."""
        status, text = ask(self.host.path(SOCKET), method, path, body, timeout)
        if status >= 400:
            raise Failed(f"{method} {path}: {status}: {text}")
        return json.loads(text) if text.startswith(("{", "[")) else text

    def run(self, name, network, *options, command=("sleep", "100000")):
        """docker run -d; the container has no stop signal handler, so it must not wait for one: --stop-timeout 0 kills it at once."""
        return self.docker("run", "-d", "--name", name, "--network", network, "--stop-timeout", "0", *options, IMAGE, *command)

    def exec(self, name, *argv, check=True, timeout=60):
        return self.docker("exec", name, *argv, check=check, timeout=timeout)

    def inspect(self, name):
        return self.api("GET", f"/containers/{name}/json")

    def address(self, name, network):
        return self.inspect(name)["NetworkSettings"]["Networks"][network]["IPAddress"]

    def remove_all(self):
        """Every container, then every network of ours. One after the other: engines of 20.10 miscount the endpoints of a network when
        many end at once, and then refuse to remove it ("has active endpoints") until they are restarted."""
        for container in self.api("GET", "/containers/json?all=1"):
            self.api("DELETE", f"/containers/{container['Id']}?force=1&v=1")
        for network in self.api("GET", "/networks"):
            if network["Driver"] == "trestle":
                self.docker("network", "rm", network["Id"])

    def ping(self, name, address, count=1, deadline=1):
        return self.exec(name, "ping", "-q", "-c", str(count), "-W", str(deadline), address, check=False).returncode == 0

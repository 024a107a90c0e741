"""`make demo`: the main job on real engines, told so that a newcomer can repeat it by hand.

Four hosts (network namespaces on this machine) with a trestled in each, a Docker engine in three and podman in the fourth; one
network, a container on each host. The lines that begin with "h1#" are the commands as one would type them on that host. Exits 0 after
"demo: ok", with nothing left behind.
"""
import itertools
import shlex
import time

from tests.lab import Daemon, Engine, Failed, Lab, leaks, program, wait_for
from tests.lab.engine import IMAGE
from tests.lab.podman import Podman

NETWORK = "docker network create -d trestle --ipam-driver trestle --subnet 10.9.0.0/24 -o trestle.network=app app"
CNI = "trestle cni install --network app"
MEGABYTES = 100


def say(text=""):
    print(text, flush=True)


def indent(text):
    for line in text.rstrip().splitlines():
        say("    " + line)


class Demo:
    def __init__(self, lab):
        self.lab = lab
        self.engines = [Engine(h, start=False) for h in lab.hosts[:-1]]
        self.podman = Podman(lab.hosts[-1])
        self.daemons = [Daemon(h, start=False) for h in lab.hosts]

    def type(self, number, command, quiet=False):
        """Types a command on a host, as a person would, and shows what it says."""
        say(f"{self.lab.hosts[number].name}# {command}")
        words = shlex.split(command)
        if words[0] == "docker":
            out = self.engines[number].docker(*words[1:])
        else:
            out = self.daemons[number].text(*words[1:])
        if not quiet:
            indent(out)
        return out

    def cluster(self):
        say("Four hosts with a trestled, three with a Docker engine. The first trestled needs nothing, the others a token of it.")
        for e in self.engines:
            e.start()
        for d in self.daemons:
            d.start(wait=False)
        for d, h in zip(self.daemons, self.lab.hosts):
            d.wait_ready()
            say(f"{h.name}# trestled --listen {h.address} &")
        token = self.type(0, "trestle token", quiet=True).strip()
        for number in range(1, len(self.daemons)):
            say(f"{self.lab.hosts[number].name}# trestle join {token[:18]}...")
            indent(self.daemons[number].text("join", token))
        Daemon.wait_members(self.daemons)
        for e in self.engines:
            e.wait_ready()
            e.load_image()

    def containers(self):
        say("\nOne network: the same command for every engine, and a container on each. (The image is a busybox named `lab`.)")
        for number in range(len(self.engines)):
            self.type(number, NETWORK, quiet=True)
        for number in range(len(self.engines)):
            self.type(number, f"docker run -d --name c{number + 1} --network app --stop-timeout 0 {IMAGE} sleep 100000", quiet=True)
        self.addresses = [e.address(f"c{n + 1}", "app") for n, e in enumerate(self.engines)]
        if len(set(self.addresses)) != len(self.addresses):
            raise Failed(f"an address was given twice: {self.addresses}")
        indent("\n".join(f"c{n + 1} has {a}" for n, a in enumerate(self.addresses)))

    def pings(self):
        say("\nEvery container reaches every other.")
        for a, b in itertools.permutations(range(len(self.engines)), 2):
            # News of an endpoint takes a few milliseconds to the other hosts; 3 s are the promise after a heal.
            wait_for(lambda: self.engines[a].ping(f"c{a + 1}", self.addresses[b]), 3, f"ping from c{a + 1} to {self.addresses[b]}")
            out = self.engines[a].exec(f"c{a + 1}", "ping", "-c", "2", self.addresses[b])
            say(f"{self.lab.hosts[a].name}# docker exec c{a + 1} ping -c 2 {self.addresses[b]}")
            indent("\n".join(out.splitlines()[-2:]))

    def transfer(self):
        say(f"\n{MEGABYTES} MB over TCP from c1 on h1 to c3 on h3; both ends print a checksum.")
        sender, receiver = self.engines[0], self.engines[2]
        sender.exec("c1", "dd", "if=/dev/urandom", "of=/tmp/sent", "bs=1M", f"count={MEGABYTES}")
        # busybox's nc ends both directions when one ends, so the receiver's input has to stay open.
        receiver.docker("exec", "-d", "c3", "sh", "-c", "tail -f /dev/null | { nc -l -p 5000 >/tmp/part; mv /tmp/part /tmp/got; }")
        wait_for(lambda: ":1388 " in receiver.exec("c3", "cat", "/proc/net/tcp", "/proc/net/tcp6"), 5, "listener in c3")
        began = time.monotonic()
        sender.exec("c1", "sh", "-c", f"nc {self.addresses[2]} 5000 </tmp/sent")
        wait_for(lambda: receiver.exec("c3", "test", "-e", "/tmp/got", check=False).returncode == 0, 10, "end of the transfer")
        took = time.monotonic() - began
        sums = [sender.exec("c1", "sha256sum", "/tmp/sent").split()[0], receiver.exec("c3", "sha256sum", "/tmp/got").split()[0]]
        indent(f"sent     {sums[0]}\nreceived {sums[1]}\nin {took:.1f} s")
        if sums[0] != sums[1]:
            raise Failed("the checksums differ")

    def cni(self):
        """A runtime of another kind, on a host without Docker, in the same network."""
        host = self.lab.hosts[-1]
        say(f"\n{host.name} has podman, which knows networks through CNI. The network is there already: its name is enough.")
        self.type(len(self.engines), CNI)
        self.podman.load_image()
        say(f"{host.name}# podman run -d --name p1 --network app {IMAGE} sleep 100000")
        self.podman.run("p1", "app")
        address = self.podman.address("p1")
        indent(f"p1 has {address}")
        if address in self.addresses:
            raise Failed(f"an address was given twice: {address}")
        for n, there in enumerate(self.addresses):
            wait_for(lambda there=there: self.podman.ping("p1", there), 3, f"ping from p1 to {there}")
            say(f"{host.name}# podman exec p1 ping -c 2 {there}")
            indent("\n".join(self.podman.exec("p1", "ping", "-c", "2", there).stdout.splitlines()[-2:]))
            wait_for(lambda n=n: self.engines[n].ping(f"c{n + 1}", address), 3, f"ping from c{n + 1} to {address}")
        say(f"{self.lab.hosts[0].name}# docker exec c1 ping -c 2 {address}")
        indent("\n".join(self.engines[0].exec("c1", "ping", "-c", "2", address).splitlines()[-2:]))

    def look(self):
        say("\nWhat Trestle says about it.")
        for command in ("trestle status", "trestle members", "trestle network ls", "trestle endpoint ls"):
            self.type(0, command)

    def leave(self):
        """A runtime takes its containers down by itself: nothing of them is left to the plugin."""
        self.podman.remove_all()
        say(f"\n{self.lab.hosts[-1].name}# trestle cni uninstall")
        indent(self.daemons[-1].text("cni", "uninstall"))


def main():
    began = time.monotonic()
    with Lab(hosts=4) as lab:
        prefix = lab.prefix
        demo = Demo(lab)
        for part in (demo.cluster, demo.containers, demo.pings, demo.transfer, demo.cni, demo.look, demo.leave):
            part()
    left = {kind: things for kind, things in leaks.machine(prefix).items() if things}
    if left:
        raise Failed(f"the demo left something behind: {left}")
    say(f"\nEverything is gone again, after {time.monotonic() - began:.0f} s.\ndemo: ok")


if __name__ == "__main__":
    program("demo", main)

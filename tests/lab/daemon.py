"""A trestled in a host, with its defaults for all paths under /run, which is the host's own. Its state lives in the host's directory,
which stands for the disk: it outlives a boot."""
import json
import os
import signal
import urllib.parse

from .lab import BUILD
from .plugin import Plugin
from .shell import Failed, ask, wait_for

CONTROL = "/run/trestle/trestled.sock"
PLUGIN = "/run/docker/plugins/trestle.sock"
# Not the default 7946: Docker's Swarm takes that one for itself on the same address.
PORT = 7956


class Daemon:
    def __init__(self, host, *options, start=True, log_level="debug"):
        self.host, self.options, self.log_level = host, [str(o) for o in options], log_level
        self.process = None
        self.env = None  # besides ours
        listen = f"[{host.address}]:{PORT}" if ":" in host.address else f"{host.address}:{PORT}"
        self.underlay = ["--listen", listen, "--vtep", host.address]
        self.state = os.path.join(host.dir, "state")
        self.log = os.path.join(host.dir, "trestled.log")
        self.binary = os.path.join(BUILD, "trestled")
        self.cli_binary = os.path.join(BUILD, "trestle")
        if not os.path.exists(self.binary):
            raise Failed(f"{self.binary} is not there: run make first")
        host.on_boot.append(self._forget)
        host.daemons.append(self)
        if start:
            self.start()

    def _forget(self):
        self.process = None

    def start(self, *options, wait=True):
        argv = [self.binary, "--name", self.host.name, *self.underlay, "--state-dir", self.state,
                "--boot-id", f"boot-{self.host.number}-{self.host.boot_id}", "--log-level", self.log_level, *self.options, *options]
        self.process = self.host.start(*argv, name="trestled", env=self.env)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout=10):
        def ready():
            if not self.process.alive():
                raise RuntimeError(f"trestled on {self.host.name} ended: {self.process.tail()}")
            return self.call("GET", "/v1/status")["state"] != "starting"
        wait_for(ready, timeout, f"trestled on {self.host.name} ready", every=0.01)

    def stop(self):
        """SIGTERM; the status it ended with."""
        process, self.process = self.process, None
        return process.end(signal.SIGTERM)

    def kill9(self):
        process, self.process = self.process, None
        process.end(signal.SIGKILL)

    def restart(self):
        self.stop()
        self.start()

    def alive(self):
        return self.process is not None and self.process.alive()

    def call(self, method, path, body=None, timeout=30):
        """One call of the control API. Refused carries code and message."""
        status, text = ask(self.host.path(CONTROL), method, path, body, timeout)
        answer = json.loads(text)
        if status != 200:
            raise ControlError(status, answer["error"]["code"], answer["error"]["message"])
        return answer

    def trestle(self, *argv, check=True):
        """What the command line answers with -o json; text with check=False as CompletedProcess."""
        if not check:
            return self.host.run(self.cli_binary, *argv, check=False)
        return json.loads(self.host.run(self.cli_binary, *argv, "-o", "json").stdout)

    def text(self, *argv):
        """What a person sees."""
        return self.host.run(self.cli_binary, *argv).stdout

    def token(self):
        return self.call("POST", "/v1/token", {})["token"]

    def wait_sponsor(self):
        """A host that is new itself has no host numbers to give yet, and can get none from a host that is down."""
        wait_for(lambda: self.call("GET", "/v1/status")["spare_numbers"], 30, f"{self.host.name} has host numbers to give")

    def join(self, other):
        other.wait_sponsor()
        self.trestle("join", other.token())
        wait_for(lambda: self.call("GET", "/v1/status")["state"] == "running", 10, f"{self.host.name} is in")

    @staticmethod
    def cluster(daemons):
        """Joins all to the first and waits until everyone sees everyone alive."""
        for d in daemons[1:]:
            d.join(daemons[0])
        Daemon.wait_members(daemons)

    @staticmethod
    def wait_members(daemons, count=None, timeout=20):
        want = count or len(daemons)
        for d in daemons:
            wait_for(lambda d=d: d.call("GET", "/v1/status")["members"]["alive"] == want, timeout,
                     f"{d.host.name} sees {want} members alive")

    def endpoints(self, network=None):
        query = "?network=" + urllib.parse.quote(network) if network else ""
        return self.call("GET", "/v1/endpoints" + query)["endpoints"]

    def local_endpoints(self):
        return [e for e in self.endpoints() if e["host"] == self.host.name]

    def plugin(self):
        return Plugin(lambda: self.host.path(PLUGIN))

    def complaints(self):
        """What it logged as an error of its own, or of a library: none of it may happen in a healthy run."""
        return [l for l in self.log_text().splitlines() if l.startswith("error ") or " libevent: " in l]

    def log_text(self):
        with open(self.log, errors="replace") as f:
            return f.read()


class ControlError(Failed):
    def __init__(self, status, code, message):
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message = status, code, message

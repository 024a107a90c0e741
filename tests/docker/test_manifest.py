"""packaging/kubernetes/trestle.yaml on two nodes, with a Docker engine in the kubelet's place.

Every field of the pod that the kubelet would act on is translated into an option of `docker run`, and one that is not known here fails
the test: privileges, capabilities, mounts and their propagation, arguments, hook and probes are those of the file. Pods are namespaces
that the installed plugin is called for, with the installed configuration. What is not shown: the API server, a CRI runtime, AppArmor.
"""
import json
import os
import secrets
import subprocess
import unittest

import yaml

from tests.cni.runtime import Cni, Sandbox
from tests.lab import BUILD, ROOT, Daemon, Engine, Lab, wait_for

MANIFEST = os.path.join(ROOT, "packaging/kubernetes/trestle.yaml")
KEPT = "/run/"  # of the node itself; everything else it has in a directory of its own
PROPAGATION = {None: "private", "HostToContainer": "rslave", "Bidirectional": "rshared"}
# --privileged asks for every capability that the kernel has; this machine may itself have fewer to give.
PRIVILEGED = ["--security-opt", "systempaths=unconfined", "--security-opt", "seccomp=unconfined", "--cap-add=NET_ADMIN", "--cap-add=SYS_ADMIN"]
# What only the API server, the scheduler or AppArmor act on.
ELSEWHERE = {"automountServiceAccountToken", "priorityClassName", "terminationGracePeriodSeconds", "tolerations", "nodeSelector", "volumes",
             "initContainers", "containers"}


class Node:
    """One node: what a kubelet does with the pod."""

    def __init__(self, host, pod):
        self.host, self.pod = host, pod
        # An engine that filters closes the forward chain for everybody, which no kubelet does.
        self.engine = Engine(host, "--iptables=false")
        self.daemon = Daemon(host, start=False)
        self.root = f"{host.dir}/node"
        # As systemd and `ip netns` leave it on a node.
        host.run("mount", "--bind", "/run/netns", "/run/netns")
        host.run("mount", "--make-rshared", "/run")

    def where(self, path):
        return path if path.startswith(KEPT) else self.root + path

    def mount(self, m, volumes):
        volume = volumes[m["name"]]
        if "secret" in volume:
            source = f"{self.root}/secret/{volume['secret']['secretName']}"
            assert volume["secret"]["optional"]
        else:
            source = self.where(volume["hostPath"]["path"])
        if "secret" in volume or volume["hostPath"]["type"] == "DirectoryOrCreate":
            self.host.run("mkdir", "-p", source)
        elif volume["hostPath"]["type"] == "File" and not os.path.exists(source):
            # An engine would make a directory of it.
            os.makedirs(os.path.dirname(source), exist_ok=True)
            with open(source, "w") as f:
                f.write(secrets.token_hex(16) + "\n")
        mode = "ro" if m.get("readOnly") else "rw"
        return ["-v", f"{source}:{m['mountPath']}:{mode},{PROPAGATION[m.get('mountPropagation')]}"]

    def security(self, context):
        options = []
        for key, value in context.items():
            if key == "privileged" and value:
                options += PRIVILEGED
            elif key == "readOnlyRootFilesystem" and value:
                options += ["--read-only"]
            elif key == "allowPrivilegeEscalation" and not value:
                options += ["--security-opt", "no-new-privileges"]
            elif key == "capabilities":
                options += [f"--cap-drop={c}" for c in value["drop"]] + [f"--cap-add={c}" for c in value["add"]]
            else:
                raise AssertionError(f"securityContext: {key}: {value}")
        return options

    def environment(self, container):
        values = {"spec.nodeName": self.host.name, "status.hostIP": self.host.address}
        return {e["name"]: values[e["valueFrom"]["fieldRef"]["fieldPath"]] for e in container.get("env", [])}

    def options(self, container):
        spec = self.pod["spec"]
        volumes = {v["name"]: v for v in spec["volumes"]}
        out = []
        for key, value in spec.items():
            if key in ("hostNetwork", "hostPID") and value:
                out += ["--network=host"] if key == "hostNetwork" else ["--pid=host"]
            elif key not in ELSEWHERE:
                raise AssertionError(f"pod: {key}")
        for m in container["volumeMounts"]:
            out += self.mount(m, volumes)
        return out + self.security(container["securityContext"])

    def command(self, container):
        """Options and words behind the image."""
        env = self.environment(container)
        words = container["command"] + container.get("args", [])
        for name, value in env.items():
            words = [w.replace(f"$({name})", value) for w in words]
        unknown = set(container) - {"name", "image", "command", "args", "env", "securityContext", "volumeMounts", "lifecycle", "resources",
                                    "readinessProbe", "livenessProbe"}
        assert not unknown, unknown
        return ["--entrypoint", words[0], *self.options(container), container["image"], *words[1:]]

    def start(self):
        """The pod: its first containers one after the other, then its own, whose hook has to succeed."""
        for c in self.pod["spec"]["initContainers"]:
            self.engine.docker("run", "--rm", *self.command(c))
        self.main, = self.pod["spec"]["containers"]
        self.engine.docker("run", "-d", "--name", self.main["name"], *self.command(self.main))
        return self.engine.exec(self.main["name"], *self.main["lifecycle"]["postStart"]["exec"]["command"], check=False)

    def probe(self, kind):
        return self.engine.exec(self.main["name"], *self.main[kind]["exec"]["command"], check=False)

    def stop(self):
        self.engine.docker("rm", "-f", self.main["name"])

    def configuration(self):
        path, = (os.path.join(self.where("/etc/cni/net.d"), n) for n in os.listdir(self.where("/etc/cni/net.d")))
        with open(path) as f:
            conf = json.load(f)
        return {"cniVersion": conf["cniVersion"], "name": conf["name"], **conf["plugins"][0]}

    def cni(self):
        return Cni(self.daemon, binary=self.where("/opt/cni/bin/trestle"))


class Manifest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with open(MANIFEST) as f:
            cls.documents = {d["kind"]: d for d in yaml.safe_load_all(f)}
        template = cls.documents["DaemonSet"]["spec"]["template"]
        cls.lab = Lab(hosts=2).open()
        cls.addClassCleanup(cls.lab.close)
        image = f"{cls.lab.dir}/trestle.tar"
        subprocess.run([os.path.join(ROOT, "packaging/image.sh"), BUILD, image], check=True)
        cls.nodes = [Node(h, template) for h in cls.lab.hosts]
        name, = {c["image"] for part in ("initContainers", "containers") for c in template["spec"][part]}
        for n in cls.nodes:
            n.engine.docker("import", image, name)

    def test_the_selector_finds_the_pods(self):
        spec = self.documents["DaemonSet"]["spec"]
        self.assertEqual(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"])
        self.assertEqual(self.documents["DaemonSet"]["metadata"]["namespace"], self.documents["Namespace"]["metadata"]["name"])

    def test_pods_of_two_nodes_reach_each_other(self):
        one, two = self.nodes
        started = one.start()
        self.assertEqual(started.returncode, 0, started.stderr)
        self.assertEqual(one.probe("readinessProbe").returncode, 0)
        self.assertEqual(one.probe("livenessProbe").returncode, 0)

        # The second node finds the token where the secret is mounted.
        secret = f"{two.root}/secret/trestle-options"
        os.makedirs(secret)
        with open(f"{secret}/trestled.conf", "w") as f:
            f.write("join = " + one.engine.exec("trestled", "/usr/bin/trestle", "token"))
        started = two.start()
        self.assertEqual(started.returncode, 0, started.stderr)
        wait_for(lambda: two.daemon.call("GET", "/v1/status")["members"]["alive"] == 2, 10, "the second node is in")

        pods, addresses = [], []
        for n in self.nodes:
            pods.append(Sandbox(n.host, "pod"))
            self.addCleanup(pods[-1].remove)
            done = n.cni().call("ADD", "pod", pods[-1], config=n.configuration())
            self.assertEqual(done.status, 0, done)
            addresses += done.addresses()
            for other in self.nodes:
                wait_for(lambda d=other.daemon: d.call("GET", "/v1/networks")["networks"], 5, "the network is known")
        self.assertEqual(len(set(addresses)), 2)
        wait_for(lambda: pods[0].ping(addresses[1]), 5, "a pod reaches one of the other node")
        wait_for(lambda: pods[1].ping(addresses[0]), 5, "and the other way round")

        # As the kubelet's probes do, from the node itself.
        one.host.run("ping", "-c", "1", "-W", "1", addresses[0])

        # An update of the DaemonSet: traffic flows without the daemon, and the next one takes everything over.
        one.stop()
        pods[0].ping(addresses[1])
        started = one.start()
        self.assertEqual(started.returncode, 0, started.stderr)
        self.assertIn("unchanged", started.stdout)
        pods[0].ping(addresses[1])
        self.assertEqual([e["ipv4"] for e in one.daemon.local_endpoints()], addresses[:1])

        for n, pod in zip(self.nodes, pods):
            self.assertEqual(n.cni().call("DEL", "pod", pod, config=n.configuration()).status, 0)
            self.assertEqual(n.daemon.local_endpoints(), [])
            gone = n.engine.exec("trestled", "/usr/bin/trestle", "cni", "uninstall", check=False)
            self.assertEqual(gone.returncode, 0, gone.stderr)
            self.assertEqual(os.listdir(n.where("/opt/cni/bin")) + os.listdir(n.where("/etc/cni/net.d")), [])
            n.stop()


if __name__ == "__main__":
    unittest.main()

"""Every network configuration in docs/ is run as a runtime would: the whole chain, ADD then DEL, with the real plugins."""
import json
import os
import re
import shutil
import unittest

from tests.cni.runtime import BINARY, PluginTest
from tests.lab import ROOT
from tests.lab.podman import own_cni_dirs

DEBIAN = "/usr/lib/cni"
BLOCK = re.compile(r"```json\n(.*?)```", re.S)


def examples():
    """(name of the file, configuration) of every block that is one."""
    for name in sorted(os.listdir(os.path.join(ROOT, "docs"))):
        with open(os.path.join(ROOT, "docs", name)) as f:
            for block in BLOCK.findall(f.read()):
                if '"plugins"' in block:
                    yield name, json.loads(block)


@unittest.skipUnless(os.path.exists(f"{DEBIAN}/portmap"), "needs the package containernetworking-plugins")
class Documents(PluginTest):
    OPTIONS = ("--lease-grace", 3)

    def setUp(self):
        shutil.copy(BINARY, f"{self.host.dir}/bin/trestle")
        own_cni_dirs(self.host)  # host-local keeps its counts in one of them

    def chain(self, conf, verb, container, sandbox, result):
        """Runs one verb through all plugins of a configuration; what the last one printed."""
        plugins = conf["plugins"] if verb == "ADD" else reversed(conf["plugins"])
        for plugin in plugins:
            own = {"cniVersion": conf["cniVersion"], "name": conf["name"], **plugin}
            if result:
                own["prevResult"] = result
            binary = f"{self.host.dir}/bin/trestle" if plugin["type"] == "trestle" else f"{DEBIAN}/{plugin['type']}"
            done = self.cni.call(verb, container, sandbox, config=own, binary=binary)
            self.assertEqual(done.status, 0, f"{verb} of {plugin['type']} in {conf['name']}: {done}")
            result = done.json if verb == "ADD" else result
        return result

    def test_each_configuration_attaches_and_goes(self):
        found = list(examples())
        self.assertGreaterEqual(len([n for n, _ in found if n == "cni.md"]), 4)
        for number, (name, conf) in enumerate(found):
            with self.subTest(document=name, network=conf["name"]):
                s, before = self.sandbox(), self.state()
                result = self.chain(conf, "ADD", f"d{number}", s, None)
                addresses = [ip["address"] for ip in result["ips"]]
                self.assertEqual(sorted(addresses), sorted(s.addresses()))
                self.chain(conf, "DEL", f"d{number}", s, result)
                self.nothing_left(before)


if __name__ == "__main__":
    unittest.main()

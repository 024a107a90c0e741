"""What people do with containers and networks, on three real engines."""
import concurrent.futures
import unittest

from tests.docker.cluster import FOREVER, Cluster
from tests.lab import wait_for


class Containers(Cluster):
    def test_run_reaches_every_other(self):
        net, part = self.network()
        containers = self.one_on_each(net)
        self.all_reach(containers)
        self.assertEqual(self.known(net), {a: self.hosts[n].name for n, a in containers.values()})
        for name, (n, address) in containers.items():
            self.assertTrue(address.startswith(part + "."), address)
            self.assertEqual(self.engines[n].exec(name, "cat", "/sys/class/net/eth0/mtu"), "1450")
            shown = self.engines[n].inspect(name)["NetworkSettings"]["Networks"][net]["MacAddress"]
            self.assertEqual(self.engines[n].exec(name, "cat", "/sys/class/net/eth0/address"), shown)

    def test_full_size_packets_pass(self):
        net, _ = self.network()
        containers = self.one_on_each(net)
        far = containers["c2"][1]
        self.reaches(0, "c1", far)
        self.engines[0].exec("c1", "ping", "-q", "-c", "3", "-W", "1", "-s", "1422", far)

    def inside(self, number, name, *argv):
        """A program of the host in the container's network namespace."""
        return "nsenter", "-t", str(self.engines[number].inspect(name)["State"]["Pid"]), "-n", *argv

    def test_broadcast_reaches_the_other_hosts(self):
        net, part = self.network()
        containers = self.one_on_each(net)
        listen = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 6000)); print(s.recv(99), flush=True)"
        say = ("import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1); "
               f"s.bind(('{containers['c1'][1]}', 0)); s.sendto(b'anyone', ('{part}.255', 6000))")
        ears = [self.hosts[n].start(*self.inside(n, f"c{n + 1}", "python3", "-c", listen), name=f"listen{n}") for n in (1, 2)]

        def heard():
            self.hosts[0].run(*self.inside(0, "c1", "python3", "-c", say))
            return all("anyone" in e.tail() for e in ears)
        wait_for(heard, 5, "a broadcast in c2 and c3")

    def test_stop_restart_kill_and_start(self):
        net, _ = self.network()
        containers = self.one_on_each(net)
        for action in ("stop", "kill"):
            self.engines[0].docker(action, "c1")
            wait_for(lambda: len(self.known(net)) == 2, 5, f"no endpoint after {action}")
            self.engines[0].docker("start", "c1")
            containers["c1"] = (0, self.engines[0].address("c1", net))
            self.all_reach(containers)
        self.engines[0].docker("restart", "c1")
        containers["c1"] = (0, self.engines[0].address("c1", net))
        self.all_reach(containers)
        self.assertEqual(self.known(net), {a: self.hosts[n].name for n, a in containers.values()})

    def test_rm_f_and_exit_by_itself(self):
        net, _ = self.network()
        containers = self.one_on_each(net)
        self.engines[0].docker("rm", "-f", "c1")
        self.engines[1].exec("c2", "kill", "-TERM", "1", check=False)  # the exec may be taken along
        wait_for(lambda: list(self.known(net)) == [containers["c3"][1]], 5, "only c3 is left")
        self.silent(2, "c3", containers["c1"][1])
        out = self.engines[0].docker("run", "--rm", "--network", net, "lab", "ping", "-q", "-c", "1", "-W", "1", containers["c3"][1])
        self.assertIn("1 packets received", out)
        wait_for(lambda: list(self.known(net)) == [containers["c3"][1]], 5, "only c3 is left again")

    def test_connect_and_disconnect_a_running_container(self):
        net, _ = self.network()
        far = self.run_one(1, "far", net)
        self.engines[0].docker("run", "-d", "--name", "cc", "lab", *FOREVER)
        for _ in range(3):
            self.engines[0].docker("network", "connect", net, "cc")
            address = self.engines[0].address("cc", net)
            self.reaches(0, "cc", far)
            self.reaches(1, "far", address)
            self.engines[0].docker("network", "disconnect", net, "cc")
            self.silent(1, "far", address)
            self.assertNotIn(address, self.engines[0].exec("cc", "ip", "addr"))
            wait_for(lambda: list(self.known(net)) == [far], 5, "only far is left")

    def test_two_networks_on_one_container(self):
        one, part1 = self.network()
        two, part2 = self.network()
        far1, far2 = self.run_one(1, "far1", one), self.run_one(2, "far2", two)
        self.engines[0].docker("create", "--name", "both", "--network", one, "lab", *FOREVER)
        self.engines[0].docker("network", "connect", two, "both")
        self.engines[0].docker("start", "both")
        self.reaches(0, "both", far1)
        self.reaches(0, "both", far2)
        self.reaches(1, "far1", self.engines[0].address("both", one))
        self.reaches(2, "far2", self.engines[0].address("both", two))
        self.silent(1, "far1", far2)  # two networks are two segments
        self.engines[0].docker("network", "disconnect", one, "both")
        self.reaches(0, "both", far2)

    def test_ip_is_given_once(self):
        net, part = self.network()
        self.assertEqual(self.run_one(0, "mine", net, "--ip", f"{part}.77"), f"{part}.77")
        said = self.refused(1, "run", "-d", "--name", "thief", "--network", net, "--ip", f"{part}.77", "lab", *FOREVER)
        self.assertIn(f"{part}.77", said)
        self.assertIn("h1", said)  # who has it
        self.engines[1].docker("rm", "thief")
        # An address that the other side of the cluster has in its custody is asked of its holder.
        for last in (5, 130, 250):
            self.assertEqual(self.run_one(2, f"ip{last}", net, "--ip", f"{part}.{last}"), f"{part}.{last}")
        self.reaches(2, "ip130", f"{part}.77")

    def test_mac_address(self):
        net, _ = self.network()
        far = self.run_one(1, "far", net)
        mac = "02:42:de:ad:be:ef"
        address = self.run_one(0, "cc", net, "--mac-address", mac)
        self.assertEqual(self.engines[0].exec("cc", "cat", "/sys/class/net/eth0/address"), mac)
        self.reaches(1, "far", address)
        self.reaches(0, "cc", far)
        # Its broadcasts may have been answered before its record was here.
        wait_for(lambda: mac in [e["mac"] for e in self.daemons[1].endpoints(net)], 5, f"h2 knows {mac}")

    def test_published_port(self):
        net, _ = self.network()
        self.run_one(0, "web", net, "-p", "8080:80", command=("httpd", "-f", "-p", "80", "-h", "/www"))
        self.assertIn("0.0.0.0:8080", self.engines[0].docker("port", "web"))
        url = f"http://{self.hosts[0].address}:8080/"
        for host in (self.hosts[0], self.hosts[1]):
            got = wait_for(lambda h=host: h.run("curl", "-s", "--max-time", "2", url).stdout, 5, f"{url} from {host.name}")
            self.assertEqual(got, "hello from a container\n")

    def test_containers_reach_out_unless_internal(self):
        net, _ = self.network()
        self.run_one(0, "cc", net)
        self.reaches(0, "cc", self.hosts[1].address)  # by docker_gwbridge, masqueraded

    def test_internal(self):
        net, _ = self.network("--internal")
        containers = self.one_on_each(net)
        self.all_reach(containers)
        for name, (n, _) in containers.items():
            links = sorted(self.engines[n].exec(name, "ls", "/sys/class/net").split())
            self.assertEqual(links, ["eth0", "lo"])
            self.assertNotIn("default", self.engines[n].exec(name, "ip", "route"))
        self.silent(0, "c1", self.hosts[1].address)

    def test_network_rm(self):
        net, _ = self.network()
        containers = self.one_on_each(net)
        self.assertIn("active endpoints", self.refused(0, "network", "rm", net))
        self.engines[0].docker("rm", "-f", "c1")
        self.engines[0].docker("network", "rm", net)
        self.reaches(1, "c2", containers["c3"][1])  # the others keep theirs
        self.assertEqual(len(self.known(net)), 2)

    def test_network_made_again_with_other_hosts_in_it(self):
        net, part = self.network()
        containers = self.one_on_each(net)
        self.engines[0].docker("rm", "-f", "c1")
        self.engines[0].docker("network", "rm", net)
        self.engines[0].docker("network", "create", "-d", "trestle", "--ipam-driver", "trestle", "--subnet", f"{part}.0/24",
                               "-o", f"trestle.network={net}", net)
        containers["c1"] = (0, self.run_one(0, "c1", net))
        self.all_reach(containers)

    def test_fifty_at_once(self):
        net, part = self.network()
        count = 50

        def start(number):
            return self.run_one(number % len(self.engines), f"many{number}", net)
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            addresses = list(pool.map(start, range(count)))
        self.assertEqual(len(set(addresses)), count, sorted(addresses))
        self.assertEqual(len(self.known(net)), count)
        # Every one is asked until it answers or 5 s are over.
        script = ("for a in " + " ".join(addresses) + "; do n=0; "
                  "until ping -q -c 1 -W 1 $a >/dev/null; do n=$((n + 1)); [ $n -lt 5 ] || { echo $a; break; }; done; done")
        lost = self.engines[0].exec("many0", "sh", "-c", script, timeout=300)
        self.assertEqual(lost, "", "not reachable")

    def test_default_ipam_by_mistake(self):
        """Two engines that choose addresses by themselves choose the same: the second container must not start."""
        net, part = self.network(ipam=False)
        self.assertEqual(self.run_one(0, "first", net), f"{part}.2")
        self.assertEqual(self.known(net), {f"{part}.2": "h1"})
        said = self.refused(1, "run", "-d", "--name", "second", "--network", net, "lab", *FOREVER)
        self.assertIn(f"{part}.2", said)
        self.assertIn("h1", said)
        self.assertIn("--ipam-driver trestle", said)
        self.engines[1].docker("rm", "second")
        self.assertEqual(self.known(net), {f"{part}.2": "h1"})
        # The one that is there stays, and another address can be had by name.
        self.assertEqual(self.run_one(1, "third", net, "--ip", f"{part}.9"), f"{part}.9")
        self.reaches(1, "third", f"{part}.2")

    def test_same_name_with_another_subnet_is_refused(self):
        net, part = self.network(engines=[self.engines[0]])
        self.know_network(net)
        said = self.refused(1, "network", "create", "-d", "trestle", "--ipam-driver", "trestle", "--subnet", "10.8.0.0/24",
                            "-o", f"trestle.network={net}", net)
        self.assertIn(f"{part}.0/24", said)
        names = [n["Name"] for n in self.engines[1].api("GET", "/networks")]
        self.assertNotIn(net, names)


if __name__ == "__main__":
    unittest.main()

"""The kernel's neighbour table, which is one for all namespaces: the daemon says that it fills up, before hosts seem dead by it."""
from tests.lab import wait_for
from tests.net.hosts import Hosts


class Neighbours(Hosts):
    HOSTS = 1
    JOINED = False
    WORDS = "the kernel's IPv4 neighbour table"

    def setUp(self):
        super().setUp()
        (self.daemon,) = self.daemons
        self.host = self.lab.hosts[0]
        self.host.run("ip", "link", "add", "filled", "type", "bridge")
        self.host.run("ip", "link", "set", "filled", "up")
        wait_for(self.table, 10, "a first look at the table")

    def table(self):
        return self.daemon.call("GET", "/v1/status")["neighbours"]["ipv4"]

    def warnings(self):
        return [w for w in self.daemon.call("GET", "/v1/status")["warnings"] if w.startswith(self.WORDS)]

    def put(self, count, state):
        self.host.run("ip", "-batch", "-", stdin="".join(
            f"neigh replace 198.18.{i >> 8}.{i & 255} lladdr 02:00:00:00:{i >> 8:02x}:{i & 255:02x} dev filled nud {state}\n"
            for i in range(count)))

    def half(self):
        """A little more than that. The limit is the machine's: other tests may raise it meanwhile."""
        return self.table()["limit"] // 2 + 8

    def warned(self):
        """Whether it warns of so many. They are said anew, since the kernel takes away what is older than 5 s to make room."""
        self.put(self.half(), "reachable")
        return self.warnings()

    def test_a_table_that_is_half_full_is_warned_of(self):
        many = self.half()
        self.put(many, "permanent")  # for which there is no limit
        self.put(64, "reachable")
        entries = wait_for(lambda: self.table()["entries"] >= 64 and self.table()["entries"], 10, "a look at that")
        self.assertLess(entries, many)
        self.host.run("ip", "neigh", "flush", "nud", "permanent", "dev", "filled")
        (warning,) = wait_for(self.warned, 10, "a warning")
        for word in ("all network namespaces", f"gc_thresh3 = {self.table()['limit']}", "sysctl -w net.ipv4.neigh.default.gc_thresh3="):
            self.assertIn(word, warning)
        text = self.daemon.trestle("status", check=False)
        self.assertEqual(text.returncode, 1)
        self.assertIn(self.WORDS, text.stdout)
        self.host.run("ip", "link", "del", "filled")
        wait_for(lambda: not self.warnings(), 10, "no warning any more")
        self.assertEqual(self.daemon.log_text().count(self.WORDS + ", one for"), 1)
        self.assertIn("has room again", self.daemon.log_text())

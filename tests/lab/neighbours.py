"""Room in the kernel's neighbour table for more than thirty hosts on one machine."""

THRESHOLDS = {1: 16384, 2: 32768, 3: 65536}


class Neighbours:
    """The kernel's neighbour table is one for all namespaces: 1,024 entries are full at 50 hosts that all know each other, and what is
    measured then is the garbage collector."""

    PATH = "/proc/sys/net/ipv4/neigh/default/gc_thresh%d"

    def __enter__(self):
        self.old = {}
        for number in THRESHOLDS:
            with open(self.PATH % number) as f:
                self.old[number] = int(f.read())
        self._set({n: max(v, self.old[n]) for n, v in THRESHOLDS.items()})
        return self

    def __exit__(self, *_):
        self._set(self.old)

    def _set(self, values):
        for number in (3, 2, 1):
            with open(self.PATH % number, "w") as f:
                f.write(str(values[number]))

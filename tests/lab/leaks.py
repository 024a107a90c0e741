"""What the machine has that a run could leave behind: namespaces, mounts, processes, links, nft tables, cgroups.

snapshot() before and after; the difference must be empty. Other runs work on the same machine at the same time, so a test compares
only what carries its own prefix (things the lab names) or lives in a host that it owns (things inside a host's namespaces).
"""
import glob
import json
import os

from .shell import run


def machine(prefix):
    """Everything on the machine that carries the prefix."""
    with open("/proc/self/mounts") as f:
        mounts = sorted(line.split()[1] for line in f if prefix in line)
    links = json.loads(run("ip", "-j", "link").stdout)
    processes = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as f:
                words = f.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if prefix in words and int(path.split("/")[2]) != os.getpid():
            processes.append(words.strip())
    tables = run("nft", "list", "tables", check=False).stdout.splitlines()
    return {
        "namespaces": sorted(n for n in os.listdir("/run/netns") if n.startswith(prefix)) if os.path.isdir("/run/netns") else [],
        "mounts": mounts,
        "links": sorted(l["ifname"] for l in links if prefix in l["ifname"]),
        "processes": sorted(processes),
        "tables": sorted(t for t in tables if prefix in t),
        "cgroups": sorted(glob.glob(f"/sys/fs/cgroup/*/{prefix}*")),
        "directories": sorted(glob.glob(f"/tmp/trestle-lab/{prefix}*")),
    }


def host(h):
    """What is inside one host: links of its namespace and of the fabric, nft tables, named namespaces."""
    def links(*where):
        return sorted(l["ifname"] for l in json.loads(h.run(*where, "ip", "-j", "link").stdout or "[]") if l["ifname"] != "lo")
    named = h.run("ls", "/run/netns").stdout.split()
    return {
        "links": links(),
        "fabric": links("nsenter", "--net=/run/netns/trestle") if "trestle" in named else [],
        "tables": sorted(h.run("nft", "list", "tables").stdout.splitlines()),
        "namespaces": sorted(named),
    }


def difference(before, after):
    """{kind: (gone, new)} of what is not the same; empty when all is."""
    out = {}
    for kind in before:
        b, a = set(before[kind]), set(after[kind])
        if b != a:
            out[kind] = (sorted(b - a), sorted(a - b))
    return out

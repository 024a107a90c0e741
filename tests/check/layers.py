"""Who may include whom (docs/ARCHITECTURE.md has the reasons). Reads every #include of the tree; says what points the wrong way."""
import os
import re
import sys

# module: what it may include besides itself and base/.
MAY = {
    "base": set(),
    "netlink": set(),
    "ipam": set(),
    "gossip": set(),
    "driver": set(),
    "driver/vxlan": {"driver", "netlink"},
    "http": set(),
    "plugin": {"http", "driver", "ipam", "gossip"},
    "control": {"http", "driver", "ipam", "gossip"},
    "daemon": {"netlink", "ipam", "gossip", "driver", "driver/vxlan", "http", "plugin", "control"},
    "cli": {"control"},
    "cni": {"control"},
}
# Files that take a narrower share than their module: (pattern of files, headers of ours that they may include besides their module's).
ONLY = [
    # What the CLI and CNI link must not bring a server or an event loop with it.
    (r"(cli|cni)/.*", {"control/client.h", "control/limits.h"}),
    (r"control/client\.[ch]", set()),
]
# Sans-IO code: no event loop, no socket, no clock, no netlink. *_io.c are the shells around it.
PURE = r"ipam/.*|gossip/(?!.*_io)(?!(io|net|udp|tcp|joiner)[._]).*|driver/driver\.h|driver/vxlan/(plan|desired)[^/]*"
IMPURE = re.compile(r"event2?/.*|event\.h|sys/(socket|epoll|timerfd|eventfd|un)\.h|time\.h|sys/time\.h|poll\.h|pthread\.h|unistd\.h|"
                    r"libmnl/.*|libnftnl/.*|netlink/.*|linux/(rt)?netlink\.h|sqlite3\.h|base/(clock|file)\.h")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def module_of(path):
    directory = os.path.dirname(path)
    return directory if directory in MAY else directory.split("/")[0]


def includes(path):
    with open(path) as f:
        for number, line in enumerate(f, 1):
            found = INCLUDE.match(line)
            if found:
                yield number, found.group(1) == '"', found.group(2)


def judge(path, quoted, target):
    """The reason why path may not include target, or None."""
    if re.fullmatch(PURE, path) and IMPURE.fullmatch(target):
        return "this is a core: time, sockets and the kernel are its shell's"
    if not quoted:
        return "ours are included with quotes, by path from the root" if module_of(target) in MAY and os.path.exists(target) else None
    if not os.path.exists(target):
        return "no such file from the root of the tree"
    module, other = module_of(path), module_of(target)
    if target.endswith("_internal.h") and os.path.dirname(target) != os.path.dirname(path) and not path.startswith("tests/"):
        return "private to its directory"
    if module in ("tests", "bench") or path.startswith(("tests/", "bench/")):
        return None
    if module not in MAY:
        return f"{module}/ is not in the table of tests/check/layers.py"
    for pattern, allowed in ONLY:
        if re.fullmatch(pattern, path) and other not in (module, "base") and target not in allowed:
            return "only " + (", ".join(sorted(allowed)) or "nothing") + " beside base/"
    if other not in (module, "base") and other not in MAY[module]:
        return f"{module}/ may include: " + (", ".join(sorted(MAY[module])) or "nothing") + " beside base/"
    return None


def main():
    print("  CHECK layers")
    bad = 0
    for top, directories, files in os.walk("."):
        directories[:] = [d for d in directories if not d.startswith(".") and d != "build"]
        for name in sorted(files):
            if not name.endswith((".c", ".h")):
                continue
            path = os.path.relpath(os.path.join(top, name), ".")
            for number, quoted, target in includes(path):
                reason = judge(path, quoted, target)
                if reason:
                    print(f"{path}:{number}: includes {target}: {reason}", file=sys.stderr)
                    bad += 1
            own = path[:-2] + ".h"
            first = next((target for _, _, target in includes(path)), "")
            # An internal header of the same room comes to the same: it includes the public one.
            internal = first.endswith("_internal.h") and os.path.dirname(first) == os.path.dirname(path)
            if path.endswith(".c") and os.path.exists(own) and first != own and not internal:
                print(f"{path}: its own header {own} comes first", file=sys.stderr)
                bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

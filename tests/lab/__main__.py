"""python3 -m tests.lab clean: removes what dead runs left. python3 -m tests.lab shell [N]: N hosts with daemons, and a shell."""
import os
import subprocess
import sys

from . import Daemon, Lab, clean


def shell(count):
    with Lab(hosts=count) as lab:
        daemons = [Daemon(h) for h in lab.hosts]
        Daemon.cluster(daemons)
        print("hosts: " + ", ".join(f"{h.name} (nsenter -t {h.pid} -n -m -p)" for h in lab.hosts))
        subprocess.run([os.environ.get("SHELL", "/bin/sh")])


def main(argv):
    if argv == ["clean"]:
        clean()
    elif argv and argv[0] == "shell" and len(argv) <= 2:
        shell(int(argv[1]) if len(argv) == 2 else 2)
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


sys.exit(main(sys.argv[1:]))

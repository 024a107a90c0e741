"""The lab: hosts, engines, daemons, cuts and heals on one machine. See lab.py for what a host is."""
from .daemon import Daemon
from .engine import Engine
from .lab import BUILD, ROOT, Host, Lab, Process, clean, program, stories
from .neighbours import Neighbours
from .plugin import Lost, Plugin, Refused, Runtime
from .shell import Failed, run, wait_for
from . import leaks

__all__ = ["BUILD", "Daemon", "Engine", "Failed", "Host", "Lab", "Lost", "Neighbours", "Plugin", "Process", "ROOT", "Refused", "Runtime",
           "clean", "leaks", "program", "run", "stories", "wait_for"]

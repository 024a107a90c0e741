"""Running programs and waiting for things: what every other file of the lab stands on.

No call here waits without a deadline. A command that fails raises Failed with its words, so a test's report says what the program said.
"""
import http.client
import json
import os
import socket
import subprocess
import time

# A deadline is thought of on an idle machine. One that is slower and has other work gets this many times that; it costs nothing where the
# condition comes true. What must be fast by itself is measured, not waited for.
PATIENCE = 5


class Failed(AssertionError):
    """A command ended with another status than wanted, or a condition did not come true in time."""


# What the look at something unfinished ends in: a refusal, no socket, an answer without the row that is looked for.
NOT_YET = (Failed, OSError, LookupError, StopIteration, TypeError, ValueError)


def run(*argv, check=True, timeout=60, stdin=None, env=None):
    """Runs a command to its end; returns CompletedProcess with text output."""
    argv = [str(a) for a in argv]
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout * PATIENCE, env=env)
    except subprocess.TimeoutExpired as e:
        raise Failed(f"{' '.join(argv)}: no end after {timeout * PATIENCE} s; said {e.stdout!r} {e.stderr!r}") from None
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(argv)}: status {done.returncode}: {done.stderr.strip()} {done.stdout.strip()[-2000:]}")
    return done


def ask(socket_path, method, path, body=None, timeout=30):
    """One HTTP call on a Unix socket, with a body in JSON; the status and the text of the answer. OSError when there is none."""
    conn = http.client.HTTPConnection("localhost", timeout=timeout)
    conn.sock = socket.socket(socket.AF_UNIX)
    conn.sock.settimeout(timeout)
    try:
        conn.sock.connect(socket_path)
        conn.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
        reply = conn.getresponse()
        return reply.status, reply.read().decode()
    except http.client.HTTPException as e:
        raise OSError(f"{method} {path}: {e!r}") from e
    finally:
        conn.close()


def wait_for(condition, timeout=10.0, what="condition", every=0.05):
    """Waits until condition() is true and returns its value. What NOT_YET names counts as not yet true when it comes out of it.

    timeout: seconds on an idle machine; PATIENCE times as long is waited. what: words, or a function that finds them when it failed.
    """
    deadline = time.monotonic() + timeout * PATIENCE
    while True:
        try:
            last, error = condition(), None
            if last:
                return last
        except NOT_YET as e:
            last = error = e
        if time.monotonic() > deadline:
            # With where it came from: a mistake in the condition looks like something that is not yet so.
            words = what() if callable(what) else what
            raise Failed(f"{words}: not so after {timeout * PATIENCE} s (last seen: {last!r})") from error
        time.sleep(every)


def start_time(pid):
    """When a process started, in kernel ticks; None when there is none. Tells a process from a later one with the same pid."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return int(f.read().rsplit(")", 1)[1].split()[19])
    except (OSError, ValueError):
        return None


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return [int(p) for p in f.read().split()]
    except OSError:
        return []


def state(pid):
    """The letter of proc(5), None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return None


def alive(pid):
    return state(pid) not in (None, "Z", "X")


def kill(pid, signum, timeout=10):
    """Sends a signal to one process and waits until it is gone."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return
    wait_for(lambda: not alive(pid), timeout, f"end of process {pid} after signal {signum}", every=0.01)

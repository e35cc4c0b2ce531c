"""Taking over from a control plane that is killed in mid-pass, and from the holder of a plain ZooKeeper lock.

Two control planes on one real ZooKeeper, Kafka and Connect; the one at work gets SIGKILL. The other side is a
process that holds kazoo's own lock with the same session timeout, killed as well: ZooKeeper frees neither before the
session has ended.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys
import time
from dataclasses import replace

from kazoo.client import KazooClient

from benchmarks.form import Form, Goal
from benchmarks.stacks import stack_of
from tests.control_plane.harness import harness_of
from tests.control_plane.takeover import Takeover, take_over

SIZES = {"rounds": (10, 2), "shards": (4, 4)}

# Of the platform's session, seconds.
TIMEOUT = 10.0

_HOLDER = """
import sys, time
from kazoo.client import KazooClient
client = KazooClient(sys.argv[1], timeout=float(sys.argv[3]))
client.start()
client.Lock(sys.argv[2]).acquire()
print("held", flush=True)
time.sleep(3600)
"""


def run(form: Form) -> None:
    """A plain lock's takeover, then a control plane's, and so on."""
    found, plain = list[Takeover](), list[float]()
    with contextlib.ExitStack() as ending:
        stack = ending.enter_context(stack_of(form, workers=2, postgres=False))
        name = f"takeover_{secrets.token_hex(3)}"
        settings = replace(stack.settings(), zookeeper_root=f"/{name}", state_topic=f"{name}.state")
        harness = ending.enter_context(harness_of(stack, settings, name))
        harness.add(form.count("shards"))
        harness.settle()
        for takeover in take_over(harness, rounds=form.count("rounds")):
            found.append(takeover)
            plain.append(plain_takeover(settings.zookeeper, f"/{name}-lock"))
    form.compare(
        "the lock is free after", "s", [one.lock_free for one in found], plain,
        other_side="kazoo's lock", goal=Goal(at_most=1.25),
    )  # fmt: skip
    form.compare(
        "the next pass is through after", "s", [one.next_pass for one in found], plain,
        other_side="kazoo's lock is taken", goal=Goal(at_most=2.0),
    )  # fmt: skip
    repeated = max(len(one.repeated) for one in found)
    form.condition("at most one call is repeated", repeated <= 1, f"{repeated} at most in {len(found)} takeovers")
    lost = [name for one in found for name in one.lost]
    form.condition("every connector runs after the next pass", not lost, ", ".join(lost) or "all run")


def plain_takeover(zookeeper: str, path: str) -> float:
    """Seconds from the kill of a process that holds a lock until another has it."""
    command = [sys.executable, "-c", _HOLDER, zookeeper, path, str(TIMEOUT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        client = KazooClient(zookeeper, timeout=TIMEOUT)
        client.start()
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            holder.kill()
            killed = time.monotonic()
            lock = client.Lock(path)
            assert lock.acquire(timeout=120)
            seconds = time.monotonic() - killed
            lock.release()
        finally:
            holder.kill()
            client.stop()
            client.close()
    return seconds

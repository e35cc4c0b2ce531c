"""How fast another control plane takes over from one that is killed in mid-pass, and what it repeats.

    python -m benchmarks takeover [--rounds 20] [--stack DIR]

Two control planes on one real ZooKeeper, Kafka and Connect; the one at work gets SIGKILL.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import statistics
from dataclasses import replace
from pathlib import Path

from cdc_platform.local.stack import Stack
from tests.conftest import own_stack
from tests.control_plane.harness import ground_of
from tests.control_plane.takeover import Takeover, take_over

SHARDS = 4
LOCK_GOAL, PASS_GOAL = 15.0, 90.0


def _named(what: str, names: tuple[str, ...]) -> str:
    return f"{what} {len(names)}" + (f" ({', '.join(names)})" if names else "")


def main(arguments: list[str]) -> int:
    """Prints a line a takeover, and `goal met` or `goal missed: ...` as the last."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks takeover", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--stack", type=Path, help="use the running stack of this directory")
    asked = parser.parse_args(arguments)
    with contextlib.ExitStack() as ending:
        if asked.stack is not None:
            stack = Stack.load(asked.stack)
        else:
            stack = ending.enter_context(own_stack(workers=2, postgres=False))
        name = f"takeover_{secrets.token_hex(3)}"
        settings = replace(stack.settings(), zookeeper_root=f"/{name}", state_topic=f"{name}.state")
        ground = ending.enter_context(ground_of(stack, settings, name))
        ground.add(SHARDS)
        ground.settle()
        found: list[Takeover] = []
        for takeover in take_over(ground, rounds=asked.rounds):
            found.append(takeover)
            print(
                f"takeover {len(found):2}: lock free after {takeover.lock_free:5.1f} s, next pass through after "
                f"{takeover.next_pass:5.1f} s, calls {len(takeover.calls)}, {_named('repeated', takeover.repeated)}, "
                f"{_named('lost', takeover.lost)}",
                flush=True,
            )
    for what, values in (
        ("lock free", [t.lock_free for t in found]),
        ("next pass", [t.next_pass for t in found]),
    ):
        print(f"{what}: median {statistics.median(values):.1f} s, worst {max(values):.1f} s")
    missed = [
        text
        for text, bad in (
            (f"lock free within {LOCK_GOAL:.0f} s", max(t.lock_free for t in found) > LOCK_GOAL),
            (f"next pass within {PASS_GOAL:.0f} s", max(t.next_pass for t in found) > PASS_GOAL),
            ("at most one repeated call", max(len(t.repeated) for t in found) > 1),
            ("none lost", any(t.lost for t in found)),
        )
        if bad
    ]
    print("goal met" if not missed else f"goal missed: {', '.join(missed)}")
    return 1 if missed else 0

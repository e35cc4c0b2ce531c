"""Two control planes on one ZooKeeper, and the one that is at work killed with SIGKILL, again and again."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from tests.control_plane.harness import DEADLINE, Harness
from tests.waiting import assert_eventually


@dataclass(frozen=True, kw_only=True)
class Takeover:
    """One round. Seconds from the kill until the lock was free, and until the other's pass was through.

    `calls` are all of the round, `repeated` those that both made. `lost` are the connectors
    that had no running task when the next pass was through and its tasks had had their time.
    """

    lock_free: float
    next_pass: float
    repeated: tuple[str, ...]
    calls: tuple[str, ...]
    lost: tuple[str, ...]


@dataclass
class Runner:
    """A control plane that runs passes for ever, and what it told."""

    process: subprocess.Popen[str]
    lines: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def owner(self) -> str:
        return f"pid {self.process.pid}"

    def told(self, word: str, since: float) -> list[str]:
        """What followed `word` in its lines since then, such as the calls it made."""
        return [text.partition(f" {word} ")[2] for at, text in list(self.lines) if at >= since and f" {word} " in text]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip()))


def take_over(harness: Harness, *, rounds: int) -> Iterator[Takeover]:
    """Rounds, each: connectors are deleted by hand, and who begins to put that right is killed in mid-pass."""
    names = [shard.name for shard in harness.shards()]
    runners = [Runner(harness.spawn("loop")), Runner(harness.spawn("loop"))]
    try:
        for runner in runners:
            assert_eventually(partial(getattr, runner, "lines"), "a control plane runs")
        for _ in range(rounds):
            began = time.monotonic()
            for name in names:
                harness.call("DELETE", f"/connectors/{name}")
            leader = _first_at_work(runners, began)
            leader.process.kill()
            leader.process.wait()
            killed = time.monotonic()
            assert_eventually(partial(_freed, harness, leader.owner), "the lock is free")
            free = time.monotonic() - killed
            (other,) = (runner for runner in runners if runner is not leader)
            assert_eventually(partial(other.told, "pass", killed), "the other's pass is through")
            passed = time.monotonic() - killed
            lost = _not_running(harness, names, DEADLINE)
            first, second = leader.told("call", began), other.told("call", began)
            yield Takeover(
                lock_free=free,
                next_pass=passed,
                repeated=tuple(call for call in second if call in first),
                calls=(*first, *second),
                lost=lost,
            )
            runners[runners.index(leader)] = Runner(harness.spawn("loop"))
    finally:
        for runner in runners:
            runner.process.kill()
            runner.process.wait()


def _freed(harness: Harness, owner: str) -> bool:
    return harness.platform.topology.lock_owner() != owner


def _not_running(harness: Harness, names: list[str], seconds: float) -> tuple[str, ...]:
    """What does not run, once all do or the time is over."""
    end = time.monotonic() + seconds
    while True:
        lost = tuple(name for name in names if harness.task_states(name) != ["RUNNING"])
        if not lost or time.monotonic() > end:
            return lost
        time.sleep(0.3)


def _first_at_work(runners: list[Runner], since: float) -> Runner:
    """The control plane that makes the first call; looked for without a pause, to catch it in mid-pass."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        for runner in runners:
            if runner.told("call", since):
                return runner
        time.sleep(0.005)
    raise AssertionError("no control plane set to work")

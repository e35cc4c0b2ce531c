"""A scenario: captured shards under continuous writes, one fault, and a row of the table at its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psutil

from cdc_platform.errors import ZooKeeperUnavailable
from cdc_platform.model.topology import Address, Shard
from cdc_platform.settings import CONFIG_ENV
from cdc_platform.verification.proof.verdicts import Verdict
from tests.faults.control_plane import ControlPlane
from tests.faults.harness import DEADLINE, FIRST_ROWS, Harness
from tests.faults.topic import Tap, read
from tests.faults.writers import Change, Writers
from tests.waiting import assert_eventually

# An event that takes longer than this from commit to consumer is late, seconds.
LATE = 5.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One row of the table.

    `lasted`: seconds from the fault until `over`. `recovery`: seconds from then until an event
    written later had arrived of every shard. `late`: share of all events that took longer than
    LATE; `worst`: the longest. `steps`: committed changes that are no events because the fault
    took them away for good; `lost`: all others that are none.
    """

    name: str
    lasted: float
    recovery: float
    late: float
    worst: float
    events: int
    lost: int
    steps: int
    duplicates: dict[str, int]
    verdict: str
    note: str = ""


@dataclass(kw_only=True)
class Scenario:
    """What a test does to a harness, and when."""

    name: str
    harness: Harness
    writers: Writers
    control_plane: ControlPlane
    tap: Tap
    note: str = ""
    moved: dict[str, tuple[datetime, ...]] = field(default_factory=dict)
    # A fault that cannot heal without loss: only the last change of each key must be there.
    holed: bool = False
    _begun: float = 0.0
    _over: float = 0.0

    def begin(self) -> None:
        """The fault begins now; by default with the block."""
        self._begun = self._over = time.monotonic()

    def hold(self, seconds: float) -> None:
        """Leave the fault as it is for a while: how long it lasts is what is tried."""
        time.sleep(seconds)

    def over(self) -> None:
        """The fault is over: recovery counts from here. Without it, from the fault's begin."""
        self._over = time.monotonic()

    def signal(self, service: str, number: int) -> None:
        """To all of a service's processes: Postgres' connections are each one."""
        process = psutil.Process(self.harness.stack.pid(service))
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    def move(self, leader: Address, shards: Iterable[Shard] | None = None) -> None:
        """Tell ZooKeeper of a new leader, as an operator's tooling does: again where a connection is lost just then."""

        def told(shard: Shard) -> bool:
            try:
                self.harness.platform.topology.set_leader(shard.dataset, shard.id, leader)
            except ZooKeeperUnavailable:
                return False
            return True

        for shard in shards or self.harness.shards:
            assert_eventually(partial(told, shard), "ZooKeeper takes a new leader", 60)
            self.moved[shard.id] = (*self.moved.get(shard.id, ()), datetime.now(UTC))

    def command(self, *arguments: str) -> str:
        """`cdc-platform ...`, as an operator calls it; what it printed. It must succeed."""
        done = self._run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def told_by(self, *arguments: str) -> str:
        """What `cdc-platform ...` says, whatever its exit code."""
        done = self._run(*arguments)
        return done.stdout + done.stderr

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, CONFIG_ENV: str(self.harness.stack.settings_file), "COLUMNS": "400"}
        command = [str(Path(sys.executable).with_name("cdc-platform")), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)

    def no_more_deletes(self) -> None:
        """Changes may stay unread from now on: only the last of each key counts, and no rows are deleted.

        A topic keeps a row whose delete nobody read: documented, and seen by the proof.
        """
        self.holed = True
        self.writers.deletes = False
        with self.writers.still():
            written = list(self.writers.committed.copy())
            assert_eventually(lambda: all(change in self.tap.arrived for change in written), "all has been read")

    def flows(self, shard: Shard) -> None:
        """Wait until an event of that shard arrives that was written after now."""
        since = time.monotonic()

        def later() -> bool:
            return any(
                change.shard == shard.id and at >= since and change in self.tap.arrived
                for change, at in self.writers.committed.copy().items()
            )

        assert_eventually(later, f"{shard.name} flows")

    @contextmanager
    def unread(self) -> Iterator[Shard]:
        """The only shard's connector is stopped in this block, with all read that was there; writers go on.

        What is written from then on is not read until the block ends, and maybe never.
        """
        (shard,) = self.harness.shards
        self.command("pause", shard.dataset, "--reason", "a fault is made")
        self.no_more_deletes()
        self.harness.call("PUT", f"/connectors/{shard.name}/stop")
        assert_eventually(lambda: not self.harness.statuses(), "it is stopped")
        self.begin()
        at = len(self.writers.committed)
        assert_eventually(lambda: len(self.writers.committed) > at + 100, "a hundred changes that nobody read")
        yield shard
        self.command("resume", shard.dataset)

    def recovered(self, seconds: float = DEADLINE) -> float:
        """Wait until of every shard an event has arrived that was written after the fault; when (monotonic)."""
        found: float = assert_eventually(self._recovered, "of every shard a later event arrived", seconds)
        return found

    def has_recovered(self) -> bool:
        """True once of every shard an event has arrived that was written after the fault."""
        return self._recovered() is not None

    def _recovered(self) -> float | None:
        firsts: dict[str, float] = {}
        for change, at in self.writers.committed.copy().items():
            arrived = self.tap.arrived.get(change)
            if at >= self._over and arrived is not None:
                firsts[change.shard] = min(arrived, firsts.get(change.shard, arrived))
        return max(firsts.values()) if len(firsts) == len(self.harness.shards) else None

    def conclude(self) -> Outcome:
        """Wait for the recovery, still the writers, count, verify."""
        recovered = self.recovered()
        self.writers.stop()
        committed = self.writers.committed
        wanted = list(committed)
        if self.holed:
            wanted = list({(change.shard, change.key): change for change in wanted}.values())
        self._wait_for(wanted)
        self.tap.stop()
        found = read(self.harness.settings.kafka, self.harness.topic)
        lost = [change for change in wanted if not found[change] and not self._is_read(change, found)]
        steps = [change for change in committed if not found[change] and change not in lost]
        copies = self._copies(found)
        blames: Counter[str] = Counter()
        for item in self.harness.blames(self.moved):
            blames[str(item.cause)] += item.count
        verdicts = self.harness.verify(f"faults-{self.harness.name}")
        waits = [self.tap.arrived[change] - at for change, at in committed.items() if change in self.tap.arrived]
        outcome = Outcome(
            name=self.name,
            lasted=self._over - self._begun,
            recovery=max(0.0, recovered - self._over),
            late=sum(wait > LATE for wait in waits) / len(waits),
            worst=max(waits),
            events=sum(found.values()),
            lost=len(lost),
            steps=len(steps),
            duplicates=dict(blames),
            verdict=", ".join(sorted({str(one.verdict) for one in verdicts})),
            note=self.note,
        )
        reasons = [f"{one.shard} {one.verdict}: {one.reason} {one.samples[:3]}" for one in verdicts]
        where = sorted({change.shard for change in lost})
        again = sum(found[change] for change in found if change.op == "r") - FIRST_ROWS * self.harness.count
        assert not lost, f"lost {len(lost)} of {len(committed)} in {where}, {again} rows read again: {lost[:5]}"
        assert {one.verdict for one in verdicts} == {Verdict.PROVEN}, reasons
        assert len(verdicts) == len(self.harness.shards)
        assert copies == sum(blames.values()), f"{copies} counted here, {dict(blames)} by the platform"
        return outcome

    def _wait_for(self, wanted: list[Change]) -> None:
        """Until all have arrived, or nothing has come for half a minute: then what is missing is lost."""
        seen, since = -1, time.monotonic()
        while missing := sum(change not in self.tap.arrived for change in wanted):
            if len(self.tap.arrived) != seen:
                seen, since = len(self.tap.arrived), time.monotonic()
            if time.monotonic() > since + (5.0 if self.holed else 30.0):
                break
            time.sleep(0.1)
        if missing:
            print(f"{missing} changes have not arrived")

    def _is_read(self, change: Change, found: Counter[Change]) -> bool:
        """True when a snapshot read the row as the change left it."""
        return change.op != "d" and bool(found[Change(change.shard, change.key, "r", change.v)])

    def _copies(self, found: Counter[Change]) -> int:
        """Events beyond the first of their kind. A snapshot's row is one for its key, whatever its value."""
        changes = sum(times - 1 for change, times in found.items() if change.op != "r")
        reads = Counter[tuple[str, int]]()
        for change, times in found.items():
            if change.op == "r":
                reads[change.shard, change.key] += times
        return changes + sum(times - 1 for times in reads.values())


@contextmanager
def scenario(
    name: str,
    harness: Harness,
    control_plane: ControlPlane,
    told: Callable[[Outcome | str], None],
    *,
    pause: float = 0.02,
    setup: str = "",
    early: bool = False,
) -> Iterator[Scenario]:
    """Makes the harness, and once its events flow gives it to the block; afterwards tells the outcome.

    A test that fails tells the name alone. The harness is taken away in any case. Writers begin sessions with `setup`.
    `early`: once the first events of the stream have arrived, before offsets are committed, and nothing is deleted.
    """
    tap: Tap | None = None
    writers: Writers | None = None
    try:
        harness.make()
        tap = Tap(harness.settings.kafka, harness.topic)
        tap.start()
        writers = Writers(replace(harness.sources, setup=setup), harness.shards, pause=pause)
        writers.deletes = not early
        if not early:
            assert_eventually(lambda: len(tap.arrived) >= FIRST_ROWS * harness.count, "the first rows arrived")
        writers.start()
        made = Scenario(name=name, harness=harness, writers=writers, control_plane=control_plane, tap=tap, holed=early)
        made.begin()
        made.recovered()
        if not early:
            # Before that a lost task snapshots anew, and steps in between come as rows only.
            assert_eventually(
                lambda: all(harness.streams_from(shard) for shard in harness.shards),
                "offsets of the stream are committed",
            )
        made.begin()
        yield made
        told(made.conclude())
    except BaseException:
        told(name)
        raise
    finally:
        heal(harness, control_plane)
        for part in (writers, tap):
            if part is not None:
                part.stop()
        harness.clean()


def heal(harness: Harness, control_plane: ControlPlane) -> None:
    """What a scenario that failed in its middle left stopped or dead goes on, for the next one."""
    stack = harness.stack
    for one in stack.status():
        if one.pid is None:
            stack.start(one.name, timeout=180)
        else:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(one.pid)
                for each in (process, *process.children(recursive=True)):
                    if each.status() == psutil.STATUS_STOPPED:
                        each.send_signal(signal.SIGCONT)
    control_plane.heal()

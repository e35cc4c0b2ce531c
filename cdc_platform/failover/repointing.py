"""Failover by the workers: which leader files to write, which tasks to restart. Pure.

A task reads its leader file when it starts (facts of Connect: `${file:...}` is
resolved at each start). So after a leader moved, two things are left to do on
each worker: the new file, then a restart of those of its tasks that started
with the old one. Connect does not show when a task started. What the agent
knows instead is with which file it last saw or made each task start: `applied`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from cdc_platform.connectors.leader_files import LeaderFile
from cdc_platform.model.backoff import Backoff
from cdc_platform.model.observed import ObservedTask
from cdc_platform.model.topology import Problem, Topology

# A task that starts just when the file is replaced may have read the old one, and shows on its new
# worker only once it runs or has failed: connecting to a dead host takes Debezium 30 s by default.
SETTLE_SECONDS = 60.0
# Between restarts that failed; the jitter spreads workers.
RETRY = Backoff(first=0.2, longest=10.0, jitter=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePlan:
    """What to do in the leader directory.

    `ahead` are shards whose file is newer than ZooKeeper: it is kept, since an
    older generation never wins, and is reported.
    """

    write: Mapping[str, LeaderFile]
    remove: tuple[str, ...]
    ahead: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderMove:
    """A leader that moved, and tasks of this worker that may still run with the old one.

    Times are seconds on the monotonic clock. `tries` counts restarts that failed.
    """

    leader: LeaderFile
    written_at: float
    tries: int = 0
    not_before: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What to do about moves now: (connector, task) to restart, and moves that are done."""

    restart: tuple[tuple[str, int], ...]
    settled: tuple[str, ...]


def desired_files(topology: Topology) -> dict[str, LeaderFile]:
    """What ZooKeeper says each leader file should hold, by shard name."""
    return {
        shard.name: LeaderFile(leader=shard.leader, generation=shard.generation)
        for shards in topology.shards.values()
        for shard in shards
    }


def plan_files(
    desired: Mapping[str, LeaderFile],
    files: Mapping[str, LeaderFile | None],
    problems: Iterable[Problem] = (),
    connectors: Collection[str] | None = None,
) -> FilePlan:
    """Compare the directory with a whole load of ZooKeeper.

    Args:
        desired: by shard name.
        files: what is there, by shard name; None for a file that cannot be read as one.
        problems: of the same load. What they concern is not removed.
        connectors: all connectors of the worker's cluster; None when not known. A
            file is not removed while its connector is there: a restart would fail.
    """
    write = {
        name: leader
        for name, leader in desired.items()
        if (old := files.get(name)) is None or (old != leader and old.generation <= leader.generation)
    }
    ahead = tuple(
        sorted(
            name
            for name, leader in desired.items()
            if (old := files.get(name)) is not None and old.generation > leader.generation
        )
    )
    return FilePlan(write=write, remove=_removable(desired, files, problems, connectors), ahead=ahead)


def leftover_files(desired: Mapping[str, LeaderFile], files: Mapping[str, LeaderFile | None]) -> frozenset[str]:
    """Shards with a file that ZooKeeper does not name."""
    return frozenset(files.keys() - desired.keys())


def _removable(
    desired: Mapping[str, LeaderFile],
    files: Mapping[str, LeaderFile | None],
    problems: Iterable[Problem],
    connectors: Collection[str] | None,
) -> tuple[str, ...]:
    # An empty inventory is more likely a wrong root than the wish to have nothing.
    if connectors is None or not desired:
        return ()
    unsure = {problem.name for problem in problems}
    return tuple(
        sorted(
            name
            for name in leftover_files(desired, files)
            if name not in connectors and name not in unsure and name.partition(".")[0] not in unsure
        )
    )


def baseline(
    applied: Mapping[str, LeaderFile], files: Mapping[str, LeaderFile | None], desired: Mapping[str, LeaderFile]
) -> dict[str, LeaderFile]:
    """With which leader the tasks of this worker run, before the files are written.

    What is known of shards that are desired or still have a file; else what the
    file says as it was found; a shard with neither is new, and has no task that
    could have read another leader.
    """
    known = {name: leader for name, leader in applied.items() if name in desired or name in files}
    return known | {name: files.get(name) or leader for name, leader in desired.items() if name not in known}


def moved(desired: Mapping[str, LeaderFile], applied: Mapping[str, LeaderFile | None]) -> dict[str, LeaderFile]:
    """Shards whose tasks may run with another leader than the one their file names now.

    One generation more with the same address needs no restart. Two more do: the
    leader went away and came back, and a task may have started in between.
    """
    return {
        name: leader
        for name, leader in desired.items()
        if (old := applied.get(name)) is not None
        and (old.leader != leader.leader or leader.generation - old.generation > 1)
    }


def next_steps(
    moves: Mapping[str, LeaderMove], tasks: Mapping[str, tuple[ObservedTask, ...]], worker: str, now: float
) -> Steps:
    """What to do about the moves, given a status that was read after their files were written.

    Restarted are this worker's own tasks only. A move without one is settled
    when no task can turn up any more that read the old file.
    """
    restart: list[tuple[str, int]] = []
    settled: list[str] = []
    for name, move in sorted(moves.items()):
        own = [task for task in tasks.get(name, ()) if task.worker == worker and task.state != "UNASSIGNED"]
        if own:
            restart += [(name, task.id) for task in own if now >= move.not_before]
        elif now >= move.written_at + SETTLE_SECONDS:
            settled.append(name)
    return Steps(restart=tuple(restart), settled=tuple(settled))

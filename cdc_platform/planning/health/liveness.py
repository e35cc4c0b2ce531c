"""Whether a connector that Connect calls RUNNING really captures. Pure.

Connect's REST API shows RUNNING while a source is dead, and for minutes after a
worker died. A heartbeat comes only from a task that reads its source, so its
age decides. Nothing is decided where heartbeats cannot be trusted: the topic
unreadable, silence of the whole fleet, a reading that is too short, a shard
that never beat (its initial snapshot may run for hours: Debezium sends no
heartbeats in it).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cdc_platform.connectors.engines.registry import ENGINES
from cdc_platform.model.observed import ObservedHeartbeats, ObservedWorker
from cdc_platform.model.topology import Dataset, Shard
from cdc_platform.planning.records import Kept, Record, Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class LivenessPolicy:
    """Bounds. Connectors beat every few seconds.

    `silence`: no heartbeat for so long means stuck; at least `keep_alives` of a
    rate-limited dataset's. `first_beat`: after so long without any it is reported.
    `leader_move`: so long a shard is left to the agent that moves it to a new leader.
    """

    silence: timedelta = timedelta(seconds=60)
    keep_alives: int = 5
    first_beat: timedelta = timedelta(minutes=15)
    leader_move: timedelta = timedelta(minutes=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedRecord(Record):
    """Remembered of a shard: when Connect first called it RUNNING, and under which lock generation.

    `cluster`: where it ran last; None in records of older versions.
    """

    kept = Kept("shard", Writer.REPORT, with_connector=True)

    since: datetime
    generation: int
    cluster: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRecord(Record):
    """Remembered of a shard: when its first heartbeat was seen."""

    kept = Kept("live", with_connector=True)

    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderRecord(Record):
    """Remembered of a shard's leader: the generation, and when a pass saw it first.

    One that never moved, generation 0, is remembered only where its leader file was waited for.
    """

    kept = Kept("leader", with_connector=True)

    generation: int
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """What heartbeats say of the shards that Connect calls RUNNING.

    `alive` beat within their limit; `silent` maps those that stopped to the
    seconds of silence, at least; `first` beat for the first time. The others are
    unknown. `problem`: why nothing is known.
    """

    alive: frozenset[str] = frozenset()
    silent: Mapping[str, float] = field(default_factory=dict)
    first: frozenset[str] = frozenset()
    problem: str | None = None


def silence_limit(dataset: Dataset, policy: LivenessPolicy) -> timedelta:
    """How long a shard of the dataset may be silent."""
    return max(policy.silence, policy.keep_alives * ENGINES[dataset.engine].idle_gap(dataset.limits))


def judge(
    running: Mapping[str, timedelta],
    heartbeats: ObservedHeartbeats | None,
    known: Mapping[str, LiveRecord],
    now: datetime,
    snapshotting: frozenset[str] = frozenset(),
) -> Liveness:
    """Separate those that are alive from the silent.

    Args:
        running: the shards that Connect calls RUNNING, with the silence that each may keep.
        heartbeats: what was read; None when it could not be.
        known: shards that beat before.
        now: this machine's time; it is only compared with the newest heartbeat of all.
        snapshotting: shards whose initial snapshot runs, by their worker's metrics.
    """
    if heartbeats is None:
        return Liveness(problem="the heartbeats could not be read")
    expected = sum(1 for shard in running if shard in known)
    if heartbeats.newest is None:
        return Liveness(problem=f"none of {expected} running connectors has sent a heartbeat" if expected else None)
    quiet = (now - heartbeats.newest).total_seconds()
    if expected and quiet > max(limit.total_seconds() for limit in running.values()):
        # Workers, network, brokers or a clock: no restart of a task cures that.
        return Liveness(problem=f"no connector at all has sent a heartbeat for {quiet:.0f} s, by this machine's clock")
    alive: set[str] = set()
    silent: dict[str, float] = {}
    read = (heartbeats.newest - heartbeats.since).total_seconds()
    for shard, limit in running.items():
        age = heartbeats.age(shard)
        if age is not None and age <= limit.total_seconds():
            alive.add(shard)
        elif shard in known and shard not in snapshotting:
            silence = read if age is None else age
            if silence > limit.total_seconds():
                silent[shard] = silence
    if expected and not alive:
        return Liveness(problem=f"none of {expected} running connectors has sent a heartbeat in time")
    return Liveness(alive=frozenset(alive), silent=silent, first=frozenset(alive - known.keys()))


def doubtful(
    running: Mapping[str, tuple[str, timedelta]],
    heartbeats: ObservedHeartbeats | None,
    workers: Mapping[str, ObservedWorker],
    now: datetime,
) -> frozenset[str]:
    """The shards whose sources are asked whether they still let the dataset's user in.

    A binlog client that lost its connection logs in again inside its task, with the password of the task's
    start, for ever: Connect says RUNNING, no trace says why (tried, Debezium 3.5.0). So: those without a
    connection by their worker's metrics; where these cannot be read, those without a heartbeat within their limit.

    Args:
        running: the shards that Connect calls RUNNING, with their worker and the silence that each may keep.
        heartbeats: what was read; None when it could not be.
        workers: the workers' metrics, by worker id.
        now: this machine's time. A wrong clock costs needless logins.
    """
    names: set[str] = set()
    for shard, (worker, limit) in running.items():
        metrics = workers.get(worker)
        if metrics is not None and not metrics.problem:
            doubted = shard not in metrics.streaming and shard not in metrics.snapshotting
        else:
            beats = heartbeats.beats.get(shard) if heartbeats is not None else None
            doubted = heartbeats is not None and (beats is None or now - beats.last > limit)
        if doubted:
            names.add(shard)
    return frozenset(names)


def moving(shard: Shard, record: LeaderRecord | None, now: datetime, policy: LivenessPolicy) -> datetime | None:
    """Until when the shard is left to the agent that moves it to a new leader; None when it is not.

    The deadline counts from the pass that first saw the new generation; a
    record from the future (the clock was set back) counts as seen now.
    """
    if shard.generation == 0:
        return None
    since = now if record is None or record.generation != shard.generation else min(record.since, now)
    until = since + policy.leader_move
    return until if until > now else None


def leader_changes(
    shards: Mapping[str, Shard],
    records: Mapping[str, LeaderRecord],
    now: datetime,
    awaited: Collection[str] = frozenset(),
    *,
    whole: bool = True,
) -> dict[str, LeaderRecord | None]:
    """What to remember of leaders: generations that no pass saw before; None deletes that of a shard that is gone.

    Args:
        awaited: shards that wait for their leader file: of these the first generation, 0, is remembered too.
        whole: False when shards may be missing: then only `awaited` are looked at.
    """
    changes: dict[str, LeaderRecord | None] = {}
    if whole:
        changes |= {name: None for name in records if name not in shards}
    for name in shards if whole else awaited:
        generation = shards[name].generation
        known = records.get(name)
        unknown = name in awaited if known is None else known.generation != generation
        if unknown or (known is None and generation != 0):
            changes[name] = LeaderRecord(generation=generation, since=now)
    return changes

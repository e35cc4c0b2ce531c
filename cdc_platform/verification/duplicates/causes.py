"""Attributes duplicates to a cause, and decides which are expected. Pure.

`blame` names the cause of each count that `copies` has made, from how the two runs stand to each other: so
evidence that comes later (an old task that goes on writing) still counts.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from cdc_platform.errors import TopologyError
from cdc_platform.model.naming import one_of
from cdc_platform.model.topology import EMPTY, Dataset
from cdc_platform.verification.duplicates.copies import (
    OTHER_POSITION,
    READ_AGAIN,
    SAME_RECORD,
    Pair,
    PartitionCounts,
    Span,
)
from cdc_platform.verification.policy_values import Amount, Count, read_policy


class Cause(StrEnum):
    """Why an event is in the topic more than once."""

    REDELIVERY = "redelivery"
    RETRY = "producer_retry"
    ZOMBIE = "zombie_task"
    RESNAPSHOT = "re_snapshot"
    FAILOVER = "source_failover"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """Copies of one shard with one cause: who sent them again, and where they are.

    Offsets are those of the copies. Run ids are Debezium's task runs (UUIDv7), workers
    the `WORKER` of their environment.
    """

    shard: str
    cause: Cause
    count: int
    partition: int
    first_offset: int
    last_offset: int
    since: datetime
    until: datetime
    run_before: str
    run: str
    worker_before: str
    worker: str

    def sentence(self) -> str:
        """It in one sentence."""
        who = f"run {self.run} on {self.worker or '?'}"
        earlier = "itself" if self.run == self.run_before else f"run {self.run_before} on {self.worker_before or '?'}"
        return (
            f"{self.count} x {self.cause}: {who} after {earlier}, partition {self.partition}, "
            f"offsets {self.first_offset} to {self.last_offset}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatePolicy:
    """What is expected. `dataset.verification["duplicates"]` sets it by these names.

    At-least-once delivery sends again what was sent after the last committed offset: up to
    `redelivered_a_resume` events for each resume are expected. `limits` allow so many of a
    cause; a cause without one is expected. `window_hours`: what is older does not count.
    """

    redelivered_a_resume: Count = 50_000
    window_hours: Amount = 24.0
    limits: Mapping[str, Annotated[int, msgspec.Meta(ge=0)]] = field(
        default_factory=lambda: {Cause.ZOMBIE.value: 0, Cause.RETRY.value: 0, Cause.UNKNOWN.value: 0}
    )

    @classmethod
    def of(cls, dataset: Dataset) -> DuplicatePolicy:
        """The dataset's policy. Raises TopologyError."""
        given: Any = dataset.verification.get("duplicates", EMPTY)
        where, block = f"dataset {dataset.name}", "verification.duplicates"
        if not isinstance(given, Mapping):
            raise TopologyError("must be a table.", where=where, field=block, cure="Write NAME: VALUE.")
        found = read_policy(cls, given, dataset.name, block)
        names, causes = {item.name for item in fields(cls)}, {str(cause) for cause in Cause}
        for path, known, used in ((block, names, given), (f"{block}.limits", causes, found.limits)):
            for name in used:
                if name not in known:
                    cure = one_of(name, known)
                    raise TopologyError("there is no such limit.", where=where, field=f"{path}.{name}", cure=cure)
        return replace(found, limits={**cls().limits, **found.limits})


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardDuplicates:
    """One shard's copies within the window, by cause. `alarming` of them are more than the policy allows.

    `unsure` names task runs whose copies may be counted wrong: it is not known whether they began in the middle of a
    transaction, whose events they would have numbered from 1 again.
    """

    shard: str
    counts: Mapping[Cause, int] = field(default_factory=dict)
    alarming: int = 0
    reasons: tuple[str, ...] = ()
    blames: tuple[Blame, ...] = ()
    unsure: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """All copies."""
        return sum(self.counts.values())


# A pass sees a leader move up to this long after the first task has followed it, or before the last was lost.
_OBSERVED_MS = 180_000


def blame(
    partitions: Sequence[PartitionCounts],
    leader_moves: Mapping[str, Sequence[datetime]] = EMPTY,
    *,
    since: datetime | None = None,
) -> list[Blame]:
    """The cause of all counts, in the order of shards and offsets.

    Args:
        partitions: of one topic.
        leader_moves: shard to when a pass saw that its leader had moved: the only sign on Postgres, where
            a position is the same on every server, and a sign on the others, whose replicas may have each
            event at the same position.
        since: copies that ended before it are left out.
    """
    zombies = _interleaved(partitions)
    floor = 0 if since is None else int(since.timestamp() * 1000)
    found: list[Blame] = []
    for part in partitions:
        for pair in part.pairs:
            if pair.ended < floor:
                continue
            before, after = part.spans[pair.before], part.spans[pair.after]
            cause = _cause(pair, before, after, zombies, leader_moves.get(after.shard, ()))
            found.append(
                Blame(
                    shard=after.shard,
                    cause=cause,
                    count=pair.count,
                    partition=part.partition,
                    first_offset=pair.first,
                    last_offset=pair.last,
                    since=_time(pair.begun),
                    until=_time(pair.ended),
                    run_before=before.run,
                    run=after.run,
                    worker_before=before.worker,
                    worker=after.worker,
                )
            )
    return sorted(found, key=lambda item: (item.shard, item.partition, item.first_offset))


def _cause(
    pair: Pair,
    before: Span,
    after: Span,
    zombies: set[tuple[str, frozenset[str]]],
    leader_moves: Sequence[datetime],
) -> Cause:
    if not before.run or not after.run:
        return Cause.UNKNOWN
    if pair.how == SAME_RECORD:
        return Cause.RETRY
    if pair.how == READ_AGAIN:
        return Cause.RESNAPSHOT
    if (after.shard, frozenset((before.run, after.run))) in zombies:
        return Cause.ZOMBIE
    if pair.how == OTHER_POSITION:
        return Cause.FAILOVER
    moved = any(
        before.begun < at and before.ended - _OBSERVED_MS <= at <= after.begun + _OBSERVED_MS
        for at in (int(move.timestamp() * 1000) for move in leader_moves)
    )
    # Within one run it is a connection to the source that was opened again.
    return Cause.FAILOVER if moved and before.run != after.run else Cause.REDELIVERY


def _interleaved(partitions: Sequence[PartitionCounts]) -> set[tuple[str, frozenset[str]]]:
    """Pairs of runs of one shard of which the older wrote into some partition after the younger had."""
    found: set[tuple[str, frozenset[str]]] = set()
    starts: dict[tuple[str, str], int] = {}
    for part in partitions:
        for span in part.spans:
            of_run = (span.shard, span.run)
            starts[of_run] = min(starts.get(of_run, span.begun), span.begun)
    for part in partitions:
        by_shard: dict[str, list[Span]] = defaultdict(list)
        for span in part.spans:
            if span.run:
                by_shard[span.shard].append(span)
        for shard, spans in by_shard.items():
            spans.sort(key=lambda span: run_start(span.run, starts[shard, span.run]))
            for at, old in enumerate(spans):
                for young in spans[at + 1 :]:
                    if young.run != old.run and young.first < old.last:
                        found.add((shard, frozenset((old.run, young.run))))
    return found


def run_start(run: str, first_sent: int) -> int:
    """When a run began, in ms: a UUIDv7 says it (RFC 9562, 5.7)."""
    try:
        number = uuid.UUID(run)
    except ValueError:
        return first_sent
    return number.int >> 80 if number.version == 7 else first_sent


# Judging


def unsure_runs(partitions: Sequence[PartitionCounts]) -> dict[str, tuple[str, ...]]:
    """Shard to its task runs whose copies may be counted wrong."""
    found: dict[str, set[str]] = defaultdict(set)
    for part in partitions:
        for code in part.unsure:
            found[part.spans[code].shard].add(part.spans[code].run)
    return {shard: tuple(sorted(runs)) for shard, runs in found.items()}


def judge(
    shards: Iterable[str],
    blames: Sequence[Blame],
    policy: DuplicatePolicy,
    *,
    unsure: Mapping[str, tuple[str, ...]] = EMPTY,
    keep: int = 5,
) -> list[ShardDuplicates]:
    """Each shard's copies, and how many of them are alarming. `keep` blames are named, the alarming first."""
    by_shard: dict[str, list[Blame]] = defaultdict(list)
    for item in blames:
        by_shard[item.shard].append(item)
    judged = (_judged(shard, by_shard.get(shard, []), policy, keep) for shard in shards)
    return [replace(one, unsure=unsure.get(one.shard, ())) for one in judged]


def _judged(shard: str, blames: Sequence[Blame], policy: DuplicatePolicy, keep: int) -> ShardDuplicates:
    counts: dict[Cause, int] = defaultdict(int)
    resumes: dict[tuple[str, str], int] = defaultdict(int)
    for item in blames:
        counts[item.cause] += item.count
        if item.cause in (Cause.REDELIVERY, Cause.FAILOVER):
            resumes[item.run_before, item.run] += item.count
    alarming, reasons, bad = 0, [], set()
    for cause, count in counts.items():
        limit = policy.limits.get(cause)
        if limit is not None and count > limit:
            alarming += count - limit
            bad.add(cause)
            reasons.append(f"{count} by {cause}, {limit} allowed")
    for (_, run), count in resumes.items():
        if count > policy.redelivered_a_resume:
            alarming += count - policy.redelivered_a_resume
            bad.add(Cause.REDELIVERY)
            reasons.append(f"run {run} sent {count} again, {policy.redelivered_a_resume} a resume are normal")
    ranked = sorted(blames, key=lambda item: (item.cause not in bad, -item.count))
    return ShardDuplicates(
        shard=shard, counts=dict(counts), alarming=alarming, reasons=tuple(reasons), blames=tuple(ranked[:keep])
    )


def window_start(policy: DuplicatePolicy, now: datetime) -> datetime:
    """What is older does not count."""
    return now - timedelta(hours=policy.window_hours)


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)

"""Which events were sent more than once, and who is to blame. Pure, on arrays.

Two steps. `copies` finds, for every event that is not the first of its identity, the
one before it; what was found is kept as counts by (earlier run, later run, how).
`blame` names the cause of each count, from how the two runs stand to each other: so
evidence that comes later (an old task that goes on writing) still finds its place.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from cdc_platform.errors import TopologyError
from cdc_platform.topology import EMPTY, Dataset
from cdc_platform.verification.sightings import READ, Sightings

# How a copy stands to the one before it.
SAME_PLACE, OTHER_PLACE, SAME_RECORD, READ_AGAIN = range(4)


class Cause(StrEnum):
    """Why an event is in the topic more than once."""

    REDELIVERY = "redelivery"
    RETRY = "producer_retry"
    ZOMBIE = "zombie_task"
    RESNAPSHOT = "re_snapshot"
    FAILOVER = "source_failover"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Span:
    """One task run in one partition: first and last offset and time (ms), and how many events."""

    shard: str
    run: str
    worker: str
    first: int
    last: int
    begun: int
    ended: int
    events: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Copies in one partition whose earlier one is of run `before`, the later one of run `after` (numbers).

    `how` is one of SAME_PLACE, OTHER_PLACE, SAME_RECORD, READ_AGAIN; offsets and times are the copies'.
    """

    before: int
    after: int
    how: int
    count: int
    first: int
    last: int
    begun: int
    ended: int


@dataclass(frozen=True, slots=True)
class PartitionCounts:
    """What is known of one partition. Spans are by run number."""

    partition: int
    spans: Sequence[Span]
    pairs: Sequence[Pair]


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
    """What is normal. `dataset.verification["duplicates"]` sets it by these names.

    At-least-once delivery sends again what was sent after the last committed offset: up to
    `redelivered_a_resume` events for each resume are normal. `limits` allow so many of a
    cause; a cause without one is normal. `window_hours`: what is older counts no more.
    """

    redelivered_a_resume: int = 50_000
    window_hours: float = 24.0
    limits: Mapping[str, int] = field(
        default_factory=lambda: {Cause.ZOMBIE.value: 0, Cause.RETRY.value: 0, Cause.UNKNOWN.value: 0}
    )

    @classmethod
    def of(cls, dataset: Dataset) -> DuplicatePolicy:
        """The dataset's policy. Raises TopologyError."""
        given: Any = dataset.verification.get("duplicates", EMPTY)
        where = f"dataset {dataset.name}"
        if not isinstance(given, Mapping):
            raise TopologyError("is no table.", where=where, field="verification.duplicates", cure="Write NAME: VALUE.")
        base = cls()
        found: dict[str, Any] = {}
        for name, value in given.items():
            place = f"verification.duplicates.{name}"
            if name in ("redelivered_a_resume", "window_hours"):
                if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                    raise TopologyError(
                        f"{value!r} is no such number.", where=where, field=place, cure="Use 1 or more."
                    )
                found[name] = int(value) if name == "redelivered_a_resume" else float(value)
            elif name == "limits" and isinstance(value, Mapping):
                causes = {str(cause) for cause in Cause}
                for cause, limit in value.items():
                    if cause not in causes or isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
                        raise TopologyError(
                            f"{cause}: {limit!r} is no limit.",
                            where=where,
                            field=place,
                            cure=f"Use 0 or more for one of {', '.join(sorted(causes))}.",
                        )
                found[name] = {**base.limits, **value}
            else:
                raise TopologyError(
                    "there is no such limit.",
                    where=where,
                    field=place,
                    cure="Known: limits, redelivered_a_resume, window_hours.",
                )
        return cls(**found)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardDuplicates:
    """One shard's copies within the window, by cause. `alarming` of them are more than the policy lets pass."""

    shard: str
    counts: Mapping[Cause, int] = field(default_factory=dict)
    alarming: int = 0
    reasons: tuple[str, ...] = ()
    blames: tuple[Blame, ...] = ()

    @property
    def total(self) -> int:
        """All copies."""
        return sum(self.counts.values())


# Finding


@dataclass(frozen=True, slots=True)
class Copies:
    """Places in the sightings that were looked at: the copies, the one before each, and how they relate."""

    before: npt.NDArray[np.int64]
    after: npt.NDArray[np.int64]
    how: npt.NDArray[np.uint8]


def copies(seen: Sightings, fresh: npt.NDArray[np.bool_], servers: Servers) -> Copies:
    """The copies among the `fresh` of these sightings, which hold all earlier ones of their identities.

    Events of one identity at several places are one event where the places are of
    several servers, and several events where they are of one (two updates of one row in one
    transaction). Which runs read the same server is learnt from what they share (`servers`).
    """
    order = np.argsort(seen["key"], kind="stable")
    keys = seen["key"][order]
    same = keys[1:] == keys[:-1]
    if not same.any():
        nothing = np.zeros(0, dtype=np.int64)
        return Copies(nothing, nothing, nothing.astype(np.uint8))
    order = order[np.append(same, False) | np.append(False, same)]
    order = order[np.lexsort((seen["offset"][order], seen["key"][order]))]
    ranked = seen[order]
    same = ranked["key"][1:] == ranked["key"][:-1]
    twin = np.flatnonzero(same)
    elsewhere = ranked["place"][twin] != ranked["place"][twin + 1]
    if not elsewhere.any():
        before, after = twin, twin + 1
    else:
        starts = np.cumsum(np.append(True, ~same)) - 1
        odd = np.isin(starts, starts[twin[elsewhere]])
        plain = twin[~odd[twin]]
        servers.learn(ranked, plain)
        groups: dict[int, list[int]] = defaultdict(list)
        for at in np.flatnonzero(odd).tolist():
            groups[int(starts[at])].append(at)
        for group in groups.values():
            servers.learn_group(ranked, group)
        found = [pair for group in groups.values() for pair in _matched(ranked, group, servers)]
        before = np.concatenate([plain, np.array([a for a, _ in found], dtype=np.int64)])
        after = np.concatenate([plain + 1, np.array([b for _, b in found], dtype=np.int64)])
    chosen = fresh[order[after]]
    before, after = before[chosen], after[chosen]
    return Copies(order[before], order[after], _how(ranked, before, after))


class Servers:
    """Which runs read the same server: those that saw one event at one place."""

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self._parent: dict[int, int] = {}
        for one, other in pairs:
            self.join(one, other)

    def of(self, run: int) -> int:
        """The server of a run, as the number of one of its runs."""
        while self._parent.get(run, run) != run:
            run = self._parent[run]
        return run

    def join(self, one: int, other: int) -> None:
        """These two runs read the same server."""
        self._parent[self.of(one)] = self.of(other)

    def learn(self, ranked: Sightings, twins: npt.NDArray[np.int64]) -> None:
        """From neighbours that agree in place; a place of 0 (Postgres, snapshots) says nothing."""
        twins = twins[ranked["place"][twins] != 0]
        pairs = np.unique(np.stack([ranked["run"][twins], ranked["run"][twins + 1]], axis=1), axis=0)
        for one, other in pairs.tolist():
            self.join(one, other)

    def learn_group(self, ranked: Sightings, group: Sequence[int]) -> None:
        """From the sightings of one identity."""
        by_place: dict[int, int] = {}
        for at in group:
            run, place = int(ranked["run"][at]), int(ranked["place"][at])
            if place in by_place:
                self.join(by_place[place], run)
            by_place[place] = run


def _matched(ranked: Sightings, group: Sequence[int], servers: Servers) -> Iterable[tuple[int, int]]:
    """(earlier, later) for the sightings of one identity that has several places.

    The n-th place on one server is the n-th on another.
    """
    events: list[int] = []  # the last sighting of each distinct event
    ranks: dict[int, dict[int, int]] = defaultdict(dict)  # server to place to number of the event
    for at in group:
        server, place = servers.of(int(ranked["run"][at])), int(ranked["place"][at])
        known = ranks[server]
        number = known.setdefault(place, len(known))
        if number < len(events):
            yield events[number], at
            events[number] = at
        else:
            events.append(at)


def _how(ranked: Sightings, before: Any, after: Any) -> npt.NDArray[np.uint8]:
    one, other = ranked[before], ranked[after]
    how = np.where(one["place"] == other["place"], SAME_PLACE, OTHER_PLACE).astype(np.uint8)
    how[other["kind"] == READ] = READ_AGAIN
    how[(one["run"] == other["run"]) & (one["time"] == other["time"])] = SAME_RECORD
    return how


def counted(seen: Sightings, found: Copies) -> list[Pair]:
    """Copies as counts by (earlier run, later run, how)."""
    if not len(found.after):
        return []
    columns = np.stack(
        [seen["run"][found.before].astype(np.int64), seen["run"][found.after].astype(np.int64), found.how.astype(int)]
    )
    kinds, place = np.unique(columns, axis=1, return_inverse=True)
    place = place.reshape(-1)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(place[order]) != 0))
    late = seen[found.after][order]
    ends = [ufunc.reduceat(late[name], starts) for name in ("offset", "time") for ufunc in (np.minimum, np.maximum)]
    counts = np.diff(np.append(starts, len(order)))
    return [
        Pair(int(before), int(after), int(how), *(int(part) for part in rest))
        for (before, after, how), *rest in zip(kinds.T.tolist(), counts, *ends, strict=True)
    ]


def merged(pairs: Iterable[Pair]) -> list[Pair]:
    """Counts of the same (earlier run, later run, how) in one."""
    found: dict[tuple[int, int, int], Pair] = {}
    for pair in pairs:
        key = (pair.before, pair.after, pair.how)
        known = found.get(key)
        found[key] = (
            pair
            if known is None
            else Pair(
                *key,
                known.count + pair.count,
                min(known.first, pair.first),
                max(known.last, pair.last),
                min(known.begun, pair.begun),
                max(known.ended, pair.ended),
            )
        )
    return list(found.values())


# Blaming

# A pass sees a leader change up to this long after the first task has followed it, or before the last was lost.
_NOTICED_MS = 180_000


def blame(
    partitions: Sequence[PartitionCounts],
    moves: Mapping[str, Sequence[datetime]] = EMPTY,
    *,
    since: datetime | None = None,
) -> list[Blame]:
    """The cause of all counts, in the order of shards and offsets.

    Args:
        partitions: of one topic.
        moves: shard to when its leader was seen to have moved: the only sign on Postgres, where
            a position is the same on every server, and a sign on the others, whose replicas may have each
            event at the same place.
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
            cause = _cause(pair, before, after, zombies, moves.get(after.shard, ()))
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
    moves: Sequence[datetime],
) -> Cause:
    if not before.run or not after.run:
        return Cause.UNKNOWN
    if pair.how == SAME_RECORD:
        return Cause.RETRY
    if pair.how == READ_AGAIN:
        return Cause.RESNAPSHOT
    if (after.shard, frozenset((before.run, after.run))) in zombies:
        return Cause.ZOMBIE
    if pair.how == OTHER_PLACE:
        return Cause.FAILOVER
    moved = any(
        before.begun < at and before.ended - _NOTICED_MS <= at <= after.begun + _NOTICED_MS
        for at in (int(move.timestamp() * 1000) for move in moves)
    )
    # Within one run it is a connection to the source that was opened anew.
    return Cause.FAILOVER if moved and before.run != after.run else Cause.REDELIVERY


def _interleaved(partitions: Sequence[PartitionCounts]) -> set[tuple[str, frozenset[str]]]:
    """Pairs of runs of one shard of which the older wrote into some partition after the younger had."""
    found: set[tuple[str, frozenset[str]]] = set()
    births: dict[tuple[str, str], int] = {}
    for part in partitions:
        for span in part.spans:
            who = (span.shard, span.run)
            births[who] = min(births.get(who, span.begun), span.begun)
    for part in partitions:
        by_shard: dict[str, list[Span]] = defaultdict(list)
        for span in part.spans:
            if span.run:
                by_shard[span.shard].append(span)
        for shard, spans in by_shard.items():
            spans.sort(key=lambda span: born(span.run, births[shard, span.run]))
            for at, old in enumerate(spans):
                for young in spans[at + 1 :]:
                    if young.run != old.run and young.first < old.last:
                        found.add((shard, frozenset((old.run, young.run))))
    return found


def born(run: str, first_seen: int) -> int:
    """When a run began, in ms: a UUIDv7 says it (RFC 9562, 5.7)."""
    try:
        number = uuid.UUID(run)
    except ValueError:
        return first_seen
    return number.int >> 80 if number.version == 7 else first_seen


# Judging


def judge(
    shards: Iterable[str], blames: Sequence[Blame], policy: DuplicatePolicy, *, keep: int = 5
) -> list[ShardDuplicates]:
    """Each shard's copies, and how many of them are alarming. `keep` blames are named, the alarming first."""
    by_shard: dict[str, list[Blame]] = defaultdict(list)
    for item in blames:
        by_shard[item.shard].append(item)
    return [_judged(shard, by_shard.get(shard, []), policy, keep) for shard in shards]


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
    """What is older counts no more."""
    return now - timedelta(hours=policy.window_hours)


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)

"""A task that two workers run at once, and what is done about it. Pure.

Connect's leader believes in one worker per task; a worker that lost its membership
of the group, or whose task did not end in time, may run another copy on
(KAFKA-9841, KAFKA-13719, KAFKA-16056). Two things show it: heartbeats of one
shard that two workers send in turn, and two workers whose metrics both show
the shard's task connected to its source.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cdc_platform.model.observed import ObservedBeats, ObservedHeartbeats, ObservedWorker
from cdc_platform.planning.records import Kept, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class ZombiePolicy:
    """Bounds. A moved task leaves its old worker within seconds, so only what lasts is a zombie.

    `overlap`: heartbeats of two workers over so long. `confirmed`: seen by passes
    over so long. `bounces`: so many stops and resumes, then an operator is asked.
    """

    overlap: timedelta = timedelta(seconds=20)
    confirmed: timedelta = timedelta(seconds=45)
    bounces: int = 2
    pause: timedelta = timedelta(minutes=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A shard whose task seems to run twice: on which workers, and what says so."""

    shard: str
    workers: tuple[str, ...]
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ZombieRecord(Record):
    """Remembered of a suspect."""

    kept = Kept("zombie", with_connector=True)

    since: datetime
    workers: tuple[str, ...]
    bounces: int = 0
    last_bounce: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ZombieDecision:
    """Whom to stop and resume now with the reason, what to remember (None deletes), and findings."""

    stop_and_resume: Mapping[str, str]
    records: Mapping[str, ZombieRecord | None]
    findings: Mapping[str, str]


def suspects(
    heartbeats: ObservedHeartbeats | None, workers: Mapping[str, ObservedWorker], policy: ZombiePolicy
) -> dict[str, Suspect]:
    """The shards whose task seems to run on two workers now."""
    doubled: dict[str, Suspect] = {}
    homes: dict[str, list[str]] = defaultdict(list)
    for worker in workers.values():
        for shard in worker.streaming:
            homes[shard].append(worker.worker)
    for shard, on in homes.items():
        if len(on) > 1:
            names = tuple(sorted(on))
            doubled[shard] = Suspect(shard=shard, workers=names, evidence=f"connected on {' and '.join(names)}")
    for shard, beats in (heartbeats.beats if heartbeats else {}).items():
        if len(beats.senders) > 1 and (pair := _overlapping(beats, policy)):
            doubled[shard] = Suspect(
                shard=shard, workers=pair, evidence=f"heartbeats from {' and '.join(pair)} in turn"
            )
    return doubled


def _overlapping(beats: ObservedBeats, policy: ZombiePolicy) -> tuple[str, str] | None:
    """Two senders whose heartbeats overlap for long enough, and did so lately."""
    spans = sorted(beats.senders.items(), key=lambda item: item[1][1], reverse=True)
    newest, second = spans[0], spans[1]
    begin, end = max(newest[1][0], second[1][0]), second[1][1]
    if end - begin < policy.overlap or beats.last - end > policy.overlap:
        return None
    first, other = sorted((newest[0], second[0]))
    return first, other


def decide(
    doubled: Mapping[str, Suspect], records: Mapping[str, ZombieRecord], now: datetime, policy: ZombiePolicy
) -> ZombieDecision:
    """Stop and resume what has been suspect for long enough.

    A stop takes the task's configuration away from every worker of the group,
    also from one that does not know that the task is another's; the resume gives
    it to one. What survives that is a thread that its worker has lost: only a
    restart of that worker ends it.
    """
    stopping: dict[str, str] = {}
    changes: dict[str, ZombieRecord | None] = {name: None for name in records if name not in doubled}
    findings: dict[str, str] = {}
    for name, suspect in sorted(doubled.items()):
        record = records.get(name)
        if record is None:
            changes[name] = record = ZombieRecord(since=now, workers=suspect.workers)
        since = min(record.since, now)
        text = f"its task seems to run twice ({suspect.evidence})"
        if now - since < policy.confirmed:
            findings[name] = f"{text}; watched"
        elif record.bounces >= policy.bounces:
            findings[name] = (
                f"{text}; stopping and resuming it {record.bounces} times did not help: "
                f"restart the worker that is not its own, one of {' and '.join(suspect.workers)}"
            )
        elif record.last_bounce is None or now - min(record.last_bounce, now) >= policy.pause:
            stopping[name] = text
            changes[name] = replace(record, bounces=record.bounces + 1, last_bounce=now, workers=suspect.workers)
        else:
            findings[name] = f"{text}; stopped and resumed at {record.last_bounce:%H:%M:%S}Z"
    return ZombieDecision(stop_and_resume=stopping, records=changes, findings=findings)

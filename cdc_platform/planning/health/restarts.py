"""When a failed connector is restarted, and when it is better left alone. Pure.

Restarts of one shard back off exponentially; its record lives in the
state topic, so that neither a restart of the control plane nor a moment of
RUNNING deletes it. Shards that fail for the same reason on the same source
host form a group: one of them is restarted as a probe, the others follow once
it stays up. So a broken host with 500 shards costs one restart per backoff interval.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from cdc_platform.model.backoff import Backoff
from cdc_platform.model.naming import ShardName
from cdc_platform.planning.health.failures import CURES, Failure
from cdc_platform.planning.records import Kept, Record, Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """Bounds of restarting. Counts are per pass."""

    fleet_budget: int = 100
    worker_budget: int = 10
    longest_wait: timedelta = timedelta(hours=1)
    healthy_after: timedelta = timedelta(minutes=10)
    crash_loop_after: int = 6
    group_from: int = 3
    jitter: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartRecord(Record):
    """What is remembered of one shard's restarts. `attempts` counts since it was last healthy."""

    kept = Kept("restart", Writer.RESTART, with_connector=True)

    failure: Failure
    attempts: int
    first_failed: datetime
    last_restart: datetime | None
    next_restart: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """One connector that is down now. `host` is its source's leader, `worker` where its task failed."""

    name: str
    failure: Failure
    host: str
    worker: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A failing connector that is not restarted now: until when, and why."""

    until: datetime | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartDecision:
    """Which connectors to restart now, which wait, and what to remember.

    `records` holds only what changed; None deletes a record.
    """

    restart: tuple[Failing, ...]
    waiting: Mapping[str, Waiting]
    records: Mapping[str, RestartRecord | None]
    crash_looping: frozenset[str]


def decide(
    failing: Sequence[Failing],
    healthy: Mapping[str, str],
    records: Mapping[str, RestartRecord],
    now: datetime,
    policy: RestartPolicy | None = None,
) -> RestartDecision:
    """Choose the restarts of one pass.

    Args:
        failing: every connector that is down.
        healthy: connectors that run now, with their source hosts. A record is deleted
            only after `healthy_after` without a restart; a host with a healthy connector
            is back, so its others need no probe.
        records: what was remembered, by connector name.
        now: the pass's time.
        policy: bounds.
    """
    policy = policy or RestartPolicy()
    waiting: dict[str, Waiting] = {}
    changed: dict[str, RestartRecord | None] = {}
    due: list[Failing] = []
    looping: set[str] = set()
    written = records
    records = {name: _plausible(record, now, policy) for name, record in written.items()}
    for name, known in records.items():
        if known is not written[name]:
            changed[name] = known
        since = known.last_restart or known.first_failed
        # Without a restart there is nothing that a moment of RUNNING could hide.
        if name in healthy and (known.attempts == 0 or now - since >= policy.healthy_after):
            changed[name] = None
    probes = _probes(failing, healthy, records, policy)
    rests = _rests(probes, records)
    for item in sorted(failing, key=lambda f: f.name):
        record = records.get(item.name)
        cure = CURES[item.failure]
        if record is not None and record.attempts >= policy.crash_loop_after:
            looping.add(item.name)
        if record is None or record.failure is not item.failure:
            first_due = now + (cure.patience if cure.automatic else cure.first_wait)
            record = RestartRecord(
                failure=item.failure,
                attempts=record.attempts if record else 0,
                first_failed=record.first_failed if record else now,
                last_restart=record.last_restart if record else None,
                # A restart's backoff holds for the next class, too; patience with another class does not.
                next_restart=max(first_due, record.next_restart) if record and record.attempts else first_due,
            )
            changed[item.name] = record
        if not cure.automatic:
            waiting[item.name] = Waiting(None, f"{item.failure}: {cure.advice}")
        elif item.name in probes and probes[item.name] != item.name:
            waiting[item.name] = Waiting(None, f"{item.failure} at {item.host}: {probes[item.name]} is tried first")
        elif item.name in probes and rests[item.name] > now:
            waiting[item.name] = Waiting(rests[item.name], f"{item.failure} at {item.host}: tried a moment ago")
        elif record.next_restart > now:
            waiting[item.name] = Waiting(record.next_restart, f"{item.failure}: backing off")
        else:
            due.append(item)
    chosen = _within_budget(due, policy, waiting)
    for item in chosen:
        record = changed.get(item.name) or records[item.name]
        attempts = record.attempts + 1
        changed[item.name] = replace(
            record,
            attempts=attempts,
            last_restart=now,
            next_restart=now + backoff(item.name, item.failure, attempts, policy),
        )
    return RestartDecision(restart=tuple(chosen), waiting=waiting, records=changed, crash_looping=frozenset(looping))


def backoff(name: str, failure: Failure, attempts: int, policy: RestartPolicy) -> timedelta:
    """How long after restart number `attempts` the next may come. The jitter is fixed by name and number."""
    first = CURES[failure].first_wait
    longest = max(policy.longest_wait, first)
    digest = hashlib.sha256(f"{name}:{attempts}".encode()).digest()
    waits = Backoff(first=first.total_seconds(), longest=longest.total_seconds(), jitter=policy.jitter)
    return timedelta(seconds=waits.wait(attempts, at=int.from_bytes(digest[:4], "big") / 2**32))


def _plausible(record: RestartRecord, now: datetime, policy: RestartPolicy) -> RestartRecord:
    """The record with times that this clock could have written: a jump must not put restarts off for years."""
    longest = max(policy.longest_wait, CURES[record.failure].first_wait) * (1 + policy.jitter)
    latest = max(record.first_failed, record.last_restart or record.first_failed)
    if record.next_restart <= now + longest and latest <= now:
        return record
    return replace(
        record,
        first_failed=min(record.first_failed, now),
        last_restart=min(record.last_restart, now) if record.last_restart else None,
        next_restart=min(record.next_restart, now + longest),
    )


def _group(name: str, failure: Failure, host: str) -> tuple[str, str]:
    """What shares a cause: the source host, and for credentials the dataset they belong to as well."""
    return host, ShardName.parse(name).dataset if failure is Failure.AUTHENTICATION else ""


def _probes(
    failing: Sequence[Failing], healthy: Mapping[str, str], records: Mapping[str, RestartRecord], policy: RestartPolicy
) -> dict[str, str]:
    """Member name to the probe of its group, for groups large enough to be one cause.

    The probe is the member that waited longest, so that a shard broken for a
    reason of its own does not stop the group for ever.
    """
    if not failing:
        return {}
    live = {(host, "") for host in healthy.values()}
    live |= {_group(name, Failure.AUTHENTICATION, host) for name, host in healthy.items()}
    # Who has a slot already proves nothing: only one that was down for want of one, and runs.
    freed = {
        (host, "")
        for name, host in healthy.items()
        if name in records and records[name].failure is Failure.NO_FREE_SLOT
    }
    groups: dict[tuple[Failure, tuple[str, str]], list[str]] = defaultdict(list)
    for item in failing:
        group = _group(item.name, item.failure, item.host)
        back = freed if item.failure is Failure.NO_FREE_SLOT else live
        if CURES[item.failure].probe and group not in back:
            groups[item.failure, group].append(item.name)
    probes: dict[str, str] = {}
    for members in groups.values():
        if len(members) < policy.group_from:
            continue
        probe = min(
            members, key=lambda name: (records[name].next_restart.timestamp() if name in records else 0.0, name)
        )
        probes.update(dict.fromkeys(members, probe))
    return probes


def _rests(probes: Mapping[str, str], records: Mapping[str, RestartRecord]) -> dict[str, datetime]:
    """Probe to the time before which its group is left alone: `first_wait` after the last restart of any member."""
    rests: dict[str, datetime] = {probe: datetime.min.replace(tzinfo=UTC) for probe in probes.values()}
    for member, probe in probes.items():
        record = records.get(member)
        if record is not None and record.last_restart is not None:
            rests[probe] = max(rests[probe], record.last_restart + CURES[record.failure].first_wait)
    return rests


def _within_budget(due: Sequence[Failing], policy: RestartPolicy, waiting: dict[str, Waiting]) -> list[Failing]:
    chosen: list[Failing] = []
    per_worker: dict[str, int] = defaultdict(int)
    for item in due:
        if len(chosen) >= policy.fleet_budget:
            waiting[item.name] = Waiting(None, f"{item.failure}: this pass restarts enough already")
        elif per_worker[item.worker] >= policy.worker_budget:
            waiting[item.name] = Waiting(None, f"{item.failure}: {item.worker} restarts enough already")
        else:
            per_worker[item.worker] += 1
            chosen.append(item)
    return chosen

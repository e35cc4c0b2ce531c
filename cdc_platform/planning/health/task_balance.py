"""Whether a Connect cluster's tasks sit unevenly on its workers, and what is done about it. Pure.

REST has no call to rebalance. But every change of a connector makes Connect's
assignor look at all workers again, and since KAFKA-12495 it then takes surplus
tasks from the workers with most. So the first remedy is to stop and
resume one connector of the fullest worker; while the skew stays, a few more,
whose own tasks then go to the emptiest workers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cdc_platform.model.observed import ObservedCluster, ObservedWorker
from cdc_platform.model.topology import Cluster
from cdc_platform.planning.records import Kept, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancePolicy:
    """Bounds. A worker may have `tolerance` more tasks than the mean, and `share` of it.

    `settled`: a skew must last so long, longer than a restart of a worker takes.
    `pause`: between two cures. `most`: connectors stopped and resumed a cure.
    """

    tolerance: int = 5
    share: float = 0.5
    settled: timedelta = timedelta(minutes=3)
    pause: timedelta = timedelta(minutes=2)
    most: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SkewRecord(Record):
    """Remembered of a cluster whose tasks are unevenly spread."""

    kept = Kept("skew")

    since: datetime
    cures: int = 0
    last_cure: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceDecision:
    """Which connectors to stop and resume, what to remember, and a finding."""

    stop_and_resume: tuple[str, ...] = ()
    record: SkewRecord | None = None
    changed: bool = False
    finding: str | None = None


def tasks_by_worker(
    cluster: Cluster, observed: ObservedCluster, workers: Mapping[str, ObservedWorker]
) -> dict[str, int] | None:
    """Tasks of each live worker, idle ones too where metrics show them.

    None while the group is not settled: a task without a worker, or the cluster unknown.
    """
    if observed.connectors is None:
        return None
    count: Counter[str] = Counter()
    for connector in observed.connectors.values():
        for task in connector.tasks:
            if task.state == "UNASSIGNED":
                return None
            count[task.worker] += 1
    for worker in cluster.metrics:
        metrics = workers.get(worker)
        if metrics is not None and metrics.problem is None:
            count[worker] += 0
    return dict(count)


def fullest(tasks: Mapping[str, int], policy: BalancePolicy) -> tuple[str, int] | None:
    """The worker with the most tasks and its surplus over the mean; None when the spread is even enough."""
    if len(tasks) < 2:
        return None
    mean = sum(tasks.values()) / len(tasks)
    worker = max(sorted(tasks), key=lambda name: tasks[name])
    surplus = tasks[worker] - math.ceil(mean)
    return (worker, surplus) if surplus > max(policy.tolerance, policy.share * mean) else None


def decide(
    tasks: Mapping[str, int] | None,
    movable: Mapping[str, Sequence[str]],
    record: SkewRecord | None,
    now: datetime,
    policy: BalancePolicy,
) -> BalanceDecision:
    """Choose the connectors to stop and resume in one cluster.

    Args:
        tasks: tasks by worker; None while the group is not settled.
        movable: our healthy connectors by the worker of their task.
        record: what was remembered of this cluster.
        now: the pass's time.
        policy: bounds.
    """
    if tasks is None:
        return BalanceDecision(record=record)
    surplus_at = fullest(tasks, policy)
    if surplus_at is None:
        return BalanceDecision(record=None, changed=record is not None)
    worker, surplus = surplus_at
    text = f"{worker} has {tasks[worker]} of {sum(tasks.values())} tasks, {len(tasks)} workers are up"
    if record is None:
        return BalanceDecision(record=SkewRecord(since=now), changed=True, finding=f"{text}; watched")
    rested = record.last_cure is None or now - min(record.last_cure, now) >= policy.pause
    if now - min(record.since, now) < policy.settled or not rested:
        return BalanceDecision(record=record, finding=f"{text}; watched")
    number = 1 if record.cures == 0 else min(policy.most, surplus)
    chosen = tuple(sorted(movable.get(worker, ()))[:number])
    if not chosen:
        return BalanceDecision(record=record, finding=f"{text}; none of them may be moved")
    cured = replace(record, cures=record.cures + 1, last_cure=now)
    return BalanceDecision(stop_and_resume=chosen, record=cured, changed=True, finding=text)

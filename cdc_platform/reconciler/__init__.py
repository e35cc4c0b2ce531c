"""One pass of the control plane: look, plan, apply, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from cdc_platform.clients.platform import Platform
from cdc_platform.clients.protocols import ControlLock
from cdc_platform.errors import PlanStale
from cdc_platform.plan import RestartConnector
from cdc_platform.planner import Memory, Planned, Policy, make_plan
from cdc_platform.reconciler.apply import Applier, Progress
from cdc_platform.reconciler.due import Due, due
from cdc_platform.reconciler.ideal import ideal_state
from cdc_platform.reconciler.look import look, look_again
from cdc_platform.reconciler.memory import (
    captured_shards,
    forget_and_keep,
    read_memory,
    shard_record,
    size_records,
)
from cdc_platform.reconciler.report import PassReport, health_of, homes_of, running_shards
from cdc_platform.state import Picture

__all__ = ["Due", "PassReport", "Planned", "Policy", "due", "look", "plan_pass", "policy_of", "reconcile"]

Captured = Callable[[tuple[str, ...]], None]


def policy_of(platform: Platform, *, allow_deletes: int | None = None, accept_shrink: bool = False) -> Policy:
    """The bounds that the settings give, with one pass's allowances."""
    settings = platform.settings
    return Policy(
        platform=settings.platform,
        max_deletes=settings.max_deletes,
        max_delete_fraction=settings.max_delete_fraction,
        allow_deletes=allow_deletes,
        accept_shrink=accept_shrink,
    )


def plan_pass(platform: Platform, policy: Policy | None = None) -> tuple[Picture, Planned]:
    """Look and plan, and change nothing. Raises Unavailable when there is no whole picture."""
    picture = look(platform)
    return picture, _plan(platform, picture, read_memory(platform.state.read()), policy)


def _plan(platform: Platform, picture: Picture, memory: Memory, policy: Policy | None) -> Planned:
    topology, wanted = ideal_state(picture.topology, platform.settings)
    return make_plan(replace(picture, topology=topology), wanted, memory, policy or policy_of(platform))


def reconcile(
    platform: Platform,
    *,
    owner: str,
    policy: Policy | None = None,
    expect: str | None = None,
    progress: Progress = lambda text: None,
    on_captured: Captured = lambda names: None,
    wait_for_lock: float = 0.0,
) -> PassReport:
    """One pass under the ZooKeeper lock.

    Args:
        platform: the clients.
        owner: shown to others while the lock is held, such as a Dagster run id.
        policy: bounds; from the settings by default.
        expect: the fingerprint of a plan seen before: anything else is refused.
        progress: told what happens, a sentence at a time.
        on_captured: told the shards (`<dataset>.<shard>`) that run for the first time,
            before that is recorded: at least once for each.
        wait_for_lock: seconds to wait for a pass that runs now.

    Raises:
        LockHeld, LockLost, PlanStale, ZooKeeperUnavailable, Fenced, KafkaUnavailable.
    """
    with platform.topology.lock(owner=owner, timeout=wait_for_lock) as lock:
        return _locked_pass(platform, lock, policy, expect, progress, on_captured)


def _locked_pass(
    platform: Platform,
    lock: ControlLock,
    policy: Policy | None,
    expect: str | None,
    progress: Progress,
    on_captured: Captured,
) -> PassReport:
    clock = _Phases()
    deadline = time.monotonic() + platform.settings.pass_budget
    records = platform.state.read()
    memory = read_memory(records)
    clock.lap("state")
    picture = look(platform)
    clock.lap("look")
    planned = _plan(platform, picture, memory, policy)
    clock.lap("plan")
    if expect is not None and planned.plan.fingerprint != expect:
        raise PlanStale(
            f"the world moved: {planned.plan.sentence()}",
            where=f"plan {expect}",
            cure="Make a new plan and look at it before you apply it.",
        )
    if planned.plan:
        progress(planned.plan.sentence())

    def remember(restart: RestartConnector) -> None:
        record = planned.records.get(restart.name)
        if record is not None:
            platform.state.write(forget_and_keep({restart.name: record}))

    applier = Applier(
        platform=platform,
        lock=lock,
        clusters=picture.topology.clusters,
        deadline=deadline,
        progress=progress,
        on_restart=remember,
    )
    outcomes = applier.apply(planned.plan)
    clock.lap("apply")
    clusters = look_again(platform, picture.topology) if outcomes else picture.clusters
    captured = tuple(sorted(running_shards(picture, clusters) - captured_shards(records)))
    if captured:
        on_captured(captured)
    _record(platform, lock, planned, outcomes, picture.taken_at, records, captured)
    clock.lap("report")
    return PassReport(
        generation=lock.generation,
        taken_at=picture.taken_at,
        plan=planned.plan,
        outcomes=outcomes,
        health=health_of(picture.topology, planned, clusters),
        captured=captured,
        phases=clock.seconds,
        homes=homes_of(clusters, platform=platform.settings.platform),
    )


def _record(
    platform: Platform,
    lock: ControlLock,
    planned: Planned,
    outcomes: tuple[Any, ...],
    now: datetime,
    records: Mapping[str, Mapping[str, Any]],
    captured: tuple[str, ...],
) -> None:
    """Write what this pass learned; nothing where nothing changed."""
    lock.check()
    # A restart that came through is on record already; one that did not must not count as an attempt.
    tried = {o.action.name for o in outcomes if isinstance(o.action, RestartConnector)}
    news: dict[str, Mapping[str, Any] | None] = {}
    news |= forget_and_keep({name: r for name, r in planned.records.items() if name not in tried})
    news |= {f"shard/{name}": shard_record(now, lock.generation) for name in captured}
    news |= {key: value for key, value in size_records(planned).items() if records.get(key) != value}
    if news:
        platform.state.write(news)


class _Phases:
    """Seconds by phase, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = now - self._last
        self._last = now

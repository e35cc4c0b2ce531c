"""One pass of the control plane: look, plan, apply, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from cdc_platform.clients.platform import Platform
from cdc_platform.errors import PlanStale
from cdc_platform.model.observed import ObservedCluster, ObservedState
from cdc_platform.model.topology import EMPTY
from cdc_platform.planning.actions import DeleteConnector, RestartConnector
from cdc_platform.planning.planner import PassPolicy, Planned, make_plan
from cdc_platform.reconciler import last_pass
from cdc_platform.reconciler.apply import apply
from cdc_platform.reconciler.ended_watermarks import ended_watermarks
from cdc_platform.reconciler.lock_watch import LockWatch, Progress
from cdc_platform.reconciler.observe import observe, observe_again
from cdc_platform.reconciler.pending_changes import Due, due
from cdc_platform.reconciler.process_memory import give_back_large_blocks, rarer_collections
from cdc_platform.reconciler.report import (
    ActionOutcome,
    ActionStatus,
    DatasetHealth,
    PassReport,
    health_of,
    homes_of,
    lags_of,
    running_shards,
)
from cdc_platform.reconciler.state_records import (
    Documents,
    News,
    captured_documents,
    captured_shards,
    forgotten,
    news,
    read_memory,
    restart_documents,
)

__all__ = ["Due", "PassPolicy", "PassReport", "Planned", "due", "observe", "plan_pass", "policy_of", "reconcile"]

Captured = Callable[[tuple[str, ...]], None]


def policy_of(platform: Platform, *, allow_deletes: int | None = None, accept_shrink: bool = False) -> PassPolicy:
    """The bounds that the settings give, with one pass's allowances."""
    settings = platform.settings
    return PassPolicy(
        platform=settings.platform,
        max_deletes=settings.max_deletes,
        max_delete_fraction=settings.max_delete_fraction,
        allow_deletes=allow_deletes,
        accept_shrink=accept_shrink,
    )


def plan_pass(platform: Platform, policy: PassPolicy | None = None) -> tuple[ObservedState, Planned]:
    """Look and plan, and change nothing. Raises Unavailable when there is no whole picture."""
    return _seen(platform, policy)[:2]


def _seen(platform: Platform, policy: PassPolicy | None) -> tuple[ObservedState, Planned, Documents, dict[str, float]]:
    """ObservedState, plan, the state topic's records, and seconds by phase."""
    give_back_large_blocks()
    clock = _Phases()
    policy = policy or policy_of(platform)
    with rarer_collections(), ThreadPoolExecutor(max_workers=1, thread_name_prefix="state") as pool:
        reading = pool.submit(platform.state.read)
        picture, wanted = observe(platform, policy.liveness)
        records = reading.result()
        clock.lap("look")
        planned = make_plan(picture, wanted, read_memory(records), policy)
        clock.lap("plan")
    return picture, planned, records, clock.seconds


def reconcile(
    platform: Platform,
    *,
    owner: str,
    policy: PassPolicy | None = None,
    expect: str | None = None,
    progress: Progress = lambda text: None,
    on_captured: Captured = lambda names: None,
    on_lock: Callable[[int], None] = lambda generation: None,
    wait_for_lock: float = 0.0,
) -> PassReport:
    """One pass under the ZooKeeper lock.

    Args:
        platform: the clients.
        owner: shown to others while the lock is held, such as a Dagster run id.
        policy: bounds; from the settings by default.
        expect: the fingerprint of a plan seen before: anything else is refused.
        progress: told what happens, a sentence at a time, in the calling thread.
        on_captured: told the shards (`<dataset>.<shard>`) that run for the first time,
            before that is recorded: at least once for each.
        on_lock: told the lock's generation as soon as it is held.
        wait_for_lock: seconds to wait for a pass that runs now.

    Raises:
        LockHeld, LockLost, PlanStale, ZooKeeperUnavailable, Fenced, KafkaUnavailable.
    """
    with platform.topology.lock(owner=owner, timeout=wait_for_lock) as lock:
        on_lock(lock.generation)
        return _Pass(platform, LockWatch(lock), progress, on_captured).run(policy, expect)


class _Pass:
    """One pass under a lock."""

    def __init__(self, platform: Platform, watch: LockWatch, progress: Progress, on_captured: Captured) -> None:
        self.platform = platform
        self.watch = watch
        self.progress = progress
        self.on_captured = on_captured

    def run(self, policy: PassPolicy | None, expect: str | None) -> PassReport:
        deadline = time.monotonic() + self.platform.settings.pass_budget
        picture, planned, records, seconds = self.watch.run(lambda tell: _seen(self.platform, policy))
        clock = _Phases(seconds)
        if expect is not None and planned.plan.fingerprint != expect:
            raise PlanStale(
                f"the world moved: {planned.plan.sentence()}",
                where=f"plan {expect}",
                cure="Make a new plan and look at it before you apply it.",
            )
        self.watch.check()
        self.platform.state.claim(self.watch.generation)
        # What a plan leans on is on record before it is applied: which canaries had what, and that
        # something was stopped and resumed or is no longer captured, which nothing else shows afterwards.
        self._write(news(planned, records) | ended_watermarks(planned.plan.actions, picture.topology, records))
        outcomes: tuple[ActionOutcome, ...] = ()
        if planned.plan:
            self.progress(planned.plan.sentence())
            outcomes = self.watch.run(lambda tell: self._apply(picture, planned, deadline, tell), self.progress)
        clock.lap("apply")
        clusters = picture.clusters
        if outcomes:
            clusters = self.watch.run(lambda tell: observe_again(self.platform, picture.topology))
        running = running_shards(picture, clusters)
        captured = tuple(sorted(running.keys() - captured_shards(records)))
        if captured:
            self.on_captured(captured)
        clock.lap("report")
        health = health_of(picture.topology, planned, clusters)
        self._record(picture, planned, outcomes, clusters, health, running, clock.seconds, records)
        return PassReport(
            generation=self.watch.generation,
            taken_at=picture.taken_at,
            plan=planned.plan,
            outcomes=outcomes,
            health=health,
            captured=captured,
            phases=clock.seconds,
            homes=homes_of(clusters, platform=self.platform.settings.platform),
            lags=lags_of(picture),
        )

    def _apply(
        self, picture: ObservedState, planned: Planned, deadline: float, tell: Progress
    ) -> tuple[ActionOutcome, ...]:
        def remember(restart: RestartConnector) -> None:
            record = planned.records.get(restart.name)
            if record is not None:
                self._write(restart_documents({restart.name: record}))

        return apply(
            planned.plan,
            platform=self.platform,
            topology=picture.topology,
            watch=self.watch,
            deadline=deadline,
            progress=tell,
            on_restart=remember,
        )

    def _record(
        self,
        picture: ObservedState,
        planned: Planned,
        outcomes: tuple[ActionOutcome, ...],
        clusters: Mapping[str, ObservedCluster],
        health: Mapping[str, DatasetHealth],
        running: Mapping[str, str],
        seconds: Mapping[str, float],
        records: Documents,
    ) -> None:
        """Write what this pass learned."""
        # A restart that came through is on record already; one that did not must not count as an attempt.
        tried = {o.action.name for o in outcomes if isinstance(o.action, RestartConnector)}
        learned = restart_documents({name: r for name, r in planned.records.items() if name not in tried})
        learned |= captured_documents(running, records, picture.taken_at, self.watch.generation)
        for outcome in outcomes:
            if isinstance(outcome.action, DeleteConnector) and outcome.status is ActionStatus.DONE:
                learned |= {key: None for key in forgotten(outcome.action.name) if key in records}
        learned[last_pass.KEY] = last_pass.last_pass(
            generation=self.watch.generation,
            picture=picture,
            planned=planned,
            outcomes=outcomes,
            clusters=clusters,
            health=health,
            seconds=seconds,
            before=records.get(last_pass.KEY),
        )
        self._write(learned)

    def _write(self, records: News) -> None:
        if records:
            self.watch.check()
            self.platform.state.write(records)


class _Phases:
    """Seconds by phase, in order."""

    def __init__(self, before: Mapping[str, float] = EMPTY) -> None:
        self.seconds: dict[str, float] = dict(before)
        self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = now - self._last
        self._last = now

"""One pass of the control plane: what is desired, what is observed, plan, apply, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

from cdc_platform.clients.platform import Platform
from cdc_platform.errors import PlanStale
from cdc_platform.model.observed import ObservedState
from cdc_platform.model.topology import EMPTY
from cdc_platform.planning.actions import DeleteConnector, GiveUpSlot, PublishTables, RestartConnector
from cdc_platform.planning.health.restarts import RestartRecord
from cdc_platform.planning.health.source_hazards import SourceRecord, given_up, with_left_out
from cdc_platform.planning.inputs import PassPolicy, Planned
from cdc_platform.planning.memory import RecordChanges
from cdc_platform.planning.planner import make_plan
from cdc_platform.planning.records import Writer
from cdc_platform.reconciler import last_pass, report, state_records
from cdc_platform.reconciler.apply import apply
from cdc_platform.reconciler.committed_places import committed_places
from cdc_platform.reconciler.desired_state import desired_state, with_problems
from cdc_platform.reconciler.doctor import ExaminedFacts
from cdc_platform.reconciler.ended_watermarks import ended_watermarks
from cdc_platform.reconciler.lock_watch import LockWatch, Progress
from cdc_platform.reconciler.observe import observe, observe_again
from cdc_platform.reconciler.report import ActionOutcome, PassReport
from cdc_platform.reconciler.source_round import Asked, source_round, when_due
from cdc_platform.reconciler.state_records import DocumentChanges, Documents
from cdc_platform.reconciler.unfit_sources import without_unfit_sources

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


def plan_pass(
    platform: Platform, policy: PassPolicy | None = None, *, asked: Asked | None = None
) -> tuple[ObservedState, Planned]:
    """Observe and plan, and change nothing.

    `asked`: the shards whose sources are asked now; of the others, and without it of all, the records tell.

    Raises:
        ZooKeeperUnavailable: the topology could not be read as a whole.
        KafkaUnavailable: the state topic could not be read.
    """
    prepared = _planned(platform, policy, asked)
    return prepared.observed, prepared.planned


@dataclass(frozen=True, slots=True)
class _PlannedPass:
    """What a pass knows before it changes anything; `documents` with what the sources said, `said` that alone;
    `seconds` by phase.
    """

    observed: ObservedState
    planned: Planned
    documents: Documents
    said: DocumentChanges
    seconds: Mapping[str, float]


def _planned(platform: Platform, policy: PassPolicy | None, asked: Asked | None) -> _PlannedPass:
    clock = _Phases()
    policy = policy or policy_of(platform)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="state") as pool:
        reading = pool.submit(platform.state.read)
        topology = with_problems(platform.topology.load(), platform.settings)
        desired = desired_state(topology, platform.settings)
        observed = observe(platform, topology, desired.topics, policy.liveness)
        documents = reading.result()
    clock.lap("look")
    said: DocumentChanges = {}
    examined = ExaminedFacts(platform.examiner) if platform.examiner is not None else None
    if asked is not None and platform.facts is not None:
        places = partial(committed_places, platform, observed)
        said = source_round(
            platform.facts, platform.histories, platform.settings, observed, documents, asked, places, examined
        )
        documents = {key: document for key, document in {**documents, **said}.items() if document is not None}
        clock.lap("sources")
    memory = state_records.read_memory(documents)
    observed = replace(observed, topology=with_left_out(observed.topology, memory.of(SourceRecord)))
    planned = make_plan(observed, desired, memory, policy)
    clock.lap("plan")
    if asked is not None and platform.examiner is not None and examined is not None:
        captured = state_records.captured_shards(documents)
        planned = without_unfit_sources(
            planned, observed.topology, platform.examiner, platform.settings, captured, known=examined.found
        )
        clock.lap("doctor")
    return _PlannedPass(observed, planned, documents, said, clock.seconds)


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
    asked: Asked = when_due,
    while_planning: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> PassReport:
    """One pass under the ZooKeeper lock.

    Args:
        platform: the clients.
        owner: shown to others while the lock is held, such as a Dagster run id.
        policy: bounds; from the settings by default.
        expect: the fingerprint of a plan seen before: anything else is refused.
        progress: called with what happens, a sentence at a time, in the calling thread.
        on_captured: called with the shards (`<dataset>.<shard>`) that run for the first time,
            before that is recorded: at least once for each.
        on_lock: called with the lock's generation as soon as it is held.
        wait_for_lock: seconds to wait for a pass that runs now.
        asked: the shards whose sources are asked; by default all, every few minutes.
        while_planning: entered while the observed state is built and planned from; entry points
            pass `process_memory.large_state`.

    Raises:
        LockHeld, LockLost, PlanStale, ZooKeeperUnavailable, Fenced, KafkaUnavailable.
    """
    with platform.topology.lock(owner=owner, timeout=wait_for_lock) as lock:
        on_lock(lock.generation)
        deadline = time.monotonic() + platform.settings.pass_budget
        watch = LockWatch(lock)
        with while_planning():
            prepared = watch.run(lambda _: _planned(platform, policy, asked))
        if expect is not None and prepared.planned.plan.fingerprint != expect:
            raise PlanStale(
                f"the world moved: {prepared.planned.plan.sentence()}",
                where=f"plan {expect}",
                cure="Make a new plan and look at it before you apply it.",
            )
        return _Pass(platform, watch, prepared, progress).run(deadline, on_captured)


@dataclass(frozen=True, slots=True)
class _Pass:
    """The part of a pass that changes something."""

    platform: Platform
    watch: LockWatch
    prepared: _PlannedPass
    progress: Progress

    def run(self, deadline: float, on_captured: Captured) -> PassReport:
        clock = _Phases(self.prepared.seconds)
        self.watch.check()
        self.platform.state.claim(self.watch.generation)
        outcomes = self._apply(deadline)
        clock.lap("apply")
        return self._report(outcomes, clock, on_captured)

    def _apply(self, deadline: float) -> tuple[ActionOutcome, ...]:
        observed, planned, documents = self.prepared.observed, self.prepared.planned, self.prepared.documents
        # What a plan leans on is on record before it is applied: which canaries had what, and that
        # something was stopped and resumed or is no longer captured, which nothing else shows afterwards.
        ended = ended_watermarks(planned.plan.actions, observed.topology, documents)
        self._write(self.prepared.said | state_records.changed_records(planned.changes, documents) | ended)
        if not planned.plan:
            return ()
        self.progress(planned.plan.sentence())
        return self.watch.run(
            lambda progress: apply(
                planned.plan,
                platform=self.platform,
                topology=observed.topology,
                watch=self.watch,
                deadline=deadline,
                progress=progress,
                on_restart=lambda restart: self._write(self._restarts([restart.remembered_as])),
            ),
            self.progress,
        )

    def _restarts(self, names: Sequence[str]) -> DocumentChanges:
        """The restart records of these connectors."""
        changed = self.prepared.planned.changes.of(RestartRecord)
        kept = {name: changed[name] for name in names if name in changed}
        return state_records.documents_of(RecordChanges({RestartRecord: kept}), Writer.RESTART)

    def _report(self, outcomes: tuple[ActionOutcome, ...], clock: _Phases, on_captured: Captured) -> PassReport:
        observed, planned = self.prepared.observed, self.prepared.planned
        clusters = observed.clusters
        if outcomes:
            clusters = self.watch.run(lambda _: observe_again(self.platform, observed.topology))
        running = report.running_shards(observed, clusters)
        captured = tuple(sorted(running.keys() - state_records.captured_shards(self.prepared.documents)))
        if captured:
            on_captured(captured)
        clock.lap("report")
        health = report.health_of(observed.topology, planned, clusters)
        watched = report.watched_health(observed.topology, planned, clusters)
        before = self.prepared.documents.get(last_pass.KEY)
        last = last_pass.last_pass(
            generation=self.watch.generation,
            observed=observed,
            planned=planned,
            outcomes=outcomes,
            clusters=clusters,
            health=health,
            watched=watched,
            seconds=clock.seconds,
            before=before,
        )
        self._write(self._learned(outcomes, running) | {last_pass.KEY: last})
        return PassReport(
            generation=self.watch.generation,
            taken_at=observed.taken_at,
            plan=planned.plan,
            outcomes=outcomes,
            health=health,
            watched=watched,
            watched_changed=last_pass.watched_changed(before, last),
            captured=captured,
            number=last["totals"]["passes"],
            phases=clock.seconds,
            homes=report.homes_of(clusters, platform=self.platform.settings.platform),
            lags=report.lags_of(observed),
        )

    def _learned(self, outcomes: Sequence[ActionOutcome], running: Mapping[str, str]) -> DocumentChanges:
        """What to remember of the pass."""
        observed, planned, documents = self.prepared.observed, self.prepared.planned, self.prepared.documents
        # A restart that came through is on record already; one that did not must not count as an attempt.
        tried = {o.action.remembered_as for o in outcomes if isinstance(o.action, RestartConnector)}
        learned = self._restarts([name for name in planned.changes.of(RestartRecord) if name not in tried])
        learned |= state_records.captured_documents(running, documents, observed.taken_at, self.watch.generation)
        for outcome in outcomes:
            if isinstance(outcome.action, DeleteConnector) and outcome.status is report.ActionStatus.DONE:
                learned |= {key: None for key in state_records.deleted_with(outcome.action.name) if key in documents}
        return learned | self._repaired(outcomes)

    def _repaired(self, outcomes: Sequence[ActionOutcome]) -> DocumentChanges:
        """The records of sources that this pass changed; what they say of it, the next round asks."""
        sources = state_records.read_memory(self.prepared.documents).of(SourceRecord)
        repaired: DocumentChanges = {}
        for outcome in outcomes:
            action = outcome.action
            if outcome.status is not report.ActionStatus.DONE or not isinstance(action, PublishTables | GiveUpSlot):
                continue
            before = sources[action.name]
            after = replace(before, publish=False)
            if isinstance(action, GiveUpSlot):
                after = given_up(before, self.prepared.observed.taken_at)
            repaired[SourceRecord.key_of(action.name)] = after.document()
        return repaired

    def _write(self, changes: DocumentChanges) -> None:
        if changes:
            self.watch.check()
            self.platform.state.write(changes)


class _Phases:
    """Seconds by phase, in order."""

    def __init__(self, before: Mapping[str, float] = EMPTY) -> None:
        self.seconds: dict[str, float] = dict(before)
        self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = now - self._last
        self._last = now

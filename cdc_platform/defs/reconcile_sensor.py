"""The sensor: a cheap look each minute, and a run when a pass has something to do."""

# Without `from __future__ import annotations`: Dagster reads the types of a sensor that is made
# inside a function, and cannot resolve them as text.

import time
from collections.abc import Callable, Iterable

import dagster as dg

from cdc_platform.clients.platform import Platform
from cdc_platform.defs.deadline import within
from cdc_platform.defs.live_passes import Traffic, fail_dead, judge, unfinished_passes, wait_for_the_dead
from cdc_platform.defs.names import Names
from cdc_platform.defs.partitions import sync_partitions
from cdc_platform.defs.reconcile_job import OP, run_tags
from cdc_platform.defs.run_kinds import RunOf
from cdc_platform.defs.sensor_cursor import SensorCursor, decide
from cdc_platform.defs.translator import CdcTableProps, table_props
from cdc_platform.model.naming import some_of
from cdc_platform.model.topology import Topology
from cdc_platform.reconciler.pending_changes import Due, due
from cdc_platform.reconciler.process_memory import large_state
from cdc_platform.reconciler.run_pass import plan_pass

SENSOR = "reconcile_sensor"

# Dagster cuts a tick at 60 s (DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS); the look leaves room
# for partitions and the instance.
LOOK_DEADLINE = 40.0
# Of that, what a tick may wait for a run that may be dead.
WAIT_SHARE = 0.6
# Findings for the operator, such as a pause, that each tick logs; the platform's asset has all of them.
MOST_FINDINGS = 20


def build_reconcile_sensor(
    *,
    job: dg.JobDefinition,
    tables: Iterable[CdcTableProps] = (),
    chosen: Callable[[str, str], bool] = lambda dataset, table: True,
    name: str | None = None,
    minimum_interval_seconds: int = 60,
    refresh_seconds: float = 900.0,
    look_deadline: float = LOOK_DEADLINE,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.RUNNING,
) -> dg.SensorDefinition:
    """The sensor that keeps the platform as its topology wants it. Takes the resource `cdc_platform`.

    Each tick takes one look, keeps the shard partitions equal to the topology, fails runs that
    died, and asks for a run of `job` when there is something to do. It changes nothing outside
    Dagster. When ZooKeeper or the state topic does not answer, the tick fails with that error.

    A run has no run key: Dagster remembers run keys for ever, and what was put right
    yesterday may have to be put right again today. What keeps passes from piling
    up is that none is asked for while one is queued, started or holds the lock.

    Args:
        job: the job `reconcile` of `build_cdc_jobs`.
        tables: the tables that the code location has loaded as assets.
        chosen: whether a table, by dataset and name, is to be an asset there.
        name: the sensor's name.
        minimum_interval_seconds: between two ticks.
        refresh_seconds: at least this often a pass observes all tables, changed or not.
        look_deadline: seconds that the look may take; Dagster cuts the tick at 60.
        default_status: RUNNING: it works as soon as the code location is loaded.
    """
    loaded = frozenset((props.dataset, props.table) for props in tables)

    names = Names.by(job)

    @dg.sensor(
        name=name or names.of(SENSOR),
        job=job,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description="Looks every minute at what should be captured and what is, and runs a pass when they differ.",
    )
    @names.taking
    def reconcile_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        with names.in_(context).platform() as platform:
            return _tick(context, platform)

    def _tick(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult:
        label = platform.settings.platform
        end = time.monotonic() + look_deadline

        def look() -> Traffic:
            holder = within(look_deadline, platform.topology.lock_owner, what="Asking who holds the lock")
            return judge(unfinished_passes(context.instance, kind=RunOf.RECONCILE, platform=label), holder=holder)

        traffic = wait_for_the_dead(look, longest=WAIT_SHARE * look_deadline)
        for _, reason in traffic.dead:
            context.log.warning(reason)
        fail_dead(context.instance, traffic.dead)
        if traffic.busy:
            return dg.SensorResult(skip_reason=traffic.busy)

        left = max(1.0, end - time.monotonic())
        topology, found = within(left, lambda: _look(platform), what="The look at the platform")
        for refusal in found.plan.refusals:
            context.log.warning(f"Refused for {refusal.scope}: {refusal.reason}")
        for finding in found.plan.findings[:MOST_FINDINGS]:
            context.log.info(f"{finding.subject}: {finding.text}")
        partitions = sync_partitions(
            context.instance,
            topology,
            platform=label,
            datasets={dataset for dataset, _ in loaded},
            # A topology without clusters describes nothing: the wrong root, or an import gone wrong.
            may_delete=bool(topology.clusters) and not found.plan.refusals,
        )
        if partitions:
            context.log.info(partitions)
        hint = reload_hint(loaded, topology, platform=label, chosen=chosen)
        if hint:
            context.log.warning(hint)

        decision = decide(found, SensorCursor.parse(context.cursor), now=time.time(), refresh_seconds=refresh_seconds)
        cursor = decision.cursor.dump()
        if not decision.run:
            text = " ".join(part for part in (decision.reason, hint) if part)
            return dg.SensorResult(skip_reason=text, cursor=cursor)
        context.log.info(decision.reason)
        config = {
            "reason": decision.reason,
            "observe": list(decision.observe),
            "turn": decision.cursor.turn,
        }
        request = dg.RunRequest(
            run_config={"ops": {names.of(OP): {"config": config}}},
            tags={**run_tags(label), "cdc/plan": found.plan.fingerprint},
        )
        return dg.SensorResult(run_requests=[request], cursor=cursor)

    return reconcile_sensor


def _look(platform: Platform) -> tuple[Topology, Due]:
    with large_state():
        observed, planned = plan_pass(platform)
    return observed.topology, due(observed, planned, platform.state.read())


def reload_hint(
    loaded: frozenset[tuple[str, str]],
    topology: Topology,
    *,
    platform: str,
    chosen: Callable[[str, str], bool] = lambda dataset, table: True,
) -> str | None:
    """What an operator must do when the topology has tables that the code location does not know, or lost some."""
    off = {problem.name for problem in topology.problems}
    tables = table_props(topology, platform=platform)
    now = {(props.dataset, props.table) for props in tables if chosen(props.dataset, props.table)}
    new = sorted(now - loaded)
    gone = sorted(pair for pair in loaded - now if pair[0] not in off)
    if not new and not gone:
        return None
    parts = []
    if new:
        parts.append(f"{_names(new)} {'is' if len(new) == 1 else 'are'} no asset yet")
    if gone:
        parts.append(f"{_names(gone)} left the topology")
    return f"Reload the code location: {', '.join(parts)}."


def _names(tables: list[tuple[str, str]]) -> str:
    return some_of([f"{dataset}.{table}" for dataset, table in tables], 5)


__all__ = ["SENSOR", "build_reconcile_sensor", "reload_hint"]

"""No connector is created over an error of the doctor's: a plan says so in its place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace

from cdc_platform.clients.sources.examiner import Examinations, Examiner
from cdc_platform.model.naming import ShardName, some_of
from cdc_platform.model.topology import EMPTY, Topology
from cdc_platform.planning.actions import CreateConnector
from cdc_platform.planning.doctor.kinds import Severity
from cdc_platform.planning.inputs import Planned
from cdc_platform.planning.plan import Finding, Refusal
from cdc_platform.reconciler.doctor import DoctorReport, examine
from cdc_platform.settings import Settings

SECONDS = 20.0


def without_unfit_sources(
    planned: Planned,
    topology: Topology,
    examiner: Examiner,
    settings: Settings,
    captured: Collection[str],
    *,
    known: Examinations = EMPTY,
    seconds: float = SECONDS,
) -> Planned:
    """The plan without connectors of new shards whose sources have an error, each with a refusal.

    A source that does not answer is not refused: Connect asks it by itself. Nor is a shard that was captured before
    (`captured`): what it lives with is better than nothing. Warnings of new shards, and errors that the topology
    accepts, are findings. Shards in `known` were examined just now, and are not asked again.
    """
    new = {one.name for one in planned.plan.actions if isinstance(one, CreateConnector)} - set(captured)
    pairs = [pair for pair in topology.all_shards() if pair[1].name in new]
    if not pairs:
        return planned
    report = examine(examiner, settings, pairs, seconds=seconds, known=known)
    unfit = {f"{one.dataset}.{shard}" for one in report.of(Severity.ERROR) for shard in one.shards}
    plan = planned.plan
    return replace(
        planned,
        plan=replace(
            plan,
            actions=tuple(one for one in plan.actions if not (isinstance(one, CreateConnector) and one.name in unfit)),
            refusals=(*plan.refusals, *_refusals(report)),
            findings=(*plan.findings, *_findings(report)),
        ),
    )


def _refusals(report: DoctorReport) -> list[Refusal]:
    """One for shards that share all of their errors."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for one in report.of(Severity.ERROR):
        table = f"table {one.table}: " if one.table else ""
        for shard in one.shards:
            reasons[f"{one.dataset}.{shard}"].append(f"{one.kind}: {table}{one.text} ({one.cure})")
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, texts in sorted(reasons.items()):
        alike[ShardName.parse(name).dataset, "; ".join(texts)].append(name)
    return [
        Refusal(scope=some_of(names, 4), reason=f"its source is not fit: {text}") for (_, text), names in alike.items()
    ]


def _findings(report: DoctorReport) -> list[Finding]:
    known = [*report.of(Severity.WARNING), *(one for one in report.of(Severity.NOTE) if one.accepted)]
    return [Finding(subject=one.dataset, text=f"{one.sentence()} ({one.cure})") for one in known]

"""`cdc-platform report`: the fleet as one HTML page."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from cdc_platform.cli.grammar import OutputFile
from cdc_platform.cli.output import echo
from cdc_platform.cli.progress import Steps, ends_at_once
from cdc_platform.cli.status import passes_of, passes_sentence
from cdc_platform.clients.platform import Platform
from cdc_platform.model.observed import ObservedState
from cdc_platform.model.topology import Dataset
from cdc_platform.planning.health.heat_map import CellState, cell_state
from cdc_platform.planning.inputs import Planned
from cdc_platform.reconciler import last_pass
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.reconciler.login_checks import ask_leaders
from cdc_platform.reconciler.process_memory import large_state
from cdc_platform.reconciler.report import DatasetHealth, health_of, lags_of, watched_health
from cdc_platform.settings import Settings
from cdc_platform.snapshots.summary import dataset_summary, sentence
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.fleet_page import DatasetPage, Fleet, page
from cdc_platform.wiring import open_platform


@click.command()
@click.option(
    "--out",
    type=OutputFile(),
    default="cdc-report.html",
    show_default=True,
    help="The page; an older one is written over.",
)
def report(out: Path) -> None:
    """Write the state of the fleet as one HTML page, to be mailed or kept: it loads nothing and runs no script.

    It looks once, as `status` does: shards up and down and why, incidents, hazards, the newest verdicts, a map of all
    shards. Exits 0 when all is well, 2 when something is not up or not as its source, 1 on an error.
    """
    settings = Settings.load()
    with (
        Steps() as steps,
        ends_at_once(lambda: "Interrupted. Nothing was written."),
        open_platform(settings) as platform,
    ):
        steps.last = "Looking at the fleet"
        with large_state():
            observed, planned = reconciler.plan_pass(platform)
        steps.last = "Reading verdicts"
        found = fleet(platform, observed, planned)
    out.write_text(page(found))
    echo(f"{out} was written: {'all is well' if found.well else 'something is not up, or not as its source'}.")
    sys.exit(0 if found.well else 2)


def fleet(platform: Platform, observed: ObservedState, planned: Planned) -> Fleet:
    """What the page shows of this observation and of what is on record."""
    topology = observed.topology
    records = platform.state.read()
    health = ask_leaders(platform, topology, health_of(topology, planned, observed.clusters))
    audit, lags = AuditFrame(platform.settings.audit_dir), lags_of(observed)
    return Fleet(
        platform=platform.settings.platform,
        at=datetime.now(UTC),
        passes=passes_sentence(passes_of(records.get(last_pass.KEY), platform.topology.lock_owner())),
        plan=planned.plan.sentence(),
        datasets={
            name: DatasetPage(
                health=health[name],
                cells=_cells(dataset, observed, health[name], audit, lags),
                verdicts={
                    table.name: audit.latest(name, table.name, [s.id for s in topology.shards.get(name, ())])
                    for table in dataset.tables
                },
                bootstrap=sentence(dataset_summary(records, dataset, topology.shards.get(name, ()))),
            )
            for name, dataset in topology.datasets.items()
        },
        watched=watched_health(topology, planned, observed.clusters),
        incidents=[(f"{one.sentence()}.", one.advice) for one in planned.incidents.values()],
        refusals=[(refusal.scope, refusal.reason) for refusal in planned.plan.refusals],
        findings=[(finding.subject, finding.text) for finding in planned.plan.findings],
        clusters={
            name: f"{len(cluster.connectors or {})} connectors" if cluster.known else f"unknown: {cluster.problem}"
            for name, cluster in observed.clusters.items()
        },
    )


def _cells(
    dataset: Dataset, observed: ObservedState, health: DatasetHealth, audit: AuditFrame, lags: dict[str, float]
) -> dict[str, CellState]:
    shards = observed.topology.shards.get(dataset.name, ())
    worst = audit.worst(dataset.name, [table.name for table in dataset.tables], [shard.id for shard in shards])
    down = {one.shard: one.state for one in health.down}
    return {
        shard.id: cell_state(down=down.get(shard.name), lag_s=lags.get(shard.name), verdict=worst.get(shard.id))
        for shard in shards
    }

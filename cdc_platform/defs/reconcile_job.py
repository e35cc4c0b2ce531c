"""The jobs: `reconcile`, one pass of the control plane."""

# Without `from __future__ import annotations`: Dagster reads the types of an op that is made
# inside a function, and cannot resolve them as text.

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import dagster as dg
from pydantic import Field

from cdc_platform.clients.platform import Platform
from cdc_platform.defs.doctor_job import build_doctor_job
from cdc_platform.defs.failures import as_failure
from cdc_platform.defs.live_passes import GIVEN_BACK, TAG_LOCK
from cdc_platform.defs.names import Names
from cdc_platform.defs.pass_events import EventWriter
from cdc_platform.defs.prune_job import build_prune_job
from cdc_platform.defs.run_kinds import TAG_KIND, RunOf
from cdc_platform.defs.sensor_cursor import ALL
from cdc_platform.defs.snapshot_jobs import build_snapshot_jobs
from cdc_platform.defs.translator import TAG_PLATFORM, CdcTableProps, CdcTranslator
from cdc_platform.defs.verification_jobs import build_verification_jobs
from cdc_platform.reconciler.process_memory import large_state
from cdc_platform.reconciler.run_pass import policy_of, reconcile
from cdc_platform.settings import Settings

OP = "reconcile_pass"

# `dagster.yaml` limits runs with this tag to one for each value.
TAG_EXCLUSIVE = "cdc/reconcile"

# A pass has a budget of its own (settings `pass_budget`); beyond this many seconds Dagster's
# run monitoring ends a run that hangs.
MAX_RUNTIME = 1200


class ReconcileConfig(dg.Config):
    """What an operator may allow one pass from the launchpad; the sensor leaves the first two alone."""

    allow_deletes: int | None = Field(
        default=None, description="Delete up to this many connectors, whatever the settings say."
    )
    accept_shrink: bool = Field(default=False, description="The inventory did shrink that much: go on.")
    observe: list[str] = Field(
        default=[ALL], description="Datasets whose tables are observed even when the pass changes nothing; * is all."
    )
    turn: int = Field(default=0, description="Which of the tables, where there are too many for one pass.")
    reason: str = Field(default="", description="Why the pass was asked for.")


def _check_overrides(config: ReconcileConfig, settings: Settings) -> None:
    """Raises Failure for what an operator does not leave to those who can launch."""
    if not settings.permit_launch_overrides and (config.allow_deletes is not None or config.accept_shrink):
        raise dg.Failure(
            description="allow_deletes and accept_shrink may not be set here: permit_launch_overrides is false in the "
            "settings. Cure: An operator runs `cdc-platform apply --allow-deletes N` or `--accept-shrink`.",
            allow_retries=False,
        )


def run_tags(platform: str) -> dict[str, str]:
    """The tags of the job and its runs."""
    return {
        TAG_PLATFORM: platform,
        TAG_KIND: RunOf.RECONCILE.value,
        TAG_EXCLUSIVE: platform,
        "dagster/max_runtime": str(MAX_RUNTIME),
        # Before all that waits in Dagster's queue.
        "dagster/priority": "100",
    }


def under_old_names(jobs: Iterable[dg.JobDefinition]) -> list[dg.JobDefinition]:
    """The same jobs under the names that they had before these began with the platform's: for one release."""
    return [
        job.graph.to_job(
            name=job.tags[TAG_KIND],
            description=f"`{job.name}` under its old name, which the next release does not have.",
            tags=job.tags,
            executor_def=job.executor_def,
        )
        for job in jobs
    ]


class CdcJobs(NamedTuple):
    """The platform's jobs by name; as a sequence, what `Definitions(jobs=...)` takes."""

    reconcile: dg.JobDefinition
    bootstrap: dg.JobDefinition
    backfill: dg.JobDefinition
    verify: dg.JobDefinition
    repair: dg.JobDefinition
    doctor: dg.JobDefinition
    prune: dg.JobDefinition


def build_cdc_jobs(
    *,
    platform: str = "cdc",
    translator: CdcTranslator | None = None,
    tables: Iterable[CdcTableProps] = (),
    wait_for_lock: float = 20.0,
) -> CdcJobs:
    """The jobs of the platform. They take the resource `<platform>_platform`.

    Args:
        platform: the platform's name.
        translator: the one the assets were made with, so that events find them.
        tables: those that the Launchpads offer; without them any text is taken.
        wait_for_lock: seconds to wait for a pass that runs elsewhere, such as `cdc-platform apply`.
    """
    translator, names, offered = translator or CdcTranslator(), Names(platform), list(tables)

    @dg.op(
        name=names.of(OP),
        required_resource_keys={names.resource},
        description="Look, plan, apply, report: creates, updates, restarts and deletes connectors and topics.",
        tags={TAG_PLATFORM: platform},
    )
    def reconcile_pass(context: dg.OpExecutionContext, config: ReconcileConfig) -> None:
        _check_overrides(config, names.in_(context).settings())
        if config.reason:
            context.log.info(f"Asked for: {config.reason}")
        with names.in_(context).platform() as clients:
            _pass(context, config, clients)

    def _pass(context: dg.OpExecutionContext, config: ReconcileConfig, clients: Platform) -> None:
        writer = EventWriter(context=context, platform=clients, translator=translator)
        with as_failure():
            report = reconcile(
                clients,
                owner=context.run_id,
                policy=policy_of(clients, allow_deletes=config.allow_deletes, accept_shrink=config.accept_shrink),
                progress=context.log.info,
                on_captured=writer.captured,
                on_lock=lambda generation: context.instance.add_run_tags(context.run_id, {TAG_LOCK: str(generation)}),
                wait_for_lock=wait_for_lock,
                while_planning=large_state,
            )
            context.instance.add_run_tags(context.run_id, {TAG_LOCK: GIVEN_BACK})
        writer.report(report, observe=frozenset(config.observe), turn=config.turn)
        whole = [refusal.reason for refusal in report.plan.refusals if refusal.scope == "platform"]
        if whole:
            raise dg.Failure(description=f"The pass was refused: {whole[0]}", allow_retries=False)

    tags: Mapping[str, str] = run_tags(platform)

    @dg.job(
        name=names.job(RunOf.RECONCILE),
        description="One pass of the control plane: makes the connectors and topics what the topology says.",
        tags=tags,
        executor_def=dg.in_process_executor,
    )
    def reconcile_job() -> None:
        reconcile_pass()

    return CdcJobs(
        reconcile_job,
        *build_snapshot_jobs(platform=platform, tables=offered),
        *build_verification_jobs(platform=platform, translator=translator, tables=offered),
        build_doctor_job(platform=platform),
        build_prune_job(platform=platform),
    )

"""Schedules of the job `verify`, one for each dataset whose policy does not switch it off."""

# Without `from __future__ import annotations`: Dagster reads the types of a schedule that is made
# inside a function, and cannot resolve them as text.

import logging
import re
from collections.abc import Iterable, Sequence

import dagster as dg

from cdc_platform.defs.names import Names
from cdc_platform.defs.translator import TAG_DATASET, CdcTableProps
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.ports import VerificationPolicy
from cdc_platform.verification.proof.verdicts import ShardVerdict

log = logging.getLogger(__name__)


def build_verification_schedules(
    *,
    job: dg.JobDefinition,
    tables: Iterable[CdcTableProps],
    default_status: dg.DefaultScheduleStatus = dg.DefaultScheduleStatus.RUNNING,
) -> list[dg.ScheduleDefinition]:
    """A schedule `verify_<dataset>` for each dataset: `verification.schedule` (cron, UTC), or once a night.

    A run takes `verification.scheduled_shards` of its shards, or with the default schedule a seventh: those whose last
    verdict is oldest, so that 10,000 shards have their turn one after the other. An empty schedule is none. One that
    is no cron line is left out, with an error in the log.

    Args:
        job: `verify`.
        tables: the tables that the code location knows.
        default_status: RUNNING: it works as soon as the code location is loaded.
    """
    found: dict[str, dg.ScheduleDefinition] = {}
    for props in tables:
        if props.verify_schedule and props.dataset not in found:
            try:
                found[props.dataset] = _schedule(job, props, default_status)
            except dg.DagsterInvalidDefinitionError as error:
                log.error("dataset %s: verification.schedule is left out: %s", props.dataset, error)
    return list(found.values())


def due_shards(shards: Sequence[str], verdicts: Iterable[ShardVerdict], count: int) -> list[str]:
    """The `count` shards that were verified longest ago, or never."""
    last = {verdict.shard: verdict.checked_at.timestamp() for verdict in verdicts}
    return sorted(sorted(shards, key=lambda shard: (last.get(shard, 0.0), shard))[:count])


def _schedule(
    job: dg.JobDefinition, props: CdcTableProps, default_status: dg.DefaultScheduleStatus
) -> dg.ScheduleDefinition:
    name, names = props.dataset, Names(props.platform)

    @dg.schedule(
        name=names.of("verify_" + re.sub(r"\W", "_", name)),
        job=job,
        cron_schedule=props.verify_schedule,
        execution_timezone="UTC",
        default_status=default_status,
        description=f"Proves {name}, the shards first that were verified longest ago.",
    )
    @names.taking
    def verification(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        with names.in_(context).platform() as clients:
            topology = clients.topology.load()
            dataset = topology.dataset(name)
            shards = [shard.id for shard in topology.shards.get(name, ())]
            count = VerificationPolicy.of(dataset).due_count(len(shards))
            frame = AuditFrame(clients.settings.audit_dir)
            # The table that was verified longest ago says whose turn it is.
            verdicts = [verdict for table in dataset.tables for verdict in frame.latest(name, table.name, shards)]
        if not shards:
            return dg.SkipReason(f"{name} has no shards.")
        chosen = due_shards(shards, sorted(verdicts, key=lambda verdict: verdict.checked_at, reverse=True), count)
        config = {"dataset": name, "shards": chosen if count < len(shards) else []}
        return dg.RunRequest(
            run_config={"ops": {names.of("plan_verification"): {"config": config}}}, tags={TAG_DATASET: name}
        )

    return verification

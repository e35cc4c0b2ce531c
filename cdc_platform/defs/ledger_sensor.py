"""The sensor that has a shard proven again after a break in its continuity ledger."""

# Without `from __future__ import annotations`: Dagster reads the types of a sensor that is made
# inside a function, and cannot resolve them as text.

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from cdc_platform.defs.names import Names
from cdc_platform.defs.translator import CdcTableProps
from cdc_platform.model.fingerprints import fingerprint
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.continuity.breaks import unproven_of
from cdc_platform.verification.continuity.ledger import breaks_on_record
from cdc_platform.verification.proof.verdicts import Verdict

SENSOR = "ledger_sensor"

# On the run: why it was started.
TAG_BREAKS = "cdc/breaks"
MOST_TEXT = 1_000


def build_ledger_sensor(
    *,
    job: dg.JobDefinition,
    tables: Iterable[CdcTableProps] = (),
    name: str | None = None,
    minimum_interval_seconds: int = 60,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.RUNNING,
) -> dg.SensorDefinition:
    """Starts `verify` for the shards of a table whose ledger has a break that no proof has followed.

    Takes the resource `cdc_platform`. One run an hour for the same breaks until the shards are proven; a later break
    asks for another at once. A shard that is not proven then stays so: `complete` and `continuous` fail.

    Args:
        job: `verify`, of `build_cdc_jobs`.
        tables: the tables whose ledgers are watched.
        name: the sensor's name.
        minimum_interval_seconds: between two ticks.
        default_status: RUNNING: it works as soon as the code location is loaded.
    """
    watched = tuple(tables)

    names = Names.by(job)

    @dg.sensor(
        name=name or names.of(SENSOR),
        job=job,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description="Has shards proven again after a break in their continuity ledger.",
    )
    @names.taking
    def ledger_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        with names.in_(context).platform() as clients:
            audit = AuditFrame(clients.settings.audit_dir)
            requests = list(proofs_wanted(clients.state.read(), watched, audit, datetime.now(UTC)))
        return dg.SensorResult(
            run_requests=requests, skip_reason=None if requests else "Each break was followed by a proof."
        )

    return ledger_sensor


def proofs_wanted(
    records: Mapping[str, Mapping[str, Any]], tables: Iterable[CdcTableProps], audit: AuditFrame, now: datetime
) -> Iterator[dg.RunRequest]:
    """One run of `verify` for each table with shards that have a break and no proof since."""
    for props in tables:
        breaks = breaks_on_record(records, props.dataset, props.table)
        if not breaks:
            continue
        proven = {
            verdict.shard: verdict.checked_at
            for verdict in audit.latest(props.dataset, props.table, breaks)
            if verdict.verdict is Verdict.PROVEN
        }
        broken = {
            shard: unproven for shard, found in breaks.items() if (unproven := unproven_of(found, proven.get(shard)))
        }
        if not broken:
            continue
        shards = sorted(broken)
        ids = sorted(one.id for found in broken.values() for one in found)
        # A proof that failed or ended as pending is asked for again: Dagster remembers run keys for ever.
        hours = (now - max(one.found_at for found in broken.values() for one in found)) // timedelta(hours=1)
        config = {"dataset": props.dataset, "tables": [props.table], "shards": shards}
        yield dg.RunRequest(
            run_key=f"{props.dataset}.{props.table}-{fingerprint(' '.join(ids))}-{hours}",
            run_config={"ops": {Names(props.platform).of("plan_verification"): {"config": config}}},
            tags={TAG_BREAKS: "; ".join(one.sentence() for found in broken.values() for one in found)[:MOST_TEXT]},
        )

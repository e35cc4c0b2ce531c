"""The job `doctor`: what stands against capturing from sources, as a run."""

# Without `from __future__ import annotations`: Dagster reads the types of an op that is made
# inside a function, and cannot resolve them as text.

import dagster as dg
from pydantic import Field

from cdc_platform.clients.platform import Platform
from cdc_platform.defs.failures import as_failure
from cdc_platform.defs.names import Names
from cdc_platform.defs.run_kinds import TAG_KIND, RunOf
from cdc_platform.defs.translator import TAG_PLATFORM
from cdc_platform.errors import SettingsError
from cdc_platform.model.plain_text import for_markdown
from cdc_platform.planning.doctor.findings import DoctorFinding
from cdc_platform.planning.doctor.kinds import Severity
from cdc_platform.reconciler.doctor import DoctorReport, examine_chosen

# Rows of the table that a run shows.
_SHOWN = 200


class DoctorConfig(dg.Config):
    """What to examine; empty takes all."""

    dataset: str = Field(default="", description="The dataset; all when empty.")
    tables: list[str] = Field(default=[], description="Its tables; all when empty.")
    shards: list[str] = Field(default=[], description="Its shards; all when empty.")


def build_doctor_job(*, platform: str = "cdc") -> dg.JobDefinition:
    """**`<platform>_doctor`**. It reads sources only, and fails over an error that it finds.

    Args:
        platform: the platform's name. The job takes the resource `<platform>_platform`.
    """
    tags, names = {TAG_PLATFORM: platform}, Names(platform)

    @dg.op(name=names.of("examine_sources"), tags=tags, required_resource_keys={names.resource})
    def examine_sources(context: dg.OpExecutionContext, config: DoctorConfig) -> None:
        with names.in_(context).platform() as clients, as_failure():
            report = _report(clients, config)
        for one in report.findings:
            say = context.log.info if one.severity is Severity.NOTE else context.log.warning
            say(f"{one.severity}: {one.sentence()}. Cure: {one.cure}")
        for name, error in sorted(report.unanswered.items())[:_SHOWN]:
            context.log.warning(f"{name} was not examined: {error}")
        context.log.info(report.sentence())
        rows = [_row(one) for one in report.findings[:_SHOWN]]
        found = {"findings": dg.MetadataValue.table(rows, schema=_SCHEMA)} if rows else {}
        context.add_output_metadata({"summary": report.sentence(), **found})
        if report.of(Severity.ERROR):
            raise dg.Failure(description=report.sentence(), metadata=found, allow_retries=False)

    @dg.job(
        name=names.job(RunOf.DOCTOR),
        tags={**tags, TAG_KIND: RunOf.DOCTOR.value},
        description="Examines sources, and names what stands against capturing from them; changes nothing.",
        executor_def=dg.in_process_executor,
    )
    def doctor_job() -> None:
        examine_sources()

    return doctor_job


def _report(clients: Platform, config: DoctorConfig) -> DoctorReport:
    if clients.examiner is None:
        raise SettingsError("this platform has no access to its sources.", field="examiner")
    topology = clients.topology.load()
    return examine_chosen(
        clients.examiner, clients.settings, topology, config.dataset or None, config.tables, config.shards
    )


_SCHEMA = dg.TableSchema(
    columns=[dg.TableColumn(name) for name in ("severity", "kind", "where", "shards", "what", "cure")]
)


def _row(one: DoctorFinding) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "severity": str(one.severity),
            "kind": str(one.kind),
            "where": for_markdown(one.place),
            "shards": len(one.shards),
            "what": for_markdown(one.text),
            "cure": for_markdown(one.cure),
        }
    )

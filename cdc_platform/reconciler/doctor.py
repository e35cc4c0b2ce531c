"""What stands against capturing from sources, asked of all their leaders at once. Read-only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cdc_platform.clients.sources.asking import ask_leaders
from cdc_platform.clients.sources.examiner import Examiner
from cdc_platform.connectors.column_lists import captured_columns
from cdc_platform.connectors.identity import identity
from cdc_platform.errors import CdcError, OverrideRefused, TopologyError
from cdc_platform.model.topology import Dataset, Shard, Topology
from cdc_platform.planning.doctor.findings import DoctorFinding
from cdc_platform.planning.doctor.judge import judge
from cdc_platform.planning.doctor.kinds import Severity
from cdc_platform.settings import Settings

SECONDS = 60.0
# Shards that one connection examines, of those of one server.
_MOST = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorReport:
    """What was found, and of which shards (`<dataset>.<shard>`) nothing is known, and why."""

    asked: int
    findings: tuple[DoctorFinding, ...]
    unanswered: Mapping[str, CdcError]

    def of(self, severity: Severity) -> tuple[DoctorFinding, ...]:
        """The findings of this severity."""
        return tuple(one for one in self.findings if one.severity is severity)

    @property
    def is_healthy(self) -> bool:
        """True when nothing was found; notes are no finding."""
        return all(one.severity is Severity.NOTE for one in self.findings)

    def sentence(self) -> str:
        """It in one line."""
        counts = [f"{len(found)} {kind}s" for kind in Severity if (found := self.of(kind))]
        silent = f"; {len(self.unanswered)} did not answer" if self.unanswered else ""
        return f"{self.asked} shards examined: {', '.join(counts) or 'nothing found'}{silent}."


def examine(
    examiner: Examiner,
    settings: Settings,
    shards: Iterable[tuple[Dataset, Shard]],
    *,
    seconds: float = SECONDS,
    of_table: Callable[[str], bool] = bool,
) -> DoctorReport:
    """Examine these shards; `of_table`: the tables that are asked about. What the topology forbids is not examined."""
    pairs: dict[str, tuple[Dataset, Shard]] = {}
    forbidden: dict[str, CdcError] = {}
    for dataset, shard in shards:
        try:
            captured_columns(dataset, shard, dataset.tables[0])
            pairs[shard.name] = dataset, shard
        except OverrideRefused as error:
            forbidden[shard.name] = error
    answers, unanswered = ask_leaders(examiner.examine, settings, pairs.values(), seconds=seconds, most=_MOST)
    examined = {name: (*pairs[name], identity(settings, *pairs[name]), answers[name]) for name in sorted(answers)}
    return DoctorReport(
        asked=len(pairs) + len(forbidden),
        findings=judge(examined, of_table),
        unanswered={**unanswered, **forbidden},
    )


def examine_chosen(
    examiner: Examiner,
    settings: Settings,
    topology: Topology,
    dataset: str | None,
    tables: Sequence[str] = (),
    shards: Sequence[str] = (),
) -> DoctorReport:
    """Examine all shards; or of one dataset those that are named, all without any, about these tables alone.

    Raises TopologyError for a dataset, table or shard that is not there, and where one is named without a dataset.
    """
    if dataset is None:
        if tables or shards:
            raise TopologyError("tables and shards are those of a dataset.", field="dataset", cure="Name the dataset.")
        return examine(examiner, settings, topology.all_shards())
    found = topology.dataset(dataset)
    names = {found.table(name).name for name in tables} or {table.name for table in found.tables}
    chosen = topology.choose(dataset, shards) if shards else topology.shards.get(dataset, ())
    return examine(examiner, settings, [(found, shard) for shard in chosen], of_table=names.__contains__)

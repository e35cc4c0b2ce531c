"""What stands against capturing from sources, asked of all their leaders at once. Read-only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cdc_platform.clients.sources.asking import ask_leaders
from cdc_platform.clients.sources.examiner import Examinations, Examiner
from cdc_platform.clients.sources.source_facts import Answers
from cdc_platform.connectors.column_lists import captured_columns
from cdc_platform.connectors.identity import Identity, identity
from cdc_platform.errors import CdcError, OverrideRefused, TopologyError
from cdc_platform.model.source_facts import SourceFacts, SourceTable, Unfit
from cdc_platform.model.topology import EMPTY, Dataset, Shard, Topology
from cdc_platform.planning.doctor.examination import Examination
from cdc_platform.planning.doctor.findings import DoctorFinding
from cdc_platform.planning.doctor.judge import judge
from cdc_platform.planning.doctor.kinds import Severity
from cdc_platform.settings import Settings

SECONDS = 60.0
# Shards that one connection examines, of those of one server.
MOST = 25
# Known shards that are examined beside new ones, because they have a database of the same name.
_MOST_BESIDE = 200


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
    known: Examinations = EMPTY,
) -> DoctorReport:
    """Examine these shards. What the topology forbids is not examined.

    Args:
        of_table: the tables that are asked about.
        known: shards that were examined just now; they are not asked again.
    """
    pairs: dict[str, tuple[Dataset, Shard]] = {}
    forbidden: dict[str, CdcError] = {}
    for dataset, shard in shards:
        try:
            captured_columns(dataset, shard, dataset.tables[0])
            pairs[shard.name] = dataset, shard
        except OverrideRefused as error:
            forbidden[shard.name] = error
    asked = [pair for name, pair in pairs.items() if name not in known]
    answers, unanswered = ask_leaders(examiner.examine, settings, asked, seconds=seconds, most=MOST)
    for name in pairs.keys() & known.keys():
        answer = known[name]
        if isinstance(answer, CdcError):
            unanswered[name] = answer
        else:
            answers[name] = answer
    examined = {name: (*pairs[name], identity(settings, *pairs[name]), answers[name]) for name in sorted(answers)}
    return DoctorReport(
        asked=len(pairs) + len(forbidden),
        findings=judge(examined, of_table),
        unanswered={**unanswered, **forbidden},
    )


class ExaminedFacts:
    """`SourceFactsReader` of shards that are about to get a connector: they are examined, and `found` keeps it.

    So each of them is asked once: for the tables that are left out of it, and for what stands against its connector.
    """

    def __init__(self, examiner: Examiner) -> None:
        self._examiner = examiner
        self.found: dict[str, Examination | CdcError] = {}

    def read(self, dataset: Dataset, shards: Sequence[tuple[Shard, Identity]]) -> Answers:
        """See `SourceFactsReader`. Cascades and the settings of the server are the doctor's to tell here."""
        answers = self._examiner.examine(dataset, shards)
        self.found.update(answers)
        return {name: one if isinstance(one, CdcError) else _facts(one) for name, one in answers.items()}


def _facts(seen: Examination) -> SourceFacts:
    unfit = {lack.table: Unfit(why=lack.what, cure=lack.cure) for lack in seen.unfit}
    tables = {name: SourceTable(unfit=unfit.get(name)) for name in seen.tables}
    return SourceFacts(tables=tables, twins=seen.twins, place=f"{seen.server.identity}/{seen.database}")


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


def examine_new(
    examiner: Examiner,
    settings: Settings,
    topology: Topology,
    new: Sequence[tuple[Dataset, Shard]],
    *,
    seconds: float = SECONDS,
) -> DoctorReport:
    """Examine what is new in the topology, beside known shards whose database may be the same; what concerns the new.

    A server reached by two addresses shows only in what it says of itself.
    """
    names = {shard.name for _, shard in new}
    databases = {(dataset.name, shard.database.lower()) for dataset, shard in new}
    beside = [
        (dataset, shard)
        for dataset, shard in topology.all_shards()
        if shard.name not in names and (dataset.name, shard.database.lower()) in databases
    ]
    report = examine(examiner, settings, [*new, *beside[:_MOST_BESIDE]], seconds=seconds)
    return DoctorReport(
        asked=len(new),
        findings=tuple(
            one for one in report.findings if any(f"{one.dataset}.{shard}" in names for shard in one.shards)
        ),
        unanswered={name: error for name, error in report.unanswered.items() if name in names},
    )

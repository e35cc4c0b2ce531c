"""The checks of all tables: one op, so that what they import is paid for once."""

# Without `from __future__ import annotations`: Dagster reads the types of an op that is made
# inside a function, and cannot resolve them as text.

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from cdc_platform import wiring
from cdc_platform.clients.platform import Platform
from cdc_platform.defs.audit_asset import audit_key, differing, positions
from cdc_platform.defs.check_suites import CheckOutcome, Suite, evaluate, suites_for
from cdc_platform.defs.launchpad_links import CodePlace, repair_link
from cdc_platform.defs.metadata import heat_map_metadata
from cdc_platform.defs.names import Names
from cdc_platform.defs.pass_checks import OLDEST, RECENTLY, as_passes_say
from cdc_platform.defs.translator import TAG_PLATFORM, CdcTableProps, CdcTranslator
from cdc_platform.errors import CdcError
from cdc_platform.model.naming import some_of
from cdc_platform.model.plain_text import for_log, for_terminal
from cdc_platform.model.topology import Topology
from cdc_platform.planning.health.heat_map import CellState, cell_state
from cdc_platform.reconciler import last_pass
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.check_rows import judged_rows
from cdc_platform.verification.continuity.ledger import TableContinuity, count_and_keep
from cdc_platform.verification.duplicates.causes import Cause, ShardDuplicates
from cdc_platform.verification.duplicates.duplicate_count import count_duplicates
from cdc_platform.verification.proof.verdicts import ForeignRows, ShardVerdict, Verdict, foreign_rows

OP = "judge_checks"

# Failing shards shown of a check; the numbers count all.
SHOWN = 100

_COMPLETE = "complete"
_DUPLICATES = "no_duplicates"
_CONTINUOUS = "continuous"


def build_cdc_asset_checks(
    *,
    tables: Iterable[CdcTableProps],
    platform: str = "cdc",
    translator: CdcTranslator | None = None,
    policies: Path | None = None,
    blocking: bool = False,
    data_docs: Path | None = None,
) -> list[dg.AssetChecksDefinition]:
    """**`complete`**, **`no_duplicates`**, `continuous`, `fresh`, `schema_current` and what else the policy says.

    They judge the newest verdicts of `verify`, and count duplicates by reading what is new in
    the topic. Any of them can be run alone. They take the resource `cdc_platform`. They stand on the asset of
    the table's audit frame: on the topic, which is materialized whenever data came, Dagster would show them as not
    evaluated minutes after each verdict.

    Args:
        tables: from `load_tables(resource=...)`, or of your own making.
        platform: the platform's name.
        translator: the one the assets were made with.
        policies: a directory of suite files, `<dataset>.json`; the default suite without.
        blocking: downstream assets of the same run do not start when a critical check fails.
        data_docs: a directory: each table's result is written there as a page, too. Without it a run asks for
            pages with the op's config `data_docs: true`, and gets them below the settings' `cache_dir`.

    Raises:
        BadInput, TopologyError: a suite file is wrong.
    """
    translator = translator or CdcTranslator()
    props = {audit_key(translator.get_asset_spec(one).key): one for one in tables}
    if not props:
        return []
    suites = suites_for(policies, sorted({one.dataset for one in props.values()}))
    specs = [
        dg.AssetCheckSpec(
            item.check,
            asset=key,
            description=item.description or item.type,
            blocking=blocking and item.severity == "critical",
            metadata={"severity": item.severity, "expectation": item.type},
        )
        for key, one in props.items()
        for item in suites[one.dataset].expectations
    ]

    known = Names(platform)

    @dg.multi_asset_check(
        name=known.of(OP),
        specs=specs,
        can_subset=True,
        op_tags={TAG_PLATFORM: platform},
        required_resource_keys={known.resource},
    )
    def cdc_checks(context: dg.AssetCheckExecutionContext, config: CheckConfig) -> Iterable[dg.AssetCheckResult]:
        chosen: dict[dg.AssetKey, list[str]] = {}
        for check in context.selected_asset_check_keys:
            chosen.setdefault(check.asset_key, []).append(check.name)
        with known.in_(context).platform() as clients:
            topology = clients.topology.load()
            for key, names in chosen.items():
                own = props[key]
                docs = data_docs or (Path(clients.settings.cache_dir, "data-docs") if config.data_docs else None)
                page = docs and docs.absolute() / own.dataset / f"{own.table}.html"
                place = CodePlace.of(context.run, clients.settings.dagster_url)
                table = Judged(key, own, suites[own.dataset].of(names), page, place)
                yield from judge_table(clients, topology, table, context.run.run_id, context.log.warning)

    return [cdc_checks]


class CheckConfig(dg.Config):
    """What a run of the checks may ask for."""

    data_docs: bool = Field(
        default=False,
        description="Write a page a table of what was expected and found, below the component's data_docs or cache.",
    )


@dataclass(frozen=True, slots=True)
class Judged:
    """One table, the checks asked for, the page that shows them, if one is asked for, and where jobs are linked to."""

    key: dg.AssetKey
    props: CdcTableProps
    suite: Suite
    page: Path | None = None
    place: CodePlace | None = None


def judge_table(
    clients: Platform, topology: Topology, table: Judged, run_id: str, warn: Any
) -> Iterator[dg.AssetCheckResult]:
    """The results of one table. What goes wrong with it fails its checks, and no other table's."""
    dataset, name = table.props.dataset, table.props.table
    try:
        shards = [shard.id for shard in topology.shards.get(topology.dataset(dataset).name, ())]
        verdicts = AuditFrame(clients.settings.audit_dir).latest(dataset, name, shards)
        duplicates, continuity = _counted(clients, topology, table, run_id)
        rows = judged_rows(
            dataset,
            name,
            shards,
            verdicts=verdicts,
            duplicates={shard.shard: shard for shard in duplicates},
            continuity={shard.shard: shard for shard in continuity.shards},
            now=datetime.now(UTC),
        )
        now, last = datetime.now(UTC), clients.state.read().get(last_pass.KEY)
        outcomes = [
            as_passes_say(_without_ledger(one, continuity), last, dataset, table.suite, now)
            for one in evaluate(table.suite, rows, len(shards), page=table.page)
        ]
    except CdcError as error:
        warn(f"{dataset}.{name}: {error}")
        for item in table.suite.expectations:
            failed = CheckOutcome(expectation=item, passed=False, problem=str(error))
            yield _result(table.key, failed, {}, _advice(table, failed, ()), 0)
        return
    foreign = foreign_rows(verdicts)
    outcomes = [_without_foreign(one, foreign, dataset, name) for one in outcomes]
    more = {
        _DUPLICATES: _of_duplicates(duplicates),
        _CONTINUOUS: _of_ledger(continuity),
        _COMPLETE: _of_foreign(foreign),
        RECENTLY: _of_age(verdicts),
    }
    by_shard = {row["shard"]: row for row in rows}
    for outcome in outcomes:
        metadata = {**more.get(outcome.expectation.check, {}), **_advice(table, outcome, verdicts)}
        if table.page is not None:
            metadata["data_docs"] = dg.MetadataValue.url(table.page.as_uri())
        yield _result(table.key, outcome, by_shard, metadata, len(shards), verdicts)


def _counted(
    clients: Platform, topology: Topology, table: Judged, run_id: str
) -> tuple[Sequence[ShardDuplicates], TableContinuity]:
    """Duplicates, and the ledger, by reading what is new: only what a selected check looks at."""
    dataset, name = table.props.dataset, table.props.table
    nothing = TableContinuity(dataset=dataset, table=name)
    columns = {item.kwargs.get("column") for item in table.suite.expectations}
    counts = any(str(column).startswith("duplicates") or column in _CAUSES for column in columns)
    if not counts and not columns & _LEDGER:
        return (), nothing
    with wiring.open_ledger(clients) as ports:
        if columns & _LEDGER:
            found, continuity = count_and_keep(ports, topology, dataset, name, run_id=run_id)
            return found.shards, continuity
        found = count_duplicates(clients, ports.records, ports.offsets, topology, dataset, name, run_id=run_id)
        return found.shards, nothing


_CAUSES = frozenset(str(cause) for cause in Cause)
_LEDGER = frozenset({"transactions", "breaks"})


def _without_ledger(outcome: CheckOutcome, continuity: TableContinuity) -> CheckOutcome:
    """A check of the ledger fails where there is none, and says why."""
    if outcome.passed or not continuity.problem or outcome.expectation.kwargs.get("column") not in _LEDGER:
        return outcome
    return replace(outcome, problem=f"No ledger: {continuity.problem}.")


def _without_foreign(outcome: CheckOutcome, foreign: ForeignRows | None, dataset: str, table: str) -> CheckOutcome:
    """`complete` fails while the topic has rows of shards that the topology lacks, though all shards are proven."""
    if outcome.expectation.check != _COMPLETE or not outcome.passed or foreign is None or not foreign.rows:
        return outcome
    return replace(outcome, passed=False, problem=foreign.sentence(dataset, table))


def _of_foreign(foreign: ForeignRows | None) -> Mapping[str, Any]:
    if foreign is None:
        return {}
    return {"foreign_rows": foreign.rows, "foreign_shards": some_of(foreign.shards, SHOWN)}


def _advice(table: Judged, outcome: CheckOutcome, verdicts: Sequence[ShardVerdict]) -> Mapping[str, Any]:
    """What to do about a check that fails: its advice for this table, and for `complete` the job that does it."""
    if outcome.passed:
        return {}
    dataset, name, item = table.props.dataset, table.props.table, outcome.expectation
    found: dict[str, Any] = {}
    if item.advice:
        found["advice"] = item.advice.replace("{dataset}", dataset).replace("{table}", name)
    wrong = [verdict.shard for verdict in verdicts if verdict.verdict is Verdict.MISMATCHED]
    if item.check == _COMPLETE and wrong and table.place is not None:
        link = repair_link(table.place, Names(table.props.platform), dataset, name, wrong)
        found["repair"] = dg.MetadataValue.md(link)
    return found


def _of_age(verdicts: Sequence[ShardVerdict]) -> Mapping[str, Any]:
    times = [verdict.checked_at.timestamp() for verdict in verdicts]
    return {OLDEST: dg.MetadataValue.timestamp(min(times))} if times else {}


def _of_duplicates(duplicates: Sequence[ShardDuplicates]) -> Mapping[str, Any]:
    lines = [blame.sentence() for shard in duplicates for blame in shard.blames]
    return {
        "duplicates": sum(shard.total for shard in duplicates),
        "alarming": sum(shard.alarming for shard in duplicates),
        "blames": "\n".join(lines[:SHOWN]),
        "not_exact": "\n".join(
            f"{shard.shard}: run {run}: it is unknown whether it began in the middle of a transaction"
            for shard in duplicates
            for run in shard.unsure
        ),
    }


def _of_ledger(continuity: TableContinuity) -> Mapping[str, Any]:
    shards = continuity.shards
    return {
        "transactions_whole": sum(shard.checked for shard in shards),
        "transactions_open": sum(shard.open for shard in shards),
        "runs_resumed": sum(shard.resumed for shard in shards),
        "runs_unknown": sum(shard.unknown for shard in shards),
        "breaks": "\n".join([one.sentence() for shard in shards for one in shard.breaks][:SHOWN]),
        "problem": continuity.problem,
    }


def _result(
    key: dg.AssetKey,
    outcome: CheckOutcome,
    rows: Mapping[str, Mapping[str, Any]],
    more: Mapping[str, Any],
    shards: int,
    verdicts: Sequence[ShardVerdict] = (),
) -> dg.AssetCheckResult:
    item = outcome.expectation
    metadata: dict[str, Any] = {
        "failing_shards": len(outcome.shards),
        "shards": shards,
        "expectation": item.type,
    }
    if item.owner:
        metadata["owner"] = item.owner
    if outcome.shards:
        metadata["shards_failing"] = _table(
            [rows[shard] for shard in outcome.shards[:SHOWN]], str(item.kwargs["column"])
        )
    if not outcome.passed and rows:
        metadata["heat_map"] = heat_map_metadata(_cells(outcome, rows))
    if item.check == _COMPLETE and verdicts:
        metadata["positions"] = positions(verdicts)
        if keys := differing(verdicts):
            metadata["keys"] = dg.MetadataValue.md(keys)
    metadata |= more
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=item.check,
        passed=outcome.passed,
        severity=dg.AssetCheckSeverity.ERROR if item.severity == "critical" else dg.AssetCheckSeverity.WARN,
        description=for_log(_sentence(outcome, rows, shards)),
        metadata=metadata,
    )


def _cells(outcome: CheckOutcome, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, CellState]:
    """The verdicts; for checks of something else the shards that fail it over them."""
    cells = {shard: cell_state(down=None, verdict=row["verdict"]) for shard, row in rows.items()}
    if outcome.expectation.check != _COMPLETE:
        cells |= dict.fromkeys(outcome.shards, CellState.FAILING)
    return cells


def _sentence(outcome: CheckOutcome, rows: Mapping[str, Mapping[str, Any]], shards: int) -> str:
    if outcome.problem:
        return outcome.problem
    if outcome.passed:
        return f"{shards} shards. {outcome.expectation.description}".strip()
    if not outcome.shards:
        return f"Not as expected: {outcome.observed or 'see the metadata'}."
    first = rows[outcome.shards[0]]
    reason = f": {first['reason'] or first['verdict']}" if outcome.expectation.check == _COMPLETE else ""
    if outcome.expectation.check == _COMPLETE:
        lost = {
            name: sum(rows[shard][name] or 0 for shard in outcome.shards) for name in ("missing", "extra", "mismatched")
        }
        reason = f"{reason} ({', '.join(f'{count} {name}' for name, count in lost.items())} in all)"
    return f"{len(outcome.shards)} of {shards} shards fail, first {outcome.shards[0]}{reason}."


def _table(rows: Sequence[Mapping[str, Any]], column: str) -> dg.TableMetadataValue:
    names = list(dict.fromkeys(["shard", column, "verdict", "reason", "missing", "extra", "mismatched"]))
    records = [
        dg.TableRecord({name: "" if row[name] is None else for_terminal(str(row[name])) for name in names})
        for row in rows
    ]
    schema = dg.TableSchema([dg.TableColumn(name, "string") for name in names])
    return dg.MetadataValue.table(records, schema=schema)

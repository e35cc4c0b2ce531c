"""The policy of a dataset: a Great Expectations suite over the audit frame, in a plain file.

Suites are read without importing the library, which costs seconds and hundreds of MB; only
`evaluate` imports it, in the process of the checks. Each expectation is one check: its name is
`meta.check`. What a file does not name is taken from the default suite. A value that is not
known fails, unless `meta.unknown` is "passes".
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cdc_platform.defs.data_docs import write_page
from cdc_platform.errors import BadInput, TopologyError
from cdc_platform.model.naming import one_of
from cdc_platform.model.topology import EMPTY
from cdc_platform.verification.check_rows import COLUMNS

SEVERITIES = ("critical", "warning", "info")
_CHECK = re.compile(r"[a-z][a-z0-9_]{0,60}")
_TYPE = re.compile(r"expect_[a-z0-9_]+")

# Given by the platform, whatever a suite says.
SHARDS = "shards"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """One expectation, one check. `owner` and `advice` go into alerts, {dataset} and {table} filled in."""

    check: str
    type: str
    kwargs: Mapping[str, Any]
    severity: str = "critical"
    description: str = ""
    owner: str = ""
    advice: str = ""
    meta: Mapping[str, Any] = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """The expectations of one dataset, and the values of their parameters. `file` is where they are from."""

    name: str
    expectations: tuple[Expectation, ...]
    parameters: Mapping[str, Any] = EMPTY
    file: str = ""

    @property
    def where(self) -> str:
        """Its file, or its name where it has none."""
        return self.file or f"the default suite for {self.name}"

    def of(self, checks: Sequence[str]) -> Suite:
        """Only these checks."""
        chosen = tuple(item for item in self.expectations if item.check in checks)
        return replace(self, expectations=chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOutcome:
    """What an expectation says. `shards` fail it, by name; `observed` is its own figure, if it has one."""

    expectation: Expectation
    passed: bool
    shards: tuple[str, ...] = ()
    observed: str = ""
    problem: str = ""


DEFAULT = Suite(
    name="default",
    expectations=(
        Expectation(
            check="shard_count",
            type="expect_table_row_count_to_equal",
            kwargs={"value": {"$PARAMETER": SHARDS}},
            # An empty frame passes nearly every other expectation.
            description="Every shard of the topology has a row.",
        ),
        Expectation(
            check="complete",
            type="expect_column_values_to_be_in_set",
            kwargs={"column": "verdict", "value_set": ["proven"]},
            description="Every shard's topic is proven to equal its table.",
            advice="`cdc-platform repair {dataset} --table {table}` shows what differs; with --apply it is sent again.",
        ),
        Expectation(
            check="no_duplicates",
            type="expect_column_values_to_be_between",
            kwargs={"column": "duplicates_alarming", "max_value": 0},
            description="No more copies than at-least-once delivery explains.",
            advice="The shards' blames name task runs, workers and offsets.",
        ),
        Expectation(
            check="continuous",
            type="expect_column_values_to_be_between",
            kwargs={"column": "breaks", "max_value": 0},
            description="Each step that the source logged arrived, or a proof has followed; others are in no log.",
            advice="The break names its range; ledger_sensor has the shard verified. Repair what that finds.",
        ),
        Expectation(
            check="fresh",
            type="expect_column_values_to_be_between",
            kwargs={"column": "lag_s", "max_value": {"$PARAMETER": "max_lag"}},
            severity="warning",
            description="The topic was not further behind its source than max_lag seconds.",
        ),
        Expectation(
            check="recently_verified",
            type="expect_column_values_to_be_between",
            kwargs={"column": "age_s", "max_value": {"$PARAMETER": "max_age"}},
            severity="warning",
            description="The newest verdict is not older than max_age seconds.",
        ),
        Expectation(
            check="schema_current",
            type="expect_column_values_to_be_between",
            kwargs={"column": "columns_behind", "max_value": 0},
            severity="warning",
            description="Every shard's table has the columns that the widest of them has.",
        ),
    ),
    parameters={"max_lag": 300, "max_age": 172_800},
)


# What a file may give another severity and owner, but nothing else to expect: without it an empty frame passes.
_ALWAYS = {item.check: item for item in DEFAULT.expectations if item.check == "shard_count"}


def load_suite(directory: Path | None, dataset: str) -> Suite:
    """`DIRECTORY/DATASET.json` over the default suite; the default without such a file.

    Raises:
        BadInput: names file, field and cure.
    """
    path = None if directory is None else directory / f"{dataset}.json"
    if path is None or not path.exists():
        return Suite(name=dataset, expectations=DEFAULT.expectations, parameters=DEFAULT.parameters)
    where = str(path)
    try:
        document = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(f"no suite file: {error}.", where=where, cure="Write JSON; docs/policy.md shows one.") from None
    if not isinstance(document, Mapping):
        raise BadInput("is no object.", where=where, cure='Write {"name": ..., "expectations": [...]}.')
    given, meta = document.get("expectations", []), document.get("meta", {})
    if not isinstance(given, list):
        raise BadInput("is no list.", where=where, field="expectations", cure="Write a list of expectations.")
    if not isinstance(meta, Mapping):
        raise BadInput("is no object.", where=where, field="meta", cure='Write {"parameters": {...}}, or leave it out.')
    parameters = meta.get("parameters", {})
    if not isinstance(parameters, Mapping):
        raise BadInput("is no object.", where=where, field="meta.parameters", cure="Write NAME: VALUE.")
    found: dict[str, Expectation] = {}
    for number, item in enumerate(given):
        expectation = _expectation(item, where, f"expectations[{number}]")
        if expectation.check in found:
            raise BadInput(
                f"{expectation.check!r} is there twice.",
                where=where,
                field=f"expectations[{number}].meta.check",
                cure="One expectation is one check: give it a name of its own.",
            )
        fixed = _ALWAYS.get(expectation.check)
        if fixed is not None and (fixed.type, dict(fixed.kwargs)) != (expectation.type, expectation.kwargs):
            raise BadInput(
                f"{fixed.check!r} is always expected as it is.",
                where=where,
                field=f"expectations[{number}]",
                cure=f"Write {fixed.type} with {json.dumps(fixed.kwargs)}, or take another name.",
            )
        found[expectation.check] = expectation
    merged = {item.check: item for item in DEFAULT.expectations} | found
    suite = Suite(
        name=dataset,
        expectations=tuple(merged.values()),
        parameters={**DEFAULT.parameters, **parameters},
        file=where,
    )
    _check_parameters(suite, where)
    return suite


def _expectation(item: Any, where: str, field: str) -> Expectation:
    if not isinstance(item, Mapping) or not isinstance(item.get("kwargs", {}), Mapping):
        raise BadInput("is no expectation.", where=where, field=field, cure="Write type, kwargs, severity and meta.")
    meta = item.get("meta") or {}
    if not isinstance(meta, Mapping):
        raise BadInput("is no object.", where=where, field=f"{field}.meta", cure='Write {"check": NAME, ...}.')
    check = meta.get("check")
    if not isinstance(check, str) or not _CHECK.fullmatch(check):
        raise BadInput(
            f"{check!r} is no name of a check.", where=where, field=f"{field}.meta.check", cure="Use a-z, 0-9 and _."
        )
    # The library's own place is beside the type; older suites have it in `meta`.
    kind, severity = item.get("type"), item.get("severity") or meta.get("severity", "critical")
    if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
        raise BadInput(
            f"{kind!r} is no expectation.", where=where, field=f"{field}.type", cure="Use expect_... as in the gallery."
        )
    if severity not in SEVERITIES:
        raise BadInput(
            f"{severity!r} is no severity.",
            where=where,
            field=f"{field}.severity",
            cure=f"Use {', '.join(SEVERITIES)}.",
        )
    kwargs = item.get("kwargs", {})
    column = kwargs.get("column")
    if column is not None and column not in COLUMNS:
        raise BadInput(
            f"the audit frame has no column {column!r}.",
            where=where,
            field=f"{field}.kwargs.column",
            cure=one_of(str(column), COLUMNS, most=len(COLUMNS)),
        )
    return Expectation(
        check=check,
        type=kind,
        kwargs=dict(kwargs),
        severity=severity,
        description=str(item.get("description") or meta.get("description", "")),
        owner=str(meta.get("owner", "")),
        advice=str(meta.get("advice", "")),
        meta=dict(meta),
    )


def _check_parameters(suite: Suite, where: str) -> None:
    for item in suite.expectations:
        for name, value in item.kwargs.items():
            parameter = value.get("$PARAMETER") if isinstance(value, Mapping) else None
            if parameter is not None and parameter not in (SHARDS, *suite.parameters):
                raise BadInput(
                    f"parameter {parameter!r} has no value.",
                    where=where,
                    field=f"{item.check}.{name}",
                    cure="Give it one in meta.parameters.",
                )


def evaluate(
    suite: Suite, rows: Sequence[Mapping[str, Any]], shards: int, *, page: Path | None = None
) -> list[CheckOutcome]:
    """What each expectation says of the frame, in the suite's order. Imports Great Expectations.

    `page`: a file in which the library says the same as HTML.

    Raises:
        BadInput: the library does not know an expectation, or its arguments.
    """
    # Set before the import: no telemetry, whatever version is there.
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    import pandas as pd

    data = pd.DataFrame(list(rows), columns=list(COLUMNS))
    context = gx.get_context(mode="ephemeral")
    variables: Any = context.variables
    variables.progress_bars = {"globally": False, "metric_calculations": False}
    definition = context.data_sources.add_pandas("audit").add_dataframe_asset("frame")
    batch = definition.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": data})
    try:
        made = gx.ExpectationSuite(
            name=suite.name,
            expectations=[
                # Results come in another order than the suite: they are found again by `meta`.
                {
                    "type": item.type,
                    "kwargs": dict(item.kwargs),
                    "severity": item.severity,
                    "meta": {"check": item.check},
                }
                for item in suite.expectations
            ],
        )
        found = batch.validate(
            made,
            # Of a dataset without shards nothing is known to be right.
            expectation_parameters={**suite.parameters, SHARDS: max(1, shards)},
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["shard"]},
        )
    # The library raises of every kind for a suite that it cannot use.
    except Exception as error:
        raise BadInput(
            f"Great Expectations refuses the suite: {type(error).__name__}: {error}",
            where=suite.where,
            field="expectations",
            cure="See the expectations' arguments in the library's gallery.",
        ) from error
    if page is not None:
        write_page(found, page)
    results: list[Any] = list(found.results)
    by_check = {result.expectation_config.meta["check"]: result for result in results}
    # What the library does not know it logs and leaves out.
    lost = [f"{item.check} ({item.type})" for item in suite.expectations if item.check not in by_check]
    if lost:
        raise BadInput(
            f"Great Expectations does not know {', '.join(lost)}, or refuses its arguments.",
            where=suite.where,
            field="expectations",
            cure="See the expectation in the library's gallery.",
        )
    return [_outcome(item, by_check[item.check], _unknown(item, rows)) for item in suite.expectations]


def _unknown(item: Expectation, rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Shards whose value is not known: the library leaves them out, and so would call them right."""
    column = item.kwargs.get("column")
    if column is None or item.meta.get("unknown") == "passes" or "null" in item.type:
        return set()
    return {str(row["shard"]) for row in rows if row[column] is None}


def _outcome(item: Expectation, result: Any, unknown: set[str]) -> CheckOutcome:
    problem = _raised(result.exception_info)
    details = result.result or {}
    index = details.get("unexpected_index_list") or []
    observed = details.get("observed_value")
    return CheckOutcome(
        expectation=item,
        passed=bool(result.success) and not problem and not unknown,
        shards=tuple(sorted({str(entry["shard"]) for entry in index} | unknown)),
        observed="" if observed is None else str(observed),
        problem=problem,
    )


def _raised(info: Any) -> str:
    """The message of an exception, which comes bare or by metric."""
    if not isinstance(info, Mapping):
        return ""
    entries = [info] if "raised_exception" in info else list(info.values())
    for entry in entries:
        if isinstance(entry, Mapping) and entry.get("raised_exception"):
            return str(entry.get("exception_message"))
    return ""


def suites_for(directory: Path | None, datasets: Sequence[str]) -> dict[str, Suite]:
    """Dataset to suite. Raises BadInput for a file that is wrong, TopologyError for one of no dataset."""
    if directory is not None:
        known = {f"{dataset}.json" for dataset in datasets}
        strangers = sorted(path.name for path in directory.glob("*.json") if path.name not in known)
        if strangers:
            raise TopologyError(
                f"{strangers[0]} is the suite of no dataset.",
                where=str(directory),
                cure=f"Name it after one of {', '.join(sorted(datasets)) or '(none)'}.",
            )
    return {dataset: load_suite(directory, dataset) for dataset in datasets}

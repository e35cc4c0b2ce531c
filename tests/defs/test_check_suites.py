"""The policy over the audit frame: suites as plain files, one expectation one check."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_platform import wiring
from cdc_platform.clients.kafka.topic_records import Batch, TopicBounds
from cdc_platform.defs import build_cdc_asset_checks
from cdc_platform.defs.check_suites import DEFAULT, CheckOutcome, evaluate, load_suite, suites_for
from cdc_platform.defs.table_inventory import load_tables
from cdc_platform.errors import BadInput, KafkaUnavailable, TopologyError
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.check_rows import judged_rows
from cdc_platform.verification.continuity.breaks import Break, BreakKind, ShardContinuity
from cdc_platform.verification.duplicates.causes import Cause, ShardDuplicates
from cdc_platform.verification.duplicates.duplicate_count import TableDuplicates
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict
from tests.defs.harness import Harness, HarnessResource, topology

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def verdict(shard: str, found: Verdict = Verdict.PROVEN, **fields: Any) -> ShardVerdict:
    defaults: dict[str, Any] = {
        "dataset": "pins", "table": "pins", "shard": shard, "verdict": found, "reason": "", "run_id": "r1",
        "checked_at": NOW, "topic": "cdc.pins.pins", "source": "db-1:3306", "lag_s": 1.0, "columns": 3,
    }  # fmt: skip
    return ShardVerdict(**(defaults | fields))


def rows(
    *verdicts: ShardVerdict,
    shards: int = 3,
    alarming: int = 0,
    age: float = 0.0,
    breaks: tuple[Break, ...] = (),
) -> list[dict[str, Any]]:
    names = [f"{n:05d}" for n in range(shards)]
    sent = {n: ShardDuplicates(shard=n, counts={Cause.ZOMBIE: alarming}, alarming=alarming) for n in names[:1]}
    sent |= {n: ShardDuplicates(shard=n) for n in names[1:]}
    return judged_rows(
        "pins", "pins", names, verdicts=verdicts, duplicates=sent,
        continuity={n: ShardContinuity(shard=n, breaks=breaks if n == names[0] else ()) for n in names},
        now=NOW + timedelta(seconds=age),
    )  # fmt: skip


def judged(found: list[dict[str, Any]], shards: int = 3, suite: Any = DEFAULT) -> dict[str, CheckOutcome]:
    return {outcome.expectation.check: outcome for outcome in evaluate(suite, found, shards)}


def test_all_is_well() -> None:
    found = judged(rows(*(verdict(f"{n:05d}") for n in range(3))))
    assert all(outcome.passed for outcome in found.values())
    assert list(found) == [item.check for item in DEFAULT.expectations]


def test_each_check_names_its_failing_shards() -> None:
    found = judged(
        rows(
            verdict("00000", columns=2),
            verdict("00001", Verdict.MISMATCHED, missing=37, lag_s=900.0),
            verdict("00002", Verdict.PENDING, checked_at=NOW - timedelta(days=9)),
            alarming=5,
            breaks=(Break(shard="00000", kind=BreakKind.RESUME, range="a to b", found_at=NOW),),
        )
    )
    failing = {check: outcome.shards for check, outcome in found.items() if not outcome.passed}
    assert failing == {
        "complete": ("00001", "00002"),
        "no_duplicates": ("00000",),
        "continuous": ("00000",),
        "fresh": ("00001",),
        "recently_verified": ("00002",),
        "schema_current": ("00000",),
    }


def test_an_empty_frame_and_a_frame_with_too_few_shards_fail() -> None:
    assert not judged([])["shard_count"].passed
    assert not judged([], shards=0)["shard_count"].passed
    assert judged(rows(verdict("00000"), shards=1))["shard_count"].observed == "1"


def test_what_was_never_verified_fails_every_check_that_looks_at_it() -> None:
    found = judged(rows())
    assert found["complete"].shards == ("00000", "00001", "00002")
    # The library leaves nulls out, and would call these right.
    assert not found["fresh"].passed
    assert not found["recently_verified"].passed
    assert found["no_duplicates"].passed


def suite_file(tmp_path: Path, document: object) -> Path:
    (tmp_path / "pins.json").write_text(json.dumps(document))
    return tmp_path


def test_users_tune_thresholds_and_add_checks_in_a_file() -> None:
    suite = load_suite(Path("examples/policies"), "pins")
    assert suite.parameters["max_lag"] == 60
    found = judged(rows(verdict("00000", lag_s=61.0), *(verdict(f"{n:05d}") for n in (1, 2)), alarming=1), suite=suite)
    assert {"complete", "no_zombies", "little_redelivery", "shard_count"} <= set(found)
    assert found["fresh"].shards == ("00000",)
    assert found["fresh"].expectation.owner == "data-platform"
    assert found["no_zombies"].shards == ("00000",)
    assert found["little_redelivery"].passed


def test_the_shard_count_is_always_expected(tmp_path: Path) -> None:
    own = {"type": "expect_table_row_count_to_equal", "kwargs": {"value": {"$PARAMETER": "shards"}}}
    softer = {**own, "meta": {"check": "shard_count", "owner": "ann", "severity": "warning"}}
    found = {
        item.check: item for item in load_suite(suite_file(tmp_path, {"expectations": [softer]}), "pins").expectations
    }
    assert (found["shard_count"].severity, found["shard_count"].owner) == ("warning", "ann")
    assert not judged([], suite=load_suite(tmp_path, "pins"))["shard_count"].passed
    for weaker in ({**softer, "kwargs": {"value": 0}}, {**IS, "meta": {"check": "shard_count"}}):
        with pytest.raises(BadInput, match="always expected"):
            load_suite(suite_file(tmp_path, {"expectations": [weaker]}), "pins")


IS = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "lag_s", "max_value": 1}}


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({**IS}, "meta.check"),
        ({**IS, "meta": {"check": "Not a name"}}, "meta.check"),
        ({**IS, "type": "drop_table", "meta": {"check": "a"}}, "type"),
        ({**IS, "severity": "awful", "meta": {"check": "a"}}, "severity"),
        ({**IS, "meta": {"check": "a", "severity": "awful"}}, "severity"),
        ({**IS, "meta": ["check"]}, "meta"),
        ({**IS, "kwargs": {"column": "lags"}, "meta": {"check": "a"}}, "kwargs.column"),
        ({**IS, "kwargs": {"column": "lag_s", "max_value": {"$PARAMETER": "limit"}}, "meta": {"check": "a"}}, "a.max"),
        (3, "expectations[0]"),
    ],
)
def test_a_bad_suite_is_named_without_the_library(tmp_path: Path, item: object, field: str) -> None:
    with pytest.raises(BadInput) as error:
        load_suite(suite_file(tmp_path, {"expectations": [item]}), "pins")
    assert field in (error.value.field or "")
    assert error.value.where == str(tmp_path / "pins.json")


def test_two_expectations_with_one_name_and_files_of_nobody_are_refused(tmp_path: Path) -> None:
    twice = {**IS, "meta": {"check": "a"}}
    with pytest.raises(BadInput, match="twice"):
        load_suite(suite_file(tmp_path, {"expectations": [twice, twice]}), "pins")
    with pytest.raises(TopologyError, match=r"pins\.json"):
        suites_for(tmp_path, ["orders"])


def test_an_expectation_that_the_library_refuses_is_one_clear_error(tmp_path: Path) -> None:
    item = {"type": "expect_the_unexpected", "kwargs": {}, "meta": {"check": "a"}}
    suite = load_suite(suite_file(tmp_path, {"expectations": [item]}), "pins")
    with pytest.raises(BadInput, match="Great Expectations does not know a"):
        evaluate(suite, rows(), 3)


def test_loading_definitions_does_not_import_the_library() -> None:
    code = "import sys, cdc_platform.defs; sys.exit('great_expectations' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The checks themselves


def checked(
    harness: Harness,
    resource: HarnessResource,
    instance: dg.DagsterInstance,
    *names: str,
) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
    found = load_tables(resource=resource)
    checks = build_cdc_asset_checks(tables=[one for one in found.tables if one.dataset == "pins"])
    keys = [key for key in checks[0].check_keys if key.name in names]
    run = dg.materialize(
        checks, instance=instance, resources={"cdc_platform": resource}, selection=dg.AssetSelection.checks(*keys)
    )
    return {(e.asset_key.path[-2], e.check_name): e for e in run.get_asset_check_evaluations()}


def test_checks_judge_the_newest_verdicts_and_name_the_failing_shards(
    harness: Harness,
    resource: HarnessResource,
    instance: dg.DagsterInstance,
) -> None:
    now = datetime.now(UTC)
    store = AuditFrame(harness.settings.audit_dir)
    store.write([verdict(f"{n:05d}", checked_at=now) for n in range(3)])
    store.write(
        [
            verdict(
                "00001", Verdict.MISMATCHED, reason="37 missing", missing=37, checked_at=now + timedelta(milliseconds=1)
            )
        ]
    )
    store.write([verdict("00001", checked_at=now - timedelta(hours=1))])  # reached earlier, written later
    found = checked(harness, resource, instance, "complete", "shard_count")
    assert {pair: evaluation.passed for pair, evaluation in found.items()} == {
        ("pins", "complete"): False,
        ("pins", "shard_count"): True,
        ("boards", "complete"): False,
        ("boards", "shard_count"): True,
    }
    broken = found["pins", "complete"]
    assert (
        broken.description == "1 of 3 shards fail, first 00001: 37 missing (37 missing, 0 extra, 0 mismatched in all)."
    )
    assert broken.severity is dg.AssetCheckSeverity.ERROR
    assert [record.data["shard"] for record in broken.metadata["shards_failing"].value.records] == ["00001"]  # type: ignore[union-attr]
    picture = str(broken.metadata["heat_map"].value)
    assert picture.startswith("![3 shards: 1 incomplete, 2 captured, proven](data:image/svg+xml;base64,")
    assert "heat_map" not in found["pins", "shard_count"].metadata, "passing checks need none"
    store.write([verdict("00001", checked_at=now + timedelta(seconds=1))])
    assert checked(harness, resource, instance, "complete")["pins", "complete"].passed


def test_a_table_that_cannot_be_counted_fails_its_checks_and_no_other(
    harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Topic:
        def __init__(self, name: str) -> None:
            self.name = name

        def bounds(self) -> TopicBounds:
            if self.name == "cdc.pins.boards":
                raise KafkaUnavailable("no broker.")
            return TopicBounds(topic_id="id", partitions={0: (0, 0)})

        def read(self, partition: int, begin: int, end: int) -> Iterator[Batch]:
            return iter(())

        def close(self) -> None:
            """Nothing to close."""

    monkeypatch.setattr(wiring, "traced_records", lambda platform: Topic)
    found = checked(harness, resource, instance, "no_duplicates")
    assert found["pins", "no_duplicates"].passed
    assert not found["boards", "no_duplicates"].passed
    assert found["boards", "no_duplicates"].description == "no broker."


def test_duplicates_that_may_be_counted_wrong_are_named(
    harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted(*outside: object, run_id: str) -> TableDuplicates:
        shards = (ShardDuplicates(shard="00000"), ShardDuplicates(shard="00001", unsure=("r7",)))
        return TableDuplicates(
            dataset="pins", table="pins", topic="t", run_id=run_id, checked_at=NOW, events=0, read=0, unreadable=0,
            shards=shards,
        )  # fmt: skip

    monkeypatch.setattr("cdc_platform.defs.checks.count_duplicates", counted)
    told = checked(harness, resource, instance, "no_duplicates")["pins", "no_duplicates"].metadata["not_exact"].value
    assert told == "00001: run r7: it is unknown whether it began in the middle of a transaction"


def test_a_table_with_rows_of_a_shard_that_is_gone_is_not_complete_until_they_are_removed(
    harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance
) -> None:
    shards = [shard.id for shard in topology().shards["pins"]]
    audit = AuditFrame(harness.settings.audit_dir)
    audit.write([replace(verdict(shard), foreign_rows=30, foreign_shards=("gone",)) for shard in shards])
    found = checked(harness, resource, instance, "complete")["pins", "complete"]
    assert not found.passed
    assert "30 rows in the topic are of shards that the topology does not have: gone." in (found.description or "")
    assert "repair pins gone --table pins --tombstones" in (found.description or "")
    assert (found.metadata["foreign_rows"].value, found.metadata["failing_shards"].value) == (30, 0)
    # One shard's later verification counts for the table.
    later = verdict(shards[0])
    audit.write([replace(later, checked_at=later.checked_at + timedelta(seconds=1), foreign_rows=0)])
    assert checked(harness, resource, instance, "complete")["pins", "complete"].passed


def test_data_docs_are_written_when_they_are_asked_for_and_load_nothing_from_elsewhere(
    harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    AuditFrame(harness.settings.audit_dir).write([verdict("00001", Verdict.MISMATCHED, missing=37)])
    assert "data_docs" not in checked(harness, resource, instance, "complete")["pins", "complete"].metadata
    found = load_tables(resource=resource)
    checks = build_cdc_asset_checks(tables=[one for one in found.tables if one.table == "pins"])
    keys = [key for key in checks[0].check_keys if key.name in ("complete", "shard_count")]
    run = dg.materialize(
        checks,
        instance=instance,
        resources={"cdc_platform": resource},
        selection=dg.AssetSelection.checks(*keys),
        run_config={"ops": {"judge_checks": {"config": {"data_docs": True}}}},
    )
    page = Path(harness.settings.cache_dir) / "data-docs" / "pins" / "pins.html"
    assert {e.metadata["data_docs"].value for e in run.get_asset_check_evaluations()} == {page.as_uri()}
    text = page.read_text()
    assert "mismatched" in text
    assert "values must belong to this set" in text
    assert not re.search(r"(?:src|href)=[\"']?https?://", text)


def test_data_docs_that_cannot_be_written_are_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="no page could be written") as caught:
        evaluate(DEFAULT, rows(verdict("00000"), shards=1), 1, page=tmp_path / "file" / "page.html")
    assert caught.value.field == "data_docs"


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["a", "breaks", "expect_x", "critical", "check"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["expectations", "meta", "parameters", "type", "kwargs", "column", "severity", "check", "$PARAMETER"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(document=JSON, wrapped=st.booleans())
def test_any_suite_file_is_read_or_is_one_clear_error(
    document: Any, wrapped: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("suites")
    (place / "pins.json").write_text(json.dumps({"expectations": [document]} if wrapped else document))
    try:
        assert load_suite(place, "pins").expectations
    except BadInput as error:
        assert error.where == str(place / "pins.json")
        assert error.cure


def test_an_expectation_that_only_the_library_refuses_names_the_file(tmp_path: Path) -> None:
    item = {"type": "expect_the_moon", "kwargs": {}, "meta": {"check": "moon"}}
    (tmp_path / "pins.json").write_text(json.dumps({"expectations": [item]}))
    with pytest.raises(BadInput, match="moon") as caught:
        evaluate(load_suite(tmp_path, "pins"), rows(verdict("00000"), shards=1), 1)
    assert (caught.value.where, caught.value.field) == (str(tmp_path / "pins.json"), "expectations")

"""What a person sees of a table and of a pass."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import dagster as dg
import pytest

from cdc_platform.defs.metadata import MOST_SHARDS, down_table, pass_metadata, shards_metadata, table_metadata
from cdc_platform.defs.pass_events import MIN_INTERVAL, choose_tables, data_version, has_news
from cdc_platform.defs.sampled_columns import column_schema
from cdc_platform.defs.sensor_cursor import ALL
from cdc_platform.defs.translator import table_props
from cdc_platform.model.observed import TopicExtent
from cdc_platform.planning.plan import Plan
from cdc_platform.reconciler.report import DatasetHealth, PassReport, ShardDown
from tests.defs.harness import topology

WORLD = topology(pins=250)
PINS = next(props for props in table_props(WORLD, platform="cdc") if props.table == "pins")


def names(value: bytes) -> list[tuple[str, str]] | None:
    schema = column_schema(value)
    return None if schema is None else [(column.name, column.type) for column in schema.columns]


def test_columns_of_plain_json_have_the_kinds_of_json() -> None:
    after = {"id": 1, "name": "x", "ok": True, "size": 1.5, "doc": {}, "list": [], "none": None}
    assert names(json.dumps({"op": "c", "after": after}).encode()) == [
        ("id", "number"),
        ("name", "text"),
        ("ok", "boolean"),
        ("size", "number"),
        ("doc", "object"),
        ("list", "array"),
        ("none", "unknown"),
    ]


def test_columns_of_json_with_schemas_have_the_types_of_connect() -> None:
    fields = [
        {"field": "id", "type": "int64", "optional": False},
        {"field": "at", "type": "int64", "name": "Timestamp"},
    ]
    event = {
        "schema": {"type": "struct", "fields": [{"field": "after", "type": "struct", "fields": fields}]},
        "payload": {"op": "c", "after": {"id": 1, "at": 2}},
    }
    schema = column_schema(json.dumps(event).encode())
    assert schema is not None
    assert [(c.name, c.type, c.constraints.nullable) for c in schema.columns] == [
        ("id", "int64", False),
        ("at", "int64", True),
    ]


def test_columns_of_a_delete_are_those_of_the_row_before() -> None:
    assert names(b'{"op": "d", "before": {"id": 1}, "after": null}') == [("id", "number")]


@pytest.mark.parametrize(
    "value",
    [b"", b"{", b"null", b"[1]", b'"x"', b"{}", b'{"after": null}', b'{"after": 3}', b'{"payload": null}', b"\xff"],
)
def test_a_record_that_is_no_event_has_no_columns(value: bytes) -> None:
    assert column_schema(value) is None


def test_of_many_shards_those_furthest_behind_are_shown() -> None:
    shards = WORLD.shards["pins"]
    lags = {shard.name: float(number) for number, shard in enumerate(shards)} | {shards[7].name: 999.0}
    del lags[shards[3].name]
    found = shards_metadata(shards, health=None, homes={"pins.00007": "main"}, lags=lags)["slowest"]
    assert isinstance(found, dg.TableMetadataValue)
    assert [record.data["shard"] for record in found.records[:3]] == ["00003", "00007", "00249"]
    assert [record.data["lag_s"] for record in found.records[:2]] == ["unknown", "999.0"]
    assert [record.data["cluster"] for record in found.records[:2]] == ["none", "main"]
    assert len(found.records) == MOST_SHARDS


def test_dagster_shards_that_are_down_come_first_and_lags_are_numbers_that_plot() -> None:
    shards = WORLD.shards["pins"]
    down = ShardDown(shard="pins.00001", state="FAILED", reason="Connect says FAILED")
    health = DatasetHealth(dataset="pins", shards=250, up=249, down=(down,))
    found = shards_metadata(shards, health=health, homes={}, lags={shards[0].name: 2.0, shards[1].name: 9.0})
    assert next(iter(found)) == "shards_down"
    numbers = {name: value.value for name, value in found.items() if name.startswith("lag_seconds")}
    assert (numbers["lag_seconds_worst"], len(numbers)) == (9.0, 3)
    assert "slowest" not in shards_metadata(shards, health=health, homes={}, lags={}), "nothing is known of any lag"


def test_a_topic_is_new_when_it_has_more_events_and_not_too_often() -> None:
    some, more = TopicExtent(begin=0, end=10), TopicExtent(begin=0, end=11)
    assert not has_news(TopicExtent(begin=0, end=0), None, now=5_000.0)
    assert has_news(some, None, now=5_000.0)
    before = (data_version(some), 5_000.0)
    assert not has_news(some, before, now=99_000.0)
    assert not has_news(more, before, now=5_001.0)
    assert has_news(more, before, now=5_000.0 + MIN_INTERVAL)


def test_what_is_unknown_is_absent_and_never_zero() -> None:
    found = table_metadata(PINS, shards=(), health=None, lags={}, extent=None, sample=None)
    assert not {"events", "shards_up", "lag_seconds_worst", "newest_event", "dagster/column_schema"} & found.keys()


def test_the_worst_lag_counts() -> None:
    found = table_metadata(
        PINS,
        shards=WORLD.shards["pins"],
        health=None,
        lags={"pins.00000": 0.5, "pins.00001": 7.25, "orders.00000": 99.0},
        extent=TopicExtent(begin=10, end=30, newest=datetime(2026, 1, 1, tzinfo=UTC)),
        sample=None,
    )
    assert found["lag_seconds_worst"].value == 7.25
    assert (found["events"].value, found["events_ever"].value) == (20, 30)


def test_an_empty_table_keeps_its_heading() -> None:
    assert [column.name for column in down_table(()).schema.columns] == ["shard", "state", "reason"]


def test_metadata_of_a_pass_survives_dagster() -> None:
    down = ShardDown(shard="pins.1", state="FAILED", reason="Connect says FAILED")
    report = PassReport(
        generation=7,
        taken_at=datetime(2026, 1, 1, tzinfo=UTC),
        plan=Plan(),
        outcomes=(),
        health={"pins": DatasetHealth(dataset="pins", shards=2, up=1, down=(down,))},
        captured=(),
        number=1,
    )
    observation = dg.AssetObservation("x", metadata=pass_metadata(report, clusters={"main": 2}))
    assert observation.metadata["shards_up"].value == 1
    assert isinstance(observation.metadata["shards_down"], dg.TableMetadataValue)


TABLES = tuple(replace(PINS, dataset=f"d{n // 10}", table=f"t{n % 10}") for n in range(100))


def test_changed_datasets_are_observed_and_no_others() -> None:
    chosen = choose_tables(TABLES, changed=frozenset({"d3"}), turn=1, most=50)
    assert {props.dataset for props in chosen} == {"d3"} and len(chosen) == 10


def test_all_tables_have_their_turn_within_a_few_passes_and_changed_ones_each_time() -> None:
    seen: set[tuple[str, str]] = set()
    for turn in range(1, 5):
        chosen = choose_tables(TABLES, changed=frozenset({"d3", ALL}), turn=turn, most=40)
        assert len(chosen) == 40
        assert {props.table for props in chosen if props.dataset == "d3"} == {f"t{n}" for n in range(10)}
        seen |= {(props.dataset, props.table) for props in chosen}
    assert len(seen) == 100


def test_no_table_is_no_trouble() -> None:
    assert choose_tables((), changed=frozenset({ALL}), turn=3, most=10) == ()

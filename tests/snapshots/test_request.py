"""What a bootstrap or backfill may be asked for, and which shards it means."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest

from cdc_platform.errors import BadInput
from cdc_platform.model.topology import BootstrapMode, Engine, Limits, Topology
from cdc_platform.snapshots.request import KeyRange, Load, Request, RunKind, choose_shards
from cdc_platform.snapshots.request_options import OPTIONS, options_of, request_of
from cdc_platform.snapshots.run_lifecycle import plan_run, slices
from cdc_platform.snapshots.run_records import Watermark, runs
from tests.defs.harness import dataset, shard, topology


def bootstrap(**more: Any) -> Request:
    return Request(kind=RunKind.BOOTSTRAP, dataset="pins", **more)


def backfill(**more: Any) -> Request:
    return Request(kind=RunKind.BACKFILL, dataset="pins", **more)


def mark(table: str, number: int, **more: Any) -> dict[str, Mapping[str, Any]]:
    found = Watermark(
        dataset="pins",
        table=table,
        shard=f"{number:05d}",
        mode=BootstrapMode.INCREMENTAL,
        run="r0",
        position="0-1-5",
        offset={},
        since=run_at(),
        **more,
    )
    return {found.key: found.document()}


def run_at() -> Any:
    from datetime import UTC, datetime

    return datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: bootstrap(shards=("00000",), failed_of="r1"),
        lambda: bootstrap(condition="v > 3"),
        lambda: bootstrap(conditions={"00000": "v > 3"}),
        lambda: backfill(mode=BootstrapMode.LATEST),
        lambda: backfill(again=True),
        lambda: bootstrap(mode=BootstrapMode.POSITION),
        lambda: bootstrap(mode=BootstrapMode.LATEST, positions={"00000": "0-1-5"}),
        lambda: bootstrap(mode=BootstrapMode.LATEST, tables=("pins",)),
        lambda: Load(max_parallel_shards=0),
        lambda: KeyRange(column="id; DROP TABLE x", low="1"),
        lambda: KeyRange(column="id"),
    ],
)
def test_a_wrong_request_is_one_clear_error(wrong: Any) -> None:
    with pytest.raises(BadInput) as caught:
        wrong()
    assert caught.value.field
    assert caught.value.cure


def test_backfill_by_key_range_and_condition_is_one_sql_condition() -> None:
    both = backfill(key_range=KeyRange(column="id", low="5", high="900"), condition="v > 3 OR pad IS NULL")
    assert both.filter(Engine.MARIADB, "00000") == "`id` >= 5 AND `id` < 900 AND (`v` > 3 OR `pad` IS NULL)"
    text = backfill(key_range=KeyRange(column="name", low="O'Neil\\"))
    assert text.filter(Engine.POSTGRES, "00000") == "\"name\" >= E'O''Neil\\\\'"
    assert text.filter(Engine.MARIADB, "00000") == "`name` >= 'O''Neil\\\\'"
    each = backfill(conditions={"00000": "id IN (1)"})
    assert (each.filter(Engine.MARIADB, "00000"), each.filter(Engine.MARIADB, "00001")) == ("id IN (1)", None)
    assert backfill(condition="v > 3 OR v < 1").filter(Engine.MARIADB, "00000") == "`v` > 3 OR `v` < 1"


def test_each_field_of_a_request_is_an_option() -> None:
    made_of_others = {"kind", "load", "key_range"}
    by_repairs_only = {"conditions"}
    asked = {field.name for field in (*fields(Request), *fields(Load))} - made_of_others - by_repairs_only
    key_range = {"key_column", "key_from", "key_to"}
    assert [option.name for option in OPTIONS if option.name not in asked | key_range] == ["lost", "continues"]
    assert asked | key_range <= {option.name for option in OPTIONS}


def test_a_request_is_made_of_what_was_given() -> None:
    given = {
        option.name: list(option.default) if option.several is tuple else option.default
        for option in options_of(RunKind.BACKFILL)
    }
    assert request_of(RunKind.BACKFILL, {**given, "dataset": "pins"}) == backfill()
    asked = given | {"dataset": "pins", "tables": ["pins"], "key_column": "id", "key_to": "9", "max_rows_per_s": 5}
    assert request_of(RunKind.BACKFILL, asked) == backfill(
        tables=("pins",), key_range=KeyRange(column="id", high="9"), load=Load(max_rows_per_s=5)
    )
    with pytest.raises(BadInput, match="needs a column") as caught:
        request_of(RunKind.BACKFILL, given | {"dataset": "pins", "key_from": "9"})
    assert caught.value.field == "key_column"
    at = request_of(RunKind.BOOTSTRAP, {"dataset": "pins", "mode": "position", "positions": {"00000": "0-1-5"}})
    assert at == bootstrap(mode=BootstrapMode.POSITION, positions={"00000": "0-1-5"})


def test_a_request_survives_the_state_topic() -> None:
    full = backfill(
        tables=("pins",),
        shards=("00000-00002",),
        condition="v > 3",
        key_range=KeyRange(column="id", high="7"),
        conditions={"00001": "v < 9"},
        load=Load(max_rows_per_s=5),
    )
    run = plan_run(topology(pins=3), {}, full, "r1")
    assert runs({run.key: run.document()}) == {"r1": run}
    assert run.request == full
    eased = backfill(**{**_fields(full), "load": Load(max_rows_per_s=9)})
    assert eased.fingerprint == full.fingerprint, "the same work, at another pace"
    assert backfill(tables=("boards",)).fingerprint != backfill(tables=("pins",)).fingerprint


def _fields(request: Request) -> dict[str, Any]:
    return {name: getattr(request, name) for name in ("tables", "shards", "condition", "key_range", "conditions")}


def test_thousands_of_shards_that_are_not_contiguous_are_one_run_of_bounded_slices() -> None:
    dice = random.Random(1)
    ids = sorted(dice.sample(range(10_000), 3_000))
    many = topology(pins=0)
    many = Topology(
        datasets=many.datasets,
        shards={"pins": tuple(shard("pins", n) for n in range(10_000))},
        clusters=many.clusters,
    )
    run = plan_run(many, {}, backfill(shards=tuple(f"{n:05d}" for n in ids)), "r1")
    assert run.shards == tuple(f"{n:05d}" for n in ids)
    parts = slices(run)
    assert len(parts) == 12
    assert [one for part in parts for one in part] == list(run.shards)
    assert slices(run) == parts, "the same cut each time"


def test_shards_by_id_range_failed_run_and_need() -> None:
    shards = [shard("pins", n) for n in range(10)]
    chosen = choose_shards(backfill(shards=("00000", "00003-00005")), shards)
    assert chosen == ("00000", "00003", "00004", "00005")
    assert choose_shards(backfill(failed_of="r1"), shards, failed={"00007", "gone"}) == ("00007",)
    again = bootstrap(failed_of="r1")
    assert choose_shards(again, shards, failed={"00007"}, bootstrapped={"00007"}) == ("00007",), "it streams, not whole"
    assert choose_shards(bootstrap(), shards, bootstrapped={f"{n:05d}" for n in range(8)}) == ("00008", "00009")
    for request, more in (
        (backfill(shards=("00020",)), {}),
        (backfill(shards=("00005-00003",)), {}),
        (backfill(failed_of="r9"), {"failed": None}),
        (backfill(failed_of="r1"), {"failed": set()}),
        (bootstrap(), {"bootstrapped": {one.id for one in shards}}),
    ):
        with pytest.raises(BadInput):
            choose_shards(request, shards, **more)


def test_a_table_that_is_new_to_a_shard_that_streams_is_taken_up_by_mode_incremental_only() -> None:
    records = {**mark("pins", 0), **mark("pins", 1)}
    small = topology(pins=2)
    for mode in (BootstrapMode.LATEST, BootstrapMode.SNAPSHOT):
        with pytest.raises(BadInput, match="boards is new to it") as caught:
            plan_run(small, records, bootstrap(mode=mode), "r1")
        assert "--table boards" in str(caught.value.cure)
    run = plan_run(small, records, bootstrap(tables=("boards",)), "r1")
    assert (run.tables, run.mode) == (("boards",), BootstrapMode.INCREMENTAL)
    assert plan_run(small, records, bootstrap(mode=BootstrapMode.LATEST, again=True), "r1").shards == ("00000", "00001")


def test_some_tables_of_a_dataset_that_is_bootstrapped_as_a_whole_are_refused() -> None:
    latest = topology(
        pins=2, datasets={"pins": dataset("pins", bootstrap=BootstrapMode.LATEST)}, shards={"pins": (shard("pins", 0),)}
    )
    with pytest.raises(BadInput, match="which is for all tables of a shard"):
        plan_run(latest, {}, bootstrap(tables=("pins",)), "r1")


def test_a_shard_is_in_one_unfinished_run_at_most() -> None:
    small = topology(pins=3)
    first = plan_run(small, {}, backfill(shards=("00001",)), "r1")
    with pytest.raises(BadInput, match=r"the unfinished run r1 has pins\.00001 until.*no process") as caught:
        plan_run(small, {first.key: first.document()}, backfill(), "r2")
    assert "--continue r1" in str(caught.value.cure)


def test_a_datasets_row_rate_bounds_every_run_of_it() -> None:
    limited = topology(datasets={"pins": dataset("pins", limits=Limits(snapshot_rows_per_second=100))})
    run = plan_run(limited, {}, bootstrap(load=Load(max_parallel_shards=4)), "r1")
    assert run.request.load.max_rows_per_s == 400
    assert run.request.fingerprint == bootstrap(load=Load(max_parallel_shards=4)).fingerprint
    gentle = plan_run(limited, {}, bootstrap(load=Load(max_parallel_shards=4, max_rows_per_s=50)), "r2")
    assert gentle.request.load.max_rows_per_s == 50
    assert plan_run(topology(), {}, bootstrap(), "r3").request.load.max_rows_per_s is None

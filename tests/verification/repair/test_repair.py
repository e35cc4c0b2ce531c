"""Repair: what it would do, its cap, keys as people write them, and as SQL."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.canonical.columns import Column, Shape
from cdc_platform.canonical.key_conditions import key_condition
from cdc_platform.errors import BadInput, RepairRefused, TopologyError, Unavailable
from cdc_platform.model.topology import Engine
from cdc_platform.settings import Settings
from cdc_platform.snapshots.request import Request, RunKind
from cdc_platform.snapshots.run_records import Phase, Run, ShardState
from cdc_platform.verification.proof.verdicts import KeyDifference, ShardVerdict, Verdict
from cdc_platform.verification.repair import reemit as repair
from cdc_platform.verification.repair.reemit import WAVE_BYTES, KeyCondition, waves
from cdc_platform.verification.repair.repair_plan import (
    _of_verdict,
    keys_repair,
    parse_keys,
    plan_records,
    recorded_plan,
)
from tests.defs.harness import Harness, topology


def verdict(*samples: KeyDifference, missing: int = 0, extra: int = 0) -> ShardVerdict:
    return ShardVerdict(
        dataset="pins", table="pins", shard="00000", verdict=Verdict.MISMATCHED, reason="", run_id="r",
        checked_at=datetime.now(UTC), topic="t", source="s", missing=missing, extra=extra, samples=samples,
    )  # fmt: skip


def test_repair_takes_missing_and_wrong_keys_and_counts_those_it_cannot_name() -> None:
    found, problem = _of_verdict(
        verdict(
            KeyDifference(key='{"a": "1", "b": "x"}', kind="missing"),
            KeyDifference(key='{"a": "2", "b": "y"}', kind="mismatched", partition=0, offset=5),
            KeyDifference(key="#00000000000000ff", kind="missing"),
            KeyDifference(key='{"a": "3", "b": "z"}', kind="extra", partition=1, offset=7),
            missing=3,
            extra=1,
        ),
        100,
        tombstones=False,
    )
    assert found.emit == (("1", "x"), ("2", "y"))
    assert found.extra == ((1, 7),)
    # One of the three missing has no name, one wrong key was not counted as missing.
    assert problem == "1 of 4 keys cannot be named"


def test_repair_of_too_many_keys_is_refused() -> None:
    keys = {"00000": [(str(n),) for n in range(11)]}
    with pytest.raises(RepairRefused, match="11 keys differ, 10 are allowed"):
        keys_repair(topology(), "pins", "pins", keys, run_id="r", cap=10)
    plan = keys_repair(topology(), "pins", "pins", keys, run_id="r", cap=11)
    assert plan.sentence() == "Re-emit 11 keys of pins.pins in 1 shards."


def test_repair_of_what_is_not_there_is_refused() -> None:
    with pytest.raises(TopologyError):
        keys_repair(topology(), "pins", "nothing", {"00000": [("1",)]}, run_id="r")
    with pytest.raises(TopologyError):
        keys_repair(topology(), "pins", "pins", {"99999": [("1",)]}, run_id="r")


def test_repair_on_record_is_the_same_plan() -> None:
    plan = keys_repair(topology(), "pins", "pins", {"00000": [("1",)], "00001": [("2",), ("3",)]}, run_id="r")
    records = json.loads(json.dumps(plan_records(plan)))
    assert sorted(records) == ["repair/r/00000", "repair/r/00001"]
    assert recorded_plan(records, "r") == plan
    assert recorded_plan(records, "other") is None


def test_repair_is_few_waves_of_which_each_is_one_record() -> None:
    def parts(shard: str, *sizes: int) -> list[KeyCondition]:
        return [KeyCondition(shard, "x" * size, 1) for size in sizes]

    small = [one for n in range(500) for one in parts(f"{n:05d}", 100)]
    assert [len(wave) for wave in waves(small)] == [500]
    third = WAVE_BYTES // 3
    found = list(waves([*parts("a", third, third), *parts("b", third, third), *parts("c", third), *parts("d", third)]))
    # A shard's parts come one after the other; what does not fit goes with the next.
    assert [sorted(wave) for wave in found] == [["a", "b", "c"], ["a", "b", "d"]]
    assert [len(wave) for wave in waves(parts("a", 2 * WAVE_BYTES))] == [1]


def test_repair_of_a_wave_that_failed_is_tried_again_for_just_the_shards_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(settings=Settings(cache_dir=str(tmp_path / "cache")))
    harness.put(topology())
    failing = {"00001"}
    conditions = {"00000": "`id` IN (1)", "00001": "`id` IN (2)"}
    request = Request(
        kind=RunKind.BACKFILL, dataset="pins", tables=("pins",), shards=("00000", "00001"), conditions=conditions
    )
    worked: list[tuple[str, tuple[str, ...], str | None]] = []

    def work(outside: Any, run: Run, number: int, listener: object) -> None:
        worked.append((run.id, run.shards, run.request.filter(Engine.MARIADB, "00001")))
        now = datetime.now(UTC)
        states = {
            shard: ShardState(phase=Phase.FAILED if shard in failing else Phase.DONE, since=now, began=now)
            for shard in run.shards
        }
        outside.platform.state.write({run.shard_key(shard): state.document() for shard, state in states.items()})

    monkeypatch.setattr(repair, "work_slice", work)
    with harness.platform() as platform:
        outside: Any = SimpleNamespace(platform=platform, writer=lambda name: platform.state)
        with pytest.raises(Unavailable, match="failed in 1 of 2 shards"):
            repair._backfill(outside, request, "repair-r-0", print)
        failing.clear()
        repair._backfill(outside, request, "repair-r-0", print)
        repair._backfill(outside, request, "repair-r-0", print)  # over: joined, and nothing is sent
    assert worked == [
        ("repair-r-0", ("00000", "00001"), "`id` IN (2)"),
        ("repair-r-0-again", ("00001",), "`id` IN (2)"),
    ]


def test_keys_for_repair_as_people_write_them() -> None:
    assert parse_keys(["00007:12", '00007:["a,b", 3]', "00008:x:y"]) == {
        "00007": (("12",), ("a,b", "3")),
        "00008": (("x:y",),),
    }
    for bad in ("12", ":12", "00007:", "00007:[1"):
        with pytest.raises(BadInput, match="not a key"):
            parse_keys([bad])


def shape(engine: Engine, *columns: tuple[str, str]) -> Shape:
    made = tuple(Column(name=name, type=kind) for name, kind in columns)
    return Shape(engine=engine, columns=made, key=tuple(name for name, _ in columns))


def test_keys_become_a_condition() -> None:
    one = shape(Engine.MARIADB, ("id", "bigint"))
    assert key_condition(one, [("1",), ("-2",)]) == "`id` IN (1, -2)"
    two = shape(Engine.POSTGRES, ("a", "int8"), ("b", "text"))
    assert key_condition(two, [("1", "it's"), ("2", "\\")]) == (
        """("a" = 1 AND "b" = 'it''s') OR ("a" = 2 AND "b" = '\\')"""
    )
    assert key_condition(shape(Engine.MARIADB, ("b", "varbinary")), [("00FF",)]) == "`b` IN (X'00FF')"
    for keys in ([], [("1", "2")], [("one",)]):
        with pytest.raises(BadInput):
            key_condition(one, keys)
    with pytest.raises(BadInput, match="not hex"):
        key_condition(shape(Engine.MARIADB, ("b", "varbinary")), [("zz",)])


@given(st.text(max_size=20))
def test_no_key_ends_its_literal(text: str) -> None:
    found = key_condition(shape(Engine.MARIADB, ("k", "varchar")), [(text,)])
    inner = found.removeprefix("`k` IN ('").removesuffix("')")
    assert inner.replace("\\\\", "").replace("''", "").count("'") == 0
    assert inner.replace("\\\\", "").count("\\") == 0

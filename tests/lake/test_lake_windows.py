"""Windows of time in the lake: their events, up to when it is complete, late events, and what Dagster shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from cdc_platform import wiring
from cdc_platform.defs import build_cdc_assets, build_lake_assets
from cdc_platform.defs.translator import table_props
from cdc_platform.defs.windows import partition, sentence, whole_windows, window_partitions, windows_key
from cdc_platform.errors import NotFound
from cdc_platform.lake.append import append_events
from cdc_platform.lake.current import open_view
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.lake.windows import lake_reached, window_events
from cdc_platform.verification.windows.boundaries import WindowPolicy
from cdc_platform.verification.windows.progress import DatasetWindows, advance
from tests.defs.test_reading_inputs import WORLDS, MemoryResource
from tests.verification.proof.memory import MemoryWorld, event

HOUR = 3600
TOPIC = dg.AssetKey(["cdc", "d", "t"])


@pytest.fixture
def world(tmp_path: Path, policy: LakePolicy) -> MemoryWorld:
    lake = {"catalog": policy.catalog, "warehouse": policy.warehouse, "buckets": 2}
    more = {"windows": {"minutes": 60}, "lake": lake}
    made = MemoryWorld(tmp_path / "cache", shards=("00000", "00001"), more=more)
    made.cache.mkdir()
    return made


def step(world: MemoryWorld, now: float) -> DatasetWindows:
    return advance(world.outside(), world.state, world.topology, "d", WindowPolicy(minutes=60), now, wait_seconds=0.0)


def run(world: MemoryWorld, policy: LakePolicy) -> int:
    return append_events(world.outside(), world.topology, "d", "t", policy).events


def put(world: MemoryWorld, *keys: int) -> None:
    for table in world.tables.values():
        for key in keys:
            table.put(key, f"row {key}")


def events(world: MemoryWorld, policy: LakePolicy, found: DatasetWindows, begin: int) -> Counter[tuple[str, int]]:
    batches = window_events(policy, world.topology.datasets["d"], "t", found.marks, begin)
    return Counter((row["cdc_shard"], row["id"]) for batch in batches for row in batch.to_pylist())


def both(*keys: int) -> Counter[tuple[str, int]]:
    return Counter((shard, key) for shard in ("00000", "00001") for key in keys)


def test_lake_watermark_a_window_has_the_events_that_committed_in_it_whatever_run_wrote_them(
    world: MemoryWorld, policy: LakePolicy
) -> None:
    put(world, 1)
    step(world, 1)
    step(world, HOUR)
    put(world, 2, 3)
    run(world, policy)
    put(world, 4)
    step(world, 2 * HOUR)
    put(world, 5)
    run(world, policy)
    found = step(world, 3 * HOUR)
    assert found.ended() == [HOUR, 2 * HOUR]
    assert events(world, policy, found, HOUR) == both(2, 3, 4)
    assert events(world, policy, found, 2 * HOUR) == both(5)
    with pytest.raises(NotFound, match="not known for shard 00000"):
        events(world, policy, found, 3 * HOUR)


def test_lake_watermark_is_complete_as_far_as_its_last_run_saw_the_connectors(
    world: MemoryWorld, policy: LakePolicy
) -> None:
    dataset = world.topology.datasets["d"]
    put(world, 1)
    for hour in (0, 1):
        step(world, hour * HOUR + 1)
    run(world, policy)
    put(world, 2)
    found = step(world, 2 * HOUR + 1)
    assert (found.ended(), lake_reached(policy, dataset, "t", found.marks)) == ([HOUR], HOUR)
    run(world, policy)
    assert lake_reached(policy, dataset, "t", found.marks) == 2 * HOUR


def test_lake_watermark_an_event_of_a_window_that_was_whole_is_named_and_a_copy_is_not(
    world: MemoryWorld, policy: LakePolicy
) -> None:
    put(world, 1, 2)
    for hour in (0, 1):
        step(world, hour * HOUR + 1)
    put(world, 3)
    step(world, 2 * HOUR + 1)
    run(world, policy)
    world.topic.append(3, event(3, "row 3", 3, op="c"), "00000")  # sent again after a restart
    put(world, 4)
    run(world, policy)
    assert open_view(policy, "d", "t").state.late == ()
    world.topic.append(9, event(9, "from the past", 3, op="c"), "00001")
    run(world, policy)
    [late] = open_view(policy, "d", "t").state.late
    assert (late.shard, late.until, late.events, late.keys) == ("00001", 2 * HOUR, 1, ("9",))
    put(world, 5)
    run(world, policy)
    assert open_view(policy, "d", "t").state.late == (late,), "a later run does not make it good"


def test_lake_watermark_check_of_late_events_stays_red_when_a_run_finds_nothing_new(
    world: MemoryWorld, policy: LakePolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WORLDS[str(tmp_path)] = world
    monkeypatch.setattr(wiring, "verification_of", lambda platform: replace(world.outside(), platform=platform))
    tables = table_props(world.topology, platform="cdc")
    job = dg.Definitions(
        assets=[*build_cdc_assets(tables=tables), *build_lake_assets(tables=tables)],
        resources={"cdc_platform": MemoryResource(config_file=str(tmp_path))},
        jobs=[dg.define_asset_job("job", dg.AssetSelection.assets("cdc/d/t/lake"))],
    ).resolve_job_def("job")
    put(world, 1)
    for hour in (0, 1):
        step(world, hour * HOUR + 1)
    put(world, 3)
    step(world, 2 * HOUR + 1)
    with dg.DagsterInstance.ephemeral() as instance:

        def on_time() -> dg.AssetCheckEvaluation:
            [found] = job.execute_in_process(instance=instance).get_asset_check_evaluations()
            return found

        assert on_time().passed
        assert on_time().passed, "nothing is new, and nothing was late"
        world.topic.append(9, event(9, "from the past", 2, op="c"), "00001")
        for _ in range(2):
            found = on_time()
            assert not found.passed, "the second of these runs has nothing new"
            assert "1 events of shard 00001" in str(found.description)


def test_lake_watermark_partitions_are_materialized_once_the_lake_has_them_and_made_up_for_later(
    world: MemoryWorld, policy: LakePolicy
) -> None:
    put(world, 1)
    for hour in (0, 1, 2):
        found = step(world, hour * HOUR + 1)
    warnings: list[str] = []
    settings = world.outside().platform.settings
    with dg.DagsterInstance.ephemeral() as instance:

        def tick() -> list[str | None]:
            made = list(whole_windows(instance, settings, world.topology, found, {"t": TOPIC}, warnings.append))
            for one in made:
                assert one.asset_key == windows_key(TOPIC)
                instance.report_runless_asset_event(one)
            return [one.partition for one in made]

        assert tick() == [], "the lake had no run yet"
        run(world, policy)
        assert tick() == [partition(HOUR)] == ["1970-01-01T01:00"]
        assert tick() == []
    assert not warnings
    assert sentence(found) == "d: complete up to 1970-01-01T02:00."


def test_lake_watermark_a_whole_window_starts_what_stands_on_it_that_window_alone(tmp_path: Path) -> None:
    windows = window_partitions(60, "2026-01-01")
    condition = dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())

    @dg.asset(deps=[windows_key(TOPIC)], partitions_def=windows, automation_condition=condition)
    def pins_per_hour() -> None:
        """Nothing is computed here."""

    defs = dg.Definitions(assets=[dg.AssetSpec(windows_key(TOPIC), partitions_def=windows), pins_per_hour])
    with dg.DagsterInstance.ephemeral() as instance:
        first = dg.evaluate_automation_conditions(defs=defs, instance=instance)
        assert first.total_requested == 0
        event = dg.AssetMaterialization(windows_key(TOPIC), partition="2026-01-03T07:00")
        instance.report_runless_asset_event(event)
        asked = dg.evaluate_automation_conditions(defs=defs, instance=instance, cursor=first.cursor)
        assert asked.get_requested_partitions(dg.AssetKey("pins_per_hour")) == {"2026-01-03T07:00"}


@pytest.mark.parametrize(("minutes", "second"), [(5, "00:05"), (60, "01:00"), (360, "06:00")])
def test_lake_watermark_partitions_are_as_long_as_the_windows(minutes: int, second: str) -> None:
    keys = window_partitions(minutes, "2026-01-01").get_first_partition_key()
    assert keys == "2026-01-01T00:00"
    assert window_partitions(minutes, "2026-01-01").get_partition_keys()[1] == f"2026-01-01T{second}"

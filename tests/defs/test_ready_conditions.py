"""The ready conditions, as Dagster evaluates them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from cdc_platform.defs import audit_key, build_cdc_asset_checks, build_cdc_assets, load_tables
from cdc_platform.defs.ready_conditions import on_new_data, on_proof, when_captured
from cdc_platform.errors import BadInput
from tests.defs.harness import HarnessResource

PINS, BOARDS = dg.AssetKey(["cdc", "pins", "pins"]), dg.AssetKey(["cdc", "pins", "boards"])
SHARDS = dg.AssetKey(["cdc", "pins", "shards"])
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Downstream:
    """An asset below the topic of pins.pins, and how often Dagster requests it."""

    def __init__(
        self,
        resource: HarnessResource,
        instance: dg.DagsterInstance,
        condition: dg.AutomationCondition[Any],
        deps: tuple[dg.AssetKey, ...] = (PINS,),
        blocking: bool = False,
    ) -> None:
        @dg.asset(deps=deps, automation_condition=condition)
        def popular() -> None: ...

        tables = load_tables(resource=resource).tables
        self.instance = instance
        self.defs = dg.Definitions(
            assets=[*build_cdc_assets(tables=tables), popular],
            asset_checks=build_cdc_asset_checks(tables=tables, blocking=blocking),
            resources={"cdc_platform": resource},
        )
        self._cursor: Any = None
        instance.add_dynamic_partitions("cdc_pins_shards", [f"{n:05d}" for n in range(3)])

    def requested(self, at: datetime = NOON) -> int:
        found = dg.evaluate_automation_conditions(self.defs, self.instance, cursor=self._cursor, evaluation_time=at)
        self._cursor = found.cursor
        return found.get_num_requested(dg.AssetKey("popular"))

    def data(self, topic: dg.AssetKey = PINS) -> None:
        self.instance.report_runless_asset_event(dg.AssetMaterialization(topic))

    def captured(self, shard: str) -> None:
        self.instance.report_runless_asset_event(dg.AssetMaterialization(SHARDS, partition=shard))

    def judged(self, passed: bool, check: str = "complete", topic: dg.AssetKey = PINS) -> None:
        self.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(asset_key=audit_key(topic), check_name=check, passed=passed, metadata={})
        )


def test_on_new_data_asks_at_the_ticks_of_its_interval_and_only_for_new_data(
    resource: HarnessResource, instance: dg.DagsterInstance
) -> None:
    below = Downstream(resource, instance, on_new_data(timedelta(hours=1)))
    for shard in ("00000", "00001", "00002"):
        below.captured(shard)
    below.data()
    at = NOON
    below.requested(at)
    asked = []
    for minute in range(5, 300, 5):
        if minute in (20, 40, 50, 70, 200):
            below.data()
        if below.requested(at + timedelta(minutes=minute)):
            asked.append(minute)
    assert asked == [60, 120, 240]


def test_on_new_data_asks_for_nothing_while_nothing_flows(
    resource: HarnessResource, instance: dg.DagsterInstance
) -> None:
    below = Downstream(resource, instance, on_new_data())
    below.data()
    below.requested()
    for quarter in range(1, 9):
        # A shard that is captured, or captured again, is no data.
        below.captured(f"{quarter % 3:05d}")
        assert below.requested(NOON + timedelta(minutes=15 * quarter)) == 0


@pytest.mark.parametrize(
    ("interval", "good"),
    [
        (timedelta(minutes=1), True),
        (timedelta(minutes=20), True),
        (timedelta(hours=1), True),
        (timedelta(hours=12), True),
        (timedelta(days=1), True),
        (timedelta(minutes=7), False),
        (timedelta(hours=5), False),
        (timedelta(minutes=90), False),
        (timedelta(seconds=30), False),
        (timedelta(0), False),
        (timedelta(days=2), False),
    ],
)
def test_on_new_data_takes_intervals_of_the_clock(interval: timedelta, good: bool) -> None:
    if good:
        assert on_new_data(interval).is_serializable
    else:
        with pytest.raises(BadInput, match="min_interval"):
            on_new_data(interval)


@pytest.fixture(params=["by topic", "by blocking checks"])
def proven(
    request: pytest.FixtureRequest, resource: HarnessResource, instance: dg.DagsterInstance
) -> Iterator[Downstream]:
    """Below one topic: named, or by the audit frame that it depends on."""
    if request.param == "by topic":
        yield Downstream(resource, instance, on_proof(PINS))
    else:
        below = Downstream(resource, instance, on_proof(), deps=(PINS, audit_key(PINS)), blocking=True)
        for other in ("shard_count", "no_duplicates", "continuous"):
            below.judged(True, other)
        yield below


def test_on_proof_asks_after_each_proof_and_not_while_the_topic_is_incomplete(proven: Downstream) -> None:
    proven.requested()
    proven.data()
    assert proven.requested() == 0, "data is no proof"
    proven.judged(True)
    assert (proven.requested(), proven.requested()) == (1, 0)
    proven.judged(False)
    assert (proven.requested(), proven.requested()) == (0, 0)
    proven.judged(True)
    assert (proven.requested(), proven.requested()) == (1, 0)


def test_on_proof_of_named_topics_does_not_go_by_other_checks(
    resource: HarnessResource, instance: dg.DagsterInstance
) -> None:
    below = Downstream(resource, instance, on_proof(PINS))
    below.requested()
    below.judged(False, "fresh")
    assert below.requested() == 0
    below.judged(True)
    assert below.requested() == 1


def test_on_proof_of_two_topics_needs_both(resource: HarnessResource, instance: dg.DagsterInstance) -> None:
    below = Downstream(resource, instance, on_proof(PINS, BOARDS))
    below.requested()
    below.judged(True)
    assert below.requested() == 0
    below.judged(True, topic=BOARDS)
    assert below.requested() == 1
    below.judged(False, topic=BOARDS)
    below.judged(True)
    assert below.requested() == 0


@pytest.mark.parametrize(("fraction", "enough"), [(0.3, 1), (0.6, 2), (0.67, 3), (1.0, 3)])
def test_when_captured_holds_until_enough_shards_are_captured(
    resource: HarnessResource, instance: dg.DagsterInstance, fraction: float, enough: int
) -> None:
    condition = dg.AutomationCondition.any_deps_updated() & when_captured(fraction, dataset="pins")
    below = Downstream(resource, instance, condition)
    below.requested()
    for count in range(4):
        if count:
            below.captured(f"{count - 1:05d}")
        below.data()
        assert below.requested() == (count >= enough), count


def test_when_captured_counts_shards_of_the_topology_only(
    resource: HarnessResource, instance: dg.DagsterInstance
) -> None:
    condition = dg.AutomationCondition.any_deps_updated() & when_captured(0.6, dataset="pins")
    below = Downstream(resource, instance, condition)
    below.requested()
    for gone in ("90000", "90001", "90002"):
        below.captured(gone)
    below.data()
    assert below.requested() == 0


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.1, 99.9])
def test_when_captured_takes_a_fraction(fraction: float) -> None:
    with pytest.raises(BadInput, match="fraction"):
        when_captured(fraction, dataset="pins")


def test_when_captured_is_evaluated_by_a_sensor_of_the_code_location(
    resource: HarnessResource, instance: dg.DagsterInstance
) -> None:
    """Dagster's daemon cannot read a condition of ours; a code location with such a sensor loads, and asks."""

    @dg.asset(automation_condition=~dg.AutomationCondition.in_progress() & when_captured(0.5, dataset="pins"))
    def popular() -> None: ...

    sensor = dg.AutomationConditionSensorDefinition("mine", target=[popular], use_user_code_server=True)
    defs = dg.Definitions(assets=[popular], sensors=[sensor])
    dg.Definitions.validate_loadable(defs)

    def asked() -> int:
        context = dg.build_sensor_context(instance=instance, repository_def=defs.get_repository_def())
        return len(sensor.evaluate_tick(context).run_requests or ())

    instance.add_dynamic_partitions("cdc_pins_shards", ["00000", "00001"])
    assert asked() == 0
    instance.report_runless_asset_event(dg.AssetMaterialization(SHARDS, partition="00001"))
    assert asked() == 1

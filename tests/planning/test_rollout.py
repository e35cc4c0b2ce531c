"""A changed configuration goes to canaries first; a failing one is rolled back and held."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.model.observed import ObservedState
from cdc_platform.model.topology import Dataset
from cdc_platform.planning.actions import CreateConnector, UpdateConnector
from cdc_platform.planning.canary import CanaryRecord, CanaryVerdict, Pending, RolledOut, RolloutPolicy, choose
from cdc_platform.planning.inputs import PassPolicy, Planned
from cdc_platform.planning.memory import Memory
from cdc_platform.planning.planner import make_plan
from tests.planning.worlds import (
    NOW,
    WANTED,
    after,
    cluster,
    config_of,
    connector,
    dataset,
    picture,
    shard,
    simulate,
    topology,
)

POLICY = PassPolicy()
RULES = RolloutPolicy()
OLD, NEW, BAD = {"poll.interval.ms": "500"}, {"poll.interval.ms": "900"}, {"poll.interval.ms": "0"}


class Fleet:
    """Sixty shards of one dataset through passes a minute apart, on a world that obeys."""

    def __init__(self, shards: int = 60) -> None:
        self.number = shards
        self.now = NOW
        self.memory = Memory()
        home = cluster()
        held = {
            f"pins.{n:05d}": connector(f"pins.{n:05d}", config_of(self.wish(OLD), shard("pins", n), home))
            for n in range(shards)
        }
        self.picture = picture(topology([(self.wish(OLD), shards)], home), {"main": held})
        self.run(self.wish(OLD))

    def wish(self, override: dict[str, str], **more: Any) -> Dataset:
        return dataset(connector=override, **more)

    def run(self, wanted: Dataset) -> Planned:
        """One pass, applied without a fault, its memory kept."""
        home = self.picture.topology.clusters["main"]
        self.picture = replace(self.picture, taken_at=self.now, topology=topology([(wanted, self.number)], home))
        planned = make_plan(self.picture, WANTED, self.memory, POLICY)
        self.picture = simulate(self.picture, planned.plan)
        self.memory = after(self.memory, planned, CanaryRecord, RolledOut)
        self.now += timedelta(minutes=1)
        return planned

    def break_(self, *names: str) -> None:
        held = dict(self.picture.clusters["main"].connectors or {})
        for name in names:
            held[name] = connector(name, held[name].config, task="FAILED", trace="java.lang.IllegalStateException: x")
        seen = replace(self.picture.clusters["main"], connectors=held)
        self.picture = replace(self.picture, clusters={"main": seen})

    def with_value(self, value: str) -> set[str]:
        held = self.picture.clusters["main"].connectors or {}
        return {name for name, seen in held.items() if seen.config.get("poll.interval.ms") == value}


def updates(planned: Planned) -> list[str]:
    return [a.name for a in planned.plan.actions if isinstance(a, UpdateConnector)]


def test_a_change_goes_to_three_first_and_to_all_after_three_healthy_passes() -> None:
    fleet = Fleet()
    assert len(updates(fleet.run(fleet.wish(NEW)))) == RULES.canaries
    counts = [len(updates(fleet.run(fleet.wish(NEW)))) for _ in range(5)]
    assert counts == [0, 0, 57, 0, 0]
    assert len(fleet.with_value("900")) == 60
    assert fleet.memory.of(CanaryRecord) == {}
    assert set(fleet.memory.of(RolledOut)) == {"pins"}


def test_a_failing_canary_gets_its_old_configuration_back_and_the_change_is_held() -> None:
    fleet = Fleet()
    canaries = updates(fleet.run(fleet.wish(BAD)))
    fleet.break_(canaries[0])
    planned = fleet.run(fleet.wish(BAD))
    assert sorted(updates(planned)) == sorted(canaries)
    assert any("failed on a canary and is held" in f.text for f in planned.plan.findings)
    assert fleet.with_value("0") == set()
    assert len(fleet.with_value("500")) == 60
    for _ in range(5):
        assert updates(fleet.run(fleet.wish(BAD))) == []
    # Taken back: nothing to do. Changed again: a new try.
    assert updates(fleet.run(fleet.wish(OLD))) == []
    assert fleet.memory.of(CanaryRecord) == {}
    assert len(updates(fleet.run(fleet.wish(NEW)))) == RULES.canaries


def test_a_failure_that_others_on_the_host_share_says_nothing() -> None:
    fleet = Fleet()
    canaries = updates(fleet.run(fleet.wish(NEW)))
    host = {s.name: s.leader for _, s in fleet.picture.topology.all_shards()}
    neighbour = next(n for n in sorted(host) if host[n] == host[canaries[0]] and n not in canaries)
    fleet.break_(canaries[0], neighbour)
    assert updates(fleet.run(fleet.wish(NEW))) == []
    assert fleet.memory.of(CanaryRecord)["pins"].verdict is CanaryVerdict.WATCHING


def test_new_shards_get_the_old_value_while_the_change_is_not_proven() -> None:
    fleet = Fleet()
    fleet.run(fleet.wish(NEW))
    fleet.number += 1
    planned = fleet.run(fleet.wish(NEW))
    (create,) = (a for a in planned.plan.actions if isinstance(a, CreateConnector))
    assert create.config["poll.interval.ms"] == "500"


def test_what_a_hand_changed_is_put_right_at_once_also_while_canaries_are_watched() -> None:
    fleet = Fleet()

    def meddle(*names: str) -> None:
        held = dict(fleet.picture.clusters["main"].connectors or {})
        for name in names:
            held[name] = replace(held[name], config={**held[name].config, "tasks.max": "9"})
        fleet.picture = replace(
            fleet.picture, clusters={"main": replace(fleet.picture.clusters["main"], connectors=held)}
        )

    names = [f"pins.{n:05d}" for n in range(40)]
    meddle(*names)
    assert updates(fleet.run(fleet.wish(OLD))) == names
    canaries = updates(fleet.run(fleet.wish(NEW)))
    other = next(name for name in names if name not in canaries)
    meddle(other)
    assert updates(fleet.run(fleet.wish(NEW))) == [other]
    held = fleet.picture.clusters["main"].connectors or {}
    assert "tasks.max" not in held[other].config
    assert held[other].config["poll.interval.ms"] == "500"


def test_small_datasets_and_broken_ones_change_at_once() -> None:
    small = Fleet(shards=8)
    assert len(updates(small.run(small.wish(NEW)))) == 8
    broken = Fleet()
    broken.break_(*(f"pins.{n:05d}" for n in range(40)))
    assert len(updates(broken.run(broken.wish(NEW)))) == 60


def test_a_secret_that_a_hand_put_into_a_connector_is_not_remembered() -> None:
    fleet = Fleet()
    held = dict(fleet.picture.clusters["main"].connectors or {})
    for name in held:
        held[name] = replace(held[name], config={**held[name].config, "database.password": "hunter2"})
    fleet.picture = replace(fleet.picture, clusters={"main": replace(fleet.picture.clusters["main"], connectors=held)})
    fleet.run(fleet.wish(NEW))
    assert "hunter2" not in repr(fleet.memory)


def test_a_canary_that_left_the_topology_is_replaced() -> None:
    fleet = Fleet()
    record = CanaryRecord(digest="", shards={"pins.99999": {"poll.interval.ms": "500"}}, since=NOW)
    fleet.run(fleet.wish(NEW))
    renamed = {"pins": replace(record, digest=fleet.memory.of(CanaryRecord)["pins"].digest)}
    fleet.memory = Memory({**fleet.memory.records, CanaryRecord: renamed})
    fleet.run(fleet.wish(NEW))
    assert len(updates(fleet.run(fleet.wish(NEW)))) == RULES.canaries


def test_canaries_are_spread_over_clusters_and_hosts() -> None:
    def pending(cluster: str, host: str) -> Pending:
        return Pending(before={}, cluster=cluster, host=host, healthy=True)

    held = {"a": pending("c0", "h0"), "b": pending("c0", "h0"), "c": pending("c0", "h1"), "d": pending("c1", "h2")}
    assert choose(sorted(held), held, 3) == ("a", "c", "d")


@given(st.data())
def test_however_canaries_fare_nobody_else_changes_before_they_pass(data: st.DataObject) -> None:
    fleet = Fleet(shards=24)
    fleet.run(fleet.wish(NEW))
    for _ in range(data.draw(st.integers(1, 6))):
        before = fleet.memory.of(CanaryRecord).get("pins")
        fleet.break_(*data.draw(st.lists(st.sampled_from([f"pins.{n:05d}" for n in range(24)]), max_size=2)))
        fleet.run(fleet.wish(NEW))
        after = fleet.memory.of(CanaryRecord).get("pins")
        if after is not None and after.verdict is CanaryVerdict.FAILED:
            assert fleet.with_value("900") == set()
        elif after is not None and after.verdict is CanaryVerdict.WATCHING:
            assert fleet.with_value("900") <= set(after.shards)
        if before is not None and before.verdict is CanaryVerdict.FAILED:
            assert after is not None
            assert after.verdict is CanaryVerdict.FAILED
    assert isinstance(fleet.picture, ObservedState)
    assert fleet.memory.of(RolledOut).get("pins") != RolledOut(digest="")

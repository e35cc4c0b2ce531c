"""Placement: sticky, deterministic, within capacity."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.model.topology import Dataset, Shard
from cdc_platform.planning.placement import place
from tests.planning.worlds import cluster, dataset, shard


def fleet(count: int, *clusters: str) -> list[tuple[Dataset, Shard]]:
    owner = dataset("pins", clusters)
    return [(owner, shard("pins", n)) for n in range(count)]


def test_new_shards_spread_by_used_share() -> None:
    clusters = {"a": cluster("a", capacity=100), "b": cluster("b", capacity=300)}
    homes = Counter(place(fleet(200, "a", "b"), clusters, {}).homes.values())
    assert homes == {"a": 50, "b": 150}


def test_nothing_moves_when_a_cluster_is_added() -> None:
    running = {f"pins.{n:05d}": ["a"] for n in range(50)}
    result = place(fleet(50, "a", "b"), {"a": cluster("a"), "b": cluster("b")}, running)
    assert set(result.homes.values()) == {"a"}
    assert result.moves == {}


def test_a_draining_cluster_gives_up_its_connectors_and_takes_none() -> None:
    running = {f"pins.{n:05d}": ["a"] for n in range(10)}
    clusters = {"a": cluster("a", draining=True), "b": cluster("b")}
    result = place(fleet(12, "a", "b"), clusters, running)
    assert set(result.homes.values()) == {"b"}
    assert result.moves == dict.fromkeys(running, "a")


def test_a_drained_cluster_without_an_alternative_keeps_what_it_runs() -> None:
    result = place(fleet(1, "a"), {"a": cluster("a", draining=True)}, {"pins.00000": ["a"]})
    assert result.homes == {"pins.00000": "a"}
    assert result.moves == {}


def test_over_capacity_moves_just_the_surplus_and_full_clusters_say_so() -> None:
    running = {f"pins.{n:05d}": ["a"] for n in range(10)}
    clusters = {"a": cluster("a", capacity=7), "b": cluster("b", capacity=5)}
    result = place(fleet(13, "a", "b"), clusters, running)
    assert len(result.moves) == 3
    assert Counter(result.homes.values()) == {"a": 7, "b": 5}
    assert len(result.unplaced) == 1
    assert "full" in next(iter(result.unplaced.values()))


@given(st.data())
def test_the_answer_does_not_depend_on_the_order_of_its_input(data: st.DataObject) -> None:
    clusters = {name: cluster(name, capacity=data.draw(st.integers(1, 9))) for name in ("a", "b", "c")}
    shards = fleet(data.draw(st.integers(0, 20)), "a", "b", "c")
    running = {s.name: [data.draw(st.sampled_from("abc"))] for _, s in shards if data.draw(st.booleans())}
    first = place(shards, clusters, running)
    mixed = data.draw(st.permutations(shards))
    again = place(mixed, dict(reversed(clusters.items())), dict(reversed(running.items())))
    assert (first.homes, first.moves) == (again.homes, again.moves)
    load = Counter(first.homes.values())
    for name in clusters:
        arrived = sum(1 for n, home in first.homes.items() if home == name and running.get(n) != [name])
        assert not arrived or load[name] <= clusters[name].capacity

"""Names and numbers are injective; what collides is named and left alone."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.connectors import identity
from cdc_platform.connectors.identity import MAX_SIGNAL_GROUP, SERVER_IDS, check
from cdc_platform.model.topology import Address, Shard, Table, Topology
from cdc_platform.settings import Settings
from tests.connectors.cases import EAST, ORDERS, PINS, PINS_7, PLAIN, TOPOLOGY, numbered

datasets = st.from_regex(r"\A[a-z][a-z0-9_]{0,39}\Z")
shard_ids = st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,39}\Z")
# Small alphabets find what large ones hide: a_b + c against a + b_c.
near_datasets = st.from_regex(r"\Aa[a_]{0,3}\Z")
near_ids = st.from_regex(r"\Aa[a_-]{0,3}\Z")


def shard(dataset: str, shard_id: str) -> Shard:
    return Shard(dataset=dataset, id=shard_id, leader=Address("db", 1), database="d")


pairs = st.builds(shard, datasets | near_datasets, shard_ids | near_ids)


@given(one=pairs, other=pairs)
def test_two_shards_share_no_name(one: Shard, other: Shard) -> None:
    if (one.dataset, one.id) == (other.dataset, other.id):
        return
    for name_of in (identity.slot_name, identity.publication_name, identity.signal_consumer_group):
        assert name_of(PLAIN, one) != name_of(PLAIN, other)
    assert one.name != other.name
    # Kafka takes '.' and '_' for the same.
    histories = [identity.schema_history_topic(PLAIN, s).replace(".", "_") for s in (one, other)]
    assert histories[0] != histories[1]


@given(one=pairs)
def test_names_fit_their_systems(one: Shard) -> None:
    assert re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", identity.slot_name(PLAIN, one))
    assert len(identity.schema_history_topic(PLAIN, one)) <= 249
    assert identity.server_id(PLAIN, one) in SERVER_IDS
    assert SERVER_IDS.stop - 1 < 2**32


@given(one=pairs)
def test_two_platforms_share_neither_slot_nor_server_id(one: Shard) -> None:
    other = Settings(platform="cdc_staging")
    assert identity.slot_name(PLAIN, one) != identity.slot_name(other, one)
    assert identity.server_id(PLAIN, one) != identity.server_id(other, one)


def test_slots_are_readable() -> None:
    assert re.fullmatch(r"cdc_orders_eu_1_[0-9a-f]{12}", identity.slot_name(PLAIN, shard("orders", "eu-1")))


def test_ten_thousand_shards_do_not_collide() -> None:
    shards = numbered("pins", 10_000)
    topology = Topology(datasets={"pins": PINS}, shards={"pins": shards}, clusters={"east": EAST})
    assert check(topology, PLAIN) == ()
    assert len({identity.server_id(PLAIN, s) for s in shards}) == 10_000
    assert len({identity.slot_name(PLAIN, s) for s in shards}) == 10_000


def test_ten_thousand_shards_fit_the_signal_groups() -> None:
    sizes: dict[str, int] = {}
    for one in numbered("pins", 10_000):
        topic = identity.signal_topic(PLAIN, one)
        sizes[topic] = sizes.get(topic, 0) + 1
    assert max(sizes.values()) <= MAX_SIGNAL_GROUP


@given(st.lists(pairs, min_size=1, max_size=20, unique_by=lambda s: s.name))
def test_a_shard_s_group_does_not_depend_on_other_shards(shards: list[Shard]) -> None:
    assert [identity.signal_group(s) for s in shards] == [identity.signal_group(shard(s.dataset, s.id)) for s in shards]


def test_a_crowded_signal_group_is_named() -> None:
    one_group = [s for s in numbered("pins", 60_000) if identity.signal_group(s) == 3]
    topology = Topology(datasets={"pins": PINS}, shards={"pins": tuple(one_group)}, clusters={"east": EAST})
    found = check(topology, PLAIN)
    assert [p.name for p in found] == sorted(s.name for s in one_group)[MAX_SIGNAL_GROUP:]


def test_equal_server_ids_switch_both_shards_off_and_say_how_to_go_on() -> None:
    taken = identity.server_id(PLAIN, PINS_7)
    other = replace(PINS_7, id="00001", connector={"database.server.id": str(taken)})
    topology = Topology(datasets={"pins": PINS}, shards={"pins": (other, PINS_7)}, clusters={"east": EAST})
    found = check(topology, PLAIN)
    assert [(p.kind, p.name) for p in found] == [("shard", "pins.00001"), ("shard", "pins.00007")]
    assert "also that of pins.00007" in found[0].message
    assert "database.server.id" in found[0].message
    cured = replace(other, connector={"database.server.id": "17"})
    assert check(replace(topology, shards={"pins": (cured, PINS_7)}), PLAIN) == ()


def test_table_topics_that_kafka_takes_for_one_are_named() -> None:
    # cdc.a.b_c and cdc.a_b.c: equal once '.' and '_' are one.
    topology = Topology(
        datasets={
            "a": replace(PINS, name="a", tables=(Table(name="b_c"),)),
            "a_b": replace(PINS, name="a_b", tables=(Table(name="c"),)),
        },
        clusters={"east": EAST},
    )
    assert [(p.kind, p.name) for p in check(topology, PLAIN)] == [("dataset", "a"), ("dataset", "a_b")]


def test_tables_that_differ_only_in_what_kafka_forbids_are_named() -> None:
    dataset = replace(PINS, tables=(Table(name="t$x"), Table(name="t_x")))
    found = check(Topology(datasets={"pins": dataset}, clusters={"east": EAST}), PLAIN)
    assert [p.name for p in found] == ["pins"]
    assert "cdc.pins.t_x" in found[0].message


@pytest.mark.parametrize("table", ["heartbeat", "state", "notifications"])
def test_a_table_topic_may_not_be_one_of_the_platform_s(table: str) -> None:
    dataset = replace(PINS, name="platform", tables=(Table(name=table),))
    found = check(Topology(datasets={"platform": dataset}, shards={}, clusters={"east": EAST}), PLAIN)
    assert [p.name for p in found] == ["platform"]
    assert "the platform" in found[0].message


def test_a_topic_name_that_is_too_long_is_named() -> None:
    dataset = replace(PINS, topic_pattern="x" * 245 + "{dataset}.{table}")
    found = check(Topology(datasets={"pins": dataset}, shards={}, clusters={"east": EAST}), PLAIN)
    assert {p.name for p in found} == {"pins"}


def test_the_example_topology_has_no_collision() -> None:
    assert check(TOPOLOGY, PLAIN) == ()
    assert identity.identity(PLAIN, ORDERS, numbered("orders", 1)[0]).server_id is None
    assert identity.identity(PLAIN, PINS, PINS_7).slot is None

"""The chain of transforms, played through as Kafka Connect plays it (Java's `matches`, `replaceFirst`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.connectors.config import desired_config
from cdc_platform.connectors.identity import table_topic
from cdc_platform.connectors.tables import literal, no_longer_captured, twins
from cdc_platform.model.topology import Address, Dataset, Engine, Shard, Table
from tests.connectors.cases import EAST, ORDERS, PINS, PLAIN
from tests.own_secrets import own_secrets

names = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_$]{0,8}\Z")
datasets = st.from_regex(r"\A[a-z][a-z0-9_]{0,5}\Z")
shard_ids = st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,5}\Z")
patterns = st.sampled_from(
    ["cdc.{dataset}.{table}", "{table}.{dataset}", "{dataset}-{table}0", "x{dataset}_{table}.v1"]
)


@st.composite
def captured(draw: st.DrawFn) -> tuple[Dataset, Shard]:
    engine = draw(st.sampled_from(list(Engine)))
    tables = draw(st.lists(names, min_size=1, max_size=4, unique_by=lambda n: n.replace("$", "_")))
    name = draw(datasets)
    dataset = Dataset(
        name=name,
        engine=engine,
        tables=tuple(
            Table(name=name, schema=draw(st.none() | names) if engine is Engine.POSTGRES else None) for name in tables
        ),
        clusters=("east",),
        credentials=own_secrets(name),
        topic_pattern=draw(patterns),
    )
    shard = Shard(dataset=dataset.name, id=draw(shard_ids), leader=Address("db", 1), database=draw(names))
    return dataset, shard


def raw_topic(dataset: Dataset, shard: Shard, table: Table) -> str:
    """The name that Debezium's SchemaTopicNamingStrategy gives, with its replacement of characters."""
    middle = (table.schema or "public") if dataset.engine is Engine.POSTGRES else shard.database
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"{shard.name}.{middle}.{table.name}")


def route(config: Mapping[str, str], topic: str) -> tuple[str, bool]:
    """The topic after the chain, and whether the shard went into the key."""
    keyed = False
    for alias in config["transforms"].split(","):
        prefix = f"transforms.{alias}."
        kind = config[prefix + "type"].rsplit(".", 1)[1]
        predicate = config.get(prefix + "predicate")
        if predicate and not re.fullmatch(config[f"predicates.{predicate}.pattern"], topic):
            continue
        if kind == "InsertField$Key":
            keyed = True
        elif kind == "RegexRouter":
            found = re.fullmatch(config[prefix + "regex"], topic)
            if found:
                replacement = config[prefix + "replacement"]
                topic = replacement.replace("$1", found.group(1)) if found.groups() else replacement
        else:
            assert kind == "InsertHeader"
    return topic, keyed


@given(captured())
def test_each_table_goes_to_its_topic_with_the_shard_in_the_key(case: tuple[Dataset, Shard]) -> None:
    dataset, shard = case
    config = desired_config(dataset, shard, EAST, PLAIN)
    for table in dataset.tables:
        assert route(config, raw_topic(dataset, shard, table)) == (table_topic(dataset, table), True)


@given(captured())
def test_other_records_keep_their_keys(case: tuple[Dataset, Shard]) -> None:
    dataset, shard = case
    config = desired_config(dataset, shard, EAST, PLAIN)
    assert route(config, f"__debezium-heartbeat.{shard.name}") == (PLAIN.heartbeat_topic, False)
    assert route(config, f"{shard.name}.transaction") == (f"cdc.platform.transactions.{dataset.name}", False)
    for topic in (shard.name, f"{shard.name}.message", config["notification.sink.topic.name"]):
        assert route(config, topic) == (topic, False)


@given(one=captured(), other=captured())
def test_no_shard_routes_another_shard_s_records(one: tuple[Dataset, Shard], other: tuple[Dataset, Shard]) -> None:
    if one[1].name == other[1].name:
        return
    config = desired_config(*one, EAST, PLAIN)
    dataset, shard = other
    foreign = [raw_topic(dataset, shard, table) for table in dataset.tables]
    foreign += [f"{shard.name}.transaction", f"__debezium-heartbeat.{shard.name}"]
    for topic in foreign:
        assert route(config, topic) == (topic, False)


@given(captured())
def test_the_include_list_names_the_tables_and_nothing_else(case: tuple[Dataset, Shard]) -> None:
    dataset, shard = case
    entries = desired_config(dataset, shard, EAST, PLAIN)["table.include.list"].split(",")
    assert len(entries) == len(dataset.tables)
    for table, entry in zip(dataset.tables, entries, strict=True):
        middle = (table.schema or "public") if dataset.engine is Engine.POSTGRES else shard.database
        assert re.fullmatch(entry, f"{middle}.{table.name}")
        assert not re.fullmatch(entry, f"{middle}x{table.name}")


@given(st.text())
def test_a_literal_matches_just_itself(text: str) -> None:
    assert re.fullmatch(literal(text), text)
    assert not re.fullmatch(literal(text), text + "x")


def test_a_header_s_value_is_never_taken_for_a_number() -> None:
    # InsertHeader parses "00007" as the number 7 (org.apache.kafka.connect.data.Values).
    shard = Shard(dataset="pins", id="00007", leader=Address("db", 1), database="pins")
    config = desired_config(PINS, shard, EAST, PLAIN)
    assert config["transforms.cdcShard.value.literal"] == "pins.00007"
    assert config["transforms.cdcKey.static.value"] == "00007"
    assert config["transforms.cdcWorker.value.literal"] == "${env:WORKER}"


def test_the_key_columns_of_a_table_without_a_primary_key() -> None:
    dataset = replace(ORDERS, tables=(Table(name="log", schema="audit", key=("at", "seq$no")), Table(name="t")))
    shard = Shard(dataset="orders", id="1", leader=Address("db", 1), database="d")
    assert desired_config(dataset, shard, EAST, PLAIN)["message.key.columns"] == r"audit\.log:at,seq\$no"


def test_a_twin_is_a_table_that_the_list_matches_by_another_case() -> None:
    assert twins(["d.T", "d.t", "d.x"], ["d.t"]) == ()  # matched exactly
    assert twins(["d.orders", "d.Orders", "d.aXb"], ["d.Orders", "d.A.b"]) == ("d.orders",)
    assert twins(["d.ö"], ["d.Ö"]) == ()


def test_a_list_of_an_earlier_release_names_the_same_tables() -> None:
    assert no_longer_captured(r"d\.t,d\.u", r"(?-i:d\.t)") == {"u"}
    assert no_longer_captured(r"(?-i:d\.t),(?-i:d\.a\$b)", r"d\.t") == {"a$b"}

"""Connector overrides: what is refused, with which words; what passes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_platform.connectors.config import desired_config
from cdc_platform.connectors.engines.registry import FIXED
from cdc_platform.connectors.overrides import DENIED, check_dataset, check_shard
from cdc_platform.errors import OverrideRefused
from cdc_platform.model.topology import Table
from tests.connectors.cases import EAST, ORDERS, ORDERS_2, PINS, PINS_7, PLAIN

REFUSED = {
    "identity": {
        "topic.prefix": "mine",
        "topic.delimiter": "-",
        "slot.name": "mine",
        "publication.name": "mine",
        "schema.history.internal.kafka.topic": "mine",
        "signal.kafka.topic": "mine",
        "name": "mine",
        "tasks.max": "2",
        "cdc.platform.owner": "another",
    },
    "routing": {
        "transforms": "cdcKey,mine",
        "transforms.cdcTable.replacement": "mine",
        "transforms.mine.type": "org.example.Mine",
        "predicates": "mine",
        "table.include.list": "a.b",
        "message.prefix.include.list": "outbox",
    },
    "wire format": {
        "decimal.handling.mode": "double",
        "skipped.operations": "none",
        "key.converter": "io.confluent.connect.avro.AvroConverter",
        "value.converter.decimal.format": "BASE64",
        "column.mask.with.3.chars": "a.b.c",
        "errors.tolerance": "all",
        "tombstones.on.delete": "false",
        "message.key.columns": "a.b:c",
    },
    "secrets": {"database.password": "${file:/a:b}", "database.user": "root"},
    "leader": {"database.hostname": "db-9", "database.port": "3306", "config.action.reload": "restart"},
    "loss": {
        "snapshot.mode": "when_needed",
        "slot.drop.on.stop": "true",
        "gtid.source.includes": "1",
        "producer.override.acks": "1",
        "producer.override.bootstrap.servers": "other:9092",
        "exactly.once.support": "required",
        "internal.log.position.check.enable": "false",
        "producer.override.interceptor.classes": "org.example.Drop",
    },
    "how values are read": {
        "database.initial.statements": "SET time_zone = '+02:00'",
        "driver.sessionVariables": "time_zone='+02:00'",
        "driver.connectionTimeZone": "LOCAL",
        "money.fraction.digits": "0",
    },
    "liveness": {
        "heartbeat.action.query": "SELECT 1",
        "connect.keep.alive": "false",
        "connect.keep.alive.interval.ms": "600000",
        "errors.retry.timeout": "-1",
    },
}
CASES = [(group, option, value) for group, options in REFUSED.items() for option, value in options.items()]


@pytest.mark.parametrize(("group", "option", "value"), CASES, ids=[f"{g}: {o}" for g, o, _ in CASES])
def test_an_override_that_breaks_something_is_refused(group: str, option: str, value: str) -> None:
    with pytest.raises(OverrideRefused) as of_dataset:
        check_dataset(replace(PINS, connector={option: value}), PLAIN)
    assert of_dataset.value.where == "dataset pins"
    assert of_dataset.value.field == f"connector.{option}"
    assert of_dataset.value.cure
    with pytest.raises(OverrideRefused) as of_shard:
        check_shard(PINS, replace(PINS_7, connector={option: value}), PLAIN)
    assert of_shard.value.where == "shard pins.00007"


PASSING = {
    "poll.interval.ms": "100",
    "heartbeat.interval.ms": "1000",
    "snapshot.fetch.size": "500",
    "column.exclude.list": r"pins\.pins\.blob",
    "database.ssl.mode": "verify_ca",
    "database.ssl.truststore.password": "${file:/run/secrets/pins/tls.properties:password}",
    "producer.override.linger.ms": "20",
    "producer.override.compression.type": "zstd",
    "value.converter.schemas.enable": "true",
    "provide.transaction.metadata": "false",
    "errors.max.retries": "0",
    "slot.failover": "false",
    "publication.autocreate.mode": "disabled",
    "an.option.of.tomorrow": "x",
}


@pytest.mark.parametrize("option", sorted(PASSING))
def test_what_the_platform_does_not_lean_on_passes(option: str) -> None:
    config = desired_config(replace(PINS, connector={option: PASSING[option]}), PINS_7, EAST, PLAIN)
    assert config[option] == PASSING[option]


@pytest.mark.parametrize("option", ["database.ssl.keystore.password", "driver.token", "x.sasl.jaas.config"])
def test_a_secret_in_plain_text_is_refused_and_not_shown(option: str) -> None:
    with pytest.raises(OverrideRefused) as caught:
        check_dataset(replace(PINS, connector={option: "hunter2"}), PLAIN)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("heartbeat.interval.ms", "0"),
        ("heartbeat.interval.ms", "-5"),
        ("heartbeat.interval.ms", "600000"),
        ("errors.max.retries", "-1"),
        ("publication.autocreate.mode", "no_tables"),
        ("slot.failover", "no"),
        ("poll interval.ms", "5"),
        ("poll.interval.ms\n", "5"),
        ("max.queue.size", "many"),
        ("provide.transaction.metadata", "yes"),
        (" poll.interval.ms", "5"),
        ("", "5"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(option: str, value: str) -> None:
    with pytest.raises(OverrideRefused):
        check_dataset(replace(PINS, connector={option: value}), PLAIN)


def test_spaces_around_a_name_do_not_smuggle_it_in() -> None:
    with pytest.raises(OverrideRefused):
        check_dataset(replace(PINS, connector={"topic.prefix ": "mine"}), PLAIN)


def test_a_server_id_is_one_shard_s() -> None:
    with pytest.raises(OverrideRefused) as caught:
        check_dataset(replace(PINS, connector={"database.server.id": "7"}), PLAIN)
    assert "all shards would share it" in str(caught.value)
    config = desired_config(PINS, replace(PINS_7, connector={"database.server.id": "7"}), EAST, PLAIN)
    assert config["database.server.id"] == "7"


@pytest.mark.parametrize("value", ["0", "-1", "4294967295", "7a", "", "٧"])
def test_a_server_id_that_no_server_takes_is_refused(value: str) -> None:
    with pytest.raises(OverrideRefused):
        check_shard(PINS, replace(PINS_7, connector={"database.server.id": value}), PLAIN)


def test_postgres_has_no_server_id() -> None:
    with pytest.raises(OverrideRefused):
        check_shard(ORDERS, replace(ORDERS_2, connector={"database.server.id": "7"}), PLAIN)


def test_the_whole_wire_format_is_denied() -> None:
    for fixed in FIXED:
        assert any(rule.matches(fixed.option) for rule in DENIED)


def test_each_rule_says_why_and_what_to_do() -> None:
    for rule in DENIED:
        assert rule.reason.endswith(".")
        assert rule.cure.endswith(".")


def test_a_key_column_named_as_the_shard_s_field_is_refused() -> None:
    with pytest.raises(OverrideRefused) as caught:
        check_dataset(replace(PINS, tables=(Table(name="pins", key=("id", "shard")),)), PLAIN)
    assert caught.value.field == "tables.pins.key"
    assert caught.value.cure

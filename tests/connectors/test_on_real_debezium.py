"""The generated configs on real Connect and Debezium: what events look like, and where they go."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pymysql
import pytest
from confluent_kafka import Producer
from psycopg import sql

from cdc_platform.connectors.config import desired_config
from cdc_platform.connectors.identity import signal_topic, transaction_topic
from cdc_platform.connectors.topics import desired_topics
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Address, BootstrapMode, Dataset, Engine, Shard, Table, TopicSpec
from tests.conftest import require_mysql
from tests.connectors.harness import Harness, Record
from tests.local.promotion import drop_postgres_database
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack]

ONE_COPY = TopicSpec(partitions=2, replication=1)

# Options that Debezium reads and does not declare to Connect's validation.
UNDECLARED = {
    "binary.handling.mode",
    "event.converting.failure.handling.mode",
    "field.name.adjustment.mode",
    "internal.schema.history.internal.ddl.filter",
    "read.only",
    "schema.name.adjustment.mode",
    "skip.messages.without.change",
    "snapshot.locking.mode",
    "topic.heartbeat.prefix",
    "unavailable.value.placeholder",
}
# Families that the connector, the worker or a client resolves by prefix.
FAMILIES = (
    # Handed on to the JDBC driver.
    "driver.",
    "cdc.platform.",
    "driver.",
    "producer.override.",
    "predicates.",
    "schema.history.internal.",
    "signal.",
    "transforms.",
    "key.converter.",
    "value.converter.",
)


@pytest.fixture(scope="module")
def own() -> str:
    return f"t{time.time_ns() // 1_000_000}"


@pytest.fixture(scope="module")
def harness(stack: Stack, own: str) -> Iterator[Harness]:
    settings = replace(stack.settings(), platform=own, heartbeat_topic=f"{own}.platform.heartbeat")
    found = Harness(stack=stack, settings=settings)
    yield found
    found.close()


@pytest.fixture(scope="module", params=[Engine.MARIADB, Engine.MYSQL], ids=str)
def pins(
    request: pytest.FixtureRequest, harness: Harness, own: str
) -> Iterator[tuple[Dataset, tuple[Shard, ...], pymysql.Connection[Any]]]:
    """Two shards on one server of MariaDB or MySQL; `tags` has no primary key."""
    engine: Engine = request.param
    if engine is Engine.MYSQL and not harness.stack.mysql:
        require_mysql("the stack given runs no MySQL")
    login, address = harness.stack.admin(engine), harness.stack.primary(engine)
    name = f"{own}_{engine}"
    connection = pymysql.connect(
        host=address.host, port=address.port, user=login.user, password=login.password, autocommit=True
    )
    shards = []
    with connection.cursor() as cursor:
        for number in ("00000", "00001"):
            database = f"{name}_{number}"
            cursor.execute(f"CREATE DATABASE {database}")
            cursor.execute(
                f"CREATE TABLE {database}.pins (id BIGINT UNSIGNED PRIMARY KEY, n INT DEFAULT 5, price DECIMAL(20,5), "
                "big BIGINT UNSIGNED, raw VARBINARY(8), at DATETIME(6), coarse DATETIME, took TIME(6), d DATE, "
                "utc TIMESTAMP(6) NULL)"
            )
            cursor.execute(f"CREATE TABLE {database}.tags (pin INT, tag VARCHAR(20), weight INT)")
            cursor.execute(
                f"INSERT INTO {database}.pins VALUES (1, NULL, -1.5, 18446744073709551615, X'00ff', "
                "'2020-01-02 03:04:05.123456', '2020-01-02 03:04:05', '-12:34:56.789012', '2020-01-02', NULL)"
            )
            shards.append(Shard(dataset=name, id=number, leader=address, database=database))
    dataset = Dataset(
        name=name,
        engine=engine,
        tables=(Table(name="pins"), Table(name="tags", key=("pin", "tag"))),
        clusters=("local",),
        credentials=harness.stack.credentials(engine, name),
        bootstrap=BootstrapMode.SNAPSHOT,
        topics=ONE_COPY,
    )
    harness.deploy(dataset, *shards)
    yield dataset, tuple(shards), connection
    with connection.cursor() as cursor:
        for shard in shards:
            cursor.execute(f"DROP DATABASE {shard.database}")
    connection.close()


@pytest.fixture(scope="module")
def orders(harness: Harness, own: str) -> Iterator[tuple[Dataset, Shard, psycopg.Connection[Any]]]:
    """A Postgres shard whose table is the connector's user's own."""
    stack = harness.stack
    login, address = stack.admin(Engine.POSTGRES), stack.postgres_primary
    owner = sql.Identifier(_source_user(stack))
    database = f"{own}_orders"

    def connect(name: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=address.host, port=address.port, user=login.user, password=login.password, dbname=name, autocommit=True
        )

    with connect("postgres") as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), owner))
    connection = connect(database)
    connection.execute(
        "CREATE TABLE orders (id INT PRIMARY KEY, n INT DEFAULT 5, price NUMERIC, raw BYTEA, at TIMESTAMP, "
        "utc TIMESTAMPTZ, took INTERVAL, doc JSONB)"
    )
    connection.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    connection.execute(sql.SQL("ALTER TABLE orders OWNER TO {}").format(owner))
    connection.execute(
        "INSERT INTO orders VALUES (1, NULL, 123456789.123456789, '\\x00ff', '2020-01-02 03:04:05.123456', "
        "'2020-01-02 03:04:05+02', '1 year 2 months 3 days 04:05:06.7', '{\"a\": 1}')"
    )
    shard = Shard(dataset=f"{own}_orders", id="00000", leader=address, database=database)
    dataset = Dataset(
        name=f"{own}_orders",
        engine=Engine.POSTGRES,
        tables=(Table(name="orders"),),
        clusters=("local",),
        credentials=stack.credentials(Engine.POSTGRES, f"{own}_orders"),
        bootstrap=BootstrapMode.SNAPSHOT,
        topics=ONE_COPY,
    )
    harness.deploy(dataset, shard)
    yield dataset, shard, connection
    harness.rest.delete(f"{harness.url}/connectors/{shard.name}")
    connection.close()
    drop_postgres_database(stack, database)


def _source_user(stack: Stack) -> str:
    lines = (stack.secrets_dir / "postgres.properties").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)["user"]


def _snapshot_rows(records: list[Record]) -> list[Record]:
    return [r for r in records if r.value and r.value.get("op") == "r"]


def test_rows_of_all_shards_meet_in_one_topic_told_apart_by_key_and_header(harness: Harness, pins: Any) -> None:
    dataset, shards, _ = pins
    found = harness.read(f"cdc.{dataset.name}.pins", lambda rows: len(_snapshot_rows(rows)) == 2)
    rows = _snapshot_rows(found)
    assert sorted((r.key["shard"], r.key["id"]) for r in rows if r.key) == [("00000", 1), ("00001", 1)]
    assert {r.headers["cdc.shard"] for r in rows} == {shard.name for shard in shards}
    assert {r.headers["cdc.worker"] for r in rows} <= set(harness.stack.workers)
    assert all(r.headers["__debezium.context.runId"] for r in rows)


def test_values_of_a_binlog_are_exact(harness: Harness, pins: Any) -> None:
    dataset, _, _ = pins
    found = harness.read(f"cdc.{dataset.name}.pins", lambda rows: len(_snapshot_rows(rows)) == 2)
    after = (_snapshot_rows(found)[0].value or {})["after"]
    assert after == {
        "id": 1,
        "n": None,  # not the column's default
        "price": "-1.50000",
        "big": 18446744073709551615,
        "raw": "00ff",
        "at": 1577934245123456,
        "coarse": 1577934245000000,
        "took": -45296789012,
        "d": 18263,
        "utc": None,
    }


def test_postgres_values_are_exact(harness: Harness, orders: Any) -> None:
    dataset, _, _ = orders
    found = harness.read(f"cdc.{dataset.name}.orders", lambda rows: len(_snapshot_rows(rows)) == 1)
    assert (_snapshot_rows(found)[0].value or {})["after"] == {
        "id": 1,
        "n": None,
        "price": "123456789.123456789",
        "raw": "00ff",
        "at": 1577934245123456,
        "utc": "2020-01-02T01:04:05.000000Z",
        "took": "P1Y2M3DT4H5M6.7S",
        "doc": '{"a": 1}',
    }


def test_a_delete_leaves_a_tombstone_under_the_whole_key(harness: Harness, pins: Any) -> None:
    dataset, shards, connection = pins
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {shards[1].database}.tags VALUES (7, 'blue', 1)")
        cursor.execute(f"UPDATE {shards[1].database}.tags SET weight = 2")
        cursor.execute(f"DELETE FROM {shards[1].database}.tags")
    found = harness.read(f"cdc.{dataset.name}.tags", lambda rows: any(r.value is None for r in rows))
    assert [r.value and r.value["op"] for r in found] == ["c", "u", "d", None]
    assert {json.dumps(r.key) for r in found} == {json.dumps({"pin": 7, "tag": "blue", "shard": "00001"})}
    assert len({r.partition for r in found}) == 1
    assert {r.headers["cdc.shard"] for r in found} == {shards[1].name}


def test_transactions_are_counted_in_a_topic_of_their_own(harness: Harness, pins: Any) -> None:
    dataset, shards, connection = pins
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {shards[0].database}.tags VALUES (1, 'a', 1), (2, 'b', 1), (3, 'c', 1), (4, 'd', 1)"
        )

    def counted(records: list[Record]) -> list[Record]:
        return [r for r in records if r.value and r.value["status"] == "END" and r.value["event_count"] == 4]

    found = counted(harness.read(transaction_topic(harness.settings, dataset), lambda rows: bool(counted(rows))))
    assert [r.headers["cdc.shard"] for r in found] == [shards[0].name]
    assert (found[0].value or {})["data_collections"] == [
        {"data_collection": f"{shards[0].database}.tags", "event_count": 4}
    ]


def test_heartbeats_and_notifications_of_all_shards_share_their_topics(
    harness: Harness, pins: Any, orders: Any
) -> None:
    names = {shard.name for shard in pins[1]} | {orders[1].name}
    heard = harness.read(
        harness.settings.heartbeat_topic, lambda rows: {(r.key or {})["serverName"] for r in rows} >= names
    )
    deployed = {shard.name for shards in harness.topology.shards.values() for shard in shards}
    assert names <= {r.headers["cdc.shard"] for r in heard} <= deployed
    done = harness.read(
        f"{harness.settings.platform}.platform.notifications",
        lambda rows: {r.headers["cdc.shard"] for r in rows if r.value and r.value["type"] == "COMPLETED"} >= names,
    )
    assert all("shard" not in (r.key or {}) for r in done)


def test_no_connector_makes_a_topic_of_its_own(harness: Harness, pins: Any, orders: Any) -> None:
    wanted = {t.name for t in desired_topics(harness.topology, harness.settings)}
    datasets = (pins[0].name, orders[0].name)
    assert {name for name in harness.topics() if any(dataset in name for dataset in datasets)} <= wanted


def test_the_position_of_an_idle_postgres_shard_moves_on(harness: Harness, orders: Any) -> None:
    _, shard, connection = orders
    # WAL that this connector's tables have no part in.
    connection.execute("CREATE TABLE IF NOT EXISTS elsewhere (id INT)")
    connection.execute("INSERT INTO elsewhere SELECT generate_series(1, 1000)")
    row = connection.execute("SELECT (pg_current_wal_lsn() - '0/0')::bigint").fetchone()
    assert row
    assert_eventually(
        lambda: int(harness.offset(shard).get("lsn", 0)) >= row[0], "the committed LSN passes the written one"
    )


def test_an_incremental_snapshot_by_signal_needs_no_table_in_the_source(
    harness: Harness, pins: Any, orders: Any
) -> None:
    producer = Producer(dict(harness.stack.kafka_client))
    for dataset, shard, collection in (
        (pins[0], pins[1][0], f"{pins[1][0].database}.pins"),
        (orders[0], orders[1], "public.orders"),
    ):
        assert_eventually(partial(harness.offset, shard), "an offset is committed")
        data = {"type": "incremental", "data-collections": [collection]}
        signal = {"id": f"test-{shard.name}", "type": "execute-snapshot", "data": data}
        topic = signal_topic(harness.settings, shard)
        producer.produce(topic, key=shard.name, value=json.dumps(signal), partition=0)
        producer.flush(10)

        def again(records: list[Record], name: str = shard.name) -> list[Record]:
            of_shard = [r for r in _snapshot_rows(records) if r.headers["cdc.shard"] == name]
            return [r for r in of_shard if (r.value or {})["source"]["snapshot"] == "incremental"]

        table = collection.split(".")[1]
        found = again(harness.read(f"cdc.{dataset.name}.{table}", lambda rows: bool(again(rows))))
        assert [(r.key or {})["id"] for r in found] == [1]


def test_a_truncate_does_not_kill_the_task(harness: Harness, pins: Any) -> None:
    # With skipped.operations=none the event has no key: the broker refuses it and the task is FAILED for good.
    dataset, shards, connection = pins
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE TABLE {shards[0].database}.tags")
        cursor.execute(f"INSERT INTO {shards[0].database}.tags VALUES (99, 'after', 1)")
    harness.read(f"cdc.{dataset.name}.tags", lambda rows: any((r.key or {}).get("pin") == 99 for r in rows))
    assert harness.task_state(shards[0]) == "RUNNING"


def test_every_option_is_one_that_connector_or_worker_knows(harness: Harness, pins: Any, orders: Any) -> None:
    cluster = harness.stack.cluster()
    # MariaDB stands in for MySQL's server: that plugin's own option names are what is asked for.
    mysql = replace(pins[0], engine=Engine.MYSQL)
    for dataset, shard in ((pins[0], pins[1][0]), (mysql, pins[1][0]), (orders[0], orders[1])):
        config = {"name": shard.name, **desired_config(dataset, shard, cluster, harness.settings)}
        plugin = config["connector.class"].rsplit(".", 1)[1]
        url = f"{harness.url}/connector-plugins/{plugin}/config/validate"
        answer = harness.rest.put(url, json=config).json()
        known = {entry["definition"]["name"] for entry in answer["configs"]} | UNDECLARED
        unknown = {key for key in config if key not in known and not key.startswith(FAMILIES)}
        assert unknown == set(), plugin
        values = [entry["value"] for entry in answer["configs"] if entry["value"]]
        wrong = {value["name"]: value["errors"] for value in values if value["errors"]}
        # A MariaDB server is no MySQL server; its connection check may say so.
        allowed = {"database.hostname"} if dataset is mysql and pins[0].engine is Engine.MARIADB else set()
        assert wrong.keys() <= allowed, wrong


def test_workers_export_what_the_control_plane_reads(harness: Harness, pins: Any) -> None:
    dataset, shards, _ = pins

    def exported() -> str:
        return "".join(httpx.get(url, timeout=30).text for url in harness.stack.metrics_urls.values())

    labels = f'{{engine="{dataset.engine}",server="{shards[0].name}"}}'
    assert_eventually(lambda: f"debezium_connected{labels} 1.0" in exported(), "the streaming metric is there")
    text = exported()
    assert f"debezium_millisecondsbehindsource{labels}" in text
    assert f"debezium_snapshot_snapshotcompleted{labels} 1.0" in text
    assert "kafka_connect_worker_task_count" in text
    assert "jvm_memory_used_bytes" in text
    mine = [line for line in text.splitlines() if shards[0].name in line]
    assert len(mine) < 20  # a thousand connectors a worker must stay scrapable


def test_a_leader_that_is_reached_by_reference_only(harness: Harness, pins: Any) -> None:
    _, shards, _ = pins
    stored = harness.rest.get(f"{harness.url}/connectors/{shards[0].name}/config").json()
    assert stored["database.hostname"].startswith("${file:")
    bare = re.sub(r"\$\{[^}]*\}", "", json.dumps(stored))
    assert "password" not in bare.replace("database.password", "").replace('password=\\"\\"', "")
    assert Address.parse(str(shards[0].leader)).host not in stored["database.hostname"]
    assert Path(stored["database.hostname"].split(":")[1]).is_absolute()

"""Topologies that the connector tests share."""

from __future__ import annotations

from cdc_platform.model.topology import (
    Address,
    BootstrapMode,
    Cluster,
    Dataset,
    Engine,
    Limits,
    Shard,
    Table,
    TopicSpec,
    Topology,
)
from cdc_platform.settings import Settings
from tests.own_secrets import SECRETS_DIRS, own_secrets

EAST = Cluster(name="east", urls=("http://connect-east:8083",))
WEST = Cluster(name="west", urls=("http://connect-west:8083",), leader_dir="/srv/leaders")

PINS = Dataset(
    name="pins",
    engine=Engine.MARIADB,
    tables=(Table(name="pins"), Table(name="boards"), Table(name="pin$tags", key=("pin_id", "tag"))),
    clusters=("east", "west"),
    credentials=own_secrets("pins"),
)
USERS = Dataset(
    name="users",
    engine=Engine.MYSQL,
    tables=(Table(name="users"),),
    clusters=("east",),
    credentials=own_secrets("users"),
    topic_pattern="{dataset}-{table}.changes",
    bootstrap=BootstrapMode.SNAPSHOT,
    connector={"database.ssl.mode": "verify_ca", "value.converter.schemas.enable": "true"},
    limits=Limits(bytes_per_second=500_000),
    topics=TopicSpec(partitions=4, replication=2, config={"max.message.bytes": "2097152"}),
)
ORDERS = Dataset(
    name="orders",
    engine=Engine.POSTGRES,
    tables=(
        Table(name="orders"),
        Table(name="order_items", schema="sales"),
        Table(name="events", key=("event_id",)),
    ),
    clusters=("west",),
    credentials=own_secrets("orders"),
)

PINS_7 = Shard(dataset="pins", id="00007", leader=Address("db-7.internal", 3306), database="pins_00007")
USERS_EU = Shard(
    dataset="users",
    id="eu-1",
    leader=Address("users-eu.internal", 3306),
    database="users",
    connector={"database.server.id": "12345", "max.queue.size": "4096"},
)
ORDERS_2 = Shard(dataset="orders", id="00002", leader=Address("pg-2.internal", 5432), database="orders_00002")

PLAIN = Settings(secrets_dirs=SECRETS_DIRS, permitted_topics=("*",))
SECURED = Settings(
    secrets_dirs=SECRETS_DIRS,
    permitted_topics=("*",),
    platform="cdc_staging",
    state_topic="cdc_staging.platform.state",
    heartbeat_topic="cdc_staging.platform.heartbeat",
    kafka={"bootstrap.servers": "kafka.example:9093"},
    worker_kafka={
        "bootstrap.servers": "kafka.internal:9093",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.jaas.config": "${file:/etc/cdc-platform/secrets/kafka.properties:jaas}",
    },
)

TOPOLOGY = Topology(
    datasets={dataset.name: dataset for dataset in (PINS, USERS, ORDERS)},
    shards={"pins": (PINS_7,), "users": (USERS_EU,), "orders": (ORDERS_2,)},
    clusters={"east": EAST, "west": WEST},
)


def numbered(dataset: str, count: int) -> tuple[Shard, ...]:
    """Shards 00000, 00001, ... of a dataset, each on a server of its own."""
    return tuple(
        Shard(
            dataset=dataset,
            id=f"{number:05d}",
            leader=Address(f"db-{number}.internal", 3306),
            database=f"{dataset}_{number:05d}",
        )
        for number in range(count)
    )

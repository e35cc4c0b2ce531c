"""The desired configs against golden files, and laws that hold for any topology.

After a wanted change: `UPDATE_GOLDEN=1 pytest tests/connectors/test_config.py`, then read the diff.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cdc_platform.connectors.config import DesiredConfigs, desired_config, leftovers, problems
from cdc_platform.connectors.engines.registry import wire_format
from cdc_platform.connectors.leader_files import leader_file
from cdc_platform.connectors.topics import desired_topics
from cdc_platform.connectors.wire_format import CHOSEN
from cdc_platform.errors import OverrideRefused, SettingsError
from cdc_platform.model.observed import CLUSTER_KEY, OWNER_KEY
from cdc_platform.model.topology import Address, BootstrapMode, Dataset, Engine, Problem, Shard, Topology
from cdc_platform.settings import Settings
from tests.connectors.cases import (
    EAST,
    ORDERS,
    ORDERS_2,
    PINS,
    PINS_7,
    PLAIN,
    SECURED,
    TOPOLOGY,
    USERS,
    USERS_EU,
    WEST,
    numbered,
)

GOLDEN = Path(__file__).parent / "golden"

CASES = {
    "mariadb": (PINS, PINS_7, EAST, PLAIN),
    "mariadb-in-another-cluster": (PINS, PINS_7, WEST, PLAIN),
    "mysql-with-overrides": (USERS, USERS_EU, EAST, PLAIN),
    "postgres": (ORDERS, ORDERS_2, WEST, PLAIN),
    "postgres-on-secured-kafka": (ORDERS, ORDERS_2, WEST, SECURED),
    "mariadb-on-secured-kafka": (PINS, PINS_7, EAST, SECURED),
}


def assert_golden(name: str, found: Any) -> None:
    """Compare with the golden file of that name."""
    path = GOLDEN / f"{name}.json"
    text = json.dumps(found, indent=2, sort_keys=True) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert json.loads(path.read_text()) == json.loads(text)


@pytest.mark.parametrize("name", sorted(CASES))
def test_config_is_the_golden_one(name: str) -> None:
    dataset, shard, cluster, settings = CASES[name]
    assert_golden(name, desired_config(dataset, shard, cluster, settings))


def test_topics_are_the_golden_ones() -> None:
    assert_golden(
        "topics",
        {
            t.name: {"partitions": t.partitions, "replication": t.replication, **t.config}
            for t in desired_topics(TOPOLOGY, PLAIN)
        },
    )


def test_a_leader_change_changes_nothing() -> None:
    promoted = replace(PINS_7, leader=Address("db-8.internal", 3307), generation=9)
    assert desired_config(PINS, promoted, EAST, PLAIN) == desired_config(PINS, PINS_7, EAST, PLAIN)


def test_the_leader_is_read_from_the_cluster_s_leader_file() -> None:
    config = desired_config(PINS, PINS_7, WEST, PLAIN)
    assert config["database.hostname"] == f"${{file:{leader_file(WEST, PINS_7)}:host}}"
    assert config["database.port"] == "${file:/srv/leaders/pins.00007.properties:port}"


def test_the_cluster_changes_nothing_but_its_name_and_the_leader_file() -> None:
    east, west = (desired_config(PINS, PINS_7, cluster, PLAIN) for cluster in (EAST, WEST))
    assert {key for key in east if east[key] != west[key]} == {CLUSTER_KEY, "database.hostname", "database.port"}


@pytest.mark.parametrize("name", sorted(CASES))
def test_no_config_holds_a_secret_in_plain_text(name: str) -> None:
    dataset, shard, cluster, settings = CASES[name]
    config = desired_config(dataset, shard, cluster, settings)
    secret = {key: value for key, value in config.items() if re.search(r"user$|password|secret|jaas", key)}
    assert {"database.user", "database.password"} <= set(secret)
    assert [key for key, value in secret.items() if not re.fullmatch(r"\$\{file:/[^:}]+:[^:}]+\}", value)] == []


def test_a_plain_secret_in_worker_kafka_is_refused_without_showing_it() -> None:
    settings = Settings(worker_kafka={"ssl.keystore.password": "hunter2"})
    with pytest.raises(SettingsError) as caught:
        desired_config(PINS, PINS_7, EAST, settings)
    assert "worker_kafka.ssl.keystore.password" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_shard_overrides_go_on_top_of_the_dataset_s() -> None:
    dataset = replace(PINS, connector={"snapshot.fetch.size": "100", "max.batch.size": "64"})
    shard = replace(PINS_7, connector={"max.batch.size": "128"})
    config = desired_config(dataset, shard, EAST, PLAIN)
    assert config["snapshot.fetch.size"] == "100"
    assert config["max.batch.size"] == "128"


@pytest.mark.parametrize(
    ("mode", "snapshot"),
    [
        (BootstrapMode.SNAPSHOT, "initial"),
        (BootstrapMode.LATEST, "no_data"),
        (BootstrapMode.INCREMENTAL, "no_data"),
        (BootstrapMode.POSITION, "no_data"),
    ],
)
def test_bootstrap_decides_the_snapshot_mode(mode: BootstrapMode, snapshot: str) -> None:
    assert desired_config(replace(PINS, bootstrap=mode), PINS_7, EAST, PLAIN)["snapshot.mode"] == snapshot


def test_the_keep_alive_outlasts_what_a_rate_limit_blocks() -> None:
    blocked = (USERS.limits.queue_bytes + USERS.limits.producer_buffer_bytes) / 500_000
    config = desired_config(USERS, USERS_EU, EAST, PLAIN)
    assert int(config["connect.keep.alive.interval.ms"]) >= 2000 * blocked


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_config_carries_owner_mark_and_whole_wire_format(name: str) -> None:
    dataset, shard, cluster, settings = CASES[name]
    config = desired_config(dataset, shard, cluster, settings)
    assert config[OWNER_KEY] == settings.platform
    fixed = {option: value for option, value in wire_format(dataset.engine).items() if option not in CHOSEN}
    assert len(fixed) > 20 and fixed.items() <= config.items()
    assert all(isinstance(value, str) for value in config.values())


def test_one_builder_gives_what_single_calls_give() -> None:
    build = DesiredConfigs(PLAIN)
    for dataset in (PINS, replace(PINS, connector={"poll.interval.ms": "100"}), ORDERS):
        for shard in numbered(dataset.name, 3):
            assert build(dataset, shard, EAST) == desired_config(dataset, shard, EAST, PLAIN)


def test_a_refused_override_switches_off_just_what_it_stands_in() -> None:
    bad = replace(PINS_7, id="00008", database="pins_00008", connector={"topic.prefix": "mine"})
    users = replace(USERS, connector={"decimal.handling.mode": "double"})
    topology = Topology(
        datasets={"pins": PINS, "users": users},
        shards={"pins": (PINS_7, bad), "users": (USERS_EU,)},
        clusters={"east": EAST},
    )
    found = {(problem.kind, problem.name) for problem in problems(topology, PLAIN)}
    assert found == {("shard", "pins.00008"), ("dataset", "users")}
    with pytest.raises(OverrideRefused):
        desired_config(PINS, bad, EAST, PLAIN)


def test_leftovers_of_a_binlog_connector_are_its_history() -> None:
    topics, sentences = leftovers(PLAIN, PINS_7.name, desired_config(PINS, PINS_7, EAST, PLAIN))
    assert topics == ("cdc.platform.schema-history.pins-00007",)
    assert sentences == ()


def test_leftovers_of_a_postgres_connector_name_slot_and_publication() -> None:
    config = desired_config(ORDERS, ORDERS_2, EAST, PLAIN)
    topics, sentences = leftovers(PLAIN, ORDERS_2.name, config)
    assert topics == ()
    assert config["slot.name"] in sentences[0]
    assert config["publication.name"] in sentences[1]


def test_every_topic_that_a_config_names_is_among_the_desired() -> None:
    wanted = {topic.name for topic in desired_topics(TOPOLOGY, PLAIN)}
    pairs: list[tuple[Dataset, Shard]] = list(TOPOLOGY.all_shards())
    for dataset, shard in pairs:
        config = desired_config(dataset, shard, EAST, PLAIN)
        named = [config["signal.kafka.topic"], config["notification.sink.topic.name"]]
        named += [config[f"transforms.{alias}.replacement"] for alias in ("cdcHeartbeat", "cdcTransaction")]
        if dataset.engine is not Engine.POSTGRES:
            named.append(config["schema.history.internal.kafka.topic"])
        assert wanted.issuperset(named)


def test_an_empty_topology_wants_no_topics() -> None:
    assert desired_topics(Topology(), PLAIN) == ()


def test_what_is_switched_off_wants_no_topics() -> None:
    other = replace(PINS_7, id="00008")
    topology = replace(
        TOPOLOGY,
        shards={**TOPOLOGY.shards, "pins": (PINS_7, other)},
        problems=(Problem("dataset", "users", "x"), Problem("shard", "pins.00008", "x")),
    )
    names = {topic.name for topic in desired_topics(topology, PLAIN)}
    assert "cdc.pins.pins" in names
    assert "cdc.platform.schema-history.pins-00007" in names
    assert not [name for name in names if "users" in name or "00008" in name]

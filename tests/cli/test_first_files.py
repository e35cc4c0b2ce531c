"""`init`, `grants` and `topology new`: the files that everything begins with."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cdc_platform.cli.main import main
from cdc_platform.connectors.config import problems
from cdc_platform.documents import load_yaml
from cdc_platform.errors import KafkaUnavailable
from cdc_platform.settings import FILE_ONLY, Settings
from cdc_platform.testing import FakeConnect, FakeKafka, InMemoryTopologyStore, InMemoryZooKeeper


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> FakeKafka:
    kafka, zookeeper = FakeKafka(brokers=1), InMemoryZooKeeper()
    monkeypatch.setattr("cdc_platform.cli.init.KafkaAdmin", lambda config, timeout: kafka)
    monkeypatch.setattr("cdc_platform.cli.init.topology_store", lambda settings: InMemoryTopologyStore(zookeeper))
    monkeypatch.setattr("cdc_platform.cli.init.connect_client", lambda settings, name, urls, kafka_id: _Connect())
    return kafka


class _Connect(FakeConnect):
    def close(self) -> None:
        """Nothing to close."""


def test_init_asks_each_server_and_writes_every_setting(servers: FakeKafka, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    done = run("init", "--kafka", "k:9092", "--zookeeper", "z:2181", "--connect", "http://w:8083", "--out", str(file))
    assert done.exit_code == 0, done.output
    for line in (
        "ZooKeeper z:2181: answers",
        "Kafka k:9092: answers, 1 brokers (set `topics:",
        "Connect http://w:8083: answers",
    ):
        assert line in done.stdout
    loaded = Settings.load(file, {})
    assert (loaded.zookeeper, loaded.kafka) == ("z:2181", {"bootstrap.servers": "k:9092"})
    text = file.read_text()
    every = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    assert every.keys() == {setting.name for setting in fields(Settings)} - FILE_ONLY
    assert "is there already" in run("init", "--out", str(file)).stderr


def test_init_writes_nothing_when_a_server_does_not_answer(servers: FakeKafka, tmp_path: Path) -> None:
    servers.outage = KafkaUnavailable("does not answer.", where="Kafka k:9092", cure="Start it.")
    file = tmp_path / "c.toml"
    done = run("init", "--kafka", "k:9092", "--out", str(file))
    assert done.exit_code == 2 and not file.exists() and "Kafka k:9092: does not answer. Cure: Start it." in done.stdout
    assert run("init", "--kafka", "k:9092", "--out", str(file), "--force").exit_code == 2 and file.exists()


@pytest.mark.parametrize("engine", ["mariadb", "mysql"])
def test_grants_name_user_and_each_database(engine: str) -> None:
    text = run("grants", engine, "--user", "debezium", "--database", "pins_00000", "--database", "pins_00001").stdout
    assert "CREATE USER 'debezium'@'%'" in text and "'cdc'" not in text
    granted = re.findall(r"^GRANT SELECT ON (\S+) TO", text, re.MULTILINE)
    assert granted == ["`pins_00000`.*", "`pins_00001`.*"]
    assert "GRANT REPLICATION SLAVE ON *.* TO 'debezium'" in text


def test_grants_of_postgres_name_user_database_and_tables() -> None:
    text = run("grants", "postgres", "--user", "deb", "--database", "shop", "--table", "a", "--table", "b").stdout
    assert "CREATE ROLE deb LOGIN REPLICATION" in text and 'GRANT CONNECT ON DATABASE "shop" TO deb;' in text
    assert 'GRANT SELECT ON TABLE "a" TO deb;\nGRANT SELECT ON TABLE "b" TO deb;' in text
    assert 'CREATE PUBLICATION cdc_shop FOR TABLE "a", "b";' in text
    assert "orders" not in text.replace("orders_00000", "") and " cdc;" not in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("mariadb", "--user", "a'b"), "--user"),
        (("mysql", "--database", "x`.*; DROP"), "--database"),
        (("postgres", "--database", "a", "--database", "b"), "one database"),
    ],
)
def test_grants_take_plain_names_only(arguments: tuple[str, ...], says: str) -> None:
    refused = run("grants", *arguments)
    assert refused.exit_code == 1 and says in refused.stderr and "Cure: " in refused.stderr and not refused.stdout


NEW = ("topology", "new", "pins", "--engine", "mysql", "--table", "pins", "--connect", "http://w:8083")


def test_a_new_topology_spreads_shards_over_hosts(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    done = run(
        *NEW, "--shards", "00000-00004", "--database", "pins_{shard}", "--leader", "a:3306", "--leader", "b:3306",
        "--replication", "1", "--out", str(file),
    )  # fmt: skip
    assert done.exit_code == 0 and f"topology import {file}" in done.stdout
    found = load_yaml(file)
    leaders = [str(shard.leader) for shard in found.shards["pins"]]
    assert leaders == ["a:3306", "a:3306", "a:3306", "b:3306", "b:3306"]
    assert [shard.database for shard in found.shards["pins"]] == [f"pins_{n:05d}" for n in range(5)]
    assert found.datasets["pins"].topics.replication == 1
    assert problems(found, Settings(secrets_dirs=("/etc/cdc-platform/secrets",))) == ()
    again = run(*NEW, "--shards", "0-1", "--database", "d", "--leader", "db-{shard}:3306", "--out", str(file))
    assert again.exit_code == 1 and "is there already" in again.stderr


def test_a_new_topology_takes_a_pattern_of_hosts() -> None:
    text = run(*NEW, "--shards", "0-1", "--database", "d", "--leader", "db-{shard}:3306").stdout
    assert "db-{shard}:3306" in text or ("db-0:3306" in text and "db-1:3306" in text)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--shards", "5-1", "--database", "d_{shard}", "--leader", "a:1"), "ends before it begins"),
        (("--shards", "x", "--database", "d_{shard}", "--leader", "a:1"), "not a valid range"),
        (("--shards", "0-1", "--database", "d", "--leader", "a:1"), "all shards would be one database"),
        (("--shards", "0-1", "--database", "d_{shrd}", "--leader", "a:1"), "{shard}"),
        (("--shards", "0-1", "--database", "d_{shard}", "--leader", "a"), "HOST:PORT"),
    ],
)
def test_a_new_topology_that_cannot_be_is_refused(arguments: tuple[str, ...], says: str) -> None:
    refused = run(*NEW, *arguments)
    assert refused.exit_code == 1 and says in refused.stderr and "Cure: " in refused.stderr and not refused.stdout

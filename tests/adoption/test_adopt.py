"""`cdc-platform adopt` over a Connect in memory: four fleets as people have them, and what each lacks for a proof."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cdc_platform.cli.main import main
from cdc_platform.connectors.adoption import adoptable, continues_at
from cdc_platform.documents import load_yaml
from cdc_platform.model.observed import OWNER_KEY
from cdc_platform.model.topology import Engine
from cdc_platform.settings import Settings
from tests.defs.harness import Harness, topology

AVRO = "io.confluent.connect.avro.AvroConverter"
CLASSES = {
    Engine.MARIADB: "io.debezium.connector.mariadb.MariaDbConnector",
    Engine.MYSQL: "io.debezium.connector.mysql.MySqlConnector",
    Engine.POSTGRES: "io.debezium.connector.postgresql.PostgresConnector",
}


def debezium(engine: Engine, tables: str, **more: str) -> dict[str, str]:
    return {
        "connector.class": CLASSES[engine],
        "database.hostname": "db-1",
        "database.user": "debezium",
        "database.password": "${file:/s/shop.properties:password}",
        "topic.prefix": "shop",
        "table.include.list": tables,
        "heartbeat.interval.ms": "10000",
        **{name.replace("_", "."): value for name, value in more.items()},
    }


FLEET = {
    "shop-0": debezium(Engine.MARIADB, "shop_0.orders"),
    "shop-1": debezium(Engine.MARIADB, r"(?-i:shop_1\.orders)", database_port="3307"),
    "avro": debezium(Engine.MYSQL, "crm.people", **{"value.converter": AVRO, "key.converter": AVRO}),
    "unwrap": debezium(
        Engine.POSTGRES,
        "public.items",
        database_dbname="stock",
        transforms="unwrap",
        **{"transforms.unwrap.type": "io.debezium.transforms.ExtractNewRecordState"},
    ),
    "two-tables": debezium(Engine.MARIADB, "mail.inbox,mail.sent"),
    "patterns": debezium(Engine.MARIADB, "mail_[0-9]+.inbox"),
    "sink": {"connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector"},
    "pins.00000": debezium(Engine.MARIADB, "pins.pins", **{OWNER_KEY: "cdc"}),
}


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    harness = Harness(settings=Settings())
    harness.put(topology(pins=1, orders=0))
    for name, config in FLEET.items():
        harness.connect.create(name, config)
    monkeypatch.setattr("cdc_platform.cli.adopt.open_platform", lambda settings: harness.platform())
    return harness


def adopt(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, ["adopt", *arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


def lacks(config: Mapping[str, str]) -> dict[str, str]:
    found = adoptable("x", config)
    assert found is not None
    return {point.what: point.text for point in found.lacks}


def test_a_dry_run_names_all_and_changes_nothing(harness: Harness) -> None:
    said = adopt("main", code=2).stdout
    assert "main/sink is left out: a FileStreamSourceConnector, not Debezium's" in said
    assert "main/pins.00000 is left out: the platform's own" in said
    assert "Dry run: nothing was changed. 6 connectors would be watched" in said and "Add --apply" in said
    assert not harness.store().load().clusters["main"].watched


def test_applied_they_stand_in_the_topology_and_go_again(harness: Harness) -> None:
    adopt("main", "shop-*", "--owner", "team:shop", "--apply")
    watched = harness.store().load().clusters["main"].watched
    assert {name: one.owners for name, one in watched.items()} == {"shop-0": ("team:shop",), "shop-1": ("team:shop",)}
    assert "There is nothing to change" in adopt("main", "shop-*").stdout
    assert harness.connect.connector("shop-0").config == {**FLEET["shop-0"], "name": "shop-0"}
    adopt("main", "shop-0", "--release", "--apply")
    assert set(harness.store().load().clusters["main"].watched) == {"shop-1"}


def test_a_new_cluster_needs_its_workers(harness: Harness) -> None:
    refused = adopt("mian", code=1)
    assert "there is no Connect cluster 'mian'" in refused.stderr and "Did you mean 'main'?" in refused.stderr
    assert "Leave it out" in adopt("main", "--connect", "http://w:8083", code=1).stderr
    unknown = adopt("main", "shop-7", code=1)
    assert "no connector 'shop-7'" in unknown.stderr and "Did you mean 'shop-" in unknown.stderr


def test_json_holds_what_is_printed(harness: Harness) -> None:
    found = json.loads(adopt("main", "two-tables", "--json", code=2).stdout)
    (one,) = found["connectors"]
    assert (one["tables"], one["source"], found["applied"]) == (["mail.inbox", "mail.sent"], "db-1:3306", False)
    assert [point["what"] for point in one["lacks"]] == ["key", "topic", "format", "format", "values", "leader"]
    assert len(one["migration"]) == 4 and "--release" in one["migration"][-1]


def test_each_fleet_lacks_what_it_lacks() -> None:
    assert set(lacks(FLEET["shop-0"])) == {"key", "topic", "format", "values", "leader"}
    assert lacks(FLEET["avro"])["format"] == "value.converter is AvroConverter: JSON is read, nothing else"
    assert "position, operation and old values are gone" in lacks(FLEET["unwrap"])["envelope"]
    assert "does not name each table" in lacks(FLEET["patterns"])["tables"]
    several = debezium(Engine.MYSQL, "a.t,b.t")
    assert "it reads 2 databases (a, b)" in lacks(several)["shard"]
    assert "none" in lacks({**FLEET["shop-0"], "heartbeat.interval.ms": "0"})["heartbeat"]
    routed = {**FLEET["shop-0"], "transforms": "r", "transforms.r.type": "io.debezium.transforms.ByLogicalTableRouter"}
    assert "r (ByLogicalTableRouter)" in lacks(routed)["transforms"]


def test_datasets_for_a_proof_can_be_imported(harness: Harness, tmp_path: Path) -> None:
    out = tmp_path / "proven.yaml"
    done = adopt("main", "--out", str(out), code=2)
    assert "patterns is in no dataset" in done.stderr and "named by patterns" in done.stderr
    found = load_yaml(out)
    shards = {name: [(s.id, str(s.leader), s.database) for s in rows] for name, rows in found.shards.items()}
    assert shards == {
        "shop": [("00000", "db-1:3306", "shop_0"), ("00001", "db-1:3307", "shop_1")],
        "avro": [("00000", "db-1:3306", "crm")],
        "unwrap": [("00000", "db-1:5432", "stock")],
        "two_tables": [("00000", "db-1:3306", "mail")],
    }
    assert [table.name for table in found.datasets["two_tables"].tables] == ["inbox", "sent"]
    assert found.datasets["shop"].credentials.user == "${file:/etc/cdc-platform/secrets/shop/login.properties:user}"
    assert "is there already" in adopt("main", "--out", str(out), code=1).stderr


def test_a_new_connector_may_go_on_by_gtids_only() -> None:
    gtid = [{"partition": {"server": "shop"}, "offset": {"gtids": "0-1-5", "file": "b.1", "pos": 4}}]
    assert continues_at(Engine.MARIADB, gtid) == continues_at(Engine.MYSQL, gtid) == "0-1-5"
    assert continues_at(Engine.MYSQL, [{"partition": {}, "offset": {"file": "b.1", "pos": 4}}]) is None
    assert continues_at(Engine.POSTGRES, [{"partition": {}, "offset": {"lsn": 5}}]) is None

"""Fleets that others made, on real Connect: adopted as they are, kept alive, never changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from cdc_platform.cli.main import main
from cdc_platform.clients.kafka.admin import KafkaAdmin
from cdc_platform.documents import load_yaml
from cdc_platform.local.demo import sources
from cdc_platform.local.stack import Stack
from cdc_platform.model.observed import TopicRequest
from cdc_platform.model.topology import Address, Engine
from cdc_platform.settings import CONFIG_ENV, Settings
from tests.settings_file import write_settings
from tests.tcp_proxy import TcpProxy
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.plain]

DEADLINE = 180.0
TABLES = "CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(20)); CREATE TABLE b (id INT PRIMARY KEY, v VARCHAR(20));"
JSON = "org.apache.kafka.connect.json.JsonConverter"


@dataclass(kw_only=True)
class Fleets:
    """Connectors of three fleets, made by plain REST calls, and the command line of a platform that did not."""

    stack: Stack
    name: str
    rest: httpx.Client
    kafka: KafkaAdmin
    configs: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.stack.connect_urls[0]

    def make(self, connector: str, config: Mapping[str, str]) -> None:
        """The stack's workers make no topics, and a task that writes to one that is not there hangs."""
        prefix = config["topic.prefix"]
        names = [f"{prefix}.{table}" for table in config["table.include.list"].split(",")]
        topics = [
            TopicRequest(name=name, partitions=1, replication=1, config={})
            for name in (*names, f"__debezium-heartbeat.{prefix}", prefix)
        ]
        assert not self.kafka.create_topics(topics)

        def made() -> bool:
            answer = self.rest.put(f"{self.url}/connectors/{connector}/config", json=config)
            assert answer.status_code in (200, 201, 409), answer.text
            return answer.is_success

        assert_eventually(made, f"{connector} is made", DEADLINE)
        self.configs[connector] = {**config, "name": connector}

    def config(self, connector: str) -> dict[str, str] | None:
        answer = self.rest.get(f"{self.url}/connectors/{connector}/config")
        return None if answer.status_code == httpx.codes.NOT_FOUND else dict(answer.raise_for_status().json())

    def task(self, connector: str) -> str | None:
        answer = self.rest.get(f"{self.url}/connectors/{connector}/status")
        tasks = answer.json().get("tasks") if answer.is_success else None
        return str(tasks[0]["state"]) if tasks else None

    def runs(self, connector: str) -> bool:
        return self.task(connector) == "RUNNING"

    @property
    def second(self) -> Engine:
        """The engine of the third fleet: MySQL where the stack has it."""
        return Engine.MYSQL if any(name.startswith("mysql") for name in self.stack.launches) else Engine.MARIADB

    def call(self, method: str, path: str) -> None:
        assert_eventually(lambda: self.rest.request(method, f"{self.url}{path}").is_success, path, DEADLINE)

    def common(self, engine: Engine, at: Address, prefix: str) -> dict[str, str]:
        login = self.stack.credentials(engine, self.name)
        return {
            "tasks.max": "1",
            "database.hostname": at.host,
            "database.port": str(at.port),
            "database.user": login.user,
            "database.password": login.password,
            "topic.prefix": f"{self.name}.{prefix}",
        }

    def binlog(self, engine: Engine, number: int, database: str, tables: str) -> dict[str, str]:
        kinds = {Engine.MARIADB: "mariadb.MariaDb", Engine.MYSQL: "mysql.MySql"}
        prefix = f"b{number}"
        return {
            **self.common(engine, self.stack.primary(engine), prefix),
            "connector.class": f"io.debezium.connector.{kinds[engine]}Connector",
            "database.server.id": str(880_000 + number),
            "table.include.list": ",".join(f"{database}.{table}" for table in tables.split(",")),
            "schema.history.internal.kafka.topic": f"{self.name}.{prefix}.history",
            "schema.history.internal.kafka.bootstrap.servers": f"{self.stack.kafka.host}:{self.stack.kafka.port}",
            "heartbeat.interval.ms": "5000",
            "snapshot.locking.mode": "none",
        }


@pytest.fixture
def fleets(
    stack: Stack, settings: Settings, unique_name: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Fleets]:
    name = unique_name("adopt")
    file = write_settings(settings, tmp_path / "settings.toml")
    monkeypatch.setenv(CONFIG_ENV, str(file))
    with stack.rest(timeout=60) as rest:
        made = Fleets(stack=stack, name=name, rest=rest, kafka=KafkaAdmin(settings.kafka))
        try:
            yield made
        finally:
            for connector in made.configs:
                with suppress(httpx.HTTPError):
                    rest.delete(f"{made.url}/connectors/{connector}")


def run(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == code, (arguments, done.output, done.exception)
    return done


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_fleets_are_watched_as_they_are(fleets: Fleets, tmp_path: Path) -> None:
    stack, name = fleets.stack, fleets.name
    second = fleets.second
    for engine, databases in ((Engine.MARIADB, [f"{name}_0", f"{name}_1"]), (second, [f"{name}_2"])):
        sources.create_mariadb(stack.primary(engine), stack.admin(engine), databases, TABLES)
    with ExitStack() as held:
        postgres = stack.primary(Engine.POSTGRES)
        _postgres_database(stack, name)
        proxy = held.enter_context(TcpProxy((postgres.host, postgres.port)))
        # A topic a table, a connector a database; two tables a connector; the unwrap transform.
        for number in (0, 1):
            fleets.make(f"{name}-shop-{number}", fleets.binlog(Engine.MARIADB, number, f"{name}_{number}", "a"))
        fleets.make(f"{name}-two", fleets.binlog(second, 2, f"{name}_2", "a,b"))
        fleets.make(
            f"{name}-unwrap",
            {
                **fleets.common(Engine.POSTGRES, Address.parse(proxy.address), "pg"),
                "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
                "database.dbname": name,
                "plugin.name": "pgoutput",
                "slot.name": f"{name}_slot",
                "publication.name": f"{name}_pub",
                "publication.autocreate.mode": "filtered",
                "table.include.list": "public.a",
                "transforms": "unwrap",
                "transforms.unwrap.type": "io.debezium.transforms.ExtractNewRecordState",
                "value.converter": JSON,
                "errors.max.retries": "0",
            },
        )
        for connector in fleets.configs:
            assert_eventually(partial(fleets.runs, connector), f"{connector} runs", DEADLINE)

        _adopted(fleets, tmp_path)
        _kept_alive(fleets, proxy)
        _left_alone(fleets)
    assert {one: fleets.config(one) for one in fleets.configs if not one.endswith("-two")} == {
        one: config for one, config in fleets.configs.items() if not one.endswith("-two")
    }


def _adopted(fleets: Fleets, tmp_path: Path) -> None:
    name = fleets.name
    first = ("adopt", "main", f"{name}-*", "--connect", fleets.url, "--owner", "team:shop")
    dry = json.loads(run(*first, "--json", "--out", str(tmp_path / "proven.yaml"), code=2).stdout)
    lacks = {one["name"].removeprefix(f"{name}-"): {p["what"] for p in one["lacks"]} for one in dry["connectors"]}
    usual = {"key", "topic", "format", "values", "leader"}
    assert lacks == {
        "shop-0": usual,
        "shop-1": usual,
        "two": usual,
        "unwrap": usual | {"envelope", "heartbeat"},
    }
    # What would prove them is a topology that can be imported: databases of one kind are shards of one dataset.
    proven = load_yaml(tmp_path / "proven.yaml")
    sizes = sorted((len(proven.shards[d.name]), len(d.tables), d.engine) for d in proven.datasets.values())
    second = fleets.second
    assert sizes == sorted([(2, 1, Engine.MARIADB), (1, 2, second), (1, 1, Engine.POSTGRES)])

    said = run(*first, "--apply").stdout
    assert f"4 connectors are watched: {name}-shop-0" in said and "its plan is empty" in said
    plan = run("plan")
    assert "Nothing to change" in plan.stdout or "nothing to change" in plan.stdout, plan.stdout
    status = run("status")
    assert "main: 4 of 4 watched connectors up" in status.stdout, status.stdout
    assert json.loads(run("adopt", "main", f"{name}-*", "--json").stdout)["changed"] == []


def _kept_alive(fleets: Fleets, proxy: TcpProxy) -> None:
    """Its source goes away and comes back: a pass restarts what failed, with its config as it was."""
    broken = f"{fleets.name}-unwrap"
    proxy.cut()
    assert_eventually(lambda: fleets.task(broken) == "FAILED", "its task failed", DEADLINE)
    down = run("status", code=2).stdout
    assert f"main/{broken} is FAILED" in down, down
    proxy.resume()

    def restarted() -> bool:
        CliRunner().invoke(main, ["apply"])
        return fleets.task(broken) == "RUNNING"

    assert_eventually(restarted, "a pass restarted it", DEADLINE)
    assert fleets.config(broken) == fleets.configs[broken]


def _left_alone(fleets: Fleets) -> None:
    """What somebody pauses stays paused, and what somebody deletes is not made again: both are told."""
    paused, gone = f"{fleets.name}-shop-1", f"{fleets.name}-two"
    fleets.call("PUT", f"/connectors/{paused}/pause")
    fleets.call("DELETE", f"/connectors/{gone}")
    assert_eventually(lambda: fleets.task(paused) == "PAUSED", "it is paused", DEADLINE)
    for _ in range(2):
        assert run("apply").exit_code == 0
    assert (fleets.task(paused), fleets.config(gone)) == ("PAUSED", None)
    told = run("status", code=2).stdout
    assert f"main/{paused} is PAUSED" in told and f"main/{gone} is MISSING" in told, told
    released = run("adopt", "main", gone, "--release", "--apply").stdout
    assert f"1 connector is no longer watched: {gone}" in released
    assert f"main/{gone}" not in CliRunner().invoke(main, ["status"]).stdout


def _postgres_database(stack: Stack, name: str) -> None:
    login, at = stack.admin(Engine.POSTGRES), stack.primary(Engine.POSTGRES)
    with sources.postgres(at, login) as cursor:
        cursor.execute(f'CREATE DATABASE "{name}"')
    with sources.postgres(at, login, name) as cursor:
        for statement in filter(None, (part.strip() for part in TABLES.split(";"))):
            cursor.execute(statement)
        cursor.execute(f'GRANT CREATE ON DATABASE "{name}" TO cdc')
        for table in ("a", "b"):
            cursor.execute(f"ALTER TABLE {table} OWNER TO cdc")


def test_an_avro_fleet_is_refused_by_workers_without_its_converter(fleets: Fleets) -> None:
    """There is no Avro converter among the stack's programs: the fourth fleet is tried in memory (test_adopt.py)."""
    config = fleets.binlog(Engine.MARIADB, 9, f"{fleets.name}_9", "a")
    config["value.converter"] = "io.confluent.connect.avro.AvroConverter"
    answer = fleets.rest.put(f"{fleets.url}/connectors/{fleets.name}-avro/config", json=config)
    assert answer.status_code == httpx.codes.BAD_REQUEST and "AvroConverter" in answer.text

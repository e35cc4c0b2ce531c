"""The shared stack as others use it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import httpx
import psycopg
import pymysql
import pytest
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from kazoo.client import KazooClient

from cdc_platform.cli.main import main
from cdc_platform.local import mariadb, mysql, postgres, workers
from cdc_platform.local.lifecycle import up
from cdc_platform.local.stack import Stack, StackSpec
from cdc_platform.local.stack_passwords import read_login
from cdc_platform.model.topology import Engine
from tests.engines import EACH_BINLOG, EACH_ENGINE
from tests.local import postgres_servers
from tests.local.harness import Harness
from tests.local.promotion import drop_postgres_database
from tests.waiting import assert_eventually

pytestmark = pytest.mark.stack


def test_all_services_of_the_stack_run(stack: Stack) -> None:
    status = stack.status()
    assert {one.name for one in status} >= {
        "kafka", "zookeeper", "w0", "mariadb-1", "mariadb-2", "postgres-1", "postgres-2",
    }  # fmt: skip
    assert {one.name: one.state for one in status} == {one.name: "running" for one in status}
    assert all(one.rss for one in status)


def test_settings_file_leads_to_kafka_and_zookeeper(stack: Stack) -> None:
    settings = stack.settings()
    assert AdminClient(dict(settings.kafka)).list_topics(timeout=10).brokers
    zookeeper = KazooClient(hosts=settings.zookeeper)
    zookeeper.start(timeout=10)
    zookeeper.stop()
    zookeeper.close()


def test_workers_form_one_group_and_know_the_plugins(stack: Stack) -> None:
    plugins = {p["class"] for p in httpx.get(f"{stack.connect_urls[-1]}/connector-plugins").json()}
    assert plugins >= {
        "io.debezium.connector.mariadb.MariaDbConnector",
        "io.debezium.connector.mysql.MySqlConnector",
        "io.debezium.connector.postgresql.PostgresConnector",
    }
    clusters = {httpx.get(url).json()["kafka_cluster_id"] for url in stack.connect_urls}
    assert len(clusters) == 1


def test_cluster_document_names_zones_and_metrics_of_each_worker(stack: Stack) -> None:
    cluster = stack.cluster()
    assert len(cluster.urls) == len(stack.workers)
    zones = [cluster.labels[url.removeprefix("http://")] for url in cluster.urls]
    assert zones == [f"az-{'abc'[number % 3]}" for number in range(len(zones))]
    for url in cluster.metrics.values():
        text = httpx.get(url).text
        assert "jvm_memory_used_bytes" in text
        assert re.search(r"^kafka_connect_worker_\w*task_count", text, re.MULTILINE)


def test_broker_makes_no_topic_by_itself(stack: Stack) -> None:
    admin = AdminClient(dict(stack.settings().kafka))
    resource = ConfigResource(ResourceType.BROKER, "1")
    config = admin.describe_configs([resource])[resource].result(10)
    assert config["auto.create.topics.enable"].value == "false"


def test_mariadb_is_set_up_for_capture_and_replicates(stack: Stack, unique_name: Callable[[str], str]) -> None:
    admin = stack.admin(Engine.MARIADB)
    variables = {}
    for address in (stack.mariadb_primary, stack.mariadb_replica):
        with mariadb.connect(address.port, admin) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT @@server_id id, @@binlog_format format, @@binlog_row_image image, "
                "@@gtid_strict_mode strict, @@read_only ro, @@log_bin bin"
            )
            variables[address] = cursor.fetchone()
    expected = {"format": "ROW", "image": "FULL", "strict": 1, "bin": 1}
    assert variables[stack.mariadb_primary] == expected | {"id": 1, "ro": 0}
    assert variables[stack.mariadb_replica] == expected | {"id": 2, "ro": 1}
    name = unique_name("t")
    with mariadb.connect(stack.mariadb_primary.port, admin) as connection:
        connection.cursor().execute(f"CREATE DATABASE {name}")

    def replicated() -> bool:
        with mariadb.connect(stack.mariadb_replica.port, admin) as connection, connection.cursor() as cursor:
            return bool(cursor.execute("SHOW DATABASES LIKE %s", (name,)))

    assert_eventually(replicated, "the database on the replica")


@pytest.mark.mysql
def test_mysql_is_set_up_for_capture_and_replicates(stack: Stack, unique_name: Callable[[str], str]) -> None:
    admin, primary, replica = stack.admin(Engine.MYSQL), stack.primary(Engine.MYSQL), stack.replica(Engine.MYSQL)
    variables = {}
    for address in (primary, replica):
        with mysql.connect(address.port, admin) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT @@server_id id, @@binlog_format format, @@binlog_row_image image, "
                "@@gtid_mode gtid, @@super_read_only ro, @@log_bin bin, @@log_replica_updates applied"
            )
            variables[address] = cursor.fetchone()
    expected = {"format": "ROW", "image": "FULL", "gtid": "ON", "bin": 1, "applied": 1}
    assert variables[primary] == expected | {"id": 1, "ro": 0}
    assert variables[replica] == expected | {"id": 2, "ro": 1}
    name = unique_name("t")
    with mysql.connect(primary.port, admin) as connection:
        connection.cursor().execute(f"CREATE DATABASE {name}")

    def replicated() -> bool:
        with mysql.connect(replica.port, admin) as connection, connection.cursor() as cursor:
            return bool(cursor.execute("SHOW DATABASES LIKE %s", (name,)))

    assert_eventually(replicated, "the database on the replica")


def test_postgres_is_set_up_for_capture_and_replicates(stack: Stack, unique_name: Callable[[str], str]) -> None:
    admin = stack.admin(Engine.POSTGRES)
    with postgres.connect(stack.postgres_primary.port, admin) as connection:
        settings = {
            row["name"]: row["setting"]
            for row in connection.execute("SELECT name, setting FROM pg_settings").fetchall()
        }
        name = unique_name("t")
        connection.execute(f"CREATE TABLE {name} AS SELECT 1 AS id")
    assert settings["wal_level"] == "logical"
    assert settings["synchronized_standby_slots"] == postgres.STANDBY_SLOT

    def replicated() -> bool:
        with postgres.connect(stack.postgres_standby.port, admin) as connection:
            row = connection.execute("SELECT to_regclass(%s) AS found", (name,)).fetchone()
            return bool(row and row["found"])

    assert_eventually(replicated, "the table on the standby")


def test_a_dropped_database_whose_slot_is_being_copied_leaves_the_standby_alive(
    stack: Stack, unique_name: Callable[[str], str]
) -> None:
    admin, name = stack.admin(Engine.POSTGRES), unique_name("t")
    primary, standby = stack.postgres_primary.port, stack.postgres_standby.port
    with postgres.connect(primary, admin) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    with postgres.connect(primary, admin, database=name) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, false, true)", (name,))

    def copied() -> bool:
        postgres.reload(standby, admin)
        return postgres_servers.slots_of(standby, admin, name) == (name,)

    assert_eventually(copied, "the slot on the standby")
    drop_postgres_database(stack, name)
    assert postgres_servers.slots_of(primary, admin, name) == ()
    position = postgres_servers.flushed(primary, admin)
    assert_eventually(
        lambda: postgres_servers.behind(standby, admin, position) is None, "the standby has replayed the drop"
    )
    with postgres.connect(standby, admin) as connection:
        assert connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None


@EACH_BINLOG
def test_source_users_of_binlogs_read_and_cannot_write(
    engine: Engine, stack: Stack, unique_name: Callable[[str], str]
) -> None:
    name, connect = unique_name("t"), mysql.connect if engine is Engine.MYSQL else mariadb.connect
    with connect(stack.primary(engine).port, stack.admin(engine)) as connection:
        connection.cursor().execute(f"CREATE DATABASE {name}")
        connection.cursor().execute(f"CREATE TABLE {name}.a AS SELECT 1 AS id")
    source = read_login(stack.secrets_dir, engine.value)
    with connect(stack.primary(engine).port, source) as connection, connection.cursor() as cursor:
        assert cursor.execute(f"SELECT * FROM {name}.a") == 1
        with pytest.raises(pymysql.err.OperationalError, match="denied"):
            cursor.execute(f"INSERT INTO {name}.a VALUES (2)")


def test_source_users_read_and_cannot_write(stack: Stack, unique_name: Callable[[str], str]) -> None:
    name = unique_name("t")
    with postgres.connect(stack.postgres_primary.port, stack.admin(Engine.POSTGRES)) as connection:
        connection.execute(f"CREATE TABLE {name} AS SELECT 1 AS id")
    source = read_login(stack.secrets_dir, "postgres")
    with postgres.connect(stack.postgres_primary.port, source) as connection:
        assert connection.execute(f"SELECT * FROM {name}").fetchall() == [{"id": 1}]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"INSERT INTO {name} VALUES (2)")


def test_mariadb_root_without_password_is_gone(stack: Stack) -> None:
    for address in (stack.mariadb_primary, stack.mariadb_replica):
        assert "denied" in (mariadb.problem(address.port, mariadb.EMPTY_ROOT) or "")


@pytest.mark.mysql
def test_mysql_root_without_password_is_gone(stack: Stack) -> None:
    for address in (stack.primary(Engine.MYSQL), stack.replica(Engine.MYSQL)):
        assert "denied" in (mysql.problem(address.port, mariadb.EMPTY_ROOT) or "")


@EACH_ENGINE
def test_debezium_captures_by_references_to_leader_file_and_secrets(
    stack: Stack, unique_name: Callable[[str], str], engine: Engine
) -> None:
    captured = Harness(stack=stack, engine=engine, name=unique_name(engine.value))
    captured.create()
    captured.insert(captured.leader(stack), 1, 5)
    events = captured.events(5)
    assert {key for key, _ in events} == {1, 2, 3, 4, 5}
    assert {worker for _, worker in events} <= set(stack.workers)
    httpx.delete(f"{stack.connect_urls[0]}/connectors/{captured.name}", timeout=90)


def test_an_agent_stands_beside_each_worker(stack: Stack) -> None:
    for number, worker in enumerate(stack.workers):
        pid = stack.pid(f"agent-w{number}")
        assert workers.agent_problem(stack.zookeeper.port, worker, pid) is None
        assert "still registered" in (workers.agent_problem(stack.zookeeper.port, worker, pid + 1) or "")


def test_killed_agent_comes_back(stack: Stack) -> None:
    stack.kill("agent-w0")
    stack.start("agent-w0")
    assert workers.agent_problem(stack.zookeeper.port, "w0", stack.pid("agent-w0")) is None


def test_state_file_and_output_hold_no_secret(stack: Stack) -> None:
    state = (stack.directory / "stack.json").read_text()
    shown = CliRunner().invoke(main, ["stack", "status", "--json", "--dir", str(stack.directory)]).output
    configured = "".join(path.read_text(errors="replace") for path in stack.directory.glob("workers/*/*.properties"))
    for name in ("mariadb", "mariadb-admin", "mariadb-replication", "postgres", "postgres-admin"):
        password = read_login(stack.secrets_dir, name).password
        assert password not in state + shown + configured


def test_up_on_a_running_stack_changes_nothing(stack: Stack) -> None:
    before = {name: one.pid for name, one in stack.running().items()}
    parts = StackSpec(
        directory=stack.directory, workers=len(stack.workers), mysql=bool(stack.mysql), secure=stack.secure
    )
    again = up(parts)
    assert again == stack
    assert {name: one.pid for name, one in stack.running().items()} == before


def test_status_as_json_and_as_table(stack: Stack) -> None:
    runner = CliRunner()
    result = runner.invoke(main, ["stack", "status", "--json", "--dir", str(stack.directory)])
    assert result.exit_code == 0
    services = {one["name"]: one for one in json.loads(result.output)["services"]}
    assert services["kafka"]["ports"]["kafka"] == stack.kafka.port
    assert services["mariadb-1"]["role"] == "primary"
    table = runner.invoke(main, ["stack", "status", "--dir", str(stack.directory)]).output
    assert all(name in table for name in services)


def test_logs_prints_the_last_lines(stack: Stack) -> None:
    runner = CliRunner()
    result = runner.invoke(main, ["stack", "logs", "w0", "-n", "3", "--dir", str(stack.directory)])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) == 3
    unknown = runner.invoke(main, ["stack", "logs", "w99", "--dir", str(stack.directory)])
    assert unknown.exit_code == 1
    assert "Use one of " in unknown.output


def test_killed_worker_comes_back_on_its_ports(stack: Stack) -> None:
    name = stack.workers[-1]
    old = stack.pid(name)
    stack.kill(name)
    assert name not in stack.running()
    stack.start(name)
    assert stack.pid(name) != old
    assert httpx.get(f"http://{stack.address(name, 'connect')}/health").status_code == 200


@pytest.mark.parametrize("index", [0, 1])
@EACH_ENGINE
def test_killed_database_comes_back_and_replicates(stack: Stack, engine: Engine, index: int) -> None:
    server, login = stack.servers(engine)[index], stack.admin(engine)
    stack.kill(server)
    stack.start(server)
    problem, asked = {
        Engine.MARIADB: (mariadb.replication_problem, stack.replica),
        Engine.MYSQL: (mysql.replication_problem, stack.replica),
        Engine.POSTGRES: (postgres.replication_problem, stack.primary),
    }[engine]
    assert_eventually(lambda: problem(asked(engine).port, login) is None, "replication")

"""Stacks of the tests' own: starts that fail, crashes, promotions, the end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from cdc_platform.errors import StackError
from cdc_platform.local import mariadb, mysql, postgres, workers
from cdc_platform.local.lifecycle import down, up
from cdc_platform.local.stack import Stack, StackSpec
from cdc_platform.model.topology import Engine
from tests.conftest import make_stack_dir, own_stack
from tests.local import mariadb_servers, mysql_servers, postgres_servers, promotion
from tests.local.harness import Harness
from tests.waiting import assert_eventually

pytestmark = pytest.mark.stack


@pytest.fixture
def directory() -> Iterator[Path]:
    made = make_stack_dir()
    yield made
    if made.exists() and any(made.iterdir()):
        down(made, purge=True)
    shutil.rmtree(made, ignore_errors=True)


def processes_of(directory: Path) -> list[psutil.Process]:
    """All processes that work below the directory or name it."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        told = " ".join(process.info["cmdline"] or []) + (process.info["cwd"] or "")
        if str(directory) in told and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def test_port_taken_is_refused_and_nothing_is_left_running(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} is taken"):
            up(StackSpec(directory=directory, ports={"kafka.kafka": port}))
    assert processes_of(directory) == []
    down(directory, purge=True)
    assert not directory.exists()


def test_service_that_dies_in_start_shows_its_log_and_nothing_is_left_running(directory: Path) -> None:
    impossible = {"listeners": "gopher://127.0.0.1:70"}
    spec = StackSpec(directory=directory, workers=1, mariadb=False, postgres=False, worker_properties=impossible)
    with pytest.raises(StackError, match="w0 ended with code") as caught:
        up(spec)
    assert "Listener protocol must be" in str(caught.value)
    assert caught.value.where == str(directory / "logs" / "w0.log")
    assert processes_of(directory) == []


def test_crash_leaves_no_orphans_and_the_next_up_recovers(directory: Path) -> None:
    spec = StackSpec(directory=directory, workers=1, mariadb=False)
    stack = up(spec)
    admin = AdminClient({"bootstrap.servers": str(stack.kafka)})
    admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(30)
    with postgres.connect(stack.postgres_primary.port, stack.admin(Engine.POSTGRES)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS id")
    os.kill(psutil.Process(stack.pid("kafka")).ppid(), signal.SIGKILL)
    assert_eventually(lambda: processes_of(directory) == [], "all processes gone")
    assert {one.state for one in stack.status()} == {"absent"}
    again = up(spec)
    assert again.ports == stack.ports
    assert "kept" in AdminClient({"bootstrap.servers": str(again.kafka)}).list_topics(timeout=10).topics
    with postgres.connect(again.postgres_primary.port, again.admin(Engine.POSTGRES)) as connection:
        assert connection.execute("SELECT id FROM kept").fetchall() == [{"id": 1}]


@pytest.fixture(scope="module")
def bare() -> Iterator[Stack]:
    """Kafka, ZooKeeper and one worker."""
    with own_stack(workers=1, mariadb=False, postgres=False) as stack:
        yield stack


def test_other_parts_than_those_that_run_are_refused(bare: Stack) -> None:
    with pytest.raises(StackError, match="other parts"):
        up(StackSpec(directory=bare.directory, workers=2, mariadb=False, postgres=False))
    with pytest.raises(StackError, match="started without mariadb"):
        _ = Stack.load(bare.directory).mariadb_primary


def test_two_stacks_do_not_collide(bare: Stack, stack: Stack) -> None:
    assert not set(bare.ports.values()) & set(stack.ports.values())
    for one in (bare, stack):
        assert {found.state for found in one.status()} == {"running"}
    brokers = [AdminClient(dict(one.settings().kafka)).list_topics(timeout=30).cluster_id for one in (bare, stack)]
    assert brokers[0] != brokers[1]


def test_broker_killed_and_started_again(bare: Stack) -> None:
    bare.kill("kafka")
    bare.start("kafka")
    assert_eventually(
        lambda: workers.worker_problem(bare.address("w0", "connect").port) is None, "a healthy worker", 120.0
    )


def test_down_ends_everything_and_purge_leaves_nothing(bare: Stack) -> None:
    down(bare.directory)
    assert processes_of(bare.directory) == []
    assert {one.state for one in bare.status()} == {"absent"}
    down(bare.directory, purge=True)
    assert not bare.directory.exists()


@pytest.fixture(scope="module")
def pair_directory() -> Iterator[Path]:
    with own_stack(workers=1) as stack:
        yield stack.directory


@pytest.fixture
def pair(pair_directory: Path) -> Stack:
    """A stack whose servers change roles: each test has both of each engine, whoever is the primary."""
    stack = Stack.load(pair_directory)
    promotion.rejoin(stack)
    return stack


def has_replayed(cursor: Any, database: str) -> bool:
    """True once a server that is made again has the table that was made before: it begins with nothing."""
    asked = "SELECT 1 FROM information_schema.tables WHERE table_schema = %s AND table_name = 'items'"
    cursor.execute(asked, (database,))
    return cursor.fetchone() is not None


@pytest.mark.parametrize("killed", [False, True], ids=["planned", "primary_killed"])
def test_mariadb_promotion_loses_nothing_and_the_connector_goes_on(pair: Stack, killed: bool) -> None:
    stack = pair
    captured = Harness(stack=stack, engine=Engine.MARIADB, name=f"m{int(killed)}")
    captured.create()
    captured.insert(captured.leader(stack), 1, 50)
    captured.events(50)
    if killed:
        port, login = stack.mariadb_replica.port, stack.admin(Engine.MARIADB)
        with mariadb_servers.writes_locked(stack.mariadb_primary.port, login) as position:
            assert_eventually(lambda: mariadb_servers.behind(port, login, position) is None, "the replica caught up")
        stack.kill(stack.mariadb[0])
    promoted = promotion.promote_mariadb_replica(stack)
    assert promoted.mariadb_primary == stack.mariadb_replica
    assert Stack.load(stack.directory) == promoted
    captured.point(promoted.mariadb_primary, 2)
    captured.restart_task()
    captured.insert(promoted.mariadb_primary, 51, 50)
    # At least once: what was not yet committed is sent again.
    assert {key for key, _ in captured.events(100)} == set(range(1, 101))
    promotion.rejoin(promoted)
    login = stack.admin(Engine.MARIADB)
    with mariadb.connect(promoted.mariadb_replica.port, login) as connection:
        cursor = connection.cursor()

        def all_there() -> bool:
            if not has_replayed(cursor, captured.name):
                return False
            cursor.execute(f"SELECT COUNT(*) AS n, @@server_id AS id FROM {captured.name}.items")
            return bool(cursor.fetchone() == {"n": 100, "id": mariadb.REPLICA_ID})

        assert_eventually(all_there, "the old primary has all rows as a replica")


def test_mariadb_old_primary_comes_back_renumbered_and_read_only(pair: Stack) -> None:
    stack = pair
    promoted = promotion.promote_mariadb_replica(stack)
    promoted.start(promoted.mariadb[1])
    port, login = promoted.mariadb_replica.port, stack.admin(Engine.MARIADB)
    with mariadb.connect(port, login) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@server_id AS id, @@read_only AS ro")
        assert cursor.fetchone() == {"id": mariadb.REPLICA_ID, "ro": 1}
    promoted.kill(promoted.mariadb[1])


@pytest.fixture(scope="module")
def mysql_pair_directory() -> Iterator[Path]:
    with own_stack(workers=1, mariadb=False, postgres=False, mysql=True) as stack:
        yield stack.directory


@pytest.fixture
def mysql_pair(mysql_pair_directory: Path) -> Stack:
    """As `pair`, of MySQL's servers alone."""
    stack = Stack.load(mysql_pair_directory)
    promotion.rejoin(stack)
    return stack


@pytest.mark.slow
@pytest.mark.mysql
@pytest.mark.parametrize("killed", [False, True], ids=["planned", "primary_killed"])
def test_mysql_promotion_loses_nothing_and_the_connector_goes_on(mysql_pair: Stack, killed: bool) -> None:
    stack = mysql_pair
    captured = Harness(stack=stack, engine=Engine.MYSQL, name=f"y{int(killed)}")
    captured.create()
    captured.insert(captured.leader(stack), 1, 50)
    captured.events(50)
    port, login = stack.replica(Engine.MYSQL).port, stack.admin(Engine.MYSQL)
    if killed:
        with mysql_servers.writes_locked(stack.primary(Engine.MYSQL).port, login) as position:
            assert_eventually(lambda: mysql_servers.behind(port, login, position) is None, "the replica caught up")
        stack.kill(stack.mysql[0])
    promoted = promotion.promote_mysql_replica(stack)
    assert promoted.primary(Engine.MYSQL) == stack.replica(Engine.MYSQL)
    assert Stack.load(stack.directory) == promoted
    captured.point(promoted.primary(Engine.MYSQL), 2)
    captured.restart_task()
    captured.insert(promoted.primary(Engine.MYSQL), 51, 50)
    assert {key for key, _ in captured.events(100)} == set(range(1, 101))
    promotion.rejoin(promoted)
    with mysql.connect(promoted.replica(Engine.MYSQL).port, login) as connection:
        cursor = connection.cursor()

        def all_there() -> bool:
            if not has_replayed(cursor, captured.name):
                return False
            cursor.execute(f"SELECT COUNT(*) AS n, @@super_read_only AS ro FROM {captured.name}.items")
            return bool(cursor.fetchone() == {"n": 100, "ro": 1})

        assert_eventually(all_there, "the old primary has all rows, as a replica that takes no writes")


@pytest.mark.slow
@pytest.mark.mysql
def test_mysql_old_primary_comes_back_renumbered_and_read_only(mysql_pair: Stack) -> None:
    stack, login = mysql_pair, mysql_pair.admin(Engine.MYSQL)
    promoted = promotion.promote_mysql_replica(stack)
    promotion.rejoin(promoted)
    numbers = []
    for address, closed in ((promoted.primary(Engine.MYSQL), 0), (promoted.replica(Engine.MYSQL), 1)):
        with mysql.connect(address.port, login) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT @@server_id AS id, @@super_read_only AS ro")
            row = cursor.fetchone()
            assert row["ro"] == closed
            numbers.append(row["id"])
    assert numbers[1] > numbers[0]


@pytest.mark.slow
@pytest.mark.mysql
def test_mysql_servers_stay_below_250_mb(mysql_pair: Stack) -> None:
    sizes = {one.name: (one.rss or 0) / 1024**2 for one in mysql_pair.status() if one.name in mysql.SERVERS}
    assert len(sizes) == 2 and all(0 < size < 250 for size in sizes.values()), sizes


@pytest.mark.parametrize("killed", [False, True], ids=["planned", "primary_killed"])
def test_postgres_promotion_loses_nothing_and_the_connector_goes_on(pair: Stack, killed: bool) -> None:
    stack = pair
    captured = Harness(stack=stack, engine=Engine.POSTGRES, name=f"p{int(killed)}")
    captured.create()
    leader, login = captured.leader(stack), stack.admin(Engine.POSTGRES)
    captured.insert(leader, 1, 50)
    written = 50

    def slots_ready() -> bool:
        # A slot becomes ready on the standby only while the primary is written to.
        nonlocal written
        written += 1
        captured.insert(leader, written, 1)
        postgres_servers.log_snapshot(leader.port, login)
        wanted = postgres_servers.failover_slots(leader.port, login)
        return captured.name in wanted and not postgres_servers.slots_not_ready(
            stack.postgres_standby.port, login, wanted
        )

    assert_eventually(slots_ready, "failover slots ready on the standby", 120.0)
    if killed:
        position = postgres_servers.flushed(leader.port, login)
        behind = partial(postgres_servers.behind, stack.postgres_standby.port, login, position)
        assert_eventually(lambda: behind() is None, "the standby caught up")
        stack.kill(stack.postgres[0])
    promoted = promotion.promote_postgres_standby(stack)
    assert promoted.postgres_primary == stack.postgres_standby
    captured.point(promoted.postgres_primary, 2)
    captured.restart_task()
    captured.insert(promoted.postgres_primary, written + 1, 50)
    assert {key for key, _ in captured.events(written + 50)} == set(range(1, written + 51))
    promotion.rejoin(promoted)
    with postgres.connect(promoted.postgres_standby.port, login, database=captured.name) as connection:
        row = connection.execute("SELECT pg_is_in_recovery() AS standby").fetchone()
        assert row == {"standby": True}
    captured.remove(promoted.postgres_primary)


def test_a_promoted_stack_keeps_its_roles_over_a_restart(pair: Stack) -> None:
    promoted = promotion.promote_mariadb_replica(pair)
    down(pair.directory)
    again = up(StackSpec(directory=pair.directory, workers=1, owned=True))
    assert again.mariadb == promoted.mariadb
    assert {one.state for one in again.status()} == {"running"}
    login = again.admin(Engine.MARIADB)
    assert mariadb.replication_problem(again.mariadb_replica.port, login) is None


def test_replica_that_is_down_is_not_promoted(pair: Stack) -> None:
    stack = pair
    stack.kill(stack.mariadb[1])
    with pytest.raises(StackError, match=f"{stack.mariadb[1]} does not run"):
        promotion.promote_mariadb_replica(stack)
    assert stack.mariadb[0] in stack.running()
    stack.start(stack.mariadb[1])

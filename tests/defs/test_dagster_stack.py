"""Sensor and job on the real stack: MariaDB, Debezium, Kafka, ZooKeeper."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
import pytest

from cdc_platform.clients.kafka.admin import KafkaAdmin
from cdc_platform.connectors.leader_files import LeaderFile, file_name, render
from cdc_platform.defs import CdcPlatformResource
from cdc_platform.defs.live_passes import TAG_LOCK
from cdc_platform.defs.names import Names
from cdc_platform.defs.reconcile_job import OP
from cdc_platform.defs.run_kinds import RunOf
from cdc_platform.defs.translator import platform_key
from cdc_platform.errors import Unavailable
from cdc_platform.local.demo import sources
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import BootstrapMode, Dataset, Engine, Shard, Table, TopicSpec, Topology
from cdc_platform.settings import CONFIG_ENV, Settings
from cdc_platform.wiring import open_platform
from tests.defs.code_location import CodeLocation
from tests.settings_file import write_settings
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

TABLE = "CREATE TABLE notes (id BIGINT NOT NULL PRIMARY KEY, text VARCHAR(80) NULL);"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Captured:
    """A platform of the test's own on the shared stack: one dataset, two shards."""

    stack: Stack
    settings: Settings
    settings_file: Path
    dataset: Dataset
    shards: tuple[Shard, ...]
    home: Path

    @property
    def table(self) -> dg.AssetKey:
        return dg.AssetKey([self.settings.platform, self.dataset.name, "notes"])

    @property
    def shards_key(self) -> dg.AssetKey:
        return dg.AssetKey([self.settings.platform, self.dataset.name, "shards"])

    def insert(self, *rows: int) -> None:
        """Rows into each shard."""
        for shard in self.shards:
            login = self.stack.admin(Engine.MARIADB)
            with sources.mariadb(self.stack.mariadb_primary, login, shard.database) as cursor:
                for row in rows:
                    cursor.execute("INSERT INTO notes VALUES (%s, %s)", (row, "hello"))


@pytest.fixture
def captured(stack: Stack, settings: Settings, unique_name: Callable[[str], str], tmp_path: Path) -> Iterator[Captured]:
    name = unique_name("notes")
    settings = replace(settings, platform=name, cache_dir=str(tmp_path / "cache"))
    file = write_settings(settings, tmp_path / "cdc-platform.toml")
    dataset = Dataset(
        name=name,
        engine=Engine.MARIADB,
        tables=(Table(name="notes"),),
        clusters=(stack.cluster().name,),
        credentials=stack.credentials(Engine.MARIADB, name),
        topics=TopicSpec(partitions=2, replication=1),
        bootstrap=BootstrapMode.SNAPSHOT,
    )
    shards = tuple(
        Shard(dataset=name, id=f"{n:05d}", leader=stack.mariadb_primary, database=f"{name}_{n:05d}") for n in range(2)
    )
    sources.create_mariadb(
        stack.mariadb_primary, stack.admin(Engine.MARIADB), [shard.database for shard in shards], TABLE
    )
    for worker in stack.workers:
        leaders = stack.directory / "workers" / worker / "leaders"
        for shard in shards:
            text = render(LeaderFile(leader=shard.leader, generation=shard.generation))
            (leaders / file_name(shard.name)).write_text(text)
    cluster = stack.cluster()
    with open_platform(settings) as platform:
        platform.topology.import_topology(
            Topology(datasets={name: dataset}, shards={name: shards}, clusters={cluster.name: cluster})
        )
        home = tmp_path / "dagster_home"
        home.mkdir()
        (home / "dagster.yaml").write_text((ROOT / "dagster_home/dagster.yaml").read_text())
        yield Captured(stack=stack, settings=settings, settings_file=file, dataset=dataset, shards=shards, home=home)
        connect = platform.connect(cluster)

        def gone() -> bool:
            try:
                for shard in shards:
                    connect.delete(shard.name)
            except Unavailable:
                return False
            return True

        assert_eventually(gone, "the connectors are deleted", 120)
        admin = KafkaAdmin(settings.kafka)
        admin.delete_topics([topic for topic in admin.topics() if name in topic])


@pytest.fixture
def on_stack(captured: Captured) -> Iterator[CodeLocation]:
    with dg.DagsterInstance.from_config(str(captured.home)) as instance:
        yield CodeLocation(CdcPlatformResource(config_file=str(captured.settings_file)), instance)


def settle(control: CodeLocation) -> None:
    """Ticks and runs until both shards are up and nothing is asked for: a connector may need a moment."""

    def quiet() -> bool:
        result = control.tick()
        if result.run_requests:
            assert control.run(result.run_requests[0].run_config).success
        return "2 of 2 shards up" in str(result.skip_reason)

    assert_eventually(quiet, "both shards are up, and nothing is asked for any more")


def test_a_tick_and_its_run_capture_real_tables_and_show_them(
    on_stack: CodeLocation, captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc_platform.defs.pass_events.MIN_INTERVAL", 0.0)
    captured.insert(1, 2, 3)
    run = on_stack.pass_()
    assert run.success
    created = [m for m in on_stack.messages(run) if m.startswith("Create connector") and m.endswith(": done.")]
    assert len(created) == 2
    settle(on_stack)
    assert on_stack.materialized(captured.shards_key) == ["00000", "00001"]
    axis = f"{captured.settings.platform}_{captured.dataset.name}_shards"
    assert set(on_stack.instance.get_dynamic_partitions(axis)) == {"00000", "00001"}

    topic = captured.dataset.topic(captured.dataset.tables[0])
    admin = KafkaAdmin(captured.settings.kafka)
    assert_eventually(lambda: admin.extents([topic])[topic].end >= 6, "six snapshot events are in the topic")
    captured.insert(4)
    assert_eventually(lambda: admin.extents([topic])[topic].end >= 8, "two streamed events are in the topic")
    on_stack.cursor = None
    on_stack.pass_()
    page = on_stack.instance.get_latest_materialization_event(captured.table)
    assert page is not None and page.asset_materialization is not None
    seen = page.asset_materialization
    assert (seen.metadata["shards_up"].value, seen.metadata["shards"].value) == (2, 2)
    assert seen.metadata["events"].value == 8
    columns = seen.metadata["dagster/column_schema"]
    assert isinstance(columns, dg.TableSchemaMetadataValue)
    assert [column.name for column in columns.schema.columns] == ["id", "text"]
    newest = seen.metadata["newest_event"]
    assert isinstance(newest, dg.TimestampMetadataValue)
    assert abs(time.time() - newest.value) < 120
    whole = on_stack.observation(platform_key(captured.settings.platform))
    assert whole.metadata["shards_up"].value == 2


def test_a_connector_deleted_by_rest_is_put_right_by_the_next_tick(on_stack: CodeLocation, captured: Captured) -> None:
    on_stack.pass_()
    settle(on_stack)
    name = captured.shards[0].name
    with open_platform(captured.settings) as platform:
        connect = platform.connect(captured.stack.cluster())
        connect.delete(name)
        assert_eventually(lambda: name not in connect.connectors(), "the connector is gone")
        run = on_stack.pass_()
        assert f"Create connector {name} in cluster {captured.stack.cluster().name}: done." in on_stack.messages(run)
        assert_eventually(lambda: name in connect.connectors() and connect.connectors()[name].running, "it runs again")


def _says_it_holds_the_lock(instance: dg.DagsterInstance) -> bool:
    return any(TAG_LOCK in run.tags for run in instance.get_runs())


def test_a_pass_killed_with_9_blocks_nothing(on_stack: CodeLocation, captured: Captured) -> None:
    """The run's process dies while it holds the lock; its run is failed, and the next pass goes on."""
    env = {**os.environ, "DAGSTER_HOME": str(captured.home), CONFIG_ENV: str(captured.settings_file)}
    command = [str(Path(sys.executable).parent / "dagster"), "job", "execute", "-m", "cdc_platform.definitions"]
    with (
        (captured.home / "run.log").open("wb") as log,
        open_platform(captured.settings) as platform,
        subprocess.Popen(
            [*command, "-j", Names(captured.settings.platform).job(RunOf.RECONCILE)],
            env=env,
            cwd=captured.home,
            stdout=log,
            stderr=log,
        ) as process,
    ):
        assert_eventually(
            lambda: process.poll() is not None or platform.topology.lock_owner() is not None, "the lock is held"
        )
        assert_eventually(
            lambda: process.poll() is not None or _says_it_holds_the_lock(on_stack.instance), "it says so"
        )
        process.send_signal(signal.SIGKILL)
        process.wait()
    (left,) = on_stack.instance.get_runs()
    assert left.status is dg.DagsterRunStatus.STARTED, (captured.home / "run.log").read_text()[-2000:]

    killed = time.monotonic()
    # The worst moment for a tick is right now: the next one comes a minute later. So this one waits.
    result = on_stack.tick()
    asked = time.monotonic() - killed
    assert result.run_requests, result.skip_reason
    # 15 s until ZooKeeper frees the lock, and what a loaded machine adds.
    assert asked < 30
    ended = on_stack.instance.get_run_by_id(left.run_id)
    assert ended is not None and ended.status is dg.DagsterRunStatus.FAILURE
    assert any("its process died" in event.message for event in on_stack.instance.all_logs(left.run_id))
    run = on_stack.run(result.run_requests[0].run_config)
    assert run.success
    assert time.monotonic() - killed < 90
    assert any("Pass " in message for message in on_stack.messages(run))
    settle(on_stack)
    assert on_stack.materialized(captured.shards_key) == ["00000", "00001"]


def test_the_code_location_loads_in_a_process_of_its_own(captured: Captured) -> None:
    env = {**os.environ, "DAGSTER_HOME": str(captured.home), CONFIG_ENV: str(captured.settings_file)}
    command = [
        str(Path(sys.executable).parent / "dagster"),
        "definitions",
        "validate",
        "-w",
        str(ROOT / "workspace.yaml"),
    ]
    done = subprocess.run(command, env=env, cwd=captured.home, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(Path(captured.settings.cache_dir).rglob("*.json")), "the list of tables is kept"


def test_a_person_may_delete_a_whole_dataset_from_the_launchpad(on_stack: CodeLocation, captured: Captured) -> None:
    on_stack.pass_()
    settle(on_stack)
    with open_platform(captured.settings) as platform:
        platform.topology.delete_dataset(captured.dataset.name)
        assert on_stack.run({"ops": {on_stack.names.of(OP): {"config": {"allow_deletes": 2}}}}).success
        left = platform.connect(captured.stack.cluster()).connectors()
        assert not [name for name in left if name.startswith(captured.dataset.name)]


def test_the_instance_on_postgres_takes_runs_events_and_partitions(
    captured: Captured, monkeypatch: pytest.MonkeyPatch, unique_name: Callable[[str], str]
) -> None:
    """`dagster_home/postgres.yaml` on a real server: a tick, a run, and what they leave."""
    server, login, database = captured.stack.postgres_primary, captured.stack.admin(Engine.POSTGRES), unique_name("dag")
    with sources.postgres(server, login) as cursor:
        cursor.execute(f"CREATE DATABASE {database}")
    for name, value in {
        "HOST": server.host,
        "PORT": str(server.port),
        "USER": login.user,
        "PASSWORD": login.password,
        "DB": database,
    }.items():
        monkeypatch.setenv(f"DAGSTER_POSTGRES_{name}", value)
    (captured.home / "dagster.yaml").write_text((ROOT / "dagster_home/postgres.yaml").read_text())
    with dg.DagsterInstance.from_config(str(captured.home)) as instance:
        assert "Postgres" in str(instance.info_dict())
        control = CodeLocation(CdcPlatformResource(config_file=str(captured.settings_file)), instance)
        assert control.pass_().success
        settle(control)
        assert control.materialized(captured.shards_key) == ["00000", "00001"]
        assert control.observation(captured.shards_key).metadata["shards"].value == 2
    with sources.postgres(server, login) as cursor:
        cursor.execute(f"DROP DATABASE {database} WITH (FORCE)")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.field("DG-LOGS", Engine.MARIADB, Engine.MYSQL, Engine.POSTGRES)
@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_runs_end_where_dagster_keeps_what_all_loggers_say(captured: Captured, level: str) -> None:
    """On SQLite each line of a logger is a write of the process that says it, and threads of ours say some.

    What Dagster keeps does not depend on the engine of the shards.
    """
    with (captured.home / "dagster.yaml").open("a") as file:
        file.write(f"\npython_logs:\n  managed_python_loggers: [root]\n  python_log_level: {level}\n")
    env = {**os.environ, "DAGSTER_HOME": str(captured.home), CONFIG_ENV: str(captured.settings_file)}
    command = [str(Path(sys.executable).parent / "dagster"), "job", "execute", "-m", "cdc_platform.definitions", "-j"]
    job = Names(captured.settings.platform).job(RunOf.RECONCILE)
    for _ in range(2):
        done = subprocess.run(
            [*command, job], env=env, cwd=captured.home, capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with dg.DagsterInstance.from_config(str(captured.home)) as instance, open_platform(captured.settings) as platform:
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}
        assert platform.topology.lock_owner() is None
        (run, *_) = instance.get_runs()
        assert len(instance.all_logs(run.run_id)) > 10

"""A secure stack with one dataset of each engine on it, captured through the command line."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cdc_platform.cli.main import main
from cdc_platform.local.demo import sources
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import BootstrapMode, Dataset, Engine, Shard, Table, TopicSpec, Topology
from cdc_platform.wiring import topology_store
from tests.conftest import own_stack
from tests.security import acl_lists
from tests.waiting import assert_eventually

SECURE_STACK_ENV = "CDC_TEST_SECURE_STACK"
TABLE = "CREATE TABLE notes (id BIGINT NOT NULL PRIMARY KEY, text VARCHAR(80) NULL);"
ROWS = 50


@dataclass(frozen=True, kw_only=True)
class SecurePlatform:
    """The platform on a secure stack. `outputs` is everything that its commands printed."""

    stack: Stack
    shards: tuple[tuple[Dataset, Shard], ...]
    home: Path
    outputs: list[str] = field(default_factory=list)

    def cli(self, *arguments: str) -> Result:
        env = {
            "CDC_PLATFORM_CONFIG": str(self.stack.settings_file),
            "CDC_PLATFORM_AUDIT_DIR": str(self.home / "audit"),
            "COLUMNS": "300",
        }
        result = CliRunner().invoke(main, ["-v", *arguments], env=env, catch_exceptions=False)
        self.outputs.append(result.output + result.stderr)
        return result

    def write(self, dataset: Dataset, shard: Shard, *statements: str) -> None:
        login = self.stack.admin(dataset.engine)
        if dataset.engine is Engine.POSTGRES:
            with sources.postgres(self.stack.postgres_primary, login, shard.database) as cursor:
                for statement in statements:
                    cursor.execute(statement)
        else:
            with sources.mariadb(self.stack.mariadb_primary, login, shard.database) as other:
                for statement in statements:
                    other.execute(statement)

    def assert_eventually(self, holds: Callable[[], bool], what: str, seconds: float = 120) -> None:
        try:
            assert_eventually(holds, what, seconds, pause=0.5)
        except AssertionError:
            print(self.outputs[-1])
            raise

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.cli("status", "--json").stdout)
        return found


@pytest.fixture(scope="package")
def secure_stack() -> Iterator[Stack]:
    """A stack of this package's own, under the ready ACL lists; CDC_TEST_SECURE_STACK=DIR uses a running one."""
    given = os.environ.get(SECURE_STACK_ENV)
    if given:
        running = Stack.load(Path(given))
        acl_lists.apply(running)
        yield running
        return
    with own_stack(workers=2, secure=True) as started:
        acl_lists.apply(started)
        yield started


@pytest.fixture(scope="package")
def secure(secure_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecurePlatform]:
    stack, own = secure_stack, f"s{time.time_ns() // 1_000_000_000 % 10**7}"
    pairs = []
    for engine in (Engine.MARIADB, Engine.POSTGRES):
        name = f"{own}_{engine.value}"
        dataset = Dataset(
            name=name,
            engine=engine,
            tables=(Table(name="notes"),),
            clusters=(stack.cluster().name,),
            credentials=stack.credentials(engine, name),
            topics=TopicSpec(partitions=2, replication=1),
            bootstrap=BootstrapMode.SNAPSHOT,
        )
        leader = stack.primary(engine)
        shard = Shard(dataset=name, id="00000", leader=leader, database=f"{name}_0")
        login = stack.admin(engine)
        if engine is Engine.POSTGRES:
            with sources.postgres(leader, login, "postgres") as cursor:
                cursor.execute(f"CREATE DATABASE {shard.database} OWNER cdc")
            with sources.postgres(leader, login, shard.database) as cursor:
                for statement in (TABLE, "ALTER TABLE notes REPLICA IDENTITY FULL", "ALTER TABLE notes OWNER TO cdc"):
                    cursor.execute(statement)
        else:
            sources.create_mariadb(leader, login, [shard.database], TABLE)
        pairs.append((dataset, shard))
    made = SecurePlatform(stack=stack, shards=tuple(pairs), home=tmp_path_factory.mktemp("secure"))
    for dataset, shard in pairs:
        values = ", ".join(f"({number}, 'row {number}')" for number in range(ROWS))
        made.write(dataset, shard, f"INSERT INTO notes VALUES {values}")
    store = topology_store(stack.settings())
    cluster = stack.cluster()
    store.import_topology(
        Topology(
            clusters={cluster.name: cluster},
            datasets={dataset.name: dataset for dataset, _ in pairs},
            shards={dataset.name: (shard,) for dataset, shard in pairs},
        )
    )
    yield made
    store.close()

"""A dataset whose user has no right but the documented ones."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.clients.sources.open_source import open_source
from cdc_platform.connectors.config import desired_config
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import BootstrapMode, Credentials, Dataset, Engine, Shard, Table, TopicSpec
from tests.connectors.harness import Harness as ConnectorHarness


class Harness:
    """A dataset with a user of its own, on the shared stack."""

    def __init__(self, stack: Stack, engine: Engine, tmp_path: Path) -> None:
        own = f"g{secrets.token_hex(3)}"
        self.stack, self.engine, self.user, self.database = stack, engine, f"{own}_cdc", f"{own}_0"
        self.password = secrets.token_urlsafe(12)
        # Where the worker may read secrets.
        self.file = stack.dataset_secrets_dir / own / "source.properties"
        self.file.parent.mkdir(parents=True)
        self.file.touch(mode=0o600)
        self.file.write_text(f"user={self.user}\npassword={self.password}\n")
        self.settings = replace(stack.settings(), platform=own, heartbeat_topic=f"{own}.heartbeat")
        postgres = engine is Engine.POSTGRES
        tables = ("orders", "order_items") if postgres else ("pins", "boards")
        reference = f"${{file:{self.file}:"
        self.dataset = Dataset(
            name=own,
            engine=engine,
            tables=tuple(Table(name=name) for name in tables),
            clusters=(stack.cluster().name,),
            credentials=Credentials(user=f"{reference}user}}", password=f"{reference}password}}"),
            bootstrap=BootstrapMode.SNAPSHOT,
            topics=TopicSpec(partitions=1, replication=1),
            connector={"publication.autocreate.mode": "disabled"} if postgres else {},
        )
        self.shard = Shard(dataset=own, id="00000", leader=stack.primary(engine), database=self.database)
        self.field = ConnectorHarness(stack=stack, settings=self.settings)
        self.config = desired_config(self.dataset, self.shard, stack.cluster(), self.settings)

    def missing(self) -> tuple[str, ...]:
        """What the preflight says is missing."""
        return LeaderServers(secrets_dirs=self.settings.secrets_dirs).missing_rights(
            self.dataset, self.shard, self.shard.leader
        )

    def everything_works(self, insert: Callable[[str], object]) -> None:
        """Snapshot, stream, view, proof's reads."""
        assert self.missing() == ()
        view = LeaderServers(secrets_dirs=self.settings.secrets_dirs).view(self.dataset, self.shard, self.shard.leader)
        assert view.writable and not view.following
        self.field.deploy(self.dataset, self.shard)
        table = self.dataset.tables[0]
        topic = self.dataset.topic(table)
        self.field.read(topic, lambda rows: len(rows) >= 1)
        insert("2")
        self.field.read(topic, lambda rows: len(rows) >= 2)
        source = open_source(self.dataset, self.shard, table, timeout=10.0, secrets_dirs=self.settings.secrets_dirs)
        inspection = source.inspect()
        assert inspection.problems == ()
        assert len(source.read_chunk(None, None).keys) == 2
        source.close()

    def failure(self, name: str) -> str:
        """What a new connector of the same user says: the refusal of its creation, or its task's trace."""
        shard = replace(self.shard, id=name)
        self.field.write_leader(shard)
        self.field.topology = replace(self.field.topology, shards={self.dataset.name: (self.shard, shard)})
        self.field._make_topics()
        config = desired_config(self.dataset, shard, self.stack.cluster(), self.settings)
        config["publication.name"] = self.config.get("publication.name", "")
        url = self.field.url
        end = time.monotonic() + 90
        try:
            while time.monotonic() < end:
                answer = self.field.rest.put(f"{url}/connectors/{shard.name}/config", json=config)
                if answer.status_code == 400:
                    return answer.text
                if answer.is_success:
                    break
                time.sleep(0.3)
            while time.monotonic() < end:
                seen = self.field.rest.get(f"{url}/connectors/{shard.name}/status")
                tasks = seen.json().get("tasks", []) if seen.is_success else []
                if tasks and tasks[0]["state"] == "FAILED":
                    return str(tasks[0]["trace"])
                time.sleep(0.3)
            pytest.fail("the connector neither failed nor was refused")
        finally:
            self.field.rest.delete(f"{url}/connectors/{shard.name}")

    def close(self) -> None:
        self.field.close()
        self.file.unlink()

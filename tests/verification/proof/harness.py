"""A dataset on the real stack with connectors of its own, and a verification of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pymysql
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from cdc_platform.canonical.topic_rows import RowReader
from cdc_platform.clients.kafka.topic_records import TopicRecords
from cdc_platform.clients.platform import Platform
from cdc_platform.clients.secrets import resolve_all
from cdc_platform.connectors.config import desired_config
from cdc_platform.local.stack import Stack
from cdc_platform.model.positions import Committed
from cdc_platform.model.topology import BootstrapMode, Dataset, Engine, Shard, Table, TopicSpec, Topology
from cdc_platform.settings import Settings
from cdc_platform.testing.state_topic import FakeStateStore
from cdc_platform.verification.ports import Progress, VerificationPorts
from cdc_platform.verification.proof.completeness import plan_verification, verify_shards
from cdc_platform.verification.proof.decoding import JsonDecoder
from cdc_platform.verification.proof.verdicts import ShardVerdict
from cdc_platform.wiring import connect_client, verification_of
from tests.connectors.harness import Harness as ConnectorHarness
from tests.local.promotion import drop_postgres_database
from tests.waiting import assert_eventually


@dataclass(kw_only=True)
class Harness:
    """One dataset of one engine. `execute` runs SQL in a shard's database as an account that may do everything."""

    stack: Stack
    engine: Engine
    name: str
    cache: Path
    tables: tuple[Table, ...]
    shards: list[Shard] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings: Settings = replace(
            self.stack.settings(),
            platform=self.name,
            heartbeat_topic=f"{self.name}.platform.heartbeat",
            cache_dir=str(self.cache),
        )
        self.field = ConnectorHarness(stack=self.stack, settings=self.settings)
        self._open: dict[str, Any] = {}
        self._runs = 0

    @property
    def dataset(self) -> Dataset:
        return Dataset(
            name=self.name,
            engine=self.engine,
            tables=self.tables,
            clusters=("local",),
            credentials=self.stack.credentials(self.engine, self.name),
            **{
                "bootstrap": BootstrapMode.SNAPSHOT,
                "topics": TopicSpec(partitions=3, replication=1),
                **self.more,
                # A loaded machine is no reason for `pending`.
                "verification": {"reach_seconds": 300, "source_seconds": 60, **self.more.get("verification", {})},
            },
        )

    @property
    def topology(self) -> Topology:
        return replace(
            self.field.topology,
            datasets={self.name: self.dataset},
            shards={self.name: tuple(self.shards)},
            clusters={"local": self.stack.cluster()},
        )

    def add_shard(self, number: str, *statements: str, database: str | None = None) -> Shard:
        """A database, of the name given, with what the statements make in it."""
        database = database or f"{self.name}_{number}"
        address = self.stack.primary(self.engine)
        owner = "" if self.engine.reads_binlog else f" OWNER {self.source_user}"
        self.execute(None, f"CREATE DATABASE {self.quoted(database)}{owner}")
        shard = Shard(dataset=self.name, id=number, leader=address, database=database)
        self.shards.append(shard)
        for statement in statements:
            self.execute(shard, statement)
        return shard

    def quoted(self, name: str) -> str:
        """An identifier as the engine quotes it."""
        return f"`{name}`" if self.engine.reads_binlog else f'"{name}"'

    @property
    def source_user(self) -> str:
        path = self.stack.secrets_dir / f"{self.engine}.properties"
        return dict(line.split("=", 1) for line in path.read_text().splitlines())["user"]

    def own(self, shard: Shard, table: str) -> None:
        """Postgres: connectors alter the publication, so their user must own the table."""
        self.execute(shard, f"ALTER TABLE {table} OWNER TO {self.source_user}")

    def publication(self, shard: Shard) -> str:
        """The name of the shard's publication (Postgres)."""
        return desired_config(self.dataset, shard, self.stack.cluster(), self.settings)["publication.name"]

    def deploy(self) -> None:
        """Start the connectors of all shards."""
        self.field.deploy(self.dataset, *self.shards)

    def execute(self, shard: Shard | None, statement: str, params: Sequence[Any] = ()) -> list[Any]:
        connection = self.connection(shard)
        if self.engine.reads_binlog:
            with connection.cursor() as cursor:
                cursor.execute(statement, tuple(params) or None)
                return list(cursor.fetchall())
        cursor = connection.execute(statement, tuple(params) or None)
        return cursor.fetchall() if cursor.description else []

    def connection(self, shard: Shard | None, name: str = "") -> Any:
        """An open connection; `name` tells apart several to one shard."""
        database = shard.database if shard else None
        key = f"{database}/{name}"
        if key not in self._open:
            login = self.stack.admin(self.engine)
            address = self.stack.primary(self.engine)
            if self.engine.reads_binlog:
                self._open[key] = pymysql.connect(
                    host=address.host,
                    port=address.port,
                    user=login.user,
                    password=login.password,
                    database=database,
                    autocommit=True,
                    charset="utf8mb4",
                    init_command="SET time_zone='+00:00'",
                )
            else:
                self._open[key] = psycopg.connect(
                    host=address.host,
                    port=address.port,
                    user=login.user,
                    password=login.password,
                    dbname=database or "postgres",
                    autocommit=True,
                )
        return self._open[key]

    def platform(self) -> Platform:
        return Platform(
            settings=self.settings,
            topology=SimpleNamespace(load=lambda: self.topology),
            kafka=None,  # type: ignore[arg-type]
            state=FakeStateStore(),
            connect=lambda cluster: connect_client(self.settings, cluster.name, cluster.urls),
        )

    def outside(self, platform: Platform | None = None) -> VerificationPorts:
        return verification_of(platform or self.platform())

    def verify(
        self,
        table: str | None = None,
        *,
        run: str | None = None,
        shards: Sequence[str] | None = None,
        outside: VerificationPorts | None = None,
        report: Callable[[Progress], None] | None = None,
    ) -> dict[str, ShardVerdict]:
        """Verdicts by shard."""
        self._runs += 1
        found: dict[str, ShardVerdict] = {}
        for part in plan_verification(self.topology, self.name, table or self.tables[0].name, shards):
            verdicts = verify_shards(
                outside or self.outside(), self.topology, part, run_id=run or f"run{self._runs}", report=report
            )
            found.update({verdict.shard: verdict for verdict in verdicts})
        return found

    def explain(self, verdict: ShardVerdict, *, at_most: int = 20) -> list[str]:
        """Both sides' tokens of columns that differ: for messages of failed tests."""
        dataset, shard = self.dataset, self.topology.shard(self.name, verdict.shard)
        outside = self.outside()
        source = outside.source(dataset, shard, dataset.table(verdict.table))
        shape = source.inspect().shape
        assert shape is not None
        rows, decoder = RowReader(shape), JsonDecoder(shape, projected=True)
        records = outside.records(verdict.topic)
        found = [verdict.reason]
        for sample in verdict.samples[:at_most]:
            if sample.partition is None or sample.offset is None:
                found.append(str(sample))
                continue
            value = records.fetch(sample.partition, [sample.offset])[sample.offset][1]
            key = tuple(json.loads(sample.key).values())
            ours = source.tokens([key]).get(key, {})
            after = decoder.after(value) if value else b"null"
            tokens = rows.tokens(after) if after != b"null" else {}
            found += [
                f"{sample.key} {sample.kind} {name}: topic {tokens.get(name)!r} source {ours.get(name)!r}"
                for name in {**tokens, **ours}
                if tokens.get(name) != ours.get(name)
            ]
        records.close()
        source.close()
        return found

    def topic(self, table: str | None = None) -> str:
        return self.dataset.topic(self.dataset.table(table or self.tables[0].name))

    def records(self, table: str | None = None) -> list[list[tuple[bytes | None, bytes | None]]]:
        """The topic's records by partition."""
        records = TopicRecords(self.settings.kafka, self.topic(table))
        bounds = records.bounds().partitions
        found = [
            [pair for batch in records.read(number, *ends) for pair in zip(batch.keys, batch.values, strict=True)]
            for number, ends in sorted(bounds.items())
        ]
        records.close()
        return found

    def rewrite(self, records: list[list[tuple[bytes | None, bytes | None]]], table: str | None = None) -> None:
        """Make the topic anew with these records by partition; connectors must be stopped."""
        topic, admin = self.topic(table), AdminClient({**resolve_all(self.settings.kafka)})
        admin.delete_topics([topic])[topic].result(30)

        def created() -> bool:
            try:
                admin.create_topics([NewTopic(topic, len(records), 1, config={"cleanup.policy": "compact"})])[
                    topic
                ].result(30)
            except KafkaException as error:
                assert error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
                return False
            return True

        assert_eventually(created, "the topic is gone and made anew")
        self.produce([(number, key, value) for number, part in enumerate(records) for key, value in part], table)

    def produce(self, records: Sequence[tuple[int, bytes | None, bytes | None]], table: str | None = None) -> None:
        """Append records: partition, key, value."""
        producer = Producer({**resolve_all(self.settings.kafka), "enable.idempotence": True})
        for number, key, value in records:
            producer.produce(self.topic(table), value, key, number)
            producer.poll(0)
        assert producer.flush(30) == 0

    def settle(self, shard: Shard) -> None:
        """Wait until the connector has handed on all that is in the source now."""
        position = self.outside().source(self.dataset, shard, self.tables[0]).position()
        engine = self.engine

        def reached() -> bool:
            found = Committed.parse(engine, self.field.offset(shard))
            return found.busy is None and found.reached(position)

        assert_eventually(reached, f"{shard.name} has got to {position}", 90)

    def close(self) -> None:
        """Remove connectors and databases."""
        self.field.close()
        for shard in self.shards:
            self._drop(shard)
        for connection in self._open.values():
            connection.close()

    def _drop(self, shard: Shard) -> None:
        if self.engine.reads_binlog:
            self.execute(None, f"DROP DATABASE {self.quoted(shard.database)}")
            return
        drop_postgres_database(self.stack, shard.database)

    def stop(self, shard: Shard) -> None:
        """Stop the shard's connector (it keeps its offsets)."""
        url = f"{self.field.url}/connectors/{shard.name}"
        assert self.field.rest.put(f"{url}/stop", timeout=60).is_success

    def resume(self, shard: Shard) -> None:
        """Let it run again."""
        url = f"{self.field.url}/connectors/{shard.name}"
        assert self.field.rest.put(f"{url}/resume", timeout=60).is_success
        assert_eventually(lambda: self.field.task_state(shard) == "RUNNING", f"{shard.name} runs")


MakeHarness = Callable[..., Harness]

"""A Debezium connector on a stack, configured by hand: the stack's tests need no other floor."""

from __future__ import annotations

import time
from dataclasses import dataclass

import httpx
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, NewTopic

from cdc_platform.connectors.engines.registry import ENGINES
from cdc_platform.connectors.leader_files import LeaderFile, file_name, render
from cdc_platform.local import mariadb, mysql, postgres
from cdc_platform.local.stack import Stack
from cdc_platform.local.workers import LEADER_DIR
from cdc_platform.model.topology import Address, Engine
from tests.messages import document, headers_of
from tests.waiting import assert_eventually

DEADLINE = 60.0


@dataclass(frozen=True, kw_only=True)
class Harness:
    """A table `items (id, v)` in a database of its own, and the connector that captures it."""

    stack: Stack
    engine: Engine
    name: str

    @property
    def topic(self) -> str:
        schema = "public" if self.engine is Engine.POSTGRES else self.name
        return f"{self.name}.{schema}.items"

    def point(self, leader: Address, generation: int) -> None:
        """Write the leader file of each worker."""
        text = render(LeaderFile(leader=leader, generation=generation))
        for worker in self.stack.workers:
            directory = self.stack.directory / "workers" / worker / "leaders"
            (directory / file_name(self.name)).write_text(text)

    def leader(self, stack: Stack) -> Address:
        return stack.primary(self.engine)

    def execute(self, leader: Address, *statements: str) -> None:
        module = {Engine.MARIADB: mariadb, Engine.MYSQL: mysql, Engine.POSTGRES: postgres}[self.engine]
        with module.connect(leader.port, self.stack.admin(self.engine), database=self.name) as connection:
            for statement in statements:
                connection.cursor().execute(statement)

    def insert(self, leader: Address, first: int, count: int) -> None:
        for number in range(first, first + count):
            self.execute(leader, f"INSERT INTO items (id, v) VALUES ({number}, 'v{number}')")

    def create(self) -> None:
        """Make the database, the table and the connector."""
        leader = self.leader(self.stack)
        self.point(leader, 1)
        module = {Engine.MARIADB: mariadb, Engine.MYSQL: mysql, Engine.POSTGRES: postgres}[self.engine]
        with module.connect(leader.port, self.stack.admin(self.engine)) as connection:
            connection.cursor().execute(f"CREATE DATABASE {self.name}")
        self.execute(leader, "CREATE TABLE items (id INT PRIMARY KEY, v VARCHAR(40))")
        if self.engine is Engine.POSTGRES:
            self.execute(leader, "CREATE PUBLICATION cdc FOR TABLE items")
        admin = AdminClient({"bootstrap.servers": str(self.stack.kafka)})
        names = [self.topic, f"{self.name}.history", self.name]
        for made in admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
            made.result(30)
        url = f"{self.stack.connect_urls[0]}/connectors/{self.name}/config"
        answer = httpx.put(url, json=self.config(), timeout=90)
        assert answer.status_code == 201, answer.text

    def config(self) -> dict[str, str]:
        """Leader and login are references; the worker's name goes into a header."""
        file = f"{LEADER_DIR}/{file_name(self.name)}"
        login = self.stack.credentials(self.engine, self.name)
        common = {
            "tasks.max": "1",
            "topic.prefix": self.name,
            "database.hostname": f"${{file:{file}:host}}",
            "database.port": f"${{file:{file}:port}}",
            "database.user": login.user,
            "database.password": login.password,
            "transforms": "worker",
            "transforms.worker.type": "org.apache.kafka.connect.transforms.InsertHeader",
            "transforms.worker.header": "worker",
            "transforms.worker.value.literal": "${env:WORKER}",
        }
        if self.engine is Engine.POSTGRES:
            return common | {
                "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
                "database.dbname": self.name,
                "plugin.name": "pgoutput",
                "publication.name": "cdc",
                "publication.autocreate.mode": "disabled",
                "slot.name": self.name,
                "slot.failover": "true",
            }
        if self.engine is Engine.MYSQL:
            # Else a snapshot's view is older than its position, and what is written between is lost (decision 0044).
            common["driver.sessionVariables"] = "transaction_isolation='READ-COMMITTED'"
        return common | {
            "connector.class": ENGINES[self.engine].connector_class,
            "database.server.id": "77001",
            "database.include.list": self.name,
            "schema.history.internal.kafka.bootstrap.servers": str(self.stack.kafka),
            "schema.history.internal.kafka.topic": f"{self.name}.history",
            "snapshot.locking.mode": "none",
        }

    def remove(self, leader: Address) -> None:
        """Delete the connector and, on Postgres, its slot: an idle slot is never ready on a standby."""
        httpx.delete(f"{self.stack.connect_urls[0]}/connectors/{self.name}", timeout=90)
        if self.engine is Engine.POSTGRES:
            with postgres.connect(leader.port, self.stack.admin(self.engine)) as connection:
                free = "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND NOT active"
                assert_eventually(lambda: connection.execute(free, (self.name,)).fetchone(), "the slot is free")
                connection.execute("SELECT pg_drop_replication_slot(%s)", (self.name,))

    def restart_task(self) -> None:
        url = f"{self.stack.connect_urls[0]}/connectors/{self.name}/tasks/0/restart"
        assert httpx.post(url, timeout=90).status_code == 204

    def status(self) -> dict[str, object]:
        found: dict[str, object] = httpx.get(
            f"{self.stack.connect_urls[0]}/connectors/{self.name}/status", timeout=30
        ).json()
        return found

    def events(self, wanted: int) -> list[tuple[int, str]]:
        """(id, worker header) of all events in the topic, once `wanted` different ids are there."""
        consumer = Consumer(
            {
                "bootstrap.servers": str(self.stack.kafka),
                "group.id": f"{self.name}-{time.monotonic_ns()}",
                "auto.offset.reset": "earliest",
            }
        )
        consumer.subscribe([self.topic])
        found: list[tuple[int, str]] = []
        deadline = time.monotonic() + DEADLINE
        try:
            while len({key for key, _ in found}) < wanted:
                assert time.monotonic() < deadline, f"{len(found)} events of {wanted}; {self.status()}"
                message = consumer.poll(0.5)
                if message is not None and not message.error() and message.value():
                    row = document(message.value())["after"]
                    found.append((row["id"], headers_of(message)["worker"]))
        finally:
            consumer.close()
        return found

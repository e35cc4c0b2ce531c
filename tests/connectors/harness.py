"""Connectors with generated configs on the real stack, and a plain consumer of what they send."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import httpx
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from cdc_platform.connectors import leader_files
from cdc_platform.connectors.config import desired_config, problems
from cdc_platform.connectors.topics import desired_topics
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Dataset, Shard, Topology
from cdc_platform.settings import Settings
from tests.waiting import assert_eventually


@dataclass(kw_only=True)
class Harness:
    """A stack with connectors of the test's own on it."""

    stack: Stack
    settings: Settings
    topology: Topology = field(default_factory=Topology)

    def __post_init__(self) -> None:
        self.rest = self.stack.rest(timeout=90)

    @property
    def url(self) -> str:
        return self.stack.connect_urls[0]

    def deploy(self, dataset: Dataset, *shards: Shard) -> None:
        """Make topics and leader files, then the connectors; wait until their tasks run."""
        self.topology = replace(
            self.topology,
            datasets={**self.topology.datasets, dataset.name: dataset},
            shards={**self.topology.shards, dataset.name: shards},
        )
        assert problems(self.topology, self.settings) == ()
        self._make_topics()
        cluster = self.stack.cluster()
        for shard in shards:
            self.write_leader(shard)
            # The stack's agents remove a file without a connector: once a minute, and maybe just now.
            rewrite = partial(self.write_leader, shard)
            self.put(shard.name, desired_config(dataset, shard, cluster, self.settings), meanwhile=rewrite)
            rewrite()
        for shard in shards:
            assert_eventually(partial(self.task_runs, shard), f"{shard.name} runs")

    def write_leader(self, shard: Shard) -> None:
        content = leader_files.render(leader_files.LeaderFile(leader=shard.leader, generation=shard.generation))
        for worker in self.stack.workers:
            folder = self.stack.directory / "workers" / worker / "leaders"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / leader_files.file_name(shard.name)).write_text(content)

    def put(self, name: str, config: Mapping[str, str], *, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Create or update; a group that rebalances (409) is asked again, as one without the leader file."""
        end = time.monotonic() + 60
        while True:
            answer = self.rest.put(f"{self.url}/connectors/{name}/config", json=dict(config))
            again = answer.status_code == httpx.codes.CONFLICT or "Could not read properties" in answer.text
            if not again or time.monotonic() > end:
                break
            meanwhile()
            time.sleep(0.2)
        assert answer.is_success, answer.text

    def task_runs(self, shard: Shard) -> bool:
        return self.task_state(shard) == "RUNNING"

    def task_state(self, shard: Shard) -> str | None:
        answer = self.rest.get(f"{self.url}/connectors/{shard.name}/status")
        tasks = answer.json().get("tasks", []) if answer.is_success else []
        return tasks[0]["state"] if tasks else None

    def offset(self, shard: Shard) -> dict[str, Any]:
        """The committed source offset."""
        found = self.rest.get(f"{self.url}/connectors/{shard.name}/offsets").json()["offsets"]
        return dict(found[0]["offset"]) if found else {}

    def read(self, topic: str, until: Callable[[list[Record]], bool], seconds: float = 60) -> list[Record]:
        """All records of a topic from its start, until it holds what is waited for."""
        consumer = Consumer({**self.stack.kafka_client, "group.id": "unused"})
        try:
            metadata = consumer.list_topics(topic, timeout=10).topics[topic]
            consumer.assign([TopicPartition(topic, number, 0) for number in metadata.partitions])
            found: list[Record] = []
            end = time.monotonic() + seconds
            while not until(found):
                assert time.monotonic() < end, f"{topic}: {[(r.key, r.value) for r in found]}"
                message = consumer.poll(0.2)
                if message is not None and message.error() is None:
                    found.append(Record.of(message))
            return found
        finally:
            consumer.close()

    def topics(self) -> set[str]:
        admin = AdminClient(dict(self.stack.kafka_client))
        return set(admin.list_topics(timeout=10).topics)

    def close(self) -> None:
        for shard in [shard for shards in self.topology.shards.values() for shard in shards]:
            with suppress(httpx.HTTPError):
                self.rest.delete(f"{self.url}/connectors/{shard.name}", timeout=30)
        self.rest.close()

    def _make_topics(self) -> None:
        """The topics that the topology needs."""
        admin = AdminClient(dict(self.stack.kafka_client))
        requests = [
            NewTopic(t.name, t.partitions, t.replication, config=dict(t.config))
            for t in desired_topics(self.topology, self.settings)
        ]
        for future in admin.create_topics(requests).values():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise


@dataclass(frozen=True, kw_only=True)
class Record:
    """A record as a consumer sees it."""

    key: dict[str, Any] | None
    value: dict[str, Any] | None
    headers: dict[str, str]
    partition: int

    @classmethod
    def of(cls, message: Any) -> Record:
        return cls(
            key=json.loads(message.key()) if message.key() else None,
            value=json.loads(message.value()) if message.value() else None,
            headers={name: value.decode() for name, value in message.headers() or []},
            partition=message.partition(),
        )

"""Topics without brokers: `protocols.Kafka` in memory."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from cdc_platform.errors import CdcError, KafkaRejected
from cdc_platform.model.observed import ObservedTopic, TopicExtent, TopicRequest

_NAME = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}")

# The topic configs that Kafka 4.3 takes and that the platform may set.
_KNOWN_CONFIGS = frozenset(
    {
        "cleanup.policy",
        "compression.type",
        "delete.retention.ms",
        "file.delete.delay.ms",
        "flush.messages",
        "flush.ms",
        "index.interval.bytes",
        "max.compaction.lag.ms",
        "max.message.bytes",
        "message.timestamp.type",
        "min.cleanable.dirty.ratio",
        "min.compaction.lag.ms",
        "min.insync.replicas",
        "preallocate",
        "retention.bytes",
        "retention.ms",
        "segment.bytes",
        "segment.index.bytes",
        "segment.jitter.ms",
        "segment.ms",
        "unclean.leader.election.enable",
    }
)


class FakeKafka:
    """The topics of a cluster of `brokers` brokers.

    `outage`, once set, is raised by every call. `writes` lists what changed
    something: (verb, topic), in order. `records` are what `append` put into each topic:
    (time, value), a value of None is a tombstone.
    """

    def __init__(self, brokers: int = 3) -> None:
        self._brokers = brokers
        self._lock = threading.Lock()
        self._topics: dict[str, ObservedTopic] = {}
        self.outage: CdcError | None = None
        self.writes: list[tuple[str, str]] = []
        self.records: dict[str, list[tuple[datetime, bytes | None]]] = {}

    def append(self, topic: str, value: bytes | None, at: datetime | None = None) -> None:
        """Put a record into a topic, as some producer would."""
        with self._lock:
            self._known(topic, "produce to topic")
            self.records.setdefault(topic, []).append((at or datetime.now(UTC), value))

    def cluster_id(self) -> str:
        """The id of the Kafka cluster."""
        self._check()
        return "fake-kafka-cluster-id"

    def brokers(self) -> int:
        """How many brokers are up."""
        self._check()
        return self._brokers

    def topics(
        self, names: Collection[str] | None = None, configs_of: Collection[str] | None = None
    ) -> Mapping[str, ObservedTopic]:
        """Topics with partitions, replication and non-default config."""
        self._check()
        with self._lock:
            return {
                name: topic if configs_of is None or name in configs_of else replace(topic, config=None)
                for name, topic in self._topics.items()
                if names is None or name in names
            }

    def create_topics(self, requests: Sequence[TopicRequest]) -> Mapping[str, CdcError]:
        """Create; a topic that exists already is no error. Returns those that could not be made, with why."""
        self._check()
        problems: dict[str, CdcError] = {}
        with self._lock:
            for request in requests:
                if request.name in self._topics:
                    continue
                problem = self._problem(request)
                if problem is not None:
                    problems[request.name] = KafkaRejected(f"create topic {request.name}: {problem}.", where="Kafka")
                    continue
                self._topics[request.name] = ObservedTopic(
                    name=request.name,
                    partitions=request.partitions,
                    replication=request.replication,
                    config=dict(request.config),
                )
                self.writes.append(("create", request.name))
        return problems

    def add_partitions(self, topic: str, total: int) -> None:
        """Grow the topic to `total` partitions; it is no error when it has as many."""
        self._check()
        with self._lock:
            found = self._known(topic, "add partitions to topic")
            if total < found.partitions:
                raise KafkaRejected(
                    f"add partitions to topic {topic}: INVALID_PARTITIONS: it has {found.partitions}.",
                    where="Kafka",
                )
            if total > found.partitions:
                self._topics[topic] = ObservedTopic(
                    name=topic, partitions=total, replication=found.replication, config=found.config
                )
                self.writes.append(("add_partitions", topic))

    def alter_topic_config(self, topic: str, changes: Mapping[str, str | None]) -> None:
        """Set config entries; None returns one to the broker's default."""
        self._check()
        with self._lock:
            found = self._known(topic, "alter config of topic")
            problem = _config_problem({key: value for key, value in changes.items() if value is not None})
            if problem is not None:
                raise KafkaRejected(f"alter config of topic {topic}: {problem}.", where="Kafka")
            config = {**(found.config or {}), **changes}
            self._topics[topic] = ObservedTopic(
                name=topic,
                partitions=found.partitions,
                replication=found.replication,
                config={key: value for key, value in config.items() if value is not None},
            )
            self.writes.append(("alter_config", topic))

    def delete_topics(self, names: Sequence[str]) -> None:
        """Delete; a topic that is gone already is no error."""
        self._check()
        with self._lock:
            for name in names:
                self.records.pop(name, None)
                if self._topics.pop(name, None) is not None:
                    self.writes.append(("delete", name))

    def extents(self, names: Sequence[str]) -> Mapping[str, TopicExtent]:
        """How much is in these topics. A topic that does not exist is absent."""
        self._check()
        with self._lock:
            return {
                name: TopicExtent(
                    begin=0,
                    end=len(self.records.get(name, ())),
                    newest=max((at for at, _ in self.records.get(name, ())), default=None),
                )
                for name in names
                if name in self._topics
            }

    def samples(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """The newest value of each of these topics; a topic without one is absent."""
        self._check()
        with self._lock:
            values = {n: [value for _, value in self.records.get(n, ()) if value is not None] for n in names}
            return {name: found[-1] for name, found in values.items() if found}

    def _check(self) -> None:
        if self.outage is not None:
            raise self.outage

    def _known(self, topic: str, what: str) -> ObservedTopic:
        if topic not in self._topics:
            raise KafkaRejected(f"{what} {topic}: UNKNOWN_TOPIC_OR_PART: the topic does not exist.", where="Kafka")
        return self._topics[topic]

    def _problem(self, request: TopicRequest) -> str | None:
        if not _NAME.fullmatch(request.name):
            return "TOPIC_EXCEPTION: the name is invalid"
        if request.partitions < 1:
            return "INVALID_PARTITIONS: the number of partitions is not positive"
        if not 1 <= request.replication <= self._brokers:
            return f"INVALID_REPLICATION_FACTOR: {request.replication} with {self._brokers} brokers"
        return _config_problem(request.config)


def _config_problem(config: Mapping[str, str]) -> str | None:
    for key, value in config.items():
        if key not in _KNOWN_CONFIGS:
            return f"INVALID_CONFIG: unknown topic config name: {key}"
        if key.endswith((".ms", ".bytes", ".messages", ".replicas")) and not value.lstrip("-").isdigit():
            return f"INVALID_CONFIG: invalid value {value} for configuration {key}"
    return None

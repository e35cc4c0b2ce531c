"""Reading the state topic: its records up to now, and the generation of the lock under which it is written.

Read with `read_committed` up to the end offsets; what was read stays, and a later read takes only what is new.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from cdc_platform.clients.kafka.admin import KafkaAdmin
from cdc_platform.clients.kafka.consumer import Partition, assign, open_consumer, read_to_end, watermarks
from cdc_platform.clients.kafka.librdkafka import remaining, servers_of, translated
from cdc_platform.errors import KafkaRejected, KafkaUnavailable
from cdc_platform.model import bounded_json

log = logging.getLogger(__name__)

# The format of the documents, in each of them. A newer one is left alone.
VERSION = 1
VERSION_FIELD = "version"

# Greater ones are no generation of a ZooKeeper lock, and would fence every control plane for ever.
MAX_GENERATION = 2**48

# Not a record of the platform's: under which generation of the lock it is written.
WRITER_KEY = "writer"

_DOCUMENT = msgspec.json.Decoder(dict[str, Any])

_STALE = frozenset({KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC})
# A batch that is not full waits so long for more.
_POLL_SECONDS = 0.02


class StateReader:
    """What the topic holds, as far as it was read. One thread at a time.

    Attributes:
        documents: by key.
        problems: keys whose record could not be read, and why.
        writer: the greatest generation of the lock under which it was written.
    """

    def __init__(self, config: Mapping[str, str], topic: str, group: str, admin: KafkaAdmin) -> None:
        self._config = config
        self._topic = topic
        self._group = group
        self._admin = admin
        self._consumer: Consumer | None = None
        self.documents: dict[str, Mapping[str, Any]] = {}
        self.problems: dict[str, str] = {}
        self.writer: int | None = None
        # How far it was read, and where our own last record ends.
        self._next: dict[Partition, int] = {}
        self._written: dict[Partition, int] = {}

    def catch_up(self, end: float) -> None:
        """Read what is new, until `end` on the monotonic clock. Raises KafkaUnavailable, KafkaRejected."""
        kept = self._consumer is not None
        consumer = self._opened()
        if consumer is None:
            return
        try:
            ends: dict[Partition, int] = {}
            for key, start in self._next.items():
                low, high = watermarks(consumer, *key, end)
                if start > high or 0 < start < low:
                    log.warning("%s was deleted and created again, or cut: it is read from the start", self._topic)
                    self._forget()
                    self.catch_up(end)
                    return
                # A transaction just committed is not below the end yet: its markers follow.
                high = max(high, self._written.get(key, 0))
                if high > max(low, start):
                    ends[key] = high
            for batch in read_to_end(consumer, self._next, ends, timeout=remaining(end), poll=_POLL_SECONDS):
                for message in batch:
                    self._take(message)
        except KafkaException as error:
            problem = translated(error, f"read {self._topic}", servers_of(self._config))
            if not isinstance(problem, KafkaUnavailable):
                self._forget()
                # What a consumer knows of a broker that was away for a while goes stale: a new one asks itself.
                if kept and error.args[0].code() in _STALE and self._opened() is not None:
                    self.catch_up(end)
                    return
            raise problem from None

    def note_written(self, ends: Mapping[Partition, int]) -> None:
        """Our own records end there: the next read waits for them."""
        self._written.update(ends)

    def close(self) -> None:
        """Close the connection; what was read stays."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _opened(self) -> Consumer | None:
        if self._consumer is not None:
            return self._consumer
        found = self._admin.topics([self._topic])
        if self._topic not in found:
            return None
        policy = (found[self._topic].config or {}).get("cleanup.policy", "delete")
        if policy != "compact":
            raise KafkaRejected(
                f"topic {self._topic} is not compacted: what the platform has learnt would be lost.",
                where=f"Kafka {servers_of(self._config)}",
                field="cleanup.policy",
                cure=f"kafka-configs --alter --topic {self._topic} --add-config cleanup.policy=compact",
            )
        self._consumer = open_consumer(self._config, self._group, {"isolation.level": "read_committed"})
        self._next = {(self._topic, partition): 0 for partition in range(found[self._topic].partitions)}
        assign(self._consumer, self._next)
        return self._consumer

    def _forget(self) -> None:
        self.close()
        self.documents, self.problems, self.writer, self._written = {}, {}, None, {}

    def _take(self, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        raw, value = message.key(), message.value()
        place = f"offset {offset}" if partition == 0 else f"partition {partition} offset {offset}"
        try:
            key = bytes(raw or b"").decode()
            if not key:
                raise ValueError("it has no key")
        except ValueError as problem:
            self._skip(f"({place})", str(problem))
            return
        if value is None:
            self.documents.pop(key, None)
            self.problems.pop(key, None)
            return
        try:
            document = bounded_json.decode(_DOCUMENT, value)
            version = document.pop(VERSION_FIELD, None)
            if version != VERSION:
                raise ValueError(f"its version is {version!r}, not {VERSION}")
            if key == WRITER_KEY:
                generation = int(document["generation"])
                if not 0 <= generation <= MAX_GENERATION:
                    raise ValueError(f"its generation is {generation}, no lock's")
                self.writer = max(generation, self.writer or 0)
                return
        except (ValueError, KeyError, TypeError) as problem:
            self._skip(key, f"{place}: {problem}")
            return
        self.documents[key] = document
        self.problems.pop(key, None)

    def _skip(self, key: str, problem: str) -> None:
        self.problems[key] = problem
        log.warning("%s: record %s was skipped: %s", self._topic, key, problem)

"""The compacted state topic: what the platform has learnt, by key.

Written in transactions under one `transactional.id` a platform, so that a newer
writer fences an older one (KIP-98). Which of two writers is the newer is said
by the generation of the ZooKeeper lock, kept in the topic itself: a paused
process that wakes up late gets a new producer epoch, but not a newer generation.
Read with `read_committed` up to the end offsets.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from cdc_platform.clients.kafka.admin import KafkaAdmin
from cdc_platform.clients.kafka.librdkafka import bad_settings, configuration, translated
from cdc_platform.clients.kafka.librdkafka import log as librdkafka
from cdc_platform.errors import BadInput, CdcError, Fenced, KafkaRejected, KafkaUnavailable
from cdc_platform.model.observed import TopicRequest

log = logging.getLogger(__name__)

Delivered = Callable[[KafkaError | None, Message], None]

# The format of the documents, in each of them. A newer one is left alone.
VERSION = 1
VERSION_FIELD = "version"

# Not a record of the platform's: under which generation of the lock it is written.
WRITER_KEY = "writer"

_CONFIG = {
    "cleanup.policy": "compact",
    # Read back as a whole at each start: keep it near its live size.
    "min.cleanable.dirty.ratio": "0.1",
    "segment.ms": str(60 * 60 * 1000),
    "segment.bytes": str(32 * 1024 * 1024),
    # A reader that comes back after a week still sees what was deleted.
    "delete.retention.ms": str(7 * 24 * 60 * 60 * 1000),
}
_STALE = frozenset({KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC})
_BATCH = 5000
# A batch that is not full waits so long for more.
_POLL_SECONDS = 0.02
_TRANSACTION_SECONDS = 30.0


class StateTopic:
    """The state store of one platform; satisfies `protocols.StateStore`. Safe to call from many threads.

    Nothing is connected before the first call, and a mere reader never fences
    anybody: the producer is made by `claim` or the first `write`.

    Args:
        config: a librdkafka configuration; values may be references.
        topic: its name. Made when the first write finds it missing.
        platform: the platform's name; part of the `transactional.id`.
        writer: who writes, where that is not the holder of the lock: it has a `transactional.id` of its
            own, and only a newer writer of the same name fences it. It must write keys that are its alone,
            and holds no lock, so it never claims.
        replication: of a topic to be made; None: 3, or as many as there are brokers.
        timeout: seconds for each call as a whole.
    """

    def __init__(
        self,
        config: Mapping[str, str],
        topic: str = "cdc.platform.state",
        *,
        platform: str = "cdc",
        writer: str | None = None,
        replication: int | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._config = dict(config)
        self._topic = topic
        self._transactional_id = f"cdc-platform-state-{platform}-{topic}" + (f"-{writer}" if writer else "")
        self._named = writer is not None
        self._replication = replication
        self._timeout = timeout
        self._servers = config.get("bootstrap.servers", "(no bootstrap.servers)")
        self._admin = KafkaAdmin(self._config, timeout)
        self._lock = threading.RLock()
        self._consumer: Consumer | None = None
        self._producer: Producer | None = None
        self._generation: int | None = None
        self._fenced: Fenced | None = None
        self._documents: dict[str, Mapping[str, Any]] = {}
        self._writer: int | None = None
        # By partition: how far it was read, and where our own last record ends.
        self._next: dict[int, int] = {}
        self._written: dict[int, int] = {}
        self._problems: dict[str, str] = {}

    @property
    def problems(self) -> Mapping[str, str]:
        """Keys whose record could not be read, and why. Each was skipped; writing the key anew cures it."""
        with self._lock:
            return dict(self._problems)

    def read(self) -> Mapping[str, Mapping[str, Any]]:
        """All records up to now; a later call reads only what is new. Empty when there is no topic.

        Raises:
            KafkaUnavailable: not all could be read in time.
        """
        with self._lock:
            self._catch_up(time.monotonic() + self._timeout)
            return dict(self._documents)

    def claim(self, generation: int) -> None:
        """Become the writer under a lock of this generation; whoever wrote before is fenced.

        Raises:
            Fenced: a newer generation has been here; nothing was changed.
            KafkaUnavailable, KafkaRejected: it could not be done.
        """
        if self._named:
            raise BadInput("a writer of its own name holds no lock to claim with.", where=self._topic)
        with self._lock:
            end = time.monotonic() + self._timeout
            self._catch_up(end)
            self._refuse_if_newer(generation)
            if self._writer != self._generation:
                self._producer = None  # another has written since: our producer is fenced already
            self._generation = generation
            self._fenced = None
            if self._producer is None:
                self._begin(end)
            self._commit({WRITER_KEY: {"generation": generation}}, end)

    def write(self, records: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Write all or none, in one transaction; None deletes.

        Raises:
            Fenced: a newer writer has taken over, for good.
            KafkaUnavailable: not committed, or not known whether; writing the same again is safe.
            KafkaRejected: the brokers refuse it. BadInput: not JSON, or a key of the store's own.
        """
        for key, document in records.items():
            if key == WRITER_KEY or not key:
                raise BadInput(f"{key!r} is no key for a record.", where=self._topic, cure="Use KIND/NAME.")
            if document is not None and VERSION_FIELD in document:
                raise BadInput("this field is the store's own.", where=f"{self._topic}: {key}", field=VERSION_FIELD)
        if not records:
            return
        with self._lock:
            end = time.monotonic() + self._timeout
            if self._fenced is not None:
                raise self._fenced
            if self._producer is None:
                self._begin(end)
            self._commit(records, end)

    def close(self) -> None:
        """Close the connections. An open transaction is left to its time-out or the next writer."""
        with self._lock:
            if self._consumer is not None:
                self._consumer.close()
                self._consumer = None
            self._producer = None

    # Reading

    def _catch_up(self, end: float) -> None:
        kept = self._consumer is not None
        consumer = self._reader()
        if consumer is None:
            return
        try:
            wanted = {}
            for partition, start in self._next.items():
                low, high = self._ends(consumer, partition, end)
                if start > high or 0 < start < low:
                    log.warning("%s was made anew or cut: it is read from the start", self._topic)
                    self._forget()
                    self._catch_up(end)
                    return
                # A transaction just committed is not below the end yet: its markers follow.
                high = max(high, self._written.get(partition, 0))
                if high > max(low, start):
                    wanted[partition] = high
            while any(self._next[partition] < high for partition, high in wanted.items()):
                if time.monotonic() > end:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
                for message in consumer.consume(_BATCH, timeout=_POLL_SECONDS):
                    self._take(message)
        except KafkaException as error:
            problem = translated(error, f"read {self._topic}", self._servers)
            if not isinstance(problem, KafkaUnavailable):
                self._forget()
                # What a consumer knows of a broker that was away for a while goes stale: a new one looks itself.
                if kept and error.args[0].code() in _STALE and self._reader() is not None:
                    self._catch_up(end)
                    return
            raise problem from None

    def _ends(self, consumer: Consumer, partition: int, end: float) -> tuple[int, int]:
        """Low and end offset; the end is that of the last finished transaction."""
        found = consumer.get_watermark_offsets(
            TopicPartition(self._topic, partition), timeout=max(0.1, end - time.monotonic())
        )
        if found is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        low, high = found
        return low, high

    def _reader(self) -> Consumer | None:
        if self._consumer is not None:
            return self._consumer
        found = self._admin.topics([self._topic])
        if self._topic not in found:
            return None
        policy = (found[self._topic].config or {}).get("cleanup.policy", "delete")
        if policy != "compact":
            raise KafkaRejected(
                f"topic {self._topic} is not compacted: what the platform has learnt would be lost.",
                where=f"Kafka {self._servers}",
                field="cleanup.policy",
                cure=f"kafka-configs --alter --topic {self._topic} --add-config cleanup.policy=compact",
            )
        own = {
            "group.id": f"{self._transactional_id}-reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
        }
        try:
            consumer = Consumer(configuration(self._config, own), logger=librdkafka)
        except (KafkaException, CdcError, ValueError, TypeError) as error:
            raise bad_settings(error) from None
        self._next = dict.fromkeys(range(found[self._topic].partitions), 0)
        consumer.assign([TopicPartition(self._topic, p, 0) for p in self._next])
        self._consumer = consumer
        return consumer

    def _forget(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
        self._documents, self._problems, self._writer, self._written = {}, {}, None, {}

    def _take(self, message: Message) -> None:
        error = message.error()
        partition, offset = message.partition(), message.offset()
        if error is not None:
            # The end of a partition says how far it was read: past commit
            # markers and aborted records too, which come as no message.
            if error.code() == KafkaError._PARTITION_EOF and partition is not None and offset is not None:
                self._next[partition] = max(self._next[partition], offset)
                return
            raise KafkaException(error)
        assert partition is not None and offset is not None
        self._next[partition] = max(self._next[partition], offset + 1)
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
            self._documents.pop(key, None)
            self._problems.pop(key, None)
            return
        try:
            document = msgspec.json.decode(value, type=dict[str, Any])
            version = document.pop(VERSION_FIELD, None)
            if version != VERSION:
                raise ValueError(f"its version is {version!r}, not {VERSION}")
            if key == WRITER_KEY:
                self._writer = max(int(document["generation"]), self._writer or 0)
                return
        except (ValueError, KeyError, TypeError) as problem:
            self._skip(key, f"{place}: {problem}")
            return
        self._documents[key] = document
        self._problems.pop(key, None)

    def _skip(self, key: str, problem: str) -> None:
        self._problems[key] = problem
        log.warning("%s: record %s was skipped: %s", self._topic, key, problem)

    # Writing

    def _begin(self, end: float) -> None:
        """Take over as the writer. Unfinished transactions of an older one are aborted by this."""
        self._make_topic()
        own = {
            "transactional.id": self._transactional_id,
            "transaction.timeout.ms": int(_TRANSACTION_SECONDS * 1000),
            "linger.ms": 5,
        }
        try:
            producer = Producer(configuration(self._config, own), logger=librdkafka)
        except (KafkaException, CdcError, ValueError, TypeError) as error:
            raise bad_settings(error) from None
        try:
            producer.init_transactions(max(0.1, end - time.monotonic()))
        except KafkaException as error:
            producer.poll(0)
            raise translated(error, f"take over {self._topic}", self._servers) from None
        self._producer = producer
        if self._generation is not None:
            # Between our look and our taking over, a newer one may have come.
            self._catch_up(end)
            self._refuse_if_newer(self._generation)

    def _commit(self, records: Mapping[str, Mapping[str, Any] | None], end: float) -> None:
        encoded = {key: self._encoded(key, document) for key, document in records.items()}
        try:
            self._transaction(encoded, end)
        except Fenced as error:
            self._producer = None
            self._catch_up(end)
            # An older writer that woke up takes a new epoch before it reads that it is too late.
            if self._generation is None or (self._writer or 0) > self._generation:
                self._fenced = error
                raise
            log.warning("%s: taking it back from an older writer", self._topic)
            self._begin(end)
            self._transaction(encoded, end)

    def _encoded(self, key: str, document: Mapping[str, Any] | None) -> bytes | None:
        if document is None:
            return None
        try:
            return msgspec.json.encode({VERSION_FIELD: VERSION, **document})
        except (TypeError, ValueError) as error:
            raise BadInput(f"no JSON document: {error}.", where=f"{self._topic}: {key}") from None

    def _transaction(self, encoded: Mapping[str, bytes | None], end: float) -> None:
        producer = self._producer
        assert producer is not None
        ends: dict[int, int] = {}

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                # Nothing may be asked of the message: with a fatal error, confluent-kafka 2.16 makes this
                # call while its exception is set already, and a SystemError would take its place.
                return
            partition, offset = message.partition(), message.offset()
            if partition is not None and offset is not None:
                ends[partition] = max(ends.get(partition, 0), offset + 1)

        try:
            producer.begin_transaction()
            for key, value in encoded.items():
                self._produce(producer, key, value, delivered, end)
            producer.flush(max(0.1, end - time.monotonic()))
            self._finish(producer, end)
            self._written.update(ends)
        except KafkaException as error:
            self._abandon(producer)
            raise translated(error, f"write {len(encoded)} records to {self._topic}", self._servers) from None

    def _produce(self, producer: Producer, key: str, value: bytes | None, delivered: Delivered, end: float) -> None:
        while True:
            try:
                producer.produce(self._topic, key=key.encode(), value=value, on_delivery=delivered)
                return
            except BufferError:
                if time.monotonic() > end:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None
                producer.poll(0.1)

    def _finish(self, producer: Producer, end: float) -> None:
        while True:
            try:
                producer.commit_transaction(max(0.1, end - time.monotonic()))
                return
            except KafkaException as error:
                # A commit that timed out goes on in the background: ask again.
                if not error.args[0].retriable() or time.monotonic() > end:
                    raise

    def _abandon(self, producer: Producer) -> None:
        """After a failed transaction the next write starts with a new producer, which ends the old one's."""
        with contextlib.suppress(KafkaException):
            producer.abort_transaction(1.0)
        self._producer = None

    def _refuse_if_newer(self, generation: int) -> None:
        if self._writer is not None and self._writer > generation:
            self._producer = None
            self._fenced = Fenced(
                f"{self._topic} is written under lock generation {self._writer}, ours is {generation}.",
                where=f"Kafka {self._servers}",
                cure="Another control plane has taken over: nothing to do.",
            )
            raise self._fenced

    def _make_topic(self) -> None:
        if self._topic in self._admin.topics([self._topic]):
            return
        replication = self._replication or min(3, self._admin.brokers())
        config = dict(_CONFIG)
        if replication > 2:
            config["min.insync.replicas"] = "2"
        self._admin.create_topics(
            [TopicRequest(name=self._topic, partitions=1, replication=replication, config=config)]
        )

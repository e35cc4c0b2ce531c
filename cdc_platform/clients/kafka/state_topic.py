"""The compacted state topic: what the platform has learnt, by key.

Written in transactions under one `transactional.id` a platform, so that a newer
writer fences an older one (KIP-98). Which of two writers is the newer is said
by the generation of the ZooKeeper lock, kept in the topic itself: a paused
process that wakes up late gets a new producer epoch, but not a newer generation.
`state_reader.py` reads it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc_platform.clients.kafka.admin import KafkaAdmin
from cdc_platform.clients.kafka.consumer import Partition
from cdc_platform.clients.kafka.librdkafka import kafka_errors, open_client, remaining, servers_of, translated
from cdc_platform.clients.kafka.producer import produce
from cdc_platform.clients.kafka.state_reader import VERSION, VERSION_FIELD, WRITER_KEY, StateReader
from cdc_platform.errors import BadInput, Fenced
from cdc_platform.model.observed import TopicRequest

log = logging.getLogger(__name__)

_CONFIG = {
    "cleanup.policy": "compact",
    # Read back as a whole at each start: keep it near its live size.
    "min.cleanable.dirty.ratio": "0.1",
    "segment.ms": str(60 * 60 * 1000),
    "segment.bytes": str(32 * 1024 * 1024),
    # A reader that comes back after a week still sees what was deleted.
    "delete.retention.ms": str(7 * 24 * 60 * 60 * 1000),
}
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
        self._admin = KafkaAdmin(self._config, timeout)
        self._reader = StateReader(self._config, topic, f"{self._transactional_id}-reader", self._admin)
        self._lock = threading.RLock()
        self._producer: Producer | None = None
        self._generation: int | None = None
        self._fenced: Fenced | None = None

    @property
    def problems(self) -> Mapping[str, str]:
        """Keys whose record could not be read, and why. Each was skipped; writing the key again repairs it."""
        with self._lock:
            return dict(self._reader.problems)

    def read(self) -> Mapping[str, Mapping[str, Any]]:
        """All records up to now; a later call reads only what is new. Empty when there is no topic.

        Raises:
            KafkaUnavailable: not all could be read in time.
        """
        with self._lock:
            self._reader.catch_up(time.monotonic() + self._timeout)
            return dict(self._reader.documents)

    def claim(self, generation: int) -> None:
        """Become the writer under a lock of this generation; the writer before is fenced.

        Raises:
            Fenced: a newer generation has been here; nothing was changed.
            KafkaUnavailable, KafkaRejected: it could not be done.
        """
        if self._named:
            raise BadInput("a writer of its own name holds no lock to claim with.", where=self._topic)
        with self._lock:
            end = time.monotonic() + self._timeout
            self._reader.catch_up(end)
            self._refuse_if_newer(generation)
            if self._reader.writer != self._generation:
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
                raise BadInput(f"{key!r} is not a valid key for a record.", where=self._topic, cure="Use KIND/NAME.")
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
            self._reader.close()
            self._producer = None

    def _begin(self, end: float) -> None:
        """Take over as the writer. Unfinished transactions of an older one are aborted by this."""
        self._make_topic()
        own = {
            "transactional.id": self._transactional_id,
            "transaction.timeout.ms": int(_TRANSACTION_SECONDS * 1000),
            "linger.ms": 5,
        }
        producer = open_client(Producer, self._config, own)
        try:
            producer.init_transactions(remaining(end))
        except KafkaException as error:
            producer.poll(0)
            raise translated(error, f"take over {self._topic}", servers_of(self._config)) from None
        self._producer = producer
        if self._generation is not None:
            # Between our look and our taking over, a newer one may have come.
            self._reader.catch_up(end)
            self._refuse_if_newer(self._generation)

    def _commit(self, records: Mapping[str, Mapping[str, Any] | None], end: float) -> None:
        encoded = {key: self._encoded(key, document) for key, document in records.items()}
        try:
            self._transaction(encoded, end)
        except Fenced as error:
            self._producer = None
            self._reader.catch_up(end)
            # An older writer that woke up takes a new epoch before it reads that it is too late.
            if self._generation is None or (self._reader.writer or 0) > self._generation:
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
        ends: dict[Partition, int] = {}

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                # Nothing may be asked of the message: with a fatal error, confluent-kafka 2.16 makes this
                # call while its exception is set already, and a SystemError would take its place.
                return
            partition, offset = message.partition(), message.offset()
            if partition is not None and offset is not None:
                key = (self._topic, partition)
                ends[key] = max(ends.get(key, 0), offset + 1)

        with kafka_errors(f"write {len(encoded)} records to {self._topic}", self._config):
            try:
                producer.begin_transaction()
                for key, value in encoded.items():
                    produce(producer, self._topic, key.encode(), value, end=end, delivered=delivered)
                producer.flush(remaining(end))
                self._finish(producer, end)
            except KafkaException:
                self._abandon(producer)
                raise
        self._reader.note_written(ends)

    def _finish(self, producer: Producer, end: float) -> None:
        while True:
            try:
                producer.commit_transaction(remaining(end))
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
        if self._reader.writer is not None and self._reader.writer > generation:
            self._producer = None
            self._fenced = Fenced(
                f"{self._topic} is written under lock generation {self._reader.writer}, ours is {generation}.",
                where=f"Kafka {servers_of(self._config)}",
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
        request = TopicRequest(name=self._topic, partitions=1, replication=replication, config=config)
        for error in self._admin.create_topics([request]).values():
            raise error

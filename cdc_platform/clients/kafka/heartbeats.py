"""When each connector last gave a sign of life: the shared heartbeat topic, read from a moment on.

Connect says RUNNING while a source is dead; a heartbeat comes only from a task
that reads its source. Debezium sends one every `heartbeat.interval.ms` per
connector, key `{"serverName": "<topic.prefix>"}`, to partition 0; its header
says which worker sent it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from cdc_platform.clients.kafka.librdkafka import bad_settings, configuration, log, translated
from cdc_platform.connectors.routing import WORKER_HEADER
from cdc_platform.errors import CdcError, KafkaUnavailable
from cdc_platform.model.observed import ObservedBeats, ObservedHeartbeats

_BATCH = 10_000
_POLL_SECONDS = 0.02


class _Key(msgspec.Struct):
    server_name: str = msgspec.field(name="serverName")


class _WithSchema(msgspec.Struct):
    payload: _Key


_plain = msgspec.json.Decoder(_Key)
_wrapped = msgspec.json.Decoder(_WithSchema)


class HeartbeatTopic:
    """Reads the heartbeats of one platform. Nothing is connected before the first call.

    Args:
        config: a librdkafka configuration; values may be references.
        topic: its name.
        timeout: seconds for each call as a whole.
    """

    def __init__(self, config: Mapping[str, str], topic: str, *, timeout: float = 15.0) -> None:
        self._config = dict(config)
        self._topic = topic
        self._timeout = timeout
        self._servers = config.get("bootstrap.servers", "(no bootstrap.servers)")
        self._lock = threading.Lock()
        self._consumer: Consumer | None = None

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._consumer is not None:
                self._consumer.close()
                self._consumer = None

    def read(self, window: timedelta) -> ObservedHeartbeats:
        """The heartbeats of the last `window`, by the time of the records.

        The window ends with the topic's newest record, so that this machine's
        clock does not matter. A topic that does not exist yet gives nothing.

        Raises:
            KafkaUnavailable: not read to its end in time.
        """
        with self._lock:
            try:
                return self._read(window, time.monotonic() + self._timeout)
            except KafkaException as error:
                raise translated(error, f"read {self._topic}", self._servers) from None

    def _read(self, window: timedelta, end: float) -> ObservedHeartbeats:
        consumer = self._opened()
        partitions = _partitions(consumer, self._topic, end)
        if not partitions:
            return ObservedHeartbeats(since=datetime.now(UTC) - window, newest=None, beats={})
        bounds = {p: _ends(consumer, self._topic, p, end) for p in partitions}
        newest = self._newest(consumer, bounds, end)
        if newest is None:
            return ObservedHeartbeats(since=datetime.now(UTC) - window, newest=None, beats={})
        since = newest - window
        beats = _Beats()
        starts = consumer.offsets_for_times(
            [TopicPartition(self._topic, p, _millis(since)) for p, (low, high) in bounds.items() if high > low],
            timeout=max(0.1, end - time.monotonic()),
        )
        # A negative offset: nothing is newer than `since` in that partition.
        self._consume(consumer, {s.partition: s.offset for s in starts if s.offset >= 0}, bounds, beats.note, end)
        return ObservedHeartbeats(since=since, newest=max(newest, beats.newest or newest), beats=beats.found())

    def _newest(self, consumer: Consumer, bounds: Mapping[int, tuple[int, int]], end: float) -> datetime | None:
        """The time of the last record of any partition."""
        last: list[datetime] = []
        # The record at the end may be compacted away, or a marker: the last few are looked at.
        tails = {p: max(low, high - 16) for p, (low, high) in bounds.items() if high > low}
        self._consume(consumer, tails, bounds, lambda batch: last.extend(map(_time, batch)), end)
        return max(last, default=None)

    def _consume(
        self,
        consumer: Consumer,
        starts: Mapping[int, int],
        bounds: Mapping[int, tuple[int, int]],
        note: Callable[[list[Message]], None],
        end: float,
    ) -> None:
        """Give `note` all records from `starts` up to the ends in `bounds`, by partition."""
        left = {p: bounds[p][1] for p, start in starts.items() if start < bounds[p][1]}
        if not left:
            return
        consumer.assign([TopicPartition(self._topic, p, starts[p]) for p in left])
        try:
            while left:
                if time.monotonic() > end:
                    raise KafkaUnavailable(
                        f"not read to its end within {self._timeout:.0f} s.",
                        where=f"topic {self._topic}",
                        cure="Without heartbeats nobody is judged stuck; see that the brokers are well.",
                    )
                batch = consumer.consume(_BATCH, timeout=_POLL_SECONDS)
                note([message for message in batch if message.error() is None])
                for message in batch:
                    error = message.error()
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                for reached in consumer.position([TopicPartition(self._topic, p) for p in left]):
                    # Past what was the end at the start, or past markers that come as no message.
                    if reached.offset >= left[reached.partition]:
                        del left[reached.partition]
                for message in batch:
                    if message.error() is not None:
                        left.pop(message.partition(), None)  # type: ignore[arg-type]
        finally:
            consumer.unassign()

    def _opened(self) -> Consumer:
        if self._consumer is None:
            own = {
                "group.id": "cdc-platform-heartbeats",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
                # Read ahead no further than a batch or two: 64 MB by default.
                "queued.max.messages.kbytes": 8192,
            }
            try:
                self._consumer = Consumer(configuration(self._config, own), logger=log)
            except (KafkaException, CdcError, ValueError, TypeError) as error:
                raise bad_settings(error) from None
        return self._consumer


class _Beats:
    """Collects heartbeats by shard and sender."""

    def __init__(self) -> None:
        # By raw key: by sender's raw name the times of the first and the last, in ms.
        self._seen: dict[bytes, dict[bytes, list[int]]] = {}

    @property
    def newest(self) -> datetime | None:
        times = [times[1] for senders in self._seen.values() for times in senders.values()]
        return _datetime(max(times)) if times else None

    def note(self, batch: list[Message]) -> None:
        """A hundred thousand records a pass come through here: nothing is decoded but once a shard."""
        seen = self._seen
        for message in batch:
            key: Any = message.key()
            at = message.timestamp()[1]
            headers: Any = message.headers()
            sender = b""
            for header, value in headers or ():
                if header == WORKER_HEADER:
                    sender = value
            senders = seen.get(key)
            if senders is None:
                seen[key] = {sender: [at, at]}
                continue
            times = senders.get(sender)
            if times is None:
                senders[sender] = [at, at]
            elif at > times[1]:
                times[1] = at
            elif at < times[0]:
                times[0] = at

    def found(self) -> dict[str, ObservedBeats]:
        """By shard; records of strangers are left out."""
        merged: dict[str, dict[bytes, list[int]]] = {}
        for key, senders in self._seen.items():
            shard = _shard(key)
            if shard is None:
                continue
            # Two spellings of one key, such as with and without a schema, are one shard's.
            known = merged.setdefault(shard, {})
            for sender, (first, last) in senders.items():
                times = known.setdefault(sender, [first, last])
                times[:] = min(times[0], first), max(times[1], last)
        return {
            shard: ObservedBeats(
                last=_datetime(max(last for _, last in senders.values())),
                senders={
                    (sender or b"").decode(errors="replace"): (_datetime(first), _datetime(last))
                    for sender, (first, last) in senders.items()
                },
            )
            for shard, senders in merged.items()
        }


def _shard(key: bytes | None) -> str | None:
    """The shard of a heartbeat's key, with or without a schema around it."""
    if not key:
        return None
    try:
        return _plain.decode(key).server_name
    except msgspec.ValidationError:
        try:
            return _wrapped.decode(key).payload.server_name
        except msgspec.MsgspecError:
            return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _partitions(consumer: Consumer, topic: str, end: float) -> list[int]:
    found = consumer.list_topics(topic, timeout=max(0.1, end - time.monotonic())).topics[topic]
    return sorted(found.partitions) if found.error is None else []


def _ends(consumer: Consumer, topic: str, partition: int, end: float) -> tuple[int, int]:
    found = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=max(0.1, end - time.monotonic()))
    if found is None:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
    return int(found[0]), int(found[1])


def _time(message: Message) -> datetime:
    return _datetime(message.timestamp()[1])


def _datetime(millis: int) -> datetime:
    return datetime.fromtimestamp(millis / 1000, UTC)


def _millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)

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
from confluent_kafka import Consumer, Message

from cdc_platform.clients.kafka.consumer import (
    assign,
    offsets_at,
    open_consumer,
    partitions_of,
    read_to_end,
    watermarks,
)
from cdc_platform.clients.kafka.librdkafka import kafka_errors, remaining
from cdc_platform.connectors.routing import WORKER_HEADER
from cdc_platform.model import bounded_json
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
        with self._lock, kafka_errors(f"read {self._topic}", self._config):
            return self._read(window, time.monotonic() + self._timeout)

    def _read(self, window: timedelta, end: float) -> ObservedHeartbeats:
        if self._consumer is None:
            self._consumer = open_consumer(self._config, "cdc-platform-heartbeats")
        consumer = self._consumer
        ends: dict[int, int] = {}
        # The record at the end may be compacted away, or a marker: the last few are looked at.
        tails: dict[int, int] = {}
        for partition in partitions_of(consumer, self._topic, end):
            low, high = watermarks(consumer, self._topic, partition, end)
            if high > low:
                ends[partition], tails[partition] = high, max(low, high - 16)
        last: list[datetime] = []
        self._consume(tails, ends, lambda batch: last.extend(map(_time, batch)), end)
        if not last:
            return ObservedHeartbeats(since=datetime.now(UTC) - window, newest=None, beats={})
        newest = max(last)
        since = newest - window
        beats = _Beats()
        starts = offsets_at(consumer, self._topic, dict.fromkeys(ends, _millis(since)), end)
        self._consume(starts, ends, beats.note, end)
        return ObservedHeartbeats(since=since, newest=max(newest, beats.newest or newest), beats=beats.found())

    def _consume(
        self, starts: Mapping[int, int], ends: Mapping[int, int], note: Callable[[list[Message]], None], end: float
    ) -> None:
        """Give `note` all records from `starts` up to `ends`, by partition."""
        consumer = self._consumer
        assert consumer is not None
        offsets = {(self._topic, partition): start for partition, start in starts.items()}
        assign(consumer, offsets)
        try:
            for batch in read_to_end(
                consumer,
                offsets,
                {(self._topic, partition): ends[partition] for partition in starts},
                timeout=remaining(end),
                stop_at_eof=True,
                batch=_BATCH,
                poll=_POLL_SECONDS,
            ):
                note(batch)
        finally:
            consumer.unassign()


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
        return bounded_json.decode(_plain, key).server_name
    except msgspec.ValidationError:
        try:
            return bounded_json.decode(_wrapped, key).payload.server_name
        except msgspec.MsgspecError:
            return None
    except msgspec.DecodeError:
        return None


def _time(message: Message) -> datetime:
    return _datetime(message.timestamp()[1])


def _datetime(millis: int) -> datetime:
    return datetime.fromtimestamp(millis / 1000, UTC)


def _millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)

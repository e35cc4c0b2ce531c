"""Events of a topic as rows of `changes`: each once, and of each key that changed the one that counts now marked."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from cdc_platform.clients.kafka.topic_records import Records, TopicBounds
from cdc_platform.lake.tables import BUCKET, CURRENT, KEY, RUN, SEQ, STREAM
from cdc_platform.model import bounded_json
from cdc_platform.reading.batches import OPERATION, POSITION, BatchBuilder
from cdc_platform.reading.offset_sets import OffsetSets
from cdc_platform.reading.partial_rows import partial_rows
from cdc_platform.verification.proof.change_events import (
    NO_POSITION,
    NO_SHARD,
    OFFSET_BITS,
    PARTIAL,
    Words,
    partition_offsets,
)
from cdc_platform.verification.proof.decoding import OPERATIONS, JsonDecoder
from cdc_platform.verification.proof.fold import last_of_each_key
from cdc_platform.verification.proof.raw_keys import of_the_row
from cdc_platform.verification.proof.source_positions import POSITION_DTYPE, POSITIONS, position_text
from cdc_platform.verification.proof.toast_values import Tokens
from cdc_platform.verification.proof.topic_fold import TopicFold

BATCH_ROWS = 5_000

TIME, PARTITION, OFFSET = "cdc_time", "cdc_partition", "cdc_offset"
EXTRA = {
    BUCKET: pa.int32(),
    KEY: pa.string(),
    OPERATION: pa.string(),
    POSITION: pa.string(),
    TIME: pa.timestamp("us", "UTC"),
    PARTITION: pa.int32(),
    OFFSET: pa.int64(),
    RUN: pa.int64(),
    CURRENT: pa.bool_(),
    STREAM: pa.int64(),
    SEQ: pa.int64(),
}

# Of a value that Postgres did not send, in `cdc_unheld` of an event that does not count any more.
NOT_SENT = "(unchanged, not sent)"

# The end of the year 9999.
_LAST_MS = 253_402_300_799_999
_OPERATIONS = frozenset(OPERATIONS.tobytes().decode())
_UNREADABLE = (msgspec.DecodeError, KeyError, ValueError, TypeError, OverflowError)


class _Source(msgspec.Struct):
    ts_ms: int | None = None


class _Envelope(msgspec.Struct):
    source: _Source | None = None
    payload: msgspec.Raw = msgspec.Raw()


_ENVELOPE = msgspec.json.Decoder(_Envelope)


@dataclass(frozen=True, slots=True)
class NewEvents:
    """The events of a folded topic between two offsets of each partition (`begins`, and the ends of `bounds`)."""

    fold: TopicFold
    records: Records
    bounds: TopicBounds
    begins: Mapping[int, int]
    run: int
    buckets: int
    slab_rows: int
    cache: Path
    # Partition and offset of each that cannot be read, as they are met.
    unreadable: list[tuple[int, int]] = field(default_factory=list)

    def builder(self) -> BatchBuilder:
        """For their rows. Raises BadInput."""
        return BatchBuilder(self.fold.shape.engine, self.fold.shape.columns, EXTRA)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All of them. Raises TopicUnreadable and what Kafka raises."""
        decoder, builder = self.fold.decoder(), self.builder()
        ranges = {number: (self.begins[number], end) for number, (_, end) in self.bounds.partitions.items()}
        with OffsetSets(ranges, self.cache) as current, OffsetSets(ranges, self.cache) as lacking:
            partial = self._choose(current, lacking)
            for row in self._whole(ranges, current, lacking, decoder):
                builder.add(*row)
                if len(builder) >= BATCH_ROWS:
                    yield builder.batch()
            for row in self._partial(partial, decoder):
                builder.add(*row)
                if len(builder) >= BATCH_ROWS:
                    yield builder.batch()
        if len(builder):
            yield builder.batch()

    def newest(self, keys: Mapping[str, Words]) -> Iterator[pa.RecordBatch]:
        """The newest event of each of these keys, by shard and the fold's numbers, as the row that counts.

        Those that the topic no longer has are left out. Raises TopicUnreadable.
        """
        decoder, builder = self.fold.decoder(), self.builder()
        for shard, words in keys.items():
            events = self.fold.as_sent(shard, 0, 1 << 64, only=words)
            last = last_of_each_key(events[of_the_row(events)])
            lacking = last["row"] == PARTIAL
            for number, offset in partition_offsets(last[~lacking]):
                key, value = self.fold.fetch(number, [offset]).get(offset, (None, None))
                if key is not None:
                    builder.add(*self._row(decoder, key, value, (number, offset), True))
            if lacking.any():
                for row in self._partial({shard: [last["key"][lacking]]}, decoder):
                    builder.add(*row)
            if len(builder):
                yield builder.batch()

    def _choose(self, current: OffsetSets, lacking: OffsetSets) -> dict[str, list[Words]]:
        """Put the new events that are the newest of their keys into the sets; keys of those that lack values."""
        partial: dict[str, list[Words]] = {}
        for shard in self.fold.others((NO_SHARD,)):
            ranges = 1 + self.fold.count(shard) // self.slab_rows
            for at in range(ranges):
                events = self.fold.as_sent(shard, (at << 64) // ranges, (at + 1 << 64) // ranges)
                last = last_of_each_key(events[of_the_row(events)])
                numbers, offsets = last["offset"] >> OFFSET_BITS, last["offset"] & ((1 << OFFSET_BITS) - 1)
                for number, begin in self.begins.items():
                    new = (numbers == number) & (offsets >= begin)
                    whole = new & (last["row"] != PARTIAL)
                    current.add(number, offsets[whole])
                    if (new & ~whole).any():
                        lacking.add(number, offsets[new & ~whole])
                        partial.setdefault(shard, []).append(last["key"][new & ~whole])
        return partial

    def _whole(
        self, ranges: Mapping[int, tuple[int, int]], current: OffsetSets, lacking: OffsetSets, decoder: JsonDecoder
    ) -> Iterator[Any]:
        for number, (begin, end) in ranges.items():
            for batch in self.records.read(number, begin, end):
                marked, left = current.among(number, batch.offsets), lacking.among(number, batch.offsets)
                for at, offset in enumerate(batch.offsets):
                    key = batch.keys[at]
                    if key is None or left[at]:
                        continue
                    try:
                        row = self._row(decoder, key, batch.values[at], (number, offset), bool(marked[at]))
                    except _UNREADABLE:
                        # The fold has named it; the verdict on its key is not `proven`.
                        self.unreadable.append((number, offset))
                        continue
                    yield row

    def _row(
        self,
        decoder: JsonDecoder,
        key: bytes,
        value: bytes | None,
        place: tuple[int, int],
        current: bool,
        whole: Tokens | None = None,
    ) -> Any:
        shard, fields = decoder.key_fields(key)
        own: Tokens = {name: bytes(fields[name]) for name in self.fold.shape.key if name in fields}
        if len(own) == len(self.fold.shape.key):
            text = self.fold.rows.key({name: token or b"" for name, token in own.items()}).decode(errors="replace")
        else:
            text = key.decode(errors="replace")  # from before the key was changed
        event = None if value is None else decoder.event(value)
        unheld: list[tuple[str, str]] = []
        operation = "d" if event is None else str(event.op)
        if operation not in _OPERATIONS:
            raise ValueError("an operation other than c, u, d, r")
        if whole is not None:
            own = whole
        elif event is not None and bytes(event.after) != b"null":
            own = self.fold.rows.wire_tokens(bytes(event.after))
            unheld = [(name, NOT_SENT) for name, token in own.items() if token is None]
        stream, seq = (None, None) if event is None else self._transaction(event)
        millis = None if value is None else _millis(value)
        extra = {
            BUCKET: zlib.crc32(f"{shard}\x1f{text}".encode()) % self.buckets,
            KEY: text,
            OPERATION: operation,
            POSITION: None if event is None else position_text(self.fold.shape.engine, event),
            TIME: None if millis is None else millis * 1000,
            PARTITION: place[0],
            OFFSET: place[1],
            RUN: self.run,
            CURRENT: current,
            STREAM: stream,
            SEQ: seq,
        }
        return shard, own, extra, unheld

    def _transaction(self, event: Any) -> tuple[int, int]:
        """Its numbers as positions see them; none for rows that a snapshot read."""
        if event.op == "r":
            return 0, 0
        found = np.zeros(1, dtype=POSITION_DTYPE)
        POSITIONS[self.fold.shape.engine]([event], found)
        if found["seq"][0] >= NO_POSITION:
            raise ValueError("a source position beyond all that a server comes to")
        return int(found["stream"][0]), int(found["seq"][0])

    def _partial(self, partial: Mapping[str, list[Words]], decoder: JsonDecoder) -> Iterator[Any]:
        for shard, keys in partial.items():
            for events, index, tokens in partial_rows(self.fold, decoder, shard, keys, self.cache):
                [(number, offset)] = partition_offsets(events[index : index + 1])
                key, value = self.fold.fetch(number, [offset])[offset]
                yield self._row(decoder, key or b"", value, (number, offset), True, tokens)


def _millis(value: bytes) -> int | None:
    found = bounded_json.decode(_ENVELOPE, value)
    if bytes(found.payload):
        found = bounded_json.decode(_ENVELOPE, bytes(found.payload))
    millis = None if found.source is None else found.source.ts_ms
    return millis if millis is not None and 0 <= millis <= _LAST_MS else None

"""A topic read as a table: the last version of each row in the source's order, which the fold of the proof knows.

The fold says which record of each key is its newest, by source position and never by offset; then the topic is read
once more for just those. Nothing that grows with the table is held in memory.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cdc_platform.canonical.columns import Shape
from cdc_platform.clients.kafka.topic_records import Records, TopicBounds, picked
from cdc_platform.errors import KafkaUnavailable
from cdc_platform.model.position_codec import format_lsn
from cdc_platform.model.positions import Position
from cdc_platform.model.topology import Dataset, Shard, Table, Topology
from cdc_platform.reading.batches import DELETE, OPERATION, POSITION, UPSERT, BatchBuilder
from cdc_platform.reading.offset_sets import OffsetSets
from cdc_platform.reading.partial_rows import partial_rows
from cdc_platform.reading.table_shape import table_shape
from cdc_platform.verification.ports import VerificationPolicy, VerificationPorts
from cdc_platform.verification.proof.change_events import (
    ABSENT,
    OFFSET_BITS,
    OWN,
    PARTIAL,
    UNKNOWN,
    Events,
    Words,
)
from cdc_platform.verification.proof.decoding import JsonDecoder
from cdc_platform.verification.proof.fold import last_of_each_key
from cdc_platform.verification.proof.raw_keys import of_the_row
from cdc_platform.verification.proof.source_positions import position_text
from cdc_platform.verification.proof.toast_values import Tokens
from cdc_platform.verification.proof.topic_fold import TopicFold

log = logging.getLogger(__name__)

# Rows of a record batch.
BATCH_ROWS = 5_000

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class TopicReader:
    """Reads one table's topic. `shards`: all of the topology when None.

    Each call of `state` and `changes` reads the topic as it is then, and gives a reader that is good for one pass;
    what it needs is closed when it is exhausted or closed. Rows whose last record cannot be read are left out: `warn`
    is called with how many, and where the last such record stands.
    """

    ports: VerificationPorts
    topology: Topology
    dataset: str
    table: str
    shards: Sequence[str] | None = None
    report: Progress = field(default=lambda done, total: None)
    warn: Callable[[str], None] = log.warning

    def state(self) -> pa.RecordBatchReader:
        """The table's current rows: `cdc_shard`, its columns, `cdc_unheld`.

        Raises TopologyError, NotFound, TopicUnreadable and what Kafka and sources raise.
        """
        return self._read(None)

    def changes(self, since: Mapping[str, Position]) -> pa.RecordBatchReader:
        """The rows that changed behind a position of each shard, each once, as they are now.

        `cdc_operation` is `upsert` or `delete`; of a deleted row the columns of its key are there, the others are
        NULL. A shard without a position counts from its beginning. `cdc_position` is where the change was made, NULL
        for what a snapshot read.
        """
        return self._read(since)

    def _read(self, since: Mapping[str, Position] | None) -> pa.RecordBatchReader:
        dataset = self.topology.dataset(self.dataset)
        table = dataset.table(self.table)
        known = self.topology.shards.get(self.dataset, ())
        chosen = known if self.shards is None else [self.topology.shard(self.dataset, name) for name in self.shards]
        records = self.ports.records(dataset.topic(table))
        try:
            reading = self._open(dataset, table, chosen, records)
            builder = reading.builder(changes=since is not None)
            return pa.RecordBatchReader.from_batches(builder.schema, _until_closed(reading, builder, since))
        except BaseException:
            records.close()
            raise

    def _open(self, dataset: Dataset, table: Table, shards: Sequence[Shard], records: Records) -> _Reading:
        shape = table_shape(self.ports, dataset, table, shards, records)
        settings = self.ports.platform.settings
        cache = Path(settings.cache_dir)
        fold = TopicFold(cache, settings.platform, dataset.topic(table), shape, records)
        bounds = records.bounds()
        # No positions: what a verification may still need of the shared fold stays in it.
        fold.extend(bounds, {}, self.report)
        ids = tuple(shard.id for shard in shards)
        slab_rows = VerificationPolicy.of(dataset).slab_rows
        return _Reading(fold, records, bounds, shape, ids, cache, slab_rows, dataset.topic(table), self.warn)


@dataclass(frozen=True, slots=True)
class _Reading:
    """A topic folded up to `bounds`."""

    fold: TopicFold
    records: Records
    bounds: TopicBounds
    shape: Shape
    shards: tuple[str, ...]
    cache: Path
    slab_rows: int
    topic: str
    warn: Callable[[str], None]

    def builder(self, *, changes: bool) -> BatchBuilder:
        extra = {OPERATION: pa.string(), POSITION: pa.string()} if changes else {}
        return BatchBuilder(self.shape.engine, self.shape.columns, extra)

    def batches(self, builder: BatchBuilder, since: Mapping[str, Position] | None) -> Iterator[pa.RecordBatch]:
        decoder = self.fold.decoder()
        with OffsetSets(self.bounds.partitions, self.cache) as newest:
            partial = self._choose(newest, since)
            for row in itertools.chain(self._whole(newest, decoder), self._partial(partial, decoder)):
                builder.add(*row)
                if len(builder) >= BATCH_ROWS:
                    yield builder.batch()
        if len(builder):
            yield builder.batch()

    def _choose(self, newest: OffsetSets, since: Mapping[str, Position] | None) -> dict[str, list[Words]]:
        """Put the newest records into the set; of those that lack values the keys are returned, by shard."""
        partial: dict[str, list[Words]] = {}
        left_out: Counter[str] = Counter()
        for shard in self.shards:
            batches = 1 + self.fold.count(shard) // self.slab_rows
            for at in range(batches):
                events = self.fold.as_sent(shard, (at << 64) // batches, (at + 1 << 64) // batches)
                last = last_of_each_key(events[of_the_row(events)])
                last = last[last["row"] != ABSENT] if since is None else last[_behind(last, since.get(shard))]
                unread = last["row"] == UNKNOWN
                left_out[shard] += int(unread.sum())
                last = last[~unread]
                lacking = last["row"] == PARTIAL
                if lacking.any():
                    partial.setdefault(shard, []).append(last["key"][lacking])
                last = last[~lacking]
                for partition in np.unique(last["offset"] >> OFFSET_BITS).tolist():
                    own = last["offset"][last["offset"] >> OFFSET_BITS == partition]
                    newest.add(partition, own & ((1 << OFFSET_BITS) - 1))
        for shard, count in (+left_out).items():
            last_unread = self.fold.unreadable_of(shard)[0][-1:]
            where = "; ".join(record.sentence(self.topic) for record in last_unread)
            self.warn(
                f"{count} rows of shard {shard} are left out, for their last record cannot be read; the last such: "
                f"{where}. `cdc-platform repair` sends the rows again."
            )
        return partial

    def _whole(self, newest: OffsetSets, decoder: JsonDecoder) -> Iterator[Row]:
        for partition, count in newest.counts.items():
            found = 0
            for offsets in newest.pieces(partition):
                for key, value, _ in picked(self.records, partition, offsets):
                    found += 1
                    yield self._row(decoder, key, value)
            if found < count:
                raise KafkaUnavailable(
                    f"compaction took {count - found} records of partition {partition} while they were read.",
                    cure="Read again.",
                )

    def _row(self, decoder: JsonDecoder, key: bytes | None, value: bytes | None) -> Row:
        shard, fields = decoder.key_fields(key or b"")
        event = None if value is None else decoder.event(value)
        if event is None or bytes(event.after) == b"null":
            tokens: Tokens = {name: bytes(fields[name]) for name in self.shape.key if name in fields}
            operation = DELETE
        else:
            tokens, operation = self.fold.rows.wire_tokens(bytes(event.after)), UPSERT
        where = None if event is None else position_text(self.shape.engine, event)
        return shard, tokens, {OPERATION: operation, POSITION: where}

    def _partial(self, partial: Mapping[str, list[Words]], decoder: JsonDecoder) -> Iterator[Row]:
        for shard, keys in partial.items():
            for events, index, tokens in partial_rows(self.fold, decoder, shard, keys, self.cache):
                # Only Postgres leaves values out.
                where = format_lsn(int(events["seq"][index])) if events["sub"][index] < OWN else None
                yield shard, tokens, {OPERATION: UPSERT, POSITION: where}


# A row: its shard, its columns' tokens, and what stands beside them.
Row = tuple[str, Tokens, Mapping[str, Any]]


def _until_closed(
    reading: _Reading, builder: BatchBuilder, since: Mapping[str, Position] | None
) -> Iterator[pa.RecordBatch]:
    try:
        yield from reading.batches(builder, since)
    finally:
        reading.records.close()


def _behind(events: Events, since: Position | None) -> npt.NDArray[np.bool_]:
    """For each event: was it made behind the position?

    Rows that the topic's first full snapshot read are older than any position; those of a later one may be anything.
    """
    if since is None:
        return np.ones(len(events), dtype=np.bool_)
    seen = since.sees(events["stream"], events["seq"])
    found: npt.NDArray[np.bool_] = ~seen | ((events["seq"] == 0) & (events["epoch"] > 1))
    return found

"""Reads the transactions' topic: BEGIN and END of each transaction, with the numbers of events that it has."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from cdc_platform.clients.kafka.topic_records import Batch
from cdc_platform.connectors.tables import container
from cdc_platform.model import bounded_json
from cdc_platform.model.topology import Dataset, Engine, Shard, Table
from cdc_platform.verification.continuity.committed_positions import transaction_of
from cdc_platform.verification.continuity.handovers import SENT
from cdc_platform.verification.continuity.ledger_store import codes, numbered
from cdc_platform.verification.continuity.transaction_balance import END, Rows
from cdc_platform.verification.duplicates.deliveries import SHARD_HEADER, transaction_words
from cdc_platform.verification.proof.change_events import packed


class _Collection(msgspec.Struct):
    data_collection: str
    event_count: int


class _Transaction(msgspec.Struct):
    status: str | None = None
    id: str | None = None
    data_collections: list[_Collection] | None = None
    payload: _Transaction | None = None


_DECODER = msgspec.json.Decoder(_Transaction)


class EndReader:
    """Reads BEGIN and END of a dataset's shards, as far as they are about one table."""

    def __init__(self, dataset: Dataset, table: Table, shards: Mapping[str, Shard], names: list[str]) -> None:
        self._engine = dataset.engine
        self._prefix = f"{dataset.name}."
        # As Debezium names the table: by database or schema.
        self._collections = {id: f"{container(dataset, shard, table)}.{table.name}" for id, shard in shards.items()}
        self._names = names
        self._codes = dict(codes(names))

    def read(self, partition: int, batch: Batch) -> tuple[Rows, Rows]:
        """The batch's ENDs that count events of the table, and how far each shard was sent (`SENT`)."""
        ends: list[tuple[int, ...]] = []
        sent: list[tuple[int, ...]] = []
        for value, offset, headers, time in zip(batch.values, batch.offsets, batch.headers, batch.times, strict=True):
            name = next((text for header, text in headers if header == SHARD_HEADER), b"").decode()
            if value is None or not name.startswith(self._prefix):
                continue
            shard = name.removeprefix(self._prefix)
            found = decoded(value)
            if found.id is None or shard not in self._collections:
                continue
            try:
                stream, seq = transaction_of(self._engine, found.id)
            except ValueError:
                continue
            code = numbered(self._names, self._codes, shard)
            log = 0 if self._engine is Engine.POSTGRES else stream
            sent.append((code, log, seq, time, time))
            table = self._collections[shard]
            count = sum(one.event_count for one in found.data_collections or () if one.data_collection == table)
            if found.status == "END" and count:
                ends.append((stream, code, count, stream, seq, packed(partition, offset), time))
        rows = np.array(ends, dtype=END) if ends else np.zeros(0, dtype=END)
        if len(rows):
            rows["transaction"] = transaction_words(self._engine, rows["stream"], rows["seq"])
        return rows, np.array(sent, dtype=SENT) if sent else np.zeros(0, dtype=SENT)


def furthest(rows: Rows, moment_ms: int = 200) -> Rows:
    """The furthest of each shard and log within a moment."""
    if len(rows) < 2:
        return rows
    moments = rows["first"] // moment_ms
    order = np.lexsort((rows["seq"], moments, rows["log"], rows["shard"]))
    rows, moments = rows[order], moments[order]
    new = (rows["shard"][1:] != rows["shard"][:-1]) | (rows["log"][1:] != rows["log"][:-1])
    starts = np.flatnonzero(np.append(True, new | (moments[1:] != moments[:-1])))
    found: Rows = rows[np.append(starts[1:], len(rows)) - 1].copy()
    found["first"] = np.minimum.reduceat(rows["first"], starts)
    found["last"] = np.maximum.reduceat(rows["last"], starts)
    return found


def decoded(value: bytes) -> _Transaction:
    """One record of the transactions' topic; an empty one when it is something else."""
    try:
        found = bounded_json.decode(_DECODER, value)
    except msgspec.DecodeError:
        return _Transaction()
    return found.payload or found

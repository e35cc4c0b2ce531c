"""Which task run sent which event: records as deliveries, one fixed-size row each.

An event's identity, by engine, as 64 bits of a hash:

- MariaDB, MySQL: GTID (domain or server, number), key, operation. Its `position` is kept beside it:
  the number in the transaction tells two changes of one row apart, the offset in the binlog two servers.
- Postgres: transaction id, LSN, key, operation. Rows of one COPY share an LSN.
- Rows that a snapshot read have no position: the key alone. One that comes again is a
  re-snapshot.

The key holds the shard. Tombstones follow their delete and are not events of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from cdc_platform.clients.kafka.topic_records import Batch
from cdc_platform.connectors.identity import SHARD_KEY_FIELD
from cdc_platform.model.bounded_json import UNREADABLE
from cdc_platform.model.topology import Engine
from cdc_platform.verification.proof.change_events import Words
from cdc_platform.verification.proof.decoding import OPERATIONS
from cdc_platform.verification.proof.envelopes import BinlogSource, PostgresSource, wrapped
from cdc_platform.verification.proof.source_positions import POSITION_DTYPE, POSITIONS

# `time` is the record's own (ms since 1970): a producer that sends a batch again keeps it.
# `run` is a number within one partition's `TaskRuns`.
DELIVERY = np.dtype(
    [("key", "u8"), ("position", "u8"), ("offset", "i8"), ("time", "i8"), ("seq", "u8"), ("run", "u4"), ("kind", "u1")]
)

Deliveries = npt.NDArray[np.void]

STREAMED, READ = range(2)

# The low bits of a position: the number of the event in its transaction, from 1 on; 0 where it has none. MariaDB's
# events have the position of their transaction, and row numbers restart with each statement. Above it a hash of the
# offset in the binlog.
NUMBERS = np.uint64((1 << 36) - 1)

SHARD_HEADER = "cdc.shard"
WORKER_HEADER = "cdc.worker"
RUN_HEADER = "__debezium.context.runId"
_SENDER = (SHARD_HEADER, RUN_HEADER, WORKER_HEADER)

_READ_OP = ord("r")
_KNOWN = np.isin(np.arange(256), OPERATIONS)

# Bytes; a longer one is hashed first.
_LONGEST_KEY = 256


class _Key(msgspec.Struct):
    shard: str | None = msgspec.field(default=None, name=SHARD_KEY_FIELD)
    payload: Any = None


class _Order(msgspec.Struct, gc=False):
    total_order: int = 0


class _Binlog(msgspec.Struct, gc=False):
    op: str
    source: BinlogSource
    transaction: _Order | None = None


class _Postgres(msgspec.Struct, gc=False):
    op: str
    source: PostgresSource


class _Release(msgspec.Struct, gc=False):
    version: str | None = None


class _Sender(msgspec.Struct, gc=False):
    source: _Release


_KEY = msgspec.json.Decoder(_Key)


@dataclass(slots=True)
class TaskRuns:
    """Numbers of (shard, run id, worker), in the order in which they came. An empty run id is unknown.

    `counting_on` are those seen here that number on where they take over a transaction in its middle.
    """

    names: list[tuple[str, str, str]] = field(default_factory=list)
    _codes: dict[tuple[str, str, str], int] = field(default_factory=dict)
    _raw: dict[tuple[bytes | None, ...], int] = field(default_factory=dict)
    # The indexes of shard, run and worker among so many headers.
    _indexes: tuple[int, ...] = (0, 0, 0, -1)
    counting_on: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, names: Sequence[tuple[str, str, str]]) -> TaskRuns:
        """TaskRuns that go on from these."""
        return cls(list(names), {name: code for code, name in enumerate(names)})

    def codes(self, headers: Sequence[Sequence[tuple[str, bytes]]], keys: Sequence[bytes]) -> list[int]:
        """The number of the sender of each record."""
        found = self._known(headers)
        if None not in found:
            return found
        return [self._code(headers[at], keys[at]) if code is None else code for at, code in enumerate(found)]

    def _known(self, headers: Sequence[Sequence[tuple[str, bytes]]]) -> list[Any]:
        """The numbers of known senders, where all have their headers at the same indexes, as Connect writes them."""
        indexes = self._indexes
        if set(map(len, headers)) == {indexes[-1]}:
            values = []
            for name, at in zip(_SENDER, indexes, strict=False):
                if [own[at][0] for own in headers].count(name) < len(headers):
                    break
                values.append([own[at][1] for own in headers])
            else:
                return list(map(self._raw.get, zip(*values, strict=True)))
        return [None] * len(headers)

    def _code(self, headers: Sequence[tuple[str, bytes]], key: bytes) -> int:
        at = {name: index for index, (name, _) in enumerate(headers)}
        raw = tuple(headers[at[name]][1] if name in at else None for name in _SENDER)
        code = self._raw.get(raw)
        if code is None:
            shard, run, worker = (b"" if part is None else part for part in raw)
            code = self._number((shard.decode().partition(".")[2] or _shard(key), run.decode(), worker.decode()))
            if raw[0] is not None:
                self._raw[raw] = code
        if all(name in at for name in _SENDER):
            self._indexes = (*(at[name] for name in _SENDER), len(headers))
        return code

    def _number(self, name: tuple[str, str, str]) -> int:
        if name not in self._codes:
            self._codes[name] = len(self.names)
            self.names.append(name)
        return self._codes[name]


_NOT_AN_EVENT = (*UNREADABLE, ValueError, TypeError, OverflowError)


class DeliveryReader:
    """Makes deliveries of traced records; counts in `unreadable` those that are not change events."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kind = _Binlog if engine.reads_binlog else _Postgres
        self._decoder: msgspec.json.Decoder[Any] | None = None
        self._wrapped = False
        self._seen: set[int] = set()
        self.unreadable = 0
        # The transaction of each event of the last batch, as `transaction_words` has it; 0 for rows of snapshots.
        self.transactions: Words = np.zeros(0, dtype=np.uint64)

    def read(self, batch: Batch, runs: TaskRuns) -> tuple[Deliveries, Words]:
        """The batch's events in its order, and the stream (domain, server) of each."""
        try:
            return self._read(batch, runs)
        except _NOT_AN_EVENT:
            return self._one_by_one(batch, runs)

    def _read(self, batch: Batch, runs: TaskRuns) -> tuple[Deliveries, Words]:
        every = None not in batch.values
        live = range(len(batch.values)) if every else [at for at, value in enumerate(batch.values) if value is not None]
        found = np.zeros(len(live), dtype=DELIVERY)
        if not live:
            self.transactions = np.zeros(0, dtype=np.uint64)
            return found, np.zeros(0, dtype=np.uint64)
        values, keys = _at(batch.values, live), _at(batch.keys, live)
        if None in keys:
            raise ValueError("a record without a key")
        events = self._envelopes(values)
        ops = np.frombuffer("".join([event.op for event in events]).encode("ascii"), dtype=np.uint8)
        if len(ops) != len(events) or not _KNOWN[ops].all():
            raise ValueError("an operation other than c, u, d, r")
        position = np.zeros(len(events), dtype=POSITION_DTYPE)
        POSITIONS[self._engine](events, position)
        reads = ops == _READ_OP
        if not position["seq"][~reads].all():
            raise ValueError("a streamed event without a source position")
        for name in ("seq", "sub", "stream"):
            position[name][reads] = 0
        words = key_words(keys)
        found["key"] = _identity(words, position["stream"].astype(np.uint64), position["seq"], ops)
        found["position"], found["seq"] = self._positions(events, position["sub"], reads), position["seq"]
        found["kind"] = np.where(reads, READ, STREAMED)
        found["offset"], found["time"] = _at(batch.offsets, live), _at(batch.times, live)
        senders = runs.codes(_at(batch.headers, live), keys)
        self._note_releases(senders, values, runs)
        found["run"] = senders
        self.transactions = transaction_words(self._engine, position["stream"], position["seq"])
        self.transactions[reads] = 0
        # On Postgres the stream is not the transaction: LSNs of one server are one stream.
        streams = position["stream"] if self._engine.reads_binlog else np.zeros(len(events))
        return found, streams.astype(np.uint64)

    def _note_releases(self, senders: Sequence[int], values: Sequence[Any], runs: TaskRuns) -> None:
        """A run is of one release of Debezium, which its first event tells."""
        for code in set(senders) - self._seen:
            self._seen.add(code)
            kind: type[Any] = wrapped(_Sender) if self._wrapped else _Sender
            event = msgspec.json.decode(values[senders.index(code)], type=kind)
            if counts_on((event.payload if self._wrapped else event).source.version):
                runs.counting_on.add(code)

    def _positions(self, events: Sequence[Any], subs: Words, reads: npt.NDArray[np.bool_]) -> Words:
        """Binlog and number of each event; 0 for rows of snapshots, and on Postgres."""
        if not self._engine.reads_binlog:
            return np.zeros(len(events), dtype=np.uint64)
        numbers = [0 if event.transaction is None else event.transaction.total_order for event in events]
        found = (mixed(subs) & ~NUMBERS) | (np.array(numbers, dtype=np.uint64) & NUMBERS)
        found[reads] = 0
        return found

    def _envelopes(self, values: Sequence[Any]) -> list[Any]:
        if self._decoder is None:
            self._wrapped = b'"payload"' in values[0] and b'"schema"' in values[0][:20]
            self._decoder = msgspec.json.Decoder(wrapped(self._kind) if self._wrapped else self._kind)
        decode = self._decoder.decode
        events = [decode(value) for value in values]
        return [event.payload for event in events] if self._wrapped else events

    def _one_by_one(self, batch: Batch, runs: TaskRuns) -> tuple[Deliveries, Words]:
        none = np.zeros(0, dtype=np.uint64)
        parts = [(np.zeros(0, dtype=DELIVERY), none, none)]
        for at in range(len(batch.offsets)):
            # A stranger's record may have come first, and a schema where the others have none.
            self._decoder = None
            try:
                found = self._read(Batch(*(_at(column, [at]) for column in _columns(batch))), runs)
            except _NOT_AN_EVENT:
                self.unreadable += 1
            else:
                parts.append((*found, self.transactions))
        self._decoder = None
        deliveries, streams, self.transactions = (np.concatenate(column) for column in zip(*parts, strict=True))
        return deliveries, streams


def _columns(batch: Batch) -> tuple[Sequence[Any], ...]:
    return batch.keys, batch.values, batch.offsets, batch.headers, batch.times


def _at(column: Sequence[Any], indexes: Sequence[int]) -> Sequence[Any]:
    return column if len(indexes) == len(column) else [column[at] for at in indexes]


def counts_on(release: str | None) -> bool:
    """Does that Debezium go on numbering a transaction's events where a task began in its middle? From 3.6.1 on.

    Older ones, and those that do not say which they are, begin at 1 (https://github.com/debezium/debezium/pull/7624).
    """
    numbers = [int(part) for part in (release or "").split(".")[:3] if part.isdigit()]
    return numbers >= [3, 6, 1]


def _shard(key: bytes) -> str:
    """The shard by the record's key, for records whose headers do not name it."""
    found = _KEY.decode(key)
    if found.shard is None and isinstance(found.payload, dict):
        return str(found.payload.get(SHARD_KEY_FIELD, ""))
    return found.shard or ""


def key_words(keys: Sequence[bytes]) -> Words:
    """64 bits of each key, the same in every topic. Not meant to resist crafted collisions."""
    keys = [key if len(key) <= _LONGEST_KEY else hashlib.blake2b(key).digest() for key in keys]
    lengths = np.fromiter(map(len, keys), dtype=np.int64, count=len(keys))
    width = -(-int(lengths.max()) // 8) * 8
    table = np.frombuffer(b"".join([key.ljust(width, b"\0") for key in keys]), dtype="<u8").reshape(len(keys), -1)
    found = lengths.astype(np.uint64)
    for at in range(width // 8):
        found = np.where(lengths > 8 * at, mixed(found ^ table[:, at]), found)
    return found


def _identity(keys: Words, streams: Words, seqs: Words, ops: npt.NDArray[np.uint8]) -> Words:
    word = mixed(keys ^ mixed(streams + np.uint64(0x632BE59BD9B4E019)))
    return mixed(word ^ mixed(seqs + ops.astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)))


def transaction_words(engine: Engine, streams: npt.NDArray[Any], seqs: npt.NDArray[Any]) -> Words:
    """A number for each transaction of one shard: of (stream, seq) of a GTID, or the transaction id of Postgres."""
    if engine.reads_binlog:
        return mixed(mixed(streams.astype(np.uint64)) + seqs.astype(np.uint64))
    return streams.astype(np.uint64)


def mixed(words: Words) -> Words:
    """The finalizer of SplitMix64: a bijection that spreads (https://prng.di.unimi.it/splitmix64.c)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))

"""From records to events: JSON as Connect's JsonConverter writes it, with and without schemas.

Other formats (Avro, Protobuf) would be further classes that satisfy `Decoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from cdc_platform.canonical import hash_sql as engines
from cdc_platform.canonical.columns import Shape
from cdc_platform.canonical.topic_rows import RowReader
from cdc_platform.clients.kafka.murmur2 import murmur2_of_each
from cdc_platform.clients.kafka.topic_records import Batch
from cdc_platform.connectors.identity import SHARD_KEY_FIELD
from cdc_platform.model import bounded_json
from cdc_platform.model.bounded_json import UNREADABLE
from cdc_platform.model.topology import is_shard_id
from cdc_platform.verification.proof.change_events import (
    ABSENT,
    DELETED,
    EVENT,
    NO_POSITION,
    NO_SHARD,
    OLD_KEY,
    PARTIAL,
    READ,
    SNAPSHOT,
    STREAMED,
    TOMBSTONE,
    UNKNOWN,
    Decoded,
    UnreadableRecord,
    digests,
    spread,
)
from cdc_platform.verification.proof.envelopes import (
    BinlogEvent,
    PostgresEvent,
    wrapped,
)
from cdc_platform.verification.proof.source_positions import POSITIONS


class Decoder(Protocol):
    """Makes events of records. Keeps the numbers that it gives to shards."""

    shards: list[str]
    drifted: bool

    def know(self, shards: Sequence[str]) -> None:
        """Start on a partition, with the shards that its fold has numbered."""

    def decode(self, partition: int, batch: Batch) -> Decoded:
        """The batch's events in its order; records that cannot be read become `Decoded.unreadable`."""

    def after(self, value: bytes) -> bytes:
        """The `after` of one record's value as canonical JSON reads it. Raises msgspec.DecodeError."""

    def key_tokens(self, key: bytes) -> tuple[str, dict[str, bytes]]:
        """Shard and key columns' wire tokens of one record's key. Raises msgspec.DecodeError."""


class _RecordHead(msgspec.Struct, rename={"shard": SHARD_KEY_FIELD}):
    # Not `Raw | None`: msgspec takes that for a union that allows null alone.
    op: msgspec.Raw = msgspec.Raw()
    shard: msgspec.Raw = msgspec.Raw()
    payload: msgspec.Raw = msgspec.Raw()


class _Origin(msgspec.Struct):
    name: str = ""


class _Truncate(msgspec.Struct):
    op: str = ""
    source: _Origin | None = None
    payload: _Truncate | None = None


_TRUNCATE = msgspec.json.Decoder(_Truncate)
_HEAD = msgspec.json.Decoder(_RecordHead)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, ValueError, TypeError, KeyError, OverflowError, RecursionError)
_KEY = msgspec.json.Decoder(dict[str, msgspec.Raw])

# Names beyond them count as none: 16 bits hold a shard's number.
_MOST_SHARDS = 65_000


class JsonDecoder:
    """Events in JSON, with schemas or without: the first record of a batch shows which.

    `projected` makes every row canonical column by column: for topics whose
    events do not all have the columns that the table has now.
    """

    def __init__(self, shape: Shape, *, projected: bool = False) -> None:
        self.shards: list[str] = []
        self.drifted = False
        self._codes: dict[str, int] = {}
        self._shape = shape
        self._rows = RowReader(shape)
        self._projected = projected
        self._digest = engines.DIGESTS[shape.engine]
        width = self._digest(b"").digest_size
        self._digest_type = np.dtype([("word", ">u8"), ("rest", f"V{width - 8}")])
        self._partial: list[int] = []
        self._integer = engines.integer_key(shape)
        self._wrapped = self._wrapped_key = False
        self._value = _value_decoder(shape, wrap=False)
        self._key = _key_decoder(shape, self._integer, wrap=False)

    def know(self, shards: Sequence[str]) -> None:
        """Start on a partition, with the shards that its fold has numbered."""
        self.shards = list(shards)
        self._codes = {shard: code for code, shard in enumerate(self.shards)}

    def decode(self, partition: int, batch: Batch) -> Decoded:
        """The batch's events in its order."""
        try:
            return self._decode(partition, batch)
        except _UNREADABLE:
            return self._one_by_one(partition, batch)

    def after(self, value: bytes) -> bytes:
        """The `after` of one record's value."""
        return bytes(self.event(value).after)

    def key_tokens(self, key: bytes) -> tuple[str, dict[str, bytes]]:
        """Shard and key columns' wire tokens of one record's key."""
        shard, fields = self.key_fields(key)
        return shard, {name: bytes(fields[name]) for name in self._shape.key}

    def key_fields(self, key: bytes) -> tuple[str, dict[str, msgspec.Raw]]:
        """Shard and all fields of one record's key. Raises msgspec.DecodeError and KeyError."""
        fields = bounded_json.decode(_KEY, key)
        if SHARD_KEY_FIELD not in fields and "payload" in fields:
            fields = bounded_json.decode(_KEY, bytes(fields["payload"]))
        return msgspec.json.decode(fields[SHARD_KEY_FIELD], type=str), fields

    def _decode(self, partition: int, batch: Batch) -> Decoded:
        self._detect_schema(batch.keys, batch.values)
        count = len(batch.offsets)
        events = np.zeros(count, dtype=EVENT)
        kinds = np.empty(count, dtype=np.uint8)
        events["offset"] = batch.offsets
        if None in batch.keys:
            # Only a TRUNCATE has no key: it says nothing of a row.
            return self._with_truncates(partition, batch, [at for at, key in enumerate(batch.keys) if key is None])
        values = batch.values
        self._read_keys(batch.keys, events)
        if None not in values:
            self._read_values(values, events, kinds)
        else:
            live = [at for at, value in enumerate(values) if value is not None]
            kinds[:] = TOMBSTONE
            part = events[live]
            live_kinds = np.empty(len(live), dtype=np.uint8)
            self._read_values([values[at] for at in live], part, live_kinds)
            events[live] = part
            kinds[live] = live_kinds
        return Decoded(events, kinds, ())

    def _read_keys(self, keys: Sequence[Any], events: Any) -> None:
        """Shard, key and raw of each event. A key that is none of the table's is known by the digest of its bytes."""
        events["raw"] = murmur2_of_each(keys) & ~OLD_KEY
        try:
            names, events["key"] = self._names_and_words(keys)
        except _UNREADABLE:
            names = []
            for at, key in enumerate(keys):
                try:
                    [name], events["key"][at : at + 1] = self._names_and_words([key])
                except _UNREADABLE:
                    name = self._shard_of(key)
                    events["key"][at] = int.from_bytes(self._digest(key).digest()[:8], "big")
                    events["raw"][at] |= OLD_KEY
                names.append(name)
        codes = self._codes
        for name in sorted(set(names) - codes.keys()):
            shard = name if is_shard_id(name) and len(self.shards) < _MOST_SHARDS else NO_SHARD
            if shard not in codes:
                codes[shard] = len(self.shards)
                self.shards.append(shard)
            codes[name] = codes[shard]
        events["shard"] = list(map(codes.__getitem__, names))

    def _names_and_words(self, keys: Sequence[bytes]) -> tuple[list[str], npt.NDArray[np.uint64]]:
        if self._integer:
            decode = self._key.decode
            found = [decode(key) for key in keys]
            if self._wrapped_key:
                found = [item.payload for item in found]
            return [item.shard for item in found], spread(_words([item.id for item in found]))
        pairs = [self.key_tokens(key) for key in keys]
        packed = b"".join([self._digest(self._rows.key(tokens)).digest()[:8] for _, tokens in pairs])
        return [shard for shard, _ in pairs], np.frombuffer(packed, dtype=">u8").astype(np.uint64)

    def _read_values(self, values: Sequence[Any], events: Any, kinds: npt.NDArray[np.uint8]) -> None:
        if not values:
            return
        decode = self._value.decode
        found = [decode(value) for value in values]
        if self._wrapped:
            found = [item.payload for item in found]
        ops = np.frombuffer("".join([item.op for item in found]).encode("ascii"), dtype=np.uint8)
        kinds[:] = _KINDS[ops] if len(ops) == len(found) else _NO_KIND
        if (kinds == _NO_KIND).any():
            raise ValueError("an operation other than c, u, d, r")
        for at in np.flatnonzero(kinds == SNAPSHOT):
            if found[at].source.snapshot == "incremental":
                kinds[at] = READ
        POSITIONS[self._shape.engine](found, events)
        streamed = (kinds == STREAMED) | (kinds == DELETED)
        if not events["seq"][streamed].all():
            raise ValueError("a streamed event without a source position")
        if (events["seq"] >= NO_POSITION).any():
            # It would stand behind all that the source will ever write.
            raise ValueError("a source position beyond all that a server comes to")
        events["row"] = self._digests(found, kinds)

    def _digests(self, found: Sequence[Any], kinds: npt.NDArray[np.uint8]) -> Any:
        digest = self._digest
        self._partial.clear()
        # Raw is hashed where it stands: a copy of it as bytes costs as much as its hash.
        rows = [item.after for item in found]
        if self._projected:
            rows = [self._canonical(at, bytes(row)) for at, row in enumerate(rows)]
        else:
            self._compare_columns(bytes(rows[0]), bytes(rows[-1]))
            for at in self._rows.suspects(rows).tolist():
                rows[at] = self._canonical(at, bytes(rows[at]))
        parts = [digest(row).digest() for row in rows]
        words = digests(np.frombuffer(b"".join(parts), dtype=self._digest_type)["word"].astype(np.uint64))
        words[kinds == DELETED] = ABSENT
        words[self._partial] = PARTIAL
        return words

    def _canonical(self, at: int, after: bytes) -> bytes:
        if after == b"null":
            return after
        if not after.startswith(b"{"):
            raise ValueError("its row must be an object")
        row = self._rows.row(after) if self._projected else self._rows.canonical(after)
        if row is None:
            self._partial.append(at)
            return after
        return row

    def _compare_columns(self, *rows: bytes) -> None:
        """Note drift when these rows, two of each batch, do not have the table's columns."""
        for after in rows:
            if after != b"null" and not self._rows.same_columns(after):
                self.drifted = True

    def event(self, value: bytes) -> Any:
        """The envelope of one record's value, as `envelopes` has it. Raises msgspec.DecodeError."""
        self._detect_schema((), (value,))
        item = bounded_json.decode(self._value, value)
        return item.payload if self._wrapped else item

    def _detect_schema(self, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> None:
        """Do the first key and the first value carry a schema? The converter's setting may have changed in between."""
        key = next((key for key in keys if key is not None), None)
        if key is not None and (wrap := _is_wrapped(key, self._wrapped_key)) is not self._wrapped_key:
            self._wrapped_key = wrap
            self._key = _key_decoder(self._shape, self._integer, wrap=wrap)
        value = next((value for value in values if value is not None), None)
        if value is not None and (wrap := _is_wrapped(value, self._wrapped)) is not self._wrapped:
            self._wrapped = wrap
            self._value = _value_decoder(self._shape, wrap=wrap)

    def _with_truncates(self, partition: int, batch: Batch, truncated: Sequence[int]) -> Decoded:
        bad = set(truncated)
        rest = _picked(batch, [at for at in range(len(batch.offsets)) if at not in bad])
        decoded = self.decode(partition, rest)
        unreadable = [_keyless(partition, batch.offsets[at], batch.values[at]) for at in truncated]
        return Decoded(decoded.events, decoded.kinds, [*decoded.unreadable, *unreadable])

    def _one_by_one(self, partition: int, batch: Batch) -> Decoded:
        parts: list[Decoded] = []
        unreadable: list[UnreadableRecord] = []
        for at, offset in enumerate(batch.offsets):
            try:
                parts.append(self._decode(partition, _picked(batch, [at])))
            except _UNREADABLE as error:
                # It is a record of its key, for readers by key; what it says is not known.
                event = np.zeros(1, dtype=EVENT)
                event["offset"], event["row"] = offset, UNKNOWN
                self._read_keys([batch.keys[at]], event)
                parts.append(Decoded(event, np.full(1, READ, dtype=np.uint8), ()))
                shard = self.shards[int(event["shard"][0])]
                unreadable.append(UnreadableRecord(partition, offset, shard, f"not readable: {error}"))
        events = np.concatenate([part.events for part in parts]) if parts else np.zeros(0, dtype=EVENT)
        kinds = np.concatenate([part.kinds for part in parts]) if parts else np.zeros(0, dtype=np.uint8)
        return Decoded(events, kinds, unreadable)

    def _shard_of(self, key: bytes) -> str:
        try:
            return self.key_fields(key)[0]
        except _UNREADABLE:
            return NO_SHARD


def _keyless(partition: int, offset: int, value: bytes | None) -> UnreadableRecord:
    """No connector of ours sends one: they skip TRUNCATE."""
    try:
        event = bounded_json.decode(_TRUNCATE, value or b"")
        event = event.payload or event
    except msgspec.DecodeError:
        event = _Truncate()
    name = event.source.name if event.op == "t" and event.source is not None else ""
    shard = name.rpartition(".")[2]
    if not is_shard_id(shard):
        return UnreadableRecord(partition, offset, NO_SHARD, "it has no key", keyless=True)
    return UnreadableRecord(partition, offset, shard, "a TRUNCATE: it has no key", keyless=True)


def _words(keys: Sequence[int]) -> npt.NDArray[np.uint64]:
    """Keys in 64 bits, the negative ones in two's complement. Raises OverflowError for what no table's key holds."""
    try:
        return np.array(keys, dtype=np.int64).view(np.uint64)
    except OverflowError:
        if not all(-1 << 63 <= key < 1 << 64 for key in keys):
            raise
        return np.array([key & 0xFFFFFFFFFFFFFFFF for key in keys], dtype=np.uint64)


OPERATIONS = np.frombuffer(b"cudr", dtype=np.uint8)

# Operation, as a byte, to what the event is.
_NO_KIND = 255
_KINDS = np.full(256, _NO_KIND, dtype=np.uint8)
_KINDS[[ord("c"), ord("u")]] = STREAMED
_KINDS[ord("d")] = DELETED
_KINDS[ord("r")] = SNAPSHOT


def _picked(batch: Batch, indexes: Sequence[int]) -> Batch:
    return Batch(
        [batch.keys[at] for at in indexes], [batch.values[at] for at in indexes], [batch.offsets[at] for at in indexes]
    )


def _is_wrapped(record: bytes, before: bool) -> bool:
    """Does a key or value stand below `payload`, with its schema beside it? `before` where that is unknown."""
    try:
        head = _HEAD.decode(record)
    except UNREADABLE:
        return before
    return bytes(head.payload) != b"" and not bytes(head.op) and not bytes(head.shard)


def _value_decoder(shape: Shape, *, wrap: bool) -> msgspec.json.Decoder[Any]:
    kind = BinlogEvent if shape.engine.reads_binlog else PostgresEvent
    return msgspec.json.Decoder(wrapped(kind) if wrap else kind)


def _key_decoder(shape: Shape, integer: bool, *, wrap: bool) -> msgspec.json.Decoder[Any]:
    if not integer:
        return _KEY
    name = shape.key[0]
    flat = msgspec.defstruct(
        "IntegerKey", [("id", int), ("shard", str)], rename={"id": name, "shard": SHARD_KEY_FIELD}, gc=False
    )
    return msgspec.json.Decoder(wrapped(flat) if wrap else flat)

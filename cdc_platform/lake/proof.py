"""Is the lake what the topic is? Its rows, by digests of canonical rows made of the typed columns that a reader gets.

Nothing that the lake keeps for itself counts: the values are read, put into the wire's form, made canonical and
hashed as the proof hashes the events. Keys that changed after the lake's last run are behind, and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cdc_platform.canonical import hash_sql as engines
from cdc_platform.canonical.arrow_columns import ArrowColumn, arrow_column
from cdc_platform.canonical.columns import Column, Shape
from cdc_platform.canonical.topic_rows import RowReader
from cdc_platform.clients.kafka.topic_records import Records, TopicBounds
from cdc_platform.errors import LakeHeld
from cdc_platform.lake.columns import plain_values
from cdc_platform.lake.current import LakeView, open_view
from cdc_platform.lake.data_files import OTHER_TYPE, DamagedFiles
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.lake.tables import KEY
from cdc_platform.model.topology import Topology
from cdc_platform.reading.batches import SHARD, UNHELD
from cdc_platform.reading.table_shape import table_shape
from cdc_platform.verification.ports import VerificationPolicy, VerificationPorts
from cdc_platform.verification.proof.change_events import (
    ABSENT,
    OFFSET_BITS,
    Events,
    digests,
    spread,
)
from cdc_platform.verification.proof.fold import last_of_each_key
from cdc_platform.verification.proof.raw_keys import of_the_row
from cdc_platform.verification.proof.topic_fold import TopicFold
from cdc_platform.verification.proof.verdicts import KeyDifference, Verdict

_ROW = np.dtype([("key", "u8"), ("row", "u8")])
Rows = npt.NDArray[np.void]

# Kinds of differences: in the lake another row than in the topic, none, or one that the topic does not have.
MISMATCHED, MISSING, EXTRA = "mismatched", "missing", "extra"


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeVerdict:
    """What is known of one shard's rows in the lake: `proven` means equal to the topic's, `run` is the lake's last one.

    `behind` counts keys that changed in the topic after that run. `samples` names keys, and columns that differ.
    `files` says of which data files of the table a column is not of the table's type: of their rows it counts as other.
    """

    dataset: str
    table: str
    shard: str
    verdict: Verdict
    run: int
    rows: int = 0
    behind: int = 0
    missing: int = 0
    extra: int = 0
    mismatched: int = 0
    samples: tuple[KeyDifference, ...] = ()
    files: tuple[str, ...] = ()


def prove_lake(
    ports: VerificationPorts,
    topology: Topology,
    dataset: str,
    table: str,
    policy: LakePolicy,
    shards: Sequence[str] | None = None,
) -> tuple[LakeVerdict, ...]:
    """A verdict for each shard. Raises NotFound (no rows yet), LakeUnavailable, and what a `TopicReader` raises."""
    ids = [shard.id for shard in topology.shards.get(dataset, ())] if shards is None else list(shards)
    with open_proof(ports, topology, dataset, table, policy) as proof:
        lake = proof.read.by_shard(proof.view, ids)
        return tuple(proof.verdict(dataset, table, shard, lake[shard]) for shard in ids)


@contextmanager
def open_proof(
    ports: VerificationPorts, topology: Topology, dataset: str, table: str, policy: LakePolicy
) -> Iterator[LakeProof]:
    """The lake as it is, and the topic folded up to its end. Raises what `prove_lake` does."""
    known = topology.dataset(dataset)
    view = open_view(policy, dataset, table)
    topic = known.topic(known.table(table))
    with closing(ports.records(topic)) as records:
        shape = table_shape(ports, known, known.table(table), topology.shards.get(dataset, ()), records)
        settings = ports.platform.settings
        fold = TopicFold(Path(settings.cache_dir), settings.platform, topic, shape, records)
        bounds = records.bounds()
        fold.extend(bounds, {}, lambda done, total: None)
        yield LakeProof(fold, records, bounds, view, LakeRows(shape), VerificationPolicy.of(known))


def readable_bucket(view: LakeView, bucket: int, damage: DamagedFiles) -> pa.Table:
    """The bucket's current rows; what the view refuses is read as it stands in the files, so that its keys have names.

    Raises LakeHeld where even the keys cannot be read.
    """
    try:
        return view.bucket(bucket)
    except LakeHeld:
        return view.bucket(bucket, damage.read)


class LakeRows:
    """From typed columns to keys and digests."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._rows = RowReader(shape)
        self._columns = [(column, arrow_column(shape.engine, column)) for column in shape.columns]
        self._names = [column.name for column in shape.columns]
        self._digest = engines.DIGESTS[shape.engine]
        self._integer = engines.integer_key(shape)
        self.damage = DamagedFiles()

    def by_shard(self, view: LakeView, shards: Sequence[str]) -> dict[str, Rows]:
        """Keys and digests of the lake's rows, sorted by key: 16 bytes a row."""
        found: dict[str, list[tuple[int, int]]] = {shard: [] for shard in shards}
        for shard, _, tokens in self.rows(view):
            if shard in found:
                found[shard].append((self.word(tokens), self.digest(tokens)))
        return {shard: np.sort(np.array(pairs, dtype=_ROW), order="key") for shard, pairs in found.items()}

    def rows(self, view: LakeView) -> Iterator[tuple[str, str, dict[str, bytes]]]:
        """Shard, key as the lake has it, and canonical tokens of each row."""
        for table in self._buckets(view):
            names = set(table.schema.names)
            shards, keys = table[SHARD].to_pylist(), table[KEY].to_pylist()
            unheld = [dict(pairs or ()) for pairs in table[UNHELD].to_pylist()]
            tokens = {
                column.name: self._tokens(column, made, table[column.name], unheld)
                for column, made in self._columns
                if column.name in names
            }
            for at, shard in enumerate(shards):
                own = {
                    column.name: tokens[column.name][at] if column.name in tokens else b"null"
                    for column, _ in self._columns
                }
                yield shard, keys[at], own

    def _buckets(self, view: LakeView) -> Iterator[pa.Table]:
        for bucket in view.buckets():
            yield readable_bucket(view, bucket, self.damage)

    def word(self, tokens: Mapping[str, bytes]) -> int:
        """The key's number, as the fold has it."""
        if self._integer:
            number = int(tokens[self.shape.key[0]]) & 0xFFFFFFFFFFFFFFFF
            return int(spread(np.array([number], dtype=np.uint64))[0])
        key = b",".join(tokens[name] for name in self.shape.key)
        return int.from_bytes(self._digest(key).digest()[:8], "big")

    def digest(self, tokens: Mapping[str, bytes]) -> int:
        """The row's, as the fold has it."""
        row = self._rows.assembled(tokens) or b""
        word = np.array([int.from_bytes(self._digest(row).digest()[:8], "big")], dtype=np.uint64)
        return int(digests(word)[0])

    def _tokens(
        self, column: Column, made: ArrowColumn, values: pa.ChunkedArray, unheld: Sequence[Mapping[str, str]]
    ) -> list[bytes]:
        plain = [value for chunk in values.chunks for value in plain_values(chunk)]
        of = _plain_of(made)
        found = []
        for value, texts in zip(plain, unheld, strict=True):
            if value is not None:
                token = made.token(of(value))
                # What is canonical already has no other spelling.
                found.append(token if made.canonical else self._rows.token(column.name, token) or b"null")
            elif (text := texts.get(column.name, "")).startswith(OTHER_TYPE):
                found.append(text.encode())  # no token of JSON: nothing equals it
            elif column.name in texts:
                found.append(self._rows.token(column.name, made.unheld_token(texts[column.name])) or b"null")
            else:
                found.append(b"null")
        return found


def _plain_of(made: ArrowColumn) -> Callable[[Any], Any]:
    """Undoes what `lake_type` widened."""
    if pa.types.is_decimal(made.type):
        return lambda value: value if isinstance(value, Decimal) else Decimal(value)
    if pa.types.is_integer(made.type):
        return int
    return lambda value: value


@dataclass(frozen=True, slots=True)
class Differences:
    """Of one shard: keys as (number, kind, packed offset of the topic's last event or -1), and how many are behind."""

    keys: tuple[tuple[int, str, int], ...]
    behind: int

    def count(self, kind: str) -> int:
        """How many are of this kind."""
        return sum(of == kind for _, of, _ in self.keys)


@dataclass(frozen=True, slots=True)
class LakeProof:
    """The lake's rows beside the topic's fold up to `bounds`."""

    fold: TopicFold
    records: Records
    bounds: TopicBounds
    view: LakeView
    read: LakeRows
    policy: VerificationPolicy

    def differences(self, shard: str, lake: Rows) -> Differences:
        """Keys whose row in the lake is not the topic's; `lake`: as `LakeRows.by_shard` has them."""
        behind = 0
        named: list[tuple[int, str, int]] = []
        ranges = 1 + self.fold.count(shard) // self.policy.slab_rows
        for at in range(ranges):
            first, end = (at << 64) // ranges, (at + 1 << 64) // ranges
            events = self.fold.events(shard, first, end)
            last = last_of_each_key(events[of_the_row(events)])
            new = self._is_new(last)
            behind += int(new.sum())
            own = _between(lake, first, end)
            own = own[~np.isin(own["key"], last["key"][new])]
            topic = last[~new & (last["row"] != ABSENT)]
            both = np.intersect1d(topic["key"], own["key"], return_indices=True)
            differs = topic["row"][both[1]] != own["row"][both[2]]
            lost, more = np.setdiff1d(topic["key"], own["key"]), np.setdiff1d(own["key"], topic["key"])
            places = dict(zip(topic["key"].tolist(), topic["offset"].tolist(), strict=True))
            for kind, words in ((MISMATCHED, both[0][differs]), (MISSING, lost), (EXTRA, more)):
                named += [(word, kind, places.get(word, -1)) for word in words.tolist()]
        return Differences(tuple(named), behind)

    def verdict(self, dataset: str, table: str, shard: str, lake: Rows) -> LakeVerdict:
        """What is known of a shard's rows."""
        found = self.differences(shard, lake)
        return LakeVerdict(
            dataset=dataset,
            table=table,
            shard=shard,
            verdict=Verdict.MISMATCHED if found.keys else Verdict.PENDING if found.behind else Verdict.PROVEN,
            run=self.view.state.run,
            rows=len(lake),
            behind=found.behind,
            missing=found.count(MISSING),
            extra=found.count(EXTRA),
            mismatched=found.count(MISMATCHED),
            samples=self._samples(shard, found.keys[: self.policy.samples]),
            files=self.read.damage.sentences() if found.keys else (),
        )

    def _is_new(self, events: Events) -> npt.NDArray[np.bool_]:
        """For each event: came it after the lake's run?"""
        found = np.zeros(len(events), dtype=np.bool_)
        numbers, offsets = events["offset"] >> OFFSET_BITS, events["offset"] & ((1 << OFFSET_BITS) - 1)
        for number in np.unique(numbers).tolist():
            found |= (numbers == number) & (offsets >= self.view.state.offsets.get(number, 0))
        return found

    def _samples(self, shard: str, named: Sequence[tuple[int, str, int]]) -> tuple[KeyDifference, ...]:
        if not named:
            return ()
        words = {word for word, _, _ in named}
        lake = {
            word: (key, tokens)
            for of, key, tokens in self.read.rows(self.view)
            if of == shard and (word := self.read.word(tokens)) in words
        }
        decoder = self.fold.decoder()
        found = []
        for word, kind, place in named:
            key, ours = lake.get(word, ("", {}))
            theirs: Mapping[str, bytes | None] = {}
            where: tuple[int, int] | None = None
            if place >= 0:
                where = divmod(place, 1 << OFFSET_BITS)
                raw, value = self.fold.fetch(where[0], [where[1]]).get(where[1], (None, None))
                # What cannot be read has no columns to compare.
                with suppress(msgspec.DecodeError, KeyError, UnicodeDecodeError):
                    if raw is not None and value is not None:
                        key = ",".join(token.decode() for token in decoder.key_tokens(raw)[1].values())
                        after = decoder.after(value)
                        theirs = {} if after == b"null" else self.fold.rows.tokens(after)
            columns = tuple(name for name in ours if name in theirs and theirs[name] not in (None, ours[name]))
            found.append(
                KeyDifference(
                    key=key,
                    kind=kind,
                    columns=columns,
                    partition=where[0] if where else None,
                    offset=where[1] if where else None,
                )
            )
        return tuple(found)


def _between(rows: Rows, first: int, end: int) -> Rows:
    begin = np.searchsorted(rows["key"], np.uint64(first))
    return rows[begin:] if end >= 1 << 64 else rows[begin : np.searchsorted(rows["key"], np.uint64(end))]

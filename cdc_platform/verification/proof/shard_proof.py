"""The stages of one shard's proof, each a value: `ShardProof`, `Scanned`, `Compared`, `Concluded`.

A scan reads the table; its positions are the targets that the connector must commit. Then the topic holds
all that was read, and is compared with it. Keys that differ are read and compared once more.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from cdc_platform.canonical import hash_sql as engines
from cdc_platform.canonical.columns import Shape
from cdc_platform.canonical.key_text import source_key
from cdc_platform.clients.sources.source import Inspection, Key, Source
from cdc_platform.errors import SourceUnavailable
from cdc_platform.model.positions import Position, furthest
from cdc_platform.model.topology import Shard
from cdc_platform.verification.proof.change_events import (
    EVENT,
    OLD_KEY,
    Events,
    Words,
    digests,
    gathered,
    partition_offsets,
)
from cdc_platform.verification.proof.committed_offsets import ConnectorProgress
from cdc_platform.verification.proof.comparison import (
    Bracket,
    Differences,
    SourceRows,
    combined,
    compare,
    restricted,
    stale_keys,
)
from cdc_platform.verification.proof.connection_pool import Connections
from cdc_platform.verification.proof.fold import last_of_each_key
from cdc_platform.verification.proof.raw_keys import leftovers, of_the_row, starts_of
from cdc_platform.verification.proof.scan import Scan, stored_keys
from cdc_platform.verification.proof.topic_fold import TopicFold

WHOLE = 1 << 64

# Keys a statement when single keys are read.
_KEYS_A_STATEMENT = 500

# Keys of each kind that are kept of a table that differs; more are counted. Where there
# are that many, the cause is not a key.
_KEPT_KEYS = 200_000

# A source that does not answer is asked again this often, in the same chunk.
_TRIES = 3
_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ShardProof:
    """A shard whose table can be read. `opened_at` is the source's position before anything of it was read."""

    shard: Shard
    source: Source
    server: str
    inspection: Inspection
    shape: Shape
    scan: Scan
    opened_at: Position

    @property
    def proven_from(self) -> Position:
        """The lower end of the interval that the proof is about: where the source was before any row was read."""
        return self.scan.start or self.opened_at

    def read(self, connections: Connections, progress: Callable[[int], None], chunk_rows: int) -> Scanned:
        """Read the table, or what of it is still to be read. Raises SourceUnavailable and SourceRejected."""
        tries = 0
        while not self.scan.complete:
            before = len(self.scan.chunks)
            try:
                with connections.pool(self.source, self.server) as pool:
                    self.scan.run(pool, progress, chunk_rows=chunk_rows)
            except SourceUnavailable:
                tries = 1 if len(self.scan.chunks) > before else tries + 1
                if tries >= _TRIES:
                    raise
                time.sleep(_PAUSE_SECONDS * tries)
        return Scanned(self, tuple(bracket.high for bracket in self.scan.brackets()), time.monotonic())

    def keys(self, topic: TopicFold, words: Words) -> dict[int, Key]:
        """The keys behind 64-bit numbers, as far as source or topic know them. Old keys are none of the table's."""
        last = self.newest(topic, words)
        words = np.setdiff1d(words, last["key"][_old(last)])
        if engines.integer_key(self.shape):
            kind = np.uint64 if self.shape.column(self.shape.key[0]).unsigned else np.int64
            values = gathered(words).view(kind).tolist()
            return dict(zip(words.tolist(), ((str(value),) for value in values), strict=True))
        found = self._keys_in_topic(topic, last[~_old(last)])
        rest = np.array([word for word in words.tolist() if word not in found], dtype=np.uint64)
        return {**found, **self._keys_in_source(rest)}

    def latest(self, topic: TopicFold, words: Words) -> dict[int, tuple[int, int]]:
        """Partition and offset of the last event of each of these keys, where the topic has one."""
        last = self.newest(topic, words)
        return dict(zip(last["key"].tolist(), partition_offsets(last), strict=True))

    def old_keys(self, topic: TopicFold, words: Words) -> dict[int, str]:
        """Those of the numbers that stand for old keys, and the key as the topic has it."""
        last = self.newest(topic, words)
        found = self._raw_keys(topic, last[_old(last)])
        return {word: key.decode(errors="replace") for word, key in found.items()}

    def newest(self, topic: TopicFold, words: Words) -> Events:
        """The last event of each of these keys."""
        events = topic.as_sent(self.shard.id, 0, WHOLE, only=words)
        return last_of_each_key(events[of_the_row(events)])

    def _keys_in_topic(self, topic: TopicFold, last: Events) -> dict[int, Key]:
        decoder = topic.decoder()
        found: dict[int, Key] = {}
        for word, key in self._raw_keys(topic, last).items():
            text = source_key(self.shape, decoder.key_tokens(key)[1])
            if text is not None:
                found[word] = text
        return found

    def _raw_keys(self, topic: TopicFold, events: Events) -> dict[int, bytes]:
        """The bytes of the keys of these events, as far as the topic still has them."""
        by_partition: dict[int, dict[int, int]] = {}
        for word, (partition, offset) in zip(events["key"].tolist(), partition_offsets(events), strict=True):
            by_partition.setdefault(partition, {})[offset] = word
        return {
            words_at[offset]: key
            for partition, words_at in by_partition.items()
            for offset, (key, _) in topic.fetch(partition, list(words_at)).items()
            if key is not None
        }

    def _keys_in_source(self, words: Words) -> dict[int, Key]:
        if not len(words):
            return {}
        rows = self.scan.source_rows(0, WHOLE, only=words)
        found: dict[int, Key] = {}
        for number in np.unique(rows.chunks).tolist():
            chunk = self.scan.chunks[number]
            found.update(self.source.find(chunk.after, chunk.until, rows.keys[rows.chunks == number].tolist()))
        return found


def _old(events: Events) -> npt.NDArray[np.bool_]:
    old: npt.NDArray[np.bool_] = (events["raw"] & OLD_KEY) != 0
    return old


@dataclass(frozen=True, slots=True)
class Scanned:
    """What was read of a shard lies between its proof's `proven_from` and `targets`, known since `at` (monotonic)."""

    proof: ShardProof
    targets: tuple[Position, ...]
    at: float

    @property
    def proven_to(self) -> Position:
        """The upper end of the interval that the proof is about."""
        return furthest(self.targets)

    def compare(self, topic: TopicFold, batch_rows: int) -> Compared:
        """Compare the whole table, so many rows and events at once."""
        proof, scan = self.proof, self.proof.scan
        batches = 1 + (scan.rows + topic.count(proof.shard.id)) // batch_rows
        edges = [WHOLE * at // batches for at in range(batches + 1)]
        brackets, start = scan.brackets(), proof.proven_from
        differences, stale = combined([]), np.zeros(0, dtype=np.uint64)
        left, count = np.zeros(0, dtype=EVENT), 0
        for first, end in itertools.pairwise(edges):
            events = topic.events(proof.shard.id, first, end)
            more = leftovers(events, start)
            left, count = np.append(left, more)[:_KEPT_KEYS], count + len(more)
            events = events[of_the_row(events)]
            stale = np.append(stale, stale_keys(events, start))[:_KEPT_KEYS]
            chunk_of_key = scan.chunks_of(events["key"][starts_of(events)])
            found = compare(events, scan.source_rows(first, end), brackets, chunk_of_key, start)
            differences = combined([differences, found]).keeping(_KEPT_KEYS)
        return Compared(self, differences, stale, left, count)


@dataclass(frozen=True, slots=True)
class Compared:
    """How a shard's topic differs from what was read. `stale`: keys whose last record in the topic is an older row.

    `leftovers`: how many records readers by key take for rows beside the row or after its end, and the first of them.
    """

    scanned: Scanned
    differences: Differences
    stale: Words
    left: Events
    leftovers: int

    @property
    def proof(self) -> ShardProof:
        """The shard's own."""
        return self.scanned.proof

    @property
    def problem(self) -> str | None:
        """Why the comparison says nothing; None when it does."""
        if not self.differences.ambiguous:
            return None
        return (
            f"{self.differences.ambiguous} rows of the source have the key of another one, in 64 bits of a digest"
            " or in how the topic writes it: they cannot be told apart"
        )

    def read_again(self, topic: TopicFold) -> KeysRead:
        """Read the keys that differ once more, each statement in a bracket of its own.

        Raises SourceUnavailable and SourceRejected.
        """
        proof, words = self.proof, self.differences.keys()
        known = proof.keys(topic, words)
        keys = list(known.items())
        parts: list[tuple[Words, SourceRows]] = []
        brackets: list[Bracket] = []
        for at in range(0, len(keys), _KEYS_A_STATEMENT):
            part = keys[at : at + _KEYS_A_STATEMENT]
            found = proof.source.read_keys([key for _, key in part])
            asked = np.array(sorted(word for word, _ in part), dtype=np.uint64)
            stored = stored_keys(engines.integer_key(proof.shape), found.keys)
            # A collation may show the row of another key, that it holds for equal: 'A' where 'a' was asked for.
            right = np.isin(stored, asked)
            chunks = np.full(int(right.sum()), len(brackets), dtype=np.int64)
            parts.append((asked, SourceRows(stored[right], digests(found.rows)[right], chunks)))
            brackets.append(Bracket(found.low, found.high))
        unknown = np.array([key for key in words.tolist() if key not in known], dtype=np.uint64)
        targets = tuple(bracket.high for bracket in brackets)
        return KeysRead(self, replace(self.scanned, targets=targets), tuple(brackets), tuple(parts), unknown)


@dataclass(frozen=True, slots=True)
class KeysRead:
    """The keys that differed, read once more: statement by statement. Those that are `unknown` cannot be read."""

    before: Compared
    scanned: Scanned
    brackets: tuple[Bracket, ...]
    parts: tuple[tuple[Words, SourceRows], ...]
    unknown: Words

    def compare(self, topic: TopicFold) -> Compared:
        """Compare what was read with the topic."""
        proof, before = self.scanned.proof, self.before.differences
        found = []
        for chunk, (words, rows) in enumerate(self.parts):
            events = topic.events(proof.shard.id, 0, WHOLE, only=words)
            events = events[of_the_row(events)]
            chunk_of_key = np.full(len(starts_of(events)), chunk, dtype=np.int64)
            found.append(compare(events, rows, self.brackets, chunk_of_key, proof.proven_from))
        differences = replace(
            combined([*found, restricted(before, self.unknown)]),
            sources=before.sources,
            topics=before.topics,
            not_kept=before.not_kept,
            ambiguous=before.ambiguous,
        )
        return replace(self.before, scanned=self.scanned, differences=differences)


@dataclass(frozen=True, slots=True, kw_only=True)
class Concluded:
    """All that a shard's verdict goes by: the last value of each stage, and why it `failed` where it did."""

    proof: ShardProof
    scanned: Scanned | None = None
    progress: ConnectorProgress = field(default_factory=ConnectorProgress)
    compared: Compared | None = None
    failed: str | None = None

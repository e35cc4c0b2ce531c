"""One shard under verification: its scan, its comparison, its second looks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cdc_platform.canonical import hash_sql as engines
from cdc_platform.canonical.columns import Shape
from cdc_platform.canonical.key_text import source_key
from cdc_platform.clients.sources.source import Inspection, Key, Source
from cdc_platform.errors import SourceUnavailable
from cdc_platform.model.positions import Position
from cdc_platform.model.topology import Shard
from cdc_platform.verification.proof.change_events import Words, digests, gathered, partition_offsets
from cdc_platform.verification.proof.comparison import Bracket, Differences, SourceRows, behind, compare
from cdc_platform.verification.proof.connection_pool import Connections
from cdc_platform.verification.proof.fold import starts_of
from cdc_platform.verification.proof.scan import Scan, stored_keys
from cdc_platform.verification.proof.topic_fold import TopicFold

_WHOLE = 1 << 64

# Keys a statement when single keys are read.
_KEYS_A_STATEMENT = 500

# Keys of each kind that are kept of a table that differs; more are counted. Where there
# are that many, the cause is not a key.
_KEPT_KEYS = 200_000

# A source that does not answer is asked again this often, in the same chunk.
_TRIES = 3
_PAUSE_SECONDS = 1.0


@dataclass(slots=True)
class ShardProof:
    """What is known of a shard so far. `failed` holds the reason once it cannot be judged.

    `behind` are keys that end in the topic with an older row, by what the last comparison saw.
    """

    shard: Shard
    source: Source
    where: str
    inspection: Inspection
    scan: Scan
    fence: Position
    started: float = field(default_factory=time.monotonic)
    failed: str | None = None
    differences: Differences | None = None
    behind: Words = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    goals: list[Position] = field(default_factory=list)
    fenced_at: float = 0.0

    @property
    def shape(self) -> Shape:
        """The table's shape. The case exists because there is one."""
        if self.inspection.shape is None:
            raise RuntimeError("a case without a shape")
        return self.inspection.shape

    @property
    def since(self) -> Position:
        """Where the source was before any row was read."""
        return self.scan.since or self.fence

    def read(self, connections: Connections, progress: Callable[[int], None], chunk_rows: int) -> None:
        """Read the table, or what of it is still to be read. Raises SourceUnavailable and SourceRejected."""
        tries = 0
        while not self.scan.complete:
            before = len(self.scan.chunks)
            try:
                with connections.crew(self.source, self.where) as crew:
                    self.scan.run(crew, progress, chunk_rows=chunk_rows)
            except SourceUnavailable:
                tries = 1 if len(self.scan.chunks) > before else tries + 1
                if tries >= _TRIES:
                    raise
                time.sleep(_PAUSE_SECONDS * tries)
        self.goals = [bracket.high for bracket in self.scan.brackets()]
        self.fenced_at = time.monotonic()

    def compare(self, topic: TopicFold, slab_rows: int) -> Differences:
        """Compare the whole table, slab by slab."""
        slabs = 1 + (self.scan.rows + topic.count(self.shard.id)) // slab_rows
        edges = [_WHOLE * at // slabs for at in range(slabs + 1)]
        brackets, since = self.scan.brackets(), self.since
        differences, late = combined([]), self.behind[:0]
        for first, end in itertools.pairwise(edges):
            events = topic.events(self.shard.id, first, end)
            late = np.append(late, behind(events, since))[:_KEPT_KEYS]
            homes = self.scan.homes(events["key"][starts_of(events)])
            found = compare(events, self.scan.source_rows(first, end), brackets, homes, since)
            differences = combined([differences, found]).keeping(_KEPT_KEYS)
        self.differences, self.behind = differences, late
        if differences.twins:
            self.failed = (
                f"{differences.twins} rows of the source have the key of another one, in 64 bits of a digest"
                " or in how the topic writes it: they cannot be told apart"
            )
        return differences

    def look_again(self, topic: TopicFold) -> KeyReread:
        """Read the keys that differ once more, each statement in a bracket of its own.

        Raises SourceUnavailable and SourceRejected.
        """
        if self.differences is None:
            raise RuntimeError("nothing was compared")
        known = self.keys(topic, self.differences.keys())
        lost = [key for key in self.differences.keys().tolist() if key not in known]
        look = KeyReread(self, [], [], lost)
        wanted = list(known.items())
        for at in range(0, len(wanted), _KEYS_A_STATEMENT):
            part = wanted[at : at + _KEYS_A_STATEMENT]
            found = self.source.read_keys([key for _, key in part])
            words = np.array(sorted(word for word, _ in part), dtype=np.uint64)
            keys = stored_keys(engines.integer_key(self.shape), found.keys)
            # A collation may show the row of another key, that it holds for equal: 'A' where 'a' was asked for.
            asked = np.isin(keys, words)
            home = np.full(int(asked.sum()), len(look.brackets), dtype=np.int64)
            look.asked.append((words, SourceRows(keys[asked], digests(found.rows)[asked], home)))
            look.brackets.append(Bracket(found.low, found.high))
        self.goals = [bracket.high for bracket in look.brackets]
        return look

    def keys(self, topic: TopicFold, words: Words) -> dict[int, Key]:
        """The keys behind 64-bit numbers, as far as source or topic know them."""
        if engines.integer_key(self.shape):
            kind = np.uint64 if self.shape.column(self.shape.key[0]).unsigned else np.int64
            values = gathered(words).view(kind).tolist()
            return dict(zip(words.tolist(), ((str(value),) for value in values), strict=True))
        found = self._keys_in_topic(topic, words)
        rest = np.array([word for word in words.tolist() if word not in found], dtype=np.uint64)
        return {**found, **self._keys_in_source(rest)}

    def _keys_in_topic(self, topic: TopicFold, words: Words) -> dict[int, Key]:
        events = topic.events(self.shard.id, 0, _WHOLE, only=words)
        ends = np.append(starts_of(events)[1:], len(events)) - 1 if len(events) else np.zeros(0, dtype=np.int64)
        last = events[ends]
        by_partition: dict[int, dict[int, int]] = {}
        for word, (partition, offset) in zip(last["key"].tolist(), partition_offsets(last), strict=True):
            by_partition.setdefault(partition, {})[offset] = word
        decoder = topic.decoder()
        found: dict[int, Key] = {}
        for partition, wanted in by_partition.items():
            for offset, (key, _) in topic.fetch(partition, list(wanted)).items():
                if key is None:
                    continue
                _, tokens = decoder.key_tokens(key)
                text = source_key(self.shape, tokens)
                if text is not None:
                    found[wanted[offset]] = text
        return found

    def _keys_in_source(self, words: Words) -> dict[int, Key]:
        if not len(words):
            return {}
        rows = self.scan.source_rows(0, _WHOLE, only=words)
        found: dict[int, Key] = {}
        for chunk in np.unique(rows.chunks).tolist():
            keys = rows.keys[rows.chunks == chunk].tolist()
            place = self.scan.chunks[chunk]
            found.update(self.source.find(place.after, place.until, keys))
        return found


@dataclass(slots=True)
class KeyReread:
    """A second look at some keys: what was read, and what cannot be looked up (`lost`)."""

    case: ShardProof
    brackets: list[Bracket]
    asked: list[tuple[Words, SourceRows]]
    lost: list[int]

    def compare(self, topic: TopicFold) -> Differences:
        """Compare what was read with the topic; becomes the case's differences."""
        parts = []
        for chunk, (words, rows) in enumerate(self.asked):
            events = topic.events(self.case.shard.id, 0, _WHOLE, only=words)
            homes = np.full(len(starts_of(events)), chunk, dtype=np.int64)
            parts.append(compare(events, rows, self.brackets, homes, self.case.since))
        before = self.case.differences
        if before is None:
            raise RuntimeError("nothing was compared")
        lost = np.array(self.lost, dtype=np.uint64)
        parts.append(restricted(before, lost))
        found = combined(parts)
        self.case.differences = replace(
            found, sources=before.sources, topics=before.topics, beyond=before.beyond, twins=before.twins
        )
        return self.case.differences


def restricted(differences: Differences, words: Words) -> Differences:
    """Only what it says of these keys."""

    def kept(keys: Words) -> Words:
        return keys[np.isin(keys, words)]

    return Differences(
        kept(differences.missing),
        kept(differences.extra),
        kept(differences.mismatched),
        kept(differences.unplaced),
        differences.sources,
        differences.topics,
    )


def combined(parts: Sequence[Differences]) -> Differences:
    """What the parts say together."""
    empty = np.zeros(0, dtype=np.uint64)

    def all_of(name: str) -> Words:
        return np.concatenate([empty, *(getattr(part, name) for part in parts)])

    return Differences(
        all_of("missing"),
        all_of("extra"),
        all_of("mismatched"),
        all_of("unplaced"),
        sum(part.sources for part in parts),
        sum(part.topics for part in parts),
        (
            sum(part.beyond[0] for part in parts),
            sum(part.beyond[1] for part in parts),
            sum(part.beyond[2] for part in parts),
        ),
        sum(part.twins for part in parts),
    )

"""Compares topic events and source rows of a range of keys. Pure, on arrays.

A row is right if it equals its version at the low position of its chunk's
bracket, or any version up to the high one. A row that is not there is right if
its key was absent at the low position or deleted within.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cdc_platform.model.positions import Position
from cdc_platform.verification.proof.change_events import ABSENT, Events, Words
from cdc_platform.verification.proof.fold import came_late
from cdc_platform.verification.proof.raw_keys import places, starts_of

Indexes = npt.NDArray[np.int64]

# The chunk of a key that no chunk had, and that might have been in any.
NOWHERE = -1


@dataclass(frozen=True, slots=True)
class SourceRows:
    """Rows as the source showed them: key, digest, and the chunk they were read in."""

    keys: Words
    rows: Words
    chunks: Indexes


@dataclass(frozen=True, slots=True)
class Bracket:
    """The positions between which one statement read a chunk."""

    low: Position
    high: Position


@dataclass(frozen=True, slots=True)
class Differences:
    """Keys (as the fold stores them) that differ, and how many were right.

    `missing`: in the source, not in the topic. `extra`: the other way round.
    `undecided`: in the topic only, and not to be decided without reading the
    source again. `sources` and `topics` count rows, those of the topic as of the
    positions at which the source was read. `not_kept` counts
    missing, extra and mismatched keys beyond those that are kept. `ambiguous` counts keys that two
    rows of the source share, in 64 bits or in how the topic writes them.
    """

    missing: Words
    extra: Words
    mismatched: Words
    undecided: Words
    sources: int
    topics: int
    not_kept: tuple[int, int, int] = (0, 0, 0)
    ambiguous: int = 0

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many keys are missing, extra and mismatched."""
        missing, extra, mismatched = self.not_kept
        return (
            missing + len(self.missing),
            extra + len(self.extra) + len(self.undecided),
            mismatched + len(self.mismatched),
        )

    @property
    def any(self) -> bool:
        """True when anything differs or is open."""
        return any(self.counts)

    def keys(self) -> Words:
        """All that are kept."""
        return np.concatenate([self.missing, self.extra, self.mismatched, self.undecided])

    def keeping(self, most: int) -> Differences:
        """The same, but of each kind no more than the first `most` keys; the others are counted."""
        found = replace(
            self,
            missing=self.missing[:most],
            extra=self.extra[:most],
            mismatched=self.mismatched[:most],
            undecided=self.undecided[:most],
        )
        missing, extra, mismatched = (all_of - kept for all_of, kept in zip(self.counts, found.counts, strict=True))
        before = self.not_kept
        return replace(found, not_kept=(before[0] + missing, before[1] + extra, before[2] + mismatched))


def combined(parts: Sequence[Differences]) -> Differences:
    """What the parts say together."""
    empty = np.zeros(0, dtype=np.uint64)

    def all_of(name: str) -> Words:
        return np.concatenate([empty, *(getattr(part, name) for part in parts)])

    return Differences(
        all_of("missing"),
        all_of("extra"),
        all_of("mismatched"),
        all_of("undecided"),
        sum(part.sources for part in parts),
        sum(part.topics for part in parts),
        (
            sum(part.not_kept[0] for part in parts),
            sum(part.not_kept[1] for part in parts),
            sum(part.not_kept[2] for part in parts),
        ),
        sum(part.ambiguous for part in parts),
    )


def restricted(differences: Differences, words: Words) -> Differences:
    """Only what it says of these keys."""

    def kept(keys: Words) -> Words:
        return keys[np.isin(keys, words)]

    return Differences(
        missing=kept(differences.missing),
        extra=kept(differences.extra),
        mismatched=kept(differences.mismatched),
        undecided=kept(differences.undecided),
        sources=0,
        topics=0,
    )


def compare(
    events: Events, source: SourceRows, brackets: Sequence[Bracket], chunk_of_key: Indexes, start: Position
) -> Differences:
    """Compare one shard's sorted events with its rows.

    `chunk_of_key` gives for each key of the events (in the order of `starts_of`) the
    chunk that a row of it would have been in, or NOWHERE. No bracket begins
    before `start`.
    """
    starts = starts_of(events)
    counts = np.diff(np.append(starts, len(events)))
    keys = events["key"][starts]
    order = np.argsort(source.keys, kind="stable")
    known, rows, chunks = source.keys[order], source.rows[order], source.chunks[order]
    twice = np.append(False, known[1:] == known[:-1])[: len(known)]

    at, there = _matches(keys, known)
    shown, chunk_of_key = np.full(len(keys), ABSENT), chunk_of_key.copy()
    shown[there], chunk_of_key[there] = rows[at[there]], chunks[at[there]]
    matched = _matches(known, keys)[1]

    right, live = _judge(events, starts, counts, shown, chunk_of_key, brackets, start)
    undecided = ~right & (chunk_of_key == NOWHERE)
    wrong = ~right & ~undecided
    return Differences(
        missing=np.unique(np.concatenate([known[~matched], keys[wrong & there & ~live]])),
        extra=keys[wrong & ~there],
        mismatched=keys[wrong & there & live],
        undecided=keys[undecided],
        sources=len(known),
        topics=int(np.where(right, shown != ABSENT, live).sum()),
        ambiguous=int(twice.sum()),
    )


def stale_keys(events: Events, until: Position) -> Words:
    """Keys whose last record in the topic is older than their newest row at `until`.

    Verdicts go by the source's order. Consumers of a topic go by offsets, and so
    does compaction: a copy that a zombie sends late, behind newer events of
    its key, leaves them with an old row. What came after `until` may
    still be on its way, and does not count.
    """
    if not came_late(events):
        return np.zeros(0, dtype=np.uint64)
    starts = starts_of(events)
    counts = np.diff(np.append(starts, len(events)))
    indexes, begins = _all_of(starts[counts > 1], counts[counts > 1])
    part, lengths = events[indexes], counts[counts > 1]
    index = np.arange(len(part))
    visible = until.sees(part["stream"], part["seq"])
    newest = np.repeat(np.maximum.reduceat(np.where(visible, index, -1), begins), lengths)
    # Elsewhere it is a leftover (`raw_keys.leftovers`), and offsets of two partitions do not compare.
    where = places(part)
    offset = np.where(where == where[newest], part["offset"], -1)
    tail = offset == np.repeat(np.maximum.reduceat(offset, begins), lengths)
    late = tail & (index < newest) & (part["row"] != part["row"][newest])
    return np.unique(part["key"][late])


def _matches(these: Words, among: Words) -> tuple[Indexes, npt.NDArray[np.bool_]]:
    """For each of `these`: its index in the sorted `among`, and whether it stands there."""
    if not len(among):
        return np.zeros(len(these), dtype=np.int64), np.zeros(len(these), dtype=np.bool_)
    at = np.minimum(np.searchsorted(among, these), len(among) - 1)
    return at, among[at] == these


def _judge(
    events: Events,
    starts: Indexes,
    counts: Indexes,
    shown: Words,
    chunk_of_key: Indexes,
    brackets: Sequence[Bracket],
    start: Position,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """For each key: is what the source shows right, and does its last event hold a row?"""
    if not len(events):
        nothing = np.zeros(0, dtype=np.bool_)
        return nothing, nothing
    live = events["row"][starts + counts - 1] != ABSENT
    # Nearly all keys have one event, and it says the same as the source.
    right = (counts == 1) & (events["row"][starts] == shown)
    rest = np.flatnonzero(~right)
    rest = rest[np.argsort(chunk_of_key[rest], kind="stable")]
    chunks, begins = np.unique(chunk_of_key[rest], return_index=True)
    edges = [*begins.tolist(), len(rest)]
    for at, chunk in enumerate(chunks.tolist()):
        chosen = rest[edges[at] : edges[at + 1]]
        if chunk == NOWHERE:
            # No row, and no telling where it would have been: right when there was none in any chunk's bracket.
            right[chosen] = _never_there(events, starts[chosen], counts[chosen], start)
        else:
            right[chosen] = _in_bracket(events, starts[chosen], counts[chosen], shown[chosen], brackets[chunk])
    return right, live


def _never_there(events: Events, starts: Indexes, counts: Indexes, start: Position) -> npt.NDArray[np.bool_]:
    """For each key: was it absent at that position, and ever since?"""
    indexes, begins = _all_of(starts, counts)
    part = events[indexes]
    low = start.sees(part["stream"], part["seq"])
    index = np.arange(len(part))
    base = np.maximum.reduceat(np.where(low, index, -1), begins)
    later = (index >= np.repeat(base, counts)) & (part["row"] != ABSENT)
    never: npt.NDArray[np.bool_] = ~np.logical_or.reduceat(later, begins)
    return never


def _all_of(starts: Indexes, counts: Indexes) -> tuple[Indexes, Indexes]:
    """The indexes of all events of some keys, and where each key begins among them."""
    begins = np.append(0, np.cumsum(counts)[:-1])
    return np.repeat(starts - begins, counts) + np.arange(counts.sum()), begins


def _in_bracket(
    events: Events, starts: Indexes, counts: Indexes, shown: Words, bracket: Bracket
) -> npt.NDArray[np.bool_]:
    """For each key of a chunk: does a version in the bracket equal what was shown?"""
    indexes, begins = _all_of(starts, counts)
    part = events[indexes]
    low = bracket.low.sees(part["stream"], part["seq"])
    high = low if bracket.high is bracket.low else bracket.high.sees(part["stream"], part["seq"])
    index = np.arange(len(part))
    base = np.maximum.reduceat(np.where(low, index, -1), begins)
    accepted = high & ~low & (index > np.repeat(base, counts))
    accepted[base[base >= 0]] = True
    same = accepted & (part["row"] == np.repeat(shown, counts))
    right = np.logical_or.reduceat(same, begins)
    right |= (base < 0) & (shown == ABSENT)
    return right

"""Events that lack unchanged TOAST values, completed from the events before them.

Postgres sends a large value only when it changes, unless REPLICA IDENTITY is
FULL. The fold keeps such an event together with the last complete one of its
key; here both are read again from the topic and put together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import msgspec
import numpy as np
import numpy.typing as npt

from cdc_platform.canonical import hash_sql as engines
from cdc_platform.canonical.topic_rows import RowReader
from cdc_platform.verification.proof.change_events import ABSENT, PARTIAL, UNKNOWN, Events, digests, partition_offsets
from cdc_platform.verification.proof.decoding import Decoder
from cdc_platform.verification.proof.raw_keys import starts_of

# Partition and offsets to values.
Fetch = Callable[[int, Sequence[int]], Mapping[int, tuple[bytes | None, bytes | None]]]

# A row's tokens by column; None for a value that was not sent.
Tokens = dict[str, bytes | None]

# The `after` of an event to its tokens.
Read = Callable[[bytes], Tokens]

# Values fetched at once; each may be as large as a record gets.
_FETCHED = 500


def complete(events: Events, rows: RowReader, decoder: Decoder, fetch: Fetch, spill: Path) -> Events:
    """The sorted events, partial rows replaced by the digest of what they amount to.

    One whose missing values no earlier event of its key has becomes UNKNOWN:
    consumers cannot know them either. Offsets hold the
    partition (`change_events.packed`). Values wait in a file in the directory `spill`.
    """
    if not (events["row"] == PARTIAL).any():
        return events
    events = events.copy()
    digest = engines.DIGESTS[rows.shape.engine]
    for at, tokens in assembled(events.copy(), rows.tokens, decoder, fetch, spill):
        row = None if tokens is None else rows.assembled(tokens)
        events["row"][at] = UNKNOWN if row is None else _word(digest(row).digest())
    return events


def assembled(
    events: Events, read: Read, decoder: Decoder, fetch: Fetch, spill: Path
) -> Iterator[tuple[int, Tokens | None]]:
    """Index of each partial event among the sorted ones, and what `read` gives for its row, taken together.

    None where no earlier event of its key has a row; a token is None where no earlier event has the value.
    """
    starts = starts_of(events)
    counts = np.diff(np.append(starts, len(events)))
    touched = np.logical_or.reduceat(events["row"] == PARTIAL, starts)
    with TemporaryFile(dir=spill) as file:
        values = _Values(file, events, np.flatnonzero(np.repeat(touched, counts)), fetch)
        for begin, count in zip(starts[touched].tolist(), counts[touched].tolist(), strict=True):
            known: Tokens | None = None
            for at in range(begin, begin + count):
                if events["row"][at] == ABSENT:
                    known = None
                    continue
                tokens = _tokens(values.of(at), read, decoder)
                if tokens is not None and known is not None:
                    tokens = {name: known[name] if token is None else token for name, token in tokens.items()}
                known = tokens
                if events["row"][at] == PARTIAL:
                    yield at, known


class _Values:
    """The values of some events, kept in a file: they are large, or they would not be TOAST."""

    def __init__(self, file: IO[bytes], events: Events, chosen: npt.NDArray[np.int64], fetch: Fetch) -> None:
        self._file = file
        self._chosen = chosen
        self._begin = np.zeros(len(chosen), dtype=np.int64)
        # -1: the topic does not have it, or it is a tombstone.
        self._size = np.full(len(chosen), -1, dtype=np.int64)
        # In the order of their offsets, so that a partition is read once from its beginning to its end.
        order = np.argsort(events["offset"][chosen], kind="stable")
        where = partition_offsets(events[chosen[order]])
        for partition, group in itertools.groupby(zip(where, order.tolist(), strict=True), key=lambda pair: pair[0][0]):
            while part := list(itertools.islice(group, _FETCHED)):
                found = fetch(partition, [offset for (_, offset), _ in part])
                for (_, offset), at in part:
                    value = found.get(offset, (None, None))[1]
                    if value is not None:
                        self._begin[at], self._size[at] = file.tell(), len(value)
                        file.write(value)

    def of(self, event: int) -> bytes | None:
        """The value of the event at this index."""
        at = int(np.searchsorted(self._chosen, event))
        if self._size[at] < 0:
            return None
        self._file.seek(int(self._begin[at]))
        return self._file.read(int(self._size[at]))


def _word(digest: bytes) -> np.uint64:
    found: np.uint64 = digests(np.frombuffer(digest[:8], dtype=">u8").astype(np.uint64))[0]
    return found


def _tokens(value: bytes | None, read: Read, decoder: Decoder) -> Tokens | None:
    if value is None:
        return None
    try:
        after = decoder.after(value)
        return None if after == b"null" else read(after)
    except msgspec.DecodeError:
        return None

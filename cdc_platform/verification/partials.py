"""Events that lack unchanged TOAST values, completed from the events before them.

Postgres sends a large value only when it changes, unless REPLICA IDENTITY is
FULL. The fold keeps such an event together with the last complete one of its
key; here both are read again from the topic and put together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from cdc_platform.canonical import engines
from cdc_platform.canonical.rows import RowReader
from cdc_platform.verification.decoding import Decoder
from cdc_platform.verification.events import ABSENT, PARTIAL, UNKNOWN, Events, digests, packed, places
from cdc_platform.verification.fold import starts_of

# Partition and offsets to values.
Fetch = Callable[[int, Sequence[int]], Mapping[int, tuple[bytes | None, bytes | None]]]


def complete(events: Events, rows: RowReader, decoder: Decoder, fetch: Fetch) -> Events:
    """The sorted events, partial rows replaced by the digest of what they amount to.

    One whose missing values no earlier event of its key holds becomes UNKNOWN:
    who reads the topic by key cannot know them either. Offsets hold the
    partition (`events.places`).
    """
    if not (events["row"] == PARTIAL).any():
        return events
    events = events.copy()
    starts = starts_of(events)
    counts = np.diff(np.append(starts, len(events)))
    touched = np.logical_or.reduceat(events["row"] == PARTIAL, starts)
    chosen = np.repeat(touched, counts)
    values = _fetched(events[chosen], fetch)
    digest = engines.DIGESTS[rows.shape.engine]
    for begin, count in zip(starts[touched].tolist(), counts[touched].tolist(), strict=True):
        held: dict[str, bytes | None] | None = None
        for at in range(begin, begin + count):
            if events["row"][at] == ABSENT:
                held = None
                continue
            tokens = _tokens(values.get(int(events["offset"][at])), rows, decoder)
            if tokens is not None and held is not None:
                tokens = {name: held[name] if token is None else token for name, token in tokens.items()}
            held = tokens
            if events["row"][at] == PARTIAL:
                row = None if held is None else rows.assembled(held)
                word = UNKNOWN if row is None else _word(digest(row).digest())
                events["row"][at] = word
    return events


def _word(digest: bytes) -> np.uint64:
    found: np.uint64 = digests(np.frombuffer(digest[:8], dtype=">u8").astype(np.uint64))[0]
    return found


def _fetched(events: Events, fetch: Fetch) -> dict[int, bytes | None]:
    """Packed offset to value."""
    offsets: dict[int, list[int]] = {}
    for partition, offset in places(events):
        offsets.setdefault(partition, []).append(offset)
    return {
        packed(partition, offset): value
        for partition, wanted in offsets.items()
        for offset, (_, value) in fetch(partition, wanted).items()
    }


def _tokens(value: bytes | None, rows: RowReader, decoder: Decoder) -> dict[str, bytes | None] | None:
    if value is None:
        return None
    try:
        after = decoder.after(value)
        return None if after == b"null" else rows.tokens(after)
    except msgspec.DecodeError:
        return None

"""Rows whose newest event lacks values that Postgres did not send, put together from the events before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cdc_platform.errors import TopicUnreadable
from cdc_platform.verification.proof.change_events import Events, Words
from cdc_platform.verification.proof.decoding import JsonDecoder
from cdc_platform.verification.proof.raw_keys import of_the_row, starts_of
from cdc_platform.verification.proof.toast_values import Tokens, assembled
from cdc_platform.verification.proof.topic_fold import TopicFold

# Rows put together at once; their values wait in a file.
_KEYS = 2_000


def partial_rows(
    fold: TopicFold, decoder: JsonDecoder, shard: str, keys: Sequence[Words], spill: Path
) -> Iterator[tuple[Events, int, Tokens]]:
    """Of each of these keys of a shard, by the fold's numbers, its newest event and all of its row's tokens.

    The event is given as an array and its index in it. Raises TopicUnreadable where a value is in no event any more.
    """
    words = np.concatenate(keys)
    for at in range(0, len(words), _KEYS):
        events = fold.as_sent(shard, 0, 1 << 64, only=words[at : at + _KEYS])
        events = events[of_the_row(events)]
        ends = set((np.append(starts_of(events)[1:], len(events)) - 1).tolist())
        for index, tokens in assembled(events, fold.rows.wire_tokens, decoder, fold.fetch, spill):
            if index not in ends:
                continue
            if tokens is None or None in tokens.values():
                raise unknown_rows(1, shard)
            yield events, index, tokens


def unknown_rows(count: int, shard: str) -> TopicUnreadable:
    """That so many rows have values which the topic does not have."""
    return TopicUnreadable(
        f"{count} rows of shard {shard} cannot be known: Postgres did not send values that an update left "
        "unchanged, and the topic no longer has the events that hold them.",
        cure="Send the rows again: `cdc-platform repair`; REPLICA IDENTITY FULL sends all values.",
    )

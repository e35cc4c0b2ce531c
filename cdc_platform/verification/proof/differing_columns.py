"""Which keys differ, and in which columns: for people, from a fresh look at both sides."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec
import numpy as np

from cdc_platform.clients.sources.source import Key
from cdc_platform.verification.proof.change_events import Words, partition_offsets
from cdc_platform.verification.proof.fold import starts_of
from cdc_platform.verification.proof.fold_files import Drifted
from cdc_platform.verification.proof.shard_proof import ShardProof
from cdc_platform.verification.proof.topic_fold import TopicFold
from cdc_platform.verification.proof.verdicts import KeyDifference

_WHOLE = 1 << 64


def samples(case: ShardProof, topic: TopicFold, count: int) -> tuple[KeyDifference, ...]:
    """Up to `count` keys that differ.

    Raises Drifted when one differs only because its event has other columns
    than the table: then the fold must be read column by column first.
    """
    if case.differences is None:
        return ()
    chosen = _chosen(case, count)
    words = np.array([word for word, _ in chosen], dtype=np.uint64)
    keys = case.keys(topic, words)
    latest = _latest(case, topic, words)
    rows = case.source.tokens(list(keys.values())) if keys else {}
    found = []
    for word, kind in chosen:
        key = keys.get(word)
        partition, offset = latest.get(word, (None, None))
        columns: tuple[str, ...] = ()
        if kind == "mismatched" and partition is not None and offset is not None:
            row = rows.get(key) if key is not None else None
            columns = _columns(topic, partition, offset, row)
        found.append(
            KeyDifference(key=_shown(case, key, word), kind=kind, columns=columns, partition=partition, offset=offset)
        )
    return tuple(found)


def names(case: ShardProof, topic: TopicFold, words: Words) -> list[str]:
    """Keys as people know them, by their 64-bit numbers."""
    keys = case.keys(topic, words)
    return [_shown(case, keys.get(word), word) for word in words.tolist()]


def _chosen(case: ShardProof, count: int) -> list[tuple[int, str]]:
    differences = case.differences
    if differences is None:
        return []
    return [
        pair
        for pair, _ in zip(
            (
                (word, kind)
                for kind, keys in (
                    ("missing", differences.missing),
                    ("extra", np.concatenate([differences.extra, differences.unplaced])),
                    ("mismatched", differences.mismatched),
                )
                for word in keys.tolist()
            ),
            range(count),
            strict=False,
        )
    ]


def _latest(case: ShardProof, topic: TopicFold, words: Words) -> dict[int, tuple[int, int]]:
    events = topic.events(case.shard.id, 0, _WHOLE, only=words)
    if not len(events):
        return {}
    last = events[np.append(starts_of(events)[1:], len(events)) - 1]
    return dict(zip(last["key"].tolist(), partition_offsets(last), strict=True))


def _columns(topic: TopicFold, partition: int, offset: int, row: object) -> tuple[str, ...]:
    value = topic.fetch(partition, [offset]).get(offset, (None, None))[1]
    if value is None or not isinstance(row, dict):
        return ()
    try:
        after = topic.decoder().after(value)
        if after == b"null":
            return ()
        if not topic.projected and not topic.rows.same_columns(after):
            raise Drifted
        tokens = topic.rows.tokens(after)
    except msgspec.DecodeError:
        return ()
    return tuple(_differing(tokens, row))


def _differing(tokens: dict[str, bytes | None], row: dict[str, bytes]) -> Iterator[str]:
    for name, token in tokens.items():
        if token is None:
            yield f"{name} (not sent: an unchanged TOAST value)"
        elif token != row[name]:
            yield name


def _shown(case: ShardProof, key: Key | None, word: int) -> str:
    if key is None:
        return f"#{word:016x}"
    return json.dumps(dict(zip(case.shape.key, key, strict=True)), ensure_ascii=False)

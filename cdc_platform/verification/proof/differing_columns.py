"""Which keys differ, and in which columns: for operators, read from both sides once more."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping

import msgspec
import numpy as np

from cdc_platform.clients.sources.source import Key
from cdc_platform.verification.proof.change_events import Words, partition_offsets
from cdc_platform.verification.proof.fold_files import Drifted
from cdc_platform.verification.proof.shard_proof import Compared, ShardProof
from cdc_platform.verification.proof.topic_fold import TopicFold
from cdc_platform.verification.proof.verdicts import LEFTOVER, MOVED, KeyDifference


def samples(compared: Compared, topic: TopicFold, count: int) -> tuple[KeyDifference, ...]:
    """Up to `count` keys that differ. Raises Drifted as `has_drifted` says it, and what reading raises."""
    proof, chosen = compared.proof, _chosen(compared, count)
    left = compared.left[: max(0, count - len(chosen))]
    words = np.array(list(chosen), dtype=np.uint64)
    keys, old = proof.keys(topic, words), proof.old_keys(topic, words)
    latest = proof.latest(topic, words)
    rows = proof.source.tokens(list(keys.values())) if keys else {}
    found = []
    for word, kind in chosen.items():
        key = keys.get(word)
        partition, offset = latest.get(word, (None, None))
        row = rows.get(key) if key is not None else None
        columns: tuple[str, ...] = ()
        if kind == "mismatched" and partition is not None and offset is not None and row is not None:
            columns = _columns(topic, partition, offset, row)
        shown = old.get(word) or _shown(proof, key, word)
        found.append(KeyDifference(key=shown, kind=kind, columns=columns, partition=partition, offset=offset))
    newest = proof.newest(topic, left["key"])
    here = dict(zip(newest["key"].tolist(), newest["raw"].tolist(), strict=True))
    kinds = [MOVED if here.get(event["key"]) == event["raw"] else LEFTOVER for event in left]
    shown_left = zip(names(proof, topic, left["key"]), kinds, partition_offsets(left), strict=True)
    for shown, kind, (partition, offset) in shown_left:
        found.append(KeyDifference(key=shown, kind=kind, partition=partition, offset=offset))
    return tuple(found)


def names(proof: ShardProof, topic: TopicFold, words: Words) -> list[str]:
    """Keys as operators know them, by their 64-bit numbers."""
    keys = proof.keys(topic, words)
    return [_shown(proof, keys.get(word), word) for word in words.tolist()]


def has_drifted(compared: Compared, topic: TopicFold, count: int) -> bool:
    """Has one of the first `count` keys that differ an event with other columns than the table?

    It may differ only because of that: then the fold must be read column by column first.
    """
    if topic.projected:
        return False
    mismatched = [word for word, kind in _chosen(compared, count).items() if kind == "mismatched"]
    latest = compared.proof.latest(topic, np.array(mismatched, dtype=np.uint64))
    events = (_after(topic, partition, offset) for partition, offset in latest.values())
    return any(after is not None and not topic.rows.same_columns(after) for after in events)


def _chosen(compared: Compared, count: int) -> dict[int, str]:
    """The first keys that differ, and how."""
    differences = compared.differences
    kinds = {
        "missing": differences.missing,
        "extra": np.concatenate([differences.extra, differences.undecided]),
        "mismatched": differences.mismatched,
    }
    pairs = ((word, kind) for kind, keys in kinds.items() for word in keys[:count].tolist())
    return dict(itertools.islice(pairs, count))


def _after(topic: TopicFold, partition: int, offset: int) -> bytes | None:
    """The row of an event; None where it has none, is gone or cannot be read."""
    value = topic.fetch(partition, [offset]).get(offset, (None, None))[1]
    try:
        after = None if value is None else topic.decoder().after(value)
    except (msgspec.DecodeError, KeyError):
        return None
    return after if after is not None and after.startswith(b"{") else None


def _columns(topic: TopicFold, partition: int, offset: int, row: Mapping[str, bytes]) -> tuple[str, ...]:
    after = _after(topic, partition, offset)
    if after is None:
        return ()
    if not topic.projected and not topic.rows.same_columns(after):
        raise Drifted
    try:
        return tuple(_differing(topic.rows.tokens(after), row))
    except msgspec.DecodeError:
        return ()


def _differing(tokens: Mapping[str, bytes | None], row: Mapping[str, bytes]) -> Iterator[str]:
    for name, token in tokens.items():
        if token is None:
            yield f"{name} (not sent: an unchanged TOAST value)"
        elif token != row[name]:
            yield name


def _shown(proof: ShardProof, key: Key | None, word: int) -> str:
    if key is None:
        return f"#{word:016x}"
    return json.dumps(dict(zip(proof.shape.key, key, strict=True)), ensure_ascii=False)

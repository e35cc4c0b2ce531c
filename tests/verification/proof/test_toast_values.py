"""Unchanged TOAST values are put together from earlier events, without holding what they amount to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cdc_platform.canonical.columns import Column, Shape
from cdc_platform.canonical.topic_rows import RowReader
from cdc_platform.clients.kafka.topic_records import Batch
from cdc_platform.connectors.engines.postgres import UNAVAILABLE_VALUE
from cdc_platform.model.topology import Engine
from cdc_platform.verification.proof import toast_values as partials
from cdc_platform.verification.proof.change_events import ABSENT, PARTIAL, UNKNOWN, Events
from cdc_platform.verification.proof.decoding import JsonDecoder
from cdc_platform.verification.proof.fold import in_order

SHAPE = Shape(
    engine=Engine.POSTGRES,
    columns=(
        Column(name="id", type="int8", nullable=False),
        Column(name="n", type="int4"),
        Column(name="body", type="text"),
    ),
    key=("id",),
    complete_rows=False,
)
Record = tuple[bytes | None, bytes | None]


def _record(key: int, lsn: int, n: int, body: str | None, op: str = "u") -> Record:
    text = UNAVAILABLE_VALUE if body is None else body
    after = None if op == "d" else {"id": key, "n": n, "body": text}
    value = {"before": None, "after": after, "source": {"txId": lsn, "lsn": lsn}, "op": op}
    return json.dumps({"id": key, "shard": "s"}).encode(), json.dumps(value, separators=(",", ":")).encode()


def _word(key: int, n: int, body: str) -> int:
    row = json.dumps({"id": key, "n": n, "body": body}, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(row.encode()).digest()[:8], "big")


class _Topic:
    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.asked: list[int] = []

    def events(self) -> Events:
        keys, values = zip(*self.records, strict=True)
        decoded = JsonDecoder(SHAPE).decode(0, Batch(keys, values, list(range(len(self.records)))))
        assert not decoded.unreadable
        return in_order(decoded.events)

    def fetch(self, partition: int, offsets: Sequence[int]) -> Mapping[int, Record]:
        assert partition == 0 and list(offsets) == sorted(offsets)
        self.asked.append(len(offsets))
        return {offset: self.records[offset] for offset in offsets}


def _completed(topic: _Topic, spill: Path) -> Events:
    return partials.complete(topic.events(), RowReader(SHAPE), JsonDecoder(SHAPE), topic.fetch, spill)


def test_a_value_is_taken_from_the_last_event_that_has_it(tmp_path: Path) -> None:
    topic = _Topic(
        [
            _record(1, 10, 1, "long", "c"),
            _record(1, 20, 2, None),
            _record(1, 30, 3, None),
            _record(1, 40, 4, "longer"),
            _record(1, 50, 5, None),
        ]
    )
    rows = _completed(topic, tmp_path)["row"].tolist()
    assert rows == [
        _word(1, 1, "long"),
        _word(1, 2, "long"),
        _word(1, 3, "long"),
        _word(1, 4, "longer"),
        _word(1, 5, "longer"),
    ]


def test_a_value_that_no_earlier_event_has_is_not_known(tmp_path: Path) -> None:
    """Compaction took it, or the key is new; nor does one from before a delete count."""
    topic = _Topic(
        [_record(1, 10, 1, None), _record(2, 20, 1, "x", "c"), _record(2, 30, 0, "", "d"), _record(2, 40, 2, None)]
    )
    found = _completed(topic, tmp_path)
    rows = found["row"][np.argsort(found["offset"])].tolist()
    assert rows == [int(UNKNOWN), _word(2, 1, "x"), int(ABSENT), int(UNKNOWN)]
    assert int(PARTIAL) not in rows


def test_values_wait_on_disk_and_are_fetched_a_few_at_a_time_in_order(tmp_path: Path) -> None:
    count = 3 * partials._FETCHED
    records = [_record(key, 1 + key, 1, f"long {key}", "c") for key in range(count)]
    records += [_record(key, 10_000 + key, 2, None) for key in range(count)]
    topic = _Topic(records)
    events = _completed(topic, tmp_path)
    assert max(topic.asked) == partials._FETCHED
    assert sum(topic.asked) == 2 * count
    last = events[np.append(events["key"][1:] != events["key"][:-1], True)]
    assert sorted(last["row"].tolist()) == sorted(_word(key, 2, f"long {key}") for key in range(count))
    assert list(tmp_path.iterdir()) == []


def test_events_that_are_whole_are_left_alone(tmp_path: Path) -> None:
    topic = _Topic([_record(1, 10, 1, "long", "c")])
    assert _completed(topic, tmp_path)["row"].tolist() == [_word(1, 1, "long")]
    assert topic.asked == []

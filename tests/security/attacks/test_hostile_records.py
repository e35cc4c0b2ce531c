"""One record that nests too deeply, or claims a generation that no lock ever had, stops nobody."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_platform.clients.connect import wire
from cdc_platform.clients.kafka import heartbeats, notifications, offset_history
from cdc_platform.clients.kafka.state_reader import WRITER_KEY, StateReader
from cdc_platform.defs.sampled_columns import column_schema
from cdc_platform.documents.znodes import MAX_FLOOR, generation_floor, read_generation_floor
from cdc_platform.errors import ConnectUnavailable, TopologyError
from cdc_platform.model import bounded_json
from cdc_platform.verification.continuity import transaction_topic
from tests.connectors.cases import PINS_7

DEEP = b'{"version":1,"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Message:
    """What a reader asks of a Kafka record."""

    def __init__(self, key: bytes, value: bytes | None) -> None:
        self._key, self._value = key, value

    def key(self) -> bytes:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 0


def read_state(*messages: Message) -> StateReader:
    reader = StateReader({}, "cdc.platform.state", "g", None)  # type: ignore[arg-type]
    for message in messages:
        reader._take(message)  # type: ignore[arg-type]
    return reader


def test_a_deep_record_of_the_state_topic_is_skipped_and_the_next_one_read() -> None:
    reader = read_state(Message(b"hold/a.b", DEEP), Message(b"hold/a.c", b'{"version":1,"run":"r"}'))
    assert "nested too deeply" in reader.problems["hold/a.b"]
    assert reader.documents == {"hold/a.c": {"run": "r"}}


@pytest.mark.parametrize("generation", [2**63 - 1, 2**48 + 1, -1])
def test_a_forged_generation_fences_nobody(generation: int) -> None:
    forged = f'{{"version":1,"generation":{generation}}}'.encode()
    reader = read_state(
        Message(WRITER_KEY.encode(), b'{"version":1,"generation":7}'), Message(WRITER_KEY.encode(), forged)
    )
    assert reader.writer == 7
    assert "generation" in reader.problems[WRITER_KEY]


_values = st.recursive(
    st.none() | st.booleans() | st.sampled_from([0, -1, 2**63, 10**40, 1e308]) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)
_records = st.one_of(
    st.binary(max_size=30),
    st.just(DEEP),
    st.sampled_from(
        [b'{"version":1e999}', b'{"version":1,"generation":1e999}', b'{"version":1,"generation":[]}', b"NaN"]
    ),
    _values.map(lambda value: json.dumps(value).encode()),
    st.builds(lambda version, value: json.dumps({"version": version, "generation": value}).encode(), _values, _values),
)
_keys = st.sampled_from([b"hold/bad", b"writer", b"run/bad", b"", b"\xff\xfe", None])


@settings(max_examples=50, deadline=None)
@given(records=st.lists(st.tuples(_keys, _records), max_size=6))
def test_a_bad_record_costs_itself_and_is_named(records: list[tuple[bytes | None, bytes]]) -> None:
    good = b'{"version":1,"run":"r"}'
    messages = [Message(WRITER_KEY.encode(), b'{"version":1,"generation":7}'), Message(b"hold/a", good)]
    messages += [Message(key, value) for key, value in records]  # type: ignore[arg-type]
    reader = read_state(*messages, Message(b"hold/b", good))
    assert reader.documents["hold/a"] == reader.documents["hold/b"] == {"run": "r"}
    assert reader.writer is not None and 7 <= reader.writer <= 2**48
    for key in {key for key, _ in records if key in (b"hold/bad", b"run/bad")}:
        name = (key or b"").decode()
        assert (name in reader.documents) or (name in reader.problems)
    if any(not key or key == b"\xff\xfe" for key, _ in records):
        assert any(name.startswith("(offset") for name in reader.problems)


READERS: dict[str, Callable[[bytes], Any]] = {
    "notifications": lambda data: notifications.decode(data, NOW),
    "transactions": lambda data: transaction_topic.decoded(data).id or None,
    "committed offsets": lambda data: offset_history._decoded(data) or None,
    "sampled columns": column_schema,
    "Connect's error": wire.error_message,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("data", [DEEP, b"[" * 200_000, b'{"a":"\xff"}', b""], ids=["deep", "open", "utf-8", "empty"])
def test_no_reader_ends_at_a_broken_record(reader: str, data: bytes) -> None:
    assert READERS[reader](data) in (None, "")


def test_a_deep_answer_of_connect_is_one_of_our_errors() -> None:
    with pytest.raises(ConnectUnavailable, match="nested too deeply"):
        wire.decode(wire.entries, b'{"a":' * 200_000, "http://w")


def test_a_deep_heartbeat_is_no_heartbeat() -> None:
    assert heartbeats._shard(DEEP) is None


def test_the_helper_has_one_error() -> None:
    decoder = msgspec.json.Decoder()
    for data in (DEEP, b'"\xff"', b"{"):
        with pytest.raises(msgspec.DecodeError):
            bounded_json.decode(decoder, data)


def test_a_shard_s_author_leaves_room_for_the_generations_of_others() -> None:
    with pytest.raises(TopologyError, match="generation"):
        replace(PINS_7, generation=2**63 - 1)
    for forged in (2**63 - 1, 2**48, MAX_FLOOR):
        left = generation_floor(b'{"generation_floor":3}', [("theirs", forged), ("pins", 5)])
        assert read_generation_floor(left, "pins") == 6
        assert read_generation_floor(left, "theirs") == read_generation_floor(left, "others") == 3
    assert read_generation_floor(f'{{"generation_floor":{2**63}}}'.encode(), "pins") == 0
    # What one dataset's shards leave is for that dataset.
    most = generation_floor(None, [("theirs", MAX_FLOOR - 1)])
    assert (read_generation_floor(most, "theirs"), read_generation_floor(most, "pins")) == (MAX_FLOOR, 0)

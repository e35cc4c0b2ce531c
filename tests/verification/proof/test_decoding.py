"""From records to events: with schemas and without, mixed, deleted, unreadable."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from cdc_platform.canonical.columns import Column, Shape
from cdc_platform.clients.kafka.topic_records import Batch
from cdc_platform.model.topology import Engine
from cdc_platform.verification.proof.change_events import (
    ABSENT,
    DELETED,
    EVENT,
    NO_SHARD,
    OLD_KEY,
    READ,
    SNAPSHOT,
    STREAMED,
    TOMBSTONE,
    UNKNOWN,
    Decoded,
)
from cdc_platform.verification.proof.decoding import JsonDecoder
from tests.verification.proof.memory import SHAPE, Record, event, key_json

TEXT_KEY = Shape(
    engine=Engine.POSTGRES,
    columns=(Column(name="name", type="text"), Column(name="n", type="int4")),
    key=("name",),
)


def wrapped(record: bytes | None) -> bytes | None:
    """As the converter writes it with schemas on."""
    schema = {"type": "struct", "fields": [{"field": "id"}], "op": "no", "payload": "no"}
    return None if record is None else json.dumps({"schema": schema, "payload": json.loads(record)}).encode()


def decode(records: list[Record], shape: Shape = SHAPE) -> Decoded:
    keys, values = [key for key, _ in records], [value for _, value in records]
    return JsonDecoder(shape).decode(0, Batch(keys, values, list(range(len(records)))))


RECORDS: list[Record] = [
    (key_json(1), event(1, "read", 0, op="r", snapshot="true")),
    (key_json(2), event(2, "read again", 0, op="r", snapshot="incremental")),
    (key_json(3), event(3, "new", 7, op="c")),
    (key_json(3), event(3, "changed", 8)),
    (key_json(3), event(3, None, 9, op="d")),
    (key_json(3), None),
]
KINDS = [SNAPSHOT, READ, STREAMED, STREAMED, DELETED, TOMBSTONE]


def assert_but_for_the_bytes_of_keys(found: Decoded, plain: Decoded) -> None:
    for name in (name for name in EVENT.names or () if name != "raw"):
        assert found.events[name].tolist() == plain.events[name].tolist(), name


def _compact(value: bytes) -> bytes:
    return json.dumps(json.loads(value), separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("keys", [False, True])
@pytest.mark.parametrize("values", [False, True])
def test_schemas_change_nothing_of_what_is_decoded(keys: bool, values: bool) -> None:
    plain = decode(RECORDS)
    made = [
        (wrapped(key) if keys else key, _compact(wrapped(value) or b"") if values and value else value)
        for key, value in RECORDS
    ]
    found = decode(made)
    assert not found.unreadable
    assert found.kinds.tolist() == plain.kinds.tolist() == KINDS
    assert_but_for_the_bytes_of_keys(found, plain)
    assert (found.events["raw"] == plain.events["raw"]).all() == (not keys)
    assert found.events["row"][4] == ABSENT


def test_a_topic_whose_converter_was_changed_in_between_is_read_record_by_record() -> None:
    mixed = [
        *RECORDS[:3],
        *((wrapped(key), _compact(wrapped(value) or b"") if value else None) for key, value in RECORDS[3:]),
    ]
    found = decode(mixed)
    assert not found.unreadable
    assert_but_for_the_bytes_of_keys(found, decode(RECORDS))


def test_a_batch_of_tombstones_with_schemas_is_read() -> None:
    found = decode([(wrapped(key_json(4)), None), (wrapped(key_json(5)), None)])
    assert not found.unreadable
    assert found.kinds.tolist() == [TOMBSTONE, TOMBSTONE]


@pytest.mark.parametrize(
    ("key", "value", "shard"),
    [
        (key_json(1), b'{"op":', "00000"),
        (key_json(1), b"\xff\xfe", "00000"),
        (key_json(1), b'{"op":"t","source":{}}', "00000"),
        (key_json(1), b'{"op":"u","source":{},"after":{"id":1,"title":"x"}}', "00000"),
        (key_json(1), b'{"id":1,"title":"x"}', "00000"),
        (b"\x00", b"\x00", NO_SHARD),
    ],
)
def test_a_record_that_cannot_be_read_is_a_trouble_and_the_others_are_events(
    key: bytes | None, value: bytes, shard: str | None
) -> None:
    found = decode([*RECORDS[:3], (key, value), *RECORDS[3:]])
    [trouble] = found.unreadable
    assert (trouble.partition, trouble.offset, trouble.shard) == (0, 3, shard)
    assert found.events["offset"].tolist() == list(range(7))
    # A record of its key, for readers by key, that says nothing.
    assert (found.events["row"][3], found.kinds[3]) == (UNKNOWN, READ)
    assert np.delete(found.events["row"], 3).tolist() == decode(RECORDS).events["row"].tolist()


@pytest.mark.parametrize("key", [b'{"id":1}', b"\x00", b'{"nr":1,"shard":"00000"}', b'{"id":"x","shard":"00000"}'])
def test_a_key_that_is_none_of_the_table_s_is_known_by_its_bytes(key: bytes) -> None:
    found = decode([*RECORDS[:3], (key, event(1, "x", 5)), (key, None), *RECORDS[3:]])
    assert not found.unreadable
    assert ((found.events["raw"] & OLD_KEY) != 0).tolist() == [False] * 3 + [True] * 2 + [False] * 3
    assert found.events["key"][3] == found.events["key"][4]
    assert np.delete(found.events["key"], [3, 4]).tolist() == decode(RECORDS).events["key"].tolist()


def test_a_record_without_a_key_cannot_be_read() -> None:
    [record] = decode([*RECORDS[:3], (None, event(1, "x", 5)), *RECORDS[3:]]).unreadable
    assert (record.offset, record.shard, record.keyless) == (3, NO_SHARD, True)


def test_text_keys_with_schemas_and_without_are_the_same_keys() -> None:
    source: dict[str, Any] = {"txId": 5, "lsn": 77}
    value = json.dumps({"op": "c", "source": source, "after": {"name": 'é"\\', "n": 1}}, ensure_ascii=False).encode()
    key = json.dumps({"name": 'é"\\', "shard": "s"}, ensure_ascii=False).encode()
    escaped = json.dumps({"name": 'é"\\', "shard": "s"}).encode()
    plain, other, third = (decode([(k, value)], TEXT_KEY).events for k in (key, escaped, wrapped(key)))
    assert plain["key"][0] == other["key"][0] == third["key"][0]
    assert (plain["stream"][0], plain["seq"][0]) == (5, 77)


def test_other_columns_than_the_tables_are_noticed() -> None:
    decoder = JsonDecoder(SHAPE)
    value = event(1, "x", 5).replace(b'"title"', b'"name"')
    decoder.decode(0, Batch([key_json(1)], [value], [0]))
    assert decoder.drifted

"""Reading a topic as a table, in memory: order, shards, changes, both forms of the wire, what cannot be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cdc_platform.errors import BadInput, KafkaUnavailable, SourceUnavailable
from cdc_platform.model.positions import MariaDbPosition
from cdc_platform.reading import topic_reader
from cdc_platform.reading.topic_reader import TopicReader
from tests.verification.proof.memory import MemoryWorld, event, key_json


@pytest.fixture
def world(tmp_path: Path) -> MemoryWorld:
    return MemoryWorld(tmp_path, shards=("00000", "00001"))


def reader(world: MemoryWorld, *shards: str) -> TopicReader:
    return TopicReader(world.outside(), world.topology, "d", "t", shards or None)


def rows(world: MemoryWorld, *shards: str) -> dict[tuple[str, int], str]:
    found = reader(world, *shards).state().read_all().to_pylist()
    assert len({(row["cdc_shard"], row["id"]) for row in found}) == len(found), "each row once"
    return {(row["cdc_shard"], row["id"]): row["title"] for row in found}


def source_rows(world: MemoryWorld) -> dict[tuple[str, int], str]:
    return {(shard, key): title for shard, table in world.tables.items() for key, title in table.rows.items()}


def worked(world: MemoryWorld) -> None:
    for table in world.tables.values():
        for key in range(300):
            table.put(key, f"{table.shard} first {key}")
        for key in range(0, 300, 3):
            table.put(key, f"{table.shard} changed {key}")
        for key in range(0, 300, 7):
            table.delete(key)


def test_reading_gives_the_rows_of_the_source_with_their_shards(world: MemoryWorld) -> None:
    worked(world)
    assert rows(world) == source_rows(world)


def test_reading_again_takes_in_only_what_is_new_and_gives_the_state_of_then(world: MemoryWorld) -> None:
    worked(world)
    rows(world)
    world.table.put(1, "later")
    world.table.delete(2)
    assert rows(world) == source_rows(world)


def test_reading_of_a_shard_gives_its_rows_alone(world: MemoryWorld) -> None:
    worked(world)
    assert rows(world, "00001") == {key: row for key, row in source_rows(world).items() if key[0] == "00001"}


def test_reading_goes_by_source_position_and_not_by_offset(world: MemoryWorld) -> None:
    world.topic.append(1, event(1, "new", 9))
    world.topic.append(1, event(1, "old, sent late by a zombie", 5))
    world.topic.append(2, event(2, "deleted later", 6))
    world.topic.append(2, event(2, None, 8, op="d"))
    world.topic.append(2, event(2, "sent again", 6))
    assert rows(world) == {("00000", 1): "new"}


def test_reading_in_small_slabs_and_batches_gives_the_same(world: MemoryWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    worked(world)
    world.policy["slab_rows"] = 50
    monkeypatch.setattr(topic_reader, "BATCH_ROWS", 37)
    batches = list(reader(world).state())
    assert max(len(batch) for batch in batches) == 37
    assert sum(map(len, batches)) == len(source_rows(world))
    assert rows(world) == source_rows(world)


def test_reading_changes_gives_each_changed_row_once_as_it_is_now(world: MemoryWorld) -> None:
    worked(world)
    since = {shard: table.position() for shard, table in world.tables.items()}
    assert reader(world).changes(since).read_all().num_rows == 0
    world.table.put(1, "one")
    world.table.put(1, "two")
    world.table.put(1000, "new")
    world.table.delete(4)
    found = {row["id"]: row for row in reader(world).changes(since).read_all().to_pylist()}
    assert {key: (row["cdc_operation"], row["title"]) for key, row in found.items()} == {
        1: ("upsert", "two"),
        1000: ("upsert", "new"),
        4: ("delete", None),
    }
    assert found[1000]["cdc_position"] == f"0-1-{world.table.seq - 1}"


def test_reading_changes_of_a_shard_without_a_position_begins_at_its_beginning(world: MemoryWorld) -> None:
    worked(world)
    since = {"00000": world.table.position()}
    found = reader(world).changes(since).read_all().to_pylist()
    assert {row["cdc_shard"] for row in found} == {"00001"}
    assert {row["id"] for row in found} == set(range(300))


def test_reading_changes_after_another_snapshot_takes_its_rows_for_changed(world: MemoryWorld) -> None:
    world.topic.append(1, event(1, "first snapshot", 0, op="r"))
    world.topic.append(4, event(4, "streamed", 7))
    since = {"00000": MariaDbPosition.parse("0-1-7")}
    assert reader(world, "00000").changes(since).read_all().num_rows == 0
    world.topic.append(1, event(1, "second snapshot", 0, op="r"))
    assert [row["id"] for row in reader(world, "00000").changes(since).read_all().to_pylist()] == [1]


def with_schema(world: MemoryWorld, *, keys: bool = True) -> None:
    """Every record below `payload`, with its schema beside it, as JsonConverter writes it."""
    fields = [{"type": "int64", "field": "id", "optional": False}, {"type": "string", "field": "title"}]
    key_schema = {"type": "struct", "fields": [fields[0], {"type": "string", "field": "shard"}]}
    schema = {"type": "struct", "fields": [{"type": "struct", "field": "after", "fields": fields}]}
    for number, part in enumerate(world.topic.partitions):
        for offset, (key, value) in part.items():
            assert key is not None
            wrapped = None if value is None else json.dumps({"schema": schema, "payload": json.loads(value)}).encode()
            new = json.dumps({"schema": key_schema, "payload": json.loads(key)}).encode() if keys else key
            world.topic.partitions[number][offset] = (new, wrapped)


@pytest.mark.parametrize("keys", [True, False], ids=["keys and values", "values alone"])
def test_reading_records_with_schemas(world: MemoryWorld, keys: bool) -> None:
    worked(world)
    with_schema(world, keys=keys)
    assert rows(world) == source_rows(world)


def no_source(*_: Any) -> Any:
    raise SourceUnavailable("nothing listens there")


def test_reading_while_no_source_answers_goes_by_the_schema_on_the_wire(world: MemoryWorld) -> None:
    worked(world)
    with_schema(world)
    away = replace(world.outside(), source=no_source)
    found = TopicReader(away, world.topology, "d", "t").state()
    assert found.schema.field("id").type == pa.int64()
    assert {(row["cdc_shard"], row["id"]): row["title"] for row in found.read_all().to_pylist()} == source_rows(world)


def test_reading_while_no_source_answers_and_without_schemas_is_refused_in_a_sentence(world: MemoryWorld) -> None:
    worked(world)
    away = replace(world.outside(), source=no_source)
    with pytest.raises(SourceUnavailable, match=r"what the columns of d.t are is not known.*Cure: Read again when"):
        TopicReader(away, world.topology, "d", "t").state()


def test_reading_leaves_out_a_row_whose_record_cannot_be_read_and_names_the_place(world: MemoryWorld) -> None:
    worked(world)
    before = rows(world)
    world.topic.send(key_json(6), b"no JSON", 0)
    said: list[str] = []
    found = replace(reader(world), warn=said.append).state().read_all().to_pylist()
    left = [row for row in found if (row["cdc_shard"], row["id"]) != ("00000", 6)]
    assert len(left) == len(found) == len(before) - 1
    (warning,) = said
    assert f"record {world.topic.end(0) - 1} of partition 0 of " in warning and "1 rows of shard 00000" in warning
    assert rows(world, "00001"), "a record of another shard is none of this one's business"


def test_reading_says_so_when_compaction_takes_a_record_meanwhile(world: MemoryWorld) -> None:
    worked(world)
    found = reader(world).state()
    part = world.topic.partitions[1]
    del part[max(offset for offset, (key, _) in part.items() if key == key_json(1, "00001"))]
    with pytest.raises(KafkaUnavailable, match=r"compaction took 1 records of partition 1.*Cure: Read again"):
        found.read_all()


def test_reading_refuses_a_table_with_a_column_of_a_name_of_its_own(world: MemoryWorld) -> None:
    column = replace(world.table.shape.columns[1], name="cdc_shard")
    world.table.shape = replace(world.table.shape, columns=(world.table.shape.columns[0], column))
    with pytest.raises(BadInput, match="a column cdc_shard"):
        reader(world).state()


def test_reading_closes_the_topic_at_its_end_and_when_it_is_given_up(
    world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked(world)
    closed: list[bool] = []
    monkeypatch.setattr(world.topic, "close", lambda: closed.append(True))
    reader(world).state().read_all()
    assert len(closed) == 1
    monkeypatch.setattr(topic_reader, "BATCH_ROWS", 10)
    batches: Iterator[pa.RecordBatch] = iter(reader(world).state())
    next(batches)
    del batches
    assert len(closed) == 2

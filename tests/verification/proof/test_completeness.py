"""The proof on the real stack: what is whole is proven under writes, what is not is found by key, and nothing else."""

from __future__ import annotations

import json
import random
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pymysql
import pytest

from cdc_platform.model.topology import Engine, Shard
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict
from tests.verification.proof.harness import Harness, MakeHarness

pytestmark = [pytest.mark.stack]


def quick_first(kinds: list[str]) -> list[Any]:
    """The first kind of key belongs to every run, the others to the slow ones: each takes most of a minute."""
    return [kinds[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in kinds[1:])]


ENGINES = list(Engine)

# Key columns, and how the key of row number `n` looks.
KEYS: dict[str, tuple[str, str, Callable[[int], tuple[Any, ...]]]] = {
    "integer": ("id BIGINT", "id", lambda n: (n - 300,)),
    "composite": ("a INT, b VARCHAR(40)", "a, b", lambda n: (n % 7, f"k{n // 7}\"'\\ é")),
    "text": ("name VARCHAR(60)", "name", lambda n: (f"Row {n} ß{'x' * (n % 9)}",)),
    "uuid": ("u CHAR(36)", "u", lambda n: (str(uuid.UUID(int=n * 7919)),)),
    "decimal": ("d DECIMAL(20,4)", "d", lambda n: (f"{n - 50}.{n % 10000:04d}",)),
    "moment": ("at DATE, n INT", "at, n", lambda n: (f"20{n % 30:02d}-0{1 + n % 9}-11", n)),
}


def _key(kind: str, engine: Engine) -> tuple[str, str, Callable[[int], tuple[Any, ...]]]:
    if kind == "binary":
        return (
            "raw VARBINARY(20)" if engine.reads_binlog else "raw BYTEA",
            "raw",
            lambda n: (n.to_bytes(4, "big") + b"\x00\xff",),
        )
    return KEYS[kind]


class Writer:
    """Rows of one shard, and random changes to them. Row numbers stand for keys."""

    def __init__(self, harness: Harness, shard: Shard, kind: str, seed: int, name: str = "") -> None:
        self.harness, self.rng = harness, random.Random(seed)
        _, self.names, self.key = _key(kind, harness.engine)
        self.connection = harness.connection(shard, name)
        self.where = " AND ".join(f"{part.strip()} = %s" for part in self.names.split(","))

    def run(self, statement: str, params: tuple[Any, ...]) -> None:
        self.connection.cursor().execute(statement, params)

    def insert(self, *numbers: int) -> None:
        marks = ",".join(["%s"] * (2 + self.names.count(",") + 1))
        self.connection.cursor().executemany(
            f"INSERT INTO t ({self.names}, title, price) VALUES ({marks})",
            [(*self.key(n), f"row {n} {self.rng.randbytes(20).hex()}", n) for n in numbers],
        )

    def update(self, number: int) -> None:
        self.run(f"UPDATE t SET title = %s WHERE {self.where}", (self.rng.randbytes(30).hex(), *self.key(number)))

    def delete(self, number: int) -> None:
        self.run(f"DELETE FROM t WHERE {self.where}", self.key(number))

    def shown(self, number: int) -> dict[str, str]:
        """The key as a verdict names it."""
        parts = [p.hex().upper() if isinstance(p, bytes) else str(p) for p in self.key(number)]
        if self.harness.engine is Engine.POSTGRES:
            parts = ["\\x" + p.hex() if isinstance(p, bytes) else str(p) for p in self.key(number)]
        return dict(zip((name.strip() for name in self.names.split(",")), parts, strict=True))


def _ground(make: MakeHarness, engine: Engine, kind: str = "integer", shards: int = 2, **more: Any) -> Harness:
    harness = make(engine, **more)
    columns, names, _ = _key(kind, engine)
    moment = "TIMESTAMP(6) NULL" if engine.reads_binlog else "TIMESTAMPTZ"
    for number in range(shards):
        shard = harness.add_shard(
            f"{number:05d}",
            f"CREATE TABLE t ({columns}, title TEXT, price DECIMAL(12,2), at2 {moment}, PRIMARY KEY ({names}))",
        )
        if engine is Engine.POSTGRES:
            harness.own(shard, "t")
    return harness


@contextmanager
def _writing(harness: Harness, shard: Shard, kind: str, rows: int, seed: int) -> Iterator[list[int]]:
    """Insert, update, delete and replace rows until the block ends; gives a list whose item counts statements."""
    writer = Writer(harness, shard, kind, seed, name=f"writer{seed}")
    stop, done, failed = threading.Event(), [0], list[Exception]()

    def work() -> None:
        rng, free = random.Random(seed), rows + 1_000 * seed
        try:
            while not stop.is_set():
                kind_of = rng.random()
                number = rng.randrange(rows)
                if kind_of < 0.6:
                    writer.update(number)
                elif kind_of < 0.75:
                    writer.insert(free)
                    free += 1
                elif kind_of < 0.9:
                    writer.delete(number)
                    writer.insert(number)
                else:
                    writer.delete(free - 1)
                done[0] += 1
        except (pymysql.Error, psycopg.Error) as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()
    assert not failed


def _proven(verdicts: dict[str, ShardVerdict], harness: Harness) -> None:
    for verdict in verdicts.values():
        assert verdict.verdict is Verdict.PROVEN, "\n".join(harness.explain(verdict))


def _found(verdict: ShardVerdict) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for sample in verdict.samples:
        found.setdefault(sample.kind, []).append(json.loads(sample.key))
    return found


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", quick_first([*KEYS, "binary"]))
def test_completeness_is_proven_under_writes(make_harness: MakeHarness, engine: Engine, kind: str) -> None:
    # Chunks so small that several connections read each shard.
    harness = _ground(make_harness, engine, kind, verification={"chunk_rows": 20})
    for shard in harness.shards:
        Writer(harness, shard, kind, 1).insert(*range(1000))
    harness.deploy()
    first, second = harness.shards
    with _writing(harness, first, kind, 1000, 2) as one, _writing(harness, second, kind, 1000, 3) as two:
        verdicts = harness.verify()
        _proven(verdicts, harness)
        again = harness.verify()
        _proven(again, harness)
    assert one[0] > 50 and two[0] > 50
    assert all(verdict.proven_from and verdict.proven_to and verdict.committed for verdict in verdicts.values())
    last = harness.verify()
    _proven(last, harness)
    for shard in harness.shards:
        [(rows,)] = [tuple(row) for row in harness.execute(shard, "SELECT count(*) FROM t")]
        assert last[shard.id].source_rows == last[shard.id].topic_rows == rows


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", quick_first(["integer", "composite", "binary"]))
def test_completeness_names_what_was_changed_in_the_topic(make_harness: MakeHarness, engine: Engine, kind: str) -> None:
    harness = _ground(make_harness, engine, kind)
    writers = [Writer(harness, shard, kind, 1) for shard in harness.shards]
    for writer in writers:
        writer.insert(*range(400))
    harness.deploy()
    for shard in harness.shards:
        harness.settle(shard)  # a task that runs may still read its snapshot, with what is updated meanwhile
    for writer in writers:
        for number in range(0, 400, 5):
            writer.update(number)
        writer.update(60)
        writer.delete(399)
    for shard in harness.shards:
        harness.settle(shard)
        harness.stop(shard)
    records = harness.records()
    sabotage = _Sabotage(records, harness.shards[0].id, writers[0])
    sabotage.drop_all(17)  # inserted and gone: missing
    sabotage.drop_last(20)  # the update is gone: the old row stands
    sabotage.change_byte(33)
    sabotage.swap(41, 42)
    sabotage.add(5000, like=50)
    sabotage.drop_last(399)  # tombstone
    sabotage.drop_last(399)  # delete: an extra row
    sabotage.turn(60)  # nothing is lost, but who goes by offset has the old row
    harness.rewrite(records)
    for shard in harness.shards:
        harness.resume(shard)
    verdicts = harness.verify()
    found = _found(verdicts[harness.shards[0].id])
    shown = writers[0].shown
    assert found["missing"] == [shown(17)]
    assert _sorted(found["extra"]) == _sorted([shown(5000), shown(399)])
    assert _sorted(found["mismatched"]) == _sorted([shown(20), shown(33), shown(41), shown(42)])
    columns = {json.dumps(json.loads(s.key)): s.columns for s in verdicts[harness.shards[0].id].samples}
    assert columns[json.dumps(shown(33))] == ("title",)
    [late] = re.findall(r"older row of (.*) stands", " ".join(verdicts[harness.shards[0].id].warnings))
    assert json.loads(late) == shown(60)
    assert "older row" not in " ".join(verdicts[harness.shards[1].id].warnings)
    _proven({"other": verdicts[harness.shards[1].id]}, harness)


def _sorted(keys: list[dict[str, str]]) -> list[dict[str, str]]:
    return sorted(keys, key=json.dumps)


class _Sabotage:
    """Changes to the records of one shard, row by row."""

    def __init__(self, records: list[list[tuple[bytes | None, bytes | None]]], shard: str, writer: Writer) -> None:
        self.records, self.shard, self.writer = records, shard, writer

    def _is(self, key: bytes | None, number: int) -> bool:
        if key is None:
            return False
        fields = json.loads(key)
        parts = [p.hex() if isinstance(p, bytes) else p for p in self.writer.key(number)]
        names = [name.strip() for name in self.writer.names.split(",")]
        return fields["shard"] == self.shard and [fields[name] for name in names] == parts

    def _places(self, number: int) -> list[tuple[int, int]]:
        found = [
            (p, at) for p, part in enumerate(self.records) for at, (key, _) in enumerate(part) if self._is(key, number)
        ]
        assert found
        return found

    def drop_all(self, number: int) -> None:
        for p, at in reversed(self._places(number)):
            del self.records[p][at]

    def drop_last(self, number: int) -> None:
        p, at = self._places(number)[-1]
        del self.records[p][at]

    def turn(self, number: int) -> None:
        (p, a), (q, b) = self._places(number)[-2:]
        self.records[p][a], self.records[q][b] = self.records[q][b], self.records[p][a]

    def change_byte(self, number: int) -> None:
        p, at = self._places(number)[-1]
        key, value = self.records[p][at]
        assert value is not None
        event = json.loads(value)
        title = event["after"]["title"]
        event["after"]["title"] = ("X" if title[0] != "X" else "Y") + title[1:]
        self.records[p][at] = (key, json.dumps(event, separators=(",", ":")).encode())

    def swap(self, one: int, other: int) -> None:
        (p, a), (q, b) = self._places(one)[-1], self._places(other)[-1]
        values = [json.loads(self.records[p][a][1] or b""), json.loads(self.records[q][b][1] or b"")]
        titles = [value["after"]["title"] for value in values]
        for value, title in zip(values, reversed(titles), strict=True):
            value["after"]["title"] = title
        self.records[p][a] = (self.records[p][a][0], json.dumps(values[0], separators=(",", ":")).encode())
        self.records[q][b] = (self.records[q][b][0], json.dumps(values[1], separators=(",", ":")).encode())

    def add(self, number: int, *, like: int) -> None:
        p, at = self._places(like)[-1]
        key, value = self.records[p][at]
        names = [name.strip() for name in self.writer.names.split(",")]
        parts = [x.hex() if isinstance(x, bytes) else x for x in self.writer.key(number)]
        made = json.loads(key or b"") | dict(zip(names, parts, strict=True))
        event = json.loads(value or b"")
        event["after"] |= dict(zip(names, parts, strict=True))
        self.records[p].append(
            (
                json.dumps(made, separators=(",", ":"), ensure_ascii=False).encode(),
                json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode(),
            )
        )

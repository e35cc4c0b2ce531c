"""A table, its topic and its connector in memory: a MariaDB of one shard whose history the test writes."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from cdc_platform.canonical.columns import Column, Shape
from cdc_platform.clients.kafka.murmur2 import partition_of
from cdc_platform.clients.kafka.topic_records import Batch, TopicBounds
from cdc_platform.clients.platform import Platform
from cdc_platform.clients.sources.source import Inspection, Key, Slice, Words
from cdc_platform.errors import NotFound
from cdc_platform.model.positions import Committed, MariaDbPosition
from cdc_platform.model.topology import Address, Cluster, Credentials, Dataset, Engine, Shard, Table, Topology
from cdc_platform.settings import Settings
from cdc_platform.testing.state_topic import FakeStateStore
from cdc_platform.verification.ports import Progress, VerificationPorts
from cdc_platform.verification.proof.completeness import ShardRange, verify_shards
from cdc_platform.verification.proof.verdicts import ShardVerdict

SHAPE = Shape(
    engine=Engine.MARIADB,
    columns=(
        Column(name="id", type="bigint", nullable=False),
        Column(name="title", type="text", charset="utf8mb4"),
    ),
    key=("id",),
)

Record = tuple[bytes | None, bytes | None]


def row_json(key: int, title: str) -> str:
    return json.dumps({"id": key, "title": title}, separators=(",", ":"), ensure_ascii=False)


def word(text: str) -> int:
    return int.from_bytes(hashlib.sha1(text.encode()).digest()[:8], "big")


def key_json(key: int, shard: str = "00000") -> bytes:
    return json.dumps({"id": key, "shard": shard}).encode()


def event(key: int, title: str | None, seq: int, *, op: str = "u", snapshot: str | None = None, row: int = 0) -> bytes:
    after = "null" if title is None else row_json(key, title)
    source = {"gtid": None if op == "r" else f"0-1-{seq}", "file": "b.1", "pos": seq * 100, "row": row}
    if snapshot:
        source["snapshot"] = snapshot
    return f'{{"before":null,"after":{after},"source":{json.dumps(source)},"op":"{op}"}}'.encode()


@dataclass
class MemoryTopic:
    """Partitions as offset to record, in order: offsets may be missing, as after compaction.

    `taken` counts the records that were read.
    """

    partitions: list[dict[int, Record]] = field(default_factory=lambda: [{} for _ in range(3)])
    begins: dict[int, int] = field(default_factory=dict)
    topic_id: str = "id"
    batch: int = 100
    taken: int = 0
    on_batch: Callable[[int], None] = lambda taken: None
    gone: bool = False
    # True: as producers place keys, by their hash. False: by their number, so that tests read easily.
    by_hash: bool = False

    def append(self, key: int, value: bytes | None, shard: str = "00000") -> None:
        self.send(key_json(key, shard), value, None if self.by_hash else key % len(self.partitions))

    def send(self, key: bytes, value: bytes | None, partition: int | None = None) -> None:
        """Append a record to a partition; to the one that its key's hash gives when none is named."""
        number = partition_of(key, len(self.partitions)) if partition is None else partition
        self.partitions[number][self.end(number)] = (key, value)

    def end(self, partition: int) -> int:
        return next(reversed(self.partitions[partition]), self.begins.get(partition, 0) - 1) + 1

    def bounds(self) -> TopicBounds:
        if self.gone:
            raise NotFound("there is no such topic")
        return TopicBounds(
            topic_id=self.topic_id,
            partitions={
                number: (self.begins.get(number, 0), self.end(number)) for number in range(len(self.partitions))
            },
        )

    def read(self, partition: int, begin: int, end: int) -> Iterator[Batch]:
        part = self.partitions[partition]
        offsets = (offset for offset in tuple(part) if begin <= offset < end and offset in part)
        while chosen := list(itertools.islice(offsets, self.batch)):
            yield Batch([part[o][0] for o in chosen], [part[o][1] for o in chosen], chosen)
            self.taken += len(chosen)
            self.on_batch(self.taken)

    def fetch(self, partition: int, offsets: Sequence[int]) -> Mapping[int, Record]:
        part = self.partitions[partition]
        return {offset: part[offset] for offset in offsets if offset in part}

    def close(self) -> None:
        """Nothing to close."""


@dataclass
class MemoryTable:
    """The source: rows, and the sequence number of its last transaction. Each change is one transaction.

    What changes is at once in the topic, unless `lost` says otherwise.
    """

    topic: MemoryTopic
    shard: str = "00000"
    rows: dict[int, str] = field(default_factory=dict)
    seq: int = 0
    committed: int | None = None
    lose: bool = False
    during_read: Callable[[], None] = lambda: None
    chunks_read: list[Key | None] = field(default_factory=list)
    shape: Shape = SHAPE
    xa: tuple[str, ...] = ()
    alone: Any = field(default_factory=threading.RLock)

    def put(self, key: int, title: str) -> None:
        op = "u" if key in self.rows else "c"
        self.rows[key] = title
        self.seq += 1
        if not self.lose:
            self.topic.append(key, event(key, title, self.seq, op=op), self.shard)

    def delete(self, key: int) -> None:
        if self.rows.pop(key, None) is None:
            return
        self.seq += 1
        if not self.lose:
            self.topic.append(key, event(key, None, self.seq, op="d"), self.shard)
            self.topic.append(key, None, self.shard)

    # Source

    def another(self) -> MemoryTable:
        return self

    def inspect(self) -> Inspection:
        return Inspection(shape=self.shape, rows=len(self.rows))

    def prepared(self) -> tuple[str, ...]:
        return self.xa

    def position(self) -> MariaDbPosition:
        return MariaDbPosition.parse(f"0-1-{self.seq}" if self.seq else "")

    def beyond(self, committed: Committed) -> Committed:
        return committed

    def chunk_end(self, after: Key | None, rows: int) -> Key | None:
        with self.alone:
            keys = sorted(key for key in self.rows if after is None or key > int(after[0]))
        return (str(keys[rows - 1]),) if len(keys) >= rows else None

    def read_chunk(self, after: Key | None, until: Key | None) -> Slice:
        self.chunks_read.append(after)
        return self._slice(
            lambda key: (after is None or key > int(after[0])) and (until is None or key <= int(until[0]))
        )

    def read_keys(self, keys: Sequence[Key]) -> Slice:
        wanted = {int(key[0]) for key in keys}
        return self._slice(lambda key: key in wanted)

    def find(self, after: Key | None, until: Key | None, keys: Sequence[int]) -> Mapping[int, Key]:
        return {key: (str(key),) for key in keys if key in self.rows}

    def tokens(self, keys: Sequence[Key]) -> Mapping[Key, Mapping[str, bytes]]:
        return {
            key: {"id": key[0].encode(), "title": json.dumps(self.rows[int(key[0])], ensure_ascii=False).encode()}
            for key in keys
            if int(key[0]) in self.rows
        }

    def close(self) -> None:
        """Nothing to close."""

    def _slice(self, chosen: Callable[[int], bool]) -> Slice:
        with self.alone:
            return self._slice_now(chosen)

    def _slice_now(self, chosen: Callable[[int], bool]) -> Slice:
        low = self.position()
        self.during_read()
        keys = [key for key in self.rows if chosen(key)]
        rows = [word(row_json(key, self.rows[key])) for key in keys]
        self.during_read()

        def words(values: list[int]) -> Words:
            return np.array([value & 0xFFFFFFFFFFFFFFFF for value in values], dtype=np.uint64)

        return Slice(keys=words(keys), rows=words(rows), low=low, high=self.position())


@dataclass
class MemoryWorld:
    """One dataset of several shards, all in memory; `verify` is the real one."""

    cache: Path
    topic: MemoryTopic = field(default_factory=MemoryTopic)
    shards: tuple[str, ...] = ("00000",)
    policy: dict[str, Any] = field(default_factory=lambda: {"chunk_rows": 50, "reach_seconds": 0.2})
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tables = {shard: MemoryTable(self.topic, shard) for shard in self.shards}
        self.state = FakeStateStore()

    @property
    def table(self) -> MemoryTable:
        return self.tables[self.shards[0]]

    @property
    def topology(self) -> Topology:
        dataset = Dataset(
            name="d",
            engine=Engine.MARIADB,
            tables=(Table(name="t"),),
            clusters=("local",),
            credentials=Credentials(user="${env:U}", password="${env:P}"),
            verification=self.policy,
            **self.more,
        )
        shards = tuple(
            Shard(dataset="d", id=shard, leader=Address("127.0.0.1", 3306), database="d") for shard in self.shards
        )
        return Topology(
            datasets={"d": dataset},
            shards={"d": shards},
            clusters={"local": Cluster(name="local", urls=("http://127.0.0.1:1",))},
        )

    def offsets(self, name: str) -> list[dict[str, Any]]:
        """What the connector has committed: everything, unless the table says less."""
        table = self.tables[name.split(".")[1]]
        seq = table.seq if table.committed is None else table.committed
        return [{"partition": {}, "offset": {"gtids": f"0-1-{seq}"}}] if seq else []

    def outside(self) -> VerificationPorts:
        platform = Platform(
            settings=replace(
                Settings(),
                cache_dir=str(self.cache),
                audit_dir=str(self.cache / "audit"),
                permitted_lakes=own_lakes(self.cache.parent),
            ),
            topology=SimpleNamespace(load=lambda: self.topology),
            kafka=None,  # type: ignore[arg-type]
            state=self.state,
            connect=lambda cluster: SimpleNamespace(offsets=self.offsets),
        )
        return VerificationPorts(
            platform=platform,
            records=lambda topic: self.topic,
            source=lambda dataset, shard, table: self.tables[shard.id],
        )

    def verify(self, run: str = "run", report: Callable[[Progress], None] | None = None) -> ShardVerdict:
        """The first shard's verdict."""
        return self.verify_all(run, report)[0]

    def verify_all(
        self, run: str = "run", report: Callable[[Progress], None] | None = None
    ) -> tuple[ShardVerdict, ...]:
        part = ShardRange(dataset="d", table="t", shards=self.shards)
        return verify_shards(self.outside(), self.topology, part, run_id=run, report=report)


def own_lakes(directory: Path) -> tuple[str, ...]:
    """What an operator permits whose lakes lie below the directory."""
    return (f"sqlite:///{directory}/*", f"file://{directory}/*")

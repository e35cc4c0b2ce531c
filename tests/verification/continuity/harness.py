"""The ledger over topics and offsets in memory: one MariaDB shard, its transactions, what is lost of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cdc_platform.clients.kafka.offset_history import WrittenOffset
from cdc_platform.clients.kafka.topic_records import Batch, Records, TopicBounds
from cdc_platform.clients.platform import Platform
from cdc_platform.model.topology import Address, Cluster, Credentials, Dataset, Engine, Shard, Table, Topology
from cdc_platform.settings import Settings
from cdc_platform.testing import FakeKafka, FakeStateStore, InMemoryTopologyStore
from cdc_platform.verification.continuity.ledger import LedgerPorts, TableContinuity, count_and_keep
from tests.verification.duplicates.topics import Topic


@dataclass
class Transactions:
    """The transactions' topic in memory, one partition."""

    records: list[tuple[str, str, bytes, int]] = field(default_factory=list)

    def bounds(self) -> TopicBounds:
        return TopicBounds(topic_id="tx", partitions={0: (0, len(self.records))})

    def read(self, partition: int, begin: int, end: int) -> Iterator[Batch]:
        part = self.records[begin:end]
        if part:
            yield Batch(
                [key.encode() for _, key, _, _ in part],
                [value for _, _, value, _ in part],
                list(range(begin, end)),
                [[("cdc.shard", shard.encode())] for shard, _, _, _ in part],
                [time for _, _, _, time in part],
            )

    def fetch(self, partition: int, offsets: Sequence[int]) -> Mapping[int, tuple[bytes | None, bytes | None]]:
        return {at: (self.records[at][1].encode(), self.records[at][2]) for at in offsets}

    def close(self) -> None:
        """Nothing to close."""


class Offsets:
    """Connect's offsets, now and once."""

    def __init__(self) -> None:
        self.now: dict[str, Any] | None = None
        self.once: list[WrittenOffset] = []
        self.asked: list[Mapping[str, tuple[int, int]]] = []
        self.calls = 0

    def offsets(self, name: str) -> list[Any]:
        self.calls += 1
        return [{"partition": {"server": name}, "offset": self.now}] if self.now else []

    def read(self, cluster: Cluster, windows: Mapping[str, tuple[int, int]]) -> Mapping[str, Sequence[WrittenOffset]]:
        self.asked.append(windows)
        return {name: [one for one in self.once if begin <= one.at <= end] for name, (begin, end) in windows.items()}


class Harness:
    """One MariaDB shard in memory."""

    def __init__(self, root: Path, **dataset: Any) -> None:
        self.events = Topic(at=MS - 600_000)
        self.transactions = Transactions()
        self.connect = Offsets()
        self.store = FakeStateStore()
        shard = Shard(dataset="pins", id="00000", leader=Address("db", 3306), database="pins_0")
        made = Dataset(
            name="pins", engine=Engine.MARIADB, tables=(Table(name="pins"),), clusters=("main",),
            credentials=Credentials(user="${env:U}", password="${env:P}"), **dataset,
        )  # fmt: skip
        self.topology = Topology(
            datasets={"pins": made}, shards={"pins": (shard,)},
            clusters={"main": Cluster(name="main", urls=("http://connect:8083",))},
        )  # fmt: skip
        platform = Platform(
            settings=Settings(cache_dir=str(root)), topology=InMemoryTopologyStore(), kafka=FakeKafka(),
            state=self.store, connect=lambda cluster: self.connect,  # type: ignore[arg-type,return-value]
        )  # fmt: skip
        self.outside = LedgerPorts(
            platform=platform, records=self.records, offsets=self.connect, store=lambda name: self.store
        )
        self.number = 0

    def records(self, topic: str) -> Records:
        found: Records = self.events if topic == "cdc.pins.pins" else self.transactions
        return found

    def transaction(
        self, run: str, events: int, *, number: int | None = None, lost: int = 0, first: int = 0, release: str = ""
    ) -> int:
        """One transaction: its events from `first` on, then its END."""
        self.number += 1
        number = self.number if number is None else number
        self.send(run, range(first, events - lost), number, release)
        self.end(number, events)
        return number

    def send(self, run: str, rows: range, number: int, release: str = "") -> None:
        """Events of a transaction, without its END."""
        for row in rows:
            self.events.send(run, row, number, place=number * 100 + row, order=row + 1, release=release)

    def end(self, number: int, events: int) -> None:
        self.events.at += 1
        value = {
            "status": "END", "id": f"0-1-{number}", "event_count": events,
            "data_collections": [{"data_collection": "pins_0.pins", "event_count": events}] if events else [],
        }  # fmt: skip
        self.transactions.records.append(("pins.00000", f"0-1-{number}", json.dumps(value).encode(), self.events.at))

    def rest(self, ms: int) -> int:
        """Nothing happens for so long; the time then."""
        self.events.at += ms
        return self.events.at

    def commit(self, number: int) -> None:
        self.connect.now = {"gtids": f"0-1-{number}", "file": "b", "pos": 1}
        self.connect.once.append(WrittenOffset(self.events.at, self.connect.now))

    def keep(self) -> TableContinuity:
        return count_and_keep(self.outside, self.topology, "pins", "pins", run_id="r")[1]

    def only(self) -> Any:
        (shard,) = self.keep().shards
        return shard


NOW = datetime.now(UTC)


MS = int(NOW.timestamp() * 1000)

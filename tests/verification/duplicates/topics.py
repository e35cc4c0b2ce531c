"""Topics in memory: change events as Debezium sends them, by runs of tasks that the test names."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cdc_platform.clients.kafka.topic_records import Batch, TopicBounds
from cdc_platform.model.topology import Engine
from cdc_platform.verification.duplicates.copies import PartitionCounts
from cdc_platform.verification.duplicates.deliveries import DeliveryReader
from cdc_platform.verification.duplicates.delivery_store import PartitionDeliveries
from cdc_platform.verification.duplicates.transaction_takeovers import Takeovers


def run_id(born_ms: int, number: int = 0) -> str:
    """A UUIDv7 of that time."""
    return str(uuid.UUID(int=(born_ms << 80) | (7 << 76) | (2 << 62) | number))


@dataclass(kw_only=True)
class Topic:
    """One partition. `at` (ms) moves on by one with each record."""

    engine: Engine = Engine.MARIADB
    records: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]], int]] = field(default_factory=list)
    at: int = 1_700_000_000_000

    def send(
        self,
        run: str,
        key: int,
        seq: int,
        *,
        op: str = "u",
        shard: str = "00000",
        worker: str = "w0",
        place: int = 0,
        time: int | None = None,
        snapshot: str | None = None,
        order: int = 0,
        release: str = "",
    ) -> None:
        """Append one event. `seq` is the GTID's number, or the LSN."""
        if self.engine is Engine.POSTGRES:
            source: dict[str, object] = {"txId": seq % 1000, "lsn": seq, "snapshot": snapshot}
        else:
            gtid = None if op == "r" else f"0-1-{seq}"
            source = {"gtid": gtid, "pos": place or seq * 100, "row": 0, "snapshot": snapshot}
        if release:
            source["version"] = release
        self.at += 1
        headers = [("cdc.shard", f"pins.{shard}".encode()), ("cdc.worker", worker.encode())]
        if run:
            headers.append(("__debezium.context.runId", run.encode()))
        value: dict[str, object] = {"before": None, "after": {"id": key}, "source": source, "op": op}
        if order:
            value["transaction"] = {"id": f"0-1-{seq}", "total_order": order, "data_collection_order": order}
        self.records.append(
            (
                json.dumps({"id": key, "shard": shard}).encode(),
                json.dumps(value).encode(),
                headers,
                self.at if time is None else time,
            )
        )

    # Records

    def bounds(self) -> TopicBounds:
        return TopicBounds(topic_id="id", partitions={0: (0, len(self.records))})

    def read(self, partition: int, begin: int, end: int, *, size: int = 7) -> Iterator[Batch]:
        for at in range(begin, end, size):
            part = self.records[at : min(end, at + size)]
            keys, values, headers, times = ([row[n] for row in part] for n in range(4))
            yield Batch(keys, values, list(range(at, at + len(part))), headers, times)  # type: ignore[arg-type]

    def fetch(self, partition: int, offsets: Sequence[int]) -> Mapping[int, tuple[bytes | None, bytes | None]]:
        return {offset: self.records[offset][:2] for offset in offsets}

    def close(self) -> None:
        """Nothing to close."""

    def counts(
        self, root: Path, *, end: int | None = None, batch: int = 1_000, takeovers: Takeovers | None = None
    ) -> PartitionCounts:
        """Read what is new, up to `end`."""
        part = PartitionDeliveries(root, 0)
        bounds = (0, len(self.records) if end is None else end)
        reader = DeliveryReader(self.engine)
        part.extend(self, reader, bounds, lambda count: None, batch_events=batch, takeovers=takeovers)
        return part.counts()

"""Counting duplicates: this engine against a Python dict and DuckDB, on the same events, in the same run.

    python -m benchmarks duplicates [--events 1000000] [--copies 0.02] [--json]

Events are made in memory as Kafka gives them (JSON and headers, some 600 bytes). All three
count copies of (shard, key, GTID, operation); the answers must be equal. Figures are of one
core: events a second from bytes to answer, and bytes held for each event. The dict and DuckDB
only count; this engine also reads headers, keeps what it has seen on disk for the next check,
and knows for each copy which task runs sent it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cdc_platform.clients.kafka.topic_records import Batch
from cdc_platform.errors import require_extra
from cdc_platform.model.topology import Engine
from cdc_platform.verification.duplicates.deliveries import DeliveryReader
from cdc_platform.verification.duplicates.delivery_store import PartitionDeliveries

BATCH = 5_000
SHARDS = 100
RUNS = ("019a0000-0000-7000-8000-000000000001", "019a0001-0000-7000-8000-000000000002")
START_MS = 1_700_000_000_000


class Events:
    """A partition in memory: `count` events, of which the last `copies` of each shard come once more."""

    def __init__(self, count: int, copies: float) -> None:
        again = int(count * copies)
        order = [*range(count - again), *range(count - 2 * again, count - again)]
        self.expected = again
        self.batches = [self._batch(order, at, count - again) for at in range(0, len(order), BATCH)]
        self.count = len(order)
        self.bytes = sum(len(value or b"") for batch in self.batches for value in batch.values)

    def _batch(self, order: list[int], at: int, first: int) -> Batch:
        part = order[at : at + BATCH]
        keys, values, headers, times = [], [], [], []
        for place, number in enumerate(part, start=at):
            shard, seq = number % SHARDS, number // SHARDS + 1
            run = RUNS[place >= first]
            keys.append(b'{"id":%d,"shard":"%05d"}' % (number * 7919 % 10_000_019, shard))
            row = b'{"id":%d,"name":"%s","price":"12.50","at":1577934245123456}' % (number, b"x" * 120)
            values.append(
                b'{"before":%s,"after":%s,"source":{"version":"3.5.0.Final","connector":"mariadb","name":"pins.%05d",'
                b'"ts_ms":1700000000000,"snapshot":null,"db":"pins_%05d","table":"pins","server_id":1,'
                b'"gtid":"0-1-%d","file":"binlog.000001","pos":%d,"row":0},"op":"u","ts_ms":1700000000001}'
                % (row, row, shard, shard, seq, seq * 400)
            )
            headers.append(
                [
                    ("cdc.shard", b"pins.%05d" % shard),
                    ("cdc.worker", b"w%d" % (place >= first)),
                    *(
                        (f"__debezium.context.{n}", b"pins")
                        for n in ("connectorLogicalName", "taskId", "connectorName")
                    ),
                    ("__debezium.context.runId", run.encode()),
                ]
            )
            times.append(START_MS + place)
        return Batch(keys, values, list(range(at, at + len(part))), headers, times)

    def read(self, partition: int, begin: int, end: int) -> Iterator[Batch]:
        """As `Records.read`."""
        for batch in self.batches:
            if begin <= batch.offsets[0] < end:
                yield batch


def engine(events: Events, root: Path) -> tuple[int, float]:
    """Copies, and bytes on disk an event."""
    part = PartitionDeliveries(root, 0)
    part.extend(events, DeliveryReader(Engine.MARIADB), (0, events.count), lambda count: None)  # type: ignore[arg-type]
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    return sum(pair.count for pair in part.counts().pairs), size / events.count


def again(events: Events, root: Path) -> float:
    """Seconds of a check that finds nothing new."""
    begun = time.perf_counter()
    part = PartitionDeliveries(root, 0)
    part.extend(events, DeliveryReader(Engine.MARIADB), (0, events.count), lambda count: None)  # type: ignore[arg-type]
    part.counts()
    return time.perf_counter() - begun


def plain(events: Events, root: Path) -> tuple[int, float]:
    """The plain way: json and a dict."""
    seen: dict[tuple[str, int, str, str], int] = {}
    for batch in events.batches:
        for key, value in zip(batch.keys, batch.values, strict=True):
            place, event = json.loads(key or b""), json.loads(value or b"")
            identity = (place["shard"], place["id"], event["source"]["gtid"], event["op"])
            seen[identity] = seen.get(identity, 0) + 1
    return sum(times - 1 for times in seen.values()), 0.0


def duckdb_way(events: Events, root: Path) -> tuple[int, float]:
    """DuckDB: read_json from a file (written before the clock starts), GROUP BY, HAVING."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        found = connection.execute(
            "SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM read_json(?, format='newline_delimited', "
            "columns={key: 'STRUCT(id BIGINT, shard VARCHAR)', source: 'STRUCT(gtid VARCHAR)', op: 'VARCHAR'}) "
            "GROUP BY key.shard, key.id, source.gtid, op HAVING n > 1)",
            [str(root / "events.json")],
        ).fetchone()
    return int(found[0]) if found else 0, 0.0


def write_json(events: Events, root: Path) -> None:
    """The events as lines, for DuckDB."""
    with (root / "events.json").open("wb") as stream:
        for batch in events.batches:
            for key, value in zip(batch.keys, batch.values, strict=True):
                stream.write(b'{"key":' + (key or b"{}") + b"," + (value or b"{}")[1:] + b"\n")


class Peak:
    """The most resident memory while it runs, in bytes above the start (Linux)."""

    def __enter__(self) -> Peak:
        self._base, self.bytes, self._stop = resident(), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.bytes = max(self.bytes, resident() - self._base)

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()


def resident() -> int:
    """Bytes resident now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measured(
    name: str, call: Callable[[Events, Path], tuple[int, float]], events: Events, root: Path
) -> dict[str, Any]:
    """One contender. Rates are by CPU seconds of this process: other load does not count."""
    with Peak() as peak:
        begun, cpu = time.perf_counter(), time.process_time()
        found, disk = call(events, root)
        seconds, spent = time.perf_counter() - begun, time.process_time() - cpu
    if found != events.expected:
        raise SystemExit(f"{name}: {found} copies, {events.expected} expected")
    return {
        "name": name,
        "copies": found,
        "seconds": round(seconds, 2),
        "events_per_cpu_second": round(events.count / spent),
        "peak_bytes_per_event": round(peak.bytes / events.count, 1),
        "disk_bytes_per_event": round(disk, 1),
    }


def main(argv: list[str] | None = None) -> int:
    """Run and print. Ends with an error when the contenders do not count the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--copies", type=float, default=0.02)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(argv)
    require_extra("bench")
    events = Events(asked.events, asked.copies)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "store").mkdir()
        rows = [measured("this engine", engine, events, root / "store")]
        unchanged = again(events, root / "store")
        rows.append(measured("python dict", plain, events, root))
        write_json(events, root)
        rows.append(measured("duckdb GROUP BY HAVING", duckdb_way, events, root))
    result = {
        "events": events.count,
        "bytes_an_event": round(events.bytes / events.count),
        "nothing_new_seconds": round(unchanged, 3),
        "contenders": rows,
    }
    if asked.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"{events.count:,} events of {result['bytes_an_event']} bytes; {events.expected:,} copies")
        for row in rows:
            print(
                f"{row['name']:24} {row['seconds']:7.2f} s  {row['events_per_cpu_second']:>9,} events a CPU second  "
                f"{row['peak_bytes_per_event']:>7} B an event at the peak  {row['disk_bytes_per_event']} B kept"
            )
        print(f"nothing new: {unchanged:.3f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Counting duplicates: this engine, the plain way in Python, and DuckDB, on the same events.

Events are made in memory as Kafka gives them (JSON and headers, some 600 bytes). All three
count copies of (shard, key, GTID, operation); the answers must be equal. Figures are of one
core: events a CPU second from bytes to answer, and bytes held for each event. The dict and DuckDB
only count; this engine also reads headers, keeps what it has seen on disk for the next check,
and knows for each copy which task runs sent it.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.form import Form, Goal
from benchmarks.measuring import Cost, measured
from cdc_platform.clients.kafka.topic_records import Batch
from cdc_platform.model.topology import Engine
from cdc_platform.verification.duplicates.deliveries import DeliveryReader
from cdc_platform.verification.duplicates.delivery_store import PartitionDeliveries

SIZES = {"events": (1_000_000, 300_000), "copies": (0.02, 0.02), "rounds": (3, 2)}

SLOWER_THAN_DUCKDB = (
    "DuckDB decodes and counts in C++, reads no headers and keeps nothing. To decode the events one by one in Python, "
    "with nothing done with them, takes the share of its time that *decoding alone* shows; headers, positions, sorting "
    "and what is kept on disk for the next check come on top. That next check reads only what is new."
)

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


def engine(root: str, count: int, copies: float) -> Callable[[], tuple[int, float, float]]:
    """This engine; copies, bytes kept on disk, CPU seconds of another check that finds nothing new."""
    events, store = Events(count, copies), Path(tempfile.mkdtemp(dir=root))

    def check() -> int:
        part = PartitionDeliveries(store, 0)
        reader = DeliveryReader(Engine.MARIADB)
        part.extend(events, reader, (0, events.count), lambda count: None)  # type: ignore[arg-type]
        return sum(pair.count for pair in part.counts().pairs)

    def call() -> tuple[int, float, float]:
        found, begun = check(), time.process_time()
        check()
        again = time.process_time() - begun
        return found, sum(path.stat().st_size for path in store.rglob("*") if path.is_file()), again

    return call


def plain(root: str, count: int, copies: float) -> Callable[[], int]:
    """The plain way: json and a dict."""
    events = Events(count, copies)

    def call() -> int:
        seen: dict[tuple[str, int, str, str], int] = {}
        for batch in events.batches:
            for key, value in zip(batch.keys, batch.values, strict=True):
                place, event = json.loads(key or b""), json.loads(value or b"")
                identity = (place["shard"], place["id"], event["source"]["gtid"], event["op"])
                seen[identity] = seen.get(identity, 0) + 1
        return sum(times - 1 for times in seen.values())

    return call


def decoding_alone(root: str, count: int, copies: float) -> Callable[[], int]:
    """What each way that decodes events one by one in Python must pay: msgspec, operation and GTID, no more."""
    import msgspec

    source = msgspec.defstruct("Source", [("gtid", str)], gc=False)
    decode = msgspec.json.Decoder(msgspec.defstruct("Event", [("op", str), ("source", source)], gc=False)).decode
    events = Events(count, copies)

    def call() -> int:
        return sum(len([decode(value or b"") for value in batch.values]) for batch in events.batches)

    return call


def duckdb_way(root: str, count: int, copies: float) -> Callable[[], int]:
    """DuckDB: read_json from a file (written before the clock starts), GROUP BY, HAVING."""
    import duckdb

    file = Path(tempfile.mkdtemp(dir=root)) / "events.json"
    write_json(Events(count, copies), file)

    def call() -> int:
        with duckdb.connect() as connection:
            connection.execute("SET threads = 1; SET enable_progress_bar = false")
            found = connection.execute(
                "SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM read_json(?, "
                "format='newline_delimited', columns={key: 'STRUCT(id BIGINT, shard VARCHAR)', "
                "source: 'STRUCT(gtid VARCHAR)', op: 'VARCHAR'}) "
                "GROUP BY key.shard, key.id, source.gtid, op HAVING n > 1)",
                [str(file)],
            ).fetchone()
        return int(found[0]) if found else 0

    return call


def write_json(events: Events, file: Path) -> None:
    """The events as lines, for DuckDB."""
    with file.open("wb") as stream:
        for batch in events.batches:
            for key, value in zip(batch.keys, batch.values, strict=True):
                stream.write(b'{"key":' + (key or b"{}") + b"," + (value or b"{}")[1:] + b"\n")


def run(form: Form) -> None:
    """All contenders by turns, each in a process of its own, pinned to one core."""
    count, copies = form.count("events"), float(form.sizes["copies"])
    ours, dicts, duckdbs, decoded = list[Cost](), list[Cost](), list[Cost](), list[Cost]()
    with tempfile.TemporaryDirectory(prefix="cdc-bench-") as root:
        for _ in range(form.count("rounds")):
            ours += measured((engine, (root, count, copies)))
            dicts += measured((plain, (root, count, copies)))
            duckdbs += measured((duckdb_way, (root, count, copies)))
            decoded += measured((decoding_alone, (root, count, copies)))
    answers = {cost.found if isinstance(cost.found, int) else cost.found[0] for cost in (*ours, *dicts, *duckdbs)}
    form.condition("all count the same copies", len(answers) == 1, " and ".join(map(str, sorted(answers))))
    again = [cost.found[2] for cost in ours]
    # The call checks twice: its second check is not part of the first's cost.
    first = [cost.cpu - seconds for cost, seconds in zip(ours, again, strict=True)]
    rates = [count / seconds for seconds in first]
    form.compare(
        "events counted", "events a CPU s", rates, [count / cost.cpu for cost in dicts],
        other_side="json and a dict", goal=Goal(at_least=2.0),
    )  # fmt: skip
    duckdb_rates = [count / cost.cpu for cost in duckdbs]
    form.compare(
        "events counted, beside DuckDB", "events a CPU s", rates, duckdb_rates, other_side="DuckDB, GROUP BY HAVING",
        goal=Goal(at_least=1.0, limit=0.3, cause=SLOWER_THAN_DUCKDB),
    )  # fmt: skip
    form.compare(
        "decoding alone, msgspec", "events a CPU s", [count / cost.cpu for cost in decoded], duckdb_rates,
        other_side="DuckDB, GROUP BY HAVING",
    )  # fmt: skip
    form.compare(
        "memory at the peak", "bytes an event", [cost.memory / count for cost in ours],
        [cost.memory / count for cost in dicts], other_side="json and a dict", goal=Goal(at_most=0.9),
    )  # fmt: skip
    form.compare(
        "a check that finds nothing new", "CPU s", again, first, other_side="the first check", goal=Goal(at_most=0.02)
    )
    form.figure("kept on disk", "bytes an event", [cost.found[1] / count for cost in ours])

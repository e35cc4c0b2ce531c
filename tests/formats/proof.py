"""The topics and tables that the proof's caches are recorded from: the same each time, to the byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path

from cdc_platform.model.topology import Engine
from cdc_platform.verification.proof.connection_pool import Connections
from cdc_platform.verification.proof.scan import Scan
from cdc_platform.verification.proof.topic_fold import TopicFold
from tests.formats.values import NOW
from tests.verification.continuity.harness import Harness as LedgerHarness
from tests.verification.duplicates.topics import Topic, run_id
from tests.verification.proof.memory import SHAPE, MemoryTable, MemoryTopic, event

PLATFORM = "cdc"
TOPIC = "cdc.d.t"
SCAN = ("run-1", "d", "t", "00000")
BEGAN = 1_767_000_000_000


class FixedClock(datetime):
    """A class `datetime` whose now is always the same."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return NOW


def table_topic() -> MemoryTopic:
    """Two partitions of two shards: a snapshot, changes, a delete with and one without its tombstone, a bad record."""
    topic = MemoryTopic(partitions=[{} for _ in range(2)])
    for key in range(1, 5):
        topic.append(key, event(key, f"row {key}", 0, op="r", snapshot="true"))
    for seq, key in enumerate((1, 2, 3, 1, 6, 8), start=1):
        topic.append(key, event(key, f"row {key} at {seq}", seq, op="u"))
    topic.append(3, event(3, None, 7, op="d"))
    topic.append(3, None)
    topic.append(4, event(4, None, 8, op="d"))
    topic.append(2, event(2, "of another shard", 5), shard="00001")
    topic.append(1, b"no JSON")
    return topic


def extend(topic: MemoryTopic, cache: Path, report: Callable[[int, int], None] = lambda done, total: None) -> TopicFold:
    """The fold of the topic, up to its end."""
    fold = TopicFold(cache, PLATFORM, TOPIC, SHAPE, topic)
    fold.extend(topic.bounds(), {}, report)
    return fold


def append_more(topic: MemoryTopic) -> None:
    """One more event a partition: a run of its own, half as long as the first at most."""
    topic.append(1, event(1, "row 1 at 9", 9, op="u"))
    topic.append(2, event(2, "row 2 at 10", 10, op="u"))


def source_table(rows: int) -> MemoryTable:
    """A table of that many rows; each was written in a transaction of its own."""
    table = MemoryTable(MemoryTopic())
    for key in range(rows):
        table.put(key, f"row {key}")
    return table


def scan(home: Path, table: MemoryTable, *, chunk_rows: int) -> Scan:
    """Read the table, or go on with it."""
    found = Scan(home, SCAN, SHAPE)
    with Connections(1).pool(table, "there") as pool:
        found.run(pool, lambda rows: None, chunk_rows=chunk_rows)
    return found


def sent_topic() -> Topic:
    """One partition in which a second run of the task sent again what the first had sent."""
    topic = Topic(engine=Engine.MARIADB, at=BEGAN)
    first, second = run_id(BEGAN), run_id(BEGAN + 60_000)
    topic.send(first, 1, 0, op="r", snapshot="true")
    for seq in (1, 2, 3):
        topic.send(first, seq, seq, order=1)
    topic.at = BEGAN + 60_500
    for seq in (2, 3, 4):
        topic.send(second, seq, seq, worker="w1", order=1)
    topic.records.append((b'{"id":9,"shard":"00000"}', json.dumps({"no": "event"}).encode(), [], topic.at))
    return topic


def kept_ledger(cache: Path) -> LedgerHarness:
    """A shard whose task was restarted once: a transaction that lost an event, and one that is still open."""
    harness = LedgerHarness(cache)
    harness.events.at = BEGAN
    first = run_id(BEGAN)
    for _ in range(3):
        harness.transaction(first, 2)
    lost = harness.transaction(first, 3, lost=1)
    harness.commit(lost)
    harness.keep()
    second = run_id(harness.rest(5_000), 1)
    harness.rest(100)
    harness.transaction(second, 2)
    harness.transaction(second, 4, lost=2)
    harness.keep()
    return harness

"""Tables of every type of key, read in chunks of 7 rows: all rows arrive, or the table is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from cdc_platform.clients.secrets import resolve
from cdc_platform.connectors.identity import table_topic
from cdc_platform.errors import SourceRejected
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import BootstrapMode, Engine, Table
from cdc_platform.settings import Settings
from cdc_platform.snapshots import executor
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.request import KeyRange
from cdc_platform.snapshots.row_counts import Patience
from cdc_platform.snapshots.run_records import watermarks
from cdc_platform.snapshots.shard_steps import Timeouts
from tests.snapshots.conftest import BackgroundRun, MakeHarness, backfill, bootstrap, go
from tests.snapshots.harness import Harness, TopicCheck
from tests.snapshots.key_samples import LEFT_OUT, SAMPLES, UNFIT, Sample
from tests.waiting import assert_eventually

pytestmark = pytest.mark.stack

ENGINES = pytest.mark.parametrize("engine", list(Engine), ids=str)
# As patient as a test can be with rows that never come.
SHORT = Patience(standstill=5.0)


@dataclass(kw_only=True)
class KeyWorld(Harness):
    """One shard; each table has a key of another type. Tables named like a type stop a connector of Postgres."""

    samples: dict[str, Sample]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.dataset = replace(self.dataset, tables=tuple(Table(name=f"t_{name}") for name in self.samples))

    def create(self, run: Callable[..., Any], table: str) -> None:
        sample = self.samples[table.removeprefix("t_")]
        for statement in sample.extra:
            run(statement)
        columns = ", ".join(f"k{n} {column} NOT NULL" for n, column in enumerate(sample.columns))
        prefix = {f"k{n}": "(10)" for n, column in enumerate(sample.columns) if column in ("text", "blob")}
        key = ", ".join(f"k{n}{prefix.get(f'k{n}', '')}" for n in range(len(sample.columns)))
        if self.engine is Engine.POSTGRES:
            key = ", ".join(f"k{n}" for n in range(len(sample.columns)))
        run(f"CREATE TABLE {table} ({columns}, n int NOT NULL, PRIMARY KEY ({key}))")
        if self.engine is Engine.POSTGRES:
            run(f"ALTER TABLE {table} OWNER TO {resolve(self.dataset.credentials.user)}")

    def fill(self, run: Callable[..., Any], table: str, first: int, last: int, v: int = 0) -> None:
        keys = self.samples[table.removeprefix("t_")].keys
        run(f"INSERT INTO {table} VALUES " + ",".join(f"({','.join(key)},{n})" for n, key in enumerate(keys)))

    def keys(self) -> dict[str, int]:
        """Sample to the number of its keys in the topic."""
        return {name: len(self._keys(f"t_{name}")) for name in self.samples}

    def _keys(self, table: str) -> set[bytes]:
        check = TopicCheck(self)
        topic = table_topic(self.dataset, self.dataset.table(table))
        consumer = check._consumer()
        found: set[bytes] = set()
        try:
            left = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
            consumer.assign([TopicPartition(topic, part, 0) for part in left])
            while left:
                for message in consumer.consume(1000, timeout=0.5):
                    if message.error() is not None:
                        left.discard(message.partition())
                    elif message.value() is not None:
                        found.add(bytes(message.key() or b""))
        finally:
            consumer.close()
        return found


MakeKeys = Callable[..., KeyWorld]


@pytest.fixture
def make_keys(stack: Stack, settings: Settings, outside: SnapshotPorts) -> Iterator[MakeKeys]:
    with ExitStack() as cleanup:

        def make(engine: Engine, *names: str) -> KeyWorld:
            world = KeyWorld(
                stack=stack,
                settings=settings,
                engine=engine,
                count=1,
                rows=0,
                overrides={"incremental.snapshot.chunk.size": "7"},
                samples={name: SAMPLES[engine][name] for name in names},
            )
            cleanup.callback(world.clean, outside.platform)
            world.make()
            world.put(outside.platform)
            return world

        yield make


@ENGINES
@pytest.mark.field("ENUM-KEY", Engine.MARIADB, Engine.MYSQL)
def test_key_types_2_11_a_key_that_cannot_be_read_in_chunks_costs_its_table_only(
    engine: Engine, make_keys: MakeKeys, outside: SnapshotPorts
) -> None:
    fit, unfit, kind = ("timestamptz", "money", "MONEY") if engine is Engine.POSTGRES else ("int", "int_enum", "ENUM")
    world = make_keys(engine, fit, unfit)
    run, notes = go(outside, bootstrap(world), "b1")
    (done,) = notes.done
    assert f"t_{unfit} was not read: it cannot be read in chunks" in str(done.error)
    assert f"of type {kind}" in str(done.error)
    assert "--mode snapshot --again" in str(done.error)
    assert run.failed == 1
    assert world.keys() == {fit: 60, unfit: 0}, "named before anything is asked of the connector"
    marks = {table: mark for (table, _), mark in watermarks(outside.platform.state.read(), world.name).items()}
    assert marks[f"t_{fit}"].complete
    count = marks[f"t_{fit}"].count
    assert count is not None
    assert (count.read, count.low) == (60, 60)
    assert (marks[f"t_{unfit}"].complete, marks[f"t_{unfit}"].count) == (None, None)
    some = backfill(world, tables=(f"t_{unfit}",), key_range=KeyRange(column="n", low="1", high="3"))
    _, notes = go(outside, some, "b2")
    assert f"of type {kind}" in str(notes.done[0].error)
    _, notes = go(outside, bootstrap(world, mode=BootstrapMode.SNAPSHOT, again=True), "b3")
    assert notes.done[0].error is None
    assert world.keys() == {fit: 60, unfit: 60}
    marks = {table: mark for (table, _), mark in watermarks(outside.platform.state.read(), world.name).items()}
    assert all(mark.complete for mark in marks.values())


@pytest.mark.slow
@ENGINES
@pytest.mark.field("ENUM-KEY", Engine.POSTGRES)
@pytest.mark.field("KEY-TYPES", Engine.MARIADB, Engine.MYSQL, Engine.POSTGRES)
def test_key_types_11_all_rows_arrive_though_the_task_is_restarted(
    engine: Engine, make_keys: MakeKeys, outside: SnapshotPorts
) -> None:
    world = make_keys(engine, *(name for name in SAMPLES[engine] if name not in UNFIT[engine]))
    working = BackgroundRun(outside, bootstrap(world), "b1")
    connect = outside.platform.connect(world.stack.cluster())
    for chunks in (20, 100, 200):
        assert_eventually(lambda least=chunks: working.chunks() > least, what="chunks", seconds=240)  # type: ignore[misc]
        connect.restart_task(world.shards[0].name, 0)
    run, left_out = working.end(), LEFT_OUT[engine]
    (done,) = working.notes.done
    named = [part.split(" was not read: it is not captured")[0] for part in (done.error or "").split("; t_")]
    assert {name.removeprefix("t_") for name in named if name} == left_out and run.failed == bool(left_out)
    expected = {name: 0 if name in left_out else len(sample.keys) for name, sample in world.samples.items()}
    assert world.keys() == expected
    column = "timestamptz" if engine is Engine.POSTGRES else "datetime6"
    ten_years = KeyRange(column="k0", low="1985-01-01", high="1995-01-01")
    _, notes = go(outside, backfill(world, tables=(f"t_{column}",), key_range=ten_years), "b2")
    assert (notes.done[0].error, notes.done[0].rows) == (None, {f"t_{column}": 10})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "names"),
    [
        (Engine.MARIADB, ("int_enum", "enum_int", "set", "time", "bit8", "int")),
        (Engine.MYSQL, ("int_enum", "enum_int", "set", "time", "bit8", "int")),
    ],
    ids=["mariadb", "mysql"],
)
def test_key_types_2_rows_that_do_not_arrive_are_counted(
    engine: Engine, names: tuple[str, ...], make_keys: MakeKeys, outside: SnapshotPorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were such a key asked for, the connector would call it whole."""
    monkeypatch.setattr(executor, "unfit_key", lambda engine, key: None)
    world = make_keys(engine, *names)
    _, notes = go(outside, bootstrap(world), "b1", patience=SHORT)
    arrived = world.keys()
    assert arrived["int"] == 60
    short = {name: keys for name, keys in arrived.items() if keys < 60}
    assert len(short) >= 4, arrived
    for name, keys in short.items():
        assert f"t_{name}: read {keys} of 60 rows" in str(notes.done[0].error)
    marks = {table: mark for (table, _), mark in watermarks(outside.platform.state.read(), world.name).items()}
    assert {table.removeprefix("t_") for table, mark in marks.items() if mark.complete} == arrived.keys() - short.keys()


@pytest.mark.slow
def test_key_types_beside_11_a_table_whose_chunks_kill_the_task_costs_no_other(
    make_keys: MakeKeys, outside: SnapshotPorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As would a key that is not known to fail."""
    monkeypatch.setattr(executor, "unfit_key", lambda engine, key: None)
    world = make_keys(Engine.POSTGRES, "money", "uuid", "int8")
    soon = Timeouts(withdrawn=timedelta(seconds=3), stalled=timedelta(seconds=10), attempts=3)
    _, notes = go(outside, bootstrap(world), "b1", timeouts=soon)
    arrived = world.keys()
    assert (arrived["uuid"], arrived["int8"]) == (60, 60)
    assert arrived["money"] < 60
    assert str(notes.done[0].error).startswith("t_money was not read: ")
    assert str(notes.done[0].error).endswith(", 3 times")
    marks = {table: mark for (table, _), mark in watermarks(outside.platform.state.read(), world.name).items()}
    assert {table for table, mark in marks.items() if mark.complete} == {"t_uuid", "t_int8"}


@ENGINES
def test_key_types_and_row_counts_as_servers_give_them(
    engine: Engine, make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    world = make_harness(engine, count=1, rows=700)
    (shard,), items = world.shards, world.dataset.table("items")

    def count(condition: str | None, seconds: float, **verification: bool) -> int:
        dataset = replace(world.dataset, verification=verification)
        return outside.sources.count_rows(dataset, shard, items, condition, seconds)

    keys = outside.sources.key_columns(world.dataset, shard, [items, Table(name="gone")])
    assert [(column.name, column.type) for column in keys["items"].columns] in ([("id", "bigint")], [("id", "int8")])
    assert keys["gone"].columns == ()
    assert (count(None, 30), count("id <= 10", 30)) == (700, 10)
    assert_eventually(lambda: count(None, 30, replicas=True) == 700, what="the replica has the rows")
    with pytest.raises(SourceRejected, match="counting items took longer than 1 s"):
        count("(SELECT COUNT(*) FROM items a, items b WHERE a.id + b.id > items.id) > 0", 1)

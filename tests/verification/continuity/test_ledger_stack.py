"""The continuity ledger on real Connect and Debezium: what is handed on, and what is not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cdc_platform.clients.secrets import resolve
from cdc_platform.connectors.config import desired_config
from cdc_platform.connectors.identity import slot_name
from cdc_platform.defs.ledger_sensor import proofs_wanted
from cdc_platform.defs.translator import table_props
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import EMPTY, BootstrapMode, Engine, Topology
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.continuity.breaks import Break, BreakKind, ShardContinuity
from cdc_platform.verification.continuity.committed_positions import log_positions
from cdc_platform.verification.continuity.ledger import LedgerPorts, breaks_on_record, count_and_keep
from cdc_platform.verification.proof.completeness import ShardRange, verify_shards
from cdc_platform.verification.proof.verdicts import Verdict
from cdc_platform.wiring import open_ledger, open_platform, verification_of
from tests.engines import EACH_ENGINE
from tests.verification.duplicates.harness import SLOW, ask_for_snapshot, harnesses, killed_in_mid_transaction
from tests.verification.duplicates.harness import Harness as DuplicatesHarness
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(900)]


class Kept:
    """A captured shard and its ledger."""

    def __init__(self, harness: DuplicatesHarness, outside: LedgerPorts) -> None:
        self.harness, self.outside = harness, outside

    @property
    def topology(self) -> Topology:
        cluster = self.harness.field.stack.cluster()
        return replace(self.harness.field.topology, clusters={cluster.name: cluster})

    def look(self) -> ShardContinuity:
        _, found = count_and_keep(self.outside, self.topology, self.harness.dataset.name, "pins", run_id="r")
        assert found.problem == ""
        (shard,) = found.shards
        return shard

    def settled(self) -> ShardContinuity:
        """Until nothing is open: the connector commits every few seconds."""
        seen: list[ShardContinuity] = []

        def calm() -> bool:
            seen.append(self.look())
            return seen[-1].open == 0

        assert_eventually(calm, "the ledger has nothing open", 120)
        return seen[-1]

    def position(self) -> dict[str, Any]:
        """The connector's offset as it would be at the end of the source's log."""
        offset = self.harness.field.offset(self.harness.shard)
        with self.harness.admin(self.harness.shard.database) as run:
            engine = self.harness.dataset.engine
            if engine.reads_binlog:
                found: Any = run("SELECT @@" + ("gtid_binlog_pos" if engine is Engine.MARIADB else "gtid_executed"))
                # Nothing of a transaction that was under way: events of the next one would be taken for its.
                kept = {name: offset[name] for name in ("file", "pos", "server_id", "ts_sec") if name in offset}
                return kept | {"gtids": rows_of(run, found)[0][0]}
            found = run("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
            return {"lsn": int(rows_of(run, found)[0][0]), "txId": offset["txId"], "ts_usec": offset["ts_usec"]}

    def call(self, verb: str, path: str, **more: Any) -> None:
        name = self.harness.shard.name

        def done() -> bool:
            return self.harness.field.rest.request(
                verb, f"{self.harness.url()}/connectors/{name}/{path}", timeout=60, **more
            ).is_success

        assert_eventually(done, f"{verb} {path} of {name}", 60)

    def stop(self) -> None:
        """Stop the connector, and wait until the source has lost its reader: Connect says "no task" before."""
        self.call("PUT", "stop")
        dataset = self.harness.dataset
        if dataset.engine.reads_binlog:
            user = resolve(dataset.credentials.user)
            readers = (
                f"SELECT 1 FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%' AND user = '{user}'"
            )
        else:
            slot = slot_name(self.harness.field.settings, self.harness.shard)
            readers = f"SELECT 1 FROM pg_replication_slots WHERE active AND slot_name = '{slot}'"

        def gone() -> bool:
            with self.harness.admin(self.harness.shard.database) as run:
                return not rows_of(run, run(readers))

        assert_eventually(gone, f"nobody reads for {self.harness.shard.name}", 60)
        before = self.harness.field.offset(self.harness.shard)

        def still() -> bool:
            # Its last commit follows its last event.
            nonlocal before
            time.sleep(1)
            last, before = before, self.harness.field.offset(self.harness.shard)
            return last == before

        assert_eventually(still, "the last offset is committed", 60)

    def configured(self, config: dict[str, str]) -> None:
        """Go on with this configuration."""
        self.stop()
        self.harness.field.put(self.harness.shard.name, config)
        self.call("PUT", "resume")
        self.harness.home()

    def prove(self) -> Verdict:
        part = ShardRange(dataset=self.harness.dataset.name, table="pins", shards=(self.harness.shard.id,))
        (verdict,) = verify_shards(verification_of(self.outside.platform), self.topology, part, run_id="proof")
        self.missing = verdict.missing
        return verdict.verdict


def rows_of(run: Any, found: Any) -> Any:
    """What a statement gave: psycopg returns the cursor, PyMySQL a count."""
    return list(found if hasattr(found, "fetchall") else run.__self__.fetchall())


@pytest.fixture
def kept(stack: Stack, tmp_path: Path) -> Iterator[Callable[[Engine], Kept]]:
    with ledgers(stack, tmp_path) as make:
        yield make


@pytest.fixture
def slow(stack: Stack, tmp_path: Path) -> Iterator[Callable[[Engine], Kept]]:
    """Of shards whose transactions can be stopped in their middle."""
    with ledgers(stack, tmp_path, SLOW) as make:
        yield make


@contextmanager
def ledgers(stack: Stack, root: Path, connector: Mapping[str, str] = EMPTY) -> Iterator[Callable[[Engine], Kept]]:
    with harnesses(stack, root, BootstrapMode.SNAPSHOT, connector) as make:
        opened: list[Any] = []

        def one(engine: Engine) -> Kept:
            harness = make(engine)
            platform = open_platform(harness.field.settings)
            ledger = open_ledger(platform.__enter__())
            opened.extend([platform, ledger])
            return Kept(harness, ledger.__enter__())

        yield one
        for context in reversed(opened):
            context.__exit__(None, None, None)


@EACH_ENGINE
def test_ledger_of_a_worker_killed_with_9_has_no_break(engine: Engine, kept: Callable[[Engine], Kept]) -> None:
    ledger = kept(engine)
    place = ledger.harness
    place.write(30)
    place.arrived()
    assert ledger.settled().checked >= 30
    place.sent_but_not_committed(100)
    home = place.home()
    place.field.stack.kill(home)
    try:
        assert_eventually(lambda: place.home() != home, "another worker has the task", 180)
        place.write(20)
        place.arrived()
    finally:
        place.field.stack.start(home)
    found = ledger.settled()
    assert found.breaks == ()
    # Each transaction at least once, and every run was judged.
    assert found.checked >= place.written
    assert (found.resumed, found.unknown) == (1, 0)
    assert breaks_on_record(ledger.outside.platform.state.read(), place.dataset.name, "pins") == {}


@EACH_ENGINE
def test_ledger_of_an_offset_moved_forward_by_hand_breaks_and_names_the_range(
    engine: Engine, kept: Callable[[Engine], Kept]
) -> None:
    ledger = kept(engine)
    place = ledger.harness
    place.write(20)
    place.arrived()
    before = ledger.settled()
    assert before.breaks == ()
    ledger.stop()
    place.write(30)  # these are skipped
    moved = ledger.position()
    assert moved != place.field.offset(place.shard)
    partition = {"server": place.shard.name}
    ledger.call("PATCH", "offsets", json={"offsets": [{"partition": partition, "offset": moved}]})
    ledger.call("PUT", "resume")
    place.home()
    place.write(10)
    assert_eventually(lambda: set(range(51, 61)) <= place.ids(), "the last rows arrived", 120)
    assert len(place.ids()) == 30
    found = ledger.settled()
    (gap,) = found.breaks
    assert gap.kind is BreakKind.RESUME
    first, last = ends_of(engine, gap)
    inside = source_positions(ledger, range(21, 51))
    assert first <= min(inside) and max(inside) <= last
    # The same look again finds nothing new, and it is on record.
    assert ledger.look().breaks == (gap,)
    assert breaks_on_record(ledger.outside.platform.state.read(), place.dataset.name, "pins") == {"00000": (gap,)}
    # The sensor asks for a proof of just this shard, which finds what was skipped.
    records, audit = ledger.outside.platform.state.read(), AuditFrame(place.field.settings.audit_dir)
    (request,) = proofs_wanted(records, table_props(ledger.topology, platform="cdc"), audit, datetime.now(UTC))
    assert request.run_config["ops"]["plan_verification"]["config"] == {
        "dataset": place.dataset.name, "tables": ["pins"], "shards": ["00000"],
    }  # fmt: skip
    assert (ledger.prove(), ledger.missing) == (Verdict.MISMATCHED, 30)


def ends_of(engine: Engine, gap: Break) -> tuple[int, int]:
    """First and last of a break's range."""
    if engine.reads_binlog:
        # `GTID domain 0, 5 to 9` or `GTIDs of server 1eed3f01, 5 to 9`.
        first, last = gap.range.rpartition(", ")[2].split(" to ")
        return int(first), int(last)
    first, last = gap.range.removeprefix("LSN ").split(" to ")
    return tuple(int(high, 16) << 32 | int(low, 16) for high, low in (lsn.split("/") for lsn in (first, last)))  # type: ignore[return-value]


def source_positions(ledger: Kept, ids: range) -> list[int]:
    """Where the source has these rows' transactions: their number, or where its log stood when they were there."""
    if ledger.harness.dataset.engine.reads_binlog:
        last = max((log_positions(ledger.harness.dataset.engine, ledger.position()) or {}).values())
        # Ten more were written since, one transaction each.
        return [last - 10 - (ids.stop - 1 - id) for id in ids]
    with ledger.harness.admin(ledger.harness.shard.database) as run:
        found: Any = run(f"SELECT xmin::text FROM pins WHERE id IN ({ids.start}, {ids.stop - 1})")
        assert len(rows_of(run, found)) == 2
    sent = sorted(value["source"]["lsn"] for key, value, _ in ledger.harness.records())
    return [next(lsn for lsn in sent[20:]) - 1]


@EACH_ENGINE
def test_ledger_of_a_transaction_resumed_in_its_middle_has_no_break(
    engine: Engine, slow: Callable[[Engine], Kept]
) -> None:
    ledger = slow(engine)
    place = ledger.harness
    place.write(1)
    place.arrived()
    assert ledger.settled().breaks == ()
    changes = killed_in_mid_transaction(place)
    assert_eventually(lambda: place.last_offsets() > changes, f"{changes} events arrived", 300)
    place.write(1)
    place.arrived()
    found = ledger.settled()
    assert (found.breaks, found.open) == ((), 0)


@EACH_ENGINE
def test_ledger_of_events_dropped_on_the_way_breaks_and_names_the_transaction(
    engine: Engine, kept: Callable[[Engine], Kept]
) -> None:
    ledger = kept(engine)
    place = ledger.harness
    place.write(10)
    place.arrived()
    assert ledger.settled().breaks == ()
    config = desired_config(place.dataset, place.shard, place.field.stack.cluster(), place.field.settings)
    dropping = {
        "transforms": f"drop,{config['transforms']}",
        "transforms.drop.type": "org.apache.kafka.connect.transforms.Filter",
        "transforms.drop.predicate": "cdcIsTable",
    }
    ledger.configured(config | dropping)
    with place.admin(place.shard.database) as run:
        run("INSERT INTO pins VALUES (1001, 0), (1002, 0), (1003, 0)")

    def broken() -> bool:
        return bool(ledger.look().breaks)

    assert_eventually(broken, "the ledger finds the break", 120)
    ledger.configured(config)
    place.write(5)
    place.arrived()
    found = ledger.settled()
    (gap,) = found.breaks
    assert (gap.kind, gap.expected, gap.found) == (BreakKind.TRANSACTION, 3, 0)
    assert gap.range.startswith("transaction ")
    assert (ledger.prove(), ledger.missing) == (Verdict.MISMATCHED, 3)


@EACH_ENGINE
def test_ledger_of_all_kinds_of_changes_has_no_break(engine: Engine, kept: Callable[[Engine], Kept]) -> None:
    ledger = kept(engine)
    place = ledger.harness
    place.write(20)
    place.arrived()
    begin = "START TRANSACTION" if engine.reads_binlog else "BEGIN"
    with place.admin(place.shard.database) as run:
        run(begin)
        run("UPDATE pins SET n = n + 1 WHERE id < 6")
        run("UPDATE pins SET n = n + 1 WHERE id < 4")  # twice in one transaction
        run("UPDATE pins SET n = n + 1 WHERE id = 5")  # and in another place of its statement
        run("UPDATE pins SET id = 100 WHERE id = 1")  # a delete and a create
        run("DELETE FROM pins WHERE id IN (2, 3)")
        run("COMMIT")
        run(begin)
        run("INSERT INTO pins VALUES (900, 0)")
        run("ROLLBACK")
        run("UPDATE pins SET n = n WHERE id = 10")
        run("CREATE TABLE other (id BIGINT PRIMARY KEY)")
        run("INSERT INTO other VALUES (1), (2)")
        run("INSERT INTO pins VALUES (200, 1), (201, 1), (202, 1)")
    if engine.reads_binlog:
        # Rows that a snapshot reads between changes belong to no transaction.
        ask_for_snapshot(place, "beside")
    for number in range(30):
        with place.admin(place.shard.database) as run:
            run(f"UPDATE pins SET n = {number + 50} WHERE id = {200 + number % 3}")
    if engine.reads_binlog:
        assert_eventually(
            lambda: any(value["op"] == "r" for _, value, _ in place.records()), "the snapshot reads rows", 120
        )
    with place.admin(place.shard.database) as run:
        run("TRUNCATE TABLE pins")
        run("INSERT INTO pins VALUES (300, 1)")
    assert_eventually(lambda: 300 in place.ids(), "the last row arrived", 120)
    found = ledger.settled()
    assert (found.breaks, found.open) == ((), 0)
    # 20, the mixed one, the three rows, 30 updates, the last; an update that changes nothing may be no event.
    assert found.checked in (53, 54)

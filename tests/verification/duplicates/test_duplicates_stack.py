"""Duplicates on real Connect and Debezium: made by kills, twins, snapshots and leader switches, and counted twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cdc_platform.connectors.config import desired_config
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Engine
from cdc_platform.verification.duplicates.causes import Cause
from tests.conftest import own_stack
from tests.engines import EACH_ENGINE
from tests.local import promotion
from tests.verification.duplicates.harness import (
    SLOW,
    Harness,
    ask_for_snapshot,
    drop_slot,
    harnesses,
    killed_in_mid_transaction,
)
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def harness(stack: Stack, tmp_path: Path) -> Iterator[Callable[[Engine], Harness]]:
    """Makes a captured shard; everything is taken away at the end."""
    with harnesses(stack, tmp_path) as make:
        yield make


@EACH_ENGINE
def test_duplicates_of_a_worker_killed_with_9_are_redelivery_and_counted_exactly(
    engine: Engine, harness: Callable[[Engine], Harness]
) -> None:
    place = harness(engine)
    stack = place.field.stack
    expected, home = 0, ""
    # A commit may fall between arrival and kill: then nothing is sent again, and it is tried once more.
    for _ in range(5):
        place.sent_but_not_committed(200)
        home = place.home()
        stack.kill(home)
        try:
            assert_eventually(lambda gone=home: place.home() != gone, "another worker has the task", 180)  # type: ignore[misc]
            place.write(5)
            place.arrived()
        finally:
            stack.start(home)
        expected = place.copies()
        if expected:
            break
    assert expected > 0
    found = place.blames()
    assert sum(item.count for item in found) == expected
    assert {item.cause for item in found} == {Cause.REDELIVERY}
    assert {item.worker_before for item in found} == {home}
    assert home not in {item.worker for item in found}
    before = place.causes()
    # Read again, only what is new costs anything, and the count stays.
    place.write(3)
    place.arrived()
    assert place.causes() == before


@EACH_ENGINE
def test_duplicates_of_a_transaction_resumed_in_its_middle_are_counted_exactly(
    engine: Engine, stack: Stack, tmp_path: Path
) -> None:
    with harnesses(stack, tmp_path, connector=SLOW) as make:
        place = make(engine)
        place.write(1)
        place.arrived()
        changes = 1
        # The kill may come right after a commit: then nothing is sent again, and it is tried once more.
        for _ in range(5):
            changes += killed_in_mid_transaction(place)
            assert_eventually(lambda: place.last_offsets() >= changes, f"{changes} events arrived", 300)  # noqa: B023
            place.write(1)
            place.arrived()
            changes += 1
            # Each change is one event: what is more is a copy. Nothing else could tell the hot row's changes apart.
            expected = len(place.records()) - changes
            assert place.causes() == ({Cause.REDELIVERY: expected} if expected else {})
            if expected:
                break
        assert expected > 0


@EACH_ENGINE
def test_duplicates_of_a_second_task_that_interleaves_are_a_zombies(
    engine: Engine, harness: Callable[[Engine], Harness]
) -> None:
    place = harness(engine)
    field = place.field
    config = desired_config(place.dataset, place.shard, field.stack.cluster(), field.settings)
    twin = replace(place.shard, id="zombie")
    # Everything of the shard, headers and prefix too; only what two connectors may not share is another's.
    if engine.reads_binlog:
        own = {
            "database.server.id": str(int(config["database.server.id"]) + 1),
            "schema.history.internal.kafka.topic": config["schema.history.internal.kafka.topic"] + "-zombie",
        }
    else:
        own = {"slot.name": config["slot.name"] + "_z"}
    forged = config | own | {"name": twin.name}
    field.put(twin.name, forged)
    try:
        assert_eventually(lambda: field.task_state(twin) == "RUNNING", "the second task runs", 120)

        def both() -> bool:
            place.write(1)
            return len({h["__debezium.context.runId"] for _, _, h in place.records()}) > 1

        assert_eventually(both, "both send", 120)
        place.write(50)
        place.arrived()
        # Every row of the last fifty comes twice.
        last = set(range(place.written - 49, place.written + 1))
        assert_eventually(
            lambda: sum(1 for key, _, _ in place.records() if key["id"] in last) == 100,
            "the second copies arrived",
            120,
        )
    finally:
        place.field.rest.delete(f"{place.url()}/connectors/{twin.name}", timeout=60)
        if not engine.reads_binlog:
            drop_slot(place, config["slot.name"] + "_z")
    expected = place.copies()
    assert expected >= 50
    assert place.causes() == {Cause.ZOMBIE: expected}


@EACH_ENGINE
def test_duplicates_of_a_table_snapshotted_twice_are_a_re_snapshot(
    engine: Engine, harness: Callable[[Engine], Harness]
) -> None:
    place = harness(engine)
    place.write(30)
    place.arrived()
    for number in (1, 2):
        if engine.reads_binlog:
            ask_for_snapshot(place, f"again-{number}")
        else:
            # A signal waits on an idle Postgres shard until something changes; a start does not.
            config = desired_config(place.dataset, place.shard, place.field.stack.cluster(), place.field.settings)
            place.field.put(place.shard.name, config | {"snapshot.mode": "always", "max.batch.size": f"204{number}"})

        def read(times: int = number) -> bool:
            return sum(1 for _, value, _ in place.records() if value["op"] == "r") == 30 * times

        assert_eventually(read, f"snapshot {number} is in the topic", 180)
    # A row read by the first snapshot is no copy of the change event of its insert.
    assert place.copies() == 30
    assert place.causes() == {Cause.RESNAPSHOT: 30}


@EACH_ENGINE
def test_duplicates_after_a_leader_switch_are_the_failovers(engine: Engine, tmp_path: Path) -> None:
    # On a stack of its own: afterwards the other server is the primary.
    servers = {one.value: one is engine for one in Engine}
    with own_stack(workers=2, **servers) as stack, harnesses(stack, tmp_path) as harness:
        assert_duplicates_after_leader_switches(harness(engine))


def assert_duplicates_after_leader_switches(place: Harness) -> None:
    stack = place.field.stack
    expected, moved = 0, list[datetime]()
    for _ in range(5):
        place.sent_but_not_committed(200)
        # No worker is left to go on from the old leader, and none has committed.
        workers = [name for name in stack.workers if name in stack.running()]
        for name in workers:
            stack.kill(name)
        try:
            stack = promotion.promote(stack, place.dataset.engine, timeout=120)
            leader = stack.primary(place.dataset.engine)
            # Both servers may have each event at the same place: the topology says what moved.
            moved.append(datetime.now(UTC))
            place.field.stack = stack
            place.shard = replace(place.shard, leader=leader, generation=place.shard.generation + 1)
            place.field.write_leader(place.shard)
        finally:
            for name in workers:
                stack.start(name, timeout=180)
            promotion.rejoin(stack)
        place.home()
        place.write(5)
        place.arrived()
        expected = place.copies()
        if expected:
            break
    assert expected > 0
    assert place.causes(*moved) == {Cause.FAILOVER: expected}

"""A backfill held back by a worker whose heap is really full: of a neighbour's rows that Kafka does not take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import BootstrapMode, Engine
from cdc_platform.snapshots.executor import producer_client_id
from cdc_platform.snapshots.pacing.brakes import BrakePolicy
from cdc_platform.snapshots.ports import SnapshotPorts
from tests.conftest import own_stack
from tests.snapshots.conftest import BackgroundRun, MakeHarness, backfill, bootstrap, go
from tests.snapshots.harness import TopicCheck, Writers
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow]

HEAP_MB = 192
# A worker with two connectors lives on a third of it, and on more than two thirds with the neighbour's queue.
QUEUE_MB = 80
QUICK = BrakePolicy(heap_on=0.65, heap_off=0.5, heap_seconds=20.0, interval=1.0)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with own_stack(workers=1, postgres=False, worker_heap_mb=HEAP_MB) as stack:
        yield stack


def test_backfill_is_held_back_while_the_heap_of_its_worker_is_full(
    make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    harness = make_harness(Engine.MARIADB, count=1, rows=60_000)
    go(outside, bootstrap(harness, mode=BootstrapMode.LATEST), "first")
    check = TopicCheck(harness, since=TopicCheck(harness).ends())
    neighbour = make_harness(Engine.MARIADB, count=1, rows=1500, pad=100_000)
    limits = replace(neighbour.dataset.limits, queue_bytes=QUEUE_MB * 1024 * 1024, batch_events=16)
    neighbour.dataset = replace(neighbour.dataset, limits=limits)
    neighbour.put(outside.platform)
    (shard,) = neighbour.shards
    client = producer_client_id(shard.name)
    outside.rates.set_rates({client: 20_000})
    hog = BackgroundRun(outside, bootstrap(neighbour, mode=BootstrapMode.SNAPSHOT), "hog")
    try:
        with Writers(harness, pause=0.02):
            (worker,) = harness.stack.metrics_urls
            assert_eventually(lambda: _heap(outside, harness.stack) > 0.7, what="a full heap", seconds=180)
            working = BackgroundRun(outside, backfill(harness), "b1", brakes=QUICK)
            short = f"worker {worker} is short of heap"
            assert_eventually(lambda: short in working.throttled(), what="held back by the heap", seconds=120)
            working.reads_nothing(10)
            assert working.chunks() < 60
            outside.platform.connect(harness.stack.cluster()).stop(shard.name)
            assert not working.end().failed
        check.assert_agrees(seconds=120)
    finally:
        outside.rates.set_rates({client: None})
        outside.platform.connect(harness.stack.cluster()).resume(shard.name)
    assert not hog.end().failed


def _heap(outside: SnapshotPorts, stack: Stack) -> float:
    """The part of the worker's heap that is in use, as the platform reads it."""
    assert outside.platform.metrics is not None
    ((worker, url),) = stack.metrics_urls.items()
    seen = outside.platform.metrics.read(worker, url)
    print(f"heap {seen.heap_used or 0:,} of {seen.heap_max or 0:,}")
    return (seen.heap_used or 0) / (seen.heap_max or 1)

"""How hard a bootstrap or backfill presses: rows a second, chunks that fit, brakes."""

from __future__ import annotations

import math
import random
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.clients.protocols import Metrics
from cdc_platform.errors import ConnectUnavailable, SourceUnavailable
from cdc_platform.model.observed import ObservedConnector, ObservedTask, ObservedWorker
from cdc_platform.model.topology import Address, Cluster, Dataset, Shard
from cdc_platform.snapshots.executor import chunk_rows
from cdc_platform.snapshots.pacing.brakes import BrakePolicy, Brakes, BrakeState, ObservedLoad, judge, reasons
from cdc_platform.snapshots.pacing.throttle import Throttle
from cdc_platform.snapshots.request import Load
from tests.defs.harness import dataset, shard

POLICY = BrakePolicy()
MB = 1024 * 1024


def load(*, lag: float | None = None, heap: float | None = None) -> ObservedLoad:
    return ObservedLoad(
        replica_lag={} if lag is None else {"db-0:3306": lag},
        workers={}
        if heap is None
        else {"w0:8083": ObservedWorker(worker="w0:8083", heap_used=int(heap * 100), heap_max=100)},
        shards={"pins.00000": ("db-0:3306", "w0:8083"), "pins.00001": ("db-1:3306", "w1:8083")},
    )


def looks(*seen: ObservedLoad) -> list[dict[str, str]]:
    held, told = BrakeState(), []
    for number, one in enumerate(seen):
        held = judge(held, one, POLICY, number * POLICY.interval)
        told.append(reasons(held, one))
    return told


def test_the_brake_on_replication_lag_holds_the_shards_of_that_host_until_it_is_clearly_better() -> None:
    told = looks(load(lag=10), load(lag=61), load(lag=40), load(lag=19), load(lag=40))
    throttled = {"pins.00000": "replicas of db-0:3306 are 61 s behind"}
    assert told[:2] == [{}, throttled]
    assert list(told[2]) == ["pins.00000"], "still on at 40 s"
    assert told[3:] == [{}, {}], "off below 20 s, and not on again before 60 s"


def test_the_brake_on_worker_heap_pressure_needs_it_three_times_in_a_row() -> None:
    told = looks(*[load(heap=part) for part in (0.95, 0.95, 0.5, 0.95, 0.95, 0.95, 0.8, 0.7)])
    assert [bool(one) for one in told] == [False, False, False, False, False, True, True, False]
    assert told[5] == {"pins.00000": "worker w0:8083 is short of heap"}


def test_the_brake_on_worker_heap_pressure_lets_go_to_see_whether_it_is_garbage() -> None:
    full = [bool(one) for one in looks(*[load(heap=0.95)] * 100)]
    spans = [len(list(run)) * int(POLICY.interval) for _, run in groupby(full)]
    assert spans[:6] == [10, 60, 15, 120, 15, 240], "off to see, and longer on each time"
    freed = [0.95] * 14 + [0.95, 0.3, 0.95, 0.95, 0.95]
    assert [bool(one) for one in looks(*[load(heap=part) for part in freed])][14:] == [
        False,
        False,
        False,
        False,
        True,
    ]


def test_what_cannot_be_read_brakes_nothing() -> None:
    assert looks(load(lag=100, heap=0.99), load())[1] == {}


class _Sources:
    """Answers by host; a text is an outage."""

    def __init__(self, lags: dict[str, float | str]) -> None:
        self.lags = lags

    def replica_lag(self, dataset: Dataset, shard: Shard) -> float | None:
        found = self.lags.get(str(shard.leader))
        if isinstance(found, str):
            raise SourceUnavailable(found)
        return found


class _Heaps(Metrics):
    def __init__(self, heaps: dict[str, float]) -> None:
        self.heaps = heaps

    def read(self, worker: str, url: str) -> ObservedWorker:
        if worker not in self.heaps:
            raise ConnectUnavailable(f"{worker} does not answer")
        return ObservedWorker(worker=worker, heap_used=int(self.heaps[worker] * 100), heap_max=100)


def test_brakes_look_at_the_replicas_of_each_source_and_the_heap_of_each_worker() -> None:
    shards = [shard("pins", n, leader=Address(f"db-{n}", 3306)) for n in range(4)]
    seen = {
        one.name: ObservedConnector(
            name=one.name,
            state="RUNNING",
            worker="w0:8083",
            config={},
            tasks=(ObservedTask(id=0, state="RUNNING", worker=f"w{n % 2}:8083"),),
        )
        for n, one in enumerate(shards)
    }
    cluster = Cluster(
        name="main", urls=("http://127.0.0.1:1",), metrics={f"w{n}:8083": f"http://127.0.0.1:1/{n}" for n in range(2)}
    )
    said: list[str] = []
    brakes = Brakes(
        _Sources({"db-0:3306": 90.0, "db-1:3306": "away", "db-2:3306": math.inf}),  # type: ignore[arg-type]
        _Heaps({"w1:8083": 0.99}),
        BrakePolicy(interval=0.0, heap_reads=2),
        report=said.append,
    )
    first = brakes.update(dataset("pins"), shards, seen, [cluster])
    assert list(first) == ["pins.00000", "pins.00002"]
    second = brakes.update(dataset("pins"), shards, seen, [cluster])
    assert second == {
        "pins.00000": "replicas of db-0:3306 are 90 s behind",
        "pins.00001": "worker w1:8083 is short of heap",
        "pins.00002": "a replica of db-2:3306 has stopped",
        "pins.00003": "worker w1:8083 is short of heap",
    }
    assert [text.split(" is not known")[0] for text in said] == ["How far replicas of db-1:3306 are behind"], "once"


@given(limit=st.integers(100, 50_000), burst=st.integers(1, 40), seed=st.integers(0, 999))
def test_rows_a_second_stay_near_the_limit_however_fast_shards_read(limit: int, burst: int, seed: int) -> None:
    """Each of 20 shards that may read reads up to `burst` times the share it should, two seconds after a pause too."""
    dice = random.Random(seed)
    throttle = Throttle(limit)
    rows, late = 0, [0, 0]
    seconds = 600
    throttle.update(0, 0.0)
    for second in range(1, seconds + 1):
        allowed = throttle.allowed(20)
        reading = max(allowed, late.pop(0))
        late.append(allowed)
        rows += int(reading * dice.random() * burst * limit / 20)
        throttle.update(rows, float(second))
    # A second's worst burst, once more for each second that a pause takes, and what may be saved up.
    slack = limit * (burst * 4 + 10)
    assert rows <= limit * seconds + slack


def test_without_a_limit_all_shards_read() -> None:
    assert Throttle(None).allowed(7) == 7


@pytest.mark.parametrize(
    ("load", "width", "rows"),
    [
        (Load(), None, None),
        (Load(), 300, None),
        (Load(), 8 * 1024, 1024),
        (Load(), 100_000, 83),
        (Load(), 50 * MB, 2),
        (Load(max_rows_per_s=2000, max_parallel_shards=2), None, 10),
        (Load(max_rows_per_s=2000, max_parallel_shards=2), 1_000_000, 8),
        (Load(max_rows_per_s=10_000_000), None, 2048),
    ],
)
def test_a_chunk_fits_into_the_connectors_memory_and_into_the_rate(
    load: Load, width: int | None, rows: int | None
) -> None:
    assert chunk_rows(load, width=width, room=8 * MB) == rows

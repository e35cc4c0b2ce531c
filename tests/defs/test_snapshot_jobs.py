"""The jobs `bootstrap` and `backfill` and the sensor that asks for them, in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import dagster as dg
import pytest

from cdc_platform.canonical.catalog import CatalogTable
from cdc_platform.canonical.chunk_keys import TableKey
from cdc_platform.clients.platform import Platform
from cdc_platform.connectors.identity import Identity
from cdc_platform.defs import snapshot_jobs
from cdc_platform.defs.bootstrap_sensor import MOST_CONTINUED, SENSOR
from cdc_platform.defs.snapshot_jobs import TAG_RUN
from cdc_platform.errors import BadInput, KafkaUnavailable, SourceUnavailable
from cdc_platform.model.topology import BootstrapMode, Dataset, Shard, Table
from cdc_platform.snapshots import run_lifecycle
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.run_lifecycle import RequestedState
from cdc_platform.snapshots.run_records import Run, runs, shard_states, watermarks
from cdc_platform.testing import FakeKafka, FakeStateStore, InMemoryTopologyStore
from tests.defs.code_location import CodeLocation
from tests.defs.harness import Harness, HarnessResource, dataset, shard, topology

BOOTSTRAP, BACKFILL = "cdc_bootstrap", "cdc_backfill"
PINS = dg.AssetKey(["cdc", "pins", "shards"])
BOARDS = dg.AssetKey(["cdc", "pins", "boards"])
OFFSET = {"file": "binlog.000001", "pos": 7, "gtids": "0-1-50", "server_id": 1}


class Sources:
    """Source servers that answer; `purged` are shards whose log does not reach back."""

    def __init__(self) -> None:
        self.purged: set[str] = set()

    def start_offset(self, dataset: Dataset, shard: Shard, own: Identity, position: str) -> Mapping[str, Any]:
        if shard.id in self.purged:
            raise BadInput(f"what follows {position} is purged.", where=f"shard {shard.name}", field="positions")
        return {"file": "", "pos": 4, "gtids": position}

    def drop_slot(self, dataset: Dataset, shard: Shard, own: Identity) -> None: ...

    def publish(self, dataset: Dataset, shard: Shard, own: Identity) -> None: ...

    def check_publication(self, dataset: Dataset, shard: Shard, own: Identity) -> None: ...

    def check(self, dataset: Dataset, shard: Shard) -> None: ...

    def replica_lag(self, dataset: Dataset, shard: Shard) -> float | None:
        return None

    def row_bytes(self, dataset: Dataset, shard: Shard, tables: Sequence[Table]) -> int | None:
        return None

    def key_columns(self, dataset: Dataset, shard: Shard, tables: Sequence[Table]) -> Mapping[str, TableKey]:
        return {}

    def count_rows(self, dataset: Dataset, shard: Shard, table: Table, condition: str | None, seconds: float) -> int:
        return 0

    def settled_transaction(self, dataset: Dataset, shard: Shard) -> int | None:
        return None


class Quiet:
    """Signals, notifications, histories and rates that have nothing to say."""

    def send(self, signals: object) -> None: ...

    def read(self) -> Sequence[Any]:
        return ()

    def close(self) -> None: ...

    def clear_topics(self, names: object) -> None: ...

    def set_rates(self, rates: object) -> None: ...


@contextmanager
def outside(harness: Harness, platform: Platform, sources: Sources | None = None) -> Iterator[SnapshotPorts]:
    """What a snapshot run talks to, in memory."""
    quiet = Quiet()

    def notifications(since: datetime) -> Quiet:
        return quiet

    yield SnapshotPorts(
        platform=platform,
        signals=quiet,
        writer=lambda name: FakeStateStore(harness.state),
        notifications=notifications,
        histories=quiet,
        sources=sources or Sources(),
        rates=quiet,
        live_keys=lambda topic, since: dict.fromkeys(since, 0),
    )


class Snapshots(CodeLocation):
    """A Dagster whose shards stream from now on as soon as a pass has made their connectors."""

    def __init__(self, harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance) -> None:
        super().__init__(resource, instance)
        self.harness = harness
        self.sources = Sources()

    def captured(self) -> None:
        """Passes until nothing is to do; each connector has committed a position."""
        self.cursor = None
        self.quiet()
        for name in self.harness.connect.connectors():
            offset = [{"partition": {"server": name}, "offset": OFFSET}]
            self.harness.connect.model.commit_offsets(name, offset)

    @contextmanager
    def outside(self, platform: Platform) -> Iterator[SnapshotPorts]:
        with outside(self.harness, platform, self.sources) as ports:
            yield ports

    def ask(self) -> dg.SensorResult:
        """One tick of the bootstrap sensor."""
        context = dg.build_sensor_context(instance=self.instance, resources={"cdc_platform": self.resource})
        result = self.defs.get_repository_def().get_sensor_def(SENSOR)(context)
        assert isinstance(result, dg.SensorResult)
        return result

    def launch(self, job: str, tags: Mapping[str, str] | None = None, **config: Any) -> dg.ExecuteInProcessResult:
        """What the launchpad does."""
        return self.defs.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            run_config={"ops": {job.replace("cdc_", "open_"): {"config": config}}},
            tags=dict(tags or {}),
            raise_on_error=False,
        )

    def grant(self, result: dg.SensorResult) -> list[dg.ExecuteInProcessResult]:
        """Run all that a tick asked for."""
        return [
            self.defs.resolve_job_def(str(one.job_name)).execute_in_process(
                instance=self.instance, run_config=one.run_config, tags=dict(one.tags), raise_on_error=False
            )
            for one in result.run_requests or ()
        ]

    @property
    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return FakeStateStore(self.harness.state).read()

    def bootstraps(self, dataset: str = "pins") -> list[dict[str, Any]]:
        """The configurations that a tick asks bootstraps of the dataset with."""
        asked = [one for one in self.ask().run_requests or () if one.tags["cdc/dataset"] == dataset]
        return [one.run_config["ops"]["open_bootstrap"]["config"] for one in asked]


@pytest.fixture
def control(
    harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> Snapshots:
    found = Snapshots(harness, resource, instance)
    monkeypatch.setattr(snapshot_jobs, "open_snapshots", found.outside)
    return found


@pytest.fixture
def latest(control: Snapshots, harness: Harness) -> Snapshots:
    """All datasets start from now on; their shards are captured."""
    harness.put(topology(datasets={"pins": dataset("pins", bootstrap=BootstrapMode.LATEST)}, shards=_pins(3)))
    control.captured()
    return control


def _pins(count: int) -> dict[str, tuple[Shard, ...]]:
    return {"pins": topology(pins=count).shards["pins"]}


def failure(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.user_failure_data:
            return str(event.step_failure_data.user_failure_data.description)
    return ""


def test_the_bootstrap_sensor_is_part_of_the_definitions_and_runs_by_itself(control: Snapshots) -> None:
    sensor = control.defs.get_repository_def().get_sensor_def(SENSOR)
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 60
    assert [job.name for job in sensor.jobs] == [BOOTSTRAP, BACKFILL]
    assert control.ask().skip_reason is not None, "nothing is captured yet"


def test_the_bootstrap_sensor_bootstraps_what_is_captured_and_each_shard_logs_its_partition(latest: Snapshots) -> None:
    (run,) = latest.grant(latest.ask())
    assert run.success
    assert latest.materialized(PINS).count("00001") == 2, "captured, and bootstrapped"
    newest = (
        latest.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=PINS, asset_partitions=["00001"]), limit=1
        )
        .records[0]
        .asset_materialization
    )
    assert newest is not None
    metadata = {key: value.value for key, value in newest.metadata.items()}
    assert metadata["streams_from"] == "0-1-50"
    assert newest.description == "2 of 3 shards. pins.00001: 0 rows in 0 s, streams from 0-1-50."
    assert metadata["mode"] == "latest"
    assert {"rows", "seconds", "run"} <= metadata.keys()
    assert set(watermarks(latest.records, "pins")) == {
        (table, f"{n:05d}") for table in ("pins", "boards") for n in range(3)
    }
    assert latest.ask().skip_reason is not None
    ended = runs(latest.records)[run.run_id]
    assert ended.finished is not None


def test_a_slice_makes_no_pass_of_the_whole_platform(latest: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("a slice needs neither topics nor agents")

    monkeypatch.setattr(FakeKafka, "topics", refuse)
    monkeypatch.setattr(InMemoryTopologyStore, "agents", refuse)
    assert latest.launch(BOOTSTRAP, dataset="pins").success


def test_the_bootstrap_sensor_asks_for_just_the_table_that_is_new(latest: Snapshots, harness: Harness) -> None:
    latest.grant(latest.ask())
    more = dataset(
        "pins", bootstrap=BootstrapMode.LATEST, tables=(*(Table(name=n) for n in ("pins", "boards", "users")),)
    )
    harness.put(topology(datasets={"pins": more}, shards=_pins(4)))
    latest.captured()
    assert latest.bootstraps() == [
        {"dataset": "pins", "shards": ["00003"], "max_parallel_shards": 16},
        {
            "shards": ["00000", "00001", "00002"],
            "max_parallel_shards": 16,
            "mode": "INCREMENTAL",
            "unlisted": {"dataset": "pins", "tables": ["users"]},
        },
    ]
    (run,) = latest.grant(dg.SensorResult(run_requests=(latest.ask().run_requests or [])[:1]))
    assert run.success, failure(run)


def test_what_is_no_longer_captured_is_not_taken_for_bootstrapped(latest: Snapshots, harness: Harness) -> None:
    latest.grant(latest.ask())
    only_pins = dataset("pins", bootstrap=BootstrapMode.LATEST, tables=(Table(name="pins"),))
    harness.put(topology(datasets={"pins": only_pins}, shards=_pins(2)))
    latest.captured()
    assert set(watermarks(latest.records, "pins")) == {("pins", "00000"), ("pins", "00001")}
    harness.put(topology(datasets={"pins": dataset("pins", bootstrap=BootstrapMode.LATEST)}, shards=_pins(3)))
    latest.captured()
    assert [(one["shards"], one.get("tables")) for one in latest.bootstraps()] == [
        (["00000", "00001"], ["boards"]),
        (["00002"], None),
    ]


def test_the_bootstrap_sensor_asks_for_three_runs_at_once_so_that_passes_have_a_slot(
    latest: Snapshots, harness: Harness
) -> None:
    names = [f"d{n:02d}" for n in range(12)]
    found = topology(
        datasets={name: dataset(name, bootstrap=BootstrapMode.LATEST) for name in names},
        shards={name: (shard(name, 0),) for name in names},
    )
    harness.put(found)
    latest.captured()
    asked = []
    while (granted := latest.ask()).run_requests:
        asked.append([one.tags["cdc/dataset"] for one in granted.run_requests])
        waiting = [
            latest.instance.create_run_for_job(
                latest.defs.resolve_job_def(BOOTSTRAP),
                run_config=one.run_config,
                tags={**latest.defs.resolve_job_def(BOOTSTRAP).tags, **one.tags},
                status=dg.DagsterRunStatus.STARTED,
            )
            for one in granted.run_requests
        ]
        assert latest.ask().skip_reason is not None, "three are under way"
        for run in waiting:
            latest.instance.delete_run(run.run_id)
        assert all(run.success for run in latest.grant(granted))
    assert [len(part) for part in asked] == [3, 3, 3, 3]
    assert sorted(name for part in asked for name in part) == names


def test_a_bootstrap_that_is_launched_twice_is_one_run(latest: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    config: dict[str, Any] = {"dataset": "pins", "shards": ["00000-00001"]}
    first = _dies(latest, monkeypatch, **config)
    assert runs(latest.records)[first].finished is None
    other = latest.launch(BOOTSTRAP, dataset="pins", shards=["00001", "00002"])
    assert f"the unfinished run {first} has" in failure(other)
    again = latest.launch(BOOTSTRAP, **config)
    assert again.success
    assert {run.id: run.finished is not None for run in runs(latest.records).values()} == {first: True}
    assert latest.materialized(PINS).count("00001") == 2


def test_the_bootstrap_sensor_goes_on_with_a_run_that_died(latest: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _dies(latest, monkeypatch, dataset="pins", shards=["00000"])
    asked = [one for one in latest.ask().run_requests or () if TAG_RUN in one.tags]
    assert [one.run_config["ops"]["open_bootstrap"]["config"] for one in asked] == [{"continues": first}]
    (run,) = latest.grant(dg.SensorResult(run_requests=asked))
    assert run.success
    assert runs(latest.records)[first].finished is not None


def test_the_bootstrap_sensor_leaves_a_canceled_run_and_one_that_dies_again_and_again_to_a_person(
    latest: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _dies(latest, monkeypatch, dataset="pins", shards=["00000"])
    for _ in range(MOST_CONTINUED):
        (asked,) = [one for one in latest.ask().run_requests or () if TAG_RUN in one.tags]
        with monkeypatch.context() as patched:
            _break(patched)
            latest.grant(dg.SensorResult(run_requests=[asked]))
    assert not [one for one in latest.ask().run_requests or () if TAG_RUN in one.tags]
    assert runs(latest.records)[first].finished is None
    second = _dies(latest, monkeypatch, dataset="pins", shards=["00001"])
    died = latest.instance.get_run_by_id(second)
    assert died is not None
    latest.instance.report_run_canceled(died)
    assert not [one for one in latest.ask().run_requests or () if one.tags.get(TAG_RUN) == second]


def test_bootstrap_and_backfill_of_failed_of_a_run_takes_just_its_failed_shards(latest: Snapshots) -> None:
    latest.sources.purged = {"00001"}
    positions = {f"{n:05d}": "0-1-40" for n in range(3)}
    first = latest.launch(BOOTSTRAP, dataset="pins", mode="POSITION", positions=positions, schema_unchanged=True)
    assert not first.success
    assert f"`failed_of: {first.run_id}` takes the failed ones again" in failure(first)
    assert {shard: state.error for shard, state in shard_states(latest.records, first.run_id).items()} == {
        "00001": "what follows 0-1-40 is purged."
    }
    second = latest.launch(BOOTSTRAP, dataset="pins", failed_of=first.run_id)
    assert second.success
    assert runs(latest.records)[second.run_id].shards == ("00001",)
    unknown = latest.launch(BACKFILL, dataset="pins", failed_of="nothing")
    assert "there is no run 'nothing'" in failure(unknown)


def test_a_wrong_launch_is_one_sentence_and_changes_nothing(latest: Snapshots) -> None:
    before = latest.records
    for job, config, said in (
        (BOOTSTRAP, {"unlisted": {"dataset": "nobody"}}, "there is no dataset 'nobody'"),
        (BOOTSTRAP, {}, "dataset: none is named"),
        (BOOTSTRAP, {"dataset": "pins", "shards": ["00009"]}, "no shard '00009'"),
        (BOOTSTRAP, {"dataset": "pins", "mode": "POSITION"}, "needs a position for each shard"),
        (BOOTSTRAP, {"dataset": "pins", "lost": True}, "no shard of pins has lost its position"),
        (BACKFILL, {"unlisted": {"dataset": "pins", "tables": ["nobody"]}}, "nobody"),
        (BACKFILL, {"dataset": "pins", "key_column": "id"}, "open on both sides"),
        (BACKFILL, {"dataset": "pins", "continues": "r9"}, "'r9' is no run"),
    ):
        result = latest.launch(job, **config)
        assert not result.success
        assert said in failure(result), failure(result)
    with pytest.raises(dg.DagsterInvalidConfigError, match="not in enum type"):
        latest.launch(BACKFILL, dataset="nobody")
    assert not latest.launch(BACKFILL, dataset="pins", max_parallel_shards=0).success
    assert latest.records == before


class Statistics:
    """A catalog that knows so many rows of each table; `away` are shards that do not answer."""

    def __init__(self, rows: int, away: set[str]) -> None:
        self.rows = rows
        self.away = away

    def read(self, dataset: Dataset, shard: Shard) -> Mapping[str, CatalogTable]:
        if shard.id in self.away:
            raise SourceUnavailable("no answer.")
        return {table.name: CatalogTable(place="", name=table.name, rows=self.rows) for table in dataset.tables}


@pytest.fixture
def statistics(monkeypatch: pytest.MonkeyPatch) -> Statistics:
    found = Statistics(6_000, set())
    monkeypatch.setattr(snapshot_jobs, "catalog_of", lambda settings: found)
    return found


def test_dagster_a_rehearsal_says_shards_rows_and_hours_and_changes_nothing(
    latest: Snapshots, statistics: Statistics
) -> None:
    before = latest.records
    statistics.away = {"00002"}
    found = latest.launch(BACKFILL, dataset="pins", rehearse=True, max_rows_per_s=10, tables=["pins"])
    assert found.success, failure(found)
    assert (latest.records, latest.materialized(PINS).count("00001")) == (before, 1)
    observation = latest.observation(PINS)
    assert observation.description == (
        "Rehearsal: Would backfill 3 shards of pins on 3 hosts, tables pins, 16 shards at once. "
        "About 18,000 rows by the statistics of 2 shards. At 10 rows a second that takes 30 min. "
        "pins.00002 does not answer: no answer."
    )
    numbers = {name: value.value for name, value in observation.metadata.items()}
    assert numbers == {"shards": 3, "hosts": 3, "rows": 18_000, "hours": 0.5, "first_shards": "00000, 00001, 00002"}


def test_dagster_a_rehearsal_is_refused_as_the_run_would_be(latest: Snapshots, statistics: Statistics) -> None:
    refused = latest.launch(BOOTSTRAP, dataset="pins", rehearse=True, shards=["00009"])
    assert "no shard '00009'" in failure(refused)
    first = latest.launch(BOOTSTRAP, dataset="pins", rehearse=True)
    assert first.success
    assert "No row is read" in str(latest.observation(PINS).description), "mode latest"


def test_dagster_launchpads_open_filled_in_and_offer_what_there_is(latest: Snapshots, statistics: Statistics) -> None:
    repository = latest.defs.get_repository_def()
    for job in (BOOTSTRAP, BACKFILL):
        opened = latest.defs.resolve_job_def(job)
        schema: Any = opened.run_config_schema.config_type
        fields = schema.fields["ops"].config_type.fields[job.replace("cdc_", "open_")].config_type.fields
        offered = fields["config"].config_type.fields["dataset"].config_type.inner_type
        assert [value.config_value for value in offered.enum_values] == ["orders", "pins"]
        launched = opened.execute_in_process(
            instance=latest.instance,
            run_config={"ops": {job.replace("cdc_", "open_"): {"config": {"dataset": "pins", "rehearse": True}}}},
        )
        assert launched.success
    preset = {name: repository.get_job(f"cdc_{name}").run_config for name in ("backfill", "verify", "repair")}
    assert preset == {
        "backfill": _opens("open_backfill", shards=[], tables=[], rehearse=True),
        "verify": _opens("plan_verification", shards=[], tables=[]),
        "repair": _opens("plan_repair", table="orders", shards=[], apply=False),
    }


def _opens(op: str, **config: Any) -> dict[str, Any]:
    return {"ops": {op: {"config": {"dataset": "orders", **config}}}}


def test_a_stopped_run_ends_with_its_shards_failed_and_a_new_one_may_begin(
    latest: Snapshots, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _dies(latest, monkeypatch, dataset="pins", shards=["00000"])
    with harness.platform() as platform, latest.outside(platform) as outside:
        run_lifecycle.order(outside, first, RequestedState.STOPPED)
    stopped = latest.launch(BOOTSTRAP, dataset="pins", continues=first)
    assert not stopped.success
    assert shard_states(latest.records, first)["00000"].error == "stopped by hand"
    assert latest.launch(BOOTSTRAP, dataset="pins", shards=["00000"]).success


def test_a_run_whose_dataset_is_gone_comes_to_an_end(
    latest: Snapshots, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _dies(latest, monkeypatch, dataset="pins", shards=["00000"])
    harness.put(replace(topology(), datasets={"orders": topology().datasets["orders"]}, shards={}))
    ended = latest.launch(BOOTSTRAP, dataset="pins", continues=first)
    assert not ended.success
    assert runs(latest.records)[first].finished is not None
    assert shard_states(latest.records, first)["00000"].error == "its dataset is no longer in the topology"


def test_a_run_whose_shards_are_all_gone_comes_to_an_end(
    latest: Snapshots, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _dies(latest, monkeypatch, dataset="pins", shards=["00002"])
    harness.put(topology(datasets={"pins": dataset("pins", bootstrap=BootstrapMode.LATEST)}, shards=_pins(2)))
    ended = latest.launch(BOOTSTRAP, dataset="pins", continues=first)
    assert not ended.success
    assert shard_states(latest.records, first)["00002"].error == "it is no longer in the topology"


def _dies(control: Snapshots, monkeypatch: pytest.MonkeyPatch, **config: Any) -> str:
    """A bootstrap whose process is gone before it has done anything; its name."""
    with monkeypatch.context() as patched:
        _break(patched)
        died = control.launch(BOOTSTRAP, **config)
    assert not died.success
    return died.run_id


def _break(patched: pytest.MonkeyPatch) -> None:
    def work_slice(outside: SnapshotPorts, run: Run, number: int, listener: object) -> None:
        raise KafkaUnavailable("no broker answers.")

    patched.setattr(snapshot_jobs, "work_slice", work_slice)

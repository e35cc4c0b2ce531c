"""The demo from nothing to its summary."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx

from cdc_platform.documents import load_yaml
from cdc_platform.documents.project_files import repository_file
from cdc_platform.errors import StackError
from cdc_platform.local import artifacts
from cdc_platform.local.demo import sources
from cdc_platform.local.demo.count import Judge
from cdc_platform.local.demo.dagster import DagsterProcesses
from cdc_platform.local.demo.localized_topology import localized
from cdc_platform.local.demo.summary import DagsterSummary, DatasetSummary, Summary
from cdc_platform.local.demo.writing import Writer
from cdc_platform.local.lifecycle import down, up
from cdc_platform.local.stack import Stack, StackSpec
from cdc_platform.model.topology import Engine
from cdc_platform.wiring import topology_store


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What demo to run.

    `seed_rows` are written to each shard before it is captured, `changes` once
    it is, `rate` is changes a second over all shards. Without `until_done` it
    goes on until interrupted. `patience` is how many seconds a phase may take. `engine` (MariaDB or MySQL) has the
    dataset `pins`.
    """

    directory: Path | None = None
    workers: int = 3
    seed_rows: int = 40
    changes: int = 120
    rate: float = 200.0
    until_done: bool = False
    patience: float = 240.0
    secure: bool = False
    engine: Engine = Engine.MARIADB


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the live display shows."""

    phase: str
    dagster: str
    shards: Mapping[str, int]
    running: Mapping[str, int]
    changes: int
    events: Mapping[str, int]
    rate: float
    seconds: float


class Screen(Protocol):
    """Where the demo shows what happens."""

    def say(self, text: str) -> None:
        """One sentence about a phase."""

    def show(self, figures: Figures) -> None:
        """The figures now."""

    def downloading(self) -> artifacts.Progress | None:
        """Where the progress of downloads goes; None shows none."""


@dataclass
class _Clock:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


def run_demo(options: DemoOptions, screen: Screen) -> Summary | None:
    """Run it, and leave nothing behind.

    Returns:
        The summary; None when it was interrupted before there was one.

    Raises:
        StackError: a part did not come up or a phase took too long.
    """
    with contextlib.ExitStack() as cleanup:
        directory = options.directory
        if directory is None:
            directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="cdc-demo-")))
            # The parent of what another user's Postgres must reach.
            directory.chmod(0o755)
        home = directory / "stack"
        clock = _Clock()
        with clock.phase("stack"):
            server = {Engine.MARIADB: "MariaDB", Engine.MYSQL: "MySQL"}[options.engine]
            screen.say(f"Starting Kafka, Connect, ZooKeeper, {server} and Postgres below {home}.")
            spec = StackSpec(
                directory=home,
                workers=options.workers,
                owned=True,
                secure=options.secure,
                mariadb=options.engine is Engine.MARIADB,
                mysql=options.engine is Engine.MYSQL,
            )
            stack = up(spec, progress=screen.downloading())
            cleanup.callback(down, home, purge=True)
        try:
            return _Demo(options, screen, stack, clock).run()
        except StackError as error:
            # The stack goes with all its files, but the logs are needed to find out why.
            kept = Path(tempfile.mkdtemp(prefix="cdc-demo-logs-"))
            shutil.copytree(home / "logs", kept, dirs_exist_ok=True)
            raise StackError(error.message, where=str(kept), cure=error.cure) from error


def refuse_dead_writers(errors: Sequence[BaseException]) -> None:
    """Raises StackError when a writer ended before its last change: the count would hold over fewer changes."""
    if errors:
        raise StackError(
            f"a writer of the demo ended before its last change: {type(errors[0]).__name__}: {errors[0]}",
            cure="See in the logs why its database went away, and start the demo again.",
        ) from errors[0]


class _Demo:
    def __init__(self, options: DemoOptions, screen: Screen, stack: Stack, clock: _Clock) -> None:
        self.options = options
        self.screen = screen
        self.stack = stack
        self.clock = clock
        self.rest = stack.rest(timeout=10.0)
        self.ledger = sources.Ledger()
        self.topology = localized(load_yaml(repository_file("examples/topology.yaml")), stack, options.engine)
        self.shops = self._shops()
        self.stop = threading.Event()
        self.finish = threading.Event()
        self.captured: set[str] = set()
        self.errors: list[BaseException] = []
        self.started = time.monotonic()
        self.dagster = DagsterProcesses(stack)
        self.judge = Judge(stack.kafka_client, [d.topic(t) for d in self.topology.datasets.values() for t in d.tables])

    def run(self) -> Summary | None:
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(self.judge.close)
            cleanup.callback(self.rest.close)
            with self.clock.phase("sources"):
                self.screen.say("Making two sharded databases and their first rows.")
                self._create_sources()
            with self.clock.phase("topology"):
                store = topology_store(self.stack.settings())
                cleanup.callback(store.close)
                store.import_topology(self.topology)
            writers = [
                threading.Thread(target=self._write, args=(engine,), name=f"write-{engine}")
                for engine in self.engines()
            ]
            cleanup.callback(self._end_writers, writers)
            for writer in writers:
                writer.start()
            with self.clock.phase("dagster"):
                self.screen.say("Starting Dagster: webserver and daemon.")
                self.dagster.start()
                self.screen.say(f"Dagster: {self.dagster.address}")
            with self.clock.phase("reconcile"):
                self.screen.say("Waiting for the sensor to reconcile.")
                self._until(lambda: sum(self._running().values()) == len(self.shops), "every connector runs")
                self._until(lambda: self.captured >= self.shops.keys(), "every shard sent its first event")
            if not self.options.until_done:
                self.screen.say(f"All shards are captured. Ctrl-C ends the demo.\n{self._guide()}")
                while not self.errors:
                    self._step("live")
                raise self.errors[0]
            with self.clock.phase("changes"):
                self.screen.say("Inserting, updating and deleting while everything runs.")
                for writer in writers:
                    while writer.is_alive():
                        self._step("writing")
                refuse_dead_writers(self.errors)
            with self.clock.phase("count"):
                self.screen.say("Counting what arrived.")
                with contextlib.suppress(StackError):
                    self._until(self._complete, "every change arrived")
                    self._until(self._shown, "Dagster shows every shard as captured")
            with self.clock.phase("summary"):
                return self._summary()

    def _guide(self) -> str:
        """Where everything is, and what to try: commands for another terminal, as they stand."""
        own = Path(sys.argv[0]).resolve()
        found = shutil.which("cdc-platform")
        program = "cdc-platform" if found and Path(found).resolve() == own else str(own)
        removed = "" if self.options.directory else ", removed when the demo ends"
        return f"""
  Dagster   {self.dagster.address}  (Assets: a table each, with checks; Runs: what the platform did)
  Files     {self.stack.directory}  (logs below logs/{removed})
  Settings  {self.stack.settings_file}

In another terminal, try:
  {program} --demo status
      shards, workers, and what the next pass will do
  {program} --demo verify pins --table pins
      the proof that the topic has every row, while rows keep changing
  curl -X PUT {self.stack.connect_urls[0]}/connectors/pins.00003/stop
      breaks a shard: `{program} --demo status pins 3` shows it, and within a minute it is captured again
`export CDC_PLATFORM_CONFIG={self.stack.settings_file}` stands for --demo in programs.
"""

    def engines(self) -> set[Engine]:
        return {dataset.engine for dataset in self.topology.datasets.values()}

    def _shops(self) -> dict[str, sources.Shop]:
        kinds = {"pins": sources.PinShop, "orders": sources.OrderShop}
        return {
            shard.name: kinds[dataset.name](shard.name, self.ledger, seed)
            for seed, (dataset, shard) in enumerate(self.topology.all_shards())
        }

    def _create_sources(self) -> None:
        for dataset in self.topology.datasets.values():
            databases = [shard.database for shard in self.topology.shards[dataset.name]]
            script = repository_file(f"examples/sql/{dataset.name}.sql").read_text()
            login = self.stack.admin(dataset.engine)
            server = self.stack.primary(dataset.engine)
            if dataset.engine is Engine.POSTGRES:
                sources.create_postgres(server, login, databases, script, reader="cdc")
            else:
                sources.create_mariadb(server, login, databases, script)
        for dataset, shard in self.topology.all_shards():
            with self._cursor(dataset.engine, shard.database) as cursor:
                for _ in range(self.options.seed_rows):
                    self.shops[shard.name].insert(cursor)

    def _cursor(self, engine: Engine, database: str) -> contextlib.AbstractContextManager[sources.DemoCursor]:
        login = self.stack.admin(engine)
        if engine is Engine.POSTGRES:
            return sources.postgres(self.stack.primary(engine), login, database)
        return sources.mariadb(self.stack.primary(engine), login, database)

    def _write(self, engine: Engine) -> None:
        databases = {
            shard.name: shard.database for dataset, shard in self.topology.all_shards() if dataset.engine is engine
        }
        writer = Writer(
            shops={name: self.shops[name] for name in databases},
            open=lambda name: self._cursor(engine, databases[name]),
            captured=self.captured,
            stop=self.stop,
            pause=len(self.shops) / max(self.options.rate, 1.0),
            changes=self.options.changes if self.options.until_done else None,
            patience=self.options.patience,
        )
        try:
            writer.write()
        except BaseException as error:
            self.errors.append(error)
            raise

    def _end_writers(self, writers: list[threading.Thread]) -> None:
        self.stop.set()
        for writer in writers:
            writer.join(timeout=30)

    def _running(self) -> dict[str, int]:
        """Connectors whose task runs, by dataset; asked of Connect itself, not of the platform."""
        found = dict.fromkeys(self.topology.datasets, 0)
        for url in self.stack.connect_urls:
            with contextlib.suppress(httpx.HTTPError):
                reply = self.rest.get(f"{url}/connectors", params={"expand": "status"})
                for name, connector in reply.raise_for_status().json().items():
                    tasks = connector["status"]["tasks"]
                    dataset = name.partition(".")[0]
                    if dataset in found and tasks and all(task["state"] == "RUNNING" for task in tasks):
                        found[dataset] += 1
                return found
        return found

    def _step(self, phase: str) -> None:
        before, at = sum(self.judge.count.events.values()), time.monotonic()
        self.judge.read(1.0)
        self.captured |= self.judge.shards
        events = self.judge.count.events
        elapsed = max(time.monotonic() - at, 0.001)
        if elapsed < 0.5:
            self.stop.wait(0.5 - elapsed)
        shards = {name: len(rows) for name, rows in self.topology.shards.items()}
        self.screen.show(
            Figures(
                phase=phase,
                dagster=self.dagster.address,
                shards=shards,
                running=self._running(),
                changes=sum(self.ledger.by_kind.values()),
                events=dict(events),
                rate=(sum(events.values()) - before) / max(elapsed, 0.5),
                seconds=time.monotonic() - self.started,
            )
        )

    def _until(self, done: object, what: str) -> None:
        assert callable(done)
        end = time.monotonic() + self.options.patience
        while not done():
            if self.errors:
                raise self.errors[0]
            if time.monotonic() > end:
                raise StackError(
                    f"after {self.options.patience:.0f} s it still does not hold that {what}.",
                    where=str(self.stack.directory / "logs"),
                    cure="Read the logs there, or give it more time with --wait.",
                )
            self._step(what)

    def _complete(self) -> bool:
        return self.ledger.snapshot() <= self.judge.count.distinct

    def _shown(self) -> bool:
        return self.dagster.materialized_partitions() >= sum(map(len, self.topology.shards.values()))

    def _source_rows(self) -> dict[str, int]:
        rows = dict.fromkeys(self.topology.datasets, 0)
        for dataset, shard in self.topology.all_shards():
            with self._cursor(dataset.engine, shard.database) as cursor:
                for table in dataset.tables:
                    cursor.execute(f"SELECT COUNT(*) FROM {table.name}")
                    rows[dataset.name] += int(cursor.fetchall()[0][0])
        return rows

    def _summary(self) -> Summary:
        written, count = self.ledger.snapshot(), self.judge.count
        running, rows = self._running(), self._source_rows()
        datasets = {}
        for name, dataset in self.topology.datasets.items():
            tables = {table.name for table in dataset.tables}
            mine = {change for change in written if change[1] in tables}
            seen = {change for change in count.distinct if change[1] in tables}
            datasets[name] = DatasetSummary(
                engine=str(dataset.engine),
                shards=len(self.topology.shards[name]),
                connectors_running=running[name],
                changes_written=len(mine),
                events_seen=sum(n for table, n in count.events.items() if table in tables),
                distinct=len(seen),
                missing=len(mine - seen),
                unexpected=len(seen - mine),
                source_rows=rows[name],
                topic_rows=sum(n for table, n in count.live_rows().items() if table in tables),
            )
        runs = self.dagster.runs()
        dagster = DagsterSummary(
            address=self.dagster.address,
            reconcile_runs=runs.count("SUCCESS"),
            failed_runs=runs.count("FAILURE"),
            ticks=self.dagster.ticks(),
            materialized_partitions=self.dagster.materialized_partitions(),
        )
        return Summary(
            datasets=datasets, dagster=dagster, changes=dict(self.ledger.by_kind), seconds=dict(self.clock.seconds)
        )

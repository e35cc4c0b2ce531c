"""A bootstrap of many shards through Dagster, and a screenshot of its run page.

    python -m benchmarks.run_page [--shards 100] [--rows 300] [--at 0.6] [--picture FILE] [--stack DIR]

The run page is to read like a progress report. The picture is taken by a headless Chromium once so
much of the run is done, and a second one (FILE with `-end`) when it is over.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cdc_platform.connectors.leader_files import LeaderFile, file_name, render
from cdc_platform.local.demo import sources
from cdc_platform.local.ports import chosen
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Dataset, Engine, Shard, Table, TopicSpec, Topology
from cdc_platform.settings import Settings
from cdc_platform.snapshots.run_records import Phase, runs, shard_states
from cdc_platform.wiring import open_platform
from tests.conftest import own_stack
from tests.snapshots.dagster_outside import OutsideDagster

TABLE = "CREATE TABLE {} (id BIGINT NOT NULL PRIMARY KEY, title VARCHAR(80) NULL)"
TABLES = ("pins", "boards")
LIMIT = 1800.0
SIZE = "1500,1050"


def main(arguments: list[str]) -> int:
    """Prints where the pictures are, and `goal met` when the run succeeded with all shards."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run_page", description=__doc__)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--rows", type=int, default=300, help="of each table of each shard")
    parser.add_argument("--at", type=float, default=0.6, help="the part of all shards after which to take the first")
    parser.add_argument("--picture", type=Path, default=Path("run-page.png"))
    parser.add_argument("--stack", type=Path, help="use the running stack of this directory")
    asked = parser.parse_args(arguments)
    with contextlib.ExitStack() as ending:
        stack = Stack.load(asked.stack) if asked.stack else ending.enter_context(own_stack(workers=2, postgres=False))
        name = f"pins{secrets.token_hex(2)}"
        settings = replace(
            stack.settings(), platform=name, zookeeper_root=f"/{name}", state_topic=f"cdc.{name}.state",
            heartbeat_topic=f"cdc.{name}.heartbeat",
        )  # fmt: skip
        topology = _topology(stack, asked.shards)
        _fill(stack, topology, asked.rows)
        ending.enter_context(_alive(stack, topology))
        ending.callback(_clean, stack, settings, topology)
        with open_platform(settings) as platform:
            platform.topology.import_topology(topology)
        home = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="cdc-run-page-")))
        dagster = OutsideDagster(home=home / "dagster", settings=settings)
        ending.callback(dagster.end)
        with chosen(["web"], fixed={}, before={}) as ports:
            port = ports["web"]
        dagster.webserver(port)
        config = {"dataset": "pins", "max_parallel_shards": 25, "max_parallel_per_host": 25}
        process = dagster.execute("bootstrap", config)
        run_id = _until_done(settings, asked.at)
        address = f"http://127.0.0.1:{port}/runs/{run_id}?levels=critical%7Cerror%7Cinfo%7Cwarning"
        _picture(address, asked.picture)
        code = process.wait(timeout=LIMIT)
        _picture(address, asked.picture.with_stem(asked.picture.stem + "-end"))
        with open_platform(settings) as platform:
            run = runs(platform.state.read())[run_id]
        met = code == 0 and run.finished is not None and run.failed == 0
        seconds = (run.finished - run.created).total_seconds() if run.finished else LIMIT
        print(f"{len(run.shards)} shards in {seconds:.0f} s; pictures: {asked.picture} and -end")
        print("goal met" if met else f"goal missed: exit code {code}, {run.failed} shards failed")
        return 0 if met else 1


def _topology(stack: Stack, count: int) -> Topology:
    dataset = Dataset(
        name="pins",
        engine=Engine.MARIADB,
        tables=tuple(Table(name=table) for table in TABLES),
        clusters=(stack.cluster().name,),
        credentials=stack.credentials(Engine.MARIADB, "pins"),
        topics=TopicSpec(partitions=4, replication=1),
    )
    mark = secrets.token_hex(2)
    shards = tuple(
        Shard(dataset="pins", id=f"{n:05d}", leader=stack.mariadb_primary, database=f"page_{mark}_{n:05d}")
        for n in range(count)
    )
    cluster = stack.cluster()
    return Topology(datasets={"pins": dataset}, shards={"pins": shards}, clusters={cluster.name: cluster})


def _fill(stack: Stack, topology: Topology, rows: int) -> None:
    """Databases with unequal numbers of rows, and the leader files that the agents would write."""
    admin = stack.admin(Engine.MARIADB)
    for number, shard in enumerate(topology.shards["pins"]):
        with sources.mariadb(stack.mariadb_primary, admin) as cursor:
            cursor.execute(f"CREATE DATABASE {shard.database}")
            for table in TABLES:
                cursor.execute(TABLE.format(f"{shard.database}.{table}"))
                values = ",".join(f"({n},'title {n}')" for n in range(1, rows + 7 * number % rows + 1))
                cursor.execute(f"INSERT INTO {shard.database}.{table} VALUES {values}")
        text = render(LeaderFile(leader=shard.leader, generation=shard.generation))
        for worker in stack.workers:
            (stack.directory / "workers" / worker / "leaders" / file_name(shard.name)).write_text(text)


@contextlib.contextmanager
def _alive(stack: Stack, topology: Topology) -> Iterator[None]:
    """Some shard gets a write every half second, as in life."""
    over = threading.Event()

    def write() -> None:
        shards = topology.shards["pins"]
        with sources.mariadb(stack.mariadb_primary, stack.admin(Engine.MARIADB)) as cursor:
            number = 0
            while not over.wait(0.5):
                number += 1
                shard = shards[number * 37 % len(shards)]
                cursor.execute(f"UPDATE {shard.database}.pins SET title = 'write {number}' WHERE id = 1")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _clean(stack: Stack, settings: Settings, topology: Topology) -> None:
    with open_platform(settings) as platform:
        connect = platform.connect(stack.cluster())
        for shard in topology.shards["pins"]:
            connect.delete(shard.name)
    with sources.mariadb(stack.mariadb_primary, stack.admin(Engine.MARIADB)) as cursor:
        for shard in topology.shards["pins"]:
            cursor.execute(f"DROP DATABASE IF EXISTS {shard.database}")


def _until_done(settings: Settings, part: float) -> str:
    """The name of the one run, once so much of it is done."""
    end = time.monotonic() + LIMIT
    with open_platform(settings) as platform:
        while time.monotonic() < end:
            records = platform.state.read()
            for run in runs(records).values():
                done = sum(state.phase is Phase.DONE for state in shard_states(records, run.id).values())
                if run.finished is not None or done >= part * len(run.shards):
                    return run.id
            time.sleep(1.0)
    raise RuntimeError("the run does not come so far")


def _picture(address: str, path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        print(f"No Chromium: look at {address} yourself.")
        return
    with tempfile.TemporaryDirectory(prefix="cdc-chromium-") as profile:
        subprocess.run(
            [
                browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={profile}", f"--window-size={SIZE}", "--virtual-time-budget=20000",
                f"--screenshot={path.resolve()}", address,
            ],
            check=True,
            timeout=180,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

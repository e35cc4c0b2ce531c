"""The demo as a user runs it: a process of its own, judged by what it prints and leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from cdc_platform.errors import StackError
from cdc_platform.local.demo.count import TopicCount
from cdc_platform.local.demo.run import refuse_dead_writers
from cdc_platform.local.demo.summary import DagsterSummary, DatasetSummary, Summary
from tests.conftest import require_mysql

COMMAND = str(Path(sys.executable).parent / "cdc-platform")


def processes_of(directory: Path) -> list[str]:
    """Command lines of live processes that name the directory in their arguments, place or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            text = " ".join([*process.cmdline(), process.cwd(), *process.environ().values()])
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if str(directory) in text and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
            found.append(f"{process.pid} {' '.join(process.cmdline())[:120]}")
    return found


@pytest.mark.stack
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="plain"),
        pytest.param(["--secure"], id="secure", marks=pytest.mark.slow),
        pytest.param(["--engine", "mysql"], id="mysql", marks=pytest.mark.slow),
    ],
)
def test_demo_sees_every_change_and_leaves_nothing_behind(
    tmp_path_factory: pytest.TempPathFactory, options: list[str]
) -> None:
    if "mysql" in options:
        require_mysql()
    place = tmp_path_factory.mktemp("demo")
    for part in (place, place.parent):
        part.chmod(0o755)
    unpacked = set(Path(tempfile.gettempdir()).glob("liblz4-java-*"))
    done = subprocess.run(
        [COMMAND, "demo", "--exit", "--json", "--dir", str(place), *options],
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    summary = json.loads(done.stdout)
    assert (summary["ok"], summary["datasets"], summary["shards"], summary["connectors"]) == (True, 2, 12, 12)
    assert summary["missing"] == 0
    for dataset in summary["by_dataset"].values():
        assert dataset["changes_written"] == dataset["distinct"] > 500
        assert dataset["source_rows"] == dataset["topic_rows"] > 0
    assert set(summary["changes"]) == {"insert", "update", "delete"}
    assert summary["dagster"]["reconcile_runs"] >= 1
    assert summary["dagster"]["materialized_partitions"] == 12
    assert processes_of(place) == []
    assert set(Path(tempfile.gettempdir()).glob("liblz4-java-*")) <= unpacked
    assert list(place.iterdir()) == []


def _dataset(**changes: int) -> DatasetSummary:
    figures = {
        "shards": 8,
        "connectors_running": 8,
        "changes_written": 100,
        "events_seen": 105,
        "distinct": 100,
        "missing": 0,
        "unexpected": 0,
        "source_rows": 40,
        "topic_rows": 40,
    }
    return DatasetSummary(engine="mariadb", **(figures | changes))


DAGSTER = {"address": "http://x", "reconcile_runs": 1, "failed_runs": 0, "ticks": 2, "materialized_partitions": 24}


def test_demo_is_ok_when_all_holds() -> None:
    assert Summary(datasets={"pins": _dataset()}, dagster=DagsterSummary(**DAGSTER), changes={}).ok  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"connectors_running": 7},
        {"missing": 1, "distinct": 99},
        {"unexpected": 1},
        {"distinct": 101},
        {"topic_rows": 41},
    ],
)
def test_demo_is_not_ok_when_one_figure_is_wrong(wrong: dict[str, int]) -> None:
    datasets = {"pins": _dataset(), "orders": _dataset(**wrong)}
    assert not Summary(datasets=datasets, dagster=DagsterSummary(**DAGSTER), changes={}).ok  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"reconcile_runs": 0}, {"ticks": 0}, {"materialized_partitions": 0}, {"failed_runs": 1}]
)
def test_demo_is_not_ok_when_it_bypassed_dagster(wrong: dict[str, int]) -> None:
    dagster = DagsterSummary(**(DAGSTER | wrong))  # type: ignore[arg-type]
    assert not Summary(datasets={"pins": _dataset()}, dagster=dagster, changes={}).ok


def test_demo_fails_when_a_writer_died_before_its_last_change() -> None:
    refuse_dead_writers([])
    with pytest.raises(StackError, match="ended before its last change: ConnectionError: gone"):
        refuse_dead_writers([ConnectionError("gone")])


def test_demo_counts_live_rows_by_table() -> None:
    count = TopicCount(live={("pins.00000", "pins", (1,)): 3, ("pins.00001", "pins", (1,)): 4})
    assert count.live_rows() == {"pins": 2}

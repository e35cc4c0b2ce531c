"""`cdc-platform lake`: runs, time travel and upkeep from the shell, on a lake in a directory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cdc_platform.cli import lake as commands
from cdc_platform.cli.main import main
from cdc_platform.clients.platform import Platform
from cdc_platform.settings import Settings
from cdc_platform.verification.audit_frame import AuditFrame
from tests.verification.proof.memory import MemoryWorld

Run = Callable[..., Result]


@pytest.fixture
def world(tmp_path: Path) -> MemoryWorld:
    (tmp_path / "lake").mkdir()
    lake = {"catalog": f"sqlite:///{tmp_path}/lake/c.db", "warehouse": f"file://{tmp_path}/lake", "buckets": 2}
    made = MemoryWorld(tmp_path / "cache", shards=("00000", "00001"), more={"lake": lake})
    made.cache.mkdir()
    for key in range(20):
        made.tables["00000"].put(key, f"row {key}")
        made.tables["00001"].put(key, f"row {key}")
    return made


@pytest.fixture
def run(world: MemoryWorld, monkeypatch: pytest.MonkeyPatch) -> Run:
    outside = world.outside()

    @contextmanager
    def platform(settings: Any) -> Iterator[Platform]:
        yield outside.platform

    monkeypatch.setattr(commands, "open_platform", platform)
    monkeypatch.setattr(commands, "verification_of", lambda found: outside)
    monkeypatch.setattr(Settings, "load", lambda: outside.platform.settings)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["lake", *arguments], env={"COLUMNS": "200"})

    return call


def test_lake_run_says_what_it_wrote_and_at_what_was_proven_of_it(world: MemoryWorld, run: Run) -> None:
    AuditFrame(world.outside().platform.settings.audit_dir).write(world.verify_all())
    assert run("run", "d").output == "t: run 1, 40 events; 2 buckets merged.\n"
    world.table.put(1, "later")
    [second] = json.loads(run("run", "d", "--json").output)["runs"]
    assert (second["run"], second["events"], second["merged"]) == (2, 1, [])
    assert run("run", "d").output == "t: run 2, nothing new; 0 buckets merged.\n"
    first = json.loads(run("at", "d.t", "--shard", "00000", "--position", "0-1-20", "--json").output)
    assert first["run"] == 1
    assert {shard["topic_proven_to"] for shard in first["shards"]} == {"0-1-20"}
    assert "run 2" in run("at", "d.t", "--shard", "00000", "--position", "0-1-21").output
    now = run("at", "d.t", "--time", "2999-01-01").output
    assert "run 2" in now
    assert "00000: all changes up to 0-1-21; topic proven up to 0-1-20." in now


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("at", "d.t"), "one of --position and --time is needed"),
        (("at", "d.t", "--time", "noon"), "'noon' is not a time"),
        (("at", "d.t", "--time", "2000-01-01"), "the lake had no rows of d.t at 2000-01-01"),
        (("at", "d.t", "--position", "0-1-1"), "a position is one shard's"),
        (("at", "d.t", "--shard", "00000", "--position", "0-1-99"), "the lake has not got to 0-1-99 yet"),
        (("run", "d", "--table", "x"), "x"),
        (("erase", "d.t", "--shard", "00000", "--key", "1"), "this ends time travel"),
        (("erase", "d.t", "--shard", "00000", "--key", "1", "--yes"), "still has the row 1 of shard 00000"),
    ],
    ids=lambda found: "-".join(found) if isinstance(found, tuple) else "",
)
def test_lake_commands_answer_a_wrong_input_in_a_sentence(run: Run, arguments: tuple[str, ...], said: str) -> None:
    run("run", "d")
    found = run(*arguments)
    assert found.exit_code not in (0, None)
    assert said in str(found.exception) + found.output


def test_lake_upkeep_says_what_went_and_that_the_rows_are_as_before(world: MemoryWorld, run: Run) -> None:
    run("run", "d")
    world.table.delete(3)
    run("run", "d")
    assert run("compact", "d").output == "t: 2 files of changes before, 1 now; all 39 rows as before.\n"
    assert run("expire", "d").output == "t: 0 snapshots and 0 files removed; all 39 rows as before.\n"
    [gone] = json.loads(run("expire", "d", "--keep-days", "0", "--json").output)["tables"]
    assert gone["snapshots"] > 1 and gone["files_removed"] > 1
    said = run("erase", "d.t", "--shard", "00000", "--key", "3", "--yes").output
    assert "all 39 rows as before" in said
    assert "run 2" in run("at", "d.t", "--time", "2999-01-01").output


def test_lake_of_a_dataset_without_one_is_a_sentence(world: MemoryWorld, run: Run) -> None:
    world.more = {}
    found = run("run", "d")
    assert "lands in a lake" in str(found.exception) + found.output
    assert replace(world).more == {}

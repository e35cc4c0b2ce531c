"""What was spelled otherwise before 0.2 still works, and says on stderr what to write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cdc_platform.cli import run_progress, snapshot
from cdc_platform.cli.main import main
from cdc_platform.cli.verify import exit_code
from cdc_platform.errors import StackError
from cdc_platform.local.demo import running
from cdc_platform.settings import OLD_EXITS_ENV, Settings
from cdc_platform.verification.proof.verdicts import Verdict
from tests.defs.harness import Harness

RUN = SimpleNamespace(id="r1", kind="backfill", dataset="pins")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What a snapshot run was ordered to do: its name and the wanted state."""
    seen: list[tuple[str, str]] = []
    harness = Harness(settings=Settings())

    def order(ports: Any, name: str, wanted: Any) -> Any:
        seen.append((name, str(wanted)))
        return RUN

    for module in (run_progress, snapshot):
        monkeypatch.setattr(module, "open_platform", lambda settings: harness.platform())
        monkeypatch.setattr(module, "open_snapshots", lambda platform: _Within(SimpleNamespace(platform=platform)))
    monkeypatch.setattr("cdc_platform.cli.run_progress.run_lifecycle.order", order)
    monkeypatch.setattr(run_progress, "work", lambda ports, run, *, as_json: seen.append((run.id, "worked on")))
    return seen


class _Within:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __enter__(self) -> Any:
        return self.value

    def __exit__(self, *exc: object) -> None:
        pass


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


@pytest.mark.parametrize(
    ("verb", "flag", "states"),
    [
        ("pause", "--pause", [("r1", "paused")]),
        ("resume", "--resume", [("r1", "running")]),
        ("stop", "--stop", [("r1", "stopped"), ("r1", "worked on")]),
    ],
)
def test_orders_to_a_snapshot_run_are_commands_and_were_options(
    asked: list[tuple[str, str]], verb: str, flag: str, states: list[tuple[str, str]]
) -> None:
    now = run("snapshot", verb, "r1")
    assert (now.exit_code, now.stderr, asked) == (0, "", states)
    asked.clear()
    for command in ("bootstrap", "backfill"):
        before = run(command, flag, "r1")
        assert (before.exit_code, before.stdout) == (0, now.stdout)
        assert before.stderr == f"Note: write `snapshot {verb} RUN`; `{flag}` ends with the next release.\n"
    assert asked == states * 2


def test_snapshot_runs_are_listed_by_both_spellings(asked: list[tuple[str, str]]) -> None:
    assert run("snapshot", "list").stdout == run("backfill", "--runs").stdout == "No runs are on record.\n"
    assert run("snapshot", "list", "--json").stdout == '{\n  "runs": []\n}\n'


def test_the_cluster_of_worker_properties_is_an_argument_and_was_an_option() -> None:
    now, before = run("worker-properties", "main"), run("worker-properties", "--cluster", "main")
    assert now.stdout == before.stdout and "group.id=cdc-connect-main" in now.stdout
    assert now.stderr == "" and "write `worker-properties CLUSTER`" in before.stderr


@pytest.mark.parametrize("kind", Verdict)
def test_verify_says_no_with_one_code_and_the_old_ones_while_they_are_asked_for(kind: Verdict) -> None:
    proven = kind is Verdict.PROVEN
    assert exit_code(kind, {}) == (0 if proven else 2)
    before = {Verdict.PROVEN: 0, Verdict.MISMATCHED: 2, Verdict.PENDING: 3, Verdict.UNVERIFIABLE: 4}
    assert exit_code(kind, {OLD_EXITS_ENV: "1"}) == before[kind]


def test_without_a_demo_the_flag_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_of_this_user", list)
    refused = run("--demo", "status")
    assert refused.exit_code == 1 and refused.stdout == ""
    assert refused.stderr == (
        "Error: --demo: no demo of this user runs on this machine. Cure: Start one with `cdc-platform demo`.\n"
    )


class _Process:
    """A process with its command line and parent."""

    def __init__(self, *arguments: str, parent: _Process | None = None) -> None:
        self._arguments, self._parent = list(arguments), parent

    def cmdline(self) -> list[str]:
        return self._arguments

    def parent(self) -> _Process | None:
        return self._parent


def supervisor(directory: Path, *parent: str) -> _Process:
    named = ("python", "-m", "cdc_platform.local.supervisor", "--dir", str(directory), "--owner-fd", "9")
    return _Process(*named, parent=_Process(*parent))


def test_the_demo_is_found_by_its_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, tests = tmp_path / "one", tmp_path / "two", tmp_path / "tests"
    for place in (one, two, tests):
        place.mkdir()
    processes = [supervisor(one, "cdc-platform", "demo"), supervisor(tests, "pytest"), _Process("demo")]
    monkeypatch.setattr(running, "_of_this_user", lambda: processes)
    with pytest.raises(StackError, match="still starting"):
        running.demo_settings()
    for place in (one, tests):
        (place / "cdc-platform.toml").touch()
    assert running.demo_settings() == one / "cdc-platform.toml"
    processes.append(supervisor(two, "cdc-platform", "demo"))
    (two / "cdc-platform.toml").touch()
    with pytest.raises(StackError, match=f"2 demos run.*{one}.* or {two}"):
        running.demo_settings()


def test_the_demos_settings_are_not_mixed_with_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cdc-platform.toml"
    file.write_text('zookeeper = "demo.invalid:5"\n')
    monkeypatch.setattr(running, "demo_settings", lambda: file)
    monkeypatch.setattr(os, "environ", dict(os.environ) | {"CDC_PLATFORM_ZOOKEEPER": "mine:1"})
    refused = run("--demo", "topology", "show")
    assert refused.exit_code == 1 and "demo.invalid:5" in refused.stderr and str(file) in refused.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_a_script_that_completes(shell: str) -> None:
    done = run("completion", shell)
    assert done.exit_code == 0 and "_CDC_PLATFORM_COMPLETE" in done.stdout


def test_commands_and_options_are_completed() -> None:
    def of(words: str) -> set[str]:
        env = os.environ | {"_CDC_PLATFORM_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "2"}
        code = "import sys; sys.argv[0] = 'cdc-platform'; from cdc_platform.cli.main import main; main()"
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
        return set(done.stdout.split())

    assert of("cdc-platform snapshot pa") == {"plain,pause"}
    assert "plain,--continue" in of("cdc-platform verify --") and "plain,--run-id" not in of("cdc-platform verify --")

"""`pip install .` in an empty environment: the Dagster integration and the command line, without any extra."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an environment's programs, with the package as `constraints.txt` has it."""
    home = tmp_path_factory.mktemp("plain")
    subprocess.run([sys.executable, "-m", "venv", home], check=True, timeout=120)
    constraints = ROOT / "constraints.txt"
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", constraints, ROOT]
    subprocess.run([str(home / "bin" / "python"), *map(str, install)], check=True, timeout=550)
    return home / "bin"


def run(programs: Path, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = [str(programs / command[0]), *command[1:]]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CDC_PLATFORM_", "PYTHONPATH"))}
    settings = {"CDC_PLATFORM_ZOOKEEPER": "127.0.0.1:1", "CDC_PLATFORM_CACHE_DIR": str(cwd), "DAGSTER_HOME": str(cwd)}
    return subprocess.run(
        program, capture_output=True, text=True, timeout=240, cwd=cwd, env=clean | settings, check=False
    )


def test_dagster_loads_the_definitions(programs: Path, tmp_path: Path) -> None:
    done = run(programs, "dagster", "definitions", "validate", "-m", "cdc_platform.definitions", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_plan_says_that_zookeeper_does_not_answer(programs: Path, tmp_path: Path) -> None:
    done = run(programs, "cdc-platform", "plan", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "127.0.0.1:1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["stack", "demo"])
def test_what_an_extra_brings_is_named_with_its_command(programs: Path, tmp_path: Path, command: str) -> None:
    done = run(programs, "cdc-platform", command, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith("Cure: Install it: `pip install 'cdc-platform[local]'`.\n")
    assert len(done.stderr.splitlines()) == 1


def test_help_lists_all_commands(programs: Path, tmp_path: Path) -> None:
    done = run(programs, "cdc-platform", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "  stack " in done.stdout
    assert "  verify " in done.stdout

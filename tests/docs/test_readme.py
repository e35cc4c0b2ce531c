"""README.md: each block is run, or can be typed; what its commands are, test_reference.py holds."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import ROOT, blocks, commands, constraints_with_wheel, stranger

BLOCKS = blocks(ROOT / "README.md")
SHELL = [commands(text) for kind, text in BLOCKS if kind == "sh"]
# Its parts, by what they begin with.
TRY, INSTALL, USE = (next(b for b in SHELL if b[0].startswith(start)) for start in ("make", "pip", "cdc-platform"))


def test_every_block_is_shell_a_component_or_a_drawing() -> None:
    assert [kind for kind, _ in BLOCKS] == ["text", "sh", "sh", "yaml", "sh"]
    assert len(TRY) + len(INSTALL) + len(USE) == sum(map(len, SHELL)) > 12
    assert all(line.startswith("cdc-platform ") for line in USE)


def run(command: str, cwd: Path, environment: dict[str, str], seconds: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )


@pytest.mark.slow
def test_the_targets_exist() -> None:
    for line in TRY:
        assert line.startswith("make ")
        done = run(f"{line} --dry-run", ROOT, stranger(ROOT))
        assert done.returncode == 0, done.stderr
        assert "pytest" in done.stdout or line == "make demo"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_agent_alone_is_installed_by_its_line(tmp_path: Path) -> None:
    constraints = constraints_with_wheel(tmp_path)
    shutil.copy2(ROOT / "requirements-agent.txt", tmp_path)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "agent"], check=True, timeout=300)
    environment = stranger(tmp_path) | {"PIP_CONSTRAINT": str(constraints)}
    environment["PATH"] = f"{tmp_path / 'agent' / 'bin'}:{environment['PATH']}"
    line = INSTALL[-1]
    assert "requirements-agent.txt" in line
    done = run(line, tmp_path, environment, seconds=1000)
    assert done.returncode == 0, done.stderr
    shown = run("cdc-platform agent --help", tmp_path, environment)
    assert shown.returncode == 0 and "Usage: cdc-platform agent" in shown.stdout, shown.stderr


def test_what_is_installed_exists() -> None:
    """The package itself is installed from its wheel by the tutorial's test."""
    extras = {name for line in INSTALL for name in re.findall(r"cdc-platform\[(\w+)\]", line)}
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras and extras <= set(known)
    assert INSTALL[0] == "pip install cdc-platform"


def test_the_component_is_one_that_dagster_finds() -> None:
    (text,) = [text for kind, text in BLOCKS if kind == "yaml"]
    module, _, name = yaml.safe_load(text)["type"].rpartition(".")
    __import__(module)
    assert name in dir(sys.modules[module])

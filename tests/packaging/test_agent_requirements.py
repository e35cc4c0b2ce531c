"""`requirements-agent.txt`: enough for the agent, and no more; Dagster and numpy are not among it."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
FILE = ROOT / "requirements-agent.txt"
LISTED = [Requirement(line) for line in FILE.read_text().splitlines() if line and not line.startswith("#")]
NAMES = {requirement.name for requirement in LISTED}
OWN = ("click", "httpx", "javaproperties", "kazoo", "msgspec", "psycopg", "pymysql", "pyyaml")

# Imports all that the agent may, in a process in which nothing but the listed distributions can be imported.
_SCRIPT = """
import importlib, json, pkgutil, re, sys
from importlib.metadata import entry_points, packages_distributions

listed = set(sys.argv[1:])
owners = {
    module: {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    for module, names in packages_distributions().items()
}


class OnlyListed:
    def find_spec(self, name, path=None, target=None):
        owned = owners.get(name.partition(".")[0])
        if owned and not owned & (listed | {"cdc-platform"}):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


sys.meta_path.insert(0, OnlyListed())
before = set(sys.modules)
import cdc_platform.agent

for module in pkgutil.iter_modules(cdc_platform.agent.__path__):
    if module.name != "__main__":
        importlib.import_module(f"cdc_platform.agent.{module.name}")
from cdc_platform.cli.main import main

assert main.get_command(None, "agent") is not None
for probe in entry_points(group="cdc_platform.leader_probes"):
    probe.load()
import kazoo.handlers.threading

found = {name for module in set(sys.modules) - before for name in owners.get(module.partition(".")[0], ())}
print(json.dumps(sorted(found - {"cdc-platform"})))
"""


def imported() -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *NAMES], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return set(re.findall(r'"([^"]+)"', done.stdout))


def needed(names: set[str]) -> set[str]:
    """These distributions and all that they depend on here, extras left out but for psycopg's binary."""
    found: set[str] = set()
    left = {*names, "psycopg-binary"}
    while left:
        found |= left
        wanted = [Requirement(text) for name in left for text in requires(name) or ()]
        names_wanted = {
            re.sub(r"[-_.]+", "-", each.name).lower()
            for each in wanted
            if each.marker is None or each.marker.evaluate({"extra": ""})
        }
        left = names_wanted - found
    return found


def test_the_agent_imports_what_is_listed_and_all_of_it_is_needed() -> None:
    found = imported()
    assert set(OWN) <= found <= NAMES
    assert needed(set(OWN)) == NAMES


@pytest.mark.slow
def test_an_empty_environment_runs_the_agent(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=120)
    install: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        ROOT,
        "-r",
        FILE,
    ]
    subprocess.run(install, check=True, timeout=500)
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True, timeout=60)
    assert re.search(r"^cdc-platform ", listed.stdout, re.MULTILINE)
    assert not re.search(r"^(dagster|numpy|pyarrow|pandas)", listed.stdout, re.MULTILINE)
    for command in (["cdc-platform", "agent", "--help"], ["python", "-m", "cdc_platform.agent", "--help"]):
        program = [str(python.with_name(command[0])), *command[1:]]
        done = subprocess.run(program, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
        assert "--leader-dir" in done.stdout, done.stderr
    # Nothing listens there: the agent has got as far as its first sync.
    agent: list[str | Path] = [
        python.with_name("cdc-platform"), "agent", "--zookeeper", "127.0.0.1:1", "--worker", "w0",
        "--connect-url", "http://127.0.0.1:1", "--leader-dir", tmp_path / "leaders",
    ]  # fmt: skip
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        subprocess.run(agent, capture_output=True, timeout=8, cwd=tmp_path, check=False)
    assert b"Traceback" not in (caught.value.stderr or b"")

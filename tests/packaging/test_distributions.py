"""What `make build` makes: a wheel and a source archive that say what they are and hold what they need."""

from __future__ import annotations

import email
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from pathlib import Path

import pytest

import cdc_platform
from cdc_platform.errors import EXTRAS
from tests.docs.pages import ROOT, build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`dist/`: the source archive of this checkout, and the wheel that is made of it."""
    out = tmp_path_factory.mktemp("dist")
    build(out)
    return out


def only(made: Path, pattern: str) -> Path:
    (found,) = made.glob(pattern)
    return found


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_string(archive.read(name).decode())


def test_the_metadata_is_the_project_s(made: Path) -> None:
    found = metadata(only(made, "*.whl"))
    assert (found["Name"], found["Version"]) == ("cdc-platform", cdc_platform.__version__)
    assert (found["Requires-Python"], found["Summary"]) == (PROJECT["requires-python"], PROJECT["description"])
    assert found["License-Expression"] == "Apache-2.0" and "LICENSE" in (found.get_all("License-File") or [])
    assert set(found.get_all("Provides-Extra") or []) == set(EXTRAS) | {"all", "dev"}
    assert str(found.get_payload()).strip() == (ROOT / "README.md").read_text().strip()
    plain = [text for text in found.get_all("Requires-Dist") or [] if "extra ==" not in text]
    assert len(plain) == len(PROJECT["dependencies"])


def test_the_wheel_has_what_commands_read_and_nothing_of_the_tests(made: Path) -> None:
    with zipfile.ZipFile(only(made, "*.whl")) as archive:
        names = set(archive.namelist())
        (entry,) = (name for name in names if name.endswith("entry_points.txt"))
        entries = archive.read(entry).decode()
    for name in ("py.typed", "requirements-agent.txt", "local/artifacts.lock.json", "project/examples/topology.yaml",
                 "project/dagster_home/dagster.yaml"):  # fmt: skip
        assert f"cdc_platform/{name}" in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"cdc_platform"}
    assert "cdc-platform = cdc_platform.cli.main:main" in entries


def test_the_source_archive_builds_the_same_wheel(made: Path, tmp_path: Path) -> None:
    """`build` makes the wheel of the archive: it has all modules of the checkout, the archive no file of a user's."""
    asked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = asked.stdout.splitlines()
    with tarfile.open(only(made, "*.tar.gz")) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    modules = {name for name in listed if name.startswith("cdc_platform/") and name.endswith(".py")}
    with zipfile.ZipFile(only(made, "*.whl")) as wheel:
        assert modules <= set(wheel.namelist())
    assert modules | {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"} <= packed
    assert not [name for name in packed if name.startswith((".stack", ".venv", ".git/", "deploy/compose/secrets/m"))]


def test_both_can_be_installed(made: Path, tmp_path: Path) -> None:
    for kind in ("*.whl", "*.tar.gz"):
        to = tmp_path / kind.strip("*.")
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(to)]
        done = subprocess.run(
            [*install, str(only(made, kind))], capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, done.stderr
        assert (to / "cdc_platform" / "cli" / "main.py").is_file() and (to / "bin" / "cdc-platform").is_file()

"""What images and agents install is pinned by hash, to the versions that are tested together."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.surface.packaging import ROOT

LOCKS = ROOT / "deploy" / "locks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def pins(name: str) -> Mapping[str, tuple[str, list[str]]]:
    """Version and hashes by name."""
    text = (LOCKS / f"{name}.txt").read_text().replace(" \\\n", " ")
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            pin, *hashes = line.split()
            package, _, version = pin.partition("==")
            found[package] = version, hashes
    return found


@pytest.mark.parametrize("lock", ["image", "agent"])
def test_each_package_has_the_tested_version_and_a_hash(lock: str) -> None:
    tested = {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in map(Requirement, script("lock").listed(ROOT / "constraints.txt"))
    }
    locked = pins(lock)
    assert len(locked) > 10
    for name, (version, hashes) in locked.items():
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), name
        assert tested.get(canonicalize_name(name), version) == version, name


def test_all_requirements_are_locked() -> None:
    lock = script("lock")
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {
        "image": lock.requirements_of(document, ("alerts", "local", "quotas")),
        "agent": lock.listed(ROOT / "requirements-agent.txt"),
    }
    for name, requirements in wanted.items():
        locked = pins(name)
        for requirement in map(Requirement, requirements):
            version, _ = locked[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), (name, requirement)


def test_the_image_installs_by_hash_and_builds_without_the_index() -> None:
    lines = (ROOT / "deploy" / "compose" / "Dockerfile").read_text().splitlines()
    installs = [line for line in lines if "pip install" in line]
    assert ["--require-hashes" in line or "--no-deps --no-build-isolation" in line for line in installs] == [True, True]


def _audited(tmp_path: Path, prints: str, code: int) -> subprocess.CompletedProcess[str]:
    program = tmp_path / "pip-audit"
    program.write_text(f"#!/bin/sh\n{prints}\nexit {code}\n")
    program.chmod(0o755)
    argv = [sys.executable, str(ROOT / ".ci" / "audit.py"), str(program), "x.txt"]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("prints", "code", "ends", "says"),
    [
        ('echo \'{"dependencies":[{"name":"a","version":"1","vulns":[]}]}\'', 0, 0, "nothing is known against"),
        ('echo \'{"dependencies":[{"name":"a","version":"1","vulns":[{"id":"X-1"}]}]}\'', 1, 1, "a 1: X-1"),
        ("echo 'ConnectionError: no route' >&2", 1, 2, "could not be had (ConnectionError: no route)"),
    ],
    ids=["clean", "hole", "no data"],
)
def test_an_audit_without_its_data_is_no_clean_audit(
    tmp_path: Path, prints: str, code: int, ends: int, says: str
) -> None:
    done = _audited(tmp_path, prints, code)
    assert done.returncode == ends
    assert says in done.stdout + done.stderr

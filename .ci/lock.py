"""Writes deploy/locks: each package of an image or of an agent's host with its version and the hashes of its files.

`make locks`. pip resolves, from the index that it is configured with, for the systems below and within
constraints.txt, and says what it would install; nothing is installed. Wheels only: what is built on the spot
has no hash that anybody could know before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "deploy" / "locks"
# The newest glibc of a system on which wheels are looked for: Debian 12, and hosts ten years old.
NEW, OLD = 36, 17


@dataclass(frozen=True)
class Lock:
    """A file of pins: what for, from which requirements, for which Pythons and versions of glibc 2."""

    name: str
    what: str
    requirements: tuple[str, ...]
    pythons: tuple[str, ...]
    glibcs: tuple[int, ...]


def requirements_of(document: Mapping[str, Any], extras: Iterable[str]) -> tuple[str, ...]:
    """Those of pyproject.toml with these extras, and of its build, which runs in the image without a network."""
    project = document["project"]
    found = [*project["dependencies"], *document["build-system"]["requires"]]
    for extra in extras:
        found += project["optional-dependencies"][extra]
    return tuple(found)


def listed(file: Path) -> tuple[str, ...]:
    """The requirements of a file."""
    lines = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    return tuple(line for line in lines if line)


def locks() -> Iterator[Lock]:
    """All of them."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    image = requirements_of(document, ("alerts", "local", "quotas"))
    agent = listed(ROOT / "requirements-agent.txt")
    yield Lock("image", "the image of deploy/compose", image, ("3.11",), (NEW,))
    yield Lock("agent", "an agent's host", agent, ("3.11", "3.12", "3.13"), (OLD, NEW))


def resolved(lock: Lock, python: str, glibc: int) -> dict[str, tuple[str, str]]:
    """By name: version and SHA-256 of what pip would install on such a system."""
    tags = [f"manylinux_2_{minor}_x86_64" for minor in range(glibc, 4, -1)]
    tags += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.json")
        argv = [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"),
            *("--ignore-installed", "--only-binary=:all:", "--implementation=cp", f"--python-version={python}"),
            *(f"--platform={tag}" for tag in tags),
            *(f"--target={scratch}", f"--report={report}", f"--constraint={ROOT / 'constraints.txt'}"),
            *lock.requirements,
        ]
        # A directory of wheels beside the index may hold files that nobody else has.
        environment = {name: value for name, value in os.environ.items() if name != "PIP_FIND_LINKS"}
        subprocess.run(argv, check=True, env=environment)
        found = json.loads(report.read_text())["install"]
    return {
        each["metadata"]["name"].lower().replace("_", "-").replace(".", "-"): (
            each["metadata"]["version"],
            each["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for each in found
    }


def text_of(lock: Lock) -> str:
    """The file."""
    versions: dict[str, str] = {}
    hashes: dict[str, set[str]] = {}
    for python in lock.pythons:
        for glibc in lock.glibcs:
            for name, (version, digest) in resolved(lock, python, glibc).items():
                if versions.setdefault(name, version) != version:
                    sys.exit(f"{name} has versions {versions[name]} and {version}. Cure: pin it in constraints.txt.")
                hashes.setdefault(name, set()).add(digest)
    lines = [
        f"# For {lock.what}: Python {', '.join(lock.pythons)}, Linux x86-64, glibc 2.{min(lock.glibcs)} or newer.",
        "# Made by `make locks` from pyproject.toml, requirements-agent.txt and constraints.txt.",
    ]
    for name in sorted(versions):
        lines.append(
            " \\\n    ".join([f"{name}=={versions[name]}", *(f"--hash=sha256:{h}" for h in sorted(hashes[name]))])
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write them all."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    for lock in locks():
        file = LOCKS / f"{lock.name}.txt"
        file.write_text(text_of(lock))
        print(file.relative_to(ROOT))


if __name__ == "__main__":
    main()

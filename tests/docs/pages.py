"""Blocks of a page, and what they are run with: a wheel of this checkout, and an environment without ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def blocks(page: Path) -> list[tuple[str, str]]:
    """The page's fenced blocks: their language (empty for none), and their text."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """The lines of a shell block without their comments."""
    lines = (re.split(r"\s+#\s", line)[0].strip() for line in text.replace("\\\n", " ").splitlines())
    return [line for line in lines if line]


def build(out: Path, *what: str) -> None:
    """Build this checkout into `out`; `what` as `python -m build` has it, `--wheel` say."""
    command = [sys.executable, "-m", "build", *what, "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:  # hatchling is not installed here
        command.remove("--no-isolation")
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def constraints_with_wheel(directory: Path) -> Path:
    """Constraints by which pip takes a wheel of this checkout for `cdc-platform`, and tested versions of all else."""
    build(directory / "dist", "--wheel")
    (found,) = (directory / "dist").glob("*.whl")
    path = directory / "constraints.txt"
    path.write_text(f"{(ROOT / 'constraints.txt').read_text()}\ncdc-platform @ {found.as_uri()}\n")
    return path


def stranger(home: Path) -> dict[str, str]:
    """The environment of a user who has none of our settings, in a home directory of their own.

    What was downloaded before (pip's files, the local stack's programs) may be used again: that costs time only.
    """
    ours = ("CDC_", "PYTHONPATH", "VIRTUAL_ENV", "DAGSTER_", "MAKE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return {"PIP_CACHE_DIR": str(caches / "pip"), **kept, "HOME": str(home), "XDG_CACHE_HOME": str(caches)}

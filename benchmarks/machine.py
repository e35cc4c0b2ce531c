"""Where a benchmark ran: the machine, the versions, the load."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cdc_platform
from cdc_platform.local.artifacts import Lock

_DISTRIBUTIONS = ("dagster", "confluent-kafka", "kazoo", "numpy", "duckdb", "reladiff")
_PROGRAMS = ("kafka", "zookeeper", "mariadb", "postgres", "debezium-mariadb", "debezium-postgres")
_ROOT = Path(__file__).parents[1]


def machine() -> dict[str, Any]:
    """Processor, cores that may be used, memory in GB and kernel."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": models[0].partition(": ")[2] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e9),
        "kernel": platform.release().partition("-")[0],
    }


def versions() -> dict[str, str]:
    """Of this software with its commit, of Python, of libraries and of the stack's programs."""
    found = {"cdc-platform": f"{cdc_platform.__version__} ({_commit()})", "python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    parts = Lock.load().parts
    return found | {name: parts[name][0].version for name in _PROGRAMS if name in parts}


def load() -> float:
    """Of the last minute."""
    return round(os.getloadavg()[0], 1)


def _commit() -> str:
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return f"{commit} with changes" if _git("status", "--porcelain", "--", "cdc_platform", "benchmarks") else commit
    except (OSError, subprocess.CalledProcessError):
        return "no checkout"


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=_ROOT, capture_output=True, text=True, check=True).stdout.strip()

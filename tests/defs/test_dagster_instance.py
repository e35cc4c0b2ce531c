"""The instance files, and the code location in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from cdc_platform.defs.reconcile_job import MAX_RUNTIME, TAG_EXCLUSIVE, run_tags

ROOT = Path(__file__).parents[2]
HOME = ROOT / "dagster_home"


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((HOME / name).read_text())
    return document


def test_both_instances_differ_in_their_storage_only() -> None:
    postgres = read("postgres.yaml")
    storage = postgres.pop("storage")["postgres"]["postgres_db"]
    assert postgres == read("dagster.yaml")
    assert storage["scheme"] == "postgresql+psycopg2"
    assert all("env" in storage[field] for field in ("hostname", "port", "username", "password", "db_name"))


def test_the_sqlite_instance_loads_and_limits_passes_to_one(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text((HOME / "dagster.yaml").read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
    limit = read("dagster.yaml")["concurrency"]["runs"]["tag_concurrency_limits"][0]
    assert limit == {"key": TAG_EXCLUSIVE, "value": {"applyLimitPerUniqueValue": True}, "limit": 1}
    assert run_tags("cdc")["dagster/max_runtime"] == str(MAX_RUNTIME)


def test_the_workspace_names_this_code_location() -> None:
    location = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"][0]["python_module"]
    assert location["module_name"] == "cdc_platform.definitions"


@pytest.mark.slow
def test_the_code_location_loads_while_zookeeper_is_away(tmp_path: Path) -> None:
    env = {
        **os.environ,
        "DAGSTER_HOME": str(tmp_path),
        "CDC_PLATFORM_ZOOKEEPER": "127.0.0.1:1",
        "CDC_PLATFORM_CACHE_DIR": str(tmp_path / "cache"),
    }
    dagster = str(Path(sys.executable).parent / "dagster")
    command = [dagster, "definitions", "validate", "-w", str(ROOT / "workspace.yaml")]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "All code locations passed validation" in output
    assert "ZooKeeper" in output

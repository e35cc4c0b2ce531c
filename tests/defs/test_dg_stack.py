"""The component in a project of `dg`: scaffolded, checked and listed by the real commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Dataset, Engine, Table, Topology
from cdc_platform.settings import Settings
from cdc_platform.wiring import open_platform
from tests.own_secrets import own_secrets

pytestmark = [pytest.mark.stack]

DEFINITIONS = """
from pathlib import Path

from dagster import definitions, load_from_defs_folder


@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
PROJECT = """
[project]
name = "mine"
version = "0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "mine"
"""


class Project:
    """A project of `dg` with an empty defs folder."""

    def __init__(self, place: Path, settings: Settings) -> None:
        self.place = place
        module = place / "src" / "mine"
        (module / "defs").mkdir(parents=True)
        (module / "__init__.py").touch()
        (module / "definitions.py").write_text(DEFINITIONS)
        (place / "pyproject.toml").write_text(PROJECT)
        self._env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(place / "src"), *sys.path]),
            "DAGSTER_HOME": str(place),
            "DG_CLI_CONFIG": str(place.parent / "dg.toml"),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "CDC_PLATFORM_ZOOKEEPER_ROOT": settings.zookeeper_root,
            "CDC_PLATFORM_CACHE_DIR": str(place / "cache"),
        }
        (place.parent / "dg.toml").write_text("[cli.telemetry]\nenabled = false\n")

    def dg(self, *arguments: str) -> str:
        """The output of a command that must succeed."""
        command: Sequence[str] = (str(Path(sys.executable).with_name("dg")), *arguments)
        done = subprocess.run(
            command, cwd=self.place, env=self._env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def test_dg_scaffolds_checks_and_lists_the_component(stack: Stack, settings: Settings, tmp_path: Path) -> None:
    tables = (Table(name="pins"), Table(name="boards"))
    cluster, credentials = stack.cluster(), own_secrets("pins")
    dataset = Dataset(
        name="pins", engine=Engine.MARIADB, tables=tables, clusters=(cluster.name,), credentials=credentials
    )
    topology = Topology(datasets={"pins": dataset}, shards={"pins": ()}, clusters={cluster.name: cluster})
    with open_platform(settings) as platform:
        platform.topology.import_topology(topology)
    project = Project(tmp_path / "project", settings)
    project.dg(
        "scaffold", "defs", "cdc_platform.defs.CdcPlatformComponent", "cdc",
        "--zookeeper", settings.zookeeper, "--kafka", settings.kafka["bootstrap.servers"],
    )  # fmt: skip
    project.dg("check", "yaml")
    project.dg("check", "defs")
    listed = json.loads(project.dg("list", "defs", "--json"))
    assert "cdc/pins/pins" in {one["asset_key"] for one in listed["assets"]}
    assert {"cdc_reconcile", "cdc_verify"} <= {one["name"] for one in listed["jobs"]}
    assert "reconcile_sensor" in {one["name"] for one in listed["sensors"]}

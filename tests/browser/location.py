"""A platform in memory as a code location. Each process that loads it has one of its own, made alike."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from cdc_platform.defs import snapshot_jobs
from cdc_platform.defs.component import CdcPlatformComponent
from cdc_platform.model.topology import BootstrapMode, Topology
from cdc_platform.reconciler.run_pass import policy_of, reconcile
from cdc_platform.settings import Settings
from tests.defs.harness import WORLDS, Harness, HarnessResource, dataset, topology
from tests.defs.test_snapshot_jobs import OFFSET, outside

WORLD = "browser"
# Where caches and audit frames are.
DIRECTORY_ENV = "CDC_BROWSER_DIRECTORY"
SHARDS = 60


def wanted() -> Topology:
    """One dataset, whose streams begin where they are."""
    return topology(
        datasets={"pins": dataset("pins", bootstrap=BootstrapMode.LATEST)},
        shards={"pins": topology(pins=SHARDS).shards["pins"]},
    )


def made(directory: Path) -> Harness:
    """The platform, captured."""
    settings = Settings(
        cache_dir=str(directory / "cache"),
        audit_dir=str(directory / "audit"),
        dagster_url=os.environ.get("CDC_BROWSER_URL", ""),
    )
    found = WORLDS[WORLD] = Harness(settings=settings, name=WORLD)
    found.put(wanted())
    with found.platform() as platform:
        for number in range(3):
            reconcile(platform, owner=f"first {number}", policy=policy_of(platform))
    for name in found.connect.connectors():
        found.connect.model.commit_offsets(name, [{"partition": {"server": name}, "offset": OFFSET}])
    return found


@dg.definitions
def defs() -> dg.Definitions:
    """What Dagster's processes load."""
    harness = made(Path(os.environ[DIRECTORY_ENV]))
    # A process that has loaded this is a code server or a run: nothing else of the tests is in it.
    vars(snapshot_jobs)["open_snapshots"] = lambda platform: outside(harness, platform)
    component = CdcPlatformComponent(
        platform=HarnessResource(config_file=WORLD),
        sources="mariadb/{dataset}/{table}",
        links={"wiki": "https://wiki/cdc"},
    )
    popular = dg.asset(name="popular_pins", deps=[dg.AssetKey(["cdc", "pins", "pins"])])(lambda: None)
    source = dg.AssetSpec(["mariadb", "pins", "pins"], group_name="sources", kinds={"mariadb"})
    return dg.Definitions.merge(dg.build_defs_for_component(component), dg.Definitions(assets=[popular, source]))

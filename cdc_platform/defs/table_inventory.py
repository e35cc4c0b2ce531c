"""Which tables there are, as a code location learns it when it loads.

A code location must load while ZooKeeper is away, else a moment's outage takes the
whole location (sensor and jobs too) off the air. So the last good list is kept in the
cache directory, and used when there is nothing better, with a warning.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import msgspec

from cdc_platform.defs.deadline import within
from cdc_platform.defs.resource import CdcPlatformResource
from cdc_platform.defs.translator import CdcTableProps, table_props
from cdc_platform.defs.watched_assets import WatchedProps, watched_props
from cdc_platform.errors import Unavailable
from cdc_platform.model.topology import Topology
from cdc_platform.settings import Settings

log = logging.getLogger(__name__)

LOAD_DEADLINE = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The tables and watched connectors of one platform, when they were read, and what is wrong with the list."""

    platform: str
    tables: tuple[CdcTableProps, ...]
    read_at: datetime
    problem: str | None = None
    watched: tuple[WatchedProps, ...] = ()

    def encode(self) -> bytes:
        """As JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, text: bytes) -> Inventory:
        """From JSON. Raises msgspec.DecodeError."""
        return msgspec.json.decode(text, type=cls)

    @property
    def datasets(self) -> tuple[str, ...]:
        """The names of the datasets."""
        return tuple(sorted({props.dataset for props in self.tables}))


def load_tables(*, resource: CdcPlatformResource, deadline: float = LOAD_DEADLINE) -> Inventory:
    """The tables now, from ZooKeeper; from the last good copy, or none, when ZooKeeper does not answer.

    Raises:
        SettingsError: the settings themselves are wrong.
    """
    # Fields may be `dg.EnvVar`; nothing has resolved them yet at load time.
    resolved = cast(CdcPlatformResource, resource.process_config_and_initialize())
    settings = resolved.settings()
    file = cache_file(settings)
    kept = _read(file)

    def topology() -> Topology:
        with resolved.platform() as platform:
            return platform.topology.load()

    try:
        found = within(deadline, topology, what="Reading the topology")
    except Unavailable as error:
        return _without_zookeeper(settings, kept, error)
    inventory = Inventory(
        platform=settings.platform,
        tables=table_props(found, platform=settings.platform),
        read_at=datetime.now(UTC),
        watched=watched_props(found),
    )
    broken = {problem.name: problem.message for problem in found.problems if problem.kind == "dataset"}
    if broken:
        inventory = _with_kept(inventory, kept, broken)
    same = kept is not None and (kept.tables, kept.watched) == (inventory.tables, inventory.watched)
    if inventory.problem is None and not same:
        _write(file, inventory)
    return inventory


def cache_file(settings: Settings) -> Path:
    """Where the last good list of a platform is kept; one for each ZooKeeper root."""
    place = re.sub(r"[^A-Za-z0-9]+", "-", f"{settings.platform} {settings.zookeeper}{settings.zookeeper_root}")
    return Path(settings.cache_dir) / "tables" / f"{place}.json"


def _without_zookeeper(settings: Settings, kept: Inventory | None, error: Unavailable) -> Inventory:
    if kept is None:
        problem = f"No assets: {error} No earlier list of tables is kept. Reload when it answers."
        log.error(problem)
        return Inventory(platform=settings.platform, tables=(), read_at=datetime.now(UTC), problem=problem)
    problem = f"The list of tables is of {kept.read_at:%Y-%m-%d %H:%M:%S}Z: {error}"
    log.warning(problem)
    return replace(kept, problem=problem)


def _with_kept(inventory: Inventory, kept: Inventory | None, broken: dict[str, str]) -> Inventory:
    """A dataset whose document is malformed keeps the tables that it had."""
    saved = tuple(props for props in kept.tables if props.dataset in broken) if kept else ()
    named = "; ".join(f"{name}: {message}" for name, message in sorted(broken.items()))
    problem = f"{len(broken)} datasets could not be read, their last good tables are used: {named}"
    log.warning(problem)
    tables = sorted((*inventory.tables, *saved), key=lambda props: props.dataset)
    return replace(inventory, tables=tuple(tables), problem=problem)


def _read(file: Path) -> Inventory | None:
    try:
        return Inventory.decode(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("%s: the kept list of tables is unreadable and ignored: %s", file, error)
        return None


def _write(file: Path, inventory: Inventory) -> None:
    """Atomically. A cache that cannot be written costs robustness, not the load."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
            part.write(inventory.encode())
        os.replace(part.name, file)  # noqa: PTH105
    except OSError as error:
        log.warning("%s: the list of tables could not be kept: %s", file, error)

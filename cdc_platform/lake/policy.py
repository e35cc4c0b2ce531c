"""Which tables of a dataset land in a lake, and where it is: the block `lake` of the dataset."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cdc_platform.errors import TopologyError
from cdc_platform.model.topology import Dataset
from cdc_platform.settings import Settings
from cdc_platform.verification.policy_values import Amount, Count, read_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class LakePolicy:
    """Where a lake is and how it is kept; `dataset.lake` sets these by name.

    `catalog` is a URL of SQLAlchemy (`sqlite:////srv/lake/catalog.db`), `warehouse` where files are: a path or what
    pyiceberg's fsspec and Arrow file systems take. `tables` are those that land there; all when empty. `buckets`:
    by key, of `base`. A bucket of `base` is rewritten when so many of its rows (`merge_share`) have changed.
    """

    catalog: str = ""
    warehouse: str = ""
    tables: tuple[str, ...] = ()
    buckets: Count = 16
    merge_share: Amount = 0.2

    @classmethod
    def of(cls, dataset: Dataset) -> LakePolicy | None:
        """The dataset's policy; None when it has no lake. Raises TopologyError."""
        if not dataset.lake:
            return None
        found = read_policy(cls, dataset.lake, dataset.name, "lake")
        for name in ("catalog", "warehouse"):
            if not getattr(found, name):
                raise TopologyError(
                    "a lake needs a catalog and a warehouse.",
                    where=f"dataset {dataset.name}",
                    field=f"lake.{name}",
                    cure="Name a SQLAlchemy URL and a directory.",
                )
        for name in found.tables:
            dataset.table(name)
        return found

    @classmethod
    def permitted(cls, dataset: Dataset, settings: Settings) -> LakePolicy | None:
        """The dataset's policy, to be opened; None when it has no lake.

        Who writes a dataset would otherwise choose which directory, database or host the platform writes to, and which
        driver it loads. Raises TopologyError where the operator's `permitted_lakes` does not name the place.
        """
        found = cls.of(dataset)
        for name in ("catalog", "warehouse") if found is not None else ():
            place = getattr(found, name)
            if not any(_names(pattern, place) for pattern in settings.permitted_lakes):
                raise TopologyError(
                    f"{place!r} is not among the places that lakes may be.",
                    where=f"dataset {dataset.name}",
                    field=f"lake.{name}",
                    cure="Have the operator add it to permitted_lakes in the settings.",
                )
        return found

    def takes(self, table: str) -> bool:
        """Does this table land in the lake?"""
        return not self.tables or table in self.tables


def _names(pattern: str, place: str) -> bool:
    """Does the pattern name the place? `*` stands for directories and names, never for a host, `..` or options."""
    parts = [re.escape(part) for part in pattern.split("*")]
    if re.fullmatch("([A-Za-z0-9_./-]*)".join(parts), place) is None:
        return False
    return pattern == place or not re.search(r"(^|[/:])\.\.?(/|$)", place)

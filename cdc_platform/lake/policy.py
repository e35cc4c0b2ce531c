"""Which tables of a dataset land in a lake, and where it is: the block `lake` of the dataset."""

from __future__ import annotations

from dataclasses import dataclass

from cdc_platform.errors import TopologyError
from cdc_platform.model.topology import Dataset
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

    def takes(self, table: str) -> bool:
        """Does this table land in the lake?"""
        return not self.tables or table in self.tables

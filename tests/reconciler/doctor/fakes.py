"""Sources in memory that answer the doctor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cdc_platform.canonical.catalog import CatalogColumn, CatalogTable, UniqueIndex
from cdc_platform.canonical.chunk_keys import TableKey
from cdc_platform.canonical.columns import Column
from cdc_platform.clients.sources.examiner import Examinations
from cdc_platform.connectors.identity import Identity
from cdc_platform.errors import CdcError
from cdc_platform.model.topology import Dataset, Engine, Shard
from cdc_platform.planning.doctor.examination import Capacity, Examination, ServerSeen

PRIMARY = UniqueIndex(name="PRIMARY", columns=("id",), primary=True)


def columns(engine: Engine) -> tuple[CatalogColumn, ...]:
    """`id` and `v`, two numbers."""
    long, short = ("bigint", "int") if engine.reads_binlog else ("int8", "int4")
    return (
        CatalogColumn(column=Column(name="id", type=long, nullable=False), declared=long),
        CatalogColumn(column=Column(name="v", type=short), declared=short),
    )


def table(engine: Engine, name: str) -> CatalogTable:
    """A sound table."""
    return CatalogTable(
        place="d", name=name, columns=columns(engine), indexes=(PRIMARY,), storage="InnoDB", identity="f"
    )


def well(dataset: Dataset, shard: Shard) -> Examination:
    """What a sound source of this shard says."""
    settings = {"max_allowed_packet": str(64 << 20), "max_slot_wal_keep_size": "1024"}
    most = Capacity(setting="max_connections", used=10, most=100_000, each=2)
    rooms = (most, *(Capacity(setting=name, used=0, most=10_000) for name in ("max_replication_slots",)))
    return Examination(
        server=ServerSeen(identity=str(shard.leader), settings=settings, capacities=rooms, account="cdc"),
        database=shard.database,
        tables={one.name: table(dataset.engine, one.name) for one in dataset.tables},
        keys={one.name: TableKey((columns(dataset.engine)[0].column,)) for one in dataset.tables},
        encoding="UTF8" if dataset.engine is Engine.POSTGRES else "",
    )


@dataclass
class FakeExaminer:
    """Sound sources, but for the shards (by name) that say something else, or do not answer. `asked` by name."""

    said: Mapping[str, Callable[[Examination], Examination]] = field(default_factory=dict)
    silent: Mapping[str, CdcError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def examine(self, dataset: Dataset, shards: Sequence[tuple[Shard, Identity]]) -> Examinations:
        self.asked += [shard.name for shard, _ in shards]
        found: dict[str, Examination | CdcError] = {}
        for shard, _ in shards:
            seen = well(dataset, shard)
            found[shard.name] = self.said[shard.name](seen) if shard.name in self.said else seen
        return {**found, **{name: error for name, error in self.silent.items() if name in found}}
